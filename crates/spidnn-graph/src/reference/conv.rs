//! Dense layers and convolutions as matrix products in float64.

use ndarray::{Array2, ArrayView2, ArrayViewMut2, Axis as Dimension, Slice, linalg::general_mat_mul};

use crate::geometry::Axis;
use crate::layer::Conv;

fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|value| f64::from(*value)).collect()
}

fn matrix(rows: usize, columns: usize, values: &[f32]) -> Array2<f64> {
    Array2::from_shape_vec((rows, columns), wide(values)).expect("callers pass whole matrices")
}

/// Sums of the columns of a matrix with so many columns.
pub(super) fn column_sums(values: &[f32], columns: usize) -> Vec<f32> {
    let mut sums = vec![0.0_f64; columns];
    for row in values.chunks_exact(columns) {
        for (sum, value) in sums.iter_mut().zip(row) {
            *sum += f64::from(*value);
        }
    }
    sums.iter().map(|sum| *sum as f32).collect()
}

/// `x . kernel + bias` for `x` of shape `[rows, inputs]` and `kernel` of `[inputs, units]`.
pub(super) fn dense(x: &[f32], inputs: usize, kernel: &[f32], units: usize, bias: Option<&[f32]>) -> Vec<f32> {
    let x = matrix(x.len() / inputs, inputs, x);
    let product = x.dot(&matrix(inputs, units, kernel));
    rounded(product, bias)
}

/// Adds the bias to each row and rounds.
fn rounded(sums: Array2<f64>, bias: Option<&[f32]>) -> Vec<f32> {
    let columns = sums.ncols();
    let mut result = Vec::with_capacity(sums.len());
    for (index, sum) in sums.iter().enumerate() {
        result.push((sum + bias.map_or(0.0, |bias| f64::from(bias[index % columns]))) as f32);
    }
    result
}

/// Gradients of [`dense`] with respect to `x` and `kernel`, from that with respect to the result (before the activation).
pub(super) fn dense_backward(
    x: &[f32],
    inputs: usize,
    kernel: &[f32],
    units: usize,
    cotangent: &[f32],
) -> (Vec<f32>, Vec<f32>) {
    let x = matrix(x.len() / inputs, inputs, x);
    let cotangent = matrix(x.nrows(), units, cotangent);
    let dx = cotangent.dot(&matrix(inputs, units, kernel).t());
    let dkernel = x.t().dot(&cotangent);
    (dx.iter().map(|value| *value as f32).collect(), dkernel.iter().map(|value| *value as f32).collect())
}

/// A convolution with everything about its sizes.
pub(super) struct Convolution {
    axes: [Axis; 2],
    groups: usize,
    /// Input channels of a group.
    inputs: usize,
    /// Output channels of a group.
    outputs: usize,
    depthwise: bool,
}

/// Rows of the gathered matrix that are worked on at a time: bounds memory.
const ROWS_AT_A_TIME: usize = 8192;

impl Convolution {
    pub(super) fn new(conv: &Conv, axes: [Axis; 2], channels: usize) -> Self {
        Self {
            axes,
            groups: conv.groups,
            inputs: channels / conv.groups,
            outputs: conv.filters / conv.groups,
            depthwise: conv.depthwise,
        }
    }

    fn taps(&self) -> usize {
        self.axes[0].kernel * self.axes[1].kernel
    }

    fn positions(&self) -> usize {
        self.axes[0].output * self.axes[1].output
    }

    fn input_elements(&self) -> usize {
        self.axes[0].input * self.axes[1].input * self.groups * self.inputs
    }

    /// Calls `visit(position, tap, cell)` for each tap of each output position that is not padding; `cell` is the index of the
    /// input cell (to be multiplied by the channels).
    fn visit(&self, mut visit: impl FnMut(usize, usize, usize)) {
        let [rows, columns] = &self.axes;
        for y in 0..rows.output {
            for ky in 0..rows.kernel {
                let Some(row) = rows.source(y, ky) else { continue };
                for x in 0..columns.output {
                    for kx in 0..columns.kernel {
                        if let Some(column) = columns.source(x, kx) {
                            visit(y * columns.output + x, ky * columns.kernel + kx, row * columns.input + column);
                        }
                    }
                }
            }
        }
    }

    /// The kernel of a group as a matrix `[taps * inputs, outputs]`.
    fn group_kernel(&self, kernel: &[f32], group: usize) -> Array2<f64> {
        let taps = self.taps();
        if self.depthwise {
            // Keras' shape is [taps, channels, multiplier].
            let stride = self.groups * self.outputs;
            Array2::from_shape_fn((taps, self.outputs), |(tap, output)| {
                f64::from(kernel[tap * stride + group * self.outputs + output])
            })
        } else {
            // [taps, inputs of a group, all filters].
            let filters = self.groups * self.outputs;
            Array2::from_shape_fn((taps * self.inputs, self.outputs), |(row, output)| {
                f64::from(kernel[row * filters + group * self.outputs + output])
            })
        }
    }

    /// Adds a group's kernel gradient into the gradient of the whole kernel.
    fn scatter_kernel(&self, gradient: ArrayView2<'_, f64>, group: usize, all: &mut [f64]) {
        // Both layouts have `groups * outputs` elements to a row of the matrix (depthwise: inputs is 1).
        let stride = self.groups * self.outputs;
        for ((row, output), value) in gradient.indexed_iter() {
            all[row * stride + group * self.outputs + output] += value;
        }
    }

    /// Gathers the windows of a group of some samples into `[samples * positions, taps * inputs]`.
    fn gather(&self, x: &[f32], group: usize, mut windows: ArrayViewMut2<'_, f64>) {
        let channels = self.groups * self.inputs;
        windows.fill(0.0);
        for (sample, x) in x.chunks_exact(self.input_elements()).enumerate() {
            let first = sample * self.positions();
            self.visit(|position, tap, cell| {
                let from = &x[cell * channels + group * self.inputs..][..self.inputs];
                let mut row = windows.row_mut(first + position);
                let to = row.as_slice_mut().expect("rows of a fresh matrix are contiguous");
                for (to, from) in to[tap * self.inputs..].iter_mut().zip(from) {
                    *to = f64::from(*from);
                }
            });
        }
    }

    /// The output channels of a group.
    fn columns(&self, group: usize) -> Slice {
        Slice::from(group * self.outputs..(group + 1) * self.outputs)
    }

    fn samples_at_a_time(&self) -> usize {
        (ROWS_AT_A_TIME / self.positions().max(1)).max(1)
    }

    /// The convolution of a batch, with bias, before the activation.
    pub(super) fn forward(&self, x: &[f32], kernel: &[f32], bias: Option<&[f32]>) -> Vec<f32> {
        let filters = self.groups * self.outputs;
        let kernels: Vec<Array2<f64>> = (0..self.groups).map(|group| self.group_kernel(kernel, group)).collect();
        let mut result = Vec::with_capacity(x.len() / self.input_elements() * self.positions() * filters);
        for x in x.chunks(self.samples_at_a_time() * self.input_elements()) {
            let rows = x.len() / self.input_elements() * self.positions();
            let mut windows = Array2::zeros((rows, self.taps() * self.inputs));
            let mut sums = Array2::zeros((rows, filters));
            for (group, kernel) in kernels.iter().enumerate() {
                self.gather(x, group, windows.view_mut());
                let mut part = sums.slice_axis_mut(Dimension(1), self.columns(group));
                general_mat_mul(1.0, &windows, kernel, 0.0, &mut part);
            }
            result.extend(rounded(sums, bias));
        }
        result
    }

    /// Gradients with respect to `x` and the kernel, from that with respect to the result (before the activation).
    pub(super) fn backward(&self, x: &[f32], kernel: &[f32], cotangent: &[f32]) -> (Vec<f32>, Vec<f32>) {
        let (filters, channels) = (self.groups * self.outputs, self.groups * self.inputs);
        let kernels: Vec<Array2<f64>> = (0..self.groups).map(|group| self.group_kernel(kernel, group)).collect();
        let mut dkernel = vec![0.0_f64; kernel.len()];
        let mut dx = Vec::with_capacity(x.len());
        let samples = self.samples_at_a_time();
        let chunks =
            x.chunks(samples * self.input_elements()).zip(cotangent.chunks(samples * self.positions() * filters));
        for (x, cotangent) in chunks {
            let rows = x.len() / self.input_elements() * self.positions();
            let cotangent = matrix(rows, filters, cotangent);
            let mut windows = Array2::zeros((rows, self.taps() * self.inputs));
            let mut wide_dx = vec![0.0_f64; x.len()];
            for (group, kernel) in kernels.iter().enumerate() {
                self.gather(x, group, windows.view_mut());
                let part = cotangent.slice_axis(Dimension(1), self.columns(group));
                self.scatter_kernel(windows.t().dot(&part).view(), group, &mut dkernel);
                let dwindows = part.dot(&kernel.t());
                for (sample, dx) in wide_dx.chunks_exact_mut(self.input_elements()).enumerate() {
                    let first = sample * self.positions();
                    self.visit(|position, tap, cell| {
                        let row = dwindows.index_axis(Dimension(0), first + position);
                        let to = &mut dx[cell * channels + group * self.inputs..][..self.inputs];
                        for (input, to) in to.iter_mut().enumerate() {
                            *to += row[tap * self.inputs + input];
                        }
                    });
                }
            }
            dx.extend(wide_dx.iter().map(|value| *value as f32));
        }
        (dx, dkernel.iter().map(|value| *value as f32).collect())
    }
}
