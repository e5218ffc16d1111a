//! Building graphs: layers are added, then called; a call infers the shape, and the first call of a layer makes its parameters.

use std::collections::{HashMap, HashSet};

use crate::error::{GraphError, keras_shape};
use crate::geometry::spatial;
use crate::layer::{BatchNormalization, Conv, Dense};
use crate::{Graph, Initializer, Layer, LayerId, LayerKind, Node, NodeId, Param, ParamId};

/// Makes a [`Graph`].
///
/// ```
/// use spidnn_graph::{GraphBuilder, LayerKind};
/// let mut builder = GraphBuilder::new("twice");
/// let input = builder.add_layer("input", LayerKind::Input { shape: vec![4] })?;
/// let add = builder.add_layer("add", LayerKind::Add)?;
/// let x = builder.call(input, &[])?;
/// let y = builder.call(add, &[x, x])?;
/// let graph = builder.build(vec![x], vec![y])?;
/// assert_eq!(graph.node(graph.outputs[0]).shape, [4]);
/// # Ok::<(), spidnn_graph::GraphError>(())
/// ```
#[derive(Debug, Clone)]
pub struct GraphBuilder {
    name: String,
    sequential: bool,
    layers: Vec<Layer>,
    nodes: Vec<Node>,
    params: Vec<Param>,
}

impl GraphBuilder {
    /// An empty functional model.
    pub fn new(name: &str) -> Self {
        Self { name: name.to_owned(), sequential: false, layers: Vec::new(), nodes: Vec::new(), params: Vec::new() }
    }

    /// Says whether the model is to be written to files as Keras `Sequential`.
    pub fn sequential(mut self, yes: bool) -> Self {
        self.sequential = yes;
        self
    }

    /// Adds a layer; the order of layers is the order of `get_weights()`. Errors: an empty name or one that is there already.
    pub fn add_layer(&mut self, name: &str, kind: LayerKind) -> Result<LayerId, GraphError> {
        if name.is_empty() {
            return Err(GraphError::layer("", "an empty name", "a name", "name the layer"));
        }
        if self.layers.iter().any(|layer| layer.name == name) {
            return Err(GraphError::DuplicateName { name: name.to_owned() });
        }
        self.layers.push(Layer { name: name.to_owned(), kind, params: Vec::new(), trainable: true });
        Ok(LayerId(self.layers.len() - 1))
    }

    /// Freezes a layer, or thaws it. Layers that are not there are ignored.
    pub fn set_trainable(&mut self, layer: LayerId, trainable: bool) {
        if let Some(layer) = self.layers.get_mut(layer.0) {
            layer.trainable = trainable;
        }
    }

    /// Shape of a node's result, without the batch dimension.
    pub fn shape(&self, node: NodeId) -> Option<&[usize]> {
        self.nodes.get(node.0).map(|node| node.shape.as_slice())
    }

    /// Calls a layer on nodes (Input layers: on none), and gives the node of the result. Infers the shape; the first call makes
    /// the parameters, further calls share them. Errors name the layer: unknown ids, a wrong number or shape of inputs, arguments
    /// without sense, parameters that do not fit the shapes of a further call.
    pub fn call(&mut self, layer: LayerId, inputs: &[NodeId]) -> Result<NodeId, GraphError> {
        let Some(found) = self.layers.get(layer.0) else {
            return Err(GraphError::model(
                &self.name,
                format!("a call of layer number {}", layer.0),
                format!("a number below {}", self.layers.len()),
                "add the layer to this builder first",
            ));
        };
        let name = found.name.clone();
        if let Some(bad) = inputs.iter().find(|node| node.0 >= self.nodes.len()) {
            return Err(GraphError::layer(
                name,
                format!("input node number {}", bad.0),
                format!("a number below {}", self.nodes.len()),
                "use nodes that this builder's calls gave",
            ));
        }
        let shapes: Vec<&[usize]> = inputs.iter().map(|node| self.nodes[node.0].shape.as_slice()).collect();
        let mut kind = found.kind.clone();
        resolve_depthwise(&mut kind, &shapes);
        let shape = infer_shape(&name, &kind, &shapes)?;
        if matches!(kind, LayerKind::Input { .. }) && self.nodes.iter().any(|node| node.layer == layer) {
            return Err(GraphError::layer(
                name,
                "a second call of an input",
                "one",
                "use the node of the first call again, or add another input",
            ));
        }
        check_size(&name, &shape, "a result")?;
        let specs = param_specs(&kind, &shapes);
        for spec in &specs {
            check_size(&name, &spec.shape, spec.name)?;
        }
        let called = self.nodes.iter().any(|node| node.layer == layer);
        if called {
            let owned = &self.layers[layer.0].params;
            for (id, spec) in owned.iter().zip(&specs) {
                let param = &self.params[id.0];
                if param.shape != spec.shape {
                    return Err(GraphError::layer(
                        name,
                        format!(
                            "an input {} that needs {} of shape {:?}",
                            keras_shape(shapes[0]),
                            spec.name,
                            spec.shape
                        ),
                        format!("the {} of the layer's first call, {:?}", param.name, param.shape),
                        "a shared layer takes inputs of one size: use a layer of its own here",
                    ));
                }
            }
        } else {
            for spec in specs {
                self.layers[layer.0].params.push(ParamId(self.params.len()));
                self.params.push(Param {
                    name: spec.name.to_owned(),
                    layer,
                    shape: spec.shape,
                    trainable: spec.trainable,
                    initializer: spec.initializer,
                });
            }
            self.layers[layer.0].kind = kind;
        }
        self.nodes.push(Node { layer, inputs: inputs.to_vec(), shape });
        Ok(NodeId(self.nodes.len() - 1))
    }

    /// The finished graph. What no output depends on is left out (inputs stay), as Keras does; so ids may change: ask
    /// [`Graph::layer_named`]. Parameters are numbered in the order of layers.
    ///
    /// Errors: no inputs or outputs, an input that is not an Input layer's node or is listed twice, an output that depends on
    /// an input that is not listed.
    pub fn build(self, inputs: Vec<NodeId>, outputs: Vec<NodeId>) -> Result<Graph, GraphError> {
        let wrong =
            |found: String, expected: &str, remedy: &str| GraphError::model(&self.name, found, expected, remedy);
        if inputs.is_empty() || outputs.is_empty() {
            return Err(wrong(
                format!("{} inputs and {} outputs", inputs.len(), outputs.len()),
                "at least one of each",
                "pass the nodes of the Input layers and of the results",
            ));
        }
        for node in inputs.iter().chain(&outputs) {
            if node.0 >= self.nodes.len() {
                return Err(wrong(
                    format!("node number {}", node.0),
                    "a node of this builder",
                    "use nodes that this builder's calls gave",
                ));
            }
        }
        let mut seen = HashSet::new();
        for node in &inputs {
            let layer = &self.layers[self.nodes[node.0].layer.0];
            if !matches!(layer.kind, LayerKind::Input { .. }) {
                return Err(wrong(
                    format!("layer `{}` ({}) as an input", layer.name, layer.kind.class_name()),
                    "an Input layer",
                    "list the Input layer's node",
                ));
            }
            if !seen.insert(*node) {
                return Err(wrong(format!("input `{}` twice", layer.name), "each input once", "list it once"));
            }
        }

        let mut needed = vec![false; self.nodes.len()];
        for node in inputs.iter().chain(&outputs) {
            needed[node.0] = true;
        }
        // Inputs of a node have smaller numbers, so one pass from the end reaches everything.
        for index in (0..self.nodes.len()).rev() {
            if needed[index] {
                for input in &self.nodes[index].inputs {
                    needed[input.0] = true;
                }
            }
        }
        for (index, node) in self.nodes.iter().enumerate() {
            let layer = &self.layers[node.layer.0];
            if needed[index] && matches!(layer.kind, LayerKind::Input { .. }) && !seen.contains(&NodeId(index)) {
                return Err(wrong(
                    format!("outputs that depend on input `{}`, which is not listed", layer.name),
                    "all inputs listed",
                    "add its node to the model's inputs",
                ));
            }
        }

        let mut node_ids = HashMap::new();
        let mut nodes = Vec::new();
        for (index, node) in self.nodes.iter().enumerate().filter(|(index, _)| needed[*index]) {
            node_ids.insert(NodeId(index), NodeId(nodes.len()));
            nodes.push(node.clone());
        }
        let used: HashSet<LayerId> = nodes.iter().map(|node| node.layer).collect();
        let mut layer_ids = HashMap::new();
        let mut layers: Vec<Layer> = Vec::new();
        let mut params = Vec::new();
        for (index, layer) in self.layers.iter().enumerate().filter(|(index, _)| used.contains(&LayerId(*index))) {
            let id = LayerId(layers.len());
            layer_ids.insert(LayerId(index), id);
            let mut layer = layer.clone();
            for slot in &mut layer.params {
                let mut param = self.params[slot.0].clone();
                param.layer = id;
                param.trainable &= layer.trainable;
                *slot = ParamId(params.len());
                params.push(param);
            }
            layers.push(layer);
        }
        for node in &mut nodes {
            node.layer = layer_ids[&node.layer];
            for input in &mut node.inputs {
                *input = node_ids[input];
            }
        }
        Ok(Graph {
            name: self.name,
            layers,
            nodes,
            params,
            inputs: inputs.iter().map(|node| node_ids[node]).collect(),
            outputs: outputs.iter().map(|node| node_ids[node]).collect(),
            sequential: self.sequential,
        })
    }
}

/// Elements that one tensor may have for one sample: more is no network for this machine but a broken or hostile file, and
/// below it no product of sizes overflows.
const TENSOR_ELEMENTS_MAX: usize = 1 << 30;

/// Cells that a pooling window may have along an axis: it has no parameters whose size would bound it.
const POOL_SIZE_MAX: usize = 1 << 16;

fn check_size(layer: &str, shape: &[usize], what: &str) -> Result<(), GraphError> {
    let elements = shape.iter().try_fold(1_usize, |product, size| product.checked_mul(*size));
    match elements {
        Some(elements) if elements <= TENSOR_ELEMENTS_MAX => Ok(()),
        _ => Err(GraphError::layer(
            layer,
            format!("{what} of shape {shape:?}"),
            format!("at most {TENSOR_ELEMENTS_MAX} elements"),
            "correct the layer's sizes",
        )),
    }
}

/// Puts the channels into a depthwise convolution that was added without knowing them.
fn resolve_depthwise(kind: &mut LayerKind, shapes: &[&[usize]]) {
    if let LayerKind::Conv(conv) = kind
        && conv.depthwise
        && conv.groups == 0
        && let [shape] = shapes
        && let Some((_, channels)) = spatial(shape, conv.rank)
    {
        conv.groups = channels;
        conv.filters = conv.filters.saturating_mul(channels);
    }
}

/// A parameter that a layer is to have.
struct ParamSpec {
    name: &'static str,
    shape: Vec<usize>,
    trainable: bool,
    initializer: Initializer,
}

/// The parameters of a layer for inputs whose shapes have been checked.
fn param_specs(kind: &LayerKind, shapes: &[&[usize]]) -> Vec<ParamSpec> {
    let param = |name, shape, initializer| ParamSpec { name, shape, trainable: true, initializer };
    let last = || shapes.first().and_then(|shape| shape.last()).copied().unwrap_or(1);
    match kind {
        LayerKind::Dense(Dense { units, use_bias, kernel_initializer, bias_initializer, .. }) => {
            let mut specs = vec![param("kernel", vec![last(), *units], *kernel_initializer)];
            if *use_bias {
                specs.push(param("bias", vec![*units], *bias_initializer));
            }
            specs
        }
        LayerKind::Conv(conv) => {
            let mut shape = conv.kernel_size[2 - conv.rank..].to_vec();
            if conv.depthwise {
                shape.extend([last(), conv.depth_multiplier()]);
            } else {
                shape.extend([last() / conv.groups, conv.filters]);
            }
            let mut specs = vec![param("kernel", shape, conv.kernel_initializer)];
            if conv.use_bias {
                specs.push(param("bias", vec![conv.filters], conv.bias_initializer));
            }
            specs
        }
        LayerKind::BatchNormalization(BatchNormalization { center, scale, .. }) => {
            let mut specs = Vec::new();
            if *scale {
                specs.push(param("gamma", vec![last()], Initializer::Ones));
            }
            if *center {
                specs.push(param("beta", vec![last()], Initializer::Zeros));
            }
            for (name, initializer) in [("moving_mean", Initializer::Zeros), ("moving_variance", Initializer::Ones)] {
                specs.push(ParamSpec { name, shape: vec![last()], trainable: false, initializer });
            }
            specs
        }
        _ => Vec::new(),
    }
}

/// The shape that a layer gives for inputs of these shapes (all without the batch dimension).
pub(crate) fn infer_shape(name: &str, kind: &LayerKind, shapes: &[&[usize]]) -> Result<Vec<usize>, GraphError> {
    let wrong = |found: String, expected: &str, remedy: &str| Err(GraphError::layer(name, found, expected, remedy));
    let inputs_wanted = match kind {
        LayerKind::Input { .. } => 0..=0,
        LayerKind::Add | LayerKind::Multiply | LayerKind::Concatenate { .. } => 1..=usize::MAX,
        _ => 1..=1,
    };
    if !inputs_wanted.contains(&shapes.len()) {
        let expected = match kind {
            LayerKind::Input { .. } => "none",
            LayerKind::Add | LayerKind::Multiply | LayerKind::Concatenate { .. } => "at least one",
            _ => "one",
        };
        return wrong(
            format!("{} inputs to {}", shapes.len(), kind.class_name()),
            expected,
            "call the layer with as many nodes as it takes",
        );
    }
    let input = shapes.first().copied().unwrap_or(&[]);
    let rank_error = |rank: usize| {
        let (expected, example) = if rank == 1 {
            ("(None, length, channels)", "Reshape or Input::shape([length, channels])")
        } else {
            ("(None, height, width, channels)", "Reshape or Input::shape([height, width, channels])")
        };
        GraphError::layer(
            name,
            format!("input {}", keras_shape(input)),
            expected,
            format!("give the input that many dimensions, for one by {example}"),
        )
    };
    match kind {
        LayerKind::Input { shape } => {
            if shape.contains(&0) {
                return wrong(
                    format!("shape {}", keras_shape(shape)),
                    "sizes of at least 1",
                    "give every dimension but the batch a fixed size",
                );
            }
            Ok(shape.clone())
        }
        LayerKind::Dense(dense) => {
            if dense.units == 0 {
                return wrong("units 0".into(), "at least 1", "set units");
            }
            let Some((_, head)) = input.split_last() else {
                return wrong(
                    format!("input {}", keras_shape(input)),
                    "(None, .., features)",
                    "give the input a dimension of features",
                );
            };
            Ok(head.iter().copied().chain([dense.units]).collect())
        }
        LayerKind::Conv(conv) => infer_conv(name, conv, input, rank_error),
        LayerKind::Pool(pool) => {
            let Some((_, channels)) = spatial(input, pool.rank) else { return Err(rank_error(pool.rank)) };
            if pool.padding == crate::Padding::Causal {
                return wrong("padding causal".into(), "valid or same", "causal padding is for Conv1D");
            }
            if pool.pool_size.iter().any(|size| *size > POOL_SIZE_MAX) {
                return wrong(
                    format!("pool_size {:?}", pool.pool_size),
                    "sizes of at most 65536",
                    "correct pool_size; global pooling takes all positions",
                );
            }
            let Some(axes) = pool.axes(input) else {
                return wrong(
                    format!(
                        "input {} for windows {:?} of strides {:?}",
                        keras_shape(input),
                        pool.pool_size,
                        pool.strides
                    ),
                    "an input of at least one window, sizes and strides of at least 1",
                    "use padding same, a smaller pool_size, or fewer layers that shrink the picture",
                );
            };
            Ok(from_axes(pool.rank, [axes[0].output, axes[1].output], channels))
        }
        LayerKind::GlobalPool { rank, keepdims, .. } => {
            let Some((_, channels)) = spatial(input, *rank) else { return Err(rank_error(*rank)) };
            Ok(if *keepdims { from_axes(*rank, [1, 1], channels) } else { vec![channels] })
        }
        LayerKind::Flatten => Ok(vec![input.iter().product()]),
        LayerKind::Reshape { target_shape } => infer_reshape(name, target_shape, input),
        LayerKind::ZeroPadding { rank, padding } => {
            let Some((cells, channels)) = spatial(input, *rank) else { return Err(rank_error(*rank)) };
            let padded = [0, 1].map(|i| cells[i].saturating_add(padding[i][0]).saturating_add(padding[i][1]));
            Ok(from_axes(*rank, padded, channels))
        }
        LayerKind::Activation(crate::Activation::Softmax) if input.is_empty() => wrong(
            format!("input {}", keras_shape(input)),
            "(None, .., classes)",
            "softmax goes over the last axis: give the input one",
        ),
        LayerKind::Activation(_) => Ok(input.to_vec()),
        LayerKind::Dropout { rate, .. } => {
            if !(0.0..1.0).contains(rate) {
                return wrong(
                    format!("rate {rate}"),
                    "at least 0 and below 1",
                    "set rate to the share of elements to drop",
                );
            }
            Ok(input.to_vec())
        }
        LayerKind::Add | LayerKind::Multiply => infer_broadcast(name, shapes),
        LayerKind::Concatenate { axis } => infer_concatenate(name, *axis, shapes),
        LayerKind::BatchNormalization(norm) => {
            if input.is_empty() {
                return wrong(
                    format!("input {}", keras_shape(input)),
                    "(None, .., channels)",
                    "give the input a dimension of channels",
                );
            }
            if norm.epsilon.is_nan() || norm.epsilon <= 0.0 || !(0.0..=1.0).contains(&norm.momentum) {
                return wrong(
                    format!("epsilon {}, momentum {}", norm.epsilon, norm.momentum),
                    "epsilon above 0, momentum from 0 to 1",
                    "Keras' defaults are 0.001 and 0.99",
                );
            }
            Ok(input.to_vec())
        }
    }
}

/// `[width, channels]` or `[height, width, channels]`.
fn from_axes(rank: usize, cells: [usize; 2], channels: usize) -> Vec<usize> {
    if rank == 1 { vec![cells[1], channels] } else { vec![cells[0], cells[1], channels] }
}

fn infer_conv(
    name: &str,
    conv: &Conv,
    input: &[usize],
    rank_error: impl Fn(usize) -> GraphError,
) -> Result<Vec<usize>, GraphError> {
    let wrong = |found: String, expected: &str, remedy: &str| Err(GraphError::layer(name, found, expected, remedy));
    let Some((_, channels)) = spatial(input, conv.rank) else { return Err(rank_error(conv.rank)) };
    if conv.filters == 0 || conv.groups == 0 {
        return wrong(
            format!("filters {}, groups {}", conv.filters, conv.groups),
            "at least 1 of each",
            "set filters and groups",
        );
    }
    if conv.depthwise && conv.groups != channels {
        return wrong(
            format!("an input of {channels} channels"),
            &format!("{} channels, as in the layer's first call", conv.groups),
            "a shared layer takes inputs of one size: use a layer of its own here",
        );
    }
    if !channels.is_multiple_of(conv.groups) || !conv.filters.is_multiple_of(conv.groups) {
        return wrong(
            format!("{channels} input channels and {} filters in {} groups", conv.filters, conv.groups),
            "channels and filters that are multiples of groups",
            "change groups or filters",
        );
    }
    if conv.padding == crate::Padding::Causal && conv.rank != 1 {
        return wrong("padding causal".into(), "valid or same", "causal padding is for Conv1D");
    }
    let Some(axes) = conv.axes(input) else {
        return wrong(
            format!(
                "input {} for a kernel {:?} of strides {:?} and dilation {:?}",
                keras_shape(input),
                &conv.kernel_size[2 - conv.rank..],
                &conv.strides[2 - conv.rank..],
                &conv.dilation_rate[2 - conv.rank..]
            ),
            "an input at least as large as the kernel, and sizes of at least 1",
            "use padding same, a smaller kernel, or fewer layers that shrink the picture",
        );
    };
    Ok(from_axes(conv.rank, [axes[0].output, axes[1].output], conv.filters))
}

fn infer_reshape(name: &str, target: &[i64], input: &[usize]) -> Result<Vec<usize>, GraphError> {
    let wrong = || {
        GraphError::layer(
            name,
            format!("target_shape {target:?} for input {}", keras_shape(input)),
            format!("a shape of {} elements, at most one size -1", input.iter().product::<usize>()),
            "correct target_shape (without the batch dimension)",
        )
    };
    let elements: usize = input.iter().product();
    let mut known = 1_usize;
    let mut free = None;
    let mut shape = Vec::with_capacity(target.len());
    for (index, &size) in target.iter().enumerate() {
        match usize::try_from(size) {
            Ok(size) if size > 0 => {
                known = known.checked_mul(size).ok_or_else(wrong)?;
                shape.push(size);
            }
            _ if size == -1 && free.is_none() => {
                free = Some(index);
                shape.push(0);
            }
            _ => return Err(wrong()),
        }
    }
    if !elements.is_multiple_of(known) {
        return Err(wrong());
    }
    match free {
        Some(index) => shape[index] = elements / known,
        None if known != elements => return Err(wrong()),
        None => {}
    }
    Ok(shape)
}

/// Shapes of Add and Multiply: aligned at the last dimension, a size of 1 (or a missing dimension) stretches.
fn infer_broadcast(name: &str, shapes: &[&[usize]]) -> Result<Vec<usize>, GraphError> {
    let rank = shapes.iter().map(|shape| shape.len()).max().unwrap_or(0);
    let mut result = vec![1; rank];
    for shape in shapes {
        for (offset, &size) in shape.iter().rev().enumerate() {
            let slot = &mut result[rank - 1 - offset];
            if *slot == 1 {
                *slot = size;
            } else if size != 1 && size != *slot {
                let list: Vec<String> = shapes.iter().map(|shape| keras_shape(shape)).collect();
                return Err(GraphError::layer(
                    name,
                    format!("inputs {}", list.join(" and ")),
                    "equal shapes, or sizes of 1 where they differ",
                    "bring the inputs to one shape, for one by a 1x1 convolution, Reshape or Dense",
                ));
            }
        }
    }
    Ok(result)
}

/// The axis of a Concatenate among the dimensions without the batch.
pub(crate) fn concatenate_axis(axis: isize, rank: usize) -> Option<usize> {
    let rank_with_batch = isize::try_from(rank).ok()?.checked_add(1)?;
    let axis = if axis < 0 { axis.checked_add(rank_with_batch)? } else { axis };
    (1..rank_with_batch).contains(&axis).then(|| usize::try_from(axis - 1).ok())?
}

fn infer_concatenate(name: &str, axis: isize, shapes: &[&[usize]]) -> Result<Vec<usize>, GraphError> {
    let list = || shapes.iter().map(|shape| keras_shape(shape)).collect::<Vec<_>>().join(" and ");
    let Some(along) = concatenate_axis(axis, shapes[0].len()) else {
        return Err(GraphError::layer(
            name,
            format!("axis {axis} for inputs {}", list()),
            "an axis of the inputs other than the batch (axis 0)",
            "set axis; -1 is the last",
        ));
    };
    let mut result = shapes[0].to_vec();
    for shape in &shapes[1..] {
        let agree = shape.len() == result.len()
            && shape.iter().zip(&result).enumerate().all(|(index, (a, b))| index == along || a == b);
        if !agree {
            return Err(GraphError::layer(
                name,
                format!("inputs {}", list()),
                format!("shapes that differ at most in axis {axis}"),
                "pad, crop or reshape the inputs, or choose another axis",
            ));
        }
        result[along] += shape[along];
    }
    Ok(result)
}
