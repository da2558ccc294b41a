/* test_relay_vitals.c: who is hung, stuck or not ready, and who is left alone (dispatch/vitals.h). */
#define _GNU_SOURCE
#include "relay/dispatch/vitals.h"

#include "still_lab.h"

/* --- Over time ------------------------------------------------------------------------------------------------------------- */

#define MS STILL_MS
static struct rb_vitals vitals;
static struct rb_vital_signs signs;

static void look(int busy, uint64_t ms) { rb_vitals_take(&vitals, &signs, busy, ms * MS); }
static void begin(void) {
    memset(&vitals, 0, sizeof vitals);
    memset(&signs, 0, sizeof signs);
}

static void silence_is_what_passes_without_a_heartbeat(void) {
    const struct rb_health_config config = {.hang_ms = 100};
    begin();
    look(0, 60);
    CHECK_EQUAL(rb_vitals_judge(&vitals, &config), RB_VITALS_FINE);
    signs.telemetry.heartbeats++;
    look(0, 60);
    look(0, 99);
    CHECK_EQUAL(rb_vitals_judge(&vitals, &config), RB_VITALS_FINE);
    look(0, 1);
    CHECK_EQUAL(rb_vitals_judge(&vitals, &config), RB_VITALS_HUNG);
}

static void a_block_that_is_torn_is_no_heartbeat_and_is_not_read(void) {
    const struct rb_health_config config = {.hang_ms = 100};
    begin();
    signs.telemetry.heartbeats = 7;
    look(0, 10);
    signs.torn = 1;
    signs.telemetry.heartbeats = 8;
    signs.telemetry.unready = 1;
    look(0, 100);
    CHECK_EQUAL(rb_vitals_judge(&vitals, &config), RB_VITALS_HUNG);
    CHECK_EQUAL(vitals.seen.telemetry.heartbeats, 7);
    CHECK_EQUAL(vitals.seen.telemetry.unready, 0);
}

static void each_sign_of_a_job_starts_the_time_anew_and_heartbeats_do_not(void) {
    const struct rb_health_config config = {.progress_timeout_ms = 100};
    uint64_t *const words[] = {&signs.pulse, &signs.started, &signs.request_head,
                               &signs.completion_tail};
    for (unsigned i = 0; i < sizeof words / sizeof *words; i++) {
        begin();
        look(1, 99);
        ++*words[i];
        signs.telemetry.heartbeats++;
        look(1, 99);
        look(1, 99);
        CHECK_EQUAL(rb_vitals_judge(&vitals, &config), RB_VITALS_FINE);
        signs.telemetry.heartbeats++;
        look(1, 1);
        CHECK_EQUAL(rb_vitals_judge(&vitals, &config), RB_VITALS_STUCK);
    }
}

static void who_has_no_jobs_does_not_stand_still(void) {
    const struct rb_health_config config = {.progress_timeout_ms = 100};
    begin();
    look(1, 99);
    look(0, 1000);
    look(1, 99);
    CHECK_EQUAL(rb_vitals_judge(&vitals, &config), RB_VITALS_FINE);
}

static void a_time_is_kept_within_a_quarter_of_it(void) {
    CHECK_EQUAL(rb_vitals_step_ns(&(struct rb_health_config){0}), 500 * MS);
    CHECK_EQUAL(rb_vitals_step_ns(&(struct rb_health_config){.hang_ms = 2000}), 500 * MS);
    CHECK_EQUAL(rb_vitals_step_ns(&(struct rb_health_config){.hang_ms = 1000}), 250 * MS);
    CHECK_EQUAL(
        rb_vitals_step_ns(&(struct rb_health_config){.hang_ms = 2000, .progress_timeout_ms = 100}),
        25 * MS);
    CHECK_EQUAL(rb_vitals_step_ns(&(struct rb_health_config){.progress_timeout_ms = 1}), 10 * MS);
}

/* --- In the relay ---------------------------------------------------------------------------------------------------------- */

static struct rb_worker_stats worker_stats(struct still *s, uint64_t id) {
    struct rb_worker_stats stats = {0};
    rb_relay_read_worker(s->lab.relay, id, &stats);
    return stats;
}

/* The relay tells the other thread that a worker broke this rule. */
static int is_told(struct still *s, const char *rule) {
    struct rb_event e;
    int found = 0;
    while (rb_relay_take(s->lab.relay, &e)) {
        found |= e.kind == RB_EVENT_WORKER_BROKE && e.size == strlen(rule) &&
                 memcmp(e.data, rule, e.size) == 0;
    }
    return found;
}

static void open_with(struct still *s, uint32_t hang_ms, uint32_t progress_timeout_ms,
                      int workers) {
    struct rb_role_config role = lab_role_config();
    role.choice.credit_us = 0; /* one job at a time */
    role.health = (struct rb_health_config){hang_ms, progress_timeout_ms};
    still_open(s, &role, workers);
    is_told(s, ""); /* nothing yet */
}

static void rounds(struct still *s, int count, uint64_t ms) {
    for (int i = 0; i < count; i++) still_round(s, ms);
}

static void an_idle_worker_without_a_heartbeat_is_ended(void) {
    struct still s;
    open_with(&s, 2000, 0, 1);
    rounds(&s, 3, 500);
    CHECK(!is_told(&s, "no_heartbeat"));
    CHECK_EQUAL(worker_stats(&s, 1).silent_ns, 1500 * MS);
    rounds(&s, 1, 500);
    CHECK(is_told(&s, "no_heartbeat"));
    CHECK_EQUAL(still_role(&s).workers_ready, 0);
    still_close(&s);
}

static void a_job_that_has_begun_is_answered_and_one_that_has_not_runs_elsewhere(void) {
    struct still s;
    open_with(&s, 2000, 0, 2);
    still_submit(&s);
    still_submit(&s);
    rb_lab_start(s.workers[0], 1);
    for (int i = 0; i < 4; i++) {
        still_round(&s, 500);
        CHECK(still_quiet(&s) || i == 3);
    }
    /* Both are hung. The first had begun its job, the second had not. */
    struct rb_relay_stats stats = still_stats(&s);
    CHECK_EQUAL(stats.answered[RB_REASON_WORKER_BROKE], 1);
    CHECK_EQUAL(stats.in_flight, 1);
    still_crash(&s, 0);
    s.workers[1] ? rb_lab_die(s.workers[1], -1, 9, 0) : (void)0;
    s.workers[1] = NULL;
    still_round(&s, 0);
    still_hire(&s, 0);
    still_round(&s, 0);
    CHECK(still_has_job(&s, 0));
    still_answer(&s, 0, RB_STATUS_OK);
    CHECK_EQUAL(still_stats(&s).answered[RB_REASON_OK], 1);
    still_close(&s);
}

static void jobs_in_a_ring_and_jobs_begun_are_told_apart(void) {
    struct still s;
    open_with(&s, 2000, 0, 1);
    still_submit(&s);
    rounds(&s, 1, 500);
    CHECK_EQUAL(worker_stats(&s, 1).placed, 1);
    CHECK_EQUAL(worker_stats(&s, 1).begun, 0);
    rb_lab_start(s.workers[0], 1);
    rb_lab_beat(s.workers[0], 0);
    rounds(&s, 1, 500);
    CHECK_EQUAL(worker_stats(&s, 1).begun, 1);
    still_answer(&s, 0, RB_STATUS_OK);
    CHECK_EQUAL(worker_stats(&s, 1).placed, 1);
    still_close(&s);
}

static void who_called_is_told_the_rule(void) {
    struct still s;
    open_with(&s, 1000, 0, 1);
    still_submit(&s);
    rb_lab_start(s.workers[0], 1);
    rounds(&s, 4, 250);
    CHECK(TOLD(&s, "\x68\x02\x77\x0cworker_broke\x77\x0cno_heartbeat"));
    still_close(&s);
}

static void a_worker_that_beats_is_left_alone_however_long_its_job_is(void) {
    struct still s;
    open_with(&s, 2000, 0, 1);
    still_submit(&s);
    rb_lab_start(s.workers[0], 1);
    for (int i = 0; i < 90; i++) { /* of 60 s, its deadline */
        rb_lab_beat(s.workers[0], 0);
        still_round(&s, 500);
    }
    CHECK(!is_told(&s, "no_heartbeat"));
    still_answer(&s, 0, RB_STATUS_OK);
    CHECK(TOLD_OK(&s));
    still_close(&s);
}

static void what_the_relay_missed_itself_is_worth_one_look(void) {
    struct still s;
    open_with(&s, 2000, 0, 1);
    rounds(&s, 2, 500);
    still_round(&s, 3600 * 1000); /* it stood still, or the whole machine did */
    CHECK(!is_told(&s, "no_heartbeat"));
    CHECK_EQUAL(worker_stats(&s, 1).silent_ns, 1500 * MS);
    rb_lab_beat(s.workers[0], 0);
    rounds(&s, 1, 500);
    CHECK_EQUAL(worker_stats(&s, 1).silent_ns, 0);
    still_close(&s);
}

/* The relay last looked long ago, as there was nobody to be judged: that is not the worker's silence. */
static void silence_is_counted_from_the_greeting_on(void) {
    struct still s;
    open_with(&s, 1000, 0, 0);
    rounds(&s, 1, 400);
    still_hire(&s, 0);
    CHECK_EQUAL(worker_stats(&s, 1).silent_ns, 0);
    rounds(&s, 3, 250);
    CHECK(!is_told(&s, "no_heartbeat"));
    CHECK_EQUAL(worker_stats(&s, 1).silent_ns, 750 * MS);
    rounds(&s, 1, 250);
    CHECK(is_told(&s, "no_heartbeat"));
    still_close(&s);
}

static void the_relay_sleeps_no_longer_than_until_the_next_look(void) {
    struct still s;
    open_with(&s, 2000, 0, 1);
    CHECK_EQUAL(rb_lab_due(s.lab.relay), s.now + 500 * MS);
    still_close(&s);
    open_with(&s, 0, 0, 1);
    still_round(&s, 0);
    CHECK_EQUAL(rb_lab_due(s.lab.relay), 0);
    still_close(&s);
}

static void a_role_without_these_times_ends_nobody(void) {
    struct still s;
    open_with(&s, 0, 0, 1);
    still_submit(&s);
    rb_lab_start(s.workers[0], 1);
    rounds(&s, 40, 500);
    CHECK(!is_told(&s, "no_heartbeat"));
    still_close(&s);
}

static void a_job_without_a_sign_is_answered_and_one_that_pulses_is_not(void) {
    struct still s;
    open_with(&s, 0, 1000, 2);
    still_submit(&s);
    still_submit(&s);
    rb_lab_start(s.workers[0], 1);
    rb_lab_start(s.workers[1], 1);
    for (int i = 0; i < 5; i++) {
        rb_lab_pulse(s.workers[1]);
        rb_lab_beat(s.workers[0], 0);
        still_round(&s, 250);
    }
    CHECK(TOLD(&s, "\x77\x0cworker_broke\x77\x0bno_progress"));
    CHECK(is_told(&s, "no_progress"));
    CHECK_EQUAL(still_role(&s).workers_ready, 1);
    still_answer(&s, 1, RB_STATUS_OK);
    CHECK(TOLD_OK(&s));
    still_close(&s);
}

static void who_has_no_jobs_is_not_stuck_nor_is_who_rang_no_bell(void) {
    struct still s;
    open_with(&s, 0, 1000, 1);
    rounds(&s, 20, 250);
    still_submit(&s);
    still_round(&s, 5); /* it is left to its bell */
    struct rb_lab_request r;
    CHECK_EQUAL(rb_lab_request(s.workers[0], 0, &r), 0);
    rb_lab_start(s.workers[0], 1);
    struct rb_lab_answer a = {
        .job = r.job, .payload = (const uint8_t *)"y", .payload_bytes = 1, .silent = 1};
    CHECK_EQUAL(rb_lab_complete(s.workers[0], &a), 0);
    rb_lab_release(s.workers[0], 1);
    rounds(&s, 8, 250);
    CHECK(!is_told(&s, "no_progress"));
    CHECK(TOLD_OK(&s));
    still_close(&s);
}

static void a_worker_that_is_not_ready_gets_nothing_new_and_keeps_what_it_has(void) {
    struct still s;
    open_with(&s, 0, 0, 2);
    still_submit(&s);
    CHECK(still_has_job(&s, 0));
    rb_lab_beat(s.workers[0], 1);
    rb_link_knock(rb_lab_link(s.workers[0])); /* at once */
    still_round(&s, 0);
    CHECK_EQUAL(worker_stats(&s, 1).unready, 1);
    CHECK_EQUAL(worker_stats(&s, 1).share, 0);
    still_answer(&s, 0, RB_STATUS_OK);
    CHECK(TOLD_OK(&s));
    for (int i = 0; i < 3; i++) {
        still_submit(&s);
        CHECK(!still_has_job(&s, 0));
        still_answer(&s, 1, RB_STATUS_OK);
        CHECK(TOLD_OK(&s));
    }
    rb_lab_beat(s.workers[0], 0); /* and without a knock, at the next look */
    rounds(&s, 1, 500);
    still_submit(&s);
    still_submit(&s);
    CHECK(still_has_job(&s, 0));
    CHECK(still_has_job(&s, 1));
    still_close(&s);
}

static void one_that_was_never_ready_is_waited_for(void) {
    struct still s;
    open_with(&s, 2000, 0, 0);
    if (rb_lab_hire(s.lab.relay, 0, ++s.ids, 16, &s.workers[0]) < 0) abort();
    rb_lab_beat(s.workers[0], 1); /* before it greets */
    rb_lab_greet(s.workers[0], "echo");
    still_round(&s, 0);
    still_submit(&s);
    CHECK(!still_has_job(&s, 0));
    CHECK(still_quiet(&s));
    rb_lab_beat(s.workers[0], 0);
    rb_link_knock(rb_lab_link(s.workers[0]));
    still_round(&s, 0);
    still_round(&s, 0);
    CHECK(still_has_job(&s, 0));
    still_answer(&s, 0, RB_STATUS_OK);
    CHECK(TOLD_OK(&s));
    still_close(&s);
}

static void one_that_drains_and_has_nothing_left_may_be_silent(void) {
    struct still s;
    open_with(&s, 1000, 0, 1);
    rb_relay_drain_worker(s.lab.relay, 1);
    rounds(&s, 40, 250);
    CHECK(!is_told(&s, "no_heartbeat"));
    still_close(&s);
}

static void one_that_drains_with_a_job_may_not(void) {
    struct still s;
    open_with(&s, 1000, 0, 1);
    still_submit(&s);
    rb_lab_start(s.workers[0], 1);
    rb_relay_drain_worker(s.lab.relay, 1);
    rounds(&s, 5, 250);
    CHECK(is_told(&s, "no_heartbeat"));
    CHECK(TOLD(&s, "no_heartbeat"));
    still_close(&s);
}

static void other_times_hold_from_the_next_round_on(void) {
    struct still s;
    open_with(&s, 0, 0, 1);
    rounds(&s, 10, 500);
    struct rb_role_config role = lab_role_config();
    role.health.hang_ms = 1000;
    CHECK_EQUAL(rb_relay_configure_role(s.lab.relay, 0, &role), 0);
    rounds(&s, 1, 0);
    CHECK(is_told(&s, "no_heartbeat"));
    still_close(&s);
}

int main(void) {
    RUN(silence_is_what_passes_without_a_heartbeat);
    RUN(a_block_that_is_torn_is_no_heartbeat_and_is_not_read);
    RUN(each_sign_of_a_job_starts_the_time_anew_and_heartbeats_do_not);
    RUN(who_has_no_jobs_does_not_stand_still);
    RUN(a_time_is_kept_within_a_quarter_of_it);
    RUN(an_idle_worker_without_a_heartbeat_is_ended);
    RUN(a_job_that_has_begun_is_answered_and_one_that_has_not_runs_elsewhere);
    RUN(jobs_in_a_ring_and_jobs_begun_are_told_apart);
    RUN(who_called_is_told_the_rule);
    RUN(a_worker_that_beats_is_left_alone_however_long_its_job_is);
    RUN(what_the_relay_missed_itself_is_worth_one_look);
    RUN(silence_is_counted_from_the_greeting_on);
    RUN(the_relay_sleeps_no_longer_than_until_the_next_look);
    RUN(a_role_without_these_times_ends_nobody);
    RUN(a_job_without_a_sign_is_answered_and_one_that_pulses_is_not);
    RUN(who_has_no_jobs_is_not_stuck_nor_is_who_rang_no_bell);
    RUN(a_worker_that_is_not_ready_gets_nothing_new_and_keeps_what_it_has);
    RUN(one_that_was_never_ready_is_waited_for);
    RUN(one_that_drains_and_has_nothing_left_may_be_silent);
    RUN(one_that_drains_with_a_job_may_not);
    RUN(other_times_hold_from_the_next_round_on);
    return check_end();
}
