//! Checked access to bytes, for the formats' own use.

use core::fmt;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::{Result, WireError};

/// The first bytes as a structure, and the bytes behind it.
pub(crate) fn prefix<'a, T>(what: &'static str, bytes: &'a [u8]) -> Result<(&'a T, &'a [u8])>
where
    T: FromBytes + KnownLayout + Immutable + Unaligned,
{
    T::ref_from_prefix(bytes).map_err(|_| WireError::Truncated {
        what,
        needed_bytes: size_of::<T>(),
        got_bytes: bytes.len(),
    })
}

/// Bytes `from..from + length_bytes`, if they are there.
pub(crate) fn range<'a>(what: &'static str, bytes: &'a [u8], from: usize, length_bytes: usize) -> Result<&'a [u8]> {
    let needed_bytes = from.saturating_add(length_bytes);
    bytes.get(from..needed_bytes).ok_or(WireError::Truncated { what, needed_bytes, got_bytes: bytes.len() })
}

/// An error unless `value` fits into the low `bits` bits.
pub(crate) fn fits(what: &'static str, value: u32, bits: u32) -> Result<u32> {
    if bits < 32 && value >> bits != 0 { Err(WireError::Field { what, value }) } else { Ok(value) }
}

/// Bits `low..low + bits` of a word.
pub(crate) const fn field(word: u32, low: u32, bits: u32) -> u32 {
    (word >> low) & (((1u64 << bits) - 1) as u32)
}

/// Appends to a buffer that may be too small.
pub(crate) struct Writer<'a> {
    buffer: &'a mut [u8],
    used_bytes: usize,
}

impl<'a> Writer<'a> {
    pub(crate) fn new(buffer: &'a mut [u8]) -> Self {
        Self { buffer, used_bytes: 0 }
    }

    /// Writes bytes behind those that are there.
    pub(crate) fn put(&mut self, bytes: &[u8]) -> Result<()> {
        let needed_bytes = self.used_bytes + bytes.len();
        let got_bytes = self.buffer.len();
        let Some(room) = self.buffer.get_mut(self.used_bytes..needed_bytes) else {
            return Err(WireError::BufferTooSmall { needed_bytes, got_bytes });
        };
        room.copy_from_slice(bytes);
        self.used_bytes = needed_bytes;
        Ok(())
    }

    /// Writes a structure as it lies in memory.
    pub(crate) fn put_struct<T: IntoBytes + Immutable + ?Sized>(&mut self, value: &T) -> Result<()> {
        self.put(value.as_bytes())
    }

    /// How many bytes have been written.
    pub(crate) fn finish(self) -> usize {
        self.used_bytes
    }
}

/// The text before the first NUL, as far as it is UTF-8.
pub(crate) fn text_until_nul(bytes: &[u8]) -> &str {
    let text = bytes.split(|b| *b == 0).next().unwrap_or_default();
    valid_utf8(text)
}

/// The longest valid UTF-8 text at the start of the bytes.
pub(crate) fn valid_utf8(bytes: &[u8]) -> &str {
    match core::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(e) => core::str::from_utf8(bytes.get(..e.valid_up_to()).unwrap_or_default()).unwrap_or_default(),
    }
}

/// Shows at most the first 16 bytes in hexadecimal and how many there are.
pub(crate) struct Hex<'a>(pub(crate) &'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())?;
        for (i, byte) in self.0.iter().take(16).enumerate() {
            write!(f, "{}{byte:02x}", if i == 0 { " " } else { "" })?;
        }
        if self.0.len() > 16 { write!(f, "..") } else { Ok(()) }
    }
}

/// An enumeration over raw numbers that keeps numbers without a name, so that odd values survive a round trip.
macro_rules! raw_enum {
    ($(#[$meta:meta])* pub enum $name:ident($raw:ty) { $($(#[$variant_meta:meta])* $variant:ident = $value:literal $text:literal,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name {
            $($(#[$variant_meta])* $variant,)*
            /// A number without a name.
            Unknown($raw),
        }

        impl $name {
            /// All values that have a name, in the order of the table.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The number in the format.
            pub const fn raw(self) -> $raw {
                match self {
                    $(Self::$variant => $value,)*
                    Self::Unknown(raw) => raw,
                }
            }

            /// The value of a number.
            pub const fn from_raw(raw: $raw) -> Self {
                match raw {
                    $($value => Self::$variant,)*
                    _ => Self::Unknown(raw),
                }
            }
        }

        impl From<$raw> for $name {
            fn from(raw: $raw) -> Self {
                Self::from_raw(raw)
            }
        }

        impl From<$name> for $raw {
            fn from(value: $name) -> $raw {
                value.raw()
            }
        }

        impl core::fmt::Display for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                match self {
                    $(Self::$variant => f.write_str($text),)*
                    Self::Unknown(raw) => write!(f, "{raw:#x}"),
                }
            }
        }
    };
}
pub(crate) use raw_enum;
