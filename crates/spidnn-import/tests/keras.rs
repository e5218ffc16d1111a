//! Against the real Keras, where it is installed: what SpiDNN writes, Keras loads with the same weights, predictions and
//! optimizer state; what Keras writes now, SpiDNN reads. Golden files hold the same without Keras, for the versions of then.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use spidnn_graph::training::{Clip, LearningRate, Loss, Optimizer, Rule};
use spidnn_import::{
    LoadOptions, Model, TrainingConfig, load_architecture, load_model, load_model_with, load_weights, npz,
    save_architecture, save_model, save_weights,
};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// A Python that has Keras.
fn python() -> Option<String> {
    let candidate = std::env::var("SPIDNN_KERAS_PYTHON").unwrap_or_else(|_| "python3".into());
    let found = Command::new(&candidate).args(["-c", "import keras"]).output().ok()?.status.success();
    if found {
        return Some(candidate);
    }
    assert!(std::env::var("SPIDNN_KERAS_PYTHON").is_err(), "SPIDNN_KERAS_PYTHON={candidate} has no Keras");
    println!("not run: Keras is not installed");
    None
}

/// Runs the script and gives its last line.
fn script(python: &str, what: &str, folder: &Path) -> Value {
    let output =
        Command::new(python).arg(root().join("tests/keras_roundtrip.py")).arg(what).arg(folder).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let last = text.lines().last().unwrap_or("");
    serde_json::from_str(last).unwrap_or_else(|_| {
        panic!("keras_roundtrip.py {what} failed:\n{text}\n{}", String::from_utf8_lossy(&output.stderr))
    })
}

/// Writes a model in formats and describes the files.
fn write(folder: &Path, name: &str, model: &Model, kinds: &[&str]) -> Value {
    let mut files = serde_json::Map::new();
    for kind in kinds {
        let file = match *kind {
            "keras" => format!("{name}.keras"),
            "h5" => format!("{name}.h5"),
            "json" => format!("{name}.json"),
            "weights_h5" => format!("{name}.weights.h5"),
            "legacy_weights" => format!("{name}.legacy.h5"),
            "npz" => format!("{name}.npz"),
            "weights_json" => format!("{name}.weights.json"),
            other => panic!("{other}"),
        };
        let path = folder.join(&file);
        match *kind {
            "keras" | "h5" => save_model(&path, model).unwrap(),
            "json" => save_architecture(&path, &model.graph).unwrap(),
            _ => save_weights(&path, &model.graph, &model.weights).unwrap(),
        }
        files.insert((*kind).into(), json!(file));
    }
    json!({"name": name, "files": files})
}

const ALL: &[&str] = &["keras", "h5", "json", "weights_h5", "legacy_weights", "npz", "weights_json"];

fn optimizers() -> Vec<(&'static str, Value, Optimizer)> {
    let plain = |rule, rate| Optimizer { rule, learning_rate: rate, clip: Clip::None, weight_decay: None };
    let adam = Rule::Adam { beta_1: 0.8, beta_2: 0.99, epsilon: 1e-6 };
    let sgd = Rule::Sgd { momentum: 0.0, nesterov: false };
    vec![
        ("SGD", json!({"learning_rate": 0.05, "momentum": 0.0}), plain(sgd, LearningRate::Constant(0.05))),
        (
            "SGD",
            json!({"momentum": 0.9, "clipvalue": 0.5, "weight_decay": 0.01}),
            Optimizer {
                clip: Clip::Value(0.5),
                weight_decay: Some(0.01),
                ..plain(
                    Rule::Sgd { momentum: 0.9, nesterov: true },
                    LearningRate::ExponentialDecay {
                        initial: 0.1,
                        decay_steps: 10.0,
                        decay_rate: 0.5,
                        staircase: true,
                    },
                )
            },
        ),
        (
            "RMSprop",
            json!({"rho": 0.8, "momentum": 0.3, "epsilon": 1e-5, "global_clipnorm": 2.0}),
            Optimizer {
                clip: Clip::GlobalNorm(2.0),
                ..plain(
                    Rule::RmsProp { rho: 0.8, momentum: 0.3, epsilon: 1e-5, centered: true },
                    LearningRate::PiecewiseConstant { boundaries: vec![5.0, 9.0], values: vec![0.1, 0.05, 0.01] },
                )
            },
        ),
        (
            "Adam",
            json!({"beta_1": 0.8, "beta_2": 0.99, "epsilon": 1e-6, "clipnorm": 1.5}),
            Optimizer {
                clip: Clip::Norm(1.5),
                ..plain(
                    adam,
                    LearningRate::CosineDecay {
                        initial: 0.0,
                        decay_steps: 100.0,
                        alpha: 0.1,
                        warmup_target: Some(0.01),
                        warmup_steps: 10.0,
                    },
                )
            },
        ),
        (
            "AdamW",
            json!({"weight_decay": 0.02}),
            Optimizer {
                weight_decay: Some(0.02),
                ..plain(
                    adam,
                    LearningRate::PolynomialDecay {
                        initial: 0.1,
                        decay_steps: 20.0,
                        end: 0.001,
                        power: 2.0,
                        cycle: true,
                    },
                )
            },
        ),
        (
            "Adam",
            json!({}),
            plain(
                adam,
                LearningRate::InverseTimeDecay { initial: 0.1, decay_steps: 3.0, decay_rate: 0.5, staircase: false },
            ),
        ),
    ]
}

#[test]
fn keras_loads_what_is_written_and_the_other_way_round() {
    let Some(python) = python() else { return };
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let made = folder.join("made");
    let report = script(&python, "make", &made);
    let mut manifest = Vec::new();

    // What Keras writes now.
    for name in report["models"].as_array().unwrap() {
        let name = name.as_str().unwrap();
        let of = |ending: &str| made.join(format!("{name}{ending}"));
        let stored = npz::read(of(".npz")).unwrap();
        let expected: Vec<_> = stored.values().map(npz::Array::to_f32).collect();
        let model = load_model(of(".keras")).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(model.weights, expected, "{name}.keras");
        let legacy = load_model(of(".h5")).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(legacy.weights, expected, "{name}.h5");
        assert_eq!(legacy.graph, model.graph, "{name}.h5");
        assert_eq!(legacy.training, model.training, "{name}.h5");
        let graph = load_architecture(of(".json")).unwrap();
        assert_eq!(graph, model.graph, "{name}.json");
        for ending in [".npz", ".keras", ".h5"] {
            assert_eq!(load_weights(&graph, of(ending)).unwrap(), expected, "{name}{ending} as weights");
        }
        let nested = name.starts_with("nested");
        if !nested {
            // Models inside models are unfolded, and a weights file alone does not say how they were folded.
            assert_eq!(load_weights(&graph, of(".weights.h5")).unwrap(), expected, "{name}.weights.h5");
        }
        let kinds = if nested { &ALL[..5] } else { ALL };
        let mut entry = write(folder, &format!("again_{name}"), &model, kinds);
        entry["io"] = json!(of(".io.npz"));
        if !nested {
            entry["weights"] = json!(of(".npz"));
        }
        if let Some(training) = &model.training {
            entry["optimizer"] = json!(of(".io.npz"));
            assert!(training.state.is_some(), "{name}: {:?}", training.problems);
        }
        manifest.push(entry);
    }

    // The golden networks.
    let golden = root().join("tests/fixtures/keras");
    let any = LoadOptions { inference_only: true, weights_follow: true };
    let mut names: Vec<PathBuf> = std::fs::read_dir(&golden).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.sort();
    // All of them take minutes; a part, another kind of file for each, is enough for every day.
    let every = if std::env::var("SPIDNN_KERAS_ALL").is_ok() { 1 } else { 8 };
    for (index, case) in names.iter().enumerate() {
        if index % every != 0 && !case.ends_with("inverted_residual") && !case.ends_with("functional_residual") {
            continue;
        }
        let name = case.file_name().unwrap().to_string_lossy().into_owned();
        // The optimizer cases share one network.
        if !case.join("io.npz").exists() || (name.starts_with("opt_") && name != "opt_sgd") {
            continue;
        }
        let Ok(mut model) = load_model_with(case.join("model.keras"), &any) else { continue };
        model.training = None;
        let kinds = if index % (5 * every) == 0 {
            ALL
        } else {
            &["keras", ["h5", "weights_h5", "legacy_weights"][index / every % 3], "json"]
        };
        let mut entry = write(folder, &name, &model, kinds);
        entry["io"] = json!(case.join("io.npz"));
        entry["weights"] = json!(case.join("weights.npz"));
        manifest.push(entry);
    }

    // Training configurations and state.
    let case = golden.join("train_partial_batch");
    let trained = load_model(case.join("model_trained.keras")).unwrap();
    let mut entry = write(folder, "trained", &trained, &["keras", "h5"]);
    entry["io"] = json!(case.join("io.npz"));
    entry["output"] = json!("y_trained");
    entry["weights"] = json!(case.join("train.npz"));
    entry["weights_prefix"] = json!("f");
    entry["optimizer"] = json!(case.join("train.npz"));
    entry["compiled"] =
        json!({"optimizer": "Adam", "loss": "categorical_crossentropy", "config": {"learning_rate": 0.01}});
    manifest.push(entry);
    let losses = [
        Loss::MeanSquaredError,
        Loss::MeanAbsoluteError,
        Loss::BinaryCrossentropy { from_logits: true, label_smoothing: 0.0 },
        Loss::CategoricalCrossentropy { from_logits: false, label_smoothing: 0.1 },
        Loss::SparseCategoricalCrossentropy { from_logits: true },
        Loss::SparseCategoricalCrossentropy { from_logits: false },
    ];
    let case = golden.join("opt_sgd");
    let mut model = load_model(case.join("model.keras")).unwrap();
    for (index, ((class, config, optimizer), loss)) in optimizers().into_iter().zip(losses).enumerate() {
        let sparse = matches!(loss, Loss::SparseCategoricalCrossentropy { .. });
        let metric = if sparse { "sparse_categorical_accuracy" } else { "precision" };
        model.training = Some(TrainingConfig {
            loss: Some(loss),
            optimizer: Some(optimizer.clone()),
            // Keras would stop at a name that it does not know.
            metrics: ["accuracy", metric, "homemade"].map(String::from).to_vec(),
            ..Default::default()
        });
        let name = format!("compiled_{index}");
        let mut entry = write(folder, &name, &model, &["keras", "h5"]);
        for ending in ["keras", "h5"] {
            let again = load_model(folder.join(format!("{name}.{ending}"))).unwrap().training.unwrap();
            assert_eq!((again.loss, again.optimizer.as_ref()), (Some(loss), Some(&optimizer)), "{name}.{ending}");
            assert_eq!(again.problems, [], "{name}.{ending}");
        }
        entry["io"] = json!(case.join("io.npz"));
        let loss = if sparse { "sparse" } else { "dense" };
        entry["compiled"] = json!({"optimizer": class, "loss": loss, "config": config});
        manifest.push(entry);
    }

    std::fs::write(folder.join("manifest.json"), json!(manifest).to_string()).unwrap();
    let report = script(&python, "check", folder);
    println!("Keras {}: {} files checked, worst difference {}", report["keras"], report["checked"], report["worst"]);
    assert_eq!(report["failures"], json!([]), "{report:#}");
    assert!(report["checked"].as_u64().unwrap() > 60, "{report}");
}
