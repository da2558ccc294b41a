/* lane_parts.c: where each part of a lane lies. The relay lays a lane out with it, the BEAM's end checks the header against it. */
#include <errno.h>

#include "lane_pvt.h"

enum { SLOTS_MIN = 2, SLOTS_MAX = 65536 };
static const uint64_t arena_bytes_max = UINT64_C(1) << 32;
static const uint64_t result_bytes_max = UINT64_C(1) << 40;
static const uint64_t result_blocks_max = UINT64_C(1) << 20; /* a give-back ring of 8 MiB */

static int power_of_two(uint64_t n) { return n != 0 && (n & (n - 1)) == 0; }

static uint64_t whole_pages(uint64_t bytes) {
    return (bytes + RB_PAGE_BYTES - 1) / RB_PAGE_BYTES * RB_PAGE_BYTES;
}

/* Where the part after one of `bytes` at `at` begins: whole pages, then a guard. */
static uint64_t after(uint64_t at, uint64_t bytes) {
    return at + whole_pages(bytes) + RB_PAGE_BYTES;
}

int rb_lane_parts(struct rb_lane_parts *parts, struct rb_lane_sizes *s) {
    struct rb_lane_parts p;
    uint64_t slots = (uint64_t)s->rings * s->slots, completions = SLOTS_MIN, blocks;

    if (s->rings < 2 || s->rings > RB_LANE_RINGS_MAX) return -EINVAL;
    if (!power_of_two(s->slots) || s->slots < SLOTS_MIN || s->slots > SLOTS_MAX) return -EINVAL;
    if (s->arena_bytes == 0 || s->arena_bytes % RB_PAGE_BYTES || s->arena_bytes > arena_bytes_max)
        return -EINVAL;
    if (!power_of_two(s->result_block_bytes) || s->result_block_bytes % RB_PAGE_BYTES)
        return -EINVAL;
    if (s->result_bytes > result_bytes_max || s->result_bytes % s->result_block_bytes)
        return -EINVAL;
    blocks = s->result_bytes / s->result_block_bytes;
    if (!power_of_two(blocks) || blocks > result_blocks_max) return -EINVAL;
    while (completions < slots) completions *= 2;
    s->completion_slots = (uint32_t)completions;
    s->result_blocks = (uint32_t)blocks;

    p.heads_at = after(RB_LANE_AT_POSITIONS, sizeof(struct rb_lane_relay_positions));
    p.completions_at = after(p.heads_at, s->rings * sizeof(struct rb_lane_position));
    p.results_at = after(p.completions_at, completions * sizeof(struct rb_lane_completion));
    p.relay_side_bytes = after(p.results_at, s->result_bytes);
    p.tails_at = after(RB_LANE_AT_POSITIONS, sizeof(struct rb_lane_beam_positions));
    p.cancels_at = after(p.tails_at, s->rings * sizeof(struct rb_lane_position));
    p.givebacks_at = after(p.cancels_at, slots * sizeof(struct rb_lane_cancel));
    p.submissions_at = after(p.givebacks_at, blocks * sizeof(struct rb_lane_giveback));
    p.arenas_at = after(p.submissions_at, slots * sizeof(struct rb_lane_submission));
    p.beam_side_bytes = after(p.arenas_at, s->rings * s->arena_bytes);
    *parts = p;
    return 0;
}

static int guards_before(const uint64_t *begins, int count, struct rb_guard *guards) {
    for (int i = 0; i < count; i++)
        guards[i] = (struct rb_guard){.at = begins[i] - RB_PAGE_BYTES, .bytes = RB_PAGE_BYTES};
    return count;
}

int rb_lane_relay_guards(const struct rb_lane_parts *p, struct rb_guard *guards) {
    const uint64_t begins[] = {RB_LANE_AT_POSITIONS, p->heads_at, p->completions_at, p->results_at,
                               p->relay_side_bytes};
    return guards_before(begins, sizeof begins / sizeof *begins, guards);
}

int rb_lane_beam_guards(const struct rb_lane_parts *p, struct rb_guard *guards) {
    const uint64_t begins[] = {RB_LANE_AT_POSITIONS, p->tails_at,       p->cancels_at,
                               p->givebacks_at,      p->submissions_at, p->arenas_at,
                               p->beam_side_bytes};
    return guards_before(begins, sizeof begins / sizeof *begins, guards);
}

/* What lies where in the telemetry is said by lane.toml, since it is the same for all: here it is held to the rule of the other parts. */
#define TELEMETRY_AFTER(at, bytes) \
    ((at) + ((bytes) + RB_PAGE_BYTES - 1) / RB_PAGE_BYTES * RB_PAGE_BYTES + RB_PAGE_BYTES)
enum {
    FIGURES_BYTES = sizeof(struct rb_lane_telemetry_figures) +
        RB_LANE_TELEMETRY_ROLES_MAX * sizeof(struct rb_lane_telemetry_role) +
        RB_LANE_TELEMETRY_WORKERS_MAX * sizeof(struct rb_lane_telemetry_worker),
    LIST_BYTES = sizeof(struct rb_lane_telemetry_list) +
        RB_LANE_TELEMETRY_ERRORS_MAX * sizeof(struct rb_lane_telemetry_error) +
        RB_LANE_TELEMETRY_WORKERS_MAX * sizeof(struct rb_lane_telemetry_place),
};
__extension__ _Static_assert(RB_LANE_TELEMETRY_AT_LIST ==
                                 TELEMETRY_AFTER(RB_LANE_TELEMETRY_AT_FIGURES, FIGURES_BYTES),
                             "the list begins behind the figures");
__extension__ _Static_assert(RB_LANE_TELEMETRY_BYTES ==
                                 TELEMETRY_AFTER(RB_LANE_TELEMETRY_AT_LIST, LIST_BYTES),
                             "the telemetry ends behind the list");

int rb_lane_telemetry_guards(struct rb_guard *guards) {
    const uint64_t begins[] = {RB_LANE_TELEMETRY_AT_FIGURES, RB_LANE_TELEMETRY_AT_LIST,
                               RB_LANE_TELEMETRY_BYTES};
    return guards_before(begins, sizeof begins / sizeof *begins, guards);
}
