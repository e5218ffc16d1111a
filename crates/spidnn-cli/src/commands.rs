//! What each command does.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use serde_json::{Map, Value, json};
use spidnn::compiler::report::{Report, StageReport};
use spidnn::compiler::{Compiled, LayerAccuracy, Options, Training};
use spidnn::data::guess_loss;
use spidnn::names::{loss_name, optimizer_name, parse_loss, parse_optimizer};
use spidnn::{
    CSVLogger, Callback, Dataset, EarlyStopping, Error, Evaluate, Fit, Graph, LearningRate, Loss, Machine, Metric,
    Model, Optimizer, Session, Tensor, Validation,
};

use crate::args::{self, Cli, Command, Common, Format};
use crate::output::{self, Answer};
use crate::{app, bench, board, doctor, machine, progress, stream, trace};

/// Carries out a command.
///
/// # Errors
/// Bad input, or a run that failed: see [`Error::is_input`].
pub fn run(cli: &Cli) -> Result<Answer, Error> {
    let common = &cli.common;
    check_common(common)?;
    match &cli.command {
        Command::Info { model } => info(model, common),
        Command::Compile { model, batch_size, loss, optimizer } => {
            compile(model, *batch_size, loss.as_deref(), optimizer, common)
        }
        Command::Predict { model, inputs, output, samples } => {
            predict(model, inputs, output.as_deref(), *samples, common)
        }
        Command::Stream(options) => stream::run(options, common),
        Command::Evaluate { model, data, loss, metrics, samples } => {
            evaluate(model, data, loss.as_deref(), metrics.as_deref(), *samples, common)
        }
        Command::Fit(fit) => train(fit, common),
        Command::Machine { locator } => machine::run(locator.as_deref().unwrap_or(&common.machine)),
        Command::Doctor { locator } => doctor::run(locator.as_deref().unwrap_or(&common.machine)),
        Command::App(options) => app::run(options),
        Command::Board(options) => board::run(options, common),
        Command::Bench { only } => bench::run(only.as_deref(), common),
    }
}

/// Options whose values this version does not have yet.
fn check_common(common: &Common) -> Result<(), Error> {
    if common.calibration.is_some() && common.format != Format::Int8 {
        return Err(Error::Argument("--calibration is for --format int8: other formats need no ranges".into()));
    }
    match common.groups.as_str() {
        "auto" | "1" => Ok(()),
        other => Err(Error::Argument(format!(
            "--groups {other}: in this version one chip holds one copy of the model; leave the option out, or give auto or 1"
        ))),
    }?;
    if let Some(path) = &common.trace {
        output::check_output(path, &[])?;
    }
    if let Some(folder) = &common.report {
        std::fs::create_dir_all(folder).map_err(|source| Error::Write { path: folder.clone(), source })?;
        output::check_output(&folder.join("report.txt"), &[])?;
    }
    Ok(())
}

/// A machine, with a trace if one is wanted.
pub struct Opened {
    pub(crate) machine: Machine,
    pub(crate) events: Option<trace::Events>,
}

/// Opens the machine of a command that leaves it clean when it is interrupted.
pub(crate) fn open_interruptible(common: &Common) -> Result<Opened, Error> {
    // A machine inside this process ends with it.
    if common.machine.starts_with("virtual:") {
        return open_machine(common, None);
    }
    let flag = interrupt_flag(LEAVING)?;
    let mut opened = open_machine(common, Some(&flag))?;
    opened.machine.board_mut().set_interrupt(flag);
    Ok(opened)
}

/// Opens the machine of a command; `interrupt` ends that, and nothing later.
pub(crate) fn open_machine(common: &Common, interrupt: Option<&AtomicBool>) -> Result<Opened, Error> {
    let quiet = common.quiet;
    let machine = Machine::open_until(&common.machine, interrupt, |text| {
        if !quiet {
            eprintln!("{text}");
        }
    })?;
    if common.trace.is_none() {
        return Ok(Opened { machine, events: None });
    }
    let (machine, events) = trace::traced(machine);
    Ok(Opened { machine, events: Some(events) })
}

/// Writes what `--trace` and `--report` ask for.
pub(crate) fn write_extras(
    common: &Common,
    events: Option<&trace::Events>,
    session: &Session,
    answer: &Answer,
) -> Result<(), Error> {
    if let (Some(path), Some(events)) = (&common.trace, events) {
        output::write_text(path, &trace::file_text(events))?;
    }
    if let Some(folder) = &common.report {
        if let Some(compiled) = session.compiled() {
            output::write_text(&folder.join("plan.txt"), &compiled.report.to_string())?;
            output::write_text(&folder.join("plan.json"), &plan_json(&compiled.report).to_string())?;
        }
        output::write_text(&folder.join("report.txt"), &answer.text)?;
        output::write_text(&folder.join("report.json"), &Value::Object(answer.json.clone()).to_string())?;
    }
    Ok(())
}

fn info(model: &str, common: &Common) -> Result<Answer, Error> {
    let started = Instant::now();
    let model = Model::open_for_inference(model, common.seed)?;
    let graph = model.graph();
    let mut json = output::idle(&Machine::open(&common.machine)?, started);
    json.insert("model".into(), json!(graph.name));
    json.insert("parameters".into(), json!(graph.parameter_count()));
    json.insert("trainable_parameters".into(), json!(graph.trainable_parameter_count()));
    json.insert("macs_per_sample".into(), json!(graph.total_macs()));
    let ends = |nodes: &[spidnn::NodeId]| -> Value {
        nodes.iter().map(|&n| json!({ "name": graph.layer_of(n).name, "shape": graph.node(n).shape })).collect()
    };
    json.insert("inputs".into(), ends(&graph.inputs));
    json.insert("outputs".into(), ends(&graph.outputs));
    json.insert("layers".into(), layers_json(graph));
    let mut text = model.summary();
    text.push_str(&format!(
        " Multiply-accumulates for one sample: {}\n Weights: {}",
        graph.total_macs(),
        weights_line(&model)
    ));
    Ok(Answer::new(text, json))
}

fn weights_line(model: &Model) -> String {
    let largest = model.weights().iter().flat_map(|w| w.iter()).fold(0f32, |a, &v| a.max(v.abs()));
    match model.training() {
        Some(training) => {
            let steps = training.state.as_ref().map_or(0, |s| s.iterations);
            let loss = training.loss.as_ref().map_or("another loss", loss_name);
            let optimizer = training.optimizer.as_ref().map_or("another optimizer", optimizer_name);
            format!("largest magnitude {largest}; compiled with {loss} and {optimizer}, {steps} steps done")
        }
        None => format!("largest magnitude {largest}"),
    }
}

fn layers_json(graph: &Graph) -> Value {
    let layer = |i: usize| {
        let id = spidnn::LayerId(i);
        let calls = graph.calls(id);
        let params: Vec<Value> = graph.layers[i]
            .params
            .iter()
            .map(|p| json!({ "name": graph.param(*p).name, "shape": graph.param(*p).shape, "trainable": graph.param(*p).trainable }))
            .collect();
        json!({
            "name": graph.layers[i].name,
            "class": graph.layers[i].kind.class_name(),
            "output_shapes": calls.iter().map(|&n| graph.node(n).shape.clone()).collect::<Vec<_>>(),
            "inputs": calls.iter().flat_map(|&n| graph.node(n).inputs.iter().map(|&i| graph.layer_of(i).name.clone())).collect::<Vec<_>>(),
            "parameters": graph.layer_parameter_count(id),
            "params": params,
            "macs": calls.iter().map(|&n| graph.macs(n)).sum::<u64>(),
        })
    };
    (0..graph.layers.len()).map(layer).collect()
}

fn compile(
    model: &str,
    batch_size: usize,
    loss: Option<&str>,
    optimizer: &str,
    common: &Common,
) -> Result<Answer, Error> {
    let started = Instant::now();
    let training = match loss {
        Some(loss) => Some((parse_loss(loss)?, parse_optimizer(optimizer)?)),
        None => None,
    };
    let model = Model::open_for_inference(model, common.seed)?;
    let machine = Machine::open(&common.machine)?;
    let losses = |loss| vec![loss; model.graph().outputs.len()];
    let options = Options {
        training: training.map(|(loss, optimizer)| Training { losses: losses(loss), optimizer, batch_size }),
        format: compiler_format(&model, &any_inputs(model.graph()), common)?,
        ..Options::inference(batch_size)
    };
    let compiled = spidnn::compiler::compile(model.graph(), machine.board().machine(), &options)?;
    let accuracy = match &common.calibration {
        Some(data) => model.layer_accuracy(&options.format, &open_data(data, model.graph(), None)?)?,
        None => Vec::new(),
    };
    let report = &compiled.report;
    let mut json = output::idle(&machine, started);
    json.insert("format".into(), json!(options.format.name()));
    json.insert("layer_accuracy".into(), accuracy_json(&accuracy));
    if let Some(Value::Object(machine)) = json.get_mut("machine") {
        machine.insert("chips_used".into(), json!(report.chips));
        machine.insert("cores_used".into(), json!(report.cores));
    }
    json.insert("plan".into(), plan_json(report));
    json.insert("cores".into(), cores_json(&compiled));
    let answer = Answer::new(format!("{report}{}", accuracy_text(&accuracy)), json);
    if let Some(folder) = &common.report {
        output::write_text(&folder.join("plan.txt"), &answer.text)?;
        output::write_text(&folder.join("plan.json"), &plan_json(report).to_string())?;
    }
    Ok(answer)
}

fn stage_json(stage: &StageReport) -> Value {
    json!({
        "program": stage.program,
        "layer": stage.layer,
        "what": stage.what,
        "kernel": stage.kernel,
        "cores": stage.cores,
        "cycles": stage.cycles_bound(),
        "cycles_busiest": stage.cycles_busiest,
        "cycles_total": stage.cycles_total,
        "limit": stage.limit(),
        "dma_bytes": stage.dma_bytes,
        "dtcm_bytes": stage.dtcm_bytes,
        "macs": stage.macs,
    })
}

fn plan_json(report: &Report) -> Value {
    let programs: Map<String, Value> = ["predict", "evaluate", "train"]
        .into_iter()
        .filter(|program| report.stages.iter().any(|s| s.program == *program))
        .map(|program| {
            let cycles = report.cycles(program);
            let slowest = report.slowest(program);
            let value = json!({
                "cycles": cycles,
                "time_s": cycles as f64 / 200e6,
                "macs": report.macs(program),
                "stages": slowest.into_iter().map(stage_json).collect::<Vec<_>>(),
            });
            (program.to_string(), value)
        })
        .collect();
    json!({
        "model": report.model,
        "chips": report.chips,
        "cores": report.cores,
        "samples_per_chip": report.samples_per_chip,
        "sdram_bytes": report.sdram_bytes.iter().map(|(n, b)| (n.clone(), json!(b))).collect::<Map<_, _>>(),
        "sdram_total_bytes": report.sdram_total_bytes(),
        "sdram_available_bytes": report.sdram_available_bytes,
        "routing_entries": report.routing_entries.0,
        "routing_entries_before_minimisation": report.routing_entries.1,
        "command_words": report.command_words,
        "programs": programs,
        "root_cores": report.root_cores.iter().map(|c| json!({
            "core": c.core,
            "dtcm_bytes": c.dtcm_bytes,
            "command_words": c.command_words,
            "cycles": c.cycles.iter().map(|(program, cycles)| ((*program).to_owned(), json!(cycles))).collect::<Map<_, _>>(),
        })).collect::<Vec<_>>(),
    })
}

/// What each chip is loaded with.
fn cores_json(compiled: &Compiled) -> Value {
    compiled
        .chips
        .iter()
        .map(|(chip, image)| {
            json!({
                "chip": [chip.x, chip.y],
                "cores": image.cores.iter().map(|(core, _)| core).collect::<Vec<_>>(),
                "routing_entries": image.routes.len(),
                "image_bytes": image.sdram.iter().map(|(_, words)| words.len() * 4).sum::<usize>(),
            })
        })
        .collect()
}

/// Names of the outputs in files and JSON: `y` for one, else those of the layers.
pub(crate) fn output_names(graph: &Graph) -> Vec<String> {
    match &graph.outputs[..] {
        [_] => vec!["y".into()],
        many => many.iter().map(|&n| graph.layer_of(n).name.clone()).collect(),
    }
}

/// A table of the layers' accuracy, if there is any.
fn accuracy_text(layers: &[LayerAccuracy]) -> String {
    if layers.is_empty() {
        return String::new();
    }
    let mut text = format!(
        "\nresults against the float model\n  {:<24} {:>6} {:>12} {:>14}\n",
        "layer", "format", "signal/noise", "largest error"
    );
    for l in layers {
        let why = l.why.map_or(String::new(), |w| format!("  ({w})"));
        text.push_str(&format!(
            "  {:<24} {:>6} {:>9.1} dB {:>14.2e}{why}\n",
            l.layer, l.format, l.signal_to_noise_db, l.largest_error
        ));
    }
    text
}

fn accuracy_json(layers: &[LayerAccuracy]) -> Value {
    let layer = |l: &LayerAccuracy| {
        json!({
            "layer": l.layer,
            "format": l.format,
            "why_not_int8": l.why,
            "signal_to_noise_db": l.signal_to_noise_db,
            "largest_error": l.largest_error,
        })
    };
    layers.iter().map(layer).collect()
}

/// Inputs between 0 and 1, for a plan: what it costs does not depend on the ranges of the numbers.
fn any_inputs(graph: &Graph) -> Dataset {
    let input = |n: &spidnn::NodeId| {
        let shape = [&[1], &graph.node(*n).shape[..]].concat();
        let mut i = 0u32;
        Tensor::from_shape_simple_fn(shape, || {
            i = i.wrapping_mul(747_796_405).wrapping_add(2_891_336_453);
            (i >> 8) as f32 / (1 << 24) as f32
        })
    };
    Dataset::inputs(graph.inputs.iter().map(input).collect())
}

/// The format of the command line as the compiler takes it, with ranges from these inputs unless others are given.
fn compiler_format(model: &Model, inputs: &Dataset, common: &Common) -> Result<spidnn::compiler::Format, Error> {
    Ok(match (common.format, &common.calibration) {
        (Format::F32, _) => spidnn::compiler::Format::F32,
        (Format::Bfp16, _) => spidnn::compiler::Format::Bfp16,
        (Format::Int8, Some(locator)) => {
            spidnn::compiler::Format::Int8(model.quantisation(&open_data(locator, model.graph(), None)?)?)
        }
        (Format::Int8, None) => spidnn::compiler::Format::Int8(model.quantisation(inputs)?),
    })
}

/// A session with the format of the command line.
pub(crate) fn session(model: Model, machine: Machine, common: &Common) -> Result<Session, Error> {
    let calibration = common.calibration.as_deref().map(|c| open_data(c, model.graph(), None)).transpose()?;
    let mut session = model.on(machine)?;
    session.set_format(match common.format {
        Format::F32 => spidnn::Format::F32,
        Format::Bfp16 => spidnn::Format::Bfp16,
        Format::Int8 => spidnn::Format::Int8,
    })?;
    if let Some(data) = calibration {
        session.calibrate(&data)?;
    }
    Ok(session)
}

pub(crate) fn open_data(locator: &str, graph: &Graph, samples: Option<usize>) -> Result<Dataset, Error> {
    let data = Dataset::open(locator, Some(graph))?;
    Ok(match samples {
        Some(count) => data.take(count),
        None => data,
    })
}

fn predict(
    model: &str,
    inputs: &str,
    out: Option<&Path>,
    samples: Option<usize>,
    common: &Common,
) -> Result<Answer, Error> {
    if let Some(path) = out {
        output::check_output(path, &[".npz", ".npy"])?;
    }
    let model = Model::open_for_inference(model, common.seed)?;
    let data = open_data(inputs, model.graph(), samples)?;
    let names = output_names(model.graph());
    let opened = open_interruptible(common)?;
    let mut session = session(model, opened.machine, common)?;
    let outputs = session.predict(&data)?;
    if let Some(path) = out {
        let arrays: Vec<(&str, &Tensor)> = names.iter().map(String::as_str).zip(&outputs).collect();
        spidnn_import::npz::write(path, &arrays)?;
    }
    let mut json = output::of_session(&session);
    json.insert("samples".into(), json!(data.len()));
    let values = names.iter().cloned().zip(outputs.iter().map(output::tensor_json)).collect::<Map<_, _>>();
    json.insert("outputs".into(), Value::Object(values));
    if let Some(path) = out {
        json.insert("output_file".into(), json!(path.display().to_string()));
    }
    let mut text = String::new();
    for (name, tensor) in names.iter().zip(&outputs) {
        if out.is_none() {
            text.push_str(&format!("{name} {:?}\n{tensor}\n", tensor.shape()));
        } else {
            text.push_str(&format!("{name} {:?} written\n", tensor.shape()));
        }
    }
    text.push_str(&output::usage_line(&session.usage()));
    let answer = Answer::new(text, json);
    write_extras(common, opened.events.as_ref(), &session, &answer)?;
    Ok(answer)
}

fn parse_metrics(text: Option<&str>) -> Result<Vec<Metric>, Error> {
    let Some(text) = text else { return Ok(Vec::new()) };
    let mut parts: Vec<String> = Vec::new();
    // `a:k=3,b` is two metrics; `a:k=3,l=4` is one: a part with `=` but no `:` belongs to the one before.
    for part in text.split(',').map(str::trim).filter(|p| !p.is_empty()) {
        match parts.last_mut() {
            Some(last) if part.contains('=') && !part.contains(':') => {
                last.push(',');
                last.push_str(part);
            }
            _ => parts.push(part.into()),
        }
    }
    parts.iter().map(|p| Ok(Metric::parse(p)?)).collect()
}

/// The loss to use: given, the model's own, or one that fits its output.
fn choose_loss(given: Option<&str>, model: &Model, data: &Dataset) -> Result<Loss, Error> {
    match given {
        Some(text) => Ok(parse_loss(text)?),
        None => Ok(model.training().and_then(|t| t.loss).unwrap_or_else(|| guess_loss(model.graph(), data))),
    }
}

fn evaluate(
    model: &str,
    data: &str,
    loss: Option<&str>,
    metrics: Option<&str>,
    samples: Option<usize>,
    common: &Common,
) -> Result<Answer, Error> {
    let given = loss.map(parse_loss).transpose()?;
    let wanted = parse_metrics(metrics)?;
    let model = Model::open_for_inference(model, common.seed)?;
    let data = open_data(data, model.graph(), samples)?;
    let loss = match given {
        Some(loss) => loss,
        None => choose_loss(None, &model, &data)?,
    };
    let metrics = if metrics.is_none() { default_metrics(&loss)? } else { wanted };
    let opened = open_interruptible(common)?;
    let float = (common.format != Format::F32 && common.report.is_some()).then(|| model.clone());
    let mut session = session(model, opened.machine, common)?;
    let options = Evaluate { losses: vec![loss], metrics };
    let scores = session.evaluate(&data, &options)?;
    let mut json = output::of_session(&session);
    json.insert("samples".into(), json!(data.len()));
    json.insert("loss_name".into(), json!(loss_name(&loss)));
    json.insert("metrics".into(), output::logs_json(&scores));
    let mut text = format!("{scores}\n{}", output::usage_line(&session.usage()));
    if let Some(model) = float {
        // The report tells what the format costs: layer by layer, and in all.
        let accuracy = model.layer_accuracy(&compiler_format(&model, &data, common)?, &data)?;
        let same = model.on(Machine::open(&common.machine)?)?.evaluate(&data, &options)?;
        text.push_str(&format!("\nwith format f32: {same}\n{}", accuracy_text(&accuracy)));
        json.insert("metrics_f32".into(), output::logs_json(&same));
        json.insert("layer_accuracy".into(), accuracy_json(&accuracy));
    }
    let answer = Answer::new(text, json);
    write_extras(common, opened.events.as_ref(), &session, &answer)?;
    Ok(answer)
}

/// Accuracy where the targets are classes.
fn default_metrics(loss: &Loss) -> Result<Vec<Metric>, Error> {
    match loss {
        Loss::MeanSquaredError | Loss::MeanAbsoluteError => Ok(Vec::new()),
        _ => Ok(vec![Metric::parse("accuracy")?]),
    }
}

/// Adam with a rate that falls from 0.003 to 0 over the whole fit: with Keras, LeNet-5 ends 12 epochs of MNIST at 98.75 % so, and at
/// 98.4 to 98.5 % with a constant 0.001.
fn default_optimizer(steps: f64) -> Optimizer {
    let learning_rate = LearningRate::CosineDecay {
        initial: 0.003,
        decay_steps: steps.max(1.0) as f32,
        alpha: 0.0,
        warmup_target: None,
        warmup_steps: 0.0,
    };
    Optimizer { learning_rate, ..Optimizer::adam(0.003) }
}

/// Validation data that go with the data: the test set of MNIST.
fn default_validation(data: &str) -> Option<String> {
    let place = data.strip_suffix("#train").unwrap_or(data);
    (place == "mnist" || place.starts_with("mnist:"))
        .then(|| format!("{place}#test"))
        .filter(|_| !data.ends_with("#test"))
}

fn train(args: &args::Fit, common: &Common) -> Result<Answer, Error> {
    // Everything that can be wrong is looked at before anything is loaded.
    let given_loss = args.loss.as_deref().map(parse_loss).transpose()?;
    let given_optimizer = args.optimizer.as_deref().map(parse_optimizer).transpose()?;
    let mut metrics = parse_metrics(args.metrics.as_deref())?;
    if let Some(path) = &args.output {
        output::check_output(path, &[".keras", ".h5", ".hdf5", ".npz"])?;
    }
    if let Some(path) = &args.csv_log {
        output::check_output(path, &[])?;
    }
    if let Some(folder) = &args.checkpoint {
        std::fs::create_dir_all(folder).map_err(|source| Error::Write { path: folder.clone(), source })?;
        output::check_output(&folder.join("state.json"), &[])?;
    }
    if args.epochs == 0 {
        return Err(Error::Argument("--epochs 0: give at least 1".into()));
    }
    let model = Model::open(&args.model, common.seed)?;
    let data = open_data(&args.data, model.graph(), args.samples)?;
    let loss = match given_loss {
        Some(loss) => loss,
        None => choose_loss(None, &model, &data)?,
    };
    if args.metrics.is_none() {
        metrics = default_metrics(&loss)?;
    }
    let own_optimizer = || model.training().and_then(|t| t.optimizer.clone());
    let optimizer: Optimizer = given_optimizer.or_else(own_optimizer).unwrap_or_else(|| {
        let kept = 1.0 - args.validation_split.unwrap_or(0.0).clamp(0.0, 1.0);
        let steps = ((data.len() as f64 * kept).floor() / args.batch_size.max(1) as f64).ceil() * args.epochs as f64;
        default_optimizer(steps)
    });
    let validation = match args
        .validation
        .clone()
        .or_else(|| if args.validation_split.is_none() { default_validation(&args.data) } else { None })
    {
        Some(locator) => Some(open_data(&locator, model.graph(), None)?),
        None => None,
    };

    let mut bar = progress::FitProgress::new(data.len(), common.quiet);
    let watched = if validation.is_some() || args.validation_split.is_some() { "val_loss" } else { "loss" };
    let mut stopping = args.early_stopping.map(|n| EarlyStopping::new(watched).patience(n));
    let mut csv =
        args.csv_log.clone().map(|path| if args.resume { CSVLogger::new(path).append() } else { CSVLogger::new(path) });
    let mut callbacks: Vec<&mut dyn Callback> = vec![&mut bar];
    callbacks.extend(stopping.as_mut().map(|c| c as &mut dyn Callback));
    callbacks.extend(csv.as_mut().map(|c| c as &mut dyn Callback));

    let interrupt = interrupt_flag("stopping after this batch (again: at once)")?;
    let fit = Fit {
        optimizer: optimizer.clone(),
        epochs: args.epochs,
        batch_size: args.batch_size,
        shuffle: !args.no_shuffle,
        seed: common.seed,
        validation: match (&validation, args.validation_split) {
            (Some(data), _) => Validation::Data(data),
            (None, Some(fraction)) => Validation::Split(fraction),
            (None, None) => Validation::None,
        },
        metrics,
        callbacks,
        class_weight: parse_class_weights(args.class_weight.as_deref())?,
        checkpoint: args.checkpoint.clone(),
        resume: args.resume,
        interrupt: Some(Arc::clone(&interrupt)),
        ..Fit::new(loss)
    };
    let opened = open_machine(common, Some(&interrupt))?;
    let mut session = session(model, opened.machine, common)?;
    let history = session.fit(&data, fit)?;
    if let Some(path) = &args.output {
        session.save(path)?;
    }

    let mut json = output::of_session(&session);
    json.insert("samples".into(), json!(data.len()));
    json.insert("loss_name".into(), json!(loss_name(&loss)));
    json.insert("optimizer_name".into(), json!(optimizer_name(&optimizer)));
    json.insert("epochs".into(), json!(history.epochs.len()));
    json.insert("interrupted".into(), json!(history.interrupted));
    json.insert("history".into(), output::history_json(&history));
    if let Some(path) = &args.output {
        json.insert("output_file".into(), json!(path.display().to_string()));
    }
    let mut text = String::new();
    if history.interrupted {
        text.push_str(match &args.checkpoint {
            Some(_) => "interrupted; a checkpoint is written, --resume goes on from it\n",
            None => "interrupted\n",
        });
    }
    for (name, values) in &history.values {
        if let Some(last) = values.last() {
            text.push_str(&format!("{name}: {last:.4}\n"));
        }
    }
    text.push_str(&output::usage_line(&session.usage()));
    let answer = Answer::new(text, json);
    write_extras(common, opened.events.as_ref(), &session, &answer)?;
    Ok(answer)
}

fn parse_class_weights(text: Option<&str>) -> Result<std::collections::BTreeMap<usize, f32>, Error> {
    let Some(text) = text else { return Ok(Default::default()) };
    text.split(',')
        .filter(|p| !p.trim().is_empty())
        .map(|part| {
            let pair = part.split_once('=').and_then(|(c, w)| Some((c.trim().parse().ok()?, w.trim().parse().ok()?)));
            pair.ok_or_else(|| {
                Error::Argument(format!("--class-weight: `{part}` is not CLASS=WEIGHT, as in `0=1,1=2.5`"))
            })
        })
        .collect()
}

/// What [`interrupt_flag`] says where all ends at once.
pub(crate) const LEAVING: &str = "stopping, and leaving the machine as it was (again: at once)";

/// A flag that the first Ctrl-C sets; the second ends the process at once.
pub fn interrupt_flag(said: &'static str) -> Result<Arc<AtomicBool>, Error> {
    let flag = Arc::new(AtomicBool::new(false));
    let set = Arc::clone(&flag);
    ctrlc::set_handler(move || {
        if set.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
        eprintln!("{said}");
    })
    .map_err(|e| Error::Argument(format!("the handler for Ctrl-C cannot be set: {e}")))?;
    Ok(flag)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_with_arguments_are_told_apart() {
        let names = |text| parse_metrics(Some(text)).unwrap().iter().map(|m| m.name().to_string()).collect::<Vec<_>>();
        assert_eq!(names("accuracy,mse"), ["accuracy", "mse"]);
        assert_eq!(names("auc:curve=PR,num_thresholds=20,accuracy"), ["auc", "accuracy"]);
        assert!(parse_metrics(Some("acuracy")).is_err());
    }

    #[test]
    fn mnist_is_validated_on_its_test_set() {
        assert_eq!(default_validation("mnist"), Some("mnist#test".into()));
        assert_eq!(default_validation("mnist:/a#train"), Some("mnist:/a#test".into()));
        assert_eq!(default_validation("mnist#test"), None);
        assert_eq!(default_validation("data.npz"), None);
    }

    #[test]
    fn class_weights() {
        assert_eq!(parse_class_weights(Some("0=1, 3=2.5")).unwrap().get(&3), Some(&2.5));
        assert!(parse_class_weights(Some("a=1")).is_err());
    }
}
