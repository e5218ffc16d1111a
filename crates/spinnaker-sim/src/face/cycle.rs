//! The instruction-level machine as a [`VirtualBoard`].

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::Ipv4Addr;

use spinnaker_machine::{ChipXy, Machine};
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
    /// Each chip's Ethernet chip, by which its board is known.
    board_of: BTreeMap<ChipXy, ChipXy>,
    /// Ethernet chips and whether their boards are on.
    boards: Vec<(ChipXy, bool)>,
    addresses: Vec<(ChipXy, Ipv4Addr)>,
    machine: CycleMachine,
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
            board_of: machine.chips.iter().map(|(&place, chip)| (place, chip.nearest_ethernet)).collect(),
            boards,
            addresses,
            machine: running,
            watch: Watch::default(),
            looked_ns: 0,
            log: Vec::new(),
            wishes: Vec::new(),
        }
    }

    /// The machine itself.
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
}

impl VirtualBoard for CycleBoard {
    fn now_ns(&self) -> u64 {
        self.machine.now_ns()
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
        self.machine.receive()
    }

    fn power(&mut self, boards: &[Option<bool>]) {
        for ((_, on), change) in self.boards.iter_mut().zip(boards) {
            *on = change.unwrap_or(*on);
        }
        let changes: BTreeMap<ChipXy, bool> =
            self.boards.iter().zip(boards).filter_map(|((chip, _), change)| change.map(|on| (*chip, on))).collect();
        let board_of = &self.board_of;
        let change = |chip: ChipXy| board_of.get(&chip).and_then(|board| changes.get(board)).copied();
        self.machine.power(change);
        self.watch.forget(|chip| change(chip).is_some());
        let on = self.boards.iter().filter(|(_, on)| *on).count();
        self.say(format!("power: {} boards switched, {on} of {} are on", changes.len(), self.boards.len()));
    }

    fn take_log(&mut self) -> Vec<LogLine> {
        let mut lines = std::mem::take(&mut self.log);
        for (chip, entry) in self.machine.take_log() {
            lines.push(LogLine { time_ns: entry.time_ns, text: format!("chip {},{}: {}", chip.x, chip.y, entry.text) });
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
            if !self.machine.is_powered(place) {
                let _ = writeln!(text, "chip {},{}: no power", place.x, place.y);
                continue;
            }
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

    /// Time from one to the next.
    const HELLO_NS: u64 = 4_096_000_000;

    /// Who says hello in so many seconds, and when first.
    fn hellos(board: &mut CycleBoard, seconds: u64) -> Vec<(ChipXy, u64)> {
        let end_ns = board.now_ns() + seconds * 1_000_000_000;
        board.run_until(end_ns);
        assert_eq!(board.now_ns(), end_ns);
        let mut seen = BTreeMap::new();
        while let Some(datagram) = board.receive() {
            seen.entry(datagram.board).or_insert(datagram.time_ns);
        }
        seen.into_iter().collect()
    }

    #[test]
    fn boards_are_switched_and_time_goes_on() {
        let machine = Machine::boards(3).expect("three boards");
        let mut board = CycleBoard::new(machine, CycleConfig::default());
        let chips: Vec<ChipXy> = board.boards().iter().map(|(chip, _)| *chip).collect();
        let first = hellos(&mut board, 5);
        assert!(first.iter().map(|(chip, _)| *chip).eq(chips.iter().copied()), "every blank board says hello");
        let after_ns = first[0].1;

        board.power(&[Some(false), None, Some(false)]);
        let again = first[1].1 + HELLO_NS;
        assert_eq!(hellos(&mut board, 5), [(chips[1], again)], "a board that stays on is not disturbed");
        let host = "10.0.0.1:1".parse().expect("an address");
        let datagram = Datagram { board: chips[0], host, port: 17893, time_ns: 0, data: vec![0; 10] };
        assert!(!board.send(&datagram), "a board without power");
        assert!(board.snapshot().contains("chip 0,0: no power"));

        board.power(&[None, Some(false), None]);
        assert!(hellos(&mut board, 5).is_empty(), "all off");

        board.power(&[Some(true), Some(true), None]);
        let on_ns = board.now_ns();
        assert_eq!(hellos(&mut board, 5), [(chips[0], on_ns + after_ns), (chips[1], on_ns + after_ns)]);
        assert!(board.send(&datagram));
        let log: Vec<String> = board.take_log().into_iter().map(|line| line.text).collect();
        assert!(log.contains(&"power: 2 boards switched, 2 of 3 are on".to_string()), "{log:?}");
        assert!(board.snapshot().contains("chip 0,0: monitor "));
    }

    #[test]
    fn what_watches_a_chip_outlives_its_power() {
        let mut board = CycleBoard::new(Machine::spin3(), CycleConfig::default());
        let chip = ChipXy::new(0, 0);
        let core = board.machine().physical(chip, 0).expect("a monitor");
        board.machine().cpu(chip, core).expect("a core").set_profile(true);
        board.break_on_dma(CorePlace { chip, core: 0 });
        board.machine().set_timeline(Some(1000));
        board.run_until(1_000_000_000);
        board.power(&[Some(true)]);
        board.run_until(2_000_000_000);
        assert!(board.machine().cpu(chip, core).expect("a core").profile().is_some());
        assert_eq!(board.machine().physical(chip, 0), Some(core), "the same monitor");
        let mut trace = Vec::new();
        let size = board.machine().write_timeline(&mut trace).expect("written");
        assert!(size.spans >= 4 * 18 && size.lost == 0, "{size:?}: one core each in the ROM, before and after");
    }
}
