//! Bulk transfers between host and SDRAM, faster than the monitor's: by a program on one core of each chip.
//!
//! [`Bulk::start`] loads the program (its image comes from the caller), routes its packets and finds out how the host is reached;
//! [`Bulk::write_many`] and [`Bulk::read_many`] are what [`Boards`]' are, by the program where it is worth it and by the
//! monitor's commands where it is not, or where there is no program or it has stopped answering. [`Bulk::stop`] takes everything away again: cores, routes.
//!
//! The routes' keys are not those of networks ([`spinnaker_wire::bulk::KEY_MASK`]), but a table that was made short may match keys
//! that nobody used: start this before the tables of a network are loaded, or without one.

mod patience;
mod reading;
#[cfg(test)]
mod tests;
mod tree;
mod writing;

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::try_join_all;
use spinnaker_wire::bulk::{self as wire, BLOCK_BYTES, Extent, Message, VERSION};
use spinnaker_wire::iptag::{TAGS_FIXED, Target};
use spinnaker_wire::scp::{AllocCommand, Command, StartWord};
use spinnaker_wire::sdp::{self, Endpoint};
use spinnaker_wire::sv::SDRAM_SYS_ADDRESS;
use spinnaker_wire::vcpu::CoreState;
use spinnaker_wire::{AppId, ChipAddress, CoreMask, CorePort};

use crate::cores::is_failed;
use crate::link::{Channel, Link};
use crate::{Boards, HostError, Place, Result, Transceiver};
use reading::Reading;
use tree::Member;
use writing::Writing;

/// Shorter pieces go by the monitor: a transfer costs two round trips.
const BYTES_MIN: usize = 8 * BLOCK_BYTES;
/// Words of a transfer at most; longer pieces are cut.
const WORDS_MAX: usize = 1 << 24;
/// The first pause after a signal to stop; they double.
const STOP_PAUSE: Duration = Duration::from_millis(1);
/// How long a program may take to start or to end, and a gate to answer.
const START_WITHIN: Duration = Duration::from_secs(2);
const GREET_EVERY: Duration = Duration::from_millis(50);
const GREETINGS: u32 = 40;

/// What has gone over the gates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BulkCounts {
    /// Bytes written by the gates.
    pub written_bytes: u64,
    /// Bytes read by the gates.
    pub read_bytes: u64,
    /// Blocks that were sent or asked for again.
    pub repeated_blocks: u64,
}

/// The way to the chips of a board.
struct Gate {
    endpoint: Endpoint,
    /// Numbers of the hands.
    hands: BTreeMap<(u8, u8), u16>,
    transfer: u16,
    /// It has not answered: the monitor has to do.
    is_silent: bool,
    counts: BulkCounts,
}

/// See the module.
pub struct Bulk {
    app: AppId,
    /// By transceiver; `None` where the monitor has to do.
    gates: Vec<Option<Gate>>,
    members: Vec<Member>,
}

impl Bulk {
    /// Loads `image`, the program for transfers, onto the highest core of each chip that is idle, and starts it as an application with a number
    /// of its own. Boards where it does not come up are left to the monitor.
    ///
    /// # Errors
    /// [`HostError::NotStarted`] where the program does not run, soon; [`HostError::Waiting`] where it does not come up; as
    /// [`Transceiver::load`], [`Boards::load_routes_many`], [`Transceiver::set_ip_tag`]. What was begun is taken away again, unless the board
    /// has fallen silent ([`HostError::is_silence`]).
    pub async fn start<L: Link>(boards: &mut Boards<L>, image: &[u8], app: AppId) -> Result<Self> {
        let mut bulk = Self { app, gates: Vec::new(), members: Vec::new() };
        match bulk.begin(boards, image).await {
            Ok(()) => Ok(bulk),
            Err(error) => {
                // Of a board that is silent nothing is taken away. The first error is the one to tell.
                if !error.is_silence() {
                    let _ = bulk.stop(boards).await;
                }
                Err(error)
            }
        }
    }

    async fn begin<L: Link>(&mut self, boards: &mut Boards<L>, image: &[u8]) -> Result<()> {
        let cores = idle_cores(boards);
        let ethernet: Vec<ChipAddress> = boards.ethernet_chips().to_vec();
        let mut by_board = Vec::new();
        for (number, chip) in ethernet.into_iter().enumerate() {
            // A board without an Ethernet of its own to us is reached by the root's: by the monitor.
            let members = if boards.number(chip) == number || number == 0 {
                tree::members(boards.found(), chip, &cores)
            } else {
                Vec::new()
            };
            self.members.extend(members.iter().cloned());
            by_board.push(members);
        }
        self.load(boards, image).await?;
        let tables: Vec<_> = self.members.iter().map(|member| (member.chip, member.routes.clone())).collect();
        boards.load_routes_many(self.app, &tables).await?;
        for (number, members) in by_board.iter().enumerate() {
            if boards.transceivers.len() <= number {
                break;
            }
            let gate = match members.first() {
                Some(first) => greet(&mut boards.transceivers[number], first, members).await?,
                None => None,
            };
            self.gates.push(gate);
        }
        Ok(())
    }

    async fn load<L: Link>(&self, boards: &mut Boards<L>, image: &[u8]) -> Result<()> {
        let start = |core: u8| StartWord { app: self.app, flags: 0, cores: CoreMask(1 << core) };
        let Some((first, rest)) = self.members.split_first() else { return Ok(()) };
        boards.at(first.chip).load(first.chip, image, start(first.core)).await?;
        // A machine that does not run it says so on the first chip.
        self.wait_started(boards, std::slice::from_ref(first)).await?;
        let writes: Vec<_> = rest.iter().map(|member| (member.chip, SDRAM_SYS_ADDRESS, image)).collect();
        boards.write_many(&writes).await?;
        let starts: Vec<_> = rest.iter().map(|member| (member.chip, SDRAM_SYS_ADDRESS, start(member.core))).collect();
        boards.start_at_many(&starts).await?;
        self.wait_started(boards, rest).await
    }

    /// Looks at the cores' blocks: counting goes by packets that may be lost.
    async fn wait_started<L: Link>(&self, boards: &mut Boards<L>, members: &[Member]) -> Result<()> {
        let cores: Vec<_> = members.iter().map(|member| (member.chip, member.core)).collect();
        let begin = boards.now();
        let wanted = cores.len() as u32;
        loop {
            let mut words = boards.core_words(&cores).await?;
            words.retain(|word| word.app == self.app);
            if let Some(failed) = words.iter().find(|word| is_failed(word.state)) {
                return Err(HostError::NotStarted { chip: failed.chip, core: failed.core, app: self.app });
            }
            let got = words.iter().filter(|word| word.state == CoreState::Run).count() as u32;
            let waited = boards.now().saturating_sub(begin);
            if got == wanted {
                return Ok(());
            } else if waited >= START_WITHIN {
                return Err(HostError::Waiting { state: CoreState::Run.to_string(), wanted, got, waited });
            }
            boards.pause(Duration::from_millis(1)).await?;
        }
    }

    /// Ends the program and frees its routes. Its cores are idle then.
    ///
    /// # Errors
    /// [`HostError::Waiting`] if they do not end, and those of [`Transceiver::request`].
    pub async fn stop<L: Link>(self, boards: &mut Boards<L>) -> Result<()> {
        let command = Command::Alloc(AllocCommand::FreeRoutesOf { app: self.app, clear: true });
        let questions: Vec<_> = self.members.iter().map(|member| (member.chip, command)).collect();
        boards.ask_many(&questions, 0).await?;
        let cores: Vec<_> = self.members.iter().map(|member| (member.chip, member.core)).collect();
        let begin = boards.now();
        let mut pause = STOP_PAUSE;
        loop {
            // The signal goes from chip to chip, and may be missed by some.
            boards.root().stop(self.app).await?;
            boards.pause(pause).await?;
            let words = boards.core_words(&cores).await?;
            let got = words.iter().filter(|word| word.app == self.app).count() as u32;
            let waited = boards.now().saturating_sub(begin);
            if got == 0 {
                return Ok(());
            } else if waited >= START_WITHIN {
                return Err(HostError::Waiting { state: "stopped".to_string(), wanted: 0, got, waited });
            }
            pause *= 2;
        }
    }

    /// What has gone over all gates.
    pub fn counts(&self) -> BulkCounts {
        self.gates.iter().flatten().fold(BulkCounts::default(), |sum, gate| BulkCounts {
            written_bytes: sum.written_bytes + gate.counts.written_bytes,
            read_bytes: sum.read_bytes + gate.counts.read_bytes,
            repeated_blocks: sum.repeated_blocks + gate.counts.repeated_blocks,
        })
    }

    /// Whether a chip is reached by the program of its board.
    fn reaches(&self, number: usize, chip: ChipAddress) -> bool {
        let gate = self.gates.get(number).and_then(Option::as_ref);
        gate.is_some_and(|gate| !gate.is_silent && gate.hand(chip).is_some())
    }

    /// Writes pieces of memory of any chips, each board's share over its own Ethernet.
    ///
    /// # Errors
    /// As [`Boards::write_many`].
    pub async fn write_many<L: Link>(
        &mut self,
        boards: &mut Boards<L>,
        writes: &[(ChipAddress, u32, &[u8])],
    ) -> Result<()> {
        let mut by_monitor = Vec::new();
        let mut shares: Vec<Vec<(ChipAddress, u32, &[u8])>> = self.gates.iter().map(|_| Vec::new()).collect();
        for &(chip, address, data) in writes {
            let number = boards.number(chip);
            let is_reached = self.reaches(number, chip);
            match cut(address, data.len()) {
                Some((before, words)) if is_reached => {
                    let (head, rest) = data.split_at(before);
                    let (middle, tail) = rest.split_at(4 * words);
                    let at = |bytes: usize| address.wrapping_add(bytes as u32);
                    let edges = [(chip, address, head), (chip, at(before + 4 * words), tail)];
                    by_monitor.extend(edges.into_iter().filter(|edge| !edge.2.is_empty()));
                    for (part, data) in middle.chunks(4 * WORDS_MAX).enumerate() {
                        shares[number].push((chip, at(before + part * 4 * WORDS_MAX), data));
                    }
                }
                _ => by_monitor.push((chip, address, data)),
            }
        }
        boards.write_many(&by_monitor).await?;
        let jobs = boards.transceivers.iter_mut().zip(&mut self.gates).zip(shares);
        let jobs = jobs.filter_map(|((transceiver, gate), share)| Some((transceiver, gate.as_mut()?, share)));
        let jobs = jobs.map(async |(transceiver, gate, share)| {
            for (chip, address, data) in share {
                match gate.write(transceiver, chip, address, data).await {
                    Err(HostError::BulkSilent { .. }) => {
                        gate.is_silent = true;
                        transceiver.write(Endpoint::core(chip, 0), address, data).await?;
                    }
                    result => result?,
                }
            }
            Ok::<_, HostError>(())
        });
        try_join_all(jobs).await.map(drop)
    }

    /// Reads pieces of memory of any chips, each board's share over its own Ethernet.
    ///
    /// # Errors
    /// As [`Boards::read_many`].
    pub async fn read_many<L: Link>(&mut self, boards: &mut Boards<L>, places: &[Place]) -> Result<Vec<Vec<u8>>> {
        let mut all: Vec<Vec<u8>> = places.iter().map(|place| vec![0; place.length_bytes]).collect();
        // By the monitor: which piece, where in it, and what.
        let mut by_monitor: Vec<(usize, usize, Place)> = Vec::new();
        let mut shares: Vec<Vec<(ChipAddress, u32, &mut [u8])>> = self.gates.iter().map(|_| Vec::new()).collect();
        for ((job, place), data) in places.iter().enumerate().zip(&mut all) {
            let number = boards.number(place.chip);
            let is_reached = self.reaches(number, place.chip);
            let part = |from: usize, length_bytes: usize| {
                let address = place.address.wrapping_add(from as u32);
                (job, from, Place { chip: place.chip, address, length_bytes })
            };
            match cut(place.address, place.length_bytes) {
                Some((before, words)) if is_reached => {
                    let end = before + 4 * words;
                    let edges = [part(0, before), part(end, place.length_bytes - end)];
                    by_monitor.extend(edges.into_iter().filter(|edge| edge.2.length_bytes > 0));
                    for (number_of_part, data) in data[before..end].chunks_mut(4 * WORDS_MAX).enumerate() {
                        let (_, _, place) = part(before + number_of_part * 4 * WORDS_MAX, 0);
                        shares[number].push((place.chip, place.address, data));
                    }
                }
                _ => by_monitor.push(part(0, place.length_bytes)),
            }
        }
        let jobs = boards.transceivers.iter_mut().zip(&mut self.gates).zip(shares);
        let jobs = jobs.filter_map(|((transceiver, gate), share)| Some((transceiver, gate.as_mut()?, share)));
        let jobs = jobs.map(async |(transceiver, gate, share)| {
            for (chip, address, data) in share {
                match gate.read(transceiver, chip, address, data).await {
                    Err(HostError::BulkSilent { .. }) => {
                        gate.is_silent = true;
                        transceiver.read_into(Endpoint::core(chip, 0), address, data).await?;
                    }
                    result => result?,
                }
            }
            Ok::<_, HostError>(())
        });
        try_join_all(jobs).await?;
        let rest: Vec<Place> = by_monitor.iter().map(|(_, _, place)| *place).collect();
        for ((job, from, place), data) in by_monitor.into_iter().zip(boards.read_many(&rest).await?) {
            all[job][from..from + place.length_bytes].copy_from_slice(&data);
        }
        Ok(all)
    }
}

/// Bytes before the first whole word, and whole words; `None` for a piece that is not worth a transfer.
fn cut(address: u32, length_bytes: usize) -> Option<(usize, usize)> {
    let before = (address.wrapping_neg() & 3) as usize;
    let fits = u64::from(address) + length_bytes as u64 <= 1 << 32;
    (length_bytes >= BYTES_MIN && fits).then(|| (before, (length_bytes - before) / 4))
}

/// The highest core of each chip that does nothing.
fn idle_cores<L: Link>(boards: &Boards<L>) -> BTreeMap<(u8, u8), u8> {
    let chips = boards.found().chips.iter();
    chips
        .filter_map(|found| {
            let cores = (1..found.info.cores.min(18)).rev();
            let core = cores.into_iter().find(|core| found.info.states[usize::from(*core)] == CoreState::Idle)?;
            Some(((found.chip.x(), found.chip.y()), core))
        })
        .collect()
}

/// Tells a gate where the host is. `None` if it does not answer.
async fn greet<L: Link>(transceiver: &mut Transceiver<L>, gate: &Member, members: &[Member]) -> Result<Option<Gate>> {
    let endpoint = Endpoint { chip: gate.chip, port: CorePort::new(gate.core, wire::PORT) };
    let tags = transceiver.ip_tags(gate.chip).await?;
    let Some(tag) = tags.iter().take(TAGS_FIXED.into()).position(|tag| !tag.is_valid()) else { return Ok(None) };
    let tag = tag as u8;
    // The board knows where its messages come from better than this computer, which may be behind address translation.
    let target = Target { use_sender: true, ..Target::to_host([0; 4], 0, false) };
    transceiver.set_ip_tag(gate.chip, tag, target).await?;
    let entry = transceiver.ip_tags(gate.chip).await.map(|tags| tags.get(usize::from(tag)).copied());
    transceiver.clear_ip_tag(gate.chip, tag).await?;
    let Some(entry) = entry? else { return Ok(None) };
    // Other numbers in every session, so that nothing late belongs to this one.
    let nonce = (transceiver.now().as_nanos() as u32) ^ std::process::id() << 16;
    let hello = Message::Hello { nonce, ip: entry.ip, mac: entry.mac, port: entry.tx_port.get() };
    let mut wire = Wire::new(transceiver, endpoint);
    for _ in 0..GREETINGS {
        wire.send(&hello).await?;
        let deadline = wire.now() + GREET_EVERY;
        let mut greeted = false;
        while !greeted && wire.now() < deadline {
            let expected = Message::Greeting { nonce, version: VERSION };
            wire.receive(deadline, |_, message| greeted = *message == expected).await?;
        }
        if greeted {
            let hands = members.iter().map(|m| ((m.chip.x(), m.chip.y()), m.hand)).collect();
            return Ok(Some(Gate { endpoint, hands, transfer: 0, is_silent: false, counts: BulkCounts::default() }));
        }
    }
    Ok(None)
}

impl Gate {
    fn hand(&self, chip: ChipAddress) -> Option<u16> {
        self.hands.get(&(chip.x(), chip.y())).copied()
    }

    /// What a transfer is about. One by a gate that is silent has failed before it begins.
    fn extent<L: Link>(
        &self,
        wire: &Wire<'_, L>,
        chip: ChipAddress,
        address: u32,
        length_bytes: usize,
    ) -> Result<Extent> {
        match self.hand(chip) {
            Some(hand) if !self.is_silent => Ok(Extent { hand, address, words: (length_bytes / 4) as u32 }),
            _ => Err(wire.silent(Duration::ZERO)),
        }
    }

    /// A number for the next transfer. One that was dropped before its end has had its number.
    fn begin(&mut self) -> u16 {
        self.transfer = self.transfer.wrapping_add(1);
        self.transfer
    }

    async fn write<L: Link>(
        &mut self,
        transceiver: &mut Transceiver<L>,
        chip: ChipAddress,
        address: u32,
        data: &[u8],
    ) -> Result<()> {
        let mut wire = Wire::new(transceiver, self.endpoint);
        let extent = self.extent(&wire, chip, address, data.len())?;
        let mut writing = Writing::new(self.begin(), extent, data, wire.now());
        while !writing.is_done() {
            while let Some(message) = writing.poll_transmit(wire.now()) {
                wire.send(&message).await?;
            }
            wire.receive(writing.deadline(), |now, message| writing.on_message(now, message)).await?;
            if let Some(waited) = writing.on_time(wire.now()) {
                return Err(wire.silent(waited));
            }
        }
        self.counts.written_bytes += data.len() as u64;
        self.counts.repeated_blocks += writing.repeated();
        Ok(())
    }

    async fn read<L: Link>(
        &mut self,
        transceiver: &mut Transceiver<L>,
        chip: ChipAddress,
        address: u32,
        data: &mut [u8],
    ) -> Result<()> {
        let mut wire = Wire::new(transceiver, self.endpoint);
        let extent = self.extent(&wire, chip, address, data.len())?;
        let length_bytes = data.len() as u64;
        let mut reading = Reading::new(self.begin(), extent, data, wire.now());
        while !reading.is_done() {
            while let Some(message) = reading.poll_transmit(wire.now()) {
                wire.send(&message).await?;
            }
            wire.receive(reading.deadline(), |now, message| reading.on_message(now, message)).await?;
            if let Some(waited) = reading.on_time(wire.now()) {
                return Err(wire.silent(waited));
            }
        }
        self.counts.read_bytes += length_bytes;
        self.counts.repeated_blocks += reading.repeated();
        Ok(())
    }
}

/// Messages to and from one gate.
struct Wire<'a, L> {
    link: &'a mut L,
    gate: Endpoint,
    buffer: Vec<u8>,
}

impl<'a, L: Link> Wire<'a, L> {
    fn new(transceiver: &'a mut Transceiver<L>, gate: Endpoint) -> Self {
        Self { link: &mut transceiver.link, gate, buffer: vec![0; 2048] }
    }

    fn now(&self) -> Duration {
        self.link.now()
    }

    async fn send(&mut self, message: &Message<'_>) -> Result<()> {
        let header = sdp::Repr {
            flags: sdp::Flags::NO_REPLY,
            tag: sdp::TAG_TRANSIENT,
            destination: self.gate,
            source: Endpoint::HOST,
        };
        let length = message.emit_udp(&header, &mut self.buffer)?;
        let sent = self.link.send(Channel::Scp, &self.buffer[..length]).await;
        sent.map_err(|source| HostError::of_io(self.link.board(), source))
    }

    /// Waits for one datagram; what is none of the gate's messages is dropped.
    async fn receive(&mut self, deadline: Duration, take: impl FnOnce(Duration, &Message<'_>)) -> Result<()> {
        let received = self.link.receive(Channel::Scp, &mut self.buffer, deadline).await;
        let received = received.map_err(|source| HostError::of_io(self.link.board(), source))?;
        let Some(datagram) = received.and_then(|length| self.buffer.get(..length)) else { return Ok(()) };
        if let Ok((header, message)) = Message::from_udp(datagram)
            && header.source == self.gate
        {
            take(self.link.now(), &message);
        }
        Ok(())
    }

    fn silent(&self, waited: Duration) -> HostError {
        HostError::BulkSilent { board: self.link.board(), gate: self.gate, waited }
    }
}
