//! A thread that writes the telemetry block every 500 ms, so that a handler which runs for minutes is told apart from a worker
//! that hangs in the kit or is stopped. Telemetry has one writer at a time: this thread, and before its start and after its end
//! the worker's own.
const std = @import("std");
const linux = std.os.linux;
const layout = @import("layout.zig");
const os = @import("os.zig");
const telemetry = @import("telemetry.zig");
const Worker = @import("worker.zig").Worker;

const Heartbeat = @This();

// Of the process, as readiness may be told before there is a worker. seq_cst, both: whoever of setReady() and start() comes
// second sees the other's store, so that no change goes untold.
var unready: u32 = 0;
var of_process: ?*Worker = null;

/// The worker of this process while its heart beats.
pub fn worker() ?*Worker {
    return @atomicLoad(?*Worker, &of_process, .seq_cst); // as above
}

/// Told by a beat at once. Any thread.
pub fn setReady(ready: bool) void {
    @atomicStore(u32, &unready, @intFromBool(!ready), .seq_cst); // as above
    if (worker()) |w| w.heartbeat.tell(hurried);
}

const period_ns = layout.heartbeat_ms * std.time.ns_per_ms;
const stack_bytes = 128 << 10;

/// What the thread is to do at once, as bits of its futex word.
const hurried = 1;
const ending = 2;

thread: std.Thread = undefined,
beats: u64 = 0,
told: u32 = 0,
/// chaos.zig; relaxed: it says something by itself.
silent_until: u64 = 0,

/// The first beat is made before it returns. Signals are the handler's thread's: one that is meant to end or to wake the worker
/// must not be taken here.
pub fn start(h: *Heartbeat, w: *Worker) std.Thread.SpawnError!void {
    @atomicStore(?*Worker, &of_process, w, .seq_cst); // as above
    h.beat(w);
    const all = linux.sigfillset();
    var before: linux.sigset_t = undefined;
    _ = linux.sigprocmask(linux.SIG.SETMASK, &all, &before);
    defer _ = linux.sigprocmask(linux.SIG.SETMASK, &before, null);
    h.thread = try .spawn(.{ .stack_size = stack_bytes }, run, .{ h, w });
}

/// After a last beat, with all jobs counted.
pub fn stop(h: *Heartbeat, w: *Worker) void {
    @atomicStore(?*Worker, &of_process, null, .seq_cst); // as above
    h.tell(ending);
    h.thread.join();
    h.beSilentUntil(0);
    h.beat(w);
}

fn tell(h: *Heartbeat, bit: u32) void {
    // B0: pairs with B1 in run(): what was stored before it is in the beat that it brings about.
    _ = @atomicRmw(u32, &h.told, .Or, bit, .release);
    _ = linux.futex_3arg(&h.told, .{ .cmd = .WAKE, .private = true }, 1);
}

fn run(h: *Heartbeat, w: *Worker) void {
    var next = os.now() + period_ns;
    while (true) {
        const until = os.timespec(next);
        const wait: linux.FUTEX_OP = .{ .cmd = .WAIT_BITSET, .private = true };
        // The deadline is absolute, on CLOCK_MONOTONIC. Whatever ends the wait, the word and the clock say what to do.
        _ = linux.futex(&h.told, wait, 0, .{ .timeout = &until }, null, std.math.maxInt(u32));
        // B1: pairs with B0. Only the hurry is taken back.
        const told = @atomicRmw(u32, &h.told, .And, ~@as(u32, hurried), .acquire);
        if (told & ending != 0) return;
        const due = os.now() >= next;
        if (due or told & hurried != 0) h.beat(w);
        if (told & hurried != 0) w.link.fds.knock(); // no position tells it
        if (due) next += period_ns;
    }
}

/// No beat before that, but for the last one.
pub fn beSilentUntil(h: *Heartbeat, ns: u64) void {
    @atomicStore(u64, &h.silent_until, ns, .monotonic); // as above
}

fn beat(h: *Heartbeat, w: *Worker) void {
    if (os.now() < @atomicLoad(u64, &h.silent_until, .monotonic)) return; // as above
    const c = &w.counters;
    h.beats += 1;
    // Relaxed, all of them: each word says something by itself, and one beat may well be a job behind.
    const started = @atomicLoad(u64, &c.started, .monotonic);
    const tail = @atomicLoad(u64, &w.link.theirs.request_tail, .monotonic);
    var values = std.mem.zeroes(layout.Telemetry);
    values.gate = @atomicLoad(u32, &c.gate, .monotonic);
    values.heartbeats = h.beats;
    values.heartbeat_ns = os.now();
    values.jobs = @atomicLoad(u64, &c.jobs, .monotonic);
    values.failed = @atomicLoad(u64, &c.failed, .monotonic);
    values.run_ns = @atomicLoad(u64, &c.run_ns, .monotonic);
    values.queued = std.math.lossyCast(u32, tail -| started);
    values.last_code = @atomicLoad(u32, &c.last_code, .monotonic);
    values.unready = @atomicLoad(u32, &unready, .seq_cst); // as above
    telemetry.store(w.link.telemetry, values);
}
