//! Convolutions of bytes. A unit is a block of output rows of one sample and a slice of channels.

use spidnn_core::command::{Dma, dma, reg};
use spidnn_kernels::call::{NONE, Product8, WidenWindow, product8, widen_window};

use super::{ByteTensor, ByteWeights, Split, UNIT_CYCLES, cycles, limited, share_panels, through_table};
use crate::CompileError;
use crate::emit::{Emit, StepExt, UnitTransfer, Units, rows, run};
use crate::report::memory_cycles;
use crate::stage::conv::ConvShape;
use crate::stage::{CoreSlot, Stage, blocks};

/// `y = table[requantised(x * w + bias)]`, without groups and with neighbouring taps in a row.
#[derive(Debug, Clone)]
pub struct ByteConv {
    /// Layer.
    pub layer: String,
    /// Shape.
    pub shape: ConvShape,
    /// Pictures that go in.
    pub x: ByteTensor,
    /// Zero point of the input: what lies around a picture.
    pub x_zero: u32,
    /// Pictures that come out.
    pub y: ByteTensor,
    /// Weights; each row of the kernel has an even number of halves.
    pub weights: ByteWeights,
    /// Zero point of the result (of what goes into the table).
    pub zero: u32,
    /// Last shift of the requantisation.
    pub shift: u32,
}

/// The window of a block of rows in local memory.
#[derive(Debug, Clone, Copy)]
struct Window {
    /// First row of block 0, and how many.
    first: i32,
    rows: u32,
    /// Halves before the picture, those of which no output has need included.
    left: u32,
    /// Words of a row.
    row_words: u32,
    /// The first output's operands begin at an odd half.
    odd_first: bool,
    /// Some output's do.
    odd: bool,
}

impl ByteConv {
    /// Halves of a kernel row, rounded up to pairs.
    pub fn row_terms(shape: &ConvShape) -> u32 {
        (shape.x.kernel * shape.in_channels).next_multiple_of(2)
    }

    fn window(&self, block: u32) -> Window {
        let s = &self.shape;
        let pad = s.x.pad.max(0) as u32 * s.in_channels;
        let left = pad.next_multiple_of(2);
        let skip = left - pad;
        let step = s.x.stride * s.in_channels;
        let needed = skip + (s.x.output - 1) * step + Self::row_terms(s);
        let row = needed.max(left + s.x.input * s.in_channels);
        Window {
            first: -s.y.pad,
            rows: (block - 1) * s.y.stride + (s.y.kernel - 1) * s.y.dilation + 1,
            left,
            // One more, so that pairs at odd halves stay in the row.
            row_words: row.div_ceil(2) + 1,
            odd_first: skip % 2 == 1,
            odd: skip % 2 == 1 || (step % 2 == 1 && s.x.output > 1),
        }
    }

    fn calls(&self, block: u32, columns: u32) -> (WidenWindow, Product8) {
        let s = &self.shape;
        let w = self.window(block);
        let widen = WidenWindow {
            src_row: self.x.row_words(),
            columns: self.x.values,
            first: w.first,
            rows: w.rows,
            limit: s.y.input,
            dst_odd: if w.odd { 0 } else { NONE },
            dst_row: w.row_words,
            left: w.left,
            zero: self.x_zero,
            ..Default::default()
        };
        let y_row = if columns == s.out_channels { self.y.row_bytes() } else { s.x.output * columns };
        let product = Product8 {
            x_row: s.y.stride * 2 * w.row_words,
            x_pixel: s.x.stride * s.in_channels,
            x_segment: s.y.dilation * 2 * w.row_words,
            segments: s.y.kernel,
            terms: Self::row_terms(s),
            shift: self.shift,
            zero: self.zero,
            y_row,
            y_pixel: columns,
            rows: block,
            pixels: s.x.output,
            n: columns,
            ..Default::default()
        };
        (widen, product)
    }

    /// Bytes of the buffers: input, halves, output.
    fn buffers(&self, block: u32, columns: u32) -> [u32; 3] {
        let w = self.window(block);
        let (_, product) = self.calls(block, columns);
        let halves = w.rows * w.row_words * 4;
        [
            (w.rows * self.x.row_bytes()).next_multiple_of(8),
            // A pair may reach beyond the last row.
            (if w.odd { 2 } else { 1 }) * (halves + 8).next_multiple_of(8),
            (block * product.y_row).next_multiple_of(8),
        ]
    }

    fn split(&self, core: CoreSlot) -> Result<Split, CompileError> {
        let s = &self.shape;
        let free = u64::from(core.buffer_bytes());
        // Slices begin and end at words.
        let panels = if s.out_channels.is_multiple_of(4) { s.out_channels / 4 } else { 1 };
        let mut best: Option<(u64, Split)> = None;
        let mut smallest = u64::MAX;
        for groups in 1..=core.cores.min(panels) {
            let own = if panels == 1 { s.out_channels } else { share_panels(s.out_channels, 0, groups).1 };
            let across = core.cores / groups;
            for block in 1..=s.y.output.min(8) {
                for double in [true, false] {
                    let needed = |chunk: u32| {
                        let [x, halves, y] = self.buffers(block, chunk).map(u64::from);
                        u64::from(self.weights.local_bytes(chunk))
                            + (if double { 2 } else { 1 }) * (x + y)
                            + halves
                            + 64
                    };
                    let chunk = if panels == 1 {
                        smallest = smallest.min(needed(own));
                        Some(own).filter(|&c| needed(c) <= free)
                    } else {
                        smallest = smallest.min(needed(4));
                        (1..=own / 4).rev().map(|p| 4 * p).find(|&c| needed(c) <= free)
                    };
                    let Some(chunk) = chunk else { continue };
                    let chunks = u64::from(own.div_ceil(chunk));
                    let units = u64::from(core.samples_max) * u64::from(s.y.output.div_ceil(block));
                    let turns = units.div_ceil(across.into());
                    let (widen, product) = self.calls(block, own);
                    let table = if self.weights.table { u64::from(block * product.y_row) * 4 } else { 0 };
                    let compute = turns * (cycles(product) + table + chunks * (cycles(widen) + UNIT_CYCLES));
                    let [x, _, y] = self.buffers(block, own).map(u64::from);
                    let moved = units * u64::from(groups) * (chunks * x + y)
                        + u64::from(self.weights.terms) * u64::from(s.out_channels) * u64::from(across);
                    let first = memory_cycles(x * u64::from(core.cores));
                    let cost = compute.max(memory_cycles(moved)) + first + if double { 0 } else { turns * (x + y) / 3 };
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

    /// The split with all of local memory: what the weights' size follows from.
    fn whole_split(&self, core: CoreSlot) -> Result<Split, CompileError> {
        self.split(CoreSlot::new(core.slot, core.cores, core.samples_max, core.root))
    }

    /// Columns of a core: first and number.
    fn own(&self, core: CoreSlot, split: Split) -> (u32, u32) {
        if split.groups == 1 {
            (0, self.shape.out_channels)
        } else {
            share_panels(self.shape.out_channels, core.slot % split.groups, split.groups)
        }
    }

    /// Whether a core's local memory takes the smallest part of it.
    pub fn fits(&self, core: CoreSlot) -> bool {
        self.split(core).is_ok()
    }
}

impl Stage for ByteConv {
    fn layer(&self) -> &str {
        &self.layer
    }
    fn what(&self) -> &'static str {
        "forward"
    }
    fn kernel(&self, core: CoreSlot) -> String {
        match self.whole_split(core) {
            Ok(s) => format!("Product8 {} rows, 1/{} channels", s.block, s.groups),
            Err(_) => "Product8".into(),
        }
    }
    fn macs_per_sample(&self) -> u64 {
        self.shape.macs()
    }

    fn weight_bytes(&self, core: CoreSlot) -> u32 {
        let Ok(split) = self.whole_split(core) else { return 0 };
        let (_, own) = self.own(core, split);
        let idle = core.slot >= split.across(core) * split.groups;
        if own == 0 || idle || split.chunk < own { 0 } else { self.weights.local_bytes(own) }
    }

    fn keeps_weights(&self) -> bool {
        true
    }

    fn emit(&self, core: CoreSlot) -> Result<Emit, CompileError> {
        let s = &self.shape;
        let mut e = Emit::new(&self.layer, core);
        let core = CoreSlot { weights: core.weights.filter(|_| self.weight_bytes(core) > 0), ..core };
        let split = self.whole_split(core)?;
        let across = split.across(core);
        if core.slot >= across * split.groups {
            return Ok(e);
        }
        let (own0, own) = self.own(core, split);
        let (block, blocks_per_sample) = (split.block, s.y.output.div_ceil(split.block));
        let w = self.window(block);
        let (b, parity) = (reg::loop_block(0), reg::loop_parity(0));
        let per_block = (block * s.y.stride) as i32;
        for (c0, columns) in blocks(own.div_ceil(4), split.chunk.div_ceil(4)) {
            let n0 = own0 + 4 * c0;
            let columns = (4 * columns).min(own0 + own - n0);
            let mark = e.mark();
            let before = e.items.len();
            let local = self.weights.fetch(&mut e, core, n0, columns)?;
            e.hold(before);
            let [x_bytes, halves_bytes, y_bytes] = self.buffers(block, columns);
            let double = |bytes: u32| if split.double { bytes } else { 0 };
            let (dx, dy) = (double(x_bytes), double(y_bytes));
            let x = e.alloc(x_bytes + dx)?;
            let y = e.alloc(y_bytes + dy)?;
            let halves = e.alloc(halves_bytes)?;
            let copy = if w.odd { halves + halves_bytes / 2 } else { NONE };
            // Where the first operands begin at an odd half, the copy is the one that begins with them.
            let (even, odd) = if w.odd_first { (copy, halves + 4) } else { (halves, copy) };
            let row = self.x.row_bytes();
            let input = UnitTransfer::new(
                limited(rows(false, self.x.tensor.address, x, w.rows, row, row, row, 0), w.first, s.y.input),
                dx,
            )
            .of(&self.x.tensor, 0)
            .at(dma::FIRST, b, per_block);
            let output = if columns == s.out_channels {
                let row = self.y.row_bytes();
                let to = rows(true, self.y.tensor.address, y, block, row, row, row, 0);
                UnitTransfer::new(Dma { limit: s.y.output, ..to }, dy).at(dma::FIRST, b, block as i32)
            } else {
                let pixels = block * s.x.output;
                let to = rows(true, self.y.tensor.address + n0, y, pixels, columns, s.out_channels, columns, 0);
                UnitTransfer::new(Dma { limit: s.y.output * s.x.output, ..to }, dy).at(dma::FIRST, b, pixels as i32)
            }
            .of(&self.y.tensor, 0);
            let (widen, product) = self.calls(block, columns);
            let mut compute = vec![
                run(WidenWindow { src: x, dst: halves, dst_odd: copy, ..widen })
                    .at(widen_window::src, parity, dx as i32)
                    .at(widen_window::first, b, per_block),
                run(Product8 { x: even, x_odd: odd, w: local.w, scales: local.scales, y, ..product }).at(
                    product8::y,
                    parity,
                    dy as i32,
                ),
            ];
            if let Some(table) = local.table {
                compute.push(through_table(table, y, block * product.y_row / 4, parity, dy));
            }
            let units = Units::dealt(core.slot / split.groups, across, blocks_per_sample);
            e.unit_loop(units, &[input], compute, &[output]);
            e.release(mark);
        }
        Ok(e)
    }
}
