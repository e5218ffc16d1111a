//! Firmware for predictions in the format `bfp16`: the kernels of a forward pass, with products of halves.
#![no_std]
#![no_main]

spidnn_firmware::firmware! {
    Fill, CopyRows, PrepHalf, PrepWindowHalf, GemmHalf, ConvHalf, BiasAct, Map2, ScaleShift, Scale, SumParts, Pool, Softmax,
}
