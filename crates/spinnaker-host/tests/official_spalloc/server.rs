//! The official allocation server in front of machines that are not there: its management processors are virtual ones.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use spinnaker_sim::face::Bmp;
use spinnaker_wire::{bmp, sdp};

/// Starts the server, without the five seconds that it waits after power, and ends it with this process.
const LAUNCHER: &str = "
import os, sys, threading
def follow():
    sys.stdin.read()
    os._exit(0)
threading.Thread(target=follow, daemon=True).start()
import spinnman.transceiver
spinnman.transceiver.BMP_POST_POWER_ON_SLEEP_TIME = 0.0
from spalloc_server.server import main
sys.exit(main(sys.argv[1:]))
";

/// A frame's management processor on UDP.
struct Frame {
    address: Ipv4Addr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Frame {
    fn new(boards: u8) -> Self {
        let (address, socket) = loop {
            let [a, b, c] = [(); 3].map(|()| 1 + (random() % 250) as u8);
            let address = Ipv4Addr::new(127, a, b, c);
            if let Ok(socket) = UdpSocket::bind((address, bmp::UDP_PORT)) {
                break (address, socket);
            }
        };
        let mut processor = Bmp::new(usize::from(boards));
        for (board, fpga) in (0..boards).flat_map(|board| (0..3).map(move |fpga| (board, fpga))) {
            set_flag(&mut processor, board, fpga);
        }
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        socket.set_read_timeout(Some(Duration::from_millis(50))).expect("a socket");
        let thread = thread::spawn(move || {
            let mut datagram = [0; 600];
            while !stopped.load(Ordering::Relaxed) {
                let Ok((length, from)) = socket.recv_from(&mut datagram) else { continue };
                if let Some(reply) = processor.answer(&datagram[..length]).reply {
                    let _ = socket.send_to(&reply, from);
                }
            }
        });
        Self { address, stop, thread: Some(thread) }
    }
}

impl Drop for Frame {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The server checks after power that each FPGA says its number in its flag register.
fn set_flag(processor: &mut Bmp, board: u8, fpga: u32) {
    let data = fpga.to_le_bytes();
    let command = bmp::Command::FpgaWrite { address: 0x0004_0004, fpga, data: &data };
    let (mut body, mut datagram) = ([0; 300], [0; 320]);
    let length = bmp::Request { seq: 1, command }.emit(&mut body).expect("room");
    let length = sdp::Repr::request(bmp::board(board)).emit_udp(&body[..length], &mut datagram).expect("room");
    assert!(processor.answer(&datagram[..length]).reply.is_some());
}

/// Different in each process and call; no test's outcome depends on it.
fn random() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::collections::hash_map::RandomState::new().build_hasher().finish()
}

/// The server. Machine `row` has 2 x 1 triads and the tag `default`; `torus` has one triad and the tag `small`.
pub struct Official {
    child: Child,
    pub port: u16,
    _frames: [Frame; 2],
    _folder: tempfile::TempDir,
}

/// What the boards of `row` are called, by x and z.
pub fn board_host(x: u32, z: u32) -> String {
    format!("10.11.{x}.{z}")
}

impl Official {
    /// `None`, and a word, where it is not installed.
    pub fn start() -> Option<Self> {
        let Some(python) = std::env::var_os("SPALLOC_SERVER_PYTHON") else {
            println!("not run: no official allocation server (SPALLOC_SERVER_PYTHON)");
            return None;
        };
        let frames = [Frame::new(6), Frame::new(3)];
        let folder = tempfile::tempdir().expect("a folder");
        let config = folder.path().join("machines.py");
        std::fs::write(&config, configuration(frames[0].address, frames[1].address)).expect("a file");
        let port = TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a port").port();
        let mut child = Command::new(python)
            .args(["-c", LAUNCHER, "--quiet", "--cold-start", "--port", &port.to_string()])
            .arg(&config)
            // Where it writes its log.
            .current_dir(folder.path())
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the server starts");
        let start = Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            if let Some(status) = child.try_wait().expect("a child") {
                let mut text = String::new();
                child.stderr.take().expect("piped").read_to_string(&mut text).expect("text");
                panic!("the server ended with {status}: {text}");
            }
            assert!(start.elapsed() < Duration::from_secs(30), "the server does not come up");
            thread::sleep(Duration::from_millis(20));
        }
        Some(Self { child, port, _frames: frames, _folder: folder })
    }
}

impl Drop for Official {
    fn drop(&mut self) {
        if let Some(mut stdin) = self.child.stdin.take() {
            let _ = stdin.flush();
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn configuration(row: Ipv4Addr, torus: Ipv4Addr) -> String {
    let boards = |width: u32| (0..width).flat_map(|x| (0..3).map(move |z| (x, z)));
    let places = |width, frame: u32| -> String {
        boards(width).map(|(x, z)| format!("({x}, 0, {z}): (0, {frame}, {}), ", 3 * x + z)).collect()
    };
    let hosts: String = boards(2).map(|(x, z)| format!("({x}, 0, {z}): '{}', ", board_host(x, z))).collect();
    let torus_hosts: String = boards(1).map(|(x, z)| format!("({x}, 0, {z}): '10.12.{x}.{z}', ")).collect();
    format!(
        "row = Machine(name='row', width=2, height=1, board_locations={{{}}}, bmp_ips={{(0, 0): '{row}'}}, spinnaker_ips={{{hosts}}})
torus = Machine(name='torus', tags=set(['small']), width=1, height=1, board_locations={{{}}}, bmp_ips={{(0, 1): '{torus}'}},
    spinnaker_ips={{{torus_hosts}}})
configuration = Configuration(machines=[row, torus], ip='127.0.0.1', timeout_check_interval=0.2, seconds_before_free=0)
",
        places(2, 0),
        places(1, 1)
    )
}
