#include "relay/service/pipeline.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "relay/relay_pvt.h"

enum { ROLE_NAME_BYTES = 256 };

struct stage {
    uint16_t opcode;
    char role[ROLE_NAME_BYTES]; /* by name: it may be gone, or another one, when its turn comes */
};

struct rb_pipeline {
    struct rb_relay *relay;
    struct rb_pipeline *next; /* among those with a stage that is over */
    int listed;
    uint32_t held;       /* by extras, and by that list */
    struct rb_job *head; /* NULL: its caller has left */
    struct rb_job *run;  /* of the stage under way; NULL: it is over */
    enum rb_reason reason;
    uint8_t *answer; /* of the stage under way, or that is over: {ok, ..} or {error, ..} */
    size_t answer_size;
    struct rb_options options; /* of all stages */
    char tenant[64];
    uint32_t at, count;
    struct stage stages[];
};

/* --- What a request says ------------------------------------------------------------------------------------------------- */

/* Role or {Role, Opcode} at the cursor. */
static int read_stage(struct rb_cursor *c, struct rb_slice *role, uint64_t *opcode) {
    struct rb_cursor at = *c;
    struct rb_slice whole;
    *opcode = 0;
    if (rb_term_skip(c, &whole) < 0) return -EINVAL;
    if (rb_term_tuple(&at) == 2)
        return rb_term_text(&at, role) == 0 && rb_term_unsigned(&at, opcode) == 0 &&
                       *opcode <= UINT16_MAX
                   ? 0
                   : -EINVAL;
    at = rb_cursor_of(whole);
    return rb_term_text(&at, role) < 0 ? -EINVAL : 0;
}

int rb_pipeline_check(struct rb_relay *r, const struct rb_submit *s, char why[RB_WHY_BYTES]) {
    struct rb_cursor c = rb_cursor_of(s->options.stages);
    struct rb_slice name;
    uint64_t opcode;
    int tail;
    const char *verb = rb_verb_name(s->verb);
    int64_t count = rb_term_list(&c, &tail);
    const char *other = s->options.dedupe.kind ? "dedupe"
                        : s->options.encoded   ? "encoding: :zstd"
                        : s->options.accepts   ? "accept: :zstd"
                                               : NULL;
    if (other) {
        snprintf(why, RB_WHY_BYTES, "%s: stages and %s do not go together", verb, other);
        return -EINVAL;
    }
    for (int64_t i = 0; i < count; i++) {
        if (read_stage(&c, &name, &opcode) < 0) return -EINVAL; /* rb_options_read() has looked */
        const struct rb_role *role = rb_role_named(r, name);
        if (role && (s->options.retry == 0 || role->config.idempotent)) continue;
        snprintf(why, RB_WHY_BYTES,
                 role ? "%s: retry, but role %.*s of stage %d is not idempotent"
                      : "%s: unknown role %.*s of stage %d",
                 verb, (int)(name.size > 64 ? 64 : name.size), (const char *)name.at, (int)i + 2);
        return -EINVAL;
    }
    return 0;
}

static struct rb_pipeline *make(struct rb_relay *r, const struct rb_job *first,
                                const struct rb_options *o) {
    struct rb_cursor c = rb_cursor_of(o->stages);
    int tail;
    int64_t count = rb_term_list(&c, &tail);
    if (count < 0) return NULL;
    struct rb_pipeline *p = calloc(1, sizeof *p + ((size_t)count + 1) * sizeof *p->stages);
    if (!p) return NULL;
    p->relay = r;
    p->count = (uint32_t)count + 1;
    p->options = *o;
    p->options.opcode = 0;
    /* What lies in the request does not outlive it; and what names a job, an operation or a worker is the first stage's alone. */
    p->options.meta = p->options.op = p->options.stages = (struct rb_slice){NULL, 0};
    p->options.key = p->options.dedupe = (struct rb_key){.kind = 0};
    if (o->tenant.size) memcpy(p->tenant, o->tenant.at, o->tenant.size);
    p->options.tenant.at = (const uint8_t *)p->tenant;
    snprintf(p->stages[0].role, ROLE_NAME_BYTES, "%s", first->role->name);
    for (int64_t i = 1; i <= count; i++) {
        struct rb_slice name;
        uint64_t opcode;
        if (read_stage(&c, &name, &opcode) < 0 || name.size >= ROLE_NAME_BYTES) {
            free(p);
            return NULL;
        }
        memcpy(p->stages[i].role, name.at, name.size);
        p->stages[i].opcode = (uint16_t)opcode;
    }
    return p;
}

/* --- Who holds it -------------------------------------------------------------------------------------------------------- */

static struct rb_extra *hold(struct rb_relay *r, struct rb_pipeline *p) {
    struct rb_extra *e = rb_extra_new(r);
    if (!e) return NULL;
    e->pipeline = p;
    p->held++;
    return e;
}

void rb_pipeline_release(struct rb_pipeline *p) {
    if (--p->held) return;
    free(p->answer);
    free(p);
}

static void unlist(struct rb_relay *r, struct rb_pipeline *p) {
    struct rb_pipeline **at = &r->pipelines;
    if (!p->listed) return;
    while (*at != p) at = &(*at)->next;
    *at = p->next;
    p->listed = 0;
    rb_pipeline_release(p);
}

/* --- Answers of stages --------------------------------------------------------------------------------------------------- */

struct rb_relay *rb_pipeline_relay(const struct rb_pipeline *p) {
    return p->head ? p->relay : NULL;
}

void rb_pipeline_put(struct rb_pipeline *p, const struct rb_slice pieces[3]) {
    size_t size = pieces[0].size + pieces[1].size + pieces[2].size;
    free(p->answer);
    p->answer_size = 0;
    uint8_t *to = p->answer = malloc(size);
    if (!to) return;
    p->answer_size = size;
    for (int i = 0; i < 3; i++) {
        if (pieces[i].size) memcpy(to, pieces[i].at, pieces[i].size);
        to += pieces[i].size;
    }
}

void rb_pipeline_over(struct rb_relay *r, struct rb_job *run, enum rb_reason reason) {
    struct rb_pipeline *p = run->extra->pipeline;
    p->run = NULL;
    p->reason = reason == RB_REASON_OK && !p->answer ? RB_REASON_JOB_FAILED : reason;
    if (!p->head) return;
    p->next = r->pipelines;
    r->pipelines = p;
    p->listed = 1;
    p->held++;
}

void rb_pipeline_leave(struct rb_relay *r, struct rb_job *caller, enum rb_reason reason) {
    struct rb_pipeline *p = caller->extra->pipeline;
    struct rb_job *run = p->run;
    p->head = NULL;
    unlist(r, p); /* the caller's extra still holds it */
    rb_job_answered(r, caller, reason);
    if (run) rb_job_cancel(r, run, reason);
}

/* --- The end ------------------------------------------------------------------------------------------------------------- */

static void tell(const struct rb_pipeline *p) {
    struct rb_caller to = rb_job_caller(p->head);
    struct rb_slice answer = {p->answer, p->answer_size}, none = {NULL, 0};
    struct rb_cursor c = rb_cursor_of(answer);
    struct rb_slice word;
    struct rb_reply reply;
    if (!rb_reply_begin(&reply, &to, ROLE_NAME_BYTES + 128)) return;
    if (p->reason == RB_REASON_OK) {
        rb_reply_end_with(&reply, answer, none);
        return;
    }
    rb_pen_tuple(&reply.pen, 2);
    rb_pen_atom(&reply.pen, "error");
    rb_pen_tuple(&reply.pen, 4);
    rb_pen_atom(&reply.pen, "stage");
    rb_pen_unsigned(&reply.pen, p->at + 1);
    rb_pen_atom(&reply.pen, p->stages[p->at].role);
    if (answer.size && rb_term_tuple(&c) == 2 && rb_term_atom(&c, &word) == 0) {
        rb_reply_end_with(&reply, (struct rb_slice){c.at, (size_t)(c.end - c.at)}, none);
        return;
    }
    rb_pen_atom(
        &reply.pen,
        rb_reason_name(p->reason)); /* it ended without a word, or there was no memory for it */
    rb_reply_end(&reply);
}

/* --- The next stage ------------------------------------------------------------------------------------------------------ */

/* It ends before it has begun: in words, and by a reason that the caller's record is counted by. */
static enum rb_reason refuse(struct rb_relay *r, struct rb_pipeline *p, const struct rb_caller *to,
                             const struct rb_verdict *v) {
    if (v->reason != RB_REASON_OVERLOADED && v->reason != RB_REASON_CIRCUIT_OPEN) {
        rb_answer_reason(to, v->reason);
        return v->reason;
    }
    rb_answer_retry_after(to, v->reason, v->retry_ms);
    if (v->reason == RB_REASON_OVERLOADED) rb_admission_count_rule(r, p->head->role, v->rule);
    return v->reason;
}

/* OK: the stage is under way. */
static enum rb_reason begin_stage(struct rb_relay *r, struct rb_pipeline *p, struct rb_extra *e,
                                  struct rb_slice value) {
    struct rb_caller to = {.conn = p->head->conn, .kind = RB_CALLER_STAGE, .extra = e};
    struct rb_payload payload = rb_submit_payload(value);
    struct stage *stage = &p->stages[p->at];
    struct rb_role *role =
        rb_role_named(r, (struct rb_slice){(const uint8_t *)stage->role, strlen(stage->role)});
    struct rb_submit s = {.verb = RB_VERB_CALL, .options = p->options};
    struct rb_verdict v = {.outcome = RB_REFUSE, .reason = RB_REASON_NO_WORKER};
    char why[RB_WHY_BYTES];
    uint64_t deadline = p->head->request.deadline_ns;
    if (deadline <= r->now) {
        rb_answer_reason(&to, RB_REASON_DEADLINE_EXCEEDED);
        return RB_REASON_DEADLINE_EXCEEDED;
    }
    if (!role) return refuse(r, p, &to, &v);
    s.options.opcode = stage->opcode;
    s.options.has_timeout = 1;
    s.options.timeout_ms = (deadline - r->now + NS_PER_MS - 1) / NS_PER_MS;
    if (rb_submit_names_operation(role, &s) && rb_submit_operation(role, &s, &payload, why) < 0) {
        rb_answer_text(&to, RB_REASON_BAD_REQUEST, why);
        return RB_REASON_BAD_REQUEST;
    }
    rb_admission_judge(r, role, to.conn, &s.options.tenant, s.options.priority, &v);
    if (v.outcome == RB_REFUSE) return refuse(r, p, &to, &v);
    if (payload.bytes.size > role->config.payload_bytes_max) {
        rb_answer_too_large(&to, role->config.payload_bytes_max);
        return RB_REASON_TOO_LARGE;
    }
    struct rb_job *run = rb_submit_make(r, role, payload.bytes.size, &v.rule);
    if (!run) {
        v.reason = RB_REASON_OVERLOADED;
        return refuse(r, p, &to, &v);
    }
    rb_submit_fill(run, &payload);
    rb_extra_give(run, e);
    run->kind = RB_CALLER_STAGE;
    run->uncounted = 1;
    rb_submit_prepare(r, run, &s.options);
    run->finish = 0;
    run->detail = p->options.detail && p->at + 1 == p->count;
    p->run = run;
    rb_admission_enter(r, run, &s.options.tenant, &v);
    return RB_REASON_OK;
}

/* The value of {ok, Value} becomes the next stage's payload. */
static enum rb_reason go_on(struct rb_relay *r, struct rb_pipeline *p) {
    uint8_t *answer = p->answer;
    struct rb_cursor c = rb_cursor_of((struct rb_slice){answer, p->answer_size});
    struct rb_slice word;
    struct rb_extra *e = hold(r, p);
    p->answer = NULL;
    p->answer_size = 0;
    p->at++;
    enum rb_reason reason = RB_REASON_JOB_FAILED; /* no memory */
    if (e && rb_term_tuple(&c) == 2 && rb_term_atom(&c, &word) == 0)
        reason = begin_stage(r, p, e, (struct rb_slice){c.at, (size_t)(c.end - c.at)});
    if (e) rb_extra_release(r, e); /* the run holds it */
    free(answer);
    return reason;
}

void rb_pipelines_round(struct rb_relay *r) {
    while (r->pipelines) {
        struct rb_pipeline *p = r->pipelines; /* what the list held of it is ours */
        r->pipelines = p->next;
        p->listed = 0;
        if (p->reason == RB_REASON_OK && p->at + 1 < p->count) {
            p->reason = go_on(r, p);
            if (p->reason == RB_REASON_OK) { /* on its way; or, dropped at once, listed again */
                rb_pipeline_release(p);
                continue;
            }
        }
        struct rb_job *head = p->head;
        if (head) {
            tell(p);
            p->head = NULL;
            rb_job_answered(r, head, p->reason);
        }
        rb_pipeline_release(p);
    }
}

/* --- The first stage ----------------------------------------------------------------------------------------------------- */

static void no_room(struct rb_relay *r, struct rb_job *j) {
    struct rb_caller to = rb_job_caller(j);
    rb_admission_refuse_room(r, j->role, &to, RB_RULE_JOBS);
    rb_job_free(r, j);
}

void rb_pipeline_begin(struct rb_relay *r, struct rb_job *j, const struct rb_submit *s,
                       const struct rb_verdict *v) {
    struct rb_pipeline *p = make(r, j, &s->options);
    struct rb_extra *of_caller = p ? hold(r, p) : NULL, *of_run = of_caller ? hold(r, p) : NULL;
    struct rb_job *run = of_run ? rb_job_new(r) : NULL;
    if (!run) {
        if (of_run) rb_extra_release(r, of_run);
        if (of_caller)
            rb_extra_release(r, of_caller);
        else
            free(p);
        no_room(r, j);
        return;
    }
    j->extra = of_caller;
    run->extra = of_run;
    rb_job_join(run, j->role);
    run->kind = RB_CALLER_STAGE;
    run->uncounted = 1;
    run->is_term = j->is_term;
    uint64_t id = run->id;
    run->request = j->request;
    run->request.job = id;
    run->pool_first = j->pool_first;
    run->pool_count = j->pool_count;
    run->arrived_ns = j->arrived_ns;
    j->pool_count = 0;
    rb_submit_prepare(r, run, &s->options);
    run->detail = run->finish = 0;
    rb_submit_wait(r, j, s);
    rb_job_due(r, j, 0); /* each stage has its deadline, and is named when that comes */
    p->head = j;
    p->run = run;
    rb_admission_enter(r, run, &s->options.tenant, v);
}
