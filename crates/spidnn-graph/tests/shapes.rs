//! Shape inference, names, weights' order, and what wrong models are told.

use proptest::prelude::*;
use spidnn_graph::builder::*;
use spidnn_graph::{
    Activation, Axis, Graph, GraphBuilder, GraphError, Initializer, LayerKind, Padding, check_weights, initial_weights,
};

/// The output shape of a layer on an input.
fn shape_of(layer: impl IntoLayer, input: &[usize]) -> Result<Vec<usize>, GraphError> {
    let graph = Sequential::new(Input::shape(input)).with(layer).build()?;
    Ok(graph.node(graph.outputs[0]).shape.clone())
}

#[track_caller]
fn gives(layer: impl IntoLayer, input: &[usize], output: &[usize]) {
    assert_eq!(shape_of(layer, input).unwrap(), output);
}

/// The error must hold all these words.
#[track_caller]
fn fails(result: Result<impl std::fmt::Debug, GraphError>, words: &[&str]) {
    let text = result.unwrap_err().to_string();
    for word in words {
        assert!(text.contains(word), "`{word}` is not in: {text}");
    }
}

#[test]
fn output_shapes() {
    gives(Dense::new(7), &[4], &[7]);
    gives(Dense::new(7), &[2, 3, 4], &[2, 3, 7]);
    gives(Conv2D::new(6, 5).padding(Padding::Same), &[28, 28, 1], &[28, 28, 6]);
    gives(Conv2D::new(6, 5).strides((2, 3)), &[28, 28, 1], &[12, 8, 6]);
    gives(Conv2D::new(6, 3).dilation_rate(2), &[9, 9, 4], &[5, 5, 6]);
    gives(DepthwiseConv2D::new(3).depth_multiplier(3), &[5, 5, 4], &[3, 3, 12]);
    gives(Conv1D::new(2, 4).padding(Padding::Causal).strides(3), &[10, 3], &[4, 2]);
    gives(MaxPooling2D::new(2), &[7, 7, 3], &[3, 3, 3]);
    gives(MaxPooling2D::new(2).padding(Padding::Same), &[7, 7, 3], &[4, 4, 3]);
    gives(AveragePooling1D::new(4).strides(2), &[9, 3], &[3, 3]);
    gives(GlobalAveragePooling2D::new(), &[7, 7, 3], &[3]);
    gives(GlobalMaxPooling1D::new().keepdims(true), &[7, 3], &[1, 3]);
    gives(Flatten::new(), &[2, 3, 4], &[24]);
    gives(Flatten::new(), &[], &[1]);
    gives(Reshape::new([3, -1]), &[2, 3, 4], &[3, 8]);
    gives(ZeroPadding2D::with_sides([[1, 2], [3, 4]]), &[5, 5, 1], &[8, 12, 1]);
    gives(ZeroPadding1D::new(2), &[5, 1], &[9, 1]);
    gives(BatchNormalization::new(), &[5, 4], &[5, 4]);
}

#[test]
fn errors_name_layer_found_expected_and_remedy() {
    let small = Conv2D::new(4, 5).name("wide");
    fails(shape_of(small, &[3, 3, 1]), &["`wide`", "(None, 3, 3, 1)", "[5, 5]", "padding same"]);
    fails(
        shape_of(Conv2D::new(4, 5), &[28]),
        &["`conv2d`", "(None, 28)", "(None, height, width, channels)", "Reshape"],
    );
    fails(shape_of(Conv2D::new(4, 3).groups(3), &[9, 9, 4]), &["groups", "multiples"]);
    fails(shape_of(Conv2D::new(4, 0), &[9, 9, 4]), &["at least 1"]);
    fails(shape_of(Conv2D::new(0, 3), &[9, 9, 4]), &["filters 0"]);
    fails(shape_of(Conv2D::new(4, 3).padding(Padding::Causal), &[9, 9, 4]), &["causal", "Conv1D"]);
    fails(shape_of(MaxPooling2D::new(4), &[3, 3, 1]), &["max_pooling2d", "window"]);
    fails(shape_of(MaxPooling1D::new(1 << 40).padding(Padding::Same), &[3, 1]), &["pool_size", "65536"]);
    fails(shape_of(Dense::new(0), &[3]), &["units 0"]);
    fails(shape_of(Reshape::new([5, -1]), &[3, 4]), &["[5, -1]", "12 elements"]);
    fails(shape_of(Reshape::new([-1, -1]), &[3, 4]), &["at most one"]);
    fails(shape_of(Dropout::new(1.0), &[3]), &["rate 1"]);
    fails(shape_of(Dense::new(usize::MAX), &[3]), &["at most"]);
    fails(shape_of(ZeroPadding1D::new(usize::MAX / 2), &[3, 1]), &["at most"]);
    fails(shape_of(Input::shape([3]), &[3]), &["1 inputs to InputLayer", "none"]);

    let mut net = Functional::new("two");
    let a = net.input(Input::shape([4])).unwrap();
    let b = net.input(Input::shape([5])).unwrap();
    fails(net.call(Add::new(), &[a, b]), &["`add`", "(None, 4) and (None, 5)", "equal shapes"]);
    fails(net.call(Concatenate::along(0), &[a, b]), &["axis 0"]);
    fails(net.call(Concatenate::along(2), &[a, b]), &["axis 2"]);
    fails(net.call(Dense::new(1), &[a, b]), &["2 inputs to Dense", "expected one"]);
    fails(net.call(Dense::new(1).name("add"), &[a]), &["`add`", "already a layer"]);
    let shared = net.add(Dense::new(2).name("shared")).unwrap();
    let x = net.apply(shared, &[a]).unwrap();
    fails(net.apply(shared, &[b]), &["`shared`", "[5, 2]", "[4, 2]"]);
    fails(net.clone().build([b], [x]), &["`input_layer`", "not listed"]);
    fails(net.clone().build([a, a], [x]), &["twice"]);
    fails(net.clone().build([x], [x]), &["`shared`", "Input layer"]);
    fails(net.build([], [x]), &["0 inputs"]);
}

#[test]
fn names_and_weight_order_are_keras_own() {
    let graph = lenet5();
    let names: Vec<&str> = graph.layers.iter().map(|layer| layer.name.as_str()).collect();
    assert_eq!(
        names,
        [
            "input_layer",
            "conv2d",
            "average_pooling2d",
            "conv2d_1",
            "average_pooling2d_1",
            "flatten",
            "dense",
            "dense_1",
            "dense_2"
        ]
    );
    assert_eq!(graph.parameter_count(), 61_706);
    assert_eq!(graph.total_macs(), 117_600 + 240_000 + 48_000 + 10_080 + 840);
    assert_eq!(graph.param_path(spidnn_graph::ParamId(3)), "conv2d_1/bias");
    let summary = graph.summary();
    for words in ["conv2d_1 (Conv2D)", "(None, 10, 10, 16)", "48,120", "Total params: 61,706 (241.04 KB)"] {
        assert!(summary.contains(words), "{words} is not in\n{summary}");
    }
    assert!(!summary.contains("InputLayer"));
}

fn lenet5() -> Graph {
    let tanh = Activation::Tanh;
    Sequential::new(Input::shape([28, 28, 1]))
        .with(Conv2D::new(6, 5).padding(Padding::Same).activation(tanh))
        .with(AveragePooling2D::new(2))
        .with(Conv2D::new(16, 5).activation(tanh))
        .with(AveragePooling2D::new(2))
        .with(Flatten::new())
        .with(Dense::new(120).activation(tanh))
        .with(Dense::new(84).activation(tanh))
        .with(Dense::new(10).activation(Activation::Softmax))
        .build()
        .unwrap()
}

/// Given names are not taken by automatic ones, wherever they stand.
#[test]
fn automatic_names_keep_out_of_the_way() {
    let graph =
        Sequential::new(Input::shape([3])).with(Dense::new(3)).with(Dense::new(3).name("dense")).build().unwrap();
    assert_eq!(graph.layers[1].name, "dense_1");
    assert_eq!(graph.layers[2].name, "dense");
}

#[test]
fn what_no_output_needs_is_left_out() {
    let mut builder = GraphBuilder::new("pruned");
    let input = builder.add_layer("in", LayerKind::Input { shape: vec![4] }).unwrap();
    let x = builder.call(input, &[]).unwrap();
    let [unused, used] = ["unused", "used"].map(|name| {
        let layer = Dense::new(2).into_layer().kind;
        let layer = builder.add_layer(name, layer).unwrap();
        builder.call(layer, &[x]).unwrap()
    });
    assert!(unused < used);
    let graph = builder.build(vec![x], vec![used]).unwrap();
    assert!(graph.layer_named("unused").is_none());
    assert_eq!(graph.params.len(), 2);
    assert_eq!(graph.layer(graph.param(spidnn_graph::ParamId(0)).layer).name, "used");
}

#[test]
fn frozen_layers_have_no_trainable_parameters() {
    let graph = Sequential::new(Input::shape([4]))
        .with(Dense::new(3).trainable(false))
        .with(BatchNormalization::new())
        .build()
        .unwrap();
    assert_eq!((graph.parameter_count(), graph.trainable_parameter_count()), (15 + 12, 6));
}

#[test]
fn padding_puts_the_odd_cell_at_the_end() {
    let axis = Axis::new(5, 4, 2, 1, Padding::Same).unwrap();
    assert_eq!((axis.output, axis.pad_before, axis.pad_after), (3, 1, 2));
    let axis = Axis::new(5, 3, 1, 2, Padding::Causal).unwrap();
    assert_eq!((axis.output, axis.pad_before, axis.pad_after), (5, 4, 0));
    assert_eq!(axis.source(0, 0), None);
    assert_eq!(axis.source(4, 0), Some(0));
    assert!(Axis::new(3, 4, 1, 1, Padding::Valid).is_none());
}

proptest! {
    /// Every window begins and ends inside the padded input, the last one can be no further, and `same` pads no more than it needs.
    #[test]
    fn windows_lie_inside(input in 1_usize..40, kernel in 1_usize..9, stride in 1_usize..5, dilation in 1_usize..4, rule in 0_usize..3) {
        let padding = [Padding::Valid, Padding::Same, Padding::Causal][rule];
        let reach = (kernel - 1) * dilation + 1;
        match Axis::new(input, kernel, stride, dilation, padding) {
            None => prop_assert!(padding == Padding::Valid && reach > input),
            Some(axis) => {
                let padded = input + axis.pad_before + axis.pad_after;
                let last = (axis.output - 1) * stride + reach;
                prop_assert!(last <= padded);
                if padding == Padding::Same {
                    prop_assert_eq!(axis.output, input.div_ceil(stride));
                    prop_assert!(axis.pad_after == axis.pad_before || axis.pad_after == axis.pad_before + 1);
                } else {
                    prop_assert!(last + stride > padded);
                }
            }
        }
    }
}

#[test]
fn initial_weights_have_keras_distributions() {
    let spread = |initializer: Initializer, shape: &[usize]| {
        let values = spidnn_graph::weights::initial_tensor(&initializer, shape, 3, 0);
        let count = values.len() as f64;
        let mean = values.iter().map(|value| f64::from(*value)).sum::<f64>() / count;
        let variance = values.iter().map(|value| (f64::from(*value) - mean).powi(2)).sum::<f64>() / count;
        let largest = values.iter().fold(0.0_f32, |max, value| max.max(value.abs()));
        (mean, variance, f64::from(largest))
    };
    // Conv2D kernel: fan in 3 * 3 * 20 = 180, fan out 3 * 3 * 60 = 540.
    let shape = [3, 3, 20, 60];
    let seed = None;
    for (initializer, variance, limit) in [
        (Initializer::GlorotUniform { seed }, 1.0_f64 / 360.0, (3.0_f64 / 360.0).sqrt()),
        (Initializer::HeUniform { seed }, 2.0 / 180.0, (6.0_f64 / 180.0).sqrt()),
        (Initializer::LecunUniform { seed }, 1.0 / 180.0, (3.0_f64 / 180.0).sqrt()),
        (Initializer::GlorotNormal { seed }, 1.0 / 360.0, 2.0 * (1.0_f64 / 360.0).sqrt() / 0.8796),
        (Initializer::HeNormal { seed }, 2.0 / 180.0, 2.0 * (2.0_f64 / 180.0).sqrt() / 0.8796),
        (Initializer::LecunNormal { seed }, 1.0 / 180.0, 2.0 * (1.0_f64 / 180.0).sqrt() / 0.8796),
        (Initializer::TruncatedNormal { mean: 0.0, stddev: 0.1, seed }, 0.01 * 0.7737, 0.2),
        (Initializer::RandomUniform { min: -0.1, max: 0.1, seed }, 0.04 / 12.0, 0.1),
        (Initializer::RandomNormal { mean: 0.0, stddev: 0.1, seed }, 0.01, 0.6),
    ] {
        let (mean, found, largest) = spread(initializer, &shape);
        assert!(mean.abs() < 4.0 * (variance / 10_800.0).sqrt(), "{initializer:?}: mean {mean}");
        assert!((found / variance - 1.0).abs() < 0.06, "{initializer:?}: variance {found}, wanted {variance}");
        assert!(largest <= limit * 1.000_01, "{initializer:?}: {largest} beyond {limit}");
    }
}

#[test]
fn initial_weights_depend_on_the_seed_alone() {
    let graph = lenet5();
    let weights = initial_weights(&graph, 1);
    assert_eq!(weights, initial_weights(&graph, 1));
    assert_ne!(weights, initial_weights(&graph, 2));
    // Bits that every platform must give.
    let first: Vec<f32> = weights[0].iter().take(3).copied().collect();
    assert_eq!(first, FIRST_WEIGHTS);
    check_weights(&graph, &weights).unwrap();

    let mut wrong = weights.clone();
    wrong.swap(6, 8);
    fails(check_weights(&graph, &wrong), &["`dense_1/kernel`", "[84, 10]", "[120, 84]"]);
    let mut wrong = weights.clone();
    wrong[9][[3]] = f32::NAN;
    fails(check_weights(&graph, &wrong), &["`dense_2/bias`", "element 3"]);
    fails(check_weights(&graph, &weights[..9]), &["9 weight tensors", "10"]);
}

const FIRST_WEIGHTS: [f32; 3] = [0.018_286_139, -0.036_112_312, 0.179_459_88];
