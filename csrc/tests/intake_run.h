/* intake_run.h: one stream of bytes through an intake, and what its owner wrote down. */
#ifndef RINGBRIDGE_TESTS_INTAKE_RUN_H
#define RINGBRIDGE_TESTS_INTAKE_RUN_H

#include "intake_owner.h"

enum { HEADER = 0x800000, CACHE = 0x2000, PASS_THROUGH = 0 };
#define FRAME_MAX (64u << 20)
#define HEAP_MAX (64u << 20)

struct outcome {
    char *log;
    int rc;
    const char *why;
    struct owner counts;
};

static inline struct outcome run(struct rb_slice a, struct rb_slice b, uint64_t flags, size_t chunk,
                                 int first_only) {
    struct rb_intake in;
    struct owner o;
    struct outcome out = {.rc = 0};
    owner_open(&o, &in, flags, FRAME_MAX, HEAP_MAX);
    if (!(flags & CACHE)) o.given = a.size + b.size; /* a reference stands for more */
    out.rc = give(&in, a.at, a.size, chunk, first_only);
    if (out.rc == 0) out.rc = give(&in, b.at, b.size, chunk, first_only);
    out.why = in.why;
    CHECK(out.rc == 0 || in.why != NULL);
    if (out.rc == 0) CHECK_EQUAL(in.heap.used, in.open_count ? in.heap.used : in.expanded.capacity);
    put_u8(&o.log, 0);
    out.log = strdup((char *)o.log.at);
    CHECK(owner_close(&o));
    CHECK_EQUAL(in.heap.used, 0);
    out.counts = o;
    return out;
}

#define WHOLE SIZE_MAX
static inline struct outcome run_all(const struct bytes *b, uint64_t flags, size_t chunk,
                                     int first_only) {
    return run(slice_of(b), (struct rb_slice){NULL, 0}, flags, chunk, first_only);
}

static inline void same_as(const struct outcome *wanted, struct outcome got, const char *how,
                           size_t at) {
    int same = got.rc == 0 && strcmp(wanted->log, got.log) == 0;
    if (!same && check_breaches < 3)
        printf("%s %zu: %s\nwanted\n%sgot\n%s", how, at, got.why ? got.why : "", wanted->log,
               got.log);
    CHECK(same);
    free(got.log);
}

static inline int lines_of(const char *log) {
    int n = 0;
    for (; *log; log++) n += *log == '\n';
    return n;
}

#endif
