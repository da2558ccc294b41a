/* Nobody starves: what a waiting job waits at most, held against the best adversaries that we could write, each of which
 * does starve its victim when the rule against it is switched off. And shares by weight. */
#include "relay/dispatch/job.h"
#include "relay/dispatch/queue.h"
#include "relay/dispatch/tenant.h"

#include "check.h"

enum { DEPTH = 400, NAMES = 5000, AGING_MS = 50, PATIENCE_MS = 80 };
#define MS 1000000ull /* a job takes one of it; two more ask in that time */

struct host {
    struct rb_tenants tenants;
    struct rb_queue queue;
    struct rb_job jobs[DEPTH + 1];
    struct rb_job *idle[DEPTH + 1];
    unsigned idle_count;
    uint64_t ids, now, random;
};

static struct host *host_open(uint32_t aging_ms, uint32_t patience_ms) {
    struct host *h = calloc(1, sizeof *h);
    if (!h || rb_tenants_init(&h->tenants, NAMES, 1) < 0) abort();
    rb_queue_init(&h->queue,
                  &(struct rb_order_config){.aging_ms = aging_ms, .patience_ms = patience_ms});
    for (unsigned i = 0; i < DEPTH + 1; i++) h->idle[h->idle_count++] = &h->jobs[i];
    h->now = 1000 * MS;
    h->random = 1;
    return h;
}

static struct rb_tenant *tenant(struct host *h, unsigned number) {
    uint8_t name[4];
    if (number == 0) return NULL;
    rb_put_be32(name, number);
    return rb_tenant_hold(&h->tenants, (struct rb_slice){name, sizeof name});
}

static void weigh(struct host *h, unsigned number, uint32_t weight) {
    uint8_t name[4];
    rb_put_be32(name, number);
    struct rb_tenant_config given = {.weight = weight};
    CHECK_EQUAL(rb_tenants_configure(&h->tenants, (struct rb_slice){name, 4}, &given), 0);
}

/* due: ms from now, 0: never. NULL: the queue is full, as a role's depth says. */
static struct rb_job *ask(struct host *h, unsigned band, unsigned due_ms, unsigned number) {
    if (h->idle_count == 0) return NULL;
    struct rb_job *j = h->idle[--h->idle_count];
    *j = (struct rb_job){.id = ++h->ids,
                         .accepted_ns = h->now,
                         .due_ns = due_ms ? h->now + due_ms * MS : 0,
                         .tenant = tenant(h, number)};
    j->request.priority = (uint8_t)band;
    rb_queue_push(&h->queue, j, h->now);
    return j;
}

static void leave(struct host *h, struct rb_job *j) {
    if (j->tenant) rb_tenant_release(j->tenant);
    j->tenant = NULL;
    h->idle[h->idle_count++] = j;
}

/* What the relay does in a round: those past their deadline are answered, the next one goes to the worker. */
static struct rb_job *serve(struct host *h) {
    for (unsigned i = 0; i < DEPTH + 1; i++) {
        struct rb_job *j = &h->jobs[i];
        if (!j->queued.share || !j->due_ns || j->due_ns > h->now) continue;
        rb_queue_remove(&h->queue, j);
        leave(h, j);
    }
    struct rb_job *j = rb_queue_first(&h->queue, h->now);
    if (!j) return NULL;
    rb_queue_take(&h->queue, j);
    leave(h, j);
    h->now += MS;
    return j;
}

/* The number of the tenant whose job is served. */
static unsigned serve_whose(struct host *h) {
    const struct rb_tenant *whose = rb_queue_first(&h->queue, h->now)->tenant;
    unsigned number = rb_be32((const uint8_t *)whose->name);
    CHECK(serve(h) != NULL);
    return number;
}

static void host_close(struct host *h) {
    struct rb_job *j;
    while ((j = rb_queue_oldest(&h->queue))) {
        rb_queue_remove(&h->queue, j);
        leave(h, j);
    }
    rb_tenants_fini(&h->tenants);
    free(h);
}

/* How many jobs are served before the victim, which came when the stream had filled the queue; `most` when it is not served by then. */
typedef void stream(struct host *h);
static unsigned served_before(struct host *h, stream *adversary, unsigned band, unsigned due_ms,
                              unsigned number, unsigned most) {
    while (h->idle_count > 1) adversary(h);
    struct rb_job *victim = ask(h, band, due_ms, number), *j;
    for (unsigned served = 0; served < most; served++) {
        adversary(h);
        adversary(h);
        j = serve(h);
        if (j == victim) return served;
        CHECK(j != NULL);
    }
    return most;
}

/* --- Bands -------------------------------------------------------------------------------------- */

static void critical_ones(struct host *h) { ask(h, 0, 0, 0); }

static void an_endless_stream_of_critical_jobs_holds_a_low_one_back_for_a_bounded_time(void) {
    struct host *h = host_open(AGING_MS, PATIENCE_MS);
    /* 3 * aging until it is critical too; then its urgency is older than that of all but those before it. */
    unsigned bound = 3 * AGING_MS + DEPTH;
    CHECK(served_before(h, critical_ones, 3, 0, 0, 10 * bound) <= bound);
    host_close(h);
    h = host_open(0, PATIENCE_MS);
    CHECK_EQUAL(served_before(h, critical_ones, 3, 0, 0, 10 * bound), 10 * bound);
    host_close(h);
}

/* --- Urgency ------------------------------------------------------------------------------------ */

static void short_ones(struct host *h) { ask(h, 2, 3 + (unsigned)(h->ids % 3), 0); }

static void an_endless_stream_of_short_deadlines_holds_a_long_one_back_for_a_bounded_time(void) {
    struct host *h = host_open(0, PATIENCE_MS);
    unsigned bound = PATIENCE_MS + DEPTH;
    CHECK(served_before(h, short_ones, 2, 3600000, 0, 10 * bound) <= bound);
    host_close(h);
    h = host_open(0, 0);
    CHECK_EQUAL(served_before(h, short_ones, 2, 3600000, 0, 10 * bound), 10 * bound);
    host_close(h);
}

/* --- Tenants ------------------------------------------------------------------------------------ */

static void of_one_tenant(struct host *h) { ask(h, 2, 0, 1); }

static void a_tenant_with_one_job_is_next_beside_one_with_all_the_others(void) {
    struct host *h = host_open(AGING_MS, PATIENCE_MS);
    CHECK(served_before(h, of_one_tenant, 2, 0, 2, 3 * DEPTH) <= 1);
    host_close(h);
    /* As one tenant's, it waits until those before it are served. */
    h = host_open(AGING_MS, PATIENCE_MS);
    CHECK_EQUAL(served_before(h, of_one_tenant, 2, 0, 1, 3 * DEPTH), DEPTH);
    host_close(h);
}

static void made_up_names(struct host *h) { ask(h, 2, 0, 10 + (unsigned)(h->ids % 4000)); }

static void an_endless_stream_of_new_names_does_not_keep_a_tenant_waiting(void) {
    struct host *h = host_open(0, 0);
    unsigned bound = 2 * (DEPTH + 1) + DEPTH;
    CHECK(served_before(h, made_up_names, 2, 0, 1, 10 * bound) <= bound);
    /* Nor has it fallen behind by what it had: its next one waits no longer. */
    CHECK(served_before(h, made_up_names, 2, 0, 1, 10 * bound) <= bound);
    host_close(h);
}

enum { HEAVY = 50, WEIGHT = 20 };

static void weigh_the_heavy(struct host *h) {
    weigh(h, 1, 1);
    for (unsigned i = 0; i < HEAVY; i++) weigh(h, 10 + i, WEIGHT);
}
static void heavy_ones(struct host *h) { ask(h, 0, 0, 10 + (unsigned)(h->ids % HEAVY)); }

static void a_light_tenant_has_its_turn_after_those_that_heavier_ones_have_had(void) {
    struct host *h = host_open(AGING_MS, PATIENCE_MS);
    unsigned turns = HEAVY * WEIGHT + 1; /* W/w */
    weigh_the_heavy(h);
    CHECK(served_before(h, heavy_ones, 0, 0, 1, 10 * turns) <= turns + HEAVY);
    for (int i = 0; i < 5; i++) { /* now it owes a turn */
        unsigned served = served_before(h, heavy_ones, 0, 0, 1, 10 * turns);
        CHECK(served >= turns - HEAVY && served <= turns + HEAVY);
    }
    host_close(h);
}

/* All at once, at random: names, bands and deadlines, heavy tenants among them. */
static void all_of_it(struct host *h) {
    unsigned r = (unsigned)(check_random(&h->random) >> 33);
    ask(h, r % 3 ? 0 : 1, r / 3 % 2 ? 1 + r / 6 % 20 : 0, 10 + r / 120 % HEAVY);
}

static void the_bounds_add_up_against_all_of_it_at_once(void) {
    /* Until it is critical; then its tenant's turn: W/w turns of newcomers, as many of those that wait, and one of each (share.h). */
    unsigned bound = 3 * AGING_MS + 2 * (HEAVY * WEIGHT + 1) + HEAVY, worst = 0;
    for (uint64_t seed = 1; seed <= 20; seed++) {
        struct host *h = host_open(AGING_MS, PATIENCE_MS);
        h->random = seed;
        weigh_the_heavy(h);
        for (int i = 0; i < 3; i++) {
            unsigned served = served_before(h, all_of_it, 3, 0, 1, 10 * bound);
            if (served > worst) worst = served;
        }
        host_close(h);
    }
    CHECK(worst <= bound);
    CHECK(worst > 3 * AGING_MS); /* it is an adversary */
}

/* Beside a heavy tenant that always waits, names that come with one job and go: the clock runs ahead, and who is new waits for it. */
static void one_heavy_and_new_names(struct host *h) {
    ask(h, 0, 0, h->ids % 3 ? 2 : 10 + (unsigned)(h->ids % 4000));
}

static void a_clock_that_runs_ahead_makes_nobody_wait_beyond_the_bound(void) {
    for (uint32_t weight = 1; weight <= RB_WEIGHT_MAX; weight *= 10) {
        struct host *h = host_open(AGING_MS, PATIENCE_MS);
        unsigned sum = RB_WEIGHT_MAX + DEPTH * RB_WEIGHT_DEFAULT + weight;
        unsigned least = weight < RB_WEIGHT_DEFAULT ? weight : RB_WEIGHT_DEFAULT;
        unsigned bound = 2 * sum / weight + 3 * sum / least + 1;
        weigh(h, 1, weight);
        weigh(h, 2, RB_WEIGHT_MAX);
        for (int i = 0; i < 5000; i++) {
            one_heavy_and_new_names(h);
            serve(h);
        }
        for (int i = 0; i < 3; i++)
            CHECK(served_before(h, one_heavy_and_new_names, 0, 0, 1, 2 * bound) <= bound);
        host_close(h);
    }
}

/* At every moment, for every two tenants that always have something waiting: their shares, by weight, are never further apart than
 * one job of each (Goyal et al., theorem 1). */
static void shares_follow_the_weights_at_every_moment(void) {
    static const uint32_t weights[] = {1, 2, 5, 10};
    struct host *h = host_open(0, 0);
    unsigned had[4] = {0}, waiting[4] = {0};
    for (unsigned t = 0; t < 4; t++) weigh(h, t + 1, weights[t]);
    for (unsigned served = 0; served < 5000; served++) {
        for (unsigned t = 0; t < 4; t++) {
            while (waiting[t] < 20 && ask(h, 2, 0, t + 1)) waiting[t]++;
        }
        unsigned t = serve_whose(h) - 1;
        had[t]++;
        waiting[t]--;
        for (unsigned a = 0; a < 4; a++) {
            for (unsigned b = 0; b < a; b++) {
                double apart = (double)had[a] / weights[a] - (double)had[b] / weights[b];
                double most = 1.0 / weights[a] + 1.0 / weights[b] + 1e-3; /* whole tags */
                CHECK(apart <= most && apart >= -most);
            }
        }
    }
    host_close(h);
}

static void a_changed_weight_counts_from_the_next_turn(void) {
    struct host *h = host_open(0, 0);
    unsigned had[2] = {0};
    for (int i = 0; i < DEPTH / 2; i++) ask(h, 2, 0, 1), ask(h, 2, 0, 2);
    for (int i = 0; i < 100; i++) had[serve_whose(h) - 1]++;
    CHECK_EQUAL(had[0], 50);
    weigh(h, 2, 3 * RB_WEIGHT_DEFAULT); /* while both wait */
    for (int i = 0; i < 100; i++) had[serve_whose(h) - 1]++;
    CHECK_EQUAL(had[0], 75);
    host_close(h);
}

int main(void) {
    RUN(an_endless_stream_of_critical_jobs_holds_a_low_one_back_for_a_bounded_time);
    RUN(an_endless_stream_of_short_deadlines_holds_a_long_one_back_for_a_bounded_time);
    RUN(a_tenant_with_one_job_is_next_beside_one_with_all_the_others);
    RUN(an_endless_stream_of_new_names_does_not_keep_a_tenant_waiting);
    RUN(a_light_tenant_has_its_turn_after_those_that_heavier_ones_have_had);
    RUN(the_bounds_add_up_against_all_of_it_at_once);
    RUN(a_clock_that_runs_ahead_makes_nobody_wait_beyond_the_bound);
    RUN(shares_follow_the_weights_at_every_moment);
    RUN(a_changed_weight_counts_from_the_next_turn);
    return check_end();
}
