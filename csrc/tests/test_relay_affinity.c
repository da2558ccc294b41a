/* test_relay_affinity.c: jobs with a key: their worker, who may take them from it, and their order (relay/dispatch/affinity.h).
 *
 * The key is the caller (policy sticky), a payload is the number of the job: so a ring shows whose job it is. */
#define _GNU_SOURCE
#include "crew.h"
#include "relay/relay_pvt.h"

static struct rb_role_config sticky(int ordered) {
    struct rb_role_config role = crew_role();
    role.choice.policy = RB_CHOICE_STICKY;
    role.choice.ordered = (uint32_t)ordered;
    role.choice.steal = 1;
    return role;
}

static uint32_t submit(struct crew *c, uint32_t caller) {
    uint32_t number = c->refs + 1;
    crew_submit(c, caller, &number, sizeof number);
    crew_round(c);
    return number;
}

/* Where the only job is. */
static int holder(const struct crew *c) {
    for (int i = 0; i < CREW_MOST; i++) {
        if (crew_has(c, i) > 0) return i;
    }
    return -1;
}
static int home_of(struct crew *c, uint32_t caller) {
    submit(c, caller);
    int home = holder(c);
    crew_run_dry(c, NULL);
    return home;
}

static void a_caller_stays_with_its_worker_while_others_come_and_go(void) {
    enum { CALLERS = 40 };
    struct crew c;
    struct rb_role_config role = sticky(0);
    int home[CALLERS], moved = 0;
    crew_open(&c, 4, &role);
    for (uint32_t i = 0; i < CALLERS; i++) home[i] = home_of(&c, i + 1);
    for (uint32_t i = 0; i < CALLERS; i++) CHECK_EQUAL(home_of(&c, i + 1), home[i]);
    crew_die(&c, 2);
    for (uint32_t i = 0; i < CALLERS; i++) {
        int now = home_of(&c, i + 1);
        CHECK(home[i] == 2 ? now != 2 : now == home[i]);
    }
    crew_hire(&c, 2); /* in its stead: with its keys */
    for (uint32_t i = 0; i < CALLERS; i++) CHECK_EQUAL(home_of(&c, i + 1), home[i]);
    crew_hire(&c, 4); /* one more: it draws its share, and nobody else moves */
    for (uint32_t i = 0; i < CALLERS; i++) {
        int now = home_of(&c, i + 1);
        CHECK(now == home[i] || now == 4);
        moved += now == 4;
    }
    CHECK(moved > 0 && moved < CALLERS / 2);
    crew_close(&c);
}

static void a_key_goes_before_the_policy(void) {
    struct crew c;
    struct rb_role_config role = crew_role();
    int seen = 0;
    crew_open(&c, 4, &role);
    for (uint8_t key = 1; key <= 20; key++) {
        crew_submit_with(&c, key, "key", key);
        int home = holder(&c);
        crew_run_dry(&c, NULL);
        for (uint32_t caller = 50; caller < 55; caller++) {
            crew_submit_with(&c, caller, "key", key);
            CHECK_EQUAL(holder(&c), home);
            crew_run_dry(&c, NULL);
        }
        seen |= 1 << home;
    }
    CHECK_EQUAL(seen, 15);
    crew_close(&c);
}

static void equal_payloads_go_to_one_worker(void) {
    struct crew c;
    struct rb_role_config role = crew_role();
    int home[20], seen = 0;
    role.choice.policy = RB_CHOICE_CONSISTENT_HASH;
    crew_open(&c, 4, &role);
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < 20; i++) {
            uint8_t payload[200]; /* in the pool */
            memset(payload, i, sizeof payload);
            crew_submit(&c, (uint32_t)(round * 20 + i + 1), payload, i < 10 ? 8 : sizeof payload);
            crew_round(&c);
            if (round == 0) home[i] = holder(&c);
            CHECK_EQUAL(holder(&c), home[i]);
            seen |= 1 << home[i];
            crew_run_dry(&c, NULL);
        }
    }
    CHECK_EQUAL(seen, 15);
    crew_close(&c);
}

static void jobs_with_and_without_a_key_share_a_worker_in_the_order_of_the_queue(void) {
    struct crew c;
    struct rb_role_config role = crew_role();
    role.choice.credit_us = 1;
    crew_open(&c, 1, &role);
    crew_submit_with(&c, 1, "opcode", 0); /* it has one already */
    for (int i = 0; i < 10; i++) crew_submit_with(&c, 1, i % 3 ? "key" : "opcode", 1);
    for (uint32_t n = 1; n <= 11; n++) {
        CHECK_EQUAL(crew_has(&c, 0), 1);
        CHECK_EQUAL(crew_begin(&c, 0), n);
        crew_finish(&c, 0, 1000000);
        crew_round(&c);
    }
    crew_close(&c);
}

/* Two callers of different workers: *a of worker 0, *b of worker 1. */
static void find_two(struct crew *c, uint32_t *a, uint32_t *b) {
    *a = *b = 0;
    for (uint32_t caller = 1; !*a || !*b; caller++) *(home_of(c, caller) == 0 ? a : b) = caller;
}

static void who_has_nothing_to_do_takes_half_of_the_longest_queue(void) {
    for (uint32_t steal = 0; steal < 2; steal++) {
        struct crew c;
        struct rb_role_config role = sticky(0);
        role.choice.steal = steal;
        role.choice.credit_us = 1; /* one job at a time */
        uint32_t a, b;
        crew_open(&c, 2, &role);
        find_two(&c, &a, &b);
        submit(&c, b);
        for (int i = 0; i < 11; i++) submit(&c, a);
        CHECK_EQUAL(crew_has(&c, 0), 1);
        CHECK_EQUAL(crew_stats(&c).queued, 10);
        crew_begin(&c, 1);
        crew_finish(&c, 1, 1000000);
        crew_round(&c);
        CHECK_EQUAL(crew_has(&c, 1), steal);
        CHECK_EQUAL(crew_stats(&c).stolen, steal ? 5 : 0);
        uint32_t ran[CREW_MOST] = {0};
        crew_run_dry(&c, ran);
        CHECK_EQUAL(ran[0] + ran[1], 11);
        CHECK(steal ? ran[1] >= 5 : ran[1] == 0);
        crew_close(&c);
    }
}

static void who_ramps_up_takes_nothing_of_others(void) {
    struct crew c;
    struct rb_role_config role = sticky(0);
    role.choice.credit_us = 1;
    role.choice.ramp_ms = 1000;
    crew_open(&c, 1, &role);
    crew_after(&c, 2000);
    for (int i = 0; i < 9; i++) submit(&c, 1);
    crew_hire(&c, 1);
    for (int i = 0; i < 3; i++) {
        crew_begin(&c, 0);
        crew_finish(&c, 0, 1000000);
        crew_after(&c, 500);
        CHECK_EQUAL(crew_has(&c, 1) > 0, i > 0); /* after a second */
    }
    CHECK(crew_stats(&c).stolen > 0);
    crew_run_dry(&c, NULL);
    crew_close(&c);
}

static void one_that_waits_alone_is_left_to_its_worker(void) {
    struct crew c;
    struct rb_role_config role = sticky(0);
    role.choice.credit_us = 1;
    uint32_t a, b;
    crew_open(&c, 2, &role);
    find_two(&c, &a, &b);
    submit(&c, a);
    submit(&c, a); /* waits, though the other has nothing to do */
    CHECK_EQUAL(crew_has(&c, 0), 1);
    CHECK_EQUAL(crew_has(&c, 1), 0);
    submit(&c, a); /* two wait: that is a queue */
    CHECK_EQUAL(crew_has(&c, 1), 1);
    crew_run_dry(&c, NULL);
    crew_close(&c);
}

static void what_waits_for_a_worker_that_drains_is_passed_on(void) {
    struct crew c;
    struct rb_role_config role = sticky(0);
    role.choice.steal = 0;
    role.choice.credit_us = 1;
    uint32_t a, b;
    crew_open(&c, 2, &role);
    find_two(&c, &a, &b);
    for (int i = 0; i < 6; i++) submit(&c, a);
    CHECK_EQUAL(rb_relay_drain_worker(c.lab.relay, c.ids[0]), 0);
    crew_round(&c);
    CHECK(rb_lab_draining(c.workers[0]));
    CHECK_EQUAL(crew_has(&c, 0), 1);
    CHECK_EQUAL(crew_has(&c, 1), 1);
    uint32_t ran[CREW_MOST] = {0};
    crew_run_dry(&c, ran);
    CHECK_EQUAL(ran[0], 1);
    CHECK_EQUAL(ran[1], 5);
    crew_close(&c);
}

/* Whatever queue it stands in. */
static void the_oldest_of_the_lowest_band_is_dropped_of_all_queues(void) {
    struct crew c;
    struct rb_role_config role = crew_role();
    role.admission.depth_max = 8;
    role.admission.on_full = RB_ADMISSION_DROP_OLDEST;
    role.choice.credit_us = 1;
    crew_open(&c, 2, &role);
    for (int i = 0; i < 2; i++) crew_submit_with(&c, 1, "opcode", 0); /* both are busy */
    uint32_t first = 0, dropped[8];
    for (uint8_t i = 0; i < 8;
         i++) { /* by turns with a key, each of another worker or so, and without */
        uint32_t number = crew_submit_with(&c, 1, i % 2 ? "opcode" : "key", i);
        if (i == 0) first = number;
    }
    for (uint32_t i = 0; i < 8; i++) {
        crew_submit_with(&c, 1, "opcode", 1);
        dropped[i] = 0;
        static uint8_t body[4096];
        int n = lab_read(c.lab.peer, body, sizeof body, 0);
        CHECK(n > 0 && memmem(body, (size_t)n, "overloaded", 10));
        for (uint32_t ref = 1; n > 0 && ref <= c.refs; ref++) {
            struct lab_bytes b = {.size = 0};
            lab_put_ref(&b, ref);
            if (memmem(body, (size_t)n, b.at, b.size)) dropped[i] = ref;
        }
        CHECK_EQUAL(dropped[i], first + i);
    }
    crew_run_dry(&c, NULL);
    crew_close(&c);
}

static void a_job_with_a_key_waits_for_the_first_worker_where_there_is_none(void) {
    struct crew c;
    struct rb_role_config role = sticky(1);
    crew_open(&c, 0, &role);
    for (uint32_t caller = 1; caller < 10; caller++) submit(&c, caller);
    CHECK_EQUAL(crew_stats(&c).queued, 9);
    crew_hire(&c, 0);
    crew_hire(&c, 1);
    crew_run_dry(&c, NULL);
    CHECK_EQUAL(crew_answered(&c), 9);
    submit(&c, 1);
    submit(&c, 1); /* in its row, behind */
    CHECK_EQUAL(rb_relay_set_role_state(c.lab.relay, 0, RB_ROLE_GIVEN_UP), 0);
    crew_round(&c);
    crew_die(&c, 0);
    crew_die(&c, 1);
    CHECK_EQUAL(crew_answered(&c), 11);
    crew_close(&c);
}

/* How many jobs stand elsewhere than in queues of workers. */
static uint32_t homeless(const struct crew *c) { return c->lab.relay->roles[0]->queue.count; }
static int has_event(struct crew *c, uint32_t kind) {
    int seen = 0;
    while (rb_relay_take(c->lab.relay, &c->lab.event)) seen |= c->lab.event.kind == kind;
    return seen;
}

/* Neither does a worker's coming or going, nor the end of a role, hold up a round for as long as its queue is deep. */
static void deep_queues_move_a_thousand_jobs_at_a_time(void) {
    enum { JOBS = 5000 };
    struct crew c;
    struct rb_role_config role = sticky(0);
    uint8_t body[4096];
    role.choice.steal = 0;
    role.choice.credit_us = 1;
    crew_open(&c, 0, &role);
    for (uint32_t i = 0; i < JOBS; i++) {
        uint32_t number = i;
        crew_submit(&c, i % 100, &number, sizeof number);
        if (i % 20 == 0) crew_round(&c);
    }
    crew_round(&c);
    CHECK_EQUAL(homeless(&c), JOBS);
    crew_hire(&c, 0);
    CHECK(homeless(&c) > JOBS - 3 * RB_MOVES_A_ROUND && homeless(&c) < JOBS);
    for (int i = 0; i < 5; i++) crew_round(&c);
    CHECK_EQUAL(homeless(&c), 0);
    has_event(&c, 0);
    crew_die(&c, 0); /* nobody else is there */
    CHECK(homeless(&c) > 0 && homeless(&c) < 3 * RB_MOVES_A_ROUND);
    CHECK(!has_event(&c, RB_EVENT_WORKER_ENDED)); /* jobs wait for it still */
    crew_hire(&c, 0);
    for (int i = 0; i < 9; i++) crew_round(&c);
    CHECK(has_event(&c, RB_EVENT_WORKER_ENDED));
    CHECK_EQUAL(homeless(&c), 0);
    CHECK_EQUAL(crew_stats(&c).queued, JOBS - 1);
    CHECK(rb_relay_audit(c.lab.relay, (char *)body, sizeof body) == 0);
    rb_relay_drain_worker(c.lab.relay, c.ids[0]);
    crew_round(&c); /* and on to nobody */
    rb_relay_set_role_state(c.lab.relay, 0, RB_ROLE_GIVEN_UP);
    crew_round(&c);
    uint64_t told = crew_stats(&c).answered[RB_REASON_NO_WORKER];
    CHECK(told > 0 && told <= 4 * RB_MOVES_A_ROUND);
    for (int i = 0; i < 5; i++) {
        crew_round(&c);
        while (recv(c.lab.peer, body, sizeof body, MSG_DONTWAIT) > 0) {
        }
    }
    CHECK_EQUAL(crew_stats(&c).answered[RB_REASON_NO_WORKER], JOBS - 1);
    crew_run_dry(&c, NULL);
    crew_close(&c);
}

static void deadlines_that_come_at_once_are_told_in_some_rounds_and_nothing_runs_meanwhile(void) {
    enum { JOBS = 5000 };
    struct crew c;
    struct rb_role_config role = crew_role();
    uint8_t body[4096];
    crew_open(&c, 0, &role);
    for (uint32_t i = 0; i < JOBS; i++) {
        crew_submit(&c, i % 100, &i, sizeof i);
        if (i % 20 == 0) rb_lab_round(c.lab.relay, c.now);
    }
    rb_lab_round(c.lab.relay, c.now);
    CHECK_EQUAL(crew_stats(&c).queued, JOBS);
    if (rb_lab_hire(c.lab.relay, 0, 1, c.slots, &c.workers[0]) < 0) abort();
    rb_lab_greet(c.workers[0], "echo");
    crew_after(&c, role.timeout_max_ms);
    uint64_t told = crew_stats(&c).answered[RB_REASON_DEADLINE_EXCEEDED];
    CHECK(told > 0 && told < JOBS);
    CHECK(rb_lab_due(c.lab.relay) <= c.now); /* it does not sleep */
    for (int i = 0; i < 5; i++) {
        crew_round(&c);
        while (recv(c.lab.peer, body, sizeof body, MSG_DONTWAIT) > 0) {
        }
    }
    CHECK_EQUAL(crew_stats(&c).answered[RB_REASON_DEADLINE_EXCEEDED], JOBS);
    CHECK_EQUAL(crew_stats(&c).placed, 0);
    crew_close(&c);
}

static void whose_breaker_is_open_has_no_keys_for_so_long(void) {
    struct crew c;
    struct rb_role_config role = sticky(0);
    role.choice.steal = 0;
    role.choice.credit_us = 1;
    uint32_t a, b;
    crew_open(&c, 2, &role);
    find_two(&c, &a, &b);
    for (int i = 0; i < 4; i++) submit(&c, a);
    CHECK_EQUAL(rb_relay_force_breaker(c.lab.relay, 0, c.ids[0], RB_FORCE_OPEN), 0);
    crew_round(&c);
    CHECK_EQUAL(crew_has(&c, 0), 1); /* what it has, it may end */
    CHECK_EQUAL(crew_has(&c, 1), 1);
    crew_run_dry(&c, NULL);
    CHECK_EQUAL(home_of(&c, a), 1);
    CHECK_EQUAL(rb_relay_force_breaker(c.lab.relay, 0, c.ids[0], RB_FORCE_CLOSED), 0);
    crew_round(&c);
    CHECK_EQUAL(home_of(&c, a), 0);
    CHECK_EQUAL(home_of(&c, b), 1);
    crew_close(&c);
}

static void jobs_of_one_key_run_one_after_the_other_as_they_came(void) {
    struct crew c;
    struct rb_role_config role = sticky(1);
    crew_open(&c, 3, &role);
    uint32_t first = submit(&c, 7);
    for (int i = 0; i < 5; i++) submit(&c, 7);
    for (uint32_t n = first; n < first + 6; n++) {
        int w = holder(&c);
        int64_t all = 0;
        for (int i = 0; i < 3; i++) all += crew_has(&c, i);
        CHECK_EQUAL(all, 1);
        CHECK_EQUAL(crew_begin(&c, w), n);
        crew_finish(&c, w, 1000);
        crew_round(&c);
    }
    CHECK_EQUAL(holder(&c), -1);
    crew_close(&c);
}

/* --- Whatever happens ------------------------------------------------------------------------------------------------------ */

enum { CALLERS = 60, WORKERS = 5, JOBS_MOST = 30000 };
static uint32_t caller_of[JOBS_MOST]; /* by job number */
static int begun_times[JOBS_MOST], answers[JOBS_MOST];
static uint32_t last_begun[CALLERS + 1];
static int running[CALLERS + 1];

/* Which job an answer is for: the reference in it has the number in its first word (relay_lab.h, lab_put_ref). */
static void read_answers(struct crew *c) {
    static uint8_t body[1 << 16];
    int n;
    while ((n = lab_read(c->lab.peer, body, sizeof body, 0)) > 0) {
        struct lab_bytes ref = {.size = 0};
        lab_put_atom(&ref, "peer@host");
        const uint8_t *at = memmem(body, (size_t)n, ref.at, ref.size);
        if (!at) continue;
        uint32_t number = rb_be32(at + ref.size + 4);
        CHECK(number > 0 && number < JOBS_MOST);
        answers[number]++;
    }
}

static void begin_one(struct crew *c, int w, int *busy) {
    uint32_t n = crew_begin(c, w), caller = caller_of[n];
    CHECK_EQUAL(begun_times[n]++, 0);
    CHECK(n > last_begun[caller]); /* nothing that came earlier is begun later */
    CHECK(!running[caller]);       /* nor two at once */
    last_begun[caller] = n;
    running[caller] = 1;
    busy[w] = (int)caller;
}

static void order_holds_through_deaths_steals_and_drains(void) {
    struct crew c;
    struct rb_role_config role = sticky(1);
    int busy[WORKERS] = {0}; /* with whose job; 0: with none */
    uint64_t seed = 5;
    crew_open(&c, WORKERS, &role);
    for (int step = 0; step < 12000; step++) {
        int w = (int)(check_random(&seed) % WORKERS);
        switch (check_random(&seed) % 64) {
        case 0: /* a death, of a job at times */
            if (busy[w]) running[busy[w]] = 0;
            busy[w] = 0;
            crew_die(&c, w);
            if (check_random(&seed) % 2) crew_round(&c);
            crew_hire(&c, w);
            break;
        case 1:
            rb_relay_drain_worker(c.lab.relay, c.ids[w]);
            crew_round(&c);
            while (crew_has(&c, w) > 0) {
                if (!busy[w]) begin_one(&c, w, busy);
                running[busy[w]] = 0;
                busy[w] = 0;
                crew_finish(&c, w, 1000);
                crew_round(&c);
            }
            crew_die(&c, w);
            crew_hire(&c, w);
            break;
        case 2: rb_relay_weigh_worker(c.lab.relay, c.ids[w], 1 + check_random(&seed) % 4); break;
        default:
            if (busy[w]) {
                running[busy[w]] = 0;
                busy[w] = 0;
                crew_finish(&c, w, check_random(&seed) % 3 ? 1000 : 300000);
            } else if (crew_has(&c, w) > 0) {
                begin_one(&c, w, busy);
            }
        }
        /* One caller asks for most. */
        uint32_t caller = check_random(&seed) % 3 == 0 ? 1 : 1 + check_random(&seed) % CALLERS;
        if (check_random(&seed) % 2 && c.refs + 1 < JOBS_MOST) {
            caller_of[c.refs + 1] = caller;
            CHECK_EQUAL(submit(&c, caller), c.refs);
        }
        if (check_random(&seed) % 4) crew_round(&c);
        if (step % 64 == 0) read_answers(&c);
        char why[256];
        if (step % 16 == 0 && rb_relay_audit(c.lab.relay, why, sizeof why) < 0) {
            CHECK(!"the books are even");
            printf("%s\n", why);
            break;
        }
    }
    for (int more = 1; more;) {
        more = 0;
        for (int w = 0; w < WORKERS; w++) {
            while (crew_has(&c, w) > 0) {
                if (!busy[w]) begin_one(&c, w, busy);
                running[busy[w]] = 0;
                busy[w] = 0;
                crew_finish(&c, w, 1000);
                more = 1;
            }
        }
        crew_round(&c);
        read_answers(&c);
    }
    for (uint32_t n = 1; n <= c.refs; n++) CHECK_EQUAL(answers[n], 1);
    CHECK(crew_stats(&c).stolen > 50);
    CHECK_EQUAL(crew_answered(&c), c.refs);
    crew_close(&c);
}

int main(void) {
    RUN(a_caller_stays_with_its_worker_while_others_come_and_go);
    RUN(a_key_goes_before_the_policy);
    RUN(equal_payloads_go_to_one_worker);
    RUN(jobs_with_and_without_a_key_share_a_worker_in_the_order_of_the_queue);
    RUN(who_has_nothing_to_do_takes_half_of_the_longest_queue);
    RUN(who_ramps_up_takes_nothing_of_others);
    RUN(one_that_waits_alone_is_left_to_its_worker);
    RUN(what_waits_for_a_worker_that_drains_is_passed_on);
    RUN(the_oldest_of_the_lowest_band_is_dropped_of_all_queues);
    RUN(a_job_with_a_key_waits_for_the_first_worker_where_there_is_none);
    RUN(deep_queues_move_a_thousand_jobs_at_a_time);
    RUN(deadlines_that_come_at_once_are_told_in_some_rounds_and_nothing_runs_meanwhile);
    RUN(whose_breaker_is_open_has_no_keys_for_so_long);
    RUN(jobs_of_one_key_run_one_after_the_other_as_they_came);
    RUN(order_holds_through_deaths_steals_and_drains);
    return check_end();
}
