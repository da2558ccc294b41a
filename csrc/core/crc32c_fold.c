/* crc32c_fold.c: see crc32c_fold.h.
 *
 * A CRC is the remainder of the message, read as a polynomial over GF(2), by the polynomial P of the CRC. So a part of the message may be
 * replaced by anything that has the same remainder: 16 bytes A that lie D bits before 16 bytes B may be added to B as A * x^D mod P ("fold",
 * Gopal et al., Fast CRC Computation for Generic Polynomials Using PCLMULQDQ, Intel 2009). Four registers of 64 bytes fold into what lies
 * 256 bytes on, until less than that is left; the instruction of crc32c.c goes over the rest.
 *
 * Bits are reflected: bit 0 of the first byte is the highest power. The product of two reflected words of 64 bits has 127 bits and comes out
 * one place too low, and a remainder of 32 bits in the low half of a word stands for itself times x^32. Both are made good in the exponents: the
 * first word of A, which is x^64 above the second, is multiplied by x^(D + 64 - 33), the second by x^(D - 33). */
#include "crc32c_fold.h"

#if defined(__x86_64__)
#include <immintrin.h>

#define FOLD_TARGET __attribute__((target("avx512f,vpclmulqdq")))

int rb_crc32c_can_fold(void) {
    __builtin_cpu_init(); /* it asks the system too, which must save the registers */
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("vpclmulqdq");
}

/* x^n mod P, reflected: bit 31 is x^0. From r = 1 << 31, n times r = r >> 1 ^ (r & 1 ? 0x82f63b78 : 0). */
static const long long power_2079 = 0xdcb17aa4, power_2015 = 0xb9e02b86; /* 2048 bits: 256 bytes */

FOLD_TARGET static inline __m512i fold(__m512i a, __m512i by, __m512i b) {
    /* 0x96: exclusive or of three */
    return _mm512_ternarylogic_epi64(_mm512_clmulepi64_epi128(a, by, 0x00),
                                     _mm512_clmulepi64_epi128(a, by, 0x11), b, 0x96);
}

FOLD_TARGET size_t rb_crc32c_fold(uint32_t before, const uint8_t *p, size_t size,
                                  uint8_t rest[RB_FOLD_STEP]) {
    const __m512i by = _mm512_broadcast_i32x4(_mm_set_epi64x(power_2015, power_2079));
    const uint8_t *end = p + size / RB_FOLD_STEP * RB_FOLD_STEP, *begin = p;
    __m512i a = _mm512_loadu_si512(p), b = _mm512_loadu_si512(p + 64),
            c = _mm512_loadu_si512(p + 128), d = _mm512_loadu_si512(p + 192);
    a = _mm512_xor_si512(a, _mm512_zextsi128_si512(_mm_cvtsi32_si128((int)before)));
    for (p += RB_FOLD_STEP; p < end; p += RB_FOLD_STEP) {
        a = fold(a, by, _mm512_loadu_si512(p));
        b = fold(b, by, _mm512_loadu_si512(p + 64));
        c = fold(c, by, _mm512_loadu_si512(p + 128));
        d = fold(d, by, _mm512_loadu_si512(p + 192));
    }
    _mm512_storeu_si512(rest, a);
    _mm512_storeu_si512(rest + 64, b);
    _mm512_storeu_si512(rest + 128, c);
    _mm512_storeu_si512(rest + 192, d);
    return (size_t)(p - begin);
}

#else

int rb_crc32c_can_fold(void) { return 0; }

size_t rb_crc32c_fold(uint32_t before, const uint8_t *p, size_t size, uint8_t rest[RB_FOLD_STEP]) {
    (void)before, (void)p, (void)size, (void)rest;
    return 0;
}

#endif
