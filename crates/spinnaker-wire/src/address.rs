//! Names of chips, cores, ports, links and applications.

use core::fmt;

use crate::bytes::raw_enum;

/// A chip's address in P2P form, `x << 8 | y` (protocols of SC&MP: "P2P address").
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ChipAddress(pub u16);

impl ChipAddress {
    /// (255, 255): the root chip, the one that was booted through Ethernet.
    pub const ROOT: Self = Self(0xFFFF);

    /// The chip at `x`, `y`.
    pub const fn new(x: u8, y: u8) -> Self {
        Self((x as u16) << 8 | y as u16)
    }

    /// Column.
    pub const fn x(self) -> u8 {
        (self.0 >> 8) as u8
    }

    /// Row.
    pub const fn y(self) -> u8 {
        self.0 as u8
    }
}

impl fmt::Display for ChipAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{},{}", self.x(), self.y())
    }
}

impl fmt::Debug for ChipAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ChipAddress({self})")
    }
}

/// A virtual core and one of its eight SDP ports in one byte: port in bits 7:5, core in bits 4:0.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct CorePort(pub u8);

impl CorePort {
    /// Port 7 of core 31: the host, behind Ethernet.
    pub const ETHERNET: Self = Self(0xFF);
    /// Port 0 of core 0: the monitor's commands.
    pub const MONITOR: Self = Self(0);

    /// Of both numbers the bits that fit are taken: 5 of the core, 3 of the port.
    pub const fn new(core: u8, port: u8) -> Self {
        Self((port & 7) << 5 | core & 31)
    }

    /// Virtual core, 0..=31 (0 is the monitor; in requests to a BMP the board).
    pub const fn core(self) -> u8 {
        self.0 & 31
    }

    /// SDP port, 0..=7; port 0 belongs to the kernel.
    pub const fn port(self) -> u8 {
        self.0 >> 5
    }
}

impl fmt::Display for CorePort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::ETHERNET {
            f.write_str("eth")
        } else if self.port() == 0 {
            write!(f, "{}", self.core())
        } else {
            write!(f, "{}:{}", self.core(), self.port())
        }
    }
}

impl fmt::Debug for CorePort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CorePort({self})")
    }
}

/// An application's number; 0 is the idle kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct AppId(pub u8);

impl fmt::Display for AppId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "app {}", self.0)
    }
}

/// A set of virtual cores, bit n for core n; bits 17:0.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct CoreMask(pub u32);

impl CoreMask {
    /// The bits that stand for cores.
    pub const BITS: u32 = 0x3FFFF;

    /// The cores of a range, as far as they are below 18.
    pub const fn range(first: u32, last: u32) -> Self {
        let mut mask = 0;
        let mut core = first;
        while core <= last && core < 18 {
            mask |= 1 << core;
            core += 1;
        }
        Self(mask)
    }

    /// How many cores.
    pub const fn count(self) -> u32 {
        self.0.count_ones()
    }
}

impl fmt::Display for CoreMask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cores {:#07x}", self.0)
    }
}

impl fmt::Debug for CoreMask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CoreMask({:#07x})", self.0)
    }
}

raw_enum! {
    /// One of a chip's six links.
    pub enum LinkId(u8) {
        /// Towards x + 1.
        East = 0 "E",
        /// Towards x + 1, y + 1.
        NorthEast = 1 "NE",
        /// Towards y + 1.
        North = 2 "N",
        /// Towards x - 1.
        West = 3 "W",
        /// Towards x - 1, y - 1.
        SouthWest = 4 "SW",
        /// Towards y - 1.
        South = 5 "S",
    }
}

impl LinkId {
    /// The same link as the neighbour counts it; a number without a name stays.
    pub const fn opposite(self) -> Self {
        match self {
            Self::Unknown(_) => self,
            known => Self::from_raw((known.raw() + 3) % 6),
        }
    }
}

raw_enum! {
    /// The unit of memory accesses that the monitor makes for READ and WRITE.
    pub enum Unit(u32) {
        /// One byte at a time.
        Byte = 0 "byte",
        /// Two bytes.
        Half = 1 "half",
        /// Four bytes: the only one that device registers take.
        Word = 2 "word",
    }
}

impl Unit {
    /// The widest unit to which both address and length are aligned, as the official host chooses it.
    pub const fn for_range(address: u32, length_bytes: u32) -> Self {
        match (address | length_bytes) % 4 {
            0 => Self::Word,
            2 => Self::Half,
            _ => Self::Byte,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chips_cores_and_links() {
        assert_eq!(ChipAddress::new(3, 4).0, 0x0304);
        assert_eq!((ChipAddress(0x0B07).x(), ChipAddress(0x0B07).y()), (11, 7));
        assert_eq!(CorePort::new(17, 1).0, 0x31);
        assert_eq!(CorePort::ETHERNET, CorePort::new(31, 7));
        assert_eq!(LinkId::NorthEast.opposite(), LinkId::SouthWest);
        assert_eq!(LinkId::from_raw(9).raw(), 9);
        assert_eq!(CoreMask::range(1, 17).0, 0x3FFFE);
        assert_eq!(CoreMask::range(1, 99).count(), 17);
    }

    #[test]
    fn the_unit_follows_address_and_length() {
        for (address, length, unit) in
            [(0, 4, Unit::Word), (2, 4, Unit::Half), (4, 6, Unit::Half), (1, 4, Unit::Byte), (4, 3, Unit::Byte)]
        {
            assert_eq!(Unit::for_range(address, length), unit, "{address} {length}");
        }
    }
}
