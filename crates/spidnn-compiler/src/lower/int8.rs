//! Lowering of predictions to bytes (format `int8`). Layers that have no form in bytes stay with numbers; the ways between the two are
//! stages of their own.

use spidnn_graph::{Activation, Graph, LayerKind, NodeId};
use spidnn_kernels::call::{Add8, BYTE_TERMS_MAX};

use super::{Pass, elementwise, words};
use crate::CompileError;
use crate::emit::Tensor;
use crate::fold::{InferenceParam, Norm, Source};
use crate::plan::{Buffer, ByteInput};
use crate::quantise::{self, ByteFormat, ByteKernel, Quantisation, Range};
use crate::stage::int8::conv::ByteConv;
use crate::stage::int8::dense::{ByteDense, Numbers};
use crate::stage::int8::maps::{ByteMap, ByteOperation, Convert};
use crate::stage::int8::pool::BytePool;
use crate::stage::int8::{ByteTensor, ByteWeights};
use crate::stage::pool::PoolShape;
use crate::stage::{CoreSlot, Mantissas};

/// What a pooling stage takes beside its kernel: a barrier, commands, and transfers that nothing hides.
const POOL_STAGE_CYCLES: u64 = 4000;

/// Outputs of a dense layer whose softmax is computed with it.
const SOFTMAX_FUSED: u32 = 64;

/// A node's value as bytes.
#[derive(Debug, Clone, Copy)]
pub struct ByteValue {
    /// Where.
    pub bytes: ByteTensor,
    /// What they mean.
    pub format: ByteFormat,
}

/// What one layer became.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerForm {
    /// Its last node.
    pub node: usize,
    /// Why it has no form in bytes, if it has none.
    pub numbers: Option<&'static str>,
}

/// The state of a lowering to bytes.
pub struct Bytes<'a> {
    /// Weights and ranges.
    pub with: &'a Quantisation,
    /// Values of nodes, where they are bytes.
    pub values: Vec<Option<ByteValue>>,
    /// Constants and their places.
    pub constants: Vec<(Buffer, Vec<u32>)>,
    /// What the layers became.
    pub forms: Vec<LayerForm>,
    /// Nodes whose values exist inside of a stage only.
    pub inside: Vec<usize>,
}

impl<'a> Bytes<'a> {
    /// Before the first node.
    pub fn new(graph: &Graph, with: &'a Quantisation) -> Bytes<'a> {
        Bytes {
            with,
            values: vec![None; graph.nodes.len()],
            constants: Vec::new(),
            forms: Vec::new(),
            inside: Vec::new(),
        }
    }
}

/// Why a node has no form in bytes; `None` if it has one.
pub fn no_byte_form(graph: &Graph, node: NodeId) -> Option<&'static str> {
    let n = graph.node(node);
    let shape = |i: usize| &graph.node(n.inputs[i]).shape;
    match &graph.layer_of(node).kind {
        LayerKind::Dense(d) => {
            let terms = shape(0).last().copied().unwrap_or(1);
            // Each row of terms or outputs begins at a word.
            if shape(0).len() > 2 && !(terms.is_multiple_of(4) && d.units.is_multiple_of(4)) {
                Some("its rows are no whole words of bytes")
            } else if words(shape(0)) > BYTE_TERMS_MAX {
                Some("its sums are too long for 32 bits")
            } else {
                None
            }
        }
        LayerKind::Conv(c) if c.depthwise || c.groups > 1 => Some("its channels are in groups"),
        LayerKind::Conv(c) if c.rank == 2 && c.dilation_rate[1] > 1 => Some("taps of a row lie apart"),
        LayerKind::Conv(_) | LayerKind::Pool(_) | LayerKind::GlobalPool { .. } => None,
        LayerKind::Flatten | LayerKind::Dropout { .. } => None,
        LayerKind::Reshape { .. } => {
            let whole = |s: &[usize]| s.len() < 2 || (words(s) / s[0].max(1) as u32).is_multiple_of(4);
            if n.shape.len() < 2 || (whole(shape(0)) && whole(&n.shape)) {
                None
            } else {
                Some("its rows are no whole words of bytes")
            }
        }
        LayerKind::Activation(a) => {
            if elementwise(*a).is_some() {
                None
            } else {
                Some("softmax is computed with numbers")
            }
        }
        LayerKind::Add if n.inputs.iter().all(|x| graph.node(*x).shape == n.shape) && n.inputs.len() > 1 => None,
        LayerKind::Add => Some("its inputs have several shapes"),
        _ => Some("its kind has no form in bytes"),
    }
}

/// How an input becomes bytes on the host: if all that use it take bytes.
pub fn byte_input(graph: &Graph, node: NodeId, with: &Quantisation) -> Option<ByteInput> {
    let users = graph.consumers(node);
    let bytes = !users.is_empty() && users.iter().all(|&user| no_byte_form(graph, user).is_none());
    (bytes && !graph.outputs.contains(&node)).then(|| ByteInput {
        format: ByteFormat::of(with.calibration.outputs[node.0]),
        row_values: form(&graph.node(node).shape).1 as usize,
    })
}

/// Words of a shape's bytes.
pub fn byte_words(shape: &[usize]) -> u32 {
    let (rows, values) = form(shape);
    ByteTensor::words(rows, values)
}

/// The range beyond which an activation's result is within half a step of 1/255 of its limit.
fn saturating(activation: Activation) -> (f32, f32) {
    match activation {
        Activation::Tanh => (-3.2, 3.2),
        Activation::Sigmoid => (-6.3, 6.3),
        Activation::HardSigmoid => (-3.0, 3.0),
        _ => (f32::MIN, f32::MAX),
    }
}

/// Rows and bytes of a row of a shape: pictures row by row, sequences position by position.
fn form(shape: &[usize]) -> (u32, u32) {
    match shape {
        [] => (1, 1),
        [n] => (1, *n as u32),
        [rows, rest @ ..] => (*rows as u32, words(rest)),
    }
}

impl<'a> Pass<'a> {
    fn byte_state(&mut self) -> &mut Bytes<'a> {
        self.bytes.as_mut().expect("called when lowering to bytes")
    }

    fn new_bytes(&mut self, node: usize, (rows, values): (u32, u32)) -> ByteTensor {
        let name = self.layer_name(node);
        let tensor = self.tensor("activations", &name, ByteTensor::words(rows, values));
        ByteTensor { tensor, rows, values }
    }

    fn set_bytes(&mut self, node: usize, value: ByteValue) {
        self.byte_state().values[node] = Some(value);
    }

    /// An input that the host brings as bytes.
    pub(super) fn set_byte_input(&mut self, node: usize, tensor: Tensor, format: ByteFormat) {
        let (rows, values) = form(&self.graph.nodes[node].shape);
        self.set_bytes(node, ByteValue { bytes: ByteTensor { tensor, rows, values }, format });
    }

    fn constant(&mut self, contents: Vec<u32>) -> u32 {
        let count = contents.len() as u32;
        let address = self.memory.words("prepared parameters", count.into());
        let buffer = Buffer { address, sample_stride_bytes: 0, words: count };
        self.byte_state().constants.push((buffer, contents));
        address
    }

    /// Where a layer that stays with numbers finds a parameter, and its exponents.
    pub(super) fn number_param(&mut self, source: Source) -> (u32, Option<u32>) {
        let param = InferenceParam::new(self.graph, source, Mantissas::Words);
        let weights = std::sync::Arc::clone(&self.byte_state().with.weights);
        let address = self.constant(param.contents(&weights));
        (address, param.prepared.map(|p| address + p.mantissa_words() * 4))
    }

    fn output_range(&mut self, node: usize) -> Range {
        self.byte_state().with.calibration.outputs[node]
    }

    /// A node's value as bytes, made of its numbers where it has none.
    fn bytes_of(&mut self, node: NodeId) -> ByteValue {
        if let Some(value) = self.byte_state().values[node.0] {
            return value;
        }
        let numbers = self.value(node);
        let format = ByteFormat::of(self.output_range(node.0));
        let bytes = self.new_bytes(node.0, form(&self.graph.node(node).shape));
        let layer = self.layer_name(node.0);
        self.push(Convert { layer, numbers, bytes, format, quantise: true });
        let value = ByteValue { bytes, format };
        self.set_bytes(node.0, value);
        value
    }

    /// Sees to it that a node's value exists as numbers.
    pub(super) fn numbers_of(&mut self, node: NodeId) {
        if self.values[node.0].is_some() {
            return;
        }
        let Some(value) = self.bytes.as_ref().and_then(|b| b.values[node.0]) else { return };
        let numbers = self.output_of(node.0);
        let layer = self.layer_name(node.0);
        self.push(Convert { layer, numbers, bytes: value.bytes, format: value.format, quantise: false });
        self.set(node.0, numbers);
    }

    /// Format of what a layer's activation takes, and of what it gives; whether a table lies between.
    fn activation_formats(&mut self, last: usize, activation: Activation) -> (ByteFormat, Option<ByteFormat>) {
        let output = self.output_range(last);
        let before = self.byte_state().with.calibration.before_activation[last];
        match activation {
            Activation::Linear => (ByteFormat::of(output), None),
            // What saturates at the zero point is a relu.
            Activation::Relu => (ByteFormat::of(output.within(0.0, f32::MAX)), None),
            Activation::ClippedRelu { max_value } => (ByteFormat::of(output.within(0.0, max_value)), None),
            _ => {
                let (low, high) = saturating(activation);
                (ByteFormat::of(before.within(low, high)), Some(ByteFormat::of(output)))
            }
        }
    }

    /// The table of an activation from one format to another.
    fn table(&self, activation: Activation, from: ByteFormat, to: ByteFormat) -> Vec<u32> {
        let inputs: Vec<f32> = (0..=255).map(|q| from.number(q)).collect();
        let results = spidnn_graph::reference::activation::apply(activation, &inputs, 1);
        quantise::words(&results.iter().map(|&v| to.byte(v.into())).collect::<Vec<u8>>())
    }

    /// Kernel and bias of a layer, a normalisation behind it folded in.
    fn folded_values(&mut self, node: usize, norm: Option<NodeId>) -> (Vec<f32>, Option<Vec<f32>>) {
        let graph = self.graph;
        let weights = std::sync::Arc::clone(&self.byte_state().with.weights);
        let params = &graph.layer_of(NodeId(node)).params;
        let (kernel, bias) = match norm.and_then(|n| Norm::of(graph, n)) {
            Some(norm) => {
                (Source::Kernel { kernel: params[0], norm }, Some(Source::Bias { bias: params.get(1).copied(), norm }))
            }
            None => (Source::Plain(params[0]), params.get(1).map(|&p| Source::Plain(p))),
        };
        (kernel.values(&weights), bias.map(|b| b.values(&weights)))
    }

    /// Lowers a node to bytes; false if it has no such form.
    pub(super) fn forward_bytes(&mut self, i: usize, norm: Option<NodeId>) -> Result<bool, CompileError> {
        let graph = self.graph;
        let node = &graph.nodes[i];
        if let Some(why) = no_byte_form(graph, NodeId(i)) {
            self.byte_state().forms.push(LayerForm { node: norm.map_or(i, |n| n.0), numbers: Some(why) });
            return Ok(false);
        }
        let last = norm.map_or(i, |n| n.0);
        match &graph.layer_of(NodeId(i)).kind {
            LayerKind::Dense(_) | LayerKind::Conv(_) => {
                if !self.byte_product(i, norm)? {
                    let numbers = Some("it does not fit a core's local memory as bytes");
                    self.byte_state().forms.push(LayerForm { node: last, numbers });
                    return Ok(false);
                }
            }
            LayerKind::Pool(_) | LayerKind::GlobalPool { .. } => {
                let shape = self.pool_shape(i)?;
                let x = self.bytes_of(node.inputs[0]);
                let rows = (shape.y.output, shape.x.output * shape.channels);
                let y = self.new_bytes(i, rows);
                let stage = BytePool { layer: self.layer_name(i), shape, x: x.bytes, y, zero: x.format.zero };
                if !stage.fits(CoreSlot::new(0, super::CORES_MAX, self.target.samples_max, true)) {
                    let numbers = Some("it does not fit a core's local memory as bytes");
                    self.byte_state().forms.push(LayerForm { node: i, numbers });
                    return Ok(false);
                }
                self.push(stage);
                self.set_bytes(i, ByteValue { bytes: y, format: x.format });
            }
            LayerKind::Flatten | LayerKind::Reshape { .. } | LayerKind::Dropout { .. } => {
                let x = self.bytes_of(node.inputs[0]);
                // One row of all of them has the gaps of its rows before.
                let bytes = if node.shape.len() > 1 {
                    let (rows, values) = form(&node.shape);
                    ByteTensor { rows, values, ..x.bytes }
                } else {
                    x.bytes
                };
                self.set_bytes(i, ByteValue { bytes, ..x });
            }
            LayerKind::Activation(activation) => {
                let x = self.bytes_of(node.inputs[0]);
                let to = ByteFormat::of(self.output_range(i));
                let table = self.constant(self.table(*activation, x.format, to));
                let y = self.new_bytes(i, (x.bytes.rows, x.bytes.values));
                self.push(ByteMap {
                    layer: self.layer_name(i),
                    operation: ByteOperation::Table(table),
                    inputs: vec![x.bytes],
                    y,
                });
                self.set_bytes(i, ByteValue { bytes: y, format: to });
            }
            LayerKind::Add => {
                if !self.byte_sum(i) {
                    self.byte_state()
                        .forms
                        .push(LayerForm { node: i, numbers: Some("its inputs lie in different rows") });
                    return Ok(false);
                }
            }
            _ => return Ok(false),
        }
        self.byte_state().forms.push(LayerForm { node: last, numbers: None });
        Ok(true)
    }

    /// Sum of several tensors, left to right; steps between have the result's format. False: their rows differ.
    fn byte_sum(&mut self, i: usize) -> bool {
        let inputs = self.graph.nodes[i].inputs.clone();
        let format = ByteFormat::of(self.output_range(i));
        let values: Vec<ByteValue> = inputs.iter().map(|&x| self.bytes_of(x)).collect();
        if values.iter().any(|v| (v.bytes.rows, v.bytes.values) != (values[0].bytes.rows, values[0].bytes.values)) {
            return false;
        }
        let mut left = values[0];
        for &right in &values[1..] {
            let ratio = |x: &ByteValue| f64::from(x.format.scale) / f64::from(format.scale);
            let most = ratio(&left).max(ratio(&right));
            let shift = (1..=31).rev().find(|&s| most * 2f64.powi(s) < 2_097_151.0).unwrap_or(1);
            let multiplier = |x: &ByteValue| (ratio(x) * 2f64.powi(shift)).round().min(2_097_151.0) as u32;
            let add = Add8 {
                zero_a: left.format.zero,
                zero_b: right.format.zero,
                mult_a: multiplier(&left),
                mult_b: multiplier(&right),
                shift: shift as u32,
                zero: format.zero,
                ..Default::default()
            };
            let y = self.new_bytes(i, (left.bytes.rows, left.bytes.values));
            self.push(ByteMap {
                layer: self.layer_name(i),
                operation: ByteOperation::Add(add),
                inputs: vec![left.bytes, right.bytes],
                y,
            });
            left = ByteValue { bytes: y, format };
        }
        self.set_bytes(i, left);
        true
    }

    /// The pooling that alone uses a node, if it can be computed with it.
    fn only_pooling(&self, node: usize) -> Option<(usize, PoolShape)> {
        let graph = self.graph;
        if graph.outputs.contains(&NodeId(node)) {
            return None;
        }
        let [user] = graph.consumers(NodeId(node))[..] else { return None };
        let LayerKind::Pool(_) = graph.layer_of(user).kind else { return None };
        let pool = self.pool_shape(user.0).ok()?;
        ByteConv::can_pool(&pool).then_some((user.0, pool))
    }

    /// A dense layer or convolution. False: it does not fit.
    fn byte_product(&mut self, i: usize, norm: Option<NodeId>) -> Result<bool, CompileError> {
        let graph = self.graph;
        let node = &graph.nodes[i];
        let last = norm.map_or(i, |n| n.0);
        let activation = graph.layer_of(NodeId(i)).kind.activation();
        let x = self.bytes_of(node.inputs[0]);
        // Softmax is computed with numbers behind it.
        let fused = if elementwise(activation).is_some() { activation } else { Activation::Linear };
        let (format, result) = if fused == activation {
            self.activation_formats(last, activation)
        } else {
            let before = self.byte_state().with.calibration.before_activation[last];
            (ByteFormat::of(before), None)
        };
        let (kernel, bias) = self.folded_values(i, norm);
        let outputs = *node.shape.last().unwrap_or(&1);
        let layer = self.layer_name(i);
        // Any number of cores and samples: whether it fits at all.
        let core = CoreSlot::new(0, super::CORES_MAX, self.target.samples_max, true);
        let is_conv = matches!(graph.layer_of(NodeId(i)).kind, LayerKind::Conv(_));
        let quantised = if is_conv {
            let shape = self.conv_shape(i)?;
            let place = |t: usize| ByteConv::place(&shape, t);
            ByteKernel::new(&kernel, bias.as_deref(), outputs, ByteConv::terms(&shape), place, x.format, format)
        } else {
            let rows_per_sample = dense_rows(&graph.node(node.inputs[0]).shape);
            let halves = x.bytes.tensor.words / rows_per_sample * 4;
            let (values, row) = (x.bytes.values as usize, x.bytes.row_bytes() as usize);
            let place = |t: usize| if rows_per_sample > 1 { t } else { t / values * row + t % values };
            ByteKernel::new(&kernel, bias.as_deref(), outputs, halves, place, x.format, format)
        };
        if quantised.terms > BYTE_TERMS_MAX {
            return Ok(false);
        }
        let table = result.map(|to| self.table(fused, quantised.output, to));
        let weights =
            ByteWeights { address: 0, terms: quantised.terms, outputs: outputs as u32, table: table.is_some() };
        let (zero, shift) = (quantised.output.zero, quantised.shift);
        let unplaced = ByteTensor { tensor: Tensor::new(0, 0), rows: 0, values: 0 };
        let y_form = form(&node.shape);
        let placed = ByteTensor { rows: y_form.0, values: y_form.1, ..unplaced };
        let mut contents = quantised.weights;
        contents.extend(quantised.scales);
        contents.extend(table.into_iter().flatten());
        let output = result.unwrap_or(quantised.output);
        let y;
        if is_conv {
            let shape = self.conv_shape(i)?;
            let mut stage = ByteConv {
                layer,
                shape,
                x: x.bytes,
                x_zero: x.format.zero,
                y: placed,
                weights,
                zero,
                shift,
                pool: None,
            };
            let Some(alone) = stage.cost(core) else { return Ok(false) };
            // A pooling that is the only one to use the result, where that takes less than a stage of its own.
            let pooling = self.only_pooling(last).filter(|_| fused == activation);
            if let Some((node, pool)) = pooling {
                let with = ByteConv { pool: Some(pool), ..stage.clone() };
                if with.cost(core).is_some_and(|cost| cost <= alone + POOL_STAGE_CYCLES) {
                    stage = with;
                    stage.weights.address = self.constant(contents);
                    stage.y = self.new_bytes(node, (pool.y.output, pool.x.output * pool.channels));
                    let value = ByteValue { bytes: stage.y, format: output };
                    self.push(stage);
                    self.set_bytes(node, value);
                    self.byte_state().inside.extend([i, last]);
                    self.byte_state().forms.push(LayerForm { node, numbers: None });
                    return Ok(true);
                }
            }
            stage.weights.address = self.constant(contents);
            y = self.new_bytes(last, y_form);
            stage.y = y;
            self.push(stage);
        } else {
            let rows_per_sample = dense_rows(&graph.node(node.inputs[0]).shape);
            let mut stage =
                ByteDense { layer, x: x.bytes, y: placed, rows_per_sample, weights, zero, shift, numbers: None };
            // Few outputs behind a softmax: one core has a row's at hand.
            if fused != activation && outputs as u32 <= SOFTMAX_FUSED && !self.activation_in_loss[last] {
                let whole = Tensor::new(0, words(&node.shape));
                let with = Some(Numbers { tensor: whole, format: output, softmax: true });
                if (ByteDense { numbers: with, ..stage.clone() }).fits(core) {
                    stage.numbers = with;
                }
            }
            if !stage.fits(core) {
                return Ok(false);
            }
            stage.weights.address = self.constant(contents);
            if let Some(numbers) = &mut stage.numbers {
                let tensor = self.output_of(last);
                numbers.tensor = tensor;
                self.push(stage);
                self.set(i, tensor);
                self.set(last, tensor);
                return Ok(true);
            }
            y = self.new_bytes(last, y_form);
            stage.y = y;
            self.push(stage);
        }
        let value = ByteValue { bytes: y, format: output };
        if fused == activation {
            self.set_bytes(i, value);
            self.set_bytes(last, value);
        } else {
            // The results become numbers, and the activation follows.
            let layer = self.layer_name(i);
            let z = self.tensor("activations", &layer, words(&node.shape));
            self.push(Convert { layer, numbers: z, bytes: y, format: output, quantise: false });
            let numbers = self.output_of(last);
            self.apply_activation(last, activation, z, numbers);
            self.set(i, numbers);
            self.set(last, numbers);
        }
        Ok(true)
    }
}

/// Rows of a sample of a dense layer's input.
fn dense_rows(shape: &[usize]) -> u32 {
    words(&shape[..shape.len().saturating_sub(1)]).max(1)
}
