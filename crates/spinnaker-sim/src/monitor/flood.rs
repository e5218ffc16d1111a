//! Floods: what a monitor sends to all others by nearest-neighbour packets (protocols reference, 4.8 and 14.1).

use std::collections::{BTreeMap, BTreeSet};

use spinnaker_wire::AppId;
use spinnaker_wire::scp::{FloodBlock, SignalWord, StartWord};

use super::Monitors;
use super::memory::Eye;

/// A fill under way. All chips see the same packets, so one account serves all.
#[derive(Debug, Default)]
pub(super) struct Flood {
    id: u8,
    blocks: u32,
    got: BTreeSet<u16>,
    /// Cores that were selected, and the selection's number, which has to grow.
    cores: Option<u32>,
    selected: u64,
}

/// Number of a fill: bits 7:1.
const ID_BITS: u32 = 0xFE;

impl Monitors {
    /// Whether packets from a chip reach the others: it hears itself only by their echo.
    fn spreads(&self, chip: usize, links: u8) -> bool {
        links & self.chips[chip].links != 0
    }

    fn working(&self) -> Vec<usize> {
        (0..self.chips.len()).filter(|chip| self.chips[*chip].works).collect()
    }

    /// A packet of the host's choice.
    pub(super) fn flood_packet(&mut self, chip: usize, key: u32, payload: u32, links: u8) {
        if !self.spreads(chip, links) {
            return;
        }
        match key >> 24 & 0xF {
            0 => self.flood_signal(payload),
            4 => self.flood_write(key, payload),
            6 => {
                let (id, blocks) = ((key >> 16 & ID_BITS) as u8, key >> 8 & 0xFF);
                self.flood = Flood { id, blocks, ..Flood::default() };
            }
            7 => {
                let number = u64::from(payload) << 18 | u64::from(key & 0x3_FFFF);
                if self.flood.cores.is_none() || number > self.flood.selected {
                    self.flood.cores = Some(self.flood.cores.unwrap_or(0) | key & 0x3_FFFF);
                    self.flood.selected = number;
                }
            }
            15 if (key & ID_BITS) as u8 == self.flood.id => self.flood_end(payload),
            // Time keeping, link tests and set-up: over, or without effect here.
            _ => {}
        }
    }

    fn flood_signal(&mut self, payload: u32) {
        match payload >> 28 {
            0 => {
                for chip in self.working() {
                    self.chips[chip].variable(0x28, &[(payload >> 8) as u8, payload as u8]);
                }
            }
            2 => {
                for chip in self.working() {
                    self.chips[chip].variable(0x0F, &[(payload & 0xF) as u8]);
                }
            }
            5 => self.signal_all(SignalWord::parse(payload)),
            _ => {}
        }
    }

    /// A signal to all chips.
    pub(super) fn signal_all(&mut self, word: SignalWord) {
        for chip in self.working() {
            self.signal(chip, word);
        }
    }

    /// A byte, half-word or word of the system variables or of system RAM, everywhere.
    fn flood_write(&mut self, key: u32, payload: u32) {
        if key >> 20 & 0xF != 0 {
            return;
        }
        let base = match key >> 16 & 3 {
            0 => spinnaker_wire::sv::ADDRESS,
            1 => 0xF500_0000,
            _ => return,
        };
        let data = payload.to_le_bytes();
        let bytes = [1, 2, 4, 4][(key >> 18 & 3) as usize];
        for chip in self.working() {
            // What has no place is lost.
            let _ = self.write(chip, Eye::Core(0), base + (key >> 8 & 0xFF), &data[..bytes]);
        }
    }

    /// A block of data.
    pub(super) fn flood_data(&mut self, chip: usize, block: &FloodBlock<'_>) {
        if !self.spreads(chip, block.links) || (u32::from(block.id) & ID_BITS) as u8 != self.flood.id {
            return;
        }
        self.flood.got.insert(block.block);
        for chip in self.working() {
            if self.write(chip, Eye::Core(0), block.address, block.data).is_err() {
                self.stop_monitor(chip, block.address);
            }
        }
    }

    /// The end: whoever has all blocks, and cores selected, starts the application.
    fn flood_end(&mut self, payload: u32) {
        let flood = std::mem::take(&mut self.flood);
        let Some(cores) = flood.cores.filter(|_| flood.got.len() == flood.blocks as usize) else { return };
        let mut start = StartWord::parse(payload);
        start.cores.0 = (start.cores.0 | cores) & !1;
        let mut refusals: BTreeMap<String, usize> = BTreeMap::new();
        let working = self.working();
        for &chip in &working {
            if let Err(why) = self.start_application(chip, spinnaker_wire::sv::SDRAM_SYS_ADDRESS, start) {
                *refusals.entry(why).or_default() += 1;
            }
        }
        for (why, chips) in refusals {
            self.tell_refusal(start.app, &format!("{chips} chips"), &why);
        }
    }

    /// Tells in the log that an application does not run.
    pub(super) fn tell_refusal(&mut self, app: AppId, place: &str, why: &str) {
        self.say(format!("{app} refused on {place}: {why}"));
    }
}
