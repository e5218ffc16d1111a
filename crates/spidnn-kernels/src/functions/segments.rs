//! Tables of degree-4 polynomials: a function is cut into segments, and a segment is five words.
//!
//! All in fixed point: the place in the segment `t` of 0 .. 1 has 31 fraction bits, values 30 (31 for [`half_erfcx`]), and the
//! coefficient of `t^k` `k` more, so that every product is the upper word of a multiplication. Cost: index, place and address 7
//! cycles, LDM of 5 words from ITCM and its stall 7, four times SMULL, stall and ADD 20: 34 ([`CYCLES`]).

use super::tables;
use crate::num;

/// Cycles of one polynomial.
pub const CYCLES: u64 = 34;

/// Product of two numbers with 30 fraction bits.
#[inline(always)]
pub(crate) fn mul30(a: i32, b: i32) -> i32 {
    ((i64::from(a) * i64::from(b)) >> 30) as i32
}

/// Upper word of a product.
#[inline(always)]
pub(crate) fn high(a: i32, b: i32) -> i32 {
    ((i64::from(a) * i64::from(b)) >> 32) as i32
}

#[inline(always)]
fn polynomial(c: &[i32; 5], t: i32) -> i32 {
    c[0] + high(c[1] + high(c[2] + high(c[3] + high(c[4], t), t), t), t)
}

/// Sixteen segments of 0 .. 1.
#[inline(always)]
fn uniform(table: &[[i32; 5]; 16], u: i32) -> i32 {
    let index = (u >> 26) as usize & 15;
    polynomial(&table[index], (u & 0x03FF_FFFF) << 5)
}

/// Sixteen segments for each power of two of `1 + a`; `a` of 0 .. 15 has 27 fraction bits.
#[inline(always)]
fn growing<const N: usize>(table: &[[i32; 5]; N], a: i32) -> i32 {
    let v = a + (1 << 27);
    let octave = num::log2_floor(v) - 27;
    // The leading one to bit 30, 4 bits of index, 26 bits of place.
    let normal = v << ((3 - octave) & 31);
    let index = (octave * 16 + ((normal >> 26) & 15)) as usize & 63;
    // The table ends where its function is not needed any more.
    let index = if N < 64 && index >= N { N - 1 } else { index };
    polynomial(&table[index], (normal & 0x03FF_FFFF) << 5)
}

/// `1 / (1 + u)`, `u` of 0 .. 1 (30 fraction bits each).
#[inline(always)]
pub fn reciprocal(u: i32) -> i32 {
    uniform(&tables::RECIPROCAL, u)
}
/// `1 / sqrt(1 + u)`.
#[inline(always)]
pub fn reciprocal_sqrt(u: i32) -> i32 {
    uniform(&tables::RECIPROCAL_SQRT, u)
}
/// `ln(f + 3/4) / (f - 1/4)` of `f` in 0 .. 3/4: the logarithm of a number of 3/4 .. 3/2 over its distance from 1.
#[inline(always)]
pub fn ln_ratio(f: i32) -> i32 {
    uniform(&tables::LN_RATIO, f)
}
/// `ln(1 + u) / u`.
#[inline(always)]
pub fn ln_1p_ratio(u: i32) -> i32 {
    uniform(&tables::LN_1P_RATIO, u)
}
/// `(1 - exp(-u)) / u`.
#[inline(always)]
pub fn exp_m1_ratio(u: i32) -> i32 {
    uniform(&tables::EXP_M1_RATIO, u)
}
/// `tanh(a) / a`, `a` with 27 fraction bits.
#[inline(always)]
pub fn tanh_ratio(a: i32) -> i32 {
    growing(&tables::TANH_RATIO, a)
}
/// `exp(a^2 / 2)` times the normal distribution at `-a`, with 31 fraction bits; `a` with 27.
#[inline(always)]
pub fn half_erfcx(a: i32) -> i32 {
    growing(&tables::HALF_ERFCX, a)
}
