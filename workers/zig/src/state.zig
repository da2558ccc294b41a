//! What a worker keeps beyond its life: checkpoints that it saves, states that it is given (docs/channel.md).
//!
//! Saved and restored by the handler's thread between two jobs, so that a state is never that of half a job. While the worker
//! does not listen (its options have neither `save` nor `restore`), none of this runs.
//!
//! Death: killed while it saves, the checkpoint before stands; killed while it restores, the next life is given the same again.
const std = @import("std");
const linux = std.os.linux;
const layout = @import("layout.zig");
const os = @import("os.zig");
const peer_serve = @import("peer_serve.zig");
const Channel = @import("packet.zig");
const Chaos = @import("chaos.zig");
const Job = @import("job.zig");
const Worker = @import("worker.zig").Worker;

const State = @This();

/// Between two looks at the channel of a worker that always has jobs.
const look_every_ns = std.time.ns_per_ms;

/// It stands for itself, or goes behind what was saved before.
pub const Kind = enum(u64) { full = layout.checkpoint_full, increment = layout.checkpoint_incremental };

/// What the worker does with its state, its own type forgotten.
pub const Hooks = struct {
    context: *const anyopaque,
    save: ?*const fn (*const anyopaque, *Saving, Kind) anyerror!Kind = null,
    restore: ?*const fn (*const anyopaque, Kind, []const u8) anyerror!void = null,
};

hooks: ?Hooks = null,
/// It has asked for its state, so the bridge may ask it for checkpoints.
listens: bool = false,
/// When the channel was last looked at between jobs.
looked_ns: u64 = 0,
/// No job is begun before a state has come.
held: bool = false,
/// A state comes; jobs that need it wait.
coming: bool = false,
/// The checkpoint that is wanted when the worker leaves.
leaving: ?struct { id: u64, kind: Kind } = null,

// --- saving --------------------------------------------------------------------------------------------------------------

/// A checkpoint that `save` is writing: a memfd that begins with the kind.
pub const Saving = struct {
    fd: os.Fd,

    pub fn write(saving: *Saving, bytes: []const u8) error{SystemResources}!void {
        return os.writeAll(saving.fd, bytes);
    }
};

pub const CheckpointError = Channel.SendError || Channel.BridgeError;

/// Saves state out of a handler; returns once it is stored. Unavailable: the role keeps none. FullWanted: an increment with
/// nothing to go behind, so save the whole. TooLarge, Busy; StoreFailed: the one before stands.
pub fn checkpoint(job: *Job, kind: Kind, bytes: []const u8) CheckpointError!void {
    const w = job.worker;
    const waiting: Channel.Waiting = .{ .w = w, .job = job };
    const id = w.channel.nextId();
    const what: Channel.Outgoing = .{ .kind = layout.packet_checkpoint_save, .id = id, .job = job.id() };
    const number = @backingInt(kind);
    w.channel.send(waiting, what, &.{ std.mem.asBytes(&number), bytes }, .for_ever) catch |why| return job.noteCancel(why);
    const reply = w.channel.awaitReply(waiting, id, .for_ever) catch |why| return job.noteCancel(why);
    defer reply.drop();
    try Channel.check(reply);
}

/// Has the worker save, and sends that as the answer to the bridge's request `id`.
fn save(w: *Worker, asked: layout.Packet, wanted: Kind) void {
    saveOrFail(w, asked.id, wanted) catch |why| {
        if (why == error.Closed) return;
        refuse(w, asked, "the worker could not save", why);
    };
}

fn saveOrFail(w: *Worker, id: u64, wanted: Kind) anyerror!void {
    const hooks = w.channel.state.hooks orelse return error.NoState;
    const do = hooks.save orelse return error.NoState;
    var saving: Saving = .{ .fd = try os.memfd("ringbridge state") };
    defer os.close(saving.fd);
    var number = @backingInt(wanted);
    try saving.write(std.mem.asBytes(&number));
    const kind = try do(hooks.context, &saving, wanted);
    if (kind == .increment and wanted == .full) return error.FullWanted;
    number = @backingInt(kind);
    if (linux.pwrite(saving.fd, std.mem.asBytes(&number), @sizeOf(u64), 0) != @sizeOf(u64)) return error.SystemResources;
    const what: Channel.Outgoing = .{ .kind = layout.packet_checkpoint_save, .id = id };
    try w.channel.sendMemfd(.{ .w = w, .job = null }, what, saving.fd, .for_ever);
}

// --- being given a state -------------------------------------------------------------------------------------------------

pub fn Restore(comptime Context: type) type {
    return fn (Context, Kind, []const u8) anyerror!void;
}

/// Hands each part of a state to `restore`, the whole first.
fn restoreParts(state: []const u8, context: anytype, comptime restore: Restore(@TypeOf(context))) anyerror!void {
    var rest = state;
    while (rest.len > 0) {
        if (rest.len < 16) Channel.broken("a state ends within a part's head");
        const kind = kindOf(std.mem.readInt(u64, rest[0..8], .little));
        const size = std.mem.readInt(u64, rest[8..16], .little);
        rest = rest[16..];
        if (kind == null or size > rest.len) Channel.broken("a state's part is of no kind, or longer than the state");
        try restore(context, kind.?, rest[0..size]);
        rest = rest[size..];
    }
}

fn kindOf(number: u64) ?Kind {
    return std.enums.fromInt(Kind, number);
}

/// Asks for the latest state and hands its parts to `restore`, the whole first: for a worker whose options have none.
pub fn load(job: *Job, context: anytype, comptime restore: Restore(@TypeOf(context))) anyerror!void {
    return loadWith(job.worker, job, context, restore) catch |why| return job.noteCancel(why);
}

fn loadWith(w: *Worker, job: ?*Job, context: anytype, comptime restore: Restore(@TypeOf(context))) anyerror!void {
    const waiting: Channel.Waiting = .{ .w = w, .job = job };
    const id = w.channel.nextId();
    const what: Channel.Outgoing = .{ .kind = layout.packet_checkpoint_load, .id = id, .job = if (job) |j| j.id() else 0 };
    try w.channel.send(waiting, what, &.{}, .for_ever);
    const reply = try w.channel.awaitReply(waiting, id, .for_ever);
    defer reply.drop();
    w.channel.state.listens = true;
    try Channel.check(reply);
    try restoreParts(reply.body, context, restore);
}

fn restoreByHook(hooks: Hooks, kind: Kind, bytes: []const u8) anyerror!void {
    if (hooks.restore) |restore| try restore(hooks.context, kind, bytes);
}

/// Asks for the latest state and has it restored, before the hello. Without a channel, or where the role keeps none, it begins
/// without.
pub fn begin(w: *Worker, hooks: Hooks) anyerror!void {
    w.channel.state.hooks = hooks;
    return loadWith(w, null, hooks, restoreByHook) catch |why| switch (why) {
        error.NotConnected, error.Closed, error.Unavailable => {},
        else => why,
    };
}

fn takeState(w: *Worker, in: Channel.Incoming) void {
    const state = &w.channel.state;
    defer {
        state.held = false;
        state.coming = false;
    }
    const hooks = state.hooks orelse return refuse(w, in.head, "the worker takes no state", null);
    restoreParts(in.body[8..], hooks, restoreByHook) catch |why| {
        return refuse(w, in.head, "the worker did not take it", why);
    };
    if (in.head.id == 0) return;
    // A channel that is closed, or a worker that is told to stop: nobody waits for it.
    w.channel.send(.{ .w = w, .job = null }, .{ .kind = layout.packet_reply, .id = in.head.id }, &.{}, .for_ever) catch {};
}

// --- between two jobs ----------------------------------------------------------------------------------------------------

fn handle(w: *Worker, came: Channel.Incoming) void {
    var in = came;
    if (in.head.kind == layout.packet_reply) return w.channel.dropReply(w, in);
    defer in.drop();
    switch (in.head.kind) {
        layout.packet_peer_offer => peer_serve.takeOffer(w, &in),
        layout.packet_checkpoint_now => handleCheckpoint(w, in),
        layout.packet_restore => handleRestore(w, in),
        layout.packet_chaos => Chaos.take(w, &in),
        else => refuse(w, in.head, "this kit does not know it", null),
    }
}

/// {unavailable, "what: error.Name"}
fn refuse(w: *Worker, asked: layout.Packet, what: []const u8, why: ?anyerror) void {
    var text: [120]u8 = undefined;
    const line = if (why) |e| std.mem.print(&text, "{s}: {s}", .{ what, @errorName(e) }) catch what else what;
    w.channel.refuse(w, asked, layout.channel_error_unavailable, line);
}

fn handleRestore(w: *Worker, in: Channel.Incoming) void {
    const state = &w.channel.state;
    if (in.body.len < 8) Channel.broken("a restore without its word");
    switch (std.mem.readInt(u64, in.body[0..8], .little)) {
        layout.restore_state => takeState(w, in),
        layout.restore_hold => state.held = true,
        layout.restore_coming => state.coming = true,
        layout.restore_abandoned => {
            state.held = false;
            state.coming = false;
        },
        else => refuse(w, in.head, "no such way to restore", null),
    }
}

fn handleCheckpoint(w: *Worker, in: Channel.Incoming) void {
    if (in.body.len != 16) Channel.broken("a request to save of another size");
    const kind = kindOf(std.mem.readInt(u64, in.body[0..8], .little)) orelse Channel.broken("a request to save of no kind");
    switch (std.mem.readInt(u64, in.body[8..16], .little)) {
        layout.save_leaving => w.channel.state.leaving = .{ .id = in.head.id, .kind = kind },
        else => save(w, in.head, kind),
    }
}

/// Takes what has come; unless `now`, at most once a millisecond. A comparison while the worker does not listen, otherwise a
/// system call.
pub inline fn look(w: *Worker, now: bool) void {
    if (w.channel.state.listens) lookAgain(w, now);
}

noinline fn lookAgain(w: *Worker, now: bool) void {
    const c = &w.channel;
    if (!now and w.now_ns - c.state.looked_ns < look_every_ns) return;
    c.state.looked_ns = w.now_ns;
    while (c.put_by_count > 0) handle(w, c.takeBack(0)); // what is handled may put by more
    while (c.receive()) |in| { // bound: what the socket holds
        handle(w, in orelse return);
    } else |_| { // closed: nobody asks any more
        c.state.listens = false;
        c.state.held = false;
        c.state.coming = false;
        w.links.forgetChannel();
    }
}

/// When the last job is done: saves if that was asked for.
pub fn leave(w: *Worker) void {
    look(w, true); // the request was sent before the worker was told to leave
    const asked = w.channel.state.leaving orelse return;
    w.channel.state.leaving = null;
    var head = std.mem.zeroes(layout.Packet);
    head.id = asked.id;
    save(w, head, asked.kind);
}

/// For a job that needs the state which {:move_state, ..., :post_copy} has promised: waits for it, and has it restored. At once
/// when none is promised.
pub fn awaitState(job: *Job) error{Cancelled}!void {
    const w = job.worker;
    const c = &w.channel;
    while (true) { // bound: the state comes, is abandoned, or the job is cancelled
        var i: usize = 0;
        while (i < c.put_by_count) {
            if (c.put_by[i].head.kind == layout.packet_restore) handle(w, c.takeBack(i)) else i += 1;
        }
        if (!c.state.listens or !c.state.coming) return;
        const came = c.receive() catch return; // none comes any more
        if (came) |in| {
            c.putBy(w, in);
        } else {
            c.wait(.{ .w = w, .job = job }, linux.POLL.IN, .for_ever) catch |why| switch (why) {
                error.Cancelled => return job.noteCancel(error.Cancelled),
                error.TimedOut => unreachable, // it waits for ever
            };
        }
    }
}
