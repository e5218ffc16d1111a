//! Losses and their gradients, as Keras computes them.

use super::{elements, tensor};
use crate::training::Loss;
use crate::{Activation, GraphError, Tensor};

/// Keras' epsilon: probabilities are kept this far from 0 and 1 before logarithms.
const EPSILON: f32 = 1e-7;

/// A loss of a batch.
#[derive(Debug, Clone, PartialEq)]
pub struct LossValue {
    /// The loss of each sample (for outputs with more dimensions: of each position), shape of the predictions without the last
    /// axis, not weighted.
    pub per_sample: Tensor,
    /// Keras' `sum_over_batch_size`: sum of weight x loss, divided by the number of losses.
    pub mean: f64,
    /// Gradient of `mean` with respect to the predictions.
    pub gradient: Tensor,
}

impl Loss {
    /// The same loss taking what the output's activation took, where Keras fuses the two: any cross-entropy after sigmoid or
    /// softmax. `None` where there is nothing to fuse.
    ///
    /// Keras does not ask whether the two belong together: categorical cross-entropy after sigmoid becomes that of the softmax of
    /// sigmoid's input (and binary after softmax that of the sigmoid of softmax's input), and `from_logits` makes no difference
    /// after either activation. So it is here.
    pub fn fused(&self, activation: Activation) -> Option<Self> {
        if !matches!(activation, Activation::Sigmoid | Activation::Softmax) {
            return None;
        }
        match *self {
            Self::BinaryCrossentropy { label_smoothing, .. } => {
                Some(Self::BinaryCrossentropy { from_logits: true, label_smoothing })
            }
            Self::CategoricalCrossentropy { label_smoothing, .. } => {
                Some(Self::CategoricalCrossentropy { from_logits: true, label_smoothing })
            }
            Self::SparseCategoricalCrossentropy { .. } => {
                Some(Self::SparseCategoricalCrossentropy { from_logits: true })
            }
            Self::MeanSquaredError | Self::MeanAbsoluteError => None,
        }
    }

    /// Whether targets are class numbers (shape of the predictions without the last axis, or 1 there).
    pub fn takes_class_numbers(&self) -> bool {
        matches!(self, Self::SparseCategoricalCrossentropy { .. })
    }

    /// The loss of a batch of predictions (batch dimension first) and its gradient. `targets` have the shape of the predictions, or
    /// lack a last axis of size 1, or are class numbers. `sample_weights`: one for each sample.
    ///
    /// Errors: shapes that do not fit, labels that are no class, values that are not finite.
    pub fn evaluate(
        &self,
        targets: &Tensor,
        predictions: &Tensor,
        sample_weights: Option<&[f32]>,
    ) -> Result<LossValue, GraphError> {
        let shape = predictions.shape();
        let batch = shape.first().copied().unwrap_or(0);
        let classes = if shape.len() > 1 { shape[shape.len() - 1] } else { 1 };
        self.check_targets(targets, shape, classes)?;
        if let Some(weights) = sample_weights
            && weights.len() != batch
        {
            return Err(GraphError::data(
                "sample weights",
                format!("{} weights", weights.len()),
                format!("{batch}, one for each sample"),
                "pass as many weights as samples",
            ));
        }
        let (targets, values) = (elements(targets), elements(predictions));
        let rows = values.len() / classes.max(1);
        let mut per_sample = Vec::with_capacity(rows);
        let mut gradient = Vec::with_capacity(values.len());
        let mut sum = 0.0;
        for (row, values) in values.chunks_exact(classes).enumerate() {
            let target = if self.takes_class_numbers() {
                &targets[row..=row]
            } else {
                &targets[row * classes..(row + 1) * classes]
            };
            let (loss, slopes) = self.row(target, values);
            let weight = sample_weights.map_or(1.0, |weights| f64::from(weights[row * batch / rows]));
            sum += loss * weight;
            per_sample.push(loss as f32);
            gradient.extend(slopes.iter().map(|slope| (slope * weight / rows as f64) as f32));
        }
        let outer = if shape.len() > 1 { &shape[..shape.len() - 1] } else { shape };
        Ok(LossValue {
            per_sample: tensor(outer, per_sample),
            mean: sum / rows as f64,
            gradient: tensor(shape, gradient),
        })
    }

    fn check_targets(&self, targets: &Tensor, shape: &[usize], classes: usize) -> Result<(), GraphError> {
        let outer = &shape[..shape.len().saturating_sub(1).max(1).min(shape.len())];
        let with_one: Vec<usize> = outer.iter().copied().chain([1]).collect();
        let fits = if self.takes_class_numbers() {
            targets.shape() == outer || targets.shape() == with_one
        } else {
            targets.shape() == shape || (classes == 1 && (targets.shape() == outer || targets.shape() == with_one))
        };
        if !fits || shape.is_empty() || shape.contains(&0) {
            return Err(GraphError::data(
                "targets",
                format!("an array of shape {:?}", targets.shape()),
                if self.takes_class_numbers() {
                    format!("class numbers of shape {outer:?} for predictions {shape:?}")
                } else {
                    format!("{shape:?}, the shape of the predictions")
                },
                if self.takes_class_numbers() {
                    "pass one class number for each prediction, or use categorical_crossentropy with one-hot targets"
                } else {
                    "pass targets of the model's output shape; class numbers go with sparse_categorical_crossentropy"
                },
            ));
        }
        for (index, value) in targets.iter().enumerate() {
            let wrong = if self.takes_class_numbers() {
                value.fract() != 0.0 || *value < 0.0 || *value >= classes as f32
            } else {
                false
            };
            if wrong || !value.is_finite() {
                return Err(GraphError::data(
                    "targets",
                    format!("{value} at element {index}"),
                    if self.takes_class_numbers() {
                        format!("a class number from 0 to {}", classes - 1)
                    } else {
                        "a finite number".to_owned()
                    },
                    "correct the labels, or give the output layer as many units as there are classes",
                ));
            }
        }
        Ok(())
    }

    /// The loss of one row and its gradient.
    fn row(&self, targets: &[f32], values: &[f32]) -> (f64, Vec<f64>) {
        let count = values.len() as f64;
        let pairs = || targets.iter().zip(values).map(|(t, p)| (f64::from(*t), f64::from(*p)));
        match *self {
            Self::MeanSquaredError => {
                let loss = pairs().map(|(t, p)| (p - t) * (p - t)).sum::<f64>() / count;
                (loss, pairs().map(|(t, p)| 2.0 * (p - t) / count).collect())
            }
            Self::MeanAbsoluteError => {
                let loss = pairs().map(|(t, p)| (p - t).abs()).sum::<f64>() / count;
                let sign = |x: f64| if x == 0.0 { 0.0 } else { x.signum() };
                (loss, pairs().map(|(t, p)| sign(p - t) / count).collect())
            }
            Self::BinaryCrossentropy { from_logits, label_smoothing } => {
                let smoothing = f64::from(label_smoothing);
                let mut loss = 0.0;
                let mut slopes = Vec::with_capacity(values.len());
                for (t, p) in pairs() {
                    let t = t * (1.0 - smoothing) + 0.5 * smoothing;
                    if from_logits {
                        loss += p.max(0.0) - p * t + libm::log1p(libm::exp(-p.abs()));
                        slopes.push((1.0 / (1.0 + libm::exp(-p)) - t) / count);
                    } else {
                        let (p, inside) = clipped(p as f32);
                        loss -= t * libm::log(p) + (1.0 - t) * libm::log(1.0 - p);
                        slopes.push(if inside { ((1.0 - t) / (1.0 - p) - t / p) / count } else { 0.0 });
                    }
                }
                (loss / count, slopes)
            }
            Self::CategoricalCrossentropy { from_logits, label_smoothing } => {
                let smoothing = f64::from(label_smoothing);
                let targets: Vec<f64> =
                    targets.iter().map(|t| f64::from(*t) * (1.0 - smoothing) + smoothing / count).collect();
                if from_logits { from_logarithms(&targets, &wide(values)) } else { from_shares(&targets, values) }
            }
            Self::SparseCategoricalCrossentropy { from_logits } => {
                let mut one_hot = vec![0.0; values.len()];
                // Checked to be a class.
                one_hot[targets[0] as usize] = 1.0;
                if from_logits {
                    from_logarithms(&one_hot, &wide(values))
                } else {
                    // Keras clips, takes logarithms and goes on as from logits.
                    let clips: Vec<(f64, bool)> = values.iter().map(|p| clipped(*p)).collect();
                    let logarithms: Vec<f64> = clips.iter().map(|(p, _)| libm::log(*p)).collect();
                    let (loss, slopes) = from_logarithms(&one_hot, &logarithms);
                    let slopes =
                        slopes.iter().zip(&clips).map(|(s, (p, inside))| if *inside { s / p } else { 0.0 }).collect();
                    (loss, slopes)
                }
            }
        }
    }
}

fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|value| f64::from(*value)).collect()
}

/// A probability kept away from 0 and 1 (in float32, as in Keras: the upper bound is the float32 nearest to 1 - 1e-7), and whether
/// it was between.
fn clipped(p: f32) -> (f64, bool) {
    let (low, high) = (EPSILON, 1.0 - EPSILON);
    (f64::from(p.clamp(low, high)), (low..=high).contains(&p))
}

/// Cross-entropy of the softmax of `logits`.
fn from_logarithms(targets: &[f64], logits: &[f64]) -> (f64, Vec<f64>) {
    let max = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let powers: Vec<f64> = logits.iter().map(|x| libm::exp(x - max)).collect();
    let sum: f64 = powers.iter().sum();
    let log_sum = libm::log(sum) + max;
    let loss = targets.iter().zip(logits).map(|(t, x)| t * (log_sum - x)).sum();
    let total: f64 = targets.iter().sum();
    (loss, powers.iter().zip(targets).map(|(power, t)| power / sum * total - t).collect())
}

/// Cross-entropy of probabilities, scaled to a sum of 1 first.
fn from_shares(targets: &[f64], values: &[f32]) -> (f64, Vec<f64>) {
    let sum: f64 = values.iter().map(|p| f64::from(*p)).sum();
    let shares: Vec<f64> = values.iter().map(|p| f64::from(*p) / sum).collect();
    let clips: Vec<(f64, bool)> = shares.iter().map(|p| clipped(*p as f32)).collect();
    let loss = -targets.iter().zip(&clips).map(|(t, (p, _))| t * libm::log(*p)).sum::<f64>();
    let slopes: Vec<f64> =
        targets.iter().zip(&clips).map(|(t, (p, inside))| if *inside { -t / p } else { 0.0 }).collect();
    let dot: f64 = slopes.iter().zip(&shares).map(|(slope, share)| slope * share).sum();
    (loss, slopes.iter().map(|slope| (slope - dot) / sum).collect())
}
