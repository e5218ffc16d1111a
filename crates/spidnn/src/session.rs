//! A session: a model on a machine. Loaded once, it predicts, evaluates and trains as often as wanted.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use ndarray::{ArrayD, IxDyn};
use spidnn_compiler::quantise::{Calibration, Quantisation};
use spidnn_compiler::{Buffer, ByteInput, CompileError, Compiled, Mantissas, Options, Program, Training};
use spidnn_graph::training::{Loss, Optimizer, Rule};
use spidnn_graph::{Graph, NodeId, ParamId, Tensor};
use spidnn_import::{OptimizerState, Slot, SlotRole, TrainingConfig};
use spinnaker_machine::ChipXy;

use crate::board::Board;
use crate::callbacks::{History, Logs, Trainer};
use crate::checkpoint::{Checkpoint, State};
use crate::data::{Dataset, guess_loss};
use crate::metrics::Metric;
use crate::options::{Evaluate, Fit, Format, Validation, default_optimizer, loss_for_each};
use crate::usage::Usage;
use crate::{Error, Machine, Model, model, names, run_block};

/// Samples that a chip takes in one run of a prediction, where memory allows.
const PREDICT_SAMPLES_PER_CHIP: usize = 16;

/// What an evaluation gave: `loss`, then the metrics.
pub type Scores = Logs;

/// A model on a machine.
pub struct Session {
    graph: Graph,
    machine: Machine,
    /// The weights, unless the machine has newer ones.
    weights: Vec<Tensor>,
    /// Where the newest weights are.
    newest: Newest,
    /// Whether the copy that predictions use is up to date.
    folded_current: bool,
    /// Whether the cores' local memories hold what the predict program keeps there.
    kept_current: bool,
    /// Cores have failed under the loaded program: it has to be loaded anew.
    cores_lost: bool,
    loaded: Option<Loaded>,
    /// Optimizer state to write with the next load (after a resume or a reload).
    optimizer_state: Vec<(usize, String, Tensor)>,
    /// The optimizer of the last fit and the steps it has done.
    optimizer: Option<Optimizer>,
    losses: Vec<Loss>,
    steps: u64,
    input_set: usize,
    chips_max: Option<usize>,
    predictions_max: Option<usize>,
    format: Format,
    /// Ranges of the network's numbers, for format `int8`.
    calibration: Option<Arc<Calibration>>,
    usage: Usage,
    opened: Instant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Newest {
    /// On the host only.
    Host,
    /// The same on both.
    Both,
    /// On the machine only.
    Machine,
}

struct Loaded {
    compiled: Compiled,
    mantissas: Mantissas,
    training: Option<(Vec<Loss>, Optimizer)>,
    capacity: usize,
}

impl Loaded {
    /// Samples of a training step at most.
    fn training_capacity(&self) -> usize {
        self.compiled.layout.training_samples_max * self.compiled.replicas.len()
    }
}

/// One run of a batch.
pub(crate) struct Run {
    pub program: Program,
    /// Samples of the whole batch.
    pub samples: usize,
    /// Which input buffers hold them.
    pub set: usize,
    pub seed: u64,
    /// Number of the training step, from 1.
    pub step: u64,
    pub learning_rate: f64,
    /// The cores must fetch what they keep from run to run.
    pub fetch_kept: bool,
}

impl Session {
    /// See [`Model::on`].
    ///
    /// # Errors
    /// If the machine has no working application core.
    pub fn new(model: Model, machine: Machine) -> Result<Session, Error> {
        let (graph, weights, training) = model.into_parts();
        if machine.board().machine().core_count() == 0 {
            return Err(CompileError::NoCores.into());
        }
        // A model that was saved in the middle of its training goes on with its optimizer's state, as in Keras.
        let (optimizer, state) = training.map_or((None, None), |t| (t.optimizer, t.state));
        let steps = state.as_ref().map_or(0, |s| s.iterations);
        let slots = state.into_iter().flat_map(|s| s.slots);
        Ok(Session {
            graph,
            machine,
            weights,
            newest: Newest::Host,
            folded_current: false,
            kept_current: false,
            cores_lost: false,
            loaded: None,
            optimizer_state: slots.map(|s| (s.param.0, role_name(s.role).to_string(), s.value)).collect(),
            optimizer,
            losses: Vec::new(),
            steps,
            input_set: 0,
            chips_max: None,
            predictions_max: None,
            format: Format::default(),
            calibration: None,
            usage: Usage::default(),
            opened: Instant::now(),
        })
    }

    /// The model's layers.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// Uses at most so many chips from the next load on.
    ///
    /// # Errors
    /// If what the machine holds cannot be read.
    pub fn limit_chips(&mut self, chips: usize) -> Result<(), Error> {
        self.optimizer_state = self.fetch_optimizer_state()?;
        self.fetch_weights()?;
        self.newest = Newest::Host;
        self.chips_max = Some(chips.max(1));
        self.loaded = None;
        Ok(())
    }

    /// Uses another format of numbers from the next load on.
    ///
    /// # Errors
    /// If what the machine holds cannot be read.
    pub fn set_format(&mut self, format: Format) -> Result<(), Error> {
        self.optimizer_state = self.fetch_optimizer_state()?;
        self.fetch_weights()?;
        self.newest = Newest::Host;
        self.format = format;
        self.loaded = None;
        // The weights may be others than those whose ranges these are.
        self.calibration = None;
        Ok(())
    }

    /// Takes the ranges of the network's numbers, which format `int8` needs, from these inputs: as many of the first ones as the host's
    /// reference executor computes in a moment. Without this, the inputs of the first prediction serve.
    ///
    /// # Errors
    /// Inputs that do not fit the model.
    pub fn calibrate(&mut self, data: &Dataset) -> Result<(), Error> {
        let data = Dataset { targets: Vec::new(), ..data.clone() }.check_inputs(&self.graph)?;
        self.calibrate_checked(&data)?;
        self.loaded = None;
        Ok(())
    }

    fn calibrate_checked(&mut self, data: &Dataset) -> Result<(), Error> {
        self.optimizer_state = self.fetch_optimizer_state()?;
        self.fetch_weights()?;
        self.newest = Newest::Host;
        self.calibration = Some(Arc::new(calibration(&self.graph, &self.weights, data)?));
        Ok(())
    }

    /// Compiles for predictions of so many samples at a time, from the next load on: 1 gives the shortest time for one sample.
    pub fn limit_predictions(&mut self, samples: usize) {
        self.predictions_max = Some(samples.max(1));
    }

    /// What is loaded, if anything is.
    pub fn compiled(&self) -> Option<&Compiled> {
        self.loaded.as_ref().map(|l| &l.compiled)
    }

    /// The machine, for another session.
    pub fn into_machine(self) -> Machine {
        self.machine
    }

    /// What the session has cost so far.
    pub fn usage(&self) -> Usage {
        let mut usage = self.usage.clone();
        usage.machine_time_s = self.machine.board().time_s();
        usage.wall_time_s = self.opened.elapsed().as_secs_f64();
        usage.counters = self.machine.board().counters();
        let core_cycles = usage.compute_s * CORE_HZ * usage.cores as f64;
        usage.cycles_per_mac = if usage.macs == 0 { 0.0 } else { core_cycles / usage.macs as f64 };
        usage
    }

    /// The machine.
    pub fn machine(&self) -> &Machine {
        &self.machine
    }

    // ---- weights ----

    /// The weights, in Keras' `get_weights()` order.
    ///
    /// # Errors
    /// If the machine cannot be read.
    pub fn get_weights(&mut self) -> Result<Vec<Tensor>, Error> {
        self.fetch_weights()?;
        Ok(self.weights.clone())
    }

    /// Replaces the weights. The optimizer's state stays, as in Keras.
    ///
    /// # Errors
    /// If there are more or fewer, one has another shape, or one is not finite.
    pub fn set_weights(&mut self, weights: &[Tensor]) -> Result<(), Error> {
        model::check_weights(&self.graph, weights)?;
        self.weights = weights.to_vec();
        self.newest = Newest::Host;
        self.folded_current = false;
        if self.format == Format::Int8 {
            // Bytes are made for one set of weights.
            self.loaded = None;
            self.calibration = None;
        }
        Ok(())
    }

    /// Saves the model with its weights by the file name's extension.
    ///
    /// # Errors
    /// If the file cannot be written or the machine not read.
    pub fn save(&mut self, path: impl AsRef<Path>) -> Result<(), Error> {
        self.fetch_weights()?;
        let training = self.training_config()?;
        model::save(path.as_ref(), &self.graph, &self.weights, training)
    }

    /// Saves the weights alone (`.npz`, `.weights.h5`).
    ///
    /// # Errors
    /// If the file cannot be written or the machine not read.
    pub fn save_weights(&mut self, path: impl AsRef<Path>) -> Result<(), Error> {
        self.fetch_weights()?;
        Ok(spidnn_import::save_weights(path.as_ref(), &self.graph, &self.weights)?)
    }

    /// A copy of the model as it is now.
    ///
    /// # Errors
    /// If the machine cannot be read.
    pub fn model(&mut self) -> Result<Model, Error> {
        let weights = self.get_weights()?;
        Model::new(self.graph.clone(), weights)
    }

    /// What Keras needs to go on with the training.
    fn training_config(&mut self) -> Result<Option<TrainingConfig>, Error> {
        let (Some(optimizer), [loss, ..]) = (self.optimizer.clone(), &self.losses[..]) else { return Ok(None) };
        let loss = *loss;
        let vectors = self.fetch_optimizer_state()?;
        let slots = vectors
            .into_iter()
            .filter_map(|(param, name, value)| Some(Slot { param: ParamId(param), role: role_of(&name)?, value }));
        let state = OptimizerState { iterations: self.steps, learning_rate: None, slots: slots.collect() };
        let config =
            TrainingConfig { loss: Some(loss), optimizer: Some(optimizer), state: Some(state), ..Default::default() };
        Ok(Some(config))
    }

    fn fetch_weights(&mut self) -> Result<(), Error> {
        let (Newest::Machine, Some(loaded)) = (self.newest, &self.loaded) else { return Ok(()) };
        let started = self.machine.board().time_s();
        let root = loaded.compiled.layout.root;
        let places: Vec<_> =
            loaded.compiled.layout.params.iter().map(|b| (root, b.address, b.words as usize)).collect();
        let words = self.machine.board_mut().read_many(&places)?;
        let weights = words.into_iter().zip(&self.graph.params).map(|(words, param)| tensor(words, &param.shape));
        self.weights = weights.collect::<Result<_, _>>()?;
        self.newest = Newest::Both;
        self.usage.phases.read_s += self.machine.board().time_s() - started;
        Ok(())
    }

    fn fetch_optimizer_state(&mut self) -> Result<Vec<(usize, String, Tensor)>, Error> {
        let Some(loaded) = &self.loaded else { return Ok(self.optimizer_state.clone()) };
        if loaded.training.is_none() || !self.optimizer_state.is_empty() {
            return Ok(self.optimizer_state.clone());
        }
        let started = self.machine.board().time_s();
        let root = loaded.compiled.layout.root;
        let vectors = &loaded.compiled.layout.optimizer_state;
        let places: Vec<_> = vectors.iter().map(|v| (root, v.buffer.address, v.buffer.words as usize)).collect();
        let all = self.machine.board_mut().read_many(&places)?;
        let mut state = Vec::new();
        for (vector, words) in vectors.iter().zip(all) {
            state.push((vector.param, vector.name.to_string(), tensor(words, &self.graph.params[vector.param].shape)?));
        }
        self.usage.phases.read_s += self.machine.board().time_s() - started;
        Ok(state)
    }

    /// Brings the newest weights to every chip, if they are not there.
    fn push_weights(&mut self) -> Result<(), Error> {
        let Some(loaded) = &self.loaded else { return Ok(()) };
        if self.newest != Newest::Host {
            return Ok(());
        }
        let started = self.machine.board().time_s();
        for (buffer, weights) in loaded.compiled.layout.params.iter().zip(&self.weights) {
            for &chip in &loaded.compiled.replicas {
                self.machine.board_mut().write(chip, buffer.address, bits(weights))?;
            }
        }
        self.newest = Newest::Both;
        self.folded_current = false;
        self.usage.phases.load_s += self.machine.board().time_s() - started;
        Ok(())
    }

    /// Whether a run of a program finds the local memories without what it keeps there; they are its own afterwards.
    fn claim_local_memory(&mut self, program: Program) -> bool {
        let stale = program != Program::Predict || !self.kept_current;
        self.kept_current = program == Program::Predict;
        stale
    }

    /// Brings the copy that predictions use up to date.
    fn push_folded(&mut self) -> Result<(), Error> {
        // Without a training program nothing reads the parameters themselves.
        if self.loaded.as_ref().is_some_and(|l| l.training.is_some()) {
            self.push_weights()?;
        }
        if self.folded_current {
            return Ok(());
        }
        self.fetch_weights()?;
        let Some(loaded) = &self.loaded else { return Ok(()) };
        let contents: Vec<Vec<u32>> = match &loaded.compiled.constants {
            Some(constants) => constants.clone(),
            None => {
                let params = spidnn_compiler::fold::inference_params(&self.graph, loaded.mantissas);
                params.iter().map(|p| p.contents(&self.weights)).collect()
            }
        };
        let started = self.machine.board().time_s();
        for (buffer, words) in loaded.compiled.layout.inference_params.iter().zip(&contents) {
            for &chip in &loaded.compiled.replicas {
                self.machine.board_mut().write(chip, buffer.address, words.clone())?;
            }
        }
        self.usage.phases.load_s += self.machine.board().time_s() - started;
        self.folded_current = true;
        self.kept_current = false;
        Ok(())
    }

    // ---- loading ----

    /// Compiles for predictions of up to `samples` at a time, or less where memory is short.
    fn ensure_predict(&mut self) -> Result<(), Error> {
        self.recover()?;
        if self.loaded.is_some() {
            return Ok(());
        }
        self.load_predict(self.predictions_max.unwrap_or(self.chips() * PREDICT_SAMPLES_PER_CHIP))
    }

    /// Loads a program for predictions of up to `batch` samples at a time, or fewer where memory is short.
    fn load_predict(&mut self, mut batch: usize) -> Result<(), Error> {
        loop {
            match self.load(batch, None) {
                // Fewer samples at a time need less memory.
                Err(Error::Compile(CompileError::ModelTooLarge { .. })) if batch > 1 => batch = (batch / 2).max(1),
                result => return result,
            }
        }
    }

    /// With format `int8`, takes the ranges from these inputs if there are none yet.
    fn ensure_ranges(&mut self, data: &Dataset) -> Result<(), Error> {
        if self.format == Format::Int8 && self.calibration.is_none() {
            self.calibrate_checked(data)?;
            self.loaded = None;
        }
        Ok(())
    }

    fn chips(&self) -> usize {
        let there = self.machine.board().machine().chips.len();
        self.chips_max.map_or(there, |max| max.min(there)).max(1)
    }

    /// After [`Session::give_up_cores`]: brings what only the machine has to the host, so that the next load can begin anew.
    fn recover(&mut self) -> Result<(), Error> {
        if !std::mem::take(&mut self.cores_lost) {
            return Ok(());
        }
        self.optimizer_state = self.fetch_optimizer_state()?;
        self.fetch_weights()?;
        self.newest = Newest::Host;
        self.loaded = None;
        Ok(())
    }

    fn ensure_training(&mut self, losses: &[Loss], optimizer: &Optimizer, batch: usize) -> Result<(), Error> {
        self.recover()?;
        let fits = self.loaded.as_ref().is_some_and(|l| {
            l.training_capacity() >= batch
                && l.training.as_ref().is_some_and(|(have, with)| have == losses && same_program(with, optimizer))
        });
        if fits {
            return Ok(());
        }
        // Room for more than a batch makes validation faster, where there is room.
        let roomy = batch.max(self.chips() * PREDICT_SAMPLES_PER_CHIP);
        let training = || Some((losses.to_vec(), optimizer.clone(), batch));
        match self.load(roomy, training()) {
            Err(Error::Compile(CompileError::ModelTooLarge { .. })) if roomy > batch => self.load(batch, training()),
            result => result,
        }
    }

    fn ensure_evaluate(&mut self, losses: &[Loss]) -> Result<(), Error> {
        self.recover()?;
        if self.loaded.as_ref().is_some_and(|l| l.training.as_ref().is_some_and(|(have, _)| have == losses)) {
            return Ok(());
        }
        let optimizer = self.optimizer.clone().unwrap_or_else(default_optimizer);
        let mut batch = self.chips() * PREDICT_SAMPLES_PER_CHIP;
        loop {
            match self.load(batch, Some((losses.to_vec(), optimizer.clone(), batch))) {
                Err(Error::Compile(CompileError::ModelTooLarge { .. })) if batch > 1 => batch = (batch / 2).max(1),
                result => return result,
            }
        }
    }

    fn load(&mut self, batch: usize, training: Option<(Vec<Loss>, Optimizer, usize)>) -> Result<(), Error> {
        // What only the machine has must not be lost with the memory's old content.
        let state = self.fetch_optimizer_state()?;
        self.fetch_weights()?;
        let options = Options {
            batch_size: batch,
            training: training.clone().map(|(losses, optimizer, batch_size)| Training {
                losses,
                optimizer,
                batch_size,
            }),
            chips_max: self.chips_max,
            format: self.compiler_format(training.is_some())?,
        };
        let compiled = spidnn_compiler::compile(&self.graph, self.machine.board().machine(), &options)?;
        let started = self.machine.board().time_s();
        self.loaded = None;
        self.kept_current = false;
        self.cores_lost = false;
        self.machine.board_mut().announce(&to_come(&compiled, training.is_some()));
        self.machine.board_mut().load(&compiled.chips)?;
        self.optimizer_state = state;
        self.newest = Newest::Host;
        self.folded_current = false;
        self.input_set = 0;
        self.usage.loads += 1;
        self.usage.chips = compiled.replicas.len();
        self.usage.cores = compiled.chips.values().map(|c| c.cores.len()).sum();
        self.usage.phases.load_s += self.machine.board().time_s() - started;
        let capacity = compiled.layout.samples_max * compiled.replicas.len();
        let training = training.map(|(losses, optimizer, _)| (losses, optimizer));
        self.loaded = Some(Loaded { compiled, mantissas: options.format.mantissas(), training, capacity });
        Ok(())
    }

    fn compiler_format(&self, training: bool) -> Result<spidnn_compiler::Format, Error> {
        Ok(match (self.format, &self.calibration) {
            (Format::F32, _) => spidnn_compiler::Format::F32,
            (Format::Bfp16, _) => spidnn_compiler::Format::Bfp16,
            (Format::Int8, Some(calibration)) if !training => spidnn_compiler::Format::Int8(Quantisation {
                weights: Arc::new(self.weights.clone()),
                calibration: Arc::clone(calibration),
            }),
            (Format::Int8, _) => return Err(CompileError::TrainingInBytes.into()),
        })
    }

    /// Writes the optimizer's state to the root chip: what is waiting, else zeros for a new optimizer.
    fn push_optimizer_state(&mut self, fresh: bool) -> Result<(), Error> {
        let Some(loaded) = &self.loaded else { return Ok(()) };
        let waiting = std::mem::take(&mut self.optimizer_state);
        let root = loaded.compiled.layout.root;
        for vector in &loaded.compiled.layout.optimizer_state {
            let found = waiting.iter().find(|(param, name, _)| *param == vector.param && name == vector.name);
            match found {
                Some((_, _, values)) if !fresh => {
                    self.machine.board_mut().write(root, vector.buffer.address, bits(values))?;
                }
                _ if fresh || !waiting.is_empty() => {
                    let zeros = vec![0; vector.buffer.words as usize];
                    self.machine.board_mut().write(root, vector.buffer.address, zeros)?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    // ---- runs ----

    fn loaded(&self) -> Result<&Loaded, Error> {
        self.loaded.as_ref().ok_or_else(|| Error::Argument("nothing is loaded".into()))
    }

    /// Queues the writes of a batch: inputs, and with `weights` targets and sample weights too.
    fn feed(&mut self, set: usize, data: &Dataset, samples: &[usize], weights: Option<&[f32]>) -> Result<(), Error> {
        let Session { loaded, machine, .. } = self;
        let Some(Loaded { compiled, .. }) = loaded else { return Ok(()) };
        let layout = &compiled.layout;
        let mut first = 0;
        for (&chip, share) in compiled.replicas.iter().zip(compiled.shares(samples.len())) {
            let own = &samples[first..first + share];
            if share > 0 {
                for ((buffer, tensor), bytes) in layout.inputs[set].iter().zip(&data.inputs).zip(&layout.input_bytes) {
                    let words = match bytes {
                        Some(bytes) => gather_bytes(tensor, own, bytes),
                        None => gather(tensor, own, buffer),
                    };
                    machine.board_mut().write(chip, buffer.address, words)?;
                }
                if let Some(weights) = weights {
                    for (buffer, tensor) in layout.targets[set].iter().zip(&data.targets) {
                        machine.board_mut().write(chip, buffer.address, gather(tensor, own, buffer))?;
                    }
                    let scale = samples.len() as f32;
                    let words = weights[first..first + share].iter().map(|w| (w / scale).to_bits()).collect();
                    machine.board_mut().write(chip, layout.sample_weights[set].address, words)?;
                }
            }
            first += share;
        }
        Ok(())
    }

    /// Writes the run blocks and sends the start signal.
    fn start(&mut self, run: &Run) -> Result<(), Error> {
        let Session { loaded, machine, usage, optimizer, .. } = self;
        let Some(Loaded { compiled, training, .. }) = loaded else { return Ok(()) };
        let optimizer = training.as_ref().map(|(_, o)| o).or(optimizer.as_ref());
        let mut first = 0;
        for (&chip, share) in compiled.replicas.iter().zip(compiled.shares(run.samples)) {
            let words = run_block::words(run, first, share, optimizer);
            machine.board_mut().write(chip, compiled.layout.run_block, words)?;
            first += share;
        }
        let started = machine.board_mut().start();
        if started.is_err() {
            self.give_up_cores();
            return started;
        }
        let program = match run.program {
            Program::Predict => "predict",
            Program::Train => "train",
            Program::Evaluate => "evaluate",
        };
        let per_sample = compiled.report.macs(program) / compiled.report.samples_per_chip.max(1) as u64;
        usage.macs += per_sample * run.samples as u64;
        Ok(())
    }

    /// Waits for the end of a run that began (with its streaming) at `started_s`.
    fn finish(&mut self, started_s: f64) -> Result<(), Error> {
        self.usage.compute_s += self.machine.board_mut().wait()?;
        self.usage.phases.run_s += self.machine.board().time_s() - started_s;
        Ok(())
    }

    /// Reads buffers with one entry for each sample from every replica: for each buffer the values in the order of the batch.
    fn read_samples(
        &mut self,
        buffers: impl Fn(&Compiled) -> Vec<Buffer>,
        samples: usize,
    ) -> Result<Vec<Vec<f32>>, Error> {
        let Session { loaded, machine, usage, .. } = self;
        let Some(Loaded { compiled, .. }) = loaded else { return Ok(Vec::new()) };
        let buffers = buffers(compiled);
        let started = machine.board().time_s();
        let stride = |b: &Buffer| (b.sample_stride_bytes / 4).max(b.words) as usize;
        let shares: Vec<(ChipXy, usize)> =
            compiled.replicas.iter().copied().zip(compiled.shares(samples)).filter(|(_, share)| *share > 0).collect();
        let places: Vec<(ChipXy, u32, usize)> = buffers
            .iter()
            .flat_map(|b| {
                shares.iter().map(move |&(chip, share)| (chip, b.address, (share - 1) * stride(b) + b.words as usize))
            })
            .collect();
        let mut parts = machine.board_mut().read_many(&places)?.into_iter();
        let mut all = Vec::with_capacity(buffers.len());
        for buffer in &buffers {
            let mut out = Vec::with_capacity(samples * buffer.words as usize);
            for (&(_, share), words) in shares.iter().zip(&mut parts) {
                for row in words.chunks(stride(buffer).max(1)).take(share) {
                    out.extend(row.iter().take(buffer.words as usize).map(|&w| f32::from_bits(w)));
                }
            }
            all.push(out);
        }
        usage.phases.read_s += machine.board().time_s() - started;
        Ok(all)
    }

    /// Runs all samples through a forward program, the next batch's inputs streaming in meanwhile; `done` sees each batch.
    fn forward(
        &mut self,
        program: Program,
        data: &Dataset,
        weights: Option<&[f32]>,
        mut done: impl FnMut(&mut Session, &[usize]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let capacity = self.loaded()?.capacity;
        let all: Vec<usize> = (0..data.len()).collect();
        let batches: Vec<&[usize]> = all.chunks(capacity.max(1)).collect();
        let cut = |batch: &[usize]| weights.map(|w| batch.iter().map(|&s| w[s]).collect::<Vec<f32>>());
        let mut set = self.input_set;
        if let Some(batch) = batches.first() {
            self.feed(set, data, batch, cut(batch).as_deref())?;
        }
        for (i, batch) in batches.iter().enumerate() {
            let started = self.machine.board().time_s();
            let fetch_kept = self.claim_local_memory(program);
            self.start(&Run {
                program,
                samples: batch.len(),
                set,
                seed: 0,
                step: self.steps,
                learning_rate: 0.0,
                fetch_kept,
            })?;
            if let Some(next) = batches.get(i + 1) {
                self.feed(1 - set, data, next, cut(next).as_deref())?;
            }
            self.finish(started)?;
            done(self, batch)?;
            set = 1 - set;
        }
        self.input_set = set;
        Ok(())
    }

    // ---- streams ----

    /// Has a predict program on the machine: one whose chips take `wanted` samples at a time, if that is given; else what is there, or
    /// one for `usual` (fewer where memory is short or [`Session::limit_predictions`] says so).
    pub(crate) fn ensure_stream(&mut self, wanted: Option<usize>, usual: usize) -> Result<(), Error> {
        if self.format == Format::Int8 && self.calibration.is_none() {
            return Err(Error::Argument(
                "format int8 needs the ranges of the network's numbers before a stream: call `calibrate` with some inputs, or predict some first".into(),
            ));
        }
        self.recover()?;
        let chips = self.chips();
        let serves = |l: &Loaded| wanted.is_none_or(|samples| l.compiled.layout.samples_max == samples);
        if !self.loaded.as_ref().is_some_and(serves) {
            let limit = if wanted.is_none() { self.predictions_max } else { None };
            self.load_predict(limit.unwrap_or(chips * wanted.unwrap_or(usual)))?;
        }
        self.push_folded()
    }

    /// What a stream works on, if a program is loaded.
    pub(crate) fn stream_parts(&mut self) -> Option<(&Compiled, &mut dyn Board, &mut Usage)> {
        let Session { loaded: Some(loaded), machine, usage, .. } = self else { return None };
        Some((&loaded.compiled, machine.board_mut(), usage))
    }

    /// A stream begins: whether its first run finds the local memories without what the predict program keeps there.
    pub(crate) fn claim_for_stream(&mut self) -> bool {
        self.claim_local_memory(Program::Predict)
    }

    /// Cores have failed in a prediction: what is loaded serves no more, but the machine's memory is as it was.
    pub(crate) fn give_up_cores(&mut self) {
        self.cores_lost = true;
    }

    /// Predictions for all samples: one tensor for each model output, samples first.
    ///
    /// # Errors
    /// Data that do not fit the model; a model that does not fit the machine; a core that failed.
    pub fn predict(&mut self, data: &Dataset) -> Result<Vec<Tensor>, Error> {
        let data = Dataset { targets: Vec::new(), ..data.clone() }.check_inputs(&self.graph)?;
        self.ensure_ranges(&data)?;
        self.ensure_predict()?;
        self.push_folded()?;
        let mut parts: Vec<Vec<f32>> = vec![Vec::new(); self.graph.outputs.len()];
        self.forward(Program::Predict, &data, None, |session, batch| {
            let values = session.read_samples(|c| c.layout.outputs.clone(), batch.len())?;
            parts.iter_mut().zip(values).for_each(|(part, values)| part.extend(values));
            Ok(())
        })?;
        let shapes = self.graph.outputs.iter().map(|n| {
            let mut shape = vec![data.len()];
            shape.extend_from_slice(&self.graph.nodes[n.0].shape);
            shape
        });
        parts.into_iter().zip(shapes).map(|(values, shape)| shaped(values, &shape)).collect()
    }

    /// Loss and metrics over all samples.
    ///
    /// # Errors
    /// As [`Session::predict`], and targets that do not fit the loss.
    pub fn evaluate(&mut self, data: &Dataset, options: &Evaluate) -> Result<Scores, Error> {
        let losses = match (&options.losses[..], self.loaded.as_ref().and_then(|l| l.training.as_ref())) {
            ([], Some((losses, _))) => losses.clone(),
            ([], None) => loss_for_each(&[guess_loss(&self.graph, data)], &self.graph)?,
            (given, _) => loss_for_each(given, &self.graph)?,
        };
        let data = check(data.clone(), &self.graph, &losses)?;
        let metrics = metrics_for_each(&options.metrics, &self.graph);
        self.evaluate_checked(&data, &losses, metrics)
    }

    fn evaluate_checked(&mut self, data: &Dataset, losses: &[Loss], metrics: OutputMetrics) -> Result<Scores, Error> {
        if self.format == Format::Int8 {
            return self.evaluate_predictions(data, losses, metrics);
        }
        self.ensure_evaluate(losses)?;
        self.push_weights()?;
        let weights = sample_weights(data, &BTreeMap::new());
        let mut tracker = Tracker::new(&self.graph, metrics, Vec::new());
        self.forward(Program::Evaluate, data, Some(&weights), |session, batch| {
            let own: Vec<f32> = batch.iter().map(|&s| weights[s]).collect();
            session.track(&mut tracker, data, batch, &own).map(|_| ())
        })?;
        Ok(tracker.logs(""))
    }

    /// Losses of the predict program's outputs, computed on the host: the way of format `int8`, which has no other program.
    fn evaluate_predictions(
        &mut self,
        data: &Dataset,
        losses: &[Loss],
        metrics: OutputMetrics,
    ) -> Result<Scores, Error> {
        self.ensure_ranges(data)?;
        self.ensure_predict()?;
        self.push_folded()?;
        let weights = sample_weights(data, &BTreeMap::new());
        let mut tracker = Tracker::new(&self.graph, metrics, Vec::new());
        let shapes: Vec<Vec<usize>> = self.graph.outputs.iter().map(|n| self.graph.nodes[n.0].shape.clone()).collect();
        self.forward(Program::Predict, data, None, |session, batch| {
            let own: Vec<f32> = batch.iter().map(|&s| weights[s]).collect();
            let values = session.read_samples(|c| c.layout.outputs.clone(), batch.len())?;
            let outputs: Vec<Tensor> = values
                .into_iter()
                .zip(&shapes)
                .map(|(values, shape)| shaped(values, &[&[batch.len()], &shape[..]].concat()))
                .collect::<Result<_, _>>()?;
            let mut means = Vec::with_capacity(losses.len());
            for ((output, target), loss) in outputs.iter().zip(&data.targets).zip(losses) {
                let target = target.select(ndarray::Axis(0), batch);
                means.push(loss.evaluate(&target, output, Some(&own))?.mean);
            }
            if tracker.wants_outputs() {
                tracker.update(data, batch, &outputs, &own)?;
            }
            tracker.add_losses(&means, batch.len());
            Ok(())
        })?;
        Ok(tracker.logs(""))
    }

    /// Reads losses (and outputs where metrics want them) of the batch that just ran; gives its loss.
    fn track(&mut self, tracker: &mut Tracker, data: &Dataset, batch: &[usize], weights: &[f32]) -> Result<f64, Error> {
        let outputs = self.graph.outputs.len();
        let wanted = tracker.wants_outputs();
        let buffers = |c: &Compiled| {
            let mut all = c.layout.losses.clone();
            if wanted {
                all.extend(&c.layout.outputs);
            }
            all
        };
        let mut values = self.read_samples(buffers, batch.len())?.into_iter();
        // An output with positions has a loss for each of them; a sample's is their mean.
        let mean = |losses: Vec<f32>| {
            let positions = (losses.len() / batch.len()).max(1);
            let rows = losses.chunks(positions).map(|row| row.iter().map(|&l| f64::from(l)).sum::<f64>());
            let sum: f64 = rows.zip(weights).map(|(l, &w)| l * f64::from(w)).sum();
            sum / (positions * batch.len()) as f64
        };
        let batch_losses: Vec<f64> = values.by_ref().take(outputs).map(mean).collect();
        if wanted {
            let shapes = self.graph.outputs.iter().map(|n| &self.graph.nodes[n.0].shape);
            let tensors: Result<Vec<Tensor>, Error> = values
                .zip(shapes)
                .map(|(values, shape)| shaped(values, &[&[batch.len()], &shape[..]].concat()))
                .collect();
            tracker.update(data, batch, &tensors?, weights)?;
        }
        Ok(tracker.add_losses(&batch_losses, batch.len()))
    }

    /// Trains. The last batch of an epoch may be smaller; everything else as Keras' `fit`.
    ///
    /// # Errors
    /// Data or options that make no sense; a model that does not fit the machine; a core that failed; a loss that is not finite.
    pub fn fit(&mut self, data: &Dataset, mut fit: Fit) -> Result<History, Error> {
        let losses = loss_for_each(&fit.losses, &self.graph)?;
        if fit.batch_size == 0 {
            return Err(CompileError::EmptyBatch.into());
        }
        if self.graph.params.iter().all(|p| !p.trainable) {
            return Err(Error::Argument(format!("model `{}` has no trainable parameters", self.graph.name)));
        }
        let data = check(data.clone(), &self.graph, &losses)?;
        let (data, validation) = match fit.validation {
            Validation::None => (data, None),
            Validation::Split(fraction) => {
                let (train, validation) = data.split_validation(fraction)?;
                (train, Some(validation))
            }
            Validation::Data(validation) => (data, Some(check(validation.clone(), &self.graph, &losses)?)),
        };
        let weights = class_weights(&data, &self.graph, &fit.class_weight)?;
        let mut callbacks = std::mem::take(&mut fit.callbacks);
        let mut place = self.begin(&mut fit)?;
        let metrics = metrics_for_each(&fit.metrics, &self.graph);
        let weighted = metrics_for_each(&fit.weighted_metrics, &self.graph);
        self.ensure_training(&losses, &fit.optimizer, fit.batch_size.min(data.len()))?;

        macro_rules! call {
            ($method:ident $(, $argument:expr)*) => {{
                let mut trainer = FitTrainer { session: self, optimizer: &fit.optimizer, place: &mut place };
                for callback in callbacks.iter_mut() {
                    callback.$method($($argument,)* &mut trainer)?;
                }
            }};
        }
        call!(on_fit_begin);
        while place.state.epoch < fit.epochs && !place.stop {
            let epoch = place.state.epoch;
            call!(on_epoch_begin, epoch);
            let mut tracker = Tracker::new(&self.graph, metrics.clone(), weighted.clone());
            tracker.resume(place.state.loss_sum, place.state.samples);
            let order = data.order(fit.shuffle, place.state.seed, epoch);
            let interrupted =
                self.train_epoch(&data, &weights, &order, &fit, &losses, &mut place, &mut tracker, &mut callbacks)?;
            if interrupted {
                place.history.interrupted = true;
                place.state.loss_sum = tracker.loss_sum();
                self.checkpoint(&fit, &mut place)?;
                break;
            }
            let mut logs = tracker.logs("");
            if let Some(validation) = &validation {
                let scores = self.evaluate_checked(validation, &losses, metrics.clone())?;
                scores.iter().for_each(|(name, value)| logs.set(format!("val_{name}"), value));
            }
            place.history.push(epoch, &logs);
            (place.state.epoch, place.state.samples, place.state.loss_sum) = (epoch + 1, 0, 0.0);
            call!(on_epoch_end, epoch, &logs);
            self.checkpoint(&fit, &mut place)?;
        }
        call!(on_fit_end);
        Ok(place.history)
    }

    /// Where the fit starts: at the beginning, or at a checkpoint.
    fn begin(&mut self, fit: &mut Fit) -> Result<Place, Error> {
        let name = names::optimizer_name(&fit.optimizer);
        let mut history = History::default();
        let mut state = State::new(&self.graph.name, name, fit.seed, &history);
        if let (Some(folder), true) = (&fit.checkpoint, fit.resume)
            && let Some(found) = Checkpoint::newest(folder, &self.graph)?
        {
            if found.state.optimizer != name {
                return Err(Error::Argument(format!(
                    "the checkpoint was written with optimizer {}, this fit has {name}: use the same, or another folder",
                    found.state.optimizer
                )));
            }
            self.set_weights(&found.weights)?;
            self.optimizer_state = found.optimizer;
            self.optimizer = Some(fit.optimizer.clone());
            self.steps = found.state.steps;
            self.loaded = None;
            history = found.state.history();
            state = found.state;
        } else if !self.optimizer.as_ref().is_some_and(|o| same_rule(o, &fit.optimizer)) {
            // Another optimizer starts from nothing.
            self.steps = 0;
            self.optimizer_state.clear();
            self.optimizer = None;
        }
        state.steps = self.steps;
        Ok(Place { state, history, stop: false, epochs: fit.epochs })
    }

    /// Trains one epoch from `place` on; true if it was interrupted.
    fn train_epoch(
        &mut self,
        data: &Dataset,
        weights: &[f32],
        order: &[usize],
        fit: &Fit,
        losses: &[Loss],
        place: &mut Place,
        tracker: &mut Tracker,
        callbacks: &mut [&mut dyn crate::callbacks::Callback],
    ) -> Result<bool, Error> {
        // Validation or a callback may have loaded another program or changed weights.
        self.ensure_training(losses, &fit.optimizer, fit.batch_size.min(data.len()))?;
        self.push_weights()?;
        let fresh = self.optimizer.is_none();
        self.push_optimizer_state(fresh)?;
        self.optimizer = Some(fit.optimizer.clone());
        self.losses = losses.to_vec();
        let batches: Vec<&[usize]> = order[place.state.samples.min(order.len())..].chunks(fit.batch_size).collect();
        let own = |batch: &[usize]| batch.iter().map(|&s| weights[s]).collect::<Vec<f32>>();
        let mut set = self.input_set;
        if let Some(batch) = batches.first() {
            self.feed(set, data, batch, Some(&own(batch)))?;
        }
        for (number, batch) in batches.iter().enumerate() {
            let started = self.machine.board().time_s();
            let learning_rate = place.learning_rate(&fit.optimizer, self.steps);
            let seed = place.state.seed;
            // Keras counts steps from 1 in the update.
            let step = self.steps + 1;
            let fetch_kept = self.claim_local_memory(Program::Train);
            self.start(&Run {
                program: Program::Train,
                samples: batch.len(),
                set,
                seed,
                step,
                learning_rate,
                fetch_kept,
            })?;
            if let Some(next) = batches.get(number + 1) {
                self.feed(1 - set, data, next, Some(&own(next)))?;
            }
            self.finish(started)?;
            self.newest = Newest::Machine;
            self.folded_current = false;
            self.steps = step;
            self.usage.samples_trained += batch.len() as u64;
            set = 1 - set;
            self.input_set = set;
            let loss = self.track(tracker, data, batch, &own(batch))?;
            if !loss.is_finite() {
                return Err(Error::NotFinite { epoch: place.state.epoch, batch: number, loss });
            }
            place.state.steps = step;
            place.state.samples += batch.len();
            let logs = tracker.logs("");
            let mut trainer = FitTrainer { session: self, optimizer: &fit.optimizer, place };
            for callback in callbacks.iter_mut() {
                callback.on_batch_end(number, &logs, &mut trainer)?;
            }
            if fit.interrupt.as_ref().is_some_and(|flag| flag.load(Ordering::Relaxed)) {
                return Ok(true);
            }
            // A callback may have set the weights.
            self.push_weights()?;
            if place.stop {
                break;
            }
        }
        Ok(false)
    }

    fn checkpoint(&mut self, fit: &Fit, place: &mut Place) -> Result<(), Error> {
        let Some(folder) = &fit.checkpoint else { return Ok(()) };
        self.fetch_weights()?;
        let optimizer = self.fetch_optimizer_state()?;
        let state = place.state.with_history(&place.history);
        Checkpoint { weights: self.weights.clone(), optimizer, state }.write(folder)?;
        Ok(())
    }
}

/// Bytes of parameters that each chip gets after its load: those of training, or the copy that predictions use.
fn to_come(compiled: &Compiled, training: bool) -> BTreeMap<ChipXy, u64> {
    let bytes = |buffers: &[Buffer]| buffers.iter().map(|buffer| 4 * u64::from(buffer.words)).sum::<u64>();
    let layout = &compiled.layout;
    let each = bytes(if training { &layout.params } else { &layout.inference_params });
    compiled.replicas.iter().map(|chip| (*chip, each)).collect()
}

/// Multiply-accumulates that the host spends on the ranges of a network's numbers at most, and samples.
const CALIBRATION_MACS: u64 = 1 << 30;
const CALIBRATION_SAMPLES: u64 = 512;

/// Samples that show the ranges of a network's numbers.
fn calibration_samples(graph: &Graph) -> usize {
    (CALIBRATION_MACS / graph.total_macs().max(1)).clamp(1, CALIBRATION_SAMPLES) as usize
}

/// Ranges of a network's numbers on the first of some checked inputs.
pub(crate) fn calibration(graph: &Graph, weights: &[Tensor], data: &Dataset) -> Result<Calibration, Error> {
    let samples = calibration_samples(graph).min(data.len());
    let first = |x: &Tensor| x.slice_axis(ndarray::Axis(0), ndarray::Slice::from(..samples)).to_owned();
    Ok(Calibration::of(graph, weights, &data.inputs.iter().map(first).collect::<Vec<_>>())?)
}

/// Clock of a core.
const CORE_HZ: f64 = 200e6;

/// Where a fit is.
struct Place {
    state: State,
    history: History,
    stop: bool,
    epochs: usize,
}

impl Place {
    fn learning_rate(&self, optimizer: &Optimizer, steps: u64) -> f64 {
        self.state.learning_rate.unwrap_or_else(|| optimizer.learning_rate.at(steps).into())
    }
}

/// What callbacks see of a session in training.
struct FitTrainer<'a> {
    session: &'a mut Session,
    optimizer: &'a Optimizer,
    place: &'a mut Place,
}

impl Trainer for FitTrainer<'_> {
    fn weights(&mut self) -> Result<Vec<Tensor>, Error> {
        self.session.get_weights()
    }
    fn set_weights(&mut self, weights: &[Tensor]) -> Result<(), Error> {
        self.session.set_weights(weights)
    }
    fn learning_rate(&self) -> f64 {
        self.place.learning_rate(self.optimizer, self.session.steps)
    }
    fn set_learning_rate(&mut self, rate: f64) {
        self.place.state.learning_rate = Some(rate);
    }
    fn stop(&mut self) {
        self.place.stop = true;
    }
    fn save(&mut self, path: &Path) -> Result<(), Error> {
        self.session.save(path)
    }
    fn save_weights(&mut self, path: &Path) -> Result<(), Error> {
        self.session.save_weights(path)
    }
    fn epochs(&self) -> usize {
        self.place.epochs
    }
    fn samples_done(&self) -> usize {
        self.place.state.samples
    }
    fn usage(&self) -> Usage {
        self.session.usage()
    }
}

fn role_name(role: SlotRole) -> &'static str {
    match role {
        SlotRole::Momentum => "momentum",
        SlotRole::Velocity => "velocity",
        SlotRole::AverageGradient => "average_gradient",
    }
}

fn role_of(name: &str) -> Option<SlotRole> {
    [SlotRole::Momentum, SlotRole::Velocity, SlotRole::AverageGradient].into_iter().find(|r| role_name(*r) == name)
}

/// Metrics of each output.
type OutputMetrics = Vec<Vec<Metric>>;

fn metrics_for_each(metrics: &[Metric], graph: &Graph) -> OutputMetrics {
    let fresh: Vec<Metric> = metrics
        .iter()
        .cloned()
        .map(|mut m| {
            m.reset();
            m
        })
        .collect();
    vec![fresh; graph.outputs.len()]
}

/// Losses and metrics over the batches of an epoch.
struct Tracker {
    names: Vec<String>,
    metrics: OutputMetrics,
    weighted: OutputMetrics,
    /// Sum over samples of the loss of each output, and of all.
    sums: Vec<f64>,
    sum: f64,
    samples: usize,
}

impl Tracker {
    fn new(graph: &Graph, metrics: OutputMetrics, weighted: OutputMetrics) -> Tracker {
        let name = |n: &NodeId| graph.layers[graph.nodes[n.0].layer.0].name.clone();
        let names: Vec<String> = graph.outputs.iter().map(name).collect();
        let sums = vec![0.0; names.len()];
        Tracker { names, metrics, weighted, sums, sum: 0.0, samples: 0 }
    }

    /// Goes on with the loss of samples that an earlier process saw.
    fn resume(&mut self, loss_sum: f64, samples: usize) {
        self.sum = loss_sum;
        self.samples = samples;
    }

    fn loss_sum(&self) -> f64 {
        self.sum
    }

    fn wants_outputs(&self) -> bool {
        self.metrics.iter().chain(&self.weighted).any(|m| !m.is_empty())
    }

    /// Adds the mean losses of a batch; gives their sum, the batch's loss.
    fn add_losses(&mut self, losses: &[f64], samples: usize) -> f64 {
        for (sum, loss) in self.sums.iter_mut().zip(losses) {
            *sum += loss * samples as f64;
        }
        let loss: f64 = losses.iter().sum();
        self.sum += loss * samples as f64;
        self.samples += samples;
        loss
    }

    fn update(&mut self, data: &Dataset, batch: &[usize], outputs: &[Tensor], weights: &[f32]) -> Result<(), Error> {
        for (i, output) in outputs.iter().enumerate() {
            let target = data.targets[i].select(ndarray::Axis(0), batch);
            for metric in self.metrics.get_mut(i).into_iter().flatten() {
                metric.update(&target, output, None)?;
            }
            for metric in self.weighted.get_mut(i).into_iter().flatten() {
                metric.update(&target, output, Some(weights))?;
            }
        }
        Ok(())
    }

    /// `loss`, then (with several outputs) `name_loss`, then the metrics, with the output's name in front where there are several.
    fn logs(&self, prefix: &str) -> Logs {
        let mut logs = Logs::default();
        let samples = self.samples.max(1) as f64;
        logs.set(format!("{prefix}loss"), self.sum / samples);
        let several = self.names.len() > 1;
        for (i, name) in self.names.iter().enumerate() {
            if several {
                logs.set(format!("{prefix}{name}_loss"), self.sums[i] / samples);
            }
            for metric in self.metrics.get(i).into_iter().chain(self.weighted.get(i)).flatten() {
                let name = if several {
                    format!("{prefix}{name}_{}", metric.name())
                } else {
                    format!("{prefix}{}", metric.name())
                };
                logs.set(name, metric.result());
            }
        }
        logs
    }
}

/// Inputs and targets against the model and its losses.
fn check(data: Dataset, graph: &Graph, losses: &[Loss]) -> Result<Dataset, Error> {
    Ok(data.check_inputs(graph)?.check_targets(graph, losses)?)
}

fn sample_weights(data: &Dataset, class_weight: &BTreeMap<usize, f32>) -> Vec<f32> {
    let mut weights = data.sample_weight.clone().unwrap_or_else(|| vec![1.0; data.len()]);
    if !class_weight.is_empty() {
        let target = &data.targets[0];
        let width = target.len() / data.len().max(1);
        let values: Vec<f32> = target.iter().copied().collect();
        for (weight, row) in weights.iter_mut().zip(values.chunks(width.max(1))) {
            let class = match row {
                [label] => label.round() as usize,
                one_hot => {
                    let mut best = 0;
                    one_hot.iter().enumerate().for_each(|(i, v)| best = if *v > one_hot[best] { i } else { best });
                    best
                }
            };
            *weight *= class_weight.get(&class).copied().unwrap_or(1.0);
        }
    }
    weights
}

fn class_weights(data: &Dataset, graph: &Graph, class_weight: &BTreeMap<usize, f32>) -> Result<Vec<f32>, Error> {
    if !class_weight.is_empty() && graph.outputs.len() != 1 {
        return Err(Error::Argument("class weights need a model with one output: use sample weights".into()));
    }
    if let Some((class, weight)) = class_weight.iter().find(|(_, w)| !w.is_finite()) {
        return Err(Error::Argument(format!("the weight of class {class} is {weight}: give a finite number")));
    }
    Ok(sample_weights(data, class_weight))
}

/// Whether two optimizers run the same program (the rate and the numbers of the rule travel with each step).
fn same_program(a: &Optimizer, b: &Optimizer) -> bool {
    a.rule == b.rule && a.clip == b.clip && a.weight_decay == b.weight_decay
}

/// Whether the state of one serves the other.
fn same_rule(a: &Optimizer, b: &Optimizer) -> bool {
    match (a.rule, b.rule) {
        (Rule::Sgd { momentum: a, .. }, Rule::Sgd { momentum: b, .. }) => (a == 0.0) == (b == 0.0),
        (Rule::RmsProp { momentum: a, centered: c, .. }, Rule::RmsProp { momentum: b, centered: d, .. }) => {
            (a == 0.0) == (b == 0.0) && c == d
        }
        (Rule::Adam { .. }, Rule::Adam { .. }) => true,
        _ => false,
    }
}

/// The samples of a batch as words, with the buffer's stride.
fn gather(tensor: &Tensor, samples: &[usize], buffer: &Buffer) -> Vec<u32> {
    let words = buffer.words as usize;
    let stride = ((buffer.sample_stride_bytes / 4) as usize).max(words);
    let mut out = vec![0; samples.len().saturating_sub(1) * stride + words];
    // Checked data lie row-major (see `Dataset::check_inputs`).
    let values = tensor.as_slice().unwrap_or_default();
    for (i, &sample) in samples.iter().enumerate() {
        let row = &values[sample * words..(sample + 1) * words];
        for (out, value) in out[i * stride..i * stride + words].iter_mut().zip(row) {
            *out = value.to_bits();
        }
    }
    out
}

/// The samples of a batch as words of bytes.
fn gather_bytes(tensor: &Tensor, samples: &[usize], bytes: &ByteInput) -> Vec<u32> {
    let values = tensor.as_slice().unwrap_or_default();
    let each = values.len() / tensor.shape()[0].max(1);
    samples.iter().flat_map(|&sample| bytes.words(&values[sample * each..(sample + 1) * each])).collect()
}

fn bits(tensor: &Tensor) -> Vec<u32> {
    tensor.iter().map(|v| v.to_bits()).collect()
}

fn tensor(words: Vec<u32>, shape: &[usize]) -> Result<Tensor, Error> {
    shaped(words.into_iter().map(f32::from_bits).collect(), shape)
}

fn shaped(values: Vec<f32>, shape: &[usize]) -> Result<Tensor, Error> {
    ArrayD::from_shape_vec(IxDyn(shape), values)
        .map_err(|e| Error::Argument(format!("the machine gave data that are not of shape {shape:?}: {e}")))
}
