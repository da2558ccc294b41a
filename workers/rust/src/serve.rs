//! The loop: wait at the gate, take what is in the ring as one batch, run job by job.
//!
//! ```text
//!      wait ──> batch of n ──> copy, check ──> started ──> handler ──> completion ──┐
//!       ^          ^────────────────────── next job ────────────────────────────────┤
//!       └───────────────────────── publish, release slots ──────────────────────────┘
//! ```
//!
//! Death: killed before `started` moves, the bridge gives the job to another worker; killed after
//! it, the job is lost with us and answered `{:worker_crashed, ...}`; killed after the completion
//! is published, the answer stands.

use core::cell::Cell;
use core::sync::atomic::Ordering::Relaxed;

use crate::envelope::request_crc;
use crate::error::MESSAGE_BYTES_MAX;
use crate::heartbeat::Counters;
use crate::job::{Cancel, Job};
use crate::kit::Kit;
use crate::layout::*;
use crate::peer_serve;
use crate::primitive::u64s;
use crate::room::{Answer, HandedOver};
use crate::state::{self, State};
use crate::sys::{now_ns, POLLIN};
use crate::Error;

/// Pages of large answers go back to the kernel after this long without work.
const TRIM_AFTER_NS: u64 = 1_000_000_000;
/// Between two looks at the channel within a batch.
const LOOK_EVERY_NS: u64 = 1_000_000;
/// A job with more payload than this is not short: answers do not wait behind it.
const SHORT_PAYLOAD_BYTES_MAX: u32 = 16 << 10;

/// What a worker does: jobs, and with a state what outlives it.
pub trait Service {
    fn handle(&mut self, job: &Job) -> Result<Answer, Error>;
    fn state(&mut self) -> Option<&mut (dyn State + '_)>;

    /// Has the handler do a job of the bridge's, and answers it; returns when it ended.
    fn run(&mut self, job: &Job) -> u64 {
        let returned = self.handle(job);
        give(job, returned)
    }
}

/// Serves until told to drain or stop.
pub fn serve(kit: &'static Kit, service: &mut dyn Service) {
    loop {
        // The control word first: what was published before "drain" is then in the count.
        let control = kit.control();
        let count = kit.requests.borrow_mut().available();
        let count = count.unwrap_or_else(|_| kit.broken_ring("request"));
        // So what the bridge has said before a job was published is known to it.
        state::look(kit, service.state());
        if kit.held.get() && control != CONTROL_STOP {
            // Only the channel brings what is waited for.
            let _ = kit.wait_for_channel(None, POLLIN, None);
            continue;
        }
        if control == CONTROL_STOP || (control != CONTROL_RUN && count == 0) {
            return state::leave(kit, service.state());
        }
        let asked = if control == CONTROL_RUN { peer_serve::serve(kit, service) } else { 0 };
        if count == 0 {
            if asked == 0 {
                wait_for_work(kit);
            }
            continue;
        }
        kit.take_givebacks();
        let drained_ns = now_ns();
        let (mut start_ns, mut looked_ns) = (drained_ns, drained_ns);
        for _ in 0..count {
            if kit.control() == CONTROL_STOP || kit.held.get() {
                break;
            }
            start_ns = run_one(kit, drained_ns, start_ns, service);
            if start_ns - looked_ns > LOOK_EVERY_NS {
                looked_ns = start_ns;
                state::look(kit, service.state());
                if !kit.held.get() && peer_serve::serve(kit, service) > 0 {
                    start_ns = now_ns();
                }
            }
        }
        kit.publish();
    }
}

/// Waits without end, or, while large answers have left pages behind, until it is time to give
/// those back.
fn wait_for_work(kit: &Kit) {
    loop {
        let slice = kit.is_swollen().then_some(TRIM_AFTER_NS);
        let work =
            || kit.requests.borrow_mut().available() != Ok(0) || kit.control() != CONTROL_RUN;
        let found = match kit.heard_fd() {
            Some(fd) => kit.wait_or_fd(fd, work, slice),
            None => kit.wait(work, slice),
        };
        kit.counters.gate.store(kit.waiter.borrow().last(), Relaxed);
        if found {
            return;
        }
        kit.trim();
    }
}

/// Runs the next request; returns when it ended, which is when the next one starts.
#[inline]
fn run_one(kit: &'static Kit, drained_ns: u64, start_ns: u64, service: &mut dyn Service) -> u64 {
    let (position, slot) = kit.requests.borrow().at(kit.unreleased.get());
    // SAFETY: R1 in available(): the slot is written; it lies in the ring.
    let request = unsafe { kit.link.requests.add(slot).read() };
    if kit.holds_back() && request.payload_bytes > SHORT_PAYLOAD_BYTES_MAX {
        kit.publish();
    }
    let job = Job {
        kit,
        slot,
        position,
        drained_ns,
        start_ns,
        parts: Cell::new(0),
        cancel: Cancel::new(kit, &request, slot),
        in_pool: payload(kit, &request),
        request,
    };
    let crc =
        request_crc(&job.request, job.in_pool.map(|_| job.payload()), kit.link.header.features);
    if crc != request.crc {
        kit.broken(format_args!(
            "job {} has CRC {:08x}, its bytes make {crc:08x}",
            request.job, request.crc
        ));
    }
    let started = Counters::count(&kit.counters.started);
    // K0: pairs with the relay's acquire load after our death. In order with the handler's own
    // effects, as the handler is opaque to the compiler (dyn) and a process that dies has made its
    // earlier stores.
    u64s::store_release(kit.link.ours.started, started);
    let end =
        if job.is_cancelled() { give(&job, Err(Error::Cancelled)) } else { service.run(&job) };
    kit.unreleased.set(kit.unreleased.get() + 1);
    end
}

/// Where a request's payload lies in the pool; None: in the envelope. The relay is ours, and never
/// sends what breaks a rule.
fn payload(kit: &Kit, q: &Request) -> Option<*const u8> {
    let (job, bytes, at) = (q.job, q.payload_bytes, q.payload_at);
    if q.flags & FLAG_ZSTD != 0 {
        kit.broken(format_args!("job {job} has a compressed payload, which was not agreed to"));
    }
    if q.flags & FLAG_INLINE != 0 {
        if bytes as usize > INLINE_BYTES_MAX {
            kit.broken(format_args!("job {job} has {bytes} bytes inline"));
        }
        return None;
    }
    let pool = kit.link.header.pool_bytes;
    if at > pool || u64::from(bytes) > pool - at {
        kit.broken(format_args!("job {job} has {bytes} bytes at {at} of a pool of {pool}"));
    }
    // No pool: 0 bytes, of the envelope.
    // SAFETY: inside the pool, as just checked.
    (!kit.link.pool.is_null()).then(|| unsafe { kit.link.pool.add(at as usize) })
}

/// What the one answer of a job is: status, code, bytes.
pub type Outcome = (u16, u16, Answer);

/// What a handler has meant by what it returned.
pub fn settle(job: &Job, returned: Result<Answer, Error>) -> Outcome {
    match returned {
        Ok(answer) => (STATUS_OK, 0, answer),
        Err(error) => settle_error(job, &error),
    }
}

#[cold]
fn settle_error(job: &Job, error: &Error) -> Outcome {
    let (code, mut message) = match error.answer() {
        None => return (STATUS_CANCELLED, 0, Answer::done()),
        Some(answer) => answer,
    };
    let mut size = message.len().min(MESSAGE_BYTES_MAX);
    while !message.is_char_boundary(size) {
        size -= 1;
    }
    message.truncate(size);
    match job.answer(message.as_bytes()) {
        Ok(answer) => (STATUS_FAILED, code, answer),
        // No room before the cancel came.
        Err(_) => (STATUS_CANCELLED, 0, Answer::done()),
    }
}

/// Gives the job its one answer; returns the time. An answer is handed on by itself, as it is large
/// enough to be felt when it is moved once more.
#[inline]
pub fn give(job: &Job, returned: Result<Answer, Error>) -> u64 {
    match returned {
        Ok(answer) => complete(job, STATUS_OK, 0, answer),
        Err(error) => give_error(job, &error),
    }
}

#[cold]
fn give_error(job: &Job, error: &Error) -> u64 {
    let (status, code, answer) = settle_error(job, error);
    complete(job, status, code, answer)
}

/// An answer that was made for another worker's request.
#[cold]
fn give_copy(job: &Job, flags: u16, bytes: &[u8]) -> u64 {
    give(job, job.answer(bytes).map(|copy| Answer { flags, ..copy }))
}

#[inline]
fn complete(job: &Job, status: u16, code: u16, answer: Answer) -> u64 {
    let (kit, now) = (job.kit, now_ns());
    let mut completion = job.completion(status, answer.flags, answer.room.len(), now);
    completion.code = code;
    match answer.room.hand_over() {
        HandedOver::Inline(bytes) => {
            completion.flags |= FLAG_INLINE;
            completion.body = bytes;
            kit.complete(completion, None, now);
        }
        HandedOver::Blocks(first, bytes) => {
            let block = u64::from(kit.link.header.result_block_bytes);
            completion.payload_at = u64::from(first) * block;
            kit.complete(completion, Some(bytes), now);
        }
        HandedOver::Private(bytes) => return give_copy(job, answer.flags, &bytes),
    }
    count(kit, &completion);
    now
}

fn count(kit: &Kit, c: &Completion) {
    let counters = kit.counters;
    Counters::count(&counters.jobs);
    counters.run_ns.store(c.run_ns, Relaxed);
    if c.status == STATUS_FAILED {
        Counters::count(&counters.failed);
        counters.last_code.store(u32::from(c.code), Relaxed);
    }
}
