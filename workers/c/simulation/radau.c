/* radau.c: one step as a fixed-point iteration for the acceleration's polynomial, and the control of the step's length. */
#include "radau.h"

#include <float.h>
#include <math.h>
#include <string.h>

/* Tolerance of the step control on b6, the last coefficient kept. The error of a step is that of the first coefficient not kept
 * and of order step^16: with 1e-9 it lies below a double's rounding (Rein and Spiegel 2015, section 2.3). */
static const double TOLERANCE = 1e-9;
static const double STEP_CHANGE_MAX = 4.0;
static const int ITERATIONS_MAX = 12;
/* What subtracting steps from a span of centuries may leave: no body moves a millimetre in it. */
static const double SPAN_ROUNDING_S = 1e-9;

/* Gauss-Radau nodes for eight points with the left end fixed: the roots of P7 + P8, mapped from [-1, 1] to [0, 1]. */
const double radau_nodes[RADAU_STAGES + 1] = {
    0.0,
    0.0562625605269221464656521910318,
    0.180240691736892364987579942780,
    0.352624717113169637373907769648,
    0.547153626330555383001448554766,
    0.734210177215410531523210605558,
    0.885320946839095768090359771030,
    0.977520613561287501891174488626,
};

/* Derived from the nodes once a run: cheap, and nothing to copy wrongly. */
struct tables {
    double inverse[RADAU_STAGES + 1][RADAU_STAGES]; /* 1 / (node n - node j) */
    double c[RADAU_STAGES]
            [RADAU_STAGES]; /* h (h - h1) ... (h - hn) = sum over j of c[n][j] h^(j + 1) */
    double binomial[RADAU_STAGES][RADAU_STAGES]; /* (k + 1) over (j + 1) */
};

static void make_tables(struct tables *t) {
    memset(t, 0, sizeof *t);
    for (int n = 1; n <= RADAU_STAGES; n++)
        for (int j = 0; j < n; j++) t->inverse[n][j] = 1.0 / (radau_nodes[n] - radau_nodes[j]);
    t->c[0][0] = 1.0;
    for (int n = 1; n < RADAU_STAGES; n++)
        for (int j = 0; j <= n; j++)
            t->c[n][j] = (j > 0 ? t->c[n - 1][j - 1] : 0.0) -
                         (j < n ? radau_nodes[n] * t->c[n - 1][j] : 0.0);
    for (int k = 0; k < RADAU_STAGES; k++) {
        double value = 1.0; /* (k + 1) over 0 */
        for (int j = 0; j <= k; j++) t->binomial[k][j] = value = value * (k + 1 - j) / (j + 1);
    }
}

/* Kahan's sum: `low` keeps what the addition to `high` cut off. Needs the compiler to leave it alone (-ffp-contract=off,
 * no -ffast-math). */
static void add(double *high, double *low, double value) {
    double corrected = value + *low;
    double sum = *high + corrected;
    *low = corrected - (sum - *high);
    *high = sum;
}

/* Carries the polynomial of the last step on into the next one, `ratio` times as long, and corrects the guess by how far the
 * last guess was off. This saves about half of the iterations. */
static void predict(struct radau *r, const struct tables *t, double ratio) {
    int values = 3 * r->model.bodies;
    double power = 1.0;
    for (int j = 0; j < RADAU_STAGES; j++) {
        power *= ratio;
        for (int i = 0; i < values; i++) {
            double sum = 0;
            for (int k = RADAU_STAGES - 1; k >= j; k--) sum += t->binomial[k][j] * r->b[k][i];
            double off = r->guessed ? r->b[j][i] - r->predicted[j][i] : 0;
            r->predicted[j][i] = power * sum;
            /* b[j] is not read again by higher j: those sums begin at k = j + 1. */
            r->b[j][i] = r->predicted[j][i] + off;
        }
    }
}

static void newton_form(struct radau *r, const struct tables *t) {
    int values = 3 * r->model.bodies;
    for (int j = RADAU_STAGES - 1; j >= 0; j--)
        for (int i = 0; i < values; i++) {
            double value = r->b[j][i];
            for (int n = j + 1; n < RADAU_STAGES; n++) value -= t->c[n][j] * r->g[n][i];
            r->g[j][i] = value;
        }
}

/* How far the bodies have moved, and how fast they are, at node h of a step: the polynomial integrated twice and once. */
static void state_at(const struct radau *r, const double *a0, double h, double step, double *shift,
                     double *v) {
    int values = 3 * r->model.bodies;
    double t = h * step;
    for (int i = 0; i < values; i++) {
        double twice = 0, once = 0;
        for (int k = RADAU_STAGES - 1; k >= 0; k--) {
            twice = (twice + r->b[k][i] / ((k + 2) * (k + 3))) * h;
            once = (once + r->b[k][i] / (k + 2)) * h;
        }
        shift[i] = r->x_low[i] + t * (r->v[i] + t * (0.5 * a0[i] + twice));
        v[i] = r->v[i] + t * (a0[i] + once);
    }
}

/* One sweep over the nodes, each using what the ones before it have improved. Returns the largest change of b6. */
static double sweep(struct radau *r, const struct tables *t, const double *a0, double step) {
    int values = 3 * r->model.bodies;
    double shift[RADAU_VALUES], v[RADAU_VALUES], a[RADAU_VALUES], change_max = 0;
    for (int n = 1; n <= RADAU_STAGES; n++) {
        state_at(r, a0, radau_nodes[n], step, shift, v);
        sim_acceleration(&r->model, r->x, shift, v, a);
        for (int i = 0; i < values; i++) {
            double value = (a[i] - a0[i]) * t->inverse[n][0];
            for (int j = 1; j < n; j++) value = (value - r->g[j - 1][i]) * t->inverse[n][j];
            double change = value - r->g[n - 1][i];
            r->g[n - 1][i] = value;
            for (int j = 0; j < n; j++) r->b[j][i] += change * t->c[n - 1][j];
            if (n == RADAU_STAGES && !(fabs(change) <= change_max))
                change_max = fabs(change); /* takes a NaN too */
        }
    }
    r->evaluations += RADAU_STAGES;
    return change_max;
}

static double largest(const double *values, int count) {
    double most = 0;
    for (int i = 0; i < count; i++) most = fmax(most, fabs(values[i]));
    return most;
}

/* The step's error estimate: b6 against the acceleration, body by body. The maximum over all bodies of each, as IAS15 has it,
 * would judge the Moon by Mercury's acceleration, which is fifteen times that between Earth and Moon. */
static double step_error(const struct radau *r, const double *a0) {
    double worst = 0;
    for (int body = 0; body < r->model.bodies; body++) {
        double a = largest(&a0[3 * body], 3);
        if (a > 0) worst = fmax(worst, largest(&r->b[RADAU_STAGES - 1][3 * body], 3) / a);
    }
    return worst;
}

static void advance(struct radau *r, const double *a0, double step) {
    int values = 3 * r->model.bodies;
    for (int i = 0; i < values; i++) {
        double twice = 0, once = 0;
        for (int k = RADAU_STAGES - 1; k >= 0; k--) {
            twice += r->b[k][i] / ((k + 2) * (k + 3));
            once += r->b[k][i] / (k + 2);
        }
        add(&r->x[i], &r->x_low[i], step * step * (0.5 * a0[i] + twice));
        add(&r->x[i], &r->x_low[i], step * r->v_low[i]);
        add(&r->x[i], &r->x_low[i], step * r->v[i]);
        add(&r->v[i], &r->v_low[i], step * (a0[i] + once));
    }
}

/* A first step: a small part of the shortest time in which some pair's attraction would carry it around or together. A guess
 * too long is rejected and repeated shorter; a guess too short costs a few steps (it may grow fourfold each time). */
static double first_step(const struct radau *r) {
    const struct sim_model *m = &r->model;
    double shortest = DBL_MAX;
    for (int i = 0; i < m->bodies; i++)
        for (int j = i + 1; j < m->bodies; j++) {
            double r2 = 0, gm = m->gm[i] + m->gm[j];
            for (int k = 0; k < 3; k++)
                r2 += (r->x[3 * j + k] - r->x[3 * i + k]) * (r->x[3 * j + k] - r->x[3 * i + k]);
            if (gm > 0) shortest = fmin(shortest, sqrt(r2 * sqrt(r2) / gm));
        }
    return 0.01 * shortest;
}

void radau_start(struct radau *r) {
    memset(r->x_low, 0, sizeof r->x_low);
    memset(r->v_low, 0, sizeof r->v_low);
    memset(r->b, 0, sizeof r->b);
    memset(r->g, 0, sizeof r->g);
    memset(r->predicted, 0, sizeof r->predicted);
    r->step_s = first_step(r);
    r->last_s = 0;
    r->guessed = 0;
    r->steps = r->rejected = r->evaluations = 0;
}

/* Takes one step of at most `remaining` seconds. Sets *done_s to what was taken. */
static enum radau_result one_step(struct radau *r, const struct tables *t, double remaining,
                                  double *done_s) {
    double a0[RADAU_VALUES];
    sim_acceleration(&r->model, r->x, r->x_low, r->v, a0);
    r->evaluations++;
    double a_max = largest(a0, 3 * r->model.bodies);
    for (;;) {
        double step = r->step_s;
        if (fabs(step) < RADAU_STEP_MIN_S) return RADAU_STEP_TOO_SMALL;
        /* Two even steps at the end rather than a whole one and a tiny one. */
        if (fabs(step) >= fabs(remaining))
            step = remaining;
        else if (2 * fabs(step) > fabs(remaining))
            step = 0.5 * remaining;

        if (r->last_s != 0) {
            predict(r, t, step / r->last_s);
            r->guessed = 1;
        }
        newton_form(r, t);
        double before = DBL_MAX;
        for (int i = 0; i < ITERATIONS_MAX; i++) {
            double change = sweep(r, t, a0, step) / (a_max > 0 ? a_max : 1.0);
            if (!isfinite(change)) return RADAU_NOT_FINITE;
            if (change < DBL_EPSILON) break;
            if (i >= 2 && change >= before) break; /* rounding: it will not get better */
            before = change;
        }
        double error = step_error(r, a0);
        double factor = error > 0 ? pow(TOLERANCE / error, 1.0 / 7.0) : STEP_CHANGE_MAX;
        if (!isfinite(factor)) return RADAU_NOT_FINITE;
        double next = step * fmin(factor, STEP_CHANGE_MAX);
        if (factor < 1.0 / STEP_CHANGE_MAX) {
            r->rejected++;
            r->step_s = next;
            /* b belongs to the step just tried: begin the shorter one from nothing, as the first step does. */
            memset(r->b, 0, sizeof r->b);
            r->last_s = 0;
            r->guessed = 0;
            continue;
        }
        advance(r, a0, step);
        r->steps++;
        r->last_s = step;
        r->step_s = next;
        *done_s = step;
        return RADAU_OK;
    }
}

enum radau_result radau_run(struct radau *r, double span_s, int (*stop)(void *arg), void *arg) {
    struct tables tables;
    make_tables(&tables);
    r->step_s = copysign(r->step_s, span_s);
    double remaining = span_s, remaining_low = 0;
    while (fabs(remaining) > SPAN_ROUNDING_S) {
        if (stop(arg)) return RADAU_STOPPED;
        double done;
        enum radau_result result = one_step(r, &tables, remaining, &done);
        if (result != RADAU_OK) return result;
        add(&remaining, &remaining_low, -done);
    }
    return RADAU_OK;
}
