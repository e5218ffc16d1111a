//! Errors of the simulation's interface.

use spinnaker_machine::ChipXy;
use thiserror::Error;

/// What the host asked for and the machine cannot do.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SimError {
    /// The machine has no such chip, or it does not work.
    #[error("there is no working chip {0}")]
    NoChip(ChipXy),
    /// The chip has no such core, or it does not work.
    #[error("chip {0} has no working application core {1}")]
    NoCore(ChipXy, u8),
    /// A program is there already.
    #[error("core {1} of chip {0} has a program already")]
    Loaded(ChipXy, u8),
    /// The memory is not there, or the address is not a multiple of 4.
    #[error("chip {chip} has no {words} words of SDRAM at address {address:#010x}")]
    Address {
        /// The chip.
        chip: ChipXy,
        /// First byte.
        address: u32,
        /// Number of words.
        words: usize,
    },
    /// A routing table has not that many entries.
    #[error("chip {chip}: {entries} routing entries, the table has room for {max}")]
    TableFull {
        /// The chip.
        chip: ChipXy,
        /// Entries wanted.
        entries: usize,
        /// Entries there are for applications.
        max: usize,
    },
    /// Too many packets in a row were lost between host and machine.
    #[error("chip {0} did not answer the host: the same packet was lost {1} times")]
    HostTimeout(ChipXy, u32),
}
