//! Boots an unmodified SC&MP image on a virtual machine and prints what happens when.
//!
//! Then lets it idle for as many more seconds as asked for, and says what that costs the host's processor.
//!
//! `cargo run --release -p spinnaker-sim --example boot -- chip|spin3|spin5|Nboards PATH/scamp.boot [seconds] [threads] [idle seconds]`
//!
//! With the environment variable `VERBOSE` also each chip's log.

#[path = "../tests/common/mod.rs"]
mod common;

use std::collections::BTreeMap;
use std::error::Error;
use std::time::Instant;

use common::{MS, boot, datagram, patch, root, scp};
use spinnaker_machine::{ChipXy, Machine};
use spinnaker_sim::cycle::{CycleConfig, CycleMachine};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [shape, image, rest @ ..] = arguments.as_slice() else {
        return Err("usage: boot chip|spin3|spin5|Nboards PATH/scamp.boot [seconds] [threads] [idle seconds]".into());
    };
    let (machine, version, led) = match shape.as_str() {
        "chip" => (Machine::rectangle(1, 1)?, 5, 1),
        "spin3" => (Machine::spin3(), 3, 0x502),
        "spin5" => (Machine::spin5(), 5, 1),
        other => (Machine::boards(other.trim_end_matches("boards").parse()?)?, 5, 1),
    };
    let seconds: f64 = rest.first().map_or(Ok(6.0), |text| text.parse())?;
    let verbose = std::env::var_os("VERBOSE").is_some();
    let threads = rest.get(1).map_or(Ok(1), |text| text.parse())?;
    let mut image = std::fs::read(image)?;
    patch(&mut image, version, led);
    let mut machine = CycleMachine::new(&machine, &CycleConfig { threads, ..CycleConfig::default() });
    let start = Instant::now();
    boot(&mut machine, &image);
    let mut last = String::new();
    let end = machine.now_ns() + (seconds * 1e9) as u64;
    while machine.now_ns() < end {
        machine.run_for(10 * MS);
        for (xy, entry) in machine.take_log() {
            if verbose {
                println!("{:10.3} ms  {xy}: {}", entry.time_ns as f64 / 1e6, entry.text);
            }
        }
        let state = state(&mut machine);
        if state != last {
            let counts = machine.counts();
            println!(
                "{:10.3} ms  {state}  ({} instructions, {} packets, {} dropped, {:.2} s of wall time)",
                machine.now_ns() as f64 / 1e6,
                counts.instructions,
                counts.routed,
                counts.dropped,
                start.elapsed().as_secs_f64()
            );
            last = state;
        }
    }
    let request = datagram(&machine, 17893, scp(root(&machine), 0, 0, [0; 3], &[]));
    let asked = machine.now_ns();
    while machine.receive().is_some() {}
    match machine.request(&request, 100 * MS) {
        Some(reply) => println!(
            "VER after {:.1} us: {}",
            (reply.time_ns - asked) as f64 / 1e3,
            String::from_utf8_lossy(reply.data.get(26..).unwrap_or_default()).replace(char::from(0), " ")
        ),
        None => println!("VER: no answer"),
    }
    if let Some(idle) = rest.get(2) {
        let idle: f64 = idle.parse()?;
        let (instructions, busy) = (machine.counts().instructions, processor_seconds());
        machine.run_for((idle * 1e9) as u64);
        println!(
            "idle: {:.1} M instructions, {:.3} s of a processor per second of machine time",
            (machine.counts().instructions - instructions) as f64 / idle / 1e6,
            (processor_seconds() - busy) / idle
        );
    }
    let counts = machine.counts();
    let wall = start.elapsed().as_secs_f64();
    let idle = Instant::now();
    machine.run_for(1000 * MS);
    println!("a second of doing nothing takes {:.3} s", idle.elapsed().as_secs_f64());
    println!(
        "{} chips: {} instructions, {} packets routed, {} dropped; {:.2} s of machine time in {wall:.2} s ({:.0} M instructions/s); trace {:016x}",
        machine.places().len(),
        counts.instructions,
        counts.routed,
        counts.dropped,
        machine.now_ns() as f64 / 1e9,
        counts.instructions as f64 / wall / 1e6,
        machine.trace_hash()
    );
    Ok(())
}

/// Processor time of this thread so far (Linux's accounting; zero where there is none).
fn processor_seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    text.split(' ').next().and_then(|ns| ns.parse::<f64>().ok()).unwrap_or_default() / 1e9
}

/// What the monitors that have started say of themselves, summed up.
fn state(machine: &mut CycleMachine) -> String {
    let mut phases = BTreeMap::<u8, usize>::new();
    let mut idle = 0;
    let mut monitors = 0;
    for xy in machine.places().to_vec() {
        let Some(sv) = machine.peek(xy, 0xF500_7F00, 256) else { continue };
        let Some(vcpu) = machine.peek(xy, 0xF500_7000, 18 * 128) else { continue };
        if vcpu[0x2E] == 7 && &vcpu[0x48..0x4D] == b"scamp" {
            monitors += 1;
            *phases.entry(sv[0x2D]).or_default() += 1;
            idle += vcpu.chunks(128).filter(|block| block[0x2E] == 15).count();
        }
    }
    let Some(sv) = machine.peek(ChipXy::new(0, 0), 0xF500_7F00, 256) else { return String::new() };
    let active = u16::from_le_bytes([sv[0xE2], sv[0xE3]]);
    format!(
        "{monitors} monitors, {idle} idle cores, phases {phases:?}; root: {}x{}, up {}, {active} chips",
        sv[3], sv[2], sv[6]
    )
}
