//! The list. Every check leaves the machine as it was, and asserts nothing that a repeated request would change.

use std::time::Duration;

use spinnaker_host::{Boards, HostError, Link, RouteEntry};
use spinnaker_wire::diagnostics::{Counter, Filter, WaitCode};
use spinnaker_wire::heap::IOBUF_HEADER_BYTES;
use spinnaker_wire::iptag::Target;
use spinnaker_wire::router::Route;
use spinnaker_wire::scp::{LedAction, Signal};
use spinnaker_wire::sdp::Endpoint;
use spinnaker_wire::vcpu::{self, CoreState, RunTimeError};
use spinnaker_wire::{AppId, ChipAddress, CoreMask, CorePort, LinkId};

use super::common::application::{ERROR, file, text};

/// What the list is run against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setting {
    /// The official monitor, which runs instructions, or the emulated one, which has native programs.
    pub official: bool,
    /// The link loses and doubles.
    pub rough: bool,
}

const ROOT: ChipAddress = ChipAddress::new(0, 0);
const APP: AppId = AppId(77);
const WITHIN: Duration = Duration::from_secs(5);

fn monitor(chip: ChipAddress) -> Endpoint {
    Endpoint::core(chip, 0)
}

fn bytes(seed: u32, length: usize) -> Vec<u8> {
    (0..length as u32).map(|i| (i.wrapping_mul(seed | 1) >> 3) as u8 ^ i as u8).collect()
}

/// A few chips: the root, one in the middle, the last.
fn chips<L: Link>(boards: &Boards<L>) -> [ChipAddress; 3] {
    let chips = &boards.found().chips;
    [0, chips.len() / 2, chips.len() - 1].map(|at| chips[at].chip)
}

pub async fn all<L: Link>(boards: &mut Boards<L>, setting: Setting) {
    who(boards).await;
    memory(boards).await;
    everywhere(boards).await;
    allocations(boards).await;
    routes(boards, setting).await;
    router(boards).await;
    tags(boards).await;
    messages(boards).await;
    small_things(boards).await;
    application(boards, setting).await;
    failures(boards, setting).await;
    refusals(boards).await;
    // All is as it was.
    let idle: u32 = boards.found().chips.iter().map(|found| u32::from(found.info.cores) - 1).sum();
    assert_eq!(boards.count(AppId(0), CoreState::Idle).await.expect("counts"), idle);
    assert!(boards.applications().await.expect("reads").is_empty());
}

async fn who<L: Link>(boards: &mut Boards<L>) {
    for chip in chips(boards) {
        let kernel = boards.at(chip).version(monitor(chip)).await.expect("answers");
        assert_eq!((kernel.name.as_str(), kernel.version, kernel.chip), ("SC&MP", (4, 0, 0), chip));
        let idle = boards.at(chip).version(Endpoint::core(chip, 3)).await.expect("answers");
        assert_eq!((idle.name.as_str(), idle.version, idle.chip), ("SARK", (4, 0, 0), chip));
        let info = boards.at(chip).chip_info(chip).await.expect("answers");
        assert_eq!(info.states[0], CoreState::Run);
        assert!(info.states[1..usize::from(info.cores)].iter().all(|state| *state == CoreState::Idle));
    }
    let count = boards.found().chips.len();
    assert_eq!(boards.root().discover().await.expect("discovers").chips.len(), count);
}

async fn memory<L: Link>(boards: &mut Boards<L>) {
    for chip in chips(boards) {
        let board = boards.at(chip);
        for (address, length) in [(0x6300_0000, 4), (0x6300_0041, 1), (0x6300_0101, 1023), (0x6300_1000, 5000)] {
            let data = bytes(address, length);
            board.write(monitor(chip), address, &data).await.expect("writes");
            assert!(board.read(monitor(chip), address, length).await.expect("reads") == data, "{chip} {address:#x}");
            // The same place again, at once: no late copy of the first may spoil the second.
            let data = bytes(address ^ 0x55, length);
            board.write(monitor(chip), address, &data).await.expect("writes");
            board.pause(Duration::from_millis(if length == 4 { 300 } else { 0 })).await.expect("pauses");
            assert!(board.read(monitor(chip), address, length).await.expect("reads") == data, "{chip} {address:#x}");
        }
        board.fill(monitor(chip), 0x6300_1000, 0xDEAD_BEEF, 4096).await.expect("fills");
        let filled = board.read(monitor(chip), 0x6300_1FFC, 8).await.expect("reads");
        assert_eq!(
            (&filled[..4], &filled[4..]),
            (&[0xEF, 0xBE, 0xAD, 0xDE][..], &bytes(0x6300_1055, 5000)[4096..4100])
        );
        // System RAM, and the data memory of a core.
        board.write(monitor(chip), 0xE500_4000, &bytes(9, 100)).await.expect("writes");
        assert_eq!(board.read(monitor(chip), 0xE500_4000, 100).await.expect("reads"), bytes(9, 100));
        let core = Endpoint::core(chip, 4);
        board.write(core, 0x0040_8000, &bytes(7, 200)).await.expect("writes");
        assert_eq!(board.read(core, 0x0040_8000, 200).await.expect("reads"), bytes(7, 200));
    }
    // By the neighbour in the east.
    let east = ChipAddress::new(1, 0);
    boards.root().link_write(ROOT, LinkId::East, 0x6300_0000, &bytes(5, 16)).await.expect("writes");
    assert_eq!(boards.at(east).read(monitor(east), 0x6300_0000, 16).await.expect("reads"), bytes(5, 16));
    assert_eq!(boards.root().link_read(ROOT, LinkId::East, 0x6300_0000, 16).await.expect("reads"), bytes(5, 16));
}

async fn everywhere<L: Link>(boards: &mut Boards<L>) {
    let data = bytes(11, 3000);
    boards.write_everywhere(0x6310_0000, &data).await.expect("floods");
    for chip in boards.found().chips.iter().map(|found| found.chip).collect::<Vec<_>>() {
        assert!(boards.at(chip).read(monitor(chip), 0x6310_0000, 3000).await.expect("reads") == data, "{chip}");
    }
    assert!(matches!(boards.write_everywhere(0x6310_0001, &data).await, Err(HostError::Argument(_))));
}

async fn allocations<L: Link>(boards: &mut Boards<L>) {
    for chip in chips(boards) {
        let board = boards.at(chip);
        let (free, _) = board.sdram_space(chip).await.expect("answers");
        let first = board.alloc_sdram(chip, APP, 1000, 5).await.expect("there is room");
        assert_eq!(board.alloc_sdram(chip, APP, 1000, 5).await.expect("the same"), first);
        assert_eq!(board.tagged_sdram(chip, APP, 5).await.expect("answers"), Some(first));
        assert_eq!(board.tagged_sdram(chip, APP, 6).await.expect("answers"), None);
        let second = board.alloc_sdram(chip, APP, 2000, 6).await.expect("there is room");
        assert_eq!(board.sdram_space(chip).await.expect("answers").0, free - 1000 - 2000 - 16);
        board.free_sdram(chip, second).await.expect("frees");
        board.free_sdram_of(chip, APP).await.expect("frees");
        assert_eq!(board.sdram_space(chip).await.expect("answers").0, free);
        let error = board.alloc_sdram(chip, APP, 0x1000_0000, 0).await.expect_err("too much");
        assert!(matches!(error, HostError::Exhausted { .. }), "{error}");
    }
}

async fn routes<L: Link>(boards: &mut Boards<L>, setting: Setting) {
    let entries: Vec<RouteEntry> = (0..30)
        .map(|i| RouteEntry { route: Route::new(1 << (i % 6), 2 << (i % 16)), key: i << 8, mask: 0xFFFF_FF00 })
        .collect();
    for chip in chips(boards) {
        let board = boards.at(chip);
        let before = board.routes(chip).await.expect("reads");
        assert_eq!(before.len(), 1, "the monitors' own: {before:?}");
        let first = board.load_routes(chip, APP, &entries).await.expect("loads");
        let second = board.load_routes(chip, APP, &entries[..1]).await.expect("loads");
        let read = board.routes(chip).await.expect("reads");
        let found: Vec<RouteEntry> =
            read.iter().filter(|(_, app, _)| *app == APP).map(|(_, _, route)| *route).collect();
        assert_eq!((read[1].0, &found[..30], &found[30..]), (first, &entries[..], &entries[..1]));
        let free = board.chip_info(chip).await.expect("answers").routes_free;
        // A request that is doubled on its way takes twice; a repeat does not.
        assert!(free == 1023 - 31 || setting.rough && free < 1023 - 31, "{free} routes are free");
        board.free_routes(chip, second).await.expect("frees");
        assert_eq!(board.routes(chip).await.expect("reads").len(), 31);
        board.free_routes_of(chip, APP).await.expect("frees");
        assert_eq!(board.routes(chip).await.expect("reads"), before);
        let many = vec![entries[0]; 1023];
        board.load_routes(chip, APP, &many).await.expect("loads");
        let error = board.load_routes(chip, APP, &entries).await.expect_err("full");
        assert!(matches!(error, HostError::Exhausted { .. }), "{error}");
        board.clear_routes(chip).await.expect("clears");
        assert_eq!(board.chip_info(chip).await.expect("answers").routes_free, 1023);
        let fixed = Route::new(0b10, 0b1000);
        board.set_fixed_route(chip, APP, fixed).await.expect("sets");
        assert_eq!(board.fixed_route(chip).await.expect("reads"), fixed);
    }
}

async fn router<L: Link>(boards: &mut Boards<L>) {
    for chip in chips(boards) {
        let board = boards.at(chip);
        for number in 0..12 {
            assert_eq!(board.router_filter(chip, number).await.expect("reads"), Filter::of_monitor(number), "{number}");
        }
        let filter = Filter::of_kinds(Filter::MULTICAST).local(true).payload(false).default_routed(true);
        board.set_router_filter(chip, 13, filter).await.expect("sets");
        assert_eq!(board.router_filter(chip, 13).await.expect("reads"), filter);
        board.set_router_filter(chip, 13, Filter::default()).await.expect("sets");
        let before = board.router_control(chip).await.expect("reads");
        assert_eq!((before.wait1().cycles(), before.wait2()), (Some(240), WaitCode(0)));
        board.set_router_waits(chip, WaitCode::at_least(1000), WaitCode(0x20)).await.expect("sets");
        let control = board.router_control(chip).await.expect("reads");
        assert_eq!((control.wait1(), control.wait2()), (WaitCode::at_least(1000), WaitCode(0x20)));
        assert_eq!(control.monitor(), before.monitor());
        board.set_router_waits(chip, before.wait1(), before.wait2()).await.expect("sets");
    }
    // Messages to a chip that is not the root go from chip to chip.
    let east = ChipAddress::new(1, 0);
    boards.root().version(monitor(east)).await.expect("answers");
    let counters = boards.root().router_counters(ROOT).await.expect("reads");
    let packets = counters.get(Counter::LocalPointToPoint) + counters.get(Counter::ExternalPointToPoint);
    assert!(packets > 0, "{counters:?}");
    boards.root().clear_router_counters(ROOT).await.expect("clears");
    let counters = boards.root().router_counters(ROOT).await.expect("reads");
    let after = counters.get(Counter::LocalPointToPoint) + counters.get(Counter::ExternalPointToPoint);
    assert!(after < packets, "{after} of {packets}");
    assert!(matches!(boards.root().set_router_filter(ROOT, 3, filter()).await, Err(HostError::Argument(_))));
}

fn filter() -> Filter {
    Filter::of_kinds(Filter::FIXED_ROUTE)
}

async fn tags<L: Link>(boards: &mut Boards<L>) {
    for chip in boards.ethernet_chips().to_vec() {
        let to = Target::to_host([10, 11, 12, 13], 4321, true);
        let reverse = Target::reverse(12_321, ROOT, CorePort::new(4, 2));
        assert_eq!(boards.set_tag(chip, to).await.expect("sets"), 0);
        assert_eq!(boards.set_tag(chip, reverse).await.expect("sets"), 1);
        for tag in 2..8 {
            assert_eq!(boards.set_tag(chip, Target::to_sender(true)).await.expect("sets"), tag);
        }
        let error = boards.set_tag(chip, to).await.expect_err("all are in use");
        assert!(matches!(error, HostError::Exhausted { .. }), "{error}");
        let entries = boards.at(chip).ip_tags(chip).await.expect("reads");
        assert_eq!((entries[0].ip, entries[0].tx_port.get()), ([10, 11, 12, 13], 4321));
        assert_eq!((entries[1].rx_port.get(), entries[1].destination()), (12_321, (ROOT, CorePort::new(4, 2))));
        assert_eq!((entries[2].ip, entries[2].tx_port.get()), (super::common::HOST.ip().octets(), 12_345));
    }
    boards.clear_tags().await.expect("clears");
    for chip in boards.ethernet_chips().to_vec() {
        let entries = boards.at(chip).ip_tags(chip).await.expect("reads");
        assert!(entries[..8].iter().all(|entry| !entry.is_valid()));
    }
}

/// A message to the Ethernet port of the root chip comes back by the tag in its header.
async fn messages<L: Link>(boards: &mut Boards<L>) {
    let tag = boards.set_tag(ROOT, Target::to_sender(false)).await.expect("sets");
    let back = Endpoint { chip: ROOT, port: CorePort::ETHERNET };
    let mut came = None;
    // Messages are not repeated by anybody: what is lost is lost.
    for number in 0..50u8 {
        boards.root().send_message_by(tag, back, &[number, 1, 2, 3]).await.expect("sends");
        // Requests meanwhile do not swallow it.
        boards.root().version(monitor(ROOT)).await.expect("answers");
        came = boards.root().receive_message(Duration::from_millis(10)).await.expect("listens");
        if came.is_some() {
            break;
        }
    }
    let message = came.expect("one of 50");
    assert_eq!((message.source.chip, message.tag, &message.body[1..]), (ROOT, tag, &[1, 2, 3][..]));
    boards.clear_tags().await.expect("clears");
    let kernel = Endpoint::core(ROOT, 1);
    assert!(matches!(boards.root().send_message(kernel, &[]).await, Err(HostError::Argument(_))));
}

async fn small_things<L: Link>(boards: &mut Boards<L>) {
    boards.root().leds(ROOT, LedAction::Toggle.for_led(0)).await.expect("switches");
    boards.root().time_sync(false).await.expect("switches");
    boards.root().time_sync(true).await.expect("switches");
    let variables = boards.root().system_variables(ROOT).await.expect("reads");
    assert_eq!((variables.chip(), variables.boot.iobuf_size.get()), (ROOT, 16_384));
    let no_core = boards.root().version(Endpoint::core(ROOT, 19)).await.expect_err("no such core");
    assert_eq!(no_core.to_string(), "0,0,19 answers VER with: no such core");
    let no_chip = boards.root().version(monitor(ChipAddress::new(77, 7))).await.expect_err("no such chip");
    assert_eq!(no_chip.to_string(), "77,7,0 answers VER with: no route");
}

/// The text block that the instructions show, which the native program has by itself.
async fn write_text<L: Link>(boards: &mut Boards<L>, chip: ChipAddress, core: u8) {
    let text = text(core);
    let block = boards.at(chip).alloc_sdram(chip, APP, 256, core).await.expect("there is room");
    let mut data = vec![0; IOBUF_HEADER_BYTES];
    data[12] = text.len() as u8;
    data.extend(text.as_bytes());
    boards.at(chip).write(monitor(chip), block, &data).await.expect("writes");
    let user3 = vcpu::address(core) + 0x7C;
    boards.at(chip).write(monitor(chip), user3, &block.to_le_bytes()).await.expect("writes");
}

async fn application<L: Link>(boards: &mut Boards<L>, setting: Setting) {
    assert_eq!(boards.free_app().await.expect("one is free"), AppId(17));
    let chosen = chips(boards).map(|chip| (chip, CoreMask(if chip == ROOT { 0b10 } else { 0b1_0100 })));
    let cores: Vec<(ChipAddress, u8)> = chosen
        .iter()
        .flat_map(|(chip, mask)| (1..18).filter(|core| mask.0 >> core & 1 != 0).map(|core| (*chip, core)))
        .collect();
    let count = cores.len() as u32;
    let mut free = Vec::new();
    for (chip, _) in chosen {
        free.push(boards.at(chip).sdram_space(chip).await.expect("answers"));
    }
    for &(chip, core) in &cores {
        write_text(boards, chip, core).await;
    }
    boards.launch(&file(false), APP, 0, &chosen).await.expect("starts");
    boards.wait_for(APP, &[CoreState::Sync0], count, WITHIN).await.expect("waits");
    assert_eq!(boards.applications().await.expect("reads").into_iter().collect::<Vec<_>>(), [(APP, count)]);
    assert_eq!(boards.free_app().await.expect("one is free"), AppId(17));
    // On what is taken nothing is loaded, and what runs there goes on.
    let error = boards.launch(&file(false), AppId(78), 0, &chosen[..1]).await.expect_err("taken");
    assert!(matches!(error, HostError::CoreTaken { core: 1, app: APP, .. }), "{error}");

    for (barrier, next, passed) in [
        (Signal::Sync0, CoreState::Sync1, 1),
        (Signal::Sync1, CoreState::Sync0, 2),
        (Signal::Sync0, CoreState::Sync1, 3),
    ] {
        boards.signal(APP, barrier).await.expect("signals");
        boards.wait_for(APP, &[next], count, WITHIN).await.expect("waits");
        let found = boards.cores_of(APP).await.expect("reads");
        assert_eq!(found.iter().map(|core| (core.chip, core.core)).collect::<Vec<_>>(), sorted(&cores));
        assert!(found.iter().all(|core| core.vcpu.user[1].get() == passed && core.vcpu.state() == next), "{found:?}");
    }
    // Others' signals are no business of these cores.
    boards.signal(AppId(78), Signal::Sync1).await.expect("signals");
    let error = boards.wait_for(APP, &[CoreState::Sync0], count, Duration::from_millis(50)).await.expect_err("no");
    assert!(matches!(error, HostError::Waiting { got: 0, .. }), "{error}");
    for signal in [Signal::Pause, Signal::Continue] {
        boards.signal(APP, signal).await.expect("signals");
    }
    let texts = boards.texts(&cores).await.expect("reads");
    assert_eq!(texts, cores.iter().map(|(_, core)| text(*core)).collect::<Vec<_>>(), "{setting:?}");
    let (chip, core) = cores[0];
    assert_eq!(boards.at(chip).text(chip, core).await.expect("reads"), text(core));

    // Nothing is left: cores, memory, routes, tags.
    let entry = RouteEntry { route: Route::new(1, 0), key: 0x100, mask: 0xFFFF_FF00 };
    boards.at(chip).load_routes(chip, APP, &[entry]).await.expect("loads");
    boards.set_tag(ROOT, Target::to_sender(true)).await.expect("sets");
    boards.clean_up(APP).await.expect("ends");
    boards.clean_up(APP).await.expect("there is nothing");
    assert!(boards.cores_of(APP).await.expect("reads").is_empty());
    assert_eq!(boards.at(chip).routes(chip).await.expect("reads").len(), 1);
    assert!(!boards.root().ip_tags(ROOT).await.expect("reads")[0].is_valid());
    for ((chip, _), free) in chosen.into_iter().zip(free) {
        assert_eq!(boards.at(chip).sdram_space(chip).await.expect("answers"), free, "{chip}");
    }
}

fn sorted(cores: &[(ChipAddress, u8)]) -> Vec<(ChipAddress, u8)> {
    let mut cores = cores.to_vec();
    cores.sort();
    cores
}

/// Cores that stop are told, with their registers.
async fn failures<L: Link>(boards: &mut Boards<L>, setting: Setting) {
    let chip = chips(boards)[2];
    if setting.official {
        write_text(boards, chip, 2).await;
    }
    boards.launch(&file(true), APP, 0, &[(chip, CoreMask(0b100))]).await.expect("starts");
    let error = boards.wait_for(APP, &[CoreState::Sync0], 1, WITHIN).await.expect_err("it fails");
    let HostError::CoresFailed { app: APP, cores } = &error else { panic!("{error}") };
    let [failed] = &cores[..] else { panic!("{error}") };
    assert_eq!((failed.chip, failed.core, failed.vcpu.run_time_error()), (chip, 2, RunTimeError::Software));
    assert_eq!(failed.vcpu.registers.map(|register| register.get())[..3], ERROR);
    assert!(error.to_string().contains("RTE"), "{error}");
    assert_eq!(boards.texts(&[(chip, 2)]).await.expect("reads"), [text(2)]);
    boards.wait_for(APP, &[CoreState::RunTimeError], 1, WITHIN).await.expect("is one of the states");
    boards.clean_up(APP).await.expect("ends");
}

async fn refusals<L: Link>(boards: &mut Boards<L>) {
    let file = file(false);
    let chip = chips(boards)[1];
    let sent = boards.root().counts().sent;
    for (app, cores) in [
        (APP, vec![]),
        (AppId(0), vec![(chip, CoreMask(2))]),
        (APP, vec![(chip, CoreMask(1))]),
        (APP, vec![(chip, CoreMask(0))]),
        (APP, vec![(ChipAddress::new(99, 0), CoreMask(2))]),
        (APP, vec![(chip, CoreMask(2)), (chip, CoreMask(4))]),
    ] {
        let error = boards.launch(&file, app, 0, &cores).await.expect_err("makes no sense");
        assert!(matches!(error, HostError::Argument(_)), "{error}");
    }
    assert!(boards.launch(&file[..70], APP, 0, &[(chip, CoreMask(2))]).await.is_err());
    assert!(matches!(boards.clean_up(AppId(0)).await, Err(HostError::Argument(_))));
    assert_eq!(boards.root().counts().sent, sent, "nothing was sent");
}
