//! What tests and examples of the instruction-level machine share: finding official images, booting, asking.
#![allow(dead_code, unused_imports)]

pub mod bare;
mod boot_image;
pub mod messages;
pub mod spin3;

use std::path::{Path, PathBuf};
use std::process::Command;

pub use boot_image::boot_image;
use spinnaker_machine::ChipXy;
use spinnaker_sim::cycle::{BOOT_PORT, CycleMachine, Datagram};

/// A millisecond, ns.
pub const MS: u64 = 1_000_000;

/// Folders of installed Python packages.
fn site_packages() -> Vec<PathBuf> {
    const SCRIPT: &str = "import site, sysconfig; \
        print('\\n'.join({*site.getsitepackages(), site.getusersitepackages(), sysconfig.get_paths()['purelib']}))";
    let output = Command::new("python3").args(["-c", SCRIPT]).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    let mut folders: Vec<PathBuf> = text.lines().map(PathBuf::from).collect();
    folders.sort();
    folders
}

/// An official application file: in the folder of the environment variable `SPINNAKER_APLX`, or in an installed package.
pub fn aplx(name: &str) -> Option<Vec<u8>> {
    let named = std::env::var_os("SPINNAKER_APLX").map(PathBuf::from);
    let packages = ["spinn_front_end_common", "spynnaker", "spinnman", "spinnaker_graph_front_end"];
    let folders = site_packages().into_iter().flat_map(|folder| packages.map(|package| folder.join(package)));
    named.into_iter().chain(folders).find_map(|folder| std::fs::read(find(&folder, name, 6)?).ok())
}

fn find(folder: &Path, name: &str, depth: usize) -> Option<PathBuf> {
    let direct = folder.join(name);
    if direct.is_file() {
        return Some(direct);
    }
    if depth == 0 {
        return None;
    }
    let mut entries: Vec<PathBuf> = std::fs::read_dir(folder).ok()?.flatten().map(|entry| entry.path()).collect();
    entries.sort();
    entries.iter().filter(|path| path.is_dir()).find_map(|path| find(path, name, depth - 1))
}

/// System variables as a host sets them in the image.
pub fn patch(image: &mut [u8], version: u8, led: u32) {
    const SV: usize = 0x180;
    image[SV + 0x0A] = version;
    image[SV + 0x1C..SV + 0x20].copy_from_slice(&0x5F00_0000u32.to_le_bytes());
    image[SV + 0x30..SV + 0x34].copy_from_slice(&led.to_le_bytes());
    image[SV + 0x40] = 1;
    image[SV + 0x5C..SV + 0x60].copy_from_slice(&0x5F00_0000u32.to_le_bytes());
}

/// A message of the boot protocol.
pub fn boot_message(opcode: u32, operand1: u32, operand3: u32, block: &[u8]) -> Vec<u8> {
    let mut data = 1u16.to_be_bytes().to_vec();
    for word in [opcode, operand1, 0, operand3] {
        data.extend_from_slice(&word.to_be_bytes());
    }
    data.extend(block.chunks_exact(4).flat_map(|word| [word[3], word[2], word[1], word[0]]));
    data
}

/// The messages that carry an image.
pub fn boot_messages(image: &[u8]) -> Vec<Vec<u8>> {
    let blocks = image.len().div_ceil(1024) as u32;
    let mut messages = vec![boot_message(1, 0, blocks - 1, &[])];
    for (number, block) in image.chunks(1024).enumerate() {
        let mut block = block.to_vec();
        block.resize(1024, 0);
        messages.push(boot_message(3, 255 << 8 | number as u32, 0, &block));
    }
    messages.push(boot_message(5, 1, 0, &[]));
    messages
}

/// The Ethernet chip that a host boots.
pub fn root(machine: &CycleMachine) -> ChipXy {
    machine.boards().next().map_or(ChipXy::new(0, 0), |(xy, _)| xy)
}

/// A datagram from the test's host.
pub fn datagram(machine: &CycleMachine, port: u16, data: Vec<u8>) -> Datagram {
    let host = "192.168.240.254:12345".parse().expect("an address");
    Datagram { board: root(machine), host, port, time_ns: 0, data }
}

/// Sends an image, one message a millisecond.
pub fn boot(machine: &mut CycleMachine, image: &[u8]) {
    machine.run_for(150 * MS);
    for message in boot_messages(image) {
        let datagram = datagram(machine, BOOT_PORT, message);
        assert!(machine.send(&datagram));
        machine.run_for(MS);
    }
}

/// Runs until the root says that the network is up.
pub fn until_up(machine: &mut CycleMachine, limit_ms: u64) -> bool {
    let root = root(machine);
    let end = machine.now_ns() + limit_ms * MS;
    while machine.now_ns() < end {
        machine.run_for(10 * MS);
        let sv = machine.peek(root, 0xF500_7F00, 256).unwrap_or_default();
        if sv.get(6) == Some(&1) && sv.get(0x2D) == Some(&0xFF) {
            return true;
        }
    }
    false
}

/// An SCP request to a core of a chip: command, arguments, data.
pub fn scp(chip: ChipXy, core: u8, command: u16, arguments: [u32; 3], data: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0, 0, 0x87, 0xFF, core, 0xFF, chip.y, chip.x, 0, 0];
    bytes.extend_from_slice(&command.to_le_bytes());
    bytes.extend_from_slice(&[0, 0]);
    for argument in arguments {
        bytes.extend_from_slice(&argument.to_le_bytes());
    }
    bytes.extend_from_slice(data);
    bytes
}

/// Asks and waits for the reply: its return code and what follows the sequence number.
pub fn ask(machine: &mut CycleMachine, request: Vec<u8>) -> Option<(u16, Vec<u8>)> {
    let datagram = datagram(machine, 17893, request);
    let reply = machine.request(&datagram, 500 * MS)?;
    let code = u16::from_le_bytes([*reply.data.get(10)?, *reply.data.get(11)?]);
    Some((code, reply.data.get(14..)?.to_vec()))
}

/// Bytes moved a microsecond by requests to read or write 256 bytes, with so many under way, over 400 of them.
pub fn megabytes_per_second(machine: &mut CycleMachine, chip: ChipXy, command: u16, data: &[u8], window: usize) -> f64 {
    const REQUESTS: usize = 400;
    const STEP_NS: u64 = 2_000;
    let begin = machine.now_ns();
    let (mut sent, mut done) = (0, 0);
    let mut last = begin;
    while done < REQUESTS {
        while sent < REQUESTS && sent - done < window {
            let address = 0x6300_0000 + 256 * sent as u32;
            let datagram = datagram(machine, 17893, scp(chip, 0, command, [address, 256, 2], data));
            machine.send(&datagram);
            sent += 1;
        }
        machine.run_for(STEP_NS);
        while machine.receive().is_some() {
            done += 1;
            last = machine.now_ns();
        }
        // A lost one is not asked for again here.
        if machine.now_ns() - last > 100 * MS {
            break;
        }
    }
    256.0 * done as f64 / ((last - begin) as f64 / 1e3)
}
