/* link.h: the one primitive that moves jobs: one relay, one worker, two sealed memfds (DESIGN.md,
 * section 4).
 *
 *      relay side                                    worker side
 *      (relay writes, worker maps read-only)         (worker writes, relay maps read-only)
 *      header | guard | positions | guard            header | guard | positions, telemetry | guard
 *      request ring | guard | cancel words | guard   completion ring | guard
 *      demand words | guard | give-back ring | guard result region | guard
 *
 * Guard pages lie in the mapping (PROT_NONE) and as holes in the file. Both memfds carry
 * F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL; the relay's also F_SEAL_FUTURE_WRITE, set after the
 * relay has mapped it: the worker cannot map it writable. Only rings and the first MiB of the
 * result region are populated in advance.
 *
 * The payload pool is one memfd per role, written by the relay, sealed FUTURE_WRITE, mapped
 * read-only by every worker. Linux refuses to punch holes under that seal (EPERM), so a pool keeps
 * every page that it has once used: first fit keeps this at the most that was in use at once.
 *
 * Death: whoever dies, the kernel drops its mappings and descriptors; the last close frees the
 * memory; there is no name. */
#ifndef RINGBRIDGE_LINK_H
#define RINGBRIDGE_LINK_H

#include <stdint.h>

#include "ringbridge/gate.h"
#include "ringbridge/layout.h"
#include "ringbridge/region.h"
#include "ringbridge/ring.h"

struct rb_link_config {
    uint32_t slots;              /* of both rings; power of two, 2 .. 65536 */
    uint32_t result_block_bytes; /* power of two, multiple of the page size */
    uint64_t result_bytes;       /* power-of-two number of blocks, at most 2^20 */
    uint64_t features;           /* RB_FEATURE_... */
    uint64_t worker_id;
};
#define RB_LINK_CONFIG_DEFAULT                                     \
    {.slots = 1024,                                                \
     .result_block_bytes = 4096,                                   \
     .result_bytes = 64u << 20,                                    \
     .features = RB_FEATURE_CRC_ENVELOPE | RB_FEATURE_CRC_PAYLOAD, \
     .worker_id = 0}

/* Descriptors of a link, in the order in which a worker inherits them. -1: none. */
struct rb_link_fds {
    int relay_side, worker_side, pool, wake_worker, wake_relay;
};

/* The demand word of a job at `position` of the request ring, which may send `parts` parts from its
 * beginning on (layout.toml, struct.demand). */
static inline uint64_t rb_demand_word(uint64_t position, uint32_t parts) {
    return position << 32 | parts;
}
/* How many more than `sent` the word allows; none where it is the slot's last job's. */
static inline uint32_t rb_demand_left(uint64_t word, uint64_t position, uint32_t sent) {
    int32_t left = (int32_t)((uint32_t)word - sent);
    return (uint32_t)(word >> 32) != (uint32_t)position || left < 0 ? 0 : (uint32_t)left;
}

/* One payload pool (relay's process). */
struct rb_pool {
    int fd;
    uint8_t *base;
    uint64_t bytes;
    uint32_t seals; /* F_SEAL_FUTURE_WRITE among them wherever the kernel has it (5.1) */
    struct rb_region region;
};
int rb_pool_create(struct rb_pool *pool, uint64_t bytes, uint32_t block_bytes);
void rb_pool_close(struct rb_pool *pool);

/* The relay's end. */
struct rb_link {
    struct rb_link_config config;
    struct rb_link_fds fds;
    int bell; /* the other end of fds.wake_worker, ours alone */
    uint64_t nonce;
    uint32_t seals;             /* of the relay side, as in rb_pool */
    uint8_t *relay_side;        /* mapped read-write */
    const uint8_t *worker_side; /* mapped read-only */
    uint64_t relay_side_bytes, worker_side_bytes;
    struct rb_relay_positions *ours;
    const struct rb_worker_positions *theirs;
    const struct rb_worker_header *hello;
    const struct rb_worker_op *ops;
    const struct rb_telemetry *telemetry;
    struct rb_request *requests;
    uint64_t *cancels; /* one word a request slot: the job id to stop */
    uint64_t *demands; /* one word a request slot: struct rb_demand as one u64 */
    struct rb_giveback *givebacks;
    const struct rb_completion *completions;
    const uint8_t *results;
    struct rb_ring_producer request_ring;
    struct rb_ring_consumer completion_ring;
    struct rb_ring_producer giveback_ring;
    struct rb_gate_waker waker;   /* wakes the worker */
    struct rb_gate_waiter waiter; /* waits for the worker */
};
/* fds.wake_worker is the worker's end of a pair of sockets: lent until the worker has its copy, then
 * to be closed. */
void rb_link_handed_over(struct rb_link *link);
/* Makes the memory and descriptors. `pool` is lent: its fd is named in the header's size only and
 * is not closed with the link. All descriptors are close-on-exec. 0 or negative errno; nothing is
 * left behind on failure. */
int rb_link_create(struct rb_link *link, const struct rb_link_config *config,
                   const struct rb_pool *pool);
void rb_link_close(struct rb_link *link);

/* A private, checked copy of the worker's hello. Returns 1 when ready, 0 when not yet, -EPROTO with
 * `why` filled in (both digests in hex, both versions) when the worker was built for a layout that
 * does not go with ours (version.h) or broke a rule. */
int rb_link_hello(const struct rb_link *link, struct rb_worker_header *copy, char *why,
                  uint64_t why_bytes);
/* The operations that a worker declares, behind a hello that is ready: a private, checked copy. How many, or
 * -EPROTO with `why`. */
int64_t rb_link_ops(const struct rb_link *link, const struct rb_worker_header *hello,
                    struct rb_worker_op ops[RB_OPS_MAX], char *why, uint64_t why_bytes);
/* A consistent copy of the telemetry block. 0, or -EAGAIN when no still moment was found in a
 * bounded number of tries. */
int rb_link_telemetry(const struct rb_link *link, struct rb_telemetry *copy);

/* The worker's end. */
struct rb_link_worker {
    struct rb_relay_header header; /* private copy, checked; of the features those that are taken */
    uint64_t offered;              /* features, of which RB_FEATURE_ZSTD is to be taken */
    struct rb_link_fds fds;
    const uint8_t *relay_side;
    uint8_t *worker_side;
    const uint8_t *pool;
    const struct rb_relay_positions *theirs;
    struct rb_worker_positions *ours;
    struct rb_worker_header *hello;
    struct rb_telemetry *telemetry;
    const struct rb_request *requests;
    const uint64_t *cancels;
    const uint64_t *demands;
    const struct rb_giveback *givebacks;
    struct rb_completion *completions;
    uint8_t *results;
    struct rb_region result_region;
    struct rb_ring_consumer request_ring;
    struct rb_ring_producer completion_ring;
    struct rb_ring_consumer giveback_ring;
    struct rb_gate_waker waker;
    struct rb_gate_waiter waiter;
};
/* Maps and checks an inherited link. -EPROTO with `why` when the header is not ours: in that case
 * the worker has already been marked RB_HELLO_REFUSED with its own digest if that was possible, so
 * that the relay can name both. */
int rb_link_attach(struct rb_link_worker *link, const struct rb_link_fds *fds, char *why,
                   uint64_t why_bytes);
/* Takes features that not every worker has, before it greets. 1: all of them were offered. */
int rb_link_take(struct rb_link_worker *link, uint64_t features);
/* What the worker can do, before it greets: a worker that declares nothing takes every opcode. 0; or -EINVAL with `why`, and nothing is
 * declared. */
int rb_link_declare(struct rb_link_worker *link, const struct rb_worker_op *ops, uint32_t count,
                    const char **why);
/* Publishes the hello (kit and role are NUL-terminated UTF-8, cut to their fields) and wakes the
 * relay. */
void rb_link_greet(struct rb_link_worker *link, const char *kit, uint32_t kit_version,
                   const char *role);
/* Makes the relay look, whether it waits for this worker or not: for what no position tells (readiness). A system call. */
void rb_link_knock(const struct rb_link_worker *link);
void rb_link_detach(struct rb_link_worker *link);

#endif
