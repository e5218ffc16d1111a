//! Where the windows of convolutions and pooling lie: output sizes and padding, by Keras' rules.

use crate::layer::{Conv, Padding, Pool};

/// Windows along one spatial axis: output cell `o` sees input cells `o * stride + k * dilation - pad_before` for `k` in
/// `0..kernel`; cells outside `0..input` are padding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Axis {
    /// Cells of the input.
    pub input: usize,
    /// Cells of the output.
    pub output: usize,
    /// Cells of padding before the first input cell.
    pub pad_before: usize,
    /// Cells of padding after the last input cell.
    pub pad_after: usize,
    /// Taps of the window.
    pub kernel: usize,
    /// Input cells from one window to the next.
    pub stride: usize,
    /// Input cells from one tap to the next.
    pub dilation: usize,
}

impl Axis {
    /// An axis that does not exist (the first of rank 1).
    pub const UNIT: Self = Self { input: 1, output: 1, pad_before: 0, pad_after: 0, kernel: 1, stride: 1, dilation: 1 };

    /// Keras' rules. `valid`: whole windows only. `same`: `ceil(input / stride)` outputs, the odd cell of padding at the end.
    /// `causal`: padding before only, so that output `o` sees no later input than `o * stride`. `None` when no window fits or
    /// an argument is zero (or the sizes overflow).
    pub fn new(input: usize, kernel: usize, stride: usize, dilation: usize, padding: Padding) -> Option<Self> {
        if input == 0 || kernel == 0 || stride == 0 || dilation == 0 {
            return None;
        }
        let reach = (kernel - 1).checked_mul(dilation)?.checked_add(1)?;
        let (output, pad_before, pad_after) = match padding {
            Padding::Valid => (input.checked_sub(reach)? / stride + 1, 0, 0),
            Padding::Same => {
                let output = input.div_ceil(stride);
                let pad = (output - 1).checked_mul(stride)?.checked_add(reach)?.saturating_sub(input);
                (output, pad / 2, pad - pad / 2)
            }
            Padding::Causal => ((input - 1) / stride + 1, reach - 1, 0),
        };
        Some(Self { input, output, pad_before, pad_after, kernel, stride, dilation })
    }

    /// The input cell that tap `tap` of output cell `output` sees; `None` in the padding.
    #[inline]
    pub fn source(&self, output: usize, tap: usize) -> Option<usize> {
        let cell = (output * self.stride + tap * self.dilation).checked_sub(self.pad_before)?;
        (cell < self.input).then_some(cell)
    }
}

/// Splits a shape (without batch dimension) of `rank` spatial dimensions and channels into `[height, width]` and channels;
/// rank 1 has height 1.
pub fn spatial(shape: &[usize], rank: usize) -> Option<([usize; 2], usize)> {
    match (rank, shape) {
        (1, &[length, channels]) => Some(([1, length], channels)),
        (2, &[height, width, channels]) => Some(([height, width], channels)),
        _ => None,
    }
}

fn axes(
    rank: usize,
    shape: &[usize],
    kernel: [usize; 2],
    strides: [usize; 2],
    dilation: [usize; 2],
    padding: Padding,
) -> Option<[Axis; 2]> {
    let (cells, _) = spatial(shape, rank)?;
    let axis = |i: usize| Axis::new(cells[i], kernel[i], strides[i], dilation[i], padding);
    Some([if rank == 1 { Axis::UNIT } else { axis(0)? }, axis(1)?])
}

impl Conv {
    /// The two spatial axes for an input of this shape (without batch dimension); `None` when no window fits.
    pub fn axes(&self, input_shape: &[usize]) -> Option<[Axis; 2]> {
        axes(self.rank, input_shape, self.kernel_size, self.strides, self.dilation_rate, self.padding)
    }

    /// Output channels for each input channel of a depthwise convolution in a built graph; 1 for others.
    pub fn depth_multiplier(&self) -> usize {
        if self.depthwise && self.groups > 0 { self.filters / self.groups } else { 1 }
    }
}

impl Pool {
    /// The two spatial axes for an input of this shape (without batch dimension); `None` when no window fits.
    pub fn axes(&self, input_shape: &[usize]) -> Option<[Axis; 2]> {
        axes(self.rank, input_shape, self.pool_size, self.strides, [1, 1], self.padding)
    }
}
