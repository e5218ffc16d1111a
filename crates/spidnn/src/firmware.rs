//! The built firmware: which variants there are, and which one runs a program.

use std::collections::BTreeMap;

use spidnn_compiler::ChipImage;
use spidnn_core::command::{Command, Item};
use spidnn_core::program::CoreImage;
use spidnn_core::program::trailer::{self, Capabilities};
use spinnaker_machine::ChipXy;
use spinnaker_wire::aplx::{Aplx, ENTRY_BYTES, Entry};

use crate::Error;

/// First byte of a core's data memory.
const DATA_MEMORY: u32 = 0x0040_0000;

/// A built variant as the monitor loads it.
pub struct Firmware {
    /// Its name.
    pub name: &'static str,
    /// The file.
    pub aplx: &'static [u8],
}

/// Every variant, smallest choice of kernels first.
pub const VARIANTS: &[Firmware] = &[
    Firmware { name: "predict", aplx: include_bytes!("../../spidnn-firmware/artefacts/predict.aplx") },
    Firmware { name: "train", aplx: include_bytes!("../../spidnn-firmware/artefacts/train.aplx") },
];

/// The program for bulk transfers ([`spinnaker_host::stream`]).
pub const STREAM: &[u8] = include_bytes!("../../spidnn-firmware/artefacts/stream.aplx");

impl Firmware {
    /// What an application says of itself at the end of its code; `None` if it is not this project's.
    ///
    /// # Errors
    /// Firmware of another version than this library's is named by both.
    pub fn capabilities(aplx: &[u8]) -> Result<Option<Capabilities>, Error> {
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
            if let Some(can) = Firmware::capabilities(firmware.aplx)?
                && kernels & !can.kernels == 0
                && (can.exchanges || !exchanges)
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

impl Firmware {
    /// The first variant that runs the programs of some chips.
    ///
    /// # Errors
    /// If no variant does.
    pub fn of(chips: &BTreeMap<ChipXy, ChipImage>) -> Result<&'static Firmware, Error> {
        let (mut kernels, mut exchanges) = (0, false);
        // Many cores have the same list.
        let mut seen = BTreeMap::new();
        for image in chips.values() {
            for (_, at) in &image.cores {
                let Some((_, words)) = image.sdram.iter().find(|(start, _)| start == at) else { continue };
                if seen.insert(words.get(spidnn_core::program::HEADER_WORDS..), ()).is_some() {
                    continue;
                }
                let read = CoreImage::decode(words);
                for segment in read.iter().flat_map(|image| image.programs.iter().flatten()) {
                    let (more, does) = needs(segment);
                    (kernels, exchanges) = (kernels | more, exchanges | does);
                }
            }
        }
        Firmware::choose(kernels, exchanges)
    }

    /// What the monitor loads, and the pages of code that the cores bring from SDRAM.
    pub fn parts(&self) -> (&'static [u8], &'static [u8]) {
        let pages = match Firmware::capabilities(self.aplx) {
            Ok(Some(can)) => can.page_bytes.iter().sum::<u32>() as usize,
            _ => 0,
        };
        self.aplx.split_at(self.aplx.len().saturating_sub(pages))
    }
}

/// The kernels of an image (bits by number), and whether it has exchanges.
fn needs(items: &[Item]) -> (u64, bool) {
    items.iter().fold((0, false), |(kernels, exchanges), item| match item {
        Item::Loop(_, _, body) => {
            let (inner, does) = needs(body);
            (kernels | inner, exchanges | does)
        }
        Item::Do(step) => match &step.command {
            Command::Kernel(call) => (kernels | 1 << call.number(), exchanges),
            Command::ReduceUp(_) | Command::BroadcastDown(_) => (kernels, true),
            Command::Dma(_) | Command::Wait { .. } | Command::Barrier => (kernels, exchanges),
        },
    })
}

/// The last words of an application's code.
fn trailer_words(aplx: &[u8]) -> Option<[u32; trailer::WORDS]> {
    let file = Aplx::new_checked(aplx).ok()?;
    // Code is copied to where data memory is not; the last part of it ends with the trailer.
    let is_code = |destination: u32| destination < DATA_MEMORY;
    let last = file.entries().enumerate().filter_map(|(number, entry)| match entry {
        Entry::RelativeCopy { destination, offset, length_bytes } if is_code(destination) => {
            let start = (number * ENTRY_BYTES) as i64 + i64::from(offset);
            Some((destination, usize::try_from(start).ok()?, length_bytes as usize))
        }
        _ => None,
    });
    let (_, start, length) = last.max_by_key(|(destination, ..)| *destination)?;
    let code = aplx.get(start..start.checked_add(length)?)?;
    let bytes = code.get(code.len().checked_sub(4 * trailer::WORDS)?..)?;
    let mut words = [0; trailer::WORDS];
    for (word, bytes) in words.iter_mut().zip(bytes.chunks_exact(4)) {
        *word = u32::from_le_bytes(bytes.try_into().ok()?);
    }
    Some(words)
}
