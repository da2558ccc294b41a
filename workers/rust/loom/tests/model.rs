//! Every execution of two threads on the kit's ring, gate and telemetry block, under loom: small
//! ones, with a few publications each. Each rule has a test that its model fails when an order is
//! weakened.

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use ringbridge_worker_loom::gate::{Waiter, Waker};
use ringbridge_worker_loom::layout::PARK_FUTEX;
use ringbridge_worker_loom::primitive::{weaken, AtomicU32, AtomicU64, Weakened};
use ringbridge_worker_loom::ring::{Consumer, Producer};
use ringbridge_worker_loom::telemetry;

const SLOTS: u64 = 2;

struct Shared {
    tail: AtomicU64,
    head: AtomicU64,
    park: AtomicU32,
    doorbell: AtomicU32,
    slots: [UnsafeCell<u64>; SLOTS as usize],
}

// The ring says who may touch a slot; loom finds who does not obey.
unsafe impl Send for Shared {}
unsafe impl Sync for Shared {}

impl Shared {
    fn new() -> Arc<Shared> {
        Arc::new(Shared {
            tail: AtomicU64::new(0),
            head: AtomicU64::new(0),
            park: AtomicU32::new(0),
            doorbell: AtomicU32::new(0),
            slots: [UnsafeCell::new(0), UnsafeCell::new(0)],
        })
    }

    fn producer(&self) -> Producer<'_> {
        Producer::new(&self.tail, &self.head, SLOTS)
    }

    fn consumer(&self) -> Consumer<'_> {
        Consumer::new(&self.head, &self.tail, SLOTS)
    }
}

fn model(weakened: Weakened, run: fn()) {
    weaken(weakened);
    loom::model(run);
}

/// Three items through two slots: one slot is written again after it was released.
fn ring_alone() {
    const ITEMS: u64 = 3;
    let shared = Shared::new();
    let other = shared.clone();
    let writer = loom::thread::spawn(move || {
        let mut ring = other.producer();
        for item in 1..=ITEMS {
            let slot = loop {
                match ring.claim().unwrap() {
                    Some(slot) => break slot,
                    None => loom::thread::yield_now(),
                }
            };
            other.slots[slot].with_mut(|at| unsafe { *at = item });
            ring.publish();
        }
    });
    let mut ring = shared.consumer();
    let mut seen = 0;
    while seen < ITEMS {
        let count = ring.available().unwrap();
        for i in 0..count {
            seen += 1;
            shared.slots[ring.at(i).1].with(|at| assert_eq!(unsafe { *at }, seen));
        }
        if count > 0 {
            ring.release(count);
        } else {
            loom::thread::yield_now();
        }
    }
    writer.join().unwrap();
}

/// Two publications, each rung for; the reader sleeps between them. A wake that is lost is a
/// deadlock.
fn ring_with_gate() {
    const ITEMS: u64 = 2;
    let shared = Shared::new();
    let other = shared.clone();
    let writer = loom::thread::spawn(move || {
        let mut ring = other.producer();
        let mut waker = Waker::new(&other.park, &other.doorbell, -1);
        for item in 1..=ITEMS {
            let slot = ring.claim().unwrap().unwrap();
            other.slots[slot].with_mut(|at| unsafe { *at = item });
            ring.publish();
            waker.ring();
        }
    });
    let mut ring = shared.consumer();
    let mut waiter = Waiter::new(&shared.park, &shared.doorbell, -1, 0);
    let mut seen = 0;
    while seen < ITEMS {
        let mut ready = || ring.available().unwrap() > 0;
        assert_eq!(waiter.park_by(PARK_FUTEX, &mut ready, None), Some(true));
        let count = ring.available().unwrap();
        for i in 0..count {
            seen += 1;
            shared.slots[ring.at(i).1].with(|at| assert_eq!(unsafe { *at }, seen));
        }
        ring.release(count);
    }
    writer.join().unwrap();
}

/// Two beats and one look: what is seen is of one beat.
fn seqlock() {
    struct Words {
        sequence: AtomicU32,
        gate: AtomicU32,
        words: [AtomicU64; 2],
    }
    impl Words {
        fn block(&self) -> telemetry::Block<'_> {
            telemetry::Block { sequence: &self.sequence, gate: &self.gate, words: &self.words }
        }
    }
    let shared = Arc::new(Words {
        sequence: AtomicU32::new(0),
        gate: AtomicU32::new(0),
        words: [AtomicU64::new(0), AtomicU64::new(0)],
    });
    let other = shared.clone();
    let writer = loom::thread::spawn(move || {
        other.block().store(1, &[1, 1]);
        other.block().store(2, &[2, 2]);
    });
    let mut seen = [0; 2];
    if let Some(gate) = shared.block().load(&mut seen) {
        assert_eq!(seen, [u64::from(gate); 2]);
    }
    writer.join().unwrap();
}

#[test]
fn no_slot_is_read_before_it_is_written_or_written_while_it_is_read() {
    model(Weakened::Nothing, ring_alone);
}

#[test]
fn no_wake_is_lost() {
    model(Weakened::Nothing, ring_with_gate);
}

#[test]
fn telemetry_is_seen_whole() {
    model(Weakened::Nothing, seqlock);
}

#[test]
#[should_panic(expected = "Causality violation")]
fn the_ring_fails_without_release() {
    model(Weakened::Stores, ring_alone);
}

#[test]
#[should_panic(expected = "Causality violation")]
fn the_ring_fails_without_acquire() {
    model(Weakened::Loads, ring_alone);
}

#[test]
#[should_panic(expected = "deadlock")]
fn the_gate_fails_without_sequential_consistency() {
    model(Weakened::SeqCst, ring_with_gate);
}

#[test]
#[should_panic(expected = "left == right")]
fn the_seqlock_fails_without_release() {
    model(Weakened::Stores, seqlock);
}

#[test]
#[should_panic(expected = "left == right")]
fn the_seqlock_fails_without_acquire() {
    model(Weakened::Loads, seqlock);
}
