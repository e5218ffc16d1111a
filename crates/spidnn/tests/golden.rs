//! Keras' golden networks through compiled programs on the virtual machine: predictions, and whole training runs.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;
use spidnn::names::{parse_loss, parse_optimizer};
use spidnn::{Dataset, Error, Evaluate, Fit, Loss, Machine, Model, Optimizer, Tensor};
use spidnn_import::npz::{self, Array};

/// Of the output's largest magnitude.
const PREDICTION_LIMIT: f64 = 1e-5;
/// Relative for losses; for weights in units of 1 or the largest one.
const TRAINING_LIMIT: f64 = 1e-4;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/keras")
}

/// Folders with a model; `CASE` in the environment picks those whose name contains it.
fn cases(file: &str) -> Vec<String> {
    let only = std::env::var("CASE").unwrap_or_default();
    let mut names: Vec<String> = std::fs::read_dir(root())
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|p| p.join("model.keras").exists() && p.join(file).exists())
        .map(|p| p.file_name().unwrap().to_string_lossy().into_owned())
        .filter(|name| name.contains(&only))
        .collect();
    names.sort();
    names
}

fn arrays(case: &str, file: &str) -> BTreeMap<String, Array> {
    npz::read(root().join(case).join(file)).unwrap()
}

/// `x`, or `x0`, `x1`, ..
fn numbered(all: &BTreeMap<String, Array>, name: &str) -> Vec<Tensor> {
    match all.get(name) {
        Some(a) => vec![a.to_f32()],
        None => (0..).map_while(|i| all.get(&format!("{name}{i}"))).map(Array::to_f32).collect(),
    }
}

/// Largest difference in units of the largest magnitude that is expected.
fn distance(found: &Tensor, expected: &Tensor) -> f64 {
    assert_eq!(found.shape(), expected.shape());
    let scale = expected.iter().fold(1e-30f64, |m, &v| m.max(f64::from(v).abs()));
    found.iter().zip(expected).fold(0.0, |m, (&a, &b)| {
        let d = (f64::from(a) - f64::from(b)).abs() / scale;
        if d.is_nan() { f64::INFINITY } else { f64::max(m, d) }
    })
}

fn open(case: &str) -> Result<Model, Error> {
    Model::open_for_inference(root().join(case).join("model.keras").to_str().unwrap(), 0)
}

#[test]
fn predictions() {
    let (mut failures, mut passed) = (Vec::new(), 0);
    for case in cases("io.npz") {
        let io = arrays(&case, "io.npz");
        let model = match open(&case) {
            Ok(model) => model,
            // What is not in the layers of this version is refused by name.
            Err(Error::Import(spidnn_import::ImportError::Unsupported(_))) => continue,
            Err(e) => panic!("{case}: {e}"),
        };
        let run = || -> Result<f64, Error> {
            let mut session = model.on(Machine::open("virtual:spin3")?)?;
            let outputs = session.predict(&Dataset::inputs(numbered(&io, "x")))?;
            let expected = numbered(&io, "y");
            Ok(outputs.iter().zip(&expected).map(|(o, e)| distance(o, e)).fold(0.0, f64::max))
        };
        match run() {
            Ok(d) if d <= PREDICTION_LIMIT => passed += 1,
            Ok(d) => failures.push(format!("{case}: {d:e}")),
            Err(e) => failures.push(format!("{case}: {e}")),
        }
    }
    assert!(failures.is_empty(), "{passed} passed, but\n{}", failures.join("\n"));
    assert!(passed >= 95 || std::env::var("CASE").is_ok(), "only {passed} cases");
}

/// Loss and optimizer of a training case, by their Keras names; `None` for those that this version has not.
fn settings(train: &Value) -> Option<(Loss, Optimizer)> {
    let text = |class: &str, config: &Value, known: &[&str]| {
        let arguments: Vec<String> = config
            .as_object()
            .into_iter()
            .flatten()
            .filter(|(k, v)| known.contains(&k.as_str()) && !v.is_null())
            .map(|(k, v)| match v {
                Value::Object(schedule) => format!("{k}={}", self::schedule(schedule)),
                _ => format!("{k}={v}"),
            })
            .collect();
        format!("{class}:{}", arguments.join(","))
    };
    let loss = match &train["loss"] {
        Value::String(name) => parse_loss(name),
        object => parse_loss(&text(object["class"].as_str()?, &object["config"], &["from_logits", "label_smoothing"])),
    };
    let config = &train["optimizer"]["config"];
    if config["amsgrad"] == Value::Bool(true) || config["use_ema"] == Value::Bool(true) {
        return None;
    }
    let known = [
        "learning_rate",
        "momentum",
        "nesterov",
        "rho",
        "centered",
        "epsilon",
        "beta_1",
        "beta_2",
        "clipnorm",
        "clipvalue",
        "global_clipnorm",
        "weight_decay",
    ];
    let optimizer = parse_optimizer(&text(train["optimizer"]["class"].as_str()?, config, &known));
    Some((loss.ok()?, optimizer.ok()?))
}

fn schedule(schedule: &serde_json::Map<String, Value>) -> String {
    let class = schedule.get("class_name").or(schedule.get("class")).and_then(Value::as_str).unwrap_or_default();
    let arguments: Vec<String> = schedule
        .get("config")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .filter(|(k, v)| *k != "name" && !v.is_null())
        .map(|(k, v)| format!("{k}={v}"))
        .collect();
    format!("{class}({})", arguments.join(","))
}

fn train(case: &str) -> Result<Option<String>, Error> {
    let train: Value = serde_json::from_slice(&std::fs::read(root().join(case).join("train.json")).unwrap()).unwrap();
    let Some((loss, optimizer)) = settings(&train) else { return Ok(None) };
    let mut model = match Model::open(root().join(case).join("model.keras").to_str().unwrap(), 0) {
        Ok(model) => model,
        Err(Error::Import(spidnn_import::ImportError::Unsupported(_))) => return Ok(None),
        Err(e) => return Err(e),
    };
    let all = arrays(case, "train.npz");
    let mut data = match train["data"]["first"].as_u64() {
        Some(count) => Dataset::open("mnist", None)?.take(count as usize),
        None => Dataset { targets: numbered(&all, "y"), ..Dataset::inputs(numbered(&all, "x")) },
    };
    if let Some(weights) = all.get("sample_weight") {
        data = data.with_sample_weight(weights.to_f32().iter().copied().collect());
    }
    let count = model.weights().len();
    let named = |letter: &str| {
        (0..count).map_while(|i| all.get(&format!("{letter}{i:03}"))).map(Array::to_f32).collect::<Vec<_>>()
    };
    let initial = named("w");
    if !initial.is_empty() {
        model.set_weights(initial)?;
    }
    let mut session = model.on(Machine::open("virtual:spin3")?)?;
    let fit = Fit {
        optimizer,
        epochs: train["epochs"].as_u64().unwrap() as usize,
        batch_size: train["batch_size"].as_u64().unwrap() as usize,
        shuffle: false,
        ..Fit::new(loss)
    };
    let history = session.fit(&data, fit)?;
    let mut worst = (0f64, String::new());
    let mut note = |value: f64, what: String| {
        let value = if value.is_nan() { f64::INFINITY } else { value };
        if value > worst.0 {
            worst = (value, what);
        }
    };
    let expected: Vec<f64> = all["epoch_loss"].to_f32().iter().map(|&v| f64::from(v)).collect();
    let found = history.get("loss").unwrap();
    assert_eq!(found.len(), expected.len(), "{case}");
    for (epoch, (f, e)) in found.iter().zip(&expected).enumerate() {
        note((f - e).abs() / e.abs(), format!("loss of epoch {epoch}: {f} for {e}"));
    }
    for (i, (weights, expected)) in session.get_weights()?.iter().zip(named("f")).enumerate() {
        let scale = expected.iter().fold(1f64, |m, &v| m.max(f64::from(v).abs()));
        let far = weights.iter().zip(&expected).fold(0f64, |m, (a, b)| m.max(f64::from((a - b).abs())));
        note(far / scale, format!("weight {i}"));
    }
    // Trained on diverging losses, there is nothing to evaluate to so many digits.
    if let Some(expected) =
        train["evaluate_after"]["loss"].as_f64().filter(|l| l.abs() < 1e6 && data.sample_weight.is_none())
    {
        let scores = session.evaluate(&data, &Evaluate::new(loss))?;
        let f = scores.get("loss").unwrap();
        note((f - expected).abs() / expected.abs(), format!("evaluation afterwards: {f} for {expected}"));
    }
    Ok(Some(if worst.0 <= TRAINING_LIMIT { String::new() } else { format!("{}: {:e}", worst.1, worst.0) }))
}

#[test]
fn training_runs() {
    let (mut failures, mut passed) = (Vec::new(), 0);
    for case in cases("train.npz") {
        match train(&case) {
            Ok(None) => {}
            Ok(Some(problem)) if problem.is_empty() => passed += 1,
            Ok(Some(problem)) => failures.push(format!("{case}: {problem}")),
            Err(e) => failures.push(format!("{case}: {e}")),
        }
    }
    assert!(failures.is_empty(), "{passed} passed, but\n{}", failures.join("\n"));
    assert!(passed >= 28 || std::env::var("CASE").is_ok(), "only {passed} cases");
}
