//! Waiting. A core runs one program and has nothing else to do, so the runtime is built without futures
//! (`spidnn-core`, feature `blocking`): whatever waits sleeps right there, in wait-for-interrupt.

unsafe extern "C" {
    /// `sleep.s`
    fn spidnn_sleep();
}

/// Sleeps until a condition holds that an interrupt makes true.
pub fn sleep_until(condition: impl Fn() -> bool) {
    while !condition() {
        sleep();
    }
}

/// Sleeps until there are news: something has happened since the last sleep that a program may wait for.
pub fn sleep() {
    // SAFETY: it changes nothing but the note of news.
    unsafe { spidnn_sleep() }
}
