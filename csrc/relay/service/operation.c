#include "relay/service/operation.h"

#include <errno.h>
#include <stdio.h>

#include "relay/dispatch/role.h"
#include "relay/service/picture.h"
#include "relay/service/schema.h"
#include "ringbridge/ops.h"

static const struct rb_op_config *named(const struct rb_ops_config *ops, struct rb_slice name) {
    for (uint32_t i = 0; i < ops->table_count; i++)
        if (rb_slice_is(name, ops->table[i].name)) return &ops->table[i];
    return NULL;
}

static const struct rb_op_config *numbered(const struct rb_ops_config *ops, uint32_t opcode) {
    for (uint32_t i = 0; i < ops->table_count; i++)
        if (ops->table[i].opcode == opcode) return &ops->table[i];
    return NULL;
}

static int unknown(const struct rb_role *role, const struct rb_options *o, const char *verb,
                   char why[RB_WHY_BYTES]) {
    const struct rb_ops_config *ops = &role->config.ops;
    int n = snprintf(why, RB_WHY_BYTES, "%s: role %s has no operation ", verb, role->name);
    if (o->op.size)
        n += snprintf(why + n, RB_WHY_BYTES - (size_t)n, ":%.*s", rb_picture_size(o->op),
                      (const char *)o->op.at);
    else
        n += snprintf(why + n, RB_WHY_BYTES - (size_t)n, "of opcode %u", o->opcode);
    n += snprintf(why + n, RB_WHY_BYTES - (size_t)n, "; it has:");
    for (uint32_t i = 0; i < ops->table_count && n < RB_WHY_BYTES - 48; i++)
        n += snprintf(why + n, RB_WHY_BYTES - (size_t)n, "%s %s (%u)", i ? "," : "",
                      ops->table[i].name, ops->table[i].opcode);
    return -EINVAL;
}

int rb_operation_resolve(const struct rb_role *role, struct rb_options *o, const char *verb,
                         char why[RB_WHY_BYTES]) {
    const struct rb_ops_config *ops = &role->config.ops;
    if (o->op.size && o->has_opcode) {
        snprintf(why, RB_WHY_BYTES, "%s: op and opcode are two names of one thing; give one", verb);
        return -EINVAL;
    }
    if (o->op.size && ops->table_count == 0) {
        snprintf(why, RB_WHY_BYTES,
                 "%s: role %s names no operations (roles.%s.ops.NAME does); give an opcode", verb,
                 role->name, role->name);
        return -EINVAL;
    }
    if (ops->table_count == 0) return 0;
    const struct rb_op_config *op = o->op.size ? named(ops, o->op) : numbered(ops, o->opcode);
    if (!op) return unknown(role, o, verb, why);
    o->opcode = (uint16_t)op->opcode;
    return 0;
}

int rb_operation_takes(const struct rb_role *role, const struct rb_options *o,
                       struct rb_slice payload, int is_term, struct rb_schema_spent *spent,
                       const char *verb, char why[RB_WHY_BYTES]) {
    const struct rb_ops_config *ops = &role->config.ops;
    const struct rb_op_config *op = numbered(ops, o->opcode);
    char reason[RB_SCHEMA_WHY_BYTES];
    if (op && o->encoded && ops->nodes[op->schema].kind != RB_SCHEMA_ANY) {
        snprintf(
            why, RB_WHY_BYTES,
            "%s: op %s: its payload is checked before it comes in, and compressed it cannot be: "
            "send it without encoding",
            verb, op->name);
        return -EINVAL;
    }
    if (!op || rb_schema_check(ops, op->schema, payload, is_term, spent, reason) == 0) return 0;
    snprintf(why, RB_WHY_BYTES, "%s: op %s: %s", verb, op->name, reason);
    return -EINVAL;
}

/* What a worker must be able to take for a schema: bits of RB_TAKES_...; 0: it depends on the payload. */
static uint16_t form_of(const struct rb_schema_node *n) {
    if (n->kind == RB_SCHEMA_BINARY) return RB_TAKES_RAW;
    return n->kind == RB_SCHEMA_ANY || n->kind == RB_SCHEMA_ONE_OF ? 0 : RB_TAKES_TERM;
}

int rb_operation_served(const struct rb_role *role, const struct rb_worker_op *declared,
                        uint32_t count, char *why, size_t why_bytes) {
    const struct rb_ops_config *ops = &role->config.ops;
    for (uint32_t i = 0; count && i < ops->table_count; i++) {
        const struct rb_op_config *op = &ops->table[i];
        const struct rb_worker_op *found = rb_ops_find(declared, count, (uint16_t)op->opcode);
        uint16_t form = form_of(&ops->nodes[op->schema]);
        if (found && (!found->takes || (found->takes & form) == form)) continue;
        snprintf(
            why, why_bytes, "the role's operation %s (opcode %u) %s", op->name, op->opcode,
            !found
                ? "is not among those that the worker declares: correct roles.*.ops, or the worker"
            : form == RB_TAKES_RAW ? "takes a binary, which the worker's takes as a term only"
                                   : "takes a term, which the worker's takes as raw bytes only");
        return -EINVAL;
    }
    return 0;
}
