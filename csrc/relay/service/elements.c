#include "relay/service/elements.h"

#include <errno.h>

int rb_elements_next(struct rb_elements *e, struct rb_slice *term) {
    while (e->left == 0) {
        if (!e->tail) return 0;
        e->string = rb_term_tag(&e->at) == RB_TAG_STRING;
        if (e->string) {
            e->left = rb_be16(e->at.at + 1);
            e->at.at += 3;
            e->tail = 0;
        } else if ((e->left = rb_term_list(&e->at, &e->tail)) < 0) {
            e->left = e->tail = 0;
            return -EINVAL;
        }
    }
    e->left--;
    if (!e->string) return rb_term_skip(&e->at, term) < 0 ? -EINVAL : 1;
    e->integer[0] = RB_TAG_SMALL_INTEGER;
    e->integer[1] = *e->at.at++;
    *term = (struct rb_slice){e->integer, 2};
    return 1;
}

int64_t rb_elements_count(struct rb_slice list) {
    struct rb_elements e = rb_elements_of(list);
    struct rb_slice term;
    int64_t count = 0;
    int rc;
    while ((rc = rb_elements_next(&e, &term)) > 0) count++;
    return rc < 0 ? rc : count;
}
