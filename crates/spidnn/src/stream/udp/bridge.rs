//! Between a stream and the network: samples in, outputs out.

use std::collections::VecDeque;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use spidnn_graph::{Graph, NodeId, Tensor};

use super::assembly::{Assembly, Event, Lost, Rules, Stamp};
use super::intake::{Counters, Intake};
use super::layout::{ASK_AGAIN, command};
use super::sender::{DATAGRAM_BYTES_MAX, Sender, bind, io_error};
use super::{StreamUdp, WINDOW};
use crate::Error;
use crate::stream::{Output, Push, Stream};

/// Datagrams that wait for the stream at most.
const QUEUE_DATAGRAMS: usize = 8192;
/// Datagrams that are taken before the machine goes on.
const DATAGRAMS_AT_ONCE: usize = 1024;
/// How often a listening thread looks whether it is still wanted.
const LISTEN_PAUSE: Duration = Duration::from_millis(20);
/// How long the bridge waits when there is nothing to do.
const IDLE_PAUSE: Duration = Duration::from_millis(1);
/// Lost samples of one piece of news that receivers are told one by one.
const TOLD_MAX: u64 = WINDOW as u64;

/// A datagram of an input.
struct Datagram {
    input: usize,
    from: SocketAddr,
    bytes: Vec<u8>,
}

/// What happens on a bridge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// So many samples from number `first` on were lost on the way in.
    Lost {
        /// The first.
        first: u64,
        /// How many.
        count: u64,
    },
    /// A sample is answered, and its outputs are sent.
    Answered {
        /// Its number, as its sender counts.
        sequence: u64,
        /// Machine time from when it was complete to its answer, ns.
        latency_ns: u64,
    },
}

/// A bridge between the network and a [`Stream`]: see the [module](super).
pub struct Bridge {
    inputs: Vec<UdpSocket>,
    intakes: Vec<Intake>,
    input_shapes: Vec<Vec<usize>>,
    assembly: Assembly,
    outputs: Vec<(usize, Sender)>,
    linger: Duration,
    counters: Counters,
    overrun: Arc<AtomicU64>,
    queue: Receiver<Datagram>,
    over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
    began: Instant,
    /// Senders' numbers of the samples that are under way in the stream.
    under_way: VecDeque<u64>,
}

fn shapes(graph: &Graph, nodes: &[NodeId]) -> Vec<Vec<usize>> {
    nodes.iter().map(|node| graph.nodes[node.0].shape.clone()).collect()
}

impl Bridge {
    /// Opens the sockets of a network's inputs and outputs.
    ///
    /// # Errors
    /// Another number of inputs than the network has, an output that it does not have, a layout that does not serve, an address that
    /// cannot be had.
    pub fn open(graph: &Graph, settings: &StreamUdp) -> Result<Bridge, Error> {
        let input_shapes = shapes(graph, &graph.inputs);
        let output_shapes = shapes(graph, &graph.outputs);
        if settings.inputs.len() != input_shapes.len() {
            return Err(Error::Argument(format!(
                "the network has {} inputs, and {} are to come over UDP: give a listening address for each, in their order",
                input_shapes.len(),
                settings.inputs.len()
            )));
        }
        let elements: Vec<usize> = input_shapes.iter().map(|shape| shape.iter().product()).collect();
        // Inputs with fewer bits say less of a sample's number: the others' are looked at as far as that goes.
        let bits = settings.inputs.iter().map(|input| input.layout.sequence_bits()).min().unwrap_or(32);
        let (mut inputs, mut intakes) = (Vec::new(), Vec::new());
        for (input, &elements) in settings.inputs.iter().zip(&elements) {
            input.layout.check(elements)?;
            inputs.push(bind(input.listen)?);
            intakes.push(Intake::new(input.layout, elements, bits, input.sources.clone()));
        }
        let mut outputs = Vec::new();
        for output in &settings.outputs {
            let shape = output_shapes.get(output.output).ok_or_else(|| {
                Error::Argument(format!("the network has no output {}: it has {}", output.output, output_shapes.len()))
            })?;
            let layout = super::Layout::Keys(output.keys);
            outputs.push((output.output, Sender::new(output.to, layout, shape.iter().product(), 4 * WINDOW)?));
        }
        let rules = Rules { lost: settings.lost, patience: settings.patience, window: WINDOW, sequence_bits: bits };
        let tries = if let Lost::Resend { tries_max } = settings.lost { tries_max.min(1000) } else { 0 };
        let (sender, queue) = sync_channel(QUEUE_DATAGRAMS);
        let mut bridge = Bridge {
            inputs,
            intakes,
            input_shapes,
            assembly: Assembly::new(elements, rules),
            outputs,
            linger: if tries == 0 { Duration::ZERO } else { settings.patience * (tries + 1) },
            counters: Counters::default(),
            overrun: Arc::default(),
            queue,
            over: Arc::default(),
            threads: Vec::new(),
            began: Instant::now(),
            under_way: VecDeque::new(),
        };
        for input in 0..bridge.inputs.len() {
            let thread = bridge.listen(input, sender.clone())?;
            bridge.threads.push(thread);
        }
        Ok(bridge)
    }

    /// Where the inputs are awaited, in the network's order.
    ///
    /// # Errors
    /// If the system does not say.
    pub fn addresses(&self) -> Result<Vec<SocketAddr>, Error> {
        self.inputs.iter().map(|socket| socket.local_addr().map_err(io_error("an input's socket"))).collect()
    }

    /// What has come and gone.
    pub fn counters(&self) -> Counters {
        let resent = self.outputs.iter().map(|(_, sender)| sender.resent()).sum();
        Counters { overrun: self.overrun.load(Ordering::Relaxed), resent, ..self.counters }
    }

    /// A thread that takes datagrams from the system as they come: while the machine works on a batch, the system's own
    /// buffer would soon be full.
    fn listen(&self, input: usize, queue: SyncSender<Datagram>) -> Result<JoinHandle<()>, Error> {
        let failed = io_error("an input's socket");
        let socket = self.inputs[input].try_clone().map_err(&failed)?;
        // The clones share the mode: sending from this socket is rare, and waits for nothing.
        socket.set_nonblocking(false).map_err(&failed)?;
        socket.set_read_timeout(Some(LISTEN_PAUSE)).map_err(&failed)?;
        let (over, overrun) = (Arc::clone(&self.over), Arc::clone(&self.overrun));
        let work = move || {
            let mut buffer = [0; DATAGRAM_BYTES_MAX];
            while !over.load(Ordering::Relaxed) {
                let Ok((bytes, from)) = socket.recv_from(&mut buffer) else { continue };
                let datagram = Datagram { input, from, bytes: buffer.get(..bytes).unwrap_or_default().to_vec() };
                match queue.try_send(datagram) {
                    Ok(()) => {}
                    Err(TrySendError::Full(_)) => drop(overrun.fetch_add(1, Ordering::Relaxed)),
                    Err(TrySendError::Disconnected(_)) => break,
                }
            }
        };
        std::thread::Builder::new().name("spidnn-udp".into()).spawn(work).map_err(io_error("a listening thread"))
    }

    /// Serves until `stop` is set, or `samples_max` samples are answered or lost, or all senders have said that no more come and what came is
    /// answered.
    ///
    /// # Errors
    /// A core that failed, a machine that does not answer, a receiver to which the system cannot send.
    pub fn serve(
        &mut self,
        stream: &mut Stream<'_>,
        samples_max: Option<u64>,
        stop: &AtomicBool,
        mut watch: impl FnMut(News),
    ) -> Result<(), Error> {
        while !stop.load(Ordering::Relaxed) {
            let taken = self.take_datagrams();
            let moved = self.feed(stream, samples_max, &mut watch)?;
            self.outputs.iter_mut().try_for_each(|(_, sender)| sender.answer())?;
            if let Some(output) = stream.pop()? {
                self.give(&output, &mut watch)?;
                continue;
            }
            let ended = self.intakes.iter().all(|intake| intake.ended) && self.assembly.is_empty();
            if samples_max.is_some_and(|max| self.assembly.next() >= max) || (ended && !moved && !taken) {
                return self.part(stop);
            }
            if !moved && !taken {
                self.wait();
            }
        }
        Ok(())
    }

    fn take_datagrams(&mut self) -> bool {
        let mut count = 0;
        while count < DATAGRAMS_AT_ONCE
            && let Ok(datagram) = self.queue.try_recv()
        {
            self.take(&datagram);
            count += 1;
        }
        count > 0
    }

    fn take(&mut self, datagram: &Datagram) {
        let now = self.began.elapsed();
        if let Some(intake) = self.intakes.get_mut(datagram.input) {
            let assembly = (&mut self.assembly, datagram.input);
            intake.take((datagram.from, &datagram.bytes), assembly, &mut self.counters, now);
        }
    }

    /// Waits a moment for a datagram.
    fn wait(&mut self) {
        if let Ok(datagram) = self.queue.recv_timeout(IDLE_PAUSE) {
            self.take(&datagram);
        }
    }

    /// Pushes the samples that are complete, tells what is lost, asks for what is missing; whether there was something.
    fn feed(
        &mut self,
        stream: &mut Stream<'_>,
        samples_max: Option<u64>,
        watch: &mut impl FnMut(News),
    ) -> Result<bool, Error> {
        let left = samples_max.map_or(u64::MAX, |max| max.saturating_sub(self.assembly.next()));
        let room = stream.room().min(usize::try_from(left).unwrap_or(usize::MAX));
        let events = self.assembly.poll(self.began.elapsed(), room);
        let moved = !events.is_empty();
        for event in events {
            match event {
                Event::Sample { sequence, values, .. } => self.push(stream, sequence, values)?,
                Event::Lost { first, count } => {
                    self.counters.lost_samples += count;
                    for sequence in first + count - count.min(TOLD_MAX)..first + count {
                        self.outputs.iter_mut().try_for_each(|(_, sender)| sender.gone(sequence))?;
                    }
                    watch(News::Lost { first, count });
                }
                Event::Ask { input, sequence, first, count } => self.ask(input, sequence, first, count),
            }
        }
        Ok(moved)
    }

    fn push(&mut self, stream: &mut Stream<'_>, sequence: u64, values: Vec<Vec<f32>>) -> Result<(), Error> {
        let tensors = values.into_iter().zip(&self.input_shapes).map(|(values, shape)| {
            Tensor::from_shape_vec(&shape[..], values)
                .map_err(|e| Error::Argument(format!("a sample of UDP is not of shape {shape:?}: {e}")))
        });
        match stream.push(tensors.collect::<Result<_, _>>()?)? {
            Push::Accepted(_) => self.under_way.push_back(sequence),
            // No more samples were taken than there was room for.
            Push::Full(_) => return Err(Error::Argument("the stream takes fewer samples than it had room for".into())),
        }
        Ok(())
    }

    fn ask(&mut self, input: usize, sequence: u64, first: u32, count: u32) {
        let (Some(intake), Some(socket)) = (self.intakes.get(input), self.inputs.get(input)) else { return };
        let Some(source) = intake.source else { return };
        let wire = intake.layout.wire(sequence);
        self.counters.asked += 1;
        // A request that does not go out is repeated like one that is lost.
        let _ = socket.send_to(&command(ASK_AGAIN, &[wire, first, count]), source);
    }

    /// Sends a sample's outputs to their receivers.
    fn give(&mut self, output: &Output, watch: &mut impl FnMut(News)) -> Result<(), Error> {
        let Some(sequence) = self.under_way.pop_front() else { return Ok(()) };
        let us = |ns: u64| (ns / 1000) as u32;
        let stamp = Stamp { answered_us: us(output.answered_ns), pushed_us: us(output.pushed_ns) };
        for (number, sender) in &mut self.outputs {
            let values: Vec<f32> = output.values.get(*number).into_iter().flatten().copied().collect();
            sender.send_as(sequence, &values, Some(stamp))?;
        }
        watch(News::Answered { sequence, latency_ns: output.answered_ns.saturating_sub(output.pushed_ns) });
        Ok(())
    }

    /// Says to the receivers that no more comes, and stays a while for what they ask for.
    fn part(&mut self, stop: &AtomicBool) -> Result<(), Error> {
        self.outputs.iter_mut().try_for_each(|(_, sender)| sender.end())?;
        let until = Instant::now() + self.linger;
        while Instant::now() < until && !stop.load(Ordering::Relaxed) {
            self.outputs.iter_mut().try_for_each(|(_, sender)| sender.answer())?;
            std::thread::sleep(IDLE_PAUSE);
        }
        Ok(())
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // A thread that panicked has nothing more to say.
            let _ = thread.join();
        }
    }
}
