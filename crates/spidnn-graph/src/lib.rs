//! Layers, graphs, shape inference, and the float32 reference executor.
#![forbid(unsafe_code)]

pub mod builder;
pub mod error;
pub mod geometry;
pub mod graph;
pub mod graph_builder;
pub mod layer;
pub mod reference;
mod summary;
pub mod training;
pub mod weights;

pub use error::GraphError;
pub use geometry::Axis;
pub use graph::{Graph, Layer, LayerId, Node, NodeId, Param, ParamId};
pub use graph_builder::GraphBuilder;
pub use layer::{Activation, Initializer, LayerKind, Padding};
pub use weights::{check_weights, initial_weights};

/// A host tensor, row-major; the batch dimension first where there is one.
pub type Tensor = ndarray::ArrayD<f32>;
