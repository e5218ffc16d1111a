//! The image from Ethernet: boot messages on UDP port 54321; HELLO, ARP and ICMP echo.

use std::net::Ipv4Addr;

use super::{BLOCKS_MAX, COLLECT, Image, Source};
use crate::chip::{Chip, Event, RomEvent, wire_ps};

/// UDP port of the boot protocol.
pub const BOOT_PORT: u16 = 54321;
const HELLO: u32 = 0x41;
/// ROM version 2.1, and its signature.
const HELLO_VERSION: u32 = 0x0201_0000;
const HELLO_SIGNATURE: u32 = 0x4350_5453;

/// The host that talks to the ROM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Host {
    mac: [u8; 6],
    ip: Ipv4Addr,
}

fn half(frame: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([frame[at], frame[at + 1]])
}

fn word(frame: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([frame[at], frame[at + 1], frame[at + 2], frame[at + 3]])
}

/// What the ROM looks at in an IP packet: protocol, port, version of the boot protocol.
fn is_boot_message(frame: &[u8]) -> bool {
    frame.len() >= 60 && frame[23] == 17 && half(frame, 36) == BOOT_PORT && half(frame, 42) == 1
}

/// Internet check sum of an IP header or ICMP message.
pub(crate) fn internet_sum(data: &[u8]) -> u16 {
    let pairs = data.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0)));
    let mut sum: u32 = pairs.sum();
    while sum >> 16 != 0 {
        sum = (sum & 0xFFFF) + (sum >> 16);
    }
    !(sum as u16)
}

impl Chip {
    /// A frame waits at the Ethernet controller of a chip that may be in its ROM.
    pub(crate) fn frame_for_rom(&mut self, now_ps: u64) {
        if self.rom.waiting() && !self.rom.frame_pending && self.noc.ethernet.waiting() > 0 {
            self.rom.frame_pending = true;
            let at_ps = now_ps + self.noc.times.cycle.rom_frame_ns * 1000;
            self.noc.events.push(at_ps, Event::Rom(RomEvent::Frame));
        }
    }

    /// The ROM takes a frame.
    pub(super) fn rom_frame(&mut self, now_ps: u64) {
        self.rom.frame_pending = false;
        if let Some(frame) = self.noc.ethernet.oldest() {
            self.noc.ethernet.release();
            self.rom_ethernet_frame(&frame, now_ps);
        }
        self.frame_for_rom(now_ps);
    }

    fn rom_ethernet_frame(&mut self, frame: &[u8], now_ps: u64) {
        if frame.len() < 42 {
            return;
        }
        match half(frame, 12) {
            0x0806 => self.rom_arp(frame, now_ps),
            0x0800 if is_boot_message(frame) => self.boot_message(frame, now_ps),
            0x0800 if frame[23] == 1 => self.rom_echo(frame, now_ps),
            _ => {}
        }
    }

    fn boot_message(&mut self, frame: &[u8], now_ps: u64) {
        if self.rom.host.is_none() {
            let mac = [frame[6], frame[7], frame[8], frame[9], frame[10], frame[11]];
            self.rom.host = Some(Host { mac, ip: Ipv4Addr::from(word(frame, 26)) });
        }
        let (operand1, operand3) = (word(frame, 48), word(frame, 56));
        match word(frame, 44) & 0xFFFF {
            1 if self.rom.image.is_none() && operand1 & 0xFF == 0 => {
                self.rom.image = Some(Image::new(Source::Ethernet, (operand3 & 0xFF) as usize + 1));
            }
            3 => self.boot_block(operand1, &frame[60..]),
            5 if operand1 & 1 != 0 => {
                if let Some(image) = self.rom.image.as_ref().filter(|image| image.source == Source::Ethernet)
                    && image.complete()
                {
                    self.hand_over(image.blocks as u32 * image.words, operand3, now_ps);
                }
            }
            _ => {}
        }
    }

    /// A block: its words come in network order and are stored in the machine's. What the frame lacks is left as it was (the
    /// ROM copies what the frame before left in its buffer).
    fn boot_block(&mut self, operand: u32, data: &[u8]) {
        let Some(image) = self.rom.image.as_mut().filter(|image| image.source == Source::Ethernet) else { return };
        let (number, words) = ((operand & 0xFF) as usize, (operand >> 8 & 0xFF) as usize + 1);
        if image.good[number] || (number + 1) * words > BLOCKS_MAX * 256 {
            return;
        }
        let bytes: Vec<u8> =
            data.chunks_exact(4).take(words).flat_map(|word| [word[3], word[2], word[1], word[0]]).collect();
        let place = COLLECT + (number * words * 4) as u32;
        let written = self.cores[usize::from(self.rom.monitor)].cpu.write_tcm(place, &bytes);
        image.good[number] = written.is_ok();
        image.words = words as u32;
    }

    fn rom_arp(&mut self, frame: &[u8], now_ps: u64) {
        let Some(board) = self.rom.board else { return };
        let asked = word(frame, 38);
        if half(frame, 20) != 1 || asked != u32::from(board.ip) || asked == 0 {
            return;
        }
        let mut answer = Vec::with_capacity(60);
        answer.extend_from_slice(&frame[6..12]);
        answer.extend_from_slice(&board.mac);
        answer.extend_from_slice(&frame[12..20]);
        answer.extend_from_slice(&2u16.to_be_bytes());
        answer.extend_from_slice(&board.mac);
        answer.extend_from_slice(&board.ip.octets());
        answer.extend_from_slice(&frame[22..32]);
        self.rom_transmit(answer, now_ps);
    }

    fn rom_echo(&mut self, frame: &[u8], now_ps: u64) {
        let Some(board) = self.rom.board else { return };
        let length = usize::from(half(frame, 16));
        if frame[14] != 0x45 || frame[34] != 8 || word(frame, 30) != u32::from(board.ip) {
            return;
        }
        if length < 28 || frame.len() < 14 + length {
            return;
        }
        let mut answer = frame[..14 + length].to_vec();
        answer.copy_within(6..12, 0);
        answer[6..12].copy_from_slice(&board.mac);
        answer.copy_within(26..30, 30);
        answer[26..30].copy_from_slice(&board.ip.octets());
        answer[34] = 0;
        for (at, range) in [(24, 14..34), (36, 34..14 + length)] {
            answer[at..at + 2].fill(0);
            let sum = internet_sum(&answer[range]);
            answer[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        }
        self.rom_transmit(answer, now_ps);
    }

    /// HELLO: to everybody, or to the host that has spoken.
    pub(super) fn say_hello(&mut self, now_ps: u64) {
        let Some(board) = self.rom.board else { return };
        let host = self.rom.host.unwrap_or(Host { mac: [0xFF; 6], ip: Ipv4Addr::BROADCAST });
        let mut payload = Vec::with_capacity(18);
        payload.extend_from_slice(&1u16.to_be_bytes());
        for word in [HELLO, HELLO_VERSION, 0, HELLO_SIGNATURE] {
            payload.extend_from_slice(&word.to_be_bytes());
        }
        let mut frame = Vec::with_capacity(60);
        frame.extend_from_slice(&host.mac);
        frame.extend_from_slice(&board.mac);
        frame.extend_from_slice(&[0x08, 0x00, 0x45, 0x00]);
        frame.extend_from_slice(&(28 + payload.len() as u16).to_be_bytes());
        frame.extend_from_slice(&self.rom.identification.to_be_bytes());
        frame.extend_from_slice(&[0x40, 0x00, 255, 17, 0, 0]);
        frame.extend_from_slice(&board.ip.octets());
        frame.extend_from_slice(&host.ip.octets());
        let sum = internet_sum(&frame[14..34]);
        frame[24..26].copy_from_slice(&sum.to_be_bytes());
        for port in [BOOT_PORT, BOOT_PORT, 8 + payload.len() as u16, 0] {
            frame.extend_from_slice(&port.to_be_bytes());
        }
        frame.extend_from_slice(&payload);
        self.rom.identification = self.rom.identification.wrapping_add(1);
        self.rom_transmit(frame, now_ps);
    }

    fn rom_transmit(&mut self, mut frame: Vec<u8>, now_ps: u64) {
        frame.resize(frame.len().max(60), 0);
        self.noc.transmit(now_ps + wire_ps(frame.len()), frame);
    }
}
