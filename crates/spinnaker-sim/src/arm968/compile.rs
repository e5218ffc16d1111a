//! Compiling straight runs of code to blocks of operations.

use super::decode_arm;
use super::decode_thumb;
use super::instruction::{
    ALWAYS, Addressing, Alu, HalfMultiply, Instruction, Multiple, Offset, Operand, Operation, Register, Shift, Width,
};
use super::op::{Kind, LOADED_PC, Op, PC_VALUE, TEMPORARY, ZERO};
use super::repeat::Repeat;
use super::schedule::{Pending, Scheduled, schedule};
use super::state::{ITCM_BYTES, load_half, load_word};
use super::timing::Timing;

/// Most instructions of a block.
pub(super) const BLOCK_INSTRUCTIONS: usize = 64;

/// An instruction of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Source {
    pub instruction: Instruction,
    pub timing: Timing,
    /// [`Scheduled::still_pending`].
    pub pending: Pending,
}

/// A compiled block.
#[derive(Debug, Default)]
pub(super) struct Compiled {
    pub ops: Vec<Op>,
    /// The instructions with their timings, for those operations that need them.
    pub code: Vec<Source>,
    /// Bytes of code that it was made from, at least those of one instruction.
    pub bytes: u32,
    pub repeat: Repeat,
}

/// Compiles the code at an address of instruction memory. No operations come out if the first instruction is one that the
/// plain interpreter must execute.
pub(super) fn compile(itcm: &[u8; ITCM_BYTES], start: u32, thumb: bool) -> Compiled {
    let step = if thumb { 2 } else { 4 };
    let mut code = Vec::new();
    let mut address = start;
    while code.len() < BLOCK_INSTRUCTIONS && address < ITCM_BYTES as u32 {
        let instruction = match thumb {
            true => decode_thumb::decode(load_half(itcm, address) as u16),
            false => decode_arm::decode(load_word(itcm, address)),
        };
        if !is_compilable(&instruction, code.last(), thumb) {
            break;
        }
        code.push(instruction);
        address += step;
        if instruction.condition == ALWAYS && instruction.operation.changes_pc() {
            break;
        }
    }
    if code.is_empty() {
        return Compiled { bytes: step, ..Compiled::default() };
    }
    let (scheduled, pending) = schedule(&code);
    let mut compiler = Compiler { start, thumb, step, scheduled: &scheduled, out: Compiled::default(), index: 0 };
    compiler.block(pending);
    let mut out = compiler.out;
    out.bytes = code.len() as u32 * step;
    let source = |entry: &Scheduled| {
        let (instruction, timing) = (entry.instruction, entry.timing);
        Source { instruction, timing, pending: entry.still_pending() }
    };
    out.code = scheduled.iter().map(source).collect();
    out.repeat = Repeat::of(&scheduled, start, step);
    out
}

/// Whether the compiler knows an instruction. Those it leaves to the plain interpreter are rare or unpredictable.
fn is_compilable(instruction: &Instruction, before: Option<&Instruction>, thumb: bool) -> bool {
    let any_pc = |registers: &[Register]| registers.contains(&15);
    match instruction.operation {
        Operation::DataProcessing { alu, rd, operand, rn, .. } => {
            let by_register = match operand {
                Operand::ShiftedRegister { rm, rs, .. } => any_pc(&[rd, rn, rm, rs]),
                _ => false,
            };
            let to_pc = rd == 15 && !alu.is_test();
            !(by_register || to_pc && matches!(alu, Alu::Adc | Alu::Sbc | Alu::Rsc))
        }
        Operation::AddressOfPc { .. } | Operation::LongBranchPrefix { .. } | Operation::Preload => true,
        Operation::Multiply { set_flags, accumulate, rd, rn, rs, rm } => {
            !any_pc(&[rd, rs, rm]) && !(accumulate && (rn == 15 || set_flags))
        }
        Operation::MultiplyLong { set_flags, high, low, rs, rm, .. } => {
            !set_flags && high != low && !any_pc(&[high, low, rs, rm])
        }
        Operation::MultiplyHalf { kind, rd, rn, rs, rm, .. } => {
            !(any_pc(&[rd, rn, rs, rm]) || kind == HalfMultiply::LongAccumulate && rd == rn)
        }
        Operation::Saturating { rd, rn, rm, .. } => !any_pc(&[rd, rn, rm]),
        Operation::CountLeadingZeros { rd, rm } => !any_pc(&[rd, rm]),
        Operation::Branch { .. } | Operation::BranchLinkExchange { .. } => true,
        Operation::ReadStatus { spsr, rd } => !spsr && rd != 15,
        // Those that take three cycles, so that nothing is late after them.
        Operation::WriteStatus { spsr, fields, .. } => !spsr && fields & 0b0111 != 0,
        Operation::BranchExchange { rm, .. } => rm != 15,
        Operation::LongBranchSuffix { .. } => {
            thumb && matches!(before, Some(Instruction { operation: Operation::LongBranchPrefix { .. }, .. }))
        }
        Operation::Load { width, rd, addressing, .. } => {
            !(rd == 15 && width != Width::Word) && is_compilable_address(addressing, rd, rd)
        }
        Operation::Store { rd, addressing, .. } => rd != 15 && is_compilable_address(addressing, rd, rd),
        Operation::LoadDouble { rd, addressing } | Operation::StoreDouble { rd, addressing } => {
            rd < 14 && is_compilable_address(addressing, rd, rd + 1)
        }
        Operation::Multiple(transfer) => is_compilable_multiple(transfer),
        _ => false,
    }
}

/// Write-back to a register that the access moves, or to PC, is left out.
fn is_compilable_address(addressing: Addressing, first: Register, second: Register) -> bool {
    let rn = addressing.rn;
    let index = match addressing.offset {
        Offset::Register { rm, shift, .. } => rm != 15 && shift == Shift::Lsl && !(addressing.write_back && rm == rn),
        Offset::Immediate(_) => true,
    };
    index && !(addressing.write_back && (rn == 15 || rn == first || rn == second))
}

fn is_compilable_multiple(transfer: Multiple) -> bool {
    let Multiple { load, rn, list, write_back, user, .. } = transfer;
    let base_moved = list >> rn & 1 != 0;
    let stores_pc = !load && list & 0x8000 != 0;
    list != 0 && !user && rn != 15 && !stores_pc && !(base_moved && write_back)
}

struct Compiler<'a> {
    start: u32,
    thumb: bool,
    step: u32,
    scheduled: &'a [Scheduled],
    out: Compiled,
    index: usize,
}

impl Compiler<'_> {
    fn block(&mut self, pending_after: Pending) {
        let scheduled = self.scheduled;
        for (index, entry) in scheduled.iter().enumerate() {
            self.index = index;
            if entry.dynamic && (index == 0 || !scheduled[index - 1].dynamic) {
                self.late(entry.pending);
            }
            self.instruction(entry);
        }
        let last = scheduled[scheduled.len() - 1];
        if last.instruction.condition == ALWAYS && last.instruction.operation.changes_pc() {
            return;
        }
        if !last.dynamic {
            self.late(pending_after);
        }
        let target = self.start + scheduled.len() as u32 * self.step;
        self.push(Op { target, ..Op::new(Kind::End) });
    }

    /// Tells the scoreboard of late results. What it holds from accesses on the bus may have been overwritten since.
    fn late(&mut self, pending: Pending) {
        self.push(Op::new(Kind::Settle));
        for (set, shift, rs) in pending.late() {
            if set != 0 {
                self.push(Op { imm: u32::from(set), shift, rs, ..Op::new(Kind::Late) });
            }
        }
    }

    /// Address of the present instruction.
    fn address(&self) -> u32 {
        self.start + self.index as u32 * self.step
    }

    /// What the present instruction reads as PC.
    fn pc_value(&self) -> u32 {
        self.address() + 2 * self.step
    }

    fn push(&mut self, op: Op) {
        let sensitive = u8::from(self.scheduled[self.index].wait_sensitive);
        self.out.ops.push(Op { place: (self.index as u8) << 1 | sensitive, ..op });
    }

    /// An operation that carries the instruction's cycles.
    fn push_main(&mut self, op: Op) {
        let Scheduled { timing, stall, .. } = self.scheduled[self.index];
        self.push(Op { cycles: timing.issue + stall, ..op });
    }

    fn instruction(&mut self, entry: &Scheduled) {
        let condition = usize::from(entry.instruction.condition);
        if let Operation::Branch { offset, link: false } = entry.instruction.operation {
            let kind = Kind::BRANCHES.get(condition).copied().unwrap_or(Kind::Branch);
            let target = self.address().wrapping_add(offset);
            return self.push_main(Op { target, ..Op::new(kind) });
        }
        let conditional = Kind::IFS.get(condition).copied();
        let position = self.out.ops.len();
        if let Some(kind) = conditional {
            self.push(Op { cycles: 1, ..Op::new(kind) });
        }
        if entry.dynamic {
            self.push(Op::new(Kind::Begin));
            self.operation(entry);
            self.push(Op::new(Kind::Complete));
        } else {
            self.operation(entry);
        }
        if conditional.is_some() {
            self.out.ops[position].imm = (self.out.ops.len() - position - 1) as u32;
        }
    }

    fn operation(&mut self, entry: &Scheduled) {
        let next = (self.address() + self.step) | u32::from(self.thumb);
        match entry.instruction.operation {
            Operation::DataProcessing { alu, set_flags, rd, rn, operand } => {
                self.data_processing(alu, set_flags, rd, rn, operand);
            }
            Operation::AddressOfPc { rd, offset } => {
                let imm = (self.pc_value() & !3) + offset;
                self.push_main(Op { rd, imm, ..Op::new(Kind::Mov) });
            }
            Operation::Multiply { .. } | Operation::MultiplyLong { .. } | Operation::MultiplyHalf { .. } => {
                self.multiply(entry.instruction.operation);
            }
            Operation::Saturating { double, subtract, rd, rn, rm } => {
                let imm = u32::from(double) << 1 | u32::from(subtract);
                self.push_main(Op { rd, rn, rm, imm, ..Op::new(Kind::Saturate) });
            }
            Operation::ReadStatus { rd, .. } => self.push_main(Op { rd, ..Op::new(Kind::ReadStatus) }),
            Operation::WriteStatus { fields, operand, .. } => {
                let (rm, shift, imm) = self.operand(operand, false);
                self.push(Op { rd: TEMPORARY, rm, shift, imm, ..Op::new(Kind::Mov) });
                let target = self.address() + self.step;
                let imm = u32::from(fields);
                self.push_main(Op { rm: TEMPORARY, imm, target, ..Op::new(Kind::WriteStatus) });
            }
            Operation::CountLeadingZeros { rd, rm } => self.push_main(Op { rd, rm, ..Op::new(Kind::Clz) }),
            Operation::Branch { offset, .. } => {
                let target = self.address().wrapping_add(offset);
                self.push_main(Op { imm: next, target, ..Op::new(Kind::BranchLink) });
            }
            Operation::BranchLinkExchange { offset } => {
                let target = self.address().wrapping_add(offset);
                self.push_main(Op { imm: next, target, ..Op::new(Kind::BranchLinkExchange) });
            }
            Operation::BranchExchange { rm, link } => {
                let kind = if link { Kind::BranchLinkExchangeRegister } else { Kind::BranchExchange };
                self.push_main(Op { rm, imm: next, ..Op::new(kind) });
            }
            Operation::LongBranchPrefix { offset } => {
                let imm = self.address().wrapping_add(offset);
                self.push_main(Op { rd: 14, imm, ..Op::new(Kind::Mov) });
            }
            Operation::LongBranchSuffix { offset, exchange } => self.long_branch_suffix(offset, exchange, next),
            Operation::Load { width, rd, addressing, .. } => self.load(width, rd, addressing),
            Operation::Store { width, rd, addressing, .. } => {
                let kinds = match width {
                    Width::Word => [Kind::Str, Kind::StrPre, Kind::StrPost],
                    Width::Byte | Width::SignedByte => [Kind::Strb, Kind::StrbPre, Kind::StrbPost],
                    Width::Half | Width::SignedHalf => [Kind::Strh, Kind::StrhPre, Kind::StrhPost],
                };
                self.single(kinds, rd, addressing);
            }
            Operation::LoadDouble { rd, addressing } => self.double(Kind::Ldrd, rd, addressing),
            Operation::StoreDouble { rd, addressing } => self.double(Kind::Strd, rd, addressing),
            Operation::Multiple(transfer) => self.multiple(transfer),
            _ => self.push_main(Op { rd: TEMPORARY, ..Op::new(Kind::Mov) }),
        }
    }

    /// A register to read, with PC brought to a place of its own.
    fn source(&mut self, register: Register) -> Register {
        if register != 15 {
            return register;
        }
        let imm = self.pc_value();
        self.push(Op { rd: PC_VALUE, imm, ..Op::new(Kind::Mov) });
        PC_VALUE
    }

    /// Brings an operand to the form of an [`Op`]: rm, shift, imm. `carry`: C must become the shifter's.
    fn operand(&mut self, operand: Operand, carry: bool) -> (Register, u8, u32) {
        match operand {
            Operand::Immediate { value, carry: rotated } => {
                if let Some(bit) = rotated.filter(|_| carry) {
                    self.push(Op { imm: u32::from(bit), ..Op::new(Kind::SetCarry) });
                }
                (ZERO, 0, value)
            }
            Operand::ShiftedImmediate { rm, shift: Shift::Lsl, amount } if amount == 0 || !carry => {
                (self.source(rm), amount, 0)
            }
            Operand::ShiftedImmediate { rm, shift, amount } => {
                let rm = self.source(rm);
                let kind = match shift {
                    _ if carry => Kind::ShiftEncodedCarry,
                    Shift::Lsr if amount != 0 => Kind::Lsr,
                    Shift::Asr if amount != 0 => Kind::Asr,
                    Shift::Ror if amount != 0 => Kind::Ror,
                    _ => Kind::ShiftEncoded,
                };
                self.push(Op { rd: TEMPORARY, rm, rn: shift as u8, imm: u32::from(amount), ..Op::new(kind) });
                (TEMPORARY, 0, 0)
            }
            Operand::ShiftedRegister { rm, shift, rs } => {
                let kind = if carry { Kind::ShiftByRegisterCarry } else { Kind::ShiftByRegister };
                self.push(Op { rd: TEMPORARY, rm, rn: shift as u8, rs, ..Op::new(kind) });
                (TEMPORARY, 0, 0)
            }
        }
    }

    fn data_processing(&mut self, alu: Alu, set_flags: bool, rd: Register, rn: Register, operand: Operand) {
        if let (Alu::Mov, Operand::ShiftedImmediate { rm, shift, amount: amount @ 1.. }) = (alu, operand)
            && rm != 15
            && rd != 15
            && (set_flags || shift != Shift::Lsl)
            && !(set_flags && shift == Shift::Ror)
        {
            let kind = match (shift, set_flags) {
                (Shift::Lsl, _) => Kind::LslFlags,
                (Shift::Lsr, true) => Kind::LsrFlags,
                (Shift::Asr, true) => Kind::AsrFlags,
                (Shift::Lsr, false) => Kind::Lsr,
                (Shift::Asr, false) => Kind::Asr,
                (Shift::Ror, _) => Kind::Ror,
            };
            return self.push_main(Op { rd, rm, imm: u32::from(amount), ..Op::new(kind) });
        }
        let to_pc = rd == 15 && !alu.is_test();
        let kind = data_kind(alu, set_flags && !to_pc);
        let logical =
            matches!(alu, Alu::And | Alu::Eor | Alu::Tst | Alu::Teq | Alu::Orr | Alu::Mov | Alu::Bic | Alu::Mvn);
        let (rm, shift, imm) = self.operand(operand, set_flags && logical && !to_pc);
        let rn = if alu.is_move() { ZERO } else { self.source(rn) };
        let op = Op { rd, rn, rm, shift, imm, ..Op::new(kind) };
        if to_pc {
            self.push(Op { rd: TEMPORARY, ..op });
            let kind = if set_flags { Kind::ReturnFromException } else { Kind::BranchRegister };
            self.push_main(Op { rm: TEMPORARY, ..Op::new(kind) });
        } else {
            self.push_main(op);
        }
    }

    fn multiply(&mut self, operation: Operation) {
        match operation {
            Operation::Multiply { accumulate, set_flags, rd, rn, rs, rm } => {
                let kind = match (accumulate, set_flags) {
                    (true, _) => Kind::Mla,
                    (false, false) => Kind::Mul,
                    (false, true) => Kind::Muls,
                };
                self.push_main(Op { rd, rn, rs, rm, ..Op::new(kind) });
            }
            Operation::MultiplyLong { signed, accumulate, high, low, rs, rm, .. } => {
                let kind = match (signed, accumulate) {
                    (false, false) => Kind::Umull,
                    (false, true) => Kind::Umlal,
                    (true, false) => Kind::Smull,
                    (true, true) => Kind::Smlal,
                };
                self.push_main(Op { rd: high, rn: low, rs, rm, ..Op::new(kind) });
            }
            Operation::MultiplyHalf { kind, x_top, y_top, rd, rn, rs, rm } => {
                let kind = match kind {
                    HalfMultiply::Accumulate => Kind::Smla,
                    HalfMultiply::WordAccumulate => Kind::Smlaw,
                    HalfMultiply::Word => Kind::Smulw,
                    HalfMultiply::LongAccumulate => Kind::Smlal16,
                    HalfMultiply::Plain => Kind::Smul,
                };
                let (shift, imm) = (if x_top { 0 } else { 16 }, if y_top { 0 } else { 16 });
                self.push_main(Op { rd, rn, rs, rm, shift, imm, ..Op::new(kind) });
            }
            _ => {}
        }
    }

    /// The target follows from the first half, which [`is_compilable`] found in front.
    fn long_branch_suffix(&mut self, offset: u32, exchange: bool, next: u32) {
        let prefix = match self.scheduled[self.index - 1].instruction.operation {
            Operation::LongBranchPrefix { offset } => offset,
            _ => 0,
        };
        let target = (self.address() - self.step).wrapping_add(prefix).wrapping_add(offset);
        let (kind, target) =
            if exchange { (Kind::BranchLinkExchange, target & !3) } else { (Kind::BranchLink, target) };
        self.push_main(Op { imm: next, target, ..Op::new(kind) });
    }

    /// An address as base, index register, its shift and a constant.
    fn address_parts(&mut self, addressing: Addressing) -> (Register, Register, u8, u32) {
        let rn = if addressing.rn == 15 {
            let imm = self.pc_value() & !3;
            self.push(Op { rd: PC_VALUE, imm, ..Op::new(Kind::Mov) });
            PC_VALUE
        } else {
            addressing.rn
        };
        match addressing.offset {
            Offset::Immediate(imm) => (rn, ZERO, 0, imm),
            Offset::Register { rm, amount, subtract: false, .. } => (rn, rm, amount, 0),
            Offset::Register { rm, amount, .. } => {
                self.push(Op { rd: TEMPORARY, rm, shift: amount, ..Op::new(Kind::Sub) });
                (rn, TEMPORARY, 0, 0)
            }
        }
    }

    fn single(&mut self, kinds: [Kind; 3], rd: Register, addressing: Addressing) {
        let (rn, rm, shift, imm) = self.address_parts(addressing);
        let kind = match (addressing.pre_index, addressing.write_back) {
            (true, false) => kinds[0],
            (true, true) => kinds[1],
            (false, _) => kinds[2],
        };
        self.push_main(Op { rd, rn, rm, shift, imm, ..Op::new(kind) });
    }

    fn load(&mut self, width: Width, rd: Register, addressing: Addressing) {
        if let (Width::Word, 15, Offset::Immediate(offset)) = (width, addressing.rn, addressing.offset) {
            let address = (self.pc_value() & !3).wrapping_add(offset);
            let sensitive = self.scheduled[self.index].wait_sensitive;
            if rd != 15 && address & 3 == 0 && address < ITCM_BYTES as u32 && !sensitive {
                return self.push_main(Op { rd, imm: address, ..Op::new(Kind::Literal) });
            }
        }
        let kinds = match width {
            Width::Word => [Kind::Ldr, Kind::LdrPre, Kind::LdrPost],
            Width::Byte => [Kind::Ldrb, Kind::LdrbPre, Kind::LdrbPost],
            Width::Half => [Kind::Ldrh, Kind::LdrhPre, Kind::LdrhPost],
            Width::SignedByte => [Kind::Ldrsb, Kind::LdrsbPre, Kind::LdrsbPost],
            Width::SignedHalf => [Kind::Ldrsh, Kind::LdrshPre, Kind::LdrshPost],
        };
        self.single(kinds, rd, addressing);
        if rd == LOADED_PC {
            self.push(Op { rm: LOADED_PC, ..Op::new(Kind::BranchLoaded) });
        }
    }

    fn double(&mut self, kind: Kind, rd: Register, addressing: Addressing) {
        let (rn, rm, shift, imm) = self.address_parts(addressing);
        let indexed = Op { rn, rm, shift, imm, ..Op::new(kind) };
        let access = if addressing.pre_index { indexed } else { Op { rn, ..Op::new(kind) } };
        self.push_main(Op { rd, ..access });
        if addressing.write_back {
            self.push(Op { kind: Kind::Add, rd: rn, ..indexed });
        }
    }

    fn multiple(&mut self, transfer: Multiple) {
        let (first, after) = transfer.span(0);
        let words = |bytes: u32| (bytes as i32 / 4) as i8 as u8;
        let numbers = super::timing::registers(transfer.list)
            .enumerate()
            .fold(0u64, |numbers, (place, register)| numbers | (register as u64) << (4 * place));
        self.push_main(Op {
            rd: if transfer.write_back { words(after) } else { 0 },
            rn: transfer.rn,
            rm: transfer.list.count_ones() as u8,
            rs: words(first),
            imm: numbers as u32,
            target: (numbers >> 32) as u32,
            ..Op::new(if transfer.load { Kind::Ldm } else { Kind::Stm })
        });
        if transfer.load && transfer.list >> LOADED_PC & 1 != 0 {
            self.push(Op { rm: LOADED_PC, ..Op::new(Kind::BranchLoaded) });
        }
    }
}

fn data_kind(alu: Alu, set_flags: bool) -> Kind {
    match (alu, set_flags) {
        (Alu::And, false) => Kind::And,
        (Alu::Eor, false) => Kind::Eor,
        (Alu::Sub, false) => Kind::Sub,
        (Alu::Rsb, false) => Kind::Rsb,
        (Alu::Add, false) => Kind::Add,
        (Alu::Adc, false) => Kind::Adc,
        (Alu::Sbc, false) => Kind::Sbc,
        (Alu::Rsc, false) => Kind::Rsc,
        (Alu::Orr, false) => Kind::Orr,
        (Alu::Mov, false) => Kind::Mov,
        (Alu::Bic, false) => Kind::Bic,
        (Alu::Mvn, false) => Kind::Mvn,
        (Alu::And, true) => Kind::Ands,
        (Alu::Eor, true) => Kind::Eors,
        (Alu::Sub, true) => Kind::Subs,
        (Alu::Rsb, true) => Kind::Rsbs,
        (Alu::Add, true) => Kind::Adds,
        (Alu::Adc, true) => Kind::Adcs,
        (Alu::Sbc, true) => Kind::Sbcs,
        (Alu::Rsc, true) => Kind::Rscs,
        (Alu::Orr, true) => Kind::Orrs,
        (Alu::Mov, true) => Kind::Movs,
        (Alu::Bic, true) => Kind::Bics,
        (Alu::Mvn, true) => Kind::Mvns,
        (Alu::Tst, _) => Kind::Tst,
        (Alu::Teq, _) => Kind::Teq,
        (Alu::Cmp, _) => Kind::Cmp,
        (Alu::Cmn, _) => Kind::Cmn,
    }
}
