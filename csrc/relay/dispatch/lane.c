/* lane.c: the rows of jobs that share a key, by its hash (lane.h). */
#include "relay/dispatch/lane.h"

#include <stdlib.h>

enum { LANES_A_CHUNK = 256, BUCKETS_FIRST = 256 };

static struct rb_lane **bucket(const struct rb_lanes *t, uint64_t key) {
    return &t->buckets[key & (t->bucket_count - 1)];
}

/* Twice as many buckets. Without memory the rows grow longer: no harm but time. */
static void widen(struct rb_lanes *t) {
    struct rb_lanes wider = {.bucket_count = t->bucket_count ? 2 * t->bucket_count : BUCKETS_FIRST};
    wider.buckets = calloc(wider.bucket_count, sizeof(*wider.buckets));
    if (!wider.buckets) return;
    for (uint32_t i = 0; i < t->bucket_count; i++) {
        while (t->buckets[i]) {
            struct rb_lane *lane = t->buckets[i];
            t->buckets[i] = lane->next;
            lane->next = *bucket(&wider, lane->key);
            *bucket(&wider, lane->key) = lane;
        }
    }
    free(t->buckets);
    t->buckets = wider.buckets;
    t->bucket_count = wider.bucket_count;
}

static void make_free(struct rb_lanes *t) {
    struct rb_lane **chunks = realloc(t->chunks, (t->chunk_count + 1) * sizeof(*chunks));
    if (!chunks) return;
    t->chunks = chunks;
    struct rb_lane *chunk = calloc(LANES_A_CHUNK, sizeof(*chunk));
    if (!chunk) return;
    t->chunks[t->chunk_count++] = chunk;
    for (uint32_t i = 0; i < LANES_A_CHUNK; i++) {
        chunk[i].next = t->free;
        t->free = &chunk[i];
    }
}

static struct rb_lane *lane_of(struct rb_lanes *t, uint64_t key) {
    if (t->count >= t->bucket_count) widen(t);
    if (!t->buckets) return &t->common;
    struct rb_lane *lane = *bucket(t, key);
    while (lane && lane->key != key) lane = lane->next;
    if (lane) return lane;
    /* As long as anyone of this key may be in the common row, it is the row of this key: order before speed. */
    if (t->common.first) return &t->common;
    if (!t->free) make_free(t);
    if (!t->free) return &t->common;
    lane = t->free;
    t->free = lane->next;
    *lane = (struct rb_lane){.key = key, .next = *bucket(t, key)};
    *bucket(t, key) = lane;
    t->count++;
    return lane;
}

int rb_lane_join(struct rb_lanes *t, struct rb_laned *j, uint64_t key) {
    struct rb_lane *lane = lane_of(t, key);
    j->lane = lane;
    j->next = NULL;
    j->prev = lane->last;
    if (j->prev)
        j->prev->next = j;
    else
        lane->first = j;
    lane->last = j;
    return lane->first == j;
}

static void forget(struct rb_lanes *t, struct rb_lane *lane) {
    if (lane == &t->common) return;
    struct rb_lane **at = bucket(t, lane->key);
    while (*at != lane) at = &(*at)->next;
    *at = lane->next;
    lane->next = t->free;
    t->free = lane;
    t->count--;
}

struct rb_laned *rb_lane_leave(struct rb_lanes *t, struct rb_laned *j) {
    struct rb_lane *lane = j->lane;
    int first = lane->first == j;
    if (j->next)
        j->next->prev = j->prev;
    else
        lane->last = j->prev;
    if (j->prev)
        j->prev->next = j->next;
    else
        lane->first = j->next;
    *j = (struct rb_laned){.lane = NULL};
    struct rb_laned *next = lane->first;
    if (!next) forget(t, lane);
    return first ? next : NULL;
}

void rb_lanes_fini(struct rb_lanes *t) {
    for (uint32_t i = 0; i < t->chunk_count; i++) free(t->chunks[i]);
    free(t->chunks);
    free(t->buckets);
    *t = (struct rb_lanes){.buckets = NULL};
}
