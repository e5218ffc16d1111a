//! The monitors of a machine, emulated natively: what SC&MP 4.0.0 is to a host, over the fast [`Simulator`].
//!
//! A host's datagrams are answered with the payloads and return codes of the official monitor, its own errors hidden as there
//! (protocols reference, 3.1); what it keeps in memory (system variables, core blocks, heaps, tables) is there to be
//! read. Programs of cores are native: the owner's [`Programs`] says which applications it knows, by their files. Others do
//! not run: their cores go to a run-time error, whose text says why.
//!
//! # What is exact and what is approximated
//!
//! * Answers: those of the monitor, down to bytes, but for build times of later releases, pads, and the numbers of transient tags.
//! * Time: each monitor does one thing at a time (`timing.rs` has what each takes, and the sources); a board's wire carries one
//!   frame each way at a time. Point-to-point messages are not cut into packets. A signal reaches a chip 0.5 us a hop after it
//!   was sent, and flooded data are everywhere at once when the sender is done with them.
//! * An access to memory that is not there stops the monitor, as it does the original, until the board's power is switched.
//!
//! # What is not here
//!
//! The hop table (it reads as zero), serial ROMs, taking cores out of service, blinking LEDs, and the idle kernel's work: an idle
//! core answers the commands of its kernel and nothing else. Device registers keep what is written and do nothing, but for
//! the router's counters and point-to-point table. Native programs take no messages: what is sent to their ports is lost.

mod applications;
mod chip;
mod commands;
mod flood;
mod heap;
mod memory;
mod network;
mod p2p;
mod routes;
mod tags;
mod timing;

use std::collections::{BTreeMap, VecDeque};
use std::net::Ipv4Addr;
use std::rc::Rc;

use spinnaker_machine::{ChipXy, Link, Machine};
use spinnaker_wire::AppId;

use crate::cycle::Datagram;
use crate::{Program, SimConfig, Simulator};
use chip::{Boot, Chip, Core, Runs, address_of};
use heap::Words;
use network::{Board, Event};

/// What the owner of a machine has to run on its cores.
pub trait Programs {
    /// Looks at an application's file as it lies in a chip's memory (what follows the file is there, too).
    ///
    /// # Errors
    /// Why it does not run here, as text for whoever loaded it.
    fn application(&self, file: &[u8]) -> Result<Rc<dyn Application>, String>;
}

/// An application that the owner of a machine knows.
pub trait Application {
    /// Its name, as a core's block tells it (16 bytes at most are told).
    fn name(&self) -> &str;

    /// Its version, as a core's block tells it.
    fn version(&self) -> u32;

    /// What its cores say when they are asked who they are (SCP command VER): name and hardware, and what else belongs behind the
    /// version of the answer.
    fn title(&self) -> &[u8];

    /// The program of one core. The words of user 0 to 3 in its block are what it shows
    /// ([`CoreHandle::show`](crate::CoreHandle::show)), zero before.
    fn program(&self, place: &mut Place<'_>) -> Program;
}

/// Where a program is to run, and the memory of its chip.
pub struct Place<'a> {
    /// The chip.
    pub chip: ChipXy,
    /// The core by its virtual number.
    pub core: u8,
    /// The application's number.
    pub app: AppId,
    memory: &'a mut dyn Words,
}

impl Place<'_> {
    /// A word of the chip's SDRAM or system RAM; 0 where there is neither.
    pub fn word(&mut self, address: u32) -> u32 {
        self.memory.word(address)
    }

    /// Where the content of the application's block with a tag begins; 0 if it has none.
    pub fn tagged_block(&mut self, tag: u8) -> u32 {
        self.memory.word(chip::TAG_TABLE + spinnaker_wire::heap::tag_offset_bytes(self.app, tag))
    }
}

/// What the monitors of a machine are told.
#[derive(Debug, Clone, PartialEq)]
pub struct MonitorConfig {
    /// The machine's times, losses and threads.
    pub simulation: SimConfig,
    /// Addresses of boards by their Ethernet chips; those without have
    /// [`default_address`](crate::cycle::default_address).
    pub addresses: BTreeMap<ChipXy, Ipv4Addr>,
    /// Time of boot, Unix seconds.
    pub unix_time_s: u32,
}

impl Default for MonitorConfig {
    /// A boot at the start of 2020: always the same, so that runs are.
    fn default() -> Self {
        Self { simulation: SimConfig::default(), addresses: BTreeMap::new(), unix_time_s: 1_577_836_800 }
    }
}

/// A machine with its monitors. See the module.
pub struct Monitors {
    simulator: Simulator,
    programs: Box<dyn Programs>,
    /// In the simulator's order.
    chips: Vec<Chip>,
    index: BTreeMap<ChipXy, usize>,
    root: usize,
    boards: Vec<Board>,
    unix_time_s: u32,
    flood: flood::Flood,
    events: BTreeMap<(u64, u64), Event>,
    event_number: u64,
    frames: u64,
    out: VecDeque<Datagram>,
    log: Vec<(u64, String)>,
    /// Something has happened that may show in what the monitors keep.
    stirred: bool,
}

impl Monitors {
    /// A machine whose boards are booted.
    pub fn new(machine: Machine, config: MonitorConfig, programs: Box<dyn Programs>) -> Self {
        let places: Vec<ChipXy> = machine.chips.keys().copied().collect();
        let index: BTreeMap<ChipXy, usize> = places.iter().copied().zip(0..).collect();
        let neighbours: Vec<[Option<usize>; 6]> =
            places.iter().map(|&xy| Link::ALL.map(|link| neighbour(&machine, &index, xy, link))).collect();
        let ethernet = |xy: ChipXy| {
            let nearest = machine.chips.get(&xy).map_or(xy, |chip| chip.nearest_ethernet);
            index.get(&nearest).copied().unwrap_or(0)
        };
        let root = places.iter().position(|xy| machine.chips[xy].ethernet).unwrap_or(0);
        let nodes: Vec<p2p::Node> = places
            .iter()
            .zip(&neighbours)
            .map(|(&xy, &neighbours)| p2p::Node { address: address_of(xy), neighbours, ethernet: ethernet(xy) })
            .collect();
        let tables = p2p::tables(&nodes, root);
        let chips = places
            .iter()
            .zip(neighbours)
            .zip(tables)
            .map(|((&xy, neighbours), p2p)| {
                let cores = machine.chips[&xy].cores.iter().map(|&number| Core {
                    number,
                    app: AppId(0),
                    runs: Runs::Kernel,
                    flag: true,
                    iobuf: 0,
                    text_bytes: 0,
                });
                Chip {
                    xy,
                    ethernet: ethernet(xy),
                    cores: cores.collect(),
                    links: (0..6).filter(|link| neighbours[*link].is_some()).fold(0, |links, link| links | 1 << link),
                    neighbours,
                    p2p,
                    ram: vec![0; chip::RAM_BYTES].into_boxed_slice(),
                    local: BTreeMap::new(),
                    registers: BTreeMap::new(),
                    tags: tags::Tags::new(),
                    works: true,
                    inbox: VecDeque::new(),
                    busy: false,
                    counting_ns: 0,
                    p2p_packets: [0; 2],
                    cleared: [0; 4],
                }
            })
            .collect();
        let boards = places.iter().enumerate().filter(|(_, xy)| machine.chips[xy].ethernet).enumerate();
        let boards = boards
            .map(|(number, (chip, xy))| {
                let address = config.addresses.get(xy).copied();
                Board::new(chip, address.unwrap_or_else(|| crate::cycle::default_address(number).ip))
            })
            .collect();
        let mut monitors = Self {
            simulator: Simulator::new(machine, config.simulation),
            programs,
            chips,
            index,
            root,
            boards,
            unix_time_s: config.unix_time_s,
            flood: flood::Flood::default(),
            events: BTreeMap::new(),
            event_number: 0,
            frames: 0,
            out: VecDeque::new(),
            log: Vec::new(),
            stirred: true,
        };
        (0..monitors.chips.len()).for_each(|chip| monitors.boot(chip));
        monitors
    }

    /// The machine.
    pub fn machine(&self) -> &Machine {
        self.simulator.machine()
    }

    /// What runs the cores.
    pub fn simulator(&self) -> &Simulator {
        &self.simulator
    }

    /// Ethernet chips of the boards and their addresses, in order.
    pub fn boards(&self) -> Vec<(ChipXy, Ipv4Addr)> {
        self.boards.iter().map(|board| (self.chips[board.chip].xy, board.ip)).collect()
    }

    /// What a monitor has when network set-up is over.
    fn boot(&mut self, chip: usize) {
        let machine = self.simulator.machine();
        let xy = self.chips[chip].xy;
        let ethernet = self.chips[chip].ethernet;
        let size = |chips: u16| u8::try_from(chips).unwrap_or(u8::MAX);
        let boot = Boot {
            hardware_version: if machine.chips.len() <= 4 { 3 } else { 5 },
            unix_time_s: self.unix_time_s,
            root: address_of(self.chips[self.root].xy),
            is_root: chip == self.root,
            width: size(machine.width),
            height: size(machine.height),
            ethernet: address_of(self.chips[ethernet].xy),
            ip: self.boards.iter().find(|board| board.chip == chip).map(|board| board.ip),
            on_board: chip::place_on_board(machine, xy),
        };
        let system_route = self.system_route(chip);
        let state = &mut self.chips[chip];
        state.prepare_ram(&boot);
        state.tags = tags::Tags::new();
        (state.works, state.busy, state.counting_ns) = (true, false, 0);
        state.inbox.clear();
        state.local.clear();
        state.registers = memory::registers_after_boot();
        let mut memory = self.memory(chip);
        chip::SDRAM_HEAP.prepare(&mut memory);
        chip::RAM_HEAP.prepare(&mut memory);
        chip::SYSTEM_HEAP.prepare(&mut memory);
        chip::RAM_HEAP.allocate(&mut memory, chip::buffers_bytes(), AppId(0), 0);
        for bytes in chip::tables() {
            chip::SYSTEM_HEAP.allocate(&mut memory, bytes, AppId(0), 0);
        }
        chip::ROUTES.prepare(&mut memory);
        chip::ROUTES.set(&mut memory, 0, system_route, AppId(0));
        self.simulator.set_routes(chip as u32, &[]);
        self.stirred = true;
    }

    /// Entry 0 of a chip's table: the monitors' own packets, along the tree that leads from the root to all chips.
    fn system_route(&self, chip: usize) -> spinnaker_machine::RoutingEntry {
        let root = address_of(self.chips[self.root].xy);
        let leads_here = |link: usize| {
            let back = self.chips[chip].neighbours[link].map(|to| self.chips[to].p2p.entry(root).raw());
            back == Some((link as u8 + 3) % 6)
        };
        let links = (0..6).filter(|link| leads_here(*link)).fold(0, |links, link| links | 1 << link);
        spinnaker_machine::RoutingEntry {
            key: spinnaker_wire::router::TIME_KEY,
            mask: 0xFFFF_FFFE,
            route: spinnaker_machine::Route(links | 1 << 6),
        }
    }

    fn say(&mut self, text: String) {
        self.log.push((self.simulator.now_ns(), text));
    }

    /// What happened since the last call: machine time (ns) and text.
    pub fn take_log(&mut self) -> Vec<(u64, String)> {
        std::mem::take(&mut self.log)
    }

    /// Whether anything may have changed in what the monitors keep since the last call.
    pub fn take_stirred(&mut self) -> bool {
        std::mem::take(&mut self.stirred) || !self.simulator.is_quiet()
    }
}

/// The chip that a link leads to, as the monitors see it.
fn neighbour(machine: &Machine, index: &BTreeMap<ChipXy, usize>, xy: ChipXy, link: Link) -> Option<usize> {
    let to = machine.neighbour(xy, link)?;
    let off = |xy, link| chip::is_switched_off(chip::place_on_board(machine, xy), link);
    if off(xy, link) || off(to, link.opposite()) { None } else { index.get(&to).copied() }
}
