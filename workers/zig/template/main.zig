//! @ROLE@: answers its payload with the letters a to z in capitals. Put your work in handle().
const std = @import("std");
const rb = @import("ringbridge_worker");

pub const std_options = rb.std_options;

const look_every_bytes = 65536;

fn handle(_: void, job: *rb.Job) !void {
    const text = job.payload(); // where it lies: no copy
    const answer = try job.reserve(text.len); // in memory that the bridge reads
    for (text, answer, 0..) |letter, *capital, i| {
        // Nobody waits any more: the caller gave up or died, or its deadline has passed.
        if (i % look_every_bytes == 0) try job.checkCancelled();
        capital.* = std.ascii.toUpper(letter);
    }
    job.complete(.raw, text.len);
}

pub fn main(init: std.process.Init.Minimal) u8 {
    // What has to be loaded or opened is done here, before the worker says that it is ready.
    return rb.run(init, {}, handle, .{});
}
