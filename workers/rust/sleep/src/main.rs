//! rb-sleep-rust: sleeps for its payload, milliseconds in decimal text ("1500"), answers the
//! payload; a cancel ends it early. workers/c/sleep in Rust.

use std::process::ExitCode;
use std::time::Duration;

use ringbridge_worker::{Answer, Error, Job, Worker};

const CODE_BAD_PAYLOAD: u16 = 1;
const MS_MAX: u64 = 86_400_000; // a day

/// Digits only: no sign, no space, one digit at least.
fn milliseconds(job: &Job) -> Option<u64> {
    let text = job.payload();
    if job.payload_is_term() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok().filter(|ms| *ms <= MS_MAX)
}

fn handle(job: &Job) -> Result<Answer, Error> {
    let ms = milliseconds(job).ok_or_else(|| {
        let of_what = if job.payload_is_term() { " of an external term" } else { "" };
        Error::failed(
            CODE_BAD_PAYLOAD,
            format!(
                "the payload must be milliseconds in decimal text, 0 to {MS_MAX}, \
                 got {} bytes{of_what}",
                job.payload().len()
            ),
        )
    })?;
    job.sleep(Duration::from_millis(ms))?;
    job.answer(job.payload())
}

fn main() -> ExitCode {
    Worker::new().serve(handle)
}
