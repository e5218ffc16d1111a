//! The compiled blocks of a core, found by the address and state that they start in.

use std::sync::Arc;

use super::beat::Beat;
use super::compile::{BLOCK_INSTRUCTIONS, Source, compile};
use super::op::Op;
use super::repeat::Repeat;
use super::state::{ITCM_BYTES, State};
use super::store::CodeStore;

/// Bytes of code that a block can come from.
const BLOCK_BYTES: u32 = BLOCK_INSTRUCTIONS as u32 * 4;
const WORDS: usize = ITCM_BYTES / 4;
/// Places where a block can start: each word in ARM state, then each half-word in Thumb state.
pub(super) const SLOTS: usize = WORDS + ITCM_BYTES / 2;

/// A block of compiled code.
#[derive(Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Block {
    pub ops: Arc<[Op]>,
    /// The instructions that it was compiled from.
    pub code: Box<[Source]>,
    pub repeat: Repeat,
    /// Address of the code after it.
    end: u32,
}

/// A block as it is found: its operations are one step away.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub ops: Arc<[Op]>,
    pub block: Arc<Block>,
}

impl From<Arc<Block>> for Entry {
    fn from(block: Arc<Block>) -> Self {
        Self { ops: Arc::clone(&block.ops), block }
    }
}

/// The blocks. Blocks are numbered from one.
#[derive(Debug, Default)]
pub(super) struct BlockCache {
    /// Bit per place: the block there is that of the store's table. (The table is the same memory for all cores, so that the
    /// host's caches hold it once.) Empty until the first block.
    in_table: Vec<u64>,
    /// Number of the block at each place; zero for none. Empty until the first block that the table has not.
    numbers: Vec<u16>,
    blocks: Vec<Entry>,
    /// Numbers of blocks that are no longer.
    free: Vec<u16>,
    store: CodeStore,
    /// How often code was written.
    version: u64,
}

/// Place of a block's number.
fn slot(address: u32, thumb: bool) -> usize {
    if thumb { WORDS + address as usize / 2 } else { address as usize / 4 }
}

impl BlockCache {
    /// A cache without blocks, whose blocks will come from a store.
    pub fn new(store: CodeStore) -> Self {
        Self { store, ..Self::default() }
    }

    /// Keeps a beat that was recorded, with words of instruction memory (offsets) that it read.
    pub fn keep(&mut self, state: &mut State, beat: Beat, literals: &[u32]) -> Arc<Beat> {
        literals.iter().for_each(|&offset| state.mark_code(offset));
        self.store.share_beat(beat)
    }

    /// How often code was written that there were blocks of.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The block for code at an address of instruction memory (below its size), if there is one.
    pub fn find(&self, address: u32, thumb: bool) -> Option<&Entry> {
        self.at(slot(address, thumb))
    }

    fn at(&self, slot: usize) -> Option<&Entry> {
        if self.is_in_table(slot) {
            return self.store.table()?.get(slot)?.get();
        }
        let number = *self.numbers.get(slot)?;
        self.blocks.get(usize::from(number).wrapping_sub(1))
    }

    fn is_in_table(&self, slot: usize) -> bool {
        self.in_table.get(slot / 64).is_some_and(|bits| bits >> (slot % 64) & 1 != 0)
    }

    /// Compiles the code at the program counter, which lies within instruction memory.
    #[cold]
    pub fn compile(&mut self, state: &mut State) {
        let compiled = compile(&state.itcm, state.pc, state.thumb);
        let end = state.pc + compiled.bytes;
        for word in state.pc / 4..end.div_ceil(4) {
            state.code_words[word as usize / 64] |= 1 << (word % 64);
        }
        let block = Block { ops: compiled.ops.into(), code: compiled.code.into(), repeat: compiled.repeat, end };
        let block = self.store.share(block);
        let slot = slot(state.pc, state.thumb);
        if let Some(table) = self.store.table()
            && Arc::ptr_eq(&table[slot].get_or_init(|| Arc::clone(&block).into()).block, &block)
        {
            self.in_table.resize(SLOTS.div_ceil(64), 0);
            self.in_table[slot / 64] |= 1 << (slot % 64);
            return;
        }
        self.numbers.resize(SLOTS, 0);
        self.numbers[slot] = match self.free.pop() {
            Some(number) => {
                self.blocks[usize::from(number) - 1] = block.into();
                number
            }
            None => {
                self.blocks.push(block.into());
                self.blocks.len() as u16
            }
        };
    }

    /// Where the block that starts at the program counter ends; the program counter itself where none does.
    pub fn block_end(&mut self, state: &mut State) -> u32 {
        if state.pc >= ITCM_BYTES as u32 || !state.scoreboard.is_clear(state.cycles) {
            return state.pc;
        }
        if self.find(state.pc, state.thumb).is_none() {
            self.compile(state);
        }
        self.find(state.pc, state.thumb).map_or(state.pc, |entry| entry.block.end)
    }

    /// Whether compiled code would go on with another block after an instruction of the block at `start`, which took so many
    /// cycles: it waited for its data, and a later one's stall depends on that.
    pub fn splits_after(&self, start: u32, thumb: bool, address: u32, cycles: u64) -> bool {
        let index = address.wrapping_sub(start) >> if thumb { 1 } else { 2 };
        let entry = if start < ITCM_BYTES as u32 { self.find(start, thumb) } else { None };
        let mut ops = entry.iter().flat_map(|entry| entry.ops.iter()).filter(|op| op.index() == index);
        ops.any(|op| op.is_wait_sensitive() && op.cycles > 0 && cycles > u64::from(op.cycles))
    }

    /// Drops the blocks that were compiled from words of instruction memory that have been written: those at offsets
    /// `low` to `high`.
    #[cold]
    pub fn invalidate(&mut self, state: &mut State, low: u32, high: u32) {
        let is_code = |word: u32| state.code_words[word as usize / 64] >> (word % 64) & 1 != 0;
        if !(low / 4..=high / 4).any(is_code) {
            return;
        }
        self.version += 1;
        let first = low.saturating_sub(BLOCK_BYTES);
        for address in (first..=high | 3).step_by(2) {
            self.drop_block(slot(address, true), low);
            if address % 4 == 0 {
                self.drop_block(slot(address, false), low);
            }
        }
        for word in low / 4..=high / 4 {
            state.code_words[word as usize / 64] &= !(1 << (word % 64));
        }
    }

    /// Drops a block that starts before the end of what was written and reaches beyond its start.
    fn drop_block(&mut self, slot: usize, low: u32) {
        if self.at(slot).is_none_or(|entry| entry.block.end <= low) {
            return;
        }
        if self.is_in_table(slot) {
            self.in_table[slot / 64] &= !(1 << (slot % 64));
            return;
        }
        let number = std::mem::take(&mut self.numbers[slot]);
        self.blocks[usize::from(number) - 1] = Arc::<Block>::default().into();
        self.free.push(number);
    }
}
