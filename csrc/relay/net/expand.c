#include "relay/net/expand.h"

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

/* Funs that have ended are told their new size. */
static void end_funs(struct rb_expander *e, struct rb_bytes *out) {
    while (e->funs && e->walk.terms == e->fun[e->funs - 1].until) {
        size_t at = e->fun[--e->funs].at;
        rb_put_be32(out->at + at, (uint32_t)(out->size - at));
    }
}

/* One head at `p`; what it says of itself is copied by the caller. */
static int head(struct rb_expander *e, const uint8_t *p, size_t fun_at) {
    if (p[0] == RB_TAG_NEW_FUN && !e->walk.node && e->funs < RB_EXPAND_FUNS) {
        e->fun[e->funs].at = fun_at;
        e->fun[e->funs++].until = e->walk.terms - 1;
    }
    return rb_walk_head(&e->walk, p);
}

int rb_expand(struct rb_expander *e, const uint8_t *p, size_t n, struct rb_bytes *out,
              struct rb_budget *budget) {
    const uint8_t *run = p, *end = p + n;
    int rc;
    for (;;) {
        if (e->walk.raw > 0) {
            uint64_t pass = (uint64_t)(end - p) < e->walk.raw ? (uint64_t)(end - p) : e->walk.raw;
            p += pass;
            e->walk.raw -= pass;
        }
        if (e->funs && e->walk.raw == 0 && !e->walk.node && e->held_size == 0 &&
            e->walk.terms == e->fun[e->funs - 1].until) {
            if ((rc = rb_bytes_put(out, budget, run, (size_t)(p - run))) < 0) return rc;
            run = p;
            end_funs(e, out);
        }
        if (p == end) break;
        if (!rb_walk_on(&e->walk)) {
            p = end;
            break;
        }
        const uint8_t *at = p;
        size_t wants = rb_walk_head_size(e->held_size ? e->held[0] : p[0]);
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
