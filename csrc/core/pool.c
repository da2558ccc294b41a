/* pool.c: a role's payload pool: one memfd that the relay alone writes and every worker of the role
 * maps read-only. */
#define _GNU_SOURCE
#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

#include "link_pvt.h"

int rb_pool_create(struct rb_pool *pool, uint64_t bytes, uint32_t block_bytes) {
    struct rb_pool p = {.fd = -1, .bytes = bytes};
    int failed;

    if (bytes == 0 || bytes % RB_PAGE_BYTES) return -EINVAL;
    failed = rb_region_init(&p.region, bytes, block_bytes);
    if (failed) return failed;
    failed = p.fd = rb_memory_create("ringbridge-pool", bytes);
    if (failed < 0) goto fail_region;
    failed = rb_memory_map(p.fd, bytes, 1, &p.base);
    if (failed) goto fail_fd;
    failed = rb_memory_seal(p.fd, 1);
    if (failed < 0) goto fail_map;
    p.seals = (uint32_t)failed;
    *pool = p;
    return 0;

fail_map:
    munmap(p.base, (size_t)bytes);
fail_fd:
    close(p.fd);
fail_region:
    rb_region_fini(&p.region);
    return failed;
}

void rb_pool_close(struct rb_pool *pool) {
    munmap(pool->base, (size_t)pool->bytes);
    close(pool->fd);
    rb_region_fini(&pool->region);
    pool->base = NULL;
    pool->fd = -1;
}
