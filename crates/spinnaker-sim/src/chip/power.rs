//! Power: a chip that is switched off or on while others go on.

use super::{CORES, Chip, Event, Setup};
use crate::network::Link;

impl Chip {
    /// Takes the power away at a time, and gives it back unless it is to stay `off`: nothing is left but what watches the chip.
    pub fn switch(&mut self, setup: Setup, off: bool, now_ps: u64) {
        let mut chip = Self::unpowered(if off { Setup { working_cores: 0, ..setup } } else { setup });
        for (core, old) in chip.cores.iter_mut().zip(&mut self.cores) {
            core.cpu.watch_instead_of(&mut old.cpu);
        }
        chip.probe = self.probe.take();
        chip.noc.log = std::mem::take(&mut self.noc.log);
        if !off {
            chip.enter_rom(now_ps);
        }
        *self = chip;
        (0..CORES).for_each(|core| self.watch_core(core, now_ps));
    }

    /// Puts another link in the place of one whose other end was switched off or on.
    pub fn relink(&mut self, number: usize, link: Link, now_ps: u64) {
        let place = &mut self.noc.links[number];
        *place = place.replaced(link);
        self.noc.events.push(now_ps, Event::RouterRetry);
    }
}
