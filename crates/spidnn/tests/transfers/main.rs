//! Bulk transfers by the project's own program on the instruction-level board, beside the official monitor.

mod sessions;

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use spidnn::cycle_link::CycleLink;
use spidnn::firmware::STREAM;
use spinnaker_host::bulk::Bulk;
use spinnaker_host::{Boards, BootOptions, Channel, Link, Options, Place, Transceiver};
use spinnaker_machine::{Locator, Machine};
use spinnaker_sim::cycle::{CycleConfig, CycleMachine};
use spinnaker_wire::scp::{self, Command, ReturnCode};
use spinnaker_wire::sdp::{self, Endpoint};
use spinnaker_wire::sv::Board;
use spinnaker_wire::{AppId, ChipAddress};

const APP: AppId = AppId(77);
/// Sequence numbers of what [`Rough`] asks by itself: none that a transceiver uses here.
const OWN_SEQ: u16 = 0xF000;

/// Of 1000 datagrams each way.
#[derive(Clone, Copy, Default)]
struct Faults {
    lost: u32,
    doubled: u32,
    /// Delayed by 200 ms.
    spiked: u32,
    /// Delayed by up to 300 microseconds.
    shuffled: u32,
    /// Datagrams after which the monitor is asked for its version.
    ask_every: Option<u32>,
}

/// A link with faults.
struct Rough {
    link: CycleLink,
    faults: Faults,
    rng: ChaCha8Rng,
    /// By time: to the board or from it.
    delayed: BTreeMap<(Duration, u64), (bool, Channel, Vec<u8>)>,
    ready: Vec<(Channel, Vec<u8>)>,
    serial: u64,
    asked: u16,
    answered: u32,
}

impl Rough {
    fn chance(&mut self, per_mille: u32) -> bool {
        self.rng.next_u32() % 1000 < per_mille
    }

    fn fate(&mut self, to_board: bool, channel: Channel, datagram: &[u8]) {
        if self.chance(self.faults.lost) {
            return;
        }
        let copies = 1 + u32::from(self.chance(self.faults.doubled));
        for _ in 0..copies {
            let mut at = self.link.now();
            if self.chance(self.faults.spiked) {
                at += Duration::from_millis(200);
            }
            if self.chance(self.faults.shuffled) {
                at += Duration::from_micros(u64::from(self.rng.next_u32() % 300));
            }
            self.serial += 1;
            self.delayed.insert((at, self.serial), (to_board, channel, datagram.to_vec()));
        }
    }

    /// Hands on what is due.
    async fn flush(&mut self) -> io::Result<()> {
        while let Some((&(at, serial), _)) = self.delayed.first_key_value()
            && at <= self.link.now()
        {
            let Some((to_board, channel, datagram)) = self.delayed.remove(&(at, serial)) else { break };
            if to_board {
                self.link.send(channel, &datagram).await?;
            } else {
                self.ready.push((channel, datagram));
            }
        }
        Ok(())
    }

    /// Whether it answers a question of the link's own; then it has to be right.
    fn is_own(&mut self, datagram: &[u8]) -> bool {
        let Ok(packet) = sdp::Packet::from_udp(datagram) else { return false };
        let Ok(reply) = scp::Packet::new_checked(packet.body) else { return false };
        if self.asked == 0 || reply.seq() < OWN_SEQ || reply.return_code() != ReturnCode::Ok {
            return false;
        }
        let version = scp::Version::parse(reply.payload).expect("a version");
        assert_eq!(version.name, "SC&MP");
        self.answered += 1;
        true
    }
}

impl Link for Rough {
    fn board(&self) -> String {
        self.link.board()
    }

    fn now(&self) -> Duration {
        self.link.now()
    }

    async fn send(&mut self, channel: Channel, datagram: &[u8]) -> io::Result<()> {
        self.fate(true, channel, datagram);
        self.serial += 1;
        if self.faults.ask_every.is_some_and(|every| self.serial.is_multiple_of(every.into())) {
            let header = sdp::Repr::request(Endpoint::core(ChipAddress::new(0, 0), 0));
            let request = scp::Request { seq: OWN_SEQ + self.asked, command: Command::Version };
            let mut buffer = [0; sdp::UDP_BYTES_MAX];
            let length = scp::emit_udp_request(&header, &request, &mut buffer).map_err(io::Error::other)?;
            self.asked = (self.asked + 1) % 0xFFF;
            self.link.send(channel, &buffer[..length]).await?;
        }
        self.flush().await
    }

    async fn receive(&mut self, channel: Channel, buffer: &mut [u8], deadline: Duration) -> io::Result<Option<usize>> {
        loop {
            self.flush().await?;
            if let Some(at) = self.ready.iter().position(|(of, _)| *of == channel) {
                let (_, datagram) = self.ready.remove(at);
                let length = datagram.len().min(buffer.len());
                buffer[..length].copy_from_slice(&datagram[..length]);
                return Ok(Some(length));
            }
            if self.now() >= deadline {
                return Ok(None);
            }
            let next = self.delayed.first_key_value().map_or(deadline, |(&(at, _), _)| at.min(deadline));
            if let Some(length) = self.link.receive(channel, buffer, next).await? {
                let datagram = buffer[..length].to_vec();
                if !self.is_own(&datagram) {
                    self.fate(false, channel, &datagram);
                }
            }
        }
    }
}

fn content(bytes: usize, seed: u64) -> Vec<u8> {
    let mut data = vec![0; bytes];
    ChaCha8Rng::seed_from_u64(seed).fill_bytes(&mut data);
    data
}

/// A SpiNN-3 that is booted, if there is a boot image.
fn boot(seed: u64, config: &CycleConfig) -> Option<(tokio::runtime::Runtime, Boards<Rough>)> {
    let Ok(image) = spidnn::boot_image::find() else {
        eprintln!("not run: no boot image of the official monitor (SPINNAKER_BOOT_IMAGE)");
        return None;
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let link = Rough {
        link: CycleLink::new(CycleMachine::new(&Machine::spin3(), config)),
        faults: Faults::default(),
        rng: ChaCha8Rng::seed_from_u64(seed),
        delayed: BTreeMap::new(),
        ready: Vec::new(),
        serial: 0,
        asked: 0,
        answered: 0,
    };
    let mut root = Transceiver::over(link, Options::default());
    runtime.block_on(root.boot(&image, &BootOptions::new(Board::Spin3, 0x5F00_0000))).unwrap();
    let boards = runtime.block_on(Boards::single(root)).unwrap();
    Some((runtime, boards))
}

/// Writes to every chip, in several pieces, reads it back both ways, and looks at the bytes beside.
async fn there_and_back<L: Link>(boards: &mut Boards<L>, bulk: &mut Bulk, seed: u64, bytes: usize) {
    let chips: Vec<ChipAddress> = boards.found().chips.iter().map(|found| found.chip).collect();
    let margin = 16;
    let pieces: Vec<(ChipAddress, u32, Vec<u8>)> = chips
        .iter()
        .enumerate()
        .flat_map(|(number, &chip)| {
            let seed = seed * 100 + number as u64;
            // Whole and odd addresses and lengths, and one that is too short for a transfer.
            [
                (chip, 0x6100_0000, content(bytes, seed)),
                (chip, 0x6200_0003, content(bytes / 2 + 1, seed + 10)),
                (chip, 0x6300_0004, content(2308, seed + 20)),
                (chip, 0x6400_0001, content(37, seed + 30)),
            ]
        })
        .collect();
    let places = |margin: u32| -> Vec<Place> {
        let place = |(chip, address, data): &(ChipAddress, u32, Vec<u8>)| Place {
            chip: *chip,
            address: address - margin,
            length_bytes: data.len() + 2 * margin as usize,
        };
        pieces.iter().map(place).collect()
    };
    // The margins are known before.
    for (chip, address, data) in &pieces {
        let monitor = Endpoint::core(*chip, 0);
        let transceiver = boards.at(*chip);
        transceiver.write(monitor, address - margin, &[0xEE; 16]).await.unwrap();
        transceiver.write(monitor, address + data.len() as u32, &[0xEE; 16]).await.unwrap();
    }
    let writes: Vec<(ChipAddress, u32, &[u8])> = pieces.iter().map(|(c, a, d)| (*c, *a, &d[..])).collect();
    bulk.write_many(boards, &writes).await.unwrap();
    let by_bulk = bulk.read_many(boards, &places(margin)).await.unwrap();
    let by_monitor = boards.read_many(&places(margin)).await.unwrap();
    for (number, (chip, address, data)) in pieces.iter().enumerate() {
        let mut expected = vec![0xEE; 16];
        expected.extend_from_slice(data);
        expected.extend([0xEE; 16]);
        assert!(by_monitor[number] == expected, "seed {seed}: {chip} {address:#x} is written wrongly");
        assert!(by_bulk[number] == expected, "seed {seed}: {chip} {address:#x} is read wrongly");
    }
}

#[test]
fn all_chips_are_written_and_read_and_nothing_is_left_behind() {
    let Some((runtime, mut boards)) = boot(0, &CycleConfig::default()) else { return };
    runtime.block_on(async {
        let chips: Vec<ChipAddress> = boards.found().chips.iter().map(|found| found.chip).collect();
        let mut before = Vec::new();
        for &chip in &chips {
            before.push(boards.at(chip).chip_info(chip).await.unwrap());
        }
        let mut bulk = Bulk::start(&mut boards, STREAM, APP).await.unwrap();
        there_and_back(&mut boards, &mut bulk, 1, 150_000).await;
        let counts = bulk.counts();
        // All but a few bytes at the edges, and the short piece.
        assert!(counts.written_bytes > 4 * 227_000, "{counts:?}");
        assert!(counts.read_bytes > 4 * 227_000, "{counts:?}");
        assert_eq!(counts.repeated_blocks, 0);
        bulk.stop(&mut boards).await.unwrap();
        boards.pause(Duration::from_millis(50)).await.unwrap();
        for (chip, before) in chips.iter().zip(before) {
            let after = boards.at(*chip).chip_info(*chip).await.unwrap();
            assert_eq!(after, before, "{chip}");
        }
        let tags = boards.root().ip_tags(ChipAddress::new(0, 0)).await.unwrap();
        assert!(tags.iter().take(8).all(|tag| !tag.is_valid()), "a tag is left");
        // And again, in the same session.
        let mut bulk = Bulk::start(&mut boards, STREAM, APP).await.unwrap();
        there_and_back(&mut boards, &mut bulk, 2, 5000).await;
        bulk.stop(&mut boards).await.unwrap();
    });
}

#[test]
fn rates_are_near_the_cables() {
    let Some((runtime, mut boards)) = boot(0, &CycleConfig::default()) else { return };
    runtime.block_on(async {
        let mut bulk = Bulk::start(&mut boards, STREAM, APP).await.unwrap();
        let data = content(1 << 20, 5);
        for chip in [ChipAddress::new(0, 0), ChipAddress::new(1, 1)] {
            let begin = boards.now();
            bulk.write_many(&mut boards, &[(chip, 0x6100_0000, &data)]).await.unwrap();
            let written = boards.now();
            let place = Place { chip, address: 0x6100_0000, length_bytes: data.len() };
            let back = bulk.read_many(&mut boards, &[place]).await.unwrap();
            let read = boards.now();
            assert!(back[0] == data);
            // 272 bytes of SDP in a frame of 348 byte times (measurements.md, section 7): 9.77 MB/s; nine tenths of it.
            let least = 0.9 * 272.0 / (348.0 * 80e-9);
            for time in [written - begin, read - written] {
                let rate = data.len() as f64 / time.as_secs_f64();
                assert!(rate > least, "{chip}: {rate:.0} of {least:.0} bytes/s");
            }
        }
    });
}

#[test]
fn what_is_lost_between_chips_is_sent_again() {
    // One of 5,500 packets has a bit turned, and is dropped by the next router. (With other seeds one of them is missed at the start.)
    let config = CycleConfig { seed: 1, parity_errors_per_65536: 12, ..CycleConfig::default() };
    let Some((runtime, mut boards)) = boot(0, &config) else { return };
    runtime.block_on(async {
        assert_eq!(boards.found().chips.len(), 4);
        let mut bulk = Bulk::start(&mut boards, STREAM, APP).await.unwrap();
        there_and_back(&mut boards, &mut bulk, 3, 100_000).await;
        assert!(bulk.counts().repeated_blocks > 0, "{:?}", bulk.counts());
    });
}

#[test]
fn transfers_over_a_bad_cable_end_right() {
    let Some((runtime, mut boards)) = boot(1, &CycleConfig::default()) else { return };
    runtime.block_on(async {
        let mut bulk = Bulk::start(&mut boards, STREAM, APP).await.unwrap();
        boards.root().link().faults = Faults { lost: 100, doubled: 50, spiked: 3, shuffled: 200, ask_every: None };
        for seed in 10..13 {
            there_and_back(&mut boards, &mut bulk, seed, 40_000).await;
        }
        assert!(bulk.counts().repeated_blocks > 100, "{:?}", bulk.counts());
    });
}

#[test]
fn the_monitor_answers_beside_transfers() {
    let Some((runtime, mut boards)) = boot(1, &CycleConfig::default()) else { return };
    runtime.block_on(async {
        let mut bulk = Bulk::start(&mut boards, STREAM, APP).await.unwrap();
        boards.root().link().faults = Faults { ask_every: Some(3), ..Faults::default() };
        there_and_back(&mut boards, &mut bulk, 20, 100_000).await;
        let link = boards.root().link();
        assert!(link.answered > 100, "{} answers", link.answered);
    });
}

#[test]
fn a_program_that_has_stopped_is_done_without() {
    let Some((runtime, mut boards)) = boot(0, &CycleConfig::default()) else { return };
    runtime.block_on(async {
        let mut bulk = Bulk::start(&mut boards, STREAM, APP).await.unwrap();
        boards.root().stop(APP).await.unwrap();
        let begin = boards.now();
        there_and_back(&mut boards, &mut bulk, 30, 20_000).await;
        assert_eq!(bulk.counts().written_bytes, 0);
        // It is waited for once.
        assert!(boards.now() - begin < Duration::from_secs(6));
    });
}

#[test]
fn several_boards_are_written_and_read_by_their_own_cables() {
    // Of three boards the chips on the way from one Ethernet chip to another, and one beside each.
    let alive = [(0, 0), (0, 1), (1, 1), (2, 2), (3, 3), (4, 4), (5, 4), (6, 4), (7, 4), (8, 4), (9, 5)];
    // The third board has its Ethernet chip alone, which nothing reaches.
    let all = (0..12).flat_map(|x| (0..12).map(move |y| (x, y))).filter(|at| *at != (4, 8));
    let dead: String = all.filter(|at| !alive.contains(at)).map(|(x, y)| format!("&dead={x},{y}")).collect();
    let Locator::Virtual(locator) = format!("virtual:3boards?fidelity=cycle{dead}").parse().unwrap() else {
        panic!("virtual")
    };
    if spidnn::boot_image::find().is_err() {
        eprintln!("not run: no boot image of the official monitor (SPINNAKER_BOOT_IMAGE)");
        return;
    }
    let spidnn::reach::Reached { runtime, mut boards } = spidnn::reach::instruction_level(&locator).unwrap();
    runtime.block_on(async {
        assert_eq!((boards.found().chips.len(), boards.ethernet_chips().len()), (alive.len(), 2));
        let mut bulk = Bulk::start(&mut boards, STREAM, APP).await.unwrap();
        there_and_back(&mut boards, &mut bulk, 40, 10_000).await;
        let counts = bulk.counts();
        // All but a few bytes at the edges, and the short piece.
        assert!(counts.written_bytes > alive.len() as u64 * 17_200, "{counts:?}");
        assert!(counts.read_bytes > alive.len() as u64 * 17_200, "{counts:?}");
        bulk.stop(&mut boards).await.unwrap();
        assert_eq!(boards.applications().await.unwrap(), BTreeMap::new());
    });
}
