//! Mappings of sealed memfds, for the life of the process.

use std::io;
use std::os::raw::c_int;

use crate::layout::PAGE_BYTES;
use crate::primitive::{AtomicU32, AtomicU64};
use crate::sys;

/// A mapping of the whole of a memfd, never unmapped: the process ends with its link, and `'static`
/// is then what its references are.
#[derive(Clone, Copy, Debug)]
pub struct Mapping {
    base: *mut u8,
    bytes: usize,
}

const SIZE_SEALS: c_int = sys::F_SEAL_GROW | sys::F_SEAL_SHRINK | sys::F_SEAL_SEAL;

/// Size of a sealed memfd; None unless its size can no longer change.
pub fn sealed_bytes(fd: c_int) -> Option<u64> {
    // Before the size is asked: with the seals on, the size is for good.
    // SAFETY: no memory is touched.
    let seals = unsafe { sys::fcntl(fd, sys::F_GET_SEALS) };
    if seals < 0 || seals & SIZE_SEALS != SIZE_SEALS {
        return None;
    }
    size_of_file(fd)
}

/// Size of what a descriptor of ours names; None where it is none.
pub fn size_of_file(fd: c_int) -> Option<u64> {
    use std::os::unix::io::FromRawFd;
    // SAFETY: the descriptor is borrowed: ManuallyDrop does not close it.
    let file = std::mem::ManuallyDrop::new(unsafe { std::fs::File::from_raw_fd(fd) });
    file.metadata().ok().map(|m| m.len())
}

impl Mapping {
    pub fn new(fd: c_int, bytes: usize, writable: bool) -> io::Result<Mapping> {
        let protection = sys::PROT_READ | if writable { sys::PROT_WRITE } else { 0 };
        // SAFETY: a new mapping, at an address of the kernel's choice.
        let base =
            unsafe { sys::mmap(core::ptr::null_mut(), bytes, protection, sys::MAP_SHARED, fd, 0) };
        if base as isize == -1 {
            return Err(io::Error::last_os_error());
        }
        Ok(Mapping { base: base.cast(), bytes })
    }

    /// Makes one page unreachable.
    pub fn guard(&self, at: u64) -> io::Result<()> {
        assert!(at as usize + PAGE_BYTES <= self.bytes);
        // SAFETY: the page lies in this mapping, and no part of the link does (link::Parts).
        sys::check(unsafe {
            sys::mprotect(self.base.add(at as usize).cast(), PAGE_BYTES, sys::PROT_NONE)
        })
        .map(|_| ())
    }

    /// Brings pages of a writable mapping in. Failing is no error (a kernel before 5.14): the first
    /// touch does it then.
    pub fn populate(&self, at: u64, bytes: u64) {
        assert!(at + bytes <= self.bytes as u64);
        // SAFETY: the range lies in this mapping; contents stay.
        unsafe {
            sys::madvise(
                self.base.add(at as usize).cast(),
                bytes as usize,
                sys::MADV_POPULATE_WRITE,
            )
        };
    }

    /// Undoes a mapping of which nothing is used any more.
    ///
    /// # Safety
    /// No pointer or reference into it is used afterwards.
    pub unsafe fn unmap(self) {
        // SAFETY: a mapping of ours, which nobody uses any more.
        unsafe { sys::munmap(self.base.cast(), self.bytes) };
    }

    /// `count` records from offset `at` on.
    pub fn pointer<T>(&self, at: u64, count: usize) -> *mut T {
        let at = at as usize;
        assert!(at <= self.bytes && count <= (self.bytes - at) / core::mem::size_of::<T>());
        assert!(at % core::mem::align_of::<T>() == 0);
        // SAFETY: inside the mapping, as just asserted.
        unsafe { self.base.add(at).cast() }
    }

    /// Words that both sides know of, which are only ever touched as atomics.
    pub fn words(&self, at: u64, count: usize) -> &'static [AtomicU64] {
        // SAFETY: inside the mapping and aligned (pointer()); mapped for ever; an atomic may change
        // under a shared reference. Who stores into a read-only mapping gets a fault, not a race.
        unsafe { core::slice::from_raw_parts(self.pointer(at, count), count) }
    }
}

/// An integer of a record, and what it is when it is shared.
pub trait Plain {
    type Atomic: 'static;
}
impl Plain for u32 {
    type Atomic = AtomicU32;
}
impl Plain for u64 {
    type Atomic = AtomicU64;
}

/// A field of a record in shared memory, as the atomic that it is.
///
/// # Safety
/// It lies in a [`Mapping`] that stays.
pub unsafe fn shared<T: Plain>(field: *const T) -> &'static T::Atomic {
    // SAFETY: of one size and alignment; the caller says where it lies.
    unsafe { &*field.cast() }
}
