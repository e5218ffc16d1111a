//! The graph: layers, calls of layers (nodes), and their parameters.

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
