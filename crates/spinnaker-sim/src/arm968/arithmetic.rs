//! The shifter, the adder and the saturating adder.

use super::instruction::Shift;

/// A register shifted by a constant as instructions encode it, and the carry out.
pub(super) fn shift_immediate(shift: Shift, value: u32, amount: u8, carry: bool) -> (u32, bool) {
    match (shift, amount) {
        (Shift::Lsl, 0) => (value, carry),
        (Shift::Lsr | Shift::Asr, 0) => shift_register(shift, value, 32, carry),
        (Shift::Ror, 0) => (u32::from(carry) << 31 | value >> 1, value & 1 != 0),
        _ => shift_register(shift, value, amount, carry),
    }
}

/// A register shifted by the low byte of another, and the carry out.
pub(super) fn shift_register(shift: Shift, value: u32, amount: u8, carry: bool) -> (u32, bool) {
    let amount = u32::from(amount);
    if amount == 0 {
        return (value, carry);
    }
    let bit = |index: u32| value >> index & 1 != 0;
    match shift {
        Shift::Lsl if amount < 32 => (value << amount, bit(32 - amount)),
        Shift::Lsl => (0, amount == 32 && bit(0)),
        Shift::Lsr if amount < 32 => (value >> amount, bit(amount - 1)),
        Shift::Lsr => (0, amount == 32 && bit(31)),
        Shift::Asr if amount < 32 => ((value as i32 >> amount) as u32, bit(amount - 1)),
        Shift::Asr => ((value as i32 >> 31) as u32, bit(31)),
        Shift::Ror => (value.rotate_right(amount & 31), bit(amount.wrapping_sub(1) & 31)),
    }
}

/// Sum, carry and overflow.
pub(super) fn add_with_carry(left: u32, right: u32, carry: bool) -> (u32, bool, bool) {
    let wide = u64::from(left) + u64::from(right) + u64::from(carry);
    let sum = wide as u32;
    (sum, wide >> 32 != 0, ((left ^ sum) & (right ^ sum)) >> 31 != 0)
}

/// A saturated sum or difference, and whether it saturated.
pub(super) fn saturate(wide: i64) -> (u32, bool) {
    let result = wide.clamp(i64::from(i32::MIN), i64::from(i32::MAX));
    (result as u32, result != wide)
}

/// The top or bottom half of a register, sign-extended.
pub(super) fn half(value: u32, top: bool) -> i64 {
    i64::from(if top { (value as i32) >> 16 } else { i32::from(value as i16) })
}
