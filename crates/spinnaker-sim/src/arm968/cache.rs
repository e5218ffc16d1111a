//! The compiled blocks of a core, found by the address and state that they start in.

use std::sync::Arc;

use super::compile::{BLOCK_INSTRUCTIONS, Source, compile};
use super::op::Op;
use super::repeat::Repeat;
use super::state::{ITCM_BYTES, State};
use super::store::CodeStore;

/// Bytes of code that a block can come from.
const BLOCK_BYTES: u32 = BLOCK_INSTRUCTIONS as u32 * 4;
const WORDS: usize = ITCM_BYTES / 4;

/// A block of compiled code.
#[derive(Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Block {
    pub ops: Box<[Op]>,
    /// The instructions that it was compiled from.
    pub code: Box<[Source]>,
    pub repeat: Repeat,
    /// Address of the code after it.
    end: u32,
}

/// The blocks. Blocks are numbered from one.
#[derive(Debug, Default)]
pub(super) struct BlockCache {
    /// Number of the block that starts at each word in ARM state, then at each half-word in Thumb state; zero for none.
    /// Empty until the first block.
    numbers: Vec<u16>,
    blocks: Vec<Arc<Block>>,
    /// Numbers of blocks that are no longer.
    free: Vec<u16>,
    store: CodeStore,
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

    /// The block for code at an address of instruction memory (below its size), if there is one.
    pub fn find(&self, address: u32, thumb: bool) -> Option<&Block> {
        let number = *self.numbers.get(slot(address, thumb))?;
        self.blocks.get(usize::from(number).wrapping_sub(1)).map(|block| &**block)
    }

    /// Compiles the code at the program counter, which lies within instruction memory.
    #[cold]
    pub fn compile(&mut self, state: &mut State) {
        if self.numbers.is_empty() {
            self.numbers = vec![0; WORDS + ITCM_BYTES / 2];
        }
        let compiled = compile(&state.itcm, state.pc, state.thumb);
        let end = state.pc + compiled.bytes;
        for word in state.pc / 4..end.div_ceil(4) {
            state.code_words[word as usize / 64] |= 1 << (word % 64);
        }
        let block = Block { ops: compiled.ops.into(), code: compiled.code.into(), repeat: compiled.repeat, end };
        let block = self.store.share(block);
        let number = match self.free.pop() {
            Some(number) => {
                self.blocks[usize::from(number) - 1] = block;
                number
            }
            None => {
                self.blocks.push(block);
                self.blocks.len() as u16
            }
        };
        self.numbers[slot(state.pc, state.thumb)] = number;
    }

    /// Where the block that starts at the program counter ends; the program counter itself where none does.
    pub fn block_end(&mut self, state: &mut State) -> u32 {
        if state.pc >= ITCM_BYTES as u32 || !state.scoreboard.is_clear(state.cycles) {
            return state.pc;
        }
        if self.find(state.pc, state.thumb).is_none() {
            self.compile(state);
        }
        self.find(state.pc, state.thumb).map_or(state.pc, |block| block.end)
    }

    /// Drops the blocks that were compiled from words of instruction memory that have been written: those at offsets
    /// `low` to `high`.
    #[cold]
    pub fn invalidate(&mut self, state: &mut State, low: u32, high: u32) {
        let is_code = |word: u32| state.code_words[word as usize / 64] >> (word % 64) & 1 != 0;
        if !(low / 4..=high / 4).any(is_code) {
            return;
        }
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
        let number = self.numbers[slot];
        if number != 0 && self.blocks[usize::from(number) - 1].end > low {
            self.numbers[slot] = 0;
            self.blocks[usize::from(number) - 1] = Arc::default();
            self.free.push(number);
        }
    }
}
