/* link_worker.c: the worker's end of a link. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "link_pvt.h"
#include "ringbridge/ops.h"
#include "ringbridge/version.h"

static const uint64_t features_known =
    RB_FEATURE_CRC_ENVELOPE | RB_FEATURE_CRC_PAYLOAD | RB_FEATURE_ZSTD;
/* Those that every worker takes; the others it takes by rb_link_take(). */
static const uint64_t features_always = RB_FEATURE_CRC_ENVELOPE | RB_FEATURE_CRC_PAYLOAD;

static int refuse(char *why, uint64_t why_bytes, const char *rule) {
    snprintf(why, (size_t)why_bytes, "%s", rule);
    return -EPROTO;
}

/* What a worker of any layout may write and the relay of any layout can read: the first 48 bytes
 * (layout.toml). */
static void tell_refusal(const struct rb_link_fds *fds, uint64_t nonce) {
    struct rb_worker_header *hello;
    uint8_t *page;

    if (rb_memory_sealed_bytes(fds->worker_side) < RB_PAGE_BYTES) return;
    if (rb_memory_map(fds->worker_side, RB_PAGE_BYTES, 1, &page) < 0) return;
    hello = (void *)page;
    hello->magic = RB_WORKER_MAGIC;
    hello->version = RB_LAYOUT_VERSION;
    memcpy(hello->digest, RB_LAYOUT_DIGEST_BYTES, sizeof hello->digest);
    hello->nonce = nonce;
    hello->pid = (uint32_t)getpid();
    rb_store_seq_cst(&hello->hello, RB_HELLO_REFUSED); /* H0: pairs with H1 in rb_link_hello() */
    munmap(page, RB_PAGE_BYTES);
    /* Not through the gate: in another layout the park words may lie elsewhere. */
    if (fds->wake_relay >= 0) rb_gate_bump(fds->wake_relay);
}

/* The rule that a header of our own layout breaks, or NULL. `relay_bytes`, `worker_bytes`: what the
 * descriptors really hold. */
static const char *broken_rule(const struct rb_relay_header *h, const struct rb_link_parts *parts,
                               int64_t relay_bytes, int64_t worker_bytes, int64_t pool_bytes) {
    if (h->nonce == 0) return "the link has no nonce";
    if (h->version == RB_LAYOUT_VERSION && h->features & ~features_known)
        return "the link asks for features that this worker does not know";
    if (h->result_blocks != h->result_bytes / h->result_block_bytes)
        return "the number of result blocks does not fit";
    if (h->requests_at != parts->requests_at || h->cancels_at != parts->cancels_at ||
        h->demands_at != parts->demands_at || h->givebacks_at != parts->givebacks_at ||
        h->completions_at != parts->completions_at || h->results_at != parts->results_at ||
        h->relay_side_bytes != parts->relay_side_bytes ||
        h->worker_side_bytes != parts->worker_side_bytes)
        return "a part of the link is not where its sizes put it";
    if (relay_bytes != (int64_t)h->relay_side_bytes)
        return "the relay side has another size than its header says";
    if (worker_bytes != (int64_t)h->worker_side_bytes)
        return "the worker side has another size than the header says";
    if (pool_bytes != (int64_t)h->pool_bytes)
        return "the pool has another size than the header says, or is not sealed";
    return NULL;
}

static int check_header(const struct rb_relay_header *h, const struct rb_link_fds *fds,
                        struct rb_link_parts *parts, char *why, uint64_t why_bytes) {
    const char *rule;

    if (h->magic != RB_RELAY_MAGIC)
        return refuse(why, why_bytes, "descriptor 3 holds no link of a relay");
    if (rb_layout_kin(h->version, h->digest) == RB_LAYOUT_STRANGE) {
        rb_layout_mismatch("the bridge", h->version, h->digest, "this worker", why, why_bytes);
        tell_refusal(fds, h->nonce);
        return -EPROTO;
    }
    if (rb_link_parts(parts, h->slots, h->result_block_bytes, h->result_bytes) < 0)
        rule = "a size of the link breaks its rule";
    else
        rule = broken_rule(h, parts, rb_memory_sealed_bytes(fds->relay_side),
                           rb_memory_sealed_bytes(fds->worker_side),
                           fds->pool < 0 ? 0 : rb_memory_sealed_bytes(fds->pool));
    if (!rule) return 0;
    tell_refusal(fds, h->nonce);
    return refuse(why, why_bytes, rule);
}

static int copy_header(int fd, struct rb_relay_header *header) {
    uint8_t *page;
    int failed;
    if (rb_memory_sealed_bytes(fd) < RB_PAGE_BYTES) return -EPROTO;
    failed = rb_memory_map(fd, RB_PAGE_BYTES, 0, &page);
    if (failed) return failed;
    memcpy(header, page, sizeof *header);
    munmap(page, RB_PAGE_BYTES);
    return 0;
}

static int map_sides(struct rb_link_worker *link, const struct rb_link_parts *parts) {
    struct rb_guard guards[RB_GUARDS_MAX];
    uint8_t *relay_side, *worker_side, *pool = NULL;
    int failed = rb_memory_map(link->fds.relay_side, parts->relay_side_bytes, 0, &relay_side);

    if (failed) return failed;
    failed = rb_memory_guard(relay_side, guards, rb_link_relay_guards(parts, guards));
    if (failed) goto fail_relay;
    failed = rb_memory_map(link->fds.worker_side, parts->worker_side_bytes, 1, &worker_side);
    if (failed) goto fail_relay;
    failed = rb_memory_guard(worker_side, guards, rb_link_worker_guards(parts, guards));
    if (failed) goto fail_worker;
    if (link->header.pool_bytes) {
        failed = rb_memory_map(link->fds.pool, link->header.pool_bytes, 0, &pool);
        if (failed) goto fail_worker;
    }
    rb_memory_populate(worker_side + RB_AT_POSITIONS, 2 * RB_PAGE_BYTES);
    rb_memory_populate(worker_side + parts->completions_at,
                       parts->results_at - parts->completions_at - RB_PAGE_BYTES);
    rb_memory_populate(worker_side + parts->results_at, parts->populated_results);
    link->relay_side = relay_side;
    link->worker_side = worker_side;
    link->pool = pool;
    return 0;

fail_worker:
    munmap(worker_side, (size_t)parts->worker_side_bytes);
fail_relay:
    munmap(relay_side, (size_t)parts->relay_side_bytes);
    return failed;
}

static void point(struct rb_link_worker *link, const struct rb_link_parts *parts) {
    uint32_t slots = link->header.slots;

    link->theirs = (const void *)(link->relay_side + RB_AT_POSITIONS);
    link->requests = (const void *)(link->relay_side + parts->requests_at);
    link->cancels = (const void *)(link->relay_side + parts->cancels_at);
    link->demands = (const void *)(link->relay_side + parts->demands_at);
    link->givebacks = (const void *)(link->relay_side + parts->givebacks_at);
    link->hello = (void *)(link->worker_side + RB_AT_HEADER);
    link->ours = (void *)(link->worker_side + RB_AT_POSITIONS);
    link->telemetry = (void *)(link->worker_side + RB_AT_TELEMETRY);
    link->completions = (void *)(link->worker_side + parts->completions_at);
    link->results = link->worker_side + parts->results_at;

    link->request_ring = (struct rb_ring_consumer){.shared_head = &link->ours->request_head,
                                                   .shared_tail = &link->theirs->request_tail,
                                                   .slots = slots};
    link->completion_ring = (struct rb_ring_producer){.shared_tail = &link->ours->completion_tail,
                                                      .shared_head = &link->theirs->completion_head,
                                                      .slots = slots};
    link->giveback_ring = (struct rb_ring_consumer){.shared_head = &link->ours->giveback_head,
                                                    .shared_tail = &link->theirs->giveback_tail,
                                                    .slots = link->header.result_blocks};
    rb_gate_waker_init(&link->waker, &link->theirs->park, &link->ours->doorbell,
                       link->fds.wake_relay, -1);
    rb_gate_waiter_init(&link->waiter, &link->ours->park, &link->theirs->doorbell,
                        link->fds.wake_worker, RB_GATE_SPIN_MAX);
}

/* What the worker starts must not inherit the link: it would keep the memory and could write it. */
static void close_on_exec(const struct rb_link_fds *fds) {
    const int all[] = {fds->relay_side, fds->worker_side, fds->pool, fds->wake_worker,
                       fds->wake_relay};
    for (unsigned i = 0; i < sizeof all / sizeof *all; i++)
        if (all[i] >= 0) fcntl(all[i], F_SETFD, FD_CLOEXEC);
}

int rb_link_attach(struct rb_link_worker *link, const struct rb_link_fds *fds, char *why,
                   uint64_t why_bytes) {
    struct rb_link_worker made = {.fds = *fds};
    struct rb_link_parts parts;
    int failed;

    close_on_exec(fds);
    failed = copy_header(fds->relay_side, &made.header);
    if (failed == -EPROTO)
        return refuse(why, why_bytes, "descriptor 3 is no memory whose size is sealed");
    if (!failed) failed = check_header(&made.header, fds, &parts, why, why_bytes);
    if (failed == -EPROTO) return failed;
    if (!failed)
        failed = rb_region_init(&made.result_region, made.header.result_bytes,
                                made.header.result_block_bytes);
    if (!failed) {
        failed = map_sides(&made, &parts);
        if (failed) rb_region_fini(&made.result_region);
    }
    if (failed) {
        snprintf(why, (size_t)why_bytes, "the link cannot be mapped: %s", strerror(-failed));
        return failed;
    }
    made.offered = made.header.features & features_known; /* of a later minor, those that we know */
    made.header.features = made.offered & features_always;
    point(&made, &parts);
    *link = made;
    return 0;
}

static void put_text(uint8_t *field, size_t bytes, const char *text) {
    memset(field, 0, bytes);
    memcpy(field, text, strnlen(text, bytes - 1));
}

int rb_link_take(struct rb_link_worker *link, uint64_t features) {
    link->header.features |= link->offered & features;
    return (link->header.features & features) == features;
}

int rb_link_declare(struct rb_link_worker *link, const struct rb_worker_op *ops, uint32_t count,
                    const char **why) {
    const char *rule = rb_ops_rule(ops, count);
    if (rule) {
        *why = rule;
        return -EINVAL;
    }
    memcpy(link->worker_side + RB_AT_HEADER + RB_AT_OPS, ops, count * sizeof *ops);
    link->hello->ops = count;
    return 0;
}

void rb_link_greet(struct rb_link_worker *link, const char *kit, uint32_t kit_version,
                   const char *role) {
    struct rb_worker_header *h = link->hello;

    h->magic = RB_WORKER_MAGIC;
    h->version = RB_LAYOUT_VERSION;
    memcpy(h->digest, RB_LAYOUT_DIGEST_BYTES, sizeof h->digest);
    h->nonce = link->header.nonce;
    h->features = link->header.features; /* all were offered: rb_link_attach() has seen to it */
    h->pid = (uint32_t)getpid();
    h->kit_version = kit_version;
    put_text(h->kit, sizeof h->kit, kit);
    put_text(h->role, sizeof h->role, role);
    /* H0: pairs with H1 in rb_link_hello(): who sees READY sees the fields above. seq_cst as a
     * gate's G0. */
    rb_store_seq_cst(&h->hello, RB_HELLO_READY);
    rb_gate_ring(&link->waker);
}

void rb_link_knock(const struct rb_link_worker *link) {
    if (link->waker.bell >= 0)
        rb_gate_strike(link->waker.bell);
    else if (link->fds.wake_relay >= 0)
        rb_gate_bump(link->fds.wake_relay);
}

void rb_link_detach(struct rb_link_worker *link) {
    munmap((void *)link->relay_side, (size_t)link->header.relay_side_bytes);
    munmap(link->worker_side, (size_t)link->header.worker_side_bytes);
    if (link->pool) munmap((void *)link->pool, (size_t)link->header.pool_bytes);
    rb_region_fini(&link->result_region);
    link->relay_side = NULL;
    link->worker_side = NULL;
    link->pool = NULL;
}
