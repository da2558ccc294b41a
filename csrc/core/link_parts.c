/* link_parts.c: where each part of a link lies. The relay lays a link out with it, the worker
 * checks the header against it. */
#include <errno.h>

#include "link_pvt.h"

enum {
    SLOTS_MIN = 2,
    SLOTS_MAX = 65536,
    POPULATED_RESULTS = 1 << 20,
};
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

int rb_link_parts(struct rb_link_parts *parts, uint32_t slots, uint32_t result_block_bytes,
                  uint64_t result_bytes) {
    struct rb_link_parts p;
    uint64_t blocks;

    if (!power_of_two(slots) || slots < SLOTS_MIN || slots > SLOTS_MAX) return -EINVAL;
    if (!power_of_two(result_block_bytes) || result_block_bytes % RB_PAGE_BYTES) return -EINVAL;
    if (result_bytes > result_bytes_max || result_bytes % result_block_bytes) return -EINVAL;
    blocks = result_bytes / result_block_bytes;
    if (!power_of_two(blocks) || blocks > result_blocks_max) return -EINVAL;

    p.requests_at = after(RB_AT_POSITIONS, sizeof(struct rb_relay_positions));
    p.cancels_at = after(p.requests_at, (uint64_t)slots * sizeof(struct rb_request));
    p.demands_at = after(p.cancels_at, (uint64_t)slots * sizeof(uint64_t));
    p.givebacks_at = after(p.demands_at, (uint64_t)slots * sizeof(struct rb_demand));
    p.relay_side_bytes = after(p.givebacks_at, blocks * sizeof(struct rb_giveback));
    p.completions_at = after(RB_AT_TELEMETRY, sizeof(struct rb_telemetry));
    p.results_at = after(p.completions_at, (uint64_t)slots * sizeof(struct rb_completion));
    p.worker_side_bytes = after(p.results_at, result_bytes);
    p.populated_results = result_bytes < POPULATED_RESULTS ? result_bytes : POPULATED_RESULTS;
    *parts = p;
    return 0;
}

/* Every part is followed by one guard page, the last one too: `begins` are the offsets of the parts
 * after the first. */
static int guards_before(const uint64_t *begins, int count, struct rb_guard *guards) {
    for (int i = 0; i < count; i++)
        guards[i] = (struct rb_guard){.at = begins[i] - RB_PAGE_BYTES, .bytes = RB_PAGE_BYTES};
    return count;
}

int rb_link_relay_guards(const struct rb_link_parts *p, struct rb_guard *guards) {
    const uint64_t begins[] = {RB_AT_POSITIONS, p->requests_at,  p->cancels_at,
                               p->demands_at,   p->givebacks_at, p->relay_side_bytes};
    return guards_before(begins, sizeof begins / sizeof *begins, guards);
}

int rb_link_worker_guards(const struct rb_link_parts *p, struct rb_guard *guards) {
    const uint64_t begins[] = {RB_AT_POSITIONS, p->completions_at, p->results_at,
                               p->worker_side_bytes};
    return guards_before(begins, sizeof begins / sizeof *begins, guards);
}
