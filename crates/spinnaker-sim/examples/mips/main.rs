//! Instructions per second of the processor model with its timing, for some kernels and lengths of a run.
//!
//! `cargo run --release -p spinnaker-sim --example mips [MILLIONS]`: so many million instructions a kernel and run length.

mod kernels;

use spinnaker_sim::arm968::{Access, Bus, BusError, Cpu, DTCM_START, Exit, Size};
use std::time::Instant;

/// Nothing on the bus.
struct Nothing;

impl Bus for Nothing {
    fn read(&mut self, _address: u32, _size: Size, _at: u64) -> Result<Access, BusError> {
        Err(BusError)
    }

    fn write(&mut self, _address: u32, _size: Size, _value: u32, _at: u64) -> Result<u32, BusError> {
        Err(BusError)
    }

    fn fetch(&mut self, _address: u32, _at: u64) -> Result<Access, BusError> {
        Err(BusError)
    }
}

/// Where the code lies.
const CODE: u32 = 0x100;
/// Where a kernel returns to, to wait for an interrupt that does not come.
const RETURN: u32 = 0x40;

/// A kernel and what it is called with: r0 to r3.
struct Kernel {
    name: &'static str,
    entry: u32,
    arguments: [u32; 4],
}

const KERNELS: [Kernel; 6] = [
    Kernel { name: "mix", entry: kernels::MIX, arguments: [DTCM_START, DTCM_START + 0x100, 1000, DTCM_START + 0x4000] },
    Kernel { name: "fir", entry: kernels::FIR, arguments: [DTCM_START, DTCM_START + 0x100, 1000, DTCM_START + 0x4000] },
    Kernel { name: "dot", entry: kernels::DOT, arguments: [DTCM_START, DTCM_START + 0x2000, 4000, 0] },
    Kernel { name: "memcpy", entry: kernels::MEMCPY, arguments: [DTCM_START + 0x8000, DTCM_START, 0x4000, 0] },
    Kernel { name: "copy", entry: kernels::COPY, arguments: [DTCM_START + 0x8000, DTCM_START, 0x4000, 0] },
    Kernel {
        name: "fmul",
        entry: kernels::FMULS,
        arguments: [DTCM_START, DTCM_START + 0x2000, 1000, DTCM_START + 0x4000],
    },
];

fn prepare() -> Cpu {
    let mut cpu = Cpu::new();
    let code: Vec<u8> = kernels::CODE.iter().flat_map(|word| word.to_le_bytes()).collect();
    cpu.write_tcm(CODE, &code).expect("code fits");
    cpu.write_tcm(RETURN, &0xee07_0f90_u32.to_le_bytes()).expect("code fits");
    for (index, byte) in cpu.dtcm_mut().iter_mut().enumerate() {
        *byte = (index % 255) as u8;
    }
    for index in 0..0x1000u32 {
        let number = (1.0 + index as f32 / 300.0).to_le_bytes();
        let at = index as usize * 4;
        cpu.dtcm_mut()[at..at + 4].copy_from_slice(&number);
    }
    // The strings of the mix: equal for 24 characters.
    for start in [0, 0x100] {
        cpu.dtcm_mut()[start..start + 24].copy_from_slice(b"DHRYSTONE PROGRAM STRING");
        cpu.dtcm_mut()[start + 24..start + 27].copy_from_slice(&[0, 1, 2]);
    }
    cpu
}

/// Calls a kernel again and again until so many instructions are done; gives instructions, cycles and seconds.
fn measure(kernel: &Kernel, quantum: u64, instructions: u64) -> (u64, u64, f64) {
    let mut cpu = prepare();
    let started = Instant::now();
    while cpu.instructions() < instructions {
        // A reset wakes the core from its last wait.
        cpu.reset();
        cpu.set_cpsr(0xdf);
        for (register, value) in kernel.arguments.iter().enumerate() {
            cpu.set_register(register, *value);
        }
        cpu.set_register(13, DTCM_START + 0xff00);
        cpu.set_register(14, RETURN);
        cpu.set_pc(CODE + kernel.entry);
        loop {
            let until = cpu.cycles() + quantum;
            match cpu.run(&mut Nothing, until) {
                Exit::Until => {}
                Exit::WaitForInterrupt => break,
                exit => panic!("kernels do not use the bus: {exit:?}"),
            }
        }
    }
    (cpu.instructions(), cpu.cycles(), started.elapsed().as_secs_f64())
}

fn main() {
    let millions = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(100);
    println!("{:8} {:>8} {:>10} {:>8} {:>6}", "kernel", "quantum", "million/s", "Mcycle/s", "CPI");
    for kernel in &KERNELS {
        for quantum in [100, 400, 10_000] {
            let (instructions, cycles, seconds) = measure(kernel, quantum, millions * 1_000_000);
            println!(
                "{:8} {:>8} {:>10.0} {:>8.0} {:>6.2}",
                kernel.name,
                quantum,
                instructions as f64 / seconds / 1e6,
                cycles as f64 / seconds / 1e6,
                cycles as f64 / instructions as f64
            );
        }
    }
}
