//! Firmware for training: forward, backward and update, with exchanges between chips.
#![no_std]
#![no_main]

spidnn_firmware::firmware! {
    Fill, CopyRows, Prep2d, PrepWindow, PrepConvBackward, Gemm, Conv, ConvWgrad, BiasAct, ActGrad, Map2, ColumnSum,
    SumParts, Pool, PoolGrad, Softmax, SoftmaxGrad, Loss, OptimizerStep, ScaleShift, Scale, Norms, Clip, Dropout,
    NormCoefficients, Lerp, NormGrad, Normalise, CountNonFinite,
}
