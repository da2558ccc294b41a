/* test_serve.c: hello, echo and room for answers, each rule held against a real worker process. */
#define _GNU_SOURCE
#include <limits.h>
#include <sys/stat.h>

#include "expect.h"

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

int main(void) {
    make_pattern();
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
    free(big);
    return check_end();
}
