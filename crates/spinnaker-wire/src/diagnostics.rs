//! Registers of the router that hosts use: control, diagnostic filters and counters (data sheet, section 10).

use core::fmt;

use crate::bytes::raw_enum;

/// Where the registers lie (unbuffered view).
pub const ROUTER_ADDRESS: u32 = 0xF100_0000;
/// The control register, see [`RouterControl`].
pub const CONTROL_ADDRESS: u32 = ROUTER_ADDRESS;
/// Which counters count (bits 15:0), and which are set to zero by this write (bits 31:16).
pub const COUNTER_ENABLE_ADDRESS: u32 = ROUTER_ADDRESS + 0x2C;
/// Filters and counters.
pub const COUNTERS: u8 = 16;
/// Filters from here on are the user's; SC&MP sets those before ([`Counter`]).
pub const COUNTERS_FIXED: u8 = 12;

/// The address of a filter.
pub const fn filter_address(number: u8) -> u32 {
    ROUTER_ADDRESS + 0x200 + 4 * number as u32
}

/// The address of a counter.
pub const fn counter_address(number: u8) -> u32 {
    ROUTER_ADDRESS + 0x300 + 4 * number as u32
}

raw_enum! {
    /// What a counter counts with the filters that SC&MP sets.
    pub enum Counter(u8) {
        /// Multicast packets of this chip's cores.
        LocalMulticast = 0 "local multicast",
        /// Multicast packets that came by links.
        ExternalMulticast = 1 "external multicast",
        /// Point-to-point packets of this chip's cores.
        LocalPointToPoint = 2 "local point to point",
        /// Point-to-point packets that came by links.
        ExternalPointToPoint = 3 "external point to point",
        /// Nearest-neighbour packets of this chip's cores.
        LocalNearestNeighbour = 4 "local nearest neighbour",
        /// Nearest-neighbour packets that came by links.
        ExternalNearestNeighbour = 5 "external nearest neighbour",
        /// Fixed-route packets of this chip's cores.
        LocalFixedRoute = 6 "local fixed route",
        /// Fixed-route packets that came by links.
        ExternalFixedRoute = 7 "external fixed route",
        /// Multicast packets that were dropped.
        DroppedMulticast = 8 "dropped multicast",
        /// Point-to-point packets that were dropped.
        DroppedPointToPoint = 9 "dropped point to point",
        /// Nearest-neighbour packets that were dropped.
        DroppedNearestNeighbour = 10 "dropped nearest neighbour",
        /// Fixed-route packets that were dropped.
        DroppedFixedRoute = 11 "dropped fixed route",
        /// Of the user.
        User0 = 12 "user 0",
        /// Of the user.
        User1 = 13 "user 1",
        /// Of the user.
        User2 = 14 "user 2",
        /// Of the user.
        User3 = 15 "user 3",
    }
}

/// Which packets a counter counts: those that have at least one of the bits in each of six fields.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Filter(pub u32);

impl Filter {
    /// Kind of packet: multicast.
    pub const MULTICAST: u32 = 1;
    /// Kind of packet: point to point.
    pub const POINT_TO_POINT: u32 = 1 << 1;
    /// Kind of packet: nearest neighbour.
    pub const NEAREST_NEIGHBOUR: u32 = 1 << 2;
    /// Kind of packet: fixed route.
    pub const FIXED_ROUTE: u32 = 1 << 3;
    /// Destination: dropped.
    pub const TO_NOWHERE: u32 = 1 << 16;
    /// Destination: a core that is not the monitor.
    pub const TO_CORES: u32 = 1 << 17;
    /// Destination: the monitor.
    pub const TO_MONITOR: u32 = 1 << 18;
    /// Destination: link 0; the others follow.
    pub const TO_LINK_0: u32 = 1 << 19;
    /// The bits that select packets (the others are interrupt bits, and one that does not exist).
    pub const BITS: u32 = 0x01FF_FDFF;

    const KINDS: u32 = 0xF;
    const DEFAULT_ROUTED: u32 = 1 << 10;
    const NOT_DEFAULT_ROUTED: u32 = 1 << 11;
    const PAYLOAD: u32 = 1 << 12;
    const NO_PAYLOAD: u32 = 1 << 13;
    const LOCAL: u32 = 1 << 14;
    const EXTERNAL: u32 = 1 << 15;
    const DESTINATIONS: u32 = 0x1FF << 16;

    /// All packets of some kinds.
    pub const fn of_kinds(kinds: u32) -> Self {
        Self((Self::BITS & !Self::KINDS & !(1 << 8)) | kinds & Self::KINDS)
    }

    /// Of these, those of this chip's cores, or those that came by links.
    pub const fn local(self, local: bool) -> Self {
        self.choose(Self::LOCAL, Self::EXTERNAL, local)
    }

    /// Of these, those with a payload, or those without.
    pub const fn payload(self, payload: bool) -> Self {
        self.choose(Self::PAYLOAD, Self::NO_PAYLOAD, payload)
    }

    /// Of these, those that went straight on because no entry matched, or the others.
    pub const fn default_routed(self, default_routed: bool) -> Self {
        self.choose(Self::DEFAULT_ROUTED, Self::NOT_DEFAULT_ROUTED, default_routed)
    }

    /// Of these, those with one of some destinations (`TO_` constants).
    pub const fn destinations(self, destinations: u32) -> Self {
        Self(self.0 & !Self::DESTINATIONS | destinations & Self::DESTINATIONS)
    }

    const fn choose(self, yes: u32, no: u32, is_yes: bool) -> Self {
        Self(self.0 & !(yes | no) | if is_yes { yes } else { no })
    }

    /// What SC&MP 4.0.0 sets a filter to; zero (nothing) for those of the user.
    pub const fn of_monitor(number: u8) -> Self {
        let kinds = 1
            << match number {
                0..=7 => number / 2,
                8..=11 => number - 8,
                _ => return Self(0),
            };
        if number >= 8 {
            return Self::of_kinds(kinds).destinations(Self::TO_NOWHERE);
        }
        let taken = Self::DESTINATIONS & !Self::TO_NOWHERE;
        Self::of_kinds(kinds).local(number.is_multiple_of(2)).destinations(taken)
    }
}

impl fmt::Debug for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Filter({:#010x})", self.0)
    }
}

/// How long the router waits, as eight bits of a floating-point number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct WaitCode(pub u8);

impl WaitCode {
    /// For ever.
    pub const FOREVER: Self = Self(0xFF);

    /// The time in cycles of the router; `None` for ever.
    pub const fn cycles(self) -> Option<u32> {
        let (mantissa, exponent) = ((self.0 & 15) as u32, self.0 >> 4);
        match exponent {
            15 if mantissa == 15 => None,
            0..=4 => Some((mantissa + 16 - (1 << (4 - exponent))) << exponent),
            _ => Some((mantissa + 16) << exponent),
        }
    }

    /// The shortest wait of at least so many cycles of the router.
    pub const fn at_least(cycles: u32) -> Self {
        let mut code = 0;
        while let Some(got) = Self(code).cycles() {
            if got >= cycles {
                break;
            }
            code += 1;
        }
        Self(code)
    }
}

/// The router's control register.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RouterControl(pub u32);

impl RouterControl {
    /// How long a blocked packet waits before it is sent by the next link (emergency routing).
    pub const fn wait1(self) -> WaitCode {
        WaitCode((self.0 >> 16) as u8)
    }

    /// How long it waits after that before it is dropped; 0: there is no emergency routing.
    pub const fn wait2(self) -> WaitCode {
        WaitCode((self.0 >> 24) as u8)
    }

    /// The physical core that is the monitor.
    pub const fn monitor(self) -> u8 {
        (self.0 >> 8 & 0x1F) as u8
    }

    /// The register with other waits.
    pub const fn with_waits(self, wait1: WaitCode, wait2: WaitCode) -> Self {
        Self(self.0 & 0xFFFF | (wait1.0 as u32) << 16 | (wait2.0 as u32) << 24)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_of_the_system_software() {
        let words = [
            0x01FE_7CF1,
            0x01FE_BCF1,
            0x01FE_7CF2,
            0x01FE_BCF2,
            0x01FE_7CF4,
            0x01FE_BCF4,
            0x01FE_7CF8,
            0x01FE_BCF8,
            0x0001_FCF1,
            0x0001_FCF2,
            0x0001_FCF4,
            0x0001_FCF8,
            0,
            0,
            0,
            0,
        ];
        for (number, word) in (0..).zip(words) {
            assert_eq!(Filter::of_monitor(number), Filter(word), "{number}");
        }
    }

    #[test]
    fn waits_are_floating_point_numbers() {
        // SC&MP's own; the register's value at reset of the ROM; the ends.
        assert_eq!(RouterControl(0x0040_0101).wait1().cycles(), Some(240));
        assert_eq!(WaitCode(0).cycles(), Some(0));
        assert_eq!(WaitCode(0x2F).cycles(), Some((15 + 16 - 4) * 4));
        assert_eq!(WaitCode(0x50).cycles(), Some(16 * 32));
        assert_eq!(WaitCode::FOREVER.cycles(), None);
        assert_eq!((WaitCode::at_least(0), WaitCode::at_least(240)), (WaitCode(0), WaitCode(0x40)));
        assert_eq!(WaitCode::at_least(241), WaitCode(0x41));
        assert_eq!(WaitCode::at_least(u32::MAX), WaitCode::FOREVER);
        let control = RouterControl(0x0040_0501).with_waits(WaitCode(0x12), WaitCode(0x34));
        assert_eq!((control, control.monitor()), (RouterControl(0x3412_0501), 5));
    }
}
