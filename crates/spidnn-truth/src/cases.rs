//! Calls and data: random ones of every kernel, and those that reports print.

use spidnn_kernels::call::*;
use spidnn_kernels::{Activation, KernelCall, Loss as LossKind, Optimizer};

use crate::{PROGRAM_WORDS, Random};

/// A call with the memory that it finds.
#[derive(Debug, Clone)]
pub struct Case {
    /// The call.
    pub call: KernelCall,
    /// All of the programs' data memory.
    pub memory: Vec<u32>,
}

/// What numbers a memory holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Data {
    /// Those of a network: around 1, a tenth of them zero.
    Usual,
    /// Every kind.
    Any,
}

/// Numbers of the kernels that [`random`] makes calls of.
pub const KERNELS: &[u32] = &[
    Fill::NUMBER,
    CopyRows::NUMBER,
    Prep2d::NUMBER,
    PrepConvBackward::NUMBER,
    Gemm::NUMBER,
    Conv::NUMBER,
    ConvWgrad::NUMBER,
    BiasAct::NUMBER,
    ActGrad::NUMBER,
    Map2::NUMBER,
    ScaleShift::NUMBER,
    Scale::NUMBER,
    ColumnSum::NUMBER,
    SumParts::NUMBER,
    Pool::NUMBER,
    PoolGrad::NUMBER,
    Softmax::NUMBER,
    Loss::NUMBER,
    OptimizerStep::NUMBER,
    PrepWindow::NUMBER,
];

/// Numbers of the kernels of [`Bench::rest`](crate::Bench::rest) that [`random`] makes calls of.
pub const REST: &[u32] = &[
    BiasAct::NUMBER,
    ActGrad::NUMBER,
    SoftmaxGrad::NUMBER,
    Loss::NUMBER,
    OptimizerStep::NUMBER,
    Norms::NUMBER,
    Clip::NUMBER,
    Dropout::NUMBER,
    NormCoefficients::NUMBER,
    Lerp::NUMBER,
    NormGrad::NUMBER,
    Normalise::NUMBER,
    CountNonFinite::NUMBER,
];

/// Activations that only larger images have.
pub const LARGE_ACTIVATIONS: &[Activation] = &[
    Activation::Elu,
    Activation::Softplus,
    Activation::Silu,
    Activation::Gelu,
    Activation::GeluTanh,
    Activation::Selu,
];

/// Activations that a firmware without the larger units has.
pub const ACTIVATIONS: &[Activation] = &[
    Activation::Linear,
    Activation::Relu,
    Activation::LeakyRelu,
    Activation::Sigmoid,
    Activation::HardSigmoid,
    Activation::Tanh,
    Activation::Exponential,
    Activation::Softsign,
    Activation::ClippedRelu,
];

/// Memory that buffers are taken from, one after the other.
pub struct Memory {
    words: Vec<u32>,
    next: u32,
    random: Random,
    data: Data,
}

impl Memory {
    /// Filled with numbers.
    #[must_use]
    pub fn new(seed: u64, data: Data) -> Memory {
        let mut memory = Memory { words: vec![0; PROGRAM_WORDS], next: 0, random: Random::new(seed), data };
        for i in 0..PROGRAM_WORDS {
            memory.words[i] = memory.number();
        }
        memory
    }

    fn number(&mut self) -> u32 {
        match self.data {
            Data::Any => self.random.any_number(),
            Data::Usual if self.random.between(0, 9) == 0 => 0,
            Data::Usual => self.random.number(),
        }
    }

    /// Byte offset of a buffer of so many words.
    pub fn take(&mut self, words: u32) -> u32 {
        let start = self.next + self.random.between(0, 2);
        self.next = start + words;
        assert!(self.next as usize <= PROGRAM_WORDS, "buffers of a case do not fit");
        4 * start
    }

    fn each(&mut self, words: u32, mut value: impl FnMut(&mut Random) -> u32) -> u32 {
        let address = self.take(words);
        for i in 0..words {
            self.words[(address / 4 + i) as usize] = value(&mut self.random);
        }
        address
    }

    /// A buffer of mantissas.
    pub fn mantissas(&mut self, words: u32) -> u32 {
        let zeros = self.data == Data::Usual;
        self.each(words, |r| {
            if zeros && r.between(0, 9) == 0 { 0 } else { ((r.word() as i32) >> 5 >> r.between(0, 3)) as u32 }
        })
    }

    /// A buffer of exponents of blocks.
    pub fn exponents(&mut self, words: u32) -> u32 {
        let any = self.data == Data::Any;
        self.each(words, |r| {
            if !any {
                return r.between(0, 6).wrapping_sub(3);
            }
            match r.between(0, 9) {
                0 => EXPONENT_ZERO as u32,
                1 => EXPONENT_NAN as u32,
                2 => r.between(0, 40).wrapping_sub(110),
                3 => r.between(90, 128),
                _ => r.between(0, 20).wrapping_sub(10),
            }
        })
    }

    /// A buffer of probabilities.
    pub fn probabilities(&mut self, words: u32) -> u32 {
        self.each(words, |r| (r.between(1, 9999) as f32 / 10_000.0).to_bits())
    }

    /// A buffer of positive numbers.
    pub fn positive(&mut self, words: u32) -> u32 {
        self.each(words, |r| r.number() & 0x7FFF_FFFF)
    }

    /// A buffer of class numbers.
    pub fn classes(&mut self, words: u32, classes: u32) -> u32 {
        self.each(words, |r| (r.between(0, classes - 1) as f32).to_bits())
    }

    /// The case with this call.
    pub fn with(self, call: impl Into<KernelCall>) -> Case {
        Case { call: call.into(), memory: self.words }
    }
}

/// A random call of a kernel; `size` 0: small, 1: as a layer's.
///
/// # Panics
/// If the kernel is none of [`KERNELS`] and [`REST`].
#[must_use]
pub fn random(kernel: u32, seed: u64, data: Data, size: u32) -> Case {
    let mut m = Memory::new(seed, data);
    let mut r = Random::new(!seed);
    let most = [12, 40][size as usize];
    let least = [0, 16][size as usize];
    let count = r.between(least * 4, most * 6);
    match kernel {
        Fill::NUMBER => {
            let dst = m.take(count);
            m.with(Fill { dst, count, value_bits: r.word() })
        }
        CopyRows::NUMBER => {
            let (rows, cols) = (r.between(least / 4, 12), r.between(least, most));
            let (src_stride, dst_stride) = (cols + r.between(0, 3), cols + r.between(0, 3));
            let (src, dst) = (m.take(rows * src_stride), m.take(rows * dst_stride));
            m.with(CopyRows { src, dst, rows, count: cols, src_stride, dst_stride })
        }
        Prep2d::NUMBER => prep(m, r, least, most),
        PrepConvBackward::NUMBER => {
            let (kh, kw) = (r.between(1, 5), r.between(1, 5));
            let (ci, co) = (r.between(least / 4, 8), r.between(least / 2, 16));
            let words = kh * kw * ci * co;
            let (src, dst, exps) = (m.take(words), m.take(words), m.take(ci));
            m.with(PrepConvBackward { src, dst, exps, kh, kw, ci, co })
        }
        Gemm::NUMBER => {
            let (rows, k, n) = (r.between(least / 4, most / 2), r.between(least, most), r.between(least / 4, most / 2));
            gemm(m, rows, k, n, r.between(0, 1), r.between(0, 2))
        }
        Conv::NUMBER => conv(m, r, size),
        ConvWgrad::NUMBER => conv_wgrad(m, r, size),
        BiasAct::NUMBER => {
            let (rows, cols) = (r.between(least / 4, 8), r.between(least, most));
            let activation = r.one_of(ACTIVATIONS) as u32;
            bias_act(m, rows, cols, activation, r.between(0, 2) > 0, r.between(0, 1))
        }
        ActGrad::NUMBER => {
            let activation = r.one_of(ACTIVATIONS) as u32;
            let (dy, saved, out) = (m.take(count), m.take(count), m.take(count));
            let out = if r.between(0, 1) == 0 { dy } else { out };
            m.with(ActGrad { dy, saved, out, count, activation, alpha_bits: 0.3f32.to_bits() })
        }
        Map2::NUMBER => {
            let (a, b, out) = (m.take(count), m.take(count), m.take(count));
            let out = r.one_of(&[a, b, out]);
            m.with(Map2 { op: r.between(0, 4), a, b, out, count })
        }
        ScaleShift::NUMBER => {
            let (rows, cols) = (r.between(least / 4, 8), r.between(least, most));
            let (x, out) = (m.take(rows * cols), m.take(rows * cols));
            let (scale, shift) = (m.take(cols), m.take(cols));
            let out = r.one_of(&[x, out]);
            m.with(ScaleShift { x, out, rows, cols, scale: r.one_of(&[scale, NONE]), shift: r.one_of(&[shift, NONE]) })
        }
        Scale::NUMBER => {
            let (x, out) = (m.take(count), m.take(count));
            // The usual factor is not zero.
            let factor_bits = m.number() | if data == Data::Usual { 0x3E80_0000 } else { 0 };
            m.with(Scale { x, out: r.one_of(&[x, out]), count, factor_bits })
        }
        ColumnSum::NUMBER => {
            let (rows, cols) = (r.between(least / 4, 12), r.between(least, most));
            let row_stride = cols + r.between(0, 2);
            let (x, y, sum) = (m.take(rows * row_stride), m.take(rows * row_stride), m.take(cols));
            m.with(ColumnSum { op: r.between(0, 3), x, y, rows, cols, row_stride, sum })
        }
        SumParts::NUMBER => {
            let parts = r.between(1, 5);
            let stride = count + r.between(0, 2);
            let (src, dst) = (m.take(parts * stride), m.take(count));
            m.with(SumParts { src, parts, stride, count, dst: r.one_of(&[src, dst]) })
        }
        Pool::NUMBER => pool(m, r, size),
        PoolGrad::NUMBER => pool_grad(m, r, size),
        Softmax::NUMBER => {
            let (rows, cols) = (r.between(least / 4, 8), r.between(least / 2, most / 2));
            let (x, out) = (m.take(rows * cols), m.take(rows * cols));
            m.with(Softmax { x, out: r.one_of(&[x, out]), rows, cols })
        }
        Loss::NUMBER => loss(m, r, size),
        OptimizerStep::NUMBER => {
            let kind = r.one_of(&[Optimizer::Sgd, Optimizer::SgdNesterov, Optimizer::Adam]);
            optimizer(m, kind, count, r.between(0, 1) == 0, r.between(0, 1) == 0, r.between(0, 1))
        }
        SoftmaxGrad::NUMBER => {
            let (rows, cols) = (r.between(least / 4, 8), r.between(least / 2, most / 2));
            let (y, dy, dx) = (m.probabilities(rows * cols), m.take(rows * cols), m.take(rows * cols));
            m.with(SoftmaxGrad { y, dy, dx: r.one_of(&[dy, dx]), rows, cols })
        }
        Norms::NUMBER => {
            let (x, out) = (m.take(count), m.take(2));
            m.with(Norms { x, count, out })
        }
        Clip::NUMBER => {
            let (x, sum_squares) = (m.take(count), m.positive(1));
            let limit_bits = (r.between(1, 20) as f32 / 10.0).to_bits();
            m.with(Clip { mode: r.between(1, 2), x, count, limit_bits, sum_squares })
        }
        Dropout::NUMBER => {
            let (x, out) = (m.take(count), m.take(count));
            m.with(Dropout {
                x,
                out: r.one_of(&[x, out]),
                count,
                rate_bits: 0.3f32.to_bits(),
                seed_lo: r.word(),
                seed_hi: r.word(),
                stream: r.between(0, 5),
                sample: r.between(0, 99),
                first: r.between(0, 9),
            })
        }
        NormCoefficients::NUMBER => {
            let count = count / 4 + least;
            let (mean, var, gamma, beta) = (m.take(count), m.positive(count), m.take(count), m.take(count));
            let (scale, shift, inv) = (m.take(count), m.take(count), m.take(count));
            let (gamma, beta, inv) = (r.one_of(&[gamma, NONE]), r.one_of(&[beta, NONE]), r.one_of(&[inv, NONE]));
            let epsilon_bits = 1e-3f32.to_bits();
            m.with(NormCoefficients { mean, var, gamma, beta, scale, shift, inv, count, epsilon_bits })
        }
        Lerp::NUMBER => {
            let (a, b, out) = (m.take(count), m.take(count), m.take(count));
            m.with(Lerp { a, b, out: r.one_of(&[a, out]), count, momentum_bits: 0.99f32.to_bits() })
        }
        NormGrad::NUMBER => {
            let (rows, cols) = (r.between(least / 4, 8), r.between(least, most));
            let (x, dy, dx) = (m.take(rows * cols), m.take(rows * cols), m.take(rows * cols));
            let (mean, inv, gamma) = (m.take(cols), m.positive(cols), m.take(cols));
            let (sum_dy, sum_dy_xhat) = (m.take(cols), m.take(cols));
            let gamma = r.one_of(&[gamma, NONE]);
            let inv_n_bits = 0.125f32.to_bits();
            m.with(NormGrad {
                x,
                dy,
                dx: r.one_of(&[dy, dx]),
                rows,
                cols,
                mean,
                inv,
                gamma,
                sum_dy,
                sum_dy_xhat,
                inv_n_bits,
            })
        }
        Normalise::NUMBER => {
            let (rows, cols) = (r.between(least / 4, 8), r.between(least, most));
            let (x, out) = (m.take(rows * cols), m.take(rows * cols));
            let (mean, inv) = (m.take(cols), m.positive(cols));
            m.with(Normalise { x, out: r.one_of(&[x, out]), rows, cols, mean, inv })
        }
        CountNonFinite::NUMBER => {
            let (x, out) = (m.take(count), m.take(1));
            m.with(CountNonFinite { x, count, out })
        }
        PrepWindow::NUMBER => {
            let rows = r.between(least / 4, 8);
            let row_words = r.between(least, most);
            let (x, exp) = (m.take(rows * row_words), m.take(1));
            m.with(PrepWindow {
                x,
                first: r.between(0, 4) as i32 - 2,
                rows,
                limit: r.between(rows / 2, 9),
                row_words,
                exp,
            })
        }
        other => panic!("no calls of kernel {other} are made"),
    }
}

fn prep(mut m: Memory, mut r: Random, least: u32, most: u32) -> Case {
    let (rows, cols, axis) = (r.between(least / 2, most / 2), r.between(least, most), r.between(0, 2));
    let src_stride = cols + r.between(0, 2);
    let src = m.take(rows * src_stride);
    let (dst, dst_row_stride, dst_col_stride) = match r.between(0, 2) {
        0 => (src, src_stride, 1),
        1 => (m.take(rows * (cols + 1)), cols + 1, 1),
        _ => (m.take(cols * (rows + 1)), 1, rows + 1),
    };
    let exps = m.take([1, rows, cols][axis as usize]);
    m.with(Prep2d { src, rows, cols, src_stride, dst, dst_row_stride, dst_col_stride, exps, axis })
}

/// A random call with one of the activations, losses and optimizers that only [`Bench::rest`](crate::Bench::rest) has; else as [`random`].
#[must_use]
pub fn random_of_all(kernel: u32, seed: u64, data: Data, size: u32) -> Case {
    let mut case = random(kernel, seed, data, size);
    let mut r = Random::new(seed ^ 0x55);
    match &mut case.call {
        KernelCall::BiasAct(k) => k.activation = r.one_of(LARGE_ACTIVATIONS) as u32,
        KernelCall::ActGrad(k) => k.activation = r.one_of(LARGE_ACTIVATIONS) as u32,
        KernelCall::Loss(k) if k.kind != LossKind::SparseCategoricalCrossentropy as u32 => {
            k.kind = LossKind::BinaryCrossentropy as u32;
        }
        KernelCall::OptimizerStep(k) if k.kind == Optimizer::Adam as u32 => {
            let mut m = Memory::new(seed, data);
            m.random = r.clone();
            let momentum = r.between(0, 1) == 0;
            return optimizer(m, Optimizer::RmsProp, k.count, momentum, r.between(0, 1) == 0, 0);
        }
        _ => {}
    }
    case
}

/// A matrix product; `pad` words between rows.
#[must_use]
pub fn gemm(mut m: Memory, rows: u32, k: u32, n: u32, accumulate: u32, pad: u32) -> Case {
    let (a_stride, b_stride, c_stride) = (k + pad, n + pad, n + pad);
    let (a, b) = (m.mantissas(rows * a_stride), m.mantissas(k * b_stride));
    let (a_exps, b_exps) = (m.exponents(rows), m.exponents(n));
    let c = m.take(rows * c_stride);
    m.with(Gemm { a, a_exps, a_stride, b, b_exps, b_stride, c, c_stride, m: rows, k, n, accumulate })
}

/// Bias and activation.
#[must_use]
pub fn bias_act(mut m: Memory, rows: u32, cols: u32, activation: u32, with_bias: bool, pad: u32) -> Case {
    let stride = cols + pad;
    let (y, bias) = (m.take(rows * stride), m.take(cols));
    let bias = if with_bias { bias } else { NONE };
    m.with(BiasAct { y, rows, cols, stride, bias, activation, alpha_bits: 0.3f32.to_bits() })
}

/// An axis of a window: (inputs, outputs).
fn outputs(input: u32, kernel: u32, stride: u32, dilation: u32, pad: u32, up: u32) -> u32 {
    let reach = dilation * (kernel - 1) + 1;
    ((input - 1) * up + 1 + 2 * pad).saturating_sub(reach) / stride + 1
}

fn conv(m: Memory, mut r: Random, size: u32) -> Case {
    let plain = size == 1 || r.between(0, 1) == 0;
    let mut step = |most: u32| if plain { 1 } else { r.between(1, most) };
    let (groups, dilation_y, dilation_x, up_y, up_x) = (step(3), step(2), step(2), step(3), step(3));
    let (stride_y, stride_x) = (step(3), step(3));
    let (in_h, in_w) = (r.between(6 + 4 * size, 12), r.between(6 + 6 * size, 9 + 9 * size));
    let (kh, kw, ci_group) = (r.between(1 + size, 5), r.between(1 + size, 5), r.between(1, 3 + size * 5));
    let co_group = r.between(1, 5) + size * 3;
    let (pad_y, pad_x) = (r.between(0, 2), r.between(0, 2));
    let co0 = if plain { 0 } else { r.between(0, co_group - 1) };
    let call = Conv {
        in_h,
        in_w,
        in_c: ci_group * groups,
        kh,
        kw,
        ci_group,
        co_group,
        co0,
        co_tile: r.between(1 + size * 3, (co_group * groups - co0).max(1 + size * 3)),
        out_h: outputs(in_h, kh, stride_y, dilation_y, pad_y, up_y),
        out_w: outputs(in_w, kw, stride_x, dilation_x, pad_x, up_x),
        oy0: r.between(0, 1),
        rows: r.between(1 + size, 4),
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
    conv_of(m, call)
}

/// A convolution with these sizes: buffers are found for it.
#[must_use]
pub fn conv_of(mut m: Memory, call: Conv) -> Case {
    let x = m.mantissas(call.in_h * call.in_w * call.in_c);
    let w_stride = call.co_tile + 1;
    let w = m.mantissas(call.kh * call.kw * call.ci_group * w_stride);
    let (x_exp, w_exps) = (m.exponents(1), m.exponents(call.co_tile));
    let y = m.take(call.rows * call.out_w * call.co_tile);
    m.with(Conv { x, x_exp, iy0: 0, w, w_stride, w_exps, y, ..call })
}

fn conv_wgrad(m: Memory, mut r: Random, size: u32) -> Case {
    let plain = size == 1 || r.between(0, 1) == 0;
    let mut step = |most: u32| if plain { 1 } else { r.between(1, most) };
    let (dilation_y, dilation_x, stride_y, stride_x) = (step(2), step(2), step(3), step(3));
    let (in_h, in_w) = (r.between(6 + 4 * size, 12), r.between(6 + 6 * size, 9 + 9 * size));
    let (kh, kw, in_c) = (r.between(1 + size, 5), r.between(1 + size, 5), r.between(1, 4));
    let (pad_y, pad_x) = (r.between(0, 2), r.between(0, 2));
    let ci0 = r.between(0, in_c - 1);
    let call = ConvWgrad {
        in_h,
        in_w,
        in_c,
        ci0,
        ci_tile: r.between(1, in_c - ci0),
        co_tile: r.between(1 + size * 3, 9),
        oy0: r.between(0, 1),
        rows: r.between(1 + size, 4),
        out_h: outputs(in_h, kh, stride_y, dilation_y, pad_y, 1),
        out_w: outputs(in_w, kw, stride_x, dilation_x, pad_x, 1),
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
    conv_wgrad_of(m, call)
}

/// A weights' gradient with these sizes: buffers are found for it.
#[must_use]
pub fn conv_wgrad_of(mut m: Memory, call: ConvWgrad) -> Case {
    let x = m.mantissas(call.in_h * call.in_w * call.in_c);
    let dy = m.mantissas(call.rows * call.out_w * call.co_tile);
    let (x_exp, dy_exp) = (m.exponents(1), m.exponents(1));
    let dw = m.take(call.kh * call.kw * call.ci_tile * call.co_tile);
    m.with(ConvWgrad { x, x_exp, iy0: 0, dy, dy_exp, dw, ..call })
}

fn pool(mut m: Memory, mut r: Random, size: u32) -> Case {
    let (in_h, in_w, channels) = (r.between(4 + 4 * size, 12), r.between(4 + 4 * size, 14), r.between(1, 6));
    let (kh, kw) = (r.between(1 + size, 3), r.between(1 + size, 3));
    let (stride_y, stride_x) = (r.between(1 + size, 3), r.between(1 + size, 3));
    let (pad_y, pad_x) = (r.between(0, 2 - size), r.between(0, 2 - size));
    let (out_h, out_w) = (outputs(in_h, kh, stride_y, 1, pad_y, 1), outputs(in_w, kw, stride_x, 1, pad_x, 1));
    let rows = r.between(1 + size, 4);
    let (x, y) = (m.take(in_h * in_w * channels), m.take(rows * out_w * channels));
    m.with(Pool {
        mode: r.between(0, 1),
        x,
        iy0: 0,
        in_h,
        in_w,
        channels,
        y,
        oy0: r.between(0, 1),
        rows,
        out_h,
        out_w,
        kh,
        kw,
        stride_y,
        stride_x,
        pad_y: pad_y as i32,
        pad_x: pad_x as i32,
    })
}

fn pool_grad(mut m: Memory, mut r: Random, size: u32) -> Case {
    let (in_h, in_w, channels) = (r.between(4 + 4 * size, 12), r.between(4 + 4 * size, 12), r.between(1, 4));
    let (kh, kw) = (r.between(1 + size, 3), r.between(1 + size, 3));
    let (stride_y, stride_x) = (r.between(1 + size, 3), r.between(1 + size, 3));
    let (pad_y, pad_x) = (r.between(0, 2 - size) as i32, r.between(0, 2 - size) as i32);
    let out_h = outputs(in_h, kh, stride_y, 1, pad_y as u32, 1);
    let out_w = outputs(in_w, kw, stride_x, 1, pad_x as u32, 1);
    let rows = r.between(1 + size, 6);
    let mode = r.between(0, 1);
    let x = m.take(in_h * in_w * channels);
    let (y, dy) = (m.take(out_h * out_w * channels), m.take(out_h * out_w * channels));
    let dx = m.take(rows * in_w * channels);
    // The outputs that belong to the inputs.
    let forward = Pool {
        mode: 0,
        x,
        iy0: 0,
        in_h,
        in_w,
        channels,
        y,
        oy0: 0,
        rows: out_h,
        out_h,
        out_w,
        kh,
        kw,
        stride_y,
        stride_x,
        pad_y,
        pad_x,
    };
    KernelCall::from(forward).run(&mut m.words);
    m.with(PoolGrad {
        mode,
        x,
        x_iy0: 0,
        in_h,
        in_w,
        channels,
        y,
        dy,
        oy0: 0,
        out_h,
        out_w,
        dx,
        iy0: r.between(0, 2),
        rows,
        kh,
        kw,
        stride_y,
        stride_x,
        pad_y,
        pad_x,
    })
}

fn loss(mut m: Memory, mut r: Random, size: u32) -> Case {
    let kind = r.one_of(&[
        LossKind::MeanSquaredError,
        LossKind::MeanAbsoluteError,
        LossKind::CategoricalCrossentropy,
        LossKind::SparseCategoricalCrossentropy,
    ]);
    let (rows, cols) = (r.between(1 + 3 * size, 8), r.between(1 + 9 * size, 16));
    let from_logits = r.between(0, 1);
    let pred = if from_logits == 1 { m.take(rows * cols) } else { m.probabilities(rows * cols) };
    let target = match kind {
        LossKind::SparseCategoricalCrossentropy => m.classes(rows, cols),
        _ => m.probabilities(rows * cols),
    };
    let (weight, loss, grad) = (m.positive(rows), m.take(rows), m.take(rows * cols));
    m.with(Loss {
        kind: kind as u32,
        pred,
        target,
        weight,
        loss,
        grad: if r.between(0, 3) == 0 { NONE } else { grad },
        rows,
        cols,
        from_logits,
        fused: r.between(0, 1),
        smoothing_bits: r.one_of(&[0.0f32, 0.1]).to_bits(),
    })
}

/// An optimizer's step.
#[must_use]
pub fn optimizer(mut m: Memory, kind: Optimizer, count: u32, momentum: bool, centred: bool, decay: u32) -> Case {
    let (w, g) = (m.take(count), m.take(count));
    let state = m.take(count);
    let (v, x) = (m.positive(count), m.take(count));
    let needs_m = matches!(kind, Optimizer::Adam | Optimizer::SgdNesterov);
    let has_v = matches!(kind, Optimizer::Adam | Optimizer::RmsProp);
    let scalars = m.take(spidnn_kernels::optimizer::WORDS as u32);
    let words = spidnn_kernels::optimizer::Scalars { momentum: 0.9, weight_decay: 0.01, ..Default::default() }.words(3);
    m.words[scalars as usize / 4..][..words.len()].copy_from_slice(&words);
    m.with(OptimizerStep {
        kind: kind as u32,
        w,
        g,
        m: if needs_m || momentum { state } else { NONE },
        v: if has_v { v } else { NONE },
        x: if kind == Optimizer::RmsProp && centred { x } else { NONE },
        count,
        scalars,
        decay,
    })
}

/// A case of a report.
#[derive(Debug, Clone)]
pub struct Named {
    /// What it is.
    pub name: &'static str,
    /// The case.
    pub case: Case,
    /// What one piece of work is called.
    pub unit: &'static str,
    /// Pieces of work.
    pub units: u64,
}

/// The cases that reports print and the cost table is held to: every kernel, at sizes as layers have them.
#[must_use]
pub fn named() -> Vec<Named> {
    let mut all = Vec::new();
    let mut add = |name, case: Case, unit, units: u32| all.push(Named { name, case, unit, units: units.into() });
    let m = || Memory::new(1, Data::Usual);
    for (name, rows, k, n, accumulate) in [
        ("Gemm 64x64x64", 64, 64, 64, 0),
        ("Gemm 10x120x5, Dense 120 -> 84 on 17 cores", 10, 120, 5, 0),
        ("Gemm 16x400x7", 16, 400, 7, 0),
        ("Gemm 8x32x10 accumulating", 8, 32, 10, 1),
    ] {
        add(name, gemm(m(), rows, k, n, accumulate, 0), "MAC", rows * k * n);
    }
    let plain =
        Conv { stride_y: 1, stride_x: 1, dilation_y: 1, dilation_x: 1, up_y: 1, up_x: 1, oy0: 0, ..Conv::default() };
    let conv = |size, c, k, co, out, pad: u32, rows| Conv {
        in_h: size,
        in_w: size,
        in_c: c,
        kh: k,
        kw: k,
        ci_group: c,
        co_group: co,
        co_tile: co,
        out_h: out,
        out_w: out,
        pad_y: pad as i32,
        pad_x: pad as i32,
        oy0: 4,
        rows,
        ..plain
    };
    add("Conv LeNet 1, 2 rows", conv_of(m(), conv(28, 1, 5, 6, 28, 2, 2)), "MAC", 2 * 28 * 25 * 6);
    add("Conv LeNet 2, 2 rows", conv_of(m(), conv(14, 6, 5, 16, 10, 0, 2)), "MAC", 2 * 10 * 150 * 16);
    add("Conv 3x3, 16 -> 16, 2 rows", conv_of(m(), conv(12, 16, 3, 16, 12, 1, 2)), "MAC", 2 * 12 * 144 * 16);
    let depthwise = Conv { ci_group: 1, co_group: 1, ..conv(12, 8, 3, 8, 12, 1, 2) };
    add("Conv 3x3 depthwise, 8 channels, 2 rows", conv_of(m(), depthwise), "MAC", 2 * 12 * 9 * 8);
    let gradient = |size, c, k, co, out, pad: u32, rows| ConvWgrad {
        in_h: size,
        in_w: size,
        in_c: c,
        ci_tile: c,
        co_tile: co,
        oy0: 2,
        rows,
        out_h: out,
        out_w: out,
        kh: k,
        kw: k,
        stride_y: 1,
        stride_x: 1,
        dilation_y: 1,
        dilation_x: 1,
        pad_y: pad as i32,
        pad_x: pad as i32,
        ..ConvWgrad::default()
    };
    add("ConvWgrad LeNet 1, 4 rows", conv_wgrad_of(m(), gradient(28, 1, 5, 6, 28, 2, 4)), "MAC", 4 * 28 * 25 * 6);
    add("ConvWgrad LeNet 2, 5 rows", conv_wgrad_of(m(), gradient(14, 6, 5, 16, 10, 0, 5)), "MAC", 5 * 10 * 150 * 16);

    let matrix = |axis, rows, cols, transposed| {
        let mut m = m();
        let (src, other, exps) = (m.take(rows * cols), m.take(rows * cols), m.take(rows + cols));
        let (dst, dst_row_stride, dst_col_stride) = if transposed { (other, 1, rows) } else { (src, cols, 1) };
        m.with(Prep2d { src, rows, cols, src_stride: cols, dst, dst_row_stride, dst_col_stride, exps, axis })
    };
    add("Prep2d rows, 16x120", matrix(1, 16, 120, false), "element", 1920);
    add("Prep2d columns, 120x12", matrix(2, 120, 12, false), "element", 1440);
    add("Prep2d whole, 16x60, transposed", matrix(0, 16, 60, true), "element", 960);
    let mut window = m();
    let (x, exp) = (window.take(1200), window.take(1));
    add(
        "PrepWindow 6 rows of 200",
        window.with(PrepWindow { x, first: 2, rows: 6, limit: 14, row_words: 200, exp }),
        "element",
        1200,
    );
    let mut backward = m();
    let (src, dst, exps) = (backward.take(2400), backward.take(2400), backward.take(6));
    add(
        "PrepConvBackward 5x5, 6, 16",
        backward.with(PrepConvBackward { src, dst, exps, kh: 5, kw: 5, ci: 6, co: 16 }),
        "element",
        2400,
    );
    for (name, kind, bias) in [
        ("BiasAct linear", Activation::Linear, true),
        ("BiasAct relu", Activation::Relu, true),
        ("BiasAct leaky relu", Activation::LeakyRelu, true),
        ("BiasAct sigmoid", Activation::Sigmoid, false),
        ("BiasAct hard sigmoid", Activation::HardSigmoid, false),
        ("BiasAct tanh", Activation::Tanh, false),
        ("BiasAct exponential", Activation::Exponential, false),
        ("BiasAct softsign", Activation::Softsign, false),
        ("BiasAct clipped relu", Activation::ClippedRelu, false),
    ] {
        add(name, bias_act(m(), 8, 60, kind as u32, bias, 0), "element", 480);
    }
    for (name, kind) in [
        ("ActGrad relu", Activation::Relu),
        ("ActGrad tanh", Activation::Tanh),
        ("ActGrad sigmoid", Activation::Sigmoid),
        ("ActGrad leaky relu", Activation::LeakyRelu),
    ] {
        let mut m = m();
        let (dy, saved) = (m.take(480), m.take(480));
        let call = ActGrad { dy, saved, out: dy, count: 480, activation: kind as u32, alpha_bits: 0.3f32.to_bits() };
        add(name, m.with(call), "element", 480);
    }
    for (name, op) in
        [("Map2 add", 0), ("Map2 subtract", 1), ("Map2 multiply", 2), ("Map2 maximum", 3), ("Map2 minimum", 4)]
    {
        let mut m = m();
        let (a, b, out) = (m.take(480), m.take(480), m.take(480));
        add(name, m.with(Map2 { op, a, b, out, count: 480 }), "element", 480);
    }
    let mut scaled = m();
    let (x, scale, shift) = (scaled.take(480), scaled.take(60), scaled.take(60));
    add("ScaleShift 8x60", scaled.with(ScaleShift { x, out: x, rows: 8, cols: 60, scale, shift }), "element", 480);
    let mut factor = m();
    let x = factor.take(480);
    add("Scale", factor.with(Scale { x, out: x, count: 480, factor_bits: 0.3f32.to_bits() }), "element", 480);
    for (name, op) in [("ColumnSum", 0), ("ColumnSum of products", 1), ("ColumnSum of squares", 3)] {
        let mut m = m();
        let (x, y, sum) = (m.take(480), m.take(480), m.take(60));
        add(name, m.with(ColumnSum { op, x, y, rows: 8, cols: 60, row_stride: 60, sum }), "element", 480);
    }
    let mut parts = m();
    let (src, dst) = (parts.take(1600), parts.take(400));
    add("SumParts 4 x 400", parts.with(SumParts { src, parts: 4, stride: 400, count: 400, dst }), "element", 1600);
    for (name, mode) in [("Pool maximum 2x2, 6 channels", 0), ("Pool average 2x2, 6 channels", 1)] {
        let mut m = m();
        let (x, y) = (m.take(28 * 28 * 6), m.take(4 * 14 * 6));
        let call = Pool {
            mode,
            x,
            in_h: 28,
            in_w: 28,
            channels: 6,
            y,
            rows: 4,
            out_h: 14,
            out_w: 14,
            kh: 2,
            kw: 2,
            stride_y: 2,
            stride_x: 2,
            ..Pool::default()
        };
        add(name, m.with(call), "output", 4 * 14 * 6);
    }
    for (name, mode) in [("PoolGrad maximum 2x2, 6 channels", 0), ("PoolGrad average 2x2, 6 channels", 1)] {
        let mut m = m();
        let (x, y, dy, dx) = (m.take(28 * 28 * 6), m.take(14 * 14 * 6), m.take(14 * 14 * 6), m.take(4 * 28 * 6));
        let forward = Pool {
            mode: 0,
            x,
            in_h: 28,
            in_w: 28,
            channels: 6,
            y,
            rows: 14,
            out_h: 14,
            out_w: 14,
            kh: 2,
            kw: 2,
            stride_y: 2,
            stride_x: 2,
            ..Pool::default()
        };
        KernelCall::from(forward).run(&mut m.words);
        let call = PoolGrad {
            mode,
            x,
            in_h: 28,
            in_w: 28,
            channels: 6,
            y,
            dy,
            out_h: 14,
            out_w: 14,
            dx,
            rows: 4,
            kh: 2,
            kw: 2,
            stride_y: 2,
            stride_x: 2,
            ..PoolGrad::default()
        };
        add(name, m.with(call), "cell", 4 * 28 * 6);
    }
    for (name, rows, cols) in [("Softmax 10x10", 10, 10), ("Softmax 2x100", 2, 100)] {
        let mut m = m();
        let x = m.take(rows * cols);
        add(name, m.with(Softmax { x, out: x, rows, cols }), "element", rows * cols);
    }
    for (name, kind, fused) in [
        ("Loss mean squared", LossKind::MeanSquaredError, 0),
        ("Loss categorical, fused", LossKind::CategoricalCrossentropy, 1),
        ("Loss categorical", LossKind::CategoricalCrossentropy, 0),
        ("Loss sparse, fused", LossKind::SparseCategoricalCrossentropy, 1),
    ] {
        let mut m = m();
        let (rows, cols) = (10, 10);
        let pred = m.probabilities(100);
        let target =
            if kind == LossKind::SparseCategoricalCrossentropy { m.classes(10, 10) } else { m.probabilities(100) };
        let (weight, loss, grad) = (m.positive(10), m.take(10), m.take(100));
        let call =
            Loss { kind: kind as u32, pred, target, weight, loss, grad, rows, cols, fused, ..Default::default() };
        add(name, m.with(call), "element", 100);
    }
    for (name, kind, momentum) in [
        ("OptimizerStep SGD", Optimizer::Sgd, false),
        ("OptimizerStep SGD with momentum", Optimizer::Sgd, true),
        ("OptimizerStep Adam", Optimizer::Adam, false),
    ] {
        add(name, optimizer(m(), kind, 300, momentum, false, 0), "element", 300);
    }
    let mut moves = m();
    let (src, dst) = (moves.take(1000), moves.take(1000));
    let call = CopyRows { src, dst, rows: 10, count: 100, src_stride: 100, dst_stride: 100 };
    add("CopyRows 10x100", moves.with(call), "word", 1000);
    let mut fill = m();
    let dst = fill.take(1000);
    add("Fill 1000", fill.with(Fill { dst, count: 1000, value_bits: 0 }), "word", 1000);
    all
}
