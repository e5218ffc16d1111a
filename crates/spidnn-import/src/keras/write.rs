//! [`Graph`] -> Keras 3 model configuration, and the order in which Keras will hold its layers after loading.

use serde_json::{Map, Value, json};
use spidnn_graph::layer::{Conv, PoolMode};
use spidnn_graph::{Activation, Graph, Initializer, LayerId, LayerKind, NodeId, Padding};

use super::naming::Counter;
use super::training::float;
use crate::{ImportError, Problem};

/// The version of Keras whose words are written.
pub(crate) const KERAS_VERSION: &str = "3.15.1";

/// The configuration that Keras loads, or all that cannot be said in its words.
pub(crate) fn to_json(graph: &Graph) -> Result<Value, ImportError> {
    let mut problems = Vec::new();
    let sequential = is_chain(graph);
    let layers: Vec<Value> =
        keras_order(graph).into_iter().map(|id| layer_entry(graph, id, sequential, &mut problems)).collect();
    if !problems.is_empty() {
        return Err(ImportError::Unsupported(problems));
    }
    if sequential {
        let shape = graph.inputs.first().map(|node| batch_shape(&graph.nodes[node.0].shape)).unwrap_or_default();
        return Ok(json!({
            "module": "keras",
            "class_name": "Sequential",
            "config": {
                "name": graph.name,
                "trainable": true,
                "dtype": dtype(),
                "layers": layers,
                "build_input_shape": shape,
            },
            "registered_name": null,
            "build_config": {"input_shape": shape},
        }));
    }
    let references = |nodes: &[NodeId]| {
        let all: Vec<Value> = nodes.iter().map(|node| history(graph, *node)).collect();
        if all.len() == 1 { all.into_iter().next().unwrap_or_default() } else { Value::Array(all) }
    };
    Ok(json!({
        "module": "keras.src.models.functional",
        "class_name": "Functional",
        "config": {
            "name": graph.name,
            "trainable": true,
            "layers": layers,
            "input_layers": references(&graph.inputs),
            "output_layers": references(&graph.outputs),
        },
        "registered_name": "Functional",
        "build_config": {"input_shape": null},
    }))
}

/// Whether the graph can be written as `Sequential`: it says so, and is one chain from one input to one output.
pub(crate) fn is_chain(graph: &Graph) -> bool {
    graph.sequential
        && graph.inputs.len() == 1
        && graph.outputs.len() == 1
        && graph.nodes.len() == graph.layers.len()
        && graph.nodes.iter().enumerate().all(|(index, node)| {
            node.layer.0 == index
                && match index {
                    0 => node.inputs.is_empty(),
                    _ => node.inputs == [NodeId(index - 1)],
                }
        })
        && graph.outputs[0].0 + 1 == graph.nodes.len()
}

/// The layers in the order in which Keras holds them after loading, and so numbers them in its weights files.
pub(crate) fn keras_order(graph: &Graph) -> Vec<LayerId> {
    if is_chain(graph) {
        return (0..graph.layers.len()).map(LayerId).collect();
    }
    graph.keras_layer_order()
}

/// The group of each layer in a Keras 3 weights file, by layer number; `None` for the input of a `Sequential`.
pub(crate) fn groups(graph: &Graph) -> Vec<Option<String>> {
    let sequential = is_chain(graph);
    let mut counter = Counter::default();
    let mut groups = vec![None; graph.layers.len()];
    for id in keras_order(graph) {
        let kind = &graph.layers[id.0].kind;
        if !(sequential && matches!(kind, LayerKind::Input { .. })) {
            groups[id.0] = Some(format!("layers/{}", counter.name(class(kind))));
        }
    }
    groups
}

/// Keras' class for a kind.
pub(crate) fn class(kind: &LayerKind) -> &'static str {
    match kind {
        LayerKind::Input { .. } => "InputLayer",
        LayerKind::Dense(_) => "Dense",
        LayerKind::Conv(Conv { rank: 1, depthwise: false, .. }) => "Conv1D",
        LayerKind::Conv(Conv { depthwise: false, .. }) => "Conv2D",
        LayerKind::Conv(Conv { rank: 1, .. }) => "DepthwiseConv1D",
        LayerKind::Conv(_) => "DepthwiseConv2D",
        LayerKind::Pool(pool) => match (pool.mode, pool.rank) {
            (PoolMode::Max, 1) => "MaxPooling1D",
            (PoolMode::Max, _) => "MaxPooling2D",
            (PoolMode::Average, 1) => "AveragePooling1D",
            (PoolMode::Average, _) => "AveragePooling2D",
        },
        LayerKind::GlobalPool { rank, mode, .. } => match (mode, rank) {
            (PoolMode::Max, 1) => "GlobalMaxPooling1D",
            (PoolMode::Max, _) => "GlobalMaxPooling2D",
            (PoolMode::Average, 1) => "GlobalAveragePooling1D",
            (PoolMode::Average, _) => "GlobalAveragePooling2D",
        },
        LayerKind::Flatten => "Flatten",
        LayerKind::Reshape { .. } => "Reshape",
        LayerKind::ZeroPadding { rank: 1, .. } => "ZeroPadding1D",
        LayerKind::ZeroPadding { .. } => "ZeroPadding2D",
        LayerKind::Activation(activation) => match activation_name(activation) {
            Some(_) => "Activation",
            None => activation_class(activation),
        },
        LayerKind::Dropout { .. } => "Dropout",
        LayerKind::Add => "Add",
        LayerKind::Multiply => "Multiply",
        LayerKind::Concatenate { .. } => "Concatenate",
        LayerKind::BatchNormalization(_) => "BatchNormalization",
    }
}

fn dtype() -> Value {
    json!({"module": "keras", "class_name": "DTypePolicy", "config": {"name": "float32"}, "registered_name": null})
}

fn batch_shape(shape: &[usize]) -> Value {
    std::iter::once(Value::Null).chain(shape.iter().map(|size| json!(size))).collect()
}

/// `[layer, call, output]` of a node.
fn history(graph: &Graph, node: NodeId) -> Value {
    let layer = graph.nodes[node.0].layer;
    let call = graph.nodes[..node.0].iter().filter(|earlier| earlier.layer == layer).count();
    json!([graph.layers[layer.0].name, call, 0])
}

/// Keras' name of an activation, where a name says it all.
fn activation_name(activation: &Activation) -> Option<&'static str> {
    Some(match *activation {
        Activation::Linear => "linear",
        Activation::Relu => "relu",
        Activation::ClippedRelu { max_value: 6.0 } => "relu6",
        Activation::LeakyRelu { negative_slope: 0.2 } => "leaky_relu",
        Activation::Elu { alpha: 1.0 } => "elu",
        Activation::Selu => "selu",
        Activation::Sigmoid => "sigmoid",
        Activation::HardSigmoid => "hard_sigmoid",
        Activation::Tanh => "tanh",
        Activation::Softplus => "softplus",
        Activation::Softsign => "softsign",
        Activation::Silu => "silu",
        Activation::Gelu { approximate: false } => "gelu",
        Activation::Exponential => "exponential",
        Activation::Softmax => "softmax",
        Activation::ClippedRelu { .. }
        | Activation::LeakyRelu { .. }
        | Activation::Elu { .. }
        | Activation::Gelu { approximate: true } => return None,
    })
}

/// Keras' layer class for an activation whose name alone does not say it.
fn activation_class(activation: &Activation) -> &'static str {
    match activation {
        Activation::ClippedRelu { .. } => "ReLU",
        Activation::LeakyRelu { .. } => "LeakyReLU",
        Activation::Elu { .. } => "ELU",
        _ => "Activation",
    }
}

/// The arguments of such a layer; `None` for what Keras has no words for.
fn activation_arguments(activation: &Activation) -> Option<Map<String, Value>> {
    let arguments = match *activation {
        ref named if activation_name(named).is_some() => json!({"activation": activation_name(named)}),
        Activation::ClippedRelu { max_value } => {
            json!({"max_value": float(max_value), "negative_slope": 0.0, "threshold": 0.0})
        }
        Activation::LeakyRelu { negative_slope } => json!({"negative_slope": float(negative_slope)}),
        Activation::Elu { alpha } => json!({"alpha": float(alpha)}),
        _ => return None,
    };
    match arguments {
        Value::Object(arguments) => Some(arguments),
        _ => None,
    }
}

/// An activation as the argument of a layer: a name, or a layer in its place.
fn activation(activation: &Activation, layer: &str, problems: &mut Vec<Problem>) -> Value {
    if let Some(name) = activation_name(activation) {
        return json!(name);
    }
    match activation_arguments(activation) {
        Some(arguments) => {
            let class = activation_class(activation);
            let mut config = json!({"name": super::naming::snake_case(class), "trainable": true, "dtype": dtype()});
            if let Value::Object(config) = &mut config {
                config.extend(arguments);
            }
            json!({"module": "keras.layers", "class_name": class, "config": config, "registered_name": null})
        }
        None => {
            problems.push(unsayable(layer));
            Value::Null
        }
    }
}

fn unsayable(layer: &str) -> Problem {
    Problem::new(layer, "Keras has no name for gelu by its approximation").nearest("gelu with approximate=false")
}

fn initializer(initializer: &Initializer) -> Value {
    let variance = |class: &str, seed: Option<u64>| {
        (class.to_owned(), json!({"seed": seed, "input_axes": null, "output_axes": null}))
    };
    let (class, config) = match *initializer {
        Initializer::Zeros => ("Zeros".to_owned(), json!({})),
        Initializer::Ones => ("Ones".to_owned(), json!({})),
        Initializer::Constant(value) => ("Constant".to_owned(), json!({"value": float(value)})),
        Initializer::GlorotUniform { seed } => variance("GlorotUniform", seed),
        Initializer::GlorotNormal { seed } => variance("GlorotNormal", seed),
        Initializer::HeUniform { seed } => variance("HeUniform", seed),
        Initializer::HeNormal { seed } => variance("HeNormal", seed),
        Initializer::LecunUniform { seed } => variance("LecunUniform", seed),
        Initializer::LecunNormal { seed } => variance("LecunNormal", seed),
        Initializer::RandomUniform { min, max, seed } => {
            ("RandomUniform".to_owned(), json!({"minval": float(min), "maxval": float(max), "seed": seed}))
        }
        Initializer::RandomNormal { mean, stddev, seed } => {
            ("RandomNormal".to_owned(), json!({"mean": float(mean), "stddev": float(stddev), "seed": seed}))
        }
        Initializer::TruncatedNormal { mean, stddev, seed } => {
            ("TruncatedNormal".to_owned(), json!({"mean": float(mean), "stddev": float(stddev), "seed": seed}))
        }
    };
    json!({"module": "keras.initializers", "class_name": class, "config": config, "registered_name": null})
}

fn padding(padding: Padding) -> &'static str {
    match padding {
        Padding::Valid => "valid",
        Padding::Same => "same",
        Padding::Causal => "causal",
    }
}

/// The last `rank` of a pair: `[5]` or `[5, 3]`.
fn sizes(rank: usize, pair: [usize; 2]) -> Value {
    json!(pair[2 - rank.clamp(1, 2)..])
}

/// One layer of the list, with its calls for a functional model.
fn layer_entry(graph: &Graph, id: LayerId, sequential: bool, problems: &mut Vec<Problem>) -> Value {
    let layer = &graph.layers[id.0];
    let class = class(&layer.kind);
    if layer.name.contains('/') {
        problems.push(Problem::new(&layer.name, "Keras allows no `/` in the name of a layer").nearest("another name"));
    }
    let own = arguments(&layer.name, &layer.kind, problems);
    let config = if let LayerKind::Input { shape } = &layer.kind {
        json!({"batch_shape": batch_shape(shape), "dtype": "float32", "sparse": false, "ragged": false,
               "name": layer.name, "optional": false})
    } else {
        let mut config = json!({"name": layer.name, "trainable": layer.trainable, "dtype": dtype()});
        if let (Value::Object(config), Value::Object(own)) = (&mut config, own) {
            config.extend(own);
        }
        config
    };
    let mut entry = json!({"module": "keras.layers", "class_name": class, "config": config, "registered_name": null});
    if !layer.params.is_empty()
        && let Some(input) = graph.nodes.iter().find(|node| node.layer == id).and_then(|node| node.inputs.first())
    {
        entry["build_config"] = json!({"input_shape": batch_shape(&graph.nodes[input.0].shape)});
    }
    if !sequential {
        let calls: Vec<Value> = graph
            .nodes
            .iter()
            .filter(|node| node.layer == id && !node.inputs.is_empty())
            .map(|node| {
                let tensors: Vec<Value> = node
                    .inputs
                    .iter()
                    .map(|input| {
                        json!({"class_name": "__keras_tensor__", "config": {
                            "shape": batch_shape(&graph.nodes[input.0].shape),
                            "dtype": "float32",
                            "keras_history": history(graph, *input),
                        }})
                    })
                    .collect();
                let merges = matches!(layer.kind, LayerKind::Add | LayerKind::Multiply | LayerKind::Concatenate { .. });
                json!({"args": if merges { json!([tensors]) } else { json!(tensors) }, "kwargs": {}})
            })
            .collect();
        entry["name"] = json!(layer.name);
        entry["inbound_nodes"] = json!(calls);
    }
    entry
}

/// The arguments that a class adds to the common ones.
fn arguments(name: &str, kind: &LayerKind, problems: &mut Vec<Problem>) -> Value {
    match kind {
        LayerKind::Input { .. } | LayerKind::Add | LayerKind::Multiply => json!({}),
        LayerKind::Dense(dense) => json!({
            "units": dense.units,
            "activation": activation(&dense.activation, name, problems),
            "use_bias": dense.use_bias,
            "kernel_initializer": initializer(&dense.kernel_initializer),
            "bias_initializer": initializer(&dense.bias_initializer),
            "kernel_regularizer": null,
            "bias_regularizer": null,
            "kernel_constraint": null,
            "bias_constraint": null,
        }),
        LayerKind::Conv(conv) => {
            let mut config = json!({
                "kernel_size": sizes(conv.rank, conv.kernel_size),
                "strides": sizes(conv.rank, conv.strides),
                "padding": padding(conv.padding),
                "data_format": "channels_last",
                "dilation_rate": sizes(conv.rank, conv.dilation_rate),
                "activation": activation(&conv.activation, name, problems),
                "use_bias": conv.use_bias,
                "bias_initializer": initializer(&conv.bias_initializer),
                "bias_regularizer": null,
                "activity_regularizer": null,
                "bias_constraint": null,
            });
            if conv.depthwise {
                config["depth_multiplier"] = json!(conv.depth_multiplier());
                config["depthwise_initializer"] = initializer(&conv.kernel_initializer);
                config["depthwise_regularizer"] = Value::Null;
                config["depthwise_constraint"] = Value::Null;
            } else {
                config["filters"] = json!(conv.filters);
                config["groups"] = json!(conv.groups);
                config["kernel_initializer"] = initializer(&conv.kernel_initializer);
                config["kernel_regularizer"] = Value::Null;
                config["kernel_constraint"] = Value::Null;
            }
            config
        }
        LayerKind::Pool(pool) => json!({
            "pool_size": sizes(pool.rank, pool.pool_size),
            "padding": padding(pool.padding),
            "strides": sizes(pool.rank, pool.strides),
            "data_format": "channels_last",
        }),
        LayerKind::GlobalPool { keepdims, .. } => json!({"data_format": "channels_last", "keepdims": keepdims}),
        LayerKind::Flatten => json!({"data_format": "channels_last"}),
        LayerKind::Reshape { target_shape } => json!({"target_shape": target_shape}),
        LayerKind::ZeroPadding { rank, padding } => json!({
            "padding": if *rank == 1 { json!(padding[1]) } else { json!(padding) },
            "data_format": "channels_last",
        }),
        LayerKind::Activation(activation) => match activation_arguments(activation) {
            Some(arguments) => Value::Object(arguments),
            None => {
                problems.push(unsayable(name));
                Value::Null
            }
        },
        LayerKind::Dropout { rate, seed } => json!({"rate": float(*rate), "seed": seed, "noise_shape": null}),
        LayerKind::Concatenate { axis } => json!({"axis": axis}),
        LayerKind::BatchNormalization(norm) => json!({
            "axis": -1,
            "momentum": float(norm.momentum),
            "epsilon": float(norm.epsilon),
            "center": norm.center,
            "scale": norm.scale,
            "beta_initializer": initializer(&Initializer::Zeros),
            "gamma_initializer": initializer(&Initializer::Ones),
            "moving_mean_initializer": initializer(&Initializer::Zeros),
            "moving_variance_initializer": initializer(&Initializer::Ones),
            "beta_regularizer": null,
            "gamma_regularizer": null,
            "beta_constraint": null,
            "gamma_constraint": null,
            "synchronized": false,
        }),
    }
}
