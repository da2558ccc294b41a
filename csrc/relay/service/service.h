/* service.h: signals to the relay's own services, and everything else upward. */
#ifndef RB_RELAY_SERVICE_H
#define RB_RELAY_SERVICE_H

#include "relay/service/reply.h"
#include "relay/service/request.h"

struct rb_conn;

/* -EPROTO, which closes the connection, with the reason that is told. */
int rb_service_fail(struct rb_conn *c, const char *why);
/* Who is to be answered: the caller's own node may be another one than that which the signal comes from. */
struct rb_caller rb_service_caller(struct rb_conn *c, const struct rb_from *from);
void rb_service_bind(struct rb_conn *c); /* sets the owner of the connection's intake */

#endif
