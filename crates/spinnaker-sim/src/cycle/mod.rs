//! The virtual SpiNNaker, fidelity `cycle`: chips whose cores execute the real instructions of real binaries.
//!
//! A [`CycleMachine`] is a machine of blank chips in their boot ROM. A host sends it UDP datagrams ([`Datagram`]), the boot
//! image first, and lets simulated time pass; what the boards send comes back with the time at which it was sent.
//!
//! ```
//! use spinnaker_machine::Machine;
//! use spinnaker_sim::cycle::{BOOT_PORT, CycleConfig, CycleMachine};
//!
//! // A blank board: its boot ROM says HELLO every 4,096 ms.
//! let mut machine = CycleMachine::new(&Machine::spin3(), &CycleConfig::default());
//! machine.run_for(4_300_000_000);
//! let hello = machine.receive().expect("HELLO");
//! assert_eq!((hello.port, hello.data[5]), (BOOT_PORT, 0x41));
//! ```
//!
//! # What is modelled, what is approximated and what is not
//!
//! * Processor: [`arm968`](crate::arm968). All cores of a chip have their own clock, as the PLLs are set.
//! * Devices of a chip: registers of the data sheet with their side effects and reset values. Not: the
//!   router's histogram of delays (what its counters count is not published), settings of the SDRAM controller (its timing is fixed),
//!   byte order other than the wire's in the Ethernet buffers, refresh.
//! * Accesses of cores take named times ([`CycleTiming`]); loads and stores of different cores do not wait for each other, so
//!   that many cores which load several words at a time, or store, reach more of the SDRAM than it can give.
//!   DMA transfers share the SDRAM fluidly and move their data when they end. Cores of a chip that run at once see
//!   each other's writes at most a quantum late.
//! * Boot ROM: natively, no ROM code is interpreted; ROM content reads as zero. From Ethernet and from neighbours, with
//!   HELLO, ARP, ICMP echo, watchdog and the hand-over state of the published source. Self tests take a fixed time.
//! * Network: packets of all four types with peek and poke, router stalls, time-outs, emergency routing, dump and error
//!   registers, diagnostic counters. A packet holds a link for its time; the buffers of both ends hold four packets;
//!   the sender learns one hop (0.24 us) late that the receiver took one. A receiver's registers hold one packet and the
//!   path before them another. Links between boards are slower by their published rate, and else like others.
//! * Faults: dead chips, links and cores; turned bits; frames lost between host and board. Dead cores have
//!   physical numbers; a core that does not work fails its self test. Clocks of boards do not drift.
//! * Host: Ethernet at 100 Mbit/s, full duplex, a PHY that always has link; a host at every address that is asked for.
//!
//! # Determinism
//!
//! Chips are simulated apart for as long as no other can reach them (`schedule`), on as many threads as
//! the configuration says. Same machine, configuration and calls: same bits, same times, same [`CycleMachine::trace_hash`].
//! In how many steps a caller lets time pass does not count. What a caller sees of memories and cores may be up to 6 us
//! ahead of the machine's time; what he changes comes after that.

mod config;
mod debug;
mod host;
mod plan;
mod schedule;
mod snapshot;
mod timeline;

use std::collections::BTreeMap;
use std::sync::Mutex;

use spinnaker_machine::{ChipXy, Link, Machine};

use crate::chip::Chip;
pub use crate::chip::{BoardAddress, Hit, LogEntry};
pub use config::{CycleConfig, CycleTiming, default_address};
use host::HostSide;
pub use host::{BOOT_PORT, Datagram};
use plan::Plan;
pub use snapshot::{ChipSnapshot, CoreActivity, CoreSnapshot, Counts, Snapshot};
pub use timeline::TimelineSize;

/// An instruction-level machine.
pub struct CycleMachine {
    places: Vec<ChipXy>,
    index: BTreeMap<ChipXy, u32>,
    chips: Vec<Mutex<Chip>>,
    /// What the chips are made of.
    plan: Plan,
    /// Which of them have power.
    powered: Vec<bool>,
    /// When each chip has something to do next, ps.
    next_ps: Vec<u64>,
    /// How much each chip has to do in a round.
    work: Vec<usize>,
    hand_off_work: usize,
    /// Other chips nearer than [`schedule::NEAR_HOPS`], with the least time to them.
    near: Vec<Vec<(u32, u64)>>,
    /// Chips of a round: a buffer.
    active: Vec<(usize, u64)>,
    host: HostSide,
    now_ps: u64,
    /// Until when any chip was let run: not much more than `now_ps`.
    ahead_ps: u64,
    lookahead_ps: u64,
    threads: usize,
    /// Breakpoints met so far.
    stops: u64,
    /// Packets and DMA transfers that are waited for stop the machine.
    halting: bool,
}

/// A number from a seed and what it is for.
fn drawn(seed: u64, purpose: u64) -> u64 {
    let mut x = seed.wrapping_add(purpose.wrapping_mul(0x9E37_79B9_7F4A_7C15)).wrapping_add(0x632B_E59B_D9B4_E019);
    x = (x ^ x >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ x >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ x >> 31
}

impl CycleMachine {
    /// The machine at power on.
    pub fn new(machine: &Machine, config: &CycleConfig) -> Self {
        let places: Vec<ChipXy> = machine.chips.keys().copied().collect();
        let index: BTreeMap<ChipXy, u32> = places.iter().zip(0..).map(|(&xy, i)| (xy, i)).collect();
        let plan = Plan::new(machine, config);
        let lookahead_ps = plan.times.lookahead_ps;
        let powered = vec![true; places.len()];
        let chips: Vec<_> = (0..places.len()).map(|index| Mutex::new(Chip::new(plan.setup(index, &powered)))).collect();
        let next_ps = vec![0; chips.len()];
        let work = vec![1; chips.len()];
        let near = (0..chips.len()).map(|chip| Self::nearby(machine, &places, &index, chip, lookahead_ps)).collect();
        let host = HostSide::new(plan.boards.clone(), config.host_losses_per_65536, drawn(config.seed, 1 << 41));
        Self {
            places,
            index,
            chips,
            plan,
            powered,
            next_ps,
            work,
            hand_off_work: config.hand_off_cores,
            near,
            active: Vec::new(),
            host,
            now_ps: 0,
            ahead_ps: 0,
            lookahead_ps,
            threads: config.threads.max(1),
            stops: 0,
            halting: false,
        }
    }

    /// The chips that few hops lead from to a chip, each with the time of so many hops.
    fn nearby(
        machine: &Machine,
        places: &[ChipXy],
        index: &BTreeMap<ChipXy, u32>,
        chip: usize,
        hop_ps: u64,
    ) -> Vec<(u32, u64)> {
        let mut found: Vec<(ChipXy, u64)> = vec![(places[chip], 0)];
        let mut from = 0;
        for hops in 1..schedule::NEAR_HOPS as u64 {
            let to = found.len();
            for at in from..to {
                let place = found[at].0;
                for there in Link::ALL.iter().filter_map(|&link| machine.neighbour(place, link)) {
                    if found.iter().all(|&(known, _)| known != there) {
                        found.push((there, hops * hop_ps));
                    }
                }
            }
            from = to;
        }
        found[1..].iter().map(|&(place, time_ps)| (index[&place], time_ps)).collect()
    }

    /// Machine time, ns.
    pub fn now_ns(&self) -> u64 {
        self.now_ps / 1000
    }

    /// Chips, in the order of everything that lists them.
    pub fn places(&self) -> &[ChipXy] {
        &self.places
    }

    /// Boards: Ethernet chip and address, the one at the lowest place first.
    pub fn boards(&self) -> impl Iterator<Item = (ChipXy, BoardAddress)> + '_ {
        self.host.boards().map(|(chip, address)| (self.places[chip as usize], address))
    }

    /// When a change from outside takes place that a caller makes now: not before anything that was simulated already.
    fn present_ps(&self) -> u64 {
        self.now_ps.max(self.ahead_ps)
    }

    /// A chip, to change something.
    fn chip(&mut self, xy: ChipXy) -> Option<&mut Chip> {
        let index = *self.index.get(&xy)? as usize;
        let chip = self.chips[index].get_mut().ok()?;
        chip.rouse(self.now_ps);
        self.next_ps[index] = chip.next_ps();
        Some(chip)
    }

    /// A chip, to look at it.
    fn seen(&mut self, xy: ChipXy) -> Option<&mut Chip> {
        let index = *self.index.get(&xy)? as usize;
        let chip = self.chips[index].get_mut().ok()?;
        chip.come_to(self.now_ps);
        Some(chip)
    }

    /// Reads memory of a chip as the System NoC has it, without effect: SDRAM and system RAM; zero elsewhere. `None` without
    /// such a chip.
    pub fn peek(&mut self, xy: ChipXy, address: u32, bytes: usize) -> Option<Vec<u8>> {
        let chip = self.seen(xy)?;
        let mut out = vec![0; bytes];
        chip.noc.peek_bytes(address, &mut out);
        Some(out)
    }

    /// Reads a word of a chip's devices as the System NoC has it: what a peek packet would read, with its side effects. `None`
    /// without such a chip, or for a bus error.
    pub fn device_word(&mut self, xy: ChipXy, address: u32) -> Option<u32> {
        let now_ps = self.now_ps;
        let chip = self.seen(xy)?;
        let region = chip.noc.region_from_system(address & !3)?;
        chip.noc.read(region, crate::arm968::Size::Word, now_ps).ok()
    }

    /// Lets the machine run for `ns` nanoseconds of its time.
    pub fn run_for(&mut self, ns: u64) {
        let end_ns = self.now_ns().saturating_add(ns);
        self.run_until(end_ns);
    }

    /// Lets the machine run until its time is `end_ns`.
    pub fn run_until(&mut self, end_ns: u64) {
        self.run_until_ps(end_ns.saturating_mul(1000));
    }

    /// Switches chips off, or on (off and on again, if they were on): those of which `change` says so. The others go on, with
    /// nobody at the other end of links that lead to chips without power. What watches a chip stays.
    pub fn power(&mut self, change: impl Fn(ChipXy) -> Option<bool>) {
        let now_ps = self.present_ps();
        let changes: Vec<Option<bool>> = self.places.iter().map(|&place| change(place)).collect();
        for (powered, change) in self.powered.iter_mut().zip(&changes) {
            *powered = change.unwrap_or(*powered);
        }
        for (index, chip) in self.chips.iter_mut().enumerate() {
            let Ok(chip) = chip.get_mut() else { continue };
            chip.rouse(now_ps);
            match changes[index] {
                Some(on) => chip.switch(self.plan.setup(index, &self.powered), !on, now_ps),
                None if self.powered[index] => {
                    for link in self.plan.links_to(index, |there| changes[there].is_some()) {
                        chip.relink(link, self.plan.link(index, link, &self.powered), now_ps);
                    }
                }
                None => {}
            }
            self.next_ps[index] = chip.next_ps();
        }
    }

    /// Whether there is a chip with power.
    pub fn is_powered(&self, xy: ChipXy) -> bool {
        self.index.get(&xy).is_some_and(|&index| self.powered[index as usize])
    }

    /// Sends a datagram to a board now. False if there is no such board, it has no power, the datagram is too long for a frame,
    /// or a second's worth of frames is on its way already.
    pub fn send(&mut self, datagram: &Datagram) -> bool {
        let Some(chip) = self.powered_chip(datagram.board) else { return false };
        let Some((time_ps, frame)) = self.host.frame(chip, datagram, self.now_ps) else { return false };
        self.deliver_frame(chip, time_ps, frame);
        true
    }

    /// Sends a raw Ethernet frame (without FCS) to a board now. False as for [`CycleMachine::send`].
    pub fn send_frame(&mut self, board: ChipXy, frame: Vec<u8>) -> bool {
        let Some(chip) = self.powered_chip(board) else { return false };
        let Some(time_ps) = self.host.wire(chip, frame.len(), self.now_ps) else { return false };
        self.deliver_frame(chip, time_ps, frame);
        true
    }

    fn powered_chip(&self, xy: ChipXy) -> Option<u32> {
        self.index.get(&xy).copied().filter(|&index| self.powered[index as usize])
    }

    fn deliver_frame(&mut self, chip: u32, time_ps: u64, frame: Vec<u8>) {
        if self.host.loses() {
            return;
        }
        let index = chip as usize;
        if let Ok(chip) = self.chips[index].get_mut() {
            chip.deliver_frame(time_ps, frame);
            self.next_ps[index] = chip.next_ps();
        }
    }

    /// The oldest datagram that came out and was not taken yet.
    pub fn receive(&mut self) -> Option<Datagram> {
        self.host.take_datagram(self.now_ps)
    }

    /// Frames that came out and are neither UDP nor answered here (ARP requests are), oldest first.
    pub fn receive_frame(&mut self) -> Option<(u64, ChipXy, Vec<u8>)> {
        let (time_ps, chip, frame) = self.host.take_other(self.now_ps)?;
        Some((time_ps / 1000, self.places[chip as usize], frame))
    }

    /// Sends a datagram and runs until the next one comes out, or the time is over.
    pub fn request(&mut self, datagram: &Datagram, timeout_ns: u64) -> Option<Datagram> {
        const STEP_NS: u64 = 10_000;
        if !self.send(datagram) {
            return None;
        }
        let end_ns = self.now_ns().saturating_add(timeout_ns);
        while !self.host.has_datagram(self.now_ps) && self.now_ns() < end_ns {
            self.run_until(end_ns.min(self.now_ns() + STEP_NS));
        }
        self.receive()
    }

    /// Takes the log of all chips so far, in order of time.
    pub fn take_log(&mut self) -> Vec<(ChipXy, LogEntry)> {
        let mut log = Vec::new();
        for (chip, &xy) in self.chips.iter_mut().zip(&self.places) {
            if let Ok(chip) = chip.get_mut() {
                log.extend(std::mem::take(&mut chip.noc.log).into_iter().map(|entry| (xy, entry)));
            }
        }
        log.sort_by_key(|(xy, entry)| (entry.time_ns, *xy));
        log
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_can_be_given_to_another_thread() {
        fn is_send<T: Send>() {}
        is_send::<CycleMachine>();
    }

    #[test]
    fn dead_cores_of_a_locator_are_dead_by_number() {
        let locator: spinnaker_machine::Locator = "virtual:spin3?dead=1,0,7&fidelity=cycle".parse().expect("a locator");
        let spinnaker_machine::Locator::Virtual(locator) = locator else { panic!("a virtual machine") };
        for seed in 0..20 {
            let config = CycleConfig { seed, ..CycleConfig::from(&locator) };
            let mut machine = CycleMachine::new(&locator.machine().expect("a machine"), &config);
            let snapshot = machine.snapshot();
            let chip = snapshot.chips.iter().find(|chip| chip.place == ChipXy::new(1, 0)).expect("a chip");
            let dead = |core: &CoreSnapshot| core.activity == CoreActivity::Broken;
            assert_eq!((chip.cores.iter().filter(|core| dead(core)).count(), dead(&chip.cores[7])), (1, true));
        }
    }

    #[test]
    fn frames_beyond_a_seconds_worth_are_refused() {
        let mut machine = CycleMachine::new(&Machine::spin3(), &CycleConfig::default());
        let board = machine.places()[0];
        let sent = (0..20_000).take_while(|_| machine.send_frame(board, vec![0; 1514])).count();
        // 1,538 byte times each.
        assert_eq!(sent, 1_000_000_000 / (1538 * 80) + 1);
        assert!(!machine.send_frame(ChipXy::new(1, 1), vec![0; 60]));
        machine.run_for(100_000_000);
        assert!(machine.send_frame(board, vec![0; 60]));
    }
}
