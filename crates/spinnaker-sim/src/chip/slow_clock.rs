//! The 32 kHz clock as a core sees it: a flag in its DMA controller (GCTL bit 31) that each edge sets and software clears,
//! and interrupt source 22. Data sheet sections 5.4 and 7.4. Edges are those of the machine's time, the same on all chips.

/// From one edge to the next, ps: 32 kHz.
pub(crate) const PERIOD_PS: u64 = 31_250_000;

/// The flag of a core. It is computed from the time when somebody asks: an event is needed only where the interrupt is on.
pub(crate) struct SlowClock {
    cleared_ps: u64,
    /// When an event is under way that looks at the flag again; the end of time without one.
    pub due_ps: u64,
}

impl SlowClock {
    pub fn new() -> Self {
        Self { cleared_ps: 0, due_ps: u64::MAX }
    }

    /// Whether there was an edge since the flag was cleared.
    pub fn flag(&self, now_ps: u64) -> bool {
        now_ps / PERIOD_PS > self.cleared_ps / PERIOD_PS
    }

    pub fn clear(&mut self, now_ps: u64) {
        self.cleared_ps = now_ps;
    }

    /// The next edge.
    pub fn next_ps(now_ps: u64) -> u64 {
        (now_ps / PERIOD_PS + 1).saturating_mul(PERIOD_PS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edge_sets_the_flag_until_it_is_cleared() {
        let mut clock = SlowClock::new();
        assert!(!clock.flag(PERIOD_PS - 1) && clock.flag(PERIOD_PS) && clock.flag(5 * PERIOD_PS));
        clock.clear(5 * PERIOD_PS + 7);
        assert!(!clock.flag(6 * PERIOD_PS - 1) && clock.flag(6 * PERIOD_PS));
        assert_eq!(SlowClock::next_ps(5 * PERIOD_PS), 6 * PERIOD_PS);
    }
}
