/* plummer.c: a star cluster from a seed, by Aarseth, Henon and Wielen (Astron. Astrophys. 37, 1974), in units of Heggie and Mathieu
 * (1986). Only arithmetic and square roots, which are exact by IEEE 754: every machine makes the same bodies. */
#include "cluster.h"

#include <math.h>

/* Of the mass; the outermost thousandth would reach to infinity. */
static const double MASS_KEPT = 0.999;
static const double PI = 3.14159265358979323846;

/* Steele, Lea and Flood's SplitMix64; uniform in (0, 1). */
static double uniform(uint64_t *state) {
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    z ^= z >> 31;
    return ((double)(z >> 11) + 0.5) * 0x1p-53;
}

/* A vector of this length into any direction: a point within the unit ball, stretched. */
static void any_direction(uint64_t *state, double length, double out[3]) {
    double r2;
    do {
        r2 = 0;
        for (int k = 0; k < 3; k++) {
            out[k] = 2 * uniform(state) - 1;
            r2 += out[k] * out[k];
        }
    } while (r2 > 1 || r2 < 1e-6);
    for (int k = 0; k < 3; k++) out[k] *= length / sqrt(r2);
}

/* The mass within r is r^3 (1 + r^2)^(-3/2), so t = r / sqrt(1 + r^2) is the cube root of a uniform number: the largest of three. */
static double any_radius(uint64_t *state) {
    double t;
    do {
        t = fmax(uniform(state), fmax(uniform(state), uniform(state)));
    } while (t * t * t > MASS_KEPT);
    return t / sqrt(1 - t * t);
}

/* Of the velocity of escape: density q^2 (1 - q^2)^(7/2), at most 0.092, by rejection. */
static double any_speed(uint64_t *state) {
    double q, rest;
    do {
        q = uniform(state);
        rest = 1 - q * q;
    } while (0.1 * uniform(state) > q * q * rest * rest * rest * sqrt(rest));
    return q;
}

void plummer_fill(struct tree_bodies *b, uint64_t seed) {
    const double scale = 3 * PI / 16;
    double mean[6] = {0};
    for (uint32_t i = 0; i < b->count; i++) {
        double x[3], v[3], r = any_radius(&seed);
        double escape = sqrt(2 / sqrt(1 + r * r));
        any_direction(&seed, scale * r, x);
        any_direction(&seed, any_speed(&seed) * escape / sqrt(scale), v);
        for (int k = 0; k < 3; k++) {
            b->value[TREE_X + k][i] = x[k];
            b->value[TREE_VX + k][i] = v[k];
            mean[k] += x[k] / b->count;
            mean[3 + k] += v[k] / b->count;
        }
        b->value[TREE_MASS][i] = 1.0 / b->count;
    }
    for (int k = 0; k < 3; k++)
        for (uint32_t i = 0; i < b->count; i++) {
            b->value[TREE_X + k][i] -= mean[k];
            b->value[TREE_VX + k][i] -= mean[3 + k];
        }
}
