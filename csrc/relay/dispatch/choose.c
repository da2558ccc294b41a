/* choose.c: the policies, each on the structure that gives its next one at a flat cost (choose.h). */
#include "relay/dispatch/choose.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>

enum {
    TRIES = 4, /* of workers that ramp up, before one of them has the job all the same */
};
#define STRIDE (1ull << 32) /* virtual time of a turn at weight 1 and the whole share */

void rb_choice_member_init(struct rb_choice_member *m) {
    *m = (struct rb_choice_member){
        .levelled.level = -1, .at = -1, .weight = 1, .share = RB_CHOICE_WHOLE};
}

void rb_choice_init(struct rb_choice *c, enum rb_choice_kind kind) {
    *c = (struct rb_choice){.kind = kind};
}

void rb_choice_fini(struct rb_choice *c) {
    free(c->array);
    c->array = NULL;
    c->capacity = 0;
}

int rb_choice_reserve(struct rb_choice *c, uint32_t count) {
    if (count <= c->capacity) return 0;
    uint32_t capacity = c->capacity ? c->capacity : 8;
    while (capacity < count) capacity *= 2;
    struct rb_choice_member **array = realloc(c->array, capacity * sizeof(*array));
    if (!array) return -ENOMEM;
    c->array = array;
    c->capacity = capacity;
    return 0;
}

/* --- Levels ------------------------------------------------------------------------------------------------------------- */

/* Of jobs in flight per weight: a worker of weight 3 has three where one of weight 1 has one. */
static int32_t level_of(const struct rb_choice *c, const struct rb_choice_member *m) {
    if (c->kind == RB_CHOOSE_IN_TURN) return 0;
    return rb_level_of(m->weight == 1 ? m->load : m->load / m->weight);
}

static struct rb_choice_member *member_of(struct rb_levelled *n) {
    return (struct rb_choice_member *)(void *)((char *)n -
                                               offsetof(struct rb_choice_member, levelled));
}

/* --- Array and heap ------------------------------------------------------------------------------------------------------- */

static void put(struct rb_choice *c, uint32_t at, struct rb_choice_member *m) {
    c->array[at] = m;
    m->at = (int32_t)at;
}

static void sift_up(struct rb_choice *c, uint32_t at, struct rb_choice_member *m) {
    while (at > 0 && c->array[(at - 1) / 2]->pass > m->pass) {
        put(c, at, c->array[(at - 1) / 2]);
        at = (at - 1) / 2;
    }
    put(c, at, m);
}

static void sift_down(struct rb_choice *c, uint32_t at, struct rb_choice_member *m) {
    for (;;) {
        uint32_t child = 2 * at + 1;
        if (child >= c->count) break;
        if (child + 1 < c->count && c->array[child + 1]->pass < c->array[child]->pass) child++;
        if (c->array[child]->pass >= m->pass) break;
        put(c, at, c->array[child]);
        at = child;
    }
    put(c, at, m);
}

static int by_array(const struct rb_choice *c) {
    return c->kind == RB_CHOOSE_OF_TWO || c->kind == RB_CHOOSE_BY_WEIGHT;
}

/* c->count includes it already. One that stood aside has no claim to the turns that it missed. */
static void enter(struct rb_choice *c, struct rb_choice_member *m) {
    if (c->kind == RB_CHOOSE_OF_TWO) {
        put(c, c->count - 1, m);
        return;
    }
    if (m->pass < c->pass) m->pass = c->pass;
    sift_up(c, c->count - 1, m);
}

/* c->count does not include it any more. */
static void withdraw(struct rb_choice *c, struct rb_choice_member *m) {
    uint32_t at = (uint32_t)m->at;
    struct rb_choice_member *last = c->array[c->count];
    m->at = -1;
    if (last == m) return;
    if (c->kind == RB_CHOOSE_OF_TWO)
        put(c, at, last);
    else if (at > 0 && c->array[(at - 1) / 2]->pass > last->pass)
        sift_up(c, at, last);
    else
        sift_down(c, at, last);
}

/* --- Coming and going ------------------------------------------------------------------------------------------------------ */

int rb_choice_is_open(const struct rb_choice_member *m) {
    return m->levelled.level >= 0 || m->at >= 0;
}

/* While it was alone it was not moved. */
static void settle_the_only_one(struct rb_choice *c) {
    struct rb_levelled *n = rb_levels_lowest(&c->levels, 0);
    if (n) rb_levels_move(&c->levels, n, level_of(c, member_of(n)));
}

void rb_choice_open(struct rb_choice *c, struct rb_choice_member *m, uint32_t load) {
    int open = rb_choice_is_open(m), more = load > m->load;
    m->load = load;
    if (open && c->count == 1) return; /* wherever it stands, it is the lowest */
    if (!open) {
        if (c->count == 1) settle_the_only_one(c);
        c->count++;
        c->ramping += m->share < RB_CHOICE_WHOLE;
    }
    if (by_array(c)) {
        if (!open) enter(c, m);
        return;
    }
    /* A level may hold several loads: who has got a job goes behind the others. */
    int32_t level = level_of(c, m);
    if (level != m->levelled.level || (more && c->kind == RB_CHOOSE_SHORTEST))
        rb_levels_move(&c->levels, &m->levelled, level);
}

void rb_choice_shut(struct rb_choice *c, struct rb_choice_member *m) {
    if (!rb_choice_is_open(m)) return;
    c->count--;
    c->ramping -= m->share < RB_CHOICE_WHOLE;
    if (m->at >= 0) withdraw(c, m);
    rb_levels_leave(&c->levels, &m->levelled);
}

void rb_choice_weigh(struct rb_choice *c, struct rb_choice_member *m, uint32_t weight,
                     uint32_t share) {
    int open = rb_choice_is_open(m);
    if (open) rb_choice_shut(c, m);
    m->weight = weight < 1 ? 1 : weight > RB_CHOICE_WEIGHT_MAX ? RB_CHOICE_WEIGHT_MAX : weight;
    m->share = share < 1 ? 1 : share > RB_CHOICE_WHOLE ? RB_CHOICE_WHOLE : share;
    if (open) rb_choice_open(c, m, m->load);
}

/* --- Picking --------------------------------------------------------------------------------------------------------------- */

/* Is it passed over this time? `chance`: 8 bits. */
static int passed_over(const struct rb_choice_member *m, uint64_t chance) {
    return m->share < RB_CHOICE_WHOLE && (chance & (RB_CHOICE_WHOLE - 1)) >= m->share;
}

static struct rb_choice_member *of_lowest_level(struct rb_choice *c, uint64_t chance) {
    struct rb_levelled *n = rb_levels_lowest(&c->levels, 0);
    for (int i = 0; c->ramping && i < TRIES && passed_over(member_of(n), chance); i++) {
        /* The next one of the level; behind its last comes the next level, with more jobs but a whole share. */
        struct rb_levelled *other = n->next ? n->next : rb_levels_lowest(&c->levels, n->level + 1);
        rb_levels_move(&c->levels, n, n->level);
        if (!other) break;
        n = other;
        chance >>= 8;
    }
    if (c->kind == RB_CHOOSE_IN_TURN) rb_levels_move(&c->levels, n, 0);
    return member_of(n);
}

static struct rb_choice_member *of_two(struct rb_choice *c, uint64_t chance) {
    if (c->count == 1) return c->array[0];
    uint64_t i = (chance >> 40) * c->count >> 24;
    uint64_t k = (chance >> 16 & 0xffffff) * (c->count - 1) >> 24;
    struct rb_choice_member *a = c->array[i], *b = c->array[k + (k >= i)]; /* two, not one twice */
    int a_over = passed_over(a, chance), b_over = passed_over(b, chance >> 8);
    if (a_over != b_over) return a_over ? b : a;
    /* (load + 1) / weight, without a division */
    return (uint64_t)(b->load + 1) * a->weight < (uint64_t)(a->load + 1) * b->weight ? b : a;
}

static struct rb_choice_member *by_turn_of_weight(struct rb_choice *c) {
    struct rb_choice_member *m = c->array[0];
    c->pass = m->pass;
    m->pass += STRIDE * RB_CHOICE_WHOLE / (m->weight * m->share);
    sift_down(c, 0, m);
    return m;
}

struct rb_choice_member *rb_choice_pick(struct rb_choice *c, uint64_t chance) {
    if (c->count == 0) return NULL;
    switch (c->kind) {
    case RB_CHOOSE_OF_TWO: return of_two(c, chance);
    case RB_CHOOSE_BY_WEIGHT: return by_turn_of_weight(c);
    default: return of_lowest_level(c, chance);
    }
}
