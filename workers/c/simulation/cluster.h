/* cluster.h: one job of many bodies under softened gravity: request bytes, leapfrog over the tree, answer bytes (docs/simulation.md,
 * "Many bodies"). Knows no link, no clock and no process.
 *
 *      request   0 u16 version = 1 | 2 u16 flags | 4 u32 bodies | 8 u32 steps | 12 u32 returned | 16 u32 sampled | 20 u32 zero
 *                24 f64 step | 32 f64 theta | 40 f64 softening | 48 u64 seed
 *                56 + 56 n, unless generated: f64 GM | f64 x y z | f64 vx vy vz
 *      answer    0 u16 version = 1 | 2 u16 flags | 4 u32 bodies | 8 u32 steps | 12 u32 returned | 16 u32 sampled | 20 u32 zero
 *                24 f64 time | 32 f64 energy before | 40 f64 after | 48 f64 momentum gained | 56 f64 angular momentum gained
 *                64 f64 error of the accelerations, rms | 72 f64 the largest | 80 u64 body pairs | 88 u64 cell pairs
 *                96 + 48 n or 72 n: f64 x y z | f64 vx vy vz | with CLUSTER_ACCELERATIONS f64 ax ay az
 *      progress  0 u32 steps done | 4 u32 steps | 8 f64 share of the whole job that is done, 0 .. 1
 * All little endian, IEEE 754 binary64, no padding. */
#ifndef RINGBRIDGE_SIMULATION_CLUSTER_H
#define RINGBRIDGE_SIMULATION_CLUSTER_H

#include "payload.h"
#include "tree.h"

#define CLUSTER_VERSION 1
#define CLUSTER_GENERATED 1u     /* a Plummer sphere from the seed; no bodies in the request */
#define CLUSTER_ACCELERATIONS 2u /* in the answer */
#define CLUSTER_REQUEST_BYTES 56
#define CLUSTER_BODY_BYTES 56
#define CLUSTER_ANSWER_BYTES 96
#define CLUSTER_PROGRESS_BYTES 16
#define CLUSTER_BODIES_MAX (1u << 22)
#define CLUSTER_STEPS_MAX 1000000u
#define CLUSTER_SAMPLED_MAX 65536u
#define CLUSTER_MAGNITUDE_MAX \
    1e30 /* of any number in a request: no sum or power of them overflows */
#define CLUSTER_SOFTENING_MIN 1e-9

struct cluster_request {
    uint16_t flags;
    uint32_t bodies, steps, returned, sampled;
    double step, theta, softening;
    uint64_t seed;
};

struct cluster_report {
    double energy_before, energy_after, momentum_gained, angular_gained, error_rms, error_max;
};

struct cluster {
    struct cluster_request request;
    struct cluster_report report;
    struct tree tree;
};

/* stop() is asked at least once for 64 bodies; progress() is told at most 64 times a step. */
struct cluster_watch {
    int (*stop)(void *arg);
    void (*progress)(void *arg, const uint8_t bytes[CLUSTER_PROGRESS_BYTES]);
    void *arg;
};

/* Checks and reads the request, or generates its bodies. Otherwise as simulate(); cluster_close() in either case. */
enum sim_code cluster_open(struct cluster *c, const void *bytes, size_t size, char *message);
void cluster_close(struct cluster *c);
enum sim_code cluster_run(struct cluster *c, char *message, const struct cluster_watch *watch);
size_t cluster_answer_bytes(const struct cluster *c);
void cluster_answer(const struct cluster *c, void *out);

/* plummer.c: bodies of equal mass in Plummer's sphere, at rest as a whole, in Henon's units (G = M = 1, E = -1/4). */
void plummer_fill(struct tree_bodies *b, uint64_t seed);

#endif
