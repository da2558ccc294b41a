//! rb-worldgen: tiles of terrain, streamed in parts while they are made (docs/worldgen.md).
//!
//! Opcodes: 0 the heights; 1 the same as a picture (PNG). A caller who takes a job in parts gets it so; any other gets it
//! whole.
const std = @import("std");
const rb = @import("ringbridge_worker");
const picture = @import("picture.zig");
const Terrain = @import("terrain.zig");

pub const std_options = rb.std_options;

const code_bad_request = 10;
const code_unknown_opcode = 11;

const part_bytes = 64 << 10;

/// A part of heights: where it begins, and then its rows.
const PartHead = extern struct { first_row: u32, rows: u32 };

fn handle(_: void, job: *rb.Job) !void {
    const run = switch (job.opcode()) {
        0 => &heights,
        1 => &picturePng,
        else => |opcode| return job.fail(code_unknown_opcode, "opcode must be 0 or 1, got {d}", .{opcode}),
    };
    if (job.payloadKind() == .term) return job.fail(code_bad_request, "a request is raw bytes, not a term", .{});
    switch (Terrain.init(job.payload())) {
        .refused => |rule| job.fail(code_bad_request, "{s}", .{rule}),
        .terrain => |*terrain| try run(job, terrain),
    }
}

pub fn main(init: std.process.Init.Minimal) u8 {
    return rb.run(init, {}, handle, .{ .ops = &.{
        .{ .opcode = 0, .name = "heights", .takes = .{ .raw = true, .parts = true } },
        .{ .opcode = 1, .name = "picture", .takes = .{ .raw = true, .parts = true } },
    } });
}

/// Tells how far the job is: the rows made, of how many, u32 each. Dropped or not wanted: no matter.
fn tell(job: *rb.Job, rows: usize, of: u32) error{Cancelled}!void {
    const told = [2]u32{ @intCast(rows), of };
    job.progress(.raw, std.mem.asBytes(&told)) catch {};
    try job.checkCancelled();
}

// --- heights -------------------------------------------------------------------------------------------------------------

fn heights(job: *rb.Job, t: *const Terrain) anyerror!void {
    if (job.wantsParts()) return heightsInParts(job, t);
    const q = &t.request;
    const row_bytes = q.width * @sizeOf(f64);
    const room = try job.reserve(@as(usize, row_bytes) * q.height);
    for (0..q.height) |j| {
        makeRow(t, j, room[j * row_bytes ..][0..row_bytes]);
        try tell(job, j + 1, q.height);
    }
    job.complete(.raw, room.len);
}

// One job at a time: it need not lie on its stack.
var part: [rb.layout.part_bytes_max]u8 = undefined;

fn heightsInParts(job: *rb.Job, t: *const Terrain) !void {
    const q = &t.request;
    const row_bytes = q.width * @sizeOf(f64);
    const fit = (rb.layout.part_bytes_max - @sizeOf(PartHead)) / row_bytes;
    const rows = if (q.rows == 0) @max(part_bytes / row_bytes, 1) else @min(q.rows, fit);
    var first: u32 = 0;
    while (first < q.height) {
        const count = @min(rows, q.height - first);
        const head: PartHead = .{ .first_row = first, .rows = @intCast(count) };
        @memcpy(part[0..@sizeOf(PartHead)], std.mem.asBytes(&head));
        for (0..count) |j| {
            makeRow(t, first + j, part[@sizeOf(PartHead) + j * row_bytes ..][0..row_bytes]);
            try job.checkCancelled();
        }
        try job.emit(.raw, part[0 .. @sizeOf(PartHead) + count * row_bytes]);
        first += @intCast(count);
        try tell(job, first, q.height);
    }
    job.done();
}

/// Doubles where the bytes lie, which need not be aligned: a small answer lies in the envelope.
fn makeRow(t: *const Terrain, j: usize, bytes: []u8) void {
    var made: [Terrain.side_max]f64 = undefined;
    const count = bytes.len / @sizeOf(f64);
    t.row(j, made[0..count]);
    @memcpy(bytes, std.mem.sliceAsBytes(made[0..count]));
}

// --- the picture ---------------------------------------------------------------------------------------------------------

fn picturePng(job: *rb.Job, t: *const Terrain) anyerror!void {
    var rows: Rows = .{ .job = job, .height = t.request.height };
    const between: picture.Sink = .{ .context = &rows, .write = Rows.another };
    if (job.wantsParts()) {
        try picture.draw(t, .{ .context = job, .write = emit }, between);
        return job.done();
    }
    var whole: Whole = .{ .room = try job.reserve(picture.bytesMax(t.request.width, t.request.height)) };
    try picture.draw(t, .{ .context = &whole, .write = Whole.append }, between);
    job.complete(.raw, whole.size);
}

const Rows = struct {
    job: *rb.Job,
    height: u32,
    made: u32 = 0,

    fn another(context: *anyopaque, _: []const u8) anyerror!void {
        const rows: *Rows = @ptrCast(@alignCast(context));
        rows.made += 1;
        try tell(rows.job, rows.made, rows.height);
    }
};

fn emit(context: *anyopaque, bytes: []const u8) anyerror!void {
    const job: *rb.Job = @ptrCast(@alignCast(context));
    try job.emit(.raw, bytes);
}

/// The answer's room, filled from its begin; it is never too small (picture.bytesMax).
const Whole = struct {
    room: []u8,
    size: usize = 0,

    fn append(context: *anyopaque, bytes: []const u8) anyerror!void {
        const whole: *Whole = @ptrCast(@alignCast(context));
        @memcpy(whole.room[whole.size..][0..bytes.len], bytes);
        whole.size += bytes.len;
    }
};
