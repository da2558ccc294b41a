//! Other workers, asked over links.
const std = @import("std");
const rb = @import("ringbridge_worker");
const main = @import("main.zig");

/// By number, in this worker's life; null: given back.
var links: [16]?rb.Peer = @splat(null);
var opened: u32 = 0;

pub fn open(job: *rb.Job, role: []const u8) !void {
    if (opened == links.len) return job.fail(main.code_bad_payload, "more than {d} links", .{links.len});
    links[opened] = job.openPeer(role) catch |why| return main.answerAsTold(job, why);
    try job.answer(.raw, &std.mem.toBytes(std.mem.nativeToLittle(u32, opened)));
    opened += 1;
}

/// The link that a payload begins with; null: the job has its answer.
fn named(job: *rb.Job, payload: []const u8) ?*?rb.Peer {
    const link = main.number(u32, payload, 0);
    if (link < opened and links[link] != null) return &links[link];
    job.fail(main.code_bad_payload, "no link {d} is open", .{link});
    return null;
}

pub fn call(job: *rb.Job, payload: []const u8) !void {
    const place = named(job, payload) orelse return;
    var failure: rb.Peer.Failure = .{ .code = 0, .message = "" };
    const answer = place.*.?.call(job, .{
        .opcode = main.number(u16, payload, 8),
        .kind = if (payload[10] != 0) .term else .raw,
        .bytes = payload[11..],
        .timeout_ms = main.number(u32, payload, 4),
        .failure = &failure,
    }) catch |why| return switch (why) {
        error.PeerFailed => tell(job, .{ .how = 1, .code = failure.code, .bytes = failure.message }),
        error.PeerGaveUp => tell(job, .{ .how = 2 }),
        error.Disconnected => tell(job, .{ .how = 3 }),
        error.Protocol => tell(job, .{ .how = 4 }),
        error.TimedOut => tell(job, .{ .how = 5 }),
        else => |other| main.answerAsTold(job, other),
    };
    try tell(job, .{ .how = 0, .is_term = answer.kind == .term, .bytes = answer.bytes });
}

fn tell(job: *rb.Job, what: struct { how: u8, is_term: bool = false, code: u16 = 0, bytes: []const u8 = "" }) !void {
    const room = try job.reserve(4 + what.bytes.len);
    room[0] = what.how;
    room[1] = @intFromBool(what.is_term);
    std.mem.writeInt(u16, room[2..4], what.code, .little);
    @memcpy(room[4..], what.bytes);
    job.complete(.raw, room.len);
}

pub fn close(job: *rb.Job, payload: []const u8) !void {
    const place = named(job, payload) orelse return;
    defer place.* = null;
    try main.answerAsTold(job, place.*.?.close(job));
}
