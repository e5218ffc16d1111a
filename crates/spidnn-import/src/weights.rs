//! Weights between files and `get_weights()` order.

use std::collections::HashMap;

use ndarray::{ArrayD, IxDyn};
use serde_json::{Value, json};
use spidnn_graph::{Graph, LayerId, ParamId, Tensor};

use crate::hdf5::{Data, Group, Hdf5};
use crate::keras::training::{OptimizerState, SlotRole, is_trained, slots};
use crate::keras::write;
use crate::{ImportError, Problem, npz};

/// Collects tensors for parameters, and everything that is wrong with them.
struct Collector<'g> {
    graph: &'g Graph,
    tensors: Vec<Option<Tensor>>,
    problems: Vec<Problem>,
}

impl<'g> Collector<'g> {
    fn new(graph: &'g Graph) -> Self {
        Self { graph, tensors: vec![None; graph.params.len()], problems: Vec::new() }
    }

    fn layer_name(&self, id: ParamId) -> &'g str {
        &self.graph.layers[self.graph.params[id.0].layer.0].name
    }

    fn problem(&mut self, layer: &str, what: String) {
        self.problems.push(Problem::new(layer, what));
    }

    /// Takes a tensor; `from` says where it was found.
    fn put(&mut self, id: ParamId, from: &str, tensor: Result<Tensor, ImportError>) {
        let param = &self.graph.params[id.0];
        let layer = self.layer_name(id);
        match tensor {
            Err(error) => self.problem(layer, format!("{}: {error}", param.name)),
            Ok(tensor) if tensor.shape() != param.shape => self.problems.push(
                Problem::new(
                    layer,
                    format!("{} needs shape {:?}; {from} has {:?}", param.name, param.shape, tensor.shape()),
                )
                .nearest("the weights of this very model"),
            ),
            Ok(tensor) => {
                if let Some(index) = tensor.iter().position(|value| !value.is_finite()) {
                    self.problem(
                        layer,
                        format!("{} in {from} holds NaN or infinity (element {index} of {})", param.name, tensor.len()),
                    );
                } else {
                    self.tensors[id.0] = Some(tensor);
                }
            }
        }
    }

    fn finish(mut self) -> Result<Vec<Tensor>, ImportError> {
        // A parameter without a tensor has a problem already; this is the belt to those braces.
        if self.problems.is_empty()
            && let Some(id) = self.tensors.iter().position(Option::is_none)
        {
            let id = ParamId(id);
            let (layer, name) = (self.layer_name(id), self.graph.params[id.0].name.clone());
            self.problem(layer, format!("{name} is not in the file"));
        }
        if self.problems.is_empty() {
            Ok(self.tensors.into_iter().flatten().collect())
        } else {
            Err(ImportError::Unsupported(self.problems))
        }
    }
}

/// Reads the Keras 3 layout: a group for each layer, variables numbered. `groups` gives the group of each layer.
pub(crate) fn read_store(file: &Hdf5, graph: &Graph, groups: &[Option<String>]) -> Result<Vec<Tensor>, ImportError> {
    // Keras 2.12 to 2.14 called the outermost group otherwise.
    let root = ["layers", "_layer_checkpoint_dependencies"].into_iter().find(|root| file.has_group(root));
    let root = root.ok_or_else(|| {
        ImportError::format("no weights of Keras in it: neither a group `layers` nor `model_weights` nor `layer_names`")
    })?;
    let mut by_name: Option<HashMap<String, String>> = None;
    let mut collector = Collector::new(graph);
    for (layer, group) in graph.layers.iter().zip(groups) {
        if layer.params.is_empty() {
            continue;
        }
        let mut path = match group {
            Some(group) => format!("{root}{}", group.strip_prefix("layers").unwrap_or(group)),
            None => String::new(),
        };
        if path.is_empty() || !fits(file, &path, graph, layer) {
            // The count of classes may differ (a model inside a model was unfolded): newer files name their layers.
            let names = by_name.get_or_insert_with(|| named_groups(file, root));
            if let Some(found) = names.get(&layer.name)
                && (path.is_empty() || fits(file, found, graph, layer))
            {
                path = found.clone();
            }
        }
        let vars = format!("{path}/vars");
        let found = file.datasets(&vars).map(|names| names.len()).unwrap_or(0);
        if found == 0 {
            collector.problem(&layer.name, format!("its weights are missing (no `{vars}/0` in the file)"));
            continue;
        }
        if found != layer.params.len() {
            collector
                .problem(&layer.name, format!("has {} weights; `{vars}` of the file has {found}", layer.params.len()));
            continue;
        }
        for (index, id) in layer.params.iter().enumerate() {
            let dataset = format!("{vars}/{index}");
            collector.put(*id, &format!("`{dataset}`"), file.tensor(&dataset));
        }
    }
    collector.finish()
}

/// Whether a group holds variables of the shapes of a layer.
fn fits(file: &Hdf5, group: &str, graph: &Graph, layer: &spidnn_graph::Layer) -> bool {
    layer.params.iter().enumerate().all(|(index, id)| {
        file.shape(&format!("{group}/vars/{index}")).is_some_and(|shape| shape == graph.params[id.0].shape)
    })
}

/// Groups by the layer's name that newer Keras versions leave in them, inner models included.
fn named_groups(file: &Hdf5, root: &str) -> HashMap<String, String> {
    let mut found = HashMap::new();
    let mut waiting = vec![(root.to_owned(), 0)];
    while let Some((path, depth)) = waiting.pop() {
        for name in file.groups(&path).unwrap_or_default() {
            let group = format!("{path}/{name}");
            if let Ok(Some(layer)) = file.text(&format!("{group}/vars"), "name") {
                found.insert(layer, group.clone());
            }
            // Two levels for each model inside a model.
            if depth < 32 && found.len() < crate::limits::LAYERS_MAX && file.has_group(&format!("{group}/layers")) {
                waiting.push((format!("{group}/layers"), depth + 1));
            }
        }
    }
    found
}

/// Reads the legacy layout: `layer_names`, and in each layer's group `weight_names`. `units` lists the layers of the
/// graph that share a group (those of a model inside the model).
pub(crate) fn read_legacy(
    file: &Hdf5,
    root: &str,
    graph: &Graph,
    units: Vec<(Option<String>, Vec<LayerId>)>,
) -> Result<Vec<Tensor>, ImportError> {
    let names = file
        .texts(root, "layer_names")?
        .ok_or_else(|| ImportError::format("no weights of Keras in it: no attribute `layer_names`"))?;
    if names.len() > crate::limits::LAYERS_MAX {
        return Err(ImportError::too_large(
            "the number of layers",
            names.len() as u64,
            crate::limits::LAYERS_MAX as u64,
        ));
    }
    let path = |parts: &[&str]| parts.iter().filter(|part| !part.is_empty()).copied().collect::<Vec<_>>().join("/");
    let mut saved = Vec::new();
    for name in names {
        let group = path(&[root, &name]);
        let weights = file.texts(&group, "weight_names")?.unwrap_or_default();
        if !weights.is_empty() {
            saved.push((name, group, weights));
        }
    }
    let units: Vec<_> =
        units.into_iter().filter(|(_, layers)| layers.iter().any(|id| !graph.layers[id.0].params.is_empty())).collect();
    let mut collector = Collector::new(graph);
    // By name where all names are there, else by order, as Keras does.
    let by_name: HashMap<&str, usize> =
        saved.iter().enumerate().map(|(index, (name, ..))| (name.as_str(), index)).collect();
    let named: Option<Vec<usize>> =
        units.iter().map(|(name, _)| name.as_deref().and_then(|name| by_name.get(name).copied())).collect();
    if named.is_none() && units.len() != saved.len() {
        for (name, layers) in &units {
            let shown = name.as_deref().unwrap_or(&graph.layers[layers[0].0].name);
            if !by_name.contains_key(shown) {
                collector.problem(shown, format!("its weights are missing (no group `{shown}` in the file)"));
            }
        }
        if collector.problems.is_empty() {
            collector.problem("", format!("{} layers with weights, {} in the file", units.len(), saved.len()));
        }
        return collector.finish();
    }
    for (index, (_, layers)) in units.iter().enumerate() {
        let (name, group, weights) = &saved[named.as_ref().map_or(index, |named| named[index])];
        // Keras lists what is trained before what is not; within one layer that is the usual order anyway.
        let params: Vec<ParamId> = layers.iter().flat_map(|id| graph.layers[id.0].params.iter().copied()).collect();
        let (mut order, rest): (Vec<_>, Vec<_>) = params.into_iter().partition(|id| is_trained(graph, *id));
        order.extend(rest);
        if order.len() != weights.len() {
            collector.problem(name, format!("has {} weights; the file has {}", order.len(), weights.len()));
            continue;
        }
        for (id, weight) in order.into_iter().zip(weights) {
            let dataset = path(&[group, weight]);
            collector.put(id, &format!("`{dataset}`"), file.tensor(&dataset));
        }
    }
    collector.finish()
}

/// The layers of a graph, each a unit of its own, in Keras' order.
pub(crate) fn flat_units(graph: &Graph) -> Vec<(Option<String>, Vec<LayerId>)> {
    write::keras_order(graph).into_iter().map(|id| (Some(graph.layers[id.0].name.clone()), vec![id])).collect()
}

/// Tensors in `get_weights()` order.
fn in_order(graph: &Graph, tensors: Vec<(String, Tensor)>) -> Result<Vec<Tensor>, ImportError> {
    let mut collector = Collector::new(graph);
    if tensors.len() < graph.params.len() {
        for id in (tensors.len()..graph.params.len()).map(ParamId) {
            let (layer, name) = (collector.layer_name(id), &graph.params[id.0].name);
            collector.problem(layer, format!("{name} is missing: the file has {} arrays", tensors.len()));
        }
    } else if tensors.len() > graph.params.len() {
        collector
            .problem("", format!("the file has {} arrays, the model {} parameters", tensors.len(), graph.params.len()));
    }
    for (index, (name, tensor)) in tensors.into_iter().enumerate().take(graph.params.len()) {
        collector.put(ParamId(index), &format!("`{name}`"), Ok(tensor));
    }
    collector.finish()
}

/// Reads the arrays `w000`, `w001`, .. (or NumPy's own `arr_0`, `arr_1`, ..) of a `.npz`.
pub(crate) fn read_npz(graph: &Graph, bytes: Vec<u8>) -> Result<Vec<Tensor>, ImportError> {
    let arrays = npz::read_bytes(bytes)?;
    let mut numbered = Vec::with_capacity(arrays.len());
    for (name, array) in arrays {
        let digits = name.strip_prefix("arr_").or_else(|| name.strip_prefix('w')).unwrap_or("");
        match digits.parse::<usize>() {
            Ok(number) if digits.bytes().all(|byte| byte.is_ascii_digit()) => numbered.push((number, name, array)),
            _ => {
                return Err(ImportError::format(format!(
                    "array `{name}` is no weight: weights are called w000, w001, .. in the order of get_weights()"
                )));
            }
        }
    }
    numbered.sort_by_key(|(number, ..)| *number);
    if let Some((expected, (number, ..))) = numbered.iter().enumerate().find(|(index, entry)| entry.0 != *index) {
        return Err(ImportError::format(format!("array w{expected:03} is missing (w{number:03} is there)")));
    }
    in_order(graph, numbered.into_iter().map(|(_, name, array)| (name, array.to_f32())).collect())
}

/// The name of a weight in a `.npz`.
pub(crate) fn npz_name(index: usize) -> String {
    format!("w{index:03}")
}

/// Nested lists of numbers -> shape and values.
fn nested(value: &Value, depth: usize, shape: &mut Vec<usize>, values: &mut Vec<f32>) -> Result<(), String> {
    match value {
        Value::Array(items) => {
            if depth >= crate::limits::RANK_MAX {
                return Err("lists are nested too deeply".into());
            }
            match shape.get(depth) {
                None => shape.push(items.len()),
                Some(size) if *size == items.len() => {}
                Some(size) => return Err(format!("lists of {size} and of {} at one level", items.len())),
            }
            items.iter().try_for_each(|item| nested(item, depth + 1, shape, values))
        }
        value => {
            if depth != shape.len() {
                return Err("numbers and lists at one level".into());
            }
            let number = value.as_f64().ok_or_else(|| "something that is not a number".to_owned())?;
            values.push(number as f32);
            Ok(())
        }
    }
}

/// Reads weights from JSON: what [`json_text`] writes, or a bare list of nested lists (`[w.tolist() for w in
/// model.get_weights()]`).
pub(crate) fn read_json(graph: &Graph, value: &Value) -> Result<Vec<Tensor>, ImportError> {
    let entries = match value {
        Value::Array(entries) => entries,
        Value::Object(object) => match object.get("weights") {
            Some(Value::Array(entries)) => entries,
            _ if object.contains_key("class_name") => {
                return Err(ImportError::format(
                    "this JSON is an architecture; weights are a list of arrays, or an object with `weights`",
                ));
            }
            _ => return Err(ImportError::format("this JSON holds no weights: no list `weights`")),
        },
        _ => return Err(ImportError::format("this JSON holds no weights")),
    };
    let mut tensors = Vec::with_capacity(entries.len().min(graph.params.len()));
    for (index, entry) in entries.iter().enumerate() {
        let bad = |what: String| ImportError::format(format!("weight {index}: {what}"));
        let name = |entry: &Value| -> String {
            let part = |key| entry.get(key).and_then(Value::as_str);
            match (part("layer"), part("name")) {
                (Some(layer), Some(name)) => format!("{layer}/{name}"),
                _ => format!("weight {index}"),
            }
        };
        let (mut shape, mut values) = (Vec::new(), Vec::new());
        let data = match entry {
            Value::Object(object) => object.get("data").ok_or_else(|| bad("no `data`".into()))?,
            other => other,
        };
        nested(data, 0, &mut shape, &mut values).map_err(bad)?;
        if let Some(declared) = entry.get("shape").and_then(Value::as_array) {
            let declared: Option<Vec<u64>> = declared.iter().map(Value::as_u64).collect();
            let declared = declared.ok_or_else(|| bad("its shape is not a list of sizes".into()))?;
            if crate::limits::elements(&format!("weight {index}"), &declared)? != values.len() {
                return Err(bad(format!("{} numbers for shape {declared:?}", values.len())));
            }
            shape = declared.iter().map(|&size| size as usize).collect();
        }
        let tensor = ArrayD::from_shape_vec(IxDyn(&shape), values).map_err(|error| bad(error.to_string()))?;
        tensors.push((name(entry), tensor));
    }
    in_order(graph, tensors)
}

/// Weights as JSON: `{"format": "spidnn-weights", "version": 1, "weights": [{"layer", "name", "shape", "data"}, ..]}`, data
/// row-major, each number the shortest that reads back to the same float32.
pub(crate) fn json_text(graph: &Graph, weights: &[Tensor]) -> Result<String, ImportError> {
    check(graph, weights)?;
    let entries: Vec<Value> = graph
        .params
        .iter()
        .zip(weights)
        .map(|(param, tensor)| {
            json!({
                "layer": graph.layers[param.layer.0].name,
                "name": param.name,
                "shape": tensor.shape(),
                "data": tensor.iter().map(|value| crate::keras::training::float(*value)).collect::<Vec<_>>(),
            })
        })
        .collect();
    let value = json!({"format": "spidnn-weights", "version": 1, "weights": entries});
    serde_json::to_string(&value).map_err(|error| ImportError::format(format!("cannot write JSON: {error}")))
}

/// Holds weights against the graph before anything is written.
pub(crate) fn check(graph: &Graph, weights: &[Tensor]) -> Result<(), ImportError> {
    if weights.len() != graph.params.len() {
        return Err(ImportError::Unsupported(vec![Problem::new(
            "",
            format!("{} weights for {} parameters", weights.len(), graph.params.len()),
        )]));
    }
    let mut problems = Vec::new();
    for (param, tensor) in graph.params.iter().zip(weights) {
        let layer = &graph.layers[param.layer.0].name;
        if tensor.shape() != param.shape {
            let what = format!("{} needs shape {:?}, not {:?}", param.name, param.shape, tensor.shape());
            problems.push(Problem::new(layer, what));
        } else if let Some(index) = tensor.iter().position(|value| !value.is_finite()) {
            problems.push(Problem::new(layer, format!("{} holds NaN or infinity (element {index})", param.name)));
        }
    }
    if problems.is_empty() { Ok(()) } else { Err(ImportError::Unsupported(problems)) }
}

/// Fills a file of the Keras 3 layout.
pub(crate) fn write_store<'a>(file: &mut Group<'a>, graph: &Graph, weights: &'a [Tensor]) {
    let vars = file.at("vars");
    vars.text("name", &graph.name);
    file.at("layers");
    for (layer, group) in graph.layers.iter().zip(write::groups(graph)) {
        let Some(group) = group else { continue };
        let vars = file.at(&format!("{group}/vars"));
        vars.text("name", &layer.name);
        for (index, id) in layer.params.iter().enumerate() {
            vars.put(&index.to_string(), Data::Tensor(&weights[id.0]));
        }
    }
}

/// Fills a group of the legacy layout.
pub(crate) fn write_legacy<'a>(root: &mut Group<'a>, graph: &Graph, weights: &'a [Tensor]) {
    root.text("backend", "tensorflow");
    root.text("keras_version", write::KERAS_VERSION);
    let order: Vec<LayerId> = write::keras_order(graph)
        .into_iter()
        .filter(|id| {
            !(write::is_chain(graph) && matches!(graph.layers[id.0].kind, spidnn_graph::LayerKind::Input { .. }))
        })
        .collect();
    root.texts("layer_names", order.iter().map(|id| graph.layers[id.0].name.clone()).collect());
    for id in order {
        let layer = &graph.layers[id.0];
        let group = root.at(&layer.name);
        let (mut params, frozen): (Vec<_>, Vec<_>) =
            layer.params.iter().copied().partition(|id| graph.params[id.0].trainable);
        params.extend(frozen);
        let name = |id: &ParamId| format!("{}/{}", layer.name, graph.params[id.0].name);
        group.texts("weight_names", params.iter().map(name).collect());
        for id in &params {
            group.put(&name(id), Data::Tensor(&weights[id.0]));
        }
    }
    root.at("top_level_model_weights").texts("weight_names", Vec::new());
}

/// The variables of an optimizer in the order in which Keras will look for them, with names; missing ones are zero, as
/// those of a new optimizer.
pub(crate) fn ordered_slots(
    graph: &Graph,
    rule: &spidnn_graph::training::Rule,
    state: Option<&OptimizerState>,
) -> Vec<(ParamId, SlotRole, Tensor)> {
    let mut position = vec![0usize; graph.params.len()];
    for (index, id) in write::keras_order(graph).iter().flat_map(|layer| &graph.layers[layer.0].params).enumerate() {
        position[id.0] = index;
    }
    let by_param = matches!(rule, spidnn_graph::training::Rule::Adam { .. });
    let mut wanted = slots(graph, rule);
    // `slots` lists role by role, or (Adam) parameter by parameter; only the order of parameters may change.
    if by_param {
        wanted.sort_by_key(|(param, _)| position[param.0]);
    } else {
        let roles: Vec<SlotRole> = wanted.iter().fold(Vec::new(), |mut roles, (_, role)| {
            if !roles.contains(role) {
                roles.push(*role);
            }
            roles
        });
        wanted.sort_by_key(|(param, role)| (roles.iter().position(|known| known == role), position[param.0]));
    }
    wanted
        .into_iter()
        .map(|(param, role)| {
            let value = state
                .and_then(|state| state.slots.iter().find(|slot| slot.param == param && slot.role == role))
                .map(|slot| slot.value.clone())
                .unwrap_or_else(|| Tensor::zeros(IxDyn(&graph.params[param.0].shape)));
            (param, role, value)
        })
        .collect()
}
