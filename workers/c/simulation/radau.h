/* radau.h: Gauss-Radau integration of 15th order with an adaptive step.
 *
 * Everhart's method (Celestial Mechanics 10, 1974) with the step control, the compensated sums and the convergence test of
 * IAS15 (Rein and Spiegel, MNRAS 446, 2015). Why this one and not a symplectic map: a job may bring any bodies, eccentric or
 * close ones too, so the step must adapt, which a symplectic map forbids; the post-Newtonian force depends on velocities, which
 * a leapfrog cannot take; and at this order the truncation error of a step lies below the rounding of a double, so that the
 * energy error grows only as the random walk of rounding (Brouwer's law). No symplectic method in doubles is better than that.
 *
 * Deterministic: no clock, no randomness, no state outside the struct. */
#ifndef RINGBRIDGE_SIMULATION_RADAU_H
#define RINGBRIDGE_SIMULATION_RADAU_H

#include <stdint.h>

#include "gravity.h"

#define RADAU_STAGES 7
#define RADAU_VALUES (3 * SIM_BODIES_MAX)

struct radau {
    struct sim_model model;
    double x[RADAU_VALUES], v[RADAU_VALUES];
    double x_low[RADAU_VALUES],
        v_low[RADAU_VALUES]; /* what rounding has cut off x and v so far (Kahan) */
    double b
        [RADAU_STAGES]
        [RADAU_VALUES]; /* acceleration in a step: a0 + b0 h + b1 h^2 + ... + b6 h^7, 0 <= h <= 1 */
    double g[RADAU_STAGES][RADAU_VALUES]; /* the same polynomial in Newton's form on the nodes */
    double predicted[RADAU_STAGES][RADAU_VALUES]; /* what b was expected to be */
    double step_s;                                /* the next step, signed */
    double last_s;                                /* the step that b belongs to; 0: none yet */
    int guessed; /* `predicted` holds the guess that b began the last step from */
    uint64_t steps, rejected, evaluations;
};

enum radau_result {
    RADAU_OK = 0,
    RADAU_STOPPED,        /* stop() said so */
    RADAU_STEP_TOO_SMALL, /* two bodies come so close that the step fell below RADAU_STEP_MIN_S */
    RADAU_NOT_FINITE,     /* the state is no longer a number: two bodies in one place */
};
#define RADAU_STEP_MIN_S 1e-3

/* The model, x and v have been filled in; sets up the rest. */
void radau_start(struct radau *r);
/* Integrates over `span_s` seconds (negative: into the past). stop(arg) is asked before each step. */
enum radau_result radau_run(struct radau *r, double span_s, int (*stop)(void *arg), void *arg);

/* The nodes of the method in [0, 1), for the test that derives them again. */
extern const double radau_nodes[RADAU_STAGES + 1];

#endif
