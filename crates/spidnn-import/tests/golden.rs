//! The golden networks made by Keras: every one that SpiDNN has the layers for is read in every format there is of it, with
//! weights equal to `weights.npz` in order; the others are refused with the names of the layers that are in the way.

use std::path::{Path, PathBuf};

use spidnn_import::{ImportError, LoadOptions, load_architecture_with, load_model, load_model_with, load_weights, npz};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/keras")
}

fn cases() -> Vec<PathBuf> {
    let mut cases: Vec<PathBuf> = std::fs::read_dir(folder())
        .expect("the golden networks are in the repository")
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.join("case.json").exists() && path.join("model.keras").exists())
        .collect();
    cases.sort();
    assert!(cases.len() >= 90, "only {} golden networks found", cases.len());
    cases
}

const ANY: LoadOptions = LoadOptions { inference_only: true, weights_follow: true };

/// Classes that SpiDNN has; the tests below decide by them alone which cases must load.
const KNOWN: &[&str] = &[
    "InputLayer",
    "Dense",
    "Conv1D",
    "Conv2D",
    "DepthwiseConv1D",
    "DepthwiseConv2D",
    "MaxPooling1D",
    "MaxPooling2D",
    "AveragePooling1D",
    "AveragePooling2D",
    "GlobalAveragePooling1D",
    "GlobalAveragePooling2D",
    "GlobalMaxPooling1D",
    "GlobalMaxPooling2D",
    "Flatten",
    "Reshape",
    "ZeroPadding1D",
    "ZeroPadding2D",
    "Activation",
    "ReLU",
    "LeakyReLU",
    "ELU",
    "Softmax",
    "Dropout",
    "Add",
    "Multiply",
    "Concatenate",
    "BatchNormalization",
];

/// Names of the layers of a case whose class is not known.
fn unknown_layers(case: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(case.join("model.json")).unwrap();
    let model: serde_json::Value = serde_json::from_str(&text).unwrap();
    model["config"]["layers"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|layer| !KNOWN.contains(&layer["class_name"].as_str().unwrap()))
        .map(|layer| layer["config"]["name"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn every_format_of_every_case_gives_the_same_weights_in_order() {
    let (mut loaded, mut refused, mut files) = (0, 0, 0);
    for case in cases() {
        let name = case.file_name().unwrap().to_string_lossy().into_owned();
        let unknown = unknown_layers(&case);
        // Arguments, not classes, stand in the way of these.
        let arguments = name == "activation_layers";
        match load_model_with(case.join("model.keras"), &ANY) {
            Err(ImportError::Unsupported(problems)) if !unknown.is_empty() || arguments => {
                for layer in &unknown {
                    assert!(
                        problems.iter().any(|problem| &problem.layer == layer),
                        "{name}: `{layer}` is missing from {problems:?}"
                    );
                }
                refused += 1;
                continue;
            }
            Err(error) => panic!("{name}: {error}"),
            Ok(model) => {
                assert!(unknown.is_empty(), "{name}: loaded in spite of {unknown:?}");
                loaded += 1;
                let stored = npz::read(case.join("weights.npz")).unwrap();
                let expected: Vec<_> = stored.values().map(npz::Array::to_f32).collect();
                assert_eq!(model.weights, expected, "{name}: model.keras");
                let described: serde_json::Value =
                    serde_json::from_str(&std::fs::read_to_string(case.join("weights.json")).unwrap()).unwrap();
                for (param, described) in model.graph.params.iter().zip(described.as_array().unwrap()) {
                    assert_eq!(model.graph.layers[param.layer.0].name, described["layer"], "{name}");
                    // Keras 3.15 calls a depthwise kernel `depthwise_kernel` in some versions and `kernel` in others.
                    assert!(described["name"].as_str().unwrap().ends_with(&param.name), "{name}: {described}");
                }
                for (file, same_graph) in [
                    ("model.h5", true),
                    ("model_keras2.h5", false),
                    ("model_keras2.keras", false),
                    ("model_keras305.keras", false),
                ] {
                    let path = case.join(file);
                    if path.exists() {
                        files += 1;
                        let other = load_model(&path).unwrap_or_else(|error| panic!("{name}/{file}: {error}"));
                        assert_eq!(other.weights, expected, "{name}/{file}");
                        let kinds = |graph: &spidnn_graph::Graph| {
                            graph.layers.iter().map(|layer| layer.kind.clone()).collect::<Vec<_>>()
                        };
                        assert_eq!(kinds(&other.graph), kinds(&model.graph), "{name}/{file}");
                        if same_graph {
                            assert_eq!(other.graph, model.graph, "{name}/{file}");
                        }
                        let again = load_weights(&model.graph, &path).unwrap();
                        assert_eq!(again, expected, "{name}/{file} as weights");
                    }
                }
                for file in ["model.json", "model_keras2.json", "model_keras305.json"] {
                    let path = case.join(file);
                    if path.exists() {
                        files += 1;
                        let graph = load_architecture_with(&path, &ANY)
                            .unwrap_or_else(|error| panic!("{name}/{file}: {error}"));
                        assert_eq!(graph.params.len(), model.graph.params.len(), "{name}/{file}");
                        if file == "model.json" {
                            assert_eq!(graph, model.graph, "{name}/{file}");
                        }
                        let weights = load_weights(&graph, case.join("weights.npz")).unwrap();
                        assert_eq!(weights, expected, "{name}: weights.npz");
                        assert_eq!(load_weights(&graph, case.join("model.keras")).unwrap(), expected, "{name}");
                    }
                }
            }
        }
    }
    println!("{loaded} cases loaded, {refused} refused, {files} further files");
    assert!(loaded >= 85, "only {loaded} cases loaded");
    assert!(files >= 85);
}

#[test]
fn keras_order_of_layers_is_that_of_the_files() {
    for case in cases() {
        if let Ok(model) = load_model_with(case.join("model.keras"), &ANY)
            && !model.graph.sequential
        {
            let order: Vec<usize> = model.graph.keras_layer_order().iter().map(|id| id.0).collect();
            let expected: Vec<usize> = (0..model.graph.layers.len()).collect();
            assert_eq!(order, expected, "{}", case.display());
        }
    }
}

#[test]
fn regularizers_stand_in_the_way_of_training_only() {
    let path = folder().join("opt_adam_l2/model.keras");
    let error = load_model(&path).unwrap_err();
    assert!(!error.problems().is_empty());
    assert!(error.problems().iter().all(|problem| problem.what.contains("regularizer")), "{error}");
    load_model_with(&path, &LoadOptions { inference_only: true, ..Default::default() }).unwrap();
}

#[test]
fn a_trained_model_brings_its_optimizer() {
    use spidnn_graph::training::{LearningRate, Loss, Rule};
    use spidnn_import::SlotRole;
    let case = folder().join("train_partial_batch");
    let model = load_model(case.join("model_trained.keras")).unwrap();
    let training = model.training.unwrap();
    assert_eq!(training.problems, []);
    assert_eq!(training.loss, Some(Loss::CategoricalCrossentropy { from_logits: false, label_smoothing: 0.0 }));
    let optimizer = training.optimizer.unwrap();
    assert_eq!(optimizer.rule, Rule::Adam { beta_1: 0.9, beta_2: 0.999, epsilon: 1e-7 });
    assert_eq!(optimizer.learning_rate, LearningRate::Constant(0.01));
    assert_eq!(training.metrics, ["accuracy"]);
    let stored = npz::read(case.join("train.npz")).unwrap();
    let state = training.state.unwrap();
    assert_eq!(state.iterations as i64, stored["o000"].to_i64().unwrap().iter().copied().next().unwrap());
    assert_eq!(state.learning_rate, stored["o001"].to_f32().iter().copied().next());
    assert_eq!(state.slots.len(), 8);
    for (index, slot) in state.slots.iter().enumerate() {
        assert_eq!(slot.value, stored[&format!("o{:03}", index + 2)].to_f32());
        assert_eq!(slot.param.0, index / 2);
        assert_eq!(slot.role, [SlotRole::Momentum, SlotRole::Velocity][index % 2]);
    }
    for (index, weight) in model.weights.iter().enumerate() {
        assert_eq!(*weight, stored[&format!("f{index:03}")].to_f32());
    }
}
