//! Cycles of the kernels on halves (format `bfp16`), by hand counts: no core has measured them yet.

use super::CALL;
use crate::block::Axis;
use crate::call::{ConvWgrad, PrepConvBackwardHalf, PrepHalf, PrepWindowHalf};

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

/// Numbers of a line to halves, two to a word: for a pair two loads, twice 8 (as a mantissa's alignment, and shifted up), ORR, STR and half of SUBS, BHS
/// (22); a last one by itself, which takes a call more.
fn line(numbers: u64) -> u64 {
    let single = if numbers % 2 == 1 { LINE + 15 } else { 0 };
    (if numbers > 1 { LINE + numbers / 2 * 22 } else { 0 }) + single
}

/// Largest magnitude of numbers: LDR, CMP, MOVLO and a quarter of SUBS, BHS, and the call.
fn largest(numbers: u64) -> u64 {
    LARGEST + numbers * 4
}

/// Around a line: a call of assembly with seven parameters; of a matrix' row a little more.
const LINE: u64 = 170;
const ROW: u64 = 80;
const LARGEST: u64 = 70;
/// Around a block that shares an exponent: compiled code.
const BLOCK: u64 = 57;
/// A number that shares no exponent with its neighbour: compiled code.
const ALONE: u64 = 120;

/// Cycles of [`PrepHalf`].
pub fn prep_half(call: &PrepHalf) -> u64 {
    let (rows, cols) = (u64::from(call.rows), u64::from(call.cols));
    // Groups of rows, as columns see them.
    let column = match u64::from(call.pair_rows) {
        0 => 0,
        group => rows / group * line(group) + line(rows % group),
    };
    CALL + match (call.axis, call.pair_rows) {
        (1, _) => rows * (BLOCK + ROW + largest(cols) + line(cols)),
        (0, 0) => BLOCK + rows * (ROW + largest(cols) + line(cols)),
        (0, _) => BLOCK + rows * largest(cols) + cols * column,
        (_, 0) => cols * (BLOCK + largest(rows)) + rows * cols * ALONE,
        _ => cols * (BLOCK + largest(rows) + column),
    }
}

/// Cycles of [`PrepConvBackwardHalf`]: for each input channel, a line of output channels at each tap.
pub fn prep_conv_backward_half(call: &PrepConvBackwardHalf) -> u64 {
    let taps = if call.co == 0 || call.ci == 0 { 0 } else { u64::from(call.kh) * u64::from(call.kw) };
    let co = u64::from(call.co);
    CALL + u64::from(call.ci) * (BLOCK + taps * (largest(co) + line(co) + 20))
}

/// Cycles of [`PrepWindowHalf`]: rows where channels are even in number, else pixels; one channel in one go (15 a number).
pub fn prep_window_half(call: &PrepWindowHalf) -> u64 {
    let (from, to) = call.held();
    let (rows, pixels, channels) = (u64::from(to - from), u64::from(call.pixels), u64::from(call.channels));
    let lines = match channels {
        1 => LINE + rows * pixels * 15,
        _ if channels % 2 == 0 => rows * line(pixels * channels),
        _ => rows * pixels * line(channels),
    };
    CALL + BLOCK + 200 + largest(rows * pixels * channels) + lines
}
