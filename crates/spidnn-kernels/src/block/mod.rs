//! Kernels on blocks: alignment of operands, exact products, pooling, and plain moves.
pending!(Prep2d, PrepConvBackward, Gemm, Conv, ConvWgrad, Pool, PoolGrad, Fill, CopyRows, PrepWindow);
