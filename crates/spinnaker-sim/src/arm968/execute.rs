//! The plain interpreter: one instruction at a time, complete and exact. Compiled blocks (`block`) leave to it whatever
//! is rare.

use super::arithmetic::{add_with_carry, half, saturate, shift_immediate, shift_register};
use super::bus::{Bus, Size};
use super::instruction::{Addressing, Alu, HalfMultiply, Instruction, Multiple, Offset, Operand, Operation, Width};
use super::state::{self, CONTROL_ALIGNMENT, DTCM_START, Exception, State, TCM_END};
use super::timing::{DATA_ABORT_CYCLES, EXCEPTION_CYCLES, FAILED_CYCLES, ITCM_DATA_CYCLES, Timing, registers};
use super::{decode_arm, decode_thumb};

/// A data access that aborts.
#[derive(Debug, Clone, Copy)]
pub(super) struct DataAbort;

/// One instruction on its way through the core.
pub(super) struct Step<'a, B> {
    state: &'a mut State,
    bus: &'a mut B,
    /// The instruction's own address.
    address: u32,
    /// When it starts to execute.
    start: u64,
    /// Waits of its accesses so far.
    wait: u64,
    used_bus: bool,
    used_itcm: bool,
    /// The access has User rights in any mode.
    user: bool,
}

/// Executes the instruction at the program counter, whose operands it waits for; the program counter is then that of
/// the next one. Gives whether the bus was used.
pub(super) fn step<B: Bus>(state: &mut State, bus: &mut B) -> bool {
    let address = state.pc;
    let mut step =
        Step { start: state.cycles, state, bus, address, wait: 0, used_bus: false, used_itcm: false, user: false };
    let Some(instruction) = step.fetch() else {
        step.state.cycles += EXCEPTION_CYCLES;
        step.state.enter_exception(Exception::PrefetchAbort, address.wrapping_add(4));
        return step.used_bus;
    };
    step.state.instructions += 1;
    step.state.pc = address.wrapping_add(if step.state.thumb { 2 } else { 4 });
    if !step.state.passes(instruction.condition) {
        step.state.cycles += FAILED_CYCLES;
        return step.used_bus;
    }
    let timing = Timing::of(&instruction);
    step.start = step.state.scoreboard.start(step.state.cycles, timing.sources, timing.accumulators);
    step.run(&instruction, &timing);
    step.used_bus
}

/// Executes the instruction at the program counter, whose condition passed and which takes `cycles` with the wait for its
/// operands and without those of its accesses. Gives whether the bus was used.
pub(super) fn step_scheduled<B: Bus>(
    state: &mut State,
    bus: &mut B,
    instruction: &Instruction,
    timing: &Timing,
    cycles: u8,
) -> bool {
    let address = state.pc;
    state.cycles += u64::from(cycles.saturating_sub(timing.issue));
    state.pc = address.wrapping_add(if state.thumb { 2 } else { 4 });
    let mut step =
        Step { start: state.cycles, state, bus, address, wait: 0, used_bus: false, used_itcm: false, user: false };
    step.run(instruction, timing);
    step.used_bus
}

/// Decodes the instruction in a word of memory.
pub(super) fn decode(word: u32, address: u32, thumb: bool) -> Instruction {
    if thumb { decode_thumb::decode((word >> ((address & 2) * 8)) as u16) } else { decode_arm::decode(word) }
}

impl<B: Bus> Step<'_, B> {
    /// The instruction, or nothing where the bus has none. Instruction memory costs no cycles; data memory cannot be
    /// executed.
    fn fetch(&mut self) -> Option<Instruction> {
        let word = if self.address < DTCM_START {
            self.state.itcm_word(self.address)
        } else if self.address < TCM_END {
            return None;
        } else {
            self.used_bus = true;
            let access = self.bus.fetch(self.address & !3, self.start).ok()?;
            self.state.cycles += u64::from(access.wait);
            self.start = self.state.cycles;
            access.value
        };
        Some(decode(word, self.address, self.state.thumb))
    }

    /// Executes an instruction whose condition passes and whose operands are ready, and charges its cycles.
    fn run(&mut self, instruction: &Instruction, timing: &Timing) {
        self.state.r[15] = self.address.wrapping_add(if self.state.thumb { 4 } else { 8 });
        let result = self.execute(&instruction.operation);
        if self.used_itcm {
            self.wait += u64::from(ITCM_DATA_CYCLES);
        }
        match result {
            Ok(()) => {
                self.state.cycles = self.start + u64::from(timing.issue) + self.wait;
                self.state.scoreboard.complete(self.state.cycles, timing);
            }
            Err(DataAbort) => {
                self.state.cycles = self.start + DATA_ABORT_CYCLES + self.wait;
                self.state.enter_exception(Exception::DataAbort, self.address.wrapping_add(8));
            }
        }
    }

    fn execute(&mut self, operation: &Operation) -> Result<(), DataAbort> {
        match *operation {
            Operation::DataProcessing { alu, set_flags, rd, rn, operand } => {
                self.data_processing(alu, set_flags, rd, rn, operand);
            }
            Operation::AddressOfPc { rd, offset } => {
                self.state.r[usize::from(rd)] = (self.state.r[15] & !3).wrapping_add(offset);
            }
            Operation::Multiply { .. }
            | Operation::MultiplyLong { .. }
            | Operation::MultiplyHalf { .. }
            | Operation::Saturating { .. } => self.multiply(operation),
            Operation::CountLeadingZeros { rd, rm } => self.set(rd, self.get(rm).leading_zeros()),
            Operation::Branch { .. }
            | Operation::BranchExchange { .. }
            | Operation::BranchLinkExchange { .. }
            | Operation::LongBranchPrefix { .. }
            | Operation::LongBranchSuffix { .. } => self.branch(operation),
            Operation::Load { width, rd, addressing, user } => {
                self.user = user;
                self.load_single(width, rd, addressing)?;
            }
            Operation::Store { width, rd, addressing, user } => {
                self.user = user;
                self.store_single(width, rd, addressing)?;
            }
            Operation::LoadDouble { rd, addressing } => self.load_double(rd, addressing)?,
            Operation::StoreDouble { rd, addressing } => self.store_double(rd, addressing)?,
            Operation::Multiple(transfer) if transfer.load => self.load_multiple(transfer)?,
            Operation::Multiple(transfer) => self.store_multiple(transfer)?,
            Operation::Swap { byte, rd, rn, rm } => self.swap(byte, rd, rn, rm)?,
            Operation::ReadStatus { spsr, rd } => {
                let status = if spsr { self.state.spsr() } else { self.state.cpsr() };
                self.set(rd, status);
            }
            Operation::WriteStatus { spsr, fields, operand } => self.write_status(spsr, fields, operand),
            Operation::ReadCoprocessor { coprocessor, rd, crn, crm, opcode2 } => {
                self.read_coprocessor(coprocessor, rd, crn, crm, opcode2);
            }
            Operation::WriteCoprocessor { coprocessor, rd, crn, crm, opcode2 } => {
                let value = self.get(rd);
                if !self.state.privileged() {
                    self.undefined();
                } else if coprocessor == 15 {
                    self.state.write_cp15(crn, crm, opcode2, value);
                }
            }
            Operation::Preload => {}
            Operation::SoftwareInterrupt => {
                self.state.enter_exception(Exception::SoftwareInterrupt, self.state.pc);
            }
            Operation::Breakpoint => {
                self.state.enter_exception(Exception::PrefetchAbort, self.address.wrapping_add(4));
            }
            Operation::Undefined => self.undefined(),
        }
        Ok(())
    }

    fn undefined(&mut self) {
        self.state.enter_exception(Exception::Undefined, self.state.pc);
    }

    fn get(&self, register: u8) -> u32 {
        self.state.r[usize::from(register & 15)]
    }

    /// Sets a register; writes to PC outside of branches (unpredictable) have no effect.
    fn set(&mut self, register: u8, value: u32) {
        self.state.r[usize::from(register & 15)] = value;
    }

    fn operand(&self, operand: Operand) -> (u32, bool) {
        let carry = self.state.c;
        match operand {
            Operand::Immediate { value, carry: rotated } => (value, rotated.unwrap_or(carry)),
            Operand::ShiftedImmediate { rm, shift, amount } => shift_immediate(shift, self.get(rm), amount, carry),
            Operand::ShiftedRegister { rm, shift, rs } => {
                shift_register(shift, self.get(rm), self.get(rs) as u8, carry)
            }
        }
    }

    fn data_processing(&mut self, alu: Alu, set_flags: bool, rd: u8, rn: u8, operand: Operand) {
        if matches!(operand, Operand::ShiftedRegister { .. }) {
            self.state.r[15] = self.state.r[15].wrapping_add(4);
        }
        let (right, shifter_carry) = self.operand(operand);
        let (left, carry) = (self.get(rn), self.state.c);
        let logical = |result| (result, shifter_carry, self.state.v);
        let (result, c, v) = match alu {
            Alu::And | Alu::Tst => logical(left & right),
            Alu::Eor | Alu::Teq => logical(left ^ right),
            Alu::Sub | Alu::Cmp => add_with_carry(left, !right, true),
            Alu::Rsb => add_with_carry(right, !left, true),
            Alu::Add | Alu::Cmn => add_with_carry(left, right, false),
            Alu::Adc => add_with_carry(left, right, carry),
            Alu::Sbc => add_with_carry(left, !right, carry),
            Alu::Rsc => add_with_carry(right, !left, carry),
            Alu::Orr => logical(left | right),
            Alu::Mov => logical(right),
            Alu::Bic => logical(left & !right),
            Alu::Mvn => logical(!right),
        };
        if rd == 15 && !alu.is_test() {
            if set_flags {
                self.state.return_from_exception(result);
            } else {
                self.state.branch(result);
            }
            return;
        }
        if set_flags {
            self.state.set_nz(result);
            self.state.c = c;
            self.state.v = v;
        }
        if !alu.is_test() {
            self.set(rd, result);
        }
    }

    fn multiply(&mut self, operation: &Operation) {
        match *operation {
            Operation::Multiply { accumulate, set_flags, rd, rn, rs, rm } => {
                let addend = if accumulate { self.get(rn) } else { 0 };
                let result = self.get(rm).wrapping_mul(self.get(rs)).wrapping_add(addend);
                self.set(rd, result);
                if set_flags {
                    self.state.set_nz(result);
                }
            }
            Operation::MultiplyLong { signed, accumulate, set_flags, high, low, rs, rm } => {
                let (left, right) = (self.get(rm), self.get(rs));
                let product = if signed {
                    (i64::from(left as i32) * i64::from(right as i32)) as u64
                } else {
                    u64::from(left) * u64::from(right)
                };
                let addend = if accumulate { self.pair(high, low) } else { 0 };
                let result = product.wrapping_add(addend);
                self.set_pair(high, low, result);
                if set_flags {
                    self.state.set_nz_long(result);
                }
            }
            Operation::MultiplyHalf { kind, x_top, y_top, rd, rn, rs, rm } => {
                self.half_multiply(kind, x_top, y_top, [rd, rn, rs, rm]);
            }
            Operation::Saturating { double, subtract, rd, rn, rm } => {
                let (left, mut right) = (i64::from(self.get(rm) as i32), i64::from(self.get(rn) as i32));
                if double {
                    let (doubled, saturated) = saturate(2 * right);
                    right = i64::from(doubled as i32);
                    self.state.q |= saturated;
                }
                let (result, saturated) = saturate(if subtract { left - right } else { left + right });
                self.state.q |= saturated;
                self.set(rd, result);
            }
            _ => {}
        }
    }

    fn pair(&self, high: u8, low: u8) -> u64 {
        u64::from(self.get(high)) << 32 | u64::from(self.get(low))
    }

    fn set_pair(&mut self, high: u8, low: u8, value: u64) {
        self.set(low, value as u32);
        self.set(high, (value >> 32) as u32);
    }

    fn half_multiply(&mut self, kind: HalfMultiply, x_top: bool, y_top: bool, [rd, rn, rs, rm]: [u8; 4]) {
        let (multiplicand, right) = (self.get(rm), half(self.get(rs), y_top));
        let product = match kind {
            HalfMultiply::Word | HalfMultiply::WordAccumulate => (i64::from(multiplicand as i32) * right) >> 16,
            _ => half(multiplicand, x_top) * right,
        };
        match kind {
            HalfMultiply::Plain | HalfMultiply::Word => self.set(rd, product as u32),
            HalfMultiply::Accumulate | HalfMultiply::WordAccumulate => {
                let sum = product + i64::from(self.get(rn) as i32);
                self.state.q |= sum != i64::from(sum as i32);
                self.set(rd, sum as u32);
            }
            HalfMultiply::LongAccumulate => {
                let sum = self.pair(rd, rn).wrapping_add(product as u64);
                self.set_pair(rd, rn, sum);
            }
        }
    }

    fn branch(&mut self, operation: &Operation) {
        let next = self.state.pc | u32::from(self.state.thumb);
        match *operation {
            Operation::Branch { offset, link } => {
                if link {
                    self.set(14, next);
                }
                self.state.branch(self.address.wrapping_add(offset));
            }
            Operation::BranchExchange { rm, link } => {
                let target = self.get(rm);
                if link {
                    self.set(14, next);
                }
                self.state.branch_exchange(target);
            }
            Operation::BranchLinkExchange { offset } => {
                self.set(14, next);
                self.state.branch_exchange(self.address.wrapping_add(offset) | 1);
            }
            Operation::LongBranchPrefix { offset } => self.set(14, self.address.wrapping_add(offset)),
            Operation::LongBranchSuffix { offset, exchange } => {
                let target = self.get(14).wrapping_add(offset);
                self.set(14, next);
                self.state.branch_exchange(if exchange { target & !3 } else { target | 1 });
            }
            _ => {}
        }
    }

    /// The address of the access and the base afterwards. In Thumb the PC as base is aligned.
    fn address(&self, addressing: Addressing) -> (u32, u32) {
        let mut base = self.get(addressing.rn);
        if addressing.rn == 15 && self.state.thumb {
            base &= !3;
        }
        let indexed = match addressing.offset {
            Offset::Immediate(offset) => base.wrapping_add(offset),
            Offset::Register { rm, shift, amount, subtract } => {
                let (offset, _) = shift_immediate(shift, self.get(rm), amount, self.state.c);
                if subtract { base.wrapping_sub(offset) } else { base.wrapping_add(offset) }
            }
        };
        (if addressing.pre_index { indexed } else { base }, indexed)
    }

    fn write_back(&mut self, addressing: Addressing, indexed: u32) {
        if addressing.write_back && addressing.rn != 15 {
            self.set(addressing.rn, indexed);
        }
    }

    fn load_single(&mut self, width: Width, rd: u8, addressing: Addressing) -> Result<(), DataAbort> {
        let (address, indexed) = self.address(addressing);
        let value = match width {
            Width::Word => self.read(address, Size::Word, false)?.rotate_right((address & 3) * 8),
            Width::Byte => self.read(address, Size::Byte, false)?,
            Width::Half => self.read(address, Size::Half, false)?,
            Width::SignedByte => self.read(address, Size::Byte, false)? as i8 as u32,
            Width::SignedHalf => self.read(address, Size::Half, false)? as i16 as u32,
        };
        self.write_back(addressing, indexed);
        if rd == 15 {
            self.state.branch_loaded(value);
        } else {
            self.set(rd, value);
        }
        Ok(())
    }

    /// What a store of a register puts out: PC reads as the instruction's address + 12.
    fn stored(&self, register: usize) -> u32 {
        let ahead = if register == 15 { 4 } else { 0 };
        self.state.r[register].wrapping_add(ahead)
    }

    fn store_single(&mut self, width: Width, rd: u8, addressing: Addressing) -> Result<(), DataAbort> {
        let (address, indexed) = self.address(addressing);
        self.write(address, width.size(), self.stored(usize::from(rd)), false)?;
        self.write_back(addressing, indexed);
        Ok(())
    }

    fn load_double(&mut self, rd: u8, addressing: Addressing) -> Result<(), DataAbort> {
        let (address, indexed) = self.address(addressing);
        let first = self.read(address, Size::Word, false)?;
        let second = self.read(address.wrapping_add(4), Size::Word, true)?;
        self.write_back(addressing, indexed);
        self.set(rd, first);
        self.set(rd + 1, second);
        Ok(())
    }

    fn store_double(&mut self, rd: u8, addressing: Addressing) -> Result<(), DataAbort> {
        let (address, indexed) = self.address(addressing);
        let (first, second) = (self.stored(usize::from(rd)), self.stored(usize::from(rd + 1)));
        self.write(address, Size::Word, first, false)?;
        self.write(address.wrapping_add(4), Size::Word, second, true)?;
        self.write_back(addressing, indexed);
        Ok(())
    }

    fn load_multiple(&mut self, transfer: Multiple) -> Result<(), DataAbort> {
        let base = self.get(transfer.rn);
        let (mut address, after) = transfer.span(base);
        let exception_return = transfer.user && transfer.list & 0x8000 != 0;
        if transfer.write_back && transfer.rn != 15 {
            self.set(transfer.rn, after);
        }
        let mut target = None;
        for (index, register) in registers(transfer.list).enumerate() {
            let value = match self.read(address, Size::Word, index > 0) {
                Ok(value) => value,
                Err(abort) => {
                    self.set(transfer.rn, base);
                    return Err(abort);
                }
            };
            address = address.wrapping_add(4);
            match register {
                15 => target = Some(value),
                _ if transfer.user && !exception_return => self.state.set_user_register(register, value),
                _ => self.state.r[register] = value,
            }
        }
        match target {
            Some(target) if exception_return => self.state.return_from_exception(target),
            Some(target) => self.state.branch_loaded(target),
            None => {}
        }
        Ok(())
    }

    /// With the base in the list and write-back, the old base is stored if it is the first register, else the new one.
    fn store_multiple(&mut self, transfer: Multiple) -> Result<(), DataAbort> {
        let base = self.get(transfer.rn);
        let (mut address, after) = transfer.span(base);
        for (index, register) in registers(transfer.list).enumerate() {
            let value = match register {
                _ if register == usize::from(transfer.rn) && transfer.write_back && index > 0 => after,
                _ if transfer.user && register != 15 => self.state.user_register(register),
                _ => self.stored(register),
            };
            self.write(address, Size::Word, value, index > 0)?;
            address = address.wrapping_add(4);
        }
        if transfer.write_back && transfer.rn != 15 {
            self.set(transfer.rn, after);
        }
        Ok(())
    }

    fn swap(&mut self, byte: bool, rd: u8, rn: u8, rm: u8) -> Result<(), DataAbort> {
        let (address, stored) = (self.get(rn), self.get(rm));
        let size = if byte { Size::Byte } else { Size::Word };
        let loaded = self.read(address, size, false)?;
        self.write(address, size, stored, false)?;
        self.set(rd, if byte { loaded } else { loaded.rotate_right((address & 3) * 8) });
        Ok(())
    }

    fn write_status(&mut self, spsr: bool, fields: u8, operand: Operand) {
        let (value, _) = self.operand(operand);
        if !spsr {
            self.state.write_cpsr(fields, value);
            return;
        }
        let bytes = [0xff, 0xff00, 0x00ff_0000, 0xff00_0000u32];
        let mask = (0..4).filter(|field| fields >> field & 1 != 0).fold(0, |mask, field| mask | bytes[field]);
        let merged = self.state.spsr() & !mask | value & mask;
        self.state.set_spsr(merged);
    }

    /// With PC as destination, the top four bits go to the flags. Coprocessor 14 has no debugger behind it and reads
    /// as zero.
    fn read_coprocessor(&mut self, coprocessor: u8, rd: u8, crn: u8, crm: u8, opcode2: u8) {
        if !self.state.privileged() {
            return self.undefined();
        }
        let value = if coprocessor == 15 { self.state.read_cp15(crn, crm, opcode2) } else { 0 };
        if rd == 15 {
            let q = u32::from(self.state.q) << 27;
            self.state.set_flags(value & 0xf000_0000 | q);
        } else {
            self.set(rd, value);
        }
    }

    /// The address that an access goes to: misaligned ones abort or are aligned down, as control bit A says.
    fn aligned(&self, address: u32, size: Size) -> Result<u32, DataAbort> {
        let low = address & (size.bytes() - 1);
        if low != 0 && self.state.control & CONTROL_ALIGNMENT != 0 {
            return Err(DataAbort);
        }
        Ok(address - low)
    }

    fn read(&mut self, address: u32, size: Size, next: bool) -> Result<u32, DataAbort> {
        let address = self.aligned(address, size)?;
        if address < DTCM_START {
            self.used_itcm = true;
            return Ok(load(&self.state.itcm, address, size));
        }
        if address < TCM_END {
            return Ok(load(&self.state.dtcm, address, size));
        }
        self.used_bus = true;
        if (self.user || !self.state.privileged()) && self.bus.privileged_only(address) {
            return Err(DataAbort);
        }
        let at = self.start + self.wait;
        let access = if next { self.bus.read_next(address, at) } else { self.bus.read(address, size, at) };
        self.state.last_read = (address, size, at);
        self.state.bus_reads += 1;
        let access = access.map_err(|_| DataAbort)?;
        self.wait += u64::from(access.wait);
        Ok(access.value)
    }

    fn write(&mut self, address: u32, size: Size, value: u32, next: bool) -> Result<(), DataAbort> {
        let address = self.aligned(address, size)?;
        if address < DTCM_START {
            self.used_itcm = true;
            self.state.note_code_write(address);
            store(&mut self.state.itcm, address, size, value);
            return Ok(());
        }
        if address < TCM_END {
            store(&mut self.state.dtcm, address, size, value);
            return Ok(());
        }
        self.used_bus = true;
        if (self.user || !self.state.privileged()) && self.bus.privileged_only(address) {
            return Err(DataAbort);
        }
        let at = self.start + self.wait;
        let wait =
            if next { self.bus.write_next(address, value, at) } else { self.bus.write(address, size, value, at) };
        self.wait += u64::from(wait.map_err(|_| DataAbort)?);
        Ok(())
    }
}

/// Reads from a memory.
pub(super) fn load<const N: usize>(memory: &[u8; N], address: u32, size: Size) -> u32 {
    match size {
        Size::Byte => state::load_byte(memory, address),
        Size::Half => state::load_half(memory, address),
        Size::Word => state::load_word(memory, address),
    }
}

/// Writes to a memory.
pub(super) fn store<const N: usize>(memory: &mut [u8; N], address: u32, size: Size, value: u32) {
    match size {
        Size::Byte => state::store_byte(memory, address, value),
        Size::Half => state::store_half(memory, address, value),
        Size::Word => state::store_word(memory, address, value),
    }
}
