//! The on-core runtime: what every SpiNNaker core of a network runs, written once.
//!
//! A core executes a command list ([`command`]): DMA in, kernel, DMA out, barrier, block streams
//! between chips, loops over a batch. The runtime reaches its hardware only through the [`Core`]
//! trait, so the same source runs as firmware and under the virtual machine, which this crate
//! knows nothing of.
//!
//! ```
//! use spidnn_core::command::{Command, Item, Step, When};
//! use spidnn_core::program::{CoreConfig, CoreImage};
//! use spidnn_kernels::call::Fill;
//!
//! let fill = Fill { dst: 0x100, count: 4, value_bits: 0 };
//! let step = Step { command: Command::Kernel(fill.into()), when: When::Always, patches: vec![] };
//! let config = CoreConfig {
//!     cores: 1, key: 1 << 15, leader: 1 << 15, run_block: 0x6000_0000, segment_buffer: 0xD000,
//!     segment_buffer_bytes: 4096, ..CoreConfig::default()
//! };
//! let image = CoreImage { config, programs: vec![vec![vec![Item::Do(step)]]] };
//! let words = image.encode().unwrap();
//! let read = CoreImage::decode(&words).unwrap();
//! assert_eq!(read.disassemble(), "program 0, segment 0, 5 words\n  Fill 0x100 0x4 0x0\n");
//! ```
#![cfg_attr(not(any(test, feature = "std")), no_std)]
#![forbid(unsafe_code)]

#[cfg(any(test, feature = "alloc", feature = "std"))]
extern crate alloc;

pub mod command;
mod core_trait;
mod error;
mod exchange;
mod interpreter;
pub mod pages;
pub mod program;
mod runtime;

pub use core_trait::{Arrival, Core, Counter, Direction, Meeting, Transfer};
pub use error::{ErrorCode, Failure};
pub use exchange::kind;
pub use runtime::{run, run_limited};

/// Cycles that the firmware takes for the interrupt at the end of each row of a transfer (measured: `cargo run --release -p spidnn
/// --example runtime_truth`).
pub const ROW_CYCLES: u32 = 86;
/// Cycles that the firmware takes from that interrupt until a core that slept goes on: it looks whether all rows have ended (measured in the
/// same way).
pub const WAKE_CYCLES: u32 = 48;
/// Cycles of a transfer beside those of every command until its first row begins: rows clamped, memories checked, queued.
const QUEUE_CYCLES: u32 = 515;
/// The same for one that has been found sound before.
const SOUND_QUEUE_CYCLES: u32 = 285;
/// Cycles that the firmware takes, once a transfer's first row has begun, until it goes on to the next command (measured in the same way).
pub const SUBMITTED_CYCLES: u32 = 85;
/// Cycles of the command of a transfer in a loop, its rows and the wait for its end apart.
pub const TRANSFER_CYCLES: u32 = {
    const WORDS: u32 = 10;
    interpreter::COMMAND_CYCLES + WORDS * interpreter::WORD_CYCLES + QUEUE_CYCLES + SUBMITTED_CYCLES
};
