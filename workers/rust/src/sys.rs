//! The system calls that the standard library has no name for, declared here so that the kit has no
//! dependencies. Linux on 64 bits, glibc or musl; the numbers are those of the kernel's headers.

#![allow(non_camel_case_types)]

use std::ffi::c_void;
use std::io;
use std::os::raw::{c_char, c_int, c_long, c_short, c_uint, c_ulong};

#[cfg(not(all(
    target_os = "linux",
    target_endian = "little",
    any(target_arch = "x86_64", target_arch = "aarch64")
)))]
compile_error!("a link is shared memory of a Linux host on x86-64 or AArch64, little endian");

pub const PROT_NONE: c_int = 0;
pub const PROT_READ: c_int = 1;
pub const PROT_WRITE: c_int = 2;
pub const MAP_SHARED: c_int = 1;
pub const MADV_POPULATE_WRITE: c_int = 23; // Linux 5.14
pub const F_GETFD: c_int = 1;
pub const F_SETFD: c_int = 2;
pub const FD_CLOEXEC: c_int = 1;
pub const F_GET_SEALS: c_int = 1034;
pub const F_SEAL_SEAL: c_int = 1;
pub const F_SEAL_SHRINK: c_int = 2;
pub const F_SEAL_GROW: c_int = 4;
pub const FALLOC_FL_KEEP_SIZE: c_int = 1;
pub const FALLOC_FL_PUNCH_HOLE: c_int = 2;
pub const CLOCK_MONOTONIC: c_int = 1;
pub const SIG_BLOCK: c_int = 0;
pub const SIG_DFL: usize = 0;
pub const SIG_SETMASK: c_int = 2;
pub const POLLIN: c_short = 1;
pub const POLLOUT: c_short = 4;
pub const POLLERR: c_short = 8;
pub const POLLHUP: c_short = 16;
pub const POLLNVAL: c_short = 32;
pub const MSG_DONTWAIT: c_int = 0x40;
pub const MSG_NOSIGNAL: c_int = 0x4000;
pub const MSG_CTRUNC: c_int = 8;
pub const MSG_TRUNC: c_int = 0x20;
pub const MSG_CMSG_CLOEXEC: c_int = 0x4000_0000;
pub const SOL_SOCKET: c_int = 1;
pub const SCM_RIGHTS: c_int = 1;
pub const MFD_CLOEXEC: c_uint = 1;
pub const MFD_ALLOW_SEALING: c_uint = 2;
pub const F_ADD_SEALS: c_int = 1033;
pub const F_SEAL_WRITE: c_int = 8;
pub const ENOTSOCK: i32 = 88;
pub const EPIPE: i32 = 32;
pub const ECONNRESET: i32 = 104;
pub const ENOBUFS: i32 = 105;
pub const ENOTCONN: i32 = 107;
pub const ETOOMANYREFS: i32 = 109;
pub const EAGAIN: i32 = 11;
pub const EINTR: i32 = 4;
pub const ETIMEDOUT: i32 = 110;
pub const FUTEX_WAKE: c_int = 1;
pub const FUTEX_WAIT_BITSET: c_int = 9;
pub const FUTEX_BITSET_MATCH_ANY: c_uint = 0xffff_ffff;
pub const RWF_NOWAIT: c_int = 8;
pub const EPOLL_CLOEXEC: c_int = 0x80000;
pub const EPOLL_CTL_ADD: c_int = 1;
pub const EPOLL_CTL_DEL: c_int = 2;
pub const EPOLLIN: u32 = 1;

#[cfg(target_arch = "x86_64")]
pub mod nr {
    pub const FUTEX: i64 = 202;
    pub const PREADV2: i64 = 327;
}
#[cfg(target_arch = "aarch64")]
pub mod nr {
    pub const FUTEX: i64 = 98;
    pub const PREADV2: i64 = 286;
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct timespec {
    pub tv_sec: i64,
    pub tv_nsec: c_long,
}

#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct pollfd {
    pub fd: c_int,
    pub events: c_short,
    pub revents: c_short,
}

/// sigset_t: 1024 bits in glibc and musl.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct sigset_t([c_ulong; 16]);

#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct iovec {
    pub iov_base: *mut c_void,
    pub iov_len: usize,
}

/// As glibc and the kernel have it. musl's two lengths of 32 bits are each followed by padding,
/// which is the upper half of ours.
#[repr(C)]
#[derive(Debug)]
pub struct msghdr {
    pub msg_name: *mut c_void,
    pub msg_namelen: u32,
    pub msg_iov: *mut iovec,
    pub msg_iovlen: usize,
    pub msg_control: *mut c_void,
    pub msg_controllen: usize,
    pub msg_flags: c_int,
}

/// One control message with up to `N` descriptors: cmsghdr, then they.
#[repr(C, align(8))]
#[derive(Debug)]
pub struct rights<const N: usize> {
    pub cmsg_len: usize,
    pub cmsg_level: c_int,
    pub cmsg_type: c_int,
    pub fds: [c_int; N],
}
pub const CMSG_HEAD_BYTES: usize = 16;

/// Packed on x86-64 alone, as the kernel has it.
#[cfg_attr(target_arch = "x86_64", repr(C, packed))]
#[cfg_attr(not(target_arch = "x86_64"), repr(C))]
#[derive(Clone, Copy, Debug, Default)]
pub struct epoll_event {
    pub events: u32,
    pub data: u64,
}

#[repr(C)]
struct rlimit {
    rlim_cur: u64,
    rlim_max: u64,
}
const RLIMIT_NOFILE: c_int = 7;

extern "C" {
    fn getrlimit(what: c_int, limit: *mut rlimit) -> c_int;
    fn setrlimit(what: c_int, limit: *const rlimit) -> c_int;
    pub fn getpid() -> c_int;
    pub fn kill(pid: c_int, signal: c_int) -> c_int;
    pub fn pause() -> c_int;
    pub fn dup(fd: c_int) -> c_int;
    pub fn signal(number: c_int, handler: usize) -> usize;
    pub fn epoll_create1(flags: c_int) -> c_int;
    pub fn epoll_ctl(poller: c_int, what: c_int, fd: c_int, event: *mut epoll_event) -> c_int;
    pub fn epoll_wait(
        poller: c_int,
        events: *mut epoll_event,
        count: c_int,
        timeout_ms: c_int,
    ) -> c_int;
    #[cfg(test)]
    pub fn socketpair(domain: c_int, kind: c_int, protocol: c_int, fds: *mut c_int) -> c_int;
    pub fn memfd_create(name: *const c_char, flags: c_uint) -> c_int;
    pub fn sendmsg(fd: c_int, message: *const msghdr, flags: c_int) -> isize;
    pub fn recvmsg(fd: c_int, message: *mut msghdr, flags: c_int) -> isize;
    pub fn mmap(
        at: *mut c_void,
        length: usize,
        protection: c_int,
        flags: c_int,
        fd: c_int,
        offset: i64,
    ) -> *mut c_void;
    pub fn munmap(at: *mut c_void, length: usize) -> c_int;
    pub fn mprotect(at: *mut c_void, length: usize, protection: c_int) -> c_int;
    pub fn madvise(at: *mut c_void, length: usize, advice: c_int) -> c_int;
    pub fn fcntl(fd: c_int, command: c_int, ...) -> c_int;
    pub fn fallocate(fd: c_int, mode: c_int, offset: i64, length: i64) -> c_int;
    pub fn write(fd: c_int, bytes: *const c_void, size: usize) -> isize;
    pub fn recv(fd: c_int, into: *mut c_void, size: usize, flags: c_int) -> isize;
    pub fn poll(fds: *mut pollfd, count: c_ulong, timeout_ms: c_int) -> c_int;
    pub fn ppoll(
        fds: *mut pollfd,
        count: c_ulong,
        timeout: *const timespec,
        mask: *const sigset_t,
    ) -> c_int;
    pub fn clock_gettime(clock: c_int, now: *mut timespec) -> c_int;
    pub fn sigemptyset(set: *mut sigset_t) -> c_int;
    pub fn sigfillset(set: *mut sigset_t) -> c_int;
    pub fn sigaddset(set: *mut sigset_t, signal: c_int) -> c_int;
    pub fn pthread_sigmask(how: c_int, set: *const sigset_t, before: *mut sigset_t) -> c_int;
    pub fn sigtimedwait(set: *const sigset_t, info: *mut c_void, timeout: *const timespec)
        -> c_int;
    pub fn syscall(number: c_long, ...) -> c_long;
    pub fn _exit(status: c_int) -> !;
}

/// errno of the call that has just failed.
pub fn errno() -> i32 {
    io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

/// 0 and up, or the error of the call that has just failed.
pub fn check(result: c_int) -> io::Result<c_int> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

/// CLOCK_MONOTONIC in ns, which is what deadlines and times of a link are in.
#[inline]
pub fn now_ns() -> u64 {
    let mut now = timespec::default();
    // SAFETY: writes `now` only; this clock exists on every Linux.
    unsafe { clock_gettime(CLOCK_MONOTONIC, &mut now) };
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

impl timespec {
    pub fn from_ns(ns: u64) -> timespec {
        timespec { tv_sec: (ns / 1_000_000_000) as i64, tv_nsec: (ns % 1_000_000_000) as c_long }
    }
}

/// Bounds how many files this process may open; returns the bound before.
pub fn limit_files(count: u64) -> u64 {
    let mut limit = rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: writes, then reads, `limit` only.
    unsafe {
        getrlimit(RLIMIT_NOFILE, &mut limit);
        let before = core::mem::replace(&mut limit.rlim_cur, count);
        setrlimit(RLIMIT_NOFILE, &limit);
        before
    }
}

/// Every signal.
pub fn all_signals() -> sigset_t {
    let mut set = sigset_t([0; 16]);
    // SAFETY: writes the set only.
    unsafe { sigfillset(&mut set) };
    set
}

/// One signal.
pub fn only_signal(signal: u32) -> sigset_t {
    let mut set = sigset_t([0; 16]);
    // SAFETY: write the set only.
    unsafe {
        sigemptyset(&mut set);
        sigaddset(&mut set, signal as c_int);
    }
    set
}

/// Changes the calling thread's mask; returns the one before.
pub fn mask_signals(how: c_int, set: &sigset_t) -> sigset_t {
    let mut before = sigset_t([0; 16]);
    // SAFETY: reads `set`, writes `before`.
    unsafe { pthread_sigmask(how, set, &mut before) };
    before
}
