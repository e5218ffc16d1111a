//! Where the cycles of one core go when a network runs on the firmware, by the functions of its ELF file.
//!
//! `cargo run --release -p spidnn --example firmware_profile -- lenet5 2 crates/spidnn-firmware/target/thumbv5te-spinnaker/release/predict.elf`
//! (model, samples on one chip, ELF file of the variant from `cargo xtask firmware`, format: `f32` if there is none), with the official boot image: see `boot_image`.

use std::collections::BTreeMap;

use object::{Object, ObjectSymbol, SymbolKind};
use spidnn::board::Board;
use spidnn::cycle_link::CycleLink;
use spidnn::reach::{self, Reached};
use spidnn::wire_board::WireBoard;
use spidnn::{Error, Model, VirtualBoard, builtin};
use spidnn_compiler::quantise::{Calibration, Quantisation};
use spidnn_compiler::{Format, Options, compile};
use spidnn_core::program::RunBlock;
use spinnaker_machine::{ChipXy, Machine, VirtualLocator, VirtualShape};
use spinnaker_sim::SimConfig;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let mut next = |what| arguments.next().ok_or(Error::Argument(format!("missing: {what}")));
    let (model, samples, elf) = (next("model")?, next("samples")?.parse::<u32>()?, std::fs::read(next("ELF file")?)?);
    let file = object::File::parse(&*elf)?;
    let mut functions: Vec<(u32, String)> = file
        .symbols()
        .filter(|s| matches!(s.kind(), SymbolKind::Text | SymbolKind::Label | SymbolKind::Unknown))
        .filter_map(|s| Some((s.address() as u32 & !1, s.name().ok()?.to_string())))
        .filter(|(_, name)| !name.is_empty() && !name.starts_with('$'))
        .collect();
    functions.sort();

    let Reached { runtime, boards } =
        reach::instruction_level(&VirtualLocator { shape: VirtualShape::Spin3, ..VirtualLocator::default() })?;
    let mut board = WireBoard::new(runtime, boards, None)?;
    let graph = builtin::graph(&model).ok_or(Error::Argument(format!("no built-in model {model}")))?;
    let format = match arguments.next().as_deref() {
        None | Some("f32") => Format::F32,
        Some("bfp16") => Format::Bfp16,
        Some("int8") => {
            let weights = Model::untrained(graph.clone(), 3).weights().to_vec();
            let shape: Vec<usize> = [4].into_iter().chain(graph.node(graph.inputs[0]).shape.iter().copied()).collect();
            let numbers = (0..shape.iter().product()).map(|i| (i as f32 * 0.7).sin()).collect();
            let inputs = [spidnn::Tensor::from_shape_vec(shape, numbers)?];
            let calibration = Calibration::of(&graph, &weights, &inputs)?.into();
            Format::Int8(Quantisation { weights: weights.into(), calibration })
        }
        Some(other) => return Err(Error::Argument(format!("no format {other}")).into()),
    };
    let options = Options { chips_max: Some(1), format, ..Options::inference(samples as usize) };
    let compiled = compile(&graph, board.machine(), &options)?;
    board.load(&compiled.chips)?;
    let chip: ChipXy = compiled.replicas[0];
    let mut fast = VirtualBoard::with_config(Machine::spin3(), SimConfig::default());
    fast.load(&compiled.chips)?;
    for fetch_kept in [true, false] {
        let block = RunBlock { samples, inverse_batch: 1.0 / samples as f32, fetch_kept, ..Default::default() };
        board.write(chip, compiled.layout.run_block, block.to_words().to_vec())?;
        if !fetch_kept {
            watch(&mut board, chip, true);
        }
        fast.write(chip, compiled.layout.run_block, block.to_words().to_vec())?;
        board.start()?;
        fast.start()?;
        let (cycle_s, fast_s) = (board.wait()?, fast.wait()?);
        println!("cycle {:.1} us, fast {:.1} us: {:.3}", cycle_s * 1e6, fast_s * 1e6, fast_s / cycle_s);
    }
    let spent = watch(&mut board, chip, false);
    let mut by_function: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for (address, cycles, instructions) in &spent {
        let at = functions.partition_point(|(start, _)| start <= address);
        let name = at.checked_sub(1).map_or("?", |i| &functions[i].1);
        let sum = by_function.entry(name).or_default();
        *sum = (sum.0 + cycles, sum.1 + instructions);
    }
    let mut rows: Vec<_> = by_function.into_iter().collect();
    rows.sort_by_key(|(_, (cycles, _))| std::cmp::Reverse(*cycles));
    let total: u64 = rows.iter().map(|(_, (cycles, _))| cycles).sum();
    println!("{total} cycles awake");
    for (name, (cycles, instructions)) in rows.iter().take(30) {
        println!("{cycles:>9} {instructions:>9}  {}", &name[..name.len().min(110)]);
    }
    Ok(())
}

/// Switches the profile of virtual core 1 on or off; addresses, cycles and instructions so far.
fn watch(board: &mut WireBoard<CycleLink>, chip: ChipXy, on: bool) -> Vec<(u32, u64, u64)> {
    let mut machine = board.boards().root().link().machine();
    let Some(core) = machine.physical(chip, 1) else { return Vec::new() };
    let Some(cpu) = machine.cpu(chip, core) else { return Vec::new() };
    let spent = cpu.profile().map(|p| p.iter().map(|(a, s)| (*a, s.cycles, s.instructions)).collect());
    cpu.set_profile(on);
    spent.unwrap_or_default()
}
