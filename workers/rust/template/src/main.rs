//! @ROLE@: answers its payload with the letters a to z in capitals. Put your work in handle().

use std::process::ExitCode;

use ringbridge_worker::{Answer, Error, Job, Worker};

const LOOK_EVERY_BYTES: usize = 65536;

fn handle(job: &Job) -> Result<Answer, Error> {
    let text = job.payload(); // where it lies: no copy
    let mut room = job.reserve(text.len())?; // in memory that the bridge reads
    for (to, from) in room.chunks_mut(LOOK_EVERY_BYTES).zip(text.chunks(LOOK_EVERY_BYTES)) {
        // Nobody waits any more: the caller gave up or died, or its deadline has passed.
        job.check()?;
        to.copy_from_slice(from);
        to.make_ascii_uppercase();
    }
    Ok(room.raw())
}

fn main() -> ExitCode {
    // What has to be loaded or opened is done here, before the worker says that it is ready.
    Worker::new().serve(handle)
}
