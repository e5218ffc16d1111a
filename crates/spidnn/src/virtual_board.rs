//! The virtual SpiNNaker as a [`Board`].

use std::collections::BTreeMap;

use spidnn_compiler::ChipImage;
use spidnn_core::{ErrorCode, pages};
use spinnaker_machine::{ChipXy, Machine, VirtualLocator};
use spinnaker_sim::{COUNTER_RESENT, CoreReport, CoreState, RunEnd, RunOutcome, SimConfig, Simulator};

use crate::Error;
use crate::board::{Board, Counters};
use crate::error::{CoreFailure, CoreTrouble};
use crate::firmware::Firmware;
use crate::native::NativeCore;

/// Bytes of the runtime's code as the host loads it: a whole instruction memory.
const APPLICATION_BYTES: usize = 32 << 10;
/// Machine time after which a run is given up: no batch takes nearly as long.
const RUN_LIMIT_NS: u64 = 3_600_000_000_000;

/// A virtual machine, simulated in this process.
pub struct VirtualBoard {
    simulator: Simulator,
    /// The machine without the cores that have died.
    machine: Machine,
    /// Whether programs are on the cores.
    occupied: bool,
    /// When the last start signal went out.
    signal_s: f64,
    /// How long the messages of a start and of its end are under way.
    messages_s: f64,
    /// Cores that are to die, and when.
    deaths: Vec<(ChipXy, u8, u64)>,
}

impl VirtualBoard {
    /// A machine with the faults, losses and rates of a locator.
    pub fn new(machine: Machine, locator: &VirtualLocator) -> VirtualBoard {
        VirtualBoard::with_config(machine, SimConfig::from(locator))
    }

    /// A machine with a configuration of your own.
    pub fn with_config(machine: Machine, config: SimConfig) -> VirtualBoard {
        let config = with_firmware_times(config);
        let messages_s = config.timing.host_round_trip_ns as f64 * 1e-9;
        VirtualBoard {
            simulator: Simulator::new(machine.clone(), config),
            machine,
            occupied: false,
            signal_s: 0.0,
            messages_s,
            deaths: Vec::new(),
        }
    }

    /// Makes a core die without a word when it is loaded and the machine is so old (seconds of machine time): to see what becomes of
    /// a run then.
    pub fn kill_core_at(&mut self, chip: ChipXy, core: u8, time_s: f64) {
        self.deaths.push((chip, core, (time_s * 1e9) as u64));
    }

    /// Runs until all cores are ready, at most so long. Cores that are found dead do not belong to the machine any more.
    fn run(&mut self, limit_ns: u64) -> Result<Ran, Error> {
        let outcome = self.simulator.run(limit_ns)?;
        for core in outcome.cores.iter().filter(|core| core.state == CoreState::Dead) {
            // One that is away already is no error.
            let _ = self.machine.kill_core(core.chip, core.core);
        }
        match outcome.end {
            RunEnd::AllReady => Ok(Ran::Ready((self.time_s() - self.signal_s - self.messages_s).max(0.0))),
            RunEnd::LimitReached => Ok(Ran::Limit(outcome)),
            RunEnd::CoreFailed => Err(trouble(CoreTrouble::Failed, outcome)),
            RunEnd::Stalled => Err(trouble(CoreTrouble::Stalled, outcome)),
        }
    }

    /// Whether the machine still has a core.
    fn has(&self, chip: ChipXy, core: u8) -> bool {
        self.machine.chips.get(&chip).is_some_and(|chip| chip.cores.contains(&core))
    }
}

/// The first nanosecond that is not before a time.
fn nanoseconds(time_s: f64) -> u64 {
    (time_s * 1e9).ceil() as u64
}

/// How far a run came.
enum Ran {
    /// All cores wait for the next start, so many seconds after the last.
    Ready(f64),
    /// The time that was given is over, and these cores still run.
    Limit(RunOutcome),
}

fn trouble(trouble: CoreTrouble, outcome: RunOutcome) -> Error {
    let failure = |c: CoreReport| CoreFailure { chip: c.chip, core: c.core, state: state_text(&c), log: c.log };
    let cores = outcome.cores.into_iter().map(failure).collect();
    Error::Core { trouble, cores, time_s: outcome.time_ns as f64 * 1e-9 }
}

/// A configuration with what the firmware takes for the end of each row of a transfer, and to go on after the last.
pub(crate) fn with_firmware_times(mut config: SimConfig) -> SimConfig {
    config.timing.dma_interrupt_cycles = spidnn_core::ROW_CYCLES.into();
    config.timing.dma_wake_cycles = spidnn_core::WAKE_CYCLES.into();
    config
}

/// A core's state in words, with the meaning of the runtime's errors.
fn state_text(core: &CoreReport) -> String {
    let mut text = core.state.to_string();
    if let CoreState::Failed { code, .. } = core.state
        && let Some(error) = ErrorCode::from_number(code)
    {
        text.push_str(&format!(": {}", error.meaning()));
    }
    if !core.waits_for.is_empty() {
        text.push_str(&format!(", waits for {}", core.waits_for));
    }
    text
}

impl Board for VirtualBoard {
    fn machine(&self) -> &Machine {
        &self.machine
    }

    fn load(&mut self, chips: &BTreeMap<ChipXy, ChipImage>) -> Result<(), Error> {
        if std::mem::replace(&mut self.occupied, true) {
            self.simulator.stop_all();
        }
        // Firmware that does not exist has no pages.
        let can = Firmware::of(chips).and_then(|firmware| Firmware::capabilities(firmware.aplx));
        let page_bytes = can.ok().flatten().map_or([0; pages::COUNT], |can| can.page_bytes);
        let simulator = &mut self.simulator;
        simulator.load_application(APPLICATION_BYTES)?;
        for (&chip, image) in chips {
            for (address, words) in &image.sdram {
                simulator.queue_write(chip, *address, words.clone())?;
            }
            simulator.load_routes(chip, &image.routes)?;
        }
        simulator.wait_transfers();
        for (&chip, image) in chips {
            for &(core, address) in &image.cores {
                let program = Box::new(move |handle| {
                    Box::pin(async move { spidnn_core::run(&NativeCore::new(handle, page_bytes), address).await }) as _
                });
                simulator.load_program(chip, core, program)?;
            }
        }
        for &(chip, core, time_ns) in &self.deaths {
            if self.has(chip, core) {
                self.simulator.kill_core_at(chip, core, time_ns)?;
            }
        }
        self.wait().map(drop)
    }

    fn write(&mut self, chip: ChipXy, address: u32, words: Vec<u32>) -> Result<(), Error> {
        self.simulator.queue_write(chip, address, words)?;
        Ok(())
    }

    fn read(&mut self, chip: ChipXy, address: u32, words: usize) -> Result<Vec<u32>, Error> {
        Ok(self.simulator.read_sdram(chip, address, words)?)
    }

    fn read_many(&mut self, places: &[(ChipXy, u32, usize)]) -> Result<Vec<Vec<u32>>, Error> {
        Ok(self.simulator.read_sdram_many(places)?)
    }

    fn start(&mut self) -> Result<(), Error> {
        self.simulator.wait_transfers();
        self.simulator.start_all();
        self.signal_s = self.time_s();
        Ok(())
    }

    fn wait(&mut self) -> Result<f64, Error> {
        let limit_s = RUN_LIMIT_NS / 1_000_000_000;
        match self.run(RUN_LIMIT_NS)? {
            Ran::Ready(seconds) => Ok(seconds),
            Ran::Limit(outcome) => Err(trouble(CoreTrouble::TooLong { limit_s }, outcome)),
        }
    }

    fn wait_until(&mut self, time_s: f64) -> Result<Option<f64>, Error> {
        let limit_ns = nanoseconds(time_s).saturating_sub(self.simulator.now_ns());
        match self.run(limit_ns.min(RUN_LIMIT_NS))? {
            Ran::Ready(seconds) => Ok(Some(seconds)),
            Ran::Limit(_) => Ok(None),
        }
    }

    fn idle_until(&mut self, time_s: f64) -> Result<(), Error> {
        self.simulator.pass_ns(nanoseconds(time_s).saturating_sub(self.simulator.now_ns()));
        Ok(())
    }

    fn counters(&self) -> Counters {
        let now = self.simulator.counters();
        Counters {
            packets_sent: now.packets_sent,
            packets_delivered: Some(now.packets_delivered),
            packets_dropped: now.packets_dropped(),
            packets_resent: now.program[COUNTER_RESENT],
            host_bytes: now.host_bytes,
            energy_j: Some(self.simulator.energy().joules),
        }
    }

    fn time_s(&self) -> f64 {
        self.simulator.now_ns() as f64 * 1e-9
    }

    fn energy_model(&self) -> &'static str {
        self.simulator.energy().model
    }
}
