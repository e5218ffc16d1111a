//! Polls the one future of a core, and sleeps in wait-for-interrupt while it waits.

use core::future::Future;
use core::pin::pin;
use core::task::{Context, Poll, Waker};

use crate::{interrupt, packets};

/// Polls a future to its end.
pub fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    loop {
        let heads = packets::heads();
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
        sleep(|| packets::heads() != heads);
    }
}

/// Sleeps until a condition holds that an interrupt makes true.
pub fn sleep_until(condition: impl Fn() -> bool) {
    while !condition() {
        sleep(|| false);
    }
}

/// Sleeps, unless something happened since the last sleep or `awake` says so. Whatever wakes the core is handled before this returns.
fn sleep(awake: impl Fn() -> bool) {
    interrupt::mask();
    if !interrupt::take_event() && !awake() {
        interrupt::wait();
    }
    interrupt::unmask();
}
