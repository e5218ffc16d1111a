//! What a debugger needs: cores stopped, stepped and looked into while the machine stands still.

use spinnaker_machine::ChipXy;

use super::CycleMachine;
use crate::arm968::Cpu;
use crate::chip::CORES;

impl CycleMachine {
    /// A core (physical number) for a look inside: registers, memories, breakpoints, trace, profile. Its clock is behind the
    /// machine's while it sleeps or waits in a loop. `None` without such a core.
    pub fn cpu(&mut self, xy: ChipXy, core: u8) -> Option<&mut Cpu> {
        let core = usize::from(core);
        Some(&mut self.chip(xy)?.cores.get_mut(core)?.cpu)
    }

    /// Stops a core; the others go on. False without such a core.
    pub fn stop(&mut self, xy: ChipXy, core: u8) -> bool {
        self.set_stopped(xy, core, true)
    }

    /// Lets a core that was stopped, or met a breakpoint, go on. False without such a core.
    pub fn resume(&mut self, xy: ChipXy, core: u8) -> bool {
        self.set_stopped(xy, core, false)
    }

    fn set_stopped(&mut self, xy: ChipXy, core: u8, stopped: bool) -> bool {
        let now_ps = self.now_ps;
        let Some(chip) = self.chip(xy).filter(|_| usize::from(core) < CORES) else { return false };
        chip.stop(usize::from(core), stopped, now_ps);
        self.look_again(xy);
        true
    }

    /// Lets a core begin anew at an address of its memories, in supervisor mode with interrupts off, as the boot ROM's command
    /// "copy and go" does: what was written to its memories and registers after a call is there when time passes. For bare
    /// programs, without boot image. False without such a core, or if it does not work.
    pub fn start(&mut self, xy: ChipXy, core: u8, entry: u32) -> bool {
        let now_ps = self.now_ps;
        let Some(chip) = self.chip(xy).filter(|_| usize::from(core) < CORES) else { return false };
        let started = chip.start(usize::from(core), entry, now_ps);
        self.look_again(xy);
        started
    }

    /// Executes one instruction of a core that is stopped. False without such a core.
    pub fn step(&mut self, xy: ChipXy, core: u8) -> bool {
        let now_ps = self.now_ps;
        let Some(chip) =
            self.chip(xy).filter(|chip| chip.cores.get(usize::from(core)).is_some_and(|core| core.stopped))
        else {
            return false;
        };
        chip.step(usize::from(core), now_ps);
        self.look_again(xy);
        true
    }

    /// Cores that are stopped.
    pub fn stopped(&mut self) -> Vec<(ChipXy, u8)> {
        let mut stopped = Vec::new();
        for (chip, &xy) in self.chips.iter_mut().zip(&self.places) {
            let Ok(chip) = chip.get_mut() else { continue };
            stopped.extend((0..).zip(&chip.cores).filter(|(_, core)| core.stopped).map(|(number, _)| (xy, number)));
        }
        stopped
    }

    /// Lets the machine run until its time is `end_ns`, or until shortly after a core has met a breakpoint (set with
    /// [`Cpu::set_breakpoint`]) and was stopped there. Whether one did.
    pub fn run_to_breakpoint(&mut self, end_ns: u64) -> bool {
        self.run(end_ns.saturating_mul(1000), true)
    }

    /// Breakpoints met so far.
    pub fn breakpoints_met(&self) -> u64 {
        self.stops
    }

    fn look_again(&mut self, xy: ChipXy) {
        let Some(&index) = self.index.get(&xy) else { return };
        let index = index as usize;
        if let Ok(chip) = self.chips[index].get_mut() {
            self.next_ps[index] = chip.next_ps();
        }
    }
}
