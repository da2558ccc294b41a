/* dispatch.h: what a role is told about its work: one struct per subject of dispatching, nested in struct rb_role_config.
 *
 * Everything here but `name` and `pool_bytes` may change while the role runs (rb_relay_configure_role, relay.h). The interpreter fills
 * these structs from records of the same shape and field names (bridge/fabric/structs.py): a nested struct from a nested record, an array
 * `x` with its `x_count` from a tuple, and a word such as "reject" in a field `policy` of `admission` from RB_ADMISSION_REJECT. Plain C
 * types only, read by bridge/fabric/build_core.py between the marks. */
#ifndef RINGBRIDGE_DISPATCH_H
#define RINGBRIDGE_DISPATCH_H

#include <stdint.h>

/* <cffi> */
/* Which worker gets a job, and how far ahead of it. */
struct rb_choice_config {
    uint32_t credit_us; /* a worker is given jobs for about so long of its measured service time */
};

/* Which jobs are taken in. */
struct rb_admission_config {
    uint32_t depth_max; /* that may wait in the role's queue */
};

struct rb_role_config {
    const char *name;    /* fixed: callers and workers know the role by it */
    uint64_t pool_bytes; /* fixed: every worker has mapped the pool, and its memory is sealed */
    uint64_t payload_bytes_max;
    uint64_t timeout_default_ms, timeout_max_ms;
    uint32_t cancel_term_ms, cancel_kill_ms;
    struct rb_choice_config choice;
    struct rb_admission_config admission;
};
/* </cffi> */

#endif
