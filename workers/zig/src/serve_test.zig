//! The loop and what handlers mean by what they return, on a link made in this process: requests are put into the ring, the
//! worker is told to drain, and what it has published is looked at.
const std = @import("std");
const linux = std.os.linux;
const envelope = @import("envelope.zig");
const layout = @import("layout.zig");
const os = @import("os.zig");
const Job = @import("job.zig");
const Link = @import("link.zig");
const Parts = @import("parts.zig");
const Worker = @import("worker.zig").Worker;

const testing = std.testing;
const features = layout.feature_crc_envelope | layout.feature_crc_payload;
const sizes: Parts.Sizes = .{ .slots = 8, .result_block_bytes = 4096, .result_bytes = 16 * 4096 };

/// The relay's side, and the worker on it.
const Bench = struct {
    relay: os.Memory,
    parts: Parts,
    worker: Worker,
    put_count: u64 = 0,

    fn init(change: ?*const fn (*layout.RelayHeader) void) !Bench {
        const parts: Parts = try .of(sizes);
        const relay_fd = try memory(parts.relay_side_bytes);
        const worker_fd = try memory(parts.worker_side_bytes);
        const relay = try os.map(relay_fd, parts.relay_side_bytes, .read_write);
        const header: *layout.RelayHeader = @ptrCast(relay.ptr);
        header.* = headerOf(&parts);
        if (change) |spoil| spoil(header);
        var why: Link.Why = .{};
        const fds: Link.Fds = .{
            .relay_side = relay_fd,
            .worker_side = worker_fd,
            .pool = null,
            .wake_worker = null,
            .wake_relay = null,
            .channel = null,
        };
        const link = try Link.attach(fds, testing.allocator, &why);
        return .{ .relay = relay, .parts = parts, .worker = .{ .link = link, .short_jobs = false } };
    }

    fn deinit(b: *Bench) void {
        os.close(b.worker.link.fds.relay_side);
        os.close(b.worker.link.fds.worker_side);
        b.worker.link.detach(testing.allocator);
        os.unmap(b.relay);
    }

    fn positions(b: *Bench) *layout.RelayPositions {
        return @ptrCast(@alignCast(b.relay[layout.at_positions..].ptr));
    }

    fn put(b: *Bench, opcode: u16, payload: []const u8) void {
        var e = std.mem.zeroes(layout.Request);
        b.put_count += 1;
        e.job = 100 + b.put_count;
        e.opcode = opcode;
        e.flags = layout.flag_inline;
        e.payload_bytes = @intCast(payload.len);
        @memcpy(e.body[0..payload.len], payload);
        e.crc = envelope.ofRequest(&e, payload, features);
        const requests: [*]layout.Request = @ptrCast(@alignCast(b.relay[b.parts.requests_at..].ptr));
        requests[(b.put_count - 1) % sizes.slots] = e;
    }

    /// Publishes what was put and has it served to the end.
    fn serve(b: *Bench, comptime handle: fn (void, *Job) anyerror!void) void {
        // One thread: the orders are those of the relay, R0 and G0, and pair with nothing here.
        @atomicStore(u64, &b.positions().request_tail, b.put_count, .seq_cst);
        @atomicStore(u32, &b.positions().control, layout.control_drain, .seq_cst);
        b.worker.serve({}, handle);
    }

    fn answer(b: *Bench, i: usize) *const layout.Completion {
        return &b.worker.link.completions.slots[i];
    }

    fn expectFailure(b: *Bench, i: usize, code: u16, message: []const u8) !void {
        const c = b.answer(i);
        try testing.expectEqual(layout.status_failed, c.status);
        try testing.expectEqual(code, c.code);
        const bytes = if (c.flags & layout.flag_inline != 0) &c.body else b.worker.link.results[c.payload_at..];
        try testing.expectEqualStrings(message, bytes[0..c.payload_bytes]);
    }
};

fn memory(bytes: u64) !os.Fd {
    const fd = try os.memfd("a link of a test");
    if (linux.errno(linux.ftruncate(fd, @intCast(bytes))) != .SUCCESS) return error.SystemResources;
    const add_seals = 1033;
    _ = linux.fcntl(fd, add_seals, 0x1 | 0x2 | 0x4); // SEAL, SHRINK, GROW
    return fd;
}

fn headerOf(parts: *const Parts) layout.RelayHeader {
    var h = std.mem.zeroes(layout.RelayHeader);
    h.magic = layout.relay_magic;
    h.version = layout.layout_version;
    h.digest = layout.layout_digest;
    h.slots = sizes.slots;
    h.nonce = 42;
    h.features = features;
    h.result_bytes = sizes.result_bytes;
    h.result_block_bytes = sizes.result_block_bytes;
    h.result_blocks = @intCast(sizes.result_bytes / sizes.result_block_bytes);
    inline for (.{
        "requests_at",      "cancels_at",     "demands_at", "givebacks_at",
        "relay_side_bytes", "completions_at", "results_at", "worker_side_bytes",
    }) |name| @field(h, name) = @field(parts, name);
    return h;
}

// --- what a handler's return means ---------------------------------------------------------------------------------------

fn returning(_: void, job: *Job) anyerror!void {
    switch (job.opcode()) {
        0 => try job.answer(.raw, job.payload()),
        1 => return error.OutOfTune,
        2 => return error.Cancelled,
        3 => {},
        4 => _ = try job.reserve(17 * 4096),
        5 => _ = job.reserve(17 * 4096) catch {},
        6 => {
            _ = try job.reserve(100_000 / 2);
            return error.OutOfTune;
        },
        else => job.fail(7, "{s} is refused", .{job.payload()}),
    }
}

test "what a handler returns is the answer where it has given none" {
    var b: Bench = try .init(null);
    defer b.deinit();
    for (0..8) |opcode| b.put(@intCast(opcode), "hello");
    b.serve(returning);
    try testing.expectEqual(8, b.worker.link.completions.tail);
    for (0..8) |i| try testing.expectEqual(101 + i, b.answer(i).job);
    try testing.expectEqual(layout.status_ok, b.answer(0).status);
    try testing.expectEqualStrings("hello", b.answer(0).body[0..5]);
    try b.expectFailure(1, Job.code_handler_error, "the handler returned error.OutOfTune");
    try testing.expectEqual(layout.status_cancelled, b.answer(2).status);
    try b.expectFailure(3, Job.code_no_answer, "the handler returned without an answer");
    const too_large = "an answer of 69632 bytes does not fit into a result region of 65536";
    try b.expectFailure(4, Job.code_answer_too_large, too_large);
    try b.expectFailure(5, Job.code_answer_too_large, too_large);
    try b.expectFailure(6, Job.code_handler_error, "the handler returned error.OutOfTune");
    try b.expectFailure(7, 7, "hello is refused");
    // What the one that failed had reserved is free; the two long messages have a block each until they are given back.
    try testing.expectEqual(2, b.worker.link.region.taken);
    try testing.expectEqual(8, b.worker.counters.jobs);
    try testing.expectEqual(8, b.worker.link.ours.started);
    try testing.expectEqual(8, b.worker.link.ours.request_head);
}

fn lateError(_: void, job: *Job) anyerror!void {
    job.done();
    return error.TooLate;
}

test "an error after the answer changes nothing" {
    var b: Bench = try .init(null);
    defer b.deinit();
    b.put(0, "");
    b.serve(lateError);
    try testing.expectEqual(1, b.worker.link.completions.tail);
    try testing.expectEqual(layout.status_ok, b.answer(0).status);
}

// --- room ----------------------------------------------------------------------------------------------------------------

fn reserving(_: void, job: *Job) anyerror!void {
    const first = try job.reserve(3 * 4096);
    const second = try job.reserve(5 * 4096); // in its place
    std.debug.assert(first.len < second.len);
    @memset(second, 'x');
    job.complete(.term, if (job.opcode() == 0) 4097 else 64);
}

test "only the blocks that the answer fills stay taken" {
    var b: Bench = try .init(null);
    defer b.deinit();
    b.put(0, "");
    b.put(1, "");
    b.serve(reserving);
    try testing.expectEqual(2, b.worker.link.region.taken);
    try testing.expectEqual(4097, b.answer(0).payload_bytes);
    try testing.expectEqual(layout.flag_term, b.answer(0).flags);
    try testing.expectEqual(layout.flag_term | layout.flag_inline, b.answer(1).flags);
    try testing.expectEqualStrings(&@as([64]u8, @splat('x')), &b.answer(1).body);
}

// --- the header ----------------------------------------------------------------------------------------------------------

test "a header that breaks a rule is refused, and a later minor is not" {
    const spoil = struct {
        fn magic(h: *layout.RelayHeader) void {
            h.magic = 0;
        }
        fn place(h: *layout.RelayHeader) void {
            h.results_at += 4096;
        }
        fn feature(h: *layout.RelayHeader) void {
            h.features |= 1 << 40;
        }
        fn laterMinor(h: *layout.RelayHeader) void {
            h.version += 1;
            h.digest[0] ^= 1;
            h.features |= 1 << 40;
        }
    };
    try testing.expectError(error.Refused, Bench.init(spoil.magic));
    try testing.expectError(error.Refused, Bench.init(spoil.place));
    try testing.expectError(error.Refused, Bench.init(spoil.feature));
    var b: Bench = try .init(spoil.laterMinor);
    defer b.deinit();
    try testing.expectEqual(features, b.worker.link.header.features);
}
