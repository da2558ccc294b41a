/* simd.c: asks the CPU once, and remembers. */
#include "simd.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static const char *const names[SIM_SIMD_COUNT] = {"scalar", "avx2", "avx512"};
static int chosen = -1; /* one writer: the handler's thread, or main() before it */

static int supported(enum sim_simd simd) {
#ifdef __x86_64__
    /* The builtin asks for the operating system's consent (XCR0) too. */
    if (simd == SIM_AVX2) return __builtin_cpu_supports("avx2") != 0;
    if (simd == SIM_AVX512)
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq");
#endif
    return simd == SIM_SCALAR;
}

enum sim_simd sim_simd(void) {
    if (chosen < 0) {
        chosen = SIM_AVX512;
        while (!supported((enum sim_simd)chosen)) chosen--;
    }
    return (enum sim_simd)chosen;
}

int sim_simd_use(enum sim_simd simd) {
    if (!supported(simd)) return -ENOTSUP;
    chosen = (int)simd;
    return 0;
}

const char *sim_simd_name(enum sim_simd simd) { return names[simd]; }

int sim_simd_arguments(int argc, char **argv) {
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--simd") != 0) continue;
        const char *name = i + 1 < argc ? argv[i + 1] : "nothing";
        for (int simd = 0; simd < SIM_SIMD_COUNT; simd++) {
            if (strcmp(name, names[simd]) != 0) continue;
            int failed = sim_simd_use((enum sim_simd)simd);
            if (failed) fprintf(stderr, "--simd: this CPU has no %s\n", name);
            return failed;
        }
        fprintf(stderr, "--simd must be scalar, avx2 or avx512, got %s\n", name);
        return -EINVAL;
    }
    return 0;
}
