/* term_answer.h: a worker's term answer, on a private copy, walked in portions.
 *
 * A worker may answer with as many terms as its role's rules and its region allow: a second's walk for 10 million. Others do not wait
 * for it: each round a worker is given a portion of effort, and an answer that is not walked yet stays the first in its ring. What the
 * walk goes by is the relay's own from its beginning on: envelope and bytes are copied once and not looked at again. */
#ifndef RB_RELAY_TERM_ANSWER_H
#define RB_RELAY_TERM_ANSWER_H

#include "ringbridge/link.h"
#include "ringbridge/term_check.h"

struct rb_job;
struct rb_worker;

/* In terms, of 50 to 100 ns: a millisecond or two of a round for each worker. At its end there are no other rounds. */
enum { RB_EFFORT_A_ROUND = 16384, RB_EFFORT_AT_END = 1 << 20 };
/* Smaller ones of smaller requests are walked at once, and need no memory of their own. */
enum { RB_WALK_WHOLE_BYTES = 32 << 10 };

/* What a completion costs, but for a walk in portions. To check and copy 512 bytes is as much as a term; a small term has one for
 * every 4 bytes, or about. */
static inline uint64_t rb_completion_effort(const struct rb_completion *e) {
    int whole = e->payload_bytes <= RB_WALK_WHOLE_BYTES || e->status > RB_STATUS_CANCELLED;
    uint64_t walked = e->flags & RB_FLAG_TERM && whole ? e->payload_bytes / 4 : 0;
    return 1 + e->payload_bytes / 512 + walked;
}

struct rb_term_answer {
    struct rb_term_walk *walk; /* NULL: none goes on */
    struct rb_completion envelope;
    uint8_t *copy;
    size_t size;
};

/* 0: it may be sent, and `*term` is where it lies, until rb_term_answer_end(). -EAGAIN: the effort is spent. Less: the rule that it breaks. */
int rb_term_answer_begin(struct rb_worker *w, const struct rb_job *j, const struct rb_completion *e,
                         const uint8_t *payload, uint64_t *effort, struct rb_slice *term,
                         const char **rule);
int rb_term_answer_on(struct rb_worker *w, uint64_t *effort, struct rb_slice *term,
                      const char **rule);
void rb_term_answer_end(struct rb_worker *w);

#endif
