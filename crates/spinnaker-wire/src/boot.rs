//! The boot ROM's protocol over UDP: big-endian, unanswered, and one greeting from the board.

use core::fmt;

use zerocopy::big_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::bytes::{Hex, Writer, field, prefix};
use crate::{Result, WireError};

/// The UDP port of a blank board.
pub const UDP_PORT: u16 = 54321;
/// Version of the protocol.
pub const VERSION: u16 = 1;
/// Blocks that a ROM has room for.
pub const BLOCKS_MAX: u16 = 32;
/// Words of a block.
pub const BLOCK_WORDS: u16 = 256;
/// Bytes of a block.
pub const BLOCK_BYTES: usize = 1024;
/// Bytes of the header.
pub const HEADER_BYTES: usize = 18;
/// The longest message.
pub const MESSAGE_BYTES_MAX: usize = HEADER_BYTES + BLOCK_BYTES;
/// Operand 3 of the greeting.
pub const HELLO_MAGIC: u32 = 0x4350_5453;

const OP_START: u32 = 1;
const OP_BLOCK: u32 = 3;
const OP_CONTROL: u32 = 5;
const OP_HELLO: u32 = 0x41;

/// The header as it lies in a UDP payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Header {
    /// [`VERSION`].
    pub version: U16,
    /// What it is; the ROM looks at the low 16 bits.
    pub opcode: U32,
    /// Operand 1.
    pub operand1: U32,
    /// Operand 2.
    pub operand2: U32,
    /// Operand 3.
    pub operand3: U32,
}

const _: () = assert!(size_of::<Header>() == HEADER_BYTES);

/// A message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repr<'a> {
    /// From the board every four seconds.
    Hello {
        /// Version of the ROM, as operand 1 has it: 0x0201_0000 for 2.1.
        rom_version: u32,
    },
    /// The image has this many blocks.
    Start {
        /// 1..=256, of which a ROM holds 32.
        blocks: u16,
    },
    /// A block.
    Block {
        /// Its number.
        number: u8,
        /// Words that it says it has, 1..=256; the ROM copies so many, whatever the datagram holds.
        words: u16,
        /// The words in network order.
        data: &'a [u8],
    },
    /// The end.
    Control {
        /// Whether to copy the image and jump to it.
        execute: bool,
        /// Where to.
        entry: u32,
    },
    /// Anything else; the ROM ignores it.
    Other {
        /// Its low 16 bits are none of those above.
        opcode: u32,
        /// Operands.
        operands: [u32; 3],
        /// What follows.
        data: &'a [u8],
    },
}

impl<'a> Repr<'a> {
    /// Reads a UDP payload.
    ///
    /// # Errors
    /// [`WireError::Truncated`] below 18 bytes, [`WireError::Field`] for another version.
    pub fn parse(payload: &'a [u8]) -> Result<Self> {
        let (header, data) = prefix::<Header>("boot message", payload)?;
        if header.version.get() != VERSION {
            return Err(WireError::Field { what: "boot protocol version", value: header.version.get().into() });
        }
        let opcode = header.opcode.get();
        let operands = [header.operand1.get(), header.operand2.get(), header.operand3.get()];
        let [operand1, _, operand3] = operands;
        Ok(match opcode & 0xFFFF {
            OP_START => Self::Start { blocks: field(operand3, 0, 8) as u16 + 1 },
            OP_BLOCK => Self::Block { number: operand1 as u8, words: field(operand1, 8, 8) as u16 + 1, data },
            OP_CONTROL => Self::Control { execute: operand1 & 1 != 0, entry: operand3 },
            OP_HELLO => Self::Hello { rom_version: operand1 },
            _ => Self::Other { opcode, operands, data },
        })
    }

    /// The length in bytes that [`Repr::emit`] writes.
    pub fn buffer_len(&self) -> usize {
        HEADER_BYTES + self.data().len()
    }

    fn data(&self) -> &'a [u8] {
        match self {
            Self::Block { data, .. } | Self::Other { data, .. } => data,
            _ => &[],
        }
    }

    /// Writes the UDP payload and returns its length.
    ///
    /// # Errors
    /// [`WireError::Field`] for zero or more than 256 blocks or words, [`WireError::TooLong`] for more data than a block has,
    /// [`WireError::BufferTooSmall`].
    pub fn emit(&self, buffer: &mut [u8]) -> Result<usize> {
        let data = self.data();
        if data.len() > BLOCK_BYTES {
            return Err(WireError::TooLong { what: "boot block", limit_bytes: BLOCK_BYTES, got_bytes: data.len() });
        }
        let (opcode, operands) = match *self {
            Self::Hello { rom_version } => (OP_HELLO, [rom_version, 0, HELLO_MAGIC]),
            Self::Start { blocks } => (OP_START, [0, 0, less_one("boot blocks", blocks)?]),
            Self::Block { number, words, .. } => {
                (OP_BLOCK, [less_one("boot block words", words)? << 8 | u32::from(number), 0, 0])
            }
            Self::Control { execute, entry } => (OP_CONTROL, [execute.into(), 0, entry]),
            Self::Other { opcode, operands, .. } => (opcode, operands),
        };
        let [operand1, operand2, operand3] = operands.map(U32::new);
        let mut writer = Writer::new(buffer);
        writer.put_struct(&Header {
            version: U16::new(VERSION),
            opcode: U32::new(opcode),
            operand1,
            operand2,
            operand3,
        })?;
        writer.put(data)?;
        Ok(writer.finish())
    }
}

fn less_one(what: &'static str, count: u16) -> Result<u32> {
    match count {
        1..=256 => Ok(u32::from(count) - 1),
        _ => Err(WireError::Field { what, value: count.into() }),
    }
}

impl fmt::Display for Repr<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hello { rom_version } => {
                write!(f, "boot hello ROM {}.{}", rom_version >> 24, rom_version >> 16 & 0xFF)
            }
            Self::Start { blocks } => write!(f, "boot start {blocks} blocks"),
            Self::Block { number, words, data } => write!(f, "boot block {number} {words} words: {}", Hex(data)),
            Self::Control { execute, entry } => {
                write!(f, "boot control {} {entry:#x}", if *execute { "execute" } else { "nothing" })
            }
            Self::Other { opcode, operands: [a, b, c], data } => {
                write!(f, "boot message {opcode:#x} {a:#x} {b:#x} {c:#x}: {}", Hex(data))
            }
        }
    }
}

/// Writes the message for a block of the image, whose bytes are given in memory order, and returns its length.
///
/// A short last block (or one that does not end with a word) is filled up with zeros: the ROM wants all blocks alike.
///
/// # Errors
/// [`WireError::TooLong`] for more than 1024 bytes, [`WireError::BufferTooSmall`].
pub fn emit_block(number: u8, image_bytes: &[u8], buffer: &mut [u8]) -> Result<usize> {
    if image_bytes.len() > BLOCK_BYTES {
        return Err(WireError::TooLong { what: "boot block", limit_bytes: BLOCK_BYTES, got_bytes: image_bytes.len() });
    }
    let mut data = [0; BLOCK_BYTES];
    data[..image_bytes.len()].copy_from_slice(image_bytes);
    for word in data.chunks_exact_mut(4) {
        word.reverse();
    }
    Repr::Block { number, words: BLOCK_WORDS, data: &data }.emit(buffer)
}

/// The words of a block's data; a last piece of less than four bytes is left out.
pub fn block_words(data: &[u8]) -> impl Iterator<Item = u32> + '_ {
    data.chunks_exact(4).map(|word| U32::read_from_bytes(word).map(U32::get).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::string::ToString;
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    // As the official host sends them for an image of 30 blocks.
    const START: [u8; 18] = [0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 29];
    const BLOCK: [u8; 22] = [0, 1, 0, 0, 0, 3, 0, 0, 255, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0xE3, 0xA0, 0xD8, 0x41];
    const CONTROL: [u8; 18] = [0, 1, 0, 0, 0, 5, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0];
    const HELLO: [u8; 18] = [0, 1, 0, 0, 0, 0x41, 2, 1, 0, 0, 0, 0, 0, 0, 0x43, 0x50, 0x54, 0x53];

    #[test]
    fn constant_messages() {
        let block = Repr::Block { number: 2, words: 256, data: &[0xE3, 0xA0, 0xD8, 0x41] };
        let cases: [(&[u8], Repr, &str); 4] = [
            (&START, Repr::Start { blocks: 30 }, "boot start 30 blocks"),
            (&BLOCK, block, "boot block 2 256 words: 4 bytes e3a0d841"),
            (&CONTROL, Repr::Control { execute: true, entry: 0 }, "boot control execute 0x0"),
            (&HELLO, Repr::Hello { rom_version: 0x0201_0000 }, "boot hello ROM 2.1"),
        ];
        for (bytes, repr, line) in cases {
            assert_eq!(Repr::parse(bytes), Ok(repr));
            let mut buffer = [0; 64];
            assert_eq!(repr.emit(&mut buffer), Ok(bytes.len()));
            assert_eq!(&buffer[..bytes.len()], bytes);
            assert_eq!(repr.buffer_len(), bytes.len());
            assert_eq!(repr.to_string(), line);
        }
    }

    #[test]
    fn an_image_is_swapped_word_by_word_and_filled_up() {
        let mut buffer = [0xAA; MESSAGE_BYTES_MAX];
        // The first word of the image, mov sp, #0x410000, little-endian, and half a word.
        assert_eq!(emit_block(7, &[0x41, 0xD8, 0xA0, 0xE3, 1, 2], &mut buffer), Ok(MESSAGE_BYTES_MAX));
        let Ok(Repr::Block { number: 7, words: 256, data }) = Repr::parse(&buffer) else { panic!("no block") };
        let words: Vec<u32> = block_words(data).collect();
        assert_eq!(words[..3], [0xE3A0_D841, 0x0000_0201, 0]);
        assert_eq!(words.len(), 256);
    }

    #[test]
    fn what_is_none_is_refused() {
        assert!(Repr::parse(&START[..17]).is_err());
        assert!(Repr::parse(&[0; 18]).is_err());
        assert!(Repr::Start { blocks: 0 }.emit(&mut [0; 64]).is_err());
        assert!(Repr::Start { blocks: 257 }.emit(&mut [0; 64]).is_err());
        assert!(emit_block(0, &[0; 1025], &mut [0; 2000]).is_err());
    }

    proptest! {
        #[test]
        fn what_is_read_is_written_the_same(
            version in prop_oneof![9 => Just(1u16), 1 => any::<u16>()],
            opcode in prop_oneof![0u32..8, Just(0x41), any::<u32>()],
            operands in any::<[u32; 3]>(),
            data in proptest::collection::vec(any::<u8>(), 0..1100),
        ) {
            let mut bytes = Vec::new();
            bytes.extend(version.to_be_bytes());
            bytes.extend(opcode.to_be_bytes());
            bytes.extend(operands.iter().flat_map(|o| o.to_be_bytes()));
            bytes.extend(&data);
            if let Ok(repr) = Repr::parse(&bytes) {
                let mut buffer = [0; 2000];
                if let Ok(length) = repr.emit(&mut buffer) {
                    prop_assert_eq!(Repr::parse(&buffer[..length]), Ok(repr));
                }
                prop_assert!(!repr.to_string().contains('\n'));
            }
        }
    }
}
