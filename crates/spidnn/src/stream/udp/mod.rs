//! Streams over UDP: inputs from any source of EIEIO or SDP, outputs as EIEIO with payloads and time stamps.
//!
//! A [`Bridge`] listens at one address for each input of the network, puts samples together, pushes them into a
//! [`Stream`](super::Stream), and sends the outputs to any number of receivers. [`Sender`] and [`Receiver`] are the other ends, for programs
//! that have none of their own.
//!
//! # The datagrams
//!
//! *Values.* EIEIO data packets of 32-bit keys with payloads ([`Keys`]): a key holds the low bits of the sample's sequence number and the
//! number of an element, the payload is the element's value as IEEE binary32. Or SDP messages ([`Sdp`]). Samples are numbered
//! from 0 on; a sample with several inputs has the same number in all. All elements have to come, in whatever order and datagrams.
//!
//! *Outputs* have the number of the sample that they answer. Before the values goes an EIEIO packet whose payloads are time stamps (bit 12 of
//! the header): with the key of element 0 the machine time at which the host had the outputs, with that of element 1 the time
//! at which the sample was pushed; microseconds modulo 2^32.
//!
//! *Commands* are EIEIO command packets. [`ASK_AGAIN`] (0x0A6A) asks the sender of a sample for elements: words of the sequence number as in
//! the keys, of the first element, and of their count. The sender answers with the values, or with [`GONE`] (0x0A6B) and the
//! sequence number. `EVENT_STOP` (3) says that no more samples come; a word behind it is the number of the sample that would be
//! next, so that what was lost last is noticed, too.
//!
//! # Losses and strangers
//!
//! A sample is missing something when nothing of it has come for the patience of the receiving end, while it or a later one has begun.
//! [`Lost`] says whether it is then given up and reported, or its sender asked again. A sample that is given up on the way in has no
//! output: receivers are told so by [`GONE`].
//!
//! Datagrams of unknown senders, with unknown keys or tags, that cannot be read, or whose sequence numbers are not among those that can come
//! next, are counted and ignored. A sender that has gone on beyond those (while nothing arrived here) is believed when so
//! many of its datagrams come in a row that chance is no explanation.

mod assembly;
mod bridge;
mod intake;
mod layout;
mod receiver;
mod sender;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

pub use assembly::{Lost, Stamp};
pub use bridge::{Bridge, News};
pub use intake::Counters;
pub use layout::{ASK_AGAIN, GONE, Keys, Layout, Sdp};
pub use receiver::{Received, Receiver};
pub use sender::Sender;

/// Samples that may be incomplete at once, at either end.
pub const WINDOW: usize = 64;

/// How a stream is connected.
#[derive(Debug, Clone)]
pub struct StreamUdp {
    /// One for each input of the network, in its order.
    pub inputs: Vec<UdpInput>,
    /// Receivers of outputs; several may have the same.
    pub outputs: Vec<UdpOutput>,
    /// What becomes of a sample of which something is missing.
    pub lost: Lost,
    /// For how long nothing of a sample may come before something counts as missing.
    pub patience: Duration,
}

/// Where an input comes from.
#[derive(Debug, Clone)]
pub struct UdpInput {
    /// Address and port to listen at (port 0 for any).
    pub listen: SocketAddr,
    /// What its datagrams mean.
    pub layout: Layout,
    /// Who may send; with none, whoever sends the first that can be used, and then no other.
    pub sources: Vec<IpAddr>,
}

/// Where an output goes.
#[derive(Debug, Clone, Copy)]
pub struct UdpOutput {
    /// Number of the output of the network.
    pub output: usize,
    /// The receiver.
    pub to: SocketAddr,
    /// Its keys.
    pub keys: Keys,
}
