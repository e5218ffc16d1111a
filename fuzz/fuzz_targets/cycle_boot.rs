//! A boot image: any bytes, or a program that an input spells out: reads and writes of devices and memories, interrupts, sleep.
//! It runs on a chip with all devices in reach and a neighbour.
#![no_main]

use libfuzzer_sys::arbitrary::{Result, Unstructured};
use libfuzzer_sys::fuzz_target;
use spinnaker_machine::{ChipXy, Machine};
use spinnaker_sim::cycle::{CycleConfig, CycleMachine, Datagram};
use spinnaker_wire::boot;

/// Machine time of the ROM's start, after each message, and of the code.
const START_NS: u64 = 150_000_000;
const MESSAGE_NS: u64 = 1_000_000;
const RUN_NS: u64 = 1_000_000;
/// Steps of a program; with its literals it fits the image.
const STEPS_MAX: usize = 300;

/// What there is: communications controller, timers, DMA, router, system controller, Ethernet, watchdog, interrupt controller,
/// SDRAM and its controller, system RAM, boot area, the memories of the core, and bus errors.
const BASES: [u32; 24] = [
    0x1000_0000, 0x1100_0000, 0x1100_0020, 0x3000_0000, 0x4000_0000, 0x6000_0000, 0x67FF_F000, 0x7000_0000, 0xE000_0000,
    0xE100_0000, 0xE100_4000, 0xE100_8000, 0xE101_0000, 0xE200_0000, 0xE300_0000, 0xE400_4000, 0xE400_8000, 0xE400_C000,
    0xE500_0000, 0xF500_7F00, 0xFF00_0000, 0x0000_0100, 0x0040_0000, 0xFFFF_FF00,
];

/// Words that put a literal into a register: `ldr rN, [pc]`, a branch over it, the literal.
fn literal(code: &mut Vec<u32>, register: u32, value: u32) {
    code.extend([0xE59F_0000 | register << 12, 0xEA00_0000, value]);
}

fn step(u: &mut Unstructured<'_>, code: &mut Vec<u32>) -> Result<()> {
    let kind: u8 = u.arbitrary()?;
    let base = BASES[usize::from(u.arbitrary::<u8>()?) % BASES.len()];
    let offset = u32::from(u.arbitrary::<u16>()?);
    // Registers are near the start of a device; every fourth step goes anywhere in 64 KiB.
    let offset = if kind & 0xC0 == 0 { offset } else { offset & 0x1FC };
    literal(code, 4, base.wrapping_add(offset));
    match kind % 12 {
        // Write a word, a small number, or one with a few bits.
        0 => {
            let value: u32 = u.arbitrary()?;
            literal(code, 5, value);
            code.push(0xE584_5000);
        }
        1 => {
            let value = u32::from(u.arbitrary::<u8>()?);
            literal(code, 5, value);
            code.push(0xE584_5000);
        }
        2 => {
            let value = 1 << (u.arbitrary::<u8>()? & 31) | 1 << (u.arbitrary::<u8>()? & 31);
            literal(code, 5, value);
            code.push(0xE584_5000);
        }
        // ldr, ldrb, ldrh, strb, strh, swp, ldmia of four, stmia of four.
        3 => code.push(0xE594_6000),
        4 => code.push(0xE5D4_6000),
        5 => code.push(0xE1D4_60B0),
        6 => code.push(0xE5C4_6000),
        7 => code.push(0xE1C4_60B0),
        8 => code.push(0xE104_6095),
        9 => code.push(0xE894_03C0),
        10 => code.push(0xE884_03C0),
        // Something of the processor: sleep, interrupts on or off, User mode, a call of the supervisor, any word.
        _ => match u.arbitrary::<u8>()? % 6 {
            0 => code.push(0xEE07_0F90),
            1 => code.push(0xE321_F013),
            2 => code.push(0xE321_F0D3),
            3 => code.push(0xE321_F010),
            4 => code.push(0xEF00_0000),
            _ => code.push(u.arbitrary()?),
        },
    }
    Ok(())
}

/// A program: vectors that return, then the steps, then a loop that begins anew.
fn program(mut u: Unstructured<'_>) -> Vec<u8> {
    // Reset goes to the start; aborts go on behind the instruction, interrupts return.
    let mut code = vec![
        0xEA00_0006, 0xE1B0_F00E, 0xE1B0_F00E, 0xE25E_F004, 0xE25E_F004, 0xE1A0_0000, 0xE25E_F004, 0xE25E_F004,
    ];
    for _ in 0..STEPS_MAX {
        if u.is_empty() || step(&mut u, &mut code).is_err() {
            break;
        }
    }
    let back = (8i32 - code.len() as i32 - 2) as u32 & 0x00FF_FFFF;
    code.push(0xEA00_0000 | back);
    code.into_iter().flat_map(u32::to_le_bytes).collect()
}

fuzz_target!(|data: &[u8]| {
    let [how, rest @ ..] = data else { return };
    let image = if how & 1 == 0 { rest.to_vec() } else { program(Unstructured::new(rest)) };
    let mut machine = CycleMachine::new(&Machine::rectangle(2, 1).expect("small"), &CycleConfig::default());
    machine.run_for(START_NS);
    let mut buffer = [0; boot::MESSAGE_BYTES_MAX];
    let send = |machine: &mut CycleMachine, message: &[u8]| {
        let host = "192.168.240.254:12345".parse().expect("an address");
        let data = message.to_vec();
        machine.send(&Datagram { board: ChipXy::new(0, 0), host, port: boot::UDP_PORT, time_ns: 0, data });
        machine.run_for(MESSAGE_NS);
    };
    let blocks: Vec<&[u8]> = image.chunks(1024).take(8).collect();
    if blocks.is_empty() {
        return;
    }
    let length = boot::Repr::Start { blocks: blocks.len() as u16 }.emit(&mut buffer).expect("few blocks");
    send(&mut machine, &buffer[..length]);
    for (number, bytes) in blocks.iter().enumerate() {
        let mut block = [0; 1024];
        block[..bytes.len()].copy_from_slice(bytes);
        let length = boot::emit_block(number as u8, &block, &mut buffer).expect("a whole block");
        send(&mut machine, &buffer[..length]);
    }
    let length = boot::Repr::Control { execute: true, entry: 0 }.emit(&mut buffer).expect("fits");
    send(&mut machine, &buffer[..length]);
    machine.run_for(RUN_NS);
    while machine.receive().is_some() {}
    let _ = machine.snapshot();
});
