/* lane_link.h: the relay's end of a lane: its memory, its rings, and the checks of what a BEAM writes there (docs/nif-lane.md).
 *
 *      relay side                                      beam side
 *      (relay writes, BEAM maps read-only)             (BEAM writes, relay maps read-only)
 *      header | guard | positions | guard              header | guard | positions | guard
 *      heads of the submission rings | guard           tails of the submission rings | guard
 *      completion ring | guard                         cancel words | guard
 *      result region | guard                           give-back ring | guard
 *                                                      submission rings | guard | arenas | guard
 *
 * The same rules as a link's (link.h): sealed memfds without a name, each side's truth in private memory, whatever is read from the other's
 * is copied first and then held against what this side knows. A submission ring has one producer (a scheduler's thread) and its bytes lie
 * in an arena of its own, so that schedulers share no word; the relay copies them before it releases the slot, and with the slot the
 * arena's room is the producer's again.
 *
 * The result region is the relay's alone to write: what a BEAM shows to its processes as binaries lies where no worker can write.
 *
 * Death. The BEAM's: the relay's end of the bell is hung up (EPOLLHUP), its jobs are ended as their connection's are. The relay's: the
 * bell's other end reads end of file, all that was published stays readable. Nobody repairs anything: the last close frees the memory. */
#ifndef RINGBRIDGE_LANE_LINK_H
#define RINGBRIDGE_LANE_LINK_H

#include "ringbridge/gate.h"
#include "ringbridge/lane_layout.h"
#include "ringbridge/region.h"
#include "ringbridge/ring.h"

/* <cffi> */
struct rb_lane_config {
    uint64_t lane;         /* its number */
    uint32_t rings;        /* 2 .. RB_LANE_RINGS_MAX: the last one is shared */
    uint32_t slots;        /* of each; a power of two, 2 .. 65536 */
    uint64_t arena_bytes;  /* of each; whole pages, up to 4 GiB */
    uint64_t result_bytes; /* whole blocks; up to 1 TiB, sparse */
    uint32_t
        result_block_bytes; /* a power of two, whole pages; blocks: a power of two, up to 2^20 */
};
/* </cffi> */

struct rb_lane_link {
    struct rb_lane_config config;
    uint64_t nonce;
    int relay_side_fd, beam_side_fd, beam_bell; /* what the BEAM gets: lent */
    int bell; /* our end of it: it rings both ways, and each side sees the other's end */
    uint8_t *relay_side;
    const uint8_t *beam_side;
    uint64_t relay_side_bytes, beam_side_bytes;
    struct rb_lane_relay_positions *ours;
    const struct rb_lane_beam_positions *theirs;
    const struct rb_lane_beam_header *hello;
    struct rb_lane_completion *completions;
    uint8_t *results;
    const struct rb_lane_cancel *cancels;
    const struct rb_lane_giveback *givebacks;
    const struct rb_lane_submission *submissions; /* of all rings, one behind the other */
    const uint8_t *arenas;
    struct rb_ring_consumer *submission_rings;
    struct rb_ring_producer completion_ring;
    struct rb_ring_consumer giveback_ring;
    struct rb_region results_region;
    uint32_t *lent; /* by first block: how many the BEAM holds; 0: none begins there */
    uint64_t cancels_seen;
    uint32_t wanting;     /* as the BEAM is told: an answer waits for room */
    uint32_t no_doorbell; /* the relay sleeps by its descriptors alone */
    struct rb_gate_waker waker;
    struct rb_gate_waiter waiter;
};

/* 0 or a negative errno; nothing is left behind on failure. */
int rb_lane_link_create(struct rb_lane_link *link, const struct rb_lane_config *config);
void rb_lane_link_close(struct rb_lane_link *link);
void rb_lane_link_handed_over(struct rb_lane_link *link); /* closes the BEAM's end of the bell */
/* Takes what was rung. 0; -EPIPE: the BEAM's end is closed. Never waits. */
int rb_lane_link_hush(const struct rb_lane_link *link);

/* 1: it has greeted; 0: not yet; -EPROTO with the rule that its hello breaks. */
int rb_lane_link_hello(const struct rb_lane_link *link, uint32_t *pid, const char **rule);

static inline const struct rb_lane_submission *
rb_lane_link_submission(const struct rb_lane_link *link, uint32_t ring, uint64_t i) {
    return &link->submissions[(uint64_t)ring * link->config.slots +
                              rb_ring_slot(&link->submission_rings[ring], i)];
}
/* Where the bytes of a submission lie, of which `copy` is a private copy, or NULL: not inside its ring's arena. */
const uint8_t *rb_lane_link_bytes(const struct rb_lane_link *link, uint32_t ring,
                                  const struct rb_lane_submission *copy);
/* 1: something lies in a ring, or was cancelled, that was not taken: the second look of a relay that parks (seq_cst). */
int rb_lane_link_waiting(const struct rb_lane_link *link);

/* Takes back what the BEAM has given back. How many extents, or -EPROTO: one was not lent, or the ring's position is wrong. */
int64_t rb_lane_link_reclaim(struct rb_lane_link *link);
/* Whether an answer waits for room, so that who gives some back rings. */
void rb_lane_link_want(struct rb_lane_link *link, uint32_t on);
/* The pieces as one completion, not published yet. 0; -ENOSPC: no room in the region now; -EMSGSIZE: there never is; -EAGAIN: no slot
 * in the ring, -EPROTO: a position that is wrong: for both the BEAM has broken a rule. */
struct rb_lane_piece {
    const uint8_t *at;
    size_t size;
};
int rb_lane_link_put(struct rb_lane_link *link, uint64_t request, uint32_t status,
                     const struct rb_lane_piece *pieces, int count);
/* The same for bytes that are to be looked at as they are copied: room for them first (its place in the region, which is at
 * link->results + place; -ENOSPC, -EMSGSIZE), then either the completion of what lies there or nothing: then the room is free again. */
int64_t rb_lane_link_room(struct rb_lane_link *link, uint64_t size);
void rb_lane_link_no_room(struct rb_lane_link *link, uint64_t place, uint64_t size);
int rb_lane_link_put_placed(struct rb_lane_link *link, uint64_t request, uint32_t status,
                            uint64_t place, uint64_t size);
/* Publishes what was put, and rings the BEAM if it sleeps. How many were put. */
uint64_t rb_lane_link_publish(struct rb_lane_link *link);
/* Nothing is read any more; what was published stays. Rings. */
void rb_lane_link_end(struct rb_lane_link *link);

#endif
