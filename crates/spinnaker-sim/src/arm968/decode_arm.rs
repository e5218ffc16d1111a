//! Decoding of ARM instructions (ARMv5TE, manual chapter A3 and A10).
//!
//! Fields that "should be" zero or one are not looked at, as this core does, except where they tell a defined from an
//! undefined instruction.

use super::instruction::{
    Addressing, Alu, HalfMultiply, Instruction, Multiple, Offset, Operand, Operation, Register, Shift, Width,
};

/// Bits `low` to `low + count - 1`.
const fn bits(word: u32, low: u32, count: u32) -> u32 {
    word >> low & ((1 << count) - 1)
}

const fn bit(word: u32, index: u32) -> bool {
    word >> index & 1 != 0
}

const fn register(word: u32, low: u32) -> Register {
    bits(word, low, 4) as Register
}

/// Decodes an ARM instruction word.
pub(super) fn decode(word: u32) -> Instruction {
    let condition = (word >> 28) as u8;
    if condition == 15 {
        return Instruction::always(unconditional(word));
    }
    let operation = match bits(word, 25, 3) {
        0b000 if word & 0x90 == 0x90 => multiply_or_extra_transfer(word),
        0b000 if bits(word, 23, 2) == 0b10 && !bit(word, 20) => miscellaneous(word),
        0b000 => data_processing(word, shifted_operand(word)),
        0b001 if bits(word, 23, 2) == 0b10 && !bit(word, 20) => match bit(word, 21) {
            true => write_status(word, immediate_operand(word)),
            false => Operation::Undefined,
        },
        0b001 => data_processing(word, immediate_operand(word)),
        0b010 => transfer(word, immediate_offset(word)),
        0b011 if bit(word, 4) => Operation::Undefined,
        0b011 => transfer(word, register_offset(word)),
        0b100 => multiple(word),
        0b101 => Operation::Branch { offset: branch_offset(word).wrapping_add(8), link: bit(word, 24) },
        0b111 if bit(word, 24) => Operation::SoftwareInterrupt,
        0b111 if bit(word, 4) => coprocessor_register(word),
        _ => Operation::Undefined,
    };
    Instruction { condition, operation }
}

/// The space of condition 1111: BLX label and PLD. The coprocessor forms of it find no coprocessor.
fn unconditional(word: u32) -> Operation {
    if bits(word, 25, 3) == 0b101 {
        let half = bits(word, 24, 1) << 1;
        return Operation::BranchLinkExchange { offset: branch_offset(word).wrapping_add(8).wrapping_add(half) };
    }
    if is_preload(word) {
        return Operation::Preload;
    }
    Operation::Undefined
}

/// PLD with either sign of its offset; a register offset leaves bit 4 clear.
fn is_preload(word: u32) -> bool {
    word & 0x0d70_f000 == 0x0550_f000 && !(bit(word, 25) && bit(word, 4))
}

/// The 24-bit word offset of B, BL and BLX in bytes.
fn branch_offset(word: u32) -> u32 {
    ((word << 8) as i32 >> 6) as u32
}

fn immediate_operand(word: u32) -> Operand {
    let rotate = bits(word, 8, 4) * 2;
    let value = (word & 0xff).rotate_right(rotate);
    Operand::Immediate { value, carry: (rotate != 0).then_some(bit(value, 31)) }
}

fn shifted_operand(word: u32) -> Operand {
    let rm = register(word, 0);
    let shift = Shift::from_bits(bits(word, 5, 2));
    if bit(word, 4) {
        Operand::ShiftedRegister { rm, shift, rs: register(word, 8) }
    } else {
        Operand::ShiftedImmediate { rm, shift, amount: bits(word, 7, 5) as u8 }
    }
}

fn data_processing(word: u32, operand: Operand) -> Operation {
    let alu = Alu::ALL[bits(word, 21, 4) as usize];
    Operation::DataProcessing { alu, set_flags: bit(word, 20), rd: register(word, 12), rn: register(word, 16), operand }
}

/// Bits 7 and 4 set: multiplies, swaps, half-word, signed and double transfers.
fn multiply_or_extra_transfer(word: u32) -> Operation {
    if bits(word, 5, 2) != 0 {
        return extra_transfer(word);
    }
    let (rs, rm, set_flags) = (register(word, 8), register(word, 0), bit(word, 20));
    match bits(word, 20, 5) {
        0b00000..=0b00011 => Operation::Multiply {
            accumulate: bit(word, 21),
            set_flags,
            rd: register(word, 16),
            rn: register(word, 12),
            rs,
            rm,
        },
        0b01000..=0b01111 => Operation::MultiplyLong {
            signed: bit(word, 22),
            accumulate: bit(word, 21),
            set_flags,
            high: register(word, 16),
            low: register(word, 12),
            rs,
            rm,
        },
        0b10000 | 0b10100 => {
            Operation::Swap { byte: bit(word, 22), rd: register(word, 12), rn: register(word, 16), rm }
        }
        _ => Operation::Undefined,
    }
}

fn extra_transfer(word: u32) -> Operation {
    let subtract = !bit(word, 23);
    let offset = if bit(word, 22) {
        let magnitude = bits(word, 8, 4) << 4 | bits(word, 0, 4);
        Offset::Immediate(if subtract { magnitude.wrapping_neg() } else { magnitude })
    } else {
        Offset::Register { rm: register(word, 0), shift: Shift::Lsl, amount: 0, subtract }
    };
    let (rd, addressing) = (register(word, 12), addressing(word, offset));
    let user = false;
    match (bit(word, 20), bits(word, 5, 2)) {
        (true, 0b01) => Operation::Load { width: Width::Half, rd, addressing, user },
        (true, 0b10) => Operation::Load { width: Width::SignedByte, rd, addressing, user },
        (true, _) => Operation::Load { width: Width::SignedHalf, rd, addressing, user },
        (false, 0b01) => Operation::Store { width: Width::Half, rd, addressing, user },
        (false, _) if rd & 1 != 0 => Operation::Undefined,
        (false, 0b10) => Operation::LoadDouble { rd, addressing },
        (false, _) => Operation::StoreDouble { rd, addressing },
    }
}

/// The control and DSP extension space: opcodes of the test instructions without S.
fn miscellaneous(word: u32) -> Operation {
    let (rd, rn, rs, rm) = (register(word, 16), register(word, 12), register(word, 8), register(word, 0));
    let opcode = bits(word, 21, 2);
    if bit(word, 7) {
        let kind = match opcode {
            0b00 => HalfMultiply::Accumulate,
            0b01 if bit(word, 5) => HalfMultiply::Word,
            0b01 => HalfMultiply::WordAccumulate,
            0b10 => HalfMultiply::LongAccumulate,
            _ => HalfMultiply::Plain,
        };
        return Operation::MultiplyHalf { kind, x_top: bit(word, 5), y_top: bit(word, 6), rd, rn, rs, rm };
    }
    match (bits(word, 4, 3), opcode) {
        (0b000, 0b00 | 0b10) => Operation::ReadStatus { spsr: bit(word, 22), rd: rn },
        (0b000, _) => write_status(word, Operand::ShiftedImmediate { rm, shift: Shift::Lsl, amount: 0 }),
        (0b001, 0b01) => Operation::BranchExchange { rm, link: false },
        (0b001, 0b11) => Operation::CountLeadingZeros { rd: rn, rm },
        (0b011, 0b01) => Operation::BranchExchange { rm, link: true },
        (0b101, _) => Operation::Saturating { double: bit(word, 22), subtract: bit(word, 21), rd: rn, rn: rd, rm },
        (0b111, 0b01) => Operation::Breakpoint,
        _ => Operation::Undefined,
    }
}

fn write_status(word: u32, operand: Operand) -> Operation {
    Operation::WriteStatus { spsr: bit(word, 22), fields: bits(word, 16, 4) as u8, operand }
}

fn addressing(word: u32, offset: Offset) -> Addressing {
    let pre_index = bit(word, 24);
    Addressing { rn: register(word, 16), offset, pre_index, write_back: !pre_index || bit(word, 21) }
}

fn immediate_offset(word: u32) -> Offset {
    let magnitude = bits(word, 0, 12);
    Offset::Immediate(if bit(word, 23) { magnitude } else { magnitude.wrapping_neg() })
}

fn register_offset(word: u32) -> Offset {
    Offset::Register {
        rm: register(word, 0),
        shift: Shift::from_bits(bits(word, 5, 2)),
        amount: bits(word, 7, 5) as u8,
        subtract: !bit(word, 23),
    }
}

fn transfer(word: u32, offset: Offset) -> Operation {
    let width = if bit(word, 22) { Width::Byte } else { Width::Word };
    let user = !bit(word, 24) && bit(word, 21);
    let (rd, addressing) = (register(word, 12), addressing(word, offset));
    if bit(word, 20) {
        Operation::Load { width, rd, addressing, user }
    } else {
        Operation::Store { width, rd, addressing, user }
    }
}

fn multiple(word: u32) -> Operation {
    Operation::Multiple(Multiple {
        load: bit(word, 20),
        rn: register(word, 16),
        list: word as u16,
        up: bit(word, 23),
        before: bit(word, 24),
        write_back: bit(word, 21),
        user: bit(word, 22),
    })
}

fn coprocessor_register(word: u32) -> Operation {
    let coprocessor = bits(word, 8, 4) as u8;
    if !matches!(coprocessor, 14 | 15) {
        return Operation::Undefined;
    }
    let (rd, crn, crm) = (register(word, 12), register(word, 16), register(word, 0));
    let opcode2 = bits(word, 5, 3) as u8;
    if bit(word, 20) {
        Operation::ReadCoprocessor { coprocessor, rd, crn, crm, opcode2 }
    } else {
        Operation::WriteCoprocessor { coprocessor, rd, crn, crm, opcode2 }
    }
}
