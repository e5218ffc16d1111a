//! The scalars of an optimizer step: sixteen words that the host fills once for each step.
//!
//! What can be worked out once is worked out by the host, so that cores only multiply, add, divide and take
//! square roots. Rules (Keras 3), `decay` first and only where asked: `w -= w * DECAY`, then
//!
//! | kind | rule |
//! | --- | --- |
//! | SGD, no `m` | `w -= LEARNING_RATE * g` |
//! | SGD | `m = MOMENTUM * m - LEARNING_RATE * g; w += m` |
//! | SGD Nesterov | `m` as above; `w += MOMENTUM * m - LEARNING_RATE * g` |
//! | RMSprop | `v = RHO * v + ONE_MINUS_RHO * g^2`; with `x`: `x = RHO * x + ONE_MINUS_RHO * g`; `d = v - x^2 + EPSILON` (no `x`: `v + EPSILON`); `i = LEARNING_RATE * g / sqrt(d)`; with `m`: `m = MOMENTUM * m + i; w -= m`, else `w -= i` |
//! | Adam, AdamW | `m += (g - m) * ONE_MINUS_BETA_1; v += (g^2 - v) * ONE_MINUS_BETA_2; w -= m * ALPHA / (sqrt(v) + EPSILON)`, `ALPHA = learning_rate * sqrt(1 - beta_2^t) / (1 - beta_1^t)` |

/// Word of the learning rate.
pub const LEARNING_RATE: usize = 0;
/// Word of the momentum (SGD, RMSprop).
pub const MOMENTUM: usize = 1;
/// Word of RMSprop's discount.
pub const RHO: usize = 2;
/// Word of `1 - rho`.
pub const ONE_MINUS_RHO: usize = 3;
/// Word of `1 - beta_1`.
pub const ONE_MINUS_BETA_1: usize = 4;
/// Word of `1 - beta_2`.
pub const ONE_MINUS_BETA_2: usize = 5;
/// Word of Adam's step: learning rate with bias correction.
pub const ALPHA: usize = 6;
/// Word of the constant that keeps denominators from zero.
pub const EPSILON: usize = 7;
/// Word of `learning_rate * weight_decay`.
pub const DECAY: usize = 8;
/// Number of words; those not named are zero.
pub const WORDS: usize = 16;

/// Hyperparameters of a step, by their Keras names, and the words that cores take.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scalars {
    /// Step size of this step (after schedules).
    pub learning_rate: f32,
    /// Momentum of SGD and RMSprop.
    pub momentum: f32,
    /// Discount of RMSprop.
    pub rho: f32,
    /// Decay of Adam's first moment.
    pub beta_1: f32,
    /// Decay of Adam's second moment.
    pub beta_2: f32,
    /// Constant that keeps denominators from zero.
    pub epsilon: f32,
    /// Decoupled weight decay, as a fraction of the learning rate.
    pub weight_decay: f32,
}

impl Default for Scalars {
    /// Keras' defaults (learning rate: Adam's 0.001).
    fn default() -> Scalars {
        Scalars {
            learning_rate: 0.001,
            momentum: 0.0,
            rho: 0.9,
            beta_1: 0.9,
            beta_2: 0.999,
            epsilon: 1e-7,
            weight_decay: 0.0,
        }
    }
}

impl Scalars {
    /// The sixteen words of step `t`, counted from 1. Powers and the square root are taken in double precision of the
    /// hyperparameters rounded to f32, as Keras does.
    pub fn words(&self, t: u64) -> [u32; WORDS] {
        let power = |base: f32| {
            // By squaring: `core` has no powers. Exact enough: 64 products of doubles.
            let (mut result, mut square, mut n) = (1.0f64, f64::from(base), t);
            while n > 0 {
                if n & 1 == 1 {
                    result *= square;
                }
                square *= square;
                n >>= 1;
            }
            result
        };
        let correction = square_root(1.0 - power(self.beta_2)) / (1.0 - power(self.beta_1));
        let mut words = [0; WORDS];
        let mut set = |index: usize, value: f32| words[index] = value.to_bits();
        set(LEARNING_RATE, self.learning_rate);
        set(MOMENTUM, self.momentum);
        set(RHO, self.rho);
        // The complement of the hyperparameter as written (0.9, not 0.89999998), to the nearest f32.
        set(ONE_MINUS_RHO, complement(self.rho));
        set(ONE_MINUS_BETA_1, complement(self.beta_1));
        set(ONE_MINUS_BETA_2, complement(self.beta_2));
        set(ALPHA, (f64::from(self.learning_rate) * correction) as f32);
        set(EPSILON, self.epsilon);
        set(DECAY, (f64::from(self.learning_rate) * f64::from(self.weight_decay)) as f32);
        words
    }
}

/// `1 - x` for a decimal fraction that was rounded to `x`: seven digits are what an f32 can hold.
fn complement(x: f32) -> f32 {
    let digits = (f64::from(x) * 1e7 + 0.5) as i64;
    let decimal = digits as f64 / 1e7;
    if decimal as f32 == x { (1.0 - decimal) as f32 } else { (1.0 - f64::from(x)) as f32 }
}

/// Square root of a number of 0 .. 1 by Newton's method (`core` has none).
fn square_root(x: f64) -> f64 {
    if x.is_nan() || x <= 0.0 {
        return 0.0;
    }
    let mut root = f64::from_bits((x.to_bits() >> 1) + (1023u64 << 51));
    for _ in 0..5 {
        root = 0.5 * (root + x / root);
    }
    root
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scalars_are_kerases() {
        let words = Scalars { learning_rate: 0.01, weight_decay: 0.1, ..Scalars::default() }.words(3);
        let at = |i: usize| f32::from_bits(words[i]);
        assert_eq!(at(ONE_MINUS_BETA_1), 0.1);
        assert_eq!(at(ONE_MINUS_BETA_2), 0.001);
        assert_eq!(at(ONE_MINUS_RHO), 0.1);
        assert_eq!(at(DECAY), 0.001);
        let (b1, b2) = (f64::from(0.9f32), f64::from(0.999f32));
        let alpha = f64::from(0.01f32) * (1.0 - b2.powi(3)).sqrt() / (1.0 - b1.powi(3));
        assert!((f64::from(at(ALPHA)) / alpha - 1.0).abs() < 1e-7);
    }

    #[test]
    fn square_roots() {
        for x in [1e-300, 1e-9, 1.99e-6, 0.001, 0.25, 0.5, 0.999, 1.0] {
            assert!((square_root(x) / f64::sqrt(x) - 1.0).abs() < 4e-16, "{x}");
        }
        assert_eq!(square_root(0.0), 0.0);
    }
}
