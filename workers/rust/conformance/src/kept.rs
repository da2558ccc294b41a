//! The state that the role `conformance-state` keeps, and its opcode.

use ringbridge_worker::{Error, Job, Kind, State};

use crate::payload::Fields;
use crate::{bad_payload, Handled, Memory};

/// A part that begins with it is not taken.
const NOT_TAKEN: u8 = 255;

#[derive(Debug, Default)]
pub struct Kept {
    bytes: Vec<u8>,
    /// The bridge has these, from the front on. None: they were replaced since, or never saved nor
    /// restored at all, and no increment can tell them.
    saved: Option<usize>,
}

impl Kept {
    fn replace(&mut self, bytes: &[u8]) {
        self.bytes = bytes.to_vec();
        self.saved = None;
    }
}

impl State for Kept {
    fn save(&mut self, wanted: Kind) -> Option<(Kind, Vec<u8>)> {
        let part = match (wanted, self.saved) {
            _ if self.bytes.is_empty() => return None,
            (Kind::Incremental, Some(from)) => (Kind::Incremental, self.bytes[from..].to_vec()),
            _ => (Kind::Full, self.bytes.clone()),
        };
        self.saved = Some(self.bytes.len());
        Some(part)
    }

    fn restore(&mut self, kind: Kind, state: &[u8]) -> Result<(), String> {
        if state.first() == Some(&NOT_TAKEN) {
            return Err(format!("a state that begins with {NOT_TAKEN}"));
        }
        if kind == Kind::Full {
            self.bytes.clear();
        }
        self.bytes.extend_from_slice(state);
        self.saved = Some(self.bytes.len());
        Ok(())
    }
}

pub fn state(memory: &mut Memory, job: &Job, mut payload: Fields) -> Handled {
    let kept = &mut memory.kept;
    match payload.u8()? {
        0 => kept.replace(payload.rest()),
        1 => kept.bytes.extend_from_slice(payload.rest()),
        2 => return job.answer(&kept.bytes),
        3 => {
            job.await_state(kept)?;
            return job.answer(&kept.bytes);
        }
        what => return Err::<_, Error>(bad_payload(format!("no state is {what}"))),
    }
    job.answer(&[])
}
