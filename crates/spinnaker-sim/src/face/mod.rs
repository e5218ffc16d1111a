//! A virtual machine as the outside sees boards: UDP ports, a management processor, a power switch, a log.
//!
//! [`VirtualBoard`] is what a machine of any fidelity offers: datagrams in and out, with simulated time; [`CycleBoard`] is
//! that of the instruction-level machine, [`FastBoard`] that of the fast one. [`Server`] puts a `VirtualBoard` on UDP sockets, each board at an address of its
//! own, and lets its time follow the clock on the wall; where the machine is behind, what comes is handed over as far apart
//! as it was sent. [`GdbBoard`] lets a debugger stop that time. Everything here but these two is deterministic and touches
//! neither sockets nor that clock.
//!
//! What is approximated: the ports of a board may have other numbers outside than inside; a reverse IP tag's port is
//! opened when the command that sets it passes by; power is switched at once.

mod bmp;
mod cycle;
mod fast;
mod gdb;
mod pacing;
mod server;
mod watch;

use std::net::{Ipv4Addr, SocketAddrV4};

use spinnaker_machine::ChipXy;
use spinnaker_wire::boot;
use spinnaker_wire::boot_image::{self, BootImage};
use spinnaker_wire::sv::BootVariables;

pub use crate::cycle::Datagram;
pub use bmp::{Bmp, BmpAnswer};
pub use cycle::{CorePlace, CycleBoard};
pub use fast::FastBoard;
pub use gdb::GdbBoard;
pub use server::{BoardPorts, Listen, Pace, Request, Server};

/// UDP port of a board's monitor, as the machine counts it.
pub const SCP_PORT: u16 = spinnaker_wire::sdp::UDP_PORT;
/// UDP port of a board's boot ROM, as the machine counts it.
pub const BOOT_PORT: u16 = spinnaker_wire::boot::UDP_PORT;

/// A line of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// Machine time, ns.
    pub time_ns: u64,
    /// What happened.
    pub text: String,
}

impl std::fmt::Display for LogLine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let us = self.time_ns / 1000;
        write!(f, "[{:5}.{:06} s] {}", us / 1_000_000, us % 1_000_000, self.text)
    }
}

/// A machine that speaks UDP, in simulated time.
pub trait VirtualBoard {
    /// Machine time, ns. It never goes back.
    fn now_ns(&self) -> u64;

    /// Lets the machine run until its time is `end_ns`.
    fn run_until(&mut self, end_ns: u64);

    /// As [`run_until`](VirtualBoard::run_until), but a machine may stop as soon as a datagram has come out.
    fn run_to_output(&mut self, end_ns: u64) {
        self.run_until(end_ns);
    }

    /// Whether nothing will happen by itself, so that time need not pass for the machine's sake.
    fn is_idle(&mut self) -> bool {
        false
    }

    /// Ethernet chips of all boards and their addresses, in the order in which a management processor counts boards.
    fn boards(&self) -> Vec<(ChipXy, Ipv4Addr)>;

    /// Sends a datagram to a board now. False if it gets lost at once: no such board, no power, too long for a frame.
    fn send(&mut self, datagram: &Datagram) -> bool;

    /// The oldest datagram that came out and was not taken yet.
    fn receive(&mut self) -> Option<Datagram>;

    /// Switches boards: `Some(true)` is on (off and on again, if it was on), `Some(false)` off, `None` as it is.
    fn power(&mut self, boards: &[Option<bool>]);

    /// What has happened since the last call, in order of time.
    fn take_log(&mut self) -> Vec<LogLine>;

    /// What everything is doing, as lines of text.
    fn snapshot(&mut self) -> String;
}

/// Machine time for the boot ROM to come up.
const ROM_START_NS: u64 = 200_000_000;

/// Boots a machine from within: sends the image's messages to its first board, 1 ms of machine time after each other.
///
/// # Errors
/// [`spinnaker_wire::WireError`] for an image that is none.
pub fn boot_from_within(
    board: &mut impl VirtualBoard,
    image: &[u8],
    variables: &BootVariables,
) -> Result<(), spinnaker_wire::WireError> {
    const PAUSE_NS: u64 = 1_000_000;
    let mut image = image.to_vec();
    boot_image::patch(&mut image, variables)?;
    let image = BootImage::new_checked(&image)?;
    let Some(&(chip, address)) = board.boards().first() else { return Ok(()) };
    // Some host on the same net that nobody else is.
    let host = SocketAddrV4::new(Ipv4Addr::from(u32::from(address) ^ 0x80), BOOT_PORT);
    let mut buffer = [0; boot::MESSAGE_BYTES_MAX];
    let start_ns = board.now_ns() + ROM_START_NS;
    board.run_until(start_ns);
    let mut send = |length: usize, buffer: &[u8]| {
        board.send(&Datagram { board: chip, host, port: BOOT_PORT, time_ns: 0, data: buffer[..length].to_vec() });
        let end_ns = board.now_ns() + PAUSE_NS;
        board.run_until(end_ns);
    };
    let length = boot::Repr::Start { blocks: image.blocks_len() }.emit(&mut buffer)?;
    send(length, &buffer);
    for (number, block) in image.blocks().enumerate() {
        let length = boot::emit_block(number as u8, block, &mut buffer)?;
        send(length, &buffer);
    }
    let length = boot::Repr::Control { execute: true, entry: 0 }.emit(&mut buffer)?;
    send(length, &buffer);
    Ok(())
}
