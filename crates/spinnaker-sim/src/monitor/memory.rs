//! A chip's memory as its cores see it (data sheet, memory map).

use std::collections::BTreeMap;

use spinnaker_machine::SDRAM_BASE;
use spinnaker_wire::diagnostics::{COUNTERS_FIXED, Filter, ROUTER_ADDRESS, filter_address};

use super::Monitors;
use super::chip::{LOCAL_BYTES, RAM_BASE, RAM_BYTES};
use super::heap::Words;
use crate::Simulator;

/// What lies at an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Region {
    /// Of a core: instruction memory, then data memory, by offset.
    Local(usize),
    Sdram,
    Ram(usize),
    /// Reads as zero.
    Rom,
    /// Offset in the router.
    Router(u32),
    /// Any other device, by a name of its registers that both views share.
    Device(u32),
    Nothing,
}

/// Bytes of instruction memory.
const ITCM_BYTES: usize = 32 << 10;
/// Device registers that are kept for a chip.
const REGISTERS_MAX: usize = 4096;
/// Of the system controller.
const CHIP_ID: u32 = 0x0200_0000;
const CHIP_ID_VALUE: u32 = 0x5911_1012;
/// Of the router.
const ROUTER_CLEAR: u32 = 0x2C;
const ROUTER_COUNTERS: u32 = 0x300;
const ROUTER_P2P: u32 = 0x1_0000;
const ROUTER_END: u32 = 0x1_8000;

/// Name of a register of the router among those of a chip.
const fn router_name(offset: u32) -> u32 {
    0x0100_0000 | offset
}

/// What SC&MP has set: the router's control (packets wait 240 cycles, no emergency routing) and its diagnostic filters.
pub(super) fn registers_after_boot() -> BTreeMap<u32, u32> {
    const CONTROL: u32 = 0x0040_0001;
    let filters = (0..COUNTERS_FIXED).map(|n| (filter_address(n) - ROUTER_ADDRESS, Filter::of_monitor(n).0));
    let registers = std::iter::once((0, CONTROL)).chain(filters);
    registers.map(|(offset, value)| (router_name(offset), value)).collect()
}

/// Who looks: a core by its virtual number, or a neighbour, who sees the system side only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Eye {
    Core(u8),
    Neighbour,
}

/// An access to what is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BusError;

fn region(address: u32, eye: Eye) -> Region {
    let offset = address & 0x00FF_FFFF;
    match address >> 24 {
        0x00 if eye == Eye::Neighbour => Region::Ram(offset as usize % RAM_BYTES),
        0x00 if address < 0x0040_0000 => Region::Local(address as usize % ITCM_BYTES),
        0x00 if address < 0x0080_0000 => Region::Local(ITCM_BYTES + (address & 0xFFFF) as usize),
        0x10 | 0x11 | 0x1F | 0x20 | 0x21 | 0x2F | 0x30 | 0x40 if eye != Eye::Neighbour => Region::Device(address),
        0x60..=0x67 | 0x70..=0x77 => Region::Sdram,
        0xE1 | 0xF1 if offset < ROUTER_END => Region::Router(offset),
        0xE0 | 0xE2..=0xE4 | 0xF0 | 0xF2..=0xF4 => Region::Device(address & 0x0FFF_FFFF),
        0xE5 | 0xF5 if (offset as usize) < RAM_BYTES => Region::Ram(offset as usize),
        0xE6 | 0xF6 if (offset as usize) < RAM_BYTES => Region::Rom,
        0xFF if address >= 0xFFFF_F000 => Region::Device(address),
        0xFF => Region::Ram(offset as usize % RAM_BYTES),
        _ => Region::Nothing,
    }
}

/// A chip's SDRAM and system RAM by words.
pub(super) struct ChipMemory<'a> {
    simulator: &'a mut Simulator,
    chip: u32,
    ram: &'a mut [u8],
}

impl Words for ChipMemory<'_> {
    fn word(&mut self, address: u32) -> u32 {
        let mut bytes = [0; 4];
        match region(address, Eye::Core(0)) {
            Region::Sdram => drop(self.simulator.peek(self.chip, address, &mut bytes)),
            Region::Ram(offset) => {
                if let Some(found) = self.ram.get(offset..offset + 4) {
                    bytes.copy_from_slice(found);
                }
            }
            _ => {}
        }
        u32::from_le_bytes(bytes)
    }

    fn set_word(&mut self, address: u32, value: u32) {
        match region(address, Eye::Core(0)) {
            Region::Sdram => drop(self.simulator.poke(self.chip, address, &value.to_le_bytes())),
            Region::Ram(offset) => {
                if let Some(place) = self.ram.get_mut(offset..offset + 4) {
                    place.copy_from_slice(&value.to_le_bytes());
                }
            }
            _ => {}
        }
    }
}

impl Monitors {
    /// SDRAM and system RAM of a chip.
    pub(super) fn memory(&mut self, chip: usize) -> ChipMemory<'_> {
        ChipMemory { simulator: &mut self.simulator, chip: chip as u32, ram: &mut self.chips[chip].ram }
    }

    /// Reads bytes of a chip's memory.
    pub(super) fn read(&mut self, chip: usize, eye: Eye, address: u32, out: &mut [u8]) -> Result<(), BusError> {
        out.fill(0);
        match region(address, eye) {
            Region::Sdram => self.simulator.peek(chip as u32, address, out).then_some(()).ok_or(BusError),
            Region::Ram(offset) => {
                self.refresh(chip);
                let found = self.chips[chip].ram.get(offset..offset + out.len()).ok_or(BusError)?;
                out.copy_from_slice(found);
                Ok(())
            }
            Region::Local(offset) => self.local(chip, eye, offset, out.len(), |found| out.copy_from_slice(found)),
            Region::Rom => Ok(()),
            Region::Router(_) | Region::Device(_) => {
                for (at, byte) in (address..).zip(out.iter_mut()) {
                    let word = self.register(chip, region(at & !3, eye)).ok_or(BusError)?;
                    *byte = word.to_le_bytes()[at as usize % 4];
                }
                Ok(())
            }
            Region::Nothing => Err(BusError),
        }
    }

    /// Writes bytes of a chip's memory.
    pub(super) fn write(&mut self, chip: usize, eye: Eye, address: u32, data: &[u8]) -> Result<(), BusError> {
        self.stirred = true;
        match region(address, eye) {
            Region::Sdram => self.simulator.poke(chip as u32, address, data).then_some(()).ok_or(BusError),
            Region::Ram(offset) => {
                self.refresh(chip);
                let place = self.chips[chip].ram.get_mut(offset..offset + data.len()).ok_or(BusError)?;
                place.copy_from_slice(data);
                Ok(())
            }
            Region::Local(offset) => self.local(chip, eye, offset, data.len(), |place| place.copy_from_slice(data)),
            Region::Rom => Err(BusError),
            Region::Router(_) | Region::Device(_) => {
                // Registers are written whole; what is no whole word is completed by what is there.
                let first = address & !3;
                let end = u64::from(address) + data.len() as u64;
                for at in (first..=u32::MAX).step_by(4).take_while(|at| u64::from(*at) < end) {
                    let place = region(at, eye);
                    let mut word = self.register(chip, place).unwrap_or(0).to_le_bytes();
                    for (byte, at) in word.iter_mut().zip(at..=u32::MAX) {
                        if let Some(new) = at.checked_sub(address).and_then(|n| data.get(n as usize)) {
                            *byte = *new;
                        }
                    }
                    self.set_register(chip, place, u32::from_le_bytes(word)).ok_or(BusError)?;
                }
                Ok(())
            }
            Region::Nothing => Err(BusError),
        }
    }

    /// Part of a core's own memory.
    fn local(
        &mut self,
        chip: usize,
        eye: Eye,
        offset: usize,
        bytes: usize,
        look: impl FnOnce(&mut [u8]),
    ) -> Result<(), BusError> {
        let Eye::Core(virtual_core) = eye else { return Err(BusError) };
        let limit = if offset < ITCM_BYTES { ITCM_BYTES } else { LOCAL_BYTES };
        let range = offset..offset.checked_add(bytes).filter(|end| *end <= limit).ok_or(BusError)?;
        let xy = self.chips[chip].xy;
        let program = self.chips[chip].core(virtual_core).map(|core| core.number).filter(|_| offset >= ITCM_BYTES);
        if let Some(number) = program.filter(|number| self.simulator.view(xy, *number).is_some()) {
            let start = offset - ITCM_BYTES;
            let (first, end) = (start / 4, (start + bytes).div_ceil(4));
            let found = self.simulator.with_dtcm(xy, number, |words| {
                let words = words.get_mut(first..end)?;
                let mut copy: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
                look(&mut copy[start % 4..start % 4 + bytes]);
                for (word, new) in words.iter_mut().zip(copy.chunks_exact(4)) {
                    *word = u32::from_le_bytes([new[0], new[1], new[2], new[3]]);
                }
                Some(())
            });
            return found.flatten().ok_or(BusError);
        }
        let local = &mut self.chips[chip].local;
        let memory = local.entry(virtual_core).or_insert_with(|| vec![0; LOCAL_BYTES].into_boxed_slice());
        look(&mut memory[range]);
        Ok(())
    }

    fn register(&self, chip: usize, place: Region) -> Option<u32> {
        let state = &self.chips[chip];
        match place {
            Region::Device(CHIP_ID) => Some(CHIP_ID_VALUE),
            Region::Device(name) => Some(state.registers.get(&name).copied().unwrap_or(0)),
            Region::Router(offset) if offset >= ROUTER_P2P => Some(state.p2p.word(((offset - ROUTER_P2P) / 4) as u16)),
            // Keys and masks cannot be read (data sheet 10.13).
            Region::Router(0x8000..) => None,
            Region::Router(offset @ ROUTER_COUNTERS..0x340) => {
                let counter = ((offset - ROUTER_COUNTERS) / 4) as usize;
                Some(self.counters(chip).get(counter).copied().unwrap_or(0))
            }
            Region::Router(offset) => Some(state.registers.get(&router_name(offset)).copied().unwrap_or(0)),
            _ => None,
        }
    }

    fn set_register(&mut self, chip: usize, place: Region, value: u32) -> Option<()> {
        let name = match place {
            Region::Device(name) => name,
            Region::Router(offset) if offset >= ROUTER_P2P => {
                self.chips[chip].p2p.set_word(((offset - ROUTER_P2P) / 4) as u16, value);
                return Some(());
            }
            Region::Router(ROUTER_CLEAR) => {
                let now = self.totals(chip);
                for (counter, cleared) in self.chips[chip].cleared.iter_mut().enumerate() {
                    if value >> (16 + counter) & 1 != 0 {
                        *cleared = now[counter];
                    }
                }
                return Some(());
            }
            Region::Router(offset) => router_name(offset),
            _ => return None,
        };
        let registers = &mut self.chips[chip].registers;
        if registers.len() < REGISTERS_MAX || registers.contains_key(&name) {
            registers.insert(name, value);
        }
        Some(())
    }

    /// Packets so far by the monitor's first four filters: multicast from the chip and from elsewhere, point to point likewise.
    fn totals(&self, chip: usize) -> [u64; 4] {
        let [local, other] = self.simulator.routed(chip as u32);
        let [sent, received] = self.chips[chip].p2p_packets;
        [local, other, sent, received]
    }

    fn counters(&self, chip: usize) -> [u32; 4] {
        let cleared = self.chips[chip].cleared;
        let mut counters = [0; 4];
        for ((counter, total), cleared) in counters.iter_mut().zip(self.totals(chip)).zip(cleared) {
            *counter = total.wrapping_sub(cleared) as u32;
        }
        counters
    }

    /// Reads an application's file: up to 256 KiB of SDRAM.
    pub(super) fn read_file(&self, chip: usize, address: u32) -> Vec<u8> {
        const FILE_BYTES_MAX: u32 = spinnaker_wire::sv::SDRAM_SYS_BYTES as u32;
        let behind = (address & 0x0FFF_FFFF) | SDRAM_BASE;
        let left = (SDRAM_BASE + spinnaker_machine::SDRAM_BYTES).saturating_sub(behind);
        let mut file = vec![0; left.min(FILE_BYTES_MAX) as usize];
        if region(address, Eye::Core(0)) == Region::Sdram && self.simulator.peek(chip as u32, address, &mut file) {
            file
        } else {
            Vec::new()
        }
    }

    /// Brings a chip's system RAM up to date: the clocks, and what programs tell.
    fn refresh(&mut self, chip: usize) {
        let ms = self.simulator.now_ns() / 1_000_000;
        let unix_s = self.unix_time_s.wrapping_add((ms / 1000) as u32);
        let state = &mut self.chips[chip];
        state.variable(0x10, &ms.to_le_bytes());
        state.variable(0x18, &((ms % 1000) as u16).to_le_bytes());
        state.variable(0x1C, &unix_s.to_le_bytes());
        self.refresh_cores(chip);
    }

    /// A look into a chip's system RAM that disturbs nothing.
    pub fn peek(&mut self, chip: spinnaker_machine::ChipXy, address: u32, bytes: usize) -> Option<Vec<u8>> {
        let chip = *self.index.get(&chip).filter(|chip| self.chips[**chip].works)?;
        let offset = (address | 0x1000_0000).checked_sub(RAM_BASE | 0x1000_0000)? as usize;
        self.refresh(chip);
        self.chips[chip].ram.get(offset..offset.checked_add(bytes)?).map(<[u8]>::to_vec)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_where_the_data_sheet_has_them() {
        let core = Eye::Core(0);
        assert_eq!(region(0x0000_8010, core), Region::Local(0x10));
        assert_eq!(region(0x0040_0010, core), Region::Local(0x8010));
        assert_eq!(region(0x0000_0010, Eye::Neighbour), Region::Ram(0x10));
        assert_eq!(region(0x7240_0000, core), Region::Sdram);
        assert_eq!(region(0xF500_7F00, core), Region::Ram(0x7F00));
        assert_eq!(
            (region(0xE200_0000, core), region(0xF200_0000, core)),
            (Region::Device(CHIP_ID), Region::Device(CHIP_ID))
        );
        for nothing in [0x0080_0000, 0x5000_0000, 0x6800_0000, 0x8000_0000, 0xE500_8000, 0xE700_0000, 0xFE00_0000] {
            assert_eq!(region(nothing, core), Region::Nothing, "{nothing:#x}");
        }
        assert_eq!(region(0x1000_0000, Eye::Neighbour), Region::Nothing);
        assert_eq!(region(0xFFFF_0000, core), Region::Ram(0x0));
    }
}
