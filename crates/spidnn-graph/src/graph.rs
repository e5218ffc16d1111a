//! The graph: layers, calls of layers (nodes), and their parameters.

use crate::geometry::Axis;
use crate::{Initializer, LayerKind};

/// A layer of a [`Graph`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LayerId(pub usize);

/// A node: one call of a layer, and the tensor that it gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub usize);

/// A parameter (Keras: variable), numbered in the order of Keras' `get_weights()`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ParamId(pub usize);

/// A layer: what it does, and its parameters. Several nodes may call one layer (shared layers).
#[derive(Debug, Clone, PartialEq)]
pub struct Layer {
    /// Unique name.
    pub name: String,
    /// What it does.
    pub kind: LayerKind,
    /// Its parameters, in Keras' order (Dense: kernel, bias; BatchNormalization: gamma, beta, moving mean, moving variance).
    pub params: Vec<ParamId>,
    /// Whether its parameters are trained.
    pub trainable: bool,
}

/// A parameter.
#[derive(Debug, Clone, PartialEq)]
pub struct Param {
    /// Name inside the layer: `kernel`, `bias`, `gamma`, ..
    pub name: String,
    /// The layer that owns it.
    pub layer: LayerId,
    /// Shape, as Keras has it (Dense kernel `[in, units]`; Conv2D `[kh, kw, in / groups, filters]`; Conv1D `[k, in / groups, filters]`).
    pub shape: Vec<usize>,
    /// Whether training changes it.
    pub trainable: bool,
    /// How it starts.
    pub initializer: Initializer,
}

/// A call of a layer.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// The layer.
    pub layer: LayerId,
    /// Its inputs, earlier nodes.
    pub inputs: Vec<NodeId>,
    /// Shape of the result without the batch dimension.
    pub shape: Vec<usize>,
}

/// A network with static shapes. Nodes are in an order in which inputs come before their users; layers and parameters are in
/// Keras' order.
#[derive(Debug, Clone, PartialEq)]
pub struct Graph {
    /// Name of the model.
    pub name: String,
    /// Layers, in Keras' order.
    pub layers: Vec<Layer>,
    /// Nodes, in execution order.
    pub nodes: Vec<Node>,
    /// Parameters, in `get_weights()` order.
    pub params: Vec<Param>,
    /// Input nodes, in the model's order.
    pub inputs: Vec<NodeId>,
    /// Output nodes, in the model's order.
    pub outputs: Vec<NodeId>,
    /// Whether the model is Keras `Sequential` (else functional): how it is written to files.
    pub sequential: bool,
}

impl Graph {
    /// A layer. Panics when the id is of another graph.
    pub fn layer(&self, id: LayerId) -> &Layer {
        &self.layers[id.0]
    }

    /// A node. Panics when the id is of another graph.
    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.0]
    }

    /// A parameter. Panics when the id is of another graph.
    pub fn param(&self, id: ParamId) -> &Param {
        &self.params[id.0]
    }

    /// The layer that a node calls.
    pub fn layer_of(&self, node: NodeId) -> &Layer {
        self.layer(self.node(node).layer)
    }

    /// The layer of this name.
    pub fn layer_named(&self, name: &str) -> Option<LayerId> {
        self.layers.iter().position(|layer| layer.name == name).map(LayerId)
    }

    /// `layer/parameter`, as errors and files name it.
    pub fn param_path(&self, id: ParamId) -> String {
        let param = self.param(id);
        format!("{}/{}", self.layer(param.layer).name, param.name)
    }

    /// All node ids, in execution order.
    pub fn node_ids(&self) -> impl DoubleEndedIterator<Item = NodeId> + use<> {
        (0..self.nodes.len()).map(NodeId)
    }

    /// The nodes that call a layer, in execution order.
    pub fn calls(&self, layer: LayerId) -> Vec<NodeId> {
        self.node_ids().filter(|node| self.node(*node).layer == layer).collect()
    }

    /// The nodes that use a node's result, in execution order; one that uses it twice is there once.
    pub fn consumers(&self, node: NodeId) -> Vec<NodeId> {
        self.node_ids().filter(|user| self.node(*user).inputs.contains(&node)).collect()
    }

    /// Shape of the `index`th input of a node, without the batch dimension. Panics when there is none.
    pub fn input_shape(&self, node: NodeId, index: usize) -> &[usize] {
        &self.node(self.node(node).inputs[index]).shape
    }

    /// The windows of a convolution or pooling node along its two spatial axes (rank 1: the first is [`Axis::UNIT`]); `None`
    /// for other layers.
    pub fn axes(&self, node: NodeId) -> Option<[Axis; 2]> {
        match &self.layer_of(node).kind {
            LayerKind::Conv(conv) => conv.axes(self.input_shape(node, 0)),
            LayerKind::Pool(pool) => pool.axes(self.input_shape(node, 0)),
            _ => None,
        }
    }

    /// Multiply-accumulates of a node for one sample: those of Dense and convolutions, with the taps that fall on padding;
    /// 0 for other layers.
    pub fn macs(&self, node: NodeId) -> u64 {
        let outputs = self.node(node).shape.iter().product::<usize>() as u64;
        match &self.layer_of(node).kind {
            LayerKind::Dense(_) => outputs * self.input_shape(node, 0).last().copied().unwrap_or(0) as u64,
            LayerKind::Conv(conv) => {
                let channels = self.input_shape(node, 0).last().copied().unwrap_or(0);
                let taps = conv.kernel_size[0] * conv.kernel_size[1];
                outputs * (taps * channels / conv.groups.max(1)) as u64
            }
            _ => 0,
        }
    }

    /// Multiply-accumulates of one sample through the whole graph.
    pub fn total_macs(&self) -> u64 {
        self.node_ids().map(|node| self.macs(node)).sum()
    }

    /// Elements of a layer's parameters.
    pub fn layer_parameter_count(&self, layer: LayerId) -> usize {
        self.layer(layer).params.iter().map(|id| self.param(*id).element_count()).sum()
    }

    /// Elements of all parameters.
    pub fn parameter_count(&self) -> usize {
        self.params.iter().map(Param::element_count).sum()
    }

    /// Elements of the parameters that training changes.
    pub fn trainable_parameter_count(&self) -> usize {
        self.params.iter().filter(|param| param.trainable).map(Param::element_count).sum()
    }
}

impl Graph {
    /// The order in which Keras lists the layers of a functional model (and so `get_weights()`): farthest from the outputs first;
    /// among equals, as a walk from the outputs to the inputs meets them.
    pub fn keras_layer_order(&self) -> Vec<LayerId> {
        let mut walk = Walk {
            met: vec![usize::MAX; self.layers.len()],
            finished: vec![false; self.nodes.len()],
            order: Vec::new(),
        };
        for output in &self.outputs {
            walk.visit(self, *output);
        }
        let mut node_depth = vec![0_usize; self.nodes.len()];
        let mut layer_depth = vec![0_usize; self.layers.len()];
        for node in walk.order.iter().rev() {
            let layer = self.node(*node).layer.0;
            let depth = node_depth[node.0].max(layer_depth[layer]);
            node_depth[node.0] = depth;
            layer_depth[layer] = depth;
            for input in &self.node(*node).inputs {
                node_depth[input.0] = node_depth[input.0].max(depth + 1);
            }
        }
        let mut order: Vec<LayerId> = (0..self.layers.len()).map(LayerId).collect();
        // An input that no output depends on was not met: Keras puts it before the others of depth 0.
        order.sort_by_key(|layer| (std::cmp::Reverse(layer_depth[layer.0]), walk.met[layer.0].wrapping_add(1)));
        order
    }

    /// The same graph with its layers and parameters renumbered: `order[i]` becomes layer `i`. Panics unless `order` holds each
    /// layer once.
    pub fn with_layer_order(mut self, order: &[LayerId]) -> Self {
        assert_eq!(order.len(), self.layers.len(), "an order of all layers");
        let mut new_layer = vec![LayerId(usize::MAX); order.len()];
        let mut layers = Vec::with_capacity(order.len());
        let mut params = Vec::with_capacity(self.params.len());
        for (index, old) in order.iter().enumerate() {
            assert_eq!(new_layer[old.0], LayerId(usize::MAX), "each layer once");
            new_layer[old.0] = LayerId(index);
            let mut layer = self.layers[old.0].clone();
            for slot in &mut layer.params {
                let mut param = self.params[slot.0].clone();
                param.layer = LayerId(index);
                *slot = ParamId(params.len());
                params.push(param);
            }
            layers.push(layer);
        }
        for node in &mut self.nodes {
            node.layer = new_layer[node.layer.0];
        }
        self.layers = layers;
        self.params = params;
        self
    }
}

/// Keras' walk from an output to the inputs, depth first.
struct Walk {
    /// For each layer when it was met; `usize::MAX`: not yet.
    met: Vec<usize>,
    finished: Vec<bool>,
    /// Nodes, each after those that it depends on.
    order: Vec<NodeId>,
}

impl Walk {
    fn visit(&mut self, graph: &Graph, output: NodeId) {
        // A stack of its own: models may be deeper than the thread's stack. Each entry: a node, and which input is next.
        let mut stack = Vec::new();
        self.enter(graph, output, &mut stack);
        while let Some((node, next)) = stack.last_mut() {
            if let Some(&input) = graph.node(*node).inputs.get(*next) {
                *next += 1;
                self.enter(graph, input, &mut stack);
            } else {
                self.finished[node.0] = true;
                self.order.push(*node);
                stack.pop();
            }
        }
    }

    fn enter(&mut self, graph: &Graph, node: NodeId, stack: &mut Vec<(NodeId, usize)>) {
        if self.finished[node.0] {
            return;
        }
        let layer = graph.node(node).layer.0;
        if self.met[layer] == usize::MAX {
            self.met[layer] = self.met.iter().filter(|met| **met != usize::MAX).count();
        }
        stack.push((node, 0));
    }
}

impl Param {
    /// Elements of its tensor.
    pub fn element_count(&self) -> usize {
        self.shape.iter().product()
    }
}
