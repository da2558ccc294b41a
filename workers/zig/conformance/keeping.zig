//! The state that the role conformance-state keeps, and its opcode.
const std = @import("std");
const rb = @import("ringbridge_worker");
const main = @import("main.zig");

const memory = std.heap.page_allocator;
/// A part that begins with it is not taken.
const not_taken = 255;

var bytes: std.ArrayList(u8) = .empty;
/// The bridge has these, from the front on. null: they were replaced since, or never saved nor restored at all, and no
/// increment can tell them.
var saved: ?usize = null;

pub fn save(_: void, saving: *rb.Saving, wanted: rb.StateKind) !rb.StateKind {
    if (bytes.items.len == 0) return error.Nothing;
    const kind: rb.StateKind = if (saved == null) .full else wanted;
    try saving.write(bytes.items[if (kind == .full) 0 else saved.?..]);
    saved = bytes.items.len;
    return kind;
}

pub fn restore(_: void, kind: rb.StateKind, part: []const u8) !void {
    if (part.len > 0 and part[0] == not_taken) return error.NotTaken;
    if (kind == .full) bytes.clearRetainingCapacity();
    try bytes.appendSlice(memory, part);
    saved = bytes.items.len;
}

pub fn state(job: *rb.Job, payload: []const u8) !void {
    switch (payload[0]) {
        0 => {
            bytes.clearRetainingCapacity();
            saved = null;
            try bytes.appendSlice(memory, payload[1..]);
            job.done();
        },
        1 => {
            try bytes.appendSlice(memory, payload[1..]);
            job.done();
        },
        2 => try job.answer(.raw, bytes.items),
        3 => {
            try job.awaitState();
            try job.answer(.raw, bytes.items);
        },
        else => |what| job.fail(main.code_bad_payload, "no state is {d}", .{what}),
    }
}
