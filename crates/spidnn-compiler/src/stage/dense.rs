//! Dense layers: matrix products over the rows (samples, or samples times positions) of a run.

use spidnn_core::command::{Dma, Item, Loop, Patch, dma, loops, reg};
use spidnn_kernels::call::{
    BiasAct, ColumnSum, Fill, Gemm, NONE, Prep2d, SumParts, bias_act, column_sum, gemm, prep2d,
};

use super::phase::{level, rank};
use super::{CoreSlot, FusedActivation, Mantissas, Stage, blocks, share, share_pairs};
use crate::CompileError;
use crate::emit::{
    BUFFER_BYTES, Emit, StepExt, TAG_ONCE, TAG_WEIGHTS, Tensor, UnitTransfer, rows, run, transfer, wait, words,
};

/// Terms of a sum that share exponents (format `f32`).
pub const BLOCK_TERMS: u32 = 512;
/// Rows of a block of rows at most: the gradient's sum over them is one exact sum.
const BLOCK_ROWS: u32 = 64;

/// `c = act(a . w + bias)`, or with `transposed` weights the gradient of the input.
#[derive(Debug, Clone)]
pub struct DenseProduct {
    /// Layer.
    pub layer: String,
    /// What for.
    pub what: &'static str,
    /// Left operand: rows of `terms` words.
    pub a: Tensor,
    /// Result: rows of `outputs` words.
    pub c: Tensor,
    /// Operands.
    pub mantissas: Mantissas,
    /// Rows of each sample.
    pub rows_per_sample: u32,
    /// Terms of each sum.
    pub terms: u32,
    /// Columns of the result.
    pub outputs: u32,
    /// SDRAM address of the weights: `[terms][outputs]`, or transposed `[outputs][terms]`.
    pub weights: u32,
    /// SDRAM address of the exponents `[blocks][outputs]` of weights that are mantissas already.
    pub prepared_exponents: Option<u32>,
    /// Which.
    pub transposed: bool,
    /// SDRAM address of the bias.
    pub bias: Option<u32>,
    /// Activation.
    pub activation: FusedActivation,
}

/// Tile sizes of a core.
#[derive(Debug, Clone, Copy)]
struct Tile {
    rows: u32,
    columns: u32,
}

impl DenseProduct {
    /// Blocks of terms that share exponents.
    fn term_blocks(&self) -> Vec<(u32, u32)> {
        self.mantissas.blocks(self.terms, BLOCK_TERMS)
    }

    /// Words of so many terms of a column of weights as they come from SDRAM.
    fn stored(&self, terms: u32) -> u32 {
        if self.prepared_exponents.is_some() { self.mantissas.words(terms) } else { terms }
    }

    /// Words of the memory for buffers that a tile needs; `placed`: its weights have a place elsewhere.
    fn words(&self, own: u32, tile: Tile, placed: bool) -> u64 {
        let block = u64::from(self.term_blocks()[0].1);
        let chunks = own.div_ceil(tile.columns);
        let steps = u64::from(chunks) * self.term_blocks().len() as u64;
        let (rows, columns) = (u64::from(tile.rows), u64::from(tile.columns));
        let (raw, buffers) = match (steps, placed) {
            (1, true) => (0, 2),
            (1, false) => (1, 2),
            _ => (2, 1),
        };
        let prepared = u64::from(self.transposed);
        buffers * (rows * block + rows * u64::from(own))
            + rows
            + (raw + prepared) * block * columns
            + 2 * columns
            + u64::from(own)
            + 16
    }

    /// The tile that costs least among those that fit.
    fn tile(&self, own: u32, core: CoreSlot) -> Result<Tile, CompileError> {
        let rows_max = core.samples_max * self.rows_per_sample;
        let placed = core.weights.is_some();
        let mut best: Option<(u64, Tile)> = None;
        let mut smallest = u64::MAX;
        for tile_rows in [64, 48, 40, 32, 24, 20, 16, 12, 10, 8, 6, 4, 2, 1] {
            let tile_rows = rows_max.min(tile_rows);
            for columns in [own, 64, 48, 32, 24, 16, 12, 8, 6, 4, 2, 1] {
                let tile = Tile { rows: tile_rows, columns: columns.min(own) };
                let bytes = self.words(own, tile, placed) * 4;
                smallest = smallest.min(bytes);
                if bytes > u64::from(core.buffer_bytes()) || (placed && tile.columns < own) {
                    continue;
                }
                let chunks = u64::from(own.div_ceil(tile.columns));
                let turns = u64::from(rows_max.div_ceil(tile.rows));
                let prepared_once = chunks == 1 && self.terms <= BLOCK_TERMS;
                let weights =
                    if self.prepared_exponents.is_some() { 0 } else { u64::from(self.terms) * u64::from(own) * 12 };
                let inputs = u64::from(self.terms) * u64::from(tile.rows) * 10;
                let product = u64::from(self.terms)
                    * u64::from(own.next_multiple_of(2))
                    * u64::from(tile.rows.next_multiple_of(2))
                    * 4;
                // All cores fetch their first rows at once, and nothing but the weights' preparation hides that.
                let first = u64::from(tile.rows) * u64::from(self.terms) * 4 * u64::from(core.cores) * 10 / 32;
                let cost = turns * (inputs + product + chunks * 600)
                    + if prepared_once { weights.max(first) } else { turns * (weights + first) };
                if best.is_none_or(|(c, _)| cost < c) {
                    best = Some((cost, tile));
                }
            }
        }
        best.map(|(_, tile)| tile).ok_or_else(|| CompileError::LayerTooLarge {
            layer: self.layer.clone(),
            needed: smallest,
            available: core.buffer_bytes().into(),
        })
    }
}

impl Stage for DenseProduct {
    fn layer(&self) -> &str {
        &self.layer
    }
    fn what(&self) -> &'static str {
        self.what
    }
    fn kernel(&self, core: CoreSlot) -> String {
        let own = share_pairs(self.outputs, 0, core.cores).1;
        match self.tile(own, core) {
            Ok(tile) => format!("Gemm {}x{}x{}", tile.rows, self.terms, own),
            Err(_) => "Gemm".into(),
        }
    }
    fn macs_per_sample(&self) -> u64 {
        u64::from(self.rows_per_sample) * u64::from(self.terms) * u64::from(self.outputs)
    }

    fn weight_bytes(&self, core: CoreSlot) -> u32 {
        let own = share_pairs(self.outputs, core.slot, core.cores).1;
        if own == 0 || self.terms > BLOCK_TERMS {
            return 0;
        }
        match self.tile(own, CoreSlot::new(core.slot, core.cores, core.samples_max, core.root)) {
            // What is prepared needs no memory beside it: all of it can be there at once.
            Ok(tile) if tile.columns == own || self.prepared_exponents.is_some() => {}
            _ => return 0,
        }
        // Weights, exponents, bias.
        (self.stored(self.terms) + 2) * own * 4
    }

    fn keeps_weights(&self) -> bool {
        self.prepared_exponents.is_some()
    }

    fn emit(&self, core: CoreSlot) -> Result<Emit, CompileError> {
        let mut e = Emit::new(&self.layer, core);
        let (n0, own) = share_pairs(self.outputs, core.slot, core.cores);
        if own == 0 {
            return Ok(e);
        }
        let placed = core.weights.filter(|_| self.weight_bytes(core) > 0);
        let tile = self.tile(own, CoreSlot { weights: placed, ..core })?;
        let term_blocks = self.term_blocks();
        let block = term_blocks[0].1;
        let chunks = blocks(own, tile.columns);
        let hoisted = chunks.len() == 1 && term_blocks.len() == 1;

        // With all weights at hand rows come and go while others are multiplied.
        let bytes = |words: u32| (words * 4).next_multiple_of(8);
        let toggle = |words: u32| if hoisted { bytes(words) } else { 0 };
        let (a_toggle, c_toggle) = (toggle(tile.rows * block), toggle(tile.rows * own));
        let a = e.alloc(bytes(tile.rows * block) + a_toggle)?;
        let a_exps = e.alloc_words(tile.rows)?;
        let c = e.alloc(bytes(tile.rows * own) + c_toggle)?;
        let chunk_bytes = (block * tile.columns * 4).next_multiple_of(8);
        let raw = match placed {
            Some(placed) => placed.at,
            None => e.alloc(if hoisted { chunk_bytes } else { 2 * chunk_bytes })?,
        };
        let prepared = if self.transposed { e.alloc(chunk_bytes)? } else { NONE };
        let w_exps = match placed {
            Some(placed) => placed.at + self.stored(self.terms) * own * 4,
            None => e.alloc_words(2 * tile.columns)?,
        };
        // Exponents that come with their mantissas alternate as these do.
        let exps = |i: usize| match self.prepared_exponents {
            Some(_) if !hoisted => w_exps + (i as u32 & 1) * tile.columns * 4,
            _ => w_exps,
        };
        let mut fetches = Vec::new();
        let bias = match self.bias {
            Some(address) => {
                let at = match placed {
                    Some(placed) => placed.at + (self.stored(self.terms) + 1) * own * 4,
                    None => e.alloc_words(own)?,
                };
                fetches.push(words(false, address + n0 * 4, at, own, 0));
                at
            }
            None => NONE,
        };

        // Weights of step `i` (block of terms, chunk of columns) go to one of two buffers.
        let steps: Vec<_> =
            term_blocks.iter().flat_map(|&(k0, k)| chunks.iter().map(move |&(j0, j)| (k0, k, j0, j))).collect();
        let buffer = |i: usize| raw + if hoisted { 0 } else { (i as u32 & 1) * chunk_bytes };
        let tag = |i: usize| TAG_WEIGHTS + (i as u32 & 1);
        let fetch = |i: usize| {
            let (k0, k, j0, j) = steps[i];
            let mut all = Vec::new();
            if let Some(address) = self.prepared_exponents {
                let block_number = (i / chunks.len()) as u32;
                let from = address + (block_number * self.outputs + n0 + j0) * 4;
                all.push(words(false, from, exps(i), j, tag(i)));
            }
            let transferred = if self.transposed {
                let from = self.weights + ((n0 + j0) * self.terms + k0) * 4;
                rows(false, from, buffer(i), j, k * 4, self.terms * 4, k * 4, tag(i))
            } else {
                let from = self.weights + (self.stored(k0) * self.outputs + n0 + j0) * 4;
                rows(false, from, buffer(i), self.stored(k), j * 4, self.outputs * 4, j * 4, tag(i))
            };
            all.push(transferred);
            all
        };
        let prepare = |i: usize| {
            let (_, k, _, j) = steps[i];
            let src = buffer(i);
            if self.prepared_exponents.is_some() {
                return None;
            }
            let (call, pair_rows) = if self.transposed {
                // [columns][terms] becomes [terms][columns]; one exponent for each column of the product.
                let call = Prep2d {
                    src,
                    rows: j,
                    cols: k,
                    src_stride: k,
                    dst: prepared,
                    dst_row_stride: 1,
                    dst_col_stride: j,
                    exps: w_exps,
                    axis: 1,
                };
                (call, 0)
            } else {
                let call = Prep2d {
                    src,
                    rows: k,
                    cols: j,
                    src_stride: j,
                    dst: src,
                    dst_row_stride: j,
                    dst_col_stride: 1,
                    exps: w_exps,
                    axis: 2,
                };
                (call, k)
            };
            Some(run(self.mantissas.prepare(call, pair_rows)))
        };
        let count = reg::loop_count(0);
        let index = reg::loop_index(0);
        let parity = reg::loop_parity(0);
        // Rows of the left operand and of the result, of the turn that is going on.
        let range = |d: Dma, buffer_bytes: u32, toggle: i32| {
            UnitTransfer::new(Dma { limit: 0, ..d }, buffer_bytes)
                .at(dma::FIRST, index, tile.rows as i32)
                .at(dma::LIMIT, reg::SAMPLES, self.rows_per_sample as i32)
                .at(dma::SDRAM, reg::INPUT_BUFFER, toggle)
        };
        let operand = |k0: u32, k: u32| {
            let d = rows(false, self.a.address + k0 * 4, a, tile.rows, k * 4, self.terms * 4, k * 4, 0);
            range(d, a_toggle, self.a.toggle)
        };
        let result = rows(true, self.c.address + n0 * 4, c, tile.rows, own * 4, self.outputs * 4, own * 4, 0);
        let result = range(result, c_toggle, 0);
        let prepare_operand = |k: u32| {
            let call = Prep2d {
                src: a,
                rows: 0,
                cols: k,
                src_stride: k,
                dst: a,
                dst_row_stride: self.mantissas.words(k),
                dst_col_stride: 1,
                exps: a_exps,
                axis: 1,
            };
            run(self.mantissas.prepare(call, 0))
                .at(prep2d::src, parity, a_toggle as i32)
                .at(prep2d::dst, parity, a_toggle as i32)
                .at(prep2d::rows, count, 1)
        };
        let multiply = |i: usize| {
            let (k0, k, j0, j) = steps[i];
            let b = if self.transposed { prepared } else { buffer(i) };
            let call = Gemm {
                a,
                a_exps,
                a_stride: self.mantissas.words(k),
                b,
                b_exps: exps(i),
                b_stride: j,
                c: c + j0 * 4,
                c_stride: own,
                m: 0,
                k,
                n: j,
                accumulate: (k0 > 0).into(),
            };
            run(self.mantissas.multiply(call))
                .at(gemm::a, parity, a_toggle as i32)
                .at(gemm::c, parity, c_toggle as i32)
                .at(gemm::m, count, 1)
        };
        let finish = (bias != NONE || self.activation != FusedActivation::LINEAR).then(|| {
            run(BiasAct {
                y: c,
                rows: 0,
                cols: own,
                stride: own,
                bias,
                activation: self.activation.kind as u32,
                alpha_bits: self.activation.alpha.to_bits(),
            })
            .at(bias_act::y, parity, c_toggle as i32)
            .at(bias_act::rows, count, 1)
        });
        let header =
            Loop { depth: 0, start: 0, step: 1, total: 0, total_divisor: tile.rows, divisor: 1, end: Loop::NO_END };
        let total = vec![Patch { word: loops::TOTAL, register: reg::SAMPLES, scale: self.rows_per_sample as i32 }];

        let mut body = Vec::new();
        if hoisted {
            let mark = e.items.len();
            fetches.extend(fetch(0));
            e.fetch_weights(placed.map(|p| p.fetched), fetches);
            if let Some(step) = prepare(0) {
                e.push(step);
            }
            e.hold(mark);
            body.extend([prepare_operand(self.terms), multiply(0)]);
            body.extend(finish);
            e.pipeline(header, total, &[operand(0, self.terms)], body, &[result]);
            return Ok(e);
        }
        if !fetches.is_empty() {
            e.fetch_weights(placed.map(|p| p.fetched), fetches);
        }
        body.extend(fetch(0).into_iter().map(transfer));
        for (i, &(k0, k, j0, _)) in steps.iter().enumerate() {
            if j0 == 0 {
                body.extend([operand(k0, k).present(0, 0), wait(0), prepare_operand(k)]);
            }
            if i + 1 < steps.len() {
                body.extend(fetch(i + 1).into_iter().map(transfer));
            }
            body.push(wait(tag(i)));
            body.extend(prepare(i));
            body.push(multiply(i));
        }
        body.extend(finish);
        body.extend([result.present(0, 2), wait(2)]);
        e.items.push(Item::Loop(header, total, body.into_iter().map(Item::Do).collect()));
        Ok(e)
    }
}

/// A dense layer with fewer outputs than cores and many terms: cores also share the terms, block by block. Each block's sum
/// goes to SDRAM, and [`DensePartialSum`] adds them in the order in which one core would.
#[derive(Debug, Clone)]
pub struct DensePartial {
    /// The product; its bias and activation are left to the sum.
    pub product: DenseProduct,
    /// SDRAM address of the blocks' sums: `[blocks][rows][outputs]`.
    pub partials: u32,
}

impl DensePartial {
    /// Whether a layer is better off so.
    pub fn suits(terms: u32, outputs: u32) -> bool {
        terms > BLOCK_TERMS && outputs * 2 <= crate::lower::CORES_MAX
    }

    /// Words of the partial sums with so many samples on a chip.
    pub fn partial_words(product: &DenseProduct, samples_max: u32) -> u64 {
        let blocks = product.term_blocks().len() as u64;
        blocks * u64::from(samples_max) * u64::from(product.rows_per_sample * product.outputs)
    }

    /// Bytes from the sums of one block to those of the next.
    fn stride(&self, core: CoreSlot) -> u32 {
        core.samples_max * self.product.rows_per_sample * self.product.outputs * 4
    }
}

impl Stage for DensePartial {
    fn layer(&self) -> &str {
        &self.product.layer
    }
    fn what(&self) -> &'static str {
        self.product.what
    }
    fn kernel(&self, core: CoreSlot) -> String {
        let p = &self.product;
        let parts = p.term_blocks().len() as u32;
        format!("Gemm, terms in {parts} parts on {} cores", (p.outputs * parts).min(core.cores))
    }
    fn macs_per_sample(&self) -> u64 {
        self.product.macs_per_sample()
    }

    fn emit(&self, core: CoreSlot) -> Result<Emit, CompileError> {
        let p = &self.product;
        let mut e = Emit::new(&p.layer, core);
        let term_blocks = p.term_blocks();
        let parts = term_blocks.len() as u32;
        // Cores across blocks of terms first, then across outputs.
        let across_terms = parts.min(core.cores);
        let across_outputs = (core.cores / across_terms).min(p.outputs);
        if core.slot >= across_terms * across_outputs {
            return Ok(e);
        }
        let (n0, n) = share(p.outputs, core.slot / across_terms, across_outputs);
        let block = term_blocks[0].1;
        let free = u64::from(BUFFER_BYTES) / 4;
        let fixed = u64::from(block + 1) * u64::from(n) + 32;
        let each = u64::from(block + n + 1);
        if fixed + each > free {
            return Err(CompileError::LayerTooLarge {
                layer: p.layer.clone(),
                needed: (fixed + each) * 4,
                available: BUFFER_BYTES.into(),
            });
        }
        let rows_max = core.samples_max * p.rows_per_sample;
        let tile_rows = ((free - fixed) / each).min(u64::from(rows_max)) as u32;
        let a = e.alloc_words(tile_rows * block)?;
        let a_exps = e.alloc_words(tile_rows)?;
        let b = e.alloc_words(block * n)?;
        let b_exps = e.alloc_words(n)?;
        let c = e.alloc_words(tile_rows * n)?;
        let index = reg::loop_index(0);
        let count = reg::loop_count(0);
        for part in (core.slot % across_terms..parts).step_by(across_terms as usize) {
            let (k0, k) = term_blocks[part as usize];
            let from = p.weights + (p.stored(k0) * p.outputs + n0) * 4;
            e.push(transfer(rows(false, from, b, p.stored(k), n * 4, p.outputs * 4, n * 4, TAG_ONCE)));
            match p.prepared_exponents {
                Some(exps) => e.fetch(words(false, exps + (part * p.outputs + n0) * 4, b_exps, n, TAG_ONCE)),
                None => {
                    e.push(wait(TAG_ONCE));
                    let call = Prep2d {
                        src: b,
                        rows: k,
                        cols: n,
                        src_stride: n,
                        dst: b,
                        dst_row_stride: n,
                        dst_col_stride: 1,
                        exps: b_exps,
                        axis: 2,
                    };
                    e.push(run(p.mantissas.prepare(call, k)));
                }
            }
            let range = |d: Dma| {
                transfer(Dma { rows: tile_rows, limit: 0, ..d }).at(dma::FIRST, index, tile_rows as i32).at(
                    dma::LIMIT,
                    reg::SAMPLES,
                    p.rows_per_sample as i32,
                )
            };
            let to = self.partials + part * self.stride(core) + n0 * 4;
            let body = vec![
                range(rows(false, p.a.address + k0 * 4, a, 0, k * 4, p.terms * 4, k * 4, 0)).at(
                    dma::SDRAM,
                    reg::INPUT_BUFFER,
                    p.a.toggle,
                ),
                wait(0),
                run(p.mantissas.prepare(
                    Prep2d {
                        src: a,
                        rows: 0,
                        cols: k,
                        src_stride: k,
                        dst: a,
                        dst_row_stride: p.mantissas.words(k),
                        dst_col_stride: 1,
                        exps: a_exps,
                        axis: 1,
                    },
                    0,
                ))
                .at(prep2d::rows, count, 1),
                run(p.mantissas.multiply(Gemm {
                    a,
                    a_exps,
                    a_stride: p.mantissas.words(k),
                    b,
                    b_exps,
                    b_stride: n,
                    c,
                    c_stride: n,
                    m: 0,
                    k,
                    n,
                    accumulate: 0,
                }))
                .at(gemm::m, count, 1),
                range(rows(true, to, c, 0, n * 4, p.outputs * 4, n * 4, 2)),
                wait(2),
            ];
            e.items.push(Item::Loop(
                Loop { depth: 0, start: 0, step: 1, total: 0, total_divisor: tile_rows, divisor: 1, end: Loop::NO_END },
                vec![Patch { word: loops::TOTAL, register: reg::SAMPLES, scale: p.rows_per_sample as i32 }],
                body.into_iter().map(Item::Do).collect(),
            ));
        }
        Ok(e)
    }
}

/// Adds the block sums of a [`DensePartial`] in ascending order, then bias and activation.
#[derive(Debug, Clone)]
pub struct DensePartialSum {
    /// The stage whose sums these are.
    pub of: DensePartial,
}

impl Stage for DensePartialSum {
    fn layer(&self) -> &str {
        &self.of.product.layer
    }
    fn what(&self) -> &'static str {
        "sum of parts"
    }
    fn kernel(&self, _: CoreSlot) -> String {
        "SumParts".into()
    }

    fn emit(&self, core: CoreSlot) -> Result<Emit, CompileError> {
        let p = &self.of.product;
        let mut e = Emit::new(&p.layer, core);
        let parts = p.term_blocks().len() as u32;
        let rows_max = core.samples_max * p.rows_per_sample;
        let fit = (BUFFER_BYTES / 4 - p.outputs - 32) / ((parts + 1) * p.outputs);
        let block = rows_max.div_ceil(core.cores).min(fit).max(1);
        let bias = match p.bias {
            Some(address) => {
                let at = e.alloc_words(p.outputs)?;
                e.fetch(words(false, address, at, p.outputs, TAG_ONCE));
                at
            }
            None => NONE,
        };
        let src = e.alloc_words(parts * block * p.outputs)?;
        let sum = e.alloc_words(block * p.outputs)?;
        let row = p.outputs * 4;
        let range = |out: bool, address: u32, at: u32| {
            UnitTransfer::new(Dma { limit: 0, ..rows(out, address, at, block, row, row, row, 0) }, 0)
                .at(dma::FIRST, reg::loop_index(0), block as i32)
                .at(dma::LIMIT, reg::SAMPLES, p.rows_per_sample as i32)
        };
        let stride = self.of.stride(core);
        let ins: Vec<_> =
            (0..parts).map(|i| range(false, self.of.partials + i * stride, src + i * block * row)).collect();
        let count = block * p.outputs;
        let compute = vec![
            // A last block that is not full adds what lies behind it, too: that goes nowhere.
            run(SumParts { src, parts, stride: count, count, dst: sum }),
            run(BiasAct {
                y: sum,
                rows: 0,
                cols: p.outputs,
                stride: p.outputs,
                bias,
                activation: p.activation.kind as u32,
                alpha_bits: p.activation.alpha.to_bits(),
            })
            .at(bias_act::rows, reg::loop_count(0), 1),
        ];
        e.serial(
            Loop {
                depth: 0,
                start: core.slot,
                step: core.cores,
                total: 0,
                total_divisor: block,
                divisor: 1,
                end: Loop::NO_END,
            },
            vec![Patch { word: loops::TOTAL, register: reg::SAMPLES, scale: p.rows_per_sample as i32 }],
            &ins,
            compute,
            &[range(true, p.c.address, sum)],
        );
        Ok(e)
    }
}

/// Gradients of a dense layer's kernel and bias.
#[derive(Debug, Clone)]
pub struct DenseGradient {
    /// Layer.
    pub layer: String,
    /// The layer's input: rows of `inputs` words.
    pub x: Tensor,
    /// Gradient of its output (before the activation): rows of `outputs` words.
    pub dy: Tensor,
    /// Operands.
    pub mantissas: Mantissas,
    /// Rows of each sample.
    pub rows_per_sample: u32,
    /// Inputs.
    pub inputs: u32,
    /// Outputs.
    pub outputs: u32,
    /// SDRAM address of the kernel's gradient.
    pub kernel_gradient: u32,
    /// SDRAM address of the bias' gradient.
    pub bias_gradient: Option<u32>,
    /// Add to what is there (a layer that is used more than once).
    pub accumulate: bool,
}

impl DenseGradient {
    /// Cores across inputs and across outputs.
    fn grid(&self, cores: u32) -> (u32, u32) {
        let across_inputs = self.inputs.min(cores);
        (across_inputs, (cores / across_inputs).min(self.outputs).max(1))
    }
}

impl Stage for DenseGradient {
    fn layer(&self) -> &str {
        &self.layer
    }
    fn what(&self) -> &'static str {
        "weight gradient"
    }
    fn kernel(&self, core: CoreSlot) -> String {
        let (inputs, outputs) = self.grid(core.cores);
        format!(
            "Gemm {}x{}x{}",
            self.inputs.div_ceil(inputs),
            core.samples_max.min(BLOCK_ROWS),
            self.outputs.div_ceil(outputs)
        )
    }
    fn macs_per_sample(&self) -> u64 {
        u64::from(self.rows_per_sample) * u64::from(self.inputs) * u64::from(self.outputs)
    }

    fn emit(&self, core: CoreSlot) -> Result<Emit, CompileError> {
        let (across_inputs, across_outputs) = self.grid(core.cores);
        if core.slot >= across_inputs * across_outputs {
            return Ok(Emit::new(&self.layer, core));
        }
        let inputs = share(self.inputs, core.slot % across_inputs, across_inputs);
        self.emit_tile(core, inputs, share(self.outputs, core.slot / across_inputs, across_outputs))
    }

    fn emit_beside(&self, core: CoreSlot, busy_cycles: &[u64]) -> Result<Emit, CompileError> {
        if self.grid(core.cores).1 > 1 {
            return self.emit(CoreSlot { slot: rank(core.slot, busy_cycles), ..core });
        }
        // Rows of the kernel are many and alike: whoever has done less takes more of them.
        let rows = u64::from(core.samples_max * self.rows_per_sample);
        let row_cycles = rows * 12 + u64::from(self.outputs) * (rows * 17 / 4 + 45);
        let inputs = level(self.inputs, row_cycles, core.slot, busy_cycles);
        self.emit_tile(core, inputs, (0, self.outputs))
    }
}

impl DenseGradient {
    /// The commands for rows `k0 .. k0 + k` of the kernel and its columns `n0 .. n0 + n`.
    fn emit_tile(&self, core: CoreSlot, (k0, k): (u32, u32), (n0, n): (u32, u32)) -> Result<Emit, CompileError> {
        let mut e = Emit::new(&self.layer, core);
        if k == 0 {
            return Ok(e);
        }
        let rows_max = core.samples_max * self.rows_per_sample;
        let block = rows_max.min(BLOCK_ROWS);

        // Rows of the kernel (inputs) at a time: as many as fit beside the gradients of the outputs.
        let fixed = u64::from(block) * u64::from(n) + 2 * u64::from(n) + 32;
        let each = u64::from(n) + 2 * u64::from(block) + 1;
        let free = u64::from(BUFFER_BYTES) / 4;
        if fixed + each > free {
            return Err(CompileError::LayerTooLarge {
                layer: self.layer.clone(),
                needed: (fixed + each) * 4,
                available: BUFFER_BYTES.into(),
            });
        }
        let chunk = ((free - fixed) / each).min(k.into()) as u32;

        let dy = e.alloc_words(block * n)?;
        let dy_exps = e.alloc_words(n)?;
        let db = e.alloc_words(n)?;
        let c = e.alloc_words(chunk * n)?;
        let x = e.alloc_words(block * chunk)?;
        let xt = e.alloc_words(block * chunk)?;
        let x_exps = e.alloc_words(chunk)?;
        let with_bias = self.bias_gradient.filter(|_| k0 == 0);

        for (chunk_number, (r0, r)) in blocks(k, chunk).into_iter().enumerate() {
            let gradient = self.kernel_gradient + ((k0 + r0) * self.outputs + n0) * 4;
            let tile = |out| rows(out, gradient, c, r, n * 4, self.outputs * 4, n * 4, TAG_ONCE);
            let bias_here = with_bias.filter(|_| chunk_number == 0);
            if self.accumulate {
                e.fetch(tile(false));
            } else {
                e.push(run(Fill { dst: c, count: r * n, value_bits: 0 }));
            }
            if let Some(address) = bias_here {
                if self.accumulate {
                    e.fetch(words(false, address + n0 * 4, db, n, TAG_ONCE));
                } else {
                    e.push(run(Fill { dst: db, count: n, value_bits: 0 }));
                }
            }
            let index = reg::loop_index(0);
            let count = reg::loop_count(0);
            let mut body = Vec::new();
            let mut add = |s| body.push(Item::Do(s));
            let row_range = |d: Dma, tensor: &Tensor| {
                transfer(Dma { rows: block, limit: 0, ..d })
                    .at(dma::FIRST, index, block as i32)
                    .at(dma::LIMIT, reg::SAMPLES, self.rows_per_sample as i32)
                    .at(dma::SDRAM, reg::INPUT_BUFFER, tensor.toggle)
            };
            add(row_range(rows(false, self.dy.address + n0 * 4, dy, 0, n * 4, self.outputs * 4, n * 4, 0), &self.dy));
            add(row_range(
                rows(false, self.x.address + (k0 + r0) * 4, x, 0, r * 4, self.inputs * 4, r * 4, 0),
                &self.x,
            ));
            add(wait(0));
            if bias_here.is_some() {
                let call = ColumnSum { op: 0, x: dy, y: NONE, rows: 0, cols: n, row_stride: n, sum: db };
                add(run(call).at(column_sum::rows, count, 1));
            }
            // [rows][inputs] becomes [inputs][rows]; one exponent for each input.
            let call = Prep2d {
                src: x,
                rows: 0,
                cols: r,
                src_stride: r,
                dst: xt,
                dst_row_stride: 1,
                dst_col_stride: self.mantissas.words(block),
                exps: x_exps,
                axis: 2,
            };
            add(run(self.mantissas.prepare(call, block)).at(prep2d::rows, count, 1));
            let call = Prep2d {
                src: dy,
                rows: 0,
                cols: n,
                src_stride: n,
                dst: dy,
                dst_row_stride: n,
                dst_col_stride: 1,
                exps: dy_exps,
                axis: 2,
            };
            add(run(self.mantissas.prepare(call, block)).at(prep2d::rows, count, 1));
            let call = Gemm {
                a: xt,
                a_exps: x_exps,
                a_stride: self.mantissas.words(block),
                b: dy,
                b_exps: dy_exps,
                b_stride: n,
                c,
                c_stride: n,
                m: r,
                k: 0,
                n,
                accumulate: self.accumulate.into(),
            };
            // The first block of rows takes the place of the zeros, which stay where a chip has no samples.
            let gemm = run(self.mantissas.multiply(call)).at(gemm::k, count, 1);
            add(if self.accumulate { gemm } else { gemm.at(gemm::accumulate, index, 1) });
            e.items.push(Item::Loop(
                Loop { depth: 0, start: 0, step: 1, total: 0, total_divisor: block, divisor: 1, end: Loop::NO_END },
                vec![Patch { word: loops::TOTAL, register: reg::SAMPLES, scale: self.rows_per_sample as i32 }],
                body,
            ));
            e.push(transfer(tile(true)));
            if let Some(address) = bias_here {
                e.push(transfer(words(true, address + n0 * 4, db, n, TAG_ONCE)));
            }
            e.push(wait(TAG_ONCE));
        }
        Ok(e)
    }
}
