//! The serial ROM of a board's Ethernet chip: what it holds, and its three-wire interface on GPIO pins.
//!
//! Layout: SpiNNaker application note 6; board information (blacklist) from byte 0x100 on.

use std::net::Ipv4Addr;

/// Bytes of the device that are modelled; what is behind reads as erased.
const BYTES: usize = 1024;
/// Where board information begins.
const BOARD_INFORMATION: usize = 0x100;

/// Address of a board, as its serial ROM holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BoardAddress {
    /// Ethernet address, first byte on the wire first.
    pub mac: [u8; 6],
    /// IP address.
    pub ip: Ipv4Addr,
    /// Gateway.
    pub gateway: Ipv4Addr,
    /// Net mask.
    pub mask: Ipv4Addr,
    /// UDP port for SCP.
    pub port: u16,
}

/// Flags of the first half-word (application note 6): serial ROM present, Ethernet, hardware version in bits 7:4.
pub(crate) fn rom_flags(hardware_version: u8) -> u16 {
    0x8001 | u16::from(hardware_version & 0xF) << 4
}

/// Content of the device, and the state of its shift registers.
pub(crate) struct SerialRom {
    content: Vec<u8>,
    selected: bool,
    clock: bool,
    /// Bits received since it was selected, newest last.
    received: u32,
    bits: u32,
    /// Next bit to shift out, counted from the start of the device; `None` while no read is under way.
    reading: Option<usize>,
    output: bool,
}

impl SerialRom {
    /// `information` are the words of board information; empty for an erased area, which means that there is none.
    pub fn new(address: &BoardAddress, hardware_version: u8, information: &[u32]) -> Self {
        let mut content = vec![0xFF; BYTES];
        let mut at = 0;
        let mut put = |bytes: &[u8]| {
            content[at..at + bytes.len()].copy_from_slice(bytes);
            at += bytes.len();
        };
        // One block: eight words to F5007FE0, then an end. Words are big-endian here.
        put(&[0x55, 0x3A, 0x00, 0x08, 0xF5, 0x00, 0x7F, 0xE0]);
        for word in ram_words(address, hardware_version) {
            put(&word.to_be_bytes());
        }
        put(&[0xAA]);
        if !information.is_empty() {
            at = BOARD_INFORMATION;
            let words = information.iter().take((BYTES - BOARD_INFORMATION) / 4 - 1);
            let mut put = |bytes: &[u8]| {
                content[at..at + bytes.len()].copy_from_slice(bytes);
                at += bytes.len();
            };
            put(&(words.len() as u32).to_le_bytes());
            words.for_each(|word| put(&word.to_le_bytes()));
        }
        Self { content, selected: false, clock: false, received: 0, bits: 0, reading: None, output: true }
    }

    /// New levels of the pins: not selected (active low select), clock, data in.
    pub fn pins(&mut self, not_selected: bool, clock: bool, input: bool) {
        if not_selected {
            (self.selected, self.reading, self.bits, self.output) = (false, None, 0, true);
        } else if !self.selected {
            (self.selected, self.received, self.bits) = (true, 0, 0);
        } else if clock && !self.clock {
            self.rise(input);
        } else if !clock && self.clock {
            self.fall();
        }
        self.clock = clock;
    }

    fn rise(&mut self, input: bool) {
        if self.reading.is_some() {
            return;
        }
        self.received = self.received << 1 | u32::from(input);
        self.bits = self.bits.saturating_add(1);
        // Command 03 and a 24-bit address. Other commands are not answered.
        if self.bits == 32 && self.received >> 24 == 0x03 {
            self.reading = Some((self.received & 0x00FF_FFFF) as usize * 8);
        }
    }

    fn fall(&mut self) {
        if let Some(bit) = self.reading {
            let byte = self.content.get(bit / 8).copied().unwrap_or(0xFF);
            self.output = byte >> (7 - bit % 8) & 1 != 0;
            self.reading = Some(bit + 1);
        }
    }

    /// Level of the data output.
    pub fn output(&self) -> bool {
        self.output
    }
}

/// The eight words at F5007FE0 as the boot ROM leaves them: flags, MAC, IP, gateway, mask, port.
pub(crate) fn ram_words(address: &BoardAddress, hardware_version: u8) -> [u32; 8] {
    let mut bytes = [0; 32];
    bytes[0..2].copy_from_slice(&rom_flags(hardware_version).to_le_bytes());
    bytes[2..8].copy_from_slice(&address.mac);
    bytes[8..12].copy_from_slice(&address.ip.octets());
    bytes[12..16].copy_from_slice(&address.gateway.octets());
    bytes[16..20].copy_from_slice(&address.mask.octets());
    bytes[20..22].copy_from_slice(&address.port.to_le_bytes());
    std::array::from_fn(|i| u32::from_le_bytes([bytes[4 * i], bytes[4 * i + 1], bytes[4 * i + 2], bytes[4 * i + 3]]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> BoardAddress {
        BoardAddress {
            mac: [0x00, 0x00, 0xA4, 0x00, 0x3E, 0x0E],
            ip: Ipv4Addr::new(130, 88, 193, 136),
            gateway: Ipv4Addr::new(130, 88, 192, 250),
            mask: Ipv4Addr::new(255, 255, 0, 0),
            port: 17893,
        }
    }

    fn read(rom: &mut SerialRom, address: u32, bytes: usize) -> Vec<u8> {
        rom.pins(true, false, false);
        rom.pins(false, false, false);
        let command = 0x0300_0000 | address;
        let mut clock = |input| {
            rom.pins(false, false, input);
            rom.pins(false, true, input);
            rom.pins(false, false, input);
            rom.output()
        };
        let mut last = false;
        for bit in (0..32).rev() {
            last = clock(command >> bit & 1 != 0);
        }
        (0..bytes)
            .map(|_| {
                (0..8).fold(0, |byte, _| {
                    let byte = byte << 1 | u8::from(last);
                    last = clock(false);
                    byte
                })
            })
            .collect()
    }

    #[test]
    fn the_example_of_application_note_6() {
        // Its flags are 8081; ours follow from the version: 8 gives the same.
        let mut rom = SerialRom::new(&example(), 8, &[]);
        let expected: [u8; 41] = [
            0x55, 0x3A, 0x00, 0x08, 0xF5, 0x00, 0x7F, 0xE0, 0x00, 0x00, 0x80, 0x81, 0x0E, 0x3E, 0x00, 0xA4, 0x88, 0xC1,
            0x58, 0x82, 0xFA, 0xC0, 0x58, 0x82, 0x00, 0x00, 0xFF, 0xFF, 0x00, 0x00, 0x45, 0xE5, 0, 0, 0, 0, 0, 0, 0, 0,
            0xAA,
        ];
        assert_eq!(read(&mut rom, 0, 41), expected);
        assert_eq!(read(&mut rom, 0x100, 4), [0xFF; 4]);
        // Nothing is there at the end of the address space, and it does not matter.
        assert_eq!(read(&mut rom, 0xFF_FFFF, 2), [0xFF; 2]);
    }

    #[test]
    fn board_information_is_a_count_and_words() {
        let mut rom = SerialRom::new(&example(), 5, &[0x0102_0304]);
        assert_eq!(read(&mut rom, 0x100, 8), [1, 0, 0, 0, 4, 3, 2, 1]);
    }
}
