//! Frames to the host, past the monitor: the transmit buffer is free to whoever has the lock that the monitor takes for it, too
//! (data sheet section 15; SpiNNaker tools, `spinnaker.h`: LOCK_ETHER).

use crate::device::Register;
use crate::hand;

const TRANSMIT: u32 = 0xE400_0000;
const STATUS: Register = Register::at(0xE400_C004);
const LENGTH: Register = Register::at(0xE400_C008);
const COMMAND: Register = Register::at(0xE400_C00C);
const MAC_LOW: Register = Register::at(0xE400_C014);
const MAC_HIGH: Register = Register::at(0xE400_C018);
/// Bit of the status: a frame is going out.
const BUSY: u32 = 1;
/// Test-and-set register of the Ethernet: reading sets and tells, reading the second clears (data sheet section 14).
const LOCK: Register = Register::at(0xE200_0108);
const UNLOCK: Register = Register::at(0xE200_0188);
/// System variables: this chip, its IP address.
const CHIP: Register = Register::at(0xE500_7F00);
const OWN_IP: Register = Register::at(0xE500_7FF0);
/// The monitor's UDP port.
const PORT: u16 = 17893;
/// Ethernet, IP, UDP, pads, SDP, and the first two words of a message.
const HEADER_BYTES: usize = 60;
const HEADER_WORDS: usize = HEADER_BYTES / 4;
/// Before IP, before UDP.
const IP: usize = 14;
const UDP: usize = 34;

/// Where the host is, as the head of every frame to it.
pub struct Host {
    head: [u8; HEADER_BYTES],
}

/// What follows the first two words of a message.
pub enum Content<'a> {
    /// Few words.
    Words(&'a [u32]),
    /// Data memory: address, words.
    Memory(u32, u32),
}

impl Host {
    /// The head of frames to an IP address (first octet in the low byte), MAC address (low four bytes, then two with the port above),
    /// from SDP port and core `source`.
    pub fn new(ip: u32, mac: u32, mac_and_port: u32, source: u8) -> Host {
        let mut head = [0; HEADER_BYTES];
        head[..4].copy_from_slice(&mac.to_le_bytes());
        head[4..6].copy_from_slice(&mac_and_port.to_le_bytes()[..2]);
        head[6..8].copy_from_slice(&MAC_HIGH.read().to_be_bytes()[2..]);
        head[8..12].copy_from_slice(&MAC_LOW.read().to_be_bytes());
        head[12..16].copy_from_slice(&[0x08, 0x00, 0x45, 0x00]);
        // Not to be cut up; 64 hops; UDP. Without a check sum: the frame has one.
        head[20..24].copy_from_slice(&[0x40, 0x00, 64, 17]);
        head[26..30].copy_from_slice(&OWN_IP.read().to_le_bytes());
        head[30..34].copy_from_slice(&ip.to_le_bytes());
        head[34..36].copy_from_slice(&PORT.to_be_bytes());
        head[36..38].copy_from_slice(&((mac_and_port >> 16) as u16).to_be_bytes());
        // SDP, behind two pads: no reply wanted, no tag, to Ethernet.
        head[44..48].copy_from_slice(&[0x07, 0xFF, 0xFF, source]);
        head[50..52].copy_from_slice(&(CHIP.read() as u16).to_le_bytes());
        Host { head }
    }

    /// Sends a message of two words and what follows them; `false` if the transmitter is at work.
    pub fn send(&mut self, first: u32, second: u32, content: &Content<'_>) -> bool {
        if STATUS.read() & BUSY != 0 || LOCK.read() >> 31 != 0 {
            return false;
        }
        let free = STATUS.read() & BUSY == 0;
        if free {
            self.fill(first, second, content);
        }
        let _ = UNLOCK.read();
        free
    }

    fn fill(&mut self, first: u32, second: u32, content: &Content<'_>) {
        let words = match content {
            Content::Words(words) => words.len() as u32,
            Content::Memory(_, words) => *words,
        };
        let frame_bytes = HEADER_BYTES + 4 * words as usize;
        self.set_half(IP + 2, frame_bytes - IP);
        self.set_half(IP + 10, 0);
        let sum: u32 = (IP..UDP).step_by(2).map(|at| self.half(at)).sum();
        let sum = (sum & 0xFFFF) + (sum >> 16);
        let sum = (sum & 0xFFFF) + (sum >> 16);
        self.set_half(IP + 10, (!sum & 0xFFFF) as usize);
        self.set_half(UDP + 4, frame_bytes - UDP);
        self.head[52..56].copy_from_slice(&first.to_le_bytes());
        self.head[56..60].copy_from_slice(&second.to_le_bytes());
        for number in 0..HEADER_WORDS {
            let at = 4 * number;
            let word = u32::from_le_bytes([self.head[at], self.head[at + 1], self.head[at + 2], self.head[at + 3]]);
            Register::at(TRANSMIT + at as u32).write(word);
        }
        let place = TRANSMIT + HEADER_BYTES as u32;
        match *content {
            Content::Words(words) => {
                for (number, word) in words.iter().enumerate() {
                    Register::at(place + 4 * number as u32).write(*word);
                }
            }
            Content::Memory(address, words) => hand::transfer(true, place, address, words),
        }
        LENGTH.write(frame_bytes as u32);
        COMMAND.write(1);
    }

    fn half(&self, at: usize) -> u32 {
        u32::from(self.head[at]) << 8 | u32::from(self.head[at + 1])
    }

    fn set_half(&mut self, at: usize, value: usize) {
        self.head[at..at + 2].copy_from_slice(&(value as u16).to_be_bytes());
    }
}
