//! A machine that is reached by SCP through its monitors, as a [`Board`]: a real one, or an instruction-level virtual one. The
//! cores run the firmware.

mod arrival;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use spidnn_compiler::ChipImage;
use spidnn_core::{ErrorCode, Failure};
use spinnaker_host::spalloc::Job;
use spinnaker_host::{Boards, FoundCore, FoundMachine, HostError, Link, Place, RouterCounters};
use spinnaker_machine::{Chip, ChipXy, Machine, SDRAM_USER_BYTES};
use spinnaker_wire::diagnostics::Counter;
use spinnaker_wire::scp::{Signal, SignalWord};
use spinnaker_wire::vcpu::{self, CoreState, RunTimeError, Vcpu};
use spinnaker_wire::{AppId, ChipAddress};
use tokio::runtime::Runtime;

use crate::board::{Board, Counters, pause};
use crate::error::{CoreFailure, CoreTrouble};
use crate::firmware::Firmware;
use crate::lease::{self, Lease};
use crate::native::{USER_RESENT, USER_RUN_CYCLES};
use crate::{Error, interrupt};
use arrival::Arrival;

/// The application's number on the machine.
pub const APP: AppId = AppId(30);
/// That of the program for bulk transfers, which is there between a load and the first start at most.
pub const BULK_APP: AppId = AppId(31);
/// For how long cores may start or end: a slow virtual board on the network takes its time.
const START_LIMIT: Duration = Duration::from_secs(10);
/// Machine time after which a run is given up: no batch takes nearly as long.
const RUN_LIMIT: Duration = Duration::from_secs(600);
/// Pauses between looks at a run: short at first, since many runs are.
const PAUSE_MIN: Duration = Duration::from_micros(200);
const PAUSE_MAX: Duration = Duration::from_millis(5);
/// Clock of a core.
const CORE_HZ: f64 = 200e6;

/// A machine behind its monitors.
pub struct WireBoard<L: Link> {
    runtime: Runtime,
    host: Boards<L>,
    machine: Machine,
    /// Cores that run the firmware.
    cores: Vec<(ChipXy, u8)>,
    /// The next start signal is SYNC1.
    second_signal: bool,
    loaded: bool,
    /// What is loaded and not there yet: the firmware comes with the first start.
    arrival: Option<Arrival>,
    /// What will be written to each chip between the next load and its first start, in bytes.
    announced: BTreeMap<ChipXy, u64>,
    /// The program for bulk transfers does not run there.
    has_no_bulk: bool,
    /// Writes that were asked for and not done yet: many at once keep all ways busy.
    queued: Vec<(ChipAddress, u32, Vec<u8>)>,
    queued_bytes: usize,
    ends: Ends,
    /// The right to a machine that outlives this; then nothing may be left on it.
    lease: Option<Lease>,
    host_bytes: u64,
    packets_resent: u64,
    /// The chips that packets come by, and what their routers had counted when they were looked at last.
    routers: Vec<ChipAddress>,
    router_counters: Vec<RouterCounters>,
    packets_sent: u64,
    packets_dropped: u64,
}

/// Bytes of writes that wait at most.
const QUEUED_BYTES_MAX: usize = 1 << 20;
/// What may end an operation before its time.
#[derive(Default)]
struct Ends {
    /// Set by whoever wants what is under way to end.
    interrupt: Option<Arc<AtomicBool>>,
    /// The claim on the boards, which may be taken away.
    job: Option<Job>,
}

impl Ends {
    /// Waits for one of them.
    async fn first(&self) -> Error {
        let taken = async {
            match &self.job {
                Some(job) => job.ended().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = interrupt::set(self.interrupt.as_deref()) => Error::Interrupted,
            end = taken => end.into(),
        }
    }
}

/// Runs an operation to its end, or until something else ends it.
fn drive<T, E: Into<Error>>(
    runtime: &Runtime,
    ends: &Ends,
    operation: impl Future<Output = Result<T, E>>,
) -> Result<T, Error> {
    if ends.interrupt.is_none() && ends.job.is_none() {
        return runtime.block_on(operation).map_err(Into::into);
    }
    runtime.block_on(async {
        tokio::select! {
            biased;
            end = ends.first() => Err(end),
            result = operation => result.map_err(Into::into),
        }
    })
}

fn address(chip: ChipXy) -> ChipAddress {
    ChipAddress::new(chip.x, chip.y)
}

fn xy(chip: ChipAddress) -> ChipXy {
    ChipXy::new(chip.x(), chip.y())
}

/// The machine that was found, as the compiler wants it: links that work both ways, cores by the monitor's numbers.
pub fn machine_of(found: &FoundMachine) -> Machine {
    let chips = found.chips.iter().map(|found| {
        let info = &found.info;
        let chip = Chip {
            // The monitor numbers the cores that work without gaps.
            cores: (1..info.cores.min(18)).collect(),
            links: std::array::from_fn(|link| info.links >> link & 1 == 1),
            sdram_bytes: info.sdram_bytes.min(SDRAM_USER_BYTES),
            ethernet: info.ethernet_up,
            nearest_ethernet: xy(info.ethernet_chip),
        };
        (xy(found.chip), chip)
    });
    Machine::of_chips(found.width.into(), found.height.into(), chips.collect())
}

impl<L: Link> WireBoard<L> {
    /// A machine that is booted. `runtime` drives its link. Of a machine that outlives this, and therefore has a lease, everything is
    /// taken off at the beginning and in the end.
    ///
    /// # Errors
    /// If somebody else uses it.
    pub fn new(runtime: Runtime, host: Boards<L>, lease: Option<Lease>) -> Result<WireBoard<L>, Error> {
        let machine = machine_of(host.found());
        let mut board = WireBoard {
            runtime,
            host,
            machine,
            cores: Vec::new(),
            second_signal: false,
            loaded: false,
            arrival: None,
            announced: BTreeMap::new(),
            has_no_bulk: false,
            queued: Vec::new(),
            queued_bytes: 0,
            ends: Ends::default(),
            lease,
            host_bytes: 0,
            packets_resent: 0,
            routers: Vec::new(),
            router_counters: Vec::new(),
            packets_sent: 0,
            packets_dropped: 0,
        };
        if board.lease.is_some() {
            let name = board.host.root().link().board();
            board.runtime.block_on(lease::check(&mut board.host, &name))?;
            // What a session that was killed may have left.
            board.clear()?;
            board.runtime.block_on(board.host.look_again())?;
            board.machine = machine_of(board.host.found());
        }
        Ok(board)
    }

    /// Holds the claim on the boards as long as they are used, and ends what is under way when they are taken away.
    pub fn with_job(mut self, job: Job) -> Self {
        self.ends.job = Some(job);
        self
    }

    /// The connection.
    pub fn boards(&mut self) -> &mut Boards<L> {
        &mut self.host
    }

    /// Writes all by the monitor's commands, also where bulk transfers are faster.
    pub fn by_monitor_only(&mut self) {
        self.has_no_bulk = true;
    }

    /// Uses so many application cores of a chip at most.
    pub fn cap_cores(&mut self, count: usize) {
        self.machine.cap_cores(count);
    }

    /// Reads what the cores have counted: the cycles of the last run of the core that took longest.
    fn read_counters(&mut self) -> Result<u32, Error> {
        let (mut cycles, mut resent) = (0, 0);
        let chips: Vec<ChipXy> = self.chips_used().into_iter().collect();
        let place =
            |chip: &ChipXy| Place { chip: address(*chip), address: vcpu::BASE_ADDRESS, length_bytes: 18 * vcpu::BYTES };
        let places: Vec<Place> = chips.iter().map(place).collect();
        let all = drive(&self.runtime, &self.ends, self.host.read_many(&places))?;
        for (chip, blocks) in chips.into_iter().zip(all) {
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

    /// Adds what the routers have counted since they were looked at last.
    fn count_packets(&mut self) -> Result<(), Error> {
        let before = std::mem::take(&mut self.router_counters);
        self.look_at_routers()?;
        for (before, now) in before.iter().zip(&self.router_counters) {
            // They wrap around.
            let since = |counter| u64::from(now.get(counter).wrapping_sub(before.get(counter)));
            self.packets_sent += since(Counter::LocalMulticast);
            self.packets_dropped += since(Counter::DroppedMulticast);
        }
        Ok(())
    }

    fn look_at_routers(&mut self) -> Result<(), Error> {
        self.router_counters = drive(&self.runtime, &self.ends, self.host.router_counters(&self.routers))?;
        Ok(())
    }

    /// Takes the firmware off the cores, and frees what it had.
    fn unload(&mut self) -> Result<(), Error> {
        if std::mem::replace(&mut self.loaded, false) {
            self.clear()?;
        }
        self.arrival = None;
        self.cores.clear();
        Ok(())
    }

    /// Ends whatever runs as this application, or transfers for it.
    fn clear(&mut self) -> Result<(), Error> {
        drive(&self.runtime, &self.ends, self.host.clean_up_all(&[APP, BULK_APP]))
    }

    /// Does the writes that were asked for.
    fn flush(&mut self) -> Result<(), Error> {
        let queued = std::mem::take(&mut self.queued);
        self.queued_bytes = 0;
        let writes: Vec<_> = queued.iter().map(|(chip, at, bytes)| (*chip, *at, &bytes[..])).collect();
        if writes.is_empty() {
            return Ok(());
        }
        self.transfer(&writes)
    }

    fn chips_used(&self) -> BTreeSet<ChipXy> {
        self.cores.iter().map(|(chip, _)| *chip).collect()
    }

    /// Waits until all of its cores are in a state.
    fn wait_for(&mut self, state: CoreState, limit: Duration) -> Result<(), Error> {
        let began = self.host.now();
        let wanted = self.cores.len();
        let mut pause = PAUSE_MIN;
        loop {
            let (there, failed) = drive(&self.runtime, &self.ends, async {
                let there = self.host.count(APP, state).await? as usize;
                let failed = there < wanted && self.host.count(APP, CoreState::RunTimeError).await? > 0;
                Ok::<_, HostError>((there, failed))
            })?;
            if there >= wanted {
                return Ok(());
            } else if failed {
                return Err(self.trouble(CoreTrouble::Failed, began, state)?);
            } else if self.host.now().saturating_sub(began) > limit {
                let trouble = CoreTrouble::TooLong { limit_s: limit.as_secs() };
                return Err(self.trouble(trouble, began, state)?);
            }
            drive(&self.runtime, &self.ends, self.host.pause(pause))?;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// The cores that are not in the state that was waited for.
    fn trouble(&mut self, trouble: CoreTrouble, began: Duration, state: CoreState) -> Result<Error, Error> {
        let own: Vec<_> = self.cores.iter().map(|(chip, core)| (address(*chip), *core)).collect();
        let (found, texts) = drive(&self.runtime, &self.ends, async {
            let found = if trouble == CoreTrouble::Failed {
                self.host.failed_cores(APP).await?
            } else {
                let mut found = self.host.cores(&own).await?;
                found.retain(|core| core.vcpu.state() != state);
                found
            };
            let places: Vec<_> = found.iter().map(|found| (found.chip, found.core)).collect();
            let texts = self.host.texts(&places).await?;
            Ok::<_, HostError>((found, texts))
        })?;
        let failure = |(found, log): (&FoundCore, String)| CoreFailure {
            chip: xy(found.chip),
            core: found.core,
            state: state_text(&found.vcpu),
            log,
        };
        let cores = found.iter().zip(texts).map(failure).collect();
        let time_s = self.host.now().saturating_sub(began).as_secs_f64();
        Ok(Error::Core { trouble, cores, time_s })
    }

    fn ready_state(&self) -> CoreState {
        if self.second_signal { CoreState::Sync1 } else { CoreState::Sync0 }
    }
}

fn bytes(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
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
        // What waits was meant for what is there now.
        self.flush()?;
        self.unload()?;
        self.loaded = true;
        if self.lease.is_some() {
            drive(&self.runtime, &self.ends, lease::mark(&mut self.host, true))?;
        }
        self.routers = chips.keys().map(|chip| address(*chip)).collect();
        self.settle(chips, firmware)?;
        self.announced.clear();
        let waits_for_writes = self.arrival.as_ref().is_some_and(|arrival| arrival.bulk.is_some());
        if waits_for_writes { Ok(()) } else { self.bring_up() }
    }

    fn announce(&mut self, bytes: &BTreeMap<ChipXy, u64>) {
        self.announced = bytes.clone();
    }

    fn write(&mut self, chip: ChipXy, at: u32, words: Vec<u32>) -> Result<(), Error> {
        let bytes = bytes(&words);
        self.host_bytes += bytes.len() as u64;
        self.queued_bytes += bytes.len();
        self.queued.push((address(chip), at, bytes));
        if self.queued_bytes > QUEUED_BYTES_MAX { self.flush() } else { Ok(()) }
    }

    fn read(&mut self, chip: ChipXy, at: u32, words: usize) -> Result<Vec<u32>, Error> {
        self.read_many(&[(chip, at, words)]).map(|mut all| all.pop().unwrap_or_default())
    }

    fn read_many(&mut self, places: &[(ChipXy, u32, usize)]) -> Result<Vec<Vec<u32>>, Error> {
        self.flush()?;
        let place = |&(chip, at, words): &_| Place { chip: address(chip), address: at, length_bytes: 4 * words };
        let places: Vec<Place> = places.iter().map(place).collect();
        let all = match self.arrival.as_mut().and_then(|arrival| arrival.bulk.as_mut()) {
            Some(bulk) => drive(&self.runtime, &self.ends, bulk.read_many(&mut self.host, &places)),
            None => drive(&self.runtime, &self.ends, self.host.read_many(&places)),
        }?;
        self.host_bytes += places.iter().map(|place| place.length_bytes as u64).sum::<u64>();
        let words =
            |bytes: Vec<u8>| bytes.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
        Ok(all.into_iter().map(words).collect())
    }

    fn start(&mut self) -> Result<(), Error> {
        self.flush()?;
        self.bring_up()?;
        if self.cores.is_empty() {
            return Err(Error::Argument("no cores wait for a start: load a network first".into()));
        }
        let signal = if self.second_signal { Signal::Sync1 } else { Signal::Sync0 };
        self.second_signal = !self.second_signal;
        drive(&self.runtime, &self.ends, self.host.root().signal(SignalWord::to_app(signal, APP)))
    }

    fn wait(&mut self) -> Result<f64, Error> {
        // The cores compute meanwhile.
        self.flush()?;
        self.wait_for(self.ready_state(), RUN_LIMIT)?;
        self.count_packets()?;
        Ok(f64::from(self.read_counters()?) / CORE_HZ)
    }

    fn idle_until(&mut self, time_s: f64) -> Result<(), Error> {
        drive(&self.runtime, &self.ends, self.host.pause(pause(time_s - self.time_s())))
    }

    fn counters(&self) -> Counters {
        Counters {
            packets_sent: self.packets_sent,
            // A router counts packets, not the cores that each reaches.
            packets_delivered: None,
            packets_dropped: self.packets_dropped,
            packets_resent: self.packets_resent,
            host_bytes: self.host_bytes,
            // Needs the time in which each core is awake and the bits on each link, which nothing counts there.
            energy_j: None,
        }
    }

    fn time_s(&self) -> f64 {
        self.host.now().as_secs_f64()
    }

    fn energy_model(&self) -> &'static str {
        "none"
    }

    fn set_interrupt(&mut self, flag: Arc<AtomicBool>) {
        self.ends.interrupt = Some(flag);
    }
}

impl<L: Link> Drop for WireBoard<L> {
    fn drop(&mut self) {
        if self.lease.is_some() {
            self.ends.interrupt = None;
            // Nobody is left to be told.
            let _ = self.unload().and_then(|()| Ok(self.runtime.block_on(lease::mark(&mut self.host, false))?));
        }
    }
}
