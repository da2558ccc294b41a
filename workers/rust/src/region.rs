//! Who owns which block of the result region, kept in private memory (csrc/include/ringbridge/
//! region.h).
//!
//! First fit over a bitmap: low addresses are used again first, so that the pages of a region which
//! was once full can be given back to the kernel. One owner thread.

/// Why no room was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// No run of free blocks is that long now.
    Full,
    /// It would never fit.
    TooLarge,
}

/// The bitmap of one region.
#[derive(Debug)]
pub struct Region {
    used: Vec<u64>, // one bit a block; 1: taken
    blocks: u32,
    block_bytes: u32,
    taken: u32,
    lowest: u32,          // no free block lies below it
    highest_touched: u32, // blocks from it on were not handed out since the last trim
}

const WORD_BITS: u32 = 64;

impl Region {
    /// Both are checked by link::check(): `blocks` is at most 2^20.
    pub fn new(blocks: u32, block_bytes: u32) -> Region {
        let used = vec![0; ((blocks + WORD_BITS - 1) / WORD_BITS) as usize];
        Region { used, blocks, block_bytes, taken: 0, lowest: 0, highest_touched: 0 }
    }

    pub fn block_bytes(&self) -> u32 {
        self.block_bytes
    }

    /// How many blocks hold `bytes`.
    pub fn blocks_for(&self, bytes: usize) -> u32 {
        ((bytes as u64 + u64::from(self.block_bytes) - 1) / u64::from(self.block_bytes)) as u32
    }

    /// Bytes from the region's beginning that were handed out since the last trim.
    pub fn touched_bytes(&self) -> u64 {
        u64::from(self.highest_touched) * u64::from(self.block_bytes)
    }

    /// Takes room for `bytes` (> 0): the first block's index.
    pub fn take(&mut self, bytes: usize) -> Result<u32, Refused> {
        if bytes as u64 > u64::from(self.blocks) * u64::from(self.block_bytes) {
            return Err(Refused::TooLarge);
        }
        let count = self.blocks_for(bytes);
        if count > self.blocks - self.taken {
            return Err(Refused::Full);
        }
        let mut first = self.find(self.lowest, false);
        self.lowest = first;
        while self.blocks - first >= count {
            let end = self.find(first, true);
            if end - first >= count {
                self.mark(first, count, true);
                self.taken += count;
                if first == self.lowest {
                    self.lowest = first + count;
                }
                self.highest_touched = self.highest_touched.max(first + count);
                return Ok(first);
            }
            first = self.find(end, false);
        }
        Err(Refused::Full)
    }

    /// Gives `count` blocks back; false, and nothing changed, when one lies outside or is free.
    #[must_use]
    pub fn give(&mut self, first: u32, count: u32) -> bool {
        if count == 0 || first >= self.blocks || count > self.blocks - first {
            return false;
        }
        if self.find(first, false) < first + count {
            return false;
        }
        self.mark(first, count, false);
        self.taken -= count;
        self.lowest = self.lowest.min(first);
        true
    }

    /// Hands each free run above the first `keep_bytes` to `punch` (first block, blocks), which
    /// returns whether the kernel took it.
    pub fn trim(&mut self, keep_bytes: u64, mut punch: impl FnMut(u32, u32) -> bool) {
        let block = u64::from(self.block_bytes);
        let keep = ((keep_bytes + block - 1) / block).min(u64::from(self.blocks)) as u32;
        let mut from = self.find(keep, false);
        while from < self.highest_touched {
            let end = self.find(from, true).min(self.highest_touched);
            if !punch(from, end - from) {
                return;
            }
            if end == self.highest_touched {
                self.highest_touched = from; // all of the tail was free
                return;
            }
            from = self.find(end, false);
        }
    }

    /// The first block from `from` on that is taken (or free); `blocks` when there is none.
    fn find(&self, from: u32, taken: bool) -> u32 {
        if from >= self.blocks {
            return self.blocks;
        }
        let flip = if taken { 0 } else { u64::MAX };
        let mut word = (from / WORD_BITS) as usize;
        let mut bits = (self.used[word] ^ flip) & (u64::MAX << (from % WORD_BITS));
        while bits == 0 {
            word += 1;
            match self.used.get(word) {
                Some(used) => bits = used ^ flip,
                None => return self.blocks,
            }
        }
        // The last word's spare bits read as free.
        (word as u32 * WORD_BITS + bits.trailing_zeros()).min(self.blocks)
    }

    fn mark(&mut self, mut first: u32, mut count: u32, taken: bool) {
        while count > 0 {
            let bit = first % WORD_BITS;
            let here = (WORD_BITS - bit).min(count);
            let mask = (u64::MAX >> (WORD_BITS - here)) << bit;
            let word = &mut self.used[(first / WORD_BITS) as usize];
            if taken {
                *word |= mask;
            } else {
                *word &= !mask;
            }
            first += here;
            count -= here;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_run_that_fits_is_taken() {
        let mut r = Region::new(128, 4096);
        assert_eq!(r.take(1), Ok(0));
        assert_eq!(r.take(4097), Ok(1));
        assert_eq!(r.take(100 * 4096), Ok(3));
        assert!(r.give(1, 2));
        assert_eq!(r.take(3 * 4096), Ok(103), "two blocks are free below, which is too few");
        assert_eq!(r.take(2 * 4096), Ok(1));
        assert_eq!(r.take(128 * 4096), Err(Refused::Full));
        assert_eq!(r.take(128 * 4096 + 1), Err(Refused::TooLarge));
    }

    #[test]
    fn only_what_is_taken_can_be_given() {
        let mut r = Region::new(64, 4096);
        assert_eq!(r.take(64 * 4096), Ok(0));
        assert!(!r.give(64, 1) && !r.give(63, 2) && !r.give(0, 0) && !r.give(u32::MAX, 2));
        assert!(r.give(10, 1));
        assert!(!r.give(10, 1), "twice");
        assert!(!r.give(9, 3), "one of them is free");
        assert!(r.give(9, 1) && r.give(11, 53) && r.give(0, 9));
        assert_eq!(r.take(64 * 4096), Ok(0));
    }

    #[test]
    fn a_trim_hands_out_the_free_runs_above_what_is_kept() {
        let mut r = Region::new(64, 4096);
        for first in 0..6 {
            assert_eq!(r.take(8 * 4096), Ok(first * 8));
        }
        assert!(r.give(0, 16) && r.give(24, 8) && r.give(40, 8));
        let mut punched = Vec::new();
        r.trim(8 * 4096, |first, count| {
            punched.push((first, count));
            true
        });
        assert_eq!(punched, [(8, 8), (24, 8), (40, 8)]);
        assert_eq!(r.touched_bytes(), 40 * 4096);
    }
}
