//! The official SC&MP image, unmodified, on boards of 48 chips: all chips are found, routes are built, cores counted.
//!
//! A board with dead parts and three boards in a triad take long: only with the environment variable `SPINNAKER_LONG_TESTS`.

mod common;

use common::{MS, ask, boot, boot_image, patch, root, scp, until_up};
use spinnaker_machine::{ChipXy, Link, Machine};
use spinnaker_sim::cycle::{CycleConfig, CycleMachine};

/// SCP command that counts cores of a board by application and state.
const COUNT: u16 = 15;
/// State of a core that has nothing to do.
const IDLE: u32 = 15;

fn image() -> Option<Vec<u8>> {
    let Some(mut image) = boot_image() else {
        println!("not run: no boot image (SPINNAKER_BOOT_IMAGE, or an installed SpiNNMan)");
        return None;
    };
    patch(&mut image, 5, 1);
    Some(image)
}

/// Links that SC&MP 4.0.0 switches off wherever they lead, by the chip's place on its board.
fn switched_off(on_board: (u8, u8), link: Link) -> bool {
    matches!((on_board, link), ((1, 0), Link::SW) | ((4, 7) | (7, 7), Link::N))
}

/// Boots, and holds what the monitors found to what the machine is.
fn check_boot(shape: &Machine) {
    let Some(image) = image() else { return };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mut machine = CycleMachine::new(shape, &CycleConfig { threads, ..CycleConfig::default() });
    boot(&mut machine, &image);
    let root = root(&machine);
    assert!(until_up(&mut machine, 7000), "the network comes up");
    machine.run_for(100 * MS);

    let mut cores = 0;
    for (&place, chip) in &shape.chips {
        let sv = machine.peek(place, 0xF500_7F00, 256).expect("a chip");
        assert_eq!(
            u16::from_le_bytes([sv[0], sv[1]]),
            u16::from(place.x) << 8 | u16::from(place.y),
            "{place}: address"
        );
        assert_eq!((sv[2], sv[3]), (shape.height as u8, shape.width as u8), "{place}: dimensions");
        assert_eq!(sv[0x2D], 0xFF, "{place}: phase");
        assert_eq!(usize::from(sv[0xBC]), chip.cores.len() + 1, "{place}: working cores");
        cores += usize::from(sv[0xBC]);
        let (x, y) = (i32::from(place.x), i32::from(place.y));
        let origin = chip.nearest_ethernet;
        let on_board = (
            (x - i32::from(origin.x)).rem_euclid(i32::from(shape.width)) as u8,
            (y - i32::from(origin.y)).rem_euclid(i32::from(shape.height)) as u8,
        );
        let links = Link::ALL.map(|link| {
            let there = shape.neighbour(place, link).is_some();
            // The other end of a link that is switched off goes, too.
            let other = shape.neighbour(place, link).map(|to| (to, link.opposite()));
            let cut = other.is_some_and(|(to, back)| {
                let origin = shape.chips[&to].nearest_ethernet;
                let x = (i32::from(to.x) - i32::from(origin.x)).rem_euclid(i32::from(shape.width));
                let y = (i32::from(to.y) - i32::from(origin.y)).rem_euclid(i32::from(shape.height));
                switched_off((x as u8, y as u8), back)
            });
            there && !cut && !switched_off(on_board, link)
        });
        let expected = (0..6).fold(0, |bits, link| bits | u8::from(links[link]) << link);
        assert_eq!(sv[0x65], expected, "{place}: links that work");
        // The root has a P2P route to every chip.
        let address = u32::from(place.x) << 8 | u32::from(place.y);
        let word = machine.device_word(root, 0xE101_0000 + 4 * (address >> 3)).expect("a register");
        let entry = word >> (3 * (address & 7)) & 7;
        assert!(if place == root { entry == 7 } else { entry < 6 }, "{place}: P2P entry {entry}");
        let vcpu = machine.peek(place, 0xE500_7000, 18 * 128).expect("a chip");
        let idle = vcpu.chunks(128).filter(|block| u32::from(block[0x2E]) == IDLE).count();
        assert_eq!(idle, chip.cores.len(), "{place}: idle cores");
    }
    assert_eq!(cores, shape.core_count() + shape.chips.len());

    // The monitor answers for all of them: COUNT on each board, VER of every chip.
    for &place in shape.chips.keys() {
        let (code, reply) = ask(&mut machine, scp(place, 0, 0, [0; 3], &[])).expect("an answer");
        assert_eq!((code, &reply[2..4]), (0x80, &[place.y, place.x][..]), "VER of {place}");
    }
    let boards = machine.boards().count();
    let (code, reply) = ask(&mut machine, scp(root, 0, COUNT, [0, IDLE, 0], &[])).expect("an answer");
    let counted = u32::from_le_bytes([reply[0], reply[1], reply[2], reply[3]]) as usize;
    assert_eq!((code, counted), (0x80, shape.core_count() / boards));
}

#[test]
fn a_board_of_48_chips() {
    check_boot(&Machine::spin5());
}

/// Whether tests that take long are wanted.
fn long_tests() -> bool {
    let wanted = std::env::var_os("SPINNAKER_LONG_TESTS").is_some();
    if !wanted {
        println!("not run: SPINNAKER_LONG_TESTS is not set");
    }
    wanted
}

#[test]
fn a_board_with_dead_parts() {
    if !long_tests() {
        return;
    }
    let mut shape = Machine::spin5();
    shape.kill_chip(ChipXy::new(3, 4)).expect("there");
    shape.kill_link(ChipXy::new(1, 1), Link::E).expect("there");
    shape.kill_core(ChipXy::new(5, 5), 3).expect("there");
    check_boot(&shape);
}

#[test]
fn three_boards_in_a_triad() {
    if !long_tests() {
        return;
    }
    check_boot(&Machine::boards(3).expect("three boards"));
}
