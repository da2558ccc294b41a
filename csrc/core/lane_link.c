/* lane_link.c: the relay's end of a lane's memory. */
#define _GNU_SOURCE
#include "ringbridge/lane_link.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lane_pvt.h"

/* --- Made -------------------------------------------------------------------------------------------------------------------- */

static struct rb_lane_relay_header header_of(const struct rb_lane_link *l,
                                             const struct rb_lane_sizes *s,
                                             const struct rb_lane_parts *p) {
    struct rb_lane_relay_header h = {
        .magic = RB_LANE_RELAY_MAGIC,
        .version = RB_LANE_LAYOUT_VERSION,
        .rings = s->rings,
        .nonce = l->nonce,
        .lane = l->config.lane,
        .slots = s->slots,
        .completion_slots = s->completion_slots,
        .arena_bytes = s->arena_bytes,
        .result_bytes = s->result_bytes,
        .result_block_bytes = s->result_block_bytes,
        .result_blocks = s->result_blocks,
        .relay_side_bytes = p->relay_side_bytes,
        .beam_side_bytes = p->beam_side_bytes,
        .heads_at = p->heads_at,
        .completions_at = p->completions_at,
        .results_at = p->results_at,
        .tails_at = p->tails_at,
        .cancels_at = p->cancels_at,
        .givebacks_at = p->givebacks_at,
        .submissions_at = p->submissions_at,
        .arenas_at = p->arenas_at,
    };
    memcpy(h.digest, RB_LANE_LAYOUT_DIGEST_BYTES, sizeof h.digest);
    return h;
}

/* A sealed memfd of one side, mapped: read-only for the BEAM's, and ours with its header in it. */
static int make_side(const char *name, uint64_t bytes, const struct rb_lane_relay_header *header,
                     const struct rb_guard *guards, int guard_count, int *out_fd,
                     uint8_t **out_base) {
    uint8_t *base;
    int failed, fd = rb_memory_create(name, bytes);

    if (fd < 0) return fd;
    failed = rb_memory_map(fd, bytes, header != NULL, &base);
    if (failed) goto fail_fd;
    if (header) memcpy(base + RB_LANE_AT_HEADER, header, sizeof *header);
    failed = rb_memory_guard(base, guards, guard_count);
    if (failed) goto fail_map;
    failed = rb_memory_seal(fd, header != NULL);
    if (failed < 0) goto fail_map;
    *out_fd = fd;
    *out_base = base;
    return 0;

fail_map:
    munmap(base, (size_t)bytes);
fail_fd:
    close(fd);
    return failed;
}

static int make_sides(struct rb_lane_link *l, const struct rb_lane_sizes *s,
                      const struct rb_lane_parts *p) {
    struct rb_lane_relay_header header = header_of(l, s, p);
    struct rb_guard guards[RB_LANE_GUARDS_MAX];
    uint8_t *beam_side;
    int failed = make_side("ringbridge-lane-relay", p->relay_side_bytes, &header, guards,
                           rb_lane_relay_guards(p, guards), &l->relay_side_fd, &l->relay_side);
    if (failed) return failed;
    l->relay_side_bytes = p->relay_side_bytes;
    failed = make_side("ringbridge-lane-beam", p->beam_side_bytes, NULL, guards,
                       rb_lane_beam_guards(p, guards), &l->beam_side_fd, &beam_side);
    if (failed) return failed;
    l->beam_side = beam_side;
    l->beam_side_bytes = p->beam_side_bytes;
    rb_memory_populate(l->relay_side + RB_LANE_AT_POSITIONS, RB_PAGE_BYTES);
    rb_memory_populate(l->relay_side + p->heads_at,
                       p->completions_at - p->heads_at - RB_PAGE_BYTES);
    /* A place for each request that can be open, 16 MiB of 65 rings: the rest comes in as the ring gets to it, a page for each 32 answers. */
    const uint64_t first = 512 << 10, all = p->results_at - p->completions_at - RB_PAGE_BYTES;
    rb_memory_populate(l->relay_side + p->completions_at, all < first ? all : first);
    return 0;
}

static void point(struct rb_lane_link *l, const struct rb_lane_sizes *s,
                  const struct rb_lane_parts *p) {
    l->ours = (void *)(l->relay_side + RB_LANE_AT_POSITIONS);
    l->theirs = (const void *)(l->beam_side + RB_LANE_AT_POSITIONS);
    l->hello = (const void *)(l->beam_side + RB_LANE_AT_HEADER);
    l->completions = (void *)(l->relay_side + p->completions_at);
    l->results = l->relay_side + p->results_at;
    l->cancels = (const void *)(l->beam_side + p->cancels_at);
    l->givebacks = (const void *)(l->beam_side + p->givebacks_at);
    l->submissions = (const void *)(l->beam_side + p->submissions_at);
    l->arenas = l->beam_side + p->arenas_at;

    struct rb_lane_position *heads = (void *)(l->relay_side + p->heads_at);
    const struct rb_lane_position *tails = (const void *)(l->beam_side + p->tails_at);
    for (uint32_t i = 0; i < s->rings; i++) {
        l->submission_rings[i] = (struct rb_ring_consumer){
            .shared_head = &heads[i].at, .shared_tail = &tails[i].at, .slots = s->slots};
    }
    l->completion_ring = (struct rb_ring_producer){.shared_tail = &l->ours->completion_tail,
                                                   .shared_head = &l->theirs->completion_head,
                                                   .slots = s->completion_slots};
    l->giveback_ring = (struct rb_ring_consumer){.shared_head = &l->ours->giveback_head,
                                                 .shared_tail = &l->theirs->giveback_tail,
                                                 .slots = s->result_blocks};
}

/* The relay waits on sockets and the clock too, so it never spins here. To be called where the link stays: the gate points into it. */
static void hang(struct rb_lane_link *l) {
    rb_gate_waker_init(&l->waker, &l->theirs->park, &l->ours->doorbell, -1, -1);
    l->waker.bell = l->bell;
    rb_gate_waiter_init(&l->waiter, &l->ours->park, &l->no_doorbell, l->bell, 0);
}

/* A pair of sockets that rings both ways, and no eventfd: either side could hold the other's write to that up (gate.h), the relay's one thread
 * as well as a scheduler of the BEAM. And each side sees the other's end. */
static int make_bell(struct rb_lane_link *l) {
    const int least = 1;
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0) return -1;
    l->bell = ends[0];
    l->beam_bell = ends[1];
    for (int i = 0; i < 2; i++)
        if (setsockopt(ends[i], SOL_SOCKET, SO_SNDBUF, &least, sizeof least) < 0) return -1;
    return 0;
}

static int fresh_nonce(uint64_t *nonce) {
    do
        if (getrandom(nonce, sizeof *nonce, 0) != sizeof *nonce) return -errno;
    while (*nonce == 0);
    return 0;
}

int rb_lane_link_create(struct rb_lane_link *link, const struct rb_lane_config *config) {
    struct rb_lane_sizes sizes = {.rings = config->rings,
                                  .slots = config->slots,
                                  .arena_bytes = config->arena_bytes,
                                  .result_bytes = config->result_bytes,
                                  .result_block_bytes = config->result_block_bytes};
    struct rb_lane_parts parts;
    int failed = rb_lane_parts(&parts, &sizes);
    if (failed) return failed;
    struct rb_lane_link l = {
        .config = *config, .relay_side_fd = -1, .beam_side_fd = -1, .beam_bell = -1, .bell = -1};
    failed = fresh_nonce(&l.nonce);
    if (failed) return failed;
    l.submission_rings = calloc(sizes.rings, sizeof *l.submission_rings);
    l.lent = calloc(sizes.result_blocks, sizeof *l.lent);
    failed = l.submission_rings && l.lent
                 ? rb_region_init(&l.results_region, sizes.result_bytes, sizes.result_block_bytes)
                 : -ENOMEM;
    if (!failed) failed = make_sides(&l, &sizes, &parts);
    if (!failed && make_bell(&l) < 0) failed = -errno;
    if (failed) {
        rb_lane_link_close(&l);
        return failed;
    }
    point(&l, &sizes, &parts);
    *link = l;
    hang(link);
    return 0;
}

static void close_once(int *fd) {
    if (*fd >= 0) close(*fd);
    *fd = -1;
}

void rb_lane_link_handed_over(struct rb_lane_link *l) {
    close_once(&l->beam_bell);
    close_once(&l->relay_side_fd);
    close_once(&l->beam_side_fd);
}

void rb_lane_link_close(struct rb_lane_link *l) {
    if (l->relay_side) munmap(l->relay_side, (size_t)l->relay_side_bytes);
    if (l->beam_side) munmap((void *)(uintptr_t)l->beam_side, (size_t)l->beam_side_bytes);
    l->relay_side = NULL;
    l->beam_side = NULL;
    close_once(&l->relay_side_fd);
    close_once(&l->beam_side_fd);
    close_once(&l->beam_bell);
    close_once(&l->bell);
    free(l->submission_rings);
    free(l->lent);
    l->submission_rings = NULL;
    l->lent = NULL;
    rb_region_fini(&l->results_region);
}

int rb_lane_link_hush(const struct rb_lane_link *l) { return rb_gate_hush(l->bell); }

/* --- What the BEAM says ------------------------------------------------------------------------------------------------------ */

int rb_lane_link_hello(const struct rb_lane_link *l, uint32_t *pid, const char **rule) {
    /* H1: pairs with H0 in rb_lane_attach(): who sees READY sees the other fields. */
    uint32_t hello = rb_load_seq_cst(&l->hello->hello);
    struct rb_lane_beam_header h;
    if (hello == RB_LANE_HELLO_NONE) return 0;
    memcpy(&h, l->hello, sizeof h); /* private from here on */
    *rule = hello != RB_LANE_HELLO_READY                                          ? "hello_value"
            : h.magic != RB_LANE_BEAM_MAGIC                                       ? "hello_magic"
            : h.version != RB_LANE_LAYOUT_VERSION                                 ? "hello_version"
            : memcmp(h.digest, RB_LANE_LAYOUT_DIGEST_BYTES, sizeof h.digest) != 0 ? "hello_digest"
            : h.nonce != l->nonce                                                 ? "hello_nonce"
                                                                                  : NULL;
    if (*rule) return -EPROTO;
    *pid = h.pid;
    return 1;
}

const uint8_t *rb_lane_link_bytes(const struct rb_lane_link *l, uint32_t ring,
                                  const struct rb_lane_submission *copy) {
    if (copy->flags & RB_LANE_FLAG_INLINE)
        return copy->bytes <= RB_LANE_INLINE_BYTES_MAX ? copy->body : NULL;
    if (copy->bytes > l->config.arena_bytes || copy->at > l->config.arena_bytes - copy->bytes)
        return NULL;
    return l->arenas + ring * l->config.arena_bytes + copy->at;
}

int rb_lane_link_waiting(const struct rb_lane_link *l) {
    for (uint32_t i = 0; i < l->config.rings; i++) {
        const struct rb_ring_consumer *c = &l->submission_rings[i];
        /* L0: the same load as R1 of the ring, without taking anything: the gate's second look (G5). */
        if (rb_load_seq_cst(c->shared_tail) != c->head) return 1;
    }
    /* W1: pairs with W2 in rb_lane_give_back(). */
    if (l->wanting && rb_load_seq_cst(l->giveback_ring.shared_tail) != l->giveback_ring.head)
        return 1;
    /* L1: pairs with K1 in rb_lane_cancel(), for the same reason. */
    return rb_load_seq_cst(&l->theirs->cancels) != l->cancels_seen;
}

void rb_lane_link_want(struct rb_lane_link *l, uint32_t on) {
    if (l->wanting == on) return;
    l->wanting = on;
    rb_store_seq_cst(&l->ours->wants, on); /* W0: pairs with W3 in rb_lane_give_back() */
}

int64_t rb_lane_link_reclaim(struct rb_lane_link *l) {
    int64_t count = rb_ring_available(&l->giveback_ring);
    if (count <= 0) return count;
    for (int64_t i = 0; i < count; i++) {
        uint64_t at = rb_load_relaxed(&l->givebacks[rb_ring_slot(&l->giveback_ring, (uint64_t)i)]
                                           .at); /* once: it may change */
        uint64_t block = at / l->config.result_block_bytes;
        if (at % l->config.result_block_bytes || block >= l->results_region.blocks ||
            l->lent[block] == 0)
            return -EPROTO;
        rb_region_give(&l->results_region, (uint32_t)block, l->lent[block]);
        l->lent[block] = 0;
    }
    rb_ring_release(&l->giveback_ring, (uint64_t)count);
    return count;
}

/* --- What it is told --------------------------------------------------------------------------------------------------------- */

static size_t copy_pieces(uint8_t *to, const struct rb_lane_piece *pieces, int count) {
    size_t size = 0;
    for (int i = 0; i < count; i++) {
        if (pieces[i].size) memcpy(to + size, pieces[i].at, pieces[i].size);
        size += pieces[i].size;
    }
    return size;
}

int64_t rb_lane_link_room(struct rb_lane_link *l, uint64_t size) {
    if (size > l->config.result_bytes || size > UINT32_MAX) return -EMSGSIZE;
    int64_t first = rb_region_take(&l->results_region, size);
    return first < 0 ? first : first * l->config.result_block_bytes;
}

void rb_lane_link_no_room(struct rb_lane_link *l, uint64_t place, uint64_t size) {
    rb_region_give(&l->results_region, (uint32_t)(place / l->config.result_block_bytes),
                   rb_region_blocks_for(&l->results_region, size));
}

int rb_lane_link_put_placed(struct rb_lane_link *l, uint64_t request, uint32_t status,
                            uint64_t place, uint64_t size) {
    int64_t slot = rb_ring_claim(&l->completion_ring);
    if (slot < 0) {
        rb_lane_link_no_room(l, place, size);
        return (int)slot;
    }
    struct rb_lane_completion *e = &l->completions[slot];
    e->request = request;
    e->status = (uint16_t)status;
    e->bytes = (uint32_t)size;
    e->flags = 0;
    e->at = place;
    l->lent[place / l->config.result_block_bytes] = rb_region_blocks_for(&l->results_region, size);
    return 0;
}

int rb_lane_link_put(struct rb_lane_link *l, uint64_t request, uint32_t status,
                     const struct rb_lane_piece *pieces, int count) {
    size_t size = 0;
    for (int i = 0; i < count; i++) size += pieces[i].size;
    if (size > RB_LANE_INLINE_BYTES_MAX) {
        int64_t place = rb_lane_link_room(l, size);
        if (place < 0) return (int)place;
        copy_pieces(l->results + place, pieces, count);
        return rb_lane_link_put_placed(l, request, status, (uint64_t)place, size);
    }
    int64_t slot = rb_ring_claim(&l->completion_ring);
    if (slot < 0) return (int)slot;
    struct rb_lane_completion *e = &l->completions[slot];
    e->request = request;
    e->status = (uint16_t)status;
    e->bytes = (uint32_t)size;
    e->flags = RB_LANE_FLAG_INLINE;
    e->at = 0;
    copy_pieces(e->body, pieces, count);
    return 0;
}

uint64_t rb_lane_link_publish(struct rb_lane_link *l) {
    uint64_t count = rb_ring_publish(&l->completion_ring);
    if (count) rb_gate_ring(&l->waker);
    return count;
}

void rb_lane_link_end(struct rb_lane_link *l) {
    rb_ring_publish(&l->completion_ring);
    /* E0: pairs with E1 in rb_lane_state() and rb_lane_park(). seq_cst, since the BEAM's gate waits for it (gate.h, G0). */
    rb_store_seq_cst(&l->ours->state, RB_LANE_STATE_ENDED);
    rb_gate_ring(&l->waker);
}
