//! The primitives of the runtime on the firmware, instruction by instruction, and on the fast machine: cycles of both.
//!
//! `cargo run --release -p spidnn --example runtime_truth`, with the official boot image: see `spidnn::boot_image`.

use std::collections::BTreeMap;

use spidnn::board::Board;
use spidnn::cycle_link::CycleLink;
use spidnn::wire_board::WireBoard;
use spidnn::{Error, VirtualBoard};
use spidnn_compiler::ChipImage;
use spidnn_core::command::{Command, Dma, Item};
use spidnn_kernels::KernelCall;
use spidnn_kernels::call::{BiasAct, Conv, Fill, Gemm, PrepWindow};
use spinnaker_machine::{ChipXy, Machine};
use spinnaker_sim::SimConfig;
use spinnaker_sim::cycle::CycleConfig;

#[path = "../tests/lists/mod.rs"]
mod lists;

use lists::{CHIP, DATA, chip, cycle_board, pair, step};

/// Turns of the loops that are measured.
const TURNS: u32 = 1000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut cycle = cycle_board(&CycleConfig::default())?;
    let mut fast = VirtualBoard::with_config(Machine::spin3(), SimConfig::default());

    let empty = lists::repeated(TURNS, vec![step(Command::Wait { tag: 0 })]);
    let kernel = lists::repeated(TURNS, vec![step(Command::Kernel(Fill { dst: 0, count: 0, value_bits: 0 }.into()))]);
    // Mantissas or floats, and small exponents: the usual paths of the kernels.
    let (mantissas, ones) = (0x0200_0000, 0x3F80_0000);
    let fill = |dst: u32, count: u32, value_bits: u32| step(Command::Kernel(Fill { dst, count, value_bits }.into()));
    let small = |numbers: u32, call: KernelCall| {
        let mut list = vec![fill(0, 2048, numbers), fill(512, 32, 5), fill(2048, 16, 5), fill(3072, 16, 5)];
        list.extend(lists::repeated(TURNS, vec![step(Command::Kernel(call))]));
        list
    };
    let one_pixel = Conv {
        x: 0,
        in_h: 1,
        in_w: 4,
        in_c: 2,
        up_y: 1,
        up_x: 1,
        w: 1024,
        w_exps: 2048,
        w_stride: 4,
        kh: 1,
        kw: 1,
        ci_group: 2,
        co_group: 4,
        co_tile: 4,
        y: 4096,
        rows: 1,
        out_h: 1,
        out_w: 1,
        x_exp: 3072,
        stride_y: 1,
        stride_x: 1,
        dilation_y: 1,
        dilation_x: 1,
        ..Conv::default()
    };
    let barrier = lists::repeated(TURNS, vec![step(Command::Barrier)]);
    let dma = |bytes: u32, rows: u32, stride: u32, out: u32| {
        let dma = Dma {
            out,
            sdram: DATA,
            row_bytes: bytes,
            rows,
            limit: rows,
            sdram_stride: stride,
            dtcm_stride: bytes,
            ..Dma::default()
        };
        lists::repeated(TURNS, vec![step(Command::Dma(dma)), step(Command::Wait { tag: 0 })])
    };
    let cases: Vec<(String, u8, Vec<Item>)> = vec![
        ("a command that has nothing to wait for".into(), 1, empty),
        ("an empty kernel".into(), 1, kernel),
        (
            "a product of 1x4x4".into(),
            1,
            small(
                mantissas,
                Gemm {
                    a: 0,
                    a_stride: 4,
                    b: 64,
                    b_stride: 4,
                    c: 256,
                    c_stride: 4,
                    a_exps: 512,
                    b_exps: 576,
                    m: 1,
                    k: 4,
                    n: 4,
                    accumulate: 0,
                }
                .into(),
            ),
        ),
        (
            "numbers for a row of 4, and their mantissas".into(),
            1,
            lists::repeated(
                TURNS,
                vec![
                    fill(0, 4, ones),
                    step(Command::Kernel(
                        PrepWindow { x: 0, first: 0, rows: 1, limit: 1, row_words: 4, exp: 64 }.into(),
                    )),
                ],
            ),
        ),
        ("a convolution of one pixel, 2 to 4 channels".into(), 1, small(mantissas, one_pixel.into())),
        (
            "a bias for 4 numbers".into(),
            1,
            small(ones, BiasAct { y: 0, rows: 1, cols: 4, stride: 4, bias: 64, activation: 0, alpha_bits: 0 }.into()),
        ),
        ("barrier of 2 cores".into(), 2, barrier.clone()),
        ("barrier of 16 cores".into(), 16, barrier.clone()),
        ("barrier of 17 cores".into(), 17, barrier),
        ("DMA of 4 bytes and wait".into(), 1, dma(4, 1, 4, 0)),
        ("DMA of 1 KiB and wait".into(), 1, dma(1024, 1, 1024, 0)),
        ("DMA of 1 KiB out and wait".into(), 1, dma(1024, 1, 1024, 1)),
        ("DMA of 16 KiB and wait".into(), 1, dma(16384, 1, 16384, 0)),
        ("DMA of 16 rows of 64 bytes".into(), 1, dma(64, 16, 256, 0)),
        ("DMA of 64 rows of 16 bytes".into(), 1, dma(16, 64, 256, 0)),
        ("DMA of 1 KiB on 17 cores".into(), 17, dma(1024, 1, 1024, 0)),
        ("DMA of 64 rows of 16 bytes on 17 cores".into(), 17, dma(16, 64, 256, 0)),
    ];
    if std::env::args().any(|word| word == "exchanges") {
        return exchanges(&mut cycle, &mut fast);
    }
    if std::env::args().any(|word| word == "transfers") {
        return transfers(&mut cycle, &mut fast);
    }
    println!("{:<42} {:>9} {:>9} {:>6}  (cycles for one)", "", "cycle", "fast", "ratio");
    for (name, cores, list) in cases {
        let chips = chip(cores, &list);
        let measured = [measure(&mut cycle, &chips)?, measure(&mut fast, &chips)?].map(|c| c / f64::from(TURNS));
        println!("{name:<42} {:>9.1} {:>9.1} {:>6.3}", measured[0], measured[1], measured[1] / measured[0]);
    }
    transfers(&mut cycle, &mut fast)?;
    streams(&mut cycle, &mut fast)?;
    exchanges(&mut cycle, &mut fast)
}

/// Transfers of rows, waited for, and beside kernels: cycles of one turn, those that differ most at the end.
fn transfers(cycle: &mut WireBoard<CycleLink>, fast: &mut VirtualBoard) -> Result<(), Box<dyn std::error::Error>> {
    let turns = 100;
    let mut lines = Vec::new();
    for (name, cores, list) in lists::transfers(turns) {
        let chips = chip(cores, &list);
        let [a, b] = [measure(cycle, &chips)?, measure(fast, &chips)?].map(|cycles| cycles / f64::from(turns));
        lines.push((b / a, format!("{name:<54} {a:>9.1} {b:>9.1} {:>6.3}", b / a)));
    }
    lines.sort_by(|(a, _), (b, _)| (a.ln().abs()).total_cmp(&b.ln().abs()));
    println!(
        "\n{:<54} {:>9} {:>9} {:>6}  (cycles for one, the worst at the end)",
        "transfers", "cycle", "fast", "ratio"
    );
    lines.iter().for_each(|(_, line)| println!("{line}"));
    Ok(())
}

/// Vectors that go up between neighbouring chips and down again, on some cores at once: cycles of one turn.
fn exchanges(cycle: &mut WireBoard<CycleLink>, fast: &mut VirtualBoard) -> Result<(), Box<dyn std::error::Error>> {
    println!(
        "\n{:<42} {:>9} {:>9} {:>6}  packets sent again, dropped",
        "exchanges between neighbours", "cycle", "fast", "ratio"
    );
    for cores in [1, 4, 16] {
        for words in lists::EXCHANGED_WORDS {
            let name = format!("{words} words on {cores} cores");
            let turns = lists::exchange_turns(words);
            let mut took = [0.0; 2];
            let mut again = [(0, 0); 2];
            for (n, board) in [&mut *cycle as &mut dyn Board, fast].into_iter().enumerate() {
                let before = board.counters();
                let (cycles, wrong) = lists::exchange(board, cores, words, turns)?;
                assert_eq!(wrong, 0, "words of {name}");
                took[n] = cycles / f64::from(turns);
                let after = board.counters();
                again[n] = (
                    after.packets_resent.wrapping_sub(before.packets_resent).cast_signed(),
                    after.packets_dropped.wrapping_sub(before.packets_dropped).cast_signed(),
                );
            }
            println!("{name:<42} {:>9.0} {:>9.0} {:>6.3}  {again:?}", took[0], took[1], took[1] / took[0]);
        }
    }
    println!("\nexchanges along four chips");
    for (cores, words) in lists::CHAINS {
        let chips = lists::chain(cores, words, 2);
        let [a, b] = [measure(cycle, &chips)?, measure(fast, &chips)?].map(|cycles| cycles / 2.0);
        let name = format!("{words} words on {cores} cores");
        println!("{name:<42} {a:>9.0} {b:>9.0} {:>6.3}", b / a);
    }
    Ok(())
}

fn measure(board: &mut dyn Board, chips: &BTreeMap<ChipXy, ChipImage>) -> Result<f64, Error> {
    board.load(chips)?;
    lists::run(board, chips)
}

/// Block streams between neighbouring chips: packets a second of both machines, of what the link carries; and what a packet costs the
/// core that receives it.
fn streams(cycle: &mut WireBoard<CycleLink>, fast: &mut VirtualBoard) -> Result<(), Error> {
    let link_rate = 1e9 / SimConfig::default().timing.link_long_ns as f64;
    println!(
        "\nblock streams between neighbours, millions of packets a second (the link carries {:.2})",
        link_rate * 1e-6
    );
    println!("{:<42} {:>9} {:>9} {:>6}  of the link", "", "cycle", "fast", "ratio");
    for (cores, words) in [(1, 32_768), (2, 32_768), (4, 16_384), (8, 8192), (16, 4096)] {
        let chips = pair(cores, words, 1, false);
        let packets = f64::from(words) * f64::from(cores);
        let mut rates = [0.0; 2];
        for (rate, board) in rates.iter_mut().zip([&mut *cycle as &mut dyn Board, fast]) {
            *rate = packets / (measure(board, &chips)? / 200e6);
        }
        let name = format!("sums of {words} words on {cores} cores");
        let [a, b] = rates.map(|rate| rate * 1e-6);
        println!("{name:<42} {a:>9.3} {b:>9.3} {:>6.3}  {:.0} %", a / b, 100.0 * rates[0] / link_rate);
    }
    let words = 16_384;
    let chips = pair(1, words, 1, false);
    cycle.load(&chips)?;
    watch(cycle, true);
    lists::run(cycle, &chips)?;
    let spent = watch(cycle, false);
    let end = handler_end(cycle);
    let handler = spent.iter().filter(|(address, _)| *address < end).map(|(_, cycles)| cycles).sum::<u64>();
    let all = spent.iter().map(|(_, cycles)| cycles).sum::<u64>();
    println!("a packet of a stream in the interrupt: {:.1} cycles", handler as f64 / f64::from(words));
    println!("all that a word costs the core that sums it: {:.1} cycles awake", all as f64 / f64::from(words));
    Ok(())
}

/// Where the handler of packets ends, which begins at its vector: at the next handler's first instruction.
fn handler_end(board: &mut WireBoard<CycleLink>) -> u32 {
    const VECTOR: u32 = 0x1C;
    /// `sub lr, lr, #4`: the entry of other interrupts (`dma.s` of the firmware).
    const NEXT_HANDLER: u32 = 0xE24E_E004;
    let mut machine = board.boards().root().link().machine();
    let core = machine.physical(CHIP, 1).unwrap_or_default();
    let mut code = [0; 1024];
    machine.look(CHIP, core, VECTOR, &mut code);
    let at = code.chunks_exact(4).position(|word| word == NEXT_HANDLER.to_le_bytes());
    VECTOR + 4 * at.expect("the handler of other interrupts") as u32
}

/// Switches the profile of virtual core 1 on or off; addresses and cycles so far.
fn watch(board: &mut WireBoard<CycleLink>, on: bool) -> Vec<(u32, u64)> {
    let mut machine = board.boards().root().link().machine();
    let Some(core) = machine.physical(CHIP, 1) else { return Vec::new() };
    let Some(cpu) = machine.cpu(CHIP, core) else { return Vec::new() };
    let spent = cpu.profile().map(|p| p.iter().map(|(a, s)| (*a, s.cycles)).collect());
    cpu.set_profile(on);
    spent.unwrap_or_default()
}
