//! What a layer does: the kinds, with Keras' arguments and defaults.

/// Border handling.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Padding {
    /// No padding.
    #[default]
    Valid,
    /// Output size `ceil(in / stride)`; the odd cell of padding at the end.
    Same,
    /// Conv1D only: padded at the start by `(kernel - 1) * dilation`.
    Causal,
}

/// Element-wise activations (and softmax over the last axis), with Keras 3 semantics.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[allow(missing_docs)]
pub enum Activation {
    #[default]
    Linear,
    Relu,
    /// `min(max(x, 0), max_value)`.
    ClippedRelu {
        max_value: f32,
    },
    LeakyRelu {
        negative_slope: f32,
    },
    Elu {
        alpha: f32,
    },
    Selu,
    Sigmoid,
    HardSigmoid,
    Tanh,
    Softplus,
    Softsign,
    Silu,
    Gelu {
        approximate: bool,
    },
    Exponential,
    Softmax,
}

/// How a parameter starts.
#[derive(Debug, Clone, Copy, PartialEq)]
#[allow(missing_docs)]
pub enum Initializer {
    Zeros,
    Ones,
    Constant(f32),
    GlorotUniform { seed: Option<u64> },
    GlorotNormal { seed: Option<u64> },
    HeUniform { seed: Option<u64> },
    HeNormal { seed: Option<u64> },
    LecunUniform { seed: Option<u64> },
    LecunNormal { seed: Option<u64> },
    RandomUniform { min: f32, max: f32, seed: Option<u64> },
    RandomNormal { mean: f32, stddev: f32, seed: Option<u64> },
    TruncatedNormal { mean: f32, stddev: f32, seed: Option<u64> },
}

/// Dense (also over the last axis of inputs with more dimensions).
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)]
pub struct Dense {
    pub units: usize,
    pub activation: Activation,
    pub use_bias: bool,
    pub kernel_initializer: Initializer,
    pub bias_initializer: Initializer,
}

/// Conv1D (`rank` 1: the first entry of each pair is 1, or 0 for padding) and Conv2D (`rank` 2).
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)]
pub struct Conv {
    pub rank: usize,
    pub filters: usize,
    pub kernel_size: [usize; 2],
    pub strides: [usize; 2],
    pub dilation_rate: [usize; 2],
    pub padding: Padding,
    pub groups: usize,
    /// Depthwise: `groups` equals the input channels, `filters` the output channels (input channels x multiplier), and the
    /// Keras kernel has shape `[kh, kw, in, multiplier]`; output channel `c * multiplier + m` sees input channel `c` only.
    /// Who adds such a layer does not know the channels yet: then `groups` is 0 and `filters` holds the multiplier, and
    /// [`GraphBuilder::call`](crate::GraphBuilder::call) replaces both.
    pub depthwise: bool,
    pub activation: Activation,
    pub use_bias: bool,
    pub kernel_initializer: Initializer,
    pub bias_initializer: Initializer,
}

/// Pooling by maximum or average.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum PoolMode {
    Max,
    Average,
}

/// MaxPooling and AveragePooling, 1D (as [`Conv`]: first entries 1) and 2D.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)]
pub struct Pool {
    pub rank: usize,
    pub mode: PoolMode,
    pub pool_size: [usize; 2],
    pub strides: [usize; 2],
    pub padding: Padding,
}

/// BatchNormalization over the last axis.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)]
pub struct BatchNormalization {
    pub momentum: f32,
    pub epsilon: f32,
    pub center: bool,
    pub scale: bool,
}

/// What a layer does.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)]
pub enum LayerKind {
    /// A model input; shape without the batch dimension.
    Input {
        shape: Vec<usize>,
    },
    Dense(Dense),
    Conv(Conv),
    Pool(Pool),
    /// Over all positions; `rank` spatial dimensions.
    GlobalPool {
        rank: usize,
        mode: PoolMode,
        keepdims: bool,
    },
    Flatten,
    /// Target shape, at most one -1.
    Reshape {
        target_shape: Vec<i64>,
    },
    /// Cells before and after, for each spatial dimension (rank 1: the first pair is 0, 0).
    ZeroPadding {
        rank: usize,
        padding: [[usize; 2]; 2],
    },
    Activation(Activation),
    Dropout {
        rate: f32,
        seed: Option<u64>,
    },
    Add,
    Multiply,
    /// Keras' axis, the batch dimension counted (so never 0), or negative.
    Concatenate {
        axis: isize,
    },
    BatchNormalization(BatchNormalization),
}

impl LayerKind {
    /// The Keras class of this layer.
    pub fn class_name(&self) -> &'static str {
        match self {
            Self::Input { .. } => "InputLayer",
            Self::Dense(_) => "Dense",
            Self::Conv(conv) => match (conv.depthwise, conv.rank) {
                (false, 1) => "Conv1D",
                (false, _) => "Conv2D",
                (true, 1) => "DepthwiseConv1D",
                (true, _) => "DepthwiseConv2D",
            },
            Self::Pool(pool) => match (pool.mode, pool.rank) {
                (PoolMode::Max, 1) => "MaxPooling1D",
                (PoolMode::Max, _) => "MaxPooling2D",
                (PoolMode::Average, 1) => "AveragePooling1D",
                (PoolMode::Average, _) => "AveragePooling2D",
            },
            Self::GlobalPool { rank, mode, .. } => match (mode, rank) {
                (PoolMode::Max, 1) => "GlobalMaxPooling1D",
                (PoolMode::Max, _) => "GlobalMaxPooling2D",
                (PoolMode::Average, 1) => "GlobalAveragePooling1D",
                (PoolMode::Average, _) => "GlobalAveragePooling2D",
            },
            Self::Flatten => "Flatten",
            Self::Reshape { .. } => "Reshape",
            Self::ZeroPadding { rank: 1, .. } => "ZeroPadding1D",
            Self::ZeroPadding { .. } => "ZeroPadding2D",
            Self::Activation(_) => "Activation",
            Self::Dropout { .. } => "Dropout",
            Self::Add => "Add",
            Self::Multiply => "Multiply",
            Self::Concatenate { .. } => "Concatenate",
            Self::BatchNormalization(_) => "BatchNormalization",
        }
    }

    /// The activation that the layer applies to its result, [`Activation::Linear`] where it has none.
    pub fn activation(&self) -> Activation {
        match self {
            Self::Dense(dense) => dense.activation,
            Self::Conv(conv) => conv.activation,
            Self::Activation(activation) => *activation,
            _ => Activation::Linear,
        }
    }
}

/// Not the name of an activation.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "activation `{0}`: found no such activation, expected one of linear, relu, relu6, leaky_relu, elu, selu, sigmoid, \
     hard_sigmoid, tanh, softplus, softsign, silu, swish, gelu, exponential, softmax; correct the name"
)]
pub struct UnknownActivation(
    /// The name.
    pub String,
);

impl std::str::FromStr for Activation {
    type Err = UnknownActivation;

    /// By Keras' name, with the defaults that Keras has for the name.
    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Ok(match name {
            "linear" => Self::Linear,
            "relu" => Self::Relu,
            "relu6" => Self::ClippedRelu { max_value: 6.0 },
            "leaky_relu" => Self::LeakyRelu { negative_slope: 0.2 },
            "elu" => Self::Elu { alpha: 1.0 },
            "selu" => Self::Selu,
            "sigmoid" => Self::Sigmoid,
            "hard_sigmoid" => Self::HardSigmoid,
            "tanh" => Self::Tanh,
            "softplus" => Self::Softplus,
            "softsign" => Self::Softsign,
            "silu" | "swish" => Self::Silu,
            "gelu" => Self::Gelu { approximate: false },
            "exponential" => Self::Exponential,
            "softmax" => Self::Softmax,
            _ => return Err(UnknownActivation(name.to_owned())),
        })
    }
}
