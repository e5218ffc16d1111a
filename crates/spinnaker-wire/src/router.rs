//! Routing tables as they lie in memory and in the router's registers.

use core::fmt;

use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::bytes::{prefix, raw_enum};
use crate::{AppId, ChipAddress, Result, WireError};

/// Entries of the hardware's multicast table; entry 0 is the system's.
pub const ENTRIES: u16 = 1024;
/// Bytes of an entry in either table in memory.
pub const ENTRY_BYTES: usize = 16;
/// Entries of the copy (`sv.rtr_copy`).
pub const COPY_ENTRIES: u16 = 1025;
/// Route of an unused entry.
pub const UNUSED_ROUTE: u32 = 0xFF00_0000;
/// Key of an unused entry.
pub const UNUSED_KEY: u32 = 0xFFFF_FFFF;
/// Mask of an unused entry.
pub const UNUSED_MASK: u32 = 0;
/// Key of the monitors' own multicast packets that carry the time; their mask is 0xFFFFFFFE.
pub const TIME_KEY: u32 = 0xFFFF_5554;
/// Key of the monitors' own multicast packets that carry a signal word.
pub const SIGNAL_KEY: u32 = 0xFFFF_5555;

/// Links (bits 5:0) and cores (bits 23:6) of a route.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Route(pub u32);

impl Route {
    /// A route to some links, bit n for link n, and cores, bit n for core n.
    pub const fn new(links: u8, cores: u32) -> Self {
        Self((links & 0x3F) as u32 | (cores & 0x3FFFF) << 6)
    }

    /// Links, bit n for link n.
    pub const fn links(self) -> u8 {
        (self.0 & 0x3F) as u8
    }

    /// Cores, bit n for core n.
    pub const fn cores(self) -> u32 {
        self.0 >> 6 & 0x3FFFF
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "links {:#04x} cores {:#07x}", self.links(), self.cores())
    }
}

impl fmt::Debug for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Route({:#010x})", self.0)
    }
}

/// An entry of a table to be loaded by RTR; routes with virtual cores.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct LoadEntry {
    /// Its number, to which RTR adds an offset.
    pub index: U16,
    /// 0.
    pub pad: U16,
    /// See [`Route`].
    pub route: U32,
    /// Key.
    pub key: U32,
    /// Mask.
    pub mask: U32,
}

const _: () = assert!(size_of::<LoadEntry>() == ENTRY_BYTES);

impl LoadEntry {
    /// An entry.
    ///
    /// # Errors
    /// [`WireError::Field`] for a key with bits outside its mask (it would never match) or a number that no table has.
    pub fn new(index: u16, route: Route, key: u32, mask: u32) -> Result<Self> {
        if key & !mask != 0 {
            return Err(WireError::Field { what: "routing key outside its mask", value: key });
        }
        if index >= ENTRIES {
            return Err(WireError::Field { what: "routing entry", value: index.into() });
        }
        Ok(Self {
            index: U16::new(index),
            pad: U16::ZERO,
            route: U32::new(route.0),
            key: U32::new(key),
            mask: U32::new(mask),
        })
    }

    /// Reads an entry and returns what is behind it.
    ///
    /// # Errors
    /// [`WireError::Truncated`].
    pub fn read(bytes: &[u8]) -> Result<(&Self, &[u8])> {
        prefix("routing entry", bytes)
    }
}

impl fmt::Display for LoadEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (key, mask) = (self.key.get(), self.mask.get());
        write!(f, "route {} {key:08x}/{mask:08x} {}", self.index, Route(self.route.get()))
    }
}

/// An entry of the monitor's copy of the table; routes with virtual cores.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct CopyEntry {
    /// In the first entry of an allocation block: the index behind it.
    pub next: U16,
    /// Next free block, or of a used entry 0x8000 | core << 8 | application.
    pub free: U16,
    /// See [`Route`].
    pub route: U32,
    /// Key.
    pub key: U32,
    /// Mask.
    pub mask: U32,
}

const _: () = assert!(size_of::<CopyEntry>() == ENTRY_BYTES);

impl CopyEntry {
    /// Reads an entry and returns what is behind it.
    ///
    /// # Errors
    /// [`WireError::Truncated`].
    pub fn read(bytes: &[u8]) -> Result<(&Self, &[u8])> {
        prefix("routing entry copy", bytes)
    }

    /// Whether it holds no route.
    pub fn is_unused(&self) -> bool {
        self.route.get() == UNUSED_ROUTE
    }

    /// The application and core that wrote it.
    pub fn owner(&self) -> Option<(AppId, u8)> {
        let free = self.free.get();
        (free & 0x8000 != 0).then_some((AppId(free as u8), (free >> 8 & 0x1F) as u8))
    }
}

impl fmt::Display for CopyEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_unused() {
            return f.write_str("route unused");
        }
        write!(f, "route {:08x}/{:08x} {}", self.key.get(), self.mask.get(), Route(self.route.get()))
    }
}

raw_enum! {
    /// An entry of the P2P table; three bits.
    pub enum P2pRoute(u8) {
        /// By link 0.
        East = 0 "E",
        /// By link 1.
        NorthEast = 1 "NE",
        /// By link 2.
        North = 2 "N",
        /// By link 3.
        West = 3 "W",
        /// By link 4.
        SouthWest = 4 "SW",
        /// By link 5.
        South = 5 "S",
        /// Nowhere: there is no such chip, or no way to it.
        Drop = 6 "drop",
        /// To the monitor: it is this chip.
        Monitor = 7 "monitor",
    }
}

impl P2pRoute {
    /// The link, if it leaves the chip.
    pub const fn link(self) -> Option<crate::LinkId> {
        match self.raw() {
            link @ 0..=5 => Some(crate::LinkId::from_raw(link)),
            _ => None,
        }
    }
}

/// The P2P table in the router's registers: eight entries to a word.
pub mod p2p_table {
    use super::*;

    /// Where it lies.
    pub const ADDRESS: u32 = 0xE101_0000;
    /// Bytes between columns.
    pub const COLUMN_BYTES: u32 = 128;
    /// A word of eight entries "drop".
    pub const WORD_DROP: u32 = 0x00DB_6DB6;

    /// The address of the word that has a chip's entry.
    pub const fn word_address(chip: ChipAddress) -> u32 {
        ADDRESS + (chip.0 as u32 / 8) * 4
    }

    /// Bytes of a column of a machine of that height, to be read from `word_address((x, 0))`.
    pub const fn column_bytes(height: u8) -> u32 {
        (height as u32).div_ceil(8) * 4
    }

    /// A chip's entry in its word.
    pub const fn entry(word: u32, chip: ChipAddress) -> P2pRoute {
        P2pRoute::from_raw((word >> shift(chip) & 7) as u8)
    }

    /// The word with a chip's entry replaced.
    pub const fn with_entry(word: u32, chip: ChipAddress, route: P2pRoute) -> u32 {
        word & !(7 << shift(chip)) | (route.raw() as u32 & 7) << shift(chip)
    }

    const fn shift(chip: ChipAddress) -> u32 {
        (chip.0 as u32 % 8) * 3
    }
}

/// An entry of the hop table, `sv.hop_table[address]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct HopEntry(pub u32);

impl HopEntry {
    /// Nothing is known of the chip.
    pub const UNKNOWN: Self = Self(0x8000_FFFF);

    /// Hops to the chip, if known.
    pub const fn hops(self) -> Option<u16> {
        if self.0 >> 31 != 0 { None } else { Some(self.0 as u16) }
    }

    /// Bytes of a chip's entry from the table's start.
    pub const fn offset_bytes(chip: ChipAddress) -> u32 {
        chip.0 as u32 * 4
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::string::ToString;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn routes_after_boot_of_four_chips() {
        // Multicast entry 0 of chips (0,0), (1,0), (1,1): monitors are physical cores 1, 2, 17.
        assert_eq!(Route::new(0b111, 1 << 1).0, 0x87);
        assert_eq!(Route::new(0, 1 << 2).0, 0x100);
        assert_eq!(Route::new(0, 1 << 17).0, 0x0080_0000);
        assert_eq!(Route(0x87).to_string(), "links 0x07 cores 0x00002");
    }

    #[test]
    fn p2p_entries_lie_eight_to_a_word() {
        let mut word = p2p_table::WORD_DROP;
        for k in 0..8 {
            assert_eq!(p2p_table::entry(word, ChipAddress(k)), P2pRoute::Drop);
        }
        // Chip (1, 0) of the four: (0,0) by W, itself.
        word = p2p_table::with_entry(word, ChipAddress::new(1, 0), P2pRoute::Monitor);
        assert_eq!(word, 0x00DB_6DB7);
        assert_eq!(p2p_table::word_address(ChipAddress::new(1, 0)), 0xE101_0080);
        assert_eq!(p2p_table::word_address(ChipAddress::new(0, 9)), 0xE101_0004);
        assert_eq!(p2p_table::column_bytes(8), 4);
        assert_eq!(p2p_table::column_bytes(12), 8);
        assert_eq!(P2pRoute::West.link(), Some(crate::LinkId::West));
        assert_eq!(P2pRoute::Drop.link(), None);
        assert_eq!(HopEntry::UNKNOWN.hops(), None);
        assert_eq!(HopEntry(0x0500_0003).hops(), Some(3));
    }

    #[test]
    fn entries_as_they_lie_in_memory() {
        let entry = LoadEntry::new(3, Route::new(1, 2), 0x1234_0000, 0xFFFF_0000).unwrap();
        assert_eq!(entry.as_bytes(), [3, 0, 0, 0, 0x81, 0, 0, 0, 0, 0, 0x34, 0x12, 0, 0, 0xFF, 0xFF]);
        assert!(LoadEntry::new(3, Route(0), 1, 0xFFFF_0000).is_err());
        assert!(LoadEntry::new(1024, Route(0), 0, 0).is_err());
        let mut bytes = [0; 16];
        bytes[2..4].copy_from_slice(&[30, 0x81]);
        assert_eq!(CopyEntry::read(&bytes).unwrap().0.owner(), Some((AppId(30), 1)));
        bytes[7] = 0xFF;
        assert!(CopyEntry::read(&bytes).unwrap().0.is_unused());
    }

    proptest! {
        #[test]
        fn an_entry_is_where_it_was_put(word in any::<u32>(), chip in any::<u16>(), raw in 0u8..8) {
            let (chip, route) = (ChipAddress(chip), P2pRoute::from_raw(raw));
            let word = p2p_table::with_entry(word, chip, route);
            prop_assert_eq!(p2p_table::entry(word, chip), route);
        }
    }
}
