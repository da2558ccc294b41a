/* When the relay waits by the clock (wait.c): by how many processes call over a lane. */
#define _GNU_SOURCE
#include "lane_lab.h"

enum { MANY = 64, FEW = 16 };

static struct lab lab;
static struct lane *lane;

static void begin(void) {
    struct rb_lane_config config = lane_config(7);
    config.slots = MANY;
    lab_open(&lab);
    lane = lane_open_as(&lab, &config);
}
static void finish(void) {
    lane_detach(lane);
    CHECK(lab_event(&lab, RB_EVENT_LANE_ENDED));
    lab_close(&lab);
}

/* Each of so many processes asks for a role that there is not, and is told so. */
static void all_call(uint32_t callers) {
    for (uint32_t i = 0; i < callers; i++) {
        struct rb_lane_request q = {.form = RB_LANE_RAW,
                                    .caller = i,
                                    .role = (const uint8_t *)"none",
                                    .role_bytes = 4,
                                    .timeout_ms = RB_LANE_TIMEOUT_DEFAULT};
        uint64_t number;
        CHECK_EQUAL(lane_send(lane, 0, &q, &number), 0);
    }
    for (uint32_t i = 0; i < callers; i++) CHECK(lane_answer(lane));
}
static uint64_t sleeps(void) {
    struct rb_relay_stats s;
    rb_relay_read_stats(lab.relay, &s);
    return s.sleeps;
}

static void many_callers_of_a_lane_are_served_by_the_clock(void) {
    begin();
    for (int tries = 0; tries < 10000 && sleeps() == 0; tries++) all_call(MANY);
    CHECK(sleeps() > 0);
    finish();
}

static void few_callers_of_a_lane_are_served_at_once_however_much_they_ask(void) {
    begin();
    for (int tries = 0; tries < 200; tries++) all_call(FEW);
    CHECK_EQUAL(sleeps(), 0);
    finish();
}

int main(void) {
    unsetenv("RINGBRIDGE_REPLAY"); /* no lane is opened beside a recording */
    RUN(many_callers_of_a_lane_are_served_by_the_clock);
    RUN(few_callers_of_a_lane_are_served_at_once_however_much_they_ask);
    return check_end();
}
