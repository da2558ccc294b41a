/* simd.h: which vector instructions the sums of forces use: the widest that this CPU has, unless told otherwise.
 *
 * The variants give the same bits. In all of them each lane is one body, which adds up what pulls at it in the same order; sqrt
 * and division are exact by IEEE 754; and no product is fused into a sum. The last is the compiler's doing: AVX-512 comes with
 * fused multiply-adds, which gcc would put in by itself and only there, hence -ffp-contract=off for all that is here. Without
 * it tests/simulation/test_simd.py fails. */
#ifndef RINGBRIDGE_SIMULATION_SIMD_H
#define RINGBRIDGE_SIMULATION_SIMD_H

enum sim_simd { SIM_SCALAR, SIM_AVX2, SIM_AVX512 };
#define SIM_SIMD_COUNT 3

/* What is used now; before any sim_simd_use(), the widest. */
enum sim_simd sim_simd(void);
/* Before the first job. 0, or -ENOTSUP: this CPU has it not. */
int sim_simd_use(enum sim_simd simd);
const char *sim_simd_name(enum sim_simd simd);
/* "--simd NAME" (scalar, avx2, avx512) among a program's arguments is obeyed. 0, or -EINVAL, -ENOTSUP after a line on stderr. */
int sim_simd_arguments(int argc, char **argv);

#endif
