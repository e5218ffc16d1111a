//! The official SC&MP image 4.0.0, unmodified, on four chips: state after boot and every recorded reply.
//!
//! Expected values: recorded from an independent functional model (reference page protocols.md, section 20).

mod common;

use std::collections::BTreeMap;

use common::{MS, ask, boot, boot_image, patch, scp, until_up};
use spinnaker_machine::{ChipXy, Machine};
use spinnaker_sim::cycle::{BoardAddress, CycleConfig, CycleMachine, default_address};

fn at(x: u8, y: u8) -> ChipXy {
    ChipXy::new(x, y)
}

fn booted() -> Option<CycleMachine> {
    let Some(mut image) = boot_image() else {
        println!("not run: no boot image (SPINNAKER_BOOT_IMAGE, or an installed SpiNNMan)");
        return None;
    };
    patch(&mut image, 3, 1);
    let address = BoardAddress { mask: [255, 255, 255, 0].into(), ..default_address(0) };
    let config = CycleConfig {
        monitors: BTreeMap::from([(at(0, 0), 1), (at(1, 0), 2), (at(0, 1), 0), (at(1, 1), 17)]),
        addresses: BTreeMap::from([(at(0, 0), address)]),
        hardware_version: Some(3),
        ..CycleConfig::default()
    };
    let mut machine = CycleMachine::new(&Machine::spin3(), &config);
    boot(&mut machine, &image);
    assert!(until_up(&mut machine, 5000), "the network comes up");
    machine.run_for(1500 * MS);
    while machine.receive().is_some() {}
    Some(machine)
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter_map(|digit| (digit as char).to_digit(16).map(|d| d as u8)).collect();
    digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Requests and replies in order. `..` in a reply stands for a byte that depends on history, time or the
/// host's Ethernet address: the first two are padding, the fourth is the number of a transient tag.
const EXCHANGES: &[(&str, &str, &str)] = &[
    ("VER too short", "000087ff00ff0000000000000100", "....07..ff000000000080000100"),
    (
        "VER (1,1)",
        "000087ff00ff0101000000000200000000000000000000000000",
        "....07..ff000000010180000200001101010001fffff43357655343264d502f5370694e4e616b657200342e302e3000",
    ),
    (
        "VER (255,255)",
        "000087ff00ffffff000000000300000000000000000000000000",
        "....07..ff000000000080000300000100000001fffff43357655343264d502f5370694e4e616b657200342e302e3000",
    ),
    (
        "VER core 1",
        "000087ff01ff0000000000000400000000000000000000000000",
        "....87..ff010000000080000400010000000001fffff53357655341524b2f5370694e4e616b657200342e302e3000",
    ),
    (
        "INFO (0,0)",
        "000087ff00ff000000001f000500000000000000000000000000",
        "....07..ff00000000008000050012e7ff02e0ff1b07dc560000070f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0000c0a8f0fd0700",
    ),
    (
        "INFO (1,1)",
        "000087ff00ff010100001f000600000000000000000000000000",
        "....07..ff00000001018000060012fcff00e0ff1b07dc560000070f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0000000000000400",
    ),
    (
        "READ sv 00..3f",
        "000087ff00ff0000000002000700007f00f54000000002000000",
        "....07..ff00000000008000070000000202000001000000030104043300................................\
         00000000c80082003f00c80132ff0000010000000000000000000000a5000000",
    ),
    ("WRITE", "000087ff00ff00000000030008000000246008000000020000000102030405060708", "....07..ff000000000080000800"),
    ("FILL", "000087ff00ff000000000500090010002460efbeadde08000000", "....07..ff000000000080000900"),
    (
        "READ back",
        "000087ff00ff0000000002000a00000024601800000002000000",
        "....07..ff000000000080000a0001020304050607080000000000000000efbeaddeefbeadde",
    ),
    ("READ bytes odd", "000087ff00ff0000000002000b00010024600300000000000000", "....07..ff000000000080000b00020304"),
    ("READ too long", "000087ff00ff0000000002000c00010024600101000000000000", "....07..ff000000000080000c00"),
    ("LINK_READ", "000087ff00ff0000000011000d00000000e20400000000000000", "....07..ff000000000080000d0012101159"),
    ("LINK_READ bad link", "000087ff00ff0000000011000e00000000e20400000003000000", "....07..ff000000000080000e00"),
    ("ALLOC sdram", "000087ff00ff000000001c000f0000110000e803000005000000", "....07..ff000000000080000f0018006460"),
    ("ALLOC same tag", "000087ff00ff000000001c00100000110000e803000005000000", "....07..ff00000000008000100000000000"),
    ("ALLOC flag 4", "000087ff00ff000000001c00110000110400e803000005000000", "....07..ff00000000008000110018006460"),
    (
        "ALLOC space",
        "000087ff00ff000000001c001200060000000000000000000000",
        "....07..ff000000000080001200f0fb1b07f0fb1b07",
    ),
    ("ALLOC rtr 10", "000087ff00ff000000001c001300031100000a00000000000000", "....07..ff00000000008000130001000000"),
    ("ALLOC tag addr", "000087ff00ff000000001c001400071100000500000000000000", "....07..ff00000000008000140018006460"),
    ("FREE sdram app", "000087ff00ff000000001c001500021100000000000000000000", "....07..ff00000000008000150001000000"),
    ("FREE rtr app", "000087ff00ff000000001c001600051100000100000000000000", "....07..ff00000000008000160001000000"),
    ("IPTAG set", "000087ff00ff000000001a00170001000100e645000000000000", "....07..ff00000000008000170001000000"),
    (
        "IPTAG get 1",
        "000087ff00ff000000001a001800010002000100000000000000",
        "....07..ff000000000080001800c0a8f0fe............e6450000008000000000000000000000000000000000",
    ),
    ("IPTAG tto", "000087ff00ff000000001a001900000004001000000000000000", "....07..ff00000000008000190009200808"),
    ("LED toggle", "000087ff00ff0000000019001a00010000000000000000000000", "....07..ff000000000080001a00"),
    ("bad command", "000087ff00ff0000000063001b00000000000000000000000000", "....07..ff000000000080001b00"),
    ("bad core", "000087ff13ff0000000000001c00000000000000000000000000", "....07..ff130000000088001c00"),
    (
        "COUNT state 15",
        "000087ff00ff000000000f001d00000000000f00000000000000",
        "....07..ff000000000080001d00440000000f00000000000000",
    ),
    ("SIG sync0", "000087ff00ff0000000016001e000000000010ff0400ffff0000", "....07..ff000000000080001e00"),
    ("no route", "000087ff00ff0707000000001f00000000000000000000000000", "....07..ff000000070787001f00"),
    ("command 99 to SARK", "000087ff01ff0000000063002000000000000000000000000000", "....87..ff010000000083002000"),
    ("VER too short to SARK", "000087ff01ff0000000000002100", "....87..ff010000000081002100"),
];

#[test]
fn every_recorded_reply() {
    let Some(mut machine) = booted() else { return };
    let mut wrong = Vec::new();
    for (name, request, reply) in EXCHANGES {
        let datagram = common::datagram(&machine, 17893, bytes(request));
        let got = machine.request(&datagram, 500 * MS).map(|reply| hex(&reply.data)).unwrap_or("no reply".into());
        let same = got.len() == reply.len() && got.chars().zip(reply.chars()).all(|(a, b)| b == '.' || a == b);
        if !same {
            wrong.push(format!("{name}:\n  got      {got}\n  expected {reply}"));
        }
    }
    assert!(wrong.is_empty(), "{} replies differ:\n{}", wrong.len(), wrong.join("\n"));
    // A port of a core on which nobody listens is not answered; the monitor answers with a code.
    let to_port = |core: u8| {
        let mut request = scp(at(0, 0), core, 0, [0; 3], &[]);
        request[4] |= 1 << 5;
        request
    };
    assert_eq!(ask(&mut machine, to_port(1)), None);
    assert_eq!(ask(&mut machine, to_port(0)).map(|(code, _)| code), Some(0x85));
}

/// System variables that depend on nothing but the image and the machine: offset and bytes.
const SV_ROOT: &[(usize, &str)] = &[
    (0x00, "00 00 02 02 00 00 01 00 00 00 03 01 04 04 33 00"),
    (0x20, "00 00 00 00 c8 00 82 00 3f 00 c8 01 32 ff 00 00 01 00 00 00 00 00 00 00 00 00 00 00 a5 00 00 00"),
    (0x40, "01 07 14 03 9b 00 00 00 00 11 00 e5 00 00 64 60 00 40 00 00 00 00 00 60 00 80 00 00 00 00 00 5f"),
    (0x60, "00 00 00 00 00 27 00 00 18 11 00 e5 00 00"),
    // (At 6E is the high water mark of shared buffers: none was used yet.)
    (0x6E, "00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00"),
    (0x80, "00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 01 00 02 03 04 05 06 07 08 09 0a 0b"),
    (0xA0, "0c 0d 0e 0f 10 11 ff ff 01 00 02 03 04 05 06 07 08 09 0a 0b 0c 0d 0e 0f 10 11 ff ff 12"),
    (0xC0, "00 00 24 60 00 01 00 e5 00 00 80 67 00 70 00 e5 00 00 84 67 20 00 88 67 18 00 84 67 38 40 88 67"),
    // (At F8 is the address of board information: this board's serial ROM has none.)
    (0xE0, "01 00 04 00 40 40 8c 67 18 11 00 e5 00 00 00 00 c0 a8 f0 fd 00 00 00 00 00 00 00 00 00 00 04 00"),
];

#[test]
fn state_after_boot() {
    let Some(mut machine) = booted() else { return };
    let sv = machine.peek(at(0, 0), 0xF500_7F00, 256).expect("a chip");
    for (offset, expected) in SV_ROOT {
        let expected = bytes(expected);
        assert_eq!(hex(&sv[*offset..*offset + expected.len()]), hex(&expected), "offset {offset:#x}");
    }
    // Chip, links that work, P2P entries for the four chips, multicast entry 0.
    let tables = [
        (at(0, 0), 0x27, [7, 2, 0, 1], 0x87, 1),
        (at(1, 0), 0x2C, [3, 6, 7, 6], 0x100, 2),
        (at(0, 1), 0x25, [5, 7, 6, 6], 0x40, 0),
        (at(1, 1), 0x3C, [4, 6, 6, 7], 0x80_0000, 17),
    ];
    for (chip, links, p2p, route, monitor) in tables {
        let sv = machine.peek(chip, 0xF500_7F00, 256).expect("a chip");
        assert_eq!(sv[0x65], links, "{chip}: links");
        let router = |machine: &mut CycleMachine, offset: u32| {
            machine.device_word(chip, 0xE100_0000 + offset).expect("a register")
        };
        let entries = [0x0000u32, 0x0001, 0x0100, 0x0101].map(|address| {
            let word = router(&mut machine, 0x1_0000 + 4 * (address >> 3));
            word >> (3 * (address & 7)) & 7
        });
        assert_eq!(entries, p2p, "{chip}: P2P entries");
        assert_eq!(router(&mut machine, 0x4000) & 0x00FF_FFFF, route, "{chip}: multicast entry 0");
        assert_eq!(router(&mut machine, 0), 0x0040_0001 | monitor << 8, "{chip}: router control");
        assert_eq!(machine.device_word(chip, 0xE200_0038), Some(0x0F), "{chip}: misc control");
        let vcpu = machine.peek(chip, 0xE500_7000, 18 * 128).expect("a chip");
        assert_eq!((vcpu[0x2E], &vcpu[0x48..0x50]), (7, &b"scamp-3\0"[..]), "{chip}: monitor");
        for core in vcpu.chunks(128).skip(1) {
            assert_eq!((core[0x2E], core[0x2F], &core[0x48..0x4D]), (15, 0, &b"sark\0"[..]), "{chip}");
            assert_eq!(u32::from_le_bytes([core[0x5C], core[0x5D], core[0x5E], core[0x5F]]), 0x0004_0000);
        }
    }
}

#[test]
fn threads_do_not_matter_and_seeds_do() {
    let Some(mut image) = boot_image() else {
        println!("not run: no boot image (SPINNAKER_BOOT_IMAGE, or an installed SpiNNMan)");
        return;
    };
    patch(&mut image, 3, 1);
    let run = |seed, threads, step_ms| {
        let config = CycleConfig { seed, threads, hand_off_cores: 2, ..CycleConfig::default() };
        let mut machine = CycleMachine::new(&Machine::spin3(), &config);
        boot(&mut machine, &image);
        for _ in 0..450 / step_ms {
            machine.run_for(step_ms * MS);
        }
        machine.snapshot()
    };
    let first = run(1, 1, 450);
    assert_eq!(run(1, 2, 450), first);
    assert_eq!(run(1, 3, 450), first);
    // Nor does it matter in which steps time passes.
    assert_eq!(run(1, 1, 3), first);
    assert_ne!(run(2, 1, 450).trace_hash, first.trace_hash);
}

#[test]
fn replies_stream_at_the_measured_rates() {
    let Some(mut machine) = booted() else { return };
    const READ: u16 = 2;
    // SDP to the host without loss, measured on a board: 5.7 MB/s from the Ethernet chip; 1.1 from another, with losses up
    // to 1.6.
    let near = common::megabytes_per_second(&mut machine, at(0, 0), READ, &[], 4);
    assert!((near / 5.7 - 1.0).abs() < 0.1, "{near} MB/s");
    let far = common::megabytes_per_second(&mut machine, at(1, 1), READ, &[], 4);
    assert!((1.1..1.6).contains(&far), "{far} MB/s");
}
