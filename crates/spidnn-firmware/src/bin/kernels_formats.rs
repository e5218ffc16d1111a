//! The kernel bench with the kernels of the formats int8 and bfp16.
#![no_std]
#![no_main]

#[path = "../bench/mod.rs"]
mod bench;

bench::bench! {
    Widen, WidenWindow, WidenColumns, Product8, Pool8, Lookup8, Add8, Quantise8, Dequantise8, PrepHalf, PrepWindowHalf, PrepConvBackwardHalf, GemmHalf,
    ConvHalf, ConvWgradHalf,
}
