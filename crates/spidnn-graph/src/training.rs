//! Losses, optimizers and schedules as data, with Keras' names and defaults.

/// A loss.
#[derive(Debug, Clone, Copy, PartialEq)]
#[allow(missing_docs)]
pub enum Loss {
    MeanSquaredError,
    MeanAbsoluteError,
    BinaryCrossentropy { from_logits: bool, label_smoothing: f32 },
    CategoricalCrossentropy { from_logits: bool, label_smoothing: f32 },
    SparseCategoricalCrossentropy { from_logits: bool },
}

/// The learning rate: a number, or a schedule over steps.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)]
pub enum LearningRate {
    Constant(f32),
    ExponentialDecay { initial: f32, decay_steps: f32, decay_rate: f32, staircase: bool },
    PiecewiseConstant { boundaries: Vec<f32>, values: Vec<f32> },
    PolynomialDecay { initial: f32, decay_steps: f32, end: f32, power: f32, cycle: bool },
    InverseTimeDecay { initial: f32, decay_steps: f32, decay_rate: f32, staircase: bool },
    CosineDecay { initial: f32, decay_steps: f32, alpha: f32, warmup_target: Option<f32>, warmup_steps: f32 },
}

/// Gradient clipping; at most one kind.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[allow(missing_docs)]
pub enum Clip {
    #[default]
    None,
    /// Each element to +-value.
    Value(f32),
    /// Each parameter's gradient to this norm.
    Norm(f32),
    /// All gradients together to this norm.
    GlobalNorm(f32),
}

/// The update rule.
#[derive(Debug, Clone, Copy, PartialEq)]
#[allow(missing_docs)]
pub enum Rule {
    Sgd { momentum: f32, nesterov: bool },
    RmsProp { rho: f32, momentum: f32, epsilon: f32, centered: bool },
    Adam { beta_1: f32, beta_2: f32, epsilon: f32 },
}

/// An optimizer: rule, learning rate, clipping, weight decay (AdamW is Adam with weight decay).
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)]
pub struct Optimizer {
    pub rule: Rule,
    pub learning_rate: LearningRate,
    pub clip: Clip,
    pub weight_decay: Option<f32>,
}
