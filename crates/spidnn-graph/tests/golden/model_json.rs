//! The part of `model.to_json()` that the golden cases need. (The real importer is another crate, above this one; tests of the
//! oracle should not depend on it.)

use std::collections::HashMap;

use serde_json::Value;
use spidnn_graph::layer::{self, PoolMode};
use spidnn_graph::training::{Clip, LearningRate, Loss, Optimizer, Rule};
use spidnn_graph::{Activation, Graph, GraphBuilder, Initializer, LayerKind, NodeId, Padding};

pub fn graph(model: &Value) -> Graph {
    let config = &model["config"];
    let mut builder = GraphBuilder::new(text(&config["name"])).sequential(model["class_name"] == "Sequential");
    let mut nodes: HashMap<String, NodeId> = HashMap::new();
    let layers = config["layers"].as_array().unwrap();
    let mut pending = Vec::new();
    for layer in layers {
        let id = builder.add_layer(text(&layer["config"]["name"]), kind(layer)).unwrap();
        pending.push((id, layer));
    }
    if model["class_name"] == "Sequential" {
        let mut last = Vec::new();
        let mut first = None;
        for (id, _) in pending {
            let node = builder.call(id, &last).unwrap();
            first.get_or_insert(node);
            last = vec![node];
        }
        return builder.build(vec![first.unwrap()], last).unwrap();
    }
    // A call can be made when all it takes has been made.
    let mut calls: Vec<(spidnn_graph::LayerId, String, Vec<String>)> = Vec::new();
    for (id, layer) in pending {
        let name = text(&layer["config"]["name"]);
        let inbound = layer["inbound_nodes"].as_array().unwrap();
        if inbound.is_empty() {
            calls.push((id, format!("{name}/0"), vec![]));
        }
        for (index, call) in inbound.iter().enumerate() {
            let mut histories = Vec::new();
            collect(&call["args"], &mut histories);
            calls.push((id, format!("{name}/{index}"), histories));
        }
    }
    while !calls.is_empty() {
        let before = calls.len();
        calls.retain(|(id, key, inputs)| {
            let Some(inputs) = inputs.iter().map(|input| nodes.get(input).copied()).collect::<Option<Vec<_>>>() else {
                return true;
            };
            nodes.insert(key.clone(), builder.call(*id, &inputs).unwrap());
            false
        });
        assert!(calls.len() < before, "calls that can never be made");
    }
    let ends = |list: &Value| -> Vec<NodeId> {
        let list = list.as_array().unwrap();
        let one = |end: &Value| nodes[&format!("{}/{}", text(&end[0]), end[1])];
        if list[0].is_string() { vec![one(&Value::from(list.clone()))] } else { list.iter().map(one).collect() }
    };
    builder.build(ends(&config["input_layers"]), ends(&config["output_layers"])).unwrap()
}

fn collect(value: &Value, histories: &mut Vec<String>) {
    match value {
        Value::Array(values) => values.iter().for_each(|value| collect(value, histories)),
        Value::Object(_) if value["class_name"] == "__keras_tensor__" => {
            let history = &value["config"]["keras_history"];
            histories.push(format!("{}/{}", text(&history[0]), history[1]));
        }
        _ => {}
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value} is no string"))
}

fn number(value: &Value) -> f32 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number")) as f32
}

fn sizes(value: &Value) -> Vec<usize> {
    value.as_array().unwrap().iter().map(|size| size.as_u64().unwrap() as usize).collect()
}

/// One or two sizes as a pair, the missing first one filled up.
fn pair(value: &Value, fill: usize) -> [usize; 2] {
    match sizes(value)[..] {
        [one] => [fill, one],
        [a, b] => [a, b],
        _ => panic!("{value} is no size"),
    }
}

fn padding(value: &Value) -> Padding {
    match text(value) {
        "valid" => Padding::Valid,
        "same" => Padding::Same,
        "causal" => Padding::Causal,
        other => panic!("padding {other}"),
    }
}

fn kind(layer: &Value) -> LayerKind {
    let class = text(&layer["class_name"]);
    let config = &layer["config"];
    let activation = || text(&config["activation"]).parse::<Activation>().unwrap();
    let rank = if class.contains("1D") { 1 } else { 2 };
    let mode = if class.contains("Max") { PoolMode::Max } else { PoolMode::Average };
    let kernel_initializer = Initializer::GlorotUniform { seed: None };
    match class {
        "InputLayer" => {
            let shape = config["batch_shape"].as_array().unwrap()[1..].to_vec();
            LayerKind::Input { shape: sizes(&Value::Array(shape)) }
        }
        "Dense" => LayerKind::Dense(layer::Dense {
            units: config["units"].as_u64().unwrap() as usize,
            activation: activation(),
            use_bias: config["use_bias"] == true,
            kernel_initializer,
            bias_initializer: Initializer::Zeros,
        }),
        "Conv1D" | "Conv2D" | "DepthwiseConv2D" => {
            let depthwise = class == "DepthwiseConv2D";
            let count = |name: &str| config[name].as_u64().unwrap() as usize;
            LayerKind::Conv(layer::Conv {
                rank,
                filters: count(if depthwise { "depth_multiplier" } else { "filters" }),
                kernel_size: pair(&config["kernel_size"], 1),
                strides: pair(&config["strides"], 1),
                dilation_rate: pair(&config["dilation_rate"], 1),
                padding: padding(&config["padding"]),
                groups: if depthwise { 0 } else { count("groups") },
                depthwise,
                activation: activation(),
                use_bias: config["use_bias"] == true,
                kernel_initializer,
                bias_initializer: Initializer::Zeros,
            })
        }
        "MaxPooling1D" | "MaxPooling2D" | "AveragePooling1D" | "AveragePooling2D" => LayerKind::Pool(layer::Pool {
            rank,
            mode,
            pool_size: pair(&config["pool_size"], 1),
            strides: pair(&config["strides"], 1),
            padding: padding(&config["padding"]),
        }),
        "GlobalAveragePooling1D" | "GlobalAveragePooling2D" | "GlobalMaxPooling1D" | "GlobalMaxPooling2D" => {
            LayerKind::GlobalPool { rank, mode, keepdims: config["keepdims"] == true }
        }
        "Flatten" => LayerKind::Flatten,
        "ZeroPadding2D" => {
            LayerKind::ZeroPadding { rank, padding: [pair(&config["padding"][0], 0), pair(&config["padding"][1], 0)] }
        }
        "Activation" => LayerKind::Activation(activation()),
        "ReLU" => LayerKind::Activation(match config["max_value"].as_f64() {
            Some(max_value) => Activation::ClippedRelu { max_value: max_value as f32 },
            None => Activation::Relu,
        }),
        "Dropout" => LayerKind::Dropout { rate: number(&config["rate"]), seed: None },
        "Add" => LayerKind::Add,
        "Multiply" => LayerKind::Multiply,
        "Concatenate" => LayerKind::Concatenate { axis: config["axis"].as_i64().unwrap() as isize },
        "BatchNormalization" => LayerKind::BatchNormalization(layer::BatchNormalization {
            momentum: number(&config["momentum"]),
            epsilon: number(&config["epsilon"]),
            center: config["center"] == true,
            scale: config["scale"] == true,
        }),
        other => panic!("layer {other}"),
    }
}

/// A loss by name or as class with configuration; `None` where there is none such yet.
pub fn loss(value: &Value) -> Option<Loss> {
    let (name, config) = match value.as_str() {
        Some(name) => (name, &Value::Null),
        None => (text(&value["class"]), &value["config"]),
    };
    let from_logits = config["from_logits"] == true;
    let label_smoothing = config["label_smoothing"].as_f64().unwrap_or(0.0) as f32;
    Some(match name {
        "mse" | "mean_squared_error" | "MeanSquaredError" => Loss::MeanSquaredError,
        "mean_absolute_error" | "MeanAbsoluteError" => Loss::MeanAbsoluteError,
        "binary_crossentropy" | "BinaryCrossentropy" => Loss::BinaryCrossentropy { from_logits, label_smoothing },
        "categorical_crossentropy" | "CategoricalCrossentropy" => {
            Loss::CategoricalCrossentropy { from_logits, label_smoothing }
        }
        "sparse_categorical_crossentropy" | "SparseCategoricalCrossentropy" => {
            Loss::SparseCategoricalCrossentropy { from_logits }
        }
        _ => return None,
    })
}

pub fn schedule(value: &Value) -> Option<LearningRate> {
    if let Some(rate) = value.as_f64() {
        return Some(LearningRate::Constant(rate as f32));
    }
    let class = value.get("class_name").or(value.get("class")).map(text)?;
    let config = &value["config"];
    let get = |name: &str| number(&config[name]);
    let list = |name: &str| config[name].as_array().unwrap().iter().map(number).collect();
    Some(match class {
        "ExponentialDecay" => LearningRate::ExponentialDecay {
            initial: get("initial_learning_rate"),
            decay_steps: get("decay_steps"),
            decay_rate: get("decay_rate"),
            staircase: config["staircase"] == true,
        },
        "InverseTimeDecay" => LearningRate::InverseTimeDecay {
            initial: get("initial_learning_rate"),
            decay_steps: get("decay_steps"),
            decay_rate: get("decay_rate"),
            staircase: config["staircase"] == true,
        },
        "PiecewiseConstantDecay" => {
            LearningRate::PiecewiseConstant { boundaries: list("boundaries"), values: list("values") }
        }
        "PolynomialDecay" => LearningRate::PolynomialDecay {
            initial: get("initial_learning_rate"),
            decay_steps: get("decay_steps"),
            end: get("end_learning_rate"),
            power: get("power"),
            cycle: config["cycle"] == true,
        },
        "CosineDecay" => LearningRate::CosineDecay {
            initial: get("initial_learning_rate"),
            decay_steps: get("decay_steps"),
            alpha: get("alpha"),
            warmup_target: config["warmup_target"].as_f64().map(|target| target as f32),
            warmup_steps: get("warmup_steps"),
        },
        _ => return None,
    })
}

/// An optimizer; `None` where there is none such yet.
pub fn optimizer(value: &Value) -> Option<Optimizer> {
    let config = &value["config"];
    let get = |name: &str| number(&config[name]);
    if config["amsgrad"] == true || config["use_ema"] == true {
        return None;
    }
    let rule = match text(&value["class"]) {
        "SGD" => Rule::Sgd { momentum: get("momentum"), nesterov: config["nesterov"] == true },
        "RMSprop" => Rule::RmsProp {
            rho: get("rho"),
            momentum: get("momentum"),
            epsilon: get("epsilon"),
            centered: config["centered"] == true,
        },
        "Adam" | "AdamW" => Rule::Adam { beta_1: get("beta_1"), beta_2: get("beta_2"), epsilon: get("epsilon") },
        _ => return None,
    };
    let clips = [
        config["clipnorm"].as_f64().map(|norm| Clip::Norm(norm as f32)),
        config["clipvalue"].as_f64().map(|value| Clip::Value(value as f32)),
        config["global_clipnorm"].as_f64().map(|norm| Clip::GlobalNorm(norm as f32)),
    ];
    Some(Optimizer {
        rule,
        learning_rate: schedule(&config["learning_rate"])?,
        clip: clips.into_iter().flatten().next().unwrap_or(Clip::None),
        weight_decay: config["weight_decay"].as_f64().map(|decay| decay as f32),
    })
}
