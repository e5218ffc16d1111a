//! Folding of batch normalisation into the layer before it, for inference.
//!
//! With `s = gamma / sqrt(variance + epsilon)` a convolution or dense layer followed by the normalisation is one with kernel
//! `kernel * s` (by output channel) and bias `beta + (bias - mean) * s`. The predict program reads such folded parameters;
//! the host computes them from the model's own whenever these change.

use spidnn_graph::{Activation, Graph, LayerKind, NodeId, ParamId, Tensor};

/// A parameter of the predict program.
#[derive(Debug, Clone, PartialEq)]
pub enum InferenceParam {
    /// As it is.
    Plain(ParamId),
    /// The kernel of a layer with the normalisation that follows it.
    Kernel {
        /// The layer's kernel.
        kernel: ParamId,
        /// The normalisation.
        norm: Norm,
    },
    /// The bias of a layer with the normalisation that follows it.
    Bias {
        /// The layer's bias, if it has one.
        bias: Option<ParamId>,
        /// The normalisation.
        norm: Norm,
    },
}

/// Parameters of a batch normalisation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Norm {
    /// Scale.
    pub gamma: Option<ParamId>,
    /// Shift.
    pub beta: Option<ParamId>,
    /// Moving mean.
    pub mean: ParamId,
    /// Moving variance.
    pub variance: ParamId,
    /// Keras' epsilon.
    pub epsilon: f32,
}

impl Norm {
    /// The parameters of a BatchNormalization layer, by their names.
    pub fn of(graph: &Graph, node: NodeId) -> Option<Norm> {
        let layer = &graph.layers[graph.nodes[node.0].layer.0];
        let LayerKind::BatchNormalization(kind) = &layer.kind else { return None };
        let named = |name: &str| layer.params.iter().copied().find(|p| graph.params[p.0].name == name);
        Some(Norm {
            gamma: named("gamma"),
            beta: named("beta"),
            mean: named("moving_mean")?,
            variance: named("moving_variance")?,
            epsilon: kind.epsilon,
        })
    }

    /// `gamma / sqrt(variance + epsilon)` of each channel, in f64.
    fn scale(&self, weights: &[Tensor]) -> Vec<f64> {
        weights[self.variance.0]
            .iter()
            .enumerate()
            .map(|(c, &v)| {
                let gamma = self.gamma.map_or(1.0, |g| f64::from(element(&weights[g.0], c)));
                gamma / (f64::from(v) + f64::from(self.epsilon)).sqrt()
            })
            .collect()
    }
}

fn element(tensor: &Tensor, i: usize) -> f32 {
    tensor.iter().nth(i).copied().unwrap_or_default()
}

impl InferenceParam {
    /// Words of the parameter.
    pub fn words(&self, graph: &Graph) -> usize {
        match self {
            InferenceParam::Plain(p) => graph.params[p.0].shape.iter().product(),
            InferenceParam::Kernel { kernel, .. } => graph.params[kernel.0].shape.iter().product(),
            InferenceParam::Bias { norm, .. } => graph.params[norm.mean.0].shape.iter().product(),
        }
    }

    /// Its values, row-major, from the model's parameters (in `get_weights` order). Computed in f64, rounded once.
    pub fn values(&self, weights: &[Tensor]) -> Vec<f32> {
        match self {
            InferenceParam::Plain(p) => weights[p.0].iter().copied().collect(),
            InferenceParam::Kernel { kernel, norm } => {
                let scale = norm.scale(weights);
                let channels = scale.len();
                weights[kernel.0]
                    .iter()
                    .enumerate()
                    .map(|(i, &w)| (f64::from(w) * scale[i % channels]) as f32)
                    .collect()
            }
            InferenceParam::Bias { bias, norm } => {
                let mean: Vec<f32> = weights[norm.mean.0].iter().copied().collect();
                norm.scale(weights)
                    .iter()
                    .enumerate()
                    .map(|(c, s)| {
                        let bias = bias.map_or(0.0, |b| f64::from(element(&weights[b.0], c)));
                        let beta = norm.beta.map_or(0.0, |b| f64::from(element(&weights[b.0], c)));
                        (beta + (bias - f64::from(mean[c])) * s) as f32
                    })
                    .collect()
            }
        }
    }
}

/// For each node, the normalisation node that is folded into it.
pub fn folded_norms(graph: &Graph) -> Vec<Option<NodeId>> {
    let mut users = vec![0usize; graph.nodes.len()];
    let mut calls = vec![0usize; graph.layers.len()];
    for node in &graph.nodes {
        calls[node.layer.0] += 1;
        for input in &node.inputs {
            users[input.0] += 1;
        }
    }
    for output in &graph.outputs {
        users[output.0] += 1;
    }
    let mut folded = vec![None; graph.nodes.len()];
    for (i, node) in graph.nodes.iter().enumerate() {
        let LayerKind::BatchNormalization(_) = graph.layers[node.layer.0].kind else { continue };
        let before = node.inputs[0];
        let layer = graph.nodes[before.0].layer;
        let linear = match &graph.layers[layer.0].kind {
            LayerKind::Conv(c) => c.activation == Activation::Linear,
            LayerKind::Dense(d) => d.activation == Activation::Linear,
            _ => false,
        };
        if linear && users[before.0] == 1 && calls[layer.0] == 1 {
            folded[before.0] = Some(NodeId(i));
        }
    }
    folded
}

/// Parameters of the predict program, in order.
pub fn inference_params(graph: &Graph) -> Vec<InferenceParam> {
    let folded = folded_norms(graph);
    let norm_nodes: Vec<NodeId> = folded.iter().flatten().copied().collect();
    let mut params = Vec::new();
    for (l, layer) in graph.layers.iter().enumerate() {
        let node = graph.nodes.iter().position(|n| n.layer.0 == l);
        if node.is_some_and(|n| norm_nodes.contains(&NodeId(n))) {
            continue;
        }
        match node.and_then(|n| folded[n]).and_then(|n| Norm::of(graph, n)) {
            Some(norm) => {
                let kernel = layer.params[0];
                params.push(InferenceParam::Kernel { kernel, norm });
                params.push(InferenceParam::Bias { bias: layer.params.get(1).copied(), norm });
            }
            None => params.extend(layer.params.iter().map(|&p| InferenceParam::Plain(p))),
        }
    }
    params
}
