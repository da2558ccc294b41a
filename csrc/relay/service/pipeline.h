/* pipeline.h: a job in stages: what one step's roles answer is the payload of the next one's.
 *
 * A step is one job; a fan-out, the same payload for several roles side by side; or a map, a job for each element of a list (step.h).
 * What comes out of the latter two is the list of the answers, in the order of the roles or elements, and the step behind them joins it.
 *
 * The caller is held by a record of its own that waits (RB_JOB_WAITING), and is counted, watched, cancelled and timed like any other. Each
 * job of a step is a run without a caller: an ordinary job of its role, admitted, placed and judged as any, with what is left of the
 * deadline. Its answer is copied out of its worker's region, and the next step begins in the relay, in the same round. The first job that
 * does not end well ends the whole, its siblings are cancelled: {error, {stage, N, Who, Reason}}, where Who is the role, {map, Role,
 * Index} or {fan_out, Role, Index}. */
#ifndef RB_RELAY_PIPELINE_H
#define RB_RELAY_PIPELINE_H

#include "relay/service/submit.h"

struct rb_pipeline;
struct rb_step;

/* Jobs of one map that are under way at once, with at most a quarter of its role's pool: others call that role too. */
enum { RB_MAP_OPEN_MAX = 1024 };

/* Whether its stages are such as there are. `first` NULL: that one is a plain role. 0, or -EINVAL with `why`. */
int rb_pipeline_check(struct rb_relay *r, const struct rb_submit *s, const struct rb_step *first,
                      char why[RB_WHY_BYTES]);
/* A request with a step in the role's place (s->step); the cursor at its payload. As rb_submit(). */
int rb_pipeline_submit(struct rb_conn *c, const struct rb_from *from, const struct rb_caller *to,
                       struct rb_cursor *at, struct rb_submit *s);
/* The job, which is bound, is the first stage; its caller waits for the last one's answer. Runs as judged. Whatever happens, the job is
 * taken care of. */
void rb_pipeline_begin(struct rb_relay *r, struct rb_job *j, const struct rb_submit *s,
                       const struct rb_verdict *v);
/* The same of a fan-out or map: the job, which is bound, is the caller's record, and `value` is for the roles of the step. */
void rb_pipeline_spread(struct rb_relay *r, struct rb_job *j, const struct rb_submit *s,
                        const struct rb_step *first, struct rb_slice value);
/* The answer of one of its jobs, in up to three pieces. NULL relay: nobody waits for it. */
struct rb_relay *rb_pipeline_relay(const struct rb_pipeline *p);
void rb_pipeline_put(struct rb_pipeline *p, uint32_t index, const struct rb_slice pieces[3]);
/* One of its jobs is told overloaded: its caller will be counted by this rule, if it is told so. */
void rb_pipeline_overloaded(struct rb_pipeline *p, enum rb_rule rule);
/* One of its jobs is over. What follows from that begins in rb_pipelines_round(), so that nothing is queued or cancelled in the midst of
 * what ends jobs. */
void rb_pipeline_over(struct rb_relay *r, struct rb_job *run, enum rb_reason reason);
void rb_pipelines_round(struct rb_relay *r);
/* The caller leaves before; or it does, and the whole goes on. */
void rb_pipeline_leave(struct rb_relay *r, struct rb_job *caller, enum rb_reason reason);
void rb_pipeline_mute(struct rb_pipeline *p);
/* What waited for room may look again, or its deadline has come. */
void rb_pipeline_due(struct rb_relay *r, struct rb_job *caller);
void rb_pipeline_release(struct rb_pipeline *p); /* by an extra that holds it */
void rb_pipelines_fini(struct rb_relay *r);

/* For the audit: its jobs that are under way, of those that it names; what it keeps; NULL or the rule that it breaks. */
const char *rb_pipeline_audit(const struct rb_relay *r, const struct rb_job *caller, uint64_t *open,
                              uint64_t *charged);

#endif
