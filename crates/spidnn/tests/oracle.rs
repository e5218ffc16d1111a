//! Networks of forms that no golden file has, trained on the virtual board and by the reference executor.

use spidnn::{Activation, Dataset, Fit, Graph, Loss, Machine, Model, Optimizer, Tensor};
use spidnn_graph::builder::{
    BatchNormalization, Conv2D, Dense, Flatten, Functional, GlobalAveragePooling2D, Input, Multiply, Reshape,
};
use spidnn_graph::reference::Trainer;
use spidnn_graph::{GraphError, Padding};

/// A convolution, a frozen normalisation, and channels that the network weighs itself (squeeze and excite).
fn weighing() -> Result<Graph, GraphError> {
    let mut model = Functional::new("weighing");
    let input = model.input(Input::shape([9, 7, 3]))?;
    let picture = model.call(Conv2D::new(8, 3).padding(Padding::Same).activation(Activation::Tanh), &[input])?;
    let normal = model.call(BatchNormalization::new().trainable(false), &[picture])?;
    let mean = model.call(GlobalAveragePooling2D::new(), &[normal])?;
    let weight = model.call(Dense::new(8).activation(Activation::Sigmoid), &[mean])?;
    let weight = model.call(Reshape::new([1, 1, 8]), &[weight])?;
    let weighed = model.call(Multiply::new(), &[normal, weight])?;
    let flat = model.call(Flatten::new(), &[weighed])?;
    let output = model.call(Dense::new(2), &[flat])?;
    model.build(vec![input], vec![output])
}

#[test]
fn weighed_channels_and_frozen_normalisation_train_as_the_reference_does() {
    let graph = weighing().unwrap();
    let samples = 13;
    let x = Tensor::from_shape_fn(vec![samples, 9, 7, 3], |i| {
        ((i[0] * 53 + i[1] * 17 + i[2] * 7 + i[3] * 3) as f32 * 0.37).sin()
    });
    let y = Tensor::from_shape_fn(vec![samples, 2], |i| ((i[0] * 3 + i[1]) as f32 * 0.9).cos());
    let mut weights = spidnn_graph::initial_weights(&graph, 11);
    // Statistics and scales that do something.
    for (param, weight) in graph.params.iter().zip(&mut weights) {
        if param.shape == [8] && graph.layers[param.layer.0].name.starts_with("batch") {
            weight.iter_mut().enumerate().for_each(|(i, w)| *w += 0.3 + 0.1 * i as f32);
        }
    }
    let optimizer = Optimizer::sgd(0.1);
    let mut oracle = Trainer::new(&graph, vec![Loss::MeanSquaredError], optimizer.clone(), weights.clone(), 0).unwrap();
    for machine in ["virtual:spin3", "virtual:1x1?cores=5"] {
        let mut session =
            Model::new(graph.clone(), weights.clone()).unwrap().on(Machine::open(machine).unwrap()).unwrap();
        oracle.weights.clone_from(&weights);
        let fit = || Fit::new(Loss::MeanSquaredError).optimizer(optimizer.clone()).batch_size(samples).shuffle(false);
        for _ in 0..3 {
            oracle.train_batch(std::slice::from_ref(&x), std::slice::from_ref(&y), None).unwrap();
            session.fit(&Dataset::new(x.clone(), y.clone()), fit()).unwrap();
        }
        for (found, expected) in session.get_weights().unwrap().iter().zip(&oracle.weights) {
            for (f, e) in found.iter().zip(expected.iter()) {
                assert!((f - e).abs() < 2e-5, "{f} instead of {e} on {machine}");
            }
        }
        assert_ne!(oracle.weights[0], weights[0], "nothing was trained");
    }
}
