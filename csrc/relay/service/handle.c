#include "relay/service/handle.h"

#include <errno.h>

void rb_reference_words(uint32_t mark, uint64_t number, uint32_t words[3]) {
    words[0] = (uint32_t)(number & 0x3ffff);
    words[1] = (uint32_t)(number >> 18);
    words[2] = mark | (uint32_t)(number >> 50);
}

int rb_reference_number(struct rb_slice reference, uint32_t mark, uint64_t *number) {
    if (reference.size < 16 || reference.at[0] != RB_TAG_NEWER_REFERENCE ||
        rb_be16(reference.at + 1) != 3)
        return -EINVAL;
    const uint8_t *words = reference.at + reference.size - 12;
    uint32_t low = rb_be32(words), top = rb_be32(words + 8) ^ mark;
    if (low >> 18 || top >> 14) return -EINVAL;
    *number = (uint64_t)top << 50 | (uint64_t)rb_be32(words + 4) << 18 | low;
    return 0;
}

int rb_reference_is_of(struct rb_slice reference, struct rb_slice node, uint32_t creation) {
    struct rb_cursor c = {reference.at + 3, reference.at + reference.size};
    struct rb_slice text;
    if (reference.size < 3 || rb_term_atom(&c, &text) < 0 || rb_cursor_left(&c) < 4) return 0;
    return rb_slice_equal(text, node) && rb_be32(c.at) == creation;
}

static uint32_t left(uint32_t x, int n) { return x << n | x >> (32 - n); }
static uint32_t right(uint32_t x, int n) { return x >> n | x << (32 - n); }

void rb_seal_init(struct rb_seal *seal, const uint32_t key[4]) {
    uint32_t k = key[0], l[3] = {key[1], key[2], key[3]};
    for (uint32_t i = 0; i < 27; i++) {
        seal->round[i] = k;
        l[i % 3] = (k + right(l[i % 3], 8)) ^ i;
        k = left(k, 3) ^ l[i % 3];
    }
}

uint64_t rb_seal(const struct rb_seal *seal, uint64_t number) {
    uint32_t x = (uint32_t)(number >> 32), y = (uint32_t)number;
    for (int i = 0; i < 27; i++) {
        x = (right(x, 8) + y) ^ seal->round[i];
        y = left(y, 3) ^ x;
    }
    return (uint64_t)x << 32 | y;
}

uint64_t rb_unseal(const struct rb_seal *seal, uint64_t sealed) {
    uint32_t x = (uint32_t)(sealed >> 32), y = (uint32_t)sealed;
    for (int i = 26; i >= 0; i--) {
        y = right(y ^ x, 3);
        x = left((x ^ seal->round[i]) - y, 8);
    }
    return (uint64_t)x << 32 | y;
}
