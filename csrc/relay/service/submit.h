/* submit.h: requests for work. */
#ifndef RB_RELAY_SUBMIT_H
#define RB_RELAY_SUBMIT_H

#include "relay/net/intake.h"
#include "relay/service/answer.h"
#include "relay/service/request.h"

struct rb_conn;
struct rb_job;
struct rb_relay;

/* {error, {bad_request, Why}}, counted as refused. */
void rb_submit_refuse(const struct rb_caller *to, const char *why);

/* A request whose payload lies whole at the cursor, as do its options behind it. 0, the caller having a job or an answer; -EPROTO:
 * its connection is to be closed. */
int rb_submit(struct rb_conn *c, const struct rb_from *from, const struct rb_caller *to,
              struct rb_cursor *at, struct rb_submit *s);

/* A request whose payload is not whole yet: what intake.h asks of its owner, once the signal is known to be a submit. The cursor,
 * at the payload, moves past its head; the job is the diversion's token. */
enum rb_large rb_submit_begin_large(struct rb_conn *c, const struct rb_from *from,
                                    const struct rb_caller *to, struct rb_cursor *at,
                                    const struct rb_submit *s, struct rb_diversion *d);
int rb_submit_end_large(struct rb_conn *c, struct rb_job *j, struct rb_slice tail, int tail_cut);
void rb_submit_abort_large(struct rb_relay *r, struct rb_job *j);

#endif
