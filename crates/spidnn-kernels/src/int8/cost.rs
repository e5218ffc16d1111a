//! Cycles of the kernels on bytes and halves; conventions as in [`crate::cost`].
//!
//! LDRB has two stalls into its use, SMULxy and SMLAxy one (none into the accumulator of the next), and all sequences here are interleaved
//! so that none occurs, but where one is written down.

use crate::block::window;
use crate::call::{PANEL_COLUMNS, Pool8, Product8, Widen, WidenColumns, WidenWindow};
use crate::cost::{CALL, windows};
use crate::num::cycles as op;

/// Around a tile: pointers, counters and the way into the unrolled loop (14), pointers and constants of the finish (7), pointers of the next tile
/// and loop (11), with what the end of the last segment takes (10).
const TILE: u64 = 42;
/// From a segment to the next: end of the loop (9), branch (3), pointers and counters (6), the way into the loop (4).
const SEGMENT: u64 = 22;
/// From a turn of the unrolled loop to the next.
const TURN: u64 = 11;
/// What all lines share: steps and addresses.
const SHAPE: u64 = 185;
/// Set-up of a row of tiles: the kernel's own loop in Rust; less for the first row of a panel, whose addresses are at hand, and of a last pixel in the same row.
const LINE: u64 = 160;
const FIRST_LINE: u64 = 44;
const LAST_PIXEL: u64 = 105;

/// What the kernels' own loops in Rust take: which rows of a window there are, its border, those rows in one call, a row by itself, the shifted copy of a
/// row; which rows of outputs there are, and an output.
const HELD: u64 = 90;
const BORDER: u64 = 105;
const ROWS: u64 = 60;
const ROW: u64 = 64;
const COPY: u64 = 50;
const OUTPUTS: u64 = 57;
const OUTPUT: u64 = 119;
/// The call for the rows of an output that are there, each of these, and a row looked at by itself.
const SPREAD: u64 = 82;
const SPREAD_ROW: u64 = 31;
const LOOK: u64 = 65;
/// A byte by itself: its place and that of its half looked up, compiled code.
const BYTE: u64 = 57;

/// A row of pooled pixels, likewise; and one with windows of other kinds.
const POOL_ROW: u64 = 185;
const POOL_WINDOWS: u64 = 146;
/// A window of another kind, likewise.
const POOL_WINDOW: u64 = 167;
/// A window that holds nothing, each of its channels, and for each of these a row that it has beside the picture.
const EMPTY: u64 = 119;
const EMPTY_CHANNEL: u64 = 61;
const EMPTY_ROW: u64 = 39;
/// A division of integers.
const RECIPROCAL: u64 = 262;

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
        let last = if pixels % 2 == 1 { tile(if columns == whole { 1 } else { 2 }, columns) } else { 0 };
        let both = if pixels % 2 == 1 && pixels > 1 { LAST_PIXEL } else { 0 };
        rows * (LINE + pixels / 2 * tile(2, columns) + both + last) - FIRST_LINE
    };
    CALL + SHAPE + n / whole * line(whole) + if n % whole > 0 { line(n % whole) } else { 0 }
}

/// Cycles of [`Widen`], for a word of four bytes: LDR and SUBS (2), eight shifts, two ORR with a shift and a shift each (3), STM of two (2), BNE (3);
/// a kernel that hardly does more than call it.
pub fn widen(call: &Widen) -> u64 {
    CALL - 15 + u64::from(call.count) * 18
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
/// A turn of four words SUBS, BNE (4); a row: pointers and counters (10). Before, all is filled with the border (5 for four words), unless the bytes take all of it. The shifted copy: in a turn
/// of four words LDM, STM (8), two operations a word (8), SUBS, BNE (4), and a stall, for a row [`COPY`]. Rows that do not begin at a word, or hold no whole number
/// of words, are taken one by one ([`ROW`]): where they begin at a word all but the last bytes as above (with a call, 75), else byte by byte ([`BYTE`]).
pub fn widen_window(call: &WidenWindow) -> u64 {
    let (rows, row) = (u64::from(call.rows), u64::from(call.dst_row));
    let (from, to) = call.held();
    let held = u64::from(to - from);
    let (columns, even) = (u64::from(call.columns), call.left.is_multiple_of(2));
    let whole = even && call.columns.is_multiple_of(4);
    let copied = call.dst_odd != crate::call::NONE;
    let row_of_words = |words: u64| words * 10 + words.div_ceil(4) * 4;
    let held_row = match (whole, even) {
        (true, _) => 10 + row_of_words(columns / 4),
        (_, true) => 75 + row_of_words(columns / 4) + columns % 4 * BYTE,
        _ => 38 + columns * BYTE,
    };
    // Which rows there are is soon known of none.
    let found = if held == 0 { HELD / 2 } else { HELD };
    let bytes = if held == 0 || columns == 0 { 0 } else { held * held_row + if whole { ROWS } else { 0 } };
    let apart = if whole && !copied { 0 } else { rows * ROW };
    let copy = if copied { rows * copy(row) } else { 0 };
    let border = if call.covers((from, to)) { 0 } else { BORDER + filled(rows * row) };
    CALL + found + border + bytes + apart + copy
}

/// The shifted copy of a row of words.
fn copy(words: u64) -> u64 {
    COPY + 21 * words / 4
}

/// Words set to the border: 20 for sixteen, 5 for each that is left over.
fn filled(words: u64) -> u64 {
    words / 16 * 20 + words % 16 * 5
}

/// Cycles of [`WidenColumns`]: with one channel, for four bytes LDRB and STRH each (8), SUBS, BNE (4), for a row of the picture pointers and counters
/// ([`SPREAD_ROW`]); with more, bytes one by one in Rust ([`BYTE`] and 6, and 41 for a pixel and for a row). The border and the shifted copy as of
/// [`WidenWindow`].
pub fn widen_columns(call: &WidenColumns) -> u64 {
    if call.outputs == 0 {
        return CALL + HELD;
    }
    let (outputs, row) = (u64::from(call.outputs), u64::from(call.dst_row));
    let bytes = u64::from(call.width) * u64::from(call.channels);
    let copied = if call.dst_odd == crate::call::NONE { 0 } else { copy(row) };
    // Rows of the picture that are there, over all outputs, and outputs that have any.
    let (kernel_rows, first, limit) = (i64::from(call.rows), i64::from(call.first), i64::from(call.limit));
    let held_of = |o: u32| {
        let start = first + i64::from(o) * i64::from(call.step);
        ((start + kernel_rows).min(limit) - start.max(0).min(limit)).max(0) as u64
    };
    let held: u64 = (0..call.outputs).map(held_of).sum();
    let rows = if call.channels == 1 && bytes > 0 {
        let some = (0..call.outputs).filter(|&o| held_of(o) > 0).count() as u64;
        some * SPREAD + held * (SPREAD_ROW + bytes * 3)
    } else {
        let looked = outputs * u64::from(call.rows) * LOOK;
        looked + if bytes == 0 { 0 } else { held * (41 + u64::from(call.width) * 41 + bytes * (BYTE + 6)) }
    };
    CALL + HELD + OUTPUTS + outputs * (OUTPUT + filled(row) + copied) + rows
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

/// Cycles of [`Pool8`]. Windows of two by two: for a result four LDRB, three ADD and one of the half, shift, STRB, SUBS, BNE, less a branch (14), or the maximum
/// by CMP and MOVLO (15); for a pixel pointers and loop (5), for a row [`POOL_ROW`]. Others: for each cell and channel of the average LDRB,
/// SUBS, a stall, ADD, BNE (7), of the maximum a CMP and MOVLO and no ADD, and a stall more (9); for each row of them 5, for each channel 7 and the store, of an
/// average also its product and shift (13), for each window [`POOL_WINDOW`], and for an average over another number of cells than the window before a
/// [`RECIPROCAL`]. Windows of nothing are taken byte by byte.
pub fn pool8(call: &Pool8) -> u64 {
    let (y, x) = (call.y_axis(), call.x_axis());
    let channels = u64::from(call.channels);
    let (each, cell, result) = if call.mode == 0 { (15, 9, 7) } else { (14, 7, 13) };
    let columns = windows(&x, 0, call.out_w).1;
    let mut cycles = CALL + 124;
    for (low, high) in (call.oy0..call.oy_end()).map(|o| window(&y, o)) {
        let height = u64::from(high.saturating_sub(low));
        if call.is_two_by_two() && height == 2 {
            cycles += POOL_ROW + u64::from(call.out_w) * (5 + channels * each);
            continue;
        }
        cycles += POOL_WINDOWS;
        let mut before = 0;
        for (from, to) in (0..call.out_w).map(|o| window(&x, o)) {
            let cells = height * u64::from(to.saturating_sub(from));
            cycles += match cells {
                0 => EMPTY + channels * (EMPTY_CHANNEL + height * EMPTY_ROW),
                _ => POOL_WINDOW + channels * (height * 5 + result),
            };
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
/// (6), to an integer (9), sign and zero point (3), CMP and MVNHI (2), STRB (1), SUBS, BNE (4);
/// a row's places and the rest of its last word (68): compiled code.
pub fn quantise8(rows: u32, cols: u32) -> u64 {
    CALL + 80 + u64::from(rows) * (68 + u64::from(cols) * 41)
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
