//! The on-core runtime: what every SpiNNaker core of a network runs, written once.
//!
//! A core executes a command list ([`command`]): DMA in, kernel, DMA out, barrier, block streams
//! between chips, loops over a batch. The runtime reaches its hardware only through the [`Core`]
//! trait, so the same source runs as firmware and under the virtual machine, which this crate
//! knows nothing of.
#![cfg_attr(not(any(test, feature = "std")), no_std)]
#![forbid(unsafe_code)]

#[cfg(any(test, feature = "alloc", feature = "std"))]
extern crate alloc;

pub mod command;
mod core_trait;
mod error;
mod exchange;
pub mod program;
mod runtime;

pub use core_trait::{Arrival, Core, Counter, Direction, Transfer};
pub use error::{ErrorCode, Failure};
pub use exchange::kind;
pub use runtime::{run, run_limited};
