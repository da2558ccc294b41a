/* share.c: the rows of tenants in the bands of queues, found by hash, taken back when idle. */
#include "relay/dispatch/share.h"

#include <errno.h>
#include <stdlib.h>

enum { BUCKETS = 1024, ROWS_A_CHUNK = 64 };

int rb_shares_init(struct rb_shares *s, uint32_t rows_max) {
    uint32_t chunks = (rows_max + ROWS_A_CHUNK - 1) / ROWS_A_CHUNK;
    *s = (struct rb_shares){.rows_max = chunks * ROWS_A_CHUNK};
    s->buckets = calloc(BUCKETS, sizeof *s->buckets);
    s->chunks = calloc(chunks ? chunks : 1, sizeof *s->chunks);
    if (s->buckets && s->chunks) return 0;
    free(s->buckets);
    free(s->chunks);
    return -ENOMEM;
}

void rb_shares_fini(struct rb_shares *s) {
    for (uint32_t i = 0; i < s->chunk_count; i++) free(s->chunks[i]);
    free(s->chunks);
    free(s->buckets);
    *s = (struct rb_shares){0};
}

static struct rb_share **bucket_of(const struct rb_shares *s, uint64_t band, uint64_t owner) {
    uint64_t hash = (band * 64 + owner) * 0x9e3779b97f4a7c15ull;
    return &s->buckets[hash >> 54];
}

static void leave_idle(struct rb_shares *s, struct rb_share *row) {
    *(row->older ? &row->older->younger : &s->oldest_idle) = row->younger;
    *(row->younger ? &row->younger->older : &s->youngest_idle) = row->older;
    row->older = row->younger = NULL;
}

void rb_share_idle(struct rb_shares *s, struct rb_share *row) {
    row->older = s->youngest_idle;
    row->younger = NULL;
    *(s->youngest_idle ? &s->youngest_idle->younger : &s->oldest_idle) = row;
    s->youngest_idle = row;
}

static void grow(struct rb_shares *s) {
    if (s->chunk_count * ROWS_A_CHUNK >= s->rows_max) return;
    struct rb_share *chunk = calloc(ROWS_A_CHUNK, sizeof *chunk);
    if (!chunk) return;
    s->chunks[s->chunk_count++] = chunk;
    for (uint32_t i = ROWS_A_CHUNK; i-- > 0;) {
        chunk[i].next = s->free;
        s->free = &chunk[i];
    }
}

/* A free row; else the one that has been idle for longest, whose tag is then forgotten. */
static struct rb_share *take_row(struct rb_shares *s) {
    if (!s->free) grow(s);
    struct rb_share *row = s->free;
    if (row) {
        s->free = row->next;
        return row;
    }
    row = s->oldest_idle;
    if (!row) return NULL;
    leave_idle(s, row);
    struct rb_share **at = bucket_of(s, row->band, row->owner);
    while (*at != row) at = &(*at)->next;
    *at = row->next;
    return row;
}

struct rb_share *rb_share_of(struct rb_shares *s, uint64_t band, uint64_t owner) {
    struct rb_share **bucket = bucket_of(s, band, owner);
    for (struct rb_share *row = *bucket; row; row = row->next) {
        if (row->band != band || row->owner != owner) continue;
        if (row->count == 0) leave_idle(s, row);
        return row;
    }
    struct rb_share *row = take_row(s);
    if (!row) return NULL;
    *row = (struct rb_share){.band = band, .owner = owner, .next = *bucket};
    *bucket = row;
    return row;
}
