//! Geometry of SpiNNaker machines: chips, links, boards, working cores, faults, and machine locators.
//!
//! A [`Machine`] is what a host discovers, or what a virtual machine is to be: chips on a hexagonal mesh, the cores and
//! links of each that work. A [`Locator`] is the text by which a user names a machine.
//!
//! ```
//! use spinnaker_machine::Locator;
//! let locator: Locator = "virtual:spin5?dead=1,1&deadlink=0,0,E".parse()?;
//! let machine = locator.machine()?;
//! assert_eq!(machine.chips.len(), 47);
//! # Ok::<(), spinnaker_machine::LocatorError>(())
//! ```
#![forbid(unsafe_code)]

mod geometry;
mod locator;
mod machine;
mod route;

pub use geometry::{ChipXy, Link, mesh_distance};
pub use locator::{
    BoardLocator, Fidelity, Locator, LocatorError, SpallocBoards, SpallocLocator, SpallocServer, VirtualLocator,
    VirtualShape,
};
pub use machine::{
    CORE_MAX, Chip, Machine, MachineError, ROUTING_ENTRIES_MAX, RandomFaults, SDRAM_BASE, SDRAM_BYTES, SDRAM_USER_BASE,
    SDRAM_USER_BYTES,
};
pub use route::{Route, RoutingEntry};
