//! From a graph to per-core programs: lowering, tiling, placement, routing, keys and tables.
//!
//! The compiler does not know whether the machine is virtual.
#![forbid(unsafe_code)]

mod compile;
mod emit;
mod error;
pub mod fold;
mod lower;
mod plan;
pub mod quantise;
pub mod report;
pub mod route;
mod stage;
mod weights;

mod accuracy;
#[cfg(test)]
mod golden;
mod interpreter;

pub use accuracy::{AccuracyError, LayerAccuracy, layer_accuracy};
pub use compile::compile;
pub use error::CompileError;
pub use plan::{Buffer, ByteInput, ChipImage, Compiled, Format, Layout, OptimizerState, Options, Program, Training};
pub use stage::Mantissas;
