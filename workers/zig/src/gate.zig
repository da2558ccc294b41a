//! How one side of a link waits for the other, and how it is woken (csrc/include/ringbridge/gate.h is the contract).
//!
//! Each side writes only its own memory: a waiter announces itself in its own `park` word, a waker bumps its own `doorbell`
//! word, which is what the waiter's futex compares. Park words carry a sequence, so one parking costs the waker one system call
//! however often it publishes, and a side that is awake costs none.
//!
//!      waker                                       waiter
//!      publish the position        G0 (= R0)       d = load(doorbell)               G3
//!      p = load(park)              G1              store(park, seq << 2 | way)      G4
//!      if parked and p != last woken:              look at the position again       G5
//!          store(doorbell, +1)     G2              if still nothing: futex(doorbell == d),
//!          wake as p says                              or poll(bell), or sigtimedwait()
//!                                                  store(park, seq << 2 | awake)    G6
//!
//! G0/G1 against G4/G5, all seq_cst: either the waker sees the parking or the waiter sees the position; never neither. So what
//! a gate waits for is stored seq_cst before the ring and loaded seq_cst by `ready`. G2 against G3: a doorbell that rang
//! between G3 and the futex makes the futex return at once.
//!
//! Bounds: a spin is `spin` pauses; a park ends at its deadline, or without one when `ready` says so.
const std = @import("std");
const linux = std.os.linux;
const layout = @import("layout.zig");
const os = @import("os.zig");

/// How a waiter sleeps, as its park word says.
pub const Way = enum(u2) {
    awake = layout.park_awake,
    futex = layout.park_futex,
    eventfd = layout.park_eventfd,
    signal = layout.park_signal,
};

/// A park word.
pub const Park = packed struct(u32) { way: Way = .awake, sequence: u30 = 0 };

/// Where a worker's waits begin; about what a wake-up across cores costs, so that a spin never loses more than it can win.
pub const spin_max = 1000;
/// A park that was answered within this time would better have been a spin.
const short_wait_ns = 100 * std.time.ns_per_us;
/// A signal goes to the whole process, and a thread that does not block it may swallow it: a wait never trusts it for longer.
const signal_slice_ns = 100 * std.time.ns_per_ms;
/// Pauses of a spin.
const yield_every = 16;

// --- the waker -----------------------------------------------------------------------------------------------------------

/// Wakes the relay. The signal way is not the worker's to use: the relay waits by its poll, or by futex.
pub const Waker = struct {
    /// The waiter's word. Any value of it only costs or saves a wake-up.
    park: *const u32,
    /// Ours.
    doorbell: *u32,
    eventfd: ?os.Fd,
    /// The park word that was woken last. The first is "awake in round 0", which no parking has: sequences begin with 1.
    woken: u32 = 0,

    /// After the position was published (G0). One load while the waiter is awake.
    pub inline fn ring(w: *Waker) void {
        // G1: pairs with G4 in the relay's rb_gate_announce(); seq_cst with G0, else store buffering would let both sides miss
        // each other.
        const park = @atomicLoad(u32, w.park, .seq_cst);
        if (@as(Park, @bitCast(park)).way != .awake and park != w.woken) w.wake(park);
    }

    noinline fn wake(w: *Waker, park: u32) void {
        // G2: pairs with G3 there and with the kernel's comparison in FUTEX_WAIT: a waiter that read the doorbell before this
        // store and sleeps after it is sent back at once. Read relaxed: only we write it.
        @atomicStore(u32, w.doorbell, @atomicLoad(u32, w.doorbell, .monotonic) +% 1, .release);
        w.woken = park;
        switch (@as(Park, @bitCast(park)).way) {
            // Shared between processes: not private.
            .futex => _ = linux.futex_3arg(w.doorbell, .{ .cmd = .WAKE, .private = false }, 1),
            .eventfd => if (w.eventfd) |fd| bump(fd),
            .signal, .awake => {},
        }
    }
};

/// The flags of an eventfd's description are shared with the other side, so ask before writing. A full count is a bell that
/// still rings.
fn bump(fd: os.Fd) void {
    var asked = [1]linux.pollfd{.{ .fd = fd, .events = linux.POLL.OUT, .revents = 0 }};
    if (linux.poll(&asked, 1, 0) != 1 or asked[0].revents & linux.POLL.OUT == 0) return;
    const one: u64 = 1;
    while (linux.errno(linux.write(fd, std.mem.asBytes(&one), @sizeOf(u64))) == .INTR) {}
}

// --- the waiter ----------------------------------------------------------------------------------------------------------

/// There may be news (or not: spurious), the deadline has passed, or this way is not to be had.
const Slept = enum { woken, deadline, refused };

pub const Waiter = struct {
    /// Ours.
    park: *u32,
    /// The waker's.
    doorbell: *const u32,
    /// For Way.eventfd: an eventfd, or our end of a pair of sockets.
    bell: ?os.Fd,
    sequence: u30 = 0,
    /// Pauses before parking: 0 .. spin_max, by what the last waits found.
    spin: u32 = spin_max / 2,
    /// How the last wait ended; awake: the spin was enough.
    last: Way = .awake,
    /// A futex was refused in this process (a seccomp filter): not asked again.
    futex_refused: bool = false,

    /// Waits until `ready(context)`: bounded adaptive spin, then futex, or the bell where the futex is refused, or a signal
    /// where there is no bell. False after `timeout_ns`. Spurious wake-ups are absorbed. What `ready` looks at it must load
    /// seq_cst.
    pub fn wait(w: *Waiter, context: anytype, comptime ready: fn (@TypeOf(context)) bool, timeout_ns: ?u64) bool {
        if (ready(context)) {
            w.last = .awake;
            return true;
        }
        if (timeout_ns == 0) return false;
        if (w.spinFor(context, ready)) return true;
        const begin = os.now(); // the spin is not counted: it is shorter than the clock's meaning of a timeout
        defer w.adapt(os.now() - begin);
        const deadline = if (timeout_ns) |ns| begin +| ns else null;
        if (!w.futex_refused) {
            if (w.parkBy(.futex, context, ready, deadline)) |found| return found;
            w.futex_refused = true;
        }
        if (w.parkBy(.eventfd, context, ready, deadline)) |found| return found;
        blockWakeSignal();
        return w.parkBy(.signal, context, ready, deadline) orelse false;
    }

    /// The same for a waiter that has a descriptor of its own to hear, beside the gate: true also when `fd` has one of `events`
    /// (poll(2)) or has failed. Parks by the bell alone; without one it looks again every 5 ms.
    pub fn waitOr(
        w: *Waiter,
        other: struct { fd: os.Fd, events: i16 },
        context: anytype,
        comptime ready: fn (@TypeOf(context)) bool,
        timeout_ns: ?u64,
    ) bool {
        var both = [2]linux.pollfd{
            .{ .fd = other.fd, .events = other.events, .revents = 0 },
            .{ .fd = w.bell orelse -1, .events = linux.POLL.IN, .revents = 0 },
        };
        if (ready(context) or linux.errno(linux.poll(&both, 1, 0)) == .SUCCESS and both[0].revents != 0) return true;
        if (timeout_ns == 0) return false;
        if (w.spinFor(context, ready)) return true;
        const begin = os.now();
        defer w.adapt(os.now() - begin);
        while (true) { // bound: as wait()
            const left = if (timeout_ns) |ns| (begin +| ns) -| os.now() else null;
            _ = w.announce(.eventfd);
            const found = ready(context) or sleepBoth(&both, left) or ready(context); // G5
            w.retract();
            w.last = .eventfd;
            if (found or left == 0) return found;
        }
    }

    fn spinFor(w: *Waiter, context: anytype, comptime ready: fn (@TypeOf(context)) bool) bool {
        var i: u32 = 0;
        while (i < w.spin) : (i += 1) {
            std.atomic.spinLoopHint();
            // Who would end the wait may need this very core: with two processes and one core, a spin that yields costs a
            // context switch, one that does not a time slice.
            if (i % yield_every == yield_every - 1) _ = linux.sched_yield();
            if (!ready(context)) continue;
            // A hit draws the budget towards twice of what it took.
            const wanted = if (i < spin_max / 2) 2 * i + spin_max / 64 else spin_max;
            w.spin = @min(w.spin - w.spin / 8 + wanted / 8, spin_max);
            w.last = .awake;
            return true;
        }
        return false;
    }

    /// A long park means that the spin before it was wasted; a short one, that a little more of it would have been enough.
    fn adapt(w: *Waiter, parked_ns: u64) void {
        w.spin = if (parked_ns > short_wait_ns) w.spin / 2 else @min(w.spin + spin_max / 8, spin_max);
    }

    /// Parks by `way` until `ready` or the deadline: what `ready` said last. null: this way is not to be had.
    fn parkBy(w: *Waiter, way: Way, context: anytype, comptime ready: fn (@TypeOf(context)) bool, deadline: ?u64) ?bool {
        while (true) {
            const bell = w.announce(way);
            // G5: the second look. `ready` must load seq_cst: a plain acquire load may be performed before G4 is visible, and
            // then both sides could miss each other.
            if (ready(context)) {
                w.retract();
                return true;
            }
            const slept: Slept = switch (way) {
                .futex => w.sleepFutex(bell, deadline),
                .eventfd => w.sleepBell(deadline),
                .signal => sleepSignal(deadline),
                .awake => unreachable,
            };
            if (slept != .refused) w.last = way;
            const found = ready(context); // at the deadline too: what came at the last moment is not left lying
            w.retract();
            if (found) return true;
            switch (slept) {
                .woken => {},
                .deadline => return false,
                .refused => return null,
            }
        }
    }

    /// The doorbell's value, for the futex.
    fn announce(w: *Waiter, way: Way) u32 {
        // G3: before G4, which is a release as well as seq_cst and so keeps this load above it. A bell rung for this parking
        // comes after G4 and is therefore not in `bell`: pairs with G2 in the relay's rb_gate_ring_slow().
        const bell = @atomicLoad(u32, w.doorbell, .acquire);
        // A new sequence for each parking: the waker rings once a parking.
        w.sequence +%= 1;
        // G4: pairs with G1 in the relay's rb_gate_ring(). seq_cst with the look G5 that follows.
        @atomicStore(u32, w.park, @bitCast(Park{ .way = way, .sequence = w.sequence }), .seq_cst);
        return bell;
    }

    fn retract(w: *Waiter) void {
        // G6: relaxed: a waker that still sees the parking rings for nothing, which every wait absorbs.
        @atomicStore(u32, w.park, @bitCast(Park{ .way = .awake, .sequence = w.sequence }), .monotonic);
    }

    fn sleepFutex(w: *Waiter, bell: u32, deadline: ?u64) Slept {
        // FUTEX_WAIT needs only read access: the doorbell lies in the other side's memory, and the key is the file's inode.
        // The deadline is absolute, on CLOCK_MONOTONIC.
        const until = if (deadline) |ns| os.timespec(ns) else null;
        const slept = linux.futex(
            w.doorbell,
            .{ .cmd = .WAIT_BITSET, .private = false },
            bell,
            .{ .timeout = if (until) |*t| t else null },
            null,
            std.math.maxInt(u32), // FUTEX_BITSET_MATCH_ANY
        );
        return switch (linux.errno(slept)) {
            .SUCCESS, .AGAIN, .INTR => .woken,
            .TIMEDOUT => .deadline,
            else => .refused,
        };
    }

    fn sleepBell(w: *Waiter, deadline: ?u64) Slept {
        const fd = w.bell orelse return .refused;
        var asked = [1]linux.pollfd{.{ .fd = fd, .events = linux.POLL.IN, .revents = 0 }};
        var left = os.timespec(if (deadline) |ns| ns -| os.now() else 0);
        const found = linux.ppoll(&asked, 1, if (deadline == null) null else &left, null);
        switch (linux.errno(found)) {
            .SUCCESS => if (found == 0) return .deadline,
            .INTR => return .woken,
            else => return .refused,
        }
        // HUP: a socket whose other end is gone; it would not sleep.
        const useless = linux.POLL.NVAL | linux.POLL.ERR | linux.POLL.HUP;
        if (asked[0].revents & useless != 0) return .refused;
        drain(fd);
        return .woken;
    }
};

/// One sleep on a descriptor and the bell. False: news at the gate, the time is over, or nothing. A bell that is out of order
/// is left out from then on.
fn sleepBoth(both: *[2]linux.pollfd, left_ns: ?u64) bool {
    const no_bell_slice_ns = 5 * std.time.ns_per_ms;
    const limit = if (both[1].fd < 0) @min(left_ns orelse no_bell_slice_ns, no_bell_slice_ns) else left_ns;
    var left = os.timespec(limit orelse 0);
    const found = linux.ppoll(both, 2, if (limit == null) null else &left, null);
    if (linux.errno(found) != .SUCCESS or found == 0) return false;
    if (both[1].revents & (linux.POLL.NVAL | linux.POLL.ERR | linux.POLL.HUP) != 0) {
        both[1].fd = -1;
    } else if (both[1].revents != 0) {
        drain(both[1].fd);
    }
    return both[0].revents != 0;
}

fn drain(fd: os.Fd) void {
    var rings: [64]u8 = undefined;
    while (true) { // bound: what the socket holds; what is left over wakes the next sleep for nothing
        const n = linux.recvfrom(fd, &rings, rings.len, linux.MSG.DONTWAIT, null, null);
        switch (linux.errno(n)) {
            .SUCCESS => if (n < rings.len) return,
            .INTR => {},
            .NOTSOCK => break,
            else => return,
        }
    }
    // An eventfd. RWF_NOWAIT and not O_NONBLOCK: the description's flags are shared with the other side (Linux 5.8).
    var count: u64 = undefined;
    const into = [1]std.posix.iovec{.{ .base = @ptrCast(&count), .len = @sizeOf(u64) }};
    while (linux.errno(linux.preadv2(fd, &into, 1, -1, linux.RWF.NOWAIT)) == .INTR) {}
}

fn sleepSignal(deadline: ?u64) Slept {
    var set = wakeSignal();
    const left = if (deadline) |ns| ns -| os.now() else std.math.maxInt(u64);
    const slice = os.timespec(@min(left, signal_slice_ns));
    const slept = linux.syscall4(
        .rt_sigtimedwait,
        @intFromPtr(&set),
        0,
        @intFromPtr(&slice),
        @sizeOf(linux.sigset_t),
    );
    return switch (linux.errno(slept)) {
        .SUCCESS, .INTR => .woken,
        .AGAIN => if (left < signal_slice_ns) .deadline else .woken,
        else => .refused,
    };
}

fn wakeSignal() linux.sigset_t {
    var set = linux.sigemptyset();
    linux.sigaddset(&set, @fromBackingInt(layout.wake_signal));
    return set;
}

/// A signal that is not blocked would be taken away (it is ignored by default) before a wait could see it. Before the first
/// thread, so that every one has it blocked.
pub fn blockWakeSignal() void {
    const set = wakeSignal();
    _ = linux.sigprocmask(linux.SIG.BLOCK, &set, null);
}

// --- tests ---------------------------------------------------------------------------------------------------------------

const testing = std.testing;

/// Both sides' words, and a waker that is not the worker's but the relay's: by futex, or by a socket's byte.
const Door = struct {
    park: u32 align(128) = 0,
    doorbell: u32 align(128) = 0,
    position: u32 align(128) = 0,

    fn waiter(d: *Door, bell: ?os.Fd) Waiter {
        return .{ .park = &d.park, .doorbell = &d.doorbell, .bell = bell };
    }
    fn publish(d: *Door, waker: *Waker) void {
        // G0, in the place of a ring's R0; pairs with published().
        @atomicStore(u32, &d.position, @atomicLoad(u32, &d.position, .monotonic) + 1, .seq_cst);
        waker.ring();
    }
    const Look = struct { door: *Door, above: u32 };
    fn published(look: Look) bool {
        return @atomicLoad(u32, &look.door.position, .seq_cst) > look.above; // G5
    }
};

fn never(_: void) bool {
    return false;
}

test "a wait ends at its timeout, by each way" {
    var door: Door = .{};
    var w = door.waiter(null);
    const begin = os.now();
    try testing.expect(!w.wait({}, never, 2 * std.time.ns_per_ms));
    try testing.expect(os.now() - begin >= 2 * std.time.ns_per_ms);
    try testing.expectEqual(.futex, w.last);
    try testing.expectEqual(.awake, @as(Park, @bitCast(door.park)).way);

    var ends: [2]os.Fd = undefined;
    try testing.expectEqual(0, linux.socketpair(linux.AF.UNIX, linux.SOCK.STREAM, 0, &ends));
    defer for (ends) |fd| {
        _ = linux.close(fd);
    };
    w = door.waiter(ends[0]);
    w.futex_refused = true;
    try testing.expect(!w.wait({}, never, 2 * std.time.ns_per_ms));
    try testing.expectEqual(.eventfd, w.last);

    w = door.waiter(null); // no bell: by signal
    w.futex_refused = true;
    try testing.expect(!w.wait({}, never, 2 * std.time.ns_per_ms));
    try testing.expectEqual(.signal, w.last);
}

test "a bell whose other end is gone is not slept on" {
    var door: Door = .{};
    var ends: [2]os.Fd = undefined;
    try testing.expectEqual(0, linux.socketpair(linux.AF.UNIX, linux.SOCK.STREAM, 0, &ends));
    _ = linux.close(ends[1]);
    defer _ = linux.close(ends[0]);
    var w = door.waiter(ends[0]);
    try testing.expectEqual(.refused, w.sleepBell(null));
}

test "no wake-up is lost between two threads" {
    const rounds = 20_000;
    const There = struct {
        fn run(there: *Door, here: *Door) void {
            var waker: Waker = .{ .park = &here.park, .doorbell = &here.doorbell, .eventfd = null };
            var w = there.waiter(null);
            w.spin = 0;
            for (0..rounds) |i| {
                // Each second of silence is a lost wake-up: nothing but the other thread's ring ends this wait.
                if (!w.wait(Door.Look{ .door = there, .above = @intCast(i) }, Door.published, 20 * std.time.ns_per_s)) return;
                w.spin = @intCast(i % 3);
                here.publish(&waker);
            }
        }
    };
    var here: Door = .{};
    var there: Door = .{};
    const thread = try std.Thread.spawn(.{}, There.run, .{ &there, &here });
    defer thread.join();
    var waker: Waker = .{ .park = &there.park, .doorbell = &there.doorbell, .eventfd = null };
    var w = here.waiter(null);
    for (0..rounds) |i| {
        there.publish(&waker);
        w.spin = @intCast(i % 5);
        try testing.expect(w.wait(Door.Look{ .door = &here, .above = @intCast(i) }, Door.published, 20 * std.time.ns_per_s));
    }
}

test "one parking is rung once, a side that is awake never" {
    var door: Door = .{};
    const fd: os.Fd = @intCast(linux.eventfd(0, 0));
    defer _ = linux.close(fd);
    var waker: Waker = .{ .park = &door.park, .doorbell = &door.doorbell, .eventfd = fd };
    door.publish(&waker);
    try testing.expectEqual(0, door.doorbell);
    var w = door.waiter(fd);
    _ = w.announce(.eventfd);
    for (0..3) |_| door.publish(&waker);
    try testing.expectEqual(1, door.doorbell);
    try testing.expectEqual(.woken, w.sleepBell(os.now() + std.time.ns_per_s));
    try testing.expectEqual(.deadline, w.sleepBell(os.now())); // drained: the bell rang once
    w.retract();
    door.publish(&waker);
    try testing.expectEqual(1, door.doorbell);
}
