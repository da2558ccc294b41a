#include "ringbridge/term.h"

static int need(const struct rb_cursor *c, size_t size) {
    return rb_cursor_left(c) >= size ? 0 : -EAGAIN;
}

/* Bytes of the fixed part of a term after its tag, and what follows it: so many bytes of data, so
 * many terms. */
static int measure(const struct rb_cursor *c, uint64_t *bytes, uint64_t *terms) {
    const uint8_t *p = c->at + 1;
    size_t left = rb_cursor_left(c) - 1;
    uint64_t data = 0, inside = 0, fixed;
#define FIXED(n)                          \
    do {                                  \
        fixed = (n);                      \
        if (left < fixed) return -EAGAIN; \
    } while (0)
    switch (*c->at) {
    case RB_TAG_NIL: FIXED(0); break;
    case RB_TAG_SMALL_INTEGER: FIXED(1); break;
    case RB_TAG_INTEGER: FIXED(4); break;
    case RB_TAG_NEW_FLOAT: FIXED(8); break;
    case RB_TAG_FLOAT: FIXED(31); break;
    case RB_TAG_SMALL_ATOM:
    case RB_TAG_SMALL_ATOM_UTF8:
        FIXED(1);
        data = p[0];
        break;
    case RB_TAG_ATOM:
    case RB_TAG_ATOM_UTF8:
    case RB_TAG_STRING:
        FIXED(2);
        data = rb_be16(p);
        break;
    case RB_TAG_BINARY:
        FIXED(4);
        data = rb_be32(p);
        break;
    case RB_TAG_BIT_BINARY:
        FIXED(5);
        data = rb_be32(p);
        break;
    case RB_TAG_SMALL_BIG:
        FIXED(2);
        data = p[0];
        break;
    case RB_TAG_LARGE_BIG:
        FIXED(5);
        data = rb_be32(p);
        break;
    case RB_TAG_SMALL_TUPLE:
        FIXED(1);
        inside = p[0];
        break;
    case RB_TAG_LARGE_TUPLE:
        FIXED(4);
        inside = rb_be32(p);
        break;
    case RB_TAG_LIST:
        FIXED(4);
        inside = (uint64_t)rb_be32(p) + 1;
        break;
    case RB_TAG_MAP:
        FIXED(4);
        inside = 2 * (uint64_t)rb_be32(p);
        break;
    case RB_TAG_EXPORT:
        FIXED(0);
        inside = 3;
        break;
    /* size, arity, uniq, index, nfree; then module, old index, old uniq, pid and the free
     * variables as terms */
    case RB_TAG_NEW_FUN:
        FIXED(4 + 1 + 16 + 4 + 4);
        inside = 4 + (uint64_t)rb_be32(p + 25);
        break;
    case RB_TAG_RECORD:
        FIXED(5);
        inside = 2 + 2 * (uint64_t)rb_be32(p);
        break;
    /* These begin with their node, an atom; their numbers follow it. */
    case RB_TAG_NEW_PID:
    case RB_TAG_PID:
    case RB_TAG_NEW_PORT:
    case RB_TAG_PORT:
    case RB_TAG_V4_PORT:
    case RB_TAG_REFERENCE:
    case RB_TAG_NEWER_REFERENCE:
    case RB_TAG_NEW_REFERENCE: {
        uint8_t tag = *c->at;
        size_t before = 0, words = 0;
        if (tag == RB_TAG_NEWER_REFERENCE || tag == RB_TAG_NEW_REFERENCE) {
            FIXED(2);
            before = 2;
            words = rb_be16(p);
            if (words > 5) return -EPROTO;
        }
        struct rb_cursor node = {p + before, c->end};
        struct rb_slice text;
        int rc = rb_term_atom(&node, &text);
        if (rc < 0) return rc;
        size_t numbers = tag == RB_TAG_NEW_PID           ? 12
                         : tag == RB_TAG_PID             ? 9
                         : tag == RB_TAG_NEW_PORT        ? 8
                         : tag == RB_TAG_PORT            ? 5
                         : tag == RB_TAG_V4_PORT         ? 12
                         : tag == RB_TAG_REFERENCE       ? 5
                         : tag == RB_TAG_NEWER_REFERENCE ? 4 + 4 * words
                                                         : 1 + 4 * words;
        FIXED((size_t)(node.at - p) + numbers);
        break;
    }
    default: return -EPROTO;
    }
#undef FIXED
    *bytes = 1 + fixed + data;
    *terms = inside;
    return 0;
}

int rb_term_step(struct rb_cursor *c, uint64_t *inside) {
    uint64_t bytes, terms;
    if (c->at == c->end) return -EAGAIN;
    int rc = measure(c, &bytes, &terms);
    if (rc < 0) return rc;
    if (bytes > rb_cursor_left(c)) return -EAGAIN;
    c->at += bytes;
    *inside = terms;
    return 0;
}

/* Bytes of a term as it stands in every signal: whole, nothing inside it, its node's name a short
 * atom. 0: it is another one, and measure() says. */
static size_t plain_size(const struct rb_cursor *c) {
    const uint8_t *p = c->at;
    size_t left = rb_cursor_left(c), size;
    if (left < 5) return 0;
    if (*p == RB_TAG_NEW_PID && p[1] == RB_TAG_SMALL_ATOM_UTF8)
        size = 1 + 2 + (size_t)p[2] + 12;
    else if (*p == RB_TAG_NEWER_REFERENCE && !p[1] && p[2] <= 5 && p[3] == RB_TAG_SMALL_ATOM_UTF8)
        size = 3 + 2 + (size_t)p[4] + 4 + 4 * (size_t)p[2];
    else if (*p == RB_TAG_SMALL_ATOM_UTF8)
        size = 2 + (size_t)p[1];
    else if (*p == RB_TAG_BINARY)
        size = 5 + (size_t)rb_be32(p + 1);
    else
        return 0;
    return size <= left ? size : 0;
}

/* Apart, so that what is plain does not pay for its registers. */
__attribute__((noinline)) static int skip_any(struct rb_cursor *c, struct rb_slice *term) {
    struct rb_cursor at = *c;
    uint64_t pending = 1;
    while (pending > 0) {
        uint64_t inside;
        size_t plain = plain_size(&at);
        if (plain) {
            at.at += plain;
            pending--;
            continue;
        }
        int rc = rb_term_step(&at, &inside);
        if (rc < 0) return rc;
        /* Each term takes a byte at least; what cannot fit yet may still come, so this is no error
         * of its own. */
        pending += inside - 1;
    }
    if (term) {
        term->at = c->at;
        term->size = (size_t)(at.at - c->at);
    }
    *c = at;
    return 0;
}

int rb_term_skip(struct rb_cursor *c, struct rb_slice *term) {
    size_t plain = plain_size(c);
    if (!plain) return skip_any(c, term);
    if (term) *term = (struct rb_slice){c->at, plain};
    c->at += plain;
    return 0;
}

int64_t rb_term_tuple_any(struct rb_cursor *c) {
    int tag = rb_term_tag(c);
    if (tag < 0) return tag;
    if (tag == RB_TAG_SMALL_TUPLE) {
        if (need(c, 2) < 0) return -EAGAIN;
        c->at += 2;
        return c->at[-1];
    }
    if (tag == RB_TAG_LARGE_TUPLE) {
        if (need(c, 5) < 0) return -EAGAIN;
        c->at += 5;
        return rb_be32(c->at - 4);
    }
    return -EPROTO;
}

int rb_term_atom_any(struct rb_cursor *c, struct rb_slice *text) {
    int tag = rb_term_tag(c);
    size_t head, size;
    if (tag < 0) return tag;
    if (tag == RB_TAG_SMALL_ATOM_UTF8 || tag == RB_TAG_SMALL_ATOM) {
        if (need(c, 2) < 0) return -EAGAIN;
        head = 2;
        size = c->at[1];
    } else if (tag == RB_TAG_ATOM_UTF8 || tag == RB_TAG_ATOM) {
        if (need(c, 3) < 0) return -EAGAIN;
        head = 3;
        size = rb_be16(c->at + 1);
        if (size > 1020) return -EPROTO; /* 255 characters of 4 bytes */
    } else {
        return -EPROTO;
    }
    if (need(c, head + size) < 0) return -EAGAIN;
    text->at = c->at + head;
    text->size = size;
    c->at += head + size;
    return 0;
}

int rb_term_binary_head(struct rb_cursor *c, uint32_t *size) {
    int tag = rb_term_tag(c);
    if (tag < 0) return tag;
    if (tag != RB_TAG_BINARY) return -EPROTO;
    if (need(c, 5) < 0) return -EAGAIN;
    *size = rb_be32(c->at + 1);
    c->at += 5;
    return 0;
}

int rb_term_text(struct rb_cursor *c, struct rb_slice *text) {
    struct rb_cursor at = *c;
    if (rb_term_tag(c) != RB_TAG_BINARY) return rb_term_atom(c, text);
    uint32_t size;
    int rc = rb_term_binary_head(&at, &size);
    if (rc < 0) return rc;
    if (need(&at, size) < 0) return -EAGAIN;
    text->at = at.at;
    text->size = size;
    c->at = at.at + size;
    return 0;
}

int rb_term_unsigned(struct rb_cursor *c, uint64_t *value) {
    int tag = rb_term_tag(c);
    if (tag < 0) return tag;
    if (tag == RB_TAG_SMALL_INTEGER) {
        if (need(c, 2) < 0) return -EAGAIN;
        *value = c->at[1];
        c->at += 2;
        return 0;
    }
    if (tag == RB_TAG_INTEGER) {
        if (need(c, 5) < 0) return -EAGAIN;
        uint32_t v = rb_be32(c->at + 1);
        if (v >> 31) return -ERANGE;
        *value = v;
        c->at += 5;
        return 0;
    }
    if (tag == RB_TAG_SMALL_BIG) {
        if (need(c, 3) < 0) return -EAGAIN;
        size_t size = c->at[1];
        if (need(c, 3 + size) < 0) return -EAGAIN;
        uint64_t v = 0;
        for (size_t i = 0; i < size; i++) {
            if (i >= 8 ? c->at[3 + i] != 0 : 0) return -ERANGE;
            if (i < 8) v |= (uint64_t)c->at[3 + i] << (8 * i);
        }
        if (c->at[2] != 0 || v >> 63) return -ERANGE;
        *value = v;
        c->at += 3 + size;
        return 0;
    }
    return tag == RB_TAG_LARGE_BIG ? -ERANGE : -EPROTO;
}

int64_t rb_term_list(struct rb_cursor *c, int *tail) {
    int tag = rb_term_tag(c);
    if (tag < 0) return tag;
    if (tag == RB_TAG_NIL) {
        c->at += 1;
        *tail = 0;
        return 0;
    }
    if (tag != RB_TAG_LIST) return -EPROTO;
    if (need(c, 5) < 0) return -EAGAIN;
    c->at += 5;
    *tail = 1;
    return rb_be32(c->at - 4);
}

int64_t rb_term_map(struct rb_cursor *c) {
    int tag = rb_term_tag(c);
    if (tag < 0) return tag;
    if (tag != RB_TAG_MAP) return -EPROTO;
    if (need(c, 5) < 0) return -EAGAIN;
    c->at += 5;
    return rb_be32(c->at - 4);
}
