//! One packet out, one packet in, and the wait for either (docs/channel.md, "The socket").
//!
//! Never blocks in the kernel: every call is told not to wait, and every wait is a poll that a
//! cancel, the gate or a deadline ends. A packet is one sendmsg, so it is there as a whole or not
//! at all, and threads may send at the same time.

use core::cell::{Cell, RefCell};
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::collections::VecDeque;
use std::io;
use std::os::raw::c_int;
use std::os::unix::io::{FromRawFd, OwnedFd};

use crate::job::Job;
use crate::kit::Kit;
use crate::layout::*;
use crate::peer_serve;
use crate::socket::{self, head, head_of, Arrived, Sent, Unsent, HEAD_BYTES};
use crate::sys;
use crate::Error;

const DESCRIPTORS_MAX: usize = 8; // that may come with one packet
const PUT_BY_MAX: usize = 8;
/// Between two looks of a job that another worker asked for.
const PEER_SLICE_NS: u64 = 5_000_000;

/// The end that says things; any thread.
#[derive(Debug)]
pub struct Outlet {
    fd: Option<c_int>,
    closed: AtomicBool, // relaxed: who does not see it yet finds the same
    pub lines_missed: AtomicU32,
}

/// The end that hears; the handler's thread.
#[derive(Debug, Default)]
pub struct Inlet {
    last_id: Cell<u64>,
    put_by: RefCell<VecDeque<Incoming>>, // what came while a reply was waited for
    pub closed_links: RefCell<Vec<u64>>, // given back, which the bridge has not been told yet
    room: RefCell<Vec<u8>>,
}

/// A packet that came.
#[derive(Debug)]
pub struct Incoming {
    pub head: Packet,
    pub body: Vec<u8>,
    pub fd: Option<OwnedFd>, // one end of a link to another worker
}

/// Why a packet did not leave, where that is neither for want of room nor of a channel.
pub fn no_body(why: &io::Error) -> Error {
    Error::failed(crate::error::CODE_REFUSED, format!("a packet could not be sent: {why}"))
}

impl Outlet {
    pub fn new(fd: Option<c_int>) -> Outlet {
        Outlet { fd, closed: AtomicBool::new(false), lines_missed: AtomicU32::new(0) }
    }

    pub fn fd(&self) -> Result<c_int, Error> {
        self.fd.filter(|_| !self.closed.load(Relaxed)).ok_or(Error::Closed)
    }

    fn close(&self) -> Error {
        self.closed.store(true, Relaxed);
        Error::Closed
    }

    /// A packet whose body is the parts, one behind the other; by memfd when it is too large.
    pub fn send_now(&self, head: Packet, parts: &[&[u8]]) -> Result<Sent, Error> {
        socket::send(self.fd()?, head, parts).map_err(|unsent| match unsent {
            Unsent::Closed => self.close(),
            Unsent::System(why) => no_body(&why),
        })
    }
}

/// What ends a wait: a job's cancel, or without a job the word that the worker is to stop.
fn gave_up(kit: &Kit, job: Option<&Job>) -> bool {
    job.map_or_else(|| kit.control() == CONTROL_STOP, Job::is_cancelled)
}

impl Kit {
    /// Until the channel has one of `events`. Err: cancelled, or [`Error::Timeout`] at `until`.
    pub fn wait_for_channel(
        &self,
        job: Option<&Job>,
        events: i16,
        until: Option<u64>,
    ) -> Result<(), Error> {
        self.wait_for_fd(self.outlet.fd()?, job, events, until)
    }

    /// Until a descriptor has one of `events`, or it is worth to look again. Errors: as above.
    pub fn wait_for_fd(
        &self,
        fd: c_int,
        job: Option<&Job>,
        events: i16,
        until: Option<u64>,
    ) -> Result<(), Error> {
        // A cancel rings the gate; the job's deadline does not, nor a worker that takes its request
        // back.
        let look = job.filter(|job| job.is_of_peer()).map(|_| sys::now_ns() + PEER_SLICE_NS);
        let deadline = [until, job.and_then(Job::deadline_ns), look].into_iter().flatten().min();
        let found = self.waiter.borrow_mut().wait_or(fd, events, || gave_up(self, job), deadline);
        if gave_up(self, job) {
            return Err(Error::Cancelled);
        }
        if !found && until.map_or(false, |until| sys::now_ns() >= until) {
            return Err(Error::Timeout);
        }
        Ok(())
    }

    /// What an idle worker listens to beside its gate: the channel, and links to other workers.
    pub fn heard_fd(&self) -> Option<c_int> {
        let channel = || self.outlet.fd().ok().filter(|_| self.listens.get());
        self.links.poller_of_some().or_else(channel)
    }

    /// Waits at the gate and for a descriptor: true when one of them has something.
    pub fn wait_or_fd(
        &self,
        fd: c_int,
        ready: impl FnMut() -> bool,
        timeout_ns: Option<u64>,
    ) -> bool {
        let deadline = timeout_ns.map(|ns| sys::now_ns() + ns);
        self.waiter.borrow_mut().wait_or(fd, sys::POLLIN, ready, deadline)
    }

    /// Sends as soon as there is room.
    pub fn send_packet(
        &self,
        job: Option<&Job>,
        head: Packet,
        parts: &[&[u8]],
        until: Option<u64>,
    ) -> Result<(), Error> {
        while self.outlet.send_now(head, parts)? == Sent::NoRoom {
            self.wait_for_channel(job, sys::POLLOUT, until)?;
        }
        Ok(())
    }

    pub fn next_id(&self) -> u64 {
        self.inlet.last_id.set(self.inlet.last_id.get() + 1);
        self.inlet.last_id.get()
    }

    /// The reply to `id`: its body, or [`Error::Refused`].
    pub fn await_reply(
        &self,
        job: Option<&Job>,
        id: u64,
        until: Option<u64>,
    ) -> Result<Vec<u8>, Error> {
        self.await_packet(job, id, until)?.into_body()
    }

    /// The reply to `id`. What else comes is put by.
    pub fn await_packet(
        &self,
        job: Option<&Job>,
        id: u64,
        until: Option<u64>,
    ) -> Result<Incoming, Error> {
        loop {
            match self.receive()? {
                Some(reply) if reply.head.kind == PACKET_REPLY && reply.head.id == id => {
                    return Ok(reply)
                }
                Some(other) => self.put_by(other),
                None => self.wait_for_channel(job, sys::POLLIN, until)?,
            }
        }
    }

    /// A reply that nobody waits for any more. A link that it grants is given back.
    pub fn drop_reply(&self, reply: Incoming) {
        if reply.fd.is_some() && reply.body.len() == 8 {
            self.give_back_link(u64_of(&reply.body));
        }
    }

    /// The first of its kind that was put by.
    pub fn take_put_by(&self, kind: u16) -> Option<Incoming> {
        let mut put_by = self.inlet.put_by.borrow_mut();
        let at = put_by.iter().position(|packet| packet.head.kind == kind)?;
        put_by.remove(at)
    }

    pub fn put_by(&self, packet: Incoming) {
        match packet.head.kind {
            PACKET_REPLY => return self.drop_reply(packet),
            // However many come in a job: it costs a descriptor.
            PACKET_PEER_OFFER => return peer_serve::take_offer(self, packet),
            _ => {}
        }
        let mut put_by = self.inlet.put_by.borrow_mut();
        if put_by.len() == PUT_BY_MAX {
            self.broken_channel("more is asked of a worker in the midst of a job than may be open");
        }
        put_by.push_back(packet);
    }

    /// What has been put by, then what is there.
    pub fn next_packet(&self) -> Result<Option<Incoming>, Error> {
        match self.inlet.put_by.borrow_mut().pop_front() {
            Some(packet) => Ok(Some(packet)),
            None => self.receive(),
        }
    }

    /// Answers a packet of the bridge's that we cannot serve; nothing where it wants no answer.
    pub fn refuse(&self, packet: &Packet, why: &str) -> Result<(), Error> {
        self.refuse_as(packet, CHANNEL_ERROR_UNAVAILABLE, "unavailable", why)
    }

    /// The same of a packet that is not what its kind says.
    pub fn refuse_request(&self, packet: &Packet, why: &str) -> Result<(), Error> {
        self.refuse_as(packet, CHANNEL_ERROR_BAD_REQUEST, "bad_request", why)
    }

    /// `{Reason, Why}`
    fn refuse_as(&self, packet: &Packet, code: u64, name: &str, why: &str) -> Result<(), Error> {
        if packet.id == 0 {
            return Ok(());
        }
        let mut reply = head(PACKET_REPLY, packet.id, 0);
        reply.flags = PACKET_FLAG_ERROR;
        let why = &why.as_bytes()[..why.len().min(200)];
        let mut reason = vec![104, 2, 119, name.len() as u8];
        reason.extend_from_slice(name.as_bytes());
        reason.extend_from_slice(&[109, 0, 0, 0, why.len() as u8]);
        self.send_packet(None, reply, &[&code.to_le_bytes(), &reason, why], None)
    }

    #[cold]
    pub fn broken_channel(&self, rule: &str) -> ! {
        self.broken_on("channel", format_args!("{rule}"))
    }

    /// The next packet that is there. The bridge is ours: what breaks a rule of the channel ends
    /// the worker, as on the link.
    pub fn receive(&self) -> Result<Option<Incoming>, Error> {
        let fd = self.outlet.fd()?;
        let mut room = self.inlet.room.borrow_mut();
        room.resize(PACKET_BYTES_MAX, 0);
        let arrived = match socket::receive::<DESCRIPTORS_MAX>(fd, &mut room) {
            Ok(None) => return Ok(None),
            Ok(Some(arrived)) if arrived.size > 0 => arrived,
            Ok(Some(_)) | Err(()) => return Err(self.outlet.close()),
        };
        let Arrived { size, cut, fds } = arrived;
        // SAFETY: the kernel has just made them for us. The bridge's, they may be closed at once.
        let came = fds.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) });
        let mut came: Vec<OwnedFd> = came.collect();
        if size < HEAD_BYTES || cut {
            self.broken_channel("a packet is too short or too long");
        }
        let head = head_of(&room);
        if head.flags & PACKET_FLAG_MEMFD == 0 {
            if head.bytes != (size - HEAD_BYTES) as u64 {
                self.broken_channel("a body is not as long as its head says");
            }
            let takes_one = matches!(head.kind, PACKET_REPLY | PACKET_PEER_OFFER);
            let fd = came.pop().filter(|_| takes_one && came.is_empty());
            return Ok(Some(Incoming { head, body: room[HEAD_BYTES..size].to_vec(), fd }));
        }
        let memfd = came.pop().filter(|_| came.is_empty() && size == HEAD_BYTES && head.bytes > 0);
        let body = memfd.and_then(|memfd| socket::read_sealed(memfd, head.bytes));
        let wrong = || self.broken_channel("a body is not in one sealed memfd of its size");
        Ok(Some(Incoming { head, body: body.unwrap_or_else(wrong), fd: None }))
    }
}

impl Incoming {
    /// Of a reply; Err: it is an error.
    pub fn into_body(mut self) -> Result<Vec<u8>, Error> {
        if self.head.flags & PACKET_FLAG_ERROR == 0 {
            return Ok(self.body);
        }
        let code = self.body.get(..8).map_or(0, u64_of);
        let reason = self.body.split_off(self.body.len().min(8));
        Err(Error::Refused { code, reason })
    }
}

/// The first eight bytes.
pub fn u64_of(bytes: &[u8]) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[..8]);
    u64::from_le_bytes(word)
}
