//! Ways for datagrams between this computer and the boards of a job.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use spinnaker_wire::ChipAddress;
use tokio::net::UdpSocket;
use tokio::net::lookup_host;

use super::error::{Result, SpallocError};
use super::geometry::MachineInfo;
use super::service::proxy::{Proxy, ProxyChannel};

/// The longest UDP payload.
const DATAGRAM_BYTES_MAX: usize = 65_507;

fn failed(board: &str) -> impl Fn(io::Error) -> SpallocError + '_ {
    move |source| SpallocError::Board { board: board.to_owned(), source: Arc::new(source) }
}

async fn address(host: &str, port: u16) -> Result<SocketAddr> {
    let missing = || io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    lookup_host((host, port)).await.map_err(failed(host))?.next().ok_or_else(missing).map_err(failed(host))
}

async fn socket(peer: Option<SocketAddr>) -> io::Result<UdpSocket> {
    let ip = match peer {
        Some(SocketAddr::V6(_)) => IpAddr::from([0u16; 8]),
        _ => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
    };
    let socket = UdpSocket::bind((ip, 0)).await?;
    if let Some(peer) = peer {
        socket.connect(peer).await?;
    }
    Ok(socket)
}

/// A datagram as long as it is. What nobody received earlier is no error of now.
async fn received(socket: &UdpSocket) -> io::Result<(Vec<u8>, SocketAddr)> {
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    loop {
        match socket.recv_from(&mut buffer).await {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
            outcome => {
                let (length, source) = outcome?;
                buffer.truncate(length);
                return Ok((buffer, source));
            }
        }
    }
}

/// A way for datagrams to one UDP port of one board, and back. As with UDP they may be lost: also through the service, where those are
/// dropped that nobody takes in time.
#[derive(Debug)]
pub struct BoardChannel(Way);

#[derive(Debug)]
enum Way {
    Direct { board: String, socket: UdpSocket },
    Proxied(ProxyChannel),
}

impl BoardChannel {
    pub(super) async fn direct(host: &str, port: u16) -> Result<Self> {
        let peer = address(host, port).await?;
        let socket = socket(Some(peer)).await.map_err(failed(host))?;
        Ok(Self(Way::Direct { board: host.to_owned(), socket }))
    }

    pub(super) async fn proxied(proxy: Proxy, chip: ChipAddress, port: u16) -> Result<Self> {
        Ok(Self(Way::Proxied(proxy.open(chip, port).await?)))
    }

    /// Sends a datagram.
    ///
    /// # Errors
    /// [`SpallocError::Board`], [`SpallocError::Proxy`].
    pub async fn send(&self, datagram: &[u8]) -> Result<()> {
        match &self.0 {
            Way::Direct { board, socket } => match socket.send(datagram).await {
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
                outcome => outcome.map(drop).map_err(failed(board)),
            },
            Way::Proxied(channel) => channel.send(datagram).await,
        }
    }

    /// The next datagram; waits for it. May be abandoned.
    ///
    /// # Errors
    /// [`SpallocError::Board`], [`SpallocError::Proxy`].
    pub async fn receive(&mut self) -> Result<Vec<u8>> {
        match &mut self.0 {
            Way::Direct { board, socket } => {
                received(socket).await.map(|(datagram, _)| datagram).map_err(failed(board))
            }
            Way::Proxied(channel) => channel.receive().await,
        }
    }
}

/// A way for datagrams from all boards of a job.
#[derive(Debug)]
pub struct BoardListener(Ear);

#[derive(Debug)]
enum Ear {
    Direct { machine: Arc<MachineInfo>, boards: BTreeSet<IpAddr>, socket: UdpSocket, port: u16 },
    Proxied(ProxyChannel),
}

impl BoardListener {
    pub(super) async fn direct(machine: Arc<MachineInfo>) -> Result<Self> {
        let socket = socket(None).await.map_err(failed("all"))?;
        let port = socket.local_addr().map_err(failed("all"))?.port();
        let mut boards = BTreeSet::new();
        for board in &machine.boards {
            boards.insert(address(&board.host, port).await?.ip());
        }
        Ok(Self(Ear::Direct { machine, boards, socket, port }))
    }

    pub(super) async fn proxied(proxy: Proxy) -> Result<Self> {
        Ok(Self(Ear::Proxied(proxy.open_unbound().await?)))
    }

    /// Address and port that boards reach it by. The address is 0.0.0.0 for a socket of this computer: an IP tag set with that means
    /// the address from which it was set.
    pub fn address(&self) -> (Ipv4Addr, u16) {
        match &self.0 {
            Ear::Direct { port, .. } => (Ipv4Addr::UNSPECIFIED, *port),
            Ear::Proxied(channel) => channel.address(),
        }
    }

    /// Sends a datagram to a UDP port of a board, by its Ethernet chip.
    ///
    /// # Errors
    /// [`SpallocError::NoSuchBoard`], [`SpallocError::Board`], [`SpallocError::Proxy`].
    pub async fn send_to(&self, datagram: &[u8], chip: ChipAddress, port: u16) -> Result<()> {
        match &self.0 {
            Ear::Direct { machine, socket, .. } => {
                let Some(board) = machine.boards.iter().find(|board| board.chip == chip) else {
                    let known = machine.boards.iter().map(|board| board.chip.to_string()).collect();
                    return Err(SpallocError::NoSuchBoard { job: machine.name.clone(), chip: chip.to_string(), known });
                };
                let peer = address(&board.host, port).await?;
                socket.send_to(datagram, peer).await.map(drop).map_err(failed(&board.host))
            }
            Ear::Proxied(channel) => channel.send_to(datagram, chip, port).await,
        }
    }

    /// The next datagram, from whichever board; waits for it. What strangers send is ignored. May be abandoned.
    ///
    /// # Errors
    /// [`SpallocError::Board`], [`SpallocError::Proxy`].
    pub async fn receive(&mut self) -> Result<Vec<u8>> {
        match &mut self.0 {
            Ear::Direct { boards, socket, .. } => loop {
                let (datagram, source) = received(socket).await.map_err(failed("all"))?;
                if boards.contains(&source.ip()) {
                    return Ok(datagram);
                }
            },
            Ear::Proxied(channel) => channel.receive().await,
        }
    }
}
