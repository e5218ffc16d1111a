//! What bad input gets: what the real machine does, never a crash or a hang of the simulation.

mod common;

use common::spin3::{DATA_ABORT, STATE_IDLE, STATE_RUN_TIME_ERROR, UNDEFINED, booted, image, state};
use common::{MS, ask, boot_message, boot_messages, datagram, scp};
use spinnaker_machine::{ChipXy, Machine};
use spinnaker_sim::cycle::{BOOT_PORT, CoreActivity, CycleConfig, CycleMachine};

const READ: u16 = 2;
fn at(x: u8, y: u8) -> ChipXy {
    ChipXy::new(x, y)
}

#[test]
fn an_address_that_does_not_exist_is_a_data_abort_with_registers_kept() {
    let Some(mut machine) = booted() else { return };
    assert_eq!(state(&mut machine, at(0, 0), 4).0, STATE_IDLE);
    assert_eq!(ask(&mut machine, scp(at(0, 0), 4, READ, [0x5000_0000, 4, 2], &[])), None);
    assert_eq!(state(&mut machine, at(0, 0), 4), (STATE_RUN_TIME_ERROR, DATA_ABORT));
    let block = machine.peek(at(0, 0), 0xE500_7000 + 128 * 4, 48).expect("a chip");
    let words: Vec<u32> = block.chunks(4).map(|w| u32::from_le_bytes([w[0], w[1], w[2], w[3]])).collect();
    assert!(words[..8].contains(&0x5000_0000), "the address is in a register: {words:x?}");
    // Misaligned: alignment is checked.
    assert_eq!(ask(&mut machine, scp(at(0, 0), 5, READ, [0x6000_0002, 4, 2], &[])), None);
    assert_eq!(state(&mut machine, at(0, 0), 5), (STATE_RUN_TIME_ERROR, DATA_ABORT));
    // The rest goes on; the monitor of another chip does the same to itself, and its chip falls silent.
    assert!(ask(&mut machine, scp(at(0, 0), 6, 0, [0; 3], &[])).is_some());
    assert_eq!(ask(&mut machine, scp(at(1, 1), 0, READ, [0x8000_0000, 4, 2], &[])).map(|(code, _)| code == 0x80), None);
    machine.run_for(500 * MS);
    // (Its data abort vector may be broken by then: when SC&MP 4.0.0 sets a timer while the only one in its queue was
    // cancelled it adds to the word at 0x10. What it runs into is the undefined vector.)
    let (state, code) = state(&mut machine, at(1, 1), 0);
    assert!(state == STATE_RUN_TIME_ERROR && matches!(code, DATA_ABORT | UNDEFINED), "{state} {code}");
    assert!(ask(&mut machine, scp(at(0, 0), 0, 0, [0; 3], &[])).is_some());
}

#[test]
fn nonsense_on_the_scp_port_is_survived() {
    let Some(mut machine) = booted() else { return };
    let mut seed = 0x1234_5678_9ABC_DEF0u64;
    let mut random = || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as u32
    };
    for round in 0..300 {
        let length = match round % 4 {
            0 => random() % 14,
            1 => 26 + random() % 256,
            2 => random() % 1472,
            _ => 26,
        };
        let mut data: Vec<u8> = (0..length).map(|_| random() as u8).collect();
        if round % 4 == 3 {
            // A good header, a known command, and arguments of any size.
            let command = [0, 2, 3, 5, 17, 18, 19, 20, 22, 23, 24, 25, 26, 28, 29, 31][random() as usize % 16];
            data = scp(at(0, 0), (random() % 18) as u8, command, [random(), random(), random()], &[]);
        }
        let port = if round % 16 == 15 { BOOT_PORT } else { 17893 };
        let datagram = datagram(&machine, port, data);
        machine.send(&datagram);
        machine.run_for(2 * MS);
        while machine.receive().is_some() {}
    }
    // Whatever the monitors think of it, the machine is there.
    machine.run_for(100 * MS);
    assert_eq!(machine.snapshot().chips.len(), 4);
}

#[test]
fn boot_messages_in_any_order_or_missing() {
    let Some(image) = image() else { return };
    let new = || {
        let mut machine = CycleMachine::new(&Machine::spin3(), &CycleConfig::default());
        machine.run_for(150 * MS);
        machine
    };
    let send = |machine: &mut CycleMachine, data: Vec<u8>| {
        let datagram = datagram(machine, BOOT_PORT, data);
        machine.send(&datagram);
        machine.run_for(MS);
    };
    let started = |machine: &mut CycleMachine| {
        let snapshot = machine.snapshot();
        let root = &snapshot.chips[0];
        root.cores[usize::from(root.monitor)].activity != CoreActivity::BootRom
    };
    let messages = boot_messages(&image);
    let last = messages.len() - 1;

    // Backwards and twice: it starts all the same.
    let mut machine = new();
    send(&mut machine, messages[0].clone());
    for block in messages[1..last].iter().rev() {
        send(&mut machine, block.clone());
        send(&mut machine, block.clone());
    }
    assert!(!started(&mut machine));
    send(&mut machine, messages[last].clone());
    assert!(started(&mut machine));

    // A block is missing: nothing starts, until the whole is sent again.
    let mut machine = new();
    for (i, message) in messages.iter().enumerate() {
        if i != 7 {
            send(&mut machine, message.clone());
        }
    }
    assert!(!started(&mut machine));
    for message in &messages {
        send(&mut machine, message.clone());
    }
    assert!(started(&mut machine));

    // Not a boot image: zeros do something or nothing, and the watchdog brings the ROM back after 2.5 s.
    let mut machine = new();
    send(&mut machine, boot_message(1, 0, 0, &[]));
    send(&mut machine, boot_message(3, 255 << 8, 0, &[0xFF; 1024]));
    send(&mut machine, boot_message(5, 1, 0, &[]));
    assert!(started(&mut machine));
    machine.run_for(3000 * MS);
    assert!(!started(&mut machine));
    let log = machine.take_log();
    assert!(log.iter().any(|(_, entry)| entry.text.contains("watchdog")), "{log:?}");

    // Faster than the ROM takes them: the Ethernet buffer holds two large frames, the others are lost.
    let mut machine = new();
    for message in &messages {
        let datagram = datagram(&machine, BOOT_PORT, message.clone());
        machine.send(&datagram);
    }
    machine.run_for(20 * MS);
    assert_eq!(machine.receive(), None);
}

#[test]
fn the_rom_says_hello_every_four_seconds() {
    let mut machine = CycleMachine::new(&Machine::spin3(), &CycleConfig::default());
    machine.run_for(8500 * MS);
    let mut times = Vec::new();
    while let Some(hello) = machine.receive() {
        assert_eq!((hello.port, hello.host.port(), hello.host.ip().is_broadcast()), (54321, 54321, true));
        assert_eq!(hello.data, [0, 1, 0, 0, 0, 0x41, 2, 1, 0, 0, 0, 0, 0, 0, 0x43, 0x50, 0x54, 0x53]);
        times.push(hello.time_ns / MS);
    }
    assert_eq!(times, [4196, 8292]);
}

#[test]
fn a_core_can_be_stopped_stepped_and_resumed() {
    let Some(mut machine) = booted() else { return };
    let (root, monitor) = (at(0, 0), machine.snapshot().chips[0].monitor);
    // The IRQ vector: each millisecond's timer interrupt passes it.
    machine.cpu(root, monitor).expect("a core").set_breakpoint(0x18, true);
    let end_ns = machine.now_ns() + 5 * MS;
    assert!(machine.run_to_breakpoint(end_ns));
    assert_eq!((machine.stopped(), machine.breakpoints_met()), (vec![(root, monitor)], 1));
    assert_eq!(machine.cpu(root, monitor).map(|cpu| cpu.pc()), Some(0x18));
    // The vector loads its target from the interrupt controller.
    assert!(machine.step(root, monitor));
    let pc = machine.cpu(root, monitor).map(|cpu| cpu.pc()).expect("a core");
    assert!(pc != 0x18 && pc < 0x8000, "{pc:#x}");
    // Others go on while it stands.
    let before = machine.cpu(root, monitor).expect("a core").instructions();
    machine.run_for(5 * MS);
    assert_eq!(machine.cpu(root, monitor).expect("a core").instructions(), before);
    machine.cpu(root, monitor).expect("a core").set_breakpoint(0x18, false);
    assert!(machine.resume(root, monitor) && !machine.step(root, monitor) && !machine.stop(at(9, 9), 0));
    machine.run_for(10 * MS);
    assert!(machine.stopped().is_empty());
    assert!(ask(&mut machine, scp(root, 0, 0, [0; 3], &[])).is_some());
}
