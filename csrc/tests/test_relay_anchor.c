/* test_relay_anchor.c: whose key it is: against a model that keeps whole sets, and how many keys move (relay/dispatch/anchor.h). */
#include "relay/dispatch/anchor.h"

#include "check.h"

enum { MEMBERS = 1000, KEYS = 40000 };

static struct rb_anchor anchor;
static struct rb_anchor_member members[MEMBERS];
static int before[KEYS];

static void begin(void) {
    rb_anchor_init(&anchor);
    memset(members, 0, sizeof members);
}

static uint64_t key_of(uint32_t i) {
    uint64_t state = (uint64_t)i * 2654435761u + 1;
    return check_random(&state) ^ check_random(&state) << 1;
}

static int owner_of(uint64_t key) {
    const struct rb_anchor_member *m = rb_anchor_owner(&anchor, key);
    return m ? (int)(m - members) : -1;
}

static void note_owners(void) {
    for (uint32_t i = 0; i < KEYS; i++) before[i] = owner_of(key_of(i));
}

static void nobody_has_keys_where_nobody_works(void) {
    begin();
    CHECK(owner_of(17) == -1);
    rb_anchor_set(&anchor, &members[0], 1);
    CHECK(owner_of(17) == 0);
    rb_anchor_set(&anchor, &members[0], 0);
    CHECK(owner_of(17) == -1);
}

/* Moved keys of all, and whether each that moved came from or went to `i`. */
static uint32_t moved(int i, int *only_its) {
    uint32_t count = 0;
    *only_its = 1;
    for (uint32_t k = 0; k < KEYS; k++) {
        int now = owner_of(key_of(k));
        if (now == before[k]) continue;
        count++;
        if (now != i && before[k] != i) *only_its = 0;
    }
    return count;
}

static void a_worker_that_comes_or_goes_moves_its_own_keys_alone(void) {
    static const uint32_t sizes[] = {1, 2, 3, 10, 100, 1000};
    for (uint32_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
        uint32_t n = sizes[s];
        int only_its;
        begin();
        for (uint32_t i = 0; i + 1 < n; i++) rb_anchor_set(&anchor, &members[i], 1);
        note_owners();
        rb_anchor_set(&anchor, &members[n - 1], 1);
        uint32_t came = moved((int)n - 1, &only_its);
        CHECK(only_its);
        /* An even share, to within a third: 40 keys each of a thousand spread by about 6. */
        CHECK(came >= KEYS / n / 3 && came <= KEYS / n * 5 / 3);

        note_owners();
        uint32_t victim = n / 2;
        rb_anchor_set(&anchor, &members[victim], 0);
        uint32_t went = moved((int)victim, &only_its);
        CHECK(only_its);
        CHECK(went <= KEYS / n * 5 / 3);
        printf("    %4u workers: one that comes moves %.2f %% of all keys, one that goes %.2f %% "
               "(the least: %.2f %%)\n",
               n, 100.0 * came / KEYS, 100.0 * went / KEYS, 100.0 / n);
        /* The one that is started in its stead has the same keys. */
        rb_anchor_set(&anchor, &members[victim], 1);
        CHECK_EQUAL(moved(-1, &only_its), 0);
    }
}

static void keys_are_spread_evenly_and_by_weight(void) {
    uint32_t got[16] = {0};
    begin();
    for (uint32_t i = 0; i < 16; i++) rb_anchor_set(&anchor, &members[i], i < 8 ? 1 : 3);
    for (uint32_t k = 0; k < KEYS; k++) got[owner_of(key_of(k))]++;
    for (uint32_t i = 0; i < 16; i++) {
        uint32_t fair = KEYS * (i < 8 ? 1u : 3u) / 32;
        CHECK(got[i] > fair * 4 / 5 && got[i] < fair * 6 / 5);
    }
    note_owners();
    int only_its;
    rb_anchor_set(&anchor, &members[3], 2); /* a weight that changes */
    uint32_t count = moved(3, &only_its);
    CHECK(only_its && count > 0 && count < KEYS / 33 * 5 / 3);
}

static void no_more_buckets_are_given_than_there_are(void) {
    begin();
    rb_anchor_set(&anchor, &members[0], 5000);
    CHECK_EQUAL(members[0].count, RB_ANCHOR_BUCKETS);
    rb_anchor_set(&anchor, &members[1], 1);
    CHECK_EQUAL(members[1].count, 0);
    CHECK(owner_of(5) == 0);
    rb_anchor_set(&anchor, &members[0], 0);
    CHECK_EQUAL(anchor.working, 0);
    rb_anchor_set(&anchor, &members[1], 1);
    CHECK(owner_of(5) == 1);
}

/* --- Against a model that keeps, for each bucket that has gone, all that worked then ------------------------------------- */

enum { MODEL_MEMBERS = 12 };
static uint16_t worked[RB_ANCHOR_BUCKETS][RB_ANCHOR_BUCKETS];

static void what_a_bucket_left_behind_is_what_a_look_finds(void) {
    uint64_t state = 42;
    begin();
    /* After each removal the model copies the whole order of those that work; a look follows these copies alone. */
    for (uint32_t step = 0; step < 4000; step++) {
        struct rb_anchor_member *m = &members[check_random(&state) % MODEL_MEMBERS];
        uint32_t count = check_random(&state) % 4;
        while (m->count > count) {
            uint16_t b = m->first;
            rb_anchor_set(&anchor, m, m->count - 1u);
            memcpy(worked[b], anchor.at, anchor.working * sizeof *anchor.at);
            CHECK_EQUAL(anchor.left[b], anchor.working);
        }
        rb_anchor_set(&anchor, m, count);

        uint32_t held = 0;
        for (uint32_t i = 0; i < MODEL_MEMBERS; i++) held += members[i].count;
        CHECK_EQUAL(held, anchor.working);
        for (uint32_t i = 0; i < anchor.working; i++) {
            CHECK(anchor.owner[anchor.at[i]] != NULL);
            CHECK_EQUAL(anchor.place[anchor.at[i]], i);
        }
        /* Each bucket that has gone since the start names the same one at each place as the copy does. */
        for (uint32_t b = 0; b < RB_ANCHOR_BUCKETS && anchor.working; b++) {
            if (anchor.owner[b] || b >= 3 * MODEL_MEMBERS) continue;
            int ever = anchor.left[b] != b || worked[b][0] != 0;
            for (uint32_t i = 0; ever && i < anchor.left[b]; i++) {
                uint32_t h = i;
                while (!anchor.owner[h] && anchor.left[h] >= anchor.left[b]) h = anchor.heir[h];
                CHECK_EQUAL(h, worked[b][i]);
            }
        }
    }
}

int main(void) {
    RUN(nobody_has_keys_where_nobody_works);
    RUN(a_worker_that_comes_or_goes_moves_its_own_keys_alone);
    RUN(keys_are_spread_evenly_and_by_weight);
    RUN(no_more_buckets_are_given_than_there_are);
    RUN(what_a_bucket_left_behind_is_what_a_look_finds);
    return check_end();
}
