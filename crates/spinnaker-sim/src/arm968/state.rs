//! Registers, modes, the status registers, coprocessor 15 and the tightly coupled memories.

use std::fmt;

use super::bus::Size;
use super::op::REGISTERS;
use super::timing::Scoreboard;

/// Bytes of instruction memory, at address 0 and repeated up to 0x003FFFFF.
pub const ITCM_BYTES: usize = 0x8000;
/// Bytes of data memory, at 0x00400000 and repeated up to 0x007FFFFF.
pub const DTCM_BYTES: usize = 0x1_0000;
/// First address of data memory.
pub const DTCM_START: u32 = 0x0040_0000;
/// First address that belongs to the bus.
pub const TCM_END: u32 = 0x0080_0000;

/// Processor modes (CPSR bits 4:0).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Mode {
    /// Unprivileged.
    User = 0x10,
    /// Fast interrupt: r8 to r14 of its own.
    Fiq = 0x11,
    /// Interrupt.
    Irq = 0x12,
    /// Supervisor: after reset and SWI.
    Supervisor = 0x13,
    /// After a prefetch or data abort.
    Abort = 0x17,
    /// After an undefined instruction.
    Undefined = 0x1b,
    /// Privileged, with the registers of User.
    System = 0x1f,
}

impl Mode {
    /// The mode of the low five bits of a status register, if there is one.
    #[must_use]
    pub const fn from_bits(bits: u32) -> Option<Mode> {
        Some(match bits & 0x1f {
            0x10 => Mode::User,
            0x11 => Mode::Fiq,
            0x12 => Mode::Irq,
            0x13 => Mode::Supervisor,
            0x17 => Mode::Abort,
            0x1b => Mode::Undefined,
            0x1f => Mode::System,
            _ => return None,
        })
    }

    /// Which row of the banked r13, r14 and SPSR the mode uses; User and System share row 0, which has no SPSR.
    pub(super) const fn bank(self) -> usize {
        match self {
            Mode::User | Mode::System => 0,
            Mode::Fiq => 1,
            Mode::Irq => 2,
            Mode::Supervisor => 3,
            Mode::Abort => 4,
            Mode::Undefined => 5,
        }
    }
}

/// How many places a core's state has: see [`State::place`].
pub(super) const PLACES: usize = 42;

/// Bits of a status register that exist: N Z C V Q, I F T and the mode.
const STATUS_MASK: u32 = 0xf800_00ff;

/// Control register bit: misaligned data accesses abort.
pub(super) const CONTROL_ALIGNMENT: u32 = 1 << 1;
/// Control register bit: vectors at 0xFFFF0000.
pub(super) const CONTROL_HIGH_VECTORS: u32 = 1 << 13;
/// Control register bit: loads into PC leave the Thumb bit alone.
const CONTROL_L4: u32 = 1 << 15;
/// Bits of the control register that read as ones: 6:4 and 11:8.
const CONTROL_ONES: u32 = 0x0f70;
/// Bits of the control register that can be written: A, D, W, B, I, V, L4.
const CONTROL_WRITABLE: u32 = 0xb08e;

/// The architectural state of a core and its memories.
pub(super) struct State {
    /// Registers of the present mode, and those of compiled code. While an instruction executes, `r[15]` is what it
    /// reads as PC.
    pub r: [u32; REGISTERS],
    /// Address of the next instruction.
    pub pc: u32,
    /// Sign-extended last result: N is its sign, Z whether its low word is zero. (One store sets both.)
    nz: u64,
    /// Carry flag.
    pub c: bool,
    /// Overflow flag.
    pub v: bool,
    /// Sticky saturation flag.
    pub q: bool,
    /// Whether the core is in Thumb state.
    pub thumb: bool,
    /// I bit.
    pub irq_masked: bool,
    /// F bit.
    pub fiq_masked: bool,
    mode: Mode,
    /// r13 and r14 of the modes that are not the present one, by [`Mode::bank`].
    banked: [[u32; 2]; 6],
    /// r8 to r12 of FIQ mode while another mode runs, and of the others while it runs.
    banked_high: [u32; 5],
    spsr: [u32; 6],
    /// CP15 c1.
    pub control: u32,
    /// CP15 c13, the trace process identifier.
    pub process_id: u32,
    /// The core's clock, in cycles.
    pub cycles: u64,
    /// Instructions executed, those with a failed condition included.
    pub instructions: u64,
    /// When results become usable.
    pub scoreboard: Scoreboard,
    /// The interrupt lines.
    pub irq_line: bool,
    /// The fast interrupt line.
    pub fiq_line: bool,
    /// Stopped by wait-for-interrupt.
    pub waiting: bool,
    /// Instruction memory.
    pub itcm: Box<[u8; ITCM_BYTES]>,
    /// Data memory.
    pub dtcm: Box<[u8; DTCM_BYTES]>,
    /// Offsets of the lowest and the highest word of instruction memory that was written and may be compiled code.
    pub code_written: Option<(u32, u32)>,
    /// A bit for each word of instruction memory that blocks may have been compiled from.
    pub code_words: [u64; ITCM_BYTES / 4 / 64],
    /// The last read of the bus: address, width and time.
    pub last_read: (u32, Size, u64),
    /// Reads of the bus so far.
    pub bus_reads: u64,
    /// Until this cycle the core does nothing that anyone could notice, as far as the last `run` knows.
    pub quiet_until: u64,
}

impl State {
    pub fn new() -> Self {
        let mut state = Self {
            r: [0; REGISTERS],
            pc: 0,
            nz: 1,
            c: false,
            v: false,
            q: false,
            thumb: false,
            irq_masked: true,
            fiq_masked: true,
            mode: Mode::Supervisor,
            banked: [[0; 2]; 6],
            banked_high: [0; 5],
            spsr: [0; 6],
            control: 0,
            process_id: 0,
            cycles: 0,
            instructions: 0,
            scoreboard: Scoreboard::default(),
            irq_line: false,
            fiq_line: false,
            waiting: false,
            itcm: vec![0; ITCM_BYTES].into_boxed_slice().try_into().expect("length is the array's"),
            dtcm: vec![0; DTCM_BYTES].into_boxed_slice().try_into().expect("length is the array's"),
            code_written: None,
            code_words: [0; ITCM_BYTES / 4 / 64],
            last_read: (0, Size::Word, 0),
            bus_reads: 0,
            quiet_until: 0,
        };
        state.reset();
        state
    }

    /// The reset input: Supervisor mode, interrupts masked, high vectors (VINITHI is tied high); memories and general
    /// registers keep their content.
    pub fn reset(&mut self) {
        self.set_mode(Mode::Supervisor);
        self.irq_masked = true;
        self.fiq_masked = true;
        self.thumb = false;
        self.waiting = false;
        self.process_id = 0;
        self.control = CONTROL_ONES | CONTROL_HIGH_VECTORS | 1 << 12 | 1 << 2;
        self.pc = 0xffff_0000;
    }

    pub fn n(&self) -> bool {
        (self.nz as i64) < 0
    }

    pub fn z(&self) -> bool {
        self.nz as u32 == 0
    }

    /// N and Z of a 32-bit result.
    pub fn set_nz(&mut self, result: u32) {
        self.nz = result as i32 as i64 as u64;
    }

    /// N and Z of a 64-bit result.
    pub fn set_nz_long(&mut self, result: u64) {
        let any_low = u32::from(result as u32 != 0);
        self.set_nz((result >> 32) as u32 | any_low);
    }

    /// Whether an instruction with this condition code (0 to 14) executes.
    pub fn passes(&self, condition: u8) -> bool {
        match condition {
            0 => self.z(),
            1 => !self.z(),
            2 => self.c,
            3 => !self.c,
            4 => self.n(),
            5 => !self.n(),
            6 => self.v,
            7 => !self.v,
            8 => self.c && !self.z(),
            9 => !self.c || self.z(),
            10 => self.n() == self.v,
            11 => self.n() != self.v,
            12 => !self.z() && self.n() == self.v,
            13 => self.z() || self.n() != self.v,
            _ => true,
        }
    }

    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// What the state holds at a place: r0 to r14; r13 and r14 of each bank; r8 to r12 of FIQ's other side; the SPSR of each bank;
    /// flags N, Z, C and V. What belongs to the present mode is in the registers, and what its bank holds is old.
    pub fn place(&self, place: u8) -> u32 {
        match usize::from(place) {
            place @ 0..=14 => self.r[place],
            place @ 15..=26 => self.banked[(place - 15) / 2][(place - 15) % 2],
            place @ 27..=31 => self.banked_high[place - 27],
            place @ 32..=37 => self.spsr[place - 32],
            38 => u32::from(self.n()),
            39 => u32::from(self.z()),
            40 => u32::from(self.c),
            41 => u32::from(self.v),
            _ => 0,
        }
    }

    /// Sets what a place holds, but for flags.
    pub fn set_place(&mut self, place: u8, value: u32) {
        match usize::from(place) {
            place @ 0..=14 => self.r[place] = value,
            place @ 15..=26 => self.banked[(place - 15) / 2][(place - 15) % 2] = value,
            place @ 27..=31 => self.banked_high[place - 27] = value,
            place @ 32..=37 => self.spsr[place - 32] = value,
            _ => {}
        }
    }

    /// Sets N, Z, C and V.
    pub fn set_condition_flags(&mut self, [n, z, c, v]: [bool; 4]) {
        self.nz = u64::from(n) << 63 | u64::from(!z);
        (self.c, self.v) = (c, v);
    }

    pub fn privileged(&self) -> bool {
        self.mode != Mode::User
    }

    /// Swaps the banked registers.
    pub fn set_mode(&mut self, mode: Mode) {
        if mode.bank() != self.mode.bank() {
            self.banked[self.mode.bank()] = [self.r[13], self.r[14]];
            [self.r[13], self.r[14]] = self.banked[mode.bank()];
            if (self.mode == Mode::Fiq) != (mode == Mode::Fiq) {
                self.r[8..13].swap_with_slice(&mut self.banked_high);
            }
        }
        self.mode = mode;
    }

    pub fn cpsr(&self) -> u32 {
        u32::from(self.n()) << 31
            | u32::from(self.z()) << 30
            | u32::from(self.c) << 29
            | u32::from(self.v) << 28
            | u32::from(self.q) << 27
            | u32::from(self.irq_masked) << 7
            | u32::from(self.fiq_masked) << 6
            | u32::from(self.thumb) << 5
            | self.mode as u32
    }

    /// Sets the flags N, Z, C, V and Q from the top bits of a status word.
    pub fn set_flags(&mut self, value: u32) {
        let not_zero = value >> 30 & 1 ^ 1;
        self.nz = u64::from(value >> 31) << 63 | u64::from(not_zero);
        self.c = value >> 29 & 1 != 0;
        self.v = value >> 28 & 1 != 0;
        self.q = value >> 27 & 1 != 0;
    }

    /// Sets interrupt masks and mode. Bits that are no mode (unpredictable) leave the mode as it is.
    pub fn set_control_bits(&mut self, value: u32) {
        self.irq_masked = value & 0x80 != 0;
        self.fiq_masked = value & 0x40 != 0;
        if let Some(mode) = Mode::from_bits(value) {
            self.set_mode(mode);
        }
    }

    pub fn set_cpsr(&mut self, value: u32) {
        self.set_flags(value);
        self.thumb = value & 0x20 != 0;
        self.set_control_bits(value);
    }

    /// Writes fields of CPSR as MSR does: in User mode only the flags, and the Thumb bit never.
    pub fn write_cpsr(&mut self, fields: u8, value: u32) {
        if fields & 0b1000 != 0 {
            self.set_flags(value);
        }
        if fields & 0b0001 != 0 && self.privileged() {
            self.set_control_bits(value);
        }
    }

    /// SPSR of the present mode; User and System have none (unpredictable) and read CPSR.
    pub fn spsr(&self) -> u32 {
        match self.mode.bank() {
            0 => self.cpsr(),
            bank => self.spsr[bank],
        }
    }

    pub fn set_spsr(&mut self, value: u32) {
        self.spsr[self.mode.bank()] = value & STATUS_MASK;
    }

    /// A register of User mode, whatever the present mode.
    pub fn user_register(&self, register: usize) -> u32 {
        match register {
            8..=12 if self.mode == Mode::Fiq => self.banked_high[register - 8],
            13 | 14 if self.mode.bank() != 0 => self.banked[0][register - 13],
            _ => self.r[register],
        }
    }

    pub fn set_user_register(&mut self, register: usize, value: u32) {
        match register {
            8..=12 if self.mode == Mode::Fiq => self.banked_high[register - 8] = value,
            13 | 14 if self.mode.bank() != 0 => self.banked[0][register - 13] = value,
            _ => self.r[register] = value,
        }
    }

    /// Continues at an address that a BX, BLX or load gave: bit 0 chooses the state.
    pub fn branch_exchange(&mut self, target: u32) {
        self.thumb = target & 1 != 0;
        self.branch(target);
    }

    /// Continues at a loaded address; with L4 set in the control register the state stays.
    pub fn branch_loaded(&mut self, target: u32) {
        if self.control & CONTROL_L4 != 0 {
            self.branch(target);
        } else {
            self.branch_exchange(target);
        }
    }

    /// Continues at an address in the present state.
    pub fn branch(&mut self, target: u32) {
        self.pc = target & if self.thumb { !1 } else { !3 };
    }

    /// Whether an interrupt is asked for and allowed.
    pub fn is_interrupted(&self) -> bool {
        self.fiq_line && !self.fiq_masked || self.irq_line && !self.irq_masked
    }

    /// Continues where and as the SPSR says.
    pub fn return_from_exception(&mut self, target: u32) {
        self.set_cpsr(self.spsr());
        self.branch(target);
    }

    /// Enters an exception: saves CPSR, sets r14 and continues at the vector.
    pub fn enter_exception(&mut self, exception: Exception, return_address: u32) {
        let saved = self.cpsr();
        self.set_mode(exception.mode());
        self.set_spsr(saved);
        self.r[14] = return_address;
        self.thumb = false;
        self.irq_masked = true;
        self.fiq_masked |= exception == Exception::Fiq;
        let base = if self.control & CONTROL_HIGH_VECTORS != 0 { 0xffff_0000 } else { 0 };
        self.pc = base + exception.vector();
    }

    /// Reads a register of coprocessor 15; what does not exist reads as zero.
    pub fn read_cp15(&self, crn: u8, crm: u8, opcode2: u8) -> u32 {
        match (crn, crm, opcode2) {
            (0, 0, 2) => 0x001c_0180,
            (0, _, _) => 0x4105_9680,
            (1, 0, 0) => self.control,
            (13, 0 | 1, 1) => self.process_id,
            _ => 0,
        }
    }

    /// Writes a register of coprocessor 15; what does not exist ignores it. c7, c0, 4 stops the core until an interrupt.
    pub fn write_cp15(&mut self, crn: u8, crm: u8, opcode2: u8, value: u32) {
        match (crn, crm, opcode2) {
            (1, 0, 0) => self.control = value & CONTROL_WRITABLE | CONTROL_ONES,
            (7, 0, 4) => self.waiting = true,
            (13, 0 | 1, 1) => self.process_id = value,
            _ => {}
        }
    }

    /// Notes that up to a word at an address of instruction memory was written.
    pub fn note_code_write(&mut self, address: u32) {
        let word = address & (ITCM_BYTES as u32 - 4);
        if self.code_words[word as usize / 256] >> (word / 4 % 64) & 1 == 0 {
            return;
        }
        let (low, high) = self.code_written.unwrap_or((word, word));
        self.code_written = Some((low.min(word), high.max(word)));
    }

    /// A word of instruction memory counts as code from here on, as what blocks were compiled from does.
    pub fn mark_code(&mut self, offset: u32) {
        let word = offset as usize / 4;
        self.code_words[word / 64] |= 1 << (word % 64);
    }

    /// The instruction word at an address of instruction memory (repeated), aligned down.
    pub fn itcm_word(&self, address: u32) -> u32 {
        load_word(&self.itcm, address)
    }
}

/// Registers and clock; the memories would fill pages.
impl fmt::Debug for State {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "State {{ pc: {:#010x}, cpsr: {:#010x}, r: {:#x?}", self.pc, self.cpsr(), &self.r[..15])?;
        write!(formatter, ", cycles: {}, instructions: {} }}", self.cycles, self.instructions)
    }
}

/// The exceptions that instructions and interrupt lines cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Exception {
    Undefined,
    SoftwareInterrupt,
    PrefetchAbort,
    DataAbort,
    Irq,
    Fiq,
}

impl Exception {
    pub(super) const fn mode(self) -> Mode {
        match self {
            Exception::Undefined => Mode::Undefined,
            Exception::SoftwareInterrupt => Mode::Supervisor,
            Exception::PrefetchAbort | Exception::DataAbort => Mode::Abort,
            Exception::Irq => Mode::Irq,
            Exception::Fiq => Mode::Fiq,
        }
    }

    const fn vector(self) -> u32 {
        match self {
            Exception::Undefined => 0x04,
            Exception::SoftwareInterrupt => 0x08,
            Exception::PrefetchAbort => 0x0c,
            Exception::DataAbort => 0x10,
            Exception::Irq => 0x18,
            Exception::Fiq => 0x1c,
        }
    }
}

/// The aligned word at an address of a memory whose size is a power of two.
pub(super) fn load_word<const N: usize>(memory: &[u8; N], address: u32) -> u32 {
    let offset = address as usize & (N - 4);
    u32::from_le_bytes(memory[offset..offset + 4].try_into().expect("four bytes"))
}

/// The aligned half-word at an address.
pub(super) fn load_half<const N: usize>(memory: &[u8; N], address: u32) -> u32 {
    let offset = address as usize & (N - 2);
    u32::from(u16::from_le_bytes(memory[offset..offset + 2].try_into().expect("two bytes")))
}

/// The byte at an address.
pub(super) fn load_byte<const N: usize>(memory: &[u8; N], address: u32) -> u32 {
    u32::from(memory[address as usize & (N - 1)])
}

/// Stores an aligned word.
pub(super) fn store_word<const N: usize>(memory: &mut [u8; N], address: u32, value: u32) {
    let offset = address as usize & (N - 4);
    memory[offset..offset + 4].copy_from_slice(&value.to_le_bytes());
}

/// Stores an aligned half-word.
pub(super) fn store_half<const N: usize>(memory: &mut [u8; N], address: u32, value: u32) {
    let offset = address as usize & (N - 2);
    memory[offset..offset + 2].copy_from_slice(&(value as u16).to_le_bytes());
}

/// Stores a byte.
pub(super) fn store_byte<const N: usize>(memory: &mut [u8; N], address: u32, value: u32) {
    memory[address as usize & (N - 1)] = value as u8;
}
