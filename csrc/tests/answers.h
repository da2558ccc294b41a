/* answers.h: the frames that a peer reads one after the other, looked through for what they should say. */
#ifndef RINGBRIDGE_TESTS_ANSWERS_H
#define RINGBRIDGE_TESTS_ANSWERS_H

#include "accounts.h"

static uint8_t frame[1 << 20]; /* the last one */
static int size;               /* of it; 0: the relay has closed, -1: none came */

static inline int has(const void *wanted, size_t n) {
    return size > 0 && memmem(frame, (size_t)size, wanted, n) != NULL;
}
#define HAS(literal) has(literal, sizeof(literal) - 1)
#define NEXT(lab) (size = lab_read((lab)->peer, frame, sizeof frame, LAB_WAIT_MS))
#define SILENT(lab) CHECK_EQUAL(lab_read((lab)->peer, frame, sizeof frame, 50), -1)

#endif
