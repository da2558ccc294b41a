//! Who owns which block of the result region, kept in our private memory (csrc/include/ringbridge/region.h is the contract).
//!
//! First fit over a bitmap: low addresses are used again first, so that the pages of a region which was once full can be given
//! back to the kernel. One owner thread. Bound: a look passes each word of the bitmap once.
const std = @import("std");
const linux = std.os.linux;
const os = @import("os.zig");

const Region = @This();

/// One bit a block; 1: taken.
used: []u64,
blocks: u32,
block_bytes: u32,
/// Blocks.
taken: u32 = 0,
/// No free block lies below it.
lowest: u32 = 0,
/// Blocks from it on were not handed out since the last trim.
highest_touched: u32 = 0,

pub fn init(allocator: std.mem.Allocator, size: struct { bytes: u64, block_bytes: u32 }) error{OutOfMemory}!Region {
    const blocks: u32 = @intCast(size.bytes / size.block_bytes);
    const used = try allocator.alloc(u64, (blocks + 63) / 64);
    @memset(used, 0);
    return .{ .used = used, .blocks = blocks, .block_bytes = size.block_bytes };
}

pub fn deinit(r: *Region, allocator: std.mem.Allocator) void {
    allocator.free(r.used);
    r.* = undefined;
}

pub fn blocksFor(r: *const Region, bytes: u64) u32 {
    return @intCast((bytes + r.block_bytes - 1) / r.block_bytes);
}

/// The first block from `from` on that is free or taken; `blocks` when there is none.
fn find(r: *const Region, from: u32, wanted: enum { free, taken }) u32 {
    const flip: u64 = if (wanted == .free) std.math.maxInt(u64) else 0;
    if (from >= r.blocks) return r.blocks;
    var word = from / 64;
    var bits = (r.used[word] ^ flip) & (@as(u64, std.math.maxInt(u64)) << @intCast(from % 64));
    while (bits == 0) {
        word += 1;
        if (word == r.used.len) return r.blocks;
        bits = r.used[word] ^ flip;
    }
    return @min(word * 64 + @ctz(bits), r.blocks); // the last word's spare bits read as free
}

fn mark(r: *Region, first: u32, count: u32, taken: bool) void {
    var at = first;
    while (at < first + count) {
        const bit: u6 = @intCast(at % 64);
        const here = @min(64 - @as(u32, bit), first + count - at);
        const ones: u64 = @as(u64, std.math.maxInt(u64)) >> @intCast(64 - here);
        if (taken) r.used[at / 64] |= ones << bit else r.used[at / 64] &= ~(ones << bit);
        at += here;
    }
}

/// Room for `bytes` (> 0): the first block's index. Full: no run that long is free now. TooLarge: it never fits.
pub fn take(r: *Region, bytes: u64) error{ Full, TooLarge }!u32 {
    std.debug.assert(bytes > 0);
    if (bytes > @as(u64, r.blocks) * r.block_bytes) return error.TooLarge;
    const count = r.blocksFor(bytes);
    if (count > r.blocks - r.taken) return error.Full;
    var first = r.find(r.lowest, .free);
    r.lowest = first;
    while (r.blocks - first >= count) {
        const end = r.find(first, .taken);
        if (end - first >= count) {
            r.mark(first, count, true);
            r.taken += count;
            if (first == r.lowest) r.lowest = first + count;
            r.highest_touched = @max(r.highest_touched, first + count);
            return first;
        }
        first = r.find(end, .free);
    }
    return error.Full;
}

/// NotTaken, and nothing changed, when any of the blocks lies outside or is free.
pub fn give(r: *Region, extent: struct { first: u32, count: u32 }) error{NotTaken}!void {
    if (extent.count == 0 or extent.first >= r.blocks or extent.count > r.blocks - extent.first) return error.NotTaken;
    if (r.find(extent.first, .free) < extent.first + extent.count) return error.NotTaken;
    r.mark(extent.first, extent.count, false);
    r.taken -= extent.count;
    r.lowest = @min(r.lowest, extent.first);
}

/// Punches holes into the file, whose region begins at `at`, where blocks are free above the first `keep_bytes`. When idle.
/// A kernel that refuses costs memory only, so nothing is said of it.
pub fn trim(r: *Region, file: struct { fd: os.Fd, at: u64, keep_bytes: u64 }) void {
    const keep: u32 = @intCast((file.keep_bytes + r.block_bytes - 1) / r.block_bytes);
    if (keep >= r.highest_touched) return;
    var from = r.find(keep, .free);
    while (from < r.highest_touched) {
        const end = @min(r.find(from, .taken), r.highest_touched);
        const at = file.at + @as(u64, from) * r.block_bytes;
        const bytes = @as(u64, end - from) * r.block_bytes;
        const how = linux.FALLOC.FL_PUNCH_HOLE | linux.FALLOC.FL_KEEP_SIZE;
        if (linux.errno(linux.fallocate(file.fd, how, @intCast(at), @intCast(bytes))) != .SUCCESS) return;
        if (end == r.highest_touched) {
            r.highest_touched = from; // all of the tail was free
            return;
        }
        from = r.find(end, .free);
    }
}

// --- tests ---------------------------------------------------------------------------------------------------------------

const testing = std.testing;

fn made(blocks: u32) !Region {
    return .init(testing.allocator, .{ .bytes = @as(u64, blocks) * 4096, .block_bytes = 4096 });
}

test "low addresses are used again first" {
    var r = try made(256);
    defer r.deinit(testing.allocator);
    try testing.expectEqual(0, try r.take(4096));
    try testing.expectEqual(1, try r.take(100_000));
    try testing.expectEqual(26, try r.take(1));
    try r.give(.{ .first = 1, .count = 25 });
    try testing.expectEqual(1, try r.take(8192));
    try testing.expectEqual(3, try r.take(23 * 4096));
    try testing.expectEqual(27, try r.take(1));
}

test "what never fits is told apart from what does not fit now" {
    var r = try made(4);
    defer r.deinit(testing.allocator);
    try testing.expectError(error.TooLarge, r.take(4 * 4096 + 1));
    try testing.expectEqual(0, try r.take(4 * 4096));
    try testing.expectError(error.Full, r.take(1));
}

test "blocks that are not all taken cannot be given" {
    var r = try made(128);
    defer r.deinit(testing.allocator);
    _ = try r.take(70 * 4096);
    try testing.expectError(error.NotTaken, r.give(.{ .first = 60, .count = 11 }));
    try testing.expectError(error.NotTaken, r.give(.{ .first = 128, .count = 1 }));
    try testing.expectError(error.NotTaken, r.give(.{ .first = 127, .count = 2 }));
    try testing.expectError(error.NotTaken, r.give(.{ .first = 0, .count = 0 }));
    try testing.expectEqual(70, r.taken);
    try r.give(.{ .first = 0, .count = 70 });
    try testing.expectError(error.NotTaken, r.give(.{ .first = 0, .count = 1 }));
}

test "a random walk owns each block once" {
    const blocks = 200; // no multiple of 64: the last word has spare bits
    const Extent = struct { first: u32, count: u32 };
    var r = try made(blocks);
    defer r.deinit(testing.allocator);
    var owner: [blocks]u32 = @splat(0);
    var held: [blocks]Extent = undefined;
    var count: usize = 0;
    var random: std.Random.DefaultPrng = .init(1);
    for (1..20_000) |step| {
        if (random.random().boolean()) {
            const wanted = random.random().intRangeAtMost(u32, 1, 30);
            const first = r.take(@as(u64, wanted) * 4096) catch |why| {
                // Only when no run that long is free.
                var run: u32 = 0;
                for (owner) |o| {
                    run = if (o == 0) run + 1 else 0;
                    try testing.expect(run < wanted);
                }
                try testing.expectEqual(error.Full, why);
                continue;
            };
            for (owner[first..][0..wanted]) |*o| {
                try testing.expectEqual(0, o.*);
                o.* = @intCast(step);
            }
            held[count] = .{ .first = first, .count = wanted };
            count += 1;
        } else if (count > 0) {
            const i = random.random().uintLessThan(usize, count);
            try r.give(.{ .first = held[i].first, .count = held[i].count });
            @memset(owner[held[i].first..][0..held[i].count], 0);
            count -= 1;
            held[i] = held[count];
        }
    }
}
