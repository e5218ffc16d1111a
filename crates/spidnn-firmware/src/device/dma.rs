//! DMA controller (data sheet section 7): two transfers at most, one active and one queued.

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
const CLEAR_DONE: u32 = 1 << 3;
/// A transfer has ended and was not yet cleared.
pub const DONE: u32 = 1 << 10;
/// Soft reset, user abort, bus or TCM error, CRC error, time-out.
pub const ERRORS: u32 = 0x0003_F000;

/// Stops everything and enables the interrupts of ends and errors.
pub fn reset() {
    CONTROL.write(0x3F);
    CONTROL.write(0x0D);
    GLOBAL_CONTROL.write(0x001F_FC00);
}

/// Commits a transfer. There must be room for it.
pub fn submit(out: bool, system: u32, tcm: u32, bytes: u32) {
    SYSTEM_ADDRESS.write(system);
    TCM_ADDRESS.write(tcm);
    DESCRIPTION.write(WIDE | if out { OUT } else { 0 } | bytes);
}

/// The status register.
pub fn status() -> u32 {
    STATUS.read()
}

/// Acknowledges one ended transfer.
pub fn clear_done() {
    CONTROL.write(CLEAR_DONE);
}

/// Number of this core among the chip's eighteen, as built.
pub fn physical_core() -> u32 {
    STATUS.read() >> 24
}
