//! UDP through a WebSocket: binary frames of little-endian words that open channels to boards and carry datagrams.
//!
//! Source: the frames of SpiNNMan's `spalloc` package ("spalloc", newer service). A task owns the socket and deals out what comes; handles
//! and channels talk with the task.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use hyper::Request;
use spinnaker_wire::ChipAddress;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{self, Message};

use super::http::Stream;
use crate::spalloc::error::{Result, SpallocError};

/// Words that a frame begins with.
mod kind {
    pub const OPEN: u32 = 0;
    pub const CLOSE: u32 = 1;
    pub const MESSAGE: u32 = 2;
    pub const OPEN_UNBOUND: u32 = 3;
    pub const MESSAGE_TO: u32 = 4;
    pub const ERROR: u32 = 5;
}

/// For how long the server may take to open a channel.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);
/// How often the server hears of an idle connection, and how long one may be silent.
const PING: Duration = Duration::from_secs(20);
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// Datagrams that wait for their reader, per channel, or for the socket. Beyond that those that come are lost, and those that go wait.
const QUEUE: usize = 512;
/// The longest frame that is read: a datagram and its head.
const FRAME_BYTES_MAX: usize = 65_536 + 8;

/// A handle on the task. Clones share it; the connection closes with the last of them and of their channels.
#[derive(Debug, Clone)]
pub struct Proxy {
    server: String,
    wishes: mpsc::Sender<Wish>,
}

/// What the task is asked for.
#[derive(Debug)]
enum Wish {
    /// A channel to a board's port, or to none in particular.
    Open { target: Option<(ChipAddress, u16)>, done: oneshot::Sender<Opened> },
    /// A frame to be sent as it is.
    Send(Vec<u8>),
    /// The end of a channel.
    Close(u32),
}

/// A channel's number, its address and port if it is not bound to a board, and what comes; or the server's words.
type Opened = std::result::Result<Ends, String>;
type Ends = (u32, (Ipv4Addr, u16), mpsc::Receiver<Vec<u8>>);

/// A channel.
#[derive(Debug)]
pub struct ProxyChannel {
    proxy: Proxy,
    number: u32,
    address: (Ipv4Addr, u16),
    datagrams: mpsc::Receiver<Vec<u8>>,
}

impl Proxy {
    /// Shakes hands and starts the task on the runtime of the caller.
    pub async fn start(server: String, request: Request<()>, stream: Box<dyn Stream>) -> Result<Self> {
        let config =
            WebSocketConfig::default().max_message_size(Some(FRAME_BYTES_MAX)).max_frame_size(Some(FRAME_BYTES_MAX));
        let hello = tokio_tungstenite::client_async_with_config(request, stream, Some(config));
        let (socket, _) = match timeout(OPEN_TIMEOUT, hello).await {
            Ok(Ok(done)) => done,
            Ok(Err(error)) => return Err(SpallocError::Proxy { server, message: error.to_string() }),
            Err(_) => return Err(SpallocError::Proxy { server, message: "no WebSocket within 10 s".to_owned() }),
        };
        let (wishes, for_task) = mpsc::channel(QUEUE);
        let task =
            Task { socket, opening: BTreeMap::new(), channels: BTreeMap::new(), correlation: 0, heard: Instant::now() };
        tokio::spawn(task.run(for_task));
        Ok(Self { server, wishes })
    }

    /// Whether the connection still stands, as far as is known.
    pub fn is_open(&self) -> bool {
        !self.wishes.is_closed()
    }

    /// Opens a channel to a UDP port of a board.
    pub async fn open(self, chip: ChipAddress, port: u16) -> Result<ProxyChannel> {
        self.channel(Some((chip, port))).await
    }

    /// Opens a channel that is bound to no board.
    pub async fn open_unbound(self) -> Result<ProxyChannel> {
        self.channel(None).await
    }

    async fn channel(self, target: Option<(ChipAddress, u16)>) -> Result<ProxyChannel> {
        let (done, opened) = oneshot::channel();
        self.wish(Wish::Open { target, done }).await?;
        match opened.await {
            Ok(Ok((number, address, datagrams))) => Ok(ProxyChannel { proxy: self, number, address, datagrams }),
            Ok(Err(message)) => Err(SpallocError::Proxy { server: self.server, message }),
            Err(_) => Err(self.lost()),
        }
    }

    async fn wish(&self, wish: Wish) -> Result<()> {
        self.wishes.send(wish).await.map_err(|_| self.lost())
    }

    fn lost(&self) -> SpallocError {
        SpallocError::Proxy {
            server: self.server.clone(),
            message: "the WebSocket was closed; open the channel again".to_owned(),
        }
    }
}

impl ProxyChannel {
    /// Address and port in the boards' network, of a channel that is bound to no board.
    pub fn address(&self) -> (Ipv4Addr, u16) {
        self.address
    }

    pub async fn send(&self, datagram: &[u8]) -> Result<()> {
        self.proxy.wish(Wish::Send(frame(&[kind::MESSAGE, self.number], datagram))).await
    }

    pub async fn send_to(&self, datagram: &[u8], chip: ChipAddress, port: u16) -> Result<()> {
        let words = [kind::MESSAGE_TO, self.number, chip.x().into(), chip.y().into(), port.into()];
        self.proxy.wish(Wish::Send(frame(&words, datagram))).await
    }

    pub async fn receive(&mut self) -> Result<Vec<u8>> {
        self.datagrams.recv().await.ok_or_else(|| self.proxy.lost())
    }
}

impl Drop for ProxyChannel {
    fn drop(&mut self) {
        // Where the queue is full the channel stays open until the job ends, and what comes is dropped.
        let _ = self.proxy.wishes.try_send(Wish::Close(self.number));
    }
}

fn frame(words: &[u32], rest: &[u8]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).chain(rest.iter().copied()).collect()
}

/// The little-endian word at an index.
fn word(frame: &[u8], index: usize) -> Option<u32> {
    let bytes = frame.get(4 * index..4 * index + 4)?;
    bytes.try_into().ok().map(u32::from_le_bytes)
}

/// A channel that was asked for.
struct Opening {
    since: Instant,
    done: oneshot::Sender<Opened>,
}

struct Task {
    socket: WebSocketStream<Box<dyn Stream>>,
    opening: BTreeMap<u32, Opening>,
    channels: BTreeMap<u32, mpsc::Sender<Vec<u8>>>,
    correlation: u32,
    heard: Instant,
}

impl Task {
    /// Until nobody is left on this side, or the connection ends. Dropping `wishes` and the channels tells everybody.
    async fn run(mut self, mut wishes: mpsc::Receiver<Wish>) {
        let mut ping = Instant::now() + PING;
        loop {
            let late = self.opening.values().map(|opening| opening.since + OPEN_TIMEOUT).min();
            let outcome = tokio::select! {
                frame = self.socket.next() => match frame {
                    Some(Ok(frame)) => self.deal(frame),
                    Some(Err(_)) | None => return,
                },
                wish = wishes.recv() => match wish {
                    Some(wish) => self.grant(wish).await,
                    None => break,
                },
                () = sleep_until(late.unwrap_or(ping).min(ping)) => {
                    let now = Instant::now();
                    if now.duration_since(self.heard) > SILENCE_MAX {
                        return;
                    }
                    self.give_up(now);
                    if now < ping {
                        Ok(())
                    } else {
                        ping = now + PING;
                        self.send(Message::Ping(Vec::new().into())).await
                    }
                }
            };
            if outcome.is_err() {
                return;
            }
        }
        let _ = timeout(Duration::from_secs(1), self.socket.close(None)).await;
    }

    /// A socket that takes nothing for so long is as good as closed.
    async fn send(&mut self, message: Message) -> tungstenite::Result<()> {
        timeout(SILENCE_MAX, self.socket.send(message)).await.unwrap_or(Err(tungstenite::Error::ConnectionClosed))
    }

    async fn grant(&mut self, wish: Wish) -> tungstenite::Result<()> {
        let frame = match wish {
            Wish::Send(frame) => frame,
            Wish::Open { target, done } => {
                let correlation = self.correlate();
                self.opening.insert(correlation, Opening { since: Instant::now(), done });
                match target {
                    Some((chip, port)) => {
                        frame(&[kind::OPEN, correlation, chip.x().into(), chip.y().into(), port.into()], &[])
                    }
                    None => frame(&[kind::OPEN_UNBOUND, correlation], &[]),
                }
            }
            Wish::Close(number) => {
                self.channels.remove(&number);
                let correlation = self.correlate();
                frame(&[kind::CLOSE, correlation, number], &[])
            }
        };
        self.send(Message::Binary(frame.into())).await
    }

    fn correlate(&mut self) -> u32 {
        self.correlation = self.correlation.wrapping_add(1);
        self.correlation
    }

    /// Gives a frame to whom it concerns. What concerns nobody is ignored.
    fn deal(&mut self, message: Message) -> tungstenite::Result<()> {
        self.heard = Instant::now();
        let Message::Binary(frame) = message else { return Ok(()) };
        let (Some(kind), Some(number)) = (word(&frame, 0), word(&frame, 1)) else { return Ok(()) };
        match kind {
            kind::MESSAGE => {
                if let Some(channel) = self.channels.get(&number) {
                    // As with UDP, what finds no room is lost.
                    let _ = channel.try_send(frame[8..].to_vec());
                }
            }
            kind::OPEN | kind::OPEN_UNBOUND => {
                let Some(opening) = self.opening.remove(&number) else { return Ok(()) };
                let opened = self.opened(kind, &frame).ok_or_else(|| "the server's answer is cut short".to_owned());
                let channel = opened.as_ref().ok().map(|(channel, ..)| *channel);
                if opening.done.send(opened).is_err()
                    && let Some(channel) = channel
                {
                    self.channels.remove(&channel);
                }
            }
            kind::ERROR => {
                let text: String = String::from_utf8_lossy(&frame[8..]).chars().take(200).collect();
                if let Some(opening) = self.opening.remove(&number) {
                    let _ = opening.done.send(Err(if text.is_empty() {
                        "the server gives no reason".to_owned()
                    } else {
                        text
                    }));
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// A channel that the server has opened.
    fn opened(&mut self, kind: u32, frame: &[u8]) -> Option<Ends> {
        let channel = word(frame, 2)?;
        let address = if kind == kind::OPEN_UNBOUND {
            let ip: [u8; 4] = frame.get(12..16)?.try_into().ok()?;
            (Ipv4Addr::from(ip), u16::try_from(word(frame, 4)?).ok()?)
        } else {
            (Ipv4Addr::UNSPECIFIED, 0)
        };
        let (datagrams, receiver) = mpsc::channel(QUEUE);
        self.channels.insert(channel, datagrams);
        Some((channel, address, receiver))
    }

    /// Ends the wait for what was asked for too long ago.
    fn give_up(&mut self, now: Instant) {
        let late: Vec<u32> =
            self.opening.iter().filter(|(_, opening)| now >= opening.since + OPEN_TIMEOUT).map(|(n, _)| *n).collect();
        for number in late {
            if let Some(opening) = self.opening.remove(&number) {
                let _ = opening.done.send(Err("no channel within 10 s".to_owned()));
            }
        }
    }
}
