//! Stages: a layer's forward or backward part, split over the cores of a chip. Every stage ends at a barrier.
//!
//! Block sizes that decide about numbers (terms of a sum, rows that share an exponent) depend on the layer's shape alone,
//! never on cores or chips; everything else is chosen for speed.

pub mod conv;
pub mod dense;
pub mod elementwise;
pub mod norm;
pub mod pool;
pub mod update;

use spidnn_kernels::Activation;

use crate::CompileError;
use crate::emit::Emit;

/// Which core a command list is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CoreSlot {
    /// Position among the cores of the chip that take part.
    pub slot: u32,
    /// How many they are.
    pub cores: u32,
    /// Samples that the chip takes in one run.
    pub samples_max: u32,
    /// Whether the chip is the root of the replicas.
    pub root: bool,
    /// Where this stage keeps its weights from run to run (see [`Stage::kept_bytes`]), and where local memory for buffers ends.
    pub kept: Option<Kept>,
}

/// A place for weights that stay in local memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kept {
    /// DTCM offset of the stage's weights.
    pub at: u32,
    /// End of the memory for buffers: what lies above belongs to the weights of all stages.
    pub buffers_end: u32,
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
    /// Bytes of weights that the stage could keep in local memory from run to run; 0 if it cannot.
    fn kept_bytes(&self, core: CoreSlot) -> u32 {
        let _ = core;
        0
    }
    /// The commands of one core.
    fn emit(&self, core: CoreSlot) -> Result<Emit, CompileError>;
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
