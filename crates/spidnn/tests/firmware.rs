//! The firmware on the instruction-level machine, under the official monitor, against the native runtime: the same bits, and
//! the same time within 10 %.

use spidnn::{
    Activation, BatchNormalization, Conv1D, Dataset, Dense, Dropout, Evaluate, Fit, Flatten, Format, Graph, Input,
    Loss, Machine, MaxPooling1D, Model, Padding, Sequential, Tensor, builtin,
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

fn inputs(samples: usize, shape: &[usize]) -> Tensor {
    let mut whole = vec![samples];
    whole.extend(shape);
    let each: usize = shape.iter().product();
    let numbers = (0..samples * each).map(|i| (i as f32 * 0.7).sin() * 1.5).collect();
    Tensor::from_shape_vec(whole, numbers).unwrap()
}

fn data(samples: usize, shape: &[usize]) -> Dataset {
    Dataset::new(inputs(samples, shape), Tensor::zeros(vec![samples]))
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

/// The fast machine's clock is that of the firmware within 10 %. (Both are simulated: they do not depend on the host.)
fn same_time(fast_s: f64, cycle_s: f64) {
    let ratio = fast_s / cycle_s;
    println!("fast {:.1} us, cycle {:.1} us: {ratio:.3}", fast_s * 1e6, cycle_s * 1e6);
    assert!((0.9..1.1).contains(&ratio), "the fast machine takes {fast_s} s, the firmware {cycle_s} s");
}

fn same_bits(graph: &Graph, data: &Dataset) {
    let (fast, fast_s) = predict(graph, data, "virtual:spin3");
    let (cycle, cycle_s) = predict(graph, data, "virtual:spin3?fidelity=cycle");
    same_time(fast_s, cycle_s);
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

/// Predictions of LeNet-5 in a format of shorter numbers.
fn predict_in(format: Format, machine: &str) -> (Vec<Tensor>, f64) {
    let machine = Machine::open(machine).unwrap_or_else(|e| panic!("{e}"));
    let model = Model::untrained(builtin::graph("lenet5").unwrap(), 3);
    let mut session = model.on(machine).unwrap_or_else(|e| panic!("{e}"));
    session.set_format(format).unwrap();
    let data = data(8, &[28, 28, 1]);
    session.calibrate(&data).unwrap();
    let outputs = session.predict(&data).unwrap_or_else(|e| panic!("{e}"));
    let before_s = session.usage().compute_s;
    session.predict(&data).unwrap_or_else(|e| panic!("{e}"));
    (outputs, session.usage().compute_s - before_s)
}

fn same_bits_in(format: Format) {
    let (fast, fast_s) = predict_in(format, "virtual:spin3");
    let (cycle, cycle_s) = predict_in(format, "virtual:spin3?fidelity=cycle");
    assert_eq!(fast.len(), cycle.len());
    for (a, b) in fast.iter().zip(&cycle) {
        assert!(a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits()), "{a} {b}");
    }
    same_time(fast_s, cycle_s);
}

#[test]
fn lenet5_in_bytes_gives_the_same_bits() {
    if has_image() {
        same_bits_in(Format::Int8);
    }
}

#[test]
fn lenet5_in_halves_gives_the_same_bits() {
    if has_image() {
        same_bits_in(Format::Bfp16);
    }
}

/// The data with classes to learn.
fn labelled(samples: usize, shape: &[usize], classes: usize) -> Dataset {
    let y = (0..samples).map(|i| (i % classes) as f32).collect();
    Dataset::new(inputs(samples, shape), Tensor::from_shape_vec(vec![samples], y).unwrap())
}

/// What a fit and an evaluation leave: weights and losses; and the seconds that the cores ran.
fn train(
    graph: &Graph,
    data: &Dataset,
    (chips, format): (usize, Format),
    machine: &str,
) -> (Vec<Tensor>, Vec<f64>, f64) {
    let machine = Machine::open(machine).unwrap_or_else(|e| panic!("{e}"));
    let mut session = Model::untrained(graph.clone(), 3).on(machine).unwrap_or_else(|e| panic!("{e}"));
    session.set_format(format).unwrap();
    session.limit_chips(chips).unwrap();
    let fit = Fit::new(Loss::SparseCategoricalCrossentropy { from_logits: false });
    let fit = fit.optimizer_by_name("adam").unwrap().epochs(1).batch_size(16).shuffle(false);
    let history = session.fit(data, fit).unwrap_or_else(|e| panic!("{e}"));
    let compute_s = session.usage().compute_s;
    let evaluate = Evaluate::new(Loss::SparseCategoricalCrossentropy { from_logits: false });
    let scores = session.evaluate(data, &evaluate).unwrap_or_else(|e| panic!("{e}"));
    let mut losses = history.get("loss").unwrap().to_vec();
    losses.push(scores.get("loss").unwrap());
    (session.get_weights().unwrap(), losses, compute_s)
}

fn trains_to_the_same_bits(graph: &Graph, data: &Dataset, chips: usize) {
    trains_to_the_same_bits_in(Format::F32, graph, data, chips);
}

fn trains_to_the_same_bits_in(format: Format, graph: &Graph, data: &Dataset, chips: usize) {
    let (fast, fast_losses, fast_s) = train(graph, data, (chips, format), "virtual:spin3");
    let (cycle, cycle_losses, cycle_s) = train(graph, data, (chips, format), "virtual:spin3?fidelity=cycle");
    same_time(fast_s, cycle_s);
    assert_eq!(fast_losses, cycle_losses);
    assert_eq!(fast.len(), cycle.len());
    for (number, (a, b)) in fast.iter().zip(&cycle).enumerate() {
        assert!(a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits()), "parameter {number}: {a} {b}");
    }
}

#[test]
fn lenet5_trains_to_the_same_bits_on_a_chip() {
    if has_image() {
        trains_to_the_same_bits(&builtin::graph("lenet5").unwrap(), &labelled(16, &[28, 28, 1], 10), 1);
    }
}

#[test]
fn lenet5_trains_to_the_same_bits_on_four_chips() {
    if has_image() {
        trains_to_the_same_bits(&builtin::graph("lenet5").unwrap(), &labelled(16, &[28, 28, 1], 10), 4);
    }
}

#[test]
fn lenet5_in_halves_trains_to_the_same_bits() {
    if has_image() {
        let lenet5 = builtin::graph("lenet5").unwrap();
        trains_to_the_same_bits_in(Format::Bfp16, &lenet5, &labelled(16, &[28, 28, 1], 10), 4);
    }
}

#[test]
fn a_network_with_statistics_trains_to_the_same_bits() {
    if has_image() {
        let graph = Sequential::new(Input::shape([16, 2]))
            .with(Conv1D::new(4, 3).padding(Padding::Same))
            .with(BatchNormalization::new())
            .with(Flatten::new())
            .with(Dropout::new(0.25))
            .with(Dense::new(3).activation(Activation::Softmax));
        let (graph, data) = (graph.build().unwrap(), labelled(32, &[16, 2], 3));
        trains_to_the_same_bits(&graph, &data, 4);
        trains_to_the_same_bits_in(Format::Bfp16, &graph, &data, 4);
    }
}

/// A network with what few networks have: gelu and elu, binary cross-entropy, RMSprop.
#[test]
fn rare_units_train_to_the_same_bits() {
    if has_image() {
        let graph = Sequential::new(Input::shape([40]))
            .with(Dense::new(64).activation(Activation::Gelu { approximate: false }))
            .with(Dense::new(48).activation(Activation::Elu { alpha: 0.5 }))
            .with(Dense::new(2).activation(Activation::Sigmoid));
        let graph = graph.build().unwrap();
        let y = (0..32).map(|i| (i % 3 == 0) as u32 as f32).collect();
        let data = Dataset::new(inputs(16, &[40]), Tensor::from_shape_vec(vec![16, 2], y).unwrap());
        let train = |machine| {
            let machine = Machine::open(machine).unwrap_or_else(|e| panic!("{e}"));
            let mut session = Model::untrained(graph.clone(), 3).on(machine).unwrap_or_else(|e| panic!("{e}"));
            let loss = Loss::BinaryCrossentropy { from_logits: false, label_smoothing: 0.0 };
            let fit = Fit::new(loss).optimizer_by_name("rmsprop").unwrap().epochs(2).batch_size(16).shuffle(false);
            session.fit(&data, fit).unwrap_or_else(|e| panic!("{e}"));
            (session.get_weights().unwrap(), session.usage().compute_s)
        };
        let (fast, fast_s) = train("virtual:spin3");
        let (cycle, cycle_s) = train("virtual:spin3?fidelity=cycle");
        same_time(fast_s, cycle_s);
        for (a, b) in fast.iter().zip(&cycle) {
            assert!(a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits()), "{a} {b}");
        }
    }
}
