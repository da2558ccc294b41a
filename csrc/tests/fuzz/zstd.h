/* fuzz/zstd.h: a payload that says it is a zstd frame, through the kit's own decoder (workers/c/kit/zstd.c, as it is).
 *
 * The first byte chooses the limit. Held: the frame breaks a rule, told in words, or the payload is as large as its head says,
 * within the limit; and compressing that again and decompressing it gives the same. */
#ifndef RINGBRIDGE_FUZZ_ZSTD_H
#define RINGBRIDGE_FUZZ_ZSTD_H

#include "../../../workers/c/kit/zstd.c"

void rb_kit_broken(const struct rb_worker *w, const char *format, ...) {
    (void)w;
    (void)format;
    abort();
}

static inline int fuzz_zstd(const uint8_t *data, size_t size) {
    static struct rb_relay_positions theirs;
    static uint8_t region[1 << 20], frame[1 << 20];
    static struct rb_worker w = {
        .link = {.theirs = &theirs, .results = region, .offered = RB_FEATURE_ZSTD}};
    struct rb_job job = {
        .worker = &w, .first_block = 0, .state = RB_JOB_RESERVED, .reserved = sizeof region};
    uint64_t stated;
    const char *rule;
    if (size < 1) return 0;
    if (!w.link.header.features) {
        w.link.header.result_block_bytes = 4096;
        rb_zstd_offer(&w);
        if (!(w.link.header.features & RB_FEATURE_ZSTD)) abort(); /* no libzstd.so.1 here */
    }
    theirs.payload_bytes_max = (uint64_t)data[0] << 12;
    size--;
    if (size > UINT16_MAX) size = UINT16_MAX;
    uint8_t *exact = malloc(size ? size : 1); /* so that a byte too far is seen */
    memcpy(exact, data + 1, size);
    job.payload = exact;
    job.request.payload_bytes = (uint32_t)size;
    job.request.flags = RB_FLAG_ZSTD | (size <= RB_INLINE_BYTES_MAX ? RB_FLAG_INLINE : 0);
    const char *broken = rb_zstd_unpack(&job);
    if (broken && broken[0] == 0) abort();
    if (!broken) {
        size_t content = job.request.payload_bytes;
        if (rb_zstd_frame(exact, size, &stated, &rule) < 0 || content != stated) abort();
        if (content > theirs.payload_bytes_max || job.request.flags & RB_FLAG_ZSTD) abort();
        if (!(job.request.flags & RB_FLAG_INLINE) != content > RB_INLINE_BYTES_MAX) abort();
        memcpy(region, job.payload, content);
        job.request.flags |= RB_FLAG_ACCEPTS_ZSTD;
        size_t packed = rb_zstd_pack(&job, content);
        if (packed > content) abort();
        memcpy(frame, region, packed);
        if (packed < content) {
            struct rb_job again = {.worker = &w, .payload = frame};
            again.request.payload_bytes = (uint32_t)packed;
            again.request.flags = RB_FLAG_ZSTD;
            memcpy(region, job.payload, content);
            if (rb_zstd_unpack(&again) || again.request.payload_bytes != content) abort();
            if (memcmp(again.payload, region, content) != 0) abort();
        }
    }
    rb_zstd_job_done(&w);
    free(exact);
    return 0;
}

#endif
