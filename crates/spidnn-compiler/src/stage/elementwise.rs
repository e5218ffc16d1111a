//! Stages that treat each row or element alone: activations and their gradients, sums and products of tensors, softmax,
//! dropout, copies, padding, and the loss.

use spidnn_core::command::{Dma, Item, Loop, Patch, Step, dma, loops, reg};
use spidnn_kernels::call::{
    ActGrad, BiasAct, ColumnSum, Dropout, Fill, Loss, Map2, NONE, NormCoefficients, ScaleShift, Softmax, SoftmaxGrad,
    act_grad, bias_act, column_sum, dropout, map2, scale_shift, softmax, softmax_grad,
};

use super::{CoreSlot, FusedActivation, Stage, share};
use crate::CompileError;
use crate::emit::{BUFFER_BYTES, Emit, StepExt, TAG_ONCE, Tensor, UnitTransfer, Units, rows, run, wait, words};

/// What is done with rows of `columns` words.
#[derive(Debug, Clone, PartialEq)]
pub enum RowOperation {
    /// Activation of one input.
    Activation(FusedActivation),
    /// Inputs: gradient of the output, what was saved. Result: gradient of the activation's input.
    ActivationGradient(FusedActivation),
    /// Sum (0), difference (1), product (2), maximum (3), minimum (4) of two inputs.
    Map2(u32),
    /// Softmax of each row.
    Softmax,
    /// Inputs: output of the softmax, gradient of it. Result: gradient of its input.
    SoftmaxGradient,
    /// Batch normalisation with the moving statistics: SDRAM addresses of mean, variance, gamma, beta.
    Normalise {
        /// Moving mean.
        mean: u32,
        /// Moving variance.
        variance: u32,
        /// Scale.
        gamma: Option<u32>,
        /// Shift.
        beta: Option<u32>,
        /// Keras' epsilon.
        epsilon: f32,
    },
    /// Gradient of [`RowOperation::Normalise`] with respect to its input.
    NormaliseGradient {
        /// SDRAM address of the moving variance.
        variance: u32,
        /// Scale.
        gamma: Option<u32>,
        /// Keras' epsilon.
        epsilon: f32,
    },
    /// Plain copy (a tensor under another name that must not be shared).
    Copy,
}

/// An operation on rows, dealt to the cores in blocks of rows.
#[derive(Debug, Clone)]
pub struct RowStage {
    /// Layer.
    pub layer: String,
    /// What for.
    pub what: &'static str,
    /// Operation.
    pub operation: RowOperation,
    /// Inputs, each with rows of `columns` words.
    pub inputs: Vec<Tensor>,
    /// Result.
    pub output: Tensor,
    /// Rows of each sample.
    pub rows_per_sample: u32,
    /// Words of a row.
    pub columns: u32,
}

/// Words of a block that are enough for its computation to take longer than the commands around it.
const BLOCK_WORDS: u64 = 256;

/// Rows of a block so that all cores have the same work and buffers fit.
fn block_rows(core: CoreSlot, rows_per_sample: u32, columns: u32, buffers: u32, reserved: u32) -> u32 {
    let total = u64::from(core.samples_max) * u64::from(rows_per_sample);
    let share = total.div_ceil(core.cores.into()).clamp(1, u64::from(u32::MAX));
    let fit = u64::from((BUFFER_BYTES - reserved) / 4 / buffers.max(1) / columns.max(1));
    // Small rows in blocks of at least 32 words: a DMA transfer has a price of its own.
    let least = u64::from(32u32.div_ceil(columns));
    // Several turns of a core, so that transfers and computation overlap, and equally many on all.
    let turns = (share * u64::from(columns)).div_ceil(BLOCK_WORDS).max(1);
    share.div_ceil(turns).max(least).min(fit.max(1)) as u32
}

impl RowStage {
    /// A stage on single elements: rows of one word.
    pub fn elements(
        layer: &str,
        what: &'static str,
        operation: RowOperation,
        inputs: Vec<Tensor>,
        output: Tensor,
    ) -> RowStage {
        RowStage { layer: layer.into(), what, operation, rows_per_sample: output.words, columns: 1, inputs, output }
    }
}

impl Stage for RowStage {
    fn layer(&self) -> &str {
        &self.layer
    }
    fn what(&self) -> &'static str {
        self.what
    }
    fn kernel(&self, _: CoreSlot) -> String {
        match &self.operation {
            RowOperation::Activation(a) => format!("BiasAct {:?}", a.kind),
            RowOperation::ActivationGradient(a) => format!("ActGrad {:?}", a.kind),
            RowOperation::Map2(op) => ["Add", "Subtract", "Multiply", "Maximum", "Minimum"][*op as usize].into(),
            RowOperation::Softmax => "Softmax".into(),
            RowOperation::SoftmaxGradient => "SoftmaxGrad".into(),
            RowOperation::Normalise { .. } | RowOperation::NormaliseGradient { .. } => "ScaleShift".into(),
            RowOperation::Copy => "copy".into(),
        }
    }

    fn emit(&self, core: CoreSlot) -> Result<Emit, CompileError> {
        let mut e = Emit::new(&self.layer, core);
        let columns = self.columns;
        let inputs = self.inputs.len() as u32;
        let reserved = match self.operation {
            RowOperation::Normalise { .. } | RowOperation::NormaliseGradient { .. } => columns * 4 * 6 + 64,
            _ => 64,
        };
        if reserved + (inputs + 1) * columns * 4 > BUFFER_BYTES {
            return Err(CompileError::LayerTooLarge {
                layer: self.layer.clone(),
                needed: u64::from(reserved + (inputs + 1) * columns * 4),
                available: BUFFER_BYTES.into(),
            });
        }
        // Double buffers where they fit.
        let double = reserved + (inputs + 1) * 2 * columns * 4 + 64 <= BUFFER_BYTES;
        let buffers = (inputs + 1) * if double { 2 } else { 1 };
        let block = block_rows(core, self.rows_per_sample, columns, buffers, reserved + buffers * 8);
        let bytes = (block * columns * 4).next_multiple_of(8);
        let toggle = if double { bytes } else { 0 };

        let (mut scale, mut shift) = (NONE, NONE);
        // Mean, variance, gamma, beta, epsilon. (The gradient has no use for the shift: any vector does for its mean.)
        let statistics = match self.operation {
            RowOperation::Normalise { mean, variance, gamma, beta, epsilon } => {
                Some((mean, variance, gamma, beta, epsilon))
            }
            RowOperation::NormaliseGradient { variance, gamma, epsilon } => {
                Some((variance, variance, gamma, None, epsilon))
            }
            _ => None,
        };
        if let Some((mean, variance, gamma, beta, epsilon)) = statistics {
            let mut load = |address: u32| -> Result<u32, CompileError> {
                let at = e.alloc_words(columns)?;
                e.fetch(words(false, address, at, columns, TAG_ONCE));
                Ok(at)
            };
            let mean = load(mean)?;
            let var = load(variance)?;
            let gamma = gamma.map(&mut load).transpose()?.unwrap_or(NONE);
            let beta = beta.map(&mut load).transpose()?.unwrap_or(NONE);
            scale = e.alloc_words(columns)?;
            let shifts = e.alloc_words(columns)?;
            if matches!(self.operation, RowOperation::Normalise { .. }) {
                shift = shifts;
            }
            e.push(run(NormCoefficients {
                mean,
                var,
                gamma,
                beta,
                scale,
                shift: shifts,
                inv: NONE,
                count: columns,
                epsilon_bits: epsilon.to_bits(),
            }));
        }

        let index = reg::loop_index(0);
        let parity = reg::loop_parity(0);
        let count = reg::loop_count(0);
        let mut at = Vec::new();
        for _ in 0..inputs {
            at.push(e.alloc(bytes + toggle)?);
        }
        let out = e.alloc(bytes + toggle)?;
        let whole = |out: bool, tensor: &Tensor, at: u32| {
            let dma =
                Dma { limit: 0, ..rows(out, tensor.address, at, block, columns * 4, columns * 4, columns * 4, 0) };
            UnitTransfer::new(dma, toggle)
                .at(dma::FIRST, index, block as i32)
                .at(dma::LIMIT, reg::SAMPLES, self.rows_per_sample as i32)
                .at(dma::SDRAM, reg::INPUT_BUFFER, tensor.toggle)
        };
        let ins: Vec<_> = self.inputs.iter().zip(&at).map(|(t, &at)| whole(false, t, at)).collect();
        let mut outs = vec![whole(true, &self.output, out)];
        let t = toggle as i32;
        let words_each = columns as i32;
        let compute: Vec<Step> = match &self.operation {
            RowOperation::Activation(a) => {
                // In place: the result leaves from the input's buffer.
                outs = vec![whole(true, &self.output, at[0])];
                vec![
                    run(BiasAct {
                        y: at[0],
                        rows: 0,
                        cols: columns,
                        stride: columns,
                        bias: NONE,
                        activation: a.kind as u32,
                        alpha_bits: a.alpha.to_bits(),
                    })
                    .at(bias_act::y, parity, t)
                    .at(bias_act::rows, count, 1),
                ]
            }
            RowOperation::ActivationGradient(a) => vec![
                run(ActGrad {
                    dy: at[0],
                    saved: at[1],
                    out,
                    count: 0,
                    activation: a.kind as u32,
                    alpha_bits: a.alpha.to_bits(),
                })
                .at(act_grad::dy, parity, t)
                .at(act_grad::saved, parity, t)
                .at(act_grad::out, parity, t)
                .at(act_grad::count, count, words_each),
            ],
            RowOperation::Map2(op) => vec![
                run(Map2 { op: *op, a: at[0], b: at[1], out, count: 0 })
                    .at(map2::a, parity, t)
                    .at(map2::b, parity, t)
                    .at(map2::out, parity, t)
                    .at(map2::count, count, words_each),
            ],
            RowOperation::Softmax => vec![
                run(Softmax { x: at[0], out, rows: 0, cols: columns })
                    .at(softmax::x, parity, t)
                    .at(softmax::out, parity, t)
                    .at(softmax::rows, count, 1),
            ],
            RowOperation::SoftmaxGradient => vec![
                run(SoftmaxGrad { y: at[0], dy: at[1], dx: out, rows: 0, cols: columns })
                    .at(softmax_grad::y, parity, t)
                    .at(softmax_grad::dy, parity, t)
                    .at(softmax_grad::dx, parity, t)
                    .at(softmax_grad::rows, count, 1),
            ],
            RowOperation::Normalise { .. } | RowOperation::NormaliseGradient { .. } => vec![
                run(ScaleShift { x: at[0], out, rows: 0, cols: columns, scale, shift })
                    .at(scale_shift::x, parity, t)
                    .at(scale_shift::out, parity, t)
                    .at(scale_shift::rows, count, 1),
            ],
            RowOperation::Copy => {
                outs = vec![whole(true, &self.output, at[0])];
                Vec::new()
            }
        };
        // A result that leaves from an input's buffer must be gone before the buffer is filled again.
        let in_place = matches!(self.operation, RowOperation::Activation(_) | RowOperation::Copy);
        let header = Loop {
            depth: 0,
            start: core.slot,
            step: core.cores,
            total: 0,
            total_divisor: block,
            divisor: 1,
            end: Loop::NO_END,
        };
        let total = vec![Patch { word: loops::TOTAL, register: reg::SAMPLES, scale: self.rows_per_sample as i32 }];
        if in_place {
            let single = |mut t: UnitTransfer| {
                t.buffer_bytes = 0;
                t
            };
            let compute = compute
                .into_iter()
                .map(|mut s| {
                    s.patches.retain(|p| p.register != parity);
                    s
                })
                .collect();
            let ins: Vec<_> = ins.into_iter().map(single).collect();
            let outs: Vec<_> = outs.into_iter().map(single).collect();
            e.serial(header, total, &ins, compute, &outs);
        } else {
            e.pipeline(header, total, &ins, compute, &outs);
        }
        Ok(e)
    }
}

/// `output[r][c] = x[r][c] * scale[c]` with a vector of its own for each sample (a product that spreads `[1, 1, C]`).
#[derive(Debug, Clone)]
pub struct ChannelScale {
    /// Layer.
    pub layer: String,
    /// What for.
    pub what: &'static str,
    /// Pictures.
    pub x: Tensor,
    /// Vectors of `columns` words.
    pub scale: Tensor,
    /// Result.
    pub output: Tensor,
    /// Rows (positions) of each sample.
    pub rows_per_sample: u32,
    /// Channels.
    pub columns: u32,
}

impl Stage for ChannelScale {
    fn layer(&self) -> &str {
        &self.layer
    }
    fn what(&self) -> &'static str {
        self.what
    }
    fn kernel(&self, _: CoreSlot) -> String {
        "ScaleShift".into()
    }
    fn emit(&self, core: CoreSlot) -> Result<Emit, CompileError> {
        let mut e = Emit::new(&self.layer, core);
        let columns = self.columns;
        let block = block_rows(core, self.rows_per_sample, columns, 4, columns * 8 + 64).min(self.rows_per_sample);
        let bytes = (block * columns * 4).next_multiple_of(8);
        let vector_bytes = (columns * 4).next_multiple_of(8);
        let x = e.alloc(2 * bytes)?;
        let out = e.alloc(2 * bytes)?;
        let scale = e.alloc(2 * vector_bytes)?;
        let b = reg::loop_block(0);
        let parity = reg::loop_parity(0);
        let picture = |out: bool, tensor: &Tensor, at: u32| {
            let dma = Dma {
                limit: self.rows_per_sample,
                ..rows(out, tensor.address, at, block, columns * 4, columns * 4, columns * 4, 0)
            };
            UnitTransfer::new(dma, bytes).of(tensor, 0).at(dma::FIRST, b, block as i32)
        };
        let vector =
            UnitTransfer::new(words(false, self.scale.address, scale, columns, 0), vector_bytes).of(&self.scale, 0);
        let compute = vec![
            run(ScaleShift { x, out, rows: block, cols: columns, scale, shift: NONE })
                .at(scale_shift::x, parity, bytes as i32)
                .at(scale_shift::out, parity, bytes as i32)
                .at(scale_shift::scale, parity, vector_bytes as i32),
        ];
        e.unit_loop(
            Units::dealt(core.slot, core.cores, self.rows_per_sample.div_ceil(block)),
            &[picture(false, &self.x, x), vector],
            compute,
            &[picture(true, &self.output, out)],
        );
        Ok(e)
    }
}

/// Gradient of [`ChannelScale`]'s vectors: for each sample and channel the sum of `x * dy` over the rows, in their order.
#[derive(Debug, Clone)]
pub struct ChannelScaleGradient {
    /// Layer.
    pub layer: String,
    /// Pictures.
    pub x: Tensor,
    /// Gradient of the result.
    pub dy: Tensor,
    /// Gradient of the vectors.
    pub output: Tensor,
    /// Rows (positions) of each sample.
    pub rows_per_sample: u32,
    /// Channels.
    pub columns: u32,
}

impl Stage for ChannelScaleGradient {
    fn layer(&self) -> &str {
        &self.layer
    }
    fn what(&self) -> &'static str {
        "scale gradient"
    }
    fn kernel(&self, _: CoreSlot) -> String {
        "ColumnSum".into()
    }
    fn emit(&self, core: CoreSlot) -> Result<Emit, CompileError> {
        let mut e = Emit::new(&self.layer, core);
        // Cores share the channels of a sample where there are fewer samples than cores.
        let parts = (core.cores / core.samples_max.max(1)).clamp(1, self.columns.div_ceil(8));
        let across = core.cores / parts;
        if core.slot >= across * parts {
            return Ok(e);
        }
        let (c0, columns) = share(self.columns, core.slot % parts, parts);
        let block = ((core.buffer_bytes() / 4 - 64) / 2).saturating_sub(columns) / columns.max(1);
        if block == 0 {
            return Err(CompileError::LayerTooLarge {
                layer: self.layer.clone(),
                needed: u64::from(columns) * 12,
                available: core.buffer_bytes().into(),
            });
        }
        let block = block.min(self.rows_per_sample);
        let x = e.alloc_words(block * columns)?;
        let dy = e.alloc_words(block * columns)?;
        let sum = e.alloc_words(columns)?;
        let picture = |tensor: &Tensor, at: u32| {
            let from = tensor.address + c0 * 4;
            let dma = rows(false, from, at, block, columns * 4, self.columns * 4, columns * 4, 0);
            UnitTransfer::new(Dma { limit: self.rows_per_sample, ..dma }, 0)
                .of(tensor, 0)
                .at(dma::FIRST, reg::loop_index(1), block as i32)
                .present(0, TAG_ONCE)
        };
        let add = run(ColumnSum { op: 1, x, y: dy, rows: 0, cols: columns, row_stride: columns, sum }).at(
            column_sum::rows,
            reg::loop_count(1),
            1,
        );
        let inner = [picture(&self.x, x), picture(&self.dy, dy), wait(TAG_ONCE), add];
        let rows_loop = Loop {
            depth: 1,
            start: 0,
            step: 1,
            total: self.rows_per_sample,
            total_divisor: block,
            divisor: 1,
            end: Loop::NO_END,
        };
        let result = UnitTransfer::new(words(true, self.output.address + c0 * 4, sum, columns, 0), 0)
            .of(&self.output, 0)
            .present(0, TAG_ONCE);
        let body = vec![
            Item::Do(run(Fill { dst: sum, count: columns, value_bits: 0 })),
            Item::Loop(rows_loop, Vec::new(), inner.into_iter().map(Item::Do).collect()),
            Item::Do(result),
            Item::Do(wait(TAG_ONCE)),
        ];
        let samples = Loop {
            depth: 0,
            start: core.slot / parts,
            step: across,
            total: 0,
            total_divisor: 1,
            divisor: 1,
            end: Loop::NO_END,
        };
        let total = vec![Patch { word: loops::TOTAL, register: reg::SAMPLES, scale: 1 }];
        e.items.push(Item::Loop(samples, total, body));
        Ok(e)
    }
}

/// Dropout; its gradient is the same operation on the gradient.
#[derive(Debug, Clone)]
pub struct DropoutStage {
    /// Layer.
    pub layer: String,
    /// What for.
    pub what: &'static str,
    /// Input.
    pub input: Tensor,
    /// Result.
    pub output: Tensor,
    /// Probability to drop.
    pub rate: f32,
    /// Number of the layer: its own stream of random numbers.
    pub stream: u32,
}

impl Stage for DropoutStage {
    fn layer(&self) -> &str {
        &self.layer
    }
    fn what(&self) -> &'static str {
        self.what
    }
    fn kernel(&self, _: CoreSlot) -> String {
        "Dropout".into()
    }
    fn emit(&self, core: CoreSlot) -> Result<Emit, CompileError> {
        let mut e = Emit::new(&self.layer, core);
        let count = self.input.words;
        let block = block_rows(core, count, 1, 4, 256).min(count);
        let bytes = (block * 4).next_multiple_of(8);
        let x = e.alloc(2 * bytes)?;
        let out = e.alloc(2 * bytes)?;
        let b = reg::loop_block(0);
        let parity = reg::loop_parity(0);
        let part = |is_out: bool, tensor: &Tensor, at: u32| {
            let dma = Dma { limit: count, ..rows(is_out, tensor.address, at, block, 4, 4, 4, 0) };
            UnitTransfer::new(dma, bytes).of(tensor, 0).at(dma::FIRST, b, block as i32)
        };
        let call = Dropout {
            x,
            out,
            count: block,
            rate_bits: self.rate.to_bits(),
            seed_lo: 0,
            seed_hi: 0,
            stream: self.stream,
            sample: 0,
            first: 0,
        };
        let compute = vec![
            run(call)
                .at(dropout::x, parity, bytes as i32)
                .at(dropout::out, parity, bytes as i32)
                .at(dropout::seed_lo, reg::SEED, 1)
                .at(dropout::seed_hi, reg::SEED_HIGH, 1)
                // The step number, spread over the bits above the layer's number.
                .at(dropout::stream, reg::STEP, 1 << 10)
                .at(dropout::sample, reg::FIRST_SAMPLE, 1)
                .at(dropout::sample, reg::loop_sample(0), 1)
                .at(dropout::first, b, block as i32),
        ];
        e.unit_loop(
            Units::dealt(core.slot, core.cores, count.div_ceil(block)),
            &[part(false, &self.input, x)],
            compute,
            &[part(true, &self.output, out)],
        );
        Ok(e)
    }
}

/// Moves rows between tensors of different row length: concatenation, its gradient, padding, cropping.
#[derive(Debug, Clone)]
pub struct MoveRows {
    /// Layer.
    pub layer: String,
    /// What for.
    pub what: &'static str,
    /// From.
    pub from: Tensor,
    /// Byte offset in each sample, and bytes from row to row.
    pub from_place: (u32, u32),
    /// To.
    pub to: Tensor,
    /// Byte offset in each sample, and bytes from row to row.
    pub to_place: (u32, u32),
    /// Rows of each sample.
    pub rows: u32,
    /// Words of a row.
    pub columns: u32,
}

impl Stage for MoveRows {
    fn layer(&self) -> &str {
        &self.layer
    }
    fn what(&self) -> &'static str {
        self.what
    }
    fn kernel(&self, _: CoreSlot) -> String {
        "DMA".into()
    }
    fn emit(&self, core: CoreSlot) -> Result<Emit, CompileError> {
        let mut e = Emit::new(&self.layer, core);
        let columns = self.columns;
        if u64::from(columns) * 4 > u64::from(BUFFER_BYTES) {
            return Err(CompileError::LayerTooLarge {
                layer: self.layer.clone(),
                needed: u64::from(columns) * 4,
                available: BUFFER_BYTES.into(),
            });
        }
        let block = block_rows(core, self.rows, columns, 1, 64).min(self.rows);
        let buffer = e.alloc_words(block * columns)?;
        let b = reg::loop_block(0);
        let part = |out: bool, tensor: &Tensor, place: (u32, u32)| {
            let dma = rows(out, tensor.address + place.0, buffer, block, columns * 4, place.1, columns * 4, 0);
            UnitTransfer::new(Dma { limit: self.rows, ..dma }, 0).of(tensor, 0).at(dma::FIRST, b, block as i32)
        };
        let units = Units::dealt(core.slot, core.cores, self.rows.div_ceil(block));
        e.serial_units(
            units,
            &[part(false, &self.from, self.from_place)],
            Vec::new(),
            &[part(true, &self.to, self.to_place)],
        );
        Ok(e)
    }
}

/// Fills a tensor with zeros (the border of padding, gradients that nothing writes).
#[derive(Debug, Clone)]
pub struct Zero {
    /// Layer.
    pub layer: String,
    /// What for.
    pub what: &'static str,
    /// The tensor.
    pub output: Tensor,
}

impl Stage for Zero {
    fn layer(&self) -> &str {
        &self.layer
    }
    fn what(&self) -> &'static str {
        self.what
    }
    fn kernel(&self, _: CoreSlot) -> String {
        "Fill".into()
    }
    fn emit(&self, core: CoreSlot) -> Result<Emit, CompileError> {
        let mut e = Emit::new(&self.layer, core);
        let count = self.output.words;
        let block = block_rows(core, count, 1, 1, 64).min(count);
        let zeros = e.alloc_words(block)?;
        e.push(run(Fill { dst: zeros, count: block, value_bits: 0 }));
        let out =
            UnitTransfer::new(Dma { limit: count, ..rows(true, self.output.address, zeros, block, 4, 4, 4, 0) }, 0)
                .of(&self.output, 0)
                .at(dma::FIRST, reg::loop_block(0), block as i32);
        e.serial_units(Units::dealt(core.slot, core.cores, count.div_ceil(block)), &[], Vec::new(), &[out]);
        Ok(e)
    }
}

/// The loss of each sample and its gradient, with the output's activation where it belongs to the loss.
#[derive(Debug, Clone)]
pub struct LossStage {
    /// Output layer.
    pub layer: String,
    /// Number of the loss ([`spidnn_kernels::Loss`]).
    pub kind: u32,
    /// Input of the output's activation and the activation (`None`: softmax), where the loss takes the one and the stage computes
    /// the other: any cross-entropy after sigmoid or softmax.
    pub logits: Option<(Tensor, Option<FusedActivation>)>,
    /// The output.
    pub output: Tensor,
    /// Targets: as many words, or one class number.
    pub target: Tensor,
    /// Weight of each sample, divided by the samples of the batch.
    pub weight: Tensor,
    /// Loss of each sample.
    pub loss: Tensor,
    /// Gradient with respect to the output, or to the input of its activation where `logits` are given.
    pub gradient: Option<Tensor>,
    /// What the loss takes are logits.
    pub from_logits: bool,
    /// Label smoothing.
    pub smoothing: f32,
}

impl Stage for LossStage {
    fn layer(&self) -> &str {
        &self.layer
    }
    fn what(&self) -> &'static str {
        "loss"
    }
    fn kernel(&self, _: CoreSlot) -> String {
        match self.logits {
            Some((_, None)) => "Softmax + Loss".into(),
            Some((_, Some(a))) => format!("{:?} + Loss", a.kind),
            None => "Loss".into(),
        }
    }
    fn emit(&self, core: CoreSlot) -> Result<Emit, CompileError> {
        let mut e = Emit::new(&self.layer, core);
        let columns = self.output.words;
        let pred = e.alloc_words(columns)?;
        let target = e.alloc_words(self.target.words)?;
        let weight = e.alloc_words(1)?;
        let loss = e.alloc_words(1)?;
        let grad = if self.gradient.is_some() { e.alloc_words(columns)? } else { NONE };
        let part = |out: bool, tensor: &Tensor, at: u32| {
            UnitTransfer::new(words(out, tensor.address, at, tensor.words, 0), 0).of(tensor, 0)
        };
        let taken = self.logits.map_or(self.output, |(z, _)| z);
        let ins = [part(false, &taken, pred), part(false, &self.target, target), part(false, &self.weight, weight)];
        let mut outs = vec![part(true, &self.loss, loss)];
        let mut compute = vec![run(Loss {
            kind: self.kind,
            pred,
            target,
            weight,
            loss,
            grad,
            rows: 1,
            cols: columns,
            from_logits: self.from_logits.into(),
            fused: 0,
            smoothing_bits: self.smoothing.to_bits(),
        })];
        if let Some((_, activation)) = self.logits {
            // The loss has been taken: the output may replace its activation's input.
            compute.push(match activation {
                None => run(Softmax { x: pred, out: pred, rows: 1, cols: columns }),
                Some(a) => run(BiasAct {
                    y: pred,
                    rows: 1,
                    cols: columns,
                    stride: columns,
                    bias: NONE,
                    activation: a.kind as u32,
                    alpha_bits: a.alpha.to_bits(),
                }),
            });
            outs.push(part(true, &self.output, pred));
        }
        if let Some(gradient) = &self.gradient {
            outs.push(part(true, gradient, grad));
        }
        e.serial_units(Units::dealt(core.slot, core.cores, 1), &ins, compute, &outs);
        Ok(e)
    }
}

impl Emit {
    /// A loop whose turns do not overlap: results have left before the next turn's inputs come.
    pub fn serial(
        &mut self,
        header: Loop,
        patches: Vec<Patch>,
        ins: &[UnitTransfer],
        compute: Vec<Step>,
        outs: &[UnitTransfer],
    ) {
        let mut compute = compute;
        if !outs.is_empty() {
            // The wait that `pipeline` puts before the kernels comes too late for a buffer that is filled again.
            let tag = header.depth * 4 + 2;
            compute.extend(outs.iter().map(|t| t.present(header.depth as u8, tag)));
            compute.push(wait(tag));
        }
        self.pipeline(header, patches, ins, compute, &[]);
    }

    /// [`Emit::serial`] over units.
    pub fn serial_units(&mut self, units: Units, ins: &[UnitTransfer], compute: Vec<Step>, outs: &[UnitTransfer]) {
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
        self.serial(header, total, ins, compute, outs);
    }
}
