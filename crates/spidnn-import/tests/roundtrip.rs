//! What is written is read again, in every format; and Keras' order of channels after Flatten.

use std::path::{Path, PathBuf};

use ndarray::{ArrayD, IxDyn};
use proptest::prelude::*;
use spidnn_graph::training::{Clip, LearningRate, Loss, Optimizer, Rule};
use spidnn_graph::{Activation, GraphBuilder, LayerKind, Padding, Tensor, initial_weights, layer, reference};
use spidnn_import::{
    ImportError, LoadOptions, Model, OptimizerState, Slot, TrainingConfig, architecture_json, load_architecture,
    load_model, load_model_with, load_weights, npz, save_architecture, save_model, save_weights, slots,
};

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/keras")
}

/// The same layers, parameters and calls. Calls may stand in another order that serves as well; what is written of them
/// does not depend on it.
fn assert_same(a: &spidnn_graph::Graph, b: &spidnn_graph::Graph, what: &str) {
    assert_eq!(a.layers, b.layers, "{what}");
    assert_eq!(a.params, b.params, "{what}");
    assert_eq!(architecture_json(a).unwrap(), architecture_json(b).unwrap(), "{what}");
}

/// Everything that can be written, read again.
fn check(folder: &Path, name: &str, model: &Model) {
    let at = |ending: &str| folder.join(format!("{name}{ending}"));
    for ending in [".keras", ".h5", ".hdf5"] {
        save_model(at(ending), model).unwrap();
        let again = load_model_with(at(ending), &LoadOptions { inference_only: true, weights_follow: true })
            .unwrap_or_else(|error| panic!("{name}{ending}: {error}"));
        assert_same(&again.graph, &model.graph, &format!("{name}{ending}"));
        assert_eq!(again.weights, model.weights, "{name}{ending}");
        let training = |model: &Model| model.training.clone().filter(|training| training.optimizer.is_some());
        assert_eq!(training(&again), training(model), "{name}{ending}");
    }
    save_architecture(at(".json"), &model.graph).unwrap();
    assert_same(&load_architecture(at(".json")).unwrap(), &model.graph, name);
    for ending in [".weights.h5", ".legacy.h5", ".npz", ".weights.json"] {
        save_weights(at(ending), &model.graph, &model.weights).unwrap();
        assert_eq!(load_weights(&model.graph, at(ending)).unwrap(), model.weights, "{name}{ending}");
    }
    for ending in [".keras", ".h5"] {
        assert_eq!(load_weights(&model.graph, at(ending)).unwrap(), model.weights, "{name}{ending} as weights");
    }
}

#[test]
fn golden_networks_survive_every_format() {
    let folder = tempfile::tempdir().unwrap();
    let any = LoadOptions { inference_only: true, weights_follow: true };
    let mut seen = 0;
    for entry in std::fs::read_dir(golden()).unwrap() {
        let case = entry.unwrap().path();
        if let Ok(mut model) = load_model_with(case.join("model.keras"), &any) {
            model.training = None;
            check(folder.path(), &case.file_name().unwrap().to_string_lossy(), &model);
            seen += 1;
        }
    }
    assert!(seen >= 85);
    let left: Vec<_> = std::fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .filter(|name| name.starts_with('.'))
        .collect();
    assert!(left.is_empty(), "temporary files left: {left:?}");
}

/// One model with every kind of layer and every activation that can be written.
fn everything() -> spidnn_graph::Graph {
    let mut builder = GraphBuilder::new("everything");
    let mut names = 0;
    let mut chain = |builder: &mut GraphBuilder, kind: LayerKind, inputs: &[spidnn_graph::NodeId]| {
        names += 1;
        let layer = builder.add_layer(&format!("layer_{names}"), kind).unwrap();
        builder.call(layer, inputs).unwrap()
    };
    let conv = |rank, depthwise, filters, groups, padding, activation| {
        LayerKind::Conv(layer::Conv {
            rank,
            filters,
            kernel_size: [if rank == 1 { 1 } else { 3 }, 2],
            strides: [1, 1],
            dilation_rate: [1, 1],
            padding,
            groups,
            depthwise,
            activation,
            use_bias: true,
            kernel_initializer: spidnn_graph::Initializer::HeNormal { seed: Some(4) },
            bias_initializer: spidnn_graph::Initializer::Constant(0.25),
        })
    };
    let pool = |rank, mode| {
        LayerKind::Pool(layer::Pool {
            rank,
            mode,
            pool_size: [if rank == 1 { 1 } else { 2 }, 2],
            strides: [1, 1],
            padding: Padding::Same,
        })
    };
    let image = chain(&mut builder, LayerKind::Input { shape: vec![6, 5, 2] }, &[]);
    let mut x = chain(&mut builder, conv(2, false, 4, 2, Padding::Same, Activation::Elu { alpha: 0.5 }), &[image]);
    x = chain(&mut builder, conv(2, true, 2, 0, Padding::Valid, Activation::LeakyRelu { negative_slope: 0.3 }), &[x]);
    x = chain(&mut builder, LayerKind::ZeroPadding { rank: 2, padding: [[1, 0], [2, 3]] }, &[x]);
    x = chain(&mut builder, pool(2, layer::PoolMode::Max), &[x]);
    x = chain(&mut builder, pool(2, layer::PoolMode::Average), &[x]);
    x = chain(
        &mut builder,
        LayerKind::BatchNormalization(layer::BatchNormalization {
            momentum: 0.9,
            epsilon: 0.002,
            center: true,
            scale: false,
        }),
        &[x],
    );
    let global =
        chain(&mut builder, LayerKind::GlobalPool { rank: 2, mode: layer::PoolMode::Max, keepdims: true }, &[x]);
    x = chain(&mut builder, LayerKind::Multiply, &[x, global]);
    x = chain(&mut builder, LayerKind::Reshape { target_shape: vec![-1, 4] }, &[x]);
    x = chain(&mut builder, conv(1, false, 6, 1, Padding::Causal, Activation::ClippedRelu { max_value: 2.5 }), &[x]);
    x = chain(&mut builder, conv(1, true, 1, 0, Padding::Same, Activation::ClippedRelu { max_value: 6.0 }), &[x]);
    x = chain(&mut builder, LayerKind::ZeroPadding { rank: 1, padding: [[0, 0], [1, 2]] }, &[x]);
    x = chain(&mut builder, pool(1, layer::PoolMode::Average), &[x]);
    let mean =
        chain(&mut builder, LayerKind::GlobalPool { rank: 1, mode: layer::PoolMode::Average, keepdims: false }, &[x]);
    x = chain(&mut builder, LayerKind::Flatten, &[x]);
    x = chain(&mut builder, LayerKind::Dropout { rate: 0.25, seed: Some(9) }, &[x]);
    for activation in [
        Activation::Linear,
        Activation::Relu,
        Activation::ClippedRelu { max_value: 6.0 },
        Activation::ClippedRelu { max_value: 1.25 },
        Activation::LeakyRelu { negative_slope: 0.2 },
        Activation::LeakyRelu { negative_slope: 0.05 },
        Activation::Elu { alpha: 1.0 },
        Activation::Elu { alpha: 0.7 },
        Activation::Selu,
        Activation::Sigmoid,
        Activation::HardSigmoid,
        Activation::Tanh,
        Activation::Softplus,
        Activation::Softsign,
        Activation::Silu,
        Activation::Gelu { approximate: false },
        Activation::Exponential,
        Activation::Softmax,
    ] {
        x = chain(&mut builder, LayerKind::Activation(activation), &[x]);
    }
    let dense = |units, activation| {
        LayerKind::Dense(layer::Dense {
            units,
            activation,
            use_bias: false,
            kernel_initializer: spidnn_graph::Initializer::RandomUniform { min: -0.1, max: 0.2, seed: None },
            bias_initializer: spidnn_graph::Initializer::Zeros,
        })
    };
    x = chain(&mut builder, dense(6, Activation::Elu { alpha: 0.1 }), &[x]);
    let sum = chain(&mut builder, LayerKind::Add, &[x, mean]);
    let shared = builder.add_layer("shared", dense(6, Activation::Tanh)).unwrap();
    builder.set_trainable(shared, false);
    let once = builder.call(shared, &[sum]).unwrap();
    let twice = builder.call(shared, &[once]).unwrap();
    let out = chain(&mut builder, LayerKind::Concatenate { axis: 1 }, &[once, twice]);
    let graph = builder.build(vec![image], vec![out, sum]).unwrap();
    let order = graph.keras_layer_order();
    graph.with_layer_order(&order)
}

#[test]
fn every_kind_of_layer_survives_every_format() {
    let folder = tempfile::tempdir().unwrap();
    let graph = everything();
    let weights = initial_weights(&graph, 3);
    check(folder.path(), "everything", &Model { graph, weights, training: None });
}

#[test]
fn optimizer_state_survives() {
    let folder = tempfile::tempdir().unwrap();
    let graph = everything();
    let weights = initial_weights(&graph, 3);
    for (index, (rule, rate)) in [
        (Rule::Sgd { momentum: 0.0, nesterov: false }, LearningRate::Constant(0.1)),
        (Rule::Sgd { momentum: 0.9, nesterov: true }, LearningRate::Constant(0.1)),
        (
            Rule::RmsProp { rho: 0.9, momentum: 0.1, epsilon: 1e-7, centered: true },
            LearningRate::CosineDecay {
                initial: 0.1,
                decay_steps: 10.0,
                alpha: 0.0,
                warmup_target: None,
                warmup_steps: 0.0,
            },
        ),
        (Rule::Adam { beta_1: 0.9, beta_2: 0.999, epsilon: 1e-7 }, LearningRate::Constant(0.001)),
    ]
    .into_iter()
    .enumerate()
    {
        let slots = slots(&graph, &rule)
            .into_iter()
            .enumerate()
            .map(|(number, (param, role))| Slot {
                param,
                role,
                value: Tensor::from_elem(IxDyn(&graph.params[param.0].shape), number as f32 + 0.5),
            })
            .collect();
        let constant = matches!(rate, LearningRate::Constant(_));
        let state = OptimizerState { iterations: 1234, learning_rate: constant.then_some(0.03), slots };
        let tensors = state.by_parameter(&graph, &rule);
        assert_eq!(tensors.iter().map(Vec::len).sum::<usize>(), state.slots.len());
        assert_eq!(OptimizerState::from_parameters(&graph, &rule, 1234, state.learning_rate, &tensors), state);
        let training = TrainingConfig {
            loss: Some(Loss::BinaryCrossentropy { from_logits: true, label_smoothing: 0.25 }),
            optimizer: Some(Optimizer { rule, learning_rate: rate, clip: Clip::Norm(2.0), weight_decay: None }),
            metrics: vec!["accuracy".into()],
            state: Some(state),
            problems: Vec::new(),
        };
        let model = Model { graph: graph.clone(), weights: weights.clone(), training: Some(training) };
        check(folder.path(), &format!("state_{index}"), &model);
    }
}

/// A picture of 2 x 3 with 2 channels through a convolution that keeps it, Flatten, and Dense with the powers of two as
/// weights: the output for a single 1 in the picture is the power of its place in Keras' order: row, column, channel.
#[test]
fn flatten_is_row_column_channel() {
    let folder = tempfile::tempdir().unwrap();
    let architecture = r#"{"class_name": "Sequential", "config": {"name": "order", "layers": [
        {"class_name": "InputLayer", "config": {"batch_shape": [null, 2, 3, 2], "name": "image"}},
        {"class_name": "Conv2D", "config": {"name": "keep", "filters": 2, "kernel_size": [1, 1], "use_bias": false}},
        {"class_name": "Flatten", "config": {"name": "flatten"}},
        {"class_name": "Dense", "config": {"name": "powers", "units": 1, "use_bias": false}}]}}"#;
    let graph = spidnn_import::parse_architecture(architecture).unwrap();
    let keep = ArrayD::from_shape_vec(IxDyn(&[1, 1, 2, 2]), vec![1.0, 0.0, 0.0, 1.0]).unwrap();
    let powers = ArrayD::from_shape_fn(IxDyn(&[12, 1]), |index| (1u32 << index[0]) as f32);
    let model = Model { graph, weights: vec![keep, powers], training: None };
    let mut through = vec![model.clone()];
    for name in ["order.keras", "order.h5"] {
        save_model(folder.path().join(name), &model).unwrap();
        through.push(load_model(folder.path().join(name)).unwrap());
    }
    for name in ["order.weights.h5", "order.npz", "order.weights.json"] {
        let path = folder.path().join(name);
        save_weights(&path, &model.graph, &model.weights).unwrap();
        through.push(Model { weights: load_weights(&model.graph, &path).unwrap(), ..model.clone() });
    }
    for model in through {
        for (row, column, channel) in (0..12).map(|cell| (cell / 6, cell / 2 % 3, cell % 2)) {
            let mut picture = Tensor::zeros(IxDyn(&[1, 2, 3, 2]));
            picture[[0, row, column, channel]] = 1.0;
            let output = reference::predict(&model.graph, &model.weights, &[picture], 1).unwrap();
            let place = (row * 3 + column) * 2 + channel;
            assert_eq!(output[0].as_slice().unwrap(), [(1u32 << place) as f32], "({row}, {column}, {channel})");
        }
    }
}

/// The same with numbers from Keras: a convolution, pooling and Flatten before Dense, in all formats there are.
#[test]
fn flatten_agrees_with_keras() {
    let io = npz::read(golden().join("lenet1/io.npz")).unwrap();
    let (x, y) = (io["x"].to_f32(), io["y"].to_f32());
    for file in ["model.keras", "model.h5", "model_keras2.h5", "model_keras2.keras", "model_keras305.keras"] {
        let model = load_model(golden().join("lenet1").join(file)).unwrap();
        let output = reference::predict(&model.graph, &model.weights, std::slice::from_ref(&x), 32).unwrap();
        let worst = output[0].iter().zip(&y).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(worst <= 2e-6, "{file}: {worst}");
    }
}

#[test]
fn written_files_are_the_same_each_time() {
    let graph = everything();
    let weights = initial_weights(&graph, 3);
    let model = Model { graph, weights, training: None };
    for format in [spidnn_import::Format::Keras, spidnn_import::Format::Hdf5] {
        let bytes = spidnn_import::model_bytes(format, &model).unwrap();
        assert_eq!(bytes, spidnn_import::model_bytes(format, &model).unwrap());
    }
}

#[test]
fn what_cannot_be_written_is_refused_and_the_old_file_stays() {
    let folder = tempfile::tempdir().unwrap();
    let graph = everything();
    let mut weights = initial_weights(&graph, 3);
    let path = folder.path().join("model.keras");
    std::fs::write(&path, "old").unwrap();
    weights[0].as_slice_mut().unwrap()[1] = f32::NAN;
    let model = Model { graph, weights, training: None };
    for name in ["model.keras", "model.h5", "model.npz", "model.weights.h5"] {
        let error = save_model(folder.path().join(name), &model).unwrap_err();
        assert!(error.problems().iter().any(|problem| problem.what.contains("NaN")), "{error}");
    }
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "old");
    assert!(matches!(save_model(folder.path().join("model.json"), &model), Err(ImportError::Extension { .. })));
    let missing = folder.path().join("no/such/folder/model.npz");
    let graph = everything();
    let weights = initial_weights(&graph, 3);
    assert!(matches!(save_weights(&missing, &graph, &weights), Err(ImportError::Io { .. })));
    assert!(matches!(load_model(&missing), Err(ImportError::Io { .. })));
    std::fs::write(folder.path().join("only.json"), "{}").unwrap();
    assert!(matches!(load_model(folder.path().join("only.json")), Err(ImportError::WeightsNeeded(_))));
}

#[test]
fn npz_reads_what_numpy_writes() {
    // np.save of np.asfortranarray(np.arange(6, dtype=">i2").reshape(2, 3)).
    let mut bytes = b"\x93NUMPY\x01\x00\x46\x00".to_vec();
    let mut header = b"{'descr': '>i2', 'fortran_order': True, 'shape': (2, 3), }".to_vec();
    header.resize(0x45, b' ');
    header.push(b'\n');
    bytes.extend(header);
    for value in [0i16, 3, 1, 4, 2, 5] {
        bytes.extend(value.to_be_bytes());
    }
    let array = &npz::read_bytes(bytes).unwrap()["arr_0"];
    assert_eq!(array.dtype(), "int16");
    assert_eq!(array.shape(), [2, 3]);
    assert_eq!(array.to_i64().unwrap().as_slice().unwrap(), [0, 1, 2, 3, 4, 5]);
    assert_eq!(array.to_f32().as_slice().unwrap(), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
    let folder = tempfile::tempdir().unwrap();
    let scalar = Tensor::from_elem(IxDyn(&[]), 2.5);
    npz::write(folder.path().join("a.npy"), &[("a", &scalar)]).unwrap();
    assert_eq!(npz::read(folder.path().join("a.npy")).unwrap()["arr_0"].to_f32(), scalar);
    let error = npz::Array::F32(Tensor::from_elem(IxDyn(&[1]), 0.5)).to_i64().unwrap_err();
    assert!(error.to_string().contains("0.5"));
}

proptest! {
    /// Every finite float32 comes back from JSON and from npz with its bits.
    #[test]
    fn floats_come_back(bits in proptest::collection::vec(any::<u32>(), 8)) {
        let values: Vec<f32> =
            bits.iter().map(|bits| f32::from_bits(*bits)).map(|value| if value.is_finite() { value } else { 1.0 }).collect();
        let json = r#"{"class_name": "Sequential", "config": {"name": "m", "layers": [
            {"class_name": "InputLayer", "config": {"batch_shape": [null, 2], "name": "i"}},
            {"class_name": "Dense", "config": {"name": "d", "units": 4, "use_bias": false}}]}}"#;
        let graph = spidnn_import::parse_architecture(json).unwrap();
        let weights = vec![ArrayD::from_shape_vec(IxDyn(&[2, 4]), values).unwrap()];
        let folder = tempfile::tempdir().unwrap();
        for name in ["w.json", "w.npz"] {
            let path = folder.path().join(name);
            save_weights(&path, &graph, &weights).unwrap();
            let again = load_weights(&graph, &path).unwrap();
            let bits = |tensor: &Tensor| tensor.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
            prop_assert_eq!(bits(&again[0]), bits(&weights[0]));
        }
    }
}
