//! A model: a graph and its weights, from a file, from code, or by the name of a built-in network.

use std::path::Path;
use std::sync::Arc;

use spidnn_compiler::quantise::Quantisation;
use spidnn_graph::{Graph, Tensor};
use spidnn_import::{LoadOptions, TrainingConfig};

use crate::{Dataset, Error, Machine, Session, builtin, text};

/// Multiply-accumulates that the host spends on the accuracy of a format.
const ACCURACY_MACS: u64 = 1 << 28;

/// A graph with weights. It knows nothing of machines; [`Model::on`] brings it to one.
#[derive(Debug, Clone, PartialEq)]
pub struct Model {
    graph: Graph,
    weights: Vec<Tensor>,
    training: Option<TrainingConfig>,
}

impl Model {
    /// A model with these weights, in `get_weights()` order.
    ///
    /// # Errors
    /// If there are more or fewer weights than parameters, one has another shape, or one holds NaN or infinity.
    pub fn new(graph: Graph, weights: Vec<Tensor>) -> Result<Model, Error> {
        check_weights(&graph, &weights)?;
        Ok(Model { graph, weights, training: None })
    }

    /// An untrained model: each parameter starts as its initialiser says, from this seed.
    pub fn untrained(graph: Graph, seed: u64) -> Model {
        let weights = spidnn_graph::initial_weights(&graph, seed);
        Model { graph, weights, training: None }
    }

    /// A built-in network by its name ([`builtin::NAMES`]), untrained, from this seed.
    ///
    /// # Errors
    /// If there is none of this name.
    pub fn builtin(name: &str, seed: u64) -> Result<Model, Error> {
        builtin::graph(name).map(|graph| Model::untrained(graph, seed)).ok_or_else(|| unknown_model(name))
    }

    /// Opens a model: a `.keras` or `.h5` file; a `.json` architecture (untrained), or `MODEL.json+WEIGHTS` with a weights file;
    /// or the name of a built-in network. `seed`: where untrained weights start from.
    ///
    /// # Errors
    /// If there is no such file or name, or the file is damaged or holds what SpiDNN cannot train.
    pub fn open(name_or_path: &str, seed: u64) -> Result<Model, Error> {
        Model::open_with(name_or_path, seed, &LoadOptions::default())
    }

    /// [`Model::open`] for predictions and evaluation only: what only training would need may be missing here.
    ///
    /// # Errors
    /// As [`Model::open`].
    pub fn open_for_inference(name_or_path: &str, seed: u64) -> Result<Model, Error> {
        Model::open_with(name_or_path, seed, &LoadOptions { inference_only: true, ..Default::default() })
    }

    fn open_with(name_or_path: &str, seed: u64, options: &LoadOptions) -> Result<Model, Error> {
        if let Some(graph) = builtin::graph(name_or_path) {
            return Ok(Model::untrained(graph, seed));
        }
        if let Some((json, weights)) = name_or_path.split_once(".json+") {
            let options = LoadOptions { weights_follow: true, ..*options };
            let graph = spidnn_import::load_architecture_with(format!("{json}.json"), &options)?;
            let weights = spidnn_import::load_weights(&graph, weights)?;
            return Model::new(graph, weights);
        }
        let path = Path::new(name_or_path);
        if !path.exists() {
            return Err(unknown_model(name_or_path));
        }
        if path.extension().is_some_and(|e| e.eq_ignore_ascii_case("json")) {
            return Ok(Model::untrained(spidnn_import::load_architecture_with(path, options)?, seed));
        }
        let loaded = spidnn_import::load_model_with(path, options)?;
        check_weights(&loaded.graph, &loaded.weights)?;
        Ok(Model { graph: loaded.graph, weights: loaded.weights, training: loaded.training })
    }

    /// Its layers.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// Its weights, in `get_weights()` order.
    pub fn weights(&self) -> &[Tensor] {
        &self.weights
    }

    /// How it was trained, where its file says so.
    pub fn training(&self) -> Option<&TrainingConfig> {
        self.training.as_ref()
    }

    /// Replaces the weights.
    ///
    /// # Errors
    /// As [`Model::new`].
    pub fn set_weights(&mut self, weights: Vec<Tensor>) -> Result<(), Error> {
        check_weights(&self.graph, &weights)?;
        self.weights = weights;
        Ok(())
    }

    /// Loads weights from a file (`.npz` with `w000`, `w001`, .., `.weights.h5`, `.h5`, `.keras`, weights `.json`).
    ///
    /// # Errors
    /// If the file does not fit the model.
    pub fn load_weights(&mut self, path: &Path) -> Result<(), Error> {
        let weights = spidnn_import::load_weights(&self.graph, path)?;
        self.set_weights(weights)
    }

    /// Saves the model by the file name's extension; `.npz` and `.weights.h5` hold the weights alone. The file appears whole or not at all.
    ///
    /// # Errors
    /// If it cannot be written, or the extension is unknown.
    pub fn save(&self, path: &Path) -> Result<(), Error> {
        save(path, &self.graph, &self.weights, self.training.clone())
    }

    /// The table of layers that Keras prints.
    pub fn summary(&self) -> String {
        self.graph.summary()
    }

    /// What the compiler needs for format `int8`: the weights, and the ranges of the numbers on some of these inputs.
    ///
    /// # Errors
    /// Inputs that do not fit the model.
    pub fn quantisation(&self, data: &Dataset) -> Result<Quantisation, Error> {
        let data = Dataset { targets: Vec::new(), ..data.clone() }.check_inputs(&self.graph)?;
        let calibration = crate::session::calibration(&self.graph, &self.weights, &data)?;
        Ok(Quantisation { weights: Arc::new(self.weights.clone()), calibration: Arc::new(calibration) })
    }

    /// How near each layer's results come to those of the float model in a format, on the first of some inputs: computed on the host by the arithmetic
    /// of the cores.
    ///
    /// # Errors
    /// Inputs that do not fit the model; a model that cannot be compiled.
    pub fn layer_accuracy(
        &self,
        format: &spidnn_compiler::Format,
        data: &Dataset,
    ) -> Result<Vec<spidnn_compiler::LayerAccuracy>, Error> {
        let data = Dataset { targets: Vec::new(), ..data.clone() }.check_inputs(&self.graph)?;
        let samples = (ACCURACY_MACS / self.graph.total_macs().max(1)).clamp(1, 16) as usize;
        let inputs = data.take(samples.min(data.len())).inputs;
        Ok(spidnn_compiler::layer_accuracy(&self.graph, &self.weights, format, &inputs)?)
    }

    /// Brings the model to a machine. Nothing is loaded before it is needed.
    ///
    /// # Errors
    /// If the graph cannot run on the machine at all.
    pub fn on(self, machine: Machine) -> Result<Session, Error> {
        Session::new(self, machine)
    }

    pub(crate) fn into_parts(self) -> (Graph, Vec<Tensor>, Option<TrainingConfig>) {
        (self.graph, self.weights, self.training)
    }
}

/// Brings a graph as it was built to a machine, untrained from seed 0.
pub trait OnMachine {
    /// See [`Model::on`].
    ///
    /// # Errors
    /// If the graph cannot run on the machine at all.
    fn on(self, machine: Machine) -> Result<Session, Error>;
}

impl OnMachine for Graph {
    fn on(self, machine: Machine) -> Result<Session, Error> {
        Model::untrained(self, 0).on(machine)
    }
}

pub(crate) fn save(
    path: &Path,
    graph: &Graph,
    weights: &[Tensor],
    training: Option<TrainingConfig>,
) -> Result<(), Error> {
    let model = spidnn_import::Model { graph: graph.clone(), weights: weights.to_vec(), training };
    Ok(spidnn_import::save_model(path, &model)?)
}

fn unknown_model(name: &str) -> Error {
    let names: Vec<&str> = builtin::NAMES.iter().map(|(n, _)| *n).collect();
    let guess = text::nearest(name, &names).map_or(String::new(), |n| format!(" (did you mean `{n}`?)"));
    Error::Argument(format!(
        "`{name}` is neither a file nor a built-in model{guess}: give a .keras, .h5 or .json file, or one of {}",
        names.join(", ")
    ))
}

/// Weights for each parameter, of its shape, all finite.
pub(crate) fn check_weights(graph: &Graph, weights: &[Tensor]) -> Result<(), Error> {
    if weights.len() != graph.params.len() {
        return Err(Error::Argument(format!(
            "{} weights were given, model `{}` has {}: give them in the order of get_weights()",
            weights.len(),
            graph.name,
            graph.params.len()
        )));
    }
    for (i, (param, tensor)) in graph.params.iter().zip(weights).enumerate() {
        let what = || format!("weight {i} (`{}` of layer `{}`)", param.name, graph.layers[param.layer.0].name);
        if tensor.shape() != param.shape {
            return Err(Error::Argument(format!(
                "{} has shape {:?}, the model has {:?}: give the weights of this model",
                what(),
                tensor.shape(),
                param.shape
            )));
        }
        if let Some(position) = tensor.iter().position(|v| !v.is_finite()) {
            return Err(Error::Argument(format!(
                "{} holds a value that is not finite at element {position}: use weights from before the training went wrong",
                what()
            )));
        }
    }
    Ok(())
}
