//! A machine of one or several boards: a transceiver for each Ethernet chip, and transfers over all of them at once.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use futures_util::future::try_join_all;
use spinnaker_wire::scp::Command;
use spinnaker_wire::sdp::Endpoint;
use spinnaker_wire::vcpu::CoreState;
use spinnaker_wire::{AppId, ChipAddress, Unit};

use crate::link::Link;
use crate::transceiver::{Part, pieces};
use crate::{FoundMachine, HostError, Result, Transceiver};

/// A piece of a chip's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The chip.
    pub chip: ChipAddress,
    /// Address as its monitor sees it.
    pub address: u32,
    /// Length.
    pub length_bytes: usize,
}

/// The boards of a machine that is booted.
///
/// Memory is reached by the Ethernet of the chip's own board, several boards at the same time. What concerns the whole machine
/// (signals, flood fill) goes by the root chip's board, and spreads from there.
pub struct Boards<L> {
    /// The root chip's board first.
    pub(crate) transceivers: Vec<Transceiver<L>>,
    /// Ethernet chips, in the order of the transceivers.
    ethernet: Vec<ChipAddress>,
    /// Chips beyond the edge of a machine that wraps around: the count of their boards leaves them out (SC&MP 4.0.0 adds places on a
    /// board to the Ethernet chip's address and does not wrap).
    uncounted: Vec<ChipAddress>,
    /// Which transceiver is nearest.
    nearest: BTreeMap<(u8, u8), usize>,
    found: FoundMachine,
    /// IP tags that were set, by Ethernet chip.
    pub(crate) tags: Vec<(ChipAddress, u8)>,
}

impl<L: Link> Boards<L> {
    /// Finds the chips of a machine by the board of its root chip, and connects to its other boards: `connect` is asked for a
    /// way to an Ethernet chip with its IP address, and may have none, in which case the root's board stands in.
    ///
    /// # Errors
    /// As [`Transceiver::discover`], and what `connect` says.
    pub async fn find(
        mut root: Transceiver<L>,
        mut connect: impl AsyncFnMut(ChipAddress, IpAddr) -> Result<Option<Transceiver<L>>>,
    ) -> Result<Self> {
        let found = root.discover().await?;
        let beyond = |chip: ChipAddress, from: ChipAddress| chip.x() < from.x() || chip.y() < from.y();
        let uncounted = found.chips.iter().filter(|found| beyond(found.chip, found.info.ethernet_chip));
        let uncounted = uncounted.map(|found| found.chip).collect();
        let (transceivers, ethernet) = (vec![root], vec![found.root]);
        let mut boards = Self { transceivers, ethernet, uncounted, nearest: BTreeMap::new(), found, tags: Vec::new() };
        let mut by_ethernet = BTreeMap::from([((boards.found.root.x(), boards.found.root.y()), 0)]);
        for found in &boards.found.chips {
            let (chip, Some(ip)) = (found.chip, found.info.ip) else { continue };
            if !found.info.ethernet_up || chip == boards.found.root {
                continue;
            }
            if let Some(transceiver) = connect(chip, ip.into()).await? {
                by_ethernet.insert((chip.x(), chip.y()), boards.transceivers.len());
                boards.transceivers.push(transceiver);
            }
            // Counts cores also where another board stands in.
            boards.ethernet.push(chip);
        }
        for found in &boards.found.chips {
            let ethernet = found.info.ethernet_chip;
            if let Some(&number) = by_ethernet.get(&(ethernet.x(), ethernet.y())) {
                boards.nearest.insert((found.chip.x(), found.chip.y()), number);
            }
        }
        Ok(boards)
    }

    /// Looks again at what the machine's chips have: memory and routing entries that are free, states of cores.
    ///
    /// # Errors
    /// As [`Transceiver::discover`].
    pub async fn look_again(&mut self) -> Result<()> {
        self.found = self.root().discover().await?;
        Ok(())
    }

    /// A machine of one board.
    ///
    /// # Errors
    /// As [`Transceiver::discover`].
    pub async fn single(root: Transceiver<L>) -> Result<Self> {
        Self::find(root, async |_, _| Ok(None)).await
    }

    /// What was found.
    pub fn found(&self) -> &FoundMachine {
        &self.found
    }

    /// Ethernet chips, that of the root's board first.
    pub fn ethernet_chips(&self) -> &[ChipAddress] {
        &self.ethernet
    }

    /// The transceiver of the root chip's board.
    pub fn root(&mut self) -> &mut Transceiver<L> {
        &mut self.transceivers[0]
    }

    /// The transceiver that is nearest to a chip.
    pub fn at(&mut self, chip: ChipAddress) -> &mut Transceiver<L> {
        let number = self.number(chip);
        &mut self.transceivers[number]
    }

    pub(crate) fn number(&self, chip: ChipAddress) -> usize {
        self.nearest.get(&(chip.x(), chip.y())).copied().unwrap_or(0)
    }

    /// The time of the root's link.
    pub fn now(&self) -> Duration {
        self.transceivers[0].now()
    }

    /// Lets time pass.
    ///
    /// # Errors
    /// [`HostError::Io`].
    pub async fn pause(&mut self, time: Duration) -> Result<()> {
        self.root().pause(time).await
    }

    /// The numbers of the jobs of each transceiver.
    fn shares(&self, chips: impl Iterator<Item = ChipAddress>) -> Vec<Vec<usize>> {
        let mut shares = vec![Vec::new(); self.transceivers.len()];
        for (job, chip) in chips.enumerate() {
            shares[self.number(chip)].push(job);
        }
        shares
    }

    /// The transceivers that have jobs, with the numbers of theirs.
    pub(crate) fn by_board(
        &mut self,
        chips: impl Iterator<Item = ChipAddress>,
    ) -> impl Iterator<Item = (&mut Transceiver<L>, Vec<usize>)> {
        let shares = self.shares(chips);
        self.transceivers.iter_mut().zip(shares).filter(|(_, share)| !share.is_empty())
    }

    /// Writes pieces of memory of any chips, each board's share over its own Ethernet.
    ///
    /// # Errors
    /// As [`Transceiver::write`].
    pub async fn write_many(&mut self, writes: &[(ChipAddress, u32, &[u8])]) -> Result<()> {
        let jobs = self.by_board(writes.iter().map(|(chip, ..)| *chip));
        let jobs = jobs.map(async |(transceiver, share)| {
            let parts = share.into_iter().flat_map(|job| {
                let (chip, base, data) = writes[job];
                pieces(data.len()).map(move |(offset, length)| {
                    let address = base.wrapping_add(offset as u32);
                    let unit = Unit::for_range(address, length as u32);
                    let command = Command::Write { address, unit, data: &data[offset..offset + length] };
                    Part { destination: Endpoint::core(chip, 0), command, reply_bytes: 0 }
                })
            });
            transceiver.run(parts, |_, _| Ok(())).await
        });
        try_join_all(jobs).await.map(drop)
    }

    /// Reads pieces of memory of any chips, each board's share over its own Ethernet.
    ///
    /// # Errors
    /// As [`Transceiver::read_into`].
    pub async fn read_many(&mut self, places: &[Place]) -> Result<Vec<Vec<u8>>> {
        let jobs = self.by_board(places.iter().map(|place| place.chip));
        let jobs = jobs.map(async |(transceiver, share)| {
            let mut data: Vec<(usize, Vec<u8>)> =
                share.iter().map(|&job| (job, vec![0; places[job].length_bytes])).collect();
            // Which piece of which job a part is.
            let index: Vec<(usize, usize, usize)> = (0..share.len())
                .flat_map(|n| pieces(places[share[n]].length_bytes).map(move |(offset, length)| (n, offset, length)))
                .collect();
            let parts = index.iter().map(|&(n, offset, length)| {
                let place = places[share[n]];
                let (address, length_bytes) = (place.address.wrapping_add(offset as u32), length as u32);
                let command = Command::Read { address, length_bytes, unit: Unit::for_range(address, length_bytes) };
                Part { destination: Endpoint::core(place.chip, 0), command, reply_bytes: length }
            });
            let piece = |part: usize| index.get(part).copied().unwrap_or_default();
            let run = transceiver.run(parts, |part, payload| {
                let (n, offset, length) = piece(part);
                if let (Some((_, data)), Some(payload)) = (data.get_mut(n), payload.get(..length)) {
                    data[offset..offset + length].copy_from_slice(payload);
                }
                Ok(())
            });
            run.await?;
            Ok::<_, HostError>(data)
        });
        let mut all = vec![Vec::new(); places.len()];
        for (job, data) in try_join_all(jobs).await?.into_iter().flatten() {
            all[job] = data;
        }
        Ok(all)
    }

    /// Asks monitors, many at once; the payloads of their answers in the order of the questions. The first failure ends it.
    pub(crate) async fn ask_many(
        &mut self,
        questions: &[(ChipAddress, Command<'_>)],
        reply_bytes: usize,
    ) -> Result<Vec<Vec<u8>>> {
        let mut answers = vec![Vec::new(); questions.len()];
        for (question, answer) in self.ask_each(questions, reply_bytes, Err).await? {
            answers[question] = answer?;
        }
        Ok(answers)
    }

    /// The same with a failure for each: `failed` says whether one is noted (`Ok`), or ends it all.
    pub(crate) async fn ask_each(
        &mut self,
        questions: &[(ChipAddress, Command<'_>)],
        reply_bytes: usize,
        failed: impl Fn(HostError) -> Result<HostError>,
    ) -> Result<Vec<(usize, Result<Vec<u8>>)>> {
        let failed = &failed;
        let jobs = self.by_board(questions.iter().map(|(chip, _)| *chip)).map(async |(transceiver, share)| {
            let parts = share.iter().map(|&question| {
                let (chip, command) = questions[question];
                Part { destination: Endpoint::core(chip, 0), command, reply_bytes }
            });
            let mut answers = Vec::with_capacity(share.len());
            let run = transceiver.run_each(parts, |part, answer| {
                let answer = match answer {
                    Ok(payload) => Ok(payload),
                    Err(error) => Err(failed(error)?),
                };
                answers.push((share.get(part).copied().unwrap_or_default(), answer));
                Ok(())
            });
            run.await?;
            Ok::<_, HostError>(answers)
        });
        Ok(try_join_all(jobs).await?.into_iter().flatten().collect())
    }

    /// Fills pieces of memory of any chips with a word.
    ///
    /// # Errors
    /// As [`Transceiver::fill`].
    pub async fn fill_many(&mut self, places: &[Place], word: u32) -> Result<()> {
        let jobs = self.by_board(places.iter().map(|place| place.chip)).map(async |(transceiver, share)| {
            for place in share.into_iter().map(|job| places[job]) {
                let monitor = Endpoint::core(place.chip, 0);
                transceiver.fill(monitor, place.address, word, place.length_bytes as u32).await?;
            }
            Ok::<_, HostError>(())
        });
        try_join_all(jobs).await.map(drop)
    }

    /// How many cores of an application are in a state, on the whole machine.
    ///
    /// # Errors
    /// As [`Transceiver::count`].
    pub async fn count(&mut self, app: AppId, state: CoreState) -> Result<u32> {
        let mut total = 0;
        for chip in self.ethernet.clone() {
            total += self.at(chip).count(chip, app, state).await?;
        }
        let cores: Vec<_> = self.uncounted.iter().flat_map(|chip| (1..18).map(move |core| (*chip, core))).collect();
        let words = self.core_words(&cores).await?;
        Ok(total + words.iter().filter(|word| word.app == app && word.state == state).count() as u32)
    }
}
