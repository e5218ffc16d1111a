//! Communications controller (data sheet section 8).

use super::{Register, timer};

/// Base address, buffered.
pub const BASE: u32 = 0x1000_0000;
const TRANSMIT_CONTROL: Register = Register::at(BASE);
const TRANSMIT_DATA: Register = Register::at(BASE + 4);
const TRANSMIT_KEY: Register = Register::at(BASE + 8);
/// Bit of the transmit control register: another packet may be written.
const NOT_FULL: u32 = 1 << 28;

/// Another: nothing is on its way to the router.
const EMPTY: u32 = 1 << 31;

/// Clears what is left of an earlier program: control byte of a multicast packet, sticky flags.
pub fn reset() {
    TRANSMIT_CONTROL.write(0);
}

/// Sends a multicast packet; waits while the network does not take it.
pub fn send(key: u32, payload: Option<u32>) {
    while TRANSMIT_CONTROL.read() & NOT_FULL == 0 {}
    if let Some(payload) = payload {
        TRANSMIT_DATA.write(payload);
    }
    TRANSMIT_KEY.write(key);
}

/// Waits until the router has taken all that was sent, and then so many cycles.
pub fn rest(cycles: u32) {
    while TRANSMIT_CONTROL.read() & EMPTY == 0 {}
    let taken = timer::now();
    while timer::now().wrapping_sub(taken) < cycles {}
}
