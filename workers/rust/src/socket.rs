//! Packets on a SOCK_SEQPACKET socket, with the descriptors that come along: the channel's and
//! those of links to other workers (docs/channel.md, "The socket").
//!
//! Never waits. A packet is one sendmsg, so it is there as a whole or not at all, and threads may
//! send at the same time.

use std::fs::File;
use std::io;
use std::os::raw::c_int;
use std::os::unix::fs::FileExt;
use std::os::unix::io::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use crate::layout::*;
use crate::memory::size_of_file;
use crate::sys;

pub const HEAD_BYTES: usize = core::mem::size_of::<Packet>();
pub const BODY_BYTES_MAX: usize = PACKET_BYTES_MAX - HEAD_BYTES;
const SEALS: c_int = sys::F_SEAL_SHRINK | sys::F_SEAL_GROW | sys::F_SEAL_WRITE | sys::F_SEAL_SEAL;

/// What a send has come to.
#[derive(Debug, PartialEq, Eq)]
pub enum Sent {
    Whole,
    NoRoom,
}

/// Why nothing was sent.
#[derive(Debug)]
pub enum Unsent {
    /// The other end is closed, or the socket was shut down.
    Closed,
    /// No memory for a body, and the like.
    System(io::Error),
}

pub fn head(kind: u16, id: u64, job: u64) -> Packet {
    Packet { kind, flags: 0, reserved: 0, id, job, bytes: 0 }
}

/// A packet whose body is the parts, one behind the other; by memfd when it is too large.
pub fn send(fd: c_int, mut head: Packet, parts: &[&[u8]]) -> Result<Sent, Unsent> {
    let size = parts.iter().map(|part| part.len()).sum::<usize>();
    head.bytes = size as u64;
    let memfd = if size > BODY_BYTES_MAX {
        head.flags |= PACKET_FLAG_MEMFD;
        Some(sealed(parts).map_err(Unsent::System)?)
    } else {
        None
    };
    // SAFETY: a record of integers without padding.
    let bytes = unsafe { core::mem::transmute::<Packet, [u8; HEAD_BYTES]>(head) };
    let inline = if memfd.is_some() { &[][..] } else { parts };
    let iov: Vec<sys::iovec> = [&bytes[..]].iter().chain(inline).map(|p| of(p)).collect();
    send_message(fd, &iov, memfd.as_ref().map(AsRawFd::as_raw_fd))
}

/// A memfd with the parts, which nobody can change any more.
fn sealed(parts: &[&[u8]]) -> io::Result<File> {
    // SAFETY: a name that ends with NUL; the descriptor is new, and ours to close.
    let memfd = unsafe {
        let flags = sys::MFD_CLOEXEC | sys::MFD_ALLOW_SEALING;
        let fd = sys::memfd_create(b"ringbridge body\0".as_ptr().cast(), flags);
        File::from(OwnedFd::from_raw_fd(sys::check(fd)?))
    };
    let mut at = 0;
    for part in parts {
        memfd.write_all_at(part, at)?;
        at += part.len() as u64;
    }
    // SAFETY: no memory is touched.
    sys::check(unsafe { sys::fcntl(memfd.as_raw_fd(), sys::F_ADD_SEALS, SEALS) })?;
    Ok(memfd)
}

fn send_message(fd: c_int, iov: &[sys::iovec], with: Option<c_int>) -> Result<Sent, Unsent> {
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
            sys::EPIPE | sys::ECONNRESET | sys::ENOTCONN => return Err(Unsent::Closed),
            other => return Err(Unsent::System(io::Error::from_raw_os_error(other))),
        }
    }
}

fn of(bytes: &[u8]) -> sys::iovec {
    sys::iovec { iov_base: bytes.as_ptr() as *mut _, iov_len: bytes.len() }
}

/// A packet that lies in the room now.
#[derive(Debug)]
pub struct Arrived {
    /// 0 where nothing came along: the other end is closed.
    pub size: usize,
    /// It was longer than the room, or brought more descriptors than were asked for.
    pub cut: bool,
    /// The caller's to close, who knows whether that may wait.
    pub fds: Vec<RawFd>,
}

/// The next packet that is there, with up to `N` descriptors. Err: the socket is of no more use.
pub fn receive<const N: usize>(fd: c_int, room: &mut [u8]) -> Result<Option<Arrived>, ()> {
    let mut iov = sys::iovec { iov_base: room.as_mut_ptr().cast(), iov_len: room.len() };
    let mut rights = sys::rights { cmsg_len: 0, cmsg_level: 0, cmsg_type: 0, fds: [-1; N] };
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
        let size =
            unsafe { sys::recvmsg(fd, &mut message, sys::MSG_DONTWAIT | sys::MSG_CMSG_CLOEXEC) };
        if size >= 0 {
            break size as usize;
        }
        match sys::errno() {
            sys::EINTR => {}
            sys::EAGAIN => return Ok(None),
            _ => return Err(()),
        }
    };
    let cut = message.msg_flags & (sys::MSG_TRUNC | sys::MSG_CTRUNC) != 0;
    Ok(Some(Arrived { size, cut, fds: descriptors(&message, &rights) }))
}

/// Of the one control message that the kernel makes of them.
fn descriptors<const N: usize>(message: &sys::msghdr, rights: &sys::rights<N>) -> Vec<RawFd> {
    let there = message.msg_controllen >= sys::CMSG_HEAD_BYTES
        && rights.cmsg_level == sys::SOL_SOCKET
        && rights.cmsg_type == sys::SCM_RIGHTS;
    let bytes = if there { rights.cmsg_len - sys::CMSG_HEAD_BYTES } else { 0 };
    rights.fds[..bytes / core::mem::size_of::<c_int>()].to_vec()
}

/// Is it a memfd of so many bytes that nobody can change? Of what is none, nothing is touched.
pub fn is_sealed(fd: RawFd, bytes: u64) -> bool {
    // SAFETY: no memory is touched.
    let seals = unsafe { sys::fcntl(fd, sys::F_GET_SEALS) };
    seals >= 0 && seals & SEALS == SEALS && size_of_file(fd) == Some(bytes)
}

/// Reads, and does not map: a mapping may be of pages that are not there.
pub fn read_sealed(memfd: OwnedFd, bytes: u64) -> Option<Vec<u8>> {
    if !is_sealed(memfd.as_raw_fd(), bytes) {
        return None;
    }
    let size = usize::try_from(bytes).ok()?;
    let mut body = Vec::new();
    body.try_reserve_exact(size).ok()?;
    body.resize(size, 0);
    File::from(memfd).read_exact_at(&mut body, 0).ok()?;
    Some(body)
}

/// A head in the first bytes of a packet.
pub fn head_of(packet: &[u8]) -> Packet {
    assert!(packet.len() >= HEAD_BYTES);
    // SAFETY: so many bytes are there, and any bits are a head.
    unsafe { packet.as_ptr().cast::<Packet>().read_unaligned() }
}
