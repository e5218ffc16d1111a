//! The arithmetic of SpiDNN on a core without a floating-point unit.
//!
//! A [`KernelCall`] is plain data: the name of a kernel and its parameters, every buffer a byte
//! offset into the core's 64 KiB DTCM. [`KernelCall::run`] does the arithmetic on a DTCM image,
//! [`KernelCall::cycles`] says what it costs on an ARM968. The same bits come out on any host.
//!
//! Nothing here knows of cores, packets, DMA or networks.
#![cfg_attr(not(any(test, feature = "std")), no_std)]

pub mod apart;
#[cfg(target_arch = "arm")]
mod arm;
mod block;
pub mod call;
mod cost;
pub mod dtcm;
mod elementwise;
pub mod functions;
mod int8;
mod kind;
pub mod num;
pub mod optimizer;
pub mod units;

pub use call::{DecodeError, KernelCall};
pub use dtcm::BadCall;
pub use kind::{Activation, Loss, Optimizer};

/// What every kernel's parameters can do. [`KernelCall`] has the same methods for all of them.
pub trait Kernel {
    /// Whether every buffer lies in a DTCM of `dtcm_words` words, those that must be apart are, and
    /// every count and code has a meaning. A call that passes does not panic when run, whatever the data.
    fn check(&self, dtcm_words: usize) -> Result<(), BadCall>;
    /// Does the arithmetic on a DTCM image.
    ///
    /// # Panics
    /// If [`Kernel::check`] does not accept the call for this image.
    fn run(&self, dtcm: &mut [u32]);
    /// Cycles that the kernel takes on an ARM968 at zero-wait DTCM, whatever the data.
    fn cycles(&self) -> u64;
}
