/* gravity.h: the forces of the simulation: point masses, Newton's law, and the first post-Newtonian order as an option.
 *
 * Units: km, s, km^3/s^2 (a body's mass enters only as its GM). Frame: any inertial one; the callers use the barycentric ICRF.
 * Positions come as `base` plus `shift`: the shift is what a step has moved a body so far. Differences of bases are exact or
 * nearly so for bodies that are close together (Sterbenz), hence the Moon's distance from the Earth, 1/400 of their distance
 * from the origin, keeps all its digits. */
#ifndef RINGBRIDGE_SIMULATION_GRAVITY_H
#define RINGBRIDGE_SIMULATION_GRAVITY_H

#define SIM_BODIES_MAX 64
#define SIM_LIGHT_KM_S 299792.458

struct sim_model {
    int bodies;
    int relativistic; /* 1: Einstein-Infeld-Hoffmann terms of every body, order 1/c^2 */
    double gm[SIM_BODIES_MAX];
};

/* Accelerations of all bodies, 3 * bodies values each. `v` is read only when the model is relativistic. */
void sim_acceleration(const struct sim_model *model, const double *base, const double *shift,
                      const double *v, double *a);

/* The conserved energy of the model times G (km^5/s^4): Newton's, plus the 1/c^2 part when the model is relativistic. */
double sim_energy(const struct sim_model *model, const double *x, const double *v);

#endif
