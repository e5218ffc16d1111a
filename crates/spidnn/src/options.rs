//! What `fit`, `evaluate` and `predict` are asked to do, with Keras' words and defaults.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use spidnn_graph::Graph;
use spidnn_graph::training::{Loss, Optimizer};

use crate::Error;
use crate::callbacks::Callback;
use crate::data::Dataset;
use crate::metrics::Metric;
use crate::names::{parse_loss, parse_optimizer};

/// Format of the numbers that products are made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// As good as float32.
    #[default]
    F32,
    /// Block floating point with mantissas of 16 bits.
    Bfp16,
    /// Bytes: predictions only, with ranges from samples (see [`crate::Session::calibrate`]).
    Int8,
}

/// Where validation data comes from.
#[derive(Debug, Clone, Copy, Default)]
pub enum Validation<'a> {
    /// None.
    #[default]
    None,
    /// The last part of the training data, taken off before shuffling.
    Split(f64),
    /// Data of its own.
    Data(&'a Dataset),
}

/// A training run: loss, optimizer, how long, on what, with whom watching.
///
/// ```
/// use spidnn::{Fit, Loss};
/// let fit = Fit::new(Loss::SparseCategoricalCrossentropy { from_logits: false })
///     .optimizer_by_name("adam:learning_rate=0.002")?
///     .epochs(3)
///     .batch_size(480)
///     .metric("accuracy")?;
/// # let _ = fit;
/// # Ok::<(), spidnn::Error>(())
/// ```
pub struct Fit<'a> {
    /// One loss for all outputs, or one for each.
    pub losses: Vec<Loss>,
    /// The optimizer. Default: Adam.
    pub optimizer: Optimizer,
    /// Epochs in all (with [`Fit::resume`], those already done count). Default 1.
    pub epochs: usize,
    /// Samples of a step, over the whole machine; the last batch of an epoch may be smaller. Default 32.
    pub batch_size: usize,
    /// Whether each epoch has an order of its own. Default true.
    pub shuffle: bool,
    /// Seed of the order and of dropout. Default 0.
    pub seed: u64,
    /// Validation after each epoch.
    pub validation: Validation<'a>,
    /// Metrics (each sample counts the same).
    pub metrics: Vec<Metric>,
    /// Metrics in which samples have their weights.
    pub weighted_metrics: Vec<Metric>,
    /// Who is called between batches and epochs.
    pub callbacks: Vec<&'a mut dyn Callback>,
    /// Weights of classes; classes that are not named have 1.
    pub class_weight: BTreeMap<usize, f32>,
    /// Folder for checkpoints: one after each epoch, and one when the fit is interrupted.
    pub checkpoint: Option<PathBuf>,
    /// Go on from the newest checkpoint of the folder, if there is one.
    pub resume: bool,
    /// When this becomes true (Ctrl-C), the fit ends after the batch, with a checkpoint, as if it were done.
    pub interrupt: Option<Arc<AtomicBool>>,
}

impl<'a> Fit<'a> {
    /// A fit with this loss and Keras' defaults.
    pub fn new(loss: Loss) -> Fit<'a> {
        Fit {
            losses: vec![loss],
            optimizer: default_optimizer(),
            epochs: 1,
            batch_size: 32,
            shuffle: true,
            seed: 0,
            validation: Validation::None,
            metrics: Vec::new(),
            weighted_metrics: Vec::new(),
            callbacks: Vec::new(),
            class_weight: BTreeMap::new(),
            checkpoint: None,
            resume: false,
            interrupt: None,
        }
    }

    /// A fit with the loss of this Keras name.
    ///
    /// # Errors
    /// An unknown name or argument.
    pub fn by_name(loss: &str) -> Result<Fit<'a>, Error> {
        Ok(Fit::new(parse_loss(loss)?))
    }
    /// Sets one loss for each output.
    pub fn losses(mut self, losses: impl IntoIterator<Item = Loss>) -> Self {
        self.losses = losses.into_iter().collect();
        self
    }
    /// Sets the optimizer.
    pub fn optimizer(mut self, optimizer: Optimizer) -> Self {
        self.optimizer = optimizer;
        self
    }
    /// Sets the optimizer by its Keras name and arguments (`adam:learning_rate=0.002`).
    ///
    /// # Errors
    /// An unknown name or argument.
    pub fn optimizer_by_name(mut self, name: &str) -> Result<Self, Error> {
        self.optimizer = parse_optimizer(name)?;
        Ok(self)
    }
    /// Sets the number of epochs.
    pub fn epochs(mut self, epochs: usize) -> Self {
        self.epochs = epochs;
        self
    }
    /// Sets the samples of a step.
    pub fn batch_size(mut self, samples: usize) -> Self {
        self.batch_size = samples;
        self
    }
    /// Sets whether each epoch has an order of its own.
    pub fn shuffle(mut self, shuffle: bool) -> Self {
        self.shuffle = shuffle;
        self
    }
    /// Sets the seed of the order and of dropout.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }
    /// Validates on these data after each epoch.
    pub fn validation(mut self, data: &'a Dataset) -> Self {
        self.validation = Validation::Data(data);
        self
    }
    /// Validates on the last part of the training data.
    pub fn validation_split(mut self, fraction: f64) -> Self {
        self.validation = Validation::Split(fraction);
        self
    }
    /// Adds a metric by its Keras name.
    ///
    /// # Errors
    /// An unknown name or argument.
    pub fn metric(mut self, name: &str) -> Result<Self, Error> {
        self.metrics.push(Metric::parse(name)?);
        Ok(self)
    }
    /// Adds a callback (a closure too).
    pub fn callback(mut self, callback: &'a mut dyn Callback) -> Self {
        self.callbacks.push(callback);
        self
    }
    /// Gives a class a weight.
    pub fn class_weight(mut self, class: usize, weight: f32) -> Self {
        self.class_weight.insert(class, weight);
        self
    }
    /// Writes checkpoints to a folder; with `resume`, goes on from the newest one there.
    pub fn checkpoint(mut self, folder: impl Into<PathBuf>, resume: bool) -> Self {
        self.checkpoint = Some(folder.into());
        self.resume = resume;
        self
    }
    /// Ends the fit cleanly when the flag becomes true.
    pub fn interrupt(mut self, flag: Arc<AtomicBool>) -> Self {
        self.interrupt = Some(flag);
        self
    }
}

/// Keras' Adam.
pub(crate) fn default_optimizer() -> Optimizer {
    Optimizer::adam(0.001)
}

/// What to evaluate.
#[derive(Debug, Clone, Default)]
pub struct Evaluate {
    /// One loss for all outputs, or one for each; if empty, the one that the session was trained with, or one that fits
    /// the model's output (see [`crate::data::guess_loss`]).
    pub losses: Vec<Loss>,
    /// Metrics (each sample counts the same).
    pub metrics: Vec<Metric>,
}

impl Evaluate {
    /// Evaluates this loss.
    pub fn new(loss: Loss) -> Evaluate {
        Evaluate { losses: vec![loss], metrics: Vec::new() }
    }
    /// Adds a metric by its Keras name.
    ///
    /// # Errors
    /// An unknown name or argument.
    pub fn metric(mut self, name: &str) -> Result<Self, Error> {
        self.metrics.push(Metric::parse(name)?);
        Ok(self)
    }
}

/// One loss for each output of a model, from one for all or one for each.
pub(crate) fn loss_for_each(losses: &[Loss], graph: &Graph) -> Result<Vec<Loss>, Error> {
    match losses {
        [one] => Ok(vec![*one; graph.outputs.len()]),
        many if many.len() == graph.outputs.len() => Ok(many.to_vec()),
        many => Err(Error::Argument(format!(
            "{} losses were given for {} outputs: give one for all, or one for each",
            many.len(),
            graph.outputs.len()
        ))),
    }
}
