//! The virtual SpiNNaker in two fidelities, both deterministic simulations of chips, links, DMA, SDRAM and the host link.
//!
//! * `fast`, the [`Simulator`]: native programs on cores, packets in trains. What follows here is about it.
//! * `cycle`, the [`CycleMachine`](cycle::CycleMachine): blank chips whose cores execute the real instructions of official
//!   binaries, from the boot ROM on. Its page is [`cycle`], its processor [`arm968`].
//!
//! The fast machine is reached by SCP through its [`monitor`]s, emulated natively.
//!
//! Programs of cores are native futures over a [`CoreHandle`] and charge the cycles that they take; the
//! [`Simulator`] moves their data through the DMA controllers, SDRAM, routers and links of the machine.
//!
//! # What is exact and what is approximated
//!
//! * DMA: engines of a chip share its bandwidth fluidly (processor sharing), each below its own limit. Each row of a [`Transfer`] takes
//!   the fixed latency, then its share; bursts are not single events.
//! * Packets: every packet is routed by the tables, first match first, with default routing. A *train* of packets with
//!   consecutive keys is one event a hop; it holds a link for the time of all its packets, and trains that meet at a
//!   link follow each other instead of mixing. What a router cannot pass on keeps the link before it busy.
//! * A packet is dropped when the way on takes nothing for 240 router cycles: a dead link, a core whose queue is full,
//!   or a neighbour stuck for that long. Packets to a dead end hold up their own sender for that time each, and
//!   what passes the router meanwhile for one of them. A link that merely is busy takes packets in turn and drops none.
//! * A send up to a microsecond ahead of its core's last event enters the network at once, with its own time.
//! * Losses are drawn for each packet and link from the seed.
//! * Interrupts (a packet received, a DMA transfer ended) take processor time from what a core computes.
//!
//! # What is not here
//!
//! Emergency routing (the system software leaves it off), point-to-point and fixed-route packets, the monitor processors'
//! own traffic, refresh of SDRAM, and clock drift between boards.
#![forbid(unsafe_code)]

pub mod arm968;
mod bootrom;
mod chip;
mod config;
mod core;
pub mod cycle;
mod error;
pub mod face;
mod memory;
pub mod monitor;
mod network;
mod packet;
mod queue;
mod router;
mod sdram;
mod simulator;

pub use config::{CYCLE_NS, SimConfig, Timing};
pub use core::{
    COUNTER_RESENT, CoreHandle, CoreState, DMA_TAGS, DTCM_BYTES, Direction, FAIL_DATA_ABORT, FAIL_DMA,
    PROGRAM_COUNTERS, SHOWN_WORDS, Transfer,
};
pub use error::SimError;
pub use packet::{Arrival, Words};
pub use simulator::{CoreReport, Counters, Energy, Program, RunEnd, RunOutcome, Simulator, TransferId};
