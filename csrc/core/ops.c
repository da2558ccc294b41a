#include "ringbridge/ops.h"

#include <stddef.h>
#include <string.h>

static const uint16_t takes_known = RB_TAKES_RAW | RB_TAKES_TERM | RB_TAKES_PARTS;

static int name_is_clean(const uint8_t *name, size_t bytes) {
    size_t i = 0;
    for (; i < bytes && name[i]; i++)
        if (name[i] < 0x20 || name[i] == 0x7f) return 0;
    if (i == 0 || i == bytes) return 0;
    for (; i < bytes; i++)
        if (name[i]) return 0;
    return 1;
}

const char *rb_ops_rule(const struct rb_worker_op *ops, uint32_t count) {
    if (count > RB_OPS_MAX) return "the worker declares more operations than there is room for";
    for (uint32_t i = 0; i < count; i++) {
        if (!name_is_clean(ops[i].name, sizeof ops[i].name))
            return "the name of an operation is not printable, NUL-terminated text";
        if (ops[i].takes & ~takes_known) return "an operation takes what this layout does not know";
        for (uint32_t k = 0; k < i; k++) {
            if (ops[k].opcode == ops[i].opcode) return "an opcode is declared twice";
            if (memcmp(ops[k].name, ops[i].name, sizeof ops[i].name) == 0)
                return "an operation's name is declared twice";
        }
    }
    return NULL;
}

const struct rb_worker_op *rb_ops_find(const struct rb_worker_op *ops, uint32_t count,
                                       uint16_t opcode) {
    for (uint32_t i = 0; i < count; i++)
        if (ops[i].opcode == opcode) return &ops[i];
    return NULL;
}
