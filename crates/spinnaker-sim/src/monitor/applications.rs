//! Applications on a chip's cores: start, signals, what their blocks and texts show.

use std::rc::Rc;

use spinnaker_machine::{Route, RoutingEntry};
use spinnaker_wire::heap::IOBUF_HEADER_BYTES;
use spinnaker_wire::scp::{Signal, SignalWord, StartWord};
use spinnaker_wire::vcpu::{self, CoreState, RunTimeError};
use spinnaker_wire::{AppId, heap};

use super::chip::{APPLICATIONS, RAM_HEAP, ROUTES, Runs, SDRAM_HEAP, SYSTEM_HEAP, TAG_TABLE};
use super::heap::Words;
use super::{Application, Monitors, Place};
use crate::FAIL_DATA_ABORT;
use crate::core::CoreState as ProgramState;

/// Offset of `led_period` among the system variables, and what an error makes of it.
const LED_PERIOD: usize = 0x2B;
const LED_ERROR: u8 = 8;
/// Offset of the first free block of routing entries.
const ROUTES_FREE: usize = 0xE0;
/// Bytes of text in a text block.
const TEXT_BYTES: usize = 16_384;

impl Monitors {
    /// Starts an application that lies in a chip's SDRAM on some of its cores. A refusal is returned, and shows on the cores.
    pub(super) fn start_application(&mut self, chip: usize, address: u32, start: StartWord) -> Result<(), String> {
        self.stirred = true;
        let cores: Vec<u8> =
            (1..self.chips[chip].virtual_cores()).filter(|core| start.cores.0 >> core & 1 == 1).collect();
        let Some(&lead) = cores.first() else { return Ok(()) };
        let file = self.read_file(chip, address);
        let found = self.programs.application(&file);
        self.note_application(chip, start, lead, cores.len());
        let refusal = found.as_ref().err().cloned();
        let mut text_block = 0;
        for virtual_core in cores {
            self.stop_core(chip, virtual_core);
            match &found {
                Ok(application) => self.prepare_core(chip, virtual_core, start, application),
                Err(why) => self.refuse(chip, virtual_core, start.app, why, &mut text_block),
            }
        }
        refusal.map_or(Ok(()), Err)
    }

    /// The monitor's own account of applications (`sv.app_data`).
    fn note_application(&mut self, chip: usize, start: StartWord, lead: u8, cores: usize) {
        let at = APPLICATIONS + 8 * u32::from(start.app.0);
        let mut memory = self.memory(chip);
        let before = memory.word(at + 4);
        let lead = if before == 0 { lead } else { (memory.word(at) >> 24) as u8 };
        let count = if before == 0 { cores as u32 } else { (before | start.cores.0).count_ones() };
        memory.set_word(at, count & 0xFF | u32::from(lead) << 24);
        memory.set_word(at + 4, before | start.cores.0);
    }

    fn prepare_core(&mut self, chip: usize, virtual_core: u8, start: StartWord, application: &Rc<dyn Application>) {
        let waits = start.flags & StartWord::WAIT != 0;
        let state = &mut self.chips[chip];
        let core = &mut state.cores[usize::from(virtual_core) - 1];
        (core.app, core.flag, core.iobuf, core.text_bytes) = (start.app, true, 0, 0);
        core.runs = Runs::Waiting(Rc::clone(application));
        let (number, name, version) = (core.number, application.name(), application.version());
        let shows = if waits { CoreState::Wait } else { CoreState::Sark };
        state.write_block(virtual_core, number, start.app, name, version, shows);
        let unix_s = self.unix_now_s();
        let block = self.chips[chip].block(virtual_core);
        block[0x44..0x48].copy_from_slice(&unix_s.to_le_bytes());
        block[vcpu::CLEARED_BYTES..].fill(0);
        if !waits {
            self.run_core(chip, virtual_core);
        }
    }

    /// A core that has waited begins.
    fn run_core(&mut self, chip: usize, virtual_core: u8) {
        let xy = self.chips[chip].xy;
        let core = &mut self.chips[chip].cores[usize::from(virtual_core) - 1];
        let Runs::Waiting(application) = &core.runs else { return };
        let application = Rc::clone(application);
        core.runs = Runs::Program(Rc::clone(&application));
        let (number, app) = (core.number, core.app);
        let mut memory = self.memory(chip);
        let program = application.program(&mut Place { chip: xy, core: virtual_core, app, memory: &mut memory });
        if self.simulator.load_program(xy, number, program).is_err() {
            // A core that died under an earlier program.
            self.chips[chip].make_idle(virtual_core);
            self.chips[chip].block(virtual_core)[0x2E] = CoreState::Watchdog.raw();
        }
    }

    /// An application that does not run here: its core stops, and its text says why.
    fn refuse(&mut self, chip: usize, virtual_core: u8, app: AppId, why: &str, text_block: &mut u32) {
        let number = self.chips[chip].cores[usize::from(virtual_core) - 1].number;
        if *text_block == 0 {
            // One text for all of them.
            *text_block = self.new_text_block(chip, app);
            self.write_text(chip, *text_block, 0, format!("{why}\n").as_bytes());
        }
        let state = &mut self.chips[chip];
        state.write_block(virtual_core, number, app, "", 0, CoreState::RunTimeError);
        state.block(virtual_core)[0x2C] = RunTimeError::Version.raw();
        let core = &mut state.cores[usize::from(virtual_core) - 1];
        (core.app, core.flag, core.iobuf) = (app, true, *text_block);
        let block = *text_block;
        state.block(virtual_core)[0x58..0x5C].copy_from_slice(&block.to_le_bytes());
        state.variable(LED_PERIOD, &[LED_ERROR]);
    }

    /// Takes off what runs on a core; it has the idle kernel then.
    pub(super) fn stop_core(&mut self, chip: usize, virtual_core: u8) {
        let xy = self.chips[chip].xy;
        if let Some(number) = self.chips[chip].core(virtual_core).map(|core| core.number) {
            self.simulator.stop_core(xy, number);
        }
        self.chips[chip].make_idle(virtual_core);
        self.chips[chip].local.remove(&virtual_core);
    }

    /// A signal reaches a chip.
    pub(super) fn signal(&mut self, chip: usize, word: SignalWord) {
        self.stirred = true;
        let cores = 1..self.chips[chip].virtual_cores();
        let meant: Vec<u8> =
            cores.filter(|core| self.chips[chip].core(*core).is_some_and(|core| word.matches(core.app))).collect();
        match word.signal {
            Signal::Init => meant.into_iter().for_each(|core| self.stop_core(chip, core)),
            Signal::PowerDown => {
                for core in meant {
                    self.stop_core(chip, core);
                    self.chips[chip].block(core)[0x2E] = CoreState::PoweredDown.raw();
                }
            }
            Signal::Stop => {
                meant.into_iter().for_each(|core| self.stop_core(chip, core));
                self.free_all(chip, |app| app != AppId(0) && word.matches(app));
            }
            Signal::Start => {
                for core in meant {
                    let waits = self.chips[chip].core(core).is_some_and(|core| matches!(core.runs, Runs::Waiting(_)));
                    if waits {
                        self.run_core(chip, core);
                    }
                }
            }
            Signal::Sync0 | Signal::Sync1 => {
                let flag = word.signal == Signal::Sync1;
                meant.into_iter().for_each(|core| self.synchronise(chip, core, flag));
            }
            // What steers the event loop of the official kernel: programs here have none.
            _ => {}
        }
    }

    /// SYNC0 clears a core's flag, SYNC1 sets it. A program waits for the one and the other in turn.
    fn synchronise(&mut self, chip: usize, virtual_core: u8, flag: bool) {
        let xy = self.chips[chip].xy;
        let core = &mut self.chips[chip].cores[usize::from(virtual_core) - 1];
        core.flag = flag;
        let number = core.number;
        let Some(view) = self.simulator.view(xy, number) else { return };
        let waits_for_set = view.starts % 2 == 1;
        let hop_ns = self.simulator.config().timing.signal_hop_ns;
        let time_ns = self.now_ns() + self.simulator.ethernet_hops(chip as u32) * hop_ns;
        self.simulator.signal_start(xy, number, time_ns, flag == waits_for_set);
    }

    /// Frees everything that some applications hold on a chip.
    fn free_all(&mut self, chip: usize, which: impl Fn(AppId) -> bool) {
        let is_meant = |block: &super::heap::Block| block.owner().is_some_and(|(app, _)| which(app));
        self.forget_tags_of(chip, is_meant);
        let mut memory = self.memory(chip);
        for heap in [SDRAM_HEAP, RAM_HEAP, SYSTEM_HEAP] {
            heap.free(&mut memory, is_meant);
        }
        for app in (0..=255).map(AppId).filter(|app| which(*app)) {
            let at = APPLICATIONS + 8 * u32::from(app.0);
            if memory.word(at + 4) != 0 {
                memory.set_word(at, 0);
                memory.set_word(at + 4, 0);
            }
        }
        self.free_routes(chip, true, |_, app| which(app));
    }

    /// Frees blocks of SDRAM; how many.
    pub(super) fn free_sdram(&mut self, chip: usize, which: impl Fn(&super::heap::Block) -> bool) -> u32 {
        self.forget_tags_of(chip, &which);
        SDRAM_HEAP.free(&mut self.memory(chip), which)
    }

    fn forget_tags_of(&mut self, chip: usize, which: impl Fn(&super::heap::Block) -> bool) {
        let mut memory = self.memory(chip);
        for block in SDRAM_HEAP.blocks(&mut memory).iter().filter(|block| which(block)) {
            if let Some((app, tag)) = block.owner().filter(|(_, tag)| *tag != 0) {
                memory.set_word(TAG_TABLE + heap::tag_offset_bytes(app, tag), 0);
            }
        }
    }

    /// No tagged blocks and no applications any more: a chip that is booted anew.
    pub(super) fn forget_tags(&mut self, chip: usize) {
        let zeros = vec![0; (256 << 10) + (2 << 10)];
        let (tags, applications) = zeros.split_at(256 << 10);
        self.simulator.poke(chip as u32, TAG_TABLE, tags);
        self.simulator.poke(chip as u32, APPLICATIONS, applications);
    }

    /// Frees blocks of routing entries; how many.
    pub(super) fn free_routes(&mut self, chip: usize, clear: bool, which: impl Fn(u16, AppId) -> bool) -> u32 {
        let (freed, first_free) = ROUTES.free(&mut self.memory(chip), clear, which);
        self.chips[chip].variable(ROUTES_FREE, &first_free.to_le_bytes());
        self.load_routes(chip);
        freed
    }

    /// Takes routing entries; the first, 0 if there are none.
    pub(super) fn take_routes(&mut self, chip: usize, count: u32, app: AppId) -> u16 {
        let Some((first, first_free)) = ROUTES.allocate(&mut self.memory(chip), count, app) else { return 0 };
        self.chips[chip].variable(ROUTES_FREE, &first_free.to_le_bytes());
        first
    }

    /// Makes the whole table free.
    pub(super) fn clear_routes(&mut self, chip: usize) {
        let system = self.system_route(chip);
        let mut memory = self.memory(chip);
        let first_free = ROUTES.prepare(&mut memory);
        ROUTES.set(&mut memory, 0, system, AppId(0));
        self.chips[chip].variable(ROUTES_FREE, &first_free.to_le_bytes());
        self.load_routes(chip);
    }

    /// The router gets what the monitor's copy says; cores by their physical numbers.
    pub(super) fn load_routes(&mut self, chip: usize) {
        let entries = ROUTES.used(&mut self.memory(chip));
        let physical: Vec<RoutingEntry> = entries
            .into_iter()
            .map(|entry| {
                let links = entry.route.0 & 0x3F;
                let cores = entry.route.cores().filter_map(|core| self.chips[chip].core(core));
                let route = Route(cores.fold(links, |route, core| route | 1 << (6 + core.number)));
                RoutingEntry { route, ..entry }
            })
            .collect();
        self.simulator.set_routes(chip as u32, &physical);
    }

    fn unix_now_s(&self) -> u32 {
        self.unix_time_s.wrapping_add((self.now_ns() / 1_000_000_000) as u32)
    }

    /// Blocks and texts of a chip's cores show what their programs have come to.
    pub(super) fn refresh_cores(&mut self, chip: usize) {
        let xy = self.chips[chip].xy;
        for index in 0..self.chips[chip].cores.len() {
            let core = &self.chips[chip].cores[index];
            let virtual_core = index as u8 + 1;
            if !matches!(core.runs, Runs::Program(_)) {
                continue;
            }
            let Some(view) = self.simulator.view(xy, core.number) else { continue };
            if view.log_bytes > core.text_bytes {
                self.refresh_text(chip, virtual_core, view.log_bytes);
            }
            let state = shown_state(view.state, view.starts);
            let block = self.chips[chip].block(virtual_core);
            block[0x2E] = state.raw();
            for (word, value) in view.shown.iter().enumerate() {
                if view.shown_set >> word & 1 == 1 {
                    let at = vcpu::CLEARED_BYTES + 4 * word;
                    block[at..at + 4].copy_from_slice(&value.to_le_bytes());
                }
            }
            if let ProgramState::Failed { code, detail } = view.state {
                let error = if code == FAIL_DATA_ABORT { RunTimeError::DataAbort } else { RunTimeError::Software };
                block[0x2C] = error.raw();
                for (register, value) in [code, detail[0], detail[1]].into_iter().enumerate() {
                    block[4 * register..4 * register + 4].copy_from_slice(&value.to_le_bytes());
                }
                self.chips[chip].variable(LED_PERIOD, &[LED_ERROR]);
            }
        }
    }

    /// What a core's program has written since the last look goes to its text block.
    fn refresh_text(&mut self, chip: usize, virtual_core: u8, log_bytes: usize) {
        let core = &self.chips[chip].cores[usize::from(virtual_core) - 1];
        let (number, app, had, mut iobuf) = (core.number, core.app, core.text_bytes, core.iobuf);
        if iobuf == 0 {
            iobuf = self.new_text_block(chip, app);
            self.chips[chip].block(virtual_core)[0x58..0x5C].copy_from_slice(&iobuf.to_le_bytes());
        }
        let text = self.simulator.log_part(self.chips[chip].xy, number, had..log_bytes.min(TEXT_BYTES));
        self.write_text(chip, iobuf, had, &text);
        let core = &mut self.chips[chip].cores[usize::from(virtual_core) - 1];
        (core.iobuf, core.text_bytes) = (iobuf, log_bytes);
    }

    /// A text block for an application; 0 if there is no room.
    fn new_text_block(&mut self, chip: usize, app: AppId) -> u32 {
        let (unix_s, ms) = (self.unix_now_s(), (self.now_ns() / 1_000_000 % 1000) as u32);
        let mut memory = self.memory(chip);
        let bytes = (IOBUF_HEADER_BYTES + TEXT_BYTES) as u32;
        let Some(block) = SYSTEM_HEAP.allocate(&mut memory, bytes, app, 0) else { return 0 };
        for (word, value) in (0..).zip([0, unix_s, ms, 0]) {
            memory.set_word(block + 4 * word, value);
        }
        block
    }

    fn write_text(&mut self, chip: usize, block: u32, at: usize, text: &[u8]) {
        if block == 0 {
            return;
        }
        let text = &text[..text.len().min(TEXT_BYTES.saturating_sub(at))];
        self.simulator.poke(chip as u32, block + (IOBUF_HEADER_BYTES + at) as u32, text);
        self.memory(chip).set_word(block + 12, (at + text.len()) as u32);
    }
}

/// A program's state as the official kernel would tell it.
fn shown_state(state: ProgramState, starts: u32) -> CoreState {
    match state {
        ProgramState::Idle => CoreState::Idle,
        ProgramState::Running => CoreState::Run,
        ProgramState::Ready if starts.is_multiple_of(2) => CoreState::Sync0,
        ProgramState::Ready => CoreState::Sync1,
        ProgramState::Exited => CoreState::Exit,
        ProgramState::Failed { .. } => CoreState::RunTimeError,
        ProgramState::Dead => CoreState::Watchdog,
    }
}
