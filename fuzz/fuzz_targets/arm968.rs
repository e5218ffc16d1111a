//! Any bytes as instructions: decoded and written as assembly in both states, and executed, plainly and compiled, with the
//! same result.
#![no_main]

use libfuzzer_sys::fuzz_target;
use spinnaker_sim::arm968::{Access, Bus, BusError, Cpu, Exit, Size, disassemble};

/// Cycles of a run.
const CYCLES: u64 = 5000;

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

fuzz_target!(|data: &[u8]| {
    let [status, start, seed @ ..] = data else { return };
    for word in seed.chunks_exact(4).take(64).map(|w| u32::from_le_bytes([w[0], w[1], w[2], w[3]])) {
        let _ = disassemble(word, false);
        let _ = disassemble(word & 0xFFFF, true);
    }
    let run = |watched: bool| {
        let mut cpu = Cpu::new();
        let code = &seed[..seed.len().min(0x1000)];
        cpu.write_tcm(0, code).expect("it fits");
        cpu.set_cpsr(u32::from(*status) | 0x10);
        for register in 0..15 {
            let byte = u32::from(seed.get(register).copied().unwrap_or(0));
            cpu.set_register(register, byte << (byte & 28) | byte);
        }
        cpu.set_pc(u32::from(*start) << 2);
        // Watched cores execute one instruction after the other.
        cpu.set_profile(watched);
        let mut bus = Word(0x1234_5678);
        while cpu.cycles() < CYCLES {
            if cpu.run(&mut bus, CYCLES) == Exit::WaitForInterrupt {
                break;
            }
        }
        let registers: Vec<u32> = (0..16).map(|register| cpu.register(register)).collect();
        (registers, cpu.cpsr(), cpu.instructions(), cpu.cycles(), bus.0)
    };
    let compiled = run(false);
    // A block may pass the end by its own length, so what ran on differently is not compared.
    let watched = run(true);
    if compiled.2 == watched.2 {
        assert_eq!(compiled, watched);
    }
});
