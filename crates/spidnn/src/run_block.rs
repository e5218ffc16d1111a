//! What the host tells the cores before each run.

use spidnn_core::program::RunBlock;
use spidnn_graph::training::{Optimizer, Rule};
use spidnn_kernels::optimizer::Scalars;

use crate::session::Run;

/// The words of the run block of one chip, which has `share` samples from number `first` of the batch on.
pub(crate) fn words(run: &Run, first: usize, share: usize, optimizer: Option<&Optimizer>) -> Vec<u32> {
    let block = RunBlock {
        program: run.program as u32,
        samples: share as u32,
        first_sample: first as u32,
        seed: run.seed,
        step: run.step as u32,
        input_buffer: run.set as u32,
        inverse_batch: 1.0 / run.samples.max(1) as f32,
        fetch_kept: run.fetch_kept,
        scalars: optimizer.map_or([0.0; 16], |o| scalars(o, run)),
    };
    block.to_words().to_vec()
}

/// The numbers of the optimizer's rule at this step.
fn scalars(optimizer: &Optimizer, run: &Run) -> [f32; 16] {
    let mut scalars = Scalars {
        learning_rate: run.learning_rate as f32,
        weight_decay: optimizer.weight_decay.unwrap_or(0.0),
        ..Scalars::default()
    };
    match optimizer.rule {
        Rule::Sgd { momentum, .. } => scalars.momentum = momentum,
        Rule::RmsProp { rho, momentum, epsilon, .. } => {
            scalars = Scalars { rho, momentum, epsilon, ..scalars };
        }
        Rule::Adam { beta_1, beta_2, epsilon } => scalars = Scalars { beta_1, beta_2, epsilon, ..scalars },
    }
    scalars.words(run.step.max(1)).map(f32::from_bits)
}
