//! IEEE-754 binary32 arithmetic, one operation at a time, round half to even, subnormals kept.
//!
//! There are two forms of every operation: [`integer`] uses integers only and is what runs on a core without a
//! floating-point unit; the host uses its own `f32` operators, which give the same bits (a test holds them together).
//! The functions of this module are the switch. A NaN has one bit pattern in memory, [`NAN`]: the integer forms
//! only produce that one, and [`store`] brings a host's own NaNs to it.

use core::cell::Cell;

/// The one NaN that is stored: bits 0x7FC0_0000.
pub const NAN: f32 = f32::from_bits(0x7FC0_0000);

/// Cycles of the operations on an ARM968, as measured on the instruction-level core (`spidnn-truth`): routines of assembly, return (3) included,
/// operands in r0 and r1. Each is that of usual numbers; the paths of an addition take from 26 to 38.
///
/// Count of the usual path (timing: data processing 1, register shift 2, UMULL 3 and 1 stall, taken branch 3, failed condition 1):
///
/// * add: larger first (5), range of its exponent (4), distance (2), signs, mantissas (4), align and add (5), half? (2), round and pack (3), return 3,
///   or for unlike signs normalise by CLZ (6);
/// * mul: exponents and their special values (7), mantissas and sign (6), UMULL and stall (4), normalise (4), range (2), half? (2), round, pack (3), return 3;
/// * div: unpack (13), registers (12), segment of 1/m (7), polynomial (28), UMULL (4), remainder (7), corrections (4), round and pack (8), return 3;
/// * sqrt: as div, with the segments of 1/sqrt(m).
pub mod cycles {
    /// Addition or subtraction.
    pub const ADD: u64 = 33;
    /// Multiplication.
    pub const MUL: u64 = 33;
    /// Division.
    pub const DIV: u64 = 86;
    /// Square root.
    pub const SQRT: u64 = 78;
    /// Comparison, maximum, minimum.
    pub const COMPARE: u64 = 14;
    /// Every NaN to the one that is stored.
    pub const NUMBER: u64 = 7;
    /// Turn of a loop: SUBS and the taken branch.
    pub const TURN: u64 = 4;
    /// Around an operation in compiled (Thumb) code: BL 4, operands loaded or moved, its result stored or moved, its share of the loop.
    pub const AROUND: u64 = 11;
    /// An integer to a float, in compiled code.
    pub const FROM_INTEGER: u64 = 235;
    /// Entry of a kernel: dispatch, parameters loaded, registers saved and restored, return.
    pub const ENTRY: u64 = 70;
}

/// Integer-only forms: what a core runs.
pub mod integer {
    use super::NAN;

    const SIGN: u32 = 0x8000_0000;
    const INFINITY: u32 = 0x7F80_0000;

    fn magnitude(x: f32) -> u32 {
        x.to_bits() & !SIGN
    }

    fn is_nan(x: f32) -> bool {
        magnitude(x) > INFINITY
    }

    /// Mantissa and exponent of a finite number: `|x| = m * 2^e`, `m < 2^24`.
    pub(crate) fn unpack(x: f32) -> (u32, i32) {
        let bits = magnitude(x);
        let exponent = (bits >> 23) as i32;
        if exponent == 0 { (bits, -149) } else { ((bits & 0x007F_FFFF) | 0x0080_0000, exponent - 150) }
    }

    /// As [`unpack`], with `m` in `2^23 .. 2^24` also for subnormals; `x` is not zero.
    fn unpack_normal(x: f32) -> (u32, i32) {
        let (m, e) = unpack(x);
        let shift = m.leading_zeros() as i32 - 8;
        (m << shift, e - shift)
    }

    /// `m * 2^e` rounded half to even, with a sign.
    pub fn round_pack(negative: bool, m: u64, e: i32) -> f32 {
        let sign = if negative { SIGN } else { 0 };
        if m == 0 {
            return f32::from_bits(sign);
        }
        let top = 63 - m.leading_zeros() as i32 + e;
        if top > 127 {
            return f32::from_bits(sign | INFINITY);
        }
        let unit = core::cmp::max(top - 23, -149);
        let shift = unit - e;
        let mantissa = if shift <= 0 {
            m << -shift
        } else if shift > 64 {
            0
        } else {
            // Halves: the bit below the unit, and whether anything is below that.
            let (kept, rest) = if shift == 64 { (0, m) } else { (m >> shift, m << (64 - shift)) };
            let half = 1u64 << 63;
            kept + u64::from(rest > half || (rest == half && kept & 1 == 1))
        };
        // The hidden bit of a normal mantissa adds one to the exponent field.
        f32::from_bits(sign | ((((unit + 149) as u32) << 23) + mantissa as u32))
    }

    /// Sum.
    pub fn add(a: f32, b: f32) -> f32 {
        if is_nan(a) || is_nan(b) {
            return NAN;
        }
        let (a, b) = if magnitude(a) >= magnitude(b) { (a, b) } else { (b, a) };
        let (sign_a, sign_b) = (a.to_bits() & SIGN, b.to_bits() & SIGN);
        if magnitude(a) == INFINITY {
            return if magnitude(b) == INFINITY && sign_a != sign_b { NAN } else { a };
        }
        let ((ma, ea), (mb, eb)) = (unpack(a), unpack(b));
        let wide_a = u64::from(ma) << 38;
        let distance = (ea - eb) as u32;
        let wide_b = u64::from(mb) << 38;
        // A sticky bit stands for what is shifted out: 38 bits below the unit are more than enough for it.
        let wide_b = if distance > 61 {
            u64::from(mb != 0)
        } else {
            (wide_b >> distance) | u64::from(wide_b << (63 - distance) << 1 != 0 && distance > 0)
        };
        let sum = if sign_a == sign_b { wide_a + wide_b } else { wide_a - wide_b };
        if sum == 0 {
            return f32::from_bits(if sign_a == sign_b { sign_a } else { 0 });
        }
        round_pack(sign_a != 0, sum, ea - 38)
    }

    /// Difference.
    pub fn sub(a: f32, b: f32) -> f32 {
        add(a, f32::from_bits(b.to_bits() ^ SIGN))
    }

    /// Product.
    pub fn mul(a: f32, b: f32) -> f32 {
        if is_nan(a) || is_nan(b) {
            return NAN;
        }
        let sign = (a.to_bits() ^ b.to_bits()) & SIGN;
        if magnitude(a) == INFINITY || magnitude(b) == INFINITY {
            return if magnitude(a) == 0 || magnitude(b) == 0 { NAN } else { f32::from_bits(sign | INFINITY) };
        }
        let ((ma, ea), (mb, eb)) = (unpack(a), unpack(b));
        round_pack(sign != 0, u64::from(ma) * u64::from(mb), ea + eb)
    }

    /// Quotient.
    pub fn div(a: f32, b: f32) -> f32 {
        if is_nan(a) || is_nan(b) {
            return NAN;
        }
        let sign = (a.to_bits() ^ b.to_bits()) & SIGN;
        let (za, zb) = (magnitude(a), magnitude(b));
        if za == INFINITY || zb == 0 {
            return if zb == INFINITY || za == 0 { NAN } else { f32::from_bits(sign | INFINITY) };
        }
        if za == 0 || zb == INFINITY {
            return f32::from_bits(sign);
        }
        let ((ma, ea), (mb, eb)) = (unpack_normal(a), unpack_normal(b));
        // Bit by bit: a core has its own form for usual numbers.
        let (mut quotient, mut rest) = (0, ma);
        for _ in 0..28 {
            let bit = rest >= mb;
            if bit {
                rest -= mb;
            }
            (quotient, rest) = (quotient << 1 | u32::from(bit), rest << 1);
        }
        round_pack(sign != 0, u64::from(quotient) << 1 | u64::from(rest != 0), ea - eb - 28)
    }

    /// Square root.
    pub fn sqrt(x: f32) -> f32 {
        let bits = x.to_bits();
        if is_nan(x) || (bits & SIGN != 0 && magnitude(x) != 0) {
            return NAN;
        }
        if magnitude(x) == 0 || bits == INFINITY {
            return x;
        }
        let (m, e) = unpack_normal(x);
        let odd = e & 1;
        // x = (m << odd) * 2^(e - odd); radicand of 50 or 51 bits and an even exponent. The root bit by bit.
        let radicand = u64::from(m) << (26 + odd);
        let mut root = 0u64;
        for bit in (0..26).rev() {
            let more = root | 1 << bit;
            if more * more <= radicand {
                root = more;
            }
        }
        let inexact = root * root != radicand;
        round_pack(false, root << 1 | u64::from(inexact), (e - odd - 26) / 2 - 1)
    }

    /// Whether `a < b` (false with a NaN; -0 is not less than 0).
    pub fn less(a: f32, b: f32) -> bool {
        if is_nan(a) || is_nan(b) {
            return false;
        }
        // Bits of a negative number run the other way.
        let key = |x: f32| {
            let bits = x.to_bits() as i32;
            if bits < 0 { i32::MIN.wrapping_sub(bits) } else { bits }
        };
        key(a) < key(b)
    }

    /// `round_half_even(m * 2^e)` of an integer of at most 53 bits and a sign.
    pub fn pack(m: i64, e: i32) -> f32 {
        round_pack(m < 0, m.unsigned_abs(), e)
    }

    /// An integer as a float, rounded half to even.
    pub fn from_i64(value: i64) -> f32 {
        pack(value, 0)
    }

    /// A float as the nearest integer, half to even; saturates, NaN becomes 0.
    pub fn to_i32(x: f32) -> i32 {
        if is_nan(x) {
            return 0;
        }
        let negative = x.to_bits() & SIGN != 0;
        let (m, e) = unpack(x);
        if e > 8 {
            return if negative { i32::MIN } else { i32::MAX };
        }
        let value = if e >= 0 {
            i64::from(m) << e
        } else if e < -25 {
            0
        } else {
            let (kept, rest) = (i64::from(m) >> -e, m & ((1u32 << -e) - 1));
            let half = 1u32 << (-e - 1);
            kept + i64::from(rest > half || (rest == half && kept & 1 == 1))
        };
        let value = if negative { -value } else { value };
        value.clamp(i64::from(i32::MIN), i64::from(i32::MAX)) as i32
    }

    /// `x * 2^fraction_bits` towards zero; for `|x| * 2^fraction_bits < 2^62` (NaN and infinity: 0).
    pub fn to_fixed(x: f32, fraction_bits: i32) -> i64 {
        if magnitude(x) >= INFINITY {
            return 0;
        }
        let (m, e) = unpack(x);
        let shift = e + fraction_bits;
        let value = if shift >= 0 { i64::from(m) << (shift & 63) } else { i64::from(m) >> core::cmp::min(-shift, 63) };
        if x.to_bits() & SIGN != 0 { -value } else { value }
    }

    /// As [`to_fixed`], for `0 <= x * 2^fraction_bits < 2^31`.
    pub fn to_fixed_small(x: f32, fraction_bits: i32) -> i32 {
        to_fixed(x, fraction_bits) as i32
    }

    /// `round_half_even(x * g * 2^e)` for `|g| <= 2^29`.
    pub fn mul_fixed(x: f32, g: i32, e: i32) -> f32 {
        if is_nan(x) {
            return NAN;
        }
        let sign = (x.to_bits() & SIGN) ^ (g as u32 & SIGN);
        if magnitude(x) == INFINITY {
            return if g == 0 { NAN } else { f32::from_bits(sign | INFINITY) };
        }
        let (m, ex) = unpack(x);
        round_pack(sign != 0, u64::from(m) * u64::from(g.unsigned_abs()), ex + e)
    }

    /// Floor of the binary logarithm of a positive number below 2^31.
    pub fn log2_floor(v: i32) -> i32 {
        31 - v.leading_zeros() as i32
    }
}

/// Forms by the host's own floating-point operators; the same bits, but for those of a NaN.
#[cfg(any(not(target_arch = "arm"), test))]
pub mod native {
    /// 2^e, for e of -1022 .. 1023.
    #[inline(always)]
    fn power(e: i32) -> f64 {
        f64::from_bits(((1023 + e) as u64) << 52)
    }
    /// See [`super::integer::add`].
    #[inline(always)]
    pub fn add(a: f32, b: f32) -> f32 {
        a + b
    }
    /// See [`super::integer::sub`].
    #[inline(always)]
    pub fn sub(a: f32, b: f32) -> f32 {
        a - b
    }
    /// See [`super::integer::mul`].
    #[inline(always)]
    pub fn mul(a: f32, b: f32) -> f32 {
        a * b
    }
    /// See [`super::integer::div`].
    #[inline(always)]
    pub fn div(a: f32, b: f32) -> f32 {
        a / b
    }
    /// See [`super::integer::sqrt`].
    #[cfg(any(test, feature = "std"))]
    #[inline(always)]
    pub fn sqrt(x: f32) -> f32 {
        x.sqrt()
    }
    /// See [`super::integer::sqrt`] (core has no square root of its own).
    #[cfg(not(any(test, feature = "std")))]
    #[inline(always)]
    pub fn sqrt(x: f32) -> f32 {
        super::integer::sqrt(x)
    }
    /// See [`super::integer::less`].
    #[inline(always)]
    pub fn less(a: f32, b: f32) -> bool {
        a < b
    }
    /// See [`super::integer::pack`]: an integer of at most 53 bits is exact in a double, so there is one rounding.
    #[inline(always)]
    pub fn pack(m: i64, e: i32) -> f32 {
        (m as f64 * power(e)) as f32
    }
    /// See [`super::integer::from_i64`].
    #[inline(always)]
    pub fn from_i64(value: i64) -> f32 {
        value as f32
    }
    /// See [`super::integer::to_fixed`].
    #[inline(always)]
    pub fn to_fixed(x: f32, fraction_bits: i32) -> i64 {
        let value = f64::from(x) * power(fraction_bits);
        // Infinity is 0, as in the integer form.
        if value.abs() < 9.0e18 { value as i64 } else { 0 }
    }
    /// See [`super::integer::to_fixed_small`].
    #[inline(always)]
    pub fn to_fixed_small(x: f32, fraction_bits: i32) -> i32 {
        // A product with a power of two is exact here.
        (x * power(fraction_bits) as f32) as i32
    }
    /// See [`super::integer::mul_fixed`]: 24 + 29 bits are exact in a double.
    #[inline(always)]
    pub fn mul_fixed(x: f32, g: i32, e: i32) -> f32 {
        (f64::from(x) * f64::from(g) * power(e)) as f32
    }
    /// See [`super::integer::log2_floor`]; with AVX2 there is a vector conversion, but no vector CLZ.
    #[inline(always)]
    pub fn log2_floor(v: i32) -> i32 {
        // Low bits off, so that the conversion is exact and cannot carry into the next power.
        let bits = ((v & !0xFF) as f32).to_bits();
        (bits >> 23) as i32 - 127
    }
}

#[cfg(target_arch = "arm")]
pub use crate::arm::{add, div, less, max, min, mul, sqrt, sub};
pub use integer::to_i32;
#[cfg(target_arch = "arm")]
pub use integer::{from_i64, log2_floor, mul_fixed, pack, to_fixed, to_fixed_small};
#[cfg(not(target_arch = "arm"))]
pub use native::{add, div, from_i64, less, log2_floor, mul, mul_fixed, pack, sqrt, sub, to_fixed, to_fixed_small};

/// Whether a number is NaN.
#[inline(always)]
pub fn is_nan(x: f32) -> bool {
    x.to_bits() & 0x7FFF_FFFF > 0x7F80_0000
}

/// Magnitude.
#[inline(always)]
pub fn abs(x: f32) -> f32 {
    f32::from_bits(x.to_bits() & 0x7FFF_FFFF)
}

/// The number with the other sign.
#[inline(always)]
pub fn neg(x: f32) -> f32 {
    f32::from_bits(x.to_bits() ^ 0x8000_0000)
}

/// The larger number; a NaN if there is one.
#[cfg(not(target_arch = "arm"))]
#[inline(always)]
pub fn max(a: f32, b: f32) -> f32 {
    if is_nan(a) || less(b, a) { a } else { b }
}

/// The smaller number; a NaN if there is one.
#[cfg(not(target_arch = "arm"))]
#[inline(always)]
pub fn min(a: f32, b: f32) -> f32 {
    if is_nan(a) || less(a, b) { a } else { b }
}

/// The number in a word of memory.
#[inline(always)]
pub fn load(cell: &Cell<u32>) -> f32 {
    f32::from_bits(cell.get())
}

/// Writes a number to a word of memory; every NaN as [`NAN`].
#[cfg(target_arch = "arm")]
#[inline(always)]
pub fn store(cell: &Cell<u32>, x: f32) {
    cell.set(crate::arm::number(x).to_bits());
}

/// Writes a result of [`add`], [`mul`] and the like: the integer forms give no other NaN than [`NAN`].
#[inline(always)]
pub fn store_result(cell: &Cell<u32>, x: f32) {
    #[cfg(target_arch = "arm")]
    cell.set(x.to_bits());
    #[cfg(not(target_arch = "arm"))]
    store(cell, x);
}

/// Writes a number to a word of memory; every NaN as [`NAN`].
#[cfg(not(target_arch = "arm"))]
#[inline(always)]
pub fn store(cell: &Cell<u32>, x: f32) {
    cell.set(if is_nan(x) { NAN.to_bits() } else { x.to_bits() });
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Equal bits, or both NaN.
    fn same(a: f32, b: f32) -> bool {
        a.to_bits() == b.to_bits() || (is_nan(a) && is_nan(b))
    }

    const SPECIAL: [u32; 22] = [
        0,
        1,
        2,
        0x007F_FFFF,
        0x0080_0000,
        0x0080_0001,
        0x00FF_FFFF,
        0x3380_0000,
        0x3F7F_FFFF,
        0x3F80_0000,
        0x3F80_0001,
        0x4000_0000,
        0x4B00_0000,
        0x4B7F_FFFF,
        0x4B80_0001,
        0x7E80_0000,
        0x7F00_0000,
        0x7F7F_FFFF,
        0x7F80_0000,
        0x7FC0_0000,
        0x7F80_0001,
        0x1F80_0000,
    ];

    fn check(a: f32, b: f32) {
        let pairs = [
            ("add", integer::add(a, b), native::add(a, b)),
            ("sub", integer::sub(a, b), native::sub(a, b)),
            ("mul", integer::mul(a, b), native::mul(a, b)),
            ("div", integer::div(a, b), native::div(a, b)),
            ("sqrt", integer::sqrt(a), native::sqrt(a)),
        ];
        for (name, found, expected) in pairs {
            assert!(same(found, expected), "{name}({a:e}, {b:e}) = {found:e}, not {expected:e}");
            assert!(!is_nan(found) || found.to_bits() == NAN.to_bits());
        }
        assert_eq!(integer::less(a, b), native::less(a, b), "{a:e} < {b:e}");
    }

    #[test]
    fn integers_and_the_host_agree() {
        for a in SPECIAL {
            for b in SPECIAL {
                for signs in [(0, 0), (0, 1), (1, 0), (1, 1)] {
                    check(f32::from_bits(a | signs.0 << 31), f32::from_bits(b | signs.1 << 31));
                }
            }
        }
        let mut state = 0x0123_4567_89AB_CDEFu64;
        for i in 0..3_000_000u32 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let bits = (state ^ (state >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            let (mut a, mut b) = ((bits >> 32) as u32, bits as u32);
            match i % 4 {
                // Near exponents, few mantissa bits (ties), subnormals.
                1 => b = (a & 0x7F80_0000).wrapping_add(b & 0x81FF_FFFF),
                2 => (a, b) = (a & 0xFFFF_F000, b & 0xFFFF_F800),
                3 => a &= 0x80FF_FFFF,
                _ => {}
            }
            check(f32::from_bits(a), f32::from_bits(b));
            let x = f32::from_bits(a);
            let g = (b as i32) >> 2;
            let e = -29 - (b & 63) as i32;
            assert!(same(integer::mul_fixed(x, g, e), native::mul_fixed(x, g, e)), "{x:e} * {g} * 2^{e}");
            let wide = (bits as i64) >> 10;
            assert!(same(integer::pack(wide, e * 2), native::pack(wide, e * 2)), "{wide} * 2^{}", e * 2);
            assert!(same(integer::from_i64(bits as i64), native::from_i64(bits as i64)), "{bits:#x}");
            let small = f32::from_bits((a & 0x807F_FFFF) | ((b % 40 + 96) << 23));
            assert_eq!(integer::to_fixed(small, 41), native::to_fixed(small, 41), "{small:e}");
            let tiny = f32::from_bits(a & 0x007F_FFFF | ((b % 131) << 23));
            assert_eq!(integer::to_fixed_small(tiny, 27), native::to_fixed_small(tiny, 27), "{tiny:e}");
            let v = ((b >> 1) | 0x100) as i32;
            assert_eq!(integer::log2_floor(v), native::log2_floor(v), "{v}");
            assert_eq!(to_i32(x), x.round_ties_even() as i32, "{x:e}");
        }
    }

    #[test]
    fn a_nan_has_one_pattern_in_memory() {
        let cell = Cell::new(0);
        for bits in [0xFFC0_0000, 0x7F80_0001, 0x7FFF_FFFF] {
            store(&cell, f32::from_bits(bits));
            assert_eq!(cell.get(), 0x7FC0_0000);
        }
    }
}
