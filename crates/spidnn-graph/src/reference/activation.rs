//! Activations and their derivatives.

use crate::Activation;

const SELU_SCALE: f64 = 1.050_700_987_355_480_5;
const SELU_ALPHA: f64 = 1.673_263_242_354_377_2;

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + libm::exp(-x))
}

/// `ln(1 + exp(x))` without overflow.
fn softplus(x: f64) -> f64 {
    x.max(0.0) + libm::log1p(libm::exp(-x.abs()))
}

/// Of an element-wise activation: its value and its derivative at `x`. `None` for softmax, which is not element-wise. At corners
/// the derivative is the one that Keras on TensorFlow takes (0 at 0 for relu).
pub fn at(activation: Activation, x: f32) -> Option<(f32, f32)> {
    let z = f64::from(x);
    let (value, slope) = match activation {
        Activation::Linear => (z, 1.0),
        Activation::Relu => {
            if z > 0.0 {
                (z, 1.0)
            } else {
                (z.max(0.0), 0.0)
            }
        }
        Activation::ClippedRelu { max_value } => {
            let max = f64::from(max_value);
            (z.max(0.0).min(max), f64::from(u8::from(z > 0.0 && z < max)))
        }
        Activation::LeakyRelu { negative_slope } => {
            let slope = if z > 0.0 { 1.0 } else { f64::from(negative_slope) };
            (z * slope, slope)
        }
        Activation::Elu { alpha } => {
            let alpha = f64::from(alpha);
            if z > 0.0 { (z, 1.0) } else { (alpha * libm::expm1(z), alpha * libm::exp(z)) }
        }
        Activation::Selu => {
            if z >= 0.0 {
                (SELU_SCALE * z, SELU_SCALE)
            } else {
                (SELU_SCALE * SELU_ALPHA * libm::expm1(z), SELU_SCALE * SELU_ALPHA * libm::exp(z))
            }
        }
        Activation::Sigmoid => {
            let s = sigmoid(z);
            (s, s * sigmoid(-z))
        }
        Activation::HardSigmoid => ((z + 3.0).clamp(0.0, 6.0) / 6.0, if z > -3.0 && z < 3.0 { 1.0 / 6.0 } else { 0.0 }),
        Activation::Tanh => {
            let t = libm::tanh(z);
            (t, (1.0 - t) * (1.0 + t))
        }
        Activation::Softplus => (softplus(z), sigmoid(z)),
        Activation::Softsign => {
            let scale = 1.0 / (1.0 + z.abs());
            (z * scale, scale * scale)
        }
        Activation::Silu => {
            let s = sigmoid(z);
            (z * s, s * (1.0 + z * sigmoid(-z)))
        }
        Activation::Gelu { approximate: false } => {
            let area = 0.5 * libm::erfc(-z * std::f64::consts::FRAC_1_SQRT_2);
            let density = libm::exp(-0.5 * z * z) / (2.0 * std::f64::consts::PI).sqrt();
            (z * area, area + z * density)
        }
        Activation::Gelu { approximate: true } => {
            let scale = (2.0 / std::f64::consts::PI).sqrt();
            // 0.5 (1 + tanh u) is sigmoid(2 u), which does not cancel.
            let u = 2.0 * scale * (z + 0.044715 * z * z * z);
            let slope = 2.0 * scale * (1.0 + 3.0 * 0.044715 * z * z);
            let s = sigmoid(u);
            (z * s, s + z * s * sigmoid(-u) * slope)
        }
        Activation::Exponential => {
            let e = libm::exp(z);
            (e, e)
        }
        Activation::Softmax => return None,
    };
    Some((value as f32, slope as f32))
}

/// Applies an activation; `row` is the length of the last axis (softmax goes over it).
pub fn apply(activation: Activation, values: &[f32], row: usize) -> Vec<f32> {
    if activation == Activation::Linear {
        return values.to_vec();
    }
    if activation == Activation::Softmax {
        let mut result = Vec::with_capacity(values.len());
        for values in values.chunks(row.max(1)) {
            let max = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let powers: Vec<f64> = values.iter().map(|x| libm::exp(f64::from(*x) - f64::from(max))).collect();
            let sum: f64 = powers.iter().sum();
            result.extend(powers.iter().map(|power| (power / sum) as f32));
        }
        return result;
    }
    values.iter().map(|x| at(activation, *x).map_or(0.0, |(value, _)| value)).collect()
}

/// The gradient with respect to the input `before` of an activation whose result was `after`, from that with respect to its result.
pub fn backward(activation: Activation, before: &[f32], after: &[f32], cotangent: &[f32], row: usize) -> Vec<f32> {
    if activation == Activation::Softmax {
        let row = row.max(1);
        let mut result = Vec::with_capacity(after.len());
        for (after, cotangent) in after.chunks(row).zip(cotangent.chunks(row)) {
            let dot: f64 = after.iter().zip(cotangent).map(|(y, g)| f64::from(*y) * f64::from(*g)).sum();
            result.extend(after.iter().zip(cotangent).map(|(y, g)| (f64::from(*y) * (f64::from(*g) - dot)) as f32));
        }
        return result;
    }
    before.iter().zip(cotangent).map(|(x, g)| at(activation, *x).map_or(0.0, |(_, slope)| slope * g)).collect()
}
