#include "relay/service/shared.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "relay/relay_pvt.h"

enum { IDENTITY_MAX = 64 + 64 + 2 + 1 + 8 + RB_KEY_BYTES_MAX };

struct rb_shared {
    struct rb_rank expires; /* while kept; key: ns */
    struct rb_relay *relay;
    struct rb_shared *next; /* in its bucket */
    uint64_t hash, work;    /* of the key; of payload, opcode and encodings */
    struct rb_job *run;     /* NULL: it is over */
    struct rb_job *callers; /* of the run, by `next`, the last one first */
    uint32_t caller_count;  /* of the run, or those that are still to be told */
    int listed;             /* found by its key: it runs, or its answer is kept */
    uint64_t ttl_ns;
    enum rb_reason reason;
    struct rb_detail detail;
    uint8_t *answer; /* NULL: none yet, or there was no memory for it */
    size_t answer_size;
    size_t identity_size;
    uint8_t identity[IDENTITY_MAX];
};

/* --- Keys ---------------------------------------------------------------------------------------------------------------- */

/* Role, tenant and key, one behind the other and apart: lengths stand before texts. */
static size_t identity_of(const struct rb_role *role, const struct rb_options *o,
                          uint8_t identity[IDENTITY_MAX]) {
    struct rb_pen p = {identity, identity};
    size_t role_size = strlen(role->name);
    rb_pen_byte(&p, (uint8_t)role_size);
    rb_pen_bytes(&p, role->name, role_size);
    rb_pen_byte(&p, (uint8_t)o->tenant.size);
    if (o->tenant.size) rb_pen_slice(&p, o->tenant);
    rb_pen_byte(&p, o->dedupe.kind);
    rb_put_be64(p.at, (uint64_t)o->dedupe.number);
    p.at += 8;
    if (o->dedupe.text.size) rb_pen_slice(&p, o->dedupe.text);
    return rb_pen_size(&p);
}

static uint64_t fold(uint64_t a, uint64_t b) {
    unsigned __int128 product = (unsigned __int128)a * b;
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

/* 64 bits by folded multiplication, about a word a cycle, from a seed that callers do not know: payloads that differ differ here, but
 * for one case in 2^64. */
static uint64_t digest(uint64_t seed, struct rb_slice s) {
    uint64_t h = seed ^ s.size, words[2] = {0, 0};
    size_t at = 0;
    for (; at + 16 <= s.size; at += 16) {
        memcpy(words, s.at + at, 16);
        h = fold(words[0] ^ h, words[1] ^ 0x9e3779b97f4a7c15u);
    }
    words[0] = words[1] = 0;
    if (at < s.size) memcpy(words, s.at + at, s.size - at);
    return fold(words[0] ^ h ^ 0x94d049bb133111ebu, words[1] ^ 0xbf58476d1ce4e5b9u);
}

static uint64_t seed_of(const struct rb_relay *r) { return rb_seal(&r->seal, UINT64_MAX); }

static uint64_t work_of(const struct rb_relay *r, const struct rb_options *o,
                        const struct rb_payload *payload) {
    uint64_t form = (uint64_t)(payload->is_term | o->encoded << 1 | o->accepts << 2);
    return digest(seed_of(r) ^ o->opcode ^ form << 32, payload->bytes);
}

/* --- The table ----------------------------------------------------------------------------------------------------------- */

static struct rb_shared *shared_of(struct rb_rank *expires) { return (struct rb_shared *)expires; }

static void dispose(struct rb_shared *sh) {
    if (sh->listed || sh->caller_count) return;
    free(sh->answer);
    free(sh);
}

/* Nobody finds it any more. It lives on for those that are still to be told. */
static void forget(struct rb_relay *r, struct rb_shared *sh) {
    struct rb_shared **p = &r->shared.buckets[sh->hash % RB_SHARED_BUCKETS];
    while (*p != sh) p = &(*p)->next;
    *p = sh->next;
    if (sh->expires.key) {
        rb_heap_remove(&r->shared.kept, &sh->expires);
        r->shared.kept_bytes -= sh->answer_size;
    }
    r->shared.count--;
    sh->listed = 0;
    dispose(sh);
}

struct rb_shared *rb_shared_find(struct rb_relay *r, const struct rb_role *role,
                                 const struct rb_options *o) {
    uint8_t identity[IDENTITY_MAX];
    size_t size = identity_of(role, o, identity);
    uint64_t hash = digest(seed_of(r), (struct rb_slice){identity, size});
    struct rb_shared *sh = r->shared.buckets[hash % RB_SHARED_BUCKETS];
    while (sh && (sh->hash != hash || sh->identity_size != size ||
                  memcmp(sh->identity, identity, size) != 0))
        sh = sh->next;
    if (!sh || !sh->expires.key || sh->expires.key > r->now) return sh;
    forget(r, sh);
    return NULL;
}

int rb_shared_agrees(const struct rb_shared *known, struct rb_relay *r, const struct rb_options *o,
                     const struct rb_payload *payload) {
    return known->work == work_of(r, o, payload) ? 0 : -EEXIST;
}

void rb_shared_expire(struct rb_relay *r) {
    struct rb_rank *first;
    while ((first = r->shared.kept.root) &&
           (first->key <= r->now || r->shared.kept_bytes > r->config.kept_bytes_max))
        forget(r, shared_of(first));
}

void rb_shared_fini(struct rb_relay *r) {
    for (int i = 0; i < RB_SHARED_BUCKETS; i++) {
        while (r->shared.buckets[i]) forget(r, r->shared.buckets[i]);
    }
}

static struct rb_shared *make(struct rb_relay *r, const struct rb_role *role,
                              const struct rb_options *o, const struct rb_payload *payload) {
    if (r->shared.count == RB_SHARED_MAX) {
        if (!r->shared.kept.root) return NULL;
        forget(r, shared_of(r->shared.kept.root));
    }
    struct rb_shared *sh = calloc(1, sizeof *sh);
    if (!sh) return NULL;
    sh->relay = r;
    sh->identity_size = identity_of(role, o, sh->identity);
    sh->hash = digest(seed_of(r), (struct rb_slice){sh->identity, sh->identity_size});
    sh->work = work_of(r, o, payload);
    struct rb_shared **bucket = &r->shared.buckets[sh->hash % RB_SHARED_BUCKETS];
    sh->next = *bucket;
    *bucket = sh;
    sh->listed = 1;
    r->shared.count++;
    return sh;
}

/* --- Callers ------------------------------------------------------------------------------------------------------------- */

/* {ok, Value} begins with so many bytes, as answer.c writes it. */
static const uint8_t ok_head[] = {RB_TAG_SMALL_TUPLE, 2, RB_TAG_SMALL_ATOM_UTF8, 2, 'o', 'k'};

static const uint8_t no_memory[] = "the bridge has no memory for an answer that callers share";

static void tell(const struct rb_shared *sh, const struct rb_job *caller, enum rb_reason reason) {
    struct rb_caller to = rb_job_caller(caller);
    struct rb_slice body = {sh->answer, sh->answer_size}, tail = {NULL, 0};
    struct rb_reply reply;
    uint8_t room[RB_DETAIL_ROOM];
    if (!sh->answer) {
        if (reason == RB_REASON_JOB_FAILED)
            rb_answer_failed(&to, RB_CODE_ANSWER_TOO_LARGE, no_memory, sizeof no_memory - 1);
        else
            rb_answer_reason(&to, reason);
        return;
    }
    if (!rb_reply_begin(&reply, &to, 64)) return;
    if (caller->detail && body.size > sizeof ok_head &&
        memcmp(body.at, ok_head, sizeof ok_head) == 0) {
        struct rb_pen p = {room, room};
        rb_detail_write(&p, &sh->detail);
        tail = rb_pen_written(&p);
        rb_pen_tuple(&reply.pen, 3);
        rb_pen_atom(&reply.pen, "ok");
        body.at += sizeof ok_head;
        body.size -= sizeof ok_head;
    }
    rb_reply_end_with(&reply, body, tail);
}

enum {
    TOLD_AT_ONCE = 4096, /* bytes of an answer that are small, however many share it */
    TELL_BYTES = 1
        << 20, /* of larger ones, to one connection in one flush: others have their turn */
};

/* The run of this caller is over: it hears of it, of a large answer when its socket is written next, and has room. */
static void is_to_be_told(struct rb_relay *r, struct rb_shared *sh, struct rb_job *j) {
    struct rb_conn *c = j->conn;
    if (!c || sh->answer_size <= TOLD_AT_ONCE) {
        tell(sh, j, sh->reason);
        rb_job_answered(r, j, sh->reason);
        return;
    }
    sh->caller_count++;
    rb_job_due(r, j, 0); /* the answer is there */
    j->later = NULL;
    j->earlier = c->untold_last;
    *(c->untold_last ? &c->untold_last->later : &c->untold) = j;
    c->untold_last = j;
    rb_conn_dirty(c);
}

static void is_told(struct rb_shared *sh, struct rb_job *j) {
    struct rb_conn *c = j->conn;
    *(j->earlier ? &j->earlier->later : &c->untold) = j->later;
    *(j->later ? &j->later->earlier : &c->untold_last) = j->earlier;
    j->extra->shared = NULL;
    sh->caller_count--;
    dispose(sh);
}

void rb_shared_tell(struct rb_conn *c) {
    struct rb_relay *r = c->relay;
    size_t bytes = 0;
    while (c->untold && bytes < TELL_BYTES && !c->failed &&
           rb_conn_waiting_bytes(c) <= r->config.outgoing_low_bytes) {
        struct rb_job *j = c->untold;
        struct rb_shared *sh = j->extra->shared;
        enum rb_reason reason = sh->reason;
        bytes += sh->answer_size;
        tell(sh, j, reason);
        is_told(sh, j);
        rb_job_answered(r, j, reason);
    }
}

int rb_shared_is_over(const struct rb_shared *sh) { return !sh->run; }
uint32_t rb_shared_callers(const struct rb_shared *sh) { return sh->caller_count; }

static void add_caller(struct rb_shared *sh, struct rb_job *j, const struct rb_options *o) {
    uint64_t ttl_ns = o->ttl_ms * NS_PER_MS;
    j->next = sh->callers;
    sh->callers = j;
    sh->caller_count++;
    if (ttl_ns > sh->ttl_ns) sh->ttl_ns = ttl_ns;
}

void rb_shared_leave(struct rb_relay *r, struct rb_job *caller, enum rb_reason reason) {
    struct rb_shared *sh = caller->extra->shared;
    struct rb_job **p = &sh->callers;
    if (!sh->run) {
        is_told(sh, caller);
        rb_job_answered(r, caller, reason);
        return;
    }
    while (*p != caller) p = &(*p)->next;
    *p = caller->next;
    sh->caller_count--;
    struct rb_job *run = sh->callers ? NULL : sh->run;
    rb_job_answered(r, caller, reason);
    if (run) rb_job_cancel(r, run, reason);
}

/* --- A run --------------------------------------------------------------------------------------------------------------- */

struct rb_relay *rb_shared_relay(const struct rb_shared *sh) { return sh->relay; }

void rb_shared_put(struct rb_shared *sh, const struct rb_slice pieces[3]) {
    size_t size = pieces[0].size + pieces[1].size + pieces[2].size;
    free(sh->answer);
    sh->answer_size = 0;
    uint8_t *to = sh->answer = malloc(size);
    if (!to) return;
    sh->answer_size = size;
    for (int i = 0; i < 3; i++) {
        if (pieces[i].size) memcpy(to, pieces[i].at, pieces[i].size);
        to += pieces[i].size;
    }
    sh->detail = rb_detail_of(sh->run);
}

/* 1: it is kept. */
static int keep(struct rb_relay *r, struct rb_shared *sh, enum rb_reason reason) {
    uint64_t most = r->config.kept_bytes_max;
    if ((reason != RB_REASON_OK && reason != RB_REASON_JOB_FAILED) || !sh->ttl_ns || !sh->answer ||
        sh->answer_size > most)
        return 0;
    while (r->shared.kept_bytes + sh->answer_size > most) forget(r, shared_of(r->shared.kept.root));
    sh->expires.key = r->now + sh->ttl_ns;
    rb_heap_add(&r->shared.kept, &sh->expires);
    r->shared.kept_bytes += sh->answer_size;
    return 1;
}

void rb_shared_over(struct rb_relay *r, struct rb_job *run, enum rb_reason reason) {
    struct rb_shared *sh = run->extra->shared;
    struct rb_job *first = NULL; /* of its callers, as they came */
    for (struct rb_job *j = sh->callers, *next; j; j = next) {
        next = j->next;
        j->next = first;
        first = j;
    }
    sh->caller_count = 0;
    run->extra->shared = NULL;
    sh->run = NULL;
    sh->callers = NULL;
    if (!sh->answer && reason == RB_REASON_OK) reason = RB_REASON_JOB_FAILED;
    sh->reason = reason;
    for (struct rb_job *j = first, *next; j; j = next) {
        next = j->next;
        is_to_be_told(r, sh, j);
    }
    if (!keep(r, sh, reason)) forget(r, sh);
}

/* The run takes the payload over from the first caller's record. NULL: there is no room for one. */
static struct rb_job *make_run(struct rb_relay *r, struct rb_job *first, struct rb_shared *sh) {
    struct rb_extra *e = rb_extra_new(r);
    struct rb_job *run = e ? rb_job_new(r) : NULL;
    if (!run) {
        if (e) rb_extra_release(r, e);
        return NULL;
    }
    uint64_t id = run->id;
    run->extra = e;
    e->shared = sh;
    rb_job_join(run, first->role);
    run->kind = RB_CALLER_SHARED;
    run->uncounted = 1;
    run->is_term = first->is_term;
    run->request = first->request;
    run->request.job = id;
    run->pool_first = first->pool_first;
    run->pool_count = first->pool_count;
    run->arrived_ns = first->arrived_ns;
    first->pool_count = 0;
    return run;
}

/* What the caller's record needs to wait: 0, or -ENOMEM. */
static int begin_wait(struct rb_relay *r, struct rb_job *j, struct rb_shared *sh) {
    struct rb_extra *e = rb_extra_new(r);
    if (!e) return -ENOMEM;
    e->shared = sh;
    j->extra = e;
    return 0;
}

static void no_room(struct rb_relay *r, struct rb_job *j) {
    struct rb_caller to = rb_job_caller(j);
    rb_admission_refuse_room(r, j->role, &to, RB_RULE_JOBS);
    if (j->extra) j->extra->shared = NULL;
    rb_job_free(r, j);
}

void rb_shared_join(struct rb_relay *r, struct rb_job *j, const struct rb_submit *s,
                    struct rb_shared *known, const struct rb_payload *payload,
                    const struct rb_verdict *v) {
    struct rb_shared *sh = known ? known : make(r, j->role, &s->options, payload);
    struct rb_job *run = NULL;
    if (!sh || sh->caller_count == RB_SHARED_CALLERS_MAX || begin_wait(r, j, sh) < 0 ||
        (!known && !(run = make_run(r, j, sh)))) {
        if (sh && !known) forget(r, sh);
        no_room(r, j);
        return;
    }
    if (run) {
        sh->run = run;
        rb_submit_prepare(r, run, &s->options);
        run->detail = run->finish = 0; /* each caller's own */
    }
    if (known && j->pool_count) { /* the run has the same bytes */
        rb_region_give(&j->role->pool.region, j->pool_first, j->pool_count);
        j->pool_count = 0;
    }
    rb_submit_wait(r, j, s);
    if (sh->run) {
        add_caller(sh, j, &s->options);
        if (run) rb_admission_enter(r, run, &s->options.tenant, v);
        return;
    }
    is_to_be_told(r, sh, j);
}
