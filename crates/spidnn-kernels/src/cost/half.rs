//! Cycles of the kernels on halves (format `bfp16`) that have no counterpart on mantissas; conventions as in the parent module.

use super::{ACCUMULATE, CALL, FINISH, FINISH_HALVES};
use crate::block::Axis;
use crate::call::{ConvWgrad, PrepConvBackwardHalf, PrepHalf, PrepWindowHalf};

/// Around a tile of two by two channels: sums (8), counters, pointers and the way into the loop (24), end of the last segment (4), registers of the
/// finish (6), sums added (30), pointers to the next tile (16).
const TILE: u64 = 88;
/// From one row of pixels to the next.
const NEXT_SEGMENT: u64 = 19;
/// From one pair of input channels to the next.
const CHANNELS: u64 = 22;

/// Pixels of a row: two LDR, ADD and BIC for one of the sums, and SMLAxy for each; a turn of eight LDR, LDR, CMP, BNE 3, the last branch not taken; at
/// the end ADD and BIC for all sums.
fn segment(pixels: u64) -> u64 {
    8 * pixels + 6 * pixels.div_ceil(8) - 2 + 8
}

/// Cycles of [`crate::call::ConvWgradHalf`]: for each tap pairs of input channels by pairs of output channels, a segment for each row of pixels.
pub fn conv_wgrad(call: &ConvWgrad, y: &Axis, x: &Axis) -> u64 {
    let inside = |axis: &Axis, k: u32, first: u32, end: u32| {
        // Outputs whose input at this tap exists: as of an axis with this tap alone.
        (first..end).filter(|&o| axis.input_of(o, k).is_some()).count() as u64
    };
    let (rows, columns) = (u64::from(call.ci_tile), u64::from(call.co_tile));
    let tiles = rows.div_ceil(2) * columns.div_ceil(2);
    let mut cycles = CALL + 150;
    for ky in 0..call.kh {
        let segments = inside(y, ky, call.oy0, call.oy_end());
        cycles += 120;
        for kx in 0..call.kw {
            let pixels = inside(x, kx, 0, call.out_w);
            let sums =
                if segments * pixels == 0 { 0 } else { segments * (segment(pixels) + NEXT_SEGMENT) - NEXT_SEGMENT };
            // All four sums are rounded, and those that there are results for are added.
            cycles += 230 + rows.div_ceil(2) * CHANNELS;
            cycles += tiles * (TILE + sums + 4 * (FINISH + FINISH_HALVES)) + rows * columns * ACCUMULATE;
        }
    }
    cycles
}

/// Numbers of a line to halves, two to a word: for a pair two loads, twice 8 (as a mantissa's alignment, and shifted up), ORR, STR and half of SUBS, BHS
/// (22), whose call is made for none, too; a last one by itself, which takes a call more.
fn line(numbers: u64) -> u64 {
    let single = if numbers % 2 == 1 { SINGLE } else { 0 };
    (numbers / 2).saturating_mul(22).saturating_add(LINE + single)
}

/// Largest magnitude of numbers: LDR, CMP, MOVLO and a quarter of SUBS, BHS, and the call.
fn largest(numbers: u64) -> u64 {
    numbers.saturating_mul(4).saturating_add(LARGEST)
}

/// The exponent of numbers that lie together, in compiled code; of none nothing is looked for.
fn exponent(numbers: u64) -> u64 {
    if numbers == 0 { 60 } else { BLOCK + largest(numbers) }
}

/// Around a line: a call of assembly with seven parameters; of a matrix' row a little more.
const LINE: u64 = 165;
const SINGLE: u64 = 150;
const ROW: u64 = 80;
const LARGEST: u64 = 70;
/// Around a block that shares an exponent: compiled code.
const BLOCK: u64 = 57;
/// More for the numbers of a column's group: compiled code.
const GROUP: u64 = 15;
/// Which rows there are, and where a window's numbers lie: compiled code.
const SET_UP: u64 = 95;
/// A number that shares no exponent with its neighbour: compiled code.
const ALONE: u64 = 175;

/// Cycles of [`PrepHalf`].
pub fn prep_half(call: &PrepHalf) -> u64 {
    let (rows, cols) = (u64::from(call.rows), u64::from(call.cols));
    // Groups of rows, as columns see them.
    let group_of = |numbers: u64| if numbers == 0 { 0 } else { line(numbers) + GROUP };
    let column = match u64::from(call.pair_rows) {
        0 => 0,
        group => rows / group * group_of(group) + group_of(rows % group),
    };
    CALL + 50
        + match (call.axis, call.pair_rows) {
            (1, _) => rows * (BLOCK + ROW + largest(cols) + line(cols)),
            (0, 0) => BLOCK + rows * (ROW + largest(cols) + line(cols)),
            (0, _) => BLOCK + rows * largest(cols) + cols * (40 + column),
            (_, 0) => cols * exponent(rows) + rows * cols * ALONE,
            _ => cols * (exponent(rows) + column),
        }
}

/// Cycles of [`PrepConvBackwardHalf`]: for each input channel, a line of output channels at each tap.
pub fn prep_conv_backward_half(call: &PrepConvBackwardHalf) -> u64 {
    let taps = if call.co == 0 || call.ci == 0 { 0 } else { u64::from(call.kh) * u64::from(call.kw) };
    let co = u64::from(call.co);
    CALL + 310 + u64::from(call.ci) * (BLOCK + 50 + taps * (largest(co) + line(co) + 15))
}

/// Cycles of [`PrepWindowHalf`]: rows where channels are even in number, else pixels; one channel in one go (16 a number).
pub fn prep_window_half(call: &PrepWindowHalf) -> u64 {
    let (from, to) = call.held();
    let (rows, channels) = (u64::from(to - from), u64::from(call.channels));
    // Of nothing there may be any number of pixels.
    let pixels = if rows == 0 { 0 } else { u64::from(call.pixels) };
    let lines = match channels {
        1 => LINE + rows * pixels * 16,
        _ if channels % 2 == 0 => rows * line(pixels * channels),
        _ => rows * pixels * (line(channels) + 15),
    };
    CALL + BLOCK + SET_UP + largest(rows * pixels * channels) + lines
}
