//! Boards in this process, of either fidelity, and the application that runs on both.
#![allow(dead_code, reason = "each test file uses a part")]

pub mod application;
#[path = "../../../spinnaker-sim/tests/common/boot_image.rs"]
mod image;
pub mod rough;

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddrV4};
use std::rc::Rc;
use std::time::Duration;

use spinnaker_host::{BootOptions, Channel, Link, Options, Transceiver};
use spinnaker_machine::{ChipXy, Machine};
use spinnaker_sim::cycle::CycleConfig;
use spinnaker_sim::face::{BOOT_PORT, CycleBoard, Datagram, FastBoard, SCP_PORT, VirtualBoard};
use spinnaker_sim::monitor::MonitorConfig;
use spinnaker_wire::sv::Board;

pub const HOST: SocketAddrV4 = SocketAddrV4::new(std::net::Ipv4Addr::new(192, 168, 240, 254), 12_345);
/// Machine time between looks at what has come out, for a machine that does not stop by itself.
const STEP_NS: u64 = 20_000;

/// The official boot image; says if there is none.
pub fn boot_image() -> Option<Vec<u8>> {
    let image = image::boot_image();
    if image.is_none() {
        println!("not run: no official boot image (SPINNAKER_BOOT_IMAGE, or an installed SpiNNMan)");
    }
    image
}

/// A machine and what has come out of its boards.
pub struct Shared<B> {
    pub board: B,
    step_ns: u64,
    out: BTreeMap<(ChipXy, u16), VecDeque<Vec<u8>>>,
}

/// The way to one board of a machine in this process, whose time passes while somebody waits.
pub struct InProcess<B> {
    pub shared: Rc<RefCell<Shared<B>>>,
    chip: ChipXy,
}

impl<B: VirtualBoard> InProcess<B> {
    /// The way to the root's board.
    pub fn new(board: B, step_ns: u64) -> Self {
        let chip = board.boards()[0].0;
        Self { shared: Rc::new(RefCell::new(Shared { board, step_ns, out: BTreeMap::new() })), chip }
    }

    /// Another way to the same board.
    pub fn again(&self) -> Self {
        Self { shared: Rc::clone(&self.shared), chip: self.chip }
    }

    /// The way to another board of the same machine.
    pub fn to(&self, ip: IpAddr) -> Option<Self> {
        let boards = self.shared.borrow().board.boards();
        let (chip, _) = boards.into_iter().find(|(_, address)| IpAddr::from(*address) == ip)?;
        Some(Self { shared: Rc::clone(&self.shared), chip })
    }
}

fn port(channel: Channel) -> u16 {
    if channel == Channel::Scp { SCP_PORT } else { BOOT_PORT }
}

impl<B: VirtualBoard> Link for InProcess<B> {
    fn board(&self) -> String {
        format!("virtual {}", self.chip)
    }

    fn now(&self) -> Duration {
        Duration::from_nanos(self.shared.borrow().board.now_ns())
    }

    async fn send(&mut self, channel: Channel, datagram: &[u8]) -> io::Result<()> {
        let data = datagram.to_vec();
        let datagram = Datagram { board: self.chip, host: HOST, port: port(channel), time_ns: 0, data };
        self.shared.borrow_mut().board.send(&datagram);
        Ok(())
    }

    async fn receive(&mut self, channel: Channel, buffer: &mut [u8], deadline: Duration) -> io::Result<Option<usize>> {
        let end_ns = deadline.as_nanos() as u64;
        let shared = &mut *self.shared.borrow_mut();
        loop {
            while let Some(datagram) = shared.board.receive() {
                shared.out.entry((datagram.board, datagram.port)).or_default().push_back(datagram.data);
            }
            if let Some(data) = shared.out.get_mut(&(self.chip, port(channel))).and_then(VecDeque::pop_front) {
                buffer[..data.len()].copy_from_slice(&data);
                return Ok(Some(data.len()));
            }
            let now_ns = shared.board.now_ns();
            if now_ns >= end_ns {
                return Ok(None);
            }
            shared.board.run_to_output(end_ns.min(now_ns.saturating_add(shared.step_ns)));
        }
    }
}

/// The fast machine behind its emulated monitors, with the application of the tests.
pub fn fast(machine: Machine) -> InProcess<FastBoard> {
    let config = MonitorConfig { unix_time_s: 0x5F00_0000, ..MonitorConfig::default() };
    InProcess::new(FastBoard::new(machine, config, Box::new(application::Known)), u64::MAX)
}

/// A board of four chips at the level of instructions, with the official monitor booted; `None` without its image.
pub async fn official() -> Option<Transceiver<InProcess<CycleBoard>>> {
    let image = boot_image()?;
    let board = CycleBoard::new(Machine::spin3(), CycleConfig::default());
    let mut board = Transceiver::over(InProcess::new(board, STEP_NS), Options::default());
    let options = BootOptions::new(Board::Spin3, 0x5F00_0000);
    let kernel = board.boot(&image, &options).await.expect("boots");
    assert_eq!(kernel.name, "SC&MP");
    Some(board)
}
