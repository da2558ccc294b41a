//! The CRC of the 128-byte envelopes (csrc/include/ringbridge/envelope.h is the contract): over the first 64 bytes with `crc`
//! taken as zero, then, with feature_crc_payload, over the payload wherever it lies. With neither feature `crc` is 0 and
//! unchecked.
//!
//! The first 64 bytes are made of the fields and not read back: who has just filled an envelope in has narrow stores in flight,
//! and a wider load over them would wait until they have reached the cache (some 15 ns each).
const std = @import("std");
const layout = @import("layout.zig");
const crc32c = @import("crc32c.zig");

const either = layout.feature_crc_envelope | layout.feature_crc_payload;

pub inline fn ofRequest(e: *const layout.Request, payload: []const u8, features: u64) u32 {
    if (features & either == 0) return 0;
    const head = [8]u64{
        e.job,
        fields(0, e.opcode, 0, e.flags), // the CRC counts as zero
        e.deadline_ns,
        e.payload_at,
        fields(e.payload_bytes, e.priority, e.trace_flags, e.reserved),
        word(e.trace_id[0..8]),
        word(e.trace_id[8..16]),
        word(&e.span_id),
    };
    return sum(&head, payload, features);
}

pub inline fn ofCompletion(e: *const layout.Completion, payload: []const u8, features: u64) u32 {
    if (features & either == 0) return 0;
    const head = [8]u64{
        e.job,
        fields(0, e.status, 0, e.flags), // the CRC counts as zero
        e.queue_ns,
        e.run_ns,
        e.payload_at,
        fields(e.payload_bytes, e.code, 0, e.reserved),
        word(e.reserved2[0..8]),
        word(e.reserved2[8..16]),
    };
    return sum(&head, payload, features);
}

inline fn sum(head: *const [8]u64, payload: []const u8, features: u64) u32 {
    const crc = crc32c.ofWords(8, head);
    return if (features & layout.feature_crc_payload == 0) crc else crc32c.update(crc, payload);
}

inline fn fields(low: u64, at_32: u64, at_40: u64, at_48: u64) u64 {
    return low | at_32 << 32 | at_40 << 40 | at_48 << 48;
}

inline fn word(bytes: *const [8]u8) u64 {
    return std.mem.readInt(u64, bytes, .little);
}

// --- tests ---------------------------------------------------------------------------------------------------------------

const testing = std.testing;

fn random(comptime Envelope: type, seed: u64) Envelope {
    var bytes: [@sizeOf(Envelope)]u8 = undefined;
    var prng: std.Random.DefaultPrng = .init(seed);
    prng.random().bytes(&bytes);
    return std.mem.bytesToValue(Envelope, &bytes);
}

test "the CRC made of the fields is that of the first 64 bytes with the CRC as zero" {
    inline for (.{ layout.Request, layout.Completion }) |Envelope| {
        for (0..50) |seed| {
            const e = random(Envelope, seed);
            var plain = e;
            plain.crc = 0;
            const head = crc32c.update(0, std.mem.asBytes(&plain)[0..64]);
            const of = if (Envelope == layout.Request) ofRequest else ofCompletion;
            try testing.expectEqual(head, of(&e, "abc", layout.feature_crc_envelope));
            try testing.expectEqual(crc32c.update(head, "abc"), of(&e, "abc", either));
            try testing.expectEqual(0, of(&e, "abc", 0));
        }
    }
}
