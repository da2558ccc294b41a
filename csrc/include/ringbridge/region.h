/* region.h: who owns which block of a shared region, kept in the owner's private memory.
 *
 * First fit over a bitmap: low addresses are used again first, so that the pages of a region which
 * was once full can be given back to the kernel. Not thread-safe: a region has one owner thread. */
#ifndef RINGBRIDGE_REGION_H
#define RINGBRIDGE_REGION_H

#include <stdint.h>

struct rb_region {
    uint64_t *used; /* one bit a block; 1: taken */
    uint32_t blocks;
    uint32_t block_bytes;
    uint32_t taken;           /* blocks */
    uint32_t lowest;          /* no free block lies below it */
    uint32_t highest_touched; /* blocks from it on were not handed out since the last trim */
};

/* 0, -EINVAL, -ENOMEM. */
int rb_region_init(struct rb_region *r, uint64_t bytes, uint32_t block_bytes);
void rb_region_fini(struct rb_region *r);
/* Takes room for `bytes` (> 0). Returns the first block's index, or -ENOSPC (no run that long),
 * -EMSGSIZE (never fits). */
int64_t rb_region_take(struct rb_region *r, uint64_t bytes);
/* Gives `count` blocks back. -EINVAL, and nothing changed, when any of them lies outside or is
 * free. */
int rb_region_give(struct rb_region *r, uint32_t first, uint32_t count);
static inline uint32_t rb_region_blocks_for(const struct rb_region *r, uint64_t bytes) {
    return (uint32_t)((bytes + r->block_bytes - 1) / r->block_bytes);
}
/* Punches holes into `fd` (whose region begins at file offset `at`) where blocks are free above the
 * first `keep_bytes`. To be called when idle. Returns the bytes punched, or a negative errno;
 * -EPERM for memory sealed FUTURE_WRITE (a pool, a relay side), which Linux never lets shrink. */
int64_t rb_region_trim(struct rb_region *r, int fd, uint64_t at, uint64_t keep_bytes);

#endif
