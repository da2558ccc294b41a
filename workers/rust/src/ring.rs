//! A single-producer single-consumer ring of fixed slots between two processes: the protocol, its
//! labels and what each order is for are those of csrc/include/ringbridge/ring.h.
//!
//! Positions are free-running 64-bit counts, masked only at use. Each side keeps its truth in
//! private memory and never reads back the shared word that it wrote.
//!
//! The other side is input: a position that runs backwards or too far is [`Broken`], and the ring
//! is then not used again. Death: a producer that dies before R0 has published nothing; a consumer
//! that dies before R2 leaves its slots in place.

use crate::primitive::{u64s, AtomicU64};

/// The other side's position ran backwards or too far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Broken;

/// The side that writes slots. The words live as long as the mapping, `'l`.
#[derive(Debug)]
pub struct Producer<'l> {
    tail: u64,    // published
    claimed: u64, // >= tail: slots handed out by claim(), not yet published
    head: u64,    // the consumer's position as last seen
    shared_tail: &'l AtomicU64,
    shared_head: &'l AtomicU64,
    slots: u64, // a power of two
}

impl<'l> Producer<'l> {
    /// `shared_tail` is ours, `shared_head` theirs.
    pub fn new(shared_tail: &'l AtomicU64, shared_head: &'l AtomicU64, slots: u64) -> Self {
        assert!(slots.is_power_of_two());
        Producer { tail: 0, claimed: 0, head: 0, shared_tail, shared_head, slots }
    }

    /// Looks at the consumer's position. Returns the number of free slots.
    pub fn free(&mut self) -> Result<u64, Broken> {
        // R3: pairs with R2 in Consumer::release(). Without it a slot could be overwritten while
        // the consumer still reads it.
        let head = u64s::load_acquire(self.shared_head);
        if head.wrapping_sub(self.head) > self.tail.wrapping_sub(self.head) {
            return Err(Broken);
        }
        self.head = head;
        Ok(self.slots - self.claimed.wrapping_sub(head))
    }

    /// Claims the next slot: its index, or None when the ring is full.
    #[inline]
    pub fn claim(&mut self) -> Result<Option<usize>, Broken> {
        if self.claimed.wrapping_sub(self.head) == self.slots && self.free()? == 0 {
            return Ok(None);
        }
        let slot = self.claimed & (self.slots - 1);
        self.claimed = self.claimed.wrapping_add(1);
        Ok(Some(slot as usize))
    }

    /// Publishes all claimed slots with one store, all of which must be written. Returns how many.
    #[inline]
    pub fn publish(&mut self) -> u64 {
        let count = self.claimed.wrapping_sub(self.tail);
        if count > 0 {
            self.tail = self.claimed;
            // R0: pairs with R1 in Consumer::available(): who sees the new tail sees the slots.
            // Also G0 of the gate, hence seq_cst.
            u64s::store_seq_cst(self.shared_tail, self.tail);
        }
        count
    }
}

/// The side that reads slots.
#[derive(Debug)]
pub struct Consumer<'l> {
    head: u64, // released
    tail: u64, // the producer's position as last seen
    shared_head: &'l AtomicU64,
    shared_tail: &'l AtomicU64,
    slots: u64,
}

impl<'l> Consumer<'l> {
    /// `shared_head` is ours, `shared_tail` theirs.
    pub fn new(shared_head: &'l AtomicU64, shared_tail: &'l AtomicU64, slots: u64) -> Self {
        assert!(slots.is_power_of_two());
        Consumer { head: 0, tail: 0, shared_head, shared_tail, slots }
    }

    /// Looks at the producer's position. Returns the number of slots that can be read.
    #[inline]
    pub fn available(&mut self) -> Result<u64, Broken> {
        // R1: pairs with R0 in Producer::publish(). Without it a slot could be read before its
        // bytes are there. seq_cst because it is also the gate's second look (G5).
        let tail = u64s::load_seq_cst(self.shared_tail);
        let ahead = tail.wrapping_sub(self.head);
        if ahead > self.slots || ahead < self.tail.wrapping_sub(self.head) {
            return Err(Broken);
        }
        self.tail = tail;
        Ok(ahead)
    }

    /// The position of the i-th readable slot, and the slot's index; i < available().
    #[inline]
    pub fn at(&self, i: u64) -> (u64, usize) {
        let position = self.head.wrapping_add(i);
        (position, (position & (self.slots - 1)) as usize)
    }

    /// Gives `count` slots back to the producer.
    #[inline]
    pub fn release(&mut self, count: u64) {
        self.head = self.head.wrapping_add(count);
        // R2: pairs with R3 in Producer::free(): our reads of the slots are done before the
        // producer sees them free.
        u64s::store_release(self.shared_head, self.head);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair<'l>(tail: &'l AtomicU64, head: &'l AtomicU64) -> (Producer<'l>, Consumer<'l>) {
        (Producer::new(tail, head, 4), Consumer::new(head, tail, 4))
    }

    #[test]
    fn a_full_ring_gives_no_slot_until_one_is_released() {
        let (tail, head) = (AtomicU64::new(0), AtomicU64::new(0));
        let (mut producer, mut consumer) = pair(&tail, &head);
        for slot in 0..4 {
            assert_eq!(producer.claim(), Ok(Some(slot)));
        }
        assert_eq!(producer.claim(), Ok(None));
        assert_eq!(consumer.available(), Ok(0), "claimed is not published");
        assert_eq!(producer.publish(), 4);
        assert_eq!(consumer.available(), Ok(4));
        assert_eq!(consumer.at(3), (3, 3));
        consumer.release(1);
        assert_eq!(producer.claim(), Ok(Some(0)));
        assert_eq!(producer.claim(), Ok(None));
    }

    #[test]
    fn positions_that_run_backwards_or_too_far_are_broken() {
        let (tail, head) = (AtomicU64::new(0), AtomicU64::new(0));
        let (mut producer, mut consumer) = pair(&tail, &head);
        u64s::store_seq_cst(&tail, 5);
        assert_eq!(consumer.available(), Err(Broken), "more than a ring ahead");
        u64s::store_seq_cst(&tail, 3);
        assert_eq!(consumer.available(), Ok(3));
        u64s::store_seq_cst(&tail, 2);
        assert_eq!(consumer.available(), Err(Broken), "backwards");
        u64s::store_seq_cst(&head, 1);
        assert_eq!(producer.free(), Err(Broken), "past what was published");
    }

    #[test]
    fn positions_wrap_around_64_bits() {
        let start = u64::MAX - 1;
        let (tail, head) = (AtomicU64::new(start), AtomicU64::new(start));
        let (mut producer, mut consumer) = pair(&tail, &head);
        (producer.tail, producer.claimed, producer.head) = (start, start, start);
        (consumer.head, consumer.tail) = (start, start);
        for round in 0..8u64 {
            let slot = producer.claim().unwrap().unwrap();
            assert_eq!(slot as u64, start.wrapping_add(round) & 3);
            producer.publish();
            assert_eq!(consumer.available(), Ok(1));
            assert_eq!(consumer.at(0).1, slot);
            consumer.release(1);
        }
    }
}
