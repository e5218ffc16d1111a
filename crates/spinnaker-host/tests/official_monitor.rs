//! The transceiver against the official monitor, unmodified, on the instruction-level virtual machine in this process.

mod common;

use std::time::Duration;

use common::{InProcess, official};
use spinnaker_host::{HostError, RouteEntry, Transceiver};
use spinnaker_sim::face::CycleBoard;
use spinnaker_wire::iptag::Target;
use spinnaker_wire::router::{self, CopyEntry, P2pRoute, Route};
use spinnaker_wire::scp::{LedAction, Signal, SignalWord, StartWord};
use spinnaker_wire::sdp::Endpoint;
use spinnaker_wire::sv::SDRAM_SYS_ADDRESS;
use spinnaker_wire::vcpu::{CoreState, RunTimeError};
use spinnaker_wire::{AppId, ChipAddress, CoreMask, CorePort, LinkId, aplx};

const ROOT: ChipAddress = ChipAddress::new(0, 0);
const APP: AppId = AppId(30);

fn monitor(chip: ChipAddress) -> Endpoint {
    Endpoint::core(chip, 0)
}

type Official = Transceiver<InProcess<CycleBoard>>;

/// A program of a few instructions: sets user0 of virtual core 1's block and stays.
fn program() -> Vec<u8> {
    let code = [
        0xE59F_0008u32, // ldr r0, [pc, #8]
        0xE59F_1008,    // ldr r1, [pc, #8]
        0xE580_1000,    // str r1, [r0]
        0xEAFF_FFFE,    // b .
        0xE500_70F0,    // user0 of core 1
        0x1234_5678,
    ];
    let mut file = vec![0; aplx::HEADER_BYTES];
    aplx::emit_header(code.len() as u32 * 4, 0, 0, &mut file).unwrap();
    file.extend(code.iter().flat_map(|word| word.to_le_bytes()));
    file
}

#[tokio::test]
async fn the_operations_of_a_host() {
    let Some(mut board) = official().await else { return };

    // Discovery.
    let machine = board.discover().await.expect("discovers");
    assert_eq!((machine.width, machine.height, machine.root), (2, 2, ROOT));
    assert_eq!(machine.chips.len(), 4);
    assert!(machine.silent.is_empty());
    for found in &machine.chips {
        assert_eq!((found.info.cores, found.info.routes_free), (18, 1023), "{}", found.chip);
        assert_eq!(found.info.states[0], CoreState::Run);
        assert!(found.info.states[1..].iter().all(|state| *state == CoreState::Idle));
        assert_eq!(found.info.ethernet_up, found.chip == ROOT);
        assert_eq!(found.info.parent == Some(P2pRoute::Monitor), found.chip == ROOT);
    }
    let sark = board.version(Endpoint::core(ChipAddress::new(1, 1), 5)).await.unwrap();
    assert_eq!((sark.name.as_str(), sark.version), ("SARK", (4, 0, 0)));

    memory(&mut board).await;
    allocations(&mut board).await;
    routes(&mut board).await;
    tags(&mut board).await;
    errors(&mut board).await;
    applications(&mut board).await;
}

async fn memory(board: &mut Official) {
    let data: Vec<u8> = (0..5000u32).map(|i| (i * 7 + i / 256) as u8).collect();
    let chips = [ROOT, ChipAddress::new(1, 1)];
    for chip in chips {
        let base = board.alloc_sdram(chip, APP, 0x2_0000, 1).await.unwrap();
        for address in [base, base + 0x1_0001] {
            board.write(monitor(chip), address, &data).await.expect("writes");
            assert!(
                board.read(monitor(chip), address, data.len()).await.expect("reads") == data,
                "{chip} {address:#x}"
            );
        }
        board.fill(monitor(chip), base, 0xDEAD_BEEF, 4096).await.unwrap();
        let filled = board.read(monitor(chip), base + 4092, 8).await.unwrap();
        assert_eq!((&filled[..4], &filled[4..]), (&[0xEF, 0xBE, 0xAD, 0xDE][..], &data[4096..4100]));
    }
    // By the neighbour: the chip's own id register, and memory.
    assert_eq!(board.link_read(ROOT, LinkId::East, 0xE200_0000, 4).await.unwrap(), [0x12, 0x10, 0x11, 0x59]);
    let there = board.alloc_sdram(chips[1], APP, 0x2_0000, 1).await.unwrap();
    board.link_write(ROOT, LinkId::NorthEast, there + 0x100, &[1, 2, 3, 4, 5, 6, 7, 8]).await.unwrap();
    assert_eq!(board.read(monitor(chips[1]), there + 0x100, 8).await.unwrap(), [1, 2, 3, 4, 5, 6, 7, 8]);
    assert!(board.link_read(ROOT, LinkId::West, there, 4).await.is_err(), "no neighbour there");
    board.leds(ROOT, LedAction::Toggle.for_led(0)).await.unwrap();
    for chip in chips {
        assert_eq!(board.free_sdram_of(chip, APP).await.unwrap(), 1);
    }
}

async fn allocations(board: &mut Official) {
    let (before, _) = board.sdram_space(ROOT).await.unwrap();
    let first = board.alloc_sdram(ROOT, APP, 1000, 5).await.unwrap();
    assert_eq!(board.alloc_sdram(ROOT, APP, 1000, 5).await.unwrap(), first, "a retry gives the same block");
    let second = board.alloc_sdram(ROOT, APP, 2000, 0).await.unwrap();
    assert_eq!(board.sdram_space(ROOT).await.unwrap().0, before - 1000 - 2000 - 16);
    board.free_sdram(ROOT, second).await.unwrap();
    assert_eq!(board.free_sdram_of(ROOT, APP).await.unwrap(), 1);
    assert_eq!(board.sdram_space(ROOT).await.unwrap().0, before);
    let error = board.alloc_sdram(ROOT, APP, 0x1000_0000, 0).await.unwrap_err();
    assert!(matches!(error, HostError::Exhausted { .. }), "{error}");
}

async fn routes(board: &mut Official) {
    let entries = [
        RouteEntry { route: Route::new(0b001, 0b10), key: 0x1000, mask: 0xFFFF_F000 },
        RouteEntry { route: Route::new(0, 0b100), key: 0x2000, mask: 0xFFFF_F000 },
    ];
    let chip = ChipAddress::new(0, 1);
    let first = board.load_routes(chip, APP, &entries).await.unwrap();
    let copy = board.system_variables(chip).await.unwrap().rtr_copy.get();
    let address = copy + first * router::ENTRY_BYTES as u32;
    let bytes = board.read(monitor(chip), address, 2 * router::ENTRY_BYTES).await.unwrap();
    let (entry, rest) = CopyEntry::read(&bytes).unwrap();
    assert_eq!((entry.key.get(), entry.mask.get()), (0x1000, 0xFFFF_F000));
    assert_eq!(entry.route.get() & 0xFF_FFFF, entries[0].route.0, "virtual cores in the copy");
    assert_eq!(CopyEntry::read(rest).unwrap().0.key.get(), 0x2000);
    assert_eq!(board.free_routes_of(chip, APP).await.unwrap(), 1);
    let bytes = board.read(monitor(chip), address, router::ENTRY_BYTES).await.unwrap();
    assert!(CopyEntry::read(&bytes).unwrap().0.is_unused());
    let many = vec![entries[0]; 1023];
    let all = board.load_routes(chip, APP, &many).await.unwrap();
    assert!(matches!(board.load_routes(chip, APP, &entries).await, Err(HostError::Exhausted { .. })));
    board.free_routes(chip, all).await.unwrap();
    board.load_routes(chip, APP, &entries).await.unwrap();
    board.clear_routes(chip).await.unwrap();
    assert_eq!(board.chip_info(chip).await.unwrap().routes_free, 1023);
}

async fn tags(board: &mut Official) {
    assert_eq!(board.set_ip_tag(ROOT, 3, Target::to_sender(true)).await.unwrap(), 3);
    let reverse = Target::reverse(12321, ChipAddress::new(1, 0), CorePort::new(4, 2));
    assert_eq!(board.set_ip_tag(ROOT, 4, reverse).await.unwrap(), 4);
    let tags = board.ip_tags(ROOT).await.unwrap();
    assert_eq!(tags.len(), 16);
    assert_eq!((tags[3].ip, tags[3].tx_port.get()), ([192, 168, 240, 254], 12345));
    assert_eq!(tags[4].destination(), (ChipAddress::new(1, 0), CorePort::new(4, 2)));
    assert_eq!(tags[4].rx_port.get(), 12321);
    board.clear_ip_tag(ROOT, 3).await.unwrap();
    board.clear_ip_tag(ROOT, 4).await.unwrap();
    let tags = board.ip_tags(ROOT).await.unwrap();
    assert!(!tags[3].is_valid() && !tags[4].is_valid());
}

async fn errors(board: &mut Official) {
    let no_core = board.version(Endpoint::core(ROOT, 19)).await.unwrap_err();
    assert_eq!(no_core.to_string(), "0,0,19 answers VER with: no such core");
    let no_chip = board.version(monitor(ChipAddress::new(7, 7))).await.unwrap_err();
    assert_eq!(no_chip.to_string(), "7,7,0 answers VER with: no route");
    let port = Endpoint { chip: ROOT, port: CorePort::new(0, 3) };
    assert!(board.version(port).await.unwrap_err().to_string().ends_with("bad port"));
}

async fn applications(board: &mut Official) {
    // One chip: the program writes a word that the host can see.
    let start = StartWord { app: APP, flags: 0, cores: CoreMask(0b10) };
    let chip = ChipAddress::new(1, 0);
    board.load(chip, &program(), start).await.unwrap();
    board.pause(Duration::from_millis(1)).await.unwrap();
    let core = board.vcpu(chip, 1).await.unwrap();
    assert_eq!((core.user[0].get(), core.app(), core.state()), (0x1234_5678, APP, CoreState::Init));
    board.stop(APP).await.unwrap();
    board.pause(Duration::from_millis(20)).await.unwrap();
    let idle = board.vcpu(chip, 1).await.unwrap();
    assert_eq!((idle.state(), idle.name()), (CoreState::Idle, "sark"));
    assert_eq!(idle.user[0].get(), 0x1234_5678, "user words survive");

    // From chip to chip: (0, 0) has it, (1, 1) copies it from there, (0, 1) only keeps it.
    let file = program();
    board.load(ROOT, &file, start).await.unwrap();
    for chip in [ROOT, ChipAddress::new(1, 1), ChipAddress::new(0, 1)] {
        board.fill(monitor(chip), 0xE500_70F0, 0, 4).await.unwrap();
    }
    let wrong = [&file[..file.len() - 4], &[0; 4]].concat();
    let differs = board.copy_from_neighbour(ChipAddress::new(1, 1), LinkId::SouthWest, &wrong, start).await;
    assert!(matches!(differs, Err(HostError::CopyDiffers { .. })), "{differs:?}");
    board.copy_from_neighbour(ChipAddress::new(1, 1), LinkId::SouthWest, &file, start).await.unwrap();
    let nobody = StartWord { cores: CoreMask(0), ..start };
    board.copy_from_neighbour(ChipAddress::new(0, 1), LinkId::South, &file, nobody).await.unwrap();
    board.pause(Duration::from_millis(1)).await.unwrap();
    assert_eq!(board.vcpu(ChipAddress::new(1, 1), 1).await.unwrap().user[0].get(), 0x1234_5678);
    assert_eq!(board.vcpu(ChipAddress::new(0, 1), 1).await.unwrap().user[0].get(), 0);
    let kept = board.read(monitor(ChipAddress::new(0, 1)), SDRAM_SYS_ADDRESS, file.len()).await.unwrap();
    assert!(kept == file);
    board.stop(APP).await.unwrap();
    board.pause(Duration::from_millis(20)).await.unwrap();

    // All chips of the board are counted: 17 idle cores each.
    assert_eq!(board.count(ROOT, AppId(0), CoreState::Idle).await.unwrap(), 68);
    let error = board.wait_for(ROOT, AppId(0), CoreState::Run, 3, Duration::from_millis(100)).await.unwrap_err();
    assert!(matches!(error, HostError::Waiting { wanted: 3, .. }), "{error}");
    board.signal(SignalWord::to_app(Signal::Sync0, APP)).await.unwrap();

    // Flood fill: the word is there on every chip.
    for chip in [ROOT, chip, ChipAddress::new(0, 1), ChipAddress::new(1, 1)] {
        board.fill(monitor(chip), 0xE500_70F0, 0, 4).await.unwrap();
    }
    board.flood_fill(&program(), start).await.unwrap();
    board.pause(Duration::from_millis(20)).await.unwrap();
    for chip in [ROOT, chip, ChipAddress::new(0, 1), ChipAddress::new(1, 1)] {
        let core = board.vcpu(chip, 1).await.unwrap();
        assert_eq!((core.user[0].get(), core.app()), (0x1234_5678, APP), "{chip}");
    }
    board.stop(APP).await.unwrap();
    board.pause(Duration::from_millis(20)).await.unwrap();
    assert_eq!(board.count(ROOT, AppId(0), CoreState::Idle).await.unwrap(), 68);

    // An idle core has no text.
    assert_eq!(board.text(ROOT, 1).await.unwrap(), "");
    assert_eq!(board.vcpu(ROOT, 1).await.unwrap().run_time_error(), RunTimeError::None);
}
