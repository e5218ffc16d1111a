//! Heaps, text blocks and tagged allocations as they lie in a chip's memories.

use core::fmt;

use zerocopy::little_endian::U32;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::bytes::{prefix, range, valid_utf8};
use crate::{AppId, Result};

/// A heap's header, at the heap's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct HeapHeader {
    /// Address of the first free block.
    pub free: U32,
    /// Address of the first block.
    pub first: U32,
    /// Address of the end mark.
    pub last: U32,
    /// Free bytes, headers included.
    pub free_bytes: U32,
}

const _: () = assert!(size_of::<HeapHeader>() == 16);

impl HeapHeader {
    /// Reads the header.
    ///
    /// # Errors
    /// [`crate::WireError::Truncated`].
    pub fn read(bytes: &[u8]) -> Result<&Self> {
        Ok(prefix("heap header", bytes)?.0)
    }
}

impl fmt::Display for HeapHeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [first, last, free_bytes] = [self.first, self.last, self.free_bytes].map(U32::get);
        write!(f, "heap {first:#x}..{last:#x}, {free_bytes} bytes free")
    }
}

/// In front of every block of a heap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct BlockHeader {
    /// Address of the next block, 0 in the end mark.
    pub next: U32,
    /// Address of the next free block, 0 in the last free one; of an allocated one see [`BlockHeader::owner`].
    pub free: U32,
}

const _: () = assert!(size_of::<BlockHeader>() == 8);

/// In bits 31:16 of `free`: the block is allocated.
const ALLOCATED: u32 = 0xFFFF;

impl BlockHeader {
    /// Reads the header.
    ///
    /// # Errors
    /// [`crate::WireError::Truncated`].
    pub fn read(bytes: &[u8]) -> Result<&Self> {
        Ok(prefix("heap block", bytes)?.0)
    }

    /// The header of an allocated block.
    pub fn allocated(next: u32, app: AppId, tag: u8) -> Self {
        let free = ALLOCATED << 16 | u32::from(app.0) << 8 | u32::from(tag);
        Self { next: U32::new(next), free: U32::new(free) }
    }

    /// Who holds the block, and its tag; `None` for a free one.
    pub fn owner(&self) -> Option<(AppId, u8)> {
        let free = self.free.get();
        (free >> 16 == ALLOCATED).then_some((AppId((free >> 8) as u8), free as u8))
    }
}

/// Where `sv.alloc_tag` has the address of a tagged block: bytes from the table's start.
pub const fn tag_offset_bytes(app: AppId, tag: u8) -> u32 {
    ((app.0 as u32) << 8 | tag as u32) * 4
}

/// The header of a text block; `sv.iobuf_size` bytes follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct IoBufHeader {
    /// Address of the next block, 0 in the last.
    pub next: U32,
    /// When it was begun, Unix seconds.
    pub unix_time_s: U32,
    /// And milliseconds.
    pub time_ms: U32,
    /// Bytes of text that are complete.
    pub length_bytes: U32,
}

/// Bytes of a text block's header.
pub const IOBUF_HEADER_BYTES: usize = 16;

const _: () = assert!(size_of::<IoBufHeader>() == IOBUF_HEADER_BYTES);

/// A text block.
#[derive(Clone, Copy, Debug)]
pub struct IoBuf<'a> {
    /// Its header.
    pub header: &'a IoBufHeader,
    /// Its text.
    pub text: &'a [u8],
}

impl<'a> IoBuf<'a> {
    /// Reads header and text.
    ///
    /// # Errors
    /// [`crate::WireError::Truncated`] if the text is longer than the bytes.
    pub fn read(bytes: &'a [u8]) -> Result<Self> {
        let (header, rest) = prefix::<IoBufHeader>("text block", bytes)?;
        let text = range("text block", rest, 0, header.length_bytes.get() as usize)?;
        Ok(Self { header, text })
    }
}

impl fmt::Display for IoBuf<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "text {:?}", valid_utf8(self.text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_allocated_block_knows_its_owner() {
        let block = BlockHeader::allocated(0x6024_0400, AppId(17), 5);
        assert_eq!(block.as_bytes(), [0, 4, 0x24, 0x60, 5, 17, 0xFF, 0xFF]);
        assert_eq!(BlockHeader::read(block.as_bytes()).unwrap().owner(), Some((AppId(17), 5)));
        let free = BlockHeader { next: U32::new(8), free: U32::new(0x6024_0000) };
        assert_eq!(free.owner(), None);
        assert_eq!(tag_offset_bytes(AppId(17), 5), 0x1105 * 4);
    }

    #[test]
    fn text_ends_where_its_length_says() {
        let bytes = [0, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, b'a', b'b', b'\n', b'c'];
        let block = IoBuf::read(&bytes).unwrap();
        assert_eq!(block.text, b"ab\n");
        assert!(IoBuf::read(&bytes[..18]).is_err());
        assert_eq!(HeapHeader::read(&bytes).unwrap().free_bytes.get(), 3);
    }
}
