//! What a job says beyond its answer: messages and calls into the cluster, log lines, checkpoints
//! (docs/channel.md). Terms are the worker's own bytes, external terms without the leading 131.

use core::sync::atomic::Ordering::Relaxed;
use core::time::Duration;

use crate::job::Job;
use crate::kit::Kit;
use crate::layout::*;
use crate::packet::{u64_of, Outlet};
use crate::socket::{head, Sent};
use crate::sys::now_ns;
use crate::Error;

const TIMEOUT_MS_MAX: u64 = 86_400_000; // a day

// erl_ext_dist
const SMALL_TUPLE_EXT: u8 = 104;
const ATOM_UTF8_EXT: u8 = 118;
const SMALL_ATOM_UTF8_EXT: u8 = 119;
const BINARY_EXT: u8 = 109;
const INTEGER_EXT: u8 = 98;

/// Where a message goes. What a worker may write to is its role's policy: `[roles.NAME.callback]
/// allow`.
#[derive(Clone, Copy, Debug)]
pub enum Dest<'a> {
    /// A name on the bridge's own node.
    Name(&'a str),
    /// A name and its node.
    NameAt(&'a str, &'a str),
    /// A pid, say, as external term bytes out of a payload.
    Term(&'a [u8]),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    Debug,
    Info,
    Warning,
    Error,
}

/// Of a checkpoint, or of a state's part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The whole state.
    Full,
    /// What is new since the last one.
    Incremental,
}

impl Kind {
    pub(crate) fn code(self) -> u64 {
        match self {
            Kind::Full => CHECKPOINT_FULL,
            Kind::Incremental => CHECKPOINT_INCREMENTAL,
        }
    }

    pub(crate) fn of(code: u64) -> Option<Kind> {
        [Kind::Full, Kind::Incremental].into_iter().find(|kind| kind.code() == code)
    }
}

/// The opening of a tuple that begins with a destination.
fn open_towards(arity: u8, to: Dest<'_>) -> Vec<u8> {
    let mut opening = vec![SMALL_TUPLE_EXT, arity];
    match to {
        Dest::Name(name) => add_atom(&mut opening, name),
        Dest::NameAt(name, node) => {
            opening.extend_from_slice(&[SMALL_TUPLE_EXT, 2]);
            add_atom(&mut opening, name);
            add_atom(&mut opening, node);
        }
        Dest::Term(term) => opening.extend_from_slice(term),
    }
    opening
}

fn add_atom(term: &mut Vec<u8>, text: &str) {
    match u8::try_from(text.len()) {
        Ok(size) => term.extend_from_slice(&[SMALL_ATOM_UTF8_EXT, size]),
        Err(_) => {
            term.push(ATOM_UTF8_EXT);
            term.extend_from_slice(&(text.len() as u16).to_be_bytes());
        }
    }
    term.extend_from_slice(text.as_bytes());
}

impl Job {
    /// Erlang's `!`. Waits while the socket is full. Ok says that it is on its way: nobody hears
    /// whether it was allowed or arrived.
    ///
    /// # Errors
    /// [`Error::Closed`], [`Error::Cancelled`].
    pub fn send(&self, to: Dest<'_>, term: &[u8]) -> Result<(), Error> {
        let packet = head(PACKET_SEND, 0, self.id());
        self.kit.send_packet(Some(self), packet, &[&open_towards(2, to), term], None)
    }

    /// GenServer.call: the answer, a term. Waits for at most `timeout` (a day) and the job's own
    /// deadline.
    ///
    /// # Errors
    /// [`Error::Refused`] with a code of docs/channel.md, "Errors"; [`Error::Timeout`],
    /// [`Error::Closed`], [`Error::Cancelled`].
    pub fn call(&self, to: Dest<'_>, term: &[u8], timeout: Duration) -> Result<Vec<u8>, Error> {
        let now = now_ns();
        let ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX).min(TIMEOUT_MS_MAX);
        let until = (now + ms * 1_000_000).min(self.deadline_ns().unwrap_or(u64::MAX));
        let ms = (until.saturating_sub(now) + 999_999) / 1_000_000;
        let mut limit = vec![INTEGER_EXT];
        limit.extend_from_slice(&(ms as u32).to_be_bytes());
        let id = self.kit.next_id();
        let packet = head(PACKET_CALL, id, self.id());
        let parts = [&open_towards(3, to)[..], term, &limit];
        self.kit.send_packet(Some(self), packet, &parts, Some(until))?;
        let reply = self.kit.await_reply(Some(self), id, Some(until));
        if let Err(Error::Cancelled | Error::Timeout) = reply {
            // Not waiting: nobody reads what becomes of it.
            let _ = self.kit.outlet.send_now(head(PACKET_FORGET, id, self.id()), &[]);
        }
        reply
    }

    /// A line in the bridge's log with worker and job, cut at 4,096 bytes. Never waits: false when
    /// the socket is full; the line is counted, and the next that gets through is preceded by
    /// the count.
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub fn log(&self, level: Level, text: &str) -> Result<bool, Error> {
        self.logger().log(level, text)
    }

    /// The same for threads of the handler.
    pub fn logger(&self) -> Logger<'_> {
        Logger { outlet: &self.kit.outlet, job: self.id() }
    }

    /// Saves state out of a handler; returns once it is stored.
    ///
    /// # Errors
    /// [`Error::Refused`]: `unavailable` (the role keeps none), `too_large`, `full_wanted` (an
    /// increment with nothing to go behind, so save the whole), `busy`, `store_failed` (the one
    /// before stands); [`Error::Closed`], [`Error::Cancelled`].
    pub fn checkpoint(&self, kind: Kind, state: &[u8]) -> Result<(), Error> {
        let id = self.kit.next_id();
        let packet = head(PACKET_CHECKPOINT_SAVE, id, self.id());
        let code = kind.code().to_le_bytes();
        self.kit.send_packet(Some(self), packet, &[&code, state], None)?;
        self.kit.await_reply(Some(self), id, None).map(|_| ())
    }

    /// The latest state in its parts, the whole one first; none: there is no state.
    ///
    /// # Errors
    /// As [`Job::checkpoint`].
    pub fn load_checkpoint(&self) -> Result<Vec<(Kind, Vec<u8>)>, Error> {
        self.kit.load_checkpoint(Some(self))
    }
}

impl Kit {
    pub(crate) fn load_checkpoint(&self, job: Option<&Job>) -> Result<Vec<(Kind, Vec<u8>)>, Error> {
        let id = self.next_id();
        let packet = head(PACKET_CHECKPOINT_LOAD, id, job.map_or(0, Job::id));
        self.send_packet(job, packet, &[], None)?;
        let state = self.await_reply(job, id, None);
        if !matches!(state, Err(Error::Closed | Error::Cancelled)) {
            self.listens.set(true); // the bridge may ask for checkpoints from now on
        }
        Ok(self.parts_of(&state?))
    }

    /// A state's parts: each u64 kind, u64 size, and so many bytes.
    pub(crate) fn parts_of(&self, mut state: &[u8]) -> Vec<(Kind, Vec<u8>)> {
        let mut parts = Vec::new();
        while !state.is_empty() {
            let part = state.get(16..).and_then(|rest| {
                let size = usize::try_from(u64_of(&state[8..])).ok()?;
                Some((Kind::of(u64_of(state))?, rest.get(..size)?, &rest[size..]))
            });
            match part {
                Some((kind, bytes, rest)) => {
                    parts.push((kind, bytes.to_vec()));
                    state = rest;
                }
                None => self.broken_channel("a state's part is of no kind, or cut short"),
            }
        }
        parts
    }
}

/// Writes log lines of one job, from any thread of its handler.
#[derive(Clone, Copy, Debug)]
pub struct Logger<'j> {
    outlet: &'j Outlet,
    job: u64,
}

impl<'k> Logger<'k> {
    /// Outside of any job.
    pub(crate) fn of(kit: &'k Kit) -> Logger<'k> {
        Logger { outlet: &kit.outlet, job: 0 }
    }
}

impl Logger<'_> {
    /// See [`Job::log`].
    pub fn log(&self, level: Level, text: &str) -> Result<bool, Error> {
        let missed = &self.outlet.lines_missed;
        // Relaxed, as the additions to it: a count. Whoever takes it tells it, or puts it back.
        let count = missed.swap(0, Relaxed);
        if count > 0 {
            let told = format!("{count} log lines are missing here: the channel was full");
            if !self.line(Level::Warning, &told)? {
                missed.fetch_add(count + 1, Relaxed);
                return Ok(false);
            }
        }
        let sent = self.line(level, text)?;
        if !sent {
            missed.fetch_add(1, Relaxed);
        }
        Ok(sent)
    }

    fn line(&self, level: Level, text: &str) -> Result<bool, Error> {
        let mut size = text.len().min(LOG_BYTES_MAX);
        while !text.is_char_boundary(size) {
            size -= 1;
        }
        let mut opening = vec![SMALL_TUPLE_EXT, 2];
        add_atom(
            &mut opening,
            match level {
                Level::Debug => "debug",
                Level::Info => "info",
                Level::Warning => "warning",
                Level::Error => "error",
            },
        );
        opening.push(BINARY_EXT);
        opening.extend_from_slice(&(size as u32).to_be_bytes());
        let packet = head(PACKET_LOG, 0, self.job);
        let sent = self.outlet.send_now(packet, &[&opening, &text.as_bytes()[..size]])?;
        Ok(sent == Sent::Whole)
    }
}
