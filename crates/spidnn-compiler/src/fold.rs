//! Folding of batch normalisation into the layer before it, for inference.
//!
//! With `s = gamma / sqrt(variance + epsilon)` a convolution or dense layer followed by the normalisation is one with kernel
//! `kernel * s` (by output channel) and bias `beta + (bias - mean) * s`. The predict program reads such folded parameters;
//! the host computes them from the model's own whenever these change. Kernels are brought to mantissas and exponents by the
//! host, too, by the same arithmetic as on a core: so a core fetches them ready for use.

use spidnn_graph::{Activation, Graph, LayerKind, NodeId, ParamId, Tensor};
use spidnn_kernels::call::Prep2d;

use crate::stage::Mantissas;
use crate::stage::dense::BLOCK_TERMS;

/// A parameter of the predict program: where it comes from, and its form.
#[derive(Debug, Clone, PartialEq)]
pub struct InferenceParam {
    /// What it is computed from.
    pub source: Source,
    /// Kernels are prepared (see [`Prepared`]); everything else is f32.
    pub prepared: Option<Prepared>,
}

/// A kernel as mantissas `[terms][outputs]` (of format `bfp16` two terms to a word), and behind them the exponents `[blocks][outputs]`,
/// one row for each block of terms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prepared {
    /// Terms of a sum.
    pub terms: u32,
    /// Outputs.
    pub outputs: u32,
    /// Terms of a block at most.
    pub block: u32,
    /// Terms that are joined two by two: all of a block, or the input channels of a tap.
    pub group: u32,
    /// What the mantissas are.
    pub mantissas: Mantissas,
}

impl Prepared {
    /// The form of a layer's kernel, if the layer is a product.
    pub fn of(graph: &Graph, kernel: ParamId, mantissas: Mantissas) -> Option<Prepared> {
        let param = &graph.params[kernel.0];
        if param.name != "kernel" && param.name != "depthwise_kernel" {
            return None;
        }
        let all: usize = param.shape.iter().product();
        let (outputs, block, group) = match &graph.layers[param.layer.0].kind {
            LayerKind::Dense(_) => (*param.shape.last()?, BLOCK_TERMS, BLOCK_TERMS as usize),
            LayerKind::Conv(c) if c.depthwise => (param.shape.iter().rev().take(2).product(), u32::MAX, 1),
            LayerKind::Conv(_) => (*param.shape.last()?, u32::MAX, param.shape[param.shape.len() - 2]),
            _ => return None,
        };
        let terms = (all / outputs.max(1)) as u32;
        Some(Prepared { terms, outputs: outputs as u32, block, group: group as u32, mantissas })
    }

    fn blocks(&self) -> Vec<(u32, u32)> {
        self.mantissas.blocks(self.terms, self.block)
    }

    /// Rows of words of so many terms.
    fn rows(&self, terms: u32) -> u32 {
        terms / self.group * self.mantissas.words(self.group) + self.mantissas.words(terms % self.group)
    }

    /// Words of mantissas; the exponents follow.
    pub fn mantissa_words(&self) -> u32 {
        self.rows(self.terms) * self.outputs
    }

    /// Words in all.
    pub fn words(&self) -> u32 {
        self.mantissa_words() + self.blocks().len() as u32 * self.outputs
    }

    /// Mantissas and exponents of a kernel.
    fn prepare(&self, values: &[f32]) -> Vec<u32> {
        // The values, and what is made of them behind.
        let mut words: Vec<u32> = values.iter().map(|v| v.to_bits()).collect();
        let made = words.len() as u32;
        words.resize((made + self.words()) as usize, 0);
        for (b, (first, rows)) in self.blocks().into_iter().enumerate() {
            let call = Prep2d {
                src: first * self.outputs * 4,
                rows,
                cols: self.outputs,
                src_stride: self.outputs,
                dst: (made + self.rows(first) * self.outputs) * 4,
                dst_row_stride: self.outputs,
                dst_col_stride: 1,
                exps: (made + self.mantissa_words() + b as u32 * self.outputs) * 4,
                axis: 2,
            };
            self.mantissas.prepare(call, self.group).run(&mut words);
        }
        words.split_off(made as usize)
    }
}

/// What a parameter of the predict program is computed from.
#[derive(Debug, Clone, PartialEq)]
pub enum Source {
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
    /// The parameter in the form that its layer takes.
    pub(crate) fn new(graph: &Graph, source: Source, mantissas: Mantissas) -> InferenceParam {
        let prepared = match &source {
            Source::Plain(p) => Prepared::of(graph, *p, mantissas),
            Source::Kernel { kernel, .. } => Prepared::of(graph, *kernel, mantissas),
            Source::Bias { .. } => None,
        };
        InferenceParam { source, prepared }
    }

    /// Words of the parameter.
    pub fn words(&self, graph: &Graph) -> usize {
        match (&self.prepared, &self.source) {
            (Some(prepared), _) => prepared.words() as usize,
            (None, Source::Plain(p) | Source::Kernel { kernel: p, .. }) => graph.params[p.0].shape.iter().product(),
            (None, Source::Bias { norm, .. }) => graph.params[norm.mean.0].shape.iter().product(),
        }
    }

    /// Its words, from the model's parameters (in `get_weights` order).
    pub fn contents(&self, weights: &[Tensor]) -> Vec<u32> {
        let values = self.source.values(weights);
        match &self.prepared {
            Some(prepared) => prepared.prepare(&values),
            None => values.iter().map(|v| v.to_bits()).collect(),
        }
    }
}

impl Source {
    /// Values, row-major, from the model's parameters. Computed in f64, rounded once.
    pub(crate) fn values(&self, weights: &[Tensor]) -> Vec<f32> {
        match self {
            Source::Plain(p) => weights[p.0].iter().copied().collect(),
            Source::Kernel { kernel, norm } => {
                let scale = norm.scale(weights);
                let channels = scale.len();
                weights[kernel.0]
                    .iter()
                    .enumerate()
                    .map(|(i, &w)| (f64::from(w) * scale[i % channels]) as f32)
                    .collect()
            }
            Source::Bias { bias, norm } => {
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
pub fn inference_params(graph: &Graph, mantissas: Mantissas) -> Vec<InferenceParam> {
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
                params.push(InferenceParam::new(graph, Source::Kernel { kernel, norm }, mantissas));
                let bias = Source::Bias { bias: layer.params.get(1).copied(), norm };
                params.push(InferenceParam::new(graph, bias, mantissas));
            }
            None => {
                params.extend(layer.params.iter().map(|&p| InferenceParam::new(graph, Source::Plain(p), mantissas)))
            }
        }
    }
    params
}
