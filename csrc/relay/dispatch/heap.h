/* heap.h: an intrusive heap, smallest first: the nodes lie in what is ordered, so nothing is
 * allocated and nothing can be full.
 *
 * A complete binary tree of pointers. The path to place `n` of it is the bits of `n` below the
 * highest, so no array is needed and every operation is O(log n) at worst, removing any node
 * included (a pairing heap is cheaper on average and linear in one bad step, which would hold up
 * every connection). Ordered by (key, tie); ties that are equal too come in any order.
 */
#ifndef RB_RELAY_HEAP_H
#define RB_RELAY_HEAP_H

#include <stddef.h>
#include <stdint.h>

struct rb_rank {
    uint64_t key, tie;
    struct rb_rank *up, *left, *right;
};

struct rb_heap {
    struct rb_rank *root;
    uint32_t count;
};

static inline int rb_rank_before(const struct rb_rank *a, const struct rb_rank *b) {
    return a->key != b->key ? a->key < b->key : a->tie < b->tie;
}

void rb_heap_add(struct rb_heap *h, struct rb_rank *n);
void rb_heap_remove(struct rb_heap *h, struct rb_rank *n);
/* The key of a node that lies in it has grown. */
void rb_heap_later(struct rb_heap *h, struct rb_rank *n);

#endif
