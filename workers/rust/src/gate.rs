//! How one side of a link waits for the other, and how it is woken: the protocol and its labels are
//! those of csrc/include/ringbridge/gate.h.
//!
//! ```text
//!      waker                                       waiter
//!      publish the position        G0 (= R0)       d = load(doorbell)               G3
//!      p = load(park)              G1              store(park, seq << 2 | how)      G4
//!      if parked and p != last woken:              look at the position again       G5
//!          store(doorbell, +1)     G2              if still nothing: sleep
//!          wake as p says                          store(park, seq << 2 | awake)    G6
//! ```
//!
//! G0/G1 against G4/G5, all sequentially consistent: either the waker sees the parking or the
//! waiter sees the position; never neither. So what a gate waits for is stored seq_cst before
//! ring() and loaded seq_cst by ready(): the ring's positions are, a control or cancel word must be
//! too.

use crate::layout::{PARK_AWAKE, PARK_EVENTFD, PARK_FUTEX, PARK_SIGNAL};
use crate::park::{self, Slept};
use crate::primitive::{pause, u32s, AtomicU32};

/// Where a worker's waits begin; about what a wake-up across cores costs.
pub const SPIN_MAX: u32 = 1000;
/// A park that was answered within this time would better have been a spin.
const SHORT_WAIT_NS: u64 = 100_000;
const YIELD_EVERY: u32 = 16; // pauses of a spin
const WAY_MASK: u32 = 3;
const SEQUENCE_SHIFT: u32 = 2;

/// The side that publishes.
#[derive(Debug)]
pub struct Waker<'l> {
    park: &'l AtomicU32,     // the waiter's: any value only costs or saves a wake-up
    doorbell: &'l AtomicU32, // ours
    eventfd: i32,            // -1: none
    woken: u32,              // park word that was woken last
}

impl<'l> Waker<'l> {
    pub fn new(park: &'l AtomicU32, doorbell: &'l AtomicU32, eventfd: i32) -> Self {
        // woken 0 is "awake in round 0", which no parking has: sequences begin with 1.
        Waker { park, doorbell, eventfd, woken: 0 }
    }

    /// To be called after the position was published (G0). Costs one load while the waiter is
    /// awake. Says whether it rang.
    #[inline]
    pub fn ring(&mut self) -> bool {
        // G1: pairs with G4 in Waiter::announce(); seq_cst with G0, else store buffering would let
        // both sides miss each other.
        let park = u32s::load_seq_cst(self.park);
        if park & WAY_MASK == PARK_AWAKE || park == self.woken {
            return false;
        }
        self.wake(park);
        true
    }

    #[cold]
    fn wake(&mut self, park: u32) {
        // G2: pairs with G3 in Waiter::announce() and with the kernel's comparison in FUTEX_WAIT: a
        // waiter that read the doorbell before this store and sleeps after it is sent back at once.
        // The word is read relaxed: only we write it.
        u32s::store_release(self.doorbell, u32s::load_relaxed(self.doorbell).wrapping_add(1));
        self.woken = park;
        match park & WAY_MASK {
            PARK_FUTEX => park::wake_futex(self.doorbell),
            PARK_EVENTFD if self.eventfd >= 0 => park::wake_eventfd(self.eventfd),
            _ => {} // a worker has no pidfd of the relay, which therefore never parks for a signal
        }
    }
}

/// The side that waits.
#[derive(Debug)]
pub struct Waiter<'l> {
    park: &'l AtomicU32,     // ours
    doorbell: &'l AtomicU32, // the waker's
    eventfd: i32,            // or our end of a pair of sockets; -1: none
    sequence: u32,
    spin: u32, // pauses before parking: 0 .. spin_max, by what the last waits found
    spin_max: u32,
    last: u32, // PARK_...: how the last wait ended; PARK_AWAKE: the spin was enough
}

impl<'l> Waiter<'l> {
    pub fn new(park: &'l AtomicU32, doorbell: &'l AtomicU32, eventfd: i32, spin_max: u32) -> Self {
        let (sequence, last) = (0, PARK_AWAKE);
        Waiter { park, doorbell, eventfd, sequence, spin: spin_max / 2, spin_max, last }
    }

    /// PARK_...: how the last wait ended.
    pub fn last(&self) -> u32 {
        self.last
    }

    /// Waits until ready() is true: bounded adaptive spin, then futex, or eventfd where the futex
    /// is refused, or a signal where there is no eventfd. False after `timeout_ns`. Spurious
    /// wake-ups are absorbed.
    pub fn wait(&mut self, mut ready: impl FnMut() -> bool, timeout_ns: Option<u64>) -> bool {
        if ready() || (timeout_ns != Some(0) && self.spin(&mut ready)) {
            self.last = PARK_AWAKE;
            return true;
        }
        if timeout_ns == Some(0) {
            return false;
        }
        let begin = park::now_ns();
        let deadline = timeout_ns.map(|ns| begin.saturating_add(ns));
        let mut found = None;
        for how in [PARK_FUTEX, PARK_EVENTFD, PARK_SIGNAL] {
            found = self.park_by(how, &mut ready, deadline);
            if found.is_some() {
                break;
            }
        }
        self.adapt_to_park(park::now_ns() - begin);
        found.unwrap_or(false)
    }

    /// Waits for ready(), or for another descriptor's `events` (poll.h), by parking for both. True:
    /// one of them is there. False after `deadline`, CLOCK_MONOTONIC in ns.
    pub fn wait_or(
        &mut self,
        other: i32,
        events: i16,
        mut ready: impl FnMut() -> bool,
        deadline: Option<u64>,
    ) -> bool {
        loop {
            self.announce(PARK_EVENTFD);
            let mut found = ready(); // G5
            let mut slept = Slept::News;
            if !found {
                let (how, there) = park::by_either(self.eventfd, other, events, deadline);
                (slept, self.last) = (how, PARK_EVENTFD);
                found = there || ready();
            }
            self.retract();
            if found || slept == Slept::TimedOut {
                return found;
            }
        }
    }

    /// Parks by one way until ready() or the deadline. None when this way is not to be had.
    pub fn park_by(
        &mut self,
        how: u32,
        ready: &mut impl FnMut() -> bool,
        deadline: Option<u64>,
    ) -> Option<bool> {
        loop {
            let bell = self.announce(how);
            // G5: the second look. ready() loads seq_cst (Consumer::available() does): an acquire
            // load may be performed before G4 is visible, and then both could miss each other.
            let mut found = ready();
            let mut slept = Slept::News;
            if !found {
                slept = match how {
                    PARK_FUTEX => park::by_futex(self.doorbell, bell, deadline),
                    PARK_EVENTFD => park::by_eventfd(self.eventfd, deadline),
                    _ => park::by_signal(deadline),
                };
                if slept != Slept::Refused {
                    self.last = how;
                }
                // At the deadline too: what came at the last moment is not left lying.
                found = ready();
            }
            self.retract();
            match slept {
                _ if found => return Some(true),
                Slept::News => {}
                Slept::TimedOut => return Some(false),
                Slept::Refused => return None,
            }
        }
    }

    /// Returns the doorbell's value for the futex.
    fn announce(&mut self, how: u32) -> u32 {
        // G3: before G4, which is a release as well as seq_cst and so keeps this load above it. A
        // bell rung for this parking comes after G4 and is not in `bell`: pairs with G2.
        let bell = u32s::load_acquire(self.doorbell);
        // A new sequence for each parking: the waker rings once a parking.
        self.sequence = self.sequence.wrapping_add(1);
        // G4: pairs with G1 in Waker::ring(). seq_cst with the look G5 that follows.
        u32s::store_seq_cst(self.park, self.sequence << SEQUENCE_SHIFT | how);
        bell
    }

    fn retract(&mut self) {
        // G6: relaxed: a waker that still sees the parking rings for nothing, which every wait
        // absorbs.
        u32s::store_relaxed(self.park, self.sequence << SEQUENCE_SHIFT | PARK_AWAKE);
    }

    /// A hit draws the budget towards twice of what it took.
    fn spin(&mut self, ready: &mut impl FnMut() -> bool) -> bool {
        for i in 0..self.spin {
            pause();
            // Who would end the wait may need this very core.
            if i % YIELD_EVERY == YIELD_EVERY - 1 {
                std::thread::yield_now();
            }
            if ready() {
                let doubled = 2 * i + self.spin_max / 64;
                let wanted = if i < self.spin_max / 2 { doubled } else { self.spin_max };
                self.spin = (self.spin - self.spin / 8 + wanted / 8).min(self.spin_max);
                return true;
            }
        }
        false
    }

    /// A long park means that the spin before it was wasted; a short one, that a little more of it
    /// would have been enough.
    fn adapt_to_park(&mut self, parked_ns: u64) {
        self.spin = if parked_ns > SHORT_WAIT_NS {
            self.spin / 2
        } else {
            (self.spin + self.spin_max / 8).min(self.spin_max)
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::primitive::{u64s, AtomicU64};
    use std::os::unix::io::AsRawFd;
    use std::sync::Arc;

    #[derive(Default)]
    struct Words {
        position: AtomicU64,
        park: AtomicU32,
        doorbell: AtomicU32,
    }

    /// Two threads that take turns: each turn is a publication that must wake.
    fn turns(how: u32) {
        const TURNS: u64 = 2000;
        let (there, back) = (Arc::new(Words::default()), Arc::new(Words::default()));
        let (there2, back2) = (there.clone(), back.clone());
        // The bell of each direction: what a waker rings is what the waiter reads.
        let (ours, theirs) = std::os::unix::net::UnixDatagram::pair().unwrap();
        let other = std::thread::spawn(move || {
            let mut waiter = Waiter::new(&there2.park, &there2.doorbell, theirs.as_raw_fd(), 0);
            let mut waker = Waker::new(&back2.park, &back2.doorbell, theirs.as_raw_fd());
            park::block_wake_signal();
            for turn in 1..=TURNS {
                let mut ready = || u64s::load_seq_cst(&there2.position) >= turn;
                assert_eq!(waiter.park_by(how, &mut ready, None), Some(true));
                u64s::store_seq_cst(&back2.position, turn);
                waker.ring();
            }
        });
        let mut waiter = Waiter::new(&back.park, &back.doorbell, ours.as_raw_fd(), 0);
        let mut waker = Waker::new(&there.park, &there.doorbell, ours.as_raw_fd());
        for turn in 1..=TURNS {
            u64s::store_seq_cst(&there.position, turn);
            waker.ring();
            let mut ready = || u64s::load_seq_cst(&back.position) >= turn;
            assert_eq!(waiter.park_by(how, &mut ready, None), Some(true));
        }
        other.join().unwrap();
    }

    #[test]
    fn no_wake_is_lost_by_futex() {
        turns(PARK_FUTEX);
    }

    #[test]
    fn no_wake_is_lost_by_a_descriptor() {
        turns(PARK_EVENTFD);
    }

    #[test]
    fn a_wait_ends_at_its_deadline_in_each_way() {
        let (park, doorbell) = (AtomicU32::new(0), AtomicU32::new(0));
        let (socket, _other) = std::os::unix::net::UnixDatagram::pair().unwrap();
        let mut waiter = Waiter::new(&park, &doorbell, socket.as_raw_fd(), 0);
        park::block_wake_signal();
        for how in [PARK_FUTEX, PARK_EVENTFD, PARK_SIGNAL] {
            let deadline = Some(park::now_ns() + 2_000_000);
            assert_eq!(waiter.park_by(how, &mut || false, deadline), Some(false));
            assert_eq!(waiter.last(), how);
        }
        assert!(!waiter.wait(|| false, Some(1_000_000)));
        assert!(!waiter.wait(|| false, Some(0)));
        assert!(waiter.wait(|| true, None));
        assert_eq!(waiter.last(), PARK_AWAKE);
    }

    #[test]
    fn one_parking_is_woken_once() {
        let (park, doorbell) = (AtomicU32::new(5 << 2 | PARK_FUTEX), AtomicU32::new(0));
        let mut waker = Waker::new(&park, &doorbell, -1);
        assert!(waker.ring());
        assert!(!waker.ring());
        u32s::store_seq_cst(&park, 6 << 2 | PARK_FUTEX);
        assert!(waker.ring());
        u32s::store_seq_cst(&park, 6 << 2 | PARK_AWAKE);
        assert!(!waker.ring());
        assert_eq!(u32s::load_relaxed(&doorbell), 2);
    }
}
