//! Networks that have a name of their own: `lenet5`, `lenet1`, `lenet4`, `mlp`, `resnet20`, `resnet50`. All untrained.

use std::collections::BTreeMap;

use spidnn_graph::layer::{BatchNormalization, Conv, Dense, Pool, PoolMode};
use spidnn_graph::{Activation, Graph, GraphBuilder, GraphError, Initializer, LayerKind, NodeId, Padding};

/// Names that [`graph`] knows, each with a line on what it is.
pub const NAMES: [(&str, &str); 6] = [
    ("lenet5", "LeNet-5 for 28x28x1 pictures, tanh and average pooling, 10 classes (61,706 parameters)"),
    ("lenet1", "LeNet-1 for 28x28x1 pictures, 10 classes (3,246 parameters)"),
    ("lenet4", "LeNet-4 for 28x28x1 pictures, 10 classes (51,050 parameters)"),
    ("mlp", "Flatten, Dense 128 relu, Dense 10 softmax for 28x28x1 pictures (101,770 parameters)"),
    ("resnet20", "pre-activation ResNet-20 for 32x32x3 pictures, 10 classes"),
    ("resnet50", "ResNet-50 for 224x224x3 pictures, 1000 classes (25,636,712 parameters)"),
];

/// The built-in network with this name.
pub fn graph(name: &str) -> Option<Graph> {
    let built = match name {
        "lenet5" => lenet(name, 6, Padding::Same, 16, &[120, 84]),
        "lenet4" => lenet(name, 4, Padding::Same, 16, &[120]),
        "lenet1" => lenet(name, 4, Padding::Valid, 12, &[]),
        "mlp" => mlp(),
        "resnet20" => resnet20(),
        "resnet50" => resnet50(),
        _ => return None,
    };
    // These graphs are constants: an error is one of this file, and `all_are_well_formed` finds it.
    built.ok()
}

/// A graph in the making, with layers named as Keras names them: `conv2d`, `conv2d_1`, ..
struct Net {
    builder: GraphBuilder,
    counts: BTreeMap<&'static str, usize>,
    kernel_initializer: Initializer,
    norm: BatchNormalization,
}

impl Net {
    fn new(name: &str, sequential: bool) -> Net {
        Net {
            builder: GraphBuilder::new(name).sequential(sequential),
            counts: BTreeMap::new(),
            kernel_initializer: Initializer::GlorotUniform { seed: None },
            norm: BatchNormalization { momentum: 0.99, epsilon: 1e-3, center: true, scale: true },
        }
    }

    fn add(&mut self, base: &'static str, kind: LayerKind, inputs: &[NodeId]) -> Result<NodeId, GraphError> {
        let count = self.counts.entry(base).or_insert(0);
        let name = if *count == 0 { base.to_string() } else { format!("{base}_{count}") };
        *count += 1;
        let layer = self.builder.add_layer(&name, kind)?;
        self.builder.call(layer, inputs)
    }

    fn input(&mut self, shape: &[usize]) -> Result<NodeId, GraphError> {
        self.add("input_layer", LayerKind::Input { shape: shape.to_vec() }, &[])
    }

    fn conv(
        &mut self,
        x: NodeId,
        filters: usize,
        kernel: usize,
        stride: usize,
        padding: Padding,
        activation: Activation,
        use_bias: bool,
    ) -> Result<NodeId, GraphError> {
        let conv = Conv {
            rank: 2,
            filters,
            kernel_size: [kernel; 2],
            strides: [stride; 2],
            dilation_rate: [1; 2],
            padding,
            groups: 1,
            depthwise: false,
            activation,
            use_bias,
            kernel_initializer: self.kernel_initializer,
            bias_initializer: Initializer::Zeros,
        };
        self.add("conv2d", LayerKind::Conv(conv), &[x])
    }

    fn dense(&mut self, x: NodeId, units: usize, activation: Activation) -> Result<NodeId, GraphError> {
        let dense = Dense {
            units,
            activation,
            use_bias: true,
            kernel_initializer: Initializer::GlorotUniform { seed: None },
            bias_initializer: Initializer::Zeros,
        };
        self.add("dense", LayerKind::Dense(dense), &[x])
    }

    fn pool(&mut self, x: NodeId, mode: PoolMode, size: usize, stride: usize) -> Result<NodeId, GraphError> {
        let base = if mode == PoolMode::Max { "max_pooling2d" } else { "average_pooling2d" };
        let pool = Pool { rank: 2, mode, pool_size: [size; 2], strides: [stride; 2], padding: Padding::Valid };
        self.add(base, LayerKind::Pool(pool), &[x])
    }

    fn norm(&mut self, x: NodeId) -> Result<NodeId, GraphError> {
        let norm = self.norm.clone();
        self.add("batch_normalization", LayerKind::BatchNormalization(norm), &[x])
    }

    fn relu(&mut self, x: NodeId) -> Result<NodeId, GraphError> {
        self.add("activation", LayerKind::Activation(Activation::Relu), &[x])
    }

    fn pad(&mut self, x: NodeId, cells: usize) -> Result<NodeId, GraphError> {
        self.add("zero_padding2d", LayerKind::ZeroPadding { rank: 2, padding: [[cells; 2]; 2] }, &[x])
    }

    fn global_average(&mut self, x: NodeId) -> Result<NodeId, GraphError> {
        let kind = LayerKind::GlobalPool { rank: 2, mode: PoolMode::Average, keepdims: false };
        self.add("global_average_pooling2d", kind, &[x])
    }
}

/// LeCun's networks with tanh and average pooling: two convolutions 5x5 and Dense layers, softmax over 10 classes.
fn lenet(name: &str, first: usize, padding: Padding, second: usize, dense: &[usize]) -> Result<Graph, GraphError> {
    let mut net = Net::new(name, true);
    let input = net.input(&[28, 28, 1])?;
    let x = net.conv(input, first, 5, 1, padding, Activation::Tanh, true)?;
    let x = net.pool(x, PoolMode::Average, 2, 2)?;
    let x = net.conv(x, second, 5, 1, Padding::Valid, Activation::Tanh, true)?;
    let x = net.pool(x, PoolMode::Average, 2, 2)?;
    let mut x = net.add("flatten", LayerKind::Flatten, &[x])?;
    for &units in dense {
        x = net.dense(x, units, Activation::Tanh)?;
    }
    let y = net.dense(x, 10, Activation::Softmax)?;
    net.builder.build(vec![input], vec![y])
}

fn mlp() -> Result<Graph, GraphError> {
    let mut net = Net::new("mlp", true);
    let input = net.input(&[28, 28, 1])?;
    let x = net.add("flatten", LayerKind::Flatten, &[input])?;
    let x = net.dense(x, 128, Activation::Relu)?;
    let y = net.dense(x, 10, Activation::Softmax)?;
    net.builder.build(vec![input], vec![y])
}

/// He et al., "Identity mappings in deep residual networks" (2016): three stages of three blocks, 16 to 64 channels.
fn resnet20() -> Result<Graph, GraphError> {
    let mut net = Net::new("resnet20", false);
    net.kernel_initializer = Initializer::HeNormal { seed: None };
    let plain = |net: &mut Net, x, filters, kernel, stride| {
        net.conv(x, filters, kernel, stride, Padding::Same, Activation::Linear, false)
    };
    let input = net.input(&[32, 32, 3])?;
    let mut x = plain(&mut net, input, 16, 3, 1)?;
    for (stage, filters) in [16, 32, 64].into_iter().enumerate() {
        for block in 0..3 {
            let stride = if stage > 0 && block == 0 { 2 } else { 1 };
            let normed = net.norm(x)?;
            let active = net.relu(normed)?;
            let shortcut = if stride == 2 { plain(&mut net, active, filters, 1, 2)? } else { x };
            let y = plain(&mut net, active, filters, 3, stride)?;
            let y = net.norm(y)?;
            let y = net.relu(y)?;
            let y = plain(&mut net, y, filters, 3, 1)?;
            x = net.add("add", LayerKind::Add, &[shortcut, y])?;
        }
    }
    let x = net.norm(x)?;
    let x = net.relu(x)?;
    let x = net.global_average(x)?;
    let y = net.dense(x, 10, Activation::Softmax)?;
    net.builder.build(vec![input], vec![y])
}

/// He et al., "Deep residual learning for image recognition" (2015), as `keras.applications.ResNet50` lays it out.
fn resnet50() -> Result<Graph, GraphError> {
    let mut net = Net::new("resnet50", false);
    net.norm.epsilon = 1.001e-5;
    let conv = |net: &mut Net, x, filters, kernel, stride, padding| {
        net.conv(x, filters, kernel, stride, padding, Activation::Linear, true)
    };
    let input = net.input(&[224, 224, 3])?;
    let x = net.pad(input, 3)?;
    let x = conv(&mut net, x, 64, 7, 2, Padding::Valid)?;
    let x = net.norm(x)?;
    let x = net.relu(x)?;
    let x = net.pad(x, 1)?;
    let mut x = net.pool(x, PoolMode::Max, 3, 2)?;
    for (stage, (filters, blocks)) in [(64, 3), (128, 4), (256, 6), (512, 3)].into_iter().enumerate() {
        for block in 0..blocks {
            let stride = if stage > 0 && block == 0 { 2 } else { 1 };
            let shortcut = if block == 0 {
                let s = conv(&mut net, x, 4 * filters, 1, stride, Padding::Valid)?;
                net.norm(s)?
            } else {
                x
            };
            let y = conv(&mut net, x, filters, 1, stride, Padding::Valid)?;
            let y = net.norm(y)?;
            let y = net.relu(y)?;
            let y = conv(&mut net, y, filters, 3, 1, Padding::Same)?;
            let y = net.norm(y)?;
            let y = net.relu(y)?;
            let y = conv(&mut net, y, 4 * filters, 1, 1, Padding::Valid)?;
            let y = net.norm(y)?;
            let y = net.add("add", LayerKind::Add, &[shortcut, y])?;
            x = net.relu(y)?;
        }
    }
    let x = net.global_average(x)?;
    let y = net.dense(x, 1000, Activation::Softmax)?;
    net.builder.build(vec![input], vec![y])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_are_well_formed() {
        let expected =
            [("lenet5", 61_706), ("lenet1", 3_246), ("lenet4", 51_050), ("mlp", 101_770), ("resnet50", 25_636_712)];
        for (name, parameters) in expected {
            assert_eq!(graph(name).expect(name).parameter_count(), parameters, "{name}");
        }
        for (name, _) in NAMES {
            assert!(graph(name).is_some(), "{name}");
        }
        assert!(graph("resnet51").is_none());
    }

    #[test]
    fn resnet20_has_the_weights_of_the_golden_one() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/keras/resnet20_preact/weights.json");
        let listed: serde_json::Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
        let entries = listed.as_array().cloned().unwrap_or_else(|| listed["weights"].as_array().unwrap().clone());
        let shapes: Vec<Vec<usize>> = entries
            .iter()
            .map(|w| w["shape"].as_array().unwrap().iter().map(|n| n.as_u64().unwrap() as usize).collect())
            .collect();
        let mut own: Vec<Vec<usize>> = graph("resnet20").unwrap().params.iter().map(|p| p.shape.clone()).collect();
        let mut shapes = shapes;
        own.sort();
        shapes.sort();
        assert_eq!(own, shapes);
    }
}
