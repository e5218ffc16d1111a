//! From layers to stages: buffers in SDRAM, fusion of activations and losses, and the backward pass.

mod int8;

pub use int8::{ByteValue, LayerForm};

use int8::Bytes;
use spidnn_graph::layer::PoolMode;
use spidnn_graph::training::{Clip, Loss, Rule};
use spidnn_graph::{Activation, Graph, LayerKind, NodeId};
use spidnn_kernels as kernels;

use crate::emit::Tensor;
use crate::fold::{self, InferenceParam, Norm, Source};
use crate::plan::{Buffer, ByteInput, Format, OptimizerState, Options};
use crate::stage::conv::{Axis, ConvGradient, ConvGradientSum, ConvProduct, ConvShape};
use crate::stage::dense::{DenseGradient, DensePartial, DensePartialSum, DenseProduct};
use crate::stage::elementwise::{
    ChannelScale, ChannelScaleGradient, DropoutStage, LossStage, MoveRows, RowOperation, RowStage, Zero,
};
use crate::stage::norm::{
    NormFinish, NormGradient, NormGradientFinish, NormGradientSums, NormPlan, NormSums, Statistic,
};
use crate::stage::phase::Phase;
use crate::stage::pool::{PoolGradient, PoolShape, PoolStage};
use crate::stage::update::{ExchangeStage, GlobalNormStage, NormStage, OptimizerStage, Trained, Way};
use crate::stage::{FusedActivation, Mantissas, Stage};
use crate::{CompileError, Program};

/// Application cores of a chip at most.
pub const CORES_MAX: u32 = 17;

/// Allocation of a chip's SDRAM.
#[derive(Debug, Clone)]
pub struct Memory {
    next: u64,
    /// Bytes by purpose, in order of first use.
    pub used: Vec<(String, u64)>,
}

impl Memory {
    /// From an address on.
    pub fn new(base: u32) -> Memory {
        Memory { next: base.into(), used: Vec::new() }
    }
    /// Takes words; the address is valid only if [`Memory::end`] stays inside the chip's memory (checked at the end).
    pub fn words(&mut self, purpose: &str, words: u64) -> u32 {
        let at = self.next;
        let bytes = (words * 4).next_multiple_of(16);
        self.next += bytes;
        match self.used.iter_mut().find(|(p, _)| p == purpose) {
            Some((_, total)) => *total += bytes,
            None => self.used.push((purpose.into(), bytes)),
        }
        at.min(u64::from(u32::MAX - 15)) as u32 & !3
    }
    /// First address that is free.
    pub fn end(&self) -> u64 {
        self.next
    }
}

/// What all programs share, and the stages of each.
#[derive(Debug)]
pub struct Lowered {
    /// Phases of each program that was asked for.
    pub programs: Vec<(Program, Vec<Phase>)>,
    /// Model inputs, two sets.
    pub inputs: [Vec<Buffer>; 2],
    /// Inputs that come as bytes.
    pub input_bytes: Vec<Option<ByteInput>>,
    /// Targets, two sets.
    pub targets: [Vec<Buffer>; 2],
    /// Sample weights, two sets.
    pub sample_weights: [Buffer; 2],
    /// Losses.
    pub losses: Vec<Buffer>,
    /// Outputs.
    pub outputs: Vec<Buffer>,
    /// Parameters.
    pub params: Vec<Buffer>,
    /// Optimizer state.
    pub optimizer_state: Vec<OptimizerState>,
    /// Parameters of the predict program.
    pub inference_params: Vec<Buffer>,
    /// Contents of the inference parameters, where the compiler makes them (format `int8`).
    pub constants: Option<Vec<Vec<u32>>>,
    /// What the layers of the predict program became (format `int8`).
    pub forms: Vec<LayerForm>,
    /// Values of its nodes, where they are bytes.
    pub bytes: Vec<Option<ByteValue>>,
    /// Values of its nodes, where they are numbers.
    pub numbers: Vec<Option<Tensor>>,
    /// Run block.
    pub run_block: u32,
    /// Memory taken.
    pub memory: Memory,
    /// Layers with the most bytes of activations, for errors.
    pub largest: (String, u64),
}

/// Facts that lowering needs beside the graph.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Samples of a chip in one run.
    pub samples_max: u32,
    /// Replicas.
    pub replicas: u32,
    /// Cores of every chip that take part in exchanges.
    pub exchange_slots: u32,
    /// Cycles that the slowest link between replicas takes for a word.
    pub link_cycles: u32,
    /// First SDRAM address.
    pub base: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Predict,
    Evaluate,
    Train,
}

/// Number and parameter of an element-wise activation; `None` for softmax.
fn elementwise(activation: Activation) -> Option<FusedActivation> {
    use kernels::Activation as K;
    let (kind, alpha) = match activation {
        Activation::Linear => (K::Linear, 0.0),
        Activation::Relu => (K::Relu, 0.0),
        Activation::ClippedRelu { max_value } => (K::ClippedRelu, max_value),
        Activation::LeakyRelu { negative_slope } => (K::LeakyRelu, negative_slope),
        Activation::Elu { alpha } => (K::Elu, alpha),
        Activation::Selu => (K::Selu, 0.0),
        Activation::Sigmoid => (K::Sigmoid, 0.0),
        Activation::HardSigmoid => (K::HardSigmoid, 0.0),
        Activation::Tanh => (K::Tanh, 0.0),
        Activation::Softplus => (K::Softplus, 0.0),
        Activation::Softsign => (K::Softsign, 0.0),
        Activation::Silu => (K::Silu, 0.0),
        Activation::Gelu { approximate: false } => (K::Gelu, 0.0),
        Activation::Gelu { approximate: true } => (K::GeluTanh, 0.0),
        Activation::Exponential => (K::Exponential, 0.0),
        Activation::Softmax => return None,
    };
    Some(FusedActivation { kind, alpha })
}

/// Where a parameter is read and where its gradient goes.
#[derive(Debug, Clone, Copy)]
struct ParamPlace {
    address: u32,
    gradient: Option<u32>,
}

/// The value of a node during lowering.
#[derive(Debug, Clone, Copy)]
struct Value {
    /// The node's output.
    tensor: Tensor,
    /// Input of the activation, where it is kept apart (softmax, activations whose derivative needs it).
    before_activation: Option<Tensor>,
}

struct Pass<'a> {
    graph: &'a Graph,
    target: Target,
    mode: Mode,
    phases: Vec<Phase>,
    /// Gradients of weights, which nothing of the backward pass waits for, and the sums of their parts.
    late: Late,
    memory: &'a mut Memory,
    places: Vec<ParamPlace>,
    values: Vec<Option<Value>>,
    outputs: Vec<Tensor>,
    /// Output nodes whose activation the loss stage computes.
    activation_in_loss: Vec<bool>,
    /// Per node: plan of its batch normalisation in training.
    norms: Vec<Option<NormPlan>>,
    /// Operands of products.
    mantissas: Mantissas,
    /// Predictions in bytes.
    bytes: Option<Bytes<'a>>,
    largest: (String, u64),
}

fn words(shape: &[usize]) -> u32 {
    shape.iter().product::<usize>() as u32
}

/// Positions and channels of a shape.
fn rows_and_columns(shape: &[usize]) -> (u32, u32) {
    let columns = shape.last().copied().unwrap_or(1) as u32;
    (words(shape) / columns.max(1), columns)
}

/// Stages of the backward pass that only the end of the step needs.
#[derive(Default)]
struct Late {
    convolutions: Vec<ConvGradient>,
    dense: Vec<DenseGradient>,
}

impl<'a> Pass<'a> {
    /// Adds the gradients that were put off: one phase for all of them, and one for the sums of their parts.
    fn push_late(&mut self) {
        let Late { convolutions, mut dense } = std::mem::take(&mut self.late);
        // What can be dealt finely comes last, the most of it at the end.
        dense.sort_by_key(Stage::macs_per_sample);
        let mut stages: Vec<Box<dyn Stage>> = Vec::new();
        let mut sums: Vec<Box<dyn Stage>> = Vec::new();
        for of in convolutions {
            stages.push(Box::new(of.clone()));
            sums.push(Box::new(ConvGradientSum { of }));
        }
        for gradient in dense {
            stages.push(Box::new(gradient));
        }
        for stages in [stages, sums] {
            if !stages.is_empty() {
                self.phases.push(Phase { stages });
            }
        }
    }

    fn layer_name(&self, node: usize) -> String {
        self.graph.layers[self.graph.nodes[node].layer.0].name.clone()
    }

    fn tensor(&mut self, purpose: &str, layer: &str, words: u32) -> Tensor {
        let all = u64::from(words) * u64::from(self.target.samples_max);
        if all * 4 > self.largest.1 {
            self.largest = (layer.into(), all * 4);
        }
        Tensor::new(self.memory.words(purpose, all), words)
    }

    /// The output tensor of a node: the model's output buffer if it is one.
    fn output_of(&mut self, node: usize) -> Tensor {
        match self.graph.outputs.iter().position(|o| o.0 == node) {
            Some(i) => self.outputs[i],
            None => {
                let name = self.layer_name(node);
                self.tensor("activations", &name, words(&self.graph.nodes[node].shape))
            }
        }
    }

    fn value(&self, node: NodeId) -> Tensor {
        self.values[node.0].expect("nodes are in execution order").tensor
    }

    fn push(&mut self, stage: impl Stage + 'static) {
        self.phases.push(Phase::of(stage));
    }

    fn unsupported(&self, node: usize, what: &str, remedy: &str) -> CompileError {
        CompileError::Unsupported { layer: self.layer_name(node), what: what.into(), remedy: remedy.into() }
    }

    fn place(&self, node: usize, index: usize) -> ParamPlace {
        let layer = &self.graph.layers[self.graph.nodes[node].layer.0];
        self.places[layer.params[index].0]
    }

    fn axis(&self, node: usize, axis: &spidnn_graph::geometry::Axis) -> Result<Axis, CompileError> {
        let _ = node;
        Ok(Axis {
            input: axis.input as u32,
            output: axis.output as u32,
            kernel: axis.kernel as u32,
            stride: axis.stride as u32,
            dilation: axis.dilation as u32,
            pad: axis.pad_before as i32,
        })
    }

    /// Shape of a convolution; one-dimensional ones run along the rows.
    fn conv_shape(&self, node: usize) -> Result<ConvShape, CompileError> {
        let n = &self.graph.nodes[node];
        let LayerKind::Conv(c) = &self.graph.layers[n.layer.0].kind else { unreachable!("called for convolutions") };
        let shape = &self.graph.nodes[n.inputs[0].0].shape;
        let along = |i: usize, input: usize| {
            spidnn_graph::geometry::Axis::new(input, c.kernel_size[i], c.strides[i], c.dilation_rate[i], c.padding)
                .ok_or_else(|| {
                    self.unsupported(node, "a window larger than its input", "pad the input or use a smaller kernel")
                })
        };
        let unit = spidnn_graph::geometry::Axis::UNIT;
        let (y, x) = if c.rank == 1 { (along(1, shape[0])?, unit) } else { (along(0, shape[0])?, along(1, shape[1])?) };
        let in_channels = *shape.last().unwrap_or(&1) as u32;
        Ok(ConvShape {
            y: self.axis(node, &y)?,
            x: self.axis(node, &x)?,
            in_channels,
            out_channels: *n.shape.last().unwrap_or(&1) as u32,
            groups: if c.depthwise { in_channels } else { c.groups as u32 },
        })
    }

    fn pool_shape(&self, node: usize) -> Result<PoolShape, CompileError> {
        let n = &self.graph.nodes[node];
        let shape = &self.graph.nodes[n.inputs[0].0].shape;
        let channels = *shape.last().unwrap_or(&1) as u32;
        let geometry = |rank: usize, size: [usize; 2], strides: [usize; 2], padding| {
            let along = |i: usize, input: usize| {
                spidnn_graph::geometry::Axis::new(input, size[i], strides[i], 1, padding)
                    .ok_or_else(|| self.unsupported(node, "a window larger than its input", "use a smaller pool size"))
            };
            let unit = spidnn_graph::geometry::Axis::UNIT;
            Ok::<_, CompileError>(if rank == 1 {
                (along(1, shape[0])?, unit)
            } else {
                (along(0, shape[0])?, along(1, shape[1])?)
            })
        };
        let ((y, x), mode) = match &self.graph.layers[n.layer.0].kind {
            LayerKind::Pool(p) => (geometry(p.rank, p.pool_size, p.strides, p.padding)?, p.mode),
            LayerKind::GlobalPool { rank, mode, .. } => {
                let size = if *rank == 1 { [1, shape[0]] } else { [shape[0], shape[1]] };
                (geometry(*rank, size, [1, 1], spidnn_graph::Padding::Valid)?, *mode)
            }
            _ => unreachable!("called for pooling"),
        };
        Ok(PoolShape {
            y: self.axis(node, &y)?,
            x: self.axis(node, &x)?,
            channels,
            mode: match mode {
                PoolMode::Max => 0,
                PoolMode::Average => 1,
            },
        })
    }

    /// Chooses what is fused with a layer's own activation: what the product stage does, and what follows it.
    fn split_activation(&self, activation: Activation) -> (FusedActivation, Option<Activation>) {
        match elementwise(activation) {
            Some(fused) if self.mode != Mode::Train || !fused.kind.saves_input() => (fused, None),
            _ => (FusedActivation::LINEAR, Some(activation)),
        }
    }

    /// The stage(s) of an activation that stands apart.
    fn apply_activation(&mut self, node: usize, activation: Activation, x: Tensor, y: Tensor) {
        let name = self.layer_name(node);
        match elementwise(activation) {
            Some(fused) => {
                self.push(RowStage::elements(&name, "activation", RowOperation::Activation(fused), vec![x], y));
            }
            None => {
                let (rows, columns) = rows_and_columns(&self.graph.nodes[node].shape);
                self.push(RowStage {
                    layer: name,
                    what: "activation",
                    operation: RowOperation::Softmax,
                    inputs: vec![x],
                    output: y,
                    rows_per_sample: rows,
                    columns,
                });
            }
        }
    }

    /// A product layer (Dense, Conv): `emit` gets the fused activation and the tensor to write.
    fn product(
        &mut self,
        node: usize,
        last: usize,
        activation: Activation,
        emit: impl FnOnce(&mut Self, FusedActivation, Tensor) -> Result<(), CompileError>,
    ) -> Result<(), CompileError> {
        let (fused, apart) = if self.activation_in_loss[last] {
            (FusedActivation::LINEAR, Some(activation))
        } else {
            self.split_activation(activation)
        };
        let y = self.output_of(last);
        let mut before_activation = None;
        match apart {
            None => emit(self, fused, y)?,
            Some(activation) => {
                let name = self.layer_name(node);
                let z = self.tensor("activations", &name, y.words);
                emit(self, fused, z)?;
                before_activation = Some(z);
                if !self.activation_in_loss[last] {
                    self.apply_activation(last, activation, z, y);
                }
            }
        }
        for n in [node, last] {
            self.values[n] = Some(Value { tensor: y, before_activation });
        }
        Ok(())
    }

    fn forward(&mut self, inference: &[InferenceParam], inference_places: &[Buffer]) -> Result<(), CompileError> {
        let graph = self.graph;
        let folded = if self.mode == Mode::Predict { fold::folded_norms(graph) } else { vec![None; graph.nodes.len()] };
        // Address of a parameter of the predict program, and of its exponents where it is prepared.
        let place = |source: Source| {
            let i = inference.iter().position(|q| q.source == source)?;
            let address = inference_places[i].address;
            Some((address, inference[i].prepared.map(|p| address + p.mantissa_words() * 4)))
        };
        for (i, node) in graph.nodes.iter().enumerate() {
            let is_bytes =
                |pass: &Self| pass.bytes.as_ref().is_some_and(|b| b.values[i].is_some() || b.inside.contains(&i));
            if self.values[i].is_some() || is_bytes(self) {
                // Folded into an earlier node.
                continue;
            }
            if self.bytes.is_some() {
                if self.forward_bytes(i, folded[i])? {
                    continue;
                }
                node.inputs.iter().for_each(|&x| self.numbers_of(x));
            }
            let layer = &graph.layers[node.layer.0];
            let name = layer.name.clone();
            let sources: Vec<Source> = match folded[i].and_then(|n| Norm::of(graph, n)) {
                Some(norm) => vec![
                    Source::Kernel { kernel: layer.params[0], norm },
                    Source::Bias { bias: layer.params.get(1).copied(), norm },
                ],
                None => layer.params.iter().map(|&p| Source::Plain(p)).collect(),
            };
            let (params, prepared): (Vec<u32>, Vec<Option<u32>>) = if self.bytes.is_some() {
                sources.into_iter().map(|source| self.number_param(source)).unzip()
            } else if self.mode == Mode::Predict {
                // A folded normalisation has no parameters of its own, and no stage.
                sources.into_iter().filter_map(place).unzip()
            } else {
                layer.params.iter().map(|p| (self.places[p.0].address, None)).unzip()
            };
            let prepared = prepared.first().copied().flatten();
            let last = folded[i].map_or(i, |n| n.0);
            match &layer.kind {
                LayerKind::Input { .. } => unreachable!("inputs have their values"),
                LayerKind::Dense(d) => {
                    let a = self.value(node.inputs[0]);
                    let shape = &graph.nodes[node.inputs[0].0].shape;
                    let (rows, terms) = rows_and_columns(shape);
                    self.product(i, last, d.activation, |pass, activation, c| {
                        let product = DenseProduct {
                            layer: name,
                            what: "forward",
                            a,
                            c,
                            mantissas: pass.mantissas,
                            rows_per_sample: rows,
                            terms,
                            outputs: d.units as u32,
                            weights: params[0],
                            prepared_exponents: prepared,
                            transposed: false,
                            bias: params.get(1).copied(),
                            activation,
                        };
                        if DensePartial::suits(terms, product.outputs) {
                            let words = DensePartial::partial_words(&product, pass.target.samples_max);
                            let partials = pass.memory.words("partial sums", words);
                            let of = DensePartial { product, partials };
                            pass.push(of.clone());
                            pass.push(DensePartialSum { of });
                        } else {
                            pass.push(product);
                        }
                        Ok(())
                    })?;
                }
                LayerKind::Conv(c) => {
                    let x = self.value(node.inputs[0]);
                    let shape = self.conv_shape(i)?;
                    self.product(i, last, c.activation, |pass, activation, y| {
                        pass.push(ConvProduct {
                            layer: name,
                            shape,
                            backward: false,
                            mantissas: pass.mantissas,
                            x,
                            y,
                            weights: params[0],
                            prepared_exponents: prepared,
                            bias: params.get(1).copied(),
                            activation,
                        });
                        Ok(())
                    })?;
                }
                LayerKind::Pool(_) | LayerKind::GlobalPool { .. } => {
                    let x = self.value(node.inputs[0]);
                    let shape = self.pool_shape(i)?;
                    let y = self.output_of(i);
                    self.push(PoolStage { layer: name, shape, x, y });
                    self.set(i, y);
                }
                LayerKind::Flatten | LayerKind::Reshape { .. } => self.alias(i, node.inputs[0]),
                LayerKind::Dropout { rate, .. } => {
                    if self.mode == Mode::Train && *rate > 0.0 {
                        let input = self.value(node.inputs[0]);
                        let output = self.output_of(i);
                        self.push(DropoutStage {
                            layer: name,
                            what: "forward",
                            input,
                            output,
                            rate: *rate,
                            stream: node.layer.0 as u32,
                        });
                        self.set(i, output);
                    } else {
                        self.alias(i, node.inputs[0]);
                    }
                }
                LayerKind::Activation(activation) => {
                    let x = self.value(node.inputs[0]);
                    let y = self.output_of(i);
                    if !self.activation_in_loss[i] {
                        self.apply_activation(i, *activation, x, y);
                    }
                    self.values[i] = Some(Value { tensor: y, before_activation: Some(x) });
                }
                LayerKind::ZeroPadding { rank, padding } => {
                    let x = self.value(node.inputs[0]);
                    let y = self.output_of(i);
                    self.push(Zero { layer: name.clone(), what: "padding", output: y });
                    let place = Padded::new(graph, i, *rank, *padding);
                    self.push(place.pad(&name, x, y));
                    self.set(i, y);
                }
                LayerKind::Add | LayerKind::Multiply => {
                    let op = if layer.kind == LayerKind::Add { 0 } else { 2 };
                    self.merge(i, op)?;
                }
                LayerKind::Concatenate { axis } => {
                    let y = self.output_of(i);
                    for (input, from_place, to_place, rows, columns) in concatenation(graph, i, *axis) {
                        let from = self.value(input);
                        self.push(MoveRows {
                            layer: name.clone(),
                            what: "forward",
                            from,
                            from_place,
                            to: y,
                            to_place,
                            rows,
                            columns,
                        });
                    }
                    self.set(i, y);
                }
                LayerKind::BatchNormalization(kind) => {
                    let x = self.value(node.inputs[0]);
                    let y = self.output_of(i);
                    let (rows, columns) = rows_and_columns(&node.shape);
                    let norm = Norm::of(graph, NodeId(i)).expect("a normalisation has moving statistics");
                    let of = |p: spidnn_graph::ParamId| {
                        layer.params.iter().position(|&q| q == p).map(|k| params[k]).expect("its own parameter")
                    };
                    let (mut mean, mut variance) = (of(norm.mean), of(norm.variance));
                    if self.mode == Mode::Train && layer.trainable {
                        let plan = NormPlan {
                            layer: name.clone(),
                            rows_per_sample: rows,
                            channels: columns,
                            x,
                            mean: self.memory.words("statistics", columns.into()),
                            variance: self.memory.words("statistics", columns.into()),
                            partials: self.memory.words("statistics", NormPlan::partial_words(columns).into()),
                            exchange: self.memory.words("statistics", 2 * u64::from(columns)),
                            gamma: norm.gamma.map(of),
                            epsilon: kind.epsilon,
                            momentum: kind.momentum,
                            moving: [mean, variance],
                            replicated: self.target.replicas > 1,
                        };
                        (mean, variance) = (plan.mean, plan.variance);
                        for statistic in [Statistic::Mean, Statistic::Variance] {
                            self.push(NormSums { plan: plan.clone(), statistic });
                            self.push(NormFinish { plan: plan.clone(), statistic });
                        }
                        self.norms[i] = Some(plan);
                    }
                    self.push(RowStage {
                        layer: name,
                        what: "forward",
                        operation: RowOperation::Normalise {
                            mean,
                            variance,
                            gamma: norm.gamma.map(of),
                            beta: norm.beta.map(of),
                            epsilon: kind.epsilon,
                        },
                        inputs: vec![x],
                        output: y,
                        rows_per_sample: rows,
                        columns,
                    });
                    self.set(i, y);
                }
            }
        }
        graph.outputs.iter().for_each(|&o| self.numbers_of(o));
        Ok(())
    }

    fn set(&mut self, node: usize, tensor: Tensor) {
        self.values[node] = Some(Value { tensor, before_activation: None });
    }

    /// A node that is another name for its input; a model output needs a copy of its own.
    fn alias(&mut self, node: usize, input: NodeId) {
        let mut tensor = self.value(input);
        if self.graph.outputs.iter().any(|o| o.0 == node) {
            let y = self.output_of(node);
            let name = self.layer_name(node);
            self.push(RowStage::elements(&name, "copy", RowOperation::Copy, vec![tensor], y));
            tensor = y;
        }
        self.set(node, tensor);
    }

    /// Sum or product of several tensors, left to right.
    fn merge(&mut self, node: usize, op: u32) -> Result<(), CompileError> {
        let graph = self.graph;
        let n = &graph.nodes[node];
        let name = self.layer_name(node);
        let y = self.output_of(node);
        let shape = &n.shape;
        // A product with a vector for each sample.
        if n.inputs.iter().any(|x| graph.nodes[x.0].shape != *shape) {
            let (rows, columns) = rows_and_columns(shape);
            let spread = |x: NodeId| graph.nodes[x.0].shape != *shape;
            let [a, b] = n.inputs[..] else {
                return Err(self.unsupported(node, "spreading among more than two inputs", "merge two at a time"));
            };
            let (picture, vector) = if spread(a) { (b, a) } else { (a, b) };
            let fits = !spread(picture) && words(&graph.nodes[vector.0].shape) == columns;
            if op != 2 || !fits {
                return Err(self.unsupported(
                    node,
                    "this spreading of shapes",
                    "give inputs of one shape, or a product with one vector for each sample",
                ));
            }
            let (x, scale) = (self.value(picture), self.value(vector));
            self.push(ChannelScale {
                layer: name,
                what: "forward",
                x,
                scale,
                output: y,
                rows_per_sample: rows,
                columns,
            });
            self.set(node, y);
            return Ok(());
        }
        let mut left = self.value(n.inputs[0]);
        if n.inputs.len() == 1 {
            self.push(RowStage::elements(&name, "forward", RowOperation::Copy, vec![left], y));
        }
        for (k, &input) in n.inputs.iter().enumerate().skip(1) {
            let right = self.value(input);
            let out = if k + 1 == n.inputs.len() { y } else { self.tensor("activations", &name, y.words) };
            self.push(RowStage::elements(&name, "forward", RowOperation::Map2(op), vec![left, right], out));
            left = out;
        }
        self.set(node, y);
        Ok(())
    }
}

/// Where a padded picture's inside lies.
struct Padded {
    rows: u32,
    columns: u32,
    offset: u32,
    stride: u32,
}

impl Padded {
    fn new(graph: &Graph, node: usize, rank: usize, padding: [[usize; 2]; 2]) -> Padded {
        let n = &graph.nodes[node];
        let from = &graph.nodes[n.inputs[0].0].shape;
        let channels = *from.last().unwrap_or(&1) as u32;
        if rank == 1 {
            let row = channels * 4;
            return Padded { rows: from[0] as u32, columns: channels, offset: padding[1][0] as u32 * row, stride: row };
        }
        let out_row = n.shape[1] as u32 * channels * 4;
        Padded {
            rows: from[0] as u32,
            columns: from[1] as u32 * channels,
            offset: padding[0][0] as u32 * out_row + padding[1][0] as u32 * channels * 4,
            stride: out_row,
        }
    }
    fn pad(&self, layer: &str, x: Tensor, y: Tensor) -> MoveRows {
        MoveRows {
            layer: layer.into(),
            what: "forward",
            from: x,
            from_place: (0, self.columns * 4),
            to: y,
            to_place: (self.offset, self.stride),
            rows: self.rows,
            columns: self.columns,
        }
    }
    fn crop(&self, layer: &str, dy: Tensor, dx: Tensor) -> MoveRows {
        let pad = self.pad(layer, dx, dy);
        MoveRows { what: "input gradient", from: dy, from_place: pad.to_place, to: dx, to_place: pad.from_place, ..pad }
    }
}

/// The moves of a concatenation: input, place in the input, place in the result, rows, words of a row.
#[allow(clippy::type_complexity)]
fn concatenation(graph: &Graph, node: usize, axis: isize) -> Vec<(NodeId, (u32, u32), (u32, u32), u32, u32)> {
    let n = &graph.nodes[node];
    let rank = n.shape.len() as isize;
    // Keras counts the batch dimension.
    let axis = (if axis < 0 { rank + axis } else { axis - 1 }).clamp(0, rank - 1) as usize;
    let inner: usize = n.shape[axis + 1..].iter().product();
    let outer: usize = n.shape[..axis].iter().product();
    let whole = (n.shape[axis] * inner * 4) as u32;
    let mut at = 0;
    n.inputs
        .iter()
        .map(|&input| {
            let columns = (graph.nodes[input.0].shape[axis] * inner) as u32;
            let place = (at, whole);
            at += columns * 4;
            (input, (0, columns * 4), place, outer as u32, columns)
        })
        .collect()
}

/// A gradient that has arrived at a node.
#[derive(Debug, Clone, Copy)]
enum Arrived {
    /// With respect to its output.
    Output(Tensor),
    /// With respect to the input of its activation.
    BeforeActivation(Tensor),
}

impl Pass<'_> {
    /// The backward pass, from the gradients that the losses left at the outputs.
    fn backward(&mut self, seeds: Vec<(usize, Arrived)>) -> Result<(), CompileError> {
        let graph = self.graph;
        let count = graph.nodes.len();
        let mut needs = vec![false; count];
        for (i, node) in graph.nodes.iter().enumerate() {
            let trained = graph.layers[node.layer.0].params.iter().any(|p| self.places[p.0].gradient.is_some());
            needs[i] = trained || node.inputs.iter().any(|x| needs[x.0]);
        }
        let mut arrived: Vec<Vec<Tensor>> = vec![Vec::new(); count];
        let mut before: Vec<Option<Tensor>> = vec![None; count];
        for (node, gradient) in seeds {
            match gradient {
                Arrived::Output(t) => arrived[node].push(t),
                Arrived::BeforeActivation(t) => before[node] = Some(t),
            }
        }
        let mut written = vec![false; graph.params.len()];
        for i in (0..count).rev() {
            let node = &graph.nodes[i];
            let layer = &graph.layers[node.layer.0];
            let name = layer.name.clone();
            if !needs[i] || (arrived[i].is_empty() && before[i].is_none()) {
                continue;
            }
            // Several users: their gradients are added in the order of the backward pass.
            let all = std::mem::take(&mut arrived[i]);
            let mut dy = all.first().copied();
            for &more in all.iter().skip(1) {
                let left = dy.expect("there is a first one");
                let sum = self.tensor("gradients", &name, left.words);
                self.push(RowStage::elements(&name, "gradient sum", RowOperation::Map2(0), vec![left, more], sum));
                dy = Some(sum);
            }
            // Gradient before the activation.
            let dz = match (before[i], dy) {
                (Some(t), _) => t,
                (None, Some(dy)) => self.activation_gradient(i, layer.kind.activation(), dy),
                (None, None) => continue,
            };
            let inputs = node.inputs.clone();
            let shape_of = |x: NodeId| graph.nodes[x.0].shape.clone();
            match &layer.kind {
                LayerKind::Input { .. } => {}
                LayerKind::Dense(d) => {
                    let x = self.value(inputs[0]);
                    let (rows, terms) = rows_and_columns(&shape_of(inputs[0]));
                    let outputs = d.units as u32;
                    let kernel = self.place(i, 0);
                    if let Some(kernel_gradient) = kernel.gradient {
                        let bias_gradient = if d.use_bias { self.place(i, 1).gradient } else { None };
                        let accumulate = std::mem::replace(&mut written[layer.params[0].0], true);
                        if accumulate {
                            // It adds to what the others of the same layer leave.
                            self.push_late();
                        }
                        self.late.dense.push(DenseGradient {
                            layer: name.clone(),
                            x,
                            dy: dz,
                            mantissas: self.mantissas,
                            rows_per_sample: rows,
                            inputs: terms,
                            outputs,
                            kernel_gradient,
                            bias_gradient,
                            accumulate,
                        });
                    }
                    if needs[inputs[0].0] {
                        let dx = self.tensor("gradients", &name, x.words);
                        self.push(DenseProduct {
                            layer: name,
                            what: "input gradient",
                            a: dz,
                            c: dx,
                            mantissas: self.mantissas,
                            rows_per_sample: rows,
                            terms: outputs,
                            outputs: terms,
                            weights: kernel.address,
                            prepared_exponents: None,
                            transposed: true,
                            bias: None,
                            activation: FusedActivation::LINEAR,
                        });
                        arrived[inputs[0].0].push(dx);
                    }
                }
                LayerKind::Conv(c) => {
                    let x = self.value(inputs[0]);
                    let shape = self.conv_shape(i)?;
                    let kernel = self.place(i, 0);
                    if let Some(kernel_gradient) = kernel.gradient {
                        let bias_gradient = if c.use_bias { self.place(i, 1).gradient } else { None };
                        let accumulate = std::mem::replace(&mut written[layer.params[0].0], true);
                        let mut of = ConvGradient {
                            layer: name.clone(),
                            shape,
                            x,
                            dy: dz,
                            mantissas: self.mantissas,
                            partials: 0,
                            kernel_gradient,
                            bias_gradient,
                            accumulate,
                        };
                        of.partials = self.memory.words("partial sums", of.partial_words(CORES_MAX).into());
                        if accumulate {
                            self.push_late();
                        }
                        self.late.convolutions.push(of);
                    }
                    if needs[inputs[0].0] {
                        let dx = self.tensor("gradients", &name, x.words);
                        self.push(ConvProduct {
                            layer: name,
                            shape,
                            backward: true,
                            mantissas: self.mantissas,
                            x: dz,
                            y: dx,
                            weights: kernel.address,
                            prepared_exponents: None,
                            bias: None,
                            activation: FusedActivation::LINEAR,
                        });
                        arrived[inputs[0].0].push(dx);
                    }
                }
                LayerKind::Pool(_) | LayerKind::GlobalPool { .. } => {
                    if needs[inputs[0].0] {
                        let shape = self.pool_shape(i)?;
                        let x = self.value(inputs[0]);
                        let y = self.value(NodeId(i));
                        let dx = self.tensor("gradients", &name, x.words);
                        self.push(PoolGradient { layer: name, shape, x, y, dy: dz, dx });
                        arrived[inputs[0].0].push(dx);
                    }
                }
                LayerKind::Flatten | LayerKind::Reshape { .. } | LayerKind::Activation(_) => {
                    arrived[inputs[0].0].push(Tensor { words: words(&shape_of(inputs[0])), ..dz });
                }
                LayerKind::Dropout { rate, .. } => {
                    if *rate > 0.0 && needs[inputs[0].0] {
                        let dx = self.tensor("gradients", &name, dz.words);
                        self.push(DropoutStage {
                            layer: name,
                            what: "input gradient",
                            input: dz,
                            output: dx,
                            rate: *rate,
                            stream: node.layer.0 as u32,
                        });
                        arrived[inputs[0].0].push(dx);
                    } else {
                        arrived[inputs[0].0].push(dz);
                    }
                }
                LayerKind::ZeroPadding { rank, padding } => {
                    if needs[inputs[0].0] {
                        let dx = self.tensor("gradients", &name, words(&shape_of(inputs[0])));
                        self.push(Padded::new(graph, i, *rank, *padding).crop(&name, dz, dx));
                        arrived[inputs[0].0].push(dx);
                    }
                }
                LayerKind::Add => {
                    for x in &inputs {
                        arrived[x.0].push(dz);
                    }
                }
                LayerKind::Multiply if inputs.iter().any(|x| shape_of(*x) != node.shape) => {
                    let (rows, columns) = rows_and_columns(&node.shape);
                    let [a, b] = inputs[..] else {
                        return Err(self.unsupported(i, "spreading among more than two inputs", "merge two at a time"));
                    };
                    let (picture, vector) = if shape_of(a) == node.shape { (a, b) } else { (b, a) };
                    let (x, scale) = (self.value(picture), self.value(vector));
                    if needs[picture.0] {
                        let dx = self.tensor("gradients", &name, x.words);
                        self.push(ChannelScale {
                            layer: name.clone(),
                            what: "input gradient",
                            x: dz,
                            scale,
                            output: dx,
                            rows_per_sample: rows,
                            columns,
                        });
                        arrived[picture.0].push(dx);
                    }
                    if needs[vector.0] {
                        let output = self.tensor("gradients", &name, scale.words);
                        self.push(ChannelScaleGradient {
                            layer: name.clone(),
                            x,
                            dy: dz,
                            output,
                            rows_per_sample: rows,
                            columns,
                        });
                        arrived[vector.0].push(output);
                    }
                }
                LayerKind::Multiply => {
                    for (k, x) in inputs.iter().enumerate().filter(|(_, x)| needs[x.0]) {
                        let mut product = dz;
                        for (j, other) in inputs.iter().enumerate() {
                            if j != k {
                                let out = self.tensor("gradients", &name, dz.words);
                                let other = self.value(*other);
                                self.push(RowStage::elements(
                                    &name,
                                    "input gradient",
                                    RowOperation::Map2(2),
                                    vec![product, other],
                                    out,
                                ));
                                product = out;
                            }
                        }
                        arrived[x.0].push(product);
                    }
                }
                LayerKind::Concatenate { axis } => {
                    for (input, place, from_place, rows, columns) in concatenation(graph, i, *axis) {
                        if needs[input.0] {
                            let dx = self.tensor("gradients", &name, words(&shape_of(input)));
                            self.push(MoveRows {
                                layer: name.clone(),
                                what: "input gradient",
                                from: dz,
                                from_place,
                                to: dx,
                                to_place: place,
                                rows,
                                columns,
                            });
                            arrived[input.0].push(dx);
                        }
                    }
                }
                LayerKind::BatchNormalization(kind) if self.norms[i].is_none() => {
                    // Frozen: it normalises with its moving statistics, and only its input has a gradient.
                    let norm = Norm::of(graph, NodeId(i)).expect("a normalisation has moving statistics");
                    let (rows, columns) = rows_and_columns(&node.shape);
                    let dx = self.tensor("gradients", &name, dz.words);
                    self.push(RowStage {
                        layer: name,
                        what: "input gradient",
                        operation: RowOperation::NormaliseGradient {
                            variance: self.places[norm.variance.0].address,
                            gamma: norm.gamma.map(|p| self.places[p.0].address),
                            epsilon: kind.epsilon,
                        },
                        inputs: vec![dz],
                        output: dx,
                        rows_per_sample: rows,
                        columns,
                    });
                    arrived[inputs[0].0].push(dx);
                }
                LayerKind::BatchNormalization(_) => {
                    let plan = self.norms[i].clone().expect("one that is not frozen has a plan");
                    let norm = Norm::of(graph, NodeId(i)).expect("a normalisation has moving statistics");
                    let gradient = |p: Option<spidnn_graph::ParamId>| p.and_then(|p| self.places[p.0].gradient);
                    let (beta_gradient, gamma_gradient) = (gradient(norm.beta), gradient(norm.gamma));
                    if norm.mean.0 < written.len() && std::mem::replace(&mut written[norm.mean.0], true) {
                        return Err(self.unsupported(
                            i,
                            "a shared normalisation in training",
                            "use a layer of its own for each place",
                        ));
                    }
                    let averages = self.memory.words("statistics", 2 * u64::from(plan.channels));
                    self.push(NormGradientSums { plan: plan.clone(), dy: dz });
                    self.push(NormGradientFinish { plan: plan.clone(), beta_gradient, gamma_gradient, averages });
                    if needs[inputs[0].0] {
                        let dx = self.tensor("gradients", &name, dz.words);
                        self.push(NormGradient { plan, dy: dz, dx, averages });
                        arrived[inputs[0].0].push(dx);
                    }
                }
            }
        }
        self.push_late();
        Ok(())
    }

    /// Gradient with respect to the input of a node's activation.
    fn activation_gradient(&mut self, node: usize, activation: Activation, dy: Tensor) -> Tensor {
        let name = self.layer_name(node);
        let value = self.values[node].expect("the forward pass came first");
        let Some(fused) = elementwise(activation) else {
            let (rows, columns) = rows_and_columns(&self.graph.nodes[node].shape);
            let dz = self.tensor("gradients", &name, dy.words);
            self.push(RowStage {
                layer: name,
                what: "activation gradient",
                operation: RowOperation::SoftmaxGradient,
                inputs: vec![value.tensor, dy],
                output: dz,
                rows_per_sample: rows,
                columns,
            });
            return dz;
        };
        if fused.kind == kernels::Activation::Linear {
            return dy;
        }
        let saved = if fused.kind.saves_input() {
            value.before_activation.expect("activations that need their input stand apart in training")
        } else {
            value.tensor
        };
        let dz = self.tensor("gradients", &name, dy.words);
        self.push(RowStage::elements(
            &name,
            "activation gradient",
            RowOperation::ActivationGradient(fused),
            vec![dy, saved],
            dz,
        ));
        dz
    }
}

/// Kernel number, logits, smoothing of a loss.
fn loss_kernel(loss: Loss) -> (kernels::Loss, bool, f32) {
    match loss {
        Loss::MeanSquaredError => (kernels::Loss::MeanSquaredError, false, 0.0),
        Loss::MeanAbsoluteError => (kernels::Loss::MeanAbsoluteError, false, 0.0),
        Loss::BinaryCrossentropy { from_logits, label_smoothing } => {
            (kernels::Loss::BinaryCrossentropy, from_logits, label_smoothing)
        }
        Loss::CategoricalCrossentropy { from_logits, label_smoothing } => {
            (kernels::Loss::CategoricalCrossentropy, from_logits, label_smoothing)
        }
        Loss::SparseCategoricalCrossentropy { from_logits } => {
            (kernels::Loss::SparseCategoricalCrossentropy, from_logits, 0.0)
        }
    }
}

/// The kernel of an optimizer rule, and Keras' words for the state vectors `m`, `v`, `x`.
fn optimizer_kernel(rule: Rule) -> (kernels::Optimizer, [Option<&'static str>; 3]) {
    match rule {
        Rule::Sgd { momentum: 0.0, .. } => (kernels::Optimizer::Sgd, [None; 3]),
        Rule::Sgd { nesterov: false, .. } => (kernels::Optimizer::Sgd, [Some("momentum"), None, None]),
        Rule::Sgd { .. } => (kernels::Optimizer::SgdNesterov, [Some("momentum"), None, None]),
        Rule::RmsProp { momentum, centered, .. } => (
            kernels::Optimizer::RmsProp,
            [(momentum != 0.0).then_some("momentum"), Some("velocity"), centered.then_some("average_gradient")],
        ),
        Rule::Adam { .. } => (kernels::Optimizer::Adam, [Some("momentum"), Some("velocity"), None]),
    }
}

/// Lowers a graph to stages, with every buffer placed.
pub fn lower(graph: &Graph, options: &Options, target: Target) -> Result<Lowered, CompileError> {
    let mut memory = Memory::new(target.base);
    let samples = u64::from(target.samples_max);
    let run_block = memory.words("control", 64);

    let losses: Vec<Loss> = match &options.training {
        Some(t) if t.losses.len() == 1 => vec![t.losses[0]; graph.outputs.len()],
        Some(t) if t.losses.len() == graph.outputs.len() => t.losses.clone(),
        Some(t) => return Err(CompileError::Losses { losses: t.losses.len(), outputs: graph.outputs.len() }),
        None => Vec::new(),
    };

    // Two sets of everything that the host sends while the machine runs, at equal distances.
    let per_sample = |words: u32, address: u32| Buffer { address, sample_stride_bytes: words * 4, words };
    let input_bytes: Vec<Option<ByteInput>> = graph
        .inputs
        .iter()
        .map(|&i| match &options.format {
            Format::Int8(with) => int8::byte_input(graph, i, with),
            _ => None,
        })
        .collect();
    let input_words: Vec<u32> = graph
        .inputs
        .iter()
        .zip(&input_bytes)
        .map(|(i, bytes)| match bytes {
            Some(_) => int8::byte_words(&graph.nodes[i.0].shape),
            None => words(&graph.nodes[i.0].shape),
        })
        .collect();
    let target_words: Vec<u32> = losses
        .iter()
        .zip(&graph.outputs)
        .map(|(l, o)| match l {
            Loss::SparseCategoricalCrossentropy { .. } => 1,
            _ => words(&graph.nodes[o.0].shape),
        })
        .collect();
    let mut sets = Vec::new();
    for _ in 0..2 {
        let inputs: Vec<Buffer> =
            input_words.iter().map(|&w| per_sample(w, memory.words("inputs", u64::from(w) * samples))).collect();
        let targets: Vec<Buffer> =
            target_words.iter().map(|&w| per_sample(w, memory.words("inputs", u64::from(w) * samples))).collect();
        let weights = per_sample(1, memory.words("inputs", samples));
        sets.push((inputs, targets, weights));
    }
    let (inputs1, targets1, weights1) = sets.pop().expect("two sets");
    let (inputs0, targets0, weights0) = sets.pop().expect("two sets");
    let toggled = |a: &Buffer, b: &Buffer| Tensor {
        address: a.address,
        words: a.words,
        toggle: b.address.wrapping_sub(a.address) as i32,
    };

    let mut output_buffers: Vec<Buffer> = Vec::new();
    for (k, o) in graph.outputs.iter().enumerate() {
        // The same node may be an output twice.
        match graph.outputs[..k].iter().position(|p| p == o) {
            Some(same) => output_buffers.push(output_buffers[same]),
            None => {
                let w = words(&graph.nodes[o.0].shape);
                output_buffers.push(per_sample(w, memory.words("outputs", u64::from(w) * samples)));
            }
        }
    }
    let loss_buffers: Vec<Buffer> = losses.iter().map(|_| per_sample(1, memory.words("outputs", samples))).collect();

    // Parameters: the trained ones first, in one vector, so that gradients and optimizer state are vectors of the same form.
    let frozen = |p: &spidnn_graph::Param| !p.trainable || !graph.layers[p.layer.0].trainable;
    let param_words: Vec<u32> = graph.params.iter().map(|p| words(&p.shape)).collect();
    let total: u32 = graph.params.iter().zip(&param_words).filter(|(p, _)| !frozen(p)).map(|(_, w)| w).sum();
    let vector = memory.words("parameters", total.into());
    let mut params = Vec::new();
    let mut trained = Vec::new();
    let mut offset = 0;
    for (p, &w) in graph.params.iter().zip(&param_words) {
        let address = if frozen(p) {
            memory.words("parameters", w.into())
        } else {
            trained.push(Trained { first: offset, words: w });
            offset += w;
            vector + (offset - w) * 4
        };
        params.push(Buffer { address, sample_stride_bytes: 0, words: w });
    }
    let with_bytes = match (&options.format, &options.training) {
        (Format::Int8(_), Some(_)) => return Err(CompileError::TrainingInBytes),
        (Format::Int8(with), None) => Some(with),
        _ => None,
    };
    // With bytes the parameters are placed when it is known which form each layer takes.
    let inference =
        if with_bytes.is_some() { Vec::new() } else { fold::inference_params(graph, options.format.mantissas()) };
    let mut inference_params: Vec<Buffer> = inference
        .iter()
        .map(|p| {
            let w = p.words(graph) as u32;
            Buffer { address: memory.words("prepared parameters", w.into()), sample_stride_bytes: 0, words: w }
        })
        .collect();

    let mut gradient_vector = 0;
    let mut optimizer_state = Vec::new();
    let mut optimizer = None;
    if let Some(training) = &options.training {
        gradient_vector = memory.words("parameter gradients", total.into());
        let (kind, names) = optimizer_kernel(training.optimizer.rule);
        let mut state = [None; 3];
        for (slot, name) in names.iter().enumerate() {
            let Some(name) = name else { continue };
            let address = memory.words("optimizer state", total.into());
            state[slot] = Some(address);
            let trained_params = graph.params.iter().enumerate().filter(|(_, p)| !frozen(p));
            for ((index, _), t) in trained_params.zip(&trained) {
                let buffer = Buffer { address: address + t.first * 4, sample_stride_bytes: 0, words: t.words };
                optimizer_state.push(OptimizerState { param: index, name, buffer });
            }
        }
        optimizer = Some(OptimizerStage {
            layer: graph.name.clone(),
            kind: kind as u32,
            params: vector,
            gradients: gradient_vector,
            state,
            words: total,
            norms: memory.words("statistics", 2 * (trained.len() as u64 + 1)),
            trained: trained.clone(),
            clip: training.optimizer.clip,
            decay: training.optimizer.weight_decay.is_some(),
            slots: target.exchange_slots,
        });
    }
    let places: Vec<ParamPlace> = graph
        .params
        .iter()
        .zip(&params)
        .map(|(p, b)| ParamPlace {
            address: b.address,
            gradient: (options.training.is_some() && !frozen(p)).then(|| gradient_vector + (b.address - vector)),
        })
        .collect();

    // Activations of the programs lie over each other: only one program runs at a time.
    let shared = memory.clone();
    let mut programs = Vec::new();
    let mut largest = (graph.name.clone(), 0);
    let mut constants = None;
    let (mut numbers, mut bytes, mut forms) = (Vec::new(), Vec::new(), Vec::new());
    let mut modes = vec![(Program::Predict, Mode::Predict)];
    if options.training.is_some() {
        modes.push((Program::Train, Mode::Train));
        modes.push((Program::Evaluate, Mode::Evaluate));
    }
    for (program, mode) in modes {
        let mut own = shared.clone();
        let mut pass = Pass {
            graph,
            target,
            mode,
            phases: Vec::new(),
            late: Late::default(),
            memory: &mut own,
            places: places.clone(),
            values: vec![None; graph.nodes.len()],
            outputs: output_buffers.iter().map(|b| Tensor::new(b.address, b.words)).collect(),
            activation_in_loss: vec![false; graph.nodes.len()],
            norms: vec![None; graph.nodes.len()],
            mantissas: options.format.mantissas(),
            bytes: with_bytes.map(|with| Bytes::new(graph, with)),
            largest: largest.clone(),
        };
        for (k, input) in graph.inputs.iter().enumerate() {
            let tensor = toggled(&inputs0[k], &inputs1[k]);
            if let Some(bytes) = input_bytes[k] {
                pass.set_byte_input(input.0, tensor, bytes.format);
                continue;
            }
            pass.set(input.0, tensor);
            if graph.outputs.contains(input) {
                let y = pass.output_of(input.0);
                let name = pass.layer_name(input.0);
                pass.push(RowStage::elements(&name, "copy", RowOperation::Copy, vec![tensor], y));
            }
        }
        if mode != Mode::Predict {
            for (k, output) in graph.outputs.iter().enumerate() {
                pass.activation_in_loss[output.0] = activation_belongs_to_loss(graph, *output, losses[k]);
            }
        }
        pass.forward(&inference, &inference_params)?;
        if mode != Mode::Predict {
            let mut seeds = Vec::new();
            for (k, output) in graph.outputs.iter().enumerate() {
                let (kind, from_logits, smoothing) = loss_kernel(losses[k]);
                let shape = &graph.nodes[output.0].shape;
                let categorical = matches!(
                    kind,
                    kernels::Loss::CategoricalCrossentropy | kernels::Loss::SparseCategoricalCrossentropy
                );
                if categorical && shape.len() != 1 {
                    return Err(pass.unsupported(
                        output.0,
                        "a categorical loss on an output with more than one dimension",
                        "flatten the output to one row of classes for each sample",
                    ));
                }
                let value = pass.values[output.0].expect("forward is done");
                let in_loss = pass.activation_in_loss[output.0];
                let name = pass.layer_name(output.0);
                let gradient = (mode == Mode::Train).then(|| pass.tensor("gradients", &name, words(shape)));
                let logits = match value.before_activation {
                    Some(z) if in_loss => Some((z, elementwise(activation_of(graph, *output)))),
                    _ => None,
                };
                pass.push(LossStage {
                    layer: name,
                    kind: kind as u32,
                    logits,
                    output: pass.outputs[k],
                    target: toggled(&targets0[k], &targets1[k]),
                    weight: toggled(&weights0, &weights1),
                    loss: Tensor::new(loss_buffers[k].address, 1),
                    gradient,
                    from_logits: from_logits || in_loss,
                    smoothing,
                });
                if let Some(t) = gradient {
                    seeds.push((output.0, if in_loss { Arrived::BeforeActivation(t) } else { Arrived::Output(t) }));
                }
            }
            if mode == Mode::Train {
                pass.backward(seeds)?;
                let optimizer = optimizer.clone().expect("training has an optimizer");
                let exchange = |what, address, way| ExchangeStage {
                    layer: graph.name.clone(),
                    what,
                    address,
                    words: total,
                    slots: target.exchange_slots,
                    way,
                    link_cycles: target.link_cycles,
                };
                if target.replicas > 1 {
                    pass.push(exchange("gradient sum", gradient_vector, Way::Up));
                }
                match optimizer.clip {
                    Clip::Norm(_) => pass.push(NormStage { of: optimizer.clone() }),
                    Clip::GlobalNorm(_) => {
                        pass.push(NormStage { of: optimizer.clone() });
                        pass.push(GlobalNormStage { of: optimizer.clone() });
                    }
                    Clip::None | Clip::Value(_) => {}
                }
                pass.push(optimizer);
                if target.replicas > 1 {
                    pass.push(exchange("new parameters", vector, Way::Down));
                }
            }
        }
        largest = pass.largest.clone();
        if mode == Mode::Predict {
            numbers = pass.values.iter().map(|v| v.map(|v| v.tensor)).collect();
        }
        if let Some(Bytes { values, constants: made, forms: all, .. }) = pass.bytes {
            (bytes, forms) = (values, all);
            let (places, contents): (Vec<_>, Vec<_>) = made.into_iter().unzip();
            inference_params.extend(places);
            constants = Some(contents);
        }
        programs.push((program, pass.phases));
        if own.end() > memory.end() {
            memory = own;
        }
    }
    Ok(Lowered {
        programs,
        inputs: [inputs0, inputs1],
        input_bytes,
        targets: [targets0, targets1],
        sample_weights: [weights0, weights1],
        losses: loss_buffers,
        outputs: output_buffers,
        params,
        optimizer_state,
        inference_params,
        constants,
        forms,
        bytes,
        numbers,
        run_block,
        memory,
        largest,
    })
}

/// How often a node is used, as an input or an output.
fn users(graph: &Graph, node: NodeId) -> usize {
    let inputs = graph.nodes.iter().flat_map(|n| &n.inputs).filter(|&&x| x == node).count();
    inputs + graph.outputs.iter().filter(|&&o| o == node).count()
}

fn activation_of(graph: &Graph, node: NodeId) -> Activation {
    graph.layers[graph.nodes[node.0].layer.0].kind.activation()
}

/// Whether the loss stage computes an output's activation and takes its input: Keras does so with any cross-entropy after
/// sigmoid or softmax (see [`Loss::fused`]).
fn activation_belongs_to_loss(graph: &Graph, output: NodeId, loss: Loss) -> bool {
    users(graph, output) == 1
        && graph.nodes[output.0].shape.len() == 1
        && loss.fused(activation_of(graph, output)).is_some()
}
