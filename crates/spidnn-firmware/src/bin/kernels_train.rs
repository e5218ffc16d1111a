//! The kernel bench with the kernels of training: those of a forward pass, and those of gradients and steps.
#![no_std]
#![no_main]

#[path = "../bench/mod.rs"]
mod bench;

bench::bench! {
    Fill, CopyRows, Prep2d, PrepWindow, Gemm, Conv, BiasAct, Map2, ScaleShift, Scale, SumParts, Pool, Softmax,
    ConvWgrad, PrepConvBackward, ActGrad, PoolGrad, Loss, OptimizerStep, ColumnSum,
}
