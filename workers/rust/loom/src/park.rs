//! The kernel's futex, as a lock and a condition: comparing and going to sleep are one step, as
//! they are under the lock of the kernel's hash bucket (futex(2)). The other ways of sleeping keep
//! what rang, so they need no model.

use crate::primitive::{u32s, AtomicU32};
use loom::sync::{Condvar, Mutex};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slept {
    News,
    TimedOut,
    Refused,
}

loom::lazy_static! {
    static ref BUCKET: Mutex<()> = Mutex::new(());
    static ref SLEEPERS: Condvar = Condvar::new();
}

pub fn by_futex(doorbell: &AtomicU32, bell: u32, _: Option<u64>) -> Slept {
    let bucket = BUCKET.lock().unwrap();
    if u32s::load_relaxed(doorbell) == bell {
        drop(SLEEPERS.wait(bucket).unwrap());
    }
    Slept::News
}

pub fn wake_futex(_: &AtomicU32) {
    let _bucket = BUCKET.lock().unwrap();
    SLEEPERS.notify_one();
}

pub fn by_eventfd(_: i32, _: Option<u64>) -> Slept {
    Slept::Refused
}

pub fn by_either(_: i32, _: i32, _: i16, _: Option<u64>) -> (Slept, bool) {
    (Slept::Refused, false)
}

pub fn by_signal(_: Option<u64>) -> Slept {
    Slept::Refused
}

pub fn wake_eventfd(_: i32) {}

/// Nothing here depends on the time.
pub fn now_ns() -> u64 {
    0
}
