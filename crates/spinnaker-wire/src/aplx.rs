//! APLX: programs as a table of copies, fills and calls, with the data behind it.

use core::fmt;

use zerocopy::little_endian::U32;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::bytes::{Writer, range};
use crate::{Result, WireError};

/// Bytes of an entry of the table.
pub const ENTRY_BYTES: usize = 16;
/// Bytes of the header of a program file: four entries.
pub const HEADER_BYTES: usize = 64;
/// Copies and fills go in steps of so many bytes; a last piece is rounded up.
pub const STEP_BYTES: u32 = 32;
/// Bytes of instruction memory that a program may use (the top belongs to the loader).
pub const CODE_BYTES_MAX: u32 = 0x7F00;
/// Where initialised data go by convention.
pub const DATA_ADDRESS: u32 = 0x0040_0000;

const OP_COPY: u32 = 1;
const OP_RELATIVE_COPY: u32 = 2;
const OP_FILL: u32 = 3;
const OP_EXECUTE: u32 = 4;

/// An entry as it lies in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawEntry {
    words: [U32; 4],
}

const _: () = assert!(size_of::<RawEntry>() == ENTRY_BYTES);

/// What an entry does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Entry {
    /// Copy from an address.
    Copy {
        /// Where to.
        destination: u32,
        /// Where from.
        source: u32,
        /// How much.
        length_bytes: u32,
    },
    /// Copy from a place in the table's own surroundings.
    RelativeCopy {
        /// Where to.
        destination: u32,
        /// Where from, against the start of this entry.
        offset: i32,
        /// How much.
        length_bytes: u32,
    },
    /// Fill with a word.
    Fill {
        /// Where.
        destination: u32,
        /// How much.
        length_bytes: u32,
        /// With what.
        word: u32,
    },
    /// Call an address (bit 0: Thumb).
    Execute {
        /// Where.
        address: u32,
    },
    /// The end of the table: any other code.
    End {
        /// The code.
        code: u32,
    },
}

impl Entry {
    /// Reads an entry.
    ///
    /// # Errors
    /// [`WireError::Truncated`].
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let (raw, _) = crate::bytes::prefix::<RawEntry>("APLX entry", bytes)?;
        let [code, a, b, c] = raw.words.map(U32::get);
        Ok(match code {
            OP_COPY => Self::Copy { destination: a, source: b, length_bytes: c },
            OP_RELATIVE_COPY => Self::RelativeCopy { destination: a, offset: b as i32, length_bytes: c },
            OP_FILL => Self::Fill { destination: a, length_bytes: b, word: c },
            OP_EXECUTE => Self::Execute { address: a },
            code => Self::End { code },
        })
    }

    /// Writes the entry (unused words 0) and returns its length.
    ///
    /// # Errors
    /// [`WireError::BufferTooSmall`]; [`WireError::Field`] for an end whose code means something else.
    pub fn emit(&self, buffer: &mut [u8]) -> Result<usize> {
        let words = match *self {
            Self::Copy { destination, source, length_bytes } => [OP_COPY, destination, source, length_bytes],
            Self::RelativeCopy { destination, offset, length_bytes } => {
                [OP_RELATIVE_COPY, destination, offset as u32, length_bytes]
            }
            Self::Fill { destination, length_bytes, word } => [OP_FILL, destination, length_bytes, word],
            Self::Execute { address } => [OP_EXECUTE, address, 0, 0],
            Self::End { code: code @ OP_COPY..=OP_EXECUTE } => {
                return Err(WireError::Field { what: "APLX end code", value: code });
            }
            Self::End { code } => [code, 0, 0, 0],
        };
        let mut writer = Writer::new(buffer);
        writer.put_struct(&RawEntry { words: words.map(U32::new) })?;
        Ok(writer.finish())
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Copy { destination, source, length_bytes } => {
                write!(f, "copy {source:#x} -> {destination:#x}+{length_bytes}")
            }
            Self::RelativeCopy { destination, offset, length_bytes } => {
                write!(f, "copy entry{offset:+#x} -> {destination:#x}+{length_bytes}")
            }
            Self::Fill { destination, length_bytes, word } => {
                write!(f, "fill {destination:#x}+{length_bytes} {word:#x}")
            }
            Self::Execute { address } => write!(f, "execute {address:#x}"),
            Self::End { .. } => f.write_str("end"),
        }
    }
}

/// The entries of a table and their offsets in it. The table ends with an end mark (left out), or where the first data begin
/// that it copies (a program file whose four entries are all in use has no mark), or with the bytes.
pub fn entries(table: &[u8]) -> Entries<'_> {
    Entries { table, offset: 0, limit: table.len() }
}

/// See [`entries`].
#[derive(Clone, Debug)]
pub struct Entries<'a> {
    table: &'a [u8],
    offset: usize,
    /// Where the table ends at the latest.
    limit: usize,
}

impl Iterator for Entries<'_> {
    type Item = (usize, Entry);

    fn next(&mut self) -> Option<Self::Item> {
        let offset = self.offset;
        let entry = Entry::parse(self.table.get(offset..self.limit)?).ok()?;
        self.offset += ENTRY_BYTES;
        if let Entry::RelativeCopy { offset: from, .. } = entry
            && let Ok(start) = usize::try_from(offset as i64 + i64::from(from))
        {
            self.limit = self.limit.min(start);
        }
        match entry {
            Entry::End { .. } => None,
            entry => Some((offset, entry)),
        }
    }
}

/// A view of a program file whose table is known to be sound.
#[derive(Clone, Copy, Debug)]
pub struct Aplx<'a> {
    bytes: &'a [u8],
}

impl<'a> Aplx<'a> {
    /// A program file: there is an entry that starts it, and every relative copy lies within the file.
    ///
    /// # Errors
    /// [`WireError::Truncated`] where the file ends before its header or data, [`WireError::Field`] where nothing is started.
    pub fn new_checked(bytes: &'a [u8]) -> Result<Self> {
        range("APLX header", bytes, 0, HEADER_BYTES)?;
        let mut runs = false;
        for (at, entry) in entries(bytes) {
            match entry {
                Entry::Execute { .. } => runs = true,
                Entry::RelativeCopy { offset, length_bytes, .. } => {
                    let start = usize::try_from(at as i64 + i64::from(offset))
                        .map_err(|_| WireError::Field { what: "APLX copy offset", value: offset as u32 })?;
                    range("APLX copy source", bytes, start, length_bytes as usize)?;
                }
                Entry::Copy { .. } | Entry::Fill { .. } | Entry::End { .. } => {}
            }
        }
        if !runs {
            return Err(WireError::Field { what: "APLX that starts nothing, bytes", value: bytes.len() as u32 });
        }
        Ok(Self { bytes })
    }

    /// All of it.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Its table.
    pub fn entries(&self) -> impl Iterator<Item = Entry> + 'a {
        entries(self.bytes).map(|(_, entry)| entry)
    }

    /// Bytes of code and data that it copies.
    pub fn copied_bytes(&self) -> u64 {
        self.entries()
            .map(|entry| match entry {
                Entry::Copy { length_bytes, .. } | Entry::RelativeCopy { length_bytes, .. } => length_bytes.into(),
                _ => 0,
            })
            .sum()
    }

    /// The sum of its words modulo 2^32 (a last piece filled up with zeros), as APP_COPY_RUN checks 29 bits of it.
    pub fn checksum(&self) -> u32 {
        self.bytes.chunks(4).fold(0, |sum, piece| {
            let mut word = [0; 4];
            word[..piece.len()].copy_from_slice(piece);
            sum.wrapping_add(u32::from_le_bytes(word))
        })
    }
}

impl fmt::Display for Aplx<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "aplx {} bytes:", self.bytes.len())?;
        for (i, entry) in self.entries().enumerate() {
            write!(f, "{} {entry}", if i == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

/// Writes the header of a program file: code, data behind it, `bss_bytes` of zeros behind the data.
///
/// # Errors
/// [`WireError::TooLong`] for code that does not fit, [`WireError::BufferTooSmall`].
pub fn emit_header(code_bytes: u32, data_bytes: u32, bss_bytes: u32, buffer: &mut [u8]) -> Result<usize> {
    if code_bytes > CODE_BYTES_MAX {
        return Err(WireError::TooLong {
            what: "APLX code",
            limit_bytes: CODE_BYTES_MAX as usize,
            got_bytes: code_bytes as usize,
        });
    }
    let mut table = [Entry::End { code: 0 }; HEADER_BYTES / ENTRY_BYTES];
    table[0] = Entry::RelativeCopy { destination: 0, offset: HEADER_BYTES as i32, length_bytes: code_bytes };
    let mut used = 1;
    if data_bytes != 0 {
        let offset = (HEADER_BYTES as u32 + code_bytes - ENTRY_BYTES as u32) as i32;
        table[used] = Entry::RelativeCopy { destination: DATA_ADDRESS, offset, length_bytes: data_bytes };
        used += 1;
    }
    if bss_bytes != 0 {
        let destination = DATA_ADDRESS.wrapping_add(data_bytes);
        table[used] = Entry::Fill { destination, length_bytes: bss_bytes, word: 0 };
        used += 1;
    }
    table[used] = Entry::Execute { address: 0 };
    let mut writer = Writer::new(buffer);
    for entry in table {
        let mut bytes = [0; ENTRY_BYTES];
        entry.emit(&mut bytes)?;
        writer.put(&bytes)?;
    }
    Ok(writer.finish())
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::string::ToString;
    use std::vec;
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    fn program() -> Vec<u8> {
        let mut bytes = vec![0; HEADER_BYTES + 8 + 4];
        emit_header(8, 4, 16, &mut bytes).unwrap();
        bytes[HEADER_BYTES..].copy_from_slice(&[1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0x80]);
        bytes
    }

    #[test]
    fn a_program_file_in_the_form_of_the_official_tool() {
        let bytes = program();
        // The second entry's offset counts from the entry itself: 0x40 + code - 16.
        assert_eq!(bytes[16..32], [2, 0, 0, 0, 0, 0, 0x40, 0, 0x38, 0, 0, 0, 4, 0, 0, 0]);
        let aplx = Aplx::new_checked(&bytes).unwrap();
        let entries: Vec<Entry> = aplx.entries().collect();
        assert_eq!(entries.len(), 4);
        assert_eq!(entries[3], Entry::Execute { address: 0 });
        assert_eq!(aplx.copied_bytes(), 12);
        let word = |i: usize| u32::from_le_bytes(bytes[i..i + 4].try_into().unwrap());
        let sum = (0..bytes.len()).step_by(4).fold(0u64, |s, i| s + u64::from(word(i)));
        assert_eq!(u64::from(aplx.checksum()), sum % (1 << 32));
        assert!(aplx.to_string().starts_with("aplx 76 bytes: copy entry+0x40 -> 0x0+8, copy"));
    }

    #[test]
    fn a_cut_or_empty_file_is_refused() {
        let bytes = program();
        for cut in 0..bytes.len() {
            assert!(Aplx::new_checked(&bytes[..cut]).is_err(), "{cut}");
        }
        assert!(Aplx::new_checked(&[0; 64]).is_err());
        assert!(emit_header(CODE_BYTES_MAX + 1, 0, 0, &mut [0; 64]).is_err());
    }

    proptest! {
        #[test]
        fn entries_survive_a_round_trip(words in (0u32..7, any::<[u32; 3]>())) {
            let mut bytes = [0; 16];
            for (room, word) in bytes.chunks_exact_mut(4).zip([words.0].iter().chain(&words.1)) {
                room.copy_from_slice(&word.to_le_bytes());
            }
            let entry = Entry::parse(&bytes).unwrap();
            let mut again = [0; 16];
            entry.emit(&mut again).unwrap();
            prop_assert_eq!(Entry::parse(&again), Ok(entry));
        }

        #[test]
        fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(aplx) = Aplx::new_checked(&bytes) {
                let _ = (aplx.to_string(), aplx.checksum(), aplx.copied_bytes());
            }
        }
    }
}
