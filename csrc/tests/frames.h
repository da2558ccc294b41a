/* frames.h: zstd frames made by hand (RFC 8878, section 3.1.1), true and false: without the library, and with heads that
 * it never writes. */
#ifndef RINGBRIDGE_TESTS_FRAMES_H
#define RINGBRIDGE_TESTS_FRAMES_H

#include <stdint.h>
#include <string.h>

enum { FRAME_BLOCK_MAX = 128 << 10, FRAME_HEAD = 9 };
enum frame_block { FRAME_RAW, FRAME_RLE };

struct frame {
    uint8_t *at; /* room is the test's */
    size_t size;
};

static inline void frame_number(struct frame *f, uint64_t number, int bytes) {
    for (int i = 0; i < bytes; i++) f->at[f->size++] = (uint8_t)(number >> (8 * i));
}
/* One segment, a content of `stated` bytes. */
static inline void frame_head(struct frame *f, uint32_t stated) {
    f->size = 0;
    frame_number(f, 0xfd2fb528, 4);
    frame_number(f, 0xa0, 1);
    frame_number(f, stated, 4);
}
static inline void frame_block(struct frame *f, enum frame_block kind, const uint8_t *bytes,
                               uint32_t size, int last) {
    frame_number(f, (uint64_t)last | (uint64_t)kind << 1 | (uint64_t)size << 3, 3);
    uint32_t stored = kind == FRAME_RLE ? 1 : size;
    if (stored) memcpy(f->at + f->size, bytes, stored);
    f->size += stored;
}
/* The bytes as they are; or, RLE, the first of them so often. `stated`: what the head says of it. */
static inline void frame_make(struct frame *f, enum frame_block kind, const uint8_t *bytes,
                              uint32_t size, uint32_t stated) {
    uint32_t done = 0, n;
    frame_head(f, stated);
    do {
        n = size - done < FRAME_BLOCK_MAX ? size - done : FRAME_BLOCK_MAX;
        frame_block(f, kind, kind == FRAME_RLE ? bytes : bytes + done, n, done + n == size);
        done += n;
    } while (done < size);
}

#endif
