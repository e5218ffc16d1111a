//! Losses of samples and their gradients.
//!
//! Keras' rules: probabilities are kept within 1e-7 of 0 and 1 (where they are cut off, the gradient is zero);
//! categorical probabilities are divided by their sum first, sparse ones after the cut; label smoothing moves a
//! target `t` of `n` classes to `t (1 - s) + s / n` (binary: `n` = 2; sparse kinds have none).

use core::cell::Cell;

use super::softmax::largest;
use super::{area, op};
use crate::apart;
use crate::call::{Loss as Call, NONE};
use crate::dtcm::{BadCall, Bounds, below, cells, part, times, word, words};
use crate::functions::{self, cycles as cost};
use crate::num::{self, abs, add, div, from_i64, is_nan, less, load, max, min, mul, neg, store_result, sub};
use crate::{Kernel, Loss};

const EPSILON: f32 = 1e-7;
const ALMOST_ONE: f32 = 1.0 - 1e-7;

fn kind(number: u32) -> Result<Loss, BadCall> {
    Loss::from_number(number).ok_or(BadCall::value("kind", number))
}

#[cfg_attr(target_arch = "arm", inline(never))]
fn cut(p: f32) -> f32 {
    min(max(p, EPSILON), ALMOST_ONE)
}

/// Whether [`cut`] leaves `p` alone, so that a gradient passes.
#[cfg_attr(target_arch = "arm", inline(never))]
fn inside(p: f32) -> bool {
    !less(p, EPSILON) && !less(ALMOST_ONE, p)
}

/// The class that a target names, if it is one of `classes`.
fn class_of(target: f32, classes: usize) -> Option<usize> {
    if is_nan(target) || less(target, 0.0) || !less(target, 1e9) {
        return None;
    }
    // Keras casts to an integer: towards zero.
    let class = num::to_fixed(target, 0) as usize;
    (class < classes).then_some(class)
}

impl Call {
    /// [`Kernel::run`], with a part of the losses.
    pub(crate) fn run_with<const PART: u8>(&self, dtcm: &mut [u32]) {
        let Ok(kind) = kind(self.kind) else { panic!("unchecked call") };
        let dtcm = cells(dtcm);
        let (rows, cols) = (self.rows as usize, self.cols as usize);
        let pred = words(dtcm, self.pred, rows * cols);
        let sparse = kind == Loss::SparseCategoricalCrossentropy;
        let target = words(dtcm, self.target, if sparse { rows } else { rows * cols });
        let loss = words(dtcm, self.loss, rows);
        let gradient = if self.grad == NONE { None } else { Some(words(dtcm, self.grad, rows * cols)) };
        let smoothing = f32::from_bits(self.smoothing_bits);
        let (keep, base) = (sub(1.0, smoothing), div(smoothing, from_i64(self.cols.into())));
        for r in 0..rows {
            let sample = Sample {
                pred: part(pred, r * cols, cols),
                target: if sparse { part(target, r, 1) } else { part(target, r * cols, cols) },
                grad: gradient.map(|g| part(g, r * cols, cols)),
                weight: if gradient.is_some() { load(word(words(dtcm, self.weight, rows), r)) } else { 0.0 },
                smoothing,
                keep,
                base,
                from_logits: self.from_logits == 1,
                fused: self.fused == 1,
            };
            let value = match kind {
                _ if !kind.is_built(self.from_logits == 1) => num::NAN,
                Loss::BinaryCrossentropy if apart::has(PART, apart::EXPONENTIAL) => sample.binary(),
                _ if !apart::has(PART, apart::COMMON) => num::NAN,
                Loss::MeanSquaredError => sample.mean_squared(),
                Loss::MeanAbsoluteError => sample.mean_absolute(),
                Loss::CategoricalCrossentropy | Loss::SparseCategoricalCrossentropy => sample.categorical(sparse),
                Loss::BinaryCrossentropy => num::NAN,
            };
            store_result(word(loss, r), value);
        }
    }
}

impl Kernel for Call {
    fn check(&self, dtcm_words: usize) -> Result<(), BadCall> {
        let kind = kind(self.kind)?;
        below("from_logits", self.from_logits, 2)?;
        below("fused", self.fused, 2)?;
        if !kind.is_built(self.from_logits == 1) {
            return Err(BadCall::value("kind", self.kind));
        }
        if is_nan(f32::from_bits(self.smoothing_bits)) {
            return Err(BadCall::value("smoothing_bits", self.smoothing_bits));
        }
        let bounds = Bounds { words: dtcm_words };
        let (rows, count) = (self.rows, times(self.rows, self.cols));
        if self.rows > 0 && self.cols == 0 {
            return Err(BadCall::value("cols", 0));
        }
        let sparse = kind == Loss::SparseCategoricalCrossentropy;
        let pred = bounds.span("pred", self.pred, count)?;
        let target = bounds.span("target", self.target, if sparse { rows } else { count })?;
        let loss = bounds.span("loss", self.loss, rows)?;
        loss.apart_from(&[pred, target])?;
        if self.grad != NONE {
            let weight = bounds.span("weight", self.weight, rows)?;
            bounds.span("grad", self.grad, count)?.apart_from(&[pred, target, weight, loss])?;
            loss.apart_from(&[weight])?;
        }
        Ok(())
    }

    fn run(&self, dtcm: &mut [u32]) {
        self.run_with::<{ apart::USUAL }>(dtcm);
    }

    fn cycles(&self) -> u64 {
        let Ok(kind) = kind(self.kind) else { return 0 };
        let (rows, count) = (u64::from(self.rows), area(self.rows, self.cols));
        let grad = u64::from(self.grad != NONE);
        let logits = self.from_logits == 1;
        let sparse = kind == Loss::SparseCategoricalCrossentropy;
        // The target of a class by label, or from memory with a test for smoothing.
        let smoothing = if self.smoothing_bits << 1 == 0 { 0 } else { op::MUL + op::ADD + op::AROUND };
        let target = if sparse { op::AROUND } else { 3 * op::AROUND + smoothing };
        let cut = 2 * op::COMPARE + 3 * op::AROUND;
        let subtract_and_scale = grad * (op::ADD + op::MUL + 3 * op::AROUND);
        let element = match kind {
            // Slopes are worked out also where nobody wants them.
            Loss::MeanSquaredError => 2 * op::ADD + 2 * op::MUL + (4 + grad) * op::AROUND,
            Loss::MeanAbsoluteError => 2 * op::ADD + 2 * op::COMPARE + 4 * op::AROUND,
            Loss::BinaryCrossentropy if logits => {
                let slope = grad * (cost::SIGMOID + op::ADD + op::MUL + 3 * op::AROUND);
                cost::SOFTPLUS + 2 * op::MUL + 3 * op::ADD + 7 * op::AROUND + slope
            }
            Loss::BinaryCrossentropy => {
                let slope = if self.fused == 1 { op::ADD + op::MUL } else { 2 * op::ADD + 2 * op::MUL + op::DIV + cut };
                2 * cost::LN + cut + 5 * op::ADD + 3 * op::MUL + 8 * op::AROUND + grad * (slope + 3 * op::AROUND)
            }
            _ if logits => {
                let power = op::ADD + cost::EXP + 2 * op::AROUND;
                let share = grad * (power + op::DIV - op::AROUND);
                let loss = if sparse { 2 * op::AROUND } else { 3 * op::ADD + op::MUL + 2 * op::AROUND };
                op::COMPARE + op::AROUND + power + op::ADD + op::AROUND + target + loss + share + subtract_and_scale
            }
            Loss::SparseCategoricalCrossentropy => {
                let slope = if self.fused == 1 { 0 } else { 2 * op::DIV + 2 * cut + 2 * op::AROUND };
                cut + op::ADD + 2 * op::AROUND + grad * (3 * op::AROUND + slope) + subtract_and_scale
            }
            _ => {
                let slope = if self.fused == 1 {
                    target
                } else {
                    // The slope by its share twice, for the sum and for each class.
                    2 * (2 * op::DIV + cut + target + 3 * op::AROUND) + 2 * op::DIV + op::MUL + op::ADD + 5 * op::AROUND
                };
                let loss = op::DIV + cut + cost::LN + op::MUL + op::ADD + 5 * op::AROUND + target;
                op::ADD + 3 * op::AROUND + loss + grad * slope + subtract_and_scale
            }
        };
        let row = match kind {
            _ if logits => cost::LN + if sparse { 450 } else { 200 },
            Loss::SparseCategoricalCrossentropy => 450 + cost::LN + op::DIV,
            Loss::CategoricalCrossentropy => 130,
            _ => 130 + 2 * op::DIV + op::MUL + 3 * op::AROUND,
        };
        // What smoothing does, once.
        op::ENTRY + 100 + op::FROM_INTEGER + op::DIV + rows * row + count * element
    }
}

/// One sample's row.
struct Sample<'a> {
    pred: &'a [Cell<u32>],
    target: &'a [Cell<u32>],
    grad: Option<&'a [Cell<u32>]>,
    weight: f32,
    smoothing: f32,
    /// What a target is multiplied by when labels are smoothed, and what is added.
    keep: f32,
    base: f32,
    from_logits: bool,
    fused: bool,
}

impl Sample<'_> {
    fn cols(&self) -> f32 {
        from_i64(self.pred.len() as i64)
    }

    #[cfg_attr(target_arch = "arm", inline(never))]
    fn put(&self, i: usize, value: f32) {
        if let Some(grad) = self.grad {
            store_result(word(grad, i), value);
        }
    }

    fn mean_squared(&self) -> f32 {
        let factor = div(mul(2.0, self.weight), self.cols());
        let mut sum = 0.0;
        for i in 0..self.pred.len() {
            let d = sub(load(word(self.pred, i)), load(word(self.target, i)));
            sum = add(sum, mul(d, d));
            self.put(i, mul(d, factor));
        }
        div(sum, self.cols())
    }

    fn mean_absolute(&self) -> f32 {
        let factor = div(self.weight, self.cols());
        let mut sum = 0.0;
        for i in 0..self.pred.len() {
            let d = sub(load(word(self.pred, i)), load(word(self.target, i)));
            sum = add(sum, abs(d));
            let slope = if less(0.0, d) {
                factor
            } else if less(d, 0.0) {
                neg(factor)
            } else {
                // 0, or NaN.
                mul(d, 0.0)
            };
            self.put(i, slope);
        }
        div(sum, self.cols())
    }

    fn binary(&self) -> f32 {
        let factor = div(self.weight, self.cols());
        let (keep, base) = (sub(1.0, self.smoothing), mul(0.5, self.smoothing));
        let mut sum = 0.0;
        for i in 0..self.pred.len() {
            let t = add(mul(load(word(self.target, i)), keep), base);
            let p = load(word(self.pred, i));
            if self.from_logits {
                // max(z, 0) - z t + ln(1 + exp(-|z|)): the softplus of z, less z t.
                sum = add(sum, sub(functions::softplus(p), mul(p, t)));
                if self.grad.is_some() {
                    self.put(i, mul(sub(functions::sigmoid_of(p), t), factor));
                }
                continue;
            }
            let q = cut(p);
            let rest = sub(1.0, q);
            sum = sub(sum, add(mul(t, functions::ln(q)), mul(sub(1.0, t), functions::ln(rest))));
            if self.grad.is_some() {
                self.put(
                    i,
                    if self.fused {
                        mul(sub(p, t), factor)
                    } else if inside(p) {
                        mul(div(sub(q, t), mul(q, rest)), factor)
                    } else {
                        0.0
                    },
                );
            }
        }
        div(sum, self.cols())
    }

    /// The target of class `i`: `class` for sparse kinds.
    fn target_of(&self, class: Option<usize>, i: usize) -> f32 {
        match class {
            Some(class) => {
                if class == i {
                    1.0
                } else {
                    0.0
                }
            }
            None => {
                let t = load(word(self.target, i));
                if self.smoothing.to_bits() << 1 == 0 { t } else { add(mul(t, self.keep), self.base) }
            }
        }
    }

    fn categorical(&self, sparse: bool) -> f32 {
        let n = self.pred.len();
        let class = if sparse {
            let Some(class) = class_of(load(word(self.target, 0)), n) else {
                (0..n).for_each(|i| self.put(i, num::NAN));
                return num::NAN;
            };
            Some(class)
        } else {
            None
        };
        if self.from_logits && Loss::CategoricalCrossentropy.is_built(true) {
            return self.categorical_logits(class);
        }
        let sum = (0..n).fold(0.0, |s, i| add(s, self.raw(sparse, i)));
        let mut loss = 0.0;
        if let Some(class) = class {
            loss = neg(functions::ln(div(self.raw(sparse, class), sum)));
        } else {
            for i in 0..n {
                let share = cut(div(self.raw(sparse, i), sum));
                loss = sub(loss, mul(self.target_of(class, i), functions::ln(share)));
            }
        }
        if self.grad.is_none() {
            return loss;
        }
        // Through the division by the sum, what all have in common.
        let mut dot = 0.0;
        if !sparse && !self.fused {
            for i in 0..n {
                dot = add(dot, mul(self.share_slope(i, sum), div(self.raw(sparse, i), sum)));
            }
        }
        for i in 0..n {
            let p = load(word(self.pred, i));
            let slope = if self.fused {
                sub(p, self.target_of(class, i))
            } else if !sparse {
                div(sub(self.share_slope(i, sum), dot), sum)
            } else if inside(p) {
                div(sub(div(self.raw(sparse, i), sum), self.target_of(class, i)), p)
            } else {
                0.0
            };
            self.put(i, mul(slope, self.weight));
        }
        loss
    }

    /// What reaches the logarithm, before the division by the sum.
    #[cfg_attr(target_arch = "arm", inline(never))]
    fn raw(&self, sparse: bool, i: usize) -> f32 {
        let p = load(word(self.pred, i));
        if sparse { cut(p) } else { p }
    }

    /// d loss / d share of a class, zero where the share was cut.
    #[cfg_attr(target_arch = "arm", inline(never))]
    fn share_slope(&self, i: usize, sum: f32) -> f32 {
        let q = div(load(word(self.pred, i)), sum);
        if inside(q) { neg(div(self.target_of(None, i), q)) } else { 0.0 }
    }

    fn categorical_logits(&self, class: Option<usize>) -> f32 {
        let n = self.pred.len();
        let top = largest(self.pred);
        let power = |i: usize| functions::exp_of(sub(load(word(self.pred, i)), top));
        let sum = (0..n).fold(0.0, |s, i| add(s, power(i)));
        let log_sum = functions::ln(sum);
        let mut loss = 0.0;
        for i in 0..n {
            let t = self.target_of(class, i);
            // A class that is not the target's takes no part, even with an infinite logit.
            if class.is_none() || class == Some(i) {
                loss = add(loss, mul(t, sub(log_sum, sub(load(word(self.pred, i)), top))));
            }
            if self.grad.is_some() {
                self.put(i, mul(sub(div(power(i), sum), t), self.weight));
            }
        }
        loss
    }
}
