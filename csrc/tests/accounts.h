/* accounts.h: how a relay's jobs have ended, counted: read, waited for, and added up. */
#ifndef RINGBRIDGE_TESTS_ACCOUNTS_H
#define RINGBRIDGE_TESTS_ACCOUNTS_H

#include "relay_lab.h"

static inline struct rb_relay_stats stats_of(struct lab *lab) {
    struct rb_relay_stats s;
    rb_relay_read_stats(lab->relay, &s);
    return s;
}

/* accepted == answered + in flight, whatever happened. */
static inline int accounts_are_even(struct lab *lab) {
    struct rb_relay_stats s = stats_of(lab);
    uint64_t sum = s.in_flight;
    for (int i = 0; i < RB_REASONS; i++) sum += s.answered[i];
    return sum == s.accepted;
}

/* So many have been answered so. */
static inline void wait_until_answered(struct lab *lab, enum rb_reason reason, uint64_t count) {
    struct timespec t = {.tv_nsec = 1000000};
    for (int ms = 0; ms < LAB_WAIT_MS && stats_of(lab).answered[reason] < count; ms++)
        nanosleep(&t, NULL);
    CHECK_EQUAL(stats_of(lab).answered[reason], count);
}

/* A test with one worker, `w`; at its end no job is lost. */
#define WITH_WORKER(lab, w) \
    struct lab lab;         \
    lab_open(&lab);         \
    struct lab_worker *w = lab_worker(&lab)
#define CLOSE(lab, w)               \
    CHECK(accounts_are_even(&lab)); \
    lab_worker_end(&lab, w, NULL);  \
    lab_close(&lab)

#endif
