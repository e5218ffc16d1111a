//! The three roundings of the format `f32`: block exponent, mantissa, and a sum back to binary32.
//!
//! The integer forms are the specification; a core without a floating-point unit runs them. The
//! `native` forms use the host's IEEE arithmetic and give the same bits (the tests compare them).

use crate::call::{EXPONENT_NAN, EXPONENT_ZERO, HALF_BITS, HALF_MAX, MANTISSA_BITS};
use crate::num;

/// How the operands of a product lie in words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operands {
    /// A mantissa in each (format `f32`).
    Mantissas,
    /// Two halves in each, which are multiplied with those of the other side and added (format `bfp16`).
    Halves,
}

impl Operands {
    /// Product of two words.
    #[inline(always)]
    pub fn multiply(self, a: u32, b: u32) -> i64 {
        match self {
            Operands::Mantissas => i64::from(a as i32) * i64::from(b as i32),
            Operands::Halves => {
                let low = i32::from(a as i16) * i32::from(b as i16);
                let high = i32::from((a >> 16) as i16) * i32::from((b >> 16) as i16);
                i64::from(low) + i64::from(high)
            }
        }
    }

    /// The exponent of one side as [`product`] takes it, which counts fraction bits of mantissas on both.
    pub fn exponent(self, exponent: i32) -> i32 {
        if self == Operands::Mantissas || exponent == EXPONENT_NAN {
            exponent
        } else {
            exponent.saturating_add(2 * (MANTISSA_BITS - HALF_BITS) as i32)
        }
    }
}

/// Exponent of a block of halves: see [`block_exponent`]; the largest magnitude must not round to more than [`HALF_MAX`] units.
pub fn half_exponent(max_bits: u32) -> i32 {
    // From the first significand (24 bits) that rounds to more than `HALF_MAX` up to the next power of two.
    const ABOVE: u32 = (1 << 24) - ((2 * HALF_MAX + 1) << (23 - HALF_BITS));
    match max_bits {
        0 => EXPONENT_ZERO,
        1..0x0080_0000 => {
            let length = 32 - max_bits.leading_zeros();
            let significand = max_bits << (24 - length);
            length as i32 - 149 + ((significand + ABOVE) >> 24) as i32
        }
        0x0080_0000..0x7F80_0000 => ((max_bits + ABOVE) >> 23) as i32 - 126,
        _ => EXPONENT_NAN,
    }
}

/// What makes a half of a number in a block with this exponent, as a mantissa's exponent: `mantissa(bits, half_as_mantissa(e))`.
pub fn half_as_mantissa(exponent: i32) -> i32 {
    if exponent == EXPONENT_ZERO || exponent == EXPONENT_NAN {
        exponent
    } else {
        exponent + (MANTISSA_BITS - HALF_BITS) as i32
    }
}

/// The one NaN that kernels write.
pub const NAN_BITS: u32 = 0x7FC0_0000;

/// Exponent of a block whose largest magnitude has the bits `max_bits` (sign cleared; NaNs count as largest).
pub fn block_exponent(max_bits: u32) -> i32 {
    match max_bits {
        0 => EXPONENT_ZERO,
        1..0x0080_0000 => 32 - max_bits.leading_zeros() as i32 - 149,
        0x0080_0000..0x7F80_0000 => (max_bits >> 23) as i32 - 126,
        _ => EXPONENT_NAN,
    }
}

/// `value >> shift`, rounded half to even; `shift` of 1 ..
fn shift_right_even(value: u64, shift: u32) -> u64 {
    if shift > 63 {
        return 0; // value < 2^63 here, so less than half
    }
    let quotient = value >> shift;
    let rest = value & ((1 << shift) - 1);
    let half = 1u64 << (shift - 1);
    quotient + u64::from(rest > half || (rest == half && quotient & 1 == 1))
}

/// Mantissa of a number (its bits) in a block with this exponent. Zero in a block of zeros or with a NaN.
pub fn mantissa(bits: u32, exponent: i32) -> i32 {
    if exponent == EXPONENT_ZERO || exponent == EXPONENT_NAN {
        return 0;
    }
    let magnitude = bits & 0x7FFF_FFFF;
    let field = (magnitude >> 23) as i32;
    // The number is significand * 2^scale.
    let (significand, scale) =
        if field == 0 { (magnitude, -149) } else { (magnitude & 0x007F_FFFF | 0x0080_0000, field - 150) };
    let shift = scale + MANTISSA_BITS as i32 - exponent;
    let m = if shift >= 0 {
        // |x| < 2^E, so the result stays below 2^26 and the shift below 26.
        significand << shift
    } else {
        // Half rounds away from zero: the last bit that is shifted out is added.
        (u64::from(significand) << 1 >> shift.unsigned_abs().min(63)).div_ceil(2) as u32
    } as i32;
    if bits >> 31 == 1 { -m } else { m }
}

/// Bits of `sum * 2^exponent` as binary32: rounded to 24 bits, then scaled as by an IEEE multiplication.
pub fn round_sum(sum: i64, exponent: i32) -> u32 {
    if sum == 0 {
        return 0;
    }
    let sign = ((sum >> 63) as u32) << 31;
    let magnitude = sum.unsigned_abs();
    let length = 64 - magnitude.leading_zeros() as i32;
    let (mut significand, mut scale) = if length > 24 {
        // 2^63 (the one magnitude with 64 bits) shifts exactly.
        (shift_right_even(magnitude, (length - 24) as u32), exponent + length - 24)
    } else {
        (magnitude << (24 - length), exponent - (24 - length))
    };
    if significand == 1 << 24 {
        (significand, scale) = (1 << 23, scale + 1);
    }
    let field = scale + 150;
    if field >= 255 {
        sign | 0x7F80_0000
    } else if field >= 1 {
        sign | (field as u32) << 23 | (significand as u32 & 0x007F_FFFF)
    } else {
        sign | shift_right_even(significand, (1 - field) as u32) as u32
    }
}

/// Exponent of a sum of products, from the exponents of the two blocks; `None`: the result is NaN.
/// Exponents beyond those of any block (which only a wrong command list can hold) are clamped.
fn sum_exponent(a: i32, b: i32) -> Option<i32> {
    if a == EXPONENT_NAN || b == EXPONENT_NAN {
        return None;
    }
    Some(a.clamp(-512, 512) + b.clamp(-512, 512) - 2 * MANTISSA_BITS as i32)
}

/// Bits of a sum of products of mantissas, by integer arithmetic.
pub fn product(sum: i64, a_exponent: i32, b_exponent: i32) -> u32 {
    match sum_exponent(a_exponent, b_exponent) {
        Some(exponent) => round_sum(sum, exponent),
        None => NAN_BITS,
    }
}

/// [`product`] by the host's arithmetic: the conversion rounds half to even, the scaling in binary64 is
/// exact, and the narrowing rounds like an IEEE multiplication of the binary32 would.
#[cfg(any(test, feature = "std"))]
pub fn product_native(sum: i64, a_exponent: i32, b_exponent: i32) -> u32 {
    match sum_exponent(a_exponent, b_exponent) {
        Some(exponent) => {
            // Below 2^-1000 every result is zero.
            let factor = f64::from_bits(((exponent.max(-1000) + 1023) as u64) << 52);
            (f64::from(sum as f32) * factor) as f32
        }
        None => f32::NAN,
    }
    .to_bits_canonical()
}

/// Bits with one NaN only.
pub trait CanonicalBits {
    /// The bits; [`NAN_BITS`] for every NaN.
    fn to_bits_canonical(self) -> u32;
}

impl CanonicalBits for f32 {
    fn to_bits_canonical(self) -> u32 {
        if num::is_nan(self) { NAN_BITS } else { self.to_bits() }
    }
}

/// IEEE addition of two numbers given as bits. (The addition of `f32` is IEEE's everywhere; only NaNs differ.)
pub fn add(a: u32, b: u32) -> u32 {
    num::add(f32::from_bits(a), f32::from_bits(b)).to_bits_canonical()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn exponents_bound_their_numbers_tightly() {
        for bits in [1u32, 2, 3, 0x007F_FFFF, 0x0080_0000, 0x3F80_0000, 0x3F7F_FFFF, 0x7F7F_FFFF, 0x4000_0000] {
            let (x, e) = (f64::from(f32::from_bits(bits)), block_exponent(bits));
            assert!(x < 2f64.powi(e) && x >= 2f64.powi(e - 1), "{x:e} {e}");
            assert_eq!(f64::from(mantissa(bits, e)), x * 2f64.powi(26 - e));
        }
        assert_eq!(block_exponent(0), EXPONENT_ZERO);
        assert_eq!(block_exponent(0x7F80_0000), EXPONENT_NAN);
        assert_eq!(block_exponent(0x7FFF_FFFF), EXPONENT_NAN);
    }

    #[test]
    fn halves_fill_their_range() {
        // 23,079.5 / 2^15 is 0x3F34_4F00: half a unit above the largest half. Of subnormals the bits are the units.
        assert_eq!(f64::from(f32::from_bits(0x3F34_4F00)), 23_079.5 / 32_768.0);
        for (bits, expected) in [
            (0x3F34_4EFF, 23_079),
            (0x3F34_4F00, 11_540),
            (0x3F7F_FFFF, 16_384),
            (0x3F00_0000, 16_384),
            (1, 16_384),
            (23_079, 23_079),
            (23_080, 11_540),
            (46_158, 23_079),
            (46_159, 11_540),
            (0x007F_FFFF, 16_384),
            (0x0080_0000, 16_384),
            (0x7F7F_FFFF, 16_384),
        ] {
            let e = half_exponent(bits);
            let m = mantissa(bits, half_as_mantissa(e));
            assert_eq!(m, expected, "{bits:#x} with {e}");
            let (x, value) = (f64::from(f32::from_bits(bits)), f64::from(m) * 2f64.powi(e - 15));
            assert!((x - value).abs() <= 2f64.powi(e - 16), "{bits:#x}: {x:e} {value:e}");
        }
        assert_eq!(half_exponent(0x7F80_0000), EXPONENT_NAN);
        assert_eq!(mantissa(0x3F80_0000, half_as_mantissa(EXPONENT_NAN)), 0);
    }

    proptest! {
        #[test]
        fn mantissas_round_half_away_from_zero(bits: u32, above in 0u32..40) {
            let x = f32::from_bits(bits & 0x7FFF_FFFF);
            prop_assume!(x.is_finite() && x != 0.0);
            let e = (block_exponent(x.to_bits()) + above as i32).min(128);
            let signed = f32::from_bits(bits);
            let expected = (f64::from(signed) * 2f64.powi(26 - e)).round();
            prop_assert_eq!(f64::from(mantissa(bits, e)), expected);
        }

        #[test]
        fn native_and_integer_rounding_agree(sum: i64, shift in 0u32..63, a in -150i32..129, b in -150i32..129) {
            let sum = sum >> shift;
            prop_assert_eq!(product(sum, a, b), product_native(sum, a, b));
        }

        #[test]
        fn subnormal_and_halfway_sums_agree(high in -0x200_0000i64..0x200_0000, low in -2i64..3, shift in 0u32..38, e in -160i32..-20) {
            let sum = (high << shift) + low;
            prop_assert_eq!(product(sum, e, -50), product_native(sum, e, -50));
        }
    }

    #[test]
    fn special_exponents() {
        for f in [product, product_native] {
            assert_eq!(f(0, EXPONENT_ZERO, EXPONENT_ZERO), 0);
            assert_eq!(f(5, EXPONENT_NAN, EXPONENT_ZERO), NAN_BITS);
            assert_eq!(f(i64::MAX, 512, 512), 0x7F80_0000);
            assert_eq!(f(i64::MIN, i32::MAX, i32::MAX), 0xFF80_0000);
            assert_eq!(f(i64::MIN, i32::MIN, i32::MIN), 0x8000_0000);
        }
    }
}
