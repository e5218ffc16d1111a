//! Hand-written forms of the hottest inner loops for the core's processor: the ARM counterpart of the host's vector forms.
//!
//! Cycles are those that `cost` and [`crate::num::cycles`] state; a test bench runs both on the instruction-level core.

pub mod int8;

use core::arch::global_asm;
use core::cell::Cell;

use crate::block::round;
use crate::num::integer;

global_asm!(include_str!("float.s"), options(raw));
global_asm!(include_str!("product.s"), options(raw));
global_asm!(include_str!("align.s"), options(raw));
global_asm!(include_str!("moves.s"), options(raw));

unsafe extern "C" {
    fn spidnn_add(a: f32, b: f32) -> f32;
    fn spidnn_sub(a: f32, b: f32) -> f32;
    fn spidnn_mul(a: f32, b: f32) -> f32;
    fn spidnn_product_row(row: *mut ProductRow);
    fn spidnn_copy(from: u32, to: u32, count: u32);
    fn spidnn_fill(to: u32, count: u32, value: u32);
    fn spidnn_largest(x: *const u32, step: u32, count: u32, most: u32) -> u32;
    fn spidnn_align(x: *const u32, out: *mut u32, count: u32, exponent: i32, x_step: u32, out_step: u32);
}

/// See [`integer::add`].
#[inline(always)]
pub fn add(a: f32, b: f32) -> f32 {
    // SAFETY: registers only.
    unsafe { spidnn_add(a, b) }
}

/// See [`integer::sub`].
#[inline(always)]
pub fn sub(a: f32, b: f32) -> f32 {
    // SAFETY: registers only.
    unsafe { spidnn_sub(a, b) }
}

/// See [`integer::mul`].
#[inline(always)]
pub fn mul(a: f32, b: f32) -> f32 {
    // SAFETY: registers and stack only.
    unsafe { spidnn_mul(a, b) }
}

#[unsafe(no_mangle)]
extern "C" fn spidnn_add_rare(a: f32, b: f32) -> f32 {
    integer::add(a, b)
}

#[unsafe(no_mangle)]
extern "C" fn spidnn_mul_rare(a: f32, b: f32) -> f32 {
    integer::mul(a, b)
}

/// A product whose exponent (of its top bit, less -126) is below zero.
#[unsafe(no_mangle)]
extern "C" fn spidnn_mul_small(low: u32, high: u32, exponent: i32, sign: u32) -> f32 {
    integer::round_pack(sign != 0, u64::from(high) << 32 | u64::from(low), exponent - 126 - 63)
}

/// Address of a byte offset into the memory.
#[inline(always)]
pub fn address(dtcm: &[Cell<u32>], offset: u32) -> u32 {
    dtcm.as_ptr() as u32 + offset
}

/// Copies `count` words; addresses.
///
/// # Safety
/// Both areas are in memory, and apart.
pub unsafe fn copy(from: u32, to: u32, count: u32) {
    // SAFETY: the caller's.
    unsafe { spidnn_copy(from, to, count) }
}

/// Writes `value` to `count` words.
///
/// # Safety
/// They are in memory.
pub unsafe fn fill(to: u32, count: u32, value: u32) {
    // SAFETY: the caller's.
    unsafe { spidnn_fill(to, count, value) }
}

/// One row of a product: what the assembly works through, and counts on in. Addresses and steps in bytes.
///
/// A sum is over `y_count * x_count` segments of `terms` terms; between them both pointers, which stand behind the last
/// term, move by the `x` steps, or at the end of a row of segments by the `y` steps.
#[repr(C)]
pub struct ProductRow {
    /// First left operand.
    pub a: u32,
    /// First right operand of the first column.
    pub b: u32,
    /// From term to term.
    pub a_step: u32,
    /// From term to term.
    pub b_step: u32,
    /// Terms of a segment.
    pub terms: u32,
    /// Segments in a row of segments.
    pub x_count: u32,
    /// Rows of segments.
    pub y_count: u32,
    /// Left pointer, from behind a segment to the next.
    pub a_x: u32,
    /// Right pointer.
    pub b_x: u32,
    /// Left pointer, from behind the last segment of a row to the next row.
    pub a_y: u32,
    /// Right pointer.
    pub b_y: u32,
    /// First result.
    pub c: u32,
    /// Exponent of the first column.
    pub b_exps: u32,
    /// From exponent to exponent: 4, or 0 for one that all share.
    pub b_exps_step: u32,
    /// Exponent of the row.
    pub a_exp: i32,
    /// Columns.
    pub columns: u32,
    /// Not 0: results are added to what is there.
    pub accumulate: u32,
}

impl ProductRow {
    /// Computes the row. The description is used up: `b`, `c`, `b_exps` and `columns` count on.
    ///
    /// # Safety
    /// Operands, exponents and results are in memory.
    pub unsafe fn run(&mut self) {
        // SAFETY: the caller's.
        unsafe { spidnn_product_row(self) }
    }
}

/// A sum that the assembly leaves: small, special or out of range. `a_exp` and `b_exp` as in memory.
#[unsafe(no_mangle)]
extern "C" fn spidnn_product_rare(low: u32, high: u32, a_exp: i32, b_exp: i32) -> u32 {
    round::product((u64::from(high) << 32 | u64::from(low)) as i64, a_exp, b_exp)
}

/// Largest magnitude (as bits) of `count` numbers `step` bytes apart and of `most`.
///
/// # Safety
/// They are in memory.
pub unsafe fn largest(x: *const u32, step: u32, count: u32, most: u32) -> u32 {
    // SAFETY: the caller's.
    unsafe { spidnn_largest(x, step, count, most) }
}

/// Mantissas of `count` numbers that share an exponent; steps in bytes.
///
/// # Safety
/// Numbers and mantissas are in memory.
pub unsafe fn align(x: *const u32, x_step: u32, out: *mut u32, out_step: u32, count: u32, exponent: i32) {
    // The assembly shifts by the low byte of what is below 256 only, and a zero by 33 at least.
    if (-99..=123).contains(&exponent) {
        // SAFETY: the caller's.
        return unsafe { spidnn_align(x, out, count, exponent, x_step, out_step) };
    }
    let (mut x, mut out) = (x, out);
    for _ in 0..count {
        // SAFETY: the caller's.
        unsafe { out.write(round::mantissa(x.read(), exponent) as u32) };
        (x, out) = (x.wrapping_byte_add(x_step as usize), out.wrapping_byte_add(out_step as usize));
    }
}
