//! Applications on chosen cores of many chips, from start to end.

use std::time::Duration;

use spinnaker_wire::iptag::Target;
use spinnaker_wire::scp::{AllocCommand, Command, StartWord};
use spinnaker_wire::sv::SDRAM_SYS_ADDRESS;
use spinnaker_wire::{AppId, ChipAddress, CoreMask};

use crate::application::check_application;
use crate::link::Link;
use crate::{Boards, HostError, Place, Result};

/// How often an application is told to stop, and the pause after each.
const STOPS_MAX: u32 = 4;
const STOP_PAUSE: Duration = Duration::from_millis(20);
/// Chips that are compared at a time, which bounds what is in memory.
const COMPARED_AT_ONCE: usize = 128;
/// Bytes that are compared at a time.
const COMPARED_BYTES: usize = 32 << 10;

impl<L: Link> Boards<L> {
    /// Loads an application onto chips and starts it on some cores of each, other ones on every chip if wanted. All boards load at the same
    /// time, each by its own Ethernet. If it fails, nothing of the application is left ([`Boards::clean_up`]).
    ///
    /// # Errors
    /// [`HostError::Argument`] for chips and cores that are not there, [`HostError::CoreTaken`] for one that is not idle,
    /// [`HostError::NotStarted`], and those of [`Transceiver::load`](crate::Transceiver::load).
    pub async fn launch(
        &mut self,
        file: &[u8],
        app: AppId,
        flags: u8,
        cores: &[(ChipAddress, CoreMask)],
    ) -> Result<()> {
        let single = self.check_cores(file, app, cores)?;
        let taken = self.core_words(&single).await?.into_iter().find(|word| word.app != AppId(0));
        if let Some(taken) = taken {
            return Err(HostError::CoreTaken { chip: taken.chip, core: taken.core, app: taken.app });
        }
        let launched = self.load_and_start(file, app, flags, cores, &single).await;
        if launched.is_err() {
            // The first error is the one to tell.
            let _ = self.clean_up(app).await;
        }
        launched
    }

    fn check_cores(
        &self,
        file: &[u8],
        app: AppId,
        cores: &[(ChipAddress, CoreMask)],
    ) -> Result<Vec<(ChipAddress, u8)>> {
        let mut single = Vec::new();
        if cores.is_empty() || app == AppId(0) {
            return Err(HostError::Argument(format!("{app} on {} chips: nothing to start", cores.len())));
        }
        for &(chip, mask) in cores {
            check_application(file, mask)?;
            let Some(found) = self.found().chips.iter().find(|found| found.chip == chip) else {
                return Err(HostError::Argument(format!("there is no working chip {chip}")));
            };
            if mask.0 >> found.info.cores != 0 {
                let last = found.info.cores - 1;
                return Err(HostError::Argument(format!("chip {chip}: {mask} are wanted, it has cores 1 to {last}")));
            }
            let known = single.len();
            single.extend((1..18).filter(|core| mask.0 >> core & 1 != 0).map(|core| (chip, core)));
            if single[..known].iter().any(|(other, _)| *other == chip) {
                return Err(HostError::Argument(format!("chip {chip} is named twice")));
            }
        }
        Ok(single)
    }

    async fn load_and_start(
        &mut self,
        file: &[u8],
        app: AppId,
        flags: u8,
        cores: &[(ChipAddress, CoreMask)],
        single: &[(ChipAddress, u8)],
    ) -> Result<()> {
        let writes: Vec<_> = cores.iter().map(|(chip, _)| (*chip, SDRAM_SYS_ADDRESS, file)).collect();
        self.write_many(&writes).await?;
        let starts: Vec<_> =
            cores.iter().map(|&(chip, cores)| (chip, SDRAM_SYS_ADDRESS, StartWord { app, flags, cores })).collect();
        self.start_at_many(&starts).await?;
        // A monitor does not say when it fails to start something.
        let other = self.core_words(single).await?.into_iter().find(|word| word.app != app);
        other.map_or(Ok(()), |word| Err(HostError::NotStarted { chip: word.chip, core: word.core, app }))
    }

    /// [`Transceiver::start_at`](crate::Transceiver::start_at) on many chips at once: the chip, the address of the application in its memory,
    /// and what to start.
    ///
    /// # Errors
    /// As that.
    pub async fn start_at_many(&mut self, starts: &[(ChipAddress, u32, StartWord)]) -> Result<()> {
        let question = |&(chip, address, start): &_| (chip, Command::ApplicationStart { address, start });
        // One whose answer is lost is looked after by itself.
        let note = |error| if matches!(error, HostError::Silent { .. }) { Ok(error) } else { Err(error) };
        for (number, answer) in self.ask_each(&starts.iter().map(question).collect::<Vec<_>>(), 0, note).await? {
            let (chip, address, start) = starts[number];
            if answer.is_err() && !self.at(chip).is_started(chip, start).await? {
                self.at(chip).start_at(chip, address, start).await?;
            }
        }
        Ok(())
    }

    /// Sets a free IP tag of an Ethernet chip, which ends with [`Boards::clear_tags`] or [`Boards::clean_up`]. Returns its number.
    ///
    /// # Errors
    /// As [`Transceiver::set_free_ip_tag`](crate::Transceiver::set_free_ip_tag).
    pub async fn set_tag(&mut self, ethernet_chip: ChipAddress, target: Target) -> Result<u8> {
        let tag = self.at(ethernet_chip).set_free_ip_tag(ethernet_chip, target).await?;
        self.tags.push((ethernet_chip, tag));
        Ok(tag)
    }

    /// Clears the IP tags that were set by [`Boards::set_tag`].
    ///
    /// # Errors
    /// As [`Transceiver::clear_ip_tag`](crate::Transceiver::clear_ip_tag).
    pub async fn clear_tags(&mut self) -> Result<()> {
        while let Some(&(chip, tag)) = self.tags.last() {
            self.at(chip).clear_ip_tag(chip, tag).await?;
            self.tags.pop();
        }
        Ok(())
    }

    /// Ends an application everywhere and leaves nothing of it: no cores, no memory, no routes, and none of the IP tags that were
    /// set by [`Boards::set_tag`]. Does no harm where there is nothing.
    ///
    /// # Errors
    /// [`HostError::Waiting`] if cores do not become idle, and those of [`Transceiver::stop`](crate::Transceiver::stop).
    pub async fn clean_up(&mut self, app: AppId) -> Result<()> {
        self.clean_up_all(&[app]).await
    }

    /// [`Boards::clean_up`] of several applications at once.
    ///
    /// # Errors
    /// As that.
    pub async fn clean_up_all(&mut self, apps: &[AppId]) -> Result<()> {
        if apps.contains(&AppId(0)) {
            return Err(HostError::Argument("app 0 is the idle kernel: it does not end".to_string()));
        }
        let start = self.now();
        let mut left = 0;
        for _ in 0..STOPS_MAX {
            for app in apps {
                self.root().stop(*app).await?;
            }
            self.pause(STOP_PAUSE).await?;
            let running = self.applications().await?;
            left = apps.iter().filter_map(|app| running.get(app)).sum();
            if left == 0 {
                break;
            }
        }
        self.free_all_of(apps).await?;
        self.clear_tags().await?;
        if left > 0 {
            let waited = self.now().saturating_sub(start);
            return Err(HostError::Waiting { state: "stopped".to_string(), wanted: 0, got: left, waited });
        }
        Ok(())
    }

    /// Frees memory and routes of applications on all chips. The signal to stop has done so already where it has arrived.
    async fn free_all_of(&mut self, apps: &[AppId]) -> Result<()> {
        let commands = |app| [AllocCommand::FreeRoutesOf { app, clear: true }, AllocCommand::FreeSdramOf { app }];
        let commands: Vec<Command<'_>> = apps.iter().flat_map(|app| commands(*app)).map(Command::Alloc).collect();
        let chips = self.found().chips.iter();
        let questions: Vec<_> = chips.flat_map(|found| commands.iter().map(|command| (found.chip, *command))).collect();
        self.ask_many(&questions, 4).await.map(drop)
    }

    /// Writes the same data into the memory of all chips: by flood fill, and once more to each chip that has missed some of it,
    /// which is found by reading all back. Returns how many chips had.
    ///
    /// # Errors
    /// As [`Transceiver::flood_write`](crate::Transceiver::flood_write) and [`Boards::read_many`].
    pub async fn write_everywhere(&mut self, address: u32, data: &[u8]) -> Result<usize> {
        self.root().flood_write(address, data).await?;
        let chips: Vec<ChipAddress> = self.found().chips.iter().map(|found| found.chip).collect();
        let mut missed = std::collections::BTreeSet::new();
        for (part, data) in data.chunks(COMPARED_BYTES).enumerate() {
            let address = address + (part * COMPARED_BYTES) as u32;
            for chips in chips.chunks(COMPARED_AT_ONCE) {
                let place = |&chip: &ChipAddress| Place { chip, address, length_bytes: data.len() };
                let got = self.read_many(&chips.iter().map(place).collect::<Vec<_>>()).await?;
                let other = chips.iter().zip(&got).filter(|(_, got)| got[..] != *data);
                let writes: Vec<_> = other.map(|(chip, _)| (*chip, address, data)).collect();
                missed.extend(writes.iter().map(|(chip, ..)| chip.0));
                self.write_many(&writes).await?;
            }
        }
        Ok(missed.len())
    }
}
