//! Cycles of the block kernels on an ARM968E-S, from the instructions of their inner loops.
//!
//! Timing is that of the ARM9E-S (Technical Reference Manual, ARM DDI 0165B, chapter 8; ARM9EJ-S, DDI 0222B,
//! table 8.2; the multiplier's from GCC's `arm926ejs.md`): data processing 1, with a register-specified shift 2; LDR and
//! STR 1, also post-indexed by a register; a load used by the next instruction stalls 1; LDM and STM of n words n; SMLAL
//! 3, without a stall into the next one; CLZ 1; a taken branch 3, a failed condition 1; a load from ITCM (a literal) 1 more.
//! Code is in ITCM and data in DTCM, both without wait states. All costs are those of the usual path, whatever the
//! data: zeros, overflows, subnormal and NaN blocks leave it, and most of them are faster.

use crate::call::{Conv, ConvWgrad, CopyRows, Fill, Gemm, Pool, PoolGrad, Prep2d, PrepConvBackward, PrepWindow};

use crate::block::{Axis, Operands, window};
use crate::num::cycles as op;

mod check;
mod half;

pub use check::check;
pub use half::{prep_conv_backward_half, prep_half, prep_window_half};

/// Entry of a kernel: dispatch, registers saved and restored, parameters, return.
pub const CALL: u64 = 60;

/// A finished sum in `lo`, `hi` to binary32 in memory; r9 = exponents of the columns, r10 = exponent of the row and constants, r8 = results:
///
/// ```text
/// eors  n, hi, hi, asr #31  1   what differs from the sign
/// ldr   e, [r9], #4         1   exponent of the column
/// beq   small               1   high word empty (not taken)
/// clz   n, n                1
/// add   e, e, r10           1
/// sub   e, e, n             1
/// cmp   e, #254             1
/// bhs   special             1   subnormal, too large, NaN (not taken)
/// movs  x, hi, lsl n        2   upper 32 significant bits, the sign gone
/// rsb   n, n, #32           1
/// orr   x, x, lo, lsr n     2
/// rsbpl x, x, #0            1   magnitude
/// addpl e, e, #0x100        1   sign
/// tst   x, #0x7F            1   half or exact, perhaps
/// beq   half                1   (not taken)
/// movs  x, x, lsr #8        1   24 bits, carry = the next one
/// adc   x, x, e, lsl #23    1   the hidden bit counts one
/// str   x, [r8], #4         1
/// ```
const FINISH: u64 = 20;
/// Addition of a finished sum to what is there: LDR, LDR, BL 3, STR, CMP, BNE 3 and the routine.
const ACCUMULATE: u64 = 10 + op::ADD;

/// More for a finished sum of halves: shifted up by 22 (3), the test for an empty high word left out.
const FINISH_HALVES: u64 = 2;

/// More for a sum without terms, whose way is out of line; less for its addition, since a zero leaves that at once.
const FINISH_EMPTY: u64 = 30;
const FINISH_EMPTY_HALVES: u64 = 66;
const ACCUMULATE_EMPTY: u64 = 26;

/// Around a tile of four columns: sums cleared (8), width by columns (3), counters and pointers (9), the way into the unrolled loop (4), end of
/// the last segment (4), registers of the finish (8), pointers to the next tile (17).
const TILE: u64 = 53;
/// Around a smaller one: more branches on the way to it and to its finish.
const TILE_NARROW: u64 = 80;
/// More for a tile whose results are added to what is there.
const TILE_ACCUMULATE: u64 = 18;
/// From one segment to the next: counters (7; with four columns a branch more, 9), steps (7), the way into the loop (4; with four columns its end, 6), and
/// in the way of `x` a branch more.
const NEXT_SEGMENT: u64 = 18;
const NEXT_OF_FOUR: u64 = 4;
const NEXT_X: u64 = 4;
/// From one row to the next: exponent (7), registers of the tile (8), counter and pointers (10).
const ROW: u64 = 25;
/// A call for several rows: registers, steps copied, what tiles of four columns need (25), return; and its description handed over, compiled code.
const ROWS: u64 = 100;

/// Inner loops, cycles for terms of a row with so many columns; two registers for each sum.
///
/// ```text
/// ldr   a, [pa], #4           1        smlal c2, a, b1        3
/// ldr   b0, [pb, #12]         1        ldr   b1, [pb], step   1
/// ldr   b1, [pb, #8]          1        smlal c1, a, b0        3
/// smlal c3, a, b0             3        smlal c0, a, b1        3
/// ldr   b0, [pb, #4]          1                          = 17
/// ```
/// With one column the load before the SMLAL stalls. A word of two halves takes SMLABB and SMLATT (13), and every second one ADD and BIC for each
/// column (21; with one column a stall more).
const fn terms(count: u64, columns: u64, operands: Operands) -> u64 {
    let (loads, stall) = if columns == 1 { (3, 1) } else { (1 + columns, 0) };
    match operands {
        Operands::Mantissas => count * (loads + 3 * columns),
        Operands::Halves => count * (loads + 2 * columns) + count.div_ceil(2) * (2 * columns + stall),
    }
}

/// Segments of terms that a sum is made of: `x` side by side, `y` times.
#[derive(Clone, Copy)]
struct Segments {
    x: u64,
    y: u64,
    terms: u64,
}

impl Segments {
    /// Their cycles in a tile. Four columns: turns of 16 terms (8 words of halves), whose end is compared with the pointer (LDR, CMP, BNE 3); others:
    /// turns of 4 that are counted (SUBS, BNE 3). The last branch is not taken.
    fn cycles(self, columns: u64, operands: Operands) -> u64 {
        let Segments { x, y, terms } = self;
        if x * y * terms == 0 {
            return 0;
        }
        let turn = if operands == Operands::Halves { 8 } else { 16 };
        let turns = if columns == 4 { 5 * terms.div_ceil(turn) } else { 4 * terms.div_ceil(4) };
        let next = NEXT_SEGMENT + if columns == 4 { NEXT_OF_FOUR } else { 0 };
        x * y * (self::terms(terms, columns, operands) + turns - 2) + (x * y - 1) * next + (x - 1) * y * NEXT_X
    }
}

/// A row of results, in tiles of four columns (three, if left operands do not lie side by side) and one of the rest.
fn row(columns: u64, side_by_side: bool, segments: Segments, operands: Operands, accumulate: bool) -> u64 {
    let wide = if side_by_side { 4 } else { 3 };
    let empty = segments.x * segments.y * segments.terms == 0;
    let finish = match operands {
        Operands::Mantissas => FINISH + if empty { FINISH_EMPTY } else { 0 },
        Operands::Halves => FINISH + FINISH_HALVES + if empty { FINISH_EMPTY_HALVES } else { 0 },
    };
    let tile = |columns: u64| {
        let addition = ACCUMULATE - if empty { ACCUMULATE_EMPTY } else { 0 };
        let added = if accumulate { TILE_ACCUMULATE + columns * addition } else { 0 };
        let around = if columns == 4 { TILE } else { TILE_NARROW };
        around + segments.cycles(columns, operands) + columns * finish + added
    };
    let rest = columns % wide;
    ROW + columns / wide * tile(wide) + if rest > 0 { tile(rest) } else { 0 }
}

/// Cycles of [`Gemm`]; `k` counts words.
pub fn gemm(call: &Gemm, operands: Operands) -> u64 {
    let (m, k, n) = (u64::from(call.m), u64::from(call.k), u64::from(call.n));
    if m == 0 || n == 0 {
        return CALL;
    }
    let segments = Segments { x: 1, y: 1, terms: k };
    CALL + 65 + ROWS + m * row(n, true, segments, operands, call.accumulate != 0)
}

/// Runs of outputs along an axis that have the same taps inside: (first tap's count of outputs, taps). Calls `f(outputs, taps)`.
fn runs(axis: &Axis, first: u32, end: u32, mut f: impl FnMut(u64, u64)) {
    for residue in 0..axis.up.min(end.saturating_sub(first)) {
        let mut run = (0u64, 0u64, u64::MAX);
        let mut o = first + residue;
        while o < end {
            // Taps inside, and where they start: equal for outputs that share a tile.
            let mut taps = 0;
            let mut start = u64::MAX;
            for k in 0..axis.kernel {
                if axis.input_of(o, k).is_some() {
                    taps += 1;
                    start = start.min(k.into());
                }
            }
            if run.0 > 0 && (run.1, run.2) == (taps, start) {
                run.0 += 1;
            } else {
                if run.0 > 0 {
                    f(run.0, run.1);
                }
                run = (1, taps, start);
            }
            o = o.saturating_add(axis.up);
        }
        if run.0 > 0 {
            f(run.0, run.1);
        }
    }
}

/// A signed division in compiled code (`__aeabi_idiv`, Thumb: no CLZ there): calls, signs and the comparison that ends it where the dividend is the smaller
/// one (75); else the place of the first bit in five halvings of 14, and registers (100), and for each bit below it
/// LSLS, SUBS, ADDS, BMI, MOVS, SUBS, BNE 3 (9).
fn division(dividend: u32, divisor: u32) -> u64 {
    75 + (dividend / divisor.max(1)).checked_ilog2().map_or(0, |bits| 100 + 9 * u64::from(bits))
}

/// An unsigned division, assembly (`__aeabi_uidiv`): CLZ, CLZ, SUBS, MOV, BLT, MOV, MOV, BX 3 (12); for each bit CMP, ADC, SUBCS, LSR, SUBS, BGE 3 (8).
fn quick_division(dividend: u32, divisor: u32) -> u64 {
    let bits = |x: u32| x.checked_ilog2().map_or(0, |bits| u64::from(bits) + 1);
    16 + 8 * (bits(dividend) + 1).saturating_sub(bits(divisor))
}

/// What an output's taps that are inside take to be found ([`Axis::taps`], compiled code): the first and the last of them (95), or, with steps between
/// taps or inputs, each looked at: loop and call of `unbounded` (55: PUSH and POP of four, LDM of three, two MULS), with steps between inputs its
/// division; one that is inside 25 more.
fn taps(axis: &Axis, o: u32) -> u64 {
    if axis.up == 1 && axis.dilation == 1 {
        return 95;
    }
    let looked = |k: u32| 55 + place(axis, o, k) + if axis.input_of(o, k).is_some() { 25 } else { 0 };
    90 + (0..axis.kernel).map(looked).sum::<u64>()
}

/// The division of `unbounded`, which finds a tap's input, where there are steps between inputs.
fn place(axis: &Axis, o: u32, k: u32) -> u64 {
    let position = o.wrapping_mul(axis.stride).wrapping_add(k.wrapping_mul(axis.dilation)) as i32;
    if axis.up == 1 { 0 } else { division(position.wrapping_sub(axis.pad).unsigned_abs(), axis.up) }
}

/// What the calls for a row of pixels take to be found: taps, and how many pixels meet the same (`Conv::alike`: the last tap's place, and
/// a division of the room behind it, where outputs have a step).
fn found(x: &Axis, end: u32) -> u64 {
    let (mut cycles, mut o) = (0, 0);
    while o < end {
        let last = x.kernel.saturating_sub(1);
        cycles += taps(x, o) + place(x, o, last);
        // From the first pixel on that meets all taps up to the last one they are one call.
        let alike = match (x.input_of(o, 0), x.input_of(o, last)) {
            (Some(_), Some(input)) if x.up == 1 => {
                let room = x.input - 1 - input;
                cycles += if x.stride > 1 { quick_division(room, x.stride) } else { 0 };
                room / x.stride.max(1) + 1
            }
            _ => 1,
        };
        o = o.saturating_add(alike);
    }
    cycles
}

/// Cycles of [`Conv`]: a row of results for each pixel, and a call for pixels side by side that meet all taps; a segment for each `ky`, where the taps
/// of a row lie together (no groups, inputs at the same steps as taps), else for each tap.
pub fn conv(call: &Conv, y: &Axis, x: &Axis, operands: Operands) -> u64 {
    let together = call.dilation_x == call.up_x && call.ci_group == call.in_c;
    let accumulate = call.accumulate != 0;
    // Channels of one group are a row: those of the first, which may have begun before the tile, of the ones between, and of the last.
    let group = call.co_group.max(1);
    let first = (group - call.co0 % group).min(call.co_tile);
    let (between, last) = ((call.co_tile - first) / group, (call.co_tile - first) % group);
    let groups = 1 + u64::from(between) + u64::from(last > 0);
    let channels = |segments: Segments| {
        let one = |columns: u32| match columns {
            0 => 0,
            _ => row(columns.into(), true, segments, operands, accumulate),
        };
        one(first) + u64::from(between) * if between > 0 { one(group) } else { 0 } + one(last)
    };
    let end = call.oy_end();
    let rows_of_pixels = u64::from(end - call.oy0);
    // Parameters, axes; halves are made a call on words.
    let mut cycles = CALL + if operands == Operands::Halves { 330 } else { 200 };
    runs(x, 0, call.out_w, |pixels, taps_x| {
        let calls = if x.up == 1 && taps_x == u64::from(x.kernel) { 1 } else { pixels };
        runs(y, call.oy0, end, |rows, taps_y| {
            let segments = if together || taps_x == 1 {
                Segments { x: taps_x.min(1), y: taps_y, terms: taps_x * u64::from(call.ci_group) }
            } else {
                Segments { x: taps_x, y: taps_y, terms: call.ci_group.into() }
            };
            cycles += rows * (calls * groups * ROWS + pixels * channels(segments));
        });
        // Descriptions of the calls, compiled code (`Conv::pixels`: eight products, 26 stores), and of their groups.
        cycles += rows_of_pixels * calls * (300 + if groups > 1 { 315 } else { 0 });
    });
    let rows: u64 = (call.oy0..end).map(|oy| taps(y, oy)).sum();
    cycles + rows_of_pixels * found(x, call.out_w) + rows
}

/// What outputs whose input at tap `k` is inside take to be found beyond the loop around them: with a step two divisions, and 27 around each.
fn outputs(axis: &Axis, k: u32) -> u64 {
    if axis.stride == 1 {
        return 0;
    }
    let offset = i64::from(k) * i64::from(axis.dilation) - i64::from(axis.pad);
    let distance = |position: u32| (i64::from(position) - offset).clamp(0, u32::MAX.into()) as u32;
    [0, axis.input].map(|position| 27 + quick_division(distance(position), axis.stride)).iter().sum()
}

/// Cycles of [`ConvWgrad`]: a row of results for each tap and input channel, a segment for each row of pixels. Around a row of taps, and a tap, the outputs that
/// have it inside and the addresses of their operands: compiled code.
pub fn conv_wgrad(call: &ConvWgrad, y: &Axis, x: &Axis, operands: Operands) -> u64 {
    if operands == Operands::Halves {
        return half::conv_wgrad(call, y, x);
    }
    let side_by_side = u64::from(call.stride_x) * u64::from(call.in_c) == 1;
    let mut cycles = CALL + 240;
    for ky in 0..call.kh {
        let rows = inside(y, ky, call.oy0, call.oy_end());
        cycles += 215 + outputs(y, ky);
        for kx in 0..call.kw {
            let segments = Segments { x: 1, y: rows, terms: inside(x, kx, 0, call.out_w) };
            let weights = row(call.co_tile.into(), side_by_side, segments, Operands::Mantissas, true);
            cycles += 190 + ROWS + outputs(x, kx) + u64::from(call.ci_tile) * weights;
        }
    }
    cycles
}

/// Outputs whose input at this tap exists: as of an axis with this tap alone.
fn inside(axis: &Axis, k: u32, first: u32, end: u32) -> u64 {
    (first..end).filter(|&o| axis.input_of(o, k).is_some()).count() as u64
}

/// Alignment of a line of elements, two passes, in turns of four (end of a turn SUBS, BNE: 4). `c8` = 0x80000000, `K` = the
/// exponent's constant; a register shift takes the low byte, so the sign above the exponent does no harm, and everything
/// shifted beyond 32 is zero with no carry (also zeros and, in blocks of usual size, subnormals).
///
/// ```text
/// pass 1: ldr   x, [p], step      1        pass 2: ldr   x, [p], step       1
///         cmp   most, x, lsl #1   1                sub   n, K, x, lsr #23   1
///         movlo most, x, lsl #1   1                orr   t, c8, x, lsl #8   1
///                                                  movs  t, t, lsr n        2
///                                                  adc   t, t, #0           1
///                                                  cmp   x, #0              1
///                                                  rsbmi t, t, #0           1
///                                                  str   t, [q], step       1
/// ```
/// Elements that are left over take 8 and 15 cycles. Around a line there are two calls, registers and the ends of the loops, less where nothing is in it.
fn line(elements: u64) -> u64 {
    let around = if elements == 0 { LINE_EMPTY } else { LINE };
    around + elements / 4 * 4 * 14 + elements % 4 * 23
}

const LINE: u64 = 115;
const LINE_EMPTY: u64 = 83;
/// Around a block that shares an exponent: exponent from the largest element, tests for zero, NaN, subnormal, store; compiled code.
const BLOCK: u64 = 110;

/// Cycles of [`Prep2d`].
pub fn prep2d(call: &Prep2d) -> u64 {
    let (rows, cols) = (u64::from(call.rows), u64::from(call.cols));
    CALL + match call.axis {
        0 => BLOCK + rows * line(cols),
        1 => rows * (BLOCK + line(cols)),
        _ => cols * (BLOCK + line(rows)),
    }
}

/// Cycles of [`PrepConvBackward`]: for each input channel, a line of output channels at each tap.
pub fn prep_conv_backward(call: &PrepConvBackward) -> u64 {
    // Without channels there is nothing at the taps.
    let taps = if call.co == 0 || call.ci == 0 { 0 } else { u64::from(call.kh) * u64::from(call.kw) };
    CALL + u64::from(call.ci) * (BLOCK + taps * line(call.co.into()))
}

/// Cycles of [`PrepWindow`].
pub fn prep_window(call: &PrepWindow) -> u64 {
    let (from, to) = call.held();
    CALL + BLOCK + 240 + line(u64::from(to - from) * u64::from(call.row_words))
}

/// Cycles of [`Fill`]: STM of eight words twice, SUBS, BHS for 16 words (20); single words SUBS, STR, BNE (5).
pub fn fill(call: &Fill) -> u64 {
    let count = u64::from(call.count);
    CALL + count / 16 * 20 + count % 16 * 5
}

/// A copy: LDM and STM of eight words, SUBS, BHS (20); single words LDR, SUBS, STR, BNE (6); registers and call 37.
fn copy(count: u64) -> u64 {
    37 + count / 8 * 20 + count % 8 * 6
}

/// Cycles of [`CopyRows`].
pub fn copy_rows(call: &CopyRows) -> u64 {
    if call.count == 0 {
        return CALL;
    }
    CALL + u64::from(call.rows) * copy(call.count.into())
}

/// Windows of outputs `first..end` along an axis that hold cells, and these cells.
pub(crate) fn windows(axis: &Axis, first: u32, end: u32) -> (u64, u64) {
    let extents = (first..end).map(|o| window(axis, o)).map(|(low, high)| u64::from(high.saturating_sub(low)));
    extents.fold((0, 0), |(windows, cells), extent| (windows + u64::from(extent > 0), cells + extent))
}

/// Cycles of [`Pool`], compiled code around loops of assembly: for a row of outputs its window (70), for an output window and place (130), for each row of
/// its cells 55. The first cell of a window is copied. The others, a call (37 for the maximum, 66 for the average) and for each channel: maximum LDR, LDR,
/// `movs k, x`, `rsbmi k, k, #0x80000000` twice, CMP, MOVGT, SUBS, STR, BNE (13); average an addition (loop 10), and at the end the division. A window of
/// nothing is set to zero.
pub fn pool(call: &Pool, y: &Axis, x: &Axis) -> u64 {
    let end = call.oy_end();
    let rows = u64::from(end.saturating_sub(call.oy0));
    let outputs = rows * u64::from(call.out_w);
    let channels = u64::from(call.channels);
    let ((windows_y, cells_y), (windows_x, cells_x)) = (windows(y, call.oy0, end), windows(x, 0, call.out_w));
    let full = windows_y * windows_x;
    let others = cells_y * cells_x - full;
    let (other, output) = match call.mode {
        0 => (37 + channels * 13, 0),
        _ => (66 + channels * (8 + op::ADD), 45 + op::FROM_INTEGER + channels * (18 + op::DIV)),
    };
    CALL + 140
        + rows * 70
        + outputs * 130
        + cells_y * u64::from(call.out_w) * 55
        + full * (copy(channels) + output)
        + (outputs - full) * 9 * channels
        + others * other
}

/// Cycles of [`PoolGrad`], compiled code. `dx` is cleared word by word (8: STR, pointer, comparison and branch of Thumb code); a window takes its pixels'
/// places and bounds. Average: for a window its cells as a number, for a channel a division, for each row of cells a look whether it is ours, for each
/// cell of ours an addition. Maximum: for a channel the cells one after the other, up to the first that has it (half of them), and an addition, if it is ours.
pub fn pool_grad(call: &PoolGrad, y: &Axis, x: &Axis, (first, end): (u32, u32)) -> u64 {
    let outputs = u64::from(end - first) * u64::from(call.out_w);
    let channels = u64::from(call.channels);
    let (iy0, iy_end) = (call.iy0, call.iy_end());
    let words = u64::from(iy_end.saturating_sub(iy0)) * u64::from(call.in_w) * channels;
    // Rows of cells of all windows above each other, and those of them that are ours.
    let (mut rows, mut ours) = (0, 0);
    for (low, high) in (first..end).map(|o| window(y, o)) {
        rows += u64::from(high.saturating_sub(low));
        ours += u64::from(high.min(iy_end).saturating_sub(low.max(iy0)));
    }
    let width = u64::from(call.out_w);
    let (full_x, columns) = if first < end { windows(x, 0, call.out_w) } else { (0, 0) };
    // Windows that hold cells; those of nothing divide by zero, which is soon done.
    let full = windows(y, first, end).0 * full_x;
    let work = match call.mode {
        0 => {
            let share = outputs * ours / rows.max(1);
            outputs * 265 + channels * (outputs * 58 + (rows * columns + outputs) * 11 + share * (28 + op::ADD))
        }
        _ => {
            let channel =
                outputs * 84 + full * op::DIV + width * (rows * 12 + ours * 29) + ours * columns * (21 + op::ADD);
            outputs * (285 + op::FROM_INTEGER) + channels * channel
        }
    };
    CALL + 370 + words * 8 + work
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::KernelCall;

    fn share(count: u32, part: u32, parts: u32) -> u32 {
        count / parts + u32::from(part < count % parts)
    }

    fn gemm(m: u32, k: u32, n: u32, accumulate: u32) -> u64 {
        if n == 0 {
            return 0;
        }
        KernelCall::from(Gemm { m, k, n, accumulate, ..Default::default() }).cycles()
    }

    fn prep(rows: u32, cols: u32, axis: u32) -> u64 {
        if rows * cols == 0 {
            return 0;
        }
        KernelCall::from(Prep2d { rows, cols, axis, ..Default::default() }).cycles()
    }

    /// Cycles of all cores for a layer `k -> n` of `m` samples on `cores` cores, and its multiply-accumulates.
    fn dense(m: u32, k: u32, n: u32, cores: u32) -> (u64, u64) {
        let busy = (0..cores).map(|c| share(n, c, cores)).filter(|&n| n > 0);
        let cycles = busy.map(|n| prep(k, n, 2) + prep(m, k, 1) + gemm(m, k, n, 0)).sum();
        (cycles, u64::from(m) * u64::from(k) * u64::from(n))
    }

    /// One sample of a convolution in blocks of `rows` output rows: window alignment and products.
    fn conv_layer(size: u32, ci: u32, k: u32, co: u32, out: u32, pad: i32, rows: u32) -> (u64, u64) {
        let mut cycles = 0;
        for oy0 in (0..out).step_by(rows as usize) {
            let call = Conv {
                in_h: size,
                in_w: size,
                in_c: ci,
                kh: k,
                kw: k,
                ci_group: ci,
                co_group: co,
                co_tile: co,
                w_stride: co,
                oy0,
                rows,
                out_h: out,
                out_w: out,
                stride_y: 1,
                stride_x: 1,
                dilation_y: 1,
                dilation_x: 1,
                pad_y: pad,
                pad_x: pad,
                up_y: 1,
                up_x: 1,
                ..Default::default()
            };
            let window = PrepWindow {
                first: oy0 as i32 - pad,
                rows: rows + k - 1,
                limit: size,
                row_words: size * ci,
                ..Default::default()
            };
            cycles += KernelCall::from(call).cycles() + KernelCall::from(window).cycles();
        }
        (cycles, u64::from(out * out * k * k * ci * co))
    }

    /// One sample of the weights' gradient, in blocks of rows.
    fn gradient_layer(size: u32, ci: u32, k: u32, co: u32, out: u32, pad: i32, rows: u32) -> (u64, u64) {
        let mut cycles = 0;
        for oy0 in (0..out).step_by(rows as usize) {
            let call = ConvWgrad {
                in_h: size,
                in_w: size,
                in_c: ci,
                ci_tile: ci,
                co_tile: co,
                oy0,
                rows,
                out_h: out,
                out_w: out,
                kh: k,
                kw: k,
                stride_y: 1,
                stride_x: 1,
                dilation_y: 1,
                dilation_x: 1,
                pad_y: pad,
                pad_x: pad,
                ..Default::default()
            };
            let window = PrepWindow {
                first: oy0 as i32 - pad,
                rows: rows + k - 1,
                limit: size,
                row_words: size * ci,
                ..Default::default()
            };
            let dy = PrepWindow { first: oy0 as i32, rows, limit: out, row_words: out * co, ..Default::default() };
            cycles += [call.into(), window.into(), dy.into()].iter().map(KernelCall::cycles).sum::<u64>();
        }
        (cycles, u64::from(out * out * k * k * ci * co))
    }

    fn per_mac((cycles, macs): (u64, u64)) -> f64 {
        cycles as f64 / macs as f64
    }

    #[test]
    fn whole_layers_stay_below_what_the_formats_promise() {
        let check = |name: &str, layer: (u64, u64), most: f64| {
            println!("{name}: {:.2} cycles per multiply-accumulate", per_mac(layer));
            assert!(per_mac(layer) <= most, "{name}: {:.2} cycles per multiply-accumulate", per_mac(layer));
        };
        check("Dense 512x512, batch 16", dense(16, 512, 512, 17), 6.0);
        check("LeNet conv 1, 2 rows", conv_layer(28, 1, 5, 6, 28, 2, 2), 9.5);
        check("LeNet conv 1, 4 rows", conv_layer(28, 1, 5, 6, 28, 2, 4), 9.5);
        check("LeNet conv 2, 1 row", conv_layer(14, 6, 5, 16, 10, 0, 1), 5.5);
        check("LeNet conv 2, 4 rows", conv_layer(14, 6, 5, 16, 10, 0, 4), 5.5);
        let forward = [conv_layer(28, 1, 5, 6, 28, 2, 2), conv_layer(14, 6, 5, 16, 10, 0, 2)];
        let ten = |(c, m): (u64, u64)| (10 * c, 10 * m);
        let dense_layers = [dense(10, 400, 120, 17), dense(10, 120, 84, 17), dense(10, 84, 10, 17)];
        for (name, layer) in ["400 -> 120", "120 -> 84", "84 -> 10"].iter().zip(dense_layers) {
            println!("LeNet dense {name}, batch 10: {:.2}", per_mac(layer));
        }
        let sum = |layers: &mut dyn Iterator<Item = (u64, u64)>| layers.fold((0, 0), |a, b| (a.0 + b.0, a.1 + b.1));
        let forward = sum(&mut forward.into_iter().map(ten).chain(dense_layers));
        check("LeNet forward, batch 10", forward, 7.0);
        check("LeNet conv 1 weights' gradient, 4 rows", gradient_layer(28, 1, 5, 6, 28, 2, 4), 7.0);
        check("LeNet conv 2 weights' gradient, 5 rows", gradient_layer(14, 6, 5, 16, 10, 0, 5), 8.5);
        let back_2 = conv_layer(10, 16, 5, 6, 14, 4, 2);
        check("LeNet conv 2 backward, 2 rows", (back_2.0, 240_000), 6.0);
    }

    #[test]
    fn costs_grow_with_the_work() {
        assert_eq!(gemm(1, 16, 4, 0), CALL + 65 + ROWS + ROW + TILE + 16 * 17 + 5 - 2 + 4 * FINISH);
        assert_eq!(gemm(1, 16, 5, 0) - gemm(1, 16, 4, 0), TILE_NARROW + 16 * 6 + 4 * 4 - 2 + FINISH);
        assert_eq!(gemm(1, 16, 4, 1) - gemm(1, 16, 4, 0), TILE_ACCUMULATE + 4 * ACCUMULATE);
        assert!(gemm(2, 100, 3, 0) > gemm(2, 100, 2, 0));
        assert_eq!(KernelCall::from(Fill { count: 33, ..Default::default() }).cycles(), CALL + 45);
    }
}
