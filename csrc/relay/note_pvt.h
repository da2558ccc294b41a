/* note_pvt.h: a note down, for who makes it, carries it out or writes it down. */
#ifndef RB_RELAY_NOTE_PVT_H
#define RB_RELAY_NOTE_PVT_H

#include "relay/duct.h"

struct rb_flow;

enum down_kind {
    DOWN_CONFIG,
    DOWN_ADOPT,
    DOWN_SEND,
    DOWN_ROOM,
    DOWN_DROP,
    DOWN_SERVICE,
    DOWN_SERVICE_DOWN,
    DOWN_HOLD,
    DOWN_ROLE,
    DOWN_ROLE_CONFIG,
    DOWN_ROLE_REMOVED,
    DOWN_ROLE_STATE,
    DOWN_TENANT,
    DOWN_BREAKER,
    DOWN_ALLOWANCE,
    DOWN_WORKER,
    DOWN_DRAIN,
    DOWN_WEIGH,
    DOWN_SPARE,
    DOWN_UNGUARDED,
    DOWN_LANE,
    DOWN_LANE_CLOSE,
    DOWN_RECORD,
    DOWN_STOP
};

struct down_note {
    struct rb_note head;
    uint32_t connection; /* or role, or weight */
    int fd;
    struct rb_flow *flow;
    uint64_t flags; /* or state, or worker id */
    void *object;
    uint64_t a, b; /* sizes of the two parts of data */
    uint8_t data[];
};

#endif
