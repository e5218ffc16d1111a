//! Training beyond the golden runs: class weights, shared normalisation, dropout, frozen layers, and what wrong data are told.

use spidnn_graph::builder::*;
use spidnn_graph::reference::{
    Cotangent, DropoutElement, FitData, Mode, Trainer, backward, forward, predict, seeded_masks,
};
use spidnn_graph::training::{Loss, Optimizer};
use spidnn_graph::{Activation, Graph, NodeId, Tensor, initial_weights};

fn tensor(shape: &[usize], values: &[f32]) -> Tensor {
    Tensor::from_shape_vec(shape.to_vec(), values.to_vec()).unwrap()
}

fn classifier() -> Graph {
    Sequential::new(Input::shape([2])).with(Dense::new(3).activation(Activation::Softmax)).build().unwrap()
}

fn sample_data() -> (Tensor, Tensor) {
    (tensor(&[4, 2], &[0.1, 0.2, -0.3, 0.4, 0.5, -0.6, 0.7, 0.8]), tensor(&[4], &[0.0, 1.0, 2.0, 1.0]))
}

fn fit(graph: &Graph, y: &Tensor, loss: Loss, samples: Option<&[f32]>, classes: Option<&[f32]>) -> Vec<Tensor> {
    let (x, _) = sample_data();
    let mut trainer = Trainer::new(graph, vec![loss], Optimizer::adam(0.01), initial_weights(graph, 1), 0).unwrap();
    let data = FitData {
        inputs: std::slice::from_ref(&x),
        targets: std::slice::from_ref(y),
        sample_weight: samples,
        class_weight: classes,
    };
    trainer.fit(data, 3, 2).unwrap();
    trainer.weights
}

#[test]
fn class_weights_are_sample_weights_by_label() {
    let graph = classifier();
    let (_, y) = sample_data();
    let sparse = Loss::SparseCategoricalCrossentropy { from_logits: false };
    let by_class = fit(&graph, &y, sparse, Some(&[1.0, 0.5, 1.0, 2.0]), Some(&[3.0, 0.5]));
    // Class 2 is not listed: 1.
    assert_eq!(by_class, fit(&graph, &y, sparse, Some(&[3.0, 0.25, 1.0, 1.0]), None));
    assert_ne!(by_class, fit(&graph, &y, sparse, None, None));
    let one_hot = tensor(&[4, 3], &[1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 1.0, 0.0]);
    let categorical = Loss::CategoricalCrossentropy { from_logits: false, label_smoothing: 0.0 };
    let by_one_hot = fit(&graph, &one_hot, categorical, Some(&[1.0, 0.5, 1.0, 2.0]), Some(&[3.0, 0.5]));
    assert_eq!(by_class, by_one_hot);
}

#[test]
fn dropout_keeps_its_share_and_scales() {
    let graph = Sequential::new(Input::shape([5000])).with(Dropout::new(0.3)).build().unwrap();
    let x = Tensor::ones(vec![2, 5000]);
    let keep = seeded_masks(5, 0);
    let next = seeded_masks(5, 1);
    let run = |mode: Mode<'_>| forward(&graph, &[], std::slice::from_ref(&x), mode).unwrap().outputs(&graph).remove(0);
    let y = run(Mode::Training { keep: &keep });
    let kept = y.iter().filter(|value| **value != 0.0).count();
    assert!((6800..7200).contains(&kept), "{kept} of 10000");
    assert!(y.iter().all(|value| *value == 0.0 || (value - 1.0 / 0.7).abs() < 1e-6));
    assert_eq!(y, run(Mode::Training { keep: &keep }));
    assert_ne!(y, run(Mode::Training { keep: &next }));
    assert_eq!(run(Mode::Inference), x);
    // A mask of one's own.
    let first_only = |element: DropoutElement| element.sample == 0;
    let y = run(Mode::Training { keep: &first_only });
    assert!(y.iter().take(5000).all(|value| *value > 1.0) && y.iter().skip(5000).all(|value| *value == 0.0));
}

#[test]
fn frozen_normalisation_stays_in_inference_mode() {
    let build = |trainable| {
        let norm = BatchNormalization::new().trainable(trainable);
        Sequential::new(Input::shape([2])).with(norm).with(Dense::new(1)).build().unwrap()
    };
    let (x, _) = sample_data();
    let keep = |_: DropoutElement| true;
    for (trainable, moves) in [(true, true), (false, false)] {
        let graph = build(trainable);
        let weights = initial_weights(&graph, 0);
        let pass = forward(&graph, &weights, std::slice::from_ref(&x), Mode::Training { keep: &keep }).unwrap();
        assert_eq!(!pass.moving.is_empty(), moves);
        let plain = predict(&graph, &weights, std::slice::from_ref(&x), 4).unwrap();
        assert_eq!(pass.outputs(&graph)[0] != plain[0], moves);
    }
}

/// A shared BatchNormalization updates its moving statistics once for each call.
#[test]
fn shared_normalisation_moves_twice() {
    let mut net = Functional::new("twice");
    let a = net.input(Input::shape([1])).unwrap();
    let norm = net.add(BatchNormalization::new().momentum(0.5)).unwrap();
    let x = net.apply(norm, &[a]).unwrap();
    let y = net.apply(norm, &[x]).unwrap();
    let graph = net.build([a], [y]).unwrap();
    let weights = initial_weights(&graph, 0);
    let keep = |_: DropoutElement| true;
    let x = tensor(&[2, 1], &[2.0, 6.0]);
    let pass = forward(&graph, &weights, &[x], Mode::Training { keep: &keep }).unwrap();
    // First call: mean 4, so 0 -> 2; second call: mean 0, so 2 -> 1.
    let mean = pass.moving.iter().find(|(id, _)| graph.param(*id).name == "moving_mean").unwrap();
    assert!((mean.1[[0]] - 1.0).abs() < 1e-6, "{}", mean.1);
    assert_eq!(pass.moving.len(), 2);
}

/// As Keras on TensorFlow: a pooling window's gradient goes to the first of equal maxima, a global maximum's is shared.
#[test]
fn ties_of_maxima() {
    let gradient = |layer: LayerSpec| {
        let graph = Sequential::new(Input::shape([4, 1])).with(layer).build().unwrap();
        let x = tensor(&[1, 4, 1], &[1.0, 3.0, 3.0, 3.0]);
        let pass = forward(&graph, &[], &[x], Mode::Inference).unwrap();
        let ones = Tensor::ones(pass.outputs(&graph)[0].shape());
        let gradients = backward(&graph, &[], &pass, &[Cotangent::Output(ones)]).unwrap();
        gradients.inputs[0].iter().copied().collect::<Vec<f32>>()
    };
    assert_eq!(gradient(MaxPooling1D::new(4).into_layer()), [0.0, 1.0, 0.0, 0.0]);
    assert_eq!(gradient(MaxPooling1D::new(2).into_layer()), [0.0, 1.0, 1.0, 0.0]);
    let third = 1.0 / 3.0;
    assert_eq!(gradient(GlobalMaxPooling1D::new().into_layer()), [0.0, third, third, third]);
}

#[test]
fn batches_do_not_change_predictions() {
    let graph = classifier();
    let weights = initial_weights(&graph, 3);
    let (x, _) = sample_data();
    let whole = predict(&graph, &weights, std::slice::from_ref(&x), 100).unwrap();
    assert_eq!(whole, predict(&graph, &weights, &[x], 3).unwrap());
}

#[test]
fn wrong_data_are_refused_with_a_remedy() {
    let graph = classifier();
    let weights = initial_weights(&graph, 0);
    let (x, y) = sample_data();
    let sparse = Loss::SparseCategoricalCrossentropy { from_logits: false };
    let mut trainer = Trainer::new(&graph, vec![sparse], Optimizer::sgd(0.1), weights.clone(), 0).unwrap();
    let mut fails = |x: &Tensor, y: &Tensor, words: &[&str]| {
        let before = trainer.weights.clone();
        let text = trainer.train_batch(std::slice::from_ref(x), std::slice::from_ref(y), None).unwrap_err().to_string();
        for word in words {
            assert!(text.contains(word), "`{word}` is not in: {text}");
        }
        assert_eq!(before, trainer.weights);
    };
    fails(&tensor(&[4, 3], &[0.0; 12]), &y, &["`input_layer`", "[4, 3]", "(None, 2)"]);
    fails(&x, &tensor(&[4], &[0.0, 3.0, 0.0, 0.0]), &["targets", "3 at element 1", "0 to 2"]);
    fails(&x, &tensor(&[4], &[0.0, 0.5, 0.0, 0.0]), &["0.5 at element 1"]);
    fails(&x, &tensor(&[3], &[0.0; 3]), &["[3]", "[4]"]);
    let mut bad = x.clone();
    bad[[1, 1]] = f32::INFINITY;
    fails(&bad, &y, &["not finite", "element 3"]);
    fails(&tensor(&[0, 2], &[]), &tensor(&[0], &[]), &["no samples"]);
    let error = Trainer::new(&graph, vec![], Optimizer::sgd(0.1), weights, 0).unwrap_err().to_string();
    assert!(error.contains("0 losses"), "{error}");
}

/// Gradients reach an input through all its uses, and inputs that are not used get zeros.
#[test]
fn several_inputs_and_outputs_train() {
    let mut net = Functional::new("both");
    let a = net.input(Input::shape([2]).name("a")).unwrap();
    let b = net.input(Input::shape([2]).name("b")).unwrap();
    let joined = net.call(Concatenate::new(), &[a, b]).unwrap();
    let y = net.call(Dense::new(1).name("y"), &[joined]).unwrap();
    let z = net.call(Dense::new(1).activation(Activation::Sigmoid).name("z"), &[a]).unwrap();
    let graph = net.build([a, b], [y, z]).unwrap();
    let (x, _) = sample_data();
    let (up, down) = (tensor(&[4, 1], &[1.0; 4]), tensor(&[4], &[0.0, 1.0, 0.0, 1.0]));
    let losses = vec![Loss::MeanSquaredError, Loss::BinaryCrossentropy { from_logits: false, label_smoothing: 0.0 }];
    let mut trainer = Trainer::new(&graph, losses, Optimizer::rmsprop(0.02), initial_weights(&graph, 1), 0).unwrap();
    let data = FitData { inputs: &[x.clone(), x], targets: &[up, down], sample_weight: None, class_weight: None };
    let history = trainer.fit(data, 4, 100).unwrap();
    assert!(history[99] < 0.6 * history[0], "{} to {}", history[0], history[99]);
    assert_eq!(graph.inputs, [NodeId(0), NodeId(1)]);
}
