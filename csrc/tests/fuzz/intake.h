/* fuzz/intake.h: any bytes on a connection give signals or a reason to close it, and every
 * diversion ends exactly once. */
#ifndef RINGBRIDGE_FUZZ_INTAKE_H
#define RINGBRIDGE_FUZZ_INTAKE_H

#include "../intake_owner.h"

/* The first byte: bit 0 pass-through, bit 1 only the first piece of room, bits 2..7 how much comes
 * at once. */
static inline int fuzz_intake(const uint8_t *data, size_t size) {
    struct rb_intake in;
    struct owner o;
    if (size < 1) return 0;
    uint64_t flags = data[0] & 1 ? 0 : RB_DFLAG_FRAGMENTS;
    size_t chunk = (size_t)(data[0] >> 2) * (data[0] >> 2) + 1;
    struct bytes copy = exactly(data + 1, size - 1);
    owner_open(&o, &in, flags, 1 << 24, 1 << 20);
    o.given = copy.size;
    int rc = give(&in, copy.at, copy.size, chunk, data[0] & 2);
    if (rc < 0 && !in.why) abort();
    if (rc == 0 && in.heap_bytes > in.heap_bytes_max) abort();
    bytes_free(&copy);
    if (!owner_close(&o) || in.heap_bytes || in.open_count) abort();
    return 0;
}

#endif
