//! The whole way: choose chips, lower, emit each core's programs, route, and place the images.

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use spidnn_core::command::{Command, Item, Step, When};
use spidnn_core::program::{CoreConfig, CoreImage};
use spidnn_graph::Graph;
use spinnaker_machine::{ChipXy, Machine, SDRAM_USER_BASE};

use crate::CompileError;
use crate::emit::{BUFFER_BYTES, Emit, SCALARS, SEGMENT_BUFFER, SEGMENT_BUFFER_BYTES, tally};
use crate::lower::{CORES_MAX, Lowered, Target, lower};
use crate::plan::{ChipImage, Compiled, Layout, Options, Program};
use crate::report::{Report, StageReport};
use crate::route::{self, ReplicaTree, RouteError};
use crate::stage::{CoreSlot, Kept, Stage};

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
    let target = Target { samples_max, replicas: replicas.chips.len() as u32, exchange_slots, base: SDRAM_USER_BASE };
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
    let data_bytes = lowered.memory.end() - u64::from(SDRAM_USER_BASE);
    if data_bytes > available {
        return Err(too_large(data_bytes));
    }

    // Command lists depend on the number of cores, the slot, and whether the chip is the root: chips share them.
    let mut lists: HashMap<(u32, u32, bool), Rc<Programs>> = HashMap::new();
    let mut chips = BTreeMap::new();
    let nets = route::nets_for(&replicas.tree, &cores, exchange_slots as usize)?;
    let tables = route::route(machine, &nets)?;
    let mut command_words = 0;
    let mut image_bytes_max = 0;
    for &xy in &replicas.chips {
        let own = &cores[&xy];
        let mut sdram = Vec::new();
        let mut start = Vec::new();
        let mut next = lowered.memory.end();
        for (slot, &core) in own.iter().enumerate() {
            let who =
                CoreSlot { slot: slot as u32, cores: own.len() as u32, samples_max, root: xy == root, kept: None };
            let of = |program| CoreSlot { samples_max: samples_of(program), ..who };
            let key = (who.cores, who.slot, who.root);
            let programs = match lists.get(&key) {
                Some(programs) => Rc::clone(programs),
                None => {
                    let programs = Rc::new(emit_programs(&lowered, of)?);
                    lists.insert(key, Rc::clone(&programs));
                    programs
                }
            };
            let config = config_of(&replicas.tree, &cores, xy, slot, exchange_slots as usize, lowered.run_block)?;
            let image = CoreImage { config, programs: programs.as_ref().clone() };
            let words = image.encode().map_err(|e| CompileError::Encode { chip: xy, core, reason: e.to_string() })?;
            command_words = command_words.max(words.len());
            let address = next as u32;
            next += (words.len() as u64 * 4).next_multiple_of(16);
            sdram.push((address, words));
            start.push((core, address));
        }
        let needed = next - u64::from(SDRAM_USER_BASE);
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

    let mut sdram_bytes = lowered.memory.used.clone();
    sdram_bytes.push(("command lists".into(), image_bytes_max));
    let report = Report {
        model: graph.name.clone(),
        chips: replicas.chips.len(),
        cores: cores.values().map(Vec::len).sum(),
        samples_per_chip: samples_max as usize,
        stages: stage_reports(&lowered, cores[&root].len() as u32, samples_of)?,
        sdram_bytes,
        sdram_available_bytes: available,
        routing_entries: tables.entries_max(),
        command_words,
    };
    let layout = Layout {
        samples_max: samples_of(Program::Predict) as usize,
        training_samples_max: if options.training.is_some() { samples_of(Program::Train) as usize } else { 0 },
        inputs: lowered.inputs,
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
    Ok(Compiled { replicas: replicas.chips, chips, layout, report })
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

/// The command lists of one core: a barrier after every stage.
fn emit_programs(lowered: &Lowered, of: impl Fn(Program) -> CoreSlot) -> Result<Programs, CompileError> {
    let mut programs: Programs = vec![Vec::new(); 3];
    for (program, stages) in &lowered.programs {
        let who = of(*program);
        // Predictions keep their weights in local memory from run to run, where all of them fit beside the buffers.
        let emitted = match program {
            Program::Predict => emit_keeping(stages, who),
            _ => None,
        };
        let emitted = match emitted {
            Some(emitted) => emitted,
            None => stages.iter().map(|stage| stage.emit(who)).collect::<Result<Vec<_>, _>>()?,
        };
        let mut items = Vec::new();
        for stage in emitted {
            items.extend(stage.items);
            items.push(Item::Do(Step { command: Command::Barrier, when: When::Always, patches: Vec::new() }));
        }
        programs[*program as usize] = segments(items);
    }
    Ok(programs)
}

/// The stages with their weights at the top of local memory; `None` if something does not fit.
fn emit_keeping(stages: &[Box<dyn Stage>], who: CoreSlot) -> Option<Vec<Emit>> {
    let sizes: Vec<u32> = stages.iter().map(|s| s.kept_bytes(who).next_multiple_of(8)).collect();
    let all: u64 = sizes.iter().map(|&s| u64::from(s)).sum();
    if all == 0 || all > u64::from(BUFFER_BYTES) / 2 {
        return None;
    }
    let buffers_end = BUFFER_BYTES - all as u32;
    let mut at = buffers_end;
    let mut emitted = Vec::new();
    for (stage, size) in stages.iter().zip(sizes) {
        let emit = stage.emit(CoreSlot { kept: Some(Kept { at, buffers_end }), ..who }).ok()?;
        // Stages that know nothing of it may have used memory that is not theirs.
        if emit.peak_bytes() > buffers_end {
            return None;
        }
        emitted.push(emit);
        at += size;
    }
    Some(emitted)
}

/// Cuts a list into segments that fit half the segment buffer; a loop stays whole.
fn segments(items: Vec<Item>) -> Vec<Vec<Item>> {
    // One word of a segment tells the length of the next.
    let limit = (SEGMENT_BUFFER_BYTES / 8) as usize - 1;
    let mut all = Vec::new();
    let mut segment = Vec::new();
    let mut used = 0;
    for item in items {
        let words = item.word_count();
        if used + words > limit && !segment.is_empty() {
            all.push(std::mem::take(&mut segment));
            used = 0;
        }
        used += words;
        segment.push(item);
    }
    if !segment.is_empty() {
        all.push(segment);
    }
    all
}

/// What every core of the plan costs, stage by stage, on a chip with `cores` cores.
fn stage_reports(
    lowered: &Lowered,
    cores: u32,
    samples_of: impl Fn(Program) -> u32,
) -> Result<Vec<StageReport>, CompileError> {
    let mut reports = Vec::new();
    for (program, stages) in &lowered.programs {
        let samples_max = samples_of(*program);
        let name = match program {
            Program::Predict => "predict",
            Program::Train => "train",
            Program::Evaluate => "evaluate",
        };
        for stage in stages {
            let mut report = StageReport {
                program: name,
                layer: stage.layer().into(),
                what: stage.what(),
                kernel: stage.kernel(CoreSlot { slot: 0, cores, samples_max, root: true, kept: None }),
                cores: 0,
                cycles_busiest: 0,
                cycles_total: 0,
                dma_bytes: 0,
                dtcm_bytes: 0,
                macs: stage.macs_per_sample() * u64::from(samples_max),
            };
            for slot in 0..cores {
                let emitted = stage.emit(CoreSlot { slot, cores, samples_max, root: true, kept: None })?;
                let cost = tally(&emitted.items, samples_max);
                report.cores += usize::from(!emitted.items.is_empty());
                report.cycles_busiest = report.cycles_busiest.max(cost.kernel_cycles);
                report.cycles_total += cost.kernel_cycles;
                report.dma_bytes += cost.dma_bytes;
                report.dtcm_bytes = report.dtcm_bytes.max(emitted.peak_bytes().into());
            }
            reports.push(report);
        }
    }
    Ok(reports)
}
