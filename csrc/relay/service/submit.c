/* submit.c: from a request for work to an accepted job, with its payload in the buffer or still on its way.
 *
 * The caller's life is the job's life (DESIGN.md, section 3): a job is bound to the monitor that its caller holds for the call, and the
 * end of that monitor before the answer is the end of the job. */
#include "relay/service/submit.h"

#include <errno.h>
#include <stdio.h>

#include "relay/relay_pvt.h"
#include "relay/service/encoding.h"
#include "relay/service/operation.h"
#include "relay/service/pipeline.h"
#include "relay/service/schema.h"
#include "relay/service/shared.h"
#include "ringbridge/crc32c.h"

/* --- Refusals ------------------------------------------------------------------------------------------------------------ */

static void refuse(const struct rb_caller *to, enum rb_reason reason) {
    if (to->conn) COUNT(to->conn->relay->stats.refused[reason], 1);
}

void rb_submit_refuse(const struct rb_caller *to, const char *why) {
    refuse(to, RB_REASON_BAD_REQUEST);
    rb_answer_text(to, RB_REASON_BAD_REQUEST, why);
}

static void refuse_unknown_role(struct rb_relay *r, const struct rb_caller *to,
                                struct rb_slice role) {
    char why[RB_WHY_BYTES + 512];
    int n = snprintf(why, sizeof why,
                     "unknown role %.*s; this node has:", (int)(role.size > 64 ? 64 : role.size),
                     (const char *)role.at);
    for (uint32_t i = 0; i < r->roles_count && n < (int)sizeof why - 80; i++) {
        if (r->roles[i] && !r->roles[i]->leaving)
            n += snprintf(why + n, sizeof why - (size_t)n, " %s", r->roles[i]->name);
    }
    rb_submit_refuse(to, why);
}

/* --- Admission ----------------------------------------------------------------------------------------------------------- */

struct rb_job *rb_submit_make(struct rb_relay *r, struct rb_role *role, uint64_t size,
                              enum rb_rule *full) {
    struct rb_job *j = rb_job_new(r);
    *full = RB_RULE_JOBS;
    if (!j) return NULL;
    rb_job_join(j, role);
    j->request.payload_bytes = (uint32_t)size;
    if (size <= RB_INLINE_BYTES_MAX) return j;
    int64_t first = rb_region_take(&role->pool.region, size);
    if (first < 0) {
        rb_job_free(r, j);
        *full = RB_RULE_POOL;
        return NULL;
    }
    j->pool_first = (uint32_t)first;
    j->pool_count = rb_region_blocks_for(&role->pool.region, size);
    j->request.payload_at = (uint64_t)first * role->pool.region.block_bytes;
    return j;
}

/* The same, or NULL: then the caller has been answered. */
static struct rb_job *make_job(struct rb_relay *r, const struct rb_caller *to, struct rb_role *role,
                               uint64_t size) {
    enum rb_rule full;
    struct rb_job *j = rb_submit_make(r, role, size, &full);
    if (!j) rb_admission_refuse_room(r, role, to, full);
    return j;
}

struct rb_role *rb_submit_role(struct rb_relay *r, const struct rb_caller *to,
                               struct rb_slice name) {
    struct rb_role *role = rb_role_named(r, name);
    if (!role) refuse_unknown_role(r, to, name);
    return role;
}

int rb_submit_may_retry(const struct rb_role *role, const struct rb_caller *to,
                        const struct rb_submit *s) {
    char why[RB_WHY_BYTES];
    if (s->options.retry == 0 || role->config.idempotent) return 1;
    snprintf(why, sizeof why,
             "%s: retry: %u, but role %s is not idempotent (roles.%s.idempotent = true says so)",
             rb_verb_name(s->verb), s->options.retry, role->name, role->name);
    rb_submit_refuse(to, why);
    return 0;
}

void rb_submit_too_large(struct rb_role *role, const struct rb_caller *to) {
    refuse(to, RB_REASON_TOO_LARGE);
    COUNT(role->stats.refused[RB_REASON_TOO_LARGE], 1);
    rb_answer_too_large(to, role->config.payload_bytes_max);
}

struct rb_job *rb_submit_admit(struct rb_relay *r, const struct rb_caller *to, struct rb_role *role,
                               uint64_t size, const struct rb_options *o, struct rb_verdict *v) {
    rb_admission_judge(r, role, to->conn, o ? &o->tenant : NULL, o ? o->priority : 0, v);
    /* Closed or broken comes before too large, as it is true of every job; full does not. */
    if (v->outcome == RB_REFUSE && v->reason != RB_REASON_OVERLOADED)
        return rb_admission_refuse(r, role, to, v), NULL;
    if (size > role->config.payload_bytes_max) return rb_submit_too_large(role, to), NULL;
    if (v->outcome == RB_REFUSE) return rb_admission_refuse(r, role, to, v), NULL;
    return make_job(r, to, role, size);
}

/* Binds a job to its caller's monitor: the one that the tag names; where the tag names none (25's multi_call), the last one of this
 * process; else we watch the caller ourselves (a GenServer may forward a call, whose monitor is on that GenServer). */
int rb_submit_bind(struct rb_conn *c, struct rb_job *j, const struct rb_caller *to,
                   const struct rb_from *from) {
    if (rb_job_set_caller(j, to->conn, from) < 0) return -1;
    if (to->kind >= RB_CALLER_STREAM) {
        if (to->kind == RB_CALLER_LANE) return rb_beam_bind(j), 0;
        if (rb_stream_open(j) < 0) return -1;
        j->kind = RB_CALLER_STREAM;
        j->watch = j->id;
        rb_send_watch(to->conn, RB_SERVICE_STREAMS, 1, from->pid, j->watch);
        return 0;
    }
    struct rb_monitor *m = from->monitor.size ? rb_monitor_find(c, from->monitor, from->pid) : NULL;
    uint32_t hash = m ? m->from_hash : rb_monitor_hash(from->pid);
    if (!m && !from->monitor.size) m = rb_monitor_recent(c, from->pid, hash);
    c->relay->callers[0] |= 1ull << (hash & 63);
    if (m && !m->job) {
        m->job = j;
        j->monitor = m;
    } else {
        j->watch = j->id;
        rb_send_watch(to->conn, RB_SERVICE_JOBS, 1, from->pid, j->watch);
    }
    return 0;
}

/* The call has its answer, and the job another kind of caller: a process that we watch from before it can know of the job. */
static void become_async(struct rb_job *j) {
    struct rb_caller call = rb_job_caller(j);
    if (j->monitor) {
        j->monitor->job = NULL;
        j->monitor = NULL;
    }
    if (!j->watch) {
        j->watch = j->id;
        rb_send_watch(j->conn, RB_SERVICE_JOBS, 1, call.pid, j->watch);
    }
    rb_answer_handle(&call, j);
    j->kind = RB_CALLER_ASYNC;
    j->request.flags |= RB_FLAG_PROGRESS; /* there is somebody who may hear of it */
}

void rb_submit_prepare(struct rb_relay *r, struct rb_job *j, const struct rb_options *o) {
    j->retry = (uint8_t)o->retry;
    if (o->key.kind) {
        j->keyed = RB_KEYED;
        j->key = rb_key_hash(&o->key);
    }
    const struct rb_role_config *config = &j->role->config;
    uint64_t timeout_ms = o->has_timeout    ? o->timeout_ms
                          : j->subscription ? config->timeout_max_ms
                                            : config->timeout_default_ms;
    if (timeout_ms > config->timeout_max_ms) timeout_ms = config->timeout_max_ms;
    j->detail = o->detail;
    j->finish = o->finish;
    if (o->tenant.size) j->tenant = rb_tenant_hold(&r->tenants, o->tenant);
    j->request.opcode = o->opcode;
    j->request.priority = o->priority;
    j->request.flags =
        (uint16_t)((j->pool_count ? 0 : RB_FLAG_INLINE) | (j->is_term ? RB_FLAG_TERM : 0));
    if (j->subscription) j->request.flags |= RB_FLAG_PARTS;
    if (o->encoded) j->request.flags |= RB_FLAG_ZSTD;
    j->accepts = o->accepts;
    memcpy(j->request.trace_id, o->trace_id, sizeof o->trace_id);
    memcpy(j->request.span_id, o->span_id, sizeof o->span_id);
    j->request.trace_flags = o->trace_flags;
    j->request.deadline_ns = j->arrived_ns + timeout_ms * NS_PER_MS;
    rb_job_due(r, j, j->request.deadline_ns);
    if (o->meta.size) rb_extra_note(r, j, o->meta);
}

void rb_submit_accept(struct rb_relay *r, struct rb_job *j, const struct rb_submit *s,
                      const struct rb_verdict *v) {
    rb_submit_prepare(r, j, &s->options);
    if (s->verb == RB_VERB_ASYNC) become_async(j);
    rb_admission_enter(r, j, &s->options.tenant, v);
}

void rb_submit_wait(struct rb_relay *r, struct rb_job *j, const struct rb_submit *s) {
    rb_submit_prepare(r, j, &s->options);
    if (s->verb == RB_VERB_ASYNC) become_async(j);
    rb_job_wait(r, j);
}

int rb_submit_operation(const struct rb_role *role, struct rb_submit *s,
                        const struct rb_payload *payload, char why[RB_WHY_BYTES]) {
    const char *verb = rb_verb_name(s->verb);
    int rc = rb_operation_resolve(role, &s->options, verb, why);
    if (rc < 0 || !payload) return rc;
    struct rb_schema_spent spent = {0};
    return rb_operation_takes(role, &s->options, payload->bytes, payload->is_term, &spent, verb,
                              why);
}

/* A caller who comes to what is known by its dedupe key needs no room: a record without a payload. NULL: it has been told. */
static struct rb_job *bare_job(struct rb_relay *r, const struct rb_caller *to,
                               struct rb_role *role) {
    struct rb_job *j = rb_job_new(r);
    if (j)
        rb_job_join(j, role);
    else
        rb_admission_refuse_room(r, role, to, RB_RULE_JOBS);
    return j;
}

static const char other_work[] = "%s: this dedupe key stands for another payload, opcode, encoding "
                                 "or accept; a key is for one piece "
                                 "of work";

/* --- A payload in the buffer --------------------------------------------------------------------------------------------- */

struct rb_payload rb_submit_payload(struct rb_slice term) {
    struct rb_cursor at = rb_cursor_of(term);
    uint32_t size;
    if (rb_term_binary_head(&at, &size) < 0) return (struct rb_payload){term, 1};
    return (struct rb_payload){{at.at, size}, 0};
}

void rb_submit_fill(struct rb_job *j, const struct rb_payload *payload) {
    j->is_term = (uint8_t)payload->is_term;
    memcpy(rb_job_payload(j), payload->bytes.at, payload->bytes.size);
}

/* What has no meaning for an answer in parts. */
static int stream_options(const struct rb_submit *s, char why[RB_WHY_BYTES]) {
    const char *which = s->options.finish || s->options.dedupe.kind || s->options.stages.size
                            ? "orphan, dedupe and stages are no options"
                        : s->options.accepts ? "accept: :zstd is no option"
                                             : NULL;
    if (!which) return 0;
    snprintf(why, RB_WHY_BYTES, "%s: %s of a stream%s", rb_verb_name(s->verb), which,
             s->options.accepts ? ": parts are not compressed" : "");
    return -EINVAL;
}

/* Of both ways in, in each as its own code: a call and its copies cost a plain job one percent. */
static inline __attribute__((always_inline)) int work(struct rb_conn *c, const struct rb_from *from,
                                                      const struct rb_caller *to,
                                                      struct rb_submit *s,
                                                      const struct rb_payload *payload) {
    struct rb_relay *r = c->relay;
    char why[RB_WHY_BYTES];
    struct rb_verdict v;
    struct rb_role *role = rb_submit_role(r, to, s->role);
    if (!role || !rb_submit_may_retry(role, to, s)) return 0;
    if (rb_submit_names_operation(role, s) && rb_submit_operation(role, s, payload, why) < 0)
        return rb_submit_refuse(to, why), 0;
    if (s->options.encoded && !rb_encoding_admits(role, to, s, payload)) return 0;
    struct rb_shared *known = s->options.dedupe.kind ? rb_shared_find(r, role, &s->options) : NULL;
    if (known && rb_shared_agrees(known, r, &s->options, payload) < 0) {
        snprintf(why, sizeof why, other_work, rb_verb_name(s->verb));
        return rb_submit_refuse(to, why), 0;
    }
    struct rb_job *j = known ? bare_job(r, to, role)
                             : rb_submit_admit(r, to, role, payload->bytes.size, &s->options, &v);
    if (!j) return 0;
    if (!known) rb_submit_fill(j, payload);
    if (rb_submit_bind(c, j, to, from) < 0) {
        rb_job_free(r, j);
        return rb_service_fail(c, "reply_tag_too_large");
    }
    if (s->options.dedupe.kind)
        rb_shared_join(r, j, s, known, payload, &v);
    else if (s->options.stages.size)
        rb_pipeline_begin(r, j, s, &v);
    else
        rb_submit_accept(r, j, s, &v);
    return 0;
}

int rb_submit(struct rb_conn *c, const struct rb_from *from, const struct rb_caller *to,
              struct rb_cursor *at, struct rb_submit *s) {
    char why[RB_WHY_BYTES];
    struct rb_slice term;
    if (__builtin_expect(s->step.size != 0, 0)) return rb_pipeline_submit(c, from, to, at, s);
    if (rb_term_skip(at, &term) < 0) return rb_service_fail(c, "bad_payload");
    struct rb_payload payload = rb_submit_payload(term);
    int rc = rb_submit_options(at, s, why);
    if (rc == 0 && to->kind == RB_CALLER_STREAM) rc = stream_options(s, why);
    if (rc == 0 && s->options.stages.size) rc = rb_pipeline_check(c->relay, s, NULL, why);
    if (rc == -EINVAL) return rb_submit_refuse(to, why), 0;
    if (rc < 0) return rb_service_fail(c, "bad_payload");
    if (!to->conn) return 0; /* its node is gone: there is nobody to answer */
    return work(c, from, to, s, &payload);
}

int rb_submit_work(struct rb_conn *c, const struct rb_from *from, const struct rb_caller *to,
                   struct rb_submit *s, const struct rb_payload *payload) {
    return work(c, from, to, s, payload);
}

/* --- A payload on its way ------------------------------------------------------------------------------------------------ */

enum rb_large rb_submit_begin_large(struct rb_conn *c, const struct rb_from *from,
                                    const struct rb_caller *to, struct rb_cursor *at,
                                    const struct rb_submit *s, struct rb_diversion *d) {
    uint32_t size;
    if (s->verb == RB_VERB_MANY || s->step.size) return RB_LARGE_KEEP;
    /* A term's size is not known before its end: it is assembled, within the bound of all assemblies, and then refused or copied. */
    if (rb_term_tag(at) != RB_TAG_BINARY) return RB_LARGE_KEEP;
    if (rb_term_binary_head(at, &size) < 0) return RB_LARGE_MORE;
    return rb_submit_begin_sized(c, from, to, s, size, d);
}

enum rb_large rb_submit_begin_sized(struct rb_conn *c, const struct rb_from *from,
                                    const struct rb_caller *to, const struct rb_submit *s,
                                    uint32_t size, struct rb_diversion *d) {
    if (!to->conn) return RB_LARGE_DROP;
    struct rb_verdict v;
    struct rb_role *role = rb_submit_role(c->relay, to, s->role);
    struct rb_job *j = role ? rb_submit_admit(c->relay, to, role, size, NULL, &v) : NULL;
    if (!j) return RB_LARGE_DROP;
    if (rb_submit_bind(c, j, to, from) < 0) {
        rb_job_free(c->relay, j);
        return RB_LARGE_KEEP; /* fails when it is whole, by the same rule */
    }
    j->arity = (uint8_t)s->arity;
    j->verb = (uint8_t)s->verb;
    rb_job_arrives(c->relay, j, c, size);
    *d = (struct rb_diversion){.dest = rb_job_payload(j), .dest_bytes = size, .token = j};
    return RB_LARGE_DIVERT;
}

void rb_submit_put_whole(struct rb_job *j, const uint8_t *from) {
    const struct rb_role *role = j->role;
    uint8_t *to = rb_job_payload(j);
    uint32_t size = j->request.payload_bytes;
    /* Links of a role are alike. Of one that differs the sum is made without this, or not looked at. */
    if (role->ready > 0 && role->workers[0]->link.config.features & RB_FEATURE_CRC_PAYLOAD) {
        j->payload_crc = rb_crc32c_copy(0, to, from, size);
        j->summed = 1;
    } else {
        memcpy(to, from, size);
    }
}

/* Payload and options are there. 0: the job is taken care of; -EINVAL: `why` says why not. */
static int take_large(struct rb_relay *r, struct rb_job *j, struct rb_submit *s,
                      char why[RB_WHY_BYTES]) {
    const struct rb_options *o = &s->options;
    struct rb_caller to = rb_job_caller(j);
    struct rb_payload payload = {{rb_job_payload(j), j->request.payload_bytes}, 0};
    if (rb_submit_names_operation(j->role, s) && rb_submit_operation(j->role, s, &payload, why) < 0)
        return -EINVAL;
    if (o->stages.size && rb_pipeline_check(r, s, NULL, why) < 0) return -EINVAL;
    struct rb_shared *known = o->dedupe.kind ? rb_shared_find(r, j->role, o) : NULL;
    struct rb_verdict v = {.outcome = RB_ADMIT};
    if (known && rb_shared_agrees(known, r, o, &payload) < 0) {
        snprintf(why, RB_WHY_BYTES, other_work, rb_verb_name(s->verb));
        return -EINVAL;
    }
    if (!rb_submit_may_retry(j->role, &to, s) ||
        (o->encoded && !rb_encoding_admits(j->role, &to, s, &payload))) {
        rb_job_free(r, j);
        return 0;
    }
    /* Its role may have closed, or its queue have filled, while the payload came. */
    if (!known) rb_admission_judge(r, j->role, to.conn, &o->tenant, o->priority, &v);
    if (v.outcome == RB_REFUSE) {
        rb_admission_refuse(r, j->role, &to, &v);
        rb_job_free(r, j);
    } else if (o->dedupe.kind) {
        rb_shared_join(r, j, s, known, &payload, &v);
    } else if (o->stages.size) {
        rb_pipeline_begin(r, j, s, &v);
    } else {
        rb_submit_accept(r, j, s, &v);
    }
    return 0;
}

/* `rc` of its options: taken in, or refused. */
static int end_large(struct rb_conn *c, struct rb_job *j, struct rb_submit *s, int rc,
                     char why[RB_WHY_BYTES]) {
    struct rb_relay *r = c->relay;
    if (rc == 0) rc = take_large(r, j, s, why);
    if (rc == 0) return 0;
    struct rb_caller to = rb_job_caller(j);
    if (rc == -EINVAL) rb_submit_refuse(&to, why);
    rb_job_free(r, j);
    return rc == -EINVAL ? 0 : rb_service_fail(c, "bad_payload");
}

int rb_submit_end_whole(struct rb_conn *c, struct rb_job *j, struct rb_submit *s) {
    char why[RB_WHY_BYTES];
    j->arriving = NULL;
    return end_large(c, j, s, 0, why);
}

int rb_submit_end_large(struct rb_conn *c, struct rb_job *j, struct rb_slice tail, int tail_cut) {
    j->arriving = NULL;
    struct rb_submit s = {.arity = j->arity, .verb = j->verb};
    rb_options_default(&s.options);
    struct rb_cursor at = rb_cursor_of(tail);
    char why[RB_WHY_BYTES];
    snprintf(why, sizeof why, "%s: the options are longer than 64 KiB", rb_verb_name(s.verb));
    return end_large(c, j, &s, tail_cut ? -EINVAL : rb_submit_options(&at, &s, why), why);
}

void rb_submit_abort_large(struct rb_relay *r, struct rb_job *j) {
    j->arriving = NULL;
    rb_job_free(r, j);
}
