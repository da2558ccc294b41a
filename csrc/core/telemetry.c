/* telemetry.c: the seqlock of the telemetry block (telemetry.h has the protocol and the labels). */
#include "ringbridge/telemetry.h"

#include <errno.h>
#include <string.h>

enum { WORDS = sizeof(struct rb_telemetry) / sizeof(uint64_t), TRIES = 1000 };

/* The block as words: the first holds the sequence (low half) and the gate (high half). */
union block {
    struct rb_telemetry fields;
    uint64_t words[WORDS];
};
RB_ASSERT_SIZE(union block, WORDS * sizeof(uint64_t));
RB_ASSERT_AT(struct rb_telemetry, sequence, 0);
RB_ASSERT_AT(struct rb_telemetry, gate, 4);
RB_ASSERT_AT(struct rb_telemetry, heartbeats, 8);

void rb_telemetry_store(struct rb_telemetry *shared, const struct rb_telemetry *values) {
    union block from = {.fields = *values}, *to = (union block *)shared;
    /* Relaxed: only writers store it, and they take turns. Made even, should a predecessor have
     * died inside. */
    uint32_t sequence = rb_load_relaxed(&shared->sequence) & ~1u;

    rb_store_relaxed(&shared->sequence, sequence + 1); /* T0: kept before the words by T1 */
    rb_store_release(&shared->gate, from.fields.gate); /* T1: pairs with T4 */
    for (int i = 1; i < WORDS; i++) rb_store_release(&to->words[i], from.words[i]);
    rb_store_release(&shared->sequence, sequence + 2); /* T2: pairs with T3 */
}

int rb_telemetry_load(const struct rb_telemetry *shared, struct rb_telemetry *copy) {
    const union block *from = (const union block *)shared;
    union block read;

    for (int tries = 0; tries < TRIES; tries++) {
        uint32_t sequence = rb_load_acquire(&shared->sequence); /* T3: pairs with T2 */
        if (sequence & 1) {
            rb_pause();
            continue;
        }
        read.fields.gate = rb_load_acquire(&shared->gate); /* T4: pairs with T1; keeps T5 below */
        for (int i = 1; i < WORDS; i++) read.words[i] = rb_load_acquire(&from->words[i]);
        if (rb_load_relaxed(&shared->sequence) != sequence)
            continue; /* T5: ordered by the acquire loads before it */
        read.fields.sequence = sequence;
        *copy = read.fields;
        return 0;
    }
    return -EAGAIN;
}
