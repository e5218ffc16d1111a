//! Nearest-neighbour packets: the check sum they carry, those that boot a neighbour, and those of the monitors.

use core::fmt;

use crate::bytes::{field, raw_enum};

/// Adds the eight 4-bit digits of a word, carries coming round.
const fn digit_sum(word: u32) -> u32 {
    let mut sum = 0;
    let mut shift = 0;
    while shift < 32 {
        sum += (word >> shift) & 15;
        shift += 4;
    }
    sum
}

/// A digit such that the one's-complement sum of it and of all digits of the words is 15. The zero of that arithmetic
/// is written as 0.
const fn complement(sum: u32) -> u32 {
    let mut folded = sum;
    while folded > 15 {
        folded = (folded & 15) + (folded >> 4);
    }
    15 - folded
}

/// The key with the check sum over key and payload in its bits 31:28, whatever these were.
pub const fn with_checksum(key: u32, payload: u32) -> u32 {
    let key = key & 0x0FFF_FFFF;
    key | complement(digit_sum(key) + digit_sum(payload)) << 28
}

/// Whether the digits of key and payload add up to 15, carries coming round, as a receiver wants it.
pub const fn checksum_holds(key: u32, payload: u32) -> bool {
    complement(digit_sum(key) + digit_sum(payload)) == 0
}

/// A word with its own check sum in bits 31:28 (control packets of SDP over P2P).
pub const fn word_with_checksum(word: u32) -> u32 {
    with_checksum(word, 0)
}

/// Packets by which a booted chip boots its neighbours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BootPacket {
    /// The image has this many blocks, 1..=256.
    Start {
        /// How many.
        blocks: u16,
    },
    /// A block begins.
    BlockStart {
        /// Its number.
        block: u8,
        /// Its words, 1..=256.
        words: u16,
        /// The monitor sends `block * 1024`; not used.
        offset_bytes: u32,
    },
    /// A word of the block.
    Word {
        /// The block.
        block: u8,
        /// The word's number.
        index: u8,
        /// The word.
        word: u32,
    },
    /// The block ends.
    BlockEnd {
        /// The block.
        block: u8,
        /// CRC-32 (that of Ethernet) over its bytes.
        crc: u32,
    },
    /// Start the image.
    Control {
        /// Whether bit 8 of the key is set, without which nothing happens.
        execute: bool,
        /// Where.
        entry: u32,
    },
}

/// Bits 3:0 of the keys of boot packets.
const BOOT_MARK: u32 = 3;

impl BootPacket {
    /// Reads a packet; `None` if the check sum is wrong or it is no boot packet.
    pub const fn parse(key: u32, payload: u32) -> Option<Self> {
        if !checksum_holds(key, payload) || key & 15 != BOOT_MARK {
            return None;
        }
        let block = field(key, 16, 8) as u8;
        let second = field(key, 8, 8) as u8;
        Some(match field(key, 24, 4) {
            1 => Self::Start { blocks: field(payload, 16, 8) as u16 + 1 },
            2 => Self::BlockStart { block, words: second as u16 + 1, offset_bytes: payload },
            3 => Self::Word { block, index: second, word: payload },
            4 => Self::BlockEnd { block, crc: payload },
            5 => Self::Control { execute: second & 1 != 0, entry: payload },
            _ => return None,
        })
    }

    /// Key with check sum, and payload. Counts are taken modulo 256 with 0 for 256.
    pub const fn emit(self) -> (u32, u32) {
        let (command, block, second, payload) = match self {
            Self::Start { blocks } => (1, 0, 0, (blocks.wrapping_sub(1) as u32 & 0xFF) << 16),
            Self::BlockStart { block, words, offset_bytes } => (2, block, words.wrapping_sub(1) as u8, offset_bytes),
            Self::Word { block, index, word } => (3, block, index, word),
            Self::BlockEnd { block, crc } => (4, block, 0, crc),
            Self::Control { execute, entry } => (5, 0, execute as u8, entry),
        };
        let key = command << 24 | (block as u32) << 16 | (second as u32) << 8 | BOOT_MARK;
        (with_checksum(key, payload), payload)
    }
}

impl fmt::Display for BootPacket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Start { blocks } => write!(f, "nn boot start {blocks} blocks"),
            Self::BlockStart { block, words, .. } => write!(f, "nn boot block {block} of {words} words"),
            Self::Word { block, index, word } => write!(f, "nn boot block {block} word {index} {word:08x}"),
            Self::BlockEnd { block, crc } => write!(f, "nn boot block {block} end crc {crc:08x}"),
            Self::Control { execute, entry } => write!(f, "nn boot control {execute} {entry:#x}"),
        }
    }
}

/// CRC-32 as Ethernet has it, over bytes in memory order: what ends a block.
pub fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| crc >> 1 ^ if crc & 1 != 0 { 0xEDB8_8320 } else { 0 })
    })
}

raw_enum! {
    /// Bits 27:24 of the key of a monitor's packet.
    pub enum MonitorCommand(u8) {
        /// Set forward and retry, LEDs, time phase, packet ids, or a signal: see [`Sig0`].
        Sig0 = 0 "SIG0",
        /// Router control.
        RouterControl = 1 "RTRC",
        /// Time phase.
        TimePhase = 2 "LTPC",
        /// Memory write.
        Sig1 = 4 "SIG1",
        /// P2P: coordinates, dimensions, return routes.
        P2pControl = 5 "P2PC",
        /// Flood fill: start.
        FloodStart = 6 "FFS",
        /// Flood fill: select cores.
        FloodCores = 7 "FFCS",
        /// P2P: routes.
        P2pBroadcast = 8 "P2PB",
        /// Working links of the sender.
        LinkSync = 9 "LKSYN",
        /// Phase of the sender's network set-up.
        NetworkSync = 10 "NISYN",
        /// Board information.
        BoardInfo = 11 "BIFF",
        /// Flood fill: block start.
        BlockStart = 12 "FBS",
        /// Flood fill: block data.
        BlockData = 13 "FBD",
        /// Flood fill: block end.
        BlockEnd = 14 "FBE",
        /// Flood fill: end.
        FloodEnd = 15 "FFE",
    }
}

raw_enum! {
    /// Bits 31:28 of the payload of SIG0.
    pub enum Sig0(u8) {
        /// Set forward mask and retry.
        Forward = 0 "forward",
        /// LEDs.
        Led = 1 "LED",
        /// Time phase scale.
        TimePhase = 2 "time phase",
        /// Set or clear the packet ids that have been seen.
        Ids = 3 "ids",
        /// A signal word.
        Signal = 5 "signal",
    }
}

/// A packet between monitors: normal type, with payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MonitorPacket {
    /// What it is.
    pub command: MonitorCommand,
    /// Bits 23:0 of the key; for commands with bit 2 clear: forward mask 23:16, repeats 15:8, packet id 7:1.
    pub key: u32,
    /// The payload.
    pub payload: u32,
}

impl MonitorPacket {
    /// Reads a packet; `None` if the check sum is wrong or it is the answer to a direct access (bit 0 of the key).
    pub const fn parse(key: u32, payload: u32) -> Option<Self> {
        if !checksum_holds(key, payload) || key & 1 != 0 {
            return None;
        }
        let command = MonitorCommand::from_raw(field(key, 24, 4) as u8);
        Some(Self { command, key: key & 0x00FF_FFFF, payload })
    }

    /// Key with check sum, and payload; of the command four bits, of the key 24 without bit 0.
    pub const fn emit(self) -> (u32, u32) {
        let key = (self.command.raw() as u32 & 15) << 24 | self.key & 0x00FF_FFFE;
        (with_checksum(key, self.payload), self.payload)
    }

    /// Packet id, 0..=127; 0 is never suppressed as a repeat.
    pub const fn id(self) -> u8 {
        field(self.key, 1, 7) as u8
    }
}

impl fmt::Display for MonitorPacket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "nn {} {:06x} {:08x}", self.command, self.key, self.payload)
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::string::ToString;

    use proptest::prelude::*;

    use super::*;

    // What the released monitor sent over link 0 of chip (0, 0).
    const FLOOD: [(u32, u32, BootPacket); 12] = [
        (0xA100_0003, 0x001F_0000, BootPacket::Start { blocks: 32 }),
        (0xA200_FF03, 0, BootPacket::BlockStart { block: 0, words: 256, offset_bytes: 0 }),
        (0x1300_0003, 0xE3A0_D841, BootPacket::Word { block: 0, index: 0, word: 0xE3A0_D841 }),
        (0xA300_0103, 0xE28F_0004, BootPacket::Word { block: 0, index: 1, word: 0xE28F_0004 }),
        (0x0300_0203, 0xE890_0033, BootPacket::Word { block: 0, index: 2, word: 0xE890_0033 }),
        (0x8300_0303, 0xFA00_0003, BootPacket::Word { block: 0, index: 3, word: 0xFA00_0003 }),
        (0x0300_0403, 0x0040_8080, BootPacket::Word { block: 0, index: 4, word: 0x0040_8080 }),
        (0x4300_0503, 0, BootPacket::Word { block: 0, index: 5, word: 0 }),
        (0xC400_0003, 0x8E5C_1970, BootPacket::BlockEnd { block: 0, crc: 0x8E5C_1970 }),
        (0x521F_FF03, 0x7C00, BootPacket::BlockStart { block: 31, words: 256, offset_bytes: 0x7C00 }),
        (0x6500_0103, 0, BootPacket::Control { execute: true, entry: 0 }),
        (0x6500_0103, 0, BootPacket::Control { execute: true, entry: 0 }),
    ];

    #[test]
    fn flood_packets_of_the_released_monitor() {
        for (key, payload, packet) in FLOOD {
            assert_eq!(BootPacket::parse(key, payload), Some(packet), "{key:08x}");
            assert_eq!(packet.emit(), (key, payload), "{packet}");
            assert_eq!(BootPacket::parse(key ^ 0x1000_0000, payload), None);
        }
        assert_eq!(FLOOD[2].2.to_string(), "nn boot block 0 word 0 e3a0d841");
    }

    #[test]
    fn packets_of_network_setup() {
        // NISYN, LKSYN of (0, 0), P2PB of (0, 0) and as its neighbours forward it.
        let cases = [
            (0x5A00_0000, 0, MonitorCommand::NetworkSync, 0),
            (0xC900_0000, 0x27, MonitorCommand::LinkSync, 0),
            (0x483F_0000, 0, MonitorCommand::P2pBroadcast, 0x3F_0000),
            (0x383F_0000, 1, MonitorCommand::P2pBroadcast, 0x3F_0000),
        ];
        for (key, payload, command, low) in cases {
            let packet = MonitorPacket { command, key: low, payload };
            assert_eq!(MonitorPacket::parse(key, payload), Some(packet), "{key:08x}");
            assert_eq!(packet.emit(), (key, payload));
        }
        assert_eq!(MonitorPacket::parse(0xFFFF_FFFF, 0xFFFF_FFFF), None, "an answer");
    }

    #[test]
    fn the_crc_is_that_of_ethernet() {
        assert_eq!(crc32(b"123456789"), 0xCBF4_3926);
        assert_eq!(crc32(b""), 0);
    }

    proptest! {
        #[test]
        fn the_check_sum_is_a_sum_with_end_around_carry(key in any::<u32>(), payload in any::<u32>()) {
            let key = with_checksum(key, payload);
            prop_assert!(checksum_holds(key, payload));
            // By the rule of the reference: add words, halves, bytes, digits, each with its carry.
            let fold = |s: u64, bits: u32| (s & ((1 << bits) - 1)) + (s >> bits);
            let mut sum = u64::from(key) + u64::from(payload);
            for bits in [32, 32, 16, 16, 8, 8, 4, 4] {
                sum = fold(sum, bits);
            }
            prop_assert_eq!(sum, 15);
        }

        #[test]
        fn packets_survive_a_round_trip(key in any::<u32>(), payload in any::<u32>()) {
            let boot = with_checksum(key & !15 | 3, payload);
            if let Some(packet) = BootPacket::parse(boot, payload) {
                let (key, payload) = packet.emit();
                prop_assert_eq!(BootPacket::parse(key, payload), Some(packet));
            }
            let monitor = with_checksum(key & !1, payload);
            if let Some(packet) = MonitorPacket::parse(monitor, payload) {
                prop_assert_eq!(packet.emit(), (monitor, payload));
            }
        }
    }
}
