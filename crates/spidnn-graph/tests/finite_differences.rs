//! Gradients of random small networks against finite differences, in inference and in training mode, and of the losses.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use spidnn_graph::builder::*;
use spidnn_graph::reference::{Cotangent, Mode, backward, forward, seeded_masks};
use spidnn_graph::training::Loss;
use spidnn_graph::{Activation, Graph, GraphError, NodeId, Padding, Tensor, initial_weights};

struct Dice(ChaCha8Rng);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0.next_u32() as usize % limit
    }

    fn number(&mut self) -> f32 {
        (self.0.next_u32() >> 8) as f32 / (1 << 23) as f32 - 1.0
    }

    fn tensor(&mut self, shape: &[usize]) -> Tensor {
        Tensor::from_shape_simple_fn(shape, || self.number())
    }

    fn activation(&mut self) -> Activation {
        let all = [
            Activation::Linear,
            Activation::Relu,
            Activation::ClippedRelu { max_value: 0.5 },
            Activation::LeakyRelu { negative_slope: 0.2 },
            Activation::Elu { alpha: 0.7 },
            Activation::Selu,
            Activation::Sigmoid,
            Activation::HardSigmoid,
            Activation::Tanh,
            Activation::Softplus,
            Activation::Softsign,
            Activation::Silu,
            Activation::Gelu { approximate: false },
            Activation::Gelu { approximate: true },
            Activation::Exponential,
            Activation::Softmax,
        ];
        all[self.below(all.len())]
    }

    fn padding(&mut self) -> Padding {
        [Padding::Valid, Padding::Same][self.below(2)]
    }
}

/// A layer or two on `x`; the shape stays of its rank.
fn grow(net: &mut Functional, dice: &mut Dice, x: NodeId, two: bool) -> Result<NodeId, GraphError> {
    let act = dice.activation();
    match (dice.below(12), two) {
        (0 | 1, true) => {
            let layer = Conv2D::new(4, (1 + dice.below(3), 1 + dice.below(3))).groups(2).padding(dice.padding());
            let x = net.call(Conv2D::new(4, 1), &[x])?;
            net.call(layer.strides(1 + dice.below(2)).activation(act), &[x])
        }
        (0 | 1, false) => {
            let padding = [Padding::Valid, Padding::Same, Padding::Causal][dice.below(3)];
            let layer = Conv1D::new(3, 2 + dice.below(2)).padding(padding).strides(1 + dice.below(2)).activation(act);
            net.call(layer, &[x])
        }
        (2, true) => {
            let layer = DepthwiseConv2D::new(2).depth_multiplier(2).padding(dice.padding()).activation(act);
            net.call(layer, &[x])
        }
        (2, false) => net.call(Conv1D::new(2, 2).dilation_rate(2).padding(Padding::Causal).activation(act), &[x]),
        (3, true) => net.call(MaxPooling2D::new(2).strides(1).padding(dice.padding()), &[x]),
        (3, false) => net.call(MaxPooling1D::new(2).padding(dice.padding()), &[x]),
        (4, true) => net.call(AveragePooling2D::new((2, 3)).strides(2).padding(Padding::Same), &[x]),
        (4, false) => net.call(AveragePooling1D::new(3).strides(2).padding(Padding::Same), &[x]),
        (5, _) => net.call(BatchNormalization::new(), &[x]),
        (6, _) => net.call(Dropout::new(0.3), &[x]),
        (7, true) => net.call(ZeroPadding2D::with_sides([[1, 0], [0, 2]]), &[x]),
        (7, false) => net.call(ZeroPadding1D::new(1), &[x]),
        (8, _) => {
            let y = net.call(ActivationLayer::new(act), &[x])?;
            net.call(Concatenate::new(), &[x, y])
        }
        (9, _) => {
            let y = net.call(ActivationLayer::new(act), &[x])?;
            net.call(Add::new(), &[x, y, x])
        }
        (10, true) => {
            let weights = net.call(GlobalAveragePooling2D::new().keepdims(true), &[x])?;
            net.call(Multiply::new(), &[x, weights])
        }
        (10, false) => {
            let weights = net.call(GlobalMaxPooling1D::new(), &[x])?;
            net.call(Multiply::new(), &[x, weights])
        }
        _ => net.call(Dense::new(3).use_bias(false).activation(act), &[x]),
    }
}

fn random_graph(dice: &mut Dice) -> Result<Graph, GraphError> {
    let mut net = Functional::new("random");
    let two = dice.below(2) == 0;
    let shape = if two { vec![5 + dice.below(3), 5 + dice.below(3), 2] } else { vec![8 + dice.below(4), 2] };
    let input = net.input(Input::shape(shape))?;
    let mut x = input;
    for _ in 0..1 + dice.below(4) {
        x = grow(&mut net, dice, x, two)?;
    }
    let pooled = match (two, dice.below(3)) {
        (true, 0) => net.call(GlobalMaxPooling2D::new(), &[x])?,
        (false, 0) => net.call(GlobalAveragePooling1D::new(), &[x])?,
        (_, 1) => net.call(Reshape::new([-1]), &[x])?,
        _ => net.call(Flatten::new(), &[x])?,
    };
    // A shared layer, called twice.
    let act = dice.activation();
    let shared = net.add(Dense::new(3).activation(act))?;
    let a = net.apply(shared, &[pooled])?;
    let b = net.call(ActivationLayer::new(Activation::Tanh), &[pooled])?;
    let b = net.apply(shared, &[b])?;
    net.build([input], [a, b])
}

/// Sum of cotangent times output, in float64.
fn weigh(graph: &Graph, weights: &[Tensor], inputs: &[Tensor], cotangents: &[Tensor], mode: Mode<'_>) -> f64 {
    let pass = forward(graph, weights, inputs, mode).unwrap();
    let dot =
        |(output, r): (&Tensor, &Tensor)| output.iter().zip(r).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    pass.outputs(graph).iter().zip(cotangents).map(dot).sum()
}

fn moved(from: &[Tensor], by: &[Tensor], step: f32) -> Vec<Tensor> {
    from.iter().zip(by).map(|(from, by)| from + &(by * step)).collect()
}

#[test]
fn random_networks() {
    let mut params_checked = 0;
    for seed in 0..150_u64 {
        let mut dice = Dice(ChaCha8Rng::seed_from_u64(seed));
        // Some draws shrink the picture away: those say so, and do not count.
        let Ok(graph) = random_graph(&mut dice) else { continue };
        let mut weights = initial_weights(&graph, seed);
        for (weights, param) in weights.iter_mut().zip(&graph.params) {
            if param.name != "moving_variance" {
                *weights += &(dice.tensor(&param.shape) * 0.2);
            }
        }
        let inputs: Vec<Tensor> =
            graph.inputs.iter().map(|node| dice.tensor(&[&[3], graph.node(*node).shape.as_slice()].concat())).collect();
        let cotangents: Vec<Tensor> = graph
            .outputs
            .iter()
            .map(|node| dice.tensor(&[&[3], graph.node(*node).shape.as_slice()].concat()))
            .collect();
        let keep = seeded_masks(seed, 0);
        let modes: [Mode<'_>; 2] = [Mode::Inference, Mode::Training { keep: &keep }];
        for (mode_name, mode) in ["inference", "training"].into_iter().zip(modes) {
            let pass = forward(&graph, &weights, &inputs, mode).unwrap();
            let given: Vec<Cotangent> = cotangents.iter().cloned().map(Cotangent::Output).collect();
            let gradients = backward(&graph, &weights, &pass, &given).unwrap();

            // Along one direction for the inputs, and one for each parameter.
            let check = |what: &str, gradient: &Tensor, direction: &Tensor, at: &dyn Fn(f32) -> f64| {
                let parts = || gradient.iter().zip(direction).map(|(g, d)| f64::from(*g) * f64::from(*d));
                let (slope, scale) = (parts().sum::<f64>(), parts().map(f64::abs).sum::<f64>().max(0.05));
                // Small steps lose digits, large ones meet bends; where a corner is near, only the side without it counts. So
                // the best of several: a wrong gradient agrees with none.
                let middle = at(0.0);
                let error = [3e-2_f32, 1e-2, 3e-3, 1e-3]
                    .iter()
                    .flat_map(|step| {
                        let (up, down, step) = (at(*step), at(-step), f64::from(*step));
                        [(up - down) / (2.0 * step), (up - middle) / step, (middle - down) / step]
                    })
                    .map(|estimate| (estimate - slope).abs() / scale)
                    .fold(f64::INFINITY, f64::min);
                assert!(error < 5e-3, "seed {seed}, {mode_name}, {what}: off by {error:.1e}\n{}", graph.summary());
            };
            let direction = dice.tensor(inputs[0].shape());
            check("input", &gradients.inputs[0], &direction, &|step| {
                let inputs = moved(&inputs, std::slice::from_ref(&direction), step);
                weigh(&graph, &weights, &inputs, &cotangents, mode)
            });
            for (index, param) in graph.params.iter().enumerate() {
                let Some(gradient) = &gradients.params[index] else {
                    assert!(param.name.starts_with("moving"));
                    continue;
                };
                let direction = dice.tensor(&param.shape);
                params_checked += 1;
                check(&graph.param_path(spidnn_graph::ParamId(index)), gradient, &direction, &|step| {
                    let mut weights = weights.clone();
                    weights[index] = &weights[index] + &(&direction * step);
                    weigh(&graph, &weights, &inputs, &cotangents, mode)
                });
            }
        }
    }
    assert!(params_checked > 600, "{params_checked} parameters");
}

#[test]
fn losses() {
    let mut dice = Dice(ChaCha8Rng::seed_from_u64(7));
    let smooth = 0.1;
    for loss in [
        Loss::MeanSquaredError,
        Loss::MeanAbsoluteError,
        Loss::BinaryCrossentropy { from_logits: false, label_smoothing: smooth },
        Loss::BinaryCrossentropy { from_logits: true, label_smoothing: 0.0 },
        Loss::CategoricalCrossentropy { from_logits: false, label_smoothing: smooth },
        Loss::CategoricalCrossentropy { from_logits: true, label_smoothing: smooth },
        Loss::SparseCategoricalCrossentropy { from_logits: false },
        Loss::SparseCategoricalCrossentropy { from_logits: true },
    ] {
        // Predictions strictly between 0 and 1, as probabilities need.
        let predictions = dice.tensor(&[4, 5]).mapv(|x| 0.5 + 0.4 * x);
        let targets = if loss.takes_class_numbers() {
            Tensor::from_shape_fn(vec![4], |index| (index[0] % 5) as f32)
        } else {
            dice.tensor(&[4, 5]).mapv(|x| 0.5 + 0.5 * x)
        };
        let weights = [0.5, 2.0, 0.0, 1.0];
        let value = loss.evaluate(&targets, &predictions, Some(&weights)).unwrap();
        for element in 0..20 {
            let step = 1e-3;
            let at = |step: f32| {
                let mut moved = predictions.clone();
                moved[[element / 5, element % 5]] += step;
                loss.evaluate(&targets, &moved, Some(&weights)).unwrap().mean
            };
            let slope = (at(step) - at(-step)) / (2.0 * f64::from(step));
            let found = f64::from(value.gradient[[element / 5, element % 5]]);
            assert!((slope - found).abs() < 2e-4, "{loss:?} element {element}: {found} against {slope}");
        }
    }
}
