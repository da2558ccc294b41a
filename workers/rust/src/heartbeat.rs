//! A thread that writes the telemetry block every 500 ms, so that a handler which runs for minutes
//! is told apart from a worker that hangs in the kit or is stopped.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::io;
use std::sync::{Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::layout::{Telemetry, HEARTBEAT_MS};
use crate::primitive::u64s;
use crate::sys::{self, now_ns};
use crate::telemetry::{Block, WORDS};

const STACK_BYTES: usize = 128 << 10;

/// Written by the handler's thread, read by the heartbeat's: all relaxed, since each word says
/// something by itself and one beat may well be a job behind.
#[derive(Debug, Default)]
pub struct Counters {
    pub jobs: AtomicU64,
    pub failed: AtomicU64,
    pub run_ns: AtomicU64,
    pub started: AtomicU64, // requests whose handler has been entered, as the shared word
    pub last_code: AtomicU32,
    pub gate: AtomicU32,
    pub unready: AtomicU32,
}

impl Counters {
    /// Adds one; only this thread writes the word.
    pub fn count(word: &AtomicU64) -> u64 {
        let next = word.load(Relaxed) + 1;
        word.store(next, Relaxed);
        next
    }
}

/// The block, with the beats so far: who holds the lock writes it.
#[derive(Debug)]
pub struct Heart {
    block: Block<'static>,
    request_tail: &'static crate::primitive::AtomicU64,
    counters: &'static Counters,
    beats: Mutex<Beats>,
    wake: Condvar,
    silent_until: AtomicU64, // chaos.rs; relaxed: it says something by itself
}

#[derive(Debug, Default)]
struct Beats {
    count: u64,
    ending: bool,
}

impl Heart {
    pub fn new(link: &crate::link::Link, counters: &'static Counters) -> Heart {
        Heart {
            block: link.telemetry(),
            request_tail: link.theirs.request_tail,
            counters,
            beats: Mutex::default(),
            wake: Condvar::new(),
            silent_until: AtomicU64::new(0),
        }
    }

    /// One beat, now.
    pub fn beat(&self) {
        self.beat_locked(&mut self.beats.lock().unwrap());
    }

    /// No beat before that, but for the last one.
    pub fn be_silent_until(&self, ns: u64) {
        self.silent_until.store(ns, Relaxed);
    }

    fn beat_locked(&self, beats: &mut Beats) {
        if now_ns() < self.silent_until.load(Relaxed) {
            return;
        }
        let c = self.counters;
        let started = c.started.load(Relaxed);
        // Relaxed: a count to show, nothing is read on the strength of it.
        let tail = u64s::load_relaxed(self.request_tail);
        beats.count += 1;
        let values = Telemetry {
            sequence: 0,
            gate: c.gate.load(Relaxed),
            heartbeats: beats.count,
            heartbeat_ns: now_ns(),
            jobs: c.jobs.load(Relaxed),
            failed: c.failed.load(Relaxed),
            run_ns: c.run_ns.load(Relaxed),
            queued: tail.saturating_sub(started) as u32,
            last_code: c.last_code.load(Relaxed),
            unready: c.unready.load(Relaxed),
            padding_60: [0; 68],
        };
        // SAFETY: of one size, and any bits are words.
        let words: [u64; WORDS + 1] = unsafe { core::mem::transmute(values) };
        self.block.store(values.gate, &words[1..]);
    }

    fn beat_until_ending(&self) {
        let period = Duration::from_millis(u64::from(HEARTBEAT_MS));
        let mut next = Instant::now() + period;
        let mut beats = self.beats.lock().unwrap();
        while !beats.ending {
            let left = next.saturating_duration_since(Instant::now());
            if left.is_zero() {
                self.beat_locked(&mut beats);
                next += period;
            } else {
                beats = self.wake.wait_timeout(beats, left).unwrap().0;
            }
        }
    }
}

#[derive(Debug)]
pub struct Heartbeat {
    heart: &'static Heart,
    thread: JoinHandle<()>,
}

impl Heartbeat {
    /// The first beat is made before it returns. Signals are the handler's thread's: one that is
    /// meant to end or to wake the worker must not be taken by the new thread.
    pub fn start(heart: &'static Heart) -> io::Result<Heartbeat> {
        heart.beat();
        let before = sys::mask_signals(sys::SIG_SETMASK, &sys::all_signals());
        let thread = std::thread::Builder::new()
            .name("heartbeat".into())
            .stack_size(STACK_BYTES)
            .spawn(|| heart.beat_until_ending());
        sys::mask_signals(sys::SIG_SETMASK, &before);
        Ok(Heartbeat { heart, thread: thread? })
    }

    /// After a last beat, with all jobs counted.
    pub fn stop(self) {
        self.heart.beats.lock().unwrap().ending = true;
        self.heart.wake.notify_one();
        self.thread.join().unwrap();
        self.heart.be_silent_until(0);
        self.heart.beat();
    }
}
