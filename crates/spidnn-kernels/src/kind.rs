//! The numbers by which kernel calls name activations, losses and optimizers.

macro_rules! numbered {
    ($(#[$doc:meta])* $name:ident { $( $(#[$vdoc:meta])* $variant:ident = $number:literal ),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(u32)]
        pub enum $name { $( $(#[$vdoc])* $variant = $number ),* }
        impl $name {
            /// The kind with this number.
            pub const fn from_number(number: u32) -> Option<Self> {
                match number { $( $number => Some(Self::$variant), )* _ => None }
            }
        }
    };
}

numbered! {
    /// Element-wise activations, with Keras 3 semantics. `alpha` is the one parameter that some have.
    Activation {
        /// x
        Linear = 0,
        /// max(x, 0)
        Relu = 1,
        /// x, or alpha * x below zero
        LeakyRelu = 2,
        /// x, or alpha * (exp(x) - 1) below zero
        Elu = 3,
        /// 1 / (1 + exp(-x))
        Sigmoid = 4,
        /// relu6(x + 3) / 6
        HardSigmoid = 5,
        /// tanh(x)
        Tanh = 6,
        /// ln(1 + exp(x))
        Softplus = 7,
        /// x * sigmoid(x)
        Silu = 8,
        /// x * (1 + erf(x / sqrt 2)) / 2
        Gelu = 9,
        /// Gelu by its tanh approximation
        GeluTanh = 10,
        /// exp(x)
        Exponential = 11,
        /// Scaled elu with Keras' constants
        Selu = 12,
        /// x / (1 + |x|)
        Softsign = 13,
        /// min(max(x, 0), alpha)
        ClippedRelu = 14,
    }
}

/// Which groups of activations this build has.
pub(crate) mod built {
    /// Elu, selu, softplus, silu.
    pub const EXPONENTIAL: bool = cfg!(any(test, feature = "exponential-units"));
    /// Both forms of gelu.
    pub const GAUSSIAN: bool = cfg!(any(test, feature = "gaussian-units"));
    /// Leaky and clipped relu, hard sigmoid, softsign, exponential.
    pub const FURTHER: bool = cfg!(any(test, feature = "further-units"));
}

impl Activation {
    /// Whether this build has it: instruction memory is small, so that a core may do without some.
    pub const fn is_built(self) -> bool {
        match self {
            Activation::Elu | Activation::Selu | Activation::Softplus | Activation::Silu => built::EXPONENTIAL,
            Activation::Gelu | Activation::GeluTanh => built::GAUSSIAN,
            Activation::LeakyRelu
            | Activation::ClippedRelu
            | Activation::HardSigmoid
            | Activation::Softsign
            | Activation::Exponential => built::FURTHER,
            Activation::Linear | Activation::Relu | Activation::Sigmoid | Activation::Tanh => true,
        }
    }

    /// Whether the derivative needs the activation's input; for the others the output is enough.
    pub fn saves_input(self) -> bool {
        matches!(
            self,
            Activation::Softplus
                | Activation::Silu
                | Activation::Gelu
                | Activation::GeluTanh
                | Activation::HardSigmoid
                | Activation::Softsign
                | Activation::ClippedRelu
        )
    }
}

numbered! {
    /// Losses, with Keras 3 semantics.
    Loss {
        /// Mean over outputs of (t - y)^2
        MeanSquaredError = 0,
        /// Mean over outputs of |t - y|
        MeanAbsoluteError = 1,
        /// Mean over outputs of -(t ln y + (1 - t) ln(1 - y))
        BinaryCrossentropy = 2,
        /// -(sum over outputs of t ln y)
        CategoricalCrossentropy = 3,
        /// `-ln y[class]`
        SparseCategoricalCrossentropy = 4,
    }
}

impl Loss {
    /// Whether this build has it, of logits or not; see [`Activation::is_built`].
    pub const fn is_built(self, from_logits: bool) -> bool {
        match self {
            Loss::MeanSquaredError | Loss::MeanAbsoluteError => cfg!(any(test, feature = "regression-losses")),
            Loss::BinaryCrossentropy => cfg!(any(test, feature = "binary-crossentropy")),
            Loss::CategoricalCrossentropy | Loss::SparseCategoricalCrossentropy => {
                !from_logits || cfg!(any(test, feature = "losses-of-logits"))
            }
        }
    }
}

numbered! {
    /// Optimizers, with Keras 3 semantics.
    Optimizer {
        /// Gradient descent; with a `m` buffer, momentum
        Sgd = 0,
        /// Gradient descent with Nesterov momentum
        SgdNesterov = 1,
        /// RMSprop (`v`; `m` with momentum; `x` when centered)
        RmsProp = 2,
        /// Adam and AdamW (`m`, `v`)
        Adam = 3,
    }
}

impl Optimizer {
    /// Whether this build has it; see [`Activation::is_built`].
    pub const fn is_built(self) -> bool {
        !matches!(self, Optimizer::RmsProp) || cfg!(any(test, feature = "rms-prop"))
    }
}
