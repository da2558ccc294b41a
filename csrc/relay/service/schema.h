/* schema.h: does a payload look as its operation says? (pure)
 *
 * A schema is a program: nodes of struct rb_ops_config (dispatch.h), compiled in Python from [roles.NAME.ops.OP] payload. The walk
 * goes over the term's bytes once, builds nothing, and keeps a stack of RB_SCHEMA_DEPTH_MAX frames. The payload is a stranger's; the
 * program is our own, and held against its rules once, when the role takes it. */
#ifndef RB_RELAY_SCHEMA_H
#define RB_RELAY_SCHEMA_H

#include "ringbridge/dispatch.h"
#include "ringbridge/term.h"

enum { RB_SCHEMA_TERMS_MAX = 1 << 20, RB_SCHEMA_LOOKS_MAX = 1 << 24, RB_SCHEMA_WHY_BYTES = 256 };

/* What was looked at for one request, all of its payloads together: the relay's one thread does nothing else meanwhile. */
struct rb_schema_spent {
    uint32_t terms, looks; /* looks: at alternatives, of atoms, keys and ONE_OF */
    int of_many;           /* 1: of a batch, for the words */
};

/* 0, or -EINVAL: a node, a child, a text, a name or a depth out of its range; an opcode or a name twice. */
int rb_schema_sound(const struct rb_ops_config *ops);
/* A payload: term bytes, well-formed and one whole term; or the raw bytes of a binary. 0; or -EINVAL with `why`: "payload.q[3] must be a
 * float of 0 to 1, got 7". More than RB_SCHEMA_TERMS_MAX terms that are looked at are refused, as they would hold up the others; so
 * are more than RB_SCHEMA_LOOKS_MAX alternatives for them all: an atom is compared with each that it may be. What it takes is added
 * to `spent`, which is all zeros before the first payload of a request. */
int rb_schema_check(const struct rb_ops_config *ops, uint32_t schema, struct rb_slice payload,
                    int is_term, struct rb_schema_spent *spent, char why[RB_SCHEMA_WHY_BYTES]);

#endif
