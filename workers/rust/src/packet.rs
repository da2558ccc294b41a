//! One packet out, one packet in, and the wait for either (docs/channel.md, "The socket").
//!
//! Never blocks in the kernel: every call is told not to wait, and every wait is a poll that a
//! cancel, the gate or a deadline ends. A packet is one sendmsg, so it is there as a whole or not
//! at all, and threads may send at the same time.

use core::cell::{Cell, RefCell};
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::raw::c_int;
use std::os::unix::fs::FileExt;
use std::os::unix::io::{AsRawFd, FromRawFd, OwnedFd};

use crate::job::Job;
use crate::kit::Kit;
use crate::layout::*;
use crate::memory::size_of_file;
use crate::sys;
use crate::Error;

const HEAD_BYTES: usize = core::mem::size_of::<Packet>();
const BODY_BYTES_MAX: usize = PACKET_BYTES_MAX - HEAD_BYTES;
const DESCRIPTORS_MAX: usize = 8; // that may come with one packet
const PUT_BY_MAX: usize = 8;
const SEALS: c_int = sys::F_SEAL_SHRINK | sys::F_SEAL_GROW | sys::F_SEAL_WRITE | sys::F_SEAL_SEAL;

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
    room: RefCell<Vec<u8>>,
}

/// A packet that came.
#[derive(Debug)]
pub struct Incoming {
    pub head: Packet,
    pub body: Vec<u8>,
}

/// What a send that does not wait has come to.
#[derive(Debug, PartialEq, Eq)]
pub enum Sent {
    Whole,
    NoRoom,
}

pub fn head(kind: u16, id: u64, job: u64) -> Packet {
    Packet { kind, flags: 0, reserved: 0, id, job, bytes: 0 }
}

impl Outlet {
    pub fn new(fd: Option<c_int>) -> Outlet {
        Outlet { fd, closed: AtomicBool::new(false), lines_missed: AtomicU32::new(0) }
    }

    pub fn is_open(&self) -> bool {
        self.fd().is_ok()
    }

    fn fd(&self) -> Result<c_int, Error> {
        self.fd.filter(|_| !self.closed.load(Relaxed)).ok_or(Error::Closed)
    }

    fn close(&self) -> Error {
        self.closed.store(true, Relaxed);
        Error::Closed
    }

    /// A packet whose body is the parts, one behind the other; by memfd when it is too large.
    pub fn send_now(&self, mut head: Packet, parts: &[&[u8]]) -> Result<Sent, Error> {
        let fd = self.fd()?;
        let size = parts.iter().map(|part| part.len()).sum::<usize>();
        head.bytes = size as u64;
        if size > BODY_BYTES_MAX {
            return self.send_by_memfd(fd, head, parts);
        }
        // SAFETY: a record of integers without padding.
        let bytes = unsafe { core::mem::transmute::<Packet, [u8; HEAD_BYTES]>(head) };
        let iov: Vec<sys::iovec> = [&bytes[..]].iter().chain(parts).map(|p| of(p)).collect();
        self.send_message(fd, &iov, None)
    }

    fn send_by_memfd(&self, fd: c_int, mut head: Packet, parts: &[&[u8]]) -> Result<Sent, Error> {
        let failed =
            |e: io::Error| Error::failed(crate::error::CODE_REFUSED, format!("memfd: {e}"));
        // SAFETY: a name that ends with NUL; the descriptor is new, and ours to close.
        let memfd = unsafe {
            let flags = sys::MFD_CLOEXEC | sys::MFD_ALLOW_SEALING;
            let fd = sys::memfd_create(b"ringbridge body\0".as_ptr().cast(), flags);
            File::from(OwnedFd::from_raw_fd(sys::check(fd).map_err(failed)?))
        };
        let mut at = 0;
        for part in parts {
            memfd.write_all_at(part, at).map_err(failed)?;
            at += part.len() as u64;
        }
        // SAFETY: no memory is touched.
        sys::check(unsafe { sys::fcntl(memfd.as_raw_fd(), sys::F_ADD_SEALS, SEALS) })
            .map_err(failed)?;
        head.flags |= PACKET_FLAG_MEMFD;
        // SAFETY: a record of integers without padding.
        let bytes = unsafe { core::mem::transmute::<Packet, [u8; HEAD_BYTES]>(head) };
        self.send_message(fd, &[of(&bytes)], Some(memfd.as_raw_fd()))
    }

    fn send_message(
        &self,
        fd: c_int,
        iov: &[sys::iovec],
        with: Option<c_int>,
    ) -> Result<Sent, Error> {
        let mut rights = sys::rights {
            cmsg_len: sys::CMSG_HEAD_BYTES + core::mem::size_of::<c_int>(),
            cmsg_level: sys::SOL_SOCKET,
            cmsg_type: sys::SCM_RIGHTS,
            fds: [with.unwrap_or(-1), 0], // room for one, padded to eight bytes
        };
        let control: *mut _ = &mut rights;
        let message = sys::msghdr {
            msg_name: core::ptr::null_mut(),
            msg_namelen: 0,
            msg_iov: iov.as_ptr() as *mut sys::iovec,
            msg_iovlen: iov.len(),
            msg_control: if with.is_some() { control.cast() } else { core::ptr::null_mut() },
            msg_controllen: if with.is_some() { core::mem::size_of_val(&rights) } else { 0 },
            msg_flags: 0,
        };
        loop {
            // SAFETY: the message's parts outlive the call, which only reads them.
            let sent = unsafe { sys::sendmsg(fd, &message, sys::MSG_DONTWAIT | sys::MSG_NOSIGNAL) };
            if sent >= 0 {
                return Ok(Sent::Whole);
            }
            match sys::errno() {
                sys::EINTR => {}
                // Too many descriptors under way count as full.
                sys::EAGAIN | sys::ENOBUFS | sys::ETOOMANYREFS => return Ok(Sent::NoRoom),
                sys::EPIPE | sys::ECONNRESET | sys::ENOTCONN => return Err(self.close()),
                other => {
                    let why = io::Error::from_raw_os_error(other);
                    return Err(Error::failed(crate::error::CODE_REFUSED, why.to_string()));
                }
            }
        }
    }
}

fn of(bytes: &[u8]) -> sys::iovec {
    sys::iovec { iov_base: bytes.as_ptr() as *mut _, iov_len: bytes.len() }
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
        let fd = self.outlet.fd()?;
        // A cancel rings the gate, the job's deadline does not.
        let deadline = [until, job.and_then(Job::deadline_ns)].into_iter().flatten().min();
        let found = self.waiter.borrow_mut().wait_or(fd, events, || gave_up(self, job), deadline);
        if gave_up(self, job) {
            return Err(Error::Cancelled);
        }
        if !found && until.map_or(false, |until| sys::now_ns() >= until) {
            return Err(Error::Timeout);
        }
        Ok(())
    }

    /// Waits at the gate and for the channel: true when one of them has something.
    pub fn wait_or_channel(&self, ready: impl FnMut() -> bool, timeout_ns: Option<u64>) -> bool {
        let deadline = timeout_ns.map(|ns| sys::now_ns() + ns);
        let fd = self.outlet.fd().unwrap_or(-1);
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

    /// The reply to `id`: its body, or [`Error::Refused`]. What else comes is put by.
    pub fn await_reply(
        &self,
        job: Option<&Job>,
        id: u64,
        until: Option<u64>,
    ) -> Result<Vec<u8>, Error> {
        loop {
            match self.receive()? {
                Some(Incoming { head, body }) if head.kind == PACKET_REPLY => {
                    if head.id == id {
                        return reply_of(head, body);
                    } // else nobody waits for it any more
                }
                Some(other) => self.put_by(other),
                None => self.wait_for_channel(job, sys::POLLIN, until)?,
            }
        }
    }

    /// The first of its kind that was put by.
    pub fn take_put_by(&self, kind: u16) -> Option<Incoming> {
        let mut put_by = self.inlet.put_by.borrow_mut();
        let at = put_by.iter().position(|packet| packet.head.kind == kind)?;
        put_by.remove(at)
    }

    pub fn put_by(&self, packet: Incoming) {
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
        if packet.id == 0 {
            return Ok(());
        }
        let mut reply = head(PACKET_REPLY, packet.id, 0);
        reply.flags = PACKET_FLAG_ERROR;
        let why = &why.as_bytes()[..why.len().min(200)];
        let mut reason = vec![104, 2, 119, 11];
        reason.extend_from_slice(b"unavailable");
        reason.extend_from_slice(&[109, 0, 0, 0, why.len() as u8]);
        let code = CHANNEL_ERROR_UNAVAILABLE.to_le_bytes();
        self.send_packet(None, reply, &[&code, &reason, why], None)
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
        let mut iov = sys::iovec { iov_base: room.as_mut_ptr().cast(), iov_len: room.len() };
        let mut rights =
            sys::rights { cmsg_len: 0, cmsg_level: 0, cmsg_type: 0, fds: [-1; DESCRIPTORS_MAX] };
        let control: *mut _ = &mut rights;
        let mut message = sys::msghdr {
            msg_name: core::ptr::null_mut(),
            msg_namelen: 0,
            msg_iov: &mut iov,
            msg_iovlen: 1,
            msg_control: control.cast(),
            msg_controllen: core::mem::size_of_val(&rights),
            msg_flags: 0,
        };
        let size = loop {
            // SAFETY: the room and the control message are as long as they say, and ours.
            let size = unsafe {
                sys::recvmsg(fd, &mut message, sys::MSG_DONTWAIT | sys::MSG_CMSG_CLOEXEC)
            };
            match size {
                1.. => break size as usize,
                0 => return Err(self.outlet.close()),
                _ => match sys::errno() {
                    sys::EINTR => {}
                    sys::EAGAIN => return Ok(None),
                    _ => return Err(self.outlet.close()),
                },
            }
        };
        let came = take_descriptors(&message, &rights);
        if size < HEAD_BYTES || message.msg_flags & sys::MSG_TRUNC != 0 {
            self.broken_channel("a packet is too short or too long");
        }
        // SAFETY: so many bytes are there, and any bits are a head.
        let head = unsafe { room.as_ptr().cast::<Packet>().read_unaligned() };
        let body = if head.flags & PACKET_FLAG_MEMFD == 0 {
            if head.bytes != (size - HEAD_BYTES) as u64 {
                self.broken_channel("a body is not as long as its head says");
            }
            room[HEAD_BYTES..size].to_vec()
        } else {
            match (came.as_slice(), size) {
                ([memfd], HEAD_BYTES) => read_sealed(memfd, head.bytes),
                _ => None,
            }
            .unwrap_or_else(|| self.broken_channel("a body is not in one sealed memfd of its size"))
        };
        Ok(Some(Incoming { head, body }))
    }
}

/// They are closed when dropped.
fn take_descriptors(message: &sys::msghdr, rights: &sys::rights<DESCRIPTORS_MAX>) -> Vec<OwnedFd> {
    let there = message.msg_controllen >= sys::CMSG_HEAD_BYTES
        && rights.cmsg_level == sys::SOL_SOCKET
        && rights.cmsg_type == sys::SCM_RIGHTS;
    let bytes = if there { rights.cmsg_len - sys::CMSG_HEAD_BYTES } else { 0 };
    rights.fds[..bytes / core::mem::size_of::<c_int>()]
        .iter()
        // SAFETY: the kernel has just made them for us.
        .map(|fd| unsafe { OwnedFd::from_raw_fd(*fd) })
        .collect()
}

fn read_sealed(memfd: &OwnedFd, bytes: u64) -> Option<Vec<u8>> {
    let fd = memfd.as_raw_fd();
    // SAFETY: no memory is touched.
    let seals = unsafe { sys::fcntl(fd, sys::F_GET_SEALS) };
    if bytes == 0 || seals < 0 || seals & SEALS != SEALS || size_of_file(fd) != Some(bytes) {
        return None;
    }
    let mut body = vec![0; usize::try_from(bytes).ok()?];
    let file = File::from(memfd.try_clone().ok()?);
    file.read_exact_at(&mut body, 0).ok()?;
    Some(body)
}

fn reply_of(head: Packet, mut body: Vec<u8>) -> Result<Vec<u8>, Error> {
    if head.flags & PACKET_FLAG_ERROR == 0 {
        return Ok(body);
    }
    let code = body.get(..8).map_or(0, u64_of);
    let reason = body.split_off(body.len().min(8));
    Err(Error::Refused { code, reason })
}

/// The first eight bytes.
pub fn u64_of(bytes: &[u8]) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[..8]);
    u64::from_le_bytes(word)
}
