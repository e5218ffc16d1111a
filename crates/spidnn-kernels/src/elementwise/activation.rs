//! Activations and their derivatives.

use core::cell::Cell;

use super::{compiled, loop_of, op};
use crate::apart::{self, COMMON, EXPONENTIAL, GAUSSIAN};
use crate::call::{ActGrad, BiasAct, NONE};
#[cfg(target_arch = "arm")]
use crate::dtcm::word;
use crate::dtcm::{BadCall, Bounds, cells, part, words};
use crate::functions::{self as f, cycles as cost};
use crate::kind::built;
#[cfg(not(target_arch = "arm"))]
use crate::num::store;
use crate::num::{self, abs, add, div, is_nan, less, load, max, min, mul, sub};
use crate::{Activation, Kernel};

/// Keras' scale of selu.
const SELU_SCALE: f32 = 1.050_701;
/// The scale times alpha (1.6732632).
const SELU_SCALE_ALPHA: f32 = 1.758_099_3;
/// `1 / sqrt(2 pi)`
const NORMAL_PEAK: f32 = 0.398_942_3;

fn activation(number: u32) -> Result<Activation, BadCall> {
    Activation::from_number(number).filter(|kind| kind.is_built()).ok_or(BadCall::value("activation", number))
}

#[cfg(not(target_arch = "arm"))]
fn each(x: &[Cell<u32>], function: impl Fn(f32) -> f32) {
    for cell in x {
        store(cell, function(load(cell)));
    }
}

/// `x = act(x)` for every word: one function of assembly or one of the portable ones after the other.
#[cfg(target_arch = "arm")]
fn activate<const PART: u8>(x: &[Cell<u32>], activation: Activation, alpha: f32) {
    use crate::arm::{functions as g, map};
    extern "C" fn elu(x: f32, alpha: f32) -> f32 {
        if less(0.0, x) { x } else { mul(alpha, f::exp_m1_negative(x)) }
    }
    extern "C" fn selu(x: f32, _: f32) -> f32 {
        if less(0.0, x) { mul(SELU_SCALE, x) } else { mul(SELU_SCALE_ALPHA, f::exp_m1_negative(x)) }
    }
    extern "C" fn softplus(x: f32, _: f32) -> f32 {
        f::softplus(x)
    }
    extern "C" fn silu(x: f32, _: f32) -> f32 {
        f::silu(x)
    }
    extern "C" fn gelu(x: f32, _: f32) -> f32 {
        f::gelu(x)
    }
    extern "C" fn gelu_tanh(x: f32, _: f32) -> f32 {
        f::gelu_tanh(x)
    }
    extern "C" fn softsign(x: f32, _: f32) -> f32 {
        f::softsign(x)
    }
    match activation {
        Activation::Elu if apart::has(PART, EXPONENTIAL) && built::EXPONENTIAL => map(elu, x, alpha),
        Activation::Softplus if apart::has(PART, EXPONENTIAL) && built::EXPONENTIAL => map(softplus, x, 0.0),
        Activation::Silu if apart::has(PART, EXPONENTIAL) && built::EXPONENTIAL => map(silu, x, 0.0),
        Activation::Selu if apart::has(PART, EXPONENTIAL) && built::EXPONENTIAL => map(selu, x, 0.0),
        Activation::Gelu if apart::has(PART, GAUSSIAN) && built::GAUSSIAN => map(gelu, x, 0.0),
        Activation::GeluTanh if apart::has(PART, GAUSSIAN) && built::GAUSSIAN => map(gelu_tanh, x, 0.0),
        _ if !apart::has(PART, COMMON) => {}
        Activation::Linear => {}
        Activation::Relu => map(g::relu, x, 0.0),
        Activation::LeakyRelu if built::FURTHER => map(g::leaky_relu, x, alpha),
        Activation::Sigmoid => map(g::sigmoid, x, 0.0),
        Activation::HardSigmoid if built::FURTHER => {
            map(g::add, x, 3.0);
            map(g::relu, x, 0.0);
            map(g::min, x, 6.0);
            map(g::div, x, 6.0);
        }
        Activation::Tanh => map(g::tanh, x, 0.0),
        Activation::Exponential if built::FURTHER => map(g::exp, x, 0.0),
        Activation::Softsign if built::FURTHER => map(softsign, x, 0.0),
        Activation::ClippedRelu if built::FURTHER => {
            map(g::relu, x, 0.0);
            map(g::min, x, alpha);
        }
        // Not built: a call that was not checked.
        _ => {}
    }
}

/// `x = act(x)` for every word.
#[cfg(not(target_arch = "arm"))]
fn activate<const PART: u8>(x: &[Cell<u32>], activation: Activation, alpha: f32) {
    match activation {
        _ if !activation.is_built() || !apart::has(PART, apart::of_activation(activation)) => {}
        Activation::Linear => {}
        Activation::Relu => each(x, |x| max(x, 0.0)),
        Activation::LeakyRelu => each(x, |x| if less(x, 0.0) { mul(alpha, x) } else { x }),
        Activation::Elu => each(x, |x| if less(0.0, x) { x } else { mul(alpha, f::exp_m1_negative(x)) }),
        Activation::Sigmoid => f::sigmoid_cells(x),
        Activation::HardSigmoid => each(x, |x| div(min(max(add(x, 3.0), 0.0), 6.0), 6.0)),
        Activation::Tanh => f::tanh_cells(x),
        Activation::Softplus => each(x, f::softplus),
        Activation::Silu => each(x, f::silu),
        Activation::Gelu => each(x, f::gelu),
        Activation::GeluTanh => each(x, f::gelu_tanh),
        Activation::Exponential => f::exp_cells(x),
        Activation::Selu => {
            each(x, |x| if less(0.0, x) { mul(SELU_SCALE, x) } else { mul(SELU_SCALE_ALPHA, f::exp_m1_negative(x)) })
        }
        Activation::Softsign => each(x, f::softsign),
        Activation::ClippedRelu => each(x, |x| min(max(x, 0.0), alpha)),
    }
}

/// Loops over the vector, and cycles of the functions of an element in them. (Relus: half of the elements are below zero.)
fn activation_loops(activation: Activation) -> [u64; 2] {
    match activation {
        Activation::Linear => [0, 0],
        Activation::Relu => [1, op::NUMBER + 1],
        Activation::LeakyRelu => [1, 25],
        Activation::Elu => [1, cost::ELU],
        Activation::Sigmoid => [1, cost::SIGMOID],
        Activation::HardSigmoid => [4, op::ADD + op::NUMBER + 1 + op::COMPARE + op::DIV],
        Activation::Tanh => [1, cost::TANH],
        Activation::Softplus => [1, cost::SOFTPLUS],
        Activation::Silu => [1, cost::SILU],
        Activation::Gelu => [1, cost::GELU],
        Activation::GeluTanh => [1, cost::GELU_TANH],
        Activation::Exponential => [1, cost::EXP],
        Activation::Selu => [1, cost::ELU],
        Activation::Softsign => [1, cost::SOFTSIGN],
        Activation::ClippedRelu => [2, op::NUMBER + 1 + op::COMPARE],
    }
}

impl BiasAct {
    /// [`Kernel::run`], with a part of the activations.
    pub(crate) fn run_with<const PART: u8>(&self, dtcm: &mut [u32]) {
        let Ok(kind) = activation(self.activation) else { panic!("unchecked call") };
        let (rows, cols, stride) = (self.rows as usize, self.cols as usize, self.stride as usize);
        if rows == 0 || cols == 0 {
            return;
        }
        let dtcm = cells(dtcm);
        let y = words(dtcm, self.y, (rows - 1) * stride + cols);
        if self.bias != NONE {
            let bias = words(dtcm, self.bias, cols);
            for row in 0..rows {
                let y = part(y, row * stride, cols);
                #[cfg(target_arch = "arm")]
                crate::arm::zip(crate::arm::functions::add, y, bias, y);
                #[cfg(not(target_arch = "arm"))]
                for (y, b) in y.iter().zip(bias) {
                    store(y, add(load(y), load(b)));
                }
            }
        }
        let alpha = f32::from_bits(self.alpha_bits);
        if stride == cols {
            activate::<PART>(y, kind, alpha);
        } else {
            for row in 0..rows {
                activate::<PART>(part(y, row * stride, cols), kind, alpha);
            }
        }
    }
}

impl Kernel for BiasAct {
    fn check(&self, dtcm_words: usize) -> Result<(), BadCall> {
        activation(self.activation)?;
        let bounds = Bounds { words: dtcm_words };
        let y = bounds.rows("y", self.y, self.rows, self.cols, self.stride)?;
        if self.rows > 1 && self.stride < self.cols {
            return Err(BadCall::value("stride", self.stride));
        }
        if self.bias != NONE && self.rows > 0 {
            bounds.span("bias", self.bias, self.cols)?.apart_from(&[y])?;
        }
        Ok(())
    }

    fn run(&self, dtcm: &mut [u32]) {
        self.run_with::<{ apart::USUAL }>(dtcm);
    }

    fn cycles(&self) -> u64 {
        let Ok(kind) = activation(self.activation) else { return 0 };
        let (rows, cols) = (u64::from(self.rows), u64::from(self.cols));
        if rows == 0 || cols == 0 {
            return op::ENTRY;
        }
        let bias = if self.bias == NONE { 0 } else { rows * loop_of(cols, op::ADD) };
        // Rows with a gap between them one by one.
        let (loops, count) = if self.stride == self.cols { (1, rows * cols) } else { (rows, cols) };
        let [n, cycles] = activation_loops(kind);
        op::ENTRY + 20 + bias + loops * (35 + n * (loop_of(count, 0) - 20)) + rows * cols * cycles
    }
}

/// Derivative of an activation from what the forward pass saved.
fn derivative<const PART: u8>(kind: Activation, alpha: f32, saved: f32) -> f32 {
    let x = saved;
    if is_nan(x) {
        return num::NAN;
    }
    let step = |condition: bool, yes: f32, no: f32| if condition { yes } else { no };
    match kind {
        Activation::Elu if apart::has(PART, EXPONENTIAL) && built::EXPONENTIAL => {
            step(less(0.0, x), 1.0, add(x, alpha))
        }
        Activation::Selu if apart::has(PART, EXPONENTIAL) && built::EXPONENTIAL => {
            step(less(x, 0.0), add(x, SELU_SCALE_ALPHA), SELU_SCALE)
        }
        Activation::Softplus if apart::has(PART, EXPONENTIAL) && built::EXPONENTIAL => f::sigmoid_of(x),
        Activation::Silu if apart::has(PART, EXPONENTIAL) && built::EXPONENTIAL => {
            let s = f::sigmoid_of(x);
            mul(s, add(1.0, mul(x, sub(1.0, s))))
        }
        Activation::Gelu if apart::has(PART, GAUSSIAN) && built::GAUSSIAN => {
            // Beyond 20 the density is zero, but infinity times zero would not be.
            let z = min(max(x, -20.0), 20.0);
            add(f::normal(x), mul(z, mul(NORMAL_PEAK, f::exp_of(mul(-0.5, mul(z, z))))))
        }
        Activation::GeluTanh if apart::has(PART, GAUSSIAN) && built::GAUSSIAN => {
            let s = f::gelu_tanh_gate(x);
            let z = min(max(x, -20.0), 20.0);
            // The slope of the gate's argument: 2 sqrt(2 / pi) (1 + 3 * 0.044715 x^2).
            let slope = add(1.595_769_2, mul(0.214_064_43, mul(z, z)));
            add(s, mul(mul(z, slope), mul(s, sub(1.0, s))))
        }
        _ if !apart::has(PART, COMMON) => num::NAN,
        Activation::Linear => 1.0,
        Activation::Relu => step(less(0.0, x), 1.0, 0.0),
        Activation::LeakyRelu if built::FURTHER => step(less(0.0, x), 1.0, alpha),
        Activation::Sigmoid => mul(x, sub(1.0, x)),
        Activation::Tanh => sub(1.0, mul(x, x)),
        Activation::Exponential if built::FURTHER => x,
        Activation::HardSigmoid if built::FURTHER => step(less(-3.0, x) && less(x, 3.0), div(1.0, 6.0), 0.0),
        Activation::Softsign if built::FURTHER => {
            let d = add(1.0, abs(x));
            div(1.0, mul(d, d))
        }
        Activation::ClippedRelu if built::FURTHER => step(less(0.0, x) && less(x, alpha), 1.0, 0.0),
        _ => num::NAN,
    }
}

/// Operations of one derivative, and their cycles.
fn derivative_operations(kind: Activation) -> (u64, u64) {
    match kind {
        Activation::Linear | Activation::Exponential => (0, 0),
        Activation::Relu | Activation::LeakyRelu => (1, op::COMPARE),
        Activation::Elu | Activation::Selu => (2, op::COMPARE + op::ADD),
        Activation::Sigmoid | Activation::Tanh => (2, op::MUL + op::ADD),
        Activation::HardSigmoid => (3, 2 * op::COMPARE + op::DIV),
        // Below zero one comparison is enough.
        Activation::ClippedRelu => (1, op::COMPARE),
        Activation::Softplus => (1, cost::SIGMOID),
        Activation::Silu => (5, cost::SIGMOID + 2 * (op::MUL + op::ADD)),
        Activation::Gelu => (4, cost::GELU + 4 * op::MUL + op::ADD + 2 * op::COMPARE),
        Activation::GeluTanh => (6, cost::GELU_TANH + 4 * op::MUL + 2 * op::ADD + 2 * op::COMPARE),
        Activation::Softsign => (3, op::ADD + op::MUL + op::DIV),
    }
}

#[cfg(not(target_arch = "arm"))]
fn scale_by(dy: &[Cell<u32>], saved: &[Cell<u32>], out: &[Cell<u32>], slope: impl Fn(f32) -> f32) {
    for ((dy, saved), out) in dy.iter().zip(saved).zip(out) {
        store(out, mul(load(dy), slope(load(saved))));
    }
}

impl ActGrad {
    /// [`Kernel::run`], with a part of the activations.
    pub(crate) fn run_with<const PART: u8>(&self, dtcm: &mut [u32]) {
        let Ok(kind) = activation(self.activation) else { panic!("unchecked call") };
        let dtcm = cells(dtcm);
        let count = self.count as usize;
        let (dy, saved, out) =
            (words(dtcm, self.dy, count), words(dtcm, self.saved, count), words(dtcm, self.out, count));
        let alpha = f32::from_bits(self.alpha_bits);
        #[cfg(target_arch = "arm")]
        {
            extern "C" fn tanh(dy: f32, y: f32) -> f32 {
                mul(dy, sub(1.0, mul(y, y)))
            }
            extern "C" fn sigmoid(dy: f32, y: f32) -> f32 {
                mul(dy, mul(y, sub(1.0, y)))
            }
            match kind {
                Activation::Tanh if apart::has(PART, COMMON) => crate::arm::zip(tanh, dy, saved, out),
                Activation::Sigmoid if apart::has(PART, COMMON) => crate::arm::zip(sigmoid, dy, saved, out),
                Activation::Relu if apart::has(PART, COMMON) => {
                    crate::arm::zip(crate::arm::functions::relu_grad, dy, saved, out)
                }
                _ => {
                    for i in 0..count {
                        let slope = derivative::<PART>(kind, alpha, load(word(saved, i)));
                        num::store_result(word(out, i), mul(load(word(dy, i)), slope));
                    }
                }
            }
        }
        #[cfg(not(target_arch = "arm"))]
        match kind {
            // The common ones apart, so that their loops become vector code.
            Activation::Tanh => scale_by(dy, saved, out, |y| sub(1.0, mul(y, y))),
            Activation::Sigmoid => scale_by(dy, saved, out, |y| mul(y, sub(1.0, y))),
            Activation::Relu => scale_by(dy, saved, out, |y| derivative::<{ apart::ALL }>(Activation::Relu, 0.0, y)),
            _ => scale_by(dy, saved, out, |saved| derivative::<PART>(kind, alpha, saved)),
        }
    }
}

impl Kernel for ActGrad {
    fn check(&self, dtcm_words: usize) -> Result<(), BadCall> {
        activation(self.activation)?;
        let bounds = Bounds { words: dtcm_words };
        let count = self.count;
        let out = bounds.span("out", self.out, count)?;
        out.apart_or_same(&bounds.span("dy", self.dy, count)?)?;
        out.apart_or_same(&bounds.span("saved", self.saved, count)?)
    }

    fn run(&self, dtcm: &mut [u32]) {
        self.run_with::<{ apart::USUAL }>(dtcm);
    }

    fn cycles(&self) -> u64 {
        let Ok(kind) = activation(self.activation) else { return 0 };
        let count = u64::from(self.count);
        let (operations, cycles) = derivative_operations(kind);
        op::ENTRY
            + match kind {
                Activation::Relu => loop_of(count, 13),
                Activation::Tanh | Activation::Sigmoid => {
                    loop_of(count, 0) + compiled(count, operations + 1, cycles + op::MUL)
                }
                // The kind is looked at for each element.
                _ => compiled(count, operations + 5, cycles + op::MUL),
            }
    }
}
