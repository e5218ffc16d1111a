//! Firmware for predictions: the kernels of a forward pass.
#![no_std]
#![no_main]

spidnn_firmware::firmware! {
    Fill, CopyRows, Prep2d, PrepWindow, Gemm, Map2,
}
