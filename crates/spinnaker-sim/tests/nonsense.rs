//! Datagrams that make no sense, to a blank board and to one that runs the official monitor: the answers that the reference page
//! protocols.md says (sections 2.2 to 4, 6.1), and a board that goes on.

mod common;
#[path = "common/program.rs"]
mod program;

use std::cell::{Cell, RefCell};

use common::spin3::{self, DATA_ABORT, STATE_IDLE, STATE_RUN_TIME_ERROR, state};
use common::{MS, ask, boot_message, datagram, scp};
use program::counting;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestError, TestRng, TestRunner};
use spinnaker_machine::{ChipXy, Machine};
use spinnaker_sim::cycle::{BOOT_PORT, CoreActivity, CycleConfig, CycleMachine};

const SCP_PORT: u16 = 17893;
/// A port that a reverse tag binds here, and its number.
const REVERSE_PORT: u16 = 12_000;
const REVERSE_TAG: u8 = 2;
/// A fixed tag for replies: those that never come would hold one of the eight transient tags for 2.56 s.
const TAG: u8 = 1;
const ROOT: ChipXy = ChipXy::new(0, 0);
const CHIPS: [ChipXy; 4] = [ROOT, ChipXy::new(1, 0), ChipXy::new(0, 1), ChipXy::new(1, 1)];

const VER: u16 = 0;
const READ: u16 = 2;
const WRITE: u16 = 3;
const LINK_READ: u16 = 17;
const LINK_WRITE: u16 = 18;
const AR: u16 = 19;
const SIG: u16 = 22;
const IPTAG: u16 = 26;
const ALLOC: u16 = 28;
const RTR: u16 = 29;
/// What SC&MP 4.0.0 does not know, some of it known to older ones or to other processors.
const UNKNOWN: [u16; 12] = [1, 4, 6, 14, 30, 33, 48, 57, 63, 64, 0x8000, 0xFFFF];

const OK: u16 = 0x80;

fn booted() -> Option<CycleMachine> {
    let mut machine = spin3::booted()?;
    machine.run_for(1500 * MS);
    // Operation 1 sets a tag. The datagrams of these tests come from port 12345; the reverse tag leads to port 1 of core 2.
    let forward = [1 << 16 | u32::from(TAG), 12_345, 0];
    let reverse = [1 << 29 | 1 << 16 | 0x22 << 8 | u32::from(REVERSE_TAG), u32::from(REVERSE_PORT), 0];
    for arguments in [forward, reverse] {
        assert!(ask(&mut machine, scp(ROOT, 0, IPTAG, arguments, &[])).is_some());
    }
    while machine.receive().is_some() {}
    Some(machine)
}

/// What comes back.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Expected {
    Nothing,
    /// A return code, and as many bytes behind the sequence number.
    Reply(u16, usize),
    /// A return code.
    Code(u16),
    /// Not said.
    Anything,
}
use Expected::{Anything, Code, Nothing, Reply};

#[derive(Clone)]
struct Message {
    port: u16,
    data: Vec<u8>,
    expected: Expected,
}

impl std::fmt::Debug for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let hex: String = self.data.iter().map(|byte| format!("{byte:02x}")).collect();
        write!(f, "port {}: {hex} ({:?})", self.port, self.expected)
    }
}

fn to(port: u16, data: Vec<u8>, expected: Expected) -> Message {
    Message { port, data, expected }
}

/// A request with its reply by the fixed tag. `core`: with the port in the upper bits.
fn request(chip: ChipXy, core: u8, command: u16, arguments: [u32; 3], data: &[u8], expected: Expected) -> Message {
    let mut bytes = scp(chip, core, command, arguments, data);
    bytes[3] = TAG;
    to(SCP_PORT, bytes, expected)
}

fn bytes(length: std::ops::Range<usize>) -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), length)
}

fn chip() -> impl Strategy<Value = ChipXy> {
    prop::sample::select(CHIPS.to_vec())
}

/// Datagrams that no monitor should take for a request.
fn refused() -> impl Strategy<Value = Message> {
    let request_of = |data: &[u8]| request(ROOT, 0, VER, [0; 3], data, Nothing).data;
    prop_oneof![
        // Less than a header. (Of less than two bytes SC&MP 4.0.0 makes a message of minus one: it may then send 64 KiB, which
        // overwrite the registers of the Ethernet controller.)
        bytes(2..10).prop_map(|data| to(SCP_PORT, data, Anything)),
        // More than a message holds: 2 + 8 + 16 + 256 bytes.
        bytes(257..1446).prop_map(move |data| to(SCP_PORT, request_of(&data), Nothing)),
        // No reply is wanted.
        Just(request_of(&[])).prop_map(|mut data| {
            data[2] = 0x07;
            to(SCP_PORT, data, Nothing)
        }),
        // A tag that is not in use.
        (3u8..16).prop_map(move |tag| {
            let mut data = request_of(&[]);
            data[3] = tag;
            to(SCP_PORT, data, Nothing)
        }),
        // Ports that nobody listens on, and that of the ROM, which is gone.
        (any::<u16>(), bytes(0..1472))
            .prop_filter("bound", |(port, _)| ![SCP_PORT, BOOT_PORT, REVERSE_PORT].contains(port))
            .prop_map(|(port, data)| to(port, data, Nothing)),
        bytes(0..1472).prop_map(|data| to(BOOT_PORT, data, Nothing)),
        (1u32..6, any::<[u32; 2]>(), bytes(1024..1025)).prop_map(|(opcode, [one, three], block)| to(
            BOOT_PORT,
            boot_message(opcode, one, three, &block),
            Nothing
        )),
    ]
}

/// Messages to the core behind the reverse tag, which no application runs on: any bytes, or headers of EIEIO with wrong counts.
fn reverse() -> impl Strategy<Value = Message> {
    prop_oneof![
        bytes(0..1472).prop_map(|data| to(REVERSE_PORT, data, Nothing)),
        (any::<u16>(), bytes(0..271)).prop_map(|(header, mut data)| {
            data.splice(0..0, header.to_le_bytes());
            to(REVERSE_PORT, data, Nothing)
        }),
    ]
}

/// Requests to who is not there, or does not listen.
fn astray() -> impl Strategy<Value = Message> {
    prop_oneof![
        (any::<[u8; 2]>(), 0u8..32)
            .prop_filter("a chip, or the root by its other name", |([x, y], _)| (*x > 1 || *y > 1)
                && [*x, *y] != [255; 2])
            .prop_map(|([x, y], core)| request(ChipXy::new(x, y), core, VER, [0; 3], &[], Reply(0x87, 0))),
        // (Core 31, port 7 means Ethernet.)
        (chip(), 18u8..32, 0u8..7).prop_map(|(chip, core, port)| request(
            chip,
            port << 5 | core,
            VER,
            [0; 3],
            &[],
            Reply(0x88, 0)
        )),
        (chip(), 1u8..8).prop_map(|(chip, port)| request(chip, port << 5, VER, [0; 3], &[], Reply(0x85, 0))),
        (chip(), 1u8..18, 1u8..8).prop_map(|(chip, core, port)| request(
            chip,
            port << 5 | core,
            VER,
            [0; 3],
            &[],
            Nothing
        )),
    ]
}

/// Requests that the monitor refuses, with an empty OK, or an application core's kernel, with its code.
fn wrong() -> impl Strategy<Value = Message> {
    let code_of = |core: u8, code: u16| Reply(if core == 0 { OK } else { code }, 0);
    let over_256 = || prop_oneof![257u32..600, 257u32..];
    prop_oneof![
        (chip(), 0u8..18, prop::sample::select(UNKNOWN.to_vec()), any::<[u32; 3]>(), bytes(0..256)).prop_map(
            move |(chip, core, command, arguments, data)| {
                request(chip, core, command, arguments, &data, code_of(core, 0x83))
            }
        ),
        // The header of a request cut short, behind its sequence number.
        (chip(), 0u8..18, 14usize..26, 0u16..40).prop_map(move |(chip, core, length, command)| {
            let mut message = request(chip, core, command, [0; 3], &[], code_of(core, 0x81));
            message.data.truncate(length);
            message
        }),
        (chip(), 0u8..18, prop::sample::select(vec![READ, WRITE]), any::<u32>(), over_256(), 0u32..3).prop_map(
            move |(chip, core, command, address, length, unit)| {
                request(chip, core, command, [address, length, unit], &[], code_of(core, 0x84))
            }
        ),
        (chip(), 0u8..18, prop::sample::select(vec![READ, WRITE]), any::<u32>(), 0u32..257, 3u32..).prop_map(
            move |(chip, core, command, address, length, unit)| {
                request(chip, core, command, [address, length, unit], &[], code_of(core, 0x84))
            }
        ),
        (chip(), prop::sample::select(vec![LINK_READ, LINK_WRITE]), any::<u32>(), 0u32..257, 6u32..).prop_map(
            |(chip, command, address, length, link)| request(
                chip,
                0,
                command,
                [address, length, link],
                &[],
                Reply(OK, 0)
            )
        ),
        (chip(), prop::sample::select(vec![LINK_READ, LINK_WRITE]), any::<u32>(), over_256(), 0u32..6).prop_map(
            |(chip, command, address, length, link)| request(
                chip,
                0,
                command,
                [address, length, link],
                &[],
                Reply(OK, 0)
            )
        ),
        (chip(), 8u32..256, any::<[u32; 2]>()).prop_map(|(chip, op, [two, three])| request(
            chip,
            0,
            ALLOC,
            [op, two, three],
            &[],
            Reply(OK, 0)
        )),
        (5u32..256, 0u32..16).prop_map(|(op, tag)| request(ROOT, 0, IPTAG, [op << 16 | tag, 1, 0], &[], Reply(OK, 0))),
        (1u32..4, 16u32..256).prop_map(|(op, tag)| request(ROOT, 0, IPTAG, [op << 16 | tag, 1, 0], &[], Reply(OK, 0))),
        (chip(), any::<u32>()).prop_map(|(chip, signal)| request(chip, 0, SIG, [1, signal, 0], &[], Reply(OK, 0))),
        (chip(), any::<u32>()).prop_map(|(chip, start)| request(chip, 0, AR, [start | 1, 0, 0], &[], Reply(OK, 0))),
        (chip(), 1100u32..0x1_0000, any::<u8>()).prop_map(|(chip, count, app)| {
            request(chip, 0, RTR, [count << 16 | u32::from(app) << 8 | 2, 0x6020_0000, 0], &[], Reply(OK, 0))
        }),
    ]
}

/// Requests that are unusual and all right.
fn unusual() -> impl Strategy<Value = Message> {
    prop_oneof![
        // Bytes at any place, with any number of bytes too many behind the request.
        (chip(), 0u8..18, 0u32..0x1F_0000, 0u32..257, bytes(0..256)).prop_map(|(chip, core, offset, length, data)| {
            request(chip, core, READ, [0x6000_0000 + offset, length, 0], &data, Reply(OK, length as usize))
        }),
        // A core's own memories, and past their ends, where they are seen again.
        (chip(), 1u8..18, 0u32..0x41_0000, 0u32..65).prop_map(|(chip, core, address, words)| {
            request(chip, core, READ, [address & !3, 4 * words, 2], &[], Code(OK))
        }),
        // The number of bytes does not go into words: the reply has them all the same.
        (chip(), 0u8..18, 0u32..257).prop_map(|(chip, core, length)| {
            request(chip, core, READ, [0x6000_0100, length, 2], &[], Reply(OK, length as usize))
        }),
        // A word that is not there, as the router of the neighbour sees it; and links that lead nowhere. No core is hurt.
        (chip(), 0u32..6, 0u32..9, prop::sample::select(vec![0x5000_0000u32, 0x8000_0000, 0xE700_0000, 0xF100_8000]))
            .prop_map(|(chip, link, words, address)| request(
                chip,
                0,
                LINK_READ,
                [address, 4 * words, link],
                &[],
                Code(OK)
            )),
        (chip(), 0u32..6, prop::sample::select(vec![0x5000_0000u32, 0x8000_0000, 0xE700_0000]))
            .prop_map(|(chip, link, address)| request(chip, 0, LINK_WRITE, [address, 8, link], &[7; 8], Code(OK))),
    ]
}

/// Sends a message and looks at what comes back within some time.
fn check(machine: &mut CycleMachine, message: &Message) -> Result<(), TestCaseError> {
    let wait_ns = if message.expected == Nothing { 5 * MS } else { 60 * MS };
    let reply = machine.request(&datagram(machine, message.port, message.data.clone()), wait_ns);
    let code = |data: &[u8]| u16::from_le_bytes([data[10], data[11]]);
    let same = match (message.expected, &reply) {
        (Anything, _) | (Nothing, None) => true,
        (Code(wanted), Some(reply)) => reply.data.len() >= 14 && code(&reply.data) == wanted,
        (Reply(wanted, length), Some(reply)) => reply.data.len() == 14 + length && code(&reply.data) == wanted,
        _ => false,
    };
    let reply = reply.map(|reply| to(reply.port, reply.data, Anything));
    prop_assert!(same, "{message:?}: {reply:?}");
    Ok(())
}

/// Whether the monitor of a chip says its version.
fn is_answered(machine: &mut CycleMachine, chip: ChipXy) -> bool {
    while machine.receive().is_some() {}
    let reply = ask(machine, scp(chip, 0, VER, [0; 3], &[]));
    reply.is_some_and(|(code, data)| code == OK && data.ends_with(b"SC&MP/SpiNNaker\x004.0.0\0"))
}

/// Holds a property that keeps a machine between its cases; so a failing case is not made smaller.
fn hold<T: std::fmt::Debug>(
    cases: u32,
    strategy: impl Strategy<Value = T>,
    test: impl Fn(T) -> Result<(), TestCaseError>,
) {
    let config = Config { cases, max_shrink_iters: 0, failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    match runner.run(&strategy, test) {
        Ok(()) => {}
        Err(TestError::Fail(why, _)) => panic!("{why}"),
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn the_monitor_answers_nonsense_as_the_reference_says_and_goes_on() {
    let Some(machine) = booted() else { return };
    let mut machine = RefCell::new(machine);
    let message = prop_oneof![refused(), reverse(), astray(), wrong(), unusual()];
    // One after the other with their answers, or at once.
    hold(300, (prop::collection::vec(message, 1..16), any::<bool>(), chip()), |(messages, at_once, chip)| {
        let machine = &mut *machine.borrow_mut();
        for message in &messages {
            if at_once {
                let datagram = datagram(machine, message.port, message.data.clone());
                machine.send(&datagram);
            } else {
                check(machine, message)?;
                while machine.receive().is_some() {}
            }
        }
        machine.run_for(if at_once { 200 * MS } else { MS });
        prop_assert!(is_answered(machine, ROOT) && is_answered(machine, chip), "silent after {messages:?}");
        Ok(())
    });
    // None of that has hurt a core.
    let machine = machine.get_mut();
    for chip in CHIPS {
        for core in 1..18 {
            assert_eq!(state(machine, chip, core).0, STATE_IDLE, "{chip} core {core}");
        }
    }
}

#[test]
fn an_access_that_faults_stops_its_core_and_no_other() {
    let Some(mut machine) = booted() else { return };
    // Command, address, unit (0 byte, 1 half, 2 word); hardware.md 2 to 13. No device; keys and masks of the router are write-only;
    // not aligned; DMA and system controller take words only.
    let faults = [
        (READ, 0x5000_0000, 2),
        (READ, 0x8000_0000, 2),
        (READ, 0xDFFF_FFFC, 2),
        (READ, 0xE700_0000, 2),
        (READ, 0xFE00_0000, 2),
        (READ, 0x1200_0000, 2),
        (READ, 0xF100_8000, 2),
        (READ, 0xF100_C000, 2),
        (READ, 0x6000_0002, 2),
        (READ, 0x6000_0001, 1),
        (READ, 0x0040_0003, 2),
        (READ, 0xF500_0001, 1),
        (READ, 0xF200_0000, 0),
        (READ, 0x3000_0004, 1),
        (WRITE, 0x5000_0000, 2),
        (WRITE, 0x7000_0002, 2),
    ];
    for (chip, (core, (command, address, unit))) in
        CHIPS.into_iter().flat_map(|chip| (1..).zip(faults).map(move |f| (chip, f)))
    {
        let message = request(chip, core, command, [address, 4, unit], &[0; 4], Nothing);
        check(&mut machine, &message).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(state(&mut machine, chip, core), (STATE_RUN_TIME_ERROR, DATA_ABORT), "{chip} {address:#x}");
    }
    for chip in CHIPS {
        assert!(is_answered(&mut machine, chip), "{chip}");
        // A store through the write buffer fails without a word; and the core goes on. (The last that there is.)
        let message = request(chip, 17, WRITE, [0x8000_0000, 4, 2], &[0; 4], Reply(OK, 0));
        check(&mut machine, &message).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(state(&mut machine, chip, 17).0, STATE_IDLE, "{chip}");
    }
}

/// A message to a blank board.
#[derive(Debug, Clone)]
enum ToRom {
    /// Number of blocks; the target (0 is the monitor).
    Start(u8, u8),
    /// Number, words, bytes that come.
    Block(u8, u32, usize),
    Control(u32),
    Bytes(u16, Vec<u8>),
}

fn to_rom() -> impl Strategy<Value = ToRom> {
    prop_oneof![
        4 => (1u8..5, prop_oneof![4 => Just(0u8), 1 => any::<u8>()]).prop_map(|(blocks, target)| ToRom::Start(blocks, target)),
        16 => (0u8..4, prop_oneof![3 => Just(1024usize), 1 => 0usize..1024])
            .prop_map(|(number, bytes)| ToRom::Block(number, 256, bytes)),
        // With another number of words, where none is expected: it changes nothing.
        1 => (4u8..=255, 1u32..257).prop_map(|(number, words)| ToRom::Block(number, words, 1024)),
        2 => any::<u32>().prop_map(ToRom::Control),
        2 => (prop_oneof![Just(BOOT_PORT), Just(SCP_PORT), any::<u16>()], bytes(0..1472))
            .prop_map(|(port, data)| ToRom::Bytes(port, data)),
    ]
}

#[test]
fn the_rom_starts_what_is_complete_in_any_order_and_nothing_else() {
    let image: Vec<u8> = std::iter::repeat_n(counting(), 4).flatten().collect();
    let started = Cell::new(0);
    hold(120, prop::collection::vec(to_rom(), 1..40), |messages| {
        let mut machine = CycleMachine::new(&Machine::spin3(), &CycleConfig::default());
        machine.run_for(150 * MS);
        // What the page says (6.1): blocks expected, and those that are there.
        let (mut expected, mut marked, mut starts) = (None, [false; 256], false);
        for message in &messages {
            let (port, data) = match *message {
                ToRom::Start(blocks, target) => {
                    if target == 0 {
                        expected = expected.or(Some(blocks));
                    }
                    (BOOT_PORT, boot_message(1, u32::from(target), u32::from(blocks) - 1, &[]))
                }
                ToRom::Block(number, words, length) => {
                    marked[usize::from(number)] |= expected.is_some();
                    let from = usize::from(number % 4) * 1024;
                    let block = &image[from..from + length];
                    (BOOT_PORT, boot_message(3, (words - 1) << 8 | u32::from(number), 0, block))
                }
                ToRom::Control(operand) => {
                    let complete = expected.is_some_and(|blocks| (0..blocks).all(|number| marked[usize::from(number)]));
                    starts |= operand & 1 != 0 && complete;
                    (BOOT_PORT, boot_message(5, operand, 0, &[]))
                }
                ToRom::Bytes(port, ref data) => (port, data.clone()),
            };
            let datagram = datagram(&machine, port, data);
            machine.send(&datagram);
            machine.run_for(MS);
            if starts {
                break;
            }
        }
        let snapshot = machine.snapshot();
        let monitor = snapshot.chips[0].monitor;
        let activity = snapshot.chips[0].cores[usize::from(monitor)].activity;
        prop_assert_eq!(activity != CoreActivity::BootRom, starts);
        started.set(started.get() + u32::from(starts));
        // A board that waits says HELLO each 4,096 ms. (One that runs something is left to its watchdog: see tests/bad_input.rs.)
        if !starts {
            machine.run_for(4_200 * MS);
            let hello = std::iter::from_fn(|| machine.receive()).any(|datagram| datagram.port == BOOT_PORT);
            prop_assert!(hello, "silent after {messages:?}");
        }
        Ok(())
    });
    assert!((20..100).contains(&started.get()), "{} of 120 start", started.get());
}
