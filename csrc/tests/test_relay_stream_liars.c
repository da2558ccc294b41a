/* A worker that lies about its parts, and any order of what is said. */
#define _GNU_SOURCE
#include "stage_lab.h"

/* --- A worker that lies ------------------------------------------------------------------------------------------------ */

static void expect_broke(struct stage *s, const char *rule) {
    turn(s);
    CHECK(lab_event(&s->lab, RB_EVENT_WORKER_BROKE));
    CHECK(lab_event_says(&s->lab, rule));
}

static void a_part_without_demand_fences(void) {
    static struct stage s;
    open_stage(&s);
    begin(&s, 1);
    say_ask(&s, 1, 3);
    turn(&s);
    CHECK_EQUAL(send_parts(&s, 0, 4, 20), 4);
    expect_broke(&s, "part_without_demand");
    struct heard h = listen_to(&s); /* those that were asked for are true */
    CHECK_EQUAL(h.kind, EVENTS);
    CHECK_EQUAL(h.count, 3);
    EXPECT_CANCEL(&s, 1, "part_without_demand");
    close_stage(&s);
}

static void so_does_one_of_a_stream_that_nobody_hears_of_any_more(void) {
    static struct stage s;
    open_stage(&s);
    begin(&s, 1);
    say_ask(&s, 1, 3);
    turn(&s);
    say_cancel(&s, 1, "enough");
    turn(&s);
    CHECK_EQUAL(send_parts(&s, 0, 4, 20), 4);
    expect_broke(&s, "part_without_demand");
    close_stage(&s);
}

static void a_part_of_a_job_that_is_no_stream_fences(void) {
    static struct stage s;
    open_stage(&s);
    lab_submit(s.lab.peer, 1, "x", 1);
    turn(&s);
    CHECK_EQUAL(send_parts(&s, 0, 1, 20), 1);
    expect_broke(&s, "part_not_asked");
    CHECK(FRAME_HAS(&s, "part_not_asked"));
    close_stage(&s);
}

static void a_part_after_the_end_fences(void) {
    static struct stage s;
    struct rb_lab_request r;
    open_stage(&s);
    begin(&s, 1);
    say_ask(&s, 1, 5);
    turn(&s);
    CHECK_EQUAL(rb_lab_request(s.worker, 0, &r), 0);
    send_end(&s);
    struct rb_lab_answer a = {.job = r.job, .status = RB_STATUS_PART};
    CHECK_EQUAL(rb_lab_complete(s.worker, &a), 0);
    expect_broke(&s, "completion_of_no_job_here");
    EXPECT_CANCEL(&s, 1, "normal");
    close_stage(&s);
}

static void a_part_of_anothers_job_fences_only_the_liar(void) {
    static struct stage s;
    struct rb_lab_request r;
    struct rb_lab_worker *liar;
    open_stage(&s);
    begin(&s, 1);
    say_ask(&s, 1, 5);
    if (rb_lab_hire(s.lab.relay, 0, 2, SLOTS, &liar) < 0) abort();
    rb_lab_greet(liar, "echo");
    turn(&s);
    turn(&s);
    CHECK_EQUAL(rb_lab_request(s.worker, 0, &r), 0);
    struct rb_lab_answer a = {.job = r.job, .status = RB_STATUS_PART};
    CHECK_EQUAL(rb_lab_complete(liar, &a), 0);
    /* Its ring is looked at when it has jobs or rings: let it have one. */
    lab_submit(s.lab.peer, 3, "x", 1);
    expect_broke(&s, "completion_of_no_job_here");
    CHECK_EQUAL(send_parts(&s, 0, 5, 20), 5);
    turn(&s);
    int64_t count = 0;
    for (struct heard h = listen_to(&s); h.kind != NOTHING; h = listen_to(&s))
        count += h.kind == EVENTS ? h.count : 0;
    CHECK_EQUAL(count, 5);
    rb_lab_die(liar, -1, 9, 0);
    close_stage(&s);
}

static void no_term_progress_unasked_and_an_unknown_status_fence(void) {
    static const struct {
        uint32_t status, flags, size;
        const void *bytes;
        const char *rule;
    } cases[] = {
        {RB_STATUS_PART, RB_FLAG_TERM, 2, "\x68\x02", "term_cut_short"},
        {RB_STATUS_PART, RB_FLAG_TERM, 0, "", "term_cut_short"},
        {RB_STATUS_PROGRESS, 0, 1, "x", "progress_not_asked"},
        {5, 0, 1, "x", "completion_status"},
    };
    for (unsigned i = 0; i < sizeof cases / sizeof *cases; i++) {
        static struct stage s;
        open_stage(&s);
        begin(&s, 1);
        say_ask(&s, 1, 5);
        turn(&s);
        CHECK_EQUAL(send_parts(&s, 0, 1, 20), 1);
        CHECK_EQUAL(send_as(&s, 0, cases[i].status, cases[i].flags, cases[i].bytes, cases[i].size),
                    0);
        expect_broke(&s, cases[i].rule);
        struct heard h = listen_to(&s);
        CHECK_EQUAL(h.kind, EVENTS);
        CHECK_EQUAL(h.count, 1);
        EXPECT_CANCEL(&s, 1, "worker_broke");
        close_stage(&s);
    }
}

/* A link whose region holds more than a part may have. */
static void a_part_that_is_too_large_fences(void) {
    static struct stage s;
    struct rb_link_worker link;
    int fds[5], ends[2];
    char why[256];
    open_stage(&s);
    rb_lab_die(s.worker, 0, 0, 0);
    s.worker = NULL;
    turn(&s);
    if (rb_relay_create_link(s.lab.relay, 0, 2, SLOTS, 4 << 20, 4096, 0, fds) < 0) abort();
    struct rb_link_fds copies = {dup(fds[0]), dup(fds[1]), dup(fds[2]), dup(fds[3]), dup(fds[4])};
    if (rb_link_attach(&link, &copies, why, sizeof why) < 0 || pipe2(ends, O_CLOEXEC) < 0) abort();
    if (rb_relay_add_worker(s.lab.relay, 2, -1, ends[0], -1, -1) < 0) abort();
    rb_link_greet(&link, "lab", 1 << 16, "echo");
    turn(&s);
    say_subscribe(&s, 1);
    say_ask(&s, 1, 5);
    turn(&s);
    CHECK_EQUAL(rb_ring_available(&link.request_ring), 1);
    for (uint32_t over = 0; over < 2; over++) {
        int64_t slot = rb_ring_claim(&link.completion_ring);
        link.completions[slot] = (struct rb_completion){.job = link.requests[0].job,
                                                        .status = RB_STATUS_PART,
                                                        .payload_bytes = RB_PART_BYTES_MAX + over};
        rb_ring_publish(&link.completion_ring);
        rb_gate_ring(&link.waker);
        turn(&s);
        CHECK_EQUAL(stats_of(&s).events, 1);
        while (recv(s.lab.peer, s.in, sizeof s.in, MSG_DONTWAIT) > 0) turn(&s); /* fragments */
    }
    expect_broke(&s, "part_too_large");
    close(ends[1]);
    rb_link_detach(&link);
    close_stage(&s);
}

/* --- At random --------------------------------------------------------------------------------------------------------- */

/* What a consumer knows, held against what it is told: never more events than asked for, each once and in order, and one end. */
struct model {
    int open;
    int64_t asked, sent, heard;
};

static void any_order_of_ask_part_cancel_and_end_keeps_the_rules(void) {
    enum { CONSUMERS = 6, STEPS = 4000 };
    static struct stage s;
    struct model m[CONSUMERS] = {{0}};
    uint64_t random = 20261121;
    int64_t ends = 0, begun = 0;
    open_stage(&s);
    for (int step = 0; step < STEPS; step++) {
        uint32_t i = (uint32_t)(check_random(&random) % CONSUMERS);
        switch (check_random(&random) % 8) {
        case 0:
            if (m[i].open) break;
            m[i] = (struct model){.open = 1};
            say_subscribe(&s, i + 1);
            begun++;
            break;
        case 1:
        case 2: {
            uint32_t parts = (uint32_t)(check_random(&random) % 50);
            if (m[i].open) m[i].asked += parts;
            if (m[i].open) say_ask(&s, i + 1, parts);
            break;
        }
        case 3:
            if (check_random(&random) % 4 == 0) say_cancel(&s, i + 1, "enough");
            break;
        case 4:
        case 5: { /* the worker sends some of what it may */
            struct rb_lab_request r;
            if (rb_lab_request(s.worker, 0, &r) < 0) break;
            static uint64_t job, sent;
            if (job != r.job) job = r.job, sent = 0;
            while (sent < r.demand && check_random(&random) % 10) {
                uint8_t bytes[8];
                memcpy(bytes, &sent, 8);
                if (send_as(&s, 0, RB_STATUS_PART, 0, bytes, 8) < 0) break;
                sent++;
            }
            if (r.cancelled || check_random(&random) % 16 == 0) {
                if (send_as(&s, 0, r.cancelled ? RB_STATUS_CANCELLED : RB_STATUS_OK, 0, "", 0) == 0)
                    rb_lab_release(s.worker, 1);
            }
            break;
        }
        default: turn(&s);
        }
        for (struct heard h = listen_to(&s); h.kind != NOTHING; h = listen_to(&s)) {
            if (h.kind == WATCH || h.kind == UNWATCH) continue;
            CHECK(h.consumer >= 1 && h.consumer <= CONSUMERS && h.consumer == h.tag);
            struct model *of = &m[(h.consumer - 1) % CONSUMERS];
            if (h.kind == EVENTS) {
                struct rb_cursor c = rb_cursor_of(h.term);
                CHECK(of->open);
                for (int64_t k = 0; k < h.count; k++) {
                    struct rb_slice text;
                    uint64_t number = UINT64_MAX;
                    if (rb_term_text(&c, &text) == 0 && text.size == 8) memcpy(&number, text.at, 8);
                    CHECK_EQUAL(number, of->heard);
                    of->heard++;
                }
                CHECK(of->heard <= of->asked);
            } else {
                CHECK_EQUAL(h.kind, CANCEL);
                if (!of->open) { /* a word about none */
                    CHECK(memmem(h.term.at, h.term.size, "unknown_subscription", 20) != NULL);
                    continue;
                }
                if (memmem(h.term.at, h.term.size, "unknown_subscription", 20)) continue;
                of->open = 0;
                ends++;
            }
        }
    }
    CHECK(ends > 100);
    CHECK(begun - ends <= CONSUMERS);
    close_stage(&s);
}

int main(void) {
    RUN(a_part_without_demand_fences);
    RUN(so_does_one_of_a_stream_that_nobody_hears_of_any_more);
    RUN(a_part_of_a_job_that_is_no_stream_fences);
    RUN(a_part_after_the_end_fences);
    RUN(a_part_of_anothers_job_fences_only_the_liar);
    RUN(no_term_progress_unasked_and_an_unknown_status_fence);
    RUN(a_part_that_is_too_large_fences);
    RUN(any_order_of_ask_part_cancel_and_end_keeps_the_rules);
    return check_end();
}
