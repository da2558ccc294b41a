//! The asking end of a link to another worker (docs/links.md).
//!
//! The bridge grants the link and hands over one end of a socket; from there on it has no part in what is asked. It ends a link
//! by shutting the socket down, which neither end can prevent.
//!
//! Death: the peer's ends the link; ours ends what the peer does for us.
const std = @import("std");
const linux = std.os.linux;
const layout = @import("layout.zig");
const os = @import("os.zig");
const wire = @import("peer_wire.zig");
const Channel = @import("packet.zig");
const Job = @import("job.zig");
const term = @import("term.zig");
const Worker = @import("worker.zig").Worker;

const Peer = @This();

/// Of a request or an answer.
pub const bytes_max = wire.bytes_max;

worker: *Worker,
/// null: the link is over.
fd: ?os.Fd,
/// null: given back.
link: ?u64,
last_id: u64 = 0,
/// Of the last answer: those to requests that were taken back come once, in order.
heard_id: u64 = 0,
inbox: wire.Inbox = .{},

/// Also BadRequest: a role without a name. Refused: the policy does not allow that role, or the link would close a ring of
/// workers that wait for each other. NoProcess: no worker of that role serves others. Busy: too many links, or more than 50
/// requests a second.
pub const OpenError = Channel.SendError || Channel.BridgeError;

/// A link to a worker of `role`, as [roles.NAME.peers] allow has it; to be kept for later jobs.
pub fn open(job: *Job, role: []const u8) OpenError!Peer {
    const w = job.worker;
    const c = &w.channel;
    if (role.len == 0) return error.BadRequest; // to the bridge it would say that this worker serves others
    c.tellClosedLinks(w);
    const waiting: Channel.Waiting = .{ .w = w, .job = job };
    const id = c.nextId();
    const what: Channel.Outgoing = .{ .kind = layout.packet_peer_open, .id = id, .job = job.id() };
    c.send(waiting, what, &.{role}, .for_ever) catch |why| return job.noteCancel(why);
    var reply = c.awaitReply(waiting, id, .for_ever) catch |why| return job.noteCancel(why);
    defer reply.drop();
    try Channel.check(reply);
    if (reply.fd == null or reply.body.len != @sizeOf(u64))
        Channel.broken("a link was granted without its number or its socket");
    return .{ .worker = w, .fd = reply.takeFd(), .link = std.mem.readInt(u64, reply.body[0..8], .little) };
}

/// Gives the link back without waiting. Once; after close() it does nothing.
pub fn deinit(p: *Peer) void {
    p.over();
    p.inbox.deinit();
    const link = p.link orelse return;
    p.link = null;
    p.worker.channel.giveBackLink(p.worker, link);
}

/// Gives the link back and waits until the bridge has it. Whatever this returns, it is given back.
pub fn close(p: *Peer, job: *Job) OpenError!void {
    p.over();
    p.inbox.deinit();
    const link = p.link orelse return;
    p.link = null;
    const c = &p.worker.channel;
    const waiting: Channel.Waiting = .{ .w = p.worker, .job = job };
    const id = c.nextId();
    const what: Channel.Outgoing = .{ .kind = layout.packet_peer_close, .id = id, .job = job.id() };
    c.send(waiting, what, &.{std.mem.asBytes(&link)}, .for_ever) catch |why| return job.noteCancel(why);
    const reply = c.awaitReply(waiting, id, .for_ever) catch |why| return job.noteCancel(why);
    defer reply.drop();
    try Channel.check(reply);
}

/// Is it still to be called? False once a call has returned Disconnected or Protocol.
pub fn isOpen(p: *const Peer) bool {
    return p.fd != null;
}

fn over(p: *Peer) void {
    if (p.fd) |fd| os.close(fd);
    p.fd = null;
}

// --- asking --------------------------------------------------------------------------------------------------------------

pub const Request = struct {
    opcode: u16 = 0,
    kind: Job.Kind = .raw,
    bytes: []const u8 = &.{},
    /// A day at most, and no longer than the job's own deadline.
    timeout_ms: u32 = 5000,
    /// What PeerFailed has besides its name: the peer's code and message, valid as an answer is.
    failure: ?*Failure = null,
};
pub const Failure = struct { code: u16, message: []const u8 };
/// Memory of the link's, valid until its next call or its end. A term is well-formed.
pub const Answer = struct { kind: Job.Kind, bytes: []const u8 };

/// PeerFailed: the peer's handler failed the request. PeerGaveUp. TimedOut, Cancelled: the wait is over, and the peer is told to
/// stop. Disconnected: the peer has ended, or the link was revoked. Protocol: the peer broke a rule. After either the link is
/// over, and another is to be opened. TooLarge: more than 64 MiB. NotATerm: no well-formed one. SystemResources.
pub const CallError = error{
    PeerFailed,
    PeerGaveUp,
    TimedOut,
    Cancelled,
    Disconnected,
    Protocol,
    TooLarge,
    NotATerm,
    SystemResources,
};

/// Has the peer do a job, and waits for its answer. The peer is told the deadline and the trace.
pub fn call(p: *Peer, job: *Job, request: Request) CallError!Answer {
    const w = p.worker;
    const fd = p.fd orelse return error.Disconnected;
    if (request.bytes.len > bytes_max) return error.TooLarge;
    if (request.kind == .term and !term.isOne(request.bytes)) return error.NotATerm;
    const timeout_ms: u64 = @min(request.timeout_ms, std.time.ms_per_day);
    const until = @min(os.now() + timeout_ms * std.time.ns_per_ms, job.deadline() orelse std.math.maxInt(u64));

    var q = std.mem.zeroes(layout.Request);
    q.job = job.id();
    q.opcode = request.opcode;
    q.flags = if (request.kind == .term) layout.flag_term else 0;
    q.deadline_ns = until;
    q.priority = job.request.priority;
    q.payload_bytes = @intCast(request.bytes.len);
    q.trace_id = job.request.trace_id;
    q.span_id = job.request.span_id;
    q.trace_flags = job.request.trace_flags;
    w.publish(); // answers that short_jobs holds back do not wait for a peer
    p.last_id += 1;

    const waiting: Channel.Waiting = .{ .w = w, .job = job };
    p.sendInTime(fd, waiting, &q, request.bytes, until) catch |why| return p.ended(job, why);
    const c = p.awaitAnswer(fd, waiting, until) catch |why| {
        if (why == error.TimedOut or why == error.Cancelled) {
            // A link whose socket has no room for that is of no more use.
            wire.sendForget(fd, p.last_id, q.job) catch p.over();
        }
        return p.ended(job, why);
    };
    const bytes = p.inbox.payload();
    switch (c.status) {
        layout.status_ok => return .{ .kind = if (c.flags & layout.flag_term != 0) .term else .raw, .bytes = bytes },
        layout.status_failed => {
            if (request.failure) |failure| failure.* = .{ .code = c.code, .message = bytes };
            return error.PeerFailed;
        },
        // It is told the deadline, and may give up a moment before we do: the time is over then, whoever sees it first.
        else => return p.ended(job, if (job.isCancelled())
            error.Cancelled
        else if (os.now() >= until)
            error.TimedOut
        else
            error.PeerGaveUp),
    }
}

/// What a call that had no answer leaves.
fn ended(p: *Peer, job: *Job, why: CallError) CallError {
    if (why == error.Disconnected or why == error.Protocol) p.over();
    return job.noteCancel(why);
}

fn sendInTime(
    p: *const Peer,
    fd: os.Fd,
    waiting: Channel.Waiting,
    q: *const layout.Request,
    bytes: []const u8,
    until: u64,
) CallError!void {
    while (true) { // bound: room comes, or the link's end, `until` or a cancel
        return wire.send(fd, layout.packet_call, p.last_id, q, bytes) catch |why| switch (why) {
            error.NoRoom => {
                try waiting.wait(fd, linux.POLL.OUT, .{ .at = until });
                continue;
            },
            error.Closed => error.Disconnected,
            error.SystemResources => error.SystemResources,
        };
    }
}

/// The envelope of the answer to the last request; those to requests that were taken back are dropped. A peer that sends many
/// of them does not hold up whoever's time is over.
fn awaitAnswer(p: *Peer, fd: os.Fd, waiting: Channel.Waiting, until: u64) CallError!layout.Completion {
    while (true) { // bound: the answer, the link's end, `until` or a cancel
        if (try p.inbox.receive(fd)) |head| {
            if (head.kind != layout.packet_reply) return error.Protocol;
            const c = p.inbox.envelope(layout.Completion);
            if (!isSound(&c, p.inbox.payload())) return error.Protocol;
            if (head.id <= p.heard_id or head.id > p.last_id) return error.Protocol;
            p.heard_id = head.id;
            if (head.id == p.last_id) return c;
            if (os.now() >= until) return error.TimedOut;
        }
        try waiting.wait(fd, linux.POLL.IN, .{ .at = until });
    }
}

/// The rules of an answer, on our own copy.
fn isSound(c: *const layout.Completion, bytes: []const u8) bool {
    return c.payload_bytes == bytes.len and c.flags & ~layout.flag_term == 0 and
        switch (c.status) {
            layout.status_ok, layout.status_failed, layout.status_cancelled => true,
            else => false,
        } and (c.flags & layout.flag_term == 0 or term.isOne(bytes));
}

test {
    _ = wire;
}
