/* row.c: the rows of jobs that share a key, by its hash (row.h). */
#include "relay/dispatch/row.h"

#include <stdlib.h>

enum { ROWS_A_CHUNK = 256, BUCKETS_FIRST = 256 };

static struct rb_row **bucket(const struct rb_rows *t, uint64_t key) {
    return &t->buckets[key & (t->bucket_count - 1)];
}

/* Twice as many buckets. Without memory the rows grow longer: no harm but time. */
static void widen(struct rb_rows *t) {
    struct rb_rows wider = {.bucket_count = t->bucket_count ? 2 * t->bucket_count : BUCKETS_FIRST};
    wider.buckets = calloc(wider.bucket_count, sizeof(*wider.buckets));
    if (!wider.buckets) return;
    for (uint32_t i = 0; i < t->bucket_count; i++) {
        while (t->buckets[i]) {
            struct rb_row *row = t->buckets[i];
            t->buckets[i] = row->next;
            row->next = *bucket(&wider, row->key);
            *bucket(&wider, row->key) = row;
        }
    }
    free(t->buckets);
    t->buckets = wider.buckets;
    t->bucket_count = wider.bucket_count;
}

static void make_free(struct rb_rows *t) {
    struct rb_row **chunks = realloc(t->chunks, (t->chunk_count + 1) * sizeof(*chunks));
    if (!chunks) return;
    t->chunks = chunks;
    struct rb_row *chunk = calloc(ROWS_A_CHUNK, sizeof(*chunk));
    if (!chunk) return;
    t->chunks[t->chunk_count++] = chunk;
    for (uint32_t i = 0; i < ROWS_A_CHUNK; i++) {
        chunk[i].next = t->free;
        t->free = &chunk[i];
    }
}

static struct rb_row *row_of(struct rb_rows *t, uint64_t key) {
    if (t->count >= t->bucket_count) widen(t);
    if (!t->buckets) return &t->common;
    struct rb_row *row = *bucket(t, key);
    while (row && row->key != key) row = row->next;
    if (row) return row;
    /* As long as anyone of this key may be in the common row, it is the row of this key: order before speed. */
    if (t->common.first) return &t->common;
    if (!t->free) make_free(t);
    if (!t->free) return &t->common;
    row = t->free;
    t->free = row->next;
    *row = (struct rb_row){.key = key, .next = *bucket(t, key)};
    *bucket(t, key) = row;
    t->count++;
    return row;
}

int rb_row_join(struct rb_rows *t, struct rb_in_row *j, uint64_t key) {
    struct rb_row *row = row_of(t, key);
    j->row = row;
    j->next = NULL;
    j->prev = row->last;
    if (j->prev)
        j->prev->next = j;
    else
        row->first = j;
    row->last = j;
    return row->first == j;
}

static void forget(struct rb_rows *t, struct rb_row *row) {
    if (row == &t->common) return;
    struct rb_row **at = bucket(t, row->key);
    while (*at != row) at = &(*at)->next;
    *at = row->next;
    row->next = t->free;
    t->free = row;
    t->count--;
}

struct rb_in_row *rb_row_leave(struct rb_rows *t, struct rb_in_row *j) {
    struct rb_row *row = j->row;
    int first = row->first == j;
    if (j->next)
        j->next->prev = j->prev;
    else
        row->last = j->prev;
    if (j->prev)
        j->prev->next = j->next;
    else
        row->first = j->next;
    *j = (struct rb_in_row){.row = NULL};
    struct rb_in_row *next = row->first;
    if (!next) forget(t, row);
    return first ? next : NULL;
}

void rb_rows_fini(struct rb_rows *t) {
    for (uint32_t i = 0; i < t->chunk_count; i++) free(t->chunks[i]);
    free(t->chunks);
    free(t->buckets);
    *t = (struct rb_rows){.buckets = NULL};
}
