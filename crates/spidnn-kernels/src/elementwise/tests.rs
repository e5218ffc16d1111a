//! Kernels against what Keras computed, and against their contracts.

use std::collections::HashMap;
use std::io::{Cursor, Read};

use proptest::strategy::Strategy as _;

use crate::call::*;
use crate::{Activation, BadCall, Kernel, KernelCall, Optimizer};

type Arrays = HashMap<String, (Vec<usize>, Vec<f64>)>;

fn folder(case: &str) -> String {
    format!("{}/../../tests/fixtures/keras/{case}", env!("CARGO_MANIFEST_DIR"))
}

/// All float arrays of an `.npz`.
fn arrays(case: &str, file: &str) -> Arrays {
    let mut archive = zip::ZipArchive::new(std::fs::File::open(format!("{}/{file}", folder(case))).unwrap()).unwrap();
    let mut result = Arrays::new();
    for i in 0..archive.len() {
        let mut entry = archive.by_index(i).unwrap();
        let name = entry.name().unwrap().trim_end_matches(".npy").to_string();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        let shape = |npy: &npyz::NpyFile<Cursor<Vec<u8>>>| npy.shape().iter().map(|&n| n as usize).collect::<Vec<_>>();
        let open = || npyz::NpyFile::new(Cursor::new(bytes.clone())).unwrap();
        let npy = open();
        let dims = shape(&npy);
        if let Ok(values) = npy.into_vec::<f32>() {
            result.insert(name, (dims, values.into_iter().map(f64::from).collect()));
        } else if let Ok(values) = open().into_vec::<f64>() {
            result.insert(name, (dims, values));
        } else if let Ok(values) = open().into_vec::<i64>() {
            result.insert(name, (dims, values.into_iter().map(|v| v as f64).collect()));
        } else if let Ok(values) = open().into_vec::<i32>() {
            result.insert(name, (dims, values.into_iter().map(f64::from).collect()));
        }
    }
    result
}

fn json(case: &str, file: &str) -> serde_json::Value {
    serde_json::from_str(&std::fs::read_to_string(format!("{}/{file}", folder(case))).unwrap()).unwrap()
}

/// Puts arrays behind each other into a DTCM; returns it and their addresses.
fn lay_out(parts: &[&[f64]]) -> (Vec<u32>, Vec<u32>) {
    let (mut words, mut addresses) = (Vec::new(), Vec::new());
    for part in parts {
        addresses.push(4 * words.len() as u32);
        words.extend(part.iter().map(|&x| (x as f32).to_bits()));
    }
    (words, addresses)
}

fn floats(dtcm: &[u32], address: u32, count: usize) -> Vec<f64> {
    dtcm[address as usize / 4..][..count].iter().map(|&w| f64::from(f32::from_bits(w))).collect()
}

fn go(call: impl Into<KernelCall>, dtcm: &mut [u32]) {
    let call = call.into();
    call.check(dtcm.len()).unwrap();
    assert!(call.cycles() > 0);
    call.run(dtcm);
}

fn assert_close(what: &str, found: &[f64], expected: &[f64], relative: f64, absolute: f64) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (i, (f, e)) in found.iter().zip(expected).enumerate() {
        let same = f == e || (f.is_nan() && e.is_nan());
        assert!(same || (f - e).abs() <= relative * e.abs() + absolute, "{what}[{i}]: {f:e}, Keras has {e:e}");
    }
}

#[test]
fn activations_are_kerases() {
    let table = arrays("table_activations", "activations.npz");
    let x = &table["x"].1;
    let kinds = [
        ("linear", Activation::Linear, 0.0),
        ("relu", Activation::Relu, 0.0),
        ("relu6", Activation::ClippedRelu, 6.0),
        ("leaky_relu", Activation::LeakyRelu, 0.2),
        ("elu", Activation::Elu, 1.0),
        ("selu", Activation::Selu, 0.0),
        ("gelu", Activation::Gelu, 0.0),
        ("gelu_approximate", Activation::GeluTanh, 0.0),
        ("silu", Activation::Silu, 0.0),
        ("softplus", Activation::Softplus, 0.0),
        ("softsign", Activation::Softsign, 0.0),
        ("hard_sigmoid", Activation::HardSigmoid, 0.0),
        ("exponential", Activation::Exponential, 0.0),
        ("sigmoid", Activation::Sigmoid, 0.0),
        ("tanh", Activation::Tanh, 0.0),
    ];
    for (name, kind, alpha) in kinds {
        let n = x.len();
        let ones = vec![1.0; n];
        let (mut dtcm, at) = lay_out(&[x, x, &ones]);
        let (activation, alpha_bits) = (kind as u32, (alpha as f32).to_bits());
        let cols = n as u32;
        go(BiasAct { y: at[0], rows: 1, cols, stride: cols, bias: NONE, activation, alpha_bits }, &mut dtcm);
        let expected = &table[&format!("f64_{name}")].1;
        // Beyond f32's range Keras' float32 overflows too.
        let expected: Vec<f64> =
            expected.iter().map(|&e| if e > f64::from(f32::MAX) { f64::INFINITY } else { e }).collect();
        assert_close(name, &floats(&dtcm, at[0], n), &expected, 1e-6, 2e-7);
        let saved = if kind.saves_input() { at[1] } else { at[0] };
        go(ActGrad { dy: at[2], saved, out: at[2], count: cols, activation, alpha_bits }, &mut dtcm);
        let mut slopes = table[&format!("d_{name}")].1.clone();
        if kind == Activation::GeluTanh {
            // TensorFlow loses digits in 1 - tanh^2, and beyond 4.8 all of them (5e-6 off): the formula in doubles holds.
            for (slope, &x) in slopes.iter_mut().zip(x) {
                let c = 2.0 * (2.0 / std::f64::consts::PI).sqrt();
                let s = 1.0 / (1.0 + (-c * (x + 0.044715 * x.powi(3))).exp());
                let exact = s + x * s * (1.0 - s) * c * (1.0 + 3.0 * 0.044715 * x * x);
                let exact = if exact.is_nan() { 0.0 } else { exact };
                assert!((exact - *slope).abs() < 6e-6, "{x}");
                *slope = exact;
            }
        }
        if kind == Activation::Selu {
            // The output of -1e-30 is 0 in TensorFlow (and the slope that of the positive side); here it is not lost.
            let lost = x.iter().position(|&x| (-1e-29..0.0).contains(&x));
            lost.into_iter().for_each(|i| slopes[i] = 1.758_099_340_847_376_6);
        }
        assert_close(&format!("d_{name}"), &floats(&dtcm, at[2], n), &slopes, 2e-6, 5e-7);
    }
}

#[test]
fn softmax_is_kerases() {
    let table = arrays("table_activations", "activations.npz");
    let (shape, x) = &table["softmax_x"];
    let (rows, cols) = (shape[0] as u32, shape[1] as u32);
    let (mut dtcm, at) = lay_out(&[x]);
    go(Softmax { x: at[0], out: at[0], rows, cols }, &mut dtcm);
    let expected = table.get("f64_softmax").unwrap_or(&table["softmax"]);
    assert_close("softmax", &floats(&dtcm, 0, x.len()), &expected.1, 2e-6, 1e-12);
}

#[test]
fn softmax_gradient_is_the_chain_rule() {
    let (y, dy) = ([0.2, 0.3, 0.5], [1.0, -2.0, 0.5]);
    let (mut dtcm, at) = lay_out(&[&y, &dy]);
    go(SoftmaxGrad { y: at[0], dy: at[1], dx: at[1], rows: 1, cols: 3 }, &mut dtcm);
    let dot: f64 = y.iter().zip(&dy).map(|(a, b)| a * b).sum();
    let expected: Vec<f64> = y.iter().zip(&dy).map(|(y, d)| y * (d - dot)).collect();
    assert_close("softmax gradient", &floats(&dtcm, at[1], 3), &expected, 1e-6, 1e-7);
}

#[test]
fn losses_are_kerases() {
    let (table, list) = (arrays("table_losses", "losses.npz"), json("table_losses", "losses.json"));
    let mut checked = 0;
    for entry in list["losses"].as_array().unwrap() {
        let kind = match entry["class"].as_str().unwrap() {
            "MeanSquaredError" => crate::Loss::MeanSquaredError,
            "MeanAbsoluteError" => crate::Loss::MeanAbsoluteError,
            "BinaryCrossentropy" => crate::Loss::BinaryCrossentropy,
            "CategoricalCrossentropy" => crate::Loss::CategoricalCrossentropy,
            "SparseCategoricalCrossentropy" => crate::Loss::SparseCategoricalCrossentropy,
            _ => continue,
        };
        let name = entry["name"].as_str().unwrap();
        let (shape, pred) = &table[&format!("{name}.y_pred")];
        let target = &table[&format!("{name}.y_true")].1;
        let (rows, cols) = (shape[0] as u32, shape[1] as u32);
        let weight = vec![1.0 / f64::from(rows); rows as usize];
        let (loss, grad) = (vec![0.0; rows as usize], vec![0.0; pred.len()]);
        let (mut dtcm, at) = lay_out(&[pred, target, &weight, &loss, &grad]);
        let smoothing = entry["config"]["label_smoothing"].as_f64().unwrap_or(0.0) as f32;
        let call = crate::call::Loss {
            kind: kind as u32,
            pred: at[0],
            target: at[1],
            weight: at[2],
            loss: at[3],
            grad: at[4],
            rows,
            cols,
            from_logits: u32::from(entry["config"]["from_logits"].as_bool() == Some(true)),
            fused: 0,
            smoothing_bits: smoothing.to_bits(),
        };
        go(call, &mut dtcm);
        assert_close(name, &floats(&dtcm, at[3], rows as usize), &table[&format!("{name}.per_sample")].1, 2e-6, 3e-7);
        let expected = &table[&format!("{name}.grad")].1;
        let largest = expected.iter().fold(0.0f64, |m, e| m.max(e.abs()));
        assert_close(&format!("{name} gradient"), &floats(&dtcm, at[4], pred.len()), expected, 1e-5, 1e-6 * largest);
        // Without a gradient the losses are the same.
        let before = floats(&dtcm, at[3], rows as usize);
        go(crate::call::Loss { grad: NONE, ..call }, &mut dtcm);
        assert_eq!(floats(&dtcm, at[3], rows as usize), before);
        checked += 1;
    }
    assert_eq!(checked, 15);
}

#[test]
fn fused_gradients_are_those_of_the_logits() {
    let logits = [0.3, -1.2, 2.0, 0.1, 0.4, -0.7];
    for (kind, target) in [
        (crate::Loss::CategoricalCrossentropy, &[0.0, 1.0, 0.0, 0.2, 0.3, 0.5][..]),
        (crate::Loss::SparseCategoricalCrossentropy, &[2.0, 0.0][..]),
        (crate::Loss::BinaryCrossentropy, &[0.0, 1.0, 1.0, 0.2, 0.3, 0.5][..]),
    ] {
        let (mut dtcm, at) = lay_out(&[&logits, target, &[0.5, 0.25], &[0.0; 2], &[0.0; 6]]);
        let call = crate::call::Loss {
            kind: kind as u32,
            pred: at[0],
            target: at[1],
            weight: at[2],
            loss: at[3],
            grad: at[4],
            rows: 2,
            cols: 3,
            from_logits: 1,
            fused: 0,
            smoothing_bits: 0,
        };
        go(call, &mut dtcm);
        let expected = floats(&dtcm, at[3], 8);
        if kind == crate::Loss::BinaryCrossentropy {
            let activation = Activation::Sigmoid as u32;
            go(BiasAct { y: at[0], rows: 2, cols: 3, stride: 3, bias: NONE, activation, alpha_bits: 0 }, &mut dtcm);
        } else {
            go(Softmax { x: at[0], out: at[0], rows: 2, cols: 3 }, &mut dtcm);
        }
        go(crate::call::Loss { from_logits: 0, fused: 1, ..call }, &mut dtcm);
        assert_close("fused", &floats(&dtcm, at[3], 8), &expected, 1e-6, 1e-7);
    }
}

#[test]
fn a_class_out_of_range_is_nan_and_no_panic() {
    for class in [-1.0, 3.0, 1e30, f64::NAN, f64::INFINITY] {
        for from_logits in [0, 1] {
            let (mut dtcm, at) = lay_out(&[&[0.2, 0.3, 0.5], &[class], &[1.0], &[0.0], &[0.0; 3]]);
            go(
                crate::call::Loss {
                    kind: crate::Loss::SparseCategoricalCrossentropy as u32,
                    pred: at[0],
                    target: at[1],
                    weight: at[2],
                    loss: at[3],
                    grad: at[4],
                    rows: 1,
                    cols: 3,
                    from_logits,
                    fused: 1,
                    smoothing_bits: 0,
                },
                &mut dtcm,
            );
            assert!(floats(&dtcm, at[3], 4).iter().all(|x| x.is_nan()));
        }
    }
}

/// Gradients of softmax cross-entropy behind Dense(tanh) and Dense, in doubles.
fn gradients(w: &[Vec<f64>], x: &[f64], y: &[f64], samples: usize) -> Vec<Vec<f64>> {
    let (hidden, outputs) = (w[1].len(), w[3].len());
    let inputs = w[0].len() / hidden;
    let mut g: Vec<Vec<f64>> = w.iter().map(|w| vec![0.0; w.len()]).collect();
    for s in 0..samples {
        let (x, y) = (&x[s * inputs..][..inputs], &y[s * outputs..][..outputs]);
        let h: Vec<f64> = (0..hidden)
            .map(|j| (w[1][j] + (0..inputs).map(|i| x[i] * w[0][i * hidden + j]).sum::<f64>()).tanh())
            .collect();
        let z: Vec<f64> =
            (0..outputs).map(|k| w[3][k] + (0..hidden).map(|j| h[j] * w[2][j * outputs + k]).sum::<f64>()).collect();
        let sum: f64 = z.iter().map(|z| z.exp()).sum();
        let dz: Vec<f64> = (0..outputs).map(|k| (z[k].exp() / sum - y[k]) / samples as f64).collect();
        for j in 0..hidden {
            let dh = (0..outputs).map(|k| dz[k] * w[2][j * outputs + k]).sum::<f64>() * (1.0 - h[j] * h[j]);
            (0..outputs).for_each(|k| g[2][j * outputs + k] += h[j] * dz[k]);
            (0..inputs).for_each(|i| g[0][i * hidden + j] += x[i] * dh);
            g[1][j] += dh;
        }
        (0..outputs).for_each(|k| g[3][k] += dz[k]);
    }
    g
}

#[test]
fn optimizers_follow_keras_step_by_step() {
    for case in [
        "opt_sgd",
        "opt_sgd_momentum",
        "opt_sgd_nesterov",
        "opt_sgd_weight_decay",
        "opt_rmsprop",
        "opt_rmsprop_centered_momentum",
        "opt_adam",
        "opt_adamw",
    ] {
        let (data, about) = (arrays(case, "train.npz"), json(case, "train.json"));
        let config = &about["optimizer"]["config"];
        let number = |key: &str, other: f32| config[key].as_f64().map_or(other, |v| v as f32);
        let kind = match about["optimizer"]["class"].as_str().unwrap() {
            "SGD" if config["nesterov"] == true => Optimizer::SgdNesterov,
            "SGD" => Optimizer::Sgd,
            "RMSprop" => Optimizer::RmsProp,
            _ => Optimizer::Adam,
        };
        let scalars = crate::optimizer::Scalars {
            learning_rate: number("learning_rate", 0.0),
            momentum: number("momentum", 0.0),
            rho: number("rho", 0.9),
            beta_1: number("beta_1", 0.9),
            beta_2: number("beta_2", 0.999),
            epsilon: number("epsilon", 1e-7),
            weight_decay: number("weight_decay", 0.0),
        };
        let mut w: Vec<Vec<f64>> = (0..4).map(|i| data[&format!("w{i:03}")].1.clone()).collect();
        let mut states: Vec<[Vec<f64>; 3]> =
            w.iter().map(|w| [vec![0.0; w.len()], vec![0.0; w.len()], vec![0.0; w.len()]]).collect();
        let (x, y) = (&data["x"].1, &data["y"].1);
        let samples = data["x"].0[0];
        let batch = about["batch_size"].as_u64().unwrap() as usize;
        let (inputs, outputs) = (x.len() / samples, y.len() / samples);
        let batches = samples.div_ceil(batch);
        for step in 0..about["steps_kept"].as_u64().unwrap() as usize {
            let start = step % batches * batch;
            let end = samples.min(start + batch);
            let g = gradients(&w, &x[start * inputs..end * inputs], &y[start * outputs..end * outputs], end - start);
            for p in 0..4 {
                let [m, v, average] = &states[p];
                let blank = [0.0; 16];
                let (mut dtcm, at) = lay_out(&[&w[p], &g[p], m, v, average, &blank]);
                dtcm[at[5] as usize / 4..].copy_from_slice(&scalars.words(step as u64 + 1));
                let momentum = kind == Optimizer::Adam || scalars.momentum != 0.0;
                go(
                    OptimizerStep {
                        kind: kind as u32,
                        w: at[0],
                        g: at[1],
                        m: if momentum { at[2] } else { NONE },
                        v: at[3],
                        x: if config["centered"] == true { at[4] } else { NONE },
                        count: w[p].len() as u32,
                        scalars: at[5],
                        decay: u32::from(scalars.weight_decay != 0.0),
                    },
                    &mut dtcm,
                );
                let n = w[p].len();
                w[p] = floats(&dtcm, at[0], n);
                states[p] = [2, 3, 4].map(|i| floats(&dtcm, at[i], n));
                let expected = &data[&format!("s{:03}_w{p:03}", step + 1)].1;
                assert_close(&format!("{case} step {step} w{p}"), &w[p], expected, 2e-6, 2e-6);
            }
        }
    }
}

#[test]
fn small_kernels_do_what_they_say() {
    let a = [1.0, -2.0, 3.0, 0.5, 0.25, -4.0];
    let b = [0.5, 8.0, -1.0, 2.0, 2.0, 1.0];
    type Rule = fn(f64, f64) -> f64;
    let rules: [Rule; 5] = [|a, b| a + b, |a, b| a - b, |a, b| a * b, f64::max, f64::min];
    for (op, rule) in rules.iter().enumerate() {
        let (mut dtcm, at) = lay_out(&[&a, &b]);
        go(Map2 { op: op as u32, a: at[0], b: at[1], out: at[0], count: 6 }, &mut dtcm);
        let expected: Vec<f64> = a.iter().zip(&b).map(|(a, b)| rule(*a, *b)).collect();
        assert_eq!(floats(&dtcm, 0, 6), expected, "Map2 {op}");
    }
    // Two rows of three.
    let (mut dtcm, at) = lay_out(&[&a, &[2.0, 3.0, 4.0], &[1.0, 0.0, -1.0]]);
    go(ScaleShift { x: at[0], out: at[0], rows: 2, cols: 3, scale: at[1], shift: at[2] }, &mut dtcm);
    assert_eq!(floats(&dtcm, 0, 6), [3.0, -6.0, 11.0, 2.0, 0.75, -17.0]);
    for (op, expected) in
        [(0, [11.5, 8.25, 9.0]), (1, [11.5, -5.5, 3.0]), (2, [10.25, 170.0625, 35.0]), (3, [11.25, 14.0625, 35.0])]
    {
        // Sums add to what is there.
        let (mut dtcm, at) = lay_out(&[&a, &b, &[10.0, 10.0, 10.0]]);
        go(ColumnSum { op, x: at[0], y: at[1], rows: 2, cols: 3, row_stride: 3, sum: at[2] }, &mut dtcm);
        assert_eq!(floats(&dtcm, at[2], 3), expected, "ColumnSum {op}");
    }
    let (mut dtcm, at) = lay_out(&[&a, &[0.0; 2]]);
    go(SumParts { src: at[0], parts: 3, stride: 2, count: 2, dst: at[1] }, &mut dtcm);
    assert_eq!(floats(&dtcm, at[1], 2), [4.25, -5.5]);
    go(SumParts { src: at[0], parts: 3, stride: 2, count: 2, dst: at[0] }, &mut dtcm);
    assert_eq!(floats(&dtcm, at[0], 2), [4.25, -5.5]);

    let (mut dtcm, at) = lay_out(&[&[3.0, -4.0], &[1.0, 2.0]]);
    go(Norms { x: at[0], count: 2, out: at[1] }, &mut dtcm);
    assert_eq!(floats(&dtcm, at[1], 2), [26.0, 4.0]);
    let (mut dtcm, at) = lay_out(&[&[3.0, -4.0], &[25.0]]);
    go(Clip { mode: 2, x: at[0], count: 2, limit_bits: 10f32.to_bits(), sum_squares: at[1] }, &mut dtcm);
    assert_eq!(floats(&dtcm, 0, 2), [3.0, -4.0]);
    go(Clip { mode: 2, x: at[0], count: 2, limit_bits: 2.5f32.to_bits(), sum_squares: at[1] }, &mut dtcm);
    assert_eq!(floats(&dtcm, 0, 2), [1.5, -2.0]);
    go(Clip { mode: 1, x: at[0], count: 2, limit_bits: 1.75f32.to_bits(), sum_squares: NONE }, &mut dtcm);
    assert_eq!(floats(&dtcm, 0, 2), [1.5, -1.75]);
    go(Scale { x: at[0], out: at[0], count: 2, factor_bits: 4f32.to_bits() }, &mut dtcm);
    assert_eq!(floats(&dtcm, 0, 2), [6.0, -7.0]);

    let (mut dtcm, at) = lay_out(&[&[8.0, f64::NAN, f64::INFINITY, -1.0], &[0.0]]);
    go(CountNonFinite { x: at[0], count: 4, out: at[1] }, &mut dtcm);
    go(CountNonFinite { x: at[0], count: 2, out: at[1] }, &mut dtcm);
    assert_eq!(dtcm[4], 3);
    let (mut dtcm, at) = lay_out(&[&[8.0], &[4.0]]);
    go(Lerp { a: at[0], b: at[1], out: at[0], count: 1, momentum_bits: 0.75f32.to_bits() }, &mut dtcm);
    assert_eq!(floats(&dtcm, 0, 1), [7.0]);
}

#[test]
fn batch_normalisation_and_its_gradient() {
    let x = [0.5, -1.0, 2.0, 0.25, 1.5, 3.0, -0.75, 1.0];
    let (rows, cols) = (4usize, 2usize);
    let (gamma, beta, dy) = ([1.5, -0.5], [0.1, 0.2], [0.3, -0.2, 0.1, 0.4, -0.6, 0.5, 0.2, -0.1]);
    let epsilon = 1e-3;
    let column = |f: &dyn Fn(usize, usize) -> f64, c: usize| (0..rows).map(|r| f(r, c)).sum::<f64>();
    let mean: Vec<f64> = (0..cols).map(|c| column(&|r, c| x[r * cols + c], c) / 4.0).collect();
    let var: Vec<f64> = (0..cols).map(|c| column(&|r, c| (x[r * cols + c] - mean[c]).powi(2), c) / 4.0).collect();
    // The normalised output as a function of one input, for a numerical gradient.
    let objective = |x: &[f64]| {
        let mut total = 0.0;
        for c in 0..cols {
            let m = (0..rows).map(|r| x[r * cols + c]).sum::<f64>() / 4.0;
            let v = (0..rows).map(|r| (x[r * cols + c] - m).powi(2)).sum::<f64>() / 4.0;
            for r in 0..rows {
                total += dy[r * cols + c] * (gamma[c] * (x[r * cols + c] - m) / (v + epsilon).sqrt() + beta[c]);
            }
        }
        total
    };
    let zero = [0.0; 2];
    let (mut dtcm, at) = lay_out(&[&mean, &var, &gamma, &beta, &zero, &zero, &zero, &x, &dy, &zero, &zero, &x]);
    let call = NormCoefficients {
        mean: at[0],
        var: at[1],
        gamma: at[2],
        beta: at[3],
        scale: at[4],
        shift: at[5],
        inv: at[6],
        count: 2,
        epsilon_bits: (epsilon as f32).to_bits(),
    };
    go(call, &mut dtcm);
    for c in 0..cols {
        let inverse = 1.0 / (var[c] + epsilon).sqrt();
        assert_close("scale", &[floats(&dtcm, at[4], 2)[c]], &[gamma[c] * inverse], 1e-6, 0.0);
        assert_close("shift", &[floats(&dtcm, at[5], 2)[c]], &[beta[c] - mean[c] * gamma[c] * inverse], 1e-6, 1e-7);
    }
    let (r, c) = (rows as u32, cols as u32);
    go(Normalise { x: at[11], out: at[11], rows: r, cols: c, mean: at[0], inv: at[6] }, &mut dtcm);
    go(ColumnSum { op: 0, x: at[8], y: NONE, rows: r, cols: c, row_stride: c, sum: at[9] }, &mut dtcm);
    go(ColumnSum { op: 1, x: at[8], y: at[11], rows: r, cols: c, row_stride: c, sum: at[10] }, &mut dtcm);
    let grad = NormGrad {
        x: at[7],
        dy: at[8],
        dx: at[8],
        rows: r,
        cols: c,
        mean: at[0],
        inv: at[6],
        gamma: at[2],
        sum_dy: at[9],
        sum_dy_xhat: at[10],
        inv_n_bits: 0.25f32.to_bits(),
    };
    go(grad, &mut dtcm);
    let expected: Vec<f64> = (0..x.len())
        .map(|i| {
            let shifted = |d: f64| {
                let mut x = x.to_vec();
                x[i] += d;
                objective(&x)
            };
            (shifted(1e-5) - shifted(-1e-5)) / 2e-5
        })
        .collect();
    assert_close("norm gradient", &floats(&dtcm, at[8], 8), &expected, 1e-5, 1e-6);
}

#[test]
fn bias_and_strided_rows() {
    let (mut dtcm, at) = lay_out(&[&[1.0, -3.0, 9.0, 2.0, -0.5, 9.0], &[0.5, 1.0]]);
    let activation = Activation::Relu as u32;
    go(BiasAct { y: at[0], rows: 2, cols: 2, stride: 3, bias: at[1], activation, alpha_bits: 0 }, &mut dtcm);
    assert_eq!(floats(&dtcm, 0, 6), [1.5, 0.0, 9.0, 2.5, 0.5, 9.0]);
}

#[test]
fn bad_calls_are_refused() {
    let bad = BiasAct { y: 0, rows: 2, cols: 4, stride: 4, bias: NONE, activation: 99, alpha_bits: 0 };
    assert_eq!(bad.check(100), Err(BadCall::Value { field: "activation", value: 99 }));
    assert!(matches!(BiasAct { activation: 0, ..bad }.check(7), Err(BadCall::OutOfBounds { .. })));
    assert!(matches!(BiasAct { activation: 0, bias: 4, ..bad }.check(8), Err(BadCall::Overlap { .. })));
    let shifted = Map2 { op: 0, a: 0, b: 40, out: 4, count: 4 };
    assert!(matches!(shifted.check(100), Err(BadCall::Overlap { .. })));
    let step = OptimizerStep { kind: 3, w: 0, g: 16, m: NONE, v: 32, x: NONE, count: 4, scalars: 64, decay: 0 };
    assert!(step.check(100).is_err());
}

proptest::proptest! {
    /// Whatever a call says and the memory holds: refused, or run without a panic.
    #[test]
    fn no_accepted_call_panics(
        number in 8u32..29,
        parameters in proptest::collection::vec(proptest::prop_oneof![0u32..8, (0u32..30).prop_map(|x| 4 * x), proptest::num::u32::ANY, proptest::strategy::Just(NONE)], 20),
        seed in proptest::num::u32::ANY,
    ) {
        // Pooling is not from this folder.
        proptest::prop_assume!(number != 15 && number != 16);
        let length = (1..=20).find(|&n| KernelCall::decode(number, &parameters[..n]).is_ok()).unwrap();
        let call = KernelCall::decode(number, &parameters[..length]).unwrap();
        let mut dtcm: Vec<u32> = (0..128u32).map(|i| seed.wrapping_mul(i.wrapping_mul(2_654_435_761) | 1)).collect();
        if call.check(dtcm.len()).is_ok() {
            call.run(&mut dtcm);
        }
    }
}
