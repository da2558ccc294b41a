//! The asking end of a link to another worker (docs/links.md).
//!
//! The bridge grants the link and hands over one end of a socket; from there on it has no part in
//! what is asked. It ends a link by shutting the socket down, which neither end can prevent.
//!
//! Death: the peer's ends the link; ours ends what the peer does for us.

use core::time::Duration;
use std::os::unix::io::OwnedFd;

use crate::job::Job;
use crate::kit::Kit;
use crate::layout::*;
use crate::packet::u64_of;
use crate::peer_wire::{Fault, Inbox, Socket, PEER_BYTES_MAX};
use crate::socket::{head, Sent, Unsent};
use crate::sys::{self, now_ns};
use crate::{term, Error};

const DAY: Duration = Duration::from_secs(86_400);

/// The bytes of a request, or of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Payload<'a> {
    Raw(&'a [u8]),
    /// External term bytes without the leading 131: of an answer, well-formed.
    Term(&'a [u8]),
}

impl<'a> Payload<'a> {
    pub fn bytes(self) -> &'a [u8] {
        match self {
            Payload::Raw(bytes) | Payload::Term(bytes) => bytes,
        }
    }

    fn flags(self) -> u16 {
        match self {
            Payload::Raw(_) => 0,
            Payload::Term(_) => FLAG_TERM,
        }
    }
}

/// A link to one worker of another role ([`Job::open_peer`]), to be kept for later jobs. Given back
/// when it is dropped.
#[derive(Debug)]
pub struct Peer {
    kit: &'static Kit,
    socket: Option<Socket>, // None: the link is over
    link: u64,
    given_back: bool,
    last_id: u64,
    /// Of the last answer: those to requests that were taken back come once, in order.
    heard_id: u64,
    inbox: Inbox,
}

impl Job {
    /// Asks the bridge for a link to a worker of `role`, as `[roles.NAME.peers] allow` has it.
    ///
    /// # Errors
    /// [`Error::Refused`]: `refused` (not allowed, or it would close a ring of workers that wait
    /// for each other), `noproc` (no worker of that role serves others), `busy` (too many links, or
    /// more than 50 requests a second); [`Error::Closed`], [`Error::Cancelled`].
    pub fn open_peer(&self, role: &str) -> Result<Peer, Error> {
        let kit = self.kit;
        if role.is_empty() {
            // To the bridge it would say that this worker serves others.
            return Err(Error::Refused { code: CHANNEL_ERROR_BAD_REQUEST, reason: Vec::new() });
        }
        kit.tell_closed_links();
        let id = kit.next_id();
        let packet = head(PACKET_PEER_OPEN, id, self.id());
        kit.send_packet(Some(self), packet, &[role.as_bytes()], None)?;
        let mut reply = kit.await_packet(Some(self), id, None)?;
        let fd = reply.fd.take();
        let body = reply.into_body()?;
        match (fd, body.len()) {
            (Some(fd), 8) => Ok(Peer::new(kit, fd, u64_of(&body))),
            _ => kit.broken_channel("a link was granted without its number or its socket"),
        }
    }
}

impl Peer {
    fn new(kit: &'static Kit, fd: OwnedFd, link: u64) -> Peer {
        let socket = Some(Socket::new(fd));
        Peer {
            kit,
            socket,
            link,
            given_back: false,
            last_id: 0,
            heard_id: 0,
            inbox: Inbox::default(),
        }
    }

    /// Has the peer do a job, and waits for its answer, for at most `timeout` (a day) and the job's
    /// own deadline. The peer is told the deadline and the trace, and to stop where the wait ends
    /// without an answer. The answer is valid until the next call.
    ///
    /// # Errors
    /// [`Error::PeerFailed`]: its handler failed the request; [`Error::PeerGaveUp`];
    /// [`Error::Timeout`], [`Error::Cancelled`]; [`Error::TooLarge`]: more than 64 MiB;
    /// [`Error::NotATerm`]. And two after which the link is over, so that another has to be opened:
    /// [`Error::Disconnected`], as the peer has ended or the link was revoked; [`Error::Protocol`].
    pub fn call(
        &mut self,
        job: &Job,
        opcode: u16,
        payload: Payload<'_>,
        timeout: Duration,
    ) -> Result<Payload<'_>, Error> {
        let bytes = payload.bytes();
        if self.socket.is_none() {
            return Err(Error::Disconnected);
        }
        if bytes.len() > PEER_BYTES_MAX {
            return Err(Error::TooLarge { bytes: bytes.len(), limit: PEER_BYTES_MAX });
        }
        if matches!(payload, Payload::Term(term) if !term::is_one(term)) {
            return Err(Error::NotATerm);
        }
        let until = now_ns() + timeout.min(DAY).as_nanos() as u64;
        let until = until.min(job.deadline_ns().unwrap_or(u64::MAX));
        let envelope = Request {
            job: job.id(),
            crc: 0,
            opcode,
            flags: payload.flags(),
            deadline_ns: until,
            payload_at: 0,
            payload_bytes: bytes.len() as u32,
            reserved: 0,
            body: [0; INLINE_BYTES_MAX],
            ..job.request // its trace and priority
        };
        self.kit.publish(); // answers that short jobs hold back do not wait for a peer
        self.last_id += 1;
        let completion = self.exchange(job, envelope, bytes, until).map_err(|error| {
            if matches!(error, Error::Disconnected | Error::Protocol) {
                self.socket = None;
            }
            error
        })?;
        let answer = self.inbox.payload();
        match completion.status {
            STATUS_OK if completion.flags & FLAG_TERM != 0 => Ok(Payload::Term(answer)),
            STATUS_OK => Ok(Payload::Raw(answer)),
            STATUS_FAILED => Err(Error::PeerFailed {
                code: completion.code,
                message: String::from_utf8_lossy(answer).into_owned(),
            }),
            // It is told the deadline, and may give up a moment before we do: the time is over then,
            // whoever sees it first.
            _ if job.is_cancelled() => Err(Error::Cancelled),
            _ if now_ns() >= until => Err(Error::Timeout),
            _ => Err(Error::PeerGaveUp),
        }
    }

    /// Is it still to be called? False once a call has ended with [`Error::Disconnected`] or
    /// [`Error::Protocol`].
    pub fn is_open(&self) -> bool {
        self.socket.is_some()
    }

    /// Gives the link back and waits until the bridge has it, as dropping it does not.
    ///
    /// # Errors
    /// [`Error::Closed`], [`Error::Cancelled`]: it is given back all the same.
    pub fn close(mut self, job: &Job) -> Result<(), Error> {
        self.socket = None;
        self.given_back = true;
        let id = self.kit.next_id();
        let packet = head(PACKET_PEER_CLOSE, id, job.id());
        let link = self.link.to_le_bytes();
        self.kit.send_packet(Some(job), packet, &[&link], None)?;
        self.kit.await_reply(Some(job), id, None).map(|_| ())
    }

    /// Sends the request, waits for its answer, which then lies in the inbox.
    fn exchange(
        &mut self,
        job: &Job,
        envelope: Request,
        bytes: &[u8],
        until: u64,
    ) -> Result<Completion, Error> {
        let (kit, id) = (self.kit, self.last_id);
        let socket = self.socket.as_ref().ok_or(Error::Disconnected)?;
        loop {
            match socket.send_request(id, envelope, bytes) {
                Ok(Sent::Whole) => break,
                Ok(Sent::NoRoom) => {
                    kit.wait_for_fd(socket.fd(), Some(job), sys::POLLOUT, Some(until))?;
                }
                Err(Unsent::Closed) => return Err(Error::Disconnected),
                Err(Unsent::System(why)) => return Err(crate::packet::no_body(&why)),
            }
        }
        let heard = &mut self.heard_id;
        let answer = await_answer(kit, socket, &mut self.inbox, job, (id, heard), until);
        if matches!(answer, Err(Error::Timeout | Error::Cancelled)) {
            // A link whose socket has no room for that is of no more use.
            if !matches!(socket.send_forget(id, job.id()), Ok(Sent::Whole)) {
                self.socket = None;
            }
        }
        answer
    }
}

/// The answer to request `id`; those to requests that were taken back are dropped. A peer that sends
/// many of them does not hold up whoever's time is over.
fn await_answer(
    kit: &Kit,
    socket: &Socket,
    inbox: &mut Inbox,
    job: &Job,
    (id, heard): (u64, &mut u64),
    until: u64,
) -> Result<Completion, Error> {
    loop {
        match inbox.receive(socket) {
            Ok(Some(head)) => {
                let completion = sound_answer(&head, inbox).ok_or(Error::Protocol)?;
                if head.id <= *heard || head.id > id {
                    return Err(Error::Protocol);
                }
                *heard = head.id;
                if head.id == id {
                    return Ok(completion);
                }
                if sys::now_ns() >= until {
                    return Err(Error::Timeout);
                }
            }
            Ok(None) => {}
            Err(Fault::Over) => return Err(Error::Disconnected),
            Err(Fault::Broke(_)) => return Err(Error::Protocol),
        }
        kit.wait_for_fd(socket.fd(), Some(job), sys::POLLIN, Some(until))?;
    }
}

/// The envelope of an answer that keeps the rules.
fn sound_answer(head: &Packet, inbox: &Inbox) -> Option<Completion> {
    if head.kind != PACKET_REPLY {
        return None;
    }
    let (c, payload) = (inbox.completion(), inbox.payload());
    let sound = c.payload_bytes as usize == payload.len()
        && c.flags & !FLAG_TERM == 0
        && matches!(c.status, STATUS_OK | STATUS_FAILED | STATUS_CANCELLED)
        && (c.flags & FLAG_TERM == 0 || term::is_one(payload));
    sound.then_some(c)
}

impl Kit {
    /// Gives a link back without waiting. What finds no room is told before the next one is opened.
    pub(crate) fn give_back_link(&self, link: u64) {
        let packet = head(PACKET_PEER_CLOSE, self.next_id(), 0);
        if let Ok(Sent::NoRoom) = self.outlet.send_now(packet, &[&link.to_le_bytes()]) {
            self.inlet.closed_links.borrow_mut().push(link);
        }
    }

    fn tell_closed_links(&self) {
        for link in self.inlet.closed_links.take() {
            self.give_back_link(link);
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // Only the bridge can tell the peer, as it holds the socket too.
        if !self.given_back {
            self.kit.give_back_link(self.link);
        }
    }
}
