/* The circuit breaker against a model that keeps every job and has no table. */
#include "check.h"
#include "relay/dispatch/breaker.h"

#define MS 1000000ull

static const struct rb_breaker_config usual = {.failure_percent = 50,
                                               .window_ms = 1000,
                                               .volume_min = 10,
                                               .open_ms = 100,
                                               .open_max_ms = 1000,
                                               .jitter_percent = 0,
                                               .probes = 3,
                                               .reclose_ms = 1000,
                                               .failures_count = 1};

static uint64_t random_state = 0x9e3779b97f4a7c15;
static uint64_t chance(uint64_t below) { return check_random(&random_state) % below; }

static int ended(struct rb_breaker *b, int failed, uint64_t now) {
    return rb_breaker_ended(b, &usual, failed, now, now, 0);
}
static void trip(struct rb_breaker *b, uint64_t now) {
    for (uint32_t i = 0; i < usual.volume_min; i++) ended(b, 1, now);
    CHECK_EQUAL(b->state, RB_BREAKER_OPEN);
}

/* --- The model ------------------------------------------------------------------------------------------------------------ */

enum { JOBS = 3000 };
struct model {
    int state;
    uint64_t since, until, slice_origin;
    int openings, proven, first; /* of the jobs that count for this state */
    struct {
        uint64_t at;
        int failed;
    } jobs[JOBS];
    int count;
};

static void model_enter(struct model *m, int state, uint64_t now) {
    m->state = state;
    m->since = now;
    m->proven = 0;
    m->first = m->count;
    if (state == RB_BREAKER_CLOSED) m->openings = 0;
}
static void model_open(struct model *m, const struct rb_breaker_config *c, uint64_t now) {
    uint64_t ms = c->open_ms;
    m->openings++;
    for (int i = 1; i < m->openings; i++) ms = ms * 2 < c->open_max_ms ? ms * 2 : c->open_max_ms;
    m->until = now + ms * MS + 1;
    model_enter(m, RB_BREAKER_OPEN, now);
}
static void model_tick(struct model *m, const struct rb_breaker_config *c, uint64_t now) {
    if (m->state == RB_BREAKER_OPEN && now >= m->until)
        model_enter(m, RB_BREAKER_HALF_OPEN, now);
    else if (m->state == RB_BREAKER_RECLOSING && now >= m->since + c->reclose_ms * MS + 1)
        model_enter(m, RB_BREAKER_CLOSED, now);
}
static void model_ended(struct model *m, const struct rb_breaker_config *c, int failed,
                        uint64_t began, uint64_t now) {
    model_tick(m, c, now);
    if (m->state == RB_BREAKER_HALF_OPEN && began >= m->since) {
        if (failed)
            model_open(m, c, now);
        else if (++m->proven == (int)c->probes)
            model_enter(m, RB_BREAKER_RECLOSING, now);
        return;
    }
    if (m->state == RB_BREAKER_RECLOSING ? began < m->since : m->state != RB_BREAKER_CLOSED) return;
    m->jobs[m->count].at = now;
    m->jobs[m->count++].failed = failed;
    uint64_t slice = c->window_ms * MS / RB_BREAKER_SLICES, newest = now / slice, all = 0, bad = 0;
    for (int i = m->first; i < m->count; i++) {
        if (m->jobs[i].at / slice + RB_BREAKER_SLICES <= newest) continue;
        all++;
        bad += (uint64_t)m->jobs[i].failed;
    }
    if (failed && all >= c->volume_min && bad * 100 >= all * c->failure_percent)
        model_open(m, c, now);
}

static void it_does_what_the_model_does(void) {
    static struct model m;
    int seen[RB_BREAKER_STATES] = {0};
    for (int run = 0; run < 300; run++) {
        struct rb_breaker_config c = {.failure_percent = (uint32_t)(1 + chance(100)),
                                      .window_ms = (uint32_t)(10 + chance(2000)),
                                      .volume_min = (uint32_t)(1 + chance(20)),
                                      .open_ms = (uint32_t)(1 + chance(200)),
                                      .probes = (uint32_t)(1 + chance(5)),
                                      .reclose_ms = (uint32_t)chance(2000),
                                      .failures_count = 1};
        c.open_max_ms = c.open_ms + (uint32_t)chance(2000);
        CHECK_EQUAL(rb_breaker_check(&c), 0);
        struct rb_breaker b = {0};
        m = (struct model){.state = RB_BREAKER_CLOSED};
        uint64_t now = 0, bad = chance(100);
        for (int i = 0; i < JOBS - 1; i++) {
            now += chance(20) ? chance(20 * MS) : chance(3000 * MS);
            if (chance(100) == 0) bad = chance(100);
            uint64_t began = chance(4) || now < 50 * MS ? now : now - chance(50 * MS);
            uint32_t before = b.state;
            int changed;
            if (chance(5) == 0) {
                changed = rb_breaker_tick(&b, &c, now);
                model_tick(&m, &c, now);
            } else {
                int failed = chance(100) < bad;
                changed = rb_breaker_ended(&b, &c, failed, began, now, 0);
                model_ended(&m, &c, failed, began, now);
            }
            CHECK_EQUAL(b.state, m.state);
            CHECK(changed || before == b.state);
            seen[b.state]++;
            uint32_t share = rb_breaker_share(&b, &c, now);
            CHECK(share <= RB_BREAKER_WHOLE && (share == 0) == (b.state == RB_BREAKER_OPEN));
            CHECK(rb_breaker_retry_ms(&b, &c, now) >= 1);
        }
    }
    for (int s = RB_BREAKER_CLOSED; s <= RB_BREAKER_RECLOSING; s++) CHECK(seen[s] > 1000);
}

/* --- Rule by rule ---------------------------------------------------------------------------------------------------------- */

static void few_failures_say_nothing(void) {
    struct rb_breaker b = {0};
    for (uint32_t i = 0; i < usual.volume_min - 1; i++) CHECK(!ended(&b, 1, MS));
    CHECK_EQUAL(b.state, RB_BREAKER_CLOSED);
    CHECK(ended(&b, 1, MS));
    CHECK_EQUAL(b.state, RB_BREAKER_OPEN);
    CHECK_EQUAL(rb_breaker_share(&b, &usual, MS), 0);
    CHECK_EQUAL(rb_breaker_retry_ms(&b, &usual, MS), 101);
}

static void what_has_left_the_window_is_forgotten(void) {
    struct rb_breaker b = {0};
    for (uint32_t i = 0; i < usual.volume_min - 1; i++) ended(&b, 1, MS);
    ended(&b, 1, 1001 * MS);
    CHECK_EQUAL(b.state, RB_BREAKER_CLOSED);
}

static void the_first_probe_that_fails_opens_it_for_twice_as_long(void) {
    struct rb_breaker b = {0};
    uint64_t now = MS;
    const uint64_t waits[] = {100, 200, 400, 800, 1000, 1000};
    trip(&b, now);
    for (int i = 0; i < 6; i++) {
        CHECK(!rb_breaker_tick(&b, &usual, now + waits[i] * MS));
        now += waits[i] * MS + 1;
        CHECK(rb_breaker_tick(&b, &usual, now));
        CHECK_EQUAL(b.state, RB_BREAKER_HALF_OPEN);
        CHECK_EQUAL(rb_breaker_share(&b, &usual, now), 1);
        ended(&b, 0, now);
        CHECK(ended(&b, 1, now));
        CHECK_EQUAL(b.state, RB_BREAKER_OPEN);
    }
}

static void it_recloses_gradually_and_then_forgets_its_openings(void) {
    struct rb_breaker b = {0};
    uint64_t now = MS;
    trip(&b, now);
    now += 101 * MS;
    rb_breaker_tick(&b, &usual, now);
    for (int i = 0; i < 3; i++) ended(&b, 0, now);
    CHECK_EQUAL(b.state, RB_BREAKER_RECLOSING);
    CHECK_EQUAL(rb_breaker_share(&b, &usual, now), 100);
    CHECK_EQUAL(rb_breaker_share(&b, &usual, now + 500 * MS), 550);
    CHECK_EQUAL(rb_breaker_share(&b, &usual, now + 1000 * MS), 1000);
    CHECK(rb_breaker_tick(&b, &usual, now + 1001 * MS));
    CHECK_EQUAL(b.state, RB_BREAKER_CLOSED);
    now += 2000 * MS;
    trip(&b, now);
    CHECK_EQUAL(rb_breaker_retry_ms(&b, &usual, now), 101); /* not twice as long */
}

static void a_rate_opens_it_while_it_recloses(void) {
    struct rb_breaker b = {0};
    uint64_t now = MS;
    trip(&b, now);
    now += 101 * MS;
    for (int i = 0; i < 3; i++) ended(&b, 0, now);
    CHECK_EQUAL(b.state, RB_BREAKER_RECLOSING);
    trip(&b, now + MS);
    CHECK_EQUAL(rb_breaker_retry_ms(&b, &usual, now + MS), 201);
}

static void a_job_from_before_says_nothing_about_a_probe(void) {
    struct rb_breaker b = {0};
    uint64_t now = MS;
    trip(&b, now);
    now += 101 * MS;
    rb_breaker_tick(&b, &usual, now);
    CHECK(!rb_breaker_ended(&b, &usual, 1, now - 1, now + 5, 0));
    CHECK_EQUAL(b.state, RB_BREAKER_HALF_OPEN);
    CHECK(rb_breaker_ended(&b, &usual, 1, now, now + 5, 0));
}

static void who_holds_it_decides(void) {
    struct rb_breaker b = {0};
    CHECK(rb_breaker_hold(&b, &usual, RB_BREAKER_HOLD_OPEN, MS));
    for (int i = 0; i < 100; i++) CHECK(!ended(&b, i % 2, 2 * MS));
    CHECK(!rb_breaker_tick(&b, &usual, 100000 * MS));
    CHECK_EQUAL(rb_breaker_share(&b, &usual, 2 * MS), 0);
    CHECK(rb_breaker_hold(&b, &usual, RB_BREAKER_HOLD_CLOSED, 3 * MS));
    for (int i = 0; i < 100; i++) CHECK(!ended(&b, 1, 4 * MS));
    CHECK_EQUAL(rb_breaker_share(&b, &usual, 4 * MS), RB_BREAKER_WHOLE);
    CHECK(rb_breaker_hold(&b, &usual, RB_BREAKER_AUTO, 5 * MS));
    CHECK_EQUAL(b.state, RB_BREAKER_CLOSED);
    rb_breaker_hold(&b, &usual, RB_BREAKER_HOLD_OPEN, 6 * MS);
    rb_breaker_hold(&b, &usual, RB_BREAKER_AUTO, 7 * MS);
    CHECK_EQUAL(b.state, RB_BREAKER_HALF_OPEN); /* it was open: it is tried first */
    CHECK(!rb_breaker_hold(&b, &usual, RB_BREAKER_AUTO, 8 * MS));
}

static void a_breaker_can_be_held_without_a_rate(void) {
    struct rb_breaker_config none = {.failure_percent = 0};
    struct rb_breaker b = {0};
    CHECK_EQUAL(rb_breaker_check(&none), 0);
    for (int i = 0; i < 100; i++) CHECK(!rb_breaker_ended(&b, &none, 1, MS, MS, 0));
    CHECK(rb_breaker_hold(&b, &none, RB_BREAKER_HOLD_OPEN, MS));
    CHECK_EQUAL(rb_breaker_share(&b, &none, MS), 0);
    CHECK(rb_breaker_retry_ms(&b, &none, MS) >= 1);
    rb_breaker_hold(&b, &none, RB_BREAKER_AUTO, MS);
    CHECK_EQUAL(b.state, RB_BREAKER_CLOSED); /* nobody counts probes: it would stay half open */
    trip(&b, 2 * MS);
    CHECK(rb_breaker_changed(&b, &none, 3 * MS)); /* switched off while open */
    CHECK_EQUAL(b.state, RB_BREAKER_CLOSED);
    CHECK(!rb_breaker_changed(&b, &none, 3 * MS));
}

static void jitter_stays_within_its_percents_and_spreads(void) {
    struct rb_breaker_config c = usual;
    uint64_t least = UINT64_MAX, most = 0;
    c.jitter_percent = 20;
    for (int i = 0; i < 2000; i++) {
        struct rb_breaker b = {0};
        for (uint32_t k = 0; k < c.volume_min; k++)
            rb_breaker_ended(&b, &c, 1, MS, MS, check_random(&random_state));
        uint64_t ns = b.due_ns - MS;
        least = ns < least ? ns : least;
        most = ns > most ? ns : most;
    }
    CHECK(least >= 80 * MS && least < 82 * MS);
    CHECK(most <= 120 * MS + 1 && most > 118 * MS);
}

static void a_number_out_of_range_is_refused(void) {
    struct rb_breaker_config bad;
    CHECK_EQUAL(rb_breaker_check(&usual), 0);
#define BAD(field, value)                             \
    do {                                              \
        bad = usual;                                  \
        bad.field = (value);                          \
        CHECK_EQUAL(rb_breaker_check(&bad), -EINVAL); \
    } while (0)
    BAD(failure_percent, 101);
    BAD(window_ms, 9);
    BAD(volume_min, 0);
    BAD(open_ms, 0);
    BAD(open_ms, 1001);
    BAD(jitter_percent, 101);
    BAD(probes, 0);
    BAD(reclose_ms, 3600001);
    BAD(failures_count, 0);
}

int main(void) {
    RUN(it_does_what_the_model_does);
    RUN(few_failures_say_nothing);
    RUN(what_has_left_the_window_is_forgotten);
    RUN(the_first_probe_that_fails_opens_it_for_twice_as_long);
    RUN(it_recloses_gradually_and_then_forgets_its_openings);
    RUN(a_rate_opens_it_while_it_recloses);
    RUN(a_job_from_before_says_nothing_about_a_probe);
    RUN(who_holds_it_decides);
    RUN(a_breaker_can_be_held_without_a_rate);
    RUN(jitter_stays_within_its_percents_and_spreads);
    RUN(a_number_out_of_range_is_refused);
    return check_end();
}
