/* operation.h: the operations of a role: which one a request means, and whether its payload is as that one takes it. */
#ifndef RB_RELAY_OPERATION_H
#define RB_RELAY_OPERATION_H

#include "relay/service/options.h"
#include "ringbridge/layout.h"

struct rb_role;
struct rb_schema_spent;

/* What `op: name` or `opcode:` of a request mean at this role, o->opcode at the end. 0, or -EINVAL with `why`. */
int rb_operation_resolve(const struct rb_role *role, struct rb_options *o, const char *verb,
                         char why[RB_WHY_BYTES]);
/* Whether a worker can serve the role, by the table that it declares: 0, or -EINVAL with `why`. One that declares nothing can. */
int rb_operation_served(const struct rb_role *role, const struct rb_worker_op *declared,
                        uint32_t count, char *why, size_t why_bytes);
/* A payload, for one that was resolved; `spent`: for the payloads of this request before it (schema.h). */
int rb_operation_takes(const struct rb_role *role, const struct rb_options *o,
                       struct rb_slice payload, int is_term, struct rb_schema_spent *spent,
                       const char *verb, char why[RB_WHY_BYTES]);

#endif
