//! Clocks: from the PLL and multiplexer registers of the system controller to periods, and from a core's cycles to
//! machine time. Machine time is in picoseconds.

/// Picoseconds of the 10 MHz crystal.
pub(crate) const CRYSTAL_PS: u64 = 100_000;

/// Registers as after power on: everything at 10 MHz.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ClockRegisters {
    pub pll1: u32,
    pub pll2: u32,
    pub mux: u32,
}

impl ClockRegisters {
    /// Period of a source divided by `divider` + 1.
    fn period_ps(&self, source: u32, divider: u32) -> u64 {
        let times = u64::from(divider & 3) + 1;
        let pll = |register: u32| {
            let (ns, ms) = (u64::from(register & 0x3F), u64::from(register >> 8 & 0x3F));
            // A PLL that is off or set to nothing gives no clock; the crystal keeps time moving.
            if ns == 0 || ms == 0 { CRYSTAL_PS * times } else { (CRYSTAL_PS * ms * times + ns / 2) / ns }
        };
        match source & 3 {
            0 => CRYSTAL_PS * times,
            1 => pll(self.pll1),
            2 => pll(self.pll2),
            _ => 4 * CRYSTAL_PS * times,
        }
    }

    /// Cores 1 2 4 7 8 11 13 14 16 have clock A, the others B.
    pub fn core_ps(&self, core: usize) -> u64 {
        const CLOCK_A: u32 = 1 << 1 | 1 << 2 | 1 << 4 | 1 << 7 | 1 << 8 | 1 << 11 | 1 << 13 | 1 << 14 | 1 << 16;
        if CLOCK_A >> core & 1 != 0 {
            self.period_ps(self.mux, self.mux >> 2)
        } else {
            self.period_ps(self.mux >> 5, self.mux >> 7)
        }
    }

    pub fn router_ps(&self) -> u64 {
        self.period_ps(self.mux >> 15, self.mux >> 17)
    }

    pub fn system_ps(&self) -> u64 {
        self.period_ps(self.mux >> 20, self.mux >> 22)
    }
}

/// A core's clock: cycles since the machine was switched on, at a period that can change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CoreClock {
    anchor_cycles: u64,
    anchor_ps: u64,
    pub period_ps: u64,
}

impl CoreClock {
    pub fn new(period_ps: u64) -> Self {
        Self { anchor_cycles: 0, anchor_ps: 0, period_ps }
    }

    /// When a cycle begins.
    pub fn ps(&self, cycles: u64) -> u64 {
        if cycles >= self.anchor_cycles {
            self.anchor_ps.saturating_add((cycles - self.anchor_cycles).saturating_mul(self.period_ps))
        } else {
            self.anchor_ps.saturating_sub((self.anchor_cycles - cycles) * self.period_ps)
        }
    }

    /// The first cycle that begins at this time or later.
    pub fn cycles(&self, ps: u64) -> u64 {
        self.anchor_cycles + ps.saturating_sub(self.anchor_ps).div_ceil(self.period_ps)
    }

    /// The last cycle that has begun by this time.
    pub fn cycles_by(&self, ps: u64) -> u64 {
        self.anchor_cycles + ps.saturating_sub(self.anchor_ps) / self.period_ps
    }

    /// From this cycle on the period is another.
    pub fn change(&mut self, cycles: u64, period_ps: u64) {
        (self.anchor_ps, self.anchor_cycles) = (self.ps(cycles), cycles);
        self.period_ps = period_ps.max(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn periods_of_the_boot_rom_and_of_the_system_software() {
        let reset = ClockRegisters { pll1: 0, pll2: 0, mux: 0 };
        assert_eq!((reset.core_ps(0), reset.router_ps(), reset.system_ps()), (100_000, 100_000, 100_000));
        let rom = ClockRegisters { pll1: 0x0006_0110, pll2: 0x0007_011A, mux: 0x8052_8821 };
        assert_eq!((rom.core_ps(0), rom.core_ps(1), rom.router_ps(), rom.system_ps()), (6250, 6250, 12_500, 12_500));
        let scamp = ClockRegisters { pll1: 0x0007_0128, pll2: 0x0007_011A, mux: 0x8094_88A5 };
        assert_eq!(
            (scamp.core_ps(3), scamp.core_ps(4), scamp.router_ps(), scamp.system_ps()),
            (5000, 5000, 7500, 7500)
        );
    }

    #[test]
    fn cycles_and_time_agree_over_a_change() {
        let mut clock = CoreClock::new(6250);
        assert_eq!((clock.ps(16), clock.cycles(100_000), clock.cycles(100_001)), (100_000, 16, 17));
        assert_eq!((clock.cycles_by(99_999), clock.cycles_by(100_000), clock.cycles_by(106_249)), (15, 16, 16));
        clock.change(16, 5000);
        assert_eq!((clock.ps(18), clock.cycles(110_000), clock.ps(17)), (110_000, 18, 105_000));
    }
}
