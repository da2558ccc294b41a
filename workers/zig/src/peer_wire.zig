//! One message to another worker, one from it (docs/links.md, "The socket").
//!
//! The other end may be broken or hostile. What comes is copied into memory of ours and checked there; who breaks a rule loses
//! the link, and nobody loses a process. A descriptor can be anything: a file whose reads never end, a socket whose close()
//! waits. Only a memfd that is sealed is read; what else comes is closed by a thread that nobody waits for.
const std = @import("std");
const linux = std.os.linux;
const layout = @import("layout.zig");
const os = @import("os.zig");
const socket = @import("socket.zig");

const Packet = layout.Packet;
/// Of a request or an answer.
pub const bytes_max = 64 << 20;
/// A request's or a completion's record, in front of the payload.
pub const envelope_bytes = 128;
/// All that one packet can bring (SCM_MAX_FD), so that the kernel closes none of them here.
const descriptors_max = 253;

comptime {
    std.debug.assert(@sizeOf(layout.Request) == envelope_bytes);
    std.debug.assert(@sizeOf(layout.Completion) == envelope_bytes);
}

// --- out -----------------------------------------------------------------------------------------------------------------

/// A request or a reply: an envelope and its payload, by memfd where they do not fit into a packet.
pub fn send(fd: os.Fd, kind: u16, id: u64, envelope: anytype, payload: []const u8) socket.SendError!void {
    var head: Packet = .{
        .kind = kind,
        .flags = 0,
        .reserved = 0,
        .id = id,
        .job = envelope.job,
        .bytes = envelope_bytes + payload.len,
    };
    const iov = [3]std.posix.iovec_const{
        .{ .base = @ptrCast(&head), .len = @sizeOf(Packet) },
        .{ .base = @ptrCast(envelope), .len = envelope_bytes },
        .{ .base = payload.ptr, .len = payload.len },
    };
    if (head.bytes <= socket.body_bytes_max) return socket.send(fd, &socket.message(&iov, null));
    const body = try os.memfd("ringbridge body");
    defer os.close(body);
    try os.writeAll(body, std.mem.asBytes(envelope));
    try os.writeAll(body, payload);
    if (!os.sealForGood(body)) return error.SystemResources;
    head.flags = layout.packet_flag_memfd;
    const rights: socket.Rights(1) = .{ .fds = .{body} };
    return socket.send(fd, &socket.message(iov[0..1], &rights));
}

/// Nobody waits for the reply to this request any more.
pub fn sendForget(fd: os.Fd, id: u64, job: u64) socket.SendError!void {
    const head: Packet = .{ .kind = layout.packet_forget, .flags = 0, .reserved = 0, .id = id, .job = job, .bytes = 0 };
    const iov = [1]std.posix.iovec_const{.{ .base = @ptrCast(&head), .len = @sizeOf(Packet) }};
    return socket.send(fd, &socket.message(&iov, null));
}

// --- in ------------------------------------------------------------------------------------------------------------------

/// Disconnected: the other end is closed, the link was revoked, or there is no memory to read it. Protocol: a rule is broken,
/// `broke` says which.
pub const ReceiveError = error{ Disconnected, Protocol };

/// The memory that messages are taken into, one at a time.
pub const Inbox = struct {
    /// As large as any packet, taken at the first look.
    packet: []u8 = &.{},
    /// The body that came in a memfd.
    large: []u8 = &.{},
    body: []const u8 = &.{},
    broke: []const u8 = "",

    const memory = std.heap.page_allocator;

    pub fn deinit(inbox: *Inbox) void {
        memory.free(inbox.packet);
        memory.free(inbox.large);
        inbox.* = .{};
    }

    /// The next message that is there: its head. A request or a reply has an envelope; a forget has nothing.
    pub fn receive(inbox: *Inbox, fd: os.Fd) ReceiveError!?Packet {
        inbox.forget();
        if (inbox.packet.len == 0) inbox.packet = memory.alloc(u8, layout.packet_bytes_max) catch return error.Disconnected;
        var fds: [descriptors_max]os.Fd = undefined;
        const arrived = socket.receive(fd, inbox.packet, descriptors_max, &fds) catch return error.Disconnected;
        const came = arrived orelse return null;
        var strangers: Strangers = .of(came.fds);
        defer strangers.closeElsewhere();
        if (came.size == 0 and came.fds.len == 0) return error.Disconnected;
        if (came.size < @sizeOf(Packet) or came.cut) return inbox.isBroken("a message is too short or too long");
        const head = std.mem.bytesToValue(Packet, inbox.packet[0..@sizeOf(Packet)]);
        try inbox.takeBody(&head, inbox.packet[@sizeOf(Packet)..came.size], &strangers);
        return head;
    }

    /// The last message, and the memory of a large one.
    pub fn forget(inbox: *Inbox) void {
        memory.free(inbox.large);
        inbox.large = &.{};
        inbox.body = &.{};
    }

    fn isBroken(inbox: *Inbox, rule: []const u8) error{Protocol} {
        inbox.broke = rule;
        return error.Protocol;
    }

    fn takeBody(inbox: *Inbox, head: *const Packet, rest: []const u8, came: *Strangers) ReceiveError!void {
        const by_memfd = head.flags & layout.packet_flag_memfd != 0;
        const is_forget = head.kind == layout.packet_forget;
        if (head.flags & ~layout.packet_flag_memfd != 0 or head.reserved != 0)
            return inbox.isBroken("a message with flags that none has");
        if (came.count != @intFromBool(by_memfd))
            return inbox.isBroken("a message with more or fewer descriptors than it needs");
        if (rest.len != if (by_memfd) 0 else head.bytes) return inbox.isBroken("a body is not as long as its head says");
        if (head.bytes > envelope_bytes + bytes_max) return inbox.isBroken("more than 64 MiB");
        if (is_forget and head.bytes == 0) return;
        if (is_forget or head.bytes < envelope_bytes)
            return inbox.isBroken("a message without its envelope, or a forget with one");
        if (!by_memfd) {
            inbox.body = rest;
            return;
        }
        const fd = came.takeSealed(head.bytes) orelse return inbox.isBroken("a body is not in a sealed memfd of its size");
        defer os.close(fd);
        inbox.large = memory.alloc(u8, head.bytes) catch return error.Disconnected;
        // Read, and not mapped: a mapping may be of pages that are not there.
        os.readAll(fd, inbox.large) catch return error.Disconnected;
        inbox.body = inbox.large;
    }

    /// The envelope; not of a forget.
    pub fn envelope(inbox: *const Inbox, comptime Record: type) Record {
        return std.mem.bytesToValue(Record, inbox.body[0..envelope_bytes]);
    }

    /// What follows the envelope.
    pub fn payload(inbox: *const Inbox) []const u8 {
        return inbox.body[envelope_bytes..];
    }
};

/// Descriptors of which nothing is known. close() of one may wait for ever, so a thread does it; where there is none to be had
/// they stay open.
const Strangers = struct {
    fds: [descriptors_max]os.Fd = undefined,
    count: usize = 0,

    fn of(came: []const os.Fd) Strangers {
        var strangers: Strangers = .{ .count = came.len };
        @memcpy(strangers.fds[0..came.len], came);
        return strangers;
    }

    /// The only one, if it is a memfd of so many bytes that nobody can change. Of what is none, nothing is touched.
    fn takeSealed(s: *Strangers, bytes: u64) ?os.Fd {
        if (s.count != 1 or os.unchangingSize(s.fds[0]) != bytes) return null;
        s.count = 0;
        return s.fds[0];
    }

    fn closeElsewhere(s: *const Strangers) void {
        if (s.count == 0) return;
        const thread = std.Thread.spawn(.{ .stack_size = 64 << 10 }, close, .{s.*}) catch return;
        thread.detach();
    }

    fn close(s: Strangers) void {
        for (s.fds[0..s.count]) |fd| os.close(fd);
    }
};

// --- tests ---------------------------------------------------------------------------------------------------------------

const testing = std.testing;

/// A link's two ends.
const Ends = struct {
    asks: os.Fd,
    serves: os.Fd,

    fn init() !Ends {
        var fds: [2]os.Fd = undefined;
        const made = linux.socketpair(linux.AF.UNIX, linux.SOCK.SEQPACKET, 0, &fds);
        if (linux.errno(made) != .SUCCESS) return error.SystemResources;
        return .{ .asks = fds[0], .serves = fds[1] };
    }

    fn deinit(e: Ends) void {
        os.close(e.asks);
        os.close(e.serves);
    }
};

test "a message of any size comes as it was sent" {
    const link: Ends = try .init();
    defer link.deinit();
    var inbox: Inbox = .{};
    defer inbox.deinit();
    const fits = socket.body_bytes_max - envelope_bytes;
    const bytes = try testing.allocator.alloc(u8, 3_000_000);
    defer testing.allocator.free(bytes);
    for (bytes, 0..) |*byte, i| byte.* = @intCast(i % 251);
    for ([_]usize{ 0, 1, fits, fits + 1, bytes.len }, 1..) |size, i| {
        var q = std.mem.zeroes(layout.Request);
        q.job = 7;
        q.opcode = @intCast(i);
        try send(link.asks, layout.packet_call, i, &q, bytes[0..size]);
        const asked = (try inbox.receive(link.serves)).?;
        try testing.expectEqual(layout.packet_call, asked.kind);
        try testing.expectEqual(i, asked.id);
        try testing.expectEqual(7, asked.job);
        try testing.expectEqual(size > fits, asked.flags == layout.packet_flag_memfd);
        try testing.expectEqual(i, inbox.envelope(layout.Request).opcode);
        try testing.expectEqualSlices(u8, bytes[0..size], inbox.payload());

        var c = std.mem.zeroes(layout.Completion);
        c.code = @intCast(i);
        try send(link.serves, layout.packet_reply, asked.id, &c, inbox.payload());
        const told = (try inbox.receive(link.asks)).?;
        try testing.expectEqual(layout.packet_reply, told.kind);
        try testing.expectEqual(i, inbox.envelope(layout.Completion).code);
        try testing.expectEqualSlices(u8, bytes[0..size], inbox.payload());
    }
    try testing.expectEqual(null, try inbox.receive(link.asks));
    try sendForget(link.asks, 9, 7);
    try testing.expectEqual(layout.packet_forget, (try inbox.receive(link.serves)).?.kind);
}

test "a link is over when its other end is" {
    const link: Ends = try .init();
    defer os.close(link.asks);
    os.close(link.serves);
    var inbox: Inbox = .{};
    defer inbox.deinit();
    try testing.expectError(error.Disconnected, inbox.receive(link.asks));
    try testing.expectError(error.Closed, sendForget(link.asks, 1, 1));
}

/// Sends a packet that may break every rule.
const Lie = struct {
    size: ?usize = null,
    kind: u16 = layout.packet_call,
    flags: u16 = 0,
    reserved: u32 = 0,
    bytes: ?u64 = null,
    body: usize = envelope_bytes + 8,
    with: ?os.Fd = null,

    fn tell(lie: Lie) !void {
        const link: Ends = try .init();
        defer link.deinit();
        var packet: [@sizeOf(Packet) + 2 * envelope_bytes]u8 = @splat(0);
        const head: Packet = .{
            .kind = lie.kind,
            .flags = lie.flags,
            .reserved = lie.reserved,
            .id = 1,
            .job = 1,
            .bytes = lie.bytes orelse lie.body,
        };
        @memcpy(packet[0..@sizeOf(Packet)], std.mem.asBytes(&head));
        const size = lie.size orelse @sizeOf(Packet) + lie.body;
        const iov = [1]std.posix.iovec_const{.{ .base = &packet, .len = size }};
        const rights: socket.Rights(1) = .{ .fds = .{lie.with orelse -1} };
        try socket.send(link.asks, &socket.message(&iov, if (lie.with == null) null else &rights));
        var inbox: Inbox = .{};
        defer inbox.deinit();
        _ = try inbox.receive(link.serves);
    }
};

fn memfdOf(bytes: usize, sealed: bool) !os.Fd {
    const fd = try os.memfd("lie");
    const zeros: [2 * envelope_bytes]u8 = @splat(0);
    try os.writeAll(fd, zeros[0..bytes]);
    if (sealed and !os.sealForGood(fd)) return error.SystemResources;
    return fd;
}

test "each rule of a message is held" {
    const size = envelope_bytes + 8;
    const memfd = layout.packet_flag_memfd;
    const good = try memfdOf(size, true);
    defer os.close(good);
    const unsealed = try memfdOf(size, false);
    defer os.close(unsealed);
    for ([_]Lie{
        .{},
        .{ .kind = layout.packet_forget, .body = 0 },
        .{ .flags = memfd, .body = 0, .bytes = size, .with = good },
    }) |truth| try truth.tell();
    for ([_]Lie{
        .{ .size = 7 },
        .{ .flags = layout.packet_flag_error },
        .{ .reserved = 1 },
        .{ .bytes = 99 },
        .{ .body = envelope_bytes - 1 },
        .{ .kind = layout.packet_forget, .body = envelope_bytes },
        .{ .with = 2 }, // nobody asked for it
        .{ .flags = memfd, .body = 0, .bytes = size }, // there is none
        .{ .flags = memfd, .body = 0, .bytes = size, .with = unsealed },
        .{ .flags = memfd, .body = 0, .bytes = size + 1, .with = good }, // another size
        .{ .flags = memfd, .body = 0, .bytes = 1 << 40, .with = good },
        .{ .flags = memfd, .body = 0, .bytes = size, .with = 2 }, // no memfd
        .{ .flags = memfd, .with = good }, // a body here and there
    }) |lie| try testing.expectError(error.Protocol, lie.tell());
}
