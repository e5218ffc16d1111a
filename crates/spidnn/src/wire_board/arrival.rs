//! How a network comes to the machine: its memory and routes, what is written before the first start, the firmware.
//!
//! The firmware takes all cores. Where much is to be written before the first start, it waits for that, and the program for bulk
//! transfers ([`spinnaker_host::bulk`]) has a core of each chip until then. Errors of the firmware's start are those of the first
//! start of the network in that case, else of its load.

use std::borrow::Cow;
use std::collections::BTreeMap;

use spidnn_compiler::ChipImage;
use spidnn_core::program::directory;
use spinnaker_host::bulk::Bulk;
use spinnaker_host::{HostError, Link, RouteEntry};
use spinnaker_machine::{ChipXy, SDRAM_USER_BASE};
use spinnaker_wire::router::Route;
use spinnaker_wire::scp::StartWord;
use spinnaker_wire::vcpu::CoreState;
use spinnaker_wire::{ChipAddress, CoreMask};

use super::{APP, BULK_APP, START_LIMIT, WireBoard, address, bytes, drive};
use crate::Error;
use crate::firmware::{Firmware, STREAM};
use crate::lease;

/// What the monitor writes a second to chips with Ethernet and to others, and what the program for transfers writes to all.
const NEAR_BYTES_PER_S: f64 = 7.7e6;
const FAR_BYTES_PER_S: f64 = 1.3e6;
const BULK_BYTES_PER_S: f64 = 9.3e6;
/// What starting and ending that program takes, and more for each chip (`--example host_rates` has all of these).
const BULK_S: f64 = 0.02;
const BULK_CHIP_S: f64 = 0.007;

/// What has not come yet.
pub(super) struct Arrival {
    /// Where the firmware lies in the memory of each chip, and the cores that it is for.
    starts: Vec<(ChipAddress, u32, StartWord)>,
    routes: Vec<(ChipAddress, Vec<RouteEntry>)>,
    /// The program for transfers, while it runs.
    pub(super) bulk: Option<Bulk>,
}

/// What is to be written to chips, and where.
pub(super) type Writes<'a> = Vec<(ChipAddress, u32, Cow<'a, [u8]>)>;

impl<L: Link> WireBoard<L> {
    /// Gives a network its memory, and writes its images. The firmware comes by [`WireBoard::bring_up`].
    pub(super) fn settle(&mut self, chips: &BTreeMap<ChipXy, ChipImage>, firmware: &Firmware) -> Result<(), Error> {
        let bulk = if self.is_worth_bulk(chips, firmware) { self.start_bulk()? } else { None };
        let routes = chips.iter().filter(|(_, image)| !image.routes.is_empty());
        let routes = routes.map(|(chip, image)| (address(*chip), image.routes.iter().map(route_entry).collect()));
        self.arrival = Some(Arrival { starts: Vec::new(), routes: routes.collect(), bulk });
        let writes = self.place(chips, firmware)?;
        let writes: Vec<(ChipAddress, u32, &[u8])> =
            writes.iter().map(|(chip, at, bytes)| (*chip, *at, &**bytes)).collect();
        self.host_bytes += writes.iter().map(|(.., bytes)| bytes.len() as u64).sum::<u64>();
        self.transfer(&writes)
    }

    /// Writes by the fastest way that there is.
    pub(super) fn transfer(&mut self, writes: &[(ChipAddress, u32, &[u8])]) -> Result<(), Error> {
        match self.arrival.as_mut().and_then(|arrival| arrival.bulk.as_mut()) {
            Some(bulk) => drive(&self.runtime, &self.ends, bulk.write_many(&mut self.host, writes)),
            None => drive(&self.runtime, &self.ends, self.host.write_many(writes)),
        }
    }

    /// Whether a network is there sooner by the program for transfers, with the time that its start takes.
    fn is_worth_bulk(&self, chips: &BTreeMap<ChipXy, ChipImage>, firmware: &Firmware) -> bool {
        let (mut near, mut far) = (0.0, 0.0);
        for (chip, image) in chips {
            let firmware = if image.cores.is_empty() { 0 } else { firmware.aplx.len() };
            let images: usize = image.sdram.iter().map(|(_, words)| 4 * words.len()).sum();
            let bytes = (firmware + images) as f64 + self.announced.get(chip).map_or(0.0, |bytes| *bytes as f64);
            let is_near = self.machine.chips.get(chip).is_some_and(|chip| chip.ethernet);
            *(if is_near { &mut near } else { &mut far }) += bytes;
        }
        let boards = self.host.ethernet_chips().len().max(1) as f64;
        let by_monitor = (near / NEAR_BYTES_PER_S + far / FAR_BYTES_PER_S) / boards;
        let start = BULK_S + BULK_CHIP_S * self.machine.chips.len() as f64;
        start + (near + far) / BULK_BYTES_PER_S / boards < by_monitor
    }

    /// Starts the program for transfers on all chips; where it does not run, the monitor has to do.
    fn start_bulk(&mut self) -> Result<Option<Bulk>, Error> {
        if self.has_no_bulk {
            return Ok(None);
        }
        let start = async {
            match Bulk::start(&mut self.host, STREAM, BULK_APP).await {
                Ok(bulk) => Ok(Some(bulk)),
                Err(error) if error.is_silence() => Err(error),
                Err(_) => Ok(None),
            }
        };
        let bulk = drive(&self.runtime, &self.ends, start)?;
        // A machine that does not run it is not asked again.
        self.has_no_bulk = bulk.is_none();
        Ok(bulk)
    }

    /// Gives the images of chips their memory; what has to be written there, with the firmware behind each: its pages, and what the
    /// monitor loads. (Brought by flood fill that would take 6 s.)
    fn place<'a>(&mut self, chips: &'a BTreeMap<ChipXy, ChipImage>, firmware: &Firmware) -> Result<Writes<'a>, Error> {
        let (application, pages) = firmware.parts();
        let addresses: Vec<ChipAddress> = chips.keys().map(|chip| address(*chip)).collect();
        let (spaces, blocks) = drive(&self.runtime, &self.ends, async {
            let spaces = self.host.sdram_spaces(&addresses).await?;
            let wanted: Vec<_> =
                addresses.iter().zip(&spaces).map(|(chip, (_, largest))| (*chip, *largest & !3)).collect();
            let blocks = self.host.alloc_sdram_many(APP, directory::TAG, &wanted).await?;
            Ok::<_, HostError>((spaces, blocks))
        })?;
        let (mut writes, mut starts) = (Vec::new(), Vec::new());
        for ((&chip, image), ((free, length), block)) in chips.iter().zip(spaces.into_iter().zip(blocks)) {
            let end = image.sdram.iter().map(|(at, words)| at + 4 * words.len() as u32).max();
            let pages_at = end.unwrap_or(SDRAM_USER_BASE).next_multiple_of(16);
            let application_at = (pages_at + pages.len() as u32).next_multiple_of(16);
            let end = application_at + application.len() as u32;
            let first = SDRAM_USER_BASE + directory::RESERVED_BYTES;
            let in_place = block + directory::TEXT <= first - 18 * directory::TEXT_BYTES && block + length >= end;
            if !in_place {
                return Err(Error::Argument(format!(
                    "chip {chip}: {free} bytes of SDRAM are free, but not from {first:#x} to {end:#x}: another application holds some; stop it, or boot the machine anew"
                )));
            }
            self.cores.extend(image.cores.iter().map(|&(core, _)| (chip, core)));
            let pages_at = if pages.is_empty() || image.cores.is_empty() { 0 } else { pages_at };
            let at = address(chip);
            writes.push((at, block, bytes(&directory::words(&image.cores, pages_at)).into()));
            if pages_at != 0 {
                writes.push((at, pages_at, pages.into()));
            }
            if !image.cores.is_empty() {
                writes.push((at, application_at, application.into()));
                let cores = CoreMask(image.cores.iter().fold(0, |mask, (core, _)| mask | 1 << core));
                starts.push((at, application_at, StartWord { app: APP, flags: 0, cores }));
            }
            writes.extend(image.sdram.iter().map(|(to, words)| (at, *to, bytes(words).into())));
        }
        if let Some(arrival) = &mut self.arrival {
            arrival.starts = starts;
        }
        Ok(writes)
    }

    /// Lets the firmware take the cores, if it has not yet; they wait for the start signal then. If that fails, nothing is loaded.
    pub(super) fn bring_up(&mut self) -> Result<(), Error> {
        let Some(arrival) = self.arrival.take() else { return Ok(()) };
        let up = self.start_firmware(arrival);
        if up.is_err() {
            self.cores.clear();
        }
        up
    }

    fn start_firmware(&mut self, arrival: Arrival) -> Result<(), Error> {
        let Arrival { starts, routes, bulk } = arrival;
        if let Some(bulk) = bulk {
            drive(&self.runtime, &self.ends, bulk.stop(&mut self.host))?;
        }
        if !routes.is_empty() {
            drive(&self.runtime, &self.ends, self.host.load_routes_many(APP, &routes))?;
        }
        drive(&self.runtime, &self.ends, self.host.start_at_many(&starts))?;
        self.second_signal = false;
        self.wait_for(CoreState::Sync0, START_LIMIT)?;
        if self.lease.is_some() {
            self.sign()?;
        }
        self.look_at_routers()
    }

    /// Writes to whom the cores belong.
    fn sign(&mut self) -> Result<(), Error> {
        let word = lease::word().to_le_bytes();
        let place = |(chip, core): &(ChipXy, u8)| (address(*chip), lease::user_word(*core), &word[..]);
        let writes: Vec<_> = self.cores.iter().map(place).collect();
        drive(&self.runtime, &self.ends, self.host.write_many(&writes))
    }
}

fn route_entry(entry: &spinnaker_machine::RoutingEntry) -> RouteEntry {
    RouteEntry { route: Route(entry.route.0), key: entry.key, mask: entry.mask }
}
