//! Instructions per second of the processor model with its timing, for some kernels and lengths of a run.
//!
//! `cargo run --release -p spinnaker-sim --example mips [MILLIONS [KERNEL]]`: so many million instructions a kernel and run
//! length. With a Python that has the package `unicorn` (`python3`, or what `SPINNAKER_ORACLE_PYTHON` names), the same code in
//! Unicorn, which translates to machine code and counts no cycles.

mod kernels;

use spinnaker_sim::arm968::{Access, Bus, BusError, Cpu, DTCM_START, Exit, Size};
use std::io::Write;
use std::process::{Command, Stdio};
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

/// Into how many rounds a measurement is cut.
const ROUNDS: u64 = 20;

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

/// Calls a kernel once, in runs of `quantum` cycles.
fn call(cpu: &mut Cpu, kernel: &Kernel, quantum: u64) {
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

/// Calls a kernel again and again until so many instructions are done; gives instructions, cycles and seconds.
fn measure(kernel: &Kernel, quantum: u64, instructions: u64) -> (u64, u64, f64) {
    let mut cpu = prepare();
    let started = Instant::now();
    while cpu.instructions() < instructions {
        call(&mut cpu, kernel, quantum);
    }
    (cpu.instructions(), cpu.cycles(), started.elapsed().as_secs_f64())
}

/// Seconds of a kernel that is called `calls` times in Unicorn, if that is there.
fn unicorn(kernel: &Kernel, calls: u64) -> Option<f64> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/oracle/unicorn_time.py");
    let python = std::env::var("SPINNAKER_ORACLE_PYTHON").unwrap_or_else(|_| "python3".into());
    let [r0, r1, r2, r3] = kernel.arguments;
    let numbers = [CODE + kernel.entry, RETURN, r0, r1, r2, r3].map(|number| number.to_string());
    let mut child = Command::new(python)
        .arg(script)
        .arg(calls.to_string())
        .args(numbers)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    let cpu = prepare();
    let mut input = child.stdin.take()?;
    // A script that ended early has said nothing, which is what counts.
    let _ = input.write_all(cpu.itcm()).and_then(|()| input.write_all(cpu.dtcm()));
    drop(input);
    let output = child.wait_with_output().ok()?;
    String::from_utf8(output.stdout).ok()?.trim().parse().ok()
}

fn main() {
    let millions = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(100);
    println!("{:8} {:>8} {:>10} {:>8} {:>6}", "kernel", "quantum", "million/s", "Mcycle/s", "CPI");
    let only = std::env::args().nth(2);
    for kernel in KERNELS.iter().filter(|kernel| only.as_ref().is_none_or(|only| only == kernel.name)) {
        for quantum in [100, 400, 10_000] {
            // The best of some short rounds: the machine may be busy with other things, too.
            let rounds = (0..ROUNDS).map(|_| measure(kernel, quantum, millions * 1_000_000 / ROUNDS));
            let (instructions, cycles, seconds) = rounds.min_by(|a, b| a.2.total_cmp(&b.2)).expect("there are rounds");
            println!(
                "{:8} {:>8} {:>10.0} {:>8.0} {:>6.2}",
                kernel.name,
                quantum,
                instructions as f64 / seconds / 1e6,
                cycles as f64 / seconds / 1e6,
                cycles as f64 / instructions as f64
            );
        }
        let mut once = prepare();
        let before = once.instructions();
        call(&mut once, kernel, 10_000);
        let instructions_per_call = once.instructions() - before;
        let calls = (millions * 1_000_000 / instructions_per_call).max(1);
        match unicorn(kernel, calls) {
            Some(seconds) => {
                let rate = (calls * instructions_per_call) as f64 / seconds / 1e6;
                println!("{:8} {:>8} {rate:>10.0}", kernel.name, "Unicorn");
            }
            None => println!("{:8} {:>8}    not run: no Unicorn", kernel.name, "Unicorn"),
        }
    }
}
