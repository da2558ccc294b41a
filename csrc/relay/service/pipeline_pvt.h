/* pipeline_pvt.h: a job in stages, as its parts share it.
 *
 *      course.c     what the request says: which steps, whether there are such, and who may begin
 *      spread.c     the jobs of the step under way: begun as there is room, and what they answer
 *      pipeline.c   from step to step, and its end
 *
 * One extra is the record's of its caller and of all its jobs, and holds the pipeline. */
#ifndef RB_RELAY_PIPELINE_PVT_H
#define RB_RELAY_PIPELINE_PVT_H

#include "relay/net/buffer.h"
#include "relay/service/elements.h"
#include "relay/service/pipeline.h"
#include "relay/service/step.h"

enum { RB_BRANCH_NONE = -1 }; /* what ended it is of the step as a whole */

struct rb_course_role { /* by name: it may be gone, or another one, when its turn comes */
    const char *name;
    uint16_t opcode;
};
struct rb_course_step {
    enum rb_step_kind kind;
    uint32_t count;
    struct rb_course_role *roles;
};

struct rb_branch {
    uint64_t job; /* 0: it is over */
    size_t at;    /* its answer, in `answers` */
    uint32_t size;
};

struct rb_pipeline {
    struct rb_relay *relay;
    struct rb_pipeline *next; /* among those that have something to do */
    int listed;
    uint32_t held;          /* by its extra, and by that list */
    struct rb_job *head;    /* the caller's record; NULL: it has left, or has its answer */
    struct rb_extra *extra; /* not held: it holds the pipeline */
    /* On whose account lies what is kept beyond a round, and how much that is; NULL: its caller has gone, and it goes on. */
    struct rb_conn *charged;
    uint64_t charged_bytes;
    uint64_t own_bytes; /* of these, the record itself and its rows of branches */

    struct rb_options options; /* of all steps */
    char tenant[64];
    uint64_t key; /* of the first one */
    int keyed;
    uint32_t at, count; /* the step under way */
    struct rb_course_step *steps;

    /* The payload of the step under way: in `kept`, or in the request that this call is about. */
    struct rb_slice value;
    uint8_t *kept;
    uint64_t kept_charged;
    struct rb_elements elements;  /* of a map: those that were not taken yet */
    struct rb_slice next_payload; /* taken, and not begun: there was no room; empty: none */
    int all_begun, waits;         /* for room that time alone may bring */
    uint32_t begun, open;         /* jobs of it; those that are not over */
    uint64_t open_bytes;          /* their payloads */
    struct rb_branch *branches, only;
    uint32_t capacity;
    struct rb_buffer
        answers; /* of one job the whole answer; of several a list of the values, as they came */
    uint32_t next_index; /* of the value that would keep them in order */
    int in_order;
    uint64_t list_bytes_max; /* as the next step's role takes them; */
    int64_t list_branch;     /* that one, of several */

    int failed;
    enum rb_reason reason; /* OK while it has failed: not known yet */
    enum rb_rule rule;     /* of OVERLOADED */
    uint32_t failed_step;
    int64_t failed_branch;
    uint8_t *words; /* the reason as a term; NULL: the name of `reason` */
    size_t words_size;
};

/* What may be begun in a round: a job is about half a microsecond, and 4 MiB are a millisecond's copying. */
struct rb_begin_budget {
    uint32_t jobs;
    uint64_t bytes;
};
enum { RB_BEGIN_JOBS = 1024, RB_BEGIN_BYTES = 4 << 20 };

/* --- course.c --- */

/* Held by nobody. NULL: no memory. The operation of the first step's roles was resolved. */
struct rb_pipeline *rb_course_make(struct rb_relay *r, const struct rb_step *first,
                                   const struct rb_options *o);
static inline const struct rb_course_step *rb_course_step(const struct rb_pipeline *p) {
    return &p->steps[p->at];
}
static inline int rb_course_is_last(const struct rb_pipeline *p) { return p->at + 1 == p->count; }
struct rb_role *rb_course_role(struct rb_relay *r, const struct rb_course_role *role);

/* --- spread.c --- */

/* The record itself is charged to its caller's connection; -ENOMEM: that keeps as much as it may. */
int rb_spread_charge_record(struct rb_pipeline *p);
/* The step under way is new, and this is its payload, which stays where it is. */
void rb_spread_set(struct rb_pipeline *p, struct rb_slice value);
/* Begins what there is room for, as far as the budget allows. 1: it was that which ended it. */
int rb_spread_on(struct rb_relay *r, struct rb_pipeline *p, struct rb_begin_budget *budget);
/* What has not begun is copied, out of the request. */
void rb_spread_keep(struct rb_pipeline *p);
static inline int rb_spread_is_over(const struct rb_pipeline *p) {
    return p->all_begun && !p->open;
}
/* The values of a step that is over are one list now, `answers`. */
void rb_spread_gather(struct rb_pipeline *p);
/* `answers` becomes what is kept, for the next step. */
void rb_spread_pass(struct rb_pipeline *p);
void rb_spread_cancel(struct rb_relay *r, struct rb_pipeline *p, enum rb_reason reason);
void rb_spread_forget(struct rb_pipeline *p); /* all that it keeps */
void rb_spread_fail(struct rb_pipeline *p, uint32_t step, int64_t branch, enum rb_reason reason);
void rb_spread_mute(struct rb_pipeline *p);

#endif
