//! Where each part of a link lies: the worker checks the relay's header against it (csrc/include/ringbridge/link.h has the
//! picture). Every part is followed by one guard page, the last one too.
const std = @import("std");
const layout = @import("layout.zig");

const Parts = @This();

requests_at: u64,
cancels_at: u64,
demands_at: u64,
givebacks_at: u64,
relay_side_bytes: u64,
completions_at: u64,
results_at: u64,
worker_side_bytes: u64,
/// Bytes of the result region that are populated in advance.
populated_results: u64,

pub const Sizes = struct { slots: u32, result_block_bytes: u32, result_bytes: u64 };

/// BadSize: a number breaks its rule.
pub fn of(sizes: Sizes) error{BadSize}!Parts {
    const blocks_max = 1 << 20; // a give-back ring of 8 MiB
    if (sizes.slots < 2 or sizes.slots > 65536 or !std.math.isPowerOfTwo(sizes.slots)) return error.BadSize;
    if (sizes.result_block_bytes == 0 or !std.math.isPowerOfTwo(sizes.result_block_bytes)) return error.BadSize;
    if (sizes.result_block_bytes % layout.page_bytes != 0) return error.BadSize;
    if (sizes.result_bytes > 1 << 40 or sizes.result_bytes % sizes.result_block_bytes != 0) return error.BadSize;
    const blocks = sizes.result_bytes / sizes.result_block_bytes;
    if (blocks == 0 or !std.math.isPowerOfTwo(blocks) or blocks > blocks_max) return error.BadSize;

    const slots: u64 = sizes.slots;
    var p: Parts = undefined;
    p.requests_at = after(layout.at_positions, @sizeOf(layout.RelayPositions));
    p.cancels_at = after(p.requests_at, slots * @sizeOf(layout.Request));
    p.demands_at = after(p.cancels_at, slots * @sizeOf(u64));
    p.givebacks_at = after(p.demands_at, slots * @sizeOf(layout.Demand));
    p.relay_side_bytes = after(p.givebacks_at, blocks * @sizeOf(layout.Giveback));
    p.completions_at = after(layout.at_telemetry, @sizeOf(layout.Telemetry));
    p.results_at = after(p.completions_at, slots * @sizeOf(layout.Completion));
    p.worker_side_bytes = after(p.results_at, sizes.result_bytes);
    p.populated_results = @min(sizes.result_bytes, 1 << 20);
    return p;
}

/// Where the part after one of `bytes` at `at` begins: whole pages, then a guard.
fn after(at: u64, bytes: u64) u64 {
    return at + std.mem.alignForward(u64, bytes, layout.page_bytes) + layout.page_bytes;
}

/// Where the guard pages of a side begin.
pub fn relayGuards(p: *const Parts) [6]u64 {
    return before(6, .{ layout.at_positions, p.requests_at, p.cancels_at, p.demands_at, p.givebacks_at, p.relay_side_bytes });
}

pub fn workerGuards(p: *const Parts) [4]u64 {
    return before(4, .{ layout.at_positions, p.completions_at, p.results_at, p.worker_side_bytes });
}

fn before(comptime count: usize, begins: [count]u64) [count]u64 {
    var guards = begins;
    for (&guards) |*at| at.* -= layout.page_bytes;
    return guards;
}

/// Do a header's own numbers say the same?
pub fn agree(p: *const Parts, h: *const layout.RelayHeader) bool {
    inline for (.{
        "requests_at",      "cancels_at",     "demands_at", "givebacks_at",
        "relay_side_bytes", "completions_at", "results_at", "worker_side_bytes",
    }) |name| {
        if (@field(p, name) != @field(h, name)) return false;
    }
    return true;
}

const testing = std.testing;

test "the parts of a default link follow each other, a guard page between" {
    const p: Parts = try .of(.{ .slots = 1024, .result_block_bytes = 4096, .result_bytes = 64 << 20 });
    try testing.expectEqual(8192 + 4096 + 4096, p.requests_at);
    try testing.expectEqual(p.requests_at + 1024 * 128 + 4096, p.cancels_at);
    try testing.expectEqual(p.demands_at + 8192 + 4096, p.givebacks_at);
    try testing.expectEqual(p.givebacks_at + 16384 * 8 + 4096, p.relay_side_bytes);
    try testing.expectEqual(p.results_at + (64 << 20) + 4096, p.worker_side_bytes);
    try testing.expectEqual(p.relay_side_bytes - 4096, p.relayGuards()[5]);
}

test "sizes that break a rule" {
    const good: Sizes = .{ .slots = 2, .result_block_bytes = 4096, .result_bytes = 4096 };
    _ = try of(good);
    inline for (.{
        .{ "slots", .{ 0, 1, 3, 131072 } },
        .{ "result_block_bytes", .{ 0, 2048, 12288 } },
        .{ "result_bytes", .{ 0, 4097, 3 * 4096, 1 << 41, 1 << 33 } },
    }) |rule| {
        inline for (rule[1]) |value| {
            var bad = good;
            @field(bad, rule[0]) = value;
            try testing.expectError(error.BadSize, of(bad));
        }
    }
}
