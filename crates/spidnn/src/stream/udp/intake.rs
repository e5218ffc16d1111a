//! Who may send, and what comes of what is sent: from datagrams to an assembly.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::assembly::{Assembly, Stamp, Verdict};
use super::layout::{Fault, Layout, Message, Value};

/// What has come over UDP, in datagrams unless said otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// All that came.
    pub received: u64,
    /// Of senders that are not ours: ignored.
    pub strangers: u64,
    /// With keys, tags or commands that are not ours: ignored.
    pub foreign: u64,
    /// That could not be read, or had values that are not finite: ignored.
    pub malformed: u64,
    /// With sequence numbers that could not come then: ignored.
    pub out_of_window: u64,
    /// With something that was there already.
    pub duplicates: u64,
    /// For which there was no room in the host's queue: lost.
    pub overrun: u64,
    /// Samples that were given up.
    pub lost_samples: u64,
    /// Requests to send something again that went out.
    pub asked: u64,
    /// Requests to send something again that were answered.
    pub resent: u64,
}

/// The way in of one input.
pub(super) struct Intake {
    pub layout: Layout,
    pub elements: usize,
    /// Bits of the sequence numbers that all inputs have.
    pub sequence_mask: u32,
    /// Addresses that may send; with none, whoever sends the first that can be used.
    pub sources: Vec<IpAddr>,
    /// Who sent last, and is asked for what is missing.
    pub source: Option<SocketAddr>,
    /// The sender has said that no more samples come.
    pub ended: bool,
}

impl Intake {
    pub fn new(layout: Layout, elements: usize, sequence_bits: u32, sources: Vec<IpAddr>) -> Intake {
        let sequence_mask = u32::MAX >> (32 - sequence_bits.clamp(1, 32));
        Intake { layout, elements, sequence_mask, sources, source: None, ended: false }
    }

    fn is_ours(&self, from: SocketAddr) -> bool {
        if self.sources.is_empty() {
            self.source.is_none_or(|source| source == from)
        } else {
            self.sources.contains(&from.ip())
        }
    }

    /// Takes a datagram of input number `input` of an assembly.
    pub fn take(
        &mut self,
        (from, bytes): (SocketAddr, &[u8]),
        (assembly, input): (&mut Assembly, usize),
        counters: &mut Counters,
        now: Duration,
    ) {
        counters.received += 1;
        if !self.is_ours(from) {
            counters.strangers += 1;
            return;
        }
        let message = match self.layout.read(bytes, self.elements) {
            Ok(message) => message,
            Err(Fault::Foreign) => {
                counters.foreign += 1;
                return;
            }
            Err(Fault::Malformed) => {
                counters.malformed += 1;
                return;
            }
        };
        let mask = self.sequence_mask;
        let verdict = match message {
            Message::Values(values) => take_values(&values, mask, (assembly, input), now),
            Message::Stamp { sequence, answered_us, pushed_us } => {
                assembly.stamp(sequence & mask, Stamp { answered_us, pushed_us }, now)
            }
            Message::Gone { sequence } => assembly.gone(sequence & mask, now),
            Message::End { next } => {
                let verdict = next.map_or(Verdict::Accepted, |next| assembly.ends_before(next & mask, now));
                // Whoever has sent nothing yet cannot end it, unless it is a sender that was named.
                self.ended |= verdict == Verdict::Accepted && (self.source.is_some() || !self.sources.is_empty());
                verdict
            }
            Message::Again { .. } => {
                counters.foreign += 1;
                return;
            }
        };
        match verdict {
            Verdict::Accepted => self.source = Some(from),
            Verdict::Duplicate => counters.duplicates += 1,
            Verdict::OutOfWindow => counters.out_of_window += 1,
        }
    }
}

/// Takes the values of a datagram, up to one that cannot come now.
fn take_values(values: &[Value], mask: u32, (assembly, input): (&mut Assembly, usize), now: Duration) -> Verdict {
    let mut worst = Verdict::Accepted;
    for v in values {
        let sequence = v.sequence & mask;
        match assembly.value(input, sequence, v.element as usize, v.value, now) {
            Verdict::Accepted => {}
            Verdict::Duplicate => worst = Verdict::Duplicate,
            Verdict::OutOfWindow => {
                assembly.beyond(sequence, now);
                return Verdict::OutOfWindow;
            }
        }
    }
    worst
}
