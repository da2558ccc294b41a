/* course.c: what a request says of a job in stages, and who may begin one. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "relay/relay_pvt.h"
#include "relay/service/batch.h"
#include "relay/service/operation.h"
#include "relay/service/picture.h"
#include "relay/service/pipeline_pvt.h"
#include "relay/service/schema.h"

/* The steps behind the first, one by one: 1, or 0 at the end. options.c has looked at them. */
static int next_step(struct rb_elements *stages, struct rb_step *s) {
    struct rb_slice term;
    return rb_elements_next(stages, &term) > 0 && rb_step_read(term, s) == 0;
}

/* --- Whether there is such a course -------------------------------------------------------------------------------------- */

static int check_role(struct rb_relay *r, const struct rb_submit *s,
                      const struct rb_step_role *named, int stage, char why[RB_WHY_BYTES]) {
    const struct rb_role *role = rb_role_named(r, named->name);
    if (role && (s->options.retry == 0 || role->config.idempotent)) return 0;
    snprintf(why, RB_WHY_BYTES,
             role ? "%s: retry, but role %.*s of stage %d is not idempotent"
                  : "%s: unknown role %.*s of stage %d",
             rb_verb_name(s->verb), (int)(named->name.size > 64 ? 64 : named->name.size),
             (const char *)named->name.at, stage);
    return -EINVAL;
}

static int check_opcode(const struct rb_submit *s, const struct rb_step *first,
                        char why[RB_WHY_BYTES]) {
    const struct rb_options *o = &s->options;
    const char *verb = rb_verb_name(s->verb);
    if (!o->has_opcode && !o->op.size) return 0;
    if (first->kind == RB_STEP_FAN_OUT)
        snprintf(why, RB_WHY_BYTES,
                 "%s: opcode and op are of one role, and this fan-out has %u; give each its own: "
                 "[{role, opcode}, ...]",
                 verb, first->count);
    else if (first->roles[0].has_opcode)
        snprintf(why, RB_WHY_BYTES,
                 "%s: the step says opcode %u, and so do the options; say it once", verb,
                 first->roles[0].opcode);
    else
        return 0;
    return -EINVAL;
}

int rb_pipeline_check(struct rb_relay *r, const struct rb_submit *s, const struct rb_step *first,
                      char why[RB_WHY_BYTES]) {
    struct rb_elements stages = rb_elements_of(s->options.stages);
    struct rb_step step = {.kind = first ? first->kind : RB_STEP_ONE};
    const char *verb = rb_verb_name(s->verb);
    const char *other = s->options.dedupe.kind ? "dedupe"
                        : s->options.encoded   ? "encoding: :zstd"
                        : s->options.accepts   ? "accept: :zstd"
                                               : NULL;
    if (other) {
        snprintf(why, RB_WHY_BYTES, "%s: stages and %s do not go together: that is of one job%s",
                 verb, other, first ? ", and a fan-out or map is several" : "");
        return -EINVAL;
    }
    if (first && check_opcode(s, first, why) < 0) return -EINVAL;
    for (int stage = 2; next_step(&stages, &step); stage++) {
        for (uint32_t i = 0; i < step.count; i++)
            if (check_role(r, s, &step.roles[i], stage, why) < 0) return -EINVAL;
    }
    if (!s->options.detail || step.kind == RB_STEP_ONE) return 0;
    snprintf(why, RB_WHY_BYTES,
             "%s: detail tells of one job, and the last stage is a %s; end in one role, or leave "
             "detail out",
             verb, step.kind == RB_STEP_MAP ? "map" : "fan-out");
    return -EINVAL;
}

/* --- Its record ---------------------------------------------------------------------------------------------------------- */

struct rb_pipeline *rb_course_make(struct rb_relay *r, const struct rb_step *first,
                                   const struct rb_options *o) {
    struct rb_elements stages = rb_elements_of(o->stages);
    struct rb_step step = *first;
    size_t steps = 0, roles = 0, bytes = 0;
    do {
        steps++;
        roles += step.count;
        for (uint32_t i = 0; i < step.count; i++) bytes += step.roles[i].name.size + 1;
    } while (next_step(&stages, &step));
    bytes += sizeof(struct rb_pipeline) + steps * sizeof(struct rb_course_step) +
             roles * sizeof(struct rb_course_role);
    struct rb_pipeline *p = calloc(1, bytes);
    if (!p) return NULL;
    p->relay = r;
    p->own_bytes = bytes;
    p->count = (uint32_t)steps;
    p->steps = (struct rb_course_step *)(p + 1);
    struct rb_course_role *role = (struct rb_course_role *)(p->steps + steps);
    char *name = (char *)(role + roles);
    stages = rb_elements_of(o->stages);
    step = *first;
    for (size_t at = 0; at < steps; at++) {
        p->steps[at] =
            (struct rb_course_step){.kind = step.kind, .count = step.count, .roles = role};
        for (uint32_t i = 0; i < step.count; i++, role++) {
            *role = (struct rb_course_role){.name = name, .opcode = step.roles[i].opcode};
            memcpy(name, step.roles[i].name.at, step.roles[i].name.size);
            name += step.roles[i].name.size + 1;
        }
        next_step(&stages, &step);
    }
    p->options = *o;
    p->options.opcode = 0;
    p->options.has_opcode = 0;
    /* What lies in the request does not outlive it; and what names a job, an operation or a worker is the first step's alone. */
    p->options.meta = p->options.op = p->options.stages = (struct rb_slice){NULL, 0};
    p->options.key = p->options.dedupe = (struct rb_key){.kind = 0};
    if ((p->keyed = o->key.kind != 0)) p->key = rb_key_hash(&o->key);
    if (o->tenant.size) memcpy(p->tenant, o->tenant.at, o->tenant.size);
    p->options.tenant.at = (const uint8_t *)p->tenant;
    p->branches = &p->only;
    p->capacity = 1;
    return p;
}

struct rb_role *rb_course_role(struct rb_relay *r, const struct rb_course_role *role) {
    return rb_role_named(r, (struct rb_slice){(const uint8_t *)role->name, strlen(role->name)});
}

/* --- A step in the role's place ------------------------------------------------------------------------------------------ */

/* {role, opcode}: a plain job. */
static int submit_one(struct rb_conn *c, const struct rb_from *from, const struct rb_caller *to,
                      struct rb_cursor *at, struct rb_submit *s, const struct rb_step *first) {
    struct rb_submit given = *s;
    struct rb_cursor options = *at;
    char why[RB_WHY_BYTES];
    if (rb_term_skip(&options, NULL) == 0 && rb_submit_options(&options, &given, why) == 0 &&
        check_opcode(&given, first, why) < 0)
        return rb_submit_refuse(to, why), 0;
    s->step = (struct rb_slice){NULL, 0};
    s->role = first->roles[0].name;
    s->options.opcode = first->roles[0].opcode;
    s->options.has_opcode = 1;
    return rb_submit(c, from, to, at, s);
}

static int check_list(const struct rb_submit *s, const struct rb_step *first, struct rb_slice term,
                      char why[RB_WHY_BYTES]) {
    char seen[RB_PICTURE_BYTES];
    if (first->kind != RB_STEP_MAP) return 0;
    int64_t count = rb_elements_count(term);
    if (count >= 0 && count <= RB_MANY_MAX) return 0;
    rb_picture(term, seen);
    if (count < 0)
        snprintf(why, RB_WHY_BYTES, "%s: the payload of a map must be a proper list, got %s",
                 rb_verb_name(s->verb), seen);
    else
        snprintf(why, RB_WHY_BYTES, "%s: a map takes at most %d elements, got %lld",
                 rb_verb_name(s->verb), RB_MANY_MAX, (long long)count);
    return -EINVAL;
}

/* Would a role take its job in this moment? A map asks for its first one. 0: the caller has been told why not. */
static int may_begin(struct rb_relay *r, const struct rb_caller *to, const struct rb_submit *s,
                     struct rb_step *first, uint32_t i, const struct rb_payload *payload,
                     struct rb_schema_spent *spent) {
    struct rb_step_role *named = &first->roles[i];
    struct rb_role *role = rb_submit_role(r, to, named->name);
    struct rb_submit of = *s;
    struct rb_verdict v;
    char why[RB_WHY_BYTES];
    int map = first->kind == RB_STEP_MAP;
    if (!role || !rb_submit_may_retry(role, to, s)) return 0;
    if (named->has_opcode) {
        of.options.opcode = named->opcode;
        of.options.has_opcode = 1;
    }
    if (rb_submit_names_operation(role, &of)) {
        const char *verb = rb_verb_name(of.verb);
        int rc = rb_operation_resolve(role, &of.options, verb, why);
        if (rc == 0 && !map)
            rc = rb_operation_takes(role, &of.options, payload->bytes, payload->is_term, spent,
                                    verb, why);
        if (rc < 0) return rb_submit_refuse(to, why), 0;
    }
    named->opcode = of.options.opcode;
    rb_admission_judge(r, role, to->conn, &of.options.tenant, of.options.priority, &v);
    if (!map && (v.outcome != RB_REFUSE || v.reason == RB_REASON_OVERLOADED) &&
        payload->bytes.size > role->config.payload_bytes_max)
        return rb_submit_too_large(role, to), 0;
    if (v.outcome == RB_REFUSE) return rb_admission_refuse(r, role, to, &v), 0;
    return 1;
}

int rb_pipeline_submit(struct rb_conn *c, const struct rb_from *from, const struct rb_caller *to,
                       struct rb_cursor *at, struct rb_submit *s) {
    struct rb_relay *r = c->relay;
    struct rb_step first;
    struct rb_slice term;
    char why[RB_WHY_BYTES];
    if (rb_step_read(s->step, &first) < 0) return rb_service_fail(c, "bad_payload");
    if (first.kind == RB_STEP_ONE) return submit_one(c, from, to, at, s, &first);
    if (rb_term_skip(at, &term) < 0) return rb_service_fail(c, "bad_payload");
    int rc = rb_submit_options(at, s, why);
    if (rc == 0) rc = rb_pipeline_check(r, s, &first, why);
    if (rc == 0) rc = check_list(s, &first, term, why);
    if (rc == -EINVAL) return rb_submit_refuse(to, why), 0;
    if (rc < 0) return rb_service_fail(c, "bad_payload");
    if (!to->conn) return 0;
    struct rb_payload payload = rb_submit_payload(term);
    struct rb_schema_spent spent = {.of_many = 1}; /* by all roles together */
    for (uint32_t i = 0; i < first.count; i++)
        if (!may_begin(r, to, s, &first, i, &payload, &spent)) return 0;
    struct rb_role *role = rb_role_named(r, first.roles[0].name);
    struct rb_job *head = rb_job_new(r);
    if (!head) return rb_admission_refuse_room(r, role, to, RB_RULE_JOBS), 0;
    rb_job_join(head, role);
    if (rb_submit_bind(c, head, to, from) < 0) {
        rb_job_free(r, head);
        return rb_service_fail(c, "reply_tag_too_large");
    }
    rb_pipeline_spread(r, head, s, &first, term);
    return 0;
}
