//! The event loop. What the events do is in the modules below: `host`, `cores`, `dma`, `network`; `direct` is for the emulated
//! monitors, which take machine time of their own.

mod cores;
mod direct;
mod dma;
mod host;
mod network;

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;

use spinnaker_machine::{ChipXy, Link, Machine};

use crate::core::{CoreCell, CoreHandle, CoreState, PROGRAM_COUNTERS, Request, Transfer, wait};
use crate::memory::{Memories, Op};
use crate::packet::Train;
use crate::queue::EventQueue;
use crate::router::{LinkState, Router, Table};
use crate::sdram::Sharing;
use crate::{SimConfig, SimError};

/// A core's program: called once with the core, gives the future that is the program.
pub type Program = Box<dyn FnOnce(CoreHandle) -> Pin<Box<dyn Future<Output = ()>>>>;

/// Number of a background transfer of the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TransferId(u32);

/// Why a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunEnd {
    /// Every core with a program is ready again, or has come to its end.
    AllReady,
    /// The host found that a core had failed or died.
    CoreFailed,
    /// The time was over.
    LimitReached,
    /// Nothing can happen any more: every running core waits for something that will not come.
    Stalled,
}

/// A core that needs attention.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CoreReport {
    /// Its chip.
    pub chip: ChipXy,
    /// Its number.
    pub core: u8,
    /// Its state.
    pub state: CoreState,
    /// What it waits for, if it runs.
    pub waits_for: String,
    /// Its text.
    pub log: String,
}

impl std::fmt::Display for CoreReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "chip {} core {}: {}", self.chip, self.core, self.state)?;
        if !self.waits_for.is_empty() {
            write!(f, ", waits for {}", self.waits_for)?;
        }
        self.log.lines().last().map_or(Ok(()), |line| write!(f, "; last text: {line}"))
    }
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunOutcome {
    /// Why.
    pub end: RunEnd,
    /// Machine time of the run, ns.
    pub time_ns: u64,
    /// Cores in error ([`RunEnd::CoreFailed`]), or not ready (limit, stalled).
    pub cores: Vec<CoreReport>,
}

/// What happened since the simulator was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Multicast packets that cores sent.
    pub packets_sent: u64,
    /// Packets that cores received (one for each receiver).
    pub packets_delivered: u64,
    /// Lost on a link by the configured probability.
    pub dropped_on_link: u64,
    /// Given up by a router because the way on was blocked.
    pub dropped_blocked: u64,
    /// Routed to a link that leads nowhere.
    pub dropped_dead_link: u64,
    /// No entry for a core's own packet.
    pub dropped_no_route: u64,
    /// Routed to a core that does not take packets: none there, no program, dead, or its queue is full.
    pub dropped_at_core: u64,
    /// Bits that routers forwarded.
    pub routed_bits: u64,
    /// Bytes between SDRAM and DTCM.
    pub dma_bytes: u64,
    /// Bytes of payload between host and machine.
    pub host_bytes: u64,
    /// Packets between host and machine that had to be sent again.
    pub host_resent: u64,
    /// Time in which processors were active, summed over cores, ns.
    pub busy_ns: u64,
    /// Programs' own counters, summed over cores.
    pub program: [u64; PROGRAM_COUNTERS],
    /// Events of the simulation.
    pub events: u64,
}

impl Counters {
    /// Packets lost for any reason.
    pub fn packets_dropped(&self) -> u64 {
        self.dropped_on_link
            + self.dropped_blocked
            + self.dropped_dead_link
            + self.dropped_no_route
            + self.dropped_at_core
    }
}

/// Energy and the model that it comes from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Energy {
    /// Joules since the machine started.
    pub joules: f64,
    /// The model in words.
    pub model: &'static str,
}

mod kind {
    pub const CORE: u8 = 0;
    pub const DMA: u8 = 1;
    pub const SEND: u8 = 2;
    pub const HOP: u8 = 3;
    pub const DELIVER: u8 = 4;
    pub const START: u8 = 5;
    pub const HOST: u8 = 6;
    pub const KILL: u8 = 7;
}

/// A transfer in the DMA controller.
struct Queued {
    transfer: Transfer,
    time_ns: u64,
    /// Hardware transfers of it that have ended.
    rows_ended: u64,
}

/// What the simulator alone knows of a core.
#[repr(C)]
struct CoreSim {
    /// Time of the earliest of its timer events in the queue; `u64::MAX` for none.
    timer_ns: u64,
    /// Time of one that comes after it: it serves when the earlier one is over, instead of another.
    later_ns: u64,
    cell: Rc<CoreCell>,
    program: Option<Pin<Box<dyn Future<Output = ()>>>>,
    /// When it has received what fills its time.
    receive_free_ns: u64,
    /// When it would have received all packets that are on their way into it, one at once after the other.
    receive_work_ns: u64,
    chip: u32,
    /// The transfer that the DMA controller works on, and the one that waits.
    active: Option<Queued>,
    waiting: Option<Queued>,
    /// When the controller was given the row that begins next, if its transfer was there; and when the handler of the last row's end is over.
    row_given_ns: u64,
    row_handled_ns: u64,
}

struct ChipSim {
    xy: ChipXy,
    /// Cores with a program by number; `u32::MAX` for none.
    cores: [u32; 18],
    sharing: Sharing,
    router: Router,
    /// Which host link serves it.
    board: u32,
    /// Hops from its Ethernet chip.
    ethernet_hops: u64,
}

struct HostTransfer {
    chip: u32,
    word: usize,
    words: Vec<u32>,
    done: bool,
}

/// A send so little ahead of its core's event is put in the network at once, with its own time: it saves an event, and
/// the order in which a link sees packets is off by less than this.
const SEND_AHEAD_NS: u64 = 1000;
/// Tries of a packet between host and machine.
const HOST_TRIES_MAX: u32 = 20;
/// Bytes of payload of a packet between host and machine.
const HOST_PACKET_BYTES: usize = 256;

const ENERGY_MODEL: &str = "idle boards (SpiNN-5: 26.84 W, SpiNN-3: 3.56 W) + 0.034 W for each active core \
     + 25 pJ for each bit routed";

/// A virtual machine of fidelity `fast`.
///
/// Everything that happens is an event with a time; events are handled one after the other in the order of their times, so a run
/// depends on nothing but the machine, the configuration and the programs. Other host threads only execute compute jobs and copies,
/// whose times are known beforehand.
///
/// ```
/// use spinnaker_machine::{ChipXy, Machine, SDRAM_USER_BASE};
/// use spinnaker_sim::{Direction, RunEnd, SimConfig, Simulator, Transfer};
///
/// let mut sim = Simulator::new(Machine::spin3(), SimConfig::default());
/// let chip = ChipXy::new(0, 1);
/// sim.write_sdram(chip, SDRAM_USER_BASE, &[1, 2, 3, 4])?;
/// sim.load_program(chip, 1, Box::new(|core| Box::pin(async move {
///     let row = Transfer {
///         direction: Direction::In, sdram: SDRAM_USER_BASE, dtcm: 0,
///         row_bytes: 16, rows: 1, sdram_stride: 16, dtcm_stride: 16, tag: 0,
///     };
///     core.wait_start().await;
///     core.dma(row).await;
///     core.dma_done(0).await;
///     core.compute(1000, |dtcm| dtcm[..4].iter_mut().for_each(|word| *word *= 10)).await;
///     core.dma(Transfer { direction: Direction::Out, ..row }).await;
///     core.dma_done(0).await;
/// })))?;
/// sim.run(1_000_000_000)?;
/// sim.start_all();
/// let outcome = sim.run(1_000_000_000)?;
/// assert_eq!(outcome.end, RunEnd::AllReady);
/// assert_eq!(sim.read_sdram(chip, SDRAM_USER_BASE, 4)?, [10, 20, 30, 40]);
/// # Ok::<(), spinnaker_sim::SimError>(())
/// ```
pub struct Simulator {
    machine: Machine,
    config: SimConfig,
    now_ns: u64,
    queue: EventQueue,
    chips: Vec<ChipSim>,
    chip_index: BTreeMap<ChipXy, u32>,
    cores: Vec<CoreSim>,
    core_index: BTreeMap<(ChipXy, u8), u32>,
    /// Cores that died under an earlier program.
    lost_cores: BTreeSet<(ChipXy, u8)>,
    trains: Vec<Train>,
    trains_free: Vec<u32>,
    /// Per board: when the host's link to it is free.
    host_free_ns: Vec<u64>,
    host_transfers: Vec<HostTransfer>,
    /// Background transfers under way.
    host_pending: usize,
    host_packets: u64,
    /// SDRAM and DTCM of all chips. Made all at once, so that they do not lie between the small states of the cores: those
    /// then share pages and caches of the host.
    memories: Rc<Memories>,
    counters: Counters,
    digest: u64,
    /// Cores that run.
    running: usize,
    /// When the last core became ready or came to its end.
    ready_ns: u64,
    /// When the first core failed of whose failure the host does not know.
    failed_ns: Option<u64>,
    /// Packets are lost when their draw is below this (of 2^64).
    drop_below: u64,
    // Buffers for use within one event.
    finished: Vec<u32>,
    requests: Vec<Request>,
    /// Deliveries of packets that are at a router: time, packets, cores.
    groups: Vec<(u64, u32, u32)>,
}

/// A stage of SplitMix64: spreads the bits of a number over all of its result.
fn mix(x: u64) -> u64 {
    let x = (x ^ x >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let x = (x ^ x >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ x >> 31
}

/// Threshold of a draw of 64 bits for a probability.
fn threshold(probability: f64) -> u64 {
    (probability.clamp(0.0, 1.0) * 2f64.powi(64)) as u64
}

/// Whether the draw with a number is below a probability.
pub(crate) fn draws_below(seed: u64, number: u64, probability: f64) -> bool {
    let below = threshold(probability);
    below > 0 && mix(seed.wrapping_add(mix(number.wrapping_add(0x9E37_79B9_7F4A_7C15)))) < below
}

/// Numbers of the bits that are set, ascending.
fn bits(mut set: u32) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let bit = (set != 0).then(|| set.trailing_zeros() as usize)?;
        set &= set - 1;
        Some(bit)
    })
}

impl Simulator {
    /// A machine that has just started: no programs, empty tables, SDRAM all zero.
    pub fn new(machine: Machine, config: SimConfig) -> Self {
        let timing = config.timing;
        let chip_index: BTreeMap<ChipXy, u32> = machine.chips.keys().copied().zip(0..).collect();
        let mut boards: BTreeMap<ChipXy, u32> = BTreeMap::new();
        let chips = machine
            .chips
            .iter()
            .map(|(&xy, chip)| {
                let links = Link::ALL.map(|link| {
                    let slow = machine.crosses_boards(xy, link);
                    LinkState {
                        to: machine.neighbour(xy, link).and_then(|to| chip_index.get(&to).copied()),
                        free_ns: 0,
                        filled_ns: 0,
                        blocked_ns: 0,
                        packets: 0,
                        short_ns: if slow { timing.board_link_short_ns } else { timing.link_short_ns },
                        long_ns: if slow { timing.board_link_long_ns } else { timing.link_long_ns },
                    }
                });
                let next = boards.len() as u32;
                ChipSim {
                    xy,
                    cores: [u32::MAX; 18],
                    sharing: Sharing::new(),
                    router: Router { table: Table::new(), links, work_half_ns: 0, stalled_ns: 0, routed: [0; 2] },
                    board: *boards.entry(chip.nearest_ethernet).or_insert(next),
                    ethernet_hops: u64::from(machine.distance(chip.nearest_ethernet, xy)),
                }
            })
            .collect();
        let workers = config.threads.saturating_sub(1);
        let cores: Vec<usize> = machine.chips.values().map(|chip| chip.cores.len()).collect();
        Self {
            memories: Rc::new(Memories::new(&cores, workers, config.hand_off_cycles)),
            drop_below: threshold(config.drop_probability),
            host_free_ns: vec![0; boards.len()],
            machine,
            config,
            now_ns: 0,
            queue: EventQueue::new(),
            chips,
            chip_index,
            cores: Vec::new(),
            core_index: BTreeMap::new(),
            lost_cores: BTreeSet::new(),
            trains: Vec::new(),
            trains_free: Vec::new(),
            host_transfers: Vec::new(),
            host_pending: 0,
            host_packets: 0,
            counters: Counters::default(),
            digest: 0,
            running: 0,
            ready_ns: 0,
            failed_ns: None,
            finished: Vec::new(),
            requests: Vec::new(),
            groups: Vec::new(),
        }
    }

    /// The machine.
    pub fn machine(&self) -> &Machine {
        &self.machine
    }

    /// How it is simulated.
    pub fn config(&self) -> &SimConfig {
        &self.config
    }

    /// Machine time since the start, ns.
    pub fn now_ns(&self) -> u64 {
        self.now_ns
    }

    fn chip(&self, xy: ChipXy) -> Result<u32, SimError> {
        self.chip_index.get(&xy).copied().ok_or(SimError::NoChip(xy))
    }

    fn core(&self, xy: ChipXy, core: u8) -> Result<u32, SimError> {
        self.core_index.get(&(xy, core)).copied().ok_or(SimError::NoCore(xy, core))
    }

    /// Runs until every core with a program is ready again or has ended, or a failure is found, or `limit_ns` are over.
    ///
    /// A core that is ready tells the host by a message; the host asks for the states of all cores once in
    /// [`Timing::host_poll_ns`](crate::Timing::host_poll_ns), so a failure is found at the next such time.
    ///
    /// # Errors
    /// None at present; what the host link could not do would be one.
    pub fn run(&mut self, limit_ns: u64) -> Result<RunOutcome, SimError> {
        let start_ns = self.now_ns;
        let limit_ns = start_ns.saturating_add(limit_ns);
        let message_ns = self.config.timing.host_round_trip_ns / 2;
        let end = loop {
            let found_ns = self.failed_ns.map(|failed_ns| {
                let poll = self.config.timing.host_poll_ns.max(1);
                start_ns + (failed_ns.saturating_sub(start_ns) / poll + 1) * poll + message_ns
            });
            let (stop_ns, end) = match found_ns {
                Some(found_ns) if found_ns <= limit_ns => (found_ns, RunEnd::CoreFailed),
                None if self.running == 0 => {
                    let heard_ns = (self.ready_ns + message_ns).max(start_ns);
                    if heard_ns <= limit_ns { (heard_ns, RunEnd::AllReady) } else { (limit_ns, RunEnd::LimitReached) }
                }
                _ => (limit_ns, RunEnd::LimitReached),
            };
            match self.queue.peek_ns() {
                Some(time_ns) if time_ns <= stop_ns => {
                    self.step();
                }
                None if end == RunEnd::LimitReached => break RunEnd::Stalled,
                _ => {
                    self.now_ns = self.now_ns.max(stop_ns);
                    break end;
                }
            }
        };
        let wanted = |state: CoreState| match end {
            RunEnd::AllReady => false,
            RunEnd::CoreFailed => matches!(state, CoreState::Failed { .. } | CoreState::Dead),
            RunEnd::LimitReached | RunEnd::Stalled => state == CoreState::Running,
        };
        let mut cores: Vec<CoreReport> = self.cores.iter().map(report).filter(|report| wanted(report.state)).collect();
        cores.sort_by_key(|report| (report.chip, report.core));
        Ok(RunOutcome { end, time_ns: self.now_ns - start_ns, cores })
    }

    /// Handles all events up to a time, and lets it be that time.
    fn advance(&mut self, to_ns: u64) {
        while self.queue.peek_ns().is_some_and(|time_ns| time_ns <= to_ns) {
            self.step();
        }
        self.now_ns = self.now_ns.max(to_ns);
    }

    /// Handles the next event; false if there is none.
    fn step(&mut self) -> bool {
        let Some(event) = self.queue.pop() else { return false };
        debug_assert!(event.time_ns >= self.now_ns, "time goes on");
        self.now_ns = event.time_ns;
        match event.kind() {
            kind::CORE => self.core_timer(event.data),
            kind::DMA => self.dma_timer(event.data),
            kind::SEND => {
                let train = self.take_train(event.data);
                self.inject(train);
            }
            kind::HOP => {
                let train = self.take_train(event.data);
                self.route(train);
            }
            kind::DELIVER => {
                let train = self.take_train(event.data);
                self.deliver(train);
            }
            kind::START => self.start(event.data),
            kind::HOST => {
                let transfer = &mut self.host_transfers[event.data as usize];
                transfer.done = true;
                self.host_pending -= 1;
                let words = std::mem::take(&mut transfer.words);
                self.memories.note(transfer.chip, 0, Op::Host(transfer.word, words), 0);
            }
            kind::KILL => self.kill(event.data),
            _ => {}
        }
        true
    }

    fn note(&mut self, what: u64) {
        self.digest = (self.digest.rotate_left(5) ^ what ^ self.now_ns << 20).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }
}

fn report(core: &CoreSim) -> CoreReport {
    let inner = core.cell.inner.borrow();
    let mut waits = Vec::new();
    if matches!(inner.state, CoreState::Running) {
        for (bit, name) in [
            (wait::DMA, "DMA"),
            (wait::PACKET, "a packet"),
            (wait::START, "the start signal"),
            (wait::SEND, "its send"),
        ] {
            if inner.waits & bit != 0 {
                waits.push(name.to_owned());
            }
        }
        if inner.wake_ns != u64::MAX {
            waits.push(format!("{} ns", inner.wake_ns));
        }
    }
    CoreReport {
        chip: core.cell.chip,
        core: core.cell.core,
        state: inner.state,
        waits_for: waits.join(" or "),
        log: inner.log.clone(),
    }
}

impl Drop for Simulator {
    fn drop(&mut self) {
        // Programs hold handles to their cores; they go first. The memories' threads stop when the last cell is gone.
        self.cores.clear();
    }
}
