//! Interrupt controller, an ARM PL190 (data sheet section 5). Handlers look for themselves at what is pending, so that its
//! vectors stay unused and an interrupt needs no acknowledgement here.

use super::Register;

/// Base address.
pub const BASE: u32 = 0x1F00_0000;
const IRQ_STATUS: Register = Register::at(BASE);
const SELECT: Register = Register::at(BASE + 0x0C);
const ENABLE: Register = Register::at(BASE + 0x10);
const DISABLE: Register = Register::at(BASE + 0x14);

/// Sources, as bits.
pub mod source {
    /// Timer 2.
    pub const TIMER_2: u32 = 1 << 5;
    /// A DMA transfer has ended.
    pub const DMA_DONE: u32 = 1 << 12;
    /// A DMA transfer has failed.
    pub const DMA_ERROR: u32 = 1 << 13;
    /// The monitor has rung.
    pub const MONITOR: u32 = 1 << 18;
    /// A multicast packet is here.
    pub const MULTICAST: u32 = 1 << 24;
}

/// Nothing is enabled; multicast packets are to come as FIQ.
pub fn reset() {
    DISABLE.write(u32::MAX);
    SELECT.write(source::MULTICAST);
}

/// Enables sources.
pub fn enable(sources: u32) {
    ENABLE.write(sources);
}

/// Disables sources.
pub fn disable(sources: u32) {
    DISABLE.write(sources);
}

/// Sources that ask for an IRQ.
pub fn pending() -> u32 {
    IRQ_STATUS.read()
}
