//! Dense layers of bytes.

use spidnn_core::command::{Dma, Loop, Patch, dma, loops, reg};
use spidnn_kernels::call::{
    Dequantise8, NONE, Product8, Softmax, WidenWindow, dequantise8, lookup8, product8, softmax, widen_window,
};

use super::{ByteTensor, ByteWeights, Split, UNIT_CYCLES, cycles, share_panels, through_table};
use crate::CompileError;
use crate::emit::{Emit, StepExt, Tensor, UnitTransfer, rows, run};
use crate::quantise::ByteFormat;
use crate::report::memory_cycles;
use crate::stage::{CoreSlot, Stage, blocks};

/// Results that leave as numbers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Numbers {
    /// Where: rows of all outputs.
    pub tensor: Tensor,
    /// What the bytes mean.
    pub format: ByteFormat,
    /// Softmax of each row. One core has all of a row's outputs then.
    pub softmax: bool,
}

/// `y = table[requantised(x . w + bias)]`.
#[derive(Debug, Clone)]
pub struct ByteDense {
    /// Layer.
    pub layer: String,
    /// Input: all of a sample, in `rows_per_sample` rows.
    pub x: ByteTensor,
    /// Result: a row for each of the input's.
    pub y: ByteTensor,
    /// Rows of each sample.
    pub rows_per_sample: u32,
    /// Weights; the terms of a sum are the bytes of a row with those that fill its last word.
    pub weights: ByteWeights,
    /// Zero point of the result (of what goes into the table).
    pub zero: u32,
    /// Last shift of the requantisation.
    pub shift: u32,
    /// Results that leave as numbers, not as bytes.
    pub numbers: Option<Numbers>,
}

impl ByteDense {
    /// Bytes of an input row.
    fn row_bytes(&self) -> u32 {
        self.weights.terms
    }

    fn calls(&self, pixels: u32, columns: u32) -> (WidenWindow, Product8) {
        let terms = self.weights.terms;
        let widen = WidenWindow {
            src_row: terms / 4,
            columns: terms,
            rows: pixels,
            limit: u32::MAX,
            dst_odd: NONE,
            dst_row: terms / 2,
            ..Default::default()
        };
        let product = Product8 {
            x_odd: NONE,
            x_pixel: terms,
            segments: 1,
            terms,
            shift: self.shift,
            zero: self.zero,
            y_row: 0,
            y_pixel: columns.next_multiple_of(4),
            rows: 1,
            pixels,
            n: columns,
            ..Default::default()
        };
        (widen, product)
    }

    /// Bytes of the buffers of so many rows.
    fn buffer_bytes(&self, block: u32, columns: u32, double: bool) -> u64 {
        let (x, y) = (u64::from(block) * u64::from(self.row_bytes()), u64::from(block) * u64::from(columns + 3));
        let numbers = if self.numbers.is_some() { 4 * u64::from(block) * u64::from(columns) + 8 } else { 0 };
        (if double { 2 } else { 1 }) * (x + y + numbers + 16) + 2 * x + 64
    }

    fn split(&self, core: CoreSlot) -> Result<Split, CompileError> {
        let rows_max = core.samples_max * self.rows_per_sample;
        let free = u64::from(core.buffer_bytes());
        let mut best: Option<(u64, Split)> = None;
        let mut smallest = u64::MAX;
        let whole = self.numbers.is_some_and(|n| n.softmax);
        let most = if whole { 1 } else { core.cores.min(self.weights.outputs.div_ceil(4)) };
        for groups in 1..=most {
            let own = share_panels(self.weights.outputs, 0, groups).1;
            let across = core.cores / groups;
            for block in [64, 32, 16, 8, 4, 2, 1] {
                let block = rows_max.min(block);
                for double in [true, false] {
                    let fits = |chunk: u32| {
                        let local = if core.weights.is_some() { 0 } else { self.weights.local_bytes(chunk) };
                        u64::from(local) + self.buffer_bytes(block, chunk, double)
                    };
                    smallest = smallest.min(fits(own.min(4)));
                    let chunk = (1..=own.div_ceil(4)).rev().map(|p| (4 * p).min(own)).find(|&c| fits(c) <= free);
                    let Some(chunk) = chunk else { continue };
                    if (core.weights.is_some() || whole) && chunk < own {
                        continue;
                    }
                    let chunks = u64::from(own.div_ceil(chunk));
                    let turns = u64::from(rows_max.div_ceil(block).div_ceil(across));
                    let (widen, product) = self.calls(block, own);
                    let compute = turns * (cycles(product) + chunks * (cycles(widen) + UNIT_CYCLES));
                    let inputs = u64::from(rows_max) * u64::from(self.row_bytes()) * u64::from(groups) * chunks;
                    let weights = u64::from(self.weights.outputs) * u64::from(self.weights.terms) * u64::from(across);
                    let first = u64::from(block * self.row_bytes() * core.cores);
                    // Weights that stay leave the cores to decide.
                    let cost = compute.max(memory_cycles(inputs + weights)) + memory_cycles(first) + compute / 2;
                    if best.is_none_or(|(c, _)| cost < c) {
                        best = Some((cost, Split { groups, chunk, block, double }));
                    }
                    break;
                }
            }
        }
        best.map(|(_, split)| split).ok_or_else(|| CompileError::LayerTooLarge {
            layer: self.layer.clone(),
            needed: smallest,
            available: free,
        })
    }

    /// Whether a core's local memory takes the smallest part of it.
    pub fn fits(&self, core: CoreSlot) -> bool {
        self.split(core).is_ok()
    }
}

impl Stage for ByteDense {
    fn layer(&self) -> &str {
        &self.layer
    }
    fn what(&self) -> &'static str {
        "forward"
    }
    fn kernel(&self, core: CoreSlot) -> String {
        match self.split(core) {
            Ok(s) => format!("Product8 {}x{}x{}", s.block, self.weights.terms, s.chunk),
            Err(_) => "Product8".into(),
        }
    }
    fn macs_per_sample(&self) -> u64 {
        u64::from(self.rows_per_sample) * u64::from(self.weights.terms) * u64::from(self.weights.outputs)
    }

    fn weight_bytes(&self, core: CoreSlot) -> u32 {
        let plain = CoreSlot { weights: None, ..CoreSlot::new(core.slot, core.cores, core.samples_max, core.root) };
        let Ok(split) = self.split(plain) else { return 0 };
        let (_, own) = share_panels(self.weights.outputs, core.slot % split.groups, split.groups);
        let idle = core.slot >= split.across(core) * split.groups;
        if own == 0 || idle || split.chunk < own { 0 } else { self.weights.local_bytes(own) }
    }

    fn keeps_weights(&self) -> bool {
        true
    }

    fn emit(&self, core: CoreSlot) -> Result<Emit, CompileError> {
        let mut e = Emit::new(&self.layer, core);
        let placed = core.weights.filter(|_| self.weight_bytes(core) > 0);
        let core = CoreSlot { weights: placed, ..core };
        // The split must be that of the weights' size, wherever they are.
        let split = self
            .split(CoreSlot { weights: None, ..CoreSlot::new(core.slot, core.cores, core.samples_max, core.root) })?;
        let across = split.across(core);
        if core.slot >= across * split.groups {
            return Ok(e);
        }
        let (own0, own) = share_panels(self.weights.outputs, core.slot % split.groups, split.groups);
        let (index, count, parity) = (reg::loop_index(0), reg::loop_count(0), reg::loop_parity(0));
        let y_row = self.y.tensor.words / self.rows_per_sample * 4;
        for (c0, columns) in blocks(own.div_ceil(4), split.chunk.div_ceil(4)) {
            let n0 = own0 + 4 * c0;
            let columns = (4 * columns).min(own0 + own - n0);
            let mark = e.mark();
            let before = e.items.len();
            let local = self.weights.fetch(&mut e, core, n0, columns)?;
            e.hold(before);
            let double = |bytes: u32| if split.double { bytes } else { 0 };
            let row = self.row_bytes();
            let out_row = columns.next_multiple_of(4);
            let x_bytes = (split.block * row).next_multiple_of(8);
            let y_bytes = (split.block * out_row).next_multiple_of(8);
            let x = e.alloc(x_bytes + double(x_bytes))?;
            let y = e.alloc(y_bytes + double(y_bytes))?;
            let halves = e.alloc(2 * x_bytes)?;
            let (dx, dy) = (double(x_bytes), double(y_bytes));
            let range = |d: Dma, toggle: u32| {
                UnitTransfer::new(Dma { limit: 0, ..d }, toggle).at(dma::FIRST, index, split.block as i32).at(
                    dma::LIMIT,
                    reg::SAMPLES,
                    self.rows_per_sample as i32,
                )
            };
            let input = range(rows(false, self.x.tensor.address, x, split.block, row, row, row, 0), dx).at(
                dma::SDRAM,
                reg::INPUT_BUFFER,
                self.x.tensor.toggle,
            );
            let (mut output, mut more) = (
                range(rows(true, self.y.tensor.address + n0, y, split.block, out_row, y_row, out_row, 0), dy),
                Vec::new(),
            );
            if let Some(numbers) = self.numbers {
                let row = columns * 4;
                let bytes = (split.block * row).next_multiple_of(8);
                let (z, dz) = (e.alloc(bytes + double(bytes))?, double(bytes));
                let to = rows(
                    true,
                    numbers.tensor.address + n0 * 4,
                    z,
                    split.block,
                    row,
                    numbers.tensor.words / self.rows_per_sample * 4,
                    row,
                    0,
                );
                output = range(to, dz);
                let (scale_bits, zero) = (numbers.format.scale.to_bits(), numbers.format.zero);
                more.push(
                    run(Dequantise8 { x: y, out: z, rows: 0, cols: columns, scale_bits, zero })
                        .at(dequantise8::x, parity, dy as i32)
                        .at(dequantise8::out, parity, dz as i32)
                        .at(dequantise8::rows, count, 1),
                );
                if numbers.softmax {
                    more.push(
                        run(Softmax { x: z, out: z, rows: 0, cols: columns })
                            .at(softmax::x, parity, dz as i32)
                            .at(softmax::out, parity, dz as i32)
                            .at(softmax::rows, count, 1),
                    );
                }
            }
            let (widen, product) = self.calls(0, columns);
            let mut compute = vec![
                run(WidenWindow { src: x, dst: halves, ..widen }).at(widen_window::src, parity, dx as i32).at(
                    widen_window::rows,
                    count,
                    1,
                ),
                run(Product8 { x: halves, w: local.w, scales: local.scales, y, ..product })
                    .at(product8::y, parity, dy as i32)
                    .at(product8::pixels, count, 1),
            ];
            if let Some(table) = local.table {
                compute.push(through_table(table, y, 0, parity, dy).at(lookup8::count, count, (out_row / 4) as i32));
            }
            compute.extend(more);
            let header = Loop {
                depth: 0,
                start: core.slot / split.groups,
                step: across,
                total: 0,
                total_divisor: split.block,
                divisor: 1,
                end: Loop::NO_END,
            };
            let total = vec![Patch { word: loops::TOTAL, register: reg::SAMPLES, scale: self.rows_per_sample as i32 }];
            e.pipeline(header, total, &[input], compute, &[output]);
            e.release(mark);
        }
        Ok(e)
    }
}
