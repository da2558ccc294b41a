/* completion.c: what a worker says of its jobs: parts, progress, answers.
 *
 * Everything read here was written by a process that may lie (DESIGN.md, section 4): an envelope is copied before it is looked at, every number
 * is held against what the relay itself knows, and a broken rule ends the worker, not the relay. */
#include <stdio.h>

#include "relay/dispatch/worker_pvt.h"
#include "relay/relay_pvt.h"
#include "relay/service/encoding.h"
#include "ringbridge/envelope.h"

enum {
    SERVICE_WEIGHT = 8,        /* the moving average takes an eighth of each new value */
    COMPLETIONS_A_ROUND = 256, /* one worker's flood must not starve the others */
};

static void measure(struct rb_worker *w, const struct rb_job *j, uint64_t run_ns) {
    uint64_t most = w->relay->now > j->placed_ns ? w->relay->now - j->placed_ns : 0;
    if (run_ns > most)
        run_ns = most; /* its own clock: it cannot have run longer than it was away */
    uint64_t average = w->service_ns;
    w->service_ns = average == 0 ? run_ns + 1
                                 : average + run_ns / SERVICE_WEIGHT - average / SERVICE_WEIGHT + 1;
    uint64_t credit = (uint64_t)w->role->config.choice.credit_us * 1000 / w->service_ns;
    if (credit < 1) credit = 1;
    if (credit > w->link.config.slots) credit = w->link.config.slots;
    w->credit = (uint32_t)credit;
    GAUGE(w->stats.service_ns, w->service_ns);
    GAUGE(w->stats.credit, credit);
}

struct rb_slice rb_worker_term_request(const struct rb_job *j) {
    if (!j->is_term) return (struct rb_slice){NULL, 0};
    return (struct rb_slice){rb_job_payload(j), j->request.payload_bytes};
}

/* Echoes of the request are known to be good. */
int rb_worker_check_term(struct rb_worker *w, const struct rb_job *j, struct rb_slice copy,
                         const char **rule) {
    struct rb_slice request = rb_worker_term_request(j);
    /* No bytes at all are no term, however much they are like a request that was none. */
    if (j->is_term && rb_slice_equal(copy, request)) return 0;
    return rb_term_check(copy, request, &w->role->rules, &w->atoms, rule);
}

/* The payload's place, checked against the region; NULL breaks a rule. */
static const uint8_t *result_at(struct rb_worker *w, const struct rb_completion *e) {
    if (e->flags & RB_FLAG_INLINE) return e->payload_bytes <= RB_INLINE_BYTES_MAX ? e->body : NULL;
    uint64_t region = w->link.config.result_bytes;
    if (e->payload_at % w->link.config.result_block_bytes || e->payload_at > region) return NULL;
    return e->payload_bytes <= region - e->payload_at ? w->link.results + e->payload_at : NULL;
}

static const char *give_back(struct rb_worker *w, const struct rb_completion *e) {
    if (e->flags & RB_FLAG_INLINE) return NULL;
    uint32_t block = w->link.config.result_block_bytes;
    uint32_t count = (uint32_t)(((uint64_t)e->payload_bytes + block - 1) / block);
    if (count == 0) return NULL;
    int64_t slot = rb_ring_claim(&w->link.giveback_ring);
    if (slot < 0)
        return "giveback_ring_full"; /* as many slots as blocks: only blocks named twice can fill it */
    w->link.givebacks[slot] =
        (struct rb_giveback){.first = (uint32_t)(e->payload_at / block), .count = count};
    return NULL;
}

/* A timed job: its stations were stamped on the way; the last one, the socket, comes with the round's flush (relay.c). */
static void sample(struct rb_relay *r, const struct rb_job *j, uint64_t run_ns) {
    r->sampled_ns = rb_clock_ns();
    COUNT(r->hops.samples, 1);
    COUNT(r->hops.socket_to_queue_ns, j->queued_ns - j->arrived_ns);
    COUNT(r->hops.queue_to_ring_ns, j->ringed_ns - j->queued_ns);
    COUNT(r->hops.ring_to_answer_ns, r->sampled_ns - j->ringed_ns);
    COUNT(r->hops.worker_run_ns, run_ns);
}

/* A completion that is not the job's last. What nobody hears of any more is held to the same rules. */
static const char *before_the_end(struct rb_worker *w, struct rb_job *j,
                                  const struct rb_completion *e, const uint8_t *payload) {
    if (e->status == RB_STATUS_PROGRESS) {
        const char *broken = rb_progress_take(w, j, e, payload);
        return broken ? broken : give_back(w, e);
    }
    if (!(j->request.flags & RB_FLAG_PARTS)) return "part_not_asked";
    if (j->parts_sent == j->parts_granted) return "part_without_demand";
    if (e->payload_bytes > RB_PART_BYTES_MAX) return "part_too_large";
    j->parts_sent++;
    const char *rule = j->subscription ? rb_stream_part(w, j, e, payload) : NULL;
    return rule ? rule : give_back(w, e);
}

/* A term is walked on a private copy, since the worker could change it under our eyes. 1: it goes on, in the next round. */
static int answer_term(struct rb_worker *w, const struct rb_caller *to, const struct rb_job *j,
                       const struct rb_completion *e, const uint8_t *payload, uint64_t *effort,
                       const char **rule) {
    struct rb_slice term;
    int rc = w->answering.walk ? rb_term_answer_on(w, effort, &term, rule)
                               : rb_term_answer_begin(w, j, e, payload, effort, &term, rule);
    if (rc == -EAGAIN) return 1;
    if (rc == 0) rb_answer_term(to, j->detail ? j : NULL, term);
    rb_term_answer_end(w);
    return 0;
}

/* What may not wait on a socket would cost the caller's whole node its connection. A sixteenth is for what waits already. */
static uint64_t answer_max(const struct rb_relay *r) {
    return r->config.outgoing_bytes_max - r->config.outgoing_bytes_max / 16;
}

/* The worker's bytes will be the answer, as they are, to a caller at a lane: then they are read once, on their way there. Nothing but their sum
 * can still keep them from it. */
static int is_drawn(const struct rb_worker *w, const struct rb_job *j,
                    const struct rb_completion *e) {
    return j->kind == RB_CALLER_LANE && j->state == RB_JOB_PLACED && !j->detail &&
           e->status == RB_STATUS_OK &&
           !(e->flags & (RB_FLAG_INLINE | RB_FLAG_TERM | RB_FLAG_ZSTD)) &&
           w->link.config.features & RB_FEATURE_CRC_PAYLOAD &&
           e->payload_bytes <= answer_max(w->relay);
}

/* Not an end: what is left of it comes in the next round. */
static const char *const goes_on = "goes_on";

/* One completion, on a private copy. NULL, or the rule that it breaks, or `goes_on`. */
static const char *complete(struct rb_worker *w, struct rb_completion *e, uint64_t *effort) {
    struct rb_relay *r = w->relay;
    struct rb_job *j = rb_job_find(r, e->job);
    if (!j || j->worker != w || (j->state != RB_JOB_PLACED && j->state != RB_JOB_ABANDONED))
        return "completion_of_no_job_here";
    if (e->status > RB_STATUS_PROGRESS) return "completion_status";
    const uint8_t *payload = result_at(w, e);
    if (!payload) return "completion_payload_out_of_range";
    if (!w->answering
             .walk) { /* what is walked was looked at when that began, and is not read again */
        uint64_t cost = rb_completion_effort(e);
        *effort -= cost < *effort ? cost : *effort;
        uint64_t features = w->link.config.features;
        uint32_t sum, crc;
        const uint8_t *drawn =
            is_drawn(w, j, e) ? rb_beam_draw(j, payload, e->payload_bytes, &sum) : NULL;
        if (drawn) {
            payload = drawn;
            crc = rb_completion_crc_summed(e, sum, features);
        } else {
            crc = rb_completion_crc(e, payload, features);
        }
        if (crc != e->crc) {
            if (drawn) rb_beam_drawn_end(j);
            return "completion_crc";
        }
    } else if (j->state != RB_JOB_PLACED) {
        rb_term_answer_end(w); /* nobody hears of it any more */
    }
    const char *rule = rb_encoding_rule(j, e);
    if (rule) return rule;
    if (e->status > RB_STATUS_CANCELLED) return before_the_end(w, j, e, payload);

    enum rb_reason reason = RB_REASON_OK;
    j->run_ns = e->run_ns;
    if (j->state == RB_JOB_PLACED) {
        struct rb_caller to = rb_job_caller(j);
        uint64_t most = answer_max(r);
        if (e->status == RB_STATUS_FAILED) {
            reason = RB_REASON_JOB_FAILED;
            rb_answer_failed(&to, e->code, payload,
                             e->payload_bytes > 65536 ? 65536 : e->payload_bytes);
        } else if (e->status == RB_STATUS_CANCELLED) {
            /* Nobody cancelled it, so the worker saw its deadline first: the same clock, read after its look, the same answer. */
            reason = rb_relay_clock(r) >= j->request.deadline_ns ? RB_REASON_DEADLINE_EXCEEDED
                                                                 : RB_REASON_CANCELLED;
            rb_answer_reason(&to, reason);
        } else if (e->payload_bytes > most) {
            char why[128];
            int n = snprintf(
                why, sizeof why,
                "an answer of %u bytes does not fit into the %llu that may wait on a socket",
                e->payload_bytes, (unsigned long long)most);
            reason = RB_REASON_JOB_FAILED;
            rb_answer_failed(&to, RB_CODE_ANSWER_TOO_LARGE, (const uint8_t *)why, (size_t)n);
        } else if (e->flags & RB_FLAG_TERM) {
            if (answer_term(w, &to, j, e, payload, effort, &rule)) return goes_on;
            if (rule) return rule;
        } else {
            if (e->flags & RB_FLAG_ZSTD) to.encoding = "zstd";
            rb_answer_raw(&to, j->detail ? j : NULL, payload, e->payload_bytes);
        }
    }
    rule = give_back(w, e);
    if (j->request.flags & RB_FLAG_PARTS)
        w->streams--; /* its time was its consumer's, and says nothing of the worker */
    else
        measure(w, j, e->run_ns);
    if (j->state == RB_JOB_PLACED) {
        if (w->role->config.breaker.failure_percent) rb_health_ended(w, j->placed_ns, reason);
        if (w->role->config.admission.adaptive.limit_max && !(j->request.flags & RB_FLAG_PARTS))
            rb_admission_ended(r, j);
    }
    if (j->sampled) sample(r, j, e->run_ns);
    w->placed[j->position & (w->link.config.slots - 1)] = NULL;
    w->in_flight--;
    w->last_job = j->id;
    GAUGE(w->stats.in_flight, w->in_flight);
    COUNT(w->stats.done, 1);
    if (j->state == RB_JOB_PLACED) {
        j->worker = NULL; /* so that answering it frees it */
        rb_job_answered(r, j, reason);
    } else {
        if (e->status == RB_STATUS_CANCELLED && j->stopped_ns) { /* it has looked, and left off */
            COUNT(w->role->stats.noticed, 1);
            COUNT(w->role->stats.noticed_ns, rb_relay_clock(r) - j->stopped_ns);
        }
        rb_job_free(r, j);
    }
    return rule;
}

int rb_worker_poll(struct rb_worker *w) {
    if (w->state == RB_WORKER_FENCED) return 0;
    if (w->shadow) rb_tape_look(w);
    int64_t count = rb_ring_available(&w->link.completion_ring);
    if (count < 0) {
        rb_worker_broke(w, "completion_tail_out_of_range");
        return 0;
    }
    if (count > COMPLETIONS_A_ROUND) count = COMPLETIONS_A_ROUND;
    w->held = 0;
    if (count == 0) return 0;
    const char *rule = NULL;
    int64_t taken = 0;
    int parts = 0, walking = 0;
    uint64_t effort = w->last_words ? RB_EFFORT_AT_END : RB_EFFORT_A_ROUND;
    while (taken < count && !rule && effort > 0) {
        struct rb_completion e;
        memcpy(&e,
               w->answering.walk
                   ? &w->answering.envelope
                   : &w->link.completions[rb_ring_slot(&w->link.completion_ring, (uint64_t)taken)],
               sizeof e);
        if (e.status == RB_STATUS_PART) {
            if ((w->held = rb_stream_must_wait(w, &e))) break;
            parts = 1;
        }
        rule = complete(w, &e, &effort);
        if (rule == goes_on) {
            rule = NULL;
            walking = 1;
            break;
        }
        taken++;
    }
    if (taken == 0) return walking;
    if (parts) rb_stream_flush(w->relay);
    rb_ring_release(&w->link.completion_ring, (uint64_t)taken);
    /* In a job it may be waiting for a block; or for a slot, where parts may fill the ring: no more jobs are out than it has slots. One that
     * has no job waits for the next, and sees by itself what was given back. */
    int given = rb_ring_publish(&w->link.giveback_ring) > 0;
    if ((given || parts) && w->in_flight > 0) rb_gate_ring(&w->link.waker);
    rb_place_look(w);
    if (w->role->queued > 0) w->role->dirty = 1;
    rb_worker_stirs(w);
    if (rule) rb_worker_broke(w, rule);
    return (int)taken;
}

void rb_worker_poll_last(struct rb_worker *w) {
    w->last_words = 1;
    /* Bounded by its ring: where namespaces are forbidden a liar may outlive its init. */
    for (uint32_t i = 0; i <= w->link.config.slots / COMPLETIONS_A_ROUND && rb_worker_poll(w) > 0;
         i++) {
    }
}
