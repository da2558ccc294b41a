//! One job: what a handler may ask of it, and its one answer.
//!
//! Who owns a block of the result region is known from the bitmap in our private memory: taken at the reservation, ours until
//! the completion is published, the bridge's until it is given back. The bridge counts a completion's blocks from its size, so
//! a reservation is cut to what was used before it is published.
const std = @import("std");
const envelope = @import("envelope.zig");
const layout = @import("layout.zig");
const os = @import("os.zig");
const channel = @import("channel.zig");
const part = @import("part.zig");
const state_of = @import("state.zig");
const peer_serve = @import("peer_serve.zig");
const Peer = @import("peer.zig");
const Region = @import("region.zig");
const workers = @import("worker.zig");
const Worker = workers.Worker;

const Job = @This();

/// What the bytes are: as the caller sent or gets them, or external term bytes without the leading 131.
pub const Kind = enum { raw, term };

/// W3C traceparent; a trace id of zeros: none.
pub const Trace = struct { trace_id: [16]u8, span_id: [8]u8, flags: u8 };

/// Codes of failed jobs from here on are the kit's; those below are the worker's.
pub const code_kit = 65280;
/// reserve() said TooLarge, and the handler returned.
pub const code_answer_too_large = 65280;
/// The handler returned without an answer.
pub const code_no_answer = 65281;
/// The handler returned an error, whose name is the message.
pub const code_handler_error = 65282;

/// Longer messages of fail() are cut.
pub const message_bytes_max = 1024;

/// A cancelled job notices within this time; a worker asleep in one job costs 200 wake-ups a second.
const sleep_slice_ns = 5 * std.time.ns_per_ms;

// What is below is the kit's own.

worker: *Worker,
/// A private copy.
request: layout.Request,
payload_bytes: []const u8,
/// Another worker's request, over a link; null: a job of the bridge's.
asked: ?*peer_serve.Asked = null,
/// In the request ring.
slot: usize,
position: u64,
/// Sent, since the job began; runs freely.
parts: u32,
drained_ns: u64,
start_ns: u64,
state: State,
/// What the last reservation or part that was refused was refused for.
refused: ?error{ Cancelled, TooLarge },
/// Its size.
wanted: u64,

const State = union(enum) { open, reserved: Reserved, answered };
/// Blocks of the result region, or else the answer lies in `inline_bytes`.
const Reserved = struct { bytes: u64, first_block: ?u32, inline_bytes: [layout.inline_bytes_max]u8 = undefined };

/// The job of the i-th readable request.
pub inline fn init(w: *Worker, i: u64, drained_ns: u64) Job {
    return .{
        .worker = w,
        .request = w.link.requests.at(i).*,
        .payload_bytes = &.{},
        .slot = w.link.requests.index(i),
        .position = w.link.requests.head +% i,
        .parts = 0,
        .drained_ns = drained_ns,
        .start_ns = w.now_ns,
        .state = .open,
        .refused = null,
        .wanted = 0,
    };
}

/// The job that another worker asks for.
pub fn ofPeer(w: *Worker, asked: *peer_serve.Asked, request: layout.Request, bytes: []const u8, now: u64) Job {
    return .{
        .worker = w,
        .asked = asked,
        .request = request,
        .payload_bytes = bytes,
        .slot = 0,
        .position = 0,
        .parts = 0,
        .drained_ns = now,
        .start_ns = now,
        .state = .open,
        .refused = null,
        .wanted = 0,
    };
}

// --- what a handler may ask ----------------------------------------------------------------------------------------------

/// The bridge's number for it, as in its logs.
pub fn id(job: *const Job) u64 {
    return job.request.job;
}

pub fn opcode(job: *const Job) u16 {
    return job.request.opcode;
}

/// The payload where it lies, until the answer is given: no copy. It comes from a caller, so it is a stranger's.
pub fn payload(job: *const Job) []const u8 {
    return job.payload_bytes;
}

pub fn payloadKind(job: *const Job) Kind {
    return if (job.request.flags & layout.flag_term != 0) .term else .raw;
}

/// CLOCK_MONOTONIC, in ns; null: none.
pub fn deadline(job: *const Job) ?u64 {
    return if (job.request.deadline_ns == 0) null else job.request.deadline_ns;
}

pub fn trace(job: *const Job) Trace {
    return .{ .trace_id = job.request.trace_id, .span_id = job.request.span_id, .flags = job.request.trace_flags };
}

/// Nobody wants the answer any more: the caller gave up or died, the deadline passed, or the worker is told to stop. A load or
/// two, and a look at the clock (25 ns) when there is a deadline: often is fine. The one call that other threads of the handler
/// may make too, while it has not returned.
pub fn isCancelled(job: *const Job) bool {
    // C1: pairs with C0 in the relay's stop_running(). The word holds the id of the job to stop, so what was written for an
    // earlier job of this slot means nothing to us. Nothing else is read on the strength of it; seq_cst, since gates wait for
    // it (G5).
    const taken_back = if (job.asked) |asked|
        asked.isTakenBack()
    else
        @atomicLoad(u64, &job.worker.link.cancels[job.slot], .seq_cst) == job.request.job;
    if (taken_back) return true;
    if (job.worker.control() == layout.control_stop) return true;
    return job.request.deadline_ns != 0 and os.now() >= job.request.deadline_ns;
}

/// The same as an error, which a handler may simply return.
pub fn checkCancelled(job: *const Job) error{Cancelled}!void {
    if (job.isCancelled()) return error.Cancelled;
}

/// Sleeps, unless the job is cancelled (noticed within 5 ms).
pub fn sleep(job: *const Job, ns: u64) error{Cancelled}!void {
    const end = os.now() +| ns;
    while (true) {
        const left = end -| os.now();
        if (left == 0) return job.checkCancelled();
        // By the gate, so that a bridge which rings after a cancel is heard at once; in slices, as it need not ring.
        if (job.worker.link.waiter.wait(job, isCancelled, @min(left, sleep_slice_ns))) return error.Cancelled;
    }
}

/// Says that the job gets on, for its role's progress_timeout_ms. Parts and progress say so, too. Any thread of the handler
/// may.
pub fn pulse(job: *const Job) void {
    // Relaxed, and atomic since threads of the handler may call: the relay looks for a change (relay/dispatch/vitals.c) and
    // reads nothing on the strength of it.
    _ = @atomicRmw(u64, &job.worker.link.ours.pulse, .Add, 1, .monotonic);
}

// --- before the answer (part.zig) ----------------------------------------------------------------------------------------

pub const wantsParts = part.wantsParts;
pub const demand = part.demand;
pub const emit = part.emit;
pub const wantsProgress = part.wantsProgress;
pub const progress = part.progress;

// --- beside the answer (channel.zig, state.zig, peer.zig) --------------------------------------------------------------------------

pub const send = channel.send;
pub const call = channel.call;
pub const log = channel.log;
pub const checkpoint = state_of.checkpoint;
pub const loadState = state_of.load;
pub const awaitState = state_of.awaitState;
pub const openPeer = Peer.open;

/// For what was given up since the job is cancelled: a handler may then return nothing, too.
pub fn noteCancel(job: *Job, why: anytype) @TypeOf(why) {
    if (why == error.Cancelled) job.refused = error.Cancelled;
    return why;
}

// --- the answer ----------------------------------------------------------------------------------------------------------

/// TooLarge: it would never fit. Cancelled: nobody wants it any more. A handler may simply return either: the kit answers for
/// it.
pub const RoomError = error{ TooLarge, Cancelled };

/// Room for an answer of `size` bytes, read by the bridge from where it lies: no further copy. Waits while the region is full
/// of answers that the bridge still sends. A second call replaces the first.
pub fn reserve(job: *Job, size: usize) RoomError![]u8 {
    if (job.state == .answered) job.misused("room was asked for after the answer");
    job.dropReservation();
    return job.takeRoom(size) catch |why| {
        job.wanted = size;
        job.refused = why;
        return why;
    };
}

fn takeRoom(job: *Job, size: usize) RoomError![]u8 {
    var first: ?u32 = null;
    var room: ?[]u8 = null;
    if (size > layout.inline_bytes_max) {
        if (job.asked) |asked| {
            room = try asked.takeRoom(size);
        } else {
            // A completion's size has 32 bits.
            first = if (size > std.math.maxInt(u32)) return error.TooLarge else try job.takeBlocks(size);
            room = job.blocks(first.?)[0..size];
        }
    }
    job.state = .{ .reserved = .{ .bytes = size, .first_block = first } };
    return room orelse job.state.reserved.inline_bytes[0..size];
}

/// Answers with the first `size` bytes of what was reserved. Terms are checked by the bridge before they leave.
pub fn complete(job: *Job, kind: Kind, size: usize) void {
    job.answerReserved(layout.status_ok, 0, kind, size);
}

/// Reserve, copy, complete in one.
pub fn answer(job: *Job, kind: Kind, bytes: []const u8) RoomError!void {
    @memcpy(try job.reserve(bytes.len), bytes);
    job.complete(kind, bytes.len);
}

/// Answers with no bytes: the end of a job that has said in parts what it had to say.
pub fn done(job: *Job) void {
    job.answerEmpty(layout.status_ok);
}

/// {:error, :cancelled}, or nothing at all where nobody waits.
pub fn cancelled(job: *Job) void {
    job.answerEmpty(layout.status_cancelled);
}

/// {:error, {:job_failed, code, message}}. Codes from code_kit on are the kit's.
pub fn fail(job: *Job, code: u16, comptime format: []const u8, arguments: anytype) void {
    if (job.state == .answered) job.misused("it was answered twice");
    var message: [message_bytes_max]u8 = undefined;
    var w: std.Io.Writer = .fixed(&message);
    w.print(format, arguments) catch {}; // cut
    const text = w.buffered();
    const room = job.reserve(text.len) catch return job.cancelled(); // no room before the cancel came
    @memcpy(room, text);
    job.answerReserved(layout.status_failed, code, .raw, text.len);
}

/// What a handler that has returned means.
pub fn settle(job: *Job, returned: anyerror!void) void {
    if (job.state == .answered) {
        const worker_id = job.worker.link.header.worker_id;
        return returned catch |why|
            os.complain("worker {d}: job {d}: error.{s} after its answer", .{ worker_id, job.id(), @errorName(why) });
    }
    if (returned) |_| {
        const why = job.refused orelse return job.fail(code_no_answer, "the handler returned without an answer", .{});
        job.answerRefused(why);
    } else |why| switch (why) {
        error.Cancelled => job.cancelled(),
        error.TooLarge => if (job.refused) |_| job.answerRefused(error.TooLarge) else job.failByName(why),
        else => job.failByName(why),
    }
}

fn answerRefused(job: *Job, why: RoomError) void {
    switch (why) {
        error.Cancelled => job.cancelled(),
        error.TooLarge => job.fail(
            code_answer_too_large,
            "an answer of {d} bytes does not fit into a result region of {d}",
            .{ job.wanted, if (job.asked != null) Peer.bytes_max else job.worker.link.header.result_bytes },
        ),
    }
}

fn failByName(job: *Job, why: anyerror) void {
    job.fail(code_handler_error, "the handler returned error.{s}", .{@errorName(why)});
}

// --- room ----------------------------------------------------------------------------------------------------------------

fn blocks(job: *const Job, first: u32) []u8 {
    const link = &job.worker.link;
    return link.results[@as(u64, first) * link.header.result_block_bytes ..];
}

/// The first block of room for `size` bytes in the result region; waits for give-backs.
pub fn takeBlocks(job: *Job, size: u64) RoomError!u32 {
    const w = job.worker;
    while (true) { // bound: the bridge gives back what it was given, or the job is cancelled
        return w.link.region.take(size) catch |why| switch (why) {
            error.TooLarge => return error.TooLarge,
            error.Full => {
                w.publish(); // what we hold back ourselves cannot come back
                if (!w.link.waiter.wait(job, readyWithGivebacks, workers.room_slice_ns)) continue;
                w.takeGivebacks();
                try job.checkCancelled();
                continue;
            },
        };
    }
}

fn readyWithGivebacks(job: *Job) bool {
    const count = job.worker.link.givebacks.available() catch return true; // takeGivebacks() says so
    return count != 0 or job.isCancelled();
}

fn dropReservation(job: *Job) void {
    if (job.asked) |asked| asked.dropRoom();
    switch (job.state) {
        .reserved => |r| if (r.first_block) |first| job.giveUp(first, job.worker.link.region.blocksFor(r.bytes)),
        .open, .answered => {},
    }
    job.state = .open;
}

/// Blocks of ours that the bridge has not seen.
fn giveUp(job: *Job, first: u32, count: u32) void {
    job.worker.link.region.give(.{ .first = first, .count = count }) catch unreachable;
}

// --- completions ---------------------------------------------------------------------------------------------------------

fn answerReserved(job: *Job, status: u16, code: u16, kind: Kind, size: usize) void {
    const reserved = switch (job.state) {
        .reserved => |*r| r,
        .open => job.misused("nothing was reserved for the answer"),
        .answered => job.misused("it was answered twice"),
    };
    if (size > reserved.bytes) job.misused("the answer is longer than what was reserved");
    var c = blank(status, kind);
    c.code = code;
    var bytes: []const u8 = reserved.inline_bytes[0..@min(size, layout.inline_bytes_max)];
    if (reserved.first_block) |first| {
        const region = &job.worker.link.region;
        const had = region.blocksFor(reserved.bytes);
        var kept: u32 = 0;
        bytes = job.blocks(first)[0..size];
        if (size > layout.inline_bytes_max) {
            kept = region.blocksFor(size);
            c.payload_at = @as(u64, first) * region.block_bytes;
        }
        job.publishAnswer(&c, bytes);
        // After the answer: what lay in them has been copied or summed. Nobody else takes blocks, so none can be ours twice.
        if (kept < had) job.giveUp(first + kept, had - kept);
    } else {
        if (reserved.bytes > layout.inline_bytes_max) bytes = job.asked.?.room[0..size];
        job.publishAnswer(&c, bytes);
    }
}

fn answerEmpty(job: *Job, status: u16) void {
    if (job.state == .answered) job.misused("it was answered twice");
    job.dropReservation();
    var c = blank(status, .raw);
    job.publishAnswer(&c, &.{});
}

pub inline fn blank(status: u16, kind: Kind) layout.Completion {
    var c = std.mem.zeroes(layout.Completion);
    c.status = status;
    c.flags = if (kind == .term) layout.flag_term else 0;
    return c;
}

/// Fills in the rest of the completion of `bytes`, which lie in the region at payload_at or else fit into the envelope. `now`
/// is the end of its making.
pub inline fn put(job: *Job, c: *layout.Completion, bytes: []const u8, now: u64) void {
    const w = job.worker;
    if (bytes.len <= layout.inline_bytes_max) {
        c.flags |= layout.flag_inline;
        @memcpy(c.body[0..bytes.len], bytes);
    }
    c.job = job.request.job;
    c.payload_bytes = @intCast(bytes.len);
    c.queue_ns = job.start_ns - job.drained_ns;
    c.run_ns = now - job.start_ns;
    c.crc = envelope.ofCompletion(c, bytes, w.link.header.features);
    w.claim().* = c.*;
}

inline fn publishAnswer(job: *Job, c: *layout.Completion, bytes: []const u8) void {
    const w = job.worker;
    const now = os.now();
    if (job.asked) |asked| {
        c.job = job.request.job;
        c.payload_bytes = @intCast(bytes.len);
        c.run_ns = now - job.start_ns;
        asked.answer(c, bytes);
        job.state = .answered;
        return;
    }
    job.put(c, bytes, now);
    job.state = .answered;
    w.counters.set("jobs", w.counters.jobs + 1);
    w.counters.set("run_ns", c.run_ns);
    if (c.status == layout.status_failed) {
        w.counters.set("failed", w.counters.failed + 1);
        w.counters.set("last_code", c.code);
    }
    w.now_ns = now;
    w.publishSoon(now);
}

/// The worker called the kit wrongly: a line on stderr, abort().
pub fn misused(job: *const Job, what: []const u8) noreturn {
    os.complain("worker {d}: job {d}: {s}", .{ job.worker.link.header.worker_id, job.id(), what });
    std.process.abort();
}
