//! One chip of an instruction-level machine: 18 cores, the devices of each, and what they share.
//!
//! A chip is a discrete-event simulation of its own. Its cores run in turns up to the next event (or a quantum); an access
//! that changes something ends a turn, so that what follows from it happens at its time. A core that waits for an
//! interrupt is not run at all.
//!
//! # What is modelled, what is approximated and what is not
//!
//! * Registers: all of the data sheet's that software uses; their reset values; side effects of reads; refusal of User mode
//!   by DMA and system controller, and by the VIC when told to. Not: byte-wise writes to registers (taken as words).
//! * Stores fail as their address says: at once, or, buffered, without a word but for the DMA controller's. The core's own write
//!   buffer counts as on (system software has it on).
//! * Times of accesses are named in [`CycleTiming`](crate::cycle::CycleTiming). DMA transfers share the SDRAM as in the
//!   fidelity `fast`, and move their data when they end. Loads and stores of different cores do not wait for each other, nor for
//!   DMA: no measurement of that is published. Single loads of 17 cores stay below the 640 MB/s that transfers have together (one
//!   word a core each 110 ns: 618 MB/s), so there is little to miss; loads of several words (222 MB/s a core) and
//!   buffered stores (67 MB/s a core) of many cores at once are faster here than the memory can be.
//! * Cores that run at once see each other's writes at most a quantum late. How late depends on where their turns are cut:
//!   by the quantum, by the chip's events and by what other chips do; never by the steps in which a caller lets time pass.
//! * DMA times out by the mean duration of a transfer's bursts, when it ends.
//! * Router: all registers but the histogram of delays, which reads as zero: that it has 16 counters is published, what each of
//!   them counts is not. One packet a router cycle; wait times, diversion, dump, errors.
//! * The boot ROM is not interpreted: see [`bootrom`](crate::bootrom).

mod bus;
mod clock;
mod comms;
mod devices;
mod dma;
mod ethernet;
mod events;
mod inspect;
mod memory;
mod noc;
mod phy;
mod pl340;
mod power;
mod probe;
mod rest;
mod router;
mod routing;
mod serial_rom;
mod slow_clock;
mod system;
mod timer;
mod vic;
mod watchdog;

#[cfg(test)]
mod tests;

use crate::arm968::{CodeStore, Cpu, Exit};
use crate::bootrom::Rom;
use crate::network::Link;
use bus::{CoreBus, Local};
use clock::CoreClock;
use noc::Noc;
use rest::{Habits, Rest};
use routing::Routing;
use slow_clock::SlowClock;
use system::System;

pub(crate) use dma::crc32;
pub(crate) use ethernet::wire_ps;
pub(crate) use events::{Event, RomEvent};
pub(crate) use memory::SYSTEM_RAM_BYTES;
pub(crate) use noc::{Message, Times};
pub use probe::Hit;
pub(crate) use probe::{Doing, Probe, Span, What};
pub use serial_rom::BoardAddress;
pub(crate) use serial_rom::{SerialRom, ram_words};
pub(crate) use system::CORES;

/// Control register of a core with both memories on and low vectors.
pub(crate) const TCMS_ON: u32 = 1 << 12 | 1 << 2;

/// What a core is doing, as its chip sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Activity {
    /// It does not work.
    Broken,
    /// In the boot ROM.
    Rom,
    /// It executes.
    Running,
    /// It waits for an interrupt.
    Asleep,
}

/// A core with its devices.
pub(crate) struct Core {
    pub cpu: Cpu,
    pub local: Local,
    pub clock: CoreClock,
    pub activity: Activity,
    /// In reset, or its bus is stalled: it does nothing.
    pub held: bool,
    in_reset: bool,
    /// A debugger has it.
    pub stopped: bool,
    /// When it runs next, ps; the end of time for a core that does not by itself.
    next_ps: u64,
    /// Its interrupt inputs, IRQ and FIQ.
    inputs: (bool, bool),
    /// What it does each time that its timer wakes it.
    habits: Habits,
}

/// A change that a person may want to read of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogEntry {
    /// Machine time, ns.
    pub time_ns: u64,
    /// What happened.
    pub text: String,
}

/// What a chip is made of.
pub(crate) struct Setup {
    /// Bit per core that works.
    pub working_cores: u32,
    /// The core that the boot ROM elects.
    pub monitor: u8,
    /// Present on a board's Ethernet chip.
    pub board: Option<BoardAddress>,
    pub hardware_version: u8,
    pub links: [Link; 6],
    pub times: Times,
    pub seed: u64,
    pub parity_errors: u16,
    /// Multicast packets in 65,536 that are lost on a link.
    pub packet_losses: u16,
    /// Wakes may be put off.
    pub rests: bool,
    /// Compiled code that cores share.
    pub code: CodeStore,
}

pub(crate) struct Chip {
    pub cores: Vec<Core>,
    pub noc: Noc,
    pub rom: Rom,
    routing: Routing,
    router_ps: u64,
    /// Bit per core that runs by itself at its `next_ps`.
    going: u32,
    /// Bit per core that polls: it is run before whatever may change what it sees, and its clock may be behind meanwhile.
    polling: u32,
    rests: bool,
    /// Wakes of a core that are still to be made.
    rest: Option<Rest>,
    /// Events so far.
    happened: u64,
    /// Breakpoints met so far.
    pub stops: u64,
    /// What is watched, if anything is.
    pub probe: Option<Box<Probe>>,
    /// Chip-level interrupt sources as the cores' controllers have them.
    lines: u32,
    seed: u64,
    parity_errors: u16,
    packet_losses: u16,
    watchdog_generation: u32,
    buffer: Vec<u32>,
}

/// Numbers of the bits that are set, ascending.
fn bits(mut mask: u32) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let bit = mask.trailing_zeros();
        mask &= mask.wrapping_sub(1);
        (bit < 32).then_some(bit as usize)
    })
}

impl Chip {
    /// A chip at power on.
    pub fn new(setup: Setup) -> Self {
        let mut chip = Self::unpowered(setup);
        chip.enter_rom(0);
        chip
    }

    /// A chip in which nothing happens.
    fn unpowered(setup: Setup) -> Self {
        let serial_rom = setup.board.as_ref().map(|board| SerialRom::new(board, setup.hardware_version, &[]));
        let system = System::new(serial_rom);
        let ethernet = ethernet::Ethernet::new(setup.board.is_some());
        let core = |number: usize| Core {
            cpu: Cpu::with_code_store(setup.code.clone()),
            local: Local::new(number as u8),
            clock: CoreClock::new(system.clocks.core_ps(number)),
            activity: if setup.working_cores >> number & 1 != 0 { Activity::Rom } else { Activity::Broken },
            held: false,
            in_reset: false,
            stopped: false,
            next_ps: u64::MAX,
            inputs: (false, false),
            habits: Habits::default(),
        };
        let cores = (0..CORES).map(core).collect();
        let router_ps = system.clocks.router_ps();
        Self {
            cores,
            noc: Noc::new(setup.times, system, ethernet, setup.links),
            rom: Rom::new(setup.monitor, setup.board, setup.hardware_version),
            routing: Routing::default(),
            router_ps,
            going: 0,
            polling: 0,
            rests: setup.rests,
            rest: None,
            happened: 0,
            stops: 0,
            probe: None,
            lines: 0,
            seed: setup.seed,
            parity_errors: setup.parity_errors,
            packet_losses: setup.packet_losses,
            watchdog_generation: 0,
            buffer: Vec::new(),
        }
    }

    /// When the chip has something to do next.
    pub fn next_ps(&self) -> u64 {
        self.noc.events.next_ps().min(self.next_core_ps())
    }

    /// Cores that execute.
    pub fn running_cores(&self) -> usize {
        self.going.count_ones() as usize
    }

    fn next_core_ps(&self) -> u64 {
        let mut least = u64::MAX;
        for core in bits(self.going) {
            least = least.min(self.cores[core].next_ps);
        }
        least
    }

    /// A core runs next at this time; at the end of time: not by itself.
    fn set_next(&mut self, core: usize, next_ps: u64) {
        self.cores[core].next_ps = next_ps;
        let bit = 1 << core;
        self.polling &= !bit;
        self.going = if next_ps == u64::MAX { self.going & !bit } else { self.going | bit };
    }

    /// Lets everything happen that happens before `end_ps`; less, if the chip sends something that could be answered
    /// before then, or if it meets a breakpoint.
    pub fn advance(&mut self, end_ps: u64) {
        loop {
            let end_ps = end_ps.min(self.noc.outbox_ps.saturating_add(self.noc.times.lookahead_ps));
            let (core_ps, event_ps) = (self.next_core_ps(), self.noc.events.next_ps());
            if core_ps.min(event_ps) >= end_ps || self.stops > 0 {
                return;
            }
            if event_ps <= core_ps {
                if self.rest.is_some() {
                    self.end_rest(event_ps);
                    continue;
                }
                self.run_polling(event_ps);
                if let Some((time_ps, event)) = self.noc.events.pop() {
                    self.happened += 1;
                    self.happen(event, time_ps);
                    self.look_again();
                }
                continue;
            }
            if self.going.is_power_of_two() && self.polling == 0 {
                // Nobody to take turns with, until this one wakes somebody.
                let core = self.going.trailing_zeros() as usize;
                self.run_core_once(core, end_ps);
                if self.cores[core].activity == Activity::Asleep {
                    self.fell_asleep(core);
                }
                continue;
            }
            let quantum_ps = u64::from(self.noc.times.cycle.quantum_ns) * 1000;
            let bound_ps = end_ps.min(core_ps.saturating_add(quantum_ps.max(1)));
            for core in bits(self.going) {
                if self.cores[core].next_ps < bound_ps {
                    self.run_core(core, bound_ps);
                }
            }
            self.run_polling(bound_ps);
        }
    }

    /// Lets cores that poll see what there is until `bound_ps`.
    fn run_polling(&mut self, bound_ps: u64) {
        for core in bits(self.polling) {
            let unit = &self.cores[core];
            if unit.cpu.cycles() < unit.clock.cycles(bound_ps) {
                self.run_core(core, bound_ps);
            }
        }
    }

    /// After an event: cores that poll may see something else.
    fn look_again(&mut self) {
        for core in bits(self.polling) {
            let unit = &self.cores[core];
            self.set_next(core, unit.clock.ps(unit.cpu.cycles()));
        }
    }

    /// Brings a core that was left alone up to a time.
    fn catch_up(&mut self, core: usize, now_ps: u64) {
        let unit = &self.cores[core];
        let goes = unit.activity == Activity::Running && !unit.held && !unit.stopped;
        if goes && unit.cpu.cycles() < unit.clock.cycles(now_ps) {
            self.run_core(core, now_ps);
        }
    }

    /// Runs a core until `bound_ps` or the next event. A core that only counts until later need not be run before.
    fn run_core(&mut self, core: usize, bound_ps: u64) {
        while self.run_core_once(core, bound_ps) {}
    }

    /// Runs a core until `bound_ps` or the next event, but no longer than to an access that the chip has to look at.
    /// Whether there is time left after that.
    fn run_core_once(&mut self, core: usize, bound_ps: u64) -> bool {
        let unit = &mut self.cores[core];
        let until_ps = bound_ps.min(self.noc.events.next_ps());
        let until = unit.clock.cycles(until_ps);
        let mut bus = CoreBus::new(core, &mut unit.local, &mut self.noc, unit.clock);
        match unit.cpu.run(&mut bus, until) {
            Exit::Breakpoint => {
                unit.stopped = true;
                self.stops += 1;
                let at_ps = unit.clock.ps(unit.cpu.cycles());
                self.watch_core(core, at_ps);
                self.set_next(core, u64::MAX);
                false
            }
            Exit::Until => {
                let quiet = unit.cpu.quiet_until();
                let next_ps = if quiet == u64::MAX { u64::MAX } else { unit.clock.ps(quiet) };
                self.set_next(core, next_ps);
                self.polling |= u32::from(quiet == u64::MAX) << core;
                false
            }
            Exit::WaitForInterrupt => {
                unit.activity = Activity::Asleep;
                let at_ps = unit.clock.ps(unit.cpu.cycles());
                self.set_next(core, u64::MAX);
                self.watch_core(core, at_ps);
                self.noc.system.sleeping |= 1 << core;
                false
            }
            Exit::Attention => {
                let next_ps = unit.clock.ps(unit.cpu.cycles());
                self.set_next(core, next_ps);
                self.after_access(core);
                self.cores[core].next_ps < bound_ps.min(self.noc.events.next_ps())
            }
        }
    }

    fn happen(&mut self, event: Event, now_ps: u64) {
        match event {
            Event::CoreSent(core) => self.core_sent(core, now_ps),
            Event::Arrived { link, packet } => self.link_arrival(link, packet, now_ps),
            Event::DirectAnswer { link, packet } => self.direct_answer(link, packet, now_ps),
            Event::RouterStep => self.router_step_due(now_ps),
            Event::RouterTimeout(wait) => self.router_timeout(wait, now_ps),
            Event::RouterRetry => self.router_retry(now_ps),
            Event::PathEnd(core) => self.path_end(core, now_ps),
            Event::Timer { core, generation } => self.timer_due(usize::from(core), generation, now_ps),
            Event::Dma => self.dma_due(now_ps),
            Event::Frame => self.frame_arrived(now_ps),
            Event::FrameSent => {
                self.noc.ethernet.sent();
                self.noc.lines_changed = true;
            }
            Event::SlowClock(core) => {
                self.cores[usize::from(core)].local.slow_clock.due_ps = u64::MAX;
                self.update_lines(usize::from(core), now_ps);
            }
            Event::Watchdog(generation) => self.watchdog_due(generation, now_ps),
            Event::Rom(event) => self.rom_due(event, now_ps),
        }
        if self.noc.lines_changed {
            self.share_lines(now_ps);
        }
    }

    /// What follows from a core's access.
    fn after_access(&mut self, core: usize) {
        let unit = &mut self.cores[core];
        let now_ps = unit.clock.ps(unit.cpu.cycles());
        let touched = std::mem::take(&mut unit.local.touched);
        if touched.taken {
            self.move_up(core, now_ps);
        }
        if touched.timers {
            self.schedule_timers(core);
        }
        if touched.dma {
            self.start_dma(core, now_ps);
        }
        if self.noc.watchdog_written {
            self.noc.watchdog_written = false;
            self.schedule_watchdog();
        }
        self.apply_effects(now_ps);
        if self.noc.lines_changed {
            self.share_lines(now_ps);
        }
        self.update_lines(core, now_ps);
    }

    /// Gives chip-level interrupt sources to all cores.
    fn share_lines(&mut self, now_ps: u64) {
        self.noc.lines_changed = false;
        let lines = self.noc.lines();
        if lines != self.lines {
            self.lines = lines;
            (0..CORES).for_each(|core| self.update_lines(core, now_ps));
        }
    }

    /// Brings a core's interrupt inputs up to date; wakes it.
    pub(crate) fn update_lines(&mut self, core: usize, now_ps: u64) {
        use vic::source::{SLOW_CLOCK, SYSTEM_CONTROLLER};
        let unit = &mut self.cores[core];
        let own = (self.noc.system.cpu_irq >> core & 1) << SYSTEM_CONTROLLER;
        let local = &mut unit.local;
        let edge = local.slow_clock.flag(now_ps);
        local.vic.set_lines(local.lines() | self.lines | own | u32::from(edge) << SLOW_CLOCK);
        let next_ps = SlowClock::next_ps(now_ps);
        if !edge && local.vic.enabled(SLOW_CLOCK) && local.slow_clock.due_ps > next_ps {
            local.slow_clock.due_ps = next_ps;
            self.noc.events.push(next_ps, Event::SlowClock(core as u8));
        }
        let inputs = unit.local.vic.outputs();
        if inputs == unit.inputs {
            return;
        }
        unit.inputs = inputs;
        self.catch_up(core, now_ps);
        let unit = &mut self.cores[core];
        // What the core has done meanwhile may have changed them again.
        let (irq, fiq) = unit.inputs;
        unit.cpu.set_lines(irq, fiq);
        if (irq || fiq) && unit.activity == Activity::Asleep {
            unit.activity = Activity::Running;
            self.noc.system.sleeping &= !(1 << core);
        }
        self.set_going(core, now_ps);
    }

    /// A core goes on at this time, unless it is held.
    pub(crate) fn set_going(&mut self, core: usize, now_ps: u64) {
        self.watch_core(core, now_ps);
        let unit = &mut self.cores[core];
        if unit.activity != Activity::Running || unit.held || unit.stopped {
            self.set_next(core, u64::MAX);
            return;
        }
        let now = unit.clock.cycles(now_ps);
        if unit.cpu.cycles() < now {
            unit.cpu.set_cycles(now);
        }
        let next_ps = unit.clock.ps(unit.cpu.cycles());
        self.set_next(core, next_ps);
    }

    /// Brings the clocks of all cores up to a time before which nothing else happens.
    pub fn settle(&mut self, now_ps: u64) {
        self.come_to(now_ps);
        for core in bits(self.going | self.polling) {
            self.catch_up(core, now_ps);
        }
    }

    /// A debugger takes a core, or gives it back.
    pub fn stop(&mut self, core: usize, stopped: bool, now_ps: u64) {
        self.catch_up(core, now_ps);
        self.cores[core].stopped = stopped;
        self.set_going(core, now_ps);
    }

    /// A core begins anew with memories on, at an address. Whether it works.
    pub fn start(&mut self, core: usize, entry: u32, now_ps: u64) -> bool {
        let unit = &mut self.cores[core];
        if unit.activity == Activity::Broken {
            return false;
        }
        unit.cpu.reset();
        unit.cpu.set_control(TCMS_ON);
        unit.cpu.set_pc(entry);
        unit.activity = Activity::Running;
        self.noc.system.sleeping &= !(1 << core);
        self.set_going(core, now_ps);
        true
    }

    /// Executes one instruction of a core that a debugger has.
    pub fn step(&mut self, core: usize, now_ps: u64) {
        let unit = &mut self.cores[core];
        let now = unit.clock.cycles(now_ps);
        if unit.cpu.cycles() < now {
            unit.cpu.set_cycles(now);
        }
        let (clock, local, noc) = (unit.clock, &mut unit.local, &mut self.noc);
        unit.cpu.step(&mut CoreBus::new(core, local, noc, clock));
        self.after_access(core);
    }

    /// A packet from another chip, or word that one was taken.
    pub fn deliver(&mut self, message: Message) {
        match message.packet {
            Some(packet) => self.noc.events.push(message.time_ps, Event::Arrived { link: message.link, packet }),
            None => self.credit(message.link, message.time_ps),
        }
    }

    /// A frame from outside, all of it there at `time_ps`. Times do not decrease.
    pub fn deliver_frame(&mut self, time_ps: u64, frame: Vec<u8>) {
        self.noc.frames_in.push_back(frame);
        self.noc.events.push(time_ps, Event::Frame);
    }
}
