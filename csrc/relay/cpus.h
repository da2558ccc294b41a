/* cpus.h: where the relay and its worker run on a machine of two CPUs.
 *
 * A caller that waits, the relay and a worker are three, and with few calls under way one of them has work at a time while the others look for
 * some. Left alone the kernel wakes each on whichever CPU is idle: then the caller comes back to a CPU on which one of us is looking, wake-ups
 * go across CPUs (20 us and more where a hypervisor halts the sleeping one), and a payload is fetched from the other one's cache.
 *
 *   small jobs   APART      the worker has one CPU; the caller and the relay share the other, where one wakes as the other goes to sleep
 *   large ones   TOGETHER   the worker reads on the relay's CPU what the relay has just written, and the caller has the other
 *   otherwise    FREE       many callers, several workers, long jobs: the kernel's business
 *
 * Who is pinned by somebody else, the relay or its worker, stays where he is: what is found elsewhere than we have put it is not moved, until
 * it is let go to both CPUs again.
 *
 * docs/decisions/0025 has the figures. With more CPUs there is nothing to arrange. */
#ifndef RB_RELAY_CPUS_H
#define RB_RELAY_CPUS_H

#include <stdint.h>

struct rb_relay;

enum {
    RB_CPUS_LOOK_NS = 100000000,
    RB_CPUS_SHORT_NS = 200000, /* jobs that take longer are not waited for by looking */
    RB_CPUS_LARGE = 16 << 10,  /* bytes of a job, there and back */
};

enum rb_cpus_way { RB_CPUS_FREE, RB_CPUS_APART, RB_CPUS_TOGETHER };

/* What was seen since the last look. */
struct rb_cpus_sight {
    uint32_t working;    /* workers that ended a job or hold one */
    uint64_t ended;      /* jobs of the last of them */
    uint64_t service_ns; /* of its jobs, on average */
    uint64_t bytes;      /* of all connections and lanes, both ways */
    uint64_t pauses;     /* by the clock: many callers, and then throughput counts */
};

/* The way to go from here. */
enum rb_cpus_way rb_cpus_wanted(enum rb_cpus_way now, const struct rb_cpus_sight *seen);

struct rb_cpus {
    int open;   /* two CPUs, and it is wished */
    int cpu[2]; /* [0] has the relay */
    enum rb_cpus_way way;
    uint64_t worker;  /* whom it was arranged with */
    uint64_t refused; /* whom the kernel does not let us move */
    uint64_t looked_ns, pauses, bytes;
    uint64_t lane_bytes; /* of all lanes, ever, both ways: what r->stats has of connections */
};

/* The relay's thread calls these. open: looks at the CPUs that it may use. look: at most ten times a second. */
void rb_cpus_open(struct rb_relay *r);
void rb_cpus_look(struct rb_relay *r);

/* For tests: moves a process to one CPU, or to both of them (-1), if it is on `from`, where we have put it, or on both. 0 or a negative errno;
 * -EBUSY: it is somewhere else. */
int rb_cpus_move(int pidfd, const int cpu[2], int from, int to);

#endif
