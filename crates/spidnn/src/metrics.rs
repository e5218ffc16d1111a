//! Metrics with Keras 3 semantics: names, defaults, ties, and the state that runs over batches.
//!
//! A [`Metric`] is made from a Keras name ([`Metric::parse`]), takes predictions batch by batch and gives a number. The
//! same values come out whether the samples arrive at once or in parts. Sums are kept in f64.

use ndarray::{ArrayView1, ArrayViewD};
use spidnn_graph::Tensor;

/// Keras' `backend.epsilon()`.
const EPSILON: f32 = 1e-7;

/// Why a metric cannot be made or updated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MetricError {
    /// No metric has this name.
    #[error("there is no metric `{name}`{}; there are: {}", nearest(.name), NAMES.join(", "))]
    Unknown {
        /// What was asked for.
        name: String,
    },
    /// An argument that the metric does not take, or a value that it cannot read.
    #[error("metric `{metric}` does not take `{argument}`: {problem}")]
    Argument {
        /// The metric.
        metric: String,
        /// The argument as given.
        argument: String,
        /// What it takes.
        problem: String,
    },
    /// Targets and predictions do not go together.
    #[error(
        "metric `{metric}` cannot compare targets of shape {target:?} with predictions of shape {prediction:?}: {remedy}"
    )]
    Shape {
        /// The metric.
        metric: String,
        /// Shape of the targets.
        target: Vec<usize>,
        /// Shape of the predictions.
        prediction: Vec<usize>,
        /// What would do.
        remedy: &'static str,
    },
}

/// Names that [`Metric::parse`] knows, without their short forms.
pub const NAMES: [&str; 29] = [
    "accuracy",
    "binary_accuracy",
    "categorical_accuracy",
    "sparse_categorical_accuracy",
    "top_k_categorical_accuracy",
    "sparse_top_k_categorical_accuracy",
    "auc",
    "precision",
    "recall",
    "f1_score",
    "true_positives",
    "true_negatives",
    "false_positives",
    "false_negatives",
    "mean_squared_error",
    "root_mean_squared_error",
    "mean_absolute_error",
    "mean_absolute_percentage_error",
    "cosine_similarity",
    "r2_score",
    "log_cosh_error",
    "binary_crossentropy",
    "categorical_crossentropy",
    "sparse_categorical_crossentropy",
    "kl_divergence",
    "mse",
    "mae",
    "rmse",
    "acc",
];

fn nearest(name: &str) -> String {
    crate::text::nearest(name, &NAMES).map_or(String::new(), |n| format!(" (did you mean `{n}`?)"))
}

/// The curve of an [`MetricKind::Auc`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Curve {
    /// True positive rate over false positive rate.
    Roc,
    /// Precision over recall.
    Pr,
}

/// How the area under a ROC curve is summed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Summation {
    Interpolation,
    Majoring,
    Minoring,
}

/// Which cells of a confusion matrix, or which ratio of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Confusion {
    TruePositives,
    TrueNegatives,
    FalsePositives,
    FalseNegatives,
    Precision,
    Recall,
}

/// What a metric measures, with Keras' arguments.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)]
pub enum MetricKind {
    /// Resolved at the first update to binary, categorical or sparse categorical accuracy by the shapes, as Keras does.
    Accuracy,
    BinaryAccuracy {
        threshold: f32,
    },
    CategoricalAccuracy,
    SparseCategoricalAccuracy,
    TopKCategoricalAccuracy {
        k: usize,
    },
    SparseTopKCategoricalAccuracy {
        k: usize,
    },
    MeanSquaredError,
    RootMeanSquaredError,
    MeanAbsoluteError,
    MeanAbsolutePercentageError,
    CosineSimilarity,
    LogCoshError,
    BinaryCrossentropy,
    CategoricalCrossentropy,
    SparseCategoricalCrossentropy,
    KlDivergence,
    R2Score,
    Auc {
        curve: Curve,
        num_thresholds: usize,
        summation: Summation,
    },
    /// Precision, recall and the four counts, at one or more thresholds.
    Confusion {
        what: Confusion,
        thresholds: Vec<f32>,
        top_k: Option<usize>,
        class_id: Option<usize>,
    },
    F1Score {
        average: Average,
        threshold: Option<f32>,
    },
}

/// How class scores become one number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Average {
    None,
    Micro,
    Macro,
    Weighted,
}

/// State that runs over batches.
#[derive(Debug, Clone, PartialEq)]
enum State {
    /// Weighted sum and sum of weights.
    Mean { total: f64, count: f64 },
    /// Weighted tp, fp, tn, fn for each threshold (or class).
    Matrix(Vec<[f64; 4]>),
    /// Per output: sum, sum of squares, sum of squared errors, weight.
    R2(Vec<[f64; 4]>),
}

/// A metric and its running state.
#[derive(Debug, Clone, PartialEq)]
pub struct Metric {
    name: String,
    kind: MetricKind,
    state: State,
}

impl Metric {
    /// A metric of this kind under a name of your own.
    pub fn new(name: impl Into<String>, kind: MetricKind) -> Metric {
        let state = State::fresh(&kind);
        Metric { name: name.into(), kind, state }
    }

    /// A metric by its Keras name, with Keras' arguments after a colon: `accuracy`, `top_k_categorical_accuracy:k=3`,
    /// `auc:curve=PR`. Its name in the history is what stands before the colon.
    ///
    /// # Errors
    /// If there is no such metric, or it has no such argument.
    pub fn parse(text: &str) -> Result<Metric, MetricError> {
        let (name, arguments) = text.split_once(':').unwrap_or((text, ""));
        let name = name.trim();
        let mut args = Arguments::new(name, arguments);
        let confusion = |args: &mut Arguments, what| -> Result<MetricKind, MetricError> {
            let thresholds = args.floats("thresholds")?;
            let top_k = args.number("top_k")?;
            let class_id = args.number("class_id")?;
            Ok(MetricKind::confusion(what, thresholds, top_k, class_id))
        };
        use MetricKind as K;
        let kind = match name.to_ascii_lowercase().as_str() {
            "accuracy" | "acc" => K::Accuracy,
            "binary_accuracy" => K::BinaryAccuracy { threshold: args.number("threshold")?.unwrap_or(0.5) },
            "categorical_accuracy" => K::CategoricalAccuracy,
            "sparse_categorical_accuracy" => K::SparseCategoricalAccuracy,
            "top_k_categorical_accuracy" => K::TopKCategoricalAccuracy { k: args.number("k")?.unwrap_or(5) },
            "sparse_top_k_categorical_accuracy" => {
                K::SparseTopKCategoricalAccuracy { k: args.number("k")?.unwrap_or(5) }
            }
            "mean_squared_error" | "mse" => K::MeanSquaredError,
            "root_mean_squared_error" | "rmse" => K::RootMeanSquaredError,
            "mean_absolute_error" | "mae" => K::MeanAbsoluteError,
            "mean_absolute_percentage_error" | "mape" => K::MeanAbsolutePercentageError,
            "cosine_similarity" => K::CosineSimilarity,
            "log_cosh_error" | "log_cosh" | "logcosh" => K::LogCoshError,
            "binary_crossentropy" | "bce" => K::BinaryCrossentropy,
            "categorical_crossentropy" => K::CategoricalCrossentropy,
            "sparse_categorical_crossentropy" => K::SparseCategoricalCrossentropy,
            "kl_divergence" | "kld" | "kullback_leibler_divergence" => K::KlDivergence,
            "r2_score" => K::R2Score,
            "auc" => K::Auc {
                curve: args.choice("curve", &[("roc", Curve::Roc), ("pr", Curve::Pr)])?.unwrap_or(Curve::Roc),
                num_thresholds: args.number("num_thresholds")?.unwrap_or(200).max(2),
                summation: args
                    .choice(
                        "summation_method",
                        &[
                            ("interpolation", Summation::Interpolation),
                            ("majoring", Summation::Majoring),
                            ("minoring", Summation::Minoring),
                        ],
                    )?
                    .unwrap_or(Summation::Interpolation),
            },
            "precision" => confusion(&mut args, Confusion::Precision)?,
            "recall" => confusion(&mut args, Confusion::Recall)?,
            "true_positives" => confusion(&mut args, Confusion::TruePositives)?,
            "true_negatives" => confusion(&mut args, Confusion::TrueNegatives)?,
            "false_positives" => confusion(&mut args, Confusion::FalsePositives)?,
            "false_negatives" => confusion(&mut args, Confusion::FalseNegatives)?,
            "f1_score" => K::F1Score {
                average: args
                    .choice(
                        "average",
                        &[
                            ("none", Average::None),
                            ("micro", Average::Micro),
                            ("macro", Average::Macro),
                            ("weighted", Average::Weighted),
                        ],
                    )?
                    .unwrap_or(Average::None),
                threshold: args.number("threshold")?,
            },
            _ => return Err(MetricError::Unknown { name: name.into() }),
        };
        args.finish()?;
        Ok(Metric::new(name, kind))
    }

    /// Its name in the history.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it measures.
    pub fn kind(&self) -> &MetricKind {
        &self.kind
    }

    /// Whether more is better.
    pub fn higher_is_better(&self) -> bool {
        higher_is_better(&self.kind)
    }

    /// Forgets all samples.
    pub fn reset(&mut self) {
        self.state = State::fresh(&self.kind);
    }

    /// Adds a batch. `target` and `prediction` have the samples first; class numbers are `[samples]` or `[samples, 1]`;
    /// `weights`: one for each sample.
    ///
    /// # Errors
    /// If the shapes do not go together.
    pub fn update(&mut self, target: &Tensor, prediction: &Tensor, weights: Option<&[f32]>) -> Result<(), MetricError> {
        if self.kind == MetricKind::Accuracy {
            self.kind = resolve_accuracy(target.shape(), prediction.shape());
        }
        let shape = |remedy| MetricError::Shape {
            metric: self.name.clone(),
            target: target.shape().to_vec(),
            prediction: prediction.shape().to_vec(),
            remedy,
        };
        let samples = prediction.shape().first().copied().unwrap_or(0);
        if target.shape().first().copied() != Some(samples) || weights.is_some_and(|w| w.len() != samples) {
            return Err(shape("give one target and one weight for each sample"));
        }
        if samples == 0 {
            return Ok(());
        }
        let weight = |sample: usize| weights.map_or(1.0, |w| f64::from(w[sample]));
        // Rows are vectors along the last axis; a sample may have several (outputs with positions).
        let p = rows(prediction.view());
        let rows_per_sample = p.nrows() / samples;
        match (&self.kind, &mut self.state) {
            (kind, State::Mean { total, count }) => {
                let row_value: Box<dyn Fn(usize) -> f64> = if kind.is_sparse() {
                    if target.len() != p.nrows() {
                        return Err(shape("it takes one class number for each row of predictions"));
                    }
                    let classes: Vec<f32> = target.iter().copied().collect();
                    let kind = kind.clone();
                    let p = &p;
                    Box::new(move |r| sparse_value(&kind, classes[r] as usize, p.row(r)))
                } else {
                    if target.len() != prediction.len() {
                        return Err(shape("it takes targets of the shape of the predictions"));
                    }
                    let t = rows_like(target, p.dim());
                    let kind = kind.clone();
                    let p = &p;
                    Box::new(move |r| dense_value(&kind, t.row(r), p.row(r)))
                };
                for sample in 0..samples {
                    let first = sample * rows_per_sample;
                    let sum: f64 = (first..first + rows_per_sample).map(&row_value).sum();
                    *total += sum / rows_per_sample as f64 * weight(sample);
                    *count += weight(sample);
                }
            }
            (kind, state) => {
                if target.len() != prediction.len() {
                    return Err(shape("it takes targets of the shape of the predictions"));
                }
                let t = rows_like(target, p.dim());
                let row_weight = |row: usize| weight(row / rows_per_sample);
                match (kind, state) {
                    (MetricKind::Confusion { thresholds, top_k, class_id, .. }, State::Matrix(m)) => {
                        update_confusion(m, thresholds, *top_k, *class_id, &t, &p, row_weight);
                    }
                    (MetricKind::Auc { num_thresholds, .. }, State::Matrix(m)) => {
                        update_auc(m, *num_thresholds, &t, &p, row_weight);
                    }
                    (MetricKind::F1Score { threshold, .. }, State::Matrix(m)) => {
                        update_f1(m, *threshold, &t, &p, row_weight);
                    }
                    (_, State::R2(sums)) => {
                        sums.resize(p.ncols(), [0.0; 4]);
                        for (row, (t, p)) in t.rows().into_iter().zip(p.rows()).enumerate() {
                            let w = row_weight(row);
                            for (s, (&t, &p)) in sums.iter_mut().zip(t.iter().zip(p)) {
                                let (t, p) = (f64::from(t), f64::from(p));
                                s[0] += t * w;
                                s[1] += t * t * w;
                                s[2] += (t - p) * (t - p) * w;
                                s[3] += w;
                            }
                        }
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// The value over all samples so far; the mean of [`Metric::results`] where those are several. 0 before any sample, as Keras.
    pub fn result(&self) -> f64 {
        let values = self.results();
        values.iter().sum::<f64>() / values.len().max(1) as f64
    }

    /// The value, or one for each threshold or class where the metric has several.
    pub fn results(&self) -> Vec<f64> {
        match (&self.kind, &self.state) {
            (kind, State::Mean { total, count }) => {
                let mean = ratio(*total, *count);
                vec![if *kind == MetricKind::RootMeanSquaredError { mean.sqrt() } else { mean }]
            }
            (MetricKind::Confusion { what, .. }, State::Matrix(m)) => m
                .iter()
                .map(|&[tp, fp, tn, fne]| match what {
                    Confusion::TruePositives => tp,
                    Confusion::FalsePositives => fp,
                    Confusion::TrueNegatives => tn,
                    Confusion::FalseNegatives => fne,
                    Confusion::Precision => ratio(tp, tp + fp),
                    Confusion::Recall => ratio(tp, tp + fne),
                })
                .collect(),
            (MetricKind::Auc { curve, summation, .. }, State::Matrix(m)) => vec![area(m, *curve, *summation)],
            (MetricKind::F1Score { average, .. }, State::Matrix(m)) => f1(m, *average),
            (_, State::R2(sums)) => {
                let scores = sums.iter().map(|&[sum, squares, residual, weight]| {
                    let total = squares - sum * ratio(sum, weight);
                    if total == 0.0 { 0.0 } else { 1.0 - residual / total }
                });
                vec![scores.sum::<f64>() / sums.len().max(1) as f64]
            }
            (_, State::Matrix(_)) => Vec::new(),
        }
    }
}

/// Whether more is better, by the name of a value in the history (`val_` allowed): what callbacks with mode `auto` go by.
pub fn name_is_higher_better(name: &str) -> bool {
    let name = name.strip_prefix("val_").unwrap_or(name);
    match Metric::parse(name) {
        Ok(metric) => metric.higher_is_better(),
        Err(_) => name.contains("acc"),
    }
}

fn higher_is_better(kind: &MetricKind) -> bool {
    use MetricKind as K;
    match kind {
        K::Accuracy
        | K::BinaryAccuracy { .. }
        | K::CategoricalAccuracy
        | K::SparseCategoricalAccuracy
        | K::TopKCategoricalAccuracy { .. }
        | K::SparseTopKCategoricalAccuracy { .. }
        | K::CosineSimilarity
        | K::R2Score
        | K::Auc { .. }
        | K::F1Score { .. } => true,
        K::Confusion { what, .. } => !matches!(what, Confusion::FalsePositives | Confusion::FalseNegatives),
        K::MeanSquaredError
        | K::RootMeanSquaredError
        | K::MeanAbsoluteError
        | K::MeanAbsolutePercentageError
        | K::LogCoshError
        | K::BinaryCrossentropy
        | K::CategoricalCrossentropy
        | K::SparseCategoricalCrossentropy
        | K::KlDivergence => false,
    }
}

impl MetricKind {
    /// Precision, recall or a count with Keras' defaults: threshold 0.5, or none with `top_k`.
    pub fn confusion(
        what: Confusion,
        thresholds: Option<Vec<f32>>,
        top_k: Option<usize>,
        class_id: Option<usize>,
    ) -> MetricKind {
        let default = if top_k.is_some() { f32::NEG_INFINITY } else { 0.5 };
        let thresholds = thresholds.filter(|t| !t.is_empty()).unwrap_or_else(|| vec![default]);
        MetricKind::Confusion { what, thresholds, top_k, class_id }
    }

    fn is_sparse(&self) -> bool {
        matches!(
            self,
            MetricKind::SparseCategoricalAccuracy
                | MetricKind::SparseTopKCategoricalAccuracy { .. }
                | MetricKind::SparseCategoricalCrossentropy
        )
    }
}

impl State {
    fn fresh(kind: &MetricKind) -> State {
        match kind {
            MetricKind::Confusion { thresholds, .. } => State::Matrix(vec![[0.0; 4]; thresholds.len()]),
            MetricKind::Auc { num_thresholds, .. } => State::Matrix(vec![[0.0; 4]; *num_thresholds]),
            MetricKind::F1Score { .. } => State::Matrix(Vec::new()),
            MetricKind::R2Score => State::R2(Vec::new()),
            _ => State::Mean { total: 0.0, count: 0.0 },
        }
    }
}

/// As `is_binary_or_sparse_categorical` of Keras.
fn resolve_accuracy(target: &[usize], prediction: &[usize]) -> MetricKind {
    let last = |s: &[usize]| s.last().copied().unwrap_or(1);
    if last(prediction) == 1 || prediction.len() < 2 {
        MetricKind::BinaryAccuracy { threshold: 0.5 }
    } else if target.len() < prediction.len() || last(target) == 1 {
        MetricKind::SparseCategoricalAccuracy
    } else {
        MetricKind::CategoricalAccuracy
    }
}

fn ratio(a: f64, b: f64) -> f64 {
    if b == 0.0 { 0.0 } else { a / b }
}

/// A tensor as rows along its last axis; `[samples]` as one column.
fn rows(tensor: ArrayViewD<'_, f32>) -> ndarray::Array2<f32> {
    let columns = if tensor.ndim() < 2 { 1 } else { tensor.shape()[tensor.ndim() - 1] };
    let count = tensor.len() / columns.max(1);
    let values = tensor.iter().copied().collect();
    ndarray::Array2::from_shape_vec((count, columns), values).unwrap_or_default()
}

/// Targets with as many elements as the predictions, in the same rows.
fn rows_like(target: &Tensor, (count, columns): (usize, usize)) -> ndarray::Array2<f32> {
    let values = target.iter().copied().collect();
    ndarray::Array2::from_shape_vec((count, columns), values).unwrap_or_default()
}

/// The first largest element, as `argmax` gives it.
fn argmax(row: ArrayView1<'_, f32>) -> usize {
    let mut best = 0;
    for (i, &v) in row.iter().enumerate() {
        if v > row[best] {
            best = i;
        }
    }
    best
}

/// Whether a class is among the `k` largest; all classes that tie with the last of them are (TensorFlow's `in_top_k`).
fn in_top_k(class: usize, row: ArrayView1<'_, f32>, k: usize) -> bool {
    row.get(class).is_some_and(|&own| own.is_finite() && row.iter().filter(|&&v| v > own).count() < k)
}

fn sparse_value(kind: &MetricKind, class: usize, p: ArrayView1<'_, f32>) -> f64 {
    match kind {
        MetricKind::SparseCategoricalAccuracy => f64::from(argmax(p) == class),
        MetricKind::SparseTopKCategoricalAccuracy { k } => f64::from(in_top_k(class, p, *k)),
        // Keras takes the logarithm of the clipped probabilities as logits, which renormalises them.
        _ => {
            let clip = |v: f32| f64::from(v.clamp(EPSILON, 1.0 - EPSILON));
            let sum: f64 = p.iter().map(|&v| clip(v)).sum();
            p.get(class).map_or(f64::NAN, |&v| -(clip(v) / sum).ln())
        }
    }
}

fn dense_value(kind: &MetricKind, t: ArrayView1<'_, f32>, p: ArrayView1<'_, f32>) -> f64 {
    let n = p.len() as f64;
    let pairs = || t.iter().zip(p).map(|(&t, &p)| (f64::from(t), f64::from(p)));
    let mean = |f: &dyn Fn(f64, f64) -> f64| pairs().map(|(t, p)| f(t, p)).sum::<f64>() / n;
    match kind {
        MetricKind::BinaryAccuracy { threshold } => {
            t.iter().zip(p).filter(|&(&t, &p)| t == f32::from(p > *threshold)).count() as f64 / n
        }
        MetricKind::CategoricalAccuracy => f64::from(argmax(t) == argmax(p)),
        MetricKind::TopKCategoricalAccuracy { k } => f64::from(in_top_k(argmax(t), p, *k)),
        MetricKind::MeanSquaredError | MetricKind::RootMeanSquaredError => mean(&|t, p| (t - p) * (t - p)),
        MetricKind::MeanAbsoluteError => mean(&|t, p| (t - p).abs()),
        MetricKind::MeanAbsolutePercentageError => {
            100.0 * mean(&|t, p| ((t - p) / t.abs().max(f64::from(EPSILON))).abs())
        }
        MetricKind::CosineSimilarity => {
            let dot: f64 = pairs().map(|(t, p)| t * p).sum();
            let tt: f64 = pairs().map(|(t, _)| t * t).sum();
            let pp: f64 = pairs().map(|(_, p)| p * p).sum();
            let tiny = f64::from(EPSILON) * f64::from(EPSILON);
            dot / (tt.max(tiny).sqrt() * pp.max(tiny).sqrt())
        }
        MetricKind::LogCoshError => mean(&|t, p| {
            let d = p - t;
            // ln(cosh d), without the overflow of cosh.
            d.abs() + (-2.0 * d.abs()).exp().ln_1p() - std::f64::consts::LN_2
        }),
        MetricKind::BinaryCrossentropy => {
            let clip = |v: f64| f64::from((v as f32).clamp(EPSILON, 1.0 - EPSILON));
            mean(&|t, p| {
                let p = clip(p);
                -(t * p.ln() + (1.0 - t) * (1.0 - p).ln())
            })
        }
        MetricKind::CategoricalCrossentropy => {
            let sum: f64 = pairs().map(|(_, p)| p).sum();
            let clip = |v: f64| f64::from((v as f32).clamp(EPSILON, 1.0 - EPSILON));
            -pairs().map(|(t, p)| t * clip(p / sum).ln()).sum::<f64>()
        }
        MetricKind::KlDivergence => {
            let clip = |v: f64| f64::from((v as f32).clamp(EPSILON, 1.0));
            pairs().map(|(t, p)| clip(t) * (clip(t) / clip(p)).ln()).sum()
        }
        _ => f64::NAN,
    }
}

/// Adds a weighted decision to `[tp, fp, tn, fn]`.
fn decide(cell: &mut [f64; 4], label: f64, positive: bool, weight: f64) {
    if positive {
        cell[0] += label * weight;
        cell[1] += (1.0 - label) * weight;
    } else {
        cell[2] += (1.0 - label) * weight;
        cell[3] += label * weight;
    }
}

fn update_confusion(
    matrix: &mut [[f64; 4]],
    thresholds: &[f32],
    top_k: Option<usize>,
    class_id: Option<usize>,
    t: &ndarray::Array2<f32>,
    p: &ndarray::Array2<f32>,
    weight: impl Fn(usize) -> f64,
) {
    for (row, (t, p)) in t.rows().into_iter().zip(p.rows()).enumerate() {
        let kept = top_k.map(|k| {
            let mut order: Vec<usize> = (0..p.len()).collect();
            order.sort_by(|&a, &b| p[b].total_cmp(&p[a]).then(a.cmp(&b)));
            order.truncate(k);
            order
        });
        for column in 0..p.len() {
            if class_id.is_some_and(|c| c != column) {
                continue;
            }
            let value = if kept.as_ref().is_some_and(|k| !k.contains(&column)) { f32::NEG_INFINITY } else { p[column] };
            let label = if t[column] != 0.0 { 1.0 } else { 0.0 };
            for (cell, &threshold) in matrix.iter_mut().zip(thresholds) {
                decide(cell, label, value > threshold, weight(row));
            }
        }
    }
}

/// Keras' bucketed form: thresholds evenly spaced, -epsilon first and 1 + epsilon last.
fn update_auc(
    matrix: &mut [[f64; 4]],
    thresholds: usize,
    t: &ndarray::Array2<f32>,
    p: &ndarray::Array2<f32>,
    weight: impl Fn(usize) -> f64,
) {
    for (row, (t, p)) in t.rows().into_iter().zip(p.rows()).enumerate() {
        for (&t, &p) in t.iter().zip(p) {
            let bucket = (p.clamp(0.0, 1.0) * (thresholds - 1) as f32).ceil() - 1.0;
            let bucket = bucket.max(0.0) as usize;
            let label = if t != 0.0 { 1.0 } else { 0.0 };
            for (i, cell) in matrix.iter_mut().enumerate() {
                decide(cell, label, i <= bucket, weight(row));
            }
        }
    }
}

fn area(m: &[[f64; 4]], curve: Curve, summation: Summation) -> f64 {
    let pairs = m.windows(2);
    match curve {
        Curve::Roc => {
            let x = |c: &[f64; 4]| ratio(c[1], c[1] + c[2]);
            let y = |c: &[f64; 4]| ratio(c[0], c[0] + c[3]);
            pairs
                .map(|w| {
                    let (a, b) = (y(&w[0]), y(&w[1]));
                    let height = match summation {
                        Summation::Interpolation => (a + b) / 2.0,
                        Summation::Majoring => a.max(b),
                        Summation::Minoring => a.min(b),
                    };
                    (x(&w[0]) - x(&w[1])) * height
                })
                .sum()
        }
        // Interpolated as in Davis & Goadrich (2006), which Keras follows.
        Curve::Pr if summation == Summation::Interpolation => pairs
            .map(|w| {
                let (a, b) = (&w[0], &w[1]);
                let (pa, pb) = (a[0] + a[1], b[0] + b[1]);
                let slope = ratio(a[0] - b[0], (pa - pb).max(0.0));
                let intercept = b[0] - slope * pb;
                let log = if pa > 0.0 && pb > 0.0 { (pa / pb).ln() } else { 0.0 };
                ratio(slope * (a[0] - b[0] + intercept * log), (b[0] + b[3]).max(0.0))
            })
            .sum(),
        Curve::Pr => {
            let x = |c: &[f64; 4]| ratio(c[0], c[0] + c[3]);
            let y = |c: &[f64; 4]| ratio(c[0], c[0] + c[1]);
            pairs
                .map(|w| {
                    let (a, b) = (y(&w[0]), y(&w[1]));
                    let height = if summation == Summation::Majoring { a.max(b) } else { a.min(b) };
                    (x(&w[0]) - x(&w[1])) * height
                })
                .sum()
        }
    }
}

fn update_f1(
    matrix: &mut Vec<[f64; 4]>,
    threshold: Option<f32>,
    t: &ndarray::Array2<f32>,
    p: &ndarray::Array2<f32>,
    weight: impl Fn(usize) -> f64,
) {
    matrix.resize(p.ncols(), [0.0; 4]);
    for (row, (t, p)) in t.rows().into_iter().zip(p.rows()).enumerate() {
        let largest = p.fold(f32::NEG_INFINITY, |a, &b| a.max(b));
        for (column, cell) in matrix.iter_mut().enumerate() {
            // Without a threshold every class that reaches the row's maximum counts, ties too.
            let positive = match threshold {
                Some(threshold) => p[column] > threshold,
                None => p[column] >= largest && p[column].abs() > 1e-9,
            };
            decide(cell, f64::from(t[column]), positive, weight(row));
        }
    }
}

fn f1(m: &[[f64; 4]], average: Average) -> Vec<f64> {
    let epsilon = f64::from(EPSILON);
    let score = |tp: f64, fp: f64, fne: f64| {
        let precision = tp / (tp + fp + epsilon);
        let recall = tp / (tp + fne + epsilon);
        precision * recall / (precision + recall + epsilon) * 2.0
    };
    let each: Vec<f64> = m.iter().map(|c| score(c[0], c[1], c[3])).collect();
    match average {
        Average::None => each,
        Average::Macro => vec![each.iter().sum::<f64>() / each.len().max(1) as f64],
        Average::Micro => {
            let sum = |i: usize| m.iter().map(|c| c[i]).sum::<f64>();
            vec![score(sum(0), sum(1), sum(3))]
        }
        Average::Weighted => {
            let support: f64 = m.iter().map(|c| c[0] + c[3]).sum();
            vec![m.iter().zip(&each).map(|(c, s)| s * ratio(c[0] + c[3], support)).sum()]
        }
    }
}

/// Arguments of a metric, `name=value` separated by commas.
struct Arguments<'a> {
    metric: &'a str,
    pairs: Vec<(&'a str, &'a str)>,
}

impl<'a> Arguments<'a> {
    fn new(metric: &'a str, text: &'a str) -> Arguments<'a> {
        let pairs = text
            .split(',')
            .filter(|p| !p.trim().is_empty())
            .map(|p| p.split_once('=').map_or((p.trim(), ""), |(k, v)| (k.trim(), v.trim())))
            .collect();
        Arguments { metric, pairs }
    }

    fn take(&mut self, name: &str) -> Option<&'a str> {
        let position = self.pairs.iter().position(|(k, _)| *k == name)?;
        Some(self.pairs.swap_remove(position).1)
    }

    fn bad(&self, argument: String, problem: String) -> MetricError {
        MetricError::Argument { metric: self.metric.into(), argument, problem }
    }

    fn number<T: std::str::FromStr>(&mut self, name: &str) -> Result<Option<T>, MetricError> {
        let Some(value) = self.take(name) else { return Ok(None) };
        value.parse().map(Some).map_err(|_| self.bad(format!("{name}={value}"), "it takes a number there".into()))
    }

    /// Several numbers are separated by `;`.
    fn floats(&mut self, name: &str) -> Result<Option<Vec<f32>>, MetricError> {
        let Some(value) = self.take(name) else { return Ok(None) };
        let numbers: Result<Vec<f32>, _> = value.split(';').map(|v| v.trim().parse()).collect();
        numbers
            .map(Some)
            .map_err(|_| self.bad(format!("{name}={value}"), "it takes numbers there, separated by `;`".into()))
    }

    fn choice<T: Copy>(&mut self, name: &str, choices: &[(&str, T)]) -> Result<Option<T>, MetricError> {
        let Some(value) = self.take(name) else { return Ok(None) };
        let found = choices.iter().find(|(n, _)| n.eq_ignore_ascii_case(value)).map(|(_, v)| *v);
        let names: Vec<&str> = choices.iter().map(|(n, _)| *n).collect();
        found.map(Some).ok_or_else(|| self.bad(format!("{name}={value}"), format!("choose from {}", names.join(", "))))
    }

    fn finish(self) -> Result<(), MetricError> {
        match self.pairs.first() {
            None => Ok(()),
            Some((key, _)) => Err(self.bad((*key).into(), "it has no such argument".into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;
    use std::path::PathBuf;

    fn metric(class: &str, config: &Value) -> Metric {
        let number = |key: &str| config[key].as_f64().map(|v| v as f32);
        let whole = |key: &str| config[key].as_u64().map(|v| v as usize);
        let text = |key: &str, default: &str| config[key].as_str().unwrap_or(default).to_ascii_lowercase();
        let confusion = |what| {
            let thresholds = match &config["thresholds"] {
                Value::Array(list) => Some(list.iter().filter_map(Value::as_f64).map(|v| v as f32).collect()),
                other => other.as_f64().map(|v| vec![v as f32]),
            };
            Some(MetricKind::confusion(what, thresholds, whole("top_k"), whole("class_id")))
        };
        let kind = match class {
            "BinaryAccuracy" => Some(MetricKind::BinaryAccuracy { threshold: number("threshold").unwrap_or(0.5) }),
            "TopKCategoricalAccuracy" => whole("k").map(|k| MetricKind::TopKCategoricalAccuracy { k }),
            "SparseTopKCategoricalAccuracy" => whole("k").map(|k| MetricKind::SparseTopKCategoricalAccuracy { k }),
            "AUC" => Some(MetricKind::Auc {
                curve: if text("curve", "roc") == "pr" { Curve::Pr } else { Curve::Roc },
                num_thresholds: whole("num_thresholds").unwrap_or(200),
                summation: if text("summation_method", "") == "majoring" {
                    Summation::Majoring
                } else {
                    Summation::Interpolation
                },
            }),
            "Precision" => confusion(Confusion::Precision),
            "Recall" => confusion(Confusion::Recall),
            "TruePositives" => confusion(Confusion::TruePositives),
            "TrueNegatives" => confusion(Confusion::TrueNegatives),
            "FalsePositives" => confusion(Confusion::FalsePositives),
            "FalseNegatives" => confusion(Confusion::FalseNegatives),
            "F1Score" => Some(MetricKind::F1Score {
                average: if text("average", "") == "macro" { Average::Macro } else { Average::None },
                threshold: number("threshold"),
            }),
            _ => None,
        };
        match kind {
            Some(kind) => Metric::new(class, kind),
            None => {
                let name = crate::text::snake_case(class).replace("kldivergence", "kl_divergence");
                Metric::parse(&name).unwrap_or_else(|e| panic!("{class}: {e}"))
            }
        }
    }

    #[test]
    fn all_values_of_keras_are_met() {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/keras/table_metrics");
        let arrays = spidnn_import::npz::read(folder.join("metrics.npz")).unwrap();
        let table: Value = serde_json::from_slice(&std::fs::read(folder.join("metrics.json")).unwrap()).unwrap();
        let weight_key = arrays.keys().find(|k| k.contains("weight")).unwrap();
        let weights: Vec<f32> = arrays[weight_key].to_f32().iter().copied().collect();
        let mut checked = 0;
        for row in table["metrics"].as_array().unwrap() {
            let class = row["class"].as_str().unwrap();
            let target = arrays[row["y_true"].as_str().unwrap()].to_f32();
            let prediction = arrays[row["y_pred"].as_str().unwrap()].to_f32();
            let part = |from: usize, to: usize| {
                let cut = |t: &Tensor| t.slice_axis(ndarray::Axis(0), (from..to).into()).to_owned();
                (cut(&target), cut(&prediction))
            };
            let n = target.shape()[0];
            let mut check = |what: &str, parts: &[(usize, usize)], weighted: bool| {
                let expected: Vec<f64> = match &row[what] {
                    Value::Null => return,
                    Value::Array(list) => list.iter().filter_map(Value::as_f64).collect(),
                    other => vec![other.as_f64().unwrap()],
                };
                let mut metric = metric(class, &row["config"]);
                for &(from, to) in parts {
                    let (t, p) = part(from, to);
                    metric.update(&t, &p, weighted.then(|| &weights[from..to])).unwrap();
                }
                let found = metric.results();
                assert_eq!(found.len(), expected.len(), "{class} {what}");
                for (f, e) in found.iter().zip(&expected) {
                    assert!((f - e).abs() <= 2e-6 * e.abs().max(1e-3), "{class} {} {what}: {f} for {e}", row["config"]);
                }
                checked += 1;
            };
            check("all", &[(0, n)], false);
            check("two_updates_25_15", &[(0, 25), (25, n)], false);
            check("first_25", &[(0, 25)], false);
            check("weighted", &[(0, n)], true);
        }
        assert_eq!(checked, 34 * 4 - 1);
    }

    #[test]
    fn accuracy_goes_by_the_shapes() {
        let resolved = |target: &[usize], prediction: &[usize]| {
            let mut metric = Metric::parse("accuracy").unwrap();
            let t = |shape: &[usize]| Tensor::zeros(ndarray::IxDyn(shape));
            metric.update(&t(target), &t(prediction), None).unwrap();
            metric.kind().clone()
        };
        assert_eq!(resolved(&[4], &[4, 10]), MetricKind::SparseCategoricalAccuracy);
        assert_eq!(resolved(&[4, 1], &[4, 10]), MetricKind::SparseCategoricalAccuracy);
        assert_eq!(resolved(&[4, 10], &[4, 10]), MetricKind::CategoricalAccuracy);
        assert_eq!(resolved(&[4, 1], &[4, 1]), MetricKind::BinaryAccuracy { threshold: 0.5 });
        assert_eq!(resolved(&[4], &[4, 1]), MetricKind::BinaryAccuracy { threshold: 0.5 });
    }

    #[test]
    fn names_and_arguments() {
        assert_eq!(
            Metric::parse("top_k_categorical_accuracy:k=3").unwrap().kind(),
            &MetricKind::TopKCategoricalAccuracy { k: 3 }
        );
        assert_eq!(Metric::parse("mse").unwrap().name(), "mse");
        assert!(Metric::parse("acuracy").unwrap_err().to_string().contains("did you mean `accuracy`"));
        assert!(Metric::parse("auc:curve=XY").unwrap_err().to_string().contains("roc, pr"));
        assert!(Metric::parse("mse:k=3").unwrap_err().to_string().contains("no such argument"));
        assert!(
            name_is_higher_better("val_accuracy") && name_is_higher_better("auc") && !name_is_higher_better("val_loss")
        );
        let wrong = Metric::parse("mse").unwrap().update(
            &Tensor::zeros(ndarray::IxDyn(&[2, 3])),
            &Tensor::zeros(ndarray::IxDyn(&[2, 4])),
            None,
        );
        assert!(wrong.is_err());
    }
}
