//! The way to a board: datagrams out and in, and the time.

use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::time::{Duration, Instant};

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
    fn send(&mut self, channel: Channel, datagram: &[u8]) -> io::Result<()>;

    /// Waits until `deadline` for a datagram on a channel and copies it (as far as it fits) into `buffer`; its length, or `None`.
    ///
    /// # Errors
    /// The operating system's.
    fn receive(&mut self, channel: Channel, buffer: &mut [u8], deadline: Duration) -> io::Result<Option<usize>>;
}

/// UDP sockets. They are connected, so the operating system drops what others send.
pub struct UdpLink {
    board: IpAddr,
    scp: UdpSocket,
    boot: UdpSocket,
    start: Instant,
}

impl UdpLink {
    /// Sockets to a board's ports, without sending anything.
    ///
    /// # Errors
    /// [`HostError::NoSuchHost`], [`HostError::Io`].
    pub fn connect(host: &str, scp_port: u16, boot_port: u16) -> Result<Self> {
        let board = (host, scp_port)
            .to_socket_addrs()
            .ok()
            .and_then(|mut all| all.next())
            .ok_or_else(|| HostError::NoSuchHost { host: host.to_string() })?
            .ip();
        let open = |port| -> io::Result<UdpSocket> {
            let any = if board.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
            let socket = UdpSocket::bind(any)?;
            socket.connect(SocketAddr::new(board, port))?;
            Ok(socket)
        };
        let io_error = |source| HostError::Io { board: host.to_string(), source };
        let scp = open(scp_port).map_err(io_error)?;
        let boot = open(boot_port).map_err(io_error)?;
        Ok(Self { board, scp, boot, start: Instant::now() })
    }

    fn socket(&self, channel: Channel) -> &UdpSocket {
        match channel {
            Channel::Scp => &self.scp,
            Channel::Boot => &self.boot,
        }
    }
}

impl Link for UdpLink {
    fn board(&self) -> String {
        self.board.to_string()
    }

    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    fn send(&mut self, channel: Channel, datagram: &[u8]) -> io::Result<()> {
        match self.socket(channel).send(datagram) {
            // Nobody listened to an earlier one: silence says that, too, and it may change.
            Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
            result => result.map(drop),
        }
    }

    fn receive(&mut self, channel: Channel, buffer: &mut [u8], deadline: Duration) -> io::Result<Option<usize>> {
        loop {
            // A time-out of zero would mean none at all.
            let wait = deadline.saturating_sub(self.now()).max(Duration::from_micros(50));
            let socket = self.socket(channel);
            socket.set_read_timeout(Some(wait))?;
            match socket.recv(buffer) {
                Ok(length) => return Ok(Some(length)),
                Err(e) if e.kind() == io::ErrorKind::ConnectionRefused || e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
                Err(e) => return Err(e),
            }
            if self.now() >= deadline {
                return Ok(None);
            }
        }
    }
}
