//! The transceiver over a link that loses, doubles, reorders and delays datagrams, to a small model of a monitor.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::time::Duration;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use spinnaker_host::{BootOptions, Channel, HostError, Link, Options, RouteEntry, Transceiver};
use spinnaker_wire::aplx;
use spinnaker_wire::boot;
use spinnaker_wire::boot_image;
use spinnaker_wire::diagnostics::WaitCode;
use spinnaker_wire::iptag;
use spinnaker_wire::router::Route;
use spinnaker_wire::scp::{self, AllocCommand, Command, ReturnCode, StartWord, Version};
use spinnaker_wire::sdp::{self, Endpoint};
use spinnaker_wire::sv::{self, Board};
use spinnaker_wire::vcpu::{self, CoreState};
use spinnaker_wire::{AppId, ChipAddress, CoreMask};

/// Of 1000 datagrams each way.
#[derive(Clone, Copy, Default)]
struct Faults {
    lost: u32,
    doubled: u32,
    spiked: u32,
}

/// A monitor that reads, writes, fills, allocates and starts; and the link to it, in simulated time.
struct ModelBoard {
    now: Duration,
    faults: Faults,
    rng: ChaCha8Rng,
    /// To the host, by arrival; a number keeps equal times apart.
    arriving: BTreeMap<(Duration, u64), Vec<u8>>,
    serial: u64,
    memory: BTreeMap<u32, u8>,
    /// Whether the monitor runs.
    alive: bool,
    image: BTreeMap<u8, Vec<u32>>,
    blocks: u16,
    starts: Vec<StartWord>,
    /// Return codes that come first.
    codes: VecDeque<ReturnCode>,
    allocated: BTreeMap<(u8, u8), u32>,
    answered: u64,
}

impl ModelBoard {
    fn new(seed: u64, faults: Faults) -> Self {
        Self {
            now: Duration::ZERO,
            faults,
            rng: ChaCha8Rng::seed_from_u64(seed),
            arriving: BTreeMap::new(),
            serial: 0,
            memory: BTreeMap::new(),
            alive: true,
            image: BTreeMap::new(),
            blocks: 0,
            starts: Vec::new(),
            codes: VecDeque::new(),
            allocated: BTreeMap::new(),
            answered: 0,
        }
    }

    fn chance(&mut self, per_mille: u32) -> bool {
        self.rng.next_u32() % 1000 < per_mille
    }

    fn transceiver(self) -> Transceiver<Self> {
        Transceiver::over(self, Options::default())
    }

    fn reply(&mut self, request: &[u8]) -> Option<Vec<u8>> {
        let packet = sdp::Packet::from_udp(request).ok()?;
        let mut header = packet.repr().reply();
        header.source.chip = ChipAddress::new(0, 0);
        let parsed = scp::Request::parse(packet.body).ok()?;
        let mut payload = Vec::new();
        let code = self.codes.pop_front().unwrap_or(ReturnCode::Ok);
        if code == ReturnCode::Ok {
            self.execute(&parsed.command, &mut payload);
        }
        let mut buffer = [0; sdp::UDP_BYTES_MAX];
        let length = scp::emit_udp_reply(&header, code, parsed.seq, &payload, &mut buffer).ok()?;
        self.answered += 1;
        Some(buffer[..length].to_vec())
    }

    fn execute(&mut self, command: &Command<'_>, payload: &mut Vec<u8>) {
        match *command {
            Command::Version => {
                let version = Version {
                    virtual_core: 0,
                    physical_core: 1,
                    chip: ChipAddress::new(0, 0),
                    buffer_bytes: 256,
                    build_time_s: 0,
                    name: "SC&MP",
                    hardware: "SpiNNaker",
                    number: (4, 0, 0),
                };
                payload.resize(64, 0);
                let length = version.emit(payload).unwrap();
                payload.truncate(length);
            }
            Command::Read { address, length_bytes, .. } if length_bytes <= 256 => {
                payload.extend((0..length_bytes).map(|i| self.memory.get(&(address + i)).copied().unwrap_or(0)));
            }
            Command::Write { address, data, .. } => {
                self.memory.extend(data.iter().enumerate().map(|(i, byte)| (address + i as u32, *byte)));
            }
            Command::Fill { address, word, length_bytes } => {
                let bytes = word.to_le_bytes();
                self.memory.extend((0..length_bytes).map(|i| (address + i, bytes[i as usize % 4])));
            }
            Command::ApplicationRun(start) => {
                self.starts.push(start);
                for core in (0..18).filter(|core| start.cores.0 & 1 << core != 0) {
                    self.memory.insert(vcpu::address(core) + 0x2F, start.app.0);
                }
            }
            Command::Alloc(AllocCommand::Sdram { app, length_bytes, tag, existing }) => {
                let next = 0x6024_0008 + self.allocated.len() as u32 * (length_bytes + 8);
                let address = match self.allocated.get(&(app.0, tag)) {
                    Some(address) if existing => *address,
                    Some(_) => 0,
                    None => next,
                };
                self.allocated.entry((app.0, tag)).or_insert(address);
                payload.extend(address.to_le_bytes());
            }
            Command::IpTag(_) => payload.extend([9, 32, 8, 8]),
            _ => {}
        }
    }

    fn boot(&mut self, message: &[u8]) {
        match boot::Repr::parse(message) {
            Ok(boot::Repr::Start { blocks }) => self.blocks = blocks,
            Ok(boot::Repr::Block { number, data, .. }) => {
                self.image.insert(number, boot::block_words(data).collect());
            }
            Ok(boot::Repr::Control { execute: true, .. }) if self.image.len() == usize::from(self.blocks) => {
                self.alive = true;
            }
            _ => {}
        }
    }
}

impl Link for ModelBoard {
    fn board(&self) -> String {
        "model".to_string()
    }

    fn now(&self) -> Duration {
        self.now
    }

    async fn send(&mut self, channel: Channel, datagram: &[u8]) -> io::Result<()> {
        if self.chance(self.faults.lost) {
            return Ok(());
        }
        if channel == Channel::Boot {
            self.boot(datagram);
            return Ok(());
        }
        let copies = if self.chance(self.faults.doubled) { 2 } else { 1 };
        for _ in 0..copies {
            if !self.alive {
                continue;
            }
            let Some(reply) = self.reply(datagram) else { continue };
            if self.chance(self.faults.lost) {
                continue;
            }
            let spike = if self.chance(self.faults.spiked) { 200_000 } else { 0 };
            let latency_us = 100 + u64::from(self.rng.next_u32() % 2000) + spike;
            self.serial += 1;
            self.arriving.insert((self.now + Duration::from_micros(latency_us), self.serial), reply);
        }
        Ok(())
    }

    async fn receive(&mut self, channel: Channel, buffer: &mut [u8], deadline: Duration) -> io::Result<Option<usize>> {
        match self.arriving.first_entry() {
            Some(first) if channel == Channel::Scp && first.key().0 <= deadline => {
                self.now = self.now.max(first.key().0);
                let datagram = first.remove();
                buffer[..datagram.len()].copy_from_slice(&datagram);
                Ok(Some(datagram.len()))
            }
            _ => {
                self.now = self.now.max(deadline);
                Ok(None)
            }
        }
    }
}

const ROUGH: Faults = Faults { lost: 100, doubled: 50, spiked: 20 };
const MONITOR: Endpoint = Endpoint::core(ChipAddress::ROOT, 0);

fn random_bytes(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    ChaCha8Rng::seed_from_u64(seed).fill_bytes(&mut bytes);
    bytes
}

#[tokio::test]
async fn transfers_end_right_over_a_rough_link() {
    let mut repeated = 0;
    for seed in 0..100 {
        let mut board = ModelBoard::new(seed, ROUGH).transceiver();
        // Odd lengths and addresses.
        let data = random_bytes(seed, 3000 + seed as usize * 7);
        let address = 0x6024_0000 + seed as u32;
        board.write(MONITOR, address, &data).await.unwrap_or_else(|e| panic!("seed {seed}: {e}"));
        let read = board.read(MONITOR, address, data.len()).await.unwrap_or_else(|e| panic!("seed {seed}: {e}"));
        assert!(read == data, "seed {seed}");
        board.fill(MONITOR, 0x6100_0000, 0x0102_0304, 8).await.unwrap();
        assert_eq!(board.read(MONITOR, 0x6100_0000, 8).await.unwrap(), [4, 3, 2, 1, 4, 3, 2, 1]);
        repeated += board.counts().repeated;
    }
    assert!(repeated > 500, "a fifth of all requests should have been repeated, not {repeated}");
}

#[tokio::test]
async fn a_window_is_faster_than_one_request_at_a_time() {
    let time = async |requests_max| {
        let mut options = Options::default();
        options.window.requests_max = requests_max;
        let mut board = Transceiver::over(ModelBoard::new(1, Faults::default()), options);
        board.write(MONITOR, 0x6024_0000, &[7; 64 * 1024]).await.unwrap();
        board.link().now()
    };
    let (one, eight) = (time(1).await, time(8).await);
    assert!(eight * 6 < one, "{eight:?} {one:?}");
}

#[tokio::test]
async fn a_dead_board_is_told_within_five_seconds() {
    let mut board = ModelBoard::new(0, Faults::default());
    board.alive = false;
    let mut board = board.transceiver();
    let error = board.read(MONITOR, 0x6024_0000, 10_000).await.unwrap_err();
    assert!(matches!(error, HostError::Silent { .. }));
    assert!(error.to_string().starts_with("model does not answer: READ to 255,255,0 was sent"), "{error}");
    assert!(board.link().now() <= Duration::from_secs(5), "{:?}", board.link().now());
    // The next operation starts afresh.
    board.link().alive = true;
    assert_eq!(board.version(MONITOR).await.unwrap().name, "SC&MP");
}

#[tokio::test]
async fn every_operation_tells_a_dead_board_in_time() {
    let chip = ChipAddress::new(0, 0);
    let start = StartWord { app: AppId(30), flags: 0, cores: CoreMask(2) };
    let route = RouteEntry { route: Route::new(1, 0), key: 0, mask: 0 };
    for operation in 0..10 {
        let mut board = ModelBoard::new(0, Faults::default());
        board.alive = false;
        let mut board = board.transceiver();
        let error = match operation {
            0 => board.start_at(chip, 0x6300_0000, start).await,
            1 => board.load(chip, &program(), start).await,
            2 => board.load_routes(chip, AppId(30), &[route]).await.map(drop),
            3 => board.flood_write(0x6300_0000, &[0; 64]).await,
            4 => board.set_free_ip_tag(chip, iptag::Target::to_sender(false)).await.map(drop),
            5 => board.stop(AppId(30)).await,
            6 => board.count(chip, AppId(30), CoreState::Run).await.map(drop),
            7 => board.text(chip, 3).await.map(drop),
            8 => board.set_router_waits(chip, WaitCode(0), WaitCode(0)).await,
            _ => board.discover().await.map(drop),
        };
        let error = error.expect_err("nobody is there");
        assert!(error.to_string().starts_with("model does not answer: "), "{operation}: {error}");
        let waited = board.link().now();
        assert!(waited <= Duration::from_secs(5), "operation {operation}: {waited:?}");
    }
}

#[tokio::test]
async fn codes_that_pass_are_waited_for_and_others_told() {
    let mut board = ModelBoard::new(0, Faults::default()).transceiver();
    board.link().codes = [ReturnCode::P2pBusy, ReturnCode::NoBuffer].into();
    board.write(MONITOR, 0x6024_0000, &[1, 2, 3]).await.unwrap();
    board.link().codes = [ReturnCode::BadCore].into();
    let error = board.version(MONITOR).await.unwrap_err();
    assert_eq!(error.to_string(), "255,255,0 answers VER with: no such core");
    // The monitor's way to say no: done, but no data.
    let error = board
        .request_data(
            MONITOR,
            &Command::LinkRead { address: 0, length_bytes: 4, link: spinnaker_wire::LinkId::East },
            4,
        )
        .await;
    assert!(matches!(error, Err(HostError::NoData { needed_bytes: 4, got_bytes: 0, .. })));
}

/// A program that does nothing.
fn program() -> Vec<u8> {
    let mut file = vec![0; aplx::HEADER_BYTES + 32];
    aplx::emit_header(32, 0, 0, &mut file).unwrap();
    file
}

#[tokio::test]
async fn an_application_is_started_once_although_replies_are_lost() {
    for seed in 0..100 {
        let mut board = ModelBoard::new(seed, Faults { doubled: 0, ..ROUGH }).transceiver();
        let start = StartWord { app: AppId(30), flags: 0, cores: CoreMask(0b10110) };
        board.load(ChipAddress::ROOT, &program(), start).await.unwrap_or_else(|e| panic!("seed {seed}: {e}"));
        assert_eq!(board.link().starts, [start], "seed {seed}");
        assert_eq!(board.vcpu(ChipAddress::ROOT, 4).await.unwrap().app(), AppId(30));
    }
}

#[tokio::test]
async fn tagged_memory_is_allocated_once() {
    for seed in 0..50 {
        let mut board = ModelBoard::new(seed, ROUGH).transceiver();
        let first = board.alloc_sdram(ChipAddress::ROOT, AppId(30), 1000, 5).await.unwrap();
        let again = board.alloc_sdram(ChipAddress::ROOT, AppId(30), 1000, 5).await.unwrap();
        assert_eq!(first, again);
        assert_eq!(board.link().allocated.len(), 1);
    }
}

#[tokio::test]
async fn bad_arguments_are_told_before_anything_is_sent() {
    let mut board = ModelBoard::new(0, Faults::default()).transceiver();
    let start = |cores| StartWord { app: AppId(30), flags: 0, cores: CoreMask(cores) };
    let errors = [
        board.load(ChipAddress::ROOT, &program(), start(0b11)).await.unwrap_err(),
        board.load(ChipAddress::ROOT, &program(), start(0)).await.unwrap_err(),
        board.load(ChipAddress::ROOT, &program()[..70], start(2)).await.unwrap_err(),
        board.load(ChipAddress::ROOT, &[0; 100], start(2)).await.unwrap_err(),
        board.fill(MONITOR, 2, 0, 4).await.unwrap_err(),
        board.read(MONITOR, 0xFFFF_FFF0, 17).await.unwrap_err(),
        board.load_routes(ChipAddress::ROOT, AppId(30), &[]).await.unwrap_err(),
    ];
    for error in errors {
        assert!(matches!(error, HostError::Argument(_) | HostError::Wire(_)), "{error}");
    }
    assert_eq!(board.counts().sent, 0);
}

#[tokio::test]
async fn a_blank_board_is_booted_in_rounds() {
    let mut file = vec![0; 5000];
    let entries = [
        aplx::Entry::RelativeCopy { destination: sv::ADDRESS, offset: 0x100, length_bytes: 128 },
        aplx::Entry::Execute { address: 0 },
    ];
    for (i, entry) in entries.iter().enumerate() {
        entry.emit(&mut file[boot_image::TABLE_OFFSET + i * 16..]).unwrap();
    }
    let mut booted = 0;
    for seed in 0..20 {
        // A tenth of the blocks is lost, and what is there stays: the second round fills the gaps.
        let mut board = ModelBoard::new(seed, Faults { lost: 100, ..Faults::default() });
        board.alive = false;
        let mut board = board.transceiver();
        let options = BootOptions { rounds: 10, ..BootOptions::new(Board::Spin5, 0x5F00_0000) };
        let kernel = board.boot(&file, &options).await.unwrap_or_else(|e| panic!("seed {seed}: {e}"));
        assert_eq!((kernel.chip, kernel.version), (ChipAddress::new(0, 0), (4, 0, 0)));
        let first = &board.link().image[&0];
        assert_eq!(first[boot_image::SV_OFFSET / 4 + 0x1C / 4], 0x5F00_0000, "in the native order of words");
        booted += 1;
        // A second boot finds it ready.
        let answered = board.link().answered;
        board.boot(&file, &options).await.unwrap();
        assert!(board.link().answered > answered);
    }
    assert_eq!(booted, 20);
    assert!(ModelBoard::new(0, ROUGH).transceiver().boot(&[0; 64], &BootOptions::new(Board::Spin5, 0)).await.is_err());
}
