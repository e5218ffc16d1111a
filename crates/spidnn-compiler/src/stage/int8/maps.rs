//! Bytes by themselves: activations by a table, sums, and the ways from and to numbers.

use spidnn_core::command::{Dma, Loop, Patch, dma, loops, reg};
use spidnn_kernels::call::{Add8, Dequantise8, Lookup8, Quantise8, add8, dequantise8, lookup8, quantise8};

use super::{ByteTensor, TABLE_WORDS};
use crate::CompileError;
use crate::emit::{BUFFER_BYTES, Emit, StepExt, TAG_ONCE, Tensor, UnitTransfer, rows, run, words};
use crate::quantise::ByteFormat;
use crate::stage::{CoreSlot, Stage};

/// What is done with bytes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum ByteOperation {
    /// A table in SDRAM, of 256 bytes.
    Table(u32),
    /// The sum of two tensors, by the numbers of the kernel.
    Add(Add8),
}

/// An operation on words of bytes.
#[derive(Debug, Clone)]
pub struct ByteMap {
    /// Layer.
    pub layer: String,
    /// Operation.
    pub operation: ByteOperation,
    /// Inputs, of the result's form.
    pub inputs: Vec<ByteTensor>,
    /// Result.
    pub y: ByteTensor,
}

/// Loop over blocks of `block` rows, of which each sample has `per_sample`.
fn blocks_of_rows(core: CoreSlot, block: u32, per_sample: u32) -> (Loop, Vec<Patch>) {
    let header = Loop {
        depth: 0,
        start: core.slot,
        step: core.cores,
        total: 0,
        total_divisor: block,
        divisor: 1,
        end: Loop::NO_END,
    };
    (header, vec![Patch { word: loops::TOTAL, register: reg::SAMPLES, scale: per_sample as i32 }])
}

/// The rows of the present block of a tensor.
fn range(out: bool, tensor: &Tensor, at: u32, (block, per_sample): (u32, u32), row: u32, toggle: u32) -> UnitTransfer {
    let dma = Dma { limit: 0, ..rows(out, tensor.address, at, block, row, row, row, 0) };
    UnitTransfer::new(dma, toggle)
        .at(dma::FIRST, reg::loop_index(0), block as i32)
        .at(dma::LIMIT, reg::SAMPLES, per_sample as i32)
        .at(dma::SDRAM, reg::INPUT_BUFFER, tensor.toggle)
}

/// Rows of a block: an equal share for each core, as many as fit, and not too few for a transfer.
fn block_rows(core: CoreSlot, per_sample: u32, row_bytes: u32, least: u32) -> u32 {
    let share = (core.samples_max * per_sample).div_ceil(core.cores).max(1);
    let fit = (core.buffer_bytes().saturating_sub(1024) / row_bytes.max(1)).max(1);
    let turns = share.div_ceil(fit.min(4 * least.max(1))).max(1);
    share.div_ceil(turns).max(least).min(fit)
}

impl Stage for ByteMap {
    fn layer(&self) -> &str {
        &self.layer
    }
    fn what(&self) -> &'static str {
        "forward"
    }
    fn kernel(&self, _: CoreSlot) -> String {
        match self.operation {
            ByteOperation::Table(_) => "Lookup8".into(),
            ByteOperation::Add(_) => "Add8".into(),
        }
    }

    fn emit(&self, core: CoreSlot) -> Result<Emit, CompileError> {
        let mut e = Emit::new(&self.layer, core);
        let per_sample = self.y.tensor.words;
        let buffers = 2 * (self.inputs.len() as u32 + 1);
        let block = block_rows(core, per_sample, buffers * 4, 32);
        let bytes = (block * 4).next_multiple_of(8);
        let table = match self.operation {
            ByteOperation::Table(address) => {
                let at = e.alloc_words(TABLE_WORDS)?;
                e.fetch(words(false, address, at, TABLE_WORDS, TAG_ONCE));
                at
            }
            ByteOperation::Add(_) => 0,
        };
        let mut ins = Vec::new();
        let mut at = Vec::new();
        for input in &self.inputs {
            let x = e.alloc(2 * bytes)?;
            ins.push(range(false, &input.tensor, x, (block, per_sample), 4, bytes));
            at.push(x);
        }
        let out = e.alloc(2 * bytes)?;
        let (parity, count, toggle) = (reg::loop_parity(0), reg::loop_count(0), bytes as i32);
        let step = match (self.operation, &at[..]) {
            (ByteOperation::Add(add), &[a, b]) => run(Add8 { a, b, out, count: 0, ..add })
                .at(add8::a, parity, toggle)
                .at(add8::b, parity, toggle)
                .at(add8::out, parity, toggle)
                .at(add8::count, count, 1),
            _ => run(Lookup8 { x: at[0], out, count: 0, table })
                .at(lookup8::x, parity, toggle)
                .at(lookup8::out, parity, toggle)
                .at(lookup8::count, count, 1),
        };
        let (header, total) = blocks_of_rows(core, block, per_sample);
        e.pipeline(header, total, &ins, vec![step], &[range(true, &self.y.tensor, out, (block, per_sample), 4, bytes)]);
        Ok(e)
    }
}

/// From numbers to bytes, or back.
#[derive(Debug, Clone)]
pub struct Convert {
    /// Layer.
    pub layer: String,
    /// The numbers: rows without gaps.
    pub numbers: Tensor,
    /// The bytes.
    pub bytes: ByteTensor,
    /// What the bytes mean.
    pub format: ByteFormat,
    /// To bytes.
    pub quantise: bool,
}

impl Stage for Convert {
    fn layer(&self) -> &str {
        &self.layer
    }
    fn what(&self) -> &'static str {
        if self.quantise { "to bytes" } else { "to numbers" }
    }
    fn kernel(&self, _: CoreSlot) -> String {
        if self.quantise { "Quantise8".into() } else { "Dequantise8".into() }
    }

    fn emit(&self, core: CoreSlot) -> Result<Emit, CompileError> {
        let mut e = Emit::new(&self.layer, core);
        let (per_sample, cols) = (self.bytes.rows, self.bytes.values);
        let (number_row, byte_row) = (cols * 4, self.bytes.row_bytes());
        let row = u64::from(number_row) + u64::from(byte_row);
        // Double buffers where they fit.
        let double = 2 * row + 1024 <= u64::from(core.buffer_bytes());
        if row + 64 > u64::from(core.buffer_bytes()) {
            return Err(CompileError::LayerTooLarge {
                layer: self.layer.clone(),
                needed: row + 64,
                available: BUFFER_BYTES.into(),
            });
        }
        let buffers = if double { 2 } else { 1 };
        let block = block_rows(core, per_sample, buffers * row as u32, 32u32.div_ceil(cols));
        let sizes = [block * number_row, block * byte_row].map(|b| b.next_multiple_of(8));
        let toggle = sizes.map(|b| if double { b } else { 0 });
        let (numbers, bytes) = (e.alloc(sizes[0] + toggle[0])?, e.alloc(sizes[1] + toggle[1])?);
        let of = (block, per_sample);
        let number_rows = |out: bool| range(out, &self.numbers, numbers, of, number_row, toggle[0]);
        let byte_rows = |out: bool| range(out, &self.bytes.tensor, bytes, of, byte_row, toggle[1]);
        let (parity, count) = (reg::loop_parity(0), reg::loop_count(0));
        let [dn, db] = toggle.map(|t| t as i32);
        let zero = self.format.zero;
        let (step, input, output) = if self.quantise {
            let inverse_bits = (1.0 / self.format.scale).to_bits();
            let call = Quantise8 { x: numbers, out: bytes, rows: 0, cols, inverse_bits, zero };
            let step = run(call).at(quantise8::x, parity, dn).at(quantise8::out, parity, db);
            (step.at(quantise8::rows, count, 1), number_rows(false), byte_rows(true))
        } else {
            let call =
                Dequantise8 { x: bytes, out: numbers, rows: 0, cols, scale_bits: self.format.scale.to_bits(), zero };
            let step = run(call).at(dequantise8::x, parity, db).at(dequantise8::out, parity, dn);
            (step.at(dequantise8::rows, count, 1), byte_rows(false), number_rows(true))
        };
        let (header, total) = blocks_of_rows(core, block, per_sample);
        e.pipeline(header, total, &[input], vec![step], &[output]);
        Ok(e)
    }
}
