//! Firmware for predictions in bytes: the kernels of the format `int8`, and those that layers without a form in bytes often need.
#![no_std]
#![no_main]

spidnn_firmware::firmware! {
    Fill, CopyRows, BiasAct, Map2, ScaleShift, Scale, Softmax,
    Widen, WidenWindow, WidenColumns, Product8, Pool8, Lookup8, Add8, Quantise8, Dequantise8,
}
