//! Ethernet MAC: transmit buffer, receive ring with descriptors, command and status. Data sheet section 15.
//!
//! Frames are without FCS. The byte order bit of the command is kept; the buffers are always in wire order, as all system
//! software sets it.

use super::phy::Phy;
use super::vic::source;

const TX_BYTES: usize = 0x600;
const RX_BYTES: u32 = 0xC00;
const DESCRIPTORS: u32 = 48;
/// Bytes that a frame takes on the wire beyond its own: preamble 8, FCS 4, gap 12.
const WIRE_OVERHEAD: u64 = 24;
/// Picoseconds of a byte at 100 Mbit/s.
const BYTE_PS: u64 = 80_000;

const COMMAND_TX: u32 = 1;
const COMMAND_RX: u32 = 2;

/// Time of a frame on the wire, with preamble, FCS and gap.
pub(crate) fn wire_ps(frame_bytes: usize) -> u64 {
    (frame_bytes as u64 + WIRE_OVERHEAD) * BYTE_PS
}

pub(crate) struct Ethernet {
    transmit: Box<[u8; TX_BYTES]>,
    receive: Box<[u8; RX_BYTES as usize]>,
    lengths: [u16; DESCRIPTORS as usize],
    command: u32,
    dropped: u16,
    tx_length: u32,
    tx_busy_until_ps: u64,
    mac: [u32; 2],
    pub phy: Phy,
    phy_control: u32,
    tx_interrupt: bool,
    rx_interrupt: bool,
    rx_read: u32,
    rx_write: u32,
    descriptor_read: u32,
    descriptor_write: u32,
    waiting: u32,
}

impl Ethernet {
    pub fn new(link: bool) -> Self {
        Self {
            transmit: Box::new([0; TX_BYTES]),
            receive: Box::new([0; RX_BYTES as usize]),
            lengths: [0; DESCRIPTORS as usize],
            command: 0x78,
            dropped: 0,
            tx_length: 0,
            tx_busy_until_ps: 0,
            mac: [0; 2],
            phy: Phy::new(link),
            phy_control: 0,
            tx_interrupt: false,
            rx_interrupt: false,
            rx_read: 0,
            rx_write: 0,
            descriptor_read: 0,
            descriptor_write: 0,
            waiting: 0,
        }
    }

    /// As the boot ROM sets it up.
    pub fn initialise(&mut self, mac: [u8; 6]) {
        self.set_mac(mac);
        self.command = 0x7B;
        self.phy_control = 1;
    }

    fn set_mac(&mut self, mac: [u8; 6]) {
        self.mac = [u32::from_be_bytes([mac[2], mac[3], mac[4], mac[5]]), u32::from_be_bytes([0, 0, mac[0], mac[1]])];
    }

    fn mac(&self) -> [u8; 6] {
        let (low, high) = (self.mac[0].to_be_bytes(), self.mac[1].to_be_bytes());
        [high[2], high[3], low[0], low[1], low[2], low[3]]
    }

    pub fn read(&self, offset: u32, now_ps: u64) -> u32 {
        match offset {
            0x0000..=0x05FF => word(&self.transmit[..], offset as usize),
            // Reads beyond the end of the ring continue at its start.
            0x4000..=0x7FFF => word(&self.receive[..], ((offset - 0x4000) % RX_BYTES) as usize),
            0x8000..=0x80BF => u32::from(self.lengths[(offset as usize - 0x8000) / 4]),
            0xC000 => self.command,
            0xC004 => u32::from(now_ps < self.tx_busy_until_ps) | self.waiting << 1 | u32::from(self.dropped) << 16,
            0xC008 => self.tx_length,
            0xC014 => self.mac[0],
            0xC018 => self.mac[1],
            0xC01C => self.phy_control & !2 | u32::from(self.phy.output()) << 1,
            0xC024 => self.rx_read,
            0xC028 => self.rx_write,
            0xC02C => self.descriptor_read,
            0xC030 => self.descriptor_write,
            _ => 0,
        }
    }

    /// Writes `bytes` (1, 2 or 4) of a register or the transmit buffer. A frame that is sent comes back, with the time at
    /// which its last bit is out.
    pub fn write(&mut self, offset: u32, bytes: usize, value: u32, now_ps: u64) -> Option<(u64, Vec<u8>)> {
        match offset {
            0x0000..=0x05FF => {
                let at = offset as usize;
                let data = value.to_le_bytes();
                let end = (at + bytes).min(TX_BYTES);
                self.transmit[at..end].copy_from_slice(&data[..end - at]);
            }
            0xC000 => {
                if value & 1 << 9 != 0 {
                    self.dropped = 0;
                }
                self.command = value & 0x5FF;
            }
            0xC008 => self.tx_length = value & 0x7FF,
            0xC00C => return self.send(now_ps),
            0xC010 => self.release(),
            0xC014 => self.mac[0] = value,
            0xC018 => self.mac[1] = value & 0xFFFF,
            0xC01C => {
                self.phy_control = value & 0x3D;
                self.phy.pins(value & 4 != 0, value & 8 != 0, value & 0x10 != 0);
            }
            0xC020 => {
                self.tx_interrupt &= value & 1 == 0;
                self.rx_interrupt &= value & 0x10 == 0;
                self.rx_interrupt |= self.waiting > 0;
            }
            _ => {}
        }
        None
    }

    fn send(&mut self, now_ps: u64) -> Option<(u64, Vec<u8>)> {
        if self.command & COMMAND_TX == 0 || now_ps < self.tx_busy_until_ps {
            return None;
        }
        let length = (self.tx_length as usize).clamp(60, 1514);
        self.tx_busy_until_ps = now_ps + wire_ps(length);
        Some((self.tx_busy_until_ps, self.transmit[..length].to_vec()))
    }

    /// The frame under way is out.
    pub fn sent(&mut self) {
        self.tx_interrupt = true;
    }

    /// A frame arrives. False if it was not taken: not for this board, or no room.
    pub fn receive(&mut self, frame: &[u8]) -> bool {
        if self.command & COMMAND_RX == 0 || frame.len() < 14 || frame.len() > 1518 || !self.wants(frame) {
            return false;
        }
        let taken = (self.rx_write & 0xFFF) + if self.ring_wrapped() { RX_BYTES } else { 0 } - (self.rx_read & 0xFFF);
        let room = aligned(frame.len());
        if taken + room > RX_BYTES || self.waiting == DESCRIPTORS {
            self.dropped = self.dropped.saturating_add(1);
            return false;
        }
        for (at, &byte) in (self.rx_write & 0xFFF..).zip(frame) {
            self.receive[(at % RX_BYTES) as usize] = byte;
        }
        self.lengths[(self.descriptor_write & 0x3F) as usize] = frame.len() as u16;
        self.rx_write = advanced(self.rx_write, room, RX_BYTES, 1 << 12);
        self.descriptor_write = advanced(self.descriptor_write, 1, DESCRIPTORS, 1 << 6);
        self.waiting += 1;
        self.rx_interrupt = true;
        true
    }

    fn ring_wrapped(&self) -> bool {
        (self.rx_read ^ self.rx_write) >> 12 & 1 != 0
    }

    fn wants(&self, frame: &[u8]) -> bool {
        let destination = &frame[..6];
        let enabled = |bit: u32| self.command >> bit & 1 != 0;
        if destination == [0xFF; 6] {
            enabled(6)
        } else if destination[0] & 1 != 0 {
            enabled(5)
        } else {
            enabled(7) || enabled(4) && destination == self.mac()
        }
    }

    /// The oldest frame, if there is one: what the boot ROM looks at.
    pub fn oldest(&self) -> Option<Vec<u8>> {
        (self.waiting > 0).then(|| {
            let length = u32::from(self.lengths[(self.descriptor_read & 0x3F) as usize]);
            (0..length).map(|i| self.receive[(((self.rx_read & 0xFFF) + i) % RX_BYTES) as usize]).collect()
        })
    }

    /// The oldest frame is done with.
    pub fn release(&mut self) {
        if self.waiting == 0 {
            return;
        }
        let length = usize::from(self.lengths[(self.descriptor_read & 0x3F) as usize]);
        self.rx_read = advanced(self.rx_read, aligned(length), RX_BYTES, 1 << 12);
        self.descriptor_read = advanced(self.descriptor_read, 1, DESCRIPTORS, 1 << 6);
        self.waiting -= 1;
    }

    /// Frames that wait.
    pub fn waiting(&self) -> u32 {
        self.waiting
    }

    /// Interrupt sources.
    pub fn lines(&self) -> u32 {
        u32::from(self.tx_interrupt) << source::ETHERNET_TX | u32::from(self.rx_interrupt) << source::ETHERNET_RX
    }
}

/// Ring bytes of a frame: with its FCS, whole words.
fn aligned(length: usize) -> u32 {
    ((length + 4 + 3) & !3) as u32
}

/// A ring pointer with its rollover bit, moved on.
fn advanced(pointer: u32, by: u32, size: u32, rollover: u32) -> u32 {
    let at = (pointer & (rollover - 1)) + by;
    let flag = pointer & rollover;
    if at >= size { (at - size) | (flag ^ rollover) } else { at | flag }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    let at = at & !3;
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: [u8; 6] = [0, 0, 0xA4, 0, 0x3E, 0x0E];

    fn frame(destination: [u8; 6], length: usize, fill: u8) -> Vec<u8> {
        let mut frame = vec![fill; length];
        frame[..6].copy_from_slice(&destination);
        frame
    }

    fn mac() -> Ethernet {
        let mut ethernet = Ethernet::new(true);
        // As the system software sets it up.
        ethernet.write(0xC000, 4, 0, 0);
        ethernet.write(0xC014, 4, 0xA400_3E0E, 0);
        ethernet.write(0xC018, 4, 0x0000_0000, 0);
        ethernet.write(0xC000, 4, 0x45B, 0);
        ethernet
    }

    #[test]
    fn frames_are_filtered_by_address() {
        let mut ethernet = mac();
        assert!(ethernet.receive(&frame(MAC, 60, 1)));
        assert!(ethernet.receive(&frame([0xFF; 6], 60, 2)));
        assert!(!ethernet.receive(&frame([1, 0, 0x5E, 0, 0, 1], 60, 3)));
        assert!(!ethernet.receive(&frame([2, 0, 0, 0, 0, 1], 60, 4)));
        assert!(!ethernet.receive(&[0xFF; 5]));
        assert_eq!((ethernet.read(0xC004, 0), ethernet.lines()), (2 << 1, 1 << 20));
    }

    #[test]
    fn the_ring_wraps_and_drops_what_does_not_fit() {
        let mut ethernet = mac();
        for round in 0..20u8 {
            let length = 60 + usize::from(round) * 61;
            assert!(ethernet.receive(&frame(MAC, length, round)));
            assert!(ethernet.receive(&frame(MAC, 61, 99)));
            let at = 0x4000 + (ethernet.read(0xC024, 0) & 0xFFF);
            let descriptor = 0x8000 + 4 * (ethernet.read(0xC02C, 0) & 0x3F);
            assert_eq!(ethernet.read(descriptor, 0) as usize, length);
            for word in (8..length as u32 - 3).step_by(4) {
                assert_eq!(ethernet.read(at + word, 0), u32::from_le_bytes([round; 4]));
            }
            ethernet.write(0xC010, 4, 1, 0);
            ethernet.write(0xC010, 4, 1, 0);
            assert_eq!(ethernet.read(0xC004, 0), 0);
        }
        for _ in 0..2 {
            assert!(ethernet.receive(&frame(MAC, 1514, 0)));
        }
        assert!(!ethernet.receive(&frame(MAC, 1514, 0)));
        assert_eq!(ethernet.read(0xC004, 0), 1 << 16 | 2 << 1);
        ethernet.write(0xC020, 4, 0x10, 0);
        assert_eq!(ethernet.lines(), 1 << 20);
        ethernet.release();
        ethernet.release();
        ethernet.write(0xC020, 4, 0x10, 0);
        assert_eq!(ethernet.lines(), 0);
    }

    #[test]
    fn sending_takes_the_time_of_the_wire() {
        let mut ethernet = mac();
        for (i, byte) in [5u32, 6, 7].into_iter().enumerate() {
            ethernet.write(i as u32, 1, byte, 0);
        }
        ethernet.write(0xC008, 4, 324, 0);
        let (end, sent) = ethernet.write(0xC00C, 4, 1, 1000).expect("sent");
        assert_eq!((end, sent.len(), &sent[..3]), (1000 + 27_840_000, 324, &[5, 6, 7][..]));
        assert_eq!((ethernet.read(0xC004, end - 1), ethernet.read(0xC004, end)), (1, 0));
        assert!(ethernet.write(0xC00C, 4, 1, end - 1).is_none());
    }
}
