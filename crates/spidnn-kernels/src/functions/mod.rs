//! Elementary functions in fixed point: integers only, so the same bits on any host, and no soft float.
//!
//! Each function is within 2 units in the last place of the true value (most within 0.6, see the tests); its cycles
//! on an ARM968 are in [`cycles`]. The source is one for core and host: only the smallest steps
//! (float to fixed point and back, [`crate::num`]) have a form of their own there, and without branches the
//! compiler turns [`exp_cells`] and the like into vector code.

use core::cell::Cell;

use crate::num;
use segments::{high, mul30};

#[cfg(test)]
mod generate;
pub mod segments;
#[rustfmt::skip]
mod tables;
#[cfg(test)]
mod tests;

/// Cycles of one value, argument and result in r0, return (3) included. Of assembly: argument to fixed point (14), log2 e by MLA (8), ln 2 / 16
/// by SMLAL (12), polynomial of the exponential (24), power of two (6), rounded pack (13), registers (4). The others are compiled code on
/// 64-bit integers and measured.
pub mod cycles {
    /// Exponential.
    pub const EXP: u64 = 88;
    /// Hyperbolic tangent: fixed point (10), segment (12), polynomial (28), product and pack (20), registers (8).
    pub const TANH: u64 = 79;
    /// Logistic function of numbers from -4 to 16, as of tanh. Below: argument and log2 e (28), power of two (26), 1 / (1 + u) (21), product, round and
    /// pack (14); of subnormal results 92. Above 16: 18.
    pub const SIGMOID: u64 = 83;
    /// 1 / sqrt(x): argument and segment (11), polynomial (31), root of 1/2 (8), round and pack (3), registers (9).
    pub const RECIPROCAL_SQRT: u64 = 60;
    /// x / (1 + |x|)
    pub const SOFTSIGN: u64 = 138;
    /// Natural logarithm.
    pub const LN: u64 = 105;
    /// ln(1 + e^x)
    pub const SOFTPLUS: u64 = 990;
    /// x * logistic function
    pub const SILU: u64 = 960;
    /// Normal distribution times x
    pub const GELU: u64 = 1195;
    /// The same by tanh
    pub const GELU_TANH: u64 = 1500;
    /// Elu and selu: half of the numbers are below zero.
    pub const ELU: u64 = 480;
}

/// 1 with 30 fraction bits.
const ONE: i32 = 1 << 30;
/// Arguments are cut off here before an exponential: `exp(-110)` is below half of the smallest number.
const EXPONENT_LIMIT: f32 = 110.0;

#[inline(always)]
fn clamp(x: f32, low: f32, high: f32) -> f32 {
    // A NaN stays one.
    if num::less(x, low) {
        low
    } else if num::less(high, x) {
        high
    } else {
        x
    }
}

/// `exp(a) = m * 2^(n - 30)` with `m` of about 1 .. 2, `a` of -112 .. 112 with 41 fraction bits.
#[inline(always)]
fn exp_fixed(a: i64) -> (i32, i32) {
    /// log2 e with 14 fraction bits: enough to find the nearest sixteenth, not more than 0.52 away.
    const LOG2_E: i32 = 23_637;
    /// ln 2 / 16 with 41 fraction bits.
    const LN_2_SIXTEENTH: i64 = 95_265_423_098;
    // With 20 and 16 fraction bits; on an ARM made by one or two instructions.
    const SIXTH: i32 = 174_764;
    const TWENTY_FOURTH: i32 = 2_736;
    let sixteenths = (((a >> 32) as i32) * LOG2_E + (1 << 18)) >> 19;
    let r = ((a - i64::from(sixteenths) * LN_2_SIXTEENTH) >> 5) as i32;
    // exp(r) - 1 for |r| < 0.023, r with 36 fraction bits: the term of fifth order is below 2^-34.
    let h = SIXTH + high(r, TWENTY_FOURTH);
    let h = (1 << 23) + high(r, h);
    let h = (1 << 28) + high(r, h);
    let power = tables::POWERS[(sixteenths & 15) as usize];
    (power + high(power, high(r, h)), sixteenths >> 4)
}

/// `m * 2^n` for `n <= 0` with 30 fraction bits, just below 1 at most.
#[inline(always)]
fn below_one(m: i32, n: i32) -> i32 {
    let shift = if n < -31 { 31 } else { -n };
    let value = m >> (shift & 31);
    if value > ONE - 1 { ONE - 1 } else { value }
}

/// `1 / (1 + exp(-a)) = m * 2^(n - 30)`; `magnitude` is `|a|` with 41 fraction bits, below 112.
#[inline(always)]
fn sigmoid_fixed(magnitude: i64, negative: bool) -> (i32, i32) {
    let (m, n) = exp_fixed(-magnitude);
    let inverse = segments::reciprocal(below_one(m, n));
    if negative { (mul30(m, inverse), n) } else { (inverse, 0) }
}

/// e^x.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    let (m, n) = exp_fixed(num::to_fixed(clamp(x, -EXPONENT_LIMIT, EXPONENT_LIMIT), 41));
    let y = num::pack(i64::from(m), n - 30);
    if num::is_nan(x) { num::NAN } else { y }
}

/// [`exp`], by the core's own form where there is one.
#[inline(always)]
pub fn exp_of(x: f32) -> f32 {
    #[cfg(target_arch = "arm")]
    return crate::arm::exp(x);
    #[cfg(not(target_arch = "arm"))]
    exp(x)
}

/// [`sigmoid`], by the core's own form where there is one.
#[inline(always)]
pub fn sigmoid_of(x: f32) -> f32 {
    #[cfg(target_arch = "arm")]
    return crate::arm::sigmoid(x);
    #[cfg(not(target_arch = "arm"))]
    sigmoid(x)
}

/// Hyperbolic tangent, of magnitude 1 at most.
#[inline(always)]
pub fn tanh(x: f32) -> f32 {
    // From 9.02 on the result is 1; tanh(a) / a is good up to there.
    let a = num::abs(x);
    let a = if num::less(a, 9.03125) { a } else { 9.03125 };
    let ratio = segments::tanh_ratio(num::to_fixed_small(a, 27));
    let y = num::mul_fixed(x, (ratio + 1) >> 1, -29);
    clamp(y, -1.0, 1.0)
}

/// `1 / (1 + e^-x)`.
///
/// Down to -4, and below 16, this is `1/2 + tanh(x / 2) / 2`; below, `u - u^2 + ...` of `u = e^x`; above, one of the last numbers up to 1.
#[inline(always)]
pub fn sigmoid(x: f32) -> f32 {
    let a = num::abs(x);
    let negative = num::less(x, 0.0);
    // a / 2 with 27 fraction bits, and its tanh with 57. The ratio is cut, by a unit in the mean.
    let half = num::to_fixed_small(if num::less(a, 16.0) { a } else { 0.0 }, 26);
    let tanh = (i64::from(half) * i64::from(segments::tanh_ratio(half) + 1)) >> 27;
    let near = num::pack(i64::from(ONE) + if negative { -tanh } else { tanh }, -31);
    // 25 ln 2, and 24 ln 2 - ln 1.5: where 1 - e^-x is halfway between two numbers.
    let below = u32::from(num::less(a, 17.328_68)) + u32::from(num::less(a, 16.230_068));
    if num::is_nan(x) {
        num::NAN
    } else if num::less(a, if negative { 4.0 } else { 16.0 }) {
        near
    } else if negative {
        sigmoid_small(a)
    } else {
        f32::from_bits(1.0f32.to_bits() - below)
    }
}

/// Upper word of a product of natural numbers.
#[inline(always)]
fn high_natural(a: u32, b: u32) -> u32 {
    ((u64::from(a) * u64::from(b)) >> 32) as u32
}

/// `m * 2^-31 * 2^(field - 127)` of an `m` with its top bit at 31, half rounded up; `field` may be that of a subnormal number.
#[inline(always)]
fn pack_natural(m: u32, field: i32) -> f32 {
    let shift = (9 - field).clamp(8, 40) as u32;
    let mantissa = (((u64::from(m) << 1) >> shift) + 1) >> 1;
    // The hidden bit of a normal mantissa adds one to the field.
    f32::from_bits(mantissa as u32 + ((core::cmp::max(field - 1, 0) as u32) << 23))
}

/// `1 / (1 + e^a)` for `a >= 4`, in natural numbers of 32 bits.
#[inline(always)]
fn sigmoid_small(a: f32) -> f32 {
    /// log2 e with 31 fraction bits.
    const LOG2_E: u32 = 3_098_164_009;
    /// `2^(r / 16) - 1` of `r` of 0 .. 1 with 36 fraction bits, by powers of `r`: error below 2^-29.
    const POWER: [u32; 3] = [2_977_046_353, 64_473_910, 950_804];
    /// 1 with 31 fraction bits.
    const ONE: u32 = 1 << 31;
    let bits = a.to_bits();
    let beyond = bits >= 128f32.to_bits();
    // 24 fraction bits, exactly: a number from 4 on has no more than 21.
    let fixed = (0x8000_0000 | bits << 8) >> (134u32.wrapping_sub(bits >> 23) & 31);
    // e^-a = 2^-n 2^(f - 1), f from above 0 to 1 with 32 fraction bits.
    let exponent = u64::from(fixed) * u64::from(LOG2_E);
    let n = (exponent >> 55) as u32;
    let f = !((exponent >> 23) as u32);
    let r = f << 4;
    let growth = high_natural(r, POWER[0] + high_natural(r, POWER[1] + high_natural(r, POWER[2])));
    let power = tables::POWERS[(f >> 28) as usize] as u32;
    let power = power + (high_natural(power, growth) >> 4);
    // u = e^-a with 36 fraction bits; 1 / (1 + u) = 1 - u (1 - u (1 - 63/64 u)), nearly.
    let shift = n.wrapping_sub(5);
    let u = if shift > 31 { 0 } else { power >> (shift & 31) };
    let inner = ONE - ((u - (u >> 6)) >> 5);
    let inner = ONE - (high_natural(u, inner) >> 4);
    let inverse = ONE - (high_natural(u, inner) >> 4);
    // With 29 fraction bits of 2^-(n + 1), a little below 1/2 to 1.
    let y = high_natural(power, inverse);
    let zeros = if y < 1 << 29 { 3 } else { 2 };
    let y = pack_natural(y << zeros, 128 - (n as i32 + zeros));
    if beyond { 0.0 } else { y }
}

/// `ln(1 + e^x)`.
pub fn softplus(x: f32) -> f32 {
    if num::is_nan(x) {
        return num::NAN;
    }
    if num::less(40.0, x) {
        return x;
    }
    let x = clamp(x, -EXPONENT_LIMIT, 40.0);
    let (m, n) = exp_fixed(num::to_fixed(num::neg(num::abs(x)), 41));
    let u = below_one(m, n);
    let ratio = i64::from(segments::ln_1p_ratio(u));
    if num::less(x, 0.0) {
        num::pack((i64::from(m) * ratio) >> 8, n - 52)
    } else {
        num::pack(num::to_fixed(x, 45) + ((i64::from(u) * ratio) >> 15), -45)
    }
}

/// `x * sigmoid(x)`.
pub fn silu(x: f32) -> f32 {
    if num::is_nan(x) || num::less(x, -EXPONENT_LIMIT) {
        // -0, and NaN for minus infinity as in Keras.
        return num::mul(x, 0.0);
    }
    let a = clamp(num::abs(x), 0.0, EXPONENT_LIMIT);
    let (m, n) = sigmoid_fixed(num::to_fixed(a, 41), num::less(x, 0.0));
    num::mul_fixed(x, m >> 1, n - 29)
}

/// Brings a positive integer to 29 bits: `(m, e)` with `m * 2^e` about the value.
fn to_29_bits(value: i64) -> (i32, i32) {
    let shift = 35 - value.leading_zeros() as i32;
    if shift >= 0 { ((value >> shift) as i32, shift) } else { ((value << -shift) as i32, shift) }
}

/// The normal distribution at a finite `x > -14.5`: `m * 2^e`, `m` at most 2^29.
fn normal_fixed(x: f32) -> (i32, i32) {
    let a = num::to_fixed(clamp(num::abs(x), 0.0, 14.5), 27);
    let (m, n) = exp_fixed(-((a * a) >> 14));
    let tail = i64::from(segments::half_erfcx(a as i32)) * i64::from(m);
    if num::less(x, 0.0) {
        let (m, e) = to_29_bits(tail);
        (m, n - 61 + e)
    } else {
        ((1 << 29) - ((tail >> 32) >> if n < -31 { 31 } else { -n }) as i32, -29)
    }
}

/// The normal distribution: `(1 + erf(x / sqrt 2)) / 2`.
pub fn normal(x: f32) -> f32 {
    if num::is_nan(x) {
        return num::NAN;
    }
    if num::less(x, -14.5) {
        return 0.0;
    }
    let (m, e) = normal_fixed(x);
    num::pack(i64::from(m), e)
}

/// `x * (1 + erf(x / sqrt 2)) / 2`.
pub fn gelu(x: f32) -> f32 {
    if num::is_nan(x) || num::less(x, -14.5) {
        return num::mul(x, 0.0);
    }
    let (m, e) = normal_fixed(x);
    num::mul_fixed(x, m, e)
}

/// `sigmoid(2 sqrt(2 / pi) (x + 0.044715 x^3))` as `m * 2^(n - 30)`.
fn gelu_gate(x: f32) -> (i32, i32) {
    /// 2 sqrt(2 / pi) with 40 fraction bits, and 0.044715 of it.
    const LINEAR: i128 = 1_754_566_704_451;
    const CUBIC: i128 = 78_455_450_190;
    let a = i128::from(num::to_fixed(clamp(num::abs(x), 0.0, 15.0), 27));
    let factor = LINEAR + ((CUBIC * ((a * a) >> 24)) >> 30);
    let argument = ((a * factor) >> 26) as i64;
    let limit = 110i64 << 41;
    let negative = num::less(x, 0.0);
    if negative && argument > limit { (0, 0) } else { sigmoid_fixed(core::cmp::min(argument, limit), negative) }
}

/// `x * (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2`.
pub fn gelu_tanh(x: f32) -> f32 {
    if num::is_nan(x) {
        return num::NAN;
    }
    let (m, n) = gelu_gate(x);
    num::mul_fixed(x, m >> 1, n - 29)
}

/// `(1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2`.
pub fn gelu_tanh_gate(x: f32) -> f32 {
    if num::is_nan(x) {
        return num::NAN;
    }
    let (m, n) = gelu_gate(x);
    num::pack(i64::from(m), n - 30)
}

/// `e^x - 1` for `x <= 0` (for larger `x`: of 0).
pub fn exp_m1_negative(x: f32) -> f32 {
    if num::is_nan(x) {
        return num::NAN;
    }
    if num::less(-1.0, x) {
        let ratio = segments::exp_m1_ratio(core::cmp::min(
            num::to_fixed(num::abs(clamp(x, -1.0, 0.0)), 30),
            i64::from(ONE - 1),
        ) as i32);
        return num::mul_fixed(clamp(x, -1.0, 0.0), ratio >> 1, -29);
    }
    let (m, n) = exp_fixed(num::to_fixed(clamp(x, -EXPONENT_LIMIT, 0.0), 41));
    num::pack(i64::from(below_one(m, n) - ONE), -30)
}

/// Natural logarithm: NaN below 0, minus infinity at 0.
#[cfg(target_arch = "arm")]
pub use crate::arm::ln;

/// Natural logarithm: NaN below 0, minus infinity at 0.
#[cfg(not(target_arch = "arm"))]
pub fn ln(x: f32) -> f32 {
    /// ln 2 with 53 fraction bits.
    const LN_2: i64 = 6_243_314_768_165_359;
    if num::is_nan(x) || num::less(x, 0.0) {
        return num::NAN;
    }
    if !num::less(0.0, x) {
        return f32::NEG_INFINITY;
    }
    if x == f32::INFINITY {
        return x;
    }
    let (m, e) = num::integer::unpack(x);
    let shift = m.leading_zeros() as i32 - 8;
    let m = (m << shift) as i32;
    // x = (1 + f) 2^n, f of -1/4 .. 1/2 with 24 fraction bits, exactly.
    let (f, n) = if m >= 3 << 22 { (m - (1 << 24), e - shift + 24) } else { ((m - (1 << 23)) << 1, e - shift + 23) };
    let ratio = segments::ln_ratio((f << 6) + (1 << 28)) >> 1;
    let near = i64::from(f) * i64::from(ratio);
    if n == 0 { num::pack(near, -53) } else { num::pack((near + i64::from(n) * LN_2) >> 8, -45) }
}

/// `1 / x`, correctly rounded.
#[inline(always)]
pub fn reciprocal(x: f32) -> f32 {
    num::div(1.0, x)
}

/// `1 / sqrt(x)`: NaN below 0, infinity at 0.
#[cfg(target_arch = "arm")]
pub use crate::arm::reciprocal_sqrt;

/// `1 / sqrt(x)`: NaN below 0, infinity at 0.
#[cfg(not(target_arch = "arm"))]
pub fn reciprocal_sqrt(x: f32) -> f32 {
    if num::is_nan(x) || num::less(x, 0.0) {
        return num::NAN;
    }
    if !num::less(0.0, x) {
        return f32::INFINITY;
    }
    if x == f32::INFINITY {
        return 0.0;
    }
    let (m, e) = num::integer::unpack(x);
    let shift = m.leading_zeros() as i32 - 8;
    let (m, exponent) = ((m << shift) as i32, e - shift + 23);
    let root = segments::reciprocal_sqrt((m - (1 << 23)) << 7) as u32;
    // An odd exponent leaves sqrt(1/2), with 31 fraction bits.
    let odd = (exponent & 1) as u32;
    let root = high_natural(root, if odd == 0 { 1 << 31 } else { 0x5A82_799A });
    // 29 fraction bits, from 1/2 to 1; half is rounded up. A mantissa of 2^24 adds one to the exponent.
    let field = (125 - (exponent >> 1)) as u32;
    f32::from_bits(((root + (1 << 4)) >> 5) + (field << 23))
}

/// `x / (1 + |x|)`.
#[inline(always)]
pub fn softsign(x: f32) -> f32 {
    num::div(x, num::add(1.0, num::abs(x)))
}

/// Defines a function over words of memory, in vector code where the processor has it.
#[cfg(not(target_arch = "arm"))]
macro_rules! over_cells {
    ($(#[$doc:meta])* $name:ident, $function:ident) => {
        $(#[$doc])*
        pub fn $name(x: &[Cell<u32>]) {
            #[inline(always)]
            fn body(x: &[Cell<u32>]) {
                for cell in x {
                    num::store(cell, $function(num::load(cell)));
                }
            }
            #[cfg(all(target_arch = "x86_64", any(test, feature = "std")))]
            {
                #[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512bw,avx512cd")]
                fn wide(x: &[Cell<u32>]) {
                    body(x);
                }
                #[target_feature(enable = "avx2")]
                fn middle(x: &[Cell<u32>]) {
                    body(x);
                }
                if x.len() >= 8 {
                    if std::arch::is_x86_feature_detected!("avx512dq")
                        && std::arch::is_x86_feature_detected!("avx512vl")
                        && std::arch::is_x86_feature_detected!("avx512bw")
                        && std::arch::is_x86_feature_detected!("avx512cd")
                    {
                        // SAFETY: the processor has these instructions.
                        return unsafe { wide(x) };
                    }
                    if std::arch::is_x86_feature_detected!("avx2") {
                        // SAFETY: as above.
                        return unsafe { middle(x) };
                    }
                }
            }
            body(x);
        }
    };
}

/// Defines a function over words of memory, by the core's own form.
#[cfg(target_arch = "arm")]
macro_rules! over_cells {
    ($(#[$doc:meta])* $name:ident, $function:ident) => {
        $(#[$doc])*
        pub fn $name(x: &[Cell<u32>]) {
            crate::arm::map(crate::arm::functions::$function, x, 0.0);
        }
    };
}

over_cells!(
    /// [`exp`] of every word, in place.
    exp_cells,
    exp
);
over_cells!(
    /// [`tanh`] of every word, in place.
    tanh_cells,
    tanh
);
over_cells!(
    /// [`sigmoid`] of every word, in place.
    sigmoid_cells,
    sigmoid
);
