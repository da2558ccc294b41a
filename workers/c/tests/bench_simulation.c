/* bench_simulation.c: what vectors and the tree save, by ratio: the variants in turns, the least CPU time of each. No link, no bridge.
 *
 *   bench_simulation [bodies]      the tree against all pairs at this many bodies, 20000 unless told */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "../simulation/cluster.h"

enum { ROUNDS = 5 };

/* Of this thread alone: others on the machine take turns with it. */
static double cpu_s(void) {
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int never(void *arg, double fraction) {
    (void)arg;
    (void)fraction;
    return 0;
}

static struct radau state;
static struct tree tree;

static void orbits(double bodies) {
    double a[RADAU_VALUES];
    state.model.bodies = (int)bodies;
    for (int i = 0; i < 20000; i++)
        sim_acceleration(&state.model, state.x, state.x_low, state.v, a);
}

static void pull(double theta) {
    const struct tree_watch watch = {never, NULL};
    if (tree_pull(&tree, theta, 0.01, &watch) < 0) abort();
}

/* Prints the least time of each variant, and how much faster than the first it is. Returns that of the widest. */
static double measure(const char *what, void (*work)(double), double argument) {
    double least[SIM_SIMD_COUNT] = {0};
    enum sim_simd widest = SIM_SCALAR;
    for (int round = 0; round < ROUNDS; round++)
        for (int simd = 0; simd < SIM_SIMD_COUNT; simd++) {
            if (sim_simd_use((enum sim_simd)simd) < 0) continue;
            double begin = cpu_s();
            work(argument);
            double took = cpu_s() - begin;
            if (round == 0 || took < least[simd]) least[simd] = took;
            widest = (enum sim_simd)simd;
        }
    printf("%-34s", what);
    for (int simd = 0; simd < SIM_SIMD_COUNT; simd++)
        if (least[simd] > 0)
            printf("  %s %8.2f ms (%.2f x)", sim_simd_name((enum sim_simd)simd), 1e3 * least[simd],
                   least[0] / least[simd]);
    printf("\n");
    fflush(stdout);
    return least[widest];
}

int main(int argc, char **argv) {
    uint32_t bodies = argc > 1 ? (uint32_t)strtoul(argv[1], NULL, 10) : 20000;
    const struct tree_watch watch = {never, NULL};
    if (bodies < 64 || tree_open(&tree, bodies) < 0) return 1;
    plummer_fill(&tree.bodies, 1);
    if (tree_build(&tree, &watch) < 0) return 1;
    for (int i = 0; i < SIM_BODIES_MAX; i++) {
        state.model.gm[i] = 1;
        for (int k = 0; k < 3; k++) state.x[3 * i + k] = tree.bodies.value[k][i];
    }
    measure("orbits, 20,000 sums of 11 bodies", orbits, 11);
    measure("orbits, 20,000 sums of 64 bodies", orbits, 64);
    printf("%u bodies:\n", bodies);
    double by_tree = measure("tree, theta 0.5", pull, 0.5),
           by_pairs = measure("all pairs", pull, 0);
    printf("the tree is %.1f times as fast as all pairs\n", by_pairs / by_tree);
    tree_free(&tree);
    return 0;
}
