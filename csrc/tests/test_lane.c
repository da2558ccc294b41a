/* What goes over a lane comes back once, and room is found again (lane.h, lane_link.h); what lies of either side about it cost the other:
 * the lane, and no more. */
#include "core/lane_client.h"
#include "lane_ends.h"

/* --- There and back ---------------------------------------------------------------------------------------------------------- */

static void bytes_of_every_size_come_back_as_they_went(void) {
    static const size_t sizes[] = {0, 1, 63, 64, 65, 4095, 4096, 4097, 32 << 10};
    static uint8_t bytes[32 << 10];
    struct ends e;
    ends_open(&e);
    for (size_t i = 0; i < sizeof bytes; i++) bytes[i] = (uint8_t)(i * 7);
    CHECK_EQUAL(rb_lane_request_max(e.beam), 32 << 10);
    for (int round = 0; round < 30; round++) {
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
            struct seen seen = {.count = 0};
            uint64_t number;
            uint32_t ring = (uint32_t)(round + i) % 3,
                     status = round & 1 ? RB_LANE_STATUS_RAW : RB_LANE_STATUS_TERM;
            CHECK_EQUAL(ends_send(&e, ring, bytes, sizes[i], &number), 0);
            CHECK_EQUAL(ends_echo(&e, ring, 9, status), 1);
            CHECK_EQUAL(rb_lane_waiting(e.beam), 1);
            CHECK_EQUAL(rb_lane_drain(e.beam, ends_see, &seen, 10), 1);
            CHECK_EQUAL(rb_lane_waiting(e.beam), 0);
            CHECK(seen.last.number == number && seen.last.size == sizes[i]);
            CHECK_EQUAL((uint32_t)seen.last.kind, status);
            CHECK_EQUAL(memcmp(seen.bytes, bytes, sizes[i]), 0);
            CHECK_EQUAL(rb_lane_held_bytes(e.beam), 0);
        }
    }
    struct rb_lane_figures f;
    rb_lane_read_figures(e.beam, &f);
    CHECK(f.sent == 270 && f.answered == 270 && f.open == 0 && f.full == 0);
    ends_close(&e);
}

static void a_raw_request_has_its_role_before_its_bytes(void) {
    struct ends e;
    uint64_t number;
    struct iovec parts[2] = {{(void *)"pay", 3}, {(void *)"load", 4}};
    struct rb_lane_request q = {.form = RB_LANE_RAW,
                                .caller = 99,
                                .parts = parts,
                                .count = 2,
                                .role = (const uint8_t *)"echo",
                                .role_bytes = 4,
                                .timeout_ms = 250};
    ends_open(&e);
    CHECK_EQUAL(rb_lane_claim(e.beam, 1, &number), 0);
    CHECK_EQUAL(rb_lane_send(e.beam, 1, number, &q), 0);
    CHECK_EQUAL(rb_ring_available(&e.relay.submission_rings[1]), 1);
    const struct rb_lane_submission *s = rb_lane_link_submission(&e.relay, 1, 0);
    CHECK(s->form == RB_LANE_FORM_RAW && s->role_bytes == 4 && s->timeout_ms == 250);
    CHECK(s->caller == 99 && s->bytes == 11 && memcmp(s->body, "echopayload", 11) == 0);
    q.role_bytes = 0;
    CHECK_EQUAL(rb_lane_claim(e.beam, 1, &number), 0);
    CHECK_EQUAL(rb_lane_send(e.beam, 1, number, &q), -EINVAL);
    ends_close(&e);
}

static void what_does_not_fit_undoes_its_claim(void) {
    static uint8_t bytes[33 << 10];
    struct ends e;
    uint64_t number, before;
    ends_open(&e);
    CHECK_EQUAL(ends_send(&e, 0, bytes, sizeof bytes, &number), -EMSGSIZE);
    CHECK_EQUAL(ends_send(&e, 0, bytes, 32 << 10, &before), 0);
    CHECK_EQUAL(ends_send(&e, 0, bytes, 32 << 10, &number), 0);
    CHECK_EQUAL(ends_send(&e, 0, bytes, 65, &number), -EAGAIN); /* the arena is full */
    for (int i = 0; i < 6; i++) CHECK_EQUAL(ends_send(&e, 0, bytes, 64, &number), 0);
    CHECK_EQUAL(rb_lane_claim(e.beam, 0, &number), -EAGAIN); /* eight are open */
    CHECK_EQUAL(rb_lane_claim(e.beam, 1, &number), 0);       /* another ring has its own */
    rb_lane_unclaim(e.beam, 1, number);
    struct rb_lane_figures f;
    rb_lane_read_figures(e.beam, &f);
    CHECK(f.full == 2 && f.open == 8);
    ends_close(&e);
}

static void generations_of_a_slot_run_without_gaps(void) {
    struct ends e;
    struct seen seen = {.count = 0};
    uint32_t generation[24] = {0};
    uint64_t number, claim;
    ends_open(&e);
    for (int i = 0; i < 200; i++) {
        CHECK_EQUAL(rb_lane_claim(e.beam, 0, &claim),
                    0); /* one that is not sent counts for nothing */
        rb_lane_unclaim(e.beam, 0, claim);
        CHECK_EQUAL(ends_send(&e, (uint32_t)i % 3, "x", 1, &number), 0);
        CHECK_EQUAL(number >> 32, ++generation[rb_lane_slot(number)]);
        ends_echo(&e, (uint32_t)i % 3, 1, RB_LANE_STATUS_TERM);
        CHECK_EQUAL(rb_lane_drain(e.beam, ends_see, &seen, 1), 1);
    }
    CHECK_EQUAL(seen.count, 200);
    ends_close(&e);
}

/* Against a plain count of what is open: bytes of any sizes in any order of sending and taking are never written over. */
static void an_arena_gives_no_byte_twice(void) {
    struct ends e;
    uint64_t random = 42, number;
    static uint8_t bytes[32 << 10];
    struct {
        size_t size;
        uint8_t fill;
    } open[8];
    int first = 0, count = 0, refused = 0;
    ends_open(&e);
    for (int step = 0; step < 20000; step++) {
        if (check_random(&random) % 2) {
            size_t size = check_random(&random) % (step % 3 ? 200 : sizeof bytes);
            uint8_t fill = (uint8_t)step;
            memset(bytes, fill, size);
            int rc = ends_send(&e, 0, bytes, size, &number);
            refused += rc == -EAGAIN;
            if (rc == 0) {
                open[(first + count) % 8].size = size;
                open[(first + count++) % 8].fill = fill;
            }
            CHECK(rc == 0 || rc == -EAGAIN);
            CHECK(count <= 8);
        } else if (count > 0) {
            struct seen seen = {.count = 0};
            CHECK_EQUAL(rb_ring_available(&e.relay.submission_rings[0]), count);
            CHECK_EQUAL(ends_echo(&e, 0, 1, RB_LANE_STATUS_RAW), 1);
            CHECK_EQUAL(rb_lane_drain(e.beam, ends_see, &seen, 1), 1);
            CHECK_EQUAL(seen.last.size, open[first].size);
            for (size_t i = 0; i < seen.last.size; i += 61)
                CHECK_EQUAL(seen.bytes[i], open[first].fill);
            first = (first + 1) % 8, count--;
        }
    }
    CHECK(refused > 100);
    ends_close(&e);
}

/* --- Kept ------------------------------------------------------------------------------------------------------------------- */

static void what_is_kept_stays_until_it_is_given_back_once(void) {
    struct ends e;
    struct seen seen = {.verdict = RB_LANE_KEEP};
    static uint8_t bytes[5000];
    uint64_t number;
    ends_open(&e);
    memset(bytes, 3, sizeof bytes);
    CHECK_EQUAL(ends_send(&e, 0, bytes, sizeof bytes, &number), 0);
    ends_echo(&e, 0, 1, RB_LANE_STATUS_RAW);
    CHECK_EQUAL(rb_lane_drain(e.beam, ends_see, &seen, 1), 1);
    CHECK_EQUAL(rb_lane_held_bytes(e.beam), 8192);
    CHECK_EQUAL(e.relay.results_region.taken, 2);
    const uint8_t *kept = seen.last.bytes;
    for (int i = 0; i < 300; i++) { /* others come and go meanwhile */
        struct seen other = {.verdict = RB_LANE_TAKEN};
        CHECK_EQUAL(ends_send(&e, 1, bytes, 4096, &number), 0);
        ends_echo(&e, 1, 1, RB_LANE_STATUS_RAW);
        CHECK_EQUAL(rb_lane_drain(e.beam, ends_see, &other, 1), 1);
        CHECK(other.last.bytes < kept || other.last.bytes >= kept + 8192);
    }
    CHECK(kept[0] == 3 && kept[4999] == 3);
    CHECK_EQUAL(rb_lane_give_back(e.beam, seen.last.at + 4096), -EINVAL); /* not its name */
    CHECK_EQUAL(rb_lane_give_back(e.beam, seen.last.at), 0);
    CHECK_EQUAL(rb_lane_give_back(e.beam, seen.last.at), -EINVAL);
    CHECK_EQUAL(rb_lane_give_back(e.beam, 1 << 20), -EINVAL);
    CHECK(rb_lane_link_reclaim(&e.relay) > 0);
    CHECK_EQUAL(e.relay.results_region.taken, 0);
    ends_close(&e);
}

static void a_small_term_is_private_and_a_large_one_may_be_kept(void) {
    struct rb_lane_config config = ends_config();
    struct ends e;
    struct seen seen = {.verdict = RB_LANE_KEEP};
    static uint8_t bytes[RB_LANE_TERM_APART];
    uint64_t number;
    config.arena_bytes = 1 << 20;
    ends_open_as(&e, &config);
    CHECK_EQUAL(ends_send(&e, 0, bytes, sizeof bytes - 1, &number), 0);
    ends_echo(&e, 0, 1, RB_LANE_STATUS_TERM);
    CHECK_EQUAL(rb_lane_drain(e.beam, ends_see, &seen, 1), 1);
    CHECK(!seen.last.keepable && seen.last.size == sizeof bytes - 1);
    CHECK_EQUAL(rb_lane_held_bytes(e.beam), 0); /* whatever the callback says */
    CHECK_EQUAL(ends_send(&e, 0, bytes, sizeof bytes, &number), 0);
    ends_echo(&e, 0, 1, RB_LANE_STATUS_TERM);
    CHECK_EQUAL(rb_lane_drain(e.beam, ends_see, &seen, 1), 1);
    CHECK(seen.last.keepable && rb_lane_held_bytes(e.beam) == sizeof bytes);
    ends_close(&e);
}

static void a_region_that_is_all_kept_says_so(void) {
    struct ends e;
    static uint8_t bytes[1 << 20];
    struct rb_lane_piece piece = {bytes, sizeof bytes}, more = {bytes, 100}, small = {bytes, 64};
    ends_open(&e);
    CHECK_EQUAL(rb_lane_link_put(&e.relay, 1, RB_LANE_STATUS_RAW, &piece, 1), 0);
    CHECK_EQUAL(rb_lane_link_put(&e.relay, 2, RB_LANE_STATUS_RAW, &more, 1), -ENOSPC);
    CHECK_EQUAL(rb_lane_link_put(&e.relay, 2, RB_LANE_STATUS_RAW, &small, 1), 0); /* in the slot */
    struct rb_lane_piece two[2] = {piece, more};
    CHECK_EQUAL(rb_lane_link_put(&e.relay, 3, RB_LANE_STATUS_RAW, two, 2), -EMSGSIZE);
    ends_close(&e);
}

/* --- Lies -------------------------------------------------------------------------------------------------------------------- */

enum lie {
    OF_NO_REQUEST,
    OF_ANOTHER_GENERATION,
    OF_NO_SLOT,
    STATUS_0,
    STATUS_4,
    INLINE_TOO_LONG,
    PLACE_PAST_THE_END,
    PLACE_OFF_BLOCK,
    PLACE_WRAPS,
    PLACE_EMPTY,
    DROPPED_WITH_BYTES,
    TAIL_TOO_FAR,
    TAIL_BACK,
    LIES
};

/* One honest request is open, number `n`; the relay's completion is bent. */
static void tell_lie(struct ends *e, enum lie lie, uint64_t n) {
    struct rb_lane_link *l = &e->relay;
    int64_t slot = rb_ring_claim(&l->completion_ring);
    struct rb_lane_completion *c = &l->completions[slot];
    memset(c, 0, sizeof *c);
    *c = (struct rb_lane_completion){
        .request = n, .status = RB_LANE_STATUS_RAW, .flags = RB_LANE_FLAG_INLINE, .bytes = 1};
    switch (lie) {
    case OF_NO_REQUEST: c->request = n + 1; break;
    case OF_ANOTHER_GENERATION: c->request = n + (UINT64_C(1) << 32); break;
    case OF_NO_SLOT: c->request = UINT32_MAX; break;
    case STATUS_0: c->status = 0; break;
    case STATUS_4: c->status = 4; break;
    case INLINE_TOO_LONG: c->bytes = 65; break;
    case PLACE_PAST_THE_END: c->flags = 0, c->at = 1 << 20, c->bytes = 1; break;
    case PLACE_OFF_BLOCK: c->flags = 0, c->at = 64, c->bytes = 100; break;
    case PLACE_WRAPS: c->flags = 0, c->at = UINT64_MAX - 4095, c->bytes = 8192; break;
    case PLACE_EMPTY: c->flags = 0, c->bytes = 0; break;
    case DROPPED_WITH_BYTES: c->status = RB_LANE_STATUS_DROPPED; break;
    default: break;
    }
    rb_ring_publish(&l->completion_ring);
    if (lie == TAIL_TOO_FAR) rb_store_seq_cst(&l->ours->completion_tail, UINT64_C(1) << 40);
    if (lie == TAIL_BACK) rb_store_seq_cst(&l->ours->completion_tail, UINT64_MAX);
}

static void a_relay_that_lies_costs_the_lane_and_nothing_else(void) {
    for (int lie = 0; lie < LIES; lie++) {
        struct ends e;
        struct seen seen = {.count = 0};
        uint64_t number, later;
        ends_open(&e);
        CHECK_EQUAL(ends_send(&e, 0, "x", 1, &number), 0);
        tell_lie(&e, (enum lie)lie, number);
        CHECK_EQUAL(rb_lane_drain(e.beam, ends_see, &seen, 10), -EPROTO);
        CHECK_EQUAL(seen.count, 0);
        CHECK_EQUAL(rb_lane_state(e.beam), RB_LANE_BROKEN);
        CHECK(rb_lane_why(e.beam)[0]);
        CHECK_EQUAL(rb_lane_claim(e.beam, 0, &later), -EPIPE);
        CHECK_EQUAL(rb_lane_park(e.beam), 1); /* nobody sleeps on it */
        CHECK_EQUAL(rb_lane_lose(e.beam, ends_see, &seen), 1);
        CHECK(seen.lost == 1 && seen.last.number == number);
        ends_close(&e);
    }
}

static void a_place_that_is_held_is_not_taken_again(void) {
    struct ends e;
    struct seen seen = {.verdict = RB_LANE_KEEP};
    static uint8_t bytes[8192];
    uint64_t first, second;
    ends_open(&e);
    CHECK_EQUAL(ends_send(&e, 0, bytes, sizeof bytes, &first), 0);
    ends_echo(&e, 0, 1, RB_LANE_STATUS_RAW);
    CHECK_EQUAL(rb_lane_drain(e.beam, ends_see, &seen, 1), 1);
    CHECK_EQUAL(ends_send(&e, 0, bytes, 1, &second), 0);
    int64_t slot = rb_ring_claim(&e.relay.completion_ring);
    e.relay.completions[slot] = (struct rb_lane_completion){
        .request = second, .status = RB_LANE_STATUS_RAW, .bytes = 4096, .at = seen.last.at + 4096};
    rb_ring_publish(&e.relay.completion_ring);
    CHECK_EQUAL(rb_lane_drain(e.beam, ends_see, &seen, 1), -EPROTO);
    CHECK_EQUAL(strcmp(rb_lane_why(e.beam), "completion_place"), 0);
    CHECK_EQUAL(rb_lane_give_back(e.beam, seen.last.at), 0); /* what lives, lives on */
    ends_close(&e);
}

static void a_head_that_lies_stops_who_sends(void) {
    struct ends e;
    uint64_t number;
    ends_open(&e);
    rb_store_release((uint64_t *)e.relay.submission_rings[0].shared_head, 5);
    CHECK_EQUAL(ends_send(&e, 0, "x", 1, &number), -EPROTO);
    CHECK_EQUAL(rb_lane_state(e.beam), RB_LANE_BROKEN);
    ends_close(&e);
}

static void the_relay_checks_places_and_extents_of_a_beam(void) {
    struct ends e;
    ends_open(&e);
    struct rb_lane_submission s = {.flags = RB_LANE_FLAG_INLINE, .bytes = 64};
    CHECK(rb_lane_link_bytes(&e.relay, 0, &s) == s.body);
    s.bytes = 65;
    CHECK(!rb_lane_link_bytes(&e.relay, 0, &s));
    s = (struct rb_lane_submission){.at = 0, .bytes = 64 << 10};
    CHECK(rb_lane_link_bytes(&e.relay, 2, &s));
    s.at = 1;
    CHECK(!rb_lane_link_bytes(&e.relay, 2, &s));
    s = (struct rb_lane_submission){.at = UINT64_MAX, .bytes = 1};
    CHECK(!rb_lane_link_bytes(&e.relay, 2, &s));

    ends_close(&e);

    static const uint64_t extents[] = {0, 4096, 64, UINT64_MAX, 1 << 20, UINT64_MAX - 4095};
    static uint8_t bytes[8192];
    for (size_t i = 0; i < sizeof extents / sizeof *extents; i++) {
        struct rb_lane_piece piece = {bytes, sizeof bytes};
        ends_open(&e);
        if (i == 1) CHECK_EQUAL(rb_lane_link_put(&e.relay, 1, RB_LANE_STATUS_RAW, &piece, 1), 0);
        int64_t slot = rb_ring_claim(&e.beam->giveback_ring);
        e.beam->givebacks[slot].at = extents[i]; /* nothing begins there that was lent */
        rb_ring_publish(&e.beam->giveback_ring);
        CHECK_EQUAL(rb_lane_link_reclaim(&e.relay), -EPROTO);
        ends_close(&e);
    }
    ends_open(&e);
    rb_store_seq_cst(&e.beam->ours->giveback_tail, 1000);
    CHECK_EQUAL(rb_lane_link_reclaim(&e.relay), -EPROTO);
    ends_close(&e);
}

/* --- Its end ---------------------------------------------------------------------------------------------------------------- */

static void each_request_that_is_open_at_the_end_is_told_of_once(void) {
    struct ends e;
    struct seen seen = {.count = 0};
    uint64_t number;
    ends_open(&e);
    for (uint32_t ring = 0; ring < 3; ring++)
        for (int i = 0; i < 3; i++) CHECK_EQUAL(ends_send(&e, ring, "x", 1, &number), 0);
    CHECK_EQUAL(rb_lane_claim(e.beam, 0, &number), 0);
    ends_echo(&e, 1, 2, RB_LANE_STATUS_RAW);
    rb_lane_link_end(&e.relay);
    CHECK_EQUAL(rb_lane_state(e.beam), RB_LANE_ENDED);
    struct rb_lane_request q = {.form = RB_LANE_TERM};
    CHECK_EQUAL(rb_lane_send(e.beam, 0, number, &q), -EPIPE);
    CHECK_EQUAL(rb_lane_lose(e.beam, ends_see, &seen), 7);
    CHECK(seen.count == 9 && seen.lost == 7); /* two were answered before the end */
    CHECK_EQUAL(rb_lane_lose(e.beam, ends_see, &seen), 0);
    CHECK_EQUAL(rb_lane_claim(e.beam, RB_LANE_SHARED, &number), -EPIPE);
    ends_close(&e);
}

int main(void) {
    RUN(bytes_of_every_size_come_back_as_they_went);
    RUN(a_raw_request_has_its_role_before_its_bytes);
    RUN(what_does_not_fit_undoes_its_claim);
    RUN(generations_of_a_slot_run_without_gaps);
    RUN(an_arena_gives_no_byte_twice);
    RUN(what_is_kept_stays_until_it_is_given_back_once);
    RUN(a_small_term_is_private_and_a_large_one_may_be_kept);
    RUN(a_region_that_is_all_kept_says_so);
    RUN(a_relay_that_lies_costs_the_lane_and_nothing_else);
    RUN(a_place_that_is_held_is_not_taken_again);
    RUN(a_head_that_lies_stops_who_sends);
    RUN(the_relay_checks_places_and_extents_of_a_beam);
    RUN(each_request_that_is_open_at_the_end_is_told_of_once);
    return check_end();
}
