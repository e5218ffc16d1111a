//! Batch normalisation over the last axis.

/// Mean and (biased) variance of each channel.
pub(super) fn statistics(x: &[f32], channels: usize) -> (Vec<f64>, Vec<f64>) {
    let count = (x.len() / channels) as f64;
    let mut mean = vec![0.0_f64; channels];
    for row in x.chunks_exact(channels) {
        mean.iter_mut().zip(row).for_each(|(sum, value)| *sum += f64::from(*value));
    }
    mean.iter_mut().for_each(|sum| *sum /= count);
    let mut variance = vec![0.0_f64; channels];
    for row in x.chunks_exact(channels) {
        for channel in 0..channels {
            let distance = f64::from(row[channel]) - mean[channel];
            variance[channel] += distance * distance;
        }
    }
    variance.iter_mut().for_each(|sum| *sum /= count);
    (mean, variance)
}

/// How a call normalised: what the backward pass needs.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Normalized {
    /// Mean of each channel that was subtracted.
    pub(super) mean: Vec<f64>,
    /// `1 / sqrt(variance + epsilon)` of each channel.
    pub(super) inverse: Vec<f64>,
    /// Whether mean and variance are those of the batch (so depend on the input).
    pub(super) of_batch: bool,
}

impl Normalized {
    pub(super) fn new(mean: Vec<f64>, variance: &[f64], epsilon: f32, of_batch: bool) -> Self {
        let inverse = variance.iter().map(|variance| 1.0 / (variance + f64::from(epsilon)).sqrt()).collect();
        Self { mean, inverse, of_batch }
    }

    pub(super) fn forward(&self, x: &[f32], gamma: Option<&[f32]>, beta: Option<&[f32]>) -> Vec<f32> {
        let channels = self.mean.len();
        x.iter()
            .enumerate()
            .map(|(index, value)| {
                let channel = index % channels;
                let normal = (f64::from(*value) - self.mean[channel]) * self.inverse[channel];
                let gamma = gamma.map_or(1.0, |gamma| f64::from(gamma[channel]));
                (normal * gamma + beta.map_or(0.0, |beta| f64::from(beta[channel]))) as f32
            })
            .collect()
    }

    /// Gradients with respect to input, gamma and beta.
    pub(super) fn backward(&self, x: &[f32], gamma: Option<&[f32]>, cotangent: &[f32]) -> [Vec<f32>; 3] {
        let channels = self.mean.len();
        let count = (x.len() / channels) as f64;
        let normal =
            |index: usize| (f64::from(x[index]) - self.mean[index % channels]) * self.inverse[index % channels];
        let mut dgamma = vec![0.0_f64; channels];
        let mut dbeta = vec![0.0_f64; channels];
        for (index, cotangent) in cotangent.iter().enumerate() {
            dgamma[index % channels] += f64::from(*cotangent) * normal(index);
            dbeta[index % channels] += f64::from(*cotangent);
        }
        let dx = cotangent
            .iter()
            .enumerate()
            .map(|(index, cotangent)| {
                let channel = index % channels;
                let scale = gamma.map_or(1.0, |gamma| f64::from(gamma[channel])) * self.inverse[channel];
                let through_statistics =
                    if self.of_batch { (dbeta[channel] + normal(index) * dgamma[channel]) / count } else { 0.0 };
                (scale * (f64::from(*cotangent) - through_statistics)) as f32
            })
            .collect();
        let narrow = |values: Vec<f64>| values.iter().map(|value| *value as f32).collect();
        [dx, narrow(dgamma), narrow(dbeta)]
    }
}
