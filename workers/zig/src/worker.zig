//! The loop: wait at the gate, take what is in the ring as one batch, run job by job.
//!
//!      wait ──> batch of n ──> copy, check ──> started ──> handler ──> completion ──┐
//!       ^          ^────────────────────── next job ────────────────────────────────┤
//!       └───────────────────────── publish, release slots ──────────────────────────┘
//!
//! Death: killed before `started` moves, the bridge gives the job to another worker; killed after it, the job is lost with us
//! and answered {:worker_crashed, ...}; killed after the completion is published, the answer stands.
//!
//! Bounds: a batch is at most a ring of jobs; each wait ends by the gate, a slice of time, or the control word.
const std = @import("std");
const linux = std.os.linux;
const envelope = @import("envelope.zig");
const gate = @import("gate.zig");
const layout = @import("layout.zig");
const os = @import("os.zig");
const Channel = @import("packet.zig");
const Chaos = @import("chaos.zig");
const Heartbeat = @import("heartbeat.zig");
const Job = @import("job.zig");
const Link = @import("link.zig");
const peer_serve = @import("peer_serve.zig");
const State = @import("state.zig");

/// Pages of large answers go back to the kernel after this long without work; the first MiB stays.
const trim_after_ns = std.time.ns_per_s;
const results_kept_bytes = 1 << 20;
/// A job with more payload than this is not short, whatever short_jobs says: answers do not wait behind it.
const short_payload_bytes_max = 16 << 10;
/// How old the oldest unpublished answer may become when short_jobs holds answers back.
const publish_within_ns = 50 * std.time.ns_per_us;
/// Waiting for room: the bridge may ring when it gives back, but need not; so look again this often.
pub const room_slice_ns = std.time.ns_per_ms;

/// Written by the handler's thread, read by the heartbeat's: all relaxed, since each word says something by itself.
pub const Counters = struct {
    jobs: u64 = 0,
    failed: u64 = 0,
    run_ns: u64 = 0,
    /// Requests whose handler has been entered, as the shared word.
    started: u64 = 0,
    last_code: u32 = 0,
    gate: u32 = 0,

    /// Relaxed: one writer, the handler's thread, which therefore needs no atomic read of its own.
    pub fn set(c: *Counters, comptime name: []const u8, value: @FieldType(Counters, name)) void {
        @atomicStore(@FieldType(Counters, name), &@field(c, name), value, .monotonic);
    }
};

pub const Worker = struct {
    link: Link,
    short_jobs: bool,
    /// Request slots whose job is answered, not yet released.
    unreleased: u64 = 0,
    /// When the oldest unpublished completion was made; 0: none.
    unpublished_ns: u64 = 0,
    /// The clock at the end of the last job, which is the start of the next.
    now_ns: u64 = 0,
    /// The id of the job whose handler runs; 0: none. For log lines.
    running: u64 = 0,
    counters: Counters = .{},
    heartbeat: Heartbeat = .{},
    channel: Channel = .{},
    /// Of workers that ask this one.
    links: peer_serve.Links = .{},
    chaos: Chaos = .{},

    /// Returns when told to drain or stop.
    pub fn serve(w: *Worker, state: anytype, comptime handle: fn (@TypeOf(state), *Job) anyerror!void) void {
        while (true) {
            // The control word first: what was published before "drain" is then in the count.
            const told = w.control();
            const count = w.link.requests.available() catch
                w.broken("the position of the request ring ran backwards or too far", .{});
            State.look(w, true); // so what the bridge has said before a job was published is known to it
            if (w.channel.state.held and told != layout.control_stop) {
                w.waitForWork();
                continue;
            }
            if (told == layout.control_stop or (told != layout.control_run and count == 0)) return;
            const asked = if (told == layout.control_run) peer_serve.serve(w, true, state, handle) else 0;
            if (count == 0) {
                if (asked == 0) w.waitForWork();
                continue;
            }
            w.takeGivebacks();
            const drained_ns = os.now();
            w.now_ns = drained_ns;
            for (0..count) |_| {
                if (w.control() == layout.control_stop) break;
                w.runOne(drained_ns, state, handle);
                State.look(w, false);
                if (w.channel.state.held) break;
                _ = peer_serve.serve(w, false, state, handle);
            }
            w.publish();
        }
    }

    fn runOne(w: *Worker, drained_ns: u64, state: anytype, comptime handle: fn (@TypeOf(state), *Job) anyerror!void) void {
        var job: Job = .init(w, w.unreleased, drained_ns);
        if (w.unpublished_ns != 0 and job.request.payload_bytes > short_payload_bytes_max) w.publish();
        job.payload_bytes = w.check(&job.request);
        const started = w.counters.started + 1;
        w.counters.set("started", started);
        // K0: pairs with the relay's acquire load after our death: who finds the count finds what the handler has done since,
        // and a process that dies has made its earlier stores.
        @atomicStore(u64, &w.link.ours.started, started, .release);
        if (job.isCancelled()) {
            job.cancelled();
        } else {
            w.run(&job, state, handle);
        }
        w.unreleased += 1;
    }

    /// Has the handler do a job, whoever asked for it.
    pub inline fn run(w: *Worker, job: *Job, state: anytype, comptime handle: fn (@TypeOf(state), *Job) anyerror!void) void {
        // Relaxed: for log lines of any thread; one writer, this one.
        @atomicStore(u64, &w.running, job.request.job, .monotonic);
        job.settle(handle(state, job));
        @atomicStore(u64, &w.running, 0, .monotonic); // as above
    }

    /// The payload, or the end of the process: the relay is ours, and never sends what breaks a rule.
    fn check(w: *const Worker, q: *const layout.Request) []const u8 {
        if (q.flags & layout.flag_zstd != 0) w.broken("job {d} has a compressed payload, which was not agreed to", .{q.job});
        const payload = payload: {
            if (q.flags & layout.flag_inline != 0) {
                if (q.payload_bytes > layout.inline_bytes_max)
                    w.broken("job {d} has {d} bytes inline", .{ q.job, q.payload_bytes });
                break :payload q.body[0..q.payload_bytes];
            }
            const pool = w.link.pool;
            if (q.payload_at > pool.len or q.payload_bytes > pool.len - q.payload_at)
                w.broken("job {d} has {d} bytes at {d} of a pool of {d}", .{ q.job, q.payload_bytes, q.payload_at, pool.len });
            break :payload pool[q.payload_at..][0..q.payload_bytes];
        };
        const crc = envelope.ofRequest(q, payload, w.link.header.features);
        if (crc != q.crc) w.broken("job {d} has CRC {x:0>8}, its bytes make {x:0>8}", .{ q.job, q.crc, crc });
        return payload;
    }

    pub inline fn control(w: *const Worker) u32 {
        // seq_cst: a gate waits for it (gate.zig: G0 and G5). Pairs with the relay's store of drain or stop.
        return @atomicLoad(u32, &w.link.theirs.control, .seq_cst);
    }

    // --- waiting ---------------------------------------------------------------------------------------------------------

    fn readyWithWork(w: *Worker) bool {
        // A position that breaks the rule ends the wait, too: serve() says so.
        if (w.channel.state.held) return w.control() == layout.control_stop;
        const count = w.link.requests.available() catch return true;
        return count != 0 or w.control() != layout.control_run;
    }

    /// What an idle worker listens to beside its gate: the channel, and links to other workers. While a state is awaited nothing
    /// is served, so a request must not end the wait.
    fn heardFd(w: *const Worker) ?os.Fd {
        if (w.links.count > 0 and !w.channel.state.held) return w.links.poller;
        return if (w.channel.state.listens) w.channel.fd else null;
    }

    /// Waits without end, or, while large answers have left pages behind, until it is time to give those back.
    fn waitForWork(w: *Worker) void {
        const link = &w.link;
        while (true) {
            const touched = @as(u64, link.region.highest_touched) * link.region.block_bytes;
            const limit_ns: ?u64 = if (touched > results_kept_bytes) trim_after_ns else null;
            const found = if (w.heardFd()) |fd|
                link.waiter.waitOr(.{ .fd = fd, .events = linux.POLL.IN }, w, readyWithWork, limit_ns)
            else
                link.waiter.wait(w, readyWithWork, limit_ns);
            w.counters.set("gate", @backingInt(link.waiter.last));
            if (found) return;
            w.takeGivebacks();
            link.region.trim(.{ .fd = link.fds.worker_side, .at = link.header.results_at, .keep_bytes = results_kept_bytes });
        }
    }

    // --- completions and what comes back for them ------------------------------------------------------------------------

    /// Publishes the completions, then the slots of their requests.
    pub fn publish(w: *Worker) void {
        if (w.link.completions.publish() > 0) w.link.waker.ring();
        w.unpublished_ns = 0;
        // After the completions: a slot that is free belongs to a job that is answered.
        if (w.unreleased > 0) {
            w.link.requests.release(w.unreleased);
            w.unreleased = 0;
        }
    }

    /// After a completion was made at `now`: publishes, unless short_jobs lets it wait a little.
    pub inline fn publishSoon(w: *Worker, now: u64) void {
        if (w.unpublished_ns == 0) w.unpublished_ns = now;
        if (!w.short_jobs or now - w.unpublished_ns > publish_within_ns) w.publish();
    }

    fn readyWithSlot(w: *Worker) bool {
        const free = w.link.completions.free() catch return true;
        return free != 0 or w.control() == layout.control_stop;
    }

    /// A slot of the completion ring, published by publish(). The bridge takes completions steadily; a full ring means that it
    /// is held up, or that parts and progress came faster than it looks. What we hold back ourselves is published before the
    /// wait.
    pub inline fn claim(w: *Worker) *layout.Completion {
        return w.claimNow() orelse w.claimLater();
    }

    inline fn claimNow(w: *Worker) ?*layout.Completion {
        return w.link.completions.claim() catch w.brokenCompletions();
    }

    noinline fn claimLater(w: *Worker) *layout.Completion {
        while (true) {
            w.publish();
            _ = w.link.waiter.wait(w, readyWithSlot, room_slice_ns);
            if (w.control() == layout.control_stop) linux.exit_group(0); // nobody will read this answer
            return w.claimNow() orelse continue;
        }
    }

    /// Free slots of the completion ring.
    pub fn completionsFree(w: *Worker) u64 {
        return w.link.completions.free() catch w.brokenCompletions();
    }

    pub fn takeGivebacks(w: *Worker) void {
        const ring = &w.link.givebacks;
        const count = ring.available() catch w.broken("the position of the give-back ring ran backwards or too far", .{});
        if (count == 0) return;
        for (0..count) |i| {
            const extent = ring.at(i).*;
            w.link.region.give(.{ .first = extent.first, .count = extent.count }) catch
                w.broken("blocks {d} to {d} were given back, which are not all taken", .{
                    extent.first, @as(u64, extent.first) + extent.count -| 1,
                });
        }
        ring.release(count);
    }

    // --- the ends --------------------------------------------------------------------------------------------------------

    noinline fn brokenCompletions(w: *const Worker) noreturn {
        w.broken("the position of the completion ring ran backwards or too far", .{});
    }

    /// The bridge broke a rule of the link: nothing in it can be trusted. A line on stderr, exit status 76.
    pub noinline fn broken(w: *const Worker, comptime format: []const u8, arguments: anytype) noreturn {
        const before = "worker {d}: the bridge broke a rule of the link: ";
        os.complain(before ++ format, .{w.link.header.worker_id} ++ arguments);
        linux.exit_group(os.exit_protocol);
    }
};
