/* The block bitmap, against a model of one byte a block. */
#define _GNU_SOURCE
#include <sys/stat.h>

#include "check.h"
#include "ringbridge/region.h"

enum { BLOCK = 4096 };

static void sizes_that_make_no_region_are_refused(void) {
    struct rb_region r;
    CHECK_EQUAL(rb_region_init(&r, 0, BLOCK), -EINVAL);
    CHECK_EQUAL(rb_region_init(&r, BLOCK, 0), -EINVAL);
    CHECK_EQUAL(rb_region_init(&r, BLOCK + 1, BLOCK), -EINVAL);
    CHECK_EQUAL(rb_region_init(&r, UINT64_C(1) << 50, BLOCK), -EINVAL);
}

static void what_never_fits_is_told_from_what_does_not_fit_now(void) {
    struct rb_region r;
    CHECK_EQUAL(rb_region_init(&r, 10 * BLOCK, BLOCK), 0);
    CHECK_EQUAL(rb_region_take(&r, 0), -EINVAL);
    CHECK_EQUAL(rb_region_take(&r, 10 * BLOCK + 1), -EMSGSIZE);
    CHECK_EQUAL(rb_region_take(&r, UINT64_MAX), -EMSGSIZE);
    CHECK_EQUAL(rb_region_take(&r, 10 * BLOCK), 0);
    CHECK_EQUAL(rb_region_take(&r, 1), -ENOSPC);
    rb_region_fini(&r);
}

static void giving_back_what_is_free_or_outside_changes_nothing(void) {
    struct rb_region r;
    uint32_t before;
    CHECK_EQUAL(rb_region_init(&r, 100 * BLOCK, BLOCK), 0);
    CHECK_EQUAL(rb_region_take(&r, 70 * BLOCK), 0);
    before = r.taken;
    CHECK_EQUAL(rb_region_give(&r, 70, 1), -EINVAL);
    CHECK_EQUAL(rb_region_give(&r, 69, 2), -EINVAL);
    CHECK_EQUAL(rb_region_give(&r, 0, 0), -EINVAL);
    CHECK_EQUAL(rb_region_give(&r, 100, 1), -EINVAL);
    CHECK_EQUAL(rb_region_give(&r, 60, 41), -EINVAL);
    CHECK_EQUAL(rb_region_give(&r, 1, UINT32_MAX), -EINVAL);
    CHECK_EQUAL(r.taken, before);
    CHECK_EQUAL(rb_region_give(&r, 0, 70), 0);
    CHECK_EQUAL(rb_region_give(&r, 0, 70), -EINVAL);
    CHECK_EQUAL(r.taken, 0);
    rb_region_fini(&r);
}

static void the_lowest_run_that_fits_is_taken(void) {
    struct rb_region r;
    CHECK_EQUAL(rb_region_init(&r, 256 * BLOCK, BLOCK), 0);
    for (int i = 0; i < 256; i++) CHECK_EQUAL(rb_region_take(&r, 1), i);
    CHECK_EQUAL(rb_region_give(&r, 10, 1), 0);
    CHECK_EQUAL(rb_region_give(&r, 62, 4), 0); /* over the border of two words */
    CHECK_EQUAL(rb_region_give(&r, 128, 64), 0);
    CHECK_EQUAL(rb_region_take(&r, 2 * BLOCK), 62);
    CHECK_EQUAL(rb_region_take(&r, BLOCK), 10);
    CHECK_EQUAL(rb_region_take(&r, 64 * BLOCK), 128);
    CHECK_EQUAL(rb_region_take(&r, 3 * BLOCK), -ENOSPC);
    CHECK_EQUAL(rb_region_take(&r, 2 * BLOCK), 64);
    CHECK_EQUAL(r.taken, 256);
    rb_region_fini(&r);
}

/* First fit by looking at each block: what the bitmap must do. */
struct model {
    uint8_t taken[300];
    uint32_t blocks;
};

static int64_t model_take(struct model *m, uint32_t count) {
    for (uint32_t first = 0; first + count <= m->blocks; first++) {
        uint32_t n = 0;
        while (n < count && !m->taken[first + n]) n++;
        if (n == count) {
            memset(m->taken + first, 1, count);
            return first;
        }
    }
    return -ENOSPC;
}

static int model_give(struct model *m, uint32_t first, uint32_t count) {
    if (count == 0 || first + count > m->blocks) return -EINVAL;
    for (uint32_t i = 0; i < count; i++)
        if (!m->taken[first + i]) return -EINVAL;
    memset(m->taken + first, 0, count);
    return 0;
}

static void random_takes_and_gives_agree_with_the_model(void) {
    static const uint32_t sizes[] = {1, 63, 64, 65, 130, 256, 300};
    uint64_t state = 42;
    for (unsigned s = 0; s < sizeof sizes / sizeof *sizes; s++) {
        struct model m = {.blocks = sizes[s]};
        struct rb_region r;
        CHECK_EQUAL(rb_region_init(&r, (uint64_t)sizes[s] * BLOCK, BLOCK), 0);
        for (int step = 0; step < 20000; step++) {
            uint64_t dice = check_random(&state);
            uint32_t count = 1 + (uint32_t)(dice >> 40) % (dice & 8 ? 4 : 80), used = 0;
            if (count > m.blocks) count = m.blocks;
            if (dice & 1) {
                CHECK_EQUAL(
                    rb_region_take(&r, (uint64_t)(count - 1) * BLOCK + 1 + (dice >> 20) % BLOCK),
                    model_take(&m, count));
            } else {
                uint32_t first = (uint32_t)(dice >> 8) % m.blocks;
                CHECK_EQUAL(rb_region_give(&r, first, count), model_give(&m, first, count));
            }
            for (uint32_t i = 0; i < m.blocks; i++) used += m.taken[i];
            CHECK_EQUAL(r.taken, used);
        }
        rb_region_fini(&r);
    }
}

static uint64_t resident_bytes(int fd) {
    struct stat st;
    return fstat(fd, &st) < 0 ? 0 : (uint64_t)st.st_blocks * 512;
}

static void trim_gives_free_pages_above_the_kept_ones_to_the_kernel(void) {
    enum { BLOCKS = 64, AT = 2 * BLOCK, KEEP = 8 };
    int fd = memfd_create("region", MFD_CLOEXEC);
    struct rb_region r;
    uint8_t *base;
    CHECK(fd >= 0 && ftruncate(fd, AT + BLOCKS * BLOCK) == 0);
    base = mmap(NULL, AT + BLOCKS * BLOCK, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    CHECK_EQUAL(rb_region_init(&r, BLOCKS * BLOCK, BLOCK), 0);
    CHECK_EQUAL(rb_region_trim(&r, fd, AT, 0), 0);
    CHECK_EQUAL(rb_region_take(&r, BLOCKS * BLOCK), 0);
    memset(base, 1, AT + BLOCKS * BLOCK);
    CHECK_EQUAL(resident_bytes(fd), AT + BLOCKS * BLOCK);
    CHECK_EQUAL(rb_region_give(&r, 0, 30), 0);
    CHECK_EQUAL(rb_region_give(&r, 32, 32), 0); /* blocks 30 and 31 stay */
    CHECK_EQUAL(rb_region_trim(&r, fd, AT, KEEP * BLOCK), (30 - KEEP + 32) * BLOCK);
    CHECK_EQUAL(resident_bytes(fd), AT + (KEEP + 2) * BLOCK);
    CHECK_EQUAL(base[AT - 1], 1);
    CHECK_EQUAL(base[AT + KEEP * BLOCK - 1], 1);
    CHECK_EQUAL(base[AT + KEEP * BLOCK], 0);
    CHECK_EQUAL(base[AT + 30 * BLOCK], 1);
    CHECK_EQUAL(base[AT + 32 * BLOCK - 1], 1);
    CHECK_EQUAL(base[AT + 32 * BLOCK], 0);
    CHECK_EQUAL(r.highest_touched, 32);
    munmap(base, AT + BLOCKS * BLOCK);
    close(fd);
    rb_region_fini(&r);
}

static void trim_reports_a_descriptor_that_cannot_be_punched(void) {
    struct rb_region r;
    CHECK_EQUAL(rb_region_init(&r, 4 * BLOCK, BLOCK), 0);
    CHECK_EQUAL(rb_region_take(&r, 4 * BLOCK), 0);
    CHECK_EQUAL(rb_region_give(&r, 0, 4), 0);
    CHECK_EQUAL(rb_region_trim(&r, -1, 0, 0), -EBADF);
    CHECK_EQUAL(r.highest_touched, 4);
    rb_region_fini(&r);
}

int main(void) {
    RUN(sizes_that_make_no_region_are_refused);
    RUN(what_never_fits_is_told_from_what_does_not_fit_now);
    RUN(giving_back_what_is_free_or_outside_changes_nothing);
    RUN(the_lowest_run_that_fits_is_taken);
    RUN(random_takes_and_gives_agree_with_the_model);
    RUN(trim_gives_free_pages_above_the_kept_ones_to_the_kernel);
    RUN(trim_reports_a_descriptor_that_cannot_be_punched);
    return check_end();
}
