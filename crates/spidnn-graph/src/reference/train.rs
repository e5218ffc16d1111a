//! Training: batches in order, forward, loss, backward, update.

use super::{Cotangent, Mode, OptimizerState, backward, check_inputs, elements, forward, seeded_masks};
use crate::training::{Loss, Optimizer};
use crate::{Graph, GraphError, Tensor};

/// Data for [`Trainer::fit`].
#[derive(Debug, Clone, Copy)]
pub struct FitData<'a> {
    /// One array for each input of the model, the samples in the first dimension.
    pub inputs: &'a [Tensor],
    /// One array for each output.
    pub targets: &'a [Tensor],
    /// A weight for each sample.
    pub sample_weight: Option<&'a [f32]>,
    /// A weight for each class; multiplies the sample weights. Classes beyond its end weigh 1.
    pub class_weight: Option<&'a [f32]>,
}

/// Trains a model's weights.
#[derive(Debug, Clone)]
pub struct Trainer<'g> {
    graph: &'g Graph,
    losses: Vec<Loss>,
    optimizer: Optimizer,
    /// The weights, in parameter order.
    pub weights: Vec<Tensor>,
    /// The optimizer's state.
    pub state: OptimizerState,
    seed: u64,
}

impl<'g> Trainer<'g> {
    /// A trainer that begins with these weights. One loss for each output; their sum is made smaller. `seed` decides what dropout
    /// drops.
    pub fn new(
        graph: &'g Graph,
        losses: Vec<Loss>,
        optimizer: Optimizer,
        weights: Vec<Tensor>,
        seed: u64,
    ) -> Result<Self, GraphError> {
        crate::check_weights(graph, &weights)?;
        if losses.len() != graph.outputs.len() {
            return Err(GraphError::model(
                &graph.name,
                format!("{} losses", losses.len()),
                format!("{}, one for each output", graph.outputs.len()),
                "name a loss for each output",
            ));
        }
        let state = OptimizerState::new(graph, &optimizer.rule);
        Ok(Self { graph, losses, optimizer, weights, state, seed })
    }

    /// One batch: the loss before the update, and the update.
    pub fn train_batch(
        &mut self,
        inputs: &[Tensor],
        targets: &[Tensor],
        sample_weight: Option<&[f32]>,
    ) -> Result<f64, GraphError> {
        if targets.len() != self.losses.len() {
            return Err(GraphError::data(
                "targets",
                format!("{} arrays", targets.len()),
                format!("{}, one for each output", self.losses.len()),
                "pass one array for each output, in the model's order",
            ));
        }
        let keep = seeded_masks(self.seed, self.state.iterations);
        let pass = forward(self.graph, &self.weights, inputs, Mode::Training { keep: &keep })?;
        let mut total = 0.0;
        let mut cotangents = Vec::with_capacity(self.losses.len());
        for ((loss, node), target) in self.losses.iter().zip(&self.graph.outputs).zip(targets) {
            let activation = self.graph.layer_of(*node).kind.activation();
            match (loss.fused(activation), &pass.before_activation[node.0]) {
                (Some(fused), Some(before)) => {
                    let value = fused.evaluate(target, before, sample_weight)?;
                    total += value.mean;
                    cotangents.push(Cotangent::BeforeActivation(value.gradient));
                }
                _ => {
                    let value = loss.evaluate(target, &pass.values[node.0], sample_weight)?;
                    total += value.mean;
                    cotangents.push(Cotangent::Output(value.gradient));
                }
            }
        }
        let gradients = backward(self.graph, &self.weights, &pass, &cotangents)?;
        self.state.apply(&self.optimizer, self.graph, &mut self.weights, &gradients.params)?;
        for (id, values) in pass.moving {
            self.weights[id.0] = values;
        }
        Ok(total)
    }

    /// Trains for some epochs on batches in the data's order; the last batch of an epoch may be short. Gives the loss of each epoch:
    /// the mean over its samples, each before its batch's update.
    pub fn fit(&mut self, data: FitData<'_>, batch_size: usize, epochs: usize) -> Result<Vec<f64>, GraphError> {
        let samples = check_inputs(self.graph, data.inputs)?;
        if batch_size == 0 {
            return Err(GraphError::data("batch size", "0", "at least 1", "set the batch size"));
        }
        for (index, target) in data.targets.iter().enumerate() {
            if target.shape().first() != Some(&samples) {
                return Err(GraphError::data(
                    format!("targets of output {index}"),
                    format!("an array of shape {:?}", target.shape()),
                    format!("{samples} samples, as in the inputs"),
                    "pass a target for each sample",
                ));
            }
        }
        let weights = self.sample_weights(&data, samples)?;
        let mut losses = Vec::with_capacity(epochs);
        for _ in 0..epochs {
            let mut sum = 0.0;
            for first in (0..samples).step_by(batch_size) {
                let last = (first + batch_size).min(samples);
                let part = |tensors: &[Tensor]| tensors.iter().map(|all| rows(all, first, last)).collect::<Vec<_>>();
                let weights = weights.as_ref().map(|weights| &weights[first..last]);
                sum += self.train_batch(&part(data.inputs), &part(data.targets), weights)? * (last - first) as f64;
            }
            losses.push(sum / samples as f64);
        }
        Ok(losses)
    }

    /// Sample weights times class weights.
    fn sample_weights(&self, data: &FitData<'_>, samples: usize) -> Result<Option<Vec<f32>>, GraphError> {
        if let Some(weights) = data.sample_weight
            && weights.len() != samples
        {
            return Err(GraphError::data(
                "sample weights",
                format!("{} weights", weights.len()),
                format!("{samples}, one for each sample"),
                "pass as many weights as samples",
            ));
        }
        let Some(class_weight) = data.class_weight else { return Ok(data.sample_weight.map(<[f32]>::to_vec)) };
        let [target] = data.targets else {
            return Err(GraphError::data(
                "class weights",
                format!("{} outputs", data.targets.len()),
                "a model with one output",
                "use sample weights",
            ));
        };
        let values = elements(target);
        let row = values.len() / samples.max(1);
        let weights = values.chunks(row.max(1)).enumerate().map(|(sample, row)| {
            // As Keras: one-hot rows by their maximum, others by their value.
            let class = if row.len() > 1 {
                let best = row
                    .iter()
                    .enumerate()
                    .fold(0, |best, (index, value)| if *value > row[best] { index } else { best });
                best as f32
            } else {
                row[0].round()
            };
            let by_class = class_weight.get(class as usize).copied().unwrap_or(1.0);
            by_class * data.sample_weight.map_or(1.0, |weights| weights[sample])
        });
        Ok(Some(weights.collect()))
    }
}

/// Samples `first..last` of a batch.
pub(super) fn rows(all: &Tensor, first: usize, last: usize) -> Tensor {
    all.slice_axis(ndarray::Axis(0), (first..last).into()).to_owned()
}
