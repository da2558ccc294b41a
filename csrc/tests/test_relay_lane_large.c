/* Large payloads over a lane: they are summed as they are copied, there and back, and the relay's worker is put where they were written. */
#define _GNU_SOURCE
#include <sched.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lane_lab.h"
#include "ringbridge/crc32c.h"

#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif

static struct lab lab;
static struct lab_worker *worker;
static struct lane *lane;
static uint8_t bytes[LAB_PAYLOAD_MAX];

static void begin_as(const struct rb_relay_config *config, int pidfd) {
    struct rb_role_config role = lab_role_config();
    lab_open_relay(&lab, config);
    if (rb_relay_add_role(lab.relay, 0, &role) < 0) abort();
    lab.peer = lab_connect(&lab);
    worker = lab_worker_as(&lab, pidfd);
    lane = lane_open(&lab, 7);
}
static void begin(void) {
    struct rb_relay_config config = lab_config();
    begin_as(&config, -1);
    for (size_t i = 0; i < sizeof bytes; i++) bytes[i] = (uint8_t)(i * 13 >> 3);
}
static void finish(void) {
    lane_detach(lane);
    CHECK(lab_event(&lab, RB_EVENT_LANE_ENDED));
    lab_worker_end(&lab, worker, NULL);
    lab_close(&lab);
}

/* The oldest request is done with, and answered by so many bytes of the worker's region. */
static void answer(const uint8_t *from, size_t size, uint32_t crc_flip) {
    const struct rb_request *r = lab_request(worker, 0);
    if (!r) abort();
    lab_start(worker, 1);
    struct rb_completion e = lab_completion(worker, r->job, "", 0, 0);
    e.flags = 0;
    e.payload_at = 4096;
    e.payload_bytes = (uint32_t)size;
    memcpy(worker->link.results + e.payload_at, from, size);
    e.crc = rb_completion_crc(&e, from, worker->link.header.features) ^ crc_flip;
    rb_ring_release(&worker->link.request_ring, 1);
    lab_publish(worker, &e);
}

/* As the kit sums them: of the head and the bytes that lie in the pool. */
static void a_request_has_the_sum_of_its_bytes(void) {
    static const size_t sizes[] = {16379, 16380, 16381, 65536, 300001, LAB_PAYLOAD_MAX};
    begin();
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        lane_raw(lane, "echo", bytes, sizes[i], 60000);
        const struct rb_request *r = lab_request(worker, 0);
        if (!r) abort();
        CHECK_EQUAL(r->payload_bytes, sizes[i]);
        CHECK_EQUAL(memcmp(lab_payload(worker, r), bytes, sizes[i]), 0);
        CHECK_EQUAL(rb_request_crc(r, lab_payload(worker, r), worker->link.header.features),
                    r->crc);
        lab_complete(worker, "x", 1);
        CHECK(lane_answer(lane) && LANE_RAW_IS(lane, "x"));
    }
    finish();
}

static void an_answer_that_was_summed_on_its_way_comes_whole(void) {
    static const size_t sizes[] = {4095, 4096, 4097, 65536, 300001, LAB_PAYLOAD_MAX - 4096};
    begin();
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        lane_raw(lane, "echo", "x", 1, 60000);
        answer(bytes, sizes[i], 0);
        CHECK(lane_answer(lane) && lane_says(lane, RB_LANE_ANSWER_RAW, bytes, sizes[i]));
    }
    CHECK_EQUAL(rb_lane_held_bytes(lane->beam), 0);
    struct rb_lane_stats s = lane_stats(&lab, lane, 0);
    CHECK(s.answered == sizeof sizes / sizeof *sizes && s.lent_blocks <= LAB_PAYLOAD_MAX / 4096);
    finish();
}

/* What its worker has changed since it summed it nobody sees, and the room where it lay is free again. */
static void an_answer_with_another_sum_is_nobody_s(void) {
    begin();
    lane_raw(lane, "echo", "x", 1, 60000);
    answer(bytes, 65536, 1);
    CHECK(lane_answer(lane) && LANE_TERM_HAS(lane, "worker_broke"));
    CHECK(LANE_TERM_HAS(lane, "completion_crc"));
    CHECK_EQUAL(lane_stats(&lab, lane, 0).lent_blocks, 0);
    lab_worker_end(&lab, worker, NULL);
    worker = lab_worker(&lab);
    lane_raw(lane, "echo", "x", 1, 60000);
    answer(bytes, 65536, 0);
    CHECK(lane_answer(lane) && lane_says(lane, RB_LANE_ANSWER_RAW, bytes, 65536));
    finish();
}

/* It waits in the relay's own memory, as any other one. */
static void without_room_an_answer_is_summed_where_it_lies(void) {
    uint64_t held[4];
    begin();
    lane->keep = 1;
    for (int i = 0; i < 4; i++) {
        lane_raw(lane, "echo", "x", 1, 60000);
        answer(bytes, LAB_PAYLOAD_MAX - 4096, 0);
        CHECK(lane_answer(lane));
        held[i] = lane->last.at;
    }
    uint64_t waits = lane_raw(lane, "echo", "x", 1, 60000);
    answer(bytes, 300001, 0);
    lane_stats(&lab, lane, 0);
    CHECK_EQUAL(rb_lane_give_back(lane->beam, held[0]), 0);
    CHECK(lane_answer(lane) && lane->last.number == waits);
    CHECK(lane_says(lane, RB_LANE_ANSWER_RAW, bytes, 300001));
    finish();
}

/* --- Whom it wakes ------------------------------------------------------------------------------------------------------------- */

/* Until the relay has ended the round in which it has published what we have seen. */
static void until_it_parks(void) {
    struct rb_relay_stats before, now;
    rb_relay_read_stats(lab.relay, &before);
    for (int ms = 0; ms < LAB_WAIT_MS; ms++) {
        rb_relay_read_stats(lab.relay, &now);
        if (now.parks != before.parks) return;
        usleep(1000);
    }
    CHECK(!"it parks");
}

/* The worker sleeps, and the relay has read its answer: whether it was rung. */
static int answer_rings(void) {
    if (!lab_request(worker, 0)) abort();
    until_it_parks();
    rb_gate_announce(&worker->link.waiter, RB_PARK_EVENTFD);
    answer(bytes, 65536, 0);
    CHECK(lane_answer(lane));
    struct pollfd p = {.fd = worker->fds.wake_worker, .events = POLLIN};
    int rung = poll(&p, 1, 0) == 1;
    rb_gate_retract(&worker->link.waiter);
    return rung;
}

/* What it is given back it may wait for in the middle of a job; else it finds it when the next one comes. */
static void room_given_back_rings_a_worker_that_has_a_job(void) {
    begin();
    lane_raw(lane, "echo", "x", 1, 60000);
    CHECK(!answer_rings());
    for (int i = 0; i < 2; i++) lane_raw(lane, "echo", "x", 1, 60000);
    if (!lab_request(worker, 1)) abort();
    CHECK(answer_rings());
    lab_complete(worker, "x", 1);
    CHECK(lane_answer(lane));
    finish();
}

/* --- Where they run ---------------------------------------------------------------------------------------------------------- */

/* One caller, for many of them are the kernel's business. */
static void call_of(size_t size) {
    struct iovec part = {bytes, size};
    struct rb_lane_request q = {.form = RB_LANE_RAW,
                                .caller = 5,
                                .parts = &part,
                                .count = 1,
                                .role = (const uint8_t *)"echo",
                                .role_bytes = 4,
                                .timeout_ms = 60000};
    uint64_t number;
    CHECK_EQUAL(lane_send(lane, 0, &q, &number), 0);
    lab_complete(worker, "x", 1);
    CHECK(lane_answer(lane));
}
/* Calls until a process has one CPU alone: which; -1: it never came to that. */
static int cpu_by(size_t size, pid_t pid, int but) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    for (time_t until = t.tv_sec + LAB_WAIT_MS / 1000; t.tv_sec < until;
         clock_gettime(CLOCK_MONOTONIC, &t)) {
        cpu_set_t has;
        call_of(size);
        if (sched_getaffinity(pid, sizeof has, &has) < 0 || CPU_COUNT(&has) != 1) continue;
        for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
            if (CPU_ISSET(cpu, &has) && cpu != but) return cpu;
    }
    return -1;
}

/* The bytes of lanes say how large jobs are, as those of connections do. The worker is a process that sleeps. */
static void on_two_cpus_a_worker_of_large_jobs_is_beside_the_relay(void) {
    cpu_set_t may, two;
    int cpu[2], count = 0;
    if (sched_getaffinity(0, sizeof may, &may) < 0) abort();
    CPU_ZERO(&two);
    for (int i = 0; i < CPU_SETSIZE && count < 2; i++)
        if (CPU_ISSET(i, &may)) CPU_SET(cpu[count++] = i, &two);
    if (count < 2 || sched_setaffinity(0, sizeof two, &two) < 0) return; /* nothing to arrange */
    pid_t child = fork();
    if (child == 0) {
        for (;;) pause();
    }
    struct rb_relay_config config = lab_config();
    config.arrange_cpus = 1;
    begin_as(&config, (int)syscall(SYS_pidfd_open, child, 0));
    CHECK_EQUAL(cpu_by(64, child, -1), cpu[1]);
    CHECK_EQUAL(cpu_by(32 << 10, child, cpu[1]), cpu[0]);
    finish();
    kill(child, SIGKILL);
    CHECK_EQUAL(waitpid(child, NULL, 0), child);
    sched_setaffinity(0, sizeof may, &may);
}

int main(void) {
    unsetenv("RINGBRIDGE_REPLAY"); /* no lane is opened beside a recording */
    RUN(a_request_has_the_sum_of_its_bytes);
    RUN(an_answer_that_was_summed_on_its_way_comes_whole);
    RUN(an_answer_with_another_sum_is_nobody_s);
    RUN(without_room_an_answer_is_summed_where_it_lies);
    RUN(room_given_back_rings_a_worker_that_has_a_job);
    RUN(on_two_cpus_a_worker_of_large_jobs_is_beside_the_relay);
    return check_end();
}
