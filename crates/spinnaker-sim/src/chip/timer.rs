//! The timer pair of a core (ARM SP804). Data sheet section 6. Times are the core's clock, in cycles.

const ENABLE: u32 = 0x80;
const PERIODIC: u32 = 0x40;
const INTERRUPT: u32 = 0x20;
const WIDE: u32 = 0x02;
const ONE_SHOT: u32 = 0x01;

/// One counter. Its value is computed from the time when somebody asks.
pub(crate) struct Timer {
    reload: u32,
    control: u32,
    /// Value at `since`.
    value: u32,
    since: u64,
    /// One shot, and done: stands at 0 until the next load.
    halted: bool,
    raw: bool,
}

impl Timer {
    pub fn new() -> Self {
        Self { reload: 0, control: INTERRUPT, value: u32::MAX, since: 0, halted: false, raw: false }
    }

    fn mask(&self) -> u32 {
        if self.control & WIDE != 0 { u32::MAX } else { 0xFFFF }
    }

    /// log2 of the cycles of a count. (Code 3 is undefined: taken as 256.)
    fn prescale_bits(&self) -> u32 {
        [0, 4, 8, 8][(self.control >> 2 & 3) as usize]
    }

    fn running(&self) -> bool {
        self.control & ENABLE != 0 && !self.halted
    }

    /// Cycle at which it is 0 next, while it runs.
    fn zero_cycle(&self) -> u64 {
        self.since.saturating_add(u64::from(self.value & self.mask()) << self.prescale_bits())
    }

    /// Cycles from one interrupt to the next, for a timer that asks for them for ever.
    pub fn period(&self) -> Option<u64> {
        let again = self.running() && self.control & (PERIODIC | INTERRUPT | ONE_SHOT) == PERIODIC | INTERRUPT;
        let period = u64::from(self.reload & self.mask()) << self.prescale_bits();
        (again && period > 0).then_some(period)
    }

    /// The cycle up to which the counter stands for.
    pub fn since(&self) -> u64 {
        self.since
    }

    /// Cycle of the next interrupt that is not there yet.
    pub fn next_interrupt(&self) -> Option<u64> {
        (self.running() && !self.raw && self.control & INTERRUPT != 0).then(|| self.zero_cycle())
    }

    pub fn interrupt(&self) -> bool {
        self.raw && self.control & INTERRUPT != 0
    }

    /// Counts up to `at`.
    pub fn advance(&mut self, at: u64) {
        if !self.running() || at < self.since {
            return;
        }
        let zero = self.zero_cycle();
        let bits = self.prescale_bits();
        if at < zero {
            let counts = (at - self.since) >> bits;
            self.value = (self.value & self.mask()) - counts as u32;
            self.since += counts << bits;
            return;
        }
        self.raw = true;
        if self.control & ONE_SHOT != 0 {
            (self.value, self.halted) = (0, true);
            return;
        }
        // The turn from zero on: the reload value comes at once, the wrap to all ones with the next count.
        let (start, period) = if self.control & PERIODIC != 0 {
            (self.reload & self.mask(), u64::from(self.reload & self.mask()))
        } else {
            (0, u64::from(self.mask()) + 1)
        };
        if period == 0 {
            (self.value, self.halted) = (0, true);
            return;
        }
        let counts = (at - zero) >> bits;
        let left = counts % period;
        self.value = if self.control & PERIODIC != 0 { start - left as u32 } else { (0u32).wrapping_sub(left as u32) };
        self.value &= self.mask();
        self.since = zero + (counts << bits);
        // A free-running counter at 0 has its interrupt already: let the next be a whole turn later.
        if self.control & PERIODIC == 0 && self.value == 0 {
            self.value = self.mask();
            self.since += 1 << bits;
        }
    }

    /// Takes the interrupt back.
    pub fn take_back(&mut self, at: u64) {
        self.advance(at);
        self.raw = false;
    }

    pub fn read(&mut self, offset: u32, at: u64) -> u32 {
        self.advance(at);
        match offset {
            0x00 | 0x18 => self.reload,
            0x04 => self.value & if self.control & ENABLE != 0 { self.mask() } else { u32::MAX },
            0x08 => self.control,
            0x10 => u32::from(self.raw),
            0x14 => u32::from(self.interrupt()),
            _ => 0,
        }
    }

    pub fn write(&mut self, offset: u32, value: u32, at: u64) {
        self.advance(at);
        match offset {
            0x00 => {
                (self.reload, self.value) = (value, value);
                (self.since, self.halted) = (at, false);
            }
            0x08 => {
                self.control = value & 0xEF;
                self.since = at;
            }
            0x0C => self.take_back(at),
            0x18 => self.reload = value,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reset_values() {
        let mut timer = Timer::new();
        assert_eq!([0, 4, 8, 0x10, 0x14, 0x18].map(|r| timer.read(r, 5)), [0, u32::MAX, 0x20, 0, 0, 0]);
        assert_eq!(timer.next_interrupt(), None);
    }

    #[test]
    fn the_millisecond_timer_of_the_system_software() {
        let mut timer = Timer::new();
        timer.write(0x08, 0xE2, 1000);
        timer.write(0x00, 200_000, 1000);
        assert_eq!(timer.next_interrupt(), Some(201_000));
        assert_eq!(timer.read(0x04, 1100), 199_900);
        timer.advance(200_999);
        assert!(!timer.interrupt());
        timer.advance(201_000);
        assert!(timer.interrupt());
        timer.write(0x0C, 0, 201_050);
        assert_eq!((timer.interrupt(), timer.next_interrupt()), (false, Some(401_000)));
        // Five periods later, nobody having looked.
        assert_eq!(timer.read(0x04, 1_201_007), 199_993);
        assert_eq!(timer.read(0x10, 1_201_007), 1);
    }

    #[test]
    fn one_shot_stops_until_loaded() {
        let mut timer = Timer::new();
        timer.write(0x00, 50, 0);
        timer.write(0x08, 0xE3, 10);
        assert_eq!(timer.next_interrupt(), Some(60));
        timer.advance(500);
        assert!(timer.interrupt());
        timer.write(0x0C, 1, 500);
        assert_eq!((timer.next_interrupt(), timer.read(0x04, 600)), (None, 0));
        timer.write(0x00, 7, 700);
        assert_eq!(timer.next_interrupt(), Some(707));
    }

    #[test]
    fn free_running_wraps_and_prescales() {
        let mut timer = Timer::new();
        timer.write(0x08, 0x80 | 0x04, 0);
        timer.write(0x00, 2, 0);
        assert_eq!(timer.read(0x04, 31), 1);
        assert_eq!(timer.read(0x04, 32), 0xFFFF);
        assert_eq!(timer.read(0x10, 32), 1);
        timer.write(0x0C, 0, 32);
        assert_eq!(timer.read(0x04, 32 + 16 * 4), 0xFFFC);
        assert_eq!(timer.read(0x10, 32 + 16 * 4), 0);
    }

    #[test]
    fn a_period_of_nothing_does_not_hang() {
        let mut timer = Timer::new();
        timer.write(0x08, 0xE2, 0);
        timer.write(0x00, 0, 0);
        timer.advance(1 << 40);
        assert!(timer.interrupt() && timer.next_interrupt().is_none());
    }
}
