//! The command list: what the compiler writes and the core executes.
//!
//! A list is data: versioned, little-endian 32-bit words. A command is a row of words; *patches* add
//! `register * scale` to words of the command just before it is executed, so that one command serves every turn of a
//! loop, and a list does not grow with the picture or the batch.
//!
//! Registers (32, all `u32`, wrapping arithmetic):
//!
//! | register | content |
//! | --- | --- |
//! | [`reg::ZERO`] | 0 |
//! | [`reg::SAMPLES`] | samples of this run on this chip |
//! | [`reg::FIRST_SAMPLE`] | number of the first of them in the whole batch |
//! | [`reg::SEED`] .. | two words of seed, then the step number |
//! | [`reg::loop_index`]`(d)` .. | registers of the loop at depth `d` (0, 1) |
//!
//! A loop at depth `d` counts `index = start, start + step, ..` below `total` and sets `SAMPLE = index / divisor`,
//! `BLOCK = index % divisor`, `PARITY` (0, 1, 0, ..: turn number modulo 2), and the same four for the *next* turn, and
//! `COUNT` (see [`reg::loop_count`]) of this turn and the next. Commands
//! marked [`When::First`] are executed in the first turn only, those marked [`When::Next`] only when there is
//! a next turn: with them a loop prefetches its next input while it computes.

use spidnn_kernels::KernelCall;

/// Register numbers.
pub mod reg {
    /// Always 0.
    pub const ZERO: u8 = 0;
    /// Samples of this run on this chip.
    pub const SAMPLES: u8 = 1;
    /// Number of this chip's first sample in the whole batch.
    pub const FIRST_SAMPLE: u8 = 2;
    /// Low word of the seed of this run (dropout).
    pub const SEED: u8 = 3;
    /// High word of the seed.
    pub const SEED_HIGH: u8 = 4;
    /// Number of the training step.
    pub const STEP: u8 = 5;
    /// Which of two input buffers holds this run's inputs (0 or 1).
    pub const INPUT_BUFFER: u8 = 6;
    /// Bits of the f32 number 1 / samples of the whole batch (batch statistics).
    pub const INVERSE_BATCH: u8 = 7;

    /// Index of the loop at depth 0 or 1; the seven registers that follow: SAMPLE, BLOCK, PARITY, then the
    /// same four of the next turn.
    pub const fn loop_index(depth: u8) -> u8 {
        8 + depth * 8
    }
    /// `index / divisor` of the loop.
    pub const fn loop_sample(depth: u8) -> u8 {
        9 + depth * 8
    }
    /// `index % divisor` of the loop.
    pub const fn loop_block(depth: u8) -> u8 {
        10 + depth * 8
    }
    /// Turn number modulo 2.
    pub const fn loop_parity(depth: u8) -> u8 {
        11 + depth * 8
    }
    /// Items of this turn of a loop over blocks of items: `min(total_divisor, total - index * total_divisor)`, `total` as
    /// it is before the division. The register after it holds the same of the next turn.
    pub const fn loop_count(depth: u8) -> u8 {
        24 + depth * 2
    }
    /// The register that holds the same of the next turn (for `loop_count`: the register after it).
    pub const fn next(register: u8) -> u8 {
        register + 4
    }
    /// 1 if what a program keeps in DTCM from run to run must be fetched anew, else 0.
    pub const FETCH_KEPT: u8 = 28;
    /// Number of registers.
    pub const COUNT: usize = 32;
}

/// When a command inside a loop is executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum When {
    /// In every turn.
    #[default]
    Always,
    /// In the first turn of the innermost loop only.
    First,
    /// Only if the innermost loop has a next turn.
    Next,
    /// In the last turn of the innermost loop only.
    Last,
}

/// Adds `register * scale` (wrapping) to word `word` of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patch {
    /// Word number: for a kernel the parameter (`spidnn_kernels::call::gemm::m`, ..), else a constant of this module.
    pub word: u8,
    /// Register number.
    pub register: u8,
    /// Factor.
    pub scale: i32,
}

/// DMA between SDRAM and DTCM with clamped rows: rows `first .. first + rows` are cut to `0 .. limit`; row `r` lies at
/// `sdram + r * sdram_stride` and at `dtcm + (r - first) * dtcm_stride`. Nothing happens when no row is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Dma {
    /// 0: SDRAM to DTCM, 1: DTCM to SDRAM.
    pub out: u32,
    /// Byte address of row 0 in SDRAM.
    pub sdram: u32,
    /// Byte offset in DTCM of row `first`.
    pub dtcm: u32,
    /// Bytes of a row.
    pub row_bytes: u32,
    /// First row.
    pub first: i32,
    /// Number of rows.
    pub rows: u32,
    /// Rows end here.
    pub limit: u32,
    /// Bytes from row to row in SDRAM.
    pub sdram_stride: u32,
    /// Bytes from row to row in DTCM.
    pub dtcm_stride: u32,
    /// Tag to wait for (0..16).
    pub tag: u32,
}

impl Dma {
    /// Adds to a word, as a patch does.
    pub fn add(&mut self, word: u8, value: u32) {
        let field = match word {
            0 => &mut self.out,
            dma::SDRAM => &mut self.sdram,
            dma::DTCM => &mut self.dtcm,
            dma::ROW_BYTES => &mut self.row_bytes,
            dma::FIRST => {
                self.first = self.first.wrapping_add(value as i32);
                return;
            }
            dma::ROWS => &mut self.rows,
            dma::LIMIT => &mut self.limit,
            7 => &mut self.sdram_stride,
            8 => &mut self.dtcm_stride,
            _ => &mut self.tag,
        };
        *field = field.wrapping_add(value);
    }
}

/// Word numbers of [`Dma`] for patches.
#[allow(missing_docs)]
pub mod dma {
    pub const SDRAM: u8 = 1;
    pub const DTCM: u8 = 2;
    pub const ROW_BYTES: u8 = 3;
    pub const FIRST: u8 = 4;
    pub const ROWS: u8 = 5;
    pub const LIMIT: u8 = 6;
    pub const TAG: u8 = 9;
}

/// A loop; its body follows. `total` is divided by `total_divisor`, rounding up, after patches; the index stays below that and
/// below `end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Loop {
    /// Depth (0 or 1): which registers it sets.
    pub depth: u32,
    /// First index.
    pub start: u32,
    /// Step of the index.
    pub step: u32,
    /// The index stays below this (patched: `SAMPLES * blocks`).
    pub total: u32,
    /// See above; 1 for none.
    pub total_divisor: u32,
    /// Divisor for SAMPLE and BLOCK.
    pub divisor: u32,
    /// The index stays below this whatever the total is; [`Loop::NO_END`] for none. So a core takes a range of what there is.
    pub end: u32,
}

impl Loop {
    /// Only the total ends the loop.
    pub const NO_END: u32 = u32::MAX;
}

/// Word numbers of [`Loop`] for patches.
#[allow(missing_docs)]
pub mod loops {
    pub const START: u8 = 1;
    pub const TOTAL: u8 = 3;
}

/// Vectors of f32 over the tree of replicas: sums towards the root, or copies from the root. Core `j` of every chip works
/// with core `j` of the neighbours in its tree; each has its own part of the vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Exchange {
    /// SDRAM byte address of this core's part, the same on every chip.
    pub sdram: u32,
    /// Words of the part.
    pub words: u32,
    /// DTCM byte offset of scratch space.
    pub scratch: u32,
    /// Bytes of scratch space: at least [`EXCHANGE_SCRATCH_BYTES`].
    pub scratch_bytes: u32,
    /// Cycles that a core lets pass after the router has taken a word before it sends the next ([`spacing_cycles`]); at most [`SPACING_CYCLES_MAX`].
    pub spacing_cycles: u32,
}

/// Cycles that a link within a board takes for a packet with payload: 250 ns (72/40 of the measured 139 ns of one without).
pub const LINK_CYCLES: u32 = 50;
/// The same for a link between boards: 643 ns (72/40 of the measured 357 ns).
pub const BOARD_LINK_CYCLES: u32 = 129;
/// Longest spacing of words: 18 cores of a chip over a link between boards come to less.
pub const SPACING_CYCLES_MAX: u32 = 4096;

/// Spacing of the words of an exchange in which `cores` cores of a chip send over one link, which takes a word in `link_cycles`.
///
/// Without it all of them stand before the router all the time, and what comes by the link behind them: of two routers that wait for each
/// other one drops a packet after 1.8 us, and its absence is noticed 0.2 ms later. A core needs `WORD_CYCLES` for a word besides, so the link
/// is busy.
pub const fn spacing_cycles(cores: u32, link_cycles: u32) -> u32 {
    (cores * link_cycles).saturating_sub(WORD_CYCLES)
}

/// Cycles of a core for a word of an exchange beyond the spacing: bringing, summing, sending and putting it away (measured on the firmware:
/// `cargo run --release -p spidnn --example runtime_truth`).
const WORD_CYCLES: u32 = 85;

/// Words of one block of a stream.
pub const STREAM_BLOCK_WORDS: u32 = 128;
/// Scratch that an [`Exchange`] needs: two own blocks, two sums, and two blocks for each of six children.
pub const EXCHANGE_SCRATCH_BYTES: u32 = (4 + 2 * 6) * STREAM_BLOCK_WORDS * 4;

/// One command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// A transfer between SDRAM and DTCM.
    Dma(Dma),
    /// Waits until the transfers with this tag are finished.
    Wait {
        /// The tag.
        tag: u32,
    },
    /// Runs a kernel.
    Kernel(KernelCall),
    /// Waits until every core of the chip that takes part is here.
    Barrier,
    /// Sums a vector over all replicas; the result is in the root's SDRAM. Order: own part, then the children's in
    /// ascending order, at each node of the tree.
    ReduceUp(Exchange),
    /// Copies a vector from the root's SDRAM to every replica's.
    BroadcastDown(Exchange),
}

/// Word number of the tag of [`Command::Wait`].
pub const WAIT_TAG: u8 = 0;

/// A command with its condition and patches, as the compiler builds it.
#[cfg(any(test, feature = "alloc", feature = "std"))]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// What.
    pub command: Command,
    /// When.
    pub when: When,
    /// Patches.
    pub patches: alloc::vec::Vec<Patch>,
}

/// A part of a command list: a command, or a loop around others.
#[cfg(any(test, feature = "alloc", feature = "std"))]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// A command.
    Do(Step),
    /// A loop with patches of its own words, and its body.
    Loop(Loop, alloc::vec::Vec<Patch>, alloc::vec::Vec<Item>),
}
