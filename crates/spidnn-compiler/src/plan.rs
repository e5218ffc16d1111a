//! What the compiler is asked for and what it gives back.

use std::collections::BTreeMap;

use spidnn_graph::training::{Loss, Optimizer};
use spinnaker_machine::{ChipXy, RoutingEntry};

use crate::quantise::{ByteFormat, Quantisation};
use crate::report::Report;
use crate::stage::Mantissas;

/// What to compile for.
#[derive(Debug, Clone)]
pub struct Options {
    /// Samples of one run of a forward program over the whole machine: how many inputs go at a time.
    pub batch_size: usize,
    /// Also compile the training program.
    pub training: Option<Training>,
    /// Use at most so many chips; all that serve when `None`.
    pub chips_max: Option<usize>,
    /// Format of the numbers.
    pub format: Format,
}

/// Format of the numbers that products are made of.
#[derive(Debug, Clone, Default)]
pub enum Format {
    /// As good as binary32: mantissas of 26 bits.
    #[default]
    F32,
    /// Mantissas of 16 bits with an exponent for each block.
    Bfp16,
    /// Bytes, for predictions.
    Int8(Quantisation),
}

impl Format {
    /// What its products are made of (of format `int8`, those of layers that stay with numbers).
    pub fn mantissas(&self) -> Mantissas {
        if matches!(self, Format::Bfp16) { Mantissas::Halves } else { Mantissas::Words }
    }

    /// Its name on the command line.
    pub fn name(&self) -> &'static str {
        match self {
            Format::F32 => "f32",
            Format::Bfp16 => "bfp16",
            Format::Int8(_) => "int8",
        }
    }
}

impl Options {
    /// Samples of the largest run of all programs.
    pub fn samples(&self) -> usize {
        self.batch_size.max(self.training.as_ref().map_or(0, |t| t.batch_size))
    }

    /// Samples of the runs of one program.
    pub fn samples_of(&self, program: Program) -> usize {
        match (program, &self.training) {
            (Program::Train, Some(training)) => training.batch_size,
            _ => self.batch_size,
        }
    }

    /// Inference with `batch_size` inputs at a time, on all chips.
    pub fn inference(batch_size: usize) -> Options {
        Options { batch_size, training: None, chips_max: None, format: Format::F32 }
    }
}

/// What the training program is to do.
#[derive(Debug, Clone)]
pub struct Training {
    /// The loss, one for each output or one for all.
    pub losses: Vec<Loss>,
    /// The optimizer.
    pub optimizer: Optimizer,
    /// Samples of one training step over the whole machine.
    pub batch_size: usize,
}

/// The programs of a core, by their number in the run block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Program {
    /// Forward with the inference parameters (batch normalisation folded).
    Predict = 0,
    /// Forward, loss, backward, gradient sum, optimizer step, new weights to every chip.
    Train = 1,
    /// Forward with the training copy of the parameters, and the losses.
    Evaluate = 2,
}

/// A vector in SDRAM, or one vector for each sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Buffer {
    /// SDRAM byte address (of the first sample's).
    pub address: u32,
    /// Bytes from sample to sample; 0 where there is only one.
    pub sample_stride_bytes: u32,
    /// f32 words (of one sample).
    pub words: u32,
}

/// An input that the host brings as bytes: a quarter of what numbers take.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ByteInput {
    /// What the bytes mean.
    pub format: ByteFormat,
    /// Numbers of a row; each row begins at a word.
    pub row_values: usize,
}

impl ByteInput {
    /// The words of a sample's numbers, as the kernel `Quantise8` makes them.
    pub fn words(&self, values: &[f32]) -> Vec<u32> {
        let inverse = 1.0 / self.format.scale;
        let byte = |x: &f32| {
            let steps = (x * inverse).round_ties_even() as i32;
            steps.saturating_add(self.format.zero as i32).clamp(0, 255) as u8
        };
        let mut words = Vec::with_capacity(values.len().div_ceil(4));
        for row in values.chunks(self.row_values.max(1)) {
            let mut bytes: Vec<u8> = row.iter().map(byte).collect();
            bytes.resize(bytes.len().next_multiple_of(4), self.format.zero as u8);
            words.extend(crate::quantise::words(&bytes));
        }
        words
    }
}

/// Where the host finds and puts things: the same addresses on every chip.
#[derive(Debug, Clone, PartialEq)]
pub struct Layout {
    /// Samples that a chip takes in one run of the forward programs.
    pub samples_max: usize,
    /// Samples that a chip takes in one training step; 0 without training.
    pub training_samples_max: usize,
    /// Model inputs, two sets: the register INPUT_BUFFER chooses.
    pub inputs: [Vec<Buffer>; 2],
    /// For each input, how its numbers become bytes, if bytes are what its buffer takes.
    pub input_bytes: Vec<Option<ByteInput>>,
    /// Targets of each output (training and evaluation), two sets.
    pub targets: [Vec<Buffer>; 2],
    /// Sample weights, each already divided by the number of samples of the batch; one f32 for each sample, two sets.
    pub sample_weights: [Buffer; 2],
    /// Unweighted loss of each sample, for each output.
    pub losses: Vec<Buffer>,
    /// Model outputs.
    pub outputs: Vec<Buffer>,
    /// Parameters in the order of `get_weights()`: what training changes and evaluation reads.
    pub params: Vec<Buffer>,
    /// Optimizer state on the root chip for each trainable parameter: name (`m`, `v`, `x`) and buffer.
    pub optimizer_state: Vec<OptimizerState>,
    /// What the predict program reads, in the order of [`crate::fold::inference_params`]. Equal to `params` where nothing is folded.
    pub inference_params: Vec<Buffer>,
    /// The run block (see `spidnn_core::program::RunBlock`).
    pub run_block: u32,
    /// The chip whose cores run the optimizer and hold its state.
    pub root: ChipXy,
}

/// One state vector of the optimizer.
#[derive(Debug, Clone, PartialEq)]
pub struct OptimizerState {
    /// Index into the parameters.
    pub param: usize,
    /// Keras' word for it: `momentum`, `velocity`, `average_gradient`.
    pub name: &'static str,
    /// Where it lies on the root chip.
    pub buffer: Buffer,
}

/// What one chip is loaded with.
#[derive(Debug, Clone, PartialEq)]
pub struct ChipImage {
    /// Words to write to SDRAM: address and content (core images; parameters are the host's to write).
    pub sdram: Vec<(u32, Vec<u32>)>,
    /// Routing table.
    pub routes: Vec<RoutingEntry>,
    /// Cores to start, each with the SDRAM address of its image.
    pub cores: Vec<(u8, u32)>,
}

/// A compiled network.
#[derive(Debug, Clone)]
pub struct Compiled {
    /// Chips that hold a copy of the model; samples are shared out in this order.
    pub replicas: Vec<ChipXy>,
    /// What each is loaded with.
    pub chips: BTreeMap<ChipXy, ChipImage>,
    /// Where the host finds and puts things.
    pub layout: Layout,
    /// What the host writes to [`Layout::inference_params`], where it depends on no weights but those that the network was compiled with (format
    /// `int8`); else it is made of the weights ([`crate::fold::InferenceParam::contents`]).
    pub constants: Option<Vec<Vec<u32>>>,
    /// The plan in words and numbers.
    pub report: Report,
}

impl Compiled {
    /// How many of a batch of `samples` each replica gets, in order: contiguous shares, the chips with most cores (of these
    /// the first) one more.
    pub fn shares(&self, samples: usize) -> Vec<usize> {
        let cores = self.replicas.iter().map(|xy| self.chips.get(xy).map_or(0, |chip| chip.cores.len()));
        shares(samples, &cores.collect::<Vec<_>>())
    }
}

/// See [`Compiled::shares`]; `cores`: of each chip. A chip never gets more of a smaller batch.
pub(crate) fn shares(samples: usize, cores: &[usize]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..cores.len()).collect();
    order.sort_by_key(|&i| std::cmp::Reverse(cores[i]));
    let mut shares = vec![samples / cores.len().max(1); cores.len()];
    for &i in order.iter().take(samples % cores.len().max(1)) {
        shares[i] += 1;
    }
    shares
}

#[cfg(test)]
mod tests {
    use super::shares;

    #[test]
    fn smaller_batches_give_no_chip_more_and_large_chips_come_first() {
        let cores = [17, 16, 17, 15, 17];
        assert_eq!(shares(7, &cores), [2, 1, 2, 1, 1]);
        for samples in 1..40 {
            let (less, more) = (shares(samples - 1, &cores), shares(samples, &cores));
            assert_eq!(more.iter().sum::<usize>(), samples);
            assert!(less.iter().zip(&more).all(|(l, m)| l <= m), "{less:?} {more:?}");
        }
    }
}
