//! The way to a board: datagrams out and in, and the time.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::time::Instant;

use crate::{HostError, Result};

/// Which of a board's two ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Channel {
    /// SDP and SCP.
    Scp,
    /// The boot ROM.
    Boot,
}

/// A way to one board. Times are durations since some start.
pub trait Link {
    /// The board's address, for messages.
    fn board(&self) -> String;

    /// Now.
    fn now(&self) -> Duration;

    /// Sends a datagram to a port of the board.
    ///
    /// # Errors
    /// The operating system's.
    fn send(&mut self, channel: Channel, datagram: &[u8]) -> impl Future<Output = io::Result<()>>;

    /// Waits until `deadline` for a datagram on a channel and copies it (as far as it fits) into `buffer`; its length, or `None`.
    ///
    /// # Errors
    /// The operating system's.
    fn receive(
        &mut self,
        channel: Channel,
        buffer: &mut [u8],
        deadline: Duration,
    ) -> impl Future<Output = io::Result<Option<usize>>>;
}

/// UDP sockets. They are connected, so the operating system drops what others send.
pub struct UdpLink {
    board: IpAddr,
    scp_port: u16,
    scp: UdpSocket,
    boot: UdpSocket,
    start: Instant,
    /// How often in a row the computer there has said that nobody listens.
    refusals: u32,
}

/// So many refusals are the last word: a port may be opened a moment later.
const REFUSALS_MAX: u32 = 3;

impl UdpLink {
    /// Sockets to a board's ports, without sending anything. Wants tokio's time and network.
    ///
    /// # Errors
    /// [`HostError::NoSuchHost`], [`HostError::Io`].
    pub async fn connect(host: &str, scp_port: u16, boot_port: u16) -> Result<Self> {
        let found = tokio::net::lookup_host((host, scp_port)).await.ok();
        let board =
            found.and_then(|mut all| all.next()).ok_or_else(|| HostError::NoSuchHost { host: host.to_string() })?.ip();
        let io_error = |source| HostError::Io { board: host.to_string(), source };
        let scp = open(board, scp_port).await.map_err(io_error)?;
        let boot = open(board, boot_port).await.map_err(io_error)?;
        Ok(Self { board, scp_port, scp, boot, start: Instant::now(), refusals: 0 })
    }

    /// An answer to an earlier datagram: nobody listens.
    fn refused(&mut self, error: io::Error) -> io::Result<()> {
        self.refusals += 1;
        if self.refusals < REFUSALS_MAX { Ok(()) } else { Err(error) }
    }

    fn socket(&self, channel: Channel) -> &UdpSocket {
        match channel {
            Channel::Scp => &self.scp,
            Channel::Boot => &self.boot,
        }
    }
}

async fn open(board: IpAddr, port: u16) -> io::Result<UdpSocket> {
    let any = if board.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(SocketAddr::new(board, port)).await?;
    Ok(socket)
}

impl Link for UdpLink {
    fn board(&self) -> String {
        match self.scp_port {
            spinnaker_wire::sdp::UDP_PORT => self.board.to_string(),
            port => SocketAddr::new(self.board, port).to_string(),
        }
    }

    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    async fn send(&mut self, channel: Channel, datagram: &[u8]) -> io::Result<()> {
        match self.socket(channel).send(datagram).await {
            Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => self.refused(e),
            result => result.map(drop),
        }
    }

    async fn receive(&mut self, channel: Channel, buffer: &mut [u8], deadline: Duration) -> io::Result<Option<usize>> {
        let deadline = self.start + deadline;
        loop {
            let socket = self.socket(channel);
            match tokio::time::timeout_at(deadline, socket.recv(buffer)).await {
                Err(_) => return Ok(None),
                Ok(Ok(length)) => {
                    self.refusals = 0;
                    return Ok(Some(length));
                }
                Ok(Err(e)) if e.kind() == io::ErrorKind::ConnectionRefused => self.refused(e)?,
                Ok(Err(e)) => return Err(e),
            }
        }
    }
}
