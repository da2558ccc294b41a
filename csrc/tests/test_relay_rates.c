/* How many jobs may begin in a time, how many may be in flight, and when a refusal says to come back. */
#define _GNU_SOURCE
#include "admission_lab.h"

/* --- Rates ----------------------------------------------------------------------------------------- */

static void a_token_bucket_of_a_role_says_when_the_next_token_comes(void) {
    struct still s;
    struct rb_role_config role = plain_role();
    role.admission.depth_max = 100;
    role.admission.rate = rate_of(RB_RATE_TOKEN_BUCKET, 10, 1000, 3);
    still_open(&s, &role, 1);
    for (int i = 0; i < 3; i++) still_submit(&s);
    CHECK(still_quiet(&s));
    still_submit(&s);
    CHECK(TOLD(&s, "retry_after_ms\x61\x64")); /* 100 */
    CHECK_EQUAL(by_rule(&s, RB_RULE_ROLE_RATE), 1);
    still_round(&s, 100);
    still_submit(&s);
    CHECK(still_quiet(&s));
    still_close(&s);
}

static void a_deferred_job_that_found_no_room_is_told_when_its_rate_has_some(void) {
    struct still s;
    struct rb_role_config role = deferring_role(10, 50);
    role.admission.rate = rate_of(RB_RATE_SLIDING_WINDOW, 1, 1000, 1);
    still_open(&s, &role, 1);
    still_submit(&s);
    still_submit(&s); /* deferred */
    still_round(&s, 50);
    uint64_t ms = told_retry_ms(&s);
    CHECK(ms >= 950 && ms <= 950 + 1000 / 16 + 1); /* a window counts in sixteenths */
    CHECK_EQUAL(by_rule(&s, RB_RULE_DEFERRED), 1);
    still_close(&s);
}

static void before_any_job_was_done_a_full_role_says_a_second_for_the_unknown(void) {
    struct still s;
    struct rb_role_config role = plain_role();
    role.admission.depth_max = 1;
    still_open(&s, &role, 1);
    for (int i = 0; i < 3; i++) still_submit(&s); /* one runs, one waits, one is refused */
    CHECK_EQUAL(told_retry_ms(&s), 1000);
    still_close(&s);
}

static void a_job_that_is_refused_takes_no_token_of_anybody(void) {
    struct still s;
    struct rb_role_config role = plain_role();
    struct rb_allowance_config node = {.rate = rate_of(RB_RATE_TOKEN_BUCKET, 1, 60000, 2)};
    role.admission.depth_max = 100;
    role.admission.rate = rate_of(RB_RATE_TOKEN_BUCKET, 1, 100, 1);
    still_open(&s, &role, 1);
    rb_relay_configure_allowance(s.lab.relay, RB_ACCOUNT_NODE, "", &node);
    still_submit(&s);
    for (int i = 0; i < 20; i++) {
        still_submit(&s);
        CHECK(TOLD(&s, "overloaded"));
    }
    CHECK_EQUAL(by_rule(&s, RB_RULE_ROLE_RATE), 20);
    still_round(&s, 100);
    still_submit(&s); /* the node's second token is still there */
    CHECK(still_quiet(&s));
    still_round(&s, 100);
    still_submit(&s);
    CHECK(TOLD(&s, "overloaded"));
    CHECK_EQUAL(by_rule(&s, RB_RULE_NODE_RATE), 1);
    still_close(&s);
}

static void a_bucket_is_not_full_again_because_its_owner_was_away(void) {
    struct still s;
    struct rb_role_config role = plain_role();
    struct rb_allowance_config each = {.rate = rate_of(RB_RATE_TOKEN_BUCKET, 1, 1000, 1)};
    still_open(&s, &role, 1);
    rb_relay_configure_allowance(s.lab.relay, RB_ACCOUNT_TENANT, "", &each);
    rb_relay_configure_allowance(s.lab.relay, RB_ACCOUNT_NODE, "", &each);
    FOR_A(&s);
    serve_one(&s); /* nothing of this tenant is held any more */
    close(s.lab.peer);
    still_round(&s, 0);
    s.lab.peer = lab_connect(&s.lab); /* and the node has come anew */
    still_round(&s, 0);
    still_submit(&s);
    CHECK(TOLD(&s, "overloaded"));
    CHECK_EQUAL(by_rule(&s, RB_RULE_NODE_RATE), 1);
    rb_relay_configure_allowance(s.lab.relay, RB_ACCOUNT_NODE, "", NULL);
    FOR_A(&s);
    CHECK(TOLD(&s, "overloaded"));
    CHECK_EQUAL(by_rule(&s, RB_RULE_TENANT_RATE), 1);
    FOR_B(&s);
    CHECK(still_quiet(&s));
    still_close(&s);
}

static void a_leaky_bucket_lets_jobs_go_evenly_and_overflows(void) {
    struct still s;
    struct rb_role_config role = plain_role();
    role.admission.depth_max = 100;
    role.admission.rate = rate_of(RB_RATE_LEAKY_BUCKET, 100, 1000, 4); /* one in 10 ms */
    still_open(&s, &role, 1);
    for (int i = 0; i < 5; i++) still_submit(&s);
    CHECK(still_quiet(&s));
    CHECK_EQUAL(still_role(&s).deferred, 4);
    still_submit(&s);
    CHECK(TOLD(&s, "overloaded"));
    CHECK_EQUAL(by_rule(&s, RB_RULE_ROLE_RATE), 1);
    CHECK(still_has_job(&s, 0));
    serve_one(&s);
    for (int i = 0; i < 4; i++) {
        CHECK_EQUAL(rb_lab_due(s.lab.relay), s.now + 10 * STILL_MS); /* it wakes for it by itself */
        still_round(&s, 9);
        CHECK(!still_has_job(&s, 0));
        still_round(&s, 1);
        CHECK(still_has_job(&s, 0));
        serve_one(&s);
    }
    CHECK_EQUAL(still_stats(&s).in_flight, 0);
    still_close(&s);
}

static void who_comes_later_does_not_overtake_the_deferred(void) {
    struct still s;
    struct rb_role_config role = deferring_role(10, 10000);
    role.admission.depth_max = 100;
    role.admission.rate = rate_of(RB_RATE_SLIDING_WINDOW, 2, 1600, 1);
    still_open(&s, &role, 1);
    for (int i = 0; i < 4; i++) still_submit(&s); /* two are let in, two deferred */
    serve_one(&s);
    serve_one(&s);
    s.now +=
        1800 *
        STILL_MS; /* no round in between: the newcomer is read before the others come forward */
    still_submit(&s);
    uint64_t before = 0;
    for (int i = 0; i < 2; i++) {
        struct rb_lab_request r;
        CHECK_EQUAL(rb_lab_request(s.workers[0], 0, &r), 0);
        CHECK(r.job > before);
        before = r.job;
        serve_one(&s);
    }
    CHECK_EQUAL(still_role(&s).deferred, 1);
    still_close(&s);
}

static void who_breaks_two_rules_waits_for_both(void) {
    struct still s;
    struct rb_role_config role = deferring_role(10, 10000);
    struct rb_allowance_config a = {.rate = rate_of(RB_RATE_TOKEN_BUCKET, 1, 100, 1)};
    role.admission.depth_max = 1;
    still_open(&s, &role, 1);
    rb_relay_configure_allowance(s.lab.relay, RB_ACCOUNT_TENANT, "a", &a);
    FOR_A(&s);        /* runs */
    still_submit(&s); /* waits */
    FOR_A(&s);        /* deferred, by depth; then by rate */
    FOR_B(&s);        /* deferred behind it, by depth alone */
    CHECK_EQUAL(still_role(&s).deferred, 2);
    serve_one(&s);
    CHECK_EQUAL(still_role(&s).queued, 1); /* b's: a has no token, and does not stand in its way */
    serve_one(&s);
    serve_one(&s);
    CHECK(!still_has_job(&s, 0));
    still_round(&s, 100);
    serve_one(&s);
    CHECK_EQUAL(still_stats(&s).in_flight, 0);
    still_close(&s);
}

static void waiting_for_another_rule_is_not_more_time(void) {
    struct still s;
    struct rb_role_config role = deferring_role(10, 50);
    struct rb_allowance_config a = {.rate = rate_of(RB_RATE_TOKEN_BUCKET, 1, 1000, 1)};
    role.admission.depth_max = 1;
    still_open(&s, &role, 1);
    rb_relay_configure_allowance(s.lab.relay, RB_ACCOUNT_TENANT, "a", &a);
    FOR_A(&s);        /* runs */
    still_submit(&s); /* waits */
    FOR_A(&s);        /* deferred, by depth */
    still_round(&s, 40);
    serve_one(&s); /* and from here on by its tenant's rate */
    still_round(&s, 9);
    CHECK_EQUAL(still_role(&s).deferred, 1);
    still_round(&s, 1);
    CHECK(TOLD(&s, "overloaded"));
    CHECK_EQUAL(by_rule(&s, RB_RULE_DEFERRED), 1);
    still_close(&s);
}

/* --- The adaptive limit ------------------------------------------------------------------------------ */

static void a_latency_that_grows_closes_the_door(void) {
    struct still s;
    struct rb_role_config role = plain_role();
    role.admission.depth_max = 1000;
    role.admission.adaptive = (struct rb_adaptive_config){
        .limit_max = 100, .limit_min = 2, .window_ms = 10, .tolerance_percent = 100, .headroom = 1};
    still_open(&s, &role, 1);
    for (int i = 0; i < 200; i++) { /* 1 ms each, alone */
        still_submit(&s);
        still_round(&s, 1);
        serve_one(&s);
    }
    for (int i = 0; i < 60; i++) still_submit(&s); /* no more than it begins with */
    CHECK_EQUAL(still_stats(&s).in_flight, 20);
    CHECK_EQUAL(by_rule(&s, RB_RULE_ADAPTIVE), 40);
    for (int i = 0; i < 40; i++) CHECK(TOLD(&s, "overloaded"));
    static uint8_t body[1024];
    for (int i = 0; i < 400; i++) { /* an open loop of twice what it can do */
        for (int k = 0; k < 2; k++) still_submit(&s);
        still_round(&s, 1);
        if (still_has_job(&s, 0)) still_answer(&s, 0, RB_STATUS_OK);
        while (lab_read(s.lab.peer, body, sizeof body, 0) > 0) continue;
    }
    CHECK(still_role(&s).adaptive_limit < 15);
    CHECK(still_role(&s).adaptive_limit >= 2);
    CHECK(still_stats(&s).in_flight <= still_role(&s).adaptive_limit);
    still_close(&s);
}

/* --- When to come back ------------------------------------------------------------------------------- */

static void a_refusal_names_the_time_that_the_queue_needs(void) {
    struct still s;
    struct rb_role_config role = plain_role();
    static uint8_t body[1024];
    uint64_t ms = 0;
    role.admission.depth_max = 20;
    still_open(&s, &role, 1);
    for (int i = 0; i < 21; i++) still_submit(&s);
    for (int i = 0; i < 100; i++) { /* one in 5 ms goes, two come */
        still_round(&s, 5);
        still_answer(&s, 0, RB_STATUS_OK);
        while (lab_read(s.lab.peer, body, sizeof body, 0) > 0) continue;
        still_submit(&s);
        still_submit(&s);
        ms = told_retry_ms(&s);
    }
    CHECK(ms >= 90 && ms <= 120); /* 21 of 5 ms */
    still_close(&s);
}

static void a_stuck_role_does_not_promise_much(void) {
    struct still s;
    struct rb_role_config role = plain_role();
    uint64_t ms = 0;
    still_open(&s, &role, 0); /* nobody works */
    for (int i = 0; i < LAB_DEPTH; i++) still_submit(&s);
    for (int i = 0; i < 50; i++) {
        still_round(&s, 100);
        still_submit(&s);
        ms = told_retry_ms(&s);
    }
    CHECK(ms >= 900 && ms <= 10000);
    still_close(&s);
}

int main(void) {
    RUN(a_token_bucket_of_a_role_says_when_the_next_token_comes);
    RUN(a_deferred_job_that_found_no_room_is_told_when_its_rate_has_some);
    RUN(before_any_job_was_done_a_full_role_says_a_second_for_the_unknown);
    RUN(a_job_that_is_refused_takes_no_token_of_anybody);
    RUN(a_bucket_is_not_full_again_because_its_owner_was_away);
    RUN(a_leaky_bucket_lets_jobs_go_evenly_and_overflows);
    RUN(who_comes_later_does_not_overtake_the_deferred);
    RUN(who_breaks_two_rules_waits_for_both);
    RUN(waiting_for_another_rule_is_not_more_time);
    RUN(a_latency_that_grows_closes_the_door);
    RUN(a_refusal_names_the_time_that_the_queue_needs);
    RUN(a_stuck_role_does_not_promise_much);
    return check_end();
}
