//! A piece of memory that is being written: which of its blocks are there.

use crate::device::Register;
use crate::memory::{BLOCK_BYTES, BLOCK_WORDS, WINDOW_BITS};

/// Blocks that may be under way.
pub const BLOCKS: u32 = 512;
/// Words of the bitmap that is reported.
pub const DONE_WORDS: usize = BLOCKS as usize / 32;

/// See the module. Before the first transfer it has no words.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Number of the transfer.
    pub transfer: u32,
    /// Where it is written, and how many words.
    pub address: u32,
    /// See `address`.
    pub words: u32,
    /// All blocks before this one are there.
    pub first: u32,
}

fn bits(block: u32, half: u32) -> Register {
    Register::at(WINDOW_BITS + 8 * (block % BLOCKS) + 4 * half)
}

impl Window {
    /// One that takes nothing.
    pub const EMPTY: Window = Window { transfer: 0, address: 0, words: 0, first: 0 };

    /// A new one, of which nothing is there. Nothing must be on its way.
    pub fn new(transfer: u32, address: u32, words: u32) -> Window {
        for word in 0..2 * BLOCKS {
            Register::at(WINDOW_BITS + 4 * word).write(0);
        }
        Window { transfer, address, words, first: 0 }
    }

    /// How many blocks there are.
    pub fn blocks(&self) -> u32 {
        self.words.div_ceil(BLOCK_WORDS)
    }

    /// Words of a block.
    pub fn words_of(&self, block: u32) -> u32 {
        (self.words - (BLOCK_WORDS * block).min(self.words)).min(BLOCK_WORDS)
    }

    /// Whether a block may come.
    pub fn takes(&self, block: u32) -> bool {
        block >= self.first && block - self.first < BLOCKS && block < self.blocks()
    }

    /// Where the block goes.
    pub fn address_of(&self, block: u32) -> u32 {
        self.address + BLOCK_BYTES * block
    }

    /// Moves on: the blocks before `first` are there.
    pub fn advance(&mut self, first: u32) {
        let first = first.min(self.blocks());
        if first > self.first {
            for block in self.first..first.min(self.first + BLOCKS) {
                bits(block, 0).write(0);
                bits(block, 1).write(0);
            }
            self.first = first;
        }
    }

    /// A block is there.
    pub fn set_done(&self, block: u32) {
        bits(block, 0).write(u32::MAX);
        bits(block, 1).write(u32::MAX);
    }

    /// Takes nothing any more if all is there, by a bitmap that begins with block `first`: what comes late must not be written over what
    /// others have written since.
    pub fn close_if_done(&mut self, first: u32, done: &[u32]) {
        let bit =
            |block: u32| done.get((block % BLOCKS / 32) as usize).is_some_and(|word| word >> (block % 32) & 1 != 0);
        let blocks = self.blocks();
        if first <= blocks && blocks - first <= BLOCKS && (first..blocks).all(bit) {
            self.first = blocks;
        }
    }

    /// Where the handler has to put the words of its packets: base and first address.
    pub fn place(&self) -> (u32, u32) {
        (self.address_of(self.first & !(BLOCKS - 1)), self.address_of(self.first))
    }

    /// A bit for each block that is there, by its number modulo [`BLOCKS`].
    pub fn done(&self) -> [u32; DONE_WORDS] {
        let mut done = [0; DONE_WORDS];
        let end = self.blocks().min(self.first + BLOCKS);
        for block in self.first..end {
            let there = match self.words_of(block) {
                BLOCK_WORDS => bits(block, 0).read() & bits(block, 1).read() == u32::MAX,
                words => is_full([bits(block, 0).read(), bits(block, 1).read()], words),
            };
            if there {
                done[(block % BLOCKS / 32) as usize] |= 1 << (block % 32);
            }
        }
        done
    }
}

/// Whether the first words of a block are all there.
pub fn is_full(bits: [u32; 2], words: u32) -> bool {
    let wanted = |from: u32| match words.saturating_sub(from) {
        0 => 0,
        count => u32::MAX >> (32 - count.min(32)),
    };
    !bits[0] & wanted(0) == 0 && !bits[1] & wanted(32) == 0
}
