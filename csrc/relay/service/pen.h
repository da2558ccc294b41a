/* pen.h: external terms written one behind the other (erl_ext_dist), into room that was taken before: nothing here looks for its
 * end. */
#ifndef RB_RELAY_PEN_H
#define RB_RELAY_PEN_H

#include "ringbridge/term.h"

struct rb_pen {
    uint8_t *begin, *at;
};

static inline void rb_pen_bytes(struct rb_pen *p, const void *bytes, size_t size) {
    memcpy(p->at, bytes, size);
    p->at += size;
}
static inline void rb_pen_slice(struct rb_pen *p, struct rb_slice s) {
    rb_pen_bytes(p, s.at, s.size);
}
static inline void rb_pen_byte(struct rb_pen *p, uint8_t b) { *p->at++ = b; }
static inline size_t rb_pen_size(const struct rb_pen *p) { return (size_t)(p->at - p->begin); }
static inline struct rb_slice rb_pen_written(const struct rb_pen *p) {
    return (struct rb_slice){p->begin, rb_pen_size(p)};
}

static inline void rb_pen_tuple(struct rb_pen *p, uint8_t arity) {
    rb_pen_byte(p, RB_TAG_SMALL_TUPLE);
    rb_pen_byte(p, arity);
}
static inline void rb_pen_map(struct rb_pen *p, uint32_t pairs) {
    rb_pen_byte(p, RB_TAG_MAP);
    rb_put_be32(p->at, pairs);
    p->at += 4;
}
/* Its elements and rb_pen_nil() follow: a list of no element and the tail [] is [] too. */
static inline void rb_pen_list(struct rb_pen *p, uint32_t count) {
    rb_pen_byte(p, RB_TAG_LIST);
    rb_put_be32(p->at, count);
    p->at += 4;
}
static inline void rb_pen_nil(struct rb_pen *p) { rb_pen_byte(p, RB_TAG_NIL); }
static inline void rb_pen_atom(struct rb_pen *p, const char *text) {
    size_t size = strlen(text);
    rb_pen_byte(p, RB_TAG_SMALL_ATOM_UTF8);
    rb_pen_byte(p, (uint8_t)size);
    rb_pen_bytes(p, text, size);
}
/* The bytes follow. */
static inline void rb_pen_binary(struct rb_pen *p, size_t size) {
    rb_pen_byte(p, RB_TAG_BINARY);
    rb_put_be32(p->at, (uint32_t)size);
    p->at += 4;
}
static inline void rb_pen_text(struct rb_pen *p, const char *text) {
    size_t size = strlen(text);
    rb_pen_binary(p, size);
    rb_pen_bytes(p, text, size);
}
void rb_pen_large(struct rb_pen *p, uint64_t v); /* 256 and more */
static inline void rb_pen_unsigned(struct rb_pen *p, uint64_t v) {
    if (v >= 256) {
        rb_pen_large(p, v);
        return;
    }
    rb_pen_byte(p, RB_TAG_SMALL_INTEGER);
    rb_pen_byte(p, (uint8_t)v);
}
/* A reference of three words, of which a BEAM makes the first below 2^18. `words[0]` is that one. */
void rb_pen_reference(struct rb_pen *p, struct rb_slice node, uint32_t creation,
                      const uint32_t words[3]);

#endif
