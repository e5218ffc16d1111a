//! Command lists by hand, for what measures or tests the runtime alone.
#![allow(dead_code)] // Each user takes its part.

use std::collections::BTreeMap;

use spidnn::Error;
use spidnn::board::Board;
use spidnn::cycle_link::CycleLink;
use spidnn::wire_board::WireBoard;
use spidnn_compiler::ChipImage;
use spidnn_core::command::{Command, Dma, Exchange, Item, LINK_CYCLES, Loop, Step, When, spacing_cycles};
use spidnn_core::program::{CoreConfig, CoreImage, RunBlock, barrier, memory};
use spidnn_kernels::call::Fill;
use spinnaker_host::{Boards, BootOptions, Options, Transceiver};
use spinnaker_machine::{ChipXy, Link as Direction, Machine, Route, RoutingEntry};
use spinnaker_sim::cycle::{CycleConfig, CycleMachine};

/// Where images, run blocks and data are in SDRAM.
pub const IMAGES: u32 = 0x6030_0000;
const IMAGE_BYTES: u32 = 0x1000;
pub const RUN_BLOCK: u32 = 0x602F_0000;
pub const DATA: u32 = 0x6040_0000;
/// The chip that lists run on, and its neighbour by link 0.
pub const CHIP: ChipXy = ChipXy::new(0, 0);
pub const NEIGHBOUR: ChipXy = ChipXy::new(1, 0);

/// A command of every turn.
pub fn step(command: Command) -> Item {
    Item::Do(Step { command, when: When::Always, patches: Vec::new() })
}

/// A loop of so many turns.
pub fn repeated(turns: u32, body: Vec<Item>) -> Vec<Item> {
    let turns = Loop { depth: 0, start: 0, step: 1, total: turns, total_divisor: 1, divisor: 1, end: Loop::NO_END };
    vec![Item::Loop(turns, Vec::new(), body)]
}

/// First bits of the keys of a core.
fn key(chip: u32, core: u8) -> u32 {
    chip << 20 | u32::from(core) << 15
}

/// Places of a core on a chip that has so many.
fn config(chip: u32, core: u8, cores: u8) -> CoreConfig {
    CoreConfig {
        slot: u32::from(core) - 1,
        cores: cores.into(),
        key: key(chip, core),
        leader: key(chip, 1),
        above: key(chip, 1 + barrier::above(u32::from(core) - 1) as u8),
        run_block: RUN_BLOCK,
        scalars: memory::BUFFERS_END - 64,
        segment_buffer: memory::BUFFERS_END,
        segment_buffer_bytes: memory::SEGMENTS_END - memory::BUFFERS_END,
        ..CoreConfig::default()
    }
}

fn add_core(image: &mut ChipImage, core: u8, config: CoreConfig, list: Vec<Item>) {
    let at = IMAGES + u32::from(core) * IMAGE_BYTES;
    let core_image = CoreImage { config, programs: vec![vec![list]] };
    image.sdram.push((at, core_image.encode().expect("a list that can be encoded")));
    image.cores.push((core, at));
}

/// A chip whose `cores` cores run the same list.
pub fn chip(cores: u8, list: &[Item]) -> BTreeMap<ChipXy, ChipImage> {
    let mut image = empty();
    for core in 1..=cores {
        add_core(&mut image, core, config(0, core, cores), list.to_vec());
    }
    add_barriers(&mut image, 0, cores);
    BTreeMap::from([(CHIP, image)])
}

fn empty() -> ChipImage {
    ChipImage { sdram: Vec::new(), routes: Vec::new(), cores: Vec::new() }
}

/// The routes of barriers: the leader's release goes to everybody, arrivals to the core that their keys name.
fn add_barriers(image: &mut ChipImage, chip: u32, cores: u8) {
    let all = (1..=cores).fold(Route::NONE, |all, core| all.with_core(core));
    image.routes.push(RoutingEntry { key: key(chip, 1) | 0x1000, mask: !0xFFF, route: all });
    for core in (1..=cores).step_by(barrier::GROUP as usize) {
        image.routes.push(RoutingEntry { key: key(chip, core), mask: !0xFFF, route: Route::NONE.with_core(core) });
    }
}

/// An exchange of the vector of one of `cores` cores that share a link.
fn exchange_of(core: u8, cores: u8, words: u32) -> Exchange {
    Exchange {
        sdram: part(core, words),
        words,
        scratch: 0,
        scratch_bytes: 8192,
        spacing_cycles: spacing_cycles(cores.into(), LINK_CYCLES),
    }
}

/// Words of the vector of each core of [`pair`] are here.
pub fn part(core: u8, words: u32) -> u32 {
    DATA + (u32::from(core) - 1) * 4 * words.next_multiple_of(32)
}

/// Two neighbouring chips whose cores exchange vectors of `words` words: `turns` times the second chip's vector goes up and is added
/// to that of the first (and, if `both`, the sum comes down again).
pub fn pair(cores: u8, words: u32, turns: u32, both: bool) -> BTreeMap<ChipXy, ChipImage> {
    let (mut parent, mut child) = (empty(), empty());
    let other = Route::NONE.with_link(Direction::E);
    let back = Route::NONE.with_link(Direction::W);
    for core in 1..=cores {
        let exchange = exchange_of(core, cores, words);
        let mut body = vec![step(Command::ReduceUp(exchange))];
        if both {
            body.push(step(Command::BroadcastDown(exchange)));
        }
        let list = repeated(turns, body);
        let mut above = config(0, core, cores);
        above.child_count = 1;
        above.children[0] = key(1, core);
        let below = CoreConfig { parent: Some(key(0, core)), ..config(1, core, cores) };
        add_core(&mut parent, core, above, list.clone());
        add_core(&mut child, core, below, list);
        let here = Route::NONE.with_core(core);
        parent.routes.push(RoutingEntry { key: key(1, core), mask: !0x7FFF, route: here });
        child.routes.push(RoutingEntry { key: key(0, core), mask: !0x7FFF, route: here });
    }
    parent.routes.push(RoutingEntry { key: 0, mask: 0xFFF0_0000, route: other });
    child.routes.push(RoutingEntry { key: key(1, 0), mask: 0xFFF0_0000, route: back });
    BTreeMap::from([(CHIP, parent), (NEIGHBOUR, child)])
}

/// Transfers whose times are held: rows, and bytes of a row.
const ROWS: [(u32, u32); 12] = [
    (1, 4),
    (1, 64),
    (1, 256),
    (1, 1024),
    (1, 16384),
    (64, 4),
    (64, 16),
    (16, 64),
    (64, 64),
    (28, 112),
    (16, 256),
    (4, 1024),
];

/// Loops of transfers, each waited for or (`beside`) under way while kernels of about its time run, as in a pipeline: name, cores, list.
pub fn transfers(turns: u32) -> Vec<(String, u8, Vec<Item>)> {
    let mut cases = Vec::new();
    for (rows, row_bytes) in ROWS {
        for out in [0, 1] {
            for cores in [1, 4, 17] {
                for beside in [false, true] {
                    let way = if out == 0 { "in" } else { "out" };
                    let kernel = if beside { " beside a kernel" } else { "" };
                    let name = format!("{rows} rows of {row_bytes} bytes {way} on {cores} cores{kernel}");
                    // Rows are apart in SDRAM, together in data memory.
                    let dma = Dma {
                        out,
                        sdram: DATA,
                        row_bytes,
                        rows,
                        limit: rows,
                        sdram_stride: row_bytes + 64,
                        dtcm_stride: row_bytes,
                        ..Dma::default()
                    };
                    let mut body = vec![step(Command::Dma(dma))];
                    if beside {
                        let fill = Fill { dst: 20480, count: (rows * row_bytes / 4 * 5).min(5000), value_bits: 0 };
                        body.push(step(Command::Kernel(fill.into())));
                    }
                    body.push(step(Command::Wait { tag: 0 }));
                    cases.push((name, cores, repeated(turns, body)));
                }
            }
        }
    }
    cases
}

/// Cores and words of the chains whose times are held.
pub const CHAINS: [(u8, u32); 6] = [(4, 64), (4, 256), (4, 1024), (16, 64), (16, 256), (16, 1024)];

/// Four chips one behind the other, whose cores exchange vectors of `words` words, up and down again.
pub fn chain(cores: u8, words: u32, turns: u32) -> BTreeMap<ChipXy, ChipImage> {
    let steps = [Direction::E, Direction::N, Direction::W];
    let places = [CHIP, NEIGHBOUR, ChipXy::new(1, 1), ChipXy::new(0, 1)];
    let mut chips = BTreeMap::new();
    for (number, xy) in (0..).zip(places) {
        let mut image = empty();
        for core in 1..=cores {
            let exchange = exchange_of(core, cores, words);
            let list = repeated(
                turns,
                vec![step(Command::ReduceUp(exchange)), step(Command::Barrier), step(Command::BroadcastDown(exchange))],
            );
            let mut config = config(number, core, cores);
            let here = Route::NONE.with_core(core);
            if number > 0 {
                config.parent = Some(key(number - 1, core));
                image.routes.push(RoutingEntry { key: key(number - 1, core), mask: !0x7FFF, route: here });
            }
            if number < 3 {
                (config.child_count, config.children[0]) = (1, key(number + 1, core));
                image.routes.push(RoutingEntry { key: key(number + 1, core), mask: !0x7FFF, route: here });
            }
            add_core(&mut image, core, config, list);
        }
        add_barriers(&mut image, number, cores);
        // What goes to the parent (kinds 2 and 3), and to the child (4 and 5).
        if number > 0 {
            let route = Route::NONE.with_link(steps[number as usize - 1].opposite());
            image.routes.push(RoutingEntry { key: key(number, 0) | 0x2000, mask: 0xFFF0_6000, route });
        }
        if number < 3 {
            let route = Route::NONE.with_link(steps[number as usize]);
            image.routes.push(RoutingEntry { key: key(number, 0) | 0x4000, mask: 0xFFF0_6000, route });
        }
        chips.insert(xy, image);
    }
    chips
}

/// Words of the vectors of exchanges whose times are held, fast against cycle.
pub const EXCHANGED_WORDS: [u32; 5] = [16, 64, 128, 512, 2048];

/// Turns of an exchange of so many words that make its start small.
pub fn exchange_turns(words: u32) -> u32 {
    (2048 / words).clamp(2, 8)
}

/// Runs what is loaded; the cycles of the core that took longest.
pub fn run(board: &mut dyn Board, chips: &BTreeMap<ChipXy, ChipImage>) -> Result<f64, Error> {
    for &chip in chips.keys() {
        board.write(chip, RUN_BLOCK, RunBlock { samples: 1, ..RunBlock::default() }.to_words().to_vec())?;
    }
    board.start()?;
    Ok(board.wait()? * 200e6)
}

/// An instruction-level board of four chips, booted with the official monitor.
pub fn cycle_board(config: &CycleConfig) -> Result<WireBoard<CycleLink>, Box<dyn std::error::Error>> {
    let link = CycleLink::new(CycleMachine::new(&Machine::spin3(), config));
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let mut host = Transceiver::over(link, Options::default());
    let options = BootOptions::new(spinnaker_wire::sv::Board::Spin3, 0x5F00_0000);
    runtime.block_on(host.boot(&spidnn::boot_image::find()?, &options))?;
    let boards = runtime.block_on(Boards::single(host))?;
    Ok(WireBoard::new(runtime, boards, None)?)
}

/// Vectors of [`pair`]: numbers that stay exact when they are added and doubled a hundred times.
pub fn numbers(chip: u32, core: u8, words: u32) -> Vec<u32> {
    let scale = 2f32.powi(-90);
    (0..words)
        .map(|i| ((((i * 7 + u32::from(core) * 131 + chip * 977) % 4001) as f32 - 2000.0) * scale).to_bits())
        .collect()
}

/// Writes the vectors of both chips, runs `turns` exchanges up and down, and compares every word with what it must be: the sum, doubled
/// in every turn but the first. Cycles, and how many words are wrong.
pub fn exchange(board: &mut dyn Board, cores: u8, words: u32, turns: u32) -> Result<(f64, usize), Error> {
    let chips = pair(cores, words, turns, true);
    board.load(&chips)?;
    for core in 1..=cores {
        board.write(CHIP, part(core, words), numbers(0, core, words))?;
        board.write(NEIGHBOUR, part(core, words), numbers(1, core, words))?;
    }
    let cycles = run(board, &chips)?;
    let mut wrong = 0;
    for core in 1..=cores {
        let factor = 2f32.powi(turns as i32 - 1);
        let both = numbers(0, core, words).into_iter().zip(numbers(1, core, words));
        let expected: Vec<u32> =
            both.map(|(a, b)| ((f32::from_bits(a) + f32::from_bits(b)) * factor).to_bits()).collect();
        for chip in [CHIP, NEIGHBOUR] {
            let found = board.read(chip, part(core, words), words as usize)?;
            wrong += found.iter().zip(&expected).filter(|(a, b)| a != b).count();
        }
    }
    Ok((cycles, wrong))
}
