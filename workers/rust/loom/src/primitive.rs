//! What ../src/primitive.rs has, on loom's atomics; and the orders can be weakened, so that the
//! model is seen to fail where a line of order is missing.
//!
//! loom takes a sequentially consistent access for an acquire or release one, and knows the fence:
//! a store is followed by one here and a load preceded by one, which is how an x86 or Arm does it
//! too.

use loom::sync::atomic::{fence, Ordering};
pub use loom::sync::atomic::{AtomicU32, AtomicU64};
use std::cell::Cell;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weakened {
    Nothing,
    /// Sequentially consistent accesses are acquire and release ones.
    SeqCst,
    /// Stores are relaxed.
    Stores,
    /// Loads are relaxed.
    Loads,
}

thread_local! {
    /// loom runs all threads of a model on the thread of its test.
    static WEAKENED: Cell<Weakened> = Cell::new(Weakened::Nothing);
}

pub fn weaken(what: Weakened) {
    WEAKENED.with(|w| w.set(what));
}

fn is(what: Weakened) -> bool {
    WEAKENED.with(|w| w.get() == what)
}

fn load_order() -> Ordering {
    if is(Weakened::Loads) {
        Ordering::Relaxed
    } else {
        Ordering::Acquire
    }
}

fn store_order() -> Ordering {
    if is(Weakened::Stores) {
        Ordering::Relaxed
    } else {
        Ordering::Release
    }
}

fn full_fence() {
    if is(Weakened::Nothing) {
        fence(Ordering::SeqCst);
    }
}

macro_rules! words {
    ($($word:ident: $value:ty, $module:ident);*) => {$(
        pub mod $module {
            use super::*;
            pub fn load_relaxed(word: &$word) -> $value {
                word.load(Ordering::Relaxed)
            }
            pub fn load_acquire(word: &$word) -> $value {
                word.load(load_order())
            }
            pub fn load_seq_cst(word: &$word) -> $value {
                full_fence();
                word.load(load_order())
            }
            pub fn store_relaxed(word: &$word, value: $value) {
                word.store(value, Ordering::Relaxed)
            }
            pub fn store_release(word: &$word, value: $value) {
                word.store(value, store_order())
            }
            pub fn store_seq_cst(word: &$word, value: $value) {
                word.store(value, store_order());
                full_fence();
            }
        }
    )*};
}
words!(AtomicU32: u32, u32s; AtomicU64: u64, u64s);

pub fn pause() {
    loom::thread::yield_now();
}
