//! Batch normalisation: coefficients, application, gradient.

use super::{area, compiled, op};
use crate::Kernel;
use crate::call::{NONE, NormCoefficients, NormGrad, Normalise};
use crate::dtcm::{BadCall, Bounds, cells, times, words};
use crate::functions::{cycles::RECIPROCAL_SQRT, reciprocal_sqrt};
use crate::num::{add, load, mul, store, sub};

impl Kernel for NormCoefficients {
    fn check(&self, dtcm_words: usize) -> Result<(), BadCall> {
        let bounds = Bounds { words: dtcm_words };
        let count = self.count;
        let optional = |field, address| bounds.optional(field, address, count);
        let inputs = [
            bounds.span("mean", self.mean, count)?,
            bounds.span("var", self.var, count)?,
            optional("gamma", self.gamma)?,
            optional("beta", self.beta)?,
        ];
        let scale = bounds.span("scale", self.scale, count)?;
        let shift = bounds.span("shift", self.shift, count)?;
        let inv = optional("inv", self.inv)?;
        scale.apart_from(&inputs)?;
        shift.apart_from(&inputs)?;
        inv.apart_from(&inputs)?;
        scale.apart_from(&[shift, inv])?;
        shift.apart_from(&[inv])
    }

    fn run(&self, dtcm: &mut [u32]) {
        let dtcm = cells(dtcm);
        let count = self.count as usize;
        let optional = |address| if address == NONE { None } else { Some(words(dtcm, address, count)) };
        let (mean, var) = (words(dtcm, self.mean, count), words(dtcm, self.var, count));
        let (scale, shift) = (words(dtcm, self.scale, count), words(dtcm, self.shift, count));
        let (gamma, beta, inv) = (optional(self.gamma), optional(self.beta), optional(self.inv));
        let epsilon = f32::from_bits(self.epsilon_bits);
        for c in 0..count {
            let inverse = reciprocal_sqrt(add(load(&var[c]), epsilon));
            let factor = gamma.map_or(inverse, |g| mul(load(&g[c]), inverse));
            let product = mul(load(&mean[c]), factor);
            store(&scale[c], factor);
            store(&shift[c], sub(beta.map_or(0.0, |b| load(&b[c])), product));
            if let Some(inv) = inv {
                store(&inv[c], inverse);
            }
        }
    }

    fn cycles(&self) -> u64 {
        // Without a vector there is no operation; the shift is subtracted from zero.
        let has = |address: u32, cycles: u64| if address == NONE { 0 } else { cycles };
        let optional =
            has(self.gamma, op::MUL + 9) + has(self.beta, op::AROUND) + has(self.inv, op::AROUND + op::NUMBER);
        let cycles = 2 * op::ADD + RECIPROCAL_SQRT + op::MUL + 2 * op::NUMBER + optional;
        op::ENTRY + 40 + compiled(self.count.into(), 8, cycles)
    }
}

impl Kernel for Normalise {
    fn check(&self, dtcm_words: usize) -> Result<(), BadCall> {
        let bounds = Bounds { words: dtcm_words };
        let count = times(self.rows, self.cols);
        let cols = if self.rows == 0 { 0 } else { self.cols };
        let out = bounds.span("out", self.out, count)?;
        out.apart_or_same(&bounds.span("x", self.x, count)?)?;
        out.apart_from(&[bounds.span("mean", self.mean, cols)?, bounds.span("inv", self.inv, cols)?])
    }

    fn run(&self, dtcm: &mut [u32]) {
        let (rows, cols) = (self.rows as usize, self.cols as usize);
        if rows == 0 || cols == 0 {
            return;
        }
        let dtcm = cells(dtcm);
        let (x, out) = (words(dtcm, self.x, rows * cols), words(dtcm, self.out, rows * cols));
        let (mean, inv) = (words(dtcm, self.mean, cols), words(dtcm, self.inv, cols));
        for (x, out) in x.chunks_exact(cols).zip(out.chunks_exact(cols)) {
            for c in 0..cols {
                store(&out[c], mul(sub(load(&x[c]), load(&mean[c])), load(&inv[c])));
            }
        }
    }

    fn cycles(&self) -> u64 {
        let elements = compiled(area(self.rows, self.cols), 3, op::ADD + op::MUL + op::NUMBER);
        if self.rows == 0 || self.cols == 0 { op::ENTRY } else { op::ENTRY + 40 + u64::from(self.rows) * 31 + elements }
    }
}

impl Kernel for NormGrad {
    fn check(&self, dtcm_words: usize) -> Result<(), BadCall> {
        let bounds = Bounds { words: dtcm_words };
        let count = times(self.rows, self.cols);
        let cols = if self.rows == 0 { 0 } else { self.cols };
        let dx = bounds.span("dx", self.dx, count)?;
        dx.apart_or_same(&bounds.span("x", self.x, count)?)?;
        dx.apart_or_same(&bounds.span("dy", self.dy, count)?)?;
        dx.apart_from(&[
            bounds.span("mean", self.mean, cols)?,
            bounds.span("inv", self.inv, cols)?,
            bounds.optional("gamma", self.gamma, cols)?,
            bounds.span("sum_dy", self.sum_dy, cols)?,
            bounds.span("sum_dy_xhat", self.sum_dy_xhat, cols)?,
        ])
    }

    fn run(&self, dtcm: &mut [u32]) {
        let (rows, cols) = (self.rows as usize, self.cols as usize);
        if rows == 0 || cols == 0 {
            return;
        }
        let dtcm = cells(dtcm);
        let matrix = |address| words(dtcm, address, rows * cols);
        let row = |address| words(dtcm, address, cols);
        let (x, dy, dx) = (matrix(self.x), matrix(self.dy), matrix(self.dx));
        let (mean, inv, sum_dy, sum_dy_xhat) = (row(self.mean), row(self.inv), row(self.sum_dy), row(self.sum_dy_xhat));
        let gamma = if self.gamma == NONE { None } else { Some(row(self.gamma)) };
        let inv_n = f32::from_bits(self.inv_n_bits);
        for r in 0..rows {
            for c in 0..cols {
                let i = r * cols + c;
                let inverse = load(&inv[c]);
                let xhat = mul(sub(load(&x[i]), load(&mean[c])), inverse);
                let centred = sub(load(&dy[i]), mul(load(&sum_dy[c]), inv_n));
                let centred = sub(centred, mul(xhat, mul(load(&sum_dy_xhat[c]), inv_n)));
                let factor = gamma.map_or(inverse, |g| mul(load(&g[c]), inverse));
                store(&dx[i], mul(factor, centred));
            }
        }
    }

    fn cycles(&self) -> u64 {
        let gamma = if self.gamma == NONE { 0 } else { op::MUL + 6 };
        let elements = compiled(area(self.rows, self.cols), 10, 3 * op::ADD + 5 * op::MUL + gamma);
        if self.rows == 0 || self.cols == 0 { op::ENTRY } else { op::ENTRY + 65 + u64::from(self.rows) * 33 + elements }
    }
}
