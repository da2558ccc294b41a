//! rb-echo-zig: answers what it was sent; for tests, probes and benchmarks.
//!
//! Opcodes (docs/workers-c.md, rb-echo):
//!      0  echo: raw bytes as raw bytes, terms as terms
//!      1  fail: payload "CODE MESSAGE", answered {:job_failed, CODE, MESSAGE}
//!      2  die by a signal: payload its number in decimal; empty: 6 (SIGABRT)
//!      3  exit: payload the status in decimal; empty: 0
//!      4  return without an answer
const std = @import("std");
const linux = std.os.linux;
const rb = @import("ringbridge_worker");

pub const std_options = rb.std_options;

const code_unknown_opcode = 1;
const code_bad_payload = 2;

fn handle(_: void, job: *rb.Job) !void {
    switch (job.opcode()) {
        0 => try job.answer(job.payloadKind(), job.payload()),
        1 => fail(job),
        2 => die(job),
        3 => leave(job),
        4 => {},
        else => |opcode| job.fail(code_unknown_opcode, "opcode must be 0 to 4, got {d}", .{opcode}),
    }
}

fn number(comptime T: type, text: []const u8, otherwise: T) ?T {
    return if (text.len == 0) otherwise else std.fmt.parseInt(T, text, 10) catch null;
}

fn fail(job: *rb.Job) void {
    const code_text, const message = std.mem.cutScalar(u8, job.payload(), ' ') orelse .{ job.payload(), "" };
    const code = number(u16, code_text, 0) orelse
        return job.fail(code_bad_payload, "opcode 1 takes \"CODE MESSAGE\" with a code of 0 to 65535", .{});
    job.fail(code, "{s}", .{message});
}

fn die(job: *rb.Job) void {
    const signal = number(u7, job.payload(), 6) orelse 0;
    if (signal < 1 or signal > 64)
        return job.fail(code_bad_payload, "opcode 2 takes the number of a signal, 1 to 64, in decimal", .{});
    // In its default meaning, whatever Zig's start has made of it. (SIGKILL and SIGSTOP have no other, and may not be named.)
    const default: linux.Sigaction = .{ .handler = .{ .handler = linux.SIG.DFL }, .mask = linux.sigemptyset(), .flags = 0 };
    if (signal != 9 and signal != 19) _ = linux.sigaction(@fromBackingInt(signal), &default, null);
    _ = linux.kill(linux.getpid(), @fromBackingInt(signal));
    job.fail(code_bad_payload, "signal {d} does not end a process", .{signal});
}

fn leave(job: *rb.Job) void {
    const status = number(u8, job.payload(), 0) orelse
        return job.fail(code_bad_payload, "opcode 3 takes an exit status, 0 to 255, in decimal", .{});
    linux.exit_group(status);
}

pub fn main(init: std.process.Init.Minimal) u8 {
    return rb.run(init, {}, handle, .{ .short_jobs = true });
}
