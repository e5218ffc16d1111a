//! Golden cases from Keras through the stages, without a machine: predictions and training steps.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use spidnn_graph::Tensor;
use spidnn_import::npz;

use crate::interpreter::Chips;
use crate::quantise::{Calibration, Quantisation};
use crate::{Format, Options, Program};

fn cases() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/keras")
}

fn arrays(dir: &Path, file: &str) -> std::collections::BTreeMap<String, npz::Array> {
    npz::read(dir.join(file)).unwrap()
}

/// `x`, or `x0`, `x1`, ..
fn numbered(all: &std::collections::BTreeMap<String, npz::Array>, name: &str) -> Vec<Tensor> {
    match all.get(name) {
        Some(a) => vec![a.to_f32()],
        None => (0..).map_while(|i| all.get(&format!("{name}{i}"))).map(|a| a.to_f32()).collect(),
    }
}

fn sample(t: &Tensor, i: usize) -> Vec<f32> {
    t.index_axis(ndarray::Axis(0), i).iter().copied().collect()
}

/// Formats of the tests, by their names: ranges come from the inputs themselves.
fn format(name: &str, model: &spidnn_import::Model, xs: &[Tensor]) -> Result<Format, String> {
    Ok(match name {
        "int8" => Format::Int8(Quantisation {
            weights: Arc::new(model.weights.clone()),
            calibration: Arc::new(Calibration::of(&model.graph, &model.weights, xs).map_err(|e| e.to_string())?),
        }),
        "bfp16" => Format::Bfp16,
        _ => Format::F32,
    })
}

/// Largest difference, relative to the largest magnitude expected, and a hash of the results' bits.
fn predict(case: &str, name: &str, cores: &[u32]) -> Result<(f64, u64), String> {
    let dir = cases().join(case);
    let model = spidnn_import::load_model(dir.join("model.keras")).map_err(|e| e.to_string())?;
    let io = arrays(&dir, "io.npz");
    let (xs, ys) = (numbered(&io, "x"), numbered(&io, "y"));
    let n = xs[0].shape()[0];
    let options = Options { format: format(name, &model, &xs)?, ..Options::inference(n) };
    let mut chips = Chips::new(&model.graph, &options, cores).map_err(|e| e.to_string())?;
    chips.set_weights(&model.graph, &model.weights);
    let shares = chips.shares(n);
    let mut first = 0;
    for (chip, &share) in shares.iter().enumerate() {
        for (k, x) in xs.iter().enumerate() {
            for i in 0..share {
                chips.write_input(chip, (1, k), i, &sample(x, first + i));
            }
        }
        first += share;
    }
    chips.run(Program::Predict, n, 1);
    let mut worst = 0f64;
    let mut hash = 0u64;
    for (k, y) in ys.iter().enumerate() {
        let scale = y.iter().fold(0f64, |m, &v| m.max(f64::from(v).abs())).max(1e-30);
        let mut first = 0;
        for (chip, &share) in shares.iter().enumerate() {
            for i in 0..share {
                let got = chips.read(chip, &chips.lowered.outputs[k].clone(), i);
                for (g, e) in got.iter().zip(sample(y, first + i)) {
                    hash = hash.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(g.to_bits().into());
                    let error = (f64::from(*g) - f64::from(e)).abs() / scale;
                    worst = if error.is_nan() { f64::INFINITY } else { worst.max(error) };
                }
            }
            first += share;
        }
    }
    Ok((worst, hash))
}

#[test]
fn predictions() {
    predictions_within("f32", |_| 1e-5);
}

/// Mantissas of at most 23,079: an error of 2^-14.5 of the largest of a block in every operand, or half of it, over some layers.
#[test]
fn predictions_with_halves() {
    predictions_within("bfp16", |_| 2e-3);
}

/// Steps of 1/255 of a tensor's range in every layer.
#[test]
fn predictions_with_bytes() {
    predictions_within("int8", |case| if case.contains("resnet50") || case.contains("inverted") { 0.4 } else { 0.12 });
}

/// All cases in a format, within a limit each, with the same bits on any cores.
fn predictions_within(name: &str, limit: impl Fn(&str) -> f64) {
    let mut failures = Vec::new();
    let only = std::env::var("CASE").unwrap_or_default();
    for entry in std::fs::read_dir(cases()).unwrap() {
        let path = entry.unwrap().path();
        let case = path.file_name().unwrap().to_string_lossy().into_owned();
        // Penalties on weights are refused when a model is read.
        if !path.join("model.keras").exists() || !case.contains(&only) || case == "opt_adam_l2" {
            continue;
        }
        let mut hashes = Vec::new();
        for cores in [&[17][..], &[3, 2]] {
            match std::panic::catch_unwind(|| predict(&case, name, cores)) {
                Ok(Ok((error, hash))) if error <= limit(&case) => hashes.push(hash),
                Ok(Ok((error, _))) => failures.push(format!("{case} {cores:?}: {error:e}")),
                Ok(Err(e)) => failures.push(format!("{case} {cores:?}: {e}")),
                Err(_) => failures.push(format!("{case} {cores:?}: panicked")),
            }
        }
        if hashes.windows(2).any(|h| h[0] != h[1]) {
            failures.push(format!("{case}: the numbers depend on the cores"));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// Predictions of a graph with seeded weights on chips with these cores, as bits.
fn bits(graph: &spidnn_graph::Graph, inputs: &Tensor, cores: &[u32]) -> Vec<u32> {
    let n = inputs.shape()[0];
    let mut chips = Chips::new(graph, &Options::inference(n), cores).unwrap();
    chips.set_weights(graph, &spidnn_graph::initial_weights(graph, 7));
    let shares = chips.shares(n);
    let mut first = 0;
    for (chip, &share) in shares.iter().enumerate() {
        let buffer = chips.lowered.inputs[0][0];
        for i in 0..share {
            chips.write(chip, &buffer, i, &sample(inputs, first + i));
        }
        first += share;
    }
    chips.run(Program::Predict, n, 0);
    let output = chips.lowered.outputs[0];
    let mut all = Vec::new();
    for (chip, &share) in shares.iter().enumerate() {
        for i in 0..share {
            all.extend(chips.read(chip, &output, i).iter().map(|v| v.to_bits()));
        }
    }
    all
}

#[test]
fn terms_shared_by_cores_give_the_bits_of_one_core_and_the_numbers_of_the_reference() {
    use spidnn_graph::builder::{Dense, Input, Sequential};
    let graph = Sequential::new(Input::shape([1700]))
        .with(Dense::new(3).activation(spidnn_graph::Activation::Tanh))
        .build()
        .unwrap();
    let inputs = Tensor::from_shape_fn(vec![5, 1700], |i| ((i[0] * 1700 + i[1]) as f32 * 0.61).sin());
    let one = bits(&graph, &inputs, &[1]);
    for cores in [&[17][..], &[15], &[2, 17], &[4, 4, 4]] {
        assert_eq!(bits(&graph, &inputs, cores), one, "{cores:?}");
    }
    let weights = spidnn_graph::initial_weights(&graph, 7);
    let expected = spidnn_graph::reference::predict(&graph, &weights, &[inputs], 5).unwrap().remove(0);
    for (found, expected) in one.iter().zip(expected.iter()) {
        assert!((f32::from_bits(*found) - expected).abs() < 1e-5);
    }
}
