/* batch.h: submit_many: one call, many jobs, one answer in the order of the payloads.
 *
 * The caller is held by a job record of its own, the head, which waits for the others (RB_JOB_WAITING); each of them is an ordinary
 * job of its role, with its own admission, deadline, worker and reason, whose caller is an element of the batch. Their answers are
 * copied out of the workers' regions as they come, and leave together with the last. The end of the caller is the end of the head,
 * and that of every element that is not answered. */
#ifndef RB_RELAY_BATCH_H
#define RB_RELAY_BATCH_H

#include "relay/service/submit.h"

struct rb_batch;

enum { RB_MANY_MAX = 10000 }; /* payloads of one request */

/* A request of that verb, the cursor at its list of payloads, all of it there. As rb_submit(). */
int rb_batch_submit(struct rb_conn *c, const struct rb_from *from, const struct rb_caller *to,
                    struct rb_cursor *at, struct rb_submit *s);
struct rb_relay *rb_batch_relay(const struct rb_batch *b); /* NULL: nobody waits for its answers */
/* The answer of an element, in up to three pieces. */
void rb_batch_put(struct rb_batch *b, uint32_t index, const struct rb_slice pieces[3]);
/* An element is over, its answer put or not. The reason that counts: an answer for which there was no room is a failure. */
enum rb_reason rb_batch_answered(struct rb_relay *r, struct rb_job *element, enum rb_reason reason);
void rb_batch_cancel(struct rb_relay *r, struct rb_job *head, enum rb_reason reason);
/* What all batches and pipelines of a connection may keep together, their own records included. */
static inline uint64_t rb_keep_max(const struct rb_relay_config *config) {
    return config->outgoing_bytes_max - config->outgoing_bytes_max / 16;
}
uint64_t rb_batch_gathered(const struct rb_batch *b); /* on the account of its connection */
void rb_batch_mute(struct rb_batch *b); /* its jobs go on, and nobody waits for their answers */
void rb_batch_free(struct rb_batch *b);

#endif
