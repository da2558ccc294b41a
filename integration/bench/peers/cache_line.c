/* cache_line: how long one cache line takes from one core to another and back, in nanoseconds.
 *
 * Prints {"median_ns": m, "min_ns": a, "max_ns": b} over SAMPLES short samples, null where there is one core.
 * It stands beside each figure that crosses cores: on a virtual machine the two cores move on the host, and a
 * whole run may fall on the slow level.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { SAMPLES = 9, TURNS = 40000 };

static struct {
    uint64_t ping __attribute__((aligned(128))); /* written by main */
    uint64_t pong __attribute__((aligned(128))); /* written by the other thread */
} line;

static void pin(int cpu) {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    pthread_setaffinity_np(pthread_self(), sizeof set, &set);
}

static void *answer(void *cpu) {
    pin(*(int *)cpu);
    for (uint64_t turn = 1; turn <= (uint64_t)SAMPLES * TURNS; turn++) {
        /* Pairs with the release of ping in sample(); nothing else is read, so the pair orders nothing more. */
        while (__atomic_load_n(&line.ping, __ATOMIC_ACQUIRE) != turn) __builtin_ia32_pause();
        /* Pairs with the acquire of pong in sample(). */
        __atomic_store_n(&line.pong, turn, __ATOMIC_RELEASE);
    }
    return NULL;
}

static double sample(uint64_t *turn) {
    struct timespec from, to;
    clock_gettime(CLOCK_MONOTONIC, &from);
    for (int i = 0; i < TURNS; i++) {
        __atomic_store_n(&line.ping, ++*turn, __ATOMIC_RELEASE); /* pairs with answer()'s acquire */
        while (__atomic_load_n(&line.pong, __ATOMIC_ACQUIRE) != *turn) __builtin_ia32_pause();
    }
    clock_gettime(CLOCK_MONOTONIC, &to);
    return ((double)(to.tv_sec - from.tv_sec) * 1e9 + (double)(to.tv_nsec - from.tv_nsec)) / TURNS;
}

static int by_size(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

int main(void) {
    cpu_set_t set;
    int cpus[2], count = 0;
    pthread_t other;
    uint64_t turn = 0;
    double samples[SAMPLES];
    sched_getaffinity(0, sizeof set, &set);
    for (int cpu = 0; cpu < CPU_SETSIZE && count < 2; cpu++)
        if (CPU_ISSET(cpu, &set)) cpus[count++] = cpu;
    if (count < 2) return puts("null") < 0;
    pin(cpus[0]);
    if (pthread_create(&other, NULL, answer, &cpus[1])) return 1;
    for (int i = 0; i < SAMPLES; i++) samples[i] = sample(&turn);
    pthread_join(other, NULL);
    qsort(samples, SAMPLES, sizeof samples[0], by_size);
    printf("{\"median_ns\": %.1f, \"min_ns\": %.1f, \"max_ns\": %.1f}\n", samples[SAMPLES / 2],
           samples[0], samples[SAMPLES - 1]);
    return 0;
}
