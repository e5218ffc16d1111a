//! The figures that the README quotes, measured: machine times are simulated and exact, wall times are of this host.

use std::process::Command;
use std::time::Instant;

use serde_json::{Value, json};
use spidnn::stream::{StreamOptions, Summary, samples};
use spidnn::{
    Activation, Dataset, Dense, Error, Evaluate, Fit, Format, Input, Loss, Machine, Model, Optimizer, Sequential,
    Session, Tensor,
};
use spinnaker_machine::{Locator, RandomFaults};

use crate::args::Common;
use crate::output::{self, Answer};

/// One figure.
struct Figure {
    name: String,
    value: f64,
    unit: &'static str,
    /// What it must reach, in words, and whether it does.
    target: Option<(String, bool)>,
}

impl Figure {
    fn new(name: impl Into<String>, value: f64, unit: &'static str) -> Figure {
        Figure { name: name.into(), value, unit, target: None }
    }
    fn at_most(mut self, limit: f64) -> Figure {
        self.target = Some((format!("at most {limit}"), self.value <= limit));
        self
    }
    fn at_least(mut self, limit: f64) -> Figure {
        self.target = Some((format!("at least {limit}"), self.value >= limit));
        self
    }
}

type Benchmark = (&'static str, fn(&Common) -> Result<Vec<Figure>, Error>);

/// All benchmarks, quick ones first.
const ALL: [Benchmark; 9] = [
    ("dense-512", dense_512),
    ("lenet5-one-image", lenet5_one_image),
    ("lenet5-stream", lenet5_stream),
    ("lenet5-cycles", lenet5_cycles),
    ("replicas", replicas),
    ("lost-packets", lost_packets),
    ("dead-parts", dead_parts),
    ("determinism", determinism),
    ("epoch", epoch),
];

/// Runs the benchmarks whose names contain `only`.
///
/// # Errors
/// If one of them fails, or none has such a name.
pub fn run(only: Option<&str>, common: &Common) -> Result<Answer, Error> {
    let started = Instant::now();
    let chosen: Vec<&Benchmark> = ALL.iter().filter(|(name, _)| only.is_none_or(|o| name.contains(o))).collect();
    if chosen.is_empty() {
        let names: Vec<&str> = ALL.iter().map(|(name, _)| *name).collect();
        return Err(Error::Argument(format!(
            "no benchmark has `{}` in its name: there are {}",
            only.unwrap_or(""),
            names.join(", ")
        )));
    }
    let (mut text, mut rows) = (String::new(), Vec::new());
    for (name, benchmark) in chosen {
        if !common.quiet {
            eprintln!("{name} ..");
        }
        for figure in benchmark(common)? {
            let judged = match &figure.target {
                Some((target, reached)) => format!("  ({target}: {})", if *reached { "yes" } else { "NO" }),
                None => String::new(),
            };
            let small = figure.value != 0.0 && figure.value.abs() < 1e-3;
            let value = if small { format!("{:.2e}", figure.value) } else { format!("{:.4}", figure.value) };
            text.push_str(&format!("{:<58} {value:>12} {}{judged}\n", figure.name, figure.unit));
            rows.push(json!({
                "benchmark": name,
                "figure": figure.name,
                "value": figure.value,
                "unit": figure.unit,
                "target": figure.target.as_ref().map(|(t, _)| t),
                "reached": figure.target.as_ref().map(|(_, r)| r),
            }));
        }
    }
    let mut json = output::idle(&Machine::virtual_spin5(), started);
    json.insert("figures".into(), Value::Array(rows));
    Ok(Answer::new(text, json))
}

const LOSS: Loss = Loss::SparseCategoricalCrossentropy { from_logits: false };

fn lenet5(machine: Machine) -> Result<Session, Error> {
    Model::builtin("lenet5", 1)?.on(machine)
}

fn digits(part: &str, samples: usize) -> Result<Dataset, Error> {
    Ok(Dataset::open(part, None)?.take(samples))
}

/// Core cycles for each multiply-accumulate of what a session did in `act`.
fn cycles_per_mac(
    session: &mut Session,
    act: impl FnOnce(&mut Session) -> Result<(), Error>,
) -> Result<(f64, f64), Error> {
    let before = session.usage();
    act(session)?;
    let after = session.usage();
    let compute_s = after.compute_s - before.compute_s;
    let macs = (after.macs - before.macs).max(1) as f64;
    Ok((compute_s * 200e6 * after.cores as f64 / macs, compute_s))
}

fn dense_512(_: &Common) -> Result<Vec<Figure>, Error> {
    let graph = Sequential::new(Input::shape([512])).with(Dense::new(512).activation(Activation::Linear)).build()?;
    let mut session = Model::untrained(graph, 1).on(Machine::virtual_spin5())?;
    session.limit_chips(1)?;
    let x = Tensor::from_shape_fn(vec![16, 512], |i| ((i[0] * 512 + i[1]) as f32 * 0.37).sin());
    let data = Dataset::inputs(vec![x]);
    session.predict(&data)?;
    let (measured, _) = cycles_per_mac(&mut session, |s| s.predict(&data).map(drop))?;
    let report = session.compiled().map(|c| c.report.clone()).unwrap_or_default();
    let kernel_cycles: u64 = report.stages.iter().filter(|s| s.program == "predict").map(|s| s.cycles_total).sum();
    let planned = kernel_cycles as f64 / report.macs("predict").max(1) as f64;
    Ok(vec![
        Figure::new("Dense 512x512, batch 16, kernel cycles per MAC", planned, "cycles").at_most(5.5),
        Figure::new("Dense 512x512, batch 16, elapsed core cycles per MAC", measured, "cycles"),
    ])
}

fn lenet5_one_image(_: &Common) -> Result<Vec<Figure>, Error> {
    let one = digits("mnist#test", 1)?;
    let ms = |format: Format| -> Result<f64, Error> {
        let mut session = lenet5(Machine::virtual_spin5())?;
        session.set_format(format)?;
        session.limit_chips(1)?;
        session.limit_predictions(1);
        session.predict(&one)?;
        let (_, seconds) = cycles_per_mac(&mut session, |s| s.predict(&one).map(drop))?;
        // From SDRAM to SDRAM: the host's word to start and the cores' word that they are done are not in it.
        Ok(seconds * 1e3)
    };
    let name = |format| format!("LeNet-5, one image on one chip, SDRAM to SDRAM, {format}");
    Ok(vec![
        Figure::new(name("f32"), ms(Format::F32)?, "ms").at_most(1.5),
        Figure::new(name("int8"), ms(Format::Int8)?, "ms").at_most(0.45),
    ])
}

/// Seconds that the virtual machine's link to the host needs for a sample at least: its bytes at the rates of full packets, headers
/// included, and nothing else on the link.
fn link_s(input_bytes: usize, output_bytes: usize) -> f64 {
    let timing = spinnaker_sim::Timing::default();
    let ns = |bytes: usize, packet_ns: u64| bytes as f64 / 256.0 * packet_ns as f64;
    (ns(input_bytes, timing.host_write_packet_ns) + ns(output_bytes, timing.host_read_packet_ns)) * 1e-9
}

fn lenet5_stream(_: &Common) -> Result<Vec<Figure>, Error> {
    let images = digits("mnist#test", 1000)?;
    let mut figures = Vec::new();
    // What an image and its answer take on the link: numbers of four bytes, or for int8 bytes in and numbers out.
    for (format, word, input_bytes) in [(Format::F32, "f32", 4 * 784), (Format::Int8, "int8", 784)] {
        let mut session = lenet5(Machine::virtual_spin5())?;
        session.set_format(format)?;
        session.calibrate(&images)?;
        let outputs: Vec<_> =
            session.stream_over(samples(&images), StreamOptions::default())?.collect::<Result<_, _>>()?;
        let full = Summary::of(&outputs);
        let expected = session.predict(&images)?;
        let same = outputs.iter().zip(expected[0].outer_iter()).all(|(output, row)| output.values[0] == row);
        // One image every 20 ms: nobody waits for another.
        let mut stream = session.stream(StreamOptions::default().capacity(50))?;
        let began_s = stream.machine_time_s();
        for (number, sample) in samples(&images.take(50)).enumerate() {
            let _ = stream.push_at(sample, began_s + number as f64 * 0.02)?;
        }
        let lone = Summary::of(&stream.finish()?);
        let limit_hz = 1.0 / link_s(input_bytes, 40);
        let share = Figure::new(
            format!("LeNet-5 {word}, 1,000 images streamed: of the {limit_hz:.0} images/s that the link carries"),
            full.throughput_hz / limit_hz,
            "",
        );
        let name = |what: &str| format!("LeNet-5 {word}, 1,000 images streamed: {what}");
        figures.extend([
            Figure::new(name("throughput"), full.throughput_hz, "images/s"),
            if format == Format::F32 { share.at_least(0.8) } else { share },
            Figure::new(name("latency, median"), full.latency_median_s * 1e3, "ms"),
            Figure::new(name("latency, 99th of 100"), full.latency_p99_s * 1e3, "ms"),
            Figure::new(name("in order, same bits as predict"), f64::from(same), "").at_least(1.0),
            Figure::new(
                format!("LeNet-5 {word}, one image at a time: latency, median"),
                lone.latency_median_s * 1e3,
                "ms",
            ),
        ]);
    }
    Ok(figures)
}

fn lenet5_cycles(_: &Common) -> Result<Vec<Figure>, Error> {
    // The core model: cycles of the kernels themselves, for a batch of 480 on the whole board.
    let mut session = lenet5(Machine::virtual_spin5())?;
    let batch = digits("mnist", 480)?;
    session.fit(&batch, Fit::new(LOSS).batch_size(480))?;
    let report = session.compiled().map(|c| c.report.clone()).unwrap_or_default();
    let planned = |program: &str| {
        let replicas = report.chips.max(1) as f64;
        let cycles: f64 = report
            .stages
            .iter()
            .filter(|s| s.program == program)
            // The optimizer runs on one chip for all.
            .map(|s| s.cycles_total as f64 * if s.what == "optimizer" { 1.0 } else { replicas })
            .sum();
        cycles / (report.macs(program).max(1) as f64 * replicas)
    };
    let mut figures = vec![
        Figure::new("LeNet-5 forward, kernel cycles per MAC", planned("predict"), "cycles").at_most(8.0),
        Figure::new("LeNet-5 forward+backward+update, kernel cycles per MAC", planned("train"), "cycles").at_most(9.0),
    ];
    // Elapsed: with waiting for memory, barriers, neighbours and the host.
    let mut session = lenet5(Machine::virtual_spin5())?;
    session.limit_chips(1)?;
    let data = digits("mnist", 16)?;
    session.predict(&data)?;
    let (forward, _) = cycles_per_mac(&mut session, |s| s.predict(&data).map(drop))?;
    session.fit(&data, Fit::new(LOSS).batch_size(16))?;
    let (training, _) = cycles_per_mac(&mut session, |s| s.fit(&data, Fit::new(LOSS).batch_size(16)).map(drop))?;
    figures.push(Figure::new("LeNet-5 forward, 16 images on a chip, elapsed core cycles per MAC", forward, "cycles"));
    figures.push(Figure::new("LeNet-5 training, 16 images on a chip, elapsed core cycles per MAC", training, "cycles"));
    Ok(figures)
}

fn replicas(_: &Common) -> Result<Vec<Figure>, Error> {
    const BATCH: usize = 512;
    let data = digits("mnist", BATCH)?;
    // Machine time of a training step over so many chips with so many images, the cores running.
    let mut update_s = 0.0f64;
    let mut step = |chips: usize, images: usize| -> Result<f64, Error> {
        let data = data.take(images);
        let mut session = lenet5(Machine::virtual_spin5())?;
        session.limit_chips(chips)?;
        let fit = || Fit::new(LOSS).batch_size(images).optimizer(Optimizer::sgd(0.01)).shuffle(false);
        session.fit(&data, fit())?;
        let before = session.usage().compute_s;
        session.fit(&data, fit())?;
        let stages = session.compiled().map(|c| c.report.stages.clone()).unwrap_or_default();
        let optimizer = stages.iter().find(|s| s.program == "train" && s.what == "optimizer");
        update_s = optimizer.map_or(0.0, |s| s.cycles_bound() as f64 / 200e6);
        Ok(session.usage().compute_s - before)
    };
    let (one, one_small) = (step(1, BATCH)?, step(1, 1)?);
    let (all, all_small) = (step(48, BATCH)?, step(48, 48)?);
    // With one image on each chip the step differs from that of one image on one chip by the exchange only.
    let exchange = (all_small - one_small).max(0.0);
    let ratio = (one - update_s) / (all - exchange - update_s);
    Ok(vec![
        Figure::new("forward+backward of 512 images: 1 chip / 48 chips", ratio, "times").at_least(40.0),
        Figure::new("the whole training step: 1 chip / 48 chips", one / all, "times"),
        Figure::new("exchange of gradients and weights over 48 chips", exchange * 1e3, "ms"),
    ])
}

/// Predictions of 96 digits, and the weights after two training steps of 96, on a machine.
fn outcome(machine: Machine) -> Result<(Vec<Tensor>, Vec<Tensor>, Session), Error> {
    let data = digits("mnist", 192)?;
    let mut session = lenet5(machine)?;
    let predictions = session.predict(&data)?;
    session.fit(&data, Fit::new(LOSS).batch_size(96).optimizer(Optimizer::adam(0.002)))?;
    let weights = session.get_weights()?;
    Ok((predictions, weights, session))
}

fn same_bits(a: &[Tensor], b: &[Tensor]) -> bool {
    a.len() == b.len()
        && a.iter()
            .zip(b)
            .all(|(a, b)| a.shape() == b.shape() && a.iter().zip(b).all(|(x, y)| x.to_bits() == y.to_bits()))
}

fn lost_packets(_: &Common) -> Result<Vec<Figure>, Error> {
    let (predictions, weights, session) = outcome(Machine::open("virtual:spin5")?)?;
    let plain_s = session.usage().machine_time_s;
    let mut figures = Vec::new();
    for drop in ["0.01", "0.05"] {
        let (p, w, session) = outcome(Machine::open(&format!("virtual:spin5?drop={drop}"))?)?;
        let usage = session.usage();
        let same = same_bits(&p, &predictions) && same_bits(&w, &weights);
        figures
            .push(Figure::new(format!("drop={drop}: same bits as without losses"), f64::from(same), "").at_least(1.0));
        figures.push(
            Figure::new(format!("drop={drop}: packets sent again"), usage.counters.packets_resent as f64, "packets")
                .at_least(1.0),
        );
        figures.push(Figure::new(
            format!("drop={drop}: machine time to that without"),
            usage.machine_time_s / plain_s,
            "times",
        ));
    }
    Ok(figures)
}

fn dead_parts(common: &Common) -> Result<Vec<Figure>, Error> {
    let (predictions, weights, _) = outcome(Machine::virtual_spin5())?;
    let (mut ended, mut same, mut largest) = (0u32, 0u32, 0f64);
    const SEEDS: u64 = 20;
    for seed in 0..SEEDS {
        let mut machine = spinnaker_machine::Machine::spin5();
        machine.fail_random(RandomFaults { chips: 5, cores: 40, links: 10 }, common.seed + seed);
        let board = spidnn::VirtualBoard::with_config(machine, Default::default());
        let (p, w, _) =
            outcome(Machine::from_board(format!("virtual:spin5 with faults of seed {seed}"), Box::new(board)))?;
        ended += 1;
        same += u32::from(same_bits(&p, &predictions));
        for (a, b) in w.iter().zip(&weights) {
            let far = a.iter().zip(b).fold(0f64, |m, (a, b)| m.max(f64::from((a - b).abs())));
            largest = largest.max(far);
        }
    }
    let all = SEEDS as f64;
    Ok(vec![
        Figure::new("5 dead chips, 40 cores, 10 links: runs that end, of 20", ended.into(), "runs").at_least(all),
        Figure::new("predictions with the same bits, of 20", same.into(), "runs").at_least(all),
        Figure::new("largest difference of a trained weight", largest, "").at_most(1e-4),
    ])
}

fn determinism(_: &Common) -> Result<Vec<Figure>, Error> {
    let mut runs = Vec::new();
    for threads in [1, 1, 2] {
        let (p, w, session) = outcome(Machine::open(&format!("virtual:spin5?threads={threads}&drop=0.01"))?)?;
        runs.push((p, w, session.usage().machine_time_s.to_bits()));
    }
    let same = |a: &(Vec<Tensor>, Vec<Tensor>, u64), b: &(Vec<Tensor>, Vec<Tensor>, u64)| {
        same_bits(&a.0, &b.0) && same_bits(&a.1, &b.1) && a.2 == b.2
    };
    Ok(vec![
        Figure::new("two runs: same bits and machine time", f64::from(same(&runs[0], &runs[1])), "").at_least(1.0),
        Figure::new("1 and 2 host threads: same bits and machine time", f64::from(same(&runs[0], &runs[2])), "")
            .at_least(1.0),
    ])
}

/// One epoch of MNIST with batches of 480, and the same in Keras where `SPIDNN_KERAS_PYTHON` names a Python that has it.
fn epoch(common: &Common) -> Result<Vec<Figure>, Error> {
    // Threads as the machine locator says.
    let locator: Locator = common.machine.parse()?;
    let mut session = lenet5(Machine::open(&locator.to_string())?)?;
    let train = Dataset::open("mnist", None)?;
    let started = Instant::now();
    let fit = Fit::new(LOSS).batch_size(480).optimizer(Optimizer::adam(0.002)).metric("accuracy")?;
    let history = session.fit(&train, fit)?;
    let wall_s = started.elapsed().as_secs_f64();
    let usage = session.usage();
    let scores = session.evaluate(&Dataset::open("mnist#test", None)?, &Evaluate::new(LOSS).metric("accuracy")?)?;
    let mut figures = vec![
        Figure::new("LeNet-5, one epoch of MNIST, batch 480, wall time", wall_s, "s").at_most(60.0),
        Figure::new("the same, machine time", usage.machine_time_s, "s"),
        Figure::new("of it with the cores running", usage.compute_s, "s"),
        Figure::new("accuracy on the training data during it", history.last("accuracy").unwrap_or(f64::NAN), ""),
        Figure::new("accuracy on the test data after it", scores.get("accuracy").unwrap_or(f64::NAN), ""),
    ];
    if let Some(bytes) = peak_memory_bytes() {
        figures.push(Figure::new("peak memory of this process", bytes / 1e9, "GB").at_most(3.0));
    }
    match keras_epoch_s() {
        Some(keras_s) => figures.push(Figure::new("wall time to that of Keras", wall_s / keras_s, "times")),
        None => eprintln!("Keras not run: set SPIDNN_KERAS_PYTHON to a Python that has it"),
    }
    Ok(figures)
}

/// Largest resident set of this process, where the system tells it.
fn peak_memory_bytes() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|l| l.starts_with("VmHWM:"))?;
    let kib: f64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib * 1024.0)
}

const KERAS: &str = r"
import sys, time, gzip, numpy as np, keras
def read(name, skip):
    return np.frombuffer(gzip.open(sys.argv[1] + '/' + name).read(), np.uint8)[skip:]
x = read('train-images-idx3-ubyte.gz', 16).reshape(-1, 28, 28, 1).astype('float32') / 255
y = read('train-labels-idx1-ubyte.gz', 8)
L = keras.layers
m = keras.Sequential([L.Input((28, 28, 1)), L.Conv2D(6, 5, padding='same', activation='tanh'), L.AveragePooling2D(2),
    L.Conv2D(16, 5, activation='tanh'), L.AveragePooling2D(2), L.Flatten(), L.Dense(120, activation='tanh'),
    L.Dense(84, activation='tanh'), L.Dense(10, activation='softmax')])
m.compile(loss='sparse_categorical_crossentropy', optimizer=keras.optimizers.Adam(0.002), metrics=['accuracy'])
m.fit(x[:960], y[:960], batch_size=480, verbose=0)
t = time.time()
m.fit(x, y, batch_size=480, verbose=0)
print('seconds', time.time() - t)
";

/// Wall time of the same epoch in Keras, after a warm-up.
fn keras_epoch_s() -> Option<f64> {
    let python = std::env::var_os("SPIDNN_KERAS_PYTHON")?;
    let folder = spidnn::data::mnist_folder().ok()?;
    let out = Command::new(python).arg("-c").arg(KERAS).arg(folder).output().ok()?;
    let text = String::from_utf8_lossy(&out.stdout);
    text.lines().find_map(|l| l.strip_prefix("seconds "))?.trim().parse().ok()
}
