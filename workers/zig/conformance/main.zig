//! rb-conformance-zig: the conformance job language (docs/workers-conformance.md), for the battery that holds every kit to the
//! same rules. One small function an opcode; all of them are ordinary handlers.
const std = @import("std");
const linux = std.os.linux;
const rb = @import("ringbridge_worker");
const keeping = @import("keeping.zig");
const links = @import("links.zig");

pub const std_options = rb.std_options;

pub const code_bad_payload = 1;
const code_refused = 2;
const code_unknown_opcode = 3;

const pattern = 251;
const part_bytes_max = 4 << 20;
const binary_ext = 'm';

/// One operation: what the hello declares of it, how long its payload is at least, and what it does.
const Operation = struct {
    op: rb.Op,
    size_min: usize = 0,
    run: fn (job: *rb.Job, payload: []const u8) anyerror!void,
};

const operations = [_]Operation{
    .{ .op = .{ .opcode = 0, .name = "echo" }, .run = echo },
    .{ .op = .{ .opcode = 1, .name = "fail" }, .size_min = 2, .run = fail },
    .{ .op = .{ .opcode = 2, .name = "sleep" }, .size_min = 4, .run = sleep },
    .{ .op = .{ .opcode = 3, .name = "emit", .takes = .{ .raw = true, .parts = true } }, .size_min = 9, .run = emit },
    .{ .op = .{ .opcode = 4, .name = "progress" }, .size_min = 9, .run = progress },
    .{ .op = .{ .opcode = 5, .name = "large" }, .size_min = 9, .run = large },
    .{ .op = .{ .opcode = 6, .name = "end" }, .size_min = 2, .run = end },
    .{ .op = .{ .opcode = 7, .name = "hold" }, .size_min = 4, .run = hold },
    .{ .op = .{ .opcode = 8, .name = "term" }, .run = term },
    .{ .op = .{ .opcode = 9, .name = "checkpoint" }, .size_min = 1, .run = checkpoint },
    .{ .op = .{ .opcode = 10, .name = "call" }, .size_min = 8, .run = call },
    .{ .op = .{ .opcode = 11, .name = "send" }, .size_min = 4, .run = send },
    .{ .op = .{ .opcode = 12, .name = "log" }, .size_min = 1, .run = log },
    .{ .op = .{ .opcode = 13, .name = "pulse" }, .size_min = 4, .run = pulse },
    .{ .op = .{ .opcode = 14, .name = "ready" }, .size_min = 1, .run = ready },
    .{ .op = .{ .opcode = 15, .name = "about" }, .run = about },
    .{ .op = .{ .opcode = 16, .name = "state", .takes = .{ .raw = true } }, .size_min = 1, .run = keeping.state },
    .{ .op = .{ .opcode = 17, .name = "peer_open", .takes = .{ .raw = true } }, .size_min = 1, .run = links.open },
    .{ .op = .{ .opcode = 18, .name = "peer_call", .takes = .{ .raw = true } }, .size_min = 11, .run = links.call },
    .{ .op = .{ .opcode = 19, .name = "peer_close", .takes = .{ .raw = true } }, .size_min = 4, .run = links.close },
};

fn handle(_: void, job: *rb.Job) !void {
    const payload = job.payload();
    inline for (operations) |operation| {
        if (job.opcode() == operation.op.opcode) {
            const size_min = operation.size_min;
            const format = operation.op.name ++ " takes {d} bytes or more, got {d}";
            if (payload.len < size_min) return job.fail(code_bad_payload, format, .{ size_min, payload.len });
            return operation.run(job, payload);
        }
    }
    job.fail(code_unknown_opcode, "opcode {d} is not served", .{job.opcode()});
}

pub fn main(init: std.process.Init.Minimal) u8 {
    const declared = comptime ops: {
        var ops: [operations.len]rb.Op = undefined;
        for (&ops, operations) |*op, operation| op.* = operation.op;
        break :ops ops;
    };
    const role = init.environ.getPosix(rb.layout.env_role) orelse "";
    if (std.mem.eql(u8, role, "conformance-state"))
        return rb.run(init, {}, handle, .{ .ops = &declared, .save = keeping.save, .restore = keeping.restore });
    if (std.mem.startsWith(u8, role, "conformance-links"))
        return rb.run(init, {}, handle, .{ .ops = &declared, .serves_peers = true });
    return rb.run(init, {}, handle, .{ .ops = &declared });
}

/// A little-endian integer; the payload has been found long enough.
pub fn number(comptime T: type, payload: []const u8, at: usize) T {
    return std.mem.readInt(T, payload[at..][0..@sizeOf(T)], .little);
}

// --- answers -------------------------------------------------------------------------------------------------------------

fn echo(job: *rb.Job, payload: []const u8) !void {
    try job.answer(job.payloadKind(), payload);
}

fn fail(job: *rb.Job, payload: []const u8) !void {
    job.fail(number(u16, payload, 0), "{s}", .{payload[2..]});
}

fn sleep(job: *rb.Job, payload: []const u8) !void {
    try job.sleep(@as(u64, number(u32, payload, 0)) * std.time.ns_per_ms);
    job.done();
}

fn large(job: *rb.Job, payload: []const u8) !void {
    const room = try job.reserve(number(u64, payload, 0));
    var value: u8 = payload[8] % pattern;
    for (room) |*byte| {
        byte.* = value;
        value = if (value + 1 == pattern) 0 else value + 1;
    }
    job.complete(.raw, room.len);
}

fn term(job: *rb.Job, payload: []const u8) !void {
    const ok_and = "h\x02w\x02ok"; // {ok, ...}
    if (job.payloadKind() != .term)
        return job.fail(code_bad_payload, "the payload must be a term, got {d} raw bytes", .{payload.len});
    const room = try job.reserve(ok_and.len + payload.len);
    @memcpy(room[0..ok_and.len], ok_and);
    @memcpy(room[ok_and.len..], payload);
    job.complete(.term, room.len);
}

fn about(job: *rb.Job, _: []const u8) !void {
    const trace = job.trace();
    var answer: [46]u8 = undefined;
    var w: std.Io.Writer = .fixed(&answer);
    try w.writeInt(u64, job.id(), .little);
    try w.writeInt(u64, job.deadline() orelse 0, .little);
    try w.writeInt(u32, job.demand(), .little);
    try w.writeByte(@as(u8, @intFromBool(job.wantsParts())) | @as(u8, @intFromBool(job.wantsProgress())) << 1);
    try w.writeAll(&trace.trace_id);
    try w.writeAll(&trace.span_id);
    try w.writeByte(trace.flags);
    try job.answer(.raw, &answer);
}

// --- before the answer ---------------------------------------------------------------------------------------------------

/// Parts or reports as the payload asks for them, number i being bytes of i % 251.
const Said = struct {
    count: u32,
    bytes: usize,
    kind: rb.Kind,
    room: []u8 = &said_room,

    var said_room: [part_bytes_max + 5]u8 = undefined;

    fn of(job: *rb.Job, payload: []const u8) ?Said {
        const bytes = number(u32, payload, 4);
        if (bytes <= part_bytes_max)
            return .{ .count = number(u32, payload, 0), .bytes = bytes, .kind = if (payload[8] != 0) .term else .raw };
        job.fail(code_bad_payload, "parts of {d} bytes are more than this worker makes", .{bytes});
        return null;
    }

    fn at(said: Said, i: u32) []const u8 {
        @memset(said.room[5..][0..said.bytes], @intCast(i % pattern));
        if (said.kind == .raw) return said.room[5..][0..said.bytes];
        said.room[0] = binary_ext;
        std.mem.writeInt(u32, said.room[1..5], @intCast(said.bytes), .big);
        return said.room[0 .. 5 + said.bytes];
    }
};

fn emit(job: *rb.Job, payload: []const u8) !void {
    const said = Said.of(job, payload) orelse return;
    for (0..said.count) |i| {
        job.emit(said.kind, said.at(@intCast(i))) catch |why| return refusedPart(job, i, why);
        try job.checkCancelled();
    }
    job.done();
}

fn progress(job: *rb.Job, payload: []const u8) !void {
    const said = Said.of(job, payload) orelse return;
    var kept: u32 = 0;
    for (0..said.count) |i| {
        if (job.progress(said.kind, said.at(@intCast(i)))) {
            kept += 1;
        } else |why| if (why != error.Dropped) return refusedPart(job, i, why);
        try job.checkCancelled();
    }
    try job.answer(.raw, &std.mem.toBytes(std.mem.nativeToLittle(u32, kept)));
}

fn refusedPart(job: *rb.Job, i: usize, why: anyerror) anyerror!void {
    if (why == error.Cancelled) return why;
    job.fail(code_refused, "number {d}: {s}", .{ i, @errorName(why) });
}

// --- how it ends ---------------------------------------------------------------------------------------------------------

fn end(job: *rb.Job, payload: []const u8) !void {
    const value = payload[1];
    switch (payload[0]) {
        0 => linux.exit_group(value),
        1 => raise(value),
        2 => return, // without an answer
        3 => @panic("as the job language asks for"),
        else => {},
    }
    job.fail(code_bad_payload, "end {d} {d} does not end a process", .{ payload[0], value });
}

/// In its default meaning, whatever Zig's start has made of it. (SIGKILL and SIGSTOP have no other, and may not be named.)
fn raise(signal: u8) void {
    if (signal == 0 or signal > 64) return;
    const default: linux.Sigaction = .{ .handler = .{ .handler = linux.SIG.DFL }, .mask = linux.sigemptyset(), .flags = 0 };
    if (signal != 9 and signal != 19) _ = linux.sigaction(@fromBackingInt(signal), &default, null);
    _ = linux.kill(linux.getpid(), @fromBackingInt(signal));
}

fn hold(job: *rb.Job, payload: []const u8) !void {
    const until = rb.now() + @as(u64, number(u32, payload, 0)) * std.time.ns_per_ms;
    while (rb.now() < until) {}
    job.done();
}

fn pulse(job: *rb.Job, payload: []const u8) !void {
    for (0..number(u32, payload, 0)) |_| job.pulse();
    job.done();
}

fn ready(job: *rb.Job, payload: []const u8) !void {
    rb.setReady(payload[0] != 0);
    job.done();
}

// --- over the channel ----------------------------------------------------------------------------------------------------

pub fn answerAsTold(job: *rb.Job, told: anyerror!void) !void {
    if (told) |_| {
        job.done();
    } else |why| {
        if (why == error.Cancelled) return why;
        job.fail(code_refused, "{s}", .{@errorName(why)});
    }
}

/// The parts of a state, one behind the other.
const Loaded = struct {
    bytes: std.ArrayList(u8) = .empty,

    const memory = std.heap.page_allocator;

    fn keep(l: *Loaded, _: rb.StateKind, part: []const u8) !void {
        try l.bytes.appendSlice(memory, part);
    }
};

fn checkpoint(job: *rb.Job, payload: []const u8) !void {
    switch (payload[0]) {
        0 => try answerAsTold(job, job.checkpoint(.full, payload[1..])),
        1 => try answerAsTold(job, job.checkpoint(.increment, payload[1..])),
        2 => {
            var loaded: Loaded = .{};
            defer loaded.bytes.deinit(Loaded.memory);
            job.loadState(&loaded, Loaded.keep) catch |why| return answerAsTold(job, why);
            try job.answer(.raw, loaded.bytes.items);
        },
        else => |what| job.fail(code_bad_payload, "a checkpoint is 0, 1 or 2, got {d}", .{what}),
    }
}

/// A destination of `size` bytes in front, and the term behind it.
fn split(job: *rb.Job, rest: []const u8, size: u32) ?struct { rb.Dest, []const u8 } {
    if (size <= rest.len) return .{ .{ .term = rest[0..size] }, rest[size..] };
    job.fail(code_bad_payload, "a destination of {d} bytes in {d}", .{ size, rest.len });
    return null;
}

fn call(job: *rb.Job, payload: []const u8) !void {
    const to, const request = split(job, payload[8..], number(u32, payload, 4)) orelse return;
    const reply = job.call(to, request, .{ .timeout_ms = number(u32, payload, 0) }) catch |why| return answerAsTold(job, why);
    defer reply.deinit();
    try job.answer(.term, reply.term);
}

fn send(job: *rb.Job, payload: []const u8) !void {
    const to, const message = split(job, payload[4..], number(u32, payload, 0)) orelse return;
    try answerAsTold(job, job.send(to, message));
}

fn log(job: *rb.Job, payload: []const u8) !void {
    const level = std.enums.fromInt(rb.Level, payload[0]) orelse
        return job.fail(code_bad_payload, "a level is 0 to 3, got {d}", .{payload[0]});
    try answerAsTold(job, job.log(level, "{s}", .{payload[1..]}));
}
