//! Compiled blocks against the plain interpreter: the same registers, memory, accesses, cycles and instruction counts.

use crate::bench::{BUS_BYTES, BUS_START, Memory};
use crate::random::{CODE, DTCM_MIDDLE, Program, Random, core};

/// Runs random programs whose data lies in some areas, stepped and in quanta of several lengths.
fn check(seed: u64, areas: &[u32], read_wait: u32, write_wait: u32) {
    let mut random = Random(seed);
    let mut stepped = core(&mut random);
    let mut runs = [1, 37, 100_000].map(|quantum| (quantum, core(&mut Random(seed))));
    let mut executed = 0;
    for index in 0..3000 {
        let program = Program::random(&mut random, index % 2 == 1, areas);
        let memory = *stepped.dtcm();
        let itcm = *stepped.itcm();
        let mut bus = Memory { read_wait, write_wait, ..Memory::default() };
        let expected = program.run(&mut stepped, &mut bus, None);
        for (quantum, cpu) in &mut runs {
            cpu.dtcm_mut().copy_from_slice(&memory);
            cpu.write_tcm(0, &itcm).expect("it is as large");
            let mut other = Memory { read_wait, write_wait, ..Memory::default() };
            let outcome = program.run(cpu, &mut other, Some(*quantum));
            assert_eq!(outcome, expected, "program {index}, quantum {quantum}: {:02x?}", program.code);
            if expected.is_some() {
                assert!(cpu.dtcm() == stepped.dtcm(), "program {index}");
                assert!(cpu.itcm() == stepped.itcm(), "program {index}");
                assert!(accesses(&other) == accesses(&bus), "program {index}");
            }
        }
        if let Some(outcome) = expected {
            executed += outcome.instructions;
        } else {
            stepped.dtcm_mut().copy_from_slice(&memory);
        }
    }
    assert!(executed > 100_000, "{executed} instructions ran");
}

/// Accesses with their times since the first.
fn accesses(bus: &Memory) -> Vec<(u32, bool, u64)> {
    let start = bus.log.first().map_or(0, |access| access.2);
    bus.log.iter().map(|&(address, write, at)| (address, write, at - start)).collect()
}

#[test]
fn blocks_and_single_steps_agree_on_code_with_data_in_dtcm() {
    check(1, &[DTCM_MIDDLE], 0, 0);
}

#[test]
fn blocks_and_single_steps_agree_on_code_with_data_in_itcm() {
    check(2, &[DTCM_MIDDLE, 0x4000], 0, 0);
}

/// Programs that write over themselves, often with what no compiler would make.
#[test]
fn blocks_and_single_steps_agree_on_code_that_changes() {
    check(6, &[CODE + 0x40, DTCM_MIDDLE], 0, 0);
}

#[test]
fn blocks_and_single_steps_agree_on_code_with_data_on_the_bus() {
    let middle = BUS_START + BUS_BYTES / 2;
    check(3, &[DTCM_MIDDLE, middle], 5, 0);
    check(4, &[middle], 1, 2);
    check(5, &[DTCM_MIDDLE, 0x4000, middle], 0, 7);
}
