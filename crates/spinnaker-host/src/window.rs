//! SCP with several requests in flight, as a plain state machine: no socket, no clock.
//!
//! The owner gives it time and datagrams, sends what [`Window::poll_transmit`] hands out and waits no longer than
//! [`Window::deadline`]. Requests end in [`Event`]s, in any order.
//!
//! A request is sent again, with its sequence number, after a time that follows the replies' (smoothed round trip and four
//! deviations, doubled with every repeat), and after a return code that may pass. A reply counts once: later ones, and those
//! of other sequence numbers or from other cores, are counted and dropped.
//!
//! What a repeat leaves behind on the way is remembered for a while: see [`Window::held_until`].

use std::collections::VecDeque;
use std::time::Duration;

use spinnaker_wire::scp::{self, AllocCommand, Command, CommandCode, ReturnCode};
use spinnaker_wire::sdp::{self, Endpoint};
use spinnaker_wire::{ChipAddress, CorePort, WireError};

mod strays;

use strays::{Strays, Touch};

/// Times and bounds of a [`Window`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WindowConfig {
    /// Requests in flight at most. A board drops what exceeds its eight transient tags. It frees one a moment after the reply is out, so
    /// that a host that is quick to send the next would lose some with eight.
    pub requests_max: usize,
    /// The wait for a reply before any has come.
    pub timeout_first: Duration,
    /// The shortest wait.
    pub timeout_min: Duration,
    /// The longest wait.
    pub timeout_max: Duration,
    /// A request has failed when the board has said nothing at all for so long since then.
    pub give_up_after: Duration,
    /// A request that has been waited for so long has failed, whatever else the board answers: its chip may be slow to reach, not its Ethernet.
    pub give_up_chip_after: Duration,
    /// The pause before a request is sent again because of its return code.
    pub retry_pause: Duration,
    /// For how long a datagram may be under way. A request that changes something waits so long for the late copies of an earlier
    /// one that was repeated and has changed the same.
    pub datagram_life: Duration,
}

impl Default for WindowConfig {
    fn default() -> Self {
        Self {
            requests_max: 6,
            timeout_first: Duration::from_millis(500),
            timeout_min: Duration::from_millis(20),
            timeout_max: Duration::from_millis(1000),
            give_up_after: Duration::from_millis(4400),
            give_up_chip_after: Duration::from_secs(20),
            retry_pause: Duration::from_millis(100),
            datagram_life: Duration::from_millis(250),
        }
    }
}

/// What is known of the traffic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WindowCounts {
    /// Datagrams sent, repeats included.
    pub sent: u64,
    /// Of these, repeats.
    pub repeated: u64,
    /// Replies that ended a request.
    pub answered: u64,
    /// Datagrams that belong to no request: late, doubled, from others, or no SCP.
    pub dropped: u64,
}

/// The end of a request.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// A reply; its code may be an error that does not pass.
    Reply {
        /// What the owner called the request.
        token: u64,
        /// The return code.
        code: ReturnCode,
        /// What follows it.
        payload: Vec<u8>,
    },
    /// No reply in time.
    Silent {
        /// What the owner called the request.
        token: u64,
        /// The command.
        command: CommandCode,
        /// To whom it went.
        destination: Endpoint,
        /// How often it was sent.
        tries: u32,
        /// Since its first sending.
        waited: Duration,
    },
}

struct Pending {
    token: u64,
    seq: u16,
    command: CommandCode,
    destination: Endpoint,
    datagram: Vec<u8>,
    /// What it changes.
    touch: Touch,
    /// Whether it may be executed twice.
    repeatable: bool,
    /// This command's own least wait.
    wait_min: Duration,
    tries: u32,
    /// Replies that have come, one for each sending at most.
    replies: u32,
    first_sent: Duration,
    last_sent: Duration,
    /// When it is to be sent again, or given up.
    due: Duration,
    /// The last return code, if that is why it is to be sent again.
    code: Option<ReturnCode>,
}

/// See the module.
pub struct Window {
    config: WindowConfig,
    next_seq: u16,
    pending: Vec<Pending>,
    /// Indices into `pending` have to be sent; by sequence number, since indices move.
    to_send: VecDeque<u16>,
    round_trip: Option<RoundTrip>,
    /// When the board last answered something.
    heard: Duration,
    strays: Strays,
    counts: WindowCounts,
}

/// What [`Window::probe`] calls its request.
const PROBE: u64 = u64::MAX;

#[derive(Clone, Copy)]
struct RoundTrip {
    smoothed: Duration,
    deviation: Duration,
}

impl Window {
    /// A window without requests; `seq` is the first sequence number, best another one in every process.
    pub fn new(config: WindowConfig, seq: u16) -> Self {
        Self {
            config,
            next_seq: seq,
            pending: Vec::new(),
            to_send: VecDeque::new(),
            round_trip: None,
            heard: Duration::ZERO,
            strays: Strays::default(),
            counts: WindowCounts::default(),
        }
    }

    /// Whether another request may be submitted.
    pub fn has_room(&self) -> bool {
        self.pending.len() < self.config.requests_max.max(1)
    }

    /// Until when a request has to wait with [`Window::submit`] because late copies of another may still spoil what it does;
    /// `None`: not at all.
    pub fn held_until(&mut self, now: Duration, destination: Endpoint, command: &Command<'_>) -> Option<Duration> {
        self.strays.until(now, Touch::of(destination, command))
    }

    /// Whether no request is under way.
    pub fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    /// What is known of the traffic.
    pub fn counts(&self) -> WindowCounts {
        self.counts
    }

    /// Puts a request on its way. `token` comes back with its end.
    ///
    /// # Errors
    /// [`WireError`] for a command that cannot be written.
    pub fn submit(
        &mut self,
        now: Duration,
        destination: Endpoint,
        command: &Command<'_>,
        token: u64,
    ) -> Result<(), WireError> {
        let seq = self.free_seq();
        let mut datagram = vec![0; sdp::UDP_BYTES_MAX];
        let header = sdp::Repr::request(destination);
        let length = scp::emit_udp_request(&header, &scp::Request { seq, command: *command }, &mut datagram)?;
        datagram.truncate(length);
        self.next_seq = seq.wrapping_add(1);
        self.to_send.push_back(seq);
        self.pending.push(Pending {
            token,
            seq,
            command: command.code(),
            destination,
            datagram,
            touch: Touch::of(destination, command),
            repeatable: is_repeatable(command),
            wait_min: wait_min(command),
            tries: 0,
            replies: 0,
            first_sent: now,
            last_sent: now,
            due: Duration::MAX,
            code: None,
        });
        Ok(())
    }

    /// Asks the board itself for a sign of life, if its other chips have been silent for long. The event's token is of no request.
    ///
    /// # Errors
    /// As [`Window::submit`].
    pub fn probe(&mut self, now: Duration) -> Result<(), WireError> {
        let quiet = |p: &Pending| now.saturating_sub(p.first_sent.max(self.heard)) >= self.config.give_up_after / 4;
        let is_due = self.pending.iter().any(|p| p.destination.chip != ChipAddress::ROOT && quiet(p));
        if is_due && self.pending.iter().all(|p| p.token != PROBE) {
            self.submit(now, Endpoint::core(ChipAddress::ROOT, 0), &Command::Version, PROBE)?;
        }
        Ok(())
    }

    fn free_seq(&self) -> u16 {
        let mut seq = self.next_seq;
        while self.pending.iter().any(|p| p.seq == seq) {
            seq = seq.wrapping_add(1);
        }
        seq
    }

    /// The next datagram that is to be sent at once; the owner sends until there is none.
    pub fn poll_transmit(&mut self, now: Duration) -> Option<&[u8]> {
        let seq = self.to_send.pop_front()?;
        let timeout = self.timeout();
        // One way and back.
        let once = self.config.datagram_life * 2;
        let pending = self.pending.iter_mut().find(|p| p.seq == seq)?;
        pending.tries += 1;
        pending.code = None;
        pending.last_sent = now;
        if pending.tries == 1 {
            pending.first_sent = now;
        } else {
            self.counts.repeated += 1;
        }
        self.counts.sent += 1;
        let backed_off = timeout.saturating_mul(1 << (pending.tries - 1).min(6)).min(self.config.timeout_max);
        let wait = if pending.repeatable { backed_off.max(pending.wait_min) } else { once.max(pending.wait_min) };
        pending.due = now + wait;
        Some(&pending.datagram)
    }

    fn timeout(&self) -> Duration {
        let timeout = match self.round_trip {
            None => self.config.timeout_first,
            Some(RoundTrip { smoothed, deviation }) => smoothed + deviation * 4,
        };
        timeout.clamp(self.config.timeout_min, self.config.timeout_max)
    }

    /// Up to when the owner may wait for a datagram; `None` if nothing is under way.
    pub fn deadline(&self) -> Option<Duration> {
        self.pending.iter().map(|p| p.due).min()
    }

    /// What time does: requests without a reply are sent again, or end.
    pub fn on_time(&mut self, now: Duration) -> Option<Event> {
        let index = self.pending.iter().position(|p| p.due <= now)?;
        let pending = &mut self.pending[index];
        let limit = self.config.give_up_after.max(pending.wait_min * 2);
        let waited = now.saturating_sub(pending.first_sent);
        // A code that should have passed by now is an answer, if not the one that is wanted.
        let silent = if pending.code.is_some() { waited } else { waited.min(now.saturating_sub(self.heard)) };
        let over = silent >= limit || waited >= self.config.give_up_chip_after.max(limit);
        if pending.repeatable && !over {
            pending.due = Duration::MAX;
            self.to_send.push_back(pending.seq);
            return self.on_time(now);
        }
        let pending = self.remove(index);
        Some(match pending.code {
            Some(code) => Event::Reply { token: pending.token, code, payload: Vec::new() },
            None => Event::Silent {
                token: pending.token,
                command: pending.command,
                destination: pending.destination,
                tries: pending.tries,
                waited: now.saturating_sub(pending.first_sent),
            },
        })
    }

    /// What a datagram does: a reply ends its request, all else is dropped.
    pub fn on_datagram(&mut self, now: Duration, datagram: &[u8]) -> Option<Event> {
        let event = self.accept(now, datagram);
        if event.is_none() {
            self.counts.dropped += 1;
        }
        event.flatten()
    }

    /// `None`: belongs to no request. `Some(None)`: a reply after which the request is to be sent again.
    fn accept(&mut self, now: Duration, datagram: &[u8]) -> Option<Option<Event>> {
        let packet = sdp::Packet::from_udp(datagram).ok()?;
        let reply = scp::Packet::new_checked(packet.body).ok()?;
        let source = packet.repr().source;
        let index = self.pending.iter().position(|p| p.seq == reply.seq() && p.tries > 0)?;
        let pending = &mut self.pending[index];
        if !answers(pending.destination, source) {
            return None;
        }
        self.heard = now;
        let code = reply.return_code();
        if code.is_retriable() && pending.repeatable {
            if pending.code.is_none() {
                pending.replies += 1;
                pending.code = Some(code);
                pending.due = now + self.config.retry_pause;
                self.to_send.retain(|seq| *seq != reply.seq());
            }
            return Some(None);
        }
        pending.replies += 1;
        let pending = self.remove(index);
        // A reply to a repeated request tells nothing about the way's time.
        if pending.tries == 1 && pending.wait_min.is_zero() {
            self.measure(now.saturating_sub(pending.last_sent));
        }
        self.counts.answered += 1;
        Some(Some(Event::Reply { token: pending.token, code, payload: reply.payload.to_vec() }))
    }

    fn measure(&mut self, time: Duration) {
        self.round_trip = Some(match self.round_trip {
            None => RoundTrip { smoothed: time, deviation: time / 2 },
            Some(RoundTrip { smoothed, deviation }) => RoundTrip {
                smoothed: (smoothed * 7 + time) / 8,
                deviation: (deviation * 3 + smoothed.abs_diff(time)) / 4,
            },
        });
    }

    /// Takes a request out that is over.
    fn remove(&mut self, index: usize) -> Pending {
        let pending = self.pending.swap_remove(index);
        self.to_send.retain(|seq| *seq != pending.seq);
        self.strays.note(&pending, self.config.datagram_life);
        pending
    }

    /// Forgets all requests; replies to them will be dropped.
    pub fn abandon(&mut self) {
        for pending in self.pending.drain(..) {
            self.strays.note(&pending, self.config.datagram_life);
        }
        self.to_send.clear();
    }
}

/// Whether a message from `source` may be the answer of `destination`: the root chip answers by its own address, and an
/// error before the command is looked at may come from the chip on the way, with the addresses exchanged.
fn answers(destination: Endpoint, source: Endpoint) -> bool {
    let chip = destination.chip == ChipAddress::ROOT || destination.chip == source.chip;
    chip && CorePort(source.port.0).core() == destination.port.core()
}

/// Whether a second execution does no harm. Starts of applications would start them twice, routing entries would be taken twice.
fn is_repeatable(command: &Command<'_>) -> bool {
    !matches!(
        command,
        Command::ApplicationRun(_)
            | Command::ApplicationStart { .. }
            | Command::ApplicationCopyRun { .. }
            | Command::Alloc(AllocCommand::Routes { .. })
    )
}

/// Commands that take longer than a round trip by their nature.
fn wait_min(command: &Command<'_>) -> Duration {
    match command {
        Command::Count { .. } => Duration::from_millis(200),
        // The monitor writes some 10 MB/s.
        Command::Fill { length_bytes, .. } => Duration::from_micros(u64::from(length_bytes / 4)),
        // 168 us for a word and link, and the same for each repeat; the reply comes behind.
        Command::FloodFillData(_) => Duration::from_millis(200),
        Command::NearestNeighbour { .. } => Duration::from_millis(50),
        // A peek takes up to 200 us, each word for itself.
        Command::LinkRead { .. } | Command::LinkWrite { .. } => Duration::from_millis(50),
        Command::ApplicationCopyRun { length_bytes, .. } => {
            Duration::from_millis(500) + Duration::from_micros(u64::from(*length_bytes) * 50)
        }
        Command::Other { code, .. } if code.raw() >= CommandCode::BmpInfo.raw() => Duration::from_secs(10),
        _ => Duration::ZERO,
    }
}

#[cfg(test)]
mod tests;
