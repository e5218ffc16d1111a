//! Random programs and all encodings against Unicorn, another emulator of an ARMv5TE core.
//!
//! Needs a Python with the package `unicorn` (2.1.4): `python3`, or what `SPINNAKER_ORACLE_PYTHON` names. Without it the tests say so
//! and do nothing. `SPINNAKER_ORACLE_INSTRUCTIONS` sets how many random instructions are compared.

use std::io::Write;
use std::process::{Command, Stdio};

use crate::bench::Memory;
use crate::random::{CODE, DTCM_MIDDLE, Outcome, Program, Random, core};
use spinnaker_sim::arm968::{DTCM_BYTES, DTCM_START, ITCM_BYTES, Mode};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/oracle/unicorn_arm.py");

/// The Python that has Unicorn.
fn python() -> Option<String> {
    let python = std::env::var("SPINNAKER_ORACLE_PYTHON").unwrap_or_else(|_| "python3".into());
    let found = Command::new(&python).args(["-c", "import unicorn"]).stderr(Stdio::null()).status();
    let found = found.is_ok_and(|status| status.success());
    if !found {
        eprintln!("not run: {python} has no Unicorn");
    }
    found.then_some(python)
}

/// Sends records to the script and gives what it prints.
fn ask(python: &str, records: &[u8]) -> Vec<u8> {
    let mut child = Command::new(python)
        .args([SCRIPT, "1"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the script starts");
    let mut input = child.stdin.take().expect("input is piped");
    std::thread::scope(|scope| {
        // The script may end early, having seen enough differences.
        scope.spawn(move || input.write_all(records).ok());
        child.wait_with_output().expect("the script ends").stdout
    })
}

fn put(records: &mut Vec<u8>, words: &[u32]) {
    records.extend(words.iter().flat_map(|word| word.to_le_bytes()));
}

fn put_memory(records: &mut Vec<u8>, address: u32, bytes: &[u8]) {
    put(records, &[1, address, bytes.len() as u32]);
    records.extend(bytes);
}

/// CRC-32 (IEEE), with a table of 256 entries.
fn crc32(bytes: &[u8]) -> u32 {
    let table: [u32; 256] = std::array::from_fn(|index| {
        (0..8).fold(index as u32, |crc, _| if crc & 1 != 0 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 })
    });
    !bytes.iter().fold(!0, |crc, &byte| crc >> 8 ^ table[(crc as u8 ^ byte) as usize])
}

#[test]
fn random_programs_end_as_in_unicorn() {
    let Some(python) = python() else { return };
    let wanted = std::env::var("SPINNAKER_ORACLE_INSTRUCTIONS").ok().and_then(|text| text.parse().ok());
    let wanted: u64 = wanted.unwrap_or(200_000);
    let mut executed = 0;
    let mut seed = 0;
    while executed < wanted {
        seed += 1;
        let (records, programs, instructions) = batch(seed, wanted - executed);
        let printed = String::from_utf8(ask(&python, &records)).expect("the script prints text");
        assert_eq!(printed.trim(), format!("compared {programs}"), "seed {seed}");
        executed += instructions;
    }
    println!("compared {executed} instructions");
}

/// Whether the bases are still well within data memory, which Unicorn does not repeat after its end.
fn bases_stay(outcome: &Outcome, thumb: bool) -> bool {
    let bases: &[usize] = if thumb { &[6, 7, 13] } else { &[10, 11, 13] };
    let near = |&base: &usize| outcome.registers[base].abs_diff(DTCM_MIDDLE) < DTCM_BYTES as u32 / 2 - 0x400;
    bases.iter().all(near)
}

/// Records of programs with their outcomes by this simulator; how many programs and instructions that is.
fn batch(seed: u64, wanted: u64) -> (Vec<u8>, u32, u64) {
    let mut random = Random(seed);
    let mut cpu = core(&mut random);
    let mut records = Vec::new();
    put_memory(&mut records, DTCM_START, cpu.dtcm());
    let (mut programs, mut instructions) = (0, 0);
    while programs < 2000 && instructions < wanted {
        let thumb = random.chance(50);
        let program = Program::random(&mut random, thumb, &[DTCM_MIDDLE]);
        let memory = *cpu.dtcm();
        let outcome = program.run(&mut cpu, &mut Memory::default(), Some(400));
        let Some(outcome) = outcome.filter(|outcome| bases_stay(outcome, program.thumb)) else {
            cpu.dtcm_mut().copy_from_slice(&memory);
            continue;
        };
        put_memory(&mut records, CODE, &program.code);
        put_memory(&mut records, CODE + program.code.len() as u32, &[0; 64]);
        put(&mut records, &[2, u32::from(program.thumb), CODE, CODE + program.end]);
        put(&mut records, &program.registers);
        put(&mut records, &[program.cpsr]);
        put(&mut records, &outcome.registers);
        put(&mut records, &[outcome.cpsr, crc32(cpu.dtcm())]);
        programs += 1;
        instructions += outcome.instructions;
    }
    assert!(CODE as usize + 0x200 < ITCM_BYTES);
    (records, programs, instructions)
}

/// Other register fields than those that decide: 19:16, 15:12, 11:8, 3:0. The first is all that differs for undefined
/// instructions; the others are fields that "should be" zero or one, PLD's 15:12 and the coprocessor number.
const FIELDS: [u32; 6] = [0x0001_2304, 0x000f_ff0f, 0x000f_1f0e, 0x0001_f00e, 0x0000_0000, 0x0002_1e03];

/// All values of the bits that decide, for the conditions AL and 1111.
fn arm_encodings() -> Vec<u32> {
    let mut words = Vec::new();
    for fields in FIELDS {
        for condition in [14u32, 15] {
            for high in 0..256 {
                for low in 0..16 {
                    words.push(condition << 28 | high << 20 | fields | low << 4);
                }
            }
        }
    }
    words
}

/// Whether this simulator takes the undefined instruction exception, as a byte.
fn classify(words: &[u32], thumb: bool) -> Vec<u8> {
    let mut cpu = core(&mut Random(0));
    let classify = |&word: &u32| {
        cpu.reset();
        cpu.set_control(0);
        cpu.set_cpsr(0x4000_00df | if thumb { 0x20 } else { 0 });
        for register in 0..15 {
            cpu.set_register(register, DTCM_MIDDLE);
        }
        cpu.write_tcm(CODE, &word.to_le_bytes()).expect("code fits");
        cpu.set_pc(CODE);
        cpu.step(&mut Memory::default());
        u8::from(cpu.mode() == Mode::Undefined)
    };
    words.iter().map(classify).collect()
}

/// Encodings that the comparison leaves out: unpredictable ones, which Unicorn takes for undefined and this core executes as
/// if nothing were wrong; and those that Unicorn takes from a later architecture whatever the core.
fn is_excluded(word: u32, thumb: bool) -> bool {
    if thumb { is_excluded_thumb(word & 0xffff) } else { is_excluded_arm(word) }
}

fn is_excluded_thumb(half: u32) -> bool {
    match half {
        // BX, BLX: bits 2:0 should be zero.
        0x4700..=0x47ff => half & 7 != 0,
        // Undefined in ARMv5 (manual, figure A6-1); Unicorn knows them as CBZ, CBNZ, IT and hints of Thumb-2.
        0xb100..=0xb1ff | 0xb300..=0xb3ff | 0xb900..=0xb9ff | 0xbb00..=0xbbff | 0xbf00..=0xbfff => true,
        // Empty lists of PUSH, POP, STMIA, LDMIA are unpredictable.
        0xb400 | 0xbc00 => true,
        0xc000..=0xcfff => half & 0xff == 0,
        // The second half of BLX with bit 0 set is undefined (manual, A7.1.16); Unicorn ignores that bit.
        0xe800..=0xefff => half & 1 != 0,
        _ => false,
    }
}

fn is_excluded_arm(word: u32) -> bool {
    let bits = |low: u32, count: u32| word >> low & ((1 << count) - 1);
    if bits(28, 4) == 15 {
        return false;
    }
    match bits(25, 3) {
        // MUL without accumulation: 15:12 should be zero. SWP: 11:8.
        0b000 if word & 0x90 == 0x90 && bits(5, 2) == 0 => match bits(20, 8) {
            0 | 1 => bits(12, 4) != 0,
            0x10 | 0x14 => bits(8, 4) != 0,
            _ => false,
        },
        // Half-word, signed and double transfers: 11:8 of a register offset; post-indexed with W.
        0b000 if word & 0x90 == 0x90 => bits(22, 1) == 0 && bits(8, 4) != 0 || bits(24, 1) == 0 && bits(21, 1) == 1,
        // MRS, MSR, BX, CLZ, QADD, SMULxy, SMULWy: fields that should be zero or one.
        0b000 if bits(23, 2) == 2 && bits(20, 1) == 0 => bits(16, 4) != 15 || bits(8, 4) != 0 || bits(12, 4) != 0,
        // MSR with a constant: 15:12 should be one.
        0b001 if bits(23, 2) == 2 && bits(20, 1) == 0 => bits(12, 4) != 15,
        // TST, TEQ, CMP, CMN: 15:12 should be zero. MOV, MVN: 19:16.
        0b000 | 0b001 => match bits(21, 4) {
            8..=11 => bits(20, 1) != 0 && bits(12, 4) != 0,
            13 | 15 => bits(16, 4) != 0,
            _ => false,
        },
        // LDM, STM: empty lists; PC as base; User registers with write-back.
        0b100 => bits(0, 16) == 0 || bits(16, 4) == 15 || bits(21, 2) == 3 && !(bits(20, 1) == 1 && bits(15, 1) == 1),
        // Coprocessor 14: Unicorn has other debug registers.
        0b111 => bits(24, 1) == 0 && bits(8, 4) == 14,
        _ => false,
    }
}

/// Compares the classification of encodings.
fn compare_classes(words: &[u32], thumb: bool) {
    let Some(python) = python() else { return };
    let mut records = Vec::new();
    put(&mut records, &[3, u32::from(thumb), words.len() as u32, CODE]);
    put(&mut records, words);
    let answer = ask(&python, &records);
    let theirs = &answer[..words.len()];
    let ours = classify(words, thumb);
    let mut different = Vec::new();
    for (&word, (our, their)) in words.iter().zip(ours.iter().zip(theirs)) {
        if our != their && !is_excluded(word, thumb) {
            different.push(format!("{word:08x}: undefined here {our}, in Unicorn {their}"));
        }
    }
    assert!(different.is_empty(), "{} of {}:\n{}", different.len(), words.len(), different.join("\n"));
}

#[test]
fn arm_encodings_are_undefined_as_in_unicorn() {
    compare_classes(&arm_encodings(), false);
}

#[test]
fn thumb_encodings_are_undefined_as_in_unicorn() {
    // Behind each the second half of a BL, so that a first half is not alone.
    compare_classes(&(0..0x1_0000).map(|half| 0xf800_0000 | half).collect::<Vec<_>>(), true);
}
