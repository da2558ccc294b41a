/* elements.h: the elements of a proper list, one by one, in any of its encodings: in one cell or several (ei), or a string of small
 * integers. Of a term that is known to be whole. */
#ifndef RB_RELAY_ELEMENTS_H
#define RB_RELAY_ELEMENTS_H

#include "ringbridge/term.h"

struct rb_elements {
    struct rb_cursor at;
    int64_t left; /* in this cell */
    int tail;     /* another follows */
    int string;   /* its elements are bytes */
    uint8_t integer[2];
};

static inline struct rb_elements rb_elements_of(struct rb_slice list) {
    return (struct rb_elements){.at = rb_cursor_of(list), .tail = 1};
}
/* 1 and the next element, which one of a string is until the next call; 0 at the end; -EINVAL: it is no proper list. */
int rb_elements_next(struct rb_elements *e, struct rb_slice *term);
/* How many, or -EINVAL. */
int64_t rb_elements_count(struct rb_slice list);

#endif
