//! What an instruction-level machine is told, and the times of its parts.

use std::collections::{BTreeMap, BTreeSet};

use spinnaker_machine::{ChipXy, VirtualLocator};

use crate::Timing;
use crate::chip::BoardAddress;

/// How an instruction-level machine is simulated.
#[derive(Debug, Clone, PartialEq)]
pub struct CycleConfig {
    /// Host threads. Results do not depend on it.
    pub threads: usize,
    /// Rounds of the simulation with at least so many chips and cores at work are shared among threads: handing over less
    /// costs more than it saves. Results do not depend on it.
    pub hand_off_cores: usize,
    /// Wakes of cores that do nothing but count are put off and made at once (`chip/rest.rs`). Results do not depend on it.
    pub rests: bool,
    /// Seed of everything random: which core of a chip becomes monitor, which one does not work where one is missing.
    pub seed: u64,
    /// Times of network, DMA and SDRAM, those of the fidelity `fast`.
    pub timing: Timing,
    /// Times that only this fidelity has.
    pub cycle_timing: CycleTiming,
    /// Monitor cores (physical numbers) of some chips instead of what the seed gives.
    pub monitors: BTreeMap<ChipXy, u8>,
    /// Cores (physical numbers) that do not work. Where a chip of the machine lacks more cores, the seed says which others.
    pub dead_cores: BTreeSet<(ChipXy, u8)>,
    /// Addresses of the boards by Ethernet chip; those without have [`default_address`].
    pub addresses: BTreeMap<ChipXy, BoardAddress>,
    /// Hardware version in the serial ROMs: 3 for SpiNN-3, 5 for SpiNN-5. `None`: 3 for a machine of up to 4 chips.
    pub hardware_version: Option<u8>,
    /// Packets in 65,536 that a link turns a bit of. (Such a packet goes to the error registers of the next router.)
    pub parity_errors_per_65536: u16,
    /// Multicast packets in 65,536 that are lost on a link, in the same way; not those by which monitors pass on signals, which nobody
    /// would repeat.
    pub packet_losses_per_65536: u16,
    /// Frames in 65,536 that are lost between host and board, each way.
    pub host_losses_per_65536: u16,
}

impl From<&VirtualLocator> for CycleConfig {
    /// What a locator says: dead cores by their physical numbers; as many threads as the host has processors where it says nothing. A packet that is to be lost
    /// on a link has a bit turned: the next router drops it.
    fn from(locator: &VirtualLocator) -> Self {
        let processors = || std::thread::available_parallelism().map_or(1, usize::from);
        let of_65536 = |probability: f64| (probability.clamp(0.0, 1.0) * 65_536.0).min(65_535.0) as u16;
        Self {
            threads: locator.threads.unwrap_or_else(processors),
            seed: locator.seed,
            dead_cores: locator.dead_cores.iter().copied().collect(),
            packet_losses_per_65536: of_65536(locator.drop_probability),
            host_losses_per_65536: of_65536(locator.host_drop_probability),
            ..Self::default()
        }
    }
}

impl Default for CycleConfig {
    fn default() -> Self {
        Self {
            threads: 1,
            hand_off_cores: 40,
            rests: true,
            seed: 0,
            timing: Timing::default(),
            cycle_timing: CycleTiming::default(),
            monitors: BTreeMap::new(),
            dead_cores: BTreeSet::new(),
            addresses: BTreeMap::new(),
            hardware_version: None,
            parity_errors_per_65536: 0,
            packet_losses_per_65536: 0,
            host_losses_per_65536: 0,
        }
    }
}

/// Address of the board with number `board` (0 is the one that the host boots): 192.168.240.253 for the first, as boards
/// come from the factory, and 192.168.240.1, 192.168.240.2, ... for the others.
pub fn default_address(board: usize) -> BoardAddress {
    let (third, fourth) = match board {
        0 => (240, 253),
        n => ((240 + n / 250).min(255) as u8, (n % 250 + n / 250).min(252) as u8),
    };
    BoardAddress {
        mac: [0x00, 0x00, 0xA4, 0x00, (board >> 8) as u8 ^ 0x3E, board as u8 ^ 0x0E],
        ip: [192, 168, third, fourth].into(),
        gateway: [192, 168, 240, 254].into(),
        mask: [255, 255, 0, 0].into(),
        port: 17893,
    }
}

/// Times of a core's accesses and of the boot ROM. What is not published is from memory and named so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CycleTiming {
    /// Core cycles that a load from timer, VIC, communications or DMA controller waits (arm968.md 12: 4 to 6; from memory).
    pub local_read_cycles: u32,
    /// The same for an unbuffered store (3 to 4; from memory). A buffered one waits for nothing.
    pub local_write_cycles: u32,
    /// A load from SDRAM, ns: "over 100 ns" (workshop slides, S. Temple 2015).
    pub sdram_read_ns: u32,
    /// Each further word of a load of several, ns (3 to 4 cycles; from memory).
    pub burst_word_ns: u32,
    /// A load from system RAM, system controller or router, ns (15 to 20 cycles; from memory).
    pub noc_read_ns: u32,
    /// A load from the Ethernet controller, ns (20 to 25 cycles; from memory).
    pub ethernet_read_ns: u32,
    /// For how long a buffered store keeps the bridge busy, ns (10 to 15 cycles; from memory).
    pub bridge_write_ns: u32,
    /// Cycles of a buffered store that finds the bridge idle (1 to 2 in all; from memory).
    pub buffered_write_cycles: u32,
    /// Peek or poke in the neighbour's router beside the access itself, ns (a peek takes about 1 us; estimate).
    pub direct_ns: u32,
    /// Packets that the buffers of both ends of a link hold (published timing model: two at each end).
    pub link_packets: u32,
    /// Cores of a chip that run at once take turns of at most so many ns.
    pub quantum_ns: u32,
    /// Boot ROM: from power on to waiting for an image, ns ("well under a second"; estimate).
    pub rom_start_ns: u64,
    /// Boot ROM: to take a nearest-neighbour packet, ns (estimate: an interrupt of about 150 cycles of 160 MHz).
    pub rom_packet_ns: u64,
    /// Boot ROM: to check a block by DMA, ns (estimate: 257 words at 15 ns and set-up).
    pub rom_block_ns: u64,
    /// Boot ROM: to take an Ethernet frame, ns (estimate; boot blocks are accepted about one each millisecond).
    pub rom_frame_ns: u64,
    /// Boot ROM: between two HELLO messages, ns (ROM source: 4,096 ms).
    pub rom_hello_ns: u64,
    /// Boot ROM: between two changes of the LED, ns (ROM source: 1,024 ms).
    pub rom_led_ns: u64,
}

impl Default for CycleTiming {
    fn default() -> Self {
        Self {
            local_read_cycles: 5,
            local_write_cycles: 3,
            sdram_read_ns: 110,
            burst_word_ns: 18,
            noc_read_ns: 85,
            ethernet_read_ns: 110,
            bridge_write_ns: 60,
            buffered_write_cycles: 1,
            direct_ns: 100,
            link_packets: 4,
            quantum_ns: 1000,
            rom_start_ns: 100_000_000,
            rom_packet_ns: 1000,
            rom_block_ns: 5000,
            rom_frame_ns: 100_000,
            rom_hello_ns: 4_096_000_000,
            rom_led_ns: 1_024_000_000,
        }
    }
}
