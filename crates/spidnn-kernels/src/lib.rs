//! The arithmetic of SpiDNN on a core without a floating-point unit.
//!
//! A [`KernelCall`] is plain data: the name of a kernel and its parameters, every buffer a byte
//! offset into the core's 64 KiB DTCM. [`KernelCall::run`] does the arithmetic on a DTCM image,
//! [`KernelCall::cycles`] says what it costs on an ARM968. The same bits come out on any host.
//!
//! Nothing here knows of cores, packets, DMA or networks.
#![cfg_attr(not(any(test, feature = "std")), no_std)]

pub mod call;
mod kind;

pub use call::{DecodeError, KernelCall};
pub use kind::{Activation, Loss, Optimizer};

impl KernelCall {
    /// Does the arithmetic on a DTCM image.
    pub fn run(&self, dtcm: &mut [u32]) {
        let _ = dtcm;
        todo!()
    }
    /// Cycles on the core.
    pub fn cycles(&self) -> u64 {
        todo!()
    }
}
