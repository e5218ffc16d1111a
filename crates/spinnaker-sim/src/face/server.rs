//! UDP sockets for a [`VirtualBoard`], and its pace. The only part of the simulator that knows sockets and the wall's clock.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::{Scope, ScopedJoinHandle};
use std::time::{Duration, Instant};

use spinnaker_machine::ChipXy;
use spinnaker_wire::{CorePort, boot, iptag, scp, sdp};

use super::pacing::{Pacing, Sender};
use super::{BOOT_PORT, Bmp, Datagram, LogLine, SCP_PORT, VirtualBoard};

/// How machine time follows the wall's clock.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Pace {
    /// So many seconds of machine time in a second; less where the computer is too slow.
    Times(f64),
    /// As fast as possible, while there is anything to do; a machine that is idle follows the clock.
    Fast,
}

/// Where to listen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listen {
    /// Address of the first board; the others have the addresses after it.
    pub address: Ipv4Addr,
    /// Port for SCP, 0 for any free one (the same for all boards).
    pub scp_port: u16,
    /// Port for booting, 0 for any free one.
    pub boot_port: u16,
    /// Address of the management processor; `None`: the one behind the last board.
    pub bmp_address: Option<Ipv4Addr>,
}

impl Default for Listen {
    fn default() -> Self {
        Self { address: Ipv4Addr::LOCALHOST, scp_port: SCP_PORT, boot_port: BOOT_PORT, bmp_address: None }
    }
}

/// What whoever runs a server may ask of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// Put a snapshot into the log.
    Snapshot,
    /// End.
    Quit,
}

/// Where a board is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BoardPorts {
    /// Its Ethernet chip.
    pub chip: ChipXy,
    /// Its address.
    pub address: Ipv4Addr,
    /// Port for SCP.
    pub scp_port: u16,
    /// Port for booting.
    pub boot_port: u16,
}

struct BoardSockets {
    ports: BoardPorts,
    scp: UdpSocket,
    boot: UdpSocket,
}

/// Sockets of the boards of a machine and of its management processor.
pub struct Server {
    boards: Vec<BoardSockets>,
    bmp: UdpSocket,
    bmp_address: SocketAddrV4,
}

/// Where a datagram came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Port {
    /// A board, and the port as the machine counts it.
    Board(usize, u16),
    Bmp,
}

struct Incoming {
    port: Port,
    from: SocketAddrV4,
    at: Instant,
    data: Vec<u8>,
}

/// Datagrams that wait for the machine; more are lost, as in a network card.
const WAITING_MAX: usize = 1024;
/// Bytes of the longest datagram that fits a frame, and one more, by which a longer one is known.
const DATAGRAM_BYTES: usize = 1473;
/// How long a reader sleeps at most before it looks whether it is to end.
const READER_SLEEP: Duration = Duration::from_millis(100);
/// Machine time between looks at sockets, while somebody speaks with the machine and otherwise: every stop costs.
const SLICE_BUSY_NS: u64 = 1_000_000;
const SLICE_IDLE_NS: u64 = 10_000_000;
/// A slice takes no longer than this, as the last one went, however slow the machine: whoever waits for an answer counts real time.
const SLICE_WALL_MAX: Duration = Duration::from_millis(5);
const SLICE_MIN_NS: u64 = 10_000;
/// What the machine may be behind before it is let off.
const BEHIND_MAX_NS: u64 = 100_000_000;
/// Sleep while nothing happens, and for a while after something has.
const SLEEP_IDLE: Duration = Duration::from_millis(10);
const SLEEP_BUSY: Duration = Duration::from_micros(50);
const BUSY_FOR: Duration = Duration::from_millis(5);
/// Tries to find a port that is free on all boards' addresses.
const PORT_TRIES: usize = 64;

impl Server {
    /// Opens the sockets for boards with these Ethernet chips, in that order.
    ///
    /// # Errors
    /// The operating system's, with the address in its text: in use, or none of this computer.
    pub fn bind(listen: &Listen, chips: &[ChipXy]) -> io::Result<Self> {
        let base = u32::from(listen.address);
        let address = |n: usize| Ipv4Addr::from(base.wrapping_add(n as u32));
        let addresses: Vec<Ipv4Addr> = (0..chips.len()).map(address).collect();
        let scp = bind_all(&addresses, listen.scp_port)?;
        let boot = bind_all(&addresses, listen.boot_port)?;
        let mut boards = Vec::new();
        for (((&chip, &address), scp), boot) in chips.iter().zip(&addresses).zip(scp).zip(boot) {
            let (scp_port, boot_port) = (scp.local_addr()?.port(), boot.local_addr()?.port());
            boards.push(BoardSockets { ports: BoardPorts { chip, address, scp_port, boot_port }, scp, boot });
        }
        let bmp_port = boards.first().map_or(listen.scp_port, |board| board.ports.scp_port);
        let bmp_address = SocketAddrV4::new(listen.bmp_address.unwrap_or_else(|| address(chips.len())), bmp_port);
        let bmp = bind_one(bmp_address)?;
        Ok(Self { boards, bmp, bmp_address })
    }

    /// Where the boards are reached.
    pub fn boards(&self) -> Vec<BoardPorts> {
        self.boards.iter().map(|board| board.ports).collect()
    }

    /// Where the management processor is reached.
    pub fn bmp(&self) -> SocketAddrV4 {
        self.bmp_address
    }

    /// Serves until `stop` is set or [`Request::Quit`] comes. `log` gets what happens, as it happens; with `packets`, every
    /// request and reply as well.
    ///
    /// # Errors
    /// The operating system's, when a socket cannot be shared with its reader.
    pub fn run<B: VirtualBoard>(
        &self,
        board: &mut B,
        pace: Pace,
        packets: bool,
        requests: &Receiver<Request>,
        stop: &AtomicBool,
        log: &mut dyn FnMut(&LogLine),
    ) -> io::Result<()> {
        let (sender, incoming) = sync_channel(WAITING_MAX);
        let ended = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let mut open = Open { scope, sender, ended: &ended, tags: BTreeMap::new() };
            let started = self.start_readers(&mut open);
            let result = started.and_then(|()| {
                let mut run = Run {
                    server: self,
                    board,
                    bmp: Bmp::new(self.boards.len()),
                    packets,
                    epoch: Instant::now(),
                    pacing: Pacing::new(),
                    clients: BTreeSet::new(),
                    log,
                };
                run.serve(pace, &incoming, requests, stop, &mut open)
            });
            ended.store(true, Ordering::Relaxed);
            result
        })
    }

    fn start_readers<'scope>(&self, open: &mut Open<'scope, '_>) -> io::Result<()> {
        for (number, board) in self.boards.iter().enumerate() {
            open.read(board.scp.try_clone()?, Port::Board(number, SCP_PORT))?;
            open.read(board.boot.try_clone()?, Port::Board(number, BOOT_PORT))?;
        }
        open.read(self.bmp.try_clone()?, Port::Bmp)?;
        Ok(())
    }
}

/// Machine time that passes in [`SLICE_WALL_MAX`] at the speed of a slice.
fn affordable(passed_ns: u64, took: Duration) -> u64 {
    let slices = SLICE_WALL_MAX.as_secs_f64() / took.as_secs_f64().max(1e-9);
    ((passed_ns as f64 * slices) as u64).clamp(SLICE_MIN_NS, SLICE_IDLE_NS)
}

fn bind_one(address: SocketAddrV4) -> io::Result<UdpSocket> {
    UdpSocket::bind(address).map_err(|e| io::Error::new(e.kind(), format!("{address}: {e}")))
}

/// A socket at each address with the same port; port 0: one that is free at all of them.
fn bind_all(addresses: &[Ipv4Addr], port: u16) -> io::Result<Vec<UdpSocket>> {
    let bind = |port: u16| -> io::Result<Vec<UdpSocket>> {
        let mut port = port;
        let mut sockets = Vec::new();
        for address in addresses {
            let socket = bind_one(SocketAddrV4::new(*address, port))?;
            port = socket.local_addr()?.port();
            sockets.push(socket);
        }
        Ok(sockets)
    };
    if port != 0 {
        return bind(port);
    }
    let mut result = bind(0);
    for _ in 1..PORT_TRIES {
        match result {
            Err(ref e) if e.kind() == io::ErrorKind::AddrInUse => result = bind(0),
            _ => break,
        }
    }
    result
}

/// Readers that are running.
struct Open<'scope, 'env> {
    scope: &'scope Scope<'scope, 'env>,
    sender: SyncSender<Incoming>,
    ended: &'scope AtomicBool,
    /// Sockets of reverse IP tags: by board and tag.
    tags: BTreeMap<(usize, u8), TagSocket<'scope>>,
}

struct TagSocket<'scope> {
    port: u16,
    socket: UdpSocket,
    stop: std::sync::Arc<AtomicBool>,
    reader: ScopedJoinHandle<'scope, ()>,
}

impl<'scope> Open<'scope, '_> {
    fn read(&self, socket: UdpSocket, port: Port) -> io::Result<()> {
        self.spawn(socket, port, std::sync::Arc::new(AtomicBool::new(false))).map(drop)
    }

    fn spawn(
        &self,
        socket: UdpSocket,
        port: Port,
        stop: std::sync::Arc<AtomicBool>,
    ) -> io::Result<ScopedJoinHandle<'scope, ()>> {
        socket.set_read_timeout(Some(READER_SLEEP))?;
        let sender = self.sender.clone();
        let ended = self.ended;
        Ok(self.scope.spawn(move || {
            let mut buffer = [0; DATAGRAM_BYTES];
            while !ended.load(Ordering::Relaxed) && !stop.load(Ordering::Relaxed) {
                let Ok((length, SocketAddr::V4(from))) = socket.recv_from(&mut buffer) else { continue };
                let data = buffer[..length].to_vec();
                // What does not fit is lost; whoever sent it sends it again.
                let _ = sender.try_send(Incoming { port, from, at: Instant::now(), data });
            }
        }))
    }

    /// A reverse IP tag is set: its port has to be open.
    fn open_tag(&mut self, board: usize, tag: u8, address: SocketAddrV4) -> io::Result<()> {
        if self.tags.get(&(board, tag)).is_some_and(|open| open.port == address.port()) {
            return Ok(());
        }
        self.close_tag(board, tag);
        let socket = bind_one(address)?;
        let stop = std::sync::Arc::new(AtomicBool::new(false));
        let reader = self.spawn(socket.try_clone()?, Port::Board(board, address.port()), stop.clone())?;
        self.tags.insert((board, tag), TagSocket { port: address.port(), socket, stop, reader });
        Ok(())
    }

    fn close_tag(&mut self, board: usize, tag: u8) {
        if let Some(open) = self.tags.remove(&(board, tag)) {
            open.stop.store(true, Ordering::Relaxed);
            // The port is free when the reader's socket has gone.
            let _ = open.reader.join();
        }
    }

    fn tag_socket(&self, board: usize, port: u16) -> Option<&UdpSocket> {
        let mut open = self.tags.iter().filter(|((number, _), _)| *number == board);
        open.find(|(_, open)| open.port == port).map(|(_, open)| &open.socket)
    }
}

/// A server at work.
struct Run<'a, B> {
    server: &'a Server,
    board: &'a mut B,
    bmp: Bmp,
    packets: bool,
    /// When it began.
    epoch: Instant,
    /// What waits to be handed to the machine, by board and sender.
    pacing: Pacing<Vec<u8>>,
    /// Who has sent what where, for the log.
    clients: BTreeSet<(SocketAddrV4, ChipXy, u16)>,
    log: &'a mut dyn FnMut(&LogLine),
}

/// Clients that the log tells apart.
const CLIENTS_MAX: usize = 4096;

impl<B: VirtualBoard> Run<'_, B> {
    fn serve(
        &mut self,
        pace: Pace,
        incoming: &Receiver<Incoming>,
        requests: &Receiver<Request>,
        stop: &AtomicBool,
        open: &mut Open<'_, '_>,
    ) -> io::Result<()> {
        let mut clock = Clock::new(pace, self.board.now_ns());
        let mut busy_until = Instant::now();
        let mut affordable_ns = SLICE_IDLE_NS;
        loop {
            if stop.load(Ordering::Relaxed) {
                return Ok(());
            }
            for request in requests.try_iter() {
                match request {
                    Request::Snapshot => {
                        let text = self.board.snapshot();
                        self.say(text.trim_end().to_string());
                    }
                    Request::Quit => return Ok(()),
                }
            }
            let idle = self.is_idle();
            let due_ns = clock.due_ns(self.board.now_ns(), idle);
            let busy = Instant::now() < busy_until || self.pacing.next_ns().is_some();
            let slice_ns = if busy { SLICE_BUSY_NS } else { SLICE_IDLE_NS };
            let behind = due_ns > self.board.now_ns() + slice_ns;
            let sleep = match (behind, busy) {
                (true, _) => Duration::ZERO,
                (false, true) => SLEEP_BUSY,
                (false, false) => SLEEP_IDLE,
            };
            match incoming.recv_timeout(sleep) {
                Ok(first) => {
                    busy_until = Instant::now() + BUSY_FOR;
                    self.come(first, open);
                    for next in incoming.try_iter().take(WAITING_MAX) {
                        self.come(next, open);
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            }
            let now_ns = self.board.now_ns();
            let idle = self.is_idle();
            let due_ns = clock.due_ns(now_ns, idle);
            let began = Instant::now();
            let slice_ns = if began < busy_until { SLICE_BUSY_NS } else { SLICE_IDLE_NS };
            self.run_until(due_ns.min(now_ns + slice_ns.min(affordable_ns)), pace == Pace::Fast, open);
            affordable_ns = affordable(self.board.now_ns() - now_ns, began.elapsed());
            if self.give_out(open) {
                busy_until = Instant::now() + BUSY_FOR;
            }
            for line in self.board.take_log() {
                (self.log)(&line);
            }
        }
    }

    fn say(&mut self, text: String) {
        (self.log)(&LogLine { time_ns: self.board.now_ns(), text });
    }

    /// Whether time may pass as it likes.
    fn is_idle(&mut self) -> bool {
        self.pacing.next_ns().is_none() && self.board.is_idle()
    }

    /// Lets the machine run, and hands over what is due on the way. `to_output`: no longer than until something comes out.
    fn run_until(&mut self, end_ns: u64, to_output: bool, open: &mut Open<'_, '_>) {
        loop {
            let now_ns = self.board.now_ns();
            while let Some((sender, data)) = self.pacing.pop(now_ns) {
                self.hand_over(sender, data, open);
            }
            if now_ns >= end_ns {
                return;
            }
            let to_ns = self.pacing.next_ns().map_or(end_ns, |next_ns| next_ns.min(end_ns));
            if to_output {
                self.board.run_to_output(to_ns);
            } else {
                self.board.run_until(to_ns);
            }
            if self.board.now_ns() < to_ns {
                // Something has come out, or a debugger has it.
                return;
            }
        }
    }

    /// A datagram has come in.
    fn come(&mut self, datagram: Incoming, open: &mut Open<'_, '_>) {
        let from = datagram.from;
        let sender = match datagram.port {
            Port::Bmp => return self.manage(&datagram.data, from, open),
            Port::Board(board, port) => Sender { board, port, host: from },
        };
        let came_ns = datagram.at.saturating_duration_since(self.epoch).as_nanos() as u64;
        let seq = question(sender.port, &datagram.data);
        let waits = self.pacing.push(sender, came_ns, self.board.now_ns(), seq, datagram.data);
        if !waits && self.packets {
            self.say(format!("{from}: lost, too many datagrams wait for the machine"));
        }
    }

    /// A datagram goes to the machine.
    fn hand_over(&mut self, sender: Sender, data: Vec<u8>, open: &mut Open<'_, '_>) {
        let Sender { board: number, port, host: from } = sender;
        let ports = self.server.boards[number].ports;
        self.note_client(from, port, ports.chip);
        match port {
            SCP_PORT => self.note_scp(number, from, &data, open),
            BOOT_PORT => self.note_boot(from, &data),
            _ => {}
        }
        let sent = self.board.send(&Datagram { board: ports.chip, host: from, port, time_ns: 0, data });
        if !sent && self.packets {
            self.say(format!("{from}: lost, the board is off or the datagram does not fit a frame"));
        }
    }

    fn note_client(&mut self, from: SocketAddrV4, port: u16, chip: ChipXy) {
        if self.clients.len() < CLIENTS_MAX && self.clients.insert((from, chip, port)) {
            self.say(format!("client {from}: first datagram to port {port} of board {},{}", chip.x, chip.y));
        }
    }

    fn note_scp(&mut self, number: usize, from: SocketAddrV4, data: &[u8], open: &mut Open<'_, '_>) {
        let Ok(packet) = sdp::Packet::from_udp(data) else { return };
        let header = packet.repr();
        let request = scp::Request::parse(packet.body);
        if self.packets {
            match &request {
                Ok(request) => self.say(format!("{from}: {} {request}", header.destination)),
                Err(_) => self.say(format!("{from}: {packet}")),
            }
        }
        let Ok(scp::Request { command: scp::Command::IpTag(command), .. }) = request else { return };
        if header.destination.port != CorePort::MONITOR {
            return;
        }
        match command {
            iptag::Command::Set { tag, target } if target.reverse => {
                let address = SocketAddrV4::new(self.server.boards[number].ports.address, target.port);
                match open.open_tag(number, tag, address) {
                    Ok(()) => self.say(format!("reverse IP tag {tag}: listening on {address}")),
                    Err(e) => self.say(format!("reverse IP tag {tag}: {e}")),
                }
            }
            iptag::Command::Set { tag, .. } | iptag::Command::Clear { tag } => open.close_tag(number, tag),
            _ => {}
        }
    }

    fn note_boot(&mut self, from: SocketAddrV4, data: &[u8]) {
        if let Ok(message @ (boot::Repr::Start { .. } | boot::Repr::Control { .. })) = boot::Repr::parse(data) {
            self.say(format!("{from}: {message}"));
        }
    }

    fn manage(&mut self, data: &[u8], from: SocketAddrV4, open: &mut Open<'_, '_>) {
        let answer = self.bmp.answer(data);
        if let Some(text) = answer.log {
            self.say(format!("{from}: {text}"));
        }
        if let Some(change) = answer.power {
            self.board.power(&change);
            // Their tags went with their monitors.
            let switched = |number: usize| change.get(number).is_some_and(Option::is_some);
            let gone: Vec<_> = open.tags.keys().copied().filter(|(number, _)| switched(*number)).collect();
            gone.into_iter().for_each(|(number, tag)| open.close_tag(number, tag));
        }
        if let Some(reply) = answer.reply {
            // A client that has gone is no concern of the board.
            let _ = self.server.bmp.send_to(&reply, from);
        }
    }

    /// Sends what has come out; whether there was anything.
    fn give_out(&mut self, open: &Open<'_, '_>) -> bool {
        let mut any = false;
        while let Some(datagram) = self.board.receive() {
            let Some(number) = self.server.boards.iter().position(|b| b.ports.chip == datagram.board) else { continue };
            if datagram.host.ip().is_broadcast() {
                continue;
            }
            any = true;
            let sender = Sender { board: number, port: datagram.port, host: datagram.host };
            let reply =
                sdp::Packet::from_udp(&datagram.data).and_then(|packet| scp::Packet::new_checked(packet.body)).ok();
            self.pacing.answered(sender, self.board.now_ns(), reply.as_ref().map(|reply| reply.seq()));
            if let Some(reply) = reply.filter(|_| self.packets) {
                (self.log)(&LogLine { time_ns: datagram.time_ns, text: format!("to {}: {reply}", datagram.host) });
            }
            let sockets = &self.server.boards[number];
            let socket = match datagram.port {
                BOOT_PORT => &sockets.boot,
                SCP_PORT => &sockets.scp,
                port => open.tag_socket(number, port).unwrap_or(&sockets.scp),
            };
            if let Err(e) = socket.send_to(&datagram.data, datagram.host) {
                (self.log)(&LogLine { time_ns: datagram.time_ns, text: format!("to {}: {e}", datagram.host) });
            }
        }
        any
    }
}

/// The sequence number of an SCP request that wants an answer.
fn question(port: u16, data: &[u8]) -> Option<u16> {
    let packet =
        sdp::Packet::from_udp(data).ok().filter(|packet| port == SCP_PORT && packet.repr().flags.wants_reply())?;
    scp::Packet::new_checked(packet.body).ok().map(|request| request.seq())
}

/// What machine time should be.
struct Clock {
    pace: Pace,
    wall: Instant,
    base_ns: u64,
}

impl Clock {
    fn new(pace: Pace, now_ns: u64) -> Self {
        Self { pace, wall: Instant::now(), base_ns: now_ns }
    }

    fn due_ns(&mut self, now_ns: u64, idle: bool) -> u64 {
        match self.pace {
            Pace::Fast if idle => (self.base_ns + self.wall.elapsed().as_nanos() as u64).max(now_ns),
            Pace::Fast => {
                *self = Self::new(self.pace, now_ns);
                now_ns + 2 * SLICE_IDLE_NS
            }
            Pace::Times(factor) => {
                let elapsed_ns = (self.wall.elapsed().as_secs_f64() * factor * 1e9) as u64;
                let due_ns = self.base_ns + elapsed_ns;
                if due_ns > now_ns + BEHIND_MAX_NS {
                    // Too slow a computer: the machine's time is late for good.
                    *self = Self::new(self.pace, now_ns + BEHIND_MAX_NS / 2);
                    return self.base_ns;
                }
                due_ns
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_machine_is_let_off() {
        let mut clock = Clock::new(Pace::Times(1e6), 0);
        std::thread::sleep(Duration::from_millis(2));
        assert_eq!(clock.due_ns(0, false), BEHIND_MAX_NS / 2);
        assert_eq!(Clock::new(Pace::Fast, 7).due_ns(9, false), 9 + 2 * SLICE_IDLE_NS);
        let idle_ns = Clock::new(Pace::Fast, 7).due_ns(7, true);
        assert!((7..BEHIND_MAX_NS).contains(&idle_ns), "an idle machine follows the clock: {idle_ns}");
    }

    #[test]
    fn boards_share_a_port_that_is_free_for_all() {
        let listen = Listen { scp_port: 0, boot_port: 0, ..Listen::default() };
        let chips = [ChipXy::new(0, 0), ChipXy::new(4, 8), ChipXy::new(8, 4)];
        let server = Server::bind(&listen, &chips).unwrap();
        let boards = server.boards();
        assert!(boards.iter().all(|b| b.scp_port == boards[0].scp_port && b.boot_port == boards[0].boot_port));
        assert_eq!(boards[2].address, Ipv4Addr::new(127, 0, 0, 3));
        assert_eq!(*server.bmp().ip(), Ipv4Addr::new(127, 0, 0, 4));
        let busy = Listen { scp_port: boards[0].scp_port, ..listen };
        let error = Server::bind(&busy, &chips[..1]).err().expect("in use");
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        assert!(error.to_string().starts_with("127.0.0.1:"), "{error}");
    }
}
