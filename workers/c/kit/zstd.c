/* zstd.c: payloads that come as zstd frames, answers that may leave as such. A handler sees plain bytes.
 *
 * The library is looked for when the worker starts, not when it is built: so the kit has no dependency, one program runs everywhere, and
 * where there is no libzstd.so.1 the worker does not take the feature, nor is sent any frame. What is used of it is stable since 1.4.
 *
 *      payload   its head is held against our rules and the role's limit before there is room for its content; the content goes into
 *                memory of our own, which is all that a frame can cost: one call needs no window beside what it writes.
 *      answer    compressed where the caller accepts it, from its place in the result region and back into it, if it gets smaller. */
#include <dlfcn.h>
#include <string.h>
#include <sys/mman.h>

#include "kit_pvt.h"
#include "ringbridge/zstd_frame.h"

enum {
    LEVEL =
        1, /* the fastest of the usual ones: on a link of 1 Gbit/s a better one takes longer than it saves */
    ANSWER_BYTES_MIN = 1024, /* less goes in one packet of a network as it is */
};

static struct {
    void *(*create_compressor)(void);
    void *(*create_decompressor)(void);
    size_t (*compress)(void *context, void *to, size_t room, const void *from, size_t size,
                       int level);
    size_t (*decompress)(void *context, void *to, size_t room, const void *from, size_t size);
    size_t (*find_end)(const void *from, size_t size);
    unsigned (*is_error)(size_t code);
    const char *(*name_of)(size_t code);
    void *compressor, *decompressor; /* made when first needed */
} zstd;

static int find(void *library, const char *name, void *function) {
    void *at = dlsym(library, name);
    memcpy(function, &at,
           sizeof at); /* POSIX lets a data pointer hold a function; C has no cast for it */
    return at != NULL;
}

void rb_zstd_offer(struct rb_worker *w) {
    void *library =
        w->link.offered & RB_FEATURE_ZSTD ? dlopen("libzstd.so.1", RTLD_NOW | RTLD_LOCAL) : NULL;
    if (library == NULL) return;
    if (find(library, "ZSTD_createCCtx", &zstd.create_compressor) &&
        find(library, "ZSTD_createDCtx", &zstd.create_decompressor) &&
        find(library, "ZSTD_compressCCtx", &zstd.compress) &&
        find(library, "ZSTD_decompressDCtx", &zstd.decompress) &&
        find(library, "ZSTD_findFrameCompressedSize", &zstd.find_end) &&
        find(library, "ZSTD_isError", &zstd.is_error) &&
        find(library, "ZSTD_getErrorName", &zstd.name_of))
        rb_link_take(&w->link, RB_FEATURE_ZSTD);
    else
        dlclose(library);
}

/* --- room: mappings, whose pages a kit of another language can keep (workers/python/src/view.c) --------------------------- */

static uint8_t *room_for(struct rb_kit_room *room, size_t bytes) {
    if (bytes <= room->bytes) return room->at;
    if (room->bytes > 0) munmap(room->at, room->bytes);
    size_t whole = (bytes + RB_PAGE_BYTES - 1) & ~(size_t)(RB_PAGE_BYTES - 1);
    void *at = mmap(NULL, whole, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    *room = (struct rb_kit_room){at == MAP_FAILED ? NULL : at, at == MAP_FAILED ? 0 : whole};
    return room->at;
}

static void room_done(struct rb_kit_room *room) {
    if (room->bytes <= RB_ROOM_KEPT_BYTES) return;
    munmap(room->at, room->bytes);
    *room = (struct rb_kit_room){NULL, 0};
}

void rb_zstd_let_go(struct rb_worker *w) {
    room_done(&w->content);
    room_done(&w->frame);
}

struct rb_kit_room rb_zstd_take_content(struct rb_worker *w) {
    struct rb_kit_room room = w->content;
    w->content = (struct rb_kit_room){NULL, 0};
    return room;
}

/* --- a payload ------------------------------------------------------------------------------------------------------------ */

/* Does one whole frame lie there? The library walks from block to block for this and decompresses nothing. */
static const char *rule_of_extent(const uint8_t *frame, size_t size) {
    size_t end = zstd.find_end(frame, size);
    if (zstd.is_error(end)) return zstd.name_of(end);
    return end == size ? NULL : "there are bytes behind it";
}

static const char *decompress(struct rb_worker *w, const struct rb_job *job, size_t bytes) {
    uint8_t *room = room_for(&w->content, bytes ? bytes : 1);
    if (zstd.decompressor == NULL) zstd.decompressor = zstd.create_decompressor();
    if (room == NULL || zstd.decompressor == NULL) return "there is no memory for its content";
    size_t got =
        zstd.decompress(zstd.decompressor, room, bytes, job->payload, job->request.payload_bytes);
    if (zstd.is_error(got)) return zstd.name_of(got);
    return got == bytes ? NULL : "its content has another size than it states";
}

const char *rb_zstd_unpack(struct rb_job *job) {
    struct rb_worker *w = job->worker;
    struct rb_request *q = &job->request;
    uint64_t bytes;
    const char *rule;
    if (!(w->link.header.features & RB_FEATURE_ZSTD) || q->flags & RB_FLAG_TERM)
        rb_kit_broken(w, "job %llu has a payload encoded as this worker has not agreed to",
                      (unsigned long long)q->job);
    if (rb_zstd_frame(job->payload, q->payload_bytes, &bytes, &rule) < 0) return rule;
    /* Z1: pairs with Z0 in the relay's rb_encoding_tell_limit(). Relaxed: the word says something by itself. */
    uint64_t most = rb_load_relaxed(&w->link.theirs->payload_bytes_max);
    if (bytes > most || bytes > UINT32_MAX)
        return "its content is larger than the payloads of its role may be";
    rule = rule_of_extent(job->payload, q->payload_bytes);
    if (rule == NULL) rule = decompress(w, job, (size_t)bytes);
    if (rule != NULL) return rule;
    q->flags &= (uint16_t)~(RB_FLAG_ZSTD | RB_FLAG_INLINE);
    q->payload_bytes = (uint32_t)bytes;
    job->payload = w->content.at;
    if (bytes <= RB_INLINE_BYTES_MAX) { /* as a small payload that came plain */
        q->flags |= RB_FLAG_INLINE;
        memcpy(q->body, w->content.at, (size_t)bytes);
        job->payload = q->body;
    }
    return NULL;
}

/* --- an answer ------------------------------------------------------------------------------------------------------------ */

size_t rb_zstd_pack(struct rb_job *job, size_t size) {
    struct rb_worker *w = job->worker;
    if (!(job->request.flags & RB_FLAG_ACCEPTS_ZSTD) || size < ANSWER_BYTES_MIN) return size;
    if (job->state != RB_JOB_RESERVED || size > job->reserved || job->first_block < 0) return size;
    uint8_t *answer =
        w->link.results + (uint64_t)job->first_block * w->link.header.result_block_bytes;
    uint8_t *frame = room_for(&w->frame, size - 1);
    if (zstd.compressor == NULL) zstd.compressor = zstd.create_compressor();
    if (frame == NULL || zstd.compressor == NULL) return size; /* then as it is */
    size_t packed = zstd.compress(zstd.compressor, frame, size - 1, answer, size, LEVEL);
    if (zstd.is_error(packed)) return size; /* it gets no smaller */
    memcpy(answer, frame, packed);
    return packed;
}
