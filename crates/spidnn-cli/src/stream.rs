//! `spidnn stream`: inputs one by one, as they come.

mod udp;

use serde_json::{Map, Value, json};
use spidnn::stream::{Output, Push, StreamOptions, Summary, samples};
use spidnn::{Dataset, Error, Graph, Model, Session, Tensor};

use crate::args::{Common, Stream};
use crate::commands::{open_data, open_interruptible, output_names, session, write_extras};
use crate::output::{self, Answer};

/// Streams a data set.
///
/// # Errors
/// Bad input, or a run that failed.
pub fn run(options: &Stream, common: &Common) -> Result<Answer, Error> {
    if let Some(path) = &options.output {
        output::check_output(path, &[".npz", ".npy"])?;
    }
    if let Some(rate) = options.rate.filter(|rate| !(*rate > 0.0 && rate.is_finite())) {
        return Err(Error::Argument(format!("--rate {rate}: give inputs a second, more than 0")));
    }
    if !options.listen.is_empty() {
        return udp::run(options, common);
    }
    let model = Model::open_for_inference(&options.model, common.seed)?;
    let data = open_data(options.inputs.as_deref().unwrap_or_default(), model.graph(), options.samples)?;
    let names = output_names(model.graph());
    let opened = open_interruptible(common)?;
    let mut session = session(model, opened.machine, common)?;
    if common.format == crate::args::Format::Int8 && common.calibration.is_none() {
        session.calibrate(&data)?;
    }
    let outputs = stream(&mut session, &data, options)?;
    let tensors = stacked(&outputs, session.graph())?;
    if let Some(path) = &options.output {
        let arrays: Vec<(&str, &Tensor)> = names.iter().map(String::as_str).zip(&tensors).collect();
        spidnn_import::npz::write(path, &arrays)?;
    }
    let summary = Summary::of(&outputs);
    let mut json = output::of_session(&session);
    json.insert("samples".into(), json!(outputs.len()));
    json.insert("stream".into(), summary_json(&summary));
    if let Some(path) = &options.output {
        json.insert("output_file".into(), json!(path.display().to_string()));
    } else {
        let values = names.iter().cloned().zip(tensors.iter().map(output::tensor_json)).collect::<Map<_, _>>();
        json.insert("outputs".into(), Value::Object(values));
    }
    let answer = Answer::new(format!("{}\n{}", text(&summary), output::usage_line(&session.usage())), json);
    write_extras(common, opened.events.as_ref(), &session, &answer)?;
    Ok(answer)
}

/// Settings of the stream; with a rate, all samples wait for their time.
fn stream_options(options: &Stream, samples: usize) -> StreamOptions {
    let capacity = options.capacity.or(options.rate.map(|_| samples));
    StreamOptions { capacity, batch_max: options.batch_max, samples_per_chip: options.samples_per_chip }
}

fn stream(session: &mut Session, data: &Dataset, options: &Stream) -> Result<Vec<Output>, Error> {
    let settings = stream_options(options, data.len());
    let Some(rate) = options.rate else {
        return session.stream_over(samples(data), settings)?.collect();
    };
    let mut stream = session.stream(settings)?;
    let began_s = stream.machine_time_s();
    let mut outputs = Vec::with_capacity(data.len());
    for (number, sample) in samples(data).enumerate() {
        let mut waiting = sample;
        let at_s = began_s + number as f64 / rate;
        while let Push::Full(sample) = stream.push_at(waiting, at_s)? {
            outputs.extend(stream.pop()?);
            waiting = sample;
        }
    }
    outputs.extend(stream.finish()?);
    Ok(outputs)
}

/// The outputs as tensors with a sample axis.
fn stacked(outputs: &[Output], graph: &Graph) -> Result<Vec<Tensor>, Error> {
    let one = |(number, node): (usize, &spidnn::NodeId)| {
        let mut shape = vec![outputs.len()];
        shape.extend_from_slice(&graph.node(*node).shape);
        let values = outputs.iter().flat_map(|o| o.values[number].iter().copied()).collect();
        Tensor::from_shape_vec(shape, values).map_err(|e| Error::Argument(format!("outputs of a stream: {e}")))
    };
    graph.outputs.iter().enumerate().map(one).collect()
}

/// Figures of a stream for programs.
pub fn summary_json(summary: &Summary) -> Value {
    json!({
        "latency_s": {
            "median": summary.latency_median_s,
            "p99": summary.latency_p99_s,
            "max": summary.latency_max_s,
        },
        "time_s": summary.time_s,
        "throughput_hz": summary.throughput_hz,
    })
}

/// The same for people.
pub fn text(summary: &Summary) -> String {
    format!(
        "{} samples in {:.4} s of machine time: {:.0} a second; latency: median {:.3} ms, 99 of 100 within {:.3} ms, longest {:.3} ms",
        summary.samples,
        summary.time_s,
        summary.throughput_hz,
        summary.latency_median_s * 1e3,
        summary.latency_p99_s * 1e3,
        summary.latency_max_s * 1e3
    )
}
