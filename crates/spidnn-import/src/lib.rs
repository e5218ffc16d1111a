//! Keras and NumPy files in and out.
//!
//! | file | read | written |
//! | --- | --- | --- |
//! | `.keras` (Keras 3; also Keras 2's) | model, weights, training state | the same, for Keras 3 |
//! | `.h5`, `.hdf5` (legacy whole models of Keras 2 and 3; legacy weights) | the same | whole models, for Keras 3 |
//! | `.weights.h5` | weights | weights |
//! | `.npz` (`w000`, `w001`, .. in the order of `get_weights()`) | weights | weights |
//! | `.json` | an architecture (`model.to_json()`), or weights | both |
//!
//! Files are untrusted. Nothing in them is ever executed ([`Lambda` layers](Problem) are refused by name), names inside
//! archives are never used as paths, everything is bounded by [`limits`], and all that is wrong with a model comes in one
//! report: [`ImportError::Unsupported`].
//!
//! ```
//! let json = r#"{"class_name": "Sequential", "config": {"name": "tiny", "layers": [
//!     {"class_name": "InputLayer", "config": {"batch_shape": [null, 3], "name": "in"}},
//!     {"class_name": "Dense", "config": {"name": "out", "units": 2, "activation": "swish"}},
//!     {"class_name": "Lambda", "config": {"name": "trick", "function": "os.system"}}]}}"#;
//! let error = spidnn_import::parse_architecture(json).unwrap_err();
//! assert_eq!(error.problems().len(), 1);
//! assert_eq!(error.problems()[0].layer, "trick");
//! ```
#![forbid(unsafe_code)]

mod archive;
mod disk;
mod error;
mod hdf5;
mod keras;
pub mod limits;
pub mod npz;
mod weights;

use std::path::Path;

use serde_json::Value;
use spidnn_graph::{Graph, LayerId, Tensor};

pub use error::{ImportError, Problem};
pub use keras::training::{OptimizerState, Slot, SlotRole, TrainingConfig, slots};

use archive::Archive;
use hdf5::{Data, Group, Hdf5};
use keras::model::Imported;
use keras::{training, write};

/// A model: what it is, what it has learnt, and how it was trained.
#[derive(Debug, Clone, PartialEq)]
pub struct Model {
    /// Layers and calls.
    pub graph: Graph,
    /// One tensor for each parameter, in the order of `get_weights()`.
    pub weights: Vec<Tensor>,
    /// Loss, optimizer and the optimizer's variables, where the model was compiled.
    pub training: Option<TrainingConfig>,
}

/// How to load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LoadOptions {
    /// Take models with regularizers, constraints and calls with `training=False`, which SpiDNN cannot train but can run:
    /// what only training would use is left out.
    pub inference_only: bool,
    /// For an architecture alone: weights will be put in, so initializers that SpiDNN does not have do not matter.
    pub weights_follow: bool,
}

/// What a file is, by its first bytes, or else by the ending of its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// A `.keras` archive.
    Keras,
    /// HDF5: a legacy whole model or weights; told apart by what is in it.
    Hdf5,
    /// A `.npz` archive.
    Npz,
    /// JSON.
    Json,
}

impl Format {
    /// The format of a file of this name with these bytes.
    ///
    /// # Errors
    ///
    /// Neither says anything that is known.
    pub fn detect(path: &Path, bytes: &[u8]) -> Result<Self, ImportError> {
        if bytes.starts_with(hdf5::MAGIC) {
            return Ok(Self::Hdf5);
        }
        if ends_with(path, ".keras") {
            Ok(Self::Keras)
        } else if ends_with(path, ".npz") {
            Ok(Self::Npz)
        } else if ends_with(path, ".h5") || ends_with(path, ".hdf5") {
            Ok(Self::Hdf5)
        } else if ends_with(path, ".json") {
            Ok(Self::Json)
        } else {
            Err(ImportError::Extension { path: path.to_owned(), wanted: ".keras, .h5, .weights.h5, .npz or .json" })
        }
    }
}

/// Whether a path's name ends so, in whatever case.
pub(crate) fn ends_with(path: &Path, ending: &str) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().to_ascii_lowercase().ends_with(ending))
}

/// Loads a whole model: `.keras`, or `.h5`/`.hdf5`.
///
/// # Errors
///
/// [`ImportError::WeightsNeeded`] for a `.json`, which has no weights; [`ImportError::Unsupported`] with everything that
/// does not fit, at once; others as they say.
pub fn load_model(path: impl AsRef<Path>) -> Result<Model, ImportError> {
    load_model_with(path, &LoadOptions::default())
}

/// [`load_model`] with options.
pub fn load_model_with(path: impl AsRef<Path>, options: &LoadOptions) -> Result<Model, ImportError> {
    let path = path.as_ref();
    let bytes = disk::read(path)?;
    let format = Format::detect(path, &bytes)?;
    if format == Format::Json {
        return Err(ImportError::WeightsNeeded(path.to_owned()));
    }
    load_model_bytes(format, bytes, options).map_err(|error| error.in_file(path))
}

/// [`load_model_with`] from memory.
pub fn load_model_bytes(format: Format, bytes: Vec<u8>, options: &LoadOptions) -> Result<Model, ImportError> {
    match format {
        Format::Keras => {
            let mut archive = Archive::open("the .keras file", bytes)?;
            let (config, imported) = keras_architecture(&mut archive, options, true)?;
            let file = keras_weights(&mut archive)?;
            let groups: Vec<Option<String>> =
                imported.origins.iter().map(|origin| Some(origin.group.clone())).collect();
            let weights = weights::read_store(&file, &imported.graph, &groups)?;
            let mut training = config.get("compile_config").and_then(training::read);
            if let Some(training) = &mut training {
                read_state(training, &imported.graph, &file, StateLayout::Store);
            }
            Ok(Model { graph: imported.graph, weights, training })
        }
        Format::Hdf5 => {
            let file = Hdf5::open("the .h5 file", bytes)?;
            let (training, imported) = legacy_architecture(&file, options, true)?;
            let units = legacy_units(&imported);
            let weights = weights::read_legacy(&file, "model_weights", &imported.graph, units)?;
            let mut training = training.as_ref().and_then(training::read);
            if let Some(training) = &mut training {
                read_state(training, &imported.graph, &file, StateLayout::Legacy);
            }
            Ok(Model { graph: imported.graph, weights, training })
        }
        Format::Npz => {
            Err(ImportError::format("a .npz holds weights without an architecture; give a .json or a model too"))
        }
        Format::Json => Err(ImportError::format("a .json holds no weights; give a weights file too")),
    }
}

/// Loads an architecture: `.json`, or that of a whole model.
///
/// # Errors
///
/// As [`load_model`].
pub fn load_architecture(path: impl AsRef<Path>) -> Result<Graph, ImportError> {
    load_architecture_with(path, &LoadOptions::default())
}

/// [`load_architecture`] with options.
pub fn load_architecture_with(path: impl AsRef<Path>, options: &LoadOptions) -> Result<Graph, ImportError> {
    let path = path.as_ref();
    let bytes = disk::read(path)?;
    let format = Format::detect(path, &bytes)?;
    architecture_bytes(format, bytes, options).map(|imported| imported.graph).map_err(|error| error.in_file(path))
}

/// The architecture in a JSON text, as `model.to_json()` writes it.
///
/// # Errors
///
/// As [`load_model`].
pub fn parse_architecture(json: &str) -> Result<Graph, ImportError> {
    parse_architecture_with(json, &LoadOptions::default())
}

/// [`parse_architecture`] with options.
pub fn parse_architecture_with(json: &str, options: &LoadOptions) -> Result<Graph, ImportError> {
    architecture_bytes(Format::Json, json.as_bytes().to_vec(), options).map(|imported| imported.graph)
}

fn architecture_bytes(format: Format, bytes: Vec<u8>, options: &LoadOptions) -> Result<Imported, ImportError> {
    match format {
        Format::Json => {
            let value = parse_json("the file", &bytes)?;
            keras::model::read(&value, None, options.weights_follow, options.inference_only)
        }
        Format::Keras => {
            let mut archive = Archive::open("the .keras file", bytes)?;
            Ok(keras_architecture(&mut archive, options, options.weights_follow)?.1)
        }
        Format::Hdf5 => {
            let file = Hdf5::open("the .h5 file", bytes)?;
            Ok(legacy_architecture(&file, options, options.weights_follow)?.1)
        }
        Format::Npz => Err(ImportError::format("a .npz holds weights without an architecture")),
    }
}

/// Loads weights for a graph, in the order of `get_weights()`: `.weights.h5`, `.h5`, `.keras`, `.npz` or `.json`.
///
/// # Errors
///
/// [`ImportError::Unsupported`] with every weight that is missing, has another shape or holds NaN or infinity.
pub fn load_weights(graph: &Graph, path: impl AsRef<Path>) -> Result<Vec<Tensor>, ImportError> {
    let path = path.as_ref();
    let bytes = disk::read(path)?;
    let format = Format::detect(path, &bytes)?;
    load_weights_bytes(graph, format, bytes).map_err(|error| error.in_file(path))
}

/// [`load_weights`] from memory.
pub fn load_weights_bytes(graph: &Graph, format: Format, bytes: Vec<u8>) -> Result<Vec<Tensor>, ImportError> {
    match format {
        Format::Npz => weights::read_npz(graph, bytes),
        Format::Json => weights::read_json(graph, &parse_json("the file", &bytes)?),
        Format::Keras => {
            let mut archive = Archive::open("the .keras file", bytes)?;
            // The file's own architecture knows best which group is which layer, if it is the same model.
            let options = LoadOptions { inference_only: true, weights_follow: true };
            let own = keras_architecture(&mut archive, &options, true).ok().map(|(_, imported)| imported);
            let file = keras_weights(&mut archive)?;
            let groups = match own.filter(|own| same_parameters(&own.graph, graph)) {
                Some(own) => own.origins.into_iter().map(|origin| Some(origin.group)).collect(),
                None => write::groups(graph),
            };
            weights::read_store(&file, graph, &groups)
        }
        Format::Hdf5 => {
            let file = Hdf5::open("the .h5 file", bytes)?;
            if file.has_group("model_weights") {
                let options = LoadOptions { inference_only: true, weights_follow: true };
                let own = legacy_architecture(&file, &options, true).ok().map(|(_, imported)| imported);
                let units = match own.filter(|own| same_parameters(&own.graph, graph)) {
                    Some(own) => legacy_units(&own),
                    None => weights::flat_units(graph),
                };
                return weights::read_legacy(&file, "model_weights", graph, units);
            }
            if file.texts("", "layer_names")?.is_some() {
                return weights::read_legacy(&file, "", graph, weights::flat_units(graph));
            }
            weights::read_store(&file, graph, &write::groups(graph))
        }
    }
}

/// Whether two graphs have the same layers with the same parameters, layer by layer.
fn same_parameters(a: &Graph, b: &Graph) -> bool {
    a.layers.len() == b.layers.len()
        && a.layers.iter().zip(&b.layers).all(|(a, b)| a.params == b.params)
        && a.params.len() == b.params.len()
        && a.params.iter().zip(&b.params).all(|(a, b)| a.shape == b.shape && a.name == b.name)
}

/// Saves a model by the ending of the path: `.keras`, `.h5`/`.hdf5` (legacy); or its weights alone: `.weights.h5`, `.npz`.
/// The file is written beside the target and renamed, so the target is never half written.
///
/// # Errors
///
/// [`ImportError::Unsupported`] where weights do not fit the graph, hold NaN or infinity, or the model has what Keras
/// cannot say; [`ImportError::Extension`] for other endings (a `.json` would lose the weights: see
/// [`save_architecture`] and [`save_weights`]).
pub fn save_model(path: impl AsRef<Path>, model: &Model) -> Result<(), ImportError> {
    let path = path.as_ref();
    if ends_with(path, ".weights.h5") || ends_with(path, ".npz") {
        return save_weights(path, &model.graph, &model.weights);
    }
    let bytes = if ends_with(path, ".keras") {
        model_bytes(Format::Keras, model)
    } else if ends_with(path, ".h5") || ends_with(path, ".hdf5") {
        model_bytes(Format::Hdf5, model)
    } else {
        return Err(ImportError::Extension { path: path.to_owned(), wanted: ".keras, .h5, .weights.h5 or .npz" });
    };
    disk::write(path, &bytes.map_err(|error| error.in_file(path))?)
}

/// The bytes of a whole model, [`Format::Keras`] or [`Format::Hdf5`].
pub fn model_bytes(format: Format, model: &Model) -> Result<Vec<u8>, ImportError> {
    weights::check(&model.graph, &model.weights)?;
    let graph = &model.graph;
    let optimizer = model
        .training
        .as_ref()
        .filter(|training| training.loss.is_some())
        .and_then(|training| training.optimizer.as_ref());
    let state = model.training.as_ref().and_then(|training| training.state.as_ref());
    let slots = optimizer.map(|optimizer| weights::ordered_slots(graph, &optimizer.rule, state)).unwrap_or_default();
    let iterations = state.map_or(0, |state| i64::try_from(state.iterations).unwrap_or(i64::MAX));
    let rate = optimizer.and_then(|optimizer| match optimizer.learning_rate {
        spidnn_graph::training::LearningRate::Constant(rate) => {
            Some(state.and_then(|state| state.learning_rate).unwrap_or(rate))
        }
        _ => None,
    });
    match format {
        Format::Keras => {
            let mut config = write::to_json(graph)?;
            let compiled = training::compile_config(model.training.as_ref());
            if compiled.as_object().is_some_and(|compiled| !compiled.is_empty()) {
                config["compile_config"] = compiled;
            }
            let mut file = Group::default();
            weights::write_store(&mut file, graph, &model.weights);
            if let Some(optimizer) = optimizer {
                let vars = file.at("optimizer/vars");
                vars.text("name", training::optimizer_json(optimizer).1);
                vars.put("0", Data::Integer(iterations));
                let mut next = 1;
                if let Some(rate) = rate {
                    vars.put("1", Data::Float(rate));
                    next = 2;
                }
                for (index, (_, _, value)) in slots.iter().enumerate() {
                    vars.put(&(next + index).to_string(), Data::Tensor(value));
                }
            }
            let metadata =
                serde_json::json!({"keras_version": write::KERAS_VERSION, "date_saved": "1980-01-01@00:00:00"});
            archive::pack([
                ("metadata.json", metadata.to_string().into_bytes()),
                ("config.json", config.to_string().into_bytes()),
                ("model.weights.h5", file.into_file()?),
            ])
        }
        Format::Hdf5 => {
            let mut file = Group::default();
            file.text("keras_version", write::KERAS_VERSION);
            file.text("backend", "tensorflow");
            file.text("model_config", write::to_json(graph)?.to_string());
            if let Some(config) = training::training_config(model.training.as_ref()) {
                file.text("training_config", config.to_string());
            }
            weights::write_legacy(file.at("model_weights"), graph, &model.weights);
            if let Some(optimizer) = optimizer {
                let name = training::optimizer_json(optimizer).1;
                let group = file.at("optimizer_weights");
                let mut names = vec![format!("{name}/iteration")];
                group.put(&names[0], Data::Integer(iterations));
                if let Some(rate) = rate {
                    names.push(format!("{name}/learning_rate"));
                    group.put(&names[1], Data::Float(rate));
                }
                for (param, role, value) in &slots {
                    let path = training::slot_name(graph, name, *param, *role);
                    group.put(&path, Data::Tensor(value));
                    names.push(path);
                }
                group.texts("weight_names", names);
            }
            file.into_file()
        }
        Format::Npz | Format::Json => Err(ImportError::format("whole models are written as .keras or .h5")),
    }
}

/// Saves weights by the ending of the path: `.weights.h5` (or `.h5`: the legacy layout), `.npz` (`w000`, ..) or `.json`.
///
/// # Errors
///
/// As [`save_model`].
pub fn save_weights(path: impl AsRef<Path>, graph: &Graph, weights: &[Tensor]) -> Result<(), ImportError> {
    let path = path.as_ref();
    weights::check(graph, weights)?;
    let bytes = if ends_with(path, ".npz") {
        let names: Vec<String> = (0..weights.len()).map(weights::npz_name).collect();
        let arrays: Vec<(&str, &Tensor)> = names.iter().map(String::as_str).zip(weights).collect();
        npz::npz_bytes(&arrays)?
    } else if ends_with(path, ".json") {
        weights::json_text(graph, weights)?.into_bytes()
    } else if ends_with(path, ".weights.h5") {
        let mut file = Group::default();
        weights::write_store(&mut file, graph, weights);
        file.into_file().map_err(|error| error.in_file(path))?
    } else if ends_with(path, ".h5") || ends_with(path, ".hdf5") {
        let mut file = Group::default();
        weights::write_legacy(&mut file, graph, weights);
        file.into_file().map_err(|error| error.in_file(path))?
    } else {
        return Err(ImportError::Extension { path: path.to_owned(), wanted: ".weights.h5, .h5, .npz or .json" });
    };
    disk::write(path, &bytes)
}

/// The architecture as JSON, as `keras.models.model_from_json` takes it.
///
/// # Errors
///
/// [`ImportError::Unsupported`] where the model has what Keras cannot say.
pub fn architecture_json(graph: &Graph) -> Result<String, ImportError> {
    Ok(write::to_json(graph)?.to_string())
}

/// Saves [`architecture_json`] to a `.json`.
///
/// # Errors
///
/// As [`save_model`].
pub fn save_architecture(path: impl AsRef<Path>, graph: &Graph) -> Result<(), ImportError> {
    let path = path.as_ref();
    if !ends_with(path, ".json") {
        return Err(ImportError::Extension { path: path.to_owned(), wanted: ".json" });
    }
    disk::write(path, architecture_json(graph)?.as_bytes())
}

fn parse_json(what: &str, bytes: &[u8]) -> Result<Value, ImportError> {
    if bytes.len() as u64 > limits::JSON_BYTES_MAX {
        return Err(ImportError::too_large(
            format!("the JSON of {what} in bytes"),
            bytes.len() as u64,
            limits::JSON_BYTES_MAX,
        ));
    }
    // serde_json refuses to go deeper than 128 levels.
    serde_json::from_slice(bytes).map_err(|error| ImportError::format(format!("{what} is not sound JSON: {error}")))
}

/// `config.json` of an archive, and the graph in it.
fn keras_architecture(
    archive: &mut Archive,
    options: &LoadOptions,
    weights_follow: bool,
) -> Result<(Value, Imported), ImportError> {
    let config = archive.read("config.json", limits::JSON_BYTES_MAX)?.ok_or_else(|| {
        ImportError::format("the archive has no config.json: it is no .keras file (arrays are in .npz files)")
    })?;
    let config = parse_json("config.json", &config)?;
    // Very old archives have no metadata; the version is then told by the words of the configuration.
    let metadata = match archive.read("metadata.json", limits::JSON_BYTES_MAX)? {
        Some(metadata) => parse_json("metadata.json", &metadata)?,
        None => Value::Null,
    };
    let version = metadata.get("keras_version").and_then(Value::as_str);
    let imported = keras::model::read(&config, version, weights_follow, options.inference_only)?;
    Ok((config, imported))
}

fn keras_weights(archive: &mut Archive) -> Result<Hdf5, ImportError> {
    match archive.read("model.weights.h5", limits::FILE_BYTES_MAX)? {
        Some(bytes) => Hdf5::open("model.weights.h5", bytes),
        None => Err(ImportError::format(
            "the archive has no model.weights.h5 (weights in several files are not read: save without sharding)",
        )),
    }
}

/// The training configuration and the graph of a legacy file.
fn legacy_architecture(
    file: &Hdf5,
    options: &LoadOptions,
    weights_follow: bool,
) -> Result<(Option<Value>, Imported), ImportError> {
    let config = file.text("", "model_config")?.ok_or_else(|| {
        ImportError::format(
            "the file has weights without an architecture (no attribute model_config); give a .json too",
        )
    })?;
    let config = parse_json("attribute model_config", config.as_bytes())?;
    let training = match file.text("", "training_config")? {
        Some(training) => Some(parse_json("attribute training_config", training.as_bytes())?),
        None => None,
    };
    let version = file.text("", "keras_version")?;
    let imported = keras::model::read(&config, version.as_deref(), weights_follow, options.inference_only)?;
    Ok((training, imported))
}

/// Layers by the group of a legacy file that they are in.
fn legacy_units(imported: &Imported) -> Vec<(Option<String>, Vec<LayerId>)> {
    let mut units: Vec<(usize, Vec<LayerId>)> = Vec::new();
    for (index, origin) in imported.origins.iter().enumerate() {
        match units.last_mut() {
            Some((top, layers)) if *top == origin.top => layers.push(LayerId(index)),
            _ => units.push((origin.top, vec![LayerId(index)])),
        }
    }
    // Files name these groups after the outermost layers, in the same order; the order is what Keras goes by.
    units.into_iter().map(|(_, layers)| (None, layers)).collect()
}

enum StateLayout {
    Store,
    Legacy,
}

/// Reads the optimizer's variables, where they are there; what does not fit is a problem of the training, not of the model.
fn read_state(training: &mut TrainingConfig, graph: &Graph, file: &Hdf5, layout: StateLayout) {
    let Some(optimizer) = &training.optimizer else { return };
    let paths: Vec<String> = match layout {
        StateLayout::Store => {
            let count = file.datasets("optimizer/vars").map(|names| names.len()).unwrap_or(0);
            (0..count).map(|index| format!("optimizer/vars/{index}")).collect()
        }
        StateLayout::Legacy => match file.texts("optimizer_weights", "weight_names") {
            Ok(Some(names)) => names.iter().map(|name| format!("optimizer_weights/{name}")).collect(),
            _ => Vec::new(),
        },
    };
    // A model that was compiled and never trained may have the counter alone.
    let Some((first, rest)) = paths.split_first().filter(|(_, rest)| rest.len() > 1 || !slots_needed(graph, optimizer))
    else {
        return;
    };
    let state = file.integer(first).and_then(|iterations| {
        let variables = rest.iter().map(|path| file.tensor(path)).collect::<Result<Vec<_>, _>>()?;
        Ok((iterations, variables))
    });
    let state = match state {
        Ok((iterations, variables)) => training::state(graph, optimizer, iterations, variables),
        Err(error) => Err(Problem::new("", format!("the optimizer's variables are left out: {error}"))),
    };
    match state {
        Ok(state) => training.state = Some(state),
        Err(problem) => training.problems.push(problem),
    }
}

fn slots_needed(graph: &Graph, optimizer: &spidnn_graph::training::Optimizer) -> bool {
    !slots(graph, &optimizer.rule).is_empty()
}
