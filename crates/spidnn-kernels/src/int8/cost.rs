//! Cycles of the kernels on bytes and halves; conventions as in [`crate::cost`].
//!
//! LDRB has two stalls into its use, SMULxy and SMLAxy one (none into the accumulator of the next), and all sequences here are interleaved
//! so that none occurs, but where one is written down.

use crate::call::{PANEL_COLUMNS, Pool8, Product8, Widen, WidenWindow};
use crate::cost::{CALL, cells};
use crate::num::cycles as op;

/// Around a tile: operand pointers (8), registers that the finish needs spilled and filled (STM 4, LDM 4), loop (4).
const TILE: u64 = 20;
/// Around a segment of terms: pointers of both sides (4), jump into the unrolled loop (4), end of the segments (2).
const SEGMENT: u64 = 10;
/// Pairs of terms in one turn of the unrolled loop.
const UNROLL: u64 = 16;

/// A finished sum in `acc` to a byte:
///
/// ```text
/// smulwb h, acc, mult     1
/// movs   h, h, asr shift  2   the carry is the last bit shifted out
/// adc    h, h, zero       1
/// cmp    h, #255          1   unsigned: below zero is large
/// mvnhi  h, h, asr #31    1   0 or all ones
/// strb   h, [y], #1       1
/// ```
/// and before: bias and multiplier (LDM of two words for each column, 2), the bias moved to the other pixel's accumulator (1).
const FINISH: u64 = 7;
const COLUMN: u64 = 3;

/// Inner loop for a pair of terms, `rows` pixels by `columns` (4, or what a last panel has): loads of a word for each, and
/// SMLABB and SMLATT for each output. With 2x4: 8 accumulators, 3 pointers, 2 operands of the left and 2 of the right side (the next is
/// loaded while the one before is used) = 15 registers: 6 + 16 = 22 cycles for 16 multiply-accumulates.
fn pair(rows: u64, columns: u64) -> u64 {
    rows + columns + 2 * rows * columns
}

/// Turn of a loop: SUBS and the taken branch.
const TURN: u64 = 4;

/// Cycles of [`Product8`]: tiles of two pixels of a row by a panel; a last single pixel by itself.
pub fn product8(call: &Product8) -> u64 {
    let (rows, pixels, n) = (u64::from(call.rows), u64::from(call.pixels), u64::from(call.n));
    if rows == 0 || pixels == 0 || n == 0 {
        return CALL;
    }
    let (segments, pairs) = (u64::from(call.segments), u64::from(call.terms) / 2);
    let tile = |p: u64, columns: u64| {
        let segment = if pairs == 0 { 0 } else { SEGMENT + pairs * pair(p, columns) + pairs.div_ceil(UNROLL) * TURN };
        TILE + segments * segment + columns * COLUMN + p * columns * FINISH
    };
    let line = |p: u64| {
        let panel = u64::from(PANEL_COLUMNS);
        n / panel * tile(p, panel) + if n % panel > 0 { tile(p, n % panel) } else { 0 }
    };
    // Pointers of a row: 8.
    CALL + rows * (8 + pixels / 2 * line(2) + if pixels % 2 == 1 { line(1) } else { 0 })
}

/// Cycles of [`Widen`], for a word of four bytes: LDR (1); `mov t, w, lsl #24`, `mov t, t, asr #24`, .. for each byte a shift up and
/// one down, the upper one of a pair masked and joined: 3 a pair more; STM of two (2); a turn of four words SUBS, BNE (4).
pub fn widen(call: &Widen) -> u64 {
    let count = u64::from(call.count);
    CALL + count * (1 + 2 * 5 + 2) + count.div_ceil(4) * 4
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
/// and in the shifted copy, for each word of two halves: `mov s, p, lsr #16`, `orr s, s, q, lsl #16`, store (3). A turn of four words SUBS, BNE
/// (4). Borders: a store a word. Pointers of a row: 16. A border of an odd number of halves takes a shift more a word (2).
pub fn widen_window(call: &WidenWindow) -> u64 {
    let (rows, row) = (u64::from(call.rows), u64::from(call.dst_row));
    let (from, to) = call.held();
    let (from, to) = (u64::from(from), u64::from(to));
    let words = u64::from(call.columns.div_ceil(4));
    let odd = if call.left % 2 == 1 { 2 } else { 0 };
    let copy = if call.dst_odd == crate::call::NONE { 0 } else { 3 * row };
    let held = words * (10 + 2 * odd) + words.div_ceil(4) * 4;
    let border = row.saturating_sub(2 * words);
    CALL + rows * (16 + copy) + (to - from) * (held + border) + (rows - (to - from)) * row
}

/// Cycles of [`crate::call::Lookup8`], for a word: LDR (1), four times mask or shift (1), LDRB from the table (1), ORR (1), less one ORR; STR (1);
/// a turn of two words SUBS, BNE (4).
pub fn lookup8(count: u32) -> u64 {
    let count = u64::from(count);
    CALL + count * 13 + count.div_ceil(2) * 4
}

/// Cycles of [`crate::call::Add8`], for a byte: two LDRB (2), SMLABB twice (2; the zero points are in the sum's start), shift (2), ADC (1), CMP and MVNHI (2),
/// STRB (1), MOV of the start (1), a turn of four bytes SUBS, BNE (1).
pub fn add8(count: u32) -> u64 {
    CALL + 4 * u64::from(count) * 12
}

/// Cycles of [`Pool8`]: for each cell and channel LDRB and CMP, MOVHI (3), or LDRB and ADD (2); for each output STRB (1), and
/// of the average a product with the reciprocal (UMULL 3, ADD 1, shift 1). Bounds of a window: 16.
pub fn pool8(call: &Pool8) -> u64 {
    let end = call.oy_end();
    let outputs = u64::from(end.saturating_sub(call.oy0)) * u64::from(call.out_w);
    let channels = u64::from(call.channels);
    let cells = cells(&call.y_axis(), call.oy0, end) * cells(&call.x_axis(), 0, call.out_w);
    let (cell, output) = if call.mode == 0 { (3, 2) } else { (2, 7) };
    CALL + 16 * outputs + channels * (cells * cell + outputs * output)
}

/// Cycles of [`crate::call::Quantise8`], for a number: LDR (1), product with the scale, to an integer by its exponent (shift 2, rounding 3, sign 2,
/// range 2), zero point (1), CMP and MVNHI (2), STRB (1), turn.
pub fn quantise8(rows: u32, cols: u32) -> u64 {
    CALL + u64::from(rows) * (8 + u64::from(cols) * (1 + op::MUL + 9 + 1 + 2 + 1 + TURN))
}

/// Cycles of [`crate::call::Dequantise8`]: by a table of 256 numbers would take as long to make; for a number LDRB (1), SUB (1), to a number (sign 2, CLZ 1, shift 2,
/// exponent 2), product, STR (1), turn.
pub fn dequantise8(rows: u32, cols: u32) -> u64 {
    CALL + u64::from(rows) * (8 + u64::from(cols) * (1 + 1 + 7 + op::MUL + 1 + TURN))
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
