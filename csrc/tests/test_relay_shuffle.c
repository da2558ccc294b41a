/* Everything that decides on order at once, at random: bands, deadlines, tenants, keys, retries, and callers that leave, workers that die
 * or drain, breakers that open, settings of role and tenants that change while jobs wait. Whatever comes of it: the books are even after every few steps, each job is
 * over in the end, and in an ordered role jobs of one key run one at a time, as they came. */
#define _GNU_SOURCE
#include "crew.h"

enum { KEYS = 6, WORKERS = 4, JOBS_MOST = 20000, STEPS = 6000 };

struct shuffle {
    struct crew crew;
    uint64_t seed;
    int ordered; /* all the time: then order is looked at, too */
    uint32_t key_of[JOBS_MOST], last_begun[KEYS + 1];
    int busy[WORKERS], running[KEYS + 1]; /* busy: key + 1 of the job that runs; key 0: none */
};

static unsigned pick(struct shuffle *s, unsigned below) {
    return (unsigned)(check_random(&s->seed) % below);
}

static void put_number(struct lab_bytes *b, uint32_t number) {
    PUT(b, "\x62");
    lab_put_u32(b, number);
}

static void ask(struct shuffle *s) {
    static const char *const bands[] = {"critical", "high", "normal", "low"};
    static const char *const tenants[] = {"gold", "tin", "lead"};
    struct lab_bytes b = {.size = 0};
    uint32_t ref = ++s->crew.refs, key = pick(s, KEYS + 1), options = 3;
    unsigned band = pick(s, 4), tenant = pick(s, 4), timeout = pick(s, 3);
    s->key_of[ref] = key;
    lab_monitor(s->crew.lab.peer, 1, ref, ref);
    lab_call_head(&b, ref, ref);
    lab_submit_head(&b, 4, "echo");
    lab_put_binary(&b, &ref, sizeof ref);
    PUT(&b, "\x74");
    lab_put_u32(&b, options + (tenant < 3) + (key > 0));
    lab_put_atom(&b, "priority"), lab_put_atom(&b, bands[band]);
    lab_put_atom(&b, "timeout"), put_number(&b, timeout ? 50000 : 1 + pick(s, 20));
    lab_put_atom(&b, "retry"), put_number(&b, pick(s, 3));
    if (tenant < 3) lab_put_atom(&b, "tenant"), lab_put_atom(&b, tenants[tenant]);
    if (key) lab_put_atom(&b, "key"), put_number(&b, key);
    lab_frame(s->crew.lab.peer, &b);
}

static void over(struct shuffle *s, int w) {
    if (s->busy[w] > 1) s->running[s->busy[w] - 1] = 0;
    s->busy[w] = 0;
}

static void begin_one(struct shuffle *s, int w) {
    uint32_t n = crew_begin(&s->crew, w), key = s->key_of[n];
    s->busy[w] = (int)key + 1;
    if (key == 0 || !s->ordered) return;
    CHECK(!s->running[key]);
    CHECK(n >= s->last_begun[key]); /* the same: its worker died, and it is tried again */
    s->last_begun[key] = n;
    s->running[key] = 1;
}

static void work(struct shuffle *s, int w) {
    if (crew_has(&s->crew, w) <= 0) return;
    if (!s->busy[w]) {
        begin_one(s, w);
        return;
    }
    over(s, w);
    crew_finish(&s->crew, w, pick(s, 3) ? 1000 : 300000);
}

static void replace(struct shuffle *s, int w, int drains) {
    if (drains) {
        rb_relay_drain_worker(s->crew.lab.relay, s->crew.ids[w]);
        crew_round(&s->crew);
        while (crew_has(&s->crew, w) > 0) work(s, w), crew_round(&s->crew);
    }
    over(s, w);
    crew_die(&s->crew, w);
    if (pick(s, 2)) crew_round(&s->crew);
    crew_hire(&s->crew, w);
}

static void change_settings(struct shuffle *s) {
    static const uint32_t ms[] = {0, 1, 7, 1000};
    static const uint32_t policies[] = {RB_CHOICE_SHORTEST_QUEUE, RB_CHOICE_ROUND_ROBIN,
                                        RB_CHOICE_CONSISTENT_HASH, RB_CHOICE_TWO_CHOICES};
    struct rb_role_config *role = &s->crew.role;
    struct rb_tenant_config given = {.weight = 1 + pick(s, 50)};
    rb_relay_configure_tenant(s->crew.lab.relay, "gold", pick(s, 3) ? &given : NULL);
    role->order =
        (struct rb_order_config){.aging_ms = ms[pick(s, 4)], .patience_ms = ms[pick(s, 4)]};
    role->choice.policy = policies[pick(s, 4)];
    role->choice.steal = pick(s, 2);
    if (!s->ordered) role->choice.ordered = pick(s, 2);
    struct rb_admission_config *admission = &role->admission;
    admission->on_full = pick(s, 3);
    admission->depth_max = pick(s, 3) ? 100000 : 1 + pick(s, 40);
    admission->defer_max = 1 + pick(s, 50);
    admission->defer_ms = 1 + pick(s, 50);
    /* Who is deferred for his tenant's sake alone may be passed by his key's next job of another tenant. */
    admission->tenant_depth_max = s->ordered || pick(s, 2) ? 0 : 1 + pick(s, 20);
    crew_configure(&s->crew);
}

static void look_at_the_books(struct shuffle *s) {
    char why[256] = "";
    if (rb_relay_audit(s->crew.lab.relay, why, sizeof why) < 0 && check_breaches++ < 10)
        printf("%s\n", why);
}

static void read_away(struct shuffle *s) {
    static uint8_t body[1 << 16];
    while (lab_read(s->crew.lab.peer, body, sizeof body, 0) > 0) {
    }
}

static void step(struct shuffle *s) {
    int w = (int)pick(s, WORKERS);
    unsigned what = pick(s, 256);
    if (what < 3)
        replace(s, w, what == 0);
    else if (what < 6)
        change_settings(s);
    else if (what < 8)
        rb_relay_hold(s->crew.lab.relay, RB_SERVICE_JOBS, what == 6);
    else if (what < 10)
        rb_relay_force_breaker(s->crew.lab.relay, 0, s->crew.ids[w], pick(s, 3));
    else if (what < 12)
        rb_relay_force_breaker(s->crew.lab.relay, 0, 0, RB_FORCE_AUTO - (pick(s, 4) == 0));
    else if (what < 40 && s->crew.refs) {
        uint32_t gone = s->crew.refs - pick(s, s->crew.refs < 60 ? s->crew.refs : 60);
        lab_monitor(s->crew.lab.peer, 0, gone, gone);
    } else if (what < 140)
        ask(s);
    else
        work(s, w);
    if (what % 2) crew_round(&s->crew);
    if (what % 32 == 1) crew_after(&s->crew, 1 + pick(s, 10));
}

static void shuffle(uint64_t seed, int ordered) {
    struct shuffle *s = calloc(1, sizeof *s);
    struct rb_role_config role = crew_role();
    if (!s) abort();
    s->seed = seed;
    s->ordered = ordered;
    role.choice.ordered = (uint32_t)ordered;
    role.choice.credit_us = 2;
    role.idempotent = 1;
    crew_open(&s->crew, WORKERS, &role);
    for (int i = 0; i < STEPS && !check_breaches; i++) {
        step(s);
        if (i % 16 == 0) look_at_the_books(s), read_away(s);
    }
    rb_relay_hold(s->crew.lab.relay, RB_SERVICE_JOBS, 0);
    for (int w = 0; w < WORKERS; w++)
        rb_relay_force_breaker(s->crew.lab.relay, 0, s->crew.ids[w], RB_FORCE_CLOSED);
    for (int busy = 1; busy && !check_breaches;) {
        busy = 0;
        crew_round(&s->crew);
        for (int w = 0; w < WORKERS; w++)
            while (crew_has(&s->crew, w) > 0 && !check_breaches) work(s, w), busy = 1;
        read_away(s);
    }
    look_at_the_books(s);
    CHECK_EQUAL(crew_stats(&s->crew).queued, 0);
    uint64_t answered = 0;
    for (int i = 0; i < RB_REASONS; i++) answered += crew_stats(&s->crew).answered[i];
    CHECK_EQUAL(crew_stats(&s->crew).accepted, answered);
    CHECK(crew_stats(&s->crew).accepted > STEPS / 32);
    if (check_breaches) printf("seed %llu\n", (unsigned long long)seed);
    crew_close(&s->crew);
    free(s);
}

static void each_job_is_over_once_whatever_changes(void) {
    for (uint64_t seed = 1; seed <= 6; seed++) shuffle(seed, 0);
}

static void keys_keep_their_order_whatever_else_decides(void) {
    for (uint64_t seed = 1; seed <= 6; seed++) shuffle(seed, 1);
}

int main(void) {
    RUN(each_job_is_over_once_whatever_changes);
    RUN(keys_keep_their_order_whatever_else_decides);
    return check_end();
}
