/* answer.c: room for answers, completions with their CRC, and the blocks that the bridge gives back.
 *
 * Who owns a block of the result region is known from the bitmap in our private memory: taken at the reservation, ours until
 * the completion is published, the bridge's until it is given back. The bridge counts a completion's blocks from its size, so a
 * reservation is cut to what was used before it is published. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "kit_pvt.h"
#include "ringbridge/crc32c.h"
#include "ringbridge/envelope.h"

enum {
    /* Waiting for room: the bridge may ring when it gives back, but need not; so look again this often. */
    ROOM_SLICE_NS = 1000000,
    /* How old the oldest unpublished answer may become when options.short_jobs holds answers back. */
    PUBLISH_WITHIN_NS = 50000,
};

/* --- give-backs ------------------------------------------------------------------------------------------------------- */

void rb_kit_take_givebacks(struct rb_worker *w) {
    struct rb_ring_consumer *ring = &w->link.giveback_ring;
    int64_t count = rb_ring_available(ring);
    if (count < 0) rb_kit_broken(w, "the position of the give-back ring ran backwards or too far");
    for (int64_t i = 0; i < count; i++) {
        struct rb_giveback extent = w->link.givebacks[rb_ring_slot(ring, (uint64_t)i)];
        if (rb_region_give(&w->link.result_region, extent.first, extent.count) < 0)
            rb_kit_broken(w, "blocks %u to %u were given back, which are not all taken",
                          extent.first, extent.first + extent.count - 1);
    }
    if (count > 0) rb_ring_release(ring, (uint64_t)count);
}

struct room {
    struct rb_worker *worker;
    const struct rb_job *job; /* NULL: not even a cancel ends this wait */
};

static int ready_with_givebacks(void *arg) {
    const struct room *room = arg;
    return rb_ring_available(&room->worker->link.giveback_ring) != 0 || rb_is_cancelled(room->job);
}

static int ready_with_slot(void *arg) {
    const struct room *room = arg;
    return rb_ring_free(&room->worker->link.completion_ring) != 0 ||
           rb_kit_control(room->worker) == RB_CONTROL_STOP;
}

int64_t rb_kit_take_blocks(struct rb_job *job, uint64_t size) {
    struct rb_worker *w = job->worker;
    struct room room = {w, job};
    for (;;) {
        int64_t first = rb_region_take(&w->link.result_region, size);
        if (first != -ENOSPC) return first;
        /* What we hold back ourselves cannot come back. */
        rb_kit_publish(w);
        if (!rb_gate_wait(&w->link.waiter, ready_with_givebacks, &room, ROOM_SLICE_NS)) continue;
        rb_kit_take_givebacks(w);
        if (rb_is_cancelled(job)) return -ECANCELED;
    }
}

static void drop_reservation(struct rb_job *job) {
    struct rb_region *region = &job->worker->link.result_region;
    if (job->peer != NULL) rb_peer_drop_room(job->peer);
    if (job->state == RB_JOB_RESERVED && job->first_block >= 0)
        rb_region_give(region, (uint32_t)job->first_block,
                       rb_region_blocks_for(region, job->reserved));
    job->state = RB_JOB_OPEN;
}

void *rb_result_reserve(struct rb_job *job, size_t size) {
    struct rb_link_worker *link = &job->worker->link;
    int64_t first = -1;
    if (job->state == RB_JOB_ANSWERED) rb_kit_misused(job, "room was asked for after the answer");
    drop_reservation(job);
    job->summed = 0;
    if (job->peer != NULL) return rb_peer_room(job, size);
    if (size > RB_INLINE_BYTES_MAX) {
        /* A completion's size has 32 bits. */
        first = size > UINT32_MAX ? -EMSGSIZE : rb_kit_take_blocks(job, size);
        if (first < 0) {
            job->wanted = size;
            job->refused = (int)-first;
            errno = job->refused;
            return NULL;
        }
    }
    job->state = RB_JOB_RESERVED;
    job->reserved = size;
    job->first_block = first;
    return first < 0 ? job->inline_bytes
                     : link->results + (uint64_t)first * link->header.result_block_bytes;
}

/* --- completions ------------------------------------------------------------------------------------------------------ */

void rb_kit_publish(struct rb_worker *w) {
    if (rb_ring_publish(&w->link.completion_ring) > 0) rb_gate_ring(&w->link.waker);
    w->unpublished_ns = 0;
    /* After the completions: a slot that is free belongs to a job that is answered. */
    if (w->unreleased > 0) {
        rb_ring_release(&w->link.request_ring, w->unreleased);
        w->unreleased = 0;
    }
}

/* The bridge takes completions steadily; a full ring means that it is held up, or that parts and progress came faster than it
 * looks. What we hold back ourselves is published before the wait. */
struct rb_completion *rb_kit_claim(struct rb_job *job) {
    struct rb_worker *w = job->worker;
    struct room room = {w, NULL};
    for (;;) {
        int64_t slot = rb_ring_claim(&w->link.completion_ring);
        if (slot >= 0) return &w->link.completions[slot];
        if (slot != -EAGAIN)
            rb_kit_broken(w, "the position of the completion ring ran backwards or too far");
        rb_kit_publish(w);
        rb_gate_wait(&w->link.waiter, ready_with_slot, &room, ROOM_SLICE_NS);
        if (rb_kit_control(w) == RB_CONTROL_STOP) _exit(0); /* nobody will read this answer */
    }
}

void rb_kit_publish_soon(struct rb_worker *w, uint64_t now) {
    if (w->unpublished_ns == 0) w->unpublished_ns = now;
    if (!w->options->short_jobs || now - w->unpublished_ns > PUBLISH_WITHIN_NS) rb_kit_publish(w);
}

static void count(struct rb_worker *w, const struct rb_completion *c) {
    struct rb_kit_counters *counters = &w->counters;
    /* Relaxed: one writer, this thread. */
    rb_store_relaxed(&counters->jobs, counters->jobs + 1);
    rb_store_relaxed(&counters->run_ns, c->run_ns);
    if (c->status != RB_STATUS_FAILED) return;
    rb_store_relaxed(&counters->failed, counters->failed + 1);
    rb_store_relaxed(&counters->last_code, c->code);
}

/* Gives the answer that `c` describes; its payload lies in `inline_bytes`, or in the region at c->payload_at. */
static void answer(struct rb_job *job, struct rb_completion *c, const void *in_region) {
    struct rb_worker *w = job->worker;
    uint64_t now = rb_now_ns();
    c->job = job->request.job;
    c->queue_ns = job->start_ns - job->drained_ns;
    c->run_ns = now - job->start_ns;
    if (job->peer != NULL) {
        rb_peer_answer(job, c);
        job->state = RB_JOB_ANSWERED;
        return;
    }
    if (in_region == NULL) {
        c->flags |= RB_FLAG_INLINE;
        memcpy(c->body, job->inline_bytes, c->payload_bytes);
    }
    /* What was packed since has another size. */
    c->crc = in_region && c->payload_bytes == job->summed
                 ? rb_completion_crc_summed(c, job->sum, w->link.header.features)
                 : rb_completion_crc(c, in_region, w->link.header.features);
    *rb_kit_claim(job) = *c;
    job->state = RB_JOB_ANSWERED;
    count(w, c);
    w->now_ns = now;
    rb_kit_publish_soon(w, now);
}

/* Answers with the first `size` bytes of the reservation. */
static void answer_reserved(struct rb_job *job, size_t size, struct rb_completion *c) {
    struct rb_link_worker *link = &job->worker->link;
    struct rb_region *region = &link->result_region;
    const uint8_t *in_region = NULL;
    if (job->state != RB_JOB_RESERVED)
        rb_kit_misused(job, job->state == RB_JOB_ANSWERED ? "it was answered twice"
                                                          : "nothing was reserved for the answer");
    if (size > job->reserved) rb_kit_misused(job, "the answer is longer than what was reserved");
    if (job->first_block >= 0) {
        const uint8_t *bytes = link->results + (uint64_t)job->first_block * region->block_bytes;
        uint32_t had = rb_region_blocks_for(region, job->reserved), kept = 0;
        if (size > RB_INLINE_BYTES_MAX) {
            kept = rb_region_blocks_for(region, size);
            in_region = bytes;
            c->payload_at = (uint64_t)job->first_block * region->block_bytes;
        } else {
            memcpy(job->inline_bytes, bytes, size);
        }
        if (kept < had) rb_region_give(region, (uint32_t)job->first_block + kept, had - kept);
    }
    c->payload_bytes = (uint32_t)size;
    answer(job, c, in_region);
}

void rb_complete(struct rb_job *job, size_t size) {
    size_t packed = rb_zstd_pack(job, size);
    struct rb_completion c = {.status = RB_STATUS_OK, .flags = packed < size ? RB_FLAG_ZSTD : 0};
    answer_reserved(job, packed, &c);
}

void rb_complete_term(struct rb_job *job, size_t size) {
    struct rb_completion c = {.status = RB_STATUS_OK, .flags = RB_FLAG_TERM};
    answer_reserved(job, size, &c);
}

static int complete_copy(struct rb_job *job, const void *bytes, size_t size,
                         void (*complete)(struct rb_job *job, size_t size)) {
    void *room = rb_result_reserve(job, size);
    if (room == NULL) return -job->refused;
    if (job->first_block >= 0 && job->worker->link.header.features & RB_FEATURE_CRC_PAYLOAD) {
        job->sum = rb_crc32c_copy(0, room, bytes, size);
        job->summed = size;
    } else {
        memcpy(room, bytes, size);
    }
    complete(job, size);
    return 0;
}

int rb_complete_bytes(struct rb_job *job, const void *bytes, size_t size) {
    return complete_copy(job, bytes, size, rb_complete);
}
int rb_complete_term_bytes(struct rb_job *job, const void *bytes, size_t size) {
    return complete_copy(job, bytes, size, rb_complete_term);
}

void rb_done(struct rb_job *job) {
    struct rb_completion c = {.status = RB_STATUS_OK};
    if (job->state == RB_JOB_ANSWERED) rb_kit_misused(job, "it was answered twice");
    drop_reservation(job);
    answer(job, &c, NULL);
}

void rb_cancelled(struct rb_job *job) {
    struct rb_completion c = {.status = RB_STATUS_CANCELLED};
    if (job->state == RB_JOB_ANSWERED) rb_kit_misused(job, "it was answered twice");
    drop_reservation(job);
    answer(job, &c, NULL);
}

void rb_fail(struct rb_job *job, uint16_t code, const char *format, ...) {
    struct rb_completion c = {.status = RB_STATUS_FAILED, .code = code};
    char message[RB_MESSAGE_BYTES_MAX + 1];
    va_list arguments;
    void *room;

    if (job->state == RB_JOB_ANSWERED) rb_kit_misused(job, "it was answered twice");
    va_start(arguments, format);
    /* clang-tidy 14 sees this only when it is given several files at once; alone the file is clean.
     * NOLINTNEXTLINE(clang-analyzer-valist.Uninitialized) */
    vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    size_t size = strlen(message);
    room = rb_result_reserve(job, size);
    if (room == NULL) { /* no room before the cancel came */
        rb_cancelled(job);
        return;
    }
    memcpy(room, message, size);
    answer_reserved(job, size, &c);
}

void rb_kit_answer_unanswered(struct rb_job *job) {
    if (job->state == RB_JOB_ANSWERED) return;
    if (job->refused == ECANCELED)
        rb_cancelled(job);
    else if (job->refused == EMSGSIZE)
        rb_fail(job, RB_CODE_ANSWER_TOO_LARGE,
                "an answer of %llu bytes does not fit into a result region of %llu",
                (unsigned long long)job->wanted,
                (unsigned long long)(job->peer ? RB_PEER_BYTES_MAX
                                               : job->worker->link.header.result_bytes));
    else
        rb_fail(job, RB_CODE_NO_ANSWER, "the handler returned without an answer");
}
