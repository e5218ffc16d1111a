//! A machine that is reached by SCP through its monitors, as a [`Board`]: a real one, or an instruction-level virtual one. The
//! cores run the firmware.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use spidnn_compiler::ChipImage;
use spidnn_core::program::directory;
use spidnn_core::{ErrorCode, Failure};
use spinnaker_host::{Link, RouteEntry, Transceiver};
use spinnaker_machine::{ChipXy, Machine, SDRAM_USER_BASE};
use spinnaker_wire::router::Route;
use spinnaker_wire::scp::{Signal, SignalWord, StartWord};
use spinnaker_wire::sdp::Endpoint;
use spinnaker_wire::vcpu::{self, CoreState, RunTimeError, Vcpu};
use spinnaker_wire::{AppId, ChipAddress, CoreMask};

use crate::Error;
use crate::board::{Board, Counters};
use crate::error::{CoreFailure, CoreTrouble};
use crate::firmware::Firmware;

/// The application's number on the machine.
const APP: AppId = AppId(30);
/// For how long cores may start, machine time.
const START_LIMIT: Duration = Duration::from_secs(2);
/// Machine time after which a run is given up: no batch takes nearly as long.
const RUN_LIMIT: Duration = Duration::from_secs(600);
/// Pauses between looks at a run: short at first, since many runs are.
const PAUSE_MIN: Duration = Duration::from_micros(200);
const PAUSE_MAX: Duration = Duration::from_millis(5);
/// Clock of a core.
const CORE_HZ: f64 = 200e6;
/// User words of a core's block in which the firmware counts.
const USER_RESENT: usize = 0;
const USER_RUN_CYCLES: usize = 2;

/// A machine behind a transceiver.
pub struct WireBoard<L: Link> {
    host: Transceiver<L>,
    machine: Machine,
    /// Ethernet chips, which count the cores of their boards.
    ethernet: Vec<ChipAddress>,
    /// Cores that run the firmware.
    cores: Vec<(ChipXy, u8)>,
    /// The next start signal is SYNC1.
    second_signal: bool,
    loaded: bool,
    host_bytes: u64,
    packets_resent: u64,
}

fn address(chip: ChipXy) -> ChipAddress {
    ChipAddress::new(chip.x, chip.y)
}

fn monitor(chip: ChipXy) -> Endpoint {
    Endpoint::core(address(chip), 0)
}

/// What is left of a machine as it is meant to be, when it is compared with what answers: chips, links and cores.
fn found(mut machine: Machine, host: &mut Transceiver<impl Link>) -> Result<Machine, Error> {
    let answers = host.discover()?;
    let mut working = BTreeSet::new();
    for found in &answers.chips {
        let chip = ChipXy::new(found.chip.x(), found.chip.y());
        let Some(entry) = machine.chips.get_mut(&chip) else { continue };
        working.insert(chip);
        // The monitor numbers the cores that work without gaps.
        entry.cores = (1..found.info.cores.min(18)).collect();
        for (number, works) in entry.links.iter_mut().enumerate() {
            *works &= found.info.links >> number & 1 == 1;
        }
    }
    machine.chips.retain(|chip, _| working.contains(chip));
    Ok(machine)
}

impl<L: Link> WireBoard<L> {
    /// A machine that is booted, and should be as described.
    ///
    /// # Errors
    /// If it does not answer.
    pub fn new(mut host: Transceiver<L>, expected: Machine) -> Result<WireBoard<L>, Error> {
        let machine = found(expected, &mut host)?;
        let ethernet = machine.chips.iter().filter(|(_, chip)| chip.ethernet).map(|(xy, _)| address(*xy)).collect();
        Ok(WireBoard {
            host,
            machine,
            ethernet,
            cores: Vec::new(),
            second_signal: false,
            loaded: false,
            host_bytes: 0,
            packets_resent: 0,
        })
    }

    /// The connection.
    pub fn transceiver(&mut self) -> &mut Transceiver<L> {
        &mut self.host
    }

    /// Reads what the cores have counted: the cycles of the last run of the core that took longest.
    fn read_counters(&mut self) -> Result<u32, Error> {
        let (mut cycles, mut resent) = (0, 0);
        for chip in self.chips_used() {
            let blocks = self.host.read(monitor(chip), vcpu::BASE_ADDRESS, 18 * vcpu::BYTES)?;
            for &(_, core) in self.cores.iter().filter(|(at, _)| *at == chip) {
                let block = blocks.get(usize::from(core) * vcpu::BYTES..).unwrap_or_default();
                let block = Vcpu::read(block).map_err(spinnaker_host::HostError::from)?;
                cycles = cycles.max(block.user[USER_RUN_CYCLES].get());
                resent += u64::from(block.user[USER_RESENT].get());
            }
        }
        self.packets_resent = resent;
        Ok(cycles)
    }

    /// Takes the firmware off the cores, and frees what it had.
    fn unload(&mut self) -> Result<(), Error> {
        if std::mem::replace(&mut self.loaded, false) {
            for chip in self.chips_used() {
                self.host.free_routes_of(address(chip), APP)?;
            }
            self.host.stop(APP)?;
            self.wait_for(CoreState::Idle, AppId(0), None)?;
        }
        self.cores.clear();
        Ok(())
    }

    fn chips_used(&self) -> BTreeSet<ChipXy> {
        self.cores.iter().map(|(chip, _)| *chip).collect()
    }

    /// Writes what a chip's cores need, with the pages of their firmware behind it.
    fn load_chip(&mut self, chip: ChipXy, image: &ChipImage, pages: &[u8]) -> Result<(), Error> {
        let end = image.sdram.iter().map(|(at, words)| at + 4 * words.len() as u32).max().unwrap_or(SDRAM_USER_BASE);
        let pages_at = end.next_multiple_of(16);
        let end = pages_at + pages.len() as u32;
        let (free, largest) = self.host.sdram_space(address(chip))?;
        let block = self.host.alloc_sdram(address(chip), APP, largest & !3, directory::TAG)?;
        let first = SDRAM_USER_BASE + directory::RESERVED_BYTES;
        let in_place = block + directory::TEXT <= first - 18 * directory::TEXT_BYTES && block + largest >= end;
        if !in_place {
            return Err(Error::Argument(format!(
                "chip {chip}: {free} bytes of SDRAM are free, but not from {first:#x} to {end:#x}: another application holds some; stop it, or boot the machine anew"
            )));
        }
        let pages_at = if pages.is_empty() || image.cores.is_empty() { 0 } else { pages_at };
        self.write_words(chip, block, &directory::words(&image.cores, pages_at))?;
        if pages_at != 0 {
            self.host_bytes += pages.len() as u64;
            self.host.write(monitor(chip), pages_at, pages)?;
        }
        for (at, words) in &image.sdram {
            self.write_words(chip, *at, words)?;
        }
        if !image.routes.is_empty() {
            let routes: Vec<RouteEntry> = image.routes.iter().map(route_entry).collect();
            self.host.load_routes(address(chip), APP, &routes)?;
        }
        self.cores.extend(image.cores.iter().map(|&(core, _)| (chip, core)));
        Ok(())
    }

    fn write_words(&mut self, chip: ChipXy, at: u32, words: &[u32]) -> Result<(), Error> {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        self.host_bytes += bytes.len() as u64;
        Ok(self.host.write(monitor(chip), at, &bytes)?)
    }

    /// How many cores of an application are in a state.
    fn count(&mut self, app: AppId, state: CoreState) -> Result<usize, Error> {
        let mut total = 0;
        for &chip in &self.ethernet {
            total += self.host.count(chip, app, state)? as usize;
        }
        Ok(total)
    }

    /// Waits until all cores of an application are in a state (`wanted`: so many; `None`: no other is left).
    fn wait_for(&mut self, state: CoreState, app: AppId, wanted: Option<(usize, Duration)>) -> Result<(), Error> {
        let began = self.host.now();
        let (wanted, limit) = wanted.unwrap_or((self.machine.core_count(), START_LIMIT));
        let mut pause = PAUSE_MIN;
        loop {
            if self.count(app, state)? >= wanted {
                return Ok(());
            }
            if app == APP && self.count(app, CoreState::RunTimeError)? > 0 {
                return Err(self.trouble(CoreTrouble::Failed, began, state)?);
            }
            if self.host.now().saturating_sub(began) > limit {
                let trouble = CoreTrouble::TooLong { limit_s: limit.as_secs() };
                return Err(self.trouble(trouble, began, state)?);
            }
            self.host.pause(pause)?;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// The cores that are not in the state that was waited for.
    fn trouble(&mut self, trouble: CoreTrouble, began: Duration, state: CoreState) -> Result<Error, Error> {
        let mut cores = Vec::new();
        for (chip, core) in self.cores.clone() {
            let vcpu = self.host.vcpu(address(chip), core)?;
            let is_bad = if trouble == CoreTrouble::Failed {
                vcpu.state() == CoreState::RunTimeError
            } else {
                vcpu.state() != state
            };
            if is_bad {
                let log = self.host.text(address(chip), core)?;
                cores.push(CoreFailure { chip, core, state: state_text(&vcpu), log });
            }
        }
        let time_s = self.host.now().saturating_sub(began).as_secs_f64();
        Ok(Error::Core { trouble, cores, time_s })
    }

    fn ready_state(&self) -> CoreState {
        if self.second_signal { CoreState::Sync1 } else { CoreState::Sync0 }
    }
}

fn route_entry(entry: &spinnaker_machine::RoutingEntry) -> RouteEntry {
    RouteEntry { route: Route(entry.route.0), key: entry.key, mask: entry.mask }
}

/// A core's state in words, with the meaning of the runtime's errors.
fn state_text(vcpu: &Vcpu) -> String {
    if vcpu.state() != CoreState::RunTimeError || vcpu.run_time_error() != RunTimeError::Software {
        return vcpu.to_string();
    }
    let [code, a, b] = [0, 1, 2].map(|n| vcpu.registers[n].get());
    match (Failure::from_words(code, [a, b]), ErrorCode::from_number(code)) {
        (Some(failure), Some(code)) => format!("run-time error: {failure}: {}", code.meaning()),
        _ => vcpu.to_string(),
    }
}

impl<L: Link> Board for WireBoard<L> {
    fn machine(&self) -> &Machine {
        &self.machine
    }

    fn load(&mut self, chips: &BTreeMap<ChipXy, ChipImage>) -> Result<(), Error> {
        // Refused before anything is touched.
        let firmware = Firmware::of(chips)?;
        self.unload()?;
        let (application, pages) = firmware.parts();
        self.loaded = true;
        for (&chip, image) in chips {
            self.load_chip(chip, image, pages)?;
        }
        let mask = self.cores.iter().fold(0, |mask, (_, core)| mask | 1 << core);
        self.host_bytes += application.len() as u64;
        self.host.flood_fill(application, StartWord { app: APP, flags: 0, cores: CoreMask(mask) })?;
        self.second_signal = false;
        self.wait_for(CoreState::Sync0, APP, Some((self.cores.len(), START_LIMIT)))
    }

    fn write(&mut self, chip: ChipXy, at: u32, words: Vec<u32>) -> Result<(), Error> {
        self.write_words(chip, at, &words)
    }

    fn read(&mut self, chip: ChipXy, at: u32, words: usize) -> Result<Vec<u32>, Error> {
        let bytes = self.host.read(monitor(chip), at, 4 * words)?;
        self.host_bytes += bytes.len() as u64;
        Ok(bytes.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
    }

    fn start(&mut self) -> Result<(), Error> {
        let signal = if self.second_signal { Signal::Sync1 } else { Signal::Sync0 };
        self.second_signal = !self.second_signal;
        Ok(self.host.signal(SignalWord::to_app(signal, APP))?)
    }

    fn wait(&mut self) -> Result<f64, Error> {
        self.wait_for(self.ready_state(), APP, Some((self.cores.len(), RUN_LIMIT)))?;
        Ok(f64::from(self.read_counters()?) / CORE_HZ)
    }

    fn counters(&self) -> Counters {
        Counters { packets_resent: self.packets_resent, host_bytes: self.host_bytes, ..Counters::default() }
    }

    fn time_s(&self) -> f64 {
        self.host.now().as_secs_f64()
    }

    fn energy_model(&self) -> &'static str {
        "none"
    }
}
