//! The worker's end of a link: maps and checks what the process inherited, and says hello (csrc/include/ringbridge/link.h).
//!
//!      relay side                                    worker side
//!      (relay writes, we map read-only)              (we write, the relay maps read-only)
//!      header | guard | positions | guard            header, ops | guard | positions, telemetry | guard
//!      request ring | guard | cancel words | guard   completion ring | guard
//!      demand words | guard | give-back ring | guard result region | guard
//!
//! Death: whoever dies, the kernel drops its mappings and descriptors; the last close frees the memory; there is no name.
const std = @import("std");
const linux = std.os.linux;
const gate = @import("gate.zig");
const layout = @import("layout.zig");
const os = @import("os.zig");
const Parts = @import("parts.zig");
const Region = @import("region.zig");
const ring = @import("ring.zig");

const Link = @This();

/// A private copy, checked.
header: layout.RelayHeader,
fds: Fds,
relay_side: os.Memory,
worker_side: os.Memory,
pool: []const u8,
theirs: *const layout.RelayPositions,
ours: *layout.WorkerPositions,
hello: *layout.WorkerHeader,
ops: *[layout.ops_max]layout.WorkerOp,
telemetry: *align(8) layout.Telemetry,
/// One word a request slot: the job id to stop.
cancels: []const u64,
/// One word a request slot: layout.Demand as one u64.
demands: []const u64,
results: []u8,
region: Region,
requests: ring.Consumer(layout.Request),
completions: ring.Producer(layout.Completion),
givebacks: ring.Consumer(layout.Giveback),
waker: gate.Waker,
waiter: gate.Waiter,

/// The inherited descriptors; null: none.
pub const Fds = struct {
    relay_side: os.Fd,
    worker_side: os.Fd,
    pool: ?os.Fd,
    wake_worker: ?os.Fd,
    wake_relay: ?os.Fd,
    channel: ?os.Fd,

    pub fn from(first: os.Fd) Fds {
        const base = first - layout.fd_relay_side;
        return .{
            .relay_side = first,
            .worker_side = base + layout.fd_worker_side,
            .pool = ifOpen(base + layout.fd_pool),
            .wake_worker = ifOpen(base + layout.fd_wake_worker),
            .wake_relay = ifOpen(base + layout.fd_wake_relay),
            .channel = ifOpen(base + layout.fd_channel),
        };
    }

    /// Makes the relay look, whether it waits for this worker or not.
    pub fn knock(fds: Fds) void {
        const one: u64 = 1;
        const fd = fds.wake_relay orelse return;
        while (linux.errno(linux.write(fd, std.mem.asBytes(&one), @sizeOf(u64))) == .INTR) {}
    }

    fn ifOpen(fd: os.Fd) ?os.Fd {
        return if (os.isOpen(fd)) fd else null;
    }

    fn closeOnExec(fds: Fds) void {
        inline for (comptime std.meta.fieldNames(Fds)) |name| {
            if (@as(?os.Fd, @field(fds, name))) |fd| os.closeOnExec(fd);
        }
    }
};

/// Why a link was refused, for stderr.
pub const Why = struct {
    buffer: [512]u8 = undefined,
    text: []const u8 = "",

    fn say(why: *Why, comptime format: []const u8, arguments: anytype) void {
        var w: std.Io.Writer = .fixed(&why.buffer);
        w.print(format, arguments) catch {}; // cut: what fits is still worth reading
        why.text = w.buffered();
    }
};

/// Refused: the header is not ours, or breaks a rule; the relay was told, where that was possible. Unmappable: the system said
/// no.
pub const AttachError = error{ Refused, Unmappable };

pub fn attach(fds: Fds, allocator: std.mem.Allocator, why: *Why) AttachError!Link {
    fds.closeOnExec();
    const header = try copyHeader(fds.relay_side, why);
    const parts = try check(&header, fds, why);
    return map(&header, &parts, fds, allocator) catch |failed| {
        why.say("the link cannot be mapped: {s}", .{@errorName(failed)});
        return error.Unmappable;
    };
}

pub fn detach(link: *Link, allocator: std.mem.Allocator) void {
    os.unmap(link.relay_side);
    os.unmap(link.worker_side);
    if (link.pool.len > 0) os.unmap(@alignCast(@constCast(link.pool)));
    link.region.deinit(allocator);
    link.* = undefined;
}

// --- the checks ----------------------------------------------------------------------------------------------------------

fn copyHeader(fd: os.Fd, why: *Why) AttachError!layout.RelayHeader {
    if ((os.sealedSize(fd) orelse 0) < layout.page_bytes) {
        why.say("descriptor 3 is no memory whose size is sealed", .{});
        return error.Refused;
    }
    const page = os.map(fd, layout.page_bytes, .read_only) catch |failed| {
        why.say("the link cannot be mapped: {s}", .{@errorName(failed)});
        return error.Unmappable;
    };
    defer os.unmap(page);
    return @as(*const layout.RelayHeader, @ptrCast(page.ptr)).*;
}

/// Does this kit understand a relay of that layout? Of one major version the newer side judges: a relay that is newer has done
/// so before it started us; of an older one we must know what it lacks.
pub fn understands(version: u32, digest: *const [32]u8) bool {
    if (version == layout.layout_version) return std.mem.eql(u8, digest, &layout.layout_digest);
    if (version >> 16 != layout.layout_version >> 16) return false;
    if (version > layout.layout_version) return true;
    for (older_layouts) |older| {
        if (older.version == version and std.mem.eql(u8, digest, &older.digest)) return true;
    }
    return false;
}

/// Layouts of our own major version that this kit can do without what they lack.
const older_layouts = [_]struct { version: u32, digest: [32]u8 }{
    .{ .version = 0x0003_0000, .digest = .{
        0xf3, 0x18, 0x50, 0xdd, 0x34, 0x0a, 0x41, 0xa1, 0xf1, 0x2e, 0x09, 0xf7, 0xf9, 0x90, 0x7c, 0x4e,
        0xd2, 0x1a, 0x73, 0x3b, 0x4b, 0x27, 0xad, 0xd5, 0x5a, 0xd2, 0xc9, 0x1c, 0xd0, 0x2f, 0x11, 0xbb,
    } }, // compressed payloads
};

fn check(h: *const layout.RelayHeader, fds: Fds, why: *Why) AttachError!Parts {
    if (h.magic != layout.relay_magic) {
        why.say("descriptor 3 holds no link of a relay", .{});
        return error.Refused;
    }
    if (!understands(h.version, &h.digest)) {
        why.say("the bridge was built for layout version {d}, digest {x}; this worker has version {d}, digest {s}", .{
            h.version, &h.digest, layout.layout_version, layout.layout_digest_hex,
        });
    } else if (Parts.of(.{
        .slots = h.slots,
        .result_block_bytes = h.result_block_bytes,
        .result_bytes = h.result_bytes,
    })) |parts| {
        const rule = brokenRule(h, &parts, fds) orelse return parts;
        why.say("{s}", .{rule});
    } else |_| {
        why.say("a size of the link breaks its rule", .{});
    }
    tellRefusal(fds, h.nonce);
    return error.Refused;
}

const features_taken = layout.feature_crc_envelope | layout.feature_crc_payload;
/// std has a decompressor and no compressor, so zstd is left to workers that have both.
const features_known = features_taken | layout.feature_zstd;

/// The rule that a header of our own layout breaks.
fn brokenRule(h: *const layout.RelayHeader, parts: *const Parts, fds: Fds) ?[]const u8 {
    if (h.nonce == 0) return "the link has no nonce";
    // Of a later minor, those that we know are taken.
    if (h.version == layout.layout_version and h.features & ~features_known != 0)
        return "the link asks for features that this worker does not know";
    if (h.result_blocks != h.result_bytes / h.result_block_bytes) return "the number of result blocks does not fit";
    if (!parts.agree(h)) return "a part of the link is not where its sizes put it";
    if (os.sealedSize(fds.relay_side) != h.relay_side_bytes) return "the relay side has another size than its header says";
    if (os.sealedSize(fds.worker_side) != h.worker_side_bytes) return "the worker side has another size than the header says";
    const pool_bytes = if (fds.pool) |fd| os.sealedSize(fd) else 0;
    if (pool_bytes != h.pool_bytes) return "the pool has another size than the header says, or is not sealed";
    return null;
}

/// What a worker of any layout may write and the relay of any layout can read: the first 48 bytes (layout.toml).
fn tellRefusal(fds: Fds, nonce: u64) void {
    if ((os.sealedSize(fds.worker_side) orelse 0) < layout.page_bytes) return;
    const page = os.map(fds.worker_side, layout.page_bytes, .read_write) catch return;
    defer os.unmap(page);
    const hello: *layout.WorkerHeader = @ptrCast(page.ptr);
    introduce(hello, nonce);
    @atomicStore(u32, &hello.hello, layout.hello_refused, .seq_cst); // H0: pairs with H1 in the relay's rb_link_hello()
    // Not through the gate: in another layout the park words may lie elsewhere.
    fds.knock();
}

fn introduce(hello: *layout.WorkerHeader, nonce: u64) void {
    hello.magic = layout.worker_magic;
    hello.version = layout.layout_version;
    hello.digest = layout.layout_digest;
    hello.nonce = nonce;
    hello.pid = @intCast(linux.getpid());
}

// --- the mappings --------------------------------------------------------------------------------------------------------

fn map(h: *const layout.RelayHeader, parts: *const Parts, fds: Fds, allocator: std.mem.Allocator) !Link {
    var region: Region = try .init(allocator, .{ .bytes = h.result_bytes, .block_bytes = h.result_block_bytes });
    errdefer region.deinit(allocator);
    const relay_side = try os.map(fds.relay_side, h.relay_side_bytes, .read_only);
    errdefer os.unmap(relay_side);
    for (parts.relayGuards()) |begin| try os.guard(relay_side[begin..][0..layout.page_bytes]);
    const worker_side = try os.map(fds.worker_side, h.worker_side_bytes, .read_write);
    errdefer os.unmap(worker_side);
    for (parts.workerGuards()) |begin| try os.guard(worker_side[begin..][0..layout.page_bytes]);
    const pool: []const u8 = if (h.pool_bytes > 0) try os.map(fds.pool.?, h.pool_bytes, .read_only) else &.{};

    os.populate(worker_side[layout.at_positions..][0 .. 2 * layout.page_bytes]);
    os.populate(worker_side[parts.completions_at .. parts.results_at - layout.page_bytes]);
    os.populate(worker_side[parts.results_at..][0..parts.populated_results]);

    var header = h.*;
    header.features &= features_taken;
    const theirs = at(layout.RelayPositions, relay_side, layout.at_positions, 1);
    const ours = at(layout.WorkerPositions, worker_side, layout.at_positions, 1);
    return .{
        .header = header,
        .fds = fds,
        .relay_side = relay_side,
        .worker_side = worker_side,
        .pool = pool,
        .theirs = &theirs[0],
        .ours = &ours[0],
        .hello = &at(layout.WorkerHeader, worker_side, layout.at_header, 1)[0],
        .ops = at(layout.WorkerOp, worker_side, layout.at_header + layout.at_ops, layout.ops_max)[0..layout.ops_max],
        .telemetry = @alignCast(&at(layout.Telemetry, worker_side, layout.at_telemetry, 1)[0]),
        .cancels = at(u64, relay_side, parts.cancels_at, h.slots),
        .demands = at(u64, relay_side, parts.demands_at, h.slots),
        .results = worker_side[parts.results_at..][0..h.result_bytes],
        .region = region,
        .requests = .{
            .shared_head = &ours[0].request_head,
            .shared_tail = &theirs[0].request_tail,
            .slots = at(layout.Request, relay_side, parts.requests_at, h.slots),
        },
        .completions = .{
            .shared_tail = &ours[0].completion_tail,
            .shared_head = &theirs[0].completion_head,
            .slots = at(layout.Completion, worker_side, parts.completions_at, h.slots),
        },
        .givebacks = .{
            .shared_head = &ours[0].giveback_head,
            .shared_tail = &theirs[0].giveback_tail,
            .slots = at(layout.Giveback, relay_side, parts.givebacks_at, h.result_blocks),
        },
        .waker = .{ .park = &theirs[0].park, .doorbell = &ours[0].doorbell, .eventfd = fds.wake_relay },
        .waiter = .{ .park = &ours[0].park, .doorbell = &theirs[0].doorbell, .bell = fds.wake_worker },
    };
}

/// The records that begin at an offset; the layout has aligned them.
fn at(comptime Record: type, side: os.Memory, offset: u64, count: u64) []Record {
    const bytes = side[offset..][0 .. count * @sizeOf(Record)];
    return @as([*]Record, @ptrCast(@alignCast(bytes.ptr)))[0..count];
}

// --- the hello -----------------------------------------------------------------------------------------------------------

pub const Introduction = struct { kit: []const u8, kit_version: u32, role: []const u8, ops: []const layout.WorkerOp };

/// Publishes the hello and wakes the relay. Texts are cut to their fields.
pub fn greet(link: *Link, who: Introduction) void {
    std.debug.assert(who.ops.len <= layout.ops_max);
    const hello = link.hello;
    introduce(hello, link.header.nonce);
    hello.features = link.header.features; // all are known: map() has seen to it
    hello.kit_version = who.kit_version;
    hello.kit = padded(32, who.kit);
    hello.role = padded(64, who.role);
    @memcpy(link.ops[0..who.ops.len], who.ops);
    hello.ops = @intCast(who.ops.len);
    // H0: pairs with H1 in the relay's rb_link_hello(): who sees READY sees the fields above. seq_cst as a gate's G0.
    @atomicStore(u32, &hello.hello, layout.hello_ready, .seq_cst);
    link.waker.ring();
}

/// NUL-padded, with one NUL at least.
pub fn padded(comptime size: usize, text: []const u8) [size]u8 {
    var field: [size]u8 = @splat(0);
    const kept = @min(text.len, size - 1);
    @memcpy(field[0..kept], text[0..kept]);
    return field;
}

// --- tests ---------------------------------------------------------------------------------------------------------------

const testing = std.testing;

test "of one major version the newer side judges" {
    const ours = layout.layout_version;
    var other = layout.layout_digest;
    other[0] ^= 1;
    try testing.expect(understands(ours, &layout.layout_digest));
    try testing.expect(!understands(ours, &other));
    try testing.expect(understands(ours + 1, &other));
    try testing.expect(!understands(ours + (1 << 16), &layout.layout_digest));
    try testing.expect(!understands(ours - (1 << 16), &layout.layout_digest));
    if (ours & 0xffff > 0) try testing.expect(!understands(ours - 1, &layout.layout_digest));
}

test "texts are cut to their fields, a NUL at the end" {
    try testing.expectEqualStrings("zig\x00", &padded(4, "zigzag"));
    try testing.expectEqualStrings("c\x00\x00\x00", &padded(4, "c"));
}
