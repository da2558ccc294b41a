/* tree.h: an octree over bodies that are sorted along a Morton curve, and what it pulls at each of them with.
 *
 * Barnes and Hut, Nature 324 (1986), with Barnes' walk for groups (J. Comput. Phys. 87, 1990): bodies of one small cell share a
 * list of far cells and of near bodies. A cell counts as far from a group when its radius (that of the sphere about its centre
 * of mass in which all its bodies lie) is less than theta times the distance from that centre to the group's box. Its pull
 * is taken up to second moments (the first vanish); what is left out is of order theta^3 of it. theta 0 leaves nothing out: all
 * pairs are summed. */
#ifndef RINGBRIDGE_SIMULATION_TREE_H
#define RINGBRIDGE_SIMULATION_TREE_H

#include <stdint.h>

#include "kernels.h"

enum { TREE_X, TREE_Y, TREE_Z, TREE_VX, TREE_VY, TREE_VZ, TREE_MASS, TREE_VALUES };

/* All bodies, by axis. They change places with each sort; id says which one each was in the beginning. */
struct tree_bodies {
    uint32_t count;
    double *value[TREE_VALUES];
    double *ax, *ay, *az, *potential; /* written by tree_pull() */
    uint32_t *id;
};

struct tree_key {
    uint64_t key;
    uint32_t index;
};

struct tree {
    struct tree_bodies bodies;
    struct sim_cell *cells;
    uint32_t cell_count, cells_max;
    uint32_t *far, *near; /* a group's list: cells; and pairs of first and last body */
    uint32_t far_max;     /* cells they have room for */
    struct tree_key *keys, *other_keys;
    double *scratch;
    uint32_t *scratch_id;
    uint64_t body_pairs, cell_pairs; /* interactions so far */
};

/* Asked often: 1 to give up. `fraction` of the pull now under way that is done, 0 .. 1. */
struct tree_watch {
    int (*stop)(void *arg, double fraction);
    void *arg;
};

/* Room for `bodies`. 0 or -ENOMEM; tree_free() in either case. */
int tree_open(struct tree *t, uint32_t bodies);
void tree_free(struct tree *t);
/* Sorts the bodies and builds the tree. 0; -ERANGE when a position is beyond TREE_FAR or no number; -ENOMEM; -ECANCELED. */
int tree_build(struct tree *t, const struct tree_watch *watch);
#define TREE_FAR 1e30
/* Accelerations and potentials of all bodies into ax, ay, az, potential. 0 or -ECANCELED. */
int tree_pull(struct tree *t, double theta, double softening, const struct tree_watch *watch);
/* The same for some bodies (at most SIM_GROUP_MAX, by their places), summed over all of them without the tree. */
int tree_pull_directly(const struct tree *t, const uint32_t *places, int count, double softening,
                       struct sim_group *out, const struct tree_watch *watch);

#endif
