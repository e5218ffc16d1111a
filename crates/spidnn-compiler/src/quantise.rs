//! Post-training quantisation: from a network with its weights and some samples to bytes (format `int8`).
//!
//! Every tensor gets a scale and a zero point from the range that its numbers have on the samples; every kernel of a layer one scale for
//! each output channel. All numbers that a core needs (bytes of weights, biases with the zero point's part taken off, multipliers) are
//! constants of the network: they do not depend on how it is mapped to cores.

use std::sync::Arc;

use spidnn_graph::reference::{Mode, forward};
use spidnn_graph::{Graph, GraphError, Tensor};
use spidnn_kernels::call::PANEL_COLUMNS;

/// Largest last shift of `spidnn_kernels::call::Product8`.
const SHIFT_MAX: i32 = 22;

/// Smallest and largest number of a tensor.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Range {
    /// Smallest.
    pub low: f32,
    /// Largest.
    pub high: f32,
}

impl Range {
    /// The range of nothing.
    const NONE: Range = Range { low: 0.0, high: 0.0 };

    /// The range with the numbers of a tensor.
    fn with(self, tensor: &Tensor) -> Range {
        tensor.iter().filter(|v| v.is_finite()).fold(self, |r, &v| Range { low: r.low.min(v), high: r.high.max(v) })
    }

    /// The part of it in `low ..= high`.
    pub fn within(self, low: f32, high: f32) -> Range {
        Range { low: self.low.clamp(low, high), high: self.high.clamp(low, high) }
    }
}

/// What the numbers of a tensor of bytes mean: `(byte - zero) * scale`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ByteFormat {
    /// Size of a step.
    pub scale: f32,
    /// The byte that stands for 0.
    pub zero: u32,
}

impl ByteFormat {
    /// The format with the smallest steps that covers a range and 0.
    pub fn of(range: Range) -> ByteFormat {
        let (low, high) = (range.low.min(0.0), range.high.max(0.0));
        let width = f64::from(high) - f64::from(low);
        // A tensor of zeros, or of numbers too small to be told apart.
        if width < 1e-30 {
            return ByteFormat { scale: 1.0, zero: 0 };
        }
        // What is larger than any sensible range saturates: kernels take scales from 2^-118 to 2^63.
        let scale = (width.min(1e20) / 255.0) as f32;
        ByteFormat { scale, zero: (-f64::from(low) / f64::from(scale)).round().clamp(0.0, 255.0) as u32 }
    }

    /// The number of a byte.
    pub fn number(&self, byte: u8) -> f32 {
        (i32::from(byte) - self.zero as i32) as f32 * self.scale
    }

    /// The byte nearest to a number.
    pub fn byte(&self, number: f64) -> u8 {
        let steps = (number / f64::from(self.scale)).round_ties_even() + f64::from(self.zero);
        steps.clamp(0.0, 255.0) as u8
    }
}

/// Ranges of a network's tensors on some samples.
#[derive(Debug, Clone, PartialEq)]
pub struct Calibration {
    /// Results of each node.
    pub outputs: Vec<Range>,
    /// Inputs of each node's activation.
    pub before_activation: Vec<Range>,
    /// How many samples.
    pub samples: usize,
}

/// Samples that the reference executor takes at a time.
const TOGETHER: usize = 16;

impl Calibration {
    /// Runs the reference executor on samples (one tensor for each input of the model, samples first).
    ///
    /// # Errors
    /// Inputs or weights that do not fit the network.
    pub fn of(graph: &Graph, weights: &[Tensor], inputs: &[Tensor]) -> Result<Calibration, GraphError> {
        let samples = inputs.first().map_or(0, |x| x.shape().first().copied().unwrap_or(0));
        let mut all = Calibration {
            outputs: vec![Range::NONE; graph.nodes.len()],
            before_activation: vec![Range::NONE; graph.nodes.len()],
            samples,
        };
        let mut first = 0;
        while first < samples {
            let end = (first + TOGETHER).min(samples);
            let part: Vec<Tensor> = inputs
                .iter()
                .map(|x| x.slice_axis(ndarray::Axis(0), ndarray::Slice::from(first..end)).to_owned())
                .collect();
            let values = forward(graph, weights, &part, Mode::Inference)?;
            for (i, value) in values.values.iter().enumerate() {
                all.outputs[i] = all.outputs[i].with(value);
                let before = values.before_activation[i].as_ref().unwrap_or(value);
                all.before_activation[i] = all.before_activation[i].with(before);
            }
            first = end;
        }
        Ok(all)
    }
}

/// All that the compiler needs to make a network of bytes.
#[derive(Debug, Clone)]
pub struct Quantisation {
    /// The weights, in `get_weights()` order.
    pub weights: Arc<Vec<Tensor>>,
    /// The ranges.
    pub calibration: Arc<Calibration>,
}

/// A dense layer or convolution as bytes.
#[derive(Debug, Clone, PartialEq)]
pub struct ByteKernel {
    /// Halves of each sum, an even number: real terms, and zeros beside them.
    pub terms: u32,
    /// Outputs.
    pub outputs: u32,
    /// The last shift of the requantisation.
    pub shift: u32,
    /// Bytes of the weights, in panels (see `spidnn_kernels::call::Product8`), as words.
    pub weights: Vec<u32>,
    /// Biases and multipliers of each panel, as words.
    pub scales: Vec<u32>,
    /// What the results are.
    pub output: ByteFormat,
}

impl ByteKernel {
    /// Quantises a kernel `[terms][outputs]`. `place` gives the half at which a term lies; of `halves` in all, an even number. The results'
    /// steps are made larger where a sum's own are too large for them.
    pub fn new(
        kernel: &[f32],
        bias: Option<&[f32]>,
        outputs: usize,
        halves: u32,
        place: impl Fn(usize) -> usize,
        input: ByteFormat,
        output: ByteFormat,
    ) -> ByteKernel {
        let terms = kernel.len() / outputs.max(1);
        let mut columns = vec![vec![0i8; halves as usize]; outputs];
        let mut scales = vec![0f64; outputs];
        for (j, column) in columns.iter_mut().enumerate() {
            let most = (0..terms).map(|t| f64::from(kernel[t * outputs + j]).abs()).fold(0.0, f64::max);
            scales[j] = if most > 0.0 { most / 127.0 } else { 1e-30 };
            for t in 0..terms {
                let q = (f64::from(kernel[t * outputs + j]) / scales[j]).round();
                column[place(t)] = q.clamp(-127.0, 127.0) as i8;
            }
        }
        let step = |j: usize| f64::from(input.scale) * scales[j];
        let most = (0..outputs).map(step).fold(0.0, f64::max);
        // A multiplier has 15 bits and at least one shift behind it: less than a quarter.
        let output = if most > 0.249 * f64::from(output.scale) {
            ByteFormat { scale: (most / 0.249) as f32, ..output }
        } else {
            output
        };
        let ratio = (most / f64::from(output.scale)).max(1e-12);
        let shift = (1..=SHIFT_MAX).rev().find(|s| ratio * 2f64.powi(16 + s) <= 32767.0).unwrap_or(1);
        let (mut biases, mut multipliers) = (Vec::new(), Vec::new());
        for (j, column) in columns.iter().enumerate() {
            let sum: i64 = column.iter().map(|&q| i64::from(q)).sum();
            let bias = bias.map_or(0.0, |b| f64::from(b[j]));
            let value = (bias / step(j)).round().clamp(-1e9, 1e9) as i64 - i64::from(input.zero) * sum;
            let multiplier = (step(j) / f64::from(output.scale) * 2f64.powi(16 + shift)).round().min(32767.0);
            biases.push(value.clamp(i32::MIN.into(), i32::MAX.into()) as i32 as u32);
            multipliers.push(multiplier as u32);
        }
        let panel = PANEL_COLUMNS as usize;
        let scales = biases.chunks(panel).zip(multipliers.chunks(panel)).flat_map(|(b, m)| [b, m].concat()).collect();
        ByteKernel {
            terms: halves,
            outputs: outputs as u32,
            shift: shift as u32,
            weights: panels(&columns, halves as usize),
            scales,
            output,
        }
    }
}

/// Columns of signed bytes in panels, as words.
fn panels(columns: &[Vec<i8>], halves: usize) -> Vec<u32> {
    let mut bytes = Vec::with_capacity(columns.len() * halves + 3);
    for panel in columns.chunks(PANEL_COLUMNS as usize) {
        for pair in 0..halves / 2 {
            for column in panel {
                bytes.extend([column[2 * pair] as u8, column[2 * pair + 1] as u8]);
            }
        }
    }
    words(&bytes)
}

/// Bytes as words, zeros behind them.
pub fn words(bytes: &[u8]) -> Vec<u32> {
    bytes.chunks(4).map(|c| c.iter().rev().fold(0, |word, &b| word << 8 | u32::from(b))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_cover_their_range_and_hold_zero_exactly() {
        for (low, high) in [(-1.0, 1.0), (0.0, 6.0), (-3.0, -1.0), (2.0, 5.0), (0.0, 0.0), (-1e-20, 4e5)] {
            let format = ByteFormat::of(Range { low, high });
            assert_eq!(format.number(format.zero as u8), 0.0);
            for v in [low, high, (low + high) / 2.0, 0.0] {
                let error = (format.number(format.byte(v.into())) - v).abs();
                assert!(error <= format.scale * 0.501, "{v} in {low}..{high}: {error}");
            }
        }
    }

    #[test]
    fn panels_hold_pairs_of_terms_column_by_column() {
        let columns: Vec<Vec<i8>> = (0..5).map(|j| (0..4).map(|t| (10 * j + t) as i8).collect()).collect();
        let words = panels(&columns, 4);
        assert_eq!(words.len(), 5);
        assert_eq!(words[0].to_le_bytes(), [0, 1, 10, 11]);
        assert_eq!(words[2].to_le_bytes(), [2, 3, 12, 13]);
        assert_eq!(words[4].to_le_bytes(), [40, 41, 42, 43]);
    }
}
