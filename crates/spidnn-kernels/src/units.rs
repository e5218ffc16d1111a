//! Parts of kernels that a build may lack, since instruction memory is small: activations, losses, optimizers, sums.

use crate::elementwise::STATISTICS;
use crate::{Activation, KernelCall, Loss, Optimizer};

/// A set of units: a bit for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Units(pub u32);

/// First bit of the losses; five, then the two of logits.
const LOSSES: u32 = 16;
const LOSSES_OF_LOGITS: u32 = 21;
/// First bit of the optimizers.
const OPTIMIZERS: u32 = 24;
/// The bit of column sums of products and squares.
const STATISTICS_BIT: u32 = 28;

/// Every unit: its bit, its name, whether this build has it.
const ALL: &[(u32, &str, bool)] = &[
    activation(Activation::Linear, "linear"),
    activation(Activation::Relu, "relu"),
    activation(Activation::LeakyRelu, "leaky_relu"),
    activation(Activation::Elu, "elu"),
    activation(Activation::Sigmoid, "sigmoid"),
    activation(Activation::HardSigmoid, "hard_sigmoid"),
    activation(Activation::Tanh, "tanh"),
    activation(Activation::Softplus, "softplus"),
    activation(Activation::Silu, "silu"),
    activation(Activation::Gelu, "gelu"),
    activation(Activation::GeluTanh, "gelu by tanh"),
    activation(Activation::Exponential, "exponential"),
    activation(Activation::Selu, "selu"),
    activation(Activation::Softsign, "softsign"),
    activation(Activation::ClippedRelu, "clipped relu"),
    loss(Loss::MeanSquaredError, "mean squared error"),
    loss(Loss::MeanAbsoluteError, "mean absolute error"),
    loss(Loss::BinaryCrossentropy, "binary cross-entropy"),
    loss(Loss::CategoricalCrossentropy, "categorical cross-entropy"),
    loss(Loss::SparseCategoricalCrossentropy, "sparse categorical cross-entropy"),
    (LOSSES_OF_LOGITS, "categorical cross-entropy of logits", Loss::CategoricalCrossentropy.is_built(true)),
    (
        LOSSES_OF_LOGITS + 1,
        "sparse categorical cross-entropy of logits",
        Loss::SparseCategoricalCrossentropy.is_built(true),
    ),
    optimizer(Optimizer::Sgd, "SGD"),
    optimizer(Optimizer::SgdNesterov, "SGD with Nesterov momentum"),
    optimizer(Optimizer::RmsProp, "RMSprop"),
    optimizer(Optimizer::Adam, "Adam"),
    (STATISTICS_BIT, "sums of products and squares", STATISTICS),
];

const fn activation(kind: Activation, name: &'static str) -> (u32, &'static str, bool) {
    (kind as u32, name, kind.is_built())
}

const fn loss(kind: Loss, name: &'static str) -> (u32, &'static str, bool) {
    (LOSSES + kind as u32, name, kind.is_built(false))
}

const fn optimizer(kind: Optimizer, name: &'static str) -> (u32, &'static str, bool) {
    (OPTIMIZERS + kind as u32, name, kind.is_built())
}

impl Units {
    /// No unit.
    pub const NONE: Units = Units(0);
    /// What this build has.
    pub const BUILT: Units = {
        let (mut bits, mut i) = (0, 0);
        while i < ALL.len() {
            bits |= (ALL[i].2 as u32) << ALL[i].0;
            i += 1;
        }
        Units(bits)
    };

    /// The units that a call needs. What names no unit that there is needs none: no build accepts such a call.
    pub fn of(call: &KernelCall) -> Units {
        let bit = match call {
            KernelCall::BiasAct(call) => Activation::from_number(call.activation).map(|kind| kind as u32),
            KernelCall::ActGrad(call) => Activation::from_number(call.activation).map(|kind| kind as u32),
            KernelCall::Loss(call) => Loss::from_number(call.kind).map(|kind| match (kind, call.from_logits) {
                (Loss::CategoricalCrossentropy, 1) => LOSSES_OF_LOGITS,
                (Loss::SparseCategoricalCrossentropy, 1) => LOSSES_OF_LOGITS + 1,
                _ => LOSSES + kind as u32,
            }),
            KernelCall::OptimizerStep(call) => Optimizer::from_number(call.kind).map(|kind| OPTIMIZERS + kind as u32),
            KernelCall::ColumnSum(call) => (call.op != 0).then_some(STATISTICS_BIT),
            _ => None,
        };
        Units(bit.map_or(0, |bit| 1 << bit))
    }

    /// The units of both.
    pub const fn with(self, other: Units) -> Units {
        Units(self.0 | other.0)
    }

    /// The units of this set that another lacks.
    pub const fn beyond(self, other: Units) -> Units {
        Units(self.0 & !other.0)
    }

    /// What the units are called.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        ALL.iter().filter(move |(bit, ..)| self.0 >> bit & 1 == 1).map(|(_, name, _)| *name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call;

    #[test]
    fn every_unit_has_a_bit_and_a_name_of_its_own() {
        let bits: u32 = ALL.iter().map(|(bit, ..)| 1u32 << bit).fold(0, |all, bit| {
            assert_eq!(all & bit, 0);
            all | bit
        });
        assert_eq!(bits.count_ones() as usize, ALL.len());
        assert_eq!(Units::BUILT, Units(bits), "the host has everything");
        assert_eq!(Units(bits).names().count(), ALL.len());
    }

    #[test]
    fn calls_name_their_units() {
        let of = |call: KernelCall| Units::of(&call).names().collect::<Vec<_>>();
        assert_eq!(of(call::BiasAct { activation: 9, ..Default::default() }.into()), ["gelu"]);
        assert_eq!(of(call::ActGrad { activation: 12, ..Default::default() }.into()), ["selu"]);
        assert_eq!(of(call::Loss { kind: 2, from_logits: 1, ..Default::default() }.into()), ["binary cross-entropy"]);
        let sparse = call::Loss { kind: 4, from_logits: 1, ..Default::default() };
        assert_eq!(of(sparse.into()), ["sparse categorical cross-entropy of logits"]);
        assert_eq!(of(call::OptimizerStep { kind: 2, ..Default::default() }.into()), ["RMSprop"]);
        assert_eq!(of(call::ColumnSum { op: 3, ..Default::default() }.into()), ["sums of products and squares"]);
        assert!(of(call::BiasAct { activation: 99, ..Default::default() }.into()).is_empty());
        assert!(of(call::Gemm::default().into()).is_empty());
    }
}
