//! What a worker keeps beyond its life: checkpoints that the bridge asks it for, states that it is
//! given (docs/channel.md).
//!
//! Saved and restored by the handler's thread between two jobs, so a state is never that of half a
//! job. A worker that has no state, and has not asked for one, does not listen, and none of this
//! runs.
//!
//! Death: killed while it saves, the checkpoint before stands; killed while it restores, the next
//! life is given the same again.

use crate::channel::Kind;
use crate::chaos;
use crate::job::Job;
use crate::kit::Kit;
use crate::layout::*;
use crate::packet::{u64_of, Incoming};
use crate::peer_serve;
use crate::socket::head;
use crate::sys::POLLIN;
use crate::Error;

/// State that outlives the process, for roles with `[roles.NAME.checkpoint]`.
pub trait State {
    /// The whole, or, where an increment is asked for, what is new since the last time; None: there
    /// is nothing to save.
    fn save(&mut self, wanted: Kind) -> Option<(Kind, Vec<u8>)>;

    /// Takes one part of a state, the whole first and increments behind it; before the hello the
    /// latest that there is. A worker that begins and cannot take its state ends (65).
    ///
    /// # Errors
    /// Why it cannot.
    fn restore(&mut self, kind: Kind, state: &[u8]) -> Result<(), String>;
}

/// Asks for the latest state and has it restored, before the hello. Also Ok where there is none to
/// be had.
pub fn load(kit: &Kit, state: &mut dyn State) -> Result<(), String> {
    match kit.load_checkpoint(None) {
        Ok(parts) => take(state, &parts),
        // There is no channel, its other end is closed, or the role keeps none: then it begins
        // without.
        Err(Error::Closed | Error::Refused { code: CHANNEL_ERROR_UNAVAILABLE, .. }) => Ok(()),
        Err(other) => Err(other.to_string()),
    }
}

fn take(state: &mut dyn State, parts: &[(Kind, Vec<u8>)]) -> Result<(), String> {
    parts.iter().try_for_each(|(kind, bytes)| state.restore(*kind, bytes))
}

/// Between two jobs: takes what has come.
pub fn look(kit: &Kit, mut state: Option<&mut (dyn State + '_)>) {
    if !kit.listens.get() {
        return;
    }
    loop {
        let handled = match kit.next_packet() {
            Ok(Some(packet)) => handle(kit, packet, state.as_deref_mut()),
            Ok(None) => return,
            Err(error) => Err(error),
        };
        if handled.is_err() {
            // The other end is gone, or we are told to stop: nothing more is to be heard.
            kit.listens.set(false);
            kit.links.forget_channel();
            kit.held.set(false);
            kit.coming.set(false);
            return;
        }
    }
}

/// When the last job is done: saves if that was asked for.
pub fn leave(kit: &Kit, mut state: Option<&mut (dyn State + '_)>) {
    look(kit, state.as_deref_mut());
    if let Some((id, wanted)) = kit.save_when_leaving.take() {
        let _ = save(kit, id, wanted, state); // there is nobody left to tell
    }
}

impl Job {
    /// For a job that needs the state which `{:move_state, ..., :post_copy}` has promised: waits
    /// for it, and has it restored into the state that the handler was lent. At once when none
    /// is promised.
    ///
    /// # Errors
    /// [`Error::Cancelled`].
    pub fn await_state(&self, state: &mut dyn State) -> Result<(), Error> {
        let kit = self.kit;
        while kit.listens.get() {
            if let Some(packet) = kit.take_put_by(PACKET_RESTORE) {
                handle(kit, packet, Some(state))?;
                continue;
            }
            if !kit.coming.get() {
                break;
            }
            match kit.receive() {
                Ok(Some(packet)) => kit.put_by(packet),
                Ok(None) => kit.wait_for_channel(Some(self), POLLIN, None)?,
                Err(_) => break, // none comes any more
            }
        }
        Ok(())
    }
}

fn handle(kit: &Kit, packet: Incoming, state: Option<&mut (dyn State + '_)>) -> Result<(), Error> {
    match packet.head.kind {
        PACKET_REPLY => {
            kit.drop_reply(packet);
            Ok(())
        }
        PACKET_PEER_OFFER => {
            peer_serve::take_offer(kit, packet);
            Ok(())
        }
        PACKET_CHECKPOINT_NOW => {
            if packet.body.len() != 16 {
                kit.broken_channel("a request to save of another size");
            }
            let wanted = Kind::of(u64_of(&packet.body))
                .unwrap_or_else(|| kit.broken_channel("a checkpoint of no kind"));
            if u64_of(&packet.body[8..]) == SAVE_LEAVING {
                kit.save_when_leaving.set(Some((packet.head.id, wanted)));
                return Ok(());
            }
            save(kit, packet.head.id, wanted, state)
        }
        PACKET_RESTORE => restore(kit, &packet, state),
        PACKET_CHAOS => chaos::take(kit, &packet),
        _ => kit.refuse(&packet.head, "this kit does not know it"),
    }
}

fn save(
    kit: &Kit,
    id: u64,
    wanted: Kind,
    state: Option<&mut (dyn State + '_)>,
) -> Result<(), Error> {
    let packet = head(PACKET_CHECKPOINT_SAVE, id, 0);
    match state.and_then(|state| state.save(wanted)) {
        Some((Kind::Incremental, _)) if wanted == Kind::Full => {
            kit.refuse(&packet, "the worker saved an increment where the whole was asked for")
        }
        Some((kind, bytes)) => {
            kit.send_packet(None, packet, &[&kind.code().to_le_bytes(), &bytes], None)
        }
        None => kit.refuse(&packet, "the worker has nothing to save"),
    }
}

fn restore(
    kit: &Kit,
    packet: &Incoming,
    state: Option<&mut (dyn State + '_)>,
) -> Result<(), Error> {
    if packet.body.len() < 8 {
        kit.broken_channel("a restore without its word");
    }
    match u64_of(&packet.body) {
        RESTORE_STATE => {
            kit.held.set(false);
            kit.coming.set(false);
            let parts = kit.parts_of(&packet.body[8..]);
            let taken = match state {
                Some(state) => take(state, &parts),
                None => Err("it keeps no state".into()),
            };
            match taken {
                Ok(()) if packet.head.id == 0 => Ok(()),
                Ok(()) => kit.send_packet(None, head(PACKET_REPLY, packet.head.id, 0), &[], None),
                Err(why) => kit.refuse(&packet.head, &why),
            }
        }
        RESTORE_HOLD => {
            kit.held.set(true);
            Ok(())
        }
        RESTORE_COMING => {
            kit.coming.set(true);
            Ok(())
        }
        RESTORE_ABANDONED => {
            kit.held.set(false);
            kit.coming.set(false);
            Ok(())
        }
        _ => kit.refuse(&packet.head, "no such way to restore"),
    }
}
