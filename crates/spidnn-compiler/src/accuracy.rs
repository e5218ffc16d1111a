//! What a format costs in accuracy, layer by layer: the predict program is run on the host, by the arithmetic of the cores, and its
//! tensors are compared with those of the reference executor.

use spidnn_graph::reference::{Mode, forward};
use spidnn_graph::{Graph, GraphError, LayerKind, NodeId, Tensor};

use crate::interpreter::Chips;
use crate::{CompileError, Format, Options, Program, fold};

/// How near a layer's results come to those of the float model. The errors of all layers before are in it.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerAccuracy {
    /// Name of the layer.
    pub layer: String,
    /// Format of its results: `int8`, or `f32` for a layer that has none in bytes, ..
    pub format: &'static str,
    /// Why a layer is not in bytes.
    pub why: Option<&'static str>,
    /// Power of the signal to that of the error, in decibels.
    pub signal_to_noise_db: f64,
    /// Largest error, in units of the largest magnitude.
    pub largest_error: f64,
}

/// Why accuracy cannot be measured.
#[derive(Debug, thiserror::Error)]
pub enum AccuracyError {
    /// The network cannot be lowered.
    #[error(transparent)]
    Compile(#[from] CompileError),
    /// Inputs or weights do not fit it.
    #[error(transparent)]
    Graph(#[from] GraphError),
}

/// Compares every layer on some samples (one tensor for each input of the model, samples first).
///
/// # Errors
/// A network that cannot be lowered; inputs or weights that do not fit it.
pub fn layer_accuracy(
    graph: &Graph,
    weights: &[Tensor],
    format: &Format,
    inputs: &[Tensor],
) -> Result<Vec<LayerAccuracy>, AccuracyError> {
    let expected = forward(graph, weights, inputs, Mode::Inference)?;
    let samples = inputs.first().map_or(0, |x| x.shape()[0]);
    let options = Options { format: format.clone(), ..Options::inference(samples.max(1)) };
    let mut chips = Chips::new(graph, &options, &[crate::lower::CORES_MAX])?;
    chips.set_weights(graph, weights);
    for (k, input) in inputs.iter().enumerate() {
        for (i, sample) in input.outer_iter().enumerate() {
            chips.write_input(0, (0, k), i, &sample.iter().copied().collect::<Vec<f32>>());
        }
    }
    chips.run(Program::Predict, samples, 0);
    let folded = fold::folded_norms(graph);
    let mut all = Vec::new();
    for (i, node) in graph.nodes.iter().enumerate() {
        let layer = graph.layer_of(NodeId(i));
        let moves = matches!(
            layer.kind,
            LayerKind::Input { .. } | LayerKind::Flatten | LayerKind::Reshape { .. } | LayerKind::Dropout { .. }
        );
        // What is folded into a layer shows with the layer.
        if moves || folded[i].is_some() {
            continue;
        }
        let Some((found, in_bytes)) = values(&chips, i, samples, node.shape.iter().product()) else { continue };
        let (mut signal, mut noise, mut largest, mut error) = (0f64, 0f64, 0f64, 0f64);
        for (&f, &e) in found.iter().zip(expected.values[i].iter()) {
            let (f, e) = (f64::from(f), f64::from(e));
            signal += e * e;
            noise += (f - e) * (f - e);
            largest = largest.max(e.abs());
            error = error.max((f - e).abs());
        }
        let why = chips.lowered.forms.iter().find(|form| form.node == i).and_then(|form| form.numbers);
        all.push(LayerAccuracy {
            layer: layer.name.clone(),
            format: match format {
                Format::Int8(_) if !in_bytes => "f32",
                other => other.name(),
            },
            why,
            signal_to_noise_db: 10.0 * (signal / noise.max(1e-300)).log10(),
            largest_error: if largest > 0.0 { error / largest } else { error },
        });
    }
    Ok(all)
}

/// A node's values of all samples, and whether they are bytes.
fn values(chips: &Chips, node: usize, samples: usize, count: usize) -> Option<(Vec<f32>, bool)> {
    if let Some(value) = chips.lowered.bytes.get(node).copied().flatten() {
        let mut all = Vec::with_capacity(samples * count);
        for sample in 0..samples {
            let words = chips.words(0, &value.bytes.tensor, sample);
            for row in words.chunks(value.bytes.row_words() as usize).take(value.bytes.rows as usize) {
                let bytes = row.iter().flat_map(|w| w.to_le_bytes());
                all.extend(bytes.take(value.bytes.values as usize).map(|q| value.format.number(q)));
            }
        }
        return Some((all, true));
    }
    let tensor = chips.lowered.numbers.get(node).copied().flatten()?;
    let words = (0..samples).flat_map(|sample| chips.words(0, &tensor, sample));
    Some((words.map(f32::from_bits).collect(), false))
}
