#include "relay/net/walk.h"

#include <errno.h>

#include "relay/net/cache.h"
#include "ringbridge/term.h"

size_t rb_walk_head_size(uint8_t tag) {
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
static void with_node(struct rb_walk *w, uint32_t numbers) {
    w->node = 1;
    w->numbers = numbers;
}

/* What follows a head whose place in its term has been counted. */
static int enter(struct rb_walk *w, const uint8_t *p) {
    switch (p[0]) {
    case RB_TAG_NEW_FLOAT: w->raw = 8; break;
    case RB_TAG_FLOAT: w->raw = 31; break;
    case RB_TAG_SMALL_ATOM:
    case RB_TAG_SMALL_ATOM_UTF8: w->raw = p[1]; break;
    case RB_TAG_ATOM:
    case RB_TAG_ATOM_UTF8:
    case RB_TAG_STRING: w->raw = rb_be16(p + 1); break;
    case RB_TAG_SMALL_BIG: w->raw = p[1]; break;
    case RB_TAG_BINARY:
    case RB_TAG_BIT_BINARY:
    case RB_TAG_LARGE_BIG: w->raw = rb_be32(p + 1); break;
    case RB_TAG_SMALL_TUPLE: w->terms += p[1]; break;
    case RB_TAG_LARGE_TUPLE: w->terms += rb_be32(p + 1); break;
    case RB_TAG_LIST: w->terms += (uint64_t)rb_be32(p + 1) + 1; break;
    case RB_TAG_MAP: w->terms += 2 * (uint64_t)rb_be32(p + 1); break;
    case RB_TAG_EXPORT: w->terms += 3; break;
    case RB_TAG_NEW_FUN: w->terms += 4 + (uint64_t)rb_be32(p + 26); break;
    case RB_TAG_RECORD: w->terms += 2 + 2 * (uint64_t)rb_be32(p + 1); break;
    case RB_TAG_NEW_PID:
    case RB_TAG_V4_PORT: with_node(w, 12); break;
    case RB_TAG_PID: with_node(w, 9); break;
    case RB_TAG_NEW_PORT: with_node(w, 8); break;
    case RB_TAG_PORT:
    case RB_TAG_REFERENCE: with_node(w, 5); break;
    case RB_TAG_NEWER_REFERENCE:
    case RB_TAG_NEW_REFERENCE:
        if (rb_be16(p + 1) > 5) return -EPROTO;
        with_node(w, 4u * rb_be16(p + 1) + (p[0] == RB_TAG_NEWER_REFERENCE ? 4 : 1));
        break;
    default: break;
    }
    return 0;
}

int rb_walk_head(struct rb_walk *w, const uint8_t *p) {
    if (!w->node) {
        w->terms--;
        return enter(w, p);
    }
    if (!is_atom(p[0])) return -EPROTO;
    w->node = 0;
    enter(w, p);
    w->raw += w->numbers;
    return 0;
}

int rb_walk_on(struct rb_walk *w) {
    if (w->terms > 0 || w->node) return 1;
    if (w->roots == 2) return 0;
    w->roots++;
    w->terms = 1;
    return 1;
}
