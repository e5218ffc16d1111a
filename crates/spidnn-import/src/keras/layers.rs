//! One layer of a Keras configuration -> [`LayerKind`].

use serde_json::{Map, Value, json};
use spidnn_graph::layer::{BatchNormalization, Conv, Dense, Pool, PoolMode};
use spidnn_graph::{Activation, Initializer, LayerKind, Padding};

use super::args::{Args, number, show};
use crate::limits;

/// How to read a configuration.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Dialect {
    /// Written by Keras 2 (or 1).
    pub(crate) keras2: bool,
    /// Weights will be put in: how parameters would start does not matter.
    pub(crate) weights_follow: bool,
    /// What only training would use does not matter.
    pub(crate) inference_only: bool,
}

/// What a class and its configuration come to.
pub(crate) struct Parsed {
    /// The kind; `None` where problems were noted.
    pub(crate) kind: Option<LayerKind>,
    /// An axis that must be the last one, counted from the front with the batch dimension; checked once shapes are known.
    pub(crate) last_axis: Option<usize>,
}

const LAYERS: &str = "Input, Dense, Conv1D, Conv2D, DepthwiseConv1D, DepthwiseConv2D, MaxPooling, AveragePooling, \
                      GlobalMaxPooling, GlobalAveragePooling, Flatten, Reshape, ZeroPadding, Activation, ReLU, LeakyReLU, \
                      ELU, Softmax, Dropout, Add, Multiply, Concatenate, BatchNormalization";

/// What to use in place of a class that SpiDNN does not have.
fn nearest_layer(class: &str) -> Option<&'static str> {
    Some(match class {
        "Lambda" | "TFOpLambda" | "SlicingOpLambda" => {
            "the same function built from layers, for instance Activation, Multiply, Add, Reshape"
        }
        "SeparableConv1D" => "DepthwiseConv1D followed by Conv1D with kernel size 1",
        "SeparableConv2D" => "DepthwiseConv2D followed by Conv2D with kernel size 1",
        "Conv1DTranspose" => "ZeroPadding1D and Conv1D",
        "Conv2DTranspose" => "ZeroPadding2D and Conv2D",
        "Conv3D" | "Conv3DTranspose" => "Conv2D",
        "MaxPooling3D" => "MaxPooling2D",
        "AveragePooling3D" => "AveragePooling2D",
        "LayerNormalization"
        | "GroupNormalization"
        | "RMSNormalization"
        | "UnitNormalization"
        | "SpectralNormalization" => "BatchNormalization",
        "Normalization" | "Rescaling" => "scaled inputs, or BatchNormalization with trainable=False",
        "LSTM" | "GRU" | "SimpleRNN" | "RNN" | "ConvLSTM1D" | "ConvLSTM2D" | "Bidirectional" => {
            "Conv1D with padding=\"causal\""
        }
        "Embedding" => "Dense over one-hot inputs",
        "TimeDistributed" => "the Dense layer alone: it works over the last axis",
        "PReLU" | "ThresholdedReLU" => "LeakyReLU",
        "SpatialDropout1D"
        | "SpatialDropout2D"
        | "AlphaDropout"
        | "GaussianDropout"
        | "GaussianNoise"
        | "ActivityRegularization" => "Dropout",
        "Average" => "Add, the factor folded into the next layer's kernel",
        "Subtract" => "Add, the sign folded into the kernel before it",
        "Maximum" | "Minimum" | "Dot" => "Add or Multiply",
        "MultiHeadAttention" | "Attention" | "AdditiveAttention" => "Dense, Multiply and Softmax",
        _ => return None,
    })
}

/// The initializer, or what is wrong with it.
pub(crate) fn initializer(value: &Value) -> Result<Initializer, String> {
    let empty = Map::new();
    let (class, config) = match value {
        Value::String(name) => (name.as_str(), &empty),
        Value::Object(object) => (
            object.get("class_name").and_then(Value::as_str).unwrap_or(""),
            object.get("config").and_then(Value::as_object).unwrap_or(&empty),
        ),
        _ => return Err(show(value)),
    };
    let seed = config.get("seed").and_then(Value::as_u64);
    let get = |key: &str, default: f32| config.get(key).and_then(number).map_or(default, |value| value as f32);
    if ["input_axes", "output_axes"].iter().any(|key| config.get(*key).is_some_and(|value| !value.is_null())) {
        return Err(show(value));
    }
    Ok(match class.to_ascii_lowercase().replace('_', "").as_str() {
        "zeros" | "zero" => Initializer::Zeros,
        "ones" | "one" => Initializer::Ones,
        "constant" => Initializer::Constant(get("value", 0.0)),
        "glorotuniform" | "xavieruniform" => Initializer::GlorotUniform { seed },
        "glorotnormal" => Initializer::GlorotNormal { seed },
        "heuniform" => Initializer::HeUniform { seed },
        "henormal" => Initializer::HeNormal { seed },
        "lecununiform" => Initializer::LecunUniform { seed },
        "lecunnormal" => Initializer::LecunNormal { seed },
        "randomuniform" | "uniform" => {
            Initializer::RandomUniform { min: get("minval", -0.05), max: get("maxval", 0.05), seed }
        }
        "randomnormal" | "normal" => {
            Initializer::RandomNormal { mean: get("mean", 0.0), stddev: get("stddev", 0.05), seed }
        }
        "truncatednormal" => Initializer::TruncatedNormal { mean: get("mean", 0.0), stddev: get("stddev", 0.05), seed },
        "variancescaling" => {
            let scale = get("scale", 1.0);
            let text = |key: &str, default| config.get(key).and_then(Value::as_str).unwrap_or(default);
            match (scale, text("mode", "fan_in"), text("distribution", "truncated_normal")) {
                (1.0, "fan_avg", "uniform") => Initializer::GlorotUniform { seed },
                (1.0, "fan_avg", "truncated_normal" | "normal") => Initializer::GlorotNormal { seed },
                (2.0, "fan_in", "uniform") => Initializer::HeUniform { seed },
                (2.0, "fan_in", "truncated_normal" | "normal") => Initializer::HeNormal { seed },
                (1.0, "fan_in", "uniform") => Initializer::LecunUniform { seed },
                (1.0, "fan_in", "truncated_normal" | "normal") => Initializer::LecunNormal { seed },
                _ => return Err(show(value)),
            }
        }
        _ => return Err(show(value)),
    })
}

fn activation_named(name: &str, dialect: Dialect) -> Result<Activation, (String, Option<&'static str>)> {
    Ok(match name {
        "linear" => Activation::Linear,
        "relu" => Activation::Relu,
        "relu6" => Activation::ClippedRelu { max_value: 6.0 },
        "leaky_relu" => Activation::LeakyRelu { negative_slope: 0.2 },
        "elu" => Activation::Elu { alpha: 1.0 },
        "selu" => Activation::Selu,
        "sigmoid" => Activation::Sigmoid,
        "hard_sigmoid" if dialect.keras2 => {
            return Err((
                "hard_sigmoid of a file by Keras 2 is clip(0.2 x + 0.5, 0, 1); SpiDNN has that of Keras 3, \
                 relu6(x + 3) / 6, and would compute something else"
                    .into(),
                Some("the model trained again with Keras 3, or with sigmoid"),
            ));
        }
        "hard_sigmoid" => Activation::HardSigmoid,
        "tanh" => Activation::Tanh,
        "softplus" => Activation::Softplus,
        "softsign" => Activation::Softsign,
        "silu" | "swish" => Activation::Silu,
        "gelu" => Activation::Gelu { approximate: false },
        "exponential" => Activation::Exponential,
        "softmax" => Activation::Softmax,
        other => {
            let near = match other {
                "hard_silu" | "hard_swish" | "mish" => Some("silu"),
                "hard_tanh" | "tanh_shrink" => Some("tanh"),
                "celu" => Some("elu"),
                "log_softmax" | "sparsemax" => Some("softmax"),
                "log_sigmoid" | "sparse_sigmoid" => Some("sigmoid"),
                "hard_shrink" | "soft_shrink" | "threshold" => Some("relu"),
                "squareplus" | "sparse_plus" => Some("softplus"),
                _ => Some(
                    "linear, relu, relu6, leaky_relu, elu, selu, sigmoid, hard_sigmoid, tanh, softplus, softsign, silu, \
                     gelu, exponential or softmax",
                ),
            };
            return Err((format!("activation `{other}` is not known"), near));
        }
    })
}

impl<'a> Args<'a> {
    fn activation(&mut self, key: &'a str, dialect: Dialect) -> Option<Activation> {
        let Some(value) = self.take(key) else { return Some(Activation::Linear) };
        let found = match value {
            Value::String(name) => activation_named(name, dialect),
            Value::Object(object) => {
                let class = object.get("class_name").and_then(Value::as_str).unwrap_or("");
                match (class, object.get("config")) {
                    ("function", Some(Value::String(name))) => activation_named(name, dialect),
                    // A layer in the place of a function.
                    ("ReLU" | "LeakyReLU" | "ELU" | "Softmax" | "Activation", Some(Value::Object(config))) => {
                        let mut problems = Vec::new();
                        let parsed = layer("", class, config, dialect, &mut problems);
                        match parsed.kind {
                            Some(LayerKind::Activation(activation))
                                if problems.is_empty() && parsed.last_axis.is_none() =>
                            {
                                Ok(activation)
                            }
                            _ => Err((
                                problems.first().map_or_else(|| show(value), |problem| problem.what.clone()),
                                Some("a named activation"),
                            )),
                        }
                    }
                    _ => Err((format!("{key}={}", show(value)), Some("a named activation"))),
                }
            }
            _ => Err((format!("{key}={}", show(value)), Some("a named activation"))),
        };
        match found {
            Ok(activation) => Some(activation),
            Err((what, Some(nearest))) => {
                self.problem_near(what, nearest);
                None
            }
            Err((what, None)) => {
                self.problem(what);
                None
            }
        }
    }

    fn initializer(&mut self, key: &'a str, default: Initializer, dialect: Dialect) -> Initializer {
        match self.take(key).map(initializer) {
            None => default,
            Some(Ok(initializer)) => initializer,
            Some(Err(_)) if dialect.weights_follow => default,
            Some(Err(what)) => {
                self.problem_near(format!("{key}={what}"), "glorot_uniform, he_normal, or the model with its weights");
                default
            }
        }
    }

    /// The arguments of training that change the loss or the weights behind the optimizer's back.
    fn only_for_training(&mut self, keys: &[&'a str], dialect: Dialect) {
        for key in keys {
            if dialect.inference_only {
                self.ignore(&[key]);
            } else {
                self.must_be_neutral(
                    key,
                    &[],
                    "none: the optimizer's weight_decay does what an L2 penalty is for; for predictions alone it can be \
                     left out",
                );
            }
        }
    }

    fn common(&mut self, dialect: Dialect) {
        // The name and whether it is trained are read by the caller; the others are of first layers and of other versions.
        self.ignore(&["name", "trainable", "batch_input_shape", "batch_shape", "input_shape", "input_dtype"]);
        if let Some(value) = self.take("dtype") {
            let name = match value {
                Value::String(name) => Some(name.as_str()),
                Value::Object(object) => {
                    object.get("config").and_then(|config| config.get("name")).and_then(Value::as_str)
                }
                _ => None,
            };
            if name != Some("float32") {
                self.problem_near(format!("dtype={}", show(value)), "float32");
            }
        }
        self.only_for_training(&["activity_regularizer"], dialect);
        self.must_be_neutral("quantization_config", &[], "float32, with SpiDNN's own formats chosen when compiling");
    }

    fn channels_last(&mut self) {
        self.must_be_neutral("data_format", &[json!("channels_last")], "channels_last");
    }

    fn padding(&mut self, causal: bool) -> Option<Padding> {
        let text = self.text("padding", "valid")?;
        match text.to_ascii_lowercase().as_str() {
            "valid" => Some(Padding::Valid),
            "same" => Some(Padding::Same),
            "causal" if causal => Some(Padding::Causal),
            other => {
                self.problem_near(
                    format!("padding=\"{other}\""),
                    if causal { "valid, same or causal" } else { "valid or same" },
                );
                None
            }
        }
    }

    fn conv(&mut self, rank: usize, depthwise: bool, dialect: Dialect) -> Option<Conv> {
        self.channels_last();
        let kernel_size = self.sizes("kernel_size", rank, None);
        let strides = self.sizes("strides", rank, Some([1, 1]));
        let dilation_rate = self.sizes("dilation_rate", rank, Some([1, 1]));
        let padding = self.padding(rank == 1 && !depthwise);
        let activation = self.activation("activation", dialect);
        let use_bias = self.flag("use_bias", true);
        let uniform = Initializer::GlorotUniform { seed: None };
        let (filters, groups, kernel_initializer);
        if depthwise {
            let multiplier = self.size("depth_multiplier", Some(1));
            // Keras 2 writes the arguments of its parent class too.
            self.ignore(&["filters", "groups", "kernel_initializer"]);
            self.only_for_training(
                &["depthwise_regularizer", "depthwise_constraint", "kernel_regularizer", "kernel_constraint"],
                dialect,
            );
            kernel_initializer = self.initializer("depthwise_initializer", uniform, dialect);
            // The graph puts the input's channels in when the layer is called.
            groups = Some(0);
            filters = multiplier;
        } else {
            filters = self.size("filters", None);
            groups = self.size("groups", Some(1));
            self.only_for_training(&["kernel_regularizer", "kernel_constraint"], dialect);
            kernel_initializer = self.initializer("kernel_initializer", uniform, dialect);
        }
        self.only_for_training(&["bias_regularizer", "bias_constraint"], dialect);
        let bias_initializer = self.initializer("bias_initializer", Initializer::Zeros, dialect);
        // LoRA adapters are merged by Keras when saving.
        self.must_be_neutral("lora_rank", &[], "the model saved after merging the adapters");
        self.ignore(&["lora_alpha"]);
        Some(Conv {
            rank,
            filters: filters?,
            kernel_size: kernel_size?,
            strides: strides?,
            dilation_rate: dilation_rate?,
            padding: padding?,
            groups: groups?,
            depthwise,
            activation: activation?,
            use_bias: use_bias?,
            kernel_initializer,
            bias_initializer,
        })
    }

    fn pool(&mut self, rank: usize, mode: PoolMode) -> Option<Pool> {
        self.channels_last();
        let pool_size = self.sizes("pool_size", rank, Some(if rank == 1 { [1, 2] } else { [2, 2] }));
        let strides = self.sizes("strides", rank, pool_size);
        let padding = self.padding(false);
        Some(Pool { rank, mode, pool_size: pool_size?, strides: strides?, padding: padding? })
    }

    fn zero_padding(&mut self, rank: usize) -> Option<[[usize; 2]; 2]> {
        self.channels_last();
        let default = json!(1);
        let value = self.take("padding").unwrap_or(&default);
        let one = |value: &Value| value.as_u64().filter(|&cells| cells <= limits::SIZE_MAX as u64).map(|n| n as usize);
        let pair = |value: &Value| match value.as_array().map(Vec::as_slice) {
            Some([before, after]) => Some([one(before)?, one(after)?]),
            Some(_) => None,
            None => one(value).map(|cells| [cells, cells]),
        };
        let padding = match (rank, value.as_array().map(Vec::as_slice)) {
            (1, _) => pair(value).map(|columns| [[0, 0], columns]),
            (_, Some([rows, columns])) => pair(rows).zip(pair(columns)).map(|(rows, columns)| [rows, columns]),
            (_, Some(_)) => None,
            (_, None) => one(value).map(|cells| [[cells, cells]; 2]),
        };
        if padding.is_none() {
            self.problem(format!("padding={} is not a number of cells before and after each dimension", show(value)));
        }
        padding
    }

    fn relu(&mut self) -> Option<Activation> {
        let max_value = match self.take("max_value") {
            Some(_) => Some(self.float("max_value", 0.0)?),
            None => None,
        };
        let slope = self.float("negative_slope", 0.0)?;
        let threshold = self.float("threshold", 0.0)?;
        match (max_value, slope, threshold) {
            (None, 0.0, 0.0) => Some(Activation::Relu),
            (Some(max_value), 0.0, 0.0) => Some(Activation::ClippedRelu { max_value }),
            (None, negative_slope, 0.0) => Some(Activation::LeakyRelu { negative_slope }),
            _ => {
                self.problem_near(
                    format!("max_value={max_value:?}, negative_slope={slope}, threshold={threshold} together"),
                    "ReLU with max_value alone, or LeakyReLU",
                );
                None
            }
        }
    }

    /// `-1` is the last axis; a number from the front is left to be checked.
    fn last_axis(&mut self, default: i64) -> Option<Option<usize>> {
        let axis = match self.take("axis") {
            None => Some(default),
            Some(Value::Array(axes)) if axes.len() == 1 => axes[0].as_i64(),
            Some(value) => value.as_i64(),
        };
        match axis {
            Some(-1) => Some(None),
            Some(axis) if (1..=limits::RANK_MAX as i64).contains(&axis) => Some(Some(axis as usize)),
            _ => {
                let found = self.take("axis").map(show).unwrap_or_default();
                self.problem_near(format!("axis={found}"), "axis=-1");
                None
            }
        }
    }
}

/// Reads one layer. A depthwise convolution has 0 groups, and its multiplier as filters: the graph completes it.
pub(crate) fn layer(
    name: &str,
    class: &str,
    config: &Map<String, Value>,
    dialect: Dialect,
    problems: &mut Vec<crate::Problem>,
) -> Parsed {
    let before = problems.len();
    let mut args = Args::new(name, config, problems);
    let mut last_axis = None;
    let rank = if class.ends_with("1D") { 1 } else { 2 };
    let kind = match class {
        "Dense" => {
            args.common(dialect);
            let units = args.size("units", None);
            let activation = args.activation("activation", dialect);
            let use_bias = args.flag("use_bias", true);
            args.only_for_training(
                &["kernel_regularizer", "bias_regularizer", "kernel_constraint", "bias_constraint"],
                dialect,
            );
            args.must_be_neutral("lora_rank", &[], "the model saved after merging the adapters");
            args.ignore(&["lora_alpha", "input_dim"]);
            let kernel_initializer =
                args.initializer("kernel_initializer", Initializer::GlorotUniform { seed: None }, dialect);
            let bias_initializer = args.initializer("bias_initializer", Initializer::Zeros, dialect);
            units.zip(activation).zip(use_bias).map(|((units, activation), use_bias)| {
                LayerKind::Dense(Dense { units, activation, use_bias, kernel_initializer, bias_initializer })
            })
        }
        "Conv1D" | "Conv2D" | "Convolution1D" | "Convolution2D" => {
            args.common(dialect);
            args.conv(rank, false, dialect).map(LayerKind::Conv)
        }
        "DepthwiseConv1D" | "DepthwiseConv2D" => {
            args.common(dialect);
            args.conv(rank, true, dialect).map(LayerKind::Conv)
        }
        "MaxPooling1D" | "MaxPooling2D" | "MaxPool1D" | "MaxPool2D" => {
            args.common(dialect);
            args.pool(rank, PoolMode::Max).map(LayerKind::Pool)
        }
        "AveragePooling1D" | "AveragePooling2D" | "AvgPool1D" | "AvgPool2D" => {
            args.common(dialect);
            args.pool(rank, PoolMode::Average).map(LayerKind::Pool)
        }
        "GlobalMaxPooling1D"
        | "GlobalMaxPooling2D"
        | "GlobalMaxPool1D"
        | "GlobalMaxPool2D"
        | "GlobalAveragePooling1D"
        | "GlobalAveragePooling2D"
        | "GlobalAvgPool1D"
        | "GlobalAvgPool2D" => {
            args.common(dialect);
            args.channels_last();
            let mode = if class.starts_with("GlobalMax") { PoolMode::Max } else { PoolMode::Average };
            args.flag("keepdims", false).map(|keepdims| LayerKind::GlobalPool { rank, mode, keepdims })
        }
        "Flatten" => {
            args.common(dialect);
            args.channels_last();
            Some(LayerKind::Flatten)
        }
        "Reshape" => {
            args.common(dialect);
            let shape = args.take("target_shape").and_then(Value::as_array).and_then(|sizes| {
                sizes
                    .iter()
                    .map(|size| match size {
                        Value::Null => Some(-1),
                        size => size.as_i64().filter(|size| (-1..=limits::SIZE_MAX).contains(size)),
                    })
                    .collect::<Option<Vec<_>>>()
            });
            if shape.as_ref().is_none_or(|shape| shape.len() > limits::RANK_MAX) {
                let found = args.take("target_shape").map(show).unwrap_or_else(|| "nothing".into());
                args.problem(format!("target_shape={found} is not a list of sizes"));
            }
            shape.map(|target_shape| LayerKind::Reshape { target_shape })
        }
        "ZeroPadding1D" | "ZeroPadding2D" => {
            args.common(dialect);
            args.zero_padding(rank).map(|padding| LayerKind::ZeroPadding { rank, padding })
        }
        "Activation" => {
            args.common(dialect);
            args.activation("activation", dialect).map(LayerKind::Activation)
        }
        "ReLU" => {
            args.common(dialect);
            args.relu().map(LayerKind::Activation)
        }
        "LeakyReLU" => {
            args.common(dialect);
            // Keras 2 calls it alpha.
            let default = args.float("alpha", 0.3);
            default
                .and_then(|default| args.float("negative_slope", default))
                .map(|negative_slope| LayerKind::Activation(Activation::LeakyRelu { negative_slope }))
        }
        "ELU" => {
            args.common(dialect);
            args.float("alpha", 1.0).map(|alpha| LayerKind::Activation(Activation::Elu { alpha }))
        }
        "Softmax" => {
            args.common(dialect);
            args.last_axis(-1).map(|axis| {
                last_axis = axis;
                LayerKind::Activation(Activation::Softmax)
            })
        }
        "Dropout" => {
            args.common(dialect);
            args.must_be_neutral("noise_shape", &[], "noise_shape=None");
            let seed = args.take("seed").and_then(Value::as_u64);
            match args.float("rate", 0.5) {
                Some(rate) if (0.0..1.0).contains(&rate) => Some(LayerKind::Dropout { rate, seed }),
                Some(rate) => {
                    args.problem(format!("rate={rate} is not from 0 to below 1"));
                    None
                }
                None => None,
            }
        }
        "Add" => {
            args.common(dialect);
            Some(LayerKind::Add)
        }
        "Multiply" => {
            args.common(dialect);
            Some(LayerKind::Multiply)
        }
        "Concatenate" => {
            args.common(dialect);
            match args.take("axis").map_or(Some(-1), Value::as_i64) {
                Some(axis) if axis != 0 && axis.unsigned_abs() <= limits::RANK_MAX as u64 => {
                    Some(LayerKind::Concatenate { axis: axis as isize })
                }
                _ => {
                    let found = args.take("axis").map(show).unwrap_or_default();
                    args.problem_near(format!("axis={found}"), "axis=-1");
                    None
                }
            }
        }
        "BatchNormalization" => {
            args.common(dialect);
            if let Some(axis) = args.last_axis(-1) {
                last_axis = axis;
            }
            for (key, start) in [
                ("beta_initializer", Initializer::Zeros),
                ("gamma_initializer", Initializer::Ones),
                ("moving_mean_initializer", Initializer::Zeros),
                ("moving_variance_initializer", Initializer::Ones),
            ] {
                if args.initializer(key, start, dialect) != start && !dialect.weights_follow {
                    args.problem_near(
                        format!("{key} is not the usual one"),
                        "the usual one, or the model with its weights",
                    );
                }
            }
            args.only_for_training(
                &["beta_regularizer", "gamma_regularizer", "beta_constraint", "gamma_constraint"],
                dialect,
            );
            args.must_be_neutral("renorm", &[], "renorm=False");
            // Statistics are over the whole batch, however many chips share it: what `synchronized` asks for.
            args.ignore(&["renorm_clipping", "renorm_momentum", "synchronized", "fused"]);
            let momentum = args.float("momentum", 0.99);
            let epsilon = args.float("epsilon", 0.001);
            let center = args.flag("center", true);
            let scale = args.flag("scale", true);
            match (momentum, epsilon, center, scale) {
                (Some(momentum), Some(epsilon), Some(center), Some(scale)) => {
                    Some(LayerKind::BatchNormalization(BatchNormalization { momentum, epsilon, center, scale }))
                }
                _ => None,
            }
        }
        "InputLayer" => {
            args.ignore(&["name", "trainable", "dtype", "batch_size"]);
            args.must_be_neutral("sparse", &[], "sparse=False");
            args.must_be_neutral("ragged", &[], "ragged=False");
            args.must_be_neutral("optional", &[], "optional=False");
            if let Some(dtype) = args.take("dtype")
                && dtype.as_str().is_none_or(|dtype| dtype != "float32")
            {
                args.problem_near(format!("dtype={}", show(dtype)), "float32");
            }
            let shape = args.take("batch_shape").or_else(|| args.take("batch_input_shape"));
            args.ignore(&["batch_input_shape", "shape", "input_shape"]);
            match shape {
                Some(shape) => match input_shape(shape) {
                    Ok(shape) => Some(LayerKind::Input { shape }),
                    Err(what) => {
                        args.problem_near(what, "a shape in which only the batch dimension is free");
                        None
                    }
                },
                None => {
                    args.problem("has no batch_shape");
                    None
                }
            }
        }
        _ => {
            let what = match class {
                "Lambda" | "TFOpLambda" | "SlicingOpLambda" => {
                    format!("{class} layers hold Python code, and code in a file is never run")
                }
                _ => format!("layers of class {class} are not known"),
            };
            args.problem_near(what, nearest_layer(class).unwrap_or(LAYERS));
            return Parsed { kind: None, last_axis: None };
        }
    };
    args.finish();
    Parsed { kind: kind.filter(|_| problems.len() == before), last_axis }
}

/// `[null, 28, 28, 1]` -> `[28, 28, 1]`, or what is wrong with it.
pub(crate) fn input_shape(value: &Value) -> Result<Vec<usize>, String> {
    let bad = || format!("input shape {}", show(value));
    let sizes = value.as_array().ok_or_else(bad)?;
    let (_batch, sizes) = sizes.split_first().ok_or_else(bad)?;
    if sizes.len() > limits::RANK_MAX {
        return Err(bad());
    }
    let mut product = 1u64;
    let mut shape = Vec::with_capacity(sizes.len());
    for size in sizes {
        match size.as_u64() {
            Some(size) if (1..=limits::SIZE_MAX as u64).contains(&size) => {
                product = product.saturating_mul(size);
                shape.push(size as usize);
            }
            _ if size.is_null() => return Err(format!("input shape {} has a free dimension", show(value))),
            _ => return Err(bad()),
        }
    }
    if product > limits::ELEMENTS_MAX {
        return Err(format!("input shape {} has too many elements", show(value)));
    }
    Ok(shape)
}
