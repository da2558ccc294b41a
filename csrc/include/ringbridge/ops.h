/* ops.h: the operations that a worker declares in its hello (struct worker_op of layout.toml): opcode, name, what it takes. */
#ifndef RINGBRIDGE_OPS_H
#define RINGBRIDGE_OPS_H

#include <stdint.h>

#include "ringbridge/layout.h"

/* The rule that a table breaks, in words, or NULL: at most RB_OPS_MAX; each opcode and each name once; names of 1 to 27 bytes of printable,
 * NUL-terminated text, zeros behind it; bits of RB_TAKES_... that are known. */
const char *rb_ops_rule(const struct rb_worker_op *ops, uint32_t count);
/* The one with this opcode, or NULL. */
const struct rb_worker_op *rb_ops_find(const struct rb_worker_op *ops, uint32_t count,
                                       uint16_t opcode);

#endif
