#include "relay/service/step.h"

#include <errno.h>

#include "relay/service/elements.h"

static int read_role(struct rb_slice term, struct rb_step_role *role) {
    struct rb_cursor at = rb_cursor_of(term), in = at;
    uint64_t opcode = 0;
    role->has_opcode = rb_term_tuple(&in) == 2;
    if (role->has_opcode) at = in;
    if (rb_term_text(&at, &role->name) < 0 || role->name.size == 0 ||
        role->name.size > RB_ROLE_NAME_MAX)
        return -EINVAL;
    if (role->has_opcode && (rb_term_unsigned(&at, &opcode) < 0 || opcode > UINT16_MAX))
        return -EINVAL;
    role->opcode = (uint16_t)opcode;
    return 0;
}

/* What {map, _} has behind the word; empty: it is none. */
static struct rb_slice mapped(struct rb_slice term) {
    struct rb_cursor at = rb_cursor_of(term);
    struct rb_slice word, role = {NULL, 0};
    if (rb_term_tuple(&at) != 2 || rb_term_atom(&at, &word) < 0 || !rb_slice_is(word, "map"))
        return role;
    int tag = rb_term_tag(&at);
    if (tag != RB_TAG_SMALL_INTEGER && tag != RB_TAG_INTEGER && rb_term_skip(&at, &role) < 0)
        role = (struct rb_slice){NULL, 0};
    return role;
}

static int read_fan_out(struct rb_slice list, struct rb_step *s) {
    struct rb_elements roles = rb_elements_of(list);
    struct rb_slice term;
    int rc;
    s->count = 0;
    while ((rc = rb_elements_next(&roles, &term)) > 0) {
        if (s->count == RB_FAN_OUT_MAX || read_role(term, &s->roles[s->count++]) < 0)
            return -EINVAL;
    }
    return rc < 0 || s->count == 0 ? -EINVAL : 0;
}

int rb_step_read(struct rb_slice term, struct rb_step *s) {
    struct rb_cursor at = rb_cursor_of(term);
    struct rb_slice role = mapped(term);
    s->count = 1;
    if (role.size) {
        s->kind = RB_STEP_MAP;
        return read_role(role, &s->roles[0]);
    }
    s->kind = rb_term_tag(&at) == RB_TAG_LIST ? RB_STEP_FAN_OUT : RB_STEP_ONE;
    return s->kind == RB_STEP_FAN_OUT ? read_fan_out(term, s) : read_role(term, &s->roles[0]);
}
