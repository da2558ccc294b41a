/* signal.h: one distribution signal, taken apart by shape only (erl_dist_protocol, "Protocol between connected nodes").
 *
 * Slices point into the frame; nothing is decoded that the relay does not need. */
#ifndef RB_RELAY_SIGNAL_H
#define RB_RELAY_SIGNAL_H

#include "ringbridge/term.h"

enum rb_op {
    RB_OP_LINK = 1,
    RB_OP_SEND = 2,
    RB_OP_REG_SEND = 6,
    RB_OP_SEND_TT = 12,
    RB_OP_REG_SEND_TT = 16,
    RB_OP_MONITOR_P = 19,
    RB_OP_DEMONITOR_P = 20,
    RB_OP_MONITOR_P_EXIT = 21,
    RB_OP_SEND_SENDER = 22,
    RB_OP_SEND_SENDER_TT = 23,
    RB_OP_PAYLOAD_EXIT = 24,
    RB_OP_PAYLOAD_MONITOR_P_EXIT = 28,
    RB_OP_ALIAS_SEND = 33,
    RB_OP_ALTACT_SIG_SEND = 37,
};

/* Flags of ALTACT_SIG_SEND (dist.h of OTP 28). */
enum {
    RB_ALTACT_PRIORITY = 1,
    RB_ALTACT_TOKEN = 2,
    RB_ALTACT_ALIAS = 4,
    RB_ALTACT_NAME = 8,
    RB_ALTACT_EXIT = 16
};

/* Negotiated flags that decide the form of frames and of what we send. */
#define RB_DFLAG_DIST_HDR_ATOM_CACHE 0x2000ull
#define RB_DFLAG_SEND_SENDER 0x80000ull
#define RB_DFLAG_EXIT_PAYLOAD 0x400000ull
#define RB_DFLAG_FRAGMENTS 0x800000ull
#define RB_DFLAG_ALTACT_SIG 0x2000000000ull

struct rb_signal {
    unsigned op;
    unsigned altact; /* flags of op 37 */
    unsigned arity;  /* elements of the control tuple */
    int has_message; /* a payload term follows the control term */
    struct rb_slice control;
    struct rb_slice from; /* empty where the op has none */
    struct rb_slice to;   /* pid, name or alias, as the op says */
    struct rb_slice ref;  /* of monitor signals */
};

/* Takes a control term apart and moves past it. 0, -EAGAIN, -EPROTO. Ops that the relay has no use for get op and control only. */
int rb_signal_parse(struct rb_cursor *c, struct rb_signal *s);

#endif
