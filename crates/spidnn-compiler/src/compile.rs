//! The whole way: choose chips, lower, emit each core's programs, route, and place the images.

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use spidnn_core::command::{Command, Item, Step, When};
use spidnn_core::program::{CoreConfig, CoreImage};
use spidnn_graph::Graph;
use spinnaker_machine::{ChipXy, Machine, SDRAM_USER_BASE};

use crate::CompileError;
use crate::emit::{BUFFER_BYTES, Emit, SCALARS, SEGMENT_BUFFER, SEGMENT_BUFFER_BYTES, TAGS_AHEAD, tally};
use crate::lower::{CORES_MAX, Lowered, Target, lower};
use crate::plan::{self, ChipImage, Compiled, Layout, Options, Program};
use crate::report::{Report, StageReport, memory_cycles};
use crate::route::{self, ReplicaTree, RouteError};
use crate::stage::phase::Phase;
use crate::stage::{CoreSlot, Fetched, Stage, Weights};

/// Programs by their numbers.
const PROGRAMS: [Program; 3] = [Program::Predict, Program::Train, Program::Evaluate];

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
        let of = |program: Program| CoreSlot { samples_max: samples[program as usize], ..who };
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

/// The phases of a core with their weights at the top of local memory; `None` if something does not fit.
fn emit_keeping(phases: &[Phase], core: CoreSlot) -> Option<Vec<Vec<Item>>> {
    let stages = || phases.iter().flat_map(|phase| &phase.stages);
    let size = |stage: &dyn Stage| if stage.keeps_weights() { stage.weight_bytes(core).next_multiple_of(8) } else { 0 };
    let all: u64 = stages().map(|stage| u64::from(size(stage.as_ref()))).sum();
    if all == 0 || all > u64::from(BUFFER_BYTES) / 2 {
        return None;
    }
    let buffers = (0, BUFFER_BYTES - all as u32);
    let mut at = buffers.1;
    let mut emitted = Vec::new();
    for phase in phases {
        let mut items = Vec::new();
        for stage in &phase.stages {
            let bytes = size(stage.as_ref());
            let weights = (bytes > 0).then_some(Weights { at, fetched: Fetched::Kept });
            items.extend(stage.emit(CoreSlot { weights, buffers, ..core }).ok()?.items);
            at += bytes;
        }
        emitted.push(items);
    }
    Some(emitted)
}

/// Cycles of a phase's longest kernel: transfers for a later phase that take no longer come while it is computed, and hold up
/// none of the inputs that are fetched behind them.
fn longest_kernel_cycles(stages: &[Vec<Emit>], chip: CoreSlot) -> u64 {
    let own = stages.iter().flatten().map(|own| tally(&own.items, chip.samples_max).longest_kernel_cycles);
    own.max().unwrap_or(0) / 4
}

/// Weights of a phase that are fetched ahead.
#[derive(Debug, Clone, Copy)]
struct Ahead {
    /// The phase that needs them.
    phase: usize,
    bytes: u32,
    /// They are not fetched before this phase.
    earliest: usize,
}

/// How many phases before they are needed weights may be fetched.
const PHASES_AHEAD: usize = 16;

/// The phases of a core, with weights fetched ahead where there is room. `plain`: the phases as they are without; `room`: cycles of
/// transfers for others that each leaves time for.
fn emit_ahead(phases: &[Phase], core: CoreSlot, plain: &[Vec<Vec<Emit>>], room: &[u64]) -> Vec<Vec<Item>> {
    let mut all: Vec<Ahead> = Vec::new();
    for (phase, of) in phases.iter().enumerate() {
        // (The first phase has none before it, and those of several stages fetch for themselves.)
        if let ([stage], true) = (&of.stages[..], phase > 0) {
            let bytes = stage.weight_bytes(core).next_multiple_of(8);
            if bytes > 0 {
                all.push(Ahead { phase, bytes, earliest: phase.saturating_sub(PHASES_AHEAD) });
            }
        }
    }
    loop {
        match try_ahead(phases, core, plain, room, &all) {
            Ok(emitted) => return emitted,
            // No room beside that phase: the weights come after it, or when they are needed.
            Err((number, phase)) => {
                all[number].earliest = phase + 1;
                if all[number].earliest >= all[number].phase {
                    all.remove(number);
                }
            }
        }
    }
}

/// The largest part of local memory beside places that are taken.
fn largest_gap(taken: impl Iterator<Item = (u32, u32)>) -> (u32, u32) {
    let mut taken: Vec<(u32, u32)> = taken.chain([(BUFFER_BYTES, 0)]).collect();
    taken.sort_unstable();
    let (mut best, mut end) = ((0, 0), 0);
    for (at, bytes) in taken {
        if at.saturating_sub(end) > best.1 - best.0 {
            best = (end, at);
        }
        end = end.max(at + bytes);
    }
    best
}

/// As [`emit_ahead`] with these weights; or the number of those for which there is no room, and the phase that lacks it.
fn try_ahead(
    phases: &[Phase],
    core: CoreSlot,
    plain: &[Vec<Vec<Emit>>],
    room: &[u64],
    all: &[Ahead],
) -> Result<Vec<Vec<Item>>, (usize, usize)> {
    // Each is fetched during the nearest phase before that leaves time enough, or else the one that leaves most.
    let mut room = room.to_vec();
    let mut hosts = Vec::new();
    let mut places: Vec<u32> = Vec::new();
    for (number, ahead) in all.iter().enumerate() {
        let needed = memory_cycles(u64::from(ahead.bytes) * u64::from(core.cores));
        let candidates = || (ahead.earliest..ahead.phase).rev();
        let most = candidates().max_by_key(|&p| (room[p], p)).unwrap_or(ahead.phase - 1);
        let host = candidates().find(|&p| room[p] >= needed).unwrap_or(most);
        room[host] = room[host].saturating_sub(needed);
        // The lowest place that no others hold meanwhile.
        let meanwhile = |other: usize| hosts[other] <= ahead.phase && host <= all[other].phase;
        let mut at = 0;
        let mut others: Vec<usize> = (0..number).filter(|&other| meanwhile(other)).collect();
        others.sort_by_key(|&other| places[other]);
        for other in others {
            if places[other] < at + ahead.bytes && at < places[other] + all[other].bytes {
                at = places[other] + all[other].bytes;
            }
        }
        hosts.push(host);
        places.push(at);
    }
    let mut emitted: Vec<Emit> = Vec::new();
    for (phase, of) in phases.iter().enumerate() {
        let present = || (0..all.len()).filter(|&n| (hosts[n]..=all[n].phase).contains(&phase));
        let buffers = largest_gap(present().map(|n| (places[n], all[n].bytes)));
        // The one to give way: of those for other phases the largest, else its own.
        let largest = present().max_by_key(|&n| (all[n].phase != phase, all[n].bytes));
        let plain_stages: Vec<&Emit> = plain[phase].iter().map(|slots| &slots[core.slot as usize]).collect();
        let one = match &of.stages[..] {
            [stage] => {
                let weights = present()
                    .find(|&n| all[n].phase == phase)
                    .map(|n| Weights { at: places[n], fetched: Fetched::Ahead(TAGS_AHEAD[n % TAGS_AHEAD.len()]) });
                stage.emit(CoreSlot { weights, buffers, ..core }).ok()
            }
            // Several stages have been made for memory from the start.
            _ => (plain_stages.iter().all(|e| e.peak_bytes() <= buffers.1) && buffers.0 == 0)
                .then(|| Emit::joined(core, &plain_stages)),
        };
        match (one, largest) {
            (Some(one), _) => emitted.push(one),
            (None, Some(largest)) => return Err((largest, phase)),
            (None, None) => emitted.push(Emit::joined(core, &plain_stages)),
        }
    }
    // Insertion moves what follows: the transfers of a host together.
    for host in 0..phases.len() {
        let mut steps = Vec::new();
        for number in (0..all.len()).filter(|&n| hosts[n] == host) {
            steps.extend(std::mem::take(&mut emitted[all[number].phase].ahead).into_iter().map(Item::Do));
        }
        let at = emitted[host].ahead_at;
        emitted[host].items.splice(at..at, steps);
    }
    Ok(emitted.into_iter().map(|e| e.items).collect())
}

/// Cuts a list into segments that fit half the segment buffer; a loop stays whole. Cores wait for the first segment all at once, so
/// it is short.
fn segments(items: Vec<Item>) -> Vec<Vec<Item>> {
    // One word of a segment tells the length of the next.
    let limit_max = (SEGMENT_BUFFER_BYTES / 8) as usize - 1;
    let mut limit = limit_max / 8;
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

/// What every core of the plan costs, stage by stage, on a chip with `cores` cores.
fn stage_reports(
    lowered: &Lowered,
    cores: u32,
    samples_of: impl Fn(Program) -> u32,
) -> Result<Vec<StageReport>, CompileError> {
    let mut reports = Vec::new();
    for (program, phases) in &lowered.programs {
        let samples_max = samples_of(*program);
        let name = match program {
            Program::Predict => "predict",
            Program::Train => "train",
            Program::Evaluate => "evaluate",
        };
        let chip = CoreSlot::new(0, cores, samples_max, true);
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
                for own in emitted {
                    let cost = tally(&own.items, samples_max);
                    report.cores += usize::from(!own.items.is_empty());
                    report.cycles_busiest = report.cycles_busiest.max(cost.kernel_cycles);
                    report.cycles_total += cost.kernel_cycles;
                    report.dma_bytes += cost.dma_bytes;
                    report.dtcm_bytes = report.dtcm_bytes.max(own.peak_bytes().into());
                }
                reports.push(report);
            }
        }
    }
    Ok(reports)
}
