//! Whether bytes are one whole external term (erl_ext_dist), walked without building it. The rules are those of
//! csrc/core/term.c, by which the relay walks what leaves.
//!
//! Terms are counted instead of recursed into, so depth costs nothing.
const std = @import("std");

const Tag = enum(u8) {
    record = 67,
    new_float = 70,
    bit_binary = 77,
    new_pid = 88,
    new_port = 89,
    newer_reference = 90,
    small_integer = 97,
    integer = 98,
    float = 99,
    atom = 100,
    reference = 101,
    port = 102,
    pid = 103,
    small_tuple = 104,
    large_tuple = 105,
    nil = 106,
    string = 107,
    list = 108,
    binary = 109,
    small_big = 110,
    large_big = 111,
    new_fun = 112,
    @"export" = 113,
    new_reference = 114,
    small_atom = 115,
    map = 116,
    atom_utf8 = 118,
    small_atom_utf8 = 119,
    v4_port = 120,
};

/// 255 characters of four bytes.
const atom_bytes_max = 4 * 255;
const reference_words_max = 5;

/// Are these the bytes of one term, without the leading 131, and nothing behind it?
pub fn isOne(bytes: []const u8) bool {
    var rest = bytes;
    var pending: u64 = 1;
    while (pending > 0) { // bound: each term takes a byte at least
        if (pending > rest.len) return false;
        const own = step(rest) catch return false;
        if (own.bytes > rest.len) return false;
        rest = rest[own.bytes..];
        pending = pending - 1 + own.inside;
    }
    return rest.len == 0;
}

const Error = error{ Short, NoTerm };
/// A term's own bytes, which may be more than there are, and how many terms follow inside it.
const Own = struct { bytes: u64, inside: u64 = 0 };

fn be(comptime T: type, t: []const u8, at: usize) Error!u64 {
    if (t.len < at + @sizeOf(T)) return error.Short;
    return std.mem.readInt(T, t[at..][0..@sizeOf(T)], .big);
}

/// The first term's. Pids, ports and references are taken whole, with their node.
fn step(t: []const u8) Error!Own {
    const tag = std.enums.fromInt(Tag, try be(u8, t, 0)) orelse return error.NoTerm;
    return switch (tag) {
        .nil => .{ .bytes = 1 },
        .small_integer => .{ .bytes = 2 },
        .integer => .{ .bytes = 5 },
        .new_float => .{ .bytes = 9 },
        .float => .{ .bytes = 32 },
        .small_atom, .small_atom_utf8 => .{ .bytes = 2 + try be(u8, t, 1) },
        .atom, .atom_utf8, .string => .{ .bytes = 3 + try be(u16, t, 1) },
        .binary => .{ .bytes = 5 + try be(u32, t, 1) },
        .bit_binary, .large_big => .{ .bytes = 6 + try be(u32, t, 1) },
        .small_big => .{ .bytes = 3 + try be(u8, t, 1) },
        .small_tuple => .{ .bytes = 2, .inside = try be(u8, t, 1) },
        .large_tuple => .{ .bytes = 5, .inside = try be(u32, t, 1) },
        .list => .{ .bytes = 5, .inside = try be(u32, t, 1) + 1 },
        .map => .{ .bytes = 5, .inside = 2 * try be(u32, t, 1) },
        .@"export" => .{ .bytes = 1, .inside = 3 },
        // Size, arity, uniq, index, number of free variables; then module, old index, old uniq, pid and the free variables as
        // terms.
        .new_fun => .{ .bytes = 30, .inside = 4 + try be(u32, t, 26) },
        .record => .{ .bytes = 6, .inside = 2 + 2 * try be(u32, t, 1) },
        // These begin with their node, an atom; their numbers follow it.
        .new_pid, .v4_port => .{ .bytes = 1 + try node(t, 1) + 12 },
        .pid => .{ .bytes = 1 + try node(t, 1) + 9 },
        .new_port => .{ .bytes = 1 + try node(t, 1) + 8 },
        .port, .reference => .{ .bytes = 1 + try node(t, 1) + 5 },
        .newer_reference, .new_reference => reference: {
            const words = try be(u16, t, 1);
            if (words > reference_words_max) return error.NoTerm;
            const creation: u64 = if (tag == .newer_reference) 4 else 1;
            break :reference .{ .bytes = 3 + try node(t, 3) + creation + 4 * words };
        },
    };
}

/// Bytes of the atom at `at`.
fn node(t: []const u8, at: usize) Error!u64 {
    const tag = std.enums.fromInt(Tag, try be(u8, t, at)) orelse return error.NoTerm;
    switch (tag) {
        .small_atom, .small_atom_utf8 => return 2 + try be(u8, t, at + 1),
        .atom, .atom_utf8 => {
            const size = try be(u16, t, at + 1);
            return if (size <= atom_bytes_max) 3 + size else error.NoTerm;
        },
        else => return error.NoTerm,
    }
}

// --- tests ---------------------------------------------------------------------------------------------------------------

const testing = std.testing;

fn times(comptime byte: u8, comptime count: usize) *const [count]u8 {
    return &@as([count]u8, @splat(byte));
}

const a_node = "w\x03a@b";
const whole = [_][]const u8{
    "j",
    "a\x01",
    "b\x00\x00\x00\x01",
    "F" ++ times(0, 8),
    "c" ++ times('0', 31),
    "w\x02ok",
    "s\x02ok",
    "v\x00\x02ok",
    "d\x00\x02ok",
    "k\x00\x03abc",
    "m\x00\x00\x00\x02ab",
    "M\x00\x00\x00\x01\x03\xe0",
    "n\x02\x00\x01\x02",
    "o\x00\x00\x00\x02\x00\x01\x02",
    "h\x02w\x02oka\x01",
    "i\x00\x00\x00\x01a\x01",
    "l\x00\x00\x00\x02a\x01a\x02j",
    "t\x00\x00\x00\x01a\x01h\x00",
    "qw\x01mw\x01fa\x02",
    "p" ++ times(0, 28) ++ "\x01" ++ "w\x01ma\x00a\x00" ++ "X" ++ a_node ++ times(7, 12) ++ "j",
    "C\x00\x00\x00\x01\x00w\x01rw\x01vw\x01ka\x01",
    "X" ++ a_node ++ times(7, 12),
    "x" ++ a_node ++ times(7, 12),
    "g" ++ a_node ++ times(7, 9),
    "Y" ++ a_node ++ times(7, 8),
    "f" ++ a_node ++ times(7, 5),
    "e" ++ a_node ++ times(7, 5),
    "Z\x00\x03" ++ a_node ++ times(7, 16),
    "r\x00\x02" ++ a_node ++ times(7, 9),
};

test "a term is one when it is whole and nothing follows" {
    inline for (whole) |term| {
        try testing.expect(isOne(term));
        for (0..term.len) |end| try testing.expect(!isOne(term[0..end]));
        try testing.expect(!isOne(term ++ "j"));
    }
}

test "what is no term is none" {
    const long_atom = "d\x03\xfd" ++ times('x', 1021);
    for ([_][]const u8{
        "\x83a\x01", // the version is not of the term
        "R\x00", // an atom's place in a cache
        "h\xff", // more elements than bytes
        "i\xff\xff\xff\xff",
        "m\xff\xff\xff\xff", // more bytes than there are
        "Z\x00\x06" ++ a_node ++ times(7, 28), // more words than a reference has
        "Xa\x01aaaaaaaaaaaa", // a node that is no atom
        "X" ++ long_atom ++ times(7, 12), // nor one of 255 characters at most
    }) |bytes| try testing.expect(!isOne(bytes));
}

test "depth costs nothing" {
    const deep = try testing.allocator.alloc(u8, 2 * (1 << 20) + 1);
    defer testing.allocator.free(deep);
    for (deep, 0..) |*byte, i| byte.* = if (i % 2 == 0) 'h' else 1;
    deep[deep.len - 1] = 'j';
    try testing.expect(isOne(deep));
}
