//! Convolutions of bytes. A unit is a block of output rows of one sample and a slice of channels; or, where whole rows would leave
//! cores without work, each core has one box of every sample's rows, columns and channels.

use spidnn_core::command::{Dma, Loop, Step, dma, reg};
use spidnn_kernels::KernelCall;
use spidnn_kernels::call::{
    NONE, Pool8, Product8, WidenColumns, WidenWindow, pool8, product8, widen_columns, widen_window,
};

use super::tiles::{Cells, Tile, cut};
use super::{ByteTensor, ByteWeights, Split, UNIT_CYCLES, cycles, limited, share_panels, through_table};
use crate::CompileError;
use crate::emit::{Emit, StepExt, UnitTransfer, Units, rows, run};
use crate::report::memory_cycles;
use crate::stage::conv::{Axis, ConvShape};
use crate::stage::pool::PoolShape;
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
    /// Pooling of the result, which then leaves in its place: windows that touch and share nothing, without padding.
    pub pool: Option<PoolShape>,
}

/// Windows lie column by column where a kernel's rows have less halves than this.
const COLUMNS_BELOW: u32 = 16;

/// Cycles of a transfer of its own, and of each of its rows.
const TRANSFER_CYCLES: u64 = spidnn_core::TRANSFER_CYCLES as u64;
const ROW_CYCLES: u64 = spidnn_core::ROW_CYCLES as u64;

/// How a convolution is shared out.
#[derive(Debug, Clone)]
enum Way {
    /// By units.
    Units(Split),
    /// By boxes, one for a core, of cells of so many columns (see [`ByteConv::cell`]).
    Tiles(Vec<Tile>, u32),
}

/// What a core computes of every sample, in rows and columns of what leaves, and channels.
#[derive(Debug, Clone, Copy)]
struct Part {
    row: u32,
    rows: u32,
    column: u32,
    columns: u32,
    channel: u32,
    channels: u32,
}

/// Neighbouring pixels of an input row that some of an output row's need.
#[derive(Debug, Clone, Copy)]
struct Strip {
    /// Output pixels.
    pixels: u32,
    /// First of the picture's pixels, which begins at a word, and how many are there.
    start: u32,
    width: u32,
    /// Pixels of border before and behind them.
    left: u32,
    right: u32,
    /// Pixels, those of the border included, before the first that is needed: whole words of halves.
    skip: u32,
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

/// Where a core holds what a block's product works on.
struct Operands {
    /// The input's bytes.
    x: u32,
    /// The result's.
    y: u32,
    /// The input as halves, and a copy shifted by one half; [`NONE`] where no output needs it.
    halves: u32,
    copy: u32,
    /// Operands that begin at an even half, and at an odd one.
    even: u32,
    odd: u32,
}

impl Window {
    /// Takes the memory for them: so many bytes for input and result, second buffers included, and for all halves.
    fn alloc(&self, e: &mut Emit, x_bytes: u32, y_bytes: u32, halves_bytes: u32) -> Result<Operands, CompileError> {
        let x = e.alloc(x_bytes)?;
        let y = e.alloc(y_bytes)?;
        let halves = e.alloc(halves_bytes)?;
        let copy = if self.odd { halves + halves_bytes / 2 } else { NONE };
        // Where the first operands begin at an odd half, the copy is the one that begins with them.
        let (even, odd) = if self.odd_first { (copy, halves + 4) } else { (halves, copy) };
        Ok(Operands { x, y, halves, copy, even, odd })
    }
}

impl ByteConv {
    /// Whether windows lie column by column: where a kernel's rows are short, so that a sum is one run of terms.
    pub fn by_columns(shape: &ConvShape) -> bool {
        shape.y.dilation == 1 && shape.y.kernel > 1 && shape.x.kernel * shape.in_channels < COLUMNS_BELOW
    }

    /// Halves of a segment, rounded up to pairs: a row of the kernel, or all of it.
    pub fn row_terms(shape: &ConvShape) -> u32 {
        let rows = if Self::by_columns(shape) { shape.y.kernel } else { 1 };
        (rows * shape.x.kernel * shape.in_channels).next_multiple_of(2)
    }

    /// Halves of a sum.
    pub fn terms(shape: &ConvShape) -> u32 {
        Self::row_terms(shape) * if Self::by_columns(shape) { 1 } else { shape.y.kernel }
    }

    /// The half at which a term of the kernel `[ky][kx][ci]` lies.
    pub fn place(shape: &ConvShape, term: usize) -> usize {
        let (ci, kw, kh) = (shape.in_channels as usize, shape.x.kernel as usize, shape.y.kernel as usize);
        let (tap, c) = (term / ci, term % ci);
        let (ky, kx) = (tap / kw, tap % kw);
        if Self::by_columns(shape) {
            (kx * kh + ky) * ci + c
        } else {
            ky * Self::row_terms(shape) as usize + kx * ci + c
        }
    }

    /// Halves of a pixel in a row of the window.
    fn pixel_halves(&self) -> u32 {
        self.shape.in_channels * if Self::by_columns(&self.shape) { self.shape.y.kernel } else { 1 }
    }

    /// Whole rows.
    fn whole(&self) -> Strip {
        let axis = &self.shape.x;
        let left = axis.pad.max(0) as u32;
        let needed = (axis.output - 1) * axis.stride + axis.kernel;
        let right = needed.saturating_sub(left + axis.input);
        Strip { pixels: axis.output, start: 0, width: axis.input, left, right, skip: 0 }
    }

    /// What `pixels` output pixels from `first` on need, `first` the beginning of a cell.
    fn strip(&self, first: u32, pixels: u32) -> Strip {
        let axis = &self.shape.x;
        let whole = Strip { pixels, skip: first * axis.stride, ..self.whole() };
        let pad = axis.pad.max(0) as u32;
        // Pixels that begin at a word of bytes.
        let at_word = [1, 2, 4].into_iter().find(|n| (n * self.shape.in_channels).is_multiple_of(4)).unwrap_or(4);
        let end = (first + pixels - 1) * axis.stride + axis.kernel;
        let (begin, needed) = match (first * axis.stride).checked_sub(pad) {
            Some(begin) => (begin, end - pad),
            None => (0, end.saturating_sub(pad)),
        };
        let (left, skip) = if first * axis.stride < pad { (pad, first * axis.stride) } else { (0, 0) };
        let mut start = begin / at_word * at_word;
        if left == 0 && !((begin - start) * self.pixel_halves()).is_multiple_of(2) {
            match start.checked_sub(at_word) {
                Some(before) => start = before,
                None => return whole,
            }
        }
        let skip = skip + begin - start;
        if start >= axis.input || needed <= start || axis.pad < 0 || !(skip * self.pixel_halves()).is_multiple_of(2) {
            return whole;
        }
        let right = needed.saturating_sub(axis.input);
        // Whole words of bytes are quicker, where the picture has them.
        let width = (needed - start).next_multiple_of(at_word).min(axis.input - start);
        Strip { pixels, start, width, left, right, skip }
    }

    fn window(&self, block: u32, strip: &Strip) -> Window {
        let s = &self.shape;
        let (first, rows) = (-s.y.pad, (block - 1) * s.y.stride + (s.y.kernel - 1) * s.y.dilation + 1);
        let step = s.x.stride * self.pixel_halves();
        let odd = step % 2 == 1 && strip.pixels > 1;
        if Self::by_columns(s) {
            let halves = (strip.left + strip.width + strip.right) * self.pixel_halves();
            // One more, so that pairs at odd halves stay in the row.
            let row_words = halves.div_ceil(2) + 1;
            return Window { first, rows, left: strip.left, row_words, odd_first: false, odd };
        }
        let pad = strip.left * s.in_channels;
        let left = pad.next_multiple_of(2);
        let (before, odd_first) = (left - pad, pad % 2 == 1);
        let needed = before + strip.skip * s.in_channels + (strip.pixels - 1) * step + Self::row_terms(s);
        let row = needed.max(left + strip.width * s.in_channels);
        let odd = odd || odd_first;
        // One more, so that pairs at odd halves stay in the row.
        let row_words = row.div_ceil(2) + u32::from(odd);
        Window { first, rows, left, row_words, odd_first, odd }
    }

    /// The kernels of a block of rows and so many columns.
    fn calls(&self, block: u32, strip: &Strip, columns: u32) -> (KernelCall, Product8) {
        let s = &self.shape;
        let w = self.window(block, strip);
        let by_columns = Self::by_columns(s);
        let pixels = strip.pixels;
        let columns_call = WidenColumns {
            src_row: self.x.row_words(),
            width: strip.width,
            channels: s.in_channels,
            first: w.first,
            rows: s.y.kernel,
            limit: s.y.input,
            step: s.y.stride,
            outputs: block,
            dst_odd: if w.odd { 0 } else { NONE },
            dst_row: w.row_words,
            left: strip.left,
            right: strip.right,
            zero: self.x_zero,
            ..Default::default()
        };
        let window_call = WidenWindow {
            src_row: self.x.row_words(),
            columns: strip.width * s.in_channels,
            first: w.first,
            rows: w.rows,
            limit: s.y.input,
            dst_odd: if w.odd { 0 } else { NONE },
            dst_row: w.row_words,
            left: w.left,
            zero: self.x_zero,
            ..Default::default()
        };
        let y_row = if columns == s.out_channels { (pixels * columns).next_multiple_of(4) } else { pixels * columns };
        let product = Product8 {
            x_row: if by_columns { 2 * w.row_words } else { s.y.stride * 2 * w.row_words },
            x_pixel: s.x.stride * self.pixel_halves(),
            x_segment: if by_columns { 0 } else { s.y.dilation * 2 * w.row_words },
            segments: if by_columns { 1 } else { s.y.kernel },
            terms: Self::row_terms(s),
            shift: self.shift,
            zero: self.zero,
            y_row,
            y_pixel: columns,
            rows: block,
            pixels,
            n: columns,
            ..Default::default()
        };
        (if by_columns { columns_call.into() } else { window_call.into() }, product)
    }

    /// The widening of a window in local memory, of the unit that a loop is at.
    fn widen(&self, call: KernelCall, (x, halves, copy): (u32, u32, u32), dx: u32, per_block: i32) -> Step {
        let (b, parity) = (reg::loop_block(0), reg::loop_parity(0));
        match call {
            KernelCall::WidenColumns(call) => run(WidenColumns { src: x, dst: halves, dst_odd: copy, ..call })
                .at(widen_columns::src, parity, dx as i32)
                .at(widen_columns::first, b, per_block),
            KernelCall::WidenWindow(call) => run(WidenWindow { src: x, dst: halves, dst_odd: copy, ..call })
                .at(widen_window::src, parity, dx as i32)
                .at(widen_window::first, b, per_block),
            other => run(other),
        }
    }

    /// Whether a pooling layer can follow in a core's local memory.
    pub fn can_pool(pool: &PoolShape) -> bool {
        let apart = |a: &Axis| a.pad == 0 && a.kernel == a.stride && a.dilation == 1 && a.output * a.stride <= a.input;
        apart(&pool.y) && apart(&pool.x)
    }

    /// Pooling of a block of the result of so many pixels a row, whose rows have `y_row` bytes.
    fn pool_call(&self, pool: &PoolShape, block: u32, pixels: u32, columns: u32, y_row: u32) -> Pool8 {
        let out_w = pixels / pool.x.stride;
        Pool8 {
            mode: pool.mode,
            x_row: y_row / 4,
            in_h: pool.y.input,
            in_w: pixels,
            channels: columns,
            y_row: (out_w * columns).div_ceil(4),
            rows: block / pool.y.stride,
            out_h: pool.y.output,
            out_w,
            kh: pool.y.kernel,
            kw: pool.x.kernel,
            stride_y: pool.y.stride,
            stride_x: pool.x.stride,
            ..Default::default()
        }
    }

    /// Bytes of the buffers: input, halves, output.
    fn buffers(&self, block: u32, strip: &Strip, columns: u32) -> [u32; 3] {
        let w = self.window(block, strip);
        let (_, product) = self.calls(block, strip, columns);
        let rows = if Self::by_columns(&self.shape) { block } else { w.rows };
        let halves = rows * w.row_words * 4;
        [
            (w.rows * self.x.row_bytes()).next_multiple_of(8),
            // A pair may reach beyond the last row.
            (if w.odd { 2 } else { 1 }) * (halves + 8).next_multiple_of(8),
            (block * product.y_row).next_multiple_of(8),
        ]
    }

    /// The best split, and what it costs.
    fn split(&self, core: CoreSlot) -> Result<(u64, Split), CompileError> {
        let s = &self.shape;
        let free = u64::from(core.buffer_bytes());
        // Slices begin and end at words.
        let panels = if s.out_channels.is_multiple_of(4) { s.out_channels / 4 } else { 1 };
        let strip = &self.whole();
        let mut best: Option<(u64, Split)> = None;
        let mut smallest = u64::MAX;
        for groups in 1..=core.cores.min(panels) {
            let own = if panels == 1 { s.out_channels } else { share_panels(s.out_channels, 0, groups).1 };
            let across = core.cores / groups;
            let step = self.pool.map_or(1, |p| p.y.stride);
            for block in (step..=s.y.output.next_multiple_of(step).min(8.max(step))).step_by(step as usize) {
                for double in [true, false] {
                    let needed = |chunk: u32| {
                        let [x, halves, y] = self.buffers(block, strip, chunk).map(u64::from);
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
                    let (widen, product) = self.calls(block, strip, own);
                    let table = if self.weights.table { u64::from(block * product.y_row) * 4 } else { 0 };
                    let pool =
                        self.pool.map_or(0, |p| cycles(self.pool_call(&p, block, s.x.output, own, product.y_row)));
                    let compute = turns * (cycles(product) + table + pool + chunks * (cycles(widen) + UNIT_CYCLES));
                    let [x, _, y] = self.buffers(block, strip, own).map(u64::from);
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
        best.ok_or_else(|| CompileError::LayerTooLarge { layer: self.layer.clone(), needed: smallest, available: free })
    }

    /// Panels of the result's channels, or 1 where they are no whole number of words.
    fn panels(&self) -> u32 {
        if self.shape.out_channels.is_multiple_of(4) { self.shape.out_channels / 4 } else { 1 }
    }

    /// Rows and columns of the convolution for one of what leaves.
    fn steps(&self) -> (u32, u32) {
        self.pool.map_or((1, 1), |pool| (pool.y.stride, pool.x.stride))
    }

    /// Columns of a cell: each begins at a word, of the operands in local memory and of the result in SDRAM.
    fn cell(&self) -> u32 {
        let s = &self.shape;
        let pixel = s.x.stride * self.pixel_halves() * self.steps().1;
        let apart = self.panels() > 1;
        let begins = |n: u32| (n * pixel).is_multiple_of(2) && (apart || (n * s.out_channels).is_multiple_of(4));
        [1, 2].into_iter().find(|&n| begins(n)).unwrap_or(4)
    }

    /// Rows and columns of what leaves.
    fn leaving(&self) -> (u32, u32) {
        self.pool.map_or((self.shape.y.output, self.shape.x.output), |pool| (pool.y.output, pool.x.output))
    }

    /// What a tile of cells of so many columns stands for.
    fn part(&self, tile: &Tile, cell: u32) -> Part {
        let (_, width) = self.leaving();
        let [row, column, panel] = tile.at;
        let column = column * cell;
        let (channel, channels) =
            if self.panels() == 1 { (0, self.shape.out_channels) } else { (4 * panel, 4 * tile.size[2]) };
        Part { row, rows: tile.size[0], column, columns: (tile.size[1] * cell).min(width - column), channel, channels }
    }

    /// Cycles of a part for one sample, if its buffers fit a core.
    fn part_cycles(&self, part: &Part, free: u32, double: bool) -> Option<u64> {
        let (step_y, step_x) = self.steps();
        let (block, pixels) = (part.rows * step_y, part.columns * step_x);
        let strip = &self.strip(part.column * step_x, pixels);
        let [x, halves, y] = self.buffers(block, strip, part.channels);
        let pooled = if self.pool.is_some() { y } else { 0 };
        let buffers = if double { 2 } else { 1 } * (x + y + pooled) + halves;
        if u64::from(self.weights.local_bytes(part.channels)) + u64::from(buffers) + 64 > u64::from(free) {
            return None;
        }
        let (widen, product) = self.calls(block, strip, part.channels);
        let pool = self.pool.map_or(0, |p| cycles(self.pool_call(&p, block, pixels, part.channels, product.y_row)));
        let table = if self.weights.table { u64::from(block * product.y_row) * 19 / 4 } else { 0 };
        let transfers = if self.by_rows(part) { u64::from(part.rows) } else { 1 };
        let moved_rows = self.window(block, strip).rows + part.rows * if self.panels() == 1 { 1 } else { part.columns };
        let moving = transfers * TRANSFER_CYCLES + u64::from(moved_rows) * ROW_CYCLES;
        Some(cycles(product) + table + pool + cycles(widen) + UNIT_CYCLES + moving)
    }

    /// Bytes of each row that are fetched: those before them, and how many. Rows that touch are one transfer, so fewer bytes of each are quicker
    /// only where all cores wait for the memory, with no other sample to compute.
    fn fetched(&self, core: CoreSlot, strip: &Strip) -> (u32, u32) {
        let row = self.x.row_bytes();
        let start = strip.start * self.shape.in_channels;
        let bytes = (strip.width * self.shape.in_channels).next_multiple_of(4);
        let saved = memory_cycles(u64::from(row - bytes) * u64::from(core.cores));
        if core.samples_max == 1 && saved > ROW_CYCLES { (start, bytes) } else { (0, row) }
    }

    /// Whether each row of a part leaves by a transfer of its own.
    fn by_rows(&self, part: &Part) -> bool {
        part.channels < self.shape.out_channels && part.columns < self.leaving().1 && part.columns > 1
    }

    /// The best cut into tiles, and what it costs.
    fn tiles(&self, core: CoreSlot) -> Option<(u64, Way)> {
        let (rows, columns) = self.leaving();
        let cell = self.cell();
        let size: Cells = [rows, columns.div_ceil(cell), self.panels()];
        let double = core.samples_max > 1;
        // What a box takes depends a little on where it lies: at which pixel of a word it begins, and on the borders.
        let cycles_of = |size: Cells| {
            let last = columns.div_ceil(cell) - size[1];
            let places = (0..=last.min(4)).chain([last]);
            places
                .map(|at| {
                    let part = self.part(&Tile { at: [0, at, 0], size }, cell);
                    self.part_cycles(&part, core.buffer_bytes(), double)
                })
                .reduce(|a, b| Some(a?.max(b?)))?
        };
        let (cycles, tiles) = cut(size, core.cores, cycles_of)?;
        let samples = u64::from(core.samples_max);
        let part_bytes = |tile: &Tile| {
            let part = self.part(tile, cell);
            let (step_y, step_x) = self.steps();
            let strip = self.strip(part.column * step_x, part.columns * step_x);
            let [x, _, y] = self.buffers(part.rows * step_y, &strip, part.channels);
            (u64::from(x + y), u64::from(self.weights.terms * part.channels), u64::from(x))
        };
        let sum = |(a, b, c): (u64, u64, u64), (x, y, z): (u64, u64, u64)| (a + x, b + y, c + z);
        let (moved, weights, first) = tiles.iter().map(part_bytes).fold((0, 0, 0), sum);
        let cost = (samples * cycles).max(memory_cycles(samples * moved + weights)) + memory_cycles(first);
        Some((cost, Way::Tiles(tiles, cell)))
    }

    /// The best way, and what it costs.
    fn best(&self, core: CoreSlot) -> Result<(u64, Way), CompileError> {
        let (cost, split) = self.split(core)?;
        Ok(self.tiles(core).filter(|(tiled, _)| *tiled < cost).unwrap_or((cost, Way::Units(split))))
    }

    /// The way with all of local memory: what the weights' size follows from.
    fn way(&self, core: CoreSlot) -> Result<Way, CompileError> {
        self.best(CoreSlot::new(core.slot, core.cores, core.samples_max, core.root)).map(|(_, way)| way)
    }

    /// Cycles of the stage, as far as they can be told, if it fits.
    pub fn cost(&self, core: CoreSlot) -> Option<u64> {
        self.best(core).ok().map(|(cost, _)| cost)
    }

    /// Columns of a core: first and number.
    fn own(&self, core: CoreSlot, split: Split) -> (u32, u32) {
        if split.groups == 1 {
            (0, self.shape.out_channels)
        } else {
            share_panels(self.shape.out_channels, core.slot % split.groups, split.groups)
        }
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
        match self.way(core) {
            Ok(Way::Units(s)) => format!("Product8 {} rows, 1/{} channels", s.block, s.groups),
            Ok(Way::Tiles(tiles, _)) => format!("Product8 {} tiles", tiles.len()),
            Err(_) => "Product8".into(),
        }
    }
    fn macs_per_sample(&self) -> u64 {
        self.shape.macs()
    }

    fn weight_bytes(&self, core: CoreSlot) -> u32 {
        let split = match self.way(core) {
            Ok(Way::Units(split)) => split,
            Ok(Way::Tiles(tiles, cell)) => {
                let own = tiles.get(core.slot as usize).map(|tile| self.part(tile, cell).channels);
                return own.map_or(0, |channels| self.weights.local_bytes(channels));
            }
            Err(_) => return 0,
        };
        let (_, own) = self.own(core, split);
        let idle = core.slot >= split.across(core) * split.groups;
        if own == 0 || idle || split.chunk < own { 0 } else { self.weights.local_bytes(own) }
    }

    fn keeps_weights(&self) -> bool {
        true
    }

    fn emit(&self, core: CoreSlot) -> Result<Emit, CompileError> {
        let core = CoreSlot { weights: core.weights.filter(|_| self.weight_bytes(core) > 0), ..core };
        match self.way(core)? {
            Way::Units(split) => self.emit_units(core, split),
            Way::Tiles(tiles, cell) => self.emit_tile(core, tiles.get(core.slot as usize).map(|t| self.part(t, cell))),
        }
    }
}

impl ByteConv {
    /// One core's box of every sample, if it has one.
    fn emit_tile(&self, core: CoreSlot, part: Option<Part>) -> Result<Emit, CompileError> {
        let s = &self.shape;
        let mut e = Emit::new(&self.layer, core);
        let Some(part) = part else { return Ok(e) };
        let parity = reg::loop_parity(0);
        let (step_y, step_x) = self.steps();
        let (block, pixels) = (part.rows * step_y, part.columns * step_x);
        let strip = self.strip(part.column * step_x, pixels);
        let w = self.window(block, &strip);
        let first = w.first + (part.row * step_y * s.y.stride) as i32;
        let local = self.weights.fetch(&mut e, core, part.channel, part.channels)?;
        e.hold(0);
        let [x_bytes, halves_bytes, y_bytes] = self.buffers(block, &strip, part.channels);
        let double = |bytes: u32| if core.samples_max > 1 { bytes } else { 0 };
        let (dx, dy) = (double(x_bytes), double(y_bytes));
        let Operands { x, y, halves, copy, even, odd } = w.alloc(&mut e, x_bytes + dx, y_bytes + dy, halves_bytes)?;
        let row = self.x.row_bytes();
        let (skipped, bytes) = self.fetched(core, &strip);
        let from = rows(false, self.x.tensor.address + skipped, x + skipped, w.rows, bytes, row, row, 0);
        let input = UnitTransfer::new(limited(from, first, s.y.input), dx).of(&self.x.tensor, 0);
        let (mut widen, product) = self.calls(block, &strip, part.channels);
        match &mut widen {
            KernelCall::WidenColumns(call) => call.first = first,
            KernelCall::WidenWindow(call) => call.first = first,
            _ => {}
        }
        let skipped = strip.skip * self.pixel_halves() * 2;
        let x_odd = if odd == NONE { NONE } else { odd + skipped };
        let mut compute = vec![
            self.widen(widen, (x + strip.start * s.in_channels, halves, copy), dx, 0),
            run(Product8 { x: even + skipped, x_odd, w: local.w, scales: local.scales, y, ..product }).at(
                product8::y,
                parity,
                dy as i32,
            ),
        ];
        if let Some(table) = local.table {
            compute.push(through_table(table, y, block * product.y_row / 4, parity, dy));
        }
        let (mut leaves, mut d_out, mut out_row) = (y, dy, product.y_row);
        if let Some(pool) = &self.pool {
            let call = self.pool_call(pool, block, pixels, part.channels, product.y_row);
            out_row = call.y_row * 4;
            let bytes = (part.rows * out_row).next_multiple_of(8);
            d_out = double(bytes);
            leaves = e.alloc(bytes + d_out)?;
            let (iy0, oy0) = ((part.row * step_y) as i32, part.row);
            compute.push(run(Pool8 { x: y, y: leaves, iy0, oy0, ..call }).at(pool8::x, parity, dy as i32).at(
                pool8::y,
                parity,
                d_out as i32,
            ));
        }
        let outputs: Vec<UnitTransfer> = self
            .tile_transfers(&part, leaves, out_row)
            .into_iter()
            .map(|to| UnitTransfer::new(to, d_out).of(&self.y.tensor, 0))
            .collect();
        let each = Units { depth: 0, start: 0, step: 1, per_sample: 1, end: Loop::NO_END };
        e.unit_loop(each, &[input], compute, &outputs);
        Ok(e)
    }

    /// How a part leaves from `at`, where its rows have `out_row` bytes.
    fn tile_transfers(&self, part: &Part, at: u32, out_row: u32) -> Vec<Dma> {
        let channels = self.shape.out_channels;
        let (height, width) = self.leaving();
        let base = self.y.tensor.address;
        if part.channels == channels {
            let to = base + part.column * channels;
            let all = rows(true, to, at, part.rows, out_row, self.y.row_bytes(), out_row, 0);
            return vec![limited(all, part.row as i32, height)];
        }
        if part.columns == 1 {
            let to = base + part.column * channels + part.channel;
            let all = rows(true, to, at, part.rows, part.channels, self.y.row_bytes(), out_row, 0);
            return vec![limited(all, part.row as i32, height)];
        }
        // Pixel by pixel, which in whole rows follow each other.
        let pixels = |row: u32, count: u32, at: u32| {
            let to = rows(true, base + part.channel, at, count, part.channels, channels, part.channels, 0);
            limited(to, (row * width + part.column) as i32, height * width)
        };
        if self.by_rows(part) {
            (0..part.rows).map(|r| pixels(part.row + r, part.columns, at + r * out_row)).collect()
        } else {
            vec![pixels(part.row, part.rows * part.columns, at)]
        }
    }

    /// One core's units.
    fn emit_units(&self, core: CoreSlot, split: Split) -> Result<Emit, CompileError> {
        let s = &self.shape;
        let mut e = Emit::new(&self.layer, core);
        let across = split.across(core);
        if core.slot >= across * split.groups {
            return Ok(e);
        }
        let (own0, own) = self.own(core, split);
        let (block, blocks_per_sample) = (split.block, s.y.output.div_ceil(split.block));
        let strip = &self.whole();
        let w = self.window(block, strip);
        let (b, parity) = (reg::loop_block(0), reg::loop_parity(0));
        let per_block = (block * s.y.stride) as i32;
        for (c0, columns) in blocks(own.div_ceil(4), split.chunk.div_ceil(4)) {
            let n0 = own0 + 4 * c0;
            let columns = (4 * columns).min(own0 + own - n0);
            let mark = e.mark();
            let before = e.items.len();
            let local = self.weights.fetch(&mut e, core, n0, columns)?;
            e.hold(before);
            let [x_bytes, halves_bytes, y_bytes] = self.buffers(block, strip, columns);
            let double = |bytes: u32| if split.double { bytes } else { 0 };
            let (dx, dy) = (double(x_bytes), double(y_bytes));
            let Operands { x, y, halves, copy, even, odd } =
                w.alloc(&mut e, x_bytes + dx, y_bytes + dy, halves_bytes)?;
            let row = self.x.row_bytes();
            let input = UnitTransfer::new(
                limited(rows(false, self.x.tensor.address, x, w.rows, row, row, row, 0), w.first, s.y.input),
                dx,
            )
            .of(&self.x.tensor, 0)
            .at(dma::FIRST, b, per_block);
            // What leaves: the result, or what is pooled of it.
            let pooled = self.pool.map(|pool| {
                let y_row = self.calls(block, strip, columns).1.y_row;
                self.pool_call(&pool, block, s.x.output, columns, y_row)
            });
            let (leaves, out_rows, out_h, out_w, d_out) = match (&pooled, self.pool) {
                (Some(call), Some(pool)) => {
                    let bytes = (call.rows * call.y_row * 4).next_multiple_of(8);
                    (e.alloc(bytes + double(bytes))?, call.rows, pool.y.output, pool.x.output, double(bytes))
                }
                _ => (y, block, s.y.output, s.x.output, dy),
            };
            let output = if columns == s.out_channels {
                let row = self.y.row_bytes();
                let to = rows(true, self.y.tensor.address, leaves, out_rows, row, row, row, 0);
                UnitTransfer::new(Dma { limit: out_h, ..to }, d_out).at(dma::FIRST, b, out_rows as i32)
            } else {
                let pixels = out_rows * out_w;
                let to = rows(true, self.y.tensor.address + n0, leaves, pixels, columns, s.out_channels, columns, 0);
                UnitTransfer::new(Dma { limit: out_h * out_w, ..to }, d_out).at(dma::FIRST, b, pixels as i32)
            }
            .of(&self.y.tensor, 0);
            let (widen, product) = self.calls(block, strip, columns);
            let mut compute = vec![
                self.widen(widen, (x, halves, copy), dx, per_block),
                run(Product8 { x: even, x_odd: odd, w: local.w, scales: local.scales, y, ..product }).at(
                    product8::y,
                    parity,
                    dy as i32,
                ),
            ];
            if let Some(table) = local.table {
                compute.push(through_table(table, y, block * product.y_row / 4, parity, dy));
            }
            if let Some(call) = pooled {
                compute.push(
                    run(Pool8 { x: y, y: leaves, ..call })
                        .at(pool8::x, parity, dy as i32)
                        .at(pool8::y, parity, d_out as i32)
                        .at(pool8::iy0, b, block as i32)
                        .at(pool8::oy0, b, out_rows as i32),
                );
            }
            let units = Units::dealt(core.slot / split.groups, across, blocks_per_sample);
            e.unit_loop(units, &[input], compute, &[output]);
            e.release(mark);
        }
        Ok(e)
    }
}
