/* Calls over a lane, through a real relay to a played worker: they are answered as a connection's are, stopped as a connection's are, and
 * end with it. */
#define _GNU_SOURCE
#include "lane_lab.h"

static struct lab lab;
static struct lab_worker *worker;
static struct lane *lane;

static void begin(void) {
    lab_open(&lab);
    worker = lab_worker(&lab);
    lane = lane_open(&lab, 7);
}
static void finish(void) {
    lane_detach(lane);
    CHECK(lab_event(&lab, RB_EVENT_LANE_ENDED));
    CHECK(lab_event_says(&lab, "closed_by_beam"));
    CHECK_EQUAL(lab.event.worker, 7);
    lab_worker_end(&lab, worker, NULL);
    lab_close(&lab);
}
static void put_submit(struct lab_bytes *b, int arity, const void *payload, size_t size) {
    b->size = 0;
    lab_submit_head(b, arity, "echo");
    lab_put_binary(b, payload, size);
}
static void put_option(struct lab_bytes *b, const char *key, const char *value) {
    PUT(b, "\x74\x00\x00\x00\x01");
    lab_put_atom(b, key);
    lab_put_atom(b, value);
}

/* --- Answered --------------------------------------------------------------------------------------------------------------- */

static void a_raw_request_is_answered_with_bytes(void) {
    begin();
    for (int i = 0; i < 100; i++) {
        uint64_t number = lane_raw(lane, "echo", "sixteen bytes of", 16, RB_LANE_TIMEOUT_DEFAULT);
        lab_complete(worker, "an answer", 9);
        CHECK(lane_answer(lane));
        CHECK(LANE_RAW_IS(lane, "an answer") && lane->last.number == number);
    }
    struct rb_lane_stats s = lane_stats(&lab, lane, 0);
    CHECK(s.requests == 100 && s.answered == 100 && s.dropped == 0 && s.bytes_out == 900);
    CHECK_EQUAL(s.pid, getpid());
    struct rb_role_stats role;
    rb_relay_read_role(lab.relay, 0, &role);
    CHECK(role.accepted == 100 && role.answered[RB_REASON_OK] == 100);
    finish();
}

static void a_payload_of_every_size_is_the_worker_s(void) {
    static const size_t sizes[] = {
        0, 1, 59, 60, 61, 64, 65, 5000, 16380, 16384, 16385, 300000, LAB_PAYLOAD_MAX};
    static uint8_t bytes[LAB_PAYLOAD_MAX + 64];
    begin();
    for (size_t i = 0; i < sizeof bytes; i++) bytes[i] = (uint8_t)(i * 13 >> 3);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        for (int form = 0; form < 3; form++) { /* raw; a term; a term with options behind */
            size_t size = sizes[i];
            uint8_t *term = malloc(size + 256);
            struct lab_bytes head, tail = {.size = 0};
            put_submit(&head, form + 2, "", 0);
            rb_put_be32(head.at + head.size - 4, (uint32_t)size);
            if (form == 2) put_option(&tail, "detail", "true");
            memcpy(term, head.at, head.size);
            memcpy(term + head.size, bytes, size);
            memcpy(term + head.size + size, tail.at, tail.size);
            if (form)
                lane_term(lane, term, head.size + size + tail.size);
            else
                lane_raw(lane, "echo", bytes, size, 5000);
            const struct rb_request *r = lab_request(worker, 0);
            if (!r) abort();
            CHECK_EQUAL(r->payload_bytes, size);
            CHECK_EQUAL(memcmp(lab_payload(worker, r), bytes, size), 0);
            lab_complete(worker, "x", 1);
            CHECK(lane_answer(lane));
            CHECK(form == 2 ? LANE_TERM_HAS(lane, "\x68\x03\x77\x02ok\x6d\x00\x00\x00\x01x\x74")
                            : LANE_RAW_IS(lane, "x"));
            free(term);
        }
    }
    finish();
}

/* The oldest request, answered through the worker's region. */
static void complete_through_region(const uint8_t *bytes, size_t size) {
    const struct rb_request *r = lab_request(worker, 0);
    if (!r) abort();
    lab_start(worker, 1);
    int64_t first = rb_region_take(&worker->link.result_region, size);
    struct rb_completion e = lab_completion(worker, r->job, "", 0, 0);
    e.flags = 0;
    e.payload_at = (uint64_t)first * 4096;
    e.payload_bytes = (uint32_t)size;
    memcpy(worker->link.results + e.payload_at, bytes, size);
    e.crc = rb_completion_crc(&e, bytes, worker->link.header.features);
    rb_ring_release(&worker->link.request_ring, 1);
    lab_publish(worker, &e);
}

static void answers_of_every_size_come_whole(void) {
    static uint8_t bytes[200000];
    begin();
    for (size_t i = 0; i < sizeof bytes; i++) bytes[i] = (uint8_t)(i * 31 >> 2);
    for (size_t size = 1; size <= sizeof bytes; size *= 9) {
        lane_raw(lane, "echo", "x", 1, 5000);
        complete_through_region(bytes, size);
        CHECK(lane_answer(lane));
        CHECK(lane_says(lane, RB_LANE_ANSWER_RAW, bytes, size));
    }
    CHECK_EQUAL(rb_lane_held_bytes(lane->beam), 0);
    finish();
}

static void many_at_once_have_a_list_of_answers(void) {
    struct lab_bytes b = {.size = 0};
    begin();
    lab_verb_head(&b, 3, "submit_many", "echo");
    PUT(&b, "\x6c\x00\x00\x00\x02");
    lab_put_binary(&b, "one", 3);
    lab_put_binary(&b, "two", 3);
    PUT(&b, "\x6a");
    lane_term(lane, b.at, b.size);
    lab_complete(worker, "eins", 4);
    lab_complete(worker, "zwei", 4);
    CHECK(lane_answer(lane));
    CHECK(LANE_TERM_HAS(
        lane, "\x68\x02\x77\x02ok\x6c\x00\x00\x00\x02\x68\x02\x77\x02ok\x6d\x00\x00\x00\x04"
              "eins\x68\x02\x77\x02ok\x6d\x00\x00\x00\x04zwei\x6a"));
    finish();
}

static void requests_for_no_work_are_answered_too(void) {
    struct lab_bytes b = {.size = 0};
    begin();
    lab_put_atom(&b, "stats");
    lane_term(lane, b.at, b.size);
    CHECK(lane_answer(lane) && LANE_TERM_HAS(lane, "accepted"));
    b.size = 0;
    PUT(&b, "\x68\x02");
    lab_put_atom(&b, "cancel");
    PUT(&b, "\x61\x05");
    lane_term(lane, b.at, b.size);
    CHECK(lane_answer(lane) && LANE_TERM_HAS(lane, "unknown_job"));
    b.size = 0;
    lab_put_atom(&b, "tea");
    lane_term(lane, b.at, b.size);
    CHECK(lane_answer(lane) && LANE_TERM_HAS(lane, "bad_request"));
    CHECK(LANE_TERM_HAS(lane, "unknown request :tea"));
    b.size = 0;
    lab_verb_head(&b, 3, "submit_async", "echo");
    lab_put_binary(&b, "x", 1);
    lane_term(lane, b.at, b.size);
    CHECK(lane_answer(lane) && LANE_TERM_HAS(lane, "over the connection, not over a lane"));
    finish();
}

static void callers_who_share_a_run_share_it_with_those_of_the_connection(void) {
    struct lab_bytes b;
    uint8_t body[512];
    begin();
    for (int i = 0; i < 2; i++) {
        put_submit(&b, 4, "same", 4);
        PUT(&b, "\x74\x00\x00\x00\x02");
        lab_put_atom(&b, "dedupe");
        lab_put_binary(&b, "k", 1);
        lab_put_atom(&b, "ttl");
        PUT(&b, "\x62\x00\x00\xff\xff");
        if (i == 0) {
            lane_term(lane, b.at, b.size);
            if (!lab_request(worker, 0)) abort();
            continue;
        }
        struct lab_bytes call = {.size = 0};
        lab_monitor(lab.peer, 1, 1, 1);
        lab_call_head(&call, 1, 1);
        lab_put(&call, b.at, b.size);
        lab_frame(lab.peer, &call);
    }
    lab_complete(worker, "once", 4);
    CHECK(lane_answer(lane) && LANE_TERM_HAS(lane, "\x68\x02\x77\x02ok\x6d\x00\x00\x00\x04once"));
    CHECK(lab_read(lab.peer, body, sizeof body, LAB_WAIT_MS) > 0);
    CHECK_EQUAL(rb_ring_available(&worker->link.request_ring), 0);
    finish();
}

/* --- Refused and failed ------------------------------------------------------------------------------------------------------ */

static void a_lane_is_refused_what_its_connection_would_be(void) {
    static uint8_t large[LAB_PAYLOAD_MAX + 1];
    begin();
    lane_raw(lane, "nobody", "x", 1, 5000);
    CHECK(lane_answer(lane) && LANE_TERM_HAS(lane, "unknown role nobody"));
    lane_raw(lane, "echo", large, sizeof large, 5000);
    CHECK(lane_answer(lane) && LANE_TERM_HAS(lane, "too_large"));
    rb_relay_set_role_state(lab.relay, 0, RB_ROLE_DRAINING);
    lane_raw(lane, "echo", "x", 1, 5000);
    CHECK(lane_answer(lane) && LANE_TERM_HAS(lane, "draining"));
    rb_relay_set_role_state(lab.relay, 0, RB_ROLE_RUNNING);
    rb_relay_hold(lab.relay, RB_SERVICE_JOBS, 1); /* none is placed: they fill the queue */
    for (int i = 0; i < LAB_DEPTH; i++) lane_raw(lane, "echo", "x", 1, 60000);
    lane_stats(&lab, lane, LAB_DEPTH);
    lane_raw(lane, "echo", "x", 1, 5000);
    CHECK(lane_answer(lane) && LANE_TERM_HAS(lane, "overloaded"));
    lab_submit(lab.peer, 9, "x", 1); /* and so are they who call beside it */
    CHECK(ANSWER_HAS(lab.peer, "overloaded"));
    finish();
}

static void a_deadline_that_passes_is_told(void) {
    begin();
    lane_raw(lane, "echo", "x", 1, 20);
    const struct rb_request *r = lab_request(worker, 0);
    CHECK(lane_answer(lane) && LANE_TERM_HAS(lane, "deadline_exceeded"));
    CHECK(r && rb_load_seq_cst(&worker->link.cancels[0]) == r->job);
    finish();
}

static void a_worker_s_end_is_told(void) {
    begin();
    struct rb_obituary o = {.magic = RB_OBITUARY_MAGIC, .status = -1, .signal = 9};
    lane_raw(lane, "echo", "x", 1, 60000);
    if (!lab_request(worker, 0)) abort();
    lab_start(worker, 1);
    lab_worker_end(&lab, worker, &o);
    CHECK(lane_answer(lane) && LANE_TERM_HAS(lane, "worker_crashed"));
    worker = lab_worker(&lab);
    finish();
}

/* --- Stopped ------------------------------------------------------------------------------------------------------------------ */

static void what_is_cancelled_stops_and_is_dropped(void) {
    begin();
    uint64_t number = lane_raw(lane, "echo", "x", 1, 60000);
    const struct rb_request *r = lab_request(worker, 0);
    if (!r) abort();
    rb_lane_cancel(lane->beam, number);
    CHECK(lane_answer(lane));
    CHECK(lane->last.kind == RB_LANE_ANSWER_DROPPED && lane->last.number == number);
    CHECK_EQUAL(rb_load_seq_cst(&worker->link.cancels[0]), r->job);
    lab_complete(worker, "too late", 8); /* nobody hears of it */
    number = lane_raw(lane, "echo", "y", 1, 60000);
    lab_complete(worker, "in time", 7);
    CHECK(lane_answer(lane) && LANE_RAW_IS(lane, "in time"));
    rb_lane_cancel(lane->beam, number); /* late: nothing comes of it */
    struct rb_lane_stats s = lane_stats(&lab, lane, 0);
    CHECK(s.cancelled == 1 && s.dropped == 1 && s.answered == 1);
    struct rb_role_stats role;
    rb_relay_read_role(lab.relay, 0, &role);
    CHECK_EQUAL(role.answered[RB_REASON_CANCELLED], 1);
    finish();
}

static void what_waits_in_a_queue_is_cancelled_there(void) {
    begin();
    rb_relay_hold(lab.relay, RB_SERVICE_JOBS, 1);
    uint64_t number[3];
    for (int i = 0; i < 3; i++) number[i] = lane_raw(lane, "echo", "x", 1, 60000);
    lane_stats(&lab, lane, 3);
    rb_lane_cancel(lane->beam, number[1]);
    CHECK(lane_answer(lane));
    CHECK(lane->last.kind == RB_LANE_ANSWER_DROPPED && lane->last.number == number[1]);
    lane_stats(&lab, lane, 2);
    rb_relay_hold(lab.relay, RB_SERVICE_JOBS, 0);
    for (int i = 0; i < 2; i++) {
        lab_complete(worker, "y", 1);
        CHECK(lane_answer(lane) && LANE_RAW_IS(lane, "y"));
    }
    finish();
}

/* Without the relay's thread: all lies there before it looks. */
static void begin_still(const struct rb_lane_config *lane_config) {
    struct rb_relay_config config = lab_config();
    struct rb_role_config role = lab_role_config();
    lab_open_still(&lab, &config, &role, 1000);
    lane = lane_open_as(&lab, lane_config);
}
static void finish_still(uint64_t now) {
    lane_detach(lane);
    rb_lab_round(lab.relay, now);
    lab_close(&lab);
}

static void a_cancel_that_overtakes_its_request_is_found(void) {
    const struct rb_lane_config config = lane_config(7);
    begin_still(&config);
    uint64_t number = lane_raw(lane, "echo", "x", 1, 60000);
    rb_lane_cancel(lane->beam, number);
    rb_lab_round(lab.relay, 2000);
    CHECK_EQUAL(rb_lane_drain(lane->beam, lane_see, lane, 9), 1);
    CHECK_EQUAL(lane->last.kind, RB_LANE_ANSWER_DROPPED);
    struct rb_relay_stats stats;
    rb_relay_read_stats(lab.relay, &stats);
    CHECK_EQUAL(stats.accepted, 0);
    finish_still(3000);
}

/* To no role: what it costs is to read it. */
static void send_to_nobody(uint32_t ring, const void *bytes, size_t size) {
    struct iovec part = {(void *)(uintptr_t)bytes, size};
    struct rb_lane_request q = {.form = RB_LANE_RAW,
                                .parts = &part,
                                .count = 1,
                                .role = (const uint8_t *)"nobody",
                                .role_bytes = 6,
                                .timeout_ms = RB_LANE_TIMEOUT_DEFAULT};
    uint64_t number;
    CHECK_EQUAL(lane_send(lane, ring, &q, &number), 0);
}

/* A scheduler that has as many bytes for each round as a lane's turn may be. */
static void one_ring_s_bytes_do_not_keep_the_others_waiting(void) {
    static uint8_t bytes[(2 << 20) - 6];
    const struct rb_lane_config config = lane_config(7);
    begin_still(&config);
    for (uint32_t ring = 1; ring < 3; ring++) send_to_nobody(ring, "x", 1);
    uint64_t now = 2000;
    for (int round = 0; round < 3; round++, now += 1000) {
        send_to_nobody(0, bytes, sizeof bytes);
        rb_lab_round(lab.relay, now);
        rb_lane_drain(lane->beam, lane_see, lane, 9);
    }
    CHECK(lane->told >= 4); /* both of the others, and two of its own */
    finish_still(now);
}

static void a_lane_s_turn_ends_however_many_rings_it_has(void) {
    struct rb_lane_config config = lane_config(7);
    config.rings = 40;
    config.slots = 256;
    begin_still(&config);
    for (uint32_t i = 0; i < config.rings * config.slots; i++)
        send_to_nobody(i % config.rings, "x", 1);
    struct rb_lane_stats s = {.requests = 0};
    uint64_t now = 2000, before = 0;
    do {
        before = s.requests;
        rb_lab_round(lab.relay, now += 1000);
        CHECK_EQUAL(rb_relay_read_lane(lab.relay, 7, &s), 0);
        CHECK(s.requests > before && s.requests - before <= 5000);
    } while (s.requests > before && s.requests < (uint64_t)config.rings * config.slots);
    finish_still(now);
}

static void a_job_with_an_orphan_to_finish_runs_on_without_its_caller(void) {
    struct lab_bytes b;
    begin();
    put_submit(&b, 4, "x", 1);
    put_option(&b, "orphan", "finish");
    uint64_t number = lane_term(lane, b.at, b.size);
    const struct rb_request *r = lab_request(worker, 0);
    if (!r) abort();
    rb_lane_cancel(lane->beam, number);
    CHECK(lane_answer(lane) && lane->last.kind == RB_LANE_ANSWER_DROPPED);
    CHECK(rb_load_seq_cst(&worker->link.cancels[0]) != r->job);
    lab_complete(worker, "done", 4);
    lane_raw(lane, "echo", "y", 1, 60000);
    lab_complete(worker, "next", 4);
    CHECK(lane_answer(lane) && LANE_RAW_IS(lane, "next"));
    struct rb_role_stats role;
    rb_relay_read_role(lab.relay, 0, &role);
    CHECK_EQUAL(role.answered[RB_REASON_OK], 2);
    finish();
}

/* --- Room --------------------------------------------------------------------------------------------------------------------- */

static void open_with_region(uint64_t bytes, uint64_t outgoing_bytes_max) {
    struct rb_lane_config config = lane_config(7);
    struct rb_relay_config relay = lab_config();
    struct rb_role_config role = lab_role_config();
    config.result_bytes = bytes;
    relay.outgoing_bytes_max = outgoing_bytes_max;
    lab_open_relay(&lab, &relay);
    if (rb_relay_add_role(lab.relay, 0, &role) < 0) abort();
    lab.peer = lab_connect(&lab);
    worker = lab_worker(&lab);
    lane = lane_open_as(&lab, &config);
}

static void an_answer_waits_for_room_in_the_region(void) {
    static uint8_t bytes[4096];
    uint64_t held[2];
    open_with_region(8192, 8 << 20);
    lane->keep = 1;
    for (int i = 0; i < 2; i++) {
        lane_raw(lane, "echo", "x", 1, 60000);
        complete_through_region(bytes, sizeof bytes);
        CHECK(lane_answer(lane));
        held[i] = lane->last.at;
    }
    CHECK_EQUAL(rb_lane_held_bytes(lane->beam), 8192);
    CHECK_EQUAL(lane_stats(&lab, lane, 0).lent_blocks, 2);
    memset(bytes, 7, sizeof bytes);
    uint64_t waits = lane_raw(lane, "echo", "x", 1, 60000);
    complete_through_region(bytes, sizeof bytes);
    lane_stats(&lab, lane, 0);
    lane_raw(lane, "echo", "x", 1, 60000); /* a small one overtakes it */
    lab_complete(worker, "y", 1);
    CHECK(lane_answer(lane) && LANE_RAW_IS(lane, "y"));
    CHECK_EQUAL(lane_stats(&lab, lane, 0).kept_bytes, 4096);
    usleep(20000); /* so that the relay may sleep: it is woken for the room alone */
    CHECK_EQUAL(rb_lane_give_back(lane->beam, held[0]), 0);
    CHECK(lane_answer(lane) && lane->last.number == waits);
    CHECK(lane_says(lane, RB_LANE_ANSWER_RAW, bytes, sizeof bytes));
    CHECK_EQUAL(lane_stats(&lab, lane, 0).kept_bytes, 0);
    finish();
}

/* What was told is what is counted: `failed` of `count` calls. */
static void counts(uint64_t count, uint64_t failed) {
    struct rb_role_stats role;
    struct rb_relay_stats all;
    lane_stats(&lab, lane, 0);
    for (int ms = 0; ms < LAB_WAIT_MS; ms++) { /* an answer is counted after it has left */
        rb_relay_read_stats(lab.relay, &all);
        if (all.in_flight == 0) break;
        usleep(1000);
    }
    rb_relay_read_role(lab.relay, 0, &role);
    CHECK_EQUAL(all.accepted, count);
    CHECK_EQUAL(all.answered[RB_REASON_OK], count - failed);
    CHECK_EQUAL(all.answered[RB_REASON_JOB_FAILED], failed);
    CHECK_EQUAL(role.answered[RB_REASON_JOB_FAILED], failed);
    CHECK_EQUAL(role.answered[RB_REASON_OK], count - failed);
}

static void answers_that_may_not_wait_fail(void) {
    static uint8_t bytes[8192];
    open_with_region(8192, 10000);
    lane->keep = 1;
    for (int i = 0; i < 3; i++) {
        lane_raw(lane, "echo", "x", 1, 60000);
        complete_through_region(bytes, sizeof bytes);
        if (i != 1) CHECK(lane_answer(lane)); /* the second one waits */
    }
    CHECK(LANE_TERM_HAS(lane, "job_failed") && LANE_TERM_HAS(lane, "no room in the lane"));
    counts(3, 1);
    lane_raw(lane, "echo", "x", 1, 60000); /* what was told in its slot before says nothing of it */
    lab_complete(worker, "y", 1);
    CHECK(lane_answer(lane) && LANE_RAW_IS(lane, "y"));
    counts(4, 1);
    finish();
}

static void an_answer_larger_than_the_lane_fails(void) {
    static uint8_t bytes[8192];
    open_with_region(4096, 8 << 20);
    lane_raw(lane, "echo", "x", 1, 60000);
    complete_through_region(bytes, sizeof bytes);
    CHECK(lane_answer(lane) && LANE_TERM_HAS(lane, "job_failed"));
    CHECK(LANE_TERM_HAS(lane, "larger than the lane"));
    counts(1, 1);
    struct rb_lane_stats s = lane_stats(&lab, lane, 0);
    CHECK_EQUAL(s.bytes_out, lane->last.size); /* and so are its bytes */
    finish();
}

static void a_list_larger_than_the_lane_has_what_fits(void) {
    static uint8_t bytes[3000];
    struct lab_bytes b = {.size = 0};
    open_with_region(8192, 8 << 20);
    lab_verb_head(&b, 3, "submit_many", "echo");
    PUT(&b, "\x6c\x00\x00\x00\x04");
    for (int i = 0; i < 4; i++) lab_put_binary(&b, "x", 1);
    PUT(&b, "\x6a");
    lane_term(lane, b.at, b.size);
    for (int i = 0; i < 3; i++) complete_through_region(bytes, sizeof bytes);
    lab_complete(worker, "small", 5);
    CHECK(lane_answer(lane));
    CHECK(LANE_TERM_HAS(lane, "\x68\x02\x77\x02ok\x6c\x00\x00\x00\x04"));
    CHECK(LANE_TERM_HAS(lane, "\x68\x02\x77\x02ok\x6d\x00\x00\x0b\xb8"));
    CHECK(LANE_TERM_HAS(lane, "the answers of a batch may be"));
    CHECK(LANE_TERM_HAS(lane, "\x68\x02\x77\x02ok\x6d\x00\x00\x00\x05small"));
    counts(4, 1); /* as its caller was told */
    finish();
}

int main(void) {
    unsetenv("RINGBRIDGE_REPLAY"); /* no lane is opened beside a recording */
    RUN(a_raw_request_is_answered_with_bytes);
    RUN(a_payload_of_every_size_is_the_worker_s);
    RUN(answers_of_every_size_come_whole);
    RUN(many_at_once_have_a_list_of_answers);
    RUN(requests_for_no_work_are_answered_too);
    RUN(callers_who_share_a_run_share_it_with_those_of_the_connection);
    RUN(a_lane_is_refused_what_its_connection_would_be);
    RUN(a_deadline_that_passes_is_told);
    RUN(a_worker_s_end_is_told);
    RUN(what_is_cancelled_stops_and_is_dropped);
    RUN(what_waits_in_a_queue_is_cancelled_there);
    RUN(a_cancel_that_overtakes_its_request_is_found);
    RUN(one_ring_s_bytes_do_not_keep_the_others_waiting);
    RUN(a_lane_s_turn_ends_however_many_rings_it_has);
    RUN(a_job_with_an_orphan_to_finish_runs_on_without_its_caller);
    RUN(an_answer_waits_for_room_in_the_region);
    RUN(answers_that_may_not_wait_fail);
    RUN(an_answer_larger_than_the_lane_fails);
    RUN(a_list_larger_than_the_lane_has_what_fits);
    return check_end();
}
