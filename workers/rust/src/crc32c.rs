//! CRC-32C: by table, eight bytes a step, or by the CPU's instruction (SSE 4.2).
//!
//! The instruction has a latency of three cycles and a throughput of one, so long inputs are cut
//! into three runs that are summed side by side and joined: the register after n zero bytes is a
//! linear map of the register before (csrc/core/crc32c.c; Mark Adler, crc32c.c, 2013). The tables
//! are made at compile time.

const POLYNOMIAL: u32 = 0x82f6_3b78;
const RUN: usize = 1024; // bytes of one of three runs

/// `[k][b]`: the register after byte b and k zero bytes.
static BYTES: [[u32; 256]; 8] = byte_tables();

const fn byte_tables() -> [[u32; 256]; 8] {
    let mut tables = [[0u32; 256]; 8];
    let mut b = 0;
    while b < 256 {
        let mut crc = b as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = (crc >> 1) ^ (if crc & 1 == 1 { POLYNOMIAL } else { 0 });
            bit += 1;
        }
        tables[0][b] = crc;
        b += 1;
    }
    let mut k = 1;
    while k < 8 {
        b = 0;
        while b < 256 {
            let crc = tables[k - 1][b];
            tables[k][b] = tables[0][(crc & 0xff) as usize] ^ (crc >> 8);
            b += 1;
        }
        k += 1;
    }
    tables
}

fn by_table(mut crc: u32, bytes: &[u8]) -> u32 {
    let mut chunks = bytes.chunks_exact(8);
    for chunk in &mut chunks {
        let v = word(chunk) ^ u64::from(crc);
        crc = 0;
        for k in 0..8 {
            crc ^= BYTES[7 - k][(v >> (8 * k) & 0xff) as usize];
        }
    }
    for byte in chunks.remainder() {
        crc = BYTES[0][((crc ^ u32::from(*byte)) & 0xff) as usize] ^ (crc >> 8);
    }
    crc
}

fn word(bytes: &[u8]) -> u64 {
    u64::from_le_bytes([
        bytes[0], bytes[1], bytes[2], bytes[3], bytes[4], bytes[5], bytes[6], bytes[7],
    ])
}

#[cfg(target_arch = "x86_64")]
#[allow(unsafe_op_in_unsafe_fn)] // the intrinsics are unsafe functions until Rust 1.87
mod instruction {
    use super::{word, POLYNOMIAL, RUN};
    use core::arch::x86_64::{_mm_crc32_u64, _mm_crc32_u8};

    /// The register after RUN zero bytes, by the register's four bytes.
    static PAST: [[u32; 256]; 4] = past();

    const fn past() -> [[u32; 256]; 4] {
        // One zero bit as a matrix over GF(2), 32 columns; squared until it stands for the run.
        let mut matrix = [0u32; 32];
        matrix[0] = POLYNOMIAL;
        let mut i = 1;
        while i < 32 {
            matrix[i] = 1 << (i - 1);
            i += 1;
        }
        let mut bits = 1;
        while bits < RUN * 8 {
            let mut square = [0u32; 32];
            i = 0;
            while i < 32 {
                square[i] = apply(&matrix, matrix[i]);
                i += 1;
            }
            matrix = square;
            bits *= 2;
        }
        let mut tables = [[0u32; 256]; 4];
        let mut k = 0;
        while k < 4 {
            let mut b = 0;
            while b < 256 {
                tables[k][b] = apply(&matrix, (b as u32) << (8 * k));
                b += 1;
            }
            k += 1;
        }
        tables
    }

    const fn apply(matrix: &[u32; 32], mut vector: u32) -> u32 {
        let mut sum = 0;
        let mut i = 0;
        while vector != 0 {
            if vector & 1 == 1 {
                sum ^= matrix[i];
            }
            vector >>= 1;
            i += 1;
        }
        sum
    }

    fn past_run(crc: u64) -> u64 {
        let byte = |k: u32| PAST[k as usize][(crc >> (8 * k) & 0xff) as usize];
        u64::from(byte(0) ^ byte(1) ^ byte(2) ^ byte(3))
    }

    /// # Safety
    /// The CPU has SSE 4.2.
    #[target_feature(enable = "sse4.2")]
    pub unsafe fn words(crc: u32, words: &[u64; 8]) -> u32 {
        words.iter().fold(u64::from(crc), |crc, word| _mm_crc32_u64(crc, *word)) as u32
    }

    /// # Safety
    /// The CPU has SSE 4.2.
    #[target_feature(enable = "sse4.2")]
    pub unsafe fn sum(crc: u32, mut bytes: &[u8]) -> u32 {
        let mut crc = u64::from(crc);
        while bytes.len() >= 3 * RUN {
            let (first, rest) = bytes.split_at(RUN);
            let (second, rest) = rest.split_at(RUN);
            let (third, rest) = rest.split_at(RUN);
            let (mut crc2, mut crc3) = (0, 0);
            for i in (0..RUN).step_by(8) {
                crc = _mm_crc32_u64(crc, word(&first[i..i + 8]));
                crc2 = _mm_crc32_u64(crc2, word(&second[i..i + 8]));
                crc3 = _mm_crc32_u64(crc3, word(&third[i..i + 8]));
            }
            crc = past_run(past_run(crc) ^ crc2) ^ crc3;
            bytes = rest;
        }
        let mut chunks = bytes.chunks_exact(8);
        for chunk in &mut chunks {
            crc = _mm_crc32_u64(crc, word(chunk));
        }
        for byte in chunks.remainder() {
            crc = u64::from(_mm_crc32_u8(crc as u32, *byte));
        }
        crc as u32
    }
}

/// The sum of `bytes` behind what `crc` already sums (0: nothing).
#[inline]
pub fn crc32c(crc: u32, bytes: &[u8]) -> u32 {
    #[cfg(target_arch = "x86_64")]
    if std::is_x86_feature_detected!("sse4.2") {
        // SAFETY: just asked for.
        return !unsafe { instruction::sum(!crc, bytes) };
    }
    !by_table(!crc, bytes)
}

/// The same of 64 bytes in words, as an envelope's head is made.
#[inline]
pub fn crc32c_words(crc: u32, words: &[u64; 8]) -> u32 {
    #[cfg(target_arch = "x86_64")]
    if std::is_x86_feature_detected!("sse4.2") {
        // SAFETY: just asked for.
        return !unsafe { instruction::words(!crc, words) };
    }
    words.iter().fold(crc, |crc, word| crc32c(crc, &word.to_le_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    // RFC 3720, B.4
    #[test]
    fn the_vectors_of_iscsi() {
        let ascending: Vec<u8> = (0..32).collect();
        for (bytes, sum) in [
            (&[0u8; 32][..], 0x8a91_36aa),
            (&[0xff; 32], 0x62a8_ab43),
            (&ascending, 0x46dd_794e),
            (b"123456789", 0xe306_9283),
        ] {
            assert_eq!(crc32c(0, bytes), sum);
            assert_eq!(!by_table(!0, bytes), sum);
        }
    }

    #[test]
    fn both_ways_and_any_split_agree() {
        let bytes: Vec<u8> = (0..10_000u32).map(|i| ((i * i) >> 3) as u8).collect();
        for size in [0, 1, 7, 8, 63, 64, 65, 3071, 3072, 3073, 6200, 10_000] {
            let whole = !by_table(!0, &bytes[..size]);
            assert_eq!(crc32c(0, &bytes[..size]), whole);
            for cut in [0, 1, size / 3, size / 2, size] {
                let cut = cut.min(size);
                assert_eq!(crc32c(crc32c(0, &bytes[..cut]), &bytes[cut..size]), whole);
            }
        }
    }
}
