//! Executing compiled blocks.

use super::arithmetic::{add_with_carry, half, saturate, shift_immediate, shift_register};
use super::bus::Bus;
use super::cache::{Block, BlockCache};
use super::compile::Source;
use super::execute::step_scheduled;
use super::instruction::Shift;
use super::op::{Kind, Op};
use super::repeat::{Count, Repeat};
use super::state::{
    DTCM_BYTES, DTCM_START, ITCM_BYTES, State, load_byte, load_half, load_word, store_byte, store_half, store_word,
};
use super::timing::ITCM_DATA_CYCLES;

/// Bits of an address that are constant over data memory with its repetitions.
const TCM_MASK: u32 = 0xffc0_0000;

/// Why the engine stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    /// The clock has come to where it was to go.
    Until,
    /// The next instruction is for the plain interpreter.
    Plain,
    /// An interrupt may have been allowed.
    Status,
    /// The bus asked for attention.
    Attention,
}

/// Why compiled code was left.
enum Left {
    /// For the caller of the engine.
    Stop(Stop),
    /// The code at the program counter is not compiled.
    Unknown,
    /// Code may have been written.
    Next,
}

/// Executes blocks from the program counter on until the clock has reached `until` or something else is to be done.
pub(super) fn run_blocks<B: Bus>(state: &mut State, cache: &mut BlockCache, bus: &mut B, until: u64) -> Stop {
    loop {
        let left = run_compiled(state, cache, bus, until);
        if let Left::Unknown = left {
            cache.compile(state);
            continue;
        }
        if let Some((low, high)) = state.code_written.take() {
            cache.invalidate(state, low, high);
        }
        match left {
            Left::Stop(stop) => return stop,
            _ if state.cycles >= until => return Stop::Until,
            _ => {}
        }
    }
}

/// Executes compiled blocks one after the other; a block again and again while it branches to its own start and the clock
/// allows.
fn run_compiled<B: Bus>(state: &mut State, cache: &BlockCache, bus: &mut B, until: u64) -> Left {
    let mut cycles = state.cycles;
    'blocks: loop {
        if state.pc >= ITCM_BYTES as u32 || !state.scoreboard.is_clear(cycles) {
            state.cycles = cycles;
            return Left::Stop(Stop::Plain);
        }
        let Some(entry) = cache.find(state.pc, state.thumb) else {
            state.cycles = cycles;
            return Left::Unknown;
        };
        let (ops, block) = (&entry.ops[..], &*entry.block);
        if ops.is_empty() {
            state.cycles = cycles;
            return Left::Stop(Stop::Plain);
        }
        let start = state.pc;
        let mut turn = Turn { cycles, bus_reads: state.bus_reads };
        let mut rest = ops.iter();

        macro_rules! register {
            ($index:expr) => {
                state.r[usize::from($index & 31)]
            };
        }
        // A block ends with an operation that leaves it, so the operations do not run out.
        while let Some(op) = rest.next() {
            /// The second operand.
            macro_rules! operand {
                () => {
                    (register!(op.rm) << (op.shift & 31)).wrapping_add(op.imm)
                };
            }
            /// A result without flags.
            macro_rules! result {
                ($value:expr) => {{
                    register!(op.rd) = $value;
                    cycles += u64::from(op.cycles);
                }};
            }
            /// A result with N and Z.
            macro_rules! logical {
                ($value:expr) => {{
                    let value = $value;
                    state.set_nz(value);
                    result!(value);
                }};
            }
            /// N and Z without a result.
            macro_rules! test {
                ($value:expr) => {{
                    state.set_nz($value);
                    cycles += u64::from(op.cycles);
                }};
            }
            /// A sum with all flags.
            macro_rules! sum {
                ($left:expr, $right:expr, $carry:expr) => {{
                    let (sum, c, v) = add_with_carry($left, $right, $carry);
                    state.set_nz(sum);
                    state.c = c;
                    state.v = v;
                    sum
                }};
            }
            /// A difference with all flags.
            macro_rules! difference {
                ($left:expr, $right:expr) => {{
                    let (left, right): (u32, u32) = ($left, $right);
                    let (difference, borrow) = left.overflowing_sub(right);
                    state.set_nz(difference);
                    state.c = !borrow;
                    state.v = (left as i32).overflowing_sub(right as i32).1;
                    difference
                }};
            }
            /// Goes on at an address in the present state.
            macro_rules! leave {
                ($target:expr) => {{
                    state.pc = $target;
                    state.instructions += u64::from(op.index()) + 1;
                    if cycles >= until {
                        state.cycles = cycles;
                        return Left::Stop(Stop::Until);
                    }
                    continue 'blocks;
                }};
            }
            /// The same, for an interrupt to be taken there.
            macro_rules! leave_for_interrupt {
                ($target:expr) => {{
                    state.pc = $target;
                    state.instructions += u64::from(op.index()) + 1;
                    state.cycles = cycles;
                    return Left::Stop(Stop::Status);
                }};
            }
            /// Branches to a known address, maybe the block's start.
            macro_rules! branch {
                () => {{
                    cycles += u64::from(op.cycles);
                    if op.target != start || cycles >= until {
                        leave!(op.target);
                    }
                    state.instructions += u64::from(op.index()) + 1;
                    if !matches!(block.repeat, Repeat::Other) {
                        state.cycles = cycles;
                        repeat(state, block, bus, until, op.index(), &turn);
                        cycles = state.cycles;
                        if cycles >= until {
                            state.pc = start;
                            return Left::Stop(Stop::Until);
                        }
                        turn = Turn { cycles, bus_reads: state.bus_reads };
                    }
                    rest = ops.iter();
                }};
            }
            macro_rules! branch_if {
                ($condition:expr) => {
                    if $condition {
                        branch!();
                    } else {
                        cycles += 1;
                    }
                };
            }
            /// Passes over operations.
            macro_rules! pass_unless {
                ($condition:expr) => {
                    if !$condition {
                        cycles += 1;
                        rest = rest.as_slice().get(op.imm as usize..).unwrap_or_default().iter();
                    }
                };
            }
            /// Lets the plain interpreter execute the whole instruction, and goes on with the next one of the block if that
            /// comes next.
            macro_rules! plainly {
                () => {{
                    state.pc = start.wrapping_add(op.index() << if state.thumb { 1 } else { 2 });
                    state.cycles = cycles;
                    match plainly(state, block, bus, op) {
                        Some(left) => {
                            state.instructions += u64::from(op.index()) + 1;
                            return left;
                        }
                        None => {
                            cycles = state.cycles;
                            let same = rest.as_slice().iter().take_while(|other| other.index() == op.index()).count();
                            rest = rest.as_slice()[same..].iter();
                            if rest.as_slice().is_empty() {
                                leave!(state.pc);
                            }
                        }
                    }
                }};
            }
            /// Address of an access, and the base with its offset.
            macro_rules! offset {
                () => {{
                    let indexed = register!(op.rn).wrapping_add(operand!());
                    (indexed, indexed)
                }};
            }
            macro_rules! post_index {
                () => {{
                    let base = register!(op.rn);
                    (base, base.wrapping_add(operand!()))
                }};
            }
            /// A load from tightly coupled memory: how the address forms, which bits of it must be zero, what is loaded, and
            /// whether the base is written.
            macro_rules! load {
                ($form:ident, $low:expr, $load:ident, $type:ty, $write_back:expr) => {{
                    let (address, indexed) = $form!();
                    if address & (TCM_MASK | $low) == DTCM_START {
                        if $write_back {
                            register!(op.rn) = indexed;
                        }
                        result!($load(&state.dtcm, address) as $type as u32);
                    } else if address & (TCM_MASK | $low) == 0 && !op.is_wait_sensitive() {
                        if $write_back {
                            register!(op.rn) = indexed;
                        }
                        cycles += u64::from(ITCM_DATA_CYCLES);
                        result!($load(&state.itcm, address) as $type as u32);
                    } else {
                        plainly!();
                    }
                }};
            }
            macro_rules! store {
                ($form:ident, $low:expr, $store:ident, $write_back:expr) => {{
                    let (address, indexed) = $form!();
                    if address & (TCM_MASK | $low) == DTCM_START {
                        $store(&mut state.dtcm, address, register!(op.rd));
                        if $write_back {
                            register!(op.rn) = indexed;
                        }
                        cycles += u64::from(op.cycles);
                    } else {
                        plainly!();
                    }
                }};
            }
            /// A long multiply's two results.
            macro_rules! long {
                ($value:expr) => {{
                    let value: u64 = $value;
                    register!(op.rn) = value as u32;
                    result!((value >> 32) as u32);
                }};
            }
            macro_rules! unsigned_product {
                () => {
                    u64::from(register!(op.rm)) * u64::from(register!(op.rs))
                };
            }
            macro_rules! signed_product {
                () => {
                    (i64::from(register!(op.rm) as i32) * i64::from(register!(op.rs) as i32)) as u64
                };
            }
            macro_rules! pair {
                () => {
                    u64::from(register!(op.rd)) << 32 | u64::from(register!(op.rn))
                };
            }
            /// The halves that a multiply of halves reads.
            macro_rules! half_rm {
                () => {
                    half(register!(op.rm) << (op.shift & 31), true)
                };
            }
            macro_rules! half_rs {
                () => {
                    half(register!(op.rs) << (op.imm & 31), true)
                };
            }
            /// An accumulation that sets Q on overflow.
            macro_rules! accumulate {
                ($product:expr) => {{
                    let (sum, overflow) = ($product as i32).overflowing_add(register!(op.rn) as i32);
                    state.q |= overflow;
                    result!(sum as u32);
                }};
            }

            match op.kind {
                Kind::And => result!(register!(op.rn) & operand!()),
                Kind::Eor => result!(register!(op.rn) ^ operand!()),
                Kind::Sub => result!(register!(op.rn).wrapping_sub(operand!())),
                Kind::Rsb => result!(operand!().wrapping_sub(register!(op.rn))),
                Kind::Add => result!(register!(op.rn).wrapping_add(operand!())),
                Kind::Adc => result!(register!(op.rn).wrapping_add(operand!()).wrapping_add(u32::from(state.c))),
                Kind::Sbc => result!(register!(op.rn).wrapping_add(!operand!()).wrapping_add(u32::from(state.c))),
                Kind::Rsc => result!((!register!(op.rn)).wrapping_add(operand!()).wrapping_add(u32::from(state.c))),
                Kind::Orr => result!(register!(op.rn) | operand!()),
                Kind::Mov => result!(operand!()),
                Kind::Bic => result!(register!(op.rn) & !operand!()),
                Kind::Mvn => result!(!operand!()),
                Kind::Ands => logical!(register!(op.rn) & operand!()),
                Kind::Eors => logical!(register!(op.rn) ^ operand!()),
                Kind::Subs => result!(difference!(register!(op.rn), operand!())),
                Kind::Rsbs => result!(difference!(operand!(), register!(op.rn))),
                Kind::Adds => result!(sum!(register!(op.rn), operand!(), false)),
                Kind::Adcs => result!(sum!(register!(op.rn), operand!(), state.c)),
                Kind::Sbcs => result!(sum!(register!(op.rn), !operand!(), state.c)),
                Kind::Rscs => result!(sum!(operand!(), !register!(op.rn), state.c)),
                Kind::Orrs => logical!(register!(op.rn) | operand!()),
                Kind::Movs => logical!(operand!()),
                Kind::Bics => logical!(register!(op.rn) & !operand!()),
                Kind::Mvns => logical!(!operand!()),
                Kind::Tst => test!(register!(op.rn) & operand!()),
                Kind::Teq => test!(register!(op.rn) ^ operand!()),
                Kind::Cmp => {
                    let _ = difference!(register!(op.rn), operand!());
                    cycles += u64::from(op.cycles);
                }
                Kind::Cmn => {
                    let _ = sum!(register!(op.rn), operand!(), false);
                    cycles += u64::from(op.cycles);
                }
                Kind::LslFlags => {
                    let value = register!(op.rm);
                    state.c = value << (op.imm.wrapping_sub(1) & 31) >> 31 != 0;
                    logical!(value << (op.imm & 31));
                }
                Kind::LsrFlags => {
                    let value = register!(op.rm);
                    state.c = value >> (op.imm.wrapping_sub(1) & 31) & 1 != 0;
                    logical!(value >> (op.imm & 31));
                }
                Kind::AsrFlags => {
                    let value = register!(op.rm) as i32;
                    state.c = value >> (op.imm.wrapping_sub(1) & 31) & 1 != 0;
                    logical!((value >> (op.imm & 31)) as u32);
                }
                Kind::Lsr => result!(register!(op.rm) >> (op.imm & 31)),
                Kind::Asr => result!((register!(op.rm) as i32 >> (op.imm & 31)) as u32),
                Kind::Ror => result!(register!(op.rm).rotate_right(op.imm & 31)),
                Kind::ShiftEncoded => {
                    let shift = Shift::from_bits(u32::from(op.rn));
                    result!(shift_immediate(shift, register!(op.rm), op.imm as u8, state.c).0);
                }
                Kind::ShiftEncodedCarry => {
                    let shift = Shift::from_bits(u32::from(op.rn));
                    let (value, carry) = shift_immediate(shift, register!(op.rm), op.imm as u8, state.c);
                    state.c = carry;
                    result!(value);
                }
                Kind::ShiftByRegister => {
                    let shift = Shift::from_bits(u32::from(op.rn));
                    result!(shift_register(shift, register!(op.rm), register!(op.rs) as u8, state.c).0);
                }
                Kind::ShiftByRegisterCarry => {
                    let shift = Shift::from_bits(u32::from(op.rn));
                    let (value, carry) = shift_register(shift, register!(op.rm), register!(op.rs) as u8, state.c);
                    state.c = carry;
                    result!(value);
                }
                Kind::SetCarry => state.c = op.imm != 0,
                Kind::Mul => result!(register!(op.rm).wrapping_mul(register!(op.rs))),
                Kind::Mla => {
                    result!(register!(op.rm).wrapping_mul(register!(op.rs)).wrapping_add(register!(op.rn)));
                }
                Kind::Muls => logical!(register!(op.rm).wrapping_mul(register!(op.rs))),
                Kind::Umull => long!(unsigned_product!()),
                Kind::Umlal => long!(unsigned_product!().wrapping_add(pair!())),
                Kind::Smull => long!(signed_product!()),
                Kind::Smlal => long!(signed_product!().wrapping_add(pair!())),
                Kind::Smul => result!((half_rm!() * half_rs!()) as u32),
                Kind::Smla => accumulate!(half_rm!() * half_rs!()),
                Kind::Smulw => result!(((i64::from(register!(op.rm) as i32) * half_rs!()) >> 16) as u32),
                Kind::Smlaw => accumulate!((i64::from(register!(op.rm) as i32) * half_rs!()) >> 16),
                Kind::Smlal16 => long!(pair!().wrapping_add((half_rm!() * half_rs!()) as u64)),
                Kind::Saturate => {
                    let (left, mut right) = (i64::from(register!(op.rm) as i32), i64::from(register!(op.rn) as i32));
                    if op.imm & 2 != 0 {
                        let (doubled, saturated) = saturate(2 * right);
                        right = i64::from(doubled as i32);
                        state.q |= saturated;
                    }
                    let (value, saturated) = saturate(if op.imm & 1 != 0 { left - right } else { left + right });
                    state.q |= saturated;
                    result!(value);
                }
                Kind::ReadStatus => result!(state.cpsr()),
                Kind::Clz => result!(register!(op.rm).leading_zeros()),
                Kind::Ldr => load!(offset, 3, load_word, u32, false),
                Kind::LdrPre => load!(offset, 3, load_word, u32, true),
                Kind::LdrPost => load!(post_index, 3, load_word, u32, true),
                Kind::Ldrb => load!(offset, 0, load_byte, u32, false),
                Kind::LdrbPre => load!(offset, 0, load_byte, u32, true),
                Kind::LdrbPost => load!(post_index, 0, load_byte, u32, true),
                Kind::Ldrh => load!(offset, 1, load_half, u32, false),
                Kind::LdrhPre => load!(offset, 1, load_half, u32, true),
                Kind::LdrhPost => load!(post_index, 1, load_half, u32, true),
                Kind::Ldrsb => load!(offset, 0, load_byte, i8, false),
                Kind::LdrsbPre => load!(offset, 0, load_byte, i8, true),
                Kind::LdrsbPost => load!(post_index, 0, load_byte, i8, true),
                Kind::Ldrsh => load!(offset, 1, load_half, i16, false),
                Kind::LdrshPre => load!(offset, 1, load_half, i16, true),
                Kind::LdrshPost => load!(post_index, 1, load_half, i16, true),
                Kind::Str => store!(offset, 3, store_word, false),
                Kind::StrPre => store!(offset, 3, store_word, true),
                Kind::StrPost => store!(post_index, 3, store_word, true),
                Kind::Strb => store!(offset, 0, store_byte, false),
                Kind::StrbPre => store!(offset, 0, store_byte, true),
                Kind::StrbPost => store!(post_index, 0, store_byte, true),
                Kind::Strh => store!(offset, 1, store_half, false),
                Kind::StrhPre => store!(offset, 1, store_half, true),
                Kind::StrhPost => store!(post_index, 1, store_half, true),
                Kind::Literal => {
                    cycles += u64::from(ITCM_DATA_CYCLES);
                    result!(load_word(&state.itcm, op.imm));
                }
                Kind::Ldrd => {
                    let (address, _) = offset!();
                    if is_dtcm(address, 2) {
                        let (first, second) =
                            (load_word(&state.dtcm, address), load_word(&state.dtcm, address.wrapping_add(4)));
                        register!(op.rd.wrapping_add(1)) = second;
                        result!(first);
                    } else {
                        plainly!();
                    }
                }
                Kind::Strd => {
                    let (address, _) = offset!();
                    if is_dtcm(address, 2) {
                        store_word(&mut state.dtcm, address, register!(op.rd));
                        store_word(&mut state.dtcm, address.wrapping_add(4), register!(op.rd.wrapping_add(1)));
                        cycles += u64::from(op.cycles);
                    } else {
                        plainly!();
                    }
                }
                Kind::Ldm => {
                    let base = register!(op.rn);
                    let address = base.wrapping_add_signed(i32::from(op.rs as i8) * 4);
                    if is_dtcm(address, u32::from(op.rm)) {
                        register!(op.rn) = base.wrapping_add_signed(i32::from(op.rd as i8) * 4);
                        load_registers(state, op, address);
                        cycles += u64::from(op.cycles);
                    } else {
                        plainly!();
                    }
                }
                Kind::Stm => {
                    let base = register!(op.rn);
                    let address = base.wrapping_add_signed(i32::from(op.rs as i8) * 4);
                    if is_dtcm(address, u32::from(op.rm)) {
                        store_registers(state, op, address);
                        register!(op.rn) = base.wrapping_add_signed(i32::from(op.rd as i8) * 4);
                        cycles += u64::from(op.cycles);
                    } else {
                        plainly!();
                    }
                }
                Kind::Branch => branch!(),
                Kind::BranchLink => {
                    register!(14u8) = op.imm;
                    branch!();
                }
                Kind::BranchLinkExchange => {
                    register!(14u8) = op.imm;
                    state.thumb = !state.thumb;
                    cycles += u64::from(op.cycles);
                    leave!(op.target & if state.thumb { !1 } else { !3 });
                }
                Kind::BranchRegister => {
                    cycles += u64::from(op.cycles);
                    leave!(register!(op.rm) & if state.thumb { !1 } else { !3 });
                }
                Kind::BranchExchange => {
                    cycles += u64::from(op.cycles);
                    state.branch_exchange(register!(op.rm));
                    leave!(state.pc);
                }
                Kind::BranchLinkExchangeRegister => {
                    cycles += u64::from(op.cycles);
                    state.branch_exchange(register!(op.rm));
                    register!(14u8) = op.imm;
                    leave!(state.pc);
                }
                Kind::ReturnFromException => {
                    cycles += u64::from(op.cycles);
                    state.return_from_exception(register!(op.rm));
                    if state.is_interrupted() {
                        leave_for_interrupt!(state.pc);
                    }
                    leave!(state.pc);
                }
                Kind::WriteStatus => {
                    cycles += u64::from(op.cycles);
                    state.write_cpsr(op.imm as u8, register!(op.rm));
                    if state.is_interrupted() {
                        leave_for_interrupt!(op.target);
                    }
                }
                Kind::BranchLoaded => {
                    state.branch_loaded(register!(op.rm));
                    leave!(state.pc);
                }
                Kind::BranchEq => branch_if!(state.passes(0)),
                Kind::BranchNe => branch_if!(state.passes(1)),
                Kind::BranchCs => branch_if!(state.passes(2)),
                Kind::BranchCc => branch_if!(state.passes(3)),
                Kind::BranchMi => branch_if!(state.passes(4)),
                Kind::BranchPl => branch_if!(state.passes(5)),
                Kind::BranchVs => branch_if!(state.passes(6)),
                Kind::BranchVc => branch_if!(state.passes(7)),
                Kind::BranchHi => branch_if!(state.passes(8)),
                Kind::BranchLs => branch_if!(state.passes(9)),
                Kind::BranchGe => branch_if!(state.passes(10)),
                Kind::BranchLt => branch_if!(state.passes(11)),
                Kind::BranchGt => branch_if!(state.passes(12)),
                Kind::BranchLe => branch_if!(state.passes(13)),
                Kind::IfEq => pass_unless!(state.passes(0)),
                Kind::IfNe => pass_unless!(state.passes(1)),
                Kind::IfCs => pass_unless!(state.passes(2)),
                Kind::IfCc => pass_unless!(state.passes(3)),
                Kind::IfMi => pass_unless!(state.passes(4)),
                Kind::IfPl => pass_unless!(state.passes(5)),
                Kind::IfVs => pass_unless!(state.passes(6)),
                Kind::IfVc => pass_unless!(state.passes(7)),
                Kind::IfHi => pass_unless!(state.passes(8)),
                Kind::IfLs => pass_unless!(state.passes(9)),
                Kind::IfGe => pass_unless!(state.passes(10)),
                Kind::IfLt => pass_unless!(state.passes(11)),
                Kind::IfGt => pass_unless!(state.passes(12)),
                Kind::IfLe => pass_unless!(state.passes(13)),
                Kind::Begin => cycles = begin(state, block, op, cycles),
                Kind::Complete => complete(state, block, op, cycles),
                Kind::Settle => {
                    if !state.scoreboard.is_clear(cycles) {
                        state.scoreboard.clear();
                    }
                }
                Kind::Late => {
                    let (ready, accumulator) = (cycles + u64::from(op.shift), cycles + u64::from(op.rs));
                    state.scoreboard.set(op.imm as u16, ready, accumulator);
                }
                Kind::End => leave!(op.target),
            }
        }
        state.cycles = cycles;
        return Left::Next;
    }
}

/// When the instruction of an operation starts that could do so at `cycles`.
#[inline(never)]
fn begin(state: &State, block: &Block, op: &Op, cycles: u64) -> u64 {
    let timing = &block.code[op.index() as usize].timing;
    state.scoreboard.start(cycles, timing.sources, timing.accumulators)
}

/// Notes the results of the instruction of an operation, which ended at `cycles`.
#[inline(never)]
fn complete(state: &mut State, block: &Block, op: &Op, cycles: u64) {
    let timing = &block.code[op.index() as usize].timing;
    state.scoreboard.complete(cycles, timing);
}

/// Whether so many words from an address lie in data memory, aligned and without passing its end.
fn is_dtcm(address: u32, words: u32) -> bool {
    let end = DTCM_BYTES as u32;
    address & (TCM_MASK | 3) == DTCM_START && address & (end - 1) <= end - 4 * words
}

/// Loads the registers that an operation lists from data memory, where [`is_dtcm`] found them.
fn load_registers(state: &mut State, op: &Op, address: u32) {
    let mut numbers = u64::from(op.imm) | u64::from(op.target) << 32;
    for word in dtcm_words(&state.dtcm[..], op, address).chunks_exact(4) {
        state.r[(numbers & 15) as usize] = u32::from_le_bytes(word.try_into().expect("four bytes"));
        numbers >>= 4;
    }
}

/// Stores the registers that an operation lists to data memory.
fn store_registers(state: &mut State, op: &Op, address: u32) {
    let mut numbers = u64::from(op.imm) | u64::from(op.target) << 32;
    let start = address as usize & (DTCM_BYTES - 4);
    let end = start + 4 * usize::from(op.rm);
    for word in state.dtcm.get_mut(start..end).unwrap_or_default().chunks_exact_mut(4) {
        word.copy_from_slice(&state.r[(numbers & 15) as usize].to_le_bytes());
        numbers >>= 4;
    }
}

/// The words of data memory that an operation moves.
fn dtcm_words<'a>(dtcm: &'a [u8], op: &Op, address: u32) -> &'a [u8] {
    let start = address as usize & (DTCM_BYTES - 4);
    dtcm.get(start..start + 4 * usize::from(op.rm)).unwrap_or_default()
}

/// Executes an instruction of a block by the plain interpreter. Nothing comes back if the block can go on with the next
/// one.
#[cold]
#[inline(never)]
fn plainly<B: Bus>(state: &mut State, block: &Block, bus: &mut B, op: &Op) -> Option<Left> {
    let (before, thumb) = (state.pc, state.thumb);
    let cycles_before = state.cycles + u64::from(op.cycles);
    let Source { instruction, timing, pending } = &block.code[op.index() as usize];
    let attention = step_scheduled(state, bus, instruction, timing, op.cycles) && bus.attention();
    let follows = state.pc == before.wrapping_add(if thumb { 2 } else { 4 }) && state.thumb == thumb;
    let waited = state.cycles.saturating_sub(cycles_before);
    let goes_on = follows && state.code_written.is_none() && !(waited != 0 && op.is_wait_sensitive());
    if goes_on && !attention {
        return None;
    }
    if follows && op.is_wait_sensitive() {
        // From here on the scoreboard has to know what the block knew.
        for (registers, ready, accumulator) in pending.after(waited.min(u64::from(u8::MAX)) as u8).late() {
            let ready_at = |after: u8| state.cycles + u64::from(after);
            state.scoreboard.set(registers, ready_at(ready), ready_at(accumulator));
        }
    }
    Some(if attention { Left::Stop(Stop::Attention) } else { Left::Next })
}

/// The state of things when a turn of a loop began.
struct Turn {
    cycles: u64,
    bus_reads: u64,
}

/// Makes the coming turns of a loop at once, at its branch back, as far as the clock may go.
#[cold]
#[inline(never)]
fn repeat<B: Bus>(state: &mut State, block: &Block, bus: &mut B, until: u64, index: u32, turn: &Turn) {
    match block.repeat {
        Repeat::Count(count) if count.branch == index => repeat_count(state, &count, until),
        Repeat::Poll { branch } if branch == index => {
            let cycles = state.cycles - turn.cycles;
            let turns_in = |span: u64| span.div_ceil(cycles.max(1));
            let (turns, quiet_until) = match state.bus_reads - turn.bus_reads {
                0 => (turns_in(until - state.cycles), u64::MAX),
                1 => {
                    let (address, size, at) = state.last_read;
                    let quiet_until = bus.quiet_until(address, size, at);
                    let quiet_turns = quiet_until.saturating_sub(at + 1) / cycles.max(1);
                    (turns_in(until - state.cycles).min(quiet_turns), quiet_until)
                }
                _ => return,
            };
            state.cycles += turns * cycles;
            state.instructions += turns * (u64::from(index) + 1);
            state.quiet_until = quiet_until;
        }
        _ => {}
    }
}

fn repeat_count(state: &mut State, count: &Count, until: u64) {
    let register = usize::from(count.register);
    let left = state.r[register];
    let possible = count.turns(left);
    let turns = possible.min((until - state.cycles).div_ceil(count.cycles));
    if turns == 0 {
        return;
    }
    let after = left.wrapping_sub((turns as u32).wrapping_mul(count.step));
    let before_last = after.wrapping_add(count.step);
    let (result, carry, overflow) = add_with_carry(before_last, !count.step, true);
    state.r[register] = result;
    state.set_nz(result);
    state.c = carry;
    state.v = overflow;
    state.quiet_until = state.cycles + possible * count.cycles;
    state.cycles += turns * count.cycles;
    state.instructions += turns * (u64::from(count.branch) + 1);
}
