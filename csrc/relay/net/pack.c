#include "relay/net/pack.h"

#include <stdlib.h>
#include <string.h>

#include "relay/net/walk.h"
#include "ringbridge/term.h"

enum { FUNS = 16 };

void rb_taught_free(struct rb_taught *t) {
    for (int i = 0; t && i < RB_PACK_SLOTS; i++) rb_cached_atom_release(t->slot[i].atom);
    free(t);
}

/* Of the length and the ends: in two looks, since each atom of each signal comes here. Atoms that are alike there share a slot. */
static uint32_t hash_of(const uint8_t *p, size_t n) {
    uint64_t first = 0, last = 0;
    size_t part = n < 8 ? n : 8;
    memcpy(&first, p, part);
    memcpy(&last, p + n - part, part);
    uint64_t h = (first ^ n) * 0x9e3779b97f4a7c15u ^ last * 0xc2b2ae3d27d4eb4fu;
    return (uint32_t)((h ^ h >> 29) * 0xbf58476d1ce4e5b9u >> 32);
}

/* The index of an atom in the header, or -1: it goes whole. */
static int refer(struct rb_taught *t, struct rb_packing *k, const uint8_t *text, size_t size) {
    if (size > RB_PACK_ATOM_BYTES_MAX) return -1;
    uint32_t number = hash_of(text, size) % RB_PACK_SLOTS;
    struct rb_cached_atom **atom = &t->slot[number].atom;
    int known = *atom && (*atom)->size == size + 2 && memcmp((*atom)->term + 2, text, size) == 0;
    if (t->slot[number].signal == t->signals) return known ? t->slot[number].index : -1;
    if (k->count == RB_CACHE_REFERENCES_MAX) return -1;
    if (!known && rb_cached_atom_enter(atom, text, size) < 0) return -1;
    k->how[k->count] = (uint8_t)(number >> 8 | (known ? 0 : 8));
    k->refs[k->refs_size++] = (uint8_t)number;
    if (!known) {
        k->refs[k->refs_size++] = (uint8_t)size;
        if (size) memcpy(k->refs + k->refs_size, text, size);
        k->refs_size += size;
    }
    t->slot[number].signal = t->signals;
    return t->slot[number].index = (uint8_t)k->count++;
}

static void put_header(struct rb_packing *k) {
    uint8_t *at = k->header;
    *at++ = (uint8_t)k->count;
    if (k->count > 0) {
        for (uint32_t i = 0; i <= k->count; i += 2) {
            unsigned low = i < k->count ? k->how[i] : 0,
                     high = i + 1 < k->count ? k->how[i + 1] : 0;
            *at++ = (uint8_t)(low | high << 4);
        }
        memcpy(at, k->refs, k->refs_size);
        at += k->refs_size;
    }
    k->size = (size_t)(at - k->header);
}

/* A fun tells its own size, which shrinks by what its atoms do. */
struct fun {
    const uint8_t *in; /* its size, in the input */
    uint8_t *out;
    uint64_t until; /* heads that are to come when it has ended */
};
static void end_fun(const struct fun *f, const uint8_t *in, const uint8_t *out) {
    size_t shrunk = (size_t)(in - f->in) - (size_t)(out - f->out);
    rb_put_be32(f->out, rb_be32(f->in) - (uint32_t)shrunk);
}

size_t rb_pack(struct rb_taught *t, struct rb_packing *k, const uint8_t *p, size_t n, size_t walk,
               uint8_t *out) {
    const uint8_t *run = p, *end = p + n, *stop = n < walk ? end : p + walk;
    uint8_t *at = out;
    struct rb_walk w = {.raw = 0};
    struct fun fun[FUNS];
    unsigned funs = 0;
    k->count = 0;
    k->refs_size = 0;
    if (++t->signals == 0) { /* after four thousand million signals: no mark may look fresh */
        for (int i = 0; i < RB_PACK_SLOTS; i++) t->slot[i].signal = 0;
        t->signals = 1;
    }
    while (p < stop) {
        while (funs && w.raw == 0 && !w.node && w.terms == fun[funs - 1].until) {
            funs--;
            end_fun(&fun[funs], p, at + (p - run));
        }
        if (w.raw > (uint64_t)(stop - p)) break;
        p += w.raw;
        if (w.raw > 0) {
            w.raw = 0;
            continue;
        }
        size_t wants = rb_walk_head_size(*p);
        if (wants == 0 || wants > (size_t)(stop - p) || !rb_walk_on(&w)) break;
        if (*p == RB_TAG_NEW_FUN && !w.node) {
            if (funs == FUNS) break;
            /* The fun's head is copied now, so that its size has a place in the output. */
            memcpy(at, run, (size_t)(p + wants - run));
            at += p + wants - run;
            run = p + wants;
            fun[funs++] = (struct fun){p + 1, at - wants + 1, w.terms - 1};
        }
        if (rb_walk_head(&w, p) < 0) break;
        size_t size = *p == RB_TAG_SMALL_ATOM_UTF8 ? p[1]
                      : *p == RB_TAG_ATOM_UTF8     ? rb_be16(p + 1)
                                                   : SIZE_MAX;
        if (size <= (size_t)(stop - p) - wants) {
            int index = refer(t, k, p + wants, size);
            if (index >= 0) {
                memcpy(at, run, (size_t)(p - run));
                at += p - run;
                *at++ = RB_TAG_CACHE_REFERENCE;
                *at++ = (uint8_t)index;
                p += wants + size;
                w.raw -= size;
                run = p;
                continue;
            }
        }
        p += wants;
    }
    /* Those that have not ended shrink no more. */
    while (funs--) end_fun(&fun[funs], run, at);
    memcpy(at, run, (size_t)(end - run));
    put_header(k);
    return (size_t)(at - out) + (size_t)(end - run);
}
