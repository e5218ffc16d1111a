//! The whole way: choose chips, lower, emit each core's programs, route, and place the images.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::rc::Rc;

use spidnn_core::command::{BOARD_LINK_CYCLES, Command, Item, LINK_CYCLES, Step, When};
use spidnn_core::program::{CoreConfig, CoreImage, RUN_BLOCK_WORDS, directory};
use spidnn_graph::Graph;
use spinnaker_machine::{ChipXy, Machine, SDRAM_USER_BASE};

use crate::CompileError;
use crate::emit::{SCALARS, SEGMENT_BUFFER, SEGMENT_BUFFER_BYTES, tally};
use crate::lower::{CORES_MAX, Lowered, Target, lower};
use crate::plan::{self, ChipImage, Compiled, Layout, Options, Program};
use crate::report::{CoreReport, Report, StageReport};
use crate::route::{self, ReplicaTree, RouteError};
use crate::stage::CoreSlot;
use crate::weights::{emit_ahead, emit_keeping, longest_kernel_cycles};

/// Programs by their numbers.
const PROGRAMS: [Program; 3] = [Program::Predict, Program::Train, Program::Evaluate];

/// Where tensors and command lists begin on every chip: behind the heap's headers and the directory.
const DATA_BASE: u32 = SDRAM_USER_BASE + directory::RESERVED_BYTES;
/// Programs as they are encoded: programs, segments, items.
type Programs = Vec<Vec<Vec<Item>>>;

/// Chips that hold a replica, in the order in which samples are shared out.
struct Replicas {
    chips: Vec<ChipXy>,
    tree: ReplicaTree,
}

fn choose_replicas(machine: &Machine, options: &Options) -> Result<Replicas, CompileError> {
    let usable: Vec<ChipXy> = machine.chips.iter().filter(|(_, c)| !c.cores.is_empty()).map(|(&xy, _)| xy).collect();
    if usable.is_empty() {
        return Err(CompileError::NoCores);
    }
    let most = options.chips_max.unwrap_or(usize::MAX).min(options.samples()).max(1);
    let whole = ReplicaTree::build(machine, &usable, None)?;
    if whole.chips().len() <= most {
        return Ok(Replicas { chips: whole.chips().to_vec(), tree: whole });
    }
    // Fewer samples than chips: those nearest to the root, so that they stay together.
    let mut nearest = whole.chips().to_vec();
    nearest.sort_by_key(|&xy| (whole.level(xy), xy));
    nearest.truncate(most);
    nearest.sort();
    let tree = ReplicaTree::build(machine, &nearest, Some(whole.root()))?;
    Ok(Replicas { chips: tree.chips().to_vec(), tree })
}

/// Compiles a network for a machine.
///
/// # Errors
/// When the model does not fit, asks for something that has no kernel, or cannot be routed: see [`CompileError`].
pub fn compile(graph: &Graph, machine: &Machine, options: &Options) -> Result<Compiled, CompileError> {
    if options.batch_size == 0 || options.training.as_ref().is_some_and(|t| t.batch_size == 0) {
        return Err(CompileError::EmptyBatch);
    }
    let replicas = choose_replicas(machine, options)?;
    let cores: BTreeMap<ChipXy, Vec<u8>> = replicas
        .chips
        .iter()
        .map(|&xy| {
            let mut cores = machine.chips[&xy].cores.clone();
            cores.truncate(CORES_MAX as usize);
            (xy, cores)
        })
        .collect();
    let exchange_slots = cores.values().map(Vec::len).min().unwrap_or(1) as u32;
    let samples_of = |program| options.samples_of(program).div_ceil(replicas.chips.len()) as u32;
    let samples_max = options.samples().div_ceil(replicas.chips.len()) as u32;
    // A sum over the tree of replicas is as slow as its slowest link.
    let boards: BTreeSet<ChipXy> = replicas.chips.iter().map(|xy| machine.chips[xy].nearest_ethernet).collect();
    let link_cycles = if boards.len() > 1 { BOARD_LINK_CYCLES } else { LINK_CYCLES };
    let replica_count = replicas.chips.len() as u32;
    let target = Target { samples_max, replicas: replica_count, exchange_slots, link_cycles, base: DATA_BASE };
    let lowered = lower(graph, options, target)?;
    let root = replicas.tree.root();

    let available = u64::from(replicas.chips.iter().map(|xy| machine.chips[xy].sdram_bytes).min().unwrap_or(0));
    let too_large = |needed: u64| CompileError::ModelTooLarge {
        needed,
        available,
        layer: lowered.largest.0.clone(),
        layer_bytes: lowered.largest.1,
        samples: samples_max as usize,
    };
    let data_bytes = lowered.memory.end() - u64::from(DATA_BASE);
    if data_bytes > available {
        return Err(too_large(data_bytes));
    }

    // Command lists depend on the number of cores and samples, the slot, and whether the chip is the root: chips share them.
    let mut lists: HashMap<(CoreSlot, [u32; 3]), Rc<Vec<Programs>>> = HashMap::new();
    let counts: Vec<usize> = replicas.chips.iter().map(|xy| cores[xy].len()).collect();
    // Samples of each chip in the runs of each program; work is dealt for them.
    let own_samples = PROGRAMS.map(|program| plan::shares(options.samples_of(program), &counts));
    let mut chips = BTreeMap::new();
    let nets = route::nets_for(&replicas.tree, &cores, exchange_slots as usize)?;
    let tables = route::route(machine, &nets)?;
    let mut command_words = 0;
    let mut image_bytes_max = 0;
    for (index, &xy) in replicas.chips.iter().enumerate() {
        let own = &cores[&xy];
        let mut sdram = Vec::new();
        let mut start = Vec::new();
        let mut next = lowered.memory.end();
        let who = CoreSlot::new(0, own.len() as u32, samples_max, xy == root);
        let samples = own_samples.each_ref().map(|shares| (shares[index] as u32).max(1));
        let of = |program: Program| CoreSlot {
            samples_max: samples[program as usize],
            unasked: program == Program::Predict,
            ..who
        };
        let key = (who, samples);
        let slots = match lists.get(&key) {
            Some(slots) => Rc::clone(slots),
            None => {
                let slots = Rc::new(emit_programs(&lowered, of)?);
                lists.insert(key, Rc::clone(&slots));
                slots
            }
        };
        for (slot, (&core, programs)) in own.iter().zip(slots.iter()).enumerate() {
            let config = config_of(&replicas.tree, &cores, xy, slot, exchange_slots as usize, lowered.run_block)?;
            let image = CoreImage { config, programs: programs.clone() };
            let words = image.encode().map_err(|e| CompileError::Encode { chip: xy, core, reason: e.to_string() })?;
            command_words = command_words.max(words.len());
            let address = next as u32;
            next += (words.len() as u64 * 4).next_multiple_of(16);
            sdram.push((address, words));
            start.push((core, address));
        }
        let needed = next - u64::from(DATA_BASE);
        if needed > available {
            return Err(too_large(needed));
        }
        image_bytes_max = image_bytes_max.max(next - lowered.memory.end());
        let routes = tables.tables.get(&xy).cloned().unwrap_or_default();
        chips.insert(xy, ChipImage { sdram, routes, cores: start });
    }
    // Chips that only pass packets on.
    for (&xy, routes) in &tables.tables {
        chips.entry(xy).or_insert_with(|| ChipImage { sdram: Vec::new(), routes: routes.clone(), cores: Vec::new() });
    }

    let (stages, loads) = stage_reports(&lowered, cores[&root].len() as u32, samples_of)?;
    let mut root_cores: Vec<CoreReport> = cores[&root]
        .iter()
        .zip(loads)
        .zip(chips.get(&root).map_or(&[][..], |image| &image.sdram))
        .map(|((&core, load), (_, words))| CoreReport { core, command_words: words.len(), ..load })
        .collect();
    root_cores
        .sort_by_key(|c| std::cmp::Reverse((c.dtcm_bytes, c.cycles.iter().map(|(_, cycles)| *cycles).sum::<u64>())));
    let mut sdram_bytes = lowered.memory.used.clone();
    sdram_bytes.push(("command lists".into(), image_bytes_max));
    let report = Report {
        model: graph.name.clone(),
        chips: replicas.chips.len(),
        cores: cores.values().map(Vec::len).sum(),
        samples_per_chip: samples_max as usize,
        stages,
        root_cores,
        sdram_bytes,
        sdram_available_bytes: available,
        routing_entries: tables.entries_max(),
        command_words,
    };
    let layout = Layout {
        samples_max: samples_of(Program::Predict) as usize,
        training_samples_max: if options.training.is_some() { samples_of(Program::Train) as usize } else { 0 },
        inputs: lowered.inputs,
        input_bytes: lowered.input_bytes,
        targets: lowered.targets,
        sample_weights: lowered.sample_weights,
        losses: lowered.losses,
        outputs: lowered.outputs,
        params: lowered.params,
        optimizer_state: lowered.optimizer_state,
        inference_params: lowered.inference_params,
        run_block: lowered.run_block,
        root,
    };
    Ok(Compiled { replicas: replicas.chips, chips, layout, constants: lowered.constants, report })
}

/// What a core has to know of its place: keys of its leader and of its peers on neighbouring chips of the tree.
fn config_of(
    tree: &ReplicaTree,
    cores: &BTreeMap<ChipXy, Vec<u8>>,
    chip: ChipXy,
    slot: usize,
    exchange_slots: usize,
    run_block: u32,
) -> Result<CoreConfig, CompileError> {
    // Chip and core; the kind of channel is added by the core.
    let key = |chip: ChipXy, slot: usize| -> Result<u32, CompileError> {
        let index = tree.chip_index(chip).ok_or(RouteError::NoChip(chip))?;
        Ok(route::key_base(index, cores[&chip][slot], route::ChannelKind::BarrierArrive).map_err(RouteError::from)?)
    };
    let mut config = CoreConfig {
        slot: slot as u32,
        cores: cores[&chip].len() as u32,
        key: key(chip, slot)?,
        leader: key(chip, 0)?,
        above: key(chip, spidnn_core::program::barrier::above(slot as u32) as usize)?,
        run_block,
        scalars: SCALARS,
        segment_buffer: SEGMENT_BUFFER,
        segment_buffer_bytes: SEGMENT_BUFFER_BYTES,
        ..CoreConfig::default()
    };
    if slot < exchange_slots {
        if let Some(parent) = tree.parent(chip) {
            config.parent = Some(key(parent, slot)?);
            config.child_number = tree.children(parent).iter().position(|&c| c == chip).unwrap_or_default() as u32;
        }
        for (entry, &child) in config.children.iter_mut().zip(tree.children(chip)) {
            *entry = key(child, slot)?;
            config.child_count += 1;
        }
    }
    Ok(config)
}

/// The command lists of all cores of a chip: a barrier after every phase.
fn emit_programs(lowered: &Lowered, chip_of: impl Fn(Program) -> CoreSlot) -> Result<Vec<Programs>, CompileError> {
    let cores = chip_of(Program::Predict).cores as usize;
    let mut all: Vec<Programs> = vec![vec![Vec::new(); 3]; cores];
    for (program, phases) in &lowered.programs {
        let chip = chip_of(*program);
        let plain = phases.iter().map(|phase| phase.emit(chip)).collect::<Result<Vec<_>, _>>()?;
        let room: Vec<u64> = plain.iter().map(|stages| longest_kernel_cycles(stages, chip)).collect();
        for (slot, programs) in (0..).zip(&mut all) {
            let core = CoreSlot { slot, ..chip };
            // Predictions keep their weights in local memory from run to run, where all of them fit beside the buffers.
            let kept = if *program == Program::Predict { emit_keeping(phases, core) } else { None };
            let emitted = match kept {
                Some(emitted) => emitted,
                None => emit_ahead(phases, core, &plain, &room),
            };
            let mut items = Vec::new();
            for own in emitted {
                items.extend(own);
                items.push(Item::Do(Step { command: Command::Barrier, when: When::Always, patches: Vec::new() }));
            }
            programs[*program as usize] = segments(items);
        }
    }
    Ok(all)
}

/// Cuts a list into segments that fit half the segment buffer; a loop stays whole. A list that fits the buffer becomes two of them, which
/// then stay there from run to run. Else cores wait for the first segment in every run, all at once, so it is short.
fn segments(items: Vec<Item>) -> Vec<Vec<Item>> {
    // One word of a segment tells the length of the next.
    let limit_max = (SEGMENT_BUFFER_BYTES / 8) as usize - 1;
    let total: usize = items.iter().map(Item::word_count).sum();
    let largest = items.iter().map(Item::word_count).max().unwrap_or(0);
    // The run block comes to the end of the buffer; and an item may be left over at the end of the first half.
    let stays = total + largest + RUN_BLOCK_WORDS <= 2 * limit_max;
    let mut limit = if stays { limit_max } else { limit_max / 8 };
    let mut all = Vec::new();
    let mut segment = Vec::new();
    let mut used = 0;
    for item in items {
        let words = item.word_count();
        if used + words > limit && !segment.is_empty() {
            all.push(std::mem::take(&mut segment));
            used = 0;
            limit = (limit * 2).min(limit_max);
        }
        used += words;
        segment.push(item);
    }
    if !segment.is_empty() {
        all.push(segment);
    }
    all
}

/// What every stage of the plan costs, and every core, on a chip with `cores` cores.
fn stage_reports(
    lowered: &Lowered,
    cores: u32,
    samples_of: impl Fn(Program) -> u32,
) -> Result<(Vec<StageReport>, Vec<CoreReport>), CompileError> {
    let mut reports = Vec::new();
    let idle = CoreReport { core: 0, dtcm_bytes: 0, command_words: 0, cycles: Vec::new() };
    let mut loads = vec![idle; cores as usize];
    for (program, phases) in &lowered.programs {
        let samples_max = samples_of(*program);
        let name = match program {
            Program::Predict => "predict",
            Program::Train => "train",
            Program::Evaluate => "evaluate",
        };
        let chip = CoreSlot::new(0, cores, samples_max, true);
        loads.iter_mut().for_each(|load| load.cycles.push((name, 0)));
        for phase in phases {
            for (stage, emitted) in phase.stages.iter().zip(phase.emit(chip)?) {
                let mut report = StageReport {
                    program: name,
                    layer: stage.layer().into(),
                    what: stage.what(),
                    kernel: stage.kernel(chip),
                    cores: 0,
                    cycles_busiest: 0,
                    cycles_total: 0,
                    dma_bytes: 0,
                    dtcm_bytes: 0,
                    macs: stage.macs_per_sample() * u64::from(samples_max),
                };
                for (own, load) in emitted.into_iter().zip(&mut loads) {
                    let cost = tally(&own.items, samples_max);
                    report.cores += usize::from(!own.items.is_empty());
                    report.cycles_busiest = report.cycles_busiest.max(cost.kernel_cycles);
                    report.cycles_total += cost.kernel_cycles;
                    report.dma_bytes += cost.dma_bytes;
                    report.dtcm_bytes = report.dtcm_bytes.max(own.peak_bytes().into());
                    load.dtcm_bytes = load.dtcm_bytes.max(own.peak_bytes().into());
                    if let Some((_, cycles)) = load.cycles.last_mut() {
                        *cycles += cost.kernel_cycles;
                    }
                }
                reports.push(report);
            }
        }
    }
    Ok((reports, loads))
}
