/* gravity.c: pairwise accelerations and energies of point masses.
 *
 * The relativistic terms are the Einstein-Infeld-Hoffmann equations with beta = gamma = 1, as DE421 integrates them: Folkner,
 * Williams, Boggs, IPN Progress Report 42-178 (2009), and Newhall, Standish, Williams, Astron. Astrophys. 125 (1983), eq. 1. The
 * energy that they conserve follows from the Lagrangian in Landau and Lifshitz, The Classical Theory of Fields, section 106. */
#include "gravity.h"

#include "kernels.h"

#include <math.h>
#include <string.h>

/* What the relativistic terms need of each pair, kept from the Newtonian pass. */
struct pairs {
    double d[SIM_BODIES_MAX][SIM_BODIES_MAX][3]; /* from i to j */
    double inverse[SIM_BODIES_MAX][SIM_BODIES_MAX];
};

static double dot(const double *a, const double *b) {
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
}

static void newton(const struct sim_model *m, const double *base, const double *shift, double *a,
                   struct pairs *kept) {
    memset(a, 0, sizeof(double) * 3 * (size_t)m->bodies);
    for (int i = 0; i < m->bodies; i++) {
        for (int j = i + 1; j < m->bodies; j++) {
            double d[3];
            for (int k = 0; k < 3; k++)
                d[k] = (base[3 * j + k] - base[3 * i + k]) + (shift[3 * j + k] - shift[3 * i + k]);
            double inverse = 1.0 / sqrt(dot(d, d));
            double cube = inverse * inverse * inverse;
            double pull_i = m->gm[j] * cube, pull_j = m->gm[i] * cube;
            for (int k = 0; k < 3; k++) {
                a[3 * i + k] += pull_i * d[k];
                a[3 * j + k] -= pull_j * d[k];
            }
            if (kept == NULL) continue;
            kept->inverse[i][j] = kept->inverse[j][i] = inverse;
            for (int k = 0; k < 3; k++) {
                kept->d[i][j][k] = d[k];
                kept->d[j][i][k] = -d[k];
            }
        }
    }
}

static void post_newton(const struct sim_model *m, const struct pairs *p, const double *v,
                        const double *newtonian, double *a) {
    const double per_c2 = 1.0 / (SIM_LIGHT_KM_S * SIM_LIGHT_KM_S);
    double potential[SIM_BODIES_MAX] = {0}; /* sum of GM/r over all others */
    for (int i = 0; i < m->bodies; i++)
        for (int j = 0; j < m->bodies; j++)
            if (j != i) potential[i] += m->gm[j] * p->inverse[i][j];
    for (int i = 0; i < m->bodies; i++) {
        double sum[3] = {0, 0, 0};
        const double *vi = &v[3 * i];
        for (int j = 0; j < m->bodies; j++) {
            if (j == i) continue;
            const double *d = p->d[i][j], *vj = &v[3 * j], *aj = &newtonian[3 * j];
            double inverse = p->inverse[i][j], pull = m->gm[j] * inverse;
            double approach = dot(d, vj) * inverse;
            /* The sum over k != j of GM_k / r_jk has i among its terms: that is potential[j] itself. */
            double along_d = -4.0 * potential[i] - potential[j] + dot(vi, vi) + 2.0 * dot(vj, vj) -
                             4.0 * dot(vi, vj) - 1.5 * approach * approach + 0.5 * dot(d, aj);
            double along_v = -(4.0 * dot(d, vi) - 3.0 * dot(d, vj));
            for (int k = 0; k < 3; k++)
                sum[k] += pull * (inverse * inverse * (along_d * d[k] + along_v * (vi[k] - vj[k])) +
                                  3.5 * aj[k]);
        }
        for (int k = 0; k < 3; k++) a[3 * i + k] = newtonian[3 * i + k] + per_c2 * sum[k];
    }
}

/* newton() by vectors: the same terms in the same order for each body, hence the same bits (simd.h). */
static void newton_by_lanes(const struct sim_kernels *kernels, const struct sim_model *m,
                            const double *base, const double *shift, double *a) {
    struct sim_points p;
    double by_axis[3][SIM_BODIES_MAX];
    int filled = (m->bodies + SIM_LANES_MAX - 1) / SIM_LANES_MAX * SIM_LANES_MAX;
    for (int k = 0; k < 3; k++)
        for (int i = 0; i < filled; i++) {
            p.base[k][i] = i < m->bodies ? base[3 * i + k] : 0;
            p.shift[k][i] = i < m->bodies ? shift[3 * i + k] : 0;
        }
    kernels->newton(m->bodies, m->gm, &p, by_axis);
    for (int i = 0; i < m->bodies; i++)
        for (int k = 0; k < 3; k++) a[3 * i + k] = by_axis[k][i];
}

void sim_acceleration(const struct sim_model *m, const double *base, const double *shift,
                      const double *v, double *a) {
    if (!m->relativistic) {
        const struct sim_kernels *kernels = sim_kernels();
        if (kernels->newton != NULL)
            newton_by_lanes(kernels, m, base, shift, a);
        else
            newton(m, base, shift, a, NULL);
        return;
    }
    struct pairs kept;
    double newtonian[3 * SIM_BODIES_MAX];
    newton(m, base, shift, newtonian, &kept);
    post_newton(m, &kept, v, newtonian, a);
}

double sim_energy(const struct sim_model *m, const double *x, const double *v) {
    const double per_c2 = m->relativistic ? 1.0 / (SIM_LIGHT_KM_S * SIM_LIGHT_KM_S) : 0.0;
    double total = 0, correction = 0;
    for (int i = 0; i < m->bodies; i++) {
        const double *vi = &v[3 * i];
        double speed2 = dot(vi, vi), potential = 0;
        for (int j = 0; j < m->bodies; j++) {
            if (j == i) continue;
            const double *vj = &v[3 * j];
            double d[3];
            for (int k = 0; k < 3; k++) d[k] = x[3 * j + k] - x[3 * i + k];
            double inverse = 1.0 / sqrt(dot(d, d));
            potential += m->gm[j] * inverse;
            correction +=
                0.25 * m->gm[i] * m->gm[j] * inverse *
                (6.0 * speed2 - 7.0 * dot(vi, vj) - dot(d, vi) * dot(d, vj) * inverse * inverse);
        }
        total += 0.5 * m->gm[i] * (speed2 - potential);
        correction += m->gm[i] * (0.375 * speed2 * speed2 + 0.5 * potential * potential);
    }
    return total + per_c2 * correction;
}
