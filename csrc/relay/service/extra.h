/* extra.h: what a job has beyond a plain call: the note that came with it, and the others whose answers hang together with its own.
 *
 * A record of a bounded pool, so that plain jobs neither carry nor pay for it. It is shared by the jobs of a batch or pipeline and lives as
 * long as one of them. */
#ifndef RB_RELAY_EXTRA_H
#define RB_RELAY_EXTRA_H

#include "relay/service/options.h"
#include "relay/service/reply.h"
#include "ringbridge/relay.h"

struct rb_batch;
struct rb_job;
struct rb_pipeline;
struct rb_relay;
struct rb_shared;

enum { RB_EXTRAS_MAX = 1 << 20 }; /* as many as jobs */

struct rb_extra {
    struct rb_extra *next; /* free */
    uint32_t held;         /* by jobs */
    struct rb_batch *batch;
    struct rb_shared *shared;
    struct rb_pipeline *pipeline; /* held */
    uint16_t meta_size;           /* 0: none */
    uint8_t meta[RB_META_BYTES_MAX];
};

/* One held once, or NULL: all are in use. */
struct rb_extra *rb_extra_new(struct rb_relay *r);
void rb_extra_release(struct rb_relay *r, struct rb_extra *e);
void rb_extra_give(struct rb_job *j, struct rb_extra *e); /* the job holds it too */
/* Its note, a well-formed map: told with its status, and of it when it is lost. */
void rb_extra_note(struct rb_relay *r, struct rb_job *j, struct rb_slice meta);
void rb_extras_fini(struct rb_relay *r); /* once no job holds any */

/* A step of a job's life that concerns others too (job.c). The reason that counts. */
enum rb_reason rb_extra_answered(struct rb_relay *r, struct rb_job *j, enum rb_reason reason);
/* A job that waits for others (RB_JOB_WAITING) is no more waited for. */
void rb_extra_cancel(struct rb_relay *r, struct rb_job *j, enum rb_reason reason);
/* Nothing of it goes on: its answer is there, and waits for its caller's socket. */
int rb_extra_is_over(const struct rb_job *j);
/* A job that waits for others is due by itself. 0: its deadline has come. */
int rb_extra_due(struct rb_relay *r, struct rb_job *j);
/* A job goes on without its caller. */
void rb_extra_orphaned(struct rb_job *j);

#endif
