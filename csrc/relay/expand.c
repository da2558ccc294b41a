#include "expand.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "ringbridge/term.h"

int rb_bytes_put(struct rb_bytes *b, struct rb_budget *budget, const void *p, size_t n) {
    if (n > b->capacity - b->size) {
        size_t wanted = b->size + n, grown = b->capacity ? b->capacity * 2 : 4096;
        if (grown < wanted) grown = wanted;
        if (grown - b->capacity > budget->max - budget->used) grown = wanted;
        if (grown - b->capacity > budget->max - budget->used) return -EMSGSIZE;
        uint8_t *at = realloc(b->at, grown);
        if (!at) return -ENOMEM;
        budget->used += grown - b->capacity;
        b->at = at;
        b->capacity = grown;
    }
    if (n) memcpy(b->at + b->size, p, n);
    b->size += n;
    return 0;
}

void rb_bytes_free(struct rb_bytes *b, struct rb_budget *budget) {
    budget->used -= b->capacity;
    free(b->at);
    *b = (struct rb_bytes){NULL, 0, 0};
}

/* Bytes of the head of a term with this tag, which say all that follows; 0: there is no such tag in a signal. */
static size_t head_size(uint8_t tag) {
    switch (tag) {
    case RB_TAG_NIL:
    case RB_TAG_NEW_FLOAT:
    case RB_TAG_FLOAT:
    case RB_TAG_EXPORT:
    case RB_TAG_NEW_PID:
    case RB_TAG_PID:
    case RB_TAG_NEW_PORT:
    case RB_TAG_PORT:
    case RB_TAG_V4_PORT:
    case RB_TAG_REFERENCE: return 1;
    case RB_TAG_CACHE_REFERENCE:
    case RB_TAG_SMALL_INTEGER:
    case RB_TAG_SMALL_ATOM:
    case RB_TAG_SMALL_ATOM_UTF8:
    case RB_TAG_SMALL_TUPLE: return 2;
    case RB_TAG_ATOM:
    case RB_TAG_ATOM_UTF8:
    case RB_TAG_STRING:
    case RB_TAG_SMALL_BIG:
    case RB_TAG_NEWER_REFERENCE:
    case RB_TAG_NEW_REFERENCE: return 3;
    case RB_TAG_INTEGER:
    case RB_TAG_BINARY:
    case RB_TAG_LARGE_TUPLE:
    case RB_TAG_LIST:
    case RB_TAG_MAP: return 5;
    case RB_TAG_BIT_BINARY:
    case RB_TAG_LARGE_BIG:
    case RB_TAG_RECORD: return 6;
    case RB_TAG_NEW_FUN: return 1 + 4 + 1 + 16 + 4 + 4;
    default: return 0;
    }
}

static int is_atom(uint8_t tag) {
    return tag == RB_TAG_CACHE_REFERENCE || tag == RB_TAG_SMALL_ATOM_UTF8 ||
           tag == RB_TAG_ATOM_UTF8 || tag == RB_TAG_SMALL_ATOM || tag == RB_TAG_ATOM;
}

/* A pid, port or reference: its node is the next head, `numbers` bytes follow that. */
static void with_node(struct rb_expander *e, uint32_t numbers) {
    e->node = 1;
    e->numbers = numbers;
}

/* What follows a head, noted down. */
static int enter(struct rb_expander *e, const uint8_t *p) {
    switch (p[0]) {
    case RB_TAG_NEW_FLOAT: e->raw = 8; break;
    case RB_TAG_FLOAT: e->raw = 31; break;
    case RB_TAG_SMALL_ATOM:
    case RB_TAG_SMALL_ATOM_UTF8: e->raw = p[1]; break;
    case RB_TAG_ATOM:
    case RB_TAG_ATOM_UTF8:
    case RB_TAG_STRING: e->raw = rb_be16(p + 1); break;
    case RB_TAG_SMALL_BIG: e->raw = p[1]; break;
    case RB_TAG_BINARY:
    case RB_TAG_BIT_BINARY:
    case RB_TAG_LARGE_BIG: e->raw = rb_be32(p + 1); break;
    case RB_TAG_SMALL_TUPLE: e->terms += p[1]; break;
    case RB_TAG_LARGE_TUPLE: e->terms += rb_be32(p + 1); break;
    case RB_TAG_LIST: e->terms += (uint64_t)rb_be32(p + 1) + 1; break;
    case RB_TAG_MAP: e->terms += 2 * (uint64_t)rb_be32(p + 1); break;
    case RB_TAG_EXPORT: e->terms += 3; break;
    case RB_TAG_NEW_FUN: e->terms += 4 + (uint64_t)rb_be32(p + 26); break;
    case RB_TAG_RECORD: e->terms += 2 + 2 * (uint64_t)rb_be32(p + 1); break;
    case RB_TAG_NEW_PID:
    case RB_TAG_V4_PORT: with_node(e, 12); break;
    case RB_TAG_PID: with_node(e, 9); break;
    case RB_TAG_NEW_PORT: with_node(e, 8); break;
    case RB_TAG_PORT:
    case RB_TAG_REFERENCE: with_node(e, 5); break;
    case RB_TAG_NEWER_REFERENCE:
    case RB_TAG_NEW_REFERENCE:
        if (rb_be16(p + 1) > 5) return -EPROTO;
        with_node(e, 4u * rb_be16(p + 1) + (p[0] == RB_TAG_NEWER_REFERENCE ? 4 : 1));
        break;
    default: break;
    }
    return 0;
}

/* Funs that have ended are told their new size. */
static void end_funs(struct rb_expander *e, struct rb_bytes *out) {
    while (e->funs && e->terms == e->fun[e->funs - 1].until) {
        size_t at = e->fun[--e->funs].at;
        rb_put_be32(out->at + at, (uint32_t)(out->size - at));
    }
}

/* One head at `p`; what it says of itself is copied by the caller. */
static int head(struct rb_expander *e, const uint8_t *p, size_t fun_at) {
    if (e->node) {
        if (!is_atom(p[0])) return -EPROTO;
        e->node = 0;
        enter(e, p);
        e->raw += e->numbers;
        return 0;
    }
    e->terms--;
    if (p[0] == RB_TAG_NEW_FUN && e->funs < RB_EXPAND_FUNS) {
        e->fun[e->funs].at = fun_at;
        e->fun[e->funs++].until = e->terms;
    }
    return enter(e, p);
}

/* Between two heads: is another one to come? A third root is none: what follows a payload is nobody's. */
static int goes_on(struct rb_expander *e) {
    if (e->terms > 0 || e->node) return 1;
    if (e->roots == 2) return 0;
    e->roots++;
    e->terms = 1;
    return 1;
}

int rb_expand(struct rb_expander *e, const uint8_t *p, size_t n, struct rb_bytes *out,
              struct rb_budget *budget) {
    const uint8_t *run = p, *end = p + n;
    int rc;
    for (;;) {
        if (e->raw > 0) {
            uint64_t pass = (uint64_t)(end - p) < e->raw ? (uint64_t)(end - p) : e->raw;
            p += pass;
            e->raw -= pass;
        }
        if (e->funs && e->raw == 0 && !e->node && e->held_size == 0 &&
            e->terms == e->fun[e->funs - 1].until) {
            if ((rc = rb_bytes_put(out, budget, run, (size_t)(p - run))) < 0) return rc;
            run = p;
            end_funs(e, out);
        }
        if (p == end) break;
        if (!goes_on(e)) {
            p = end;
            break;
        }
        const uint8_t *at = p;
        size_t wants = head_size(e->held_size ? e->held[0] : p[0]);
        if (wants == 0) return -EPROTO;
        if (e->held_size || (size_t)(end - p) < wants) {
            /* The head is cut: it is put together aside. */
            if ((rc = rb_bytes_put(out, budget, run, (size_t)(p - run))) < 0) return rc;
            while (p < end && e->held_size < wants) e->held[e->held_size++] = *p++;
            run = p;
            if (e->held_size < wants) break;
            e->held_size = 0;
            at = e->held;
        } else {
            p += wants;
        }
        size_t written = out->size + (at == e->held ? 0 : (size_t)(at - run));
        if ((rc = head(e, at, written + 1)) < 0) return rc;
        if (at[0] == RB_TAG_CACHE_REFERENCE) {
            if (at[1] >= e->atoms->count) return -EPROTO;
            const struct rb_cached_atom *atom = e->atoms->atom[at[1]];
            if (at != e->held && (rc = rb_bytes_put(out, budget, run, (size_t)(at - run))) < 0)
                return rc;
            if ((rc = rb_bytes_put(out, budget, atom->term, atom->size)) < 0) return rc;
            run = p;
        } else if (at == e->held) {
            if ((rc = rb_bytes_put(out, budget, at, wants)) < 0) return rc;
        }
    }
    return rb_bytes_put(out, budget, run, (size_t)(p - run));
}
