/* tree.c: the Morton curve, the sort along it, and the cells over it with their moments. */
#include "tree.h"

#include <errno.h>
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    LEAF_BODIES = 16,
    LEVELS = 21, /* bits of a key for each axis */
    DIGIT_BITS = 11,
    DIGITS = 1 << DIGIT_BITS,
    PASSES = (3 * LEVELS + DIGIT_BITS - 1) / DIGIT_BITS
};

int tree_open(struct tree *t, uint32_t bodies) {
    size_t n = bodies;
    int failed = 0;
    memset(t, 0, sizeof *t);
    t->bodies.count = bodies;
    for (int k = 0; k < TREE_VALUES; k++)
        failed |= (t->bodies.value[k] = malloc(n * sizeof(double))) == NULL;
    failed |= (t->bodies.ax = malloc(n * sizeof(double))) == NULL;
    failed |= (t->bodies.ay = malloc(n * sizeof(double))) == NULL;
    failed |= (t->bodies.az = malloc(n * sizeof(double))) == NULL;
    failed |= (t->bodies.potential = malloc(n * sizeof(double))) == NULL;
    failed |= (t->bodies.id = malloc(n * sizeof(uint32_t))) == NULL;
    failed |= (t->scratch = malloc(n * sizeof(double))) == NULL;
    failed |= (t->scratch_id = malloc(n * sizeof(uint32_t))) == NULL;
    failed |= (t->keys = malloc(n * sizeof(struct tree_key))) == NULL;
    failed |= (t->other_keys = malloc(n * sizeof(struct tree_key))) == NULL;
    return failed ? -ENOMEM : 0;
}

void tree_free(struct tree *t) {
    for (int k = 0; k < TREE_VALUES; k++) free(t->bodies.value[k]);
    free(t->bodies.ax);
    free(t->bodies.ay);
    free(t->bodies.az);
    free(t->bodies.potential);
    free(t->bodies.id);
    free(t->scratch);
    free(t->scratch_id);
    free(t->keys);
    free(t->other_keys);
    free(t->cells);
    free(t->far);
    free(t->near);
}

/* --- keys and their order ---------------------------------------------------------------------------------------------- */

/* 21 bits with two zeros between each. */
static uint64_t spread(uint64_t v) {
    v = (v | v << 32) & 0x001f00000000ffffu;
    v = (v | v << 16) & 0x001f0000ff0000ffu;
    v = (v | v << 8) & 0x100f00f00f00f00fu;
    v = (v | v << 4) & 0x10c30c30c30c30c3u;
    return (v | v << 2) & 0x1249249249249249u;
}

static int make_keys(struct tree *t) {
    const struct tree_bodies *b = &t->bodies;
    double low[3], extent = 0;
    for (int k = 0; k < 3; k++) {
        double least = DBL_MAX, most = -DBL_MAX;
        for (uint32_t i = 0; i < b->count; i++) {
            double x = b->value[k][i];
            if (!(fabs(x) <= TREE_FAR)) return -ERANGE; /* takes a NaN too */
            least = fmin(least, x);
            most = fmax(most, x);
        }
        low[k] = least;
        extent = fmax(extent, most - least);
    }
    const double steps = 1u << LEVELS;
    for (uint32_t i = 0; i < b->count; i++) {
        uint64_t key = 0;
        for (int k = 0; k < 3; k++) {
            double at = extent > DBL_MIN ? (b->value[k][i] - low[k]) / extent * steps : 0;
            key |= spread((uint64_t)fmin(at, steps - 1)) << k;
        }
        t->keys[i] = (struct tree_key){key, i};
    }
    return 0;
}

/* By their digits from the lowest on, each pass keeping the order of the ones before. */
static void sort_keys(struct tree *t) {
    uint32_t n = t->bodies.count;
    for (int pass = 0; pass < PASSES; pass++) {
        uint32_t at[DIGITS] = {0}, sum = 0;
        int shift = pass * DIGIT_BITS;
        for (uint32_t i = 0; i < n; i++) at[t->keys[i].key >> shift & (DIGITS - 1)]++;
        for (int d = 0; d < DIGITS; d++) {
            uint32_t count = at[d];
            at[d] = sum;
            sum += count;
        }
        for (uint32_t i = 0; i < n; i++)
            t->other_keys[at[t->keys[i].key >> shift & (DIGITS - 1)]++] = t->keys[i];
        struct tree_key *swap = t->keys;
        t->keys = t->other_keys;
        t->other_keys = swap;
    }
}

static void move_bodies(struct tree *t) {
    struct tree_bodies *b = &t->bodies;
    for (int k = 0; k < TREE_VALUES; k++) {
        double *from = b->value[k];
        for (uint32_t i = 0; i < b->count; i++) t->scratch[i] = from[t->keys[i].index];
        b->value[k] = t->scratch;
        t->scratch = from;
    }
    uint32_t *from = b->id;
    for (uint32_t i = 0; i < b->count; i++) t->scratch_id[i] = from[t->keys[i].index];
    b->id = t->scratch_id;
    t->scratch_id = from;
}

/* --- cells ------------------------------------------------------------------------------------------------------------- */

/* From the bodies themselves at each level: no sums of sums, and the radius is the least there is. */
static void weigh(const struct tree_bodies *b, struct sim_cell *c) {
    const double *x = b->value[TREE_X], *y = b->value[TREE_Y], *z = b->value[TREE_Z],
                 *mass = b->value[TREE_MASS];
    uint32_t last = c->first + c->count;
    double wx = 0, wy = 0, wz = 0, farthest2 = 0;
    for (uint32_t i = c->first; i < last; i++) c->mass += mass[i];
    /* Without mass it pulls at nobody: any centre will do. */
    for (uint32_t i = c->first; i < last; i++) {
        double weight = c->mass > 0 ? mass[i] / c->mass : 1.0 / c->count;
        wx += weight * x[i];
        wy += weight * y[i];
        wz += weight * z[i];
    }
    c->x = wx, c->y = wy, c->z = wz;
    for (uint32_t i = c->first; i < last; i++) {
        double sx = x[i] - wx, sy = y[i] - wy, sz = z[i] - wz;
        farthest2 = fmax(farthest2, sx * sx + sy * sy + sz * sz);
        c->xx += mass[i] * sx * sx;
        c->yy += mass[i] * sy * sy;
        c->zz += mass[i] * sz * sz;
        c->xy += mass[i] * sx * sy;
        c->xz += mass[i] * sx * sz;
        c->yz += mass[i] * sy * sz;
    }
    c->trace = c->xx + c->yy + c->zz;
    c->radius = sqrt(farthest2);
}

static int new_cell(struct tree *t) {
    if (t->cell_count < t->cells_max) return 0;
    uint32_t most = t->cells_max == 0 ? t->bodies.count / 4 + 64 : 2 * t->cells_max;
    struct sim_cell *cells = realloc(t->cells, most * sizeof *cells);
    if (cells == NULL) return -ENOMEM;
    t->cells = cells;
    t->cells_max = most;
    return 0;
}

/* The first body at or behind `first` whose octant at this level is at least `octant`. */
static uint32_t octant_begin(const struct tree *t, uint32_t first, uint32_t last, int shift,
                             unsigned octant) {
    while (first < last) {
        uint32_t middle = first + (last - first) / 2;
        if ((t->keys[middle].key >> shift & 7) < octant)
            first = middle + 1;
        else
            last = middle;
    }
    return first;
}

/* Cells stand in the order in which they are met going down, so "next" is the index plus one, and past a whole cell its skip.
 * At most LEVELS calls deep. */
static int grow(struct tree *t, uint32_t first, uint32_t last, int level) {
    if (new_cell(t) < 0) return -ENOMEM;
    uint32_t self = t->cell_count++;
    t->cells[self] = (struct sim_cell){.first = first, .count = last - first};
    weigh(&t->bodies, &t->cells[self]);
    /* Levels at which all are in one octant make no cells. */
    while (level < LEVELS && t->keys[first].key >> (3 * (LEVELS - 1 - level)) ==
                                 t->keys[last - 1].key >> (3 * (LEVELS - 1 - level)))
        level++;
    if (last - first <= LEAF_BODIES || level == LEVELS) {
        t->cells[self].is_leaf = 1;
    } else {
        int shift = 3 * (LEVELS - 1 - level);
        for (unsigned octant = 0; octant < 8; octant++) {
            uint32_t end = octant == 7 ? last : octant_begin(t, first, last, shift, octant + 1);
            if (end > first && grow(t, first, end, level + 1) < 0) return -ENOMEM;
            first = end;
        }
    }
    t->cells[self].skip = t->cell_count;
    return 0;
}

int tree_build(struct tree *t, const struct tree_watch *watch) {
    int failed = make_keys(t);
    if (failed) return failed;
    sort_keys(t);
    if (watch->stop(watch->arg, 0)) return -ECANCELED;
    move_bodies(t);
    if (watch->stop(watch->arg, 0)) return -ECANCELED;
    t->cell_count = 0;
    if (grow(t, 0, t->bodies.count, 0) < 0) return -ENOMEM;
    if (t->far_max < t->cells_max) {
        free(t->far);
        free(t->near);
        t->far_max = t->cells_max;
        t->far = malloc(t->far_max * sizeof(uint32_t));
        t->near = malloc(2 * (size_t)t->far_max * sizeof(uint32_t));
        if (t->far == NULL || t->near == NULL) {
            t->far_max = 0;
            return -ENOMEM;
        }
    }
    return watch->stop(watch->arg, 0) ? -ECANCELED : 0;
}
