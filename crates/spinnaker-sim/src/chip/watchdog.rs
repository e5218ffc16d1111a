//! Watchdog (ARM SP805). Data sheet section 16. Times in picoseconds; it counts at the system clock.

const UNLOCK: u32 = 0x1ACC_E551;

pub(crate) struct Watchdog {
    load: u32,
    control: u32,
    locked: bool,
    /// Count at `since_ps`, when it runs.
    count: u32,
    since_ps: u64,
    period_ps: u64,
    raw: bool,
    /// Both stages ran out with the reset enabled.
    expired: bool,
}

impl Watchdog {
    pub fn new(period_ps: u64) -> Self {
        Self {
            load: u32::MAX,
            control: 0,
            locked: false,
            count: u32::MAX,
            since_ps: 0,
            period_ps,
            raw: false,
            expired: false,
        }
    }

    fn running(&self) -> bool {
        self.control & 1 != 0 && !self.expired
    }

    /// When it comes to zero next.
    fn zero_ps(&self) -> u64 {
        self.since_ps.saturating_add(u64::from(self.count).max(1) * self.period_ps)
    }

    /// When it does something next.
    pub fn next_ps(&self) -> Option<u64> {
        // With the interrupt there and no reset wanted another zero changes nothing.
        let matters = !self.raw || self.control & 2 != 0;
        (self.running() && matters).then(|| self.zero_ps())
    }

    fn advance(&mut self, now_ps: u64) {
        while self.running() && self.zero_ps() <= now_ps {
            let zero = self.zero_ps();
            self.expired = self.raw && self.control & 2 != 0;
            // With the interrupt there nothing changes any more: skip whole turns.
            let turn = u64::from(self.load).max(1) * self.period_ps;
            let turns = if self.raw { (now_ps - zero) / turn } else { 0 };
            (self.raw, self.count, self.since_ps) = (true, self.load, zero + turns * turn);
        }
    }

    /// The clock changes.
    pub fn set_period(&mut self, period_ps: u64, now_ps: u64) {
        self.settle(now_ps);
        self.period_ps = period_ps.max(1);
    }

    fn settle(&mut self, now_ps: u64) {
        self.advance(now_ps);
        if self.running() {
            let counts = now_ps.saturating_sub(self.since_ps) / self.period_ps;
            self.count -= (counts as u32).min(self.count);
        }
        self.since_ps = now_ps;
    }

    /// Whether the chip is to be reset, at this time.
    pub fn expired(&mut self, now_ps: u64) -> bool {
        self.advance(now_ps);
        self.expired
    }

    /// Interrupt 0.
    pub fn interrupt(&self) -> bool {
        self.raw && self.control & 1 != 0
    }

    pub fn read(&mut self, offset: u32, now_ps: u64) -> u32 {
        self.advance(now_ps);
        match offset {
            0x000 => self.load,
            0x004 if self.running() => {
                let counts = now_ps.saturating_sub(self.since_ps) / self.period_ps;
                self.count - (counts as u32).min(self.count)
            }
            0x004 => self.count,
            0x008 => self.control,
            0x010 => u32::from(self.raw),
            0x014 => u32::from(self.interrupt()),
            0xC00 => u32::from(self.locked),
            0xFE0 => 0x05,
            _ => 0,
        }
    }

    pub fn write(&mut self, offset: u32, value: u32, now_ps: u64) {
        if offset == 0xC00 {
            self.locked = value != UNLOCK;
        }
        if self.locked || offset == 0xC00 {
            return;
        }
        self.settle(now_ps);
        match offset {
            0x000 => (self.load, self.count) = (value, value),
            0x008 => self.control = value & 3,
            0x00C => (self.raw, self.count) = (false, self.load),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rom_setting() -> Watchdog {
        let mut watchdog = Watchdog::new(12_500);
        watchdog.write(0xC00, UNLOCK, 0);
        watchdog.write(0x008, 3, 0);
        watchdog.write(0x000, 0x05F5_E100, 0);
        watchdog.write(0xC00, 1, 0);
        watchdog
    }

    #[test]
    fn two_stages_of_1250_ms_then_reset() {
        let mut watchdog = rom_setting();
        let ms = 1_000_000_000;
        assert_eq!(watchdog.next_ps(), Some(1250 * ms));
        assert!(!watchdog.expired(1250 * ms) && watchdog.interrupt());
        assert!(!watchdog.expired(2499 * ms));
        assert!(watchdog.expired(2500 * ms));
        assert_eq!(watchdog.next_ps(), None);
    }

    #[test]
    fn locked_it_cannot_be_stopped_and_unlocked_it_can() {
        let mut watchdog = rom_setting();
        watchdog.write(0x008, 0, 10);
        assert_eq!((watchdog.read(0x008, 10), watchdog.read(0xC00, 10)), (3, 1));
        watchdog.write(0xC00, UNLOCK, 20);
        watchdog.write(0x008, 0, 20);
        assert_eq!((watchdog.next_ps(), watchdog.read(0xFE0, 20)), (None, 5));
    }

    #[test]
    fn reading_counts_and_clearing_reloads() {
        let mut watchdog = rom_setting();
        assert_eq!(watchdog.read(0x004, 1_250_000), 0x05F5_E100 - 100);
        watchdog.write(0xC00, UNLOCK, 1_250_000);
        watchdog.write(0x00C, 0, 1_250_000);
        assert_eq!(watchdog.read(0x004, 1_250_000), 0x05F5_E100);
        watchdog.set_period(7_500, 1_250_000);
        assert_eq!(watchdog.read(0x004, 1_250_000 + 7_500), 0x05F5_E100 - 1);
    }
}
