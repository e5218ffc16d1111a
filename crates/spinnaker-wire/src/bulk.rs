//! Bulk transfers between a host and the SDRAM of any chip, by a program of this project on one core of each chip.
//!
//! The program on a board's Ethernet chip is the *gate*: the host sends it SDP messages, and it puts what they carry into its own
//! chip's SDRAM, or sends the words as multicast packets to the *hand* of another chip. What is read comes from the hand to the gate as
//! packets, and to the host in frames that the gate sends by itself, since the monitor's SDP carries 272 bytes each and has not the time.
//!
//! A piece of memory is cut into *blocks* of 256 bytes, numbered from 0; the last may be shorter. Any message may be lost, come twice or late:
//!
//! * [`Message::Hello`] tells the gate where the host is; [`Message::Greeting`] answers it.
//! * To write: [`Message::Ask`] tells which piece of memory and asks what has come; [`Message::Status`] has a bit for each of the
//!   [`WINDOW_BLOCKS`] blocks from `first` on. [`Message::Data`] carries a block, which has to lie within the window of the last status.
//!   The host moves the window on by asking with a larger `first`.
//! * To read: [`Message::Fetch`] asks for up to 64 blocks, [`Message::Blocks`] brings up to four that follow each other.
//!
//! A transfer has a number; the gate works on one at a time and ignores numbers that are older than the newest ([`is_newer`]).
//! All words are little-endian.

use core::fmt;

use crate::bytes::{Hex, Writer, prefix};
use crate::{Result, WireError, sdp};
use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Version of the messages, which [`Message::Greeting`] tells.
pub const VERSION: u32 = 1;
/// SDP port of the gate.
pub const PORT: u8 = 1;
/// Bytes of a block.
pub const BLOCK_BYTES: usize = 256;
/// Blocks that may be under way to a chip.
pub const WINDOW_BLOCKS: u32 = 512;
/// Blocks that one request reads.
pub const FETCH_BLOCKS: u32 = 64;
/// Blocks that one frame brings.
pub const FRAME_BLOCKS: usize = 4;
/// The longest body of a message.
pub const BODY_BYTES_MAX: usize = 8 + FRAME_BLOCKS * BLOCK_BYTES;
/// The longest UDP payload.
pub const UDP_BYTES_MAX: usize = sdp::UDP_PAD_BYTES + sdp::HEADER_BYTES + BODY_BYTES_MAX;
/// Hands of a board have the numbers 1 to this; the gate is 0.
pub const HANDS_MAX: u16 = 0xFFE;
/// The bits of a multicast key that say whom it goes to. Networks' keys have a core number of 1 to 17 in bits 19:15, these 30 or 31.
pub const KEY_MASK: u32 = 0xFFFF_0000;

/// The multicast key of the packets to a hand, or to the gate (number 0): the number in bits 31:20, ones in 19:16, and below them
/// bit 15 for control, 14:0 for what it is.
pub const fn key(hand: u16) -> u32 {
    (hand as u32) << 20 | 0x000F_0000
}

/// Whether a transfer's number is newer than another: numbers wrap.
pub const fn is_newer(transfer: u16, than: u16) -> bool {
    (transfer.wrapping_sub(than) as i16) > 0
}

/// What the first half-word of a message says.
mod code {
    pub const HELLO: u16 = 0x5301;
    pub const GREETING: u16 = 0x5302;
    pub const DATA: u16 = 0x5303;
    pub const ASK: u16 = 0x5304;
    pub const STATUS: u16 = 0x5305;
    pub const FETCH: u16 = 0x5306;
    pub const BLOCKS: u16 = 0x5307;
}

/// A piece of a chip's SDRAM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Extent {
    /// The hand of its chip; 0 is the gate's own.
    pub hand: u16,
    /// Its first byte; a multiple of 4.
    pub address: u32,
    /// Its length.
    pub words: u32,
}

impl Extent {
    /// Blocks that it has.
    pub const fn blocks(&self) -> u32 {
        self.words.div_ceil(BLOCK_BYTES as u32 / 4)
    }
}

/// A message between host and gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// To the gate: where the host is.
    Hello {
        /// Comes back with the answer.
        nonce: u32,
        /// IP address, first octet first.
        ip: [u8; 4],
        /// Ethernet address of the host, or of the router in front of it.
        mac: [u8; 6],
        /// UDP port.
        port: u16,
    },
    /// From the gate.
    Greeting {
        /// Of the question.
        nonce: u32,
        /// [`VERSION`].
        version: u32,
    },
    /// To the gate: a block to be written.
    Data {
        /// The transfer.
        transfer: u16,
        /// The block's number.
        block: u32,
        /// Its content, whole words.
        data: &'a [u8],
    },
    /// To the gate: what has come of this piece of memory?
    Ask {
        /// The transfer.
        transfer: u16,
        /// Comes back with the answer.
        question: u16,
        /// What is written.
        extent: Extent,
        /// All blocks before this one are known to be there.
        first: u32,
    },
    /// From the gate: what has come.
    Status {
        /// The transfer.
        transfer: u16,
        /// Of the question.
        question: u16,
        /// Whose answer it is.
        hand: u16,
        /// All blocks before this one are there.
        first: u32,
        /// A bit for each block from `first` on: it is there. Bit n of the array belongs to the block whose number is n modulo 512.
        done: [u32; WINDOW_BLOCKS as usize / 32],
    },
    /// To the gate: read blocks.
    Fetch {
        /// The transfer.
        transfer: u16,
        /// What is read.
        extent: Extent,
        /// A multiple of [`FETCH_BLOCKS`].
        base: u32,
        /// Bit n: block `base + n` is wanted.
        wanted: u64,
    },
    /// From the gate: blocks in a row.
    Blocks {
        /// The transfer.
        transfer: u16,
        /// Number of the first.
        block: u32,
        /// Their content, whole words.
        data: &'a [u8],
    },
}

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Head {
    code: U16,
    transfer: U16,
    /// A nonce, the number of a block, or a hand and the number of a question above it.
    word: U32,
}

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct HostPart {
    ip: [u8; 4],
    mac: [u8; 6],
    port: U16,
}

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct ExtentPart {
    address: U32,
    words: U32,
    /// The first block.
    block: U32,
}

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct StatusPart {
    first: U32,
    done: [U32; WINDOW_BLOCKS as usize / 32],
}

fn check_data(data: &[u8], blocks_max: usize) -> Result<()> {
    let limit_bytes = blocks_max * BLOCK_BYTES;
    if data.len() > limit_bytes {
        return Err(WireError::TooLong { what: "stream data", limit_bytes, got_bytes: data.len() });
    }
    if data.is_empty() || !data.len().is_multiple_of(4) {
        return Err(WireError::Field { what: "bytes of stream data", value: data.len() as u32 });
    }
    Ok(())
}

fn check_extent(extent: &Extent) -> Result<()> {
    let end = u64::from(extent.address) + 4 * u64::from(extent.words);
    if !extent.address.is_multiple_of(4) || end > 1 << 32 {
        return Err(WireError::Field { what: "address of a stream", value: extent.address });
    }
    if extent.hand > HANDS_MAX {
        return Err(WireError::Field { what: "hand of a stream", value: extent.hand.into() });
    }
    Ok(())
}

impl<'a> Message<'a> {
    /// Reads the body of an SDP message.
    ///
    /// # Errors
    /// [`WireError`] for one that is none of these.
    pub fn parse(body: &'a [u8]) -> Result<Self> {
        let (head, rest) = prefix::<Head>("stream message", body)?;
        let (transfer, word) = (head.transfer.get(), head.word.get());
        let (low, high) = (word as u16, (word >> 16) as u16);
        let extent = |part: &ExtentPart| {
            let extent = Extent { hand: low, address: part.address.get(), words: part.words.get() };
            check_extent(&extent).map(|()| extent)
        };
        Ok(match head.code.get() {
            code::HELLO => {
                let (part, _) = prefix::<HostPart>("stream hello", rest)?;
                Self::Hello { nonce: word, ip: part.ip, mac: part.mac, port: part.port.get() }
            }
            code::GREETING => Self::Greeting { nonce: word, version: prefix::<U32>("stream greeting", rest)?.0.get() },
            code::DATA => {
                check_data(rest, 1)?;
                Self::Data { transfer, block: word, data: rest }
            }
            code::ASK => {
                let (part, _) = prefix::<ExtentPart>("stream question", rest)?;
                Self::Ask { transfer, question: high, extent: extent(part)?, first: part.block.get() }
            }
            code::STATUS => {
                let (part, _) = prefix::<StatusPart>("stream status", rest)?;
                let done = part.done.map(|word| word.get());
                Self::Status { transfer, question: high, hand: low, first: part.first.get(), done }
            }
            code::FETCH => {
                let (part, rest) = prefix::<ExtentPart>("stream request", rest)?;
                let (wanted, _) = prefix::<[U32; 2]>("stream request", rest)?;
                let wanted = u64::from(wanted[0].get()) | u64::from(wanted[1].get()) << 32;
                let base = part.block.get();
                if !base.is_multiple_of(FETCH_BLOCKS) {
                    return Err(WireError::Field { what: "base of a stream request", value: base });
                }
                Self::Fetch { transfer, extent: extent(part)?, base, wanted }
            }
            code::BLOCKS => {
                check_data(rest, FRAME_BLOCKS)?;
                Self::Blocks { transfer, block: word, data: rest }
            }
            other => return Err(WireError::Field { what: "stream message", value: other.into() }),
        })
    }

    /// Writes the body and returns its length.
    ///
    /// # Errors
    /// [`WireError`] for what cannot be written, and for a buffer that is too small.
    pub fn emit(&self, buffer: &mut [u8]) -> Result<usize> {
        let mut writer = Writer::new(buffer);
        let mut head = |code: u16, transfer: u16, word: u32| {
            writer.put_struct(&Head { code: code.into(), transfer: transfer.into(), word: word.into() })
        };
        let both = |low: u16, high: u16| u32::from(low) | u32::from(high) << 16;
        let part = |extent: &Extent, block: u32| {
            check_extent(extent).map(|()| ExtentPart {
                address: extent.address.into(),
                words: extent.words.into(),
                block: block.into(),
            })
        };
        match *self {
            Self::Hello { nonce, ip, mac, port } => {
                head(code::HELLO, 0, nonce)?;
                writer.put_struct(&HostPart { ip, mac, port: port.into() })?;
            }
            Self::Greeting { nonce, version } => {
                head(code::GREETING, 0, nonce)?;
                writer.put(&version.to_le_bytes())?;
            }
            Self::Data { transfer, block, data } => {
                check_data(data, 1)?;
                head(code::DATA, transfer, block)?;
                writer.put(data)?;
            }
            Self::Ask { transfer, question, extent, first } => {
                head(code::ASK, transfer, both(extent.hand, question))?;
                writer.put_struct(&part(&extent, first)?)?;
            }
            Self::Status { transfer, question, hand, first, done } => {
                head(code::STATUS, transfer, both(hand, question))?;
                writer.put_struct(&StatusPart { first: first.into(), done: done.map(Into::into) })?;
            }
            Self::Fetch { transfer, extent, base, wanted } => {
                if !base.is_multiple_of(FETCH_BLOCKS) {
                    return Err(WireError::Field { what: "base of a stream request", value: base });
                }
                head(code::FETCH, transfer, both(extent.hand, 0))?;
                writer.put_struct(&part(&extent, base)?)?;
                writer.put(&wanted.to_le_bytes())?;
            }
            Self::Blocks { transfer, block, data } => {
                check_data(data, FRAME_BLOCKS)?;
                head(code::BLOCKS, transfer, block)?;
                writer.put(data)?;
            }
        }
        Ok(writer.finish())
    }

    /// Writes a UDP payload: pads, SDP header, body; returns its length.
    ///
    /// # Errors
    /// As [`Message::emit`].
    pub fn emit_udp(&self, header: &sdp::Repr, buffer: &mut [u8]) -> Result<usize> {
        const BEFORE: usize = sdp::UDP_PAD_BYTES + sdp::HEADER_BYTES;
        let got_bytes = buffer.len();
        let Some((before, body)) = buffer.split_at_mut_checked(BEFORE) else {
            return Err(WireError::BufferTooSmall { needed_bytes: BEFORE, got_bytes });
        };
        let (pads, place) = before.split_at_mut(sdp::UDP_PAD_BYTES);
        pads.fill(0);
        place.copy_from_slice(header.header().as_bytes());
        Ok(BEFORE + self.emit(body)?)
    }

    /// Reads a UDP payload: SDP header and message.
    ///
    /// # Errors
    /// As [`Message::parse`].
    pub fn from_udp(payload: &'a [u8]) -> Result<(sdp::Repr, Self)> {
        let message = payload.get(sdp::UDP_PAD_BYTES..).unwrap_or_default();
        let (header, body) = prefix::<sdp::Header>("SDP header", message)?;
        Ok((sdp::Repr::parse(header), Self::parse(body)?))
    }
}

impl fmt::Display for Message<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = |f: &mut fmt::Formatter<'_>, e: &Extent| {
            write!(f, " hand {} address {:#x} words {}", e.hand, e.address, e.words)
        };
        match self {
            Self::Hello { nonce, ip: [a, b, c, d], port, .. } => {
                write!(f, "hello {nonce:#x} from {a}.{b}.{c}.{d}:{port}")
            }
            Self::Greeting { nonce, version } => write!(f, "greeting {nonce:#x} version {version}"),
            Self::Data { transfer, block, data } => write!(f, "data {transfer} block {block}: {}", Hex(data)),
            Self::Ask { transfer, question, extent, first } => {
                write!(f, "ask {transfer} question {question} first {first}")?;
                place(f, extent)
            }
            Self::Status { transfer, question, hand, first, done } => {
                let count: u32 = done.iter().map(|word| word.count_ones()).sum();
                write!(f, "status {transfer} question {question} hand {hand} first {first} and {count}")
            }
            Self::Fetch { transfer, extent, base, wanted } => {
                write!(f, "fetch {transfer} base {base} wanted {wanted:#x}")?;
                place(f, extent)
            }
            Self::Blocks { transfer, block, data } => write!(f, "blocks {transfer} from {block}: {}", Hex(data)),
        }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::string::ToString;
    use std::vec;
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;
    use crate::ChipAddress;

    fn extents() -> impl Strategy<Value = Extent> {
        (0..=HANDS_MAX, 0u32..1 << 29, 0u32..1 << 28).prop_map(|(hand, word, words)| Extent {
            hand,
            address: 4 * word,
            words,
        })
    }

    #[test]
    fn a_block_as_it_lies_in_a_datagram() {
        let header = sdp::Repr {
            flags: sdp::Flags::NO_REPLY,
            tag: 0,
            destination: sdp::Endpoint { chip: ChipAddress::new(0, 0), port: crate::CorePort::new(3, PORT) },
            source: sdp::Endpoint::HOST,
        };
        let message = Message::Data { transfer: 0x1234, block: 7, data: &[1, 2, 3, 4] };
        let mut buffer = [0xAA; 64];
        let length = message.emit_udp(&header, &mut buffer).unwrap();
        let expected = [0, 0, 0x07, 0, 0x23, 0xFF, 0, 0, 0, 0, 0x03, 0x53, 0x34, 0x12, 7, 0, 0, 0, 1, 2, 3, 4];
        assert_eq!(buffer[..length], expected);
        assert_eq!(Message::from_udp(&expected), Ok((header, message)));
        assert_eq!(message.to_string(), "data 4660 block 7: 4 bytes 01020304");
    }

    #[test]
    fn what_goes_to_the_board_fits_the_monitors_messages() {
        let block = [0; BLOCK_BYTES];
        let mut buffer = [0; 2048];
        let length = Message::Data { transfer: 0, block: 0, data: &block }.emit(&mut buffer).unwrap();
        assert!(length <= sdp::BODY_BYTES_MAX);
    }

    #[test]
    fn nonsense_is_an_error() {
        let blocks = vec![0; 5 * BLOCK_BYTES];
        let mut buffer = [0; 4096];
        for message in [
            Message::Data { transfer: 0, block: 0, data: &blocks[..260] },
            Message::Data { transfer: 0, block: 0, data: &blocks[..6] },
            Message::Data { transfer: 0, block: 0, data: &[] },
            Message::Blocks { transfer: 0, block: 0, data: &blocks },
            Message::Fetch { transfer: 0, extent: Extent { hand: 0, address: 0, words: 1 }, base: 3, wanted: 1 },
            Message::Fetch { transfer: 0, extent: Extent { hand: 0, address: 2, words: 1 }, base: 0, wanted: 1 },
            Message::Ask { transfer: 0, question: 0, extent: Extent { hand: 0xFFF, address: 0, words: 1 }, first: 0 },
            Message::Ask { transfer: 0, question: 0, extent: Extent { hand: 0, address: !3, words: 2 }, first: 0 },
        ] {
            assert!(message.emit(&mut buffer).is_err(), "{message}");
        }
        assert!(Message::parse(&[0x80, 0, 0, 0, 0, 0, 0, 0]).is_err());
        assert!(Message::from_udp(&[0]).is_err());
    }

    #[test]
    fn newer_numbers_are_found_over_the_wrap() {
        assert!(is_newer(1, 0) && is_newer(0, 0xFFFF) && is_newer(0x7FFF, 0));
        assert!(!is_newer(0, 0) && !is_newer(0, 1) && !is_newer(0xFFFF, 0));
    }

    proptest! {
        #[test]
        fn every_message_comes_back(
            extent in extents(),
            (transfer, question, block) in any::<(u16, u16, u32)>(),
            wanted in any::<u64>(),
            done in any::<[u32; 16]>(),
            mac in any::<[u8; 6]>(),
            words in proptest::collection::vec(any::<u32>(), 1..=256),
        ) {
            let data: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
            let hand = extent.hand;
            for message in [
                Message::Hello { nonce: block, ip: [1, 2, 3, 4], mac, port: question },
                Message::Greeting { nonce: block, version: transfer.into() },
                Message::Data { transfer, block, data: &data[..data.len().min(256)] },
                Message::Ask { transfer, question, extent, first: block },
                Message::Status { transfer, question, hand, first: block, done },
                Message::Fetch { transfer, extent, base: block & !63, wanted },
                Message::Blocks { transfer, block, data: &data },
            ] {
                let mut buffer = [0; BODY_BYTES_MAX];
                let length = message.emit(&mut buffer).unwrap();
                prop_assert_eq!(Message::parse(&buffer[..length]), Ok(message));
                prop_assert!(message.emit(&mut buffer[..length - 1]).is_err());
                prop_assert!(!message.to_string().is_empty());
            }
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..64), code in 0x5300u16..0x5309) {
            let mut bytes = bytes;
            if let Some(place) = bytes.get_mut(..2) {
                place.copy_from_slice(&code.to_le_bytes());
            }
            if let Ok(message) = Message::parse(&bytes) {
                let mut buffer = [0; BODY_BYTES_MAX];
                let length = message.emit(&mut buffer).unwrap();
                prop_assert_eq!(Message::parse(&buffer[..length]), Ok(message));
            }
        }
    }
}
