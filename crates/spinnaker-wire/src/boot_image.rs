//! The image that boots a board: a self-extracting APLX with the system variables' defaults in it.

use core::fmt;

use zerocopy::{FromBytes, IntoBytes};

use crate::aplx::{self, Entry};
use crate::boot::{BLOCK_BYTES, BLOCKS_MAX};
use crate::sv::{self, BootVariables};
use crate::{Result, WireError};

/// Where the APLX table lies in the image.
pub const TABLE_OFFSET: usize = 0x80;
/// Where the system variables lie that the host writes.
pub const SV_OFFSET: usize = 0x180;
/// The longest image: 32 blocks.
pub const BYTES_MAX: usize = BLOCKS_MAX as usize * BLOCK_BYTES;

/// A view of a boot image.
#[derive(Clone, Copy, Debug)]
pub struct BootImage<'a> {
    bytes: &'a [u8],
}

impl<'a> BootImage<'a> {
    /// An image, looked at as far as a host must: size, an APLX table that copies the system variables and starts a program,
    /// with all sources inside the image.
    ///
    /// # Errors
    /// [`WireError::Truncated`], [`WireError::TooLong`], [`WireError::Field`] for a table that is none.
    pub fn new_checked(bytes: &'a [u8]) -> Result<Self> {
        if bytes.len() > BYTES_MAX {
            return Err(WireError::TooLong { what: "boot image", limit_bytes: BYTES_MAX, got_bytes: bytes.len() });
        }
        let needed_bytes = SV_OFFSET + sv::BOOT_BYTES;
        let table = bytes.get(TABLE_OFFSET..).filter(|_| bytes.len() >= needed_bytes).ok_or(WireError::Truncated {
            what: "boot image",
            needed_bytes,
            got_bytes: bytes.len(),
        })?;
        let (mut variables, mut runs) = (false, false);
        for (at, entry) in aplx::entries(table) {
            match entry {
                Entry::RelativeCopy { destination, offset: from, length_bytes } => {
                    let start = (TABLE_OFFSET + at) as i64 + i64::from(from);
                    let end = start + i64::from(length_bytes);
                    if start < 0 || end > bytes.len() as i64 {
                        return Err(WireError::Field { what: "boot image copy offset", value: from as u32 });
                    }
                    variables |= destination == sv::ADDRESS && start == SV_OFFSET as i64;
                }
                Entry::Execute { .. } => runs = true,
                _ => {}
            }
        }
        if !variables || !runs {
            return Err(WireError::Field { what: "boot image table", value: bytes.len() as u32 });
        }
        Ok(Self { bytes })
    }

    /// All of it.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The system variables in it.
    pub fn variables(&self) -> BootVariables {
        let bytes = self.bytes.get(SV_OFFSET..SV_OFFSET + sv::BOOT_BYTES).unwrap_or_default();
        BootVariables::read_from_bytes(bytes).unwrap_or(BootVariables::host_defaults())
    }

    /// How many blocks carry it.
    pub fn blocks_len(&self) -> u16 {
        self.bytes.len().div_ceil(BLOCK_BYTES) as u16
    }

    /// Its blocks in memory order, the last perhaps short.
    pub fn blocks(&self) -> impl Iterator<Item = &'a [u8]> {
        self.bytes.chunks(BLOCK_BYTES)
    }
}

impl fmt::Display for BootImage<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "boot image, {} bytes in {} blocks", self.bytes.len(), self.blocks_len())
    }
}

/// Writes the system variables into an image.
///
/// # Errors
/// As [`BootImage::new_checked`].
pub fn patch(image: &mut [u8], variables: &BootVariables) -> Result<()> {
    BootImage::new_checked(image)?;
    let got_bytes = image.len();
    match image.get_mut(SV_OFFSET..SV_OFFSET + sv::BOOT_BYTES) {
        Some(room) => {
            room.copy_from_slice(variables.as_bytes());
            Ok(())
        }
        None => Err(WireError::Truncated { what: "boot image", needed_bytes: SV_OFFSET + sv::BOOT_BYTES, got_bytes }),
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::vec;
    use std::vec::Vec;

    use super::*;
    use crate::sv::Board;

    /// The layout of the released image, with nothing behind its parts.
    fn image() -> Vec<u8> {
        let mut bytes = vec![0; 0x74AC];
        let table = [
            Entry::RelativeCopy { destination: 0x7F00, offset: -0x80, length_bytes: 0x80 },
            Entry::RelativeCopy { destination: 0x7000, offset: 0x170, length_bytes: 0xE00 },
            Entry::Execute { address: 0x7F18 },
            Entry::RelativeCopy { destination: sv::ADDRESS, offset: 0xD0, length_bytes: 0x80 },
            Entry::RelativeCopy { destination: 0, offset: 0xF40, length_bytes: 0x6344 },
            Entry::RelativeCopy { destination: 0x0040_0000, offset: 0x7274, length_bytes: 0x168 },
            Entry::Fill { destination: 0x0040_0168, length_bytes: 0xB50, word: 0 },
            Entry::Execute { address: 0 },
        ];
        for (i, entry) in table.iter().enumerate() {
            let at = TABLE_OFFSET + i * aplx::ENTRY_BYTES;
            entry.emit(&mut bytes[at..]).unwrap();
        }
        bytes
    }

    #[test]
    fn the_layout_of_the_released_image_is_taken() {
        let mut bytes = image();
        let variables = BootVariables::for_board(Board::Spin5, 0x5F00_0000);
        patch(&mut bytes, &variables).unwrap();
        let image = BootImage::new_checked(&bytes).unwrap();
        assert_eq!(image.blocks_len(), 30);
        assert_eq!(image.blocks().last().map(<[u8]>::len), Some(172));
        assert_eq!(image.variables(), variables);
        assert_eq!(bytes[0x18A], 5);
        assert_eq!(bytes[0x1C0], 1);
    }

    /// The official image, if an installed Python package has one and `SPINNAKER_BOOT_IMAGE` names it.
    #[test]
    fn the_released_image_is_taken() {
        let Some(path) = std::env::var_os("SPINNAKER_BOOT_IMAGE") else {
            std::eprintln!("not run: SPINNAKER_BOOT_IMAGE does not name an official image");
            return;
        };
        let bytes = std::fs::read(path).unwrap();
        let image = BootImage::new_checked(&bytes).unwrap();
        assert_eq!(image.blocks().map(<[u8]>::len).sum::<usize>(), bytes.len());
        assert_eq!(image.variables().cpu_clk_mhz.get(), 200);
    }

    #[test]
    fn what_is_none_is_refused() {
        assert!(BootImage::new_checked(&[0; 100]).is_err());
        assert!(BootImage::new_checked(&vec![0; 0x8001]).is_err());
        assert!(BootImage::new_checked(&vec![0; 0x74AC]).is_err(), "no table");
        let bytes = image();
        assert!(BootImage::new_checked(&bytes[..0x7000]).is_err(), "cut");
        let mut bytes = image();
        bytes[TABLE_OFFSET + 8] = 0;
        bytes[TABLE_OFFSET + 9] = 0xF0;
        assert!(BootImage::new_checked(&bytes).is_err(), "copies what is in front of the image");
    }
}
