//! Kernels of the format `int8`: bytes in memory, halves (16 bits) as operands, exact sums of 32 bits.

mod cost;
mod maps;
mod pool;
mod product;
mod widen;

use core::cell::Cell;

/// Byte `i` of a buffer that begins with the first word.
#[inline(always)]
fn byte(words: &[Cell<u32>], i: usize) -> u32 {
    words[i / 4].get() >> (8 * (i % 4)) & 0xFF
}

/// Writes byte `i`.
#[inline(always)]
fn set_byte(words: &[Cell<u32>], i: usize, value: u32) {
    let (cell, at) = (&words[i / 4], 8 * (i % 4));
    cell.set(cell.get() & !(0xFF << at) | (value & 0xFF) << at);
}

/// Half `i`, signed.
#[cfg(test)]
fn half(words: &[Cell<u32>], i: usize) -> i32 {
    i32::from((words[i / 2].get() >> (16 * (i % 2))) as i16)
}

/// Writes half `i`.
#[inline(always)]
fn set_half(words: &[Cell<u32>], i: usize, value: i32) {
    let (cell, at) = (&words[i / 2], 16 * (i % 2));
    cell.set(cell.get() & !(0xFFFF << at) | (value as u32 & 0xFFFF) << at);
}

/// `value` in the range of a byte.
#[inline(always)]
fn saturate(value: i32) -> u32 {
    value.clamp(0, 255) as u32
}

/// An error unless a zero point is a byte.
fn check_zero(field: &'static str, zero: u32) -> Result<(), crate::BadCall> {
    crate::dtcm::below(field, zero, 256)
}

/// Largest last shift of a product: with a zero point before it the sum stays in 32 bits.
const SHIFT_MAX: u32 = 22;

/// An error unless there is something to round, and not too much.
fn check_shift(shift: u32, most: u32) -> Result<(), crate::BadCall> {
    if (1..=most).contains(&shift) { Ok(()) } else { Err(crate::BadCall::value("shift", shift)) }
}

/// `floor(value / 2^shift + 1/2)`: the shifted value plus the last bit that was shifted out.
#[inline(always)]
fn shift_rounding(value: i32, shift: u32) -> i32 {
    (value >> shift) + (value >> (shift - 1) & 1)
}
