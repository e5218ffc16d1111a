//! The operations that blocks are compiled to: few forms, each quick to execute.
//!
//! A second operand is always `(r[rm] << shift) + imm`, where [`ZERO`] as `rm` leaves the constant and a constant of
//! zero leaves the register. Other shifts are operations of their own in front, into [`TEMPORARY`].

use super::instruction::Register;

/// What a load to PC loads, before the operation that goes there.
pub(super) const LOADED_PC: Register = 15;
/// A register that always reads as zero.
pub(super) const ZERO: Register = 16;
/// Holds a shifted operand, or a computed target, between two operations of one instruction.
pub(super) const TEMPORARY: Register = 17;
/// Holds what an instruction reads as PC.
pub(super) const PC_VALUE: Register = 18;
/// Registers with those that only compiled code knows.
pub(super) const REGISTERS: usize = 32;

/// What to do. Comments give the fields that are not named for what they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[rustfmt::skip]
pub(super) enum Kind {
    // Data processing without and with flags, operand as above.
    And, Eor, Sub, Rsb, Add, Adc, Sbc, Rsc, Orr, Mov, Bic, Mvn,
    Ands, Eors, Subs, Rsbs, Adds, Adcs, Sbcs, Rscs, Orrs, Movs, Bics, Mvns, Tst, Teq, Cmp, Cmn,
    // rd = rm shifted by imm (1 to 31), with flags.
    LslFlags, LsrFlags, AsrFlags,
    // rd = rm shifted by imm (1 to 31).
    Lsr, Asr, Ror,
    // rd = rm shifted: kind in rn, amount as instructions encode it in imm, or in register rs. With C = the shifter's
    // carry or without.
    ShiftEncoded, ShiftEncodedCarry, ShiftByRegister, ShiftByRegisterCarry,
    // C = imm.
    SetCarry,
    // Multiplies. For halves, shift and imm bring the half of rm and rs to the top.
    Mul, Mla, Muls, Umull, Umlal, Smull, Smlal, Smul, Smla, Smulw, Smlaw, Smlal16,
    // imm: bit 0 subtract, bit 1 double.
    Saturate,
    Clz,
    // rd = CPSR.
    ReadStatus,
    // Loads and stores: offset, pre-indexed with write-back, post-indexed.
    Ldr, LdrPre, LdrPost, Ldrb, LdrbPre, LdrbPost, Ldrh, LdrhPre, LdrhPost,
    Ldrsb, LdrsbPre, LdrsbPost, Ldrsh, LdrshPre, LdrshPost,
    Str, StrPre, StrPost, Strb, StrbPre, StrbPost, Strh, StrhPre, StrhPost,
    // rd = word of instruction memory at imm.
    Literal,
    Ldrd, Strd,
    // imm and target: register numbers, four bits each, lowest address first; count in rm; first offset in words in rs,
    // change of the base in words in rd, both signed.
    Ldm, Stm,
    // Leaving, to target; or the address in rm.
    Branch, BranchLink, BranchLinkExchange, BranchRegister, BranchExchange, BranchLinkExchangeRegister, BranchLoaded,
    // CPSR = SPSR and to the address in rm; CPSR fields imm = operand, and if that allows an interrupt, leaving to target.
    ReturnFromException, WriteStatus,
    BranchEq, BranchNe, BranchCs, BranchCc, BranchMi, BranchPl, BranchVs, BranchVc,
    BranchHi, BranchLs, BranchGe, BranchLt, BranchGt, BranchLe,
    // Passing over the next imm operations unless the condition holds.
    IfEq, IfNe, IfCs, IfCc, IfMi, IfPl, IfVs, IfVc, IfHi, IfLs, IfGe, IfLt, IfGt, IfLe,
    // Waiting for operands and noting results of the instruction by the scoreboard.
    Begin, Complete,
    // Whatever the scoreboard has of late results is over.
    Settle,
    // Registers in imm are late by shift cycles, and as accumulators by rs cycles.
    Late,
    // The block ends before the instruction at target.
    End,
}

impl Kind {
    pub const BRANCHES: [Kind; 14] = [
        Kind::BranchEq,
        Kind::BranchNe,
        Kind::BranchCs,
        Kind::BranchCc,
        Kind::BranchMi,
        Kind::BranchPl,
        Kind::BranchVs,
        Kind::BranchVc,
        Kind::BranchHi,
        Kind::BranchLs,
        Kind::BranchGe,
        Kind::BranchLt,
        Kind::BranchGt,
        Kind::BranchLe,
    ];
    pub const IFS: [Kind; 14] = [
        Kind::IfEq,
        Kind::IfNe,
        Kind::IfCs,
        Kind::IfCc,
        Kind::IfMi,
        Kind::IfPl,
        Kind::IfVs,
        Kind::IfVc,
        Kind::IfHi,
        Kind::IfLs,
        Kind::IfGe,
        Kind::IfLt,
        Kind::IfGt,
        Kind::IfLe,
    ];
}

/// One operation: 16 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Op {
    pub kind: Kind,
    /// Cycles with the stall before it.
    pub cycles: u8,
    pub rd: u8,
    pub rn: u8,
    pub rm: u8,
    pub rs: u8,
    pub shift: u8,
    /// Number of the instruction in its block, times two; bit 0: waits of its access end the block.
    pub place: u8,
    pub imm: u32,
    pub target: u32,
}

const _: () = assert!(std::mem::size_of::<Op>() == 16);

impl Op {
    pub const fn new(kind: Kind) -> Self {
        Self { kind, cycles: 0, rd: 0, rn: ZERO, rm: ZERO, rs: 0, shift: 0, place: 0, imm: 0, target: 0 }
    }

    /// Number of the instruction in its block.
    pub fn index(&self) -> u32 {
        u32::from(self.place >> 1)
    }

    /// Whether the block must be left if the access waits.
    pub fn is_wait_sensitive(&self) -> bool {
        self.place & 1 != 0
    }
}
