//! What a session promises: any order of calls without reloading, faults that change time but not bits, checkpoints that go on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use spidnn::callbacks::{Logs, Trainer};
use spidnn::{
    Activation, Dataset, Dense, Error, Evaluate, Fit, Graph, Input, Loss, Machine, Model, Optimizer, Sequential,
    Tensor, VirtualBoard,
};
use spinnaker_machine::ChipXy;

const LOSS: Loss = Loss::SparseCategoricalCrossentropy { from_logits: false };

fn graph() -> Graph {
    Sequential::new(Input::shape([6]))
        .with(Dense::new(12).activation(Activation::Tanh))
        .with(Dense::new(3).activation(Activation::Softmax))
        .build()
        .unwrap()
}

/// Three classes by the largest of three sums.
fn data(samples: usize) -> Dataset {
    let x = Tensor::from_shape_fn(vec![samples, 6], |i| ((i[0] * 37 + i[1] * 101) as f32 * 0.7).sin());
    let y = Tensor::from_shape_fn(vec![samples], |i| {
        let sums: Vec<f32> = (0..3).map(|c| x[[i[0], c]] + x[[i[0], c + 3]]).collect();
        (0..3).max_by(|&a, &b| sums[a].total_cmp(&sums[b])).unwrap() as f32
    });
    Dataset::new(x, y)
}

fn model() -> Model {
    Model::untrained(graph(), 3)
}

fn fit<'a>() -> Fit<'a> {
    Fit::new(LOSS).optimizer(Optimizer::adam(0.01)).batch_size(20).seed(5)
}

fn same_bits(a: &[Tensor], b: &[Tensor]) -> bool {
    a.iter().zip(b).all(|(a, b)| a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits()))
}

#[test]
fn calls_follow_each_other_without_reloading() {
    let mut session = model().on(Machine::open("virtual:spin3").unwrap()).unwrap();
    let data = data(90);
    let history = session.fit(&data, fit().epochs(4).metric("accuracy").unwrap().validation_split(0.2)).unwrap();
    let loss = history.get("loss").unwrap();
    assert_eq!(history.epochs, [0, 1, 2, 3]);
    assert!(loss[3] < loss[0], "{loss:?}");
    assert_eq!(history.get("val_accuracy").unwrap().len(), 4);
    let before = session.predict(&data).unwrap();
    let scores = session.evaluate(&data, &Evaluate::default().metric("accuracy").unwrap()).unwrap();
    let right = before[0].rows().into_iter().zip(&data.targets[0]).filter(|(row, label)| {
        let best = (0..3).max_by(|&a, &b| row[a].total_cmp(&row[b])).unwrap();
        best as f32 == **label
    });
    assert_eq!(scores.get("accuracy").unwrap(), right.count() as f64 / 90.0);
    let weights = session.get_weights().unwrap();
    session.fit(&data, fit()).unwrap();
    assert!(!same_bits(&weights, &session.get_weights().unwrap()));
    session.set_weights(&weights).unwrap();
    assert!(same_bits(&before, &session.predict(&data).unwrap()));
    assert_eq!(session.usage().loads, 1);
    assert!(session.set_weights(&weights[..1]).is_err());
    // The machine serves another session.
    let mut other = Model::new(graph(), weights).unwrap().on(session.into_machine()).unwrap();
    assert!(same_bits(&before, &other.predict(&data).unwrap()));
}

#[test]
fn losses_and_faults_cost_time_only() {
    let data = data(40);
    let run = |locator: &str| {
        let mut session = model().on(Machine::open(locator).unwrap()).unwrap();
        let predictions = session.predict(&data).unwrap();
        session.fit(&data, fit().epochs(2)).unwrap();
        (predictions, session.get_weights().unwrap(), session.usage())
    };
    let (predictions, weights, plain) = run("virtual:spin3?threads=1");
    let (p, w, again) = run("virtual:spin3?threads=2");
    assert!(same_bits(&p, &predictions) && same_bits(&w, &weights));
    assert_eq!(plain.machine_time_s, again.machine_time_s);
    let (p, w, lossy) = run("virtual:spin3?drop=0.05");
    assert!(same_bits(&p, &predictions) && same_bits(&w, &weights));
    assert!(lossy.counters.packets_resent > 0 && lossy.counters.packets_dropped > 0);
    assert!(lossy.machine_time_s > plain.machine_time_s);
    let (p, w, _) = run("virtual:spin3?dead=0,1&dead=0,0,5&deadlink=0,0,E");
    assert!(same_bits(&p, &predictions));
    for (a, b) in w.iter().zip(&weights) {
        assert!(a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-4));
    }
}

#[test]
fn interrupted_fits_go_on_from_their_checkpoint() {
    let data = data(90);
    let whole = {
        let mut session = model().on(Machine::open("virtual:spin3").unwrap()).unwrap();
        session.fit(&data, fit().epochs(3)).unwrap();
        session.get_weights().unwrap()
    };
    let folder = tempfile::tempdir().unwrap();
    let flag = Arc::new(AtomicBool::new(false));
    let mut session = model().on(Machine::open("virtual:spin3").unwrap()).unwrap();
    struct After(usize, Arc<AtomicBool>);
    impl spidnn::Callback for After {
        fn on_batch_end(&mut self, _: usize, _: &Logs, _: &mut dyn Trainer) -> Result<(), Error> {
            self.0 -= 1;
            if self.0 == 0 {
                self.1.store(true, Ordering::Relaxed);
            }
            Ok(())
        }
    }
    // Five batches an epoch: the eighth is in the middle of the second.
    let mut after = After(8, Arc::clone(&flag));
    let interrupted = fit().epochs(3).checkpoint(folder.path(), false).interrupt(flag).callback(&mut after);
    let history = session.fit(&data, interrupted).unwrap();
    assert!(history.interrupted);
    assert_eq!(history.epochs, [0]);
    drop(session);
    // Another process: the model's own weights do not matter now.
    let mut session = Model::untrained(graph(), 99).on(Machine::open("virtual:spin3").unwrap()).unwrap();
    let history = session.fit(&data, fit().epochs(3).checkpoint(folder.path(), true)).unwrap();
    assert_eq!(history.epochs, [0, 1, 2]);
    assert!(same_bits(&whole, &session.get_weights().unwrap()));
}

#[test]
fn a_dead_core_is_named_and_training_goes_on_without_it() {
    let data = data(90);
    let folder = tempfile::tempdir().unwrap();
    let mut machine = spinnaker_machine::Machine::spin3();
    let mut board = VirtualBoard::with_config(machine.clone(), Default::default());
    let chip = ChipXy::new(1, 0);
    // The first run, to know how long it takes; then the same with a core that dies on the way.
    let mut session = model()
        .on(Machine::from_board("test", Box::new(VirtualBoard::with_config(machine.clone(), Default::default()))))
        .unwrap();
    session.fit(&data, fit().epochs(2).checkpoint(folder.path(), false)).unwrap();
    let time_s = session.usage().machine_time_s;
    board.kill_core_at(chip, 3, time_s * 0.8);
    let folder = tempfile::tempdir().unwrap();
    let mut session = model().on(Machine::from_board("test", Box::new(board))).unwrap();
    let error = session.fit(&data, fit().epochs(2).checkpoint(folder.path(), false)).unwrap_err();
    match &error {
        Error::Core { cores, time_s, .. } => {
            assert!(cores.iter().any(|c| c.chip == chip && c.core == 3 && c.state.contains("dead")), "{error}");
            assert!(*time_s < 1.0, "{error}");
        }
        other => panic!("{other}"),
    }
    assert!(!error.is_input());
    machine.kill_core(chip, 3).unwrap();
    let board = VirtualBoard::with_config(machine, Default::default());
    let mut session = model().on(Machine::from_board("test", Box::new(board))).unwrap();
    let history = session.fit(&data, fit().epochs(2).checkpoint(folder.path(), true)).unwrap();
    assert_eq!(history.epochs, [0, 1]);
}

#[test]
fn bad_input_is_named() {
    let check = |data: Dataset, words: &[&str]| {
        let mut session = model().on(Machine::open("virtual:spin3").unwrap()).unwrap();
        let error = session.fit(&data, fit()).unwrap_err();
        let message = error.to_string();
        assert!(error.is_input(), "{message}");
        assert!(words.iter().all(|w| message.contains(w)), "{message}");
        assert_eq!(session.usage().loads, 0);
    };
    let good = data(4);
    let x = |shape: &[usize]| Tensor::zeros(shape);
    check(Dataset::new(x(&[4, 7]), good.targets[0].clone()), &["[4, 7]", "[samples, 6]"]);
    check(Dataset::new(x(&[4, 6]), x(&[3])), &["[3]", "4 samples"]);
    check(Dataset::new(x(&[0, 6]), x(&[0])), &["no samples"]);
    check(Dataset::new(x(&[4, 6]), x(&[4]) + 3.0), &["label 3", "0 to 2"]);
    check(Dataset::new(x(&[4, 6]) + f32::NAN, x(&[4])), &["NaN", "sample 0"]);
    check(Dataset::inputs(vec![x(&[4, 6])]), &["no targets"]);
    check(good.clone().with_sample_weight(vec![1.0]), &["sample_weight", "4 samples"]);
}

#[test]
fn a_loss_that_is_not_finite_stops_the_fit() {
    let graph = Sequential::new(Input::shape([1])).with(Dense::new(1)).build().unwrap();
    let x = Tensor::from_elem(vec![4, 1], 1e20f32);
    let data = Dataset::new(x.clone(), x);
    let mut session = Model::untrained(graph, 1).on(Machine::open("virtual:spin3").unwrap()).unwrap();
    let fit = Fit::new(Loss::MeanSquaredError).optimizer(Optimizer::sgd(1.0)).batch_size(2).epochs(3);
    let error = session.fit(&data, fit).unwrap_err();
    assert!(matches!(error, Error::NotFinite { epoch: 0, .. }), "{error}");
    assert!(!error.is_input());
}
