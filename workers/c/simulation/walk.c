/* walk.c: which cells and bodies pull at a group, and the sums over them. */
#include "tree.h"

#include <errno.h>
#include <math.h>
#include <string.h>

enum { SLICE_BODIES = 1 << 15 }; /* bodies that pull at a group between two looks at the watch */

struct box {
    double low[3], high[3];
};

static struct sim_view view_of(const struct tree *t) {
    double *const *value = t->bodies.value;
    return (struct sim_view){value[TREE_X], value[TREE_Y], value[TREE_Z], value[TREE_MASS]};
}

static struct box box_of(const struct tree_bodies *b, uint32_t first, uint32_t count) {
    struct box box;
    for (int k = 0; k < 3; k++) {
        const double *x = b->value[k];
        box.low[k] = box.high[k] = x[first];
        for (uint32_t i = first + 1; i < first + count; i++) {
            box.low[k] = fmin(box.low[k], x[i]);
            box.high[k] = fmax(box.high[k], x[i]);
        }
    }
    return box;
}

static double outside(double x, double low, double high) {
    return x < low ? low - x : x > high ? x - high : 0;
}

static int is_far(const struct sim_cell *c, const struct box *box, double theta2) {
    double dx = outside(c->x, box->low[0], box->high[0]);
    double dy = outside(c->y, box->low[1], box->high[1]);
    double dz = outside(c->z, box->low[2], box->high[2]);
    return c->radius * c->radius < theta2 * (dx * dx + dy * dy + dz * dz);
}

/* Fills far and near for one group; neighbouring leaves become one run of bodies. */
static void make_lists(const struct tree *t, const struct box *box, double theta2,
                       uint32_t *far_count, uint32_t *near_count) {
    *far_count = *near_count = 0;
    for (uint32_t at = 0; at < t->cell_count;) {
        const struct sim_cell *c = &t->cells[at];
        if (is_far(c, box, theta2)) {
            t->far[(*far_count)++] = at;
        } else if (!c->is_leaf) {
            at++;
            continue;
        } else {
            uint32_t *end = &t->near[2 * *near_count];
            if (*near_count > 0 && end[-1] == c->first) {
                end[-1] = c->first + c->count;
            } else {
                end[0] = c->first;
                end[1] = c->first + c->count;
                (*near_count)++;
            }
        }
        at = c->skip;
    }
}

static void begin_group(struct sim_group *g, const struct tree_bodies *b, const uint32_t *places,
                        uint32_t first, int count) {
    memset(g, 0, sizeof *g);
    g->count = count;
    for (int i = 0; i < count; i++) {
        uint32_t place = places != NULL ? places[i] : first + (uint32_t)i;
        g->x[i] = b->value[TREE_X][place];
        g->y[i] = b->value[TREE_Y][place];
        g->z[i] = b->value[TREE_Z][place];
    }
}

/* Bodies first .. last - 1 upon the group, with a look at the watch in between. */
static int pull_run(struct sim_group *g, const struct sim_view *view, uint32_t first, uint32_t last,
                    double softening2, const struct tree_watch *watch, double fraction) {
    const struct sim_kernels *kernels = sim_kernels();
    while (last - first > SLICE_BODIES) {
        kernels->pull_bodies(g, view, first, first + SLICE_BODIES, softening2);
        first += SLICE_BODIES;
        if (watch->stop(watch->arg, fraction)) return -ECANCELED;
    }
    kernels->pull_bodies(g, view, first, last, softening2);
    return 0;
}

/* What pulls at the bodies of one cell, SIM_GROUP_MAX at a time: a leaf of bodies in one place may hold any number. */
static int pull_cell(struct tree *t, const struct sim_cell *cell, double theta, double softening,
                     const struct tree_watch *watch) {
    struct tree_bodies *b = &t->bodies;
    const struct sim_kernels *kernels = sim_kernels();
    const struct sim_view view = view_of(t);
    const struct box box = box_of(b, cell->first, cell->count);
    const double softening2 = softening * softening;
    struct sim_group g;
    uint32_t far_count, near_count, end = cell->first + cell->count;
    make_lists(t, &box, theta * theta, &far_count, &near_count);
    for (uint32_t first = cell->first; first < end; first += SIM_GROUP_MAX) {
        int count = end - first < SIM_GROUP_MAX ? (int)(end - first) : SIM_GROUP_MAX;
        double fraction = (double)first / b->count;
        if (watch->stop(watch->arg, fraction)) return -ECANCELED;
        begin_group(&g, b, NULL, first, count);
        kernels->pull_cells(&g, t->cells, t->far, far_count, softening2);
        for (uint32_t k = 0; k < near_count; k++) {
            const uint32_t *run = &t->near[2 * k];
            if (pull_run(&g, &view, run[0], run[1], softening2, watch, fraction) < 0)
                return -ECANCELED;
            t->body_pairs += (uint64_t)count * (run[1] - run[0]);
        }
        t->cell_pairs += (uint64_t)count * far_count;
        for (int i = 0; i < count; i++) {
            b->ax[first + i] = g.ax[i];
            b->ay[first + i] = g.ay[i];
            b->az[first + i] = g.az[i];
            /* Without what the body has added to its own. */
            b->potential[first + i] = g.potential[i] + view.mass[first + i] / softening;
        }
    }
    return 0;
}

int tree_pull(struct tree *t, double theta, double softening, const struct tree_watch *watch) {
    for (uint32_t at = 0; at < t->cell_count;) {
        const struct sim_cell *c = &t->cells[at];
        if (c->count > SIM_GROUP_MAX && !c->is_leaf) {
            at++;
            continue;
        }
        if (pull_cell(t, c, theta, softening, watch) < 0) return -ECANCELED;
        at = c->skip;
    }
    return 0;
}

int tree_pull_directly(const struct tree *t, const uint32_t *places, int count, double softening,
                       struct sim_group *out, const struct tree_watch *watch) {
    const struct sim_view view = view_of(t);
    begin_group(out, &t->bodies, places, 0, count);
    if (watch->stop(watch->arg, 1)) return -ECANCELED;
    return pull_run(out, &view, 0, t->bodies.count, softening * softening, watch, 1);
}
