//! The atomics in names that carry the order, as csrc/include/ringbridge/atomics.h has them, so
//! that a model checker can stand in their place (loom/src/primitive.rs).
//!
//! Words shared between processes are touched through these names only, and each use names its
//! partner by the labels of csrc/include/ringbridge/{ring,gate,telemetry}.h.

use core::sync::atomic::Ordering;
pub use core::sync::atomic::{AtomicU32, AtomicU64};

macro_rules! words {
    ($($word:ident: $value:ty, $module:ident);*) => {$(
        pub mod $module {
            use super::{Ordering, $word};
            #[inline(always)]
            pub fn load_relaxed(word: &$word) -> $value {
                word.load(Ordering::Relaxed)
            }
            #[inline(always)]
            pub fn load_acquire(word: &$word) -> $value {
                word.load(Ordering::Acquire)
            }
            #[inline(always)]
            pub fn load_seq_cst(word: &$word) -> $value {
                word.load(Ordering::SeqCst)
            }
            #[inline(always)]
            pub fn store_relaxed(word: &$word, value: $value) {
                word.store(value, Ordering::Relaxed)
            }
            #[inline(always)]
            pub fn store_release(word: &$word, value: $value) {
                word.store(value, Ordering::Release)
            }
            #[inline(always)]
            pub fn store_seq_cst(word: &$word, value: $value) {
                word.store(value, Ordering::SeqCst)
            }
        }
    )*};
}
words!(AtomicU32: u32, u32s; AtomicU64: u64, u64s);

/// A hint in a spin loop.
#[inline(always)]
pub fn pause() {
    core::hint::spin_loop()
}
