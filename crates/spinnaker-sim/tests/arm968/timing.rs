//! Cycles against the tables of the reference page arm968.md, sections 10 to 13.

mod rows;

use crate::bench::{BUS_START, Memory, WAIT, WAIT_CYCLES, cpu, halves, words};
use rows::ROWS;
use spinnaker_sim::arm968::{Cpu, DTCM_START, Exit};

/// Instructions.
pub enum Code {
    Arm(&'static [u32]),
    Thumb(&'static [u16]),
}

/// A row of the tables.
pub struct Row {
    pub section: &'static str,
    pub assembly: &'static str,
    pub code: Code,
    /// The last instruction goes to the end by itself, instead of to the next one.
    pub leaves: bool,
    /// Cycles by the tables.
    pub cycles: u64,
}

/// Where rows are put.
const START: u32 = 0x200;

/// Thumb code for: BX PC, to the wait that follows after another half-word. Takes three cycles.
const TO_ARM: [u16; 2] = [0x4778, 0x46c0];
const NOP: u16 = 0x46c0;

/// A core that is about to execute a row, and what else it takes to the end. Z is set; r4, r12 and SP point to words that
/// hold the address of the end, r9 to one that points to those; r10 points into instruction memory, r11 and r7 to the bus
/// with and without something there; r5 is the address of the end and r6 a quarter of it.
fn prepare(row: &Row) -> (Cpu, u64) {
    let (mut code, thumb, mut extra) = match row.code {
        Code::Arm(code) => (words(code), false, 0),
        Code::Thumb(code) => (halves(code), true, 0),
    };
    if thumb {
        if code.len() % 4 != 0 {
            code.extend(halves(&[NOP]));
            extra += u64::from(!row.leaves);
        }
        code.extend(halves(&TO_ARM));
        extra += if row.leaves { 0 } else { 3 };
    }
    let end = START + code.len() as u32;
    code.extend(words(&[WAIT, 0, 0]));
    let mut cpu = cpu(START, &code, thumb);
    cpu.write_tcm(0, &words(&[WAIT; 8])).expect("vectors fit");
    cpu.write_tcm(DTCM_START + 0x1000, &words(&[end; 64])).expect("words fit");
    cpu.write_tcm(DTCM_START + 0x2000, &words(&[DTCM_START + 0x1080])).expect("words fit");
    cpu.set_cpsr(0x4000_00d3 | if thumb { 0x20 } else { 0 });
    let table = DTCM_START + 0x1040;
    for (register, value) in [
        (1, 3),
        (2, 5),
        (3, 0),
        (4, table),
        (5, end),
        (6, end / 4),
        (7, 0x5000_0000),
        (8, 0x1f7e),
        (9, DTCM_START + 0x2000),
        (10, 0x1000),
        (11, BUS_START),
        (12, table + 0x60),
        (13, table),
        (14, end),
    ] {
        cpu.set_register(register, value);
    }
    (cpu, extra)
}

/// Cycles that a row takes, by steps of one instruction or in blocks.
fn measure(row: &Row, stepped: bool) -> u64 {
    let (mut cpu, extra) = prepare(row);
    let mut bus = Memory { read_wait: 20, write_wait: 7, ..Memory::default() };
    for _ in 0..100 {
        let exit = if stepped { cpu.step(&mut bus) } else { cpu.run(&mut bus, 1000) };
        if exit == Exit::WaitForInterrupt {
            return cpu.cycles() - extra - WAIT_CYCLES;
        }
    }
    panic!("{} does not end, at {:08x}", row.assembly, cpu.pc());
}

#[test]
fn every_row_takes_the_cycles_of_the_tables() {
    let mut wrong = Vec::new();
    for row in ROWS {
        let measured = [measure(row, true), measure(row, false)];
        if measured != [row.cycles; 2] {
            wrong.push(format!("{}: {}: {measured:?} instead of {}", row.section, row.assembly, row.cycles));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// SARK's delay: a subtraction and a taken branch take four cycles a turn; the last branch is not taken.
#[test]
fn a_delay_loop_takes_four_cycles_a_turn() {
    let turns = 1000;
    let code = [
        (Code::Arm(&[0xe250_0001, 0x1aff_fffd]), "subs r0,r0,#1; bne"),
        (Code::Thumb(&[0x3801, 0xd1fd]), "subs r0,#1; bne"),
    ];
    for (code, assembly) in code {
        let row = Row { section: "13", assembly, code, leaves: false, cycles: 0 };
        let (mut cpu, extra) = prepare(&row);
        cpu.set_register(0, turns);
        assert_eq!(cpu.run(&mut Memory::default(), 10_000), Exit::WaitForInterrupt);
        assert_eq!(cpu.cycles() - extra - WAIT_CYCLES, u64::from(turns) * 4 - 2);
        assert_eq!(cpu.instructions(), u64::from(turns) * 2 + 1 + u64::from(extra != 0));
        assert_eq!((cpu.register(0), cpu.cpsr() >> 28), (0, 0b0110));
    }
}
