//! What travels between the chips of an instruction-level machine: packets, and the credits of links.

mod link;
mod packet;

pub(crate) use link::{Link, Output};
pub(crate) use packet::{Fault, Packet, PacketKind};
