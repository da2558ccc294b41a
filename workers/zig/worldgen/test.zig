//! The worldgen's unit tests, all of its files'.
test {
    _ = @import("noise.zig");
    _ = @import("terrain.zig");
    _ = @import("picture.zig");
}
