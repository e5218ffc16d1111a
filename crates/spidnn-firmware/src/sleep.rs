//! Waiting. A core runs one program and has nothing else to do, so the runtime is built without futures
//! (`spidnn-core`, feature `blocking`): whatever waits sleeps right there, in wait-for-interrupt.

use crate::{interrupt, packets};

/// Sleeps until a condition holds that an interrupt makes true.
pub fn sleep_until(condition: impl Fn() -> bool) {
    loop {
        let heads = packets::heads();
        if condition() {
            return;
        }
        interrupt::mask();
        // What came since then is not slept through; an interrupt that is pending ends the wait, and is handled after it.
        if !interrupt::take_event() && packets::heads() == heads {
            interrupt::wait();
        }
        interrupt::unmask();
    }
}
