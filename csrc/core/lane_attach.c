/* lane_attach.c: a lane's end in a BEAM: made of descriptors, and let go of. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lane_client.h"
#include "ringbridge/lane_telemetry.h"

uint32_t rb_lane_version(void) { return RB_LANE_LAYOUT_VERSION; }
const uint8_t *rb_lane_digest(void) { return (const uint8_t *)RB_LANE_LAYOUT_DIGEST_BYTES; }

static int refuse(char *why, size_t why_bytes, const char *rule) {
    snprintf(why, why_bytes, "%s", rule);
    return -EPROTO;
}

/* --- The relay's header ------------------------------------------------------------------------------------------------------ */

static int copy_header(int fd, struct rb_lane_relay_header *header) {
    uint8_t *page;
    if (rb_memory_sealed_bytes(fd) < RB_PAGE_BYTES) return -EPROTO;
    int failed = rb_memory_map(fd, RB_PAGE_BYTES, 0, &page);
    if (failed) return failed;
    memcpy(header, page + RB_LANE_AT_HEADER, sizeof *header);
    munmap(page, RB_PAGE_BYTES);
    return 0;
}

static int socket_option(int fd, int name) {
    int value = -1;
    socklen_t size = sizeof value;
    return getsockopt(fd, SOL_SOCKET, name, &value, &size) < 0 ? -1 : value;
}

/* A scheduler writes to the bell. Into a pipe or an eventfd such a write can be held up, since the flag against that is the description's, which
 * the bridge may share; a send() to a socket of this kind takes MSG_DONTWAIT by the call. */
static int is_bell(int fd) {
    return socket_option(fd, SO_DOMAIN) == AF_UNIX && socket_option(fd, SO_TYPE) == SOCK_STREAM;
}

/* The rule that it breaks, or NULL. */
static const char *broken_rule(const struct rb_lane_relay_header *h, const struct rb_lane_fds *fds,
                               struct rb_lane_parts *p) {
    struct rb_lane_sizes s = {.rings = h->rings,
                              .slots = h->slots,
                              .arena_bytes = h->arena_bytes,
                              .result_bytes = h->result_bytes,
                              .result_block_bytes = h->result_block_bytes};
    if (h->magic != RB_LANE_RELAY_MAGIC) return "the descriptors hold no lane";
    if (h->version != RB_LANE_LAYOUT_VERSION)
        return "the bridge has another version of lanes: build the NIF with its release";
    if (memcmp(h->digest, RB_LANE_LAYOUT_DIGEST_BYTES, sizeof h->digest) != 0)
        return "one version with two digests: one side was built from an edited csrc/lane.toml";
    if (h->nonce == 0) return "the lane has no nonce";
    if (rb_lane_parts(p, &s) < 0) return "a size of the lane breaks its rule";
    if (h->completion_slots != s.completion_slots || h->result_blocks != s.result_blocks)
        return "a number of slots or blocks does not fit";
    if (h->heads_at != p->heads_at || h->completions_at != p->completions_at ||
        h->results_at != p->results_at || h->tails_at != p->tails_at ||
        h->cancels_at != p->cancels_at || h->givebacks_at != p->givebacks_at ||
        h->submissions_at != p->submissions_at || h->arenas_at != p->arenas_at)
        return "a part of the lane is not where its sizes put it";
    if (h->relay_side_bytes != p->relay_side_bytes ||
        rb_memory_sealed_bytes(fds->relay_side) != (int64_t)p->relay_side_bytes)
        return "the relay side has another size than its parts";
    if (h->beam_side_bytes != p->beam_side_bytes ||
        rb_memory_sealed_bytes(fds->beam_side) != (int64_t)p->beam_side_bytes)
        return "the beam side has another size than its parts";
    if (!is_bell(fds->bell)) return "the lane's bell is no socket pair";
    return NULL;
}

/* --- Memory ------------------------------------------------------------------------------------------------------------------ */

/* Of each ring as much as a quiet scheduler ever has open: of 65 rings all would be 8 MiB, and a machine with so many has few that call.
 * A busy one comes to the rest once, by a page for each 32 requests. */
static void populate_submissions(struct rb_lane_client *l, const struct rb_lane_parts *p) {
    const uint64_t first = 32 << 10, ring = l->header.slots * sizeof(struct rb_lane_submission);
    uint8_t *all = l->beam_side + p->submissions_at;
    if (ring <= first) {
        rb_memory_populate(all, p->arenas_at - p->submissions_at - RB_PAGE_BYTES);
        return;
    }
    uint32_t i = 0;
    do rb_memory_populate(all + i * ring, first);
    while (++i < l->header.rings); /* there are two at least */
}

static int map_sides(struct rb_lane_client *l, const struct rb_lane_parts *p) {
    struct rb_guard guards[RB_LANE_GUARDS_MAX];
    uint8_t *base;
    int failed = rb_memory_map(l->fds.relay_side, p->relay_side_bytes, 0, &base);
    if (failed) return failed;
    l->relay_side = base;
    failed = rb_memory_guard(base, guards, rb_lane_relay_guards(p, guards));
    if (!failed) failed = rb_memory_map(l->fds.beam_side, p->beam_side_bytes, 1, &l->beam_side);
    if (!failed) failed = rb_memory_guard(l->beam_side, guards, rb_lane_beam_guards(p, guards));
    if (failed) return failed;
    /* What every request touches; arenas come in as they are used. */
    rb_memory_populate(l->beam_side + RB_LANE_AT_POSITIONS, RB_PAGE_BYTES);
    rb_memory_populate(l->beam_side + p->tails_at, p->cancels_at - p->tails_at - RB_PAGE_BYTES);
    rb_memory_populate(l->beam_side + p->cancels_at,
                       p->givebacks_at - p->cancels_at - RB_PAGE_BYTES);
    populate_submissions(l, p);
    return 0;
}

static int allocate(struct rb_lane_client *l) {
    const struct rb_lane_relay_header *h = &l->header;
    uint32_t slots = h->rings * h->slots;
    if (slots == 0) return -EINVAL; /* never: rb_lane_parts() wants two rings of two at least */
    if (posix_memalign(&l->rings_memory, 128, h->rings * sizeof *l->rings) != 0) {
        l->rings_memory = NULL;
        return -ENOMEM;
    }
    l->rings = l->rings_memory;
    memset(l->rings, 0, h->rings * sizeof *l->rings);
    l->slots = calloc(slots, sizeof *l->slots);
    l->held = calloc(h->result_blocks, sizeof *l->held);
    l->busy = calloc(h->result_blocks, sizeof *l->busy);
    if (!l->slots || !l->held || !l->busy) return -ENOMEM;
    for (uint32_t i = 0; i < h->rings; i++) {
        l->rings[i].arena_ends = calloc(h->slots, sizeof *l->rings[i].arena_ends);
        if (!l->rings[i].arena_ends) return -ENOMEM;
    }
    return 0;
}

static void point_ring(struct rb_lane_client *l, const struct rb_lane_parts *p, uint32_t i) {
    struct rb_lane_ring *ring = &l->rings[i];
    struct rb_lane_position *tails = (void *)(l->beam_side + p->tails_at);
    const struct rb_lane_position *heads = (const void *)(l->relay_side + p->heads_at);
    struct rb_lane_submission *all = (void *)(l->beam_side + p->submissions_at);
    ring->producer = (struct rb_ring_producer){
        .shared_tail = &tails[i].at, .shared_head = &heads[i].at, .slots = l->header.slots};
    ring->submissions = all + (size_t)i * l->header.slots;
    ring->arena = l->beam_side + p->arenas_at + i * l->header.arena_bytes;
    rb_gate_waker_init(&ring->waker, &l->theirs->park, &ring->doorbell, -1, -1);
    ring->waker.bell = l->fds.bell;
    for (uint32_t k = l->header.slots; k-- > 0;) {
        uint32_t slot = i * l->header.slots + k;
        l->slots[slot].next = ring->free;
        ring->free = slot + 1;
    }
}

static void point(struct rb_lane_client *l, const struct rb_lane_parts *p) {
    l->theirs = (const void *)(l->relay_side + RB_LANE_AT_POSITIONS);
    l->ours = (void *)(l->beam_side + RB_LANE_AT_POSITIONS);
    l->completions = (const void *)(l->relay_side + p->completions_at);
    l->results = l->relay_side + p->results_at;
    l->cancels = (void *)(l->beam_side + p->cancels_at);
    l->givebacks = (void *)(l->beam_side + p->givebacks_at);
    for (uint32_t i = 0; i < l->header.rings; i++) point_ring(l, p, i);
    l->completion_ring = (struct rb_ring_consumer){.shared_head = &l->ours->completion_head,
                                                   .shared_tail = &l->theirs->completion_tail,
                                                   .slots = l->header.completion_slots};
    l->giveback_ring = (struct rb_ring_producer){.shared_tail = &l->ours->giveback_tail,
                                                 .shared_head = &l->theirs->giveback_head,
                                                 .slots = l->header.result_blocks};
    rb_gate_waker_init(&l->waker, &l->theirs->park, &l->doorbell, -1, -1);
    l->waker.bell = l->fds.bell;
    rb_gate_waiter_init(&l->waiter, &l->ours->park, &l->no_bell, l->fds.bell, 0);
}

/* --- Opened and closed ------------------------------------------------------------------------------------------------------- */

static void greet(struct rb_lane_client *l) {
    struct rb_lane_beam_header *h = (void *)(l->beam_side + RB_LANE_AT_HEADER);
    h->magic = RB_LANE_BEAM_MAGIC;
    h->version = RB_LANE_LAYOUT_VERSION;
    memcpy(h->digest, RB_LANE_LAYOUT_DIGEST_BYTES, sizeof h->digest);
    h->nonce = l->header.nonce;
    h->pid = (uint32_t)getpid();
    /* H0: pairs with H1 in rb_lane_link_hello(): who sees READY sees the fields above. seq_cst as a gate's G0. */
    rb_store_seq_cst(&h->hello, RB_LANE_HELLO_READY);
    rb_gate_ring(&l->rings[l->header.rings - 1].waker);
}

/* All but the descriptors. */
static void dismantle(struct rb_lane_client *l) {
    if (l->relay_side) munmap((void *)(uintptr_t)l->relay_side, (size_t)l->header.relay_side_bytes);
    if (l->beam_side) munmap(l->beam_side, (size_t)l->header.beam_side_bytes);
    if (l->telemetry) rb_lane_telemetry_unmap(l->telemetry);
    for (uint32_t i = 0; l->rings && i < l->header.rings; i++) free(l->rings[i].arena_ends);
    free(l->rings_memory);
    free(l->slots);
    free(l->held);
    free(l->busy);
    free(l->scratch);
    pthread_mutex_destroy(&l->shared);
    pthread_mutex_destroy(&l->waking);
    pthread_mutex_destroy(&l->drain);
    pthread_mutex_destroy(&l->giving);
    free(l);
}

int rb_lane_attach(struct rb_lane_client **lane, const struct rb_lane_fds *fds, char *why,
                   size_t why_bytes) {
    struct rb_lane_parts parts;
    void *memory;
    if (posix_memalign(&memory, 128, sizeof(struct rb_lane_client)) != 0) return -ENOMEM;
    struct rb_lane_client *l = memory;
    memset(l, 0, sizeof *l);
    l->fds = *fds;
    pthread_mutex_init(&l->shared, NULL);
    pthread_mutex_init(&l->waking, NULL);
    pthread_mutex_init(&l->drain, NULL);
    pthread_mutex_init(&l->giving, NULL);
    int failed = copy_header(fds->relay_side, &l->header);
    if (failed == -EPROTO) refuse(why, why_bytes, "the relay side's size is not sealed");
    if (!failed) {
        const char *rule = broken_rule(&l->header, fds, &parts);
        if (rule) failed = refuse(why, why_bytes, rule);
    }
    if (failed != -EPROTO) {
        const char *rule = NULL;
        if (!failed) failed = map_sides(l, &parts);
        if (!failed) failed = allocate(l);
        if (!failed && fds->telemetry >= 0)
            failed = rb_lane_telemetry_map(fds->telemetry, &l->telemetry, &rule);
        if (rule)
            refuse(why, why_bytes, rule);
        else if (failed)
            snprintf(why, why_bytes, "the lane cannot be mapped: %s", strerror(-failed));
    }
    if (failed) {
        dismantle(l);
        return failed;
    }
    point(l, &parts);
    greet(l);
    *lane = l;
    return 0;
}

void rb_lane_detach(struct rb_lane_client *l) {
    const struct rb_lane_fds fds = l->fds;
    dismantle(l);
    close(fds.relay_side);
    close(fds.beam_side);
    close(fds.bell);
    if (fds.telemetry >= 0) close(fds.telemetry);
}

void rb_lane_close(struct rb_lane_client *l) {
    /* S0: pairs with S2 in rb_lane_send(), as S3 there with S1 in rb_lane_lose(): either the send sees this, or who loses what is open
     * sees what was sent. seq_cst, all four: each side stores its own word and then loads the other's. */
    rb_store_seq_cst(&l->closed, 1);
}

enum rb_lane_state rb_lane_state(const struct rb_lane_client *l) {
    if (rb_load_acquire(&l->why)) return RB_LANE_BROKEN;
    /* E1: pairs with E0 in rb_lane_link_end(): who sees the end sees all that was answered before it. */
    if (rb_load_seq_cst(&l->theirs->state) != RB_LANE_STATE_OPEN) return RB_LANE_ENDED;
    return rb_lane_is_closed(l) ? RB_LANE_CLOSED : RB_LANE_OPEN;
}

const char *rb_lane_why(const struct rb_lane_client *l) {
    const char *why = rb_load_acquire(&l->why);
    return why ? why : "";
}

/* --- What it is -------------------------------------------------------------------------------------------------------------- */

uint32_t rb_lane_rings(const struct rb_lane_client *l) { return l->header.rings; }
uint32_t rb_lane_slots(const struct rb_lane_client *l) { return l->header.rings * l->header.slots; }
size_t rb_lane_result_bytes(const struct rb_lane_client *l) { return l->header.result_bytes; }
/* Half of an arena: a larger one could wait for ever for its whole to be free. */
size_t rb_lane_request_max(const struct rb_lane_client *l) { return l->header.arena_bytes / 2; }
int rb_lane_wake_fd(const struct rb_lane_client *l) { return l->fds.bell; }

void rb_lane_read_figures(const struct rb_lane_client *l, struct rb_lane_figures *f) {
    /* Relaxed: each has one writer at a time, and nothing is inferred from their order. */
    *f = (struct rb_lane_figures){.answered = rb_load_relaxed(&l->answered),
                                  .dropped = rb_load_relaxed(&l->dropped),
                                  .cancelled = rb_load_relaxed(&l->cancelled),
                                  .wakes = rb_load_relaxed(&l->waker.wakes),
                                  .held_bytes = rb_load_relaxed(&l->held_bytes)};
    for (uint32_t i = 0; i < l->header.rings; i++) {
        f->sent += rb_load_relaxed(&l->rings[i].sent);
        f->full += rb_load_relaxed(&l->rings[i].full);
        f->wakes += rb_load_relaxed(&l->rings[i].waker.wakes);
    }
    f->open = f->sent > f->answered + f->dropped ? f->sent - f->answered - f->dropped : 0;
}

int64_t rb_lane_telemetry_bytes(const struct rb_lane_client *l) {
    if (rb_lane_state(l) != RB_LANE_OPEN) return -EPIPE;
    return l->telemetry ? rb_lane_telemetry_size(l->telemetry) : -ENOENT;
}

int64_t rb_lane_read_telemetry(const struct rb_lane_client *l, uint8_t *to, size_t room) {
    if (rb_lane_state(l) != RB_LANE_OPEN) return -EPIPE;
    return l->telemetry ? rb_lane_telemetry_copy(l->telemetry, to, room) : -ENOENT;
}
