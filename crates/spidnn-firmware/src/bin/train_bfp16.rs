//! Firmware for training in the format `bfp16`: as `train`, with products of halves.
#![no_std]
#![no_main]

spidnn_firmware::firmware! {
    Fill, CopyRows, PrepHalf, PrepWindowHalf, PrepConvBackwardHalf, GemmHalf, ConvHalf, ConvWgradHalf, BiasAct, ActGrad,
    Map2, ColumnSum, SumParts, Pool, PoolGrad, Softmax, SoftmaxGrad, Loss, OptimizerStep, ScaleShift, Scale, Norms, Clip,
    Dropout, NormCoefficients, Lerp, NormGrad, Normalise, CountNonFinite,
}
