//! Diagnostic filters and counters of the router. Data sheet section 10.11.

use super::super::comms::{LOCAL, Routed};

/// What became of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Passed {
    /// Outputs that took it: bits 5:0 links, 23:6 cores.
    pub outputs: u32,
    /// Some output did not, or there was none.
    pub dumped: bool,
    pub default_routed: bool,
}

const FILTER_BITS: u32 = 0x41FF_FDFF;
const ENABLE: u32 = 1 << 30;
const EVENT: u32 = 1 << 29;

pub(super) struct Diagnostics {
    filters: [u32; 16],
    counters: [u32; 16],
    enable: u32,
}

impl Diagnostics {
    pub fn new() -> Self {
        Self { filters: [0; 16], counters: [0; 16], enable: 0 }
    }

    /// Counts a packet at all filters that it matches: in each of the six fields at least one set bit.
    pub fn count(&mut self, routed: Routed, passed: Passed, monitor: u32) {
        if self.enable == 0 {
            return;
        }
        let facts = facts(routed, passed, monitor);
        for i in 0..16 {
            if self.enable >> i & 1 == 0 {
                continue;
            }
            let met = self.filters[i] & facts;
            const FIELDS: [u32; 6] = [0x1FF << 16, 3 << 14, 3 << 12, 3 << 10, 0xF << 4, 0xF];
            if FIELDS.iter().all(|field| met & field != 0) {
                self.counters[i] = self.counters[i].wrapping_add(1);
                self.filters[i] |= EVENT;
            }
        }
    }

    /// Bit per counter whose interrupt is active.
    pub fn interrupts(&self) -> u32 {
        let active = |filter: u32| filter & ENABLE != 0 && filter & EVENT != 0;
        (0..16).fold(0, |bits, i| bits | u32::from(active(self.filters[i])) << i)
    }

    pub fn enable(&self) -> u32 {
        self.enable
    }

    pub fn set_enable(&mut self, value: u32) {
        self.enable = value & 0xFFFF;
        for i in 0..16 {
            if value >> (16 + i) & 1 != 0 {
                self.counters[i] = 0;
            }
        }
    }

    /// Reading clears the event.
    pub fn read_filter(&mut self, i: usize) -> u32 {
        let filter = self.filters[i];
        self.filters[i] &= !EVENT;
        filter | u32::from(filter & ENABLE != 0 && filter & EVENT != 0) << 31
    }

    pub fn set_filter(&mut self, i: usize, value: u32) {
        self.filters[i] = value & FILTER_BITS;
    }

    pub fn counter(&self, i: usize) -> u32 {
        self.counters[i]
    }

    pub fn set_counter(&mut self, i: usize, value: u32) {
        self.counters[i] = value;
    }
}

/// A packet as bits of a filter word. The emergency state is the incoming one; "match the outgoing" (bit 8) is not
/// distinguished.
fn facts(routed: Routed, passed: Passed, monitor: u32) -> u32 {
    let Routed { packet, route } = routed;
    let links = passed.outputs & 0x3F;
    let monitor_bit = 1u32.checked_shl(6 + monitor).unwrap_or(0);
    let to_monitor = passed.outputs & monitor_bit != 0;
    let to_cores = passed.outputs & 0x00FF_FFC0 & !monitor_bit != 0;
    links << 19
        | u32::from(to_monitor) << 18
        | u32::from(to_cores) << 17
        | u32::from(passed.dumped) << 16
        | if route == LOCAL { 1 << 14 } else { 1 << 15 }
        | if packet.long() { 1 << 12 } else { 1 << 13 }
        | if passed.default_routed { 1 << 10 } else { 1 << 11 }
        | 1 << (4 + packet.emergency())
        | 1 << (packet.control >> 6)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::Packet;

    #[test]
    fn the_filters_of_the_system_software() {
        let mut diagnostics = Diagnostics::new();
        let filters =
            [0x01FE_7CF1, 0x01FE_BCF1, 0x01FE_7CF2, 0x01FE_BCF2, 0x01FE_7CF4, 0x01FE_BCF4, 0x01FE_7CF8, 0x01FE_BCF8];
        for (i, filter) in filters.into_iter().chain([0x0001_FCF1, 0x0001_FCF2]).enumerate() {
            diagnostics.set_filter(i, filter);
        }
        diagnostics.set_enable(0xFFFF_0000);
        diagnostics.set_enable(0x0000_FFFF);
        let taken = Passed { outputs: 1 << 2, ..Passed::default() };
        let dumped = Passed { dumped: true, ..Passed::default() };
        let packet = |control, route| Routed { packet: Packet::new(control, 1, None), route };
        diagnostics.count(packet(0x00, LOCAL), taken, 1);
        diagnostics.count(packet(0x00, 3), taken, 1);
        diagnostics.count(packet(0x40, 3), taken, 1);
        diagnostics.count(packet(0x80, LOCAL), taken, 1);
        diagnostics.count(packet(0x40, LOCAL), dumped, 1);
        let counters: Vec<u32> = (0..16).map(|i| diagnostics.counter(i)).collect();
        assert_eq!(counters, [1, 1, 0, 1, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
        assert_eq!(diagnostics.interrupts(), 0);
        diagnostics.set_filter(12, 0x4000_0000 | 0x01FE_FCF1);
        diagnostics.count(packet(0x00, LOCAL), taken, 1);
        assert_eq!((diagnostics.interrupts(), diagnostics.read_filter(12) >> 29), (1 << 12, 0b111));
        assert_eq!((diagnostics.interrupts(), diagnostics.counter(12)), (0, 1));
    }
}
