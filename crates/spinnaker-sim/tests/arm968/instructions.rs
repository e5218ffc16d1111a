//! What instructions do, by the manual: shifts and their carries, sums, Q, loads and stores, changes of state.

use crate::bench::{Memory, cpu, halves, words};
use spinnaker_sim::arm968::{Cpu, DTCM_START, Mode};

const START: u32 = 0x200;
const DATA: u32 = DTCM_START + 0x100;

/// Executes one instruction twice, by a step and in a block, from r1, r2, r3 and the top four bits of CPSR; gives r0 and
/// those bits after it.
fn execute(word: u32, inputs: [u32; 3], flags: u32) -> (u32, u32) {
    let [stepped, compiled] = [true, false].map(|step| {
        let mut cpu = cpu(START, &words(&[word, 0xeaff_fffe]), false);
        cpu.set_cpsr(flags << 28 | 0x1f);
        for (index, value) in inputs.into_iter().enumerate() {
            cpu.set_register(1 + index, value);
        }
        if step {
            cpu.step(&mut Memory::default());
        } else {
            cpu.run(&mut Memory::default(), 1);
        }
        (cpu.register(0), cpu.cpsr() >> 28)
    });
    assert_eq!(stepped, compiled, "{word:08x}");
    stepped
}

/// N, Z, C, V.
const N: u32 = 8;
const Z: u32 = 4;
const C: u32 = 2;
const V: u32 = 1;

#[test]
fn shifts_by_registers_have_the_manuals_results_and_carries() {
    let [lsl, lsr, asr, ror] = [0xe1b0_0211, 0xe1b0_0231, 0xe1b0_0251, 0xe1b0_0271];
    let value = 0x8000_0001;
    let rows = [
        // By nothing: C stays.
        (lsl, 0, C, value, N | C),
        (lsr, 0x100, 0, value, N),
        (lsl, 1, 0, 2, C),
        (lsl, 32, 0, 0, Z | C),
        (lsl, 33, C, 0, Z),
        (lsr, 1, 0, 0x4000_0000, C),
        (lsr, 32, 0, 0, Z | C),
        (lsr, 33, C, 0, Z),
        (asr, 1, 0, 0xc000_0000, N | C),
        (asr, 32, 0, 0xffff_ffff, N | C),
        (asr, 255, 0, 0xffff_ffff, N | C),
        (ror, 1, 0, 0xc000_0000, N | C),
        (ror, 32, 0, value, N | C),
        (ror, 33, 0, 0xc000_0000, N | C),
        (ror, 4, C, 0x1800_0000, 0),
    ];
    for (word, amount, flags, result, after) in rows {
        assert_eq!(execute(word, [value, amount, 0], flags), (result, after), "{word:08x} by {amount}");
        assert_eq!(execute(word, [value, amount, 0], flags | V), (result, after | V), "V stays");
    }
}

#[test]
fn shifts_by_constants_encode_32_and_rrx() {
    assert_eq!(execute(0xe1b0_0021, [0x8000_0000, 0, 0], 0), (0, Z | C));
    assert_eq!(execute(0xe1b0_0041, [0x8000_0000, 0, 0], 0), (0xffff_ffff, N | C));
    assert_eq!(execute(0xe1b0_0061, [3, 0, 0], C), (0x8000_0001, N | C));
    assert_eq!(execute(0xe1b0_0061, [2, 0, 0], 0), (1, 0));
    // A rotated constant sets C to its top bit; one that is not rotated leaves it.
    assert_eq!(execute(0xe3b0_0102, [0; 3], 0), (0x8000_0000, N | C));
    assert_eq!(execute(0xe3b0_0001, [0; 3], C), (1, C));
}

#[test]
fn sums_and_differences_set_carry_and_overflow() {
    let [adds, adcs, subs, sbcs, rscs] = [0xe091_0002, 0xe0b1_0002, 0xe051_0002, 0xe0d1_0002, 0xe0f1_0002];
    let rows = [
        (adds, 0x7fff_ffff, 1, 0, 0x8000_0000, N | V),
        (adds, 0xffff_ffff, 1, 0, 0, Z | C),
        (adds, 0x8000_0000, 0x8000_0000, 0, 0, Z | C | V),
        (adcs, 0xffff_ffff, 0, C, 0, Z | C),
        (adcs, 0x7fff_ffff, 0, C, 0x8000_0000, N | V),
        (subs, 5, 5, 0, 0, Z | C),
        (subs, 4, 5, 0, 0xffff_ffff, N),
        (subs, 0x8000_0000, 1, 0, 0x7fff_ffff, C | V),
        (sbcs, 5, 5, 0, 0xffff_ffff, N),
        (sbcs, 5, 5, C, 0, Z | C),
        (rscs, 5, 7, C, 2, C),
        (rscs, 1, 0x8000_0000, 0, 0x7fff_fffe, C | V),
    ];
    for (word, left, right, flags, result, after) in rows {
        assert_eq!(execute(word, [left, right, 0], flags), (result, after), "{word:08x} {left:x} {right:x}");
    }
}

#[test]
fn multiplies_set_n_and_z_only() {
    assert_eq!(execute(0xe010_0291, [0x1_0000, 0x1_0000, 0], C | V), (0, Z | C | V));
    assert_eq!(execute(0xe010_0291, [0xffff_ffff, 1, 0], 0), (0xffff_ffff, N));
}

#[test]
fn clz_of_zero_is_32() {
    assert_eq!(execute(0xe16f_0f11, [0, 0, 0], 0).0, 32);
    assert_eq!(execute(0xe16f_0f11, [1, 0, 0], 0).0, 31);
}

#[test]
fn q_stays_until_it_is_cleared() {
    // QADD r0, r1, r2; SMLABB r0, r1, r2, r3; MSR CPSR_f, #0
    let mut cpu = cpu(START, &words(&[0xe102_0051, 0xe100_3281, 0xe328_f000, 0xe100_3281, 0xeaff_fffe]), false);
    let q = |cpu: &Cpu| cpu.cpsr() >> 27 & 1;
    cpu.set_register(1, 0x7fff_ffff);
    cpu.set_register(2, 1);
    cpu.step(&mut Memory::default());
    assert_eq!((cpu.register(0), q(&cpu)), (0x7fff_ffff, 1));
    cpu.set_register(3, 1);
    cpu.step(&mut Memory::default());
    // SMLABB of -1 and 1 and 1, without overflow: Q stays.
    assert_eq!((cpu.register(0), q(&cpu)), (0, 1));
    cpu.step(&mut Memory::default());
    assert_eq!(q(&cpu), 0);
    // -1 * 1 + the least number wraps around.
    cpu.set_register(3, 0x8000_0000);
    cpu.step(&mut Memory::default());
    assert_eq!((cpu.register(0), q(&cpu)), (0x7fff_ffff, 1));
}

/// Executes one instruction with r1 = `address`; alignment faults as `control` says.
fn access(word: u32, address: u32, control: u32) -> Cpu {
    let mut cpu = cpu(START, &words(&[word, 0xeaff_fffe]), false);
    cpu.set_control(control);
    cpu.write_tcm(DATA, &words(&[0x4433_2211, 0x8877_6655, 0xccbb_aa99])).expect("data fits");
    cpu.set_register(1, address);
    cpu.set_register(2, 0xa5a5_a5a5);
    cpu.run(&mut Memory::default(), 1);
    cpu
}

#[test]
fn misaligned_loads_rotate_without_the_alignment_check() {
    let no_check = 0x1f7c;
    assert_eq!(access(0xe591_0000, DATA + 1, no_check).register(0), 0x1144_3322);
    assert_eq!(access(0xe591_0000, DATA + 3, no_check).register(0), 0x3322_1144);
    assert_eq!(access(0xe1d1_00b0, DATA + 3, no_check).register(0), 0x4433);
    // SWP rotates what it loads and stores to the aligned word.
    let swapped = access(0xe101_0092, DATA + 2, no_check);
    assert_eq!(swapped.register(0), 0x2211_4433);
    assert_eq!(swapped.dtcm()[0x100..0x104], [0xa5; 4]);
    // LDMIA r1!, {r2-r5} ignores the low bits of the address, not of the base.
    let loaded = access(0xe8b1_003c, DATA + 1, no_check);
    assert_eq!((loaded.register(2), loaded.register(1)), (0x4433_2211, DATA + 17));
}

#[test]
fn misaligned_accesses_abort_with_the_alignment_check() {
    // LDR, STR, SWP, LDRH, LDM; LDRB and SWPB may go anywhere.
    for word in [0xe591_0000, 0xe581_0000, 0xe101_0092, 0xe1d1_00b0, 0xe8b1_003c] {
        let cpu = access(word, DATA + 1, 0x1f7e);
        assert_eq!((cpu.mode(), cpu.register(1)), (Mode::Abort, DATA + 1), "{word:08x}");
    }
    assert_eq!(access(0xe141_0092, DATA + 1, 0x1f7e).register(0), 0x22);
}

#[test]
fn loads_into_pc_change_state_and_moves_do_not() {
    // LDR pc, [r1]
    let mut loaded = cpu(START, &words(&[0xe591_f000]), false);
    loaded.write_tcm(DATA, &words(&[0x301])).expect("data fits");
    loaded.set_register(1, DATA);
    loaded.step(&mut Memory::default());
    assert_eq!((loaded.pc(), loaded.cpsr() & 0x20), (0x300, 0x20));
    // With L4 it stays in ARM state.
    let mut old = cpu(START, &words(&[0xe591_f000]), false);
    old.set_control(0x9f7e);
    old.write_tcm(DATA, &words(&[0x301])).expect("data fits");
    old.set_register(1, DATA);
    old.step(&mut Memory::default());
    assert_eq!((old.pc(), old.cpsr() & 0x20), (0x300, 0));
    // MOV pc, r1; in Thumb state POP {r0, pc} to ARM state, MOV pc, r1 in Thumb.
    assert_eq!(access(0xe1a0_f001, 0x301, 0x1f7e).pc(), 0x300);
    let mut popped = cpu(START, &halves(&[0xbd01]), true);
    popped.write_tcm(DATA, &words(&[5, 0x304])).expect("data fits");
    popped.set_register(13, DATA);
    popped.step(&mut Memory::default());
    assert_eq!((popped.pc(), popped.cpsr() & 0x20, popped.register(13)), (0x304, 0, DATA + 8));
    let mut moved = cpu(START, &halves(&[0x468f]), true);
    moved.set_register(1, 0x304);
    moved.step(&mut Memory::default());
    assert_eq!((moved.pc(), moved.cpsr() & 0x20), (0x304, 0x20));
}

#[test]
fn blx_links_and_changes_state() {
    // BLX to the next word but one, and half a word further.
    for (word, target) in [(0xfa00_0000, START + 8), (0xfb00_0000, START + 10)] {
        let cpu = access(word, 0, 0x1f7e);
        assert_eq!((cpu.pc(), cpu.register(14), cpu.cpsr() & 0x20), (target, START + 4, 0x20));
    }
    // BLX r1 to Thumb state; Thumb BLX to ARM state, aligned.
    let cpu1 = access(0xe12f_ff31, 0x301, 0x1f7e);
    assert_eq!((cpu1.pc(), cpu1.register(14), cpu1.cpsr() & 0x20), (0x300, START + 4, 0x20));
    for offset in [0, 2] {
        let mut thumb = cpu(START + offset, &halves(&[0xf000, 0xe802]), true);
        thumb.step(&mut Memory::default());
        thumb.step(&mut Memory::default());
        assert_eq!(thumb.cpsr() & 0x20, 0);
        assert_eq!((thumb.pc(), thumb.register(14)), (START + 8, START + offset + 5));
    }
}

#[test]
fn stores_of_pc_put_out_the_address_plus_12() {
    let cpu = access(0xe581_f000, DATA, 0x1f7e);
    assert_eq!(cpu.dtcm()[0x100..0x104], (START + 12).to_le_bytes());
}

#[test]
fn code_that_is_written_is_executed_as_written() {
    // STR r3, [r4]; then at r4: MOV r0, #1, which becomes MVN r0, #0; then a branch back to the start.
    let mut cpu = cpu(START, &words(&[0xe584_3000, 0xe3a0_0001, 0xe1a0_5000, 0xeaff_fffb]), false);
    cpu.set_register(4, START + 4);
    cpu.set_register(3, 0xe3a0_0001);
    cpu.run(&mut Memory::default(), 100);
    assert_eq!(cpu.register(5), 1);
    cpu.set_register(3, 0xe3e0_0000);
    let until = cpu.cycles() + 20;
    cpu.run(&mut Memory::default(), until);
    assert_eq!(cpu.register(5), 0xffff_ffff);
    // The same from outside.
    cpu.set_register(3, 0xe3a0_0007);
    cpu.write_tcm(START, &words(&[0xe1a0_0000, 0xe3a0_0007])).expect("code fits");
    let until = cpu.cycles() + 20;
    cpu.run(&mut Memory::default(), until);
    assert_eq!(cpu.register(5), 7);
}

#[test]
fn code_runs_from_the_bus_too() {
    let mut bus = Memory { read_wait: 30, ..Memory::default() };
    for (place, byte) in bus.bytes.iter_mut().zip(words(&[0xe3a0_0001, 0xe280_0001, 0xe1a0_f00e])) {
        *place = byte;
    }
    let mut cpu = cpu(START, &words(&[0xeaff_fffe]), false);
    cpu.set_register(14, START);
    cpu.set_pc(crate::bench::BUS_START);
    cpu.run(&mut bus, 95);
    assert_eq!((cpu.register(0), cpu.pc()), (2, START));
    // Three fetches of 30, then 1 + 1 + 3.
    assert_eq!(cpu.cycles(), 95);
}
