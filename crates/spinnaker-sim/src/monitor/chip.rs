//! A chip as its monitor sees it, and what the monitor has in system RAM when network set-up is over.

use std::collections::{BTreeMap, VecDeque};
use std::net::Ipv4Addr;

use spinnaker_machine::{ChipXy, Link, Machine};
use spinnaker_wire::sv::{self, Board, BootVariables, NETINIT_DONE, SystemVariables};
use spinnaker_wire::vcpu::{self, CoreState};
use spinnaker_wire::{AppId, ChipAddress};
use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromZeros, IntoBytes};

use super::Application;
use super::heap::Heap;
use super::network::Message;
use super::p2p::P2pTable;
use super::routes::RouteTable;
use super::tags::Tags;

/// Bytes of system RAM.
pub(super) const RAM_BYTES: usize = 32 << 10;
/// Bytes of a core's instruction and data memory.
pub(super) const LOCAL_BYTES: usize = (32 + 64) << 10;
/// Version of the idle kernel, as in a core's block.
const KERNEL_VERSION: u32 = 0x0004_0000;
/// Places in system RAM.
pub(super) const RAM_BASE: u32 = 0xE500_0000;
const RAM_VCPU: usize = 0x7000;
const RAM_SV: usize = 0x7F00;
/// Words of system RAM that are the users', before its heap.
const RAM_USER_BYTES: u32 = 4096;
/// Message buffers, and bytes of one.
const BUFFERS: u32 = 7;
const BUFFER_BYTES: u32 = size_of::<vcpu::MessageBuffer>() as u32;
/// Bytes of the tables in the heap of system SDRAM, in the order in which the monitor takes them: hop table, copy of the router's
/// table, tagged allocations, applications, random numbers, map of coordinates.
const TABLES: [u32; 6] = [256 << 10, 1025 * 16, 256 << 10, 2 << 10, 1 << 10, 32 << 10];
/// Start of users' SDRAM, of the staging area, of the heap behind it, and the end.
const SDRAM_USER: u32 = 0x6024_0000;
const SDRAM_SYSTEM: u32 = sv::SDRAM_SYS_ADDRESS;
const SDRAM_SYSTEM_HEAP: u32 = SDRAM_SYSTEM + sv::SDRAM_SYS_BYTES as u32;
const SDRAM_END: u32 = 0x6800_0000;

/// Heaps of a chip, as the boot image of the official host has them laid out (`sdram_heap` = 0).
pub(super) const SDRAM_HEAP: Heap = Heap { address: SDRAM_USER, top: SDRAM_SYSTEM };
pub(super) const RAM_HEAP: Heap = Heap { address: RAM_BASE + 0x100 + RAM_USER_BYTES, top: RAM_BASE + RAM_VCPU as u32 };
pub(super) const SYSTEM_HEAP: Heap = Heap { address: SDRAM_SYSTEM_HEAP, top: SDRAM_END };

const fn table_address(number: usize) -> u32 {
    let mut address = SYSTEM_HEAP.address + 24;
    let mut i = 0;
    while i < number {
        address += TABLES[i] + 8;
        i += 1;
    }
    address
}

/// The copy of the router's table.
pub(super) const ROUTES: RouteTable = RouteTable { address: table_address(1) };
/// Addresses of tagged blocks.
pub(super) const TAG_TABLE: u32 = table_address(2);
/// Applications.
pub(super) const APPLICATIONS: u32 = table_address(3);

/// What runs on an application core.
pub(super) enum Runs {
    /// The idle kernel, or nothing (powered down, refused): its block says which.
    Kernel,
    /// An application that waits for START.
    Waiting(std::rc::Rc<dyn Application>),
    /// A program of the simulation.
    Program(std::rc::Rc<dyn Application>),
}

/// An application core.
pub(super) struct Core {
    /// Its number in the simulated machine, which here is also its physical number.
    pub number: u8,
    pub app: AppId,
    pub runs: Runs,
    /// The flag that SYNC0 clears and SYNC1 sets.
    pub flag: bool,
    /// Its text block, 0 for none, and how much of its text is there.
    pub iobuf: u32,
    pub text_bytes: usize,
}

/// See the module.
pub(super) struct Chip {
    pub xy: ChipXy,
    /// The chip of its board that has Ethernet.
    pub ethernet: usize,
    /// Working application cores; virtual core n is the one with index n - 1.
    pub cores: Vec<Core>,
    /// Links that the monitor lets work, bit n for link n, and where they lead.
    pub links: u8,
    pub neighbours: [Option<usize>; 6],
    pub p2p: P2pTable,
    pub ram: Box<[u8]>,
    /// Memories of monitor and cores without a program, as far as somebody wrote there.
    pub local: BTreeMap<u8, Box<[u8]>>,
    /// Device registers that somebody wrote.
    pub registers: BTreeMap<u32, u32>,
    pub tags: Tags,
    /// Power is on and the monitor runs.
    pub works: bool,
    /// Messages that wait for the monitor.
    pub inbox: VecDeque<Message>,
    pub busy: bool,
    /// Until when a COUNT is under way.
    pub counting_ns: u64,
    /// Packets of messages to and from other chips.
    pub p2p_packets: [u64; 2],
    /// What the router's counters had when they were cleared.
    pub cleared: [u64; 4],
}

/// What a monitor is told at boot.
pub(super) struct Boot {
    pub hardware_version: u8,
    pub unix_time_s: u32,
    pub root: ChipAddress,
    pub is_root: bool,
    /// Size of the machine.
    pub width: u8,
    pub height: u8,
    pub ethernet: ChipAddress,
    pub ip: Option<Ipv4Addr>,
    /// Where it is on its board.
    pub on_board: ChipAddress,
}

/// The address of a chip.
pub(super) fn address_of(xy: ChipXy) -> ChipAddress {
    ChipAddress::new(xy.x, xy.y)
}

/// Where a chip is on its board; machines may wrap around.
pub(super) fn place_on_board(machine: &Machine, xy: ChipXy) -> ChipAddress {
    let ethernet = machine.chips.get(&xy).map_or(xy, |chip| chip.nearest_ethernet);
    let offset = |at: u8, from: u8, size: u16| ((u16::from(at) + size - u16::from(from)) % size.max(1)) as u8;
    ChipAddress::new(offset(xy.x, ethernet.x, machine.width), offset(xy.y, ethernet.y, machine.height))
}

/// A link that SC&MP 4.0.0 switches off on every board, by the chip's place there. (`scamp-3.c`)
pub(super) fn is_switched_off(on_board: ChipAddress, link: Link) -> bool {
    matches!((on_board.x(), on_board.y(), link), (4, 7, Link::N) | (7, 7, Link::N) | (1, 0, Link::SW))
}

impl Chip {
    /// Virtual cores, the monitor's included.
    pub fn virtual_cores(&self) -> u8 {
        self.cores.len() as u8 + 1
    }

    /// An application core by its virtual number.
    pub fn core(&self, virtual_core: u8) -> Option<&Core> {
        self.cores.get(usize::from(virtual_core).checked_sub(1)?)
    }

    /// A core's block.
    pub fn block(&mut self, virtual_core: u8) -> &mut [u8] {
        let start = RAM_VCPU + usize::from(virtual_core % 18) * vcpu::BYTES;
        &mut self.ram[start..start + vcpu::BYTES]
    }

    /// Bytes of the system variables from an offset on.
    pub fn variable(&mut self, offset: usize, bytes: &[u8]) {
        self.ram[RAM_SV + offset..RAM_SV + offset + bytes.len()].copy_from_slice(bytes);
    }

    /// A byte of the system variables.
    pub fn variable_byte(&self, offset: usize) -> u8 {
        self.ram[RAM_SV + offset]
    }

    /// The state that a core's block tells.
    pub fn state(&self, virtual_core: u8) -> CoreState {
        let at = RAM_VCPU + usize::from(virtual_core % 18) * vcpu::BYTES + 0x2E;
        CoreState::from_raw(self.ram[at])
    }

    /// A core with the idle kernel. Its user words stay.
    pub fn make_idle(&mut self, virtual_core: u8) {
        let Some(core) = self.cores.get_mut(usize::from(virtual_core).wrapping_sub(1)) else { return };
        (core.app, core.runs, core.flag, core.iobuf, core.text_bytes) = (AppId(0), Runs::Kernel, true, 0, 0);
        let physical = core.number;
        self.write_block(virtual_core, physical, AppId(0), "sark", KERNEL_VERSION, CoreState::Idle);
        // Where the watchdog's ping found it.
        self.block(virtual_core)[0x30..0x34].copy_from_slice(&0x180u32.to_le_bytes());
    }

    /// What a kernel writes into its block when it starts.
    pub fn write_block(
        &mut self,
        virtual_core: u8,
        physical: u8,
        app: AppId,
        name: &str,
        version: u32,
        state: CoreState,
    ) {
        let block = self.block(virtual_core);
        block[..vcpu::CLEARED_BYTES].fill(0);
        (block[0x2D], block[0x2E], block[0x2F]) = (physical, state.raw(), app.0);
        for (place, byte) in block[0x48..0x58].iter_mut().zip(name.bytes()) {
            *place = byte;
        }
        block[0x5C..0x60].copy_from_slice(&version.to_le_bytes());
    }

    /// System RAM as it is when the network is up.
    pub fn prepare_ram(&mut self, boot: &Boot) {
        self.ram.fill(0);
        let sv = self.system_variables(boot);
        self.variable(0, sv.as_bytes());
        self.write_block(0, 0, AppId(0), "scamp-3", 0, CoreState::Run);
        for virtual_core in 1..self.virtual_cores() {
            self.make_idle(virtual_core);
        }
    }

    fn system_variables(&self, boot: &Boot) -> SystemVariables {
        let board = if boot.hardware_version == 3 { Board::Spin3 } else { Board::Spin5 };
        let mut sv = SystemVariables::new_zeroed();
        sv.boot = BootVariables {
            hw_ver: boot.hardware_version,
            p2p_addr: U16::new(address_of(self.xy).0),
            p2p_dims: U16::new(u16::from(boot.width) << 8 | u16::from(boot.height)),
            dbg_addr: U16::new(boot.ethernet.0),
            p2p_up: 1,
            eth_addr: U16::new(boot.ethernet.0),
            eth_up: u8::from(boot.ip.is_some()),
            netinit_phase: NETINIT_DONE,
            p2p_root: U16::new(boot.root.0),
            root_chip: u8::from(boot.is_root),
            sysram_heap: U32::new(RAM_HEAP.address),
            sdram_heap: U32::new(SDRAM_HEAP.address),
            sdram_bufs: U32::new(spinnaker_machine::SDRAM_BASE),
            link_en: self.links,
            shm_free: U32::new(RAM_HEAP.address + 24),
            shm_max: U16::new(1),
            // The seed that a monitor makes of SDRAM that is all zero.
            random: U32::new(0xA5),
            ..BootVariables::for_board(board, boot.unix_time_s)
        };
        (sv.p2v_map, sv.v2p_map) = ([255; 20], [255; 20]);
        (sv.p2v_map[0], sv.v2p_map[0]) = (0, 0);
        for (virtual_core, core) in (1..).zip(&self.cores) {
            sv.p2v_map[usize::from(core.number)] = virtual_core;
            sv.v2p_map[usize::from(virtual_core)] = core.number;
        }
        sv.num_cpus = self.virtual_cores();
        sv.board_addr = U16::new(boot.on_board.0);
        sv.sdram_base = U32::new(SDRAM_USER);
        sv.sysram_base = U32::new(RAM_BASE + 0x100);
        sv.sdram_sys = U32::new(SDRAM_SYSTEM);
        sv.vcpu_base = U32::new(RAM_BASE + RAM_VCPU as u32);
        sv.sys_heap = U32::new(SYSTEM_HEAP.address);
        sv.rtr_copy = U32::new(ROUTES.address);
        sv.hop_table = U32::new(table_address(0));
        sv.alloc_tag = U32::new(TAG_TABLE);
        sv.rtr_free = U16::new(1);
        sv.p2p_active = U16::new(self.p2p.known());
        sv.app_data = U32::new(APPLICATIONS);
        sv.shm_buf = U32::new(RAM_HEAP.address + 24);
        sv.ip_addr = boot.ip.map_or([0; 4], |ip| ip.octets());
        sv.board_info = U32::new(0xE500_7900);
        sv.sw_ver = U32::new(KERNEL_VERSION);
        sv
    }
}

/// Bytes of the message buffers in system RAM.
pub(super) const fn buffers_bytes() -> u32 {
    BUFFERS * BUFFER_BYTES
}

/// Bytes of the tables in system SDRAM, in order.
pub(super) const fn tables() -> [u32; 6] {
    TABLES
}
