//! The kernel bench with what the other images leave out, and all units, losses and optimizers.
#![no_std]
#![no_main]

#[path = "../bench/mod.rs"]
mod bench;

bench::bench! {
    BiasAct, ActGrad, SoftmaxGrad, Loss, OptimizerStep, Norms, Clip, Dropout, NormCoefficients, Lerp, NormGrad, Normalise,
    CountNonFinite,
}
