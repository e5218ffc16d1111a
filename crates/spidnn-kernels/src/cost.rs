//! Cycles of the block kernels on an ARM968E-S, from the instructions of their inner loops.
//!
//! Timing is that of the ARM9E-S (Technical Reference Manual, ARM DDI 0165B, chapter 8; ARM9EJ-S, DDI 0222B,
//! table 8.2; the multiplier's from GCC's `arm926ejs.md`): data processing 1, with a register-specified shift 2; LDR and
//! STR 1, also post-indexed by a register; a load used by the next instruction stalls 1; LDM and STM of n words n; SMLAL
//! 3, without a stall into the next one; CLZ 1; a taken branch 3, a failed condition 1; a load from ITCM (a literal) 1 more.
//! Code is in ITCM and data in DTCM, both without wait states. All costs are those of the usual path, whatever the
//! data: zeros, overflows, subnormal and NaN blocks leave it, and most of them are faster.

use crate::block::Operands;
use crate::call::{
    Conv, ConvWgrad, CopyRows, Fill, Gemm, Pool, PoolGrad, Prep2d, PrepConvBackward, PrepConvBackwardHalf, PrepHalf,
    PrepWindow, PrepWindowHalf,
};

use crate::block::Axis;

/// Entry of a kernel: STMFD of nine registers (9), load of the parameters (LDM, 10), set-up (10), LDMFD with
/// the program counter (14).
pub const CALL: u64 = 43;

/// IEEE addition of a loaded number, inlined: load (1) and stall (1), compare and swap (4), exponents (5), mantissas with
/// the hidden bit (4), signs (2), alignment with sticky bit (3), add (1), normalise (3), round (3), pack (1).
pub const F32_ADD: u64 = 28;

/// IEEE division by a small count that is no power of two: UMULL with the reciprocal (4), remainder (4), correction (6),
/// unpack, round, pack (14). By a power of two: exponent less a constant (4).
fn divide(count: u64) -> u64 {
    if count.is_power_of_two() { 4 } else { 28 }
}

/// A finished sum in `lo`, `hi` to binary32 in memory, `c8` = 0x80000000, `ea` = exponent of the row and constants:
///
/// ```text
/// mov   s, hi, asr #31      1   sign mask
/// eor   hi, hi, s           1   magnitude
/// eor   lo, lo, s           1
/// subs  lo, lo, s           1
/// sbcs  hi, hi, s           1
/// beq   small               1   high word empty (not taken)
/// clz   n, hi               1
/// rsb   t, n, #32           1
/// mov   hi, hi, lsl n       2   upper 32 significant bits,
/// orr   hi, hi, lo, lsr t   2
/// movs  lo, lo, lsl n       2   the rest is sticky
/// orrne hi, hi, #1          1
/// ldr   e, [eb], #4         1   exponent of the column
/// movs  q, hi, lsr #8       1   24 bits, carry = the next one
/// adc   q, q, #0            1   round half up,
/// cmp   c8, hi, lsl #24     1   to even if exactly half
/// biceq q, q, #1            1
/// add   e, e, ea            1
/// sub   e, e, n             1
/// cmp   e, #254             1
/// bhs   special             1   subnormal, too large, NaN (not taken)
/// add   q, q, e, lsl #23    1   the hidden bit counts one
/// orr   q, q, s, lsl #31    1
/// str   q, [c], #4          1
/// ```
/// and two MOV that clear the accumulator before: 29.
const FINISH: u64 = 29;

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
///   ldr a1, [pa, #row]     1        smlal c00, a0, b0    3
///   ldr b1, [pb, #4]       1        smlal c01, a0, b1    3
///   ldr a0, [pa], #step    1        smlal c10, a1, b0    3
///   ldr b0, [pb], #stride  1        smlal c11, a1, b1    3     = 16
/// ```
/// (`c11` goes first: its operands have been there for two instructions; the last load is used last.)
///
/// Halves (format `bfp16`) take SMLALBB and SMLALTT (2 each, no stall into the next) in the place of SMLAL; where a word holds two rows or columns, not
/// two terms (the gradient of a convolution's weights), a 2x2 tile takes two loads and one SMLALxy for each output: 10 cycles.
#[derive(Clone, Copy)]
struct Tile {
    rows: u64,
    columns: u64,
    kind: Kind,
}

/// What the words of an inner loop are.
#[derive(Clone, Copy)]
enum Kind {
    Mantissas,
    PairsOfTerms,
    PairsOfOutputs,
}

impl Tile {
    /// Loads and SMLALs.
    const fn term(self) -> u64 {
        match self.kind {
            Kind::Mantissas => self.rows + self.columns + 3 * self.outputs(),
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

/// The inner loop of matrix products and convolutions.
fn kind(operands: Operands) -> Kind {
    match operands {
        Operands::Mantissas => Kind::Mantissas,
        Operands::Halves => Kind::PairsOfTerms,
    }
}

/// Cycles of [`Gemm`]; `k` counts words.
pub fn gemm(call: &Gemm, operands: Operands) -> u64 {
    let (m, k, n) = (u64::from(call.m), u64::from(call.k), u64::from(call.n));
    if m == 0 || n == 0 {
        return CALL;
    }
    let output = FINISH + if call.accumulate != 0 { F32_ADD } else { 0 };
    CALL + PATCH + tiles(kind(operands), m / 2, m % 2, n, output, |tile| tile.segment(k))
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

/// Cycles of [`Conv`]: tiles of two pixels of a row that have the same taps inside the picture; a segment for each `ky`, where
/// the taps of a row lie together (no groups, dilation or `up`), else for each tap.
pub fn conv(call: &Conv, y: &Axis, x: &Axis, operands: Operands) -> u64 {
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
            let row = 20 + groups * tiles(kind(operands), pixels / 2, pixels % 2, columns, output, sum);
            cycles += rows * row;
        });
    });
    cycles
}

/// Cycles of [`ConvWgrad`]: tiles of two rows of weights (taps and channels) with the same pixels inside, a segment
/// for each row of pixels.
pub fn conv_wgrad(call: &ConvWgrad, y: &Axis, x: &Axis, operands: Operands) -> u64 {
    let kind = if operands == Operands::Halves { Kind::PairsOfOutputs } else { Kind::Mantissas };
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

/// Alignment of one element, two passes, in turns of eight (end of a turn SUBS, BNE: 4). `c8` = 0x80000000, `K` = the
/// exponent's constant; a register shift takes the low byte, so the sign above the exponent does no harm, and everything
/// shifted beyond 32 is zero with no carry (also zeros and, in blocks of usual size, subnormals).
///
/// ```text
/// pass 1: ldm (or ldr by stride)      1        pass 2: ldm (or ldr by stride)   1
///         cmp   most, x, lsl #1       1                sub  n, K, x, lsr #23     1
///         movlo most, x, lsl #1       1                orr  t, c8, x, lsl #8     1
///                                                      movs t, t, lsr n          2
///                                                      adc  t, t, #0             1
///                                                      cmp  x, #0                1
///                                                      rsbmi t, t, #0            1
///                                                      stm (or str by stride)    1
/// ```
fn align(elements: u64) -> u64 {
    (3 + 9) * elements + 2 * 4 * elements.div_ceil(8)
}

/// Alignment of one element to a half: as above, and for each pair one half shifted up (1), joined (ORR with a shift, 1) and one store for two (1).
fn align_half(elements: u64) -> u64 {
    (3 + 8) * elements + 3 * elements.div_ceil(2) + 2 * 4 * elements.div_ceil(8)
}

/// Around a block that shares an exponent: exponent from the largest element, tests for zero, NaN, subnormal (12), store (1),
/// constants (4), two loops set up (16).
const BLOCK: u64 = 33;

/// Cycles of [`Prep2d`].
pub fn prep2d(call: &Prep2d) -> u64 {
    let (rows, cols) = (u64::from(call.rows), u64::from(call.cols));
    CALL + match call.axis {
        // Both passes go row by row: pointers of a row 4.
        0 => BLOCK + rows * (2 * 4 + align(cols)),
        1 => rows * (BLOCK + align(cols)),
        _ => cols * (BLOCK + align(rows)),
    }
}

/// Cycles of [`PrepConvBackward`]: for each input channel, rows of output channels at each tap (pointers 6, twice).
pub fn prep_conv_backward(call: &PrepConvBackward) -> u64 {
    // Without channels there is nothing at the taps.
    let taps = if call.co == 0 || call.ci == 0 { 0 } else { u64::from(call.kh) * u64::from(call.kw) };
    CALL + u64::from(call.ci) * (BLOCK + taps * (2 * 6 + align(call.co.into())))
}

/// Cycles of [`PrepWindow`].
pub fn prep_window(call: &PrepWindow) -> u64 {
    let (from, to) = call.held();
    CALL + BLOCK + align(u64::from(to - from) * u64::from(call.row_words))
}

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

/// Cycles of [`Fill`]: STM of eight words twice, SUBS, BNE for 16 words (20); single words 2.
pub fn fill(call: &Fill) -> u64 {
    let count = u64::from(call.count);
    CALL + count / 16 * 20 + count % 16 * 2
}

/// Cycles of [`CopyRows`]: LDM and STM of eight words, SUBS, BNE (20); single words LDR, STR, SUBS, BNE with a stall (7),
/// pointers of a row 8.
pub fn copy_rows(call: &CopyRows) -> u64 {
    let count = u64::from(call.count);
    CALL + u64::from(call.rows) * (8 + count / 8 * 20 + count % 8 * 7)
}

/// Cells of a window along an axis, summed over outputs `first..end`.
pub(crate) fn cells(axis: &Axis, first: u32, end: u32) -> u64 {
    let mut cells = 0;
    runs(axis, first, end, |outputs, taps| cells += outputs * taps);
    cells
}

/// Cycles of [`Pool`]. Maximum, for each cell and channel: LDR (1), `movs k, x` (1), `rsbmi k, k, #0x80000000` (1), CMP, MOVGT,
/// MOVGT (3); average: an addition. For each output: window pointers 6 and store 1; average: the division.
pub fn pool(call: &Pool, y: &Axis, x: &Axis) -> u64 {
    let end = call.oy_end();
    let outputs = u64::from(end.saturating_sub(call.oy0)) * u64::from(call.out_w);
    let channels = u64::from(call.channels);
    let cells = cells(y, call.oy0, end) * cells(x, 0, call.out_w);
    let (cell, output) = match call.mode {
        0 => (6, 7),
        _ => (F32_ADD, 7 + divide(u64::from(call.kh) * u64::from(call.kw))),
    };
    // Bounds of a window: 16.
    CALL + 16 * outputs + channels * (cells * cell + outputs * output)
}

/// Cycles of [`PoolGrad`]. `dx` is cleared (1.25 a word); then windows give to their cells: average LDR, addition, STR for
/// each cell; maximum: LDR, CMP, conditional move of the place (3) for each cell and one addition. Windows that do not overlap
/// store instead of adding.
pub fn pool_grad(call: &PoolGrad, y: &Axis, x: &Axis, windows: (u32, u32)) -> u64 {
    let outputs = u64::from(windows.1 - windows.0) * u64::from(call.out_w);
    let channels = u64::from(call.channels);
    let words = u64::from(call.iy_end().saturating_sub(call.iy0)) * u64::from(call.in_w) * channels;
    let cells = cells(y, windows.0, windows.1) * cells(x, 0, call.out_w);
    let add = if call.stride_y >= call.kh && call.stride_x >= call.kw { 1 } else { F32_ADD + 1 };
    let (cell, output) = match call.mode {
        0 => (3, 8 + add),
        _ => (add, 8 + divide(u64::from(call.kh) * u64::from(call.kw))),
    };
    CALL + words * 5 / 4 + 16 * outputs + channels * (cells * cell + outputs * output)
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
        check("Dense 512x512, batch 16", dense(16, 512, 512, 17), 5.5);
        check("LeNet conv 1, 2 rows", conv_layer(28, 1, 5, 6, 28, 2, 2), 8.0);
        check("LeNet conv 1, 4 rows", conv_layer(28, 1, 5, 6, 28, 2, 4), 8.0);
        check("LeNet conv 2, 1 row", conv_layer(14, 6, 5, 16, 10, 0, 1), 8.0);
        check("LeNet conv 2, 4 rows", conv_layer(14, 6, 5, 16, 10, 0, 4), 8.0);
        let forward = [conv_layer(28, 1, 5, 6, 28, 2, 2), conv_layer(14, 6, 5, 16, 10, 0, 2)];
        let ten = |(c, m): (u64, u64)| (10 * c, 10 * m);
        let dense_layers = [dense(10, 400, 120, 17), dense(10, 120, 84, 17), dense(10, 84, 10, 17)];
        for (name, layer) in ["400 -> 120", "120 -> 84", "84 -> 10"].iter().zip(dense_layers) {
            println!("LeNet dense {name}, batch 10: {:.2}", per_mac(layer));
        }
        let sum = |layers: &mut dyn Iterator<Item = (u64, u64)>| layers.fold((0, 0), |a, b| (a.0 + b.0, a.1 + b.1));
        let forward = sum(&mut forward.into_iter().map(ten).chain(dense_layers));
        check("LeNet forward, batch 10", forward, 8.0);
        check("LeNet conv 1 weights' gradient, 4 rows", gradient_layer(28, 1, 5, 6, 28, 2, 4), 9.0);
        check("LeNet conv 2 weights' gradient, 5 rows", gradient_layer(14, 6, 5, 16, 10, 0, 5), 9.0);
        let back_2 = conv_layer(10, 16, 5, 6, 14, 4, 2);
        check("LeNet conv 2 backward, 2 rows", (back_2.0, 240_000), 9.0);
    }

    #[test]
    fn costs_grow_with_the_work() {
        assert_eq!(gemm(2, 16, 2, 0), CALL + PATCH + TILE + SEGMENT + 16 * 16 + TURN + 4 * FINISH);
        assert_eq!(gemm(1, 16, 3, 1), CALL + PATCH + TILE + SEGMENT + 16 * 13 + TURN + 3 * (FINISH + F32_ADD));
        assert!(gemm(2, 100, 3, 0) > gemm(2, 100, 2, 0));
        assert_eq!(KernelCall::from(Fill { count: 33, ..Default::default() }).cycles(), CALL + 42);
    }
}
