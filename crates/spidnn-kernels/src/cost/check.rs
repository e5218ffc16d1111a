//! Cycles of the checks that a call goes through before it runs ([`crate::Kernel::check`]): compiled code.

use super::{division, place};
use crate::KernelCall;
use crate::block::Axis;

/// What it takes to find the smallest and the largest input that outputs `first..end` meet ([`Axis::needed`]): for each tap its place, and a division of what
/// lies in front of the picture (where it is outside) and of the room behind it.
fn needed(axis: &Axis, first: u32, end: u32) -> u64 {
    let residues = first..end.min(first.saturating_add(axis.up));
    residues.flat_map(|o| (0..axis.kernel).map(move |k| (o, k))).map(|(o, k)| tap(axis, o, k)).sum()
}

fn tap(axis: &Axis, o: u32, k: u32) -> u64 {
    /// Around a division: what [`division`] has for a call of another function.
    const LESS: u64 = 15;
    let place = match axis.up {
        1 => 45,
        _ => 45 + place(axis, o, k) - LESS,
    };
    let Some(base) = axis.unbounded(o, k) else { return place };
    let in_front = match base {
        0.. => 0,
        _ => division(base.unsigned_abs() + axis.stride - 1, axis.stride) - LESS,
    };
    let behind = match i64::from(axis.input) - 1 - i64::from(base) {
        room @ 0.. => 35 + division(room as u32, axis.stride) - LESS,
        _ => 0,
    };
    place + 25 + in_front + behind
}

/// Cycles of the checks of a call that is sound. Most kernels have a bound for each buffer and its overlap with others, whatever the sizes.
pub fn check(call: &KernelCall) -> u64 {
    // Less where no output is asked for.
    let window = |cycles: u64, axis: Axis, (first, rows, outputs): (u32, u32, u32)| {
        let end = first.saturating_add(rows).min(outputs);
        if first < end { cycles + needed(&axis, first, end) } else { 700 }
    };
    let axis = |input: u32, kernel: u32, stride: u32, pad: i32| Axis { input, kernel, stride, dilation: 1, pad, up: 1 };
    match call {
        KernelCall::Conv(k) => {
            let axis = Axis { dilation: k.dilation_y, up: k.up_y, ..axis(k.in_h, k.kh, k.stride_y, k.pad_y) };
            window(1975, axis, (k.oy0, k.rows, k.out_h))
        }
        KernelCall::ConvHalf(k) => {
            let axis = Axis { dilation: k.dilation_y, up: k.up_y, ..axis(k.in_h, k.kh, k.stride_y, k.pad_y) };
            window(2120, axis, (k.oy0, k.rows, k.out_h))
        }
        KernelCall::ConvWgrad(k) => {
            let axis = Axis { dilation: k.dilation_y, ..axis(k.in_h, k.kh, k.stride_y, k.pad_y) };
            window(1740, axis, (k.oy0, k.rows, k.out_h))
        }
        KernelCall::ConvWgradHalf(k) => {
            let axis = Axis { dilation: k.dilation_y, ..axis(k.in_h, k.kh, k.stride_y, k.pad_y) };
            window(1845, axis, (k.oy0, k.rows, k.out_h))
        }
        KernelCall::Pool(k) => window(1410, axis(k.in_h, k.kh, k.stride_y, k.pad_y), (k.oy0, k.rows, k.out_h)),
        KernelCall::Pool8(k) => window(1590, axis(k.in_h, k.kh, k.stride_y, k.pad_y), (k.oy0, k.rows, k.out_h)),
        // The maximum looks at its inputs, too.
        KernelCall::PoolGrad(k) if k.mode == 0 => {
            let (first, end) = k.windows();
            2330 + needed(&axis(k.in_h, k.kh, k.stride_y, k.pad_y), first, end)
        }
        KernelCall::PoolGrad(_) => 1350,
        KernelCall::OptimizerStep(_) => 1250,
        KernelCall::NormCoefficients(_) => 1205,
        KernelCall::Product8(_) => 1000,
        KernelCall::NormGrad(_) => 900,
        KernelCall::Gemm(_) | KernelCall::GemmHalf(_) => 790,
        KernelCall::PrepWindowHalf(_) => 745,
        KernelCall::Loss(k) => {
            if k.grad == crate::call::NONE {
                490
            } else {
                810
            }
        }
        KernelCall::WidenColumns(_) => 700,
        KernelCall::Prep2d(_) | KernelCall::PrepHalf(_) => 645,
        KernelCall::PrepConvBackwardHalf(_) => 623,
        KernelCall::PrepWindow(_) => 565,
        KernelCall::WidenWindow(_) => 545,
        KernelCall::PrepConvBackward(_) => 527,
        KernelCall::Normalise(_) => 514,
        KernelCall::ScaleShift(_) => 480,
        KernelCall::ColumnSum(_) | KernelCall::Add8(_) => 468,
        KernelCall::CopyRows(_) => 427,
        KernelCall::SoftmaxGrad(_) | KernelCall::ActGrad(_) => 390,
        KernelCall::SumParts(_) | KernelCall::Map2(_) | KernelCall::Lerp(_) => 373,
        KernelCall::Lookup8(_) | KernelCall::Quantise8(_) | KernelCall::Dequantise8(_) => 360,
        KernelCall::BiasAct(_) => 350,
        KernelCall::Dropout(_) => 337,
        KernelCall::Softmax(_) | KernelCall::CountNonFinite(_) | KernelCall::Norms(_) => 285,
        KernelCall::Scale(_) | KernelCall::Clip(_) => 264,
        KernelCall::Widen(_) => 235,
        KernelCall::Fill(_) => 154,
    }
}
