//! The telemetry block: one side writes it, the other reads it whole, neither waits: a seqlock
//! (csrc/include/ringbridge/telemetry.h is the contract).
//!
//!      writer                                       reader
//!      store(sequence, odd)            T0           s = load_acquire(sequence), even    T3
//!      store_release(each word)        T1           load_acquire(each word)             T4
//!      store_release(sequence, even)   T2           load(sequence) == s, else again     T5
//!
//! T2/T3: who sees the even number sees the words before it. T1/T4: who sees a newer word sees the odd number before it, so T5
//! finds it changed. One writer at a time. Death: a writer killed between T0 and T2 leaves the number odd; readers give up.
const std = @import("std");
const layout = @import("layout.zig");

const Telemetry = layout.Telemetry;
const word_count = @sizeOf(Telemetry) / @sizeOf(u64);
const Words = [word_count]u64;

comptime {
    // The first word is the sequence (low half) and the gate (high half); both are stored by themselves.
    std.debug.assert(@offsetOf(Telemetry, "sequence") == 0);
    std.debug.assert(@offsetOf(Telemetry, "gate") == 4);
    std.debug.assert(@sizeOf(Telemetry) % @sizeOf(u64) == 0);
}

/// Writes all fields of `values` but its sequence, which the block keeps itself.
pub fn store(shared: *align(8) Telemetry, values: Telemetry) void {
    const from = std.mem.bytesToValue(Words, std.mem.asBytes(&values));
    const to: *Words = @ptrCast(shared);
    // Relaxed: only writers store it, and they take turns. Made even, should a predecessor have died inside.
    const sequence = @atomicLoad(u32, &shared.sequence, .monotonic) & ~@as(u32, 1);
    @atomicStore(u32, &shared.sequence, sequence +% 1, .monotonic); // T0: kept before the words by T1
    @atomicStore(u32, &shared.gate, values.gate, .release); // T1: pairs with T4 in the relay's rb_telemetry_load()
    for (to[1..], from[1..]) |*word, value| @atomicStore(u64, word, value, .release); // T1
    @atomicStore(u32, &shared.sequence, sequence +% 2, .release); // T2: pairs with T3 there
}

// --- tests: the reader, as the relay has it ------------------------------------------------------------------------------

const testing = std.testing;

fn load(shared: *align(8) const Telemetry) ?Telemetry {
    const from: *const Words = @ptrCast(shared);
    for (0..1000) |_| {
        const sequence = @atomicLoad(u32, &shared.sequence, .acquire); // T3: pairs with T2
        if (sequence & 1 == 1) {
            std.atomic.spinLoopHint();
            continue;
        }
        var words: Words = undefined;
        // T4: pairs with T1, and keeps T5 below.
        words[0] = @as(u64, @atomicLoad(u32, &shared.gate, .acquire)) << 32 | sequence;
        for (words[1..], from[1..]) |*value, *word| value.* = @atomicLoad(u64, word, .acquire);
        if (@atomicLoad(u32, &shared.sequence, .monotonic) != sequence) continue; // T5
        return std.mem.bytesToValue(Telemetry, std.mem.asBytes(&words));
    }
    return null;
}

fn filled(n: u64) Telemetry {
    var words: Words = @splat(n);
    words[0] = 0;
    var values = std.mem.bytesToValue(Telemetry, std.mem.asBytes(&words));
    values.gate = @truncate(n);
    return values;
}

test "a reader has all of one writing, or none of it" {
    const Writer = struct {
        fn run(shared: *align(8) Telemetry, ending: *u32) void {
            var n: u64 = 1;
            // Relaxed: only an end to the writing.
            while (@atomicLoad(u32, ending, .monotonic) == 0) : (n += 1) store(shared, filled(n));
        }
    };
    var shared: Telemetry align(8) = filled(0);
    var ending: u32 = 0;
    const thread = try std.Thread.spawn(.{}, Writer.run, .{ &shared, &ending });
    var seen: usize = 0;
    for (0..20_000) |_| {
        const copy = load(&shared) orelse continue;
        const words = std.mem.bytesToValue(Words, std.mem.asBytes(&copy));
        for (words[1..]) |word| try testing.expectEqual(words[1], word);
        try testing.expectEqual(@as(u32, @truncate(words[1])), copy.gate);
        seen += 1;
    }
    @atomicStore(u32, &ending, 1, .monotonic); // as above
    thread.join();
    try testing.expect(seen > 0);
}

test "a number left odd by a writer that died is made even by the next" {
    var shared: Telemetry align(8) = filled(3);
    shared.sequence = 7;
    try testing.expectEqual(null, load(&shared));
    store(&shared, filled(9));
    try testing.expectEqual(9, load(&shared).?.jobs);
    try testing.expectEqual(8, shared.sequence);
}
