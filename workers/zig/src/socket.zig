//! Packets on a SOCK_SEQPACKET socket, with the descriptors that come along: the channel's and those of links to other workers
//! (docs/channel.md, "The socket").
//!
//! Never waits. A packet is one sendmsg(), so it is there as a whole or not at all, and any thread may send.
const std = @import("std");
const linux = std.os.linux;
const layout = @import("layout.zig");
const os = @import("os.zig");

pub const Packet = layout.Packet;
pub const body_bytes_max = layout.packet_bytes_max - @sizeOf(Packet);

// --- out -----------------------------------------------------------------------------------------------------------------

/// A control message of SCM_RIGHTS (cmsg(3)); its length says how many descriptors there are.
pub fn Rights(comptime count: usize) type {
    return extern struct {
        head: linux.cmsghdr = .{
            .len = @sizeOf(linux.cmsghdr) + count * @sizeOf(os.Fd),
            .level = linux.SOL.SOCKET,
            .type = linux.SCM.RIGHTS,
        },
        fds: [count]os.Fd = undefined,
    };
}

pub fn message(iov: []const std.posix.iovec_const, rights: ?*const Rights(1)) linux.msghdr_const {
    return .{
        .name = null,
        .namelen = 0,
        .iov = iov.ptr,
        .iovlen = iov.len,
        .control = rights,
        .controllen = if (rights == null) 0 else @sizeOf(Rights(1)),
        .flags = 0,
    };
}

/// Closed: the other end is, or the socket was shut down. SystemResources: no memory for it.
pub const SendError = error{ NoRoom, Closed, SystemResources };

pub fn send(fd: os.Fd, out: *const linux.msghdr_const) SendError!void {
    while (true) { // bound: signals end
        switch (linux.errno(linux.sendmsg(fd, out, linux.MSG.DONTWAIT | linux.MSG.NOSIGNAL))) {
            .SUCCESS => return,
            .INTR => {},
            .PIPE, .CONNRESET, .NOTCONN => return error.Closed,
            // Too many descriptors under way count as full.
            .AGAIN, .NOBUFS, .TOOMANYREFS => return error.NoRoom,
            else => return error.SystemResources,
        }
    }
}

// --- in ------------------------------------------------------------------------------------------------------------------

/// A packet that lies in the room now.
pub const Arrived = struct {
    /// 0, where no descriptor came along: the other end is closed.
    size: usize,
    /// It was longer than the room, or brought more descriptors than there was room for.
    cut: bool,
    /// The caller's to close, who knows whether that may wait.
    fds: []os.Fd,
};

/// The next packet that is there; null: none.
pub fn receive(fd: os.Fd, room: []u8, comptime fds_max: usize, fds: *[fds_max]os.Fd) error{Closed}!?Arrived {
    var control: [@sizeOf(Rights(fds_max))]u8 align(@alignOf(linux.cmsghdr)) = undefined;
    var iov = [1]std.posix.iovec{.{ .base = room.ptr, .len = room.len }};
    var in: linux.msghdr = .{
        .name = null,
        .namelen = 0,
        .iov = &iov,
        .iovlen = 1,
        .control = &control,
        .controllen = control.len,
        .flags = 0,
    };
    const size = while (true) { // bound: signals end
        const n = linux.recvmsg(fd, &in, linux.MSG.DONTWAIT | linux.MSG.CMSG_CLOEXEC);
        switch (linux.errno(n)) {
            .SUCCESS => break n,
            .INTR => {},
            .AGAIN, .NOMEM => return null,
            else => return error.Closed,
        }
    };
    return .{
        .size = size,
        .cut = in.flags & (linux.MSG.TRUNC | linux.MSG.CTRUNC) != 0,
        .fds = descriptors(control[0..@min(in.controllen, control.len)], fds),
    };
}

/// The descriptors of the control messages.
fn descriptors(control: []align(@alignOf(linux.cmsghdr)) const u8, fds: []os.Fd) []os.Fd {
    const head_bytes = @sizeOf(linux.cmsghdr);
    var count: usize = 0;
    var at: usize = 0;
    while (at + head_bytes <= control.len) {
        const head: *const linux.cmsghdr = @ptrCast(@alignCast(control[at..].ptr));
        if (head.len < head_bytes or head.len > control.len - at) break;
        if (head.level == linux.SOL.SOCKET and head.type == linux.SCM.RIGHTS) {
            const sent = std.mem.bytesAsSlice(os.Fd, control[at + head_bytes .. at + head.len]);
            const kept = @min(sent.len, fds.len - count);
            for (fds[count..][0..kept], sent[0..kept]) |*to, one| to.* = one;
            count += kept;
        }
        at += std.mem.alignForward(usize, head.len, linux.cmsg_align);
    }
    return fds[0..count];
}
