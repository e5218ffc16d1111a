//! What a core sees beyond its tightly coupled memories.

/// Width of a data access.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Size {
    /// 8 bits.
    Byte,
    /// 16 bits.
    Half,
    /// 32 bits.
    Word,
}

impl Size {
    /// Bytes that an access of this width moves.
    #[must_use]
    pub const fn bytes(self) -> u32 {
        match self {
            Size::Byte => 1,
            Size::Half => 2,
            Size::Word => 4,
        }
    }
}

/// The result of a read or an instruction fetch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Access {
    /// What was read, in the low bits whatever the address's byte lane.
    pub value: u32,
    /// Cycles beyond those that the instruction takes with its data in tightly coupled memory.
    pub wait: u32,
}

/// An access that the bus ends with an error response: a data abort or a prefetch abort.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("bus error")]
pub struct BusError;

/// What a core sees beyond its tightly coupled memories: addresses from 0x00800000 up.
///
/// `at` is the core's own clock in cycles when the access starts. Addresses of data accesses are aligned to their size;
/// those of fetches to four bytes.
pub trait Bus {
    /// Reads data.
    ///
    /// # Errors
    ///
    /// [`BusError`]: the core takes a data abort.
    fn read(&mut self, address: u32, size: Size, at: u64) -> Result<Access, BusError>;

    /// Writes data (the low bits of `value`) and gives the cycles that the core waits for it.
    ///
    /// # Errors
    ///
    /// [`BusError`]: the core takes a data abort. A buffered write that fails must not answer so, since the core has
    /// gone on by then.
    fn write(&mut self, address: u32, size: Size, value: u32, at: u64) -> Result<u32, BusError>;

    /// Fetches the aligned word with the instruction(s) at `address`.
    ///
    /// # Errors
    ///
    /// [`BusError`]: the core takes a prefetch abort if it comes to execute this instruction.
    fn fetch(&mut self, address: u32, at: u64) -> Result<Access, BusError>;

    /// Reads the second or a later word of a load of several words (LDM, LDRD): the address follows the one before, as
    /// the bus may profit from.
    ///
    /// # Errors
    ///
    /// As [`Bus::read`].
    fn read_next(&mut self, address: u32, at: u64) -> Result<Access, BusError> {
        self.read(address, Size::Word, at)
    }

    /// Writes the second or a later word of a store of several words (STM, STRD).
    ///
    /// # Errors
    ///
    /// As [`Bus::write`].
    fn write_next(&mut self, address: u32, value: u32, at: u64) -> Result<u32, BusError> {
        self.write(address, Size::Word, value, at)
    }

    /// Whether a data access of `address` in User mode ends with an error response without reaching anything.
    fn privileged_only(&self, address: u32) -> bool {
        let _ = address;
        false
    }

    /// Whether [`Cpu::run`](super::Cpu::run) must return after the present instruction, because an access changed
    /// something that the caller has to see to (interrupt lines, a DMA, a packet, a reset). Asked once after each
    /// instruction that used the bus, and never otherwise; answering clears the wish.
    fn attention(&mut self) -> bool {
        false
    }

    /// Until which cycle a read of `address` would give the same value and wait as one `at` now and have no effect: what
    /// a loop that only polls this word may sleep for. `at` (the default) or less means: not known. Events that reach
    /// the core from outside need no thought if the caller ends `run` before them.
    fn quiet_until(&mut self, address: u32, size: Size, at: u64) -> u64 {
        let _ = (address, size);
        at
    }

    /// The one address of the word at `address` if reading and writing there does nothing but give and take values. `None` (the
    /// default): it may do more, or is not known.
    fn memory(&self, address: u32) -> Option<u32> {
        let _ = address;
        None
    }

    /// What such a word holds, by the address that [`Bus::memory`] gave.
    fn memory_word(&self, address: u32) -> u32 {
        let _ = address;
        0
    }

    /// Sets such a word.
    fn set_memory_word(&mut self, address: u32, value: u32) {
        let _ = (address, value);
    }

    /// What a read of a device's register at a cycle would give, if that depends only on devices of which the core's owner knows when
    /// they are as they were, and the read does nothing that is not the same each time.
    fn steady_register(&self, address: u32, at: u64) -> Option<u32> {
        let _ = (address, at);
        None
    }

    /// Whether a store of this value to a device's register does the same each time, as [`Bus::steady_register`] says.
    fn is_repeatable_store(&self, address: u32, value: u32) -> bool {
        let _ = (address, value);
        false
    }

    /// A number on which the waits of accesses depend, and on nothing else, for a core that has not used the bus for long.
    fn pace(&self) -> u64 {
        0
    }
}
