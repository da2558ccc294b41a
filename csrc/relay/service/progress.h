/* progress.h: how far a job is, on its way to the process that submitted it asynchronously: {ringbridge, Ref, {progress, Term}}.
 *
 * Of a job only the newest report is kept, and one leaves a round at most, while the socket has room: reports never pile up, neither
 * for a worker that tells too much nor for a peer that reads too slowly. What has not left before the answer does not leave. */
#ifndef RB_RELAY_PROGRESS_H
#define RB_RELAY_PROGRESS_H

#include <stdint.h>

struct rb_completion;
struct rb_job;
struct rb_progress;
struct rb_relay;
struct rb_worker;

/* One report, checked but for its size and its term. NULL, or the rule that it breaks. */
const char *rb_progress_take(struct rb_worker *w, struct rb_job *j, const struct rb_completion *e,
                             const uint8_t *payload);
void rb_progress_flush(struct rb_relay *r); /* the newest of each job leave, where there is room */
void rb_progress_forget(struct rb_job *j);  /* nobody hears of the job any more */

#endif
