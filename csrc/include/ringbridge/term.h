/* term.h: walking external terms without building them (erl_ext_dist; tags as in docs/terms.md).
 *
 * A cursor moves over bytes that somebody else wrote. Every function either moves it past what
 * it names and returns >= 0, or leaves it where it was and returns -EAGAIN (the bytes end inside
 * the term: more may make it whole) or -EPROTO (no continuation can). Skipping counts terms
 * instead of recursing, so depth costs nothing; arities are held against the bytes that are
 * left. */
#ifndef RINGBRIDGE_TERM_H
#define RINGBRIDGE_TERM_H

#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum rb_tag {
    RB_TAG_VERSION = 131,
    RB_TAG_RECORD = 67,
    RB_TAG_NEW_FLOAT = 70,
    RB_TAG_BIT_BINARY = 77,
    RB_TAG_NEW_PID = 88,
    RB_TAG_NEW_PORT = 89,
    RB_TAG_NEWER_REFERENCE = 90,
    RB_TAG_SMALL_INTEGER = 97,
    RB_TAG_INTEGER = 98,
    RB_TAG_FLOAT = 99,
    RB_TAG_ATOM = 100,
    RB_TAG_REFERENCE = 101,
    RB_TAG_PORT = 102,
    RB_TAG_PID = 103,
    RB_TAG_SMALL_TUPLE = 104,
    RB_TAG_LARGE_TUPLE = 105,
    RB_TAG_NIL = 106,
    RB_TAG_STRING = 107,
    RB_TAG_LIST = 108,
    RB_TAG_BINARY = 109,
    RB_TAG_SMALL_BIG = 110,
    RB_TAG_LARGE_BIG = 111,
    RB_TAG_NEW_FUN = 112,
    RB_TAG_EXPORT = 113,
    RB_TAG_NEW_REFERENCE = 114,
    RB_TAG_SMALL_ATOM = 115,
    RB_TAG_MAP = 116,
    RB_TAG_ATOM_UTF8 = 118,
    RB_TAG_SMALL_ATOM_UTF8 = 119,
    RB_TAG_V4_PORT = 120,
};

struct rb_slice {
    const uint8_t *at;
    size_t size;
};

struct rb_cursor {
    const uint8_t *at, *end;
};

static inline struct rb_cursor rb_cursor_of(struct rb_slice s) {
    struct rb_cursor c = {s.at, s.size ? s.at + s.size : s.at}; /* NULL + 0 is undefined in C */
    return c;
}
static inline size_t rb_cursor_left(const struct rb_cursor *c) { return (size_t)(c->end - c->at); }

static inline int rb_slice_equal(struct rb_slice a, struct rb_slice b) {
    return a.size == b.size && (a.size == 0 || memcmp(a.at, b.at, a.size) == 0);
}
static inline int rb_slice_is(struct rb_slice s, const char *text) {
    size_t size = strlen(text);
    return s.size == size && (size == 0 || memcmp(s.at, text, size) == 0);
}

static inline uint16_t rb_be16(const uint8_t *p) { return (uint16_t)(p[0] << 8 | p[1]); }
static inline uint32_t rb_be32(const uint8_t *p) {
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}
static inline uint64_t rb_be64(const uint8_t *p) {
    return (uint64_t)rb_be32(p) << 32 | rb_be32(p + 4);
}
static inline void rb_put_be16(uint8_t *p, uint16_t v) {
    p[0] = (uint8_t)(v >> 8);
    p[1] = (uint8_t)v;
}
static inline void rb_put_be32(uint8_t *p, uint32_t v) {
    p[0] = (uint8_t)(v >> 24);
    p[1] = (uint8_t)(v >> 16);
    p[2] = (uint8_t)(v >> 8);
    p[3] = (uint8_t)v;
}
static inline void rb_put_be64(uint8_t *p, uint64_t v) {
    rb_put_be32(p, (uint32_t)(v >> 32));
    rb_put_be32(p + 4, (uint32_t)v);
}

/* Tag of the next term, or -EAGAIN. Does not move. */
static inline int rb_term_tag(const struct rb_cursor *c) {
    return c->at < c->end ? *c->at : -EAGAIN;
}
/* Past one whole term of any kind; `term`, unless NULL, becomes its bytes. */
int rb_term_skip(struct rb_cursor *c, struct rb_slice *term);
/* Past the next term's own bytes, but not past the terms inside it: `*inside` is how many of
 * them follow. Pids, ports and references are passed whole, with their node. */
int rb_term_step(struct rb_cursor *c, uint64_t *inside);
/* What these do where the tag or the end of the bytes is not the usual one (term.c). */
int rb_term_atom_any(struct rb_cursor *c, struct rb_slice *text);
int64_t rb_term_tuple_any(struct rb_cursor *c);
/* Enters a tuple: its arity. -EPROTO when the next term is none. */
static inline int64_t rb_term_tuple(struct rb_cursor *c) {
    if (rb_cursor_left(c) < 2 || *c->at != RB_TAG_SMALL_TUPLE) return rb_term_tuple_any(c);
    c->at += 2;
    return c->at[-1];
}
/* An atom of any of the four atom tags: its text. Latin-1 forms are given as they are (all our
 * names are ASCII). */
static inline int rb_term_atom(struct rb_cursor *c, struct rb_slice *text) {
    size_t left = rb_cursor_left(c);
    if (left < 2 || *c->at != RB_TAG_SMALL_ATOM_UTF8 || left - 2 < c->at[1])
        return rb_term_atom_any(c, text);
    *text = (struct rb_slice){c->at + 2, c->at[1]};
    c->at += 2 + text->size;
    return 0;
}
/* A binary: its bytes need not all be there. Returns 0 with the cursor on the first byte. */
int rb_term_binary_head(struct rb_cursor *c, uint32_t *size);
/* An atom or a binary, whole: its text (role names and option values come as either). */
int rb_term_text(struct rb_cursor *c, struct rb_slice *text);
/* An integer of 0 .. 2^63-1. -ERANGE when it is one but lies outside. */
int rb_term_unsigned(struct rb_cursor *c, uint64_t *value);
/* A list or map head: its count; -EPROTO when the next term is none. NIL is a list of 0 and has no
 * tail to skip: `*tail` says. */
int64_t rb_term_list(struct rb_cursor *c, int *tail);
int64_t rb_term_map(struct rb_cursor *c);

#endif
