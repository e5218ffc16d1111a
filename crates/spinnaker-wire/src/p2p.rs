//! SDP over P2P packets: how monitors carry messages from chip to chip.

use core::fmt;

use crate::bytes::{field, fits};
use crate::nn::{checksum_holds, word_with_checksum};
use crate::sdp::{BODY_BYTES_MAX, HEADER_BYTES};
use crate::{Result, WireError};

/// Bytes of message in a data packet.
pub const DATA_BYTES: usize = 3;
/// Bytes of check sum in front of the message.
pub const CHECKSUM_BYTES: usize = 2;
/// log2 of the packets in a window, as monitors have it by default.
pub const WINDOW_LOG2: u8 = 4;
/// Streams that a receiver has.
pub const STREAMS: u8 = 8;

/// A control packet (sequence bits 01).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Control {
    /// May I send?
    OpenRequest {
        /// Bytes of SDP header and body.
        length_bytes: u16,
        /// log2 of the window, three bits.
        window_log2: u8,
        /// The sender's number for it, five bits.
        transaction: u8,
    },
    /// The answer.
    OpenAck {
        /// The receiver's number for it, three bits.
        stream: u8,
        /// The sender's number, five bits.
        transaction: u8,
        /// 0x80 yes, 0x8C no, 0x8D busy.
        code: u8,
    },
    /// Which packets are still wanted.
    DataAck {
        /// The window's phase.
        phase: bool,
        /// The sender's number, five bits.
        transaction: u8,
        /// Bit n for packet n of the window.
        wanted: u16,
    },
    /// All is there.
    CloseRequest {
        /// The receiver's number, three bits.
        stream: u8,
        /// The sender's number, five bits.
        transaction: u8,
    },
    /// Understood.
    CloseAck {
        /// The receiver's number, three bits.
        stream: u8,
        /// The sender's number, five bits.
        transaction: u8,
    },
    /// A test of links.
    Ping {
        /// The link, three bits.
        link: u8,
    },
    /// How many cores of an application are in a state?
    CountRequest {
        /// The question's number.
        id: u8,
        /// The state.
        state: u8,
        /// The application.
        app: u8,
    },
    /// So many.
    CountResponse {
        /// The question's number.
        id: u8,
        /// How many, five bits.
        count: u8,
    },
}

impl Control {
    /// Reads a payload.
    ///
    /// # Errors
    /// [`WireError::Field`] for a wrong check sum or an unknown operation.
    pub fn parse(payload: u32) -> Result<Self> {
        if !checksum_holds(payload, 0) {
            return Err(WireError::Field { what: "P2P control check sum", value: payload });
        }
        let stream = field(payload, 21, 3) as u8;
        let transaction = field(payload, 16, 5) as u8;
        Ok(match field(payload, 24, 4) {
            1 => Self::OpenRequest {
                length_bytes: field(payload, 8, 16) as u16,
                window_log2: field(payload, 5, 3) as u8,
                transaction: field(payload, 0, 5) as u8,
            },
            2 => Self::OpenAck { stream, transaction, code: payload as u8 },
            3 => Self::DataAck { phase: payload & 1 << 21 != 0, transaction, wanted: payload as u16 },
            4 => Self::CloseRequest { stream, transaction },
            5 => Self::CloseAck { stream, transaction },
            6 => Self::Ping { link: field(payload, 0, 3) as u8 },
            7 => Self::CountRequest {
                id: field(payload, 16, 8) as u8,
                state: field(payload, 8, 8) as u8,
                app: payload as u8,
            },
            8 => Self::CountResponse { id: field(payload, 16, 8) as u8, count: field(payload, 0, 5) as u8 },
            op => return Err(WireError::Field { what: "P2P control operation", value: op }),
        })
    }

    /// The payload.
    ///
    /// # Errors
    /// [`WireError::Field`] for a value that its bits do not hold.
    pub fn emit(self) -> Result<u32> {
        let small = |what, value: u8, bits| fits(what, value.into(), bits);
        let stream = |s| Ok(small("P2P stream", s, 3)? << 21);
        let transaction = |t| small("P2P transaction", t, 5);
        let word = match self {
            Self::OpenRequest { length_bytes, window_log2, transaction: t } => {
                1 << 24 | u32::from(length_bytes) << 8 | small("P2P window", window_log2, 3)? << 5 | transaction(t)?
            }
            Self::OpenAck { stream: s, transaction: t, code } => {
                2 << 24 | stream(s)? | transaction(t)? << 16 | u32::from(code)
            }
            Self::DataAck { phase, transaction: t, wanted } => {
                3 << 24 | u32::from(phase) << 21 | transaction(t)? << 16 | u32::from(wanted)
            }
            Self::CloseRequest { stream: s, transaction: t } => 4 << 24 | stream(s)? | transaction(t)? << 16,
            Self::CloseAck { stream: s, transaction: t } => 5 << 24 | stream(s)? | transaction(t)? << 16,
            Self::Ping { link } => 6 << 24 | small("P2P ping link", link, 3)?,
            Self::CountRequest { id, state, app } => {
                7 << 24 | u32::from(id) << 16 | u32::from(state) << 8 | u32::from(app)
            }
            Self::CountResponse { id, count } => 8 << 24 | u32::from(id) << 16 | small("P2P count", count, 5)?,
        };
        Ok(word_with_checksum(word))
    }
}

impl fmt::Display for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("p2p ")?;
        match self {
            Self::OpenRequest { length_bytes, transaction, .. } => {
                write!(f, "open {transaction}: {length_bytes} bytes")
            }
            Self::OpenAck { stream, transaction, code } => {
                write!(f, "open ack {transaction}: stream {stream} code {code:#x}")
            }
            Self::DataAck { phase, transaction, wanted } => {
                write!(f, "data ack {transaction}: phase {} wanted {wanted:#06x}", u8::from(*phase))
            }
            Self::CloseRequest { stream, transaction } => write!(f, "close {transaction}: stream {stream}"),
            Self::CloseAck { stream, transaction } => write!(f, "close ack {transaction}: stream {stream}"),
            Self::Ping { link } => write!(f, "ping link {link}"),
            Self::CountRequest { id, state, app } => write!(f, "count {id}: app {app} state {state}"),
            Self::CountResponse { id, count } => write!(f, "count {id}: {count} cores"),
        }
    }
}

/// A data packet (sequence bits 00).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Data {
    /// The receiver's number, three bits.
    pub stream: u8,
    /// The window's phase.
    pub phase: bool,
    /// Number in the window, four bits.
    pub index: u8,
    /// Bytes of the message.
    pub bytes: [u8; DATA_BYTES],
}

impl Data {
    /// Reads a payload; every word is one.
    pub const fn parse(payload: u32) -> Self {
        let [a, b, c, _] = payload.to_le_bytes();
        Self {
            stream: field(payload, 29, 3) as u8,
            phase: payload & 1 << 28 != 0,
            index: field(payload, 24, 4) as u8,
            bytes: [a, b, c],
        }
    }

    /// The payload; of numbers the bits that fit.
    pub const fn emit(self) -> u32 {
        let [a, b, c] = self.bytes;
        let head = (self.stream & 7) << 5 | (self.phase as u8) << 4 | self.index & 15;
        u32::from_le_bytes([a, b, c, head])
    }
}

impl fmt::Display for Data {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c] = self.bytes;
        let phase = u8::from(self.phase);
        write!(f, "p2p data stream {} phase {phase} packet {}: {a:02x}{b:02x}{c:02x}", self.stream, self.index)
    }
}

/// The check sum in front of a message: one's complement over its length, zero, and the message as big-endian half-words.
///
/// # Errors
/// [`WireError::TooLong`] for what no message holds.
pub fn message_checksum(message: &[u8]) -> Result<[u8; CHECKSUM_BYTES]> {
    let limit_bytes = HEADER_BYTES + BODY_BYTES_MAX;
    if message.len() > limit_bytes {
        return Err(WireError::TooLong { what: "SDP over P2P", limit_bytes, got_bytes: message.len() });
    }
    // The length lies in memory in front of the message, low byte first, and is added as it lies there.
    let mut sum = u32::from((message.len() as u16).swap_bytes());
    for pair in message.chunks(2) {
        let low = pair.get(1).copied().unwrap_or_default();
        sum += u32::from(u16::from_be_bytes([pair[0], low]));
    }
    while sum > 0xFFFF {
        sum = (sum & 0xFFFF) + (sum >> 16);
    }
    Ok((!(sum as u16)).to_be_bytes())
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    // VER from (0, 0) to (1, 0) and its reply, as the released monitor sent them.
    const REQUEST: [u32; 9] = [
        0xE0C7_F71D,
        0xE1FF_0008,
        0xE200_0100,
        0xE300_0000,
        0xE400_0002,
        0xE500_0000,
        0xE600_0000,
        0xE700_0000,
        0xE800_0000,
    ];
    const REPLY: [u32; 16] = [
        0xE047_B577,
        0xE100_FF08,
        0xE200_0000,
        0xE300_8001,
        0xE400_0002,
        0xE501_0002,
        0xE6FF_0100,
        0xE733_F4FF,
        0xE853_6557,
        0xE94D_2643,
        0xEA53_2F50,
        0xEB4E_6970,
        0xEC6B_614E,
        0xED00_7265,
        0xEE30_2E34,
        0xEF00_302E,
    ];

    #[test]
    fn control_packets_of_the_released_monitor() {
        let cases = [
            (0xB100_1881, Control::OpenRequest { length_bytes: 24, window_log2: 4, transaction: 1 }),
            (0x52E1_0080, Control::OpenAck { stream: 7, transaction: 1, code: 0x80 }),
            (0xB4E1_0000, Control::CloseRequest { stream: 7, transaction: 1 }),
            (0xA5E1_0000, Control::CloseAck { stream: 7, transaction: 1 }),
            (0x4100_2E81, Control::OpenRequest { length_bytes: 46, window_log2: 4, transaction: 1 }),
            (0x6600_0003, Control::Ping { link: 3 }),
        ];
        for (payload, control) in cases {
            assert_eq!(Control::parse(payload), Ok(control), "{payload:08x}");
            assert_eq!(control.emit(), Ok(payload), "{control}");
            assert!(Control::parse(payload ^ 1).is_err());
        }
        assert!(Control::Ping { link: 8 }.emit().is_err());
    }

    fn bytes(payloads: &[u32]) -> Vec<u8> {
        payloads.iter().flat_map(|p| Data::parse(*p).bytes).collect()
    }

    #[test]
    fn a_message_of_the_released_monitor() {
        for (i, payload) in REQUEST.iter().enumerate() {
            let data = Data::parse(*payload);
            assert_eq!((data.stream, data.phase, data.index), (7, false, i as u8));
            assert_eq!(data.emit(), *payload);
        }
        let request = bytes(&REQUEST);
        let message = [0xC7, 8, 0, 0xFF, 0, 1, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(request[2..26], message);
        let packet = crate::sdp::Packet::new_checked(&message).unwrap();
        assert_eq!(packet.repr().destination.chip, crate::ChipAddress::new(1, 0));
        let reply = bytes(&REPLY);
        let packet = crate::sdp::Packet::new_checked(&reply[2..48]).unwrap();
        let scp = crate::scp::Packet::new_checked(packet.body).unwrap();
        let version = crate::scp::Version::parse(scp.payload).unwrap();
        assert_eq!((version.name, version.number), ("SC&MP", (4, 0, 0)));
        assert_eq!((version.chip, version.physical_core), (crate::ChipAddress::new(1, 0), 2));
    }

    #[test]
    fn the_check_sum_in_front_of_messages() {
        for packets in [&REQUEST[..], &REPLY[..]] {
            let bytes = bytes(packets);
            let length = if packets.len() == 9 { 24 } else { 46 };
            assert_eq!(message_checksum(&bytes[2..2 + length]), Ok([bytes[0], bytes[1]]));
        }
    }

    proptest! {
        #[test]
        fn packets_survive_a_round_trip(payload in any::<u32>()) {
            prop_assert_eq!(Data::parse(payload).emit(), payload);
            let payload = crate::nn::word_with_checksum(payload);
            if let Ok(control) = Control::parse(payload) {
                let again = control.emit().unwrap();
                prop_assert_eq!(Control::parse(again), Ok(control));
            }
        }
    }
}
