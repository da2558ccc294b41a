/* test_relay_poll.c: whom a round looks at: workers that stirred a moment ago; from the others a bell is heard (dispatch/poll.c). */
#define _GNU_SOURCE
#include "still_lab.h"

static struct still still;

/* The worker ends its oldest job; no round follows. */
static void complete(int silent) {
    struct rb_lab_request r;
    if (rb_lab_request(still.workers[0], 0, &r) < 0) {
        CHECK(!"a job to end");
        return;
    }
    rb_lab_start(still.workers[0], 1);
    struct rb_lab_answer a = {
        .job = r.job, .payload = (const uint8_t *)"y", .payload_bytes = 1, .silent = silent};
    CHECK_EQUAL(rb_lab_complete(still.workers[0], &a), 0);
    rb_lab_release(still.workers[0], 1);
}

static void open_one(void) {
    struct rb_role_config role = lab_role_config();
    still_open(&still, &role, 1);
}

static void a_job_of_a_moment_is_found_without_a_bell(void) {
    open_one();
    still_submit(&still);
    complete(1);
    still_round(&still, 0);
    CHECK(TOLD_OK(&still));
    still_close(&still);
}

static void a_job_that_is_out_for_long_rings(void) {
    open_one();
    for (int i = 0; i < 3; i++) { /* and each anew */
        still_submit(&still);
        still_round(&still, 5);
        still_round(&still, 5);
        complete(0);
        still_round(&still, 0);
        CHECK(TOLD_OK(&still));
    }
    still_close(&still);
}

static void rounds_do_not_look_at_what_is_out_for_long_and_a_lost_bell_costs_a_second(void) {
    open_one();
    still_submit(&still);
    still_round(&still, 5);
    complete(1);
    for (int i = 0; i < 5; i++) still_round(&still, 1);
    CHECK(still_quiet(&still));
    still_round(&still, 1000);
    still_round(&still, 0);
    CHECK(TOLD_OK(&still));
    still_close(&still);
}

static void an_answer_that_is_there_when_its_worker_would_be_left_is_taken(void) {
    open_one();
    still_submit(&still);
    complete(1);
    still_round(&still, 5); /* its time to be left to the bell, and there is its answer */
    CHECK(TOLD_OK(&still));
    still_submit(&still);
    complete(0);
    still_round(&still, 0);
    CHECK(TOLD_OK(&still));
    still_close(&still);
}

static void a_new_job_brings_its_worker_back_into_the_rounds(void) {
    open_one();
    still_submit(&still);
    still_submit(&still); /* waits: a worker of unknown speed has one job */
    still_round(&still, 5);
    complete(0);
    still_round(&still, 0);
    CHECK(TOLD_OK(&still));
    complete(1);
    still_round(&still, 0);
    CHECK(TOLD_OK(&still));
    still_close(&still);
}

static void a_bell_for_nothing_is_followed_by_a_new_announcement(void) {
    open_one();
    still_submit(&still);
    still_round(&still, 5);
    rb_lab_ring(still.workers[0]);
    still_round(&still, 0);
    complete(1);
    still_round(&still, 0);
    CHECK(TOLD_OK(&still));
    still_submit(&still);
    still_round(&still, 5);
    rb_lab_ring(still.workers[0]);
    still_round(&still, 0);
    still_round(&still, 5);
    complete(0);
    still_round(&still, 0);
    CHECK(TOLD_OK(&still));
    still_close(&still);
}

static void the_death_of_one_that_is_out_for_long_is_heard(void) {
    open_one();
    still_submit(&still);
    still_round(&still, 5);
    still_crash(&still, 0);
    CHECK(TOLD(&still, "worker_crashed"));
    still_close(&still);
}

int main(void) {
    RUN(a_job_of_a_moment_is_found_without_a_bell);
    RUN(a_job_that_is_out_for_long_rings);
    RUN(rounds_do_not_look_at_what_is_out_for_long_and_a_lost_bell_costs_a_second);
    RUN(an_answer_that_is_there_when_its_worker_would_be_left_is_taken);
    RUN(a_new_job_brings_its_worker_back_into_the_rounds);
    RUN(a_bell_for_nothing_is_followed_by_a_new_announcement);
    RUN(the_death_of_one_that_is_out_for_long_is_heard);
    return check_end();
}
