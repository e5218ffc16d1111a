//! Machines to run on: virtual ones, named by a locator.

use std::fmt;

use spinnaker_host::{BootOptions, Options, Transceiver};
use spinnaker_machine::{Fidelity, Locator, VirtualLocator};
use spinnaker_sim::cycle::{CycleConfig, CycleMachine};

use crate::Error;
use crate::board::Board;
use crate::boot_image;
use crate::cycle_link::CycleLink;
use crate::virtual_board::VirtualBoard;
use crate::wire_board::WireBoard;

/// A machine that is ready for a session.
pub struct Machine {
    board: Box<dyn Board>,
    locator: String,
}

impl Machine {
    /// A virtual SpiNN-5 board: 48 chips.
    pub fn virtual_spin5() -> Machine {
        Machine::virtual_machine(&VirtualLocator::default())
    }

    /// A virtual SpiNN-3 board: 4 chips.
    pub fn virtual_spin3() -> Machine {
        let shape = spinnaker_machine::VirtualShape::Spin3;
        Machine::virtual_machine(&VirtualLocator { shape, ..Default::default() })
    }

    fn virtual_machine(locator: &VirtualLocator) -> Machine {
        // Shapes with a fixed size and without faults always exist.
        let machine = locator.machine().unwrap_or_else(|_| spinnaker_machine::Machine::spin5());
        let board = Box::new(VirtualBoard::new(machine, locator));
        Machine { board, locator: Locator::Virtual(locator.clone()).to_string() }
    }

    /// The machine that a locator names: `virtual:spin5`, `virtual:8x8?dead=1,1&drop=0.01`, ..
    ///
    /// # Errors
    /// A locator with a mistake, or a kind of machine that this version cannot reach.
    pub fn open(locator: &str) -> Result<Machine, Error> {
        let parsed: Locator = locator.parse()?;
        match &parsed {
            Locator::Virtual(v) if v.fidelity == Fidelity::Fast => {
                let board = Box::new(VirtualBoard::new(v.machine()?, v));
                Ok(Machine { board, locator: parsed.to_string() })
            }
            Locator::Virtual(v) => {
                let board = Box::new(instruction_level(v, &boot_image::find()?)?);
                Ok(Machine { board, locator: parsed.to_string() })
            }
            Locator::Board(_) | Locator::Spalloc(_) => Err(Error::Argument(format!(
                "`{locator}` names a machine of the real world, which this version does not reach yet: use a virtual machine such as virtual:spin5"
            ))),
        }
    }

    /// A machine behind a board of your own.
    pub fn from_board(locator: impl Into<String>, board: Box<dyn Board>) -> Machine {
        Machine { board, locator: locator.into() }
    }

    /// Its locator, in full.
    pub fn locator(&self) -> &str {
        &self.locator
    }

    /// The board.
    pub fn board(&self) -> &dyn Board {
        &*self.board
    }

    /// The board.
    pub fn board_mut(&mut self) -> &mut dyn Board {
        &mut *self.board
    }
}

/// An instruction-level machine in this process, booted with the official monitor.
fn instruction_level(locator: &VirtualLocator, image: &[u8]) -> Result<WireBoard<CycleLink>, Error> {
    let machine = locator.machine()?;
    let link = CycleLink::new(CycleMachine::new(&machine, &CycleConfig::from(locator)));
    let kind =
        if machine.chips.len() <= 4 { spinnaker_wire::sv::Board::Spin3 } else { spinnaker_wire::sv::Board::Spin5 };
    let mut host = Transceiver::over(link, Options::default());
    host.boot(image, &BootOptions::new(kind, BOOT_TIME_S))?;
    WireBoard::new(host, machine)
}

/// The time that a virtual machine is told at boot (Unix seconds): always the same, so that its runs are.
const BOOT_TIME_S: u32 = 1_577_836_800;

impl fmt::Debug for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Machine").field("locator", &self.locator).finish_non_exhaustive()
    }
}
