//! The reference executor against Keras: predictions, activations of every layer, gradients, training runs, and the tables of
//! activations, losses and schedules.

mod files;
mod model_json;

use std::collections::HashMap;

use files::{Array, cases, distance, json, mnist, nan_max, npz, numbered, one_or_many, root};
use spidnn_graph::reference::{Cotangent, FitData, Mode, Trainer, activation, backward, forward, predict};
use spidnn_graph::{Activation, Graph, Tensor};

/// Collects what is out of tolerance, so that one run shows all of it.
#[derive(Default)]
struct Report {
    checks: usize,
    problems: Vec<String>,
    worst: (f64, String),
}

impl Report {
    fn check(&mut self, what: &str, found: f64, limit: f64) {
        self.checks += 1;
        if found / limit > self.worst.0 {
            self.worst = (found / limit, format!("{what}: {found:.2e} of {limit:.2e}"));
        }
        if found.is_nan() || found > limit {
            self.problems.push(format!("{what}: {found:.2e}, allowed {limit:.2e}"));
        }
    }

    fn finish(self, checks_at_least: usize) {
        println!("{} checks, the closest to its limit: {}", self.checks, self.worst.1);
        assert!(self.problems.is_empty(), "{} problems:\n{}", self.problems.len(), self.problems.join("\n"));
        assert!(self.checks >= checks_at_least, "only {} checks", self.checks);
    }
}

struct Case {
    graph: Graph,
    weights: Vec<Tensor>,
    io: HashMap<String, Array>,
}

impl Case {
    fn load(name: &str) -> Self {
        let folder = root().join(name);
        let graph = model_json::graph(&json(&folder.join("model.json")));
        let arrays = npz(&folder.join("weights.npz")).unwrap();
        let weights = numbered(&arrays, "w");
        let listed = json(&folder.join("weights.json"));
        let trainable: Vec<bool> = listed.as_array().unwrap().iter().map(|entry| entry["trainable"] == true).collect();
        assert_eq!(trainable, graph.params.iter().map(|param| param.trainable).collect::<Vec<_>>(), "{name}");
        let io = npz(&folder.join("io.npz")).unwrap();
        Self { graph, weights, io }
    }

    fn inputs(&self) -> Vec<Tensor> {
        one_or_many(&self.io, "x").iter().map(Array::tensor).collect()
    }
}

#[test]
fn predictions() {
    let mut report = Report::default();
    for name in cases() {
        let case = Case::load(&name);
        let described = json(&root().join(&name).join("case.json"));
        assert_eq!(case.graph.parameter_count() as u64, described["params"].as_u64().unwrap(), "{name}");
        let outputs = predict(&case.graph, &case.weights, &case.inputs(), 64).unwrap();
        let expected = one_or_many(&case.io, "y");
        assert_eq!(outputs.len(), expected.len(), "{name}");
        for (index, (output, expected)) in outputs.iter().zip(&expected).enumerate() {
            report.check(&format!("{name} y{index}"), distance(output, expected), 2e-6);
            // Against float64 the only error is our own: a few roundings.
            let key = if expected.values.is_empty() || case.io.contains_key("y_f64") {
                "y_f64".to_owned()
            } else {
                format!("y_f64_{index}")
            };
            report.check(&format!("{name} {key}"), distance(output, &case.io[&key]), 6e-7);
        }
    }
    report.finish(200);
}

#[test]
fn activations_of_every_layer() {
    let mut report = Report::default();
    for name in cases() {
        let Some(acts) = npz(&root().join(&name).join("acts.npz")) else { continue };
        let case = Case::load(&name);
        let two: Vec<Tensor> = case.inputs().iter().map(|x| first_samples(x, x.shape()[0].min(2))).collect();
        let pass = forward(&case.graph, &case.weights, &two, Mode::Inference).unwrap();
        for (layer, expected) in &acts {
            let Some(id) = case.graph.layer_named(layer) else { continue };
            let node = case.graph.calls(id)[0];
            report.check(&format!("{name} {layer}"), distance(&pass.values[node.0], expected), 2e-6);
        }
    }
    report.finish(150);
}

fn first_samples(all: &Tensor, count: usize) -> Tensor {
    all.slice_axis(ndarray::Axis(0), (0..count).into()).to_owned()
}

#[test]
fn gradients() {
    let mut report = Report::default();
    for name in cases() {
        let Some(expected) = npz(&root().join(&name).join("grads.npz")) else { continue };
        let case = Case::load(&name);
        let pass = forward(&case.graph, &case.weights, &case.inputs(), Mode::Inference).unwrap();
        let cotangents: Vec<Cotangent> =
            one_or_many(&expected, "r").iter().map(|array| Cotangent::Output(array.tensor())).collect();
        let found = backward(&case.graph, &case.weights, &pass, &cotangents).unwrap();
        let inputs = one_or_many(&expected, "dx");
        assert_eq!(found.inputs.len(), inputs.len(), "{name}");
        for (index, (found, expected)) in found.inputs.iter().zip(&inputs).enumerate() {
            report.check(&format!("{name} dx{index}"), distance(found, expected), 1e-5);
        }
        for (index, param) in case.graph.params.iter().enumerate() {
            match expected.get(&format!("d{index:03}")) {
                Some(expected) => {
                    let found = found.params[index].as_ref().unwrap();
                    report.check(&format!("{name} d{index:03} ({})", param.name), distance(found, expected), 1e-5);
                }
                None => assert!(!param.trainable, "{name}: no gradient for {}", param.name),
            }
        }
    }
    report.finish(200);
}

#[test]
fn training_runs() {
    let mut report = Report::default();
    let mut runs = 0;
    let index = json(&root().join("index.json"));
    for entry in index["cases"].as_array().unwrap() {
        let name = entry["name"].as_str().unwrap();
        if entry["train"] == "supported" {
            train(name, &mut report);
            runs += 1;
        }
    }
    println!("{runs} runs");
    assert!(runs >= 25, "{runs} runs");
    report.finish(300);
}

fn train(name: &str, report: &mut Report) {
    let case = Case::load(name);
    let folder = root().join(name);
    let settings = json(&folder.join("train.json"));
    let data = npz(&folder.join("train.npz")).unwrap();
    let loss = model_json::loss(&settings["loss"]).unwrap_or_else(|| panic!("{name}: loss {}", settings["loss"]));
    let optimizer = model_json::optimizer(&settings["optimizer"]).unwrap_or_else(|| panic!("{name}: optimizer"));
    let (x, y) = match settings["data"]["first"].as_u64() {
        Some(count) => mnist(0, count as usize),
        None => (data["x"].tensor(), data["y"].tensor()),
    };
    let sample_weight: Option<Vec<f32>> =
        data.get("sample_weight").map(|array| array.tensor().iter().copied().collect());
    let initial = numbered(&data, "w");
    let initial = if initial.is_empty() { case.weights.clone() } else { initial };
    let batch_size = settings["batch_size"].as_u64().unwrap() as usize;
    let epochs = settings["epochs"].as_u64().unwrap() as usize;
    let mut trainer = Trainer::new(&case.graph, vec![loss], optimizer.clone(), initial.clone(), 0).unwrap();

    // ancestor_train_known_weights diverges to 1e14 by design: weights are compared in units of the largest one.
    let weights_limit =
        |expected: &Array| 1e-5 * expected.values.iter().fold(1.0_f64, |max, value| max.max(value.abs()));
    let compare = |report: &mut Report, what: String, weights: &[Tensor], prefix: &str| {
        for (index, weights) in weights.iter().enumerate() {
            let expected = &data[&format!("{prefix}{index:03}")];
            let found = weights.iter().zip(&expected.values).map(|(a, b)| (f64::from(*a) - b).abs()).fold(0.0, nan_max);
            report.check(&format!("{what} {prefix}{index:03}"), found, weights_limit(expected));
        }
    };

    let losses = trainer
        .fit(
            FitData {
                inputs: std::slice::from_ref(&x),
                targets: std::slice::from_ref(&y),
                sample_weight: sample_weight.as_deref(),
                class_weight: None,
            },
            batch_size,
            epochs,
        )
        .unwrap();
    let expected = &data["epoch_loss"].values;
    assert_eq!(losses.len(), expected.len(), "{name}");
    for (epoch, (found, expected)) in losses.iter().zip(expected).enumerate() {
        report.check(&format!("{name} loss of epoch {epoch}"), (found - expected).abs() / expected.abs(), 1e-5);
    }
    compare(report, name.to_owned(), &trainer.weights, "f");
    if let Some(expected) = case.io.get("y_trained") {
        let outputs = predict(&case.graph, &trainer.weights, &case.inputs(), 64).unwrap();
        report.check(&format!("{name} y_trained"), distance(&outputs[0], expected), 1e-5);
    }
    // Optimizer variables behind iteration and learning rate.
    for (index, found) in trainer.state.variables(&optimizer.rule).into_iter().enumerate() {
        let Some(expected) = data.get(&format!("o{:03}", index + 2)) else { continue };
        report.check(&format!("{name} o{:03}", index + 2), distance(found, expected), 1e-5);
    }

    // The same step by step, where Keras' steps were kept.
    let Some(step_loss) = data.get("step_loss") else { return };
    let mut trainer = Trainer::new(&case.graph, vec![loss], optimizer, initial, 0).unwrap();
    let samples = x.shape()[0];
    let mut first = 0;
    for (step, expected) in step_loss.values.iter().enumerate() {
        let last = (first + batch_size).min(samples);
        let part = |all: &Tensor| all.slice_axis(ndarray::Axis(0), (first..last).into()).to_owned();
        let weights = sample_weight.as_ref().map(|weights| &weights[first..last]);
        let found = trainer.train_batch(&[part(&x)], &[part(&y)], weights).unwrap();
        report.check(&format!("{name} loss of step {step}"), (found - expected).abs() / expected.abs(), 1e-5);
        let prefix = format!("s{:03}_w", step + 1);
        if data.contains_key(&format!("{prefix}000")) {
            compare(report, format!("{name} step {step}"), &trainer.weights, &prefix);
        }
        first = if last == samples { 0 } else { last };
    }
}

#[test]
fn activation_table() {
    let mut report = Report::default();
    let table = npz(&root().join("table_activations/activations.npz")).unwrap();
    let x = table["x"].tensor();
    for (name, activation) in [
        ("linear", Activation::Linear),
        ("relu", Activation::Relu),
        ("relu6", Activation::ClippedRelu { max_value: 6.0 }),
        ("leaky_relu", Activation::LeakyRelu { negative_slope: 0.2 }),
        ("elu", Activation::Elu { alpha: 1.0 }),
        ("selu", Activation::Selu),
        ("gelu", Activation::Gelu { approximate: false }),
        ("gelu_approximate", Activation::Gelu { approximate: true }),
        ("silu", Activation::Silu),
        ("softplus", Activation::Softplus),
        ("softsign", Activation::Softsign),
        ("hard_sigmoid", Activation::HardSigmoid),
        ("exponential", Activation::Exponential),
        ("sigmoid", Activation::Sigmoid),
        ("tanh", Activation::Tanh),
    ] {
        let value = &table[&format!("f64_{name}")].values;
        let slope = &table[&format!("d_{name}")].values;
        for (index, x) in x.iter().enumerate() {
            let (found, found_slope) = activation::at(activation, *x).unwrap();
            let expected = value[index] as f32;
            if expected.is_finite() && expected.abs() > f32::MIN_POSITIVE {
                let distance = f64::from((found - expected).abs()) / f64::from(expected.abs());
                // Keras rounds the constants of gelu to float32 even in float64, and cancels far below zero.
                let (limit, absolute) = if name.starts_with("gelu") { (3e-6, 1e-14) } else { (1.3e-7, 0.0) };
                if f64::from((found - expected).abs()) > absolute {
                    report.check(&format!("{name} at {x}"), distance, limit);
                }
            } else if expected.is_infinite() {
                assert_eq!(found, expected, "{name} at {x}");
            } else {
                let limit = if name.starts_with("gelu") { 1e-14 } else { 1e-37 };
                // Keras' exponentials minus 1 are 0 for the smallest numbers.
                let limit = if name.ends_with("elu") { f64::max(limit, 2e-30) } else { limit };
                report.check(&format!("{name} at {x}"), f64::from((found - expected).abs()), limit);
            }
            // Keras' own derivative is a float32 formula of the float32 result: good to some 1e-7 absolute.
            // (Its selu takes the slope from the result, which it rounds to 0 for the smallest numbers.)
            let rounded_away = name == "selu" && *x < 0.0 && *x > -1e-20;
            if slope[index].is_finite() && !rounded_away {
                let distance = (f64::from(found_slope) - slope[index]).abs() / slope[index].abs().max(1.0);
                report.check(&format!("derivative of {name} at {x}"), distance, 5e-6);
            }
        }
    }
    let rows = &table["softmax_x"];
    let found = activation::apply(Activation::Softmax, rows.tensor().as_slice().unwrap(), *rows.shape.last().unwrap());
    for (index, (found, expected)) in found.iter().zip(&table["softmax"].values).enumerate() {
        report.check(&format!("softmax {index}"), (f64::from(*found) - expected).abs(), 2e-7);
    }
    report.finish(1000);
}

#[test]
fn loss_table() {
    let mut report = Report::default();
    let folder = root().join("table_losses");
    let table = npz(&folder.join("losses.npz")).unwrap();
    let mut losses = 0;
    for entry in json(&folder.join("losses.json"))["losses"].as_array().unwrap() {
        let name = entry["name"].as_str().unwrap();
        let Some(loss) = model_json::loss(entry) else { continue };
        losses += 1;
        let get = |what: &str| &table[&format!("{name}.{what}")];
        let (targets, predictions) = (get("y_true").tensor(), get("y_pred").tensor());
        let value = loss.evaluate(&targets, &predictions, None).unwrap();
        let relative = |found: f64, key: &str| {
            let expected = entry[key].as_f64().unwrap();
            (found - expected).abs() / expected.abs()
        };
        report.check(&format!("{name} mean"), relative(value.mean, "mean"), 1e-6);
        report.check(&format!("{name} per sample"), distance(&value.per_sample, get("per_sample")), 1e-6);
        report.check(&format!("{name} gradient"), distance(&value.gradient, get("grad")), 1e-6);
        let weights: Vec<f32> = table
            .get(&format!("{name}.sample_weight"))
            .or(table.get("sample_weight"))
            .unwrap()
            .tensor()
            .iter()
            .copied()
            .collect();
        let weighted = loss.evaluate(&targets, &predictions, Some(&weights)).unwrap();
        report.check(&format!("{name} weighted"), relative(weighted.mean, "weighted_mean"), 1e-6);
    }
    assert!(losses >= 14, "{losses} losses");
    report.finish(4 * 14);
}

#[test]
fn schedule_table() {
    let mut report = Report::default();
    let table = json(&root().join("table_schedules/schedules.json"));
    let steps: Vec<u64> = table["steps"].as_array().unwrap().iter().map(|step| step.as_u64().unwrap()).collect();
    let mut schedules = 0;
    for entry in table["schedules"].as_array().unwrap() {
        let Some(schedule) = model_json::schedule(entry) else { continue };
        schedules += 1;
        let initial = f64::from(schedule.at(0)).abs().max(1e-3);
        for (step, expected) in steps.iter().zip(entry["values"].as_array().unwrap()) {
            let expected = expected.as_f64().unwrap();
            let found = f64::from(schedule.at(*step));
            // Keras computes in float32, where a cosine near -1 cancels; so in units of the first rate.
            report.check(&format!("{} at {step}", entry["class"]), (found - expected).abs() / initial, 2e-6);
        }
    }
    assert!(schedules >= 9, "{schedules} schedules");
    report.finish(150);
}

/// Our functional models number their layers as Keras does: the files hold Keras' order.
#[test]
fn layer_order_is_keras_own() {
    let mut functional = 0;
    for name in cases() {
        let graph = model_json::graph(&json(&root().join(&name).join("model.json")));
        if !graph.sequential {
            let order: Vec<usize> = graph.keras_layer_order().iter().map(|layer| layer.0).collect();
            assert_eq!(order, (0..graph.layers.len()).collect::<Vec<_>>(), "{name}");
            functional += 1;
        }
    }
    assert!(functional >= 8, "{functional} functional models");
}
