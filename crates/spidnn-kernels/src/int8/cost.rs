//! Cycles of the kernels on bytes and halves; conventions as in [`crate::cost`].
//!
//! LDRB has two stalls into its use, SMULxy and SMLAxy one (none into the accumulator of the next), and all sequences here are interleaved
//! so that none occurs, but where one is written down.

use crate::block::window;
use crate::call::{PANEL_COLUMNS, Pool8, Product8, Widen, WidenColumns, WidenWindow};
use crate::cost::{CALL, cells};
use crate::num::cycles as op;

/// Around a tile: pointers, counters and the way into the unrolled loop (14), pointers and constants of the finish (7), pointers of the next tile
/// and loop (14), with what the end of the last segment takes (10).
const TILE: u64 = 45;
/// From a segment to the next: end of the loop (9), branch (3), pointers and counters (6), the way into the loop (4).
const SEGMENT: u64 = 22;
/// From a turn of the unrolled loop to the next.
const TURN: u64 = 11;
/// What all lines share: steps and addresses.
const SHAPE: u64 = 130;
/// Set-up of a row of tiles: the kernel's own loop in Rust.
const LINE: u64 = 120;

/// What the kernels' own loops in Rust take: a window, a row of it by itself, the shifted copy of a row, and the columns of an output.
const WINDOW: u64 = 165;
const ROW: u64 = 70;
const COPY: u64 = 55;
const COLUMNS: u64 = 130;
/// The call for the rows of an output that are there.
const SPREAD: u64 = 75;
/// A byte by itself: its place and that of its half looked up, compiled code.
const BYTE: u64 = 57;

/// A row of pooled pixels, likewise.
const POOL_ROW: u64 = 90;
/// A window of another kind, likewise.
const POOL_WINDOW: u64 = 175;
/// A window that holds nothing, and each of its channels.
const EMPTY: u64 = 110;
/// A division of integers.
const RECIPROCAL: u64 = 230;

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
    CALL + SHAPE + rows * (n / whole * line(whole) + if n % whole > 0 { line(n % whole) } else { 0 })
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
/// A turn of four words SUBS, BNE (4); a row: pointers and counters (15). Before, all is filled with the border (5 for four words), unless the bytes take all of it. The shifted copy: in a turn
/// of four words LDM, STM (8), two operations a word (8), SUBS, BNE (4), for a row [`COPY`]. Rows that do not begin at a word, or hold no whole number
/// of words, are taken one by one ([`ROW`]): where they begin at a word all but the last bytes as above (with a call, 85), else byte by byte ([`BYTE`]).
pub fn widen_window(call: &WidenWindow) -> u64 {
    let (rows, row) = (u64::from(call.rows), u64::from(call.dst_row));
    let (from, to) = call.held();
    let held = u64::from(to - from);
    let (columns, even) = (u64::from(call.columns), call.left.is_multiple_of(2));
    let whole = even && call.columns.is_multiple_of(4);
    let copied = call.dst_odd != crate::call::NONE;
    let row_of_words = |words: u64| words * 10 + words.div_ceil(4) * 4;
    let held_row = match (whole, even) {
        (true, _) => 15 + row_of_words(columns / 4),
        (_, true) => 85 + row_of_words(columns / 4) + columns % 4 * BYTE,
        _ => 40 + columns * BYTE,
    };
    let apart = if whole && !copied { 0 } else { rows * ROW };
    let copy = if copied { rows * (COPY + 11 * row / 2) } else { 0 };
    let border = if call.covers((from, to)) { 0 } else { filled(rows * row) };
    CALL + WINDOW + border + held * held_row + apart + copy
}

/// Words set to the border: 20 for sixteen, 5 for each that is left over.
fn filled(words: u64) -> u64 {
    words / 16 * 20 + words % 16 * 5
}

/// Cycles of [`WidenColumns`]: with one channel, for four bytes LDRB and STRH each (8), SUBS, BNE (4), for a row of the kernel pointers and counters (40); with
/// more, bytes one by one in Rust ([`BYTE`], and 40 for a pixel). The border and the shifted copy as of [`WidenWindow`].
pub fn widen_columns(call: &WidenColumns) -> u64 {
    let (outputs, row) = (u64::from(call.outputs), u64::from(call.dst_row));
    let bytes = u64::from(call.width) * u64::from(call.channels);
    let copy = if call.dst_odd == crate::call::NONE { 0 } else { COPY + 11 * row / 2 };
    // Rows of the picture that are there, over all outputs.
    let (kernel_rows, first, limit) = (i64::from(call.rows), i64::from(call.first), i64::from(call.limit));
    let held_of = |o: u32| {
        let start = first + i64::from(o) * i64::from(call.step);
        ((start + kernel_rows).min(limit) - start.max(0).min(limit)).max(0) as u64
    };
    let held: u64 = if bytes == 0 { 0 } else { (0..call.outputs).map(held_of).sum() };
    let (looked, kernel_row) = if call.channels == 1 {
        (SPREAD, 40 + bytes * 3)
    } else {
        (u64::from(call.rows) * 70, 40 + u64::from(call.width) * 40 + bytes * (BYTE + 3))
    };
    CALL + 150 + outputs * (COLUMNS + filled(row) + looked + copy) + held * kernel_row
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
/// SUBS, a stall, ADD, BNE (7), of the maximum a CMP and MOVLO (8); for each row of them 5, for each channel 12, for each window [`POOL_WINDOW`], and for an
/// average over another number of cells than the window before a [`RECIPROCAL`]. Windows of nothing are taken byte by byte.
pub fn pool8(call: &Pool8) -> u64 {
    let (y, x) = (call.y_axis(), call.x_axis());
    let channels = u64::from(call.channels);
    let each = if call.mode == 0 { 17 } else { 16 };
    let cell = if call.mode == 0 { 8 } else { 7 };
    let columns = cells(&x, 0, call.out_w);
    let mut cycles = CALL + 80;
    for (low, high) in (call.oy0..call.oy_end()).map(|o| window(&y, o)) {
        let height = u64::from(high.saturating_sub(low));
        if call.is_two_by_two() && height == 2 {
            cycles += POOL_ROW + u64::from(call.out_w) * (8 + channels * each);
            continue;
        }
        cycles += 150;
        let mut before = 0;
        for (from, to) in (0..call.out_w).map(|o| window(&x, o)) {
            let cells = height * u64::from(to.saturating_sub(from));
            cycles += if cells == 0 { EMPTY * (1 + channels) } else { POOL_WINDOW + channels * (height * 5 + 12) };
            if call.mode != 0 && cells > 0 && cells != before {
                cycles += RECIPROCAL;
                before = cells;
            }
        }
        cycles += channels * height * columns * cell;
    }
    cycles
}

/// Cycles of [`crate::call::Quantise8`], for a number: significand (2), UMULL and a stall (4), distance of the exponents (4), normalised (6), rounded to 24 bits
/// (6), to an integer (9), sign and zero point (3), CMP and MVNHI (2), STRB (1), SUBS, BNE (4).
pub fn quantise8(rows: u32, cols: u32) -> u64 {
    CALL + 65 + u64::from(rows) * (55 + u64::from(cols) * 42)
}

/// Cycles of [`crate::call::Dequantise8`]: by a table of 256 numbers would take as long to make; for a number LDRB and stalls (3), SUB (1), to a number (sign 2, CLZ 1,
/// shift 2, exponent 6), product and its call, STR (1), SUBS, BNE (4).
pub fn dequantise8(rows: u32, cols: u32) -> u64 {
    CALL + 75 + u64::from(rows) * (50 + u64::from(cols) * (20 + op::MUL + 5))
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
