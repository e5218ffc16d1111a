//! From a graph to per-core programs: lowering, tiling, placement, routing, keys and tables.
//!
//! The compiler does not know whether the machine is virtual.
#![forbid(unsafe_code)]

mod error;
mod plan;
pub mod report;
pub mod route;

pub use error::CompileError;
pub use plan::{Buffer, ChipImage, Compiled, Layout, Options, OptimizerState, Program, Training};
