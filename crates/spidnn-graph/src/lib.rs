//! Layers, graphs, shape inference, and the float32 reference executor.
#![forbid(unsafe_code)]

pub mod graph;
pub mod layer;
pub mod training;

pub use graph::{Graph, Layer, LayerId, Node, NodeId, Param, ParamId};
pub use layer::{Activation, Initializer, LayerKind, Padding};

/// A host tensor, row-major; the batch dimension first where there is one.
pub type Tensor = ndarray::ArrayD<f32>;
