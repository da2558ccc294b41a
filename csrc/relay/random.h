/* random.h: chance from a seed: splitmix64 (Steele, Lea, Flood: "Fast Splittable Pseudorandom Number Generators", 2014).
 *
 * Quick and even, and no secret: nothing that must not be guessed may come from it. */
#ifndef RB_RELAY_RANDOM_H
#define RB_RELAY_RANDOM_H

#include <stdint.h>

struct rb_random {
    uint64_t state; /* any seed */
};

static inline uint64_t rb_random_next(struct rb_random *g) {
    uint64_t z = g->state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

/* 0 .. bound - 1; bound > 0. Uneven by less than bound / 2^32. */
static inline uint32_t rb_random_below(struct rb_random *g, uint32_t bound) {
    return (uint32_t)((rb_random_next(g) >> 32) * bound >> 32);
}

#endif
