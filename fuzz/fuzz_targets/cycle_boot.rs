//! Any bytes as a boot image: code that runs on a blank chip, with all devices in reach.
#![no_main]

use libfuzzer_sys::fuzz_target;
use spinnaker_machine::{ChipXy, Machine};
use spinnaker_sim::cycle::{CycleConfig, CycleMachine, Datagram};
use spinnaker_wire::boot;

/// Machine time of the ROM's start, after each message, and of the code.
const START_NS: u64 = 150_000_000;
const MESSAGE_NS: u64 = 1_000_000;
const RUN_NS: u64 = 1_000_000;

fuzz_target!(|data: &[u8]| {
    let mut machine = CycleMachine::new(&Machine::rectangle(2, 1).expect("small"), &CycleConfig::default());
    machine.run_for(START_NS);
    let mut buffer = [0; boot::MESSAGE_BYTES_MAX];
    let send = |machine: &mut CycleMachine, message: &[u8]| {
        let host = "192.168.240.254:12345".parse().expect("an address");
        let data = message.to_vec();
        machine.send(&Datagram { board: ChipXy::new(0, 0), host, port: boot::UDP_PORT, time_ns: 0, data });
        machine.run_for(MESSAGE_NS);
    };
    let blocks: Vec<&[u8]> = data.chunks(1024).take(4).collect();
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
