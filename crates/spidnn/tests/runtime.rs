//! The runtime by itself, with command lists made by hand: on the fast machine, and as firmware under the official monitor.

mod lists;

use lists::{CHIP, DATA, NEIGHBOUR, chip, cycle_board, exchange, repeated, step};
use spidnn::board::Board;
use spidnn::cycle_link::CycleLink;
use spidnn::wire_board::WireBoard;
use spidnn::{Error, VirtualBoard};
use spidnn_compiler::{Options, Program, Training, compile};
use spidnn_core::command::Command;
use spidnn_core::program::RunBlock;
use spinnaker_host::HostError;
use spinnaker_machine::Machine;
use spinnaker_sim::SimConfig;
use spinnaker_sim::cycle::CycleConfig;
use spinnaker_wire::scp::{self, ReturnCode, Signal, SignalWord};
use spinnaker_wire::sdp::Endpoint;
use spinnaker_wire::vcpu::CoreState;
use spinnaker_wire::{AppId, ChipAddress, Unit};

/// The firmware on a board, if the official boot image is there.
fn board(config: &CycleConfig) -> Option<WireBoard<CycleLink>> {
    match spidnn::boot_image::find() {
        Ok(_) => Some(cycle_board(config).unwrap_or_else(|e| panic!("{e}"))),
        Err(e) => {
            println!("not run: {e}");
            None
        }
    }
}

/// 2 % of the packets, in 65,536.
const TWO_PERCENT: u16 = 1311;

#[test]
fn streams_lose_nothing_where_packets_are_lost() {
    // 2 cores, 3 turns up and down of 1000 words each.
    let (cores, words, turns) = (2, 1000, 3);
    let config = SimConfig { drop_probability: 0.02, seed: 5, ..SimConfig::default() };
    let mut fast = VirtualBoard::with_config(Machine::spin3(), config);
    assert_eq!(exchange(&mut fast, cores, words, turns).unwrap().1, 0);
    assert!(fast.counters().packets_resent > 100);
    let mut cycles = Vec::new();
    for packet_losses_per_65536 in [0, TWO_PERCENT] {
        let Some(mut board) = board(&CycleConfig { packet_losses_per_65536, ..CycleConfig::default() }) else { return };
        let (took, wrong) = exchange(&mut board, cores, words, turns).unwrap();
        assert_eq!(wrong, 0);
        assert_eq!(board.counters().packets_resent > 100, packet_losses_per_65536 > 0);
        cycles.push(took);
    }
    assert!(cycles[1] > cycles[0]);
}

/// A core that has nothing to do but a barrier of one.
fn idle_core() -> Option<(WireBoard<CycleLink>, Endpoint)> {
    let mut board = board(&CycleConfig::default())?;
    board.load(&chip(1, &repeated(1, vec![step(Command::Barrier)]))).unwrap();
    Some((board, Endpoint::core(ChipAddress::new(0, 0), 1)))
}

/// The link is in this process, and needs no runtime.
fn wait<T>(operation: impl Future<Output = T>) -> T {
    futures::executor::block_on(operation)
}

fn refused(error: HostError) -> ReturnCode {
    match error {
        HostError::Refused { code, .. } => code,
        other => panic!("{other}"),
    }
}

#[test]
fn a_core_answers_as_the_official_kernel_does() {
    let Some((mut board, core)) = idle_core() else { return };
    let host = board.boards().root();
    let version = wait(host.version(core)).unwrap();
    assert_eq!((version.name.as_str(), version.version.0), ("SpiDNN", spidnn_core::program::VERSION as u16));
    assert_eq!(version.chip, ChipAddress::new(0, 0));
    // Data memory of the core itself: nobody else can reach it. Bytes and half-words, too.
    let place = 0x0040_0100;
    wait(host.fill(core, place, 0x1122_3344, 600)).unwrap();
    assert_eq!(wait(host.read(core, place + 596, 4)).unwrap(), [0x44, 0x33, 0x22, 0x11]);
    wait(host.write(core, place + 1, b"abcde")).unwrap();
    wait(host.write(core, place + 10, b"fg")).unwrap();
    assert_eq!(wait(host.read(core, place, 12)).unwrap(), *b"\x44abcde\x22\x11\x44\x33fg");
    let bytes: Vec<u8> = (0..1000).map(|i| (i % 251) as u8).collect();
    wait(host.write(core, place, &bytes)).unwrap();
    assert_eq!(wait(host.read(core, place, 1000)).unwrap(), bytes);
    // What the official kernel answers to bad requests (protocols of the tools' version 4.0.0, measured).
    let read = |length_bytes| scp::Command::Read { address: place, length_bytes, unit: Unit::Word };
    assert_eq!(refused(wait(host.request(core, &read(260))).unwrap_err()), ReturnCode::BadArgument);
    let skew = scp::Command::Read { address: place + 2, length_bytes: 4, unit: Unit::Word };
    assert_eq!(refused(wait(host.request(core, &skew)).unwrap_err()), ReturnCode::BadArgument);
    let unknown = scp::Command::Other { code: 99.into(), args: [0; 3], data: &[] };
    assert_eq!(refused(wait(host.request(core, &unknown)).unwrap_err()), ReturnCode::BadCommand);
    // And it still runs.
    lists::run(&mut board, &chip(1, &[])).unwrap();
}

#[test]
fn a_core_is_sent_into_code_of_the_hosts() {
    let Some((mut board, core)) = idle_core() else { return };
    let monitor = Endpoint::core(ChipAddress::new(0, 0), 0);
    let host = board.boards().root();
    // Stores 42 behind itself, and stands still.
    let code: Vec<u8> = [0xE3A0_002A_u32, 0xE58F_0000, 0xEAFF_FFFE, 0].into_iter().flat_map(u32::to_le_bytes).collect();
    wait(host.write(monitor, DATA, &code)).unwrap();
    let run = |address| scp::Command::Other { code: 1.into(), args: [address, 0, 0], data: &[] };
    for nowhere in [0, 0x0040_0000, 0x2000_0000] {
        assert_eq!(refused(wait(host.request(core, &run(nowhere))).unwrap_err()), ReturnCode::BadArgument);
    }
    wait(host.request(core, &run(DATA))).unwrap();
    wait(host.pause(std::time::Duration::from_millis(1))).unwrap();
    assert_eq!(wait(host.read(monitor, DATA + 12, 4)).unwrap(), [42, 0, 0, 0]);
}

#[test]
fn the_signal_exit_ends_a_program() {
    let Some((mut board, core)) = idle_core() else { return };
    let host = board.boards().root();
    wait(host.signal(SignalWord::to_app(Signal::Exit, AppId(30)))).unwrap();
    wait(host.pause(std::time::Duration::from_millis(1))).unwrap();
    let vcpu = wait(host.vcpu(ChipAddress::new(0, 0), 1)).unwrap();
    assert_eq!(vcpu.state(), CoreState::Exit);
    // It still answers, and makes room for the next application.
    assert_eq!(wait(host.version(core)).unwrap().name, "SpiDNN");
    board.load(&chip(1, &[])).unwrap();
    lists::run(&mut board, &chip(1, &[])).unwrap();
}

#[test]
fn neighbours_keep_up_with_their_link() {
    // The figures are those of issue-free hardware: 250 ns for a packet with payload on a link.
    let Some(mut board) = board(&CycleConfig::default()) else { return };
    let (cores, words) = (4, 4096);
    let chips = lists::pair(cores, words, 1, false);
    board.load(&chips).unwrap();
    let cycles = lists::run(&mut board, &chips).unwrap();
    let rate = f64::from(words) * f64::from(cores) / (cycles / 200e6);
    println!("{:.2} million packets a second", rate * 1e-6);
    assert!(rate >= 0.7 * 4e6, "{rate} packets a second");
    assert_eq!(chips.keys().collect::<Vec<_>>(), [&CHIP, &NEIGHBOUR]);
}

#[test]
fn transfers_take_the_fast_machine_the_same_time() {
    let Some(mut cycle) = board(&CycleConfig::default()) else { return };
    let mut fast = VirtualBoard::with_config(Machine::spin3(), SimConfig::default());
    let mut far = Vec::new();
    for (name, cores, list) in lists::transfers(20) {
        let chips = chip(cores, &list);
        let [a, b] = [&mut cycle as &mut dyn Board, &mut fast].map(|board| {
            board.load(&chips).unwrap();
            lists::run(board, &chips).unwrap()
        });
        if !(0.9..1.1).contains(&(b / a)) {
            far.push(format!("{name}: fast {b:.0}, cycle {a:.0}: {:.3}", b / a));
        }
    }
    assert!(far.is_empty(), "cycles:\n{}", far.join("\n"));
}

#[test]
fn exchanges_take_the_fast_machine_the_same_time() {
    let Some(mut cycle) = board(&CycleConfig::default()) else { return };
    let mut fast = VirtualBoard::with_config(Machine::spin3(), SimConfig::default());
    let mut far = Vec::new();
    for cores in [1, 4, 16] {
        for words in lists::EXCHANGED_WORDS {
            let [a, b] = [&mut cycle as &mut dyn Board, &mut fast].map(|board| {
                let (cycles, wrong) = exchange(board, cores, words, lists::exchange_turns(words)).unwrap();
                assert_eq!(wrong, 0);
                cycles
            });
            println!("{words} words on {cores} cores: fast {b:.0}, cycle {a:.0}: {:.3}", b / a);
            if !(0.9..1.1).contains(&(b / a)) {
                far.push((cores, words));
            }
        }
    }
    assert_eq!(far, [], "cores and words");
    // From chip to chip to chip, blocks of all cores go at once: how they fall in with each other is not in the fast machine.
    for (cores, words) in lists::CHAINS {
        let chips = lists::chain(cores, words, 2);
        let [a, b] = [&mut cycle as &mut dyn Board, &mut fast].map(|board| {
            board.load(&chips).unwrap();
            lists::run(board, &chips).unwrap()
        });
        println!("along four chips, {words} words on {cores} cores: fast {b:.0}, cycle {a:.0}: {:.3}", b / a);
        assert!((0.9..1.1).contains(&(b / a)), "{words} words on {cores} cores: {b} and {a} cycles");
    }
    // Who spaces words leaves room for the other way: routers give up a few of some 800,000 packets.
    assert!(cycle.counters().packets_dropped < 200);
}

#[test]
fn an_error_of_a_list_is_told_in_words() {
    let Some((mut board, _)) = idle_core() else { return };
    let outside =
        spidnn_core::command::Dma { sdram: 0x1000_0000, row_bytes: 4, rows: 1, limit: 1, ..Default::default() };
    let chips = chip(1, &[step(Command::Dma(outside))]);
    board.load(&chips).unwrap();
    let error = lists::run(&mut board, &chips).unwrap_err();
    assert!(matches!(error, Error::Core { .. }) && error.to_string().contains("0x10000000"), "{error}");
}

/// Words that the start-up code has put into the stack: what was never used still has them (`start.rs` of the firmware).
const UNUSED: [u8; 4] = 0xDEAD_DEAD_u32.to_le_bytes();

#[test]
fn the_stack_of_training_has_room() {
    // A batch of LeNet-5 on four chips goes through everything that training has: pages, exchanges, the optimizer.
    let Some(mut board) = board(&CycleConfig::default()) else { return };
    let losses = vec![spidnn::Loss::SparseCategoricalCrossentropy { from_logits: false }];
    let training = Training { losses, optimizer: spidnn::names::parse_optimizer("adam").unwrap(), batch_size: 8 };
    let options = Options { training: Some(training), ..Options::inference(8) };
    let compiled = compile(&spidnn::builtin::graph("lenet5").unwrap(), board.machine(), &options).unwrap();
    board.load(&compiled.chips).unwrap();
    for &chip in compiled.chips.keys() {
        let block = RunBlock { program: Program::Train as u32, samples: 2, step: 1, ..RunBlock::default() };
        board.write(chip, compiled.layout.run_block, block.to_words().to_vec()).unwrap();
    }
    board.start().unwrap();
    board.wait().unwrap();
    let mut spare = usize::MAX;
    for chip in compiled.chips.keys() {
        for core in [1, 2, 5] {
            let core = Endpoint::core(ChipAddress::new(chip.x, chip.y), core);
            let memory = wait(board.boards().root().read(core, 0x0040_F000, 0x1000)).unwrap();
            spare = spare.min(4 * memory.chunks_exact(4).filter(|word| *word == UNUSED).count());
        }
    }
    println!("{spare} bytes of the stack were never used");
    assert!(spare >= 256, "{spare} bytes of the stack are left");
}
