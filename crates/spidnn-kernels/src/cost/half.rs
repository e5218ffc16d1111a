//! Cycles of the kernels on halves (format `bfp16`) that have no counterpart on mantissas; conventions as in the parent module.

use super::{ACCUMULATE, CALL, FINISH, FINISH_HALVES, inside, outputs};
use crate::block::Axis;
use crate::call::{ConvWgrad, PrepConvBackwardHalf, PrepHalf, PrepWindowHalf};

/// Around a tile of two by two channels: sums (8), counters, pointers and the way into the loop (18), end of the last segment (4), registers of the
/// finish (6), sums added (14), pointers to the next tile (12).
const TILE: u64 = 62;
/// More for a tile without terms, whose sums are rounded out of line.
const TILE_EMPTY: u64 = 127;
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
    let (rows, columns) = (u64::from(call.ci_tile), u64::from(call.co_tile));
    let tiles = rows.div_ceil(2) * columns.div_ceil(2);
    let mut cycles = CALL + 355;
    for ky in 0..call.kh {
        let segments = inside(y, ky, call.oy0, call.oy_end());
        cycles += 215 + outputs(y, ky);
        for kx in 0..call.kw {
            let pixels = inside(x, kx, 0, call.out_w);
            let sums = match segments * pixels {
                0 => TILE_EMPTY,
                _ => segments * (segment(pixels) + NEXT_SEGMENT) - NEXT_SEGMENT,
            };
            // All four sums are rounded, and those that there are results for are added.
            cycles += 270 + outputs(x, kx) + rows.div_ceil(2) * CHANNELS;
            cycles += tiles * (TILE + sums + 4 * (FINISH + FINISH_HALVES)) + rows * columns * ACCUMULATE;
        }
    }
    cycles
}

/// Numbers of a line to halves, two to a word: for a pair two loads, twice 8 (as a mantissa's alignment, and shifted up), ORR, STR and half of SUBS, BHS
/// (22), whose call is made for none, too; a last one by itself, which takes a call more.
fn line(numbers: u64) -> u64 {
    (numbers / 2).saturating_mul(22).saturating_add(LINE + numbers % 2 * SINGLE)
}

/// As [`line`], of a column's group: where it is a single number, the call for its pairs, which are none, returns at once.
fn group(numbers: u64) -> u64 {
    match numbers {
        0 => 0,
        1 => LINE + SINGLE - NO_PAIRS,
        _ => line(numbers),
    }
}

/// Largest magnitude of numbers: LDR, CMP, MOVLO and a quarter of SUBS, BHS (4).
fn largest(numbers: u64) -> u64 {
    numbers.saturating_mul(4)
}

/// Around a line: a call of assembly with seven parameters, compiled code.
const LINE: u64 = 180;
const SINGLE: u64 = 160;
const NO_PAIRS: u64 = 65;
/// A row by itself: the call for its largest, its place, its exponent; and where all rows share that.
const ROW: u64 = 165;
const SHARED: u64 = 80;
/// A row's largest, where pairs go down the columns.
const ROW_LARGEST: u64 = 87;
/// A column: the loop; and an exponent of its own.
const COLUMN: u64 = 40;
const COLUMN_EXPONENT: u64 = 66;
/// A number that shares no exponent with its neighbour: compiled code; and a row of such.
const ALONE: u64 = 172;
const ALONE_ROW: u64 = 55;
/// Which rows there are, where a window's numbers lie, and its exponent: compiled code.
const WINDOW: u64 = 217;

/// Cycles of [`PrepHalf`].
pub fn prep_half(call: &PrepHalf) -> u64 {
    let (rows, cols) = (u64::from(call.rows), u64::from(call.cols));
    // Groups of rows, as columns see them.
    let column = match u64::from(call.pair_rows) {
        0 => 0,
        pairs => rows / pairs * group(pairs) + group(rows % pairs),
    };
    let all = largest(rows.saturating_mul(cols));
    CALL + 65
        + match (call.axis, call.pair_rows) {
            _ if cols == 0 => 0,
            (1, _) => all + rows * (ROW + line(cols)),
            (0, 0) => SHARED + all + rows * (ROW - 12 + line(cols)),
            (0, _) => all + rows * ROW_LARGEST + cols * (COLUMN + column),
            (_, 0) => all + cols * COLUMN_EXPONENT + rows * (ALONE_ROW + cols * ALONE),
            _ => all + cols * (COLUMN_EXPONENT + COLUMN + column),
        }
}

/// Cycles of [`PrepConvBackwardHalf`]: for each input channel, a line of output channels at each tap.
pub fn prep_conv_backward_half(call: &PrepConvBackwardHalf) -> u64 {
    let taps = if call.co == 0 || call.ci == 0 { 0 } else { u64::from(call.kh) * u64::from(call.kw) };
    let co = u64::from(call.co);
    CALL + 310 + u64::from(call.ci) * (107 + taps * (70 + largest(co) + group(co)))
}

/// Cycles of [`PrepWindowHalf`]: rows where channels are even in number, else pixels; one channel in one go (16 a number).
pub fn prep_window_half(call: &PrepWindowHalf) -> u64 {
    let (from, to) = call.held();
    let (rows, channels) = (u64::from(to - from), u64::from(call.channels));
    // Of nothing there may be any number of pixels.
    if rows == 0 {
        return CALL + 34;
    }
    let pixels = u64::from(call.pixels);
    let lines = match channels {
        1 => 37 + rows * pixels * 16,
        _ if channels % 2 == 0 => rows * line(pixels * channels),
        _ => rows * pixels * (line(channels) + 7),
    };
    CALL + WINDOW + largest(rows * pixels * channels) + lines
}
