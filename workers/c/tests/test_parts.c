/* test_parts.c: what a job says before its answer, each rule held against a real worker process. */
#include <errno.h>
#include <signal.h>

#include "expect.h"

static uint64_t submit(struct peer *p, uint16_t opcode, uint16_t flags, const char *text) {
    struct peer_request request = {
        .payload = text, .bytes = (uint32_t)strlen(text), .opcode = opcode, .flags = flags};
    uint64_t job = peer_put(p, &request);
    peer_publish(p);
    return job;
}

static void expect_part(struct peer *p, uint64_t job, unsigned number, uint32_t bytes,
                        uint16_t status, uint16_t flags) {
    struct peer_answer a;
    CHECK(peer_answer(p, &a, 5000));
    CHECK_EQUAL(a.completion.job, job);
    CHECK_EQUAL(a.completion.status, status);
    CHECK_EQUAL(a.completion.flags & RB_FLAG_TERM, flags);
    CHECK_EQUAL(a.completion.payload_bytes, bytes);
    for (uint32_t i = 0; i < bytes; i++) {
        if (a.payload[i] == 'a' + number % 26) continue;
        CHECK_EQUAL(a.payload[i], 'a' + number % 26);
        break;
    }
    peer_give_back(p, &a);
}

static void expect_done(struct peer *p, uint64_t job) {
    struct peer_answer a;
    CHECK(peer_answer(p, &a, 5000));
    CHECK_EQUAL(a.completion.job, job);
    CHECK_EQUAL(a.completion.status, RB_STATUS_OK);
    CHECK_EQUAL(a.completion.payload_bytes, 0);
}

static void expect_silence(struct peer *p) {
    struct peer_answer a;
    CHECK(!peer_answer(p, &a, 60));
}

static void parts_come_as_far_as_they_are_asked_for(void) {
    static const uint32_t asked[] = {1, 3, 4, 10, 11};
    struct peer p;
    unsigned number = 0;
    peer_start(&p, "rb-parts", &defaults, 1);
    uint64_t job = submit(&p, 0, RB_FLAG_PARTS, "11 5");
    expect_silence(&p);
    for (unsigned i = 0; i < sizeof asked / sizeof *asked; i++) {
        peer_demand(&p, job, asked[i]);
        for (; number < asked[i]; number++) expect_part(&p, job, number, 5, RB_STATUS_PART, 0);
        if (number < 11) expect_silence(&p);
    }
    expect_done(&p, job);
    peer_stop(&p);
}

static void parts_of_every_size_and_terms_come_whole(void) {
    static const char *const texts[] = {"3 0",    "3 1",     "3 64",      "3 65",
                                        "3 4096", "3 40960", "3 1048575", "3 1048576"};
    struct peer p;
    peer_start(&p, "rb-parts", &defaults, 1);
    for (unsigned i = 0; i < sizeof texts / sizeof *texts; i++) {
        for (uint16_t opcode = 0; opcode < 2; opcode++) {
            uint64_t job = submit(&p, opcode, RB_FLAG_PARTS, texts[i]);
            peer_demand(&p, job, 100);
            for (unsigned number = 0; number < 3; number++)
                expect_part(&p, job, number, (uint32_t)atoi(texts[i] + 2), RB_STATUS_PART,
                            opcode ? RB_FLAG_TERM : 0);
            expect_done(&p, job);
        }
    }
    peer_stop(&p);
}

static void demand_of_the_slots_last_job_is_none_for_the_next(void) {
    struct peer_options options = defaults;
    struct peer p;
    options.link.slots = 2;
    peer_start(&p, "rb-parts", &options, 1);
    for (int lap = 0; lap < 6; lap++) {
        uint64_t job = submit(&p, 0, RB_FLAG_PARTS, "1 5");
        if (lap >= 2) expect_silence(&p); /* 1000 of the job two before are in its word */
        peer_demand(&p, job, 1000);
        expect_part(&p, job, 0, 5, RB_STATUS_PART, 0);
        expect_done(&p, job);
    }
    peer_stop(&p);
}

static void a_cancel_ends_the_wait_for_demand(void) {
    struct peer p;
    peer_start(&p, "rb-parts", &defaults, 1);
    uint64_t job = submit(&p, 0, RB_FLAG_PARTS, "10 5");
    peer_demand(&p, job, 2);
    expect_part(&p, job, 0, 5, RB_STATUS_PART, 0);
    expect_part(&p, job, 1, 5, RB_STATUS_PART, 0);
    expect_silence(&p);
    peer_cancel(&p, job);
    rb_gate_ring(&p.link.waker); /* as the relay does */
    expect_status(&p, RB_STATUS_CANCELLED, 5000);
    peer_stop(&p);
}

static void so_does_the_deadline(void) {
    struct peer p;
    peer_start(&p, "rb-parts", &defaults, 1);
    struct peer_request request = {.payload = "10 5",
                                   .bytes = 4,
                                   .flags = RB_FLAG_PARTS,
                                   .deadline_ns = peer_now_ns() + 50000000};
    peer_put(&p, &request);
    peer_publish(&p);
    expect_status(&p, RB_STATUS_CANCELLED, 5000);
    peer_stop(&p);
}

static void so_does_a_stop(void) {
    struct peer p;
    peer_start(&p, "rb-parts", &defaults, 1);
    submit(&p, 0, RB_FLAG_PARTS, "10 5");
    peer_await_started(&p, 1);
    expect_silence(&p);
    peer_stop(&p);
}

static void a_part_is_refused_where_it_cannot_go(void) {
    struct peer_options options = defaults;
    struct peer p;
    peer_start(&p, "rb-parts", &options, 1);
    uint64_t job = submit(&p, 0, RB_FLAG_PARTS, "1 1048577");
    peer_demand(&p, job, 1);
    expect_failure(&p, EMSGSIZE, "part 0 was refused");
    submit(&p, 0, 0, "1 5");
    expect_failure(&p, ENOTSUP, "part 0 was refused");
    peer_stop(&p);

    options.link.result_bytes = 16384;
    peer_start(&p, "rb-parts", &options, 1);
    job = submit(&p, 0, RB_FLAG_PARTS, "1 20000");
    peer_demand(&p, job, 1);
    expect_failure(&p, EMSGSIZE, "part 0 was refused");
    peer_stop(&p);
}

static void what_was_reserved_for_the_answer_stays(void) {
    struct peer p;
    struct peer_answer a;
    peer_start(&p, "rb-parts", &defaults, 1);
    uint64_t job = submit(&p, 3, RB_FLAG_PARTS, "5 5000");
    peer_demand(&p, job, 5);
    for (unsigned number = 0; number < 5; number++)
        expect_part(&p, job, number, 5000, RB_STATUS_PART, 0);
    CHECK(peer_answer(&p, &a, 5000));
    CHECK_EQUAL(a.completion.status, RB_STATUS_OK);
    CHECK_EQUAL(a.completion.payload_bytes, 100000);
    for (int i = 0; i < 100000; i++) {
        if (a.payload[i] != 'r') CHECK_EQUAL(a.payload[i], 'r');
    }
    peer_stop(&p);
}

/* 4 slots, 64 KiB of results: both run full many times before the peer looks. */
static void more_parts_than_ring_and_region_hold_come_whole_and_in_order(void) {
    struct peer_options options = defaults;
    struct peer p;
    options.link.slots = 4;
    options.link.result_bytes = 65536;
    peer_start(&p, "rb-parts", &options, 1);
    for (int large = 0; large < 2; large++) {
        uint64_t job = submit(&p, 0, RB_FLAG_PARTS, large ? "500 20000" : "500 10");
        peer_demand(&p, job, 500);
        for (unsigned number = 0; number < 500; number++)
            expect_part(&p, job, number, large ? 20000 : 10, RB_STATUS_PART, 0);
        expect_done(&p, job);
    }
    peer_stop(&p);
}

static void demand_and_its_use_run_past_two_to_the_32(void) {
    CHECK_EQUAL(rb_demand_left(rb_demand_word(7, 3), 7, UINT32_MAX - 1), 5);
    CHECK_EQUAL(rb_demand_left(rb_demand_word(7, 3), 7, 4), 0);
    CHECK_EQUAL(rb_demand_left(rb_demand_word(7, 3), 7, 3), 0);
    CHECK_EQUAL(rb_demand_left(rb_demand_word(7, 3), 9, 0), 0);
    CHECK_EQUAL(
        rb_demand_left(rb_demand_word((UINT64_C(5) << 32) + 7, 3), (UINT64_C(5) << 32) + 7, 0), 3);
}

static void progress_is_told_where_it_is_wanted_and_never_waits(void) {
    struct peer_options options = defaults;
    struct peer p;
    struct peer_answer a;
    int reports = 0;
    options.link.slots = 4;
    options.link.result_bytes = 16384;
    peer_start(&p, "rb-parts", &options, 1);
    uint64_t job = submit(&p, 2, RB_FLAG_PROGRESS, "3 50");
    for (unsigned number = 0; number < 3; number++)
        expect_part(&p, job, number, 50, RB_STATUS_PROGRESS, 0);
    expect_done(&p, job);

    job = submit(&p, 2, 0, "3 50"); /* nobody wants it */
    expect_done(&p, job);
    submit(&p, 2, RB_FLAG_PROGRESS, "1 4097");
    expect_failure(&p, EMSGSIZE, "part 0 was refused");

    /* Not one is taken while they are made: what finds no room is dropped, the job ends all the same. */
    submit(&p, 2, RB_FLAG_PROGRESS, "1000 4096");
    peer_await_started(&p, 4);
    for (int ended = 0; !ended && reports < 1000;) {
        CHECK(peer_answer(&p, &a, 5000));
        ended = a.completion.status == RB_STATUS_OK;
        CHECK(ended || a.completion.status == RB_STATUS_PROGRESS);
        reports += !ended;
        peer_give_back(&p, &a);
    }
    CHECK(reports >= 1 && reports < 1000);
    peer_stop(&p);
}

static void what_is_said_after_the_answer_is_the_workers_bug(void) {
    static const char *const words[] = {"a part was sent after the answer",
                                        "progress was reported after the answer"};
    for (uint16_t i = 0; i < 2; i++) {
        struct peer_options options = defaults;
        struct peer p;
        options.stderr_kept = 1;
        peer_start(&p, "rb-parts", &options, 1);
        submit(&p, (uint16_t)(4 + i), RB_FLAG_PARTS | RB_FLAG_PROGRESS, "1 5");
        CHECK_EQUAL(peer_wait(&p, 5000), -SIGABRT);
        CHECK(strstr(peer_stderr(&p), words[i]) != NULL);
        peer_close(&p);
    }
}

static void a_handler_can_ask_how_much_is_wanted(void) {
    struct peer p;
    struct peer_answer a;
    peer_start(&p, "rb-parts", &defaults, 1);
    struct peer_request request = {
        .payload = "1 0", .bytes = 3, .opcode = 6, .flags = RB_FLAG_PARTS};
    uint64_t job = peer_put(&p, &request);
    peer_demand(&p, job, 7);
    peer_publish(&p);
    expect_part(&p, job, 0, 0, RB_STATUS_PART, 0);
    CHECK(peer_answer(&p, &a, 5000));
    CHECK_EQUAL(a.completion.payload_bytes, 5);
    CHECK(memcmp(a.payload, "7 0 6", 5) == 0);
    peer_stop(&p);
}

int main(void) {
    RUN(parts_come_as_far_as_they_are_asked_for);
    RUN(parts_of_every_size_and_terms_come_whole);
    RUN(demand_of_the_slots_last_job_is_none_for_the_next);
    RUN(a_cancel_ends_the_wait_for_demand);
    RUN(so_does_the_deadline);
    RUN(so_does_a_stop);
    RUN(a_part_is_refused_where_it_cannot_go);
    RUN(what_was_reserved_for_the_answer_stays);
    RUN(more_parts_than_ring_and_region_hold_come_whole_and_in_order);
    RUN(demand_and_its_use_run_past_two_to_the_32);
    RUN(progress_is_told_where_it_is_wanted_and_never_waits);
    RUN(what_is_said_after_the_answer_is_the_workers_bug);
    RUN(a_handler_can_ask_how_much_is_wanted);
    return check_end();
}
