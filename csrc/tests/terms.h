/* terms.h: external terms for tests, written piece by piece or drawn at random. */
#ifndef RINGBRIDGE_TESTS_TERMS_H
#define RINGBRIDGE_TESTS_TERMS_H

#include "check.h"
#include "ringbridge/term.h"

struct bytes {
    uint8_t *at;
    size_t size, capacity;
};

static inline void bytes_free(struct bytes *b) {
    free(b->at);
    *b = (struct bytes){0};
}

static inline void put(struct bytes *b, const void *p, size_t n) {
    if (b->size + n > b->capacity) {
        b->capacity = 2 * (b->size + n);
        b->at = realloc(b->at, b->capacity);
        if (!b->at) abort();
    }
    if (n) memcpy(b->at + b->size, p, n);
    b->size += n;
}
#define PUT(b, text) put(b, text, sizeof(text) - 1)

static inline void put_u8(struct bytes *b, unsigned v) {
    uint8_t byte = (uint8_t)v;
    put(b, &byte, 1);
}
static inline void put_u16(struct bytes *b, unsigned v) {
    uint8_t two[2];
    rb_put_be16(two, (uint16_t)v);
    put(b, two, 2);
}
static inline void put_u32(struct bytes *b, uint32_t v) {
    uint8_t four[4];
    rb_put_be32(four, v);
    put(b, four, 4);
}
static inline void put_u64(struct bytes *b, uint64_t v) {
    put_u32(b, (uint32_t)(v >> 32));
    put_u32(b, (uint32_t)v);
}
static inline void put_fill(struct bytes *b, unsigned value, size_t n) {
    for (size_t i = 0; i < n; i++) put_u8(b, value);
}
static inline void put_tuple(struct bytes *b, unsigned arity) {
    put_u8(b, RB_TAG_SMALL_TUPLE);
    put_u8(b, arity);
}
static inline void put_list(struct bytes *b, uint32_t count) {
    put_u8(b, RB_TAG_LIST);
    put_u32(b, count);
}
static inline void put_map(struct bytes *b, uint32_t pairs) {
    put_u8(b, RB_TAG_MAP);
    put_u32(b, pairs);
}
static inline void put_nil(struct bytes *b) { put_u8(b, RB_TAG_NIL); }
/* Where it is set, it writes an atom in another way: as a cache reference. */
static void (*atom_writer)(struct bytes *b, const char *text);
static inline void put_atom(struct bytes *b, const char *text) {
    if (atom_writer) {
        atom_writer(b, text);
        return;
    }
    put_u8(b, RB_TAG_SMALL_ATOM_UTF8);
    put_u8(b, (unsigned)strlen(text));
    put(b, text, strlen(text));
}
static inline void put_binary(struct bytes *b, const void *p, uint32_t n) {
    put_u8(b, RB_TAG_BINARY);
    put_u32(b, n);
    put(b, p, n);
}
static inline void put_integer(struct bytes *b, int64_t v) {
    uint64_t magnitude = v < 0 ? 0 - (uint64_t)v : (uint64_t)v;
    if (v >= 0 && v <= 255) {
        put_u8(b, RB_TAG_SMALL_INTEGER);
        put_u8(b, (unsigned)v);
    } else if (v >= INT32_MIN && v <= INT32_MAX) {
        put_u8(b, RB_TAG_INTEGER);
        put_u32(b, (uint32_t)v);
    } else {
        uint8_t digits[8], n = 0;
        for (; magnitude; magnitude >>= 8) digits[n++] = (uint8_t)magnitude;
        put_u8(b, RB_TAG_SMALL_BIG);
        put_u8(b, n);
        put_u8(b, v < 0);
        put(b, digits, n);
    }
}
static inline void put_float(struct bytes *b, double v) {
    uint64_t bits;
    memcpy(&bits, &v, sizeof bits);
    put_u8(b, RB_TAG_NEW_FLOAT);
    put_u64(b, bits);
}
static inline void put_pid(struct bytes *b, const char *node, uint32_t id) {
    put_u8(b, RB_TAG_NEW_PID);
    put_atom(b, node);
    put_u32(b, id);
    put_u32(b, 0);
    put_u32(b, 7);
}
static inline void put_port(struct bytes *b, const char *node, uint32_t id) {
    put_u8(b, RB_TAG_NEW_PORT);
    put_atom(b, node);
    put_u32(b, id);
    put_u32(b, 7);
}
static inline void put_port_v4(struct bytes *b, const char *node, uint64_t id) {
    put_u8(b, RB_TAG_V4_PORT);
    put_atom(b, node);
    put_u64(b, id);
    put_u32(b, 7);
}
/* Words 1, 2, 3 ... */
static inline void put_reference(struct bytes *b, const char *node, unsigned words) {
    put_u8(b, RB_TAG_NEWER_REFERENCE);
    put_u16(b, words);
    put_atom(b, node);
    put_u32(b, 7);
    for (unsigned i = 1; i <= words; i++) put_u32(b, i);
}
static inline void put_export(struct bytes *b, const char *module, const char *function,
                              unsigned arity) {
    put_u8(b, RB_TAG_EXPORT);
    put_atom(b, module);
    put_atom(b, function);
    put_integer(b, arity);
}
/* The head of a fun and its fixed children; `free_bytes` of free variables must follow. */
static inline void put_fun(struct bytes *b, uint32_t free_variables, uint32_t free_bytes) {
    struct bytes fixed = {0};
    put_atom(&fixed, "mod");
    put_integer(&fixed, 3);
    put_integer(&fixed, 123456);
    put_pid(&fixed, "a@b", 9);
    put_u8(b, RB_TAG_NEW_FUN);
    put_u32(b, 29 + (uint32_t)fixed.size + free_bytes);
    put_u8(b, 1);
    put_fill(b, 0xab, 16);
    put_u32(b, 3);
    put_u32(b, free_variables);
    put(b, fixed.at, fixed.size);
    bytes_free(&fixed);
}

static inline struct rb_slice slice_of(const struct bytes *b) {
    return (struct rb_slice){b->at, b->size};
}

/* For initialisers. */
#define BYTES(text) {(const uint8_t *)(text), sizeof(text) - 1}

/* [alias|R] and {'$gen_call', {Pid, Tag}, Request}. */
static inline void put_alias(struct bytes *b, unsigned words) {
    put_list(b, 1);
    put_atom(b, "alias");
    put_reference(b, "a@b", words);
}
static inline void call_of(struct bytes *b, const struct bytes *tag, const struct bytes *request) {
    put_tuple(b, 3);
    put_atom(b, "$gen_call");
    put_tuple(b, 2);
    put_pid(b, "a@b", 4);
    put(b, tag->at, tag->size);
    put(b, request->at, request->size);
}

/* A copy that ends where its block ends, so that ASan sees every byte read past it. */
static inline struct bytes exactly(const void *p, size_t n) {
    struct bytes b = {malloc(n ? n : 1), n, n};
    if (!b.at) abort();
    if (n) memcpy(b.at, p, n);
    return b;
}

/* --- At random: well-formed terms of every tag that we take, map keys distinct integers ------- */

static inline void put_random(struct bytes *b, uint64_t *seed, unsigned depth) {
    static const char *const atoms[] = {
        "ok", "error", "true", "alpha", "beta", "", "\xc3\xa9t\xc3\xa9"};
    uint64_t draw = check_random(seed);
    unsigned kind = (unsigned)(draw >> 8) % (depth ? 22 : 17), n = (unsigned)(draw >> 40) % 5;
    switch (kind) {
    case 0: put_integer(b, (int64_t)(draw >> 56)); break;
    case 1: put_integer(b, (int32_t)(draw >> 32)); break;
    case 2: put_integer(b, (int64_t)check_random(seed)); break;
    case 3: put_float(b, (double)(int64_t)draw / 1024.0); break;
    case 4: put_atom(b, atoms[draw % 7]); break;
    case 5: put_binary(b, &draw, n); break;
    case 6:
        put_u8(b, RB_TAG_BIT_BINARY);
        put_u32(b, n + 1);
        put_u8(b, 1 + n);
        put_fill(b, 0x80, n + 1);
        break;
    case 7:
        put_u8(b, RB_TAG_STRING);
        put_u16(b, n);
        put(b, &draw, n);
        break;
    case 8: put_nil(b); break;
    case 9: put_pid(b, "a@b", n); break;
    case 10: put_port(b, "a@b", n); break;
    case 11: put_port_v4(b, "c@d", draw); break;
    case 12: put_reference(b, "a@b", 3 + 2 * (n & 1)); break;
    case 13: put_export(b, "mod", "function", n); break;
    case 14:
        put_u8(b, RB_TAG_LARGE_BIG);
        put_u32(b, 300);
        put_u8(b, n & 1);
        put_fill(b, n + 1, 300);
        break;
    case 15:
        put_u8(b, RB_TAG_ATOM_UTF8);
        put_u16(b, 300);
        for (int i = 0; i < 150; i++) PUT(b, "\xc3\xa9");
        break;
    case 16:
        put_u8(b, RB_TAG_ATOM);
        put_u16(b, 3);
        PUT(b, "\xe9\x74\xe9");
        break;
    case 17:
        put_tuple(b, n);
        while (n--) put_random(b, seed, depth - 1);
        break;
    case 18:
        put_list(b, n);
        while (n--) put_random(b, seed, depth - 1);
        if (draw & 1)
            put_nil(b);
        else
            put_random(b, seed, depth - 1);
        break;
    case 19:
        put_map(b, n);
        while (n--) {
            put_integer(b, n);
            put_random(b, seed, depth - 1);
        }
        break;
    case 20: {
        struct bytes inside = {0};
        for (unsigned i = 0; i < n; i++) put_random(&inside, seed, depth - 1);
        put_fun(b, n, (uint32_t)inside.size);
        put(b, inside.at, inside.size);
        bytes_free(&inside);
        break;
    }
    default:
        put_u8(b, RB_TAG_LARGE_TUPLE);
        put_u32(b, n);
        while (n--) put_random(b, seed, depth - 1);
        break;
    }
}

/* Changes 1 to 4 places: a bit, a byte, a tag, a count; or cuts or doubles a piece. */
static inline void mutate(struct bytes *b, uint64_t *seed) {
    static const uint8_t of_interest[] = {0,   1,   2,   67,  70,  77,  88,  89,  90,  97,
                                          98,  104, 105, 106, 107, 108, 109, 110, 111, 112,
                                          113, 116, 118, 119, 120, 127, 128, 255};
    for (int changes = 1 + (int)(check_random(seed) % 4); changes && b->size; changes--) {
        uint64_t draw = check_random(seed);
        size_t at = (size_t)(draw >> 16) % b->size;
        switch (draw % 6) {
        case 0: b->at[at] ^= (uint8_t)(1 << (draw >> 8) % 8); break;
        case 1: b->at[at] = (uint8_t)(draw >> 56); break;
        case 2:
        case 3: b->at[at] = of_interest[(draw >> 56) % sizeof of_interest]; break;
        case 4: b->size = at; break;
        default: {
            size_t n = (size_t)(draw >> 48) % 16 + 1;
            struct bytes tail = exactly(b->at + at, b->size - at);
            put(b, tail.at, tail.size < n ? tail.size : n);
            bytes_free(&tail);
        }
        }
    }
}

#endif
