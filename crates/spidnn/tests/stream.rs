//! What a stream promises: predict's bits in the order of the samples, bounded queues, times that depend on the machine alone, and a
//! session that goes on afterwards.

use std::pin::pin;

use futures::{SinkExt, StreamExt};
use spidnn::stream::{Output, Push, StreamOptions, samples};
use spidnn::{
    Activation, Dataset, Dense, Error, Fit, Format, Graph, Input, Loss, Machine, Model, Optimizer, Sequential, Session,
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

fn data(samples: usize) -> Dataset {
    let x = Tensor::from_shape_fn(vec![samples, 6], |i| ((i[0] * 37 + i[1] * 101) as f32 * 0.7).sin());
    let y = Tensor::from_shape_fn(vec![samples], |i| (i[0] % 3) as f32);
    Dataset::new(x, y)
}

fn session(locator: &str) -> Session {
    Model::untrained(graph(), 3).on(Machine::open(locator).unwrap()).unwrap()
}

/// Streams all samples, as fast as there is room for them.
fn streamed(session: &mut Session, data: &Dataset, options: StreamOptions) -> Vec<Output> {
    session.stream_over(samples(data), options).unwrap().collect::<Result<_, _>>().unwrap()
}

/// The outputs are those of a prediction, in order.
fn assert_predicted(outputs: &[Output], predicted: &[Tensor]) {
    assert_eq!(outputs.len(), predicted[0].shape()[0]);
    for (number, output) in outputs.iter().enumerate() {
        assert_eq!(output.sequence, number as u64);
        assert_eq!(output.values.len(), predicted.len());
        for (value, all) in output.values.iter().zip(predicted) {
            let expected = all.index_axis(ndarray::Axis(0), number);
            assert_eq!(value.shape(), expected.shape());
            assert!(value.iter().zip(expected).all(|(a, b)| a.to_bits() == b.to_bits()), "sample {number}");
        }
        assert!(output.answered_ns > output.pushed_ns);
    }
}

#[test]
fn a_stream_has_the_bits_of_predict_whatever_the_numbers() {
    // Four chips of two samples: batches that are full, that are not, and that have one sample.
    let all = data(37);
    for count in [1, 2, 7, 8, 9, 37] {
        let part = all.take(count);
        let predicted = session("virtual:spin3").predict(&part).unwrap();
        for options in [
            StreamOptions::default(),
            StreamOptions::default().capacity(1),
            StreamOptions::default().capacity(50),
            StreamOptions::default().capacity(50).batch_max(3),
            StreamOptions::default().samples_per_chip(16).capacity(50),
        ] {
            let mut session = session("virtual:spin3");
            assert_predicted(&streamed(&mut session, &part, options), &predicted);
        }
    }
}

#[test]
fn streams_fits_and_predictions_follow_each_other() {
    let data = data(41);
    let mut session = session("virtual:spin3");
    let first = streamed(&mut session, &data, StreamOptions::default());
    // The program of the stream serves predictions and the next stream, too.
    assert_predicted(&first, &session.predict(&data).unwrap());
    assert_predicted(&streamed(&mut session, &data, StreamOptions::default()), &session.predict(&data).unwrap());
    assert_eq!(session.usage().loads, 1);
    session.fit(&data, Fit::new(LOSS).optimizer(Optimizer::adam(0.05)).batch_size(20)).unwrap();
    // Whatever is loaded now, the weights are the new ones.
    for options in [StreamOptions::default(), StreamOptions::default().samples_per_chip(1)] {
        let after = streamed(&mut session, &data, options);
        assert_ne!(after[0].values, first[0].values);
        assert_predicted(&after, &session.predict(&data).unwrap());
    }
    // The optimizer goes on where it was.
    let mut other = self::session("virtual:spin3");
    let fit = || Fit::new(LOSS).optimizer(Optimizer::adam(0.05)).batch_size(20);
    other.fit(&data, fit()).unwrap();
    other.fit(&data, fit()).unwrap();
    session.fit(&data, fit()).unwrap();
    assert_eq!(session.get_weights().unwrap(), other.get_weights().unwrap());
}

#[test]
fn a_full_queue_hands_the_sample_back_and_a_wrong_sample_is_named() {
    let data = data(9);
    let mut session = session("virtual:spin3");
    let mut stream = session.stream(StreamOptions::default().capacity(3)).unwrap();
    let mut all = samples(&data);
    for number in 0..3 {
        assert_eq!(stream.push(all.next().unwrap()).unwrap(), Push::Accepted(number));
    }
    let fourth = all.next().unwrap();
    assert_eq!(stream.push(fourth.clone()).unwrap(), Push::Full(fourth.clone()));
    assert_eq!((stream.room(), stream.is_idle()), (0, false));
    assert_eq!(stream.pop().unwrap().unwrap().sequence, 0);
    let wrong = stream.push(vec![Tensor::zeros(vec![7])]).unwrap_err();
    assert!(wrong.is_input() && wrong.to_string().contains("the sample"), "{wrong}");
    assert_eq!(stream.push(fourth).unwrap(), Push::Accepted(3));
    let rest: Vec<u64> = stream.finish().unwrap().iter().map(|o| o.sequence).collect();
    assert_eq!(rest, [1, 2, 3]);
}

#[test]
fn a_stream_that_is_dropped_leaves_the_session_as_it_was() {
    let data = data(30);
    let mut session = session("virtual:spin3");
    let predicted = session.predict(&data).unwrap();
    let mut stream = session.stream(StreamOptions::default().capacity(30)).unwrap();
    for sample in samples(&data) {
        assert!(matches!(stream.push(sample).unwrap(), Push::Accepted(_)));
    }
    // Outputs of the first batch wait, and the second runs.
    assert!(stream.pop().unwrap().is_some());
    drop(stream);
    assert_eq!(session.predict(&data).unwrap(), predicted);
    assert_predicted(&streamed(&mut session, &data, StreamOptions::default()), &predicted);
}

/// Samples that come at a rate, and the times at which they were answered.
fn scheduled(locator: &str, rate_hz: f64) -> Vec<Output> {
    let data = data(60);
    let mut session = session(locator);
    let mut stream = session.stream(StreamOptions::default().capacity(60)).unwrap();
    let began_s = stream.machine_time_s();
    for (number, sample) in samples(&data).enumerate() {
        let pushed = stream.push_at(sample, began_s + number as f64 / rate_hz).unwrap();
        assert_eq!(pushed, Push::Accepted(number as u64));
    }
    let outputs = stream.finish().unwrap();
    assert_predicted(&outputs, &session.predict(&data).unwrap());
    outputs
}

#[test]
fn the_same_schedule_has_the_same_times() {
    for rate_hz in [300.0, 5000.0] {
        let first = scheduled("virtual:spin3?threads=1", rate_hz);
        assert_eq!(first, scheduled("virtual:spin3?threads=1", rate_hz));
        assert_eq!(first, scheduled("virtual:spin3?threads=2", rate_hz));
        // Samples are pushed when the schedule says so, and never answered before.
        let step_ns = 1e9 / rate_hz;
        for (number, output) in first.iter().enumerate() {
            let since_first = (output.pushed_ns - first[0].pushed_ns) as f64;
            assert!((since_first - number as f64 * step_ns).abs() < 2.0);
        }
    }
    // One by one, each sample has the latency of one: no queue forms.
    let slow = scheduled("virtual:spin3", 300.0);
    let latencies: Vec<f64> = slow.iter().map(Output::latency_s).collect();
    let (least, most) = latencies.iter().fold((f64::MAX, 0f64), |(a, b), &l| (a.min(l), b.max(l)));
    assert!(most < 1.0 / 300.0 && most < 1.2 * least, "{least} to {most}");
}

#[test]
fn lost_packets_cost_time_only() {
    let data = data(33);
    let mut lossy = session("virtual:spin3?drop=0.01&hostdrop=0.01");
    let outputs = streamed(&mut lossy, &data, StreamOptions::default());
    assert_predicted(&outputs, &session("virtual:spin3").predict(&data).unwrap());
}

#[test]
fn a_dead_core_ends_the_stream_and_the_session_goes_on_without_it() {
    let data = data(60);
    let predicted = session("virtual:spin3").predict(&data).unwrap();
    let chip = ChipXy::new(0, 0);
    let mut board = VirtualBoard::with_config(spinnaker_machine::Machine::spin3(), Default::default());
    let mut probe = session("virtual:spin3");
    let began_s = probe.stream(StreamOptions::default().samples_per_chip(2)).unwrap().machine_time_s();
    board.kill_core_at(chip, 1, began_s + 5e-3);
    let mut session = Model::untrained(graph(), 3).on(Machine::from_board("test", Box::new(board))).unwrap();
    let mut stream = session.stream(StreamOptions::default().capacity(60).batch_max(4).samples_per_chip(2)).unwrap();
    for sample in samples(&data) {
        assert!(matches!(stream.push(sample).unwrap(), Push::Accepted(_)));
    }
    let mut answered = Vec::new();
    let error = loop {
        match stream.pop() {
            Ok(Some(output)) => answered.push(output),
            Ok(None) => panic!("the stream came to its end"),
            Err(error) => break error,
        }
    };
    match &error {
        Error::Core { cores, .. } => assert!(cores.iter().any(|c| c.chip == chip && c.core == 1), "{error}"),
        other => panic!("{other}"),
    }
    assert!(!answered.is_empty() && answered.len() < 60);
    // Over means over.
    assert!(stream.pop().unwrap().is_none());
    assert!(stream.push(samples(&data).next().unwrap()).is_err());
    drop(stream);
    assert_eq!(session.predict(&data).unwrap(), predicted);
    assert_predicted(&streamed(&mut session, &data, StreamOptions::default()), &predicted);
}

#[test]
fn bytes_stream_too() {
    let data = data(21);
    let mut session = session("virtual:spin3");
    session.set_format(Format::Int8).unwrap();
    let error = session.stream(StreamOptions::default()).err().unwrap();
    assert!(error.is_input() && error.to_string().contains("calibrate"), "{error}");
    let predicted = session.predict(&data).unwrap();
    assert_predicted(&streamed(&mut session, &data, StreamOptions::default()), &predicted);
}

#[test]
fn a_sink_and_a_stream_of_futures() {
    let data = data(50);
    let mut session = session("virtual:spin3");
    let predicted = session.predict(&data).unwrap();
    let (sink, outputs) = session.stream(StreamOptions::default().capacity(4)).unwrap().split();
    let mut inputs = futures::stream::iter(samples(&data).map(Ok::<_, Error>));
    let send = async move {
        let mut sink = pin!(sink);
        sink.send_all(&mut inputs).await?;
        sink.close().await
    };
    let (sent, outputs) = futures::executor::block_on(futures::future::join(send, outputs.collect::<Vec<_>>()));
    sent.unwrap();
    let outputs: Vec<Output> = outputs.into_iter().collect::<Result<_, _>>().unwrap();
    assert_predicted(&outputs, &predicted);
}
