/* service.h: signals to the relay's own services, and everything else upward. */
#ifndef RB_RELAY_SERVICE_H
#define RB_RELAY_SERVICE_H

#include "ringbridge/term.h"

struct rb_conn;

/* -EPROTO, which closes the connection, with the reason that is told. */
int rb_service_fail(struct rb_conn *c, const char *why);
void rb_service_bind(struct rb_conn *c); /* sets the owner of the connection's intake */

#endif
