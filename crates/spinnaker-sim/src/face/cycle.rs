//! The instruction-level machine as a [`VirtualBoard`].

use std::fmt::Write;
use std::net::Ipv4Addr;

use spinnaker_machine::{ChipXy, Link, Machine};
use spinnaker_wire::vcpu::{self, CoreState, Vcpu};

use super::watch::Watch;
use super::{Datagram, LogLine, VirtualBoard};
use crate::arm968::TraceSink;
use crate::cycle::{CoreActivity, CycleConfig, CycleMachine};

/// Machine time between looks at the cores' states for the log.
const LOOK_NS: u64 = 50_000_000;
/// Machine time between looks whether a core that somebody waits for has its number.
const NUMBERED_NS: u64 = 1_000_000;

/// A core by the number that its chip's monitor gives it, as SCP counts them; 0 is the monitor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct CorePlace {
    /// Its chip.
    pub chip: ChipXy,
    /// Its number there.
    pub core: u8,
}

impl std::fmt::Display for CorePlace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{},{},{}", self.chip.x, self.chip.y, self.core)
    }
}

/// What is to be set in a core when it has its number.
enum Wish {
    Trace(TraceSink),
    DmaBreak,
}

/// An instruction-level machine with a power switch for each board.
pub struct CycleBoard {
    /// The machine with all boards on.
    whole: Machine,
    config: CycleConfig,
    /// Ethernet chips and whether their boards are on.
    boards: Vec<(ChipXy, bool)>,
    addresses: Vec<(ChipXy, Ipv4Addr)>,
    machine: CycleMachine,
    /// Time of the face when the present machine was switched on.
    switched_on_ns: u64,
    watch: Watch,
    looked_ns: u64,
    log: Vec<LogLine>,
    wishes: Vec<(CorePlace, Wish)>,
}

impl CycleBoard {
    /// The machine at power on.
    pub fn new(machine: Machine, mut config: CycleConfig) -> Self {
        // A part of a machine has the hardware of the whole.
        config.hardware_version.get_or_insert(if machine.chips.len() <= 4 { 3 } else { 5 });
        let running = CycleMachine::new(&machine, &config);
        let addresses: Vec<_> = running.boards().map(|(chip, address)| (chip, address.ip)).collect();
        let boards = addresses.iter().map(|(chip, _)| (*chip, true)).collect();
        Self {
            whole: machine,
            config,
            boards,
            addresses,
            machine: running,
            switched_on_ns: 0,
            watch: Watch::default(),
            looked_ns: 0,
            log: Vec::new(),
            wishes: Vec::new(),
        }
    }

    /// The machine as it is now; its time counts from when it was last switched, and what was watched in it before is not any
    /// more.
    pub fn machine(&mut self) -> &mut CycleMachine {
        &mut self.machine
    }

    /// Gives every instruction of a core to a sink from when it has its number: for the monitor at once, for others when the
    /// monitor program numbers them.
    pub fn trace_instructions(&mut self, place: CorePlace, sink: TraceSink) {
        self.wishes.push((place, Wish::Trace(sink)));
        self.grant();
    }

    /// Waits for DMA transfers of a core from when it has its number; see [`CycleMachine::break_on_dma`].
    pub fn break_on_dma(&mut self, place: CorePlace) {
        self.wishes.push((place, Wish::DmaBreak));
        self.grant();
    }

    fn grant(&mut self) {
        for (place, wish) in std::mem::take(&mut self.wishes) {
            let Some(core) = self.machine.physical(place.chip, place.core) else {
                self.wishes.push((place, wish));
                continue;
            };
            let what = match wish {
                Wish::Trace(sink) => {
                    self.machine.settle(place.chip, core);
                    if let Some(cpu) = self.machine.cpu(place.chip, core) {
                        cpu.set_trace(Some(sink));
                    }
                    "instruction trace"
                }
                Wish::DmaBreak => {
                    self.machine.break_on_dma(place.chip, core);
                    "waiting for DMA transfers"
                }
            };
            self.say(format!("core {place} (physical {core}): {what}"));
        }
    }

    /// As [`VirtualBoard::run_until`], but no further than to a breakpoint. Whether one was met.
    pub fn run_to_breakpoint(&mut self, end_ns: u64) -> bool {
        self.run(end_ns, true)
    }

    fn run(&mut self, end_ns: u64, to_breakpoint: bool) -> bool {
        while self.now_ns() < end_ns {
            let look_ns = self.looked_ns + LOOK_NS;
            let mut to_ns = end_ns.min(look_ns);
            if !self.wishes.is_empty() {
                to_ns = to_ns.min(self.now_ns() + NUMBERED_NS);
            }
            let to_ns = to_ns.saturating_sub(self.switched_on_ns);
            if !to_breakpoint {
                self.machine.run_until(to_ns);
            } else if self.machine.run_to_breakpoint(to_ns) {
                return true;
            }
            if self.now_ns() >= look_ns {
                self.look();
            }
            if !self.wishes.is_empty() {
                self.grant();
            }
        }
        false
    }

    fn say(&mut self, text: String) {
        self.log.push(LogLine { time_ns: self.now_ns(), text });
    }

    fn look(&mut self) {
        let chips = self.machine.places().to_vec();
        let machine = &mut self.machine;
        for text in self.watch.look(&chips, |chip, address, bytes| machine.peek(chip, address, bytes)) {
            self.say(text);
        }
        self.looked_ns = self.now_ns();
    }

    /// The part of the machine whose boards are on.
    fn powered(&self) -> Machine {
        let mut machine = self.whole.clone();
        let off = |chip: ChipXy| self.boards.contains(&(chip, false));
        machine.chips.retain(|_, chip| !off(chip.nearest_ethernet));
        let places: Vec<ChipXy> = machine.chips.keys().copied().collect();
        for place in places {
            for link in Link::ALL {
                let gone = machine.neighbour(place, link).is_some_and(|to| !machine.chips.contains_key(&to));
                if let Some(chip) = machine.chips.get_mut(&place)
                    && gone
                {
                    chip.links[link.index()] = false;
                }
            }
        }
        machine
    }
}

impl VirtualBoard for CycleBoard {
    fn now_ns(&self) -> u64 {
        self.switched_on_ns + self.machine.now_ns()
    }

    fn run_until(&mut self, end_ns: u64) {
        self.run(end_ns, false);
    }

    fn boards(&self) -> Vec<(ChipXy, Ipv4Addr)> {
        self.addresses.clone()
    }

    fn send(&mut self, datagram: &Datagram) -> bool {
        self.machine.send(datagram)
    }

    fn receive(&mut self) -> Option<Datagram> {
        let mut datagram = self.machine.receive()?;
        datagram.time_ns += self.switched_on_ns;
        Some(datagram)
    }

    fn power(&mut self, boards: &[Option<bool>]) {
        for ((_, on), change) in self.boards.iter_mut().zip(boards) {
            *on = change.unwrap_or(*on);
        }
        let now_ns = self.now_ns();
        let machine = self.powered();
        // Addresses go by number, and boards that are on keep theirs.
        let mut config = self.config.clone();
        for (chip, ip) in &self.addresses {
            let address = config.addresses.entry(*chip);
            let number = self.addresses.iter().position(|(other, _)| other == chip).unwrap_or(0);
            address.or_insert_with(|| crate::cycle::default_address(number)).ip = *ip;
        }
        self.machine = CycleMachine::new(&machine, &config);
        self.switched_on_ns = now_ns;
        self.watch.clear();
        let on = self.boards.iter().filter(|(_, on)| *on).count();
        self.say(format!("power: {on} of {} boards are on, blank", self.boards.len()));
    }

    fn take_log(&mut self) -> Vec<LogLine> {
        let mut lines = std::mem::take(&mut self.log);
        for (chip, entry) in self.machine.take_log() {
            let time_ns = entry.time_ns + self.switched_on_ns;
            lines.push(LogLine { time_ns, text: format!("chip {},{}: {}", chip.x, chip.y, entry.text) });
        }
        lines.sort_by_key(|line| line.time_ns);
        lines
    }

    fn snapshot(&mut self) -> String {
        let snapshot = self.machine.snapshot();
        let mut text = String::new();
        let seconds = self.now_ns() as f64 / 1e9;
        let _ = writeln!(text, "snapshot at {seconds:.6} s, trace {:016x}", snapshot.trace_hash);
        for chip in &snapshot.chips {
            let place = chip.place;
            let count = |activity| chip.cores.iter().filter(|core| core.activity == activity).count();
            let instructions: u64 = chip.cores.iter().map(|core| core.instructions).sum();
            let _ = writeln!(
                text,
                "chip {},{}: monitor {}, {} running, {} asleep, {} in ROM, {} held, {} broken; {instructions} \
                 instructions, {} packets routed, {} dropped",
                place.x,
                place.y,
                chip.monitor,
                count(CoreActivity::Running),
                count(CoreActivity::Asleep),
                count(CoreActivity::BootRom),
                count(CoreActivity::Held),
                count(CoreActivity::Broken),
                chip.routed[0],
                chip.routed[1],
            );
            let blocks =
                self.machine.peek(place, vcpu::BASE_ADDRESS, vcpu::BYTES * chip.cores.len()).unwrap_or_default();
            for (core, bytes) in blocks.chunks_exact(vcpu::BYTES).enumerate() {
                let Ok(block) = Vcpu::read(bytes) else { continue };
                if matches!(block.state(), CoreState::Dead | CoreState::Idle) {
                    continue;
                }
                let pc = chip.cores.get(usize::from(block.phys_cpu)).map_or(0, |core| core.pc);
                let _ = writeln!(text, "  core {core}: {block}, pc {pc:08x}");
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hellos(board: &mut CycleBoard, seconds: u64) -> Vec<ChipXy> {
        let end_ns = board.now_ns() + seconds * 1_000_000_000;
        board.run_until(end_ns);
        assert_eq!(board.now_ns(), end_ns);
        std::iter::from_fn(|| board.receive()).map(|datagram| datagram.board).collect()
    }

    #[test]
    fn boards_are_switched_and_time_goes_on() {
        let machine = Machine::boards(3).expect("three boards");
        let mut board = CycleBoard::new(machine, CycleConfig::default());
        let chips: Vec<ChipXy> = board.boards().iter().map(|(chip, _)| *chip).collect();
        let mut seen = hellos(&mut board, 6);
        seen.sort();
        seen.dedup();
        assert_eq!(seen, chips, "every blank board says hello");

        board.power(&[Some(false), None, Some(false)]);
        let mut seen = hellos(&mut board, 6);
        seen.dedup();
        assert_eq!(seen, [chips[1]]);
        let host = "10.0.0.1:1".parse().expect("an address");
        let datagram = Datagram { board: chips[0], host, port: 17893, time_ns: 0, data: vec![0; 10] };
        assert!(!board.send(&datagram), "a board without power");

        board.power(&[None, Some(false), None]);
        assert!(hellos(&mut board, 6).is_empty(), "all off");

        board.power(&[Some(true), Some(true), None]);
        let mut seen = hellos(&mut board, 6);
        seen.sort();
        seen.dedup();
        assert_eq!(seen, chips[..2]);
        let log: Vec<String> = board.take_log().into_iter().map(|line| line.text).collect();
        assert!(log.contains(&"power: 2 of 3 boards are on, blank".to_string()), "{log:?}");
        assert!(board.snapshot().contains("chip 0,0: monitor "));
    }
}
