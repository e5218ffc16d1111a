//! Random calls of the sizes that layers have, of every kernel.

use spidnn_kernels::KernelCall;
use spidnn_kernels::call::*;

use crate::cases::{self, Case, Data, Memory};
use crate::{Random, formats};

/// A random call of a kernel as a layer makes it, with usual numbers.
///
/// # Panics
/// If the kernel is none of [`cases::KERNELS`], [`cases::REST`] and [`formats::KERNELS`].
#[must_use]
pub fn random(kernel: u32, seed: u64) -> Case {
    let (mut m, mut r) = (Memory::new(seed, Data::Usual), Random::new(!seed ^ (u64::from(kernel) << 32)));
    match kernel {
        // Padding of rows is beside the point here: layers have none.
        Gemm::NUMBER => {
            let (rows, k, n) = (r.between(1, 32), r.between(16, 250), r.between(1, 24));
            cases::gemm(m, rows, k, n, r.between(0, 1), 0)
        }
        GemmHalf::NUMBER => {
            let (rows, k, n) = (r.between(1, 32), r.between(16, 400), r.between(1, 24));
            let mut case = formats::usual_gemm_half(seed, (rows, k, n));
            if let KernelCall::GemmHalf(call) = &mut case.call {
                call.accumulate = r.between(0, 1);
            }
            case
        }
        Conv::NUMBER => cases::conv_of(m, conv(&mut r)),
        ConvHalf::NUMBER => {
            let sizes = conv_half(&mut r);
            let (call, memory) = formats::conv_half_of(&mut r, sizes, false);
            Case { call: call.into(), memory }
        }
        ConvWgrad::NUMBER => cases::conv_wgrad_of(m, conv_wgrad(&mut r)),
        ConvWgradHalf::NUMBER => {
            let sizes = conv_wgrad_half(&mut r);
            formats::wgrad_half_of(&mut r, sizes, false)
        }
        PrepHalf::NUMBER => prep_half(m, &mut r),
        PrepConvBackwardHalf::NUMBER => {
            let (kh, kw) = (r.between(1, 5), r.between(1, 5));
            let (ci, co) = (r.between(1, 16), r.between(4, 32));
            let (src, dst, exps) = (m.take(kh * kw * ci * co), m.take(kh * kw * ci * co.div_ceil(2)), m.take(ci));
            m.with(PrepConvBackwardHalf { src, dst, exps, kh, kw, ci, co })
        }
        PrepWindowHalf::NUMBER => {
            let (rows, pixels, channels) =
                (r.between(1, 8), r.between(7, 28), r.one_of(&[1, 2, 3, 4, 5, 6, 8, 16, 32]));
            let (x, exp) = (m.take(rows * pixels * channels), m.take(1));
            m.with(PrepWindowHalf {
                x,
                first: r.between(0, 4) as i32 - 2,
                rows,
                limit: r.between(rows, 28),
                pixels,
                channels,
                exp,
            })
        }
        Widen::NUMBER => {
            let count = r.between(20, 1500);
            let dst = m.take(2 * count);
            m.with(Widen { src: dst + 4 * count, dst, count })
        }
        WidenWindow::NUMBER => widen_window(m, &mut r),
        WidenColumns::NUMBER => widen_columns(m, &mut r),
        Product8::NUMBER => {
            let (rows, pixels, n) = (r.between(1, 4), r.between(1, 14), r.between(1, 16));
            let (segments, pairs, step) = (r.one_of(&[1, 1, 3, 5]), r.between(3, 60), r.between(1, 8));
            formats::product8(seed, (rows, pixels, n), (segments, pairs, step))
        }
        Pool8::NUMBER => pool8(m, &mut r),
        Lookup8::NUMBER => {
            let (count, table) = (r.between(20, 500), m.take(64));
            let x = m.take(count);
            m.with(Lookup8 { x, out: x, count, table })
        }
        Add8::NUMBER => {
            let count = r.between(20, 500);
            let (a, b) = (m.take(count), m.take(count));
            let (zero_a, zero_b, zero) = (r.between(0, 255), r.between(0, 255), r.between(0, 255));
            let (mult_a, mult_b, shift) = (r.between(1 << 19, 1 << 20), r.between(1 << 19, 1 << 20), 20);
            m.with(Add8 { a, b, out: a, count, zero_a, zero_b, mult_a, mult_b, shift, zero })
        }
        Quantise8::NUMBER => {
            let (rows, cols) = (r.between(1, 8), r.between(10, 150));
            let (x, out) = (m.take(rows * cols), m.take(rows * cols.div_ceil(4)));
            m.with(Quantise8 { x, out, rows, cols, inverse_bits: 60f32.to_bits(), zero: r.between(0, 255) })
        }
        Dequantise8::NUMBER => {
            let (rows, cols) = (r.between(1, 8), r.between(10, 150));
            let (x, out) = (m.take(rows * cols.div_ceil(4)), m.take(rows * cols));
            m.with(Dequantise8 { x, out, rows, cols, scale_bits: 0.02f32.to_bits(), zero: r.between(0, 255) })
        }
        Scale::NUMBER => {
            let count = r.between(64, 240);
            let x = m.take(count);
            m.with(Scale { x, out: x, count, factor_bits: 0.3f32.to_bits() })
        }
        Clip::NUMBER => {
            let (count, mode) = (r.between(64, 240), r.between(1, 2));
            let (x, sum_squares) = (m.take(count), m.positive(1));
            let mut case = m.with(Clip { mode, x, count, limit_bits: 0.5f32.to_bits(), sum_squares });
            // More than the limit: else there is nothing to do.
            case.memory[sum_squares as usize / 4] = 9f32.to_bits();
            case
        }
        _ => cases::random(kernel, seed, Data::Usual, 1),
    }
}

/// As [`random`], of a kernel of [`cases::REST`] with the activations, losses and optimizers that only [`Bench::rest`](crate::Bench::rest) has. Activations get
/// many numbers: their cycles depend on data, and the cost table has the mean.
///
/// # Panics
/// If the kernel is none of these.
#[must_use]
pub fn random_of_rest(kernel: u32, seed: u64) -> Case {
    if kernel != BiasAct::NUMBER {
        let case = cases::random_of_all(kernel, seed, Data::Usual, 1);
        return if case.call.number() == Clip::NUMBER { random(kernel, seed) } else { case };
    }
    let mut r = Random::new(!seed);
    let (rows, cols) = (r.between(8, 12), r.between(60, 120));
    let activation = r.one_of(cases::LARGE_ACTIVATIONS) as u32;
    cases::bias_act(Memory::new(seed, Data::Usual), rows, cols, activation, r.between(0, 2) > 0, r.between(0, 1))
}

/// An axis of a picture: (inputs, kernel, stride, dilation, up, border, outputs).
fn axis(r: &mut Random, up_too: bool) -> (u32, u32, u32, u32, u32, u32, u32) {
    loop {
        let (input, kernel) = (r.between(5, 20), r.one_of(&[1, 2, 3, 3, 5, 5]));
        let stride = r.one_of(&[1, 1, 1, 2]);
        let dilation = r.one_of(&[1, 1, 1, 1, 1, 2]);
        // Backward through a stride.
        let up = if up_too && stride == 1 { r.one_of(&[1, 1, 1, 2]) } else { 1 };
        let pad = r.one_of(&[0, dilation * (kernel - 1) / 2, dilation * (kernel - 1)]);
        let reach = dilation * (kernel - 1) + 1;
        if let Some(rest) = ((input - 1) * up + 1 + 2 * pad).checked_sub(reach) {
            return (input, kernel, stride, dilation, up, pad, rest / stride + 1);
        }
    }
}

/// Sizes of a convolution, its buffers not longer than data memory.
fn conv(r: &mut Random) -> Conv {
    loop {
        let (in_h, kh, stride_y, dilation_y, up_y, pad_y, out_h) = axis(r, true);
        let (in_w, kw, stride_x, dilation_x, up_x, pad_x, out_w) = axis(r, true);
        let depthwise = r.between(0, 5) == 0;
        let groups = if depthwise { r.between(4, 16) } else { r.one_of(&[1, 1, 1, 2]) };
        let ci_group = if depthwise { 1 } else { r.one_of(&[1, 2, 3, 4, 6, 8, 16]) };
        let co_group = if depthwise { 1 } else { r.between(1, 16) };
        let (in_c, co_tile) = (groups * ci_group, groups * co_group);
        let oy0 = r.between(0, out_h - 1);
        let rows = r.between(1, 4).min(out_h - oy0);
        let words = in_h * in_w * in_c + kh * kw * ci_group * (co_tile + 1) + rows * out_w * co_tile;
        if words > 14_000 || rows * out_w * co_tile * kh * kw * ci_group > 60_000 {
            continue;
        }
        return Conv {
            in_h,
            in_w,
            in_c,
            kh,
            kw,
            ci_group,
            co_group,
            co_tile,
            oy0,
            rows,
            out_h,
            out_w,
            stride_y,
            stride_x,
            dilation_y,
            dilation_x,
            pad_y: pad_y as i32,
            pad_x: pad_x as i32,
            up_y,
            up_x,
            accumulate: r.between(0, 1),
            ..Default::default()
        };
    }
}

fn conv_half(r: &mut Random) -> ConvHalf {
    let c = conv(r);
    ConvHalf {
        in_h: c.in_h,
        in_w: c.in_w,
        in_c: c.in_c,
        kh: c.kh,
        kw: c.kw,
        ci_group: c.ci_group,
        co_group: c.co_group,
        co_tile: c.co_tile,
        oy0: c.oy0,
        rows: c.rows,
        out_h: c.out_h,
        out_w: c.out_w,
        stride_y: c.stride_y,
        stride_x: c.stride_x,
        dilation_y: c.dilation_y,
        dilation_x: c.dilation_x,
        pad_y: c.pad_y,
        pad_x: c.pad_x,
        up_y: c.up_y,
        up_x: c.up_x,
        accumulate: c.accumulate,
        ..Default::default()
    }
}

fn conv_wgrad(r: &mut Random) -> ConvWgrad {
    loop {
        let (in_h, kh, stride_y, dilation_y, _, pad_y, out_h) = axis(r, false);
        let (in_w, kw, stride_x, dilation_x, _, pad_x, out_w) = axis(r, false);
        let (in_c, co_tile) = (r.one_of(&[1, 2, 3, 4, 6, 8, 16]), r.between(1, 16));
        let oy0 = r.between(0, out_h - 1);
        let rows = r.between(1, 6).min(out_h - oy0);
        let words = in_h * in_w * in_c + rows * out_w * co_tile + kh * kw * in_c * co_tile;
        if words > 14_000 || rows * out_w * co_tile * kh * kw * in_c > 60_000 {
            continue;
        }
        return ConvWgrad {
            in_h,
            in_w,
            in_c,
            ci_tile: in_c,
            co_tile,
            oy0,
            rows,
            out_h,
            out_w,
            kh,
            kw,
            stride_y,
            stride_x,
            dilation_y,
            dilation_x,
            pad_y: pad_y as i32,
            pad_x: pad_x as i32,
            ..Default::default()
        };
    }
}

fn conv_wgrad_half(r: &mut Random) -> ConvWgradHalf {
    let c = conv_wgrad(r);
    ConvWgradHalf {
        in_h: c.in_h,
        in_w: c.in_w,
        in_c: c.in_c.div_ceil(2),
        ci_tile: c.ci_tile,
        co_tile: c.co_tile,
        oy0: c.oy0,
        rows: c.rows,
        out_h: c.out_h,
        out_w: c.out_w,
        kh: c.kh,
        kw: c.kw,
        stride_y: c.stride_y,
        stride_x: c.stride_x,
        dilation_y: c.dilation_y,
        dilation_x: c.dilation_x,
        pad_y: c.pad_y,
        pad_x: c.pad_x,
        ..Default::default()
    }
}

/// Inputs of a dense layer by rows, its weights by columns, those of a convolution in groups of channels, and the transposed ones of gradients.
fn prep_half(mut m: Memory, r: &mut Random) -> Case {
    let (rows, cols, axis, pair_rows, transposed) = match r.between(0, 5) {
        0 => (r.between(1, 16), r.between(16, 250), 1, 0, false),
        1 => {
            let rows = r.between(16, 250);
            (rows, r.between(1, 16), 2, rows, false)
        }
        2 => {
            let group = r.between(1, 16);
            (group * r.one_of(&[1, 9, 9, 25]), r.between(1, 8), 2, group, false)
        }
        3 => (r.between(1, 16), r.between(16, 120), 1, 0, true),
        4 => (r.between(1, 32), r.between(4, 60), 0, 0, r.between(0, 1) == 1),
        _ => {
            let rows = r.between(1, 32);
            (rows, r.between(4, 60), 0, rows, false)
        }
    };
    let src = m.take(rows * cols);
    let exps = m.take([1, rows, cols][axis as usize]);
    let dst = m.take(rows * cols);
    let (dst, dst_row_stride, dst_col_stride) = match (transposed, pair_rows) {
        (true, _) => (dst, 1, rows),
        (_, 0) => (dst, cols.div_ceil(2), 1),
        _ => (src, cols, 1),
    };
    m.with(PrepHalf { src, rows, cols, src_stride: cols, dst, dst_row_stride, dst_col_stride, exps, axis, pair_rows })
}

fn widen_window(mut m: Memory, r: &mut Random) -> Case {
    let (rows, columns) = (r.between(1, 8), r.between(7, 120));
    let left = r.between(0, 8);
    let row = (left + columns).div_ceil(2) + r.between(0, 3) + 1;
    let src_row = columns.div_ceil(4);
    let (src, dst, odd) = (m.take(rows * src_row), m.take(rows * row), m.take(rows * row));
    let limit = r.between(rows, 28);
    m.with(WidenWindow {
        src,
        src_row,
        columns,
        first: r.between(0, 4) as i32 - 2,
        rows,
        limit,
        dst,
        dst_odd: r.one_of(&[NONE, odd]),
        dst_row: row,
        left,
        zero: r.between(0, 255),
    })
}

fn widen_columns(mut m: Memory, r: &mut Random) -> Case {
    let (width, channels, rows) = (r.between(7, 28), r.one_of(&[1, 1, 1, 2, 3]), r.between(2, 5));
    let (step, outputs, border) = (r.between(1, 2), r.between(1, 4), r.between(0, 2));
    let row = ((border + width + border) * rows * channels).div_ceil(2) + 1;
    let src_row = (width * channels).div_ceil(4);
    let (src, dst, odd) = (m.take((rows + step * outputs) * src_row), m.take(outputs * row), m.take(outputs * row));
    m.with(WidenColumns {
        src,
        src_row,
        width,
        channels,
        first: r.between(0, 4) as i32 - 2,
        rows,
        limit: r.between(rows, 28),
        step,
        outputs,
        dst,
        dst_odd: r.one_of(&[NONE, odd]),
        dst_row: row,
        left: border,
        right: border,
        zero: r.between(0, 255),
    })
}

fn pool8(mut m: Memory, r: &mut Random) -> Case {
    let (in_h, in_w, channels) = (r.between(6, 20), r.between(6, 28), r.one_of(&[1, 3, 4, 6, 8, 16, 32]));
    let (kernel, stride) = r.one_of(&[(2, 2), (2, 2), (3, 2), (3, 1), (3, 3), (in_h.min(in_w), 1)]);
    let pad = r.one_of(&[0, 0, (kernel - 1) / 2]);
    let out = |input: u32| (input + 2 * pad - kernel) / stride + 1;
    let (out_h, out_w) = (out(in_h), out(in_w));
    let oy0 = r.between(0, out_h - 1);
    let (x_row, y_row) = ((in_w * channels).div_ceil(4), (out_w * channels).div_ceil(4));
    let (x, y) = (m.take(in_h * x_row), m.take(4 * y_row));
    m.with(Pool8 {
        mode: r.between(0, 1),
        x,
        x_row,
        in_h,
        in_w,
        channels,
        y,
        y_row,
        oy0,
        rows: r.between(1, 4),
        out_h,
        out_w,
        kh: kernel,
        kw: kernel,
        stride_y: stride,
        stride_x: stride,
        pad_y: pad as i32,
        pad_x: pad as i32,
        zero: r.between(0, 255),
        ..Default::default()
    })
}
