//! A single-producer single-consumer ring of fixed slots between two processes (csrc/include/ringbridge/ring.h is the
//! contract).
//!
//! Positions are free-running 64-bit counts, masked only at use: `tail` counts slots published, `head` slots released. Each
//! side writes its own position in its own memory and maps the other's read-only; its truth is private (`tail`, `head` below),
//! the shared word is never read back. Positions stand on line pairs of their own (layout.zig), so neither side's store costs
//! the other side a line that it writes.
//!
//!      producer                                   consumer
//!      slots[tail & mask] = ...                   t = load(tail)                  R1
//!      store(tail, tail + n)            R0        ... read slots[head & mask] ...
//!      h = load_acquire(head)           R3        store_release(head, head + n)   R2
//!
//! R0/R1: who sees the new tail sees the slots. R2/R3: who sees the new head may write the slots again. R0 and R1 are seq_cst
//! since they are also two of the four accesses of the gate's handshake (gate.zig, G0 and G5). R2 and R3 are not: no gate waits
//! for room.
//!
//! Bound: nothing here loops. Death: a producer that dies before R0 has published nothing; a consumer that dies before R2
//! leaves its slots in place.
const std = @import("std");

/// The other side's position ran backwards or too far: the ring cannot be used again.
pub const Violation = error{PositionOutOfRange};

pub fn Producer(comptime Slot: type) type {
    return struct {
        /// Published.
        tail: u64 = 0,
        /// At least `tail`: slots handed out by claim(), not yet published.
        claimed: u64 = 0,
        /// The consumer's position as last seen.
        head: u64 = 0,
        shared_tail: *u64,
        shared_head: *const u64,
        /// A power of two of them.
        slots: []Slot,

        const Self = @This();

        /// How many slots are free, by a look at the consumer's position.
        pub fn free(p: *Self) Violation!u64 {
            // R3: pairs with R2 in Consumer.release(). Without it a slot could be overwritten while the consumer still reads
            // it.
            const head = @atomicLoad(u64, p.shared_head, .acquire);
            if (head -% p.head > p.tail -% p.head) return error.PositionOutOfRange;
            p.head = head;
            return p.slots.len - (p.claimed -% head);
        }

        /// The next slot to fill, or null while the ring is full.
        pub fn claim(p: *Self) Violation!?*Slot {
            if (p.claimed -% p.head == p.slots.len and try p.free() == 0) return null;
            const slot = &p.slots[@intCast(p.claimed & (p.slots.len - 1))];
            p.claimed +%= 1;
            return slot;
        }

        /// Publishes all claimed slots with one store; all of them must be filled. Returns how many.
        pub fn publish(p: *Self) u64 {
            const count = p.claimed -% p.tail;
            if (count == 0) return 0;
            p.tail = p.claimed;
            // R0: pairs with R1 in Consumer.available(). Also G0 of the gate, hence seq_cst.
            @atomicStore(u64, p.shared_tail, p.tail, .seq_cst);
            return count;
        }
    };
}

pub fn Consumer(comptime Slot: type) type {
    return struct {
        /// Released.
        head: u64 = 0,
        /// The producer's position as last seen.
        tail: u64 = 0,
        shared_head: *u64,
        shared_tail: *const u64,
        /// A power of two of them.
        slots: []const Slot,

        const Self = @This();

        /// How many slots can be read, by a look at the producer's position.
        pub fn available(c: *Self) Violation!u64 {
            // R1: pairs with R0 in Producer.publish(). Without it a slot could be read before its bytes are there. seq_cst
            // because it is also the gate's second look (G5): an acquire load may be performed before an earlier store is
            // visible.
            const tail = @atomicLoad(u64, c.shared_tail, .seq_cst);
            const count = tail -% c.head;
            if (count > c.slots.len or count < c.tail -% c.head) return error.PositionOutOfRange;
            c.tail = tail;
            return count;
        }

        /// The index of the i-th readable slot, i < available().
        pub fn index(c: *const Self, i: u64) usize {
            return @intCast((c.head +% i) & (c.slots.len - 1));
        }

        pub fn at(c: *const Self, i: u64) *const Slot {
            return &c.slots[c.index(i)];
        }

        /// Gives `count` slots back to the producer.
        pub fn release(c: *Self, count: u64) void {
            c.head +%= count;
            // R2: pairs with R3 in Producer.free(): our reads of the slots are done before the producer sees them free.
            @atomicStore(u64, c.shared_head, c.head, .release);
        }
    };
}

// --- tests ---------------------------------------------------------------------------------------------------------------

const testing = std.testing;

fn Pair(comptime slots: usize) type {
    return struct {
        tail: u64 align(128) = 0,
        head: u64 align(128) = 0,
        slots: [slots]u64 = @splat(0),

        fn producer(p: *@This()) Producer(u64) {
            return .{ .shared_tail = &p.tail, .shared_head = &p.head, .slots = &p.slots };
        }
        fn consumer(p: *@This()) Consumer(u64) {
            return .{ .shared_tail = &p.tail, .shared_head = &p.head, .slots = &p.slots };
        }
    };
}

test "what is claimed is seen only when it is published, in order" {
    var pair: Pair(4) = .{};
    var p = pair.producer();
    var c = pair.consumer();
    (try p.claim()).?.* = 11;
    (try p.claim()).?.* = 12;
    try testing.expectEqual(0, try c.available());
    try testing.expectEqual(2, p.publish());
    try testing.expectEqual(0, p.publish());
    try testing.expectEqual(2, try c.available());
    try testing.expectEqual(11, c.at(0).*);
    try testing.expectEqual(12, c.at(1).*);
}

test "a full ring gives no slot until the consumer releases one" {
    var pair: Pair(2) = .{};
    var p = pair.producer();
    var c = pair.consumer();
    for (0..2) |i| (try p.claim()).?.* = i;
    _ = p.publish();
    try testing.expectEqual(null, try p.claim());
    _ = try c.available();
    c.release(1);
    (try p.claim()).?.* = 2;
    try testing.expectEqual(null, try p.claim());
}

test "positions run on over the end of 64 bits" {
    const near_end = std.math.maxInt(u64) - 2;
    var pair: Pair(4) = .{ .tail = near_end, .head = near_end };
    var p = pair.producer();
    var c = pair.consumer();
    p.tail = near_end;
    p.claimed = near_end;
    p.head = near_end;
    c.tail = near_end;
    c.head = near_end;
    for (0..40) |i| {
        (try p.claim()).?.* = i;
        _ = p.publish();
        try testing.expectEqual(1, try c.available());
        try testing.expectEqual(i, c.at(0).*);
        c.release(1);
    }
}

test "a position that runs backwards or too far is refused" {
    var pair: Pair(4) = .{};
    var p = pair.producer();
    var c = pair.consumer();
    (try p.claim()).?.* = 1;
    _ = p.publish();
    _ = try c.available();
    pair.tail = 0; // backwards
    try testing.expectError(error.PositionOutOfRange, c.available());
    pair.tail = 5; // more than a ring ahead
    try testing.expectError(error.PositionOutOfRange, c.available());
    pair.head = 2; // past what was published
    try testing.expectError(error.PositionOutOfRange, p.free());
}

test "two threads: each value arrives once and in order, and none of them early" {
    const count = 200_000;
    const Shared = Pair(8);
    const Side = struct {
        fn produce(pair: *Shared) void {
            var p = pair.producer();
            var next: u64 = 1;
            while (next <= count) {
                const slot = (p.claim() catch unreachable) orelse {
                    _ = p.publish();
                    std.atomic.spinLoopHint();
                    if (next % 64 == 0) std.Thread.yield() catch {};
                    continue;
                };
                slot.* = next *% 0x9e3779b97f4a7c15;
                next += 1;
                if (next % 3 == 0) _ = p.publish();
            }
            _ = p.publish();
        }
    };
    var pair: Shared = .{};
    const thread = try std.Thread.spawn(.{}, Side.produce, .{&pair});
    defer thread.join();
    var c = pair.consumer();
    var next: u64 = 1;
    while (next <= count) {
        const n = try c.available();
        for (0..n) |i| {
            try testing.expectEqual(next *% 0x9e3779b97f4a7c15, c.at(i).*);
            next += 1;
        }
        if (n == 0) std.Thread.yield() catch {} else c.release(n);
    }
}
