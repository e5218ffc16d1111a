//! Machines to run on: virtual ones, named by a locator.

use std::fmt;
use std::sync::atomic::AtomicBool;

use spinnaker_machine::{CORE_MAX, Fidelity, Locator, VirtualLocator};

use crate::Error;
use crate::board::Board;
use crate::lease::Lease;
use crate::reach::{self, Reached};
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

    /// A board on the network, by name or address, with all boards that hang together with it: `board:HOST` as a locator.
    ///
    /// # Errors
    /// As [`Machine::open`].
    pub fn connect(host: &str) -> Result<Machine, Error> {
        Machine::open(&format!("board:{host}"))
    }

    /// So many boards of an allocation server: `spalloc:SERVER?boards=N` as a locator, which can say more.
    ///
    /// # Errors
    /// As [`Machine::open`].
    pub fn spalloc(server: &str, boards: u32) -> Result<Machine, Error> {
        Machine::open(&format!("spalloc:{server}?boards={boards}"))
    }

    /// The machine that a locator names: `virtual:spin5`, `virtual:8x8?dead=1,1&drop=0.01`, ..
    ///
    /// # Errors
    /// A locator with a mistake, or a kind of machine that this version cannot reach.
    pub fn open(locator: &str) -> Result<Machine, Error> {
        Machine::open_with(locator, |_| {})
    }

    /// The same, and `progress` is told in words what a machine that takes its time is waiting for.
    ///
    /// # Errors
    /// As [`Machine::open`].
    pub fn open_with(locator: &str, progress: impl FnMut(&str)) -> Result<Machine, Error> {
        Machine::open_until(locator, None, progress)
    }

    /// The same, and it is given up when somebody sets `interrupt`: boards of a server are given back then.
    ///
    /// # Errors
    /// As [`Machine::open`], and [`Error::Interrupted`].
    pub fn open_until(
        locator: &str,
        interrupt: Option<&AtomicBool>,
        progress: impl FnMut(&str),
    ) -> Result<Machine, Error> {
        let parsed: Locator = locator.parse()?;
        match &parsed {
            Locator::Virtual(v) if v.fidelity == Fidelity::Fast => {
                let board = Box::new(VirtualBoard::new(v.machine()?, v));
                Ok(Machine { board, locator: parsed.to_string() })
            }
            Locator::Virtual(v) => {
                let Reached { runtime, boards } = reach::instruction_level(v)?;
                let mut board = WireBoard::new(runtime, boards, None)?;
                board.cap_cores(v.cores.unwrap_or(CORE_MAX).into());
                Ok(Machine { board: Box::new(board), locator: parsed.to_string() })
            }
            Locator::Board(b) => {
                let lease = Lease::take(&b.name())?;
                let Reached { runtime, boards } = reach::network(b, interrupt)?;
                let board = Box::new(WireBoard::new(runtime, boards, Some(lease))?);
                Ok(Machine { board, locator: parsed.to_string() })
            }
            Locator::Spalloc(s) => {
                let (Reached { runtime, boards }, job) = reach::allocated(s, interrupt, progress)?;
                // Nobody else has these boards; what is left on them goes with the job.
                let board = Box::new(WireBoard::new(runtime, boards, None)?.with_job(job));
                Ok(Machine { board, locator: parsed.to_string() })
            }
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

impl fmt::Debug for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Machine").field("locator", &self.locator).finish_non_exhaustive()
    }
}
