#include "relay/net/signal.h"

#include <errno.h>

enum { ELEMENTS_MAX = 8 };

/* Ops after whose control term a payload term follows. */
static int carries_message(unsigned op) {
    switch (op) {
    case 2:
    case 6:
    case 12:
    case 16:
    case 22:
    case 23:
    case 24:
    case 25:
    case 26:
    case 27:
    case 28:
    case 29:
    case 30:
    case 33:
    case 34:
    case 37: return 1;
    default: return 0;
    }
}

int rb_signal_parse(struct rb_cursor *c, struct rb_signal *s) {
    struct rb_cursor at = *c;
    int64_t arity = rb_term_tuple(&at);
    if (arity < 0) return (int)arity;
    if (arity < 1) return -EPROTO;
    uint64_t op;
    int rc = rb_term_unsigned(&at, &op);
    if (rc < 0) return rc == -EAGAIN ? rc : -EPROTO;
    if (op > 255) return -EPROTO;

    struct rb_slice element[ELEMENTS_MAX] = {{0, 0}};
    for (int64_t i = 1; i < arity; i++) {
        struct rb_slice *e = i < ELEMENTS_MAX ? &element[i] : NULL;
        if ((rc = rb_term_skip(&at, e)) < 0) return rc;
    }
    memset(s, 0, sizeof *s);
    s->op = (unsigned)op;
    s->arity = (unsigned)arity;
    s->has_message = carries_message(s->op);
    s->control.at = c->at;
    s->control.size = (size_t)(at.at - c->at);

    /* Arity is exact for every op but 37, whose tuple may grow (dist.c). */
    int64_t wants = 0;
    switch (s->op) {
    case RB_OP_SEND:
        wants = 3;
        s->to = element[2];
        break;
    case RB_OP_SEND_TT:
        wants = 4;
        s->to = element[2];
        break;
    case RB_OP_REG_SEND:
        wants = 4;
        s->from = element[1];
        s->to = element[3];
        break;
    case RB_OP_REG_SEND_TT:
        wants = 5;
        s->from = element[1];
        s->to = element[3];
        break;
    case RB_OP_SEND_SENDER:
        wants = 3;
        s->from = element[1];
        s->to = element[2];
        break;
    case RB_OP_SEND_SENDER_TT:
        wants = 4;
        s->from = element[1];
        s->to = element[2];
        break;
    case RB_OP_MONITOR_P:
    case RB_OP_DEMONITOR_P:
        wants = 4;
        s->from = element[1];
        s->to = element[2];
        s->ref = element[3];
        break;
    case RB_OP_MONITOR_P_EXIT:
        wants = 5;
        s->from = element[1];
        s->to = element[2];
        s->ref = element[3];
        break;
    case RB_OP_PAYLOAD_MONITOR_P_EXIT:
        wants = 4;
        s->from = element[1];
        s->to = element[2];
        s->ref = element[3];
        break;
    case RB_OP_ALTACT_SIG_SEND: {
        if (arity < 4) return -EPROTO;
        struct rb_cursor flags = rb_cursor_of(element[1]);
        uint64_t value;
        if (rb_term_unsigned(&flags, &value) < 0) return -EPROTO;
        s->altact = (unsigned)value;
        s->from = element[2];
        s->to = element[3];
        break;
    }
    default: break;
    }
    if (wants && arity != wants) return -EPROTO;
    *c = at;
    return 0;
}
