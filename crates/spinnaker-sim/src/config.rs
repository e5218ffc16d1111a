//! What a simulation is told, and the times that things take.

use spinnaker_machine::VirtualLocator;

/// How a machine is simulated.
#[derive(Debug, Clone, PartialEq)]
pub struct SimConfig {
    /// Host threads that execute compute jobs and copies, this one included. Results do not depend on it.
    pub threads: usize,
    /// Compute jobs and copies of a chip are given to another thread by parcels of at least so many cycles of jobs, since
    /// giving costs host time, too. Results do not depend on it.
    pub hand_off_cycles: u64,
    /// Seed of everything random (which packets are lost).
    pub seed: u64,
    /// Probability that a multicast packet is lost on a link between chips.
    pub drop_probability: f64,
    /// Probability that a packet between host and machine is lost.
    pub host_drop_probability: f64,
    /// Rate of the host's Ethernet link in Mbit/s; the boards' monitors keep up in proportion.
    pub host_mbps: f64,
    /// Packets that may wait in a core's receive queue; with more waiting, the core leaves packets in the network.
    pub receive_queue_packets: usize,
    /// Times of the hardware.
    pub timing: Timing,
}

impl Default for SimConfig {
    fn default() -> Self {
        Self {
            threads: 1,
            hand_off_cycles: 100_000,
            seed: 0,
            drop_probability: 0.0,
            host_drop_probability: 0.0,
            host_mbps: 100.0,
            receive_queue_packets: 2048,
            timing: Timing::default(),
        }
    }
}

impl From<&VirtualLocator> for SimConfig {
    /// What a locator says; as many threads as the host has processors where it says nothing.
    fn from(locator: &VirtualLocator) -> Self {
        let processors = || std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            threads: locator.threads.unwrap_or_else(processors),
            seed: locator.seed,
            drop_probability: locator.drop_probability,
            host_drop_probability: locator.host_drop_probability,
            host_mbps: locator.host_mbps,
            ..Self::default()
        }
    }
}

/// Nanoseconds of a core clock cycle (200 MHz).
pub const CYCLE_NS: u64 = 5;

/// Times of the hardware. Where measured figures differ from the data sheet, the measured ones are the defaults.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// Fixed latency of each hardware DMA transfer, ns. (A transfer takes 0.15 to 0.25 us + 15 ns a word alone:
    /// fits the published planning figures.)
    pub dma_setup_ns: u64,
    /// One DMA engine alone, quarter nanoseconds a word. 60: 15 ns, 267 MB/s (workshop slides, S. Temple 2015).
    pub dma_word_quarter_ns: u64,
    /// All engines of a chip together, quarter nanoseconds a word. 25: 6.25 ns, 640 MB/s (planning figure of
    /// application writers).
    pub sdram_word_quarter_ns: u64,
    /// The same for what goes to SDRAM. 36: 444 MB/s ("about 400 to 500"; from memory).
    pub sdram_write_word_quarter_ns: u64,
    /// Processor cycles to submit a hardware transfer: three buffered register writes and their operands.
    pub dma_submit_cycles: u64,
    /// Processor cycles of the interrupt that ends a hardware transfer: entry 13 and a short handler, which submits the next row but one of a
    /// transfer of several.
    pub dma_interrupt_cycles: u64,
    /// Processor cycles until a core that waited goes on after that interrupt.
    pub dma_wake_cycles: u64,
    /// Processor cycles to send a packet: wait for the register, write payload and key (10 to 20).
    pub send_cycles: u64,
    /// Processor cycles to receive a packet in the interrupt: 200 ns is the low end of the published 200 to 1,000 ns.
    pub receive_cycles: u64,
    /// Serialisation of a packet without payload between a core and the router, ns: 5 bytes of 8 bits a cycle.
    pub core_short_ns: u64,
    /// The same with payload, ns: 9 bytes.
    pub core_long_ns: u64,
    /// Arbiter tree and router pipeline, ns: about 0.1 us.
    pub router_ns: u64,
    /// Router cycle, half nanoseconds: 15 is 7.5 ns (133 MHz), one packet a cycle.
    pub router_cycle_half_ns: u64,
    /// How long a packet blocks the router before it is dropped, ns: wait1 = 240 router cycles, as the system sets it.
    pub router_wait_ns: u64,
    /// Packet without payload over a link of a board, ns: 139 is the measured 7.2 million packets/s.
    pub link_short_ns: u64,
    /// The same with payload, ns: 72/40 of it.
    pub link_long_ns: u64,
    /// Packet without payload over a link between boards, ns: 357 is the measured 2.8 million packets/s.
    pub board_link_short_ns: u64,
    /// The same with payload, ns.
    pub board_link_long_ns: u64,
    /// Packets that the buffers of a link and its router hold.
    pub link_buffer_packets: u64,
    /// A 256-byte write from the host on a 100 Mbit/s wire, ns: 348 byte times.
    pub host_write_packet_ns: u64,
    /// A 256-byte read, ns: 40 Mbit/s, the published rate of the fast data-out protocol from any chip.
    pub host_read_packet_ns: u64,
    /// Round trip of a command, ns (0.1 to 0.3 ms).
    pub host_round_trip_ns: u64,
    /// Wait of the host before it sends a lost packet again, ns.
    pub host_retry_ns: u64,
    /// Period at which the host asks for the states of cores during a run, ns.
    pub host_poll_ns: u64,
    /// Delay of a signal from chip to chip, ns (what the system software reckons with).
    pub signal_hop_ns: u64,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            dma_setup_ns: 200,
            dma_word_quarter_ns: 60,
            sdram_word_quarter_ns: 25,
            sdram_write_word_quarter_ns: 36,
            dma_submit_cycles: 8,
            dma_interrupt_cycles: 25,
            dma_wake_cycles: 0,
            send_cycles: 15,
            receive_cycles: 40,
            core_short_ns: 25,
            core_long_ns: 45,
            router_ns: 100,
            router_cycle_half_ns: 15,
            router_wait_ns: 1800,
            link_short_ns: 139,
            link_long_ns: 250,
            board_link_short_ns: 357,
            board_link_long_ns: 643,
            link_buffer_packets: 2,
            host_write_packet_ns: 27_840,
            host_read_packet_ns: 51_200,
            host_round_trip_ns: 200_000,
            host_retry_ns: 10_000_000,
            host_poll_ns: 10_000_000,
            signal_hop_ns: 500,
        }
    }
}
