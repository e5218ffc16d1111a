//! What the host tells the cores before each run.

use spidnn_graph::training::Optimizer;

use crate::session::Run;

/// The words of the run block of one chip, which has `share` samples from number `first` of the batch on.
pub(crate) fn words(run: &Run, first: usize, share: usize, optimizer: Option<&Optimizer>) -> Vec<u32> {
    let _ = (run, first, share, optimizer);
    todo!()
}
