/* pipeline.h: a job in stages: what one role answers is the payload of the next one's job.
 *
 * The caller is held by a record of its own that waits (RB_JOB_WAITING), and is counted, watched, cancelled and timed like any other. Each
 * stage is a run without a caller: an ordinary job of its role, admitted, placed and judged as any, with what is left of the deadline. Its
 * answer is copied out of its worker's region, and the next stage begins in the relay, in the same round. The first stage that
 * does not end well ends the whole: {error, {stage, N, Role, Reason}}. */
#ifndef RB_RELAY_PIPELINE_H
#define RB_RELAY_PIPELINE_H

#include "relay/service/submit.h"

struct rb_pipeline;

/* Whether its stages are such as there are. 0, or -EINVAL with `why`. */
int rb_pipeline_check(struct rb_relay *r, const struct rb_submit *s, char why[RB_WHY_BYTES]);
/* The job, which is bound, is the first stage; its caller waits for the last one's answer. Runs as judged. Whatever happens, the job is
 * taken care of. */
void rb_pipeline_begin(struct rb_relay *r, struct rb_job *j, const struct rb_submit *s,
                       const struct rb_verdict *v);
/* The answer of a stage, in up to three pieces. NULL relay: nobody waits for it. */
struct rb_relay *rb_pipeline_relay(const struct rb_pipeline *p);
void rb_pipeline_put(struct rb_pipeline *p, const struct rb_slice pieces[3]);
/* A stage is over. The next one begins in rb_pipelines_round(), so that nothing is queued in the midst of what ends jobs. */
void rb_pipeline_over(struct rb_relay *r, struct rb_job *run, enum rb_reason reason);
void rb_pipelines_round(struct rb_relay *r);
/* The caller leaves before. */
void rb_pipeline_leave(struct rb_relay *r, struct rb_job *caller, enum rb_reason reason);
void rb_pipeline_release(struct rb_pipeline *p); /* by an extra that holds it */

#endif
