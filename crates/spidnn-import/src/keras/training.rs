//! What a compiled model says about its training: loss, optimizer, metrics, and the optimizer's variables.

use serde_json::{Map, Value, json};
use spidnn_graph::training::{Clip, LearningRate, Loss, Optimizer, Rule};
use spidnn_graph::{Graph, ParamId, Tensor};

use super::args::{Args, show};
use super::naming::snake_case;
use crate::Problem;

/// How a model was (or is to be) trained.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TrainingConfig {
    /// The loss, where SpiDNN has it.
    pub loss: Option<Loss>,
    /// The optimizer, where SpiDNN has it.
    pub optimizer: Option<Optimizer>,
    /// Keras names of the metrics.
    pub metrics: Vec<String>,
    /// The optimizer's variables, where the file has them and they fit.
    pub state: Option<OptimizerState>,
    /// What of the file's training configuration is not taken. It does not stand in the way of predictions, so it is not
    /// an error of loading; a training that would rely on it has to be refused or compiled anew.
    pub problems: Vec<Problem>,
}

/// The variables of an optimizer between two steps.
#[derive(Debug, Clone, PartialEq)]
pub struct OptimizerState {
    /// Steps done.
    pub iterations: u64,
    /// The learning rate now, where it is a number and not a schedule.
    pub learning_rate: Option<f32>,
    /// The variables of each trained parameter, in Keras' order.
    pub slots: Vec<Slot>,
}

/// One variable of an optimizer.
#[derive(Debug, Clone, PartialEq)]
pub struct Slot {
    /// The parameter that it belongs to.
    pub param: ParamId,
    /// What it is.
    pub role: SlotRole,
    /// Its value, of the parameter's shape.
    pub value: Tensor,
}

/// What a variable of an optimizer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SlotRole {
    /// SGD's and RMSprop's momentum; Adam's first moment.
    Momentum,
    /// RMSprop's mean square; Adam's second moment.
    Velocity,
    /// Centered RMSprop's mean gradient.
    AverageGradient,
}

impl OptimizerState {
    /// The tensors of each parameter of the graph, in the order of [`Rule::slot_names`]; none for those that are not trained.
    /// A variable that is missing is zero, as in a new optimizer.
    pub fn by_parameter(&self, graph: &Graph, rule: &Rule) -> Vec<Vec<Tensor>> {
        let mut tensors = vec![Vec::new(); graph.params.len()];
        for (index, tensors) in tensors.iter_mut().enumerate().filter(|(index, _)| is_trained(graph, ParamId(*index))) {
            *tensors = rule
                .slot_names()
                .iter()
                .map(|name| {
                    let found = self.slots.iter().find(|slot| slot.param.0 == index && slot.role.name() == *name);
                    found.map_or_else(|| Tensor::zeros(graph.params[index].shape.as_slice()), |slot| slot.value.clone())
                })
                .collect();
        }
        tensors
    }

    /// The inverse of [`by_parameter`](Self::by_parameter). Tensors that the rule does not have are left out.
    pub fn from_parameters(
        graph: &Graph,
        rule: &Rule,
        iterations: u64,
        learning_rate: Option<f32>,
        tensors: &[Vec<Tensor>],
    ) -> Self {
        let names = rule.slot_names();
        let slots = slots(graph, rule)
            .into_iter()
            .filter_map(|(param, role)| {
                let place = names.iter().position(|name| *name == role.name())?;
                let value = tensors.get(param.0)?.get(place)?.clone();
                Some(Slot { param, role, value })
            })
            .collect();
        Self { iterations, learning_rate, slots }
    }
}

impl SlotRole {
    /// Keras' name of it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Momentum => "momentum",
            Self::Velocity => "velocity",
            Self::AverageGradient => "average_gradient",
        }
    }
}

/// The variables that an optimizer keeps for a graph, in Keras' order.
pub fn slots(graph: &Graph, rule: &Rule) -> Vec<(ParamId, SlotRole)> {
    let trained = || (0..graph.params.len()).map(ParamId).filter(|id| is_trained(graph, *id));
    let all = |role| trained().map(move |id| (id, role));
    match *rule {
        Rule::Sgd { momentum: 0.0, .. } => Vec::new(),
        Rule::Sgd { .. } => all(SlotRole::Momentum).collect(),
        Rule::RmsProp { momentum, centered, .. } => {
            let mut slots: Vec<_> = all(SlotRole::Velocity).collect();
            if momentum > 0.0 {
                slots.extend(all(SlotRole::Momentum));
            }
            if centered {
                slots.extend(all(SlotRole::AverageGradient));
            }
            slots
        }
        Rule::Adam { .. } => trained().flat_map(|id| [(id, SlotRole::Momentum), (id, SlotRole::Velocity)]).collect(),
    }
}

/// Whether training changes a parameter.
pub(crate) fn is_trained(graph: &Graph, id: ParamId) -> bool {
    let param = &graph.params[id.0];
    param.trainable && graph.layers[param.layer.0].trainable
}

/// The name of a slot's variable in a legacy file: `adam/dense_kernel_momentum`.
pub(crate) fn slot_name(graph: &Graph, optimizer: &str, param: ParamId, role: SlotRole) -> String {
    let param = &graph.params[param.0];
    format!("{optimizer}/{}_{}_{}", graph.layers[param.layer.0].name, param.name, role.name())
}

/// `{class_name, config}`, or a bare name.
fn class_and_config(value: &Value) -> Option<(&str, Option<&Map<String, Value>>)> {
    match value {
        Value::String(name) => Some((name, None)),
        Value::Object(object) => Some((
            object.get("class_name")?.as_str()?,
            match object.get("config") {
                Some(Value::Object(config)) => Some(config),
                // A function: {"class_name": "function", "config": "mse"}.
                Some(Value::String(name)) => return Some((name, None)),
                _ => None,
            },
        )),
        _ => None,
    }
}

const LOSSES: &str = "mean_squared_error, mean_absolute_error, binary_crossentropy, categorical_crossentropy or \
                      sparse_categorical_crossentropy";

fn loss(value: &Value, problems: &mut Vec<Problem>) -> Option<Loss> {
    // A list or an object with one entry is what Keras writes for a model with one output.
    let value = match value {
        Value::Array(values) if values.len() == 1 => &values[0],
        Value::Object(object) if object.len() == 1 && !object.contains_key("class_name") => {
            object.values().next().unwrap_or(value)
        }
        other => other,
    };
    if value.is_null() {
        return None;
    }
    let unknown = |problems: &mut Vec<Problem>| {
        problems.push(Problem::new("", format!("loss {} is not known", show(value))).nearest(LOSSES));
    };
    let Some((class, config)) = class_and_config(value) else {
        unknown(problems);
        return None;
    };
    let empty = Map::new();
    let before = problems.len();
    let mut args = Args::new("", config.unwrap_or(&empty), problems);
    args.ignore(&["name", "fn"]);
    args.must_be_neutral(
        "reduction",
        &[json!("sum_over_batch_size"), json!("auto")],
        "reduction=\"sum_over_batch_size\"",
    );
    args.must_be_neutral("dtype", &[json!("float32")], "float32");
    let loss = match snake_case(class).as_str() {
        "mse" | "mean_squared_error" => Some(Loss::MeanSquaredError),
        "mae" | "mean_absolute_error" => Some(Loss::MeanAbsoluteError),
        name @ ("binary_crossentropy" | "bce" | "categorical_crossentropy") => {
            args.must_be_neutral("axis", &[json!(-1)], "axis=-1");
            let from_logits = args.flag("from_logits", false)?;
            let label_smoothing = args.float("label_smoothing", 0.0)?;
            Some(if name == "categorical_crossentropy" {
                Loss::CategoricalCrossentropy { from_logits, label_smoothing }
            } else {
                Loss::BinaryCrossentropy { from_logits, label_smoothing }
            })
        }
        "sparse_categorical_crossentropy" => {
            args.must_be_neutral("axis", &[json!(-1)], "axis=-1");
            args.must_be_neutral("ignore_class", &[], "ignore_class=None");
            Some(Loss::SparseCategoricalCrossentropy { from_logits: args.flag("from_logits", false)? })
        }
        _ => {
            unknown(problems);
            return None;
        }
    };
    args.finish();
    loss.filter(|_| problems.len() == before)
}

fn learning_rate(value: Option<&Value>, default: f32, problems: &mut Vec<Problem>) -> Option<LearningRate> {
    let Some(value) = value else { return Some(LearningRate::Constant(default)) };
    if let Some(rate) = super::args::number(value) {
        return Some(LearningRate::Constant(rate as f32));
    }
    let Some((class, Some(config))) = class_and_config(value) else {
        problems.push(
            Problem::new("", format!("learning_rate {} is not known", show(value))).nearest("a number or a schedule"),
        );
        return None;
    };
    let before = problems.len();
    let mut args = Args::new("", config, problems);
    args.ignore(&["name"]);
    let initial = match class {
        "PiecewiseConstantDecay" => 0.0,
        _ => args.float("initial_learning_rate", 0.001)?,
    };
    let schedule = match class {
        "ExponentialDecay" => LearningRate::ExponentialDecay {
            initial,
            decay_steps: args.float("decay_steps", 1.0)?,
            decay_rate: args.float("decay_rate", 1.0)?,
            staircase: args.flag("staircase", false)?,
        },
        "InverseTimeDecay" => LearningRate::InverseTimeDecay {
            initial,
            decay_steps: args.float("decay_steps", 1.0)?,
            decay_rate: args.float("decay_rate", 1.0)?,
            staircase: args.flag("staircase", false)?,
        },
        "PolynomialDecay" => LearningRate::PolynomialDecay {
            initial,
            decay_steps: args.float("decay_steps", 1.0)?,
            end: args.float("end_learning_rate", 0.0001)?,
            power: args.float("power", 1.0)?,
            cycle: args.flag("cycle", false)?,
        },
        "CosineDecay" => LearningRate::CosineDecay {
            initial,
            decay_steps: args.float("decay_steps", 1.0)?,
            alpha: args.float("alpha", 0.0)?,
            warmup_target: match args.take("warmup_target") {
                Some(_) => Some(args.float("warmup_target", 0.0)?),
                None => None,
            },
            warmup_steps: args.float("warmup_steps", 0.0)?,
        },
        "PiecewiseConstantDecay" => {
            let mut list = |key| {
                args.take(key)
                    .and_then(Value::as_array)
                    .and_then(|values| {
                        values.iter().map(|value| Some(super::args::number(value)? as f32)).collect::<Option<Vec<_>>>()
                    })
                    .unwrap_or_default()
            };
            let (boundaries, values) = (list("boundaries"), list("values"));
            if values.len() != boundaries.len() + 1 {
                args.problem("PiecewiseConstantDecay needs one value more than boundaries");
                return None;
            }
            LearningRate::PiecewiseConstant { boundaries, values }
        }
        _ => {
            problems.push(
                Problem::new("", format!("learning-rate schedule {class} is not known")).nearest(
                    "ExponentialDecay, PiecewiseConstantDecay, PolynomialDecay, InverseTimeDecay or CosineDecay",
                ),
            );
            return None;
        }
    };
    args.finish();
    (problems.len() == before).then_some(schedule)
}

fn optimizer(value: &Value, problems: &mut Vec<Problem>) -> Option<Optimizer> {
    if value.is_null() {
        return None;
    }
    let nearest = "SGD, RMSprop, Adam or AdamW";
    let Some((class, config)) = class_and_config(value) else {
        problems.push(Problem::new("", format!("optimizer {} is not known", show(value))).nearest(nearest));
        return None;
    };
    let empty = Map::new();
    let config = config.unwrap_or(&empty);
    let class = class.strip_prefix("Custom>").unwrap_or(class);
    let (name, default_rate) = match class.to_ascii_lowercase().as_str() {
        "sgd" => ("sgd", 0.01),
        "rmsprop" => ("rmsprop", 0.001),
        "adam" => ("adam", 0.001),
        "adamw" => ("adamw", 0.001),
        _ => {
            problems.push(Problem::new("", format!("optimizer {class} is not known")).nearest(nearest));
            return None;
        }
    };
    let before = problems.len();
    let rate = learning_rate(config.get("learning_rate").filter(|value| !value.is_null()), default_rate, problems);
    let mut args = Args::new("", config, problems);
    args.ignore(&[
        "name",
        "learning_rate",
        "jit_compile",
        "is_legacy_optimizer",
        "ema_momentum",
        "ema_overwrite_frequency",
    ]);
    args.must_be_neutral("use_ema", &[], "use_ema=False");
    args.must_be_neutral("loss_scale_factor", &[json!(1.0)], "no loss scaling: everything is float32");
    args.must_be_neutral("gradient_accumulation_steps", &[json!(1)], "a larger batch");
    args.must_be_neutral("decay", &[json!(0), json!(0.0)], "a learning-rate schedule");
    args.must_be_neutral("amsgrad", &[], "amsgrad=False");
    let rule = match name {
        "sgd" => Rule::Sgd { momentum: args.float("momentum", 0.0)?, nesterov: args.flag("nesterov", false)? },
        "rmsprop" => Rule::RmsProp {
            rho: args.float("rho", 0.9)?,
            momentum: args.float("momentum", 0.0)?,
            epsilon: args.float("epsilon", 1e-7)?,
            centered: args.flag("centered", false)?,
        },
        _ => Rule::Adam {
            beta_1: args.float("beta_1", 0.9)?,
            beta_2: args.float("beta_2", 0.999)?,
            epsilon: args.float("epsilon", 1e-7)?,
        },
    };
    let mut maybe = |key| match args.take(key) {
        Some(Value::Bool(false)) | None => Some(None),
        Some(_) => args.float(key, 0.0).map(Some),
    };
    let (decay, value, norm, global) =
        (maybe("weight_decay")?, maybe("clipvalue")?, maybe("clipnorm")?, maybe("global_clipnorm")?);
    let weight_decay = if name == "adamw" { Some(decay.unwrap_or(0.004)) } else { decay }.filter(|decay| *decay != 0.0);
    let clip = match (value, norm, global) {
        (None, None, None) => Clip::None,
        (Some(value), None, None) => Clip::Value(value),
        (None, Some(norm), None) => Clip::Norm(norm),
        (None, None, Some(norm)) => Clip::GlobalNorm(norm),
        _ => {
            args.problem_near("several kinds of gradient clipping at once", "one of them");
            Clip::None
        }
    };
    args.finish();
    let learning_rate = rate?;
    (problems.len() == before).then_some(Optimizer { rule, learning_rate, clip, weight_decay })
}

fn metrics(value: &Value, found: &mut Vec<String>, depth: usize) {
    match value {
        Value::String(name) => found.push(name.clone()),
        Value::Array(values) if depth < 4 => values.iter().for_each(|value| metrics(value, found, depth + 1)),
        Value::Object(object) => match class_and_config(value) {
            // A metric made from a function has that function's name; the others go by their class.
            Some(("MeanMetricWrapper", config)) => {
                found.extend(config.and_then(|config| config.get("name")).and_then(Value::as_str).map(str::to_owned));
            }
            Some((class, _)) => found.push(snake_case(class)),
            None if depth < 4 => object.values().for_each(|value| metrics(value, found, depth + 1)),
            None => {}
        },
        _ => {}
    }
}

/// Reads a `compile_config` (Keras 3) or `training_config` (legacy files); `None` where the model was never compiled.
pub(crate) fn read(value: &Value) -> Option<TrainingConfig> {
    let object = value.as_object().filter(|object| !object.is_empty())?;
    let mut config = TrainingConfig::default();
    config.loss = object.get("loss").and_then(|value| loss(value, &mut config.problems));
    config.optimizer = object
        .get("optimizer")
        .or_else(|| object.get("optimizer_config"))
        .and_then(|value| optimizer(value, &mut config.problems));
    for key in ["metrics", "weighted_metrics"] {
        if let Some(value) = object.get(key) {
            metrics(value, &mut config.metrics, 0);
        }
    }
    if let Some(weights) = object.get("loss_weights").filter(|value| !value.is_null())
        && !weights.as_array().is_some_and(Vec::is_empty)
    {
        config.problems.push(Problem::new("", format!("loss_weights={}", show(weights))).nearest("loss_weights=None"));
    }
    Some(config)
}

/// A float32 as the shortest decimal that reads back to it, so that 0.9 stays 0.9.
pub(crate) fn float(value: f32) -> Value {
    value.to_string().parse::<f64>().ok().filter(|value| value.is_finite()).map_or(Value::Null, |value| json!(value))
}

fn object(module: &str, class: &str, config: Value) -> Value {
    json!({"module": module, "class_name": class, "config": config, "registered_name": null})
}

fn loss_json(loss: &Loss) -> Value {
    let with = |class: &str, name: &str, from_logits: bool, smoothing: Option<f32>| {
        if !from_logits && smoothing.is_none_or(|smoothing| smoothing == 0.0) {
            return json!(name);
        }
        let mut config = json!({"name": name, "reduction": "sum_over_batch_size", "from_logits": from_logits});
        if let Some(smoothing) = smoothing {
            config["label_smoothing"] = float(smoothing);
            config["axis"] = json!(-1);
        }
        object("keras.losses", class, config)
    };
    match *loss {
        Loss::MeanSquaredError => json!("mean_squared_error"),
        Loss::MeanAbsoluteError => json!("mean_absolute_error"),
        Loss::BinaryCrossentropy { from_logits, label_smoothing } => {
            with("BinaryCrossentropy", "binary_crossentropy", from_logits, Some(label_smoothing))
        }
        Loss::CategoricalCrossentropy { from_logits, label_smoothing } => {
            with("CategoricalCrossentropy", "categorical_crossentropy", from_logits, Some(label_smoothing))
        }
        Loss::SparseCategoricalCrossentropy { from_logits } => {
            with("SparseCategoricalCrossentropy", "sparse_categorical_crossentropy", from_logits, None)
        }
    }
}

fn learning_rate_json(rate: &LearningRate) -> Value {
    let schedule = |class: &str, config: Value| object("keras.optimizers.schedules", class, config);
    match rate {
        LearningRate::Constant(rate) => float(*rate),
        LearningRate::ExponentialDecay { initial, decay_steps, decay_rate, staircase } => schedule(
            "ExponentialDecay",
            json!({"initial_learning_rate": float(*initial), "decay_steps": float(*decay_steps),
                   "decay_rate": float(*decay_rate), "staircase": staircase, "name": "ExponentialDecay"}),
        ),
        LearningRate::InverseTimeDecay { initial, decay_steps, decay_rate, staircase } => schedule(
            "InverseTimeDecay",
            json!({"initial_learning_rate": float(*initial), "decay_steps": float(*decay_steps),
                   "decay_rate": float(*decay_rate), "staircase": staircase, "name": "InverseTimeDecay"}),
        ),
        LearningRate::PiecewiseConstant { boundaries, values } => schedule(
            "PiecewiseConstantDecay",
            json!({"boundaries": boundaries.iter().map(|value| float(*value)).collect::<Vec<_>>(),
                   "values": values.iter().map(|value| float(*value)).collect::<Vec<_>>(), "name": "PiecewiseConstant"}),
        ),
        LearningRate::PolynomialDecay { initial, decay_steps, end, power, cycle } => schedule(
            "PolynomialDecay",
            json!({"initial_learning_rate": float(*initial), "decay_steps": float(*decay_steps),
                   "end_learning_rate": float(*end), "power": float(*power), "cycle": cycle, "name": "PolynomialDecay"}),
        ),
        LearningRate::CosineDecay { initial, decay_steps, alpha, warmup_target, warmup_steps } => schedule(
            "CosineDecay",
            json!({"initial_learning_rate": float(*initial), "decay_steps": float(*decay_steps), "alpha": float(*alpha),
                   "name": "CosineDecay", "warmup_target": warmup_target.map(float), "warmup_steps": float(*warmup_steps)}),
        ),
    }
}

/// Keras' class, module-free name (as in variables' paths) and configuration of an optimizer.
pub(crate) fn optimizer_json(optimizer: &Optimizer) -> (&'static str, &'static str, Value) {
    let (clip_norm, clip_value, clip_global) = match optimizer.clip {
        Clip::None => (None, None, None),
        Clip::Norm(norm) => (Some(norm), None, None),
        Clip::Value(value) => (None, Some(value), None),
        Clip::GlobalNorm(norm) => (None, None, Some(norm)),
    };
    let (class, name) = match optimizer.rule {
        Rule::Sgd { .. } => ("SGD", "sgd"),
        Rule::RmsProp { .. } => ("RMSprop", "rmsprop"),
        Rule::Adam { .. } if optimizer.weight_decay.is_some() => ("AdamW", "adamw"),
        Rule::Adam { .. } => ("Adam", "adam"),
    };
    let mut config = json!({
        "name": name,
        "learning_rate": learning_rate_json(&optimizer.learning_rate),
        "weight_decay": optimizer.weight_decay.map(float),
        "clipnorm": clip_norm.map(float),
        "global_clipnorm": clip_global.map(float),
        "clipvalue": clip_value.map(float),
        "use_ema": false,
        "ema_momentum": 0.99,
        "ema_overwrite_frequency": null,
        "loss_scale_factor": null,
        "gradient_accumulation_steps": null,
    });
    match optimizer.rule {
        Rule::Sgd { momentum, nesterov } => {
            config["momentum"] = float(momentum);
            config["nesterov"] = json!(nesterov);
        }
        Rule::RmsProp { rho, momentum, epsilon, centered } => {
            config["rho"] = float(rho);
            config["momentum"] = float(momentum);
            config["epsilon"] = float(epsilon);
            config["centered"] = json!(centered);
        }
        Rule::Adam { beta_1, beta_2, epsilon } => {
            config["beta_1"] = float(beta_1);
            config["beta_2"] = float(beta_2);
            config["epsilon"] = float(epsilon);
            config["amsgrad"] = json!(false);
        }
    }
    (class, name, config)
}

/// The `compile_config` of a `.keras` file; an empty object where there is no loss or no optimizer (Keras needs both).
pub(crate) fn compile_config(config: Option<&TrainingConfig>) -> Value {
    let Some((loss, optimizer)) = config.and_then(|config| config.loss.as_ref().zip(config.optimizer.as_ref())) else {
        return json!({});
    };
    let (class, _, optimizer) = optimizer_json(optimizer);
    json!({
        "optimizer": object("keras.optimizers", class, optimizer),
        "loss": loss_json(loss),
        "loss_weights": null,
        "metrics": metrics_json(config),
        "weighted_metrics": null,
        "run_eagerly": false,
        "steps_per_execution": 1,
        "jit_compile": false,
    })
}

/// Metrics that Keras makes from a name alone; loading would fail on any other.
const METRICS: &[&str] = &[
    "accuracy",
    "acc",
    "binary_accuracy",
    "categorical_accuracy",
    "sparse_categorical_accuracy",
    "top_k_categorical_accuracy",
    "sparse_top_k_categorical_accuracy",
    "mean_squared_error",
    "mse",
    "root_mean_squared_error",
    "mean_absolute_error",
    "mae",
    "mean_absolute_percentage_error",
    "mean_squared_logarithmic_error",
    "binary_crossentropy",
    "categorical_crossentropy",
    "sparse_categorical_crossentropy",
];

/// Metrics that Keras knows as classes, with the module-free class name.
const METRIC_CLASSES: &[(&str, &str)] = &[("auc", "AUC"), ("precision", "Precision"), ("recall", "Recall")];

fn metrics_json(config: Option<&TrainingConfig>) -> Value {
    let metrics: Vec<Value> = config
        .into_iter()
        .flat_map(|config| &config.metrics)
        .filter_map(|name| {
            if METRICS.contains(&name.as_str()) {
                return Some(json!(name));
            }
            let (name, class) = METRIC_CLASSES.iter().find(|(known, _)| known == name)?;
            Some(object("keras.metrics", class, json!({"name": name, "dtype": "float32"})))
        })
        .collect();
    if metrics.is_empty() { Value::Null } else { Value::Array(metrics) }
}

/// The `training_config` of a legacy file, where there is a loss and an optimizer.
pub(crate) fn training_config(config: Option<&TrainingConfig>) -> Option<Value> {
    let (loss, optimizer) = config.and_then(|config| config.loss.as_ref().zip(config.optimizer.as_ref()))?;
    let (class, _, optimizer) = optimizer_json(optimizer);
    Some(json!({
        "loss": loss_json(loss),
        "loss_weights": null,
        "metrics": metrics_json(config),
        "weighted_metrics": null,
        "run_eagerly": false,
        "steps_per_execution": 1,
        "jit_compile": false,
        "optimizer_config": {"class_name": class, "config": optimizer},
    }))
}

/// Takes the variables of an optimizer (all after the counter and the learning rate) apart.
///
/// # Errors
///
/// A problem where their number or shapes are not those of the optimizer.
pub(crate) fn state(
    graph: &Graph,
    optimizer: &Optimizer,
    iterations: i64,
    variables: Vec<Tensor>,
) -> Result<OptimizerState, Problem> {
    let bad = |what: String| Problem::new("", format!("the optimizer's variables are left out: {what}"));
    let mut variables = variables.into_iter();
    let learning_rate = match optimizer.learning_rate {
        LearningRate::Constant(_) => {
            let rate = variables.next().filter(|rate| rate.len() == 1).ok_or_else(|| bad("no learning rate".into()))?;
            rate.iter().next().copied()
        }
        _ => None,
    };
    let wanted = slots(graph, &optimizer.rule);
    if variables.len() != wanted.len() {
        return Err(bad(format!("{} in the file, {} needed", variables.len(), wanted.len())));
    }
    let mut found = Vec::with_capacity(wanted.len());
    for ((param, role), value) in wanted.into_iter().zip(variables) {
        if value.shape() != graph.params[param.0].shape {
            return Err(bad(format!(
                "one has shape {:?}, its parameter {:?}",
                value.shape(),
                graph.params[param.0].shape
            )));
        }
        if value.iter().any(|value| !value.is_finite()) {
            return Err(bad("NaN or infinity among them".into()));
        }
        found.push(Slot { param, role, value });
    }
    let iterations = u64::try_from(iterations).map_err(|_| bad(format!("{iterations} steps")))?;
    Ok(OptimizerState { iterations, learning_rate, slots: found })
}
