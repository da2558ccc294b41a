/* test_relay_choose.c: which worker gets a job, policy by policy, each against a naive look at all of them (relay/dispatch/choose.h). */
#include "relay/dispatch/choose.h"

#include "check.h"

enum { MOST = 1000 };

static struct rb_choice choice;
static struct rb_choice_member members[MOST];
static uint64_t seed;

static void begin(enum rb_choice_kind kind, uint32_t count) {
    rb_choice_init(&choice, kind);
    if (rb_choice_reserve(&choice, count) < 0) abort();
    for (uint32_t i = 0; i < count; i++) rb_choice_member_init(&members[i]);
    seed = 7;
}

static int pick(void) {
    const struct rb_choice_member *m = rb_choice_pick(&choice, check_random(&seed));
    return m ? (int)(m - members) : -1;
}

static void end(void) { rb_choice_fini(&choice); }

/* 32 jobs that arrive together: who gets how many. */
static int workers_woken(uint64_t service_ns) {
    uint32_t in_flight[10] = {0};
    int woken = 0;
    begin(RB_CHOOSE_SHORTEST, 10);
    for (uint32_t i = 0; i < 10; i++) rb_choice_open(&choice, &members[i], 0);
    for (int job = 0; job < 32; job++) {
        int i = pick();
        woken += in_flight[i]++ == 0;
        rb_choice_open(&choice, &members[i], rb_choice_load(in_flight[i], service_ns));
    }
    end();
    return woken;
}

static void jobs_shorter_than_a_wake_up_stay_with_one_who_is_awake(void) {
    CHECK_EQUAL(workers_woken(100), 1);
    CHECK_EQUAL(workers_woken(2000), 4); /* 8 of them for each */
    CHECK_EQUAL(workers_woken(20000), 10);
    CHECK_EQUAL(workers_woken(0), 10); /* not known yet */
    CHECK_EQUAL(rb_choice_load(7, 1ull << 62), 7);
    CHECK_EQUAL(rb_choice_load(UINT32_MAX, 1), UINT32_MAX >> 13);
}

static const enum rb_choice_kind kinds[] = {RB_CHOOSE_SHORTEST, RB_CHOOSE_IN_TURN, RB_CHOOSE_OF_TWO,
                                            RB_CHOOSE_BY_WEIGHT};

static void nobody_is_picked_who_has_no_room(void) {
    for (int k = 0; k < 4; k++) {
        begin(kinds[k], 20);
        CHECK_EQUAL(pick(), -1);
        int room[20] = {0};
        for (int step = 0; step < 20000; step++) {
            uint32_t i = check_random(&seed) % 20;
            if (check_random(&seed) % 2) {
                rb_choice_open(&choice, &members[i], check_random(&seed) % 40);
                room[i] = 1;
            } else {
                rb_choice_shut(&choice, &members[i]);
                room[i] = 0;
            }
            if (check_random(&seed) % 8 == 0)
                rb_choice_weigh(&choice, &members[i], check_random(&seed) % 5,
                                check_random(&seed) % 300);
            uint32_t open = 0, ramping = 0;
            for (i = 0; i < 20; i++) {
                open += (uint32_t)room[i];
                ramping += room[i] && members[i].share < RB_CHOICE_WHOLE;
                CHECK_EQUAL(rb_choice_is_open(&members[i]), room[i]);
            }
            CHECK_EQUAL(choice.count, open);
            CHECK_EQUAL(choice.ramping, ramping);
            int got = pick();
            CHECK(open ? got >= 0 && room[got] : got == -1);
        }
        end();
    }
}

static void the_shortest_queue_is_joined(void) {
    begin(RB_CHOOSE_SHORTEST, 50);
    for (uint32_t i = 0; i < 50; i++)
        rb_choice_weigh(&choice, &members[i], 1 + i % 3, RB_CHOICE_WHOLE);
    for (int step = 0; step < 50000; step++) {
        uint32_t i = check_random(&seed) % 50;
        if (check_random(&seed) % 4)
            rb_choice_open(&choice, &members[i], check_random(&seed) % 300);
        else
            rb_choice_shut(&choice, &members[i]);
        int32_t least = RB_LEVELS;
        for (i = 0; i < 50; i++) {
            int32_t level = rb_level_of(members[i].load / members[i].weight);
            if (rb_choice_is_open(&members[i]) && level < least) least = level;
        }
        int got = pick();
        if (got >= 0) CHECK_EQUAL(rb_level_of(members[got].load / members[got].weight), least);
    }
    end();
}

static void levels_are_exact_to_fifteen_and_within_a_quarter_above(void) {
    for (uint32_t load = 0; load < 16; load++) CHECK_EQUAL(rb_level_of(load), load);
    for (uint32_t load = 16; load < 45000; load++) {
        int32_t level = rb_level_of(load);
        CHECK(level >= 16 && level < RB_LEVELS);
        CHECK(level >= rb_level_of(load - 1));
        CHECK(rb_level_of(load + load / 4 + 1) > level);
    }
}

static void of_equally_short_queues_each_has_its_turn(void) {
    begin(RB_CHOOSE_SHORTEST, 10);
    for (uint32_t i = 0; i < 10; i++) rb_choice_open(&choice, &members[i], 0);
    for (uint32_t load = 0; load < 64; load++) {
        uint32_t seen = 0;
        for (int i = 0; i < 10; i++) {
            int got = pick();
            seen |= 1u << got;
            rb_choice_open(&choice, &members[got], members[got].load + 1);
        }
        CHECK_EQUAL(seen, 0x3ff);
    }
    end();
}

static void a_weight_of_three_holds_three_jobs_for_each_of_one(void) {
    begin(RB_CHOOSE_SHORTEST, 2);
    rb_choice_weigh(&choice, &members[1], 3, RB_CHOICE_WHOLE);
    for (uint32_t i = 0; i < 2; i++) rb_choice_open(&choice, &members[i], 0);
    uint32_t got[2] = {0};
    for (int i = 0; i < 40; i++) {
        int m = pick();
        got[m]++;
        rb_choice_open(&choice, &members[m], members[m].load + 1);
    }
    CHECK(got[1] >= 29 && got[1] <= 31);
    end();
}

static void turns_go_round_whoever_comes_or_goes(void) {
    uint32_t order[30], count = 0; /* the model: a list */
    begin(RB_CHOOSE_IN_TURN, 30);
    for (int step = 0; step < 20000; step++) {
        uint32_t i = check_random(&seed) % 30, at = 0;
        while (at < count && order[at] != i) at++;
        switch (check_random(&seed) % 4) {
        case 0:
            rb_choice_open(&choice, &members[i], 0);
            if (at == count) order[count++] = i;
            break;
        case 1:
            rb_choice_shut(&choice, &members[i]);
            if (at < count) memmove(order + at, order + at + 1, (--count - at) * sizeof *order);
            break;
        default:
            CHECK_EQUAL(pick(), count ? (int)order[0] : -1);
            if (count) {
                uint32_t first = order[0];
                memmove(order, order + 1, (count - 1) * sizeof *order);
                order[count - 1] = first;
            }
        }
    }
    end();
}

static void at_any_time_two_have_the_turns_of_their_weights_to_within_one(void) {
    static const uint32_t weights[] = {1, 1, 2, 3, 5, 8};
    enum { COUNT = 6 };
    begin(RB_CHOOSE_BY_WEIGHT, COUNT);
    for (uint32_t i = 0; i < COUNT; i++) {
        rb_choice_weigh(&choice, &members[i], weights[i], RB_CHOICE_WHOLE);
        rb_choice_open(&choice, &members[i], 0);
    }
    uint32_t got[COUNT] = {0};
    for (uint32_t n = 1; n <= 2000; n++) {
        got[pick()]++;
        for (uint32_t i = 0; i < COUNT; i++) {
            for (uint32_t j = 0; j < i; j++) {
                int64_t off = (int64_t)got[i] * weights[j] - (int64_t)got[j] * weights[i];
                CHECK(off <= weights[i] + weights[j] && -off <= weights[i] + weights[j]);
            }
        }
    }
    rb_choice_weigh(&choice, &members[0], 20, RB_CHOICE_WHOLE); /* live */
    memset(got, 0, sizeof got);
    for (uint32_t n = 0; n < 3900; n++) got[pick()]++;
    CHECK(got[0] > 1990 && got[0] < 2010);
    end();
}

static void one_that_stood_aside_does_not_make_up_for_it(void) {
    begin(RB_CHOOSE_BY_WEIGHT, 2);
    for (uint32_t i = 0; i < 2; i++) rb_choice_open(&choice, &members[i], 0);
    rb_choice_shut(&choice, &members[1]);
    for (int i = 0; i < 1000; i++) CHECK_EQUAL(pick(), 0);
    rb_choice_open(&choice, &members[1], 0);
    uint32_t got[2] = {0};
    for (int i = 0; i < 100; i++) got[pick()]++;
    CHECK(got[1] <= 51);
    end();
}

/* As many jobs as workers, by one draw and by two: log log n / log 2 + O(1) in place of log n / log log n (Mitzenmacher, 2001). */
static void the_shorter_of_two_keeps_all_queues_short(void) {
    begin(RB_CHOOSE_OF_TWO, MOST);
    for (uint32_t i = 0; i < MOST; i++) rb_choice_open(&choice, &members[i], 0);
    uint32_t longest = 0;
    for (uint32_t n = 0; n < MOST; n++) {
        int got = pick();
        rb_choice_open(&choice, &members[got], members[got].load + 1);
        if (members[got].load > longest) longest = members[got].load;
    }
    CHECK(longest <= 3);
    end();
}

static void one_that_ramps_up_has_its_part_of_a_share(void) {
    enum { COUNT = 8, JOBS = 32000 };
    for (int k = 0; k < 4; k++) {
        for (uint32_t share = 64; share <= RB_CHOICE_WHOLE; share *= 2) {
            begin(kinds[k], COUNT);
            rb_choice_weigh(&choice, &members[0], 1, share);
            for (uint32_t i = 0; i < COUNT; i++) rb_choice_open(&choice, &members[i], 0);
            uint32_t got = 0;
            for (int n = 0; n < JOBS; n++) {
                int m = pick();
                got += m == 0;
                /* A job comes and is done: all stay idle. */
                rb_choice_open(&choice, &members[m], 1);
                rb_choice_open(&choice, &members[m], 0);
            }
            uint32_t fair = JOBS * share / (share + (COUNT - 1) * RB_CHOICE_WHOLE);
            CHECK(got > fair * 4 / 5 && got < fair * 6 / 5);
            end();
        }
    }
}

static void where_all_ramp_up_none_waits_for_another(void) {
    for (int k = 0; k < 4; k++) {
        begin(kinds[k], 3);
        for (uint32_t i = 0; i < 3; i++) {
            rb_choice_weigh(&choice, &members[i], 1, 1);
            rb_choice_open(&choice, &members[i], 0);
        }
        for (int i = 0; i < 100; i++) CHECK(pick() >= 0);
        end();
    }
}

int main(void) {
    RUN(jobs_shorter_than_a_wake_up_stay_with_one_who_is_awake);
    RUN(nobody_is_picked_who_has_no_room);
    RUN(the_shortest_queue_is_joined);
    RUN(levels_are_exact_to_fifteen_and_within_a_quarter_above);
    RUN(of_equally_short_queues_each_has_its_turn);
    RUN(a_weight_of_three_holds_three_jobs_for_each_of_one);
    RUN(turns_go_round_whoever_comes_or_goes);
    RUN(at_any_time_two_have_the_turns_of_their_weights_to_within_one);
    RUN(one_that_stood_aside_does_not_make_up_for_it);
    RUN(the_shorter_of_two_keeps_all_queues_short);
    RUN(one_that_ramps_up_has_its_part_of_a_share);
    RUN(where_all_ramp_up_none_waits_for_another);
    return check_end();
}
