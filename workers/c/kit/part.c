/* part.c: what a job says before its answer: parts, for which it waits to be asked, and progress, which never waits.
 *
 * Both are completions that are not final. Their room in the result region is their own, so a reservation for the answer stays as
 * it is while they are sent. */
#include <errno.h>
#include <string.h>

#include "kit_pvt.h"
#include "ringbridge/envelope.h"

/* Sends a copy of the bytes, in the blocks from `first` on (less: in the envelope). */
static void send_copy(struct rb_job *job, struct rb_completion *c, const void *bytes, size_t size,
                      int64_t first) {
    struct rb_link_worker *link = &job->worker->link;
    uint64_t now = rb_now_ns();
    uint8_t *room = c->body;
    if (first < 0) {
        c->flags |= RB_FLAG_INLINE;
    } else {
        c->payload_at = (uint64_t)first * link->header.result_block_bytes;
        room = link->results + c->payload_at;
    }
    if (size > 0) memcpy(room, bytes, size);
    c->job = job->request.job;
    c->payload_bytes = (uint32_t)size;
    c->queue_ns = job->start_ns - job->drained_ns;
    c->run_ns = now - job->start_ns;
    c->crc = rb_completion_crc(c, first < 0 ? NULL : room, link->header.features);
    *rb_kit_claim(job) = *c;
    rb_kit_publish_soon(job->worker, now);
}

/* --- parts ------------------------------------------------------------------------------------------------------------- */

int rb_job_wants_parts(const struct rb_job *job) {
    return (job->request.flags & RB_FLAG_PARTS) != 0;
}

unsigned rb_demand(const struct rb_job *job) {
    if (!rb_job_wants_parts(job)) return 0;
    /* D1: pairs with D0 in the relay's rb_stream_grant(). seq_cst, since a gate waits for it (gate.h, G5). Nothing else is read on
     * the strength of it. */
    uint64_t word = rb_load_seq_cst(&job->worker->link.demands[job->slot]);
    return rb_demand_left(word, job->position, job->parts);
}

static int ready_with_demand(void *arg) { return rb_demand(arg) > 0 || rb_is_cancelled(arg); }

/* 0, or -ECANCELED. */
static int wait_for_demand(struct rb_job *job) {
    uint64_t deadline = job->request.deadline_ns;
    while (!rb_is_cancelled(job)) {
        uint64_t now = deadline == 0 ? 0 : rb_now_ns();
        if (rb_demand(job) > 0) return 0;
        rb_kit_publish(job->worker); /* who asks for more has to see what there was */
        /* Demand, a cancel and a stop ring; the deadline does not. */
        if (deadline == 0 || now < deadline)
            rb_gate_wait(&job->worker->link.waiter, ready_with_demand, job,
                         deadline == 0 ? -1 : (int64_t)(deadline - now));
    }
    return -ECANCELED;
}

static int emit(struct rb_job *job, const void *bytes, size_t size, uint16_t flags) {
    struct rb_completion c = {.status = RB_STATUS_PART, .flags = flags};
    int64_t first = -1;
    if (job->state == RB_JOB_ANSWERED) rb_kit_misused(job, "a part was sent after the answer");
    if (!rb_job_wants_parts(job)) return -ENOTSUP;
    if (size > RB_PART_BYTES_MAX) return -EMSGSIZE;
    int failed = wait_for_demand(job);
    if (!failed && size > RB_INLINE_BYTES_MAX) {
        first = rb_kit_take_blocks(job, size);
        if (first < 0) failed = (int)first;
    }
    if (failed) {
        if (failed == -ECANCELED) job->refused = ECANCELED; /* for a handler that returns now */
        return failed;
    }
    job->parts++;
    rb_pulse(job);
    send_copy(job, &c, bytes, size, first);
    return 0;
}

int rb_emit(struct rb_job *job, const void *bytes, size_t size) {
    return emit(job, bytes, size, 0);
}
int rb_emit_term(struct rb_job *job, const void *bytes, size_t size) {
    return emit(job, bytes, size, RB_FLAG_TERM);
}

/* --- progress ---------------------------------------------------------------------------------------------------------- */

int rb_job_wants_progress(const struct rb_job *job) {
    return (job->request.flags & RB_FLAG_PROGRESS) != 0;
}

static int progress(struct rb_job *job, const void *bytes, size_t size, uint16_t flags) {
    struct rb_link_worker *link = &job->worker->link;
    struct rb_completion c = {.status = RB_STATUS_PROGRESS, .flags = flags};
    int64_t first = -1;
    if (job->state == RB_JOB_ANSWERED)
        rb_kit_misused(job, "progress was reported after the answer");
    rb_pulse(job); /* it gets on, whether somebody hears of it or not */
    if (!rb_job_wants_progress(job)) return 0;
    if (size > RB_PROGRESS_BYTES_MAX) return -EMSGSIZE;
    int64_t free_slots = rb_ring_free(&link->completion_ring);
    if (free_slots < 0)
        rb_kit_broken(job->worker, "the position of the completion ring ran backwards or too far");
    if (free_slots == 0) return -EAGAIN;
    if (size > RB_INLINE_BYTES_MAX) {
        rb_kit_take_givebacks(job->worker);
        first = rb_region_take(&link->result_region, size);
        if (first < 0) return -EAGAIN;
    }
    send_copy(job, &c, bytes, size, first);
    return 0;
}

int rb_progress(struct rb_job *job, const void *bytes, size_t size) {
    return progress(job, bytes, size, 0);
}
int rb_progress_term(struct rb_job *job, const void *bytes, size_t size) {
    return progress(job, bytes, size, RB_FLAG_TERM);
}
