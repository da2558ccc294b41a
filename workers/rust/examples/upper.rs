//! upper: answers its payload in upper case. A template: copy it, and make `handle` yours.

use std::process::ExitCode;

use ringbridge_worker::{Answer, Error, Job, Worker};

fn upper(job: &Job) -> Result<Answer, Error> {
    let text = job.payload(); // where it lies: no copy
    let mut room = job.reserve(text.len())?; // in memory that the bridge reads
    for (to, from) in room.chunks_mut(65536).zip(text.chunks(65536)) {
        job.check()?; // does anybody still want it?
        to.copy_from_slice(from);
        to.make_ascii_uppercase();
    }
    Ok(room.raw())
}

fn main() -> ExitCode {
    Worker::new().serve(upper)
}
