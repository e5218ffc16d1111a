//! The firmware on the instruction-level machine, under the official monitor, against the native runtime: the same bits.

use spidnn::{
    Activation, Conv1D, Dataset, Dense, Flatten, Graph, Input, Machine, MaxPooling1D, Model, Padding, Sequential,
    Tensor, builtin,
};

/// Whether the official boot image is there.
fn has_image() -> bool {
    match spidnn::boot_image::find() {
        Ok(_) => true,
        Err(e) => {
            println!("not run: {e}");
            false
        }
    }
}

fn data(samples: usize, shape: &[usize]) -> Dataset {
    let mut whole = vec![samples];
    whole.extend(shape);
    let each: usize = shape.iter().product();
    let numbers = (0..samples * each).map(|i| (i as f32 * 0.7).sin() * 1.5).collect();
    let x = Tensor::from_shape_vec(whole, numbers).unwrap();
    Dataset::new(x, Tensor::zeros(vec![samples]))
}

/// Predictions, and the seconds that the cores ran.
fn predict(graph: &Graph, data: &Dataset, machine: &str) -> (Vec<Tensor>, f64) {
    let machine = Machine::open(machine).unwrap_or_else(|e| panic!("{e}"));
    let mut session = Model::untrained(graph.clone(), 3).on(machine).unwrap_or_else(|e| panic!("{e}"));
    let outputs = session.predict(data).unwrap_or_else(|e| panic!("{e}"));
    let before_s = session.usage().compute_s;
    // Once more: what cores keep from run to run they have now.
    session.predict(data).unwrap_or_else(|e| panic!("{e}"));
    (outputs, session.usage().compute_s - before_s)
}

fn same_bits(graph: &Graph, data: &Dataset) {
    let (fast, fast_s) = predict(graph, data, "virtual:spin3");
    let (cycle, cycle_s) = predict(graph, data, "virtual:spin3?fidelity=cycle");
    println!("fast {:.1} us, cycle {:.1} us: {:.3}", fast_s * 1e6, cycle_s * 1e6, fast_s / cycle_s);
    assert_eq!(fast.len(), cycle.len());
    for (a, b) in fast.iter().zip(&cycle) {
        assert!(a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits()), "{a} {b}");
    }
}

#[test]
fn a_perceptron_gives_the_same_bits() {
    if has_image() {
        let graph = Sequential::new(Input::shape([20]))
            .with(Dense::new(40).activation(Activation::Relu))
            .with(Dense::new(10).activation(Activation::Softmax));
        same_bits(&graph.build().unwrap(), &data(8, &[20]));
    }
}

#[test]
fn a_network_over_time_gives_the_same_bits() {
    if has_image() {
        let graph = Sequential::new(Input::shape([32, 2]))
            .with(Conv1D::new(6, 5).padding(Padding::Same).activation(Activation::Tanh))
            .with(MaxPooling1D::new(2))
            .with(Flatten::new())
            .with(Dense::new(3));
        same_bits(&graph.build().unwrap(), &data(4, &[32, 2]));
    }
}

#[test]
fn lenet5_gives_the_same_bits() {
    if has_image() {
        same_bits(&builtin::graph("lenet5").unwrap(), &data(8, &[28, 28, 1]));
    }
}
