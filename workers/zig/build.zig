//! The worker kit in Zig as a package: the module "ringbridge_worker", and the workers built on it.
//!
//!      zig build --release        zig-out/bin/rb-echo-zig, ...
//!      zig build test             the kit's unit tests
//!
//! The project's own build is the Makefile's: it calls the compiler directly, since what runs a build.zig is a program that Zig
//! compiles first (some 100 s, once).
const std = @import("std");

/// Each is FOLDER/main.zig.
const workers = [_]struct { folder: []const u8, program: []const u8 }{
    .{ .folder = "echo", .program = "rb-echo-zig" },
    .{ .folder = "conformance", .program = "rb-conformance-zig" },
    .{ .folder = "worldgen", .program = "rb-worldgen" },
};

pub fn build(b: *std.Build) void {
    // The least CPU of the architecture, so that a worker runs where it was not built; what the kit uses beyond it, it asks
    // for.
    const target = b.standardTargetOptions(.{ .default_target = .{ .cpu_model = .baseline } });
    // With its checks: they cost some 7 % of the kit's time a job, and a worker reads what strangers send.
    const optimize = b.standardOptimizeOption(.{ .preferred_optimize_mode = .safe });

    const kit = b.addModule("ringbridge_worker", .{
        .root_source_file = b.path("src/root.zig"),
        .target = target,
        .optimize = optimize,
    });
    for (workers) |worker| {
        b.installArtifact(b.addExecutable(.{
            .name = worker.program,
            .root_module = b.createModule(.{
                .root_source_file = b.path(b.fmt("{s}/main.zig", .{worker.folder})),
                .target = target,
                .optimize = optimize,
                .imports = &.{.{ .name = "ringbridge_worker", .module = kit }},
            }),
        }));
    }

    const test_step = b.step("test", "run the kit's unit tests");
    test_step.dependOn(&b.addRunArtifact(b.addTest(.{ .root_module = kit })).step);
}
