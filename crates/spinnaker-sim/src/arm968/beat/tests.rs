//! Beats do what a core does that executes each wake, instruction by instruction.

use proptest::prelude::*;

use super::{Ahead, Beat};
use crate::arm968::{Access, Bus, BusError, Cpu, Exit, Size};
use std::sync::Arc;

const START: u32 = 0x200;
const DATA: u32 = 0x0040_0100;
const STACK: u32 = 0x0040_1000;
/// Cycles from one wake to the next.
const PERIOD: u64 = 10_000;
/// What an idle program does each time that it wakes: a lock, a long counter, bytes and halves, conditions, a product, a word
/// on the bus.
const CODE: [u32; 28] = [
    0xe92d_500f, // loop: push {r0-r3, ip, lr}
    0xe10f_0000, //       mrs r0, cpsr
    0xe380_10c0, //       orr r1, r0, #0xc0
    0xe121_f001, //       msr cpsr_c, r1
    0xe1c8_40d0, //       ldrd r4, r5, [r8]
    0xe294_4001, //       adds r4, r4, #1
    0xe2a5_5000, //       adc r5, r5, #0
    0xe1c8_40f0, //       strd r4, r5, [r8]
    0xe314_0007, //       tst r4, #7
    0x05d8_2009, //       ldrbeq r2, [r8, #9]
    0x0282_2003, //       addeq r2, r2, #3
    0x05c8_2009, //       strbeq r2, [r8, #9]
    0xe1d8_30be, //       ldrh r3, [r8, #14]
    0xe083_3104, //       add r3, r3, r4, lsl #2
    0xe1c8_30be, //       strh r3, [r8, #14]
    0xe354_0a01, //       cmp r4, #0x1000
    0xb085_5004, //       addlt r5, r5, r4
    0xe007_0394, //       mul r7, r4, r3
    0xe588_7010, //       str r7, [r8, #16]
    0xe599_7000, //       ldr r7, [r9]
    0xe087_7004, //       add r7, r7, r4
    0xe589_7000, //       str r7, [r9]
    0xe129_f000, //       msr cpsr_fc, r0
    0xe8bd_500f, //       pop {r0-r3, ip, lr}
    0xea00_0000, //       b wait
    0xe3a0_a001, //       mov r10, #1
    0xee07_6f90, // wait: mcr p15, 0, r6, c7, c0, 4
    0xeaff_ffe3, //       b loop
];

/// A bus with one word of memory.
#[derive(Clone, Copy, PartialEq, Debug)]
struct Word(u32);

impl Word {
    const ADDRESS: u32 = 0xF500_0000;
}

impl Bus for Word {
    fn read(&mut self, address: u32, _: Size, _: u64) -> Result<Access, BusError> {
        if address == Self::ADDRESS { Ok(Access { value: self.0, wait: 17 }) } else { Err(BusError) }
    }

    fn write(&mut self, _: u32, _: Size, value: u32, _: u64) -> Result<u32, BusError> {
        self.0 = value;
        Ok(1)
    }

    fn fetch(&mut self, _: u32, _: u64) -> Result<Access, BusError> {
        Err(BusError)
    }

    fn memory(&self, address: u32) -> Option<u32> {
        (address == Self::ADDRESS).then_some(address)
    }

    fn memory_word(&self, _: u32) -> u32 {
        self.0
    }

    fn set_memory_word(&mut self, _: u32, value: u32) {
        self.0 = value;
    }
}

/// A core with its bus, asleep.
struct Core {
    cpu: Cpu,
    bus: Word,
    /// When it wakes next.
    at: u64,
}

impl Core {
    fn new(counter: u64, word: u32) -> Self {
        let (mut cpu, mut bus) = (Cpu::new(), Word(word));
        cpu.set_control(0x1f7e);
        cpu.set_cpsr(0xdf);
        for (address, word) in (START..).step_by(4).zip(CODE) {
            cpu.write_tcm(address, &word.to_le_bytes()).expect("code fits");
        }
        cpu.write_tcm(DATA, &counter.to_le_bytes()).expect("data memory");
        cpu.set_register(8, DATA);
        cpu.set_register(9, Word::ADDRESS);
        cpu.set_register(13, STACK);
        cpu.set_pc(START);
        assert_eq!(cpu.run(&mut bus, PERIOD), Exit::WaitForInterrupt);
        Self { cpu, bus, at: PERIOD }
    }

    /// An interrupt that is masked wakes the core, which then runs until it sleeps again. Cycles that it takes.
    fn wake(&mut self) -> u64 {
        self.cpu.set_cycles(self.at);
        self.cpu.set_lines(true, false);
        self.cpu.step(&mut self.bus);
        self.cpu.set_lines(false, false);
        assert_eq!(self.cpu.run(&mut self.bus, self.at + PERIOD), Exit::WaitForInterrupt);
        let cycles = self.cpu.cycles() - self.at;
        self.at += PERIOD;
        cycles
    }

    /// The next wake, recorded.
    fn record(&mut self) -> Option<Arc<Beat>> {
        self.cpu.record_beat(&self.bus);
        let cycles = self.wake();
        self.cpu.take_beat(&self.bus, cycles)
    }

    /// Makes the wakes that a beat stands for, at most so many. How many these were.
    fn make(&mut self, beat: &Beat, most: u64) -> u64 {
        let mut ahead = Ahead::default();
        let count = self.cpu.beats(beat, &self.bus, most, &mut ahead);
        if count > 0 {
            // In two parts, as when somebody looks meanwhile.
            for part in [count / 2, count - count / 2] {
                if part > 0 {
                    self.at += part * PERIOD;
                    self.cpu.make_beats(beat, &mut self.bus, &mut ahead, part, self.at - PERIOD);
                }
            }
        }
        count
    }
}

fn assert_same(one: &Core, other: &Core) {
    let all = |core: &Core| {
        let registers: Vec<u32> = (0..16).map(|register| core.cpu.register(register)).collect();
        (registers, core.cpu.cpsr(), core.cpu.cycles(), core.cpu.instructions(), core.bus, core.at)
    };
    assert_eq!(all(one), all(other));
    assert!(one.cpu.dtcm() == other.cpu.dtcm(), "data memory after {} instructions", one.cpu.instructions());
}

proptest! {
    /// From any counter: near the end of 32 bits, where the carry goes on, and near the bound that it is compared with.
    #[test]
    fn beats_do_what_their_instructions_do(
        counter in prop_oneof![0xFFFF_FFC0u64..0x1_0000_0010, 0xFC0..0x1010u64, any::<u64>()],
        word: u32,
        most in 1u64..40,
    ) {
        let (mut core, mut executed) = (Core::new(counter, word), Core::new(counter, word));
        let mut known = Vec::new();
        let mut made = 0;
        for _ in 0..60 {
            let found = known.iter().find_map(|beat: &Arc<Beat>| Some(core.make(beat, most)).filter(|&count| count > 0));
            made += found.unwrap_or(0);
            for _ in 0..found.unwrap_or(1) {
                executed.wake();
            }
            if found.is_none() {
                known.extend(core.record());
            }
            assert_same(&core, &executed);
        }
        // One in eight goes another way.
        prop_assert!(known.len() >= 2 && made > 0, "{} beats, {made} made", known.len());
    }
}

#[test]
fn code_that_changes_has_another_version() {
    let mut core = Core::new(1, 0);
    let beat = core.record().expect("a beat");
    let version = core.cpu.code_version();
    assert_eq!(core.make(&beat, 1), 1);
    assert_eq!(core.cpu.code_version(), version);
    core.cpu.write_tcm(START + 20, &0xe294_4002u32.to_le_bytes()).expect("code fits");
    assert_ne!(core.cpu.code_version(), version);
}

#[test]
fn what_touches_a_device_is_no_beat() {
    let mut core = Core::new(1, 0);
    // str r7, [r9, #4]
    core.cpu.write_tcm(START + 4 * 21, &0xe589_7004u32.to_le_bytes()).expect("code fits");
    assert!(core.record().is_none());
    assert!(core.record().is_none());
    core.wake();
}
