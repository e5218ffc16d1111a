//! Layers, graphs, shape inference, and the float32 reference executor.
//!
//! ```
//! use spidnn_graph::builder::*;
//! use spidnn_graph::{Activation, Tensor, reference};
//! let graph = Sequential::new(Input::shape([2])).with(Dense::new(1).activation(Activation::Relu)).build()?;
//! let weights = [Tensor::from_shape_vec(vec![2, 1], vec![1.0, -2.0])?, Tensor::zeros(vec![1])];
//! let x = Tensor::from_shape_vec(vec![2, 2], vec![5.0, 1.0, 1.0, 5.0])?;
//! let y = reference::predict(&graph, &weights, &[x], 32)?;
//! assert_eq!(y[0].as_slice(), Some(&[3.0, 0.0][..]));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! * [`builder`]: networks in Keras' words; [`GraphBuilder`]: the same layer by layer, for importers.
//! * [`Graph`]: what they make: layers, calls of layers (nodes), parameters; static shapes, counts, a summary.
//! * [`training`]: losses, optimizers and schedules as data.
//! * [`mod@reference`]: what a network computes, its gradients, and training, on the host. The oracle for everything else.
//!
//! Nothing here knows of machines, files or number formats other than float32.
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
