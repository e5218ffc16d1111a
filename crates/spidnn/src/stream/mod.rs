//! Live streams: inputs go in as they come, outputs come out in their order, while the machine runs.
//!
//! [`Session::stream`] gives a [`Stream`]: [`Stream::push`] takes a sample, or hands it back when as many are under way as may be;
//! [`Stream::pop`] gives the next output. The machine works in batches, each of what has been pushed by the time that it starts: a lone
//! sample has the latency of one sample, a full queue the throughput of the link to the host. The numbers are those of
//! [`Session::predict`], bit for bit. [`Session::stream_over`] is the same over an iterator; a [`Stream`] is a `Stream` and a `Sink` of
//! the `futures` crates, too; [`udp`] connects it with the network.
//!
//! ```
//! use spidnn::stream::{Push, StreamOptions};
//! use spidnn::{Activation, Dense, Input, Machine, OnMachine, Sequential, Tensor};
//!
//! let graph = Sequential::new(Input::shape([3])).with(Dense::new(2).activation(Activation::Tanh)).build()?;
//! let mut session = graph.on(Machine::open("virtual:spin3")?)?;
//! let mut stream = session.stream(StreamOptions::default())?;
//! for i in 0..5 {
//!     let sample = Tensor::from_elem(vec![3], i as f32);
//!     assert!(matches!(stream.push(vec![sample])?, Push::Accepted(sequence) if sequence == i));
//! }
//! while let Some(output) = stream.pop()? {
//!     println!("{}: {} after {:.2} ms", output.sequence, output.values[0], output.latency_s() * 1e3);
//! #   assert!(output.values[0].shape() == [2] && output.latency_s() < 0.1);
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A core that fails ends the stream with its error; the session loads anew for its next call, without the cores that have died where the
//! machine tells. A stream that is dropped waits for the batch that runs, and forgets the rest.

mod deal;
mod engine;
mod futures;
mod summary;
pub mod udp;

use std::task::Waker;

use ndarray::Axis;
use spidnn_graph::Tensor;

use crate::{Dataset, Error, Session};
use engine::Engine;
pub use summary::Summary;

/// Samples that a chip takes at a time in a program that is compiled for a stream: one sample on each chip would spend a fifth of the
/// link on telling chips and asking them.
const SAMPLES_PER_CHIP: usize = 4;

/// What a stream is to be like.
#[derive(Debug, Clone, Default)]
pub struct StreamOptions {
    /// Samples under way at most: pushed, and their outputs not yet taken. `None` for two batches of as many as keep both the link and the
    /// cores busy. The longest latency is about the time that the link needs for so many.
    pub capacity: Option<usize>,
    /// Samples of a batch at most; `None` for half of the capacity, so that one batch is written while another runs.
    pub batch_max: Option<usize>,
    /// Samples that a chip takes at a time; a program is loaded for it where another is there. `None` for the program that is there.
    pub samples_per_chip: Option<usize>,
}

impl StreamOptions {
    /// Samples under way at most (at least 1).
    pub fn capacity(mut self, samples: usize) -> Self {
        self.capacity = Some(samples);
        self
    }

    /// Samples of a batch at most (at least 1).
    pub fn batch_max(mut self, samples: usize) -> Self {
        self.batch_max = Some(samples);
        self
    }

    /// Samples that a chip takes at a time (at least 1).
    pub fn samples_per_chip(mut self, samples: usize) -> Self {
        self.samples_per_chip = Some(samples);
        self
    }
}

/// What became of a sample that was pushed.
#[derive(Debug, Clone, PartialEq)]
#[must_use]
pub enum Push {
    /// It is in the queue, and has this number; numbers count from 0.
    Accepted(u64),
    /// As many samples are under way as may be: here it is back. [`Stream::pop`] makes room.
    Full(Vec<Tensor>),
}

/// What the network says to a sample.
#[derive(Debug, Clone, PartialEq)]
pub struct Output {
    /// The sample's number in its stream, from 0.
    pub sequence: u64,
    /// One tensor for each output of the network, without a sample axis.
    pub values: Vec<Tensor>,
    /// Machine time at which the sample was pushed, ns.
    pub pushed_ns: u64,
    /// Machine time at which the host had the outputs, ns.
    pub answered_ns: u64,
}

impl Output {
    /// Machine time from the push to the answer, in seconds.
    pub fn latency_s(&self) -> f64 {
        self.answered_ns.saturating_sub(self.pushed_ns) as f64 * 1e-9
    }
}

/// A stream of samples through a network: see the [module](self).
pub struct Stream<'s> {
    session: &'s mut Session,
    engine: Engine,
    capacity: usize,
    /// An error has ended it.
    failed: bool,
    /// No more inputs come (of the `Sink`).
    closed: bool,
    /// Who waits for room in the queue, and who for an output.
    sender: Option<Waker>,
    receiver: Option<Waker>,
}

impl Session {
    /// Opens a stream. A program is loaded if there is none, or not one with [`StreamOptions::samples_per_chip`] where that is given.
    ///
    /// # Errors
    /// A model that does not fit the machine; format `int8` without ranges ([`Session::calibrate`]); a core that failed.
    pub fn stream(&mut self, options: StreamOptions) -> Result<Stream<'_>, Error> {
        self.ensure_stream(options.samples_per_chip.map(|samples| samples.max(1)), SAMPLES_PER_CHIP)?;
        let mut engine = Engine::new(self).inspect_err(|_| self.give_up_cores())?;
        let batch = options.batch_max.unwrap_or(engine.samples_balanced());
        let capacity = options.capacity.unwrap_or(batch.saturating_mul(2)).max(1);
        engine.limit_batch(options.batch_max.unwrap_or(capacity.div_ceil(2)));
        Ok(Stream { session: self, engine, capacity, failed: false, closed: false, sender: None, receiver: None })
    }

    /// Streams what an iterator gives: its outputs, in order. Inputs are taken no sooner than there is room for them.
    ///
    /// # Errors
    /// As [`Session::stream`].
    pub fn stream_over<I>(&mut self, inputs: I, options: StreamOptions) -> Result<StreamOver<'_, I::IntoIter>, Error>
    where
        I: IntoIterator<Item = Vec<Tensor>>,
    {
        Ok(StreamOver { stream: self.stream(options)?, inputs: inputs.into_iter().fuse(), held: None, over: false })
    }
}

impl Stream<'_> {
    /// Pushes a sample: one tensor for each input of the network, without a sample axis. It counts as pushed at the machine's present
    /// time.
    ///
    /// # Errors
    /// A sample that does not fit the network (the stream goes on); a stream that an error has ended.
    pub fn push(&mut self, inputs: Vec<Tensor>) -> Result<Push, Error> {
        self.push_at(inputs, 0.0)
    }

    /// Pushes a sample that comes at a machine time (seconds, as [`Usage::machine_time_s`](crate::Usage::machine_time_s) counts), now or
    /// in the future, but not before the one pushed last: no batch that starts earlier will have it. For what-if runs on a virtual machine,
    /// whose time stands still while the host works.
    ///
    /// # Errors
    /// As [`Stream::push`].
    pub fn push_at(&mut self, inputs: Vec<Tensor>, time_s: f64) -> Result<Push, Error> {
        if self.failed {
            return Err(Error::Argument("an error has ended this stream: open another".into()));
        }
        if self.engine.under_way() >= self.capacity {
            return Ok(Push::Full(inputs));
        }
        let inputs = self.check(inputs)?;
        let time_s = self.machine_time_s().max(time_s);
        Ok(Push::Accepted(self.engine.push(&inputs, (time_s * 1e9).round() as u64)))
    }

    /// The next output, in the order of the samples; `None` if all that was pushed is answered. Waits for the machine where it has to:
    /// for the batch that runs, no longer.
    ///
    /// # Errors
    /// A core that failed, a machine that does not answer: the stream is over then.
    pub fn pop(&mut self) -> Result<Option<Output>, Error> {
        loop {
            if let Some(output) = self.engine.take() {
                self.wake_sender();
                return Ok(Some(output));
            }
            if self.failed || !self.step()? {
                return Ok(None);
            }
        }
    }

    /// The outputs of all that was pushed and not yet answered.
    ///
    /// # Errors
    /// As [`Stream::pop`].
    pub fn finish(mut self) -> Result<Vec<Output>, Error> {
        std::iter::from_fn(|| self.pop().transpose()).collect()
    }

    /// Samples that can be pushed now.
    pub fn room(&self) -> usize {
        self.capacity.saturating_sub(self.engine.under_way())
    }

    /// Whether all that was pushed is answered, and every output taken.
    pub fn is_idle(&self) -> bool {
        self.engine.under_way() == 0
    }

    /// Machine time, in seconds.
    pub fn machine_time_s(&self) -> f64 {
        self.session.machine().board().time_s()
    }

    /// The session that the stream belongs to.
    pub fn session(&self) -> &Session {
        self.session
    }

    /// A sample's tensors, in shape and row-major.
    fn check(&self, inputs: Vec<Tensor>) -> Result<Vec<Tensor>, Error> {
        let inputs = inputs.into_iter().map(|tensor| tensor.insert_axis(Axis(0))).collect();
        let data = Dataset { name: "the sample".into(), ..Dataset::inputs(inputs) };
        Ok(data.check_inputs(self.session.graph())?.inputs)
    }

    /// Lets the machine work on one batch; false if there is nothing to do.
    fn step(&mut self) -> Result<bool, Error> {
        let stepped = self.engine.step(self.session);
        if stepped.is_err() {
            self.failed = true;
            self.session.give_up_cores();
        }
        stepped
    }

    fn wake_sender(&mut self) {
        self.sender.take().into_iter().for_each(Waker::wake);
    }

    fn wake_receiver(&mut self) {
        self.receiver.take().into_iter().for_each(Waker::wake);
    }
}

impl Drop for Stream<'_> {
    fn drop(&mut self) {
        if !self.failed && self.engine.cancel(self.session).is_err() {
            self.session.give_up_cores();
        }
        self.wake_sender();
        self.wake_receiver();
    }
}

/// The outputs of a stream over an iterator's inputs: see [`Session::stream_over`].
pub struct StreamOver<'s, I> {
    stream: Stream<'s>,
    inputs: std::iter::Fuse<I>,
    /// An input for which there was no room.
    held: Option<Vec<Tensor>>,
    over: bool,
}

impl<I: Iterator<Item = Vec<Tensor>>> StreamOver<'_, I> {
    fn advance(&mut self) -> Result<Option<Output>, Error> {
        while self.stream.room() > 0 {
            let Some(sample) = self.held.take().or_else(|| self.inputs.next()) else { break };
            if let Push::Full(sample) = self.stream.push(sample)? {
                self.held = Some(sample);
                break;
            }
        }
        self.stream.pop()
    }
}

impl<I: Iterator<Item = Vec<Tensor>>> Iterator for StreamOver<'_, I> {
    type Item = Result<Output, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.over {
            return None;
        }
        let next = self.advance().transpose();
        self.over = !matches!(next, Some(Ok(_)));
        next
    }
}

/// The samples of a data set, one by one, as a stream takes them.
pub fn samples(data: &Dataset) -> impl Iterator<Item = Vec<Tensor>> + '_ {
    (0..data.len()).map(|sample| data.inputs.iter().map(|x| x.index_axis(Axis(0), sample).to_owned()).collect())
}
