/* The limit found from latency, against the same formula in floating point, and against a server that queues. */
#include "check.h"
#include "relay/dispatch/adaptive.h"

#define MS 1000000ull

static const struct rb_adaptive_config usual = {
    .limit_max = 200, .limit_min = 2, .window_ms = 100, .tolerance_percent = 150, .headroom = 4};

static uint64_t random_state = 0x2545f4914f6cdd1d;
static uint64_t chance(uint64_t below) { return check_random(&random_state) % below; }

/* One window of ten jobs of the same latency, all in flight together with `in_flight` others. */
static void window(struct rb_adaptive *a, const struct rb_adaptive_config *c, uint64_t latency_ns,
                   uint32_t in_flight, uint64_t *now) {
    for (int i = 0; i < RB_ADAPTIVE_SAMPLES_MIN; i++) {
        rb_adaptive_ended(a, c, latency_ns, in_flight, *now);
        *now += c->window_ms * MS / (RB_ADAPTIVE_SAMPLES_MIN - 1) + 1;
    }
}

struct model {
    double limit, usual;
    int windows;
};
static void model_window(struct model *m, const struct rb_adaptive_config *c, double latency,
                         double in_flight) {
    if (m->windows < 10)
        m->usual = (m->usual * m->windows + latency) / (m->windows + 1);
    else
        m->usual += (latency - m->usual) * 2 / 601;
    if (m->windows < 10) m->windows++;
    double at = m->usual;
    if (m->usual > 2 * latency) m->usual *= 0.9;
    if (in_flight < m->limit / 2) return;
    double gradient = at * c->tolerance_percent / 100 / latency;
    gradient = gradient < 0.5 ? 0.5 : gradient > 1 ? 1 : gradient;
    m->limit = m->limit * 0.8 + (m->limit * gradient + c->headroom) * 0.2;
    if (m->limit < c->limit_min) m->limit = c->limit_min;
    if (m->limit > c->limit_max) m->limit = c->limit_max;
}

static void it_follows_the_formula(void) {
    for (int run = 0; run < 200; run++) {
        struct rb_adaptive_config c = {.limit_max = (uint32_t)(10 + chance(5000)),
                                       .window_ms = (uint32_t)(1 + chance(1000)),
                                       .tolerance_percent = (uint32_t)(100 + chance(200)),
                                       .headroom = (uint32_t)(1 + chance(20))};
        c.limit_min = (uint32_t)(1 + chance(10));
        CHECK_EQUAL(rb_adaptive_check(&c), 0);
        struct rb_adaptive a = {0};
        struct model m = {.limit = rb_adaptive_limit(&a, &c)};
        uint64_t now = chance(1ull << 60), base = 1000 + chance(100 * MS);
        for (int i = 0; i < 1000; i++) {
            if (chance(200) == 0) base = 1000 + chance(100 * MS);
            uint64_t latency = base / 2 + chance(base);
            uint32_t in_flight = (uint32_t)chance(2 * (uint64_t)m.limit + 2);
            /* where both are nearly equal, the two may differ on which side it falls */
            if (in_flight * 2.0 > m.limit * 0.98 && in_flight * 2.0 < m.limit * 1.02) continue;
            model_window(&m, &c, (double)latency, in_flight);
            window(&a, &c, latency, in_flight, &now);
            double got = rb_adaptive_limit(&a, &c),
                   apart = got > m.limit ? got - m.limit : m.limit - got;
            CHECK(apart <= 1 + m.limit / 100);
        }
    }
}

static void a_steady_latency_lets_it_grow_to_its_bound(void) {
    struct rb_adaptive a = {0};
    uint64_t now = 1;
    CHECK_EQUAL(rb_adaptive_limit(&a, &usual), 20);
    for (int i = 0; i < 400; i++) window(&a, &usual, 5 * MS, 300, &now);
    CHECK_EQUAL(rb_adaptive_limit(&a, &usual), 200);
}

static void a_latency_that_doubles_shrinks_it(void) {
    struct rb_adaptive a = {0};
    uint64_t now = 1;
    for (int i = 0; i < 400; i++) window(&a, &usual, 5 * MS, 300, &now);
    for (int i = 0; i < 30; i++) window(&a, &usual, 20 * MS, 300, &now);
    CHECK(rb_adaptive_limit(&a, &usual) < 20);
    CHECK(rb_adaptive_limit(&a, &usual) >= usual.limit_min);
    for (int i = 0; i < 400; i++) window(&a, &usual, 5 * MS, 300, &now);
    CHECK_EQUAL(rb_adaptive_limit(&a, &usual), 200);
}

static void an_idle_role_learns_nothing_about_its_limit(void) {
    struct rb_adaptive a = {0};
    uint64_t now = 1;
    for (int i = 0; i < 400; i++) window(&a, &usual, 5 * MS, 3, &now);
    CHECK_EQUAL(rb_adaptive_limit(&a, &usual), 20);
}

static void few_jobs_are_no_window(void) {
    struct rb_adaptive a = {0};
    uint64_t now = 1;
    for (int i = 0; i < RB_ADAPTIVE_SAMPLES_MIN - 1; i++)
        rb_adaptive_ended(&a, &usual, 5 * MS, 100, now += 1000 * MS);
    CHECK_EQUAL(a.windows, 0);
    rb_adaptive_ended(&a, &usual, 5 * MS, 100, now + 1);
    CHECK_EQUAL(a.windows, 1);
}

/* A server of eight places, 10 ms each, that always has as many jobs as the limit allows: what is more than eight only queues. */
static void a_server_that_queues_is_not_filled_to_the_bound(void) {
    struct rb_adaptive a = {0};
    uint64_t now = 1, sum = 0;
    struct rb_adaptive_config c = usual;
    for (int i = 0; i < 10; i++) window(&a, &c, 10 * MS, 8, &now); /* it begins with little load */
    for (int i = 0; i < 200; i++) {
        uint32_t n = rb_adaptive_limit(&a, &c);
        window(&a, &c, n > 8 ? 10 * MS * n / 8 : 10 * MS, n, &now);
        if (i >= 100) sum += rb_adaptive_limit(&a, &c);
    }
    CHECK(sum / 100 >= 8);  /* it is busy */
    CHECK(sum / 100 <= 40); /* and not drowned: the bound is 200 */
}

static void no_limit_is_none(void) {
    struct rb_adaptive_config none = {.limit_max = 0};
    struct rb_adaptive a = {0};
    CHECK_EQUAL(rb_adaptive_check(&none), 0);
    rb_adaptive_ended(&a, &none, MS, 1000000, 1);
    CHECK_EQUAL(rb_adaptive_limit(&a, &none), UINT32_MAX);
}

static void the_greatest_latency_does_not_overflow(void) {
    struct rb_adaptive a = {0};
    struct rb_adaptive_config c = usual;
    uint64_t now = 1;
    c.limit_max = 1 << 20;
    c.tolerance_percent = 1000;
    for (int i = 0; i < 50; i++) window(&a, &c, UINT64_MAX, 1 << 20, &now);
    CHECK(rb_adaptive_limit(&a, &c) > 20); /* steady, however slow */
    for (uint32_t i = 0; i < 3u << 20; i++) rb_adaptive_ended(&a, &c, UINT64_MAX, 1, now);
    CHECK(rb_adaptive_limit(&a, &c) > 20);
}

int main(void) {
    RUN(it_follows_the_formula);
    RUN(a_steady_latency_lets_it_grow_to_its_bound);
    RUN(a_latency_that_doubles_shrinks_it);
    RUN(an_idle_role_learns_nothing_about_its_limit);
    RUN(few_jobs_are_no_window);
    RUN(a_server_that_queues_is_not_filled_to_the_bound);
    RUN(no_limit_is_none);
    RUN(the_greatest_latency_does_not_overflow);
    return check_end();
}
