/* A lane's end in a BEAM where time runs against it: copies that take long, numbers that come round, answers without an end (lane.h). */
#define _GNU_SOURCE
#include <signal.h>

#include "core/lane_client.h"
#include "lane_ends.h"

/* A page that faults while its bytes are copied under the shared ring's mutex: who cancels or gives back does not wait for it. */
static struct ends *ending;
static uint8_t *faulty;
static uint64_t to_cancel, to_give_back;
static void cancel_at_fault(int signal) {
    (void)signal;
    rb_lane_cancel(ending->beam, to_cancel);
    CHECK_EQUAL(rb_lane_give_back(ending->beam, to_give_back), 0);
    mprotect(faulty, 4096, PROT_READ);
}

static void a_cancel_and_a_give_back_wait_for_nobody_s_copy(void) {
    struct ends e;
    struct seen seen = {.verdict = RB_LANE_KEEP};
    static uint8_t bytes[4096];
    uint64_t number;
    struct sigaction before, faults = {.sa_handler = cancel_at_fault, .sa_flags = SA_NODEFER};
    ends_open(&e);
    ending = &e;
    CHECK_EQUAL(ends_send(&e, 0, bytes, sizeof bytes, &number), 0);
    ends_echo(&e, 0, 1, RB_LANE_STATUS_RAW);
    CHECK_EQUAL(rb_lane_drain(e.beam, ends_see, &seen, 1), 1);
    to_give_back = seen.last.at;
    rb_lane_link_want(&e.relay, 1);
    CHECK_EQUAL(ends_send(&e, 0, "x", 1, &to_cancel), 0);
    faulty = mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    sigaction(SIGSEGV, &faults, &before);
    CHECK_EQUAL(ends_send(&e, RB_LANE_SHARED, faulty, 100, &number), 0);
    sigaction(SIGSEGV, &before, NULL);
    CHECK_EQUAL(e.relay.cancels[rb_lane_slot(to_cancel)].request, to_cancel);
    CHECK_EQUAL(rb_lane_link_reclaim(&e.relay), 1);
    munmap(faulty, 4096);
    ends_close(&e);
}

/* A slot's generations come round: the word of a cancel from the last round, and one never written, name nobody of this one. */
static void a_cancel_of_the_last_round_of_generations_is_not_this_one_s(void) {
    struct ends e;
    struct seen seen = {.count = 0};
    uint64_t first, again;
    ends_open(&e);
    CHECK_EQUAL(ends_send(&e, 0, "x", 1, &first), 0);
    rb_lane_cancel(e.beam, first);
    ends_echo(&e, 0, 1, RB_LANE_STATUS_RAW);
    CHECK_EQUAL(rb_lane_drain(e.beam, ends_see, &seen, 9), 1);
    struct rb_lane_slot *slot = &e.beam->slots[rb_lane_slot(first)];
    slot->generation = UINT32_MAX; /* as after all the others */
    CHECK_EQUAL(ends_send(&e, 0, "x", 1, &again), 0);
    CHECK_EQUAL(again >> 32, 0);
    CHECK(e.relay.cancels[rb_lane_slot(again)].request != again);
    ends_echo(&e, 0, 1, RB_LANE_STATUS_RAW);
    CHECK_EQUAL(rb_lane_drain(e.beam, ends_see, &seen, 9), 1);
    CHECK_EQUAL(ends_send(&e, 0, "x", 1, &again), 0);
    CHECK_EQUAL(again, first);
    CHECK(e.relay.cancels[rb_lane_slot(again)].request != again);
    rb_lane_cancel(e.beam, again);
    CHECK_EQUAL(e.relay.cancels[rb_lane_slot(again)].request, again);
    ends_close(&e);
    /* Slot 0's first number of a round is 0, as is a word that was never written. */
    ends_open(&e);
    e.beam->slots[0].generation = UINT32_MAX;
    CHECK_EQUAL(ends_send(&e, 0, "x", 1, &again), 0);
    CHECK_EQUAL(again, 0);
    CHECK(e.relay.cancels[0].request != 0);
    ends_close(&e);
}

/* For each answer that is shown it says one more, of no request. */
static int answer_on(void *arg, const struct rb_lane_answer *a) {
    struct ends *e = arg;
    if (a->kind == RB_LANE_ANSWER_LOST) return RB_LANE_TAKEN;
    rb_lane_link_put(&e->relay, a->number, RB_LANE_STATUS_DROPPED, NULL, 0);
    rb_lane_link_publish(&e->relay);
    return RB_LANE_TAKEN;
}

static void a_relay_that_answers_on_and_on_holds_nobody_at_the_end(void) {
    struct ends e;
    uint64_t number;
    ends_open(&e);
    for (uint32_t i = 0; i < 24; i++) CHECK_EQUAL(ends_send(&e, i % 3, "x", 1, &number), 0);
    for (uint32_t ring = 0; ring < 3; ring++) ends_echo(&e, ring, 8, RB_LANE_STATUS_RAW);
    rb_lane_lose(e.beam, answer_on, &e);
    CHECK_EQUAL(e.relay.completion_ring.tail, 48);
    CHECK_EQUAL(e.beam->completion_ring.head, e.beam->header.completion_slots);
    ends_close(&e);
}

int main(void) {
    RUN(a_cancel_of_the_last_round_of_generations_is_not_this_one_s);
    RUN(a_relay_that_answers_on_and_on_holds_nobody_at_the_end);
    RUN(a_cancel_and_a_give_back_wait_for_nobody_s_copy);
    return check_end();
}
