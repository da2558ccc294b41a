/* A lane's end in a BEAM where time runs against it: copies that take long (lane.h). */
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

int main(void) {
    RUN(a_cancel_and_a_give_back_wait_for_nobody_s_copy);
    return check_end();
}
