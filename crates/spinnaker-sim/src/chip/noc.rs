//! Everything that the cores of a chip share, as seen from the System NoC: memories, system controller, router,
//! SDRAM controller, watchdog, Ethernet.

use std::collections::VecDeque;

use super::ethernet::Ethernet;
use super::events::{Event, Events};
use super::memory::{Memory, SYSTEM_RAM_BYTES};
use super::pl340::Pl340;
use super::router::{RESTART_WAIT, Router};
use super::system::{Effects, System};
use super::watchdog::Watchdog;
use crate::Timing;
use crate::arm968::{BusError, Size};
use crate::cycle::CycleTiming;
use crate::network::{Link, Packet};
use crate::sdram::Sharing;

/// Bytes of SDRAM.
const SDRAM_BYTES: u32 = 128 << 20;

/// What goes to another chip.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Message {
    /// Chip there, by index, and its link.
    pub chip: u32,
    pub link: u8,
    pub time_ps: u64,
    /// A packet that arrives, or that a packet sent before was taken.
    pub packet: Option<Packet>,
}

/// Which of a chip's times and names everybody needs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Times {
    pub timing: Timing,
    pub cycle: CycleTiming,
    /// The least time from one router to the next, ps.
    pub lookahead_ps: u64,
}

/// A running hash of what happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Trace(pub u64);

impl Trace {
    pub fn add(&mut self, words: [u64; 3]) {
        for word in words {
            self.0 = (self.0 ^ word).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29);
        }
    }
}

pub(crate) struct Noc {
    pub times: Times,
    pub sdram: Memory,
    pub system_ram: Memory,
    pub system: System,
    pub router: Router,
    pub pl340: Pl340,
    pub watchdog: Watchdog,
    pub ethernet: Ethernet,
    pub links: [Link; 6],
    pub sharing: Sharing,
    pub events: Events,
    /// Messages for other chips, and the earliest time among them.
    pub outbox: Vec<Message>,
    pub outbox_ps: u64,
    /// Frames for the world outside, with the time at which they are out.
    pub frames_out: Vec<(u64, Vec<u8>)>,
    /// Frames on their way in, in order of their events.
    pub frames_in: VecDeque<Vec<u8>>,
    /// What the system controller asks for.
    pub effects: Effects,
    /// The watchdog was written.
    pub watchdog_written: bool,
    /// Interrupts of chip level may have changed.
    pub lines_changed: bool,
    pub trace: Trace,
    pub log: Vec<super::LogEntry>,
}

/// Part of the System NoC that an address belongs to, with the offset there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Region {
    Sdram(u32),
    Pl340(u32),
    Router(u32),
    System(u32),
    Watchdog(u32),
    Ethernet(u32),
    SystemRam(u32),
    Rom,
}

/// Where an address of the System NoC leads; the boot area is `boot_area_is_ram` or ROM.
pub(crate) fn region(address: u32, boot_area_is_ram: bool) -> Option<Region> {
    match address >> 24 {
        0x60..=0x7F => Some(Region::Sdram(address & 0x0FFF_FFFF)),
        0xE0 | 0xF0 => Some(Region::Pl340(address & 0xFFF)),
        0xE1 | 0xF1 => Some(Region::Router(address & 0x1_FFFF)),
        0xE2 | 0xF2 => Some(Region::System(address & 0xFFF)),
        0xE3 | 0xF3 => Some(Region::Watchdog(address & 0xFFF)),
        0xE4 | 0xF4 => Some(Region::Ethernet(address & 0xFFFF)),
        0xE5 | 0xF5 => Some(Region::SystemRam(address & (SYSTEM_RAM_BYTES - 1))),
        0xE6 | 0xF6 => Some(Region::Rom),
        0xFF if boot_area_is_ram => Some(Region::SystemRam(address & (SYSTEM_RAM_BYTES - 1))),
        0xFF => Some(Region::Rom),
        _ => None,
    }
}

/// The `size` bytes at the low end of `address` out of its word.
fn lane(word: u32, address: u32, size: Size) -> u32 {
    match size {
        Size::Word => word,
        Size::Half => word >> (8 * (address & 2)) & 0xFFFF,
        Size::Byte => word >> (8 * (address & 3)) & 0xFF,
    }
}

/// The word with `value` put into the lanes of the access.
fn merged(word: u32, address: u32, size: Size, value: u32) -> u32 {
    let (mask, shift) = match size {
        Size::Word => return value,
        Size::Half => (0xFFFF, 8 * (address & 2)),
        Size::Byte => (0xFF, 8 * (address & 3)),
    };
    word & !(mask << shift) | (value & mask) << shift
}

impl Noc {
    pub fn new(times: Times, system: System, ethernet: Ethernet, links: [Link; 6]) -> Self {
        let watchdog = Watchdog::new(system.clocks.system_ps());
        Self {
            times,
            sdram: Memory::new(SDRAM_BYTES),
            system_ram: Memory::new(SYSTEM_RAM_BYTES),
            system,
            router: Router::new(),
            pl340: Pl340::new(),
            watchdog,
            ethernet,
            links,
            sharing: Sharing::new(),
            events: Events::default(),
            outbox: Vec::new(),
            outbox_ps: u64::MAX,
            frames_out: Vec::new(),
            frames_in: VecDeque::new(),
            effects: Effects::default(),
            watchdog_written: false,
            lines_changed: false,
            trace: Trace(0x5350_494E),
            log: Vec::new(),
        }
    }

    /// Something for another chip.
    pub fn send(&mut self, message: Message) {
        self.outbox_ps = self.outbox_ps.min(message.time_ps);
        self.outbox.push(message);
    }

    /// A frame for the world outside, out at this time.
    pub fn transmit(&mut self, end_ps: u64, frame: Vec<u8>) {
        self.trace.add([end_ps, frame.len() as u64, u64::from(super::dma::crc32(&frame))]);
        self.outbox_ps = self.outbox_ps.min(end_ps);
        self.frames_out.push((end_ps, frame));
    }

    /// Reads `size` bytes of a region.
    pub fn read(&mut self, region: Region, size: Size, now_ps: u64) -> Result<u32, BusError> {
        Ok(match region {
            Region::Sdram(offset) => {
                if !self.pl340.ready() {
                    return Err(BusError);
                }
                lane(self.sdram.word(offset), offset, size)
            }
            Region::SystemRam(offset) => lane(self.system_ram.word(offset), offset, size),
            Region::Pl340(offset) => lane(self.pl340.read(offset & !3), offset, size),
            Region::Router(offset @ 0x30..=0x7F) => {
                let period_ps = self.system.clocks.router_ps();
                lane(self.router.timing.read(offset & !3, now_ps, period_ps), offset, size)
            }
            Region::Router(offset) => {
                self.lines_changed |= Router::read_has_effect(offset & !3);
                lane(self.router.read(offset & !3).ok_or(BusError)?, offset, size)
            }
            Region::System(offset) => {
                if size != Size::Word {
                    return Err(BusError);
                }
                self.system.read(offset)
            }
            Region::Watchdog(offset) => lane(self.watchdog.read(offset & !3, now_ps), offset, size),
            Region::Ethernet(offset) => lane(self.ethernet.read(offset & !3, now_ps), offset, size),
            Region::Rom => 0,
        })
    }

    /// Writes `size` bytes of a region. What follows from it is noted in `effects`, `watchdog_written` and `lines_changed`.
    pub fn write(&mut self, region: Region, size: Size, value: u32, now_ps: u64) -> Result<(), BusError> {
        match region {
            Region::Sdram(offset) => {
                if !self.pl340.ready() {
                    return Err(BusError);
                }
                let value =
                    if size == Size::Word { value } else { merged(self.sdram.word(offset), offset, size, value) };
                self.sdram.set_word(offset, value);
            }
            Region::SystemRam(offset) => {
                let word = merged(self.system_ram.word(offset), offset, size, value);
                self.system_ram.set_word(offset, word);
            }
            Region::Pl340(offset) => self.pl340.write(offset & !3, value),
            Region::Router(0x30) => self.router.timing.write(value, now_ps, self.system.clocks.router_ps()),
            Region::Router(offset) => {
                self.router.write(offset & !3, value);
                self.effects.router_wait |= offset & !3 == 0 && value & RESTART_WAIT != 0;
                self.lines_changed |= offset < 0x300;
            }
            Region::System(offset) => {
                if size != Size::Word {
                    return Err(BusError);
                }
                let effects = self.system.write(offset, value);
                self.effects.join(effects);
            }
            Region::Watchdog(offset) => {
                self.watchdog.write(offset & !3, value, now_ps);
                self.watchdog_written = true;
                self.lines_changed = true;
            }
            Region::Ethernet(offset) => {
                if let Some((end_ps, frame)) = self.ethernet.write(offset, size.bytes() as usize, value, now_ps) {
                    self.transmit(end_ps, frame);
                    self.events.push(end_ps, Event::FrameSent);
                }
                self.lines_changed |= offset == 0xC020;
            }
            Region::Rom => {}
        }
        Ok(())
    }

    /// A word as peek and poke and DMA see the chip: the boot area as cores do, and system RAM also from 0 on.
    pub fn region_from_system(&self, address: u32) -> Option<Region> {
        match address >> 24 {
            0x00 => Some(Region::SystemRam(address & (SYSTEM_RAM_BYTES - 1))),
            _ => region(address, self.system.boot_area_is_ram()),
        }
    }

    /// Interrupt sources that all cores have in common.
    pub fn lines(&self) -> u32 {
        u32::from(self.watchdog.interrupt()) << super::vic::source::WATCHDOG
            | self.router.lines()
            | self.ethernet.lines()
    }

    /// Bytes at an address, as the system side sees them, for the machine's owner: no effects, zero where nothing is.
    pub fn peek_bytes(&self, address: u32, out: &mut [u8]) {
        for (address, byte) in (address..).zip(out) {
            *byte = match self.region_from_system(address) {
                Some(Region::Sdram(offset)) => lane(self.sdram.word(offset), offset, Size::Byte) as u8,
                Some(Region::SystemRam(offset)) => lane(self.system_ram.word(offset), offset, Size::Byte) as u8,
                _ => 0,
            };
        }
    }
}
