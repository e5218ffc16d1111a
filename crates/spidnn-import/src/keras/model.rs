//! A Keras model configuration -> [`Graph`]: `Sequential`, `Functional`, models inside models (unfolded), in the words of
//! Keras 3.15, 3.0 and 2.

use std::collections::{BTreeSet, HashMap, HashSet};

use serde_json::{Map, Value};
use spidnn_graph::{Graph, GraphBuilder, GraphError, LayerId, LayerKind, NodeId};

use super::args::show;
use super::layers::{self, Dialect};
use super::naming::Counter;
use crate::{ImportError, Problem, limits};

/// Where a layer of the graph comes from in the file.
#[derive(Debug, Clone)]
pub(crate) struct Origin {
    /// Its group in `model.weights.h5`: `layers/conv2d_1`, `layers/functional/layers/dense`.
    pub(crate) group: String,
    /// Position, in the file, of the layer (or model) of the outermost model that it belongs to.
    pub(crate) top: usize,
}

/// A graph, and where its layers come from, by layer number.
pub(crate) struct Imported {
    pub(crate) graph: Graph,
    pub(crate) origins: Vec<Origin>,
}

/// What a reference points to: the `output`-th result of the `call`-th call of a layer.
#[derive(Debug, Clone)]
struct Reference {
    layer: String,
    call: usize,
    output: usize,
}

enum Body {
    /// A layer, or `None` where its problems are already noted.
    Layer(Option<LayerKind>),
    Model(Box<Model>),
}

struct Layer {
    name: String,
    body: Body,
    trainable: bool,
    group: String,
    calls: Vec<Vec<Reference>>,
    last_axis: Option<usize>,
    id: Option<LayerId>,
}

struct Model {
    name: String,
    sequential: bool,
    layers: Vec<Layer>,
    inputs: Vec<Reference>,
    outputs: Vec<Reference>,
}

/// Whether a configuration was written by Keras 2 (or 1), where no version is given.
fn looks_like_keras2(value: &Value, depth: usize) -> bool {
    match value {
        Value::Object(object) => {
            object.contains_key("batch_input_shape")
                || (depth < 64 && object.values().any(|value| looks_like_keras2(value, depth + 1)))
        }
        Value::Array(values) => depth < 64 && values.iter().any(|value| looks_like_keras2(value, depth + 1)),
        _ => false,
    }
}

/// Reads a model configuration (what `model.to_json()` gives). `version` is the Keras version, where the file says it
/// elsewhere.
///
/// # Errors
///
/// [`ImportError::Unsupported`] with all problems at once; [`ImportError::Format`] where it is no model at all.
pub(crate) fn read(
    value: &Value,
    version: Option<&str>,
    weights_follow: bool,
    inference_only: bool,
) -> Result<Imported, ImportError> {
    let version = version.or_else(|| value.get("keras_version").and_then(Value::as_str));
    let keras2 = match version {
        Some(version) => version.starts_with("2.") || version.starts_with("1."),
        None => looks_like_keras2(value, 0),
    };
    let mut reader =
        Reader { dialect: Dialect { keras2, weights_follow, inference_only }, problems: Vec::new(), layers: 0 };
    let object = value.as_object().ok_or_else(|| ImportError::format("the configuration is not a JSON object"))?;
    let class = object.get("class_name").and_then(Value::as_str).ok_or_else(|| {
        ImportError::format("the JSON is not a Keras model: it has no class_name (model.to_json() writes one)")
    })?;
    if !is_model(class) {
        return Err(ImportError::Unsupported(vec![
            Problem::new("", format!("models of class {class} are made by Python code, which is not in the file"))
                .nearest("a Sequential or functional model"),
        ]));
    }
    let config = object.get("config").ok_or_else(|| ImportError::format("the model has no config"))?;
    let model = reader.model(class, config, "", None, 0);
    reader.build(model)
}

fn is_model(class: &str) -> bool {
    matches!(class, "Sequential" | "Functional" | "Model")
}

struct Reader {
    dialect: Dialect,
    problems: Vec<Problem>,
    layers: usize,
}

impl Reader {
    fn problem(&mut self, layer: &str, what: impl Into<String>) {
        self.problems.push(Problem::new(layer, what));
    }

    /// Reads a model. `group` is its own group in the weights file (empty for the outermost).
    fn model(&mut self, class: &str, config: &Value, group: &str, hint: Option<Vec<usize>>, depth: usize) -> Model {
        let empty = Map::new();
        // Before Keras 2.2.3 the configuration of a Sequential was the bare list of its layers.
        let (object, entries) = match config {
            Value::Array(layers) => (&empty, Some(layers)),
            Value::Object(object) => (object, object.get("layers").and_then(Value::as_array)),
            _ => (&empty, None),
        };
        let name = object.get("name").and_then(Value::as_str).unwrap_or("model").to_owned();
        let mut model = Model {
            name: name.clone(),
            sequential: class == "Sequential",
            layers: Vec::new(),
            inputs: Vec::new(),
            outputs: Vec::new(),
        };
        let Some(entries) = entries else {
            self.problem(&name, "has no list of layers");
            return model;
        };
        if depth > limits::NESTING_MAX {
            self.problem(&name, format!("models are nested more than {} deep", limits::NESTING_MAX));
            return model;
        }
        if let Some(dtype) = object.get("dtype") {
            // Layers have their own; this is a model's default.
            let named = dtype.as_str().or_else(|| dtype.pointer("/config/name").and_then(Value::as_str));
            if !dtype.is_null() && named != Some("float32") {
                self.problems.push(Problem::new(&name, format!("dtype={}", show(dtype))).nearest("float32"));
            }
        }
        let prefix = if group.is_empty() { "layers".to_owned() } else { format!("{group}/layers") };
        let mut counter = Counter::default();
        let mut names = HashSet::new();
        for (position, entry) in entries.iter().enumerate() {
            self.layers += 1;
            if self.layers > limits::LAYERS_MAX {
                self.problem(&name, format!("more than {} layers", limits::LAYERS_MAX));
                return model;
            }
            let Some(layer) = self.layer(entry, position, model.sequential, &prefix, &mut counter, depth) else {
                continue;
            };
            if !names.insert(layer.name.clone()) {
                self.problem(&layer.name, "another layer of the model has the same name");
                continue;
            }
            model.layers.push(layer);
        }
        if model.sequential {
            self.chain(&mut model, object, hint);
        } else {
            model.inputs = self.references(object.get("input_layers"), &name, "input_layers");
            model.outputs = self.references(object.get("output_layers"), &name, "output_layers");
            if !self.dialect.keras2 {
                // Keras 3 counts, in this list only, the call that made an inner model.
                for output in &mut model.outputs {
                    let functional = model.layers.iter().any(|layer| {
                        layer.name == output.layer && matches!(&layer.body, Body::Model(inner) if !inner.sequential)
                    });
                    if functional {
                        output.call = output.call.saturating_sub(1);
                    }
                }
            }
        }
        model
    }

    fn layer(
        &mut self,
        entry: &Value,
        position: usize,
        in_sequential: bool,
        prefix: &str,
        counter: &mut Counter,
        depth: usize,
    ) -> Option<Layer> {
        let empty = Map::new();
        let class = entry.get("class_name").and_then(Value::as_str).unwrap_or("");
        let config = entry.get("config").unwrap_or(&Value::Null);
        let config_object = config.as_object().unwrap_or(&empty);
        let name = entry
            .get("name")
            .and_then(Value::as_str)
            .or_else(|| config_object.get("name").and_then(Value::as_str))
            .map_or_else(|| format!("layer_{position}"), str::to_owned);
        if class.is_empty() {
            self.problem(&name, "has no class_name");
            return None;
        }
        // Classes from elsewhere are written `package>Class`; their code is not in the file.
        let registered = entry.get("registered_name").and_then(Value::as_str).unwrap_or("");
        if registered.contains('>') && !registered.starts_with("Custom>Adam") {
            self.problem(&name, format!("{registered} is a class of somebody's Python code, which is not in the file"));
            return None;
        }
        // The input layer of a Sequential has no group of its own in the weights file.
        let group = if in_sequential && class == "InputLayer" {
            String::new()
        } else {
            format!("{prefix}/{}", counter.name(class))
        };
        let calls = self.calls(entry.get("inbound_nodes"), &name, class);
        let trainable = config_object.get("trainable").and_then(Value::as_bool).unwrap_or(true);
        let (body, last_axis) = if is_model(class) {
            let hint = input_shape_hint(entry);
            (Body::Model(Box::new(self.model(class, config, &group, hint, depth + 1))), None)
        } else {
            let parsed = layers::layer(&name, class, config_object, self.dialect, &mut self.problems);
            (Body::Layer(parsed.kind), parsed.last_axis)
        };
        Some(Layer { name, body, trainable, group, calls, last_axis, id: None })
    }

    /// Makes the calls of a Sequential: each layer on the one before. The input layer may be missing; then the shape is
    /// with the first layer, or with the model.
    fn chain(&mut self, model: &mut Model, object: &Map<String, Value>, hint: Option<Vec<usize>>) {
        let is_input =
            |layer: &Layer| matches!(layer.body, Body::Layer(Some(LayerKind::Input { .. }))) || layer.group.is_empty();
        if !model.layers.first().is_some_and(is_input) {
            let first = object.get("layers").or(Some(&Value::Null)).and_then(|layers| layers.get(0));
            let config = first.and_then(|layer| layer.get("config"));
            let shape = [
                config.and_then(|config| config.get("batch_input_shape")),
                config.and_then(|config| config.get("batch_shape")),
                object.get("build_input_shape"),
                first.and_then(|layer| layer.pointer("/build_config/input_shape")),
            ]
            .into_iter()
            .flatten()
            .find(|shape| shape.is_array())
            .map(layers::input_shape);
            let shape = match (shape, hint) {
                (Some(Ok(shape)), _) | (None, Some(shape)) => Some(shape),
                (Some(Err(what)), _) => {
                    self.problem(&model.name, what);
                    None
                }
                (None, None) => {
                    let name = model.name.clone();
                    self.problems.push(
                        Problem::new(name, "the input shape is not in the file: the model was never built")
                            .nearest("a model with an Input layer first"),
                    );
                    None
                }
            };
            let mut name = "input_layer".to_owned();
            while model.layers.iter().any(|layer| layer.name == name) {
                name.push('_');
            }
            model.layers.insert(
                0,
                Layer {
                    name,
                    body: Body::Layer(shape.map(|shape| LayerKind::Input { shape })),
                    trainable: true,
                    group: String::new(),
                    calls: Vec::new(),
                    last_axis: None,
                    id: None,
                },
            );
        }
        let mut previous: Option<String> = None;
        for layer in &mut model.layers {
            layer.calls = match previous {
                None => Vec::new(),
                Some(previous) => vec![vec![Reference { layer: previous, call: 0, output: 0 }]],
            };
            previous = Some(layer.name.clone());
        }
        let reference = |layer: &Layer| Reference { layer: layer.name.clone(), call: 0, output: 0 };
        model.inputs = model.layers.first().map(reference).into_iter().collect();
        model.outputs = model.layers.last().map(reference).into_iter().collect();
    }

    /// `["dense", 0, 0]`, a list of such, or (named inputs and outputs) an object of such.
    fn references(&mut self, value: Option<&Value>, model: &str, key: &str) -> Vec<Reference> {
        fn collect(value: &Value, found: &mut Vec<Reference>, depth: usize) -> bool {
            match value {
                Value::Array(parts) if parts.first().is_some_and(Value::is_string) => match reference(parts) {
                    Some(reference) => {
                        found.push(reference);
                        true
                    }
                    None => false,
                },
                Value::Array(parts) if depth < 8 => parts.iter().all(|part| collect(part, found, depth + 1)),
                Value::Object(parts) if depth < 8 => parts.values().all(|part| collect(part, found, depth + 1)),
                _ => false,
            }
        }
        let mut found = Vec::new();
        let sound = value.is_some_and(|value| collect(value, &mut found, 0));
        if !sound || found.is_empty() {
            let shown = value.map(show).unwrap_or_else(|| "nothing".into());
            self.problem(model, format!("{key} is {shown}, not a list of [layer, call, output]"));
        }
        found
    }

    /// The calls of a layer of a functional model.
    fn calls(&mut self, value: Option<&Value>, name: &str, class: &str) -> Vec<Vec<Reference>> {
        let Some(nodes) = value.and_then(Value::as_array) else { return Vec::new() };
        nodes
            .iter()
            .map(|node| match node {
                Value::Object(node) => self.call_keras3(node, name, class),
                Value::Array(node) => self.call_keras2(node, name, class),
                _ => {
                    self.problem(name, format!("call {}", show(node)));
                    Vec::new()
                }
            })
            .collect()
    }

    fn call_keras3(&mut self, node: &Map<String, Value>, name: &str, class: &str) -> Vec<Reference> {
        /// Tensors in order; false where something else stands among the arguments.
        fn tensors(value: &Value, found: &mut Vec<Reference>, depth: usize) -> bool {
            match value {
                Value::Object(object) => {
                    let history = object
                        .get("class_name")
                        .filter(|class| *class == "__keras_tensor__")
                        .and_then(|_| value.pointer("/config/keras_history"))
                        .and_then(Value::as_array)
                        .and_then(|parts| reference(parts));
                    match history {
                        Some(reference) => {
                            found.push(reference);
                            true
                        }
                        None => false,
                    }
                }
                Value::Array(values) if depth < 4 => values.iter().all(|value| tensors(value, found, depth + 1)),
                _ => false,
            }
        }
        let mut found = Vec::new();
        if let Some(args) = node.get("args")
            && !tensors(args, &mut found, 0)
        {
            self.problems.push(
                Problem::new(name, format!("is called with {}, of which not all are outputs of layers", show(args)))
                    .nearest("calls on outputs of layers alone"),
            );
        }
        if let Some(kwargs) = node.get("kwargs").and_then(Value::as_object) {
            self.call_arguments(kwargs, name, class);
        }
        found
    }

    fn call_keras2(&mut self, node: &[Value], name: &str, class: &str) -> Vec<Reference> {
        // One input may be written without the inner list.
        let parts: Vec<&[Value]> = if node.first().is_some_and(Value::is_string) {
            vec![node]
        } else {
            node.iter().map(|part| part.as_array().map_or(&[][..], Vec::as_slice)).collect()
        };
        let mut found = Vec::new();
        for part in parts {
            match reference(part) {
                Some(reference) => found.push(reference),
                None => self.problem(name, format!("is called with {}", show(&Value::Array(part.to_vec())))),
            }
            if let Some(kwargs) = part.get(3).and_then(Value::as_object) {
                self.call_arguments(kwargs, name, class);
            }
        }
        found
    }

    /// The named arguments of a call: only such as change nothing.
    fn call_arguments(&mut self, kwargs: &Map<String, Value>, name: &str, class: &str) {
        for (key, value) in kwargs {
            if value.is_null() {
                continue;
            }
            // `training` matters where a layer does something else in training.
            let matters = is_model(class) || matches!(class, "BatchNormalization" | "Dropout");
            match (key.as_str(), value) {
                ("training", Value::Bool(false)) if self.dialect.inference_only || !matters => {}
                ("training", Value::Bool(true)) if !matters => {}
                ("training", Value::Bool(_)) => self.problems.push(
                    Problem::new(name, format!("is called with training={value}"))
                        .nearest("a call without it, and trainable=False for layers that shall not change"),
                ),
                _ => self.problem(name, format!("is called with {key}={}", show(value))),
            }
        }
    }

    /// Builds the graph, noting what does not fit; then fails if anything was noted, now or before.
    fn build(mut self, mut model: Model) -> Result<Imported, ImportError> {
        let mut builder = GraphBuilder::new(&model.name).sequential(model.sequential && is_flat(&model));
        let mut origins = HashMap::new();
        let mut axes = Vec::new();
        let mut names = Names::default();
        names.reserve(&model);
        self.add_layers(&mut builder, &mut model, &mut names, &mut origins, &mut axes, None, true);
        let mut calls = 0;
        let outputs = self.call_model(&mut builder, &model, None, &mut calls);
        let inputs: Option<Vec<NodeId>> = outputs.as_ref().map(|called| called.inputs.clone());
        if !self.problems.is_empty() {
            // An inner model's problem is met at each of its calls.
            let mut seen = HashSet::new();
            self.problems.retain(|problem| seen.insert(problem.clone()));
            return Err(ImportError::Unsupported(self.problems));
        }
        let (Some(inputs), Some(called)) = (inputs, outputs) else {
            return Err(ImportError::format("the model has no path from its inputs to its outputs"));
        };
        let graph = builder
            .build(inputs, called.outputs)
            .map_err(|error| ImportError::Unsupported(vec![graph_problem("", error)]))?;
        let elements = graph.params.iter().fold(0u64, |sum, param| {
            sum.saturating_add(param.shape.iter().fold(1u64, |product, &size| product.saturating_mul(size as u64)))
        });
        if elements > limits::ELEMENTS_MAX {
            return Err(ImportError::too_large(
                "the number of parameters of the model",
                elements,
                limits::ELEMENTS_MAX,
            ));
        }
        for (name, axis) in axes {
            for node in graph.nodes.iter().filter(|node| graph.layers[node.layer.0].name == name) {
                if node.shape.len() != axis {
                    self.problems.push(
                        Problem::new(
                            &name,
                            format!("works along axis {axis}, which is not the last of {}", node.shape.len()),
                        )
                        .nearest("axis=-1"),
                    );
                }
            }
        }
        if !self.problems.is_empty() {
            return Err(ImportError::Unsupported(self.problems));
        }
        // The builder leaves out layers that no output depends on, so names, not numbers, connect the two.
        let origins = graph.layers.iter().filter_map(|layer| origins.remove(&layer.name)).collect();
        Ok(Imported { graph, origins })
    }

    /// Adds all layers in Keras' order (that of `get_weights`): inner models where they stand. The input layers of inner
    /// models are no layers of the graph.
    fn add_layers(
        &mut self,
        builder: &mut GraphBuilder,
        model: &mut Model,
        names: &mut Names,
        origins: &mut HashMap<String, Origin>,
        axes: &mut Vec<(String, usize)>,
        top: Option<usize>,
        trainable: bool,
    ) {
        let outermost = top.is_none();
        for (position, layer) in model.layers.iter_mut().enumerate() {
            let top = top.unwrap_or(position);
            match &mut layer.body {
                Body::Layer(None) => {}
                Body::Layer(Some(LayerKind::Input { .. })) if !outermost => {}
                Body::Layer(Some(kind)) => {
                    let name = if outermost { layer.name.clone() } else { names.unique(&model.name, &layer.name) };
                    match builder.add_layer(&name, kind.clone()) {
                        Ok(id) => {
                            builder.set_trainable(id, trainable && layer.trainable);
                            layer.id = Some(id);
                            if let Some(axis) = layer.last_axis {
                                axes.push((name.clone(), axis));
                            }
                            origins.insert(name, Origin { group: layer.group.clone(), top });
                        }
                        Err(error) => self.problems.push(graph_problem(&layer.name, error)),
                    }
                }
                Body::Model(inner) => {
                    self.add_layers(builder, inner, names, origins, axes, Some(top), trainable && layer.trainable);
                }
            }
        }
    }

    /// Makes all calls of a model: the outermost (`given` is `None`), or one call of an inner one on `given`. The result
    /// is `None` where something on the way is missing, which is then noted already.
    fn call_model(
        &mut self,
        builder: &mut GraphBuilder,
        model: &Model,
        given: Option<&[Option<NodeId>]>,
        calls: &mut usize,
    ) -> Option<Called> {
        let positions: HashMap<&str, usize> =
            model.layers.iter().enumerate().map(|(position, layer)| (layer.name.as_str(), position)).collect();
        // Results by layer and call; an inner `None` is a result that is missing because of a problem.
        let mut results: HashMap<Call, Vec<Option<NodeId>>> = HashMap::new();
        let mut waiting: HashMap<Call, Vec<Call>> = HashMap::new();
        let mut missing: HashMap<Call, usize> = HashMap::new();
        let mut ready: BTreeSet<Call> = BTreeSet::new();
        let keras2 = self.dialect.keras2;
        let key = |reference: &Reference| {
            let position = *positions.get(reference.layer.as_str())?;
            let call = match &model.layers[position].body {
                // An input layer is called once, whatever a file says.
                Body::Layer(Some(LayerKind::Input { .. })) => 0,
                // Keras 2 counts the call that made the inner model.
                Body::Model(_) if keras2 => reference.call.saturating_sub(1),
                _ => reference.call,
            };
            Some((position, call))
        };
        let input_keys: Vec<Option<Call>> = model.inputs.iter().map(key).collect();
        let output_keys: Vec<Option<Call>> = model.outputs.iter().map(key).collect();
        let mut plans: HashMap<Call, Vec<(Call, usize)>> = HashMap::new();
        let mut unknown = Vec::new();
        for (position, layer) in model.layers.iter().enumerate() {
            for (call, references) in layer.calls.iter().enumerate() {
                let mut plan = Vec::new();
                for reference in references {
                    match key(reference) {
                        Some(source) => plan.push((source, reference.output)),
                        None => unknown.push((layer.name.clone(), reference.layer.clone())),
                    }
                }
                // Each source is waited for once, however often it is used.
                let sources: HashSet<Call> = plan.iter().map(|(source, _)| *source).collect();
                for source in &sources {
                    waiting.entry(*source).or_default().push((position, call));
                }
                missing.insert((position, call), sources.len());
                if sources.is_empty() && !matches!(layer.body, Body::Layer(Some(LayerKind::Input { .. }))) {
                    ready.insert((position, call));
                }
                plans.insert((position, call), plan);
            }
            if matches!(layer.body, Body::Layer(Some(LayerKind::Input { .. }))) {
                ready.insert((position, 0));
            } else if layer.calls.is_empty() {
                // Nothing calls it. Only an unreadable input layer may be waited for.
                ready.insert((position, 0));
            }
        }
        for (layer, target) in unknown {
            self.problem(&layer, format!("is called on a layer `{target}` that is not in the model"));
        }
        while let Some((position, call)) = ready.pop_first() {
            *calls += 1;
            if *calls > limits::NODES_MAX {
                self.problem(&model.name, format!("layers are called more than {} times", limits::NODES_MAX));
                return None;
            }
            let layer = &model.layers[position];
            let arguments: Vec<Option<NodeId>> = plans
                .get(&(position, call))
                .into_iter()
                .flatten()
                .map(|(source, output)| results.get(source).and_then(|nodes| nodes.get(*output)).copied().flatten())
                .collect();
            let nodes = match &layer.body {
                Body::Layer(Some(LayerKind::Input { .. })) => match given {
                    Some(given) => {
                        let index = input_keys.iter().position(|key| *key == Some((position, 0)));
                        vec![index.and_then(|index| given.get(index).copied()).flatten()]
                    }
                    None => vec![self.call_layer(builder, layer, &[])],
                },
                Body::Layer(_) if layer.calls.is_empty() => vec![None],
                Body::Layer(_) => vec![self.call_layer(builder, layer, &arguments)],
                Body::Model(inner) => {
                    if arguments.len() != inner.inputs.len() {
                        self.problem(
                            &layer.name,
                            format!("has {} inputs and is called with {}", inner.inputs.len(), arguments.len()),
                        );
                    }
                    match self.call_model(builder, inner, Some(&arguments), calls) {
                        Some(called) => called.outputs.into_iter().map(Some).collect(),
                        None => Vec::new(),
                    }
                }
            };
            results.insert((position, call), nodes);
            for next in waiting.remove(&(position, call)).unwrap_or_default() {
                if let Some(count) = missing.get_mut(&next) {
                    *count -= 1;
                    if *count == 0 {
                        ready.insert(next);
                    }
                }
            }
        }
        let mut stuck: Vec<Call> = missing.keys().filter(|key| !results.contains_key(key)).copied().collect();
        stuck.sort_unstable();
        for (position, _) in stuck {
            self.problem(
                &model.layers[position].name,
                "is called on something that is never computed (a loop, or a call that does not exist)",
            );
        }
        let mut find = |keys: &[Option<Call>], references: &[Reference], what: &str| {
            let mut nodes = Some(Vec::new());
            for (key, reference) in keys.iter().zip(references) {
                let found = key.and_then(|key| results.get(&key));
                if found.is_none() {
                    self.problem(
                        &model.name,
                        format!("its {what} `{}` is not a layer that is called", reference.layer),
                    );
                }
                let node = found.and_then(|found| found.get(reference.output)).copied().flatten();
                match (&mut nodes, node) {
                    (Some(nodes), Some(node)) => nodes.push(node),
                    _ => nodes = None,
                }
            }
            nodes
        };
        let inputs = find(&input_keys, &model.inputs, "input");
        let outputs = find(&output_keys, &model.outputs, "output");
        let called = Called { inputs: inputs?, outputs: outputs? };
        (!called.outputs.is_empty()).then_some(called)
    }

    fn call_layer(
        &mut self,
        builder: &mut GraphBuilder,
        layer: &Layer,
        arguments: &[Option<NodeId>],
    ) -> Option<NodeId> {
        let id = layer.id?;
        let arguments: Vec<NodeId> = arguments.iter().copied().collect::<Option<_>>()?;
        match builder.call(id, &arguments) {
            Ok(node) => Some(node),
            Err(error) => {
                self.problems.push(graph_problem(&layer.name, error));
                None
            }
        }
    }
}

/// A call in a model: position of the layer, number of the call.
type Call = (usize, usize);

struct Called {
    inputs: Vec<NodeId>,
    outputs: Vec<NodeId>,
}

fn is_flat(model: &Model) -> bool {
    model.layers.iter().all(|layer| matches!(layer.body, Body::Layer(_)))
}

/// Names of the graph's layers: those of the outermost model stay; inner ones get their model's name in front where needed.
#[derive(Default)]
struct Names(HashSet<String>);

impl Names {
    fn reserve(&mut self, model: &Model) {
        self.0.extend(model.layers.iter().map(|layer| layer.name.clone()));
    }

    fn unique(&mut self, model: &str, layer: &str) -> String {
        let mut name = layer.to_owned();
        if self.0.contains(&name) {
            name = format!("{model}_{layer}");
        }
        let mut number = 1;
        let stem = name.clone();
        while !self.0.insert(name.clone()) {
            name = format!("{stem}_{number}");
            number += 1;
        }
        name
    }
}

/// A problem from what the graph builder says.
fn graph_problem(layer: &str, error: GraphError) -> Problem {
    match error {
        GraphError::Layer { found, expected, remedy, .. } => {
            Problem::new(layer, format!("found {found}, expected {expected}")).nearest(remedy)
        }
        GraphError::Model { found, expected, remedy, .. } => {
            Problem::new("", format!("found {found}, expected {expected}")).nearest(remedy)
        }
        other => Problem::new(layer, other.to_string()),
    }
}

fn reference(parts: &[Value]) -> Option<Reference> {
    let [layer, call, output, ..] = parts else { return None };
    Some(Reference {
        layer: layer.as_str()?.to_owned(),
        call: usize::try_from(call.as_u64()?).ok()?,
        output: usize::try_from(output.as_u64()?).ok()?,
    })
}

/// The shape of an inner model's input without the batch dimension, where the file has it: from its build, or from its call.
fn input_shape_hint(entry: &Value) -> Option<Vec<usize>> {
    let shape = entry
        .pointer("/build_config/input_shape")
        .filter(|shape| shape.is_array())
        .or_else(|| entry.pointer("/inbound_nodes/0/args/0/config/shape"))
        .or_else(|| entry.pointer("/config/batch_input_shape"))
        .or_else(|| entry.pointer("/config/batch_shape"))?;
    layers::input_shape(shape).ok()
}
