/* term_keys.c: are the keys of one map all different? The walk has seen to it that equal keys have
 * equal bytes. */
#include <errno.h>
#include <stdlib.h>
#include <sys/random.h>
#include <time.h>

#include "term_check_pvt.h"

enum {
    PAIRWISE_MAX = 16,
    KEY_EFFORT = 4, /* in a large map each key touches a page for the first time */
};

uint64_t rb_hash_seed(void) {
    uint64_t seed;
    if (getrandom(&seed, sizeof seed, GRND_NONBLOCK) == sizeof seed) return seed;
    /* Before the kernel's generator is ready: nothing else here is secret, but the clock and our
     * addresses are hard to see. */
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_nsec * UINT64_C(0x9e3779b97f4a7c15) ^ (uint64_t)(uintptr_t)&now;
}

static uint64_t fold(uint64_t a, uint64_t b) {
    unsigned __int128 product = (unsigned __int128)a * b;
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

/* Multiply and fold (as wyhash and rapidhash do), both factors depending on the seed. */
uint64_t rb_hash(uint64_t seed, const uint8_t *at, size_t size) {
    const uint64_t secret = seed ^ UINT64_C(0xa0761d6478bd642f);
    uint64_t h = seed ^ fold(size ^ secret, UINT64_C(0xe7037ed1a0b428db));
    while (size > 0) {
        uint64_t word = 0;
        size_t n = size < 8 ? size : 8;
        memcpy(&word, at, n);
        h = fold(h ^ word, secret ^ UINT64_C(0x8ebc6af09c88c6e3)) + word;
        at += n;
        size -= n;
    }
    return fold(h, secret ^ UINT64_C(0x589965cc75374cc3));
}

static struct rb_slice key_at(const uint8_t *base, struct rb_extent key) {
    return (struct rb_slice){base + key.begin, key.end - key.begin};
}

static int differ_pairwise(const uint8_t *base, const struct rb_extent *keys, uint32_t count) {
    for (uint32_t i = 1; i < count; i++) {
        for (uint32_t k = 0; k < i; k++) {
            if (rb_slice_equal(key_at(base, keys[i]), key_at(base, keys[k]))) return 0;
        }
    }
    return 1;
}

struct rb_key_slot {
    uint32_t hash, after; /* index + 1; 0: free */
};

static int open_slots(struct rb_keys *s, uint32_t count) {
    s->capacity = 64;
    while (s->capacity < 2 * (size_t)count) s->capacity *= 2;
    s->slots = calloc(s->capacity, sizeof *s->slots);
    s->seed = rb_hash_seed();
    s->at = 0;
    return s->slots ? 0 : -ENOMEM;
}

void rb_keys_close(struct rb_keys *s) {
    free(s->slots);
    s->slots = NULL;
}

/* 1: there is none like it. */
static int put_key(struct rb_keys *s, const uint8_t *base, const struct rb_extent *keys,
                   uint32_t i) {
    struct rb_slice key = key_at(base, keys[i]);
    uint64_t hash = rb_hash(s->seed, key.at, key.size);
    size_t at = (size_t)hash & (s->capacity - 1);
    while (s->slots[at].after) {
        if (s->slots[at].hash == (uint32_t)(hash >> 32) &&
            rb_slice_equal(key_at(base, keys[s->slots[at].after - 1]), key))
            return 0;
        at = (at + 1) & (s->capacity - 1);
    }
    s->slots[at] = (struct rb_key_slot){(uint32_t)(hash >> 32), i + 1};
    return 1;
}

int rb_keys_differ(struct rb_keys *s, const uint8_t *base, const struct rb_extent *keys,
                   uint32_t count, uint64_t *effort) {
    if (count <= PAIRWISE_MAX) return differ_pairwise(base, keys, count);
    if (!s->slots && open_slots(s, count) < 0) return -ENOMEM;
    for (; s->at < count; s->at++) {
        if (*effort == 0) return -EAGAIN;
        uint64_t cost = KEY_EFFORT + (keys[s->at].end - keys[s->at].begin) / RB_EFFORT_BYTES;
        *effort -= cost < *effort ? cost : *effort;
        if (!put_key(s, base, keys, s->at)) {
            rb_keys_close(s);
            return 0;
        }
    }
    rb_keys_close(s);
    return 1;
}
