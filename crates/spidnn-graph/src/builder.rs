//! Networks in Keras' words: layers with Keras' names, arguments and defaults, [`Sequential`] and [`Functional`] models.
//!
//! ```
//! use spidnn_graph::builder::*;
//! use spidnn_graph::{Activation, Padding};
//! let graph = Sequential::new(Input::shape([28, 28, 1]))
//!     .with(Conv2D::new(6, 5).padding(Padding::Same).activation(Activation::Tanh))
//!     .with(AveragePooling2D::new(2))
//!     .with(Flatten::new())
//!     .with(Dense::new(10).activation(Activation::Softmax))
//!     .build()?;
//! assert_eq!(graph.parameter_count(), 156 + 11_770);
//! assert_eq!(graph.layers[1].name, "conv2d");
//! # Ok::<(), spidnn_graph::GraphError>(())
//! ```

use std::collections::HashSet;

use crate::layer::{self, PoolMode};
use crate::{Activation, Graph, GraphBuilder, GraphError, Initializer, LayerId, LayerKind, NodeId, Padding};

/// A layer before it is part of a model: what it does, its name if one was given, and whether it is trained.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerSpec {
    /// Keras' name for layers of this kind in lower case, from which names are made: `conv2d`.
    pub base_name: &'static str,
    /// The name given by the user.
    pub name: Option<String>,
    /// What the layer does.
    pub kind: LayerKind,
    /// Whether its parameters are trained.
    pub trainable: bool,
}

/// What can be put into a model.
pub trait IntoLayer {
    /// The layer's data.
    fn into_layer(self) -> LayerSpec;
}

impl IntoLayer for LayerSpec {
    fn into_layer(self) -> LayerSpec {
        self
    }
}

/// A size of one or two spatial dimensions: `5` stands for `[5, 5]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size2(pub [usize; 2]);

impl From<usize> for Size2 {
    fn from(size: usize) -> Self {
        Self([size, size])
    }
}

impl From<[usize; 2]> for Size2 {
    fn from(size: [usize; 2]) -> Self {
        Self(size)
    }
}

impl From<(usize, usize)> for Size2 {
    fn from(size: (usize, usize)) -> Self {
        Self([size.0, size.1])
    }
}

macro_rules! layer_type {
    ($(#[$doc:meta])* $name:ident, $base:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq)]
        pub struct $name(LayerSpec);

        impl $name {
            fn of(kind: LayerKind) -> Self {
                Self(LayerSpec { base_name: $base, name: None, kind, trainable: true })
            }

            /// Names the layer; without a name it gets Keras' (`dense`, `dense_1`, ..).
            pub fn name(mut self, name: &str) -> Self {
                self.0.name = Some(name.to_owned());
                self
            }

            /// Whether its parameters are trained (they are, unless told otherwise).
            pub fn trainable(mut self, yes: bool) -> Self {
                self.0.trainable = yes;
                self
            }
        }

        impl IntoLayer for $name {
            fn into_layer(self) -> LayerSpec {
                self.0
            }
        }
    };
}

/// Setters of a field of the kind's struct; the variant is what the constructor made, so the pattern always fits.
macro_rules! setters {
    ($name:ident, $variant:ident: $($(#[$doc:meta])* $field:ident: $type:ty),+ $(,)?) => {
        impl $name {
            $($(#[$doc])*
            pub fn $field(mut self, $field: $type) -> Self {
                if let LayerKind::$variant(data) = &mut self.0.kind {
                    data.$field = $field;
                }
                self
            })+
        }
    };
}

layer_type!(
    /// A model's input.
    Input, "input_layer"
);

impl Input {
    /// Shape without the batch dimension.
    pub fn shape(shape: impl Into<Vec<usize>>) -> Self {
        Self::of(LayerKind::Input { shape: shape.into() })
    }
}

layer_type!(
    /// Fully connected: `activation(x . kernel + bias)` over the last axis.
    Dense, "dense"
);

impl Dense {
    /// Keras' defaults: linear, with bias, kernel Glorot uniform, bias zero.
    pub fn new(units: usize) -> Self {
        Self::of(LayerKind::Dense(layer::Dense {
            units,
            activation: Activation::Linear,
            use_bias: true,
            kernel_initializer: Initializer::GlorotUniform { seed: None },
            bias_initializer: Initializer::Zeros,
        }))
    }
}

setters!(
    Dense, Dense:
    /// Applied to the result.
    activation: Activation,
    /// Whether there is a bias.
    use_bias: bool,
    /// How the kernel starts.
    kernel_initializer: Initializer,
    /// How the bias starts.
    bias_initializer: Initializer,
);

fn conv(rank: usize, filters: usize, kernel_size: [usize; 2], depthwise: bool) -> LayerKind {
    LayerKind::Conv(layer::Conv {
        rank,
        filters,
        kernel_size,
        strides: [1, 1],
        dilation_rate: [1, 1],
        padding: Padding::Valid,
        groups: if depthwise { 0 } else { 1 },
        depthwise,
        activation: Activation::Linear,
        use_bias: true,
        kernel_initializer: Initializer::GlorotUniform { seed: None },
        bias_initializer: Initializer::Zeros,
    })
}

layer_type!(
    /// Convolution along one axis; inputs `(length, channels)`.
    Conv1D, "conv1d"
);

impl Conv1D {
    /// Keras' defaults: stride and dilation 1, one group, no padding, linear, with bias.
    pub fn new(filters: usize, kernel_size: usize) -> Self {
        Self::of(conv(1, filters, [1, kernel_size], false))
    }

    /// Cells from one window to the next.
    pub fn strides(mut self, strides: usize) -> Self {
        if let LayerKind::Conv(data) = &mut self.0.kind {
            data.strides = [1, strides];
        }
        self
    }

    /// Cells from one tap to the next.
    pub fn dilation_rate(mut self, dilation_rate: usize) -> Self {
        if let LayerKind::Conv(data) = &mut self.0.kind {
            data.dilation_rate = [1, dilation_rate];
        }
        self
    }
}

layer_type!(
    /// Convolution of pictures; inputs `(height, width, channels)`.
    Conv2D, "conv2d"
);

impl Conv2D {
    /// Keras' defaults: stride and dilation 1, one group, no padding, linear, with bias.
    pub fn new(filters: usize, kernel_size: impl Into<Size2>) -> Self {
        Self::of(conv(2, filters, kernel_size.into().0, false))
    }

    /// Cells from one window to the next.
    pub fn strides(mut self, strides: impl Into<Size2>) -> Self {
        if let LayerKind::Conv(data) = &mut self.0.kind {
            data.strides = strides.into().0;
        }
        self
    }

    /// Cells from one tap to the next.
    pub fn dilation_rate(mut self, dilation_rate: impl Into<Size2>) -> Self {
        if let LayerKind::Conv(data) = &mut self.0.kind {
            data.dilation_rate = dilation_rate.into().0;
        }
        self
    }
}

layer_type!(
    /// Convolution of each channel by itself.
    DepthwiseConv2D, "depthwise_conv2d"
);

impl DepthwiseConv2D {
    /// Keras' defaults: one output channel for each input channel, stride and dilation 1, no padding, linear, with bias.
    pub fn new(kernel_size: impl Into<Size2>) -> Self {
        Self::of(conv(2, 1, kernel_size.into().0, true))
    }

    /// Output channels for each input channel.
    pub fn depth_multiplier(mut self, depth_multiplier: usize) -> Self {
        if let LayerKind::Conv(data) = &mut self.0.kind {
            data.filters = depth_multiplier;
        }
        self
    }

    /// Cells from one window to the next.
    pub fn strides(mut self, strides: impl Into<Size2>) -> Self {
        if let LayerKind::Conv(data) = &mut self.0.kind {
            data.strides = strides.into().0;
        }
        self
    }

    /// Cells from one tap to the next.
    pub fn dilation_rate(mut self, dilation_rate: impl Into<Size2>) -> Self {
        if let LayerKind::Conv(data) = &mut self.0.kind {
            data.dilation_rate = dilation_rate.into().0;
        }
        self
    }

    /// How the kernel starts.
    pub fn depthwise_initializer(mut self, initializer: Initializer) -> Self {
        if let LayerKind::Conv(data) = &mut self.0.kind {
            data.kernel_initializer = initializer;
        }
        self
    }
}

macro_rules! conv_setters {
    ($name:ident $(, $(#[$doc:meta])* $field:ident: $type:ty)*) => {
        setters!(
            $name, Conv:
            /// Border handling.
            padding: Padding,
            /// Applied to the result.
            activation: Activation,
            /// Whether there is a bias.
            use_bias: bool,
            /// How the bias starts.
            bias_initializer: Initializer,
            $($(#[$doc])* $field: $type,)*
        );
    };
}

conv_setters!(Conv1D, /** Groups of channels that see each other. */ groups: usize, /** How the kernel starts. */ kernel_initializer: Initializer);
conv_setters!(Conv2D, /** Groups of channels that see each other. */ groups: usize, /** How the kernel starts. */ kernel_initializer: Initializer);
conv_setters!(DepthwiseConv2D);

macro_rules! pooling {
    ($(#[$doc:meta])* $name1:ident, $base1:literal, $(#[$doc2:meta])* $name2:ident, $base2:literal, $mode:expr) => {
        layer_type!($(#[$doc])* $name1, $base1);

        impl $name1 {
            /// Keras' defaults: strides equal to the pool size, no padding. (Keras' default pool size is 2.)
            pub fn new(pool_size: usize) -> Self {
                Self::of(LayerKind::Pool(layer::Pool {
                    rank: 1,
                    mode: $mode,
                    pool_size: [1, pool_size],
                    strides: [1, pool_size],
                    padding: Padding::Valid,
                }))
            }

            /// Cells from one window to the next.
            pub fn strides(mut self, strides: usize) -> Self {
                if let LayerKind::Pool(data) = &mut self.0.kind {
                    data.strides = [1, strides];
                }
                self
            }
        }

        setters!($name1, Pool: /** Border handling. */ padding: Padding);

        layer_type!($(#[$doc2])* $name2, $base2);

        impl $name2 {
            /// Keras' defaults: strides equal to the pool size, no padding. (Keras' default pool size is 2.)
            pub fn new(pool_size: impl Into<Size2>) -> Self {
                let pool_size = pool_size.into().0;
                Self::of(LayerKind::Pool(layer::Pool {
                    rank: 2,
                    mode: $mode,
                    pool_size,
                    strides: pool_size,
                    padding: Padding::Valid,
                }))
            }

            /// Cells from one window to the next.
            pub fn strides(mut self, strides: impl Into<Size2>) -> Self {
                if let LayerKind::Pool(data) = &mut self.0.kind {
                    data.strides = strides.into().0;
                }
                self
            }
        }

        setters!($name2, Pool: /** Border handling. */ padding: Padding);
    };
}

pooling!(
    /// Largest value of each window along one axis.
    MaxPooling1D, "max_pooling1d",
    /// Largest value of each window.
    MaxPooling2D, "max_pooling2d",
    PoolMode::Max
);
pooling!(
    /// Mean of each window along one axis; windows over the border count only the cells that are there.
    AveragePooling1D, "average_pooling1d",
    /// Mean of each window; windows over the border count only the cells that are there.
    AveragePooling2D, "average_pooling2d",
    PoolMode::Average
);

macro_rules! global_pooling {
    ($($(#[$doc:meta])* $name:ident, $base:literal, $rank:literal, $mode:expr;)+) => {
        $(layer_type!($(#[$doc])* $name, $base);

        impl $name {
            /// The positions vanish from the shape.
            #[allow(clippy::new_without_default)]
            pub fn new() -> Self {
                Self::of(LayerKind::GlobalPool { rank: $rank, mode: $mode, keepdims: false })
            }

            /// Whether the positions stay in the shape, with size 1.
            pub fn keepdims(mut self, yes: bool) -> Self {
                if let LayerKind::GlobalPool { keepdims, .. } = &mut self.0.kind {
                    *keepdims = yes;
                }
                self
            }
        })+
    };
}

global_pooling!(
    /// Mean over all positions of `(length, channels)`.
    GlobalAveragePooling1D, "global_average_pooling1d", 1, PoolMode::Average;
    /// Mean over all positions of `(height, width, channels)`.
    GlobalAveragePooling2D, "global_average_pooling2d", 2, PoolMode::Average;
    /// Largest value over all positions of `(length, channels)`.
    GlobalMaxPooling1D, "global_max_pooling1d", 1, PoolMode::Max;
    /// Largest value over all positions of `(height, width, channels)`.
    GlobalMaxPooling2D, "global_max_pooling2d", 2, PoolMode::Max;
);

macro_rules! plain_layers {
    ($($(#[$doc:meta])* $name:ident, $base:literal, $kind:expr;)+) => {
        $(layer_type!($(#[$doc])* $name, $base);

        impl $name {
            /// The layer.
            #[allow(clippy::new_without_default)]
            pub fn new() -> Self {
                Self::of($kind)
            }
        })+
    };
}

plain_layers!(
    /// All dimensions but the batch become one, the last varying fastest.
    Flatten, "flatten", LayerKind::Flatten;
    /// Sum of its inputs.
    Add, "add", LayerKind::Add;
    /// Element-wise product of its inputs.
    Multiply, "multiply", LayerKind::Multiply;
    /// Softmax over the last axis.
    Softmax, "softmax", LayerKind::Activation(Activation::Softmax);
    /// `max(x, 0)`.
    ReLU, "re_lu", LayerKind::Activation(Activation::Relu);
);

impl ReLU {
    /// `min(max(x, 0), max_value)`.
    pub fn max_value(mut self, max_value: f32) -> Self {
        self.0.kind = LayerKind::Activation(Activation::ClippedRelu { max_value });
        self
    }
}

layer_type!(
    /// `x` where positive, else `negative_slope * x`.
    LeakyReLU, "leaky_re_lu"
);

impl LeakyReLU {
    /// Keras' default is 0.3.
    pub fn new(negative_slope: f32) -> Self {
        Self::of(LayerKind::Activation(Activation::LeakyRelu { negative_slope }))
    }
}

layer_type!(
    /// `x` where positive, else `alpha * (exp(x) - 1)`.
    ELU, "elu"
);

impl ELU {
    /// Keras' default is 1.
    pub fn new(alpha: f32) -> Self {
        Self::of(LayerKind::Activation(Activation::Elu { alpha }))
    }
}

layer_type!(
    /// The same elements in another shape.
    Reshape, "reshape"
);

impl Reshape {
    /// Shape without the batch dimension; one size may be -1: what remains.
    pub fn new(target_shape: impl Into<Vec<i64>>) -> Self {
        Self::of(LayerKind::Reshape { target_shape: target_shape.into() })
    }
}

layer_type!(
    /// Zeros before and after, along one axis.
    ZeroPadding1D, "zero_padding1d"
);

impl ZeroPadding1D {
    /// So many cells at both ends.
    pub fn new(padding: usize) -> Self {
        Self::with_sides([padding, padding])
    }

    /// So many cells before and after.
    pub fn with_sides(padding: [usize; 2]) -> Self {
        Self::of(LayerKind::ZeroPadding { rank: 1, padding: [[0, 0], padding] })
    }
}

layer_type!(
    /// Zeros around pictures.
    ZeroPadding2D, "zero_padding2d"
);

impl ZeroPadding2D {
    /// So many rows above and below, so many columns left and right.
    pub fn new(padding: impl Into<Size2>) -> Self {
        let Size2([rows, columns]) = padding.into();
        Self::with_sides([[rows, rows], [columns, columns]])
    }

    /// Rows above and below, columns left and right.
    pub fn with_sides(padding: [[usize; 2]; 2]) -> Self {
        Self::of(LayerKind::ZeroPadding { rank: 2, padding })
    }
}

layer_type!(
    /// An activation as a layer of its own (Keras: `Activation`).
    ActivationLayer, "activation"
);

impl ActivationLayer {
    /// The layer.
    pub fn new(activation: Activation) -> Self {
        Self::of(LayerKind::Activation(activation))
    }
}

layer_type!(
    /// In training drops elements at random and scales the others up; else does nothing.
    Dropout, "dropout"
);

impl Dropout {
    /// `rate` is the share that is dropped.
    pub fn new(rate: f32) -> Self {
        Self::of(LayerKind::Dropout { rate, seed: None })
    }

    /// Fixes what is dropped.
    pub fn seed(mut self, value: u64) -> Self {
        if let LayerKind::Dropout { seed, .. } = &mut self.0.kind {
            *seed = Some(value);
        }
        self
    }
}

layer_type!(
    /// Joins its inputs along an axis.
    Concatenate, "concatenate"
);

impl Concatenate {
    /// Along the last axis.
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        Self::along(-1)
    }

    /// Along an axis; the batch is axis 0, negative ones count from the end.
    pub fn along(axis: isize) -> Self {
        Self::of(LayerKind::Concatenate { axis })
    }
}

layer_type!(
    /// Normalises each channel (last axis): in training by the batch's mean and variance, else by the moving ones.
    BatchNormalization, "batch_normalization"
);

impl BatchNormalization {
    /// Keras' defaults: momentum 0.99, epsilon 0.001, with beta (center) and gamma (scale).
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        Self::of(LayerKind::BatchNormalization(layer::BatchNormalization {
            momentum: 0.99,
            epsilon: 0.001,
            center: true,
            scale: true,
        }))
    }
}

setters!(
    BatchNormalization, BatchNormalization:
    /// Share of the old moving statistics that each batch keeps.
    momentum: f32,
    /// Added to the variance.
    epsilon: f32,
    /// Whether there is a beta.
    center: bool,
    /// Whether there is a gamma.
    scale: bool,
);

/// Keras' automatic names within one model: `dense`, `dense_1`, ..
#[derive(Debug, Clone, Default)]
struct Namer {
    taken: HashSet<String>,
}

impl Namer {
    fn name(&mut self, layer: &LayerSpec) -> String {
        let name = layer.name.clone().unwrap_or_else(|| {
            let mut name = layer.base_name.to_owned();
            let mut count = 0_usize;
            while self.taken.contains(&name) {
                count += 1;
                name = format!("{}_{count}", layer.base_name);
            }
            name
        });
        self.taken.insert(name.clone());
        name
    }
}

/// Layers one after another.
#[derive(Debug, Clone, PartialEq)]
pub struct Sequential {
    name: String,
    layers: Vec<LayerSpec>,
}

impl Sequential {
    /// A model that begins with this input; its name is `sequential`.
    pub fn new(input: Input) -> Self {
        Self { name: "sequential".to_owned(), layers: vec![input.0] }
    }

    /// Names the model.
    pub fn name(mut self, name: &str) -> Self {
        self.name = name.to_owned();
        self
    }

    /// Adds a layer at the end.
    pub fn with(mut self, layer: impl IntoLayer) -> Self {
        self.layers.push(layer.into_layer());
        self
    }

    /// The graph. Errors name the layer that does not fit.
    pub fn build(self) -> Result<Graph, GraphError> {
        let mut builder = GraphBuilder::new(&self.name).sequential(true);
        // Given names first, so that automatic ones keep out of their way.
        let mut namer = Namer { taken: self.layers.iter().filter_map(|layer| layer.name.clone()).collect() };
        let mut nodes: Vec<NodeId> = Vec::new();
        for layer in self.layers {
            let name = namer.name(&layer);
            let id = builder.add_layer(&name, layer.kind)?;
            builder.set_trainable(id, layer.trainable);
            let inputs: Vec<NodeId> = nodes.last().copied().into_iter().collect();
            nodes.push(builder.call(id, &inputs)?);
        }
        match (nodes.first(), nodes.last()) {
            (Some(&first), Some(&last)) => builder.build(vec![first], vec![last]),
            // `new` puts the input there; only an empty list of layers gets here, and `build` says what is missing.
            _ => builder.build(Vec::new(), Vec::new()),
        }
    }
}

/// A model of any form: layers are called on nodes.
///
/// ```
/// use spidnn_graph::builder::*;
/// let mut net = Functional::new("shortcut");
/// let x = net.input(Input::shape([8]))?;
/// let y = net.call(Dense::new(8), &[x])?;
/// let sum = net.call(Add::new(), &[x, y])?;
/// let graph = net.build([x], [sum])?;
/// assert_eq!(graph.layers.len(), 3);
/// # Ok::<(), spidnn_graph::GraphError>(())
/// ```
#[derive(Debug, Clone)]
pub struct Functional {
    builder: GraphBuilder,
    namer: Namer,
}

impl Functional {
    /// An empty model.
    pub fn new(name: &str) -> Self {
        Self { builder: GraphBuilder::new(name), namer: Namer::default() }
    }

    /// Adds an input.
    pub fn input(&mut self, input: Input) -> Result<NodeId, GraphError> {
        self.call(input, &[])
    }

    /// Adds a layer and calls it on the results of these nodes.
    pub fn call(&mut self, layer: impl IntoLayer, inputs: &[NodeId]) -> Result<NodeId, GraphError> {
        let id = self.add(layer)?;
        self.apply(id, inputs)
    }

    /// Adds a layer, to be called (any number of times: then its parameters are shared) by [`Functional::apply`].
    pub fn add(&mut self, layer: impl IntoLayer) -> Result<LayerId, GraphError> {
        let layer = layer.into_layer();
        let name = self.namer.name(&layer);
        let id = self.builder.add_layer(&name, layer.kind)?;
        self.builder.set_trainable(id, layer.trainable);
        Ok(id)
    }

    /// Calls a layer that was added.
    pub fn apply(&mut self, layer: LayerId, inputs: &[NodeId]) -> Result<NodeId, GraphError> {
        self.builder.call(layer, inputs)
    }

    /// The graph, its layers (and so its weights) in the order that Keras gives a functional model.
    pub fn build(
        self,
        inputs: impl IntoIterator<Item = NodeId>,
        outputs: impl IntoIterator<Item = NodeId>,
    ) -> Result<Graph, GraphError> {
        let graph = self.builder.build(inputs.into_iter().collect(), outputs.into_iter().collect())?;
        let order = graph.keras_layer_order();
        Ok(graph.with_layer_order(&order))
    }
}
