//! A model's weights: one tensor for each [`Param`](crate::Param), in [`ParamId`] (`get_weights()`) order.

use ndarray::{ArrayD, IxDyn};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::{Graph, GraphError, Initializer, ParamId, Tensor};

/// Fresh weights, by each parameter's initialiser. The same seed gives the same bits everywhere. An initialiser with a seed of its
/// own uses that instead, so two parameters with one seed start alike where their shapes agree, as in Keras. The numbers are not
/// Keras' (its generators differ between backends), their distributions are.
pub fn initial_weights(graph: &Graph, seed: u64) -> Vec<Tensor> {
    graph
        .params
        .iter()
        .enumerate()
        .map(|(index, param)| initial_tensor(&param.initializer, &param.shape, seed, index as u64))
        .collect()
}

/// One parameter's initial values; `stream` keeps parameters of one `seed` apart.
pub fn initial_tensor(initializer: &Initializer, shape: &[usize], seed: u64, stream: u64) -> Tensor {
    let mut draw = Draw::new(initializer.seed().unwrap_or(seed), if initializer.seed().is_some() { 0 } else { stream });
    let (fan_in, fan_out) = fans(shape);
    let mean_fan = (fan_in + fan_out) / 2.0;
    let mut value: Box<dyn FnMut() -> f64> = match *initializer {
        Initializer::Zeros => Box::new(|| 0.0),
        Initializer::Ones => Box::new(|| 1.0),
        Initializer::Constant(value) => Box::new(move || f64::from(value)),
        Initializer::GlorotUniform { .. } => Box::new(move || draw.uniform_limit(3.0 / mean_fan.max(1.0))),
        Initializer::HeUniform { .. } => Box::new(move || draw.uniform_limit(6.0 / fan_in.max(1.0))),
        Initializer::LecunUniform { .. } => Box::new(move || draw.uniform_limit(3.0 / fan_in.max(1.0))),
        Initializer::GlorotNormal { .. } => Box::new(move || draw.scaled_normal(1.0 / mean_fan.max(1.0))),
        Initializer::HeNormal { .. } => Box::new(move || draw.scaled_normal(2.0 / fan_in.max(1.0))),
        Initializer::LecunNormal { .. } => Box::new(move || draw.scaled_normal(1.0 / fan_in.max(1.0))),
        Initializer::RandomUniform { min, max, .. } => {
            let (min, max) = (f64::from(min), f64::from(max));
            Box::new(move || min + (max - min) * draw.unit())
        }
        Initializer::RandomNormal { mean, stddev, .. } => {
            Box::new(move || f64::from(mean) + f64::from(stddev) * draw.normal())
        }
        Initializer::TruncatedNormal { mean, stddev, .. } => {
            Box::new(move || f64::from(mean) + f64::from(stddev) * draw.truncated_normal())
        }
    };
    ArrayD::from_shape_simple_fn(IxDyn(shape), || value() as f32)
}

impl Initializer {
    /// The seed of its own, where it has one.
    pub fn seed(&self) -> Option<u64> {
        match *self {
            Self::Zeros | Self::Ones | Self::Constant(_) => None,
            Self::GlorotUniform { seed }
            | Self::GlorotNormal { seed }
            | Self::HeUniform { seed }
            | Self::HeNormal { seed }
            | Self::LecunUniform { seed }
            | Self::LecunNormal { seed }
            | Self::RandomUniform { seed, .. }
            | Self::RandomNormal { seed, .. }
            | Self::TruncatedNormal { seed, .. } => seed,
        }
    }
}

/// Keras' `compute_fans`: inputs and outputs that one weight's sums have.
fn fans(shape: &[usize]) -> (f64, f64) {
    match *shape {
        [] => (1.0, 1.0),
        [size] => (size as f64, size as f64),
        [ref field @ .., input, output] => {
            let field = field.iter().product::<usize>() as f64;
            (input as f64 * field, output as f64 * field)
        }
    }
}

/// Standard deviation of a normal distribution cut off at two of its standard deviations (Keras' constant).
const TRUNCATED_STDDEV: f64 = 0.879_625_661_034_239_8;

/// A stream of random numbers: ChaCha8, so that it is the same on every platform.
struct Draw {
    generator: ChaCha8Rng,
    /// The other number of the last pair that [`Draw::normal`] made.
    spare: Option<f64>,
}

impl Draw {
    fn new(seed: u64, stream: u64) -> Self {
        let mut generator = ChaCha8Rng::seed_from_u64(seed);
        generator.set_stream(stream);
        Self { generator, spare: None }
    }

    /// In `0.0..1.0`, with 24 bits, so that it is exact as `f32`.
    fn unit(&mut self) -> f64 {
        f64::from(self.generator.next_u32() >> 8) / f64::from(1_u32 << 24)
    }

    /// Uniform between plus and minus `sqrt(square)`.
    fn uniform_limit(&mut self, square: f64) -> f64 {
        square.sqrt() * (2.0 * self.unit() - 1.0)
    }

    /// Standard normal, by Box and Muller.
    fn normal(&mut self) -> f64 {
        if let Some(value) = self.spare.take() {
            return value;
        }
        // 1 - unit is above 0.
        let radius = (-2.0 * libm::log(1.0 - self.unit())).sqrt();
        let angle = 2.0 * std::f64::consts::PI * self.unit();
        self.spare = Some(radius * libm::sin(angle));
        radius * libm::cos(angle)
    }

    /// Standard normal, drawn again while beyond two standard deviations (1 in 22 is).
    fn truncated_normal(&mut self) -> f64 {
        loop {
            let value = self.normal();
            if value.abs() < 2.0 {
                return value;
            }
        }
    }

    /// Truncated normal of this variance after the cut.
    fn scaled_normal(&mut self, variance: f64) -> f64 {
        variance.sqrt() / TRUNCATED_STDDEV * self.truncated_normal()
    }
}

/// Checks that weights fit a graph: as many tensors as parameters, each of its parameter's shape, all finite. The error names the
/// first parameter that does not.
pub fn check_weights(graph: &Graph, weights: &[Tensor]) -> Result<(), GraphError> {
    if weights.len() != graph.params.len() {
        return Err(GraphError::model(
            &graph.name,
            format!("{} weight tensors", weights.len()),
            format!("{}, one for each parameter", graph.params.len()),
            "pass the tensors in the order of get_weights()",
        ));
    }
    for (index, (param, tensor)) in graph.params.iter().zip(weights).enumerate() {
        let path = || graph.param_path(ParamId(index));
        if tensor.shape() != param.shape {
            return Err(GraphError::parameter(
                path(),
                format!("a tensor of shape {:?}", tensor.shape()),
                format!("{:?}", param.shape),
                "pass the tensors in the order of get_weights(), with the model's shapes",
            ));
        }
        if let Some(bad) = tensor.iter().position(|value| !value.is_finite()) {
            return Err(GraphError::parameter(
                path(),
                format!("a value that is not finite, at element {bad}"),
                "finite numbers",
                "load weights from before the training diverged",
            ));
        }
    }
    Ok(())
}
