//! Cycles of the kernels on bytes and halves; conventions as in [`crate::cost`].
//!
//! LDRB has two stalls into its use, SMULxy and SMLAxy one (none into the accumulator of the next), and all sequences here are interleaved
//! so that none occurs, but where one is written down.

use crate::call::{PANEL_COLUMNS, Pool8, Product8, Widen, WidenColumns, WidenWindow};
use crate::cost::{CALL, cells};
use crate::num::cycles as op;

/// Around a tile: pointers, counters and the way into the unrolled loop (14), pointers and constants of the finish (7), pointers of the next tile
/// and loop (14), with what the end of the last segment takes (10).
const TILE: u64 = 45;
/// From a segment to the next: end of the loop (9), branch (3), pointers and counters (8), the way into the loop (5).
const SEGMENT: u64 = 25;
/// From a turn of the unrolled loop to the next.
const TURN: u64 = 11;
/// Set-up of a row of tiles: the kernel's own loop in Rust.
const LINE: u64 = 150;

/// What the kernels' own loops in Rust take: a window, a row of it by itself, the shifted copy of a row, and the columns of an output.
const WINDOW: u64 = 210;
const ROW: u64 = 200;
const COPY: u64 = 100;
const COLUMNS: u64 = 295;

/// A row of pooled pixels, likewise.
const POOL_ROW: u64 = 90;
/// A window of another kind, likewise.
const POOL_WINDOW: u64 = 180;

/// Pairs of terms in a turn of a tile's loop.
fn unroll(rows: u64, columns: u64) -> u64 {
    match (rows, columns) {
        (2, 4) => 32,
        (2, 1 | 3) => 4,
        _ => 16,
    }
}

/// A finished sum in `acc` to a byte:
///
/// ```text
/// smlawb h, acc, mult, round  1   zero point and one half come with it
/// mov    h, h, asr shift      2
/// cmp    h, #255              1   unsigned: below zero is large
/// mvnhi  h, h, asr #31        1   0 or all ones
/// strb   h, [y], #1           1
/// ```
/// and before: bias and multiplier of each column (2), the bias moved to the other pixel's accumulator (1).
const FINISH: u64 = 6;
const COLUMN: u64 = 3;

/// Inner loop for a pair of terms, `rows` pixels by `columns` (4, or what a last panel has): loads of a word for each, and
/// SMLABB and SMLATT for each output. With 2x4: 8 accumulators, 3 pointers, 2 operands of the left and 2 of the right side (the next is
/// loaded while the one before is used) = 15 registers: 6 + 16 = 22 cycles for 16 multiply-accumulates.
fn pair(rows: u64, columns: u64) -> u64 {
    rows + columns + 2 * rows * columns
}

/// Cycles of [`Product8`]: tiles of two pixels of a row by a panel; a last single pixel by a whole panel, or as one of two.
pub fn product8(call: &Product8) -> u64 {
    let (rows, pixels, n) = (u64::from(call.rows), u64::from(call.pixels), u64::from(call.n));
    if rows == 0 || pixels == 0 || n == 0 {
        return CALL;
    }
    let (segments, pairs) = (u64::from(call.segments), u64::from(call.terms) / 2);
    let whole = u64::from(PANEL_COLUMNS);
    let tile = |p: u64, columns: u64| {
        let turns = pairs.div_ceil(unroll(p, columns)).saturating_sub(1);
        let segment = pairs * pair(p, columns) + turns * TURN;
        TILE + segments * segment + segments.saturating_sub(1) * SEGMENT + columns * COLUMN + p * columns * FINISH
    };
    let line = |columns: u64| {
        let many = if pixels >= 2 { LINE + pixels / 2 * tile(2, columns) } else { 0 };
        let last = if pixels % 2 == 1 { LINE + tile(if columns == whole { 1 } else { 2 }, columns) } else { 0 };
        many + last
    };
    CALL + rows * (n / whole * line(whole) + if n % whole > 0 { line(n % whole) } else { 0 })
}

/// Cycles of [`Widen`], for a word of four bytes: LDR and SUBS (2), eight shifts, two ORR with a shift and a shift each (3), STM of two (2), BNE (3).
pub fn widen(call: &Widen) -> u64 {
    CALL + u64::from(call.count) * 18
}

/// Cycles of [`WidenWindow`], for a word of four bytes:
///
/// ```text
/// ldr  w, [src], #4            1        mov  q, w, lsr #24          1
/// and  p, w, #0xff             1        and  t, w, #0xff0000        1
/// and  t, w, #0xff00           1        mov  q, q, lsl #16          1
/// orr  p, p, t, lsl #8         1        orr  q, q, t, lsr #16       1
///                                       stm  dst!, {p, q}           2
/// ```
/// A turn of four words SUBS, BNE (4); a row: pointers and counters (15). Before, all is filled with the border (5 for four words). The shifted copy: in a turn
/// of four words LDM, STM (8), two operations a word (8), SUBS, BNE (4), for a row [`COPY`]. Rows that do not begin at a word, or hold no whole number
/// of words, are taken one by one ([`ROW`]).
pub fn widen_window(call: &WidenWindow) -> u64 {
    let (rows, row) = (u64::from(call.rows), u64::from(call.dst_row));
    let (from, to) = call.held();
    let held = u64::from(to - from);
    let words = u64::from(call.columns.div_ceil(4));
    let apart = if call.left % 2 == 1 || !call.columns.is_multiple_of(4) { held * ROW } else { 0 };
    let copy = if call.dst_odd == crate::call::NONE { 0 } else { rows * (COPY + 5 * row) };
    CALL + WINDOW + rows * row * 5 / 4 + held * (15 + words * 10 + words.div_ceil(4) * 4) + apart + copy
}

/// Cycles of [`WidenColumns`]: with one channel, for four bytes LDRB and STRH each (8), SUBS, BNE (4), for a row of the kernel pointers and counters (40); with
/// more, bytes one by one in Rust. The border and the shifted copy as of [`WidenWindow`].
pub fn widen_columns(call: &WidenColumns) -> u64 {
    let (outputs, row) = (u64::from(call.outputs), u64::from(call.dst_row));
    let bytes = u64::from(call.width) * u64::from(call.channels);
    let copy = if call.dst_odd == crate::call::NONE { 0 } else { COPY + 5 * row };
    let kernel_row = if call.channels == 1 { 40 + bytes * 3 } else { ROW + bytes * 12 };
    CALL + outputs * (COLUMNS + row * 5 / 4 + copy + u64::from(call.rows) * kernel_row)
}

/// Cycles of [`crate::call::Lookup8`], for a word: LDR (1), four times mask or shift (1), LDRB from the table (1), ORR (1), less one ORR; STR (1);
/// a turn of two words SUBS, BNE (4).
pub fn lookup8(count: u32) -> u64 {
    let count = u64::from(count);
    CALL + count * 19
}

/// Cycles of [`crate::call::Add8`], for two bytes: four LDRB (4), four MLA (8; the zero points are in the sum's start), MOVS with a shift and ADC twice (6), CMP
/// and MVNHI twice (4), two STRB (2), SUBS, BNE (4).
pub fn add8(count: u32) -> u64 {
    CALL + 50 + 2 * u64::from(count) * 28
}

/// Cycles of [`Pool8`]. Windows of two by two: for a result four LDRB, three ADD and one of the half, shift, STRB, SUBS, BNE, a stall (16), or the maximum by
/// CMP and MOVLO (17); for a pixel pointers and loop (8), for a row [`POOL_ROW`]. Others: for each cell and channel of the average LDRB,
/// SUBS, a stall, ADD, BNE (7), of the maximum a CMP and MOVLO (8); for each row of them 7, for each channel 14 (17 with the division, a product with the
/// reciprocal), for each window [`POOL_WINDOW`].
pub fn pool8(call: &Pool8) -> u64 {
    let end = call.oy_end();
    let rows = u64::from(end.saturating_sub(call.oy0));
    let outputs = rows * u64::from(call.out_w);
    let channels = u64::from(call.channels);
    if call.is_two_by_two() && call.pad_y == 0 {
        let each = if call.mode == 0 { 17 } else { 16 };
        return CALL + rows * POOL_ROW + outputs * (8 + channels * each);
    }
    let window_rows = cells(&call.y_axis(), call.oy0, end) * u64::from(call.out_w);
    let cells = cells(&call.y_axis(), call.oy0, end) * cells(&call.x_axis(), 0, call.out_w);
    let (cell, output) = if call.mode == 0 { (8, 14) } else { (7, 17) };
    CALL + POOL_WINDOW * outputs + channels * (cells * cell + window_rows * 7 + outputs * output)
}

/// Cycles of [`crate::call::Quantise8`], for a number: significand (2), UMULL and a stall (4), distance of the exponents (4), normalised (6), rounded to 24 bits
/// (6), to an integer (9), sign and zero point (3), CMP and MVNHI (2), STRB (1), SUBS, BNE (4).
pub fn quantise8(rows: u32, cols: u32) -> u64 {
    CALL + u64::from(rows) * (75 + u64::from(cols) * 42)
}

/// Cycles of [`crate::call::Dequantise8`]: by a table of 256 numbers would take as long to make; for a number LDRB and stalls (3), SUB (1), to a number (sign 2, CLZ 1,
/// shift 2, exponent 6), product and its call, STR (1), SUBS, BNE (4).
pub fn dequantise8(rows: u32, cols: u32) -> u64 {
    CALL + u64::from(rows) * (75 + u64::from(cols) * (20 + op::MUL + 4))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Kernel;

    #[test]
    fn products_stay_below_what_the_format_promises() {
        let gemm = Product8 { rows: 1, pixels: 64, n: 64, segments: 1, terms: 64, ..Default::default() };
        let per_mac = gemm.cycles() as f64 / (64.0 * 64.0 * 64.0);
        println!("Product8 64x64x64: {per_mac:.3} cycles per multiply-accumulate");
        assert!(per_mac <= 1.65, "{per_mac}");
        let inner = pair(2, 4) as f64 / 16.0;
        assert!((1.35..=1.45).contains(&inner), "{inner}");
    }
}
