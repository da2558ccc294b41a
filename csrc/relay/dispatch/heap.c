/* heap.c: a complete binary tree of pointers, kept in order by exchanging neighbours. */
#include "relay/dispatch/heap.h"

/* The pointer that holds place `at` of the tree (the root is 1), and whose it is. */
static struct rb_rank **place_of(struct rb_heap *h, uint32_t at, struct rb_rank **up) {
    struct rb_rank **slot = &h->root;
    *up = NULL;
    for (uint32_t bit = (1u << (31 - __builtin_clz(at))) >> 1; bit; bit >>= 1) {
        *up = *slot;
        slot = at & bit ? &(*slot)->right : &(*slot)->left;
    }
    return slot;
}

static struct rb_rank **slot_of(struct rb_heap *h, const struct rb_rank *n) {
    return !n->up ? &h->root : n->up->left == n ? &n->up->left : &n->up->right;
}

/* Exchanges a node with its child. */
static void sink(struct rb_heap *h, struct rb_rank *n, struct rb_rank *child) {
    struct rb_rank *left = child->left, *right = child->right;
    *slot_of(h, n) = child;
    child->up = n->up;
    if (n->left == child) {
        child->left = n;
        child->right = n->right;
        if (child->right) child->right->up = child;
    } else {
        child->right = n;
        child->left = n->left;
        child->left->up = child;
    }
    n->up = child;
    n->left = left;
    n->right = right;
    if (left) left->up = n;
    if (right) right->up = n;
}

static void rise(struct rb_heap *h, struct rb_rank *n) {
    while (n->up && rb_rank_before(n, n->up)) sink(h, n->up, n);
}

void rb_heap_later(struct rb_heap *h, struct rb_rank *n) {
    while (n->left) {
        struct rb_rank *child = n->left;
        if (n->right && rb_rank_before(n->right, child)) child = n->right;
        if (!rb_rank_before(child, n)) return;
        sink(h, n, child);
    }
}

void rb_heap_add(struct rb_heap *h, struct rb_rank *n) {
    struct rb_rank *up;
    struct rb_rank **slot = place_of(h, ++h->count, &up);
    n->up = up;
    n->left = n->right = NULL;
    *slot = n;
    rise(h, n);
}

void rb_heap_remove(struct rb_heap *h, struct rb_rank *n) {
    struct rb_rank *up;
    struct rb_rank **slot = place_of(h, h->count--, &up);
    struct rb_rank *last = *slot;
    *slot = NULL;
    if (last == n) return;
    last->up = n->up; /* the last one takes its place, and goes where it belongs */
    last->left = n->left;
    last->right = n->right;
    *slot_of(h, n) = last;
    if (last->left) last->left->up = last;
    if (last->right) last->right->up = last;
    rise(h, last);
    rb_heap_later(h, last);
}
