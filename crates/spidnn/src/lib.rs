//! Deep neural networks on SpiNNaker machines, with a Keras-like face.
//!
//! A [`Model`] is a graph with weights: built in Keras' words ([`Sequential`]), opened from a Keras file, or built in. A
//! [`Machine`] is what it runs on: here a virtual SpiNNaker, cores, packets and memories simulated, its time counted. The
//! two together are a [`Session`]: loaded once, it trains, evaluates and predicts as often as wanted.
//!
//! ```
//! use spidnn::{Activation, Dataset, Dense, Evaluate, Fit, Input, Loss, Machine, OnMachine, Optimizer, Sequential, Tensor};
//!
//! // Points of a square: which of its two diagonals is nearer?
//! let x = Tensor::from_shape_fn(vec![200, 2], |i| ((i[0] * 2 + i[1]) as f32 * 2.4).sin());
//! let y = Tensor::from_shape_fn(vec![200], |i| f32::from(x[[i[0], 0]] * x[[i[0], 1]] > 0.0));
//! let data = Dataset::new(x, y);
//!
//! let graph = Sequential::new(Input::shape([2]))
//!     .with(Dense::new(16).activation(Activation::Tanh))
//!     .with(Dense::new(2).activation(Activation::Softmax))
//!     .build()?;
//! let loss = Loss::SparseCategoricalCrossentropy { from_logits: false };
//! let mut session = graph.on(Machine::open("virtual:spin3")?)?;
//! let fit = Fit::new(loss).optimizer(Optimizer::adam(0.03)).batch_size(40).epochs(30).metric("accuracy")?;
//! let history = session.fit(&data, fit)?;
//! assert!(history.last("accuracy").unwrap() > 0.9);
//!
//! let scores = session.evaluate(&data, &Evaluate::new(loss).metric("accuracy")?)?;
//! println!("{scores} after {:.3} s on the machine", session.usage().machine_time_s);
//! let probabilities = session.predict(&data.take(3))?;
//! assert_eq!(probabilities[0].shape(), [3, 2]);
//! # assert!(scores.get("accuracy").unwrap() > 0.9);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! What is where: [`data`] and [`metrics`] know nothing of machines; [`board`] is all that a session asks of a machine, so a
//! real one needs no more than another implementation of [`board::Board`]; bad input and failed runs are told apart by
//! [`Error::is_input`].
#![forbid(unsafe_code)]

/// The example of the README, run as the others are.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;

pub mod board;
pub mod boot_image;
pub mod builtin;
pub mod callbacks;
pub mod checkpoint;
pub mod cycle_link;
pub mod data;
pub mod doctor;
mod error;
pub mod fast_board;
pub mod firmware;
mod interrupt;
pub mod lease;
mod machine;
pub mod metrics;
mod model;
pub mod names;
mod native;
mod options;
pub mod reach;
mod run_block;
mod session;
pub mod stream;
mod text;
mod usage;
mod virtual_board;
pub mod wire_board;

pub use callbacks::{CSVLogger, Callback, EarlyStopping, History, Logs, ModelCheckpoint, ReduceLROnPlateau, Trainer};
pub use data::{DataError, Dataset};
pub use error::{CoreFailure, CoreTrouble, Error};
pub use machine::Machine;
pub use metrics::{Metric, MetricKind};
pub use model::{Model, OnMachine};
pub use native::NativeCore;
pub use options::{Evaluate, Fit, Format, Validation};
pub use session::{Scores, Session};
pub use spidnn_compiler as compiler;
pub use spidnn_graph::builder::*;
pub use spidnn_graph::training::{Clip, LearningRate, Loss, Optimizer, Rule};
pub use spidnn_graph::{Activation, Graph, GraphBuilder, Initializer, LayerId, NodeId, Padding, Tensor};
pub use usage::{Phases, Usage};
pub use virtual_board::VirtualBoard;
