//! Kernels on blocks: alignment of operands, exact products, pooling, and plain moves.

mod conv;
mod gemm;
mod geometry;
mod half;
mod moves;
mod pool;
mod prep;
#[cfg(any(test, feature = "std"))]
mod product;
pub(crate) mod round;
#[cfg(test)]
pub(crate) mod test_data;

pub(crate) use geometry::Axis;
pub(crate) use pool::{check_window, window};
pub(crate) use round::Operands;
