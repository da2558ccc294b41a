//! What a handler says beside its answers: messages and calls into the cluster, log lines (docs/channel.md).
//!
//! Terms are the worker's own bytes. The kit only puts the tuples of its packets around them, whose tags are few (erl_ext_dist:
//! SMALL_TUPLE_EXT 'h', ATOM_UTF8_EXT 'v', SMALL_ATOM_UTF8_EXT 'w', BINARY_EXT 'm', INTEGER_EXT 'b').
const std = @import("std");
const layout = @import("layout.zig");
const os = @import("os.zig");
const Channel = @import("packet.zig");
const Job = @import("job.zig");
const Worker = @import("worker.zig").Worker;

/// Where a message goes. What a worker may write to is its role's policy: [roles.NAME.callback] allow.
pub const Dest = union(enum) {
    /// A name registered on the bridge's own node.
    name: []const u8,
    at: struct { name: []const u8, node: []const u8 },
    /// A pid, say, as external term bytes out of a payload.
    term: []const u8,
};

// --- the tuples' openings ------------------------------------------------------------------------------------------------

/// Two atoms of 255 characters, four bytes each at most, and what goes around them.
const opening_bytes = 2 * (3 + 4 * 255) + 8;

/// {Dest, ... : the opening of a tuple that begins with a destination. BadRequest: a name that is no atom.
fn open(buffer: *[opening_bytes]u8, arity: u8, to: Dest) error{BadRequest}![]const u8 {
    var w: std.Io.Writer = .fixed(buffer);
    addTuple(&w, arity) catch unreachable;
    switch (to) {
        .name => |name| try addAtom(&w, name),
        .at => |at| {
            addTuple(&w, 2) catch unreachable;
            try addAtom(&w, at.name);
            try addAtom(&w, at.node);
        },
        .term => {}, // follows as it is
    }
    return w.buffered();
}

fn addTuple(w: *std.Io.Writer, arity: u8) std.Io.Writer.Error!void {
    try w.writeAll(&.{ 'h', arity });
}

fn addAtom(w: *std.Io.Writer, text: []const u8) error{BadRequest}!void {
    if (text.len > 4 * 255) return error.BadRequest;
    const fits = "the buffer has room for two of them";
    if (text.len < 256) {
        w.writeAll(&.{ 'w', @intCast(text.len) }) catch @panic(fits);
    } else {
        w.writeAll(&.{ 'v', @intCast(text.len >> 8), @truncate(text.len) }) catch @panic(fits);
    }
    w.writeAll(text) catch @panic(fits);
}

fn behind(to: Dest) []const u8 {
    return if (to == .term) to.term else &.{};
}

// --- messages and calls --------------------------------------------------------------------------------------------------

/// Erlang's `!`. Waits while the socket is full. Returning says that it is on its way: nobody hears whether it was allowed or
/// arrived.
pub fn send(job: *Job, to: Dest, term: []const u8) (Channel.SendError || error{BadRequest})!void {
    var buffer: [opening_bytes]u8 = undefined;
    const opening = try open(&buffer, 2, to);
    const what: Channel.Outgoing = .{ .kind = layout.packet_send, .job = job.id() };
    const w = job.worker;
    w.channel.send(.{ .w = w, .job = job }, what, &.{ opening, behind(to), term }, .for_ever) catch |why| switch (why) {
        error.TimedOut => unreachable, // it waits for ever
        else => |other| return job.noteCancel(other),
    };
}

/// Memory of the kit's until deinit().
pub const Reply = struct {
    /// External term bytes.
    term: []const u8,
    packet: Channel.Incoming,

    pub fn deinit(reply: Reply) void {
        reply.packet.drop();
    }
};

pub const CallOptions = struct {
    /// A day at most, and no longer than the job's own deadline.
    timeout_ms: u32 = 5000,
    /// Where an error's reason goes, if the bridge gave one: its memory is freed by its deinit().
    reason: ?*?Reply = null,
};
pub const CallError = Channel.SendError || Channel.BridgeError;

/// GenServer.call.
pub fn call(job: *Job, to: Dest, request: []const u8, options: CallOptions) CallError!Reply {
    const day_ms = std.time.ms_per_day;
    const w = job.worker;
    const now = os.now();
    var timeout_ms: u64 = @min(options.timeout_ms, day_ms);
    var until = now + timeout_ms * std.time.ns_per_ms;
    if (job.deadline()) |deadline| if (deadline < until) {
        timeout_ms = std.math.divCeil(u64, deadline -| now, std.time.ns_per_ms) catch unreachable;
        until = deadline;
    };
    var buffer: [opening_bytes]u8 = undefined;
    const opening = try open(&buffer, 3, to);
    var timeout: [5]u8 = .{ 'b', 0, 0, 0, 0 };
    std.mem.writeInt(u32, timeout[1..], @intCast(timeout_ms), .big);

    const waiting: Channel.Waiting = .{ .w = w, .job = job };
    const id = w.channel.nextId();
    const what: Channel.Outgoing = .{ .kind = layout.packet_call, .id = id, .job = job.id() };
    w.channel.send(waiting, what, &.{ opening, behind(to), request, &timeout }, .{ .at = until }) catch |why|
        return job.noteCancel(why);
    const packet = w.channel.awaitReply(waiting, id, .{ .at = until }) catch |why| {
        // Nobody waits for the reply any more. A socket that is full or closed: then it is dropped when it comes.
        const forget: Channel.Outgoing = .{ .kind = layout.packet_forget, .id = id, .job = job.id() };
        w.channel.send(waiting, forget, &.{}, .at_once) catch {};
        return job.noteCancel(why);
    };
    Channel.check(packet) catch |why| {
        if (options.reason) |reason| {
            reason.* = .{ .term = packet.body[@min(8, packet.body.len)..], .packet = packet };
        } else {
            packet.drop();
        }
        return why;
    };
    return .{ .term = packet.body, .packet = packet };
}

// --- log lines -----------------------------------------------------------------------------------------------------------

pub const Level = enum { debug, info, warning, @"error" };
/// Dropped: the socket is full; the line is counted, and the next that gets through is preceded by the count.
pub const LogError = error{ NotConnected, Closed, Dropped };

/// A line in the bridge's log with worker and job, cut at 4,096 bytes. Never waits. Any thread may log while the job's handler
/// has not returned.
pub fn log(job: *const Job, level: Level, comptime format: []const u8, arguments: anytype) LogError!void {
    return logFrom(job.worker, job.id(), level, format, arguments);
}

/// The same outside of any job (`job` 0).
pub fn logFrom(w: *Worker, job: u64, level: Level, comptime format: []const u8, arguments: anytype) LogError!void {
    var text: [layout.log_bytes_max]u8 = undefined;
    var out: std.Io.Writer = .fixed(&text);
    out.print(format, arguments) catch {}; // cut
    const missed = &w.channel.lines_missed;
    return logText(w, job, level, out.buffered()) catch |why| {
        if (why == error.Dropped) _ = @atomicRmw(u32, missed, .Add, 1, .monotonic); // a count
        return why;
    };
}

fn logText(w: *Worker, job: u64, level: Level, text: []const u8) LogError!void {
    const missed = &w.channel.lines_missed;
    // Relaxed: a count. Whoever takes it tells it, or puts it back.
    if (@atomicLoad(u32, missed, .monotonic) != 0) {
        const count = @atomicRmw(u32, missed, .Xchg, 0, .monotonic);
        errdefer _ = @atomicRmw(u32, missed, .Add, count, .monotonic);
        var told: [80]u8 = undefined;
        const line = std.mem.print(&told, "{d} log lines are missing here: the channel was full", .{count}) catch unreachable;
        if (count != 0) try logLine(w, job, .warning, line);
    }
    try logLine(w, job, level, text);
}

fn logLine(w: *Worker, job: u64, level: Level, text: []const u8) LogError!void {
    var opening: [2 + 2 + 7 + 1]u8 = undefined;
    var out: std.Io.Writer = .fixed(&opening);
    addTuple(&out, 2) catch unreachable;
    addAtom(&out, @tagName(level)) catch unreachable;
    out.writeByte('m') catch unreachable;
    var size: [4]u8 = undefined;
    std.mem.writeInt(u32, &size, @intCast(text.len), .big);
    const what: Channel.Outgoing = .{ .kind = layout.packet_log, .job = job };
    w.channel.send(.{ .w = w, .job = null }, what, &.{ out.buffered(), &size, text }, .at_once) catch |why| switch (why) {
        error.NotConnected, error.Closed => |e| return e,
        error.TimedOut, error.Cancelled, error.SystemResources => return error.Dropped,
    };
}

// --- tests ---------------------------------------------------------------------------------------------------------------

const testing = std.testing;

test "a tuple opens with its destination" {
    var buffer: [opening_bytes]u8 = undefined;
    try testing.expectEqualStrings("h\x02w\x03reg", try open(&buffer, 2, .{ .name = "reg" }));
    const there: Dest = .{ .at = .{ .name = "reg", .node = "a@b" } };
    try testing.expectEqualStrings("h\x03h\x02w\x03regw\x03a@b", try open(&buffer, 3, there));
    try testing.expectEqualStrings("h\x02", try open(&buffer, 2, .{ .term = "a\x07" }));
    const long: [4 * 255]u8 = @splat('x');
    const both = try open(&buffer, 2, .{ .at = .{ .name = &long, .node = &long } });
    try testing.expectEqualStrings("v\x03\xfcxx", both[4..9]);
    try testing.expectError(error.BadRequest, open(&buffer, 2, .{ .name = &(long ++ "x".*) }));
}
