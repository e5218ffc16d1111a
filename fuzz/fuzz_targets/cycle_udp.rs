//! Datagrams to the ports of an instruction-level board and its management processor. Blank, or booted with the image that the
//! environment variable `SPINNAKER_BOOT_IMAGE` names; a booted machine takes some inputs one after the other, since booting
//! takes longer than they do.
#![no_main]

use std::cell::RefCell;

use libfuzzer_sys::fuzz_target;
use spinnaker_machine::{ChipXy, Machine};
use spinnaker_sim::cycle::{CycleConfig, Datagram};
use spinnaker_sim::face::{BOOT_PORT, Bmp, CycleBoard, SCP_PORT, VirtualBoard, boot_from_within};
use spinnaker_wire::sv::{Board, BootVariables};

/// Datagrams of an input, and machine time after each.
const DATAGRAMS_MAX: usize = 16;
const STEP_NS: u64 = 1_000_000;
/// Machine time of a boot, and inputs for a booted machine.
const BOOT_NS: u64 = 4_500_000_000;
const INPUTS: usize = 256;

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

/// An input is a list of datagrams: port, two bytes of length, data. The first bit of the port byte asks for a good SDP header
/// before the data.
fn talk(board: &mut CycleBoard, mut data: &[u8]) {
    let mut bmp = Bmp::new(1);
    for _ in 0..DATAGRAMS_MAX {
        let [port, low, high, rest @ ..] = data else { return };
        let length = usize::from(u16::from_le_bytes([*low, *high])).min(rest.len());
        let (body, next) = rest.split_at(length);
        data = next;
        let mut message = Vec::new();
        if port & 0x80 != 0 {
            let (core, chip) = (port >> 2 & 3, port >> 4 & 3);
            message.extend_from_slice(&[0, 0, 0x87, 0xFF, core, 0xFF, chip >> 1, chip & 1, 0, 0]);
        }
        message.extend_from_slice(body);
        let port = match port & 3 {
            0 | 1 => SCP_PORT,
            2 => BOOT_PORT,
            _ => {
                let answer = bmp.answer(&message);
                if let Some(power) = answer.power {
                    board.power(&power);
                }
                continue;
            }
        };
        let host = "192.168.240.254:12345".parse().expect("an address");
        board.send(&Datagram { board: ChipXy::new(0, 0), host, port, time_ns: 0, data: message });
        let end_ns = board.now_ns() + STEP_NS;
        board.run_until(end_ns);
        while board.receive().is_some() {}
        board.take_log();
    }
    let _ = board.snapshot();
}
