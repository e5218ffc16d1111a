//! The pipeline of a stream: while the cores compute one batch, the inputs of the next are written, and the outputs of a batch are
//! read as soon as it is over.
//!
//! All times are the machine's, in whole nanoseconds. Nothing here depends on the host's clock, so the same inputs at the
//! same machine times give the same outputs at the same times.

use std::collections::{BTreeMap, VecDeque};

use ndarray::{ArrayD, IxDyn};
use spidnn_compiler::{Buffer, ByteInput, Compiled, Program};
use spidnn_graph::Tensor;
use spinnaker_machine::ChipXy;

use super::Output;
use super::deal::Deal;
use crate::board::Board;
use crate::session::Run;
use crate::{Error, Session, run_block};

/// Clock of a core.
const CORE_HZ: f64 = 200e6;
/// Start and end of a run are messages, a round trip together (`spinnaker_sim::Timing::host_round_trip_ns`); for the split only.
const SIGNALS_S: f64 = 0.2e-3;

/// A sample that waits for its batch.
struct Waiting {
    sequence: u64,
    /// Words of each network input.
    words: Vec<Vec<u32>>,
    pushed_ns: u64,
}

/// A sample of a batch.
struct Member {
    sequence: u64,
    pushed_ns: u64,
}

/// Samples that run together.
struct Batch {
    /// Which input buffers hold them.
    set: usize,
    members: Vec<Member>,
}

/// What the engine knows of the network on the machine.
struct Network {
    replicas: Vec<ChipXy>,
    inputs: [Vec<Buffer>; 2],
    input_bytes: Vec<Option<ByteInput>>,
    outputs: Vec<Buffer>,
    output_shapes: Vec<Vec<usize>>,
    run_block: u32,
    macs_per_sample: u64,
}

pub(super) struct Engine {
    network: Network,
    deal: Deal,
    batch_max: usize,
    waiting: VecDeque<Waiting>,
    staged: Option<Batch>,
    running: Option<Batch>,
    ready: VecDeque<Output>,
    /// Which input buffers the next batch takes.
    set: usize,
    /// What each replica's run block holds.
    blocks: Vec<Vec<u32>>,
    next_sequence: u64,
}

/// Words from sample to sample.
fn stride_words(buffer: &Buffer) -> usize {
    (buffer.sample_stride_bytes / 4).max(buffer.words) as usize
}

fn now_ns(board: &dyn Board) -> u64 {
    (board.time_s() * 1e9).round() as u64
}

fn parts(session: &mut Session) -> Result<(&Compiled, &mut dyn Board, &mut crate::Usage), Error> {
    session.stream_parts().ok_or_else(|| Error::Argument("nothing is loaded".into()))
}

impl Engine {
    /// Prepares the machine: every chip is told that it has no samples, and has fetched what it keeps, so that a later batch needs to
    /// tell only those that have.
    pub fn new(session: &mut Session) -> Result<Engine, Error> {
        let fetch_kept = session.claim_for_stream();
        let graph = session.graph();
        let output_shapes = graph.outputs.iter().map(|n| graph.nodes[n.0].shape.clone()).collect();
        let (compiled, ..) = parts(session)?;
        let layout = &compiled.layout;
        let network = Network {
            replicas: compiled.replicas.clone(),
            inputs: layout.inputs.clone(),
            input_bytes: layout.input_bytes.clone(),
            outputs: layout.outputs.clone(),
            output_shapes,
            run_block: layout.run_block,
            macs_per_sample: compiled.report.macs("predict") / compiled.report.samples_per_chip.max(1) as u64,
        };
        let sample_bytes = 4 * network.inputs[0].iter().map(stride_words).sum::<usize>();
        let chip_s = compiled.report.cycles("predict") as f64 / CORE_HZ + SIGNALS_S;
        let deal = Deal::new(network.replicas.len(), layout.samples_max, sample_bytes, chip_s);
        let blocks = vec![Vec::new(); network.replicas.len()];
        let mut engine = Engine {
            network,
            deal,
            batch_max: deal.samples_max(),
            waiting: VecDeque::new(),
            staged: None,
            running: None,
            ready: VecDeque::new(),
            set: 0,
            blocks,
            next_sequence: 0,
        };
        let began_s = session.machine().board().time_s();
        // The second run leaves nothing under way on the link that the first sample would wait for.
        for fetch_kept in if fetch_kept { &[true, false][..] } else { &[false][..] } {
            engine.tell(session, 0, 0, *fetch_kept)?;
            let (_, board, _) = parts(session)?;
            board.start()?;
            board.wait()?;
        }
        let (_, board, usage) = parts(session)?;
        usage.phases.load_s += board.time_s() - began_s;
        Ok(engine)
    }

    /// Runs at most so many samples together.
    pub fn limit_batch(&mut self, samples: usize) {
        self.batch_max = samples.clamp(1, self.deal.samples_max());
    }

    /// Samples with which neither link nor cores wait for the other.
    pub fn samples_balanced(&self) -> usize {
        self.deal.samples_balanced()
    }

    /// Samples that were pushed and whose outputs were not taken.
    pub fn under_way(&self) -> usize {
        let on_machine = |batch: &Option<Batch>| batch.as_ref().map_or(0, |batch| batch.members.len());
        self.waiting.len() + on_machine(&self.staged) + on_machine(&self.running) + self.ready.len()
    }

    /// Outputs that wait to be taken.
    pub fn ready(&self) -> usize {
        self.ready.len()
    }

    /// Takes a checked sample (one tensor for each network input, values in row-major order), pushed at a machine time; never before the
    /// one that was pushed last. Gives its number.
    pub fn push(&mut self, inputs: &[Tensor], pushed_ns: u64) -> u64 {
        let words = inputs.iter().zip(&self.network.input_bytes).map(|(tensor, bytes)| {
            let values = tensor.as_slice().unwrap_or_default();
            match bytes {
                Some(bytes) => bytes.words(values),
                None => values.iter().map(|v| v.to_bits()).collect(),
            }
        });
        let words = words.collect();
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        let pushed_ns = self.waiting.back().map_or(pushed_ns, |last| last.pushed_ns.max(pushed_ns));
        self.waiting.push_back(Waiting { sequence, words, pushed_ns });
        sequence
    }

    /// The next output that is there.
    pub fn take(&mut self) -> Option<Output> {
        self.ready.pop_front()
    }

    /// Brings a batch to its end; false if there is none.
    pub fn step(&mut self, session: &mut Session) -> Result<bool, Error> {
        if self.running.is_none() && !self.start_next(session)? {
            return Ok(false);
        }
        let began_s = session.machine().board().time_s();
        let run_s = self.finish_run(session)?;
        let (_, board, usage) = parts(session)?;
        usage.compute_s += run_s;
        usage.phases.run_s += board.time_s() - began_s;
        let Some(batch) = self.running.take() else { return Ok(false) };
        // Told before the outputs are asked for, the chips of the next batch share the round trip of the answers.
        if let Some(next) = &self.staged {
            let (samples, set) = (next.members.len(), next.set);
            self.tell(session, samples, set, false)?;
        }
        self.read(session, &batch)?;
        if let Some(next) = self.staged.take() {
            self.start(session, next)?;
        }
        Ok(true)
    }

    /// Waits for the batch that runs, if one does, and forgets it.
    pub fn cancel(&mut self, session: &mut Session) -> Result<(), Error> {
        self.waiting.clear();
        self.staged = None;
        self.ready.clear();
        if self.running.take().is_some() {
            parts(session)?.1.wait()?;
        }
        Ok(())
    }

    /// Starts a batch of what has been pushed, waiting for the first sample if its time has not come.
    fn start_next(&mut self, session: &mut Session) -> Result<bool, Error> {
        let Some(first) = self.waiting.front() else { return Ok(false) };
        let pushed_ns = first.pushed_ns;
        let (_, board, _) = parts(session)?;
        if pushed_ns > now_ns(board) {
            board.idle_until(pushed_ns as f64 * 1e-9)?;
        }
        self.stage(session, pushed_ns)?;
        match self.staged.take() {
            Some(batch) => {
                self.tell(session, batch.members.len(), batch.set, false)?;
                self.start(session, batch)?;
                Ok(true)
            }
            None => Ok(false),
        }
    }

    fn start(&mut self, session: &mut Session, batch: Batch) -> Result<(), Error> {
        let (_, board, usage) = parts(session)?;
        board.start()?;
        usage.macs += self.network.macs_per_sample * batch.members.len() as u64;
        self.running = Some(batch);
        Ok(())
    }

    /// Waits for the end of the run, and writes what is pushed meanwhile as it comes; the seconds that the run took.
    fn finish_run(&mut self, session: &mut Session) -> Result<f64, Error> {
        loop {
            self.stage(session, 0)?;
            let (_, board, _) = parts(session)?;
            let full = self.staged.as_ref().is_some_and(|b| b.members.len() >= self.batch_max);
            match self.waiting.front() {
                Some(next) if !full => {
                    if let Some(run_s) = board.wait_until(next.pushed_ns as f64 * 1e-9)? {
                        return Ok(run_s);
                    }
                }
                _ => return board.wait(),
            }
        }
    }

    /// Writes the samples that have been pushed by now (at least up to `until_ns`) into the input buffers that no run uses.
    fn stage(&mut self, session: &mut Session, until_ns: u64) -> Result<(), Error> {
        let (_, board, _) = parts(session)?;
        let until_ns = until_ns.max(now_ns(board));
        // Where the samples of a chip follow each other, one write serves them all.
        let mut writes: BTreeMap<(usize, usize), (usize, Vec<u32>)> = BTreeMap::new();
        while self.waiting.front().is_some_and(|w| w.pushed_ns <= until_ns) {
            let set = self.set;
            let batch = self.staged.get_or_insert_with(|| Batch { set, members: Vec::new() });
            if batch.members.len() >= self.batch_max {
                break;
            }
            let Some(sample) = self.waiting.pop_front() else { break };
            let place = self.deal.place(batch.members.len());
            for (input, (words, buffer)) in sample.words.into_iter().zip(&self.network.inputs[set]).enumerate() {
                let (first, all) = writes.entry((place.replica, input)).or_insert((place.slot, Vec::new()));
                all.resize((place.slot - *first) * stride_words(buffer), 0);
                all.extend(words);
            }
            batch.members.push(Member { sequence: sample.sequence, pushed_ns: sample.pushed_ns });
        }
        for ((replica, input), (slot, words)) in writes {
            let buffer = &self.network.inputs[self.set][input];
            let address = buffer.address + (4 * slot * stride_words(buffer)) as u32;
            board.write(self.network.replicas[replica], address, words)?;
        }
        Ok(())
    }

    /// Writes the run blocks that are other than they were, for a batch of so many samples; the next batch has the other input buffers.
    fn tell(&mut self, session: &mut Session, samples: usize, set: usize, fetch_kept: bool) -> Result<(), Error> {
        let (_, board, _) = parts(session)?;
        for (replica, share) in self.deal.shares(samples).into_iter().enumerate() {
            // A chip without samples looks at no buffer: its block stays the same.
            let set = if share == 0 { 0 } else { set };
            let run =
                Run { program: Program::Predict, samples: 1, set, seed: 0, step: 0, learning_rate: 0.0, fetch_kept };
            let words = run_block::words(&run, 0, share, None);
            if self.blocks[replica] != words {
                board.write(self.network.replicas[replica], self.network.run_block, words.clone())?;
                self.blocks[replica] = words;
            }
        }
        self.set = 1 - set;
        Ok(())
    }

    /// Reads the outputs of a batch that is over.
    fn read(&mut self, session: &mut Session, batch: &Batch) -> Result<(), Error> {
        let (_, board, usage) = parts(session)?;
        let began_s = board.time_s();
        let shares = self.deal.shares(batch.members.len());
        let busy: Vec<usize> = (0..shares.len()).filter(|&replica| shares[replica] > 0).collect();
        let mut places = Vec::new();
        for buffer in &self.network.outputs {
            for &replica in &busy {
                let words = (shares[replica] - 1) * stride_words(buffer) + buffer.words as usize;
                places.push((self.network.replicas[replica], buffer.address, words));
            }
        }
        let found = board.read_many(&places)?;
        usage.phases.read_s += board.time_s() - began_s;
        let answered_ns = now_ns(board);
        for (number, member) in batch.members.iter().enumerate() {
            let place = self.deal.place(number);
            let mut values = Vec::with_capacity(self.network.outputs.len());
            for (output, (buffer, shape)) in self.network.outputs.iter().zip(&self.network.output_shapes).enumerate() {
                let part = busy.binary_search(&place.replica).ok().and_then(|at| found.get(output * busy.len() + at));
                let first = place.slot * stride_words(buffer);
                let words = part.and_then(|words| words.get(first..first + buffer.words as usize)).unwrap_or_default();
                let words: Vec<f32> = words.iter().map(|&w| f32::from_bits(w)).collect();
                values.push(ArrayD::from_shape_vec(IxDyn(shape), words).map_err(|e| {
                    Error::Argument(format!("the machine gave outputs that are not of shape {shape:?}: {e}"))
                })?);
            }
            let Member { sequence, pushed_ns } = *member;
            self.ready.push_back(Output { sequence, values, pushed_ns, answered_ns });
        }
        Ok(())
    }
}
