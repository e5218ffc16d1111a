//! The cores of a machine: which application each has, what state it is in, what it has written.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use spinnaker_wire::heap::{IOBUF_HEADER_BYTES, IoBufHeader};
use spinnaker_wire::scp::{Signal, SignalWord};
use spinnaker_wire::vcpu::{self, CoreState, Vcpu};
use spinnaker_wire::{AppId, ChipAddress};
use zerocopy::FromBytes;

use crate::application::{IOBUF_BLOCKS_MAX, is_sdram};
use crate::link::Link;
use crate::{Boards, HostError, Place, Result};

/// Numbers of applications that hosts choose from: the official ones have 16 to 254 (17 to 254 where the host chooses).
const APPS: std::ops::RangeInclusive<u8> = 17..=254;
/// Time between looks at states that are waited for.
const LOOK_PAUSE: Duration = Duration::from_millis(20);
/// Application and state of a core are two bytes of one word of its block.
const WORD_OFFSET: usize = std::mem::offset_of!(Vcpu, cpu_state) & !3;

/// A core, with its block as the monitor shows it: state, application, and registers after a run-time error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundCore {
    /// The chip.
    pub chip: ChipAddress,
    /// The core by its virtual number.
    pub core: u8,
    /// Its block.
    pub vcpu: Vcpu,
}

impl fmt::Display for FoundCore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "chip {} core {}: {}", self.chip, self.core, self.vcpu)
    }
}

/// What one word of a core's block says.
#[derive(Clone, Copy)]
pub(crate) struct CoreWord {
    pub chip: ChipAddress,
    pub core: u8,
    pub app: AppId,
    pub state: CoreState,
}

impl<L: Link> Boards<L> {
    /// All working cores but the monitors.
    fn all_cores(&self) -> Vec<(ChipAddress, u8)> {
        let chips = self.found().chips.iter();
        chips.flat_map(|found| (1..found.info.cores).map(|core| (found.chip, core))).collect()
    }

    /// Application and state of some cores.
    pub(crate) async fn core_words(&mut self, cores: &[(ChipAddress, u8)]) -> Result<Vec<CoreWord>> {
        let place = |&(chip, core): &(ChipAddress, u8)| Place {
            chip,
            address: vcpu::address(core) + WORD_OFFSET as u32,
            length_bytes: 4,
        };
        let words = self.read_many(&cores.iter().map(place).collect::<Vec<_>>()).await?;
        let byte = |word: &[u8], at: usize| word.get(at - WORD_OFFSET).copied().unwrap_or_default();
        let words = cores.iter().zip(&words).map(|(&(chip, core), word)| CoreWord {
            chip,
            core,
            app: AppId(byte(word, std::mem::offset_of!(Vcpu, app_id))),
            state: CoreState::from_raw(byte(word, std::mem::offset_of!(Vcpu, cpu_state))),
        });
        Ok(words.collect())
    }

    /// Some cores, in their order.
    ///
    /// # Errors
    /// As [`Boards::read_many`].
    pub async fn cores(&mut self, cores: &[(ChipAddress, u8)]) -> Result<Vec<FoundCore>> {
        let place =
            |&(chip, core): &(ChipAddress, u8)| Place { chip, address: vcpu::address(core), length_bytes: vcpu::BYTES };
        let blocks = self.read_many(&cores.iter().map(place).collect::<Vec<_>>()).await?;
        let blocks = cores
            .iter()
            .zip(&blocks)
            .map(|(&(chip, core), bytes)| Ok(FoundCore { chip, core, vcpu: *Vcpu::read(bytes)? }));
        blocks.collect()
    }

    /// The applications on the machine, whoever started them, and how many cores each has.
    ///
    /// # Errors
    /// As [`Boards::read_many`].
    pub async fn applications(&mut self) -> Result<BTreeMap<AppId, u32>> {
        let mut apps = BTreeMap::new();
        for word in self.core_words(&self.all_cores()).await? {
            // 0 is the idle kernel.
            if word.app != AppId(0) {
                *apps.entry(word.app).or_default() += 1;
            }
        }
        Ok(apps)
    }

    /// A number that no application on the machine has: the lowest from 17 on, as the official host counts. Hosts that ask at
    /// the same time may get the same.
    ///
    /// # Errors
    /// [`HostError::Exhausted`], and those of [`Boards::read_many`].
    pub async fn free_app(&mut self) -> Result<AppId> {
        let taken = self.applications().await?;
        let free = APPS.map(AppId).find(|app| !taken.contains_key(app));
        free.ok_or_else(|| HostError::Exhausted {
            chip: self.found().root,
            wanted: "a free number for an application".to_string(),
        })
    }

    /// All cores of an application, by chip and core.
    ///
    /// # Errors
    /// As [`Boards::read_many`].
    pub async fn cores_of(&mut self, app: AppId) -> Result<Vec<FoundCore>> {
        let words = self.core_words(&self.all_cores()).await?;
        let cores: Vec<_> = words.iter().filter(|word| word.app == app).map(|word| (word.chip, word.core)).collect();
        self.cores(&cores).await
    }

    /// The cores that had something to do when the machine was looked at last ([`Boards::look_again`]) and still have, whatever the
    /// application.
    ///
    /// # Errors
    /// As [`Boards::read_many`].
    pub async fn busy_cores(&mut self) -> Result<Vec<FoundCore>> {
        let is_busy = |state: CoreState| !matches!(state, CoreState::Idle | CoreState::Dead);
        let states = self.found().chips.iter().map(|found| (found.chip, &found.info.states));
        let cores: Vec<_> = states
            .flat_map(|(chip, states)| {
                (1..18).filter(|core| is_busy(states[usize::from(*core)])).map(move |core| (chip, core))
            })
            .collect();
        let mut busy = self.cores(&cores).await?;
        busy.retain(|core| is_busy(core.vcpu.state()));
        Ok(busy)
    }

    /// The cores of an application that have stopped by a run-time error or do not answer their monitor.
    ///
    /// # Errors
    /// As [`Boards::read_many`].
    pub async fn failed_cores(&mut self, app: AppId) -> Result<Vec<FoundCore>> {
        let words = self.core_words(&self.all_cores()).await?;
        let failed = words.iter().filter(|word| word.app == app && is_failed(word.state));
        let cores: Vec<_> = failed.map(|word| (word.chip, word.core)).collect();
        self.cores(&cores).await
    }

    /// The texts that cores have written (`io_buf`), in the order of the cores. Read them before the application is stopped.
    ///
    /// # Errors
    /// As [`Boards::read_many`].
    pub async fn texts(&mut self, cores: &[(ChipAddress, u8)]) -> Result<Vec<String>> {
        let root = self.found().root;
        let size_bytes = self.root().system_variables(root).await?.boot.iobuf_size.get() as usize;
        let place = |chip, address, length_bytes| Place { chip, address, length_bytes };
        let at = std::mem::offset_of!(Vcpu, iobuf) as u32;
        let places: Vec<_> = cores.iter().map(|&(chip, core)| place(chip, vcpu::address(core) + at, 4)).collect();
        let word = |bytes: Vec<u8>| bytes.first_chunk().map_or(0, |word| u32::from_le_bytes(*word));
        let mut next: Vec<u32> = self.read_many(&places).await?.into_iter().map(word).collect();
        let mut texts = vec![Vec::new(); cores.len()];
        for _ in 0..IOBUF_BLOCKS_MAX {
            let live: Vec<usize> = (0..cores.len()).filter(|core| is_sdram(next[*core])).collect();
            if live.is_empty() {
                break;
            }
            let heads = live.iter().map(|&core| place(cores[core].0, next[core], IOBUF_HEADER_BYTES));
            let heads = self.read_many(&heads.collect::<Vec<_>>()).await?;
            let mut places = Vec::new();
            for (&core, head) in live.iter().zip(&heads) {
                let Ok((header, _)) = IoBufHeader::ref_from_prefix(head) else { continue };
                let used_bytes = (header.length_bytes.get() as usize).min(size_bytes);
                places.push(place(cores[core].0, next[core] + IOBUF_HEADER_BYTES as u32, used_bytes));
                next[core] = header.next.get();
            }
            for (&core, text) in live.iter().zip(self.read_many(&places).await?) {
                texts[core].extend(text);
            }
        }
        Ok(texts.into_iter().map(|text| String::from_utf8_lossy(&text).into_owned()).collect())
    }

    /// Sends a signal to all cores of an application: SYNC0 and SYNC1 in turn let them pass their barriers, PAUSE and CONT stop their
    /// event loops and let them go on. A signal whose reply is lost is sent again; those that count (TIMER, USR0 to USR3) may then
    /// come twice.
    ///
    /// # Errors
    /// As [`Transceiver::request`](crate::Transceiver::request).
    pub async fn signal(&mut self, app: AppId, signal: Signal) -> Result<()> {
        self.root().signal(SignalWord::to_app(signal, app)).await
    }

    /// Waits until so many cores of an application are in one of some states, on the whole machine. A core that stops by an error
    /// ends the wait, unless that is one of the states.
    ///
    /// # Errors
    /// [`HostError::CoresFailed`] with the cores, [`HostError::Waiting`] with what was counted last, and those of
    /// [`Boards::count`].
    pub async fn wait_for(&mut self, app: AppId, states: &[CoreState], wanted: u32, within: Duration) -> Result<()> {
        let start = self.now();
        loop {
            let mut got = 0;
            for state in states {
                got += self.count(app, *state).await?;
            }
            let waited = self.now().saturating_sub(start);
            if got >= wanted {
                return Ok(());
            }
            for state in [CoreState::RunTimeError, CoreState::Watchdog] {
                if !states.contains(&state) && self.count(app, state).await? > 0 {
                    return Err(HostError::CoresFailed { app, cores: self.failed_cores(app).await? });
                }
            }
            if waited >= within {
                let state = states.iter().map(CoreState::to_string).collect::<Vec<_>>().join(" or ");
                return Err(HostError::Waiting { state, wanted, got, waited });
            }
            self.pause(LOOK_PAUSE).await?;
        }
    }
}

/// Whether a core has ended against its will.
pub(crate) fn is_failed(state: CoreState) -> bool {
    matches!(state, CoreState::RunTimeError | CoreState::Watchdog)
}
