/* telemetry.h: a block that one side writes and the other reads whole, without either waiting: a
 * seqlock.
 *
 *      writer                                       reader
 *      store(sequence, odd)            T0           s = load_acquire(sequence)        T3   even,
 * else again store_release(each word)        T1           load_acquire(each word)           T4
 *      store_release(sequence, even)   T2           load(sequence) == s               T5   else
 * again
 *
 * T2/T3: who sees the even number sees the words before it. T1/T4: who sees a newer word sees the
 * odd number before it, so T5 finds it changed. The order stands on the words (no fences), which
 * ThreadSanitizer can follow; on x86 all of it is free.
 *
 * One writer at a time: threads of one kit that both write take turns by a lock of their own.
 * Death: a writer killed between T0 and T2 leaves the number odd; readers give up after a bounded
 * number of tries. */
#ifndef RINGBRIDGE_TELEMETRY_H
#define RINGBRIDGE_TELEMETRY_H

#include "ringbridge/layout.h"

/* Writes all fields of `values` but its sequence, which the block keeps itself. */
void rb_telemetry_store(struct rb_telemetry *shared, const struct rb_telemetry *values);
/* A consistent copy. 0, or -EAGAIN (and `copy` untouched) when no still moment was found in a
 * bounded number of tries. */
int rb_telemetry_load(const struct rb_telemetry *shared, struct rb_telemetry *copy);

#endif
