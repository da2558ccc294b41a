/* lane_telemetry.h: what a bridge knows of its workers and roles, in memory that BEAMs with a lane read (docs/nif-lane.md).
 *
 *      header | guard | figures: head, roles, workers | guard | list: head, errors, places | guard
 *
 * One sealed memfd of the bridge's, for all of its lanes: no other process can map it writable, workers never see it. Two parts, because
 * two threads know something: the relay the figures, the control plane who there is. Each part is a seqlock, over all of it, with one
 * writer; the order is that of telemetry.h:
 *
 *      writer                                              reader
 *      store(sequence, odd)              T0                s = load_acquire(sequence)           T3   odd: again
 *      store_release(each word)          T1                load_acquire(each word)              T4
 *      store_release(sequence, even)     T2                load(sequence) == s                  T5   else again
 *
 * Death: a bridge killed between T0 and T2 leaves the number odd for good. A reader tries a bounded number of times, and holds each count
 * against what the memory has room for: what a bridge writes here can be false, and do no harm. */
#ifndef RINGBRIDGE_LANE_TELEMETRY_H
#define RINGBRIDGE_LANE_TELEMETRY_H

#include <stddef.h>

#include "ringbridge/lane_layout.h"

/* --- The bridge's end ----------------------------------------------------------------------------------------------------- */

struct rb_lane_telemetry {
    int fd;
    uint8_t *base;
    struct rb_lane_telemetry_list list; /* its head, as this side knows it */
};
/* 0 or a negative errno; nothing is left behind on failure. */
int rb_lane_telemetry_create(struct rb_lane_telemetry *t);
void rb_lane_telemetry_close(struct rb_lane_telemetry *t);

/* Figures, on one thread: begin, each role and worker at its place from 0 on (< RB_LANE_TELEMETRY_..._MAX), end. What was there before
 * and is not put again is gone with the counts of `head`. */
void rb_lane_figures_begin(struct rb_lane_telemetry *t);
void rb_lane_figures_role(struct rb_lane_telemetry *t, uint32_t i,
                          const struct rb_lane_telemetry_role *role);
void rb_lane_figures_worker(struct rb_lane_telemetry *t, uint32_t i,
                            const struct rb_lane_telemetry_worker *worker);
void rb_lane_figures_end(struct rb_lane_telemetry *t, const struct rb_lane_telemetry_figures *head);

/* The list, on one thread, another one perhaps. Each call is a moment of its own. */
void rb_lane_list_place(struct rb_lane_telemetry *t, uint32_t place,
                        const struct rb_lane_telemetry_place *worker);
void rb_lane_list_errors(struct rb_lane_telemetry *t, const struct rb_lane_telemetry_error *errors,
                         uint32_t count);
void rb_lane_list_hidden(struct rb_lane_telemetry *t, uint32_t workers);

/* --- A BEAM's end --------------------------------------------------------------------------------------------------------- */

/* Maps it read-only. -EPROTO with the rule that it breaks. */
int rb_lane_telemetry_map(int fd, const uint8_t **base, const char **rule);
void rb_lane_telemetry_unmap(const uint8_t *base);

/* So many bytes a copy has as of now; -EPROTO: a count for which there is no room. */
int64_t rb_lane_telemetry_size(const uint8_t *base);
/* Both parts, each of one moment, without the rooms that are empty: figures, roles, workers; list, errors, places. How many bytes; -EAGAIN:
 * no still moment was found; -ENOSPC: `room` is too small; -EPROTO. */
int64_t rb_lane_telemetry_copy(const uint8_t *base, uint8_t *to, size_t room);

#endif
