//! What the monitor (SCAMP) and its host know of this core: its VCPU block and the system variables, both in system RAM.
//!
//! Source: SpiNNaker tools, `sark.h` (structures `vcpu_t`, `sv_t`); see also the crate `spinnaker-wire`.

use crate::device::{ByteCell, HalfCell, Register, dma};

/// System variables.
const SYSTEM_VARIABLES: u32 = 0xE500_7F00;
const CHIP: HalfCell = HalfCell::at(SYSTEM_VARIABLES);
const LED_PERIOD: ByteCell = ByteCell::at(SYSTEM_VARIABLES + 0x2B);
/// From physical to virtual core numbers.
const VIRTUAL_CORES: u32 = SYSTEM_VARIABLES + 0x94;
const SDRAM_TAGS: Register = Register::at(SYSTEM_VARIABLES + 0xDC);
/// First free message buffer; count in use in the half-word behind it.
pub const FREE_MESSAGE: Register = Register::at(SYSTEM_VARIABLES + 0x68);
/// Message buffers in use (lower half), and the most that ever were (upper half).
pub const MESSAGES_IN_USE: Register = Register::at(SYSTEM_VARIABLES + 0x6C);
/// Cores that have a message for the monitor.
pub const MAILBOX_FLAGS: Register = Register::at(SYSTEM_VARIABLES + 0xEC);
/// VCPU blocks of 128 bytes, by virtual core.
const BLOCKS: u32 = 0xE500_7000;
/// Bytes of a block that a program clears when it starts.
const CLEARED_BYTES: u32 = 0x70;

/// States of a core.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum State {
    /// Run-time error.
    Error = 2,
    /// Waits for the signal START.
    Wait = 5,
    /// Starting.
    Starting = 6,
    /// Running.
    Run = 7,
    /// Waits for the signal SYNC0.
    Sync0 = 8,
    /// Waits for the signal SYNC1.
    Sync1 = 9,
    /// Nothing to do.
    Exit = 11,
}

/// Places in a VCPU block.
#[derive(Clone, Copy)]
#[repr(u32)]
pub enum Field {
    /// Registers r0 to r7 of an error.
    Registers = 0x00,
    /// Message or data from the monitor.
    FromMonitor = 0x30,
    /// Message for the monitor.
    ToMonitor = 0x34,
    /// File of a software error.
    File = 0x3C,
    /// Its line.
    Line = 0x40,
    /// First block of text.
    Text = 0x58,
    /// Version.
    Version = 0x5C,
    /// First of four words for the application: this firmware counts there.
    User = 0x70,
}

/// Bytes of a VCPU block.
#[derive(Clone, Copy)]
#[repr(u32)]
pub enum ByteField {
    /// Run-time error.
    ErrorCode = 0x2C,
    /// Physical core.
    PhysicalCore = 0x2D,
    /// [`State`].
    State = 0x2E,
    /// Application.
    Application = 0x2F,
    /// Command from the monitor.
    FromMonitor = 0x38,
    /// Command to the monitor.
    ToMonitor = 0x39,
}

/// This core, as the monitor sees it.
#[derive(Clone, Copy)]
pub struct Vcpu {
    /// Address of its block.
    pub address: u32,
    /// Number among the working cores.
    pub virtual_core: u32,
    /// Number as built.
    pub physical_core: u32,
}

impl Vcpu {
    /// Finds out which core this is.
    pub fn of_this_core() -> Vcpu {
        let physical_core = dma::physical_core();
        let virtual_core = u32::from(ByteCell::at(VIRTUAL_CORES + physical_core).read());
        Vcpu { address: BLOCKS + 128 * virtual_core, virtual_core, physical_core }
    }

    /// Clears the block as a program does that starts, and fills in who it is.
    pub fn begin(self, application: u8, version: u32, name: &[u8; 16]) {
        let state = self.byte(ByteField::State);
        // The application's number is there already; everything else but the state goes.
        for offset in (0..CLEARED_BYTES).step_by(4).filter(|offset| *offset != 0x2C) {
            Register::at(self.address + offset).write(0);
        }
        for (word, bytes) in name.chunks_exact(4).enumerate() {
            let value = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
            Register::at(self.address + 0x48 + 4 * word as u32).write(value);
        }
        self.byte(ByteField::ErrorCode).write(0);
        self.byte(ByteField::PhysicalCore).write(self.physical_core as u8);
        self.byte(ByteField::Application).write(application);
        self.field(Field::Version).write(version);
        for user in 0..4 {
            Register::at(self.address + Field::User as u32 + 4 * user).write(0);
        }
        state.write(State::Starting as u8);
    }

    /// A word of the block.
    pub fn field(self, field: Field) -> Register {
        Register::at(self.address + field as u32)
    }

    /// A byte of the block.
    pub fn byte(self, field: ByteField) -> ByteCell {
        ByteCell::at(self.address + field as u32)
    }

    /// Tells the monitor's host what this core does.
    pub fn set_state(self, state: State) {
        self.byte(ByteField::State).write(state as u8);
    }

    /// What it has told.
    pub fn state(self) -> u8 {
        self.byte(ByteField::State).read()
    }
}

/// Address of the block of SDRAM that an application has under a tag; 0 if it has none.
pub fn tagged_block(application: u8, tag: u8) -> u32 {
    let index = u32::from(application) << 8 | u32::from(tag);
    Register::at(SDRAM_TAGS.read() + 4 * index).read()
}

/// This chip's address, x in the upper byte.
pub fn chip() -> u32 {
    CHIP.read().into()
}

/// Makes the board's light blink as it does for a core in error.
pub fn alarm_light() {
    LED_PERIOD.write(8);
}
