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
const channel = @import("channel.zig");
const Chaos = @import("chaos.zig");
const Heartbeat = @import("heartbeat.zig");
const Link = @import("link.zig");
const peer_serve = @import("peer_serve.zig");
const State = @import("state.zig");
const Worker = @import("worker.zig").Worker;

/// What crosses a link, byte by byte.
pub const layout = @import("layout.zig");
pub const Job = @import("job.zig");
pub const Kind = Job.Kind;
pub const Trace = Job.Trace;
/// Where a message or a call goes.
pub const Dest = channel.Dest;
pub const Reply = channel.Reply;
pub const Level = channel.Level;
/// Of a checkpoint: the whole state, or what is new.
pub const StateKind = State.Kind;
/// What a `save` writes to.
pub const Saving = State.Saving;
/// A link to a worker of another role: Job.openPeer() gives one.
pub const Peer = @import("peer.zig");
/// CLOCK_MONOTONIC, in ns: the clock of deadlines.
pub const now = os.now;

/// major << 16 | minor
pub const kit_version: u32 = 1 << 16 | 1;

/// For a worker's root file: `pub const std_options = rb.std_options;`. A crash stays what it is, with its own signal and core,
/// since Zig's handler of SIGSEGV would make an abort of it. Traces of the stack are for debug builds: what prints them is
/// larger than the kit and takes longer to compile. What std.log says goes to the bridge's log, or where there is none to
/// stderr.
pub const std_options: std.Options = .{
    .enable_segfault_handler = false,
    .signal_stack_size = null,
    .allow_stack_tracing = @import("builtin").mode == .debug,
    .logFn = logStandard,
};

pub fn Options(comptime Context: type) type {
    return struct {
        /// Every job takes microseconds. Then answers are published in batches, up to 50 us late, which saves a store and
        /// perhaps a wake-up each. Otherwise each answer leaves at once, so none waits behind the next job, however long that
        /// takes.
        short_jobs: bool = false,
        /// What the worker declares that it serves; none: every opcode. At most 64, each opcode and each name once.
        ops: []const Op = &.{},
        /// State that outlives the process, for roles with [roles.NAME.checkpoint] (docs/channel.md). Both are called by the
        /// handler's thread between two jobs. `save` writes it and returns what it has written: the whole, or, where an
        /// increment was asked for, what is new since the last time; an error: it has none. `restore` takes one part, the whole
        /// first and increments behind it; an error: it cannot, and a worker that begins ends (65). Before the hello it is
        /// given the latest, if there is one.
        save: ?fn (Context, *Saving, StateKind) anyerror!StateKind = null,
        restore: ?fn (Context, StateKind, []const u8) anyerror!void = null,
        /// Other workers may ask this one too, over links that the bridge grants (docs/links.md). Their requests go through the
        /// same handler, between its jobs; they want no parts and no progress, and Job.id() is the asking job's.
        serves_peers: bool = false,

        const Self = @This();

        /// The hooks with the context's type forgotten.
        fn hooks(comptime options: Self, context: *const Context) ?State.Hooks {
            if (options.save == null and options.restore == null) return null;
            const Erased = struct {
                fn of(erased: *const anyopaque) Context {
                    return @as(*const Context, @ptrCast(@alignCast(erased))).*;
                }
                fn save(erased: *const anyopaque, saving: *Saving, wanted: StateKind) anyerror!StateKind {
                    return options.save.?(of(erased), saving, wanted);
                }
                fn restore(erased: *const anyopaque, kind: StateKind, bytes: []const u8) anyerror!void {
                    return options.restore.?(of(erased), kind, bytes);
                }
            };
            return .{
                .context = @ptrCast(context),
                .save = if (options.save != null) Erased.save else null,
                .restore = if (options.restore != null) Erased.restore else null,
            };
        }
    };
}

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

/// Serves until the bridge says drain or stop. `handle` is `fn (context, *Job) !void`. Returns main()'s exit status: 0 done; 64
/// not started by a bridge; 65 `restore` would not take its state; 71 the link cannot be mapped, or no thread; 78 built for
/// another layout, or a header that breaks a rule (the reason is on stderr; both digests when they differ). A bridge that
/// breaks a rule later ends the process with 76.
pub fn run(
    init: std.process.Init.Minimal,
    context: anytype,
    comptime handle: fn (@TypeOf(context), *Job) anyerror!void,
    comptime options: Options(@TypeOf(context)),
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
    if (worker.link.fds.channel) |fd| {
        if (os.isSocket(fd)) worker.channel.fd = fd;
    }
    if (options.hooks(&context)) |hooks| State.begin(&worker, hooks) catch |failed| {
        os.complain("{s}: it has no state to begin with: {s}", .{ name, @errorName(failed) });
        return os.exit_dataerr;
    };
    if (options.serves_peers) peer_serve.offerService(&worker);
    defer worker.links.deinit();
    const troubled = Chaos.open(&worker, init.environ);
    const role = init.environ.getPosix(layout.env_role) orelse "";
    worker.link.greet(.{ .kit = "zig", .kit_version = kit_version, .role = role, .ops = &ops });
    if (troubled) {
        const in_front: Chaos.Troubled(@TypeOf(context), handle) = .{ .context = context };
        worker.serve(&in_front, @TypeOf(in_front).handle);
    } else {
        worker.serve(context, handle);
    }
    State.leave(&worker);
    return 0;
}

/// A line in the bridge's log. It names the job that runs. NotConnected also before run() and after it.
pub fn log(level: Level, comptime format: []const u8, arguments: anytype) channel.LogError!void {
    const w = Heartbeat.worker() orelse return error.NotConnected;
    // Relaxed: a label. Of another thread it is the job that runs meanwhile.
    return channel.logFrom(w, @atomicLoad(u64, &w.running, .monotonic), level, format, arguments);
}

fn logStandard(
    comptime level: std.log.Level,
    comptime scope: @EnumLiteral(),
    comptime format: []const u8,
    arguments: anytype,
) void {
    const mine: Level = switch (level) {
        .debug => .debug,
        .info => .info,
        .warn => .warning,
        .err => .@"error",
    };
    const prefix = if (scope == .default) "" else @tagName(scope) ++ ": ";
    log(mine, prefix ++ format, arguments) catch |why| switch (why) {
        error.Dropped => {}, // counted, and told by the next
        error.NotConnected, error.Closed => os.complain(@tagName(mine) ++ ": " ++ prefix ++ format, arguments),
    };
}

/// false: give me nothing new for now (a model is being loaded, a cache is cold); what it has been given it keeps. true: ready
/// again. Told at once. Any thread, also before run(): then the worker greets, and gets its first job once it is ready.
pub const setReady = Heartbeat.setReady;

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
            if (std.mem.eql(u8, earlier.name, op.name)) @compileError("two operations are named " ++ op.name);
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
    _ = @import("serve_test.zig");
    _ = @import("channel.zig");
    _ = @import("packet.zig");
    _ = @import("state.zig");
    _ = @import("socket.zig");
    _ = @import("term.zig");
    _ = @import("chaos.zig");
    _ = @import("peer_wire.zig");
    _ = @import("peer.zig");
    _ = @import("peer_serve.zig");
}
