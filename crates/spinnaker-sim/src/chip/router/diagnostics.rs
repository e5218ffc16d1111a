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
    /// Bit per emergency state with which a copy left.
    pub states: u8,
}

/// Compare the emergency field with what left, not with what came.
const OUTGOING: u32 = 1 << 8;
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
        let outgoing = facts & !(0xF << 4) | u32::from(passed.states) << 4;
        for i in 0..16 {
            if self.enable >> i & 1 == 0 {
                continue;
            }
            let met = self.filters[i] & if self.filters[i] & OUTGOING == 0 { facts } else { outgoing };
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

/// A packet as bits of a filter word, with the emergency state with which it came: bits 5:4 of its control byte, whatever they
/// mean in a packet of its type.
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

    /// Bits that are set in each field: anything there matches.
    const ALL: u32 = 0x01FF_FCFF;

    /// Whether a filter counts a packet.
    fn counts(filter: u32, routed: Routed, passed: Passed) -> bool {
        let mut diagnostics = Diagnostics::new();
        diagnostics.set_filter(5, filter);
        diagnostics.set_enable(1 << 5);
        diagnostics.count(routed, passed, 3);
        let counted = diagnostics.counter(5) == 1;
        assert_eq!(diagnostics.read_filter(5), if counted { filter | EVENT } else { filter });
        counted
    }

    #[test]
    fn each_bit_of_a_filter_selects_what_the_data_sheet_says() {
        let [short, long] = [None, Some(7)].map(|payload| Packet::new(0, 1, payload));
        let of_kind = |control| Routed { packet: Packet::new(control, 1, None), route: 2 };
        let in_state = |state| Routed { packet: short.with_emergency(state), route: 2 };
        let at = |packet, route| Routed { packet, route };
        let to = |outputs| Passed { outputs, states: 1, ..Passed::default() };
        let link = to(1);
        let dumped = Passed { dumped: true, ..Passed::default() };
        let by_default = Passed { default_routed: true, ..link };
        // The field, and for each of its bits from the lowest a packet that has that one alone. The monitor is core 3.
        let table = [
            (0, vec![0x00, 0x40, 0x80, 0xC0].into_iter().map(|control| (of_kind(control), link)).collect::<Vec<_>>()),
            (4, (0..4).map(|state| (in_state(state), link)).collect()),
            (10, vec![(at(short, 2), by_default), (at(short, 2), link)]),
            (12, vec![(at(long, 2), link), (at(short, 2), link)]),
            (14, vec![(at(short, LOCAL), link), (at(short, 0), link)]),
            (
                16,
                [dumped, to(1 << (6 + 17)), to(1 << (6 + 3))]
                    .into_iter()
                    .chain((0..6).map(|link| to(1 << link)))
                    .map(|passed| (at(short, 2), passed))
                    .collect(),
            ),
        ];
        for (low, packets) in table {
            let field = ((1 << packets.len()) - 1) << low;
            for (i, &(routed, passed)) in packets.iter().enumerate() {
                let bit = 1 << (low + i);
                assert!(counts(ALL, routed, passed), "bit {}", low + i);
                assert!(counts(ALL & !field | bit, routed, passed), "bit {} alone", low + i);
                assert!(!counts(ALL & !bit, routed, passed), "all but bit {}", low + i);
            }
        }
        // To several places: one of them is enough, and it counts once.
        let several = to(1 << 2 | 1 << (6 + 3));
        assert!(counts(ALL & !(0x1FF << 16) | 1 << 21, at(short, 2), several));
        assert!(counts(ALL & !(0x1FF << 16) | 1 << 18, at(short, 2), several));
        assert!(!counts(ALL & !(1 << 21 | 1 << 18), at(short, 2), several));
    }

    #[test]
    fn the_emergency_state_is_the_one_that_came_or_one_that_left() {
        // It came diverted together with a normal copy (1); it leaves as normal (0) and reverting (3).
        let routed = Routed { packet: Packet::new(0, 1, None).with_emergency(1), route: 2 };
        let passed = Passed { outputs: 0b11, states: 1 << 0 | 1 << 3, ..Passed::default() };
        let of_state = |state: u32| ALL & !0xF0 | 1 << (4 + state);
        assert_eq!([0, 1, 2, 3].map(|state| counts(of_state(state), routed, passed)), [false, true, false, false]);
        let outgoing = |state| of_state(state) | OUTGOING;
        assert_eq!([0, 1, 2, 3].map(|state| counts(outgoing(state), routed, passed)), [true, false, false, true]);
    }

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
