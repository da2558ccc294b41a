/* job.c: what a handler may ask of its job. */
#include <string.h>

#include "kit_pvt.h"

/* A cancelled job notices within this time; a worker asleep in one job costs 200 wake-ups a second. */
static const uint64_t SLEEP_SLICE_NS = 5000000;

void rb_pulse(struct rb_job *job) {
    /* Relaxed, and atomic since threads of the handler may call: nothing is read on the strength of it (relay/dispatch/vitals.c). */
    __atomic_fetch_add(&job->worker->link.ours->pulse, 1, __ATOMIC_RELAXED);
}

uint64_t rb_job_id(const struct rb_job *job) { return job->request.job; }
uint16_t rb_job_opcode(const struct rb_job *job) { return job->request.opcode; }
uint64_t rb_job_deadline_ns(const struct rb_job *job) { return job->request.deadline_ns; }
int rb_job_payload_is_term(const struct rb_job *job) {
    return (job->request.flags & RB_FLAG_TERM) != 0;
}

void rb_job_trace(const struct rb_job *job, struct rb_trace *trace) {
    memcpy(trace->trace_id, job->request.trace_id, sizeof trace->trace_id);
    memcpy(trace->span_id, job->request.span_id, sizeof trace->span_id);
    trace->flags = job->request.trace_flags;
}

const void *rb_job_payload(const struct rb_job *job, size_t *size) {
    *size = job->request.payload_bytes;
    return job->payload;
}

int rb_is_cancelled(const struct rb_job *job) {
    if (job->peer != NULL) return rb_peer_is_cancelled(job);
    /* C1: pairs with C0 in the relay's stop_running(). The word holds the id of the job to stop, so what was written for an
     * earlier job of this slot means nothing to us. Nothing else is read on the strength of it; seq_cst, since gates wait for it
     * (gate.h, G5). */
    if (rb_load_seq_cst(&job->worker->link.cancels[job->slot]) == job->request.job) return 1;
    if (rb_kit_control(job->worker) == RB_CONTROL_STOP) return 1;
    return job->request.deadline_ns != 0 && rb_now_ns() >= job->request.deadline_ns;
}

static int ready_when_cancelled(void *arg) { return rb_is_cancelled(arg); }

int rb_job_sleep(struct rb_job *job, uint64_t ns) {
    uint64_t end = rb_now_ns() + ns;
    for (;;) {
        uint64_t now = rb_now_ns();
        if (now >= end) return rb_is_cancelled(job);
        uint64_t slice = end - now < SLEEP_SLICE_NS ? end - now : SLEEP_SLICE_NS;
        /* By the gate, so that a bridge which rings after a cancel is heard at once; in slices, as it need not ring. */
        if (rb_gate_wait(&job->worker->link.waiter, ready_when_cancelled, job, (int64_t)slice))
            return 1;
    }
}
