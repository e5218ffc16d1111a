//! Bytes as instructions: written as assembly in both states, and executed compiled and one by one with the same result.
//!
//! The first byte says how the others become code: as they are, or so that more of it does something: conditions always true,
//! base registers where memory is, branches that stay near.
#![no_main]

use libfuzzer_sys::fuzz_target;
use spinnaker_sim::arm968::{Access, Bus, BusError, Cpu, Exit, Size, disassemble};

/// Cycles of a run, and instructions that one by one are tried for it.
const CYCLES: u64 = 5000;
const STEPS_MAX: u64 = 20_000;
/// Bytes of code.
const CODE_BYTES: usize = 0x1000;
/// Where registers may point: both memories, their ends, the system side, nowhere.
const PLACES: [u32; 16] = [
    0, 0x40, 0x400, 0x7FF0, 0x8000, 0x0040_0000, 0x0040_0100, 0x0040_FFF8, 0x0041_0000, 0x6000_0000, 0x6000_0003,
    0xE500_0000, 0xEFFF_FFFC, 0xF000_0000, 0xFFFF_FFFC, 7,
];

/// A word of memory everywhere up to an address, bus errors above.
struct Word(u32);

impl Bus for Word {
    fn read(&mut self, address: u32, _: Size, _: u64) -> Result<Access, BusError> {
        if address < 0xF000_0000 { Ok(Access { value: self.0, wait: 2 }) } else { Err(BusError) }
    }

    fn write(&mut self, address: u32, _: Size, value: u32, _: u64) -> Result<u32, BusError> {
        self.0 = value;
        if address < 0xF000_0000 { Ok(1) } else { Err(BusError) }
    }

    fn fetch(&mut self, address: u32, at: u64) -> Result<Access, BusError> {
        self.read(address, Size::Word, at)
    }
}

/// A word that is more likely to do something.
fn lively(word: u32) -> u32 {
    // Conditions but always and never become always.
    let word = if word >> 28 < 14 { word & 0x0FFF_FFFF | 0xE << 28 } else { word };
    match word >> 25 & 7 {
        // A branch by a few words, forward or back.
        0b101 => word & 0xFF00_0000 | (word & 0x1F).wrapping_sub(16) & 0x00FF_FFFF,
        _ => word,
    }
}

fuzz_target!(|data: &[u8]| {
    let [how, status, start, seed @ ..] = data else { return };
    for word in seed.chunks_exact(4).take(64).map(|w| u32::from_le_bytes([w[0], w[1], w[2], w[3]])) {
        let _ = disassemble(word, false);
        let _ = disassemble(word & 0xFFFF, true);
    }
    let mut code = seed[..seed.len().min(CODE_BYTES)].to_vec();
    if how & 1 != 0 {
        for word in code.chunks_exact_mut(4) {
            let changed = lively(u32::from_le_bytes([word[0], word[1], word[2], word[3]]));
            word.copy_from_slice(&changed.to_le_bytes());
        }
    }
    let prepared = || {
        let mut cpu = Cpu::new();
        cpu.write_tcm(0, &code).expect("it fits");
        if how & 2 != 0 {
            // Both memories on, high or low vectors.
            cpu.set_control(1 << 12 | 1 << 2 | u32::from(how >> 2 & 1) << 13);
        }
        cpu.set_cpsr(u32::from(*status) | 0x10);
        for register in 0..15 {
            let byte = seed.get(register).copied().unwrap_or(0);
            let value = match how >> 3 & 3 {
                0 => u32::from(byte) << (byte & 28) | u32::from(byte),
                _ => PLACES[usize::from(byte & 15)].wrapping_add(u32::from(byte >> 4) * 4),
            };
            cpu.set_register(register, value);
        }
        cpu.set_pc(u32::from(*start) << 2);
        cpu.set_lines(how & 0x40 != 0, how & 0x80 != 0);
        (cpu, Word(0x1234_5678))
    };
    let state = |cpu: &Cpu, bus: &Word| {
        let registers: Vec<u32> = (0..16).map(|register| cpu.register(register)).collect();
        (registers, cpu.cpsr(), cpu.instructions(), cpu.cycles(), bus.0)
    };
    let (mut compiled, mut bus) = prepared();
    while compiled.cycles() < CYCLES && compiled.run(&mut bus, CYCLES) != Exit::WaitForInterrupt {}
    // To the same cycle, one after the other. A loop that only waits may have been left at another place.
    let (mut single, mut single_bus) = prepared();
    let end = compiled.cycles();
    for _ in 0..STEPS_MAX {
        if single.cycles() >= end || single.step(&mut single_bus) == Exit::WaitForInterrupt {
            break;
        }
    }
    if single.cycles() == end {
        assert_eq!(state(&compiled, &bus), state(&single, &single_bus));
        assert!(compiled.itcm() == single.itcm() && compiled.dtcm() == single.dtcm(), "memories differ");
    }
});
