/* A lane's end in a BEAM while others are at it (lane.h): its end in the middle of a request, and many threads that send, drain, give back
 * and end it at once. */
#define _GNU_SOURCE
#include <pthread.h>

#include "lane_ends.h"

/* The lane ends while a request is being copied: its bytes lie on a page that faults, and the fault's handler is who ends it. */
static struct ends *ending;
static struct seen of_fault;
static uint8_t *faulty;
static void end_at_fault(int signal) {
    (void)signal;
    rb_lane_lose(ending->beam, ends_see,
                 &of_fault); /* no lock is held by who sends on a ring of its own */
    mprotect(faulty, 4096, PROT_READ);
}

static void a_request_that_is_sent_into_the_end_is_its_sender_s_again(void) {
    struct ends e;
    uint64_t number;
    struct sigaction before, faults = {.sa_handler = end_at_fault, .sa_flags = SA_NODEFER};
    ends_open(&e);
    ending = &e;
    of_fault = (struct seen){.count = 0};
    faulty = mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    sigaction(SIGSEGV, &faults, &before);
    CHECK_EQUAL(ends_send(&e, 0, faulty, 100, &number), -EPIPE);
    sigaction(SIGSEGV, &before, NULL);
    CHECK_EQUAL(of_fault.count, 0); /* one of the two is told */
    /* Its sender takes another way with it: nobody else may run it. */
    CHECK_EQUAL(rb_ring_available(&e.relay.submission_rings[0]), 0);
    CHECK_EQUAL(rb_lane_lose(e.beam, ends_see, &of_fault), 0);
    struct rb_lane_figures f;
    rb_lane_read_figures(e.beam, &f);
    CHECK(f.sent == 0 && f.open == 0);
    munmap(faulty, 4096);
    ends_close(&e);
}

/* --- All at once -------------------------------------------------------------------------------------------------------------- */

enum { SENDERS = 4, EACH = 3000 };
static struct {
    struct ends e;
    int sending;                  /* senders that are not done */
    uint32_t owner[24];           /* by slot: sender << 16 | its count */
    uint32_t told[SENDERS][EACH]; /* answers; 100: the send failed with the end */
    int count;
} all;

static int tell_all(void *arg, const struct rb_lane_answer *a) {
    (void)arg;
    uint32_t owner = all.owner[rb_lane_slot(a->number)];
    rb_add_relaxed(&all.told[owner >> 16][owner & 0xffff], 1);
    rb_add_relaxed(&all.count, 1);
    if (a->kind == RB_LANE_ANSWER_LOST) return RB_LANE_TAKEN;
    uint32_t said;
    memcpy(&said, a->bytes, sizeof said);
    if (said != owner) CHECK_EQUAL(said, owner);
    if (a->keepable) {
        rb_lane_give_back(all.e.beam,
                          a->at); /* as a destructor that is quicker than the callback */
        return RB_LANE_KEEP;
    }
    return RB_LANE_TAKEN;
}

static void *send_all(void *arg) {
    uint32_t who = (uint32_t)(uintptr_t)arg, ring = who < 2 ? who : RB_LANE_SHARED;
    uint32_t words[64];
    for (uint32_t i = 0; i < EACH; i++) {
        uint32_t me = who << 16 | i;
        for (int k = 0; k < 64; k++) words[k] = me;
        struct iovec part = {words, i % 5 ? 16 : sizeof words};
        struct rb_lane_request q = {.form = RB_LANE_TERM, .parts = &part, .count = 1};
        for (;;) {
            uint64_t number;
            int rc = rb_lane_claim(all.e.beam, ring, &number);
            if (rc == 0) {
                all.owner[rb_lane_slot(number)] = me;
                rc = rb_lane_send(all.e.beam, ring, number, &q);
            }
            if (rc == 0) break;
            if (rc == -EPIPE) {
                rb_add_relaxed(&all.told[who][i], 100);
                break;
            }
            rb_lane_drain(all.e.beam, tell_all, NULL, 32);
            usleep(1);
        }
        rb_lane_drain(all.e.beam, tell_all, NULL, 4);
    }
    __atomic_fetch_sub(&all.sending, 1, __ATOMIC_ACQ_REL);
    return NULL;
}

static void *relay_all(void *arg) {
    (void)arg;
    while (rb_load_acquire(&all.sending)) {
        int n = 0;
        for (uint32_t ring = 0; ring < 3; ring++)
            n += ends_echo(&all.e, ring, 8, ring & 1 ? RB_LANE_STATUS_RAW : RB_LANE_STATUS_TERM);
        if (!n) usleep(20);
    }
    return NULL;
}

static void run_all(int end_in_between) {
    pthread_t threads[SENDERS + 1];
    memset(&all, 0, sizeof all);
    ends_open(&all.e);
    all.sending = SENDERS;
    for (uintptr_t i = 0; i < SENDERS; i++) pthread_create(&threads[i], NULL, send_all, (void *)i);
    pthread_create(&threads[SENDERS], NULL, relay_all, NULL);
    if (end_in_between) {
        while (rb_load_relaxed(&all.count) < EACH) usleep(10);
        rb_lane_lose(all.e.beam, tell_all, NULL);
    }
    for (int i = 0; i <= SENDERS; i++) pthread_join(threads[i], NULL);
    if (!end_in_between) {
        for (uint32_t ring = 0; ring < 3; ring++)
            while (ends_echo(&all.e, ring, 8, RB_LANE_STATUS_TERM)) {
            }
        while (rb_lane_drain(all.e.beam, tell_all, NULL, 32) > 0) {
        }
    }
    int answered = 0, refused = 0;
    for (int who = 0; who < SENDERS; who++) {
        for (int i = 0; i < EACH; i++) {
            CHECK(all.told[who][i] == 1 || all.told[who][i] == 100);
            answered += all.told[who][i] == 1;
            refused += all.told[who][i] == 100;
        }
    }
    CHECK_EQUAL(answered + refused, SENDERS * EACH);
    CHECK(end_in_between ? refused > 0 : refused == 0);
    CHECK_EQUAL(rb_lane_held_bytes(all.e.beam), 0);
    CHECK_EQUAL(rb_lane_state(all.e.beam), end_in_between ? RB_LANE_CLOSED : RB_LANE_OPEN);
    ends_close(&all.e);
}

static void many_threads_get_each_their_own_answers_once(void) { run_all(0); }
static void at_an_end_under_way_each_request_is_told_of_once(void) { run_all(1); }

int main(void) {
    RUN(a_request_that_is_sent_into_the_end_is_its_sender_s_again);
    RUN(many_threads_get_each_their_own_answers_once);
    RUN(at_an_end_under_way_each_request_is_told_of_once);
    return check_end();
}
