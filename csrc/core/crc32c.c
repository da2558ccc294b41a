/* crc32c.c: CRC-32C by table (eight bytes a step), by the CPU's instruction (three streams a step), and
 * where the CPU multiplies without carry in wide registers by folding (crc32c_fold.c).
 *
 * The instruction has a latency of three cycles and a throughput of one a cycle, so one stream uses
 * a third of the unit. Long inputs are therefore cut into three equal runs that are summed side by
 * side and joined at the end: the CRC register after a run of n zero bytes is a linear map of the
 * register before it, and this map, as four tables of 256 words, moves the first run's register
 * past the second run (Mark Adler, crc32c.c, 2013). Two run lengths: a long one whose joining costs
 * nothing and a short one that still serves a kibibyte. */
#define _GNU_SOURCE
#include "ringbridge/crc32c.h"

#include <pthread.h>
#include <string.h>

#include "crc32c_fold.h"
#include "ringbridge/atomics.h"

#if defined(__x86_64__)
#define RB_CRC_X86 1
#elif defined(__aarch64__)
#define RB_CRC_ARM 1
#include <sys/auxv.h>
#ifndef HWCAP_CRC32
#define HWCAP_CRC32 (1u << 7)
#endif
#endif

enum {
    POLYNOMIAL_BITS = 32,
    LONG_RUN = 4096,
    SHORT_RUN = 256,
    COPY_PIECE = 8192, /* it lies in the first cache with its source */
    SIZE_BITS = 64,
};
static const uint32_t polynomial = 0x82f63b78u;

static uint32_t byte_tables[8][256]; /* [k][b]: register after byte b and k zero bytes */
static uint32_t past_long[4][256]; /* register after LONG_RUN zero bytes, by the register's bytes */
static uint32_t past_short[4][256];
static uint32_t squares[SIZE_BITS + 3]; /* [n]: x^(2^n) mod P, bit 31 being x^0 */
static int hardware, folds;
static pthread_once_t prepared = PTHREAD_ONCE_INIT;
static int ready; /* C0: set with release by prepare(), read with acquire in ensure(): who sees 1
                     sees the tables */

static uint64_t load64(const uint8_t *p) {
    uint64_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

/* A linear map of the register is a matrix over GF(2): 32 columns, the images of its single
 * bits. */
static uint32_t apply(const uint32_t *matrix, uint32_t vector) {
    uint32_t sum = 0;
    for (; vector; vector >>= 1, matrix++)
        if (vector & 1) sum ^= *matrix;
    return sum;
}

static void square(uint32_t *out, const uint32_t *matrix) {
    for (int i = 0; i < POLYNOMIAL_BITS; i++) out[i] = apply(matrix, matrix[i]);
}

/* Tables of "the register after `bytes` zero bytes"; bytes is a power of two. */
static void prepare_past(uint32_t tables[4][256], uint32_t bytes) {
    uint32_t one[POLYNOMIAL_BITS], two[POLYNOMIAL_BITS];
    one[0] =
        polynomial; /* one zero bit: shift right, the bit that falls out brings the polynomial in */
    for (int i = 1; i < POLYNOMIAL_BITS; i++) one[i] = 1u << (i - 1);
    for (uint32_t bits = 1; bits < bytes * 8; bits *= 2) {
        square(two, one);
        memcpy(one, two, sizeof one);
    }
    for (int k = 0; k < 4; k++)
        for (uint32_t b = 0; b < 256; b++) tables[k][b] = apply(one, b << (8 * k));
}

/* a * b mod P, of two polynomials whose bit 31 is x^0. */
static uint32_t product(uint32_t a, uint32_t b) {
    uint32_t sum = 0;
    for (uint32_t bit = 1u << 31; bit; bit >>= 1) {
        if (a & bit) sum ^= b;
        b = (b >> 1) ^ (b & 1 ? polynomial : 0);
    }
    return sum;
}

static void prepare_squares(void) {
    squares[0] = 1u << 30;
    for (int n = 1; n < SIZE_BITS + 3; n++) squares[n] = product(squares[n - 1], squares[n - 1]);
}

static int detect(void) {
#if defined(RB_CRC_X86)
    __builtin_cpu_init();
    return __builtin_cpu_supports("sse4.2") != 0;
#elif defined(RB_CRC_ARM)
    return (getauxval(AT_HWCAP) & HWCAP_CRC32) != 0;
#else
    return 0;
#endif
}

static void prepare(void) {
    for (uint32_t b = 0; b < 256; b++) {
        uint32_t crc = b;
        for (int bit = 0; bit < 8; bit++) crc = (crc >> 1) ^ (crc & 1 ? polynomial : 0);
        byte_tables[0][b] = crc;
    }
    for (int k = 1; k < 8; k++)
        for (uint32_t b = 0; b < 256; b++) {
            uint32_t crc = byte_tables[k - 1][b];
            byte_tables[k][b] = byte_tables[0][crc & 0xff] ^ (crc >> 8);
        }
    prepare_past(past_long, LONG_RUN);
    prepare_past(past_short, SHORT_RUN);
    prepare_squares();
    hardware = detect();
    folds = hardware && rb_crc32c_can_fold();
    rb_store_release(&ready, 1); /* C0 */
}

static void ensure(void) {
    /* C1: pairs with C0. Without it the tables could be used before their words are there. */
    if (!rb_load_acquire(&ready)) pthread_once(&prepared, prepare);
}

uint32_t rb_crc32c_table(uint32_t crc, const void *data, size_t size) {
    const uint8_t *p = data;
    ensure();
    crc = ~crc;
    for (; size >= 8; size -= 8, p += 8) {
        uint64_t v = load64(p) ^ crc;
        crc = byte_tables[7][v & 0xff] ^ byte_tables[6][v >> 8 & 0xff] ^
              byte_tables[5][v >> 16 & 0xff] ^ byte_tables[4][v >> 24 & 0xff] ^
              byte_tables[3][v >> 32 & 0xff] ^ byte_tables[2][v >> 40 & 0xff] ^
              byte_tables[1][v >> 48 & 0xff] ^ byte_tables[0][v >> 56];
    }
    for (; size; size--) crc = byte_tables[0][(crc ^ *p++) & 0xff] ^ (crc >> 8);
    return ~crc;
}

#if defined(RB_CRC_X86) || defined(RB_CRC_ARM)

#if defined(RB_CRC_X86)
#define RB_CRC_TARGET __attribute__((target("sse4.2")))
#define STEP8(crc, v) __builtin_ia32_crc32di((crc), (v))
#define STEP1(crc, v) __builtin_ia32_crc32qi((uint32_t)(crc), (v))
#else
#define RB_CRC_TARGET
static inline uint64_t STEP8(uint64_t crc, uint64_t v) {
    __asm__(".arch_extension crc\n\tcrc32cx %w0, %w0, %x1" : "+r"(crc) : "r"(v));
    return crc;
}
static inline uint64_t STEP1(uint64_t crc, uint8_t v) {
    __asm__(".arch_extension crc\n\tcrc32cb %w0, %w0, %w1" : "+r"(crc) : "r"((uint32_t)v));
    return crc;
}
#endif

static inline uint64_t past(uint32_t tables[4][256], uint64_t crc) {
    return tables[0][crc & 0xff] ^ tables[1][crc >> 8 & 0xff] ^ tables[2][crc >> 16 & 0xff] ^
           tables[3][crc >> 24];
}

/* Three neighbouring runs of `run` bytes (a multiple of 8) from p on. */
RB_CRC_TARGET static inline uint64_t three_runs(uint64_t crc, const uint8_t *p, size_t run,
                                                uint32_t tables[4][256]) {
    uint64_t second = 0, third = 0;
    for (const uint8_t *end = p + run; p < end; p += 8) {
        crc = STEP8(crc, load64(p));
        second = STEP8(second, load64(p + run));
        third = STEP8(third, load64(p + 2 * run));
    }
    crc = past(tables, crc) ^ second;
    return past(tables, crc) ^ third;
}

/* The register is 64 bits wide here, its upper half zero, as the instruction leaves it: else each
 * step of the chain would be followed by a move. */
RB_CRC_TARGET static uint32_t by_instruction(uint32_t before, const uint8_t *p, size_t size) {
    uint64_t crc = (uint32_t)~before;
    if (__builtin_expect(size >= 3 * SHORT_RUN, 0)) {
        for (; size >= 3 * LONG_RUN; size -= 3 * LONG_RUN, p += 3 * LONG_RUN)
            crc = three_runs(crc, p, LONG_RUN, past_long);
        for (; size >= 3 * SHORT_RUN; size -= 3 * SHORT_RUN, p += 3 * SHORT_RUN)
            crc = three_runs(crc, p, SHORT_RUN, past_short);
    }
    for (; size >= 8; size -= 8, p += 8) crc = STEP8(crc, load64(p));
    for (; size; size--) crc = STEP1(crc, *p++);
    return ~(uint32_t)crc;
}

uint32_t rb_crc32c_hardware(uint32_t crc, const void *data, size_t size) {
    ensure();
    return by_instruction(crc, data, size);
}

#else /* no instruction known for this CPU: the names stay, so that callers need no #if */

#define by_instruction(crc, p, size) rb_crc32c_table((crc), (p), (size))

uint32_t rb_crc32c_hardware(uint32_t crc, const void *data, size_t size) {
    return rb_crc32c_table(crc, data, size);
}

#endif

int rb_crc32c_has_hardware(void) {
    ensure();
    return hardware;
}

/* Apart: its room on the stack would be paid for by every short sum. */
__attribute__((noinline)) static uint32_t by_folding(uint32_t before, const uint8_t *p,
                                                     size_t size) {
    uint8_t rest[RB_FOLD_STEP];
    size_t taken = rb_crc32c_fold(~before, p, size, rest);
    return by_instruction(by_instruction(~0u, rest, sizeof rest), p + taken, size - taken);
}

uint32_t rb_crc32c(uint32_t crc, const void *data, size_t size) {
    ensure();
    if (__builtin_expect(size >= RB_FOLD_MIN, 0) && folds) return by_folding(crc, data, size);
    return hardware ? by_instruction(crc, data, size) : rb_crc32c_table(crc, data, size);
}

uint32_t rb_crc32c_copy(uint32_t crc, void *to, const void *from, size_t size) {
    uint8_t *t = to;
    const uint8_t *f = from;
    while (size) {
        size_t piece = size < COPY_PIECE ? size : COPY_PIECE;
        memcpy(t, f, piece);
        crc = rb_crc32c(crc, t, piece);
        t += piece, f += piece, size -= piece;
    }
    return crc;
}

uint32_t rb_crc32c_join(uint32_t a, uint32_t b, size_t b_size) {
    ensure();
    /* The inversions before and behind cancel each other out: what is left of a is its register times x^(8 * b_size). */
    uint32_t power = 1u << 31;
    for (int n = 3; b_size; n++, b_size >>= 1)
        if (b_size & 1) power = product(squares[n], power);
    return product(power, a) ^ b;
}
