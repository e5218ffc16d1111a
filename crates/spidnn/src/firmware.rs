//! The built firmware: which variants there are, and which one runs a program.

use spidnn_core::program::trailer;
use spinnaker_wire::aplx::{Aplx, Entry, HEADER_BYTES};

use crate::Error;

/// A built variant as the monitor loads it.
pub struct Firmware {
    /// Its name.
    pub name: &'static str,
    /// The file.
    pub aplx: &'static [u8],
}

/// Every variant, smallest choice of kernels first.
pub const VARIANTS: &[Firmware] =
    &[Firmware { name: "predict", aplx: include_bytes!("../../spidnn-firmware/artefacts/predict.aplx") }];

impl Firmware {
    /// What an application says of itself at the end of its code: the bits of its kernels, and whether it takes part in exchanges;
    /// `None` if it is not this project's.
    ///
    /// # Errors
    /// Firmware of another version than this library's is named by both.
    pub fn capabilities(aplx: &[u8]) -> Result<Option<(u64, bool)>, Error> {
        let Some(words) = trailer_words(aplx) else { return Ok(None) };
        match trailer::read(&words) {
            Ok(capabilities) => Ok(Some(capabilities)),
            Err(0) => Ok(None),
            Err(version) => Err(Error::Argument(format!(
                "the firmware is of version {version}, this library works with version {}: use one version of SpiDNN",
                spidnn_core::program::VERSION
            ))),
        }
    }

    /// The first variant that has these kernels (bits by number) and, where asked for, takes part in exchanges.
    ///
    /// # Errors
    /// If no variant does.
    pub fn choose(kernels: u64, exchanges: bool) -> Result<&'static Firmware, Error> {
        for firmware in VARIANTS {
            if let Some((has, does)) = Firmware::capabilities(firmware.aplx)?
                && kernels & !has == 0
                && (does || !exchanges)
            {
                return Ok(firmware);
            }
        }
        let numbers: Vec<String> = (0..64).filter(|n| kernels >> n & 1 == 1).map(|n: u32| n.to_string()).collect();
        Err(Error::Argument(format!(
            "no variant of the firmware has all that this network needs (kernels {}{}): it runs with fidelity=fast",
            numbers.join(", "),
            if exchanges { ", exchanges between chips" } else { "" }
        )))
    }
}

/// The last words of an application's code.
fn trailer_words(aplx: &[u8]) -> Option<[u32; trailer::WORDS]> {
    let file = Aplx::new_checked(aplx).ok()?;
    let code_bytes = file.entries().find_map(|entry| match entry {
        Entry::RelativeCopy { destination: 0, length_bytes, .. } => Some(length_bytes as usize),
        _ => None,
    })?;
    let code = aplx.get(HEADER_BYTES..HEADER_BYTES + code_bytes)?;
    let bytes = code.get(code.len().checked_sub(4 * trailer::WORDS)?..)?;
    let mut words = [0; trailer::WORDS];
    for (word, bytes) in words.iter_mut().zip(bytes.chunks_exact(4)) {
        *word = u32::from_le_bytes(bytes.try_into().ok()?);
    }
    Some(words)
}
