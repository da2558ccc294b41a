//! The system as the kit sees it: the clock, memory whose size is sealed, a line on stderr. No libc, no allocator.
const std = @import("std");
const linux = std.os.linux;

pub const Fd = linux.fd_t;

/// sysexits.h, as docs/workers-conformance.md has them.
pub const exit_usage = 64;
pub const exit_dataerr = 65;
pub const exit_oserr = 71;
pub const exit_protocol = 76;
pub const exit_config = 78;

const ns_per_s = std.time.ns_per_s;

/// CLOCK_MONOTONIC, in ns: the clock of every deadline on a link.
pub fn now() u64 {
    var t: linux.timespec = undefined;
    // It cannot fail: the clock exists on every Linux, and `t` is ours.
    _ = linux.clock_gettime(.MONOTONIC, &t);
    return @as(u64, @intCast(t.sec)) * ns_per_s + @as(u64, @intCast(t.nsec));
}

pub fn timespec(ns: u64) linux.timespec {
    return .{ .sec = @intCast(ns / ns_per_s), .nsec = @intCast(ns % ns_per_s) };
}

/// One line on stderr, in one write, so that lines of several threads do not mix. Cut at 500 bytes.
pub fn complain(comptime format: []const u8, arguments: anytype) void {
    var buffer: [512]u8 = undefined;
    var w: std.Io.Writer = .fixed(buffer[0 .. buffer.len - 1]);
    w.print(format, arguments) catch {}; // cut: what fits is still worth reading
    const end = w.buffered().len;
    buffer[end] = '\n';
    _ = linux.write(2, &buffer, end + 1);
}

// --- descriptors and sealed memory ---------------------------------------------------------------------------------------

const get_seals = 1034; // F_GET_SEALS
const seals_of_size = 0x1 | 0x2 | 0x4; // F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW
const madv_populate_write = 23; // Linux 5.14

pub fn isOpen(fd: Fd) bool {
    return linux.errno(linux.fcntl(fd, linux.F.GETFD, 0)) == .SUCCESS;
}

/// What the worker starts must not inherit the link: it would keep the memory and could write it.
pub fn closeOnExec(fd: Fd) void {
    _ = linux.fcntl(fd, linux.F.SETFD, linux.FD_CLOEXEC);
}

/// The size of a memfd whose size can no longer change; null of anything else.
pub fn sealedSize(fd: Fd) ?u64 {
    // Before the size is asked: with the seals on, the size is for good.
    const seals = linux.fcntl(fd, get_seals, 0);
    if (linux.errno(seals) != .SUCCESS or seals & seals_of_size != seals_of_size) return null;
    var stat: linux.Statx = undefined;
    const asked = linux.statx(fd, "", linux.AT.EMPTY_PATH, .{ .SIZE = true }, &stat);
    return if (linux.errno(asked) == .SUCCESS) stat.size else null;
}

/// What a memfd that carries a body must have (docs/channel.md): it cannot change any more.
const seals_of_body = seals_of_size | 0x8; // F_SEAL_WRITE
const add_seals = 1033; // F_ADD_SEALS

pub fn sealForGood(fd: Fd) bool {
    return linux.errno(linux.fcntl(fd, add_seals, seals_of_body)) == .SUCCESS;
}

/// The size of a memfd that cannot change any more; null of anything else.
pub fn unchangingSize(fd: Fd) ?u64 {
    const seals = linux.fcntl(fd, get_seals, 0);
    if (linux.errno(seals) != .SUCCESS or seals & seals_of_body != seals_of_body) return null;
    return sealedSize(fd);
}

/// A memfd that may still be sealed, close-on-exec.
pub fn memfd(name: [*:0]const u8) error{SystemResources}!Fd {
    const fd = linux.memfd_create(name, linux.MFD.CLOEXEC | linux.MFD.ALLOW_SEALING);
    return if (linux.errno(fd) == .SUCCESS) @intCast(fd) else error.SystemResources;
}

/// All of the bytes, however often that takes.
pub fn writeAll(fd: Fd, bytes: []const u8) error{SystemResources}!void {
    var rest = bytes;
    while (rest.len > 0) {
        const n = linux.write(fd, rest.ptr, rest.len);
        switch (linux.errno(n)) {
            .SUCCESS => rest = rest[n..],
            .INTR => {},
            else => return error.SystemResources,
        }
    }
}

/// As many bytes as there is room for, from the beginning.
pub fn readAll(fd: Fd, room: []u8) error{EndOfFile}!void {
    var at: usize = 0;
    while (at < room.len) {
        const n = linux.pread(fd, room[at..].ptr, room.len - at, @intCast(at));
        switch (linux.errno(n)) {
            .SUCCESS => if (n == 0) return error.EndOfFile else {
                at += n;
            },
            .INTR => {},
            else => return error.EndOfFile,
        }
    }
}

pub fn close(fd: Fd) void {
    _ = linux.close(fd);
}

pub fn isSocket(fd: Fd) bool {
    var kind: i32 = undefined;
    var size: linux.socklen_t = @sizeOf(i32);
    return linux.errno(linux.getsockopt(fd, linux.SOL.SOCKET, linux.SO.TYPE, @ptrCast(&kind), &size)) == .SUCCESS;
}

pub const Memory = []align(std.heap.page_size_min) u8;
pub const MapError = error{ OutOfMemory, AccessDenied, Unmappable };
pub const Access = enum { read_only, read_write };

pub fn map(fd: Fd, bytes: u64, access: Access) MapError!Memory {
    const prot: linux.PROT = .{ .READ = true, .WRITE = access == .read_write };
    const at = linux.mmap(null, bytes, prot, .{ .TYPE = .SHARED }, fd, 0);
    switch (linux.errno(at)) {
        .SUCCESS => {},
        .NOMEM => return error.OutOfMemory,
        .ACCES, .PERM => return error.AccessDenied,
        else => return error.Unmappable,
    }
    return @as([*]align(std.heap.page_size_min) u8, @ptrFromInt(at))[0..bytes];
}

pub fn unmap(memory: Memory) void {
    _ = linux.munmap(memory.ptr, memory.len);
}

/// Nobody may touch these bytes from now on: a stray write faults.
pub fn guard(bytes: []u8) MapError!void {
    if (linux.errno(linux.mprotect(bytes.ptr, bytes.len, .{})) != .SUCCESS) return error.Unmappable;
}

/// Brings pages in. Failing is no error: the first touch does it then.
pub fn populate(bytes: []u8) void {
    _ = linux.madvise(bytes.ptr, bytes.len, madv_populate_write);
}
