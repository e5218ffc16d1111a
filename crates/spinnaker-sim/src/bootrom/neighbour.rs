//! The image from a neighbour: nearest-neighbour packets with a check sum, a block of words at a time.

use super::{BLOCKS_MAX, COLLECT, Image, Source};
use crate::chip::{Activity, Chip, Event, RomEvent, crc32};
use crate::network::{Fault, Packet, PacketKind};

/// Where the words of a block are collected, in system RAM.
const BLOCK_BUFFER: u32 = 0x7B78;

/// The block that is being collected.
pub(super) struct Block {
    number: usize,
    words: usize,
    there: [bool; 256],
}

/// One's-complement sum of all digits of key and data: 15 in a good packet.
fn digit_sum(key: u32, data: u32) -> u32 {
    let mut sum = u64::from(key) + u64::from(data);
    for bits in [32, 16, 8, 4] {
        while sum >> bits != 0 {
            sum = (sum & ((1 << bits) - 1)) + (sum >> bits);
        }
    }
    sum as u32
}

impl Chip {
    /// A packet has come to the receive register of a core that may be the ROM's monitor.
    pub(crate) fn packet_for_rom(&mut self, core: usize, now_ps: u64) {
        let rom = &mut self.rom;
        if !rom.waiting() || core != usize::from(rom.monitor) || rom.packet_pending {
            return;
        }
        if self.cores[core].activity != Activity::Rom || self.cores[core].local.comms.received().is_none() {
            return;
        }
        rom.packet_pending = true;
        let at_ps = rom.busy_until_ps.max(now_ps) + self.noc.times.cycle.rom_packet_ns * 1000;
        self.noc.events.push(at_ps, Event::Rom(RomEvent::Packet));
    }

    /// The ROM takes the packet.
    pub(super) fn rom_packet(&mut self, now_ps: u64) {
        self.rom.packet_pending = false;
        let monitor = usize::from(self.rom.monitor);
        let comms = &mut self.cores[monitor].local.comms;
        let packet = comms.received().map(|routed| routed.packet);
        comms.take();
        comms.write(0x0C, 0);
        if let Some(packet) = packet {
            self.rom_neighbour_packet(packet, now_ps);
        }
        self.update_lines(monitor, now_ps);
        self.move_up(monitor, now_ps);
    }

    fn rom_neighbour_packet(&mut self, packet: Packet, now_ps: u64) {
        let normal = packet.kind() == PacketKind::NearestNeighbour && packet.control & 0x20 == 0;
        if !normal || packet.fault != Fault::None {
            return;
        }
        let (key, data) = (packet.key, packet.payload_word().unwrap_or(0));
        if key & 0xF != 3 || digit_sum(key, data) != 15 {
            return;
        }
        let number = (key >> 16 & 0xFF) as usize;
        let detail = (key >> 8 & 0xFF) as usize;
        match key >> 24 & 0xF {
            1 if self.rom.image.is_none() && data >> 24 == 0 => {
                self.rom.image = Some(Image::new(Source::Neighbour, (data >> 16 & 0xFF) as usize + 1));
            }
            2 => self.rom_block_start(number, detail + 1),
            3 => self.rom_block_word(number, detail, data),
            4 => self.rom_block_end(number, data, now_ps),
            5 if key >> 8 & 1 != 0 => {
                if let Some(image) = self.rom.image.as_ref().filter(|image| image.source == Source::Neighbour)
                    && image.complete()
                {
                    self.hand_over(image.blocks as u32 * image.words, data, now_ps);
                }
            }
            _ => {}
        }
    }

    fn rom_block_start(&mut self, number: usize, words: usize) {
        let Some(image) = self.rom.image.as_ref().filter(|image| image.source == Source::Neighbour) else { return };
        if self.rom.block.is_none() && !image.good[number] && (number + 1) * words <= BLOCKS_MAX * 256 {
            self.rom.block = Some(Block { number, words, there: [false; 256] });
        }
    }

    fn rom_block_word(&mut self, number: usize, word: usize, data: u32) {
        if let Some(block) = self.rom.block.as_mut().filter(|block| block.number == number && !block.there[word]) {
            block.there[word] = true;
            self.noc.system_ram.set_word(BLOCK_BUFFER + 4 * word as u32, data);
        }
    }

    fn rom_block_end(&mut self, number: usize, crc: u32, now_ps: u64) {
        let Some(block) = self.rom.block.as_ref().filter(|block| block.number == number) else { return };
        let words = block.words;
        self.noc.system_ram.set_word(BLOCK_BUFFER + 4 * words as u32, crc);
        if !block.there[..words].iter().all(|&there| there) {
            return;
        }
        self.rom.block = None;
        self.rom.busy_until_ps = now_ps + self.noc.times.cycle.rom_block_ns * 1000;
        let mut data = vec![0; words * 4];
        self.noc.system_ram.read(BLOCK_BUFFER, &mut data);
        let place = COLLECT + (number * words * 4) as u32;
        let good = crc32(&data) == crc && self.cores[usize::from(self.rom.monitor)].cpu.write_tcm(place, &data).is_ok();
        if let Some(image) = self.rom.image.as_mut().filter(|_| good) {
            image.good[number] = true;
            image.words = words as u32;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn check_sums_of_recorded_packets() {
        for (key, data) in [
            (0xA100_0003, 0x001F_0000),
            (0xA200_FF03, 0),
            (0x1300_0003, 0xE3A0_D841),
            (0xA300_0103, 0xE28F_0004),
            (0x4300_0503, 0),
            (0xC400_0003, 0x8E5C_1970),
            (0x521F_FF03, 0x0000_7C00),
            (0x6500_0103, 0),
        ] {
            assert_eq!(digit_sum(key, data), 15, "{key:08x} {data:08x}");
            assert_ne!(digit_sum(key ^ 0x10, data), 15);
        }
        assert_eq!(digit_sum(0, 0), 0);
    }
}
