//! Trouble on purpose (docs/chaos.md): the hooks that a bridge may switch on in a worker whose environment allows it
//! (docs/channel.md, "Hooks").
//!
//! Off, they cost nothing: where the environment allows them the loop is another one, with Troubled's handler in front of the
//! worker's own, so no job of a worker without them passes a line of this file. One hook of jobs at a time; the next one takes
//! its place.
const std = @import("std");
const linux = std.os.linux;
const envelope = @import("envelope.zig");
const gate = @import("gate.zig");
const layout = @import("layout.zig");
const os = @import("os.zig");
const Channel = @import("packet.zig");
const Job = @import("job.zig");
const Worker = @import("worker.zig").Worker;

const Chaos = @This();

const env_allowed = "RINGBRIDGE_CHAOS";
const body_bytes_max = 64;
const hour_ms = std.time.ms_per_hour;
const slice_ns = 10 * std.time.ns_per_ms;

/// In docs/channel.md's words.
const Hook = enum {
    stall,
    crash,
    oversize,
    corrupt,
    overrun,
    lost_wake,
    no_files,
    hold,
    silence,

    fn valueMax(hook: Hook) u64 {
        return switch (hook) {
            .stall, .hold, .silence => hour_ms,
            .crash => 64,
            .oversize, .overrun => 1 << 30,
            .corrupt => std.math.maxInt(u32),
            .lost_wake, .no_files => 1,
        };
    }
};

const Told = struct { hook: Hook, value: u64, jobs: u64 };

allowed: bool = false,
/// What is on, for so many jobs more.
armed: ?Told = null,

/// The hook of the next job.
fn next(c: *Chaos) ?Told {
    if (c.armed) |*told| {
        if (told.jobs > 0) {
            told.jobs -= 1;
            return told.*;
        }
    }
    return null;
}

/// Before the hello: may this worker be troubled? Such a one listens to its channel.
pub fn open(w: *Worker, environ: std.process.Environ) bool {
    const text = environ.getPosix(env_allowed) orelse return false;
    if (!std.mem.eql(u8, text, "1") or w.channel.fd == null) return false;
    w.chaos.allowed = true;
    w.channel.state.listens = true;
    return true;
}

/// Between two jobs: switches a hook on.
pub fn take(w: *Worker, in: *const Channel.Incoming) void {
    const c = &w.channel;
    if (!w.chaos.allowed) return c.refuse(w, in.head, layout.channel_error_unavailable, "chaos is not allowed here");
    const told = read(in.body) orelse
        return c.refuse(w, in.head, layout.channel_error_bad_request, "this kit has no such hook");
    switch (told.hook) {
        .silence => w.heartbeat.beSilentUntil(os.now() + told.value * std.time.ns_per_ms),
        .hold => {},
        else => w.chaos.armed = told,
    }
    if (in.head.id != 0) {
        // A channel that is closed, or a worker that is told to stop: nobody waits for it.
        c.send(.{ .w = w, .job = null }, .{ .kind = layout.packet_reply, .id = in.head.id }, &.{}, .for_ever) catch {};
    }
    if (told.hook == .hold) hold(w, told.value * std.time.ns_per_ms);
}

/// "NAME VALUE JOBS"; null: no hook of this kit's.
fn read(body: []const u8) ?Told {
    if (body.len > body_bytes_max) return null;
    var words = std.mem.splitScalar(u8, body, ' ');
    const hook = std.meta.stringToEnum(Hook, words.first()) orelse return null;
    const value = number(words.next()) orelse return null;
    const jobs = number(words.next()) orelse return null;
    if (words.next() != null or value > hook.valueMax()) return null;
    return .{ .hook = hook, .value = value, .jobs = jobs };
}

fn number(word: ?[]const u8) ?u64 {
    const digits = word orelse return null;
    for (digits) |c| if (!std.ascii.isDigit(c)) return null;
    return std.fmt.parseInt(u32, digits, 10) catch null;
}

fn nap(ns: u64) void {
    var left = os.timespec(ns);
    while (linux.errno(linux.nanosleep(&left, &left)) == .INTR) {}
}

/// Takes nothing from its ring, however full that is, until the time is over or the worker is to leave.
fn hold(w: *const Worker, ns: u64) void {
    const until = os.now() + ns;
    while (os.now() < until and w.control() == layout.control_run) nap(@min(slice_ns, until -| os.now()));
}

// --- in front of the worker's handler ------------------------------------------------------------------------------------

pub fn Troubled(comptime Context: type, comptime usual: fn (Context, *Job) anyerror!void) type {
    return struct {
        context: Context,

        const Self = @This();

        pub fn handle(t: *const Self, job: *Job) anyerror!void {
            // Another worker's request has no place in the bridge's rings.
            const told = if (job.asked != null) null else job.worker.chaos.next();
            const what = told orelse return usual(t.context, job);
            const w = job.worker;
            switch (what.hook) {
                // Gets nowhere and hears nothing, while the heartbeat goes on.
                .stall => nap(what.value * std.time.ns_per_ms),
                .crash => crash(what.value),
                .oversize => {
                    _ = try job.reserve(w.link.header.result_bytes + what.value);
                },
                .corrupt, .overrun => return lie(job, what),
                // The relay looks awake, so nobody rings: it finds the answer when it next looks by itself.
                .lost_wake => {
                    w.publish();
                    const relay_park = w.link.waker.park;
                    w.link.waker.park = &looks_awake;
                    job.settle(usual(t.context, job));
                    w.publish();
                    w.link.waker.park = relay_park;
                    return;
                },
                .no_files => {
                    const before = limitFiles(lowestFree() orelse return usual(t.context, job));
                    defer _ = limitFiles(before);
                    return usual(t.context, job);
                },
                .hold, .silence => unreachable, // not of jobs: never armed
            }
            return usual(t.context, job);
        }
    };
}

const looks_awake: u32 = @bitCast(gate.Park{ .way = .awake, .sequence = 0 });

fn crash(signal: u64) void {
    // In its default meaning, whatever Zig's start has made of it. SIGKILL and SIGSTOP have no other, and may not be named.
    const default: linux.Sigaction = .{ .handler = .{ .handler = linux.SIG.DFL }, .mask = linux.sigemptyset(), .flags = 0 };
    if (signal != 0) {
        const number_of: linux.SIG = @fromBackingInt(@as(u32, @intCast(signal)));
        if (signal != 9 and signal != 19) _ = linux.sigaction(number_of, &default, null);
        _ = linux.kill(linux.getpid(), number_of);
    }
    nap(hour_ms * std.time.ns_per_ms); // a signal to oneself may still be on its way in another thread
}

/// Answers with a completion that no kit makes, which the relay has to see through.
fn lie(job: *Job, what: Told) void {
    const w = job.worker;
    const h = &w.link.header;
    var c = Job.blank(layout.status_ok, .raw);
    c.job = job.request.job;
    if (what.hook == .corrupt) {
        c.flags = layout.flag_inline;
        c.crc = envelope.ofCompletion(&c, &.{}, h.features) ^ @as(u32, @intCast(what.value));
    } else {
        c.payload_at = h.result_bytes - h.result_block_bytes;
        c.payload_bytes = @intCast(h.result_block_bytes + what.value);
    }
    w.claim().* = c;
    job.state = .answered;
    w.publish();
}

/// Where the next descriptor will lie. No lower limit than that, as poll() refuses more descriptors than the limit (poll(2),
/// EINVAL), and the answer's ring would be lost with it.
fn lowestFree() ?u64 {
    const copy = linux.dup(2);
    if (linux.errno(copy) != .SUCCESS) return null;
    os.close(@intCast(copy));
    return copy;
}

/// Bounds how many files this process may open; returns the bound before.
fn limitFiles(count: u64) u64 {
    var limit: linux.rlimit = undefined;
    _ = linux.getrlimit(.NOFILE, &limit);
    defer _ = linux.setrlimit(.NOFILE, &limit);
    defer limit.cur = count;
    return limit.cur;
}

// --- tests ---------------------------------------------------------------------------------------------------------------

const testing = std.testing;

test "a hook is its name, a value and a count" {
    try testing.expectEqual(Told{ .hook = .stall, .value = 200, .jobs = 3 }, read("stall 200 3").?);
    try testing.expectEqual(Told{ .hook = .lost_wake, .value = 0, .jobs = 0 }, read("lost_wake 0 0").?);
    for ([_][]const u8{
        "",                                                                     "crash",      "crash 9",    "crash 9 1 1", "crash 9 1 ",          "crash  9 1",    "crash 65 1",
        "CRASH 9 1",                                                            "stall -1 1", "stall +1 1", "stall 1 ",    "stall 99999999999 1", "crash 9 1\x00", "no_such_hook 1 1",
        "crash 9 000000000000000000000000000000000000000000000000000000000001",
    }) |wrong| try testing.expectEqual(null, read(wrong));
}
