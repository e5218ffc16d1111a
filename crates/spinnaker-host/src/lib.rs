//! The host's side of a SpiNNaker board: boot it, and work with its monitor.
//!
//! A [`Transceiver`] speaks with one board over a [`Link`]: UDP sockets ([`UdpLink`]), or anything else that carries datagrams and
//! knows the time, such as a virtual board in the same process. Requests are windowed, repeated and matched with their replies by
//! a state machine without sockets or clock, [`Window`]. [`Boards`] is a machine of one or several boards, with a transceiver for each
//! Ethernet chip, and [`bulk`] is a faster way to its memories; [`Bmp`] is the management processor that switches their power.
//!
//! All is `async`, on tokio where sockets are concerned; a runtime of one thread (`new_current_thread`) is enough.
//!
//! ```no_run
//! use spinnaker_host::{BootOptions, Transceiver};
//! use spinnaker_wire::{ChipAddress, sdp::Endpoint, sv::Board};
//!
//! # async fn run() -> Result<(), spinnaker_host::HostError> {
//! let mut board = Transceiver::connect("192.168.240.1").await?;
//! let image = std::fs::read("scamp.boot").expect("a boot image");
//! board.boot(&image, &BootOptions::new(Board::Spin5, 1_800_000_000)).await?;
//! let machine = board.discover().await?;
//! println!("{} chips", machine.chips.len());
//! let monitor = Endpoint::core(ChipAddress::new(0, 0), 0);
//! board.write(monitor, 0x6024_0000, b"hello").await?;
//! assert_eq!(board.read(monitor, 0x6024_0000, 5).await?, b"hello");
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]

mod application;
mod bmp;
mod boards;
mod boot;
pub mod bulk;
mod cores;
mod diagnostics;
mod error;
mod flood;
mod launch;
mod link;
mod memory;
mod message;
mod network;
mod routes;
pub mod spalloc;
mod transceiver;
mod window;

pub use bmp::Bmp;
pub use boards::{Boards, Place};
pub use boot::{BootOptions, Kernel};
pub use cores::FoundCore;
pub use diagnostics::RouterCounters;
pub use error::{HostError, Result};
pub use link::{Channel, Link, UdpLink};
pub use message::Message;
pub use network::{FoundChip, FoundMachine};
pub use routes::RouteEntry;
pub use transceiver::{Options, Transceiver};
pub use window::{Event, Window, WindowConfig, WindowCounts};
