//! Modes, banked registers and exceptions: manual chapter A2, reference page arm968.md section 3.

use crate::bench::{BUS_START, Memory, WAIT, cpu, halves, words};
use spinnaker_sim::arm968::{Cpu, DTCM_START, Exit, Mode};

const START: u32 = 0x200;
/// System mode, interrupts allowed, Z and Q set.
const CPSR: u32 = 0x4800_001f;

/// A core about to execute one instruction at [`START`], with r1 = `r1`.
fn ready(code: &[u8], thumb: bool, r1: u32) -> Cpu {
    let mut cpu = cpu(START, code, thumb);
    cpu.set_cpsr(CPSR | if thumb { 0x20 } else { 0 });
    cpu.set_register(1, r1);
    cpu
}

/// Where an exception must lead: mode, vector, return address, whether it masks FIQ.
fn check_entry(cpu: &Cpu, mode: Mode, vector: u32, return_address: u32, masks_fiq: bool, thumb: bool) {
    assert_eq!(cpu.mode(), mode);
    assert_eq!(cpu.pc(), vector);
    assert_eq!(cpu.register(14), return_address);
    assert_eq!(cpu.spsr(), CPSR | if thumb { 0x20 } else { 0 });
    let masks = 0x80 | if masks_fiq { 0x40 } else { 0 };
    assert_eq!(cpu.cpsr(), CPSR & !0x1f | masks | mode as u32);
}

#[test]
fn every_exception_enters_its_mode_at_its_vector_with_its_return_address() {
    let missing = 0x5000_0000;
    let rows = [
        (words(&[0xef00_0012]), false, 0, Mode::Supervisor, 0x08, START + 4),
        (halves(&[0xdf01]), true, 0, Mode::Supervisor, 0x08, START + 2),
        (words(&[0xe7f0_00f0]), false, 0, Mode::Undefined, 0x04, START + 4),
        (halves(&[0xde00]), true, 0, Mode::Undefined, 0x04, START + 2),
        (words(&[0xe120_0071]), false, 0, Mode::Abort, 0x0c, START + 4),
        (halves(&[0xbe00]), true, 0, Mode::Abort, 0x0c, START + 4),
        (words(&[0xe591_0000]), false, missing, Mode::Abort, 0x10, START + 8),
        (halves(&[0x6808]), true, missing, Mode::Abort, 0x10, START + 8),
        (words(&[0xe591_0000]), false, DTCM_START + 2, Mode::Abort, 0x10, START + 8),
    ];
    for (code, thumb, r1, mode, vector, return_address) in rows {
        for high in [false, true] {
            let mut cpu = ready(&code, thumb, r1);
            let base = if high { 0xffff_0000 } else { 0 };
            cpu.set_control(if high { 0x3f7e } else { 0x1f7e });
            cpu.step(&mut Memory::default());
            check_entry(&cpu, mode, base + vector, return_address, false, thumb);
        }
    }
}

#[test]
fn a_fetch_that_fails_is_a_prefetch_abort() {
    for address in [0x5000_0000, DTCM_START] {
        let mut cpu = ready(&[], false, 0);
        cpu.set_pc(address);
        cpu.step(&mut Memory::default());
        check_entry(&cpu, Mode::Abort, 0x0c, address + 4, false, false);
    }
}

#[test]
fn interrupts_return_to_the_next_instruction_plus_four_and_fiq_comes_first() {
    for thumb in [false, true] {
        let code = if thumb { halves(&[0x46c0]) } else { words(&[0xe1a0_0000]) };
        let mut cpu = ready(&code, thumb, 0);
        cpu.set_lines(true, true);
        cpu.write_tcm(0, &words(&[0xe25e_f004; 8])).expect("vectors fit");
        // The entry and the first instruction of the handler: SUBS PC, LR, #4.
        let cycles = cpu.cycles();
        let mut seen = Vec::new();
        cpu.write_tcm(0x1c, &words(&[0xe1a0_0000])).expect("vector fits");
        cpu.step(&mut Memory::default());
        seen.push((cpu.mode(), cpu.pc(), cpu.register(14), cpu.cycles() - cycles));
        assert_eq!(seen, [(Mode::Fiq, 0x20, START + 4, 4)]);
        assert_eq!(cpu.cpsr() & 0xff, 0xd1);
        cpu.write_tcm(0x20, &words(&[0xe25e_f004])).expect("code fits");
        cpu.set_lines(true, false);
        cpu.step(&mut Memory::default());
        assert_eq!((cpu.pc(), cpu.cpsr()), (START, CPSR | if thumb { 0x20 } else { 0 }));
        cpu.write_tcm(0x18, &words(&[0xe1a0_0000])).expect("vector fits");
        cpu.step(&mut Memory::default());
        assert_eq!((cpu.mode(), cpu.register(14), cpu.cpsr() & 0xff), (Mode::Irq, START + 4, 0x92));
    }
}

/// In runs, ten interrupts of a loop, whose handler counts.
#[test]
fn handlers_return_to_what_they_interrupted() {
    for thumb in [false, true] {
        // A count of 100 turns, then the wait; in Thumb after BX PC.
        let code = match thumb {
            false => words(&[0xe3a0_0064, 0xe280_2001, 0xe250_0001, 0x1aff_fffc, WAIT]),
            true => {
                let mut code = halves(&[0x2064, 0x1c42, 0x3801, 0xd1fc, 0x4778, 0x46c0]);
                code.extend(words(&[WAIT]));
                code
            }
        };
        let mut cpu = ready(&code, thumb, 0);
        // ADD r9, r9, #1; SUBS PC, LR, #4.
        cpu.write_tcm(0x18, &words(&[0xe289_9001, 0xe25e_f004])).expect("vectors fit");
        cpu.set_register(9, 0);
        let mut bus = Memory::default();
        for _ in 0..10 {
            let until = cpu.cycles() + 30;
            assert_eq!(cpu.run(&mut bus, until), Exit::Until);
            cpu.set_lines(true, false);
            let until = cpu.cycles() + 1;
            assert_eq!(cpu.run(&mut bus, until), Exit::Until);
            cpu.set_lines(false, false);
        }
        assert_eq!(cpu.run(&mut bus, 10_000), Exit::WaitForInterrupt);
        assert_eq!((cpu.register(0), cpu.register(9), cpu.mode()), (0, 10, Mode::System));
    }
}

#[test]
fn masked_interrupts_wait_until_they_are_allowed() {
    // MSR CPSR_c, #0x1f: System mode with interrupts allowed.
    let mut cpu = ready(&words(&[0xe1a0_0000, 0xe321_f01f, 0xe1a0_0000]), false, 0);
    cpu.write_tcm(0x18, &words(&[WAIT])).expect("vector fits");
    cpu.set_cpsr(0x1f | 0xc0);
    cpu.set_lines(true, false);
    cpu.run(&mut Memory::default(), 6);
    assert_eq!((cpu.mode(), cpu.register(14)), (Mode::Irq, START + 12));
}

#[test]
fn modes_have_their_own_registers() {
    let mut cpu = ready(&words(&[0xe8c1_7f00, 0xe8d1_7f00]), false, DTCM_START + 0x100);
    let modes = [0x1f, 0x11, 0x12, 0x13, 0x17, 0x1b];
    for mode in modes {
        cpu.set_cpsr(mode | 0xc0);
        for register in 8..15 {
            cpu.set_register(register, mode << 8 | register as u32);
        }
    }
    for mode in modes {
        cpu.set_cpsr(mode | 0xc0);
        for register in 8..15 {
            let owner = match (mode, register) {
                (0x11, _) | (_, 13..) => mode,
                // What was written last by a mode without its own r8 to r12.
                _ => 0x1b,
            };
            assert_eq!(cpu.register(register), owner << 8 | register as u32, "r{register} of {mode:x}");
        }
    }
    // STM and LDM with ^ in FIQ mode move the registers of User mode.
    cpu.set_cpsr(0xd1);
    cpu.step(&mut Memory::default());
    let stored: Vec<u32> = (0..7)
        .map(|index| {
            let mut bytes = [0; 4];
            cpu.read_tcm(DTCM_START + 0x100 + 4 * index, &mut bytes).expect("in data memory");
            u32::from_le_bytes(bytes)
        })
        .collect();
    assert_eq!(stored, [0x1b08, 0x1b09, 0x1b0a, 0x1b0b, 0x1b0c, 0x1f0d, 0x1f0e]);
    cpu.write_tcm(DTCM_START + 0x100, &words(&[1, 2, 3, 4, 5, 6, 7])).expect("data fits");
    cpu.step(&mut Memory::default());
    assert_eq!(cpu.register(8), 0x1108);
    cpu.set_cpsr(0xdf);
    assert_eq!((8..15).map(|register| cpu.register(register)).collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6, 7]);
}

#[test]
fn ldm_with_pc_and_caret_returns_from_an_exception() {
    // An SWI, whose handler is LDMIA r1!, {r2, r3, pc}^.
    let mut cpu = ready(&words(&[0xef00_0000]), false, DTCM_START);
    cpu.write_tcm(8, &words(&[0xe8f1_800c])).expect("vector fits");
    cpu.write_tcm(DTCM_START, &words(&[7, 8, 0x303])).expect("data fits");
    cpu.step(&mut Memory::default());
    cpu.step(&mut Memory::default());
    assert_eq!((cpu.cpsr(), cpu.pc()), (CPSR, 0x300));
    assert_eq!((cpu.register(1), cpu.register(2), cpu.register(3)), (DTCM_START + 12, 7, 8));
}

#[test]
fn user_mode_writes_flags_only_and_has_no_coprocessor() {
    // MSR CPSR_cxsf, r0; MRC p15, 0, r0, c1, c0, 0.
    let mut cpu = ready(&words(&[0xe12f_f000, 0xee11_0f10]), false, 0);
    cpu.set_cpsr(0x10);
    cpu.set_register(0, 0xf800_00df);
    cpu.step(&mut Memory::default());
    assert_eq!(cpu.cpsr(), 0xf800_0010);
    cpu.step(&mut Memory::default());
    assert_eq!((cpu.mode(), cpu.pc()), (Mode::Undefined, 4));
}

#[test]
fn msr_leaves_the_thumb_bit_and_modes_that_do_not_exist_alone() {
    let mut cpu = ready(&words(&[0xe12f_f000]), false, 0);
    cpu.set_register(0, 0x34);
    cpu.step(&mut Memory::default());
    assert_eq!((cpu.cpsr(), cpu.pc()), (0x1f, START + 4));
}

#[test]
fn coprocessor_15_has_its_identity_and_control() {
    let mut cpu = ready(&words(&[0xee10_0f10, 0xee10_1f50, 0xee01_0f10, 0xee11_2f10]), false, 0);
    cpu.step(&mut Memory::default());
    assert_eq!(cpu.register(0) & 0xffff_fff0, 0x4105_9680);
    cpu.step(&mut Memory::default());
    assert_eq!(cpu.register(1), 0x001c_0180);
    // What SARK writes; bits that cannot change read as they are.
    cpu.set_register(0, 0x0000_1f7e);
    cpu.step(&mut Memory::default());
    cpu.step(&mut Memory::default());
    assert_eq!(cpu.register(2), 0x1f7e);
}

#[test]
fn reset_starts_at_the_high_vectors_in_supervisor_mode() {
    let mut cpu = ready(&[], true, 5);
    cpu.dtcm_mut()[3] = 9;
    cpu.reset();
    assert_eq!((cpu.pc(), cpu.cpsr() & 0xff, cpu.control() & 0x2002), (0xffff_0000, 0xd3, 0x2000));
    assert_eq!((cpu.register(1), cpu.dtcm()[3]), (5, 9));
}

#[test]
fn a_block_transfer_that_aborts_leaves_its_base() {
    // LDMIA r1!, {r2-r5} over the end of the bus's memory.
    let mut cpu = ready(&words(&[0xe8b1_003c]), false, BUS_START + 0xfff8);
    for register in 2..6 {
        cpu.set_register(register, 0xdead);
    }
    assert_eq!(cpu.run(&mut Memory::default(), 1), Exit::Until);
    assert_eq!((cpu.mode(), cpu.register(14)), (Mode::Abort, START + 8));
    assert_eq!(cpu.register(1), BUS_START + 0xfff8);
    assert_eq!((cpu.register(4), cpu.register(5)), (0xdead, 0xdead));
}
