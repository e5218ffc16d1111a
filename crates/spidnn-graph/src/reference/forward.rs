//! The forward pass.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::conv::Convolution;
use super::norm::{Normalized, statistics};
use super::optimizer::complement;
use super::{activation, conv, elements, pool, tensor, with_batch};
use crate::error::keras_shape;
use crate::geometry::spatial;
use crate::graph_builder::concatenate_axis;
use crate::{Activation, Graph, GraphError, LayerKind, NodeId, ParamId, Tensor};

/// An element that a Dropout layer decides about.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DropoutElement {
    /// The Dropout's node.
    pub node: NodeId,
    /// Share of elements to be dropped.
    pub rate: f32,
    /// The layer's own seed, where it has one.
    pub seed: Option<u64>,
    /// Index of the sample in the batch.
    pub sample: usize,
    /// Index of the element in the sample, row-major.
    pub element: usize,
}

/// How layers behave that do not always do the same.
#[derive(Clone, Copy)]
pub enum Mode<'a> {
    /// Dropout does nothing, batch normalisation takes the moving statistics.
    Inference,
    /// Dropout keeps the elements for which `keep` says true; batch normalisation takes the batch's statistics (unless frozen) and
    /// updates the moving ones.
    Training {
        /// Whether an element is kept.
        keep: &'a dyn Fn(DropoutElement) -> bool,
    },
}

/// A `keep` for [`Mode::Training`]: elements are kept with probability `1 - rate`, by a hash of seed, node, sample and element
/// (a position in a ChaCha8 stream), so the decision depends on nothing else. `step` tells the batches of a training run apart.
pub fn seeded_masks(seed: u64, step: u64) -> impl Fn(DropoutElement) -> bool {
    let mixed = move |seed: u64| ChaCha8Rng::seed_from_u64(seed ^ step.rotate_left(32));
    let common = mixed(seed);
    move |element| {
        let mut generator = element.seed.map_or_else(|| common.clone(), mixed);
        generator.set_stream(element.node.0 as u64);
        generator.set_word_pos(((element.sample as u128) << 32) | element.element as u128);
        // 24 bits, so that the comparison is exact.
        let chance = (generator.next_u32() >> 8) as f32 / (1_u32 << 24) as f32;
        chance >= element.rate
    }
}

/// What a forward pass computed.
#[derive(Debug, Clone, PartialEq)]
pub struct Forward {
    /// Each node's result, the batch dimension first.
    pub values: Vec<Tensor>,
    /// Each node's result before its activation, where that is not linear.
    pub before_activation: Vec<Option<Tensor>>,
    /// New moving statistics (training only).
    pub moving: Vec<(ParamId, Tensor)>,
    pub(super) memory: Vec<Memory>,
}

/// What a node keeps for the backward pass.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Memory {
    Nothing,
    Normalized(Normalized),
    /// The factor of each element.
    Mask(Vec<f32>),
}

impl Forward {
    /// The model's outputs, in order.
    pub fn outputs(&self, graph: &Graph) -> Vec<Tensor> {
        graph.outputs.iter().map(|node| self.values[node.0].clone()).collect()
    }
}

/// Checks a model's inputs: one tensor for each, of its shape behind the batch dimension, all of one batch, none empty, all finite.
/// Gives the number of samples.
pub fn check_inputs(graph: &Graph, inputs: &[Tensor]) -> Result<usize, GraphError> {
    if inputs.len() != graph.inputs.len() {
        return Err(GraphError::data(
            "inputs",
            format!("{} arrays", inputs.len()),
            format!("{}, one for each input of the model", graph.inputs.len()),
            "pass one array for each input, in the model's order",
        ));
    }
    let mut batch = None;
    for (node, input) in graph.inputs.iter().zip(inputs) {
        let what = format!("input `{}`", graph.layer_of(*node).name);
        let wanted = &graph.node(*node).shape;
        if input.ndim() == 0 || &input.shape()[1..] != wanted.as_slice() {
            return Err(GraphError::data(
                what,
                format!("an array of shape {:?}", input.shape()),
                keras_shape(wanted),
                "put the samples into the first dimension and reshape the rest",
            ));
        }
        let samples = input.shape()[0];
        if samples == 0 {
            return Err(GraphError::data(what, "no samples", "at least one", "pass data"));
        }
        if *batch.get_or_insert(samples) != samples {
            return Err(GraphError::data(
                what,
                format!("{samples} samples"),
                format!("{} as in the inputs before", batch.unwrap_or(0)),
                "pass as many samples in each input",
            ));
        }
        if let Some(bad) = input.iter().position(|value| !value.is_finite()) {
            return Err(GraphError::data(
                what,
                format!("a value that is not finite, at element {bad}"),
                "finite numbers",
                "remove or replace NaN and infinity",
            ));
        }
    }
    Ok(batch.unwrap_or(0))
}

/// Runs a batch through a graph. Inputs as [`check_inputs`] wants them, weights as [`crate::check_weights`] does.
pub fn forward(graph: &Graph, weights: &[Tensor], inputs: &[Tensor], mode: Mode<'_>) -> Result<Forward, GraphError> {
    let batch = check_inputs(graph, inputs)?;
    crate::check_weights(graph, weights)?;
    let mut pass = Forward {
        values: Vec::with_capacity(graph.nodes.len()),
        before_activation: Vec::with_capacity(graph.nodes.len()),
        moving: Vec::new(),
        memory: Vec::with_capacity(graph.nodes.len()),
    };
    for id in graph.node_ids() {
        let node = graph.node(id);
        let mut memory = Memory::Nothing;
        let value = if let Some(index) = graph.inputs.iter().position(|input| *input == id) {
            tensor(&with_batch(batch, &node.shape), elements(&inputs[index]).into_owned())
        } else {
            let values = evaluate(graph, weights, id, batch, &mut pass, &mut memory, mode)?;
            tensor(&with_batch(batch, &node.shape), values)
        };
        let kind = graph.layer_of(id).kind.activation();
        if kind == Activation::Linear {
            pass.values.push(value);
            pass.before_activation.push(None);
        } else {
            let row = node.shape.last().copied().unwrap_or(1);
            let after = activation::apply(kind, &elements(&value), row);
            pass.values.push(tensor(&with_batch(batch, &node.shape), after));
            pass.before_activation.push(Some(value));
        }
        pass.memory.push(memory);
    }
    Ok(pass)
}

/// Outputs in inference mode, the samples worked on `batch_size` at a time.
pub fn predict(
    graph: &Graph,
    weights: &[Tensor],
    inputs: &[Tensor],
    batch_size: usize,
) -> Result<Vec<Tensor>, GraphError> {
    let samples = check_inputs(graph, inputs)?;
    let mut collected: Vec<Vec<f32>> = vec![Vec::new(); graph.outputs.len()];
    for first in (0..samples).step_by(batch_size.max(1)) {
        let last = (first + batch_size.max(1)).min(samples);
        let part: Vec<Tensor> = inputs.iter().map(|input| super::train::rows(input, first, last)).collect();
        let pass = forward(graph, weights, &part, Mode::Inference)?;
        for (all, node) in collected.iter_mut().zip(&graph.outputs) {
            all.extend_from_slice(&elements(&pass.values[node.0]));
        }
    }
    Ok(graph
        .outputs
        .iter()
        .zip(collected)
        .map(|(node, values)| tensor(&with_batch(samples, &graph.node(*node).shape), values))
        .collect())
}

/// A node's result before its activation.
fn evaluate(
    graph: &Graph,
    weights: &[Tensor],
    id: NodeId,
    batch: usize,
    pass: &mut Forward,
    memory: &mut Memory,
    mode: Mode<'_>,
) -> Result<Vec<f32>, GraphError> {
    let node = graph.node(id);
    let layer = graph.layer_of(id);
    let first = node.inputs.first().copied();
    let x = first.map_or(std::borrow::Cow::Borrowed(&[][..]), |input| elements(&pass.values[input.0]));
    let input_shape = first.map_or(&[][..], |input| graph.node(input).shape.as_slice());
    let channels = input_shape.last().copied().unwrap_or(1);
    let weight = |index: usize| elements(&weights[layer.params[index].0]);
    let internal = || {
        GraphError::layer(
            &layer.name,
            format!("input {}", keras_shape(input_shape)),
            "a shape that the layer was built for",
            "build the graph with GraphBuilder, which checks shapes",
        )
    };
    Ok(match &layer.kind {
        LayerKind::Input { .. } => {
            return Err(GraphError::model(
                &graph.name,
                format!("layer `{}`, which is not among the inputs", layer.name),
                "all inputs listed",
                "build the graph with GraphBuilder",
            ));
        }
        LayerKind::Dense(dense) => {
            let bias = dense.use_bias.then(|| weight(1));
            conv::dense(&x, channels, &weight(0), dense.units, bias.as_deref())
        }
        LayerKind::Conv(kind) => {
            let axes = graph.axes(id).ok_or_else(internal)?;
            let bias = kind.use_bias.then(|| weight(1));
            Convolution::new(kind, axes, channels).forward(&x, &weight(0), bias.as_deref())
        }
        LayerKind::Pool(kind) => pool::forward(kind.mode, &graph.axes(id).ok_or_else(internal)?, channels, &x),
        LayerKind::GlobalPool { mode, .. } => {
            let positions = input_shape[..input_shape.len() - 1].iter().product();
            pool::global_forward(*mode, channels, positions, &x)
        }
        LayerKind::Flatten | LayerKind::Reshape { .. } | LayerKind::Activation(_) => x.into_owned(),
        LayerKind::ZeroPadding { rank, padding } => {
            let (cells, channels) = spatial(input_shape, *rank).ok_or_else(internal)?;
            let mut result = vec![0.0; batch * node.shape.iter().product::<usize>()];
            padded_rows(cells, *padding, channels, batch, |from, to, length| {
                result[to..to + length].copy_from_slice(&x[from..from + length]);
            });
            result
        }
        LayerKind::Dropout { rate, seed } => {
            let Mode::Training { keep } = mode else { return Ok(x.into_owned()) };
            let size = node.shape.iter().product::<usize>().max(1);
            let scale = (1.0 / (1.0 - f64::from(*rate))) as f32;
            let mask: Vec<f32> = (0..x.len())
                .map(|index| {
                    let (sample, element) = (index / size, index % size);
                    let kept = keep(DropoutElement { node: id, rate: *rate, seed: *seed, sample, element });
                    if kept { scale } else { 0.0 }
                })
                .collect();
            let result = x.iter().zip(&mask).map(|(x, factor)| x * factor).collect();
            *memory = Memory::Mask(mask);
            result
        }
        LayerKind::Add | LayerKind::Multiply => {
            let mut result: Option<Vec<f32>> = None;
            for input in &node.inputs {
                let values = stretched(&pass.values[input.0], &with_batch(batch, &node.shape));
                result = Some(match result {
                    None => values,
                    Some(sum) if layer.kind == LayerKind::Add => sum.iter().zip(&values).map(|(a, b)| a + b).collect(),
                    Some(product) => product.iter().zip(&values).map(|(a, b)| a * b).collect(),
                });
            }
            result.unwrap_or_default()
        }
        LayerKind::Concatenate { axis } => {
            let along = concatenate_axis(*axis, node.shape.len()).ok_or_else(internal)?;
            let views: Vec<_> = node.inputs.iter().map(|input| pass.values[input.0].view()).collect();
            let joined = ndarray::concatenate(ndarray::Axis(along + 1), &views).map_err(|_| internal())?;
            joined.iter().copied().collect()
        }
        LayerKind::BatchNormalization(norm) => {
            let count = layer.params.len();
            let [mean_id, variance_id] = [layer.params[count - 2], layer.params[count - 1]];
            let gamma = norm.scale.then(|| weight(0));
            let beta = norm.center.then(|| weight(usize::from(norm.scale)));
            // A frozen layer runs in inference mode, as in Keras.
            let training = matches!(mode, Mode::Training { .. }) && layer.trainable;
            let normalized = if training {
                let (mean, variance) = statistics(&x, channels);
                let (momentum, rest) = (f64::from(norm.momentum), complement(norm.momentum));
                for (id, batch_values) in [(mean_id, &mean), (variance_id, &variance)] {
                    // A shared layer's further calls go on from what the first made.
                    let known = pass.moving.iter().position(|(known, _)| *known == id);
                    let old = known.map_or(&weights[id.0], |index| &pass.moving[index].1);
                    let new: Vec<f32> = elements(old)
                        .iter()
                        .zip(batch_values)
                        .map(|(old, new)| (f64::from(*old) * momentum + new * rest) as f32)
                        .collect();
                    let new = tensor(&[channels], new);
                    match known {
                        Some(index) => pass.moving[index].1 = new,
                        None => pass.moving.push((id, new)),
                    }
                }
                Normalized::new(mean, &variance, norm.epsilon, true)
            } else {
                let wide =
                    |id: ParamId| elements(&weights[id.0]).iter().map(|value| f64::from(*value)).collect::<Vec<_>>();
                Normalized::new(wide(mean_id), &wide(variance_id), norm.epsilon, false)
            };
            let result = normalized.forward(&x, gamma.as_deref(), beta.as_deref());
            *memory = Memory::Normalized(normalized);
            result
        }
    })
}

/// Calls `copy(from, to, length)` for each row of a batch that zero padding moves.
pub(super) fn padded_rows(
    cells: [usize; 2],
    padding: [[usize; 2]; 2],
    channels: usize,
    batch: usize,
    mut copy: impl FnMut(usize, usize, usize),
) {
    let padded = [0, 1].map(|axis| cells[axis] + padding[axis][0] + padding[axis][1]);
    let length = cells[1] * channels;
    for sample in 0..batch {
        for row in 0..cells[0] {
            let from = (sample * cells[0] + row) * length;
            let to = ((sample * padded[0] + row + padding[0][0]) * padded[1] + padding[1][0]) * channels;
            copy(from, to, length);
        }
    }
}

/// A batch stretched to a shape: missing dimensions come behind the batch dimension, sizes of 1 repeat.
fn stretched(values: &Tensor, shape: &[usize]) -> Vec<f32> {
    let aligned = aligned_shape(values.shape(), shape.len());
    let view = values.view().into_shape_with_order(ndarray::IxDyn(&aligned)).ok();
    view.as_ref()
        .and_then(|view| view.broadcast(ndarray::IxDyn(shape)))
        .map(|view| view.iter().copied().collect())
        .unwrap_or_default()
}

/// A shape with the batch first, filled up with sizes of 1 behind the batch.
pub(super) fn aligned_shape(shape: &[usize], rank: usize) -> Vec<usize> {
    let mut aligned = vec![1; rank];
    aligned[0] = shape[0];
    aligned[rank - (shape.len() - 1)..].copy_from_slice(&shape[1..]);
    aligned
}
