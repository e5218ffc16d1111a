//! The end of a training step: gradients summed over the replicas, the optimizer at the root, new parameters to every chip.

use spidnn_core::command::{Command, EXCHANGE_SCRATCH_BYTES, Exchange, spacing_cycles};
use spidnn_graph::training::Clip;
use spidnn_kernels::call::{self, Fill, NONE, Norms, OptimizerStep, SumParts};

use super::{CoreSlot, Stage, blocks, share};
use crate::CompileError;
use crate::emit::{Emit, SCALARS, TAG_ONCE, TAG_WEIGHTS, run, step, transfer, wait, words};

/// Words that a slot takes in an exchange, a multiple of it but for the end of the vector: a burst of a transfer, and less is not worth a core's
/// way into the exchange.
const SHARE_WORDS: u32 = 16;

/// The part of a vector that a slot takes in an exchange. Even: cores share links by time, so who has less leaves the link idle.
pub fn exchange_share(total_words: u32, slot: u32, slots: u32) -> (u32, u32) {
    if slot >= slots {
        return (0, 0);
    }
    let (b0, b) = share(total_words.div_ceil(SHARE_WORDS), slot, slots);
    let start = (b0 * SHARE_WORDS).min(total_words);
    let end = ((b0 + b) * SHARE_WORDS).min(total_words);
    (start, end - start)
}

/// Which way vectors travel over the tree of replicas.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Sums to the root.
    Up,
    /// Copies from the root.
    Down,
}

/// A vector summed over or copied to the replicas.
#[derive(Debug, Clone)]
pub struct ExchangeStage {
    /// Layer, or the model.
    pub layer: String,
    /// What for.
    pub what: &'static str,
    /// SDRAM address.
    pub address: u32,
    /// Words.
    pub words: u32,
    /// Cores of every chip that take part.
    pub slots: u32,
    /// Direction.
    pub way: Way,
    /// Cycles that the slowest link on the way takes for a word.
    pub link_cycles: u32,
}

impl Stage for ExchangeStage {
    fn layer(&self) -> &str {
        &self.layer
    }
    fn what(&self) -> &'static str {
        self.what
    }
    fn kernel(&self, _: CoreSlot) -> String {
        match self.way {
            Way::Up => "ReduceUp".into(),
            Way::Down => "BroadcastDown".into(),
        }
    }
    fn emit(&self, core: CoreSlot) -> Result<Emit, CompileError> {
        let mut e = Emit::new(&self.layer, core);
        let (start, count) = exchange_share(self.words, core.slot, self.slots);
        if count == 0 {
            return Ok(e);
        }
        let scratch = e.alloc(EXCHANGE_SCRATCH_BYTES)?;
        let senders = (0..self.slots).filter(|&slot| exchange_share(self.words, slot, self.slots).1 > 0).count();
        let spacing_cycles = spacing_cycles(senders as u32, self.link_cycles);
        let exchange = Exchange {
            sdram: self.address + start * 4,
            words: count,
            scratch,
            scratch_bytes: EXCHANGE_SCRATCH_BYTES,
            spacing_cycles,
        };
        e.push(step(match self.way {
            Way::Up => Command::ReduceUp(exchange),
            Way::Down => Command::BroadcastDown(exchange),
        }));
        Ok(e)
    }
}

/// A parameter as the optimizer sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trained {
    /// First word in the vectors of parameters, gradients and state.
    pub first: u32,
    /// Words.
    pub words: u32,
}

/// The optimizer at the root chip, on vectors that hold all trained parameters.
#[derive(Debug, Clone)]
pub struct OptimizerStage {
    /// Name of the model.
    pub layer: String,
    /// Number of the rule ([`spidnn_kernels::Optimizer`]).
    pub kind: u32,
    /// SDRAM addresses: parameters, gradients.
    pub params: u32,
    /// Gradients.
    pub gradients: u32,
    /// State vectors `m`, `v`, `x`, where the rule has them.
    pub state: [Option<u32>; 3],
    /// Words of each vector.
    pub words: u32,
    /// Parameters, ascending.
    pub trained: Vec<Trained>,
    /// Clipping.
    pub clip: Clip,
    /// Weight decay applies.
    pub decay: bool,
    /// SDRAM address of a table with the sum of squares of each parameter's gradient (clipping by norm).
    pub norms: u32,
    /// Cores that the exchange deals the vector to.
    pub slots: u32,
}

/// Words of a piece that the optimizer works on, at most.
const PIECE_WORDS: u32 = 1024;
/// Words of a piece at least, and pieces of a slot from which on they are larger: nothing hides the way of the first piece from
/// the memory, nor that of the last one back, but each piece has its own commands.
const PIECE_WORDS_MIN: u32 = 256;
const PIECES: u32 = 14;

impl OptimizerStage {
    /// The pieces of a slot: start, words, and index of the parameter they belong to (clipping by norm needs that).
    fn pieces(&self, slot: u32) -> Vec<(u32, u32, usize)> {
        let (start, count) = exchange_share(self.words, slot, self.slots);
        let mut all = Vec::new();
        match self.clip {
            Clip::Norm(_) => {
                for (i, p) in self.trained.iter().enumerate() {
                    let from = p.first.max(start);
                    let to = (p.first + p.words).min(start + count);
                    if from < to {
                        all.extend(blocks(to - from, PIECE_WORDS).into_iter().map(|(o, n)| (from + o, n, i)));
                    }
                }
            }
            _ if count > 0 => {
                let piece = (count / PIECES).clamp(PIECE_WORDS_MIN, PIECE_WORDS);
                all.extend(blocks(count, piece).into_iter().map(|(o, n)| (start + o, n, 0)));
            }
            _ => {}
        }
        all
    }
}

impl Stage for OptimizerStage {
    fn layer(&self) -> &str {
        &self.layer
    }
    fn what(&self) -> &'static str {
        "optimizer"
    }
    fn kernel(&self, _: CoreSlot) -> String {
        match spidnn_kernels::Optimizer::from_number(self.kind) {
            Some(kind) => format!("OptimizerStep {kind:?}"),
            None => "OptimizerStep".into(),
        }
    }
    fn emit(&self, core: CoreSlot) -> Result<Emit, CompileError> {
        let mut e = Emit::new(&self.layer, core);
        if !core.root {
            return Ok(e);
        }
        // Pieces are fetched one ahead, and leave while the next one is computed: three sets of buffers for w, g, m, v, x, where
        // they fit.
        let vectors: Vec<u32> = [Some(self.params), Some(self.gradients), self.state[0], self.state[1], self.state[2]]
            .into_iter()
            .flatten()
            .collect();
        let set = vectors.len() as u32 * PIECE_WORDS * 4;
        let sets = if 3 * set + 64 <= core.buffer_bytes() { 3 } else { 2 };
        let base = e.alloc(sets * set)?;
        let squares = e.alloc_words(2)?;
        let pieces = self.pieces(core.slot);
        let at = |i: usize, v: usize| base + (i as u32 % sets) * set + v as u32 * PIECE_WORDS * 4;
        let tag = |i: usize| TAG_WEIGHTS + (i as u32 & 1);
        let out_tag = |i: usize| 2 + i as u32 % sets;
        let fetch = |e: &mut Emit, i: usize| {
            let (start, count, _) = pieces[i];
            for (v, address) in vectors.iter().enumerate() {
                e.push(transfer(words(false, address + start * 4, at(i, v), count, tag(i))));
            }
        };
        for i in 0..pieces.len() {
            if i == 0 {
                fetch(&mut e, 0);
            }
            if i + 1 < pieces.len() {
                e.push(wait(out_tag(i + 1)));
                fetch(&mut e, i + 1);
            }
            e.push(wait(tag(i)));
            let (start, count, param) = pieces[i];
            let g = at(i, 1);
            match self.clip {
                Clip::None => {}
                Clip::Value(limit) => {
                    e.push(run(call::Clip { mode: 1, x: g, count, limit_bits: limit.to_bits(), sum_squares: NONE }));
                }
                Clip::Norm(limit) | Clip::GlobalNorm(limit) => {
                    let entry = if matches!(self.clip, Clip::Norm(_)) { param } else { self.trained.len() };
                    e.fetch(words(false, self.norms + entry as u32 * 8, squares, 2, TAG_ONCE));
                    e.push(run(call::Clip { mode: 2, x: g, count, limit_bits: limit.to_bits(), sum_squares: squares }));
                }
            }
            let mut next = 2;
            let mut state = |present: Option<u32>| match present {
                Some(_) => {
                    next += 1;
                    at(i, next - 1)
                }
                None => NONE,
            };
            let (m, v, x) = (state(self.state[0]), state(self.state[1]), state(self.state[2]));
            e.push(run(OptimizerStep {
                kind: self.kind,
                w: at(i, 0),
                g,
                m,
                v,
                x,
                count,
                scalars: SCALARS,
                decay: self.decay.into(),
            }));
            for (v, address) in vectors.iter().enumerate().filter(|&(v, _)| v != 1) {
                e.push(transfer(words(true, address + start * 4, at(i, v), count, out_tag(i))));
            }
        }
        for tag in 0..sets as usize {
            e.push(wait(out_tag(tag)));
        }
        Ok(e)
    }
}

/// Sums of squares of the gradients at the root, for clipping by norm: one entry (two words) for each parameter.
#[derive(Debug, Clone)]
pub struct NormStage {
    /// The optimizer that they are for.
    pub of: OptimizerStage,
}

impl Stage for NormStage {
    fn layer(&self) -> &str {
        &self.of.layer
    }
    fn what(&self) -> &'static str {
        "gradient norms"
    }
    fn kernel(&self, _: CoreSlot) -> String {
        "Norms".into()
    }
    fn emit(&self, core: CoreSlot) -> Result<Emit, CompileError> {
        let mut e = Emit::new(&self.of.layer, core);
        if !core.root {
            return Ok(e);
        }
        let g = e.alloc_words(PIECE_WORDS)?;
        let out = e.alloc_words(2)?;
        for (i, p) in self.of.trained.iter().enumerate().filter(|(i, _)| *i as u32 % core.cores == core.slot) {
            e.push(run(Fill { dst: out, count: 2, value_bits: 0 }));
            for (o, n) in blocks(p.words, PIECE_WORDS) {
                e.fetch(words(false, self.of.gradients + (p.first + o) * 4, g, n, TAG_ONCE));
                e.push(run(Norms { x: g, count: n, out }));
            }
            e.push(transfer(words(true, self.of.norms + i as u32 * 8, out, 2, TAG_ONCE)));
            e.push(wait(TAG_ONCE));
        }
        Ok(e)
    }
}

/// The sum of all parameters' sums of squares, for clipping by the global norm: the entry after the parameters'.
#[derive(Debug, Clone)]
pub struct GlobalNormStage {
    /// The optimizer that it is for.
    pub of: OptimizerStage,
}

impl Stage for GlobalNormStage {
    fn layer(&self) -> &str {
        &self.of.layer
    }
    fn what(&self) -> &'static str {
        "global norm"
    }
    fn kernel(&self, _: CoreSlot) -> String {
        "SumParts".into()
    }
    fn emit(&self, core: CoreSlot) -> Result<Emit, CompileError> {
        let mut e = Emit::new(&self.of.layer, core);
        if !core.root || core.slot != 0 {
            return Ok(e);
        }
        let parts = self.of.trained.len() as u32;
        let src = e.alloc_words(parts * 2)?;
        let dst = e.alloc_words(2)?;
        e.fetch(words(false, self.of.norms, src, parts * 2, TAG_ONCE));
        e.push(run(SumParts { src, parts, stride: 2, count: 2, dst }));
        e.push(transfer(words(true, self.of.norms + parts * 8, dst, 2, TAG_ONCE)));
        e.push(wait(TAG_ONCE));
        Ok(e)
    }
}
