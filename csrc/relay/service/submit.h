/* submit.h: requests for work. */
#ifndef RB_RELAY_SUBMIT_H
#define RB_RELAY_SUBMIT_H

#include "relay/dispatch/role.h"
#include "relay/net/intake.h"
#include "relay/service/answer.h"
#include "relay/service/request.h"

struct rb_conn;
struct rb_job;
struct rb_role;
struct rb_relay;
struct rb_verdict;

/* {error, {bad_request, Why}}, counted as refused. */
void rb_submit_refuse(const struct rb_caller *to, const char *why);

/* A request whose payload lies whole at the cursor, as do its options behind it. 0, the caller having a job or an answer; -EPROTO:
 * its connection is to be closed. */
int rb_submit(struct rb_conn *c, const struct rb_from *from, const struct rb_caller *to,
              struct rb_cursor *at, struct rb_submit *s);

/* The same of which all is known: the payload, and the options in `s`. */
struct rb_payload {
    struct rb_slice bytes; /* of a binary, or the whole term */
    int is_term;
};
int rb_submit_work(struct rb_conn *c, const struct rb_from *from, const struct rb_caller *to,
                   struct rb_submit *s, const struct rb_payload *payload);

/* --- Its steps, for requests that make several jobs or none of their own --- */

struct rb_payload rb_submit_payload(struct rb_slice term);
/* The role of that name, or NULL: the caller has been told. */
struct rb_role *rb_submit_role(struct rb_relay *r, const struct rb_caller *to,
                               struct rb_slice name);
/* A job with room for `size` payload bytes, to be accepted in this moment and as `v` then says; or NULL: the caller has been told why
 * not. `o` NULL: its options are not known yet, and it is judged again when they are. */
struct rb_job *rb_submit_admit(struct rb_relay *r, const struct rb_caller *to, struct rb_role *role,
                               uint64_t size, const struct rb_options *o, struct rb_verdict *v);
/* Room in the table, and in the role's pool for `size` bytes; NULL: of which there is none. */
struct rb_job *rb_submit_make(struct rb_relay *r, struct rb_role *role, uint64_t size,
                              enum rb_rule *full);
void rb_submit_fill(struct rb_job *j, const struct rb_payload *payload);
/* Whether there is anything to be said about operations: for a role without any, and a request that names none, there is not. */
static inline int rb_submit_names_operation(const struct rb_role *role, const struct rb_submit *s) {
    return __builtin_expect(role->config.ops.table_count != 0 || s->options.op.size != 0, 0);
}
/* Which operation it means, and, unless `payload` is NULL, whether that takes it so. 0, or -EINVAL with `why`. */
int rb_submit_operation(const struct rb_role *role, struct rb_submit *s,
                        const struct rb_payload *payload, char why[RB_WHY_BYTES]);
/* To its caller's life. -1: pid and tag are too large. */
int rb_submit_bind(struct rb_conn *c, struct rb_job *j, const struct rb_caller *to,
                   const struct rb_from *from);
/* What the options say, into the job; its deadline runs from here. */
void rb_submit_prepare(struct rb_relay *r, struct rb_job *j, const struct rb_options *o);
/* Counted, and into its role's queue as judged; or (RB_JOB_WAITING) for other jobs. An asynchronous caller has its handle by then. */
void rb_submit_accept(struct rb_relay *r, struct rb_job *j, const struct rb_submit *s,
                      const struct rb_verdict *v);
void rb_submit_wait(struct rb_relay *r, struct rb_job *j, const struct rb_submit *s);
/* {error, {too_large, _}}, counted as refused: more than the role's payload_bytes_max. */
void rb_submit_too_large(struct rb_role *role, const struct rb_caller *to);
/* A job may run twice only where that does no harm. 1, or 0: the caller has been told. */
int rb_submit_may_retry(const struct rb_role *role, const struct rb_caller *to,
                        const struct rb_submit *s);

/* A request whose payload is not whole yet: what intake.h asks of its owner, once the signal is known to be a submit. The cursor,
 * at the payload, moves past its head; the job is the diversion's token. */
enum rb_large rb_submit_begin_large(struct rb_conn *c, const struct rb_from *from,
                                    const struct rb_caller *to, struct rb_cursor *at,
                                    const struct rb_submit *s, struct rb_diversion *d);
int rb_submit_end_large(struct rb_conn *c, struct rb_job *j, struct rb_slice tail, int tail_cut);
/* The same where the payload's size is known without a term, and the options with it. */
enum rb_large rb_submit_begin_sized(struct rb_conn *c, const struct rb_from *from,
                                    const struct rb_caller *to, const struct rb_submit *s,
                                    uint32_t size, struct rb_diversion *d);
/* All of its payload from where it lies, which may be written meanwhile; summed on the way if the role's workers want a sum. */
void rb_submit_put_whole(struct rb_job *j, const uint8_t *from);
int rb_submit_end_whole(struct rb_conn *c, struct rb_job *j, struct rb_submit *s);
void rb_submit_abort_large(struct rb_relay *r, struct rb_job *j);

#endif
