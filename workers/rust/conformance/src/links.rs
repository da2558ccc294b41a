//! Other workers, asked over links.

use std::time::Duration;

use ringbridge_worker::{Error, Job, Payload, Peer};

use crate::payload::Fields;
use crate::{bad_payload, refused, Handled, Memory};

/// In this worker's life.
const LINKS_MAX: usize = 16;

pub fn peer_open(memory: &mut Memory, job: &Job, payload: Fields) -> Handled {
    let links = &mut memory.links;
    if links.len() == LINKS_MAX {
        return Err(bad_payload(format!("more than {LINKS_MAX} links")));
    }
    let role = std::str::from_utf8(payload.rest()).map_err(|why| bad_payload(why.to_string()))?;
    links.push(Some(job.open_peer(role).map_err(refused)?));
    job.answer(&(links.len() as u32 - 1).to_le_bytes())
}

/// The link that a payload names.
fn named<'m>(memory: &'m mut Memory, payload: &mut Fields) -> Result<&'m mut Option<Peer>, Error> {
    let link = payload.u32()?;
    let place = memory.links.get_mut(link as usize).filter(|place| place.is_some());
    place.ok_or_else(|| bad_payload(format!("no link {link} is open")))
}

pub fn peer_call(memory: &mut Memory, job: &Job, mut payload: Fields) -> Handled {
    let place = named(memory, &mut payload)?;
    let (timeout_ms, opcode, as_term) = (payload.u32()?, payload.u16()?, payload.u8()? != 0);
    let request = payload.rest();
    let request = if as_term { Payload::Term(request) } else { Payload::Raw(request) };
    let timeout = Duration::from_millis(timeout_ms.into());
    let peer = place.as_mut().ok_or(Error::Disconnected)?;
    let tell = |how: u8, is_term: bool, code: u16, bytes: &[u8]| {
        let mut room = job.reserve(4 + bytes.len())?;
        room[0] = how;
        room[1] = is_term.into();
        room[2..4].copy_from_slice(&code.to_le_bytes());
        room[4..].copy_from_slice(bytes);
        Ok(room.raw())
    };
    match peer.call(job, opcode, request, timeout) {
        Ok(answer) => tell(0, matches!(answer, Payload::Term(_)), 0, answer.bytes()),
        Err(Error::PeerFailed { code, message }) => tell(1, false, code, message.as_bytes()),
        Err(Error::PeerGaveUp) => tell(2, false, 0, &[]),
        Err(Error::Disconnected) => tell(3, false, 0, &[]),
        Err(Error::Protocol) => tell(4, false, 0, &[]),
        Err(Error::Timeout) => tell(5, false, 0, &[]),
        Err(other) => Err(refused(other)),
    }
}

pub fn peer_close(memory: &mut Memory, job: &Job, mut payload: Fields) -> Handled {
    if let Some(peer) = named(memory, &mut payload)?.take() {
        peer.close(job).map_err(refused)?;
    }
    job.answer(&[])
}
