//! Checkpoints of a fit: everything that is needed to go on as if nothing had happened.
//!
//! A checkpoint is a folder `checkpoint-EEEEEE-SSSSSSSSS` (finished epochs, samples of the epoch that has begun) with
//! `arrays.npz` (`w000`, .. in `get_weights()` order; `o000`, .. the optimizer's state) and `state.json`. It is written under
//! another name and renamed when it is whole, so a crash leaves the one before.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use spidnn_graph::{Graph, Tensor};

use crate::Error;
use crate::callbacks::{History, Logs};

/// Version of the folder's content.
const FORMAT: u32 = 1;
const PREFIX: &str = "checkpoint-";

/// State of a fit between two batches.
#[derive(Debug, Clone, PartialEq)]
pub struct Checkpoint {
    /// Weights, in `get_weights()` order.
    pub weights: Vec<Tensor>,
    /// Optimizer state: parameter number, name of the vector, values.
    pub optimizer: Vec<(usize, String, Tensor)>,
    /// The rest.
    pub state: State,
}

/// The small part of a checkpoint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// Version of the format.
    format: u32,
    /// Name of the model.
    pub model: String,
    /// Keras name of the optimizer.
    pub optimizer: String,
    /// Steps done since training began.
    pub steps: u64,
    /// Epochs finished.
    pub epoch: usize,
    /// Samples of the next epoch that were already trained on (0 between epochs).
    pub samples: usize,
    /// Sum over these samples of the batch losses.
    pub loss_sum: f64,
    /// Seed of the fit.
    pub seed: u64,
    /// Learning rate, where a callback changed it.
    pub learning_rate: Option<f64>,
    /// Which optimizer vectors there are: parameter number and name, in the order of `o000`, ..
    optimizer_vectors: Vec<(usize, String)>,
    /// Epochs and values of the history so far.
    epochs: Vec<usize>,
    history: Vec<(String, Vec<f64>)>,
}

impl State {
    /// State at a place of a fit.
    pub fn new(model: &str, optimizer: &str, seed: u64, history: &History) -> State {
        State {
            format: FORMAT,
            model: model.into(),
            optimizer: optimizer.into(),
            steps: 0,
            epoch: 0,
            samples: 0,
            loss_sum: 0.0,
            seed,
            learning_rate: None,
            optimizer_vectors: Vec::new(),
            epochs: history.epochs.clone(),
            history: history.values.clone(),
        }
    }

    /// The same state with another history.
    pub(crate) fn with_history(&self, history: &History) -> State {
        State { epochs: history.epochs.clone(), history: history.values.clone(), ..self.clone() }
    }

    /// The history up to here.
    pub fn history(&self) -> History {
        let mut history = History::default();
        for (i, &epoch) in self.epochs.iter().enumerate() {
            let mut logs = Logs::default();
            for (name, values) in &self.history {
                // A value that began later than the first epoch has fewer entries, at the end.
                let missing = self.epochs.len() - values.len().min(self.epochs.len());
                if let Some(&value) = i.checked_sub(missing).and_then(|j| values.get(j)) {
                    logs.set(name, value);
                }
            }
            history.push(epoch, &logs);
        }
        history
    }
}

impl Checkpoint {
    /// Writes the checkpoint into `folder` and removes all but this and the one before.
    ///
    /// # Errors
    /// If the folder cannot be written. What was there stays.
    pub fn write(&self, folder: &Path) -> Result<PathBuf, Error> {
        let failed = |path: &Path| {
            let path = path.to_path_buf();
            move |source| Error::Write { path, source }
        };
        fs::create_dir_all(folder).map_err(failed(folder))?;
        let name = format!("{PREFIX}{:06}-{:09}", self.state.epoch, self.state.samples);
        let place = folder.join(&name);
        let half = folder.join(format!(".{name}.part"));
        if half.exists() {
            fs::remove_dir_all(&half).map_err(failed(&half))?;
        }
        fs::create_dir(&half).map_err(failed(&half))?;
        let names: Vec<String> = (0..self.weights.len())
            .map(|i| format!("w{i:03}"))
            .chain((0..self.optimizer.len()).map(|i| format!("o{i:03}")))
            .collect();
        let tensors = self.weights.iter().chain(self.optimizer.iter().map(|(_, _, t)| t));
        let arrays: Vec<(&str, &Tensor)> = names.iter().map(String::as_str).zip(tensors).collect();
        spidnn_import::npz::write(half.join("arrays.npz"), &arrays)?;
        let mut state = self.state.clone();
        state.optimizer_vectors = self.optimizer.iter().map(|(i, name, _)| (*i, name.clone())).collect();
        let text = serde_json::to_string_pretty(&state).map_err(|e| Error::Argument(e.to_string()))?;
        fs::write(half.join("state.json"), text).map_err(failed(&half))?;
        if place.exists() {
            fs::remove_dir_all(&place).map_err(failed(&place))?;
        }
        fs::rename(&half, &place).map_err(failed(&place))?;
        let all = list(folder)?;
        for old in all.iter().rev().filter(|p| **p != place).skip(1) {
            fs::remove_dir_all(old).map_err(failed(old))?;
        }
        Ok(place)
    }

    /// The newest checkpoint of a folder, if there is any.
    ///
    /// # Errors
    /// If it cannot be read, or belongs to a model with other weights.
    pub fn newest(folder: &Path, graph: &Graph) -> Result<Option<Checkpoint>, Error> {
        if !folder.exists() {
            return Ok(None);
        }
        match list(folder)?.last() {
            None => Ok(None),
            Some(path) => Checkpoint::read(path, graph).map(Some),
        }
    }

    /// Reads one checkpoint.
    ///
    /// # Errors
    /// If it cannot be read, or belongs to a model with other weights.
    pub fn read(path: &Path, graph: &Graph) -> Result<Checkpoint, Error> {
        let bad = |problem: String| Error::Checkpoint { path: path.into(), problem };
        let text = fs::read_to_string(path.join("state.json")).map_err(|e| bad(e.to_string()))?;
        let state: State = serde_json::from_str(&text).map_err(|e| bad(format!("state.json: {e}")))?;
        if state.format != FORMAT {
            return Err(bad(format!("its format is {}, this version reads {FORMAT}", state.format)));
        }
        let arrays = spidnn_import::npz::read(path.join("arrays.npz"))?;
        let array = |name: String| {
            arrays.get(&name).map(|a| a.to_f32()).ok_or_else(|| bad(format!("arrays.npz lacks `{name}`")))
        };
        let mut weights = Vec::new();
        for (i, param) in graph.params.iter().enumerate() {
            let tensor = array(format!("w{i:03}"))?;
            if tensor.shape() != param.shape {
                return Err(bad(format!(
                    "weight {i} (`{}` of layer `{}`) has shape {:?} there, but {:?} in the model: it is of another model",
                    param.name,
                    graph.layers[param.layer.0].name,
                    tensor.shape(),
                    param.shape
                )));
            }
            weights.push(tensor);
        }
        let mut optimizer = Vec::new();
        for (i, (param, name)) in state.optimizer_vectors.iter().enumerate() {
            optimizer.push((*param, name.clone(), array(format!("o{i:03}"))?));
        }
        Ok(Checkpoint { weights, optimizer, state })
    }
}

/// Whole checkpoints of a folder, oldest first.
fn list(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let entries = fs::read_dir(folder)
        .map_err(|e| Error::Checkpoint { path: folder.into(), problem: format!("the folder cannot be read: {e}") })?;
    let mut all: Vec<PathBuf> = entries
        .filter_map(Result::ok)
        .map(|e| e.path())
        .filter(|p| p.file_name().is_some_and(|n| n.to_string_lossy().starts_with(PREFIX)))
        .collect();
    all.sort();
    Ok(all)
}
