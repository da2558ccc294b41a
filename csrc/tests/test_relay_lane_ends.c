/* How a lane ends, and whom it takes along: its own jobs, and nobody else. */
#define _GNU_SOURCE
#include "lane_lab.h"
#include "relay/relay_pvt.h"
#include "ringbridge/lab.h"

static struct lab lab;
static struct lab_worker *worker;
static struct lane *lane;

static void begin(void) {
    lab_open(&lab);
    worker = lab_worker(&lab);
    lane = lane_open(&lab, 7);
}
static void end(void) {
    lab_worker_end(&lab, worker, NULL);
    lab_close(&lab);
}
/* `count` requests, of which one is with the worker and is to be stopped. */
static const struct rb_request *ask(int count) {
    for (int i = 0; i < count; i++) lane_raw(lane, "echo", "x", 1, 60000);
    lane_stats(&lab, lane, (uint64_t)count);
    const struct rb_request *r = lab_request(worker, 0);
    if (!r) abort();
    return r;
}
static int is_stopped(const struct rb_request *r) {
    for (int ms = 0; ms < LAB_WAIT_MS; ms++) {
        if (rb_load_seq_cst(&worker->link.cancels[0]) == r->job) return 1;
        usleep(1000);
    }
    return 0;
}
static void connection_still_works(void) {
    while (rb_ring_available(&worker->link.request_ring) > 0) lab_complete(worker, "z", 1);
    lab_submit(lab.peer, 9, "x", 1);
    lab_complete(worker, "still here", 10);
    CHECK(ANSWER_HAS(lab.peer, "still here"));
}
static int lane_ended_with(const char *why) {
    return lab_event(&lab, RB_EVENT_LANE_ENDED) && lab.event.worker == 7 &&
           lab_event_says(&lab, why);
}
/* All that was open is told of once; nothing can be asked any more. */
static void all_is_lost(int count) {
    uint64_t number;
    CHECK(!lane_answer(lane));
    CHECK_EQUAL(rb_lane_state(lane->beam), RB_LANE_ENDED);
    CHECK_EQUAL(rb_lane_claim(lane->beam, 0, &number), -EPIPE);
    CHECK_EQUAL(rb_lane_lose(lane->beam, lane_see, lane), count);
    CHECK_EQUAL(lane->lost, count);
    lane_detach(lane);
}

static void a_lane_ends_with_its_connection_and_its_jobs_with_it(void) {
    begin();
    const struct rb_request *r = ask(3);
    close(lab.peer);
    CHECK(lane_ended_with("connection_lost"));
    CHECK(is_stopped(r));
    all_is_lost(3);
    lab.peer = -1;
    end();
}

static void a_beam_that_closes_its_end_ends_its_jobs_and_not_its_connection(void) {
    begin();
    const struct rb_request *r = ask(3);
    shutdown(rb_lane_wake_fd(lane->beam),
             SHUT_RDWR); /* as a NIF that is unloaded, or a process that died */
    CHECK(lane_ended_with("closed_by_beam"));
    CHECK(is_stopped(r));
    connection_still_works();
    CHECK_EQUAL(rb_lane_lose(lane->beam, lane_see, lane), 3);
    lane_detach(lane);
    end();
}

static void a_lane_whose_descriptors_are_let_go_ends(void) {
    struct rb_lane_config config = lane_config(7);
    int fds[4];
    begin();
    lane_detach(lane);
    CHECK(lane_ended_with("closed_by_beam"));
    CHECK_EQUAL(rb_relay_open_lane(lab.relay, lab.connections, &config, fds), 0);
    for (int i = 0; i < 4; i++) close(fds[i]); /* nobody came for them */
    CHECK(lane_ended_with("closed_by_beam"));
    struct rb_lane_stats stats;
    CHECK_EQUAL(rb_relay_read_lane(lab.relay, 7, &stats), -ENOENT);
    end();
}

static void the_bridge_may_end_a_lane(void) {
    begin();
    ask(2);
    CHECK_EQUAL(rb_relay_close_lane(lab.relay, 7, "not_wanted"), 0);
    CHECK(lane_ended_with("not_wanted"));
    all_is_lost(2);
    connection_still_works();
    CHECK_EQUAL(rb_relay_close_lane(lab.relay, 7, "again"), 0); /* of one that is gone: nothing */
    end();
}

static void a_service_that_is_down_has_no_lanes(void) {
    begin();
    ask(1);
    rb_relay_service_down(lab.relay, RB_SERVICE_JOBS, (const uint8_t *)"\x77\x08shutdown", 10);
    CHECK(lane_ended_with("service_down"));
    all_is_lost(1);
    lane = lane_open(&lab, 8);
    while (rb_lane_state(lane->beam) == RB_LANE_OPEN) lane_sleep(lane);
    lane_detach(lane);
    end();
}

static void a_relay_that_is_closed_ends_its_lanes(void) {
    begin();
    ask(2);
    lab_worker_end(&lab, worker, NULL);
    close(lab.peer);
    lab_close_relay(lab.relay);
    CHECK_EQUAL(rb_lane_hush(lane->beam), -EPIPE);
    all_is_lost(2);
}

static void lanes_of_one_connection_are_apart(void) {
    begin();
    struct lane *other = lane_open(&lab, 8);
    lane_raw(lane, "echo", "mine", 4, 60000);
    if (!lab_request(worker, 0)) abort();
    lane_raw(other, "echo", "yours", 5, 60000);
    lab_complete(worker, "to me", 5);
    CHECK(lane_answer(lane) && LANE_RAW_IS(lane, "to me"));
    lane_detach(lane);
    CHECK(lane_ended_with("closed_by_beam"));
    lab_complete(worker, "to you", 6);
    CHECK(lane_answer(other) && LANE_RAW_IS(other, "to you"));
    lane_detach(other);
    end();
}

static void what_cannot_be_opened_is_refused(void) {
    struct rb_lane_config config = lane_config(7);
    int fds[4];
    begin();
    CHECK_EQUAL(rb_relay_open_lane(lab.relay, lab.connections, &config, fds), -EEXIST);
    config.lane = 0;
    CHECK_EQUAL(rb_relay_open_lane(lab.relay, lab.connections, &config, fds), -EINVAL);
    config = lane_config(8);
    config.slots = 3;
    CHECK_EQUAL(rb_relay_open_lane(lab.relay, lab.connections, &config, fds), -EINVAL);
    config = lane_config(8);
    CHECK_EQUAL(rb_relay_open_lane(lab.relay, 999, &config, fds), 0);
    for (int i = 0; i < 4; i++) close(fds[i]);
    CHECK(lab_event(&lab, RB_EVENT_LANE_ENDED) && lab_event_says(&lab, "no_connection"));
    lane_detach(lane);
    end();
}

static void no_lane_is_opened_beside_a_recording(void) {
    struct rb_lane_config config = lane_config(7);
    struct rb_relay_config relay = lab_config();
    char path[64];
    int fds[4];
    lab = (struct lab){.peer = -1};
    if (rb_relay_open(&lab.relay, &relay) < 0) abort();
    snprintf(path, sizeof path, "/tmp/rb-lane-%d", (int)getpid());
    CHECK_EQUAL(rb_relay_record(lab.relay, path, 1 << 20, 1 << 16), 0);
    CHECK_EQUAL(rb_relay_open_lane(lab.relay, 1, &config, fds), -EBUSY);
    rb_relay_close(lab.relay);
    unlink(path);
}

/* --- Lies ---------------------------------------------------------------------------------------------------------------------- */

enum lie {
    SLOT_OUT_OF_RANGE,
    SLOT_OF_ANOTHER_RING,
    GENERATION_SKIPPED,
    GENERATION_AGAIN,
    OPEN_TWICE,
    PLACE_OUTSIDE,
    INLINE_TOO_LONG,
    FORM_UNKNOWN,
    ROLE_MISSING,
    ROLE_LONGER_THAN_ALL,
    TERM_CUT,
    TERM_MALFORMED,
    PAYLOAD_CUT,
    TAIL_TOO_FAR,
    EXTENT_NOT_LENT,
    HEAD_TOO_FAR,
    LIES
};
static const char *const rules[LIES] = {"submission_number",
                                        "submission_number",
                                        "submission_number",
                                        "submission_number",
                                        "submission_number",
                                        "submission_place",
                                        "submission_place",
                                        "submission_form",
                                        "submission_role",
                                        "submission_role",
                                        "bad_payload",
                                        "bad_payload",
                                        "bad_payload",
                                        "submission_tail_out_of_range",
                                        "giveback_of_nothing_lent",
                                        "completion_head_out_of_range"};

static void publish(uint32_t ring, const struct rb_lane_submission *s) {
    struct rb_lane_ring *r = &lane->beam->rings[ring];
    int64_t slot = rb_ring_claim(&r->producer);
    r->submissions[slot] = *s;
    rb_ring_publish(&r->producer);
    rb_gate_ring(&r->waker);
}

static void tell(enum lie lie) {
    struct rb_lane_client *b = lane->beam;
    const uint64_t first = UINT64_C(1) << 32;
    struct rb_lane_submission s = {.request = first,
                                   .form = RB_LANE_FORM_RAW,
                                   .flags = RB_LANE_FLAG_INLINE,
                                   .bytes = 5,
                                   .timeout_ms = 60000,
                                   .role_bytes = 4,
                                   .body = "echox"};
    switch (lie) {
    case SLOT_OUT_OF_RANGE: s.request = first + 3 * 16; break;
    case SLOT_OF_ANOTHER_RING: s.request = first + 16; break;
    case GENERATION_SKIPPED: s.request = 2 * first; break;
    case GENERATION_AGAIN: s.request = 0; break;
    case OPEN_TWICE: publish(0, &s); break;
    case PLACE_OUTSIDE: s.flags = 0, s.at = b->header.arena_bytes - 4; break;
    case INLINE_TOO_LONG: s.bytes = 65; break;
    case FORM_UNKNOWN: s.form = 3; break;
    case ROLE_MISSING: s.role_bytes = 0; break;
    case ROLE_LONGER_THAN_ALL: s.role_bytes = 6; break;
    case TERM_CUT:
        s.form = RB_LANE_FORM_TERM, memcpy(s.body, "\x68\x03\x77\x06sub", 7), s.bytes = 7;
        break;
    case TERM_MALFORMED:
        s.form = RB_LANE_FORM_TERM;
        memcpy(s.body,
               "\x68\x03\x77\x06submit\x77\x04"
               "echo\x01",
               17);
        s.bytes = 17;
        break;
    case PAYLOAD_CUT: { /* a head that promises more than there is */
        s.form = RB_LANE_FORM_TERM;
        s.flags = 0;
        s.at = 0;
        s.bytes = 20000;
        memset(b->rings[0].arena, 0, 20000);
        memcpy(b->rings[0].arena,
               "\x68\x03\x77\x06submit\x77\x04"
               "echo\x6d\x00\x00\xff\xff",
               21);
        break;
    }
    case TAIL_TOO_FAR:
        rb_store_seq_cst(b->rings[0].producer.shared_tail, 17);
        rb_lane_ring_relay(b);
        return;
    case EXTENT_NOT_LENT: {
        int64_t slot = rb_ring_claim(&b->giveback_ring);
        b->givebacks[slot].at = 4096;
        rb_ring_publish(&b->giveback_ring);
        break;
    }
    case HEAD_TOO_FAR: { /* more answers taken than there were: seen when its ring has gone round */
        rb_store_release(b->completion_ring.shared_head, 100000);
        for (uint64_t i = 0; i <= 64; i++) {
            s.request = first * (i + 1);
            publish(0, &s);
            for (int ms = 0; ms < LAB_WAIT_MS && rb_ring_available(&worker->link.request_ring) < 1;
                 ms++) {
                if (rb_load_acquire(&b->theirs->state) != RB_LANE_STATE_OPEN) return;
                usleep(1000);
            }
            lab_complete(worker, "y", 1);
            while (rb_load_acquire(&b->theirs->completion_tail) <= i &&
                   rb_load_acquire(&b->theirs->state) == RB_LANE_STATE_OPEN)
                usleep(100);
        }
        return;
    }
    default: break;
    }
    publish(0, &s);
}

static void a_beam_that_lies_costs_its_lane_and_nothing_else(void) {
    for (int lie = 0; lie < LIES; lie++) {
        begin();
        struct lane *other = lane_open(&lab, 8);
        tell((enum lie)lie);
        if (!lane_ended_with(rules[lie])) {
            CHECK_EQUAL(lie, -1);
            printf("told: %.*s\n", (int)lab.event.size, (const char *)lab.event.data);
        }
        CHECK_EQUAL(rb_lane_state(lane->beam), RB_LANE_ENDED);
        connection_still_works();
        lane_raw(other, "echo", "x", 1, 60000);
        lab_complete(worker, "to you", 6);
        CHECK(lane_answer(other) && LANE_RAW_IS(other, "to you"));
        lane_detach(other);
        lane_detach(lane);
        end();
    }
}

static void cancel_words_of_nothing_cost_nothing(void) {
    begin();
    for (uint32_t i = 0; i < 48; i++) lane->beam->cancels[i].request = UINT64_MAX - i;
    for (uint64_t i = 1; i < 1000; i++) {
        rb_store_seq_cst(&lane->beam->ours->cancels, i * 77777777);
        rb_lane_ring_relay(lane->beam);
    }
    lane_raw(lane, "echo", "x", 1, 60000);
    lab_complete(worker, "y", 1);
    CHECK(lane_answer(lane) && LANE_RAW_IS(lane, "y"));
    CHECK_EQUAL(lane_stats(&lab, lane, 0).cancelled, 0);
    lane_detach(lane);
    end();
}

/* By hand, round by round: the walk over all cancel words takes as many rounds as it needs, however often the count changes, and ends. */
static void cancel_words_are_looked_at_a_part_in_a_round(void) {
    const struct rb_relay_config config = lab_config();
    const struct rb_role_config role = lab_role_config();
    const struct rb_lane_config wide = {.lane = 7,
                                        .rings = RB_LANE_RINGS_MAX,
                                        .slots = 1024,
                                        .arena_bytes = 64 << 10,
                                        .result_bytes = 1 << 20,
                                        .result_block_bytes = 4096};
    struct iovec part = {(void *)(uintptr_t)"x", 1};
    struct rb_lane_request q = {.form = RB_LANE_RAW,
                                .parts = &part,
                                .count = 1,
                                .role = (const uint8_t *)"echo",
                                .role_bytes = 4,
                                .timeout_ms = 60000};
    struct rb_lane_client *beam;
    struct rb_relay *r;
    uint64_t number, now = UINT64_C(1000000000000);
    char why[256];
    int pair[2], fds[4], rounds = 0;
    if (rb_lab_open(&r, &config, now) < 0 ||
        rb_relay_install_service(r, RB_SERVICE_JOBS, 1, 0, "job_dispatcher\0") < 0 ||
        rb_relay_add_role(r, 0, &role) < 0 ||
        socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0 ||
        rb_relay_adopt(r, 1, pair[0], "peer@host", LAB_FLAGS, NULL, 0) < 0 ||
        rb_relay_open_lane(r, 1, &wide, fds) < 0)
        abort();
    struct rb_lane_fds own = {fds[0], fds[1], fds[2], fds[3]};
    CHECK_EQUAL(rb_lane_attach(&beam, &own, why, sizeof why), 0);
    CHECK_EQUAL(rb_lane_claim(beam, RB_LANE_SHARED, &number), 0); /* among the last slots */
    CHECK_EQUAL(rb_lane_send(beam, RB_LANE_SHARED, number, &q), 0);
    rb_lab_round(r, now += 1000);
    CHECK_EQUAL(r->beams->stats.open, 1);
    rb_lane_cancel(beam, number);
    while (r->beams->stats.cancelled == 0 && rounds < 1000) {
        uint32_t before = r->beams->cancel_left;
        rb_lab_round(r, now += 1000);
        uint32_t all = before ? before : r->beams->slot_count;
        CHECK(all - r->beams->cancel_left <= 8192);
        rounds++;
    }
    CHECK_EQUAL(rounds, 129 * 1024 / 8192 + 1);
    CHECK_EQUAL(r->beams->stats.dropped, 1);
    for (uint64_t i = 1; i < 100; i++) { /* a liar counts on and on: no round is longer for it */
        rb_store_seq_cst(&beam->ours->cancels, 1000 + i);
        uint32_t at = r->beams->cancel_at;
        rb_lab_round(r, now += 1000);
        CHECK_EQUAL((r->beams->cancel_at + r->beams->slot_count - at) % r->beams->slot_count, 8192);
    }
    for (rounds = 0; r->beams->cancel_left && rounds < 1000; rounds++) rb_lab_round(r, now += 1000);
    CHECK(rounds < 17);
    rb_lane_detach(beam);
    close(pair[1]);
    rb_relay_close(r);
}

static void a_bell_that_rings_for_nothing_costs_nothing(void) {
    begin();
    for (int i = 0; i < 100000; i++)
        CHECK(send(lane->beam->fds.bell, "x", 1, MSG_DONTWAIT | MSG_NOSIGNAL) == 1 ||
              errno == EAGAIN);
    connection_still_works();
    lane_raw(lane, "echo", "x", 1, 60000);
    lab_complete(worker, "y", 1);
    CHECK(lane_answer(lane) && LANE_RAW_IS(lane, "y"));
    CHECK_EQUAL(rb_lane_state(lane->beam), RB_LANE_OPEN);
    lane_detach(lane);
    end();
}

int main(void) {
    unsetenv("RINGBRIDGE_REPLAY"); /* no lane is opened beside a recording */
    RUN(a_lane_ends_with_its_connection_and_its_jobs_with_it);
    RUN(a_beam_that_closes_its_end_ends_its_jobs_and_not_its_connection);
    RUN(a_lane_whose_descriptors_are_let_go_ends);
    RUN(the_bridge_may_end_a_lane);
    RUN(a_service_that_is_down_has_no_lanes);
    RUN(a_relay_that_is_closed_ends_its_lanes);
    RUN(lanes_of_one_connection_are_apart);
    RUN(what_cannot_be_opened_is_refused);
    RUN(no_lane_is_opened_beside_a_recording);
    RUN(a_beam_that_lies_costs_its_lane_and_nothing_else);
    RUN(cancel_words_of_nothing_cost_nothing);
    RUN(cancel_words_are_looked_at_a_part_in_a_round);
    RUN(a_bell_that_rings_for_nothing_costs_nothing);
    return check_end();
}
