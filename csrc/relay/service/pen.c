#include "relay/service/pen.h"

void rb_pen_large(struct rb_pen *p, uint64_t v) {
    if (v < 1ull << 31) {
        rb_pen_byte(p, RB_TAG_INTEGER);
        rb_put_be32(p->at, (uint32_t)v);
        p->at += 4;
    } else {
        uint8_t *size = p->at + 1;
        rb_pen_byte(p, RB_TAG_SMALL_BIG);
        p->at += 2;
        size[1] = 0; /* not negative */
        uint8_t n = 0;
        for (; v; v >>= 8, n++) rb_pen_byte(p, (uint8_t)v);
        *size = n;
    }
}

void rb_pen_reference(struct rb_pen *p, struct rb_slice node, uint32_t creation,
                      const uint32_t words[3]) {
    rb_pen_byte(p, RB_TAG_NEWER_REFERENCE);
    rb_pen_byte(p, 0);
    rb_pen_byte(p, 3);
    rb_pen_byte(p, RB_TAG_SMALL_ATOM_UTF8);
    rb_pen_byte(p, (uint8_t)node.size);
    rb_pen_slice(p, node);
    rb_put_be32(p->at, creation);
    for (int i = 0; i < 3; i++) rb_put_be32(p->at + 4 + 4 * i, words[i]);
    p->at += 16;
}
