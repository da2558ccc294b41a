/* A worker that goes on writing while it is read, floods its pipes, and names its blocks again and again: with the relay's thread. */
#define _GNU_SOURCE
#include <pthread.h>

#include "accounts.h"

/* --- Bytes that change ------------------------------------------------------------------------------ */

enum { TERM = 200, LONG = 50000 };
struct flipping {
    struct lab_worker *w;
    int on;
    uint64_t flips;
};
/* Its writes are no data race: they meet the relay in another process, as it were. */
__attribute__((no_sanitize_thread)) static void *flip(void *argument) {
    struct flipping *f = argument;
    uint64_t seed = 88172645463325252u;
    while (rb_load_acquire(&f->on)) {
        seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17;
        volatile uint8_t *results = f->w->link.results;
        volatile uint8_t *envelopes = (volatile uint8_t *)f->w->link.completions;
        results[seed % LONG] ^= (uint8_t)(1u << (seed >> 32 & 7));
        if (seed >> 40 & 1) envelopes[(seed >> 41) % (16 * sizeof(struct rb_completion))] ^= 4;
        f->flips++;
    }
    return NULL;
}

/* A long list of tuples; `size` bytes of it. */
static uint32_t write_term(uint8_t *at, uint32_t size) {
    uint32_t pairs = (size - 6) / 6;
    *at++ = RB_TAG_LIST;
    rb_put_be32(at, pairs);
    at += 4;
    for (uint32_t i = 0; i < pairs; i++, at += 6) memcpy(at, "\x68\x02\x61\x01\x61\x02", 6);
    *at = RB_TAG_NIL;
    return 6 + 6 * pairs;
}

static uint8_t answer[2 << 20];
/* Whatever has become of the bytes, a peer can read it. 1: an answer, 0: nothing more. */
static int answered(struct lab *lab, int *broke) {
    int n = lab_read(lab->peer, answer, sizeof answer, LAB_WAIT_MS);
    CHECK(n > 0);
    if (n <= 0) return 0;
    struct rb_cursor c = {answer, answer + n};
    CHECK(rb_term_skip(&c, NULL) == 0);
    CHECK(rb_term_skip(&c, NULL) == 0 && c.at == c.end);
    *broke += memmem(answer, (size_t)n, "worker_broke", 12) != NULL;
    return 1;
}

static void flip_while_it_answers(uint32_t size, int flags) {
    struct lab lab;
    int broke = 0, jobs = 0;
    lab_open(&lab);
    for (int life = 0; life < 25 && !check_breaches; life++) {
        struct flipping f = {.w = lab_worker(&lab), .on = 1};
        pthread_t thread;
        if (pthread_create(&thread, NULL, flip, &f) != 0) abort();
        for (int before = broke, i = 0; broke == before && i < 20; i++) {
            lab_submit(lab.peer, (uint32_t)(++jobs % 60) + 1, "x", 1);
            const struct rb_request *r = lab_request(f.w, 0);
            CHECK(r != NULL);
            if (!r) break;
            uint64_t job = r->job;
            lab_start(f.w, 1);
            rb_ring_release(&f.w->link.request_ring, 1);
            struct rb_completion e = lab_completion(f.w, job, "", 0, flags);
            e.flags = (uint16_t)flags;
            e.payload_bytes = write_term(f.w->link.results, size);
            e.crc = rb_completion_crc(&e, f.w->link.results, f.w->link.header.features);
            lab_publish(f.w, &e);
            int n = answered(&lab, &broke);
            if (!n) break;
            lab_monitor(lab.peer, 0, (uint32_t)(jobs % 60) + 1, (uint32_t)(jobs % 60) + 1);
        }
        rb_store_release(&f.on, 0);
        pthread_join(thread, NULL);
        lab_worker_end(&lab, f.w, NULL);
        CHECK(lab_event(&lab, RB_EVENT_WORKER_ENDED));
    }
    struct rb_relay_stats s = stats_of(&lab);
    CHECK_EQUAL(s.accepted, jobs);
    CHECK_EQUAL(s.answered[RB_REASON_WORKER_BROKE], broke);
    CHECK_EQUAL(s.answered[RB_REASON_OK] + (uint64_t)broke, jobs);
    lab_close(&lab);
}
static void bytes_that_change_while_a_small_term_is_read_reach_nobody(void) {
    flip_while_it_answers(TERM, RB_FLAG_TERM);
}
static void bytes_that_change_while_a_term_is_walked_in_portions_reach_nobody(void) {
    flip_while_it_answers(LONG, RB_FLAG_TERM);
}
static void bytes_that_change_in_a_binary_are_the_workers_own_affair(void) {
    flip_while_it_answers(LONG, 0);
}

/* --- Output --------------------------------------------------------------------------------------- */

struct flooding {
    int fd, on;
    uint64_t bytes;
};
static void *flood(void *argument) {
    struct flooding *f = argument;
    static char line[65536];
    while (rb_load_acquire(&f->on)) {
        ssize_t n = write(f->fd, line, sizeof line);
        if (n > 0) f->bytes += (uint64_t)n;
    }
    return NULL;
}
static void a_flood_of_output_keeps_no_answer_waiting(void) {
    struct lab lab;
    lab_open(&lab);
    int fds[5], obituary[2], errors[2];
    char why[256];
    struct lab_worker *w = calloc(1, sizeof *w);
    w->id = ++lab.workers;
    if (!w || rb_relay_create_link(lab.relay, 0, w->id, 16, 1 << 20, 4096, 0, fds) < 0) abort();
    w->fds = (struct rb_link_fds){dup(fds[0]), dup(fds[1]), dup(fds[2]), dup(fds[3]), dup(fds[4])};
    if (rb_link_attach(&w->link, &w->fds, why, sizeof why) < 0) abort();
    rb_link_greet(&w->link, "lab", 1 << 16, "echo");
    if (pipe2(obituary, O_CLOEXEC) < 0 || pipe2(errors, O_CLOEXEC) < 0) abort();
    w->obituary = obituary[1];
    if (rb_relay_add_worker(lab.relay, w->id, -1, obituary[0], -1, errors[0]) < 0) abort();
    CHECK(lab_event(&lab, RB_EVENT_WORKER_READY));
    fcntl(errors[1], F_SETFL, O_NONBLOCK);
    struct flooding f = {.fd = errors[1], .on = 1};
    pthread_t thread;
    if (pthread_create(&thread, NULL, flood, &f) != 0) abort();
    for (uint32_t i = 0; i < 500 && !check_breaches; i++) { /* nobody takes events */
        lab_submit(lab.peer, i % 60 + 1, "x", 1);
        lab_complete(w, "amid it", 7);
        CHECK(ANSWER_HAS(lab.peer, "amid it"));
        lab_monitor(lab.peer, 0, i % 60 + 1, i % 60 + 1);
    }
    rb_store_release(&f.on, 0);
    pthread_join(thread, NULL);
    CHECK(f.bytes > 1 << 20);
    CHECK_EQUAL(stats_of(&lab).answered[RB_REASON_OK], 500);
    close(errors[1]);
    lab_worker_end(&lab, w, NULL);
    lab_close(&lab);
}

/* --- Blocks --------------------------------------------------------------------------------------- */

static void a_worker_that_names_one_block_for_ever_fills_its_own_ring(void) {
    struct lab lab;
    lab_open(&lab);
    struct lab_worker *w = lab_worker(&lab);
    uint32_t i = 0;
    for (; i < 300 && !check_breaches; i++) {
        lab_submit(lab.peer, i % 60 + 1, "x", 1);
        const struct rb_request *r = lab_request(w, 0);
        CHECK(r != NULL);
        if (!r) break;
        lab_start(w, 1);
        struct rb_completion e = lab_completion(w, r->job, "", 0, 0);
        rb_ring_release(&w->link.request_ring, 1);
        e.flags = 0;
        e.payload_bytes = 100;
        e.crc = rb_completion_crc(&e, w->link.results, w->link.header.features);
        lab_publish(w, &e);
        CHECK(lab_read(lab.peer, answer, sizeof answer, LAB_WAIT_MS) > 0);
        lab_monitor(lab.peer, 0, i % 60 + 1, i % 60 + 1);
        if (stats_of(&lab).answered[RB_REASON_OK] <= i) break;
        if (i >= 256) break;
    }
    CHECK_EQUAL(i, 256); /* as many slots as blocks */
    CHECK(lab_event(&lab, RB_EVENT_WORKER_BROKE));
    CHECK(lab_event_says(&lab, "giveback_ring_full"));
    lab_worker_end(&lab, w, NULL);
    w = lab_worker(&lab);
    lab_submit(lab.peer, 61, "x", 1);
    lab_complete(w, "elsewhere", 9);
    CHECK(ANSWER_HAS(lab.peer, "elsewhere"));
    lab_worker_end(&lab, w, NULL);
    lab_close(&lab);
}

int main(void) {
    RUN(bytes_that_change_while_a_small_term_is_read_reach_nobody);
    RUN(bytes_that_change_while_a_term_is_walked_in_portions_reach_nobody);
    RUN(bytes_that_change_in_a_binary_are_the_workers_own_affair);
    RUN(a_flood_of_output_keeps_no_answer_waiting);
    RUN(a_worker_that_names_one_block_for_ever_fills_its_own_ring);
    return check_end();
}
