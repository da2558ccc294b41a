/* link_pvt.h: what the files of the link share: where the parts lie, and how memory is made, mapped
 * and checked. */
#ifndef RINGBRIDGE_LINK_PVT_H
#define RINGBRIDGE_LINK_PVT_H

#include <stdint.h>

#include "ringbridge/link.h"

/* --- link_parts.c: where each part lies ------------------------------------------------------ */

struct rb_link_parts {
    uint64_t requests_at, cancels_at, demands_at, givebacks_at, relay_side_bytes;
    uint64_t completions_at, results_at, worker_side_bytes;
    uint64_t populated_results; /* bytes of the result region that are populated in advance */
};
/* The one place that knows the order of the parts. -EINVAL when a number breaks its rule (link.h,
 * rb_link_config). */
int rb_link_parts(struct rb_link_parts *parts, uint32_t slots, uint32_t result_block_bytes,
                  uint64_t result_bytes);

/* Begin and length of each guard in one side, in order. Returns how many (at most
 * RB_GUARDS_MAX). */
enum { RB_GUARDS_MAX = 6 };
struct rb_guard {
    uint64_t at, bytes;
};
int rb_link_relay_guards(const struct rb_link_parts *parts, struct rb_guard *guards);
int rb_link_worker_guards(const struct rb_link_parts *parts, struct rb_guard *guards);

/* --- link_memory.c: memfds, seals, mappings -------------------------------------------------- */

/* A close-on-exec memfd of `bytes` that may still be sealed, or a negative errno. */
int rb_memory_create(const char *name, uint64_t bytes);
/* Seals the size; and, with `read_only`, against any further writable mapping. Returns the seals in
 * force or a negative errno. */
int rb_memory_seal(int fd, int read_only);
/* Size of a sealed memfd: -EPROTO unless its size can no longer change. */
int64_t rb_memory_sealed_bytes(int fd);
/* Maps the whole of it. 0 or a negative errno. */
int rb_memory_map(int fd, uint64_t bytes, int writable, uint8_t **base);
int rb_memory_guard(uint8_t *base, const struct rb_guard *guards, int count);
/* Brings pages in, writable mappings only: failing is no error, the first touch does it then. */
void rb_memory_populate(uint8_t *base, uint64_t bytes);

#endif
