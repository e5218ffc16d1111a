//! Decoding of Thumb instructions (ARMv5T, manual chapter A6 and A7).

use super::instruction::{Addressing, Alu, Instruction, Multiple, Offset, Operand, Operation, Register, Shift, Width};

const SP: Register = 13;
const LR: Register = 14;
const PC: Register = 15;

const fn bits(half: u32, low: u32, count: u32) -> u32 {
    half >> low & ((1 << count) - 1)
}

const fn low_register(half: u32, low: u32) -> Register {
    bits(half, low, 3) as Register
}

const fn constant(value: u32) -> Operand {
    Operand::Immediate { value, carry: None }
}

const fn plain(rm: Register) -> Operand {
    Operand::ShiftedImmediate { rm, shift: Shift::Lsl, amount: 0 }
}

const fn alu(alu: Alu, rd: Register, rn: Register, operand: Operand) -> Operation {
    Operation::DataProcessing { alu, set_flags: true, rd, rn, operand }
}

/// The low `count` bits as a signed number.
const fn sign_extend(value: u32, count: u32) -> u32 {
    ((value << (32 - count)) as i32 >> (32 - count)) as u32
}

/// Decodes a Thumb instruction.
pub(super) fn decode(half: u16) -> Instruction {
    let half = u32::from(half);
    let operation = match bits(half, 13, 3) {
        0b000 => shift_or_add(half),
        0b001 => immediate(half),
        0b010 => register_operation(half),
        0b011 => {
            let (width, scale) = if half & 0x1000 != 0 { (Width::Byte, 0) } else { (Width::Word, 2) };
            offset_transfer(half, width, scale)
        }
        0b100 if half & 0x1000 == 0 => offset_transfer(half, Width::Half, 1),
        0b100 => transfer(
            half & 0x0800 != 0,
            Width::Word,
            low_register(half, 8),
            SP,
            Offset::Immediate(bits(half, 0, 8) * 4),
        ),
        0b101 if half & 0x1000 == 0 => address(half),
        0b101 => miscellaneous(half),
        0b110 if half & 0x1000 == 0 => multiple(half),
        0b110 => return conditional_branch(half),
        _ => long_branch(half),
    };
    Instruction::always(operation)
}

fn shift_or_add(half: u32) -> Operation {
    let (rd, rm) = (low_register(half, 0), low_register(half, 3));
    let kind = bits(half, 11, 2);
    if kind != 3 {
        let operand = Operand::ShiftedImmediate { rm, shift: Shift::from_bits(kind), amount: bits(half, 6, 5) as u8 };
        return alu(Alu::Mov, rd, 0, operand);
    }
    let operand = if half & 0x0400 != 0 { constant(bits(half, 6, 3)) } else { plain(low_register(half, 6)) };
    alu(if half & 0x0200 != 0 { Alu::Sub } else { Alu::Add }, rd, rm, operand)
}

fn immediate(half: u32) -> Operation {
    let kind = [Alu::Mov, Alu::Cmp, Alu::Add, Alu::Sub][bits(half, 11, 2) as usize];
    let rd = low_register(half, 8);
    alu(kind, rd, rd, constant(half & 0xff))
}

/// 010: two-register operations, high registers and BX, literal loads, register-offset transfers.
fn register_operation(half: u32) -> Operation {
    if half & 0x1000 != 0 {
        return register_offset_transfer(half);
    }
    match bits(half, 10, 2) {
        0b00 => two_register(half),
        0b01 => high_register(half),
        _ => transfer(true, Width::Word, low_register(half, 8), PC, Offset::Immediate(bits(half, 0, 8) * 4)),
    }
}

fn two_register(half: u32) -> Operation {
    let (rd, rm) = (low_register(half, 0), low_register(half, 3));
    let shift = |shift| alu(Alu::Mov, rd, 0, Operand::ShiftedRegister { rm: rd, shift, rs: rm });
    match bits(half, 6, 4) {
        0 => alu(Alu::And, rd, rd, plain(rm)),
        1 => alu(Alu::Eor, rd, rd, plain(rm)),
        2 => shift(Shift::Lsl),
        3 => shift(Shift::Lsr),
        4 => shift(Shift::Asr),
        5 => alu(Alu::Adc, rd, rd, plain(rm)),
        6 => alu(Alu::Sbc, rd, rd, plain(rm)),
        7 => shift(Shift::Ror),
        8 => alu(Alu::Tst, rd, rd, plain(rm)),
        9 => alu(Alu::Rsb, rd, rm, constant(0)),
        10 => alu(Alu::Cmp, rd, rd, plain(rm)),
        11 => alu(Alu::Cmn, rd, rd, plain(rm)),
        12 => alu(Alu::Orr, rd, rd, plain(rm)),
        13 => Operation::Multiply { accumulate: false, set_flags: true, rd, rn: 0, rs: rd, rm },
        14 => alu(Alu::Bic, rd, rd, plain(rm)),
        _ => alu(Alu::Mvn, rd, 0, plain(rm)),
    }
}

fn high_register(half: u32) -> Operation {
    let rd = (bits(half, 7, 1) << 3 | bits(half, 0, 3)) as Register;
    let rm = bits(half, 3, 4) as Register;
    let operation = |alu, set_flags| Operation::DataProcessing { alu, set_flags, rd, rn: rd, operand: plain(rm) };
    match bits(half, 8, 2) {
        0 => operation(Alu::Add, false),
        1 => operation(Alu::Cmp, true),
        2 => operation(Alu::Mov, false),
        _ => Operation::BranchExchange { rm, link: half & 0x80 != 0 },
    }
}

fn transfer(load: bool, width: Width, rd: Register, rn: Register, offset: Offset) -> Operation {
    let addressing = Addressing { rn, offset, pre_index: true, write_back: false };
    if load {
        Operation::Load { width, rd, addressing, user: false }
    } else {
        Operation::Store { width, rd, addressing, user: false }
    }
}

fn register_offset_transfer(half: u32) -> Operation {
    let (load, width) = [
        (false, Width::Word),
        (false, Width::Half),
        (false, Width::Byte),
        (true, Width::SignedByte),
        (true, Width::Word),
        (true, Width::Half),
        (true, Width::Byte),
        (true, Width::SignedHalf),
    ][bits(half, 9, 3) as usize];
    let offset = Offset::Register { rm: low_register(half, 6), shift: Shift::Lsl, amount: 0, subtract: false };
    transfer(load, width, low_register(half, 0), low_register(half, 3), offset)
}

fn offset_transfer(half: u32, width: Width, scale: u32) -> Operation {
    let offset = Offset::Immediate(bits(half, 6, 5) << scale);
    transfer(half & 0x0800 != 0, width, low_register(half, 0), low_register(half, 3), offset)
}

fn address(half: u32) -> Operation {
    let (rd, offset) = (low_register(half, 8), bits(half, 0, 8) * 4);
    if half & 0x0800 == 0 {
        return Operation::AddressOfPc { rd, offset };
    }
    Operation::DataProcessing { alu: Alu::Add, set_flags: false, rd, rn: SP, operand: constant(offset) }
}

/// 1011: stack pointer adjustment, PUSH, POP, BKPT.
fn miscellaneous(half: u32) -> Operation {
    let stack = |load: bool, extra: Register| {
        let list = bits(half, 0, 8) as u16 | (bits(half, 8, 1) as u16) << extra;
        Operation::Multiple(Multiple { load, rn: SP, list, up: load, before: !load, write_back: true, user: false })
    };
    match bits(half, 8, 4) {
        0b0000 => {
            let kind = if half & 0x80 != 0 { Alu::Sub } else { Alu::Add };
            let operand = constant(bits(half, 0, 7) * 4);
            Operation::DataProcessing { alu: kind, set_flags: false, rd: SP, rn: SP, operand }
        }
        0b0100 | 0b0101 => stack(false, LR),
        0b1100 | 0b1101 => stack(true, PC),
        0b1110 => Operation::Breakpoint,
        _ => Operation::Undefined,
    }
}

fn multiple(half: u32) -> Operation {
    let (rn, list, load) = (low_register(half, 8), bits(half, 0, 8) as u16, half & 0x0800 != 0);
    let write_back = !(load && list >> rn & 1 != 0);
    Operation::Multiple(Multiple { load, rn, list, up: true, before: false, write_back, user: false })
}

fn conditional_branch(half: u32) -> Instruction {
    let offset = (sign_extend(half & 0xff, 8) << 1).wrapping_add(4);
    match bits(half, 8, 4) {
        14 => Instruction::always(Operation::Undefined),
        15 => Instruction::always(Operation::SoftwareInterrupt),
        condition => Instruction { condition: condition as u8, operation: Operation::Branch { offset, link: false } },
    }
}

/// 111: B, and the two halves of BL and BLX.
fn long_branch(half: u32) -> Operation {
    let offset = bits(half, 0, 11);
    match bits(half, 11, 2) {
        0b00 => Operation::Branch { offset: (sign_extend(offset, 11) << 1).wrapping_add(4), link: false },
        0b01 if offset & 1 != 0 => Operation::Undefined,
        0b01 => Operation::LongBranchSuffix { offset: offset << 1, exchange: true },
        0b10 => Operation::LongBranchPrefix { offset: (sign_extend(offset, 11) << 12).wrapping_add(4) },
        _ => Operation::LongBranchSuffix { offset: offset << 1, exchange: false },
    }
}
