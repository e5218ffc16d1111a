//! Deep neural networks on SpiNNaker machines, with a Keras-like face.
#![forbid(unsafe_code)]

pub mod board;
pub mod builtin;
pub mod callbacks;
pub mod checkpoint;
pub mod data;
mod error;
pub mod metrics;
pub mod names;
mod options;
mod text;
mod usage;

pub use callbacks::{CSVLogger, Callback, EarlyStopping, History, Logs, ModelCheckpoint, ReduceLROnPlateau, Trainer};
pub use data::{DataError, Dataset};
pub use error::{CoreFailure, CoreTrouble, Error};
pub use metrics::{Metric, MetricKind};
pub use options::{Evaluate, Fit, Validation};
pub use spidnn_compiler as compiler;
pub use spidnn_graph::builder::*;
pub use spidnn_graph::training::{Clip, LearningRate, Loss, Optimizer, Rule};
pub use spidnn_graph::{Activation, Graph, GraphBuilder, Initializer, Padding, Tensor};
pub use usage::{Phases, Usage};
