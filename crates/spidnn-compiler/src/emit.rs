//! Building command lists: steps with patches, local-memory allocation, and the unit loop that every stage is made of.

use spidnn_core::command::{Command, Dma, Item, Loop, Patch, Step, When, dma, loops, reg};
use spidnn_core::program::memory;
use spidnn_kernels::KernelCall;

use crate::CompileError;
use crate::stage::{CoreSlot, Fetched};

/// DTCM offset of the buffer for command segments.
pub const SEGMENT_BUFFER: u32 = memory::BUFFERS_END;
/// DTCM offset of the 16 scalars of a run.
pub const SCALARS: u32 = SEGMENT_BUFFER - 64;
/// Local memory for buffers of a stage.
pub const BUFFER_BYTES: u32 = SCALARS;
/// Bytes of the buffer for command segments (two halves).
pub const SEGMENT_BUFFER_BYTES: u32 = memory::SEGMENTS_END - memory::BUFFERS_END;

/// Tag of transfers that are waited for at once.
pub const TAG_ONCE: u32 = 8;
/// First of two tags for weights that a stage fetches one piece ahead.
pub const TAG_WEIGHTS: u32 = 10;
/// Tags for weights that are fetched during an earlier phase, in turn.
pub const TAGS_AHEAD: [u32; 3] = [9, 12, 13];

/// A tensor in SDRAM: one array of f32 for each sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tensor {
    /// Byte address of sample 0.
    pub address: u32,
    /// Words of a sample.
    pub words: u32,
    /// Bytes to add when the second input buffer is in use (model inputs and targets; else 0).
    pub toggle: i32,
}

impl Tensor {
    /// A tensor that exists once per sample of a run.
    pub fn new(address: u32, words: u32) -> Tensor {
        Tensor { address, words, toggle: 0 }
    }
    /// Bytes of a sample.
    pub fn stride(&self) -> u32 {
        self.words * 4
    }
}

/// Adding patches and conditions to steps.
pub trait StepExt: Sized {
    /// Adds `register * scale` to a word.
    fn at(self, word: u8, register: u8, scale: i32) -> Self;
    /// Sets the condition.
    fn when(self, when: When) -> Self;
}

impl StepExt for Step {
    fn at(mut self, word: u8, register: u8, scale: i32) -> Step {
        if scale != 0 {
            self.patches.push(Patch { word, register, scale });
        }
        self
    }
    fn when(mut self, when: When) -> Step {
        self.when = when;
        self
    }
}

/// A step without patches.
pub fn step(command: Command) -> Step {
    Step { command, when: When::Always, patches: Vec::new() }
}

/// A kernel.
pub fn run(call: impl Into<KernelCall>) -> Step {
    step(Command::Kernel(call.into()))
}

/// A wait for a tag.
pub fn wait(tag: u32) -> Step {
    step(Command::Wait { tag })
}

/// A transfer of one run of words.
pub fn words(out: bool, sdram: u32, dtcm: u32, count: u32, tag: u32) -> Dma {
    rows(out, sdram, dtcm, 1, count * 4, count * 4, count * 4, tag)
}

/// A transfer of rows without clamping.
pub fn rows(
    out: bool,
    sdram: u32,
    dtcm: u32,
    rows: u32,
    row_bytes: u32,
    sdram_stride: u32,
    dtcm_stride: u32,
    tag: u32,
) -> Dma {
    Dma { out: out.into(), sdram, dtcm, row_bytes, first: 0, rows, limit: rows, sdram_stride, dtcm_stride, tag }
}

/// A loop around what is done when the run says that what is kept must be fetched anew.
pub fn when_kept_is_stale(steps: Vec<Step>) -> Item {
    let header = Loop { depth: 0, start: 0, step: 1, total: 0, total_divisor: 1, divisor: 1, end: Loop::NO_END };
    let total = vec![Patch { word: loops::TOTAL, register: reg::FETCH_KEPT, scale: 1 }];
    Item::Loop(header, total, steps.into_iter().map(Item::Do).collect())
}

/// A transfer as a step.
pub fn transfer(dma: Dma) -> Step {
    step(Command::Dma(dma))
}

/// The same register, one turn later.
fn next_register(register: u8) -> u8 {
    match register {
        8..=11 | 16..=19 => reg::next(register),
        24 | 26 => register + 1,
        other => other,
    }
}

/// What a register has in the first turn of a loop, if it counts that loop's turns; or the samples, where there is one, unasked.
fn first_value(header: &Loop, unasked: bool, register: u8) -> Option<u32> {
    let depth = header.depth as u8;
    if unasked && register == reg::SAMPLES {
        Some(1)
    } else if register == reg::loop_index(depth) {
        Some(header.start)
    } else if register == reg::loop_sample(depth) {
        Some(header.start / header.divisor)
    } else if register == reg::loop_block(depth) {
        Some(header.start % header.divisor)
    } else if register == reg::loop_parity(depth) {
        Some(0)
    } else if register == reg::loop_count(depth) && header.total_divisor == 1 {
        Some(1)
    } else {
        None
    }
}

/// A step of a loop's first turn, patches by what the loop counts already applied.
fn counted(step: Step, header: &Loop, unasked: bool) -> Step {
    let mut counted = Step { patches: Vec::new(), ..step.clone() };
    for patch in step.patches {
        let added = first_value(header, unasked, patch.register).map(|value| value.wrapping_mul(patch.scale as u32));
        if !added.is_some_and(|added| add_to(&mut counted.command, patch.word, added)) {
            counted.patches.push(patch);
        }
    }
    clamp_fixed(&mut counted);
    counted
}

/// Cuts a transfer's rows to its limit in advance, where both are known.
fn clamp_fixed(step: &mut Step) {
    let fixed = |p: &Patch| matches!(p.word, dma::SDRAM | dma::DTCM | dma::TAG);
    let Command::Dma(dma) = &mut step.command else { return };
    if !step.patches.iter().all(fixed) {
        return;
    }
    let skipped = u32::try_from(-i64::from(dma.first)).unwrap_or(0).min(dma.rows);
    let first = dma.first.max(0) as u32;
    dma.rows = (dma.rows - skipped).min(dma.limit.saturating_sub(first));
    dma.sdram = dma.sdram.wrapping_add(first.wrapping_mul(dma.sdram_stride));
    dma.dtcm = dma.dtcm.wrapping_add(skipped.wrapping_mul(dma.dtcm_stride));
    (dma.first, dma.limit) = (0, dma.rows);
}

/// Adds to a word of a command, as a patch does; false where that cannot be done in advance.
fn add_to(command: &mut Command, word: u8, value: u32) -> bool {
    if value == 0 {
        return true;
    }
    match command {
        Command::Dma(dma) => dma.add(word, value),
        Command::Kernel(call) => {
            let mut words = [0u32; spidnn_kernels::call::CALL_WORDS_MAX];
            let count = call.encode(&mut words);
            let Some(patched) = words[..count].get_mut(usize::from(word)) else { return false };
            *patched = patched.wrapping_add(value);
            let Ok(patched) = KernelCall::decode(call.number(), &words[..count]) else { return false };
            *call = patched;
        }
        _ => return false,
    }
    true
}

/// One transfer of a unit loop: `patches` use the registers of the present turn.
#[derive(Debug, Clone)]
pub struct UnitTransfer {
    /// The transfer; `dtcm` is the first of the two buffers. The tag is set by the loop.
    pub dma: Dma,
    /// Patches for the present turn.
    pub patches: Vec<Patch>,
    /// Bytes between the two buffers (0: one buffer, no overlap).
    pub buffer_bytes: u32,
}

impl UnitTransfer {
    /// A transfer without patches.
    pub fn new(dma: Dma, buffer_bytes: u32) -> UnitTransfer {
        UnitTransfer { dma, patches: Vec::new(), buffer_bytes }
    }
    /// Adds `register * scale` to a word.
    pub fn at(mut self, word: u8, register: u8, scale: i32) -> UnitTransfer {
        if scale != 0 {
            self.patches.push(Patch { word, register, scale });
        }
        self
    }
    /// Follows the samples of a tensor: the loop's sample number and the input buffer in use.
    pub fn of(self, tensor: &Tensor, depth: u8) -> UnitTransfer {
        self.at(dma::SDRAM, reg::loop_sample(depth), tensor.stride() as i32).at(
            dma::SDRAM,
            reg::INPUT_BUFFER,
            tensor.toggle,
        )
    }
    /// The transfer in the present turn.
    pub fn present(&self, depth: u8, tag: u32) -> Step {
        self.step(depth, false, tag)
    }
    /// The transfer in the first turn of a loop, before the loop has begun; `None` if it depends on what the loop counts.
    fn first(&self, header: &Loop, unasked: bool) -> Option<Step> {
        let mut step = transfer(Dma { tag: header.depth * 4, ..self.dma });
        for patch in &self.patches {
            match first_value(header, unasked, patch.register) {
                Some(value) => {
                    let Command::Dma(dma) = &mut step.command else { return None };
                    dma.add(patch.word, value.wrapping_mul(patch.scale as u32));
                }
                None if patch.register <= reg::INVERSE_BATCH => step.patches.push(*patch),
                None => return None,
            }
        }
        clamp_fixed(&mut step);
        Some(step)
    }
    fn step(&self, depth: u8, next: bool, tag: u32) -> Step {
        let mut step = transfer(Dma { tag, ..self.dma });
        for patch in &self.patches {
            let register = if next { next_register(patch.register) } else { patch.register };
            step.patches.push(Patch { register, ..*patch });
        }
        if self.buffer_bytes != 0 {
            let parity = reg::loop_parity(depth);
            let parity = if next { reg::next(parity) } else { parity };
            step = step.at(dma::DTCM, parity, self.buffer_bytes as i32).at(dma::TAG, parity, 1);
        }
        step
    }
}

/// How a unit loop counts.
#[derive(Debug, Clone, Copy)]
pub struct Units {
    /// Depth of the loop.
    pub depth: u8,
    /// First unit of this core.
    pub start: u32,
    /// Distance to its next unit.
    pub step: u32,
    /// Units of each sample.
    pub per_sample: u32,
    /// Only units below this number.
    pub end: u32,
}

impl Units {
    /// Units dealt out to `of` cores, of which this is number `index`.
    pub fn dealt(index: u32, of: u32, per_sample: u32) -> Units {
        Units { depth: 0, start: index, step: of, per_sample, end: Loop::NO_END }
    }
}

/// The command list of one stage on one core, and the local memory it uses.
#[derive(Debug)]
pub struct Emit {
    /// Commands so far.
    pub items: Vec<Item>,
    /// Transfers that may begin with the phase before (see [`Emit::fetch_weights`]).
    pub ahead: Vec<Step>,
    /// Where among the items transfers for a later phase may begin without holding up this one.
    pub ahead_at: usize,
    held: Vec<Item>,
    layer: String,
    top: u32,
    peak: u32,
    end: u32,
    samples_max: u32,
    /// There is one sample, and nobody asks whether it is there (see [`CoreSlot::unasked`]).
    unasked: bool,
    /// What is done when the run says that what is kept must be fetched anew.
    pub kept: Vec<Step>,
}

impl Emit {
    /// An empty stage of a layer on a core.
    pub fn new(layer: &str, core: CoreSlot) -> Emit {
        let (top, end) = core.buffers;
        Emit {
            items: Vec::new(),
            ahead: Vec::new(),
            ahead_at: 0,
            held: Vec::new(),
            layer: layer.into(),
            top,
            peak: top,
            end,
            samples_max: core.samples_max,
            unasked: core.unasked && core.samples_max == 1,
            kept: Vec::new(),
        }
    }

    /// Stages of one phase, one after the other.
    pub fn joined(core: CoreSlot, stages: &[&Emit]) -> Emit {
        let mut all = Emit::new("", core);
        for stage in stages {
            all.items.extend(stage.items.iter().cloned());
            all.peak = all.peak.max(stage.peak);
        }
        all
    }

    /// Takes local memory (bytes, rounded up to words).
    pub fn alloc(&mut self, bytes: u32) -> Result<u32, CompileError> {
        let at = self.top;
        let needed = u64::from(at) + u64::from(bytes.next_multiple_of(8));
        if needed > u64::from(self.end) {
            return Err(CompileError::LayerTooLarge { layer: self.layer.clone(), needed, available: self.end.into() });
        }
        self.top = needed as u32;
        self.peak = self.peak.max(self.top);
        Ok(at)
    }

    /// Takes memory for `count` words.
    pub fn alloc_words(&mut self, count: u32) -> Result<u32, CompileError> {
        self.alloc(count.saturating_mul(4))
    }

    /// Memory in use, to give back with [`Emit::release`].
    pub fn mark(&self) -> u32 {
        self.top
    }

    /// Gives back what was taken since `mark`.
    pub fn release(&mut self, mark: u32) {
        self.top = mark;
    }

    /// Most memory that was in use.
    pub fn peak_bytes(&self) -> u32 {
        self.peak
    }

    /// Name of the layer.
    pub fn layer(&self) -> &str {
        &self.layer
    }

    /// Fetches weights and waits for them: at once, ahead of the stage, or only when the run says that what is kept must be
    /// fetched anew.
    pub fn fetch_weights(&mut self, fetched: Option<Fetched>, transfers: Vec<Dma>) {
        self.fetch_weights_and(fetched, transfers, Vec::new());
    }

    /// As [`Emit::fetch_weights`], with what is done to them once they are there.
    pub fn fetch_weights_and(&mut self, fetched: Option<Fetched>, transfers: Vec<Dma>, then: Vec<Step>) {
        let tag = match fetched {
            Some(Fetched::Ahead(tag)) => tag,
            _ => TAG_ONCE,
        };
        let mut steps: Vec<Step> = transfers.into_iter().map(|dma| transfer(Dma { tag, ..dma })).collect();
        match fetched {
            Some(Fetched::Kept) => {
                steps.push(wait(tag));
                steps.extend(then);
                self.kept.extend(steps);
            }
            Some(Fetched::Ahead(_)) => {
                self.ahead.extend(steps);
                self.push(wait(tag));
                then.into_iter().for_each(|step| self.push(step));
            }
            None => {
                steps.into_iter().for_each(|step| self.push(step));
                self.push(wait(tag));
                then.into_iter().for_each(|step| self.push(step));
            }
        }
    }

    /// Adds a command.
    pub fn push(&mut self, step: Step) {
        self.items.push(Item::Do(step));
    }

    /// Adds a transfer and waits for it.
    pub fn fetch(&mut self, dma: Dma) {
        self.push(transfer(Dma { tag: TAG_ONCE, ..dma }));
        self.push(wait(TAG_ONCE));
    }

    /// Adds a loop over units (see [`Units`]): inputs are fetched one turn ahead and results leave while the next turn
    /// computes, as far as their buffers are double.
    pub fn unit_loop(&mut self, units: Units, ins: &[UnitTransfer], compute: Vec<Step>, outs: &[UnitTransfer]) {
        let header = Loop {
            depth: units.depth.into(),
            start: units.start,
            step: units.step,
            total: 0,
            total_divisor: 1,
            divisor: units.per_sample,
            end: units.end,
        };
        let total = vec![Patch { word: loops::TOTAL, register: reg::SAMPLES, scale: units.per_sample as i32 }];
        self.pipeline(header, total, ins, compute, outs);
    }

    /// Adds any loop in the same manner.
    pub fn pipeline(
        &mut self,
        header: Loop,
        patches: Vec<Patch>,
        ins: &[UnitTransfer],
        compute: Vec<Step>,
        outs: &[UnitTransfer],
    ) {
        if self.turns_once(&header, &patches) {
            return self.single_turn(header, patches, ins, compute, outs);
        }
        let depth = header.depth as u8;
        let in_tag = header.depth * 4;
        let out_tag = in_tag + 2;
        let parity = reg::loop_parity(depth);
        let double_in = ins.iter().any(|t| t.buffer_bytes != 0);
        let double_out = outs.iter().any(|t| t.buffer_bytes != 0);
        let double = ins.iter().all(|t| t.buffer_bytes != 0);
        let early = double && self.fetch_first(&header, &patches, ins);
        self.items.append(&mut self.held);
        let mut body = Vec::new();
        let mut add = |s: Step| body.push(Item::Do(s));
        for t in ins {
            if t.buffer_bytes == 0 {
                add(t.step(depth, false, in_tag));
            } else if !early {
                add(t.step(depth, false, in_tag).when(When::First));
            }
        }
        for t in ins.iter().filter(|t| t.buffer_bytes != 0) {
            add(t.step(depth, true, in_tag).when(When::Next));
        }
        if !ins.is_empty() {
            // A single buffer uses the first tag, double buffers the tag of their parity.
            if ins.iter().any(|t| t.buffer_bytes == 0) {
                add(wait(in_tag));
            }
            if double_in {
                add(wait(in_tag).at(spidnn_core::command::WAIT_TAG, parity, 1));
            }
        }
        if !outs.is_empty() {
            if double_out {
                add(wait(out_tag).at(spidnn_core::command::WAIT_TAG, parity, 1));
            } else {
                add(wait(out_tag));
            }
        }
        for s in compute {
            add(s);
        }
        for t in outs {
            add(t.step(depth, false, out_tag));
        }
        self.items.push(Item::Loop(header, patches, body));
        if early {
            // A core without units must not leave with a transfer on its way.
            self.push(wait(in_tag));
        }
        if !outs.is_empty() {
            self.push(wait(out_tag));
            if double_out {
                self.push(wait(out_tag + 1));
            }
        }
    }

    /// Whether a loop has no second turn where a chip has one sample. (With more, training on the firmware was up to 2 % slower with such
    /// loops, so they stay as they are.)
    fn turns_once(&self, header: &Loop, patches: &[Patch]) -> bool {
        if self.samples_max != 1 {
            return false;
        }
        Self::turns_of_one(header, patches).is_some_and(|turns| header.start.saturating_add(header.step) >= turns)
    }

    /// What a loop over samples counts to where there is one; `None` for other loops.
    fn turns_of_one(header: &Loop, patches: &[Patch]) -> Option<u32> {
        let [Patch { word: loops::TOTAL, register: reg::SAMPLES, scale }] = *patches else { return None };
        let total = header.total.saturating_add(u32::try_from(scale).ok()?);
        Some(total.div_ceil(header.total_divisor).min(header.end))
    }

    /// A loop that has one turn or none: nothing is fetched for a next one, one buffer of each is in use, and what the loop counts is
    /// known.
    fn single_turn(
        &mut self,
        header: Loop,
        patches: Vec<Patch>,
        ins: &[UnitTransfer],
        compute: Vec<Step>,
        outs: &[UnitTransfer],
    ) {
        let single = |t: &UnitTransfer, tag: u32| {
            UnitTransfer { buffer_bytes: 0, ..t.clone() }.step(header.depth as u8, false, tag)
        };
        let (in_tag, out_tag) = (header.depth * 4, header.depth * 4 + 2);
        if self.unasked && header.start >= Self::turns_of_one(&header, &patches).unwrap_or(0) {
            self.items.append(&mut self.held);
            return;
        }
        let early = self.fetch_first(&header, &patches, ins);
        self.items.append(&mut self.held);
        let mut body = Vec::new();
        if early {
            self.push(wait(in_tag));
        } else if !ins.is_empty() {
            body.extend(ins.iter().map(|t| single(t, in_tag)));
            body.push(wait(in_tag));
        }
        body.extend(compute);
        body.extend(outs.iter().map(|t| single(t, out_tag)));
        let unasked = self.unasked;
        let body = body.into_iter().map(|step| Item::Do(counted(step, &header, unasked)));
        if unasked {
            self.items.extend(body);
        } else {
            let body = body.collect();
            self.items.push(Item::Loop(header, patches, body));
        }
        if !outs.is_empty() {
            self.push(wait(out_tag));
        }
    }

    /// Takes back what was added since `mark`: it follows when the next loop has asked for its first inputs.
    pub fn hold(&mut self, mark: usize) {
        self.held = self.items.split_off(mark);
    }

    /// Fetches the first inputs of a loop before it begins, so that what follows here (weights of a later phase) does not come
    /// before them. They are those of a run with all samples: with fewer, a core may fetch what it does not need.
    fn fetch_first(&mut self, header: &Loop, patches: &[Patch], ins: &[UnitTransfer]) -> bool {
        let fixed = patches.iter().all(|p| p.word == loops::TOTAL);
        let there = header.start < header.end && header.start / header.divisor < self.samples_max;
        let by_sample = header.total_divisor == 1;
        if ins.is_empty() || !fixed || (by_sample && !there) {
            return false;
        }
        let Some(steps) = ins.iter().map(|t| t.first(header, self.unasked)).collect::<Option<Vec<_>>>() else {
            return false;
        };
        steps.into_iter().for_each(|step| self.push(step));
        if self.ahead_at == 0 {
            self.ahead_at = self.items.len();
        }
        true
    }
}

/// What a command list costs: an upper bound without waiting.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Kernel cycles.
    pub kernel_cycles: u64,
    /// Cycles of the longest call.
    pub longest_kernel_cycles: u64,
    /// Bytes moved by DMA.
    pub dma_bytes: u64,
    /// Kernel calls.
    pub kernels: u64,
}

/// Walks a command list as a core would, for a run with `samples` samples on the chip.
pub fn tally(items: &[Item], samples: u32) -> Tally {
    let mut registers = [0u32; reg::COUNT];
    registers[usize::from(reg::SAMPLES)] = samples;
    let mut tally = Tally::default();
    walk(items, &mut registers, (true, true, true), &mut tally);
    tally
}

fn patched(value: u32, word: u8, patches: &[Patch], registers: &[u32]) -> u32 {
    patches
        .iter()
        .filter(|p| p.word == word)
        .fold(value, |v, p| v.wrapping_add(registers[usize::from(p.register)].wrapping_mul(p.scale as u32)))
}

fn walk(items: &[Item], registers: &mut [u32; reg::COUNT], turn: (bool, bool, bool), tally: &mut Tally) {
    let (first, next, last) = turn;
    for item in items {
        match item {
            Item::Do(s) => {
                let runs = match s.when {
                    When::Always => true,
                    When::First => first,
                    When::Next => next,
                    When::Last => last,
                };
                if !runs {
                    continue;
                }
                match &s.command {
                    Command::Dma(d) => {
                        let from = patched(d.first as u32, dma::FIRST, &s.patches, registers) as i32 as i64;
                        let count = i64::from(patched(d.rows, dma::ROWS, &s.patches, registers));
                        let limit = i64::from(patched(d.limit, dma::LIMIT, &s.patches, registers));
                        let rows = ((from + count).min(limit) - from.max(0)).max(0) as u64;
                        tally.dma_bytes += rows * u64::from(d.row_bytes);
                    }
                    Command::Kernel(call) => {
                        let mut words = [0u32; spidnn_kernels::call::CALL_WORDS_MAX];
                        let n = call.encode(&mut words);
                        for (i, word) in words[..n].iter_mut().enumerate() {
                            *word = patched(*word, i as u8, &s.patches, registers);
                        }
                        if let Ok(call) = KernelCall::decode(call.number(), &words[..n]) {
                            let cycles = call.cycles();
                            tally.kernel_cycles += cycles;
                            tally.longest_kernel_cycles = tally.longest_kernel_cycles.max(cycles);
                            tally.kernels += 1;
                        }
                    }
                    _ => {}
                }
            }
            Item::Loop(header, patches, body) => {
                let depth = header.depth as u8;
                let undivided = patched(header.total, loops::TOTAL, patches, registers);
                let start = patched(header.start, loops::START, patches, registers);
                let total = undivided.div_ceil(header.total_divisor).min(header.end);
                let mut index = start;
                let mut parity = 0;
                while index < total {
                    let base = usize::from(reg::loop_index(depth));
                    for (offset, i, p) in [(0, index, parity), (4, index.wrapping_add(header.step), 1 - parity)] {
                        registers[base + offset] = i;
                        registers[base + offset + 1] = i / header.divisor;
                        registers[base + offset + 2] = i % header.divisor;
                        registers[base + offset + 3] = p;
                        let left = undivided.saturating_sub(i.saturating_mul(header.total_divisor));
                        registers[usize::from(reg::loop_count(depth)) + offset / 4] = left.min(header.total_divisor);
                    }
                    let has_next = index + header.step < total;
                    walk(body, registers, (index == start, has_next, !has_next), tally);
                    index += header.step;
                    parity = 1 - parity;
                }
            }
        }
    }
}
