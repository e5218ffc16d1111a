//! Cycles: how long an instruction issues, and when what it reads must be ready and what it writes is.
//!
//! An instruction starts when its operands are ready, takes its issue cycles and the waits of its memory accesses, and
//! its results become usable some cycles after that. A failed condition costs one cycle and waits for nothing.
//! Source: reference page arm968.md sections 9 to 12, after ARM DDI 0165B chapter 8 and DDI 0222B table 8.2.

use super::instruction::{
    Addressing, HalfMultiply, Instruction, Multiple, Offset, Operand, Operation, Register, Shift, Width,
};

/// Cycles of an instruction whose condition fails.
pub(super) const FAILED_CYCLES: u64 = 1;
/// Cycles of a data abort: those of the access and of the entry.
pub(super) const DATA_ABORT_CYCLES: u64 = 4;
/// Cycles from the end of an instruction to the first one of an interrupt's vector; also of a prefetch abort.
pub(super) const EXCEPTION_CYCLES: u64 = 3;
/// Cycles of wait-for-interrupt without the sleep.
pub(super) const WAIT_FOR_INTERRUPT_CYCLES: u8 = 3;
/// Extra cycles of an instruction that accesses data in ITCM, whose single port the fetch needs.
pub(super) const ITCM_DATA_CYCLES: u32 = 1;

/// What the pipeline needs to know of an instruction. Sets of registers are masks; PC is in none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(super) struct Timing {
    /// Issue cycles with zero-wait memory.
    pub issue: u8,
    /// Read at the start.
    pub sources: u16,
    /// Read as accumulator of a multiply, where products arrive without a stall.
    pub accumulators: u16,
    /// All that is written.
    pub written: u16,
    /// Usable one cycle late.
    pub late_1: u16,
    /// Usable two cycles late.
    pub late_2: u16,
    /// Usable one cycle late, except as accumulator.
    pub products: u16,
}

const PC_MASK: u16 = 1 << 15;

const fn mask(register: Register) -> u16 {
    1 << (register & 15)
}

impl Timing {
    /// The timing of an instruction whose condition passes.
    pub fn of(instruction: &Instruction) -> Timing {
        let mut timing = Self::with_pc(&instruction.operation);
        for set in [
            &mut timing.sources,
            &mut timing.accumulators,
            &mut timing.written,
            &mut timing.late_1,
            &mut timing.late_2,
            &mut timing.products,
        ] {
            *set &= !PC_MASK;
        }
        timing
    }

    fn with_pc(operation: &Operation) -> Timing {
        let plain = |issue, sources, written| Timing { issue, sources, written, ..Timing::default() };
        match *operation {
            Operation::DataProcessing { alu, rd, rn, operand, .. } => {
                let first = if alu.is_move() { 0 } else { mask(rn) };
                let written = if alu.is_test() { 0 } else { mask(rd) };
                let (sources, shifted) = operand_sources(operand);
                let by_register = matches!(operand, Operand::ShiftedRegister { .. });
                let issue = if written & PC_MASK != 0 { 3 + u8::from(shifted) } else { 1 + u8::from(by_register) };
                plain(issue, first | sources, written)
            }
            Operation::AddressOfPc { rd, .. } => plain(1, 0, mask(rd)),
            Operation::Multiply { accumulate, set_flags, rd, rn, rs, rm } => Timing {
                accumulators: if accumulate { mask(rn) } else { 0 },
                products: mask(rd),
                ..plain(if set_flags { 4 } else { 2 }, mask(rs) | mask(rm), mask(rd))
            },
            Operation::MultiplyLong { accumulate, set_flags, high, low, rs, rm, .. } => {
                let pair = mask(high) | mask(low);
                Timing {
                    accumulators: if accumulate { pair } else { 0 },
                    products: pair,
                    ..plain(if set_flags { 5 } else { 3 }, mask(rs) | mask(rm), pair)
                }
            }
            Operation::MultiplyHalf { kind, rd, rn, rs, rm, .. } => half_multiply(kind, rd, rn, mask(rs) | mask(rm)),
            Operation::Saturating { rd, rn, rm, .. } => {
                Timing { late_1: mask(rd), ..plain(1, mask(rn) | mask(rm), mask(rd)) }
            }
            Operation::CountLeadingZeros { rd, rm } => plain(1, mask(rm), mask(rd)),
            Operation::Branch { .. } | Operation::BranchLinkExchange { .. } => plain(3, 0, mask(14)),
            Operation::BranchExchange { rm, .. } => plain(3, mask(rm), mask(14)),
            Operation::LongBranchPrefix { .. } => plain(1, 0, mask(14)),
            Operation::LongBranchSuffix { .. } => plain(3, mask(14), mask(14)),
            Operation::Load { width, rd, addressing, .. } => load(width, rd, addressing),
            Operation::Store { rd, addressing, .. } => {
                let (issue, sources, written) = address(addressing);
                plain(issue, sources | mask(rd), written)
            }
            Operation::LoadDouble { rd, addressing } => {
                let (_, sources, written) = address(addressing);
                Timing { late_1: mask(rd + 1), ..plain(2, sources, written | mask(rd) | mask(rd + 1)) }
            }
            Operation::StoreDouble { rd, addressing } => {
                let (_, sources, written) = address(addressing);
                plain(2, sources | mask(rd), written)
            }
            Operation::Multiple(transfer) => multiple(transfer),
            Operation::Swap { byte, rd, rn, rm } => {
                let timing = plain(2, mask(rn) | mask(rm), mask(rd));
                if byte { Timing { late_2: mask(rd), ..timing } } else { Timing { late_1: mask(rd), ..timing } }
            }
            Operation::ReadStatus { rd, .. } => plain(2, 0, mask(rd)),
            Operation::WriteStatus { fields, operand, .. } => {
                plain(if fields & 0b0111 != 0 { 3 } else { 1 }, operand_sources(operand).0, 0)
            }
            Operation::ReadCoprocessor { rd, .. } => Timing { late_1: mask(rd), ..plain(2, 0, mask(rd)) },
            Operation::WriteCoprocessor { coprocessor, rd, crn, crm, opcode2 } => {
                let wait = (coprocessor, crn, crm, opcode2) == (15, 7, 0, 4);
                plain(if wait { WAIT_FOR_INTERRUPT_CYCLES } else { 2 }, mask(rd), 0)
            }
            Operation::Preload => plain(1, 0, 0),
            Operation::SoftwareInterrupt | Operation::Breakpoint | Operation::Undefined => plain(3, 0, 0),
        }
    }
}

/// Registers of a second operand, and whether it is shifted at all.
fn operand_sources(operand: Operand) -> (u16, bool) {
    match operand {
        Operand::Immediate { .. } => (0, false),
        Operand::ShiftedImmediate { rm, shift, amount } => (mask(rm), shift != Shift::Lsl || amount != 0),
        Operand::ShiftedRegister { rm, rs, .. } => (mask(rm) | mask(rs), true),
    }
}

fn half_multiply(kind: HalfMultiply, rd: Register, rn: Register, sources: u16) -> Timing {
    let single = Timing { issue: 1, sources, written: mask(rd), products: mask(rd), ..Timing::default() };
    match kind {
        HalfMultiply::Plain | HalfMultiply::Word => single,
        HalfMultiply::Accumulate | HalfMultiply::WordAccumulate => Timing { accumulators: mask(rn), ..single },
        HalfMultiply::LongAccumulate => {
            let pair = mask(rd) | mask(rn);
            Timing { issue: 2, accumulators: pair, written: pair, products: pair, ..single }
        }
    }
}

/// Issue cycles, registers read and written by forming an address.
fn address(addressing: Addressing) -> (u8, u16, u16) {
    let written = if addressing.write_back { mask(addressing.rn) } else { 0 };
    match addressing.offset {
        Offset::Immediate(_) => (1, mask(addressing.rn), written),
        Offset::Register { rm, shift, amount, .. } => {
            let scaled = shift != Shift::Lsl || amount != 0;
            (1 + u8::from(scaled), mask(addressing.rn) | mask(rm), written)
        }
    }
}

fn load(width: Width, rd: Register, addressing: Addressing) -> Timing {
    let (mut issue, sources, written) = address(addressing);
    if rd == 15 {
        issue += 4;
    }
    let timing = Timing { issue, sources, written: written | mask(rd), ..Timing::default() };
    if width == Width::Word { Timing { late_1: mask(rd), ..timing } } else { Timing { late_2: mask(rd), ..timing } }
}

fn multiple(transfer: Multiple) -> Timing {
    let Multiple { load, rn, list, write_back, .. } = transfer;
    let registers = list.count_ones() as u8;
    let loads_pc = load && list & PC_MASK != 0;
    let issue = match registers {
        _ if loads_pc => registers + 4,
        0 => 1,
        1 => 2,
        _ => registers,
    };
    let base = if write_back { mask(rn) } else { 0 };
    let first = list & list.wrapping_neg();
    let last = if list == 0 { 0 } else { 1 << list.ilog2() };
    if load {
        Timing { issue, sources: mask(rn), written: list | base, late_1: last, ..Timing::default() }
    } else {
        Timing { issue, sources: mask(rn) | first, written: base, ..Timing::default() }
    }
}

/// When the registers become usable, by the core's clock.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Scoreboard {
    ready: [u64; 16],
    ready_accumulator: [u64; 16],
    /// No register becomes ready later than this.
    latest: u64,
}

impl Scoreboard {
    /// Whether every register is ready at `now`.
    pub fn is_clear(&self, now: u64) -> bool {
        self.latest <= now
    }

    /// When an instruction that could issue at `now` starts.
    pub fn start(&self, now: u64, sources: u16, accumulators: u16) -> u64 {
        if self.is_clear(now) {
            return now;
        }
        let of = |ready: &[u64; 16], set: u16| registers(set).map(|register| ready[register]).max().unwrap_or(0);
        now.max(of(&self.ready, sources)).max(of(&self.ready_accumulator, accumulators))
    }

    /// Notes the results of an instruction that ended at `end`.
    pub fn complete(&mut self, end: u64, timing: &Timing) {
        if self.latest <= end && timing.late_1 | timing.late_2 | timing.products == 0 {
            return;
        }
        self.set(timing.written, end, end);
        self.set(timing.late_1, end + 1, end + 1);
        self.set(timing.late_2, end + 2, end + 2);
        self.set(timing.products, end + 1, end);
    }

    /// Sets when registers are ready for an ordinary reader and for an accumulator.
    pub fn set(&mut self, set: u16, ready: u64, ready_accumulator: u64) {
        for register in registers(set) {
            self.ready[register] = ready;
            self.ready_accumulator[register] = ready_accumulator;
            self.latest = self.latest.max(ready);
        }
    }

    /// Forgets everything, when the clock is set.
    pub fn clear(&mut self) {
        *self = Self::default();
    }
}

/// The registers of a mask, lowest first.
pub(super) fn registers(mut set: u16) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let register = set.trailing_zeros() as usize;
        set &= set.wrapping_sub(1);
        (register < 16).then_some(register)
    })
}
