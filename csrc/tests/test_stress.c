/* Two processes use all of a link at once: both rings, payload pool, result region, give-back ring,
 * gates.
 *
 * Every request slot, completion slot and result block has a stamp in a table that both processes
 * share: who owns it, and for which job. Each hand-over checks the stamp that it finds and writes
 * the next one; a slot or block with two owners, or one that is seen before it was handed over, is
 * found at once. All payloads and envelopes carry a CRC. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <sched.h>
#include <time.h>

#include "check.h"
#include "ringbridge/envelope.h"
#include "ringbridge/link.h"

#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
enum { JOBS = 20000, KILLS = 5, JOBS_KILLED = 20000 };
#else
enum { JOBS = 200000, KILLS = 12, JOBS_KILLED = 20000 };
#endif
enum {
    SLOTS = 64,
    BLOCK = 4096,
    BLOCKS = 64,
    POOL_BLOCKS = 128,
    PAYLOAD_MAX = 3 * BLOCK,
    BATCH = 16
};

/* --- stamps ---------------------------------------------------------------------------------- */

enum owner { NOBODY, PRODUCER, ON_ITS_WAY, CONSUMER };

struct stamps {
    uint64_t request[SLOTS], completion[SLOTS], block[BLOCKS];
    uint32_t breaches;
};
static struct stamps *stamps;

/* Hands `stamp` from one owner to the next. Relaxed: the ring's own order is what makes the right
 * value visible. */
static void hand_over(uint64_t *stamp, enum owner from, enum owner to, uint64_t job) {
    uint64_t found = rb_load_relaxed(stamp);
    /* Who takes something free does not know for which job it was last used. */
    int right = from == NOBODY ? (found & 3) == NOBODY : found == (job << 2 | from);
    if (!right) rb_add_relaxed(&stamps->breaches, 1);
    rb_store_relaxed(stamp, job << 2 | to);
}

static void hand_over_blocks(uint64_t first, uint64_t count, enum owner from, enum owner to,
                             uint64_t job) {
    for (uint64_t i = 0; i < count; i++) hand_over(&stamps->block[first + i], from, to, job);
}

/* --- payloads: every byte follows from the job and who wrote it ------------------------------ */

static uint32_t bytes_of(uint64_t job) {
    uint64_t state = job * 2654435761u + 1;
    uint64_t dice = check_random(&state);
    return (uint32_t)(dice & 3 ? dice >> 20 & 63 : 65 + (dice >> 20) % (PAYLOAD_MAX - 65));
}

static void fill(uint8_t *at, uint32_t bytes, uint64_t job, uint8_t who) {
    for (uint32_t i = 0; i < bytes; i++) at[i] = (uint8_t)(job * 31 + i * 7 + who);
}

static int filled(const uint8_t *at, uint32_t bytes, uint64_t job, uint8_t who) {
    for (uint32_t i = 0; i < bytes; i++)
        if (at[i] != (uint8_t)(job * 31 + i * 7 + who)) return 0;
    return 1;
}

/* --- the worker ------------------------------------------------------------------------------ */

static int worker_has_news(void *arg) {
    struct rb_link_worker *w = arg;
    return rb_ring_available(&w->request_ring) != 0 ||
           rb_load_seq_cst(&w->theirs->control) != RB_CONTROL_RUN;
}

static int blocks_came_back(void *arg) {
    struct rb_link_worker *w = arg;
    return rb_ring_available(&w->giveback_ring) != 0;
}

static int take_givebacks(struct rb_link_worker *w) {
    int64_t count = rb_ring_available(&w->giveback_ring);
    for (int64_t i = 0; i < count; i++) {
        struct rb_giveback extent = w->givebacks[rb_ring_slot(&w->giveback_ring, (uint64_t)i)];
        if (rb_region_give(&w->result_region, extent.first, extent.count) < 0) return -EPROTO;
    }
    if (count > 0) rb_ring_release(&w->giveback_ring, (uint64_t)count);
    return count < 0 ? -EPROTO : 0;
}

/* Room for a result: waits for blocks to come back when there is none, having told what is done
 * before. */
static int64_t result_room(struct rb_link_worker *w, uint32_t bytes) {
    for (;;) {
        int64_t first = rb_region_take(&w->result_region, bytes);
        if (first >= 0) return first;
        rb_ring_publish(&w->completion_ring);
        rb_gate_ring(&w->waker);
        if (rb_gate_wait(&w->waiter, blocks_came_back, w, INT64_C(10000000000)) != 1)
            return -ETIMEDOUT;
        if (take_givebacks(w) < 0) return -EPROTO;
    }
}

static int answer(struct rb_link_worker *w, const struct rb_request *e, const uint8_t *payload) {
    struct rb_completion c = {
        .job = e->job, .status = RB_STATUS_OK, .payload_bytes = e->payload_bytes};
    uint8_t *result = c.body;
    int64_t slot;

    if (rb_request_crc(e, payload, w->header.features) != e->crc) return 20;
    if (!filled(payload, e->payload_bytes, e->job, 'R')) return 21;
    if (e->payload_bytes <= RB_INLINE_BYTES_MAX) {
        c.flags = RB_FLAG_INLINE;
    } else {
        uint32_t count = rb_region_blocks_for(&w->result_region, e->payload_bytes);
        int64_t first = result_room(w, e->payload_bytes);
        if (first < 0) return 22;
        hand_over_blocks((uint64_t)first, count, NOBODY, PRODUCER, e->job);
        c.payload_at = (uint64_t)first * BLOCK;
        result = w->results + c.payload_at;
        hand_over_blocks((uint64_t)first, count, PRODUCER, ON_ITS_WAY, e->job);
    }
    fill(result, e->payload_bytes, e->job, 'W');
    c.crc = rb_completion_crc(&c, result, w->header.features);
    /* Claimed only now: result_room() publishes, and would publish a slot that is not written yet. */
    slot = rb_ring_claim(&w->completion_ring);
    if (slot < 0) return 23;
    hand_over(&stamps->completion[slot], NOBODY, PRODUCER, e->job);
    w->completions[slot] = c;
    hand_over(&stamps->completion[slot], PRODUCER, ON_ITS_WAY, e->job);
    return 0;
}

/* One batch: each start is marked before its handler runs, slots are released and answers published
 * at the end. */
static int work_batch(struct rb_link_worker *w, uint64_t *random) {
    int64_t count = rb_ring_available(&w->request_ring);
    uint64_t batch =
        count > 0 ? 1 + check_random(random) % (uint64_t)(count < BATCH ? count : BATCH) : 0;
    if (count < 0 || take_givebacks(w) < 0) return 10;
    for (uint64_t i = 0; i < batch; i++) {
        uint64_t slot = rb_ring_slot(&w->request_ring, i);
        struct rb_request e = w->requests[slot];
        int wrong;
        hand_over(&stamps->request[slot], ON_ITS_WAY, CONSUMER, e.job);
        rb_store_release(&w->ours->started, w->request_ring.head + i + 1);
        wrong = answer(w, &e, e.flags & RB_FLAG_INLINE ? e.body : w->pool + e.payload_at);
        if (wrong) return wrong;
        hand_over(&stamps->request[slot], CONSUMER, NOBODY, e.job);
    }
    rb_ring_release(&w->request_ring, batch);
    if (rb_ring_publish(&w->completion_ring)) rb_gate_ring(&w->waker);
    return 0;
}

static int work(const struct rb_link_fds *fds) {
    char why[256];
    struct rb_link_worker w;
    uint64_t random = (uint64_t)getpid();
    if (rb_link_attach(&w, fds, why, sizeof why) < 0) return 1;
    rb_link_greet(&w, "test", 1, "stress");
    for (;;) {
        int wrong;
        if (rb_gate_wait(&w.waiter, worker_has_news, &w, INT64_C(10000000000)) != 1) return 2;
        wrong = work_batch(&w, &random);
        if (wrong) return wrong;
        if (rb_load_seq_cst(&w.theirs->control) == RB_CONTROL_STOP) return 0;
    }
}

/* --- the relay ------------------------------------------------------------------------------- */

struct relay {
    struct rb_pool pool;
    struct rb_link link;
    uint64_t sent, answered;   /* on this link: requests published, completions taken */
    uint64_t job_at[SLOTS];    /* by position & mask: the job that was put there */
    int64_t pool_first[SLOTS]; /* and its pool blocks; -1: inline */
    uint64_t random;
};

static int relay_has_news(void *arg) {
    struct relay *r = arg;
    return rb_ring_available(&r->link.completion_ring) != 0;
}

static void relay_open(struct relay *r, uint64_t features) {
    struct rb_link_config c = {.slots = SLOTS,
                               .result_block_bytes = BLOCK,
                               .result_bytes = BLOCKS * BLOCK,
                               .features = features};
    memset(r, 0, sizeof *r);
    memset(stamps, 0, sizeof *stamps);
    r->random = 5;
    CHECK_EQUAL(rb_pool_create(&r->pool, POOL_BLOCKS * BLOCK, BLOCK), 0);
    CHECK_EQUAL(rb_link_create(&r->link, &c, &r->pool), 0);
    r->link.waiter.spin = r->link.waiter.spin_max = 100;
}

static void relay_close(struct relay *r) {
    rb_link_close(&r->link);
    rb_pool_close(&r->pool);
}

/* Puts one job into the ring. 0, or -EAGAIN when slots or pool are taken. */
static int submit(struct relay *r, uint64_t job) {
    struct rb_request e = {.job = job, .payload_bytes = bytes_of(job)};
    int64_t first = -1, slot;
    uint8_t *payload = e.body;
    if (r->sent - r->answered == SLOTS) return -EAGAIN; /* the completion ring never overflows */
    if (e.payload_bytes > RB_INLINE_BYTES_MAX) {
        first = rb_region_take(&r->pool.region, e.payload_bytes);
        if (first < 0) return -EAGAIN;
        e.payload_at = (uint64_t)first * BLOCK;
        payload = r->pool.base + e.payload_at;
    } else {
        e.flags = RB_FLAG_INLINE;
    }
    slot = rb_ring_claim(&r->link.request_ring);
    if (slot < 0) {
        if (first >= 0)
            rb_region_give(&r->pool.region, (uint32_t)first,
                           rb_region_blocks_for(&r->pool.region, e.payload_bytes));
        return (int)slot;
    }
    fill(payload, e.payload_bytes, job, 'R');
    e.crc = rb_request_crc(&e, payload, r->link.config.features);
    hand_over(&stamps->request[slot], NOBODY, PRODUCER, job);
    r->link.requests[slot] = e;
    r->job_at[r->sent % SLOTS] = job;
    r->pool_first[r->sent % SLOTS] = first;
    r->sent++;
    hand_over(&stamps->request[slot], PRODUCER, ON_ITS_WAY, job);
    return 0;
}

static void take_result(struct relay *r, const struct rb_completion *c, uint64_t job) {
    const struct rb_region *sizes =
        &r->pool.region; /* the same block size as the result region's */
    uint32_t count = rb_region_blocks_for(sizes, c->payload_bytes),
             first = (uint32_t)(c->payload_at / BLOCK);
    const uint8_t *result = c->flags & RB_FLAG_INLINE ? c->body : r->link.results + c->payload_at;
    CHECK(c->flags & RB_FLAG_INLINE || c->payload_at + c->payload_bytes <= BLOCKS * BLOCK);
    CHECK_EQUAL(rb_completion_crc(c, result, r->link.config.features), c->crc);
    CHECK(filled(result, c->payload_bytes, job, 'W'));
    if (c->flags & RB_FLAG_INLINE) return;
    hand_over_blocks(first, count, ON_ITS_WAY, CONSUMER, job);
    int64_t slot = rb_ring_claim(&r->link.giveback_ring);
    CHECK(slot >= 0); /* as many slots as blocks: giving back never fails */
    if (slot < 0) return;
    hand_over_blocks(first, count, CONSUMER, NOBODY, job);
    r->link.givebacks[slot] = (struct rb_giveback){.first = first, .count = count};
}

/* Takes up to `most` completions: in the order of their requests, each whole. */
static int64_t take_answers(struct relay *r, uint64_t most) {
    int64_t count = rb_ring_available(&r->link.completion_ring);
    CHECK(count >= 0);
    if (count <= 0) return 0;
    if ((uint64_t)count > most) count = (int64_t)most;
    for (int64_t i = 0; i < count; i++) {
        uint64_t slot = rb_ring_slot(&r->link.completion_ring, (uint64_t)i),
                 at = r->answered % SLOTS, job = r->job_at[at];
        struct rb_completion c = r->link.completions[slot];
        hand_over(&stamps->completion[slot], ON_ITS_WAY, CONSUMER, job);
        CHECK_EQUAL(c.job, job);
        CHECK_EQUAL(c.payload_bytes, bytes_of(job));
        take_result(r, &c, job);
        if (r->pool_first[at] >= 0)
            CHECK_EQUAL(rb_region_give(&r->pool.region, (uint32_t)r->pool_first[at],
                                       rb_region_blocks_for(&r->pool.region, c.payload_bytes)),
                        0);
        hand_over(&stamps->completion[slot], CONSUMER, NOBODY, job);
        r->answered++;
    }
    rb_ring_release(&r->link.completion_ring, (uint64_t)count);
    if (rb_ring_publish(&r->link.giveback_ring)) rb_gate_ring(&r->link.waker);
    return count;
}

/* --- the tests ------------------------------------------------------------------------------- */

static void run_to_the_end(uint64_t features) {
    struct relay r;
    uint64_t next = 1;
    pid_t worker;
    relay_open(&r, features);
    worker = check_fork();
    if (worker == 0) _exit(work(&r.link.fds));
    while (r.answered < JOBS && check_breaches == 0) {
        for (uint64_t batch = check_random(&r.random) % BATCH;
             batch && next <= JOBS && submit(&r, next) == 0; batch--)
            next++;
        if (rb_ring_publish(&r.link.request_ring)) rb_gate_ring(&r.link.waker);
        if (take_answers(&r, 1 + check_random(&r.random) % BATCH) == 0 && r.sent > r.answered)
            if (rb_gate_wait(&r.link.waiter, relay_has_news, &r, INT64_C(5000000000)) != 1) {
                CHECK(!"an answer came within 5 s");
                kill(worker, SIGKILL);
            }
    }
    rb_store_seq_cst(&r.link.ours->control, RB_CONTROL_STOP);
    rb_gate_ring(&r.link.waker);
    CHECK_EQUAL(check_reap(worker), 0);
    CHECK_EQUAL(stamps->breaches, 0);
    CHECK_EQUAL(r.pool.region.taken, 0);
    for (int i = 0; i < BLOCKS; i++) CHECK_EQUAL(stamps->block[i] & 3, NOBODY);
    relay_close(&r);
}

static void all_of_a_link_at_once_with_every_byte_checked(void) {
    run_to_the_end(RB_FEATURE_CRC_ENVELOPE | RB_FEATURE_CRC_PAYLOAD);
}
static void all_of_a_link_at_once_without_crc(void) { run_to_the_end(0); }

/* What the relay may conclude from the memory of a worker that was killed at any instant: every
 * published answer is whole; the jobs past `started` were never entered. They go to the next
 * worker, and no job is answered twice. */
static void a_worker_killed_at_any_instant_leaves_consistent_positions(void) {
    uint8_t *answered = calloc(JOBS_KILLED + 1, 1);
    uint64_t next = 1, lost = 0, todo[SLOTS], todo_count = 0, random = 17;
    for (int round = 0; round < KILLS && check_breaches == 0; round++) {
        struct relay r;
        struct timespec now, end;
        pid_t worker;
        relay_open(&r, RB_FEATURE_CRC_ENVELOPE | RB_FEATURE_CRC_PAYLOAD);
        worker = check_fork();
        if (worker == 0) _exit(work(&r.link.fds));
        for (uint64_t i = 0; i < todo_count; i++) CHECK_EQUAL(submit(&r, todo[i]), 0);
        todo_count = 0;
        clock_gettime(CLOCK_MONOTONIC, &end);
        end.tv_nsec += 1000000 + (long)(check_random(&random) % 20000000);
        int killed = 0;
        while (!killed) {
            for (uint64_t batch = BATCH; batch && next <= JOBS_KILLED && submit(&r, next) == 0;
                 batch--)
                next++;
            if (rb_ring_publish(&r.link.request_ring)) rb_gate_ring(&r.link.waker);
            uint64_t at = r.answered;
            take_answers(&r, BATCH);
            for (; at < r.answered; at++) CHECK_EQUAL(answered[r.job_at[at % SLOTS]]++, 0);
            clock_gettime(CLOCK_MONOTONIC, &now);
            killed = now.tv_sec * INT64_C(1000000000) + now.tv_nsec >
                     end.tv_sec * INT64_C(1000000000) + end.tv_nsec;
        }
        kill(worker, SIGKILL);
        CHECK_EQUAL(check_reap(worker), -SIGKILL);
        uint64_t at = r.answered;
        while (take_answers(&r, SLOTS) > 0) continue;
        for (; at < r.answered; at++) CHECK_EQUAL(answered[r.job_at[at % SLOTS]]++, 0);
        uint64_t started = rb_load_acquire(&r.link.theirs->started);
        CHECK(started >= r.answered && started <= r.sent);
        CHECK(started - r.answered <= BATCH); /* one batch at most was under way */
        CHECK(rb_ring_free(&r.link.request_ring) >= 0 && r.link.request_ring.head <= started);
        lost += started - r.answered;
        for (uint64_t k = started; k < r.sent; k++) todo[todo_count++] = r.job_at[k % SLOTS];
        CHECK_EQUAL(stamps->breaches, 0);
        relay_close(&r);
    }
    uint64_t count = 0;
    for (uint64_t job = 1; job < next; job++) count += answered[job];
    CHECK_EQUAL(count + lost + todo_count,
                next - 1); /* each job was answered, lost with its worker, or is still to do */
    CHECK(count > 0);
    free(answered);
}

int main(void) {
    stamps = check_shared(sizeof *stamps);
    RUN(all_of_a_link_at_once_with_every_byte_checked);
    RUN(all_of_a_link_at_once_without_crc);
    RUN(a_worker_killed_at_any_instant_leaves_consistent_positions);
    return check_end();
}
