//! Where each part of a link lies, by its sizes alone: what a header says is held against it.

use crate::layout::*;

const SLOTS_MIN: u32 = 2;
const SLOTS_MAX: u32 = 65536;
const RESULT_BYTES_MAX: u64 = 1 << 40;
const RESULT_BLOCKS_MAX: u64 = 1 << 20;

/// Where each part lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parts {
    pub requests_at: u64,
    pub cancels_at: u64,
    pub demands_at: u64,
    pub givebacks_at: u64,
    pub relay_side_bytes: u64,
    pub completions_at: u64,
    pub results_at: u64,
    pub worker_side_bytes: u64,
}

impl Parts {
    /// None when a number breaks its rule (link.h, rb_link_config).
    pub fn of(slots: u32, block_bytes: u32, result_bytes: u64) -> Option<Parts> {
        let page = PAGE_BYTES as u64;
        let (block, count) = (u64::from(block_bytes), u64::from(slots));
        if !slots.is_power_of_two() || !(SLOTS_MIN..=SLOTS_MAX).contains(&slots) {
            return None;
        }
        if !block_bytes.is_power_of_two() || block % page != 0 {
            return None;
        }
        if result_bytes > RESULT_BYTES_MAX || result_bytes % block != 0 {
            return None;
        }
        let blocks = result_bytes / block;
        if !blocks.is_power_of_two() || blocks > RESULT_BLOCKS_MAX {
            return None;
        }
        // Where the part after one of `bytes` at `at` begins: whole pages, then a guard.
        let after = |at: u64, bytes: u64| at + (bytes + page - 1) / page * page + page;
        let positions_at = u64::from(AT_POSITIONS);
        let requests_at = after(positions_at, size_of::<RelayPositions>());
        let cancels_at = after(requests_at, count * size_of::<Request>());
        let demands_at = after(cancels_at, count * size_of::<u64>());
        let givebacks_at = after(demands_at, count * size_of::<Demand>());
        let completions_at = after(u64::from(AT_TELEMETRY), size_of::<Telemetry>());
        let results_at = after(completions_at, count * size_of::<Completion>());
        Some(Parts {
            requests_at,
            cancels_at,
            demands_at,
            givebacks_at,
            relay_side_bytes: after(givebacks_at, blocks * size_of::<Giveback>()),
            completions_at,
            results_at,
            worker_side_bytes: after(results_at, result_bytes),
        })
    }

    pub fn named_by(h: &RelayHeader) -> Parts {
        Parts {
            requests_at: h.requests_at,
            cancels_at: h.cancels_at,
            demands_at: h.demands_at,
            givebacks_at: h.givebacks_at,
            relay_side_bytes: h.relay_side_bytes,
            completions_at: h.completions_at,
            results_at: h.results_at,
            worker_side_bytes: h.worker_side_bytes,
        }
    }

    /// Every part is followed by one guard page, the last one too.
    pub fn relay_guards(&self) -> [u64; 6] {
        [
            u64::from(AT_POSITIONS),
            self.requests_at,
            self.cancels_at,
            self.demands_at,
            self.givebacks_at,
            self.relay_side_bytes,
        ]
        .map(|begin| begin - PAGE_BYTES as u64)
    }

    pub fn worker_guards(&self) -> [u64; 4] {
        [u64::from(AT_POSITIONS), self.completions_at, self.results_at, self.worker_side_bytes]
            .map(|begin| begin - PAGE_BYTES as u64)
    }
}

fn size_of<T>() -> u64 {
    core::mem::size_of::<T>() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_that_break_a_rule_have_no_parts() {
        assert!(Parts::of(1024, 4096, 64 << 20).is_some());
        for (slots, block, results) in [
            (0, 4096, 1 << 20),
            (1, 4096, 1 << 20),
            (3, 4096, 1 << 20),
            (1 << 17, 4096, 1 << 20),
            (2, 0, 1 << 20),
            (2, 2048, 1 << 20),
            (2, 12288, 12288 * 4),
            (2, 4096, 0),
            (2, 4096, 4096 * 3),
            (2, 4096, 4097),
            (2, 4096, 1 << 41),
            (2, 4096, 4096 << 21),
        ] {
            assert_eq!(Parts::of(slots, block, results), None, "{slots} {block} {results}");
        }
    }
}
