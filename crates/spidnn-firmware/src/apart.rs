//! What of the kernels is in pages of its own, in firmware that has pages (`spidnn_kernels::apart`).

use spidnn_core::pages;
use spidnn_kernels::KernelCall;
use spidnn_kernels::apart::{self, Part};

/// Runs a call that is apart; `false` for another.
#[inline(never)]
pub fn run(call: &KernelCall, dtcm: &mut [u32]) -> bool {
    if !cfg!(feature = "units-apart") {
        return false;
    }
    let (Some(part), Some(page)) = (apart::of(call), pages::apart_of(call)) else { return false };
    crate::pages::bring(page);
    match part {
        Part::Exponential => exponential(call, dtcm),
        Part::Gaussian => gaussian(call, dtcm),
    }
    true
}

#[inline(never)]
fn exponential(call: &KernelCall, dtcm: &mut [u32]) {
    apart::run_exponential(call, dtcm);
}

#[inline(never)]
fn gaussian(call: &KernelCall, dtcm: &mut [u32]) {
    apart::run_gaussian(call, dtcm);
}
