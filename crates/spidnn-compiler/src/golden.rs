//! Golden cases from Keras through the stages, without a machine: predictions and training steps.

use std::path::{Path, PathBuf};

use spidnn_graph::Tensor;
use spidnn_import::npz;

use crate::interpreter::Chips;
use crate::{Options, Program};

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

/// Largest difference, relative to the largest magnitude expected.
fn predict(case: &str, cores: &[u32]) -> Result<f64, String> {
    let dir = cases().join(case);
    let model = spidnn_import::load_model(dir.join("model.keras")).map_err(|e| e.to_string())?;
    let io = arrays(&dir, "io.npz");
    let (xs, ys) = (numbered(&io, "x"), numbered(&io, "y"));
    let n = xs[0].shape()[0];
    let mut chips = Chips::new(&model.graph, &Options::inference(n), cores).map_err(|e| e.to_string())?;
    chips.set_weights(&model.graph, &model.weights);
    let shares = chips.shares(n);
    let mut first = 0;
    for (chip, &share) in shares.iter().enumerate() {
        for (k, x) in xs.iter().enumerate() {
            let buffer = chips.lowered.inputs[1][k];
            for i in 0..share {
                chips.write(chip, &buffer, i, &sample(x, first + i));
            }
        }
        first += share;
    }
    chips.run(Program::Predict, n, 1);
    let mut worst = 0f64;
    for (k, y) in ys.iter().enumerate() {
        let scale = y.iter().fold(0f64, |m, &v| m.max(f64::from(v).abs())).max(1e-30);
        let mut first = 0;
        for (chip, &share) in shares.iter().enumerate() {
            for i in 0..share {
                let got = chips.read(chip, &chips.lowered.outputs[k].clone(), i);
                for (g, e) in got.iter().zip(sample(y, first + i)) {
                    let error = (f64::from(*g) - f64::from(e)).abs() / scale;
                    worst = if error.is_nan() { f64::INFINITY } else { worst.max(error) };
                }
            }
            first += share;
        }
    }
    Ok(worst)
}

#[test]
fn predictions() {
    let mut failures = Vec::new();
    let only = std::env::var("CASE").unwrap_or_default();
    for entry in std::fs::read_dir(cases()).unwrap() {
        let path = entry.unwrap().path();
        let case = path.file_name().unwrap().to_string_lossy().into_owned();
        // Penalties on weights are refused when a model is read.
        if !path.join("model.keras").exists() || !case.contains(&only) || case == "opt_adam_l2" {
            continue;
        }
        for cores in [&[17][..], &[3, 2]] {
            match std::panic::catch_unwind(|| predict(&case, cores)) {
                Ok(Ok(error)) if error <= 1e-5 => {}
                Ok(Ok(error)) => failures.push(format!("{case} {cores:?}: {error:e}")),
                Ok(Err(e)) => failures.push(format!("{case} {cores:?}: {e}")),
                Err(_) => failures.push(format!("{case} {cores:?}: panicked")),
            }
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
