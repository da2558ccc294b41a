//! The serving end of links to other workers (docs/links.md).
//!
//! A request goes through the worker's own handler between two of its jobs, with a private copy of what came. It is no job of
//! the bridge's: no started mark, no place in the counters. Whatever comes on a link while its request is served takes that
//! back, and so does the link's end.
const std = @import("std");
const linux = std.os.linux;
const layout = @import("layout.zig");
const os = @import("os.zig");
const channel = @import("channel.zig");
const wire = @import("peer_wire.zig");
const Channel = @import("packet.zig");
const Job = @import("job.zig");
const term = @import("term.zig");
const Worker = @import("worker.zig").Worker;

const links_max = 256;
/// Between two looks in the midst of other work.
const look_every_ns = std.time.ns_per_ms;
/// What the poller says of the channel; of a link it says its place.
const channel_place = std.math.maxInt(u64);

const Served = struct { fd: ?os.Fd = null, link: u64 = 0, last_id: u64 = 0 };

/// The links over which other workers ask this one; the handler's thread.
pub const Links = struct {
    /// Of the channel and the links, for good; null: this worker serves nobody.
    poller: ?os.Fd = null,
    channel: ?os.Fd = null,
    count: usize = 0,
    looked_ns: u64 = 0,
    places: [links_max]Served = @splat(.{}),
    inbox: wire.Inbox = .{},

    /// The channel is closed, and would be readable for ever.
    pub fn forgetChannel(links: *Links) void {
        const poller = links.poller orelse return;
        if (links.channel) |fd| _ = linux.epoll_ctl(poller, linux.EPOLL.CTL_DEL, fd, null);
        links.channel = null;
    }

    pub fn deinit(links: *Links) void {
        for (&links.places) |*place| if (place.fd) |fd| os.close(fd);
        if (links.poller) |poller| os.close(poller);
        links.inbox.deinit();
        links.* = .{};
    }
};

fn watch(poller: os.Fd, fd: os.Fd, place: u64) error{SystemResources}!void {
    var event: linux.epoll_event = .{ .events = linux.EPOLL.IN, .data = .{ .u64 = place } };
    if (linux.errno(linux.epoll_ctl(poller, linux.EPOLL.CTL_ADD, fd, &event)) != .SUCCESS) return error.SystemResources;
}

// --- links come and go ---------------------------------------------------------------------------------------------------

/// Says that this worker serves others, before the hello. One that cannot is a good worker all the same.
pub fn offerService(w: *Worker) void {
    const fd = w.channel.fd orelse return;
    const poller = linux.epoll_create1(linux.EPOLL.CLOEXEC);
    if (linux.errno(poller) != .SUCCESS) return;
    w.links.poller = @intCast(poller);
    w.links.channel = fd;
    sayThatWeServe(w, fd) catch return w.links.deinit();
    w.channel.state.listens = true; // offers come at any time
}

fn sayThatWeServe(w: *Worker, fd: os.Fd) !void {
    const c = &w.channel;
    const waiting: Channel.Waiting = .{ .w = w, .job = null };
    try watch(w.links.poller.?, fd, channel_place);
    const id = c.nextId();
    try c.send(waiting, .{ .kind = layout.packet_peer_open, .id = id }, &.{}, .for_ever);
    const reply = try c.awaitReply(waiting, id, .for_ever);
    defer reply.drop();
    try Channel.check(reply);
}

/// Takes a link that the bridge offers. One that is not taken is closed, which tells who asked.
pub fn takeOffer(w: *Worker, offer: *Channel.Incoming) void {
    if (offer.fd == null or offer.body.len < @sizeOf(u64))
        Channel.broken("a link was offered without its number or its socket");
    const poller = w.links.poller orelse return;
    for (&w.links.places, 0..) |*place, i| {
        if (place.fd != null) continue;
        watch(poller, offer.fd.?, i) catch return;
        place.* = .{ .fd = offer.takeFd(), .link = std.mem.readInt(u64, offer.body[0..8], .little) };
        w.links.count += 1;
        return;
    }
}

fn endLink(w: *Worker, place: *Served, rule: ?[]const u8) void {
    // Without a channel nobody hears it.
    if (rule) |text| channel.logFrom(w, 0, .warning, "link {d} is dropped: {s}", .{ place.link, text }) catch {};
    os.close(place.fd.?);
    place.* = .{};
    w.links.count -= 1;
}

// --- requests ------------------------------------------------------------------------------------------------------------

/// Serves one request of each link that has one; unless `now`, at most once a millisecond. Returns how many. A comparison while
/// there is no link.
pub inline fn serve(w: *Worker, now: bool, state: anytype, comptime handle: fn (@TypeOf(state), *Job) anyerror!void) usize {
    return if (w.links.count == 0) 0 else serveAll(w, now, state, handle);
}

noinline fn serveAll(w: *Worker, now: bool, state: anytype, comptime handle: fn (@TypeOf(state), *Job) anyerror!void) usize {
    const links = &w.links;
    if (!now and w.now_ns - links.looked_ns < look_every_ns) return 0;
    links.looked_ns = if (now) os.now() else w.now_ns;
    var events: [links_max + 1]linux.epoll_event = undefined;
    const found = linux.epoll_wait(links.poller.?, &events, events.len, 0);
    const ready = if (linux.errno(found) == .SUCCESS) events[0..found] else events[0..0];
    var served: usize = 0;
    for (ready) |event| {
        if (event.data.u64 == channel_place) continue;
        if (w.control() != layout.control_run) break;
        const place = &links.places[event.data.u64];
        if (place.fd == null) continue;
        if (served == 0) w.publish(); // answers do not wait behind another worker's request
        const id = nextRequest(&links.inbox, place) catch |why| {
            endLink(w, place, if (why == error.Protocol) links.inbox.broke else null);
            continue;
        } orelse continue;
        serveOne(w, place, id, state, handle);
        links.inbox.forget();
        served += 1;
    }
    if (served > 0) w.now_ns = os.now();
    return served;
}

/// The number of a request that keeps the rules; null: there is none.
fn nextRequest(inbox: *wire.Inbox, on: *Served) wire.ReceiveError!?u64 {
    const head = try inbox.receive(on.fd.?) orelse return null;
    if (head.kind == layout.packet_forget) return null; // of a request that is answered already
    inbox.broke = rule: {
        if (head.kind != layout.packet_call) break :rule "a message that is neither a request nor its end";
        if (head.id <= on.last_id) break :rule "the number of a request is not above the last one";
        const q = inbox.envelope(layout.Request);
        const bytes = inbox.payload();
        if (q.payload_bytes != bytes.len) break :rule "a payload of another size than announced";
        if (q.flags & ~layout.flag_term != 0) break :rule "a request with flags that none has";
        if (q.flags & layout.flag_term != 0 and !term.isOne(bytes)) break :rule "a term that is not well-formed";
        on.last_id = head.id;
        return head.id;
    };
    return error.Protocol;
}

fn serveOne(
    w: *Worker,
    place: *Served,
    id: u64,
    state: anytype,
    comptime handle: fn (@TypeOf(state), *Job) anyerror!void,
) void {
    const now = os.now();
    var asked: Asked = .{ .fd = place.fd.?, .id = id, .looked_ns = now };
    var job: Job = .ofPeer(w, &asked, w.links.inbox.envelope(layout.Request), w.links.inbox.payload(), now);
    if (job.isCancelled()) {
        job.cancelled();
    } else {
        w.run(&job, state, handle);
    }
    asked.dropRoom();
    if (asked.unsent) |why|
        endLink(w, place, if (why == error.NoRoom) "who asks does not read the answers" else null);
}

/// What is known of a request that is being served.
pub const Asked = struct {
    fd: os.Fd,
    id: u64,
    /// For an answer that does not fit into an envelope.
    room: []u8 = &.{},
    unsent: ?anyerror = null,
    // Any thread of the handler; relaxed, both: a late look is a look one millisecond later.
    looked_ns: u64,
    taken_back: bool = false,

    const memory = std.heap.page_allocator;

    pub fn takeRoom(asked: *Asked, size: usize) error{TooLarge}![]u8 {
        if (size > wire.bytes_max) return error.TooLarge;
        asked.room = memory.alloc(u8, size) catch return error.TooLarge;
        return asked.room;
    }

    pub fn dropRoom(asked: *Asked) void {
        memory.free(asked.room);
        asked.room = &.{};
    }

    pub fn answer(asked: *Asked, c: *const layout.Completion, bytes: []const u8) void {
        wire.send(asked.fd, layout.packet_reply, asked.id, c, bytes) catch |why| {
            asked.unsent = why;
        };
    }

    /// Whatever comes on the link takes the request back.
    pub fn isTakenBack(asked: *Asked) bool {
        if (@atomicLoad(bool, &asked.taken_back, .monotonic)) return true; // as above
        const now = os.now();
        if (now - @atomicLoad(u64, &asked.looked_ns, .monotonic) < look_every_ns) return false; // as above
        @atomicStore(u64, &asked.looked_ns, now, .monotonic); // as above
        var look = [1]linux.pollfd{.{ .fd = asked.fd, .events = linux.POLL.IN, .revents = 0 }};
        const found = linux.poll(&look, 1, 0);
        if (linux.errno(found) != .SUCCESS or found == 0) return false;
        @atomicStore(bool, &asked.taken_back, true, .monotonic); // as above
        return true;
    }
};
