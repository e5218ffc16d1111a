//! Stages: a layer's forward or backward part, split over the cores of a chip. Stages that
//! need nothing of each other form a phase, and every phase ends at a barrier.
//!
//! Block sizes that decide about numbers (terms of a sum, rows that share an exponent) depend on the layer's shape alone,
//! never on cores or chips; everything else is chosen for speed.

pub mod conv;
pub mod dense;
pub mod elementwise;
pub mod int8;
pub mod norm;
pub mod phase;
pub mod pool;
pub mod update;

use spidnn_kernels::call::{Gemm, GemmHalf, Prep2d, PrepHalf};
use spidnn_kernels::{Activation, KernelCall};

use crate::CompileError;
use crate::emit::{BUFFER_BYTES, Emit};

/// Which core a command list is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CoreSlot {
    /// Position among the cores of the chip that take part.
    pub slot: u32,
    /// How many they are.
    pub cores: u32,
    /// Samples that the chip takes in one run.
    pub samples_max: u32,
    /// Whether the chip is the root of the replicas.
    pub root: bool,
    /// What is computed of samples that a run does not have is looked at by nobody: so where a chip takes one sample, commands need not ask
    /// whether it is there.
    pub unasked: bool,
    /// Where the stage's weights are fetched to before it begins, if they are (see [`Stage::weight_bytes`]).
    pub weights: Option<Weights>,
    /// DTCM offsets between which the stage has its buffers.
    pub buffers: (u32, u32),
}

impl CoreSlot {
    /// A core with all of the memory for buffers.
    pub fn new(slot: u32, cores: u32, samples_max: u32, root: bool) -> CoreSlot {
        CoreSlot { slot, cores, samples_max, root, unasked: false, weights: None, buffers: (0, BUFFER_BYTES) }
    }

    /// Bytes for buffers.
    pub fn buffer_bytes(&self) -> u32 {
        self.buffers.1 - self.buffers.0
    }
}

/// A place for weights outside of the memory for buffers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Weights {
    /// DTCM offset.
    pub at: u32,
    /// When they come there.
    pub fetched: Fetched,
}

/// When weights come to local memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fetched {
    /// Once: they stay from run to run.
    Kept,
    /// While the phase before is computed; the tag to wait for.
    Ahead(u32),
}

/// A part of a program that all cores of a chip do together.
pub trait Stage: std::fmt::Debug {
    /// Name of the layer.
    fn layer(&self) -> &str;
    /// What the stage does, for reports.
    fn what(&self) -> &'static str;
    /// The kernel that does the work and how it is split.
    fn kernel(&self, core: CoreSlot) -> String;
    /// Multiply-accumulates of one sample.
    fn macs_per_sample(&self) -> u64 {
        0
    }
    /// Bytes of weights that could be fetched before the stage begins; 0 if there are none, or it fetches them piece by piece.
    fn weight_bytes(&self, core: CoreSlot) -> u32 {
        let _ = core;
        0
    }
    /// Whether the fetched weights stay as they are, so that they can stay from run to run.
    fn keeps_weights(&self) -> bool {
        false
    }
    /// The commands of one core.
    fn emit(&self, core: CoreSlot) -> Result<Emit, CompileError>;
    /// The commands of one core beside other stages of its phase, which keep each slot busy for some time already. Stages that
    /// deal whole units let the least busy core begin; what a stage computes must not depend on who does.
    fn emit_beside(&self, core: CoreSlot, busy_cycles: &[u64]) -> Result<Emit, CompileError> {
        self.emit(CoreSlot { slot: phase::rank(core.slot, busy_cycles), ..core })
    }
}

/// What the operands of a product are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mantissas {
    /// A word each (format `f32`).
    Words,
    /// Two to a word (format `bfp16`).
    Halves,
}

impl Mantissas {
    /// Words of so many.
    pub fn words(self, count: u32) -> u32 {
        match self {
            Mantissas::Words => count,
            Mantissas::Halves => count.div_ceil(2),
        }
    }

    /// Blocks of at most `limit` of `terms` terms that share exponents, each beginning at a word: start and length.
    pub fn blocks(self, terms: u32, limit: u32) -> Vec<(u32, u32)> {
        match self {
            Mantissas::Words => blocks(terms, limit),
            Mantissas::Halves => blocks(terms.div_ceil(2), (limit / 2).max(1))
                .into_iter()
                .map(|(first, words)| (2 * first, (2 * words).min(terms - 2 * first)))
                .collect(),
        }
    }

    /// Brings a matrix to mantissas, halves joined down the columns of every `pair_rows` rows, or (0) along the rows; strides of the
    /// result count words.
    pub fn prepare(self, call: Prep2d, pair_rows: u32) -> KernelCall {
        match self {
            Mantissas::Words => call.into(),
            Mantissas::Halves => {
                let Prep2d { src, rows, cols, src_stride, dst, dst_row_stride, dst_col_stride, exps, axis } = call;
                PrepHalf { src, rows, cols, src_stride, dst, dst_row_stride, dst_col_stride, exps, axis, pair_rows }
                    .into()
            }
        }
    }

    /// A product of matrices with `k` terms; strides count words.
    pub fn multiply(self, call: Gemm) -> KernelCall {
        match self {
            Mantissas::Words => call.into(),
            Mantissas::Halves => {
                let Gemm { a, a_exps, a_stride, b, b_exps, b_stride, c, c_stride, m, k, n, accumulate } = call;
                GemmHalf { a, a_exps, a_stride, b, b_exps, b_stride, c, c_stride, m, k, n, accumulate }.into()
            }
        }
    }
}

/// An activation fused into a stage.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FusedActivation {
    /// Which.
    pub kind: Activation,
    /// Its parameter.
    pub alpha: f32,
}

impl FusedActivation {
    /// None.
    pub const LINEAR: FusedActivation = FusedActivation { kind: Activation::Linear, alpha: 0.0 };
}

/// The part `index` of `of` balanced contiguous parts of `0 .. total`: start and length.
pub fn share(total: u32, index: u32, of: u32) -> (u32, u32) {
    let small = total / of;
    let extra = total % of;
    let start = index * small + index.min(extra);
    (start, small + u32::from(index < extra))
}

/// The same with parts of even length where there are enough for all: the kernels work on pairs of columns.
pub fn share_pairs(total: u32, index: u32, of: u32) -> (u32, u32) {
    if total < 2 * of {
        return share(total, index, of);
    }
    let (first, pairs) = share(total.div_ceil(2), index, of);
    (first * 2, (pairs * 2).min(total - first * 2))
}

/// Cuts `total` terms into the fewest equal blocks of at most `limit`: start and length of each.
pub fn blocks(total: u32, limit: u32) -> Vec<(u32, u32)> {
    let count = total.div_ceil(limit).max(1);
    (0..count).map(|i| share(total, i, count)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_cover_everything_once() {
        for deal in [share, share_pairs] {
            for total in [0, 1, 5, 16, 17, 100, 101] {
                for of in 1..20 {
                    let mut next = 0;
                    for i in 0..of {
                        let (start, length) = deal(total, i, of);
                        assert_eq!(start, next);
                        next += length;
                    }
                    assert_eq!(next, total);
                }
            }
        }
        assert_eq!(blocks(1000, 512), vec![(0, 500), (500, 500)]);
    }
}
