//! `spidnn board`: a virtual machine as boards on UDP.

use std::collections::BTreeMap;
use std::io::{BufRead, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::json;
use spidnn::Error;
use spidnn::fast_board::fast_board;
use spinnaker_machine::{ChipXy, Fidelity, Locator, Machine, VirtualLocator};
use spinnaker_sim::cycle::{BoardAddress, CycleConfig, default_address};
use spinnaker_sim::face::{
    BOOT_PORT, CycleBoard, GdbBoard, Listen, LogLine, Pace, Request, SCP_PORT, Server, VirtualBoard, boot_from_within,
};
use spinnaker_wire::sv::{Board as Kind, BootVariables};

use crate::args::{Board, Common};
use crate::debugging::Debugging;
use crate::output::Answer;

/// An instruction-level board, with a debugger's port or without.
enum Served {
    Plain(Box<CycleBoard>),
    Debugged(Box<GdbBoard>),
}

impl Served {
    fn board(&mut self) -> &mut CycleBoard {
        match self {
            Self::Plain(board) => board,
            Self::Debugged(board) => board.board(),
        }
    }

    /// The debugger's port.
    fn gdb(&self) -> Option<SocketAddr> {
        match self {
            Self::Plain(_) => None,
            Self::Debugged(board) => board.address().ok(),
        }
    }
}

/// Serves until interrupted.
///
/// # Errors
/// A machine that cannot be served, an address or port that is not to be had, an image that is none.
pub fn run(options: &Board, common: &Common) -> Result<Answer, Error> {
    let locator = virtual_locator(&common.machine)?;
    match locator.fidelity {
        Fidelity::Fast => run_fast(options, common, &locator)?,
        Fidelity::Cycle => run_cycle(options, common, &locator)?,
    }
    Ok(Answer::said())
}

/// Boards of the fast machine, with monitors emulated natively.
fn run_fast(options: &Board, common: &Common, locator: &VirtualLocator) -> Result<(), Error> {
    refuse_cycle_options(options, common)?;
    let machine = locator.machine()?;
    let service = Service::new(options, common, &machine, Pace::Fast)?;
    let addresses = service.server.boards().into_iter().map(|ports| (ports.chip, ports.address)).collect();
    let mut board = fast_board(machine.clone(), locator, addresses, now_unix_s());
    announce(&service.server, &machine, None, common)?;
    service.run(&mut board)
}

/// Options that only the instruction-level machine has.
fn refuse_cycle_options(options: &Board, common: &Common) -> Result<(), Error> {
    let given = [
        ("--boot-image", options.boot_image.is_some()),
        ("--gdb", options.gdb.is_some()),
        ("--break", !options.breaks.is_empty()),
        ("--profile", options.profile.is_some()),
        ("--instruction-trace", !options.instruction_trace.is_empty()),
        ("--trace", common.trace.is_some()),
    ];
    match given.iter().find(|(_, given)| *given) {
        None => Ok(()),
        Some(("--boot-image", _)) => Err(Error::Argument(format!(
            "--boot-image: boards of {} are booted already, with the monitor emulated. Leave it out, or add fidelity=cycle",
            common.machine
        ))),
        Some((option, _)) => Err(Error::Argument(format!(
            "{option}: only boards whose cores execute instructions can do that: add fidelity=cycle to {}",
            common.machine
        ))),
    }
}

/// Boards of the instruction-level machine.
fn run_cycle(options: &Board, common: &Common, locator: &VirtualLocator) -> Result<(), Error> {
    if locator.host_mbps != VirtualLocator::default().host_mbps {
        let machine = &common.machine;
        return Err(Error::Argument(format!(
            "{machine}: boards of fidelity=cycle have 100 Mbit/s: leave host_mbps out"
        )));
    }
    let machine = locator.machine()?;
    let image = options.boot_image.as_deref().map(read_image).transpose()?;
    let mut debugging = Debugging::new(options, common, &machine)?;
    let service = Service::new(options, common, &machine, Pace::Times(1.0))?;
    let board = CycleBoard::new(machine.clone(), config(locator, &service.server));
    let mut board = match debugging.gdb {
        None => Served::Plain(Box::new(board)),
        Some(place) => {
            let address = service.address;
            let board = GdbBoard::new(board, place, address, options.gdb_port).map_err(|e| {
                Error::Argument(format!("cannot listen on {e}. Give another port with --gdb-port (0: any)"))
            })?;
            Served::Debugged(Box::new(board))
        }
    };
    debugging.start(board.board());
    announce(&service.server, &machine, board.gdb(), common)?;
    if let Some(image) = image {
        boot_from_within(board.board(), &image, &variables(&machine))
            .map_err(|e| Error::Argument(format!("--boot-image: {e}")))?;
    }
    match &mut board {
        Served::Plain(board) => service.run(&mut **board)?,
        Served::Debugged(board) => service.run(&mut **board)?,
    }
    debugging.end(board.board())
}

/// Open sockets, and how they are to be served.
struct Service {
    server: Server,
    address: Ipv4Addr,
    pace: Pace,
    packets: bool,
    quiet: bool,
    stop: Arc<AtomicBool>,
}

impl Service {
    fn new(options: &Board, common: &Common, machine: &Machine, default_pace: Pace) -> Result<Self, Error> {
        let listen = listen(options)?;
        let pace = options.pace.as_deref().map_or(Ok(default_pace), pace)?;
        let chips: Vec<ChipXy> = machine.chips.iter().filter(|(_, chip)| chip.ethernet).map(|(xy, _)| *xy).collect();
        let server = Server::bind(&listen, &chips).map_err(|e| {
            Error::Argument(format!("cannot listen on {e}. Give another address or port with --listen (port 0: any)"))
        })?;
        let stop = Arc::new(AtomicBool::new(false));
        let set = Arc::clone(&stop);
        ctrlc::set_handler(move || {
            if set.swap(true, Ordering::Relaxed) {
                std::process::exit(130);
            }
        })
        .map_err(|e| Error::Argument(format!("the handler for Ctrl-C cannot be set: {e}")))?;
        Ok(Self { server, address: listen.address, pace, packets: options.packets, quiet: common.quiet, stop })
    }

    fn run(&self, board: &mut impl VirtualBoard) -> Result<(), Error> {
        let mut log = |line: &LogLine| {
            if !self.quiet {
                eprintln!("{line}");
            }
        };
        self.server
            .run(board, self.pace, self.packets, &words(), &self.stop, &mut log)
            .map_err(|e| Error::Argument(format!("sockets: {e}")))
    }
}

fn virtual_locator(text: &str) -> Result<VirtualLocator, Error> {
    match text.parse()? {
        Locator::Virtual(locator) => Ok(locator),
        _ => Err(Error::Argument(format!("{text}: `spidnn board` serves virtual machines (virtual:..)"))),
    }
}

fn listen(options: &Board) -> Result<Listen, Error> {
    let text = &options.listen;
    let bad = || Error::Argument(format!("--listen {text}: wants an IPv4 address of this computer, or ADDRESS:PORT"));
    let (address, scp_port) = match text.parse::<SocketAddrV4>() {
        Ok(both) => (*both.ip(), both.port()),
        Err(_) => (text.parse::<Ipv4Addr>().map_err(|_| bad())?, SCP_PORT),
    };
    // A board has to know its own address.
    if address.is_unspecified() || address.is_broadcast() || address.is_multicast() {
        return Err(bad());
    }
    let boot_port = options.boot_port.unwrap_or(if scp_port == 0 { 0 } else { BOOT_PORT });
    if scp_port != 0 && scp_port == boot_port {
        return Err(Error::Argument(format!("port {boot_port}: monitor and boot ROM need different ports")));
    }
    Ok(Listen { address, scp_port, boot_port, bmp_address: options.bmp })
}

fn pace(text: &str) -> Result<Pace, Error> {
    match text.parse::<f64>() {
        Ok(times) if times.is_finite() && times > 0.0 && times <= 1e6 => Ok(Pace::Times(times)),
        _ if text == "fast" => Ok(Pace::Fast),
        _ => Err(Error::Argument(format!("--pace {text}: wants a number above 0 (1: real time), or `fast`"))),
    }
}

fn read_image(path: &Path) -> Result<Vec<u8>, Error> {
    let image = std::fs::read(path).map_err(|e| Error::Argument(format!("{}: {e}", path.display())))?;
    spinnaker_wire::boot_image::BootImage::new_checked(&image)
        .map_err(|e| Error::Argument(format!("{}: no boot image: {e}", path.display())))?;
    Ok(image)
}

fn config(locator: &VirtualLocator, server: &Server) -> CycleConfig {
    let mut addresses = BTreeMap::new();
    for (number, ports) in server.boards().into_iter().enumerate() {
        let [a, b, c, _] = ports.address.octets();
        let (mask, gateway) = if ports.address.is_loopback() {
            (Ipv4Addr::new(255, 0, 0, 0), Ipv4Addr::new(127, 255, 255, 254))
        } else {
            (Ipv4Addr::new(255, 255, 255, 0), Ipv4Addr::new(a, b, c, 254))
        };
        addresses.insert(ports.chip, BoardAddress { ip: ports.address, mask, gateway, ..default_address(number) });
    }
    CycleConfig { addresses, ..CycleConfig::from(locator) }
}

fn variables(machine: &Machine) -> BootVariables {
    let kind = if machine.chips.len() <= 4 { Kind::Spin3 } else { Kind::Spin5 };
    BootVariables::for_board(kind, now_unix_s())
}

fn now_unix_s() -> u32 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs() as u32)
}

/// Says where the boards are: one JSON line, or text.
fn announce(server: &Server, machine: &Machine, gdb: Option<SocketAddr>, common: &Common) -> Result<(), Error> {
    let boards = server.boards();
    let mut out = std::io::stdout().lock();
    let written = if common.json {
        let first = boards.first();
        let mut line = json!({
            "machine": { "locator": common.machine, "chips": machine.chips.len() },
            "address": first.map(|board| board.address.to_string()),
            "scp_port": first.map(|board| board.scp_port),
            "boot_port": first.map(|board| board.boot_port),
            "boards": boards.iter().map(|board| json!({
                "chip": [board.chip.x, board.chip.y],
                "address": board.address.to_string(),
                "scp_port": board.scp_port,
                "boot_port": board.boot_port,
            })).collect::<Vec<_>>(),
            "bmp": { "address": server.bmp().ip().to_string(), "port": server.bmp().port() },
        });
        if let Some(gdb) = gdb {
            line["gdb"] = json!({ "address": gdb.ip().to_string(), "port": gdb.port() });
        }
        writeln!(out, "{line}")
    } else {
        boards
            .iter()
            .try_for_each(|b| {
                let (x, y) = (b.chip.x, b.chip.y);
                writeln!(out, "board {x},{y}: {}, SCP port {}, boot port {}", b.address, b.scp_port, b.boot_port)
            })
            .and_then(|()| writeln!(out, "BMP: {}", server.bmp()))
            .and_then(|()| gdb.map_or(Ok(()), |gdb| writeln!(out, "GDB: target remote {gdb}")))
    };
    written.and_then(|()| out.flush()).map_err(|e| Error::Argument(format!("standard output: {e}")))
}

/// Words from standard input.
fn words() -> Receiver<Request> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            let request = match line.trim() {
                "" => continue,
                "snapshot" | "s" => Request::Snapshot,
                "quit" | "q" => Request::Quit,
                other => {
                    eprintln!("`{other}`: the words are `snapshot` and `quit`");
                    continue;
                }
            };
            if sender.send(request).is_err() {
                return;
            }
        }
    });
    receiver
}
