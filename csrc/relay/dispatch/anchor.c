/* anchor.c: consistent hashing over a fixed anchor of buckets (anchor.h names the paper; A, W, L, K, R, N are its names). */
#include "relay/dispatch/anchor.h"

/* Evenly 0 .. bound - 1, by key and round. The mixer is splitmix64's. */
static uint32_t hash(uint64_t key, uint64_t round, uint32_t bound) {
    uint64_t z = key + (round + 1) * 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    z ^= z >> 31;
    return (uint32_t)((z >> 32) * bound >> 32);
}

void rb_anchor_init(struct rb_anchor *a) {
    a->working = 0;
    a->spare = RB_ANCHOR_BUCKETS;
    for (uint32_t b = 0; b < RB_ANCHOR_BUCKETS; b++) {
        a->at[b] = a->place[b] = a->heir[b] = a->left[b] = (uint16_t)b;
        a->reserve[RB_ANCHOR_BUCKETS - 1 - b] =
            (uint16_t)b; /* gone in turn, bucket 0 as the last */
        a->owner[b] = 0;
    }
}

/* ADDBUCKET */
static void add(struct rb_anchor *a, struct rb_anchor_member *m) {
    uint16_t b = a->reserve[--a->spare];
    a->left[b] = 0;
    a->place[a->at[a->working]] = (uint16_t)a->working;
    a->at[a->place[b]] = b;
    a->heir[b] = b;
    a->working++;
    a->owner[b] = m;
    a->next[b] = m->first;
    m->first = b;
    m->count++;
}

/* REMOVEBUCKET */
static void take_away(struct rb_anchor *a, struct rb_anchor_member *m) {
    uint16_t b = m->first;
    m->first = a->next[b];
    m->count--;
    a->owner[b] = 0;
    a->reserve[a->spare++] = b;
    a->working--;
    a->left[b] = (uint16_t)a->working;
    a->heir[b] = a->at[a->working];
    a->at[a->place[b]] = a->heir[b];
    a->place[a->heir[b]] = a->place[b];
}

void rb_anchor_set(struct rb_anchor *a, struct rb_anchor_member *m, uint32_t count) {
    while (m->count < count && a->spare > 0) add(a, m);
    while (m->count > count) take_away(a, m);
}

/* GETBUCKET */
struct rb_anchor_member *rb_anchor_owner(const struct rb_anchor *a, uint64_t key) {
    if (a->working == 0) return 0;
    uint32_t b = hash(key, RB_ANCHOR_BUCKETS, RB_ANCHOR_BUCKETS);
    while (!a->owner[b]) {
        /* Among those that worked when b had gone; what stood there and has gone before b left its place to an heir. */
        uint32_t h = hash(key, b, a->left[b]);
        while (!a->owner[h] && a->left[h] >= a->left[b]) h = a->heir[h];
        b = h;
    }
    return a->owner[b];
}
