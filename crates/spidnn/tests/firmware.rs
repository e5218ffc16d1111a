//! The firmware on the instruction-level machine, under the official monitor, against the native runtime: the same bits.

use spidnn::{Dataset, Dense, Graph, Input, Machine, Model, Sequential, Tensor};

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

fn data(samples: usize, width: usize) -> Dataset {
    let x = Tensor::from_shape_fn(vec![samples, width], |i| ((i[0] * 37 + i[1] * 101) as f32 * 0.7).sin());
    Dataset::new(x, Tensor::zeros(vec![samples]))
}

fn predict(graph: &Graph, data: &Dataset, machine: &str) -> Vec<Tensor> {
    let mut session =
        Model::untrained(graph.clone(), 3).on(Machine::open(machine).unwrap_or_else(|e| panic!("{e}"))).unwrap();
    let outputs = session.predict(data).unwrap_or_else(|e| panic!("{e}"));
    println!("{machine}: {:?}", session.usage());
    outputs
}

#[test]
fn dense_layers_give_the_same_bits() {
    if !has_image() {
        return;
    }
    let graph = Sequential::new(Input::shape([6]))
        .with(Dense::new(12).use_bias(false))
        .with(Dense::new(3).use_bias(false))
        .build()
        .unwrap();
    let data = data(8, 6);
    let fast = predict(&graph, &data, "virtual:spin3");
    let cycle = predict(&graph, &data, "virtual:spin3?fidelity=cycle");
    assert_eq!(fast.len(), cycle.len());
    for (a, b) in fast.iter().zip(&cycle) {
        assert!(a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits()), "{a} {b}");
    }
}
