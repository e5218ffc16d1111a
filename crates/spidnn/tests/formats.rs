//! Formats int8 and bfp16 on the virtual machine: accuracy on MNIST, and bits that do not depend on the machine.

use std::path::Path;

use spidnn::{Dataset, Error, Evaluate, Fit, Format, Loss, Machine, Model, Optimizer, Session, Tensor};

const LOSS: Loss = Loss::SparseCategoricalCrossentropy { from_logits: false };

/// LeNet-5 as Keras trained it.
fn lenet5(machine: &str, format: Format) -> Session {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/keras/lenet5/model.keras");
    let model = Model::open(file.to_str().unwrap(), 0).unwrap();
    let mut session = model.on(Machine::open(machine).unwrap()).unwrap();
    session.set_format(format).unwrap();
    session
}

fn digits(part: &str, samples: usize) -> Dataset {
    Dataset::open(part, None).unwrap().take(samples)
}

fn accuracy(session: &mut Session, data: &Dataset) -> f64 {
    let scores = session.evaluate(data, &Evaluate::new(LOSS).metric("accuracy").unwrap()).unwrap();
    scores.get("accuracy").unwrap()
}

fn same_bits(a: &[Tensor], b: &[Tensor]) -> bool {
    a.iter().zip(b).all(|(a, b)| a.shape() == b.shape() && a.iter().zip(b).all(|(x, y)| x.to_bits() == y.to_bits()))
}

#[test]
fn lenet5_loses_less_than_0_3_percent_on_all_test_digits() {
    let data = digits("mnist#test", 10_000);
    let float = accuracy(&mut lenet5("virtual:spin5", Format::F32), &data);
    assert!(float > 0.98, "{float}");
    for format in [Format::Int8, Format::Bfp16] {
        let found = accuracy(&mut lenet5("virtual:spin5", format), &data);
        println!("{format:?}: {found}, f32: {float}");
        assert!((found - float).abs() <= 0.003, "{format:?}: {found} for {float}");
    }
}

#[test]
fn predictions_have_the_same_bits_on_any_machine() {
    let data = digits("mnist#test", 70);
    for format in [Format::Int8, Format::Bfp16] {
        let predict = |machine: &str| {
            let mut session = lenet5(machine, format);
            session.calibrate(&digits("mnist", 64)).unwrap();
            session.predict(&data).unwrap()
        };
        let expected = predict("virtual:spin3");
        for machine in
            ["virtual:spin5?dead=2,2&dead=1,0,5&drop=0.01", "virtual:spin3?cores=5", "virtual:spin3?threads=1"]
        {
            assert!(same_bits(&predict(machine), &expected), "{format:?} on {machine}");
        }
    }
}

#[test]
fn a_few_images_alone_have_the_bits_of_a_batch() {
    let data = digits("mnist#test", 7);
    for format in [Format::F32, Format::Int8, Format::Bfp16] {
        let predict = |limit: usize| {
            let mut session = lenet5("virtual:spin3", format);
            if format == Format::Int8 {
                session.calibrate(&digits("mnist", 64)).unwrap();
            }
            session.limit_predictions(limit);
            session.predict(&data).unwrap()
        };
        let expected = predict(512);
        // One image on one chip, one on each of four, two on each.
        for limit in [1, 4, 8] {
            assert!(same_bits(&predict(limit), &expected), "{format:?}, {limit} at once");
        }
    }
}

#[test]
fn halves_predict_what_floats_do_within_their_bits() {
    let data = digits("mnist#test", 100);
    let float = lenet5("virtual:spin3", Format::F32).predict(&data).unwrap();
    let halves = lenet5("virtual:spin3", Format::Bfp16).predict(&data).unwrap();
    // Six layers, each with operands rounded to 2^-14.5 of the largest of their block, or less.
    for (a, b) in float[0].iter().zip(&halves[0]) {
        assert!((a - b).abs() < 1e-3, "{a} {b}");
    }
}

#[test]
fn halves_train_like_floats() {
    let (train, test) = (digits("mnist", 9_600), digits("mnist#test", 2_000));
    let run = |format: Format| {
        let mut session = Model::builtin("lenet5", 3).unwrap().on(Machine::open("virtual:spin3").unwrap()).unwrap();
        session.set_format(format).unwrap();
        let fit = Fit::new(LOSS).batch_size(96).optimizer(Optimizer::adam(0.002));
        let loss = session.fit(&train, fit).unwrap().last("loss").unwrap();
        (loss, accuracy(&mut session, &test))
    };
    let ((float_loss, float), (loss, found)) = (run(Format::F32), run(Format::Bfp16));
    println!("bfp16: loss {loss}, accuracy {found}; f32: {float_loss}, {float}");
    assert!((loss - float_loss).abs() < 0.01 * float_loss, "{loss} {float_loss}");
    assert!((found - float).abs() <= 0.003, "{found} {float}");
}

#[test]
fn bytes_do_not_train_and_follow_new_weights() {
    let mut session = lenet5("virtual:spin3", Format::Int8);
    let data = digits("mnist", 32);
    let refused = session.fit(&data, Fit::new(LOSS).batch_size(32));
    assert!(matches!(&refused, Err(e @ Error::Compile(_)) if e.to_string().contains("bfp16")), "{:?}", refused.err());
    // The session is as it was: it predicts, and after a change of the weights by those.
    let before = session.predict(&data).unwrap();
    let weights: Vec<Tensor> = session.get_weights().unwrap().iter().map(|w| w * 0.5f32).collect();
    session.set_weights(&weights).unwrap();
    assert!(!same_bits(&session.predict(&data).unwrap(), &before));
    // Trained in another format, it predicts in bytes again.
    session.set_format(Format::F32).unwrap();
    session.fit(&data, Fit::new(LOSS).batch_size(32)).unwrap();
    session.set_format(Format::Int8).unwrap();
    let bytes = session.predict(&data).unwrap();
    session.set_format(Format::F32).unwrap();
    let float = session.predict(&data).unwrap();
    let classes = |t: &Tensor| -> Vec<usize> {
        t.outer_iter()
            .map(|row| row.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).map_or(0, |(i, _)| i))
            .collect()
    };
    let agree = classes(&bytes[0]).iter().zip(classes(&float[0])).filter(|(a, b)| *a == b).count();
    assert!(agree >= 28, "{agree} of 32");
}
