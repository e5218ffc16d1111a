//! One board, its commands one method each; many requests in flight where a command has many parts.

use std::time::Duration;

use spinnaker_wire::scp::{Command, CommandCode, DATA_BYTES_MAX, ReturnCode};
use spinnaker_wire::sdp::Endpoint;

use crate::link::{Channel, Link, UdpLink};
use crate::message::{Inbox, Message};
use crate::window::{Event, Window, WindowConfig, WindowCounts};
use crate::{HostError, Result};

/// How a transceiver behaves.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Times and bounds of requests.
    pub window: WindowConfig,
    /// The first sequence number.
    pub first_seq: u16,
}

impl Options {
    /// Defaults, with another first sequence number in every process, so that late replies to an earlier one belong to nobody.
    pub fn of_process() -> Self {
        Self { first_seq: std::process::id() as u16, ..Self::default() }
    }
}

/// A connection to one board.
///
/// It sends nothing by itself. Methods end when they are done or have failed, in bounded time: see [`WindowConfig`]. A method that is
/// dropped before its end leaves the connection usable; what it has sent may still be carried out.
pub struct Transceiver<L> {
    pub(crate) link: L,
    pub(crate) window: Window,
    buffer: Vec<u8>,
    pub(crate) inbox: Inbox,
}

impl Transceiver<UdpLink> {
    /// A connection over UDP to a host name or address, with the ports that boards have.
    ///
    /// # Errors
    /// [`HostError::NoSuchHost`], [`HostError::Io`].
    pub async fn connect(host: &str) -> Result<Self> {
        Self::connect_ports(host, spinnaker_wire::sdp::UDP_PORT, spinnaker_wire::boot::UDP_PORT).await
    }

    /// The same with other ports, for virtual boards.
    ///
    /// # Errors
    /// As [`Transceiver::connect`].
    pub async fn connect_ports(host: &str, scp_port: u16, boot_port: u16) -> Result<Self> {
        Ok(Self::over(UdpLink::connect(host, scp_port, boot_port).await?, Options::of_process()))
    }
}

/// A request as part of a larger operation: where it goes, what it is, and the bytes that its reply must have.
pub(crate) struct Part<'a> {
    pub destination: Endpoint,
    pub command: Command<'a>,
    pub reply_bytes: usize,
}

impl<L: Link> Transceiver<L> {
    /// A connection over any link.
    pub fn over(link: L, options: Options) -> Self {
        let window = Window::new(options.window, options.first_seq);
        Self { link, window, buffer: vec![0; 2048], inbox: Inbox::default() }
    }

    /// The way to the board.
    pub fn link(&mut self) -> &mut L {
        &mut self.link
    }

    /// The time of the link.
    pub fn now(&self) -> Duration {
        self.link.now()
    }

    /// What is known of the traffic.
    pub fn counts(&self) -> WindowCounts {
        self.window.counts()
    }

    /// Sends a request and returns the payload of its reply.
    ///
    /// # Errors
    /// [`HostError::Silent`], [`HostError::Refused`], [`HostError::Io`].
    pub async fn request(&mut self, destination: Endpoint, command: &Command<'_>) -> Result<Vec<u8>> {
        let mut answer = Vec::new();
        let part = Part { destination, command: *command, reply_bytes: 0 };
        self.run(std::iter::once(part), |_, payload| {
            answer = payload.to_vec();
            Ok(())
        })
        .await?;
        Ok(answer)
    }

    /// Sends a request whose reply must have some bytes.
    ///
    /// # Errors
    /// As [`Transceiver::request`], and [`HostError::NoData`].
    pub async fn request_data(
        &mut self,
        destination: Endpoint,
        command: &Command<'_>,
        bytes: usize,
    ) -> Result<Vec<u8>> {
        let payload = self.request(destination, command).await?;
        check_length(destination, command.code(), &payload, bytes)?;
        Ok(payload)
    }

    /// Sends a request whose reply is a word.
    pub(crate) async fn request_word(&mut self, destination: Endpoint, command: &Command<'_>) -> Result<u32> {
        let payload = self.request_data(destination, command, 4).await?;
        Ok(spinnaker_wire::scp::word_reply(command.code(), &payload)?)
    }

    /// Sends many requests, several in flight, and hands every payload with its part's number to `done`, in any order. The first
    /// failure ends it.
    pub(crate) async fn run<'a>(
        &mut self,
        parts: impl Iterator<Item = Part<'a>>,
        mut done: impl FnMut(usize, &[u8]) -> Result<()>,
    ) -> Result<()> {
        self.run_each(parts, |index, answer| done(index, &answer?)).await
    }

    /// The same, with the failures of single parts in the hands of `done`.
    pub(crate) async fn run_each<'a>(
        &mut self,
        parts: impl Iterator<Item = Part<'a>>,
        mut done: impl FnMut(usize, Result<Vec<u8>>) -> Result<()>,
    ) -> Result<()> {
        // What an earlier operation that failed or was dropped has left under way.
        self.window.abandon();
        let mut parts = parts.enumerate().peekable();
        // What is checked when a reply comes; of the parts under way only.
        let mut expected: Vec<(usize, Endpoint, CommandCode, usize)> = Vec::new();
        loop {
            let mut held = None;
            while self.window.has_room() {
                let Some((_, part)) = parts.peek() else { break };
                held = self.window.held_until(self.link.now(), part.destination, &part.command);
                if held.is_some() {
                    break;
                }
                let Some((index, part)) = parts.next() else { break };
                expected.push((index, part.destination, part.command.code(), part.reply_bytes));
                self.window.submit(self.link.now(), part.destination, &part.command, index as u64)?;
            }
            if self.window.is_empty() && held.is_none() {
                return Ok(());
            }
            self.window.probe(self.link.now())?;
            let Some(event) = self.step(held).await? else { continue };
            let (Event::Silent { token, .. } | Event::Reply { token, .. }) = &event;
            let Some(at) = expected.iter().position(|e| e.0 as u64 == *token) else { continue };
            let (index, destination, command, bytes) = expected.swap_remove(at);
            let answer = match event {
                Event::Silent { tries, waited, .. } => {
                    Err(HostError::Silent { board: self.link.board(), command, destination, tries, waited })
                }
                Event::Reply { code, .. } if code != ReturnCode::Ok => {
                    Err(HostError::Refused { command, destination, code })
                }
                Event::Reply { payload, .. } => check_length(destination, command, &payload, bytes).map(|()| payload),
            };
            done(index, answer)?;
        }
    }

    /// Sends what is due, then waits for one thing to happen, or until `held`, whichever is first.
    async fn step(&mut self, held: Option<Duration>) -> Result<Option<Event>> {
        loop {
            let now = self.link.now();
            let Some(datagram) = self.window.poll_transmit(now) else { break };
            let sent = self.link.send(Channel::Scp, datagram).await;
            sent.map_err(|source| HostError::of_io(self.link.board(), source))?;
        }
        let Some(deadline) = self.window.deadline().into_iter().chain(held).min() else { return Ok(None) };
        self.receive(deadline).await
    }

    /// Waits for one datagram and takes it in, or lets the window see that time has passed.
    pub(crate) async fn receive(&mut self, deadline: Duration) -> Result<Option<Event>> {
        let received = self.link.receive(Channel::Scp, &mut self.buffer, deadline).await;
        let received = received.map_err(|source| HostError::of_io(self.link.board(), source))?;
        let now = self.link.now();
        let Some(length) = received else { return Ok(self.window.on_time(now)) };
        let datagram = self.buffer.get(..length).unwrap_or_default();
        if let Some(message) = Message::read(datagram) {
            self.inbox.push(message);
            return Ok(None);
        }
        Ok(self.window.on_datagram(now, datagram))
    }

    /// Lets time pass. Messages of applications are kept, other datagrams that come are dropped.
    ///
    /// # Errors
    /// [`HostError::Io`].
    pub async fn pause(&mut self, time: Duration) -> Result<()> {
        self.window.abandon();
        let deadline = self.link.now() + time;
        while self.link.now() < deadline {
            self.receive(deadline).await?;
        }
        Ok(())
    }
}

fn check_length(destination: Endpoint, command: CommandCode, payload: &[u8], needed_bytes: usize) -> Result<()> {
    if payload.len() < needed_bytes {
        return Err(HostError::NoData { command, destination, needed_bytes, got_bytes: payload.len() });
    }
    Ok(())
}

/// Pieces of at most 256 bytes: offset and length.
pub(crate) fn pieces(length_bytes: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..length_bytes).step_by(DATA_BYTES_MAX).map(move |offset| (offset, (length_bytes - offset).min(DATA_BYTES_MAX)))
}
