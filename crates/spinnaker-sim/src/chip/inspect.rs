//! What a debugger does to a core while its chip stands still. Nothing here lets time pass.

use super::bus::{CoreBus, Place};
use super::noc::Region;
use super::router::Router;
use super::system::System;
use super::{Activity, Chip};
use crate::arm968::{Bus, Size};

impl Chip {
    /// Up to when all has happened here, at most `now_ps`.
    pub fn reached_ps(&self, now_ps: u64) -> u64 {
        now_ps.min(self.next_ps())
    }

    /// Brings a core that was left alone up to the present, so that what is watched in it from here on is.
    pub fn settle_core(&mut self, core: usize, now_ps: u64) {
        self.catch_up(core, self.reached_ps(now_ps));
        self.go_on(core);
    }

    /// Lets a core that met a breakpoint go on as if it had met none.
    pub fn release(&mut self, core: usize) {
        self.cores[core].stopped = false;
        self.go_on(core);
    }

    fn go_on(&mut self, core: usize) {
        let unit = &self.cores[core];
        if unit.activity == Activity::Running && !unit.held && !unit.stopped {
            self.set_next(core, unit.clock.ps(unit.cpu.cycles()));
        }
    }

    /// Reads as a core would, but without any effect: its own memories, SDRAM, system RAM, and registers of devices that
    /// do not change by being read. How many bytes it was until the first that cannot be had.
    pub fn look(&mut self, core: usize, address: u32, out: &mut [u8], now_ps: u64) -> usize {
        let now_ps = self.reached_ps(now_ps);
        for (count, byte) in out.iter_mut().enumerate() {
            let Some(at) = u32::try_from(count).ok().and_then(|count| address.checked_add(count)) else { return count };
            let mut own = [0];
            *byte = match self.cores[core].cpu.read_tcm(at, &mut own) {
                Ok(()) => own[0],
                Err(_) => match self.look_word(core, at & !3, now_ps) {
                    Some(word) => word.to_le_bytes()[at as usize & 3],
                    None => return count,
                },
            };
        }
        out.len()
    }

    fn look_word(&mut self, core: usize, address: u32, now_ps: u64) -> Option<u32> {
        let unit = &mut self.cores[core];
        let at = unit.clock.cycles(now_ps);
        let (clock, local, noc) = (unit.clock, &mut unit.local, &mut self.noc);
        let bus = CoreBus::new(core, local, noc, clock);
        match bus.place(address).ok()? {
            Place::Comms(0x14) | Place::Vic(0x30) => None,
            Place::Comms(offset) => Some(bus.local.comms.read(offset)),
            Place::Timer(offset) => Some(bus.local.timers[(offset >> 5 & 1) as usize].read(offset & 0x1F, at)),
            Place::Vic(offset) => Some(bus.local.vic.read(offset)),
            Place::Dma(offset) => bus.local.dma.read(offset).ok(),
            Place::Noc(Region::System(offset)) if System::read_has_effect(offset) => None,
            Place::Noc(Region::Router(offset)) if Router::read_has_effect(offset & !3) => None,
            Place::Noc(region) => bus.noc.read(region, Size::Word, now_ps).ok(),
        }
    }

    /// Writes as a core would: memories at any address, devices by whole words and with their effects. False where that
    /// cannot be; what comes before is written.
    pub fn alter(&mut self, core: usize, address: u32, data: &[u8], now_ps: u64) -> bool {
        if data.is_empty() || self.cores[core].cpu.write_tcm(address, data).is_ok() {
            return true;
        }
        let now_ps = self.reached_ps(now_ps);
        let mut at = address;
        let mut rest = data;
        while !rest.is_empty() {
            let (size, length) = if at & 3 == 0 && rest.len() >= 4 { (Size::Word, 4) } else { (Size::Byte, 1) };
            let (now, next) = rest.split_at(length);
            let mut word = [0; 4];
            word[..length].copy_from_slice(now);
            if !self.alter_word(core, at, size, u32::from_le_bytes(word), now_ps) {
                return false;
            }
            (at, rest) = (at.wrapping_add(length as u32), next);
        }
        self.look_again();
        true
    }

    fn alter_word(&mut self, core: usize, address: u32, size: Size, value: u32, now_ps: u64) -> bool {
        let unit = &mut self.cores[core];
        let at = unit.clock.cycles(now_ps);
        let (clock, local, noc) = (unit.clock, &mut unit.local, &mut self.noc);
        let mut bus = CoreBus::new(core, local, noc, clock);
        match bus.place(address) {
            Err(_) => false,
            Ok(Place::Noc(region @ (Region::Sdram(_) | Region::SystemRam(_)))) => {
                bus.noc.write(region, size, value, now_ps).is_ok()
            }
            Ok(_) if size != Size::Word => false,
            Ok(_) => {
                let done = bus.write(address, size, value, at).is_ok();
                if unit.cpu.cycles() < at {
                    unit.cpu.set_cycles(at);
                }
                self.after_access(core);
                done
            }
        }
    }
}
