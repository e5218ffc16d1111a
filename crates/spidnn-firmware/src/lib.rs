//! The on-core runtime as firmware: start-up, devices, interrupts, and the [`spidnn_core::Core`] of a real ARM968.
//!
//! A binary of this crate is the runtime with a choice of kernels (32 KiB of instruction memory do not hold all), packed as an
//! APLX file that the official monitor loads and starts. Nothing here allocates, and nothing is C.
//!
//! What lies where: `link.x`. Facts of the chip: SpiNNaker data sheet (version 2.02); of the monitor: its sources, as the
//! doc comments say.
#![no_std]

pub mod apart;
pub mod device;
pub mod fault;
pub mod global;
pub mod hardware;
pub mod interrupt;
pub mod mailbox;
pub mod monitor;
pub mod packets;
pub mod pages;
pub mod sleep;
pub mod start;
pub mod text;
pub mod transfers;

pub use spidnn_core::ErrorCode;
pub use spidnn_core::program::trailer;
pub use spidnn_kernels as kernels;
use spidnn_kernels::{Kernel, KernelCall};

/// A firmware's choice of kernels.
pub trait Kernels {
    /// Whether this firmware has a call's kernel, and the call stays in `dtcm_words`.
    ///
    /// # Errors
    /// [`ErrorCode::NoKernel`], [`ErrorCode::BadKernel`].
    fn check(call: &KernelCall, dtcm_words: usize) -> Result<(), ErrorCode>;

    /// Runs a call on the programs' part of data memory; `false` for a kernel that it does not have.
    fn run(call: &KernelCall, dtcm: &mut [u32]) -> bool;
}

/// Whether a call of one kernel stays in memory: apart from the others, so that their frames do not add up.
#[inline(never)]
pub fn accepts<T: Kernel>(call: &T, dtcm_words: usize) -> bool {
    call.check(dtcm_words).is_ok()
}

/// Runs a call of one kernel.
#[inline(never)]
pub fn execute<T: Kernel>(call: &T, dtcm: &mut [u32]) {
    call.run(dtcm);
}

/// Defines a binary's entry with its kernels.
#[macro_export]
macro_rules! firmware {
    ($($kernel:ident),* $(,)?) => {
        struct Chosen;

        impl $crate::Kernels for Chosen {
            #[inline(never)]
            fn check(call: &$crate::kernels::KernelCall, dtcm_words: usize) -> Result<(), $crate::ErrorCode> {
                use $crate::kernels::KernelCall;
                $crate::pages::bring_for(call.number());
                let accepted = match call {
                    $( KernelCall::$kernel(kernel) => $crate::accepts(kernel, dtcm_words), )*
                    _ => return Err($crate::ErrorCode::NoKernel),
                };
                if accepted { Ok(()) } else { Err($crate::ErrorCode::BadKernel) }
            }

            #[inline(never)]
            fn run(call: &$crate::kernels::KernelCall, dtcm: &mut [u32]) -> bool {
                use $crate::kernels::KernelCall;
                if $crate::apart::run(call, dtcm) {
                    return true;
                }
                $crate::pages::bring_for(call.number());
                match call {
                    $( KernelCall::$kernel(kernel) => $crate::execute(kernel, dtcm), )*
                    _ => return false,
                }
                true
            }
        }

        /// What the host asks before it loads this firmware.
        #[used]
        #[unsafe(link_section = ".trailer")]
        static TRAILER: $crate::pages::Trailer =
            $crate::pages::Trailer::new(&[$( $crate::kernels::call::$kernel::NUMBER ),*], cfg!(feature = "exchanges"));

        /// Called by the start-up code, with what the monitor handed over.
        #[unsafe(no_mangle)]
        extern "C" fn firmware_main(argument: u32) -> ! {
            $crate::start::run::<Chosen>(argument)
        }
    };
}
