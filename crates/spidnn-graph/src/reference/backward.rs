//! The backward pass.

use super::conv::{Convolution, column_sums};
use super::forward::{Memory, aligned_shape, padded_rows};
use super::{Forward, activation, conv, elements, pool, tensor, with_batch};
use crate::geometry::spatial;
use crate::graph_builder::concatenate_axis;
use crate::{Activation, Graph, GraphError, LayerKind, NodeId, Tensor};

/// The gradient of the loss with respect to an output of the model.
#[derive(Debug, Clone, PartialEq)]
pub enum Cotangent {
    /// With respect to the output itself.
    Output(Tensor),
    /// With respect to what the output's activation took: for losses that are fused with sigmoid or softmax.
    BeforeActivation(Tensor),
}

/// Gradients of the loss.
#[derive(Debug, Clone, PartialEq)]
pub struct Gradients {
    /// With respect to the model's inputs, in order.
    pub inputs: Vec<Tensor>,
    /// With respect to the parameters, in order; `None` for moving statistics. Frozen layers have theirs too.
    pub params: Vec<Option<Tensor>>,
}

/// Gradients of one forward pass, from those with respect to each output of the model. In the mode of the forward pass: dropout
/// masks are those it drew, batch normalisation goes through the batch's statistics where it took them.
pub fn backward(
    graph: &Graph,
    weights: &[Tensor],
    pass: &Forward,
    cotangents: &[Cotangent],
) -> Result<Gradients, GraphError> {
    if cotangents.len() != graph.outputs.len() {
        return Err(GraphError::data(
            "cotangents",
            format!("{} arrays", cotangents.len()),
            format!("{}, one for each output of the model", graph.outputs.len()),
            "pass one for each output, in the model's order",
        ));
    }
    let mut state = Backward {
        graph,
        weights,
        pass,
        nodes: vec![None; graph.nodes.len()],
        params: graph
            .params
            .iter()
            .map(|param| is_differentiable(&param.name).then(|| vec![0.0; param.element_count()]))
            .collect(),
    };
    let mut fused: Vec<Option<Vec<f32>>> = vec![None; graph.nodes.len()];
    for (node, cotangent) in graph.outputs.iter().zip(cotangents) {
        let (Cotangent::Output(values) | Cotangent::BeforeActivation(values)) = cotangent;
        if values.shape() != pass.values[node.0].shape() {
            return Err(GraphError::data(
                format!("the cotangent of output `{}`", graph.layer_of(*node).name),
                format!("an array of shape {:?}", values.shape()),
                format!("{:?}, the output's", pass.values[node.0].shape()),
                "pass the gradient with respect to the whole output",
            ));
        }
        let values = elements(values);
        match cotangent {
            Cotangent::Output(_) => add(&mut state.nodes[node.0], &values),
            Cotangent::BeforeActivation(_) => add(&mut fused[node.0], &values),
        }
    }
    for id in graph.node_ids().rev() {
        let kind = graph.layer_of(id).kind.activation();
        let row = graph.node(id).shape.last().copied().unwrap_or(1);
        let mut gradient = None;
        if let Some(cotangent) = state.nodes[id.0].clone() {
            let through = match (kind, &pass.before_activation[id.0]) {
                (Activation::Linear, _) | (_, None) => cotangent,
                (kind, Some(before)) => {
                    activation::backward(kind, &elements(before), &elements(&pass.values[id.0]), &cotangent, row)
                }
            };
            add(&mut gradient, &through);
        }
        if let Some(fused) = &fused[id.0] {
            add(&mut gradient, fused);
        }
        if let Some(gradient) = gradient {
            if matches!(graph.layer_of(id).kind, LayerKind::Input { .. }) {
                continue;
            }
            state.node(id, &gradient);
        }
    }
    let Backward { nodes, params, .. } = state;
    let inputs = graph
        .inputs
        .iter()
        .map(|id| {
            let shape = pass.values[id.0].shape();
            match &nodes[id.0] {
                Some(values) => tensor(shape, values.clone()),
                None => Tensor::zeros(shape),
            }
        })
        .collect();
    let params = params
        .into_iter()
        .zip(&graph.params)
        .map(|(values, param)| values.map(|values| tensor(&param.shape, values)))
        .collect();
    Ok(Gradients { inputs, params })
}

fn is_differentiable(parameter: &str) -> bool {
    !matches!(parameter, "moving_mean" | "moving_variance")
}

fn add(sum: &mut Option<Vec<f32>>, values: &[f32]) {
    match sum {
        Some(sum) => sum.iter_mut().zip(values).for_each(|(sum, value)| *sum += value),
        None => *sum = Some(values.to_vec()),
    }
}

struct Backward<'a> {
    graph: &'a Graph,
    weights: &'a [Tensor],
    pass: &'a Forward,
    /// Sums of the gradients with respect to each node's result.
    nodes: Vec<Option<Vec<f32>>>,
    params: Vec<Option<Vec<f32>>>,
}

impl Backward<'_> {
    /// Adds a gradient with respect to a parameter of a node's layer.
    fn param(&mut self, id: NodeId, index: usize, values: &[f32]) {
        let param = self.graph.layer_of(id).params[index];
        add(&mut self.params[param.0], values);
    }

    /// Passes a node's gradient (before its activation) on to its inputs and parameters.
    fn node(&mut self, id: NodeId, gradient: &[f32]) {
        let (graph, pass, weights) = (self.graph, self.pass, self.weights);
        let node = graph.node(id);
        let layer = graph.layer_of(id);
        let Some(&input) = node.inputs.first() else { return };
        let x = elements(&pass.values[input.0]);
        let input_shape = &graph.node(input).shape;
        let channels = input_shape.last().copied().unwrap_or(1);
        let batch = pass.values[id.0].shape()[0];
        let weight = |index: usize| elements(&weights[layer.params[index].0]);
        match &layer.kind {
            LayerKind::Input { .. } => {}
            LayerKind::Dense(dense) => {
                let (dx, dkernel) = conv::dense_backward(&x, channels, &weight(0), dense.units, gradient);
                self.param(id, 0, &dkernel);
                if dense.use_bias {
                    self.param(id, 1, &column_sums(gradient, dense.units));
                }
                add(&mut self.nodes[input.0], &dx);
            }
            LayerKind::Conv(kind) => {
                // The forward pass checked the geometry.
                let Some(axes) = graph.axes(id) else { return };
                let (dx, dkernel) = Convolution::new(kind, axes, channels).backward(&x, &weight(0), gradient);
                self.param(id, 0, &dkernel);
                if kind.use_bias {
                    self.param(id, 1, &column_sums(gradient, kind.filters));
                }
                add(&mut self.nodes[input.0], &dx);
            }
            LayerKind::Pool(kind) => {
                let Some(axes) = graph.axes(id) else { return };
                add(&mut self.nodes[input.0], &pool::backward(kind.mode, &axes, channels, &x, gradient));
            }
            LayerKind::GlobalPool { mode, .. } => {
                let positions = input_shape[..input_shape.len() - 1].iter().product();
                let dx = pool::global_backward(*mode, channels, positions, &x, gradient);
                add(&mut self.nodes[input.0], &dx);
            }
            LayerKind::Flatten | LayerKind::Reshape { .. } | LayerKind::Activation(_) => {
                add(&mut self.nodes[input.0], gradient);
            }
            LayerKind::ZeroPadding { rank, padding } => {
                let Some((cells, channels)) = spatial(input_shape, *rank) else { return };
                let mut dx = vec![0.0; x.len()];
                padded_rows(cells, *padding, channels, batch, |from, to, length| {
                    dx[from..from + length].copy_from_slice(&gradient[to..to + length]);
                });
                add(&mut self.nodes[input.0], &dx);
            }
            LayerKind::Dropout { .. } => match &pass.memory[id.0] {
                Memory::Mask(mask) => {
                    let dx: Vec<f32> = gradient.iter().zip(mask).map(|(gradient, factor)| gradient * factor).collect();
                    add(&mut self.nodes[input.0], &dx);
                }
                _ => add(&mut self.nodes[input.0], gradient),
            },
            LayerKind::Add => {
                for input in &node.inputs {
                    let dx = folded(gradient, &with_batch(batch, &node.shape), pass.values[input.0].shape());
                    add(&mut self.nodes[input.0], &dx);
                }
            }
            LayerKind::Multiply => self.multiply(id, gradient),
            LayerKind::Concatenate { axis } => {
                let Some(along) = concatenate_axis(*axis, node.shape.len()) else { return };
                let gradient = tensor(&with_batch(batch, &node.shape), gradient.to_vec());
                let mut first = 0;
                for input in &node.inputs {
                    let size = graph.node(*input).shape[along];
                    let part = gradient.slice_axis(ndarray::Axis(along + 1), (first..first + size).into());
                    let part: Vec<f32> = part.iter().copied().collect();
                    add(&mut self.nodes[input.0], &part);
                    first += size;
                }
            }
            LayerKind::BatchNormalization(norm) => {
                let Memory::Normalized(normalized) = &pass.memory[id.0] else { return };
                let gamma = norm.scale.then(|| weight(0));
                let [dx, dgamma, dbeta] = normalized.backward(&x, gamma.as_deref(), gradient);
                if norm.scale {
                    self.param(id, 0, &dgamma);
                }
                if norm.center {
                    self.param(id, usize::from(norm.scale), &dbeta);
                }
                add(&mut self.nodes[input.0], &dx);
            }
        }
    }

    /// Each factor's gradient is the product of the others, summed over where it was stretched.
    fn multiply(&mut self, id: NodeId, gradient: &[f32]) {
        let node = self.graph.node(id);
        let shape = self.pass.values[id.0].shape();
        let factors: Vec<Tensor> = node
            .inputs
            .iter()
            .map(|input| {
                let values = &self.pass.values[input.0];
                tensor(&aligned_shape(values.shape(), shape.len()), elements(values).into_owned())
            })
            .collect();
        for (index, input) in node.inputs.iter().enumerate() {
            let mut product = tensor(shape, gradient.to_vec());
            for (_, factor) in factors.iter().enumerate().filter(|(other, _)| *other != index) {
                product *= factor;
            }
            let dx = folded(&elements(&product), shape, self.pass.values[input.0].shape());
            add(&mut self.nodes[input.0], &dx);
        }
    }
}

/// The opposite of stretching: sums over the dimensions in which an input of shape `input` was stretched to `shape`.
fn folded(gradient: &[f32], shape: &[usize], input: &[usize]) -> Vec<f32> {
    if shape == input {
        return gradient.to_vec();
    }
    let aligned = aligned_shape(input, shape.len());
    let mut sums = vec![0.0_f64; aligned.iter().product()];
    let mut index = vec![0_usize; shape.len()];
    for value in gradient {
        let place = aligned.iter().zip(&index).fold(0, |place, (size, index)| place * size + index.min(&(size - 1)));
        sums[place] += f64::from(*value);
        for axis in (0..shape.len()).rev() {
            index[axis] += 1;
            if index[axis] < shape[axis] {
                break;
            }
            index[axis] = 0;
        }
    }
    sums.iter().map(|sum| *sum as f32).collect()
}
