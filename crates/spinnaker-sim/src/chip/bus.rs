//! A core's view beyond its tightly coupled memories: the devices of its own, and the System NoC behind the bridge.

use super::clock::CoreClock;
use super::comms::{Comms, Sent};
use super::dma::Dma;
use super::events::Event;
use super::memory::SYSTEM_RAM_BYTES;
use super::noc::{Noc, Region, region};
use super::slow_clock::SlowClock;
use super::system::System;
use super::timer::Timer;
use super::vic::{Vic, source};
use crate::arm968::{Access, Bus, BusError, Size};
use crate::cycle::CycleTiming;

/// The VIC's register that begins an interrupt's service when read and ends it when written.
const VECTOR: u32 = 0x30;
/// The first timer's register that takes its interrupt back.
const TIMER1_CLEAR: u32 = 0x0C;
/// GCTL of the DMA controller, with the flag of the 32 kHz clock.
const GLOBAL_CONTROL: u32 = 0x18;

/// Devices that every core has for itself.
pub(crate) struct Local {
    pub comms: Comms,
    pub vic: Vic,
    pub timers: [Timer; 2],
    pub dma: Dma,
    pub slow_clock: SlowClock,
    /// Cycle at which the bridge has done the core's last store.
    pub bridge_free: u64,
    waits: Waits,
    /// What was touched since the chip looked last.
    pub touched: Touched,
    pub timer_generation: u32,
}

/// Times of accesses in a core's cycles, for one period of its clock.
#[derive(Debug, Clone, Copy, Default)]
struct Waits {
    period_ps: u64,
    sdram_read: u32,
    ethernet_read: u32,
    noc_read: u32,
    burst_word: u32,
    bridge_write: u32,
}

impl Waits {
    fn new(times: &CycleTiming, period_ps: u64) -> Self {
        let cycles = |ns: u32| (u64::from(ns) * 1000).div_ceil(period_ps) as u32;
        Self {
            period_ps,
            sdram_read: cycles(times.sdram_read_ns),
            ethernet_read: cycles(times.ethernet_read_ns),
            noc_read: cycles(times.noc_read_ns),
            burst_word: cycles(times.burst_word_ns),
            bridge_write: cycles(times.bridge_write_ns),
        }
    }
}

/// Devices whose state the chip has to look at after a core's access.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Touched {
    pub timers: bool,
    pub dma: bool,
    /// A packet was taken from the receive register.
    pub taken: bool,
    /// Something that changes interrupt lines.
    pub lines: bool,
}

impl Touched {
    fn any(self) -> bool {
        self != Self::default()
    }
}

impl Local {
    pub fn new(core: u8) -> Self {
        Self {
            comms: Comms::new(),
            vic: Vic::new(),
            timers: [Timer::new(), Timer::new()],
            dma: Dma::new(core),
            slow_clock: SlowClock::new(),
            bridge_free: 0,
            waits: Waits::default(),
            touched: Touched::default(),
            timer_generation: 0,
        }
    }

    /// Interrupt sources of the core's own devices.
    pub fn lines(&self) -> u32 {
        self.comms.lines()
            | self.dma.lines()
            | u32::from(self.timers[0].interrupt()) << source::TIMER1
            | u32::from(self.timers[1].interrupt()) << source::TIMER2
    }
}

/// What an address means to a core.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Comms(u32),
    Timer(u32),
    Vic(u32),
    Dma(u32),
    Noc(Region),
}

/// One core's bus during a run.
pub(crate) struct CoreBus<'a> {
    pub core: u8,
    pub local: &'a mut Local,
    pub noc: &'a mut Noc,
    pub clock: CoreClock,
    pub attention: bool,
}

impl<'a> CoreBus<'a> {
    /// A bus that has not been used yet.
    pub fn new(core: usize, local: &'a mut Local, noc: &'a mut Noc, clock: CoreClock) -> Self {
        Self { core: core as u8, local, noc, clock, attention: false }
    }
}

impl CoreBus<'_> {
    pub(super) fn place(&self, address: u32) -> Result<Place, BusError> {
        Ok(match address >> 24 {
            0x10 | 0x20 => Place::Comms(address & 0xFF),
            0x11 | 0x21 => Place::Timer(address & 0xFFF),
            0x1F | 0x2F => Place::Vic(address & 0xFFF),
            0x30 | 0x40 => Place::Dma(address & 0xFFF),
            0xFF if address >= 0xFFFF_F000 => Place::Vic(address & 0xFFF),
            _ => Place::Noc(region(address, self.noc.system.boot_area_is_ram()).ok_or(BusError)?),
        })
    }

    fn waits(&mut self) -> &Waits {
        if self.local.waits.period_ps != self.clock.period_ps {
            self.local.waits = Waits::new(&self.noc.times.cycle, self.clock.period_ps);
        }
        &self.local.waits
    }

    /// Cycles that a load from a region waits.
    fn read_wait(&mut self, region: Region) -> u32 {
        let waits = self.waits();
        match region {
            Region::Sdram(_) => waits.sdram_read,
            Region::Ethernet(_) => waits.ethernet_read,
            _ => waits.noc_read,
        }
    }

    fn read_local(&mut self, place: Place, at: u64) -> Result<u32, BusError> {
        Ok(match place {
            Place::Comms(0x14) => {
                self.local.touched.taken = true;
                self.attention = true;
                self.local.comms.take()
            }
            Place::Comms(offset) => self.local.comms.read(offset),
            Place::Timer(offset) => self.local.timers[(offset >> 5 & 1) as usize].read(offset & 0x1F, at),
            Place::Vic(offset) => {
                let edge = self.local.slow_clock.flag(self.clock.ps(at));
                self.local.vic.set_line(source::SLOW_CLOCK, edge);
                if offset == VECTOR {
                    self.local.touched.lines = true;
                    self.attention = true;
                }
                self.local.vic.read(offset)
            }
            Place::Dma(GLOBAL_CONTROL) => {
                let edge = self.local.slow_clock.flag(self.clock.ps(at));
                self.local.dma.read(GLOBAL_CONTROL).map_err(|_| BusError)? | u32::from(edge) << 31
            }
            Place::Dma(offset) => self.local.dma.read(offset).map_err(|_| BusError)?,
            Place::Noc(_) => 0,
        })
    }

    fn write_local(&mut self, place: Place, value: u32, at: u64) -> Result<(), BusError> {
        match place {
            Place::Comms(0x08) => self.send(value, at),
            Place::Comms(0x04) => self.local.comms.write(0x04, value),
            Place::Comms(offset) => {
                let lines = self.local.comms.lines();
                self.local.comms.write(offset, value);
                self.local.touched.lines |= self.local.comms.lines() != lines;
            }
            Place::Timer(offset) => {
                self.local.timers[(offset >> 5 & 1) as usize].write(offset & 0x1F, value, at);
                self.local.touched.timers = true;
                self.local.touched.lines = true;
            }
            Place::Vic(offset) => {
                self.local.vic.write(offset, value);
                self.local.touched.lines = true;
            }
            Place::Dma(offset) => {
                self.local.dma.write(offset, value).map_err(|_| BusError)?;
                if offset == GLOBAL_CONTROL && value >> 31 == 0 {
                    self.local.slow_clock.clear(self.clock.ps(at));
                }
                self.local.touched.dma = offset == 0x0C || offset == 0x10;
                self.local.touched.lines = true;
            }
            Place::Noc(_) => {}
        }
        self.attention |= self.local.touched.any();
        Ok(())
    }

    fn send(&mut self, key: u32, at: u64) {
        let phase = self.noc.router.time_phase();
        let lines = self.local.comms.lines();
        if self.local.comms.send(key, phase) == Sent::Started {
            let bytes = if self.local.comms.sending().is_some_and(|routed| routed.packet.long()) { 9 } else { 5 };
            self.noc.events.push(self.clock.ps(at + bytes), Event::CoreSent(self.core));
            // The run must end before that event.
            self.attention = true;
        }
        self.local.touched.lines |= self.local.comms.lines() != lines;
        self.attention |= self.local.touched.lines;
    }

    /// What a store does, and where.
    fn store(&mut self, address: u32, size: Size, value: u32, at: u64) -> Result<Place, BusError> {
        let place = self.place(address)?;
        if size != Size::Word && Self::is_wordy(place) {
            return Err(BusError);
        }
        let Place::Noc(region) = place else {
            self.write_local(place, value, at)?;
            return Ok(place);
        };
        let done = self.noc.write(region, size, value, self.clock.ps(at));
        self.attention |= self.noc.lines_changed || self.noc.watchdog_written || self.noc.effects.any();
        done.map(|()| place)
    }

    /// A buffered store has failed: its core has gone on, and only the DMA controller can tell.
    fn lose_store(&mut self) {
        if self.local.dma.buffers_writes() {
            self.local.dma.write_buffer_error();
            self.local.touched.lines = true;
            self.attention = true;
        }
    }

    fn is_wordy(place: Place) -> bool {
        matches!(place, Place::Dma(_) | Place::Noc(Region::System(_)))
    }
}

impl Bus for CoreBus<'_> {
    fn read(&mut self, address: u32, size: Size, at: u64) -> Result<Access, BusError> {
        let place = self.place(address)?;
        if size != Size::Word && Self::is_wordy(place) {
            return Err(BusError);
        }
        if let Place::Noc(region) = place {
            // Loads do not overtake the stores in the bridge.
            let behind = self.local.bridge_free.saturating_sub(at) as u32;
            let value = self.noc.read(region, size, self.clock.ps(at))?;
            self.attention |= self.noc.lines_changed;
            return Ok(Access { value, wait: behind + self.read_wait(region) });
        }
        let word = self.read_local(place, at)?;
        let value = match size {
            Size::Word => word,
            Size::Half => word >> (8 * (address & 2)) & 0xFFFF,
            Size::Byte => word >> (8 * (address & 3)) & 0xFF,
        };
        Ok(Access { value, wait: self.noc.times.cycle.local_read_cycles })
    }

    fn write(&mut self, address: u32, size: Size, value: u32, at: u64) -> Result<u32, BusError> {
        let buffered = address >> 28 & 1 == 0;
        let region = match self.store(address, size, value, at) {
            Ok(Place::Noc(region)) => Some(region),
            Ok(_) => {
                let buffered = buffered || address >= 0xFFFF_F000;
                return Ok(if buffered { 0 } else { self.noc.times.cycle.local_write_cycles });
            }
            Err(BusError) if buffered => {
                self.lose_store();
                None
            }
            Err(BusError) => return Err(BusError),
        };
        let behind = self.local.bridge_free.saturating_sub(at) as u32;
        match region {
            Some(region) if !buffered => Ok(behind + self.read_wait(region)),
            _ => {
                let wait = behind + self.noc.times.cycle.buffered_write_cycles;
                self.local.bridge_free = at + u64::from(wait + self.waits().bridge_write);
                Ok(wait)
            }
        }
    }

    fn fetch(&mut self, address: u32, at: u64) -> Result<Access, BusError> {
        match self.place(address)? {
            Place::Noc(region @ (Region::Sdram(_) | Region::SystemRam(_))) => {
                let value = self.noc.read(region, Size::Word, self.clock.ps(at))?;
                Ok(Access { value, wait: self.read_wait(region) })
            }
            _ => Err(BusError),
        }
    }

    fn read_next(&mut self, address: u32, at: u64) -> Result<Access, BusError> {
        let access = self.read(address, Size::Word, at)?;
        match self.place(address) {
            Ok(Place::Noc(Region::Sdram(_) | Region::SystemRam(_))) => {
                let wait = self.waits().burst_word;
                Ok(Access { wait: access.wait.min(wait), ..access })
            }
            _ => Ok(access),
        }
    }

    fn privileged_only(&self, address: u32) -> bool {
        self.place(address).is_ok_and(|place| match place {
            Place::Vic(_) => self.local.vic.is_protected(),
            place => Self::is_wordy(place),
        })
    }

    fn attention(&mut self) -> bool {
        std::mem::take(&mut self.attention)
    }

    fn quiet_until(&mut self, address: u32, _size: Size, at: u64) -> u64 {
        match self.place(address) {
            Ok(Place::Dma(GLOBAL_CONTROL)) => {
                let now_ps = self.clock.ps(at);
                let edge = self.local.slow_clock.flag(now_ps);
                if edge { u64::MAX } else { self.clock.cycles(SlowClock::next_ps(now_ps)) }
            }
            // What these show changes with events only, or by what other cores do in their turn.
            Ok(Place::Comms(0x00 | 0x0C) | Place::Dma(_)) => u64::MAX,
            Ok(Place::Noc(Region::Sdram(_) | Region::SystemRam(_))) => u64::MAX,
            Ok(Place::Noc(Region::System(offset))) if !System::read_has_effect(offset) => u64::MAX,
            _ => at,
        }
    }

    fn memory(&self, address: u32) -> Option<u32> {
        matches!(address >> 24, 0xE5 | 0xF5).then_some(0xF500_0000 | address & (SYSTEM_RAM_BYTES - 4))
    }

    fn memory_word(&self, address: u32) -> u32 {
        self.noc.system_ram.word(address)
    }

    fn set_memory_word(&mut self, address: u32, value: u32) {
        self.noc.system_ram.set_word(address, value);
    }

    fn steady_register(&self, address: u32, at: u64) -> Option<u32> {
        if !matches!(self.place(address), Ok(Place::Vic(VECTOR))) {
            return None;
        }
        let mut vic = self.local.vic.clone();
        vic.set_line(source::SLOW_CLOCK, self.local.slow_clock.flag(self.clock.ps(at)));
        Some(vic.read(VECTOR))
    }

    fn is_repeatable_store(&self, address: u32, value: u32) -> bool {
        match self.place(address) {
            Ok(Place::Vic(VECTOR) | Place::Timer(TIMER1_CLEAR)) => true,
            Ok(Place::Noc(Region::System(offset))) => self.noc.system.leaves_pins(offset, value),
            _ => false,
        }
    }

    fn pace(&self) -> u64 {
        self.clock.period_ps
    }
}
