//! A tile as a picture: colours by height, light from the north-west, written as PNG (W3C, third edition) while it is made.
//!
//! A PNG is a row of chunks: length, type, data, CRC-32 of both; its pixels are one zlib stream, cut over as many IDAT chunks
//! as one likes. So whoever gets the parts of a stream one behind the other has a PNG.
const std = @import("std");
const flate = std.compress.flate;
const Terrain = @import("terrain.zig");

const Colour = @Vector(3, f64);

/// From the depths to the snow; between two, in proportion. Water ends at height 0.
const palette = [_]struct { height: f64, colour: Colour }{
    .{ .height = -1.0, .colour = .{ 6, 18, 54 } },
    .{ .height = -0.35, .colour = .{ 18, 56, 116 } },
    .{ .height = -0.04, .colour = .{ 70, 146, 190 } },
    .{ .height = 0.0, .colour = .{ 116, 186, 204 } },
    .{ .height = 0.0, .colour = .{ 222, 206, 156 } },
    .{ .height = 0.05, .colour = .{ 150, 172, 96 } },
    .{ .height = 0.22, .colour = .{ 74, 122, 62 } },
    .{ .height = 0.40, .colour = .{ 104, 96, 78 } },
    .{ .height = 0.58, .colour = .{ 158, 150, 142 } },
    .{ .height = 0.72, .colour = .{ 248, 248, 250 } },
    .{ .height = 1.0, .colour = .{ 255, 255, 255 } },
};

fn colourOf(height: f64) Colour {
    const h = std.math.clamp(height, -1, 1);
    for (palette[0 .. palette.len - 1], palette[1..]) |low, high| {
        if (h > high.height or low.height == high.height) continue;
        const share: Colour = @splat((h - low.height) / (high.height - low.height));
        return low.colour + share * (high.colour - low.colour);
    }
    unreachable; // the palette ends at 1
}

/// `slope`: how much the ground rises towards the south-east, by one unit of noise.
fn pixelOf(height: f64, slope: f64) [3]u8 {
    const strength: f64 = if (height < 0) 0.05 else 0.22;
    const light: Colour = @splat(std.math.clamp(1 + strength * slope, 0.45, 1.4));
    var pixel: [3]u8 = undefined;
    const lit: [3]f64 = colourOf(height) * light;
    for (&pixel, lit) |*to, value| to.* = @intFromFloat(@round(std.math.clamp(value, 0, 255)));
    return pixel;
}

// --- PNG -----------------------------------------------------------------------------------------------------------------

const chunk_bytes_max = 64 << 10;
const chunk_around = 12; // length, type, CRC

/// What `sink` may give ends the writing; see Png.failed.
pub const Sink = struct {
    context: *anyopaque,
    write: *const fn (*anyopaque, []const u8) anyerror!void,
};

/// No smaller than any picture of so many pixels, in bytes.
pub fn bytesMax(width: u64, height: u64) u64 {
    const raw = (3 * width + 1) * height;
    // Stored blocks at worst (5 bytes in 64 KiB), the chunks around them, and what is there once.
    return raw + raw / 1024 * 16 + 1024;
}

/// Writes the picture to the sink in chunks. `check` is asked between rows.
pub fn draw(t: *const Terrain, sink: Sink, between: Sink) anyerror!void {
    const q = &t.request;
    var header: [13]u8 = undefined;
    std.mem.writeInt(u32, header[0..4], q.width, .big);
    std.mem.writeInt(u32, header[4..8], q.height, .big);
    header[8..].* = .{ 8, 2, 0, 0, 0 }; // depth 8, RGB, deflate, its filters, no interlace
    try sink.write(sink.context, "\x89PNG\r\n\x1a\n");
    try writeChunk(sink, "IHDR", &header);

    var chunks: Chunks = .init(sink);
    var compress: flate.Compress = try .init(&chunks.writer, &window, .zlib, .fastest);
    drawRows(t, &compress.writer, between) catch |why| return if (why == error.WriteFailed) chunks.failed.? else why;
    compress.finish() catch return chunks.failed.?;
    chunks.writer.flush() catch return chunks.failed.?;
    try writeChunk(sink, "IEND", "");
}

// One job at a time: they need not lie on its stack.
var window: [flate.max_window_len]u8 = undefined;
var heights: [2][Terrain.side_max + 1]f64 = undefined;
var line: [3 * Terrain.side_max]u8 = undefined;

fn drawRows(t: *const Terrain, w: *std.Io.Writer, between: Sink) anyerror!void {
    const q = &t.request;
    t.row(0, heights[0][0 .. q.width + 1]);
    for (0..q.height) |j| {
        const here = heights[j % 2][0 .. q.width + 1];
        const below = heights[(j + 1) % 2][0 .. q.width + 1];
        t.row(j + 1, below);
        const pixels = line[0 .. 3 * q.width];
        for (0..q.width) |i| {
            const slope = (here[i + 1] + below[i] - 2 * here[i]) / q.step;
            pixels[3 * i ..][0..3].* = pixelOf(here[i], slope);
        }
        // Filter 1, Sub: each byte less the one of the pixel before, from behind.
        var i = pixels.len;
        while (i > 3) {
            i -= 1;
            pixels[i] -%= pixels[i - 3];
        }
        try w.writeByte(1);
        try w.writeAll(pixels);
        try between.write(between.context, "");
    }
}

fn writeChunk(sink: Sink, comptime kind: *const [4]u8, data: []const u8) anyerror!void {
    var chunk: [chunk_bytes_max + chunk_around]u8 = undefined;
    std.mem.writeInt(u32, chunk[0..4], @intCast(data.len), .big);
    chunk[4..8].* = kind.*;
    @memcpy(chunk[8..][0..data.len], data);
    const crc = std.hash.Crc32.hash(chunk[4 .. 8 + data.len]);
    std.mem.writeInt(u32, chunk[8 + data.len ..][0..4], crc, .big);
    try sink.write(sink.context, chunk[0 .. data.len + chunk_around]);
}

/// A writer whose bytes leave as IDAT chunks.
const Chunks = struct {
    writer: std.Io.Writer,
    sink: Sink,
    failed: ?anyerror = null,

    var buffer: [chunk_bytes_max]u8 = undefined;

    fn init(sink: Sink) Chunks {
        return .{ .writer = .{ .buffer = &buffer, .vtable = &.{ .drain = drain } }, .sink = sink };
    }

    fn drain(w: *std.Io.Writer, data: []const []const u8, splat: usize) std.Io.Writer.Error!usize {
        const c: *Chunks = @alignCast(@fieldParentPtr("writer", w));
        _ = data; // taken at the next call, when there is room in the buffer
        _ = splat;
        const full = w.buffered();
        w.end = 0;
        if (full.len == 0) return 0;
        writeChunk(c.sink, "IDAT", full) catch |why| {
            c.failed = why;
            return error.WriteFailed;
        };
        return 0;
    }
};

// --- tests ---------------------------------------------------------------------------------------------------------------

const testing = std.testing;

test "the palette has a colour for every height, and a shore at 0" {
    var h: f64 = -1.1;
    while (h <= 1.1) : (h += 0.001) _ = colourOf(h);
    try testing.expect(colourOf(-1e-9)[2] > colourOf(-1e-9)[0]); // water is blue
    try testing.expect(colourOf(1e-9)[0] > colourOf(1e-9)[2]); // sand is not
}
