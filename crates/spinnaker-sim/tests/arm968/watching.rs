//! Breakpoints, trace and profile.

use std::sync::{Arc, Mutex};

use crate::bench::{Memory, WAIT, cpu, words};
use crate::random::{DTCM_MIDDLE, Program, Random, core};
use spinnaker_sim::arm968::{CodeStore, Cpu, Exit, Spent, disassemble};

const START: u32 = 0x200;
/// MOV r0, #3; SUBS r0, r0, #1; BNE back to it; wait.
const COUNT: [u32; 4] = [0xe3a0_0003, 0xe250_0001, 0x1aff_fffd, WAIT];

#[test]
fn a_breakpoint_stops_every_time_and_can_be_passed() {
    let mut cpu = cpu(START, &words(&COUNT), false);
    cpu.set_breakpoint(START + 4, true);
    for left in [3, 2, 1] {
        assert_eq!(cpu.run(&mut Memory::default(), 1000), Exit::Breakpoint);
        assert_eq!((cpu.pc(), cpu.register(0)), (START + 4, left));
    }
    cpu.set_breakpoint(START + 4, false);
    assert_eq!(cpu.run(&mut Memory::default(), 1000), Exit::WaitForInterrupt);
}

#[test]
fn the_trace_has_every_instruction_with_its_time() {
    let mut cpu = cpu(START, &words(&COUNT), false);
    let lines = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&lines);
    cpu.set_trace(Some(Box::new(move |traced| sink.lock().expect("no panic").push(traced.to_string()))));
    cpu.run(&mut Memory::default(), 1000);
    let lines = lines.lock().expect("no panic");
    assert_eq!(lines.len(), 1 + 3 * 2 + 1);
    let words: Vec<Vec<&str>> = lines.iter().map(|line| line.split_whitespace().take(4).collect()).collect();
    assert_eq!(words[0], ["0", "00000200", "e3a00003", "mov"]);
    assert_eq!(words[3], ["5", "00000204", "e2500001", "subs"]);
}

#[test]
fn the_profile_adds_up() {
    let mut cpu = cpu(START, &words(&COUNT), false);
    cpu.set_profile(true);
    cpu.run(&mut Memory::default(), 1000);
    let profile = cpu.profile().expect("it was started");
    assert_eq!(profile[&(START + 4)], Spent { instructions: 3, cycles: 3 });
    assert_eq!(profile[&(START + 8)], Spent { instructions: 3, cycles: 3 + 3 + 1 });
    assert_eq!(profile.values().map(|spent| spent.cycles).sum::<u64>(), cpu.cycles());
}

#[test]
fn a_watched_core_does_the_same_as_one_that_is_not() {
    let mut random = Random(7);
    let (mut plain, mut watched) = (core(&mut Random(7)), core(&mut Random(7)));
    watched.set_profile(true);
    for index in 0..200 {
        let program = Program::random(&mut random, index % 2 == 0, &[DTCM_MIDDLE]);
        let memory = *plain.dtcm();
        *watched.dtcm_mut() = memory;
        let expected = program.run(&mut plain, &mut Memory::default(), Some(50));
        assert_eq!(program.run(&mut watched, &mut Memory::default(), Some(50)), expected);
    }
}

#[test]
fn instructions_disassemble() {
    assert_eq!(disassemble(0xe100_3281, false), "smlabb r0, r1, r2, r3");
    assert_eq!(disassemble(0x3801, true).split_whitespace().next(), Some("subs"));
    assert_eq!(disassemble(0xe7f0_00f0, false), "undefined");
    assert_eq!(disassemble(0xf802, true), "bl.suffix #0x2");
}

/// Cores move between the threads that run them.
#[test]
fn cores_can_be_sent() {
    fn check<T: Send>() {}
    check::<spinnaker_sim::arm968::Cpu>();
}

#[test]
fn cores_with_the_same_code_share_what_was_compiled() {
    let store = CodeStore::new();
    let mut counts = Vec::new();
    for core in 0..4 {
        let mut cpu = Cpu::with_code_store(store.clone());
        let mut code = COUNT;
        // The last one counts from another number.
        code[0] += u32::from(core == 3);
        cpu.write_tcm(START, &words(&code)).expect("code fits");
        cpu.set_pc(START);
        assert_eq!(cpu.run(&mut Memory::default(), 1000), Exit::WaitForInterrupt);
        counts.push((cpu.instructions(), store.len()));
    }
    let alone = counts[0].1;
    assert_eq!(counts[..3], [(8, alone); 3]);
    assert!(counts[3].0 == 10 && counts[3].1 > alone);
}
