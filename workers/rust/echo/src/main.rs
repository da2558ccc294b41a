//! rb-echo-rust: answers what it was sent; workers/c/echo in Rust, for tests and benchmarks.
//!
//! Opcodes (docs/workers-c.md): 0 echo, raw bytes as raw bytes, terms as terms; 1 fail, payload
//! "CODE MESSAGE"; 2 die by a signal, its number in decimal, empty: 6; 3 exit, payload the status,
//! empty: 0; 4 return without an answer.

use std::process::ExitCode;

use ringbridge_worker::{Answer, Error, Job, Worker};

const CODE_UNKNOWN_OPCODE: u16 = 1;
const CODE_BAD_PAYLOAD: u16 = 2;

extern "C" {
    fn signal(number: i32, handler: usize) -> usize;
    fn raise(number: i32) -> i32;
    fn _exit(status: i32) -> !;
}

fn handle(job: &Job) -> Result<Answer, Error> {
    match job.opcode() {
        0 if job.payload_is_term() => job.answer_term(job.payload()),
        0 => job.answer(job.payload()),
        1 => fail(job),
        2 => die(job),
        3 => leave(job),
        4 => Err(Error::Unanswered),
        other => {
            Err(Error::failed(CODE_UNKNOWN_OPCODE, format!("opcode must be 0 to 4, got {other}")))
        }
    }
}

/// A decimal number that is the payload, or stands before its first space, and what follows that.
fn number(job: &Job, otherwise: u32) -> Option<(u32, String)> {
    let text = String::from_utf8_lossy(job.payload());
    if text.is_empty() {
        return Some((otherwise, String::new()));
    }
    let (number, rest) = text.split_once(' ').unwrap_or((&text, ""));
    Some((number.parse().ok()?, rest.to_owned()))
}

fn bad_payload(what: &str) -> Error {
    Error::failed(CODE_BAD_PAYLOAD, format!("opcode {what}"))
}

fn fail(job: &Job) -> Result<Answer, Error> {
    let rule = "1 takes \"CODE MESSAGE\" with a code of 0 to 65535";
    let (code, message) = number(job, 0).ok_or_else(|| bad_payload(rule))?;
    Err(Error::failed(u16::try_from(code).map_err(|_| bad_payload(rule))?, message))
}

fn die(job: &Job) -> Result<Answer, Error> {
    let (signal_number, _) = number(job, 6)
        .filter(|(n, _)| (1..=64).contains(n))
        .ok_or_else(|| bad_payload("2 takes the number of a signal, 1 to 64, in decimal"))?;
    // SAFETY: no handler of ours runs: the default meaning, whatever a parent has made of it.
    unsafe {
        signal(signal_number as i32, 0);
        raise(signal_number as i32);
    }
    Err(bad_payload(&format!("2: signal {signal_number} does not end a process")))
}

fn leave(job: &Job) -> Result<Answer, Error> {
    let (status, _) = number(job, 0)
        .filter(|(n, _)| *n <= 255)
        .ok_or_else(|| bad_payload("3 takes an exit status, 0 to 255, in decimal"))?;
    // SAFETY: ends the process.
    unsafe { _exit(status as i32) }
}

fn main() -> ExitCode {
    Worker::new().short_jobs(true).serve(handle)
}
