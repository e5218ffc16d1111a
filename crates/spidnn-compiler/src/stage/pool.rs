//! Pooling, forward and backward. A unit is a block of rows of one sample.

use spidnn_core::command::{Dma, dma, reg};
use spidnn_kernels::call::{NONE, Pool, PoolGrad, pool, pool_grad};

use super::conv::Axis;
use super::{CoreSlot, Stage, share};
use crate::CompileError;
use crate::emit::{Emit, StepExt, Tensor, UnitTransfer, Units, rows, run};
use crate::report::memory_cycles;

/// Geometry of a pooling layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolShape {
    /// Rows.
    pub y: Axis,
    /// Columns.
    pub x: Axis,
    /// Channels.
    pub channels: u32,
    /// 0 maximum, 1 average.
    pub mode: u32,
}

fn div_floor(a: i32, b: u32) -> i32 {
    a.div_euclid(b as i32)
}
fn div_ceil(a: i32, b: u32) -> i32 {
    -((-a).div_euclid(b as i32))
}

/// Cycles around a unit's kernel: commands and the latencies of its transfers, as far as nothing hides them.
const UNIT_CYCLES: u64 = 800;

/// Rows of a block (at most `rows`) with which the busiest of `across` cores has least to do, and how long that takes. A block
/// moves `bytes` of memory.
fn block_of(core: CoreSlot, across: u32, rows: u32, row_cycles: u64, bytes: impl Fn(u32) -> u32) -> (u64, u32) {
    let cost = |block: u32| {
        let units = u64::from(core.samples_max) * u64::from(rows.div_ceil(block));
        // All cores move their first block at once, and nothing hides that.
        let first = memory_cycles(u64::from(bytes(block)) * u64::from(core.cores));
        units.div_ceil(across.max(1).into()) * (u64::from(block) * row_cycles + UNIT_CYCLES) + first
    };
    let fitting = (1..=rows.max(1)).filter(|&block| block == 1 || bytes(block) * 2 + 256 <= core.buffer_bytes());
    fitting.map(|block| (cost(block), block)).min().unwrap_or((0, 1))
}

/// Parts of the columns that cores share at most.
const PARTS_MAX: u32 = 4;

/// Takes double buffers if they fit, else single ones: bytes of each buffer in, toggles out.
fn buffers(e: &mut Emit, core: CoreSlot, sizes: &[u32]) -> Result<(Vec<u32>, Vec<u32>), CompileError> {
    let total: u64 = sizes.iter().map(|&s| u64::from(s.next_multiple_of(8))).sum();
    let double = total * 2 + 64 <= u64::from(core.buffer_bytes());
    let mut at = Vec::new();
    let mut toggles = Vec::new();
    for &size in sizes {
        let size = size.next_multiple_of(8);
        at.push(e.alloc(if double { 2 * size } else { size })?);
        toggles.push(if double { size } else { 0 });
    }
    Ok((at, toggles))
}

/// Forward.
#[derive(Debug, Clone)]
pub struct PoolStage {
    /// Layer.
    pub layer: String,
    /// Geometry.
    pub shape: PoolShape,
    /// Input.
    pub x: Tensor,
    /// Result.
    pub y: Tensor,
}

impl Stage for PoolStage {
    fn layer(&self) -> &str {
        &self.layer
    }
    fn what(&self) -> &'static str {
        "forward"
    }
    fn kernel(&self, _: CoreSlot) -> String {
        if self.shape.mode == 0 { "Pool maximum".into() } else { "Pool average".into() }
    }
    fn emit(&self, core: CoreSlot) -> Result<Emit, CompileError> {
        let s = &self.shape;
        let mut e = Emit::new(&self.layer, core);
        // Windows that share nothing can be dealt by columns, too: pictures may have fewer rows than there are cores.
        let apart = s.x.pad == 0 && s.x.kernel <= s.x.stride && s.x.output * s.x.stride <= s.x.input;
        let width = |columns: u32| if columns == s.x.output { s.x.input } else { columns * s.x.stride };
        let cell_cycles = u64::from(s.y.kernel) * u64::from(s.x.kernel) * 28 + 20;
        let needs = |columns: u32, block: u32| {
            let count = (block - 1) * s.y.stride + s.y.kernel;
            (count * width(columns) + block * columns) * s.channels * 4
        };
        let choice = |parts: u32| {
            let columns = s.x.output.div_ceil(parts);
            let row_cycles = u64::from(columns) * u64::from(s.channels) * cell_cycles;
            let (cost, block) =
                block_of(core, core.cores / parts, s.y.output, row_cycles, |block| needs(columns, block));
            (cost, parts, block)
        };
        let most = if apart { PARTS_MAX.min(s.x.output).min(core.cores) } else { 1 };
        let (_, parts, block) = (1..=most).map(choice).min().unwrap_or((0, 1, 1));
        let across = core.cores / parts;
        if core.slot >= across * parts {
            return Ok(e);
        }
        let (x0, columns) = share(s.x.output, core.slot % parts, parts);
        let (pixel, input_columns) = (s.channels * 4, width(columns));
        let (in_bytes, out_bytes) = (input_columns * pixel, columns * pixel);
        let count = (block - 1) * s.y.stride + s.y.kernel;
        let (at, toggle) = buffers(&mut e, core, &[count * in_bytes, block * out_bytes])?;
        let b = reg::loop_block(0);
        let parity = reg::loop_parity(0);
        let per_block = (block * s.y.stride) as i32;
        let input = UnitTransfer::new(
            Dma {
                first: -s.y.pad,
                limit: s.y.input,
                ..rows(
                    false,
                    self.x.address + x0 * s.x.stride * pixel,
                    at[0],
                    count,
                    in_bytes,
                    s.x.input * pixel,
                    in_bytes,
                    0,
                )
            },
            toggle[0],
        )
        .of(&self.x, 0)
        .at(dma::FIRST, b, per_block);
        let to = self.y.address + x0 * pixel;
        let output = UnitTransfer::new(
            Dma { limit: s.y.output, ..rows(true, to, at[1], block, out_bytes, s.x.output * pixel, out_bytes, 0) },
            toggle[1],
        )
        .of(&self.y, 0)
        .at(dma::FIRST, b, block as i32);
        let compute = vec![
            run(Pool {
                mode: s.mode,
                x: at[0],
                iy0: -s.y.pad,
                in_h: s.y.input,
                in_w: input_columns,
                channels: s.channels,
                y: at[1],
                oy0: 0,
                rows: block,
                out_h: s.y.output,
                out_w: columns,
                kh: s.y.kernel,
                kw: s.x.kernel,
                stride_y: s.y.stride,
                stride_x: s.x.stride,
                pad_y: s.y.pad,
                pad_x: s.x.pad,
            })
            .at(pool::x, parity, toggle[0] as i32)
            .at(pool::y, parity, toggle[1] as i32)
            .at(pool::iy0, b, per_block)
            .at(pool::oy0, b, block as i32),
        ];
        let units = Units::dealt(core.slot / parts, across, s.y.output.div_ceil(block));
        e.unit_loop(units, &[input], compute, &[output]);
        Ok(e)
    }
}

/// Backward.
#[derive(Debug, Clone)]
pub struct PoolGradient {
    /// Layer.
    pub layer: String,
    /// Geometry.
    pub shape: PoolShape,
    /// Input of the forward pass (maximum only).
    pub x: Tensor,
    /// Its result (maximum only).
    pub y: Tensor,
    /// Gradient of the result.
    pub dy: Tensor,
    /// Gradient of the input.
    pub dx: Tensor,
}

impl Stage for PoolGradient {
    fn layer(&self) -> &str {
        &self.layer
    }
    fn what(&self) -> &'static str {
        "input gradient"
    }
    fn kernel(&self, _: CoreSlot) -> String {
        if self.shape.mode == 0 { "PoolGrad maximum".into() } else { "PoolGrad average".into() }
    }
    fn emit(&self, core: CoreSlot) -> Result<Emit, CompileError> {
        let s = &self.shape;
        let mut e = Emit::new(&self.layer, core);
        let in_row = s.x.input * s.channels * 4;
        let out_row = s.x.output * s.channels * 4;
        let stride = s.y.stride;
        let maximum = s.mode == 0;
        // Blocks of input rows, a multiple of the stride; output rows whose windows reach into block `b` start at
        // `b * q + first` and are `out_count`.
        let first = div_ceil(s.y.pad - s.y.kernel as i32 + 1, stride);
        let geometry = |q: u32| {
            let last = div_floor((q * stride) as i32 - 1 + s.y.pad, stride);
            let out_count = (last - first + 1).max(0) as u32;
            let x_count = (out_count.max(1) - 1) * stride + s.y.kernel;
            (out_count, x_count)
        };
        let sizes = |q: u32| {
            let (out_count, x_count) = geometry(q);
            let rest = if maximum { (x_count * in_row, out_count * out_row) } else { (0, 0) };
            [q * stride * in_row, out_count * out_row, rest.0, rest.1]
        };
        let row_cycles = u64::from(s.x.input) * u64::from(s.channels) * u64::from(stride) * 12;
        let (_, q) = block_of(core, core.cores, s.y.input.div_ceil(stride), row_cycles, |q| sizes(q).iter().sum());
        let block = q * stride;
        let (out_count, x_count) = geometry(q);
        let (at, toggle) = buffers(&mut e, core, &sizes(q))?;
        let b = reg::loop_block(0);
        let parity = reg::loop_parity(0);
        let x_first = first * stride as i32 - s.y.pad;
        let out_rows = |tensor: &Tensor, i: usize| {
            UnitTransfer::new(
                Dma {
                    first,
                    limit: s.y.output,
                    ..rows(false, tensor.address, at[i], out_count, out_row, out_row, out_row, 0)
                },
                toggle[i],
            )
            .of(tensor, 0)
            .at(dma::FIRST, b, q as i32)
        };
        let mut ins = vec![out_rows(&self.dy, 1)];
        if maximum {
            ins.push(out_rows(&self.y, 3));
            ins.push(
                UnitTransfer::new(
                    Dma {
                        first: x_first,
                        limit: s.y.input,
                        ..rows(false, self.x.address, at[2], x_count, in_row, in_row, in_row, 0)
                    },
                    toggle[2],
                )
                .of(&self.x, 0)
                .at(dma::FIRST, b, block as i32),
            );
        }
        let output = UnitTransfer::new(
            Dma { limit: s.y.input, ..rows(true, self.dx.address, at[0], block, in_row, in_row, in_row, 0) },
            toggle[0],
        )
        .of(&self.dx, 0)
        .at(dma::FIRST, b, block as i32);
        let mut call = run(PoolGrad {
            mode: s.mode,
            x: if maximum { at[2] } else { NONE },
            x_iy0: x_first,
            in_h: s.y.input,
            in_w: s.x.input,
            channels: s.channels,
            y: if maximum { at[3] } else { NONE },
            dy: at[1],
            oy0: first,
            out_h: s.y.output,
            out_w: s.x.output,
            dx: at[0],
            iy0: 0,
            rows: block,
            kh: s.y.kernel,
            kw: s.x.kernel,
            stride_y: s.y.stride,
            stride_x: s.x.stride,
            pad_y: s.y.pad,
            pad_x: s.x.pad,
        })
        .at(pool_grad::dx, parity, toggle[0] as i32)
        .at(pool_grad::dy, parity, toggle[1] as i32)
        .at(pool_grad::oy0, b, q as i32)
        .at(pool_grad::x_iy0, b, block as i32)
        .at(pool_grad::iy0, b, block as i32);
        if maximum {
            call = call.at(pool_grad::x, parity, toggle[2] as i32).at(pool_grad::y, parity, toggle[3] as i32);
        }
        e.unit_loop(Units::dealt(core.slot, core.cores, s.y.input.div_ceil(block)), &ins, vec![call], &[output]);
        Ok(e)
    }
}
