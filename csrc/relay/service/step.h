/* step.h: a step of a job in stages, as a request writes it:
 *
 *      role | {role, opcode}                   one job
 *      [role | {role, opcode}, ...]            a fan-out: the payload goes to each of them, side by side
 *      {:map, role | {role, opcode}}           a job for each element of the payload, a proper list
 *
 * {map, 5} is the role `map` and its opcode 5: what is mapped over is a role, and never a number. */
#ifndef RB_RELAY_STEP_H
#define RB_RELAY_STEP_H

#include "ringbridge/term.h"

enum { RB_FAN_OUT_MAX = 16, RB_ROLE_NAME_MAX = 255 };

enum rb_step_kind { RB_STEP_ONE, RB_STEP_FAN_OUT, RB_STEP_MAP };

struct rb_step_role {
    struct rb_slice name;
    uint16_t opcode;
    uint8_t has_opcode;
};
struct rb_step { /* its names lie in the request */
    enum rb_step_kind kind;
    uint32_t count; /* of roles: 1, or those of a fan-out */
    struct rb_step_role roles[RB_FAN_OUT_MAX];
};

/* One whole term. 0, or -EINVAL. */
int rb_step_read(struct rb_slice term, struct rb_step *s);

#endif
