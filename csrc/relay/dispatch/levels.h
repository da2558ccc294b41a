/* levels.h: members on 64 levels, those of one level in the order in which they came: the lowest or highest in a few steps, at any
 * number of members. Pure.
 *
 * A level stands for a count: exactly up to 15, then four to an octave, so that one word says which levels hold anybody. */
#ifndef RB_RELAY_LEVELS_H
#define RB_RELAY_LEVELS_H

#include <stddef.h>
#include <stdint.h>

enum { RB_LEVELS = 64, RB_LEVELS_EXACT = 16 };

struct rb_levelled {
    struct rb_levelled *next, *prev;
    int32_t level; /* -1: on none; begins so */
};

struct rb_levels {
    uint64_t used; /* which levels hold anybody */
    struct {
        struct rb_levelled *first, *last;
    } at[RB_LEVELS];
};

/* The last level is for all counts from 2^16 - 2^13 on. */
static inline int32_t rb_level_of(uint32_t count) {
    if (count < RB_LEVELS_EXACT) return (int32_t)count;
    uint32_t octave = 31 - (uint32_t)__builtin_clz(count);
    uint32_t level = RB_LEVELS_EXACT + (octave - 4) * 4 + (count >> (octave - 2) & 3);
    return level < RB_LEVELS ? (int32_t)level : RB_LEVELS - 1;
}

static inline void rb_levels_join(struct rb_levels *l, struct rb_levelled *m, int32_t level) {
    m->level = level;
    m->next = NULL;
    m->prev = l->at[level].last;
    if (m->prev)
        m->prev->next = m;
    else
        l->at[level].first = m;
    l->at[level].last = m;
    l->used |= 1ull << level;
}

/* Nothing, when it is on none. */
static inline void rb_levels_leave(struct rb_levels *l, struct rb_levelled *m) {
    int32_t level = m->level;
    if (level < 0) return;
    if (m->next)
        m->next->prev = m->prev;
    else
        l->at[level].last = m->prev;
    if (m->prev)
        m->prev->next = m->next;
    else
        l->at[level].first = m->next;
    if (!l->at[level].first) l->used &= ~(1ull << level);
    m->level = -1;
}

/* To the end of that level, from wherever it was. */
static inline void rb_levels_move(struct rb_levels *l, struct rb_levelled *m, int32_t level) {
    if (m->level == level && !m->next) return;
    rb_levels_leave(l, m);
    rb_levels_join(l, m, level);
}

/* The first of the lowest level that is not below `from`, and of the highest. NULL: there is none. */
static inline struct rb_levelled *rb_levels_lowest(const struct rb_levels *l, int from) {
    uint64_t used = from < RB_LEVELS ? l->used >> from << from : 0;
    return used ? l->at[__builtin_ctzll(used)].first : NULL;
}
static inline struct rb_levelled *rb_levels_highest(const struct rb_levels *l) {
    return l->used ? l->at[63 - __builtin_clzll(l->used)].first : NULL;
}

#endif
