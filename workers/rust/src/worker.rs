//! Opens the link that the process was started with, says hello, serves, ends.

use std::process::ExitCode;

use crate::chaos;
use crate::heartbeat::{Counters, Heart, Heartbeat};
use crate::kit::Kit;
use crate::layout::{self, WorkerOp};
use crate::link::{is_open, text_field, Descriptors, Link, Refusal};
use crate::park::block_wake_signal;
use crate::peer_serve;
use crate::room::Answer;
use crate::serve::{serve, Service};
use crate::state::{load, State};
use crate::{Error, Job};

/// major << 16 | minor
pub const KIT_VERSION: u32 = 1 << 16 | 1;

// sysexits.h
const EXIT_USAGE: u8 = 64;
const EXIT_DATA: u8 = 65;
const EXIT_OSERR: u8 = 71;
const EXIT_CONFIG: u8 = 78;

/// What an operation takes: see [`Op::takes`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takes {
    Raw,
    Term,
}

/// An operation that a worker declares in its hello.
#[derive(Clone, Copy, Debug)]
pub struct Op(WorkerOp);

impl Op {
    /// One of this name (cut at 27 bytes) under this opcode, which takes anything.
    pub fn new(opcode: u16, name: &str) -> Op {
        Op(WorkerOp { opcode, takes: 0, name: text_field(name) })
    }

    /// Takes raw bytes, or terms; called twice: either.
    #[must_use]
    pub fn takes(mut self, what: Takes) -> Op {
        self.0.takes |= match what {
            Takes::Raw => layout::TAKES_RAW,
            Takes::Term => layout::TAKES_TERM,
        };
        self
    }

    /// Answers in parts, for streams.
    #[must_use]
    pub fn in_parts(mut self) -> Op {
        self.0.takes |= layout::TAKES_PARTS;
        self
    }
}

/// How a worker serves. What a program sets up before [`Worker::serve`] is set up before the hello,
/// so a worker is not called ready before it is: load tables, open files there.
#[derive(Clone, Debug, Default)]
pub struct Worker {
    short_jobs: bool,
    serves_peers: bool,
    ops: Vec<WorkerOp>,
}

impl Worker {
    pub fn new() -> Worker {
        Worker::default()
    }

    /// Every job takes microseconds: answers are published in batches, up to 50 us late, which
    /// saves a store and perhaps a wake-up each. Otherwise each answer leaves at once, so none
    /// waits behind the next job.
    #[must_use]
    pub fn short_jobs(mut self, short: bool) -> Worker {
        self.short_jobs = short;
        self
    }

    /// Other workers may ask this one too, over links that the bridge grants (docs/links.md). Their
    /// requests go through the same handler, between its jobs: it need not know who asks. They want
    /// no parts and no progress, and [`Job::id`] is the asking job's.
    #[must_use]
    pub fn serves_peers(mut self, serves: bool) -> Worker {
        self.serves_peers = serves;
        self
    }

    /// Declares an operation. A worker that declares none takes every opcode.
    ///
    /// # Panics
    /// As a bridge would refuse the worker for it: more than 64, an opcode or a name that was
    /// declared before, a name that is empty or has control characters.
    #[must_use]
    pub fn op(mut self, op: Op) -> Worker {
        let WorkerOp { opcode, name, .. } = op.0;
        assert!(
            self.ops.len() < layout::OPS_MAX as usize,
            "more operations than there is room for"
        );
        assert!(
            name[0] != 0 && name.iter().all(|c| *c == 0 || (*c >= 0x20 && *c != 0x7f)),
            "the name of operation {opcode} is not printable text"
        );
        let twice = self.ops.iter().find(|known| known.opcode == opcode || known.name == name);
        assert!(twice.is_none(), "operation {opcode} is declared twice, by opcode or name");
        self.ops.push(op.0);
        self
    }

    /// Serves until the bridge says drain or stop, calling `handler` for each job in order, one at
    /// a time, on this thread. Returns main()'s exit status: 0 done; 64 not started by a
    /// bridge; 71 the link cannot be mapped; 78 built for another layout, or a header that
    /// breaks a rule (the reason is on stderr). A bridge that breaks a rule later ends the
    /// process with 76.
    ///
    /// To be called once in a process: the link is the process's.
    pub fn serve(self, handler: impl FnMut(&Job) -> Result<Answer, Error>) -> ExitCode {
        self.run(Handler(handler))
    }

    /// The same with state that outlives the process, lent to each call of the handler. Also
    /// returns 65 when it would not take its state.
    pub fn serve_with<S: State>(
        self,
        state: S,
        handler: impl FnMut(&mut S, &Job) -> Result<Answer, Error>,
    ) -> ExitCode {
        self.run(Keeper { state, handler })
    }

    fn run(self, mut service: impl Service) -> ExitCode {
        match self.open(&mut service) {
            Ok((kit, heartbeat)) => {
                if chaos::open(kit) {
                    serve(kit, &mut chaos::Troubled(service));
                } else {
                    serve(kit, &mut service);
                }
                heartbeat.stop();
                ExitCode::SUCCESS
            }
            Err((status, why)) => {
                let program = std::env::args().next().unwrap_or_else(|| "worker".into());
                eprintln!("{program}: {why}");
                ExitCode::from(status)
            }
        }
    }

    fn open(&self, service: &mut dyn Service) -> Result<(&'static Kit, Heartbeat), (u8, String)> {
        let first = first_descriptor().ok_or_else(|| {
            let named = layout::ENV_LINK_FD;
            let why = format!(
                "a worker of a ringbridge: it is started by one, with {named} naming its link"
            );
            (EXIT_USAGE, why)
        })?;
        let link = Link::attach(Descriptors::from_first(first)).map_err(|e| match e {
            Refusal::Protocol(rule) => (EXIT_CONFIG, format!("refused: {rule}")),
            Refusal::System(error) => {
                (EXIT_OSERR, format!("refused: the link cannot be mapped: {error}"))
            }
        })?;
        // Before the first thread, so that every one has it blocked (gate.h).
        block_wake_signal();
        // The kit is the process's: there is nothing that would outlive it.
        let counters: &'static Counters = Box::leak(Box::default());
        let heart: &'static Heart = Box::leak(Box::new(Heart::new(&link, counters)));
        let heartbeat = Heartbeat::start(heart)
            .map_err(|error| (EXIT_OSERR, format!("no thread for the heartbeat: {error}")))?;
        let kit: &'static Kit =
            Box::leak(Box::new(Kit::new(link, self.short_jobs, counters, heart)));
        if let Some(state) = service.state() {
            load(kit, state)
                .map_err(|why| (EXIT_DATA, format!("it has no state to begin with: {why}")))?;
        }
        if self.serves_peers {
            peer_serve::offer_service(kit);
        }
        let role = std::env::var(layout::ENV_ROLE).unwrap_or_default();
        kit.link.greet("rust", KIT_VERSION, &role, &self.ops);
        kit.waker.borrow_mut().ring();
        Ok((kit, heartbeat))
    }
}

/// A handler without state.
struct Handler<F>(F);

impl<F: FnMut(&Job) -> Result<Answer, Error>> Service for Handler<F> {
    fn handle(&mut self, job: &Job) -> Result<Answer, Error> {
        (self.0)(job)
    }
    fn state(&mut self) -> Option<&mut (dyn State + '_)> {
        None
    }
}

/// A handler with its state.
struct Keeper<S, F> {
    state: S,
    handler: F,
}

impl<S: State, F: FnMut(&mut S, &Job) -> Result<Answer, Error>> Service for Keeper<S, F> {
    fn handle(&mut self, job: &Job) -> Result<Answer, Error> {
        (self.handler)(&mut self.state, job)
    }
    fn state(&mut self) -> Option<&mut (dyn State + '_)> {
        Some(&mut self.state)
    }
}

/// The first of the link's descriptors.
fn first_descriptor() -> Option<i32> {
    let text = std::env::var(layout::ENV_LINK_FD).ok()?;
    let fd = text.parse().ok().filter(|fd| (0..1 << 20).contains(fd))?;
    is_open(fd).then_some(fd)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn declared(ops: &[(u16, &str)]) -> Worker {
        ops.iter().fold(Worker::new(), |worker, (opcode, name)| worker.op(Op::new(*opcode, name)))
    }

    #[test]
    fn operations_are_laid_out_as_they_were_declared() {
        let worker = declared(&[(0, "route"), (7, "picture")])
            .op(Op::new(9, "both").takes(Takes::Raw).takes(Takes::Term).in_parts());
        let codes: Vec<u16> = worker.ops.iter().map(|op| op.opcode).collect();
        assert_eq!(codes, [0, 7, 9]);
        assert_eq!(&worker.ops[1].name[..8], b"picture\0");
        let all = layout::TAKES_RAW | layout::TAKES_TERM | layout::TAKES_PARTS;
        assert_eq!((worker.ops[0].takes, worker.ops[2].takes), (0, all));
    }

    #[test]
    fn what_a_bridge_would_refuse_is_a_panic() {
        let too_many: Vec<String> = (0..65).map(|i| format!("op {i}")).collect();
        let too_many: Vec<(u16, &str)> =
            too_many.iter().enumerate().map(|(i, name)| (i as u16, name.as_str())).collect();
        for ops in [
            &[(0, "a"), (0, "b")][..],
            &[(0, "a"), (1, "a")],
            &[(0, "")],
            &[(0, "a\nb")],
            &too_many,
        ] {
            let ops = ops.to_vec();
            assert!(std::panic::catch_unwind(move || declared(&ops)).is_err());
        }
    }
}
