//! Decoded instructions: one form for ARM and Thumb, which the executor, the timing tables and the block compiler share.

use super::bus::Size;

/// A register number, 0 to 15.
pub(super) type Register = u8;

/// Condition code "always".
pub(super) const ALWAYS: u8 = 14;

/// An instruction and its condition (0 to 14).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Instruction {
    pub condition: u8,
    pub operation: Operation,
}

impl Instruction {
    pub const fn always(operation: Operation) -> Self {
        Self { condition: ALWAYS, operation }
    }
}

/// The sixteen data processing operations, by their encoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub(super) enum Alu {
    And,
    Eor,
    Sub,
    Rsb,
    Add,
    Adc,
    Sbc,
    Rsc,
    Tst,
    Teq,
    Cmp,
    Cmn,
    Orr,
    Mov,
    Bic,
    Mvn,
}

impl Alu {
    pub const ALL: [Alu; 16] = [
        Alu::And,
        Alu::Eor,
        Alu::Sub,
        Alu::Rsb,
        Alu::Add,
        Alu::Adc,
        Alu::Sbc,
        Alu::Rsc,
        Alu::Tst,
        Alu::Teq,
        Alu::Cmp,
        Alu::Cmn,
        Alu::Orr,
        Alu::Mov,
        Alu::Bic,
        Alu::Mvn,
    ];

    /// TST, TEQ, CMP and CMN write no register.
    pub const fn is_test(self) -> bool {
        matches!(self, Alu::Tst | Alu::Teq | Alu::Cmp | Alu::Cmn)
    }

    /// MOV and MVN read no first operand.
    pub const fn is_move(self) -> bool {
        matches!(self, Alu::Mov | Alu::Mvn)
    }
}

/// Kinds of shift, by their encoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Shift {
    Lsl,
    Lsr,
    Asr,
    Ror,
}

impl Shift {
    pub const fn from_bits(bits: u32) -> Shift {
        match bits & 3 {
            0 => Shift::Lsl,
            1 => Shift::Lsr,
            2 => Shift::Asr,
            _ => Shift::Ror,
        }
    }
}

/// The second operand of data processing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Operand {
    /// A constant; `carry` is the shifter's carry where it was rotated.
    Immediate { value: u32, carry: Option<bool> },
    /// A register shifted by a constant as encoded: 0 means none for LSL, 32 for LSR and ASR, RRX for ROR.
    ShiftedImmediate { rm: Register, shift: Shift, amount: u8 },
    /// A register shifted by the low byte of another.
    ShiftedRegister { rm: Register, shift: Shift, rs: Register },
}

/// The offset of a load or store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Offset {
    /// A constant, negative ones as two's complement.
    Immediate(u32),
    /// A register shifted by a constant as encoded, added or subtracted.
    Register { rm: Register, shift: Shift, amount: u8, subtract: bool },
}

/// How a load or store forms its address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Addressing {
    pub rn: Register,
    pub offset: Offset,
    /// The offset counts for the access itself; otherwise only for the base afterwards.
    pub pre_index: bool,
    /// The base takes the address with its offset. Always so for post-indexed forms.
    pub write_back: bool,
}

/// What a single load or store moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Width {
    Word,
    Byte,
    Half,
    SignedByte,
    SignedHalf,
}

impl Width {
    /// How wide the access is.
    pub const fn size(self) -> Size {
        match self {
            Width::Word => Size::Word,
            Width::Half | Width::SignedHalf => Size::Half,
            Width::Byte | Width::SignedByte => Size::Byte,
        }
    }
}

/// The multiplies of 16-bit halves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum HalfMultiply {
    /// SMLAxy
    Accumulate,
    /// SMLAWy
    WordAccumulate,
    /// SMULWy
    Word,
    /// SMLALxy
    LongAccumulate,
    /// SMULxy
    Plain,
}

/// What an instruction does. Offsets of branches are relative to the instruction's own address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Operation {
    DataProcessing {
        alu: Alu,
        set_flags: bool,
        rd: Register,
        rn: Register,
        operand: Operand,
    },
    /// Thumb ADD Rd, PC, #offset: the PC is aligned.
    AddressOfPc {
        rd: Register,
        offset: u32,
    },
    Multiply {
        accumulate: bool,
        set_flags: bool,
        rd: Register,
        rn: Register,
        rs: Register,
        rm: Register,
    },
    MultiplyLong {
        signed: bool,
        accumulate: bool,
        set_flags: bool,
        high: Register,
        low: Register,
        rs: Register,
        rm: Register,
    },
    /// `rd` is the high and `rn` the low register of SMLALxy.
    MultiplyHalf {
        kind: HalfMultiply,
        x_top: bool,
        y_top: bool,
        rd: Register,
        rn: Register,
        rs: Register,
        rm: Register,
    },
    /// QADD, QSUB, QDADD, QDSUB.
    Saturating {
        double: bool,
        subtract: bool,
        rd: Register,
        rn: Register,
        rm: Register,
    },
    CountLeadingZeros {
        rd: Register,
        rm: Register,
    },
    Branch {
        offset: u32,
        link: bool,
    },
    BranchExchange {
        rm: Register,
        link: bool,
    },
    /// BLX label: to Thumb.
    BranchLinkExchange {
        offset: u32,
    },
    /// First half of Thumb BL and BLX: LR = PC + offset.
    LongBranchPrefix {
        offset: u32,
    },
    /// Second half: to LR + offset; `exchange`: in ARM state.
    LongBranchSuffix {
        offset: u32,
        exchange: bool,
    },
    /// `user`: the access has User rights (LDRT, STRT and so on).
    Load {
        width: Width,
        rd: Register,
        addressing: Addressing,
        user: bool,
    },
    Store {
        width: Width,
        rd: Register,
        addressing: Addressing,
        user: bool,
    },
    LoadDouble {
        rd: Register,
        addressing: Addressing,
    },
    StoreDouble {
        rd: Register,
        addressing: Addressing,
    },
    Multiple(Multiple),
    Swap {
        byte: bool,
        rd: Register,
        rn: Register,
        rm: Register,
    },
    ReadStatus {
        spsr: bool,
        rd: Register,
    },
    /// `fields`: bit 0 control, 1 extension, 2 status, 3 flags.
    WriteStatus {
        spsr: bool,
        fields: u8,
        operand: Operand,
    },
    /// MRC and MCR of coprocessors 14 and 15.
    ReadCoprocessor {
        coprocessor: u8,
        rd: Register,
        crn: Register,
        crm: Register,
        opcode2: u8,
    },
    WriteCoprocessor {
        coprocessor: u8,
        rd: Register,
        crn: Register,
        crm: Register,
        opcode2: u8,
    },
    Preload,
    SoftwareInterrupt,
    Breakpoint,
    Undefined,
}

impl Operation {
    /// Whether it always continues elsewhere than at the next instruction, once its condition passes.
    pub fn changes_pc(&self) -> bool {
        match *self {
            Operation::DataProcessing { alu, rd, .. } => rd == 15 && !alu.is_test(),
            Operation::Load { rd, .. } => rd == 15,
            Operation::Multiple(Multiple { load, list, .. }) => load && list & 0x8000 != 0,
            Operation::Branch { .. }
            | Operation::BranchExchange { .. }
            | Operation::BranchLinkExchange { .. }
            | Operation::LongBranchSuffix { .. }
            | Operation::SoftwareInterrupt
            | Operation::Breakpoint
            | Operation::Undefined => true,
            _ => false,
        }
    }
}

/// LDM and STM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Multiple {
    pub load: bool,
    pub rn: Register,
    pub list: u16,
    /// Addresses go up from the base.
    pub up: bool,
    /// IB, DB: the base's own word is left out at the side where counting starts.
    pub before: bool,
    pub write_back: bool,
    /// `^`: User registers, or with PC in a load's list, return from an exception.
    pub user: bool,
}

impl Multiple {
    /// The lowest address and the base afterwards.
    pub fn span(&self, base: u32) -> (u32, u32) {
        let bytes = self.list.count_ones() * 4;
        let after = if self.up { base.wrapping_add(bytes) } else { base.wrapping_sub(bytes) };
        let lowest = if self.up { base } else { after };
        let first = if self.before == self.up { lowest.wrapping_add(4) } else { lowest };
        (first, after)
    }
}
