//! Recording a beat: what each instruction does to the values, while the plain interpreter executes it.

use std::collections::BTreeMap;

use super::lower::{Lowering, Output};
use super::values::{Id, Join, Value, Values};
use super::{Beat, Context};
use crate::arm968::bus::Bus;
use crate::arm968::execute::decode;
use crate::arm968::instruction::{
    ALWAYS, Addressing, Alu, Multiple, Offset, Operand, Operation, Register, Shift, Width,
};
use crate::arm968::state::{DTCM_BYTES, DTCM_START, Exception, ITCM_BYTES, Mode, PLACES, State, TCM_END, load_word};
use crate::arm968::timing::registers;

/// Most instructions of a beat.
const INSTRUCTIONS_MAX: u64 = 4000;
/// Place of the first flag: N, Z, C, V.
const FLAGS: usize = PLACES - 4;
/// Place of r13 of the first bank, of r8 of the other side of FIQ, and of the first SPSR.
const BANKS: usize = 15;
const HIGH: usize = BANKS + 12;
const SPSRS: usize = HIGH + 5;

/// Follows a core's instructions from one sleep to the next.
pub(in crate::arm968) struct Recorder {
    values: Values,
    places: [Id; PLACES],
    /// Words that were read or written, and which of them were written.
    memory: BTreeMap<u32, (Id, bool)>,
    at: Context,
    instructions: u64,
    /// Words of instruction memory that were read as data.
    literals: Vec<u32>,
    /// What the present instruction reads as PC.
    pc: u32,
}

impl Recorder {
    /// From where a core sleeps.
    pub fn new<B: Bus>(state: &State, bus: &B) -> Self {
        let mut values = Values::default();
        let places = std::array::from_fn(|place| values.place(place as u8, state.place(place as u8)));
        Self {
            values,
            places,
            memory: BTreeMap::new(),
            at: Context::of(state, bus),
            instructions: state.instructions,
            literals: Vec::new(),
            pc: 0,
        }
    }

    /// Follows the instruction that is executed next. Whether this may still be a beat.
    pub fn follow<B: Bus>(&mut self, state: &State, bus: &B) -> bool {
        let full = self.values.is_full() || state.instructions - self.instructions > INSTRUCTIONS_MAX;
        !full && self.instruction(state, bus).is_some()
    }

    /// Follows an interrupt that is taken next.
    pub fn interrupted(&mut self, state: &State, exception: Exception, return_address: u32) {
        let saved = self.status(state);
        self.set_mode(state.mode(), exception.mode());
        self.places[SPSRS + exception.mode().bank()] = saved;
        let return_address = self.constant(return_address);
        self.set(14, return_address);
    }

    /// Whether all values are what the core has.
    fn agrees<B: Bus>(&self, state: &State, bus: &B) -> bool {
        let places = (0..).zip(&self.places).all(|(place, &id)| self.values.actual(id) == state.place(place));
        let word = |address: u32| {
            if address < TCM_END { load_word(&state.dtcm, address) } else { bus.memory_word(address) }
        };
        places && self.memory.iter().all(|(&address, &(id, _))| self.values.actual(id) == word(address))
    }

    /// The beat, where the core sleeps again, with the words of instruction memory (offsets) that it read; if it is one. Lasts
    /// `cycles`.
    pub fn beat<B: Bus>(mut self, state: &State, bus: &B, cycles: u64) -> Option<(Beat, Vec<u32>)> {
        if !state.waiting || Context::of(state, bus) != self.at {
            return None;
        }
        if !self.agrees(state, bus) {
            debug_assert!(false, "what was followed is not what was executed, before {:#x}", state.pc);
            return None;
        }
        let before: [Id; PLACES] = std::array::from_fn(|place| self.values.place(place as u8, 0));
        let guards = self.values.guards.clone();
        let after = |input: Value| match input {
            Value::Place(place) => self.places[usize::from(place)],
            Value::Word(address) => self.memory[&address].0,
            _ => 0,
        };
        let mut lowering = Lowering::new(&self.values, after);
        // First what must be found as it was: it makes more values known, and is looked at quickly.
        let found = |id: Id| matches!(self.values.get(id), Value::Place(_) | Value::Word(_));
        for &(id, value) in guards.iter().filter(|guard| found(guard.0)) {
            lowering.guard(id, value)?;
        }
        for &(id, value) in guards.iter().filter(|guard| !found(guard.0)) {
            lowering.guard(id, value)?;
        }
        let written: Vec<(u32, Id)> = {
            let written = self.memory.iter().filter(|(_, (_, written))| *written);
            written.map(|(&address, &(id, _))| (address, id)).collect()
        };
        let (mut places, mut data, mut words) = (Vec::new(), Vec::new(), Vec::new());
        for place in (0..FLAGS).filter(|&place| self.places[place] != before[place]) {
            places.push((place as u8, lowering.output(self.places[place])?));
        }
        let mut flags = [Output::default(); 4];
        for (flag, &id) in flags.iter_mut().zip(&self.places[FLAGS..]) {
            *flag = lowering.output(id)?;
        }
        for &(address, id) in &written {
            let output = lowering.output(id)?;
            if address < TCM_END { data.push((address, output)) } else { words.push((address, output)) }
        }
        let turns = lowering.turns()?;
        let beat = Beat {
            at: self.at,
            turns,
            places: places.into(),
            flags,
            data: data.into(),
            words: words.into(),
            cycles,
            instructions: state.instructions - self.instructions,
        };
        Some((beat, self.literals))
    }

    fn constant(&mut self, value: u32) -> Id {
        self.values.constant(value)
    }

    fn get(&mut self, register: Register) -> Id {
        if register == 15 {
            return self.constant(self.pc);
        }
        let id = self.places[usize::from(register)];
        self.values.resolve(id)
    }

    fn set(&mut self, register: Register, id: Id) {
        if register < 15 {
            self.places[usize::from(register)] = id;
        }
    }

    /// A register that must have the value that it has.
    fn pin(&mut self, register: Register) -> u32 {
        let id = self.get(register);
        self.values.pin(id)
    }

    fn flag(&mut self, flag: usize) -> Id {
        let id = self.places[FLAGS + flag];
        self.values.resolve(id)
    }

    fn set_flag(&mut self, flag: usize, id: Id) {
        self.places[FLAGS + flag] = id;
    }

    fn set_nz(&mut self, result: Id) {
        let n = self.values.join_constant(Join::Lsr, result, 31);
        let z = self.values.join_constant(Join::IsZero, result, 0);
        self.set_flag(0, n);
        self.set_flag(1, z);
    }

    /// A condition must go as it goes now.
    fn condition(&mut self, condition: u8) {
        let mut pin = |flag: usize| {
            let id = self.flag(flag);
            self.values.pin(id) != 0
        };
        match condition {
            0 | 1 => _ = pin(1),
            2 | 3 => _ = pin(2),
            4 | 5 => _ = pin(0),
            6 | 7 => _ = pin(3),
            // HI and LS: C clear settles it. GT and LE: so does Z.
            8 | 9 => _ = pin(2) && pin(1),
            12 | 13 if pin(1) => {}
            10..=13 => _ = (pin(0), pin(3)),
            _ => {}
        }
    }

    /// Nothing for an instruction that is more than computing and memory.
    fn instruction<B: Bus>(&mut self, state: &State, bus: &B) -> Option<()> {
        let address = state.pc;
        if address >= ITCM_BYTES as u32 {
            return None;
        }
        let instruction = decode(load_word(&state.itcm, address), address, state.thumb);
        if instruction.condition != ALWAYS {
            self.condition(instruction.condition);
            if !state.passes(instruction.condition) {
                return Some(());
            }
        }
        self.pc = address.wrapping_add(if state.thumb { 4 } else { 8 });
        let next = address.wrapping_add(if state.thumb { 2 } else { 4 }) | u32::from(state.thumb);
        match instruction.operation {
            Operation::DataProcessing { alu, set_flags, rd, rn, operand } => {
                self.data_processing(state, alu, set_flags, rd, rn, operand)?;
            }
            Operation::AddressOfPc { rd, offset } => {
                let value = self.constant((self.pc & !3).wrapping_add(offset));
                self.set(rd, value);
            }
            Operation::Multiply { accumulate, set_flags, rd, rn, rs, rm } => {
                let (left, right) = (self.get(rm), self.get(rs));
                let mut result = self.values.join(Join::Mul, left, right);
                if accumulate {
                    let addend = self.get(rn);
                    result = self.values.join(Join::Add, result, addend);
                }
                self.set(rd, result);
                if set_flags {
                    self.set_nz(result);
                }
            }
            Operation::Branch { link, .. } => {
                if link {
                    let next = self.constant(next);
                    self.set(14, next);
                }
            }
            Operation::BranchLinkExchange { .. } => {
                let next = self.constant(next);
                self.set(14, next);
            }
            Operation::BranchExchange { rm, link } => {
                self.pin(rm);
                if link {
                    let next = self.constant(next);
                    self.set(14, next);
                }
            }
            Operation::LongBranchPrefix { offset } => {
                let value = self.constant(address.wrapping_add(offset));
                self.set(14, value);
            }
            Operation::LongBranchSuffix { .. } => {
                self.pin(14);
                let next = self.constant(next);
                self.set(14, next);
            }
            Operation::Load { width, rd, addressing, user: false } => self.load(state, bus, width, rd, addressing)?,
            Operation::Store { width, rd, addressing, user: false } => self.store(state, bus, width, rd, addressing)?,
            Operation::LoadDouble { rd, addressing } if rd < 14 => {
                let (address, indexed) = self.address(addressing)?;
                let words = [self.word(state, bus, address)?, self.word(state, bus, address.wrapping_add(4))?];
                self.write_back(addressing, indexed);
                self.set(rd, words[0]);
                self.set(rd + 1, words[1]);
            }
            Operation::StoreDouble { rd, addressing } if rd < 14 => {
                let (address, indexed) = self.address(addressing)?;
                let (first, second) = (self.get(rd), self.get(rd + 1));
                self.set_word(bus, address, first)?;
                self.set_word(bus, address.wrapping_add(4), second)?;
                self.write_back(addressing, indexed);
            }
            Operation::Multiple(transfer) => self.multiple(state, bus, transfer)?,
            Operation::ReadStatus { spsr: false, rd } if rd != 15 => {
                let status = self.status(state);
                self.set(rd, status);
            }
            Operation::WriteStatus { spsr: false, fields, operand } => {
                let status = self.operand(operand, false).0;
                self.write_status(state, fields, status)?;
            }
            Operation::Preload => {}
            // To sleep.
            Operation::WriteCoprocessor { coprocessor: 15, crn: 7, crm: 0, opcode2: 4, .. } => {}
            _ => return None,
        }
        Some(())
    }

    /// A second operand and the shifter's carry.
    fn operand(&mut self, operand: Operand, carry: bool) -> (Id, Id) {
        let before = self.flag(2);
        let (rm, shift, amount) = match operand {
            Operand::Immediate { value, carry: rotated } => {
                let carry = rotated.map_or(before, |bit| self.constant(u32::from(bit)));
                return (self.constant(value), carry);
            }
            Operand::ShiftedImmediate { rm, shift, amount } => (self.get(rm), shift, u32::from(amount)),
            Operand::ShiftedRegister { rm, shift, rs } => {
                let amount = self.pin(rs) & 0xFF;
                let rm = self.get(rm);
                if amount == 0 {
                    return (rm, before);
                }
                // Beyond the encodings of constants: left to the tables below, by what they mean.
                match shift {
                    Shift::Lsl | Shift::Lsr if amount >= 32 => {
                        let zero = self.constant(0);
                        let bit = if shift == Shift::Lsl { 0 } else { 31 };
                        let out = if amount == 32 { self.values.bit(rm, bit) } else { zero };
                        return (zero, out);
                    }
                    Shift::Asr if amount >= 32 => (rm, shift, 0),
                    Shift::Ror if amount & 31 == 0 => return (rm, self.values.bit(rm, 31)),
                    _ => (rm, shift, amount & 31),
                }
            }
        };
        match (shift, amount) {
            (Shift::Lsl, 0) => (rm, before),
            (Shift::Lsr, 0) => (self.constant(0), self.values.bit(rm, 31)),
            (Shift::Asr, 0) => (self.values.join_constant(Join::Asr, rm, 31), self.values.bit(rm, 31)),
            (Shift::Ror, 0) => {
                let (top, rest) =
                    (self.values.join_constant(Join::Lsl, before, 31), self.values.join_constant(Join::Lsr, rm, 1));
                (self.values.join(Join::Or, rest, top), self.values.bit(rm, 0))
            }
            _ => {
                let (join, out) = match shift {
                    Shift::Lsl => (Join::Lsl, 32 - amount),
                    Shift::Lsr => (Join::Lsr, amount - 1),
                    Shift::Asr => (Join::Asr, amount - 1),
                    Shift::Ror => (Join::Ror, amount - 1),
                };
                let out = if carry { self.values.bit(rm, out) } else { before };
                (self.values.join_constant(join, rm, amount), out)
            }
        }
    }

    fn data_processing(
        &mut self,
        state: &State,
        alu: Alu,
        set_flags: bool,
        rd: Register,
        rn: Register,
        operand: Operand,
    ) -> Option<()> {
        if matches!(operand, Operand::ShiftedRegister { .. }) {
            self.pc = self.pc.wrapping_add(4);
        }
        let (right, shifter_carry) = self.operand(operand, set_flags);
        let left = self.get(rn);
        let values = &mut self.values;
        let (result, carries) = match alu {
            Alu::And | Alu::Tst => (values.join(Join::And, left, right), None),
            Alu::Eor | Alu::Teq => (values.join(Join::Xor, left, right), None),
            Alu::Orr => (values.join(Join::Or, left, right), None),
            Alu::Mov => (right, None),
            Alu::Mvn => (values.join_constant(Join::Xor, right, u32::MAX), None),
            Alu::Bic => {
                let mask = values.join_constant(Join::Xor, right, u32::MAX);
                (values.join(Join::And, left, mask), None)
            }
            Alu::Sub | Alu::Cmp => {
                (values.join(Join::Sub, left, right), Some((left, right, Join::NoBorrow, Join::DifferenceOverflow)))
            }
            Alu::Rsb => {
                (values.join(Join::Sub, right, left), Some((right, left, Join::NoBorrow, Join::DifferenceOverflow)))
            }
            Alu::Add | Alu::Cmn => {
                (values.join(Join::Add, left, right), Some((left, right, Join::Carry, Join::SumOverflow)))
            }
            Alu::Adc | Alu::Sbc | Alu::Rsc => return self.with_carry(alu, set_flags, rd, left, right),
        };
        if rd == 15 && !alu.is_test() {
            self.values.pin(result);
            return if set_flags { self.return_from_exception(state) } else { Some(()) };
        }
        if set_flags {
            self.set_nz(result);
            match carries {
                Some((left, right, carry, overflow)) => {
                    let c = self.values.join(carry, left, right);
                    let v = self.values.join(overflow, left, right);
                    self.set_flag(2, c);
                    self.set_flag(3, v);
                }
                None => self.set_flag(2, shifter_carry),
            }
        }
        if !alu.is_test() {
            self.set(rd, result);
        }
        Some(())
    }

    /// Sums and differences with the carry flag, without flags as result.
    fn with_carry(&mut self, alu: Alu, set_flags: bool, rd: Register, left: Id, right: Id) -> Option<()> {
        if set_flags || rd == 15 {
            return None;
        }
        let carry = self.flag(2);
        let values = &mut self.values;
        let result = match alu {
            Alu::Adc => {
                let sum = values.join(Join::Add, left, right);
                values.join(Join::Add, sum, carry)
            }
            _ => {
                let (left, right) = if alu == Alu::Sbc { (left, right) } else { (right, left) };
                let difference = values.join(Join::Sub, left, right);
                let borrow = values.join_constant(Join::Xor, carry, 1);
                values.join(Join::Sub, difference, borrow)
            }
        };
        self.set(rd, result);
        Some(())
    }

    fn set_mode(&mut self, from: Mode, to: Mode) {
        let places = &mut self.places;
        if from.bank() != to.bank() {
            for register in 0..2 {
                places[BANKS + 2 * from.bank() + register] = places[13 + register];
                places[13 + register] = places[BANKS + 2 * to.bank() + register];
            }
            if (from == Mode::Fiq) != (to == Mode::Fiq) {
                for register in 0..5 {
                    places.swap(8 + register, HIGH + register);
                }
            }
        }
    }

    /// The status word.
    fn status(&mut self, state: &State) -> Id {
        let flags = [0, 1, 2, 3].map(|flag| self.flag(flag));
        self.values.status(flags, state.cpsr())
    }

    /// Mode and masks from a status word, which must be what they are.
    fn set_control(&mut self, state: &State, status: Id) -> Option<()> {
        let control = self.values.join_constant(Join::And, status, 0xFF);
        let control = self.values.pin(control);
        self.set_mode(state.mode(), Mode::from_bits(control).filter(|&mode| mode != Mode::User)?);
        Some(())
    }

    /// Flags from a status word; Q must stay what it is.
    fn set_flags(&mut self, state: &State, status: Id) -> Option<()> {
        let q = self.values.bit(status, 27);
        if self.values.pin(q) != u32::from(state.q) {
            return None;
        }
        for flag in 0..4 {
            let bit = self.values.bit(status, 31 - flag as u32);
            self.set_flag(flag, bit);
        }
        Some(())
    }

    fn write_status(&mut self, state: &State, fields: u8, status: Id) -> Option<()> {
        // What was read from there before the core slept is the same each time, as a rule.
        if matches!(self.values.get(status), Value::Place(_) | Value::Word(_)) {
            self.values.pin(status);
        }
        let status = self.values.resolve(status);
        if fields & 0b1000 != 0 {
            self.set_flags(state, status)?;
        }
        if fields & 0b0001 != 0 {
            self.set_control(state, status)?;
        }
        Some(())
    }

    fn return_from_exception(&mut self, state: &State) -> Option<()> {
        let bank = state.mode().bank();
        if bank == 0 {
            return None;
        }
        let status = self.places[SPSRS + bank];
        self.set_flags(state, status)?;
        self.set_control(state, status)
    }

    /// The address of an access, which must be what it is, and the base afterwards.
    fn address(&mut self, addressing: Addressing) -> Option<(u32, u32)> {
        let mut base = self.pin(addressing.rn);
        if addressing.rn == 15 {
            base &= !3;
        }
        let indexed = match addressing.offset {
            Offset::Immediate(offset) => base.wrapping_add(offset),
            Offset::Register { rm, shift: Shift::Lsl, amount, subtract } if amount < 32 => {
                let offset = self.pin(rm) << amount;
                if subtract { base.wrapping_sub(offset) } else { base.wrapping_add(offset) }
            }
            Offset::Register { .. } => return None,
        };
        Some((if addressing.pre_index { indexed } else { base }, indexed))
    }

    fn write_back(&mut self, addressing: Addressing, indexed: u32) {
        if addressing.write_back {
            let indexed = self.constant(indexed);
            self.set(addressing.rn, indexed);
        }
    }

    /// The word at an address of memory, which must be a multiple of four.
    fn word<B: Bus>(&mut self, state: &State, bus: &B, address: u32) -> Option<Id> {
        if address & 3 != 0 {
            return None;
        }
        if address < DTCM_START {
            self.literals.push(address & (ITCM_BYTES as u32 - 4));
            return Some(self.constant(load_word(&state.itcm, address)));
        }
        let place = self.memory(bus, address)?;
        if let Some(&(id, _)) = self.memory.get(&place) {
            return Some(self.values.resolve(id));
        }
        let actual = if place < TCM_END { load_word(&state.dtcm, place) } else { bus.memory_word(place) };
        let id = self.values.word(place, actual);
        self.memory.insert(place, (id, false));
        Some(id)
    }

    fn set_word<B: Bus>(&mut self, bus: &B, address: u32, id: Id) -> Option<()> {
        if address & 3 != 0 || address < DTCM_START {
            return None;
        }
        let place = self.memory(bus, address)?;
        self.memory.insert(place, (id, true));
        Some(())
    }

    /// The one address of a word beyond instruction memory that is nothing but memory.
    fn memory<B: Bus>(&self, bus: &B, address: u32) -> Option<u32> {
        if address < TCM_END {
            return Some(DTCM_START | address & (DTCM_BYTES as u32 - 4));
        }
        bus.memory(address)
    }

    fn load<B: Bus>(
        &mut self,
        state: &State,
        bus: &B,
        width: Width,
        rd: Register,
        addressing: Addressing,
    ) -> Option<()> {
        let (address, indexed) = self.address(addressing)?;
        let (bits, signed) = (8 * width.size().bytes(), matches!(width, Width::SignedHalf | Width::SignedByte));
        if address & (bits / 8 - 1) != 0 {
            return None;
        }
        let word = match bus.steady_register(address, state.cycles) {
            Some(value) if width == Width::Word => self.constant(value),
            Some(_) => return None,
            None => self.word(state, bus, address & !3)?,
        };
        let up = 32 - bits - 8 * (address & 3);
        let value = match signed {
            _ if bits == 32 => word,
            false if up == 0 => self.values.join_constant(Join::Lsr, word, 32 - bits),
            false => {
                let low = self.values.join_constant(Join::Lsr, word, 8 * (address & 3));
                self.values.join_constant(Join::And, low, (1 << bits) - 1)
            }
            true => {
                let top = self.values.join_constant(Join::Lsl, word, up);
                self.values.join_constant(Join::Asr, top, 32 - bits)
            }
        };
        self.write_back(addressing, indexed);
        if rd == 15 {
            self.values.pin(value);
        } else {
            self.set(rd, value);
        }
        Some(())
    }

    fn store<B: Bus>(
        &mut self,
        state: &State,
        bus: &B,
        width: Width,
        rd: Register,
        addressing: Addressing,
    ) -> Option<()> {
        if rd == 15 {
            return None;
        }
        let (address, indexed) = self.address(addressing)?;
        let bits = 8 * width.size().bytes();
        if address & (bits / 8 - 1) != 0 {
            return None;
        }
        if width == Width::Word && bus.is_repeatable_store(address, state.r[usize::from(rd)]) {
            self.pin(rd);
            self.write_back(addressing, indexed);
            return Some(());
        }
        let mut value = self.get(rd);
        if bits != 32 {
            let (shift, mask) = (8 * (address & 3), (1 << bits) - 1);
            let word = self.word(state, bus, address & !3)?;
            let kept = self.values.join_constant(Join::And, word, !(mask << shift));
            let low = self.values.join_constant(Join::And, value, mask);
            let put = self.values.join_constant(Join::Lsl, low, shift);
            value = self.values.join(Join::Or, kept, put);
        }
        self.set_word(bus, address & !3, value)?;
        self.write_back(addressing, indexed);
        Some(())
    }

    fn multiple<B: Bus>(&mut self, state: &State, bus: &B, transfer: Multiple) -> Option<()> {
        let Multiple { load, rn, list, write_back, user, .. } = transfer;
        let base_moved = list >> rn & 1 != 0;
        if user || list == 0 || rn == 15 || base_moved && write_back || !load && list & 0x8000 != 0 {
            return None;
        }
        let base = self.pin(rn);
        let (mut address, after) = transfer.span(base);
        if write_back {
            let after = self.constant(after);
            self.set(rn, after);
        }
        for register in registers(list) {
            let register = register as Register;
            if load {
                let value = self.word(state, bus, address)?;
                if register == 15 {
                    self.values.pin(value);
                } else {
                    self.set(register, value);
                }
            } else {
                let value = self.get(register);
                self.set_word(bus, address, value)?;
            }
            address = address.wrapping_add(4);
        }
        Some(())
    }
}
