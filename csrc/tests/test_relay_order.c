/* The order in which a whole relay places what callers ask for: `priority`, `timeout` and `tenant` of their options, the role's and the
 * tenants' settings, and changes of these while jobs wait. One worker with credit for one job; time is what the test says. */
#define _GNU_SOURCE
#include "relay_lab.h"

#define MS 1000000ull

struct still {
    struct lab lab;
    uint64_t now;
    struct rb_role_config role;
    struct rb_lab_worker *worker;
    uint32_t callers;
};

static void next_round(struct still *s, uint64_t ms) {
    rb_lab_round(s->lab.relay, s->now += ms * MS);
}

static void hire(struct still *s, uint64_t id) {
    if (rb_lab_hire(s->lab.relay, 0, id, 16, &s->worker) < 0) abort();
    rb_lab_greet(s->worker, "echo");
}

/* With a job that runs for as long as the test likes: everybody else waits. */
static void ask(struct still *s, char name, const char *band, unsigned timeout_ms,
                const char *tenant);
static void open_still(struct still *s, uint32_t aging_ms, uint32_t patience_ms) {
    struct rb_relay_config config = lab_config();
    *s = (struct still){.now = 1000 * MS, .role = lab_role_config()};
    s->role.admission.depth_max = 100;
    s->role.order = (struct rb_order_config){.aging_ms = aging_ms, .patience_ms = patience_ms};
    lab_open_still(&s->lab, &config, &s->role, s->now);
    hire(s, 1);
    next_round(s, 0);
    ask(s, '!', NULL, 0, NULL);
    CHECK_EQUAL(rb_lab_requests(s->worker), 1);
}

static void close_still(struct still *s) {
    rb_lab_die(s->worker, 0, 0, 0);
    lab_close(&s->lab);
}

static void put_number(struct lab_bytes *b, uint32_t number) {
    PUT(b, "\x62");
    lab_put_u32(b, number);
}

/* {submit, echo, <<Name>>, [{priority, Band}, {timeout, Ms}, {tenant, Tenant}]}, those that are given. */
static void ask(struct still *s, char name, const char *band, unsigned timeout_ms,
                const char *tenant) {
    struct lab_bytes b = {.size = 0};
    uint32_t caller = ++s->callers;
    lab_monitor(s->lab.peer, 1, caller, caller);
    lab_call_head(&b, caller, caller);
    lab_submit_head(&b, 4, "echo");
    lab_put_binary(&b, &name, 1);
    PUT(&b, "\x74");
    lab_put_u32(&b, (band != NULL) + (timeout_ms != 0) + (tenant != NULL));
    if (band) lab_put_atom(&b, "priority"), lab_put_atom(&b, band);
    if (timeout_ms) lab_put_atom(&b, "timeout"), put_number(&b, timeout_ms);
    if (tenant) lab_put_atom(&b, "tenant"), lab_put_atom(&b, tenant);
    lab_frame(s->lab.peer, &b);
    next_round(s, 0);
}

/* The job that runs is answered after a millisecond; who is placed then? 0: nobody. */
static char next(struct still *s) {
    struct rb_lab_request r;
    CHECK_EQUAL(rb_lab_requests(s->worker), 1);
    if (rb_lab_request(s->worker, 0, &r) < 0) return 0;
    struct rb_lab_answer a = {.job = r.job, .run_ns = MS};
    rb_lab_start(s->worker, 1);
    CHECK_EQUAL(rb_lab_complete(s->worker, &a), 0);
    rb_lab_release(s->worker, 1);
    next_round(s, 1);
    if (rb_lab_request(s->worker, 0, &r) < 0) return 0;
    CHECK_EQUAL(r.payload_bytes, 1);
    return (char)r.payload[0];
}

static void run_as(struct still *s, const char *wanted) {
    char got[64] = "";
    for (size_t i = 0; i < strlen(wanted); i++) got[i] = next(s);
    if (strcmp(got, wanted) != 0 && check_breaches++ < 10)
        printf("in %s: they ran as %s, not as %s\n", check_name, got, wanted);
}

static void bands_then_deadlines_then_arrival(void) {
    struct still s;
    open_still(&s, 0, 0);
    ask(&s, 'h', "low", 100, NULL);
    ask(&s, 'e', NULL, 9000, NULL);
    ask(&s, 'f', "normal", 9000, NULL); /* which is what no option means */
    ask(&s, 'd', NULL, 500, NULL);
    ask(&s, 'g', NULL, 0, NULL);
    ask(&s, 'c', "high", 0, NULL);
    ask(&s, 'a', "critical", 800, NULL);
    ask(&s, 'b', "critical", 0, NULL);
    run_as(&s, "abcdefgh");
    CHECK_EQUAL(next(&s), 0);
    close_still(&s);
}

static void what_has_expired_does_not_run(void) {
    struct still s;
    open_still(&s, 0, 0);
    ask(&s, 'x', "critical", 20, NULL);
    ask(&s, 'a', NULL, 0, NULL);
    next_round(&s, 20);
    CHECK(ANSWER_HAS(s.lab.peer, "deadline_exceeded"));
    run_as(&s, "a");
    CHECK_EQUAL(next(&s), 0);
    close_still(&s);
}

static void a_low_job_becomes_critical_by_and_by(void) {
    struct still s;
    open_still(&s, 100, 0);
    ask(&s, 'a', "low", 30000, NULL);
    next_round(&s, 299);
    ask(&s, 'c', "critical", 0, NULL);
    ask(&s, 'b', "critical", 29000, NULL);
    CHECK_EQUAL(next(&s), 'b'); /* for which it is placed in the millisecond that makes 300 */
    run_as(&s, "ac");
    close_still(&s);
}

static void patience_bounds_what_an_earlier_deadline_may_pass(void) {
    struct still s;
    open_still(&s, 0, 100);
    ask(&s, 'b', NULL, 9000, NULL);
    next_round(&s, 50);
    ask(&s, 'a', NULL, 40, NULL); /* due at 90, before 0 + 100 */
    ask(&s, 'c', NULL, 60, NULL); /* due at 110 */
    run_as(&s, "abc");
    close_still(&s);
}

static void tenants_take_turns_by_weight(void) {
    struct still s;
    struct rb_tenant_config heavy = {.weight = 3 * RB_WEIGHT_DEFAULT};
    open_still(&s, 0, 0);
    CHECK_EQUAL(rb_relay_configure_tenant(s.lab.relay, "gold", &heavy), 0);
    for (int i = 0; i < 8; i++) ask(&s, 'n', NULL, 0, NULL);
    for (int i = 0; i < 8; i++) ask(&s, 't', NULL, 0, "tin");
    for (int i = 0; i < 8; i++) ask(&s, 'g', NULL, 0, "gold");
    run_as(&s, "ntgggntgggntgg");
    run_as(&s, "ntntntntnt");
    CHECK_EQUAL(next(&s), 0);
    close_still(&s);
}

static void one_job_of_a_tenant_does_not_wait_for_all_of_another(void) {
    struct still s;
    open_still(&s, 0, 0);
    for (int i = 0; i < 20; i++) ask(&s, 'm', NULL, 0, "many");
    ask(&s, 'o', NULL, 0, "one");
    run_as(&s, "mom");
    close_still(&s);
}

static void other_settings_hold_for_what_waits(void) {
    struct still s;
    struct rb_tenant_config heavy = {.weight = 2 * RB_WEIGHT_DEFAULT};
    open_still(&s, 0, 0);
    ask(&s, 'b', "low", 30000, NULL);
    ask(&s, 'a', NULL, 20000, NULL);
    next_round(&s, 400);
    ask(&s, 'd', "high", 40000, NULL);
    ask(&s, 'c', "high", 0, NULL);
    s.role.order = (struct rb_order_config){.aging_ms = 100, .patience_ms = 10};
    CHECK_EQUAL(rb_relay_configure_role(s.lab.relay, 0, &s.role), 0);
    run_as(&s, "badc"); /* low and normal are critical now, and by arrival; then the high ones */
    for (int i = 0; i < 6; i++) ask(&s, 'g', NULL, 0, "gold");
    for (int i = 0; i < 6; i++) ask(&s, 't', NULL, 0, "tin");
    run_as(&s, "gt");
    CHECK_EQUAL(rb_relay_configure_tenant(s.lab.relay, "gold", &heavy), 0);
    run_as(&s, "gtggtg");
    CHECK_EQUAL(rb_relay_configure_tenant(s.lab.relay, "gold", NULL), 0);
    run_as(&s, "gttt");
    CHECK_EQUAL(rb_relay_configure_tenant(s.lab.relay, "", &heavy), -EINVAL);
    heavy.weight = RB_WEIGHT_MAX + 1;
    CHECK_EQUAL(rb_relay_configure_tenant(s.lab.relay, "gold", &heavy), -EINVAL);
    close_still(&s);
}

static void what_comes_back_unstarted_goes_where_it_was(void) {
    struct still s;
    open_still(&s, 0, 0);
    ask(&s, 'c', NULL, 9000, "tin");
    ask(&s, 'b', NULL, 5000, "tin");
    CHECK_EQUAL(next(&s), 'b');
    next_round(&s, 10);
    ask(&s, 'd', NULL, 9000, "tin");
    ask(&s, 'a', NULL, 1000, "tin");
    rb_lab_die(s.worker, -1, 9, 0); /* it had not begun with b */
    hire(&s, 2);
    next_round(&s, 1);
    struct rb_lab_request r;
    CHECK(rb_lab_request(s.worker, 0, &r) == 0 && r.payload[0] == 'a');
    run_as(&s, "bcd");
    close_still(&s);
}

int main(void) {
    RUN(bands_then_deadlines_then_arrival);
    RUN(what_has_expired_does_not_run);
    RUN(a_low_job_becomes_critical_by_and_by);
    RUN(patience_bounds_what_an_earlier_deadline_may_pass);
    RUN(tenants_take_turns_by_weight);
    RUN(one_job_of_a_tenant_does_not_wait_for_all_of_another);
    RUN(other_settings_hold_for_what_waits);
    RUN(what_comes_back_unstarted_goes_where_it_was);
    return check_end();
}
