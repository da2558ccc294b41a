//! What the kit's parts share: the link with its rings, gates and region, on the handler's thread.
//!
//! Who owns a block of the result region is known from the bitmap in our private memory: taken at
//! the reservation, ours until the completion is published, the bridge's until it is given back.
//! The bridge counts a completion's blocks from its size, so a room is cut to what was used before
//! it is published.

use core::cell::{Cell, RefCell};
use core::fmt;
use core::sync::atomic::Ordering::Relaxed;

use crate::channel::Kind;
use crate::chaos::Chaos;
use crate::envelope::completion_crc;
use crate::gate::{Waiter, Waker, SPIN_MAX};
use crate::heartbeat::{Counters, Heart};
use crate::layout::*;
use crate::link::Link;
use crate::packet::{Inlet, Outlet};
use crate::peer_serve::Links;
use crate::primitive::{u32s, u64s};
use crate::region::{Refused, Region};
use crate::ring::{Consumer, Producer};
use crate::sys;
use crate::Error;

/// Waiting for room: the bridge may ring when it gives back, but need not; so look again this
/// often.
const ROOM_SLICE_NS: u64 = 1_000_000;
/// How old the oldest unpublished answer may become where short jobs hold answers back.
const PUBLISH_WITHIN_NS: u64 = 50_000;
/// Bytes of the result region whose pages stay when the worker is idle.
const RESULTS_KEPT_BYTES: u64 = 1 << 20;

/// The bridge broke a rule of the link: nothing in it can be trusted. sysexits.h, EX_PROTOCOL.
pub const EXIT_PROTOCOL: i32 = 76;

#[derive(Debug)]
pub struct Kit {
    pub link: Link,
    pub short_jobs: bool,
    pub requests: RefCell<Consumer<'static>>,
    pub unreleased: Cell<u64>, // request slots whose job is answered, not yet released
    pub waiter: RefCell<Waiter<'static>>,
    pub waker: RefCell<Waker<'static>>,
    pub region: RefCell<Region>,
    pub counters: &'static Counters,
    pub heart: &'static Heart,
    pub outlet: Outlet,
    pub inlet: Inlet,
    pub links: Links, // of workers that ask this one
    pub chaos: Chaos,
    pub listens: Cell<bool>, /* it has asked for its state, so the bridge may ask it for
                              * checkpoints */
    pub held: Cell<bool>,   // no job is begun before a state has come
    pub coming: Cell<bool>, // a state comes; jobs that need it wait
    pub save_when_leaving: Cell<Option<(u64, Kind)>>, // the request's id
    completions: RefCell<Producer<'static>>,
    givebacks: RefCell<Consumer<'static>>,
    unpublished_ns: Cell<u64>, // when the oldest unpublished completion was made; 0: none
}

impl Kit {
    pub fn new(
        link: Link,
        short_jobs: bool,
        counters: &'static Counters,
        heart: &'static Heart,
    ) -> Kit {
        let slots = u64::from(link.header.slots);
        let blocks = link.header.result_blocks;
        let (ours, theirs) = (link.ours, link.theirs);
        Kit {
            short_jobs,
            requests: Consumer::new(ours.request_head, theirs.request_tail, slots).into(),
            unreleased: Cell::new(0),
            waiter: Waiter::new(
                ours.park,
                theirs.doorbell,
                link.fds.wake_worker.unwrap_or(-1),
                SPIN_MAX,
            )
            .into(),
            waker: Waker::new(theirs.park, ours.doorbell, link.fds.wake_relay.unwrap_or(-1)).into(),
            region: Region::new(blocks, link.header.result_block_bytes).into(),
            counters,
            heart,
            outlet: Outlet::new(link.fds.channel),
            inlet: Inlet::default(),
            links: Links::default(),
            chaos: Chaos::default(),
            listens: Cell::new(false),
            held: Cell::new(false),
            coming: Cell::new(false),
            save_when_leaving: Cell::new(None),
            completions: Producer::new(ours.completion_tail, theirs.completion_head, slots).into(),
            givebacks: Consumer::new(ours.giveback_head, theirs.giveback_tail, u64::from(blocks))
                .into(),
            unpublished_ns: Cell::new(0),
            link,
        }
    }

    /// A line on stderr, exit status 76. Without atexit(): the worker's own state says nothing
    /// about what is wrong.
    #[cold]
    pub fn broken(&self, rule: fmt::Arguments<'_>) -> ! {
        self.broken_on("link", rule)
    }

    #[cold]
    pub fn broken_on(&self, what: &str, rule: fmt::Arguments<'_>) -> ! {
        let id = self.link.header.worker_id;
        eprintln!("worker {id}: the bridge broke a rule of the {what}: {rule}");
        // SAFETY: ends the process.
        unsafe { sys::_exit(EXIT_PROTOCOL) }
    }

    #[inline]
    pub fn control(&self) -> u32 {
        // seq_cst: a gate waits for it (G0 and G5). Pairs with the relay's store of drain or stop.
        u32s::load_seq_cst(self.link.theirs.control)
    }

    // --- completions ---------------------------------------------------------------------------

    /// Completions, then the slots of their requests: a slot that is free belongs to a job that is
    /// answered.
    pub fn publish(&self) {
        if self.completions.borrow_mut().publish() > 0 {
            self.waker.borrow_mut().ring();
        }
        self.unpublished_ns.set(0);
        let unreleased = self.unreleased.take();
        if unreleased > 0 {
            self.requests.borrow_mut().release(unreleased);
        }
    }

    /// After a completion was made at `now`: publishes, unless short jobs let it wait a little.
    #[inline]
    fn publish_soon(&self, now: u64) {
        if self.unpublished_ns.get() == 0 {
            self.unpublished_ns.set(now);
        }
        if !self.short_jobs || now - self.unpublished_ns.get() > PUBLISH_WITHIN_NS {
            self.publish();
        }
    }

    /// Are there answers that short jobs hold back?
    pub fn holds_back(&self) -> bool {
        self.unpublished_ns.get() != 0
    }

    /// Sums a completion and puts it into the ring. `in_region`: its payload, unless inline.
    #[inline]
    pub fn complete(&self, mut completion: Completion, in_region: Option<&[u8]>, now: u64) {
        completion.crc = completion_crc(&completion, in_region, self.link.header.features);
        self.put(completion);
        self.publish_soon(now);
    }

    /// Puts a completion into the ring as it is.
    #[inline]
    pub fn put(&self, completion: Completion) {
        let slot = self.claim();
        // SAFETY: R3 in claim(): the slot is free and ours until publish(); it lies in the ring.
        unsafe { self.link.completions.add(slot).write(completion) };
    }

    /// A slot of the completion ring. The bridge takes completions steadily; a full ring means that
    /// it is held up. What we hold back ourselves is published before the wait.
    #[inline]
    fn claim(&self) -> usize {
        loop {
            match self.completions.borrow_mut().claim() {
                Ok(Some(slot)) => return slot,
                Ok(None) => {}
                Err(_) => self.broken_ring("completion"),
            }
            self.publish();
            let ready = || self.free_slots() != 0 || self.control() == CONTROL_STOP;
            self.waiter.borrow_mut().wait(ready, Some(ROOM_SLICE_NS));
            if self.control() == CONTROL_STOP {
                // Nobody will read this answer. SAFETY: ends the process.
                unsafe { sys::_exit(0) }
            }
        }
    }

    /// Free slots of the completion ring.
    pub fn free_slots(&self) -> u64 {
        match self.completions.borrow_mut().free() {
            Ok(slots) => slots,
            Err(_) => self.broken_ring("completion"),
        }
    }

    #[cold]
    pub fn broken_ring(&self, name: &str) -> ! {
        self.broken(format_args!("the position of the {name} ring ran backwards or too far"))
    }

    // --- the result region ---------------------------------------------------------------------

    pub fn take_givebacks(&self) {
        let mut ring = self.givebacks.borrow_mut();
        let count = ring.available().unwrap_or_else(|_| self.broken_ring("give-back"));
        for i in 0..count {
            // SAFETY: R1 in available(): the slot is written, and lies in the ring.
            let extent = unsafe { self.link.givebacks.add(ring.at(i).1).read() };
            if !self.region.borrow_mut().give(extent.first, extent.count) {
                self.broken(format_args!(
                    "{} blocks from {} on were given back, which are not all taken",
                    extent.count, extent.first
                ));
            }
        }
        if count > 0 {
            ring.release(count);
        }
    }

    /// First block of room for `bytes`, without waiting.
    pub fn try_take_blocks(&self, bytes: usize) -> Result<u32, Refused> {
        self.region.borrow_mut().take(bytes)
    }

    /// First block of room for `bytes`; waits for give-backs until the job is cancelled.
    pub fn take_blocks(&self, bytes: usize, is_cancelled: impl Fn() -> bool) -> Result<u32, Error> {
        // A completion's size has 32 bits.
        let limit = self.link.header.result_bytes.min(u64::from(u32::MAX)) as usize;
        if bytes > limit {
            return Err(Error::TooLarge { bytes, limit });
        }
        loop {
            match self.try_take_blocks(bytes) {
                Ok(first) => return Ok(first),
                Err(Refused::TooLarge) => return Err(Error::TooLarge { bytes, limit }),
                Err(Refused::Full) => {}
            }
            // What we hold back ourselves cannot come back.
            self.publish();
            let some = || self.givebacks.borrow_mut().available() != Ok(0) || is_cancelled();
            if self.waiter.borrow_mut().wait(some, Some(ROOM_SLICE_NS)) {
                self.take_givebacks();
                if is_cancelled() {
                    return Err(Error::Cancelled);
                }
            }
        }
    }

    /// Where a block begins.
    pub fn block(&self, first: u32) -> *mut u8 {
        let at = first as usize * self.link.header.result_block_bytes as usize;
        // SAFETY: the region's bitmap has as many blocks as the mapping.
        unsafe { self.link.results.add(at) }
    }

    /// Have large answers left pages behind?
    pub fn is_swollen(&self) -> bool {
        self.region.borrow().touched_bytes() > RESULTS_KEPT_BYTES
    }

    /// Gives the pages of free blocks back to the kernel.
    pub fn trim(&self) {
        self.take_givebacks();
        let mut region = self.region.borrow_mut();
        let block = u64::from(region.block_bytes());
        region.trim(RESULTS_KEPT_BYTES, |first, count| {
            let at = self.link.header.results_at + u64::from(first) * block;
            let mode = sys::FALLOC_FL_PUNCH_HOLE | sys::FALLOC_FL_KEEP_SIZE;
            // SAFETY: blocks that nobody owns; no Room refers to them.
            unsafe {
                sys::fallocate(
                    self.link.fds.worker_side,
                    mode,
                    at as i64,
                    (u64::from(count) * block) as i64,
                ) == 0
            }
        });
    }

    // --- one story, told by the handler's thread ------------------------------------------------

    /// The job under way got on: for the bridge's progress_timeout_ms.
    #[inline]
    pub fn pulse(&self) {
        // Relaxed: one writer, this thread; the bridge looks for a change and reads nothing else on
        // the strength of it.
        let word = self.link.ours.pulse;
        u64s::store_relaxed(word, u64s::load_relaxed(word).wrapping_add(1));
    }

    /// Waits at the gate; see Waiter::wait().
    pub fn wait(&self, ready: impl FnMut() -> bool, timeout_ns: Option<u64>) -> bool {
        self.waiter.borrow_mut().wait(ready, timeout_ns)
    }

    /// Whether new jobs are wanted; told at once. No position tells it, so the bridge is rung in
    /// any case.
    pub fn set_ready(&self, ready: bool) {
        self.counters.unready.store(u32::from(!ready), Relaxed);
        self.heart.beat();
        if let Some(fd) = self.link.fds.wake_relay {
            crate::park::wake_eventfd(fd);
        }
    }
}
