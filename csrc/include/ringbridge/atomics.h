/* atomics.h: the compiler's atomics in names that carry the order, and the asserts of what crosses
 * a process.
 *
 * C99 has neither _Atomic nor _Static_assert; the GNU builtins have both meanings. All words shared
 * between processes are touched through these names only, so that a reader finds every one of them,
 * and each use names its partner. */
#ifndef RINGBRIDGE_ATOMICS_H
#define RINGBRIDGE_ATOMICS_H

#include <stddef.h>
#include <stdint.h>

#define rb_load_relaxed(p) __atomic_load_n((p), __ATOMIC_RELAXED)
#define rb_load_acquire(p) __atomic_load_n((p), __ATOMIC_ACQUIRE)
#define rb_load_seq_cst(p) __atomic_load_n((p), __ATOMIC_SEQ_CST)
#define rb_store_relaxed(p, v) __atomic_store_n((p), (v), __ATOMIC_RELAXED)
#define rb_store_release(p, v) __atomic_store_n((p), (v), __ATOMIC_RELEASE)
#define rb_store_seq_cst(p, v) __atomic_store_n((p), (v), __ATOMIC_SEQ_CST)
#define rb_add_relaxed(p, v) __atomic_fetch_add((p), (v), __ATOMIC_RELAXED)
#define rb_sub_relaxed(p, v) __atomic_fetch_sub((p), (v), __ATOMIC_RELAXED)

/* A hint in a spin loop: lets the other hyper-thread run and softens the exit misprediction. */
static inline void rb_pause(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ __volatile__("yield");
#endif
}

#define RB_ASSERT_AT(type, field, offset) \
    __extension__ _Static_assert(offsetof(type, field) == (offset), #type "." #field " moved")
#define RB_ASSERT_SIZE(type, size) \
    __extension__ _Static_assert(sizeof(type) == (size), #type " changed its size")

#endif
