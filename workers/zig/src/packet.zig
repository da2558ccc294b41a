//! The worker's end of the socket beside its link: one packet out, one packet in, and the wait for either (docs/channel.md).
//!
//! Never blocks in the kernel: every call is told not to wait, and every wait is a poll that a cancel, the gate or a deadline
//! ends. A packet is sent by one sendmsg(), so it is there as a whole or not at all, and any thread may send.
const std = @import("std");
const linux = std.os.linux;
const layout = @import("layout.zig");
const os = @import("os.zig");
const peer_serve = @import("peer_serve.zig");
const socket = @import("socket.zig");
const Job = @import("job.zig");
const State = @import("state.zig");
const Worker = @import("worker.zig").Worker;

const Channel = @This();

const Packet = layout.Packet;
const parts_max = 7;
/// Descriptors that may come with one packet.
const descriptors_max = 8;
/// Requests of the bridge that may be open while a job runs: one to save at once, one to save when leaving, one to restore, and
/// words about those.
const put_by_max = 8;

/// Bodies that came; it is seldom.
const memory = std.heap.page_allocator;

/// null: there is none.
fd: ?os.Fd = null,
/// The bridge's end is. Any thread: relaxed, since whoever does not see it yet finds the same.
closed: bool = false,
/// Log lines that found the socket full. Any thread: relaxed, a count.
lines_missed: u32 = 0,
/// Of the last request.
last_id: u64 = 0,
/// For what comes: packet_bytes_max, taken at the first look.
room: []u8 = &.{},
/// What came while something else was waited for.
put_by: [put_by_max]Incoming = undefined,
put_by_count: usize = 0,
/// Links to other workers that were given back, which the bridge has not been told yet.
closed_links: std.ArrayList(u64) = .empty,
state: State = .{},

/// NotConnected: there is no channel. Closed: the bridge has closed it. Cancelled: the job was cancelled, or the worker told to
/// stop, while it waited. SystemResources: no memory for a body. Nothing was sent then.
pub const SendError = error{ NotConnected, Closed, Cancelled, SystemResources };

/// How long to wait for room, or for a reply.
pub const Until = union(enum) { for_ever, at_once, at: u64 };

pub const Incoming = struct {
    head: Packet,
    body: []const u8,
    held_in: enum { heap, mapping },
    /// One end of a link to another worker.
    fd: ?os.Fd = null,

    /// It is the caller's from now on.
    pub fn takeFd(in: *Incoming) ?os.Fd {
        defer in.fd = null;
        return in.fd;
    }

    pub fn drop(in: Incoming) void {
        if (in.fd) |fd| os.close(fd);
        switch (in.held_in) {
            .heap => memory.free(in.body),
            .mapping => os.unmap(@alignCast(@constCast(in.body))),
        }
    }
};

pub fn nextId(c: *Channel) u64 {
    c.last_id += 1;
    return c.last_id;
}

/// The bridge broke a rule of the channel. As on the link: a line on stderr, exit status 76.
pub fn broken(what: []const u8) noreturn {
    os.complain("worker: the bridge broke a rule of the channel: {s}", .{what});
    linux.exit_group(os.exit_protocol);
}

// --- the wait ------------------------------------------------------------------------------------------------------------

pub const Waiting = struct {
    w: *Worker,
    job: ?*const Job,

    /// Between two looks of a job that another worker asked for.
    const peer_slice_ns = 5 * std.time.ns_per_ms;

    fn isOver(waiting: Waiting) bool {
        return if (waiting.job) |job| job.isCancelled() else waiting.w.control() == layout.control_stop;
    }

    /// Until a descriptor has one of `events`, or it is worth to look again. TimedOut: `until` has passed.
    pub fn wait(waiting: Waiting, fd: os.Fd, events: i16, until: Until) error{ Cancelled, TimedOut }!void {
        const never = std.math.maxInt(u64);
        const mine = switch (until) {
            .for_ever => null,
            .at_once => return error.TimedOut,
            .at => |ns| ns,
        };
        var end = mine orelse never;
        if (waiting.job) |job| {
            // A cancel rings the gate; the job's deadline does not, nor a worker that takes its request back.
            end = @min(end, job.deadline() orelse never);
            if (job.asked != null) end = @min(end, os.now() + peer_slice_ns);
        }
        const left = if (end == never) null else end -| os.now();
        const found = waiting.w.link.waiter.waitOr(.{ .fd = fd, .events = events }, waiting, isOver, left);
        if (waiting.isOver()) return error.Cancelled;
        if (!found and mine != null and os.now() >= mine.?) return error.TimedOut;
    }
};

/// The same of the channel.
pub fn wait(c: *Channel, waiting: Waiting, events: i16, until: Until) error{ Cancelled, TimedOut }!void {
    return waiting.wait(c.fd.?, events, until);
}

// --- out -----------------------------------------------------------------------------------------------------------------

pub const Outgoing = struct { kind: u16, flags: u16 = 0, id: u64 = 0, job: u64 = 0 };

/// Sends one packet whose body is the parts, one after the other; by memfd when it is too large for a packet. TimedOut: no
/// room.
pub fn send(
    c: *Channel,
    waiting: Waiting,
    what: Outgoing,
    parts: []const []const u8,
    until: Until,
) (SendError || error{TimedOut})!void {
    std.debug.assert(parts.len <= parts_max);
    if (c.fd == null) return error.NotConnected;
    if (@atomicLoad(bool, &c.closed, .monotonic)) return error.Closed;
    var head = c.headOf(what);
    var iov: [1 + parts_max]std.posix.iovec_const = undefined;
    iov[0] = .{ .base = @ptrCast(&head), .len = @sizeOf(Packet) };
    for (iov[1..][0..parts.len], parts) |*to, part| {
        to.* = .{ .base = part.ptr, .len = part.len };
        head.bytes += part.len;
    }
    if (head.bytes > socket.body_bytes_max) {
        const fd = try os.memfd("ringbridge body");
        defer os.close(fd);
        for (parts) |part| try os.writeAll(fd, part);
        return c.sendMemfd(waiting, what, fd, until);
    }
    try c.sendInTime(waiting, &socket.message(iov[0 .. 1 + parts.len], null), until);
}

/// The same with a body that lies in a memfd, which is sealed here and stays the caller's to close.
pub fn sendMemfd(c: *Channel, waiting: Waiting, what: Outgoing, fd: os.Fd, until: Until) (SendError || error{TimedOut})!void {
    if (!os.sealForGood(fd)) return error.SystemResources;
    var head = c.headOf(what);
    head.flags |= layout.packet_flag_memfd;
    head.bytes = os.sealedSize(fd) orelse return error.SystemResources;
    const iov = [1]std.posix.iovec_const{.{ .base = @ptrCast(&head), .len = @sizeOf(Packet) }};
    const rights: socket.Rights(1) = .{ .fds = .{fd} };
    try c.sendInTime(waiting, &socket.message(&iov, &rights), until);
}

fn headOf(_: *const Channel, what: Outgoing) Packet {
    return .{ .kind = what.kind, .flags = what.flags, .reserved = 0, .id = what.id, .job = what.job, .bytes = 0 };
}

/// Sends as soon as there is room.
fn sendInTime(c: *Channel, waiting: Waiting, out: *const linux.msghdr_const, until: Until) (SendError || error{TimedOut})!void {
    while (true) { // bound: room comes, or `until`, a cancel or the channel's end
        return socket.send(c.fd.?, out) catch |why| switch (why) {
            error.NoRoom => {
                try c.wait(waiting, linux.POLL.OUT, until);
                continue;
            },
            error.Closed => c.isClosed(),
            error.SystemResources => error.SystemResources,
        };
    }
}

fn isClosed(c: *Channel) error{Closed} {
    @atomicStore(bool, &c.closed, true, .monotonic);
    return error.Closed;
}

/// Answers a packet of the bridge's with an error; nothing where it wants no answer.
pub fn refuse(c: *Channel, w: *Worker, asked: Packet, code: u64, why: []const u8) void {
    if (asked.id == 0) return;
    const text = why[0..@min(why.len, 200)];
    // {Reason, Text}: SMALL_TUPLE_EXT of SMALL_ATOM_UTF8_EXT and BINARY_EXT (erl_ext_dist).
    const reason = if (code == layout.channel_error_bad_request) "bad_request" else "unavailable";
    const opening = "h\x02w\x0b".* ++ reason.* ++ "m\x00\x00\x00".* ++ [1]u8{@intCast(text.len)};
    const what: Outgoing = .{ .kind = layout.packet_reply, .flags = layout.packet_flag_error, .id = asked.id };
    // A channel that is closed, or a worker that is told to stop: nobody waits for it.
    c.send(.{ .w = w, .job = null }, what, &.{ std.mem.asBytes(&code), &opening, text }, .for_ever) catch {};
}

// --- in ------------------------------------------------------------------------------------------------------------------

/// The next packet that is there; null: none.
pub fn receive(c: *Channel) error{Closed}!?Incoming {
    const fd = c.fd orelse return error.Closed;
    if (@atomicLoad(bool, &c.closed, .monotonic)) return error.Closed;
    if (c.room.len == 0) c.room = memory.alloc(u8, layout.packet_bytes_max) catch return null;
    var fds: [descriptors_max]os.Fd = undefined;
    const arrived = socket.receive(fd, c.room, descriptors_max, &fds) catch return c.isClosed();
    const came = arrived orelse return null;
    if (came.size == 0) return c.isClosed();
    if (came.size < @sizeOf(Packet) or came.cut) broken("a packet is too short or too long");
    const in = body(c.room[0..came.size], came.fds);
    for (came.fds) |one| if (in.fd != one) os.close(one);
    return in;
}

/// The bridge is ours: what breaks a rule of the channel ends the worker, as on the link.
fn body(packet: []const u8, came: []const os.Fd) Incoming {
    const head = std.mem.bytesToValue(Packet, packet[0..@sizeOf(Packet)]);
    const rest = packet[@sizeOf(Packet)..];
    if (head.flags & layout.packet_flag_memfd == 0) {
        if (head.bytes != rest.len) broken("a body is not as long as its head says");
        const copy = memory.dupe(u8, rest) catch broken("there is no memory for a body");
        // One end of a link. Other packets bring none.
        const brings_one = head.kind == layout.packet_reply or head.kind == layout.packet_peer_offer;
        const fd = if (brings_one and came.len == 1) came[0] else null;
        return .{ .head = head, .body = copy, .held_in = .heap, .fd = fd };
    }
    if (came.len != 1 or rest.len != 0 or head.bytes == 0 or os.unchangingSize(came[0]) != head.bytes)
        broken("a body is not in one sealed memfd of its size");
    const mapped = os.map(came[0], head.bytes, .read_only) catch broken("there is no memory for a body");
    return .{ .head = head, .body = mapped, .held_in = .mapping };
}

/// Keeps what is not the reply that is waited for until the next moment between two jobs.
pub fn putBy(c: *Channel, w: *Worker, came: Incoming) void {
    var in = came;
    if (in.head.kind == layout.packet_reply) return c.dropReply(w, in);
    if (in.head.kind == layout.packet_peer_offer) { // however many come in a job: it costs a descriptor
        peer_serve.takeOffer(w, &in);
        return in.drop();
    }
    if (c.put_by_count == put_by_max) broken("more is asked of a worker in the midst of a job than may be open");
    c.put_by[c.put_by_count] = in;
    c.put_by_count += 1;
}

/// What was put by, from the i-th on, without it.
pub fn takeBack(c: *Channel, i: usize) Incoming {
    const in = c.put_by[i];
    c.put_by_count -= 1;
    std.mem.copyForwards(Incoming, c.put_by[i..c.put_by_count], c.put_by[i + 1 .. c.put_by_count + 1]);
    return in;
}

/// The reply to `id`; what else comes is put by.
pub fn awaitReply(c: *Channel, waiting: Waiting, id: u64, until: Until) error{ Closed, Cancelled, TimedOut }!Incoming {
    while (true) { // bound: the reply, `until`, a cancel or the channel's end
        const in = try c.receive() orelse {
            try c.wait(waiting, linux.POLL.IN, until);
            continue;
        };
        if (in.head.kind == layout.packet_reply and in.head.id == id) return in;
        c.putBy(waiting.w, in);
    }
}

/// A reply that nobody waits for any more. A link that it grants is given back.
pub fn dropReply(c: *Channel, w: *Worker, in: Incoming) void {
    defer in.drop();
    if (in.fd != null and in.body.len == @sizeOf(u64)) c.giveBackLink(w, std.mem.readInt(u64, in.body[0..8], .little));
}

/// Gives a link back without waiting. What finds no room is told before the next one is opened.
pub fn giveBackLink(c: *Channel, w: *Worker, link: u64) void {
    const what: Outgoing = .{ .kind = layout.packet_peer_close, .id = c.nextId() };
    c.send(.{ .w = w, .job = null }, what, &.{std.mem.asBytes(&link)}, .at_once) catch |why| {
        // Without memory it counts until this worker ends.
        if (why == error.TimedOut) c.closed_links.append(memory, link) catch {};
    };
}

pub fn tellClosedLinks(c: *Channel, w: *Worker) void {
    for (0..c.closed_links.items.len) |_| c.giveBackLink(w, c.closed_links.orderedRemove(0));
}

// --- what the bridge's errors are here -----------------------------------------------------------------------------------

/// The reasons of docs/channel.md, "Errors".
pub const BridgeError = error{
    BadRequest,
    Refused,
    NoProcess,
    NoConnection,
    Down,
    TimedOut,
    TooLarge,
    Busy,
    Unavailable,
    FullWanted,
    StoreFailed,
};

/// The error that a reply is; its reason lies behind the code.
pub fn check(reply: Incoming) BridgeError!void {
    if (reply.head.flags & layout.packet_flag_error == 0) return;
    if (reply.body.len < 8) return error.StoreFailed;
    return switch (std.mem.readInt(u64, reply.body[0..8], .little)) {
        layout.channel_error_bad_request => error.BadRequest,
        layout.channel_error_refused => error.Refused,
        layout.channel_error_no_process => error.NoProcess,
        layout.channel_error_no_connection => error.NoConnection,
        layout.channel_error_down => error.Down,
        layout.channel_error_timeout => error.TimedOut,
        layout.channel_error_too_large => error.TooLarge,
        layout.channel_error_busy => error.Busy,
        layout.channel_error_unavailable => error.Unavailable,
        layout.channel_error_full_wanted => error.FullWanted,
        else => error.StoreFailed, // the C kit's EIO: also of a code that this kit does not know
    };
}
