//! Random programs that every ARMv5TE must execute alike: nothing unpredictable, memory accesses in data memory only.

use spinnaker_sim::arm968::{Cpu, DTCM_BYTES, DTCM_START, Exit};

use crate::bench::{Memory, WAIT, words};

/// Where programs are put.
pub const CODE: u32 = 0x400;

/// A program that executes more has been led into a loop that does not end soon.
const INSTRUCTIONS_MAX: u64 = 5000;

/// The middle of data memory.
pub const DTCM_MIDDLE: u32 = DTCM_START + DTCM_BYTES as u32 / 2;

/// SplitMix64.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ mixed >> 31) as u32
    }

    pub fn below(&mut self, bound: u32) -> u32 {
        ((u64::from(self.next()) * u64::from(bound)) >> 32) as u32
    }

    pub fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u32) as usize]
    }

    pub fn chance(&mut self, percent: u32) -> bool {
        self.below(100) < percent
    }

    /// A number as tests want them: small, near the limits, or anything.
    pub fn value(&mut self) -> u32 {
        match self.below(6) {
            0 => self.below(34),
            1 => self.below(34).wrapping_neg(),
            2 => 0x8000_0000_u32.wrapping_add(self.below(4)).wrapping_sub(2),
            3 => self.next() & 0xffff,
            _ => self.next(),
        }
    }
}

/// A program and the state that it starts in.
pub struct Program {
    pub thumb: bool,
    /// From [`CODE`] on, with what ends it.
    pub code: Vec<u8>,
    /// Offset where it ends.
    pub end: u32,
    /// r0 to r14.
    pub registers: [u32; 15],
    /// With the mode, without the Thumb bit.
    pub cpsr: u32,
}

/// The state after a program.
#[derive(Debug, PartialEq, Eq)]
pub struct Outcome {
    pub registers: [u32; 15],
    /// Without the Thumb bit.
    pub cpsr: u32,
    pub cycles: u64,
    pub instructions: u64,
}

/// Registers that ARM programs compute with; r8 and r9 index, r10, r11 and r13 are bases, and r7 counts turns.
const ARM_FREE: [u32; 9] = [0, 1, 2, 3, 4, 5, 6, 12, 14];
const ARM_BASES: [u32; 3] = [10, 11, 13];
const ARM_INDICES: [u32; 2] = [8, 9];
/// Registers that Thumb programs compute with; r5 indexes, r6 and r7 are bases, and r4 counts turns.
const THUMB_FREE: [u32; 4] = [0, 1, 2, 3];
const THUMB_BASES: [u32; 2] = [6, 7];
const THUMB_INDEX: u32 = 5;

impl Program {
    /// `areas`: addresses that the bases point near to, one for each at random.
    pub fn random(random: &mut Random, thumb: bool, areas: &[u32]) -> Self {
        let mut registers = [0; 15];
        for register in &mut registers {
            *register = random.value();
        }
        let bases: &[u32] = if thumb { &[6, 7, 13] } else { &ARM_BASES };
        let indices: &[u32] = if thumb { &[5] } else { &ARM_INDICES };
        for &base in bases {
            registers[base as usize] = random.of(areas) + random.below(64) * 4;
        }
        for &index in indices {
            registers[index as usize] = random.below(16) * 4;
        }
        let cpsr = random.next() & 0xf800_0000 | 0xdf;
        let length = 5 + random.below(75);
        let (code, end) = if thumb { thumb_code(random, length) } else { arm_code(random, length) };
        Self { thumb, code, end, registers, cpsr }
    }

    /// Puts the program and its state into a core.
    pub fn load(&self, cpu: &mut Cpu) {
        // What a program before may have overwritten: vectors that lead to endless loops, and the code around.
        cpu.write_tcm(0, &words(&[0xeaff_fffe; 8])).expect("vectors fit");
        cpu.write_tcm(CODE + self.code.len() as u32, &[0; 64]).expect("literals fit");
        cpu.write_tcm(CODE, &self.code).expect("code fits");
        // A reset wakes the core from its last wait.
        cpu.reset();
        // A program may have been left in the middle: forget its late results.
        cpu.set_cycles(cpu.cycles());
        cpu.set_control(0x1f7e);
        cpu.set_cpsr(self.cpsr | if self.thumb { 0x20 } else { 0 });
        for (register, &value) in self.registers.iter().enumerate() {
            cpu.set_register(register, value);
        }
        cpu.set_pc(CODE);
    }

    /// Runs the program in a core, in steps of one instruction or in runs of `quantum` cycles. Nothing comes back if it did
    /// not end as it should, as after a data abort, or not soon.
    pub fn run(&self, cpu: &mut Cpu, bus: &mut Memory, quantum: Option<u64>) -> Option<Outcome> {
        self.load(cpu);
        let (cycles, instructions) = (cpu.cycles(), cpu.instructions());
        while cpu.instructions() - instructions <= INSTRUCTIONS_MAX {
            let exit = match quantum {
                Some(quantum) => {
                    let until = cpu.cycles() + quantum;
                    cpu.run(bus, until)
                }
                None => cpu.step(bus),
            };
            match exit {
                Exit::WaitForInterrupt => break,
                Exit::Until => {}
                _ => return None,
            }
        }
        let within = cpu.instructions() - instructions <= INSTRUCTIONS_MAX;
        let ended = within && cpu.pc() == CODE + self.end.next_multiple_of(4) + if self.thumb { 8 } else { 4 };
        let mut registers = [0; 15];
        for (register, value) in registers.iter_mut().enumerate() {
            *value = cpu.register(register);
        }
        ended.then(|| Outcome {
            registers,
            cpsr: cpu.cpsr(),
            cycles: cpu.cycles() - cycles,
            instructions: cpu.instructions() - instructions,
        })
    }
}

/// A core that programs can be run in.
pub fn core(random: &mut Random) -> Cpu {
    let mut cpu = Cpu::new();
    for byte in cpu.dtcm_mut() {
        *byte = random.next() as u8;
    }
    cpu
}

/// Instructions, some of them in a loop, and at the end the wait.
fn arm_code(random: &mut Random, length: u32) -> (Vec<u8>, u32) {
    let mut code: Vec<u32> = Vec::new();
    while (code.len() as u32) < length {
        if random.chance(5) {
            let body = 1 + random.below(8);
            code.push(0xe3a0_7000 | (1 + random.below(20)));
            let start = code.len();
            for left in (0..body).rev() {
                code.push(arm_instruction(random, left));
            }
            code.push(0xe257_7001);
            let back = start as u32;
            let offset = back.wrapping_sub(code.len() as u32 + 2) & 0x00ff_ffff;
            code.push(0x1a00_0000 | offset);
        } else {
            let left = length.saturating_sub(code.len() as u32 + 1);
            let within = left.min(3);
            code.push(arm_instruction(random, within));
        }
    }
    // Branches of the last instructions may go this far.
    code.extend([0xe1a0_0000; 4]);
    let end = code.len() as u32 * 4;
    code.push(WAIT);
    (words(&code), end)
}

/// One instruction; `ahead` instructions may be branched over.
pub fn arm_instruction(random: &mut Random, ahead: u32) -> u32 {
    let condition = if random.chance(60) { 14 } else { random.below(14) } << 28;
    let free = |random: &mut Random| random.of(&ARM_FREE);
    let any = |random: &mut Random| random.below(15);
    match random.below(20) {
        0..=6 => condition | arm_data_processing(random),
        7 | 8 => {
            let (rd, rn) = (free(random), free(random));
            let high = ARM_FREE.iter().copied().find(|&register| register != rd && register != rn).unwrap_or(0);
            let (rs, rm) = (any(random), any(random));
            let operands = rs << 8 | 9 << 4 | rm;
            let set_flags = random.below(2) << 20;
            match random.below(3) {
                0 => condition | set_flags | rd << 16 | operands,
                1 => condition | 1 << 21 | set_flags | rd << 16 | rn << 12 | operands,
                _ => condition | 1 << 23 | random.below(4) << 21 | set_flags | high << 16 | rd << 12 | operands,
            }
        }
        9 | 10 => {
            let (mut rd, rn) = (free(random), free(random));
            if rd == rn {
                rd = if rn == 0 { 1 } else { 0 };
            }
            let halves = random.below(4) << 5 | 8 << 4;
            let kind = random.below(4) << 21 | 1 << 24;
            // SMULxy and SMULWy have no third operand.
            let accumulates = kind >> 21 & 3 == 0 || kind >> 21 & 3 == 2 || kind >> 21 & 3 == 1 && halves & 0x20 == 0;
            let rn = if accumulates { rn } else { 0 };
            condition | kind | rd << 16 | rn << 12 | any(random) << 8 | halves | any(random)
        }
        11 => match random.below(3) {
            0 => condition | 0x016f_0f10 | free(random) << 12 | any(random),
            1 => condition | 0x010f_0000 | free(random) << 12,
            _ => condition | 0x0100_0050 | random.below(4) << 21 | any(random) << 16 | free(random) << 12 | any(random),
        },
        12..=15 => condition | arm_single_transfer(random),
        16 | 17 => {
            let list = (random.next() & random.next() & 0x507f).max(1);
            let bits = random.below(16) << 21 & 0x01a0_0000 | random.below(2) << 20;
            condition | 0x0800_0000 | bits | random.of(&ARM_BASES) << 16 | list
        }
        18 => match random.below(5) {
            0 => {
                let rd = free(random);
                let rm = free(random);
                condition | 0x0100_0090 | random.below(2) << 22 | random.of(&ARM_BASES) << 16 | rd << 12 | rm
            }
            1 => 0xf5d0_f000 | random.of(&ARM_BASES) << 16,
            2 => condition | 0x0128_f000 | any(random),
            // MSR CPSR_c, #0xdf: as it is.
            3 => condition | 0x0321_f0df,
            _ => condition | 0x0328_f000 | random.next() & 0xfff,
        },
        _ => condition | 0x0a00_0000 | random.below(2) << 24 | (random.below(ahead + 1).wrapping_sub(1) & 0x00ff_ffff),
    }
}

fn arm_data_processing(random: &mut Random) -> u32 {
    let opcode = random.below(16);
    let test = opcode & 0b1100 == 0b1000;
    let set_flags = if test || random.chance(40) { 1 << 20 } else { 0 };
    let rd = if test { 0 } else { random.of(&ARM_FREE) };
    let rn = if matches!(opcode, 13 | 15) { 0 } else { random.below(15) };
    let head = opcode << 21 | set_flags | rd << 12;
    match random.below(3) {
        0 => head | 1 << 25 | rn << 16 | random.next() & 0xfff,
        1 => {
            let amount = if random.chance(50) { 0 } else { random.below(32) << 7 | random.below(4) << 5 };
            // Sometimes the PC is an operand.
            let rm = random.below(16);
            let rn = if random.chance(5) && !matches!(opcode, 13 | 15) { 15 } else { rn };
            head | rn << 16 | amount | rm
        }
        _ => head | rn << 16 | random.below(15) << 8 | random.below(4) << 5 | 1 << 4 | random.below(15),
    }
}

fn arm_single_transfer(random: &mut Random) -> u32 {
    let rn = random.of(&ARM_BASES) << 16;
    let rd = random.of(&ARM_FREE);
    let up = random.below(2) << 23;
    let load = random.below(2) << 20;
    // Offset, pre-indexed, post-indexed.
    let form = random.of(&[1u32 << 24, 1 << 24, 1 << 24 | 1 << 21, 0]);
    match random.below(6) {
        0..=2 => {
            let byte = random.below(2) << 22;
            let scale = if byte == 0 { 4 } else { 1 };
            if random.chance(25) {
                let index = random.of(&ARM_INDICES);
                return 0x0600_0000 | form | up | byte | load | rn | rd << 12 | random.below(3) << 7 | index;
            }
            0x0400_0000 | form | up | byte | load | rn | rd << 12 | (random.below(16) * scale)
        }
        3 | 4 => {
            let (load, kind) = random.of(&[(1 << 20, 0xb0), (1 << 20, 0xd0), (1 << 20, 0xf0), (0, 0xb0)]);
            let offset = random.below(8) * 2;
            halfword(random, form | up | load | kind | rn | rd << 12, offset)
        }
        _ => {
            let kind = random.of(&[0xd0, 0xf0]);
            let offset = random.below(8) * 4;
            halfword(random, form | up | kind | rn | (rd & 6) << 12, offset)
        }
    }
}

/// A half-word, signed or double transfer with a constant or register offset.
fn halfword(random: &mut Random, word: u32, offset: u32) -> u32 {
    if random.chance(20) { word | random.of(&ARM_INDICES) } else { word | 1 << 22 | (offset & 0xf0) << 4 | offset & 15 }
}

/// As [`arm_code`]; the end goes to ARM state.
fn thumb_code(random: &mut Random, length: u32) -> (Vec<u8>, u32) {
    let mut code: Vec<u16> = Vec::new();
    while (code.len() as u32) < length {
        if random.chance(5) {
            let body = 1 + random.below(8);
            code.push(0x2400 | (1 + random.below(20)) as u16);
            let start = code.len() as i32;
            for left in (0..body).rev() {
                code.push(thumb_instruction(random, left));
            }
            code.push(0x3c01);
            let offset = start - (code.len() as i32 + 2);
            code.push(0xd100 | (offset & 0xff) as u16);
        } else if random.chance(5) && code.iter().rev().take(3).all(|&half| half < 0xd000) {
            // BL over up to two instructions; no branch leads to its second half.
            code.extend([0xf000, 0xf800 | random.below(3) as u16]);
        } else {
            code.push(thumb_instruction(random, 2));
        }
    }
    code.extend([0x46c0; 4]);
    if !code.len().is_multiple_of(2) {
        code.push(0x46c0);
    }
    let end = code.len() as u32 * 2;
    code.extend([0x4778, 0x46c0]);
    let mut bytes: Vec<u8> = code.iter().flat_map(|half| half.to_le_bytes()).collect();
    bytes.extend(WAIT.to_le_bytes());
    (bytes, end)
}

/// One instruction; `ahead` instructions may be branched over.
pub fn thumb_instruction(random: &mut Random, ahead: u32) -> u16 {
    let low = |random: &mut Random| random.below(8);
    let free = |random: &mut Random| random.of(&THUMB_FREE);
    let base = |random: &mut Random| random.of(&THUMB_BASES);
    let half = match random.below(16) {
        0 | 1 => random.below(0x1800) & !7 | free(random),
        2 => 0x1800 | random.below(0x800) & !7 | free(random),
        3 | 4 => {
            let rd = free(random) << 8;
            0x2000 | random.below(4) << 11 | rd | random.next() & 0xff
        }
        5..=7 => 0x4000 | random.below(16) << 6 | low(random) << 3 | free(random),
        8 => {
            let rd = random.of(&[0, 1, 2, 3, 8, 9, 10, 11, 12, 14u32]);
            let rm = random.below(15);
            0x4400 | random.below(3) << 8 | (rd & 8) << 4 | (rm << 3) | rd & 7
        }
        9 => 0x4800 | free(random) << 8 | random.below(4),
        10 => 0x5000 | random.below(8) << 9 | THUMB_INDEX << 6 | base(random) << 3 | free(random),
        11 => 0x6000 | random.below(4) << 11 | random.below(32) << 6 | base(random) << 3 | free(random),
        12 => match random.below(2) {
            0 => 0x8000 | random.below(2) << 11 | random.below(32) << 6 | base(random) << 3 | free(random),
            _ => 0x9000 | random.below(2) << 11 | free(random) << 8 | random.below(32),
        },
        13 => match random.below(3) {
            0 => 0xa000 | random.below(2) << 11 | free(random) << 8 | random.below(256),
            1 => 0xb000 | random.below(2) << 7 | random.below(8),
            _ => {
                let list = (random.next() & random.next() & 0xf).max(1);
                if random.chance(50) { 0xb400 | list | random.below(2) << 8 } else { 0xbc00 | list }
            }
        },
        14 => 0xc000 | random.below(2) << 11 | base(random) << 8 | (random.next() & 0xf).max(1),
        _ => match random.below(3) {
            0 => 0xe000 | random.below(ahead + 1).wrapping_sub(1) & 0x7ff,
            _ => 0xd000 | random.below(14) << 8 | random.below(ahead + 1).wrapping_sub(1) & 0xff,
        },
    };
    half as u16
}
