//! rb-conformance-rust: the conformance job language (docs/workers-conformance.md), for the battery
//! that holds every kit to the same rules. One small function an opcode; all of them are ordinary
//! handlers.

mod kept;
mod links;
mod payload;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use kept::Kept;
use payload::Fields;
use ringbridge_worker::{Answer, Dest, Error, Job, Kind, Level, Op, Peer, State, Takes, Worker};

const CODE_BAD_PAYLOAD: u16 = 1;
const CODE_REFUSED: u16 = 2;
const CODE_UNKNOWN_OPCODE: u16 = 3;

const PATTERN: u64 = 251;
const PART_BYTES_MAX: u32 = 4 << 20;
const BINARY_EXT: u8 = 109;

type Handled = Result<Answer, Error>;

/// What outlives a job.
#[derive(Debug, Default)]
pub struct Memory {
    kept: Kept,
    links: Vec<Option<Peer>>, // by number; None: given back
}

impl State for Memory {
    fn save(&mut self, wanted: Kind) -> Option<(Kind, Vec<u8>)> {
        self.kept.save(wanted)
    }
    fn restore(&mut self, kind: Kind, state: &[u8]) -> Result<(), String> {
        self.kept.restore(kind, state)
    }
}

fn bad_payload(why: String) -> Error {
    Error::failed(CODE_BAD_PAYLOAD, why)
}

fn echo(job: &Job, payload: Fields) -> Handled {
    if job.payload_is_term() {
        job.answer_term(payload.rest())
    } else {
        job.answer(payload.rest())
    }
}

fn fail(_: &Job, mut payload: Fields) -> Handled {
    let code = payload.u16()?;
    Err(Error::failed(code, String::from_utf8_lossy(payload.rest())))
}

fn sleep(job: &Job, mut payload: Fields) -> Handled {
    job.sleep(Duration::from_millis(payload.u32()?.into()))?;
    Ok(Answer::done())
}

/// Part or report number i, in memory of ours.
fn make_part(part: &mut Vec<u8>, i: u32, bytes: u32, as_term: bool) {
    part.clear();
    if as_term {
        part.push(BINARY_EXT);
        part.extend_from_slice(&bytes.to_be_bytes());
    }
    part.resize(part.len() + bytes as usize, (u64::from(i) % PATTERN) as u8);
}

/// Says `count` times; how often the kit did not drop it.
fn say_often(
    job: &Job,
    mut payload: Fields,
    mut say: impl FnMut(&[u8], bool) -> Result<bool, Error>,
) -> Result<u32, Error> {
    let (count, bytes, as_term) = (payload.u32()?, payload.u32()?, payload.u8()? != 0);
    if bytes > PART_BYTES_MAX {
        let why = format!("parts of {bytes} bytes are more than this worker makes");
        return Err(Error::failed(CODE_BAD_PAYLOAD, why));
    }
    let (mut part, mut kept) = (Vec::new(), 0);
    for i in 0..count {
        make_part(&mut part, i, bytes, as_term);
        kept += u32::from(say(&part, as_term).map_err(refused)?);
        job.check()?;
    }
    Ok(kept)
}

/// What the kit refused, in the job language's words.
fn refused(error: Error) -> Error {
    match error {
        Error::Cancelled | Error::Failed { .. } => error,
        other => Error::failed(CODE_REFUSED, other.to_string()),
    }
}

fn emit(job: &Job, payload: Fields) -> Handled {
    say_often(job, payload, |part, as_term| {
        if as_term { job.emit_term(part) } else { job.emit(part) }.map(|()| true)
    })?;
    Ok(Answer::done())
}

fn progress(job: &Job, payload: Fields) -> Handled {
    let kept = say_often(job, payload, |part, as_term| {
        if as_term {
            job.progress_term(part)
        } else {
            job.progress(part)
        }
    })?;
    job.answer(&kept.to_le_bytes())
}

fn large(job: &Job, mut payload: Fields) -> Handled {
    let (size, seed) = (payload.u64()?, payload.u8()?);
    let mut room = job.reserve(usize::try_from(size).unwrap_or(usize::MAX))?;
    let mut value = (u64::from(seed) % PATTERN) as u8;
    for byte in room.iter_mut() {
        *byte = value;
        value += 1;
        if u64::from(value) == PATTERN {
            value = 0;
        }
    }
    Ok(room.raw())
}

extern "C" {
    fn signal(number: i32, handler: usize) -> usize;
    fn raise(number: i32) -> i32;
}

fn end(_: &Job, mut payload: Fields) -> Handled {
    let (how, value) = (payload.u8()?, payload.u8()?);
    match how {
        0 => std::process::exit(value.into()),
        // SAFETY: no handler of ours runs: the signal's default meaning, whatever a parent has made
        // of it.
        1 => unsafe {
            signal(value.into(), 0);
            raise(value.into());
        },
        2 => return Err(Error::Unanswered),
        3 => panic!("as the job asked for"),
        _ => {}
    }
    Err(Error::failed(CODE_BAD_PAYLOAD, format!("end {how} {value} does not end a process")))
}

fn hold(_: &Job, mut payload: Fields) -> Handled {
    let until = Instant::now() + Duration::from_millis(payload.u32()?.into());
    while Instant::now() < until {}
    Ok(Answer::done())
}

fn term(job: &Job, payload: Fields) -> Handled {
    const OK_AND: &[u8] = &[104, 2, 119, 2, b'o', b'k']; // {ok, ...}
    let bytes = payload.rest();
    if !job.payload_is_term() {
        let why = format!("the payload must be a term, got {} raw bytes", bytes.len());
        return Err(Error::failed(CODE_BAD_PAYLOAD, why));
    }
    let mut room = job.reserve(OK_AND.len() + bytes.len())?;
    room[..OK_AND.len()].copy_from_slice(OK_AND);
    room[OK_AND.len()..].copy_from_slice(bytes);
    Ok(room.term())
}

// --- over the channel --------------------------------------------------------------------------

fn checkpoint(job: &Job, mut payload: Fields) -> Handled {
    let kind = match payload.u8()? {
        0 => Kind::Full,
        1 => Kind::Incremental,
        2 => {
            let parts = job.load_checkpoint().map_err(refused)?;
            return job.answer(&parts.into_iter().flat_map(|(_, bytes)| bytes).collect::<Vec<_>>());
        }
        what => return Err(Error::failed(CODE_BAD_PAYLOAD, format!("no checkpoint is {what}"))),
    };
    job.checkpoint(kind, payload.rest()).map_err(refused)?;
    Ok(Answer::done())
}

fn call(job: &Job, mut payload: Fields) -> Handled {
    let (timeout_ms, size) = (payload.u32()?, payload.u32()?);
    let to = Dest::Term(payload.take(size as usize)?);
    let timeout = Duration::from_millis(timeout_ms.into());
    job.answer_term(&job.call(to, payload.rest(), timeout).map_err(refused)?)
}

fn send(job: &Job, mut payload: Fields) -> Handled {
    let size = payload.u32()?;
    let to = Dest::Term(payload.take(size as usize)?);
    job.send(to, payload.rest()).map_err(refused)?;
    Ok(Answer::done())
}

fn log(job: &Job, mut payload: Fields) -> Handled {
    let level = match payload.u8()? {
        0 => Level::Debug,
        1 => Level::Info,
        2 => Level::Warning,
        3 => Level::Error,
        level => return Err(Error::failed(CODE_BAD_PAYLOAD, format!("no level is {level}"))),
    };
    if job.log(level, &String::from_utf8_lossy(payload.rest())).map_err(refused)? {
        Ok(Answer::done())
    } else {
        Err(Error::failed(CODE_REFUSED, "there was no room for the line"))
    }
}

// --- how it is -----------------------------------------------------------------------------------

fn pulse(job: &Job, mut payload: Fields) -> Handled {
    for _ in 0..payload.u32()? {
        job.pulse();
    }
    Ok(Answer::done())
}

fn ready(job: &Job, mut payload: Fields) -> Handled {
    job.set_ready(payload.u8()? != 0);
    Ok(Answer::done())
}

fn about(job: &Job, _: Fields) -> Handled {
    let mut answer = Vec::with_capacity(46);
    answer.extend_from_slice(&job.id().to_le_bytes());
    answer.extend_from_slice(&job.deadline_ns().unwrap_or(0).to_le_bytes());
    answer.extend_from_slice(&job.demand().to_le_bytes());
    answer.push(u8::from(job.wants_parts()) | u8::from(job.wants_progress()) << 1);
    let (trace_id, span_id, flags) =
        job.trace().map_or(([0; 16], [0; 8], 0), |t| (t.trace_id, t.span_id, t.flags));
    answer.extend_from_slice(&trace_id);
    answer.extend_from_slice(&span_id);
    answer.push(flags);
    job.answer(&answer)
}

struct Operation {
    opcode: u16,
    name: &'static str,
    run: Run,
}

enum Run {
    /// It needs its job alone.
    Job(fn(&Job, Fields) -> Handled),
    /// And what was before it.
    Memory(fn(&mut Memory, &Job, Fields) -> Handled),
}

const OPERATIONS: &[Operation] = &[
    Operation { opcode: 0, name: "echo", run: Run::Job(echo) },
    Operation { opcode: 1, name: "fail", run: Run::Job(fail) },
    Operation { opcode: 2, name: "sleep", run: Run::Job(sleep) },
    Operation { opcode: 3, name: "emit", run: Run::Job(emit) },
    Operation { opcode: 4, name: "progress", run: Run::Job(progress) },
    Operation { opcode: 5, name: "large", run: Run::Job(large) },
    Operation { opcode: 6, name: "end", run: Run::Job(end) },
    Operation { opcode: 7, name: "hold", run: Run::Job(hold) },
    Operation { opcode: 8, name: "term", run: Run::Job(term) },
    Operation { opcode: 9, name: "checkpoint", run: Run::Job(checkpoint) },
    Operation { opcode: 10, name: "call", run: Run::Job(call) },
    Operation { opcode: 11, name: "send", run: Run::Job(send) },
    Operation { opcode: 12, name: "log", run: Run::Job(log) },
    Operation { opcode: 13, name: "pulse", run: Run::Job(pulse) },
    Operation { opcode: 14, name: "ready", run: Run::Job(ready) },
    Operation { opcode: 15, name: "about", run: Run::Job(about) },
    Operation { opcode: 16, name: "state", run: Run::Memory(kept::state) },
    Operation { opcode: 17, name: "peer_open", run: Run::Memory(links::peer_open) },
    Operation { opcode: 18, name: "peer_call", run: Run::Memory(links::peer_call) },
    Operation { opcode: 19, name: "peer_close", run: Run::Memory(links::peer_close) },
];

fn handle(memory: &mut Memory, job: &Job) -> Handled {
    let payload = Fields::of(job.payload());
    match OPERATIONS.iter().find(|operation| operation.opcode == job.opcode()) {
        Some(Operation { run: Run::Job(run), .. }) => run(job, payload),
        Some(Operation { run: Run::Memory(run), .. }) => run(memory, job, payload),
        None => {
            let why = format!("opcode {} is not served", job.opcode());
            Err(Error::failed(CODE_UNKNOWN_OPCODE, why))
        }
    }
}

fn main() -> ExitCode {
    let mut worker = Worker::new();
    for operation in OPERATIONS {
        let op = Op::new(operation.opcode, operation.name);
        worker = worker.op(match operation.name {
            "echo" => op.takes(Takes::Raw).takes(Takes::Term),
            "term" => op.takes(Takes::Term),
            "emit" => op.takes(Takes::Raw).in_parts(),
            _ => op.takes(Takes::Raw),
        });
    }
    let mut memory = Memory::default();
    match std::env::var("RINGBRIDGE_ROLE").as_deref() {
        Ok("conformance-state") => worker.serve_with(memory, handle),
        role => {
            let serves = role.map_or(false, |role| role.starts_with("conformance-links"));
            worker.serves_peers(serves).serve(move |job| handle(&mut memory, job))
        }
    }
}
