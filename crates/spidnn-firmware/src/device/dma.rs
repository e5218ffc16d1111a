//! DMA controller (data sheet section 7): two rows at most, one active and one queued. Ends of rows: `dma.s`.

use super::Register;

const BASE: u32 = 0x3000_0000;
const SYSTEM_ADDRESS: Register = Register::at(BASE + 0x04);
const TCM_ADDRESS: Register = Register::at(BASE + 0x08);
const DESCRIPTION: Register = Register::at(BASE + 0x0C);
const CONTROL: Register = Register::at(BASE + 0x10);
const STATUS: Register = Register::at(BASE + 0x14);
const GLOBAL_CONTROL: Register = Register::at(BASE + 0x18);

/// Double words, bursts of sixteen: what the official software uses.
const WIDE: u32 = 0x0180_0000;
/// From TCM to the system.
const OUT: u32 = 1 << 19;

/// Stops everything and enables the interrupts of ends and errors.
pub fn reset() {
    CONTROL.write(0x3F);
    CONTROL.write(0x0D);
    GLOBAL_CONTROL.write(0x001F_FC00);
}

/// What the controller has to know of a row: direction (out: from TCM to the system) and bytes.
pub fn description(out: bool, bytes: u32) -> u32 {
    WIDE | if out { OUT } else { 0 } | bytes
}

/// Commits a row. There must be room for it.
pub fn submit(system: u32, tcm: u32, description: u32) {
    SYSTEM_ADDRESS.write(system);
    TCM_ADDRESS.write(tcm);
    DESCRIPTION.write(description);
}

/// The status register.
pub fn status() -> u32 {
    STATUS.read()
}

/// Number of this core among the chip's eighteen, as built.
pub fn physical_core() -> u32 {
    STATUS.read() >> 24
}
