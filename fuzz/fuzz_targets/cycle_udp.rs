//! Messages to an instruction-level board and its management processor: commands with likely arguments, boot messages, raw
//! datagrams and frames, packets that the monitor sends on to neighbours. Blank, or booted with the image that the environment
//! variable `SPINNAKER_BOOT_IMAGE` names; a booted machine takes some inputs one after the other, since booting takes longer
//! than they do.
#![no_main]

use std::cell::RefCell;

use libfuzzer_sys::arbitrary::{Result, Unstructured};
use libfuzzer_sys::fuzz_target;
use spinnaker_machine::{ChipXy, Machine};
use spinnaker_sim::cycle::{CycleConfig, Datagram};
use spinnaker_sim::face::{BOOT_PORT, Bmp, CycleBoard, SCP_PORT, VirtualBoard, boot_from_within};
use spinnaker_wire::sv::{Board, BootVariables};

/// Messages of an input, and machine time after each.
const MESSAGES_MAX: usize = 24;
const STEP_NS: u64 = 300_000;
/// Machine time of a boot, and inputs for a booted machine.
const BOOT_NS: u64 = 4_500_000_000;
const INPUTS: usize = 128;

/// What the monitor knows, and a few that it does not.
const COMMANDS: [u16; 26] =
    [0, 2, 3, 5, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 31, 32, 1, 4, 33, 64, 0xFFFF];
/// Where things are: memories of cores, devices, SDRAM, staging area, system RAM, variables, blocks of cores, nothing.
const PLACES: [u32; 16] = [
    0, 0x0040_0000, 0x1000_0000, 0x1100_0000, 0x3000_0000, 0x4000_0000, 0x6000_0000, 0x6780_0000, 0x6800_0000,
    0xE100_0000, 0xE101_0000, 0xE200_0000, 0xE400_0000, 0xE500_7000, 0xF500_7F00, 0xFFFF_FFF0,
];

thread_local! {
    static BOOTED: RefCell<Option<(CycleBoard, usize)>> = const { RefCell::new(None) };
}

fuzz_target!(|data: &[u8]| {
    let Some(path) = std::env::var_os("SPINNAKER_BOOT_IMAGE") else {
        let mut board = blank();
        board.run_until(150_000_000);
        talk(&mut board, data);
        return;
    };
    BOOTED.with_borrow_mut(|booted| {
        let (mut board, inputs) = booted.take().unwrap_or_else(|| {
            let mut board = blank();
            let image = std::fs::read(&path).expect("the image reads");
            boot_from_within(&mut board, &image, &BootVariables::for_board(Board::Spin3, 1)).expect("an image");
            board.run_until(BOOT_NS);
            (board, 0)
        });
        talk(&mut board, data);
        if inputs < INPUTS {
            *booted = Some((board, inputs + 1));
        }
    });
});

fn blank() -> CycleBoard {
    CycleBoard::new(Machine::spin3(), CycleConfig::default())
}

/// An argument: any word, a small number, a place with an offset, or fields as commands have them.
fn argument(u: &mut Unstructured<'_>) -> Result<u32> {
    let how: u8 = u.arbitrary()?;
    Ok(match how & 3 {
        0 => u.arbitrary()?,
        1 => u32::from(u.arbitrary::<u8>()?),
        2 => PLACES[usize::from(how >> 4)].wrapping_add(u32::from(u.arbitrary::<u16>()?)),
        _ => u32::from(u.arbitrary::<u8>()?) << 16 | u32::from(u.arbitrary::<u8>()?) << 8 | u32::from(how >> 2),
    })
}

/// A body of at most so many bytes; a byte says how many, the other half of its range stands for long ones.
fn body(u: &mut Unstructured<'_>, most: usize) -> Result<Vec<u8>> {
    let length: u8 = u.arbitrary()?;
    let length = if length < 128 { usize::from(length) } else { most - usize::from(length - 128) };
    Ok(u.bytes(length.min(most).min(u.len()))?.to_vec())
}

fn scp(u: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    let place: u8 = u.arbitrary()?;
    let (core, chip) = (place & 31, place >> 5);
    let command = COMMANDS[usize::from(u.arbitrary::<u8>()?) % COMMANDS.len()];
    // The last bit of the place: to a chip that is not there.
    let (x, y) = if chip & 4 != 0 { (chip, 7) } else { (chip & 1, chip >> 1) };
    let mut message = vec![0, 0, 0x87, 0xFF, core, 0xFF, y, x, 0, 0];
    message.extend(command.to_le_bytes());
    message.extend([1, 0]);
    for _ in 0..3 {
        message.extend(argument(u)?.to_le_bytes());
    }
    message.extend(body(u, 256)?);
    Ok(message)
}

fn boot(u: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    let mut message = vec![0, 1];
    message.extend(u32::from(u.arbitrary::<u8>()? % 8).to_be_bytes());
    for _ in 0..3 {
        message.extend(argument(u)?.to_be_bytes());
    }
    message.extend(body(u, 1024)?);
    Ok(message)
}

/// An Ethernet frame: to the board or to all, ARP or IP with a header that is right as far as it goes, or anything.
fn frame(u: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    let how: u8 = u.arbitrary()?;
    let mut frame = if how & 1 == 0 { vec![0xFF; 6] } else { vec![0, 0, 0xA4, 0, 0x3E, 0x0E] };
    frame.extend([2, 0, 192, 168, 240, 254]);
    match how >> 1 & 3 {
        0 => frame.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, how >> 3]),
        1 => frame.extend([8, 0, 0x45, 0, 0, 60, 0, 1, 0x40, 0, 64, [1, 17, 6, 0][usize::from(how >> 3 & 3)], 0, 0]),
        2 => frame.extend([8, 0]),
        _ => {}
    }
    frame.extend(body(u, 1500)?);
    Ok(frame)
}

fn talk(board: &mut CycleBoard, data: &[u8]) {
    let mut u = Unstructured::new(data);
    let mut bmp = Bmp::new(1);
    for _ in 0..MESSAGES_MAX {
        if u.is_empty() || message(board, &mut bmp, &mut u).is_err() {
            break;
        }
        while board.receive().is_some() {}
        board.take_log();
    }
    let _ = board.snapshot();
}

fn message(board: &mut CycleBoard, bmp: &mut Bmp, u: &mut Unstructured<'_>) -> Result<()> {
    let kind: u8 = u.arbitrary()?;
    let (port, data) = match kind & 15 {
        0..=6 => (SCP_PORT, scp(u)?),
        7 => (SCP_PORT, body(u, 1472)?),
        8 => (BOOT_PORT, boot(u)?),
        9 => (BOOT_PORT, body(u, 1472)?),
        10 => (u.arbitrary()?, body(u, 300)?),
        11 => {
            let answer = bmp.answer(&scp(u)?);
            if let Some(power) = answer.power {
                board.power(&power);
            }
            return Ok(());
        }
        12 => {
            let frame = frame(u)?;
            board.machine().send_frame(ChipXy::new(0, 0), frame);
            return Ok(());
        }
        // Time passes.
        _ => {
            let end_ns = board.now_ns() + u64::from(kind >> 4) * 2_000_000;
            board.run_until(end_ns);
            return Ok(());
        }
    };
    let host = "192.168.240.254:12345".parse().expect("an address");
    board.send(&Datagram { board: ChipXy::new(0, 0), host, port, time_ns: 0, data });
    // Some follow each other at once.
    if kind & 0x80 == 0 {
        let end_ns = board.now_ns() + STEP_NS;
        board.run_until(end_ns);
    }
    Ok(())
}
