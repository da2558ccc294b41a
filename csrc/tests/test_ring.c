/* The ring, rule by rule, in one thread; and its bytes under two threads (TSan is the judge of the
 * order). */
#include <pthread.h>

#include "check.h"
#include "ringbridge/ring.h"

enum { SLOTS = 8 };

struct pair {
    uint64_t tail, head; /* the shared words */
    uint64_t slot[SLOTS];
    struct rb_ring_producer p;
    struct rb_ring_consumer c;
};

/* A ring whose positions have come to `at`: also far beyond 32 bits and about to wrap. */
static void pair_at(struct pair *r, uint64_t at) {
    memset(r, 0, sizeof *r);
    r->tail = r->head = at;
    r->p = (struct rb_ring_producer){.tail = at,
                                     .claimed = at,
                                     .head = at,
                                     .shared_tail = &r->tail,
                                     .shared_head = &r->head,
                                     .slots = SLOTS};
    r->c = (struct rb_ring_consumer){
        .head = at, .tail = at, .shared_head = &r->head, .shared_tail = &r->tail, .slots = SLOTS};
}

static const uint64_t starts[] = {0, 5, UINT32_MAX - 3, UINT64_MAX - 4};
/* Declares the ring `r` and runs what follows with it at each start, of which `at` is the index. */
#define EACH_START \
    struct pair r; \
    for (unsigned at = 0; at < 4 && (pair_at(&r, starts[at]), 1); at++)

static void an_empty_ring_has_nothing_to_read_and_all_slots_free(void) {
    EACH_START {
        CHECK_EQUAL(rb_ring_available(&r.c), 0);
        CHECK_EQUAL(rb_ring_free(&r.p), SLOTS);
        CHECK_EQUAL(rb_ring_publish(&r.p), 0);
    }
}

static void a_claim_is_seen_only_when_published(void) {
    EACH_START {
        CHECK_EQUAL(rb_ring_claim(&r.p), starts[at] % SLOTS);
        CHECK_EQUAL(rb_ring_claim(&r.p), (starts[at] + 1) % SLOTS);
        CHECK_EQUAL(rb_ring_available(&r.c), 0);
        CHECK_EQUAL(rb_ring_publish(&r.p), 2);
        CHECK_EQUAL(rb_ring_available(&r.c), 2);
        CHECK_EQUAL(rb_ring_slot(&r.c, 1), (starts[at] + 1) % SLOTS);
    }
}

static void a_full_ring_says_again_until_slots_are_released(void) {
    EACH_START {
        for (int i = 0; i < SLOTS; i++) CHECK(rb_ring_claim(&r.p) >= 0);
        CHECK_EQUAL(rb_ring_claim(&r.p), -EAGAIN);
        rb_ring_publish(&r.p);
        CHECK_EQUAL(rb_ring_claim(&r.p), -EAGAIN);
        CHECK_EQUAL(rb_ring_available(&r.c), SLOTS);
        rb_ring_release(&r.c, 3);
        CHECK_EQUAL(rb_ring_free(&r.p), 3);
        for (int i = 0; i < 3; i++) CHECK(rb_ring_claim(&r.p) >= 0);
        CHECK_EQUAL(rb_ring_claim(&r.p), -EAGAIN);
    }
}

static void order_is_kept_round_the_ring(void) {
    uint64_t state = 3;
    EACH_START {
        uint64_t sent = 0, seen = 0;
        while (seen < 1000) {
            int64_t slot, count;
            uint64_t batch = check_random(&state) % (SLOTS + 1);
            while (batch-- && (slot = rb_ring_claim(&r.p)) >= 0) r.slot[slot] = sent++;
            rb_ring_publish(&r.p);
            count = rb_ring_available(&r.c);
            if (count) count = (int64_t)(check_random(&state) % ((uint64_t)count + 1));
            for (int64_t i = 0; i < count; i++)
                CHECK_EQUAL(r.slot[rb_ring_slot(&r.c, (uint64_t)i)], seen++);
            rb_ring_release(&r.c, (uint64_t)count);
        }
    }
}

static void a_hostile_tail_is_refused_and_changes_nothing(void) {
    EACH_START {
        for (int i = 0; i < 4; i++) rb_ring_claim(&r.p);
        rb_ring_publish(&r.p);
        CHECK_EQUAL(rb_ring_available(&r.c), 4);
        rb_ring_release(&r.c, 1);
        const uint64_t head = starts[at] + 1;
        const uint64_t wrong[] = {head + SLOTS + 1,
                                  head - 1,
                                  head + 2 /* ran backwards from + 3 */,
                                  head + UINT32_MAX,
                                  head + (UINT64_C(1) << 63),
                                  starts[at] - 1};
        for (unsigned i = 0; i < sizeof wrong / sizeof *wrong; i++) {
            r.tail = wrong[i];
            CHECK_EQUAL(rb_ring_available(&r.c), -EPROTO);
            CHECK_EQUAL(r.c.tail, starts[at] + 4);
        }
        r.tail = head + SLOTS;
        CHECK_EQUAL(rb_ring_available(&r.c), SLOTS);
    }
}

static void a_hostile_head_is_refused_and_changes_nothing(void) {
    EACH_START {
        for (int i = 0; i < 4; i++) rb_ring_claim(&r.p);
        rb_ring_publish(&r.p);
        r.head = starts[at] + 2;
        CHECK_EQUAL(rb_ring_free(&r.p), SLOTS - 2);
        const uint64_t wrong[] = {starts[at] + 5 /* past what was published */, starts[at] + 1,
                                  starts[at] - 1, starts[at] + (UINT64_C(1) << 63)};
        for (unsigned i = 0; i < sizeof wrong / sizeof *wrong; i++) {
            r.head = wrong[i];
            CHECK_EQUAL(rb_ring_free(&r.p), -EPROTO);
            CHECK_EQUAL(r.p.head, starts[at] + 2);
        }
    }
}

static void a_claim_on_a_full_ring_reports_a_hostile_head(void) {
    EACH_START {
        for (int i = 0; i < SLOTS; i++) rb_ring_claim(&r.p);
        rb_ring_publish(&r.p);
        r.head = starts[at] + SLOTS + 1;
        CHECK_EQUAL(rb_ring_claim(&r.p), -EPROTO);
    }
}

static void a_stray_write_on_ones_own_position_does_not_move_it_back(void) {
    EACH_START {
        rb_ring_claim(&r.p);
        rb_ring_publish(&r.p);
        r.tail = 0xdead;
        rb_ring_claim(&r.p);
        rb_ring_publish(&r.p);
        CHECK_EQUAL(r.tail, starts[at] + 2);
    }
}

/* Two threads, plain (not atomic) slot writes: TSan reports any slot that is touched out of
 * order. */
enum { ITEMS = 200000 };

static void *produce(void *arg) {
    struct pair *r = arg;
    uint64_t state = 5;
    for (uint64_t sent = 0; sent < ITEMS;) {
        uint64_t batch = 1 + check_random(&state) % SLOTS;
        int64_t slot = 0;
        while (batch-- && sent < ITEMS && (slot = rb_ring_claim(&r->p)) >= 0)
            r->slot[slot] = sent++;
        rb_ring_publish(&r->p);
        if (slot < 0) sched_yield();
    }
    return NULL;
}

static void two_threads_see_every_slot_once_and_whole(void) {
    struct pair r;
    pthread_t thread;
    uint64_t seen = 0, state = 9;
    pair_at(&r, 0);
    pthread_create(&thread, NULL, produce, &r);
    while (seen < ITEMS) {
        int64_t count = rb_ring_available(&r.c);
        CHECK(count >= 0);
        if (count <= 0) {
            sched_yield();
            continue;
        }
        count = 1 + (int64_t)(check_random(&state) % (uint64_t)count);
        for (int64_t i = 0; i < count; i++)
            CHECK_EQUAL(r.slot[rb_ring_slot(&r.c, (uint64_t)i)], seen++);
        rb_ring_release(&r.c, (uint64_t)count);
    }
    pthread_join(thread, NULL);
    CHECK_EQUAL(rb_ring_available(&r.c), 0);
}

int main(void) {
    RUN(an_empty_ring_has_nothing_to_read_and_all_slots_free);
    RUN(a_claim_is_seen_only_when_published);
    RUN(a_full_ring_says_again_until_slots_are_released);
    RUN(order_is_kept_round_the_ring);
    RUN(a_hostile_tail_is_refused_and_changes_nothing);
    RUN(a_hostile_head_is_refused_and_changes_nothing);
    RUN(a_claim_on_a_full_ring_reports_a_hostile_head);
    RUN(a_stray_write_on_ones_own_position_does_not_move_it_back);
    RUN(two_threads_see_every_slot_once_and_whole);
    return check_end();
}
