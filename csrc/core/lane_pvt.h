/* lane_pvt.h: what both ends of a lane share: where the parts lie. */
#ifndef RINGBRIDGE_LANE_PVT_H
#define RINGBRIDGE_LANE_PVT_H

#include "link_pvt.h"
#include "ringbridge/lane_layout.h"

struct rb_lane_sizes {
    uint32_t rings, slots;
    uint32_t completion_slots; /* worked out */
    uint32_t result_block_bytes, result_blocks /* worked out */;
    uint64_t arena_bytes, result_bytes;
};
struct rb_lane_parts {
    uint64_t heads_at, completions_at, results_at, relay_side_bytes;
    uint64_t tails_at, cancels_at, givebacks_at, submissions_at, arenas_at, beam_side_bytes;
};
/* The one place that knows the order of the parts: fills in what is worked out. -EINVAL when a number breaks its rule (lane_link.h,
 * rb_lane_config). */
int rb_lane_parts(struct rb_lane_parts *parts, struct rb_lane_sizes *sizes);

enum { RB_LANE_GUARDS_MAX = 7 };
int rb_lane_relay_guards(const struct rb_lane_parts *parts, struct rb_guard *guards);
int rb_lane_beam_guards(const struct rb_lane_parts *parts, struct rb_guard *guards);
enum { RB_LANE_TELEMETRY_GUARDS = 3 };
int rb_lane_telemetry_guards(struct rb_guard *guards);

#endif
