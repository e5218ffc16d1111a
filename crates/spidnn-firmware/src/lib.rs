//! The on-core runtime as firmware: start-up, devices, interrupts, and the [`spidnn_core::Core`] of a real ARM968.
//!
//! A binary of this crate is the runtime with a choice of kernels (32 KiB of instruction memory do not hold all), packed as an
//! APLX file that the official monitor loads and starts. Nothing here allocates, and nothing is C.
//!
//! What lies where: `link.x`. Facts of the chip: SpiNNaker data sheet (version 2.02); of the monitor: its sources, as the
//! doc comments say.
#![no_std]

pub mod device;
pub mod fault;
pub mod global;
pub mod hardware;
pub mod interrupt;
pub mod mailbox;
pub mod monitor;
pub mod packets;
pub mod sleep;
pub mod start;
pub mod text;
pub mod transfers;

pub use spidnn_core::ErrorCode;
pub use spidnn_core::program::trailer;
pub use spidnn_kernels as kernels;
use spidnn_kernels::KernelCall;

/// A firmware's choice of kernels.
pub trait Kernels {
    /// A call from its number and parameters, if this firmware has the kernel and the call stays in `dtcm_words`.
    ///
    /// # Errors
    /// [`ErrorCode::NoKernel`], [`ErrorCode::BadKernel`].
    fn call(number: u32, parameters: &[u32], dtcm_words: usize) -> Result<KernelCall, ErrorCode>;

    /// Runs a call on the programs' part of data memory; `false` for a kernel that it does not have.
    fn run(call: &KernelCall, dtcm: &mut [u32]) -> bool;
}

/// Defines a binary's entry with its kernels.
#[macro_export]
macro_rules! firmware {
    ($($kernel:ident),* $(,)?) => {
        struct Chosen;

        impl $crate::Kernels for Chosen {
            fn call(
                number: u32,
                parameters: &[u32],
                dtcm_words: usize,
            ) -> Result<$crate::kernels::KernelCall, $crate::ErrorCode> {
                use $crate::ErrorCode::{BadKernel, NoKernel};
                use $crate::kernels::{DecodeError, Kernel, KernelCall};
                let call = KernelCall::decode(number, parameters).map_err(|error| match error {
                    DecodeError::UnknownKernel(_) => NoKernel,
                    DecodeError::WrongLength { .. } => BadKernel,
                })?;
                let accepted = match &call {
                    $( KernelCall::$kernel(kernel) => kernel.check(dtcm_words).is_ok(), )*
                    _ => return Err(NoKernel),
                };
                if accepted { Ok(call) } else { Err(BadKernel) }
            }

            fn run(call: &$crate::kernels::KernelCall, dtcm: &mut [u32]) -> bool {
                use $crate::kernels::{Kernel, KernelCall};
                match call {
                    $( KernelCall::$kernel(k) => k.run(dtcm), )*
                    _ => return false,
                }
                true
            }
        }

        /// What the host asks before it loads this firmware.
        #[used]
        #[unsafe(link_section = ".trailer")]
        static TRAILER: [u32; $crate::trailer::WORDS] =
            $crate::trailer::words(&[$( $crate::kernels::call::$kernel::NUMBER ),*], cfg!(feature = "exchanges"));

        /// Called by the start-up code, with what the monitor handed over.
        #[unsafe(no_mangle)]
        extern "C" fn firmware_main(argument: u32) -> ! {
            $crate::start::run::<Chosen>(argument)
        }
    };
}
