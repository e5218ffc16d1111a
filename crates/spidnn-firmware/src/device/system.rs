//! System controller (data sheet section 14): interrupts between cores, synchronisation flags, locks.

use super::Register;

const BASE: u32 = 0xE200_0000;
const SET_IRQ: Register = Register::at(BASE + 0x08);
const CLEAR_IRQ: Register = Register::at(BASE + 0x0C);
const MONITOR_ID: Register = Register::at(BASE + 0x34);
const FLAGS: Register = Register::at(BASE + 0x58);
/// Writes to some registers count only with this in the upper bits.
const KEY: u32 = 0x5EC0_0000;

/// Locks that the monitor and applications share: numbers of test-and-set registers.
#[derive(Clone, Copy)]
#[repr(u32)]
pub enum Lock {
    /// Pool of message buffers.
    Messages = 0,
    /// Which cores have a message for the monitor.
    Mailboxes = 1,
}

/// Clears this core's interrupt from the monitor.
pub fn clear_interrupt(physical_core: u32) {
    CLEAR_IRQ.write(KEY | 1 << physical_core);
}

/// Interrupts the monitor.
pub fn ring_monitor() {
    SET_IRQ.write(KEY | 1 << (MONITOR_ID.read() & 0x1F));
}

/// The flags that synchronise cores, bits by virtual core.
pub fn flags() -> u32 {
    FLAGS.read()
}

/// Does something while this core holds a lock.
pub fn locked<T>(lock: Lock, work: impl FnOnce() -> T) -> T {
    let offset = 4 * lock as u32;
    // Reading sets the lock and tells what it was.
    while Register::at(BASE + 0x100 + offset).read() >> 31 != 0 {}
    let result = work();
    let _ = Register::at(BASE + 0x180 + offset).read();
    result
}
