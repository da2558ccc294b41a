/* stage.h: GenStage's message protocol, as its producer (hexdocs.pm/gen_stage, "Message protocol overview"). */
#ifndef RB_RELAY_STAGE_H
#define RB_RELAY_STAGE_H

#include "ringbridge/term.h"

struct rb_conn;

/* A message to the Streams that is neither a call nor a cast nor of `sys`. 0; -EPROTO: the connection is to be closed. */
int rb_stage_message(struct rb_conn *c, struct rb_slice message);

#endif
