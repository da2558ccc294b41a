//! The worker kit in Zig: what a worker needs to serve jobs of a bridge (docs/workers-zig.md is the tour).
//!
//! A worker is one process that the bridge starts with a link among its descriptors. Its main() hands a handler to run(), which
//! says hello, calls the handler for each job in order, one at a time on the calling thread, and beats the heart from a thread
//! of its own. Each job gets exactly one answer: complete(), answer(), done(), fail() or cancelled(); a handler that returns an
//! error, or nothing without having answered, has failed the job. Before it a job may send parts and tell its progress, where
//! its caller wants them.
//!
//! A crash is not the kit's business: no signal handlers. The bridge sees the death, answers the job, starts the next worker.
//! Calling the kit wrongly (two answers, more bytes than reserved) is a bug of the worker: a line on stderr and abort().
const std = @import("std");
const gate = @import("gate.zig");
const os = @import("os.zig");
const Link = @import("link.zig");
const Worker = @import("worker.zig").Worker;

/// What crosses a link, byte by byte.
pub const layout = @import("layout.zig");
pub const Job = @import("job.zig");
pub const Kind = Job.Kind;
pub const Trace = Job.Trace;
/// CLOCK_MONOTONIC, in ns: the clock of deadlines.
pub const now = os.now;

/// major << 16 | minor
pub const kit_version: u32 = 1 << 16 | 0;

/// For a worker's root file: `pub const std_options = rb.std_options;`. A crash stays what it is, with its own signal and core,
/// since Zig's handler of SIGSEGV would make an abort of it. Traces of the stack are for debug builds: what prints them is
/// larger than the kit and takes longer to compile.
pub const std_options: std.Options = .{
    .enable_segfault_handler = false,
    .signal_stack_size = null,
    .allow_stack_tracing = @import("builtin").mode == .debug,
};

pub const Options = struct {
    /// Every job takes microseconds. Then answers are published in batches, up to 50 us late, which saves a store and perhaps a
    /// wake-up each. Otherwise each answer leaves at once, so none waits behind the next job, however long that takes.
    short_jobs: bool = false,
    /// What the worker declares that it serves; none: every opcode. At most 64, names of at most 27 bytes.
    ops: []const Op = &.{},
};

/// An operation, as the hello declares it.
pub const Op = struct {
    opcode: u16,
    name: []const u8,
    takes: Takes = .{},
};
/// What an operation takes; none of them: anything.
pub const Takes = packed struct(u16) { raw: bool = false, term: bool = false, parts: bool = false, _: u13 = 0 };

comptime {
    for (.{ Takes{ .raw = true }, Takes{ .term = true }, Takes{ .parts = true } }, .{
        layout.takes_raw, layout.takes_term, layout.takes_parts,
    }) |bit, value| std.debug.assert(@as(u16, @bitCast(bit)) == value);
}

/// Serves until the bridge says drain or stop. `handle` is `fn (state, *Job) !void`. Returns main()'s exit status: 0 done; 64
/// not started by a bridge; 71 the link cannot be mapped, or no thread; 78 built for another layout, or a header that breaks a
/// rule (the reason is on stderr; both digests when they differ). A bridge that breaks a rule later ends the process with 76.
pub fn run(
    init: std.process.Init.Minimal,
    state: anytype,
    comptime handle: fn (@TypeOf(state), *Job) anyerror!void,
    comptime options: Options,
) u8 {
    const ops = comptime declared(options.ops);
    var arguments = init.args.iterate();
    const name = arguments.next() orelse "worker";
    const first = firstDescriptor(init.environ) orelse {
        const format = "{s}: a worker of a ringbridge: it is started by one, with {s} naming its link";
        os.complain(format, .{ name, layout.env_link_fd });
        return os.exit_usage;
    };
    const allocator = std.heap.page_allocator;
    var why: Link.Why = .{};
    var worker: Worker = .{
        .link = Link.attach(.from(first), allocator, &why) catch |failed| {
            os.complain("{s}: refused: {s}", .{ name, why.text });
            return if (failed == error.Refused) os.exit_config else os.exit_oserr;
        },
        .short_jobs = options.short_jobs,
    };
    defer worker.link.detach(allocator);
    gate.blockWakeSignal(); // before the first thread, so that every one has it blocked
    worker.heartbeat.start(&worker) catch |failed| {
        os.complain("{s}: no thread for the heartbeat: {s}", .{ name, @errorName(failed) });
        return os.exit_oserr;
    };
    defer worker.heartbeat.stop(&worker);
    const role = init.environ.getPosix(layout.env_role) orelse "";
    worker.link.greet(.{ .kit = "zig", .kit_version = kit_version, .role = role, .ops = &ops });
    worker.serve(state, handle);
    return 0;
}

/// The first of the link's descriptors.
fn firstDescriptor(environ: std.process.Environ) ?os.Fd {
    const text = environ.getPosix(layout.env_link_fd) orelse return null;
    const fd = std.fmt.parseInt(u20, text, 10) catch return null;
    return if (os.isOpen(fd)) fd else null;
}

fn declared(comptime ops: []const Op) [ops.len]layout.WorkerOp {
    if (ops.len > layout.ops_max) @compileError("a worker declares at most 64 operations");
    var records: [ops.len]layout.WorkerOp = undefined;
    for (&records, ops, 0..) |*record, op, i| {
        if (op.name.len == 0 or op.name.len > 27) @compileError("the name of an operation has 1 to 27 bytes: " ++ op.name);
        for (ops[0..i]) |earlier| {
            if (earlier.opcode == op.opcode) @compileError(op.name ++ " has the opcode of " ++ earlier.name);
        }
        record.* = .{ .opcode = op.opcode, .takes = @bitCast(op.takes), .name = Link.padded(28, op.name) };
    }
    return records;
}

test {
    _ = @import("ring.zig");
    _ = @import("gate.zig");
    _ = @import("region.zig");
    _ = @import("telemetry.zig");
    _ = @import("crc32c.zig");
    _ = @import("envelope.zig");
    _ = @import("parts.zig");
    _ = @import("link.zig");
    _ = @import("part.zig");
    _ = @import("worker.zig");
}
