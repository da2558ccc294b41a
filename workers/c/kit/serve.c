/* serve.c: the loop: wait at the gate, take what is in the ring as one batch, run job by job.
 *
 *      wait ──> batch of n ──> copy, check ──> started ──> handler ──> completion ──┐
 *       ^          ^────────────────────── next job ────────────────────────────────┤
 *       └───────────────────────── publish, release slots ──────────────────────────┘
 *
 * Death: killed before `started` moves, the bridge gives the job to another worker; killed after it, the job is lost with us and
 * answered {:worker_crashed, ...}; killed after the completion is published, the answer stands. */
#include <errno.h>
#include <poll.h>
#include <string.h>

#include "channel_pvt.h"
#include "kit_pvt.h"
#include "peer_pvt.h"
#include "ringbridge/envelope.h"

/* Pages of large answers go back to the kernel after this long without work; the first MiB stays. */
static const int64_t TRIM_AFTER_NS = 1000000000;
enum {
    RESULTS_KEPT_BYTES = 1 << 20,
    /* A job with more payload than this is not short, whatever options.short_jobs says: answers do not wait behind it. */
    SHORT_PAYLOAD_BYTES_MAX = 16 << 10,
};

/* Points the job at its payload, or ends the process: the relay is ours, and never sends what breaks a rule. */
static void check(struct rb_job *job) {
    const struct rb_worker *w = job->worker;
    const struct rb_request *q = &job->request;
    uint64_t pool_bytes = w->link.header.pool_bytes;
    if (q->flags & RB_FLAG_INLINE) {
        if (q->payload_bytes > RB_INLINE_BYTES_MAX)
            rb_kit_broken(w, "job %llu has %u bytes inline", (unsigned long long)q->job,
                          q->payload_bytes);
        job->payload = q->body;
    } else {
        if (q->payload_at > pool_bytes || q->payload_bytes > pool_bytes - q->payload_at)
            rb_kit_broken(w, "job %llu has %u bytes at %llu of a pool of %llu",
                          (unsigned long long)q->job, q->payload_bytes,
                          (unsigned long long)q->payload_at, (unsigned long long)pool_bytes);
        job->payload = w->link.pool ? w->link.pool + q->payload_at : q->body;
    }
    uint32_t crc = rb_request_crc(q, job->payload, w->link.header.features);
    if (crc != q->crc)
        rb_kit_broken(w, "job %llu has CRC %08x, its bytes make %08x", (unsigned long long)q->job,
                      q->crc, crc);
}

static void run_one(struct rb_worker *w, uint64_t drained_ns) {
    uint64_t slot = rb_ring_slot(&w->link.request_ring, w->unreleased);
    uint64_t position = w->link.request_ring.head + w->unreleased;
    struct rb_job job = {.worker = w,
                         .slot = slot,
                         .position = position,
                         .first_block = -1,
                         .drained_ns = drained_ns,
                         .start_ns = w->now_ns,
                         .request = w->link.requests[slot]};
    const char *rule;
    if (w->unpublished_ns != 0 && job.request.payload_bytes > SHORT_PAYLOAD_BYTES_MAX)
        rb_kit_publish(w);
    check(&job);
    uint64_t started = w->counters.started + 1;
    /* For the heartbeat. Relaxed: one writer, this thread. */
    rb_store_relaxed(&w->counters.started, started);
    /* K0: pairs with the relay's acquire load after our death. In order with the handler's own effects as the call is opaque to
     * the compiler and a process that dies has made its earlier stores. */
    rb_store_release(&w->link.ours->started, started);
    if (rb_is_cancelled(&job)) {
        rb_cancelled(&job);
    } else if (job.request.flags & RB_FLAG_ZSTD && (rule = rb_zstd_unpack(&job)) != NULL) {
        rb_fail(&job, RB_CODE_BAD_FRAME, "the payload is no zstd frame for this worker: %s", rule);
    } else {
        w->options->handler(&job, w->options->user);
        if (w->leaving) return;
        rb_kit_answer_unanswered(&job);
    }
    rb_zstd_job_done(w);
    w->unreleased++;
}

struct wait {
    struct rb_worker *worker;
    uint32_t begun, announced; /* sequences of the gate: before the wait, and of the last parking */
    int interruptible;
};

static int ready_with_work(void *arg) {
    struct wait *wait = arg;
    struct rb_worker *w = wait->worker;
    uint32_t sequence = w->link.waiter.sequence;
    if (rb_channel.held) return rb_kit_control(w) == RB_CONTROL_STOP;
    if (rb_ring_available(&w->link.request_ring) != 0 || rb_kit_control(w) != RB_CONTROL_RUN)
        return 1;
    /* The gate looks twice in a parking, before its sleep and after it; a way that was refused it does not call the last one. */
    int slept = sequence != wait->begun && sequence == wait->announced &&
                w->link.waiter.last != RB_PARK_AWAKE;
    wait->announced = sequence;
    return slept && wait->interruptible;
}

/* Waits, and while large answers have left pages behind, gives those back when it is time. */
void rb_kit_wait_for_work(struct rb_worker *w, int64_t slice_ns) {
    struct rb_region *region = &w->link.result_region;
    struct wait wait = {.worker = w, .interruptible = slice_ns >= 0};
    for (;;) {
        int swollen = (uint64_t)region->highest_touched * region->block_bytes > RESULTS_KEPT_BYTES;
        int trims = swollen && (slice_ns < 0 || slice_ns >= TRIM_AFTER_NS);
        wait.begun = wait.announced = w->link.waiter.sequence;
        w->link.waiter.last = RB_PARK_AWAKE;
        int64_t limit_ns = trims ? TRIM_AFTER_NS : slice_ns;
        int found = rb_channel.listens
                        ? rb_gate_wait_or_fd(&w->link.waiter, rb_peers_wait_fd(), POLLIN,
                                             ready_with_work, &wait, limit_ns)
                        : rb_gate_wait(&w->link.waiter, ready_with_work, &wait, limit_ns);
        rb_store_relaxed(&w->counters.gate,
                         w->link.waiter.last); /* for the heartbeat; one writer: this thread */
        if (found) return;
        rb_kit_take_givebacks(w);
        if (trims)
            rb_region_trim(region, w->link.fds.worker_side, w->link.header.results_at,
                           RESULTS_KEPT_BYTES);
        if (slice_ns >= 0) return;
    }
}

enum rb_kit_turn rb_kit_turn(struct rb_worker *w) {
    /* The control word first: what was published before "drain" is then in the count. */
    int control = rb_kit_control(w);
    int64_t count = rb_ring_available(&w->link.request_ring);
    if (count < 0) rb_kit_broken(w, "the position of the request ring ran backwards or too far");
    rb_channel_look(w,
                    1); /* so what the bridge has said before a job was published is known to it */
    if (rb_channel.held && control != RB_CONTROL_STOP) return RB_KIT_IDLE;
    if (control == RB_CONTROL_STOP || (control != RB_CONTROL_RUN && count == 0))
        return RB_KIT_LEAVE;
    int served = control == RB_CONTROL_RUN ? rb_peers_serve(w, 1) : 0;
    if (count == 0) return served ? RB_KIT_RAN : RB_KIT_IDLE;
    rb_kit_take_givebacks(w);
    uint64_t drained_ns = w->now_ns = rb_now_ns();
    while (count-- > 0 && rb_kit_control(w) != RB_CONTROL_STOP && !w->leaving) {
        run_one(w, drained_ns);
        rb_channel_look(w, 0);
        if (rb_channel.held) break;
        rb_peers_serve(w, 0);
    }
    rb_kit_publish(w);
    return w->leaving ? RB_KIT_LEAVE : RB_KIT_RAN;
}

void rb_kit_serve(struct rb_worker *w) {
    enum rb_kit_turn turn;
    while ((turn = rb_kit_turn(w)) != RB_KIT_LEAVE)
        if (turn == RB_KIT_IDLE) rb_kit_wait_for_work(w, -1);
}
