//! What a job says before its answer: parts, for which it waits to be asked, and progress, which never waits.
//!
//! Both are completions that are not final. Their room in the result region is their own, so a reservation for the answer stays
//! as it is while they are sent.
const layout = @import("layout.zig");
const os = @import("os.zig");
const Job = @import("job.zig");

// --- parts ---------------------------------------------------------------------------------------------------------------

/// The job belongs to a stream (docs/streams.md): its parts are its answer. Else it wants one answer.
pub fn wantsParts(job: *const Job) bool {
    return job.request.flags & layout.flag_parts != 0;
}

/// How many parts can be sent now without waiting.
pub fn demand(job: *const Job) u32 {
    if (!wantsParts(job)) return 0;
    // D1: pairs with D0 in the relay's rb_stream_grant(). seq_cst, since a gate waits for it (gate.zig, G5). Nothing else is
    // read on the strength of it.
    const word = @atomicLoad(u64, &job.worker.link.demands[job.slot], .seq_cst);
    return left(.{ .parts = @truncate(word), .position = @intCast(word >> 32) }, @truncate(job.position), job.parts);
}

/// How many more than `sent` a demand word allows the job at `position`: all parts are counted since its beginning, freely.
/// None where it is the slot's last job's.
fn left(word: layout.Demand, position: u32, sent: u32) u32 {
    const distance: i32 = @bitCast(word.parts -% sent);
    return if (word.position != position or distance < 0) 0 else @intCast(distance);
}

/// Sends one part, which becomes one event of the consumer. Waits until the consumer has asked for it. Cancelled: the consumer
/// left, the deadline passed or the worker is told to stop; a handler may simply return it. TooLarge: a part is at most 1 MiB
/// and must fit into the result region. NotWanted: nobody wants parts of this job. A reservation for the answer stays.
pub fn emit(job: *Job, kind: Job.Kind, bytes: []const u8) error{ Cancelled, TooLarge, NotWanted }!void {
    if (job.state == .answered) job.misused("a part was sent after the answer");
    if (!wantsParts(job)) return error.NotWanted;
    if (bytes.len > layout.part_bytes_max) return error.TooLarge;
    const block = roomForPart(job, bytes.len) catch |why| {
        if (why == error.Cancelled) job.refused = error.Cancelled; // for a handler that returns nothing now
        return why;
    };
    job.parts +%= 1;
    job.pulse();
    send(job, layout.status_part, kind, bytes, block);
}

/// Waits for demand, and then for room: the first block, or null for the envelope.
fn roomForPart(job: *Job, size: usize) Job.RoomError!?u32 {
    try waitForDemand(job);
    return if (size > layout.inline_bytes_max) try job.takeBlocks(size) else null;
}

fn readyWithDemand(job: *Job) bool {
    return demand(job) > 0 or job.isCancelled();
}

fn waitForDemand(job: *Job) error{Cancelled}!void {
    while (true) { // bound: demand, a cancel, a stop or the deadline
        try job.checkCancelled();
        if (demand(job) > 0) return;
        job.worker.publish(); // who asks for more has to see what there was
        // Demand, a cancel and a stop ring; the deadline does not.
        const timeout_ns = if (job.deadline()) |at| at -| os.now() else null;
        _ = job.worker.link.waiter.wait(job, readyWithDemand, timeout_ns);
    }
}

// --- progress ------------------------------------------------------------------------------------------------------------

/// The caller hears of the job's progress ({:submit_async, ...}).
pub fn wantsProgress(job: *const Job) bool {
    return job.request.flags & layout.flag_progress != 0;
}

/// Tells the caller how far the job is, at once or not at all. Nothing happens where nobody wants to hear it. Dropped: there
/// was no room. TooLarge: more than 4096 bytes.
pub fn progress(job: *Job, kind: Job.Kind, bytes: []const u8) error{ Dropped, TooLarge }!void {
    if (job.state == .answered) job.misused("progress was reported after the answer");
    job.pulse();
    if (!wantsProgress(job)) return;
    if (bytes.len > layout.progress_bytes_max) return error.TooLarge;
    const w = job.worker;
    if (w.completionsFree() == 0) return error.Dropped;
    var block: ?u32 = null;
    if (bytes.len > layout.inline_bytes_max) {
        w.takeGivebacks();
        block = w.link.region.take(bytes.len) catch return error.Dropped;
    }
    send(job, layout.status_progress, kind, bytes, block);
}

/// Sends a copy of the bytes, in the blocks from `block` on, or else in the envelope.
fn send(job: *Job, status: u16, kind: Job.Kind, bytes: []const u8, block: ?u32) void {
    const link = &job.worker.link;
    var c = Job.blank(status, kind);
    var placed = bytes;
    if (block) |first| {
        c.payload_at = @as(u64, first) * link.header.result_block_bytes;
        const room = link.results[c.payload_at..][0..bytes.len];
        @memcpy(room, bytes);
        placed = room;
    }
    const now = os.now();
    job.put(&c, placed, now);
    job.worker.publishSoon(now);
}

const testing = @import("std").testing;

test "a demand word allows by distance, and only its own position's job" {
    try testing.expectEqual(3, left(.{ .position = 7, .parts = 5 }, 7, 2));
    try testing.expectEqual(0, left(.{ .position = 7, .parts = 5 }, 7, 5));
    try testing.expectEqual(0, left(.{ .position = 7, .parts = 5 }, 7, 6)); // taken back
    try testing.expectEqual(0, left(.{ .position = 6, .parts = 5 }, 7, 0));
    try testing.expectEqual(4, left(.{ .position = 7, .parts = 1 }, 7, 0xffff_fffd)); // over the end of 32 bits
}
