//! A tile of terrain: octaves of noise over a grid of samples, and the request that asks for one (docs/worldgen.md).
const std = @import("std");
const Noise = @import("noise.zig");

const Terrain = @This();

pub const side_max = 8192;

/// Little endian, as it lies in a payload: 64 bytes, so it travels in the envelope.
pub const Request = extern struct {
    version: u16,
    octaves: u16,
    width: u32,
    height: u32,
    /// Of each part; 0: as many as 64 KiB hold.
    rows: u32,
    seed: i64,
    x: f64,
    y: f64,
    step: f64,
    lacunarity: f64,
    gain: f64,
};

comptime {
    std.debug.assert(@sizeOf(Request) == 64);
    for (.{ "seed", "x", "y", "step", "lacunarity", "gain" }, 2..) |name, i| {
        std.debug.assert(@offsetOf(Request, name) == 8 * i);
    }
    std.debug.assert(@import("builtin").cpu.arch.endian() == .little); // as every host of a link
}

request: Request,
noise: Noise,

/// Why a request is refused, in words for its caller.
pub const Refusal = []const u8;

pub fn init(payload: []const u8) union(enum) { terrain: Terrain, refused: Refusal } {
    if (payload.len != @sizeOf(Request)) return .{ .refused = "a request has 64 bytes" };
    const q = std.mem.bytesToValue(Request, payload[0..@sizeOf(Request)]);
    return if (brokenRule(&q)) |rule| .{ .refused = rule } else .{ .terrain = .{ .request = q, .noise = .init(q.seed) } };
}

fn brokenRule(q: *const Request) ?Refusal {
    if (q.version != 1) return "version must be 1";
    if (q.octaves < 1 or q.octaves > 16) return "octaves must be 1 to 16";
    if (q.width < 1 or q.width > side_max or q.height < 1 or q.height > side_max) return "width and height must be 1 to 8192";
    if (!(q.step > 0)) return "step must be more than 0"; // nor NaN
    if (!(q.lacunarity >= 1 and q.lacunarity <= 8)) return "lacunarity must be 1 to 8";
    if (!(q.gain > 0 and q.gain <= 1)) return "gain must be more than 0 and at most 1";
    // The furthest sample, one beyond the tile (picture.zig looks there), in the finest octave.
    const finest = std.math.pow(f64, q.lacunarity, @floatFromInt(q.octaves - 1));
    for ([_]f64{ q.x, q.y }) |begin| {
        if (!((@abs(begin) + (side_max + 1) * q.step) * finest <= Noise.reach)) return "x, y or step reach too far out";
    }
    return null;
}

/// The heights of row `j`, one for each of `out`, which may be longer than the tile is wide.
pub fn row(t: *const Terrain, j: usize, out: []f64) void {
    const q = &t.request;
    const y = q.y + @as(f64, @floatFromInt(j)) * q.step;
    for (out, 0..) |*height, i| height.* = t.heightAt(q.x + @as(f64, @floatFromInt(i)) * q.step, y);
}

/// The octaves' mean, each weighted by its amplitude: within -1 and 1.
fn heightAt(t: *const Terrain, x: f64, y: f64) f64 {
    const q = &t.request;
    var frequency: f64 = 1;
    var amplitude: f64 = 1;
    var sum: f64 = 0;
    var weights: f64 = 0;
    for (0..q.octaves) |_| {
        sum += amplitude * t.noise.at(x * frequency, y * frequency);
        weights += amplitude;
        frequency *= q.lacunarity;
        amplitude *= q.gain;
    }
    return sum / weights;
}

// --- tests ---------------------------------------------------------------------------------------------------------------

const testing = std.testing;
const good: Request = .{
    .version = 1,
    .octaves = 4,
    .width = 3,
    .height = 2,
    .rows = 0,
    .seed = 7,
    .x = -5,
    .y = 5,
    .step = 0.25,
    .lacunarity = 2,
    .gain = 0.5,
};

test "one octave is the noise itself, more are within its bounds" {
    var q = good;
    q.octaves = 1;
    const one = init(std.mem.asBytes(&q)).terrain;
    var heights: [3]f64 = undefined;
    one.row(1, &heights);
    try testing.expectEqual(one.noise.at(-4.5, 5.25), heights[2]);
    const four = init(std.mem.asBytes(&good)).terrain;
    for (0..100) |j| {
        four.row(j, &heights);
        for (heights) |height| try testing.expect(@abs(height) <= 1);
    }
}

test "each rule of a request refuses" {
    inline for (.{
        .{ "version", .{ 0, 2 } },
        .{ "octaves", .{ 0, 17 } },
        .{ "width", .{ 0, 8193 } },
        .{ "height", .{ 0, 8193 } },
        .{ "x", .{ std.math.nan(f64), -std.math.inf(f64), 1e9 } },
        .{ "y", .{ std.math.nan(f64), 1e9 } },
        .{ "step", .{ 0, -1, std.math.nan(f64), 1e6 } },
        .{ "lacunarity", .{ 0.5, 9, std.math.nan(f64) } },
        .{ "gain", .{ 0, 1.5, std.math.nan(f64) } },
    }) |rule| {
        inline for (rule[1]) |value| {
            var bad = good;
            @field(bad, rule[0]) = value;
            try testing.expect(init(std.mem.asBytes(&bad)) == .refused);
        }
    }
    try testing.expect(init(std.mem.asBytes(&good)[0..63]) == .refused);
    try testing.expect(init(std.mem.asBytes(&good)) == .terrain);
}
