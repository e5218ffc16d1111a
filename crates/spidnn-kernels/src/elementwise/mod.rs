//! Kernels that take one element at a time, and reductions over rows and columns.
pending!(
    BiasAct, ActGrad, Map2, ScaleShift, Scale, ColumnSum, SumParts, Softmax, SoftmaxGrad, Loss, OptimizerStep, Norms, Clip,
    Dropout, NormCoefficients, Lerp, NormGrad, Normalise, CountNonFinite
);
