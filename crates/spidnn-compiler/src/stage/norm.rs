//! Batch normalisation in training: statistics over the whole batch, on whatever chips its samples lie.
//!
//! Each core sums over its rows; core 0 of each chip adds the cores' sums in ascending order, and the tree of replicas adds
//! the chips' (its order is documented with [`spidnn_core::command::Command::ReduceUp`]).

use spidnn_core::command::{Command, Dma, EXCHANGE_SCRATCH_BYTES, Exchange, Loop, Patch, dma, loops, reg};
use spidnn_kernels::call::{
    ColumnSum, Fill, Lerp, NONE, NormCoefficients, NormGrad, Normalise, Scale, SumParts, column_sum, norm_grad,
    normalise, scale,
};

use super::{CoreSlot, Stage};
use crate::CompileError;
use crate::emit::{
    BUFFER_BYTES, Emit, StepExt, TAG_ONCE, Tensor, UnitTransfer, rows, run, step, transfer, wait, words,
};
use crate::lower::CORES_MAX;

/// Where the parts of one normalisation lie, and its numbers.
#[derive(Debug, Clone, PartialEq)]
pub struct NormPlan {
    /// Layer.
    pub layer: String,
    /// Rows (positions) of each sample.
    pub rows_per_sample: u32,
    /// Channels.
    pub channels: u32,
    /// Input of the layer.
    pub x: Tensor,
    /// SDRAM address of the batch mean.
    pub mean: u32,
    /// SDRAM address of the batch variance.
    pub variance: u32,
    /// SDRAM address of the cores' partial sums: [`NormPlan::partial_words`].
    pub partials: u32,
    /// SDRAM address of two vectors that travel over the replicas.
    pub exchange: u32,
    /// Scale parameter.
    pub gamma: Option<u32>,
    /// Keras' epsilon.
    pub epsilon: f32,
    /// Keras' momentum.
    pub momentum: f32,
    /// Moving mean and variance.
    pub moving: [u32; 2],
    /// Whether there are other replicas.
    pub replicated: bool,
}

impl NormPlan {
    /// Words of partial sums.
    pub fn partial_words(channels: u32) -> u32 {
        2 * channels * CORES_MAX
    }

    /// Rows at a time with `vectors` row buffers and `fixed` words beside.
    fn block(&self, e: &Emit, core: CoreSlot, vectors: u32, fixed: u32) -> Result<u32, CompileError> {
        let free = (BUFFER_BYTES / 4).saturating_sub(fixed + 32);
        let block = free / (vectors * self.channels);
        if block == 0 {
            return Err(CompileError::LayerTooLarge {
                layer: e.layer().into(),
                needed: u64::from(fixed + vectors * self.channels) * 4,
                available: BUFFER_BYTES.into(),
            });
        }
        let own = (core.samples_max * self.rows_per_sample).div_ceil(core.cores).max(1);
        Ok(block.min(own).min((2048 / self.channels).max(1)))
    }

    fn rows_loop(&self, core: CoreSlot, block: u32) -> (Loop, Vec<Patch>) {
        (
            Loop {
                depth: 0,
                start: core.slot,
                step: core.cores,
                total: 0,
                total_divisor: block,
                divisor: 1,
                end: Loop::NO_END,
            },
            vec![Patch { word: loops::TOTAL, register: reg::SAMPLES, scale: self.rows_per_sample as i32 }],
        )
    }

    fn rows_transfer(&self, out: bool, tensor: &Tensor, at: u32, block: u32, toggle: u32) -> UnitTransfer {
        let row = self.channels * 4;
        UnitTransfer::new(Dma { limit: 0, ..rows(out, tensor.address, at, block, row, row, row, 0) }, toggle)
            .at(dma::FIRST, reg::loop_index(0), block as i32)
            .at(dma::LIMIT, reg::SAMPLES, self.rows_per_sample as i32)
            .at(dma::SDRAM, reg::INPUT_BUFFER, tensor.toggle)
    }

    fn load(&self, e: &mut Emit, address: u32) -> Result<u32, CompileError> {
        let at = e.alloc_words(self.channels)?;
        e.fetch(words(false, address, at, self.channels, TAG_ONCE));
        Ok(at)
    }

    /// `1 / sqrt(variance + epsilon)` of the batch, and its mean.
    fn mean_and_inverse(&self, e: &mut Emit) -> Result<(u32, u32), CompileError> {
        let mean = self.load(e, self.mean)?;
        let var = self.load(e, self.variance)?;
        let inv = e.alloc_words(self.channels)?;
        let unused = e.alloc_words(2 * self.channels)?;
        e.push(run(NormCoefficients {
            mean,
            var,
            gamma: NONE,
            beta: NONE,
            scale: unused,
            shift: unused + self.channels * 4,
            inv,
            count: self.channels,
            epsilon_bits: self.epsilon.to_bits(),
        }));
        Ok((mean, inv))
    }

    fn store_partials(&self, e: &mut Emit, core: CoreSlot, sum: u32, vectors: u32) {
        let count = vectors * self.channels;
        e.push(transfer(words(true, self.partials + core.slot * count * 4, sum, count, TAG_ONCE)));
        e.push(wait(TAG_ONCE));
    }

    /// Core 0: adds the cores' sums; the result is in local memory.
    fn add_partials(&self, e: &mut Emit, core: CoreSlot, vectors: u32) -> Result<u32, CompileError> {
        let count = vectors * self.channels;
        let sum = e.alloc_words(count)?;
        let mark = e.mark();
        let parts = e.alloc_words(count * core.cores)?;
        e.fetch(words(false, self.partials, parts, count * core.cores, TAG_ONCE));
        e.push(run(SumParts { src: parts, parts: core.cores, stride: count, count, dst: sum }));
        e.release(mark);
        Ok(sum)
    }

    /// Core 0: sums a vector over the replicas, in place, and divides by the positions of the whole batch.
    fn average(&self, e: &mut Emit, sum: u32, vectors: u32) -> Result<(), CompileError> {
        let count = vectors * self.channels;
        if self.replicated {
            e.push(transfer(words(true, self.exchange, sum, count, TAG_ONCE)));
            e.push(wait(TAG_ONCE));
            let mark = e.mark();
            let scratch = e.alloc(EXCHANGE_SCRATCH_BYTES)?;
            let exchange = Exchange {
                sdram: self.exchange,
                words: count,
                scratch,
                scratch_bytes: EXCHANGE_SCRATCH_BYTES,
                spacing_cycles: 0,
            };
            e.push(step(Command::ReduceUp(exchange)));
            e.push(step(Command::BroadcastDown(exchange)));
            e.release(mark);
            e.fetch(words(false, self.exchange, sum, count, TAG_ONCE));
        }
        // Times 1 / samples (known at run time), times 1 / positions of a sample.
        e.push(run(Scale { x: sum, out: sum, count, factor_bits: 0 }).at(scale::factor_bits, reg::INVERSE_BATCH, 1));
        let each = 1.0 / self.rows_per_sample as f32;
        e.push(run(Scale { x: sum, out: sum, count, factor_bits: each.to_bits() }));
        Ok(())
    }
}

/// Which statistic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Statistic {
    /// Mean of the channel.
    Mean,
    /// Variance about the mean, divided by n as Keras does.
    Variance,
}

/// The cores' sums for a statistic.
#[derive(Debug, Clone)]
pub struct NormSums {
    /// Normalisation.
    pub plan: NormPlan,
    /// Which.
    pub statistic: Statistic,
}

impl Stage for NormSums {
    fn layer(&self) -> &str {
        &self.plan.layer
    }
    fn what(&self) -> &'static str {
        "statistics"
    }
    fn kernel(&self, _: CoreSlot) -> String {
        "ColumnSum".into()
    }
    fn emit(&self, core: CoreSlot) -> Result<Emit, CompileError> {
        let p = &self.plan;
        let mut e = Emit::new(&p.layer, core);
        let mean = match self.statistic {
            Statistic::Mean => NONE,
            Statistic::Variance => p.load(&mut e, p.mean)?,
        };
        let sum = e.alloc_words(p.channels)?;
        e.push(run(Fill { dst: sum, count: p.channels, value_bits: 0 }));
        let block = p.block(&e, core, 2, 2 * p.channels)?;
        let bytes = (block * p.channels * 4).next_multiple_of(8);
        let x = e.alloc(2 * bytes)?;
        let op = if self.statistic == Statistic::Mean { 0 } else { 2 };
        let call = ColumnSum { op, x, y: mean, rows: 0, cols: p.channels, row_stride: p.channels, sum };
        let compute = vec![run(call).at(column_sum::x, reg::loop_parity(0), bytes as i32).at(
            column_sum::rows,
            reg::loop_count(0),
            1,
        )];
        let (header, total) = p.rows_loop(core, block);
        e.pipeline(header, total, &[p.rows_transfer(false, &p.x, x, block, bytes)], compute, &[]);
        p.store_partials(&mut e, core, sum, 1);
        Ok(e)
    }
}

/// Core 0: the statistic of the whole batch, and the moving one.
#[derive(Debug, Clone)]
pub struct NormFinish {
    /// Normalisation.
    pub plan: NormPlan,
    /// Which.
    pub statistic: Statistic,
}

impl Stage for NormFinish {
    fn layer(&self) -> &str {
        &self.plan.layer
    }
    fn what(&self) -> &'static str {
        "statistics sum"
    }
    fn kernel(&self, _: CoreSlot) -> String {
        "SumParts".into()
    }
    fn emit(&self, core: CoreSlot) -> Result<Emit, CompileError> {
        let p = &self.plan;
        let mut e = Emit::new(&p.layer, core);
        if core.slot != 0 {
            return Ok(e);
        }
        let sum = p.add_partials(&mut e, core, 1)?;
        p.average(&mut e, sum, 1)?;
        let (address, moving_address) = match self.statistic {
            Statistic::Mean => (p.mean, p.moving[0]),
            Statistic::Variance => (p.variance, p.moving[1]),
        };
        e.push(transfer(words(true, address, sum, p.channels, TAG_ONCE)));
        let moving = p.load(&mut e, moving_address)?;
        e.push(run(Lerp { a: moving, b: sum, out: moving, count: p.channels, momentum_bits: p.momentum.to_bits() }));
        e.push(transfer(words(true, moving_address, moving, p.channels, TAG_ONCE)));
        e.push(wait(TAG_ONCE));
        Ok(e)
    }
}

/// Backward, first part: the cores' sums of `dy` and of `dy * xhat`.
#[derive(Debug, Clone)]
pub struct NormGradientSums {
    /// Normalisation.
    pub plan: NormPlan,
    /// Gradient of the output.
    pub dy: Tensor,
}

impl Stage for NormGradientSums {
    fn layer(&self) -> &str {
        &self.plan.layer
    }
    fn what(&self) -> &'static str {
        "gradient sums"
    }
    fn kernel(&self, _: CoreSlot) -> String {
        "ColumnSum".into()
    }
    fn emit(&self, core: CoreSlot) -> Result<Emit, CompileError> {
        let p = &self.plan;
        let mut e = Emit::new(&p.layer, core);
        let (mean, inv) = p.mean_and_inverse(&mut e)?;
        let sum = e.alloc_words(2 * p.channels)?;
        e.push(run(Fill { dst: sum, count: 2 * p.channels, value_bits: 0 }));
        let block = p.block(&e, core, 5, 8 * p.channels)?;
        let bytes = (block * p.channels * 4).next_multiple_of(8);
        let x = e.alloc(2 * bytes)?;
        let dy = e.alloc(2 * bytes)?;
        let xhat = e.alloc(bytes)?;
        let parity = reg::loop_parity(0);
        let count = reg::loop_count(0);
        let t = bytes as i32;
        let second = sum + p.channels * 4;
        let compute = vec![
            run(Normalise { x, out: xhat, rows: 0, cols: p.channels, mean, inv }).at(normalise::x, parity, t).at(
                normalise::rows,
                count,
                1,
            ),
            run(ColumnSum { op: 0, x: dy, y: NONE, rows: 0, cols: p.channels, row_stride: p.channels, sum })
                .at(column_sum::x, parity, t)
                .at(column_sum::rows, count, 1),
            run(ColumnSum { op: 1, x: dy, y: xhat, rows: 0, cols: p.channels, row_stride: p.channels, sum: second })
                .at(column_sum::x, parity, t)
                .at(column_sum::rows, count, 1),
        ];
        let ins = [p.rows_transfer(false, &p.x, x, block, bytes), p.rows_transfer(false, &self.dy, dy, block, bytes)];
        let (header, total) = p.rows_loop(core, block);
        e.pipeline(header, total, &ins, compute, &[]);
        p.store_partials(&mut e, core, sum, 2);
        Ok(e)
    }
}

/// Backward, second part, core 0: this chip's gradients of beta and gamma, and the averages over the whole batch.
#[derive(Debug, Clone)]
pub struct NormGradientFinish {
    /// Normalisation.
    pub plan: NormPlan,
    /// SDRAM address of beta's gradient.
    pub beta_gradient: Option<u32>,
    /// SDRAM address of gamma's gradient.
    pub gamma_gradient: Option<u32>,
    /// SDRAM address of the two averages.
    pub averages: u32,
}

impl Stage for NormGradientFinish {
    fn layer(&self) -> &str {
        &self.plan.layer
    }
    fn what(&self) -> &'static str {
        "gradient sums"
    }
    fn kernel(&self, _: CoreSlot) -> String {
        "SumParts".into()
    }
    fn emit(&self, core: CoreSlot) -> Result<Emit, CompileError> {
        let p = &self.plan;
        let mut e = Emit::new(&p.layer, core);
        if core.slot != 0 {
            return Ok(e);
        }
        let sum = p.add_partials(&mut e, core, 2)?;
        for (address, at) in [(self.beta_gradient, sum), (self.gamma_gradient, sum + p.channels * 4)] {
            if let Some(address) = address {
                e.push(transfer(words(true, address, at, p.channels, TAG_ONCE)));
            }
        }
        e.push(wait(TAG_ONCE));
        p.average(&mut e, sum, 2)?;
        e.push(transfer(words(true, self.averages, sum, 2 * p.channels, TAG_ONCE)));
        e.push(wait(TAG_ONCE));
        Ok(e)
    }
}

/// Backward, third part: the gradient of the input.
#[derive(Debug, Clone)]
pub struct NormGradient {
    /// Normalisation.
    pub plan: NormPlan,
    /// Gradient of the output.
    pub dy: Tensor,
    /// Gradient of the input.
    pub dx: Tensor,
    /// SDRAM address of the two averages.
    pub averages: u32,
}

impl Stage for NormGradient {
    fn layer(&self) -> &str {
        &self.plan.layer
    }
    fn what(&self) -> &'static str {
        "input gradient"
    }
    fn kernel(&self, _: CoreSlot) -> String {
        "NormGrad".into()
    }
    fn emit(&self, core: CoreSlot) -> Result<Emit, CompileError> {
        let p = &self.plan;
        let mut e = Emit::new(&p.layer, core);
        let (mean, inv) = p.mean_and_inverse(&mut e)?;
        let gamma = match p.gamma {
            Some(address) => p.load(&mut e, address)?,
            None => NONE,
        };
        let averages = e.alloc_words(2 * p.channels)?;
        e.fetch(words(false, self.averages, averages, 2 * p.channels, TAG_ONCE));
        let block = p.block(&e, core, 6, 9 * p.channels)?;
        let bytes = (block * p.channels * 4).next_multiple_of(8);
        let x = e.alloc(2 * bytes)?;
        let dy = e.alloc(2 * bytes)?;
        let dx = e.alloc(2 * bytes)?;
        let parity = reg::loop_parity(0);
        let t = bytes as i32;
        let call = NormGrad {
            x,
            dy,
            dx,
            rows: 0,
            cols: p.channels,
            mean,
            inv,
            gamma,
            sum_dy: averages,
            sum_dy_xhat: averages + p.channels * 4,
            inv_n_bits: 1f32.to_bits(),
        };
        let compute =
            vec![run(call).at(norm_grad::x, parity, t).at(norm_grad::dy, parity, t).at(norm_grad::dx, parity, t).at(
                norm_grad::rows,
                reg::loop_count(0),
                1,
            )];
        let ins = [p.rows_transfer(false, &p.x, x, block, bytes), p.rows_transfer(false, &self.dy, dy, block, bytes)];
        let (header, total) = p.rows_loop(core, block);
        e.pipeline(header, total, &ins, compute, &[p.rows_transfer(true, &self.dx, dx, block, bytes)]);
        Ok(e)
    }
}
