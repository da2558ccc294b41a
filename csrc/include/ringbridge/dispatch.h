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
/* Which of the waiting jobs is next (relay/dispatch/queue.h). */
struct rb_order_config {
    uint32_t aging_ms; /* after so long in its band a job moves one up; 0: never */
    uint32_t
        patience_ms; /* nobody is passed by earlier deadlines for longer; 0: by deadline alone */
};

/* Which worker gets a job, and how far ahead of it (relay/dispatch/choose.h, affinity.h). */
enum rb_choice_policy {
    RB_CHOICE_SHORTEST_QUEUE,
    RB_CHOICE_ROUND_ROBIN,
    RB_CHOICE_WEIGHTED,
    RB_CHOICE_TWO_CHOICES,
    RB_CHOICE_CONSISTENT_HASH, /* of the payload, where a job names no key */
    RB_CHOICE_STICKY           /* by the caller, where a job names no key */
};
struct rb_choice_config {
    uint32_t policy;    /* enum rb_choice_policy */
    uint32_t credit_us; /* a worker is given jobs for about so long of its measured service time */
    uint32_t ramp_ms;   /* a worker that has just greeted gets its whole share after so long */
    uint32_t ordered;   /* 1: jobs of one key run one after the other, as they came */
    uint32_t steal;     /* 1: a worker with nothing to do takes of the jobs that wait for another */
};

/* How many jobs may begin in a time (csrc/relay/dispatch/limiter.h). */
enum rb_rate_kind {
    RB_RATE_NONE,
    RB_RATE_TOKEN_BUCKET,
    RB_RATE_LEAKY_BUCKET,
    RB_RATE_SLIDING_WINDOW
};
enum { RB_RATE_JOBS_MAX = 1000000, RB_RATE_PER_MS_MAX = 3600000, RB_RATE_BURST_MAX = 1000000 };
struct rb_rate_config {
    uint32_t kind;
    uint32_t jobs, per_ms; /* so many jobs in so many ms */
    uint32_t
        burst; /* token bucket: tokens that are kept; leaky bucket: jobs that may wait for it */
};

/* How many jobs of a role may be in flight, found from their latency (csrc/relay/dispatch/adaptive.h). */
struct rb_adaptive_config {
    uint32_t limit_max; /* 0: no such limit */
    uint32_t limit_min;
    uint32_t window_ms;         /* looked at so often, once ten jobs have ended */
    uint32_t tolerance_percent; /* of the usual latency, from which on the limit shrinks */
    uint32_t headroom;          /* jobs by which it tries to grow each time */
};

/* Which jobs are taken in (csrc/relay/dispatch/admission.h). */
enum rb_admission_policy { RB_ADMISSION_REJECT, RB_ADMISSION_DROP_OLDEST, RB_ADMISSION_DEFER };
struct rb_admission_config {
    uint32_t depth_max;           /* that may wait in the role's queue */
    uint32_t node_depth_max;      /* of these, called from one node; 0: no bound of its own */
    uint32_t tenant_depth_max;    /* of one tenant; 0: the same */
    uint32_t on_full;             /* enum rb_admission_policy */
    uint32_t defer_max, defer_ms; /* RB_ADMISSION_DEFER: so many jobs, so long each */
    struct rb_rate_config rate;
    struct rb_adaptive_config adaptive;
};

/* What one calling node, or one tenant, may ask of all roles together. */
enum rb_account_kind { RB_ACCOUNT_NODE, RB_ACCOUNT_TENANT };
struct rb_allowance_config {
    uint32_t depth_max; /* jobs of it that wait; 0: no such bound */
    struct rb_rate_config rate;
};

/* When a worker, or its whole role, is left alone for a while (csrc/relay/dispatch/breaker.h). */
enum rb_breaker_state {
    RB_BREAKER_CLOSED,
    RB_BREAKER_OPEN,
    RB_BREAKER_HALF_OPEN,
    RB_BREAKER_RECLOSING,
    RB_BREAKER_HELD_OPEN,
    RB_BREAKER_HELD_CLOSED,
    RB_BREAKER_STATES
};
enum rb_breaker_failure {
    RB_BREAKER_WORKER_CRASHED,
    RB_BREAKER_WORKER_BROKE,
    RB_BREAKER_DEADLINE_EXCEEDED, /* while it ran */
    RB_BREAKER_JOB_FAILED,
    RB_BREAKER_FAILURES
};
struct rb_breaker_config {
    uint32_t failure_percent; /* of the jobs that ended within the window; 0: no breaker */
    uint32_t window_ms;
    uint32_t volume_min; /* fewer jobs in the window say nothing */
    uint32_t open_ms;    /* the first time; doubled each time it opens again */
    uint32_t open_max_ms;
    uint32_t jitter_percent;              /* of that time, either way */
    uint32_t probes;                      /* jobs that must succeed before it recloses */
    uint32_t reclose_ms;                  /* over which its share grows from a tenth to the whole */
    uint32_t failures[4], failures_count; /* enum rb_breaker_failure: which ends count as one */
};

/* When a worker is no good any more (csrc/relay/dispatch/vitals.h). */
struct rb_health_config {
    uint32_t hang_ms;             /* hung after so long without a heartbeat; 0: never */
    uint32_t progress_timeout_ms; /* stuck, when its jobs show no sign for so long; 0: never */
};

/* What the operations of a role take: programs that relay/service/schema.c walks over payloads. Every operation's schema is a tree of
 * nodes; the children of a node stand one behind the other and behind it, so that no walk can turn in a circle. Texts lie in `text`. */
enum rb_schema_kind {
    RB_SCHEMA_ANY,
    RB_SCHEMA_INTEGER, /* low .. high */
    RB_SCHEMA_FLOAT,   /* low .. high, as the bits of doubles; so of a number */
    RB_SCHEMA_NUMBER,  /* integer or float */
    RB_SCHEMA_BINARY,  /* of low .. high bytes */
    RB_SCHEMA_ATOM,    /* any, or one of the texts of its children */
    RB_SCHEMA_TEXT,    /* a child of an atom */
    RB_SCHEMA_LIST,    /* of low .. high elements like its child */
    RB_SCHEMA_TUPLE,   /* of elements like its children */
    RB_SCHEMA_MAP,     /* from atoms, the texts of its children, to values like these */
    RB_SCHEMA_ONE_OF,  /* like the first of its children that has its form */
    RB_SCHEMA_KINDS
};
enum {
    RB_SCHEMA_OPEN = 1,
    RB_SCHEMA_OPTIONAL = 2
}; /* a map with other keys too; a key that may be missing */
enum {
    RB_SCHEMA_OPS_MAX = 64,
    RB_SCHEMA_NODES_MAX = 512,
    RB_SCHEMA_TEXT_MAX = 8192,
    RB_SCHEMA_DEPTH_MAX = 16,
    RB_SCHEMA_KEYS_MAX = 64 /* of one map */
};
struct rb_schema_node {
    uint32_t kind, flags;
    uint32_t first, count; /* children */
    uint32_t text_at, text_bytes;
    int64_t low, high;
};
struct rb_op_config {
    char name[28]; /* as in struct.worker_op (layout.toml) */
    uint32_t opcode;
    uint32_t schema; /* its node */
};
struct rb_ops_config {
    struct rb_op_config table[64]; /* RB_SCHEMA_OPS_MAX */
    uint32_t table_count;          /* 0: the role takes every opcode, and looks at no payload */
    struct rb_schema_node nodes[512];
    uint32_t nodes_count;
    uint8_t text[8192];
    uint32_t text_count;
};

/* What a tenant is given (`tenant:` of a request's options), in every role (relay/dispatch/tenant.h). */
enum { RB_WEIGHT_DEFAULT = 10, RB_WEIGHT_MAX = 1000 };
struct rb_tenant_config {
    uint32_t weight; /* its turns beside those of others; one without settings has the default */
};

/* Atoms that a role's answers may bring along besides those of their requests, each UTF-8 and NUL-terminated. */
enum { RB_ROLE_ATOMS_MAX = 64, RB_ROLE_ATOM_BYTES = 128 };

struct rb_role_config {
    const char *name;    /* fixed: callers and workers know the role by it */
    uint64_t pool_bytes; /* fixed: every worker has mapped the pool, and its memory is sealed */
    uint64_t payload_bytes_max;
    uint64_t timeout_default_ms, timeout_max_ms;
    uint32_t cancel_term_ms, cancel_kill_ms;
    char atoms[64][128]; /* RB_ROLE_ATOMS_MAX, RB_ROLE_ATOM_BYTES */
    uint32_t atoms_count;
    uint32_t
        idempotent; /* 1: a job that its worker did not survive may be run again (`retry: n`) */
    struct rb_order_config order;
    struct rb_choice_config choice;
    struct rb_admission_config admission;
    struct rb_breaker_config breaker;
    struct rb_health_config health;
    struct rb_ops_config ops;
};
/* </cffi> */

#endif
