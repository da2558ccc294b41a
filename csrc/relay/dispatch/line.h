/* line.h: an ordered line whose newcomers mostly belong at its end.
 *
 * Jobs with equal timeouts arrive in the order of their deadlines: those stand in a run, a plain
 * list, and cost what a list costs. Who belongs between others goes to a heap beside it. The first
 * of the line is the smaller of the two firsts. O(1) for the run, O(log n) for the heap. */
#ifndef RB_RELAY_LINE_H
#define RB_RELAY_LINE_H

#include "relay/dispatch/heap.h"

struct rb_line {
    struct rb_rank *first, *last; /* the run: `left` and `right` are neighbours, `up` itself */
    struct rb_heap between;
};

static inline int rb_line_empty(const struct rb_line *l) { return !l->first && !l->between.root; }

static inline struct rb_rank *rb_line_first(const struct rb_line *l) {
    struct rb_rank *heap = l->between.root;
    return !heap || (l->first && rb_rank_before(l->first, heap)) ? l->first : heap;
}

static inline void rb_line_add(struct rb_line *l, struct rb_rank *n) {
    if (l->last && rb_rank_before(n, l->last)) {
        if (!rb_rank_before(n, l->first)) {
            rb_heap_add(&l->between, n);
            return;
        }
        n->left = NULL; /* one that comes back, as a rule: it was at the front */
        n->right = l->first;
        l->first->left = n;
        l->first = n;
    } else {
        n->left = l->last;
        n->right = NULL;
        if (l->last)
            l->last->right = n;
        else
            l->first = n;
        l->last = n;
    }
    n->up = n;
}

static inline void rb_line_remove(struct rb_line *l, struct rb_rank *n) {
    if (n->up != n) {
        rb_heap_remove(&l->between, n);
        return;
    }
    if (n->left)
        n->left->right = n->right;
    else
        l->first = n->right;
    if (n->right)
        n->right->left = n->left;
    else
        l->last = n->left;
}

#endif
