//! Whole kernels against cycles counted by hand, by the tables of the reference page arm968.md, and against their results.

#[path = "../../examples/mips/kernels.rs"]
#[allow(dead_code, reason = "not every kernel is measured here")]
mod code;
mod neuron;

use crate::bench::{Memory, WAIT, WAIT_CYCLES, cpu, words};
use spinnaker_sim::arm968::{Cpu, DTCM_START, Exit};

/// Where the code lies.
const CODE: u32 = 0x100;
/// Where a kernel returns to.
const RETURN: u32 = 0x40;

/// A core with the kernels, and numbers in data memory from [`A`] and [`B`] on.
fn prepare(values: impl Fn(u32) -> u32) -> Cpu {
    let mut cpu = cpu(CODE, &words(code::CODE), false);
    cpu.write_tcm(RETURN, &words(&[WAIT])).expect("code fits");
    for index in 0..0x1000 {
        cpu.write_tcm(A + index * 4, &values(index).to_le_bytes()).expect("data fits");
    }
    cpu
}

const A: u32 = DTCM_START;
const B: u32 = DTCM_START + 0x2000;
const OUT: u32 = DTCM_START + 0x8000;

/// Calls a kernel and gives its cycles, the return included, the call not.
fn call(cpu: &mut Cpu, entry: u32, arguments: [u32; 4]) -> u64 {
    for (register, value) in arguments.into_iter().enumerate() {
        cpu.set_register(register, value);
    }
    cpu.set_register(13, DTCM_START + 0xff00);
    cpu.set_register(14, RETURN);
    cpu.set_pc(CODE + entry);
    let start = cpu.cycles();
    assert_eq!(cpu.run(&mut Memory::default(), start + 1_000_000), Exit::WaitForInterrupt);
    cpu.cycles() - start - WAIT_CYCLES
}

fn word(cpu: &Cpu, address: u32) -> u32 {
    let mut bytes = [0; 4];
    cpu.read_tcm(address, &mut bytes).expect("in data memory");
    u32::from_le_bytes(bytes)
}

/// Bits that look random, the same for all tests.
fn mixed(index: u32) -> u32 {
    index.wrapping_mul(0x9e37_79b9) ^ index.wrapping_mul(0x85eb_ca6b) >> 7
}

/// A turn: LDR 1, one cycle until its result can be stored, STR 1, SUBS 1, BNE 3, at last 1. BX 3.
#[test]
fn copy() {
    let (mut cpu, turns) = (prepare(mixed), 500);
    let cycles = call(&mut cpu, code::COPY, [OUT, A, turns * 4, 0]);
    assert_eq!(cycles, u64::from(turns) * 7 - 2 + 3);
    assert!((0..turns).all(|index| word(&cpu, OUT + index * 4) == mixed(index)));
}

/// PUSH 8. A turn: LDM 8, STM 8 (the register loaded last is stored last), SUBS 1, BNE 3, at last 1. POP with PC 8 + 4.
#[test]
fn memcpy() {
    let (mut cpu, turns) = (prepare(mixed), 50);
    let cycles = call(&mut cpu, code::MEMCPY, [OUT, A, turns * 32, 0]);
    assert_eq!(cycles, 8 + u64::from(turns) * 20 - 2 + 12);
    assert!((0..turns * 8).all(|index| word(&cpu, OUT + index * 4) == mixed(index)));
}

/// PUSH 9, LDM 4. A turn: 8 LDRH, 8 multiplies (each accumulates the one before; no input is used within two cycles of its
/// load), SUBS 1, STR 1, BNE 3, at last 1. POP with PC 9 + 4.
#[test]
fn fir() {
    let (mut cpu, outputs) = (prepare(mixed), 400);
    let cycles = call(&mut cpu, code::FIR, [A, B, outputs, OUT]);
    assert_eq!(cycles, 9 + 4 + u64::from(outputs) * 21 - 2 + 13);
    let half = |cpu: &Cpu, start: u32, index: u32| {
        let both = word(cpu, start + index / 2 * 4);
        i32::from((both >> (index % 2 * 16)) as i16)
    };
    for output in 0..outputs {
        let expected = (0..8)
            .fold(0i32, |sum, tap| sum.wrapping_add(half(&cpu, A, output + tap).wrapping_mul(half(&cpu, B, tap))));
        assert_eq!(word(&cpu, OUT + output * 4) as i32, expected, "output {output}");
    }
}

/// PUSH 9, MOV 1. A turn: two LDM 4 + 4 (what is loaded last is used last), 8 multiplies, SUBS 1, BNE 3, at last 1. MOV 1, POP
/// with PC 9 + 4.
#[test]
fn dot_product() {
    let (mut cpu, turns) = (prepare(mixed), 100);
    let cycles = call(&mut cpu, code::DOT, [A, B, turns * 8, 0]);
    assert_eq!(cycles, 9 + 1 + u64::from(turns) * 20 - 2 + 1 + 13);
    let expected = (0..turns * 4).fold(0i32, |sum, index| {
        let (left, right) = (mixed(index), mixed(index + (B - A) / 4));
        let product = |shift: u32| i32::from((left >> shift) as i16).wrapping_mul(i32::from((right >> shift) as i16));
        sum.wrapping_add(product(0)).wrapping_add(product(16))
    });
    assert_eq!(cpu.register(0) as i32, expected);
}

/// PUSH 5, four MOV. A turn: two LDR, BL 3, the multiplication, STR 1, SUBS 1, BNE 3, at last 1. POP with PC 5 + 4.
/// The multiplication: 11 instructions, UMULL 3, one cycle until its low half can be compared, CMP 1, 12 instructions (each 1,
/// executed or not), BX 3.
#[test]
fn soft_float_multiply() {
    let number =
        |index: u32| (mixed(index) % 2_000_003) as f32 * if index.is_multiple_of(3) { -0.37 } else { 1.9e-3 } + 0.5;
    let (mut cpu, turns) = (prepare(|index| number(index).to_bits()), 1000);
    let cycles = call(&mut cpu, code::FMULS, [A, B, turns, OUT]);
    let multiplication = 11 + 3 + 1 + 1 + 12 + 3;
    assert_eq!(cycles, 5 + 4 + u64::from(turns) * (2 + 3 + multiplication + 1 + 1 + 3) - 2 + 9);
    for index in 0..turns {
        let expected = number(index) * number(index + (B - A) / 4);
        assert_eq!(f32::from_bits(word(&cpu, OUT + index * 4)), expected, "product {index}");
    }
}
