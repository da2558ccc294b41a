/* answers.h: the frames that a peer reads one after the other, looked through for what they should say, and counts waited for. */
#ifndef RINGBRIDGE_TESTS_ANSWERS_H
#define RINGBRIDGE_TESTS_ANSWERS_H

#include "relay_lab.h"

static uint8_t frame[1 << 20]; /* the last one */
static int size;               /* of it; 0: the relay has closed, -1: none came */

static inline int has(const void *wanted, size_t n) {
    return size > 0 && memmem(frame, (size_t)size, wanted, n) != NULL;
}
#define HAS(literal) has(literal, sizeof(literal) - 1)
#define NEXT(lab) (size = lab_read((lab)->peer, frame, sizeof frame, LAB_WAIT_MS))
#define SILENT(lab) CHECK_EQUAL(lab_read((lab)->peer, frame, sizeof frame, 50), -1)

static inline struct rb_relay_stats stats_of(struct lab *lab) {
    struct rb_relay_stats s;
    rb_relay_read_stats(lab->relay, &s);
    return s;
}
/* So many have been answered so. */
static inline void wait_for(struct lab *lab, enum rb_reason reason, uint64_t count) {
    struct timespec t = {.tv_nsec = 1000000};
    for (int ms = 0; ms < LAB_WAIT_MS && stats_of(lab).answered[reason] < count; ms++)
        nanosleep(&t, NULL);
    CHECK_EQUAL(stats_of(lab).answered[reason], count);
}

#endif
