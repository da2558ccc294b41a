//! The CRC of a request or completion (csrc/include/ringbridge/envelope.h says what it covers).
//!
//! The first 64 bytes are made from the fields and not by a copy: who has just filled an envelope
//! in has narrow stores in flight, and a wider load over them would wait until they have reached
//! the cache.

use crate::crc32c::{crc32c, crc32c_words};
use crate::layout::*;

fn fields(low: u32, at_32: u8, at_40: u8, at_48: u16) -> u64 {
    u64::from(low) | u64::from(at_32) << 32 | u64::from(at_40) << 40 | u64::from(at_48) << 48
}

fn word(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}

#[inline]
fn sum(head: &[u64; 8], payload: &[u8], features: u64) -> u32 {
    let crc = crc32c_words(0, head);
    if features & FEATURE_CRC_PAYLOAD == 0 {
        return crc;
    }
    crc32c(crc, payload)
}

/// `in_pool`: its payload; None: it lies in the envelope.
#[inline]
pub fn request_crc(e: &Request, in_pool: Option<&[u8]>, features: u64) -> u32 {
    if features & (FEATURE_CRC_ENVELOPE | FEATURE_CRC_PAYLOAD) == 0 {
        return 0;
    }
    let head = [
        e.job,
        u64::from(e.opcode) << 32 | u64::from(e.flags) << 48, // crc as 0
        e.deadline_ns,
        e.payload_at,
        fields(e.payload_bytes, e.priority, e.trace_flags, e.reserved),
        word(&e.trace_id, 0),
        word(&e.trace_id, 8),
        word(&e.span_id, 0),
    ];
    let inline = &e.body[..(e.payload_bytes as usize).min(INLINE_BYTES_MAX)];
    sum(&head, in_pool.unwrap_or(inline), features)
}

/// `in_region`: its payload; None: it lies in the envelope.
#[inline]
pub fn completion_crc(e: &Completion, in_region: Option<&[u8]>, features: u64) -> u32 {
    if features & (FEATURE_CRC_ENVELOPE | FEATURE_CRC_PAYLOAD) == 0 {
        return 0;
    }
    let head = [
        e.job,
        u64::from(e.status) << 32 | u64::from(e.flags) << 48, // crc as 0
        e.queue_ns,
        e.run_ns,
        e.payload_at,
        u64::from(e.payload_bytes) | u64::from(e.code) << 32 | u64::from(e.reserved) << 48,
        word(&e.reserved2, 0),
        word(&e.reserved2, 8),
    ];
    let inline = &e.body[..(e.payload_bytes as usize).min(INLINE_BYTES_MAX)];
    sum(&head, in_region.unwrap_or(inline), features)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A record as its bytes, the CRC taken as zero.
    fn bytes_of<T: Copy>(record: &T) -> Vec<u8> {
        // SAFETY: records are integers without implicit padding (layout.rs asserts their sizes).
        let mut bytes = unsafe {
            core::slice::from_raw_parts(
                (record as *const T).cast::<u8>(),
                core::mem::size_of::<T>(),
            )
        }
        .to_vec();
        bytes[8..12].fill(0);
        bytes
    }

    /// Records whose every byte differs.
    fn ascending<T: Copy>() -> T {
        let bytes: Vec<u8> = (0..128).collect();
        // SAFETY: 128 bytes, and any bits are a value.
        unsafe { bytes.as_ptr().cast::<T>().read_unaligned() }
    }

    #[test]
    fn the_sum_is_over_the_first_64_bytes_then_over_the_payload() {
        let payload = b"some more bytes";
        let mut request: Request = ascending();
        request.payload_bytes = 40;
        let bytes = bytes_of(&request);
        let (head, both) = (FEATURE_CRC_ENVELOPE, FEATURE_CRC_ENVELOPE | FEATURE_CRC_PAYLOAD);
        assert_eq!(request_crc(&request, None, 0), 0);
        assert_eq!(request_crc(&request, None, head), crc32c(0, &bytes[..64]));
        assert_eq!(request_crc(&request, None, both), crc32c(0, &bytes[..104]));
        let outside = crc32c(crc32c(0, &bytes[..64]), payload);
        assert_eq!(request_crc(&request, Some(payload), both), outside);

        let mut completion: Completion = ascending();
        completion.payload_bytes = 40;
        let bytes = bytes_of(&completion);
        assert_eq!(completion_crc(&completion, None, head), crc32c(0, &bytes[..64]));
        assert_eq!(completion_crc(&completion, None, both), crc32c(0, &bytes[..104]));
        let outside = crc32c(crc32c(0, &bytes[..64]), payload);
        assert_eq!(completion_crc(&completion, Some(payload), both), outside);
    }
}
