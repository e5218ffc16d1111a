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
use spinnaker_machine::{ChipXy, Fidelity, Locator, Machine, VirtualLocator};
use spinnaker_sim::cycle::{BoardAddress, CycleConfig, default_address};
use spinnaker_sim::face::{
    BOOT_PORT, CycleBoard, GdbBoard, Listen, LogLine, Pace, Request, SCP_PORT, Server, boot_from_within,
};
use spinnaker_wire::sv::{Board as Kind, BootVariables};

use crate::args::{Board, Common};
use crate::debugging::Debugging;
use crate::output::Answer;

/// A board, with a debugger's port or without.
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
    let locator = cycle_locator(&common.machine)?;
    let machine = locator.machine()?;
    let listen = listen(options)?;
    let pace = pace(&options.pace)?;
    let image = options.boot_image.as_deref().map(read_image).transpose()?;
    let mut debugging = Debugging::new(options, common, &machine)?;

    let chips: Vec<ChipXy> = machine.chips.iter().filter(|(_, chip)| chip.ethernet).map(|(xy, _)| *xy).collect();
    let server = Server::bind(&listen, &chips).map_err(|e| {
        Error::Argument(format!("cannot listen on {e}. Give another address or port with --listen (port 0: any)"))
    })?;
    let board = CycleBoard::new(machine.clone(), config(&locator, &server));
    let mut board = match debugging.gdb {
        None => Served::Plain(Box::new(board)),
        Some(place) => {
            let board = GdbBoard::new(board, place, listen.address, options.gdb_port).map_err(|e| {
                Error::Argument(format!("cannot listen on {e}. Give another port with --gdb-port (0: any)"))
            })?;
            Served::Debugged(Box::new(board))
        }
    };
    debugging.start(board.board());
    let stop = Arc::new(AtomicBool::new(false));
    let set = Arc::clone(&stop);
    ctrlc::set_handler(move || {
        if set.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
    })
    .map_err(|e| Error::Argument(format!("the handler for Ctrl-C cannot be set: {e}")))?;
    announce(&server, &machine, board.gdb(), common)?;
    if let Some(image) = image {
        boot_from_within(board.board(), &image, &variables(&machine))
            .map_err(|e| Error::Argument(format!("--boot-image: {e}")))?;
    }
    let quiet = common.quiet;
    let mut log = |line: &LogLine| {
        if !quiet {
            eprintln!("{line}");
        }
    };
    match &mut board {
        Served::Plain(board) => server.run(&mut **board, pace, options.packets, &words(), &stop, &mut log),
        Served::Debugged(board) => server.run(&mut **board, pace, options.packets, &words(), &stop, &mut log),
    }
    .map_err(|e| Error::Argument(format!("sockets: {e}")))?;
    debugging.end(board.board())?;
    Ok(Answer::said())
}

fn cycle_locator(text: &str) -> Result<VirtualLocator, Error> {
    let locator = match text.parse()? {
        Locator::Virtual(locator) => locator,
        _ => return Err(Error::Argument(format!("{text}: `spidnn board` serves virtual machines (virtual:..)"))),
    };
    if locator.fidelity != Fidelity::Cycle {
        return Err(Error::Argument(format!(
            "{text}: in this version boards on UDP are of the instruction-level kind: add fidelity=cycle \
             (virtual:spin5?fidelity=cycle)"
        )));
    }
    if locator.host_mbps != VirtualLocator::default().host_mbps {
        return Err(Error::Argument(format!("{text}: boards of fidelity=cycle have 100 Mbit/s: leave host_mbps out")));
    }
    Ok(locator)
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
    let now_s = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs() as u32);
    BootVariables::for_board(kind, now_s)
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
