/* What comes over a connection besides small calls: payloads in fragments, whole, too large, late or cut off; what is for others; garbage, and a
 * flood. Whatever it is, other connections do not notice. */
#define _GNU_SOURCE
#include <stdlib.h>

#include "accounts.h"

/* --- Large payloads --------------------------------------------------------------------------- */

/* The head of a call whose payload of `size` bytes follows in `fragments` fragments. */
static void fragments_head(int fd, uint32_t caller, uint32_t size, uint64_t fragments,
                           const uint8_t *bytes, uint32_t in_first) {
    struct lab_bytes b = {.size = 0};
    lab_monitor(fd, 1, caller, caller);
    lab_call_head(&b, caller, caller);
    lab_submit_head(&b, 3, "echo");
    PUT(&b, "\x6d");
    lab_put_u32(&b, size);
    uint8_t head[4 + 19] = {0, 0, 0, 0, 131, 69};
    rb_put_be32(head, (uint32_t)(19 + b.size + in_first));
    rb_put_be32(head + 6 + 4, 77);
    rb_put_be32(head + 14 + 4, (uint32_t)fragments);
    lab_write(fd, head, sizeof head);
    lab_write(fd, b.at, b.size);
    lab_write(fd, bytes, in_first);
}
static void fragment(int fd, uint64_t left, const uint8_t *bytes, uint32_t size) {
    uint8_t head[4 + 18] = {0, 0, 0, 0, 131, 70};
    rb_put_be32(head, 18 + size);
    rb_put_be32(head + 6 + 4, 77);
    rb_put_be32(head + 14 + 4, (uint32_t)left);
    lab_write(fd, head, sizeof head);
    lab_write(fd, bytes, size);
}

enum { LARGE = 200000 };
static uint8_t large[LARGE];

static void a_payload_in_fragments_reaches_the_worker_whole(void) {
    WITH_WORKER(lab, w);
    for (size_t i = 0; i < LARGE; i++) large[i] = (uint8_t)(i * 7 + i / 251);
    fragments_head(lab.peer, 1, LARGE, 4, large, 60000);
    lab_submit(lab.peer, 2, "between", 7); /* a small signal overtakes */
    fragment(lab.peer, 3, large + 60000, 65536);
    fragment(lab.peer, 2, large + 125536, 65536);
    const struct rb_request *r = lab_request(w, 0);
    CHECK(r && memcmp(lab_payload(w, r), "between", 7) == 0);
    lab_complete(w, "small", 5);
    CHECK(ANSWER_HAS(lab.peer, "small"));
    fragment(lab.peer, 1, large + 191072, LARGE - 191072);
    r = lab_request(w, 0);
    CHECK(r && r->payload_bytes == LARGE && memcmp(lab_payload(w, r), large, LARGE) == 0);
    CHECK(r && rb_request_crc(r, lab_payload(w, r), w->link.header.features) == r->crc);
    lab_complete(w, "big", 3);
    CHECK(ANSWER_HAS(lab.peer, "big"));
    CLOSE(lab, w);
}

static void a_role_whose_payload_still_arrives_is_gone_after_it(void) {
    struct lab lab;
    lab_open(&lab);
    fragments_head(lab.peer, 1, LARGE, 4, large, 60000);
    lab_submit(lab.peer, 2, "after", 5); /* once this is taken in, the head before it is, too */
    while (stats_of(&lab).accepted < 1) usleep(100);
    CHECK_EQUAL(rb_relay_remove_role(lab.relay, 0), 0);
    CHECK(ANSWER_HAS(lab.peer, "no_worker"));
    lab_submit(lab.peer, 3, "x", 1);
    CHECK(ANSWER_HAS(lab.peer, "unknown role echo"));
    while (rb_relay_take(lab.relay, &lab.event)) CHECK(lab.event.kind != RB_EVENT_ROLE_GONE);
    fragment(lab.peer, 3, large + 60000, 65536);
    fragment(lab.peer, 2, large + 125536, 65536);
    fragment(lab.peer, 1, large + 191072, LARGE - 191072);
    CHECK(ANSWER_HAS(lab.peer, "no_worker"));
    CHECK(lab_event(&lab, RB_EVENT_ROLE_GONE));
    CHECK(accounts_are_even(&lab));
    lab_close(&lab);
}

static void bounds_of_connections_change_while_they_are_up(void) {
    struct lab lab;
    lab_open(&lab);
    struct rb_relay_config config = lab_config();
    config.arrival_ms = 20;
    CHECK_EQUAL(rb_relay_configure(lab.relay, &config), 0);
    fragments_head(lab.peer, 1, LARGE, 4, large, 60000);
    CHECK(ANSWER_HAS(lab.peer, "deadline_exceeded"));
    CHECK(accounts_are_even(&lab));
    lab_close(&lab);
}

static void too_large_is_answered_from_the_head_and_the_rest_passes_by(void) {
    WITH_WORKER(lab, w);
    fragments_head(lab.peer, 1, LAB_PAYLOAD_MAX + 1, 17, large, 60000);
    CHECK(ANSWER_HAS(lab.peer, "\x77\x09too_large\x62\x00\x10\x00\x00"));
    for (uint64_t left = 16; left > 0; left--) fragment(lab.peer, left, large, 62000);
    lab_submit(lab.peer, 2, "next", 4);
    lab_complete(w, "fine", 4);
    CHECK(ANSWER_HAS(lab.peer, "fine"));
    CHECK_EQUAL(stats_of(&lab).accepted, 1);
    CLOSE(lab, w);
}

static void a_payload_cut_off_by_a_dying_peer_is_forgotten(void) {
    WITH_WORKER(lab, w);
    int other = lab_connect(&lab);
    fragments_head(other, 1, LARGE, 4, large, 60000);
    close(other);
    CHECK(lab_event(&lab, RB_EVENT_CONNECTION_LOST));
    CHECK_EQUAL(stats_of(&lab).accepted, 0);
    CLOSE(lab, w);
}

/* --- Peers ------------------------------------------------------------------------------------ */

static void what_is_not_ours_goes_up_whole_and_in_order(void) {
    struct lab lab;
    lab_open(&lab);
    for (uint8_t i = 0; i < 100; i++) {
        uint8_t message[2] = {RB_TAG_SMALL_INTEGER, i};
        lab_to_somebody_else(lab.peer, message, sizeof message);
    }
    for (uint8_t i = 0; i < 100; i++) {
        CHECK(lab_event(&lab, RB_EVENT_SIGNAL));
        CHECK_EQUAL(lab.event.data[lab.event.size - 1], i);
        CHECK_EQUAL(lab.event.a, (int64_t)lab.event.size - 2);
    }
    lab_close(&lab);
}

static void garbage_closes_its_own_connection_only(void) {
    WITH_WORKER(lab, w);
    int other = lab_connect(&lab);
    lab_write(other, "\x00\x00\x00\x05garbage", 11);
    CHECK(lab_event(&lab, RB_EVENT_CONNECTION_LOST));
    CHECK_EQUAL(lab.event.connection, 2);
    CHECK(lab_event_says(&lab, "not_a_distribution_header"));
    close(other);
    lab_submit(lab.peer, 1, "x", 1);
    lab_complete(w, "still here", 10);
    CHECK(ANSWER_HAS(lab.peer, "still here"));
    CLOSE(lab, w);
}

static void a_flood_for_a_stalled_interpreter_ends_at_its_bound(void) {
    struct lab lab;
    lab_open(&lab);
    static uint8_t block[5 + 4000] = {RB_TAG_BINARY, 0, 0, 4000 >> 8, 4000 & 255};
    /* 8 MB, the bound is 1 MiB; nobody takes events */
    for (int i = 0; i < 2000; i++) lab_to_somebody_else(lab.peer, block, sizeof block);
    CHECK(lab_event(&lab, RB_EVENT_CONNECTION_LOST));
    CHECK(lab_event_says(&lab, "interpreter_backlog_limit_reached"));
    lab_close(&lab);
}

int main(void) {
    RUN(a_payload_in_fragments_reaches_the_worker_whole);
    RUN(a_role_whose_payload_still_arrives_is_gone_after_it);
    RUN(bounds_of_connections_change_while_they_are_up);
    RUN(too_large_is_answered_from_the_head_and_the_rest_passes_by);
    RUN(a_payload_cut_off_by_a_dying_peer_is_forgotten);
    RUN(what_is_not_ours_goes_up_whole_and_in_order);
    RUN(garbage_closes_its_own_connection_only);
    RUN(a_flood_for_a_stalled_interpreter_ends_at_its_bound);
    return check_end();
}
