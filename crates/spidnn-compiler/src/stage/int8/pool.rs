//! Pooling of bytes. A unit is a block of output rows of one sample.

use spidnn_core::command::{Dma, dma, reg};
use spidnn_kernels::call::{Pool8, pool8};

use super::{ByteTensor, UNIT_CYCLES, cycles, limited};
use crate::CompileError;
use crate::emit::{Emit, StepExt, UnitTransfer, Units, rows, run};
use crate::report::memory_cycles;
use crate::stage::pool::PoolShape;
use crate::stage::{CoreSlot, Stage};

/// Pooling; the result has the input's scale and zero point.
#[derive(Debug, Clone)]
pub struct BytePool {
    /// Layer.
    pub layer: String,
    /// Geometry.
    pub shape: PoolShape,
    /// Input.
    pub x: ByteTensor,
    /// Result.
    pub y: ByteTensor,
    /// Zero point.
    pub zero: u32,
}

impl BytePool {
    fn call(&self, block: u32) -> Pool8 {
        let s = &self.shape;
        Pool8 {
            mode: s.mode,
            x_row: self.x.row_words(),
            iy0: -s.y.pad,
            in_h: s.y.input,
            in_w: s.x.input,
            channels: s.channels,
            y_row: self.y.row_words(),
            rows: block,
            out_h: s.y.output,
            out_w: s.x.output,
            kh: s.y.kernel,
            kw: s.x.kernel,
            stride_y: s.y.stride,
            stride_x: s.x.stride,
            pad_y: s.y.pad,
            pad_x: s.x.pad,
            zero: self.zero,
            ..Default::default()
        }
    }

    /// Input rows of a block.
    fn rows(&self, block: u32) -> u32 {
        (block - 1) * self.shape.y.stride + self.shape.y.kernel
    }

    /// Bytes of the buffers.
    fn buffers(&self, block: u32) -> [u32; 2] {
        [self.rows(block) * self.x.row_bytes(), block * self.y.row_bytes()].map(|b| b.next_multiple_of(8))
    }

    /// Rows of a block, and whether its buffers are double.
    fn block(&self, core: CoreSlot) -> Option<(u32, bool)> {
        let free = u64::from(core.buffer_bytes());
        let out = self.shape.y.output;
        let bytes = |block: u32| self.buffers(block).iter().map(|&b| u64::from(b)).sum::<u64>() + 64;
        let cost = |block: u32| {
            let turns = (u64::from(core.samples_max) * u64::from(out.div_ceil(block))).div_ceil(core.cores.into());
            turns * (cycles(self.call(block)) + UNIT_CYCLES) + memory_cycles(bytes(block) * u64::from(core.cores))
        };
        let best = |room: u64| (1..=out).filter(|&b| bytes(b) <= room).min_by_key(|&b| (cost(b), b));
        best(free / 2).map(|b| (b, true)).or(best(free).map(|b| (b, false)))
    }

    /// Whether a core's local memory takes a row of the result.
    pub fn fits(&self, core: CoreSlot) -> bool {
        self.block(core).is_some()
    }
}

impl Stage for BytePool {
    fn layer(&self) -> &str {
        &self.layer
    }
    fn what(&self) -> &'static str {
        "forward"
    }
    fn kernel(&self, _: CoreSlot) -> String {
        if self.shape.mode == 0 { "Pool8 maximum".into() } else { "Pool8 average".into() }
    }

    fn emit(&self, core: CoreSlot) -> Result<Emit, CompileError> {
        let s = &self.shape;
        let mut e = Emit::new(&self.layer, core);
        let Some((block, double)) = self.block(core) else {
            return Err(CompileError::LayerTooLarge {
                layer: self.layer.clone(),
                needed: self.buffers(1).iter().map(|&b| u64::from(b)).sum(),
                available: core.buffer_bytes().into(),
            });
        };
        let [x_bytes, y_bytes] = self.buffers(block);
        let (dx, dy) = if double { (x_bytes, y_bytes) } else { (0, 0) };
        let (x, y) = (e.alloc(x_bytes + dx)?, e.alloc(y_bytes + dy)?);
        let (b, parity) = (reg::loop_block(0), reg::loop_parity(0));
        let (per_block, count) = ((block * s.y.stride) as i32, self.rows(block));
        let (in_row, out_row) = (self.x.row_bytes(), self.y.row_bytes());
        let from = rows(false, self.x.tensor.address, x, count, in_row, in_row, in_row, 0);
        let input = UnitTransfer::new(limited(from, -s.y.pad, s.y.input), dx).of(&self.x.tensor, 0).at(
            dma::FIRST,
            b,
            per_block,
        );
        let to = rows(true, self.y.tensor.address, y, block, out_row, out_row, out_row, 0);
        let output = UnitTransfer::new(Dma { limit: s.y.output, ..to }, dy).of(&self.y.tensor, 0).at(
            dma::FIRST,
            b,
            block as i32,
        );
        let compute = vec![
            run(Pool8 { x, y, ..self.call(block) })
                .at(pool8::x, parity, dx as i32)
                .at(pool8::y, parity, dy as i32)
                .at(pool8::iy0, b, per_block)
                .at(pool8::oy0, b, block as i32),
        ];
        e.unit_loop(Units::dealt(core.slot, core.cores, s.y.output.div_ceil(block)), &[input], compute, &[output]);
        Ok(e)
    }
}
