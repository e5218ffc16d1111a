//! Firmware for predictions: the kernels of a forward pass.
#![no_std]
#![no_main]

spidnn_firmware::firmware! {
    Fill, CopyRows, Prep2d, PrepWindow, Gemm, Conv, BiasAct, Map2, ScaleShift, Scale, SumParts, Pool, Softmax,
}
