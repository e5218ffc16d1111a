//! A model on a machine, as Python sees it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use numpy::PyArrayDyn;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use spidnn::{Callback, Dataset, Evaluate, Fit, Format, Logs, Machine, Metric, Trainer, Usage, Validation};

use crate::convert::{Arrays, arrays, dataset, raised, tensors};
use crate::model::Model;
use crate::stream::{Line, Stream};
use crate::worker::{OnInterrupt, Worker};
use crate::{InputError, RunError};

/// A loaded network: see [`spidnn::Session`].
#[pyclass(module = "spidnn._native")]
pub(crate) struct Session {
    worker: Option<Worker>,
    /// The newest stream: while it is open, it has the session.
    stream: Line,
}

impl Session {
    fn worker(&self) -> PyResult<&Worker> {
        if self.stream.is_open() {
            return Err(RunError::new_err(
                "a stream is open on this session: take its last output, or close it, first",
            ));
        }
        self.worker.as_ref().ok_or_else(|| RunError::new_err("this session is closed"))
    }
}

#[pymethods]
impl Session {
    #[new]
    fn open(
        py: Python<'_>,
        model: PyRef<'_, Model>,
        machine: String,
        format: &str,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<Session> {
        let model = model.model.clone();
        let format = match format {
            "f32" => Format::F32,
            "bfp16" => Format::Bfp16,
            "int8" => Format::Int8,
            other => {
                let text = format!("format `{other}`: there are f32, bfp16 and int8");
                return Err(InputError::new_err(text));
            }
        };
        let on_interrupt = if machine.starts_with("virtual:") { OnInterrupt::Leave } else { OnInterrupt::Wait };
        let worker = Worker::start(py, on_interrupt, move |interrupt| {
            let mut machine = Machine::open_with(&machine, |text| say(progress.as_ref(), text))?;
            machine.board_mut().set_interrupt(interrupt);
            let mut session = model.on(machine)?;
            if format != Format::F32 {
                session.set_format(format)?;
            }
            Ok(session)
        })?;
        Ok(Session { worker: Some(worker), stream: Line::default() })
    }

    fn calibrate(&self, py: Python<'_>, x: Arrays<'_>) -> PyResult<()> {
        let data = Dataset::inputs(tensors(&x));
        self.worker()?.ask_machine(py, move |session| session.calibrate(&data))
    }

    fn predict<'py>(&self, py: Python<'py>, x: Arrays<'py>) -> PyResult<Vec<Bound<'py, PyArrayDyn<f32>>>> {
        let data = Dataset::inputs(tensors(&x));
        Ok(arrays(py, self.worker()?.ask_machine(py, move |session| session.predict(&data))?))
    }

    /// The loss and the metrics, by name.
    fn evaluate<'py>(
        &self,
        py: Python<'py>,
        x: Arrays<'py>,
        y: Arrays<'py>,
        loss: Option<&str>,
        metrics: Vec<String>,
        sample_weight: Option<Vec<f32>>,
    ) -> PyResult<Bound<'py, PyDict>> {
        let data = dataset(&x, &y, sample_weight);
        let losses = loss.map(spidnn::names::parse_loss).transpose().map_err(|e| raised(e.into()))?;
        let options = Evaluate { losses: losses.into_iter().collect(), metrics: parse_metrics(&metrics)? };
        let scores = self.worker()?.ask_machine(py, move |session| session.evaluate(&data, &options))?;
        let values = PyDict::new(py);
        for (name, value) in scores.iter() {
            values.set_item(name, value)?;
        }
        Ok(values)
    }

    /// The epochs, their values by name, and what the callback raised, if it ended the fit.
    #[allow(clippy::type_complexity)]
    fn fit(
        &self,
        py: Python<'_>,
        x: Arrays<'_>,
        y: Arrays<'_>,
        sample_weight: Option<Vec<f32>>,
        validation: Option<(Arrays<'_>, Arrays<'_>)>,
        options: FitOptions,
        on_epoch_end: Py<PyAny>,
    ) -> PyResult<(Vec<usize>, Vec<(String, Vec<f64>)>)> {
        let worker = self.worker()?;
        let data = dataset(&x, &y, sample_weight);
        let validation = validation.map(|(x, y)| dataset(&x, &y, None));
        let metrics = parse_metrics(&options.metrics)?;
        let mut by_name = Fit::by_name(&options.loss).map_err(raised)?;
        by_name = by_name.optimizer_by_name(&options.optimizer).map_err(raised)?;
        let (losses, optimizer) = (by_name.losses, by_name.optimizer);
        let interrupt = worker.interrupt();
        let (history, raised) = worker.ask(py, OnInterrupt::Wait, move |session| {
            let mut watch = Watch { on_epoch_end, raised: None };
            let fit = Fit {
                losses,
                optimizer,
                epochs: options.epochs,
                batch_size: options.batch_size,
                shuffle: options.shuffle,
                seed: options.seed,
                validation: match (&validation, options.validation_split) {
                    (Some(data), _) => Validation::Data(data),
                    (None, part) if part > 0.0 => Validation::Split(part),
                    (None, _) => Validation::None,
                },
                metrics,
                class_weight: options.class_weight,
                checkpoint: options.checkpoint,
                resume: options.resume,
                interrupt: Some(interrupt),
                callbacks: vec![&mut watch],
                ..Fit::new(spidnn::Loss::MeanSquaredError)
            };
            let history = session.fit(&data, fit)?;
            Ok((history, watch.raised))
        })?;
        match raised {
            Some(error) => Err(error),
            None => Ok((history.epochs, history.values)),
        }
    }

    fn get_weights<'py>(&self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyArrayDyn<f32>>>> {
        Ok(arrays(py, self.worker()?.ask_machine(py, |session| session.get_weights())?))
    }

    fn set_weights(&self, py: Python<'_>, weights: Arrays<'_>) -> PyResult<()> {
        let weights = tensors(&weights);
        self.worker()?.ask_machine(py, move |session| session.set_weights(&weights))
    }

    fn save(&self, py: Python<'_>, path: PathBuf) -> PyResult<()> {
        self.worker()?.ask_machine(py, move |session| session.save(path))
    }

    fn usage<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let usage = self.worker()?.ask_machine(py, |session| Ok(session.usage()))?;
        usage_dict(py, &usage)
    }

    fn stream(
        &mut self,
        py: Python<'_>,
        capacity: Option<usize>,
        batch_max: Option<usize>,
        samples_per_chip: Option<usize>,
    ) -> PyResult<Stream> {
        let options = spidnn::stream::StreamOptions { capacity, batch_max, samples_per_chip };
        let (stream, line) = Stream::open(py, self.worker()?, options)?;
        self.stream = line;
        Ok(stream)
    }

    /// Gives the machine back; nothing if that was done.
    fn close(&mut self, py: Python<'_>) {
        self.stream.close();
        if let Some(worker) = self.worker.take() {
            worker.close(py);
        }
    }
}

/// What a fit is asked to do, beside its data.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
struct FitOptions {
    loss: String,
    optimizer: String,
    epochs: usize,
    batch_size: usize,
    shuffle: bool,
    seed: u64,
    validation_split: f64,
    metrics: Vec<String>,
    class_weight: BTreeMap<usize, f32>,
    checkpoint: Option<PathBuf>,
    resume: bool,
}

/// Tells Python of the end of each epoch. What it raises ends the fit; so does a true answer.
struct Watch {
    on_epoch_end: Py<PyAny>,
    raised: Option<PyErr>,
}

impl Callback for Watch {
    fn on_epoch_end(&mut self, epoch: usize, logs: &Logs, trainer: &mut dyn Trainer) -> Result<(), spidnn::Error> {
        let stop = Python::attach(|py| {
            let values = PyDict::new(py);
            logs.iter().try_for_each(|(name, value)| values.set_item(name, value))?;
            self.on_epoch_end.bind(py).call1((epoch, values))?.is_truthy()
        });
        match stop {
            Ok(false) => {}
            Ok(true) => trainer.stop(),
            Err(error) => {
                self.raised = Some(error);
                trainer.stop();
            }
        }
        Ok(())
    }
}

/// Tells Python of a step on the way to a machine. What it raises there is not the machine's concern.
fn say(progress: Option<&Py<PyAny>>, text: &str) {
    if let Some(progress) = progress {
        Python::attach(|py| drop(progress.call1(py, (text,))));
    }
}

fn parse_metrics(names: &[String]) -> PyResult<Vec<Metric>> {
    names.iter().map(|name| Metric::parse(name).map_err(|e| raised(e.into()))).collect()
}

fn usage_dict<'py>(py: Python<'py>, usage: &Usage) -> PyResult<Bound<'py, PyDict>> {
    let values = PyDict::new(py);
    values.set_item("machine_time_s", usage.machine_time_s)?;
    values.set_item("load_s", usage.phases.load_s)?;
    values.set_item("run_s", usage.phases.run_s)?;
    values.set_item("read_s", usage.phases.read_s)?;
    values.set_item("wall_time_s", usage.wall_time_s)?;
    values.set_item("chips", usage.chips)?;
    values.set_item("cores", usage.cores)?;
    values.set_item("macs", usage.macs)?;
    values.set_item("cycles_per_mac", usage.cycles_per_mac)?;
    values.set_item("packets_sent", usage.counters.packets_sent)?;
    values.set_item("packets_resent", usage.counters.packets_resent)?;
    values.set_item("host_bytes", usage.counters.host_bytes)?;
    values.set_item("energy_j", usage.counters.energy_j)?;
    Ok(values)
}
