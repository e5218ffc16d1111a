//! Kernels that take one element at a time, and reductions over rows and columns.
//!
//! All arithmetic is IEEE binary32, one operation at a time ([`crate::num`]); functions are those of
//! [`crate::functions`]. Sums are taken in ascending order.
//!
//! Cycles: [`loop_of`] for the loops of assembly with one function; [`compiled`] for other loops, by the operations of an element.

mod activation;
mod dropout;
mod loss;
mod maps;
mod norm;
mod optimizer;
mod softmax;
#[cfg(test)]
mod tests;

pub(crate) use maps::STATISTICS;

use crate::num::cycles as op;

/// Cycles of the assembly's loop over `count` words of one or two vectors, with a function of so many cycles: call 60; LDR, LDR (or MOV), BLX 3,
/// SUBS, STR, BNE 3.
fn loop_of(count: u64, function: u64) -> u64 {
    60 + count * (10 + function)
}

/// Cycles of `count` elements in compiled code, each with so many operations that take `cycles` together.
fn compiled(count: u64, operations: u64, cycles: u64) -> u64 {
    count * (cycles + operations * op::AROUND)
}

/// Product of two counts.
fn area(rows: u32, cols: u32) -> u64 {
    u64::from(rows) * u64::from(cols)
}
