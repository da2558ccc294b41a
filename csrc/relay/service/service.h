/* service.h: signals to the relay's own services, and everything else upward. */
#ifndef RB_RELAY_SERVICE_H
#define RB_RELAY_SERVICE_H

#include "relay/net/intake.h"
#include "relay/service/reply.h"
#include "relay/service/request.h"

struct rb_conn;

/* -EPROTO, which closes the connection, with the reason that is told. */
int rb_service_fail(struct rb_conn *c, const char *why);
/* Who is to be answered: the caller's own node may be another one than that which the signal comes from. */
struct rb_caller rb_service_caller(struct rb_conn *c, const struct rb_from *from);
/* A request to the JobDispatcher at the cursor, by whichever way it came; whoever asks has a job or an answer. -EPROTO as above. */
int rb_service_call(struct rb_conn *c, const struct rb_from *from, const struct rb_caller *to,
                    struct rb_cursor *at);
/* The same of one whose payload is not whole behind the cursor: what intake.h asks of its owner. */
enum rb_large rb_service_call_large(struct rb_conn *c, const struct rb_from *from,
                                    const struct rb_caller *to, struct rb_cursor *at,
                                    struct rb_submit *s, struct rb_diversion *d);
/* To be done before that. Somebody forwarded a call whose answer is for another node. A connection of that node that was handed over by now
 * may be newer than this round: bound to the one before, or to none, the call would lose its answer although its caller is there. What else
 * was handed down is carried out with it: a service may be down after it. */
void rb_service_hear_of_newcomers(struct rb_conn *c, const struct rb_from *from);
void rb_service_bind(struct rb_conn *c); /* sets the owner of the connection's intake */

#endif
