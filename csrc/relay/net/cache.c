#include "relay/net/cache.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "ringbridge/term.h"

void rb_cached_atom_release(struct rb_cached_atom *a) {
    if (a && --a->owners == 0) free(a);
}

void rb_cache_free(struct rb_atom_cache *cache) {
    for (int i = 0; cache && i < RB_CACHE_SLOTS; i++) rb_cached_atom_release(cache->slot[i]);
    free(cache);
}

void rb_atom_list_clear(struct rb_atom_list *list) {
    for (uint32_t i = 0; i < list->count; i++) rb_cached_atom_release(list->atom[i]);
    list->count = 0;
}

struct rb_atom_list *rb_atom_list_move(struct rb_atom_list *list) {
    size_t size = offsetof(struct rb_atom_list, atom) + list->count * sizeof *list->atom;
    struct rb_atom_list *own = malloc(size);
    if (!own) return NULL;
    memcpy(own, list, size);
    list->count = 0;
    return own;
}

void rb_atom_list_free(struct rb_atom_list *list) {
    if (list) rb_atom_list_clear(list);
    free(list);
}

int rb_cached_atom_enter(struct rb_cached_atom **slot, const uint8_t *text, size_t size) {
    size_t head = size > 255 ? 3 : 2;
    struct rb_cached_atom *a = *slot;
    if (!a || a->owners > 1 || a->capacity < head + size) {
        size_t capacity = head + size < 32 ? 32 : head + size;
        struct rb_cached_atom *fresh = malloc(sizeof *fresh + capacity);
        if (!fresh) return -ENOMEM;
        fresh->owners = 1;
        fresh->capacity = (uint16_t)capacity;
        rb_cached_atom_release(a);
        *slot = a = fresh;
    }
    a->size = (uint16_t)(head + size);
    if (head == 2) {
        a->term[0] = RB_TAG_SMALL_ATOM_UTF8;
        a->term[1] = (uint8_t)size;
    } else {
        a->term[0] = RB_TAG_ATOM_UTF8;
        rb_put_be16(a->term + 1, (uint16_t)size);
    }
    if (size) memcpy(a->term + head, text, size);
    return 0;
}

static unsigned nibble(const uint8_t *flags, unsigned i) {
    return flags[i / 2] >> 4 * (i % 2) & 15;
}

/* Where the references end, without touching anything: 0 when they are not all here. */
static int64_t measure(const uint8_t *p, size_t have, uint64_t length) {
    unsigned count = p[0];
    size_t at = 1 + count / 2 + 1;
    if (length < at) return -EPROTO;
    if (have < at) return 0;
    const uint8_t *flags = p + 1;
    size_t length_bytes = nibble(flags, count) & 1 ? 2 : 1;
    for (unsigned i = 0; i < count; i++) {
        size_t needs = nibble(flags, i) & 8 ? 1 + length_bytes : 1;
        if (length - at < needs) return -EPROTO;
        if (have - at < needs) return 0;
        if (needs > 1) {
            size_t size = length_bytes == 2 ? rb_be16(p + at + 1) : p[at + 1];
            if (size > RB_ATOM_BYTES_MAX) return -EPROTO;
            needs += size;
            if (length - at < needs) return -EPROTO;
            if (have - at < needs) return 0;
        }
        at += needs;
    }
    return (int64_t)at;
}

int64_t rb_cache_header(struct rb_atom_cache *cache, struct rb_atom_list *list, const uint8_t *p,
                        size_t have, uint64_t length) {
    if (have > length) have = (size_t)length;
    if (length < 1) return -EPROTO;
    if (have < 1) return 0;
    unsigned count = p[0];
    if (count == 0) return 1;
    int64_t size = measure(p, have, length);
    if (size <= 0) return size;
    const uint8_t *flags = p + 1, *at = flags + count / 2 + 1;
    size_t length_bytes = nibble(flags, count) & 1 ? 2 : 1;
    for (unsigned i = 0; i < count; i++) {
        unsigned how = nibble(flags, i);
        struct rb_cached_atom **slot = &cache->slot[(how & 7) << 8 | *at++];
        if (how & 8) {
            size_t text = length_bytes == 2 ? rb_be16(at) : *at;
            at += length_bytes;
            if (rb_cached_atom_enter(slot, at, text) < 0) return -ENOMEM;
            at += text;
        } else if (!*slot) {
            return -EPROTO;
        }
        (*slot)->owners++;
        list->atom[list->count++] = *slot;
    }
    return size;
}
