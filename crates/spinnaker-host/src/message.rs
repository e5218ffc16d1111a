//! Messages to and from applications (SDP ports 1 to 7 of their cores), beside the commands of the monitors.

use std::collections::VecDeque;
use std::time::Duration;

use spinnaker_wire::iptag::TAGS_FIXED;
use spinnaker_wire::sdp::{self, Endpoint, Flags, Repr};

use crate::link::{Channel, Link};
use crate::{HostError, Result, Transceiver};

/// A message of an application to the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Chip, core and port that sent it.
    pub source: Endpoint,
    /// The IP tag by which it left the board.
    pub tag: u8,
    /// All behind the header.
    pub body: Vec<u8>,
}

impl Message {
    /// Replies to requests come by transient tags; what comes by one of the user's tags is a message.
    pub(crate) fn read(datagram: &[u8]) -> Option<Self> {
        let packet = sdp::Packet::from_udp(datagram).ok()?;
        let Repr { tag, source, destination, .. } = packet.repr();
        let is_message = tag < TAGS_FIXED && destination.port == Endpoint::HOST.port;
        is_message.then(|| Self { source, tag, body: packet.body.to_vec() })
    }
}

/// Messages that nobody has asked for yet.
#[derive(Default)]
pub(crate) struct Inbox {
    messages: VecDeque<Message>,
    dropped: u64,
}

/// Of these the oldest are dropped.
const MESSAGES_MAX: usize = 4096;

impl Inbox {
    pub fn push(&mut self, message: Message) {
        if self.messages.len() >= MESSAGES_MAX {
            self.messages.pop_front();
            self.dropped += 1;
        }
        self.messages.push_back(message);
    }
}

impl<L: Link> Transceiver<L> {
    /// Sends a message to a port (1 to 7) of a core. Nobody tells whether it arrives.
    ///
    /// # Errors
    /// [`HostError::Argument`] for port 0, which belongs to the kernels, [`HostError::Wire`] for more than 272 bytes, and
    /// [`HostError::Io`].
    pub async fn send_message(&mut self, to: Endpoint, body: &[u8]) -> Result<()> {
        self.send_message_by(sdp::TAG_TRANSIENT, to, body).await
    }

    /// The same with the IP tag that the core finds in the header, by which it can answer.
    ///
    /// # Errors
    /// As [`Transceiver::send_message`].
    pub async fn send_message_by(&mut self, tag: u8, to: Endpoint, body: &[u8]) -> Result<()> {
        if to.port.port() == 0 {
            return Err(HostError::Argument(format!(
                "a message to {to}: port 0 is the kernel's, applications have 1 to 7"
            )));
        }
        let header = Repr { flags: Flags::NO_REPLY, tag, destination: to, source: Endpoint::HOST };
        let mut datagram = [0; sdp::UDP_BYTES_MAX];
        let length = header.emit_udp(body, &mut datagram)?;
        let sent = self.link.send(Channel::Scp, &datagram[..length]).await;
        sent.map_err(|source| HostError::of_io(self.link.board(), source))
    }

    /// The next message of an application: one that has come meanwhile, or one that comes in time. It has to leave the board by one of
    /// the user's IP tags (0 to 7) that goes to this connection and keeps the header
    /// ([`Target::to_sender(false)`](spinnaker_wire::iptag::Target::to_sender)). Of those that nobody asks for the last 4096 are kept.
    ///
    /// # Errors
    /// [`HostError::Io`].
    pub async fn receive_message(&mut self, within: Duration) -> Result<Option<Message>> {
        self.window.abandon();
        let deadline = self.link.now() + within;
        while self.inbox.messages.is_empty() && self.link.now() < deadline {
            self.receive(deadline).await?;
        }
        Ok(self.inbox.messages.pop_front())
    }

    /// Messages that were dropped because nobody asked for them.
    pub fn messages_dropped(&self) -> u64 {
        self.inbox.dropped
    }
}
