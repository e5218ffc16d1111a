//! Losses and optimizers by their Keras names: `mse`, `binary_crossentropy:from_logits=true`,
//! `adam:learning_rate=0.003,beta_1=0.8`, `sgd:lr=ExponentialDecay(initial_learning_rate=0.1,decay_steps=100,decay_rate=0.9)`.

use std::collections::BTreeMap;
use std::str::FromStr;

use spidnn_graph::training::{Clip, LearningRate, Loss, Optimizer, Rule};

use crate::text;

/// Why a name does not give a loss or an optimizer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// Nothing has this name.
    #[error("there is no {kind} `{name}` here{nearest}; there are: {known}")]
    Unknown {
        /// `loss`, `optimizer` or `learning rate schedule`.
        kind: &'static str,
        /// What was asked for.
        name: String,
        /// A guess at what was meant, as a phrase; may be empty.
        nearest: String,
        /// All names.
        known: String,
    },
    /// An argument that it does not have.
    #[error("{kind} `{name}` has no argument `{argument}` here; it takes: {known}")]
    Argument {
        /// `loss`, ..
        kind: &'static str,
        /// Its name.
        name: String,
        /// The argument.
        argument: String,
        /// Those that it has.
        known: String,
    },
    /// A value that cannot be read, or makes no sense.
    #[error("{kind} `{name}`: `{argument}={value}` is not {expected}")]
    Value {
        /// `loss`, ..
        kind: &'static str,
        /// Its name.
        name: String,
        /// The argument.
        argument: String,
        /// Its value.
        value: String,
        /// What it takes.
        expected: String,
    },
}

const LOSSES: [&str; 5] = [
    "mean_squared_error",
    "mean_absolute_error",
    "binary_crossentropy",
    "categorical_crossentropy",
    "sparse_categorical_crossentropy",
];
const OPTIMIZERS: [&str; 4] = ["sgd", "rmsprop", "adam", "adamw"];
const SCHEDULES: [&str; 5] =
    ["exponential_decay", "piecewise_constant_decay", "polynomial_decay", "inverse_time_decay", "cosine_decay"];

/// Arguments of one thing, taken one by one; what is left over at the end was unknown.
struct Arguments<'a> {
    kind: &'static str,
    name: String,
    pairs: BTreeMap<&'a str, &'a str>,
    known: Vec<&'static str>,
}

impl<'a> Arguments<'a> {
    fn new(kind: &'static str, name: &str, pairs: Vec<(&'a str, &'a str)>) -> Arguments<'a> {
        Arguments { kind, name: name.into(), pairs: pairs.into_iter().collect(), known: Vec::new() }
    }

    fn value_error(&self, argument: &str, value: &str, expected: impl Into<String>) -> NameError {
        NameError::Value {
            kind: self.kind,
            name: self.name.clone(),
            argument: argument.into(),
            value: value.into(),
            expected: expected.into(),
        }
    }

    fn take(&mut self, name: &'static str) -> Option<&'a str> {
        self.known.push(name);
        self.pairs.remove(name).filter(|v| !matches!(*v, "None" | "none" | "null"))
    }

    fn float(&mut self, name: &'static str) -> Result<Option<f32>, NameError> {
        let Some(value) = self.take(name) else { return Ok(None) };
        match f32::from_str(value) {
            Ok(v) if v.is_finite() => Ok(Some(v)),
            _ => Err(self.value_error(name, value, "a finite number")),
        }
    }

    /// A number in `0 .. 1` (1 excluded), or its default.
    fn fraction(&mut self, name: &'static str, default: f32) -> Result<f32, NameError> {
        let value = self.float(name)?.unwrap_or(default);
        if (0.0..1.0).contains(&value) {
            Ok(value)
        } else {
            Err(self.value_error(name, &value.to_string(), "a number from 0 up to, but not including, 1"))
        }
    }

    fn flag(&mut self, name: &'static str) -> Result<bool, NameError> {
        match self.take(name) {
            None => Ok(false),
            Some("true" | "True" | "1" | "") => Ok(true),
            Some("false" | "False" | "0") => Ok(false),
            Some(value) => Err(self.value_error(name, value, "true or false")),
        }
    }

    fn floats(&mut self, name: &'static str) -> Result<Vec<f32>, NameError> {
        let Some(value) = self.take(name) else { return Ok(Vec::new()) };
        let numbers: Result<Vec<f32>, _> = value.split([';', ' ']).map(str::trim).map(f32::from_str).collect();
        numbers.map_err(|_| self.value_error(name, value, "a list of numbers separated by `;`"))
    }

    fn finish(self) -> Result<(), NameError> {
        match self.pairs.keys().next() {
            None => Ok(()),
            Some(argument) => Err(NameError::Argument {
                kind: self.kind,
                name: self.name,
                argument: (*argument).into(),
                known: self.known.join(", "),
            }),
        }
    }
}

fn unknown(kind: &'static str, name: &str, names: &[&str]) -> NameError {
    let nearest = text::nearest(name, names).map_or(String::new(), |n| format!(" (did you mean `{n}`?)"));
    NameError::Unknown { kind, name: name.into(), nearest, known: names.join(", ") }
}

/// A loss by its Keras name (snake case, class name, or short form), with its arguments after a colon.
///
/// # Errors
/// An unknown name or argument, or a value that cannot be read.
pub fn parse_loss(text: &str) -> Result<Loss, NameError> {
    let (name, pairs) = text::name_and_pairs(text);
    let mut args = Arguments::new("loss", name, pairs);
    let loss = match text::snake_case(name).as_str() {
        "mean_squared_error" | "mse" => Loss::MeanSquaredError,
        "mean_absolute_error" | "mae" => Loss::MeanAbsoluteError,
        "binary_crossentropy" | "bce" => Loss::BinaryCrossentropy {
            from_logits: args.flag("from_logits")?,
            label_smoothing: args.fraction("label_smoothing", 0.0)?,
        },
        "categorical_crossentropy" => Loss::CategoricalCrossentropy {
            from_logits: args.flag("from_logits")?,
            label_smoothing: args.fraction("label_smoothing", 0.0)?,
        },
        "sparse_categorical_crossentropy" => {
            Loss::SparseCategoricalCrossentropy { from_logits: args.flag("from_logits")? }
        }
        _ => return Err(unknown("loss", name, &LOSSES)),
    };
    args.finish()?;
    Ok(loss)
}

/// The Keras name of a loss.
pub fn loss_name(loss: &Loss) -> &'static str {
    match loss {
        Loss::MeanSquaredError => "mean_squared_error",
        Loss::MeanAbsoluteError => "mean_absolute_error",
        Loss::BinaryCrossentropy { .. } => "binary_crossentropy",
        Loss::CategoricalCrossentropy { .. } => "categorical_crossentropy",
        Loss::SparseCategoricalCrossentropy { .. } => "sparse_categorical_crossentropy",
    }
}

/// An optimizer by its Keras name, with its arguments (Keras' names and defaults; `lr` for `learning_rate`) after a colon.
///
/// # Errors
/// An unknown name or argument, or a value that cannot be read or makes no sense.
pub fn parse_optimizer(text: &str) -> Result<Optimizer, NameError> {
    let (name, pairs) = text::name_and_pairs(text);
    let pairs = pairs.into_iter().map(|(k, v)| (if k == "lr" { "learning_rate" } else { k }, v)).collect();
    let mut args = Arguments::new("optimizer", name, pairs);
    let (rule, default_rate, default_decay) = match text::snake_case(name).replace('_', "").as_str() {
        "sgd" => {
            (Rule::Sgd { momentum: args.fraction("momentum", 0.0)?, nesterov: args.flag("nesterov")? }, 0.01, None)
        }
        "rmsprop" => (
            Rule::RmsProp {
                rho: args.fraction("rho", 0.9)?,
                momentum: args.fraction("momentum", 0.0)?,
                epsilon: args.float("epsilon")?.unwrap_or(1e-7),
                centered: args.flag("centered")?,
            },
            0.001,
            None,
        ),
        kind @ ("adam" | "adamw") => (
            Rule::Adam {
                beta_1: args.fraction("beta_1", 0.9)?,
                beta_2: args.fraction("beta_2", 0.999)?,
                epsilon: args.float("epsilon")?.unwrap_or(1e-7),
            },
            0.001,
            (kind == "adamw").then_some(0.004),
        ),
        _ => return Err(unknown("optimizer", name, &OPTIMIZERS)),
    };
    let learning_rate = match args.take("learning_rate") {
        None => LearningRate::Constant(default_rate),
        Some(value) => match f32::from_str(value) {
            Ok(rate) if rate.is_finite() && rate >= 0.0 => LearningRate::Constant(rate),
            Ok(_) => return Err(args.value_error("learning_rate", value, "a number of at least 0")),
            Err(_) => parse_schedule(value).ok_or_else(|| {
                args.value_error("learning_rate", value, "a number or a schedule: Name(argument=value,..)")
            })??,
        },
    };
    let clips = [
        args.float("clipvalue")?.map(Clip::Value),
        args.float("clipnorm")?.map(Clip::Norm),
        args.float("global_clipnorm")?.map(Clip::GlobalNorm),
    ];
    let mut clips = clips.into_iter().flatten();
    let clip = clips.next().unwrap_or_default();
    if clips.next().is_some() {
        return Err(args.value_error(
            "clipnorm",
            "..",
            "allowed beside another: give one of clipvalue, clipnorm, global_clipnorm",
        ));
    }
    if let Clip::Value(v) | Clip::Norm(v) | Clip::GlobalNorm(v) = clip
        && v <= 0.0
    {
        return Err(args.value_error("clip", &v.to_string(), "a number above 0"));
    }
    let weight_decay = args.float("weight_decay")?.or(default_decay);
    args.finish()?;
    Ok(Optimizer { rule, learning_rate, clip, weight_decay })
}

/// `ExponentialDecay(initial_learning_rate=..)`; `None` if the text has not this form.
fn parse_schedule(text: &str) -> Option<Result<LearningRate, NameError>> {
    let (name, rest) = text.split_once('(')?;
    let inside = rest.trim_end().strip_suffix(')')?;
    Some(schedule(name.trim(), text::pairs(inside)))
}

fn schedule(name: &str, pairs: Vec<(&str, &str)>) -> Result<LearningRate, NameError> {
    let mut args = Arguments::new("learning rate schedule", name, pairs);
    let need = |args: &mut Arguments, argument: &'static str| {
        let value = args.float(argument)?;
        value.ok_or_else(|| args.value_error(argument, "", "given, but it is needed"))
    };
    let rate = match text::snake_case(name).as_str() {
        "exponential_decay" => LearningRate::ExponentialDecay {
            initial: need(&mut args, "initial_learning_rate")?,
            decay_steps: need(&mut args, "decay_steps")?,
            decay_rate: need(&mut args, "decay_rate")?,
            staircase: args.flag("staircase")?,
        },
        "inverse_time_decay" => LearningRate::InverseTimeDecay {
            initial: need(&mut args, "initial_learning_rate")?,
            decay_steps: need(&mut args, "decay_steps")?,
            decay_rate: need(&mut args, "decay_rate")?,
            staircase: args.flag("staircase")?,
        },
        "polynomial_decay" => LearningRate::PolynomialDecay {
            initial: need(&mut args, "initial_learning_rate")?,
            decay_steps: need(&mut args, "decay_steps")?,
            end: args.float("end_learning_rate")?.unwrap_or(0.0001),
            power: args.float("power")?.unwrap_or(1.0),
            cycle: args.flag("cycle")?,
        },
        "cosine_decay" => LearningRate::CosineDecay {
            initial: need(&mut args, "initial_learning_rate")?,
            decay_steps: need(&mut args, "decay_steps")?,
            alpha: args.float("alpha")?.unwrap_or(0.0),
            warmup_target: args.float("warmup_target")?,
            warmup_steps: args.float("warmup_steps")?.unwrap_or(0.0),
        },
        "piecewise_constant_decay" => {
            let boundaries = args.floats("boundaries")?;
            let values = args.floats("values")?;
            if values.len() != boundaries.len() + 1 {
                let given = format!("{} values for {} boundaries", values.len(), boundaries.len());
                return Err(args.value_error("values", &given, "one more than there are boundaries"));
            }
            LearningRate::PiecewiseConstant { boundaries, values }
        }
        _ => return Err(unknown("learning rate schedule", name, &SCHEDULES)),
    };
    args.finish()?;
    Ok(rate)
}

/// The Keras name of an optimizer.
pub fn optimizer_name(optimizer: &Optimizer) -> &'static str {
    match optimizer.rule {
        Rule::Sgd { .. } => "sgd",
        Rule::RmsProp { .. } => "rmsprop",
        Rule::Adam { .. } if optimizer.weight_decay.is_some() => "adamw",
        Rule::Adam { .. } => "adam",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_by_any_of_their_names() {
        assert_eq!(parse_loss("MSE"), Ok(Loss::MeanSquaredError));
        assert_eq!(parse_loss("MeanAbsoluteError"), Ok(Loss::MeanAbsoluteError));
        assert_eq!(
            parse_loss("binary_crossentropy:from_logits=true,label_smoothing=0.1"),
            Ok(Loss::BinaryCrossentropy { from_logits: true, label_smoothing: 0.1 })
        );
        assert!(
            parse_loss("categorical_crosentropy")
                .unwrap_err()
                .to_string()
                .contains("did you mean `categorical_crossentropy`")
        );
        assert!(parse_loss("mse:from_logits=true").unwrap_err().to_string().contains("no argument `from_logits`"));
        assert!(parse_loss("bce:label_smoothing=2").is_err());
    }

    #[test]
    fn optimizers_with_keras_arguments() {
        let adam = parse_optimizer("adam:learning_rate=0.003,beta_1=0.8").unwrap();
        assert_eq!(adam.rule, Rule::Adam { beta_1: 0.8, beta_2: 0.999, epsilon: 1e-7 });
        assert_eq!(adam.learning_rate, LearningRate::Constant(0.003));
        assert_eq!(parse_optimizer("adam:lr=0.003").unwrap().learning_rate, LearningRate::Constant(0.003));
        assert_eq!(parse_optimizer("AdamW").unwrap().weight_decay, Some(0.004));
        assert_eq!(
            parse_optimizer("SGD:momentum=0.9,nesterov=True").unwrap().rule,
            Rule::Sgd { momentum: 0.9, nesterov: true }
        );
        assert_eq!(parse_optimizer("sgd:clipnorm=1").unwrap().clip, Clip::Norm(1.0));
        assert_eq!(
            parse_optimizer("sgd:lr=ExponentialDecay(initial_learning_rate=0.1,decay_steps=10,decay_rate=0.5)")
                .unwrap()
                .learning_rate,
            LearningRate::ExponentialDecay { initial: 0.1, decay_steps: 10.0, decay_rate: 0.5, staircase: false }
        );
        for bad in [
            "adm",
            "adam:beta1=0.5",
            "adam:beta_1=1",
            "adam:lr=fast",
            "adam:lr=-1",
            "sgd:clipnorm=1,clipvalue=1",
            "sgd:clipnorm=0",
        ] {
            assert!(parse_optimizer(bad).is_err(), "{bad}");
        }
        assert!(parse_optimizer("adm").unwrap_err().to_string().contains("`adam`"));
    }
}
