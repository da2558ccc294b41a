/* link.c: the relay's end of a link. */
#define _GNU_SOURCE
#include "ringbridge/link.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include "link_pvt.h"
#include "ringbridge/ops.h"
#include "ringbridge/telemetry.h"
#include "ringbridge/version.h"

static const uint64_t features_known =
    RB_FEATURE_CRC_ENVELOPE | RB_FEATURE_CRC_PAYLOAD | RB_FEATURE_ZSTD;

/* A number that is not 0 and that no earlier link had. */
static int fresh_nonce(uint64_t *nonce) {
    do
        if (getrandom(nonce, sizeof *nonce, 0) != sizeof *nonce) return -errno;
    while (*nonce == 0);
    return 0;
}

static struct rb_relay_header header_of(const struct rb_link *link,
                                        const struct rb_link_parts *parts, uint64_t pool) {
    const struct rb_link_config *c = &link->config;
    struct rb_relay_header h = {
        .magic = RB_RELAY_MAGIC,
        .version = RB_LAYOUT_VERSION,
        .slots = c->slots,
        .nonce = link->nonce,
        .features = c->features,
        .pool_bytes = pool,
        .result_bytes = c->result_bytes,
        .result_block_bytes = c->result_block_bytes,
        .result_blocks = (uint32_t)(c->result_bytes / c->result_block_bytes),
        .relay_side_bytes = parts->relay_side_bytes,
        .worker_side_bytes = parts->worker_side_bytes,
        .requests_at = parts->requests_at,
        .cancels_at = parts->cancels_at,
        .demands_at = parts->demands_at,
        .givebacks_at = parts->givebacks_at,
        .completions_at = parts->completions_at,
        .results_at = parts->results_at,
        .worker_id = c->worker_id,
    };
    memcpy(h.digest, RB_LAYOUT_DIGEST_BYTES, sizeof h.digest);
    return h;
}

/* The relay side: memory, header, guards, rings in place, then the seals. */
static int make_relay_side(struct rb_link *link, const struct rb_link_parts *parts,
                           uint64_t pool_bytes) {
    struct rb_relay_header header = header_of(link, parts, pool_bytes);
    struct rb_guard guards[RB_GUARDS_MAX];
    uint64_t bytes = parts->relay_side_bytes;
    uint8_t *base;
    int failed, fd = rb_memory_create("ringbridge-relay-side", bytes);

    if (fd < 0) return fd;
    failed = rb_memory_map(fd, bytes, 1, &base);
    if (failed) goto fail_fd;
    memcpy(base + RB_AT_HEADER, &header, sizeof header);
    failed = rb_memory_guard(base, guards, rb_link_relay_guards(parts, guards));
    if (failed) goto fail_map;
    rb_memory_populate(base + RB_AT_POSITIONS, RB_PAGE_BYTES);
    rb_memory_populate(base + parts->requests_at,
                       parts->cancels_at - parts->requests_at - RB_PAGE_BYTES);
    rb_memory_populate(base + parts->cancels_at,
                       parts->demands_at - parts->cancels_at - RB_PAGE_BYTES);
    rb_memory_populate(base + parts->givebacks_at, bytes - parts->givebacks_at - RB_PAGE_BYTES);
    failed = rb_memory_seal(fd, 1);
    if (failed < 0) goto fail_map;
    link->seals = (uint32_t)failed;
    link->fds.relay_side = fd;
    link->relay_side = base;
    link->relay_side_bytes = bytes;
    return 0;

fail_map:
    munmap(base, (size_t)bytes);
fail_fd:
    close(fd);
    return failed;
}

/* The worker side: the relay never writes it, so it has only a read-only mapping; the worker brings
 * its pages in. */
static int make_worker_side(struct rb_link *link, const struct rb_link_parts *parts) {
    struct rb_guard guards[RB_GUARDS_MAX];
    uint64_t bytes = parts->worker_side_bytes;
    uint8_t *base;
    int failed, fd = rb_memory_create("ringbridge-worker-side", bytes);

    if (fd < 0) return fd;
    failed = rb_memory_map(fd, bytes, 0, &base);
    if (failed) goto fail_fd;
    failed = rb_memory_guard(base, guards, rb_link_worker_guards(parts, guards));
    if (failed) goto fail_map;
    failed = rb_memory_seal(fd, 0);
    if (failed < 0) goto fail_map;
    link->fds.worker_side = fd;
    link->worker_side = base;
    link->worker_side_bytes = bytes;
    return 0;

fail_map:
    munmap(base, (size_t)bytes);
fail_fd:
    close(fd);
    return failed;
}

static void point(struct rb_link *link, const struct rb_link_parts *parts) {
    uint32_t slots = link->config.slots;
    uint64_t blocks = link->config.result_bytes / link->config.result_block_bytes;

    link->ours = (void *)(link->relay_side + RB_AT_POSITIONS);
    link->requests = (void *)(link->relay_side + parts->requests_at);
    link->cancels = (void *)(link->relay_side + parts->cancels_at);
    link->demands = (void *)(link->relay_side + parts->demands_at);
    link->givebacks = (void *)(link->relay_side + parts->givebacks_at);
    link->hello = (const void *)(link->worker_side + RB_AT_HEADER);
    link->ops = (const void *)(link->worker_side + RB_AT_HEADER + RB_AT_OPS);
    link->theirs = (const void *)(link->worker_side + RB_AT_POSITIONS);
    link->telemetry = (const void *)(link->worker_side + RB_AT_TELEMETRY);
    link->completions = (const void *)(link->worker_side + parts->completions_at);
    link->results = link->worker_side + parts->results_at;

    link->request_ring = (struct rb_ring_producer){.shared_tail = &link->ours->request_tail,
                                                   .shared_head = &link->theirs->request_head,
                                                   .slots = slots};
    link->completion_ring = (struct rb_ring_consumer){.shared_head = &link->ours->completion_head,
                                                      .shared_tail = &link->theirs->completion_tail,
                                                      .slots = slots};
    link->giveback_ring = (struct rb_ring_producer){.shared_tail = &link->ours->giveback_tail,
                                                    .shared_head = &link->theirs->giveback_head,
                                                    .slots = blocks};
    rb_gate_waker_init(&link->waker, &link->theirs->park, &link->ours->doorbell, -1, -1);
    link->waker.bell = link->bell; /* not an eventfd: gate.h says why */
    /* The relay waits on sockets and the clock too, so it never spins here. */
    rb_gate_waiter_init(&link->waiter, &link->ours->park, &link->theirs->doorbell,
                        link->fds.wake_relay, 0);
}

/* Blocking, so that it is the call that says whether to wait; as small as the kernel allows: one
 * byte is as good a ring as many. */
static int make_bell(struct rb_link *link) {
    const int least = 1;
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0) return -1;
    link->bell = ends[0];
    link->fds.wake_worker = ends[1];
    return setsockopt(ends[0], SOL_SOCKET, SO_SNDBUF, &least, sizeof least);
}

int rb_link_create(struct rb_link *link, const struct rb_link_config *config,
                   const struct rb_pool *pool) {
    struct rb_link made = {.config = *config, .fds = {-1, -1, -1, -1, -1}, .bell = -1};
    struct rb_link_parts parts;
    int failed;

    if (config->features & ~features_known) return -EINVAL;
    failed = rb_link_parts(&parts, config->slots, config->result_block_bytes, config->result_bytes);
    if (failed) return failed;
    failed = fresh_nonce(&made.nonce);
    if (failed) return failed;
    made.fds.pool = pool ? pool->fd : -1;
    failed = make_relay_side(&made, &parts, pool ? pool->bytes : 0);
    if (failed) return failed;
    failed = make_worker_side(&made, &parts);
    if (failed) goto fail;
    if (make_bell(&made) < 0) goto fail_errno;
    made.fds.wake_relay = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (made.fds.wake_relay < 0) goto fail_errno;
    point(&made, &parts);
    *link = made;
    return 0;

fail_errno:
    failed = -errno;
fail:
    rb_link_close(&made);
    return failed;
}

static void close_once(int *fd) {
    if (*fd >= 0) close(*fd);
    *fd = -1;
}

void rb_link_handed_over(struct rb_link *link) { close_once(&link->fds.wake_worker); }

void rb_link_close(struct rb_link *link) {
    if (link->relay_side) munmap(link->relay_side, (size_t)link->relay_side_bytes);
    if (link->worker_side) munmap((void *)link->worker_side, (size_t)link->worker_side_bytes);
    link->relay_side = NULL;
    link->worker_side = NULL;
    close_once(&link->fds.relay_side);
    close_once(&link->fds.worker_side);
    close_once(&link->bell);
    close_once(&link->fds.wake_worker);
    close_once(&link->fds.wake_relay);
}

/* --- hello ----------------------------------------------------------------------------------- */

/* The worker's text fields are shown to people, so they are checked like any other input:
 * NUL-terminated, printable. */
static int text_is_clean(const uint8_t *text, size_t bytes) {
    size_t i = 0;
    for (; i < bytes && text[i]; i++)
        if (text[i] < 0x20 || text[i] == 0x7f) return 0;
    return i < bytes;
}

/* The rule that a ready worker's hello breaks, or NULL. */
static const char *broken_rule(const struct rb_link *link, const struct rb_worker_header *h) {
    if (h->nonce != link->nonce) return "the hello does not echo this link's nonce";
    if (h->features & ~link->config.features)
        return "the hello takes features that were not offered";
    if (h->pid == 0) return "the hello names no pid";
    if (!text_is_clean(h->kit, sizeof h->kit))
        return "the kit's name is not printable, NUL-terminated text";
    if (!text_is_clean(h->role, sizeof h->role))
        return "the role's name is not printable, NUL-terminated text";
    return NULL;
}

int rb_link_hello(const struct rb_link *link, struct rb_worker_header *copy, char *why,
                  uint64_t why_bytes) {
    /* H1: pairs with H0 in rb_link_greet(): who sees READY sees the other fields. seq_cst as a
     * gate's look (G5). */
    uint32_t hello = rb_load_seq_cst(&link->hello->hello);
    struct rb_worker_header h;
    const char *rule;

    if (hello == RB_HELLO_NONE) return 0;
    memcpy(&h, link->hello,
           sizeof h); /* private from here on, whatever the worker goes on to write */
    h.hello = hello;
    if (h.magic != RB_WORKER_MAGIC) {
        snprintf(why, (size_t)why_bytes,
                 "the worker's header begins with %016llx, which is no worker's magic",
                 (unsigned long long)h.magic);
        return -EPROTO;
    }
    enum rb_layout_kin kin = rb_layout_kin(h.version, h.digest);
    /* A worker that is newer judges us, and says so by its hello. */
    if (kin == RB_LAYOUT_STRANGE || (kin != RB_LAYOUT_SAME && hello == RB_HELLO_REFUSED)) {
        rb_layout_mismatch("the worker", h.version, h.digest, "the bridge", why, why_bytes);
        return -EPROTO;
    }
    if (hello == RB_HELLO_REFUSED)
        rule = "the worker refused this link, though both sides have the same layout";
    else if (hello != RB_HELLO_READY)
        rule = "the hello is neither ready nor refused";
    else
        rule = broken_rule(link, &h);
    if (rule) {
        snprintf(why, (size_t)why_bytes, "%s", rule);
        return -EPROTO;
    }
    *copy = h;
    return 1;
}

int64_t rb_link_ops(const struct rb_link *link, const struct rb_worker_header *hello,
                    struct rb_worker_op ops[RB_OPS_MAX], char *why, uint64_t why_bytes) {
    uint32_t count = hello->ops <= RB_OPS_MAX ? hello->ops : RB_OPS_MAX;
    memcpy(ops, link->ops, count * sizeof *ops); /* private from here on */
    /* A later minor may know more ways of taking payloads, which we cannot mean. */
    for (uint32_t i = 0; i < count && hello->version > RB_LAYOUT_VERSION; i++)
        ops[i].takes &= RB_TAKES_RAW | RB_TAKES_TERM | RB_TAKES_PARTS;
    const char *rule = rb_ops_rule(ops, hello->ops);
    if (!rule) return count;
    snprintf(why, (size_t)why_bytes, "%s", rule);
    return -EPROTO;
}

int rb_link_telemetry(const struct rb_link *link, struct rb_telemetry *copy) {
    return rb_telemetry_load(link->telemetry, copy);
}
