//! Hand-written forms of the hottest inner loops for the core's processor: the ARM counterpart of the host's vector forms.
//!
//! Cycles are those that `cost` and [`crate::num::cycles`] state; a test bench runs both on the instruction-level core.

pub mod int8;

use core::arch::global_asm;
use core::cell::Cell;

use crate::block::round::{self, Operands};
use crate::num::integer;

global_asm!(include_str!("float.s"), options(raw));
global_asm!(include_str!("product.s"), options(raw));
global_asm!(include_str!("wgrad.s"), options(raw));
global_asm!(include_str!("align.s"), options(raw));
global_asm!(include_str!("moves.s"), options(raw));
global_asm!(include_str!("functions.s"), options(raw));
global_asm!(include_str!("loops.s"), options(raw));

unsafe extern "C" {
    pub(crate) fn spidnn_add(a: f32, b: f32) -> f32;
    pub(crate) fn spidnn_sub(a: f32, b: f32) -> f32;
    pub(crate) fn spidnn_mul(a: f32, b: f32) -> f32;
    fn spidnn_product_rows_words(rows: *mut ProductRows);
    fn spidnn_product_rows_halves(rows: *mut ProductRows);
    fn spidnn_gradient_halves(rows: *const GradientRows);
    pub(crate) fn spidnn_div(a: f32, b: f32) -> f32;
    pub(crate) fn spidnn_ln(x: f32) -> f32;
    pub(crate) fn spidnn_sqrt(x: f32) -> f32;
    pub(crate) fn spidnn_rsqrt(x: f32) -> f32;
    pub(crate) fn spidnn_exp(x: f32, _: f32) -> f32;
    pub(crate) fn spidnn_tanh(x: f32, _: f32) -> f32;
    pub(crate) fn spidnn_sigmoid(x: f32, _: f32) -> f32;
    pub(crate) fn spidnn_relu(x: f32, _: f32) -> f32;
    pub(crate) fn spidnn_relu_grad(dy: f32, y: f32) -> f32;
    pub(crate) fn spidnn_leaky_relu(x: f32, alpha: f32) -> f32;
    pub(crate) fn spidnn_number(x: f32, _: f32) -> f32;
    pub(crate) fn spidnn_less(a: f32, b: f32) -> u32;
    pub(crate) fn spidnn_max(a: f32, b: f32) -> f32;
    pub(crate) fn spidnn_min(a: f32, b: f32) -> f32;
    pub(crate) fn spidnn_pool_max(best: *const Cell<u32>, x: *const Cell<u32>, count: usize);
    pub(crate) fn spidnn_map(function: Function, x: *const Cell<u32>, count: usize, parameter: f32);
    pub(crate) fn spidnn_zip(zip: *const Zip, count: usize);
    pub(crate) fn spidnn_copy(from: u32, to: u32, count: u32);
    pub(crate) fn spidnn_fill(to: u32, count: u32, value: u32);
    pub(crate) fn spidnn_largest(x: *const u32, step: u32, count: u32, most: u32) -> u32;
    fn spidnn_align_pairs(
        x: *const u32,
        out: *mut u32,
        count: u32,
        exponent: i32,
        x_step: u32,
        pair_step: u32,
        out_step: u32,
    );
    fn spidnn_align_singles(x: *const u32, out: *mut u32, count: u32, exponent: i32, x_step: u32, out_step: u32);
    pub(crate) fn spidnn_align(x: *const u32, out: *mut u32, count: u32, exponent: i32, x_step: u32, out_step: u32);
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

/// See [`integer::div`].
#[inline(always)]
pub fn div(a: f32, b: f32) -> f32 {
    // SAFETY: registers and stack only.
    unsafe { spidnn_div(a, b) }
}

/// See [`crate::functions::ln`].
#[inline(always)]
pub fn ln(x: f32) -> f32 {
    // SAFETY: registers and stack only.
    unsafe { spidnn_ln(x) }
}

/// See [`integer::sqrt`].
#[inline(always)]
pub fn sqrt(x: f32) -> f32 {
    // SAFETY: registers and stack only.
    unsafe { spidnn_sqrt(x) }
}

/// See [`crate::functions::reciprocal_sqrt`].
#[inline(always)]
pub fn reciprocal_sqrt(x: f32) -> f32 {
    // SAFETY: registers and stack only.
    unsafe { spidnn_rsqrt(x) }
}

/// See [`integer::less`].
#[inline(always)]
pub fn less(a: f32, b: f32) -> bool {
    // SAFETY: registers only.
    unsafe { spidnn_less(a, b) != 0 }
}

/// See [`crate::functions::exp`].
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    // SAFETY: registers and stack only.
    unsafe { spidnn_exp(x, x) }
}

/// See [`crate::functions::sigmoid`].
#[inline(always)]
pub fn sigmoid(x: f32) -> f32 {
    // SAFETY: registers and stack only.
    unsafe { spidnn_sigmoid(x, x) }
}

/// See [`crate::num::max`].
#[inline(always)]
pub fn max(a: f32, b: f32) -> f32 {
    // SAFETY: registers only.
    unsafe { spidnn_max(a, b) }
}

/// See [`crate::num::min`].
#[inline(always)]
pub fn min(a: f32, b: f32) -> f32 {
    // SAFETY: registers only.
    unsafe { spidnn_min(a, b) }
}

/// The number; every NaN as the one that is stored.
#[inline(always)]
pub fn number(x: f32) -> f32 {
    // SAFETY: registers only.
    unsafe { spidnn_number(x, x) }
}

/// A function of two numbers: of an element and a parameter, or of two elements.
pub type Function = unsafe extern "C" fn(f32, f32) -> f32;

/// Functions for [`map`] and [`zip`]. All are safe, and give no NaN but the one that is stored.
pub mod functions {
    /// e^x
    pub(crate) use super::spidnn_exp as exp;
    /// Logistic function
    pub(crate) use super::spidnn_sigmoid as sigmoid;
    /// Hyperbolic tangent
    pub(crate) use super::spidnn_tanh as tanh;
    pub(crate) use super::{
        spidnn_add as add, spidnn_div as div, spidnn_leaky_relu as leaky_relu, spidnn_max as max, spidnn_min as min,
        spidnn_mul as mul, spidnn_number as number, spidnn_relu as relu, spidnn_relu_grad as relu_grad,
        spidnn_sub as sub,
    };
}

/// `x = function(x, parameter)` of every word.
pub fn map(function: Function, x: &[Cell<u32>], parameter: f32) {
    // SAFETY: the words are those of the slice.
    unsafe { spidnn_map(function, x.as_ptr(), x.len(), parameter) }
}

/// `out = function(a, b)` of so many words; addresses, and steps in bytes.
#[repr(C)]
pub struct Zip {
    /// The function.
    pub function: Function,
    /// First left operand.
    pub a: u32,
    /// From one to the next.
    pub a_step: u32,
    /// First right operand.
    pub b: u32,
    /// From one to the next.
    pub b_step: u32,
    /// First result, 4 bytes from one to the next.
    pub out: u32,
}

impl Zip {
    /// Of operands and results that lie side by side.
    pub fn of(function: Function, a: &[Cell<u32>], b: &[Cell<u32>], out: &[Cell<u32>]) -> Zip {
        let address = |x: &[Cell<u32>]| x.as_ptr() as u32;
        Zip { function, a: address(a), a_step: 4, b: address(b), b_step: 4, out: address(out) }
    }

    /// Does it, `count` times.
    ///
    /// # Safety
    /// Operands and results are in memory.
    pub unsafe fn run(&self, count: usize) {
        // SAFETY: the caller's.
        unsafe { spidnn_zip(self, count) }
    }
}

/// The larger of each pair of words, by the order of pooling.
pub fn pool_max(best: &[Cell<u32>], x: &[Cell<u32>]) {
    if !best.is_empty() {
        // SAFETY: both have as many words.
        unsafe { spidnn_pool_max(best.as_ptr(), x.as_ptr(), best.len().min(x.len())) }
    }
}

/// `out = function(a, b)` of every word.
pub fn zip(function: Function, a: &[Cell<u32>], b: &[Cell<u32>], out: &[Cell<u32>]) {
    // SAFETY: the words are those of the slices.
    unsafe { Zip::of(function, a, b, out).run(a.len().min(b.len()).min(out.len())) }
}

#[unsafe(no_mangle)]
extern "C" fn spidnn_div_rare(a: f32, b: f32) -> f32 {
    integer::div(a, b)
}

/// A quotient whose exponent leaves the range: its significand has the top bit at 31 and may end in a bit that stands for more.
#[unsafe(no_mangle)]
extern "C" fn spidnn_round_rare(significand: u32, exponent: i32, sign: u32) -> f32 {
    integer::round_pack(sign != 0, significand.into(), exponent + 1 - 127 - 31)
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

/// Copies words that are apart.
pub fn copy_cells(from: &[Cell<u32>], to: &[Cell<u32>]) {
    // SAFETY: the words are those of the slices.
    unsafe { copy(from.as_ptr() as u32, to.as_ptr() as u32, from.len().min(to.len()) as u32) }
}

/// Writes `value` to `count` words.
///
/// # Safety
/// They are in memory.
pub unsafe fn fill(to: u32, count: u32, value: u32) {
    // SAFETY: the caller's.
    unsafe { spidnn_fill(to, count, value) }
}

/// Rows of a product, for the assembly. Addresses and steps in bytes.
///
/// A sum is over `segments` segments of `terms` terms; between them both pointers, which stand behind the last term, move by the `x`
/// steps, or after `x_count` segments by the `y` steps.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct ProductRows {
    /// Left operand, from term to term.
    pub a_step: u32,
    /// Right operand, from term to term.
    pub b_step: u32,
    /// Terms of a segment, at least one.
    pub terms: u32,
    /// Segments; 0: the sums are zero.
    pub segments: u32,
    /// Segments in a row of segments.
    pub x_count: u32,
    /// Left pointer, from behind a segment to the next.
    pub a_x: u32,
    /// Right pointer.
    pub b_x: u32,
    /// Left pointer, from behind the last segment of a row to the next row.
    pub a_y: u32,
    /// Right pointer.
    pub b_y: u32,
    /// Exponent of the row at hand.
    pub a_exp: i32,
    /// Not 0: results are added to what is there.
    pub accumulate: u32,
    /// From exponent to exponent: 4, or 0 if the same four serve all tiles.
    pub b_exps_step: u32,
    /// First left operand of the row at hand.
    pub a: u32,
    /// Its first result.
    pub c: u32,
    /// Exponent of the first column.
    pub b_exps: u32,
    /// Columns.
    pub columns: u32,
    /// First right operand of the first column.
    pub b: u32,
    /// Rows, at least one.
    pub rows: u32,
    /// Left operand, from row to row.
    pub a_next: u32,
    /// Results, from row to row.
    pub c_next: u32,
    /// Exponent of the row at hand.
    pub a_exps: u32,
    /// From row to row.
    pub a_exps_step: u32,
}

impl ProductRows {
    /// Computes the rows. Afterwards the row at hand is the last one.
    ///
    /// # Safety
    /// Operands, exponents and results are in memory.
    #[inline(always)]
    pub unsafe fn run(&mut self, operands: Operands) {
        // SAFETY: the caller's.
        unsafe {
            match operands {
                Operands::Mantissas => spidnn_product_rows_words(self),
                Operands::Halves => spidnn_product_rows_halves(self),
            }
        }
    }
}

/// The gradient of the weights at a tap, from halves. Addresses and steps in bytes.
///
/// Terms are pixels: `segments` rows of `terms` pixels. From behind a row to the next the pointers move by `a_y` and `b_y`.
#[repr(C)]
pub struct GradientRows {
    /// Input, from pixel to pixel.
    pub a_step: u32,
    /// Gradient of the output, from pixel to pixel.
    pub b_step: u32,
    /// Pixels of a row, at least one.
    pub terms: u32,
    /// Rows of pixels; 0: the sums are zero.
    pub segments: u32,
    /// Input, from behind a row to the next.
    pub a_y: u32,
    /// Gradient of the output.
    pub b_y: u32,
    /// First pair of input channels of the first pixel.
    pub a: u32,
    /// First pair of output channels of the first pixel.
    pub b: u32,
    /// Gradients of the weights.
    pub c: u32,
    /// Output channels.
    pub columns: u32,
    /// Input channels.
    pub rows: u32,
    /// Exponent of the input.
    pub a_exp: i32,
    /// Exponent of the gradient of the output.
    pub b_exp: i32,
}

impl GradientRows {
    /// Adds the gradients.
    ///
    /// # Safety
    /// Operands and results are in memory, and there are some of both kinds of channels.
    pub unsafe fn run(&self) {
        // SAFETY: the caller's.
        unsafe { spidnn_gradient_halves(self) }
    }
}

/// A sum that the assembly leaves: small, special or out of range. `a_exp` and `b_exp` as in memory.
#[unsafe(no_mangle)]
extern "C" fn spidnn_product_rare_words(low: u32, high: u32, a_exp: i32, b_exp: i32) -> u32 {
    round::product((u64::from(high) << 32 | u64::from(low)) as i64, a_exp, b_exp)
}

/// The same of a sum of halves.
#[unsafe(no_mangle)]
extern "C" fn spidnn_product_rare_halves(low: u32, high: u32, a_exp: i32, b_exp: i32) -> u32 {
    spidnn_product_rare_words(low, high, Operands::Halves.exponent(a_exp), b_exp)
}

/// Largest magnitude (as bits) of `count` numbers `step` bytes apart and of `most`.
///
/// # Safety
/// They are in memory.
pub unsafe fn largest(x: *const u32, step: u32, count: u32, most: u32) -> u32 {
    // SAFETY: the caller's.
    unsafe { spidnn_largest(x, step, count, most) }
}

/// Exponents for which the assembly aligns: it shifts by the low byte of what is below 256 only, and a zero by 33 at least.
const ALIGNED: core::ops::RangeInclusive<i32> = -99..=123;

/// Where halves come from and go to; steps in bytes.
#[derive(Clone, Copy)]
pub struct Halves {
    /// First number.
    pub x: *const u32,
    /// From the first number of a word to that of the next.
    pub x_step: u32,
    /// From the first number of a word to its second; `None`: the second is zero.
    pub pair_step: Option<u32>,
    /// First word.
    pub out: *mut u32,
    /// From word to word.
    pub out_step: u32,
}

/// `count` words of two halves of numbers that share an exponent (as a mantissa's).
///
/// # Safety
/// Numbers and words are in memory.
pub unsafe fn align_halves(halves: Halves, count: u32, exponent: i32) {
    let Halves { mut x, x_step, pair_step, mut out, out_step } = halves;
    if count == 0 {
        return;
    }
    if ALIGNED.contains(&exponent) {
        // SAFETY: the caller's.
        return unsafe {
            match pair_step {
                Some(step) => spidnn_align_pairs(x, out, count, exponent, x_step, step, out_step),
                None => spidnn_align_singles(x, out, count, exponent, x_step, out_step),
            }
        };
    }
    for _ in 0..count {
        // SAFETY: the caller's.
        unsafe {
            let half = |x: *const u32| round::mantissa(x.read(), exponent) as u32;
            let high = pair_step.map_or(0, |step| half(x.wrapping_byte_add(step as usize)));
            out.write(half(x) & 0xFFFF | high << 16);
        }
        (x, out) = (x.wrapping_byte_add(x_step as usize), out.wrapping_byte_add(out_step as usize));
    }
}

/// Mantissas of `count` numbers that share an exponent; steps in bytes.
///
/// # Safety
/// Numbers and mantissas are in memory.
pub unsafe fn align(x: *const u32, x_step: u32, out: *mut u32, out_step: u32, count: u32, exponent: i32) {
    if ALIGNED.contains(&exponent) {
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
