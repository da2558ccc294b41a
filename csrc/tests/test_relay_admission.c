/* Which jobs are taken in, which wait, which are refused: in a relay that stands still between two steps. The books are held together at
 * the end of each test (lab_close). */
#define _GNU_SOURCE
#include "admission_lab.h"
#include "relay/dispatch/account.h"

/* --- Depth ---------------------------------------------------------------------------------------- */

static void a_full_role_refuses_by_its_depth(void) {
    struct still s;
    struct rb_role_config role = plain_role();
    still_open(&s, &role, 1);
    for (int i = 0; i < 1 + LAB_DEPTH; i++) still_submit(&s);
    CHECK(still_quiet(&s));
    still_submit(&s);
    CHECK(TOLD(&s, "overloaded"));
    CHECK_EQUAL(by_rule(&s, RB_RULE_ROLE_DEPTH), 1);
    serve_one(&s);
    still_submit(&s);
    CHECK(still_quiet(&s));
    still_close(&s);
}

static void one_node_may_not_fill_a_role_that_bounds_each(void) {
    struct still s;
    struct rb_role_config role = plain_role();
    role.admission.depth_max = 100;
    role.admission.node_depth_max = 2;
    still_open(&s, &role, 1);
    for (int i = 0; i < 4; i++) still_submit(&s); /* one runs, two wait */
    CHECK(TOLD(&s, "overloaded"));
    CHECK_EQUAL(by_rule(&s, RB_RULE_NODE_DEPTH), 1);
    serve_one(&s);
    still_submit(&s);
    CHECK(still_quiet(&s));
    lab_monitor(s.lab.peer, 0, s.callers, s.callers); /* who leaves makes room */
    still_round(&s, 0);
    still_submit(&s);
    CHECK(still_quiet(&s));
    CHECK_EQUAL(still_role(&s).queued, 2);
    still_close(&s);
}

static void a_tenant_may_not_fill_what_others_need(void) {
    struct still s;
    struct rb_role_config role = plain_role();
    role.admission.depth_max = 100;
    role.admission.tenant_depth_max = 2;
    still_open(&s, &role, 1);
    for (int i = 0; i < 3; i++) FOR_A(&s);
    FOR_A(&s);
    CHECK(TOLD(&s, "overloaded"));
    for (int i = 0; i < 2; i++) FOR_B(&s);
    CHECK(still_quiet(&s));
    FOR_B(&s);
    CHECK(TOLD(&s, "overloaded"));
    for (int i = 0; i < 10; i++) still_submit(&s); /* who names none is nobody's tenant */
    CHECK(still_quiet(&s));
    CHECK_EQUAL(by_rule(&s, RB_RULE_TENANT_DEPTH), 2);
    still_close(&s);
}

static void an_allowance_bounds_a_tenant_over_all_roles_and_by_name(void) {
    struct still s;
    struct rb_role_config role = plain_role();
    struct rb_allowance_config one = {.depth_max = 1}, three = {.depth_max = 3};
    role.admission.depth_max = 100;
    still_open(&s, &role, 1);
    rb_relay_configure_allowance(s.lab.relay, RB_ACCOUNT_TENANT, "", &one);
    rb_relay_configure_allowance(s.lab.relay, RB_ACCOUNT_TENANT, "b", &three);
    CHECK_EQUAL(rb_relay_configure_allowance(s.lab.relay, 2, "b", &three), -EINVAL);
    still_submit(&s); /* runs */
    for (int i = 0; i < 2; i++) FOR_A(&s);
    CHECK(TOLD(&s, "overloaded"));
    for (int i = 0; i < 4; i++) FOR_B(&s);
    CHECK(TOLD(&s, "overloaded"));
    CHECK(still_quiet(&s));
    rb_relay_configure_allowance(s.lab.relay, RB_ACCOUNT_TENANT, "b", NULL);
    rb_relay_configure_allowance(s.lab.relay, RB_ACCOUNT_TENANT, "", NULL);
    for (int i = 0; i < 4; i++) FOR_A(&s);
    CHECK(still_quiet(&s));
    still_close(&s);
}

/* --- What a full role does ------------------------------------------------------------------------- */

static void drop_oldest_gives_the_oldest_up_for_the_newest(void) {
    struct still s;
    struct rb_role_config role = plain_role();
    role.admission.on_full = RB_ADMISSION_DROP_OLDEST;
    still_open(&s, &role, 1);
    for (int i = 0; i < 1 + LAB_DEPTH; i++) still_submit(&s);
    CHECK(still_quiet(&s));
    still_submit(&s);
    static uint8_t body[512];
    int n = lab_read(s.lab.peer, body, sizeof body, 0);
    struct lab_bytes second = {.size = 0}; /* the first runs; the second waits for longest */
    lab_put_ref(&second, 2);
    CHECK(n > 0 && memmem(body, (size_t)n, "overloaded", 10));
    CHECK(n > 0 && memmem(body, (size_t)n, second.at, second.size));
    CHECK_EQUAL(still_stats(&s).answered[RB_REASON_OVERLOADED], 1);
    CHECK_EQUAL(still_stats(&s).refused[RB_REASON_OVERLOADED], 0);
    CHECK_EQUAL(by_rule(&s, RB_RULE_DROPPED), 1);
    CHECK_EQUAL(still_role(&s).queued, LAB_DEPTH);
    still_close(&s);
}

static void nothing_better_is_dropped_for_something_worse(void) {
    struct still s;
    struct rb_role_config role = plain_role();
    role.admission.on_full = RB_ADMISSION_DROP_OLDEST;
    role.order.aging_ms = 0;
    still_open(&s, &role, 1);
    for (int i = 0; i < 1 + LAB_DEPTH; i++) SUBMIT_WITH(&s, "\x77\x08priority\x77\x04high");
    still_submit(&s); /* normal */
    CHECK(TOLD(&s, "overloaded"));
    CHECK_EQUAL(still_stats(&s).refused[RB_REASON_OVERLOADED], 1);
    SUBMIT_WITH(&s, "\x77\x08priority\x77\x08"
                    "critical");
    CHECK(TOLD(&s, "overloaded"));
    CHECK_EQUAL(still_stats(&s).answered[RB_REASON_OVERLOADED], 1);
    still_close(&s);
}

/* A queue that is full is no way past a rate, or past what one node may have in it. */
static void dropping_makes_room_for_no_other_rule(void) {
    for (int node = 0; node < 2; node++) {
        struct still s;
        struct rb_role_config role = plain_role();
        role.admission.on_full = RB_ADMISSION_DROP_OLDEST;
        if (node)
            role.admission.node_depth_max = LAB_DEPTH;
        else
            role.admission.rate = rate_of(RB_RATE_TOKEN_BUCKET, 1, 1000, 1 + LAB_DEPTH);
        still_open(&s, &role, 1);
        for (int i = 0; i < 1 + LAB_DEPTH; i++) still_submit(&s);
        CHECK(still_quiet(&s));
        still_submit(&s);
        CHECK(TOLD(&s, "overloaded"));
        CHECK_EQUAL(still_stats(&s).refused[RB_REASON_OVERLOADED], 1);
        CHECK_EQUAL(by_rule(&s, RB_RULE_DROPPED), 0);
        CHECK_EQUAL(by_rule(&s, node ? RB_RULE_NODE_DEPTH : RB_RULE_ROLE_RATE), 1);
        still_close(&s);
    }
}

static void defer_keeps_what_is_too_much_and_lets_it_in_by_and_by(void) {
    struct still s;
    struct rb_role_config role = deferring_role(3, 1000);
    still_open(&s, &role, 1);
    for (int i = 0; i < 1 + LAB_DEPTH + 3; i++) still_submit(&s);
    CHECK(still_quiet(&s));
    CHECK_EQUAL(still_stats(&s).accepted, 1 + LAB_DEPTH + 3);
    CHECK_EQUAL(still_role(&s).queued, LAB_DEPTH);
    CHECK_EQUAL(still_role(&s).deferred, 3);
    still_submit(&s); /* one more than may be kept */
    CHECK(TOLD(&s, "overloaded"));
    CHECK_EQUAL(by_rule(&s, RB_RULE_ROLE_DEPTH), 1);
    for (int i = 0; i < 1 + LAB_DEPTH + 3; i++) { /* in the order in which they came */
        struct rb_lab_request r;
        CHECK_EQUAL(rb_lab_request(s.workers[0], 0, &r), 0);
        static uint64_t before;
        CHECK(i == 0 || r.job > before);
        before = r.job;
        serve_one(&s);
    }
    CHECK_EQUAL(still_role(&s).deferred, 0);
    CHECK(still_quiet(&s));
    still_close(&s);
}

static void a_deferred_job_is_told_when_its_time_is_over(void) {
    struct still s;
    struct rb_role_config role = deferring_role(3, 50);
    still_open(&s, &role, 1);
    for (int i = 0; i < 1 + LAB_DEPTH + 1; i++) still_submit(&s);
    still_round(&s, 49);
    CHECK(still_quiet(&s));
    still_round(&s, 1);
    CHECK(TOLD(&s, "overloaded"));
    CHECK_EQUAL(by_rule(&s, RB_RULE_DEFERRED), 1);
    CHECK_EQUAL(still_stats(&s).answered[RB_REASON_OVERLOADED], 1);
    CHECK_EQUAL(still_role(&s).deferred, 0);
    still_close(&s);
}

static void a_deferred_job_has_a_deadline_and_can_be_cancelled(void) {
    struct still s;
    struct rb_role_config role = deferring_role(3, 1000);
    still_open(&s, &role, 1);
    for (int i = 0; i < 1 + LAB_DEPTH; i++) still_submit(&s);
    SUBMIT_WITH(&s, "\x77\x07timeout\x61\x14"); /* 20 ms */
    uint32_t leaver = still_submit(&s), staying = still_submit(&s);
    CHECK_EQUAL(still_role(&s).deferred, 3);
    lab_monitor(s.lab.peer, 0, leaver, leaver);
    still_round(&s, 0);
    CHECK_EQUAL(still_role(&s).deferred, 2);
    CHECK_EQUAL(still_stats(&s).answered[RB_REASON_CANCELLED], 1);
    still_round(&s, 20);
    CHECK(TOLD(&s, "deadline_exceeded"));
    CHECK_EQUAL(still_role(&s).deferred, 1);
    for (int i = 0; i < 1 + LAB_DEPTH + 1; i++) serve_one(&s);
    CHECK_EQUAL(staying, s.callers);
    CHECK_EQUAL(still_stats(&s).in_flight, 0);
    still_close(&s);
}

static void a_role_that_gives_up_tells_the_deferred_too(void) {
    struct still s;
    struct rb_role_config role = deferring_role(3, 1000);
    still_open(&s, &role, 0);
    for (int i = 0; i < LAB_DEPTH + 3; i++) still_submit(&s);
    rb_relay_set_role_state(s.lab.relay, 0, RB_ROLE_GIVEN_UP);
    still_round(&s, 0);
    for (int i = 0; i < LAB_DEPTH + 3; i++) CHECK(TOLD(&s, "no_worker"));
    CHECK_EQUAL(still_stats(&s).in_flight, 0);
    still_close(&s);
}

static void a_node_that_goes_takes_its_deferred_jobs_along(void) {
    struct still s;
    struct rb_role_config role = deferring_role(8, 1000);
    role.admission.rate = rate_of(RB_RATE_TOKEN_BUCKET, 1, 1000, 1);
    role.admission.node_depth_max = 2;
    still_open(&s, &role, 1);
    int other = lab_connect(&s.lab);
    still_round(&s, 0);
    for (uint32_t i = 1; i <= 5; i++) lab_submit(other, 1000 + i, "x", 1);
    still_round(&s, 0);
    CHECK(still_role(&s).deferred > 0);
    close(other);
    still_round(&s, 0);
    still_round(&s, 0);
    CHECK_EQUAL(still_role(&s).deferred, 0);
    CHECK_EQUAL(still_role(&s).queued, 0);
    still_close(&s);
}

/* --- Large payloads ------------------------------------------------------------------------------------ */

static void a_large_payload_that_never_comes_takes_nothing(void) {
    struct still s;
    struct rb_role_config role = plain_role();
    role.admission.rate = rate_of(RB_RATE_TOKEN_BUCKET, 1, 60000, 1);
    still_open(&s, &role, 1);
    int other = lab_connect(&s.lab);
    still_round(&s, 0);
    struct lab_bytes b = {.size = 0};
    lab_call_head(&b, 900, 900);
    lab_submit_head(&b, 3, "echo");
    PUT(&b, "\x6d");
    lab_put_u32(&b, 500000);
    uint8_t head[7] = {0, 0, 0, 0, 131, 68, 0};
    rb_put_be32(head, (uint32_t)b.size + 3 + 500000);
    lab_write(other, head, sizeof head);
    lab_write(other, b.at, b.size);
    lab_write(other, "begun", 5);
    still_round(&s, 0);
    close(other);
    still_round(&s, 0);
    still_submit(&s); /* the token is there, and so is the room */
    CHECK(still_has_job(&s, 0));
    serve_one(&s);
    still_close(&s);
}

/* Its band is known at its end alone: until then it may be one for which another is dropped. */
static void a_large_payload_drops_the_oldest_too(void) {
    struct still s;
    struct rb_role_config role = plain_role();
    static uint8_t zeros[100000];
    role.admission.on_full = RB_ADMISSION_DROP_OLDEST;
    still_open(&s, &role, 0);
    for (int i = 0; i < LAB_DEPTH; i++) still_submit(&s);
    for (int low = 1; low >= 0; low--) {
        struct lab_bytes b = {.size = 0}, options = {.size = 0};
        lab_call_head(&b, 900, 900);
        lab_submit_head(&b, 4, "echo");
        PUT(&b, "\x6d");
        lab_put_u32(&b, sizeof zeros);
        PUT(&options, "\x74\x00\x00\x00\x01\x77\x08priority");
        lab_put_atom(&options, low ? "low" : "normal");
        uint8_t head[7] = {0, 0, 0, 0, 131, 68, 0};
        rb_put_be32(head, (uint32_t)(b.size + 3 + sizeof zeros + options.size));
        lab_write(s.lab.peer, head, sizeof head);
        lab_write(s.lab.peer, b.at, b.size);
        lab_write(s.lab.peer, zeros, 1000);
        still_round(&s, 0);
        lab_write(s.lab.peer, zeros, sizeof zeros - 1000);
        lab_write(s.lab.peer, options.at, options.size);
        still_round(&s, 0);
        CHECK_EQUAL(by_rule(&s, RB_RULE_DROPPED), !low);
        CHECK_EQUAL(still_stats(&s).refused[RB_REASON_OVERLOADED], 1);
    }
    CHECK_EQUAL(still_role(&s).queued, LAB_DEPTH);
    still_close(&s);
}

/* --- Everything at once -------------------------------------------------------------------------------- */

/* Random callers of two nodes and three tenants, who leave, time out and are served, under a random policy that changes on the way. The
 * books decide (lab_close), and at the end nothing is left in any of them. */
static void mixtures_keep_the_books_even(void) {
    uint64_t seed = 0x9e3779b97f4a7c15;
    static uint8_t body[4096];
    for (int run = 0; run < 40; run++) {
        struct still s;
        struct rb_role_config role = plain_role();
        role.order = (struct rb_order_config){.aging_ms = 50, .patience_ms = 100};
        still_open(&s, &role, 2);
        int peers[2] = {s.lab.peer, lab_connect(&s.lab)};
        still_round(&s, 0);
        for (int step = 0; step < 400; step++) {
            uint64_t x = check_random(&seed);
            if (x % 60 == 0) {
                struct rb_admission_config *c = &role.admission;
                c->depth_max = 1 + (uint32_t)(x >> 8) % 6;
                c->node_depth_max = (uint32_t)(x >> 16) % 4;
                c->tenant_depth_max = (uint32_t)(x >> 20) % 4;
                c->on_full = (uint32_t)(x >> 24) % 3;
                c->defer_max = 1 + (uint32_t)(x >> 28) % 5;
                c->defer_ms = 1 + (uint32_t)(x >> 32) % 40;
                c->rate = rate_of((uint32_t)(x >> 40) % 4, 1 + (uint32_t)(x >> 44) % 50, 100,
                                  1 + (uint32_t)(x >> 50) % 4);
                c->adaptive = (struct rb_adaptive_config){.limit_max = (uint32_t)(x >> 54) % 2 * 8,
                                                          .limit_min = 1,
                                                          .window_ms = 10,
                                                          .tolerance_percent = 150,
                                                          .headroom = 1};
                CHECK_EQUAL(rb_relay_configure_role(s.lab.relay, 0, &role), 0);
                struct rb_allowance_config a = {
                    (uint32_t)(x >> 12) % 3,
                    rate_of((uint32_t)(x >> 14) % 4, 5, 100, 1 + (uint32_t)(x >> 18) % 3)};
                rb_relay_configure_allowance(s.lab.relay, (uint32_t)(x >> 22) % 2,
                                             x >> 23 & 1 ? "a" : "", x >> 26 & 1 ? &a : NULL);
            }
            int fd = peers[x >> 30 & 1];
            switch (x % 7) {
            case 0: submit_with(&s, fd, TENANT_A, sizeof TENANT_A - 1, 1); break;
            case 1: submit_with(&s, fd, TENANT_B, sizeof TENANT_B - 1, 1); break;
            case 2: submit_with(&s, fd, "\x77\x07timeout\x61\x0a", 11, 1); break;
            case 3:
                if (s.callers) {
                    uint32_t who = 1 + (uint32_t)(x >> 33) % s.callers;
                    lab_monitor(fd, 0, who, who);
                }
                break;
            case 4:
            case 5:
                if (still_has_job(&s, x >> 35 & 1))
                    still_answer(&s, x >> 35 & 1, x >> 36 & 1 ? RB_STATUS_OK : RB_STATUS_FAILED);
                break;
            default: still_round(&s, x >> 37 & 15); break;
            }
            for (int i = 0; i < 2; i++)
                while (lab_read(peers[i], body, sizeof body, 0) > 0) continue;
        }
        struct rb_relay_stats stats = still_stats(&s);
        uint64_t sum = stats.in_flight;
        for (int i = 0; i < RB_REASONS; i++) sum += stats.answered[i];
        CHECK_EQUAL(sum, stats.accepted);
        CHECK(stats.accepted > 20);
        close(peers[1]);
        still_close(&s);
    }
}

static void numbers_out_of_range_are_refused_and_change_nothing(void) {
    struct still s;
    struct rb_role_config role = plain_role();
    still_open(&s, &role, 1);
    role.admission.rate = rate_of(RB_RATE_TOKEN_BUCKET, 0, 1, 1);
    CHECK_EQUAL(rb_relay_configure_role(s.lab.relay, 0, &role), -EINVAL);
    role = plain_role();
    role.admission.on_full = RB_ADMISSION_DEFER; /* nowhere to, for no time */
    CHECK_EQUAL(rb_relay_configure_role(s.lab.relay, 0, &role), -EINVAL);
    role = plain_role();
    role.breaker.failure_percent = 101;
    CHECK_EQUAL(rb_relay_configure_role(s.lab.relay, 0, &role), -EINVAL);
    struct rb_allowance_config bad = {.rate = {RB_RATE_SLIDING_WINDOW, 1, 0, 1}};
    CHECK_EQUAL(rb_relay_configure_allowance(s.lab.relay, RB_ACCOUNT_NODE, "", &bad), -EINVAL);
    for (int i = 0; i < 1 + LAB_DEPTH; i++) still_submit(&s);
    CHECK(still_quiet(&s));
    still_close(&s);
}

/* --- The table of accounts ------------------------------------------------------------------------------- */

static void made_up_names_take_the_places_of_the_longest_quiet(void) {
    static struct rb_accounts t;
    t.accounts_max = 3;
    struct rb_account *kept = rb_account_hold(&t, RB_ACCOUNT_TENANT, slice_of("kept"));
    for (int i = 0; i < 100; i++) {
        char name[32];
        snprintf(name, sizeof name, "made up %d", i);
        struct rb_account *a = rb_account_hold(&t, RB_ACCOUNT_TENANT, slice_of(name));
        CHECK(a != NULL);
        rb_account_release(&t, a);
        CHECK(t.count <= 3);
    }
    CHECK(rb_account_find(&t, RB_ACCOUNT_TENANT, slice_of("made up 99")) != NULL);
    CHECK(rb_account_find(&t, RB_ACCOUNT_TENANT, slice_of("made up 98")) != NULL);
    CHECK(rb_account_find(&t, RB_ACCOUNT_TENANT, slice_of("made up 97")) == NULL);
    CHECK(rb_account_find(&t, RB_ACCOUNT_TENANT, slice_of("kept")) == kept);
    CHECK(rb_account_find(&t, RB_ACCOUNT_NODE, slice_of("kept")) == NULL);
    struct rb_account *x = rb_account_hold(&t, RB_ACCOUNT_NODE, slice_of("x")),
                      *y = rb_account_hold(&t, RB_ACCOUNT_NODE, slice_of("y"));
    CHECK(x && y);
    CHECK(rb_account_hold(&t, RB_ACCOUNT_NODE, slice_of("z")) == NULL); /* all are held */
    rb_account_release(&t, x);
    struct rb_allowance_config own = {.depth_max = 1};
    CHECK_EQUAL(rb_accounts_configure(&t, RB_ACCOUNT_NODE, slice_of("x"), &own, 0), 0);
    CHECK(rb_account_hold(&t, RB_ACCOUNT_NODE, slice_of("z")) == NULL); /* a configured one stays */
    CHECK_EQUAL(t.limiting[RB_ACCOUNT_NODE], 1);
    CHECK_EQUAL(rb_accounts_configure(&t, RB_ACCOUNT_NODE, slice_of("x"), NULL, 0), 0);
    CHECK_EQUAL(t.limiting[RB_ACCOUNT_NODE], 0);
    CHECK(rb_account_hold(&t, RB_ACCOUNT_NODE, slice_of("z")) != NULL);
    rb_accounts_fini(&t);
}

int main(void) {
    RUN(a_full_role_refuses_by_its_depth);
    RUN(one_node_may_not_fill_a_role_that_bounds_each);
    RUN(a_tenant_may_not_fill_what_others_need);
    RUN(an_allowance_bounds_a_tenant_over_all_roles_and_by_name);
    RUN(drop_oldest_gives_the_oldest_up_for_the_newest);
    RUN(nothing_better_is_dropped_for_something_worse);
    RUN(dropping_makes_room_for_no_other_rule);
    RUN(defer_keeps_what_is_too_much_and_lets_it_in_by_and_by);
    RUN(a_deferred_job_is_told_when_its_time_is_over);
    RUN(a_deferred_job_has_a_deadline_and_can_be_cancelled);
    RUN(a_role_that_gives_up_tells_the_deferred_too);
    RUN(a_node_that_goes_takes_its_deferred_jobs_along);
    RUN(a_large_payload_that_never_comes_takes_nothing);
    RUN(a_large_payload_drops_the_oldest_too);
    RUN(mixtures_keep_the_books_even);
    RUN(numbers_out_of_range_are_refused_and_change_nothing);
    RUN(made_up_names_take_the_places_of_the_longest_quiet);
    return check_end();
}
