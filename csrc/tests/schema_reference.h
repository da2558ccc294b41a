/* schema_reference.h: schemas drawn from bytes, terms that fit them, and what a payload check must say, written in another way than
 * relay/service/schema.c: by recursion, looking a map's keys up one by one, and trying each alternative in full. */
#ifndef RINGBRIDGE_TESTS_SCHEMA_REFERENCE_H
#define RINGBRIDGE_TESTS_SCHEMA_REFERENCE_H

#include "relay/service/schema.h"
#include "terms.h"

/* --- Choices, from bytes ------------------------------------------------------------------------------------------------------- */

struct choices {
    const uint8_t *at;
    size_t left;
};
static inline unsigned choose(struct choices *c, unsigned below) { /* 0 when there are no more */
    if (c->left == 0) return 0;
    c->left--;
    return *c->at++ % below;
}

static const char *const schema_texts[] = {"ok", "error", "a", "b", "column", "\xc3\xa9t\xc3\xa9"};
enum { SCHEMA_TEXTS = sizeof schema_texts / sizeof *schema_texts };

static inline void schema_text(struct rb_ops_config *ops, struct rb_schema_node *n, const char *t) {
    n->text_at = ops->text_count;
    n->text_bytes = (uint32_t)strlen(t);
    memcpy(ops->text + ops->text_count, t, n->text_bytes);
    ops->text_count += n->text_bytes;
}

static inline int64_t schema_bits(double d) {
    int64_t bits;
    memcpy(&bits, &d, sizeof bits);
    return bits;
}

/* Node `i` and all below it. `forms`: kinds that it may not have, as an alternative beside others. */
static inline void draw_schema(struct rb_ops_config *ops, uint32_t i, struct choices *c, int depth,
                               unsigned *forms) {
    static const uint8_t kinds[] = {
        RB_SCHEMA_ANY,  RB_SCHEMA_INTEGER, RB_SCHEMA_FLOAT, RB_SCHEMA_NUMBER, RB_SCHEMA_BINARY,
        RB_SCHEMA_ATOM, RB_SCHEMA_LIST,    RB_SCHEMA_TUPLE, RB_SCHEMA_MAP,    RB_SCHEMA_ONE_OF};
    struct rb_schema_node *n = &ops->nodes[i];
    uint32_t kind = kinds[choose(c, depth > 0 ? 10 : 6)];
    unsigned form =
        kind == RB_SCHEMA_NUMBER ? 1u << RB_SCHEMA_INTEGER | 1u << RB_SCHEMA_FLOAT : 1u << kind;
    if (forms && (kind == RB_SCHEMA_ANY || kind == RB_SCHEMA_ONE_OF || *forms & form)) {
        for (kind = RB_SCHEMA_INTEGER; *forms & 1u << kind; kind++) /* the first that is free */
            if (kind == RB_SCHEMA_FLOAT) kind++;                    /* no number */
        if (kind > RB_SCHEMA_ATOM) kind = RB_SCHEMA_TUPLE;
        form = 1u << kind;
    }
    if (forms) *forms |= form;
    n->kind = kind;
    unsigned low = choose(c, 4);
    switch (kind) {
    case RB_SCHEMA_INTEGER:
        n->low = low == 0 ? INT64_MIN : -(int64_t)low * 100;
        n->high = choose(c, 2) ? INT64_MAX : (int64_t)low * 1000;
        return;
    case RB_SCHEMA_FLOAT:
    case RB_SCHEMA_NUMBER:
        n->low = schema_bits(-(double)low);
        n->high = schema_bits((double)low * 300);
        return;
    case RB_SCHEMA_BINARY:
        n->low = low;
        n->high = low + choose(c, 9);
        return;
    case RB_SCHEMA_LIST:
        n->low = low;
        n->high = low + choose(c, 4);
        break;
    case RB_SCHEMA_MAP: n->flags |= choose(c, 2) ? RB_SCHEMA_OPEN : 0; break;
    case RB_SCHEMA_ATOM:
    case RB_SCHEMA_TUPLE:
    case RB_SCHEMA_ONE_OF: break;
    default: return;
    }
    uint32_t count = kind == RB_SCHEMA_LIST ? 1 : kind == RB_SCHEMA_ONE_OF ? 1 + low % 3 : low;
    if (ops->nodes_count + count > RB_SCHEMA_NODES_MAX) {
        n->kind = RB_SCHEMA_ANY;
        return;
    }
    n->first = ops->nodes_count;
    n->count = count;
    ops->nodes_count += count;
    unsigned taken = 0;
    for (uint32_t k = 0; k < count; k++) {
        struct rb_schema_node *child = &ops->nodes[n->first + k];
        if (kind == RB_SCHEMA_ATOM || kind == RB_SCHEMA_MAP)
            schema_text(ops, child, schema_texts[(low + k) % SCHEMA_TEXTS]);
        if (kind == RB_SCHEMA_MAP) child->flags = choose(c, 2) ? RB_SCHEMA_OPTIONAL : 0;
        if (kind == RB_SCHEMA_ATOM)
            child->kind = RB_SCHEMA_TEXT;
        else
            draw_schema(ops, n->first + k, c, depth - 1, kind == RB_SCHEMA_ONE_OF ? &taken : NULL);
    }
}

/* --- A term that fits, more or less -------------------------------------------------------------------------------------------- */

static inline void put_key(struct bytes *b, const struct rb_ops_config *ops,
                           const struct rb_schema_node *n) {
    put_u8(b, RB_TAG_SMALL_ATOM_UTF8);
    put_u8(b, n->text_bytes);
    put(b, ops->text + n->text_at, n->text_bytes);
}

static inline void put_fitting(struct bytes *b, const struct rb_ops_config *ops, uint32_t i,
                               struct choices *c) {
    const struct rb_schema_node *n = &ops->nodes[i];
    uint64_t seed = choose(c, 256) + 1;
    uint32_t count = n->count, pairs = 0;
    switch (n->kind) {
    case RB_SCHEMA_INTEGER: put_integer(b, (int64_t)(choose(c, 9) * 200) - 400); return;
    case RB_SCHEMA_FLOAT: put_float(b, choose(c, 12) * 0.5 - 1); return;
    case RB_SCHEMA_NUMBER:
        if (choose(c, 2))
            put_integer(b, choose(c, 9) * 40);
        else
            put_float(b, choose(c, 9) * 40.5);
        return;
    case RB_SCHEMA_BINARY: put_binary(b, "0123456789abcdef", choose(c, 12)); return;
    case RB_SCHEMA_ATOM:
        if (count)
            put_key(b, ops, &ops->nodes[n->first + choose(c, count)]);
        else
            put_atom(b, "whatever");
        return;
    case RB_SCHEMA_LIST:
        count = choose(c, 7);
        if (count == 0) {
            put_nil(b);
            return;
        }
        if (ops->nodes[n->first].kind == RB_SCHEMA_INTEGER && choose(c, 2)) {
            put_u8(b, RB_TAG_STRING);
            put_u16(b, count);
            put_fill(b, choose(c, 256), count);
            return;
        }
        if (choose(c, 4) == 0 && count > 1) { /* in two cells, as ei writes */
            put_list(b, 1);
            put_fitting(b, ops, n->first, c);
            count--;
        }
        put_list(b, count);
        for (uint32_t k = 0; k < count; k++) put_fitting(b, ops, n->first, c);
        if (choose(c, 16) == 15)
            put_atom(b, "tail");
        else
            put_nil(b);
        return;
    case RB_SCHEMA_TUPLE:
        put_tuple(b, count);
        for (uint32_t k = 0; k < count; k++) put_fitting(b, ops, n->first + k, c);
        return;
    case RB_SCHEMA_MAP: {
        struct bytes inside = {0};
        for (uint32_t k = 0; k < count; k++) {
            int times = choose(c, 8) == 7 ? 2 : choose(c, 4) == 3 ? 0 : 1;
            for (; times > 0; times--, pairs++) {
                put_key(&inside, ops, &ops->nodes[n->first + k]);
                put_fitting(&inside, ops, n->first + k, c);
            }
        }
        if (choose(c, 3) == 0) {
            if (choose(c, 2))
                put_integer(&inside, 7);
            else
                put_atom(&inside, "other");
            put_random(&inside, &seed, 1);
            pairs++;
        }
        put_map(b, pairs);
        put(b, inside.at, inside.size);
        bytes_free(&inside);
        return;
    }
    case RB_SCHEMA_ONE_OF: put_fitting(b, ops, n->first + choose(c, count), c); return;
    default: put_random(b, &seed, 1);
    }
}

/* --- What is to be said -------------------------------------------------------------------------------------------------------- */

static inline int fits(const struct rb_ops_config *ops, uint32_t i, struct rb_cursor *c);

static inline int fits_number(const struct rb_schema_node *n, struct rb_slice term) {
    double low, high, d;
    int64_t v = 0;
    memcpy(&low, &n->low, sizeof low);
    memcpy(&high, &n->high, sizeof high);
    switch (*term.at) {
    case RB_TAG_NEW_FLOAT: {
        uint64_t bits = rb_be64(term.at + 1);
        if (n->kind == RB_SCHEMA_INTEGER) return 0;
        memcpy(&d, &bits, sizeof d);
        return !(d < low) && !(d > high) && d == d;
    }
    case RB_TAG_SMALL_INTEGER: v = term.at[1]; break;
    case RB_TAG_INTEGER: v = (int32_t)rb_be32(term.at + 1); break;
    case RB_TAG_SMALL_BIG:
    case RB_TAG_LARGE_BIG: {
        size_t head = *term.at == RB_TAG_SMALL_BIG ? 3 : 6, top = term.size;
        while (top > head && term.at[top - 1] == 0) top--;
        int negative = term.at[head - 1] != 0;
        __int128 big = 0;
        if (top - head > 8) big = (__int128)1 << 100;
        for (size_t k = top; top - head <= 8 && k-- > head;) big = big << 8 | term.at[k];
        if (negative) big = -big;
        if (n->kind == RB_SCHEMA_INTEGER) {
            if (big < INT64_MIN) return n->low == INT64_MIN;
            if (big > INT64_MAX) return n->high == INT64_MAX;
            return big >= n->low && big <= n->high;
        }
        return n->kind == RB_SCHEMA_NUMBER && (double)big >= low && (double)big <= high;
    }
    default: return 0;
    }
    if (n->kind == RB_SCHEMA_INTEGER) return v >= n->low && v <= n->high;
    return n->kind == RB_SCHEMA_NUMBER && (double)v >= low && (double)v <= high;
}

static inline int atom_is(const struct rb_ops_config *ops, const struct rb_schema_node *n,
                          struct rb_slice term) {
    struct rb_cursor c = rb_cursor_of(term);
    struct rb_slice text;
    return rb_term_atom(&c, &text) == 0 &&
           rb_slice_equal(text, (struct rb_slice){ops->text + n->text_at, n->text_bytes});
}

static inline int fits_list(const struct rb_ops_config *ops, const struct rb_schema_node *n,
                            struct rb_slice term) {
    struct rb_cursor c = rb_cursor_of(term);
    int64_t total = 0, count;
    int tail = 1;
    if (*term.at == RB_TAG_STRING) {
        for (total = 0; total < (int64_t)rb_be16(term.at + 1); total++) {
            uint8_t one[2] = {RB_TAG_SMALL_INTEGER, term.at[3 + total]};
            struct rb_cursor at = {one, one + 2};
            if (!fits(ops, n->first, &at)) return 0;
        }
    } else {
        while (tail) {
            count = rb_term_list(&c, &tail);
            if (count < 0) return 0;
            for (; count > 0; count--, total++)
                if (!fits(ops, n->first, &c)) return 0;
        }
    }
    return total >= n->low && total <= n->high;
}

static inline int fits_map(const struct rb_ops_config *ops, const struct rb_schema_node *n,
                           struct rb_slice term) {
    struct rb_cursor c = rb_cursor_of(term);
    int64_t pairs = rb_term_map(&c);
    uint32_t known = 0;
    for (uint32_t k = 0; pairs >= 0 && k < n->count; k++) {
        struct rb_cursor at = c;
        int found = 0;
        for (int64_t p = 0; p < pairs; p++) {
            struct rb_slice key, value;
            if (rb_term_skip(&at, &key) < 0 || rb_term_skip(&at, &value) < 0) abort();
            if (!atom_is(ops, &ops->nodes[n->first + k], key)) continue;
            struct rb_cursor v = rb_cursor_of(value);
            if (found++ || !fits(ops, n->first + k, &v)) return 0;
            known++;
        }
        if (!found && !(ops->nodes[n->first + k].flags & RB_SCHEMA_OPTIONAL)) return 0;
    }
    return pairs >= 0 && (known == pairs || n->flags & RB_SCHEMA_OPEN);
}

/* Past one whole term, which is well-formed: 1 when it is as node `i` says. */
static inline int fits(const struct rb_ops_config *ops, uint32_t i, struct rb_cursor *c) {
    const struct rb_schema_node *n = &ops->nodes[i];
    struct rb_slice term;
    if (rb_term_skip(c, &term) < 0) abort();
    struct rb_cursor at = rb_cursor_of(term);
    switch (n->kind) {
    case RB_SCHEMA_ANY: return 1;
    case RB_SCHEMA_INTEGER:
    case RB_SCHEMA_FLOAT:
    case RB_SCHEMA_NUMBER:
        return fits_number(n, term) && (n->kind != RB_SCHEMA_FLOAT || *term.at == RB_TAG_NEW_FLOAT);
    case RB_SCHEMA_BINARY:
        return *term.at == RB_TAG_BINARY && (int64_t)term.size - 5 >= n->low &&
               (int64_t)term.size - 5 <= n->high;
    case RB_SCHEMA_ATOM: {
        struct rb_slice text;
        int found = n->count == 0 && rb_term_atom(&at, &text) == 0;
        for (uint32_t k = 0; k < n->count; k++)
            found |= atom_is(ops, &ops->nodes[n->first + k], term);
        return found;
    }
    case RB_SCHEMA_LIST: return fits_list(ops, n, term);
    case RB_SCHEMA_TUPLE: {
        int good = rb_term_tuple(&at) == (int64_t)n->count;
        for (uint32_t k = 0; good && k < n->count; k++) good = fits(ops, n->first + k, &at);
        return good;
    }
    case RB_SCHEMA_MAP: return fits_map(ops, n, term);
    default:
        for (uint32_t k = 0; k < n->count; k++) {
            at = rb_cursor_of(term);
            if (fits(ops, n->first + k, &at)) return 1;
        }
        return 0;
    }
}

#endif
