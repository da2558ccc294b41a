//! Trouble on purpose (docs/chaos.md): the hooks that a bridge may switch on in a worker whose
//! environment allows it (docs/channel.md, "Hooks").
//!
//! Off, they cost nothing: where the environment allows them another [`Service`] stands in front of
//! the worker's own, so no job of a worker without them passes a line of this file. One hook of
//! jobs at a time; the next one takes its place.

use core::cell::Cell;
use core::time::Duration;
use std::thread::sleep;

use crate::gate::Waker;
use crate::job::Job;
use crate::kit::Kit;
use crate::layout::*;
use crate::packet::Incoming;
use crate::primitive::AtomicU32;
use crate::room::Answer;
use crate::serve::{give, Service};
use crate::socket::head;
use crate::state::State;
use crate::sys::{self, now_ns};
use crate::Error;

const ALLOWED: &str = "RINGBRIDGE_CHAOS";
const BODY_BYTES_MAX: usize = 64;
const HOUR_MS: u64 = 3_600_000;
const SLICE: Duration = Duration::from_millis(10);

/// The relay looks awake, so nobody rings: it finds the answer when it next looks by itself.
static LOOKS_AWAKE: AtomicU32 = AtomicU32::new(PARK_AWAKE);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hook {
    Stall,
    Crash,
    Oversize,
    Corrupt,
    Overrun,
    LostWake,
    NoFiles,
    Hold,
    Silence,
}

/// Name, hook, and the largest value.
const HOOKS: &[(&str, Hook, u64)] = &[
    ("stall", Hook::Stall, HOUR_MS),
    ("crash", Hook::Crash, 64),
    ("oversize", Hook::Oversize, 1 << 30),
    ("corrupt", Hook::Corrupt, u32::MAX as u64),
    ("overrun", Hook::Overrun, 1 << 30),
    ("lost_wake", Hook::LostWake, 1),
    ("no_files", Hook::NoFiles, 1),
    ("hold", Hook::Hold, HOUR_MS),
    ("silence", Hook::Silence, HOUR_MS),
];

/// What is on; the handler's thread.
#[derive(Debug, Default)]
pub struct Chaos {
    allowed: Cell<bool>,
    armed: Cell<Option<(Hook, u64)>>, // with its value
    jobs: Cell<u64>,                  // which it is still for
}

impl Chaos {
    /// The hook of the next job.
    fn next(&self) -> Option<(Hook, u64)> {
        self.jobs.set(self.jobs.get().checked_sub(1)?);
        self.armed.get()
    }
}

/// Before its first job: may this worker be troubled? Such a one listens to its channel.
pub fn open(kit: &Kit) -> bool {
    let allowed = std::env::var_os(ALLOWED).map_or(false, |text| text == "1");
    if allowed && kit.outlet.fd().is_ok() {
        kit.chaos.allowed.set(true);
        kit.listens.set(true);
    }
    kit.chaos.allowed.get()
}

/// Between two jobs: switches a hook on.
pub fn take(kit: &Kit, packet: &Incoming) -> Result<(), Error> {
    if !kit.chaos.allowed.get() {
        return kit.refuse(&packet.head, "chaos is not allowed here");
    }
    let (hook, value, jobs) = match read(&packet.body) {
        Some(told) => told,
        None => return kit.refuse_request(&packet.head, "this kit has no such hook"),
    };
    match hook {
        Hook::Silence => kit.heart.be_silent_until(now_ns() + value * 1_000_000),
        Hook::Hold => {}
        _ => {
            kit.chaos.armed.set(Some((hook, value)));
            kit.chaos.jobs.set(jobs);
        }
    }
    if packet.head.id != 0 {
        kit.send_packet(None, head(PACKET_REPLY, packet.head.id, 0), &[], None)?;
    }
    if hook == Hook::Hold {
        hold(kit, Duration::from_millis(value));
    }
    Ok(())
}

/// "NAME VALUE JOBS"
fn read(body: &[u8]) -> Option<(Hook, u64, u64)> {
    let text = std::str::from_utf8(body).ok().filter(|text| text.len() <= BODY_BYTES_MAX)?;
    let mut words = text.split(' ');
    let name = words.next()?;
    let mut number = || {
        let digits = words.next().filter(|word| word.bytes().all(|c| c.is_ascii_digit()))?;
        digits.parse::<u32>().ok().map(u64::from)
    };
    let (value, jobs) = (number()?, number()?);
    let known = HOOKS.iter().find(|(known, _, max)| *known == name && value <= *max);
    known.filter(|_| words.next().is_none()).map(|(_, hook, _)| (*hook, value, jobs))
}

/// Takes nothing from its ring, however full that is, until the time is over or the worker is to
/// leave.
fn hold(kit: &Kit, duration: Duration) {
    let until = now_ns() + duration.as_nanos() as u64;
    while now_ns() < until && kit.control() == CONTROL_RUN {
        sleep(SLICE.min(Duration::from_nanos(until.saturating_sub(now_ns()))));
    }
}

/// A service with trouble in front of it.
#[derive(Debug)]
pub struct Troubled<S>(pub S);

impl<S: Service> Service for Troubled<S> {
    /// Of other workers' requests, which are not troubled.
    fn handle(&mut self, job: &Job) -> Result<Answer, Error> {
        self.0.handle(job)
    }

    fn state(&mut self) -> Option<&mut (dyn State + '_)> {
        self.0.state()
    }

    fn run(&mut self, job: &Job) -> u64 {
        let kit = job.kit;
        let (hook, value) = match kit.chaos.next() {
            Some(trouble) => trouble,
            None => return self.0.run(job),
        };
        match hook {
            // Gets nowhere and hears nothing, while the heartbeat goes on.
            Hook::Stall => {
                sleep(Duration::from_millis(value));
                self.0.run(job)
            }
            Hook::Crash => {
                // In its default meaning: the standard library has a handler of SIGSEGV, which
                // returns where no stack has overflowed.
                // SAFETY: no memory is touched. A signal to oneself may still be on its way in
                // another thread, hence the pause.
                unsafe {
                    sys::signal(value as i32, sys::SIG_DFL);
                    sys::kill(sys::getpid(), value as i32);
                    sys::pause();
                }
                self.0.run(job)
            }
            Hook::Oversize => {
                let room = job.reserve((kit.link.header.result_bytes + value) as usize);
                give(job, room.map(|room| room.raw()))
            }
            Hook::Corrupt => lie(job, |c| {
                c.flags = FLAG_INLINE;
                c.crc = crate::envelope::completion_crc(c, None, kit.link.header.features);
                c.crc ^= value as u32;
            }),
            Hook::Overrun => lie(job, |c| {
                let block = u64::from(kit.link.header.result_block_bytes);
                c.payload_at = kit.link.header.result_bytes - block;
                c.payload_bytes = (block + value) as u32;
            }),
            Hook::LostWake => {
                kit.publish();
                let deaf = Waker::new(&LOOKS_AWAKE, kit.link.ours.doorbell, -1);
                let waker = kit.waker.replace(deaf);
                let end = self.0.run(job);
                kit.publish();
                kit.waker.replace(waker);
                end
            }
            Hook::NoFiles => {
                let before = lowest_free().map(sys::limit_files);
                let end = self.0.run(job);
                before.map(sys::limit_files);
                end
            }
            Hook::Hold | Hook::Silence => self.0.run(job), // not of jobs: never armed
        }
    }
}

/// Where the next descriptor will lie. No lower limit than that, as poll() refuses more descriptors
/// than the limit (poll(2), EINVAL), and the answer's ring would be lost with it.
fn lowest_free() -> Option<u64> {
    use std::os::unix::io::{AsRawFd, FromRawFd, OwnedFd};
    // SAFETY: no memory is touched; the descriptor is new, and ours to close.
    let copy = unsafe { OwnedFd::from_raw_fd(sys::check(sys::dup(2)).ok()?) };
    u64::try_from(copy.as_raw_fd()).ok()
}

/// Answers with a completion that no kit makes, which the relay has to see through.
fn lie(job: &Job, spoil: impl FnOnce(&mut Completion)) -> u64 {
    let now = now_ns();
    let mut completion = job.completion(STATUS_OK, 0, 0, now);
    spoil(&mut completion);
    job.kit.put(completion);
    job.kit.publish();
    now
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hook_is_its_name_a_value_and_a_count() {
        assert_eq!(read(b"stall 200 3"), Some((Hook::Stall, 200, 3)));
        assert_eq!(read(b"lost_wake 0 0"), Some((Hook::LostWake, 0, 0)));
        for wrong in [
            "",
            "crash",
            "crash 9",
            "crash 9 1 1",
            "crash 9 1 ",
            "crash  9 1",
            "crash 65 1",
            "CRASH 9 1",
            "stall -1 1",
            "stall +1 1",
            "stall 1 ",
            "stall 99999999999 1",
            "crash 9 1\0",
            "no_such_hook 1 1",
        ] {
            assert_eq!(read(wrong.as_bytes()), None, "{wrong}");
        }
        let long = format!("crash 9 {:060}", 1);
        assert_eq!(read(long.as_bytes()), None);
    }
}
