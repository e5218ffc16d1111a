//! Kernels that take one element at a time, and reductions over rows and columns.
//!
//! All arithmetic is IEEE binary32, one operation at a time ([`crate::num`]); functions are those of
//! [`crate::functions`]. Sums are taken in ascending order.
//!
//! Cycles: each kernel states the operations of an element; [`element`] adds loads, stores and the turn of the loop.

mod activation;
mod dropout;
mod loss;
mod maps;
mod norm;
mod optimizer;
mod softmax;
#[cfg(test)]
mod tests;

use crate::num::cycles as op;

/// Cycles of `count` turns of a loop with these operations, loads and stores in each.
fn element(count: u64, operations: u64, loads: u64, stores: u64) -> u64 {
    count * (operations + loads * op::LOAD + stores * op::STORE + op::TURN)
}

/// Product of two counts.
fn area(rows: u32, cols: u32) -> u64 {
    u64::from(rows) * u64::from(cols)
}
