#include "relay/service/pipeline.h"

#include <stdlib.h>

#include "relay/relay_pvt.h"
#include "relay/service/pipeline_pvt.h"

/* --- Who holds it -------------------------------------------------------------------------------------------------------- */

void rb_pipeline_release(struct rb_pipeline *p) {
    if (--p->held) return;
    rb_spread_forget(p);
    free(p);
}

/* Behind the others: each has its turn. */
static void list(struct rb_relay *r, struct rb_pipeline *p) {
    if (p->listed) return;
    p->next = NULL;
    *(r->pipelines ? &r->pipelines_last->next : &r->pipelines) = p;
    r->pipelines_last = p;
    p->listed = 1;
    p->held++;
}

/* What the list held of it is the caller's. */
static struct rb_pipeline *unlist_first(struct rb_relay *r) {
    struct rb_pipeline *p = r->pipelines;
    if (!p) return NULL;
    /* What is listed is held by the list, which the analyser does not see. */
    r->pipelines = p->next; /* NOLINT(clang-analyzer-unix.Malloc) */
    p->listed = 0;
    return p;
}

void rb_pipelines_fini(struct rb_relay *r) {
    struct rb_pipeline *p;
    while ((p = unlist_first(r))) rb_pipeline_release(p);
}

struct rb_relay *rb_pipeline_relay(const struct rb_pipeline *p) {
    return p->head && !p->failed ? p->relay : NULL;
}

/* --- What happens to it -------------------------------------------------------------------------------------------------- */

void rb_pipeline_overloaded(struct rb_pipeline *p, enum rb_rule rule) {
    if (p->head && !p->failed) p->rule = rule;
}

void rb_pipeline_over(struct rb_relay *r, struct rb_job *run, enum rb_reason reason) {
    struct rb_pipeline *p = run->extra->pipeline;
    if (!p->head) return;
    struct rb_branch *b = &p->branches[run->index];
    b->job = 0;
    p->open--;
    p->open_bytes -= run->request.payload_bytes;
    if (reason == RB_REASON_OK && !b->size) reason = RB_REASON_JOB_FAILED; /* it was not kept */
    if (reason != RB_REASON_OK) rb_spread_fail(p, p->at, run->index, reason);
    if (p->failed && p->reason == RB_REASON_OK && p->failed_branch == run->index)
        p->reason = reason; /* it has said why */
    if (p->failed || !p->open || !p->all_begun) list(r, p);
}

void rb_pipeline_due(struct rb_relay *r, struct rb_job *caller) {
    struct rb_pipeline *p = caller->extra->pipeline;
    rb_job_due(r, caller, 0);
    list(r, p); /* to begin what waits finds that its time has passed */
}

void rb_pipeline_leave(struct rb_relay *r, struct rb_job *caller, enum rb_reason reason) {
    struct rb_pipeline *p = caller->extra->pipeline;
    p->head = NULL; /* first: its jobs tell nobody */
    p->held++;
    rb_spread_cancel(r, p, reason);
    rb_spread_forget(p);
    rb_job_answered(r, caller, reason);
    rb_pipeline_release(p);
}

void rb_pipeline_mute(struct rb_pipeline *p) { rb_spread_mute(p); }

/* --- The end ------------------------------------------------------------------------------------------------------------- */

/* {error, {stage, N, Who, Reason}} */
static void tell_failure(const struct rb_pipeline *p, struct rb_pen *pen) {
    const struct rb_course_step *step = &p->steps[p->failed_step];
    int of_step = p->failed_branch == RB_BRANCH_NONE || step->kind == RB_STEP_ONE;
    int64_t role = of_step || step->kind == RB_STEP_MAP ? 0 : p->failed_branch;
    rb_pen_tuple(pen, 2);
    rb_pen_atom(pen, "error");
    rb_pen_tuple(pen, 4);
    rb_pen_atom(pen, "stage");
    rb_pen_unsigned(pen, p->failed_step + 1);
    if (!of_step) {
        rb_pen_tuple(pen, 3);
        rb_pen_atom(pen, step->kind == RB_STEP_MAP ? "map" : "fan_out");
    }
    rb_pen_atom(pen, step->roles[role].name);
    if (!of_step) rb_pen_unsigned(pen, (uint64_t)p->failed_branch);
    if (!p->words) rb_pen_atom(pen, rb_reason_name(p->reason));
}

static void tell(const struct rb_pipeline *p) {
    struct rb_caller to = rb_job_caller(p->head);
    struct rb_slice answer = {p->answers.at, p->answers.end}, none = {NULL, 0};
    struct rb_reply reply;
    if (!rb_reply_begin(&reply, &to, RB_ROLE_NAME_MAX + 128)) return;
    if (p->failed) {
        tell_failure(p, &reply.pen);
        rb_reply_end_with(&reply, (struct rb_slice){p->words, p->words ? p->words_size : 0}, none);
        return;
    }
    if (p->steps[p->at].kind != RB_STEP_ONE) {
        rb_pen_tuple(&reply.pen, 2);
        rb_pen_atom(&reply.pen, "ok");
    }
    rb_reply_end_with(&reply, answer, none);
}

static void end(struct rb_relay *r, struct rb_pipeline *p) {
    struct rb_job *head = p->head;
    enum rb_reason reason = p->failed ? p->reason : RB_REASON_OK;
    tell(p);
    p->head = NULL;
    if (p->failed) rb_spread_cancel(r, p, RB_REASON_CANCELLED);
    rb_spread_forget(p);
    if (reason == RB_REASON_OVERLOADED) rb_admission_count_rule(r, head->role, p->rule);
    rb_job_answered(r, head, reason);
}

/* --- From step to step --------------------------------------------------------------------------------------------------- */

/* As far as it goes now. 1: further in its next turn. */
static int visit(struct rb_relay *r, struct rb_pipeline *p, struct rb_begin_budget *budget) {
    while (p->head) {
        if (!p->failed && rb_spread_on(r, p, budget)) return 1;
        if (!p->failed && !rb_spread_is_over(p)) return 0;
        if (!p->failed) rb_spread_gather(p);
        if (p->failed || rb_course_is_last(p))
            end(r, p);
        else
            rb_spread_pass(p);
    }
    return 0;
}

void rb_pipelines_round(struct rb_relay *r) {
    struct rb_begin_budget budget = {RB_BEGIN_JOBS, RB_BEGIN_BYTES};
    struct rb_pipeline *p;
    while (budget.jobs && budget.bytes && (p = unlist_first(r))) {
        if (visit(r, p, &budget)) list(r, p);
        rb_pipeline_release(p);
    }
}

/* --- The first step ------------------------------------------------------------------------------------------------------ */

static void no_room(struct rb_relay *r, struct rb_job *j) {
    struct rb_caller to = rb_job_caller(j);
    rb_admission_refuse_room(r, j->role, &to, RB_RULE_JOBS);
    rb_job_free(r, j);
}

/* Of the caller's record, which gets the extra that its jobs will share. NULL: there is no room. */
static struct rb_pipeline *make(struct rb_relay *r, struct rb_job *caller,
                                const struct rb_step *first, const struct rb_options *o) {
    struct rb_extra *e = rb_extra_new(r);
    struct rb_pipeline *p = e ? rb_course_make(r, first, o) : NULL;
    if (!p) {
        if (e) rb_extra_release(r, e);
        return NULL;
    }
    e->pipeline = p;
    p->held = 1;
    p->extra = caller->extra = e; /* held once, by the caller's record */
    p->charged = caller->conn;
    return rb_spread_charge_record(p) < 0 ? NULL : p; /* the caller's record takes it along */
}

static void wait(struct rb_relay *r, struct rb_pipeline *p, struct rb_job *caller,
                 const struct rb_submit *s) {
    rb_submit_wait(r, caller, s);
    rb_job_due(r, caller, 0); /* each job has its deadline, and is named when that comes */
    p->head = caller;
}

void rb_pipeline_begin(struct rb_relay *r, struct rb_job *j, const struct rb_submit *s,
                       const struct rb_verdict *v) {
    const struct rb_step first = {
        .count = 1, .roles = {{.name = {(const uint8_t *)j->role->name, strlen(j->role->name)}}}};
    struct rb_pipeline *p = make(r, j, &first, &s->options);
    struct rb_job *run = p ? rb_job_new(r) : NULL;
    if (!run) {
        no_room(r, j);
        return;
    }
    rb_spread_set(p, (struct rb_slice){NULL, 0});
    rb_extra_give(run, p->extra);
    rb_job_join(run, j->role);
    run->kind = RB_CALLER_STAGE;
    run->uncounted = 1;
    run->index = 0;
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
    wait(r, p, j, s);
    p->only = (struct rb_branch){.job = id};
    p->begun = p->open = 1;
    p->open_bytes = run->request.payload_bytes;
    p->all_begun = 1;
    rb_admission_enter(r, run, &s->options.tenant, v);
}

void rb_pipeline_spread(struct rb_relay *r, struct rb_job *j, const struct rb_submit *s,
                        const struct rb_step *first, struct rb_slice value) {
    struct rb_begin_budget budget = {RB_BEGIN_JOBS, RB_BEGIN_BYTES};
    struct rb_pipeline *p = make(r, j, first, &s->options);
    if (!p) {
        no_room(r, j);
        return;
    }
    wait(r, p, j, s);
    rb_spread_set(p, value);
    int more = rb_spread_on(r, p, &budget);
    if (!p->failed && !p->all_begun) rb_spread_keep(p);
    if (more || p->failed || rb_spread_is_over(p)) list(r, p);
}

/* --- For the audit ------------------------------------------------------------------------------------------------------- */

const char *rb_pipeline_audit(const struct rb_relay *r, const struct rb_job *caller, uint64_t *open,
                              uint64_t *charged) {
    const struct rb_pipeline *p = caller->extra->pipeline;
    uint64_t named = 0, bytes = 0;
    if (p->head != caller) return "it waits for a pipeline that waits for another caller";
    for (uint32_t i = 0; i < p->begun; i++) {
        if (!p->branches[i].job) continue;
        const struct rb_job *j = rb_job_find(r, p->branches[i].job);
        if (!j || j->kind != RB_CALLER_STAGE || j->extra != p->extra || j->index != i ||
            !rb_job_is_open(j))
            return "its pipeline names a job that is none of its own";
        named++;
        bytes += j->request.payload_bytes;
    }
    if (named != p->open || bytes != p->open_bytes)
        return "its pipeline counts its jobs, or their bytes, wrongly";
    if (p->charged && p->charged != caller->conn) return "its pipeline is charged to another";
    if (!p->failed && !p->open && p->all_begun && !p->listed)
        return "its pipeline is through with a step, and nobody will look";
    if (!p->failed && !p->open && !p->all_begun && !p->listed && caller->heap_at < 0)
        return "its pipeline waits for nothing";
    if (p->failed && !p->listed) return "its pipeline has failed, and nobody will say so";
    *open += named;
    *charged += p->charged ? p->charged_bytes : 0;
    return NULL;
}
