/* test_kit.c: the kit's rules, each held against a real worker process over a real link. */
#define _GNU_SOURCE
#include <limits.h>
#include <sys/stat.h>

#include "peer.h"
#include "ringbridge_worker.h"
#include "tests/check.h"

static const struct peer_options defaults = PEER_DEFAULT;
static uint8_t *big; /* 64 MiB of a pattern that repeats nowhere near */
enum { BIG_BYTES = 64 << 20 };

static void expect_echo(struct peer *p, uint64_t job, const uint8_t *payload, uint32_t bytes,
                        uint16_t flags) {
    struct peer_answer a;
    CHECK(peer_answer(p, &a, 10000));
    CHECK_EQUAL(a.completion.job, job);
    CHECK_EQUAL(a.completion.status, RB_STATUS_OK);
    CHECK_EQUAL(a.completion.flags & RB_FLAG_TERM, flags);
    CHECK_EQUAL(a.completion.payload_bytes, bytes);
    CHECK(a.completion.payload_bytes == bytes && memcmp(a.payload, payload, bytes) == 0);
    peer_give_back(p, &a);
}

static void expect_failure(struct peer *p, unsigned code, const char *message) {
    struct peer_answer a;
    char text[2000] = "";
    CHECK(peer_answer(p, &a, 5000));
    CHECK_EQUAL(a.completion.status, RB_STATUS_FAILED);
    CHECK_EQUAL(a.completion.code, code);
    memcpy(text, a.payload, a.completion.payload_bytes);
    if (strcmp(text, message) != 0) printf("message: \"%s\", not \"%s\"\n", text, message);
    CHECK(strcmp(text, message) == 0);
    peer_give_back(p, &a);
}

static void expect_status(struct peer *p, unsigned status, int within_ms) {
    struct peer_answer a;
    CHECK(peer_answer(p, &a, within_ms));
    CHECK_EQUAL(a.completion.status, status);
    CHECK_EQUAL(a.completion.payload_bytes, 0);
}

/* --- hello ------------------------------------------------------------------------------------------------------------- */

static void the_hello_names_kit_version_role_and_pid(void) {
    struct peer p;
    struct rb_worker_header hello;
    char why[512];
    peer_start(&p, "rb-echo", &defaults, 1);
    CHECK_EQUAL(rb_link_hello(&p.link, &hello, why, sizeof why), 1);
    CHECK(strcmp((char *)hello.kit, "c") == 0);
    CHECK_EQUAL(hello.kit_version, RB_KIT_VERSION);
    CHECK(strcmp((char *)hello.role, "test") == 0);
    CHECK_EQUAL(hello.pid, p.pid);
    peer_stop(&p);
}

/* The digest that the Makefile gives rb-wrong-digest: ours with one added to each hexadecimal digit. */
static void other_digest(char theirs[65]) {
    static const char digits[] = "0123456789abcdef0", ours[] = RB_LAYOUT_DIGEST_HEX;
    for (int i = 0; i <= 64; i++) theirs[i] = i < 64 ? strchr(digits, ours[i])[1] : '\0';
}

static void a_worker_of_another_layout_leaves_with_78_and_both_digests_are_named(void) {
    struct peer p;
    struct peer_options options = defaults;
    struct rb_worker_header hello;
    char why[512], text[4096], theirs[65];
    options.stderr_kept = 1;
    peer_start(&p, "rb-wrong-digest", &options, 0);
    CHECK_EQUAL(peer_wait(&p, 5000), 78);
    other_digest(theirs);
    snprintf(text, sizeof text, "%s", peer_stderr(&p));
    CHECK(strstr(text, RB_LAYOUT_DIGEST_HEX) != NULL);
    CHECK(strstr(text, theirs) != NULL);
    CHECK_EQUAL(p.link.hello->hello, RB_HELLO_REFUSED);
    CHECK_EQUAL(rb_link_hello(&p.link, &hello, why, sizeof why), -EPROTO);
    CHECK(strstr(why, RB_LAYOUT_DIGEST_HEX) != NULL);
    CHECK(strstr(why, theirs) != NULL);
    peer_close(&p);
}

static void a_worker_started_by_hand_says_so_and_leaves_with_64(void) {
    char command[PATH_MAX];
    snprintf(command, sizeof command,
             "env -u RINGBRIDGE_LINK_FD %s/rb-echo 2>&1 | grep -q 'started by one'",
             getenv("WORKERS_BIN"));
    CHECK_EQUAL(system(command), 0);
    snprintf(command, sizeof command, "env -u RINGBRIDGE_LINK_FD %s/rb-echo 2>/dev/null",
             getenv("WORKERS_BIN"));
    CHECK_EQUAL(WEXITSTATUS(system(command)), 64);
    snprintf(command, sizeof command, "RINGBRIDGE_LINK_FD=nine %s/rb-echo 2>/dev/null",
             getenv("WORKERS_BIN"));
    CHECK_EQUAL(WEXITSTATUS(system(command)), 64);
}

static void descriptors_that_are_no_link_are_refused_with_78(void) {
    char command[PATH_MAX];
    snprintf(command, sizeof command,
             "RINGBRIDGE_LINK_FD=3 %s/rb-echo 3</dev/null 4</dev/null 2>/dev/null",
             getenv("WORKERS_BIN"));
    CHECK_EQUAL(WEXITSTATUS(system(command)), 78);
}

/* --- echo -------------------------------------------------------------------------------------------------------------- */

static void payloads_of_every_size_come_back(void) {
    static const uint32_t sizes[] = {
        0, 1, 63, 64, 65, 4095, 4096, 4097, 100000, 1 << 20, BIG_BYTES - 1, BIG_BYTES, 3};
    struct peer p;
    peer_start(&p, "rb-echo", &defaults, 1);
    for (unsigned i = 0; i < sizeof sizes / sizeof *sizes; i++)
        expect_echo(&p, peer_submit(&p, 0, big + i, sizes[i] - (sizes[i] == BIG_BYTES ? i : 0)),
                    big + i, sizes[i] - (sizes[i] == BIG_BYTES ? i : 0), 0);
    peer_stop(&p);
}

static void a_term_comes_back_as_a_term_inline_and_not(void) {
    struct peer p;
    peer_start(&p, "rb-echo", &defaults, 1);
    for (uint32_t bytes = 2; bytes <= 20000; bytes *= 10) {
        struct peer_request request = {.payload = big, .bytes = bytes, .flags = RB_FLAG_TERM};
        uint64_t job = peer_put(&p, &request);
        peer_publish(&p);
        expect_echo(&p, job, big, bytes, RB_FLAG_TERM);
    }
    peer_stop(&p);
}

static void batches_are_answered_once_each_and_in_order(void) {
    enum { JOBS = 20000, AHEAD = 1000 };
    struct peer p;
    uint64_t random = 88172645463325252u;
    static uint32_t bytes[JOBS], at[JOBS];
    int put = 0;
    peer_start(&p, "rb-echo", &defaults, 1);
    for (int got = 0; got < JOBS; got++) {
        /* Now and then a burst; each burst is one publication. */
        if (put < JOBS && (put == got || check_random(&random) % 64 == 0)) {
            for (int burst = (int)(check_random(&random) % 200);
                 burst >= 0 && put < JOBS && put - got < AHEAD; burst--, put++) {
                uint64_t kind = check_random(&random) % 10;
                bytes[put] = (uint32_t)(check_random(&random) % (kind < 7   ? 80
                                                                 : kind < 9 ? 5000
                                                                            : 60000));
                at[put] = (uint32_t)(check_random(&random) % 100000);
                struct peer_request request = {.payload = big + at[put], .bytes = bytes[put]};
                CHECK_EQUAL(peer_put(&p, &request), put + 1);
            }
            peer_publish(&p);
        }
        expect_echo(&p, (uint64_t)got + 1, big + at[got], bytes[got], 0);
    }
    CHECK_EQUAL(rb_load_acquire(&p.link.theirs->started), JOBS);
    struct peer_answer none;
    CHECK(!peer_answer(&p, &none, 20));
    peer_stop(&p);
}

static void every_choice_of_checksums_works(void) {
    static const uint64_t features[] = {0, RB_FEATURE_CRC_ENVELOPE, RB_FEATURE_CRC_PAYLOAD,
                                        RB_FEATURE_CRC_ENVELOPE | RB_FEATURE_CRC_PAYLOAD};
    for (unsigned i = 0; i < 4; i++) {
        struct peer p;
        struct peer_options options = defaults;
        options.link.features = features[i];
        peer_start(&p, "rb-echo", &options, 1);
        expect_echo(&p, peer_submit(&p, 0, big, 10), big, 10, 0);
        expect_echo(&p, peer_submit(&p, 0, big, 10000), big, 10000, 0);
        peer_stop(&p);
    }
}

static void a_role_without_a_pool_serves_inline_payloads(void) {
    struct peer p;
    struct peer_options options = defaults;
    options.pool_bytes = 0;
    peer_start(&p, "rb-echo", &options, 1);
    expect_echo(&p, peer_submit(&p, 0, big, 64), big, 64, 0);
    peer_stop(&p);
}

static void the_template_of_the_readme_works(void) {
    struct peer p;
    peer_start(&p, "upper", &defaults, 1);
    peer_submit_text(&p, 0, "hello");
    expect_echo(&p, 1, (const uint8_t *)"HELLO", 5, 0);
    peer_stop(&p);
}

/* --- room -------------------------------------------------------------------------------------------------------------- */

static void an_answer_larger_than_the_region_is_a_failed_job(void) {
    struct peer p;
    struct peer_options options = defaults;
    options.link.result_bytes = 64 << 10;
    peer_start(&p, "rb-echo", &options, 1);
    peer_submit(&p, 0, big, 65537);
    expect_failure(&p, RB_CODE_ANSWER_TOO_LARGE,
                   "an answer of 65537 bytes does not fit into a result region of 65536");
    expect_echo(&p, peer_submit(&p, 0, big, 65536), big, 65536, 0);
    peer_stop(&p);
}

static void a_full_region_holds_the_worker_until_blocks_are_given_back(void) {
    enum { JOBS = 11, FIT = 4, BYTES = 16000 };
    struct peer p;
    struct peer_options options = defaults;
    struct peer_answer held[JOBS], none;
    options.link.result_bytes = 64 << 10;
    peer_start(&p, "rb-echo", &options, 1);
    for (int i = 0; i < JOBS; i++) {
        struct peer_request request = {.payload = big + i, .bytes = BYTES};
        peer_put(&p, &request);
    }
    peer_publish(&p);
    for (int i = 0; i < FIT; i++) CHECK(peer_answer(&p, &held[i], 5000));
    CHECK(!peer_answer(&p, &none, 50));
    for (int i = FIT; i < JOBS; i++) {
        CHECK(memcmp(held[i - FIT].payload, big + i - FIT, BYTES) ==
              0); /* still ours, still whole */
        peer_give_back(&p, &held[i - FIT]);
        CHECK(peer_answer(&p, &held[i], 1000));
        CHECK_EQUAL(held[i].completion.job, i + 1);
    }
    peer_stop(&p);
}

/* A region of 16 blocks, and four answers that are not given back: only what is used stays taken. */
static void expect_four_answers(uint16_t opcode, const char *payload, unsigned status,
                                unsigned bytes) {
    struct peer p;
    struct peer_options options = defaults;
    options.link.result_bytes = 64 << 10;
    peer_start(&p, "rb-answers", &options, 1);
    for (int i = 0; i < 4; i++) {
        struct peer_answer a;
        peer_submit_text(&p, opcode, payload);
        CHECK(peer_answer(&p, &a, 1000));
        CHECK_EQUAL(a.completion.status, status);
        CHECK_EQUAL(a.completion.payload_bytes, bytes);
        CHECK(a.payload[0] == (status == RB_STATUS_OK ? 'a' : 't') &&
              a.payload[bytes - 1] == (status == RB_STATUS_OK ? 'a' : 'r'));
    }
    peer_stop(&p);
}

static void blocks_that_an_answer_does_not_use_are_free_again(void) {
    expect_four_answers(0, "40000 5000", RB_STATUS_OK, 5000);
    expect_four_answers(0, "60000 64", RB_STATUS_OK, 64);
    expect_four_answers(1, "40000 5000", RB_STATUS_OK, 5000);
    expect_four_answers(2, "60000 0", RB_STATUS_FAILED,
                        (unsigned)strlen("the handler returned without an answer"));
}

static void calling_the_kit_wrongly_aborts_and_says_how(void) {
    static const struct {
        uint16_t opcode;
        const char *payload, *message;
    } wrong[] = {
        {0, "10 11", "the answer is longer than what was reserved"},
        {0, "5000 5001", "the answer is longer than what was reserved"},
        {3, "10 10", "it was answered twice"},
        {4, "0 0", "nothing was reserved for the answer"},
        {5, "10 10", "room was asked for after the answer"},
    };
    for (unsigned i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        struct peer p;
        struct peer_options options = defaults;
        options.stderr_kept = 1;
        peer_start(&p, "rb-answers", &options, 1);
        peer_submit_text(&p, wrong[i].opcode, wrong[i].payload);
        CHECK_EQUAL(peer_wait(&p, 5000), -SIGABRT);
        const char *text = peer_stderr(&p);
        if (strstr(text, wrong[i].message) == NULL) printf("stderr: %s\n", text);
        CHECK(strstr(text, wrong[i].message) != NULL);
        CHECK(strstr(text, "job 1:") != NULL);
        peer_close(&p);
    }
}

static void a_job_that_waits_for_room_can_be_cancelled(void) {
    struct peer p;
    struct peer_options options = defaults;
    struct peer_answer held;
    options.link.result_bytes = 64 << 10;
    peer_start(&p, "rb-echo", &options, 1);
    peer_submit(&p, 0, big, 65536);
    CHECK(peer_answer(&p, &held, 5000));
    uint64_t job = peer_submit(&p, 0, big, 65536);
    CHECK_EQUAL(peer_await_started(&p, 2), 2);
    peer_cancel(&p, job);
    expect_status(&p, RB_STATUS_CANCELLED, 500);
    peer_give_back(&p, &held);
    expect_echo(&p, peer_submit(&p, 0, big, 65536), big, 65536, 0);
    peer_stop(&p);
}

static void a_full_completion_ring_holds_the_worker_and_loses_nothing(void) {
    enum { SLOTS = 8, ROUNDS = 2 };
    struct peer p;
    struct peer_options options = defaults;
    options.link.slots = SLOTS;
    peer_start(&p, "rb-echo", &options, 1);
    for (int i = 0; i < SLOTS * ROUNDS; i++) {
        while (rb_ring_free(&p.link.request_ring) == 0) usleep(100); /* as slots are released */
        peer_submit(&p, 0, big + i, 8);
    }
    CHECK_EQUAL(rb_ring_available(&p.link.completion_ring), SLOTS);
    for (int i = 0; i < SLOTS * ROUNDS; i++) expect_echo(&p, (uint64_t)i + 1, big + i, 8, 0);
    peer_stop(&p);
}

static int64_t worker_side_bytes(const struct peer *p) {
    struct stat s;
    if (fstat(p->link.fds.worker_side, &s) < 0) return -1;
    return (int64_t)s.st_blocks * 512;
}

static void pages_of_large_answers_go_back_to_the_kernel_when_idle(void) {
    struct peer p;
    peer_start(&p, "rb-echo", &defaults, 1);
    expect_echo(&p, peer_submit(&p, 0, big, BIG_BYTES - 1), big, BIG_BYTES - 1, 0);
    CHECK(worker_side_bytes(&p) > BIG_BYTES - 4096);
    for (int i = 0; i < 60 && worker_side_bytes(&p) > 4 << 20; i++) usleep(50000);
    CHECK(worker_side_bytes(&p) < 4 << 20);
    expect_echo(&p, peer_submit(&p, 0, big, BIG_BYTES - 1), big, BIG_BYTES - 1, 0);
    peer_stop(&p);
}

/* --- cancel, deadline, control ------------------------------------------------------------------------------------------ */

static void a_sleep_answers_its_payload_after_its_time(void) {
    struct peer p;
    struct peer_answer a;
    peer_start(&p, "rb-sleep", &defaults, 1);
    uint64_t begin = peer_now_ns();
    peer_submit_text(&p, 0, "80");
    CHECK(peer_answer(&p, &a, 5000));
    CHECK(peer_now_ns() - begin >= 80000000);
    CHECK_EQUAL(a.completion.status, RB_STATUS_OK);
    CHECK(a.completion.run_ns >= 80000000 && a.completion.run_ns < 1000000000);
    CHECK(a.completion.payload_bytes == 2 && memcmp(a.payload, "80", 2) == 0);
    expect_echo(&p, peer_submit_text(&p, 0, "0"), (const uint8_t *)"0", 1, 0);
    peer_stop(&p);
}

static void what_is_no_number_of_milliseconds_is_refused(void) {
    static const char *const bad[] = {"",   "-1",  "1.5",      " 1",
                                      "1 ", "12x", "86400001", "99999999999999999999999"};
    struct peer p;
    char message[200];
    peer_start(&p, "rb-sleep", &defaults, 1);
    for (unsigned i = 0; i < sizeof bad / sizeof *bad; i++) {
        peer_submit_text(&p, 0, bad[i]);
        snprintf(message, sizeof message,
                 "the payload must be milliseconds in decimal text, 0 to 86400000, got %zu bytes",
                 strlen(bad[i]));
        expect_failure(&p, 1, message);
    }
    peer_stop(&p);
}

static void a_running_job_notices_its_cancel(void) {
    struct peer p;
    peer_start(&p, "rb-sleep", &defaults, 1);
    uint64_t job = peer_submit_text(&p, 0, "60000");
    CHECK_EQUAL(peer_await_started(&p, 1), 1);
    peer_cancel(&p, job);
    expect_status(&p, RB_STATUS_CANCELLED, 500);
    expect_echo(&p, peer_submit_text(&p, 0, "1"), (const uint8_t *)"1", 1, 0);
    peer_stop(&p);
}

static void a_cancel_meant_for_an_earlier_job_of_the_slot_does_nothing(void) {
    struct peer p;
    struct peer_options options = defaults;
    options.link.slots = 2;
    peer_start(&p, "rb-sleep", &options, 1);
    expect_echo(&p, peer_submit_text(&p, 0, "0"), (const uint8_t *)"0", 1, 0);
    peer_cancel(&p, 1); /* answered long ago: the word stays */
    expect_echo(&p, peer_submit_text(&p, 0, "0"), (const uint8_t *)"0", 1, 0);
    expect_echo(&p, peer_submit_text(&p, 0, "20"), (const uint8_t *)"20", 2, 0);
    peer_stop(&p);
}

static void a_job_cancelled_before_its_turn_never_runs(void) {
    struct peer p;
    peer_start(&p, "rb-echo", &defaults, 1);
    kill(p.pid, SIGSTOP);
    peer_cancel(&p, peer_submit_text(&p, 3, "42")); /* would end the worker */
    kill(p.pid, SIGCONT);
    expect_status(&p, RB_STATUS_CANCELLED, 500);
    expect_echo(&p, peer_submit(&p, 0, big, 5), big, 5, 0);
    peer_stop(&p);
}

static void a_deadline_ends_a_job(void) {
    struct peer p;
    peer_start(&p, "rb-sleep", &defaults, 1);
    struct peer_request request = {
        .payload = "60000", .bytes = 5, .deadline_ns = peer_now_ns() + 50000000};
    peer_put(&p, &request);
    peer_publish(&p);
    expect_status(&p, RB_STATUS_CANCELLED, 500);
    CHECK(peer_now_ns() >= request.deadline_ns);
    peer_stop(&p);
}

static void a_started_job_keeps_its_slot_and_the_next_is_not_started(void) {
    struct peer p;
    peer_start(&p, "rb-sleep", &defaults, 1);
    uint64_t job = peer_submit_text(&p, 0, "60000");
    peer_submit_text(&p, 0, "0");
    CHECK_EQUAL(peer_await_started(&p, 1), 1);
    CHECK_EQUAL(rb_load_acquire(&p.link.theirs->request_head), 0);
    CHECK_EQUAL(rb_load_acquire(&p.link.theirs->started), 1);
    peer_cancel(&p, job);
    expect_status(&p, RB_STATUS_CANCELLED, 500);
    struct peer_answer a;
    CHECK(peer_answer(&p, &a, 200));
    CHECK_EQUAL(peer_await_started(&p, 2), 2);
    peer_stop(&p);
}

static void an_answer_does_not_wait_behind_the_next_job(void) {
    struct peer p;
    struct peer_request quick = {.payload = "0", .bytes = 1},
                        slow = {.payload = "60000", .bytes = 5};
    peer_start(&p, "rb-sleep", &defaults, 1);
    peer_put(&p, &quick);
    uint64_t job = peer_put(&p, &slow);
    peer_publish(&p);
    expect_echo(&p, 1, (const uint8_t *)"0", 1, 0);
    peer_cancel(&p, job);
    expect_status(&p, RB_STATUS_CANCELLED, 500);
    peer_stop(&p);
}

static void a_short_answer_does_not_wait_behind_a_large_job(void) {
    struct peer p;
    struct peer_request small = {.payload = big, .bytes = 8},
                        large = {.payload = big, .bytes = BIG_BYTES - 1};
    peer_start(&p, "rb-echo", &defaults, 1);
    kill(p.pid, SIGSTOP); /* so that it finds both as one batch */
    peer_put(&p, &small);
    peer_put(&p, &large);
    peer_publish(&p);
    kill(p.pid, SIGCONT);
    expect_echo(&p, 1, big, 8, 0);
    CHECK_EQUAL(rb_ring_available(&p.link.completion_ring), 0);
    expect_echo(&p, 2, big, BIG_BYTES - 1, 0);
    peer_stop(&p);
}

static void drain_finishes_what_is_in_the_ring_and_leaves_with_0(void) {
    struct peer p;
    struct peer_request request = {.payload = "20", .bytes = 2};
    peer_start(&p, "rb-sleep", &defaults, 1);
    for (int i = 0; i < 5; i++) peer_put(&p, &request);
    peer_publish(&p);
    peer_control(&p, RB_CONTROL_DRAIN);
    for (int i = 0; i < 5; i++) expect_echo(&p, (uint64_t)i + 1, (const uint8_t *)"20", 2, 0);
    CHECK_EQUAL(peer_wait(&p, 1000), 0);
    peer_close(&p);
}

static void an_idle_worker_drains_at_once(void) {
    struct peer p;
    peer_start(&p, "rb-echo", &defaults, 1);
    usleep(20000); /* long enough to be parked; drain must wake it in either case */
    peer_control(&p, RB_CONTROL_DRAIN);
    CHECK_EQUAL(peer_wait(&p, 500), 0);
    peer_close(&p);
}

static void stop_ends_a_job_that_looks_and_leaves_with_0(void) {
    struct peer p;
    peer_start(&p, "rb-sleep", &defaults, 1);
    peer_submit_text(&p, 0, "60000");
    peer_submit_text(&p, 0, "60000");
    CHECK_EQUAL(peer_await_started(&p, 1), 1);
    peer_control(&p, RB_CONTROL_STOP);
    CHECK_EQUAL(peer_wait(&p, 500), 0);
    CHECK_EQUAL(rb_load_acquire(&p.link.theirs->started), 1);
    peer_close(&p);
}

/* --- telemetry ---------------------------------------------------------------------------------------------------------- */

static void the_heart_beats_while_a_handler_runs(void) {
    struct peer p;
    struct rb_telemetry first, later;
    peer_start(&p, "rb-sleep", &defaults, 1);
    CHECK_EQUAL(rb_link_telemetry(&p.link, &first), 0);
    CHECK_EQUAL(first.heartbeats, 1); /* before the hello */
    expect_echo(&p, peer_submit_text(&p, 0, "0"), (const uint8_t *)"0", 1, 0);
    peer_submit_text(&p, 0, "nothing");
    expect_failure(&p, 1,
                   "the payload must be milliseconds in decimal text, 0 to 86400000, got 7 bytes");
    peer_submit_text(&p, 0, "60000");
    peer_submit_text(&p, 0, "60000");
    CHECK_EQUAL(peer_await_started(&p, 3), 3);
    usleep(2 * RB_HEARTBEAT_MS * 1000 + 200000);
    CHECK_EQUAL(rb_link_telemetry(&p.link, &later), 0);
    uint64_t passed_ms = (later.heartbeat_ns - first.heartbeat_ns) / 1000000;
    CHECK(passed_ms >= 2 * RB_HEARTBEAT_MS - 50);
    CHECK(later.heartbeats >= 3 && later.heartbeats <= passed_ms / RB_HEARTBEAT_MS + 2);
    CHECK_EQUAL(later.jobs, 2);
    CHECK_EQUAL(later.failed, 1);
    CHECK_EQUAL(later.last_code, 1);
    CHECK_EQUAL(later.queued, 1);
    peer_stop(&p);
}

static void the_last_beat_counts_every_job(void) {
    struct peer p;
    struct rb_telemetry last;
    peer_start(&p, "rb-echo", &defaults, 1);
    for (int i = 0; i < 10; i++) expect_echo(&p, peer_submit(&p, 0, big, 5), big, 5, 0);
    peer_control(&p, RB_CONTROL_DRAIN);
    CHECK_EQUAL(peer_wait(&p, 1000), 0);
    CHECK_EQUAL(rb_link_telemetry(&p.link, &last), 0);
    CHECK_EQUAL(last.jobs, 10);
    peer_close(&p);
    for (int i = 0; i < 20; i++) { /* also when it ends before the heartbeat's thread has run */
        peer_start(&p, "rb-echo", &defaults, 1);
        expect_echo(&p, peer_submit(&p, 0, big, 5), big, 5, 0);
        peer_control(&p, RB_CONTROL_DRAIN);
        CHECK_EQUAL(peer_wait(&p, 1000), 0);
        CHECK_EQUAL(rb_link_telemetry(&p.link, &last), 0);
        CHECK_EQUAL(last.jobs, 1);
        peer_close(&p);
    }
}

/* --- failures ----------------------------------------------------------------------------------------------------------- */

static void failures_carry_code_and_message(void) {
    struct peer p;
    char request[1200], message[200];
    peer_start(&p, "rb-echo", &defaults, 1);
    peer_submit_text(&p, 1, "1234 out of luck");
    expect_failure(&p, 1234, "out of luck");
    peer_submit_text(&p, 1, "65535");
    expect_failure(&p, 65535, "");
    memset(message, 'm', 150);
    message[150] = '\0';
    snprintf(request, sizeof request, "7 %s", message);
    peer_submit_text(&p, 1, request);
    expect_failure(&p, 7, message); /* in the region */
    peer_submit_text(&p, 1, "65536 x");
    expect_failure(&p, 2, "opcode 1 takes \"CODE MESSAGE\" with a code of 0 to 65535");
    peer_submit_text(&p, 99, "x");
    expect_failure(&p, 1, "opcode must be 0 to 4, got 99");
    peer_submit_text(&p, 4, "x");
    expect_failure(&p, RB_CODE_NO_ANSWER, "the handler returned without an answer");
    peer_stop(&p);
}

static void a_crash_is_a_death_by_its_signal_with_the_job_started(void) {
    static const char *const signals[] = {"6", "11", "8", "9"};
    for (int i = 0; i < 4; i++) {
        struct peer p;
        peer_start(&p, "rb-echo", &defaults, 1);
        expect_echo(&p, peer_submit(&p, 0, big, 100), big, 100, 0);
        peer_submit_text(&p, 2, signals[i]);
        peer_submit(&p, 0, big, 100);
        CHECK_EQUAL(peer_wait(&p, 5000), -atoi(signals[i]));
        CHECK_EQUAL(rb_load_acquire(&p.link.theirs->started),
                    2); /* the third goes to another worker */
        CHECK_EQUAL(rb_ring_available(&p.link.completion_ring), 0);
        peer_close(&p);
    }
}

static void answers_given_before_a_crash_stand(void) {
    struct peer p;
    struct peer_request quick = {.payload = "0", .bytes = 1},
                        slow = {.payload = "60000", .bytes = 5};
    peer_start(&p, "rb-sleep", &defaults, 1);
    for (int i = 0; i < 5; i++) peer_put(&p, &quick);
    peer_put(&p, &slow);
    peer_publish(&p);
    CHECK_EQUAL(peer_await_started(&p, 6), 6);
    kill(p.pid, SIGKILL);
    CHECK_EQUAL(peer_wait(&p, 5000), -9);
    for (int i = 0; i < 5; i++) expect_echo(&p, (uint64_t)i + 1, (const uint8_t *)"0", 1, 0);
    CHECK_EQUAL(rb_ring_available(&p.link.completion_ring), 0);
    peer_close(&p);
}

static void an_exit_inside_a_job_is_seen_with_its_status(void) {
    struct peer p;
    peer_start(&p, "rb-echo", &defaults, 1);
    peer_submit_text(&p, 3, "42");
    CHECK_EQUAL(peer_wait(&p, 5000), 42);
    peer_close(&p);
}

static void expect_broken(struct peer *p, const char *what) {
    char text[4096];
    CHECK_EQUAL(peer_wait(p, 5000), 76);
    snprintf(text, sizeof text, "%s", peer_stderr(p));
    if (strstr(text, what) == NULL) printf("stderr: %s\n", text);
    CHECK(strstr(text, "the bridge broke a rule") != NULL);
    CHECK(strstr(text, what) != NULL);
    CHECK_EQUAL(rb_load_acquire(&p->link.theirs->started), 0);
    peer_close(p);
}

static void start_with_stderr(struct peer *p) {
    struct peer_options options = defaults;
    options.stderr_kept = 1;
    peer_start(p, "rb-echo", &options, 1);
}

static void a_request_whose_crc_is_wrong_ends_the_worker_with_76(void) {
    struct peer p;
    struct peer_request request = {.payload = big, .bytes = 10};
    start_with_stderr(&p);
    peer_put(&p, &request);
    p.link.requests[0].body[3] ^= 1;
    peer_publish(&p);
    expect_broken(&p, "has CRC");
    start_with_stderr(&p);
    request.bytes = 1000;
    peer_put(&p, &request);
    p.pool.base[p.link.requests[0].payload_at + 999] ^= 1;
    peer_publish(&p);
    expect_broken(&p, "has CRC");
}

static void a_payload_outside_the_pool_ends_the_worker_with_76(void) {
    struct peer p;
    struct peer_request request = {.payload = big, .bytes = 1000};
    start_with_stderr(&p);
    peer_put(&p, &request);
    p.link.requests[0].payload_at = p.pool.bytes - 999;
    peer_publish(&p);
    expect_broken(&p, "has 1000 bytes at");
    start_with_stderr(&p);
    request.bytes = 10;
    peer_put(&p, &request);
    p.link.requests[0].payload_bytes = 65;
    peer_publish(&p);
    expect_broken(&p, "has 65 bytes inline");
}

static void a_ring_position_too_far_ahead_ends_the_worker_with_76(void) {
    struct peer p;
    start_with_stderr(&p);
    rb_store_seq_cst(&p.link.ours->request_tail, 5000);
    rb_gate_ring(&p.link.waker);
    expect_broken(&p, "request ring");
    start_with_stderr(&p);
    p.link.givebacks[0] = (struct rb_giveback){.first = 5, .count = 1};
    rb_store_seq_cst(&p.link.ours->giveback_tail, 1);
    peer_submit(&p, 0, big, 8);
    expect_broken(&p, "blocks 5 to 5 were given back");
}

/* --- the simulation over a link; its numbers are tests/simulation's ------------------------------------------------------ */

static void put_double(uint8_t *at, double value) { memcpy(at, &value, sizeof value); }

/* A light body on a circle of 1e8 km around 1.3e11 km^3/s^2. */
static size_t circle(uint8_t *request, double span_days) {
    static const uint8_t head[8] = {1, 0, 2, 0};
    memset(request, 0, 152);
    memcpy(request, head, sizeof head);
    put_double(request + 8, 2451544.5);
    put_double(request + 16, span_days);
    request[24] = 10;
    put_double(request + 32, 1.3e11);
    request[88] = 3;
    put_double(request + 104, 1e8);
    put_double(request + 136, 36.05551275463989);
    return 152;
}

static void a_simulation_answers_end_states_and_refuses_by_rule(void) {
    struct peer p;
    struct peer_answer a;
    uint8_t request[152];
    double x, y;
    peer_start(&p, "rb-simulation", &defaults, 1);
    peer_submit(&p, 0, request, (uint32_t)circle(request, 100.0));
    CHECK(peer_answer(&p, &a, 5000));
    CHECK_EQUAL(a.completion.status, RB_STATUS_OK);
    CHECK_EQUAL(a.completion.payload_bytes, 48 + 2 * 56);
    memcpy(&x, a.payload + 48 + 56 + 8, 8);
    memcpy(&y, a.payload + 48 + 56 + 16, 8);
    CHECK(x * x + y * y > 0.999999999e16 && x * x + y * y < 1.000000001e16);
    peer_give_back(&p, &a);
    peer_submit(&p, 0, request, 151);
    expect_failure(&p, 1, "2 bodies take 152 bytes, got 151");
    struct peer_request term = {.payload = "x", .bytes = 1, .flags = RB_FLAG_TERM};
    peer_put(&p, &term);
    peer_publish(&p);
    expect_failure(&p, 10, "the payload must be a binary, got an external term");
    peer_stop(&p);
}

static void a_simulation_of_a_thousand_years_notices_its_cancel(void) {
    struct peer p;
    uint8_t request[152];
    peer_start(&p, "rb-simulation", &defaults, 1);
    uint64_t job = peer_submit(&p, 0, request, (uint32_t)circle(request, 365000.0));
    CHECK_EQUAL(peer_await_started(&p, 1), 1);
    peer_cancel(&p, job);
    expect_status(&p, RB_STATUS_CANCELLED, 500);
    peer_stop(&p);
}

int main(void) {
    uint64_t random = 1;
    big = malloc(BIG_BYTES + 4096);
    for (size_t i = 0; i < BIG_BYTES + 4096; i += 8) {
        uint64_t value = check_random(&random);
        memcpy(big + i, &value, 8);
    }
    RUN(the_hello_names_kit_version_role_and_pid);
    RUN(a_worker_of_another_layout_leaves_with_78_and_both_digests_are_named);
    RUN(a_worker_started_by_hand_says_so_and_leaves_with_64);
    RUN(descriptors_that_are_no_link_are_refused_with_78);
    RUN(payloads_of_every_size_come_back);
    RUN(a_term_comes_back_as_a_term_inline_and_not);
    RUN(batches_are_answered_once_each_and_in_order);
    RUN(every_choice_of_checksums_works);
    RUN(a_role_without_a_pool_serves_inline_payloads);
    RUN(the_template_of_the_readme_works);
    RUN(an_answer_larger_than_the_region_is_a_failed_job);
    RUN(a_full_region_holds_the_worker_until_blocks_are_given_back);
    RUN(blocks_that_an_answer_does_not_use_are_free_again);
    RUN(calling_the_kit_wrongly_aborts_and_says_how);
    RUN(a_job_that_waits_for_room_can_be_cancelled);
    RUN(a_full_completion_ring_holds_the_worker_and_loses_nothing);
    RUN(pages_of_large_answers_go_back_to_the_kernel_when_idle);
    RUN(a_sleep_answers_its_payload_after_its_time);
    RUN(what_is_no_number_of_milliseconds_is_refused);
    RUN(a_running_job_notices_its_cancel);
    RUN(a_cancel_meant_for_an_earlier_job_of_the_slot_does_nothing);
    RUN(a_job_cancelled_before_its_turn_never_runs);
    RUN(a_deadline_ends_a_job);
    RUN(a_started_job_keeps_its_slot_and_the_next_is_not_started);
    RUN(an_answer_does_not_wait_behind_the_next_job);
    RUN(a_short_answer_does_not_wait_behind_a_large_job);
    RUN(drain_finishes_what_is_in_the_ring_and_leaves_with_0);
    RUN(an_idle_worker_drains_at_once);
    RUN(stop_ends_a_job_that_looks_and_leaves_with_0);
    RUN(the_heart_beats_while_a_handler_runs);
    RUN(the_last_beat_counts_every_job);
    RUN(failures_carry_code_and_message);
    RUN(a_crash_is_a_death_by_its_signal_with_the_job_started);
    RUN(answers_given_before_a_crash_stand);
    RUN(an_exit_inside_a_job_is_seen_with_its_status);
    RUN(a_request_whose_crc_is_wrong_ends_the_worker_with_76);
    RUN(a_payload_outside_the_pool_ends_the_worker_with_76);
    RUN(a_ring_position_too_far_ahead_ends_the_worker_with_76);
    RUN(a_simulation_answers_end_states_and_refuses_by_rule);
    RUN(a_simulation_of_a_thousand_years_notices_its_cancel);
    free(big);
    return check_end();
}
