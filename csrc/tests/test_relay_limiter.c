/* The three limits of a rate, each against a model that keeps every job that began. */
#include "check.h"
#include "relay/dispatch/limiter.h"

#define MS 1000000ull
enum { STEPS = 4000 };

static uint64_t random_state = 0x9e3779b97f4a7c15;
static uint64_t chance(uint64_t below) { return check_random(&random_state) % below; }

/* --- Models: the times at which jobs began, nothing else ----------------------------------------- */

struct log {
    uint64_t at[STEPS];
    int count;
};

/* A bucket of `burst` lets a job begin exactly if, over each stretch that ends now and begins with one of the jobs before, no more
 * have begun than burst and what has flowed in since. */
static int bucket_allows(const struct log *log, const struct rb_rate_config *c, uint64_t now) {
    uint64_t burst = c->kind == RB_RATE_LEAKY_BUCKET ? 1 : c->burst;
    for (int i = log->count; i-- > 0;) {
        unsigned __int128 per = (unsigned __int128)c->per_ms * MS;
        unsigned __int128 jobs = (unsigned)(log->count - i + 1);
        if (jobs * per > burst * per + (unsigned __int128)(now - log->at[i]) * c->jobs) return 0;
    }
    return 1;
}

static uint64_t begun_since(const struct log *log, uint64_t from) {
    uint64_t n = 0;
    for (int i = log->count; i-- > 0 && log->at[i] >= from;) n++;
    return n;
}

/* Slices count from the time of the reset, `origin`. */
static int window_allows(const struct log *log, const struct rb_rate_config *c, uint64_t origin,
                         uint64_t now) {
    uint64_t slice = c->per_ms * MS / RB_WINDOW_SLICES, newest = (now - origin) / slice;
    uint64_t from = newest < RB_WINDOW_SLICES ? 0 : newest - RB_WINDOW_SLICES;
    return begun_since(log, origin + from * slice) < c->jobs;
}

/* --- Any configuration, any times --------------------------------------------------------------- */

static struct rb_rate_config any(uint32_t kind) {
    static const uint32_t periods[] = {1, 7, 100, 1000, 60000, RB_RATE_PER_MS_MAX};
    struct rb_rate_config c = {.kind = kind,
                               .jobs = (uint32_t)(1 + chance(chance(2) ? 20 : 2000)),
                               .per_ms = periods[chance(6)],
                               .burst = (uint32_t)(1 + chance(chance(2) ? 5 : 500))};
    if (chance(10) == 0) c.jobs = RB_RATE_JOBS_MAX;
    return c;
}

static uint64_t time_until_next(const struct rb_rate_config *c) {
    uint64_t each = c->per_ms * MS / c->jobs + 1;
    switch (chance(8)) {
    case 0: return 0;
    case 1: return 1;
    case 2: return each;
    case 3: return chance(each * c->burst);
    case 4: return chance(c->per_ms * MS * 2);
    default: return chance(2 * each);
    }
}

/* Allowed exactly when it says, and not a nanosecond before. */
static void check_wait(const struct rb_limiter *l, const struct rb_rate_config *c, uint64_t now,
                       uint64_t wait) {
    struct rb_limiter early = *l, late = *l;
    CHECK(rb_limiter_wait_ns(&early, c, now + wait - 1) > 0);
    CHECK_EQUAL(rb_limiter_wait_ns(&late, c, now + wait), 0);
}

static void drive(uint32_t kind) {
    static struct log log;
    for (int run = 0; run < 60; run++) {
        struct rb_rate_config c = any(kind);
        struct rb_limiter l;
        uint64_t origin = chance(1ull << 62), now = origin;
        int passed = 0;
        log.count = 0;
        CHECK_EQUAL(rb_rate_check(&c), 0);
        rb_limiter_reset(&l, &c, now);
        for (int i = 0; i < STEPS / 8; i++) {
            now += time_until_next(&c);
            uint64_t wait = rb_limiter_wait_ns(&l, &c, now);
            int allowed = kind == RB_RATE_SLIDING_WINDOW ? window_allows(&log, &c, origin, now)
                                                         : bucket_allows(&log, &c, now);
            CHECK_EQUAL(wait == 0, allowed);
            if (wait) {
                check_wait(&l, &c, now, wait);
                continue;
            }
            rb_limiter_take(&l, &c, now);
            log.at[log.count++] = now;
            passed++;
            if (kind == RB_RATE_SLIDING_WINDOW) /* the promise: of any window, wherever it begins */
                CHECK(begun_since(&log, now > c.per_ms * MS ? now - c.per_ms * MS + 1 : 0) <=
                      c.jobs);
        }
        CHECK(passed > 0);
    }
}

static void a_token_bucket_allows_what_its_arrival_curve_does(void) { drive(RB_RATE_TOKEN_BUCKET); }
static void a_leaky_bucket_lets_jobs_out_one_by_one(void) { drive(RB_RATE_LEAKY_BUCKET); }
static void no_window_holds_more_than_its_rate(void) { drive(RB_RATE_SLIDING_WINDOW); }

/* Three jobs a second for a day, always asked at the first possible nanosecond: not one more or less. */
static void a_rate_that_does_not_divide_the_period_does_not_drift(void) {
    struct rb_rate_config c = {RB_RATE_TOKEN_BUCKET, 3, 1000, 2};
    struct rb_limiter l;
    uint64_t now = 12345, origin = now, jobs = 0;
    rb_limiter_reset(&l, &c, now);
    while (now - origin <= 86400ull * 1000 * MS) {
        rb_limiter_take(&l, &c, now);
        jobs++;
        now += rb_limiter_wait_ns(&l, &c, now);
        if (jobs == 1000000) break;
    }
    /* the burst at once, then exactly three a second: a second token's room keeps what is left of a nanosecond */
    CHECK_EQUAL(jobs, 3 * 86400 + 2);
}

static void the_greatest_numbers_do_not_overflow(void) {
    for (uint32_t kind = RB_RATE_TOKEN_BUCKET; kind <= RB_RATE_SLIDING_WINDOW; kind++) {
        struct rb_rate_config c = {kind, RB_RATE_JOBS_MAX, RB_RATE_PER_MS_MAX, RB_RATE_BURST_MAX};
        struct rb_limiter l;
        rb_limiter_reset(&l, &c, 0);
        uint64_t most = kind == RB_RATE_LEAKY_BUCKET ? 1 : 1000000;
        for (uint64_t i = 0; i < most; i++) {
            CHECK_EQUAL(rb_limiter_wait_ns(&l, &c, 1), 0);
            rb_limiter_take(&l, &c, 1);
        }
        CHECK(rb_limiter_wait_ns(&l, &c, 1) > 0);
        CHECK(!rb_limiter_idle(&l, &c, 1));
        CHECK_EQUAL(rb_limiter_wait_ns(&l, &c, INT64_MAX), 0); /* 292 years later */
        CHECK(rb_limiter_idle(&l, &c, INT64_MAX));
        c.jobs = 1;
        rb_limiter_reset(&l, &c, 0);
        for (int i = 0; i < 3; i++) rb_limiter_take(&l, &c, 1); /* more than it said */
        CHECK(rb_limiter_wait_ns(&l, &c, 1) < UINT64_MAX / 2);
    }
}

static void a_clock_that_goes_back_gives_nothing_away(void) {
    for (uint32_t kind = RB_RATE_TOKEN_BUCKET; kind <= RB_RATE_SLIDING_WINDOW; kind++) {
        struct rb_rate_config c = {kind, 1, 1000, 1};
        struct rb_limiter l;
        rb_limiter_reset(&l, &c, 5000 * MS);
        rb_limiter_take(&l, &c, 5000 * MS);
        CHECK(rb_limiter_wait_ns(&l, &c, 4000 * MS) >= 1000 * MS);
        CHECK(rb_limiter_wait_ns(&l, &c, 5000 * MS) >= 1000 * MS);
    }
}

static void a_change_keeps_what_is_used_up(void) {
    struct rb_rate_config before = {RB_RATE_TOKEN_BUCKET, 10, 1000, 10}, after = before;
    struct rb_limiter l;
    rb_limiter_reset(&l, &before, 0);
    for (int i = 0; i < 9; i++) rb_limiter_take(&l, &before, 0);
    after.jobs = 1000;
    after.per_ms = 60000;
    after.burst = 100;
    rb_limiter_change(&l, &before, &after, 0); /* one token is left, not a hundred */
    CHECK_EQUAL(rb_limiter_wait_ns(&l, &after, 0), 0);
    rb_limiter_take(&l, &after, 0);
    CHECK_EQUAL(rb_limiter_wait_ns(&l, &after, 0), 60 * MS);
    after.burst = 1;
    rb_limiter_change(&l, &before, &after, 0);
    CHECK(rb_limiter_wait_ns(&l, &after, 0) > 0);
    struct rb_rate_config none = {.kind = RB_RATE_NONE};
    rb_limiter_change(&l, &after, &none, 0);
    CHECK_EQUAL(rb_limiter_wait_ns(&l, &none, 0), 0);
    rb_limiter_change(&l, &none, &before, 0);
    CHECK(rb_limiter_idle(&l, &before, 0));
}

static void a_zeroed_one_is_as_new_whenever_it_is_first_asked(void) {
    for (uint32_t kind = RB_RATE_TOKEN_BUCKET; kind <= RB_RATE_SLIDING_WINDOW; kind++) {
        struct rb_rate_config c = {kind, 2, RB_RATE_PER_MS_MAX, 2};
        struct rb_limiter l = {0};
        CHECK_EQUAL(rb_limiter_wait_ns(&l, &c, 7), 0);
        CHECK(rb_limiter_idle(&l, &c, 7));
        rb_limiter_take(&l, &c, 7);
        CHECK_EQUAL(rb_limiter_wait_ns(&l, &c, 7) == 0, kind != RB_RATE_LEAKY_BUCKET);
    }
}

static void a_number_out_of_range_is_refused(void) {
    struct rb_rate_config good = {RB_RATE_TOKEN_BUCKET, 1, 1, 1}, bad;
    CHECK_EQUAL(rb_rate_check(&good), 0);
    uint32_t *field[] = {&bad.kind, &bad.jobs, &bad.per_ms, &bad.burst};
    uint32_t above[] = {RB_RATE_SLIDING_WINDOW, RB_RATE_JOBS_MAX, RB_RATE_PER_MS_MAX,
                        RB_RATE_BURST_MAX};
    for (int i = 0; i < 4; i++) {
        bad = good;
        *field[i] = above[i] + 1;
        CHECK_EQUAL(rb_rate_check(&bad), -EINVAL);
        *field[i] = 0;
        CHECK_EQUAL(rb_rate_check(&bad), i == 0 ? 0 : -EINVAL); /* no limit needs no numbers */
    }
}

int main(void) {
    RUN(a_token_bucket_allows_what_its_arrival_curve_does);
    RUN(a_leaky_bucket_lets_jobs_out_one_by_one);
    RUN(no_window_holds_more_than_its_rate);
    RUN(a_rate_that_does_not_divide_the_period_does_not_drift);
    RUN(the_greatest_numbers_do_not_overflow);
    RUN(a_clock_that_goes_back_gives_nothing_away);
    RUN(a_change_keeps_what_is_used_up);
    RUN(a_zeroed_one_is_as_new_whenever_it_is_first_asked);
    RUN(a_number_out_of_range_is_refused);
    return check_end();
}
