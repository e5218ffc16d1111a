//! Timers, DMA, resets and clocks: what happens at their events and by what software asks of them.

use super::dma::{AXI_ERROR, CRC_ERROR, TCM_ERROR, Transfer, crc32};
use super::events::{Event, RomEvent};
use super::noc::Region;
use super::system::{CORES, RESET_CHIP};
use super::{Activity, Chip, LogEntry};
use crate::arm968::Size;

impl Chip {
    /// Has an event made for the next zero of a core's timers.
    pub(crate) fn schedule_timers(&mut self, core: usize) {
        let unit = &mut self.cores[core];
        unit.local.timer_generation = unit.local.timer_generation.wrapping_add(1);
        let next = unit.local.timers.iter().filter_map(|timer| timer.next_interrupt()).min();
        if let Some(cycle) = next {
            let event = Event::Timer { core: core as u8, generation: unit.local.timer_generation };
            self.noc.events.push(unit.clock.ps(cycle), event);
        }
    }

    pub(super) fn timer_due(&mut self, core: usize, generation: u32, now_ps: u64) {
        let unit = &mut self.cores[core];
        if unit.local.timer_generation != generation {
            return;
        }
        let at = unit.clock.cycles(now_ps);
        unit.local.timers.iter_mut().for_each(|timer| timer.advance(at));
        self.schedule_timers(core);
        self.update_lines(core, now_ps);
    }

    /// After a write to a core's DMA controller: a transfer may begin, or have been aborted.
    pub(super) fn start_dma(&mut self, core: usize, now_ps: u64) {
        let unit = &mut self.cores[core];
        if unit.local.dma.active().is_none() {
            self.noc.sharing.leave(core as u32);
        }
        let at = unit.clock.cycles(now_ps);
        if let Some(transfer) = unit.local.dma.start(at) {
            let begin_ns = now_ps.div_ceil(1000) + self.noc.times.timing.dma_setup_ns;
            let words = u64::from(transfer.bytes() / 4 + u32::from(transfer.crc()));
            let timing = &self.noc.times.timing;
            let word_quarter_ns =
                if transfer.to_system() { timing.sdram_write_word_quarter_ns } else { timing.sdram_word_quarter_ns };
            self.noc.sharing.join(begin_ns, words, core as u32, word_quarter_ns);
            self.watch_dma_start(core, transfer, now_ps);
        }
        self.schedule_dma();
    }

    fn schedule_dma(&mut self) {
        let next = self.noc.sharing.next_end_ns(&self.noc.times.timing).unwrap_or(u64::MAX);
        if next < self.noc.sharing.timer_ns {
            self.noc.sharing.timer_ns = next;
            self.noc.events.push(next.saturating_mul(1000), Event::Dma);
        }
    }

    pub(super) fn dma_due(&mut self, now_ps: u64) {
        let timing = self.noc.times.timing;
        let now_ns = now_ps / 1000;
        self.noc.sharing.timer_ns = u64::MAX;
        self.noc.sharing.advance(now_ns, &timing);
        let mut ended = std::mem::take(&mut self.buffer);
        self.noc.sharing.finished(&mut ended);
        for &core in &ended {
            let core = core as usize;
            if let Some(transfer) = self.cores[core].local.dma.active() {
                self.catch_up(core, now_ps);
                let error = self.move_data(core, transfer, now_ps);
                let at = self.cores[core].clock.cycles(now_ps);
                self.cores[core].local.dma.finish(error, at);
                self.watch_dma_end(core, now_ps);
                self.start_dma(core, now_ps);
                self.update_lines(core, now_ps);
                self.set_going(core, now_ps);
            }
        }
        self.buffer = ended;
        self.schedule_dma();
    }

    /// Moves the data of a transfer; the error bit of STAT, or 0.
    fn move_data(&mut self, core: usize, transfer: Transfer, now_ps: u64) -> u32 {
        let mut data = vec![0; transfer.bytes() as usize];
        if transfer.to_system() {
            if self.cores[core].cpu.read_tcm(transfer.tcm, &mut data).is_err() {
                return TCM_ERROR;
            }
            if transfer.crc() {
                let crc = crc32(&data);
                self.cores[core].local.dma.set_crc(crc, 0);
                data.extend_from_slice(&crc.to_le_bytes());
            }
            return if self.write_system(transfer.system, &data, now_ps) { 0 } else { AXI_ERROR };
        }
        if transfer.crc() {
            data.resize(data.len() + 4, 0);
        }
        if !self.read_system(transfer.system, &mut data, now_ps) {
            return AXI_ERROR;
        }
        if transfer.crc() {
            let body = data.len() - 4;
            let received = u32::from_le_bytes([data[body], data[body + 1], data[body + 2], data[body + 3]]);
            data.truncate(body);
            let calculated = crc32(&data);
            self.cores[core].local.dma.set_crc(calculated, received);
            if calculated != received {
                return CRC_ERROR;
            }
        }
        if self.cores[core].cpu.write_tcm(transfer.tcm, &data).is_err() {
            return TCM_ERROR;
        }
        0
    }

    fn write_system(&mut self, address: u32, data: &[u8], now_ps: u64) -> bool {
        if data.is_empty() {
            return true;
        }
        match self.noc.region_from_system(address) {
            Some(Region::Sdram(offset)) if self.noc.pl340.ready() => self.noc.sdram.write(offset, data),
            Some(Region::SystemRam(offset)) => self.noc.system_ram.write(offset, data),
            None | Some(Region::Sdram(_)) => return false,
            Some(_) => {
                for (word, bytes) in data.chunks_exact(4).enumerate() {
                    let value = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
                    let region = self.noc.region_from_system(address.wrapping_add(4 * word as u32));
                    let Some(region) = region else { return false };
                    if self.noc.write(region, Size::Word, value, now_ps).is_err() {
                        return false;
                    }
                }
                self.apply_effects(now_ps);
            }
        }
        true
    }

    fn read_system(&mut self, address: u32, data: &mut [u8], now_ps: u64) -> bool {
        if data.is_empty() {
            return true;
        }
        match self.noc.region_from_system(address) {
            Some(Region::Sdram(offset)) if self.noc.pl340.ready() => self.noc.sdram.read(offset, data),
            Some(Region::SystemRam(offset)) => self.noc.system_ram.read(offset, data),
            None | Some(Region::Sdram(_)) => return false,
            Some(_) => {
                for (word, bytes) in data.chunks_exact_mut(4).enumerate() {
                    let region = self.noc.region_from_system(address.wrapping_add(4 * word as u32));
                    let value = region.map(|region| self.noc.read(region, Size::Word, now_ps));
                    let Some(Ok(value)) = value else { return false };
                    bytes.copy_from_slice(&value.to_le_bytes());
                }
            }
        }
        true
    }

    pub(crate) fn schedule_watchdog(&mut self) {
        self.watchdog_generation = self.watchdog_generation.wrapping_add(1);
        if let Some(at_ps) = self.noc.watchdog.next_ps() {
            self.noc.events.push(at_ps, Event::Watchdog(self.watchdog_generation));
        }
    }

    pub(super) fn watchdog_due(&mut self, generation: u32, now_ps: u64) {
        if generation != self.watchdog_generation {
            return;
        }
        if self.noc.watchdog.expired(now_ps) {
            self.log(now_ps, "watchdog: the chip is reset".into());
            self.reset_chip(1, now_ps);
            return;
        }
        self.noc.lines_changed = true;
        self.schedule_watchdog();
    }

    /// Does what a write to the system controller asked for.
    pub(super) fn apply_effects(&mut self, now_ps: u64) {
        if !self.noc.effects.any() {
            return;
        }
        let effects = std::mem::take(&mut self.noc.effects);
        if effects.subsystems & RESET_CHIP != 0 {
            self.log(now_ps, "software resets the chip".into());
            self.reset_chip(3, now_ps);
            return;
        }
        if effects.clocks {
            self.clocks_changed(now_ps);
        }
        if effects.links {
            self.enable_links(now_ps);
        }
        if effects.router_wait {
            self.restart_wait(now_ps);
        }
        self.reset_subsystems(effects.subsystems, now_ps);
        let mut started = effects.pulsed;
        for core in 0..CORES {
            let bit = 1 << core;
            if effects.cores & bit != 0 {
                started |= u32::from(self.hold(core, now_ps)) << core;
            }
            if effects.pulsed & bit != 0 {
                self.reset_core(core, now_ps);
            }
            if effects.irq_cores & bit != 0 {
                self.update_lines(core, now_ps);
                if self.cores[core].activity == Activity::Rom && self.noc.system.cpu_irq & bit != 0 {
                    self.noc.events.push(now_ps, Event::Rom(RomEvent::Mailbox(core as u8)));
                }
            }
        }
        if started != 0 {
            self.log(now_ps, format!("cores {started:#07x} start from reset"));
        }
    }

    /// Router, SDRAM controller and link transmitters as after a reset; the rest of the subsystems has no state of its own
    /// here.
    fn reset_subsystems(&mut self, subsystems: u32, now_ps: u64) {
        if subsystems & 1 != 0 {
            self.noc.router.reset();
            self.noc.lines_changed = true;
        }
        if subsystems & 2 != 0 {
            self.noc.pl340 = super::pl340::Pl340::new();
        }
        if subsystems >> 4 & 0x3F != 0 {
            for link in 0..6 {
                if subsystems >> (4 + link) & 1 != 0 {
                    self.noc.links[link].clear();
                }
            }
            self.router_retry(now_ps);
        }
    }

    /// A core goes into, or out of, reset or stall. Whether it begins anew.
    fn hold(&mut self, core: usize, now_ps: u64) -> bool {
        self.catch_up(core, now_ps);
        let held = self.noc.system.held() >> core & 1 != 0;
        let in_reset = self.noc.system.in_reset() >> core & 1 != 0;
        let unit = &mut self.cores[core];
        unit.held = held;
        if in_reset {
            unit.in_reset = true;
        } else if std::mem::take(&mut unit.in_reset) {
            self.reset_core(core, now_ps);
            return true;
        }
        self.set_going(core, now_ps);
        false
    }

    /// A core begins anew at the reset vector: in system RAM, or in the boot ROM.
    fn reset_core(&mut self, core: usize, now_ps: u64) {
        let unit = &mut self.cores[core];
        if unit.activity == Activity::Broken {
            return;
        }
        unit.cpu.reset();
        unit.local.comms.reset();
        unit.local.dma.reset();
        unit.local.slow_clock.clear(now_ps);
        self.noc.sharing.leave(core as u32);
        self.noc.system.sleeping &= !(1 << core);
        let in_ram = self.noc.system.boot_area_is_ram();
        self.cores[core].activity = if in_ram { Activity::Running } else { Activity::Rom };
        self.update_lines(core, now_ps);
        self.set_going(core, now_ps);
    }

    /// PLLs or the clock multiplexer were set: all clocks go on with their new periods.
    pub(crate) fn clocks_changed(&mut self, now_ps: u64) {
        let clocks = self.noc.system.clocks;
        for core in 0..CORES {
            self.catch_up(core, now_ps);
            let unit = &mut self.cores[core];
            let period_ps = clocks.core_ps(core);
            if period_ps == unit.clock.period_ps {
                continue;
            }
            let at = unit.clock.cycles(now_ps).max(unit.cpu.cycles());
            unit.clock.change(at, period_ps);
            self.set_going(core, now_ps);
            self.schedule_timers(core);
        }
        self.noc.router.timing.change_period(now_ps, self.router_ps);
        self.router_ps = clocks.router_ps();
        self.noc.watchdog.set_period(clocks.system_ps(), now_ps);
        self.schedule_watchdog();
    }

    /// The whole chip begins anew in its boot ROM. Links, and packets on them, stay.
    pub(super) fn reset_chip(&mut self, code: u32, now_ps: u64) {
        self.noc.system.reset(code);
        for core in 0..CORES {
            let working = self.cores[core].activity != Activity::Broken;
            let unit = &mut self.cores[core];
            unit.cpu.reset();
            unit.local.comms.reset();
            unit.local.dma.reset();
            unit.local.slow_clock.clear(now_ps);
            unit.local.vic = super::vic::Vic::new();
            unit.local.timers = [super::timer::Timer::new(), super::timer::Timer::new()];
            unit.local.timer_generation = unit.local.timer_generation.wrapping_add(1);
            (unit.held, unit.in_reset) = (false, false);
            unit.activity = if working { Activity::Rom } else { Activity::Broken };
            self.noc.sharing.leave(core as u32);
            self.set_going(core, now_ps);
            self.update_lines(core, now_ps);
        }
        self.noc.watchdog = super::watchdog::Watchdog::new(self.noc.system.clocks.system_ps());
        self.watchdog_generation = self.watchdog_generation.wrapping_add(1);
        self.clocks_changed(now_ps);
        self.enter_rom(now_ps);
    }

    /// Writes a line to the chip's log.
    pub(crate) fn log(&mut self, now_ps: u64, text: String) {
        const ENTRIES: usize = 10_000;
        if self.noc.log.len() < ENTRIES {
            self.noc.log.push(LogEntry { time_ns: now_ps / 1000, text });
        }
    }

    /// A frame from outside has arrived.
    pub(super) fn frame_arrived(&mut self, now_ps: u64) {
        if let Some(frame) = self.noc.frames_in.pop_front() {
            self.noc.trace.add([now_ps, frame.len() as u64, u64::from(crc32(&frame))]);
            if self.noc.ethernet.receive(&frame) {
                self.noc.lines_changed = true;
                self.frame_for_rom(now_ps);
            }
        }
    }
}
