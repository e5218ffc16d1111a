//! Boots an unmodified SC&MP image on a virtual machine and prints what happens when.
//!
//! `cargo run --release -p spinnaker-sim --example boot -- spin3|spin5|Nboards PATH/scamp.boot [seconds] [threads]`

use std::error::Error;
use std::time::Instant;

use spinnaker_machine::{ChipXy, Machine};
use spinnaker_sim::cycle::{BOOT_PORT, CycleConfig, CycleMachine, Datagram};

const MS: u64 = 1_000_000;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [shape, image, rest @ ..] = arguments.as_slice() else {
        return Err("usage: boot spin1chip|spin3|spin5|Nboards PATH/scamp.boot [seconds] [threads]".into());
    };
    let (machine, version, led) = match shape.as_str() {
        "chip" => (Machine::rectangle(1, 1)?, 5, 1),
        "spin3" => (Machine::spin3(), 3, 0x502),
        "spin5" => (Machine::spin5(), 5, 1),
        other => (Machine::boards(other.trim_end_matches("boards").parse()?)?, 5, 1),
    };
    let seconds: f64 = rest.first().map_or(Ok(6.0), |text| text.parse())?;
    let threads = rest.get(1).map_or(Ok(1), |text| text.parse())?;
    let mut image = std::fs::read(image)?;
    patch(&mut image, version, led);
    let mut machine = CycleMachine::new(&machine, &CycleConfig { threads, ..CycleConfig::default() });
    let start = Instant::now();
    machine.run_for(150 * MS);
    boot(&mut machine, &image);
    let mut last = String::new();
    let end = machine.now_ns() + (seconds * 1e9) as u64;
    while machine.now_ns() < end {
        machine.run_for(10 * MS);
        for (xy, entry) in machine.take_log() {
            println!("{:10.3} ms  {xy}: {}", entry.time_ns as f64 / 1e6, entry.text);
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
    let board = machine.boards().next().map(|(xy, _)| xy).ok_or("no board")?;
    let request = Datagram {
        board,
        host: "192.168.240.254:12345".parse()?,
        port: 17893,
        time_ns: 0,
        data: vec![0, 0, 0x87, 0xFF, 0, 0xFF, 0xFF, 0xFF, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    };
    let asked = machine.now_ns();
    while machine.receive().is_some() {}
    match machine.request(&request, 100 * MS) {
        Some(reply) => println!(
            "VER after {:.1} us: {}",
            (reply.time_ns - asked) as f64 / 1e3,
            String::from_utf8_lossy(reply.data.get(26..).unwrap_or_default())
        ),
        None => println!("VER: no answer"),
    }
    let counts = machine.counts();
    let wall = start.elapsed().as_secs_f64();
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

/// System variables as a host sets them.
fn patch(image: &mut [u8], version: u8, led: u32) {
    let sv = 0x180;
    image[sv + 0x0A] = version;
    image[sv + 0x1C..sv + 0x20].copy_from_slice(&0x5F00_0000u32.to_le_bytes());
    image[sv + 0x30..sv + 0x34].copy_from_slice(&led.to_le_bytes());
    image[sv + 0x40] = 1;
    image[sv + 0x5C..sv + 0x60].copy_from_slice(&0x5F00_0000u32.to_le_bytes());
}

fn boot(machine: &mut CycleMachine, image: &[u8]) {
    let board = machine.boards().next().map(|(xy, _)| xy).unwrap_or(ChipXy::new(0, 0));
    let blocks = image.len().div_ceil(1024);
    let mut messages = vec![message(1, 0, blocks as u32 - 1, &[])];
    for (number, block) in image.chunks(1024).enumerate() {
        let mut block = block.to_vec();
        block.resize(1024, 0);
        messages.push(message(3, 255 << 8 | number as u32, 0, &block));
    }
    messages.push(message(5, 1, 0, &[]));
    for data in messages {
        let host = "192.168.240.254:54321".parse().expect("an address");
        machine.send(&Datagram { board, host, port: BOOT_PORT, time_ns: 0, data });
        machine.run_for(MS);
    }
}

fn message(opcode: u32, operand1: u32, operand3: u32, block: &[u8]) -> Vec<u8> {
    let mut data = 1u16.to_be_bytes().to_vec();
    for word in [opcode, operand1, 0, operand3] {
        data.extend_from_slice(&word.to_be_bytes());
    }
    data.extend(block.chunks_exact(4).flat_map(|word| [word[3], word[2], word[1], word[0]]));
    data
}

/// What the monitors say of themselves, summed up.
fn state(machine: &mut CycleMachine) -> String {
    let mut phases = std::collections::BTreeMap::<u8, usize>::new();
    let mut cores = 0;
    let mut idle = 0;
    for xy in machine.places().to_vec() {
        let Some(sv) = machine.peek(xy, 0xF500_7F00, 256) else { continue };
        *phases.entry(sv[0x2D]).or_default() += 1;
        let Some(vcpu) = machine.peek(xy, 0xF500_7000, 18 * 128) else { continue };
        cores += vcpu.chunks(128).filter(|block| block[0x2E] == 7).count();
        idle += vcpu.chunks(128).filter(|block| block[0x2E] == 15).count();
    }
    let Some(sv) = machine.peek(ChipXy::new(0, 0), 0xF500_7F00, 256) else { return String::new() };
    let active = u16::from_le_bytes([sv[0xE2], sv[0xE3]]);
    format!(
        "phases {phases:?}, monitors {cores}, idle cores {idle}; root: dimensions {}x{}, up {}, chips seen {active}",
        sv[3], sv[2], sv[6]
    )
}
