//! Rare and large parts of kernels, apart from what everybody uses.
//!
//! Firmware that has its code in pages keeps these in pages of their own (feature `units-apart`): with them, the pages of the kernels would
//! not fit. Elsewhere the kernels have everything, and nobody needs this. A call is checked by its kernel in any case.

use crate::{Activation, KernelCall, Loss};

/// Parts of the code of kernels, as const parameters: all of it; what is common; the two that are apart.
pub(crate) const ALL: u8 = 0;
pub(crate) const COMMON: u8 = 1;
pub(crate) const EXPONENTIAL: u8 = 2;
pub(crate) const GAUSSIAN: u8 = 3;
/// What the kernels themselves have.
pub(crate) const USUAL: u8 = if cfg!(feature = "units-apart") { COMMON } else { ALL };

/// Whether code of a part has what belongs to another.
pub(crate) const fn has(part: u8, wanted: u8) -> bool {
    part == ALL || part == wanted
}

/// The part that an activation belongs to.
pub(crate) const fn of_activation(activation: Activation) -> u8 {
    match activation {
        Activation::Elu | Activation::Selu | Activation::Softplus | Activation::Silu => EXPONENTIAL,
        Activation::Gelu | Activation::GeluTanh => GAUSSIAN,
        _ => COMMON,
    }
}

/// A part that is apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Elu, selu, softplus, silu; binary cross-entropy, which is made of softplus.
    Exponential,
    /// Both forms of gelu.
    Gaussian,
}

/// The part that runs a call; `None` for the kernel itself.
pub const fn of(call: &KernelCall) -> Option<Part> {
    let activation = match call {
        KernelCall::BiasAct(call) => call.activation,
        KernelCall::ActGrad(call) => call.activation,
        KernelCall::Loss(call) if call.kind == Loss::BinaryCrossentropy as u32 => return Some(Part::Exponential),
        _ => return None,
    };
    match Activation::from_number(activation) {
        Some(activation) => match of_activation(activation) {
            EXPONENTIAL => Some(Part::Exponential),
            GAUSSIAN => Some(Part::Gaussian),
            _ => None,
        },
        None => None,
    }
}

/// [`crate::Kernel::run`] of a call of [`Part::Exponential`].
///
/// # Panics
/// If [`crate::Kernel::check`] does not accept the call.
pub fn run_exponential(call: &KernelCall, dtcm: &mut [u32]) {
    match call {
        KernelCall::BiasAct(call) => call.run_with::<EXPONENTIAL>(dtcm),
        KernelCall::ActGrad(call) => call.run_with::<EXPONENTIAL>(dtcm),
        KernelCall::Loss(call) => call.run_with::<EXPONENTIAL>(dtcm),
        _ => {}
    }
}

/// The same for [`Part::Gaussian`].
///
/// # Panics
/// If [`crate::Kernel::check`] does not accept the call.
pub fn run_gaussian(call: &KernelCall, dtcm: &mut [u32]) {
    match call {
        KernelCall::BiasAct(call) => call.run_with::<GAUSSIAN>(dtcm),
        KernelCall::ActGrad(call) => call.run_with::<GAUSSIAN>(dtcm),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::{ActGrad, BiasAct, Loss as LossCall};

    #[test]
    fn parts_together_are_the_kernels() {
        // Each call by its part gives what the kernel with everything gives.
        for activation in 0..15 {
            let start: Vec<u32> = (0..64).map(|i| ((i as f32 * 2.3).sin() * 4.0).to_bits()).collect();
            let act = BiasAct {
                y: 0,
                rows: 1,
                cols: 32,
                stride: 32,
                bias: crate::call::NONE,
                activation,
                alpha_bits: 0x3F00_0000,
            };
            let grad = ActGrad { dy: 0, saved: 128, out: 0, count: 32, activation, alpha_bits: 0x3F00_0000 };
            for call in [KernelCall::from(act), grad.into()] {
                let (mut whole, mut parts) = (start.clone(), start.clone());
                call.run(&mut whole);
                match (of(&call), &call) {
                    (Some(Part::Exponential), _) => run_exponential(&call, &mut parts),
                    (Some(Part::Gaussian), _) => run_gaussian(&call, &mut parts),
                    (None, KernelCall::BiasAct(call)) => call.run_with::<COMMON>(&mut parts),
                    (None, KernelCall::ActGrad(call)) => call.run_with::<COMMON>(&mut parts),
                    _ => unreachable!(),
                }
                assert_eq!(whole, parts, "{call:?}");
                assert!(activation == 0 || whole != start);
            }
        }
    }

    #[test]
    fn binary_crossentropy_is_apart() {
        for kind in 0..5 {
            let call = LossCall { kind, ..Default::default() };
            assert_eq!(of(&call.into()), (kind == 2).then_some(Part::Exponential));
        }
    }
}
