/* test_relay_place.c: who gets a job, seen from the workers' rings: policies, weights, ramps, slots, and what a dead worker leaves. */
#define _GNU_SOURCE
#include "crew.h"

static const uint8_t sixteen[16];

static void submit(struct crew *c, int count) {
    for (int i = 0; i < count; i++) {
        crew_submit(c, 1, sixteen, sizeof sixteen);
        crew_round(c);
    }
}

static void jobs_go_to_whoever_has_fewest(void) {
    struct crew c;
    struct rb_role_config role = crew_role();
    crew_open(&c, 8, &role);
    submit(&c, 8);
    for (int i = 0; i < 8; i++) CHECK_EQUAL(crew_has(&c, i), 1);
    submit(&c, 3); /* a worker of unknown speed has one job at a time: these wait */
    CHECK_EQUAL(crew_stats(&c).queued, 3);
    crew_begin(&c, 5);
    crew_finish(&c, 5, 1000); /* quick: its credit grows */
    crew_round(&c);
    CHECK_EQUAL(crew_has(&c, 5), 3);
    crew_run_dry(&c, NULL);
    CHECK_EQUAL(crew_answered(&c), 11);
    crew_close(&c);
}

static void a_full_worker_costs_the_others_nothing(void) {
    struct crew c;
    struct rb_role_config role = crew_role();
    crew_open(&c, 3, &role);
    submit(&c, 3);
    for (int n = 0; n < 20; n++) { /* one of three ends its jobs */
        crew_begin(&c, 1);
        crew_finish(&c, 1, 5000000);
        submit(&c, 1);
        CHECK_EQUAL(crew_has(&c, 1), 1);
    }
    crew_run_dry(&c, NULL);
    crew_close(&c);
}

/* Shares of jobs that come one by one and are done at once. */
static void serve(struct crew *c, int jobs, uint32_t *got) {
    for (int n = 0; n < jobs; n++) {
        submit(c, 1);
        for (int i = 0; i < CREW_MOST; i++) {
            if (crew_has(c, i) == 0) continue;
            got[i]++;
            crew_begin(c, i);
            crew_finish(c, i, 1000);
        }
        crew_round(c);
    }
}

static void policies_are_changed_while_the_role_runs(void) {
    struct crew c;
    struct rb_role_config role = crew_role();
    role.choice.policy = RB_CHOICE_ROUND_ROBIN;
    crew_open(&c, 4, &role);
    uint32_t got[CREW_MOST] = {0};
    serve(&c, 40, got);
    for (int i = 0; i < 4; i++) CHECK_EQUAL(got[i], 10);

    c.role.choice.policy = RB_CHOICE_WEIGHTED;
    crew_configure(&c);
    CHECK_EQUAL(rb_relay_weigh_worker(c.lab.relay, c.ids[0], 5), 0);
    CHECK_EQUAL(rb_relay_weigh_worker(c.lab.relay, c.ids[1], 0), -EINVAL);
    crew_round(&c);
    memset(got, 0, sizeof got);
    serve(&c, 80, got);
    CHECK(got[0] >= 49 && got[0] <= 51);
    for (int i = 1; i < 4; i++) CHECK(got[i] >= 9 && got[i] <= 11);

    c.role.choice.policy = RB_CHOICE_TWO_CHOICES;
    crew_configure(&c);
    memset(got, 0, sizeof got);
    serve(&c, 400, got);
    for (int i = 0; i < 4; i++) CHECK(got[i] > 40);

    c.role.choice.policy = RB_CHOICE_STICKY;
    crew_configure(&c);
    memset(got, 0, sizeof got);
    serve(&c, 40, got); /* all of one caller */
    uint32_t most = 0;
    for (int i = 0; i < 4; i++) most = got[i] > most ? got[i] : most;
    CHECK_EQUAL(most, 40);

    c.role.choice.policy = RB_CHOICE_STICKY + 1;
    CHECK_EQUAL(rb_relay_configure_role(c.lab.relay, 0, &c.role), -EINVAL);
    crew_close(&c);
}

static void a_worker_that_comes_gets_its_share_by_and_by(void) {
    struct crew c;
    struct rb_role_config role = crew_role();
    role.choice.ramp_ms = 1000;
    role.choice.policy = RB_CHOICE_ROUND_ROBIN; /* short jobs would stay with who is awake */
    crew_open(&c, 3, &role);
    crew_after(&c, 2000);
    uint32_t got[CREW_MOST] = {0};
    serve(&c, 30, got); /* their shares are looked at where jobs are placed */
    crew_hire(&c, 3);
    uint32_t before = 0;
    for (int part = 0; part < 4; part++) {
        memset(got, 0, sizeof got);
        serve(&c, 300, got);
        uint32_t fair = 75; /* with a whole share */
        CHECK(got[3] >= before && got[3] <= fair * (uint32_t)(part + 1) / 3);
        before = got[3] * 3 / 4; /* by chance some may be fewer */
        crew_after(&c, 250);
    }
    crew_after(&c, 250);
    memset(got, 0, sizeof got);
    serve(&c, 300, got);
    CHECK(got[3] >= 73 && got[3] <= 77);
    crew_close(&c);
}

static void a_worker_that_holds_slots_too_long_is_waited_for_by_nobody(void) {
    struct crew c;
    struct rb_role_config role = crew_role();
    crew_open(&c, 2, &role);
    c.slots = 16;
    uint32_t ran[CREW_MOST] = {0};
    submit(&c, 40);
    crew_run_dry(&c, ran); /* both are known as quick */
    /* The first answers all and releases nothing. */
    struct rb_lab_request q;
    int held = 0;
    for (int n = 0; n < 200 && held < 16; n++) {
        submit(&c, 1);
        while (crew_has(&c, 0) > held) {
            if (rb_lab_request(c.workers[0], (uint64_t)held, &q) < 0) abort();
            rb_lab_start(c.workers[0], (uint64_t)held + 1);
            struct rb_lab_answer a = {.job = q.job, .run_ns = 1000};
            if (rb_lab_complete(c.workers[0], &a) < 0) abort();
            held++;
        }
        while (crew_has(&c, 1) > 0) {
            crew_begin(&c, 1);
            crew_finish(&c, 1, 1000);
        }
    }
    CHECK_EQUAL(held, 16);
    submit(&c, 10);
    CHECK_EQUAL(crew_has(&c, 0), 16);
    CHECK_EQUAL(crew_has(&c, 1), 10);
    submit(&c, 10); /* six of these have no slot anywhere */
    CHECK_EQUAL(crew_stats(&c).queued, 4);
    rb_lab_release(c.workers[0], 16); /* nobody is told */
    crew_round(&c);
    CHECK_EQUAL(crew_stats(&c).queued, 0);
    crew_run_dry(&c, NULL);
    crew_close(&c);
}

static void what_a_fenced_worker_may_yet_begin_is_given_to_nobody_before_its_end(void) {
    struct crew c;
    struct rb_role_config role = crew_role();
    crew_open(&c, 1, &role);
    submit(&c, 1);
    crew_run_dry(&c, NULL);
    submit(&c, 3);
    CHECK_EQUAL(crew_has(&c, 0), 3);
    crew_hire(&c, 1);
    rb_lab_start(c.workers[0], 1);
    struct rb_lab_answer lie = {.job = 4711};
    if (rb_lab_complete(c.workers[0], &lie) < 0) abort();
    crew_round(&c);
    CHECK(ANSWER_HAS(c.lab.peer, "sixteen") == 0); /* the first answer, of the worker's good days */
    CHECK(ANSWER_HAS(c.lab.peer, "worker_broke"));
    CHECK_EQUAL(crew_has(&c, 1), 0);
    rb_lab_start(c.workers[0], 2); /* it was not dead yet */
    crew_die(&c, 0);
    CHECK(ANSWER_HAS(c.lab.peer, "worker_broke"));
    CHECK_EQUAL(crew_has(&c, 1), 1); /* the third one never ran */
    crew_run_dry(&c, NULL);
    CHECK_EQUAL(crew_answered(&c), 4);
    crew_close(&c);
}

static void a_job_that_may_be_retried_is_run_again_so_often(void) {
    struct crew c;
    struct rb_role_config role = crew_role();
    role.idempotent = 1;
    crew_open(&c, 3, &role);
    crew_submit_with(&c, 1, "retry", 1);
    CHECK_EQUAL(crew_begin(&c, 0), 1);
    crew_die(&c, 0);
    CHECK_EQUAL(crew_stats(&c).retried, 1);
    CHECK_EQUAL(crew_has(&c, 1), 1);
    crew_die(&c, 1); /* not begun: that costs no retry */
    CHECK_EQUAL(crew_has(&c, 2), 1);
    CHECK_EQUAL(crew_begin(&c, 2), 1);
    crew_die(&c, 2);
    CHECK_EQUAL(crew_stats(&c).retried, 1);
    CHECK(ANSWER_HAS(c.lab.peer, "worker_crashed"));
    crew_close(&c);
}

static void one_that_is_not_idempotent_is_told_so_before_it_runs(void) {
    struct crew c;
    struct rb_role_config role = crew_role();
    crew_open(&c, 1, &role);
    crew_submit_with(&c, 1, "retry", 2);
    CHECK_EQUAL(crew_has(&c, 0), 0);
    CHECK(ANSWER_HAS(c.lab.peer, "submit: retry: 2, but role echo is not idempotent"));
    crew_submit_with(&c, 1, "retry", 0);
    CHECK_EQUAL(crew_has(&c, 0), 1);
    /* It was when the job came, and is not any more. */
    c.role.idempotent = 1;
    crew_configure(&c);
    crew_run_dry(&c, NULL);
    CHECK(ANSWER_HAS(c.lab.peer, "ok"));
    crew_submit_with(&c, 1, "retry", 2);
    crew_begin(&c, 0);
    c.role.idempotent = 0;
    crew_configure(&c);
    crew_die(&c, 0);
    CHECK(ANSWER_HAS(c.lab.peer, "worker_crashed"));
    crew_close(&c);
}

int main(void) {
    RUN(jobs_go_to_whoever_has_fewest);
    RUN(a_full_worker_costs_the_others_nothing);
    RUN(policies_are_changed_while_the_role_runs);
    RUN(a_worker_that_comes_gets_its_share_by_and_by);
    RUN(a_worker_that_holds_slots_too_long_is_waited_for_by_nobody);
    RUN(what_a_fenced_worker_may_yet_begin_is_given_to_nobody_before_its_end);
    RUN(a_job_that_may_be_retried_is_run_again_so_often);
    RUN(one_that_is_not_idempotent_is_told_so_before_it_runs);
    return check_end();
}
