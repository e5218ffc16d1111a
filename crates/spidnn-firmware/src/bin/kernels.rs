//! The kernel bench with the kernels of a forward pass.
#![no_std]
#![no_main]

#[path = "../bench/mod.rs"]
mod bench;

bench::bench! {
    Fill, CopyRows, Prep2d, PrepWindow, Gemm, Conv, BiasAct, Map2, ScaleShift, Scale, SumParts, Pool, Softmax,
}
