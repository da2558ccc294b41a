/* Who rings whom across a lane, and when (lane.h, lane_link.h): only who sleeps is woken, once for each sleep, by an answer, by room that is
 * wanted, by a cancel and by the end; and one that lies about its sleep, or rings on and on, holds nobody up. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include "core/lane_client.h"
#include "lane_ends.h"

static int is_readable(int fd) {
    struct pollfd p = {.fd = fd, .events = POLLIN};
    return poll(&p, 1, 0) == 1;
}

static void a_parking_is_rung_once_and_the_end_rings_too(void) {
    struct ends e;
    struct seen seen = {.count = 0};
    uint64_t number;
    ends_open(&e);
    int fd = rb_lane_wake_fd(e.beam);
    for (int i = 0; i < 3; i++) CHECK_EQUAL(ends_send(&e, 0, "x", 1, &number), 0);
    ends_echo(&e, 0, 1, RB_LANE_STATUS_RAW);
    CHECK(!is_readable(fd)); /* nobody has parked */
    CHECK_EQUAL(rb_lane_park(e.beam), 1);
    CHECK_EQUAL(rb_lane_drain(e.beam, ends_see, &seen, 9), 1);
    CHECK_EQUAL(rb_lane_park(e.beam), 0);
    ends_echo(&e, 0, 1, RB_LANE_STATUS_RAW);
    CHECK(is_readable(fd));
    CHECK_EQUAL(rb_lane_hush(e.beam), 0);
    CHECK(!is_readable(fd));
    ends_echo(&e, 0, 1, RB_LANE_STATUS_RAW);
    CHECK(!is_readable(fd)); /* it was rung for this parking */
    CHECK_EQUAL(rb_lane_park(e.beam), 1);
    rb_lane_unpark(e.beam);
    CHECK_EQUAL(rb_lane_drain(e.beam, ends_see, &seen, 9), 2);
    CHECK_EQUAL(rb_lane_park(e.beam), 0);
    rb_lane_link_end(&e.relay);
    CHECK(is_readable(fd));
    CHECK_EQUAL(rb_lane_hush(e.beam), 0);
    CHECK_EQUAL(rb_lane_park(e.beam), 1);
    rb_lane_link_close(&e.relay); /* as when the bridge is killed */
    CHECK(is_readable(fd));
    CHECK_EQUAL(rb_lane_hush(e.beam), -EPIPE);
    rb_lane_detach(e.beam);
}

/* The relay makes its end as wide as it may, and fills it: that keeps nobody reading, and hides its end from nobody for ever. */
static void a_relay_that_rings_on_and_on_keeps_nobody_reading(void) {
    struct ends e;
    static char rings[64 << 10];
    const int most = 1 << 20;
    int before, after, looks = 0;
    ends_open(&e);
    CHECK_EQUAL(setsockopt(e.relay.bell, SOL_SOCKET, SO_SNDBUF, &most, sizeof most), 0);
    CHECK_EQUAL(send(e.relay.bell, rings, sizeof rings, MSG_DONTWAIT), sizeof rings);
    CHECK_EQUAL(ioctl(e.beam->fds.bell, FIONREAD, &before), 0);
    CHECK_EQUAL(rb_lane_hush(e.beam), 0);
    CHECK_EQUAL(ioctl(e.beam->fds.bell, FIONREAD, &after), 0);
    CHECK(before - after <= 512 && is_readable(e.beam->fds.bell));
    rb_lane_link_close(&e.relay);
    while (rb_lane_hush(e.beam) == 0 && looks < 1000) looks++;
    CHECK_EQUAL(rb_lane_hush(e.beam), -EPIPE);
    rb_lane_detach(e.beam);
}

static void the_relay_is_woken_only_if_it_sleeps(void) {
    struct ends e;
    uint64_t number;
    ends_open(&e);
    CHECK(is_readable(e.relay.bell) == 0); /* it was not parked when it was greeted */
    CHECK_EQUAL(ends_send(&e, 0, "x", 1, &number), 0);
    CHECK(!is_readable(e.relay.bell));
    CHECK_EQUAL(rb_lane_link_waiting(&e.relay), 1);
    ends_echo(&e, 0, 1, RB_LANE_STATUS_RAW);
    CHECK_EQUAL(rb_lane_link_waiting(&e.relay), 0);
    rb_gate_announce(&e.relay.waiter, RB_PARK_EVENTFD);
    CHECK_EQUAL(ends_send(&e, RB_LANE_SHARED, "x", 1, &number), 0);
    CHECK(is_readable(e.relay.bell));
    CHECK_EQUAL(rb_lane_link_waiting(&e.relay), 1);
    ends_close(&e);
}

static void room_that_is_wanted_rings_and_other_room_does_not(void) {
    struct ends e;
    struct seen seen = {.verdict = RB_LANE_KEEP};
    static uint8_t bytes[4096];
    uint64_t number, at[2];
    ends_open(&e);
    for (int i = 0; i < 2; i++) {
        CHECK_EQUAL(ends_send(&e, 0, bytes, sizeof bytes, &number), 0);
        ends_echo(&e, 0, 1, RB_LANE_STATUS_RAW);
        CHECK_EQUAL(rb_lane_drain(e.beam, ends_see, &seen, 1), 1);
        at[i] = seen.last.at;
    }
    rb_gate_announce(&e.relay.waiter, RB_PARK_EVENTFD);
    CHECK_EQUAL(rb_lane_give_back(e.beam, at[0]), 0);
    CHECK(!is_readable(e.relay.bell));
    CHECK_EQUAL(rb_lane_link_waiting(&e.relay), 0); /* nor is it a reason to stay awake */
    rb_lane_link_want(&e.relay, 1);
    CHECK_EQUAL(rb_lane_link_waiting(&e.relay), 1);
    CHECK_EQUAL(rb_lane_give_back(e.beam, at[1]), 0);
    CHECK(is_readable(e.relay.bell));
    CHECK_EQUAL(rb_lane_link_reclaim(&e.relay), 2);
    ends_close(&e);
}

static void a_cancel_names_what_is_open_and_wakes_the_relay(void) {
    struct ends e;
    struct seen seen = {.count = 0};
    uint64_t first, second;
    ends_open(&e);
    CHECK_EQUAL(ends_send(&e, 0, "x", 1, &first), 0);
    rb_gate_announce(&e.relay.waiter, RB_PARK_EVENTFD);
    CHECK_EQUAL(rb_load_seq_cst(&e.relay.theirs->cancels), 0);
    rb_lane_cancel(e.beam, first + (UINT64_C(1) << 32)); /* a later one: not sent yet */
    rb_lane_cancel(e.beam, UINT64_MAX);
    CHECK(!is_readable(e.relay.bell));
    rb_lane_cancel(e.beam, first);
    CHECK(is_readable(e.relay.bell));
    CHECK_EQUAL(e.relay.cancels[rb_lane_slot(first)].request, first);
    CHECK_EQUAL(rb_load_seq_cst(&e.relay.theirs->cancels), 1);
    rb_ring_available(&e.relay.submission_rings[0]);
    rb_ring_release(&e.relay.submission_rings[0], 1);
    CHECK_EQUAL(rb_lane_link_put(&e.relay, first, RB_LANE_STATUS_DROPPED, NULL, 0), 0);
    rb_lane_link_publish(&e.relay);
    CHECK_EQUAL(rb_lane_drain(e.beam, ends_see, &seen, 9), 1);
    CHECK_EQUAL(seen.dropped, 1);
    CHECK_EQUAL(ends_send(&e, 0, "x", 1, &second), 0);
    CHECK_EQUAL(second, first + (UINT64_C(1) << 32)); /* the same slot */
    rb_lane_cancel(e.beam, first);                    /* whoever is late hides nothing */
    CHECK_EQUAL(e.relay.cancels[rb_lane_slot(first)].request, first);
    rb_lane_cancel(e.beam, second);
    rb_lane_cancel(e.beam, first);
    CHECK_EQUAL(e.relay.cancels[rb_lane_slot(first)].request, second);
    ends_close(&e);
}

/* The relay says that it sleeps, again and again, reads nothing, and has made all that it shares of the socket blocking. Every way in which the
 * BEAM wakes it is tried; one that waited would wait for ever. */
static void a_relay_that_lies_about_its_sleep_holds_nobody_up(void) {
    struct ends e;
    struct seen seen = {.count = 0};
    uint64_t number, last = 0;
    ends_open(&e);
    CHECK_EQUAL(fcntl(e.relay.bell, F_SETFL, 0), 0);
    CHECK_EQUAL(fcntl(e.beam->fds.bell, F_SETFL, 0), 0); /* it may have kept a copy of this end */
    for (int i = 0; i < 20000; i++) {
        rb_gate_announce(&e.relay.waiter, RB_PARK_EVENTFD);
        CHECK_EQUAL(ends_send(&e, (uint32_t)i % 3, "x", 1, &number), 0);
        rb_gate_retract(&e.relay.waiter);
        rb_gate_announce(&e.relay.waiter, RB_PARK_EVENTFD);
        rb_lane_cancel(e.beam, number);
        rb_gate_retract(&e.relay.waiter);
        rb_gate_announce(&e.relay.waiter, RB_PARK_EVENTFD);
        rb_lane_ring_relay(e.beam);
        rb_gate_retract(&e.relay.waiter);
        CHECK_EQUAL(ends_echo(&e, (uint32_t)i % 3, 1, RB_LANE_STATUS_RAW), 1);
        CHECK_EQUAL(rb_lane_drain(e.beam, ends_see, &seen, 9), 1);
    }
    struct rb_lane_figures figures;
    rb_lane_read_figures(e.beam, &figures);
    last = figures.wakes;
    CHECK(last >= 60000);
    CHECK_EQUAL(rb_lane_link_hush(&e.relay), 0);
    while (is_readable(e.relay.bell)) CHECK_EQUAL(rb_lane_link_hush(&e.relay), 0);
    rb_lane_detach(e.beam);
    CHECK_EQUAL(rb_lane_link_hush(&e.relay), -EPIPE);
    rb_lane_link_close(&e.relay);
}

int main(void) {
    RUN(a_relay_that_lies_about_its_sleep_holds_nobody_up);
    RUN(a_parking_is_rung_once_and_the_end_rings_too);
    RUN(a_relay_that_rings_on_and_on_keeps_nobody_reading);
    RUN(the_relay_is_woken_only_if_it_sleeps);
    RUN(room_that_is_wanted_rings_and_other_room_does_not);
    RUN(a_cancel_names_what_is_open_and_wakes_the_relay);
    return check_end();
}
