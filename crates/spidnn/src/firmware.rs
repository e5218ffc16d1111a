//! The built firmware: which variants there are, and which one runs a program.

use std::collections::{BTreeMap, BTreeSet};

use spidnn_compiler::ChipImage;
use spidnn_core::command::{Command, Item};
use spidnn_core::program::CoreImage;
use spidnn_core::program::trailer::{self, Capabilities};
use spidnn_kernels::units::Units;
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
    Firmware { name: "predict_int8", aplx: include_bytes!("../../spidnn-firmware/artefacts/predict_int8.aplx") },
    Firmware { name: "predict_bfp16", aplx: include_bytes!("../../spidnn-firmware/artefacts/predict_bfp16.aplx") },
    Firmware { name: "train", aplx: include_bytes!("../../spidnn-firmware/artefacts/train.aplx") },
    Firmware { name: "train_bfp16", aplx: include_bytes!("../../spidnn-firmware/artefacts/train_bfp16.aplx") },
];

/// The program for bulk transfers ([`spinnaker_host::bulk`]).
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

    /// The first variant that has all that programs need.
    ///
    /// # Errors
    /// If no variant does: what lacks in the one that has most.
    pub fn choose(needs: &Needs) -> Result<&'static Firmware, Error> {
        let mut least: Option<Vec<String>> = None;
        for firmware in VARIANTS {
            let Some(can) = Firmware::capabilities(firmware.aplx)? else { continue };
            let missing = needs.missing(&can);
            if missing.is_empty() {
                return Ok(firmware);
            }
            if least.as_ref().is_none_or(|least| missing.len() < least.len()) {
                least = Some(missing);
            }
        }
        Err(Error::Argument(format!(
            "no variant of the firmware runs this network: it lacks {}; use fidelity=fast, which has everything",
            least.unwrap_or_default().join(", ")
        )))
    }

    /// The first variant that runs the programs of some chips.
    ///
    /// # Errors
    /// If no variant does.
    pub fn of(chips: &BTreeMap<ChipXy, ChipImage>) -> Result<&'static Firmware, Error> {
        let mut needs = Needs::default();
        // Many cores have the same list.
        let mut seen = BTreeSet::new();
        for image in chips.values() {
            for (_, at) in &image.cores {
                let Some((_, words)) = image.sdram.iter().find(|(start, _)| start == at) else { continue };
                if seen.insert(words.get(spidnn_core::program::HEADER_WORDS..)) {
                    let read = CoreImage::decode(words);
                    read.iter().flat_map(|image| image.programs.iter().flatten()).for_each(|list| needs.add(list));
                }
            }
        }
        Firmware::choose(&needs)
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

/// What programs need of firmware.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Needs {
    /// Kernels: numbers and names.
    pub kernels: BTreeMap<u32, &'static str>,
    /// Activations, losses, optimizers.
    pub units: Units,
    /// Exchanges between chips.
    pub exchanges: bool,
}

impl Needs {
    /// Adds what a list needs.
    pub fn add(&mut self, items: &[Item]) {
        for item in items {
            match item {
                Item::Loop(_, _, body) => self.add(body),
                Item::Do(step) => match &step.command {
                    Command::Kernel(call) => {
                        self.kernels.insert(call.number(), call.name());
                        self.units = self.units.with(Units::of(call));
                    }
                    Command::ReduceUp(_) | Command::BroadcastDown(_) => self.exchanges = true,
                    Command::Dma(_) | Command::Wait { .. } | Command::Barrier => {}
                },
            }
        }
    }

    /// What firmware lacks of it, by name.
    fn missing(&self, can: &Capabilities) -> Vec<String> {
        let kernels = self.kernels.iter().filter(|(number, _)| can.kernels >> *number & 1 == 0);
        let mut missing: Vec<String> = kernels.map(|(_, name)| format!("the kernel {name}")).collect();
        missing.extend(self.units.beyond(can.units).names().map(String::from));
        if self.exchanges && !can.exchanges {
            missing.push("exchanges between chips".into());
        }
        missing
    }
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

#[cfg(test)]
mod tests {
    use spidnn_core::command::{Step, When};
    use spidnn_kernels::KernelCall;
    use spidnn_kernels::call::{ActGrad, BiasAct, ConvHalf, GemmHalf, Loss, OptimizerStep, Product8, Widen};

    use super::*;

    fn chosen(calls: &[KernelCall]) -> Result<&'static str, String> {
        let step = |call: &KernelCall| {
            Item::Do(Step { command: Command::Kernel(*call), when: When::Always, patches: Vec::new() })
        };
        let mut needs = Needs::default();
        needs.add(&calls.iter().map(step).collect::<Vec<_>>());
        Firmware::choose(&needs).map(|firmware| firmware.name).map_err(|e| e.to_string())
    }

    #[test]
    fn the_smallest_variant_that_has_a_networks_units_is_chosen() {
        let act = |activation| KernelCall::from(BiasAct { activation, ..Default::default() });
        let (tanh, gelu) = (6, 9);
        assert_eq!(chosen(&[act(tanh)]), Ok("predict"));
        assert_eq!(chosen(&[act(gelu)]), Ok("train"), "predict has no gelu");
        let grad = ActGrad { activation: gelu, ..Default::default() };
        let binary = Loss { kind: 2, ..Default::default() };
        let rms_prop = OptimizerStep { kind: 2, ..Default::default() };
        assert_eq!(chosen(&[grad.into(), binary.into(), rms_prop.into()]), Ok("train"));
        let (bytes, halves) = (Product8::default().into(), GemmHalf::default().into());
        assert_eq!(chosen(&[bytes, act(tanh)]), Ok("predict_int8"));
        assert_eq!(chosen(&[halves, act(tanh)]), Ok("predict_bfp16"));
        assert_eq!(chosen(&[halves, act(gelu), rms_prop.into()]), Ok("train_bfp16"));
    }

    #[test]
    fn what_lacks_is_named() {
        let error =
            chosen(&[GemmHalf::default().into(), Widen::default().into(), ConvHalf::default().into()]).unwrap_err();
        assert!(error.contains("lacks the kernel Widen;") && error.contains("fidelity=fast"), "{error}");
        let act = |activation| KernelCall::from(BiasAct { activation, ..Default::default() });
        let gelu = 9;
        let error = chosen(&[Widen::default().into(), Product8::default().into(), act(gelu)]).unwrap_err();
        assert!(error.contains("it lacks gelu;"), "{error}");
        let needs = Needs { units: Units(1 << 9 | 1 << 26), exchanges: true, ..Needs::default() };
        let can = Capabilities { kernels: 0, units: Units(1 << 9), exchanges: false, page_bytes: Default::default() };
        assert_eq!(needs.missing(&can), ["RMSprop", "exchanges between chips"]);
    }
}
