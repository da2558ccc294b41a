/* fuzz/intake.h: any bytes on a connection give signals or a reason to close it, and every
 * diversion ends exactly once. */
#ifndef RINGBRIDGE_FUZZ_INTAKE_H
#define RINGBRIDGE_FUZZ_INTAKE_H

#include "../intake_owner.h"

/* The first byte: bit 0 pass-through, bit 1 only the first piece of room, bits 2..6 how much comes
 * at once, bit 7 an atom cache. */
static inline int fuzz_intake(const uint8_t *data, size_t size) {
    struct rb_intake in;
    struct owner o;
    if (size < 1) return 0;
    uint64_t flags = data[0] & 1 ? 0 : RB_DFLAG_FRAGMENTS;
    if (data[0] & 0x80) flags |= RB_DFLAG_DIST_HDR_ATOM_CACHE;
    size_t chunk = (size_t)(data[0] >> 2 & 31) * (data[0] >> 2 & 31) + 1;
    struct bytes copy = exactly(data + 1, size - 1);
    owner_open(&o, &in, flags, 1 << 24, 1 << 20);
    if (!in.cache) o.given = copy.size; /* a reference stands for more than its two bytes */
    int rc = give(&in, copy.at, copy.size, chunk, data[0] & 2);
    if (rc < 0 && !in.why) abort();
    if (rc == 0 && in.heap.used > in.heap.max) abort();
    bytes_free(&copy);
    if (!owner_close(&o) || in.heap.used || in.open_count) abort();
    return 0;
}

#endif
