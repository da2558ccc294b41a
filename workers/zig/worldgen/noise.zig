//! OpenSimplex noise in two dimensions (Kurt Spencer, 2014), value for value that of PyPI's opensimplex.
//!
//! The plane is skewed so that the triangular lattice becomes the integers' square one. Each lattice point has a gradient, one
//! of eight, by a permutation of its coordinates, and adds (2 - d^2)^4 * (gradient . d) to every point that lies at d with d^2
//! < 2. The edge of a triangle is as long as that reach, so of the lattice points around a cell only eight can reach into it:
//! its corners, and those four that share an edge with two of them. Spencer's program finds out which of them do by the region
//! of the cell; here all eight are asked, which has the same sum, its terms in another order.
const std = @import("std");

const Noise = @This();

const stretch = -0.211324865405187; // (1 / sqrt(3) - 1) / 2, with the digits that the original has
const squish = 0.366025403784439; // (sqrt(3) - 1) / 2
const norm = 47.0;

/// Towards the corners of an octagon.
const gradients = [8][2]f64{ .{ 5, 2 }, .{ 2, 5 }, .{ -5, 2 }, .{ -2, 5 }, .{ 5, -2 }, .{ 2, -5 }, .{ -5, -2 }, .{ -2, -5 } };

/// The lattice points that reach into a cell, from its origin.
const reaching = [8][2]i64{ .{ 0, 0 }, .{ 1, 0 }, .{ 0, 1 }, .{ 1, 1 }, .{ -1, 1 }, .{ 1, -1 }, .{ 0, 2 }, .{ 2, 0 } };

const Lanes = @Vector(reaching.len, f64);
/// How far each of them lies from the cell's origin, in the plane.
const away: [2]Lanes = away: {
    var lanes: [2][reaching.len]f64 = undefined;
    for (reaching, 0..) |point, k| {
        const i: f64 = @floatFromInt(point[0]);
        const j: f64 = @floatFromInt(point[1]);
        lanes[0][k] = i + (i + j) * squish;
        lanes[1][k] = j + (i + j) * squish;
    }
    break :away .{ lanes[0], lanes[1] };
};

permutation: [256]u8,

/// By a linear congruential generator (Knuth's MMIX), as the original.
pub fn init(seed: i64) Noise {
    var state = seed;
    for (0..3) |_| state = next(state);
    var source: [256]u8 = undefined;
    for (&source, 0..) |*value, i| value.* = @intCast(i);
    var noise: Noise = undefined;
    var i: usize = 256;
    while (i > 0) {
        i -= 1;
        state = next(state);
        const r: usize = @intCast(@mod(@as(i128, state) + 31, @as(i128, i + 1)));
        noise.permutation[i] = source[r];
        source[r] = source[i];
    }
    return noise;
}

fn next(state: i64) i64 {
    return state *% 6364136223846793005 +% 1442695040888963407;
}

/// Within -1 and 1. The coordinates are at most `reach` from 0: a double has no digits left for what lies within a cell further
/// out.
pub fn at(noise: *const Noise, x: f64, y: f64) f64 {
    const offset = (x + y) * stretch;
    const i = floor(x + offset);
    const j = floor(y + offset);
    const origin = @as(f64, @floatFromInt(i + j)) * squish;
    const dx = @as(Lanes, @splat(x - (@as(f64, @floatFromInt(i)) + origin))) - away[0];
    const dy = @as(Lanes, @splat(y - (@as(f64, @floatFromInt(j)) + origin))) - away[1];
    const left = @as(Lanes, @splat(2)) - dx * dx - dy * dy;
    const squared = left * left;
    const attenuation = squared * squared;
    var sum: f64 = 0;
    inline for (reaching, 0..) |point, k| {
        if (left[k] > 0) {
            const gradient = noise.gradientOf(i + point[0], j + point[1]);
            sum += attenuation[k] * (gradient[0] * dx[k] + gradient[1] * dy[k]);
        }
    }
    return sum / norm;
}

pub const reach = 1 << 31;

/// Not @floor: the least x86-64 has no instruction for it, and a conversion is wanted anyway.
inline fn floor(value: f64) i64 {
    const towards_zero: i64 = @intFromFloat(value);
    return if (@as(f64, @floatFromInt(towards_zero)) > value) towards_zero - 1 else towards_zero;
}

inline fn gradientOf(noise: *const Noise, i: i64, j: i64) [2]f64 {
    const row = noise.permutation[@intCast(i & 0xff)];
    return gradients[noise.permutation[@intCast((row + j) & 0xff)] >> 1 & 7];
}

// --- tests ---------------------------------------------------------------------------------------------------------------

const testing = std.testing;

test "the value that the original's page gives for its seed 3" {
    try testing.expectApproxEqAbs(-0.43906247097569345, Noise.init(3).at(0.5, 0.5), 1e-15);
}

test "no lattice point but the eight reaches into a cell" {
    // The nearest that another one comes to any of 101 x 101 points of the cell, its edges included.
    var nearest: f64 = std.math.inf(f64);
    var i: i64 = -3;
    while (i <= 4) : (i += 1) {
        var j: i64 = -3;
        while (j <= 4) : (j += 1) {
            for (reaching) |point| {
                if (point[0] == i and point[1] == j) break;
            } else for (0..101 * 101) |n| {
                const u = @as(f64, @floatFromInt(n / 101)) / 100 - @as(f64, @floatFromInt(i));
                const v = @as(f64, @floatFromInt(n % 101)) / 100 - @as(f64, @floatFromInt(j));
                const shift = (u + v) * squish;
                nearest = @min(nearest, (u + shift) * (u + shift) + (v + shift) * (v + shift));
            }
        }
    }
    try testing.expect(nearest > 2 - 1e-12);
}

test "a seed's permutation has each value once, whatever the seed" {
    for ([_]i64{ 0, 1, -1, std.math.maxInt(i64), std.math.minInt(i64) }) |seed| {
        var seen: [256]bool = @splat(false);
        for (Noise.init(seed).permutation) |value| {
            try testing.expect(!seen[value]);
            seen[value] = true;
        }
    }
}
