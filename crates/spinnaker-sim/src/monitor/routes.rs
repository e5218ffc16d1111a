//! The monitor's copy of the multicast table, in which it keeps account of who has which entries (sark_alloc.c of
//! spinnaker_tools). It lies in SDRAM, where hosts read it, and can write it: walks have an end.

use spinnaker_machine::{Route, RoutingEntry};
use spinnaker_wire::AppId;
use spinnaker_wire::router::{COPY_ENTRIES, ENTRIES, ENTRY_BYTES, UNUSED_KEY, UNUSED_MASK, UNUSED_ROUTE};

use super::heap::Words;

/// In an entry's second half-word: the block is allocated, or the entry used.
const USED: u16 = 0x8000;
/// Entries 1 to 1023 are the users'.
const FIRST: u16 = 1;

/// The table at its address.
#[derive(Debug, Clone, Copy)]
pub(super) struct RouteTable {
    pub address: u32,
}

/// A block of entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Block {
    first: u16,
    next: u16,
    owner: Option<AppId>,
}

impl RouteTable {
    fn entry(self, index: u16) -> u32 {
        self.address + u32::from(index) * ENTRY_BYTES as u32
    }

    fn links(self, memory: &mut impl Words, index: u16) -> (u16, u16) {
        let word = memory.word(self.entry(index));
        (word as u16, (word >> 16) as u16)
    }

    fn set_links(self, memory: &mut impl Words, index: u16, next: u16, free: u16) {
        memory.set_word(self.entry(index), u32::from(next) | u32::from(free) << 16);
    }

    /// Writes an entry: virtual cores in the route.
    pub fn set(self, memory: &mut impl Words, index: u16, entry: RoutingEntry, app: AppId) {
        let (next, _) = self.links(memory, index);
        self.set_links(memory, index, next, USED | u16::from(app.0));
        for (offset, value) in [(4, entry.route.0), (8, entry.key), (12, entry.mask)] {
            memory.set_word(self.entry(index) + offset, value);
        }
    }

    fn clear_entry(self, memory: &mut impl Words, index: u16) {
        for (offset, value) in [(4, UNUSED_ROUTE), (8, UNUSED_KEY), (12, UNUSED_MASK)] {
            memory.set_word(self.entry(index) + offset, value);
        }
    }

    /// Clears a range of entries; false for one that is not all in the table.
    pub fn clear(self, memory: &mut impl Words, first: u32, count: u32) -> bool {
        let Some(end) = first.checked_add(count).filter(|end| *end <= u32::from(ENTRIES)) else { return false };
        (first..end).for_each(|index| self.clear_entry(memory, index as u16));
        true
    }

    /// Nothing in it, and all of it free. The number of the first free block (`sv.rtr_free`).
    pub fn prepare(self, memory: &mut impl Words) -> u16 {
        for index in 0..COPY_ENTRIES {
            self.set_links(memory, index, 0, 0);
            self.clear_entry(memory, index);
        }
        self.lay_out(memory, &[Block { first: FIRST, next: ENTRIES, owner: None }])
    }

    fn blocks(self, memory: &mut impl Words) -> Vec<Block> {
        let mut blocks = Vec::new();
        let mut first = FIRST;
        while first < ENTRIES {
            let (next, free) = self.links(memory, first);
            if next <= first || next > ENTRIES {
                return Vec::new();
            }
            let owner = (free & USED != 0).then_some(AppId(free as u8));
            blocks.push(Block { first, next, owner });
            first = next;
        }
        blocks
    }

    fn lay_out(self, memory: &mut impl Words, blocks: &[Block]) -> u16 {
        let mut next_free = 0;
        for block in blocks.iter().rev() {
            match block.owner {
                Some(app) => self.set_links(memory, block.first, block.next, USED | u16::from(app.0)),
                None => {
                    self.set_links(memory, block.first, block.next, next_free);
                    next_free = block.first;
                }
            }
        }
        next_free
    }

    /// Entries of the largest free block.
    pub fn largest(self, memory: &mut impl Words) -> u16 {
        let blocks = self.blocks(memory);
        blocks.iter().filter(|block| block.owner.is_none()).map(|block| block.next - block.first).max().unwrap_or(0)
    }

    /// Takes entries in a row: the first of them, and the new first free block.
    pub fn allocate(self, memory: &mut impl Words, count: u32, app: AppId) -> Option<(u16, u16)> {
        let count = u16::try_from(count).ok().filter(|count| *count > 0)?;
        let mut blocks = self.blocks(memory);
        let at = blocks.iter().position(|block| block.owner.is_none() && block.next - block.first >= count)?;
        let Block { first, next, .. } = blocks[at];
        blocks[at] = Block { first, next: first + count, owner: Some(app) };
        if first + count < next {
            blocks.insert(at + 1, Block { first: first + count, next, owner: None });
        }
        Some((first, self.lay_out(memory, &blocks)))
    }

    /// Frees blocks, and clears their entries if wanted: how many they were, and the new first free block.
    pub fn free(self, memory: &mut impl Words, clear: bool, which: impl Fn(u16, AppId) -> bool) -> (u32, u16) {
        let mut layout: Vec<Block> = Vec::new();
        let mut freed = 0;
        for mut block in self.blocks(memory) {
            if block.owner.is_some_and(|app| which(block.first, app)) {
                block.owner = None;
                freed += 1;
                if clear {
                    (block.first..block.next).for_each(|index| self.clear_entry(memory, index));
                }
            }
            match layout.last_mut() {
                Some(before) if before.owner.is_none() && block.owner.is_none() => before.next = block.next,
                _ => layout.push(block),
            }
        }
        (freed, self.lay_out(memory, &layout))
    }

    /// The users' entries that are in use, in order; cores by their virtual numbers.
    pub fn used(self, memory: &mut impl Words) -> Vec<RoutingEntry> {
        let mut entries = Vec::new();
        for index in FIRST..ENTRIES {
            let route = memory.word(self.entry(index) + 4);
            if route < UNUSED_ROUTE {
                let (key, mask) = (memory.word(self.entry(index) + 8), memory.word(self.entry(index) + 12));
                entries.push(RoutingEntry { key, mask, route: Route(route & 0x00FF_FFFF) });
            }
        }
        entries
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    const TABLE: RouteTable = RouteTable { address: 0x6788_0020 };

    #[test]
    fn blocks_of_entries_are_given_out_and_come_back() {
        let mut memory = BTreeMap::new();
        assert_eq!(TABLE.prepare(&mut memory), 1);
        assert_eq!(TABLE.largest(&mut memory), 1023);
        assert_eq!(TABLE.allocate(&mut memory, 10, AppId(17)), Some((1, 11)));
        assert_eq!(TABLE.allocate(&mut memory, 5, AppId(18)), Some((11, 16)));
        assert_eq!(TABLE.allocate(&mut memory, 1009, AppId(18)), None);
        assert_eq!(TABLE.allocate(&mut memory, 0, AppId(18)), None);
        let entry = RoutingEntry { key: 0x100, mask: 0xFFFF_FF00, route: Route(0x81) };
        TABLE.set(&mut memory, 3, entry, AppId(17));
        TABLE.set(&mut memory, 12, entry, AppId(18));
        assert_eq!(TABLE.used(&mut memory), [entry, entry]);
        assert_eq!(TABLE.free(&mut memory, true, |_, app| app == AppId(17)), (1, 1));
        assert_eq!(TABLE.used(&mut memory), [entry]);
        assert_eq!(TABLE.free(&mut memory, true, |first, _| first == 11), (1, 1));
        assert_eq!((TABLE.largest(&mut memory), TABLE.used(&mut memory)), (1023, vec![]));
    }

    #[test]
    fn a_table_that_somebody_wrote_over_gives_nothing() {
        let mut memory = BTreeMap::new();
        TABLE.prepare(&mut memory);
        memory.insert(TABLE.entry(1), 0x0001_0001);
        assert_eq!(TABLE.allocate(&mut memory, 1, AppId(1)), None);
        assert_eq!((TABLE.largest(&mut memory), TABLE.free(&mut memory, true, |_, _| true)), (0, (0, 0)));
        assert!(TABLE.clear(&mut memory, 1000, 24) && !TABLE.clear(&mut memory, 1000, 25));
        assert!(!TABLE.clear(&mut memory, u32::MAX, 2));
    }
}
