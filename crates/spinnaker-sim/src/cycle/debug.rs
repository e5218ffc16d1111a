//! What a debugger needs: cores stopped, stepped and looked into while the machine stands still.

use spinnaker_machine::ChipXy;
use spinnaker_wire::sv::{self, SystemVariables};

use super::CycleMachine;
use crate::arm968::Cpu;
use crate::chip::{CORES, Chip, Hit};

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
        let now_ps = self.present_ps();
        let Some(chip) = self.chip(xy).filter(|_| usize::from(core) < CORES) else { return false };
        chip.stop(usize::from(core), stopped, now_ps);
        self.look_again(xy);
        true
    }

    /// Lets a core begin anew at an address of its memories, in supervisor mode with interrupts off, as the boot ROM's command
    /// "copy and go" does: what was written to its memories and registers after a call is there when time passes. For bare
    /// programs, without boot image. False without such a core, or if it does not work.
    pub fn start(&mut self, xy: ChipXy, core: u8, entry: u32) -> bool {
        let now_ps = self.present_ps();
        let Some(chip) = self.chip(xy).filter(|_| usize::from(core) < CORES) else { return false };
        let started = chip.start(usize::from(core), entry, now_ps);
        self.look_again(xy);
        started
    }

    /// Executes one instruction of a core that is stopped. False without such a core.
    pub fn step(&mut self, xy: ChipXy, core: u8) -> bool {
        let now_ps = self.present_ps();
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
    /// [`Cpu::set_breakpoint`]) and was stopped there: its chip stands still from then on, others are at most a few hops ahead.
    /// Whether one did.
    pub fn run_to_breakpoint(&mut self, end_ns: u64) -> bool {
        self.run(end_ns.saturating_mul(1000), true)
    }

    /// The physical number of a core that the chip's monitor numbers `core`, as SCP does: 0 is the monitor. Others have numbers
    /// from when a monitor program has given them; before that, `None`.
    pub fn physical(&mut self, xy: ChipXy, core: u8) -> Option<u8> {
        if core == 0 {
            return Some(self.chip(xy)?.rom.monitor);
        }
        let variables = self.peek(xy, sv::ADDRESS, sv::BYTES)?;
        let variables = SystemVariables::read(&variables).ok()?;
        let known = variables.sw_ver.get() >> 16 != 0 && core < variables.num_cpus;
        let physical = variables.v2p_map.get(usize::from(core)).copied().filter(|_| known)?;
        (usize::from(physical) < CORES).then_some(physical)
    }

    /// Brings a core that sleeps in a loop up to the present, so that a breakpoint or trace that is set next begins here. False
    /// without such a core.
    pub fn settle(&mut self, xy: ChipXy, core: u8) -> bool {
        self.touch(xy, core, |chip, core, now_ps| chip.settle_core(core, now_ps)).is_some()
    }

    /// Lets a core that met a breakpoint go on from there, as if no time had passed for it: right when the machine was left
    /// standing since ([`CycleMachine::run_to_breakpoint`]). False without such a core.
    pub fn release(&mut self, xy: ChipXy, core: u8) -> bool {
        self.touch(xy, core, |chip, core, _| chip.release(core)).is_some()
    }

    /// Reads what a core would read, without any effect. Gives the bytes up to the first that cannot be had so (nothing there, or
    /// a register that changes by being read).
    pub fn look(&mut self, xy: ChipXy, core: u8, address: u32, out: &mut [u8]) -> usize {
        self.touch(xy, core, |chip, core, now_ps| chip.look(core, address, out, now_ps)).unwrap_or(0)
    }

    /// Writes as a core would; registers of devices by whole words, with all that follows. False where that cannot be.
    pub fn alter(&mut self, xy: ChipXy, core: u8, address: u32, data: &[u8]) -> bool {
        self.touch(xy, core, |chip, core, now_ps| chip.alter(core, address, data, now_ps)).unwrap_or(false)
    }

    fn touch<T>(&mut self, xy: ChipXy, core: u8, act: impl FnOnce(&mut Chip, usize, u64) -> T) -> Option<T> {
        let (core, now_ps) = (usize::from(core), self.present_ps());
        let chip = self.chip(xy).filter(|_| core < CORES)?;
        let result = act(chip, core, now_ps);
        self.look_again(xy);
        Some(result)
    }

    /// Waits for multicast packets that a chip's router takes: those with `key` where `mask` has ones. They are noted in the log,
    /// and stop [`CycleMachine::run_to_breakpoint`] if [`CycleMachine::set_halting`] says so. False without such a chip.
    pub fn break_on_packet(&mut self, xy: ChipXy, key: u32, mask: u32) -> bool {
        let halting = self.halting;
        let Some(chip) = self.chip(xy) else { return false };
        chip.watch(|probe| {
            probe.packets.push((key & mask, mask));
            probe.halts = halting;
        });
        true
    }

    /// Waits for DMA transfers of a core, as [`CycleMachine::break_on_packet`] for packets.
    pub fn break_on_dma(&mut self, xy: ChipXy, core: u8) -> bool {
        let halting = self.halting;
        let watch = |chip: &mut Chip, core: usize, _| {
            chip.watch(|probe| {
                probe.dma |= 1 << core;
                probe.halts = halting;
            });
        };
        self.touch(xy, core, watch).is_some()
    }

    /// Whether packets and DMA transfers that are waited for stop the machine, or are only noted (as at first).
    pub fn set_halting(&mut self, halts: bool) {
        self.halting = halts;
        for chip in &mut self.chips {
            let Ok(chip) = chip.get_mut() else { continue };
            if let Some(probe) = &mut chip.probe {
                probe.halts = halts;
            }
        }
    }

    /// Packets and DMA transfers that have stopped the machine since the last call, chip by chip.
    pub fn take_hits(&mut self) -> Vec<(ChipXy, Hit)> {
        let mut hits = Vec::new();
        for (chip, &xy) in self.chips.iter_mut().zip(&self.places) {
            let Some(probe) = chip.get_mut().ok().and_then(|chip| chip.probe.as_mut()) else { continue };
            hits.extend(std::mem::take(&mut probe.hits).into_iter().map(|hit| (xy, hit)));
        }
        hits
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
