//! Cycle counters of the router: timing control (030), cycles (034), cycles in emergency routing (038), packets that were
//! not delayed (03C). Data sheet section 10.
//!
//! Not modelled: the histogram of delays (040 to 07C). The register list has 16 counters, enabled and reset together with the
//! count of undelayed packets; the widths of their bins are in no source at hand. They read as zero.

/// Enables of the timing control: cycle counter, emergency counter, counting of packets.
const CYCLES: u32 = 1;
const EMERGENCY: u32 = 2;
const PACKETS: u32 = 4;

/// Counters, brought up to a time when something that they depend on changes.
#[derive(Debug, Default)]
pub(crate) struct RouterTiming {
    control: u32,
    cycles: u32,
    emergency_cycles: u32,
    undelayed: u32,
    /// The second wait goes on: emergency routing is active.
    emergency: bool,
    at_ps: u64,
}

impl RouterTiming {
    /// Counts up to `now_ps`. A counter wraps around.
    fn advance(&mut self, now_ps: u64, period_ps: u64) {
        let cycles = now_ps.saturating_sub(self.at_ps) / period_ps.max(1);
        self.at_ps += cycles * period_ps;
        if self.control & CYCLES != 0 {
            self.cycles = self.cycles.wrapping_add(cycles as u32);
        }
        if self.control & EMERGENCY != 0 && self.emergency {
            self.emergency_cycles = self.emergency_cycles.wrapping_add(cycles as u32);
        }
    }

    pub fn read(&mut self, offset: u32, now_ps: u64, period_ps: u64) -> u32 {
        self.advance(now_ps, period_ps);
        match offset {
            0x30 => self.control,
            0x34 => self.cycles,
            0x38 => self.emergency_cycles,
            0x3C => self.undelayed,
            _ => 0,
        }
    }

    /// Writes the control register: 2:0 enables, 18:16 resets of what they enable.
    pub fn write(&mut self, value: u32, now_ps: u64, period_ps: u64) {
        self.advance(now_ps, period_ps);
        self.control = value & (CYCLES | EMERGENCY | PACKETS);
        let reset = value >> 16;
        if reset & CYCLES != 0 {
            self.cycles = 0;
        }
        if reset & EMERGENCY != 0 {
            self.emergency_cycles = 0;
        }
        if reset & PACKETS != 0 {
            self.undelayed = 0;
        }
    }

    /// The output stage enters, or leaves, the second wait.
    pub fn set_emergency(&mut self, emergency: bool, now_ps: u64, period_ps: u64) {
        if emergency != self.emergency {
            self.advance(now_ps, period_ps);
            self.emergency = emergency;
        }
    }

    /// A packet passed without a wait.
    pub fn count_undelayed(&mut self) {
        if self.control & PACKETS != 0 {
            self.undelayed = self.undelayed.wrapping_add(1);
        }
    }

    /// The router's clock gets another period.
    pub fn change_period(&mut self, now_ps: u64, old_period_ps: u64) {
        self.advance(now_ps, old_period_ps);
        self.at_ps = now_ps;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PERIOD: u64 = 7500;

    #[test]
    fn counts_what_is_enabled_and_resets_what_is_said() {
        let mut timing = RouterTiming::default();
        assert_eq!(timing.read(0x34, 100 * PERIOD, PERIOD), 0);
        timing.write(CYCLES | EMERGENCY, 100 * PERIOD, PERIOD);
        assert_eq!(timing.read(0x34, 150 * PERIOD + 1, PERIOD), 50);
        timing.set_emergency(true, 160 * PERIOD, PERIOD);
        timing.set_emergency(false, 190 * PERIOD, PERIOD);
        assert_eq!((timing.read(0x34, 200 * PERIOD, PERIOD), timing.read(0x38, 200 * PERIOD, PERIOD)), (100, 30));
        timing.count_undelayed();
        assert_eq!(timing.read(0x3C, 200 * PERIOD, PERIOD), 0);
        timing.write(PACKETS | 1 << 16, 200 * PERIOD, PERIOD);
        timing.count_undelayed();
        let read = [0x30, 0x34, 0x38, 0x3C, 0x40].map(|offset| timing.read(offset, 300 * PERIOD, PERIOD));
        assert_eq!(read, [4, 0, 30, 1, 0]);
    }

    #[test]
    fn another_clock_counts_from_its_change() {
        let mut timing = RouterTiming::default();
        timing.write(CYCLES, 0, 100_000);
        timing.change_period(1_050_000, 100_000);
        assert_eq!(timing.read(0x34, 1_050_000 + 10 * PERIOD, PERIOD), 20);
    }
}
