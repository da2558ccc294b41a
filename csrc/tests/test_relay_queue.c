/* The queue of a role: against a naive reference, operation by operation, and each rule by itself. */
#include "queue_reference.h"

enum { JOBS = REFERENCE_JOBS, QUEUES = 2 };
#define MS 1000000ull

/* Jobs of the test's own making, as the relay would have filled them. */
struct bench {
    struct rb_tenants tenants;
    struct rb_tenant *tenant[REFERENCE_TENANTS]; /* 0: none */
    struct rb_job jobs[JOBS];
    struct rb_job *idle[JOBS];
    unsigned idle_count;
    uint64_t ids, now, random;
};

static unsigned pick(struct bench *b, unsigned below) {
    return (unsigned)(check_random(&b->random) % below);
}

static struct bench *bench_open(uint64_t seed) {
    struct bench *b = calloc(1, sizeof *b);
    if (!b || rb_tenants_init(&b->tenants, 64, 1) < 0) abort();
    b->random = seed;
    b->now = 1000 * MS;
    for (unsigned i = 0; i < JOBS; i++) b->idle[b->idle_count++] = &b->jobs[i];
    for (unsigned t = 1; t < REFERENCE_TENANTS; t++) {
        uint8_t name = (uint8_t)('a' + t);
        b->tenant[t] = rb_tenant_hold(&b->tenants, (struct rb_slice){&name, 1});
    }
    return b;
}

static void bench_close(struct bench *b) {
    for (unsigned t = 1; t < REFERENCE_TENANTS; t++) rb_tenant_release(b->tenant[t]);
    rb_tenants_fini(&b->tenants);
    free(b);
}

/* due: ms from now; 0: never. */
static struct rb_job *make(struct bench *b, unsigned band, unsigned due_ms, unsigned tenant) {
    struct rb_job *j = b->idle[--b->idle_count];
    memset(j, 0, sizeof *j);
    j->id = ++b->ids;
    j->request.priority = (uint8_t)band;
    j->accepted_ns = b->now;
    j->due_ns = due_ms ? b->now + due_ms * MS : 0;
    j->tenant = b->tenant[tenant];
    return j;
}

static void done_with(struct bench *b, struct rb_job *j) { b->idle[b->idle_count++] = j; }

static struct rb_job *push(struct bench *b, struct rb_queue *q, unsigned band, unsigned due_ms,
                           unsigned tenant) {
    struct rb_job *j = make(b, band, due_ms, tenant);
    rb_queue_push(q, j, b->now);
    return j;
}

static struct rb_job *take(struct bench *b, struct rb_queue *q) {
    struct rb_job *j = rb_queue_first(q, b->now);
    if (!j) return NULL;
    rb_queue_take(q, j);
    done_with(b, j);
    return j;
}

static unsigned tenant_of(const struct bench *b, const struct rb_job *j) {
    unsigned t = 0;
    while (b->tenant[t] != j->tenant) t++;
    return t;
}

/* --- The reference ------------------------------------------------------------------------------ */

static void set_order(struct bench *b, struct reference *m, struct rb_order_config *config) {
    static const uint32_t choices[] = {0, 1, 5, 40};
    config->aging_ms = choices[pick(b, 4)];
    config->patience_ms = choices[pick(b, 4)];
    m->aging = config->aging_ms * MS;
    m->patience = config->patience_ms * MS;
}

/* The reference has no way to change its mind for those that wait: they come out and go in again. */
static void reorder_reference(struct reference *m, struct reference *changed, uint64_t now) {
    struct reference all = *m;
    struct rb_job *j;
    unsigned count = 0;
    struct reference_job order[REFERENCE_JOBS];
    while ((j = reference_oldest(m))) {
        order[count++] = m->jobs[reference_find(m, j)];
        reference_remove(m, j);
    }
    all.aging = changed->aging, all.patience = changed->patience, all.count = 0;
    *m = all;
    for (unsigned i = 0; i < count; i++) reference_push(m, order[i].job, order[i].tenant, now);
}

static void one_step(struct bench *b, struct rb_queue *queues, struct reference *models) {
    unsigned which = pick(b, QUEUES);
    struct rb_queue *q = &queues[which];
    struct reference *m = &models[which];
    struct rb_job *j;
    unsigned kind = pick(b, 16);
    if (b->ids / 400 % 2 == 0 && kind >= 6 && kind <= 9) kind = 0; /* it fills, then it empties */
    switch (kind) {
    case 0:
    case 1:
    case 2:
    case 3:
    case 4:
        if (b->idle_count == 0) break;
        j = make(b, pick(b, 4), pick(b, 2) ? pick(b, 60) : 0, pick(b, REFERENCE_TENANTS));
        rb_queue_push(q, j, b->now);
        reference_push(m, j, tenant_of(b, j), b->now);
        break;
    case 5:
    case 6:
    case 7:
    case 8:
    case 9: /* to a worker; sometimes it comes back, unstarted */
        j = rb_queue_first(q, b->now);
        CHECK(j == reference_first(m, b->now));
        if (!j) break;
        rb_queue_take(q, j);
        reference_take(m, j);
        if (pick(b, 4) == 0) {
            rb_queue_push(q, j, b->now);
            reference_push(m, j, tenant_of(b, j), b->now);
        } else {
            done_with(b, j);
        }
        break;
    case 10: /* any job leaves; or goes to the other queue, as a stolen one does */
        if (m->count == 0) break;
        j = m->jobs[pick(b, m->count)].job;
        rb_queue_remove(q, j);
        reference_remove(m, j);
        if (pick(b, 2) == 0) {
            rb_queue_push(&queues[!which], j, b->now);
            reference_push(&models[!which], j, tenant_of(b, j), b->now);
        } else {
            done_with(b, j);
        }
        break;
    case 11:
    case 12: b->now += pick(b, 2 * MS); break;
    case 13: b->now += pick(b, 30) == 0 ? 100 * MS : 0; break;
    case 14:
        if (pick(b, 20) == 0) {
            unsigned t = 1 + pick(b, REFERENCE_TENANTS - 1);
            struct rb_slice name = {(const uint8_t *)b->tenant[t]->name, 1};
            struct rb_tenant_config given = {.weight = 1 + pick(b, 40)};
            int none = given.weight > 36;
            CHECK_EQUAL(rb_tenants_configure(&b->tenants, name, none ? NULL : &given), 0);
            models[0].weight[t] = models[1].weight[t] = none ? RB_WEIGHT_DEFAULT : given.weight;
        }
        break;
    case 15:
        if (pick(b, 50) == 0) {
            struct rb_order_config config;
            struct reference changed;
            set_order(b, &changed, &config);
            rb_queue_configure(q, &config, b->now);
            reorder_reference(m, &changed, b->now);
        }
        break;
    }
    CHECK_EQUAL(q->count, m->count);
    CHECK(rb_queue_oldest(q) == reference_oldest(m));
    CHECK(rb_queue_first(q, b->now) == reference_first(m, b->now));
}

static void it_does_what_the_naive_reference_does(void) {
    for (uint64_t seed = 1; seed <= 12 && !check_breaches; seed++) {
        struct bench *b = bench_open(seed);
        struct rb_queue *queues = calloc(QUEUES, sizeof *queues);
        struct reference *models = calloc(QUEUES, sizeof *models);
        if (!queues || !models) abort();
        for (int i = 0; i < QUEUES; i++) {
            struct rb_order_config config;
            set_order(b, &models[i], &config);
            rb_queue_init(&queues[i], &config);
            for (unsigned t = 0; t < REFERENCE_TENANTS; t++)
                models[i].weight[t] = RB_WEIGHT_DEFAULT;
        }
        for (int step = 0; step < 4000 && !check_breaches; step++) one_step(b, queues, models);
        if (check_breaches) printf("seed %llu\n", (unsigned long long)seed);
        free(queues);
        free(models);
        bench_close(b);
    }
}

/* --- Rule by rule ------------------------------------------------------------------------------- */

#define WITH_QUEUE(b, q, aging, patience) \
    struct bench *b = bench_open(1);      \
    struct rb_queue q;                    \
    rb_queue_init(&q, &(struct rb_order_config){.aging_ms = (aging), .patience_ms = (patience)})

static void jobs_of_one_kind_go_first_come_first_served(void) {
    WITH_QUEUE(b, q, 10, 10);
    for (int i = 0; i < 100; i++) push(b, &q, 2, 50, 0);
    for (uint64_t i = 1; i <= 100; i++) CHECK_EQUAL(take(b, &q)->id, i);
    CHECK(take(b, &q) == NULL);
    bench_close(b);
}

static void a_higher_band_goes_first_and_the_earlier_deadline_within_it(void) {
    WITH_QUEUE(b, q, 1000, 1000);
    uint64_t low = push(b, &q, 3, 1, 0)->id, late = push(b, &q, 1, 900, 0)->id;
    uint64_t early = push(b, &q, 1, 30, 0)->id, none = push(b, &q, 1, 0, 0)->id;
    uint64_t critical = push(b, &q, 0, 0, 0)->id;
    CHECK_EQUAL(take(b, &q)->id, critical);
    CHECK_EQUAL(take(b, &q)->id, early);
    CHECK_EQUAL(take(b, &q)->id, late);
    CHECK_EQUAL(take(b, &q)->id, none);
    CHECK_EQUAL(take(b, &q)->id, low);
    bench_close(b);
}

static void a_job_moves_one_band_up_for_each_aging_time(void) {
    WITH_QUEUE(b, q, 10, 0);
    struct rb_job *low = push(b, &q, 3, 0, 0);
    b->now += 9 * MS;
    rb_queue_first(&q, b->now);
    CHECK_EQUAL(low->queued.band, 3);
    for (unsigned band = 3; band-- > 0;) {
        b->now += band == 2 ? MS : 10 * MS;
        rb_queue_first(&q, b->now);
        CHECK_EQUAL(low->queued.band, band);
    }
    /* Nobody looked for a long time: counted from when it was due. */
    struct rb_job *other = push(b, &q, 3, 0, 0);
    b->now += 25 * MS;
    rb_queue_first(&q, b->now);
    CHECK_EQUAL(other->queued.band, 1);
    b->now += 5 * MS;
    rb_queue_first(&q, b->now);
    CHECK_EQUAL(other->queued.band, 0);
    bench_close(b);
}

/* The bound is on what one moment costs, not on who moves: the longest waiting first, all by and by. */
static void a_queue_that_stood_still_for_long_ages_a_thousand_at_a_time(void) {
    enum { MANY = 3000 };
    struct bench *b = bench_open(1);
    struct rb_job *jobs = calloc(MANY, sizeof *jobs);
    struct rb_queue q;
    if (!jobs) abort();
    rb_queue_init(&q, &(struct rb_order_config){.aging_ms = 10});
    for (uint64_t i = 0; i < MANY; i++) {
        jobs[i] = (struct rb_job){.id = i + 1, .accepted_ns = b->now + i};
        jobs[i].request.priority = 1;
        rb_queue_push(&q, &jobs[i], jobs[i].accepted_ns);
    }
    b->now += 1000 * MS;
    for (int moved = 1024; moved <= 2048; moved += 1024, b->now++) {
        for (int looks = 0; looks < 3; looks++) CHECK(rb_queue_first(&q, b->now) == &jobs[0]);
        CHECK(jobs[moved - 1].queued.band == 0 && jobs[moved].queued.band == 1);
    }
    rb_queue_first(&q, b->now);
    CHECK_EQUAL(jobs[MANY - 1].queued.band, 0);
    free(jobs);
    bench_close(b);
}

static void a_job_that_comes_back_is_before_those_that_came_after_it(void) {
    WITH_QUEUE(b, q, 0, 0);
    struct rb_job *jobs[4];
    for (int i = 0; i < 4; i++) jobs[i] = push(b, &q, 2, 500, 0);
    for (int i = 0; i < 3; i++) rb_queue_take(&q, rb_queue_first(&q, b->now));
    b->now += MS;
    push(b, &q, 2, 500, 0);
    for (int i = 3; i-- > 0;) rb_queue_push(&q, jobs[i], b->now); /* as a dead worker's do */
    for (int i = 0; i < 4; i++) CHECK(take(b, &q) == jobs[i]);
    bench_close(b);
}

static void what_is_given_up_first_is_of_the_lowest_band_and_has_waited_longest(void) {
    WITH_QUEUE(b, q, 0, 0);
    CHECK(rb_queue_oldest(&q) == NULL);
    struct rb_job *critical = push(b, &q, 0, 0, 0), *first = push(b, &q, 2, 0, 1);
    struct rb_job *second = push(b, &q, 2, 1, 2);
    CHECK(rb_queue_oldest(&q) == first);
    rb_queue_remove(&q, first);
    CHECK(rb_queue_oldest(&q) == second);
    rb_queue_remove(&q, second);
    CHECK(rb_queue_oldest(&q) == critical);
    rb_queue_remove(&q, critical);
    bench_close(b);
}

static void two_jobs_compare_by_band_urgency_and_id(void) {
    WITH_QUEUE(b, q, 0, 0);
    struct rb_queue other = q;
    struct rb_job *a = push(b, &q, 2, 50, 0), *c = push(b, &other, 2, 40, 1);
    struct rb_job *d = push(b, &other, 1, 0, 0), *e = push(b, &q, 2, 50, 0);
    CHECK(rb_queue_before(c, a) && !rb_queue_before(a, c));
    CHECK(rb_queue_before(d, c) && !rb_queue_before(c, d));
    CHECK(rb_queue_before(a, e) && !rb_queue_before(e, a));
    bench_close(b);
}

static void without_a_row_left_a_tenants_jobs_wait_with_those_that_name_none(void) {
    struct bench *b = bench_open(1);
    struct rb_tenants few;
    struct rb_queue q;
    CHECK_EQUAL(rb_tenants_init(&few, 80, 1), 0);
    rb_shares_fini(&few.shares);
    CHECK_EQUAL(rb_shares_init(&few.shares, 64), 0); /* one chunk */
    rb_queue_init(&q, &(struct rb_order_config){0});
    for (uint8_t i = 0; i < 80; i++) {
        struct rb_job *j = make(b, 2, 0, 0);
        j->tenant = rb_tenant_hold(&few, (struct rb_slice){&i, 1});
        rb_queue_push(&q, j, b->now);
        CHECK_EQUAL(j->queued.share == &q.bands[2].own, i >= 64);
    }
    for (int i = 0; i < 80; i++) {
        struct rb_job *j = take(b, &q);
        CHECK(j != NULL);
        rb_tenant_release(j->tenant);
    }
    /* The rows are idle now, and serve others. */
    struct rb_job *j = make(b, 1, 0, 0);
    uint8_t name = 200;
    j->tenant = rb_tenant_hold(&few, (struct rb_slice){&name, 1});
    rb_queue_push(&q, j, b->now);
    CHECK(j->queued.share != &q.bands[1].own);
    rb_queue_remove(&q, j);
    rb_tenant_release(j->tenant);
    rb_tenants_fini(&few);
    bench_close(b);
}

static struct rb_tenant *hold(struct rb_tenants *t, const char *name) {
    return rb_tenant_hold(t, (struct rb_slice){(const uint8_t *)name, strlen(name)});
}

static int give(struct rb_tenants *t, const char *name, uint32_t weight) {
    struct rb_tenant_config config = {.weight = weight};
    return rb_tenants_configure(t, (struct rb_slice){(const uint8_t *)name, strlen(name)}, &config);
}
static int take_from(struct rb_tenants *t, const char *name) {
    return rb_tenants_configure(t, (struct rb_slice){(const uint8_t *)name, strlen(name)}, NULL);
}

static void a_new_name_takes_the_place_of_the_one_that_has_been_idle_for_longest(void) {
    struct rb_tenants t;
    CHECK_EQUAL(rb_tenants_init(&t, 2, 1), 0);
    struct rb_tenant *tin = hold(&t, "tin"), *lead = hold(&t, "lead");
    uint64_t numbers[2] = {tin->number, lead->number};
    CHECK(hold(&t, "tin") == tin);
    CHECK(hold(&t, "zinc") == NULL); /* all are in use */
    rb_tenant_release(tin);
    CHECK(hold(&t, "zinc") == NULL); /* held twice */
    rb_tenant_release(tin);
    rb_tenant_release(lead);
    CHECK_EQUAL(hold(&t, "lead")->number, numbers[1]); /* remembered */
    CHECK(hold(&t, "zinc")->number > numbers[1]);      /* in the place of tin */
    CHECK(hold(&t, "tin") == NULL);
    CHECK_EQUAL(t.count, 2);
    rb_tenants_fini(&t);
}

static void a_configured_name_takes_nobodys_place_and_keeps_its_own(void) {
    struct rb_tenants t;
    char longer[RB_TENANT_NAME_MAX + 2] = {0};
    memset(longer, 'x', RB_TENANT_NAME_MAX + 1);
    CHECK_EQUAL(rb_tenants_init(&t, 2, 1), 0);
    CHECK(hold(&t, longer) == NULL && hold(&t, "") == NULL);
    CHECK(give(&t, longer, 1) == -EINVAL && give(&t, "", 1) == -EINVAL);
    CHECK(give(&t, "gold", 0) == -EINVAL && give(&t, "gold", RB_WEIGHT_MAX + 1) == -EINVAL);
    struct rb_tenant *tin = hold(&t, "tin"), *lead = hold(&t, "lead");
    CHECK(give(&t, "gold", 5) == 0 && give(&t, "gold", 7) == 0 && give(&t, "tin", 2) == 0);
    CHECK_EQUAL(give(&t, "lead", 2), -ENOSPC);
    CHECK(hold(&t, "gold")->weight == 7 && tin->weight == 2 && lead->weight == RB_WEIGHT_DEFAULT);
    CHECK(hold(&t, "zinc") != NULL && hold(&t, "iron") == NULL); /* tin is no made-up name now */
    CHECK(take_from(&t, "tin") == 0 && take_from(&t, "copper") == 0);
    CHECK_EQUAL(tin->weight, RB_WEIGHT_DEFAULT);
    CHECK(hold(&t, "iron") == NULL); /* tin is held, and one too many */
    rb_tenant_release(tin);
    CHECK(hold(&t, "iron") != NULL);
    rb_tenants_fini(&t);
}

static void a_clock_that_has_come_far_starts_again_when_the_band_is_empty(void) {
    WITH_QUEUE(b, q, 0, 0);
    struct rb_band *band = &q.bands[2];
    push(b, &q, 2, 0, 1);
    push(b, &q, 2, 0, 0);
    band->clock = RB_SHARE_CLOCK_FAR; /* as after ten to the twelve jobs */
    take(b, &q);
    CHECK(band->clock > RB_SHARE_CLOCK_FAR);
    take(b, &q);
    CHECK_EQUAL(band->clock, 0);
    for (int i = 0; i < 4; i++) push(b, &q, 2, 0, 1), push(b, &q, 2, 0, 0);
    for (int i = 0; i < 8; i++) CHECK_EQUAL(tenant_of(b, take(b, &q)), 1 - i % 2);
    bench_close(b);
}

int main(void) {
    RUN(it_does_what_the_naive_reference_does);
    RUN(jobs_of_one_kind_go_first_come_first_served);
    RUN(a_higher_band_goes_first_and_the_earlier_deadline_within_it);
    RUN(a_job_moves_one_band_up_for_each_aging_time);
    RUN(a_queue_that_stood_still_for_long_ages_a_thousand_at_a_time);
    RUN(a_job_that_comes_back_is_before_those_that_came_after_it);
    RUN(what_is_given_up_first_is_of_the_lowest_band_and_has_waited_longest);
    RUN(two_jobs_compare_by_band_urgency_and_id);
    RUN(without_a_row_left_a_tenants_jobs_wait_with_those_that_name_none);
    RUN(a_new_name_takes_the_place_of_the_one_that_has_been_idle_for_longest);
    RUN(a_configured_name_takes_nobodys_place_and_keeps_its_own);
    RUN(a_clock_that_has_come_far_starts_again_when_the_band_is_empty);
    return check_end();
}
