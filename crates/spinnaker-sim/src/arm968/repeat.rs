//! Loops that pass the time: counted delays and polls of a word that nothing in the loop changes.
//!
//! Both are short code that ends in a branch to the block's start. Their turns all take the same cycles, so many turns
//! can be made at once with the registers, flags, cycles and instruction count that they would give one by one.

use super::instruction::{ALWAYS, Alu, Instruction, Offset, Operand, Operation, Register, Shift, Width};
use super::schedule::Scheduled;

/// What the branch of a block to its own start repeats.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(super) enum Repeat {
    /// Anything.
    #[default]
    Other,
    /// A count down, and nothing else.
    Count(Count),
    /// Loads and tests, which give the same every time until what is loaded changes.
    Poll {
        /// Number of the branch in its block.
        branch: u32,
    },
}

/// A loop of one subtraction with flags, the branch back and perhaps instructions without effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Count {
    /// Number of the branch in its block.
    pub branch: u32,
    pub register: Register,
    pub step: u32,
    pub condition: u8,
    /// Cycles of a turn whose branch is taken.
    pub cycles: u64,
}

impl Count {
    /// How many more turns surely end with the branch taken, with this much left to count. Zero if that is not simple
    /// to say.
    pub fn turns(&self, left: u32) -> u64 {
        let step = self.step;
        let positive = left as i32 >= 0 && step as i32 > 0;
        let turns = match self.condition {
            // NE: until zero is met, once around at most where the step is one.
            1 if step == 1 => left.wrapping_sub(1),
            1 if left.is_multiple_of(step) && left != 0 => left / step - 1,
            // CS: no borrow; HI: nor zero.
            2 => left / step,
            8 if left != 0 => (left - 1) / step,
            // PL, GE: not negative; GT: nor zero.
            5 | 10 if positive => left / step,
            12 if positive && left != 0 => (left - 1) / step,
            _ => 0,
        };
        u64::from(turns)
    }
}

impl Repeat {
    /// What the first branch of scheduled code to its own start repeats.
    pub fn of(scheduled: &[Scheduled], start: u32, step: u32) -> Repeat {
        let back = |(index, entry): (usize, &Scheduled)| match entry.instruction.operation {
            Operation::Branch { offset, link: false } => (start + index as u32 * step).wrapping_add(offset) == start,
            _ => false,
        };
        let Some(branch) = scheduled.iter().enumerate().position(back) else {
            return Repeat::Other;
        };
        let body = &scheduled[..=branch];
        if body.iter().any(|entry| entry.dynamic) {
            return Repeat::Other;
        }
        count(body).map(Repeat::Count).unwrap_or_else(|| match is_poll(body) {
            true => Repeat::Poll { branch: branch as u32 },
            false => Repeat::Other,
        })
    }
}

fn count(body: &[Scheduled]) -> Option<Count> {
    let (last, before) = body.split_last()?;
    let mut counting = before.iter().filter(|entry| !is_idle(&entry.instruction));
    let subtraction = counting.next()?.instruction;
    if subtraction.condition != ALWAYS || counting.next().is_some() {
        return None;
    }
    let Operation::DataProcessing {
        alu: Alu::Sub,
        set_flags: true,
        rd,
        rn,
        operand: Operand::Immediate { value: step @ 1.., .. },
    } = subtraction.operation
    else {
        return None;
    };
    let cycles = body.iter().map(|entry| u64::from(entry.timing.issue + entry.stall)).sum();
    let condition = last.instruction.condition;
    (rd == rn && rd != 15).then_some(Count { branch: before.len() as u32, register: rd, step, condition, cycles })
}

/// MOV Rd, Rd.
fn is_idle(instruction: &Instruction) -> bool {
    let Operation::DataProcessing { alu: Alu::Mov, set_flags: false, rd, operand, .. } = instruction.operation else {
        return false;
    };
    rd != 15 && operand == Operand::ShiftedImmediate { rm: rd, shift: Shift::Lsl, amount: 0 }
}

/// N and Z, in a set of registers.
const NZ: u32 = 1 << 16;
/// C and V.
const CV: u32 = 1 << 17;

/// Whether each turn does the same as the one before as long as its loads give the same: nothing is stored, and no
/// register or flag that a turn reads from the one before is written.
fn is_poll(body: &[Scheduled]) -> bool {
    let mut carried = 0;
    let mut defined = 0;
    let mut written = 0;
    for entry in body {
        let Some((reads, writes, surely)) = effects(entry) else {
            return false;
        };
        carried |= reads & !defined;
        written |= writes;
        defined |= surely;
    }
    carried & written == 0
}

/// What an instruction reads, what it may write, and what it surely overwrites whole. Nothing for those that cannot be
/// part of a poll.
fn effects(entry: &Scheduled) -> Option<(u32, u32, u32)> {
    let instruction = &entry.instruction;
    let registers = (u32::from(entry.timing.sources), u32::from(entry.timing.written));
    match instruction.operation {
        Operation::Branch { link: false, .. } => Some((condition_reads(instruction.condition), 0, 0)),
        _ if instruction.condition != ALWAYS => None,
        Operation::AddressOfPc { .. } => Some((0, registers.1, registers.1)),
        Operation::DataProcessing { alu, set_flags, rd, operand, .. } if rd != 15 => {
            let with_carry = matches!(alu, Alu::Adc | Alu::Sbc | Alu::Rsc);
            let rotate_extended = matches!(operand, Operand::ShiftedImmediate { shift: Shift::Ror, amount: 0, .. });
            let reads = registers.0 | if with_carry || rotate_extended { CV } else { 0 };
            let arithmetic =
                matches!(alu, Alu::Sub | Alu::Rsb | Alu::Add | Alu::Adc | Alu::Sbc | Alu::Rsc | Alu::Cmp | Alu::Cmn);
            let flags = match (set_flags, arithmetic) {
                (false, _) => (0, 0),
                (true, true) => (NZ | CV, NZ | CV),
                // The shifter may change C and leaves V.
                (true, false) => (NZ | CV, NZ),
            };
            let shifter_keeps_carry = matches!(
                operand,
                Operand::Immediate { carry: None, .. } | Operand::ShiftedImmediate { shift: Shift::Lsl, amount: 0, .. }
            );
            let may = if set_flags && !arithmetic && shifter_keeps_carry { NZ } else { flags.0 };
            Some((reads, registers.1 | may, registers.1 | flags.1))
        }
        Operation::Load { width: Width::Word | Width::Byte | Width::Half, rd, addressing, .. }
            if rd != 15 && !matches!(addressing.offset, Offset::Register { shift: Shift::Ror, .. }) =>
        {
            Some((registers.0, registers.1, registers.1))
        }
        _ => None,
    }
}

/// The flags that a condition reads.
fn condition_reads(condition: u8) -> u32 {
    match condition {
        0 | 1 | 4 | 5 => NZ,
        ALWAYS => 0,
        _ => NZ | CV,
    }
}
