//! Data sets: arrays of samples with their targets, where they come from, and what is wrong with them.
//!
//! A [`Dataset`] is plain tensors in memory. It comes from code ([`Dataset::new`]) or from a locator
//! ([`Dataset::open`]): `mnist`, `mnist:FOLDER#test`, a `.npz`, `.npy` or `.csv` file. Before anything reaches a machine,
//! [`Dataset::check_inputs`] and [`Dataset::check_targets`] compare it with a model; their errors name the array, the
//! place and the remedy.

mod csv;
mod idx;
mod locate;

use std::path::PathBuf;

use ndarray::{ArrayD, Axis, IxDyn};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use spidnn_graph::training::Loss;
use spidnn_graph::{Graph, Tensor};

pub use idx::{Part, mnist_folder, read_idx};

/// What is wrong with data. Every message names the thing and the remedy.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// The locator names nothing that can be read.
    #[error("`{locator}` is not a data set: {problem}. Give {FORMS}")]
    Locator {
        /// What was given.
        locator: String,
        /// Why it does not do.
        problem: String,
    },
    /// A file cannot be opened or read.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A file is there but its content is not what it should be.
    #[error("{}: {problem}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong, and the remedy.
        problem: String,
    },
    /// An array file cannot be read.
    #[error(transparent)]
    Import(#[from] spidnn_import::ImportError),
    /// No samples.
    #[error("{what} holds no samples; a data set needs at least one")]
    Empty {
        /// Name of the array or data set.
        what: String,
    },
    /// A shape does not fit.
    #[error("{what} has shape {found:?}, but {expected}")]
    Shape {
        /// Name of the array.
        what: String,
        /// Its shape, samples first.
        found: Vec<usize>,
        /// What is needed, and the remedy.
        expected: String,
    },
    /// The number of arrays does not fit the model.
    #[error(
        "the data has {found} {kind} arrays, but the model has {expected} {kind}s: give one array for each, in the model's order or by name"
    )]
    Count {
        /// `input` or `output`.
        kind: &'static str,
        /// Arrays in the data.
        found: usize,
        /// What the model has.
        expected: usize,
    },
    /// NaN or infinity.
    #[error(
        "{what} holds {value} in sample {sample} (element {element} of it): remove or replace values that are not finite"
    )]
    NotFinite {
        /// Name of the array.
        what: String,
        /// Sample number, from 0.
        sample: usize,
        /// Element number inside the sample, row-major, from 0.
        element: usize,
        /// The value.
        value: f32,
    },
    /// A label outside the range of the loss.
    #[error("{what}: label {value} of sample {sample} is not {expected}")]
    Label {
        /// Name of the array.
        what: String,
        /// Sample number, from 0.
        sample: usize,
        /// The value.
        value: f32,
        /// What labels may be, and the remedy.
        expected: String,
    },
    /// There are no targets where they are needed.
    #[error(
        "the data has no targets: training and evaluation need an array `y` (or one for each output) beside the inputs"
    )]
    NoTargets,
    /// A split that leaves one side empty.
    #[error(
        "a validation split of {fraction} of {samples} samples leaves one side empty: use a fraction between 0 and 1 that leaves samples on both sides"
    )]
    Split {
        /// Fraction asked for.
        fraction: f64,
        /// Samples there are.
        samples: usize,
    },
}

const FORMS: &str =
    "`mnist` or `mnist#test` (the bundled digits), `mnist:FOLDER[#test]` (IDX files), or a .npz, .npy or .csv file";

/// Samples: one tensor for each model input and output, all with the samples first.
#[derive(Debug, Clone, PartialEq)]
pub struct Dataset {
    /// What error messages call it (the locator, or `the data`).
    pub name: String,
    /// One for each model input, `[samples, ..]`.
    pub inputs: Vec<Tensor>,
    /// One for each model output; empty if there are none. Class numbers (`[samples]`) or values (`[samples, ..]`).
    pub targets: Vec<Tensor>,
    /// Weight of each sample in the loss; all 1 if absent.
    pub sample_weight: Option<Vec<f32>>,
}

impl Dataset {
    /// A data set of a model with one input and one output.
    pub fn new(x: impl Into<Tensor>, y: impl Into<Tensor>) -> Dataset {
        Dataset { name: "the data".into(), inputs: vec![x.into()], targets: vec![y.into()], sample_weight: None }
    }

    /// Inputs only, for predictions.
    pub fn inputs(inputs: Vec<Tensor>) -> Dataset {
        Dataset { name: "the data".into(), inputs, targets: Vec::new(), sample_weight: None }
    }

    /// The same with a weight for each sample.
    pub fn with_sample_weight(mut self, weights: Vec<f32>) -> Dataset {
        self.sample_weight = Some(weights);
        self
    }

    /// Opens a data set by its locator (see the [module](self)). `graph` names the arrays to look for in a `.npz`
    /// file and the columns of a `.csv` file; without it only `x`, `y` (`x0`, ..) are known.
    ///
    /// # Errors
    /// If nothing is there, or its content is malformed. It is not compared with the model's shapes here.
    pub fn open(locator: &str, graph: Option<&Graph>) -> Result<Dataset, DataError> {
        locate::open(locator, graph)
    }

    /// Number of samples.
    pub fn len(&self) -> usize {
        self.inputs.first().map_or(0, |t| t.shape().first().copied().unwrap_or(0))
    }

    /// Whether there are no samples.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The samples with these numbers, in this order.
    ///
    /// # Panics
    /// If a number is not below [`Dataset::len`].
    pub fn select(&self, samples: &[usize]) -> Dataset {
        let pick = |t: &Tensor| t.select(Axis(0), samples);
        Dataset {
            name: self.name.clone(),
            inputs: self.inputs.iter().map(pick).collect(),
            targets: self.targets.iter().map(pick).collect(),
            sample_weight: self.sample_weight.as_ref().map(|w| samples.iter().map(|&s| w[s]).collect()),
        }
    }

    /// The first `count` samples (all, if there are fewer).
    pub fn take(&self, count: usize) -> Dataset {
        self.range(0, count.min(self.len()))
    }

    fn range(&self, start: usize, end: usize) -> Dataset {
        let cut = |t: &Tensor| t.slice_axis(Axis(0), (start..end).into()).to_owned();
        Dataset {
            name: self.name.clone(),
            inputs: self.inputs.iter().map(cut).collect(),
            targets: self.targets.iter().map(cut).collect(),
            sample_weight: self.sample_weight.as_ref().map(|w| w[start..end].to_vec()),
        }
    }

    /// Splits off the last `fraction` of the samples for validation, before any shuffling, as Keras' `validation_split`.
    ///
    /// # Errors
    /// If a side would be empty.
    pub fn split_validation(&self, fraction: f64) -> Result<(Dataset, Dataset), DataError> {
        let samples = self.len();
        // Keras: `int(math.floor(batch_dim * (1.0 - validation_split)))`.
        let at = (samples as f64 * (1.0 - fraction)).floor();
        if !(fraction > 0.0 && fraction < 1.0) || at < 1.0 || at as usize >= samples {
            return Err(DataError::Split { fraction, samples });
        }
        let at = at as usize;
        Ok((self.range(0, at), self.range(at, samples)))
    }

    /// Compares the inputs with the model's and gives them the model's shapes (a missing or surplus last dimension of
    /// size 1 is added or dropped, as Keras does).
    ///
    /// # Errors
    /// A wrong number of arrays, a wrong shape, no samples, NaN or infinity.
    pub fn check_inputs(mut self, graph: &Graph) -> Result<Dataset, DataError> {
        if self.inputs.len() != graph.inputs.len() {
            return Err(DataError::Count { kind: "input", found: self.inputs.len(), expected: graph.inputs.len() });
        }
        if self.is_empty() {
            return Err(DataError::Empty { what: self.name });
        }
        let samples = self.len();
        for (i, &node) in graph.inputs.iter().enumerate() {
            let layer = &graph.layers[graph.nodes[node.0].layer.0].name;
            let what = format!("input {} of {} (model input `{layer}`)", i, self.name);
            let shape = &graph.nodes[node.0].shape;
            let tensor = std::mem::take(&mut self.inputs[i]);
            let expected =
                || format!("the model takes {} a sample: reshape it to [samples, {}]", plain(shape), list(shape));
            self.inputs[i] = fit_shape(tensor, samples, shape, &what, expected)?;
            check_finite(&self.inputs[i], &what)?;
        }
        if let Some(weights) = &self.sample_weight {
            let what = format!("sample_weight of {}", self.name);
            if weights.len() != samples {
                let expected = format!("there are {samples} samples: give one weight for each");
                return Err(DataError::Shape { what, found: vec![weights.len()], expected });
            }
            if let Some(sample) = weights.iter().position(|w| !w.is_finite()) {
                return Err(DataError::NotFinite { what, sample, element: 0, value: weights[sample] });
            }
        }
        Ok(self)
    }

    /// Compares the targets with the model's outputs under their losses (one for each): class numbers become `[samples]` (`[samples, ..]` for
    /// outputs with positions), values get the shape of the output.
    ///
    /// # Errors
    /// As [`Dataset::check_inputs`], and labels that the loss cannot take.
    pub fn check_targets(mut self, graph: &Graph, losses: &[Loss]) -> Result<Dataset, DataError> {
        if self.targets.is_empty() {
            return Err(DataError::NoTargets);
        }
        if self.targets.len() != graph.outputs.len() {
            return Err(DataError::Count { kind: "output", found: self.targets.len(), expected: graph.outputs.len() });
        }
        let samples = self.len();
        for (i, (&node, loss)) in graph.outputs.iter().zip(losses).enumerate() {
            let layer = &graph.layers[graph.nodes[node.0].layer.0].name;
            let what = format!("target {} of {} (model output `{layer}`)", i, self.name);
            let shape = &graph.nodes[node.0].shape;
            let tensor = std::mem::take(&mut self.targets[i]);
            let sparse = matches!(loss, Loss::SparseCategoricalCrossentropy { .. });
            self.targets[i] = if sparse {
                let positions = &shape[..shape.len().saturating_sub(1)];
                let expected = || {
                    format!(
                        "sparse_categorical_crossentropy takes one class number for each {}: give whole numbers below {}, \
                         or use categorical_crossentropy for one-hot rows",
                        if positions.is_empty() { "sample" } else { "position" },
                        shape.last().copied().unwrap_or(1),
                    )
                };
                fit_shape(tensor, samples, positions, &what, expected)?
            } else {
                let expected = || {
                    format!(
                        "the model gives {} a sample: give targets of that shape{}",
                        plain(shape),
                        if matches!(loss, Loss::CategoricalCrossentropy { .. }) {
                            " (one-hot), or use sparse_categorical_crossentropy for class numbers"
                        } else {
                            ""
                        }
                    )
                };
                fit_shape(tensor, samples, shape, &what, expected)?
            };
            check_finite(&self.targets[i], &what)?;
            check_labels(&self.targets[i], shape, loss, &what)?;
        }
        Ok(self)
    }

    /// Sample numbers in the order of an epoch: ascending, or shuffled by `seed` and `epoch` alone.
    pub fn order(&self, shuffle: bool, seed: u64, epoch: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.len()).collect();
        if shuffle {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            rng.set_stream(epoch as u64);
            order.shuffle(&mut rng);
        }
        order
    }
}

/// The loss that fits a model's output and the targets, for `evaluate` without one: softmax takes a cross-entropy by the
/// targets' shape, sigmoid binary cross-entropy, anything else the squared error.
pub fn guess_loss(graph: &Graph, data: &Dataset) -> Loss {
    use spidnn_graph::Activation as A;
    use spidnn_graph::LayerKind as K;
    let Some(&node) = graph.outputs.first() else { return Loss::MeanSquaredError };
    let node = &graph.nodes[node.0];
    let activation = match &graph.layers[node.layer.0].kind {
        K::Dense(d) => d.activation,
        K::Conv(c) => c.activation,
        K::Activation(a) => *a,
        _ => A::Linear,
    };
    match activation {
        A::Softmax => {
            let target = data.targets.first().map(|t| &t.shape()[1..]);
            if target == Some(&node.shape[..]) && node.shape.last() != Some(&1) {
                Loss::CategoricalCrossentropy { from_logits: false, label_smoothing: 0.0 }
            } else {
                Loss::SparseCategoricalCrossentropy { from_logits: false }
            }
        }
        A::Sigmoid => Loss::BinaryCrossentropy { from_logits: false, label_smoothing: 0.0 },
        _ => Loss::MeanSquaredError,
    }
}

fn list(shape: &[usize]) -> String {
    shape.iter().map(|n| n.to_string()).collect::<Vec<_>>().join(", ")
}

fn plain(shape: &[usize]) -> String {
    if shape.is_empty() { "one value".into() } else { format!("[{}]", list(shape)) }
}

/// `[samples, shape..]`, allowing for one missing or surplus last dimension of size 1.
fn fit_shape(
    tensor: Tensor,
    samples: usize,
    shape: &[usize],
    what: &str,
    expected: impl Fn() -> String,
) -> Result<Tensor, DataError> {
    let found = tensor.shape().to_vec();
    let wrong = |expected: String| DataError::Shape { what: what.into(), found: found.clone(), expected };
    let Some((&rows, rest)) = found.split_first() else {
        return Err(wrong("a data array has the samples as its first dimension".into()));
    };
    if rows != samples {
        return Err(wrong(format!("there are {samples} samples: every array needs the same number of rows")));
    }
    let same = rest == shape
        || rest.strip_suffix(&[1]) == Some(shape)
        || shape.strip_suffix(&[1]) == Some(rest)
        || (rest.is_empty() && shape.is_empty());
    if !same {
        return Err(wrong(expected()));
    }
    let mut full = vec![samples];
    full.extend_from_slice(shape);
    // Row-major in memory, whatever it was: slices of samples are handed to the machine as they lie.
    let values: Vec<f32> =
        if tensor.is_standard_layout() { tensor.into_raw_vec_and_offset().0 } else { tensor.iter().copied().collect() };
    ArrayD::from_shape_vec(IxDyn(&full), values).map_err(|_| wrong(expected()))
}

fn check_finite(tensor: &Tensor, what: &str) -> Result<(), DataError> {
    let Some(position) = tensor.iter().position(|v| !v.is_finite()) else { return Ok(()) };
    let elements = (tensor.len() / tensor.shape()[0].max(1)).max(1);
    let value = tensor.iter().nth(position).copied().unwrap_or(f32::NAN);
    Err(DataError::NotFinite { what: what.into(), sample: position / elements, element: position % elements, value })
}

fn check_labels(tensor: &Tensor, output: &[usize], loss: &Loss, what: &str) -> Result<(), DataError> {
    let elements = (tensor.len() / tensor.shape()[0].max(1)).max(1);
    let find = |bad: &dyn Fn(f32) -> bool, expected: String| match tensor.iter().position(|&v| bad(v)) {
        None => Ok(()),
        Some(position) => Err(DataError::Label {
            what: what.into(),
            sample: position / elements,
            value: tensor.iter().nth(position).copied().unwrap_or(f32::NAN),
            expected,
        }),
    };
    match loss {
        Loss::SparseCategoricalCrossentropy { .. } => {
            let classes = output.last().copied().unwrap_or(1);
            find(
                &|v| v < 0.0 || v >= classes as f32 || v.fract() != 0.0,
                format!(
                    "a whole number from 0 to {}: the model has {classes} outputs; correct the labels, or give the last \
                     layer more units",
                    classes.saturating_sub(1)
                ),
            )
        }
        Loss::BinaryCrossentropy { .. } => find(
            &|v| !(0.0..=1.0).contains(&v),
            "between 0 and 1: binary cross-entropy compares probabilities; rescale the labels, or use another loss"
                .into(),
        ),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::{Array, array};

    fn data() -> Dataset {
        let x = Array::from_shape_fn((10, 2), |(i, j)| (i * 2 + j) as f32).into_dyn();
        let y = Array::from_shape_fn(10, |i| (i % 3) as f32).into_dyn();
        Dataset::new(x, y)
    }

    #[test]
    fn validation_is_the_last_part() {
        let (train, validation) = data().split_validation(0.25).unwrap();
        assert_eq!((train.len(), validation.len()), (7, 3));
        assert_eq!(validation.inputs[0][[0, 0]], 14.0);
        assert!(data().split_validation(1.0).is_err());
        assert!(data().split_validation(0.0).is_err());
    }

    #[test]
    fn shuffling_depends_on_seed_and_epoch_only() {
        let d = data();
        assert_eq!(d.order(false, 1, 0), (0..10).collect::<Vec<_>>());
        let a = d.order(true, 1, 0);
        assert_eq!(a, d.order(true, 1, 0));
        assert_ne!(a, d.order(true, 1, 1));
        assert_ne!(a, d.order(true, 2, 0));
        let mut sorted = a;
        sorted.sort_unstable();
        assert_eq!(sorted, (0..10).collect::<Vec<_>>());
    }

    #[test]
    fn shapes_may_lack_or_have_a_last_one() {
        let t = |shape: &[usize]| Tensor::zeros(IxDyn(shape));
        let fit = |from: &[usize], to: &[usize]| fit_shape(t(from), from[0], to, "x", || "no".into());
        assert_eq!(fit(&[3, 28, 28], &[28, 28, 1]).unwrap().shape(), [3, 28, 28, 1]);
        assert_eq!(fit(&[3, 1], &[]).unwrap().shape(), [3]);
        assert_eq!(fit(&[3], &[1]).unwrap().shape(), [3, 1]);
        assert!(fit(&[3, 784], &[28, 28, 1]).is_err());
    }

    #[test]
    fn errors_name_the_place() {
        let x = array![[0.0, 1.0], [2.0, f32::INFINITY]].into_dyn();
        let message = check_finite(&x, "input 0 of a.npz").unwrap_err().to_string();
        assert!(message.contains("input 0 of a.npz") && message.contains("sample 1 (element 1"), "{message}");
        let y = array![0.0, 10.0].into_dyn();
        let loss = Loss::SparseCategoricalCrossentropy { from_logits: false };
        let message = check_labels(&y, &[10], &loss, "target 0").unwrap_err().to_string();
        assert!(message.contains("label 10 of sample 1") && message.contains("0 to 9"), "{message}");
        assert!(check_labels(&array![0.5].into_dyn(), &[10], &loss, "target 0").is_err());
        assert!(check_labels(&array![0.0, 9.0].into_dyn(), &[10], &loss, "target 0").is_ok());
    }
}
