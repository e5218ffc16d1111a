//! A SpiNN-3 that runs the official monitor, and the states of its cores.

use spinnaker_machine::{ChipXy, Machine};
use spinnaker_sim::cycle::{CycleConfig, CycleMachine};

use super::{boot, boot_image, patch, until_up};

/// Core states and run-time error codes of SARK.
pub const STATE_RUN_TIME_ERROR: u8 = 2;
pub const STATE_IDLE: u8 = 15;
pub const DATA_ABORT: u8 = 5;
pub const UNDEFINED: u8 = 2;

/// The official image, for this board.
pub fn image() -> Option<Vec<u8>> {
    let Some(mut image) = boot_image() else {
        println!("not run: no boot image (SPINNAKER_BOOT_IMAGE, or an installed SpiNNMan)");
        return None;
    };
    patch(&mut image, 3, 1);
    Some(image)
}

/// The board, up.
pub fn booted() -> Option<CycleMachine> {
    let image = image()?;
    let mut machine = CycleMachine::new(&Machine::spin3(), &CycleConfig::default());
    boot(&mut machine, &image);
    assert!(until_up(&mut machine, 5000));
    Some(machine)
}

/// State and run-time error code of a core (virtual number).
pub fn state(machine: &mut CycleMachine, chip: ChipXy, core: u8) -> (u8, u8) {
    let block = machine.peek(chip, 0xE500_7000 + 128 * u32::from(core), 128).expect("a chip");
    (block[0x2E], block[0x2C])
}
