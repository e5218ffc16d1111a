//! The emulated monitors against what SC&MP 4.0.0 answers: the requests and replies of the protocols reference, section 20.1.
//! They were captured on a SpiNN-3 whose image kept 4 MiB of SDRAM for users and whose monitors were other physical cores; where
//! that shows, the value here is the one that follows for this machine, and says so.

use std::cell::Cell;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::rc::Rc;

use proptest::prelude::*;
use spinnaker_machine::{ChipXy, Machine};
use spinnaker_sim::face::{Datagram, FastBoard, VirtualBoard};
use spinnaker_sim::monitor::{Application, MonitorConfig, Place, Programs};
use spinnaker_sim::{Program, SimConfig};

const HOST: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(192, 168, 240, 254), 12_345);
const ROOT: ChipXy = ChipXy::new(0, 0);
const MS: u64 = 1_000_000;

/// Knows files that begin with the word "test": their cores wait for starts and count them in user 1.
struct Counting {
    /// Programs that were made.
    made: Rc<Cell<u32>>,
}

struct Count(Rc<Cell<u32>>);

impl Programs for Counting {
    fn application(&self, file: &[u8]) -> Result<Rc<dyn Application>, String> {
        if file.starts_with(b"test") {
            Ok(Rc::new(Count(Rc::clone(&self.made))))
        } else {
            Err("not one of ours".to_string())
        }
    }
}

impl Application for Count {
    fn name(&self) -> &str {
        "count"
    }

    fn version(&self) -> u32 {
        0x0001_0203
    }

    fn title(&self) -> &[u8] {
        b"Count/SpiNNaker\0"
    }

    fn program(&self, place: &mut Place<'_>) -> Program {
        self.0.set(self.0.get() + 1);
        let core = place.core;
        Box::new(move |handle| {
            Box::pin(async move {
                handle.log(&format!("core {core}"));
                for run in 1.. {
                    while !handle.wait_start().await {}
                    // 2 ms of work.
                    handle.compute(400_000, |_| {}).await;
                    handle.show(1, run);
                }
            })
        })
    }
}

fn board_of(machine: Machine, simulation: SimConfig) -> FastBoard {
    let config = MonitorConfig { simulation, unix_time_s: 0x5F00_0000, ..MonitorConfig::default() };
    FastBoard::new(machine, config, Box::new(Counting { made: Rc::default() }))
}

fn spin3() -> FastBoard {
    board_of(Machine::spin3(), SimConfig::default())
}

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u32> = text.chars().filter_map(|c| c.to_digit(16)).collect();
    digits.chunks_exact(2).map(|pair| (pair[0] << 4 | pair[1]) as u8).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn send(board: &mut FastBoard, data: Vec<u8>) {
    assert!(board.send(&Datagram { board: ROOT, host: HOST, port: 17893, time_ns: 0, data }));
}

/// The reply without pads and tag, of which nothing is promised; `None` for none.
fn ask(board: &mut FastBoard, request: &str) -> Option<String> {
    send(board, unhex(request));
    let end_ns = board.now_ns() + 30 * MS;
    board.run_until(end_ns);
    let reply = board.receive()?;
    assert_eq!((reply.host, reply.port, reply.board), (HOST, 17893, ROOT));
    assert!(board.receive().is_none(), "one reply to one request");
    Some(format!("{}__{}", hex(&reply.data[2..3]), hex(&reply.data[4..])))
}

/// A request to the monitor of a chip (x in bits 15:8, y in 7:0), and what comes back behind code and sequence number.
fn request(
    board: &mut FastBoard,
    chip: u16,
    core_port: u8,
    command: u16,
    args: [u32; 3],
    data: &[u8],
) -> (u16, Vec<u8>) {
    let mut bytes = vec![0, 0, 0x87, 0xFF, core_port, 0xFF];
    bytes.extend(chip.to_le_bytes());
    bytes.extend([0, 0]);
    bytes.extend(command.to_le_bytes());
    bytes.extend([7, 0]);
    args.iter().for_each(|arg| bytes.extend(arg.to_le_bytes()));
    bytes.extend(data);
    send(board, bytes);
    let end_ns = board.now_ns() + 100 * MS;
    board.run_to_output(end_ns);
    let reply = board.receive().map_or_else(Vec::new, |reply| reply.data);
    let code = reply.get(10..12).map_or(0, |code| u16::from_le_bytes([code[0], code[1]]));
    (code, reply.get(14..).unwrap_or_default().to_vec())
}

const READ: u16 = 2;
const WRITE: u16 = 3;
const COUNT: u16 = 15;
const AR: u16 = 19;
const SIG: u16 = 22;

#[test]
fn the_monitor_answers_as_the_official_one() {
    let mut board = spin3();
    for (what, sent, received) in [
        ("VER, too short", "000087ff00ff0000000000000100", "07__ff000000000080000100"),
        (
            "VER (1,1), whose monitor is physical core 0 here",
            "000087ff00ff0101000000000200000000000000000000000000",
            "07__ff000000010180000200000001010001fffff43357655343264d502f5370694e4e616b657200342e302e3000",
        ),
        (
            "VER of the root, likewise",
            "000087ff00ffffff000000000300000000000000000000000000",
            "07__ff000000000080000300000000000001fffff43357655343264d502f5370694e4e616b657200342e302e3000",
        ),
        (
            "VER core 1, physical core 1 here",
            "000087ff01ff0000000000000400000000000000000000000000",
            "87__ff010000000080000400010100000001fffff53357655341524b2f5370694e4e616b657200342e302e3000",
        ),
        (
            "INFO (0,0), with all SDRAM in the heap",
            "000087ff00ff000000001f000500000000000000000000000000",
            "07__ff00000000008000050012e7ff02e0ff5b07dc560000070f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0000c0a8f0fd0700",
        ),
        (
            "INFO (1,1), likewise",
            "000087ff00ff010100001f000600000000000000000000000000",
            "07__ff00000001018000060012fcff00e0ff5b07dc560000070f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0000000000000400",
        ),
        ("WRITE", "000087ff00ff00000000030008000000246308000000020000000102030405060708", "07__ff000000000080000800"),
        ("FILL", "000087ff00ff000000000500090010002463efbeadde08000000", "07__ff000000000080000900"),
        (
            "READ back",
            "000087ff00ff0000000002000a00000024631800000002000000",
            "07__ff000000000080000a0001020304050607080000000000000000efbeaddeefbeadde",
        ),
        ("READ bytes odd", "000087ff00ff0000000002000b00010024630300000000000000", "07__ff000000000080000b00020304"),
        ("READ too long", "000087ff00ff0000000002000c00010024600101000000000000", "07__ff000000000080000c00"),
        ("LINK_READ", "000087ff00ff0000000011000d00000000e20400000000000000", "07__ff000000000080000d0012101159"),
        ("LINK_READ bad link", "000087ff00ff0000000011000e00000000e20400000003000000", "07__ff000000000080000e00"),
        (
            "ALLOC sdram 1000 app 17 tag 5, at the heap's start",
            "000087ff00ff000000001c000f0000110000e803000005000000",
            "07__ff000000000080000f0018002460",
        ),
        ("ALLOC same tag", "000087ff00ff000000001c00100000110000e803000005000000", "07__ff00000000008000100000000000"),
        (
            "ALLOC same tag flag 4",
            "000087ff00ff000000001c00110000110400e803000005000000",
            "07__ff00000000008000110018002460",
        ),
        (
            "ALLOC space, 4 MiB more",
            "000087ff00ff000000001c001200060000000000000000000000",
            "07__ff000000000080001200f0fb5b07f0fb5b07",
        ),
        ("ALLOC rtr 10", "000087ff00ff000000001c001300031100000a00000000000000", "07__ff00000000008000130001000000"),
        ("ALLOC tag addr", "000087ff00ff000000001c001400071100000500000000000000", "07__ff00000000008000140018002460"),
        ("FREE sdram app", "000087ff00ff000000001c001500021100000000000000000000", "07__ff00000000008000150001000000"),
        ("FREE rtr app", "000087ff00ff000000001c001600051100000100000000000000", "07__ff00000000008000160001000000"),
        (
            "IPTAG set 1 port 17894 to sender",
            "000087ff00ff000000001a00170001000100e645000000000000",
            "07__ff00000000008000170001000000",
        ),
        (
            "IPTAG get 1, at an Ethernet address of its own",
            "000087ff00ff000000001a001800010002000100000000000000",
            "07__ff000000000080001800c0a8f0fe0200c0a8f0fee6450000008000000000000000000000000000000000",
        ),
        ("IPTAG tto", "000087ff00ff000000001a001900000004001000000000000000", "07__ff00000000008000190009200808"),
        ("LED 0 toggle", "000087ff00ff0000000019001a00010000000000000000000000", "07__ff000000000080001a00"),
        ("bad command 99", "000087ff00ff0000000063001b00000000000000000000000000", "07__ff000000000080001b00"),
        ("bad core", "000087ff13ff0000000000001c00000000000000000000000000", "07__ff130000000088001c00"),
        (
            "COUNT app 0 state 15",
            "000087ff00ff000000000f001d00000000000f00000000000000",
            "07__ff000000000080001d00440000000f00000000000000",
        ),
        ("SIG sync0 app 16", "000087ff00ff0000000016001e000000000010ff0400ffff0000", "07__ff000000000080001e00"),
        ("no route (7,7)", "000087ff00ff0707000000001f00000000000000000000000000", "07__ff000000070787001f00"),
        ("core 0 port 1", "000087ff20ff0000000000002000000000000000000000000000", "07__ff200000000085002000"),
        ("command 99 to core 1", "000087ff01ff0000000063002100000000000000000000000000", "87__ff010000000083002100"),
        ("VER to core 1, too short", "000087ff01ff0000000000002200", "87__ff010000000081002200"),
        (
            "READ of 257 bytes from core 1",
            "000087ff01ff0000000002002300000040000101000000000000",
            "87__ff010000000084002300",
        ),
        ("ALLOC op 9", "000087ff00ff000000001c002400090000000000000000000000", "07__ff000000000080002400"),
        ("AR with bit 0", "000087ff00ff0000000013002500010000100000000000000000", "07__ff000000000080002500"),
        ("RTR, 2000 entries", "000087ff00ff000000001d0026000200d007000080670000000000", "07__ff000000000080002600"),
    ] {
        assert_eq!(ask(&mut board, sent).as_deref(), Some(received), "{what}");
    }
    for (what, sent) in [
        ("VER to port 1 of an idle core", "000087ff21ff0000000000002700000000000000000000000000"),
        ("no reply wanted", "000007ff00ff0000000000002800000000000000000000000000"),
        ("a tag that is not set", "00008703 00ff0000000000002900000000000000000000000000"),
        ("more than a message holds", &"00".repeat(300)),
    ] {
        assert_eq!(ask(&mut board, sent), None, "{what}");
    }
}

/// Protocols reference, 20.2 and 20.3: the fields that do not depend on the clock, the seed, or the image's own values.
#[test]
fn system_variables_and_tables_are_those_after_boot() {
    let mut board = spin3();
    let (_, sv) = request(&mut board, 0, 0, READ, [0xF500_7F00, 256, 2], &[]);
    for (offset, bytes) in [
        (0x00, "00000202000001000000030104043300"),
        (0x28, "3f00c80132ff0000"),
        (0x40, "010714"),
        (0x48, "001100e5"),
        (0x50, "004000000000006000800000"),
        (0x64, "00270000181100e500000100"),
        (0xBC, "1200000000002460000100e50000806700 7000e5000084672000886718008467384088670100040040408c67181100e5"),
        (0xEC, "00000000c0a8f0fd00000000007900e500000400"),
    ] {
        let expected = unhex(bytes);
        assert_eq!(hex(&sv[offset..offset + expected.len()]), hex(&expected), "at {offset:#x}");
    }
    // Links of the other chips, which the monitor has cut at some places.
    for (chip, links) in [(0x0100, 0x2C), (0x0001, 0x25), (0x0101, 0x3C)] {
        assert_eq!(request(&mut board, chip, 0, READ, [0xF500_7F65, 1, 0], &[]).1, [links], "{chip:#x}");
    }
    // Entries for (0,0) and (0,1), then for (1,0) and (1,1), and none for others.
    let word = |board: &mut FastBoard, column: u32| {
        let (_, word) = request(board, 0, 0, READ, [0xE101_0000 + 128 * column, 4, 2], &[]);
        u32::from_le_bytes(word.try_into().expect("a word"))
    };
    assert_eq!(
        [word(&mut board, 0), word(&mut board, 1), word(&mut board, 2)],
        [0x00DB_6D97, 0x00DB_6D88, 0x00DB_6DB6]
    );
    // Entry 0 of the root's multicast table: links 0, 1, 2 and the monitor.
    let (_, entry) = request(&mut board, 0, 0, READ, [0x6788_0020, 16, 2], &[]);
    assert_eq!(hex(&entry[4..]), "470000005455fffffeffffff");
    let (_, block) = request(&mut board, 0, 0, READ, [0xE500_7080, 128, 2], &[]);
    assert_eq!((block[0x2E], &block[0x48..0x4C], block[0x30]), (15, &b"sark"[..], 0x80));
}

fn load_and_start(board: &mut FastBoard, cores: u32) {
    assert_eq!(request(board, 0, 0, WRITE, [0x6780_0000, 4, 2], b"test").0, 0x80);
    request(board, 0, 0, AR, [30 << 24 | cores, 0, 0], &[]);
}

/// State and user 1 of a core of the root.
fn core(board: &mut FastBoard, core: u32) -> (u8, u8) {
    let (_, block) = request(board, 0, 0, READ, [0xE500_7000 + 128 * core, 128, 2], &[]);
    (block[0x2E], block[0x74])
}

fn signal(board: &mut FastBoard, number: u32) {
    request(board, 0, 0, SIG, [0, number << 16 | 0xFF00 | 30, 0xFFFF], &[]);
}

fn pass_ms(board: &mut FastBoard, ms: u64) {
    let end_ns = board.now_ns() + ms * MS;
    board.run_until(end_ns);
}

const SYNC0_SENT: u32 = 4;
const SYNC1_SENT: u32 = 5;
const STOP: u32 = 2;
const RUN: u8 = 7;
const SYNC0: u8 = 8;
const SYNC1: u8 = 9;

#[test]
fn programs_start_by_turns_of_two_signals() {
    let mut board = spin3();
    load_and_start(&mut board, 0b110);
    assert_eq!([core(&mut board, 1), core(&mut board, 2), core(&mut board, 3)], [(SYNC0, 0), (SYNC0, 0), (15, 0)]);
    // The flag is set from the start: SYNC1 changes nothing.
    signal(&mut board, SYNC1_SENT);
    assert_eq!(core(&mut board, 1), (SYNC0, 0));
    signal(&mut board, SYNC0_SENT);
    assert_eq!(core(&mut board, 1), (RUN, 0));
    // A second one is no start, neither now nor later.
    signal(&mut board, SYNC0_SENT);
    pass_ms(&mut board, 5);
    assert_eq!([core(&mut board, 1), core(&mut board, 2)], [(SYNC1, 1), (SYNC1, 1)]);
    signal(&mut board, SYNC1_SENT);
    assert_eq!(core(&mut board, 1), (RUN, 1));
    // The other signal while it runs: it goes on at once when it is ready.
    signal(&mut board, SYNC0_SENT);
    pass_ms(&mut board, 3);
    assert_eq!(core(&mut board, 1), (RUN, 2));
    pass_ms(&mut board, 3);
    assert_eq!(core(&mut board, 1), (SYNC1, 3));
    let (code, count) = request(&mut board, 0, 0, COUNT, [30, SYNC1.into(), 0], &[]);
    assert_eq!((code, count[0]), (0x80, 2));
    // Text: a line that is complete, in the form of the official kernel.
    let (_, block) = request(&mut board, 0, 0, READ, [0xE500_7100, 128, 2], &[]);
    let iobuf = u32::from_le_bytes(block[0x58..0x5C].try_into().expect("a word"));
    let (_, text) = request(&mut board, 0, 0, READ, [iobuf, 28, 2], &[]);
    assert_eq!((text[12], &text[16..23]), (7, &b"core 2\n"[..]));
    let (_, version) = request(&mut board, 0, 1, 0, [0; 3], &[]);
    assert_eq!((hex(&version[..12]), &version[12..17]), ("010100000001ffff03020100".to_string(), &b"Count"[..]));

    signal(&mut board, STOP);
    assert_eq!(core(&mut board, 1).0, 15);
    assert_eq!(request(&mut board, 0, 0, COUNT, [0, 15, 0], &[]).1[0], 68);
}

#[test]
fn one_count_is_taken_at_a_time_and_answers_late() {
    let mut board = spin3();
    let begin_ns = board.now_ns();
    let count = unhex("000087ff00ff000000000f001d00000000000f00000000000000");
    send(&mut board, count.clone());
    send(&mut board, count);
    board.run_until(begin_ns + MS);
    let busy = board.receive().expect("the second is answered at once");
    assert_eq!(busy.data.len(), 14, "without a number");
    board.run_until(begin_ns + 9 * MS);
    assert!(board.receive().is_none());
    board.run_until(begin_ns + 11 * MS);
    assert_eq!(board.receive().expect("the first").data[14], 68);
}

#[test]
fn a_chip_of_its_own_answers_over_its_neighbours_in_the_time_that_takes() {
    let mut board = spin3();
    let time_us = |board: &mut FastBoard, chip: u16, length: u32| {
        let begin_ns = board.now_ns();
        assert_eq!(request(board, chip, 0, READ, [0x6300_0000, length, 2], &[]).1.len(), length as usize);
        (board.now_ns() - begin_ns) / 1000
    };
    // Reads of 256 bytes, one after the other: about 100 us at an Ethernet chip, 320 us elsewhere and the wires' time.
    let (near, far) = (time_us(&mut board, 0, 256), time_us(&mut board, 0x0101, 256));
    assert!((70..130).contains(&near) && (300..420).contains(&far), "{near} us, {far} us");
    let slow = SimConfig { host_mbps: 10.0, ..SimConfig::default() };
    let slow = time_us(&mut board_of(Machine::spin3(), slow), 0, 256);
    assert!((340..400).contains(&slow), "{slow} us at 10 Mbit/s: 348 and 92 bytes on the wire take 352");
}

#[test]
fn datagrams_get_lost_as_told() {
    let mut board = board_of(Machine::spin3(), SimConfig { host_drop_probability: 0.2, ..SimConfig::default() });
    let mut lost = 0;
    for _ in 0..500 {
        lost += u32::from(ask(&mut board, "000087ff00ffffff000000000300000000000000000000000000").is_none());
    }
    // Each way: 36 of a hundred.
    assert!((140..220).contains(&lost), "{lost} of 500");
}

#[test]
fn host_threads_and_the_steps_of_the_caller_change_nothing() {
    let run = |threads: usize, step_ns: u64| {
        let simulation = SimConfig { threads, host_drop_probability: 0.05, seed: 9, ..SimConfig::default() };
        let mut board = board_of(Machine::spin3(), simulation);
        for number in [AR_TEST, START_ALL, START_ALL] {
            for datagram in number {
                send(&mut board, unhex(datagram));
            }
            let end_ns = board.now_ns() + 20 * MS;
            while board.now_ns() < end_ns {
                let next_ns = end_ns.min(board.now_ns() + step_ns);
                board.run_until(next_ns);
            }
        }
        let replies: Vec<Datagram> = std::iter::from_fn(|| board.receive()).collect();
        (board.snapshot(), replies)
    };
    let whole = run(1, 20 * MS);
    assert!(whole.0.contains("SYNC1 \"count\" app 30"), "{}", whole.0);
    assert!(whole == run(3, 20 * MS) && whole == run(1, 7_001));
}

/// "test" to the staging area of the root, AR of application 30 on cores 1 to 3; each often enough for a lossy wire.
const AR_TEST: [&str; 6] = [
    "000087ff00ff000000000300010000008067040000000200000074657374",
    "000087ff00ff000000000300010000008067040000000200000074657374",
    "000087ff00ff000000000300010000008067040000000200000074657374",
    "000087ff00ff0000000013000200 0e00001e0000000000000000",
    "000087ff00ff0000000013000200 0e00001e0000000000000000",
    "000087ff00ff0000000013000200 0e00001e0000000000000000",
];
/// SYNC0, then a count of those that wait for SYNC1.
const START_ALL: [&str; 6] = [
    "000087ff00ff00000000160003000000 00001eff0400ffff0000",
    "000087ff00ff00000000160003000000 00001eff0400ffff0000",
    "000087ff00ff00000000160003000000 00001eff0400ffff0000",
    "000087ff00ff000000000f0004001e000000090000000000 0000",
    "000087ff00ff000000000f0004001e000000090000000000 0000",
    "000087ff00ff00000000020005000070 00e5000100000200 0000",
];

#[test]
fn power_and_idleness() {
    let mut board = spin3();
    assert!(board.is_idle());
    load_and_start(&mut board, 0b10);
    signal(&mut board, SYNC0_SENT);
    assert!(!board.is_idle(), "a core runs");
    pass_ms(&mut board, 50);
    assert!(board.is_idle());
    board.power(&[Some(false)]);
    let datagram = Datagram { board: ROOT, host: HOST, port: 17893, time_ns: 0, data: vec![0; 26] };
    assert!(!board.send(&datagram));
    assert!(board.snapshot().contains("chip 0,0: no power"));
    board.power(&[Some(true)]);
    assert_eq!(core(&mut board, 1), (15, 0));
    let log: Vec<String> = board.take_log().into_iter().map(|line| line.text).collect();
    assert!(log.contains(&"power: 1 boards switched, 1 of 1 are on".to_string()), "{log:?}");
    assert!(!board.send(&Datagram { board: ChipXy::new(1, 1), ..datagram }), "no board there");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    /// Whatever comes in: nothing panics or hangs, and a board that was powered again answers.
    #[test]
    fn nonsense_does_no_harm(
        datagrams in prop::collection::vec((
            prop::sample::select(vec![17893u16, 54321, 7]),
            prop::sample::select(vec![0u8, 2, 3, 5, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 26, 27, 28, 29, 31, 99]),
            prop::sample::select(vec![0u8, 1, 0x21, 0x13, 0xFF]),
            prop::sample::select(vec![0u16, 0x0101, 0xFFFF, 0x0700]),
            prop::array::uniform3(prop_oneof![
                any::<u32>(), 0u32..300, Just(0x6024_0000), Just(0x6780_0000), Just(0xE500_7F00), Just(0xF100_002C), Just(0x0600_0100),
                Just(0xE500_1100), Just(0x6788_0030),
            ]),
            prop::collection::vec(any::<u8>(), 0..300),
            0usize..30,
        ), 1..25),
    ) {
        let mut board = spin3();
        for (port, command, core_port, chip, args, data, cut) in datagrams {
            // A fill of all memory is no nonsense, but takes its time.
            if command == 5 && args[2] > 1 << 16 {
                continue;
            }
            let mut bytes = vec![0, 0, 0x87, 0xFF, core_port, 0xFF];
            bytes.extend(chip.to_le_bytes());
            bytes.extend([0, 0, command, 0, 1, 0]);
            args.iter().for_each(|arg| bytes.extend(arg.to_le_bytes()));
            bytes.extend(data);
            if cut < 26 {
                bytes.truncate(cut);
            }
            board.send(&Datagram { board: ROOT, host: HOST, port, time_ns: 0, data: bytes });
            let end_ns = board.now_ns() + MS;
            board.run_until(end_ns);
        }
        pass_ms(&mut board, 3_000);
        while board.receive().is_some() {}
        board.power(&[Some(true)]);
        prop_assert!(ask(&mut board, "000087ff00ffffff000000000300000000000000000000000000").is_some());
    }
}
