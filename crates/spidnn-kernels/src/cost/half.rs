//! Cycles of the kernels on halves (format `bfp16`), by hand counts: no core has measured them yet.

use super::{CALL, runs};
use crate::block::Axis;
use crate::call::{Conv, ConvWgrad, Gemm, PrepConvBackwardHalf, PrepHalf, PrepWindowHalf};

/// Rounding and storing a finished sum (see the parent module), and clearing the accumulator before.
const FINISH: u64 = 29;
/// Addition of a finished sum to what is there.
const F32_ADD: u64 = 28;
/// Around a tile: operand pointers (8), registers that the finish needs spilled and filled (STM 4, LDM 4), loop (4).
const TILE: u64 = 20;
/// Around a segment of terms inside a tile: pointers of both sides (4), jump into the unrolled loop (ADD PC: 1 + 3), end of
/// the segments (2).
const SEGMENT: u64 = 10;
/// Terms in one turn of the unrolled loops.
const UNROLL: u64 = 16;
/// End of a turn: LDR of the end from a literal (2) into an operand's register, stall (1), CMP (1), taken branch (3).
const TURN: u64 = 7;

/// Inner loops, cycles for one term. The accumulators take two registers each; LDR offsets and steps are immediate
/// (the kernel writes its strides into the loop before it starts: 16 turns, two or three stores of 2 cycles each, [`PATCH`]).
///
/// ```text
/// 2x2, registers: 8 accumulators, 2 pointers, 4 operands = 14
///   ldr a1, [pa, #row]     1        smlalbb, smlaltt c00, a0, b0    4
///   ldr b1, [pb, #4]       1        smlalbb, smlaltt c01, a0, b1    4
///   ldr a0, [pa], #step    1        smlalbb, smlaltt c10, a1, b0    4
///   ldr b0, [pb], #stride  1        smlalbb, smlaltt c11, a1, b1    4     = 20
/// ```
/// (`c11` goes first: its operands have been there for two instructions; the last load is used last.)
///
/// SMLALBB and SMLALTT take 2 each, without a stall into the next. Where a word holds two rows or columns, not two terms (the gradient of a convolution's weights), a 2x2 tile takes two loads and one SMLALxy for each output: 10 cycles.
#[derive(Clone, Copy)]
struct Tile {
    rows: u64,
    columns: u64,
    kind: Kind,
}

/// What the words of an inner loop are.
#[derive(Clone, Copy)]
enum Kind {
    PairsOfTerms,
    PairsOfOutputs,
}

impl Tile {
    /// Loads and SMLALs.
    const fn term(self) -> u64 {
        match self.kind {
            Kind::PairsOfTerms => self.rows + self.columns + 4 * self.outputs(),
            Kind::PairsOfOutputs => self.rows.div_ceil(2) + self.columns.div_ceil(2) + 2 * self.outputs(),
        }
    }
    const fn outputs(self) -> u64 {
        self.rows * self.columns
    }
    /// One segment.
    fn segment(self, terms: u64) -> u64 {
        if terms == 0 { 0 } else { SEGMENT + self.term() * terms + TURN * terms.div_ceil(UNROLL) }
    }
}

const PATCH: u64 = UNROLL * 3 * 2;

/// All outputs of a set of rows over the same segments: `sum` gives the cycles of one tile's segments. Pairs of rows are
/// taken 2x2 (a last column 2x1), single rows 1x3 (a remainder 1x2 or 1x1).
fn tiles(kind: Kind, pairs: u64, singles: u64, columns: u64, output: u64, sum: impl Fn(Tile) -> u64) -> u64 {
    let cost = |rows, columns| {
        let tile = Tile { rows, columns, kind };
        TILE + sum(tile) + tile.outputs() * output
    };
    let mut cycles = 0;
    if pairs > 0 {
        cycles += pairs * (columns / 2 * cost(2, 2) + if columns % 2 == 1 { cost(2, 1) } else { 0 });
    }
    if singles > 0 {
        cycles +=
            singles * (columns / 3 * cost(1, 3) + if !columns.is_multiple_of(3) { cost(1, columns % 3) } else { 0 });
    }
    cycles
}

/// Cycles of [`Gemm`]; `k` counts words.
pub fn gemm(call: &Gemm) -> u64 {
    let (m, k, n) = (u64::from(call.m), u64::from(call.k), u64::from(call.n));
    if m == 0 || n == 0 {
        return CALL;
    }
    let output = FINISH + if call.accumulate != 0 { F32_ADD } else { 0 };
    CALL + PATCH + tiles(Kind::PairsOfTerms, m / 2, m % 2, n, output, |tile| tile.segment(k))
}

/// Cycles of [`Conv`]: tiles of two pixels of a row that have the same taps inside the picture; a segment for each `ky`, where
/// the taps of a row lie together (no groups, dilation or `up`), else for each tap.
pub fn conv(call: &Conv, y: &Axis, x: &Axis) -> u64 {
    let output = FINISH + if call.accumulate != 0 { F32_ADD } else { 0 };
    let together = call.dilation_x == 1 && call.up_x == 1 && call.ci_group == call.in_c;
    // Channels of one group share a tile.
    let columns = u64::from(call.co_tile.min(call.co_group));
    let groups = u64::from(call.co_tile).div_ceil(columns);
    let mut cycles = CALL + PATCH;
    let end = call.oy_end();
    runs(x, 0, call.out_w, |pixels, taps_x| {
        runs(y, call.oy0, end, |rows, taps_y| {
            let (segments, terms) = if together {
                (taps_y, taps_x * u64::from(call.ci_group))
            } else {
                (taps_y * taps_x, u64::from(call.ci_group))
            };
            // Every row of outputs: window pointers and which taps are inside, 20 cycles a run.
            let sum = |tile: Tile| segments * tile.segment(terms);
            let row = 20 + groups * tiles(Kind::PairsOfTerms, pixels / 2, pixels % 2, columns, output, sum);
            cycles += rows * row;
        });
    });
    cycles
}

/// Cycles of [`ConvWgrad`]: tiles of two rows of weights (taps and channels) with the same pixels inside, a segment
/// for each row of pixels.
pub fn conv_wgrad(call: &ConvWgrad, y: &Axis, x: &Axis) -> u64 {
    let kind = Kind::PairsOfOutputs;
    let output = FINISH + F32_ADD;
    let inside = |axis: &Axis, k: u32, first: u32, end: u32| {
        // Outputs whose input at this tap exists: as of an axis with this tap alone.
        (first..end).filter(|&o| axis.input_of(o, k).is_some()).count() as u64
    };
    let mut cycles = CALL + PATCH;
    for ky in 0..call.kh {
        let rows = inside(y, ky, call.oy0, call.oy_end());
        let mut kx = 0;
        while kx < call.kw {
            // Neighbouring taps that see every pixel share tiles; others differ in their pixels.
            let pixels = inside(x, kx, 0, call.out_w);
            let mut taps = 1;
            while pixels == u64::from(call.out_w)
                && kx + taps < call.kw
                && inside(x, kx + taps, 0, call.out_w) == pixels
            {
                taps += 1;
            }
            let weights = u64::from(taps) * u64::from(call.ci_tile);
            let sum = |tile: Tile| rows * tile.segment(pixels);
            cycles += 20 + tiles(kind, weights / 2, weights % 2, call.co_tile.into(), output, sum);
            kx += taps;
        }
    }
    cycles
}

/// Alignment of one element to a half: as above, and for each pair one half shifted up (1), joined (ORR with a shift, 1) and one store for two (1).
fn align_half(elements: u64) -> u64 {
    (3 + 8) * elements + 3 * elements.div_ceil(2) + 2 * 4 * elements.div_ceil(8)
}

/// Around a block that shares an exponent: exponent from the largest element, tests for zero, NaN, subnormal (12), store (1),
/// constants (4), two loops set up (16).
const BLOCK: u64 = 33;

/// Cycles of [`PrepHalf`].
pub fn prep_half(call: &PrepHalf) -> u64 {
    let (rows, cols) = (u64::from(call.rows), u64::from(call.cols));
    CALL + match call.axis {
        0 => BLOCK + rows * (2 * 4 + align_half(cols)),
        1 => rows * (BLOCK + align_half(cols)),
        _ => cols * (BLOCK + align_half(rows)),
    }
}

/// Cycles of [`PrepConvBackwardHalf`], as of [`PrepConvBackward`].
pub fn prep_conv_backward_half(call: &PrepConvBackwardHalf) -> u64 {
    let taps = if call.co == 0 || call.ci == 0 { 0 } else { u64::from(call.kh) * u64::from(call.kw) };
    CALL + u64::from(call.ci) * (BLOCK + taps * (2 * 6 + align_half(call.co.into())))
}

/// Cycles of [`PrepWindowHalf`]: where channels are odd in number, a half by itself for each pixel.
pub fn prep_window_half(call: &PrepWindowHalf) -> u64 {
    let (from, to) = call.held();
    let pixels = u64::from(to - from) * u64::from(call.pixels);
    CALL + BLOCK + align_half(pixels * u64::from(call.channels)) + pixels * u64::from(call.channels % 2) * 2
}
