//! A machine on UDP sockets: an echo of a board behind the server, and the official monitor against nonsense.

mod common;

use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::time::Duration;

use spinnaker_machine::{ChipXy, Machine};
use spinnaker_sim::cycle::CycleConfig;
use spinnaker_sim::face::{
    BOOT_PORT, CycleBoard, Datagram, Listen, LogLine, Pace, Request, SCP_PORT, Server, VirtualBoard, boot_from_within,
};
use spinnaker_wire::iptag::{self, Target};
use spinnaker_wire::scp::{self, Command};
use spinnaker_wire::sdp::{self, Endpoint};
use spinnaker_wire::sv::{Board, BootVariables};
use spinnaker_wire::{ChipAddress, CorePort, bmp};

const CHIPS: [ChipXy; 2] = [ChipXy { x: 0, y: 0 }, ChipXy { x: 8, y: 4 }];

/// Sends every datagram back, the port in front, a millisecond later.
#[derive(Default)]
struct Echo {
    now_ns: u64,
    waiting: Vec<Datagram>,
    switched: Vec<Vec<Option<bool>>>,
    log: Vec<LogLine>,
}

impl VirtualBoard for Echo {
    fn now_ns(&self) -> u64 {
        self.now_ns
    }

    fn run_until(&mut self, end_ns: u64) {
        self.now_ns = end_ns;
    }

    fn boards(&self) -> Vec<(ChipXy, Ipv4Addr)> {
        CHIPS.iter().map(|chip| (*chip, Ipv4Addr::LOCALHOST)).collect()
    }

    fn send(&mut self, datagram: &Datagram) -> bool {
        let mut back = datagram.clone();
        back.time_ns = self.now_ns + 1_000_000;
        back.data.insert(0, datagram.board.x);
        back.data.splice(0..0, datagram.port.to_be_bytes());
        self.waiting.push(back);
        true
    }

    fn receive(&mut self) -> Option<Datagram> {
        let first = self.waiting.first()?;
        (first.time_ns <= self.now_ns).then(|| self.waiting.remove(0))
    }

    fn power(&mut self, boards: &[Option<bool>]) {
        self.switched.push(boards.to_vec());
        self.log.push(LogLine { time_ns: self.now_ns, text: "switched".into() });
    }

    fn take_log(&mut self) -> Vec<LogLine> {
        std::mem::take(&mut self.log)
    }

    fn snapshot(&mut self) -> String {
        "nothing moves\n".into()
    }
}

fn client() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    socket.set_read_timeout(Some(Duration::from_secs(5))).expect("a time-out");
    socket
}

fn ask(socket: &UdpSocket, to: (Ipv4Addr, u16), data: &[u8]) -> (Vec<u8>, std::net::SocketAddr) {
    let mut buffer = [0; 2000];
    socket.send_to(data, to).expect("sent");
    let (length, from) = socket.recv_from(&mut buffer).expect("an answer");
    (buffer[..length].to_vec(), from)
}

fn request(destination: Endpoint, command: Command<'_>) -> Vec<u8> {
    let mut buffer = [0; sdp::UDP_BYTES_MAX];
    let header = sdp::Repr::request(destination);
    let length = scp::emit_udp_request(&header, &scp::Request { seq: 1, command }, &mut buffer).expect("fits");
    buffer[..length].to_vec()
}

#[test]
fn datagrams_find_their_boards_and_back() {
    let listen = Listen { address: Ipv4Addr::new(127, 0, 41, 1), scp_port: 0, boot_port: 0, bmp_address: None };
    let server = Server::bind(&listen, &CHIPS).expect("free ports");
    let (requests, receiver) = channel();
    let stop = AtomicBool::new(false);
    let mut echo = Echo::default();
    let mut log = Vec::new();
    std::thread::scope(|scope| {
        let (server, echo, stop, log) = (&server, &mut echo, &stop, &mut log);
        let running = scope.spawn(move || {
            server.run(echo, Pace::Times(1.0), true, &receiver, stop, &mut |line| log.push(line.to_string()))
        });
        let socket = client();
        for (ports, x) in server.boards().iter().zip([0, 8]) {
            let port = |port: u16| [&port.to_be_bytes()[..], &[x]].concat();
            let (answer, from) = ask(&socket, (ports.address, ports.scp_port), b"abc");
            assert_eq!(answer, [&port(SCP_PORT)[..], b"abc"].concat());
            assert_eq!(from, (ports.address, ports.scp_port).into());
            let (answer, from) = ask(&socket, (ports.address, ports.boot_port), &[7; 1042]);
            assert_eq!((&answer[..3], answer.len()), (&port(BOOT_PORT)[..], 1045));
            assert_eq!(from, (ports.address, ports.boot_port).into());
        }

        // A reverse tag opens a port, another closes it.
        let board = server.boards()[1];
        let free = UdpSocket::bind((board.address, 0)).and_then(|s| s.local_addr()).expect("a free port").port();
        let root = Endpoint::core(ChipAddress::ROOT, 0);
        let set = |target| request(root, Command::IpTag(iptag::Command::Set { tag: 2, target }));
        let reverse = Target::reverse(free, ChipAddress::new(8, 4), CorePort::new(3, 1));
        ask(&socket, (board.address, board.scp_port), &set(reverse));
        let (answer, from) = ask(&socket, (board.address, free), b"event");
        assert_eq!(answer, [&free.to_be_bytes()[..], &[8], b"event"].concat());
        assert_eq!(from, (board.address, free).into(), "answers come from the tag's port");
        ask(&socket, (board.address, board.scp_port), &request(root, Command::IpTag(iptag::Command::Clear { tag: 2 })));
        assert!(UdpSocket::bind((board.address, free)).is_ok(), "free again");

        // The management processor.
        let power = bmp::Request { seq: 5, command: bmp::Command::Power { on: false, delay_ms: 0, boards: 2 } };
        let mut body = [0; 16];
        power.emit(&mut body).expect("fits");
        let mut datagram = [0; 26];
        sdp::Repr::request(bmp::board(0)).emit_udp(&body, &mut datagram).expect("fits");
        let (answer, from) = ask(&socket, (*server.bmp().ip(), server.bmp().port()), &datagram);
        assert_eq!((answer[10], answer[12]), (0x80, 5));
        assert_eq!(from, server.bmp().into());

        requests.send(Request::Snapshot).expect("running");
        requests.send(Request::Quit).expect("running");
        running.join().expect("no panic").expect("served");
    });
    assert_eq!(echo.switched, [[None, Some(false)]]);
    let has = |text: &str| log.iter().any(|line| line.contains(text));
    for text in [
        "first datagram to port 17893 of board 0,0",
        "first datagram to port 54321 of board 8,4",
        "reverse IP tag 2: listening on 127.0.41.2:",
        "255,255,0 scp seq 1 IPTAG clear 2",
        "BMP: power off of board 1",
        "nothing moves",
        "switched",
    ] {
        assert!(has(text), "no `{text}` in {log:#?}");
    }
    assert!(!stop.load(Ordering::Relaxed));
}

/// A machine that is far slower than real time, and notes when datagrams come.
#[derive(Default)]
struct Slow {
    echo: Echo,
    came_ns: Vec<u64>,
}

impl VirtualBoard for Slow {
    fn now_ns(&self) -> u64 {
        self.echo.now_ns
    }

    fn run_until(&mut self, end_ns: u64) {
        std::thread::sleep(Duration::from_nanos(50 * (end_ns - self.echo.now_ns)));
        self.echo.now_ns = end_ns;
    }

    fn boards(&self) -> Vec<(ChipXy, Ipv4Addr)> {
        self.echo.boards()
    }

    fn send(&mut self, _: &Datagram) -> bool {
        self.came_ns.push(self.echo.now_ns);
        true
    }

    fn receive(&mut self) -> Option<Datagram> {
        None
    }

    fn power(&mut self, _: &[Option<bool>]) {}

    fn take_log(&mut self) -> Vec<LogLine> {
        Vec::new()
    }

    fn snapshot(&mut self) -> String {
        String::new()
    }
}

#[test]
fn datagrams_keep_their_spacing_before_a_machine_that_is_behind() {
    const COUNT: u32 = 6;
    const GAP: Duration = Duration::from_millis(4);
    let listen = Listen { address: Ipv4Addr::new(127, 0, 42, 1), scp_port: 0, boot_port: 0, bmp_address: None };
    let server = Server::bind(&listen, &CHIPS[..1]).expect("free ports");
    let (requests, receiver) = channel();
    let stop = AtomicBool::new(false);
    let mut slow = Slow::default();
    std::thread::scope(|scope| {
        let (server, slow, stop) = (&server, &mut slow, &stop);
        let running = scope.spawn(move || server.run(slow, Pace::Times(1.0), false, &receiver, stop, &mut |_| {}));
        let (socket, board) = (client(), server.boards()[0]);
        for _ in 0..COUNT {
            socket.send_to(b"block", (board.address, board.boot_port)).expect("sent");
            std::thread::sleep(GAP);
        }
        // The last is due some 20 ms of machine time after the first, which is a second of this machine.
        std::thread::sleep(Duration::from_millis(2500));
        requests.send(Request::Quit).expect("running");
        running.join().expect("no panic").expect("served");
    });
    assert_eq!(slow.came_ns.len(), COUNT as usize);
    let (first, last) = (slow.came_ns[0], slow.came_ns[COUNT as usize - 1]);
    // A reader that is late on a busy computer sees less between two; over all it cannot be half.
    assert!(u128::from(last - first) > GAP.as_nanos() * u128::from(COUNT - 1) / 2, "{:?}", slow.came_ns);
}

/// Numbers from a seed.
struct Draw(u64);

impl Draw {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn bytes(&mut self, most: u64) -> Vec<u8> {
        let length = self.next() % (most + 1);
        (0..length).map(|_| self.next() as u8).collect()
    }
}

fn send(board: &mut CycleBoard, port: u16, data: Vec<u8>) {
    let host = "10.1.1.1:999".parse().expect("an address");
    board.send(&Datagram { board: ChipXy::new(0, 0), host, port, time_ns: 0, data });
    let end_ns = board.now_ns() + 200_000;
    board.run_until(end_ns);
}

fn is_answered(board: &mut CycleBoard) -> bool {
    while board.receive().is_some() {}
    send(board, SCP_PORT, request(Endpoint::core(ChipAddress::ROOT, 0), Command::Version));
    let end_ns = board.now_ns() + 20_000_000;
    board.run_until(end_ns);
    std::iter::from_fn(|| board.receive()).any(|reply| reply.data.len() > 40)
}

#[test]
fn nonsense_at_the_ports_does_not_stop_the_monitor() {
    let Some(image) = common::boot_image() else {
        println!("not run: no boot image (SPINNAKER_BOOT_IMAGE, or an installed SpiNNMan)");
        return;
    };
    let mut draw = Draw(0x5EED);
    let mut board = CycleBoard::new(Machine::spin3(), CycleConfig::default());
    // To the ROM: what is no boot message, and blocks out of order for an image that never starts.
    for _ in 0..100 {
        let data = draw.bytes(1400);
        send(&mut board, BOOT_PORT, data);
        let mut message = vec![0, 1, 0, 0, 0, [3, 7, 9][draw.next() as usize % 3]];
        message.extend(draw.bytes(1100));
        send(&mut board, BOOT_PORT, message);
    }
    assert!(boot_from_within(&mut board, &[0; 5000], &BootVariables::host_defaults()).is_err());
    board.power(&[Some(true)]);
    boot_from_within(&mut board, &image, &BootVariables::for_board(Board::Spin3, 0x5F00_0000)).expect("an image");
    let end_ns = board.now_ns() + 6_000_000_000;
    board.run_until(end_ns);
    assert!(is_answered(&mut board));

    // To the monitor: any bytes, unknown commands, wrong lengths, to cores that are not there.
    for _ in 0..300 {
        send(&mut board, SCP_PORT, draw.bytes(1472));
        let mut body = vec![33 + draw.next() as u8 % 200, 0, 1, 0];
        body.extend(draw.bytes(268));
        let destination =
            Endpoint { chip: ChipAddress(draw.next() as u16 & 0x0303), port: CorePort(draw.next() as u8 & 0xE0) };
        let mut datagram = [0; sdp::UDP_BYTES_MAX];
        let length = sdp::Repr::request(destination).emit_udp(&body, &mut datagram).expect("fits");
        send(&mut board, SCP_PORT, datagram[..length].to_vec());
    }
    let end_ns = board.now_ns() + 4_000_000_000;
    board.run_until(end_ns);
    assert!(is_answered(&mut board), "{}", board.snapshot());

    // Commands with any arguments may well stop it, as they do on a board; but never the simulator.
    for _ in 0..300 {
        let mut body = vec![draw.next() as u8 % 33, 0, 1, 0];
        body.extend(draw.bytes(268));
        let core = draw.next() as u8 % 20;
        let destination = Endpoint::core(ChipAddress(draw.next() as u16 & 0x0101), core);
        let mut datagram = [0; sdp::UDP_BYTES_MAX];
        let length = sdp::Repr::request(destination).emit_udp(&body, &mut datagram).expect("fits");
        send(&mut board, SCP_PORT, datagram[..length].to_vec());
    }
    assert!(board.snapshot().lines().count() >= 5);
    let _: Vec<SocketAddrV4> = std::iter::from_fn(|| board.receive()).map(|reply| reply.host).collect();
}
