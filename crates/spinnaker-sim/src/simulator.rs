//! The event loop: cores, DMA, routers, the host link.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Waker};

use spinnaker_machine::{ChipXy, Link, Machine, ROUTING_ENTRIES_MAX, RoutingEntry};

use crate::core::{CoreCell, CoreHandle, CoreState, Costs, Direction, PROGRAM_COUNTERS, Request, Transfer, wait};
use crate::packet::{Arrival, LOCAL, Train, Words};
use crate::pool::Pool;
use crate::queue::EventQueue;
use crate::router::{LinkState, Router, Table};
use crate::sdram::{Sdram, Sharing, sdram_word};
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
    words: Vec<u32>,
}

/// What the simulator alone knows of a core.
#[repr(C)]
struct CoreSim {
    /// Time for which a timer event is in the queue.
    timer_ns: u64,
    cell: Rc<CoreCell>,
    program: Option<Pin<Box<dyn Future<Output = ()>>>>,
    /// When it has received all packets that are on their way into it.
    receive_free_ns: u64,
    chip: u32,
    /// The transfer that the DMA controller works on, and the one that waits.
    active: Option<Queued>,
    waiting: Option<Queued>,
}

struct ChipSim {
    xy: ChipXy,
    /// Cores with a program by number; `u32::MAX` for none.
    cores: [u32; 18],
    sdram: Sdram,
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
/// depends on nothing but the machine, the configuration and the programs. Other host threads only execute compute jobs,
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
    trains: Vec<Train>,
    trains_free: Vec<u32>,
    /// Per board: when the host's link to it is free.
    host_free_ns: Vec<u64>,
    host_transfers: Vec<HostTransfer>,
    host_packets: u64,
    pool: Option<Rc<Pool>>,
    /// Memories of cores that have no program yet. Made all at once, so that they do not lie between the small states
    /// of the cores: those then share pages and caches of the host.
    dtcms: Vec<Box<[u32]>>,
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
                    sdram: Sdram::new(),
                    sharing: Sharing::new(),
                    router: Router { table: Table::new(), links, work_half_ns: 0, stalled_ns: 0 },
                    board: *boards.entry(chip.nearest_ethernet).or_insert(next),
                    ethernet_hops: u64::from(machine.distance(chip.nearest_ethernet, xy)),
                }
            })
            .collect();
        let workers = config.threads.saturating_sub(1);
        let core_count = machine.core_count();
        Self {
            pool: (workers > 0).then(|| Rc::new(Pool::new(core_count, workers))),
            dtcms: (0..core_count).map(|_| vec![0; crate::DTCM_BYTES as usize / 4].into_boxed_slice()).collect(),
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
            trains: Vec::new(),
            trains_free: Vec::new(),
            host_transfers: Vec::new(),
            host_packets: 0,
            counters: Counters::default(),
            digest: 0,
            running: 0,
            ready_ns: 0,
            failed_ns: None,
            finished: Vec::new(),
            requests: Vec::new(),
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

    // ---- the host ----

    /// Books the host's link to a chip for a transfer; says when it is over. Packets follow each other on the wire, the
    /// round trip of the last counts once; a lost packet is sent again after the host's wait, lost ones of
    /// one round together.
    fn book(&mut self, chip: u32, bytes: usize, packet_ns: u64) -> Result<u64, SimError> {
        let timing = self.config.timing;
        let packets = bytes.div_ceil(HOST_PACKET_BYTES).max(1) as u64;
        let scaled = |ns: u64| (ns as f64 * 100.0 / self.config.host_mbps) as u64;
        let mut time_ns = packets * scaled(packet_ns) + timing.host_round_trip_ns;
        let below = threshold(self.config.host_drop_probability);
        if below > 0 {
            let mut left = packets;
            let mut tries = 0;
            while left > 0 {
                let first = self.host_packets;
                self.host_packets += left;
                let seed = self.config.seed ^ 0x686F_7374;
                let draw = |number: u64| mix(seed.wrapping_add(mix(number.wrapping_add(0x9E37_79B9_7F4A_7C15))));
                left = (first..self.host_packets).filter(|&number| draw(number) < below).count() as u64;
                if left > 0 {
                    tries += 1;
                    if tries == HOST_TRIES_MAX {
                        return Err(SimError::HostTimeout(self.chips[chip as usize].xy, tries));
                    }
                    self.counters.host_resent += left;
                    time_ns += timing.host_retry_ns + left * scaled(packet_ns);
                }
            }
        }
        let free_ns = &mut self.host_free_ns[self.chips[chip as usize].board as usize];
        let end_ns = self.now_ns.max(*free_ns) + time_ns;
        // The wire is free for others while the last answer is under way.
        *free_ns = end_ns - timing.host_round_trip_ns;
        self.counters.host_bytes += bytes as u64;
        Ok(end_ns)
    }

    fn address(&self, chip: u32, address: u32, words: usize) -> Result<usize, SimError> {
        let xy = self.chips[chip as usize].xy;
        sdram_word(address, words).ok_or(SimError::Address { chip: xy, address, words })
    }

    /// Writes to a chip's SDRAM through the host link and waits for the end; the machine goes on meanwhile. Addresses are those of a
    /// core (from `0x6000_0000` on).
    ///
    /// # Errors
    /// [`SimError::NoChip`], [`SimError::Address`], [`SimError::HostTimeout`].
    pub fn write_sdram(&mut self, chip: ChipXy, address: u32, words: &[u32]) -> Result<(), SimError> {
        let chip = self.chip(chip)?;
        let word = self.address(chip, address, words.len())?;
        let end_ns = self.book(chip, words.len() * 4, self.config.timing.host_write_packet_ns)?;
        self.advance(end_ns);
        self.chips[chip as usize].sdram.write(word, words);
        Ok(())
    }

    /// Reads a chip's SDRAM through the host link; the machine goes on meanwhile.
    ///
    /// # Errors
    /// [`SimError::NoChip`], [`SimError::Address`], [`SimError::HostTimeout`].
    pub fn read_sdram(&mut self, chip: ChipXy, address: u32, words: usize) -> Result<Vec<u32>, SimError> {
        let chip = self.chip(chip)?;
        let word = self.address(chip, address, words)?;
        let end_ns = self.book(chip, words * 4, self.config.timing.host_read_packet_ns)?;
        self.advance(end_ns);
        let mut out = vec![0; words];
        self.chips[chip as usize].sdram.read(word, &mut out);
        Ok(out)
    }

    /// Begins a write that goes on while the machine runs. It follows what the link to the chip's board has to do already;
    /// the content appears at its end.
    ///
    /// # Errors
    /// [`SimError::NoChip`], [`SimError::Address`], [`SimError::HostTimeout`].
    pub fn queue_write(&mut self, chip: ChipXy, address: u32, words: Vec<u32>) -> Result<TransferId, SimError> {
        let chip = self.chip(chip)?;
        let word = self.address(chip, address, words.len())?;
        let end_ns = self.book(chip, words.len() * 4, self.config.timing.host_write_packet_ns)?;
        let id = self.host_transfers.len() as u32;
        self.host_transfers.push(HostTransfer { chip, word, words, done: false });
        self.queue.push(end_ns, kind::HOST, id);
        Ok(TransferId(id))
    }

    /// Whether a background transfer is over.
    pub fn transfer_done(&self, id: TransferId) -> bool {
        self.host_transfers.get(id.0 as usize).is_some_and(|transfer| transfer.done)
    }

    /// Whether all background transfers are over.
    pub fn transfers_done(&self) -> bool {
        self.host_transfers.iter().all(|transfer| transfer.done)
    }

    /// Waits for the end of all background transfers; the machine goes on meanwhile.
    pub fn wait_transfers(&mut self) {
        while !self.transfers_done() && self.step() {}
    }

    /// Lets machine time pass.
    pub fn pass_ns(&mut self, ns: u64) {
        self.advance(self.now_ns + ns);
    }

    /// Loads a chip's routing table (written to SDRAM, then taken over by the monitor).
    ///
    /// # Errors
    /// [`SimError::NoChip`]; [`SimError::TableFull`] above [`ROUTING_ENTRIES_MAX`]; [`SimError::HostTimeout`].
    pub fn load_routes(&mut self, chip: ChipXy, entries: &[RoutingEntry]) -> Result<(), SimError> {
        let index = self.chip(chip)?;
        if entries.len() > ROUTING_ENTRIES_MAX {
            return Err(SimError::TableFull { chip, entries: entries.len(), max: ROUTING_ENTRIES_MAX });
        }
        let end_ns = self.book(index, entries.len() * 16, self.config.timing.host_write_packet_ns)?;
        self.advance(end_ns);
        self.chips[index as usize].router.table.load(entries);
        Ok(())
    }

    /// Time of loading an application's code: `bytes` are flooded over each board (all boards at once) and started.
    ///
    /// # Errors
    /// [`SimError::HostTimeout`].
    pub fn load_application(&mut self, bytes: usize) -> Result<(), SimError> {
        let mut end_ns = self.now_ns;
        for board in 0..self.host_free_ns.len() as u32 {
            if let Some(chip) = self.chips.iter().position(|chip| chip.board == board) {
                end_ns = end_ns.max(self.book(chip as u32, bytes, self.config.timing.host_write_packet_ns)?);
            }
        }
        self.advance(end_ns);
        Ok(())
    }

    /// Puts a program on a core and starts it. It runs from the next [`Simulator::run`] on; at its
    /// [`CoreHandle::wait_start`] it becomes ready. The cost of loading code is [`Simulator::load_application`].
    ///
    /// # Errors
    /// [`SimError::NoChip`], [`SimError::NoCore`], [`SimError::Loaded`].
    pub fn load_program(&mut self, chip: ChipXy, core: u8, program: Program) -> Result<(), SimError> {
        let chip_index = self.chip(chip)?;
        let works = self.machine.chips.get(&chip).is_some_and(|found| found.cores.contains(&core));
        if !works {
            return Err(SimError::NoCore(chip, core));
        }
        if self.core_index.contains_key(&(chip, core)) {
            return Err(SimError::Loaded(chip, core));
        }
        let index = self.cores.len() as u32;
        let dtcm = self.dtcms.pop().ok_or(SimError::NoCore(chip, core))?;
        let costs = Costs::new(&self.config);
        let cell = Rc::new(CoreCell::new(chip, core, index, costs, self.pool.clone(), self.now_ns, dtcm));
        let future = program(CoreHandle::new(Rc::clone(&cell)));
        self.cores.push(CoreSim {
            cell,
            program: Some(future),
            chip: chip_index,
            active: None,
            waiting: None,
            timer_ns: u64::MAX,
            receive_free_ns: 0,
        });
        self.core_index.insert((chip, core), index);
        self.chips[chip_index as usize].cores[usize::from(core)] = index;
        self.running += 1;
        self.wake_at(index, self.now_ns);
        Ok(())
    }

    /// The host's start signal to all cores that are ready: one command, flooded from chip to chip.
    pub fn start_all(&mut self) {
        let timing = self.config.timing;
        let mut any = vec![false; self.chips.len()];
        for core in &self.cores {
            let inner = &mut *core.cell.inner.borrow_mut();
            if inner.state == CoreState::Ready {
                inner.state = CoreState::Running;
                self.running += 1;
                any[core.chip as usize] = true;
            }
        }
        for (index, chip) in self.chips.iter().enumerate().filter(|(index, _)| any[*index]) {
            let time_ns = self.now_ns + timing.host_round_trip_ns / 2 + chip.ethernet_hops * timing.signal_hop_ns;
            self.queue.push(time_ns, kind::START, index as u32);
        }
    }

    /// Makes a core die without a word at a machine time.
    ///
    /// # Errors
    /// [`SimError::NoCore`] if it has no program.
    pub fn kill_core_at(&mut self, chip: ChipXy, core: u8, time_ns: u64) -> Result<(), SimError> {
        let index = self.core(chip, core)?;
        self.queue.push(time_ns.max(self.now_ns), kind::KILL, index);
        Ok(())
    }

    /// State of a core.
    ///
    /// # Errors
    /// [`SimError::NoChip`], [`SimError::NoCore`].
    pub fn core_state(&self, chip: ChipXy, core: u8) -> Result<CoreState, SimError> {
        self.chip(chip)?;
        if let Ok(index) = self.core(chip, core) {
            return Ok(self.cores[index as usize].cell.inner.borrow().state);
        }
        let works = self.machine.chips.get(&chip).is_some_and(|found| found.cores.contains(&core));
        if works { Ok(CoreState::Idle) } else { Err(SimError::NoCore(chip, core)) }
    }

    /// Text that a core's program wrote.
    ///
    /// # Errors
    /// [`SimError::NoCore`] if it has no program.
    pub fn core_log(&self, chip: ChipXy, core: u8) -> Result<String, SimError> {
        let index = self.core(chip, core)?;
        Ok(self.cores[index as usize].cell.inner.borrow().log.clone())
    }

    /// Time in which a core was active, ns.
    ///
    /// # Errors
    /// [`SimError::NoCore`] if it has no program.
    pub fn core_busy_ns(&self, chip: ChipXy, core: u8) -> Result<u64, SimError> {
        let index = self.core(chip, core)?;
        Ok(self.cores[index as usize].cell.inner.borrow().busy_ns)
    }

    /// What happened since the start.
    pub fn counters(&self) -> Counters {
        let mut counters = self.counters;
        counters.events = self.queue.pushed();
        for core in &self.cores {
            let inner = core.cell.inner.borrow();
            counters.busy_ns += inner.busy_ns;
            counters.program.iter_mut().zip(inner.counts).for_each(|(sum, count)| *sum += count);
        }
        counters
    }

    /// Energy since the start.
    pub fn energy(&self) -> Energy {
        let counters = self.counters();
        let joules = self.machine.idle_power_w * self.now_ns as f64 * 1e-9
            + 0.034 * counters.busy_ns as f64 * 1e-9
            + 25e-12 * counters.routed_bits as f64;
        Energy { joules, model: ENERGY_MODEL }
    }

    /// A number that depends on every step of every core and every packet since the start: equal for equal runs.
    pub fn digest(&self) -> u64 {
        mix(self.digest ^ self.now_ns)
    }

    /// Bytes of host memory that the machine's memories take.
    pub fn host_memory_bytes(&self) -> usize {
        let sdram: usize = self.chips.iter().map(|chip| chip.sdram.host_bytes()).sum();
        sdram + self.cores.len() * crate::DTCM_BYTES as usize
    }

    // ---- running ----

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
            RunEnd::LimitReached | RunEnd::Stalled => !matches!(state, CoreState::Ready | CoreState::Exited),
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
                let words = std::mem::take(&mut transfer.words);
                self.chips[transfer.chip as usize].sdram.write(transfer.word, &words);
            }
            kind::KILL => self.kill(event.data),
            _ => {}
        }
        true
    }

    fn note(&mut self, what: u64) {
        self.digest = (self.digest.rotate_left(5) ^ what ^ self.now_ns << 20).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }

    // ---- cores ----

    /// Makes sure that the core is looked at no later than at a time.
    fn wake_at(&mut self, core: u32, time_ns: u64) {
        let sim = &mut self.cores[core as usize];
        if time_ns < sim.timer_ns {
            sim.timer_ns = time_ns;
            self.queue.push(time_ns, kind::CORE, core);
        }
    }

    fn core_timer(&mut self, core: u32) {
        let sim = &mut self.cores[core as usize];
        if sim.timer_ns != self.now_ns {
            return;
        }
        sim.timer_ns = u64::MAX;
        let (wake_ns, first) = {
            let inner = &mut *sim.cell.inner.borrow_mut();
            let first = inner.waits == 0 && inner.wake_ns == u64::MAX;
            if inner.debt_ns > 0 && inner.wake_ns <= self.now_ns {
                // Interrupts took time from what is just over.
                inner.local_ns = inner.local_ns.max(self.now_ns) + inner.debt_ns;
                inner.debt_ns = 0;
                inner.wake_ns = inner.local_ns;
            }
            (inner.wake_ns, first)
        };
        if wake_ns <= self.now_ns || first {
            self.poll(core);
        } else if wake_ns != u64::MAX {
            self.wake_at(core, wake_ns);
        }
    }

    /// Something that the core may wait for has happened.
    fn fire(&mut self, core: u32, what: u8) {
        let free_ns = {
            let inner = &mut *self.cores[core as usize].cell.inner.borrow_mut();
            if inner.waits & what == 0 {
                return;
            }
            let free_ns = inner.local_ns + inner.debt_ns;
            if free_ns > self.now_ns {
                inner.wake_ns = inner.wake_ns.min(free_ns);
            }
            free_ns
        };
        if free_ns > self.now_ns { self.wake_at(core, free_ns) } else { self.poll(core) }
    }

    /// Lets the program go on as far as it can, and does what it asks for.
    fn poll(&mut self, core: u32) {
        let now_ns = self.now_ns;
        let sim = &mut self.cores[core as usize];
        let Some(program) = sim.program.as_mut() else { return };
        {
            let inner = &mut *sim.cell.inner.borrow_mut();
            inner.now_ns = now_ns;
            inner.local_ns = inner.local_ns.max(now_ns) + inner.debt_ns;
            inner.debt_ns = 0;
            inner.waits = 0;
            inner.wake_ns = u64::MAX;
        }
        let ended = program.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready();
        let mut requests = std::mem::take(&mut self.requests);
        let (state, wake_ns) = {
            let inner = &mut *sim.cell.inner.borrow_mut();
            std::mem::swap(&mut requests, &mut inner.requests);
            if ended && inner.state == CoreState::Running {
                inner.state = CoreState::Exited;
            }
            (inner.state, inner.wake_ns)
        };
        match state {
            CoreState::Running => {}
            CoreState::Failed { .. } => {
                sim.program = None;
                self.running -= 1;
                self.failed_ns = Some(self.failed_ns.unwrap_or(now_ns));
            }
            _ => {
                if ended {
                    sim.program = None;
                }
                self.running -= 1;
                self.ready_ns = self.ready_ns.max(now_ns);
            }
        }
        self.note(u64::from(core) << 8);
        if wake_ns != u64::MAX {
            self.wake_at(core, wake_ns.max(now_ns));
        }
        for request in requests.drain(..) {
            match request {
                Request::Dma(transfer, time_ns, words) => self.dma_submit(core, Queued { transfer, time_ns, words }),
                Request::Send { key, words, count, time_ns, spacing_ns } => {
                    let tail_ns = time_ns + spacing_ns * u64::from(count - 1);
                    let chip = self.cores[core as usize].chip;
                    let train = Train { key, count, words, head_ns: time_ns, tail_ns, chip, from: LOCAL, cores: core };
                    if time_ns > now_ns + SEND_AHEAD_NS {
                        self.push_train(train, time_ns, kind::SEND);
                    } else {
                        self.inject(train);
                    }
                }
            }
        }
        self.requests = requests;
    }

    fn start(&mut self, chip: u32) {
        for number in 0..18 {
            let core = self.chips[chip as usize].cores[number];
            if core != u32::MAX {
                let waits = {
                    let inner = &mut *self.cores[core as usize].cell.inner.borrow_mut();
                    let waits = inner.waits & wait::START != 0 && inner.state == CoreState::Running;
                    inner.started |= waits;
                    waits
                };
                if waits {
                    self.fire(core, wait::START);
                }
            }
        }
    }

    fn kill(&mut self, core: u32) {
        let sim = &mut self.cores[core as usize];
        {
            let inner = &mut *sim.cell.inner.borrow_mut();
            match inner.state {
                CoreState::Running => self.running -= 1,
                CoreState::Ready => {}
                _ => return,
            }
            inner.state = CoreState::Dead;
            inner.waits = 0;
        }
        sim.cell.settle_jobs();
        sim.program = None;
        (sim.active, sim.waiting) = (None, None);
        self.failed_ns = Some(self.failed_ns.unwrap_or(self.now_ns));
        let chip = sim.chip;
        self.note(u64::from(core) << 8 | 1);
        self.chips[chip as usize].sharing.advance(self.now_ns, &self.config.timing);
        self.chips[chip as usize].sharing.leave(core);
        self.dma_schedule(chip);
    }

    // ---- DMA ----

    fn dma_submit(&mut self, core: u32, queued: Queued) {
        let sim = &mut self.cores[core as usize];
        if sim.program.is_none() {
            return;
        }
        if sim.active.is_some() {
            debug_assert!(sim.waiting.is_none(), "a core submits no more than two");
            sim.waiting = Some(queued);
        } else {
            sim.active = Some(queued);
            let chip = sim.chip;
            self.dma_begin(core, self.now_ns);
            self.dma_schedule(chip);
        }
    }

    /// The core's active transfer begins.
    fn dma_begin(&mut self, core: u32, not_before_ns: u64) {
        let sim = &self.cores[core as usize];
        let Some(queued) = &sim.active else { return };
        let setup_ns = queued.transfer.hardware_transfers() * self.config.timing.dma_setup_ns;
        let time_ns = queued.time_ns.max(not_before_ns) + setup_ns;
        self.chips[sim.chip as usize].sharing.join(time_ns, queued.transfer.words(), core);
    }

    fn dma_schedule(&mut self, chip: u32) {
        let sharing = &mut self.chips[chip as usize].sharing;
        if let Some(end_ns) = sharing.next_end_ns(&self.config.timing) {
            let end_ns = end_ns.max(self.now_ns);
            if end_ns < sharing.timer_ns {
                sharing.timer_ns = end_ns;
                self.queue.push(end_ns, kind::DMA, chip);
            }
        }
    }

    fn dma_timer(&mut self, chip: u32) {
        let now_ns = self.now_ns;
        let sharing = &mut self.chips[chip as usize].sharing;
        if sharing.timer_ns != now_ns {
            return;
        }
        sharing.timer_ns = u64::MAX;
        sharing.advance(now_ns, &self.config.timing);
        let mut finished = std::mem::take(&mut self.finished);
        sharing.finished(&mut finished);
        for &core in &finished {
            self.dma_end(core);
        }
        self.dma_schedule(chip);
        for &core in &finished {
            self.fire(core, wait::DMA);
        }
        self.finished = finished;
    }

    fn dma_end(&mut self, core: u32) {
        let sim = &mut self.cores[core as usize];
        let Some(queued) = sim.active.take() else { return };
        sim.active = sim.waiting.take();
        let sdram = &mut self.chips[sim.chip as usize].sdram;
        let transfer = &queued.transfer;
        let bytes = transfer.words() * 4;
        // The address was checked when the transfer was submitted.
        let first = sdram_word(transfer.sdram, 0).unwrap_or(0);
        let row_at = |row: u32| first + row as usize * (transfer.sdram_stride as usize / 4);
        {
            let inner = &mut *sim.cell.inner.borrow_mut();
            match transfer.direction {
                Direction::In => sim.cell.transfer_in(inner, transfer, |row, out| sdram.read(row_at(row), out)),
                Direction::Out => {
                    let row_words = (transfer.row_bytes as usize / 4).max(1);
                    (0..)
                        .zip(queued.words.chunks_exact(row_words))
                        .for_each(|(row, part)| sdram.write(row_at(row), part));
                    inner.spare.push(queued.words);
                }
            }
            inner.dma_queued -= 1;
            inner.tag_queued[usize::from(transfer.tag)] -= 1;
            let cycles = self.config.timing.dma_interrupt_cycles * transfer.hardware_transfers();
            inner.interrupt(self.now_ns, cycles);
        }
        self.counters.dma_bytes += bytes;
        self.note(u64::from(core) << 8 | 2);
        self.dma_begin(core, self.now_ns);
    }

    // ---- packets ----

    fn push_train(&mut self, train: Train, time_ns: u64, kind: u8) {
        let slot = match self.trains_free.pop() {
            Some(slot) => {
                self.trains[slot as usize] = train;
                slot
            }
            None => {
                self.trains.push(train);
                (self.trains.len() - 1) as u32
            }
        };
        self.queue.push(time_ns.max(self.now_ns), kind, slot);
    }

    fn take_train(&mut self, slot: u32) -> Train {
        const GONE: Train =
            Train { key: 0, count: 0, words: Words::NONE, head_ns: 0, tail_ns: 0, chip: 0, from: LOCAL, cores: 0 };
        self.trains_free.push(slot);
        std::mem::replace(&mut self.trains[slot as usize], GONE)
    }

    /// A core's packets enter its router.
    fn inject(&mut self, mut train: Train) {
        let timing = &self.config.timing;
        let core = train.cores;
        let serial_ns = if train.long() { timing.core_long_ns } else { timing.core_short_ns };
        self.counters.packets_sent += u64::from(train.count);
        train.head_ns += serial_ns;
        train.tail_ns += serial_ns;
        let tail_ns = train.tail_ns;
        let accepted_ns = self.route(train);
        {
            let inner = &mut *self.cores[core as usize].cell.inner.borrow_mut();
            inner.send_free_ns = inner.send_free_ns.max(tail_ns).max(accepted_ns);
            inner.sends_queued = inner.sends_queued.saturating_sub(1);
        }
        if self.cores[core as usize].cell.inner.borrow().waits & wait::SEND != 0 {
            // The core may be within the poll's aftermath: it goes on by an event of its own.
            let free_ns = {
                let inner = &mut *self.cores[core as usize].cell.inner.borrow_mut();
                let free_ns = (inner.local_ns + inner.debt_ns).max(self.now_ns);
                inner.wake_ns = inner.wake_ns.min(free_ns);
                free_ns
            };
            self.wake_at(core, free_ns);
        }
    }

    /// Packets at a router: looks the way up, part by part where the table parts them. Says when the last was taken.
    fn route(&mut self, train: Train) -> u64 {
        let chip = train.chip as usize;
        let (mut first, mut accepted_ns) = (0, 0);
        while first < train.count {
            let (route, run) = self.chips[chip].router.table.route(train.key.wrapping_add(first));
            let count = run.min(train.count - first);
            let route = match route {
                Some(route) => route.0,
                // Default routing: straight on.
                None if train.from != LOCAL => 1 << ((train.from + 3) % 6),
                None => {
                    self.counters.dropped_no_route += u64::from(count);
                    first += count;
                    continue;
                }
            };
            let ns = if count == train.count {
                self.forward(&train, route)
            } else {
                self.forward(&train.part(first, count), route)
            };
            accepted_ns = accepted_ns.max(ns);
            first += count;
        }
        if train.from != LOCAL {
            // What waits here keeps the link busy by which it came, except for what the buffers hold.
            let stalled_ns = self.chips[chip].router.stalled_ns;
            let link = Link::ALL[usize::from(train.from) % 6];
            if let Some(up) = self.chips[chip].router.links[link.index()].to {
                let state = &mut self.chips[up as usize].router.links[link.opposite().index()];
                let packet_ns = if train.long() { state.long_ns } else { state.short_ns };
                let slack_ns = packet_ns * self.config.timing.link_buffer_packets;
                state.free_ns = state.free_ns.max(accepted_ns.saturating_sub(slack_ns));
                state.blocked_ns = state.blocked_ns.max(stalled_ns.saturating_sub(slack_ns));
            }
        }
        accepted_ns
    }

    /// Packets that all go the same way leave the router. Says when the last was taken by the slowest output.
    fn forward(&mut self, train: &Train, route: u32) -> u64 {
        let timing = self.config.timing;
        let chip = train.chip as usize;
        let long = train.long();
        let count = u64::from(train.count);
        self.counters.routed_bits += count * if long { 72 } else { 40 };

        // The router takes one packet a cycle, and none while one blocks it.
        let router = &mut self.chips[chip].router;
        let start_half_ns = router.work_half_ns.max(2 * (train.head_ns).max(router.stalled_ns));
        router.work_half_ns = start_half_ns + count * timing.router_cycle_half_ns;
        let head_ns = start_half_ns / 2 + timing.router_ns;
        let tail_ns = (train.tail_ns + timing.router_ns).max(router.work_half_ns / 2 + timing.router_ns);
        let mut accepted_ns = tail_ns;

        for link in 0..6u8 {
            if route >> link & 1 == 1 {
                accepted_ns = accepted_ns.max(self.forward_link(train, link, head_ns, tail_ns));
            }
        }
        let cores = route >> 6 & 0x3FFFF;
        if cores != 0 {
            accepted_ns = accepted_ns.max(self.forward_cores(train, cores, head_ns, tail_ns));
        }
        accepted_ns
    }

    /// The router waits for an output that takes nothing, then gives up: once for each packet.
    fn stall(&mut self, chip: usize, from_ns: u64, packets: u64) {
        let router = &mut self.chips[chip].router;
        router.stalled_ns = router.stalled_ns.max(from_ns) + packets * self.config.timing.router_wait_ns;
    }

    fn forward_link(&mut self, train: &Train, link: u8, head_ns: u64, tail_ns: u64) -> u64 {
        let timing = self.config.timing;
        let chip = train.chip as usize;
        let state = &mut self.chips[chip].router.links[usize::from(link)];
        let packet_ns = if train.long() { state.long_ns } else { state.short_ns };
        let Some(to) = state.to else {
            self.counters.dropped_dead_link += u64::from(train.count);
            self.stall(chip, head_ns, u64::from(train.count));
            return head_ns;
        };
        let ready_ns = head_ns.max(state.free_ns);
        let mut gone = 0;
        if state.blocked_ns > ready_ns + timing.router_wait_ns {
            // The router at the other end is stuck for longer than this one waits.
            gone = ((state.blocked_ns - ready_ns) / timing.router_wait_ns).min(u64::from(train.count)) as u32;
        }
        let count = u64::from(train.count - gone);
        let head_ns = ready_ns.max(state.blocked_ns.min(ready_ns + (u64::from(gone) + 1) * timing.router_wait_ns));
        let tail_ns = if count == 0 { head_ns } else { tail_ns.max(head_ns + (count - 1) * packet_ns) };
        if count > 0 {
            state.free_ns = head_ns + count * packet_ns;
        }
        let number = state.packets;
        state.packets += count;
        if gone > 0 {
            self.counters.dropped_blocked += u64::from(gone);
            self.stall(chip, ready_ns, u64::from(gone));
        }
        if count == 0 {
            return head_ns;
        }
        let mut next = Train {
            key: train.key.wrapping_add(gone),
            count: train.count - gone,
            words: train.words.part(gone, train.count - gone),
            head_ns: head_ns + packet_ns,
            tail_ns: tail_ns + packet_ns,
            chip: to,
            from: Link::ALL[usize::from(link)].opposite() as u8,
            cores: 0,
        };
        if self.drop_below == 0 {
            self.push_hop(next);
            return tail_ns;
        }
        // Losses: a draw for each packet, numbered by link and packet.
        let seed = mix(self.config.seed ^ mix((chip as u64 * 6 + u64::from(link)).wrapping_add(0x9E37_79B9_7F4A_7C15)));
        let below = self.drop_below;
        let lost = |i: u64| mix(seed.wrapping_add(number + i)) < below;
        let (mut first, mut i) = (0, 0);
        let whole = next.count;
        let mut runs = 0;
        while i < whole {
            if lost(u64::from(i)) {
                self.counters.dropped_on_link += 1;
                if i > first {
                    let part = next.part(first, i - first);
                    self.push_hop(part);
                    runs += 1;
                }
                first = i + 1;
            }
            i += 1;
        }
        if first < whole {
            if runs > 0 || first > 0 {
                next = next.part(first, whole - first);
            }
            self.push_hop(next);
        }
        tail_ns
    }

    fn push_hop(&mut self, train: Train) {
        let time_ns = train.head_ns;
        self.push_train(train, time_ns, kind::HOP);
    }

    fn forward_cores(&mut self, train: &Train, cores: u32, head_ns: u64, tail_ns: u64) -> u64 {
        let timing = self.config.timing;
        let chip = train.chip as usize;
        let serial_ns = if train.long() { timing.core_long_ns } else { timing.core_short_ns };
        let handler_ns = timing.receive_cycles * crate::CYCLE_NS;
        let mut accepted_ns = 0;
        // Cores that take the same packets at the same time share an event.
        let mut groups = [(0u64, 0u32, 0u32); 18];
        let mut group_count = 0;
        for number in (0..18).filter(|number| cores >> number & 1 == 1) {
            let index = self.chips[chip].cores[number];
            let mut count = 0;
            if let Some(core) = self.cores.get_mut(index as usize) {
                let inner = &mut *core.cell.inner.borrow_mut();
                if matches!(inner.state, CoreState::Running | CoreState::Ready) {
                    let room = self.config.receive_queue_packets.saturating_sub(inner.queued_packets);
                    count = train.count.min(room.min(u32::MAX as usize) as u32);
                    inner.queued_packets += count as usize;
                }
                if count > 0 {
                    // One packet is received after the other.
                    let head_ns = (head_ns + serial_ns).max(core.receive_free_ns);
                    let tail_ns = (tail_ns + serial_ns).max(head_ns + u64::from(count - 1) * handler_ns);
                    core.receive_free_ns = tail_ns + handler_ns;
                    accepted_ns = accepted_ns.max(tail_ns);
                    let group = (tail_ns + handler_ns, count);
                    match groups[..group_count].iter_mut().find(|found| (found.0, found.1) == group) {
                        Some(found) => found.2 |= 1 << number,
                        None => {
                            groups[group_count] = (group.0, group.1, 1 << number);
                            group_count += 1;
                        }
                    }
                }
            }
            if count < train.count {
                let lost = u64::from(train.count - count);
                self.counters.dropped_at_core += lost;
                if index != u32::MAX {
                    // Nobody takes them: they block the router. (A core without a program throws packets away.)
                    self.stall(chip, tail_ns, lost);
                }
            }
        }
        for &(time_ns, count, cores) in &groups[..group_count] {
            let part = Train { cores, words: train.words.part(0, count), count, ..*train };
            self.push_train(part, time_ns, kind::DELIVER);
        }
        accepted_ns
    }

    fn deliver(&mut self, train: Train) {
        let chip = train.chip as usize;
        self.note(u64::from(train.key) ^ u64::from(train.count) << 40);
        let cycles = self.config.timing.receive_cycles * u64::from(train.count);
        for number in (0..18).filter(|number| train.cores >> number & 1 == 1) {
            let core = self.chips[chip].cores[number];
            let taken = {
                let inner = &mut *self.cores[core as usize].cell.inner.borrow_mut();
                let alive = matches!(inner.state, CoreState::Running | CoreState::Ready);
                if alive {
                    inner.interrupt(self.now_ns, cycles);
                    inner.inbox.push_back(Arrival { key: train.key, words: train.words.clone() });
                }
                alive
            };
            if taken {
                self.counters.packets_delivered += u64::from(train.count);
                self.fire(core, wait::PACKET);
            } else {
                self.counters.dropped_at_core += u64::from(train.count);
            }
        }
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
        // Programs hold handles to their cores; they go first. The pool stops its threads when the last cell is gone.
        self.cores.clear();
    }
}
