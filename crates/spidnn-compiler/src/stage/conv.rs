//! Convolutions: forward, gradient of the input, gradient of the weights.
//!
//! A unit of work is a block of output rows of one sample (and, on a core, a tile of channels). The rows of a block follow
//! from the layer's shape alone: the input rows that a block needs share one exponent.

use spidnn_core::command::{Dma, Loop, dma, reg};
use spidnn_kernels::KernelCall;
use spidnn_kernels::call::{
    BLOCK_TERMS_MAX, BiasAct, ColumnSum, Conv, ConvHalf, ConvWgrad, ConvWgradHalf, Fill, NONE, Prep2d,
    PrepConvBackward, PrepConvBackwardHalf, PrepWindow, PrepWindowHalf, SumParts, bias_act, column_sum, conv,
    conv_wgrad, prep_window,
};

use super::{CoreSlot, FusedActivation, Mantissas, Stage, blocks, share};
use crate::CompileError;
use crate::emit::{
    BUFFER_BYTES, Emit, StepExt, TAG_ONCE, Tensor, UnitTransfer, Units, rows, run, transfer, wait, words,
};

/// One spatial axis of a convolution as the forward pass sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Axis {
    /// Cells of the input.
    pub input: u32,
    /// Cells of the output.
    pub output: u32,
    /// Cells of the kernel.
    pub kernel: u32,
    /// Stride.
    pub stride: u32,
    /// Dilation.
    pub dilation: u32,
    /// Padding before the first cell.
    pub pad: i32,
}

/// Kernel, channels and groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConvShape {
    /// Rows.
    pub y: Axis,
    /// Columns.
    pub x: Axis,
    /// Input channels.
    pub in_channels: u32,
    /// Output channels.
    pub out_channels: u32,
    /// Groups.
    pub groups: u32,
}

impl ConvShape {
    /// Input channels of a group.
    pub fn in_group(&self) -> u32 {
        self.in_channels / self.groups
    }
    /// Output channels of a group.
    pub fn out_group(&self) -> u32 {
        self.out_channels / self.groups
    }
    /// Words of the kernel.
    pub fn kernel_words(&self) -> u32 {
        self.y.kernel * self.x.kernel * self.in_group() * self.out_channels
    }
    /// Multiply-accumulates of one sample.
    pub fn macs(&self) -> u64 {
        u64::from(self.y.output) * u64::from(self.x.output) * u64::from(self.kernel_words())
    }
}

/// Rows that a block of rows of the result needs: row of block `b` is `b * per_block + first ..`, `count` of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Window {
    first: i32,
    per_block: u32,
    count: u32,
}

/// A convolution in the form of the kernel: forward, or backward with `up` = the forward stride.
#[derive(Debug, Clone, Copy)]
struct Direction {
    in_h: u32,
    in_w: u32,
    in_c: u32,
    out_h: u32,
    out_w: u32,
    out_c: u32,
    stride: (u32, u32),
    pad: (i32, i32),
    up: (u32, u32),
    /// Channels of `x` in a group, channels of `y` in a group.
    group: (u32, u32),
}

impl Direction {
    fn of(s: &ConvShape, backward: bool) -> Direction {
        if backward {
            Direction {
                in_h: s.y.output,
                in_w: s.x.output,
                in_c: s.out_channels,
                out_h: s.y.input,
                out_w: s.x.input,
                out_c: s.in_channels,
                stride: (1, 1),
                pad: (
                    ((s.y.kernel - 1) * s.y.dilation) as i32 - s.y.pad,
                    ((s.x.kernel - 1) * s.x.dilation) as i32 - s.x.pad,
                ),
                up: (s.y.stride, s.x.stride),
                group: (s.out_group(), s.in_group()),
            }
        } else {
            Direction {
                in_h: s.y.input,
                in_w: s.x.input,
                in_c: s.in_channels,
                out_h: s.y.output,
                out_w: s.x.output,
                out_c: s.out_channels,
                stride: (s.y.stride, s.x.stride),
                pad: (s.y.pad, s.x.pad),
                up: (1, 1),
                group: (s.in_group(), s.out_group()),
            }
        }
    }

    /// Input rows for blocks of `block` output rows (a multiple of `up`).
    fn window(&self, block: u32, kernel: u32, dilation: u32) -> Window {
        let up = self.up.0 as i32;
        let first = (-self.pad.0).div_euclid(up) + i32::from((-self.pad.0).rem_euclid(up) != 0);
        let last = (((block - 1) * self.stride.0 + (kernel - 1) * dilation) as i32 - self.pad.0).div_euclid(up);
        Window { first, per_block: block * self.stride.0 / self.up.0, count: (last - first + 1).max(0) as u32 }
    }
}

/// Rows of a block that suit a layer: about sixteen blocks to a picture, smaller where rows are long.
fn rows_per_block(out_rows: u32, multiple_of: u32, fits: impl Fn(u32) -> bool) -> u32 {
    let mut block = out_rows.div_ceil(16).next_multiple_of(multiple_of);
    while block > multiple_of && !fits(block) {
        block -= multiple_of;
    }
    block
}

/// Forward convolution with bias and activation, or the gradient of its input.
#[derive(Debug, Clone)]
pub struct ConvProduct {
    /// Layer.
    pub layer: String,
    /// Shape of the forward pass.
    pub shape: ConvShape,
    /// Gradient of the input instead of the forward pass.
    pub backward: bool,
    /// Operands.
    pub mantissas: Mantissas,
    /// Pictures that go in (backward: the gradient of the output).
    pub x: Tensor,
    /// Pictures that come out (backward: the gradient of the input).
    pub y: Tensor,
    /// SDRAM address of the kernel `[kh][kw][in / groups][out]`.
    pub weights: u32,
    /// SDRAM address of the exponents of a kernel that is mantissas already.
    pub prepared_exponents: Option<u32>,
    /// SDRAM address of the bias.
    pub bias: Option<u32>,
    /// Activation.
    pub activation: FusedActivation,
}

/// How a convolution is split.
#[derive(Debug, Clone, Copy)]
struct Split {
    /// Cores across channels.
    channels: u32,
    /// Channels at a time on a core.
    chunk: u32,
    /// Buffers are double.
    double: bool,
}

impl Mantissas {
    /// The kernel that brings the rows of a window to mantissas: pixels of `groups` groups of `channels` channels.
    fn prepare_window(self, window: PrepWindow, pixels: u32, channels: u32) -> KernelCall {
        match self {
            Mantissas::Words => window.into(),
            Mantissas::Halves => {
                let PrepWindow { x, first, rows, limit, exp, .. } = window;
                PrepWindowHalf { x, first, rows, limit, pixels, channels, exp }.into()
            }
        }
    }

    /// A convolution of pixels of `groups` groups; of `call`, channels of a group and of the input count channels.
    #[rustfmt::skip]
    fn convolve(self, call: Conv, groups: u32) -> KernelCall {
        if self == Mantissas::Words {
            return call.into();
        }
        let Conv {
            x, x_exp, iy0, in_h, in_w, w, w_stride, w_exps, kh, kw, ci_group, co_group, co0, co_tile, y, oy0, rows, out_h, out_w,
            stride_y, stride_x, dilation_y, dilation_x, pad_y, pad_x, up_y, up_x, accumulate, ..
        } = call;
        let ci_group = self.words(ci_group);
        ConvHalf {
            x, x_exp, iy0, in_h, in_w, in_c: groups * ci_group, w, w_stride, w_exps, kh, kw, ci_group, co_group, co0, co_tile, y, oy0,
            rows, out_h, out_w, stride_y, stride_x, dilation_y, dilation_x, pad_y, pad_x, up_y, up_x, accumulate,
        }
        .into()
    }

    /// The gradient of the weights of one group.
    #[rustfmt::skip]
    fn weight_gradient(self, call: ConvWgrad, groups: u32, group: u32) -> KernelCall {
        if self == Mantissas::Words {
            return call.into();
        }
        let ConvWgrad {
            x, x_exp, iy0, in_h, in_w, ci_tile, dy, dy_exp, co_tile, oy0, rows, out_h, out_w, dw, kh, kw, stride_y, stride_x,
            dilation_y, dilation_x, pad_y, pad_x, ..
        } = call;
        let words = self.words(ci_tile);
        ConvWgradHalf {
            x, x_exp, iy0, in_h, in_w, in_c: groups * words, ci0: 2 * group * words, ci_tile, dy, dy_exp, co_tile, oy0, rows, out_h,
            out_w, dw, kh, kw, stride_y, stride_x, dilation_y, dilation_x, pad_y, pad_x,
        }
        .into()
    }
}

impl ConvProduct {
    /// Rows of words of a kernel as it comes from SDRAM.
    fn stored_rows(&self, d: &Direction) -> u32 {
        if self.prepared_exponents.is_some() {
            self.shape.y.kernel * self.shape.x.kernel * self.mantissas.words(d.group.0)
        } else {
            self.terms(d)
        }
    }

    fn block(&self, d: &Direction) -> u32 {
        rows_per_block(d.out_h, d.up.0, |block| {
            let w = d.window(block, self.shape.y.kernel, self.shape.y.dilation);
            w.count * d.in_w * d.in_c * 4 <= 12 * 1024
        })
    }

    fn terms(&self, d: &Direction) -> u32 {
        self.shape.y.kernel * self.shape.x.kernel * d.group.0
    }

    /// Bytes of local memory with `chunk` channels at a time.
    fn bytes(&self, d: &Direction, block: u32, chunk: u32, double: bool) -> u64 {
        let w = d.window(block, self.shape.y.kernel, self.shape.y.dilation);
        let buffers = if double { 2 } else { 1 };
        let x = u64::from(w.count) * u64::from(d.in_w) * u64::from(d.in_c);
        let y = u64::from(block) * u64::from(d.out_w) * u64::from(chunk);
        let weights = u64::from(self.terms(d)) * u64::from(chunk) * if self.backward { 2 } else { 1 };
        (buffers * (x + y) + weights + 2 * u64::from(chunk) + 16) * 4
    }

    fn split(&self, core: CoreSlot, d: &Direction, block: u32) -> Result<Split, CompileError> {
        let w = d.window(block, self.shape.y.kernel, self.shape.y.dilation);
        let terms = u64::from(self.terms(d));
        let units = u64::from(core.samples_max) * u64::from(d.out_h.div_ceil(block));
        let pixels = u64::from(block) * u64::from(d.out_w);
        let window = u64::from(w.count) * u64::from(d.in_w) * u64::from(d.in_c);
        let mut best: Option<(u64, Split)> = None;
        let mut smallest = u64::MAX;
        for channels in 1..=core.cores.min(d.out_c) {
            let tile = d.out_c.div_ceil(channels);
            // The gradient of the input goes group by group.
            let limit = if self.backward && self.shape.groups > 1 { tile.min(d.group.1) } else { tile };
            let across = u64::from(core.cores / channels);
            let turns = units.div_ceil(across);
            for double in [true, false] {
                let Some(chunk) = (1..=limit).rev().find(|&c| {
                    let bytes = self.bytes(d, block, c, double);
                    smallest = smallest.min(bytes);
                    bytes <= u64::from(BUFFER_BYTES)
                }) else {
                    continue;
                };
                let chunks = u64::from(tile.div_ceil(chunk));
                let product = pixels.next_multiple_of(2) * u64::from(tile.next_multiple_of(2)) * (terms * 17 / 4 + 25);
                let compute = turns * (product + chunks * (window * 12 + 500))
                    + if self.prepared_exponents.is_some() { 0 } else { terms * u64::from(tile) * 12 };
                let moved = units * u64::from(channels) * (chunks * window + pixels * u64::from(tile))
                    + across * u64::from(d.out_c) * terms;
                let memory = moved * 4 * 10 / 32;
                let cost = compute.max(memory) + if double { 0 } else { turns * (window + pixels * u64::from(tile)) };
                if best.is_none_or(|(c, _)| cost < c) {
                    best = Some((cost, Split { channels, chunk, double }));
                }
                break;
            }
        }
        best.map(|(_, split)| split).ok_or_else(|| CompileError::LayerTooLarge {
            layer: self.layer.clone(),
            needed: smallest,
            available: BUFFER_BYTES.into(),
        })
    }
}

/// How the units of a tile of channels are dealt to the cores that share it: whole ones in turn, and what would keep only some
/// of the cores busy in slices of channels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Deal {
    /// Turns with a whole unit for every core.
    turns: u32,
    /// Slices of the channels of the units after that.
    slices: u32,
}

/// Slices of a unit at most: each needs the window of the input anew.
const SLICES_MAX: u32 = 4;

impl Deal {
    /// The deal with which the last core ends first.
    fn of(units: u64, across: u32, channels: u32, unit_cycles: u64, window_cycles: u64) -> Deal {
        let across = u64::from(across);
        let whole = units.div_ceil(across);
        let mut best = (whole * (unit_cycles + window_cycles), Deal { turns: whole as u32, slices: 1 });
        for slices in (2..=SLICES_MAX.min(channels)).filter(|&s| channels.is_multiple_of(s)) {
            let groups = across / u64::from(slices);
            if groups == 0 {
                continue;
            }
            for turns in whole.saturating_sub(3)..whole {
                let rest = (units - units.min(turns * across)).div_ceil(groups);
                let cost =
                    turns * (unit_cycles + window_cycles) + rest * (unit_cycles / u64::from(slices) + window_cycles);
                if cost < best.0 {
                    best = (cost, Deal { turns: turns as u32, slices });
                }
            }
        }
        best.1
    }

    /// The loops of a core: units, first channel of the slice and its channels. There are two of them always where slices
    /// could be, so that lists do not grow with the batch.
    fn loops(&self, index: u32, across: u32, per_sample: u32, channels: u32) -> Vec<(Units, u32, u32)> {
        let whole = Units::dealt(index, across, per_sample);
        if across == 1 || channels == 1 {
            return vec![(whole, 0, channels)];
        }
        let end = self.turns.saturating_mul(across);
        let groups = across / self.slices;
        let (group, slice) = (index / self.slices, index % self.slices);
        // Cores beyond the last group have nothing left to do.
        let start = if group < groups { end.saturating_add(group) } else { Loop::NO_END };
        let length = channels / self.slices;
        let rest = Units { start, step: groups, ..whole };
        vec![(Units { end, ..whole }, 0, channels), (rest, slice * length, length)]
    }
}

impl ConvProduct {
    /// How `across` cores share the units of a tile of channels.
    fn deal(&self, core: CoreSlot, d: &Direction, block: u32, across: u32, channels: u32) -> Deal {
        let w = d.window(block, self.shape.y.kernel, self.shape.y.dilation);
        let units = u64::from(core.samples_max) * u64::from(d.out_h.div_ceil(block));
        let pixels = u64::from(block) * u64::from(d.out_w);
        let window_cycles = u64::from(w.count) * u64::from(d.in_w) * u64::from(d.in_c) * 13 + 500;
        let unit_cycles = pixels * u64::from(channels) * (u64::from(self.terms(d)) * 17 / 4 + 35);
        Deal::of(units, across, channels, unit_cycles, window_cycles)
    }
}

impl Stage for ConvProduct {
    fn layer(&self) -> &str {
        &self.layer
    }
    fn what(&self) -> &'static str {
        if self.backward { "input gradient" } else { "forward" }
    }
    fn kernel(&self, core: CoreSlot) -> String {
        let d = Direction::of(&self.shape, self.backward);
        let block = self.block(&d);
        match self.split(core, &d, block) {
            Ok(s) => format!("Conv {} rows, 1/{} channels", block, s.channels),
            Err(_) => "Conv".into(),
        }
    }
    fn macs_per_sample(&self) -> u64 {
        self.shape.macs()
    }

    fn weight_bytes(&self, core: CoreSlot) -> u32 {
        let d = Direction::of(&self.shape, self.backward);
        let Ok(split) = self.split(core, &d, self.block(&d)) else { return 0 };
        let (_, tile) = share(d.out_c, core.slot % split.channels, split.channels);
        let idle = core.slot >= core.cores / split.channels * split.channels;
        if split.chunk < tile || idle || (self.backward && self.shape.groups > 1) {
            return 0;
        }
        // Weights, and in the forward pass exponents and bias.
        (self.stored_rows(&d) + if self.backward { 0 } else { 2 }) * tile * 4
    }

    fn keeps_weights(&self) -> bool {
        self.prepared_exponents.is_some()
    }

    fn emit(&self, core: CoreSlot) -> Result<Emit, CompileError> {
        let s = &self.shape;
        let d = Direction::of(s, self.backward);
        let terms = self.terms(&d);
        if terms > BLOCK_TERMS_MAX {
            return Err(CompileError::TooManyTerms {
                layer: self.layer.clone(),
                terms: terms as usize,
                limit: BLOCK_TERMS_MAX as usize,
            });
        }
        let block = self.block(&d);
        let split = self.split(core, &d, block)?;
        let mut e = Emit::new(&self.layer, core);
        let placed = core.weights.filter(|_| self.weight_bytes(core) > 0);
        let across = core.cores / split.channels;
        if core.slot >= across * split.channels {
            return Ok(e);
        }
        let (tile0, tile) = share(d.out_c, core.slot % split.channels, split.channels);
        let unit_index = core.slot / split.channels;
        let w = d.window(block, s.y.kernel, s.y.dilation);
        let row_words = d.in_w * d.in_c;

        // Chunks of channels; the gradient of the input of a grouped convolution does not cross groups.
        let mut chunks = Vec::new();
        if self.backward && s.groups > 1 {
            let mut c = tile0;
            while c < tile0 + tile {
                let group_end = (c / d.group.1 + 1) * d.group.1;
                let length = split.chunk.min(group_end.min(tile0 + tile) - c);
                chunks.push((c, length));
                c += length;
            }
        } else {
            chunks.extend(blocks(tile, split.chunk).into_iter().map(|(c, length)| (tile0 + c, length)));
        }

        for (c0, channels) in chunks {
            let mark = e.mark();
            let before = e.items.len();
            let mut fetches = Vec::new();
            let mut bias = NONE;
            let fetched = placed.map(|p| p.fetched);
            let (weights, w_exps);
            if self.backward {
                let group = c0 / d.group.1;
                let first = c0 - group * d.group.1;
                let raw = match placed {
                    Some(placed) => placed.at,
                    None => e.alloc_words(terms * channels)?,
                };
                (weights, w_exps) = (e.alloc_words(terms * channels)?, e.alloc_words(channels)?);
                // Rows [ky][kx][channel], of each the output channels of the group: in one piece if it is all of them.
                let whole = s.groups == 1 && channels == s.in_channels;
                if whole {
                    fetches.push(words(false, self.weights, raw, terms * channels, 0));
                }
                for tap in (0..s.y.kernel * s.x.kernel).filter(|_| !whole) {
                    let from =
                        self.weights + ((tap * s.in_group() + first) * s.out_channels + group * s.out_group()) * 4;
                    let bytes = s.out_group() * 4;
                    let at = raw + tap * channels * bytes;
                    fetches.push(rows(false, from, at, channels, bytes, s.out_channels * 4, bytes, 0));
                }
                e.fetch_weights(fetched, fetches);
                let (src, dst, exps, kh, kw) = (raw, weights, w_exps, s.y.kernel, s.x.kernel);
                let (ci, co) = (channels, s.out_group());
                e.push(match self.mantissas {
                    Mantissas::Words => run(PrepConvBackward { src, dst, exps, kh, kw, ci, co }),
                    Mantissas::Halves => run(PrepConvBackwardHalf { src, dst, exps, kh, kw, ci, co }),
                });
            } else {
                let stored = self.stored_rows(&d);
                (weights, w_exps) = match placed {
                    Some(placed) => (placed.at, placed.at + stored * channels * 4),
                    None => (e.alloc_words(stored * channels)?, e.alloc_words(channels)?),
                };
                let from = self.weights + c0 * 4;
                fetches.push(rows(false, from, weights, stored, channels * 4, d.out_c * 4, channels * 4, 0));
                if let Some(address) = self.prepared_exponents {
                    fetches.push(words(false, address + c0 * 4, w_exps, channels, 0));
                }
                if let Some(address) = self.bias {
                    bias = match placed {
                        Some(_) => w_exps + channels * 4,
                        None => e.alloc_words(channels)?,
                    };
                    fetches.push(words(false, address + c0 * 4, bias, channels, 0));
                }
                e.fetch_weights(fetched, fetches);
                if self.prepared_exponents.is_none() {
                    let call = Prep2d {
                        src: weights,
                        rows: terms,
                        cols: channels,
                        src_stride: channels,
                        dst: weights,
                        dst_row_stride: channels,
                        dst_col_stride: 1,
                        exps: w_exps,
                        axis: 2,
                    };
                    e.push(run(self.mantissas.prepare(call, d.group.0)));
                }
            }
            let x_exp = e.alloc_words(1)?;
            let x_bytes = (w.count * row_words * 4).next_multiple_of(8);
            let y_bytes = (block * d.out_w * channels * 4).next_multiple_of(8);
            let double = |bytes: u32| if split.double { bytes } else { 0 };
            let x = e.alloc(x_bytes + double(x_bytes))?;
            let y = e.alloc(y_bytes + double(y_bytes))?;

            let b = reg::loop_block(0);
            let parity = reg::loop_parity(0);
            let (dx, dy) = (double(x_bytes) as i32, double(y_bytes) as i32);
            let input = UnitTransfer::new(
                Dma {
                    first: w.first,
                    limit: d.in_h,
                    ..rows(false, self.x.address, x, w.count, row_words * 4, row_words * 4, row_words * 4, 0)
                },
                dx as u32,
            )
            .of(&self.x, 0)
            .at(dma::FIRST, b, w.per_block as i32);
            let blocks = d.out_h.div_ceil(block);
            e.hold(before);
            let deal = self.deal(core, &d, block, across, channels);
            for (units, offset, slice) in deal.loops(unit_index, across, blocks, channels) {
                let output = if slice == d.out_c {
                    let row = d.out_w * d.out_c * 4;
                    UnitTransfer::new(
                        Dma { limit: d.out_h, ..rows(true, self.y.address, y, block, row, row, row, 0) },
                        dy as u32,
                    )
                    .at(dma::FIRST, b, block as i32)
                } else {
                    let pixels = block * d.out_w;
                    let address = self.y.address + (c0 + offset) * 4;
                    let to = rows(true, address, y, pixels, slice * 4, d.out_c * 4, slice * 4, 0);
                    UnitTransfer::new(Dma { limit: d.out_h * d.out_w, ..to }, dy as u32).at(
                        dma::FIRST,
                        b,
                        pixels as i32,
                    )
                }
                .of(&self.y, 0);
                let mut compute = vec![
                    run(self.mantissas.prepare_window(
                        PrepWindow { x, first: w.first, rows: w.count, limit: d.in_h, row_words, exp: x_exp },
                        d.in_w * s.groups,
                        d.group.0,
                    ))
                    .at(prep_window::x, parity, dx)
                    .at(prep_window::first, b, w.per_block as i32),
                    run(self.mantissas.convolve(
                        Conv {
                            x,
                            x_exp,
                            iy0: w.first,
                            in_h: d.in_h,
                            in_w: d.in_w,
                            in_c: d.in_c,
                            w: weights + offset * 4,
                            w_stride: channels,
                            w_exps: w_exps + offset * 4,
                            kh: s.y.kernel,
                            kw: s.x.kernel,
                            ci_group: d.group.0,
                            co_group: d.group.1,
                            co0: c0 + offset,
                            co_tile: slice,
                            y,
                            oy0: 0,
                            rows: block,
                            out_h: d.out_h,
                            out_w: d.out_w,
                            stride_y: d.stride.0,
                            stride_x: d.stride.1,
                            dilation_y: s.y.dilation,
                            dilation_x: s.x.dilation,
                            pad_y: d.pad.0,
                            pad_x: d.pad.1,
                            up_y: d.up.0,
                            up_x: d.up.1,
                            accumulate: 0,
                        },
                        s.groups,
                    ))
                    .at(conv::x, parity, dx)
                    .at(conv::y, parity, dy)
                    .at(conv::iy0, b, w.per_block as i32)
                    .at(conv::oy0, b, block as i32),
                ];
                if bias != NONE || self.activation != FusedActivation::LINEAR {
                    compute.push(
                        run(BiasAct {
                            y,
                            rows: block * d.out_w,
                            cols: slice,
                            stride: slice,
                            bias: if bias == NONE { NONE } else { bias + offset * 4 },
                            activation: self.activation.kind as u32,
                            alpha_bits: self.activation.alpha.to_bits(),
                        })
                        .at(bias_act::y, parity, dy),
                    );
                }
                e.unit_loop(units, std::slice::from_ref(&input), compute, &[output]);
            }
            e.release(mark);
        }
        Ok(e)
    }
}

/// Gradients of a convolution's kernel and bias: each core sums over its share of the rows, for its tile of the kernel;
/// where several cores share a tile their sums go to `partials`, and [`ConvGradientSum`] adds them.
#[derive(Debug, Clone)]
pub struct ConvGradient {
    /// Layer.
    pub layer: String,
    /// Shape of the forward pass.
    pub shape: ConvShape,
    /// Input of the layer.
    pub x: Tensor,
    /// Gradient of its output (before the activation).
    pub dy: Tensor,
    /// Operands.
    pub mantissas: Mantissas,
    /// SDRAM address of the partial sums: [`ConvGradient::partial_words`] words.
    pub partials: u32,
    /// SDRAM address of the kernel's gradient.
    pub kernel_gradient: u32,
    /// SDRAM address of the bias' gradient.
    pub bias_gradient: Option<u32>,
    /// Add to what is there (a layer that is used more than once).
    pub accumulate: bool,
}

/// How a gradient of convolution weights is split.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct GradientSplit {
    /// Tiles of output channels in each group.
    tiles: u32,
    /// Cores that share a tile.
    across: u32,
    double: bool,
}

impl ConvGradient {
    fn block(&self) -> u32 {
        let s = &self.shape;
        let d = Direction::of(s, false);
        let mut block = (256 / s.x.output.max(1)).clamp(1, s.y.output);
        while block > 1 {
            let w = d.window(block, s.y.kernel, s.y.dilation);
            let dy = block * s.x.output * s.out_group();
            if block * s.x.output <= BLOCK_TERMS_MAX && (w.count * s.x.input * s.in_channels + dy) * 4 <= 14 * 1024 {
                break;
            }
            block -= 1;
        }
        block
    }

    /// Words of a tile: its kernel values, then its bias values.
    fn tile_words(&self, channels: u32) -> u32 {
        (self.shape.y.kernel * self.shape.x.kernel * self.shape.in_group() + 1) * channels
    }

    fn bytes(&self, block: u32, channels: u32, double: bool) -> u64 {
        let s = &self.shape;
        let w = Direction::of(s, false).window(block, s.y.kernel, s.y.dilation);
        let x = u64::from(w.count) * u64::from(s.x.input) * u64::from(s.in_channels);
        let dy = u64::from(block) * u64::from(s.x.output) * u64::from(channels);
        ((x + dy) * if double { 2 } else { 1 } + u64::from(self.tile_words(channels)) + 16) * 4
    }

    fn split(&self, core: CoreSlot) -> Result<GradientSplit, CompileError> {
        let s = &self.shape;
        let block = self.block();
        let w = Direction::of(s, false).window(block, s.y.kernel, s.y.dilation);
        let units = u64::from(core.samples_max) * u64::from(s.y.output.div_ceil(block));
        let mut best: Option<(u64, GradientSplit)> = None;
        let mut smallest = u64::MAX;
        for tiles in 1..=s.out_group() {
            let channels = s.out_group().div_ceil(tiles);
            let all = tiles * s.groups;
            let across = (core.cores / all).max(1);
            for double in [true, false] {
                let bytes = self.bytes(block, channels, double);
                smallest = smallest.min(bytes);
                if bytes > u64::from(BUFFER_BYTES) {
                    continue;
                }
                let tile_words = u64::from(self.tile_words(channels));
                let pixels = u64::from(block) * u64::from(s.x.output);
                let window = u64::from(w.count) * u64::from(s.x.input) * u64::from(s.in_channels);
                let dy = pixels * u64::from(channels);
                let turns = units.div_ceil(across.into()) * u64::from(all.div_ceil(core.cores));
                let compute = turns * (tile_words * (pixels * 17 / 4 + 45) + (window + dy) * 12)
                    + u64::from(across) * tile_words * u64::from(all) * 30 / u64::from(core.cores);
                let moved = units * u64::from(all) * (window + dy) + 2 * u64::from(across * all) * tile_words;
                let cost = compute.max(moved * 4 * 10 / 32) + if double { 0 } else { turns * (window + dy) };
                if best.is_none_or(|(c, _)| cost < c) {
                    best = Some((cost, GradientSplit { tiles, across, double }));
                }
                break;
            }
        }
        best.map(|(_, split)| split).ok_or_else(|| CompileError::LayerTooLarge {
            layer: self.layer.clone(),
            needed: smallest,
            available: BUFFER_BYTES.into(),
        })
    }

    /// Tiles: first output channel and number of channels of each.
    fn tiles(&self, split: GradientSplit) -> Vec<(u32, u32)> {
        (0..self.shape.groups)
            .flat_map(|g| {
                let per_group = self.shape.out_group();
                (0..split.tiles).map(move |t| {
                    let (c, n) = share(per_group, t, split.tiles);
                    (g * per_group + c, n)
                })
            })
            .filter(|&(_, n)| n > 0)
            .collect()
    }

    /// Words of partial sums that a chip with any number of cores up to `cores` needs.
    pub fn partial_words(&self, cores: u32) -> u32 {
        self.tile_words(self.shape.out_channels) * cores
    }

    fn partial(&self, channel0: u32, channels: u32, part: u32) -> u32 {
        let before = self.tile_words(channel0) * crate::lower::CORES_MAX;
        self.partials + (before + part * self.tile_words(channels)) * 4
    }

    /// Transfers between a tile in local memory and the gradients.
    fn gradient_transfers(&self, out: bool, at: u32, c0: u32, channels: u32) -> Vec<Dma> {
        let s = &self.shape;
        let kernel_rows = s.y.kernel * s.x.kernel * s.in_group();
        let mut all = vec![rows(
            out,
            self.kernel_gradient + c0 * 4,
            at,
            kernel_rows,
            channels * 4,
            s.out_channels * 4,
            channels * 4,
            TAG_ONCE,
        )];
        if let Some(bias) = self.bias_gradient {
            all.push(words(out, bias + c0 * 4, at + kernel_rows * channels * 4, channels, TAG_ONCE));
        }
        all
    }
}

impl Stage for ConvGradient {
    fn layer(&self) -> &str {
        &self.layer
    }
    fn what(&self) -> &'static str {
        "weight gradient"
    }
    fn kernel(&self, core: CoreSlot) -> String {
        match self.split(core) {
            Ok(s) => format!("ConvWgrad {} rows, {} tiles x {}", self.block(), s.tiles * self.shape.groups, s.across),
            Err(_) => "ConvWgrad".into(),
        }
    }
    fn macs_per_sample(&self) -> u64 {
        self.shape.macs()
    }

    fn emit(&self, core: CoreSlot) -> Result<Emit, CompileError> {
        let s = &self.shape;
        let d = Direction::of(s, false);
        let block = self.block();
        let split = self.split(core)?;
        let tiles = self.tiles(split);
        let mut e = Emit::new(&self.layer, core);
        let w = d.window(block, s.y.kernel, s.y.dilation);
        let row_words = s.x.input * s.in_channels;
        let kernel_rows = s.y.kernel * s.x.kernel * s.in_group();
        let count = tiles.len() as u32;
        let mine: Vec<(u32, u32)> = if count >= core.cores {
            (core.slot..count).step_by(core.cores as usize).map(|t| (t, 0)).collect()
        } else if core.slot < count * split.across {
            vec![(core.slot % count, core.slot / count)]
        } else {
            Vec::new()
        };
        for (t, part) in mine {
            let mark = e.mark();
            let (c0, channels) = tiles[t as usize];
            let group = c0 / s.out_group();
            let dw = e.alloc_words(self.tile_words(channels))?;
            let db = dw + kernel_rows * channels * 4;
            let x_exp = e.alloc_words(1)?;
            let dy_exp = e.alloc_words(1)?;
            let x_bytes = (w.count * row_words * 4).next_multiple_of(8);
            let dy_bytes = (block * s.x.output * channels * 4).next_multiple_of(8);
            let double = |bytes: u32| if split.double { bytes } else { 0 };
            let x = e.alloc(x_bytes + double(x_bytes))?;
            let dy = e.alloc(dy_bytes + double(dy_bytes))?;
            let (dx_toggle, dy_toggle) = (double(x_bytes) as i32, double(dy_bytes) as i32);
            e.push(run(Fill { dst: dw, count: self.tile_words(channels), value_bits: 0 }));

            let b = reg::loop_block(0);
            let parity = reg::loop_parity(0);
            let input = UnitTransfer::new(
                Dma {
                    first: w.first,
                    limit: s.y.input,
                    ..rows(false, self.x.address, x, w.count, row_words * 4, row_words * 4, row_words * 4, 0)
                },
                dx_toggle as u32,
            )
            .of(&self.x, 0)
            .at(dma::FIRST, b, w.per_block as i32);
            let gradient = if channels == s.out_channels {
                let row = s.x.output * s.out_channels * 4;
                UnitTransfer::new(
                    Dma { limit: s.y.output, ..rows(false, self.dy.address, dy, block, row, row, row, 0) },
                    dy_toggle as u32,
                )
                .at(dma::FIRST, b, block as i32)
            } else {
                let pixels = block * s.x.output;
                let from = rows(
                    false,
                    self.dy.address + c0 * 4,
                    dy,
                    pixels,
                    channels * 4,
                    s.out_channels * 4,
                    channels * 4,
                    0,
                );
                UnitTransfer::new(Dma { limit: s.y.output * s.x.output, ..from }, dy_toggle as u32).at(
                    dma::FIRST,
                    b,
                    pixels as i32,
                )
            }
            .of(&self.dy, 0);

            let whole = s.y.output.is_multiple_of(block);
            let mut compute = Vec::new();
            if self.bias_gradient.is_some() {
                let call = ColumnSum {
                    op: 0,
                    x: dy,
                    y: NONE,
                    rows: block * s.x.output,
                    cols: channels,
                    row_stride: channels,
                    sum: db,
                };
                compute.push(run(call).at(column_sum::x, parity, dy_toggle));
            }
            compute.push(
                run(self.mantissas.prepare_window(
                    PrepWindow { x, first: w.first, rows: w.count, limit: s.y.input, row_words, exp: x_exp },
                    s.x.input * s.groups,
                    s.in_group(),
                ))
                .at(prep_window::x, parity, dx_toggle)
                .at(prep_window::first, b, w.per_block as i32),
            );
            compute.push(
                run(self.mantissas.prepare_window(
                    PrepWindow {
                        x: dy,
                        first: 0,
                        rows: block,
                        limit: s.y.output,
                        row_words: s.x.output * channels,
                        exp: dy_exp,
                    },
                    s.x.output,
                    channels,
                ))
                .at(prep_window::x, parity, dy_toggle)
                .at(prep_window::first, b, block as i32),
            );
            compute.push(
                run(self.mantissas.weight_gradient(
                    ConvWgrad {
                        x,
                        x_exp,
                        iy0: w.first,
                        in_h: s.y.input,
                        in_w: s.x.input,
                        in_c: s.in_channels,
                        ci0: group * s.in_group(),
                        ci_tile: s.in_group(),
                        dy,
                        dy_exp,
                        co_tile: channels,
                        oy0: 0,
                        rows: block,
                        out_h: s.y.output,
                        out_w: s.x.output,
                        dw,
                        kh: s.y.kernel,
                        kw: s.x.kernel,
                        stride_y: s.y.stride,
                        stride_x: s.x.stride,
                        dilation_y: s.y.dilation,
                        dilation_x: s.x.dilation,
                        pad_y: s.y.pad,
                        pad_x: s.x.pad,
                    },
                    s.groups,
                    group,
                ))
                .at(conv_wgrad::x, parity, dx_toggle)
                .at(conv_wgrad::dy, parity, dy_toggle)
                .at(conv_wgrad::iy0, b, w.per_block as i32)
                .at(conv_wgrad::oy0, b, block as i32),
            );
            if !whole {
                // The rows that a partial last block lacks must read as zero in the bias sum.
                compute.push(run(Fill { dst: dy, count: block * s.x.output * channels, value_bits: 0 }).at(
                    spidnn_kernels::call::fill::dst,
                    parity,
                    dy_toggle,
                ));
                e.push(run(Fill { dst: dy, count: (dy_bytes + double(dy_bytes)) / 4, value_bits: 0 }));
            }
            e.unit_loop(Units::dealt(part, split.across, s.y.output.div_ceil(block)), &[input, gradient], compute, &[]);
            if split.across > 1 {
                e.push(transfer(words(
                    true,
                    self.partial(c0, channels, part),
                    dw,
                    self.tile_words(channels),
                    TAG_ONCE,
                )));
            } else {
                if self.accumulate {
                    let old = e.alloc_words(self.tile_words(channels))?;
                    for t in self.gradient_transfers(false, old, c0, channels) {
                        e.push(transfer(t));
                    }
                    e.push(wait(TAG_ONCE));
                    let count = kernel_rows * channels + if self.bias_gradient.is_some() { channels } else { 0 };
                    e.push(run(spidnn_kernels::call::Map2 { op: 0, a: old, b: dw, out: dw, count }));
                }
                for t in self.gradient_transfers(true, dw, c0, channels) {
                    e.push(transfer(t));
                }
            }
            e.push(wait(TAG_ONCE));
            e.release(mark);
        }
        Ok(e)
    }
}

/// Adds the partial sums of a [`ConvGradient`], in ascending order of the parts.
#[derive(Debug, Clone)]
pub struct ConvGradientSum {
    /// The stage whose sums these are.
    pub of: ConvGradient,
}

impl Stage for ConvGradientSum {
    fn layer(&self) -> &str {
        &self.of.layer
    }
    fn what(&self) -> &'static str {
        "gradient sum"
    }
    fn kernel(&self, core: CoreSlot) -> String {
        self.of.split(core).map(|s| format!("SumParts {}", s.across)).unwrap_or_default()
    }

    fn emit(&self, core: CoreSlot) -> Result<Emit, CompileError> {
        let g = &self.of;
        let s = &g.shape;
        let split = g.split(core)?;
        let mut e = Emit::new(&g.layer, core);
        if split.across == 1 {
            return Ok(e);
        }
        // Rows of the tile (kernel values of one position and input channel; the last row is the bias), dealt to the cores.
        let kernel_rows = s.y.kernel * s.x.kernel * s.in_group();
        let all_rows = kernel_rows + u32::from(g.bias_gradient.is_some());
        for (c0, channels) in g.tiles(split) {
            let (r0, own) = share(all_rows, core.slot, core.cores);
            let parts = split.across + u32::from(g.accumulate);
            let limit = (core.buffer_bytes() / 4 - 64) / ((parts + 1) * channels).max(1);
            if limit == 0 {
                return Err(CompileError::LayerTooLarge {
                    layer: g.layer.clone(),
                    needed: u64::from((parts + 1) * channels) * 4,
                    available: BUFFER_BYTES.into(),
                });
            }
            if own == 0 {
                continue;
            }
            for (o, n) in blocks(own, limit) {
                let mark = e.mark();
                let first = r0 + o;
                let count = n * channels;
                let src = e.alloc_words(parts * count)?;
                let sum = e.alloc_words(count)?;
                // Kernel rows and the bias row lie apart in the gradient vector.
                let in_kernel = kernel_rows.saturating_sub(first).min(n);
                let gradient = |out: bool, at: u32| {
                    let mut all = Vec::new();
                    if in_kernel > 0 {
                        let address = g.kernel_gradient + (first * s.out_channels + c0) * 4;
                        all.push(rows(
                            out,
                            address,
                            at,
                            in_kernel,
                            channels * 4,
                            s.out_channels * 4,
                            channels * 4,
                            TAG_ONCE,
                        ));
                    }
                    if let (true, Some(bias)) = (in_kernel < n, g.bias_gradient) {
                        all.push(words(out, bias + c0 * 4, at + in_kernel * channels * 4, channels, TAG_ONCE));
                    }
                    all
                };
                if g.accumulate {
                    for t in gradient(false, src) {
                        e.push(transfer(t));
                    }
                }
                let own_parts = src + if g.accumulate { count * 4 } else { 0 };
                let from = g.partial(c0, channels, 0) + first * channels * 4;
                e.push(transfer(rows(
                    false,
                    from,
                    own_parts,
                    split.across,
                    count * 4,
                    g.tile_words(channels) * 4,
                    count * 4,
                    TAG_ONCE,
                )));
                e.push(wait(TAG_ONCE));
                e.push(run(SumParts { src, parts, stride: count, count, dst: sum }));
                for t in gradient(true, sum) {
                    e.push(transfer(t));
                }
                e.push(wait(TAG_ONCE));
                e.release(mark);
            }
        }
        Ok(e)
    }
}
