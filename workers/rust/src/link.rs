//! The worker's end of a link: what csrc/include/ringbridge/link.h describes, mapped and checked.
//!
//! The relay side is mapped read-only, the worker side read-write; guard pages lie between the
//! parts. A header that is not ours is refused: the worker side is then marked HELLO_REFUSED with
//! our own digest, so that the relay can name both.

use core::ptr::addr_of;
use std::io;
use std::os::raw::c_int;

use crate::layout::*;
use crate::memory::{sealed_bytes, shared, Mapping};
use crate::parts::Parts;
use crate::primitive::{u32s, AtomicU32, AtomicU64};
use crate::{sys, telemetry};

const FEATURES_TAKEN: u64 = FEATURE_CRC_ENVELOPE | FEATURE_CRC_PAYLOAD;
/// Without dependencies there is no zstd here: it is left to workers that have it.
const FEATURES_KNOWN: u64 = FEATURES_TAKEN | FEATURE_ZSTD;
const POPULATED_RESULTS: u64 = 1 << 20;
/// Older minor versions of our major that this kit still serves.
const OLDER: &[(u32, [u8; 32])] = &[(
    0x0003_0000,
    [
        0xf3, 0x18, 0x50, 0xdd, 0x34, 0x0a, 0x41, 0xa1, 0xf1, 0x2e, 0x09, 0xf7, 0xf9, 0x90, 0x7c,
        0x4e, 0xd2, 0x1a, 0x73, 0x3b, 0x4b, 0x27, 0xad, 0xd5, 0x5a, 0xd2, 0xc9, 0x1c, 0xd0, 0x2f,
        0x11, 0xbb,
    ],
)];

/// Descriptors of a link, in the order in which a worker inherits them. None: not there.
#[derive(Clone, Copy, Debug)]
pub struct Descriptors {
    pub relay_side: c_int,
    pub worker_side: c_int,
    pub pool: Option<c_int>,
    pub wake_worker: Option<c_int>,
    pub wake_relay: Option<c_int>,
    pub channel: Option<c_int>,
}

impl Descriptors {
    /// Six in a row. A role may have no pool, a link no bells and a worker no channel.
    pub fn from_first(first: c_int) -> Descriptors {
        let there = |fd: c_int| is_open(fd).then_some(fd);
        Descriptors {
            relay_side: first,
            worker_side: first + FD_WORKER_SIDE - FD_RELAY_SIDE,
            pool: there(first + FD_POOL - FD_RELAY_SIDE),
            wake_worker: there(first + FD_WAKE_WORKER - FD_RELAY_SIDE),
            wake_relay: there(first + FD_WAKE_RELAY - FD_RELAY_SIDE),
            channel: there(first + FD_CHANNEL - FD_RELAY_SIDE),
        }
    }

    /// What the worker starts must not inherit the link: it would keep the memory and could write
    /// it.
    fn close_on_exec(&self) {
        let always = [Some(self.relay_side), Some(self.worker_side)];
        let optional = [self.pool, self.wake_worker, self.wake_relay, self.channel];
        for fd in always.iter().chain(&optional).flatten() {
            // SAFETY: no memory is touched.
            unsafe { sys::fcntl(*fd, sys::F_SETFD, sys::FD_CLOEXEC) };
        }
    }
}

pub fn is_open(fd: c_int) -> bool {
    // SAFETY: no memory is touched.
    fd >= 0 && unsafe { sys::fcntl(fd, sys::F_GETFD) } >= 0
}

/// Why a link is not served.
#[derive(Debug)]
pub enum Refusal {
    /// Its header is not ours, or breaks a rule.
    Protocol(String),
    /// It cannot be mapped.
    System(io::Error),
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Refusal {
        Refusal::System(error)
    }
}

/// A mapped, checked link. Words are atomics; records and bytes are pointers, whose readers and
/// writers say which position makes them theirs.
#[derive(Debug)]
pub struct Link {
    pub fds: Descriptors,
    pub header: RelayHeader, // private copy
    pub requests: *const Request,
    pub cancels: &'static [AtomicU64],
    pub demands: &'static [AtomicU64],
    pub givebacks: *const Giveback,
    pub completions: *mut Completion,
    pub results: *mut u8,
    pub pool: *const u8, // null: none
    pub theirs: Theirs,
    pub ours: Ours,
    worker_side: Mapping,
}

/// The relay's positions page.
#[derive(Clone, Copy, Debug)]
pub struct Theirs {
    pub request_tail: &'static AtomicU64,
    pub completion_head: &'static AtomicU64,
    pub giveback_tail: &'static AtomicU64,
    pub park: &'static AtomicU32,
    pub doorbell: &'static AtomicU32,
    pub control: &'static AtomicU32,
}

/// Our positions page.
#[derive(Clone, Copy, Debug)]
pub struct Ours {
    pub request_head: &'static AtomicU64,
    pub started: &'static AtomicU64,
    pub completion_tail: &'static AtomicU64,
    pub giveback_head: &'static AtomicU64,
    pub park: &'static AtomicU32,
    pub doorbell: &'static AtomicU32,
    pub pulse: &'static AtomicU64,
}

impl Theirs {
    fn of(relay_side: &Mapping) -> Theirs {
        let at: *const RelayPositions = relay_side.pointer(u64::from(AT_POSITIONS), 1);
        // SAFETY: fields of a record in the relay side, which stays mapped.
        unsafe {
            Theirs {
                request_tail: shared(addr_of!((*at).request_tail)),
                completion_head: shared(addr_of!((*at).completion_head)),
                giveback_tail: shared(addr_of!((*at).giveback_tail)),
                park: shared(addr_of!((*at).park)),
                doorbell: shared(addr_of!((*at).doorbell)),
                control: shared(addr_of!((*at).control)),
            }
        }
    }
}

impl Ours {
    fn of(worker_side: &Mapping) -> Ours {
        let at: *const WorkerPositions = worker_side.pointer(u64::from(AT_POSITIONS), 1);
        // SAFETY: fields of a record in the worker side, which stays mapped.
        unsafe {
            Ours {
                request_head: shared(addr_of!((*at).request_head)),
                started: shared(addr_of!((*at).started)),
                completion_tail: shared(addr_of!((*at).completion_tail)),
                giveback_head: shared(addr_of!((*at).giveback_head)),
                park: shared(addr_of!((*at).park)),
                doorbell: shared(addr_of!((*at).doorbell)),
                pulse: shared(addr_of!((*at).pulse)),
            }
        }
    }
}

impl Link {
    pub fn attach(fds: Descriptors) -> Result<Link, Refusal> {
        fds.close_on_exec();
        let header = copy_header(fds.relay_side)?;
        let parts = check_header(&header, &fds)?;
        Ok(Link::map(fds, header, &parts)?)
    }

    fn map(fds: Descriptors, header: RelayHeader, parts: &Parts) -> io::Result<Link> {
        let relay_side = Mapping::new(fds.relay_side, parts.relay_side_bytes as usize, false)?;
        for guard in parts.relay_guards() {
            relay_side.guard(guard)?;
        }
        let worker_side = Mapping::new(fds.worker_side, parts.worker_side_bytes as usize, true)?;
        for guard in parts.worker_guards() {
            worker_side.guard(guard)?;
        }
        let pool = match fds.pool {
            Some(fd) if header.pool_bytes > 0 => {
                let bytes = header.pool_bytes as usize;
                Mapping::new(fd, bytes, false)?.pointer(0, bytes) as *const u8
            }
            _ => core::ptr::null(),
        };
        let page = PAGE_BYTES as u64;
        worker_side.populate(u64::from(AT_POSITIONS), 2 * page);
        worker_side.populate(parts.completions_at, parts.results_at - parts.completions_at - page);
        worker_side.populate(parts.results_at, header.result_bytes.min(POPULATED_RESULTS));
        let slots = header.slots as usize;
        Ok(Link {
            fds,
            requests: relay_side.pointer(parts.requests_at, slots),
            cancels: relay_side.words(parts.cancels_at, slots),
            demands: relay_side.words(parts.demands_at, slots),
            givebacks: relay_side.pointer(parts.givebacks_at, header.result_blocks as usize),
            completions: worker_side.pointer(parts.completions_at, slots),
            results: worker_side.pointer(parts.results_at, header.result_bytes as usize),
            pool,
            theirs: Theirs::of(&relay_side),
            ours: Ours::of(&worker_side),
            header,
            worker_side,
        })
    }

    pub fn telemetry(&self) -> telemetry::Block<'static> {
        let at: *const Telemetry = self.worker_side.pointer(u64::from(AT_TELEMETRY), 1);
        // SAFETY: fields of a record in the worker side.
        unsafe {
            telemetry::Block {
                sequence: shared(addr_of!((*at).sequence)),
                gate: shared(addr_of!((*at).gate)),
                words: self.worker_side.words(u64::from(AT_TELEMETRY) + 8, telemetry::WORDS),
            }
        }
    }

    /// Publishes the hello; who waits for it is to be rung afterwards. Texts are cut to their
    /// fields, operations to OPS_MAX.
    pub fn greet(&self, kit: &str, kit_version: u32, role: &str, ops: &[WorkerOp]) {
        let ops = &ops[..ops.len().min(OPS_MAX as usize)];
        let table: *mut WorkerOp = self.worker_side.pointer(u64::from(AT_OPS), ops.len());
        let hello = WorkerHeader {
            magic: WORKER_MAGIC,
            version: LAYOUT_VERSION,
            hello: HELLO_NONE,
            digest: LAYOUT_DIGEST,
            nonce: self.header.nonce,
            features: self.header.features & FEATURES_TAKEN,
            pid: std::process::id(),
            kit_version,
            kit: text_field(kit),
            role: text_field(role),
            ops: ops.len() as u32,
            padding_172: [0; 84],
        };
        store_hello(&self.worker_side, &hello, HELLO_READY, || {
            // SAFETY: the table lies in our header page (pointer() has checked) and is ours until
            // the hello is stored.
            unsafe { core::ptr::copy_nonoverlapping(ops.as_ptr(), table, ops.len()) };
        });
    }
}

/// Writes the header but its hello, then what `before` writes, then the hello.
fn store_hello(page: &Mapping, header: &WorkerHeader, hello: u32, before: impl FnOnce()) {
    let at: *mut WorkerHeader = page.pointer(u64::from(AT_HEADER), 1);
    // SAFETY: the header page is ours to write; the relay reads it only once it has seen the hello.
    unsafe { at.write(*header) };
    before();
    // SAFETY: a field of a record in the worker side.
    let word = unsafe { shared(addr_of!((*at).hello)) };
    // H0: pairs with H1 in rb_link_hello(): who sees it sees the fields. seq_cst as a gate's G0.
    u32s::store_seq_cst(word, hello);
}

/// NUL-padded, and cut where it is too long, between two characters.
pub fn text_field<const N: usize>(text: &str) -> [u8; N] {
    let mut size = text.len().min(N - 1);
    while !text.is_char_boundary(size) {
        size -= 1;
    }
    let mut field = [0; N];
    field[..size].copy_from_slice(&text.as_bytes()[..size]);
    field
}

fn copy_header(fd: c_int) -> Result<RelayHeader, Refusal> {
    if sealed_bytes(fd).map_or(true, |bytes| bytes < PAGE_BYTES as u64) {
        let rule = format!("descriptor {fd} is no memory whose size is sealed");
        return Err(Refusal::Protocol(rule));
    }
    let page = Mapping::new(fd, PAGE_BYTES, false)?;
    let header: *const RelayHeader = page.pointer(u64::from(AT_HEADER), 1);
    // SAFETY: a page is mapped, a record of integers is read from its beginning, and the mapping is
    // not used again.
    unsafe {
        let copy = header.read();
        page.unmap();
        Ok(copy)
    }
}

/// Is a relay of this layout one that we can serve? The newer side judges: a relay that is newer
/// than we are, of our major version, knows our digest and what we lack; an older one must be in
/// our list.
fn is_served(version: u32, digest: &[u8; 32]) -> bool {
    if version >> 16 != LAYOUT_VERSION >> 16 {
        return false;
    }
    if version == LAYOUT_VERSION {
        return *digest == LAYOUT_DIGEST;
    }
    version > LAYOUT_VERSION || OLDER.contains(&(version, *digest))
}

fn check_header(h: &RelayHeader, fds: &Descriptors) -> Result<Parts, Refusal> {
    if h.magic != RELAY_MAGIC {
        let rule = format!("descriptor {} holds no link of a relay", fds.relay_side);
        return Err(Refusal::Protocol(rule));
    }
    let checked = if is_served(h.version, &h.digest) {
        broken_rule(h, fds).map_err(str::to_owned)
    } else {
        let hex = |digest: &[u8; 32]| digest.iter().map(|b| format!("{b:02x}")).collect::<String>();
        Err(format!(
            "the bridge was built for layout version {}, digest {}; \
             this worker has version {}, digest {}",
            h.version,
            hex(&h.digest),
            LAYOUT_VERSION,
            LAYOUT_DIGEST_HEX
        ))
    };
    checked.map_err(|rule| {
        tell_refusal(fds, h.nonce);
        Refusal::Protocol(rule)
    })
}

/// The parts of a header of our own layout, or the rule that it breaks.
fn broken_rule(h: &RelayHeader, fds: &Descriptors) -> Result<Parts, &'static str> {
    let parts = Parts::of(h.slots, h.result_block_bytes, h.result_bytes)
        .ok_or("a size of the link breaks its rule")?;
    let rules = [
        (h.nonce != 0, "the link has no nonce"),
        (
            h.version > LAYOUT_VERSION || h.features & !FEATURES_KNOWN == 0,
            "the link asks for features that this worker does not know",
        ),
        (
            u64::from(h.result_blocks) == h.result_bytes / u64::from(h.result_block_bytes),
            "the number of result blocks does not fit",
        ),
        (parts == Parts::named_by(h), "a part of the link is not where its sizes put it"),
        (
            sealed_bytes(fds.relay_side) == Some(h.relay_side_bytes),
            "the relay side has another size than its header says",
        ),
        (
            sealed_bytes(fds.worker_side) == Some(h.worker_side_bytes),
            "the worker side has another size than the header says",
        ),
        (
            fds.pool.map_or(Some(0), sealed_bytes) == Some(h.pool_bytes),
            "the pool has another size than the header says, or is not sealed",
        ),
    ];
    match rules.iter().find(|(kept, _)| !kept) {
        Some((_, rule)) => Err(rule),
        None => Ok(parts),
    }
}

/// What a worker of any layout may write and the relay of any layout can read: the first fields.
fn tell_refusal(fds: &Descriptors, nonce: u64) {
    if sealed_bytes(fds.worker_side).map_or(true, |bytes| bytes < PAGE_BYTES as u64) {
        return;
    }
    if let Ok(page) = Mapping::new(fds.worker_side, PAGE_BYTES, true) {
        let header = WorkerHeader {
            magic: WORKER_MAGIC,
            version: LAYOUT_VERSION,
            hello: HELLO_NONE,
            digest: LAYOUT_DIGEST,
            nonce,
            features: 0,
            pid: std::process::id(),
            kit_version: 0,
            kit: [0; 32],
            role: [0; 64],
            ops: 0,
            padding_172: [0; 84],
        };
        store_hello(&page, &header, HELLO_REFUSED, || {});
        // Not through the gate: in another layout the park words may lie elsewhere.
        if let Some(fd) = fds.wake_relay {
            crate::park::wake_eventfd(fd);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newer_side_judges() {
        assert!(is_served(LAYOUT_VERSION, &LAYOUT_DIGEST));
        assert!(!is_served(LAYOUT_VERSION, &[0; 32]), "equal version, other digest");
        assert!(is_served(LAYOUT_VERSION + 1, &[0; 32]), "a newer relay knows us");
        assert!(!is_served(LAYOUT_VERSION + (1 << 16), &LAYOUT_DIGEST), "another major");
    }

    #[test]
    fn texts_are_cut_between_characters() {
        assert_eq!(&text_field::<4>("abcd"), b"abc\0");
        assert_eq!(&text_field::<4>("aäö"), b"a\xc3\xa4\0");
        assert_eq!(&text_field::<3>("aä"), b"a\0\0");
    }
}
