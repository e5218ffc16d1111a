//! Heaps as SC&MP lays them out in memory: a header, blocks in order of their addresses, an end mark. Hosts read them.
//! (sark.h, sark_alloc.c of spinnaker_tools.)
//!
//! They lie in memory that hosts can write, so nothing here trusts what it finds: walks have an end, and a heap that makes no sense
//! gives nothing.

use spinnaker_wire::AppId;

/// Bytes of a heap's header, and of a block's.
const HEADER_BYTES: u32 = 16;
const BLOCK_BYTES: u32 = 8;
/// In bits 31:16 of a block's second word: it is allocated.
const ALLOCATED: u32 = 0xFFFF;
/// Blocks that a heap has at most: all of SDRAM in small ones.
const BLOCKS_MAX: usize = 1 << 20;

/// Memory by words. What is not there reads as zero and keeps nothing.
pub(super) trait Words {
    fn word(&mut self, address: u32) -> u32;
    fn set_word(&mut self, address: u32, value: u32);
}

/// A block as it was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Block {
    /// Of its header.
    address: u32,
    next: u32,
    owner: Option<(AppId, u8)>,
}

impl Block {
    /// Where its content begins.
    pub fn content(&self) -> u32 {
        self.address + BLOCK_BYTES
    }

    /// Bytes of its content.
    pub fn bytes(&self) -> u32 {
        self.next - self.address - BLOCK_BYTES
    }

    /// Who holds it, and under which tag.
    pub fn owner(&self) -> Option<(AppId, u8)> {
        self.owner
    }
}

/// A heap between two addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Heap {
    pub address: u32,
    /// The end: behind its end mark.
    pub top: u32,
}

impl Heap {
    fn first(self) -> u32 {
        self.address + HEADER_BYTES
    }

    fn last(self) -> u32 {
        self.top - BLOCK_BYTES
    }

    /// Makes it one free block.
    pub fn prepare(self, memory: &mut impl Words) {
        memory.set_word(self.address + 4, self.first());
        memory.set_word(self.address + 8, self.last());
        memory.set_word(self.last(), 0);
        memory.set_word(self.last() + 4, 0);
        self.lay_out(memory, &[(self.first(), None)]);
    }

    /// Its blocks in order.
    pub fn blocks(self, memory: &mut impl Words) -> Vec<Block> {
        let mut blocks = Vec::new();
        let mut address = self.first();
        while address != self.last() && blocks.len() < BLOCKS_MAX {
            let next = memory.word(address);
            if next < address + BLOCK_BYTES || next > self.last() || !next.is_multiple_of(4) {
                return Vec::new();
            }
            let free = memory.word(address + 4);
            let owner = (free >> 16 == ALLOCATED).then_some((AppId((free >> 8) as u8), free as u8));
            blocks.push(Block { address, next, owner });
            address = next;
        }
        blocks
    }

    /// Bytes that are free, and those of the largest free block; headers not counted.
    pub fn space(self, memory: &mut impl Words) -> (u32, u32) {
        let blocks = self.blocks(memory);
        let free = blocks.iter().filter(|block| block.owner.is_none()).map(Block::bytes);
        free.fold((0, 0), |(sum, largest), bytes| (sum + bytes, largest.max(bytes)))
    }

    /// Takes the first free block that is large enough; where its content begins.
    pub fn allocate(self, memory: &mut impl Words, bytes: u32, app: AppId, tag: u8) -> Option<u32> {
        let wanted = bytes.checked_next_multiple_of(4)?;
        let blocks = self.blocks(memory);
        let at = blocks.iter().position(|block| block.owner.is_none() && block.bytes() >= wanted)?;
        let found = blocks[at];
        let mut layout: Vec<_> = blocks.iter().map(|block| (block.address, block.owner)).collect();
        layout[at].1 = Some((app, tag));
        // A rest of no more than a header stays with the block.
        if found.bytes() - wanted > BLOCK_BYTES {
            layout.insert(at + 1, (found.content() + wanted, None));
        }
        self.lay_out(memory, &layout);
        Some(found.content())
    }

    /// Frees the blocks that are asked for; how many they were.
    pub fn free(self, memory: &mut impl Words, which: impl Fn(&Block) -> bool) -> u32 {
        let mut layout: Vec<(u32, Option<(AppId, u8)>)> = Vec::new();
        let mut freed = 0;
        for block in self.blocks(memory) {
            let goes = block.owner.is_some() && which(&block);
            freed += u32::from(goes);
            let owner = if goes { None } else { block.owner };
            // Neighbours that are free become one.
            if owner.is_none() && layout.last().is_some_and(|(_, before)| before.is_none()) {
                continue;
            }
            layout.push((block.address, owner));
        }
        if freed > 0 {
            self.lay_out(memory, &layout);
        }
        freed
    }

    /// Writes the blocks' headers, from the last to the first, and the heap's.
    fn lay_out(self, memory: &mut impl Words, blocks: &[(u32, Option<(AppId, u8)>)]) {
        let (mut next, mut next_free, mut free_bytes) = (self.last(), 0, 0);
        for &(address, owner) in blocks.iter().rev() {
            memory.set_word(address, next);
            match owner {
                Some((app, tag)) => {
                    memory.set_word(address + 4, ALLOCATED << 16 | u32::from(app.0) << 8 | u32::from(tag));
                }
                None => {
                    memory.set_word(address + 4, next_free);
                    next_free = address;
                    free_bytes += next - address;
                }
            }
            next = address;
        }
        memory.set_word(self.address, next_free);
        memory.set_word(self.address + 12, free_bytes);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    impl Words for BTreeMap<u32, u32> {
        fn word(&mut self, address: u32) -> u32 {
            self.get(&address).copied().unwrap_or(0)
        }

        fn set_word(&mut self, address: u32, value: u32) {
            self.insert(address, value);
        }
    }

    const HEAP: Heap = Heap { address: 0x6064_0000, top: 0x6780_0000 };

    /// Requests and replies of SC&MP 4.0.0 on a SpiNN-3 board (protocols reference, section 20.1).
    #[test]
    fn it_gives_out_what_the_monitor_does() {
        let mut memory = BTreeMap::new();
        HEAP.prepare(&mut memory);
        assert_eq!(HEAP.allocate(&mut memory, 1000, AppId(17), 5), Some(0x6064_0018));
        assert_eq!(HEAP.space(&mut memory), (0x071B_FBF0, 0x071B_FBF0));
        assert_eq!(HEAP.free(&mut memory, |block| block.owner() == Some((AppId(17), 5))), 1);
        assert_eq!(HEAP.blocks(&mut memory).len(), 1);
        let from_the_base = Heap { address: 0x6024_0000, ..HEAP };
        from_the_base.prepare(&mut memory);
        assert_eq!(from_the_base.space(&mut memory).1, 123_469_792);
    }

    #[test]
    fn a_heap_that_somebody_wrote_over_gives_nothing() {
        for junk in [0, 3, 0x6064_0008, 0x6780_0000, u32::MAX] {
            let mut memory = BTreeMap::new();
            HEAP.prepare(&mut memory);
            memory.insert(0x6064_0010, junk);
            assert_eq!(HEAP.allocate(&mut memory, 4, AppId(1), 0), None);
            assert_eq!((HEAP.space(&mut memory), HEAP.free(&mut memory, |_| true)), ((0, 0), 0));
        }
    }

    proptest! {
        #[test]
        fn blocks_never_overlap_and_all_come_back(sizes in prop::collection::vec((0u32..3000, any::<bool>()), 1..40)) {
            let mut memory = BTreeMap::new();
            let heap = Heap { address: 0xE500_1100, top: 0xE500_7000 };
            heap.prepare(&mut memory);
            let all = heap.space(&mut memory);
            let mut held: Vec<(u32, u32)> = Vec::new();
            for (bytes, free_first) in sizes {
                if free_first && let Some((address, _)) = held.pop() {
                    prop_assert_eq!(heap.free(&mut memory, |block| block.content() == address), 1);
                }
                if let Some(address) = heap.allocate(&mut memory, bytes, AppId(9), 0) {
                    prop_assert!(address.is_multiple_of(4) && address + bytes <= heap.top - 8);
                    prop_assert!(held.iter().all(|&(at, length)| address >= at + length || address + bytes <= at));
                    held.push((address, bytes));
                }
            }
            // What the header says is what the blocks say.
            let free: Vec<Block> = heap.blocks(&mut memory).into_iter().filter(|block| block.owner().is_none()).collect();
            prop_assert_eq!(memory.word(heap.address), free.first().map_or(0, |block| block.address));
            prop_assert_eq!(memory.word(heap.address + 12), free.iter().map(|block| block.bytes() + 8).sum::<u32>());
            heap.free(&mut memory, |_| true);
            prop_assert_eq!(heap.space(&mut memory), all);
        }
    }
}
