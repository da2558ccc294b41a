/* term_keys.c: are the keys of one map all different? The walk has seen to it that equal keys have
 * equal bytes. */
#include <errno.h>
#include <stdlib.h>
#include <sys/random.h>
#include <time.h>

#include "term_check_pvt.h"

enum { PAIRWISE_MAX = 16 };

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

static struct rb_slice key_at(const uint8_t *base, const uint8_t *end, uint32_t offset) {
    struct rb_cursor c = {base + offset, end};
    struct rb_slice key = {c.at, 0};
    rb_term_skip(&c, &key); /* walked already: cannot fail */
    return key;
}

static int differ_pairwise(const uint8_t *base, const uint8_t *end, const uint32_t *offsets,
                           uint32_t count) {
    struct rb_slice keys[PAIRWISE_MAX];
    for (uint32_t i = 0; i < count; i++) {
        keys[i] = key_at(base, end, offsets[i]);
        for (uint32_t k = 0; k < i; k++) {
            if (rb_slice_equal(keys[i], keys[k])) return 0;
        }
    }
    return 1;
}

int rb_keys_differ(const uint8_t *base, const uint8_t *end, const uint32_t *offsets,
                   uint32_t count) {
    if (count <= PAIRWISE_MAX) return differ_pairwise(base, end, offsets, count);
    size_t capacity = 64;
    while (capacity < 2 * (size_t)count) capacity *= 2;
    struct slot {
        uint32_t hash, after; /* offset + 1; 0: free */
    } *slots = calloc(capacity, sizeof *slots);
    if (!slots) return -ENOMEM;
    uint64_t seed = rb_hash_seed();
    int differ = 1;
    for (uint32_t i = 0; i < count && differ; i++) {
        struct rb_slice key = key_at(base, end, offsets[i]);
        uint64_t hash = rb_hash(seed, key.at, key.size);
        size_t at = (size_t)hash & (capacity - 1);
        while (slots[at].after) {
            if (slots[at].hash == (uint32_t)(hash >> 32) &&
                rb_slice_equal(key_at(base, end, slots[at].after - 1), key)) {
                differ = 0;
                break;
            }
            at = (at + 1) & (capacity - 1);
        }
        slots[at].hash = (uint32_t)(hash >> 32);
        slots[at].after = offsets[i] + 1;
    }
    free(slots);
    return differ;
}
