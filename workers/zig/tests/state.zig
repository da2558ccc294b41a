//! A worker whose jobs append their payload to its state, which it saves and is given: as workers/c/tests/state.c, for the same
//! tests (workers/c/tests/test_channel.c).
//!
//! Opcodes: 0 appends, and answers the whole; 1 answers the whole once a promised state has come; 2 sleeps for so many
//! milliseconds. An increment is what was appended since the last save. A payload of "!" makes the next save fail; a state that
//! begins with '?' is not taken.
const std = @import("std");
const rb = @import("ringbridge_worker");

pub const std_options = rb.std_options;

const Text = struct {
    bytes: [1 << 20]u8 = undefined,
    size: usize = 0,
    saved: usize = 0,

    fn whole(t: *const Text) []const u8 {
        return t.bytes[0..t.size];
    }

    fn append(t: *Text, more: []const u8) error{NoSpaceLeft}!void {
        if (more.len > t.bytes.len - t.size) return error.NoSpaceLeft;
        @memcpy(t.bytes[t.size..][0..more.len], more);
        t.size += more.len;
    }
};

fn save(t: *Text, saving: *rb.Saving, wanted: rb.StateKind) !rb.StateKind {
    if (std.mem.endsWith(u8, t.whole(), "!")) {
        t.size -= 1;
        return error.NotNow;
    }
    try saving.write(if (wanted == .full) t.whole() else t.bytes[t.saved..t.size]);
    t.saved = t.size;
    return wanted;
}

fn restore(t: *Text, kind: rb.StateKind, bytes: []const u8) !void {
    if (kind == .full) t.size = 0;
    if (std.mem.startsWith(u8, bytes, "?")) return error.NoTextOfMine;
    try t.append(bytes);
    t.saved = t.size;
}

fn handle(t: *Text, job: *rb.Job) !void {
    switch (job.opcode()) {
        2 => try job.sleep(try std.fmt.parseInt(u64, job.payload(), 10) * std.time.ns_per_ms),
        1 => try job.awaitState(),
        else => try t.append(job.payload()),
    }
    try job.answer(.raw, t.whole());
}

var text: Text = .{};

pub fn main(init: std.process.Init.Minimal) u8 {
    return rb.run(init, &text, handle, .{ .save = save, .restore = restore });
}
