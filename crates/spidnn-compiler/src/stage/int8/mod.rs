//! Stages of the format `int8`: tensors of bytes in SDRAM, halves in local memory. Sums are exact, so nothing of a split
//! shows in the numbers.

pub mod conv;
pub mod dense;
pub mod maps;
pub mod pool;
mod tiles;

use spidnn_core::command::{Dma, Step};
use spidnn_kernels::KernelCall;
use spidnn_kernels::call::{Lookup8, PANEL_COLUMNS, Widen, lookup8};

use super::{CoreSlot, share};
use crate::CompileError;
use crate::emit::{Emit, StepExt, Tensor, run, words};

/// A tensor of bytes: rows of `values` bytes, each beginning at a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ByteTensor {
    /// Where; its words are those of a sample.
    pub tensor: Tensor,
    /// Rows of a sample.
    pub rows: u32,
    /// Bytes of a row that mean something.
    pub values: u32,
}

impl ByteTensor {
    /// Words of a sample with this form.
    pub fn words(rows: u32, values: u32) -> u32 {
        rows * values.div_ceil(4)
    }
    /// Words of a row.
    pub fn row_words(&self) -> u32 {
        self.values.div_ceil(4)
    }
    /// Bytes from row to row.
    pub fn row_bytes(&self) -> u32 {
        self.row_words() * 4
    }
}

/// Words of an activation's table.
pub const TABLE_WORDS: u32 = 64;

/// Weights of a product in SDRAM: panels of signed bytes, then the scales, then perhaps the table of an activation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ByteWeights {
    /// SDRAM address.
    pub address: u32,
    /// Halves of a sum.
    pub terms: u32,
    /// Outputs.
    pub outputs: u32,
    /// Whether there is a table.
    pub table: bool,
}

/// Where a slice of weights is in local memory.
#[derive(Debug, Clone, Copy)]
pub struct LocalWeights {
    /// Halves.
    pub w: u32,
    /// Scales.
    pub scales: u32,
    /// Table, if there is one.
    pub table: Option<u32>,
}

impl ByteWeights {
    /// Words of bytes of so many columns.
    fn raw_words(&self, columns: u32) -> u32 {
        (self.terms * columns).div_ceil(4)
    }
    /// Local memory for so many columns.
    pub fn local_bytes(&self, columns: u32) -> u32 {
        let words = 2 * self.raw_words(columns) + 2 * columns + if self.table { TABLE_WORDS } else { 0 };
        (words * 4).next_multiple_of(8)
    }

    /// Fetches columns `n0 .. n0 + columns` (`n0` the first of a panel) and widens them.
    pub fn fetch(&self, e: &mut Emit, core: CoreSlot, n0: u32, columns: u32) -> Result<LocalWeights, CompileError> {
        let at = match core.weights {
            Some(placed) => placed.at,
            None => e.alloc(self.local_bytes(columns))?,
        };
        let raw = self.raw_words(columns);
        let scales = at + 2 * raw * 4;
        let all_scales = self.address + self.raw_words(self.outputs) * 4;
        let mut transfers = vec![
            words(false, self.address + self.terms * n0, at + raw * 4, raw, 0),
            words(false, all_scales + n0 * 8, scales, 2 * columns, 0),
        ];
        let table = self.table.then_some(scales + 2 * columns * 4);
        if let Some(table) = table {
            transfers.push(words(false, all_scales + self.outputs * 8, table, TABLE_WORDS, 0));
        }
        let widen = run(Widen { src: at + raw * 4, dst: at, count: raw });
        e.fetch_weights_and(core.weights.map(|p| p.fetched), transfers, vec![widen]);
        Ok(LocalWeights { w: at, scales, table })
    }
}

/// The part `index` of `of` of some columns, cut between panels.
pub fn share_panels(columns: u32, index: u32, of: u32) -> (u32, u32) {
    let (first, panels) = share(columns.div_ceil(PANEL_COLUMNS), index, of);
    let start = (first * PANEL_COLUMNS).min(columns);
    (start, (panels * PANEL_COLUMNS).min(columns - start))
}

/// The step that takes results through a table, in place; `bytes` from buffer to buffer.
pub fn through_table(table: u32, y: u32, count: u32, parity: u8, bytes: u32) -> Step {
    run(Lookup8 { x: y, out: y, count, table }).at(lookup8::x, parity, bytes as i32).at(
        lookup8::out,
        parity,
        bytes as i32,
    )
}

/// Cycles of a call.
fn cycles(call: impl Into<KernelCall>) -> u64 {
    call.into().cycles()
}

/// Cycles around a unit: commands, and the latencies of transfers as far as nothing hides them.
const UNIT_CYCLES: u64 = 900;

/// How a product is split.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Split {
    /// Cores across columns.
    groups: u32,
    /// Columns at a time on a core.
    chunk: u32,
    /// Rows of a unit.
    block: u32,
    /// Buffers are double.
    double: bool,
}

impl Split {
    /// Units are dealt to so many cores.
    fn across(&self, core: CoreSlot) -> u32 {
        core.cores / self.groups
    }
}

/// The transfer with another limit.
fn limited(dma: Dma, first: i32, limit: u32) -> Dma {
    Dma { first, limit, ..dma }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_cut_between_panels() {
        for columns in [1, 4, 6, 10, 84, 120, 121] {
            for of in 1..18 {
                let mut next = 0;
                for i in 0..of {
                    let (start, length) = share_panels(columns, i, of);
                    assert!(length == 0 || start == next && start % PANEL_COLUMNS == 0);
                    next += length;
                }
                assert_eq!(next, columns);
            }
        }
    }
}
