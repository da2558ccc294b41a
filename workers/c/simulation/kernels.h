/* kernels.h: the sums of forces, each in as many variants as simd.h knows, with the same bits from all of them.
 *
 * G is 1: masses come as GM. Plummer's softening: a distance r counts as sqrt(r^2 + softening^2). */
#ifndef RINGBRIDGE_SIMULATION_KERNELS_H
#define RINGBRIDGE_SIMULATION_KERNELS_H

#include <stdint.h>

#include "gravity.h"
#include "simd.h"

#define SIM_LANES_MAX 8
#define SIM_GROUP_MAX 64 /* bodies that are pulled at once; a multiple of SIM_LANES_MAX */

/* Positions as gravity.h has them, by axis. Filled up to a multiple of SIM_LANES_MAX with anything finite. */
struct sim_points {
    double base[3][SIM_BODIES_MAX], shift[3][SIM_BODIES_MAX];
};

/* Bodies by axis, wherever they lie. */
struct sim_view {
    const double *x, *y, *z, *mass;
};

/* A cell of the tree: its mass, the centre of it, and the second moments about that. */
struct sim_cell {
    double mass, x, y, z;
    double radius;     /* no body of it is farther from its centre of mass */
    double trace;      /* xx + yy + zz */
    double xx, yy, zz; /* sums of m s s, s from the centre of mass */
    double xy, xz, yz;
    uint32_t first, count; /* its bodies, which lie together */
    uint32_t skip;         /* the cell behind all that are in this one */
    uint32_t is_leaf;
};

/* Bodies that are pulled together, and what has been added up for them. */
struct sim_group {
    int count;
    double x[SIM_GROUP_MAX], y[SIM_GROUP_MAX], z[SIM_GROUP_MAX];
    double ax[SIM_GROUP_MAX], ay[SIM_GROUP_MAX], az[SIM_GROUP_MAX];
    double potential[SIM_GROUP_MAX];
};

struct sim_kernels {
    /* All pairs of up to SIM_BODIES_MAX bodies, no softening; NULL: gravity.c's own loop, which uses each pair twice. */
    void (*newton)(int bodies, const double *gm, const struct sim_points *p,
                   double (*a)[SIM_BODIES_MAX]);
    /* What bodies first .. last - 1 pull at the group with. A body pulls at itself with nothing, but adds -m / softening to its
     * potential. */
    void (*pull_bodies)(struct sim_group *g, const struct sim_view *bodies, uint32_t first,
                        uint32_t last, double softening2);
    /* What these cells pull at it with, as far as second moments tell. */
    void (*pull_cells)(struct sim_group *g, const struct sim_cell *cells, const uint32_t *list,
                       uint32_t count, double softening2);
};

/* Those of sim_simd(). */
const struct sim_kernels *sim_kernels(void);

#endif
