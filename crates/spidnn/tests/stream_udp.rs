//! Streams over UDP on the loopback: bits of predict, losses noticed and made good, strangers ignored.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use spidnn::stream::StreamOptions;
use spidnn::stream::udp::{
    Bridge, Counters, Keys, Layout, Lost, News, Received, Receiver, Sdp, Sender, StreamUdp, UdpInput, UdpOutput,
};
use spidnn::{
    Activation, Concatenate, Dataset, Dense, Flatten, Functional, Graph, Input, Machine, Model, Sequential, Session,
    Tensor,
};

const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
/// Where datagrams are lost on purpose; elsewhere none is waited for, however busy this computer is.
const PATIENCE: Duration = Duration::from_millis(60);
const LONG_PATIENCE: Duration = Duration::from_secs(10);
/// No test waits longer for anything.
const LIMIT: Duration = Duration::from_secs(30);

fn graph() -> Graph {
    Sequential::new(Input::shape([4, 10]))
        .with(Dense::new(6).activation(Activation::Tanh))
        .with(Flatten::new())
        .with(Dense::new(3).activation(Activation::Softmax))
        .build()
        .unwrap()
}

fn session(graph: Graph) -> Session {
    Model::untrained(graph, 3).on(Machine::open("virtual:spin3").unwrap()).unwrap()
}

fn inputs(samples: usize, shape: &[usize], salt: f32) -> Tensor {
    let shape = [&[samples], shape].concat();
    let mut n = 0.0f32;
    Tensor::from_shape_simple_fn(shape, || {
        n += 1.0;
        (n * 0.7 + salt).sin()
    })
}

fn settings(layouts: &[Layout], outputs: Vec<UdpOutput>, lost: Lost, patience: Duration) -> StreamUdp {
    let input = |&layout: &Layout| UdpInput { listen: ANY, layout, sources: Vec::new() };
    StreamUdp { inputs: layouts.iter().map(input).collect(), outputs, lost, patience }
}

fn row(tensor: &Tensor, sample: usize) -> Vec<f32> {
    tensor.index_axis(ndarray::Axis(0), sample).iter().copied().collect()
}

/// A source of pseudo-random numbers below `below`.
fn draws(mut state: u64) -> impl FnMut(u64) -> u64 {
    move |below| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    }
}

/// Between two ends: loses, doubles and delays datagrams (so many of 100 each), both ways.
fn relay(near: UdpSocket, far_end: SocketAddr, faults: [u64; 3], stop: &AtomicBool) {
    let far = UdpSocket::bind(ANY).unwrap();
    for socket in [&near, &far] {
        socket.set_nonblocking(true).unwrap();
    }
    let mut draw = draws(7);
    let mut near_end = None;
    let mut held: Option<(bool, Vec<u8>)> = None;
    let mut buffer = [0; 2048];
    while !stop.load(Ordering::Relaxed) {
        let mut idle = true;
        for outward in [true, false] {
            let Ok((bytes, from)) = (if outward { &near } else { &far }).recv_from(&mut buffer) else { continue };
            idle = false;
            if outward {
                near_end = Some(from);
            }
            let put = |outward: bool, bytes: &[u8]| match (outward, near_end) {
                (true, _) => drop(far.send_to(bytes, far_end)),
                (false, Some(end)) => drop(near.send_to(bytes, end)),
                (false, None) => {}
            };
            if draw(100) < faults[0] {
                continue;
            }
            if draw(100) < faults[2] && held.is_none() {
                held = Some((outward, buffer[..bytes].to_vec()));
                continue;
            }
            put(outward, &buffer[..bytes]);
            if draw(100) < faults[1] {
                put(outward, &buffer[..bytes]);
            }
            if let Some((outward, bytes)) = held.take() {
                put(outward, &bytes);
            }
        }
        if idle {
            std::thread::sleep(Duration::from_micros(200));
        }
    }
}

/// Samples and their values as a receiver got them, and the lost ones.
#[derive(Debug, Default)]
struct Got {
    samples: Vec<(u64, Vec<f32>)>,
    stamps: usize,
    lost: Vec<u64>,
    ended: bool,
}

fn receive_all(receiver: &mut Receiver, samples: u64) -> Got {
    let mut got = Got::default();
    let deadline = Instant::now() + LIMIT;
    while Instant::now() < deadline {
        match receiver.receive(Duration::from_millis(50)) {
            Some(Received::Sample { sequence, values, stamp }) => {
                got.stamps += usize::from(stamp.is_some_and(|s| s.answered_us > s.pushed_us));
                got.samples.push((sequence, values));
            }
            Some(Received::Lost { first, count }) => got.lost.extend(first..first + count),
            Some(Received::End) => {
                got.ended = true;
                break;
            }
            None if (got.samples.len() + got.lost.len()) as u64 >= samples => break,
            None => {}
        }
    }
    got
}

/// What a run through a bridge needs.
struct Setup<'a> {
    graph: Graph,
    data: &'a [Tensor],
    layouts: Vec<Layout>,
    lost: Lost,
    /// Of the ways in, and of the ways out.
    faults: [[u64; 3]; 2],
    samples_max: Option<u64>,
}

/// Sends all samples through a bridge: what the receiver of each output got, the bridge's counters and news.
fn through_bridge(setup: &Setup<'_>) -> (Vec<Got>, Counters, Vec<News>) {
    let samples = setup.data[0].shape()[0];
    let patience = if setup.faults == [[0; 3]; 2] { LONG_PATIENCE } else { PATIENCE };
    let outputs: Vec<usize> =
        setup.graph.outputs.iter().map(|n| setup.graph.nodes[n.0].shape.iter().product()).collect();
    let keys: Vec<Keys> = outputs.iter().map(|&n| Keys::for_elements(0x7000_0000, n).unwrap()).collect();
    let (stop, halt) = (AtomicBool::new(false), AtomicBool::new(false));
    let receivers: Vec<Receiver> = keys
        .iter()
        .zip(&outputs)
        .map(|(&keys, &elements)| Receiver::new(ANY, keys, elements, Vec::new(), setup.lost, patience).unwrap())
        .collect();
    let mut session = session(setup.graph.clone());
    std::thread::scope(|scope| {
        let (stop, halt) = (&stop, &halt);
        let near = || UdpSocket::bind(ANY).unwrap();
        let mut udp_outputs = Vec::new();
        for (output, (receiver, &keys)) in receivers.iter().zip(&keys).enumerate() {
            let (socket, far_end) = (near(), receiver.address().unwrap());
            udp_outputs.push(UdpOutput { output, to: socket.local_addr().unwrap(), keys });
            scope.spawn(move || relay(socket, far_end, setup.faults[1], stop));
        }
        let mut bridge =
            Bridge::open(session.graph(), &settings(&setup.layouts, udp_outputs, setup.lost, patience)).unwrap();
        let mut senders = Vec::new();
        for (input, address) in bridge.addresses().unwrap().into_iter().enumerate() {
            let (socket, layout) = (near(), setup.layouts[input]);
            let to = socket.local_addr().unwrap();
            scope.spawn(move || relay(socket, address, setup.faults[0], stop));
            senders.push(Sender::new(to, layout, setup.data[input].len() / samples, 200).unwrap());
        }
        let sending = scope.spawn(move || {
            for sample in 0..samples {
                for (sender, tensor) in senders.iter_mut().zip(setup.data) {
                    assert_eq!(sender.send(&row(tensor, sample)).unwrap(), sample as u64);
                    sender.answer().unwrap();
                }
                // The window of the other end is bounded: a source has a pace.
                std::thread::sleep(Duration::from_millis(1));
            }
            senders.iter_mut().for_each(|sender| sender.end().unwrap());
            let deadline = Instant::now() + LIMIT;
            while !stop.load(Ordering::Relaxed) && Instant::now() < deadline {
                senders.iter_mut().for_each(|sender| sender.answer().unwrap());
                std::thread::sleep(Duration::from_millis(1));
            }
            halt.store(true, Ordering::Relaxed);
        });
        let receiving: Vec<_> = receivers
            .into_iter()
            .map(|mut receiver| scope.spawn(move || receive_all(&mut receiver, samples as u64)))
            .collect();
        let mut news = Vec::new();
        let mut stream = session.stream(StreamOptions::default()).unwrap();
        bridge.serve(&mut stream, setup.samples_max, halt, |n| news.push(n)).unwrap();
        let got = receiving.into_iter().map(|thread| thread.join().unwrap()).collect();
        stop.store(true, Ordering::Relaxed);
        sending.join().unwrap();
        (got, bridge.counters(), news)
    })
}

fn assert_bits(got: &Got, predicted: &Tensor) {
    assert!(!got.samples.is_empty());
    for (sequence, values) in &got.samples {
        let expected = row(predicted, *sequence as usize);
        assert_eq!(values.len(), expected.len());
        assert!(values.iter().zip(&expected).all(|(a, b)| a.to_bits() == b.to_bits()), "sample {sequence}");
    }
    assert!(got.samples.windows(2).all(|w| w[0].0 < w[1].0));
}

fn layouts() -> [Layout; 2] {
    [Layout::Keys(Keys::for_elements(0x5000_0000, 40).unwrap()), Layout::Sdp(Sdp { tag: 3, port: 2 })]
}

#[test]
fn samples_of_eieio_and_of_sdp_are_answered() {
    let data = [inputs(90, &[4, 10], 0.0)];
    let predicted = session(graph()).predict(&Dataset::inputs(data.to_vec())).unwrap();
    for layout in layouts() {
        let setup = Setup {
            graph: graph(),
            data: &data,
            layouts: vec![layout],
            lost: Lost::Report,
            faults: [[0; 3]; 2],
            samples_max: None,
        };
        let (got, counters, news) = through_bridge(&setup);
        assert_eq!((got[0].samples.len(), got[0].stamps, got[0].lost.len()), (90, 90, 0), "{counters:?}");
        assert!(got[0].ended);
        assert_bits(&got[0], &predicted[0]);
        assert!(matches!(news[0], News::Answered { sequence: 0, latency_ns } if latency_ns > 0));
        assert_eq!(counters, Counters { received: counters.received, ..Counters::default() });
    }
}

#[test]
fn several_inputs_and_outputs_each_have_their_own() {
    let mut net = Functional::new("two");
    let left = net.input(Input::shape([3])).unwrap();
    let right = net.input(Input::shape([5])).unwrap();
    let both = net.call(Concatenate::new(), &[left, right]).unwrap();
    let wide = net.call(Dense::new(7).activation(Activation::Tanh), &[both]).unwrap();
    let narrow = net.call(Dense::new(2), &[wide]).unwrap();
    let graph = net.build([left, right], [narrow, wide]).unwrap();
    let data = [inputs(70, &[3], 1.0), inputs(70, &[5], 2.0)];
    let predicted = session(graph.clone()).predict(&Dataset::inputs(data.to_vec())).unwrap();
    let setup = Setup {
        graph,
        data: &data,
        layouts: vec![Layout::Keys(Keys::for_elements(0, 3).unwrap()), Layout::Sdp(Sdp { tag: 3, port: 2 })],
        lost: Lost::Report,
        faults: [[0; 3]; 2],
        samples_max: Some(70),
    };
    let (got, counters, _) = through_bridge(&setup);
    for (got, predicted) in got.iter().zip(&predicted) {
        assert_eq!(got.samples.len(), 70, "{counters:?}");
        assert_bits(got, predicted);
    }
}

#[test]
fn what_is_lost_is_sent_again() {
    let data = [inputs(150, &[4, 10], 0.0)];
    let predicted = session(graph()).predict(&Dataset::inputs(data.to_vec())).unwrap();
    for layout in layouts() {
        let setup = Setup {
            graph: graph(),
            data: &data,
            layouts: vec![layout],
            lost: Lost::Resend { tries_max: 8 },
            faults: [[10, 5, 10]; 2],
            samples_max: Some(150),
        };
        let (got, counters, _) = through_bridge(&setup);
        assert_eq!((got[0].samples.len(), got[0].lost.len()), (150, 0), "{counters:?}");
        assert_bits(&got[0], &predicted[0]);
        assert!(counters.asked > 0 && counters.resent > 0 && counters.duplicates > 0, "{counters:?}");
    }
}

#[test]
fn what_is_lost_is_reported() {
    let data = [inputs(150, &[4, 10], 0.0)];
    let predicted = session(graph()).predict(&Dataset::inputs(data.to_vec())).unwrap();
    let setup = Setup {
        graph: graph(),
        data: &data,
        layouts: vec![layouts()[0]],
        lost: Lost::Report,
        faults: [[5, 0, 0], [0; 3]],
        samples_max: None,
    };
    let (got, counters, news) = through_bridge(&setup);
    let lost: u64 = news.iter().map(|n| if let News::Lost { count, .. } = n { *count } else { 0 }).sum();
    assert!(lost > 0 && counters.lost_samples == lost && counters.asked == 0, "{counters:?}");
    // The receiver knows of every sample.
    assert_eq!(got[0].lost.len() as u64, lost);
    assert_eq!(got[0].samples.len() as u64 + lost, 150, "{counters:?}");
    assert_bits(&got[0], &predicted[0]);
}

#[test]
fn strangers_are_ignored_and_counted() {
    let data = inputs(3, &[4, 10], 0.0);
    let predicted = session(graph()).predict(&Dataset::inputs(vec![data.clone()])).unwrap();
    let keys = Keys::for_elements(0x5000_0000, 40).unwrap();
    let out_keys = Keys::for_elements(0, 3).unwrap();
    let mut receiver = Receiver::new(ANY, out_keys, 3, Vec::new(), Lost::Report, LONG_PATIENCE).unwrap();
    let to = receiver.address().unwrap();
    let udp =
        settings(&[Layout::Keys(keys)], vec![UdpOutput { output: 0, to, keys: out_keys }], Lost::Report, LONG_PATIENCE);
    let mut session = session(graph());
    let mut bridge = Bridge::open(session.graph(), &udp).unwrap();
    let address = bridge.addresses().unwrap()[0];
    let mut ours = Sender::new(address, Layout::Keys(keys), 40, 10).unwrap();
    ours.send(&row(&data, 0)).unwrap();
    let mut stream = session.stream(StreamOptions::default()).unwrap();
    bridge.serve(&mut stream, Some(1), &AtomicBool::new(false), |_| {}).unwrap();
    // Another computer's program that sends what could be ours, then its own noise.
    let mut stranger = Sender::new(address, Layout::Keys(keys), 40, 10).unwrap();
    for sample in [0, 2, 1] {
        stranger.send(&row(&data, sample)).unwrap();
    }
    stranger.end().unwrap();
    // Ours, with keys of others.
    let port = ours.port().unwrap();
    drop(ours);
    let ours = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap();
    let key = |base: u32, sequence: u32| base | sequence << keys.element_bits;
    let item = |key: u32| [&[1, 0x0C][..], &key.to_le_bytes(), &1f32.to_le_bytes()].concat();
    ours.send_to(&item(key(0x6000_0000, 1)), address).unwrap();
    ours.send_to(&item(key(keys.base, 0x7FFF)), address).unwrap();
    ours.send_to(&item(key(keys.base, 1) | 63), address).unwrap();
    let mut draw = draws(3);
    for _ in 0..200 {
        let noise: Vec<u8> = (0..draw(300)).map(|_| draw(256) as u8).collect();
        ours.send_to(&noise, address).unwrap();
    }
    let values: Vec<u8> = row(&data, 1)
        .iter()
        .enumerate()
        .flat_map(|(i, v)| [(key(keys.base, 1) | i as u32).to_le_bytes(), v.to_le_bytes()].concat())
        .collect();
    for (items, part) in values.chunks(20 * 8).enumerate() {
        assert!(items < 2);
        ours.send_to(&[&[20, 0x0C], part].concat(), address).unwrap();
    }
    bridge.serve(&mut stream, Some(2), &AtomicBool::new(false), |_| {}).unwrap();
    let got = receive_all(&mut receiver, 2);
    assert_eq!(got.samples.iter().map(|s| s.0).collect::<Vec<_>>(), [0, 1]);
    assert_bits(&got, &predicted[0]);
    let counters = bridge.counters();
    assert_eq!(counters.strangers, 3 * 2 + 3, "{counters:?}");
    assert!(counters.foreign >= 1 && counters.malformed >= 100 && counters.out_of_window >= 1, "{counters:?}");
    assert_eq!((counters.lost_samples, counters.asked), (0, 0));
}

#[test]
fn settings_that_do_not_fit_are_named() {
    let graph = graph();
    let check = |udp: StreamUdp, words: &[&str]| {
        let error = Bridge::open(&graph, &udp).err().unwrap();
        let message = error.to_string();
        assert!(error.is_input() && words.iter().all(|w| message.contains(w)), "{message}");
    };
    let [keys, sdp] = layouts();
    check(settings(&[], Vec::new(), Lost::Report, PATIENCE), &["1 inputs", "0 are"]);
    let few = Layout::Keys(Keys { base: 0, element_bits: 3, sequence_bits: 8 });
    check(settings(&[few], Vec::new(), Lost::Report, PATIENCE), &["40 elements"]);
    check(settings(&[Layout::Sdp(Sdp { tag: 0, port: 8 })], Vec::new(), Lost::Report, PATIENCE), &["SDP port 8"]);
    let output = UdpOutput { output: 1, to: ANY, keys: Keys::for_elements(0, 3).unwrap() };
    check(settings(&[keys], vec![output], Lost::Report, PATIENCE), &["no output 1"]);
    let taken = UdpSocket::bind(ANY).unwrap().local_addr().unwrap();
    let held = UdpSocket::bind(taken).unwrap();
    let input = UdpInput { listen: held.local_addr().unwrap(), layout: sdp, sources: Vec::new() };
    let udp = StreamUdp { inputs: vec![input], outputs: Vec::new(), lost: Lost::Report, patience: PATIENCE };
    check(udp, &[&taken.to_string(), "free"]);
}
