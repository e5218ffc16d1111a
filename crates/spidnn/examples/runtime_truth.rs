//! The primitives of the runtime on the firmware, instruction by instruction, and on the fast machine: cycles of both.
//!
//! `cargo run --release -p spidnn --example runtime_truth`, with the official boot image: see `spidnn::boot_image`.

use std::collections::BTreeMap;

use spidnn::board::Board;
use spidnn::cycle_link::CycleLink;
use spidnn::wire_board::WireBoard;
use spidnn::{Error, VirtualBoard};
use spidnn_compiler::ChipImage;
use spidnn_core::command::{Command, Dma, Item, Loop, Step, When};
use spidnn_core::program::{CoreConfig, CoreImage, RunBlock, memory};
use spidnn_kernels::KernelCall;
use spidnn_kernels::call::{BiasAct, Conv, Fill, Gemm, PrepWindow};
use spinnaker_host::{Boards, BootOptions, Options, Transceiver};
use spinnaker_machine::{ChipXy, Machine, Route, RoutingEntry};
use spinnaker_sim::SimConfig;
use spinnaker_sim::cycle::{CycleConfig, CycleMachine};

/// Where images, run blocks and data are in SDRAM.
const IMAGES: u32 = 0x6030_0000;
const IMAGE_BYTES: u32 = 0x1000;
const RUN_BLOCK: u32 = 0x602F_0000;
const DATA: u32 = 0x6040_0000;
const CHIP: ChipXy = ChipXy::new(0, 0);
/// Turns of the loops that are measured.
const TURNS: u32 = 1000;

fn step(command: Command) -> Item {
    Item::Do(Step { command, when: When::Always, patches: Vec::new() })
}

fn repeated(body: Vec<Item>) -> Vec<Item> {
    let turns = Loop { depth: 0, start: 0, step: 1, total: TURNS, total_divisor: 1, divisor: 1, end: Loop::NO_END };
    vec![Item::Loop(turns, Vec::new(), body)]
}

/// A chip whose `cores` cores run the same list.
fn chip(cores: u8, list: &[Item]) -> BTreeMap<ChipXy, ChipImage> {
    let key = |core: u8| u32::from(core) << 15;
    let mut image = ChipImage { sdram: Vec::new(), routes: Vec::new(), cores: Vec::new() };
    let mut all = Route::NONE;
    for core in 1..=cores {
        let config = CoreConfig {
            slot: u32::from(core) - 1,
            cores: cores.into(),
            key: key(core),
            leader: key(1),
            run_block: RUN_BLOCK,
            scalars: memory::BUFFERS_END - 64,
            segment_buffer: memory::BUFFERS_END,
            segment_buffer_bytes: memory::SEGMENTS_END - memory::BUFFERS_END,
            ..CoreConfig::default()
        };
        let core_image = CoreImage { config, programs: vec![vec![list.to_vec()]] };
        let at = IMAGES + u32::from(core) * IMAGE_BYTES;
        image.sdram.push((at, core_image.encode().expect("a list that can be encoded")));
        image.cores.push((core, at));
        all = all.with_core(core);
    }
    // What a leader sends goes to everybody, what others send to the leader.
    image.routes.push(RoutingEntry { key: key(1), mask: !0x7FFF, route: all });
    image.routes.push(RoutingEntry { key: 0, mask: 0xFFF0_0000, route: Route::NONE.with_core(1) });
    BTreeMap::from([(CHIP, image)])
}

fn run(board: &mut dyn Board, chips: &BTreeMap<ChipXy, ChipImage>) -> Result<f64, Error> {
    board.load(chips)?;
    board.write(CHIP, RUN_BLOCK, RunBlock { samples: 1, ..RunBlock::default() }.to_words().to_vec())?;
    board.start()?;
    Ok(board.wait()? * 200e6)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let machine = Machine::spin3();
    let link = CycleLink::new(CycleMachine::new(&machine, &CycleConfig::default()));
    let mut host = Transceiver::over(link, Options::default());
    let options = BootOptions::new(spinnaker_wire::sv::Board::Spin3, 0x5F00_0000);
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    runtime.block_on(host.boot(&spidnn::boot_image::find()?, &options))?;
    let boards = runtime.block_on(Boards::single(host))?;
    let mut cycle = WireBoard::new(runtime, boards, None)?;
    let mut fast = VirtualBoard::with_config(machine, SimConfig::default());

    let empty = repeated(vec![step(Command::Wait { tag: 0 })]);
    let kernel = repeated(vec![step(Command::Kernel(Fill { dst: 0, count: 0, value_bits: 0 }.into()))]);
    // Mantissas or floats, and small exponents: the usual paths of the kernels.
    let (mantissas, ones) = (0x0200_0000, 0x3F80_0000);
    let fill = |dst: u32, count: u32, value_bits: u32| step(Command::Kernel(Fill { dst, count, value_bits }.into()));
    let small = |numbers: u32, call: KernelCall| {
        let mut list = vec![fill(0, 2048, numbers), fill(512, 32, 5), fill(2048, 16, 5), fill(3072, 16, 5)];
        list.extend(repeated(vec![step(Command::Kernel(call))]));
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
    let barrier = repeated(vec![step(Command::Barrier)]);
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
        repeated(vec![step(Command::Dma(dma)), step(Command::Wait { tag: 0 })])
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
            "mantissas of a row of 4".into(),
            1,
            small(ones, PrepWindow { x: 0, first: 0, rows: 1, limit: 1, row_words: 4, exp: 64 }.into()),
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
    println!("{:<42} {:>9} {:>9} {:>6}  (cycles for one)", "", "cycle", "fast", "ratio");
    for (name, cores, list) in cases {
        let chips = chip(cores, &list);
        let measured = [run(&mut cycle, &chips)?, run(&mut fast, &chips)?].map(|c| c / f64::from(TURNS));
        println!("{name:<42} {:>9.1} {:>9.1} {:>6.3}", measured[0], measured[1], measured[1] / measured[0]);
    }
    Ok(())
}
