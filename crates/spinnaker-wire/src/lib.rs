//! Wire and memory formats of SpiNNaker machines: what crosses the wire to a board, and what lies in its memories.
//!
//! One module per format. Structures with fixed fields are views: they are read in place, without a copy, from any bytes
//! (`read`, `new_checked`), and their fields are of little-endian types without alignment (big-endian for [`boot`]). What a
//! message *means* is a small value (`Repr`, [`scp::Command`], [`eieio::Packet`] and others) with `parse`, `emit` and often
//! `buffer_len`. Every one prints itself on one line.
//!
//! # What panics
//!
//! Nothing. Every function that takes bytes or numbers from outside checks them and answers with a [`WireError`]; writing into
//! a buffer that is too small is an error as well; and no value that can be made is one that cannot be printed. Numbers without a
//! name are kept (`Unknown`), so odd packets survive a round trip. Where a function says that it takes "the bits that fit", the others
//! are lost, which is for values that the caller has made.
//!
//! # Example
//!
//! ```
//! use spinnaker_wire::{ChipAddress, Unit, scp, sdp};
//!
//! // To the wire: read 8 bytes from chip (1, 0).
//! let header = sdp::Repr::request(sdp::Endpoint::core(ChipAddress::new(1, 0), 0));
//! let command = scp::Command::Read { address: 0x6024_0800, length_bytes: 8, unit: Unit::Word };
//! let mut datagram = [0; sdp::UDP_BYTES_MAX];
//! let length = scp::emit_udp_request(&header, &scp::Request { seq: 7, command }, &mut datagram)?;
//!
//! // From the wire.
//! let packet = sdp::Packet::from_udp(&datagram[..length])?;
//! assert_eq!(packet.repr(), header);
//! let request = scp::Request::parse(packet.body)?;
//! assert_eq!(request.command, command);
//! assert_eq!(request.to_string(), "scp seq 7 READ 0x60240800+8 word");
//!
//! // Cut short, it is an error, never a panic.
//! assert!(scp::Request::parse(&packet.body[..10]).is_err());
//! # Ok::<(), spinnaker_wire::WireError>(())
//! ```
#![no_std]
#![forbid(unsafe_code)]

mod address;
pub mod aplx;
pub mod bmp;
pub mod boot;
pub mod boot_image;
pub mod bulk;
mod bytes;
pub mod diagnostics;
pub mod eieio;
mod error;
pub mod heap;
pub mod iptag;
pub mod nn;
pub mod p2p;
pub mod router;
pub mod scp;
pub mod sdp;
pub mod sv;
#[cfg(test)]
mod testing;
pub mod vcpu;

pub use address::{AppId, ChipAddress, CoreMask, CorePort, LinkId, Unit};
pub use error::{Result, WireError};
