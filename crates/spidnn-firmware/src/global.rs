//! A variable that interrupt handlers and the runtime share.

use core::cell::UnsafeCell;

/// A static variable of a single core. Reads and writes are volatile, so neither side works on an old copy; what takes more than
/// one access has to mask interrupts.
pub struct Global<T>(UnsafeCell<T>);

// SAFETY: one core, no threads; handlers do not nest. Values are copied in and out.
unsafe impl<T> Sync for Global<T> {}

impl<T: Copy> Global<T> {
    /// With a first value.
    pub const fn new(value: T) -> Self {
        Global(UnsafeCell::new(value))
    }

    /// A copy of the value.
    pub fn get(&self) -> T {
        // SAFETY: see `Sync`.
        unsafe { self.0.get().read_volatile() }
    }

    /// Sets the value.
    pub fn set(&self, value: T) {
        // SAFETY: see `Sync`.
        unsafe { self.0.get().write_volatile(value) }
    }

    /// Sets the value and gives the old one.
    pub fn replace(&self, value: T) -> T {
        let old = self.get();
        self.set(value);
        old
    }
}

impl<T> Global<T> {
    /// With a first value, for something that is only changed in place.
    pub const fn uncopied(value: T) -> Self {
        Global(UnsafeCell::new(value))
    }

    /// Changes the value in place.
    ///
    /// # Safety
    /// No handler may come between, and `change` must not reach this variable by another way.
    pub unsafe fn with<R>(&self, change: impl FnOnce(&mut T) -> R) -> R {
        // SAFETY: by the caller.
        change(unsafe { &mut *self.0.get() })
    }
}
