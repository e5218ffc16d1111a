//! Pooling.

use crate::geometry::Axis;
use crate::layer::PoolMode;

/// Calls `visit(position, cells)` for each output position with the input cells of its window.
fn windows(axes: &[Axis; 2], mut visit: impl FnMut(usize, &[usize])) {
    let [rows, columns] = axes;
    let mut cells = Vec::with_capacity(rows.kernel * columns.kernel);
    for y in 0..rows.output {
        for x in 0..columns.output {
            cells.clear();
            for row in (0..rows.kernel).filter_map(|tap| rows.source(y, tap)) {
                cells.extend(
                    (0..columns.kernel)
                        .filter_map(|tap| columns.source(x, tap))
                        .map(|column| row * columns.input + column),
                );
            }
            visit(y * columns.output + x, &cells);
        }
    }
}

fn sizes(axes: &[Axis; 2], channels: usize) -> (usize, usize) {
    (axes[0].input * axes[1].input * channels, axes[0].output * axes[1].output * channels)
}

/// The cell with the first maximum.
fn first_maximum(x: &[f32], cells: &[usize], channels: usize, channel: usize) -> usize {
    let mut best = cells[0];
    for &cell in &cells[1..] {
        if x[cell * channels + channel] > x[best * channels + channel] {
            best = cell;
        }
    }
    best
}

/// Pools a batch. Padding does not count: maxima and means are over the cells that are there.
pub(super) fn forward(mode: PoolMode, axes: &[Axis; 2], channels: usize, x: &[f32]) -> Vec<f32> {
    let (inputs, outputs) = sizes(axes, channels);
    let mut result = vec![0.0; x.len() / inputs * outputs];
    for (x, y) in x.chunks_exact(inputs).zip(result.chunks_exact_mut(outputs)) {
        windows(axes, |position, cells| {
            for channel in 0..channels {
                y[position * channels + channel] = match mode {
                    PoolMode::Max => x[first_maximum(x, cells, channels, channel) * channels + channel],
                    PoolMode::Average => {
                        let sum: f64 = cells.iter().map(|cell| f64::from(x[cell * channels + channel])).sum();
                        (sum / cells.len() as f64) as f32
                    }
                };
            }
        });
    }
    result
}

/// The gradient with respect to the input. A maximum's goes to the first of equal cells, as in Keras on TensorFlow.
pub(super) fn backward(mode: PoolMode, axes: &[Axis; 2], channels: usize, x: &[f32], cotangent: &[f32]) -> Vec<f32> {
    let (inputs, outputs) = sizes(axes, channels);
    let mut result = Vec::with_capacity(x.len());
    for (x, cotangent) in x.chunks_exact(inputs).zip(cotangent.chunks_exact(outputs)) {
        let mut dx = vec![0.0_f64; inputs];
        windows(axes, |position, cells| {
            for channel in 0..channels {
                let cotangent = f64::from(cotangent[position * channels + channel]);
                match mode {
                    PoolMode::Max => dx[first_maximum(x, cells, channels, channel) * channels + channel] += cotangent,
                    PoolMode::Average => {
                        let share = cotangent / cells.len() as f64;
                        cells.iter().for_each(|cell| dx[cell * channels + channel] += share);
                    }
                }
            }
        });
        result.extend(dx.iter().map(|value| *value as f32));
    }
    result
}

/// Pools all positions of each channel.
pub(super) fn global_forward(mode: PoolMode, channels: usize, positions: usize, x: &[f32]) -> Vec<f32> {
    let mut result = Vec::with_capacity(x.len() / positions.max(1));
    for x in x.chunks_exact(positions * channels) {
        for channel in 0..channels {
            let values = x[channel..].iter().step_by(channels);
            result.push(match mode {
                PoolMode::Max => values.copied().fold(f32::NEG_INFINITY, f32::max),
                PoolMode::Average => (values.map(|value| f64::from(*value)).sum::<f64>() / positions as f64) as f32,
            });
        }
    }
    result
}

/// The gradient of [`global_forward`]. Positions that share a maximum share its gradient, as in Keras (where this is a reduction,
/// not a pooling: hence the difference from [`backward`]).
pub(super) fn global_backward(
    mode: PoolMode,
    channels: usize,
    positions: usize,
    x: &[f32],
    cotangent: &[f32],
) -> Vec<f32> {
    let mut result = vec![0.0; x.len()];
    let samples = x.chunks_exact(positions * channels).zip(result.chunks_exact_mut(positions * channels));
    for ((x, dx), cotangent) in samples.zip(cotangent.chunks_exact(channels)) {
        for channel in 0..channels {
            let values = || x[channel..].iter().step_by(channels);
            let max = values().copied().fold(f32::NEG_INFINITY, f32::max);
            let sharers = match mode {
                PoolMode::Max => values().filter(|value| **value == max).count().max(1),
                PoolMode::Average => positions,
            };
            let share = (f64::from(cotangent[channel]) / sharers as f64) as f32;
            for (value, dx) in values().zip(dx[channel..].iter_mut().step_by(channels)) {
                if mode == PoolMode::Average || *value == max {
                    *dx = share;
                }
            }
        }
    }
    result
}
