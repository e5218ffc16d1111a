//! The receiving end of a stream's outputs.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use super::assembly::{Assembly, Event, Lost, Rules, Stamp};
use super::intake::{Counters, Intake};
use super::layout::{ASK_AGAIN, Keys, Layout, command};
use super::sender::{DATAGRAM_BYTES_MAX, bind, io_error};
use crate::Error;

/// Pause between looks at the socket.
const PAUSE: Duration = Duration::from_micros(500);

/// What a receiver got.
#[derive(Debug, Clone, PartialEq)]
pub enum Received {
    /// An output.
    Sample {
        /// Number of the input that it answers.
        sequence: u64,
        /// Its values, row-major.
        values: Vec<f32>,
        /// When it was pushed and answered, unless that datagram was lost.
        stamp: Option<Stamp>,
    },
    /// So many outputs from number `first` on do not come: they were lost here, or their inputs were on the other side.
    Lost {
        /// The first.
        first: u64,
        /// How many.
        count: u64,
    },
    /// No more come.
    End,
}

/// Receives the outputs that a [`Bridge`](super::Bridge) sends, in order.
pub struct Receiver {
    socket: UdpSocket,
    intake: Intake,
    assembly: Assembly,
    counters: Counters,
    events: std::collections::VecDeque<Received>,
    began: Instant,
}

impl Receiver {
    /// Listens at an address for outputs of so many elements. `sources` may send; with none, whoever sends the first that can be used.
    ///
    /// # Errors
    /// Keys that do not serve so many elements; an address that cannot be had.
    pub fn new(
        listen: SocketAddr,
        keys: Keys,
        elements: usize,
        sources: Vec<IpAddr>,
        lost: Lost,
        patience: Duration,
    ) -> Result<Receiver, Error> {
        let layout = Layout::Keys(keys);
        layout.check(elements)?;
        let rules = Rules { lost, patience, window: super::WINDOW, sequence_bits: layout.sequence_bits() };
        Ok(Receiver {
            socket: bind(listen)?,
            intake: Intake::new(layout, elements, layout.sequence_bits(), sources),
            assembly: Assembly::new(vec![elements], rules),
            counters: Counters::default(),
            events: Default::default(),
            began: Instant::now(),
        })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// If the system does not say.
    pub fn address(&self) -> Result<SocketAddr, Error> {
        self.socket.local_addr().map_err(io_error("the receiver's socket"))
    }

    /// What has come.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// The next output, or that it is lost, or the end; `None` if nothing comes in time.
    pub fn receive(&mut self, timeout: Duration) -> Option<Received> {
        let deadline = Instant::now() + timeout;
        loop {
            self.look();
            if let Some(event) = self.events.pop_front() {
                return Some(event);
            }
            if self.intake.ended && self.assembly.is_empty() {
                return Some(Received::End);
            }
            if Instant::now() >= deadline {
                return None;
            }
            std::thread::sleep(PAUSE);
        }
    }

    fn look(&mut self) {
        let now = self.began.elapsed();
        let mut buffer = [0; DATAGRAM_BYTES_MAX];
        while let Ok((bytes, from)) = self.socket.recv_from(&mut buffer) {
            let datagram = (from, buffer.get(..bytes).unwrap_or_default());
            self.intake.take(datagram, (&mut self.assembly, 0), &mut self.counters, now);
            if self.counters.received.is_multiple_of(1024) {
                break;
            }
        }
        for event in self.assembly.poll(now, usize::MAX) {
            match event {
                Event::Sample { sequence, values, stamp } => {
                    let values = values.into_iter().next().unwrap_or_default();
                    self.events.push_back(Received::Sample { sequence, values, stamp });
                }
                Event::Lost { first, count } => {
                    self.counters.lost_samples += count;
                    self.events.push_back(Received::Lost { first, count });
                }
                Event::Ask { sequence, first, count, .. } => {
                    if let Some(source) = self.intake.source {
                        self.counters.asked += 1;
                        let wire = self.intake.layout.wire(sequence);
                        // A request that does not go out is repeated like one that is lost.
                        let _ = self.socket.send_to(&command(ASK_AGAIN, &[wire, first, count]), source);
                    }
                }
            }
        }
    }
}
