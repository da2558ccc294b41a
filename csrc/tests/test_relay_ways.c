/* All ways of asking at once, at random: plain calls, batches, asynchronous jobs, shared runs and streams, with payloads that arrive by and
 * by, callers that leave, die, cancel by reference or by number, nodes and workers that go, services that end and begin again. Whatever
 * comes of it: the books are even, each request is over once, and nothing that was taken from a pool stays out. */
#define _GNU_SOURCE
#include "crew.h"
#include "relay/relay_pvt.h"

enum { SEEDS = 6, WORKERS = 3, STEPS = 4000, REFERENCES = 16 };

struct ways {
    struct crew crew;
    uint64_t seed;
    struct rb_slice heard[REFERENCES]; /* references that the relay has made, in `heard_at` */
    uint8_t heard_at[REFERENCES][64];
    uint32_t heard_count;
    uint8_t in[1 << 22];
    size_t in_size;
    uint64_t jobs[REFERENCES]; /* numbers of jobs that workers were given */
    uint32_t jobs_count;
    uint64_t part_job[WORKERS];
    uint32_t parts[WORKERS]; /* of that job so far */
};

static unsigned pick(struct ways *s, unsigned below) {
    return (unsigned)(check_random(&s->seed) % below);
}
static void put_number(struct lab_bytes *b, uint32_t number) {
    PUT(b, "\x62");
    lab_put_u32(b, number);
}

/* --- Asking ------------------------------------------------------------------------------------------------------------------ */

static void put_payload(struct ways *s, struct lab_bytes *b, int shared) {
    static const uint8_t zeros[2000];
    if (!shared && pick(s, 4) == 0)
        put_number(b, 7); /* a term */
    else
        lab_put_binary(b, zeros, shared || pick(s, 2) ? 3 : sizeof zeros);
}

static void put_options(struct ways *s, struct lab_bytes *b, int dedupe, int orphan) {
    struct lab_bytes o = {.size = 0};
    uint32_t count = 0;
    if (dedupe) {
        lab_put_atom(&o, "dedupe"), put_number(&o, pick(s, 6));
        lab_put_atom(&o, "ttl"), put_number(&o, pick(s, 3) * 20);
        count += 2;
    }
    if (orphan && pick(s, 3) == 0) lab_put_atom(&o, "orphan"), lab_put_atom(&o, "finish"), count++;
    if (pick(s, 2)) lab_put_atom(&o, "timeout"), put_number(&o, 1 + pick(s, 60)), count++;
    if (pick(s, 3) == 0) lab_put_atom(&o, "key"), put_number(&o, pick(s, 3)), count++;
    if (pick(s, 3) == 0) lab_put_atom(&o, "retry"), put_number(&o, pick(s, 3)), count++;
    if (pick(s, 4) == 0) lab_put_atom(&o, "meta"), PUT(&o, "\x74\0\0\0\1\x61\1\x61\2"), count++;
    if (pick(s, 4) == 0) lab_put_atom(&o, "detail"), lab_put_atom(&o, "true"), count++;
    PUT(b, "\x74");
    lab_put_u32(b, count);
    lab_put(b, o.at, o.size);
}

static void ask(struct ways *s) {
    struct lab_bytes b = {.size = 0};
    uint32_t ref = ++s->crew.refs;
    unsigned verb = pick(s, 3), dedupe = verb < 2 && pick(s, 2);
    if (pick(s, 8)) lab_monitor(s->crew.lab.peer, 1, ref, ref);
    lab_call_head(&b, ref, ref);
    lab_verb_head(&b, 4, verb == 0 ? "submit" : verb == 1 ? "submit_async" : "submit_many", "echo");
    if (verb == 2) {
        uint32_t count = pick(s, 3) * 3;
        PUT(&b, "\x6c");
        lab_put_u32(&b, count);
        for (uint32_t i = 0; i < count; i++) lab_put_binary(&b, "abc", 3);
        PUT(&b, "\x6a");
    } else {
        put_payload(s, &b, (int)dedupe);
    }
    put_options(s, &b, (int)dedupe, 1);
    lab_frame(s->crew.lab.peer, &b);
}

/* A payload that does not lie whole in the buffer, and whose end may never come. */
static void ask_large(struct ways *s) {
    static const uint8_t zeros[90000];
    struct lab_bytes b = {.size = 0}, options = {.size = 0};
    uint32_t ref = ++s->crew.refs;
    lab_monitor(s->crew.lab.peer, 1, ref, ref);
    lab_call_head(&b, ref, ref);
    lab_verb_head(&b, 4, pick(s, 2) ? "submit" : "submit_async", "echo");
    PUT(&b, "\x6d");
    lab_put_u32(&b, sizeof zeros);
    put_options(s, &options, (int)pick(s, 2), 1);
    uint8_t head[7] = {0, 0, 0, 0, 131, 68, 0};
    rb_put_be32(head, (uint32_t)(b.size + 3 + sizeof zeros + options.size));
    lab_write(s->crew.lab.peer, head, sizeof head);
    lab_write(s->crew.lab.peer, b.at, b.size);
    lab_write(s->crew.lab.peer, zeros, 500);
    crew_round(&s->crew);
    if (pick(s, 8) == 0) { /* its node is gone amid it */
        close(s->crew.lab.peer);
        crew_round(&s->crew);
        s->in_size = 0;
        s->crew.lab.peer = lab_connect(&s->crew.lab);
        crew_round(&s->crew);
        return;
    }
    lab_write(s->crew.lab.peer, zeros, sizeof zeros - 500);
    lab_write(s->crew.lab.peer, options.at, options.size);
}

static void stage(struct ways *s) {
    static const char *const verbs[] = {"subscribe", "ask", "cancel"};
    struct lab_bytes b = {.size = 0};
    unsigned verb = pick(s, 3);
    uint32_t tag = 90000 + pick(s, 6);
    PUT(&b, "\x68\x04\x61\x06");
    lab_put_pid(&b, "peer@host", tag);
    lab_put_atom(&b, "");
    lab_put_atom(&b, "streams");
    PUT(&b, "\x68\x03");
    lab_put_atom(&b, "$gen_producer");
    PUT(&b, "\x68\x02");
    lab_put_pid(&b, "peer@host", tag);
    lab_put_ref(&b, tag);
    uint8_t tuple[2] = {RB_TAG_SMALL_TUPLE, verb == 0 ? 3 : 2};
    lab_put(&b, tuple, 2);
    lab_put_atom(&b, verbs[verb]);
    if (verb == 0) {
        lab_put_atom(&b, "nil");
        PUT(&b, "\x6c\x00\x00\x00\x01\x68\x02");
        lab_put_atom(&b, "job");
        PUT(&b, "\x68\x03");
        lab_put_atom(&b, "echo");
        lab_put_binary(&b, "go", 2);
        put_options(s, &b, 0, 0);
        PUT(&b, "\x6a");
    } else if (verb == 1) {
        put_number(&b, pick(s, 20));
    } else {
        lab_put_atom(&b, "enough");
    }
    lab_frame(s->crew.lab.peer, &b);
}

/* {cancel, _} or {status, _}, of a number or a reference that is one, was one, or never was. */
static void look_or_cancel(struct ways *s) {
    struct lab_bytes b = {.size = 0};
    uint32_t ref = ++s->crew.refs, by_ref = s->heard_count && pick(s, 2);
    lab_call_head(&b, ref, ref);
    PUT(&b, "\x68\x02");
    lab_put_atom(&b, pick(s, 3) ? "cancel" : "status");
    if (by_ref) {
        struct rb_slice *r = &s->heard[pick(s, s->heard_count)];
        lab_put(&b, r->at, r->size);
    } else {
        PUT(&b, "\x6e\x08\x00");
        uint64_t id = s->jobs_count ? s->jobs[pick(s, s->jobs_count)] + pick(s, 2) : 1;
        lab_put(&b, &id, 8);
    }
    lab_frame(s->crew.lab.peer, &b);
}

/* DOWN of somebody whom the relay watches, or has watched: {21, From, Pid, Ref, Reason}. */
static void die(struct ways *s) {
    struct lab_bytes b = {.size = 0};
    if (!s->heard_count) return;
    struct rb_slice *r = &s->heard[pick(s, s->heard_count)];
    PUT(&b, "\x68\x04\x61\x1c"); /* PAYLOAD_MONITOR_P_EXIT */
    lab_put_pid(&b, "peer@host", 1);
    lab_put_atom(&b, "job_dispatcher");
    lab_put(&b, r->at, r->size);
    lab_put_atom(&b, "killed");
    lab_frame(s->crew.lab.peer, &b);
}

/* --- Hearing ----------------------------------------------------------------------------------------------------------------- */

static void keep_reference(struct ways *s, const uint8_t *body, size_t size) {
    static const uint8_t ours[] = "\x5a\x00\x03\x77\x0b"
                                  "bridge@host";
    const uint8_t *p = memmem(body, size, ours, sizeof ours - 1);
    size_t bytes = sizeof ours - 1 + 16;
    if (!p || p + bytes > body + size) return;
    uint32_t i = s->heard_count < REFERENCES ? s->heard_count++ : pick(s, REFERENCES);
    memcpy(s->heard_at[i], p, bytes);
    s->heard[i] = (struct rb_slice){s->heard_at[i], bytes};
}

static void listen_for(struct ways *s) {
    ssize_t n;
    while ((n = recv(s->crew.lab.peer, s->in + s->in_size, sizeof s->in - s->in_size,
                     MSG_DONTWAIT)) > 0) {
        s->in_size += (size_t)n;
        size_t at = 0;
        while (s->in_size - at >= 4 && s->in_size - at - 4 >= rb_be32(s->in + at)) {
            keep_reference(s, s->in + at + 4, rb_be32(s->in + at));
            at += 4 + rb_be32(s->in + at);
        }
        memmove(s->in, s->in + at, s->in_size - at);
        s->in_size -= at;
    }
}

/* --- Working ----------------------------------------------------------------------------------------------------------------- */

static void work(struct ways *s, int w) {
    static const uint8_t large[60000];
    struct rb_lab_request q;
    if (crew_has(&s->crew, w) <= 0 || rb_lab_request(s->crew.workers[w], 0, &q) < 0) return;
    s->jobs[s->jobs_count < REFERENCES ? s->jobs_count++ : pick(s, REFERENCES)] = q.job;
    if (s->part_job[w] != q.job) s->part_job[w] = q.job, s->parts[w] = 0;
    rb_lab_start(s->crew.workers[w], 1);
    struct rb_lab_answer a = {.job = q.job, .run_ns = 1000, .payload = large, .payload_bytes = 5};
    if (q.flags & RB_FLAG_PARTS && pick(s, 3)) {
        if (s->parts[w] >= q.demand) return;
        a.status = RB_STATUS_PART;
        if (rb_lab_complete(s->crew.workers[w], &a) == 0) s->parts[w]++;
        return;
    }
    if (q.flags & RB_FLAG_PROGRESS && pick(s, 2)) {
        a.status = RB_STATUS_PROGRESS;
        rb_lab_complete(s->crew.workers[w], &a);
        return;
    }
    a.status = q.cancelled ? RB_STATUS_CANCELLED : pick(s, 4) ? RB_STATUS_OK : RB_STATUS_FAILED;
    if (a.status != RB_STATUS_CANCELLED && pick(s, 3) == 0) a.payload_bytes = sizeof large;
    if (rb_lab_complete(s->crew.workers[w], &a) == 0) rb_lab_release(s->crew.workers[w], 1);
}

static void change(struct ways *s, int w) {
    struct rb_relay *r = s->crew.lab.relay;
    unsigned what = pick(s, 6);
    if (what == 0) {
        crew_die(&s->crew, w);
        crew_hire(&s->crew, w);
    } else if (what == 1) {
        enum rb_service service = pick(s, 2) ? RB_SERVICE_JOBS : RB_SERVICE_STREAMS;
        rb_relay_service_down(r, service, (const uint8_t *)"\x77\x08shutdown", 10);
        crew_round(&s->crew);
        rb_relay_install_service(r, service, service == RB_SERVICE_JOBS ? 1 : 2, 0,
                                 service == RB_SERVICE_JOBS ? "job_dispatcher\0" : "streams\0");
    } else if (what == 2) {
        close(s->crew.lab.peer);
        crew_round(&s->crew);
        s->in_size = 0;
        s->crew.lab.peer = lab_connect(&s->crew.lab);
    } else {
        s->crew.role.admission.on_full = pick(s, 3);
        s->crew.role.admission.depth_max = pick(s, 2) ? 1000 : 1 + pick(s, 8);
        s->crew.role.choice.ordered = pick(s, 2);
        crew_configure(&s->crew);
    }
}

/* --- The run ----------------------------------------------------------------------------------------------------------------- */

static void look_at_the_books(struct ways *s) {
    char why[256] = "";
    if (rb_relay_audit(s->crew.lab.relay, why, sizeof why) < 0 && check_breaches++ < 10)
        printf("%s\n", why);
}

static void step(struct ways *s) {
    int w = (int)pick(s, WORKERS);
    unsigned what = pick(s, 256);
    if (what < 4)
        change(s, w);
    else if (what < 24 && s->crew.refs) {
        uint32_t gone = s->crew.refs - pick(s, s->crew.refs < 30 ? s->crew.refs : 30);
        lab_monitor(s->crew.lab.peer, 0, gone, gone);
    } else if (what < 34)
        die(s);
    else if (what < 48)
        look_or_cancel(s);
    else if (what < 80)
        stage(s);
    else if (what < 140)
        ask(s);
    else if (what < 146)
        ask_large(s);
    else
        work(s, w);
    if (what % 2) crew_round(&s->crew);
    if (what % 32 == 1) crew_after(&s->crew, 1 + pick(s, 10));
}

static uint32_t free_extras(const struct rb_relay *r) {
    uint32_t count = 0;
    for (const struct rb_extra *e = r->free_extras; e; e = e->next) count++;
    return count;
}

static void ways(uint64_t seed) {
    struct ways *s = calloc(1, sizeof *s);
    struct rb_role_config role = crew_role();
    if (!s) abort();
    s->seed = seed;
    role.choice.credit_us = 2;
    role.idempotent = 1;
    role.timeout_default_ms = role.timeout_max_ms = 500;
    role.admission.defer_max = 20;
    role.admission.defer_ms = 30;
    crew_open(&s->crew, WORKERS, &role);
    struct rb_relay *r = s->crew.lab.relay;
    if (rb_relay_install_service(r, RB_SERVICE_STREAMS, 2, 0, "streams\0") < 0) abort();
    for (int i = 0; i < STEPS && !check_breaches; i++) {
        step(s);
        listen_for(s);
        if (i % 16 == 0) look_at_the_books(s);
    }
    for (int i = 0; i < 2000 && !check_breaches; i++) { /* nobody comes any more */
        for (int w = 0; w < WORKERS; w++) work(s, w);
        crew_after(&s->crew, 1);
        listen_for(s);
    }
    crew_after(&s->crew, 2000);
    look_at_the_books(s);
    while (rb_relay_take(r, &s->crew.lab.event))
        if (s->crew.lab.event.kind == RB_EVENT_WORKER_BROKE) CHECK(!"a rule broken by its worker");
    struct rb_relay_stats stats;
    rb_relay_read_stats(r, &stats);
    uint64_t answered = 0;
    for (int i = 0; i < RB_REASONS; i++) answered += stats.answered[i];
    CHECK_EQUAL(stats.accepted, answered);
    CHECK_EQUAL(stats.in_flight, 0);
    CHECK_EQUAL(stats.streams, 0);
    CHECK(stats.answered[RB_REASON_OK] > 100 && stats.events > 0);
    CHECK_EQUAL(r->shared.count, 0);
    CHECK_EQUAL(free_extras(r), r->extra_count);
    CHECK_EQUAL(r->roles[0]->jobs, 0);
    CHECK_EQUAL(r->roles[0]->pool.region.taken, 0);
    CHECK_EQUAL(r->heap_count, 0);
    if (check_breaches) printf("seed %llu\n", (unsigned long long)seed);
    crew_close(&s->crew);
    free(s);
}

static void each_request_is_over_once_and_leaves_nothing_behind(void) {
    for (uint64_t seed = 1; seed <= SEEDS; seed++) ways(seed);
}

int main(void) {
    RUN(each_request_is_over_once_and_leaves_nothing_behind);
    return check_end();
}
