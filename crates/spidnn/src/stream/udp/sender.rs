//! The sending end: samples to a receiver, and what it asks for again.

use std::collections::VecDeque;
use std::net::{SocketAddr, UdpSocket};

use spinnaker_wire::eieio::CommandCode;

use super::assembly::Stamp;
use super::layout::{GONE, Layout, Message, command};
use crate::Error;

/// Bytes of a datagram that is looked at.
pub(super) const DATAGRAM_BYTES_MAX: usize = 2048;
/// Requests that are answered at a time.
const ANSWERS_MAX: usize = 256;
/// Times that the end is said: each may be lost.
const END_TIMES: usize = 3;

/// A sample that may be asked for.
struct Sent {
    sequence: u64,
    values: Vec<f32>,
    stamp: Option<Stamp>,
}

/// Sends samples of one input or output over UDP, numbered from 0 on, and keeps the last ones for a receiver that asks again.
pub struct Sender {
    socket: UdpSocket,
    to: SocketAddr,
    layout: Layout,
    elements: usize,
    history: VecDeque<Sent>,
    history_max: usize,
    next: u64,
    resent: u64,
}

pub(super) fn io_error(what: impl std::fmt::Display) -> impl Fn(std::io::Error) -> Error {
    move |e| Error::Argument(format!("{what}: {e}"))
}

/// A socket that does not wait.
pub(super) fn bind(at: SocketAddr) -> Result<UdpSocket, Error> {
    let advice = "choose an address of this computer and a port that is free (0 for any)";
    let socket = UdpSocket::bind(at).map_err(|e| Error::Argument(format!("UDP address {at}: {e}; {advice}")))?;
    socket.set_nonblocking(true).map_err(io_error(format!("UDP address {at}")))?;
    Ok(socket)
}

impl Sender {
    /// A sender to an address, for samples of so many elements, that keeps the last `history_max`.
    ///
    /// # Errors
    /// A layout that does not serve so many elements; a system without a free port.
    pub fn new(to: SocketAddr, layout: Layout, elements: usize, history_max: usize) -> Result<Sender, Error> {
        layout.check(elements)?;
        let any: SocketAddr = if to.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
        Ok(Sender {
            socket: bind(any)?,
            to,
            layout,
            elements,
            history: VecDeque::new(),
            history_max,
            next: 0,
            resent: 0,
        })
    }

    /// The port from which it sends, and where it listens for requests.
    ///
    /// # Errors
    /// If the system does not say.
    pub fn port(&self) -> Result<u16, Error> {
        Ok(self.socket.local_addr().map_err(io_error("the sender's socket"))?.port())
    }

    /// Samples, or parts of them, that were sent again.
    pub fn resent(&self) -> u64 {
        self.resent
    }

    /// Sends the next sample; its number.
    ///
    /// # Errors
    /// Another number of values than elements; a system that does not send.
    pub fn send(&mut self, values: &[f32]) -> Result<u64, Error> {
        let sequence = self.next;
        self.send_as(sequence, values, None).map(|()| sequence)
    }

    /// Sends a sample of a number, not below those sent before.
    pub(super) fn send_as(&mut self, sequence: u64, values: &[f32], stamp: Option<Stamp>) -> Result<(), Error> {
        if values.len() != self.elements {
            return Err(Error::Argument(format!(
                "a sample to {} has {} values: give {}",
                self.to,
                values.len(),
                self.elements
            )));
        }
        self.next = sequence + 1;
        self.history.push_back(Sent { sequence, values: values.to_vec(), stamp });
        while self.history.len() > self.history_max.max(1) {
            self.history.pop_front();
        }
        self.transmit(sequence, 0, values, stamp)
    }

    /// Says that a sample does not come.
    pub(super) fn gone(&mut self, sequence: u64) -> Result<(), Error> {
        self.next = self.next.max(sequence + 1);
        self.put(&command(GONE, &[self.layout.wire(sequence)]))
    }

    /// Says that no more samples come.
    ///
    /// # Errors
    /// A system that does not send.
    pub fn end(&mut self) -> Result<(), Error> {
        let datagram = command(CommandCode::EventStop, &[self.layout.wire(self.next)]);
        (0..END_TIMES).try_for_each(|_| self.put(&datagram))
    }

    /// Answers what the receiver has asked for by now; requests of others are ignored.
    ///
    /// # Errors
    /// A system that does not send.
    pub fn answer(&mut self) -> Result<(), Error> {
        let mut buffer = [0; DATAGRAM_BYTES_MAX];
        for _ in 0..ANSWERS_MAX {
            // Whatever a socket has to say against receiving, there is nothing to answer then.
            let Ok((bytes, from)) = self.socket.recv_from(&mut buffer) else { break };
            if from != self.to {
                continue;
            }
            let message = self.layout.read(buffer.get(..bytes).unwrap_or_default(), self.elements);
            if let Ok(Message::Again { sequence, first, count }) = message {
                self.again(sequence, first as usize, count as usize)?;
            }
        }
        Ok(())
    }

    fn again(&mut self, wire: u32, first: usize, count: usize) -> Result<(), Error> {
        let Some(sent) = self.history.iter().rev().find(|sent| self.layout.wire(sent.sequence) == wire) else {
            return self.put(&command(GONE, &[wire]));
        };
        let end = first.saturating_add(count).min(sent.values.len());
        let values = sent.values.get(first..end).unwrap_or_default().to_vec();
        let (sequence, stamp) = (sent.sequence, sent.stamp);
        self.resent += 1;
        self.transmit(sequence, first, &values, stamp)
    }

    fn transmit(&self, sequence: u64, first: usize, values: &[f32], stamp: Option<Stamp>) -> Result<(), Error> {
        // The stamp goes first: when the last value is there, the sample is.
        if let (Some(stamp), Layout::Keys(keys)) = (stamp, &self.layout) {
            self.put(&Layout::stamp(keys, sequence, stamp.answered_us, stamp.pushed_us)?)?;
        }
        self.layout.datagrams(sequence, first, values)?.iter().try_for_each(|datagram| self.put(datagram))
    }

    /// Sends a datagram; one that the system cannot take now, or to which the other side said that nobody listens, is lost like others.
    fn put(&self, datagram: &[u8]) -> Result<(), Error> {
        use std::io::ErrorKind::{ConnectionRefused, Interrupted, WouldBlock};
        match self.socket.send_to(datagram, self.to) {
            Ok(_) => Ok(()),
            Err(e) if matches!(e.kind(), WouldBlock | ConnectionRefused | Interrupted) => Ok(()),
            Err(e) => Err(Error::Argument(format!("cannot send to {}: {e}", self.to))),
        }
    }
}
