//! rb-state-rust: a worker whose jobs append their payload to its state, which it saves and is
//! given; what workers/c/tests/state.c is in C, for the same tests.
//!
//! Opcodes: 0 appends, and answers the whole; 1 answers the whole once a promised state has come; 2
//! sleeps for so many milliseconds. An increment is what was appended since the last save. A
//! payload of "!" makes the next save fail; a state that begins with '?' is not taken.

use std::process::ExitCode;
use std::time::Duration;

use ringbridge_worker::{Answer, Error, Job, Kind, State, Worker};

#[derive(Default)]
struct Text {
    bytes: Vec<u8>,
    saved: usize,
}

impl State for Text {
    fn save(&mut self, wanted: Kind) -> Option<(Kind, Vec<u8>)> {
        if self.bytes.last() == Some(&b'!') {
            self.bytes.pop();
            return None;
        }
        let from = if wanted == Kind::Incremental { self.saved } else { 0 };
        self.saved = self.bytes.len();
        Some((wanted, self.bytes[from..].to_vec()))
    }

    fn restore(&mut self, kind: Kind, state: &[u8]) -> Result<(), String> {
        if kind == Kind::Full {
            self.bytes.clear();
        }
        if state.first() == Some(&b'?') {
            return Err("a state that begins with a question mark".into());
        }
        self.bytes.extend_from_slice(state);
        self.saved = self.bytes.len();
        Ok(())
    }
}

fn handle(text: &mut Text, job: &Job) -> Result<Answer, Error> {
    match job.opcode() {
        2 => {
            let ms = std::str::from_utf8(job.payload()).ok().and_then(|ms| ms.parse().ok());
            // A cancel ends it too, and is no answer here.
            let _ = job.sleep(Duration::from_millis(ms.unwrap_or(0)));
        }
        1 => job.await_state(text)?,
        _ => text.bytes.extend_from_slice(job.payload()),
    }
    job.answer(&text.bytes)
}

fn main() -> ExitCode {
    Worker::new().serve_with(Text::default(), handle)
}
