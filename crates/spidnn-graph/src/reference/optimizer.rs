//! Optimizers and schedules, as Keras computes them.

use super::{elements, tensor};
use crate::training::{Clip, LearningRate, Optimizer, Rule};
use crate::{Graph, GraphError, Tensor};

impl LearningRate {
    /// The rate of a step; the first update is step 0.
    pub fn at(&self, step: u64) -> f32 {
        let step = step as f64;
        let value = match *self {
            Self::Constant(rate) => f64::from(rate),
            Self::ExponentialDecay { initial, decay_steps, decay_rate, staircase } => {
                let power = step / f64::from(decay_steps);
                let power = if staircase { power.floor() } else { power };
                f64::from(initial) * libm::pow(f64::from(decay_rate), power)
            }
            Self::PiecewiseConstant { ref boundaries, ref values } => {
                let index = boundaries.iter().take_while(|boundary| step > f64::from(**boundary)).count();
                values.get(index).or(values.last()).map_or(0.0, |value| f64::from(*value))
            }
            Self::PolynomialDecay { initial, decay_steps, end, power, cycle } => {
                let mut steps = f64::from(decay_steps);
                if cycle && step > 0.0 {
                    steps *= (step / steps).ceil();
                }
                let share = step.min(steps) / steps;
                (f64::from(initial) - f64::from(end)) * libm::pow(1.0 - share, f64::from(power)) + f64::from(end)
            }
            Self::InverseTimeDecay { initial, decay_steps, decay_rate, staircase } => {
                let share = step / f64::from(decay_steps);
                let share = if staircase { share.floor() } else { share };
                f64::from(initial) / (1.0 + f64::from(decay_rate) * share)
            }
            Self::CosineDecay { initial, decay_steps, alpha, warmup_target, warmup_steps } => {
                let (initial, warmup) = (f64::from(initial), f64::from(warmup_steps));
                match warmup_target {
                    Some(target) if step < warmup => initial + (f64::from(target) - initial) * step / warmup,
                    Some(target) => cosine(f64::from(target), step - warmup, decay_steps, alpha),
                    None => cosine(initial, step, decay_steps, alpha),
                }
            }
        };
        value as f32
    }
}

fn cosine(initial: f64, step: f64, decay_steps: f32, alpha: f32) -> f64 {
    let (steps, alpha) = (f64::from(decay_steps), f64::from(alpha));
    let wave = 0.5 * (1.0 + libm::cos(std::f64::consts::PI * step.min(steps) / steps));
    initial * ((1.0 - alpha) * wave + alpha)
}

impl Rule {
    /// Keras' names of the state that the rule keeps for each parameter, in Keras' order.
    pub fn slot_names(&self) -> Vec<&'static str> {
        match *self {
            Self::Sgd { momentum, .. } if momentum > 0.0 => vec!["momentum"],
            Self::Sgd { .. } => vec![],
            Self::RmsProp { momentum, centered, .. } => {
                let mut names = vec!["velocity"];
                if momentum > 0.0 {
                    names.push("momentum");
                }
                if centered {
                    names.push("average_gradient");
                }
                names
            }
            Self::Adam { .. } => vec!["momentum", "velocity"],
        }
    }
}

/// What an optimizer remembers between steps.
#[derive(Debug, Clone, PartialEq)]
pub struct OptimizerState {
    /// Updates made.
    pub iterations: u64,
    /// For each parameter of the graph the tensors that [`Rule::slot_names`] lists; none for parameters that are not trained.
    pub slots: Vec<Vec<Tensor>>,
}

impl OptimizerState {
    /// The state before the first step.
    pub fn new(graph: &Graph, rule: &Rule) -> Self {
        let slots = graph
            .params
            .iter()
            .map(|param| {
                let count = if param.trainable { rule.slot_names().len() } else { 0 };
                vec![Tensor::zeros(param.shape.as_slice()); count]
            })
            .collect();
        Self { iterations: 0, slots }
    }

    /// One update of the trainable parameters. In Keras' order: clipping, weight decay (`w -= w * decay * rate`), then the rule.
    /// Parameters without gradient stay.
    pub fn apply(
        &mut self,
        optimizer: &Optimizer,
        graph: &Graph,
        weights: &mut [Tensor],
        gradients: &[Option<Tensor>],
    ) -> Result<(), GraphError> {
        let slots_wanted = optimizer.rule.slot_names().len();
        let fits = self.slots.len() == graph.params.len()
            && weights.len() == graph.params.len()
            && gradients.len() == graph.params.len()
            && graph
                .params
                .iter()
                .zip(&self.slots)
                .all(|(param, slots)| !param.trainable || slots.len() == slots_wanted);
        if !fits {
            return Err(GraphError::model(
                &graph.name,
                format!(
                    "optimizer state, weights and gradients of {}, {} and {} parameters",
                    self.slots.len(),
                    weights.len(),
                    gradients.len()
                ),
                format!("{} of each, and {slots_wanted} state tensors for each trained one", graph.params.len()),
                "make the state for this graph and this rule",
            ));
        }
        let rate = f64::from(optimizer.learning_rate.at(self.iterations));
        let norm = |gradient: &Tensor| gradient.iter().map(|g| f64::from(*g) * f64::from(*g)).sum::<f64>();
        let trained = || graph.params.iter().zip(gradients).filter(|(param, _)| param.trainable);
        let global_scale = match optimizer.clip {
            Clip::GlobalNorm(limit) => {
                let total = trained().filter_map(|(_, gradient)| gradient.as_ref()).map(norm).sum::<f64>().sqrt();
                let limit = f64::from(limit);
                if total > limit { limit / total } else { 1.0 }
            }
            _ => 1.0,
        };
        let step = (self.iterations + 1) as f64;
        for (index, (param, gradient)) in graph.params.iter().zip(gradients).enumerate() {
            let (true, Some(gradient)) = (param.trainable, gradient) else { continue };
            let scale = match optimizer.clip {
                Clip::Norm(limit) => {
                    let (size, limit) = (norm(gradient).sqrt(), f64::from(limit));
                    if size > limit { limit / size } else { 1.0 }
                }
                _ => global_scale,
            };
            let gradient: Vec<f64> = gradient
                .iter()
                .map(|g| match optimizer.clip {
                    Clip::Value(limit) => f64::from(g.clamp(-limit, limit)),
                    _ => f64::from(*g) * scale,
                })
                .collect();
            let decay = optimizer.weight_decay.map_or(0.0, |decay| f64::from(decay) * rate);
            let mut values: Vec<f64> =
                weights[index].iter().map(|w| f64::from((f64::from(*w) - f64::from(*w) * decay) as f32)).collect();
            let mut slots: Vec<Vec<f64>> =
                self.slots[index].iter().map(|slot| slot.iter().map(|s| f64::from(*s)).collect()).collect();
            update(&optimizer.rule, rate, step, &mut values, &gradient, &mut slots);
            let narrow = |values: &[f64]| tensor(&param.shape, values.iter().map(|value| *value as f32).collect());
            weights[index] = narrow(&values);
            for (slot, values) in self.slots[index].iter_mut().zip(&slots) {
                *slot = narrow(values);
            }
        }
        self.iterations += 1;
        Ok(())
    }

    /// The state as Keras lists an optimizer's variables behind iteration and learning rate: for Adam parameter after parameter,
    /// each with its slots; else slot after slot, each for all parameters.
    pub fn variables(&self, rule: &Rule) -> Vec<&Tensor> {
        if matches!(rule, Rule::Adam { .. }) {
            return self.slots.iter().flatten().collect();
        }
        let count = rule.slot_names().len();
        (0..count).flat_map(|slot| self.slots.iter().filter_map(move |slots| slots.get(slot))).collect()
    }
}

/// `1 - value` as Keras computes it: in double precision, from the decimal number that was written, not from its float32
/// neighbour. For 0.999 that is 0.001, where float32 would give 0.00100005; Adam's first steps show the difference (its bias
/// correction does take the float32 neighbours).
pub fn complement(value: f32) -> f64 {
    // The shortest decimal number that reads as `value`.
    1.0 - value.to_string().parse::<f64>().unwrap_or(f64::from(value))
}

/// One parameter's update by a rule; `step` counts from 1.
fn update(rule: &Rule, rate: f64, step: f64, values: &mut [f64], gradient: &[f64], slots: &mut [Vec<f64>]) {
    match *rule {
        Rule::Sgd { momentum, nesterov } => {
            let momentum = f64::from(momentum);
            for (index, (value, g)) in values.iter_mut().zip(gradient).enumerate() {
                match slots.first_mut() {
                    None => *value -= rate * g,
                    Some(velocity) => {
                        let velocity = &mut velocity[index];
                        *velocity = momentum * *velocity - rate * g;
                        *value += if nesterov { momentum * *velocity - rate * g } else { *velocity };
                    }
                }
            }
        }
        Rule::RmsProp { rho, momentum, epsilon, centered } => {
            let rest = complement(rho);
            let (rho, momentum, epsilon) = (f64::from(rho), f64::from(momentum), f64::from(epsilon));
            let momentum_slot = (momentum > 0.0).then_some(1);
            let average_slot = centered.then_some(if momentum > 0.0 { 2 } else { 1 });
            for (index, (value, g)) in values.iter_mut().zip(gradient).enumerate() {
                let velocity = rho * slots[0][index] + rest * g * g;
                slots[0][index] = velocity;
                let mut denominator = velocity + epsilon;
                if let Some(slot) = average_slot {
                    let average = rho * slots[slot][index] + rest * g;
                    slots[slot][index] = average;
                    denominator -= average * average;
                }
                let mut change = rate * g / denominator.sqrt();
                if let Some(slot) = momentum_slot {
                    change += momentum * slots[slot][index];
                    slots[slot][index] = change;
                }
                *value -= change;
            }
        }
        Rule::Adam { beta_1, beta_2, epsilon } => {
            let rest = [complement(beta_1), complement(beta_2)];
            let (beta_1, beta_2, epsilon) = (f64::from(beta_1), f64::from(beta_2), f64::from(epsilon));
            let rate = rate * (1.0 - libm::pow(beta_2, step)).sqrt() / (1.0 - libm::pow(beta_1, step));
            for (index, (value, g)) in values.iter_mut().zip(gradient).enumerate() {
                let first = slots[0][index] + (g - slots[0][index]) * rest[0];
                let second = slots[1][index] + (g * g - slots[1][index]) * rest[1];
                (slots[0][index], slots[1][index]) = (first, second);
                *value -= rate * first / (second.sqrt() + epsilon);
            }
        }
    }
}

impl Optimizer {
    /// Plain gradient descent.
    pub fn sgd(learning_rate: f32) -> Self {
        Self::of(Rule::Sgd { momentum: 0.0, nesterov: false }, learning_rate)
    }

    /// RMSprop with Keras' defaults: rho 0.9, no momentum, epsilon 1e-7, not centered.
    pub fn rmsprop(learning_rate: f32) -> Self {
        Self::of(Rule::RmsProp { rho: 0.9, momentum: 0.0, epsilon: 1e-7, centered: false }, learning_rate)
    }

    /// Adam with Keras' defaults: betas 0.9 and 0.999, epsilon 1e-7.
    pub fn adam(learning_rate: f32) -> Self {
        Self::of(Rule::Adam { beta_1: 0.9, beta_2: 0.999, epsilon: 1e-7 }, learning_rate)
    }

    /// AdamW with Keras' defaults: as Adam, weight decay 0.004.
    pub fn adamw(learning_rate: f32) -> Self {
        Self { weight_decay: Some(0.004), ..Self::adam(learning_rate) }
    }

    /// A rule with a constant learning rate, no clipping, no weight decay.
    pub fn of(rule: Rule, learning_rate: f32) -> Self {
        Self { rule, learning_rate: LearningRate::Constant(learning_rate), clip: Clip::None, weight_decay: None }
    }
}

/// Whether a gradient holds a value that is not finite; the index of the first such element.
pub fn first_not_finite(values: &Tensor) -> Option<usize> {
    elements(values).iter().position(|value| !value.is_finite())
}
