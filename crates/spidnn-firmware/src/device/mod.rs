//! The devices that firmware touches, one module each: registers by their names in the data sheet.
//!
//! All registers are words; reads and writes are volatile. Base addresses are those of the buffered alias where a write may go on
//! behind the core's back, else of the unbuffered one (data sheet section 4).

pub mod comms;
pub mod dma;
pub mod system;
pub mod timer;
pub mod vic;

/// A register, or any word that something else than this program changes.
#[derive(Clone, Copy)]
pub struct Register(u32);

impl Register {
    /// The register at an address.
    pub const fn at(address: u32) -> Register {
        Register(address)
    }

    /// Its value.
    pub fn read(self) -> u32 {
        // SAFETY: addresses are those of devices and of memory that belongs to nobody in this program.
        unsafe { (self.0 as *const u32).read_volatile() }
    }

    /// Sets it.
    pub fn write(self, value: u32) {
        // SAFETY: as above.
        unsafe { (self.0 as *mut u32).write_volatile(value) }
    }
}

/// A half-word of memory.
#[derive(Clone, Copy)]
pub struct HalfCell(u32);

impl HalfCell {
    /// The half-word at an address.
    pub const fn at(address: u32) -> HalfCell {
        HalfCell(address)
    }

    /// Its value.
    pub fn read(self) -> u16 {
        // SAFETY: addresses are those of the monitor's structures, or what the host asks for.
        unsafe { (self.0 as *const u16).read_volatile() }
    }

    /// Sets it.
    pub fn write(self, value: u16) {
        // SAFETY: as above.
        unsafe { (self.0 as *mut u16).write_volatile(value) }
    }
}

/// A byte of memory that the monitor looks at, too.
#[derive(Clone, Copy)]
pub struct ByteCell(u32);

impl ByteCell {
    /// The byte at an address.
    pub const fn at(address: u32) -> ByteCell {
        ByteCell(address)
    }

    /// Its value.
    pub fn read(self) -> u8 {
        // SAFETY: addresses are those of the monitor's structures in system RAM.
        unsafe { (self.0 as *const u8).read_volatile() }
    }

    /// Sets it.
    pub fn write(self, value: u8) {
        // SAFETY: as above.
        unsafe { (self.0 as *mut u8).write_volatile(value) }
    }
}
