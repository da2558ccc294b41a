//! The telemetry block, a seqlock that this side writes and the relay reads: protocol and labels
//! are those of csrc/include/ringbridge/telemetry.h. One writer at a time.

use crate::primitive::{u32s, u64s, AtomicU32, AtomicU64};

/// Words of the block behind its first eight bytes.
pub const WORDS: usize = core::mem::size_of::<crate::layout::Telemetry>() / 8 - 1;

/// The words of a block: the first two are halves of its first eight bytes.
#[derive(Clone, Copy, Debug)]
pub struct Block<'l> {
    pub sequence: &'l AtomicU32,
    pub gate: &'l AtomicU32,
    pub words: &'l [AtomicU64],
}

impl<'l> Block<'l> {
    /// `values` are as many as `words`.
    pub fn store(&self, gate: u32, values: &[u64]) {
        // Relaxed: only writers store it, and they take turns. Made even, should a predecessor have
        // died inside.
        let sequence = u32s::load_relaxed(self.sequence) & !1;
        // T0: kept before the words by T1
        u32s::store_relaxed(self.sequence, sequence.wrapping_add(1));
        u32s::store_release(self.gate, gate); // T1: pairs with T4
        for (word, value) in self.words.iter().zip(values) {
            u64s::store_release(word, *value); // T1
        }
        u32s::store_release(self.sequence, sequence.wrapping_add(2)); // T2: pairs with T3
    }

    /// One look; None where it met the writer. The relay's half, for tests and the model.
    #[allow(dead_code)]
    pub fn load(&self, values: &mut [u64]) -> Option<u32> {
        let sequence = u32s::load_acquire(self.sequence); // T3: pairs with T2
        if sequence & 1 == 1 {
            return None;
        }
        let gate = u32s::load_acquire(self.gate); // T4: pairs with T1; keeps T5 below
        for (value, word) in values.iter_mut().zip(self.words) {
            *value = u64s::load_acquire(word); // T4
        }
        // T5: ordered by the acquire loads before it
        (u32s::load_relaxed(self.sequence) == sequence).then_some(gate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stored_is_loaded_whole() {
        let (sequence, gate) = (AtomicU32::new(7), AtomicU32::new(0)); // a predecessor died inside
        let words: Vec<AtomicU64> = (0..3).map(AtomicU64::new).collect();
        let block = Block { sequence: &sequence, gate: &gate, words: &words };
        let mut seen = [0; 3];
        assert_eq!(block.load(&mut seen), None);
        block.store(2, &[10, 11, 12]);
        assert_eq!(block.load(&mut seen), Some(2));
        assert_eq!(seen, [10, 11, 12]);
        assert_eq!(u32s::load_relaxed(&sequence), 8);
    }
}
