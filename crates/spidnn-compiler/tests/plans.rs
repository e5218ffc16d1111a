//! What plans look like: command lists that do not grow, refusals that name the layer, cores that are not all there.

use spidnn_compiler::{CompileError, Format, Options, Training, compile};
use spidnn_graph::builder::{AveragePooling2D, Conv2D, Dense, Flatten, Input, Sequential};
use spidnn_graph::training::{Clip, LearningRate, Loss, Optimizer, Rule};
use spidnn_graph::{Activation, Graph, Padding};
use spinnaker_machine::{ChipXy, Machine};

fn training(batch_size: usize) -> Training {
    Training {
        losses: vec![Loss::SparseCategoricalCrossentropy { from_logits: false }],
        optimizer: Optimizer {
            rule: Rule::Adam { beta_1: 0.9, beta_2: 0.999, epsilon: 1e-7 },
            learning_rate: LearningRate::Constant(1e-3),
            clip: Clip::None,
            weight_decay: None,
        },
        batch_size,
    }
}

fn picture_network(side: usize) -> Graph {
    Sequential::new(Input::shape([side, side, 1]))
        .with(Conv2D::new(6, 5).padding(Padding::Same).activation(Activation::Tanh))
        .with(AveragePooling2D::new(2))
        .with(Conv2D::new(16, 5).activation(Activation::Tanh))
        .with(AveragePooling2D::new(side / 2 - 4))
        .with(Flatten::new())
        .with(Dense::new(10).activation(Activation::Softmax))
        .build()
        .unwrap()
}

fn command_words(side: usize, batch_size: usize) -> usize {
    let options = Options { batch_size, training: Some(training(batch_size)), chips_max: Some(1), format: Format::F32 };
    compile(&picture_network(side), &Machine::spin3(), &options)
        .unwrap_or_else(|e| panic!("{side} x {side}, batch {batch_size}: {e}"))
        .report
        .command_words
}

#[test]
fn command_lists_do_not_grow_with_the_picture_or_the_batch() {
    // Loops count samples and rows. (A buffer that is single instead of double saves or costs a few words of patches, and which
    // core has parts of how many layers' gradients depends on how the work comes out even: one loop of some 100 words.)
    let words = command_words(28, 64);
    for (side, batch_size) in [(28, 512), (28, 1024), (36, 64), (44, 64)] {
        let other = command_words(side, batch_size);
        assert!(
            other <= words + words / 50 + 110,
            "{other} words at {side} x {side} and batch {batch_size}, {words} at 28 x 28 and 64"
        );
    }
}

#[test]
fn a_model_too_large_for_a_chip_is_refused_with_the_layer_and_the_bytes() {
    let graph = Sequential::new(Input::shape([4096])).with(Dense::new(8192).name("wide")).build().unwrap();
    let options = Options { batch_size: 4, training: Some(training(4)), chips_max: None, format: Format::F32 };
    match compile(&graph, &Machine::spin5(), &options) {
        Err(CompileError::ModelTooLarge { needed, available, .. }) => assert!(needed > available),
        other => panic!("expected a refusal, got {:?}", other.map(|c| c.report.sdram_bytes)),
    }
}

#[test]
fn cores_that_are_missing_are_not_used() {
    let mut machine = Machine::spin5();
    let few = ChipXy::new(2, 2);
    for core in [3, 9] {
        machine.kill_core(few, core).unwrap();
    }
    machine.kill_chip(ChipXy::new(4, 4)).unwrap();
    let compiled = compile(
        &picture_network(28),
        &machine,
        &Options { batch_size: 480, training: Some(training(480)), chips_max: None, format: Format::F32 },
    )
    .unwrap();
    assert_eq!(compiled.replicas.len(), 47);
    assert!(!compiled.replicas.contains(&ChipXy::new(4, 4)));
    let cores: Vec<u8> = compiled.chips[&few].cores.iter().map(|&(core, _)| core).collect();
    assert_eq!(cores, [1, 2, 4, 5, 6, 7, 8, 10, 11, 12, 13, 14, 15, 16, 17]);
    assert!(compiled.report.routing_entries.0 <= 1023);
    // Shares differ by one at most and cover the batch.
    let shares = compiled.shares(480);
    assert_eq!(shares.iter().sum::<usize>(), 480);
    assert!(shares.iter().max().unwrap() - shares.iter().min().unwrap() <= 1);
    assert!(shares.iter().all(|&s| s <= compiled.layout.samples_max));
}

#[test]
fn a_machine_without_cores_and_an_empty_batch_are_refused() {
    let mut machine = Machine::spin3();
    machine.cap_cores(0);
    let graph = picture_network(28);
    assert_eq!(compile(&graph, &machine, &Options::inference(1)).err(), Some(CompileError::NoCores));
    assert_eq!(compile(&graph, &Machine::spin3(), &Options::inference(0)).err(), Some(CompileError::EmptyBatch));
}
