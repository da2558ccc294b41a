/* region.c: the block bitmap of one region (region.h). */
#define _GNU_SOURCE
#include "ringbridge/region.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>

enum { WORD_BITS = 64 };

/* Index of the first block from `from` on that is taken (want 1) or free (want 0); `blocks` when
 * there is none. */
static uint32_t find(const struct rb_region *r, uint32_t from, int want) {
    uint64_t flip = want ? 0 : ~UINT64_C(0);
    uint32_t words = (r->blocks + WORD_BITS - 1) / WORD_BITS, word = from / WORD_BITS;
    uint64_t bits;

    if (from >= r->blocks) return r->blocks;
    bits = (r->used[word] ^ flip) & (~UINT64_C(0) << (from % WORD_BITS));
    while (bits == 0) {
        if (++word == words) return r->blocks;
        bits = r->used[word] ^ flip;
    }
    from = word * WORD_BITS + (uint32_t)__builtin_ctzll(bits);
    return from < r->blocks ? from : r->blocks; /* the last word's spare bits read as free */
}

static void mark(struct rb_region *r, uint32_t first, uint32_t count, int taken) {
    while (count) {
        uint32_t bit = first % WORD_BITS, here = WORD_BITS - bit < count ? WORD_BITS - bit : count;
        uint64_t mask = (here == WORD_BITS ? ~UINT64_C(0) : (UINT64_C(1) << here) - 1) << bit;
        if (taken)
            r->used[first / WORD_BITS] |= mask;
        else
            r->used[first / WORD_BITS] &= ~mask;
        first += here;
        count -= here;
    }
}

int rb_region_init(struct rb_region *r, uint64_t bytes, uint32_t block_bytes) {
    uint64_t *used;
    uint64_t blocks;

    if (block_bytes == 0 || bytes == 0 || bytes % block_bytes) return -EINVAL;
    blocks = bytes / block_bytes;
    if (blocks > UINT32_MAX - WORD_BITS) return -EINVAL;
    used = calloc((size_t)(blocks + WORD_BITS - 1) / WORD_BITS, sizeof *used);
    if (!used) return -ENOMEM;
    *r = (struct rb_region){.used = used, .blocks = (uint32_t)blocks, .block_bytes = block_bytes};
    return 0;
}

void rb_region_fini(struct rb_region *r) {
    free(r->used);
    *r = (struct rb_region){0};
}

int64_t rb_region_take(struct rb_region *r, uint64_t bytes) {
    uint32_t count, first;

    if (bytes == 0) return -EINVAL;
    if (bytes > (uint64_t)r->blocks * r->block_bytes) return -EMSGSIZE;
    count = rb_region_blocks_for(r, bytes);
    if (count > r->blocks - r->taken) return -ENOSPC;
    first = find(r, r->lowest, 0);
    r->lowest = first;
    while (r->blocks - first >= count) {
        uint32_t end = find(r, first, 1);
        if (end - first >= count) {
            mark(r, first, count, 1);
            r->taken += count;
            if (first == r->lowest) r->lowest = first + count;
            if (first + count > r->highest_touched) r->highest_touched = first + count;
            return first;
        }
        first = find(r, end, 0);
    }
    return -ENOSPC;
}

int rb_region_give(struct rb_region *r, uint32_t first, uint32_t count) {
    if (count == 0 || first >= r->blocks || count > r->blocks - first) return -EINVAL;
    if (find(r, first, 0) < first + count) return -EINVAL;
    mark(r, first, count, 0);
    r->taken -= count;
    if (first < r->lowest) r->lowest = first;
    return 0;
}

int64_t rb_region_trim(struct rb_region *r, int fd, uint64_t at, uint64_t keep_bytes) {
    uint64_t keep = (keep_bytes + r->block_bytes - 1) / r->block_bytes;
    uint32_t from, end;
    int64_t punched = 0;

    if (keep >= r->highest_touched) return 0;
    for (from = find(r, (uint32_t)keep, 0); from < r->highest_touched; from = find(r, end, 0)) {
        uint64_t bytes;
        end = find(r, from, 1);
        if (end > r->highest_touched) end = r->highest_touched;
        bytes = (uint64_t)(end - from) * r->block_bytes;
        if (fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                      (off_t)(at + (uint64_t)from * r->block_bytes), (off_t)bytes) < 0)
            return -errno;
        punched += (int64_t)bytes;
        if (end == r->highest_touched) {
            r->highest_touched = from; /* all of the tail was free */
            break;
        }
    }
    return punched;
}
