//! The reference executor: what a network computes, on the host, in float32. It is the oracle for everything that computes the
//! same on cores, and is itself held against Keras' results and finite differences.
//!
//! Tensors between nodes are float32; inside an operation sums and functions are computed in float64 and rounded once, with
//! [`libm`], so results are the same on every platform and lie within a unit or two in the last place of the exact ones.

pub mod activation;
mod backward;
mod conv;
mod forward;
pub mod loss;
mod norm;
pub mod optimizer;
mod pool;
pub mod train;

pub use backward::{Cotangent, Gradients, backward};
pub use forward::{DropoutElement, Forward, Mode, check_inputs, forward, predict, seeded_masks};
pub use loss::LossValue;
pub use optimizer::OptimizerState;
pub use train::{FitData, Trainer};

use crate::Tensor;

/// The elements in row-major order.
fn elements(tensor: &Tensor) -> std::borrow::Cow<'_, [f32]> {
    match tensor.as_slice() {
        Some(slice) => std::borrow::Cow::Borrowed(slice),
        None => std::borrow::Cow::Owned(tensor.iter().copied().collect()),
    }
}

/// A tensor from its elements in row-major order. Panics unless there are as many as the shape says: callers compute both.
fn tensor(shape: &[usize], elements: Vec<f32>) -> Tensor {
    Tensor::from_shape_vec(ndarray::IxDyn(shape), elements).expect("as many elements as the shape says")
}

/// A batch's shape.
fn with_batch(batch: usize, shape: &[usize]) -> Vec<usize> {
    std::iter::once(batch).chain(shape.iter().copied()).collect()
}
