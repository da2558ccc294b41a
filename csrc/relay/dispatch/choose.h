/* choose.h: which of the workers that can take a job gets it. Pure: chance is an argument.
 *
 * Only workers with room stand here (place.c says when), so that no job looks at one that is full. What they stand in is the policy's:
 *   shortest_queue   levels by jobs in flight per weight (levels.h); the first of the lowest level, those of one level in turn. Very short jobs
 *                    count for less (rb_choice_load)
 *   round_robin      one level: whoever waits longest for a turn
 *   two_choices      an array, of which two are drawn; the one with fewer jobs per weight
 *   weighted         a heap by the virtual time of the next turn, which a turn puts off by 1 / weight (stride scheduling: Waldspurger
 *                    and Weihl, 1995): so of any two each has its share to within one turn; cost: log2 of the number
 * A worker that ramps up after a start or a recovery has a share below the whole: it is passed over so often. */
#ifndef RB_RELAY_CHOOSE_H
#define RB_RELAY_CHOOSE_H

#include "relay/dispatch/levels.h"

enum {
    RB_CHOICE_WHOLE = 256,
    RB_CHOICE_WEIGHT_MAX = 100,
};

enum rb_choice_kind {
    RB_CHOOSE_SHORTEST,
    RB_CHOOSE_IN_TURN,
    RB_CHOOSE_OF_TWO,
    RB_CHOOSE_BY_WEIGHT,
};

/* Part of a worker. Begins with rb_choice_member_init(). */
struct rb_choice_member {
    struct rb_levelled levelled;
    int32_t at;      /* in the array or heap; -1: not there */
    uint32_t load;   /* jobs in flight, as rb_choice_load() counts them */
    uint32_t weight; /* 1 .. RB_CHOICE_WEIGHT_MAX */
    uint32_t share;  /* 1 .. RB_CHOICE_WHOLE, of what it would get */
    uint64_t pass;   /* weighted: when its next turn is */
};

struct rb_choice {
    enum rb_choice_kind kind;
    uint32_t count;   /* with room */
    uint32_t ramping; /* of these, with less than a whole share */
    struct rb_levels levels;
    struct rb_choice_member **array;
    uint32_t capacity;
    uint64_t pass; /* weighted: of the last turn */
};

void rb_choice_member_init(struct rb_choice_member *m);
/* Nobody has room yet. */
void rb_choice_init(struct rb_choice *c, enum rb_choice_kind kind);
void rb_choice_fini(struct rb_choice *c);
/* Room for `count` members at once. 0, or -ENOMEM. To be called before a member more can have room. */
int rb_choice_reserve(struct rb_choice *c, uint32_t count);

/* Jobs in flight in units of a wake-up: jobs that take less together than it costs to wake another worker (a system call, and 20 us until it
 * runs) are no reason to wake one. So a stream of short jobs stays with whoever is awake, however many there are, and the longer ones go where
 * fewest are. `service_ns`: of one job, on average; 0: not known. */
enum { RB_CHOICE_WAKE_BITS = 14 }; /* 16 us */
static inline uint32_t rb_choice_load(uint32_t in_flight, uint64_t service_ns) {
    int bits = service_ns ? 64 - __builtin_clzll(service_ns) : RB_CHOICE_WAKE_BITS;
    return bits < RB_CHOICE_WAKE_BITS ? in_flight >> (RB_CHOICE_WAKE_BITS - bits) : in_flight;
}

/* The member has room from here on, or still, with `load` jobs in flight; or it has none. */
void rb_choice_open(struct rb_choice *c, struct rb_choice_member *m, uint32_t load);
void rb_choice_shut(struct rb_choice *c, struct rb_choice_member *m);
int rb_choice_is_open(const struct rb_choice_member *m);
/* Another weight (clamped) or share. */
void rb_choice_weigh(struct rb_choice *c, struct rb_choice_member *m, uint32_t weight,
                     uint32_t share);

/* Does the next pick need chance? */
static inline int rb_choice_is_chancy(const struct rb_choice *c) {
    return c->kind == RB_CHOOSE_OF_TWO || c->ramping > 0;
}
/* Whose turn it is; the turn is then over. NULL: nobody has room. `chance`: any 64 random bits, where it is chancy. */
struct rb_choice_member *rb_choice_pick(struct rb_choice *c, uint64_t chance);

#endif
