/* kernels.c: the variants of kernels_lanes.h, and the table from which one is taken. Each function has its instruction set as an
 * attribute, so that nothing else in this file can come to use it on a CPU that has it not. */
#include "kernels.h"

#include <math.h>
#include <stddef.h>

_Static_assert(SIM_GROUP_MAX % SIM_LANES_MAX == 0 && SIM_BODIES_MAX % SIM_LANES_MAX == 0,
               "the last vector of a group or of all bodies must fit");

#define LANES 1
#define TARGET
#define ROOT(v_) sqrt(v_)
#define NAME(name_) name_##_scalar
#include "kernels_lanes.h"

#ifdef __x86_64__
#include <immintrin.h>

#define LANES 4
#define TARGET __attribute__((target("avx2")))
#define ROOT(v_) ((vec_avx2)_mm256_sqrt_pd((__m256d)(v_)))
#define NAME(name_) name_##_avx2
#include "kernels_lanes.h"

#define LANES 8
#define TARGET __attribute__((target("avx512f,avx512dq")))
#define ROOT(v_) ((vec_avx512)_mm512_sqrt_pd((__m512d)(v_)))
#define NAME(name_) name_##_avx512
#include "kernels_lanes.h"
#endif

static const struct sim_kernels variants[SIM_SIMD_COUNT] = {
    [SIM_SCALAR] = {NULL, pull_bodies_scalar, pull_cells_scalar},
#ifdef __x86_64__
    [SIM_AVX2] = {newton_avx2, pull_bodies_avx2, pull_cells_avx2},
    [SIM_AVX512] = {newton_avx512, pull_bodies_avx512, pull_cells_avx512},
#endif
};

const struct sim_kernels *sim_kernels(void) { return &variants[sim_simd()]; }
