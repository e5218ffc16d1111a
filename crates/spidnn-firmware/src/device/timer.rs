//! The two timers (data sheet section 6): the first counts the core's clock, the second wakes it.

use super::Register;

const BASE: u32 = 0x1100_0000;
const LOAD_1: Register = Register::at(BASE);
const VALUE_1: Register = Register::at(BASE + 0x04);
const CONTROL_1: Register = Register::at(BASE + 0x08);
const LOAD_2: Register = Register::at(BASE + 0x20);
const CONTROL_2: Register = Register::at(BASE + 0x28);
const CLEAR_2: Register = Register::at(BASE + 0x2C);

/// Enabled, free-running, 32 bits.
const COUNT: u32 = 0x82;
/// Enabled, with interrupt, one-shot, 32 bits.
const ALARM: u32 = 0xA3;

/// Starts counting.
pub fn reset() {
    CONTROL_2.write(0);
    CLEAR_2.write(0);
    LOAD_1.write(u32::MAX);
    CONTROL_1.write(COUNT);
}

/// Cycles since [`reset`], modulo 2^32.
pub fn now() -> u32 {
    !VALUE_1.read()
}

/// Asks for an interrupt after some cycles.
pub fn set_alarm(cycles: u32) {
    LOAD_2.write(cycles.max(1));
    CONTROL_2.write(ALARM);
}

/// No interrupt any more.
pub fn clear_alarm() {
    CONTROL_2.write(0);
    CLEAR_2.write(0);
}
