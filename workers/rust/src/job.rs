//! What a handler may ask of its job, and what a job says before its answer.

use core::cell::Cell;

use crate::kit::Kit;
use crate::layout::*;
use crate::peer_serve::{self, Asked};
use crate::primitive::{u32s, u64s, AtomicU32, AtomicU64};
use crate::room::{Answer, Room};
use crate::sys::now_ns;
use crate::Error;

/// A cancelled job notices within this time; a worker asleep in one job costs 200 wake-ups a
/// second.
const SLEEP_SLICE_NS: u64 = 5_000_000;

/// One job, lent to its handler.
#[derive(Debug)]
pub struct Job {
    pub(crate) kit: &'static Kit,
    pub(crate) request: Request, // private copy
    pub(crate) slot: usize,      // in the request ring
    pub(crate) position: u64,
    pub(crate) drained_ns: u64,
    pub(crate) start_ns: u64,
    pub(crate) parts: Cell<u32>, // sent, since the job began; runs freely
    pub(crate) cancel: Cancel,
    pub(crate) in_pool: Option<*const u8>, // None: the payload is in the envelope
}

/// A caller's trace context (W3C traceparent).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trace {
    pub trace_id: [u8; 16],
    pub span_id: [u8; 8],
    pub flags: u8,
}

/// Says whether a job is still wanted; threads of its handler may ask too ([`std::thread::scope`]).
#[derive(Debug)]
pub struct Cancel {
    job: u64,
    deadline_ns: u64,
    by: By,
    control: &'static AtomicU32,
}

/// How whoever asked takes it back.
#[derive(Debug)]
enum By {
    Bridge(&'static AtomicU64),
    Peer(Asked),
}

impl Cancel {
    pub(crate) fn new(kit: &Kit, request: &Request, slot: usize) -> Cancel {
        Cancel::by(kit, request, By::Bridge(&kit.link.cancels[slot]))
    }

    /// Of another worker's request.
    pub(crate) fn of_peer(kit: &Kit, request: &Request, asked: Asked) -> Cancel {
        Cancel::by(kit, request, By::Peer(asked))
    }

    fn by(kit: &Kit, request: &Request, by: By) -> Cancel {
        let Request { job, deadline_ns, .. } = *request;
        Cancel { job, deadline_ns, by, control: kit.link.theirs.control }
    }

    /// Nobody wants the answer any more: the caller gave up or died, the deadline passed, or the
    /// worker is told to stop. One load or two, and a look at the clock (25 ns) when the job has a
    /// deadline: often is fine. Then return [`Error::Cancelled`].
    #[inline]
    pub fn is_cancelled(&self) -> bool {
        // C1: pairs with C0 in the relay's stop_running(). The word holds the id of the job to
        // stop, so what was written for an earlier job of this slot means nothing to us.
        // seq_cst, since gates wait for it (G5).
        (match &self.by {
            By::Bridge(word) => u64s::load_seq_cst(word) == self.job,
            By::Peer(asked) => asked.is_taken_back(),
        }) || u32s::load_seq_cst(self.control) == CONTROL_STOP
            || (self.deadline_ns != 0 && now_ns() >= self.deadline_ns)
    }
}

impl Job {
    /// The bridge's number for it, as in its logs.
    pub fn id(&self) -> u64 {
        self.request.job
    }

    /// Another worker asked for it, over a link.
    pub(crate) fn is_of_peer(&self) -> bool {
        matches!(self.cancel.by, By::Peer(_))
    }

    /// The caller's `opcode`; 0 unless given.
    pub fn opcode(&self) -> u16 {
        self.request.opcode
    }

    /// The payload where it lies, no copy. It comes from the caller: check it as input from a
    /// stranger. It cannot change while the job runs.
    #[inline]
    pub fn payload(&self) -> &[u8] {
        let size = self.request.payload_bytes as usize;
        match self.in_pool {
            None => &self.request.body[..size],
            // SAFETY: serve::payload() has checked the extent against the pool, which is mapped for
            // ever; the relay writes a block once, and frees it with the answer, which is given
            // after the handler has returned.
            Some(at) => unsafe { core::slice::from_raw_parts(at, size) },
        }
    }

    /// The payload is external term bytes without the leading 131; else raw bytes.
    pub fn payload_is_term(&self) -> bool {
        self.request.flags & FLAG_TERM != 0
    }

    /// CLOCK_MONOTONIC in ns; None: the job may take as long as it likes.
    pub fn deadline_ns(&self) -> Option<u64> {
        (self.request.deadline_ns != 0).then_some(self.request.deadline_ns)
    }

    /// The caller's trace context; None: it has none.
    pub fn trace(&self) -> Option<Trace> {
        let Request { trace_id, span_id, trace_flags: flags, .. } = self.request;
        (trace_id != [0; 16]).then_some(Trace { trace_id, span_id, flags })
    }

    /// For threads of the handler.
    pub fn cancel(&self) -> &Cancel {
        &self.cancel
    }

    /// See [`Cancel::is_cancelled`].
    #[inline]
    pub fn is_cancelled(&self) -> bool {
        self.cancel.is_cancelled()
    }

    /// `Err(Cancelled)` when nobody wants the answer any more: `job.check()?` in a loop.
    #[inline]
    pub fn check(&self) -> Result<(), Error> {
        if self.is_cancelled() {
            return Err(Error::Cancelled);
        }
        Ok(())
    }

    /// Sleeps, or until the job is cancelled (noticed within 5 ms).
    pub fn sleep(&self, duration: core::time::Duration) -> Result<(), Error> {
        let ns = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let end = now_ns().saturating_add(ns);
        loop {
            let left = end.saturating_sub(now_ns());
            if left == 0 {
                return self.check();
            }
            // By the gate, so that a bridge which rings after a cancel is heard at once; in slices,
            // as it need not ring.
            if self.kit.wait(|| self.is_cancelled(), Some(left.min(SLEEP_SLICE_NS))) {
                return Err(Error::Cancelled);
            }
        }
    }

    // --- the answer ----------------------------------------------------------------------------

    /// Room for an answer of `bytes`, read by the bridge from where it lies: no further copy. Waits
    /// while the region is full of answers that the bridge still sends.
    ///
    /// # Errors
    /// [`Error::TooLarge`] (it would never fit), [`Error::Cancelled`] (while waiting).
    #[inline]
    pub fn reserve(&self, bytes: usize) -> Result<Room, Error> {
        if bytes <= INLINE_BYTES_MAX {
            return Ok(Room::inline(bytes));
        }
        if self.is_of_peer() {
            return peer_serve::room(bytes);
        }
        let first = self.kit.take_blocks(bytes, || self.is_cancelled())?;
        Ok(Room::blocks(self.kit, first, bytes))
    }

    /// A raw answer, copied. Errors: as [`Job::reserve`].
    #[inline]
    pub fn answer(&self, bytes: &[u8]) -> Result<Answer, Error> {
        let mut room = self.reserve(bytes.len())?;
        room.copy_from_slice(bytes);
        Ok(room.raw())
    }

    /// The same of external term bytes without the leading 131.
    pub fn answer_term(&self, bytes: &[u8]) -> Result<Answer, Error> {
        let mut room = self.reserve(bytes.len())?;
        room.copy_from_slice(bytes);
        Ok(room.term())
    }

    // --- before the answer ---------------------------------------------------------------------

    /// The job belongs to a stream: its parts are its answer, and the bytes of its answer are shown
    /// to nobody.
    pub fn wants_parts(&self) -> bool {
        self.request.flags & FLAG_PARTS != 0
    }

    /// How many parts can be sent now without waiting.
    #[inline]
    pub fn demand(&self) -> u32 {
        if !self.wants_parts() {
            return 0;
        }
        // D1: pairs with D0 in the relay's rb_stream_grant(). seq_cst, since a gate waits for it
        // (G5). Nothing else is read on the strength of it.
        let word = u64s::load_seq_cst(&self.kit.link.demands[self.slot]);
        demand_left(word, self.position, self.parts.get())
    }

    /// Sends one part, which becomes one event of the consumer. Waits until it is asked for.
    ///
    /// # Errors
    /// [`Error::Cancelled`] (the consumer left, the deadline passed, the worker is told to stop),
    /// [`Error::TooLarge`] (more than 1 MiB), [`Error::Unwanted`] ([`Job::wants_parts`] is false).
    /// Nothing was sent then.
    pub fn emit(&self, bytes: &[u8]) -> Result<(), Error> {
        self.emit_flagged(bytes, 0)
    }

    /// The same of external term bytes without the leading 131.
    pub fn emit_term(&self, bytes: &[u8]) -> Result<(), Error> {
        self.emit_flagged(bytes, FLAG_TERM)
    }

    fn emit_flagged(&self, bytes: &[u8], flags: u16) -> Result<(), Error> {
        if !self.wants_parts() {
            return Err(Error::Unwanted);
        }
        if bytes.len() > PART_BYTES_MAX {
            return Err(Error::TooLarge { bytes: bytes.len(), limit: PART_BYTES_MAX });
        }
        self.wait_for_demand()?;
        let first = if bytes.len() > INLINE_BYTES_MAX {
            Some(self.kit.take_blocks(bytes.len(), || self.is_cancelled())?)
        } else {
            None
        };
        self.parts.set(self.parts.get().wrapping_add(1));
        self.say(STATUS_PART, flags, bytes, first);
        self.kit.pulse();
        Ok(())
    }

    fn wait_for_demand(&self) -> Result<(), Error> {
        loop {
            self.check()?;
            let left = self.deadline_ns().map(|at| at.saturating_sub(now_ns()));
            if self.demand() > 0 {
                return Ok(());
            }
            self.kit.publish(); // who asks for more has to see what there was
                                // Demand, a cancel and a stop ring; the deadline does not.
            self.kit.wait(|| self.demand() > 0 || self.is_cancelled(), left);
        }
    }

    /// The caller hears of the job's progress.
    pub fn wants_progress(&self) -> bool {
        self.request.flags & FLAG_PROGRESS != 0
    }

    /// Tells the caller how far the job is, at once or not at all. False: dropped, as there was no
    /// room. Where nobody wants to hear it, nothing is sent.
    ///
    /// # Errors
    /// [`Error::TooLarge`] (more than 4,096 bytes).
    pub fn progress(&self, bytes: &[u8]) -> Result<bool, Error> {
        self.progress_flagged(bytes, 0)
    }

    /// The same of external term bytes without the leading 131.
    pub fn progress_term(&self, bytes: &[u8]) -> Result<bool, Error> {
        self.progress_flagged(bytes, FLAG_TERM)
    }

    fn progress_flagged(&self, bytes: &[u8], flags: u16) -> Result<bool, Error> {
        self.kit.pulse();
        if !self.wants_progress() {
            return Ok(true);
        }
        if bytes.len() > PROGRESS_BYTES_MAX {
            return Err(Error::TooLarge { bytes: bytes.len(), limit: PROGRESS_BYTES_MAX });
        }
        if self.kit.free_slots() == 0 {
            return Ok(false);
        }
        let mut first = None;
        if bytes.len() > INLINE_BYTES_MAX {
            self.kit.take_givebacks();
            first = match self.kit.try_take_blocks(bytes.len()) {
                Ok(first) => Some(first),
                Err(_) => return Ok(false),
            };
        }
        self.say(STATUS_PROGRESS, flags, bytes, first);
        Ok(true)
    }

    /// The job got on: a role with `progress_timeout_ms` ends a worker whose job does not say so in
    /// time. Parts and progress say so by themselves. One store.
    #[inline]
    pub fn pulse(&self) {
        self.kit.pulse();
    }

    /// False: the worker is alive, but wants no new jobs for now; true: it wants them again. Told
    /// at once. Jobs that are in the ring already still come.
    pub fn set_ready(&self, ready: bool) {
        self.kit.set_ready(ready);
    }

    /// Sends a copy of the bytes, in the blocks from `first` on (None: in the envelope).
    fn say(&self, status: u16, flags: u16, bytes: &[u8], first: Option<u32>) {
        let now = now_ns();
        let mut completion = self.completion(status, flags, bytes.len(), now);
        let in_region = match first {
            None => {
                completion.flags |= FLAG_INLINE;
                completion.body[..bytes.len()].copy_from_slice(bytes);
                None
            }
            Some(first) => {
                let block = u64::from(self.kit.link.header.result_block_bytes);
                completion.payload_at = u64::from(first) * block;
                let to = self.kit.block(first);
                // SAFETY: the blocks from `first` on were taken for so many bytes, and are ours
                // until the completion is published; shared and private memory do not overlap.
                unsafe { core::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len()) };
                Some(bytes)
            }
        };
        self.kit.complete(completion, in_region, now);
    }

    #[inline]
    pub(crate) fn completion(&self, status: u16, flags: u16, size: usize, now: u64) -> Completion {
        Completion {
            job: self.request.job,
            crc: 0,
            status,
            flags,
            queue_ns: self.start_ns - self.drained_ns,
            run_ns: now - self.start_ns,
            payload_at: 0,
            payload_bytes: size as u32,
            code: 0,
            reserved: 0,
            reserved2: [0; 16],
            body: [0; 64],
        }
    }
}

/// How many more than `sent` a demand word allows; none where it is the slot's last job's.
fn demand_left(word: u64, position: u64, sent: u32) -> u32 {
    let left = (word as u32).wrapping_sub(sent) as i32;
    if (word >> 32) as u32 != position as u32 || left < 0 {
        0
    } else {
        left as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_demand_word_counts_from_the_jobs_beginning_and_runs_freely() {
        assert_eq!(demand_left(7 << 32 | 5, 7, 2), 3);
        assert_eq!(demand_left(7 << 32 | 5, 7 + (1 << 32), 5), 0);
        assert_eq!(demand_left(7 << 32 | 5, 8, 0), 0, "an earlier job's");
        assert_eq!(demand_left(7 << 32 | 5, 7, 6), 0, "less than what was sent");
        assert_eq!(demand_left(7 << 32 | 2, 7, u32::MAX - 1), 4, "past 32 bits");
    }
}
