/* cluster.c: steps by leapfrog, kick drift kick: symplectic and the same backwards, with one sum of forces a step. And what is
 * measured on the way: energy, momenta, and the tree's accelerations against sums over all bodies. */
#include "cluster.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

enum { PROGRESS_A_STEP = 64 };

struct run {
    struct cluster *cluster;
    const struct cluster_watch *watch;
    uint32_t steps_done;
    uint32_t pulls_done;
    int told; /* which of the PROGRESS_A_STEP of this pull was told last */
};

static void tell(const struct run *run, double fraction) {
    uint8_t bytes[CLUSTER_PROGRESS_BYTES];
    const struct cluster_request *q = &run->cluster->request;
    double share = (run->pulls_done + fraction) / (1.0 + q->steps);
    memcpy(bytes, &run->steps_done, 4);
    memcpy(bytes + 4, &q->steps, 4);
    memcpy(bytes + 8, &share, 8);
    run->watch->progress(run->watch->arg, bytes);
}

static int stop(void *arg, double fraction) {
    struct run *run = arg;
    int now = (int)(fraction * PROGRESS_A_STEP);
    if (now > run->told && now < PROGRESS_A_STEP) {
        run->told = now;
        tell(run, fraction);
    }
    return run->watch->stop(run->watch->arg);
}

static enum sim_code failed_by(const struct run *run, int error, char *message) {
    if (error == -ECANCELED) {
        snprintf(message, SIM_MESSAGE_BYTES, "stopped after %u steps", run->steps_done);
        return SIM_STOPPED;
    }
    if (error == -ENOMEM) {
        snprintf(message, SIM_MESSAGE_BYTES, "no memory for %u bodies",
                 run->cluster->request.bodies);
        return SIM_NO_MEMORY;
    }
    snprintf(message, SIM_MESSAGE_BYTES, "a body is farther away than %g after %u steps", TREE_FAR,
             run->steps_done);
    return SIM_BODIES_COINCIDE;
}

static int pull(struct run *run) {
    struct cluster *c = run->cluster;
    const struct tree_watch watch = {stop, run};
    run->told = 0;
    int failed = tree_build(&c->tree, &watch);
    if (!failed) failed = tree_pull(&c->tree, c->request.theta, c->request.softening, &watch);
    if (!failed) run->pulls_done++;
    return failed;
}

static void kick(struct tree_bodies *b, double time) {
    double *const a[3] = {b->ax, b->ay, b->az};
    for (int k = 0; k < 3; k++)
        for (uint32_t i = 0; i < b->count; i++) b->value[TREE_VX + k][i] += time * a[k][i];
}

static void drift(struct tree_bodies *b, double time) {
    for (int k = 0; k < 3; k++)
        for (uint32_t i = 0; i < b->count; i++)
            b->value[TREE_X + k][i] += time * b->value[TREE_VX + k][i];
}

/* --- what should stay as it is ----------------------------------------------------------------------------------------- */

struct conserved {
    double energy, momentum[3], angular[3];
};

static struct conserved measure(const struct tree_bodies *b) {
    struct conserved sum = {0};
    for (uint32_t i = 0; i < b->count; i++) {
        double x[3], p[3], mass = b->value[TREE_MASS][i], speed2 = 0;
        for (int k = 0; k < 3; k++) {
            double v = b->value[TREE_VX + k][i];
            x[k] = b->value[TREE_X + k][i];
            p[k] = mass * v;
            speed2 += v * v;
            sum.momentum[k] += p[k];
        }
        sum.energy += 0.5 * mass * (speed2 + b->potential[i]);
        for (int k = 0; k < 3; k++)
            sum.angular[k] += x[(k + 1) % 3] * p[(k + 2) % 3] - x[(k + 2) % 3] * p[(k + 1) % 3];
    }
    return sum;
}

static double distance(const double *a, const double *b) {
    double x = a[0] - b[0], y = a[1] - b[1], z = a[2] - b[2];
    return sqrt(x * x + y * y + z * z);
}

/* Some bodies, evenly along the curve, against sums over all. */
static int sample(struct run *run) {
    struct cluster *c = run->cluster;
    const struct tree_bodies *b = &c->tree.bodies;
    const struct tree_watch watch = {stop, run};
    const uint32_t sampled = c->request.sampled;
    struct sim_group g;
    double square = 0, most = 0;
    for (uint32_t done = 0; done < sampled; done += SIM_GROUP_MAX) {
        uint32_t places[SIM_GROUP_MAX];
        int count = sampled - done < SIM_GROUP_MAX ? (int)(sampled - done) : SIM_GROUP_MAX;
        for (int i = 0; i < count; i++)
            places[i] = (uint32_t)((uint64_t)(done + (uint32_t)i) * b->count / sampled);
        int failed = tree_pull_directly(&c->tree, places, count, c->request.softening, &g, &watch);
        if (failed) return failed;
        for (int i = 0; i < count; i++) {
            const double exact[3] = {g.ax[i], g.ay[i], g.az[i]}, nothing[3] = {0};
            const double ours[3] = {b->ax[places[i]], b->ay[places[i]], b->az[places[i]]};
            double whole = distance(exact, nothing), off = distance(ours, exact);
            double error = off > 0 ? off / whole : 0;
            square += error * error;
            most = fmax(most, error);
        }
    }
    if (sampled > 0) c->report.error_rms = sqrt(square / sampled);
    c->report.error_max = most;
    return 0;
}

enum sim_code cluster_run(struct cluster *c, char *message, const struct cluster_watch *watch) {
    const struct cluster_request *q = &c->request;
    struct tree_bodies *b = &c->tree.bodies;
    struct run run = {.cluster = c, .watch = watch};
    int failed = pull(&run);
    if (failed) return failed_by(&run, failed, message);
    const struct conserved before = measure(b);
    while (run.steps_done < q->steps) {
        kick(b, 0.5 * q->step);
        drift(b, q->step);
        failed = pull(&run);
        if (failed) return failed_by(&run, failed, message);
        kick(b, 0.5 * q->step);
        run.steps_done++;
        tell(&run, 0);
    }
    const struct conserved after = measure(b);
    c->report.energy_before = before.energy;
    c->report.energy_after = after.energy;
    c->report.momentum_gained = distance(after.momentum, before.momentum);
    c->report.angular_gained = distance(after.angular, before.angular);
    run.told = PROGRESS_A_STEP;
    failed = sample(&run);
    return failed ? failed_by(&run, failed, message) : SIM_OK;
}
