/* chaos_worker.h: a worker in a thread of the test: it takes jobs by the link's own rules, in an
 * order that a seed decides, and now and then is slow, releases its slots late, lies, or dies.
 *
 * It answers with the bytes that it was asked with, so that an answer which reaches the wrong
 * caller is seen. */
#ifndef RINGBRIDGE_TESTS_CHAOS_WORKER_H
#define RINGBRIDGE_TESTS_CHAOS_WORKER_H

#include <pthread.h>

#include "relay_lab.h"

struct chaos_worker {
    uint64_t id;
    uint64_t seed;
    pthread_t thread;
    struct rb_link_worker link;
    int obituary; /* write end */
    int killed;   /* set by the driver: ends at once, as by SIGKILL */
    int *honest;  /* shared by all: no more lies, deaths and sleeps */
};

static inline uint32_t chaos_below(uint64_t *seed, uint32_t bound) {
    return (uint32_t)(check_random(seed) >> 32) % bound;
}

static inline int chaos_is_honest(const struct chaos_worker *w) {
    return rb_load_acquire(w->honest);
}

static inline int chaos_ready(void *arg) {
    struct chaos_worker *w = arg;
    return rb_ring_available(&w->link.request_ring) != 0 ||
           rb_load_seq_cst(&w->link.theirs->control) != RB_CONTROL_RUN ||
           rb_load_acquire(&w->killed);
}

static inline void chaos_nap(uint32_t us) {
    struct timespec t = {.tv_nsec = (long)us * 1000};
    nanosleep(&t, NULL);
}

static inline void chaos_publish(struct chaos_worker *w) {
    if (rb_ring_publish(&w->link.completion_ring) > 0) rb_gate_ring(&w->link.waker);
}

static inline void chaos_give_backs(struct chaos_worker *w) {
    struct rb_ring_consumer *ring = &w->link.giveback_ring;
    int64_t count = rb_ring_available(ring);
    if (count < 0) abort();
    for (int64_t i = 0; i < count; i++) {
        struct rb_giveback g = w->link.givebacks[rb_ring_slot(ring, (uint64_t)i)];
        if (rb_region_give(&w->link.result_region, g.first, g.count) < 0)
            abort(); /* the relay may not give back what is not out */
    }
    rb_ring_release(ring, (uint64_t)count);
}

static inline void chaos_put(struct chaos_worker *w, struct rb_completion *e, const void *payload) {
    e->crc =
        rb_completion_crc(e, payload, w->link.header.features); /* NULL: it lies in the envelope */
    int64_t slot = rb_ring_claim(&w->link.completion_ring);
    if (slot < 0) abort(); /* as many slots as jobs can be out */
    w->link.completions[slot] = *e;
}

/* One that breaks a rule: the relay has to fence us. */
static inline void chaos_lie(struct chaos_worker *w, const struct rb_request *q) {
    struct rb_completion e = {.job = q->job, .flags = RB_FLAG_INLINE, .payload_bytes = 3};
    switch (chaos_below(&w->seed, 7)) {
    case 0: e.job ^= 1ull << chaos_below(&w->seed, 63); break;
    case 1: e.status = 77; break;
    case 2: e.payload_bytes = 65; break;
    case 3:
        e = (struct rb_completion){.job = q->job, .payload_at = 4096, .payload_bytes = UINT32_MAX};
        break;
    case 4: e.flags |= RB_FLAG_TERM; break;
    case 5:
        e = (struct rb_completion){.job = q->job, .flags = RB_FLAG_INLINE | RB_FLAG_TERM};
        break;
    default: rb_store_seq_cst(&w->link.ours->completion_tail, check_random(&w->seed)); return;
    }
    chaos_put(w, &e, NULL);
    chaos_publish(w);
}

static inline int chaos_cancelled(const struct chaos_worker *w, const struct rb_request *q,
                                  uint64_t slot) {
    return rb_load_acquire(&w->link.cancels[slot]) == q->job;
}

static inline void chaos_answer(struct chaos_worker *w, const struct rb_request *q, uint64_t slot) {
    const uint8_t *payload = q->flags & RB_FLAG_INLINE ? q->body : w->link.pool + q->payload_at;
    struct rb_completion e = {
        .job = q->job, .payload_bytes = q->payload_bytes, .flags = q->flags & RB_FLAG_TERM};
    if (rb_request_crc(q, payload, w->link.header.features) != q->crc)
        abort(); /* the relay's own bytes */
    int64_t first = -1;
    if (q->payload_bytes > RB_INLINE_BYTES_MAX) {
        chaos_give_backs(w);
        first = rb_region_take(&w->link.result_region, q->payload_bytes);
    }
    if (chaos_cancelled(w, q, slot) && chaos_below(&w->seed, 2)) {
        if (first >= 0)
            rb_region_give(&w->link.result_region, (uint32_t)first,
                           rb_region_blocks_for(&w->link.result_region, q->payload_bytes));
        e = (struct rb_completion){
            .job = q->job, .status = RB_STATUS_CANCELLED, .flags = RB_FLAG_INLINE};
        chaos_put(w, &e, e.body);
    } else if (first >= 0) {
        e.payload_at = (uint64_t)first * w->link.header.result_block_bytes;
        memcpy(w->link.results + e.payload_at, payload, q->payload_bytes);
        chaos_put(w, &e, w->link.results + e.payload_at);
    } else if (q->payload_bytes > RB_INLINE_BYTES_MAX || chaos_below(&w->seed, 50) == 0) {
        e = (struct rb_completion){
            .job = q->job, .status = RB_STATUS_FAILED, .code = 7, .flags = RB_FLAG_INLINE};
        chaos_put(w, &e, e.body);
    } else {
        e.flags |= RB_FLAG_INLINE;
        memcpy(e.body, payload, q->payload_bytes);
        chaos_put(w, &e, e.body);
    }
}

static inline void *chaos_run(void *arg) {
    struct chaos_worker *w = arg;
    struct rb_obituary how = {RB_OBITUARY_MAGIC, -1, 9, 0};
    int silent = 0;
    for (;;) {
        int64_t count = rb_ring_available(&w->link.request_ring);
        if (count < 0) abort();
        if (rb_load_acquire(&w->killed)) break;
        if (count == 0) {
            if (rb_load_seq_cst(&w->link.theirs->control) == RB_CONTROL_DRAIN) {
                how = (struct rb_obituary){RB_OBITUARY_MAGIC, 0, 0, 0};
                break;
            }
            chaos_give_backs(w);
            rb_gate_wait(&w->link.waiter, chaos_ready, w, 5000000);
            continue;
        }
        uint64_t batch = 1 + chaos_below(&w->seed, (uint32_t)count),
                 head = w->link.request_ring.head;
        int dies = !chaos_is_honest(w) && chaos_below(&w->seed, 150) == 0;
        int each = (int)chaos_below(&w->seed, 2), early = chaos_below(&w->seed, 4) == 0;
        for (uint64_t i = 0; i < batch; i++) {
            uint64_t slot = (head + i) & (w->link.request_ring.slots - 1);
            struct rb_request q = w->link.requests[slot];
            rb_store_release(&w->link.ours->started, head + i + 1);
            if (!chaos_is_honest(w)) {
                if (chaos_below(&w->seed, 40) == 0) chaos_nap(chaos_below(&w->seed, 2000));
                if (chaos_below(&w->seed, 1500) == 0) chaos_nap(20000);
                if (chaos_below(&w->seed, 400) == 0) {
                    chaos_lie(w, &q);
                    /* Time to be found out; of a job that was cancelled nobody reads the answer. */
                    chaos_nap(5000);
                    goto dead;
                }
            }
            if (dies && i == batch / 2) {
                silent = (int)chaos_below(&w->seed, 2);
                how.signal = 11;
                goto dead;
            }
            chaos_answer(w, &q, slot);
            if (each) chaos_publish(w);
        }
        if (early) rb_ring_release(&w->link.request_ring, batch);
        chaos_publish(w);
        if (!early && chaos_below(&w->seed, 4) == 0) chaos_nap(chaos_below(&w->seed, 300));
        if (!early) rb_ring_release(&w->link.request_ring, batch);
    }
dead:
    /* EPIPE: the relay has been closed, nobody hears of the end. */
    if (!silent && write(w->obituary, &how, sizeof how) < 0 && errno != EPIPE) abort();
    close(w->obituary);
    rb_link_detach(&w->link);
    close(w->link.fds.relay_side);
    close(w->link.fds.worker_side);
    close(w->link.fds.pool);
    close(w->link.fds.wake_worker);
    close(w->link.fds.wake_relay);
    return NULL;
}

/* A new worker of role 0. Greets before or after the relay has taken it, as its seed says. */
static inline struct chaos_worker *chaos_start(struct rb_relay *relay, uint64_t id, uint64_t seed,
                                               int *honest) {
    struct chaos_worker *w = calloc(1, sizeof *w);
    int fds[5], ends[2];
    char why[256];
    *w = (struct chaos_worker){.id = id, .seed = seed | 1, .honest = honest};
    uint32_t slots = 2u << chaos_below(&w->seed, 6);
    if (rb_relay_create_link(relay, 0, id, slots, 1 << 20, 4096,
                             RB_FEATURE_CRC_ENVELOPE | RB_FEATURE_CRC_PAYLOAD, fds) < 0)
        abort();
    struct rb_link_fds own = {dup(fds[0]), dup(fds[1]), dup(fds[2]), dup(fds[3]), dup(fds[4])};
    if (rb_link_attach(&w->link, &own, why, sizeof why) < 0 || pipe2(ends, O_CLOEXEC) < 0) abort();
    w->obituary = ends[1];
    int late = (int)chaos_below(&w->seed, 2);
    if (!late) rb_link_greet(&w->link, "chaos", 1 << 16, "echo");
    if (rb_relay_add_worker(relay, id, -1, ends[0], -1, -1) < 0) abort();
    if (late) rb_link_greet(&w->link, "chaos", 1 << 16, "echo");
    if (pthread_create(&w->thread, NULL, chaos_run, w) != 0) abort();
    return w;
}

#endif
