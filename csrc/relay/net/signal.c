#include "relay/net/signal.h"

#include <errno.h>

enum { ELEMENTS = 6, OPS = 38 };

/* What the relay reads of a control tuple, by op: where its elements stand, and whether a payload term follows it. Arity is exact
 * for every op but 37, whose tuple may grow (dist.c); 0: not looked at. An element 0 is none. */
static const struct shape {
    uint8_t arity, from, to, ref, has_message;
} shapes[OPS] = {
    [RB_OP_SEND] = {3, 0, 2, 0, 1},
    [RB_OP_REG_SEND] = {4, 1, 3, 0, 1},
    [RB_OP_SEND_TT] = {4, 0, 2, 0, 1},
    [RB_OP_REG_SEND_TT] = {5, 1, 3, 0, 1},
    [RB_OP_MONITOR_P] = {4, 1, 2, 3, 0},
    [RB_OP_DEMONITOR_P] = {4, 1, 2, 3, 0},
    [RB_OP_MONITOR_P_EXIT] = {5, 1, 2, 3, 0},
    [RB_OP_SEND_SENDER] = {3, 1, 2, 0, 1},
    [RB_OP_SEND_SENDER_TT] = {4, 1, 2, 0, 1},
    [RB_OP_PAYLOAD_EXIT] = {.has_message = 1},
    [25] = {.has_message = 1},
    [26] = {.has_message = 1},
    [27] = {.has_message = 1},
    [RB_OP_PAYLOAD_MONITOR_P_EXIT] = {4, 1, 2, 3, 1},
    [29] = {.has_message = 1},
    [30] = {.has_message = 1},
    [RB_OP_ALIAS_SEND] = {.has_message = 1},
    [34] = {.has_message = 1},
    [RB_OP_ALTACT_SIG_SEND] = {0, 2, 3, 0, 1},
};

static int altact(struct rb_signal *s, struct rb_slice flags) {
    struct rb_cursor at = rb_cursor_of(flags);
    uint64_t value;
    if (rb_term_unsigned(&at, &value) < 0) return -EPROTO;
    s->altact = (unsigned)value;
    return 0;
}

int rb_signal_parse(struct rb_cursor *c, struct rb_signal *s) {
    static const struct shape unread = {0};
    struct rb_cursor at = *c;
    int64_t arity = rb_term_tuple(&at);
    if (arity < 0) return (int)arity;
    if (arity < 1) return -EPROTO;
    uint64_t op;
    int rc = rb_term_unsigned(&at, &op);
    if (rc < 0) return rc == -EAGAIN ? rc : -EPROTO;
    if (op > 255) return -EPROTO;

    struct rb_slice element[ELEMENTS];
    element[0] = (struct rb_slice){NULL, 0};
    for (int64_t i = 1; i < arity; i++) {
        if ((rc = rb_term_skip(&at, i < ELEMENTS ? &element[i] : NULL)) < 0) return rc;
    }
    const struct shape *shape = op < OPS ? &shapes[op] : &unread;
    if (shape->arity && arity != shape->arity) return -EPROTO;
    if (op == RB_OP_ALTACT_SIG_SEND && arity < 4) return -EPROTO;
    *s = (struct rb_signal){.op = (unsigned)op,
                            .arity = (unsigned)arity,
                            .has_message = shape->has_message,
                            .control = {c->at, (size_t)(at.at - c->at)},
                            .from = element[shape->from],
                            .to = element[shape->to],
                            .ref = element[shape->ref]};
    if (op == RB_OP_ALTACT_SIG_SEND && (rc = altact(s, element[1])) < 0) return rc;
    *c = at;
    return 0;
}
