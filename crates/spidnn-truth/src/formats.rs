//! Calls of the formats `int8` and `bfp16`, and data: random ones of every kernel, and those that reports print.

use spidnn_kernels::call::*;

use crate::cases::{Case, Named};
use crate::{PROGRAM_WORDS, Random};

/// Numbers of the kernels that [`random`] makes calls of.
pub const KERNELS: &[u32] = &[
    PrepHalf::NUMBER,
    PrepConvBackwardHalf::NUMBER,
    GemmHalf::NUMBER,
    ConvHalf::NUMBER,
    ConvWgradHalf::NUMBER,
    PrepWindowHalf::NUMBER,
    Widen::NUMBER,
    WidenWindow::NUMBER,
    WidenColumns::NUMBER,
    Product8::NUMBER,
    Pool8::NUMBER,
    Lookup8::NUMBER,
    Add8::NUMBER,
    Quantise8::NUMBER,
    Dequantise8::NUMBER,
];

/// Words of halves; now and then none but the largest, whose sums are the largest that there are.
fn halves(random: &mut Random, words: &mut [u32]) {
    let largest = random.between(0, 7) == 0;
    for word in words {
        let mut half = || {
            let half = if largest { 2 * HALF_MAX } else { random.between(0, 2 * HALF_MAX) };
            (half as i32 - HALF_MAX as i32) as u32 & 0xFFFF
        };
        *word = half() | half() << 16;
    }
}

fn numbers(random: &mut Random, words: &mut [u32], any: bool) {
    for word in words {
        *word = if any { random.any_number() } else { random.number() };
    }
}

/// Exponents of usual blocks, and if `any` now and then of zeros and NaNs.
fn exponents(random: &mut Random, words: &mut [u32], any: bool) {
    for word in words {
        *word = match random.between(0, 19) {
            _ if !any => (random.between(0, 10) as i32 - 5) as u32,
            0 => EXPONENT_NAN as u32,
            1 => EXPONENT_ZERO as u32,
            _ => (random.between(0, 20) as i32 - 10) as u32,
        };
    }
}

/// A product of `segments` times `pairs` pairs of terms on `rows` rows of `pixels` pixels, with data.
#[must_use]
pub fn product8(seed: u64, (rows, pixels, n): (u32, u32, u32), (segments, pairs, x_pixel): (u32, u32, u32)) -> Case {
    let mut random = Random::new(seed);
    let mut memory: Vec<u32> = (0..PROGRAM_WORDS).map(|_| random.word()).collect();
    let row = (pixels * x_pixel + 2 * pairs).next_multiple_of(2);
    let x_words = (rows + segments) * row / 2 + pairs + 1;
    let w_words = segments * pairs * n;
    let x_odd = 4 * x_words;
    let w = 2 * x_odd;
    let scales = w + 4 * w_words;
    let y = scales + 8 * n;
    for word in &mut memory[..2 * x_words as usize] {
        *word &= 0x00FF_00FF;
    }
    for word in &mut memory[2 * x_words as usize..][..w_words as usize] {
        let [a, b, ..] = word.to_le_bytes();
        *word = u32::from(i16::from(a as i8) as u16) | u32::from(i16::from(b as i8) as u16) << 16;
    }
    for panel in memory[scales as usize / 4..][..2 * n as usize].chunks_mut(8) {
        let columns = panel.len() / 2;
        for word in &mut panel[columns..] {
            *word &= 0x7FFF;
        }
        for word in &mut panel[..columns] {
            *word = (*word as i32 >> 12) as u32;
        }
    }
    let call = Product8 {
        x: 0,
        x_odd,
        x_row: row,
        x_pixel,
        x_segment: row,
        segments,
        terms: 2 * pairs,
        w,
        scales,
        shift: random.between(1, 12),
        zero: random.between(0, 255),
        y,
        y_row: pixels * n,
        y_pixel: n,
        rows,
        pixels,
        n,
    };
    Case { call: call.into(), memory }
}

/// A product of matrices of halves.
#[must_use]
pub fn gemm_half(seed: u64, (m, k, n): (u32, u32, u32), accumulate: u32) -> Case {
    let mut random = Random::new(seed);
    let mut memory = vec![0; PROGRAM_WORDS];
    let words = k.div_ceil(2);
    let (a, b) = (0, 4 * m * words);
    let a_exps = b + 4 * words * n;
    let (b_exps, c) = (a_exps + 4 * m, a_exps + 4 * (m + n));
    halves(&mut random, &mut memory[..(a_exps / 4) as usize]);
    exponents(&mut random, &mut memory[(a_exps / 4) as usize..(c / 4) as usize], seed % 2 == 1);
    numbers(&mut random, &mut memory[(c / 4) as usize..], false);
    let call = GemmHalf { a, a_exps, a_stride: words, b, b_exps, b_stride: n, c, c_stride: n, m, k, n, accumulate };
    Case { call: call.into(), memory }
}

/// As [`gemm_half()`], with exponents that are those of numbers.
#[must_use]
pub fn usual_gemm_half(seed: u64, (m, k, n): (u32, u32, u32)) -> Case {
    let mut case = gemm_half(seed, (m, k, n), 0);
    let first = (k.div_ceil(2) * (m + n)) as usize;
    for (word, i) in case.memory[first..][..(m + n) as usize].iter_mut().zip(0u32..) {
        *word = i % 21;
    }
    case
}

/// A convolution of halves: `channels` input channels of a group.
fn conv_half(random: &mut Random, any: bool) -> Case {
    let (kh, kw, ci, groups, per_group) =
        (random.between(1, 3), random.between(1, 3), random.between(1, 3), random.between(1, 2), random.between(1, 5));
    let (in_h, in_w) = (random.between(3, 8), random.between(3, 8));
    let (stride, pad) = (random.between(1, 2), random.between(0, 1) as i32);
    let out = |input: u32, k: u32| (input + 2 * pad as u32).saturating_sub(k) / stride + 1;
    let sizes = ConvHalf {
        in_h,
        in_w,
        in_c: groups * ci,
        kh,
        kw,
        ci_group: ci,
        co_group: per_group,
        co_tile: groups * per_group,
        out_h: out(in_h, kh),
        out_w: out(in_w, kw),
        stride_y: stride,
        stride_x: stride,
        dilation_y: 1,
        dilation_x: 1,
        pad_y: pad,
        pad_x: pad,
        up_y: 1,
        up_x: 1,
        ..Default::default()
    };
    let (call, memory) = conv_half_of(random, sizes, any);
    let (rows, accumulate) = (random.between(1, 8), random.between(0, 1));
    Case { call: ConvHalf { rows, accumulate, ..call }.into(), memory }
}

/// A convolution with these sizes, its buffers one behind the other, and what they hold.
pub(crate) fn conv_half_of(random: &mut Random, sizes: ConvHalf, any: bool) -> (ConvHalf, Vec<u32>) {
    let mut memory = vec![0; PROGRAM_WORDS];
    let columns = sizes.co_tile;
    let w = 8 + 4 * sizes.in_h * sizes.in_w * sizes.in_c;
    let w_exps = w + 4 * sizes.kh * sizes.kw * sizes.ci_group * columns;
    let y = w_exps + 4 * columns;
    halves(random, &mut memory);
    exponents(random, &mut memory[..2], any);
    exponents(random, &mut memory[w_exps as usize / 4..][..columns as usize], any);
    numbers(random, &mut memory[y as usize / 4..], false);
    (ConvHalf { x: 8, w, w_stride: columns, w_exps, y, ..sizes }, memory)
}

fn wgrad_half(random: &mut Random, any: bool) -> Case {
    let (kh, kw, ci_tile, co_tile) =
        (random.between(1, 3), random.between(1, 3), random.between(1, 5), random.between(1, 7));
    let (in_h, in_w) = (random.between(3, 7), random.between(3, 7));
    let (out_h, out_w) = (in_h + 1 - kh, in_w + 1 - kw);
    let rows = random.between(1, out_h);
    let (stride_y, stride_x, dilation_y, dilation_x) = (1, 1, 1, 1);
    let in_c = ci_tile.div_ceil(2);
    let sizes = ConvWgradHalf { in_h, in_w, in_c, ci_tile, co_tile, rows, out_h, out_w, kh, kw, ..Default::default() };
    wgrad_half_of(random, ConvWgradHalf { stride_y, stride_x, dilation_y, dilation_x, ..sizes }, any)
}

/// A weights' gradient with these sizes, its buffers one behind the other, and what they hold.
pub(crate) fn wgrad_half_of(random: &mut Random, sizes: ConvWgradHalf, any: bool) -> Case {
    let mut memory = vec![0; PROGRAM_WORDS];
    let dy = 8 + 4 * sizes.in_h * sizes.in_w * sizes.in_c;
    let dw = dy + 4 * sizes.rows * sizes.out_w * sizes.co_tile.div_ceil(2);
    halves(random, &mut memory);
    exponents(random, &mut memory[..2], any);
    numbers(random, &mut memory[dw as usize / 4..], false);
    Case { call: ConvWgradHalf { x: 8, x_exp: 0, dy, dy_exp: 4, dw, ..sizes }.into(), memory }
}

/// A random call of a kernel, with data.
///
/// # Panics
/// If the kernel is not one of [`KERNELS`].
#[must_use]
pub fn random(kernel: u32, seed: u64) -> Case {
    let mut r = Random::new(seed ^ (u64::from(kernel) << 32));
    let mut memory: Vec<u32> = (0..PROGRAM_WORDS).map(|_| r.word()).collect();
    let zero = r.between(0, 255);
    let any = seed % 2 == 1;
    let call = match kernel {
        PrepHalf::NUMBER => {
            numbers(&mut r, &mut memory, any);
            let (rows, cols, axis) = (r.between(0, 9), r.between(1, 40), r.between(0, 2));
            let pair_rows = if axis == 1 { 0 } else { r.between(0, 4) };
            let call = PrepHalf {
                rows,
                cols,
                src_stride: cols,
                dst_row_stride: cols,
                dst_col_stride: 1,
                exps: 40_000,
                axis,
                pair_rows,
                ..Default::default()
            };
            if r.between(0, 1) == 0 {
                call
            } else {
                PrepHalf { dst: 20_000, dst_row_stride: 1, dst_col_stride: 10, ..call }
            }
            .into()
        }
        PrepConvBackwardHalf::NUMBER => {
            numbers(&mut r, &mut memory, any);
            let (kh, kw, ci, co) = (r.between(1, 3), r.between(1, 3), r.between(1, 4), r.between(1, 20));
            PrepConvBackwardHalf { src: 0, dst: 20_000, exps: 40_000, kh, kw, ci, co }.into()
        }
        PrepWindowHalf::NUMBER => {
            numbers(&mut r, &mut memory, any);
            let (pixels, channels) = (r.between(1, 9), r.between(1, 20));
            PrepWindowHalf {
                x: 0,
                first: r.between(0, 3) as i32 - 1,
                rows: r.between(0, 4),
                limit: 3,
                pixels,
                channels,
                exp: 40_000,
            }
            .into()
        }
        GemmHalf::NUMBER => {
            return gemm_half(seed, (r.between(1, 7), r.between(1, 30), r.between(1, 9)), r.between(0, 1));
        }
        ConvHalf::NUMBER => return conv_half(&mut r, any),
        ConvWgradHalf::NUMBER => return wgrad_half(&mut r, any),
        Widen::NUMBER => {
            let count = r.between(0, 40);
            Widen { src: r.one_of(&[4 * count, 8000]), dst: 0, count }.into()
        }
        WidenWindow::NUMBER => {
            let columns = r.between(0, 30);
            let left = r.between(0, 5);
            WidenWindow {
                src: 20_000,
                src_row: columns.div_ceil(4),
                columns,
                first: r.between(0, 4) as i32 - 2,
                rows: r.between(0, 5),
                limit: 3,
                dst: 0,
                dst_odd: r.one_of(&[NONE, 4000]),
                dst_row: (left + columns).div_ceil(2) + 1 + r.between(0, 2),
                left,
                zero,
            }
            .into()
        }
        WidenColumns::NUMBER => {
            let (width, channels, rows) = (r.between(0, 9), r.between(1, 3), r.between(1, 4));
            let (left, right) = (r.between(0, 2), r.between(0, 2));
            WidenColumns {
                src: 20_000,
                src_row: (width * channels).div_ceil(4),
                width,
                channels,
                first: r.between(0, 4) as i32 - 2,
                rows,
                limit: 5,
                step: r.between(1, 2),
                outputs: r.between(0, 3),
                dst: 0,
                dst_odd: r.one_of(&[NONE, 4000]),
                dst_row: ((left + width + right) * rows * channels).div_ceil(2) + 1,
                left,
                right,
                zero,
            }
            .into()
        }
        Product8::NUMBER => {
            let shape = (r.between(1, 4), r.between(1, 9), r.between(1, 11));
            return product8(seed, shape, (r.between(1, 3), r.between(1, 40), r.between(0, 7)));
        }
        Pool8::NUMBER => {
            let (in_h, in_w, channels) = (r.between(1, 8), r.between(1, 8), r.between(1, 6));
            let (kh, kw, stride, pad) = (r.between(1, 3), r.between(1, 3), r.between(1, 3), r.between(0, 2));
            let out = |input: u32, k: u32| (input + 2 * pad).saturating_sub(k) / stride + 1;
            let (out_h, out_w) = (out(in_h, kh), out(in_w, kw));
            Pool8 {
                mode: r.between(0, 1),
                x_row: (in_w * channels).div_ceil(4),
                in_h,
                in_w,
                channels,
                y: 20_000,
                y_row: (out_w * channels).div_ceil(4),
                rows: r.between(0, out_h),
                out_h,
                out_w,
                kh,
                kw,
                stride_y: stride,
                stride_x: stride,
                pad_y: pad as i32,
                pad_x: pad as i32,
                zero,
                ..Default::default()
            }
            .into()
        }
        Lookup8::NUMBER => Lookup8 { x: 0, out: r.one_of(&[0, 4000]), count: r.between(0, 40), table: 8000 }.into(),
        Add8::NUMBER => Add8 {
            a: 0,
            b: 4000,
            out: r.one_of(&[0, 8000]),
            count: r.between(0, 40),
            zero_a: r.between(0, 255),
            zero_b: r.between(0, 255),
            mult_a: r.between(0, (1 << 21) - 1),
            mult_b: r.between(0, (1 << 21) - 1),
            shift: r.between(10, 24),
            zero,
        }
        .into(),
        Quantise8::NUMBER => {
            numbers(&mut r, &mut memory, any);
            let inverse_bits = (r.between(1, 1000) as f32 / 10.0).to_bits();
            Quantise8 { x: 0, out: 20_000, rows: r.between(0, 5), cols: r.between(1, 12), inverse_bits, zero }.into()
        }
        Dequantise8::NUMBER => {
            let scale_bits = (r.between(1, 1000) as f32 / 3000.0).to_bits();
            Dequantise8 { x: 0, out: 20_000, rows: r.between(0, 5), cols: r.between(1, 12), scale_bits, zero }.into()
        }
        _ => panic!("no cases of kernel {kernel}"),
    };
    Case { call, memory }
}

/// The cases that reports print.
#[must_use]
pub fn named() -> Vec<Named> {
    let mut all: Vec<Named> = Vec::new();
    let mut add = |name, case: Case, unit, units: u32| all.push(Named { name, case, unit, units: units.into() });
    add("Product8 64x64x64", product8(1, (1, 64, 64), (1, 32, 64)), "MAC", 64 * 64 * 64);
    add("Product8 1x400x8", product8(2, (1, 1, 8), (1, 200, 400)), "MAC", 400 * 8);
    add("Product8 LeNet 1, 2 rows", product8(3, (2, 28, 6), (5, 3, 1)), "MAC", 2 * 28 * 25 * 6);
    add("Product8 LeNet 2, 2 rows", product8(4, (2, 10, 4), (5, 15, 6)), "MAC", 2 * 10 * 150 * 4);
    add("GemmHalf 64x64x64", usual_gemm_half(5, (64, 64, 64)), "MAC", 64 * 64 * 64);
    add("GemmHalf 16x400x7", usual_gemm_half(6, (16, 400, 7)), "MAC", 16 * 400 * 7);
    let mut plain = |name, kernel: u32, call: spidnn_kernels::KernelCall, unit, units| {
        add(name, Case { call, ..random(kernel, 2) }, unit, units);
    };
    plain("Widen 100 words", Widen::NUMBER, Widen { src: 8000, dst: 0, count: 100 }.into(), "byte", 400);
    let window = WidenWindow {
        src: 20_000,
        src_row: 21,
        columns: 84,
        rows: 5,
        limit: 5,
        dst_odd: NONE,
        dst_row: 44,
        ..Default::default()
    };
    plain("WidenWindow LeNet 2, 5 rows", WidenWindow::NUMBER, window.into(), "byte", 420);
    let odd = WidenWindow { src_row: 7, columns: 28, dst_odd: 4000, dst_row: 17, left: 2, ..window };
    plain("WidenWindow LeNet 1, 5 rows", WidenWindow::NUMBER, odd.into(), "byte", 140);
    let columns = WidenColumns {
        src: 20_000,
        src_row: 7,
        width: 28,
        channels: 1,
        rows: 5,
        limit: 6,
        step: 1,
        outputs: 2,
        dst: 0,
        dst_odd: 8000,
        dst_row: 81,
        left: 2,
        right: 2,
        ..Default::default()
    };
    plain("WidenColumns LeNet 1, 2 rows", WidenColumns::NUMBER, columns.into(), "half", 320);
    plain("Lookup8 50 words", Lookup8::NUMBER, Lookup8 { x: 0, out: 0, count: 50, table: 8000 }.into(), "byte", 200);
    let add8 =
        Add8 { a: 0, b: 4000, out: 0, count: 50, mult_a: 1 << 19, mult_b: 1 << 18, shift: 19, ..Default::default() };
    plain("Add8 50 words", Add8::NUMBER, add8.into(), "byte", 200);
    let pool = Pool8 {
        mode: 1,
        x_row: 42,
        in_h: 2,
        in_w: 28,
        channels: 6,
        y: 20_000,
        y_row: 21,
        rows: 1,
        out_h: 1,
        out_w: 14,
        kh: 2,
        kw: 2,
        stride_y: 2,
        stride_x: 2,
        ..Default::default()
    };
    plain("Pool8 average LeNet 1, 1 row", Pool8::NUMBER, pool.into(), "result", 84);
    plain("Pool8 maximum LeNet 1, 1 row", Pool8::NUMBER, Pool8 { mode: 0, ..pool }.into(), "result", 84);
    let quantise = Quantise8 { x: 0, out: 20_000, rows: 2, cols: 28, inverse_bits: 255f32.to_bits(), zero: 0 };
    plain("Quantise8 2x28", Quantise8::NUMBER, quantise.into(), "byte", 56);
    let dequantise = Dequantise8 { x: 0, out: 20_000, rows: 2, cols: 28, scale_bits: 0.01f32.to_bits(), zero: 3 };
    plain("Dequantise8 2x28", Dequantise8::NUMBER, dequantise.into(), "byte", 56);
    let rows = PrepHalf {
        src: 0,
        rows: 16,
        cols: 120,
        src_stride: 120,
        dst: 20_000,
        dst_row_stride: 60,
        dst_col_stride: 1,
        exps: 40_000,
        axis: 1,
        pair_rows: 0,
    };
    plain("PrepHalf rows, 16x120", PrepHalf::NUMBER, rows.into(), "element", 1920);
    let columns = PrepHalf { rows: 120, cols: 12, src_stride: 12, dst_row_stride: 12, axis: 2, pair_rows: 120, ..rows };
    plain("PrepHalf columns, 120x12", PrepHalf::NUMBER, columns.into(), "element", 1440);
    plain(
        "PrepHalf columns, 150x16 by 6",
        PrepHalf::NUMBER,
        PrepHalf { rows: 150, cols: 16, src_stride: 16, dst_row_stride: 16, pair_rows: 6, ..columns }.into(),
        "element",
        2400,
    );
    plain(
        "PrepHalf whole, 16x60, transposed",
        PrepHalf::NUMBER,
        PrepHalf { cols: 60, src_stride: 60, dst_row_stride: 1, dst_col_stride: 16, axis: 0, ..rows }.into(),
        "element",
        960,
    );
    let window = PrepWindowHalf { x: 0, first: 0, rows: 6, limit: 6, pixels: 14, channels: 6, exp: 40_000 };
    plain("PrepWindowHalf LeNet 2, 6 rows", PrepWindowHalf::NUMBER, window.into(), "element", 504);
    let one = PrepWindowHalf { pixels: 28, channels: 1, ..window };
    plain("PrepWindowHalf LeNet 1, 6 rows", PrepWindowHalf::NUMBER, one.into(), "element", 168);
    let odd = PrepWindowHalf { pixels: 9, channels: 11, ..window };
    plain("PrepWindowHalf 11 channels, 6 rows", PrepWindowHalf::NUMBER, odd.into(), "element", 594);
    let back = PrepConvBackwardHalf { src: 0, dst: 20_000, exps: 40_000, kh: 5, kw: 5, ci: 6, co: 16 };
    plain("PrepConvBackwardHalf 5x5, 6, 16", PrepConvBackwardHalf::NUMBER, back.into(), "element", 2400);
    let pool = Pool8 { in_h: 7, kh: 3, kw: 3, rows: 3, out_h: 3, out_w: 13, y_row: 20, ..pool };
    plain("Pool8 average 3x3, 6 channels", Pool8::NUMBER, pool.into(), "cell", 3 * 13 * 9 * 6);
    plain("Pool8 maximum 3x3, 6 channels", Pool8::NUMBER, Pool8 { mode: 0, ..pool }.into(), "cell", 3 * 13 * 9 * 6);
    let global = Pool8 {
        in_h: 7,
        in_w: 7,
        channels: 32,
        x_row: 56,
        kh: 7,
        kw: 7,
        rows: 1,
        out_h: 1,
        out_w: 1,
        y_row: 8,
        ..pool
    };
    plain("Pool8 average of a picture, 32 channels", Pool8::NUMBER, global.into(), "cell", 49 * 32);
    add_convolutions(&mut all);
    let gradient = ConvWgradHalf {
        x: 8,
        x_exp: 0,
        in_h: 9,
        in_w: 14,
        in_c: 3,
        ci_tile: 6,
        dy: 8 + 4 * 9 * 14 * 3,
        dy_exp: 4,
        co_tile: 16,
        rows: 5,
        out_h: 5,
        out_w: 10,
        dw: 20_000,
        kh: 5,
        kw: 5,
        stride_y: 1,
        stride_x: 1,
        dilation_y: 1,
        dilation_x: 1,
        ..Default::default()
    };
    let mut case = Case { call: gradient.into(), ..random(ConvWgradHalf::NUMBER, 2) };
    numbers(&mut Random::new(3), &mut case.memory[5000..7400], false);
    (case.memory[0], case.memory[1]) = (3, 5);
    all.push(Named { name: "ConvWgradHalf LeNet 2, 5 rows", case, unit: "MAC", units: 5 * 10 * 150 * 16 });
    all
}

/// Convolutions of halves as LeNet-5 has them.
fn add_convolutions(all: &mut Vec<Named>) {
    // Size of the picture, its channels in words, output channels, size of the output, border.
    for (name, (size, in_c, co, out, pad)) in
        [("ConvHalf LeNet 1, 2 rows", (28, 1, 6, 28, 2)), ("ConvHalf LeNet 2, 2 rows", (14, 3, 16, 10, 0))]
    {
        let sizes = ConvHalf {
            in_h: size,
            in_w: size,
            in_c,
            kh: 5,
            kw: 5,
            ci_group: in_c,
            co_group: co,
            co_tile: co,
            oy0: 4,
            rows: 2,
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
        let (call, memory) = conv_half_of(&mut Random::new(7), sizes, false);
        // Of one channel the second halves are zero.
        let channels = if in_c == 1 { 1 } else { 2 * in_c };
        let units = u64::from(2 * out * 25 * channels * co);
        all.push(Named { name, case: Case { call: call.into(), memory }, unit: "MAC", units });
    }
}
