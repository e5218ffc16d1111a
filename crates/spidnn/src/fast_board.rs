//! The fast virtual machine as boards that speak SCP: its monitors emulated natively, this project's firmware on its cores as
//! the native runtime.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::rc::Rc;

use spidnn_core::program::{MAGIC, VERSION, directory};
use spidnn_core::{ErrorCode, pages};
use spinnaker_machine::{ChipXy, Machine, VirtualLocator};
use spinnaker_sim::face::FastBoard;
use spinnaker_sim::monitor::{Application, MonitorConfig, Place, Programs};
use spinnaker_sim::{Program, SimConfig};

use crate::firmware::{Firmware, STREAM};
use crate::native::NativeCore;
use crate::virtual_board::with_firmware_times;

/// Boards of a virtual machine with the faults, losses and rates of a locator, booted at a Unix time. Those without an address
/// have [`spinnaker_sim::cycle::default_address`].
pub fn fast_board(
    machine: Machine,
    locator: &VirtualLocator,
    addresses: BTreeMap<ChipXy, Ipv4Addr>,
    unix_time_s: u32,
) -> FastBoard {
    let simulation = with_firmware_times(SimConfig::from(locator));
    FastBoard::new(machine, MonitorConfig { simulation, addresses, unix_time_s }, Box::new(FirmwarePrograms))
}

/// Knows this project's firmware by its trailer, whatever its variant, and runs the native runtime in its place.
#[derive(Debug, Clone, Copy, Default)]
pub struct FirmwarePrograms;

impl Programs for FirmwarePrograms {
    fn application(&self, file: &[u8]) -> Result<Rc<dyn Application>, String> {
        if file.starts_with(STREAM) {
            return Ok(Rc::new(NoTransfers));
        }
        match Firmware::capabilities(file) {
            Ok(Some(can)) => Ok(Rc::new(NativeFirmware { page_bytes: can.page_bytes })),
            Ok(None) => {
                Err("this virtual machine runs SpiDNN's firmware only (fidelity=fast); any other application runs on \
                 one with fidelity=cycle"
                    .to_string())
            }
            Err(e) => Err(e.to_string()),
        }
    }
}

struct NativeFirmware {
    page_bytes: [u32; pages::COUNT],
}

impl Application for NativeFirmware {
    fn name(&self) -> &str {
        "spidnn"
    }

    fn version(&self) -> u32 {
        VERSION << 16
    }

    fn title(&self) -> &[u8] {
        b"SpiDNN/SpiNNaker\0\0\0\0"
    }

    fn program(&self, place: &mut Place<'_>) -> Program {
        let page_bytes = self.page_bytes;
        let (core, block) = (usize::from(place.core), place.tagged_block(directory::TAG));
        let mut word = |index: usize| if block == 0 { 0 } else { place.word(block + 4 * index as u32) };
        let is_directory = word(0) == MAGIC && word(1) == VERSION;
        let pages_missing = word(directory::PAGES) == 0 && page_bytes.iter().any(|bytes| *bytes != 0);
        let image = if is_directory { word(2 + core) } else { 0 };
        Box::new(move |handle| {
            Box::pin(async move {
                if image == 0 {
                    // Nothing to do for this core.
                } else if pages_missing {
                    handle.fail(ErrorCode::BadImage as u32, [0; 2]);
                } else {
                    spidnn_core::run(&NativeCore::new(handle, page_bytes), image).await;
                }
            })
        })
    }
}

/// The program for bulk transfers, which there is natively none of: it ends at once, and whoever wanted it does without. Unlike a
/// stranger's application it is nothing to speak of.
struct NoTransfers;

impl Application for NoTransfers {
    fn name(&self) -> &str {
        "spidnn stream"
    }

    fn version(&self) -> u32 {
        VERSION << 16
    }

    fn title(&self) -> &[u8] {
        b"SpiDNN/SpiNNaker\0\0\0\0"
    }

    fn program(&self, _: &mut Place<'_>) -> Program {
        Box::new(|handle| Box::pin(async move { handle.fail(ErrorCode::BadImage as u32, [0; 2]) }))
    }
}
