//! One message to another worker, one from it (docs/links.md, "The socket").
//!
//! The other end may be broken or hostile. What comes is copied into memory of ours and checked
//! there; who breaks a rule loses the link, and nobody loses a process. A descriptor can be
//! anything: a file whose reads never end, a socket whose close() waits. Only a memfd that is
//! sealed is read; what else comes is closed by a thread that nobody waits for.

use std::os::unix::io::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use crate::layout::*;
use crate::socket::{self, head_of, Arrived, Sent, Unsent, HEAD_BYTES};

/// Of a request or an answer.
pub const PEER_BYTES_MAX: usize = 64 << 20;
/// All that one packet can bring (SCM_MAX_FD), so that the kernel closes none of them here.
const DESCRIPTORS_MAX: usize = 253;
/// A request's or a completion's record, in front of the payload.
pub const ENVELOPE_BYTES: usize = 128;
const _: () = assert!(core::mem::size_of::<Request>() == ENVELOPE_BYTES);
const _: () = assert!(core::mem::size_of::<Completion>() == ENVELOPE_BYTES);

/// Why a link is over.
#[derive(Debug, PartialEq, Eq)]
pub enum Fault {
    /// The other end is closed, the link was revoked, or there is no memory to read it.
    Over,
    /// The rule that the other end has broken.
    Broke(&'static str),
}

/// One end of a link. Closed when it is dropped.
#[derive(Debug)]
pub struct Socket(OwnedFd);

impl Socket {
    pub fn new(fd: OwnedFd) -> Socket {
        Socket(fd)
    }

    pub fn fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }

    pub fn send_request(&self, id: u64, envelope: Request, payload: &[u8]) -> Result<Sent, Unsent> {
        let head = socket::head(PACKET_CALL, id, envelope.job);
        // SAFETY: a record of integers without padding.
        let envelope = unsafe { core::mem::transmute::<Request, [u8; ENVELOPE_BYTES]>(envelope) };
        socket::send(self.fd(), head, &[&envelope, payload])
    }

    pub fn send_reply(
        &self,
        id: u64,
        envelope: Completion,
        payload: &[u8],
    ) -> Result<Sent, Unsent> {
        let head = socket::head(PACKET_REPLY, id, envelope.job);
        // SAFETY: a record of integers without padding.
        let envelope =
            unsafe { core::mem::transmute::<Completion, [u8; ENVELOPE_BYTES]>(envelope) };
        socket::send(self.fd(), head, &[&envelope, payload])
    }

    /// Nobody waits for the reply to this request any more.
    pub fn send_forget(&self, id: u64, job: u64) -> Result<Sent, Unsent> {
        socket::send(self.fd(), socket::head(PACKET_FORGET, id, job), &[])
    }
}

/// The memory that messages are taken into, one at a time.
#[derive(Debug, Default)]
pub struct Inbox {
    packet: Vec<u8>,        // as large as any
    large: Option<Vec<u8>>, // the body that came in a memfd
    size: usize,            // of the packet
}

impl Inbox {
    /// The next message that is there: its head. A request or a reply has an envelope; a FORGET has
    /// nothing.
    pub fn receive(&mut self, from: &Socket) -> Result<Option<Packet>, Fault> {
        self.large = None;
        self.size = 0;
        self.packet.resize(PACKET_BYTES_MAX, 0);
        let arrived = match socket::receive::<DESCRIPTORS_MAX>(from.fd(), &mut self.packet) {
            Ok(Some(arrived)) => arrived,
            Ok(None) => return Ok(None),
            Err(()) => return Err(Fault::Over),
        };
        let Arrived { size, cut, fds } = arrived;
        let mut came = Strangers(fds);
        if size == 0 && came.0.is_empty() {
            return Err(Fault::Over);
        }
        if size < HEAD_BYTES || cut {
            return Err(Fault::Broke("a message is too short or too long"));
        }
        let head = head_of(&self.packet);
        self.take_body(&head, size - HEAD_BYTES, &mut came)?;
        self.size = size;
        Ok(Some(head))
    }

    fn take_body(
        &mut self,
        head: &Packet,
        inline: usize,
        came: &mut Strangers,
    ) -> Result<(), Fault> {
        let by_memfd = head.flags & PACKET_FLAG_MEMFD != 0;
        if head.flags & !PACKET_FLAG_MEMFD != 0 || head.reserved != 0 {
            return Err(Fault::Broke("a message with flags that none has"));
        }
        if came.0.len() != usize::from(by_memfd) {
            return Err(Fault::Broke("a message with more or fewer descriptors than it needs"));
        }
        if inline as u64 != if by_memfd { 0 } else { head.bytes } {
            return Err(Fault::Broke("a body is not as long as its head says"));
        }
        if head.bytes > (ENVELOPE_BYTES + PEER_BYTES_MAX) as u64 {
            return Err(Fault::Broke("more than 64 MiB"));
        }
        if head.kind == PACKET_FORGET && head.bytes == 0 {
            return Ok(());
        }
        if head.kind == PACKET_FORGET || head.bytes < ENVELOPE_BYTES as u64 {
            return Err(Fault::Broke("a message without its envelope, or a FORGET with one"));
        }
        if by_memfd {
            let memfd = came.take_sealed(head.bytes);
            let memfd = memfd.ok_or(Fault::Broke("a body is not in a sealed memfd of its size"))?;
            self.large = Some(socket::read_sealed(memfd, head.bytes).ok_or(Fault::Over)?);
        }
        Ok(())
    }

    fn body(&self) -> &[u8] {
        match &self.large {
            Some(body) => body,
            None => &self.packet[HEAD_BYTES.min(self.size)..self.size],
        }
    }

    /// The envelope of a request. (To be asked of no FORGET, as the next two.)
    pub fn request(&self) -> Request {
        assert!(self.body().len() >= ENVELOPE_BYTES);
        // SAFETY: so many bytes are there, and any bits are a record.
        unsafe { self.body().as_ptr().cast::<Request>().read_unaligned() }
    }

    pub fn completion(&self) -> Completion {
        assert!(self.body().len() >= ENVELOPE_BYTES);
        // SAFETY: as above.
        unsafe { self.body().as_ptr().cast::<Completion>().read_unaligned() }
    }

    /// What follows the envelope.
    pub fn payload(&self) -> &[u8] {
        &self.body()[ENVELOPE_BYTES..]
    }
}

/// Descriptors of which nothing is known. close() of one may wait for ever, so a thread does it;
/// where there is none to be had they stay open.
#[derive(Debug)]
struct Strangers(Vec<RawFd>);

impl Strangers {
    /// The only one, if it is a memfd that nobody can change.
    fn take_sealed(&mut self, bytes: u64) -> Option<OwnedFd> {
        match self.0[..] {
            [fd] if socket::is_sealed(fd, bytes) => {
                self.0.clear();
                // SAFETY: the kernel has made it for us, and nobody else has it.
                Some(unsafe { OwnedFd::from_raw_fd(fd) })
            }
            _ => None,
        }
    }
}

impl Drop for Strangers {
    fn drop(&mut self) {
        if self.0.is_empty() {
            return;
        }
        let fds = core::mem::take(&mut self.0);
        let close = move || {
            for fd in fds {
                // SAFETY: the kernel has made it for us, and nobody else has it.
                drop(unsafe { OwnedFd::from_raw_fd(fd) });
            }
        };
        let _ = std::thread::Builder::new().name("closes".into()).spawn(close);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys;
    use std::fs::File;
    use std::io::Write;

    /// A link's two ends.
    fn link() -> (Socket, Socket) {
        let mut fds = [-1; 2];
        // SAFETY: writes two descriptors.
        sys::check(unsafe { sys::socketpair(1, 5, 0, fds.as_mut_ptr()) }).unwrap();
        // SAFETY: both are new.
        let [one, other] = fds.map(|fd| Socket(unsafe { OwnedFd::from_raw_fd(fd) }));
        (one, other)
    }

    fn blank_request() -> Request {
        // SAFETY: any bits are a record.
        unsafe { core::mem::zeroed() }
    }

    fn blank_completion() -> Completion {
        // SAFETY: as above.
        unsafe { core::mem::zeroed() }
    }

    #[test]
    fn a_message_of_any_size_comes_as_it_was_sent() {
        let (asks, serves) = link();
        let mut inbox = Inbox::default();
        let fits = socket::BODY_BYTES_MAX - ENVELOPE_BYTES;
        for (i, size) in [0, 1, fits, fits + 1, 3_000_000].into_iter().enumerate() {
            let payload: Vec<u8> = (0..size).map(|at| (at % 251) as u8).collect();
            let envelope = Request { job: 7, opcode: i as u16, ..blank_request() };
            let sent = asks.send_request(i as u64 + 1, envelope, &payload).unwrap();
            assert_eq!(sent, Sent::Whole);
            let head = inbox.receive(&serves).unwrap().unwrap();
            assert_eq!((head.kind, head.id, head.job), (PACKET_CALL, i as u64 + 1, 7));
            assert_eq!(head.flags == PACKET_FLAG_MEMFD, size > fits);
            assert_eq!((inbox.request().opcode, inbox.payload()), (i as u16, &payload[..]));

            let envelope = Completion { job: 7, code: i as u16, ..blank_completion() };
            serves.send_reply(head.id, envelope, &payload).unwrap();
            let head = inbox.receive(&asks).unwrap().unwrap();
            assert_eq!((head.kind, head.id), (PACKET_REPLY, i as u64 + 1));
            assert_eq!((inbox.completion().code, inbox.payload()), (i as u16, &payload[..]));
        }
        assert!(inbox.receive(&asks).unwrap().is_none());
        asks.send_forget(9, 7).unwrap();
        assert_eq!(inbox.receive(&serves).unwrap().unwrap().kind, PACKET_FORGET);
    }

    #[test]
    fn a_link_is_over_when_its_other_end_is() {
        let (asks, serves) = link();
        drop(serves);
        assert_eq!(Inbox::default().receive(&asks).unwrap_err(), Fault::Over);
        assert!(matches!(asks.send_forget(1, 1), Err(Unsent::Closed)));
    }

    fn is_broken(packet: &[u8], with: Option<RawFd>) -> bool {
        let (asks, serves) = link();
        let mut rights = sys::rights {
            cmsg_len: sys::CMSG_HEAD_BYTES + 4,
            cmsg_level: sys::SOL_SOCKET,
            cmsg_type: sys::SCM_RIGHTS,
            fds: [with.unwrap_or(-1), 0],
        };
        let control: *mut _ = &mut rights;
        let mut iov = sys::iovec { iov_base: packet.as_ptr() as *mut _, iov_len: packet.len() };
        let message = sys::msghdr {
            msg_name: core::ptr::null_mut(),
            msg_namelen: 0,
            msg_iov: &mut iov,
            msg_iovlen: 1,
            msg_control: if with.is_some() { control.cast() } else { core::ptr::null_mut() },
            msg_controllen: if with.is_some() { core::mem::size_of_val(&rights) } else { 0 },
            msg_flags: 0,
        };
        // SAFETY: all of it outlives the call, which only reads.
        assert!(unsafe { sys::sendmsg(asks.fd(), &message, 0) } >= 0);
        matches!(Inbox::default().receive(&serves), Err(Fault::Broke(_)))
    }

    fn packet(kind: u16, change: impl FnOnce(&mut Packet), body: usize) -> Vec<u8> {
        let mut head = Packet { bytes: body as u64, ..socket::head(kind, 1, 1) };
        change(&mut head);
        // SAFETY: a record of integers without padding.
        let head = unsafe { core::mem::transmute::<Packet, [u8; HEAD_BYTES]>(head) };
        [&head[..], &vec![0; body]].concat()
    }

    fn memfd(bytes: usize, seals: i32) -> File {
        // SAFETY: a name that ends with NUL; the descriptor is new.
        let mut file = unsafe {
            let flags = sys::MFD_CLOEXEC | sys::MFD_ALLOW_SEALING;
            let fd = sys::memfd_create(b"lie\0".as_ptr().cast(), flags);
            File::from(OwnedFd::from_raw_fd(sys::check(fd).unwrap()))
        };
        file.write_all(&vec![0; bytes]).unwrap();
        // SAFETY: no memory is touched.
        unsafe { sys::fcntl(file.as_raw_fd(), sys::F_ADD_SEALS, seals) };
        file
    }

    #[test]
    fn each_rule_of_a_message_is_held() {
        const BODY: usize = ENVELOPE_BYTES + 8;
        let sound = |_: &mut Packet| {};
        assert!(!is_broken(&packet(PACKET_CALL, sound, BODY), None));
        assert!(!is_broken(&packet(PACKET_FORGET, sound, 0), None));
        assert!(is_broken(&packet(PACKET_CALL, sound, BODY)[..7], None));
        assert!(is_broken(&packet(PACKET_CALL, |h| h.flags = PACKET_FLAG_ERROR, BODY), None));
        assert!(is_broken(&packet(PACKET_CALL, |h| h.reserved = 1, BODY), None));
        assert!(is_broken(&packet(PACKET_CALL, |h| h.bytes = 99, BODY), None));
        assert!(is_broken(&packet(PACKET_CALL, sound, ENVELOPE_BYTES - 1), None));
        assert!(is_broken(&packet(PACKET_FORGET, sound, ENVELOPE_BYTES), None));
        assert!(is_broken(&packet(PACKET_CALL, sound, BODY), Some(2)), "nobody asked for it");

        let by_memfd = |bytes: usize| {
            let change = |h: &mut Packet| {
                h.flags = PACKET_FLAG_MEMFD;
                h.bytes = bytes as u64;
            };
            packet(PACKET_CALL, change, 0)
        };
        let (good, unsealed) = (memfd(BODY, 15), memfd(BODY, 0));
        let fd = |file: &File| Some(file.as_raw_fd());
        assert!(!is_broken(&by_memfd(BODY), fd(&good)));
        assert!(is_broken(&by_memfd(BODY), None), "there is none");
        assert!(is_broken(&by_memfd(BODY), fd(&unsealed)));
        assert!(is_broken(&by_memfd(BODY + 1), fd(&good)), "another size");
        assert!(is_broken(&by_memfd(1 << 40), fd(&good)));
        assert!(is_broken(&by_memfd(BODY), Some(2)), "no memfd");
        let and_more = packet(PACKET_CALL, |h| h.flags = PACKET_FLAG_MEMFD, BODY);
        assert!(is_broken(&and_more, fd(&good)), "a body here and there");
    }
}
