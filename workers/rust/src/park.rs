//! What the gate asks of the kernel: to sleep, and to wake a sleeper, by futex, eventfd or signal.

use core::sync::atomic::{AtomicBool, Ordering};
use std::os::raw::{c_int, c_uint, c_void};

use crate::layout::WAKE_SIGNAL;
use crate::primitive::AtomicU32;
use crate::sys::{self, timespec};

pub use crate::sys::now_ns;

/// How a sleep ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slept {
    /// There may be news, or not: spurious.
    News,
    /// At the deadline.
    TimedOut,
    /// This way of sleeping is not to be had.
    Refused,
}

/// A signal goes to the whole process. If some thread of it does not block the signal, the kernel
/// may drop it, so a wait for one never trusts it for longer than this.
const SIGNAL_SLICE_NS: u64 = 100_000_000;

/// Set once a futex was refused in this process (a seccomp filter): not asked again. Relaxed: a
/// hint, each thread may find out by itself.
static FUTEX_REFUSED: AtomicBool = AtomicBool::new(false);

/// Deadlines are CLOCK_MONOTONIC in ns.
pub fn by_futex(doorbell: &AtomicU32, bell: u32, deadline: Option<u64>) -> Slept {
    if FUTEX_REFUSED.load(Ordering::Relaxed) {
        return Slept::Refused;
    }
    let until = deadline.map(timespec::from_ns);
    // SAFETY: the word lies in mapped memory for the life of the reference. FUTEX_WAIT needs only
    // read access: the doorbell lies in the other side's memory, and the key is the file's inode;
    // so it is not PRIVATE.
    let slept = unsafe {
        sys::syscall(
            sys::nr::FUTEX,
            doorbell as *const AtomicU32,
            sys::FUTEX_WAIT_BITSET,
            bell as c_uint,
            until.as_ref().map_or(core::ptr::null(), |t| t as *const timespec),
            core::ptr::null::<u32>(),
            sys::FUTEX_BITSET_MATCH_ANY,
        )
    };
    if slept == 0 {
        return Slept::News;
    }
    match sys::errno() {
        sys::EAGAIN | sys::EINTR => Slept::News,
        sys::ETIMEDOUT => Slept::TimedOut,
        _ => {
            FUTEX_REFUSED.store(true, Ordering::Relaxed);
            Slept::Refused
        }
    }
}

/// `fd`: an eventfd, or our end of a pair of sockets; -1: none.
pub fn by_eventfd(fd: c_int, deadline: Option<u64>) -> Slept {
    if fd < 0 {
        return Slept::Refused;
    }
    let left = deadline.map(|at| timespec::from_ns(at.saturating_sub(now_ns())));
    let mut look = sys::pollfd { fd, events: sys::POLLIN, revents: 0 };
    // SAFETY: one pollfd, as the count says; the mask is left alone.
    let found = unsafe {
        let left = left.as_ref().map_or(core::ptr::null(), |t| t as *const timespec);
        sys::ppoll(&mut look, 1, left, core::ptr::null())
    };
    if found == 0 {
        return Slept::TimedOut;
    }
    if found < 0 {
        return if sys::errno() == sys::EINTR { Slept::News } else { Slept::Refused };
    }
    // POLLHUP: a socket whose other end is gone; it would not sleep.
    if look.revents & (sys::POLLNVAL | sys::POLLERR | sys::POLLHUP) != 0 {
        return Slept::Refused;
    }
    drain(fd);
    Slept::News
}

/// Sleeps until our bell or another descriptor has something (`events`: poll.h). True: the other
/// has. A bell that is not to be had (-1, or its other end is gone) is looked for every
/// millisecond.
pub fn by_either(bell: c_int, other: c_int, events: i16, deadline: Option<u64>) -> (Slept, bool) {
    const SLICE_NS: u64 = 1_000_000;
    let left = deadline.map(|at| at.saturating_sub(now_ns()));
    let mut look = [
        sys::pollfd { fd: bell, events: sys::POLLIN, revents: 0 },
        sys::pollfd { fd: other, events, revents: 0 },
    ];
    let dead = sys::POLLNVAL | sys::POLLERR | sys::POLLHUP;
    // SAFETY: two pollfds, as the count says; the mask is left alone.
    let found = unsafe { sys::poll(look.as_mut_ptr(), 2, 0) };
    if found <= 0 || (look[0].revents & dead != 0 && look[1].revents == 0) {
        let deaf = bell < 0 || look[0].revents & dead != 0;
        if deaf {
            look[0].fd = -1;
        }
        let slice = if deaf { Some(left.unwrap_or(SLICE_NS).min(SLICE_NS)) } else { left };
        let time = slice.map(timespec::from_ns);
        let time = time.as_ref().map_or(core::ptr::null(), |t| t as *const timespec);
        // SAFETY: as above.
        if unsafe { sys::ppoll(look.as_mut_ptr(), 2, time, core::ptr::null()) } == 0 {
            let late = deadline.map_or(false, |at| now_ns() >= at);
            return (if late { Slept::TimedOut } else { Slept::News }, false);
        }
    }
    if look[0].revents & sys::POLLIN != 0 {
        drain(bell);
    }
    (Slept::News, look[1].revents != 0)
}

/// Reads what has rung. What is left over wakes the next sleep for nothing, which every wait
/// absorbs.
fn drain(fd: c_int) {
    let mut rings = [0u8; 64];
    loop {
        // SAFETY: `rings` has the room that it says.
        let n = unsafe { sys::recv(fd, rings.as_mut_ptr().cast(), rings.len(), sys::MSG_DONTWAIT) };
        if n == rings.len() as isize || (n < 0 && sys::errno() == sys::EINTR) {
            continue;
        }
        if n >= 0 || sys::errno() != sys::ENOTSOCK {
            return;
        }
        break;
    }
    let mut count = 0u64;
    let into = sys::iovec { iov_base: (&mut count as *mut u64).cast(), iov_len: 8 };
    // RWF_NOWAIT and not O_NONBLOCK: the description's flags are shared with the other side
    // (eventfds know it since Linux 5.8). SAFETY: one iovec of the eight bytes of `count`.
    while unsafe {
        let at: i64 = -1;
        sys::syscall(
            sys::nr::PREADV2,
            fd,
            &into as *const sys::iovec,
            1i64,
            at,
            at,
            sys::RWF_NOWAIT,
        )
    } < 0
        && sys::errno() == sys::EINTR
    {}
}

/// Needs WAKE_SIGNAL blocked in every thread (block_wake_signal()).
pub fn by_signal(deadline: Option<u64>) -> Slept {
    let only = sys::only_signal(WAKE_SIGNAL);
    let left = deadline.map_or(u64::MAX, |at| at.saturating_sub(now_ns()));
    let slice = timespec::from_ns(left.min(SIGNAL_SLICE_NS));
    // SAFETY: reads the set and the time; no siginfo is asked for.
    let taken = unsafe { sys::sigtimedwait(&only, core::ptr::null_mut(), &slice) };
    if taken >= 0 {
        return Slept::News;
    }
    match sys::errno() {
        sys::EINTR => Slept::News,
        sys::EAGAIN if left <= SIGNAL_SLICE_NS => Slept::TimedOut,
        sys::EAGAIN => Slept::News,
        _ => Slept::Refused,
    }
}

/// A signal that is not blocked would be taken away (it is ignored by default) before
/// sigtimedwait() could see it. To be called before the first other thread is made, which inherits
/// the mask.
pub fn block_wake_signal() {
    sys::mask_signals(sys::SIG_BLOCK, &sys::only_signal(WAKE_SIGNAL));
}

/// Wakes who sleeps on our doorbell.
pub fn wake_futex(doorbell: &AtomicU32) {
    // SAFETY: the word lies in mapped memory; waking reads nothing of it.
    unsafe {
        sys::syscall(sys::nr::FUTEX, doorbell as *const AtomicU32, sys::FUTEX_WAKE, 1 as c_int)
    };
}

/// Rings an eventfd. Its flags are shared with the other side, so ask before writing; a full count
/// is a bell that still rings.
pub fn wake_eventfd(fd: c_int) {
    let mut look = sys::pollfd { fd, events: sys::POLLOUT, revents: 0 };
    let one = 1u64;
    // SAFETY: one pollfd; eight bytes of `one`.
    unsafe {
        if sys::poll(&mut look, 1, 0) != 1 || look.revents & sys::POLLOUT == 0 {
            return;
        }
        while sys::write(fd, (&one as *const u64).cast::<c_void>(), 8) < 0
            && sys::errno() == sys::EINTR
        {}
    }
}
