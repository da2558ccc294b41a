//! Room for an answer in memory that the bridge reads, and the answer made of it.

use core::fmt;
use core::ops::{Deref, DerefMut};

use crate::kit::Kit;
use crate::layout::{FLAG_TERM, INLINE_BYTES_MAX};

/// Bytes that become an answer: up to 64 in the envelope itself, more in the result region. A room
/// that is dropped is free again. Its bytes are zeros, or what an earlier answer has left there.
pub struct Room {
    place: Place,
    len: usize,
}

enum Place {
    Inline([u8; INLINE_BYTES_MAX]),
    Blocks(Blocks),
    Private(Vec<u8>), // of a job that another worker asked for
}

/// Blocks of the result region that are ours.
struct Blocks {
    kit: &'static Kit,
    first: u32,
    count: u32,
}

impl Drop for Blocks {
    fn drop(&mut self) {
        // Nobody has seen them: they were taken by us and given to none.
        assert!(self.kit.region.borrow_mut().give(self.first, self.count));
    }
}

impl Room {
    /// At most INLINE_BYTES_MAX.
    pub(crate) fn inline(len: usize) -> Room {
        assert!(len <= INLINE_BYTES_MAX);
        Room { place: Place::Inline([0; INLINE_BYTES_MAX]), len }
    }

    /// `first` was taken for `len` bytes.
    pub(crate) fn blocks(kit: &'static Kit, first: u32, len: usize) -> Room {
        let count = kit.region.borrow().blocks_for(len);
        Room { place: Place::Blocks(Blocks { kit, first, count }), len }
    }

    /// In memory of our own.
    pub(crate) fn private(bytes: Vec<u8>) -> Room {
        let len = bytes.len();
        Room { place: Place::Private(bytes), len }
    }

    /// Keeps the first `len` bytes. More than there are: nothing happens, as of a Vec.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// The answer with these bytes, raw.
    pub fn raw(self) -> Answer {
        Answer { room: self, flags: 0 }
    }

    /// The answer with these bytes, which are an external term without the leading 131. The bridge
    /// checks them before they leave.
    pub fn term(self) -> Answer {
        Answer { room: self, flags: FLAG_TERM }
    }

    /// The bytes where the bridge will find them: in the envelope, or from a block on. Blocks that
    /// are not needed are given back; those that are belong to the bridge from now on.
    pub(crate) fn hand_over(self) -> HandedOver {
        let len = self.len;
        match self.place {
            Place::Inline(bytes) => HandedOver::Inline(bytes),
            Place::Private(mut bytes) => {
                bytes.truncate(len);
                HandedOver::Private(bytes)
            }
            Place::Blocks(blocks) if len <= INLINE_BYTES_MAX => {
                let mut bytes = [0; INLINE_BYTES_MAX];
                // SAFETY: the blocks are ours, and have this many bytes.
                let from = unsafe { core::slice::from_raw_parts(blocks.bytes(), len) };
                bytes[..len].copy_from_slice(from);
                HandedOver::Inline(bytes)
            }
            Place::Blocks(blocks) => {
                let mut region = blocks.kit.region.borrow_mut();
                let kept = region.blocks_for(len);
                if kept < blocks.count {
                    assert!(region.give(blocks.first + kept, blocks.count - kept));
                }
                let (at, first) = (blocks.bytes(), blocks.first);
                drop(region);
                core::mem::forget(blocks);
                // SAFETY: nobody writes there until the bridge has given the blocks back, which it
                // cannot before the completion is published, and the slice is not used after that.
                HandedOver::Blocks(first, unsafe { core::slice::from_raw_parts(at, len) })
            }
        }
    }
}

pub(crate) enum HandedOver {
    Inline([u8; INLINE_BYTES_MAX]),
    Blocks(u32, &'static [u8]),
    Private(Vec<u8>), // where the bridge cannot read it
}

impl Blocks {
    fn bytes(&self) -> *mut u8 {
        self.kit.block(self.first)
    }
}

impl Deref for Room {
    type Target = [u8];
    #[inline]
    fn deref(&self) -> &[u8] {
        match &self.place {
            Place::Inline(bytes) => &bytes[..self.len],
            // SAFETY: the blocks are ours, hold `len` bytes, and only we write there.
            Place::Blocks(b) => unsafe { core::slice::from_raw_parts(b.bytes(), self.len) },
            Place::Private(bytes) => &bytes[..self.len],
        }
    }
}

impl DerefMut for Room {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        match &mut self.place {
            Place::Inline(bytes) => &mut bytes[..self.len],
            // SAFETY: as deref(), and borrowed by one.
            Place::Blocks(b) => unsafe { core::slice::from_raw_parts_mut(b.bytes(), self.len) },
            Place::Private(bytes) => &mut bytes[..self.len],
        }
    }
}

impl fmt::Debug for Room {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Room of {} bytes", self.len)
    }
}

/// What a handler returns: the one answer of its job.
#[derive(Debug)]
pub struct Answer {
    pub(crate) room: Room,
    pub(crate) flags: u16,
}

impl Answer {
    /// No bytes: the end of a job that has said in parts what it had to say.
    pub fn done() -> Answer {
        Room::inline(0).raw()
    }
}
