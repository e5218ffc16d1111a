//! The fast machine, with its monitors, as a [`VirtualBoard`].

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::Ipv4Addr;

use spinnaker_machine::{ChipXy, Machine};
use spinnaker_wire::vcpu::{self, CoreState, Vcpu};

use super::watch::Watch;
use super::{Datagram, LogLine, VirtualBoard};
use crate::monitor::{MonitorConfig, Monitors, Programs};

/// Machine time between looks at the cores' states for the log.
const LOOK_NS: u64 = 50_000_000;

/// A machine of fidelity `fast` whose boards are booted, with a power switch for each board. A board that is switched on is
/// booted at once.
pub struct FastBoard {
    monitors: Monitors,
    places: Vec<ChipXy>,
    /// Ethernet chips and whether their boards are on.
    boards: Vec<(ChipXy, bool)>,
    board_of: BTreeMap<ChipXy, ChipXy>,
    watch: Watch,
    looked_ns: u64,
    log: Vec<LogLine>,
}

impl FastBoard {
    /// The machine, with what may run on its cores.
    pub fn new(machine: Machine, config: MonitorConfig, programs: Box<dyn Programs>) -> Self {
        let places = machine.chips.keys().copied().collect();
        let board_of = machine.chips.iter().map(|(&xy, chip)| (xy, chip.nearest_ethernet)).collect();
        let monitors = Monitors::new(machine, config, programs);
        let boards = monitors.boards().into_iter().map(|(chip, _)| (chip, true)).collect();
        Self { monitors, places, boards, board_of, watch: Watch::default(), looked_ns: 0, log: Vec::new() }
    }

    /// The machine itself.
    pub fn monitors(&self) -> &Monitors {
        &self.monitors
    }

    fn collect_log(&mut self) {
        self.log.extend(self.monitors.take_log().into_iter().map(|(time_ns, text)| LogLine { time_ns, text }));
    }

    /// What has changed on the cores goes to the log.
    fn look(&mut self) {
        self.looked_ns = self.now_ns();
        if !self.monitors.take_stirred() {
            return;
        }
        let monitors = &mut self.monitors;
        let lines = self.watch.look(&self.places, |chip, address, bytes| monitors.peek(chip, address, bytes));
        let time_ns = self.now_ns();
        self.log.extend(lines.into_iter().map(|text| LogLine { time_ns, text }));
    }

    /// Runs to a time, or, if asked, until something has come out. Whether it ran to the end.
    fn run(&mut self, end_ns: u64, to_output: bool) {
        loop {
            let to_ns = end_ns.min(self.looked_ns + LOOK_NS).max(self.now_ns());
            if to_output {
                self.monitors.run_to_output(to_ns);
            } else {
                self.monitors.run_until(to_ns);
            }
            let stopped = self.now_ns() < to_ns;
            if self.now_ns() >= self.looked_ns + LOOK_NS {
                self.look();
            }
            if stopped || self.now_ns() >= end_ns {
                return;
            }
        }
    }
}

impl VirtualBoard for FastBoard {
    fn now_ns(&self) -> u64 {
        self.monitors.now_ns()
    }

    fn run_until(&mut self, end_ns: u64) {
        self.run(end_ns, false);
    }

    fn run_to_output(&mut self, end_ns: u64) {
        self.run(end_ns, true);
    }

    fn is_idle(&mut self) -> bool {
        self.monitors.is_idle()
    }

    fn boards(&self) -> Vec<(ChipXy, Ipv4Addr)> {
        self.monitors.boards()
    }

    fn send(&mut self, datagram: &Datagram) -> bool {
        self.monitors.send(datagram)
    }

    fn receive(&mut self) -> Option<Datagram> {
        self.monitors.receive()
    }

    fn power(&mut self, boards: &[Option<bool>]) {
        for ((_, on), change) in self.boards.iter_mut().zip(boards) {
            *on = change.unwrap_or(*on);
        }
        self.monitors.power(boards);
        let changed: Vec<ChipXy> =
            self.boards.iter().zip(boards).filter_map(|((chip, _), change)| change.map(|_| *chip)).collect();
        let board_of = &self.board_of;
        self.watch.forget(|chip| board_of.get(&chip).is_some_and(|board| changed.contains(board)));
        let on = self.boards.iter().filter(|(_, on)| *on).count();
        let text = format!("power: {} boards switched, {on} of {} are on", changed.len(), self.boards.len());
        self.log.push(LogLine { time_ns: self.now_ns(), text });
    }

    fn take_log(&mut self) -> Vec<LogLine> {
        self.collect_log();
        let mut lines = std::mem::take(&mut self.log);
        lines.sort_by_key(|line| line.time_ns);
        lines
    }

    fn snapshot(&mut self) -> String {
        let mut text = String::new();
        let digest = self.monitors.simulator().digest();
        let _ = writeln!(text, "snapshot at {:.6} s, trace {digest:016x}", self.now_ns() as f64 / 1e9);
        for &chip in &self.places {
            let Some(blocks) = self.monitors.peek(chip, vcpu::BASE_ADDRESS, 18 * vcpu::BYTES) else {
                let _ = writeln!(text, "chip {},{}: no power, or its monitor has stopped", chip.x, chip.y);
                continue;
            };
            let blocks: Vec<&Vcpu> =
                blocks.chunks_exact(vcpu::BYTES).filter_map(|bytes| Vcpu::read(bytes).ok()).collect();
            let count = |states: &[CoreState]| blocks.iter().filter(|block| states.contains(&block.state())).count();
            let _ = writeln!(
                text,
                "chip {},{}: {} running, {} waiting, {} idle, {} in error",
                chip.x,
                chip.y,
                count(&[CoreState::Run, CoreState::Sark]).saturating_sub(1),
                count(&[CoreState::Wait, CoreState::Sync0, CoreState::Sync1]),
                count(&[CoreState::Idle]),
                count(&[CoreState::RunTimeError, CoreState::Watchdog]),
            );
            for (core, block) in blocks.iter().enumerate().skip(1) {
                if !matches!(block.state(), CoreState::Dead | CoreState::Idle) {
                    let _ = writeln!(text, "  core {core}: {block}");
                }
            }
        }
        text
    }
}
