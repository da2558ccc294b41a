/* vitals.h: is a worker alive, does its job get on, does it want jobs? Three questions, answered apart.
 *
 *   alive     the kit's own thread writes the telemetry block every RB_HEARTBEAT_MS, whatever the handler does. One that has not for
 *             hang_ms is hung: stopped, or dead inside. A handler that runs for hours, or holds an interpreter's lock, is not.
 *   gets on   while it has jobs: it enters and ends them, and what runs shows that it gets on (parts, progress, rb_pulse()). One that
 *             does none of this for progress_timeout_ms is stuck; where the role does not say so nothing is (0). A stream that waits
 *             for its consumer waits for somebody else.
 *   ready     telemetry.unready: it lives, and is to be given nothing new. What it has it keeps.
 *
 * Who is hung or stuck has broken the rule `no_heartbeat` or `no_progress`: killed, its jobs answered, all here, so that it works
 * while the interpreter stalls.
 *
 * Time is counted in looks: each is worth the time since that worker's last, but never more than a step. So what the relay itself
 * missed (stopped, held up, the machine suspended) is not held against workers, whose clocks may have stood still with it. */
#ifndef RB_RELAY_VITALS_H
#define RB_RELAY_VITALS_H

#include "ringbridge/dispatch.h"
#include "ringbridge/layout.h"

struct rb_relay;
struct rb_worker;

/* What a look at a worker's memory shows. All of it may be a lie, which costs the liar alone. */
struct rb_vital_signs {
    struct rb_telemetry telemetry;
    uint32_t torn; /* no still moment was found in it: it is not to be read */
    uint32_t reserved;
    uint64_t pulse, started, request_head, completion_tail;
};

struct rb_vitals {
    struct rb_vital_signs seen;   /* as of the last look */
    uint64_t looked_ns;           /* when that was */
    uint64_t silent_ns, still_ns; /* without a heartbeat; with jobs, and without a sign of them */
};

enum rb_vitals_verdict { RB_VITALS_FINE, RB_VITALS_HUNG, RB_VITALS_STUCK };

/* One more look, `step_ns` after the last. `busy`: it has jobs, and none of them waits for somebody else. */
void rb_vitals_take(struct rb_vitals *v, const struct rb_vital_signs *seen, int busy,
                    uint64_t step_ns);
enum rb_vitals_verdict rb_vitals_judge(const struct rb_vitals *v,
                                       const struct rb_health_config *config);
/* How often to look, so that a time of the config is kept within a quarter of it. */
uint64_t rb_vitals_step_ns(const struct rb_health_config *config);

/* --- In the relay --- */

struct rb_link;
/* As they stand in its memory now. */
struct rb_vital_signs rb_vital_signs_of(const struct rb_link *link,
                                        const struct rb_worker_positions *theirs);

struct rb_vitals_watch { /* over all workers */
    uint64_t due_ns, step_ns;
    int needed; /* somebody is to be judged: the relay must not sleep past due_ns */
};

void rb_vitals_begin(struct rb_worker *w); /* it greets: what it says first, its readiness too */
/* It has rung, and no completion was the reason (rb_link_knock()). */
void rb_vitals_heard(struct rb_worker *w);
void rb_vitals_soon(struct rb_relay *r);  /* another config: look at once */
void rb_vitals_round(struct rb_relay *r); /* once due_ns has come: looks at all workers */

#endif
