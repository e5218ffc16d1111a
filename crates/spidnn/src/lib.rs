//! Deep neural networks on SpiNNaker machines, with a Keras-like face.
#![forbid(unsafe_code)]

pub mod board;
pub mod builtin;
pub mod callbacks;
pub mod checkpoint;
pub mod data;
mod error;
mod machine;
pub mod metrics;
mod model;
pub mod names;
mod native;
mod options;
mod run_block;
mod session;
mod text;
mod usage;
mod virtual_board;

pub use callbacks::{CSVLogger, Callback, EarlyStopping, History, Logs, ModelCheckpoint, ReduceLROnPlateau, Trainer};
pub use data::{DataError, Dataset};
pub use error::{CoreFailure, CoreTrouble, Error};
pub use machine::Machine;
pub use metrics::{Metric, MetricKind};
pub use model::{Model, OnMachine};
pub use native::NativeCore;
pub use options::{Evaluate, Fit, Validation};
pub use session::{Scores, Session};
pub use spidnn_compiler as compiler;
pub use spidnn_graph::builder::*;
pub use spidnn_graph::training::{Clip, LearningRate, Loss, Optimizer, Rule};
pub use spidnn_graph::{Activation, Graph, GraphBuilder, Initializer, LayerId, NodeId, Padding, Tensor};
pub use usage::{Phases, Usage};
pub use virtual_board::VirtualBoard;
