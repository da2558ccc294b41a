#include "relay/service/picture.h"

#include <stdio.h>

int rb_picture_size(struct rb_slice text) {
    size_t size = text.size;
    if (size > 40) {
        for (size = 40; size > 36 && (text.at[size] & 0xc0) == 0x80;) size--;
    }
    return (int)size;
}

void rb_picture(struct rb_slice term, char out[RB_PICTURE_BYTES]) {
    const size_t size = RB_PICTURE_BYTES;
    struct rb_cursor c = rb_cursor_of(term);
    struct rb_slice text;
    uint64_t number;
    if (rb_term_atom(&c, &text) == 0) {
        snprintf(out, size, ":%.*s", rb_picture_size(text), (const char *)text.at);
    } else if (rb_term_unsigned(&c, &number) == 0) {
        snprintf(out, size, "%llu", (unsigned long long)number);
    } else if (rb_term_tag(&c) == RB_TAG_INTEGER) {
        snprintf(out, size, "%d", (int)rb_be32(term.at + 1));
    } else if (rb_term_tag(&c) == RB_TAG_BINARY) {
        snprintf(out, size, "a binary of %u bytes", rb_be32(term.at + 1));
    } else {
        static const struct {
            uint8_t tag;
            const char *name;
        } names[] = {
            {RB_TAG_NEW_FLOAT, "a float"},
            {RB_TAG_SMALL_TUPLE, "a tuple"},
            {RB_TAG_LARGE_TUPLE, "a tuple"},
            {RB_TAG_NIL, "[]"},
            {RB_TAG_LIST, "a list"},
            {RB_TAG_STRING, "a charlist"},
            {RB_TAG_MAP, "a map"},
            {RB_TAG_NEW_PID, "a pid"},
            {RB_TAG_NEWER_REFERENCE, "a reference"},
            {RB_TAG_SMALL_BIG, "a bignum"},
            {RB_TAG_LARGE_BIG, "a bignum"},
            {RB_TAG_NEW_FUN, "a fun"},
            {RB_TAG_BIT_BINARY, "a bitstring"},
        };
        for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
            if (term.at[0] == names[i].tag) {
                snprintf(out, size, "%s", names[i].name);
                return;
            }
        }
        snprintf(out, size, "a term");
    }
}
