//! CRC-32C (Castagnoli, RFC 3720 appendix B.4; reflected polynomial 0x82f63b78), by the CPU's instruction where it has one,
//! else by table, eight bytes a step. All tables are made while compiling.
//!
//! The instruction has a latency of three cycles and a throughput of one a cycle, so long inputs are cut into three equal runs
//! that are summed side by side and joined at the end: the register after a run of n zero bytes is a linear map of the register
//! before it, and this map, as four tables of 256 words, moves the first run's register past the second run (Mark Adler,
//! crc32c.c, 2013).
const std = @import("std");
const builtin = @import("builtin");

const polynomial: u32 = 0x82f63b78;
const long_run = 4096;
const short_run = 256;

/// The CRC of `bytes` continued from `crc` (0 to begin): update(update(0, a), b) is the CRC of a followed by b.
pub inline fn update(crc: u32, bytes: []const u8) u32 {
    if (can_assemble and hardware()) return byInstruction(crc, bytes);
    return byTable(crc, bytes);
}

/// The CRC of whole words, to begin with: what update(0, ...) gives for their bytes.
pub inline fn ofWords(comptime count: usize, words: *const [count]u64) u32 {
    if (!can_assemble or !hardware()) return byTable(0, std.mem.sliceAsBytes(words));
    var crc: u64 = std.math.maxInt(u32);
    inline for (words) |value| crc = step8(crc, value);
    return ~@as(u32, @truncate(crc));
}

// --- which one: asked of the CPU once ------------------------------------------------------------------------------------

var known: enum(u8) { unknown, table, instruction } = .unknown;

/// Zig's own code generator, which debug builds use, only knows the instructions of the CPU that it is told of; LLVM's
/// assembler knows them all.
const can_assemble = switch (builtin.cpu.arch) {
    .x86_64 => builtin.zig_backend == .stage2_llvm or builtin.cpu.has(.x86, .crc32),
    .aarch64 => true,
    else => false,
};

inline fn hardware() bool {
    // Relaxed: whoever asks finds the same, and nothing is read on the strength of it (the tables are constants).
    return switch (@atomicLoad(@TypeOf(known), &known, .monotonic)) {
        .unknown => ask(),
        .table => false,
        .instruction => true,
    };
}

noinline fn ask() bool {
    const has = hasInstruction();
    @atomicStore(@TypeOf(known), &known, if (has) .instruction else .table, .monotonic);
    return has;
}

fn hasInstruction() bool {
    switch (builtin.cpu.arch) {
        .x86_64 => {
            // CPUID, leaf 1: ECX bit 20 is SSE4.2.
            const features = asm volatile ("cpuid"
                : [_] "={ecx}" (-> u32),
                : [_] "{eax}" (@as(u32, 1)),
                  [_] "{ecx}" (@as(u32, 0)),
                : .{ .eax = true, .ebx = true, .edx = true });
            return features & 1 << 20 != 0;
        },
        .aarch64 => {
            const hwcap_crc32 = 1 << 7;
            return std.os.linux.getauxval(std.elf.AT.HWCAP) & hwcap_crc32 != 0;
        },
        else => return false,
    }
}

/// The register is 64 bits wide here, its upper half zero, as the instruction leaves it.
inline fn step8(crc: u64, value: u64) u64 {
    return switch (builtin.cpu.arch) {
        .x86_64 => asm ("crc32q %[value], %[sum]"
            : [sum] "=r" (-> u64),
            : [value] "r" (value),
              [before] "0" (crc),
        ),
        .aarch64 => asm (".arch_extension crc\n\tcrc32cx %[sum:w], %[before:w], %[value]"
            : [sum] "=r" (-> u64),
            : [before] "r" (crc),
              [value] "r" (value),
        ),
        else => unreachable,
    };
}

inline fn step1(crc: u64, value: u8) u64 {
    return switch (builtin.cpu.arch) {
        .x86_64 => asm ("crc32b %[value], %[sum]"
            : [sum] "=r" (-> u64),
            : [value] "r" (value),
              [before] "0" (crc),
        ),
        .aarch64 => asm (".arch_extension crc\n\tcrc32cb %[sum:w], %[before:w], %[value:w]"
            : [sum] "=r" (-> u64),
            : [before] "r" (crc),
              [value] "r" (@as(u32, value)),
        ),
        else => unreachable,
    };
}

// --- by the instruction --------------------------------------------------------------------------------------------------

fn byInstruction(before: u32, bytes: []const u8) u32 {
    var crc: u64 = ~before;
    var rest = bytes;
    if (rest.len >= 3 * short_run) {
        @branchHint(.unlikely);
        while (rest.len >= 3 * long_run) : (rest = rest[3 * long_run ..]) crc = threeRuns(long_run, crc, rest);
        while (rest.len >= 3 * short_run) : (rest = rest[3 * short_run ..]) crc = threeRuns(short_run, crc, rest);
    }
    while (rest.len >= 8) : (rest = rest[8..]) crc = step8(crc, word(rest));
    for (rest) |byte| crc = step1(crc, byte);
    return ~@as(u32, @truncate(crc));
}

inline fn word(bytes: []const u8) u64 {
    return std.mem.readInt(u64, bytes[0..8], .little);
}

/// Three neighbouring runs of `run` bytes.
fn threeRuns(comptime run: usize, before: u64, bytes: []const u8) u64 {
    var first = before;
    var second: u64 = 0;
    var third: u64 = 0;
    var i: usize = 0;
    while (i < run) : (i += 8) {
        first = step8(first, word(bytes[i..]));
        second = step8(second, word(bytes[run + i ..]));
        third = step8(third, word(bytes[2 * run + i ..]));
    }
    return past(run, past(run, first) ^ second) ^ third;
}

/// The register after `run` zero bytes.
inline fn past(comptime run: usize, crc: u64) u64 {
    const tables = comptime pastTables(run);
    return tables[0][crc & 0xff] ^ tables[1][crc >> 8 & 0xff] ^ tables[2][crc >> 16 & 0xff] ^ tables[3][crc >> 24 & 0xff];
}

/// A linear map of the register is a matrix over GF(2): 32 columns, the images of its single bits.
const Matrix = [32]u32;

fn apply(matrix: *const Matrix, vector: u32) u32 {
    var sum: u32 = 0;
    for (matrix, 0..) |column, i| {
        if (vector >> @intCast(i) & 1 == 1) sum ^= column;
    }
    return sum;
}

/// `bytes` is a power of two.
fn pastTables(comptime bytes: usize) [4][256]u32 {
    @setEvalBranchQuota(200_000);
    var matrix: Matrix = undefined;
    matrix[0] = polynomial; // one zero bit: shift right, the bit that falls out brings the polynomial in
    for (matrix[1..], 0..) |*column, i| column.* = 1 << i;
    var bits: usize = 1;
    while (bits < bytes * 8) : (bits *= 2) {
        var squared: Matrix = undefined;
        for (&squared, matrix) |*column, image| column.* = apply(&matrix, image);
        matrix = squared;
    }
    var tables: [4][256]u32 = undefined;
    for (&tables, 0..) |*table, k| {
        table[0] = 0;
        // Of the lowest bit set and the rest: linear.
        for (table[1..], 1..) |*entry, b| entry.* = matrix[8 * k + @ctz(b)] ^ table[b & (b - 1)];
    }
    return tables;
}

// --- by table ------------------------------------------------------------------------------------------------------------

/// [k][b]: the register after byte b and k zero bytes.
const byte_tables: [8][256]u32 = tables: {
    @setEvalBranchQuota(50_000);
    var tables: [8][256]u32 = undefined;
    for (&tables[0], 0..) |*entry, b| {
        var crc: u32 = b;
        for (0..8) |_| crc = crc >> 1 ^ (if (crc & 1 == 1) polynomial else 0);
        entry.* = crc;
    }
    for (1..8) |k| {
        for (&tables[k], tables[k - 1]) |*entry, crc| entry.* = tables[0][crc & 0xff] ^ crc >> 8;
    }
    break :tables tables;
};

fn byTable(before: u32, bytes: []const u8) u32 {
    var crc = ~before;
    var rest = bytes;
    while (rest.len >= 8) : (rest = rest[8..]) {
        const v = word(rest) ^ crc;
        var next: u32 = 0;
        inline for (0..8) |k| next ^= byte_tables[7 - k][v >> (8 * k) & 0xff];
        crc = next;
    }
    for (rest) |byte| crc = byte_tables[0][(crc ^ byte) & 0xff] ^ crc >> 8;
    return ~crc;
}

// --- tests ---------------------------------------------------------------------------------------------------------------

const testing = std.testing;

test "the vectors of RFC 3720" {
    var ascending: [32]u8 = undefined;
    for (&ascending, 0..) |*byte, i| byte.* = @intCast(i);
    for ([_]struct { []const u8, u32 }{
        .{ "", 0 },
        .{ "123456789", 0xe3069283 },
        .{ &@as([32]u8, @splat(0)), 0x8a9136aa },
        .{ &@as([32]u8, @splat(0xff)), 0x62a8ab43 },
        .{ &ascending, 0x46dd794e },
    }) |vector| {
        try testing.expectEqual(vector[1], update(0, vector[0]));
        try testing.expectEqual(vector[1], byTable(0, vector[0]));
    }
}

test "the instruction, the table and the standard library agree on every length, however cut" {
    var bytes: [3 * long_run + 3 * short_run + 77]u8 = undefined;
    var random: std.Random.DefaultPrng = .init(7);
    random.random().bytes(&bytes);
    var length: usize = 0;
    while (length <= bytes.len) : (length += if (length < 100) 1 else 331) {
        const all = bytes[0..length];
        const expected = std.hash.crc.@"CRC-32/ISCSI".hash(all);
        try testing.expectEqual(expected, update(0, all));
        try testing.expectEqual(expected, byTable(0, all));
        const cut = length / 3;
        try testing.expectEqual(expected, update(update(0, all[0..cut]), all[cut..]));
    }
}

test "whole words give the CRC of their bytes" {
    const words = [4]u64{ 1, 0xffff_0000_ffff, 1 << 63, 42 };
    try testing.expectEqual(byTable(0, std.mem.sliceAsBytes(&words)), ofWords(4, &words));
}
